//! Buffers, and data in and out of them.

use std::sync::mpsc;

use bytemuck::Pod;
use wgpu::BufferUsages;

use super::{Gpu, Ticket};
use crate::error::{Error, Result};
use crate::trace::Lane;

impl Gpu {
    /// A buffer that kernels read and write, `len` elements of `T`; its content starts as zeros.
    ///
    /// # Errors
    /// [`Error::Gpu`] beyond `max_buffer_size` or `max_storage_buffer_binding_size`, or when memory runs out.
    pub fn storage<T: Pod>(&self, label: &str, len: usize) -> Result<wgpu::Buffer> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let limit = self.limits.max_storage_buffer_binding_size;
        self.buffer(
            label,
            bytes_of::<T>(len),
            usage,
            "max_storage_buffer_binding_size",
            limit,
        )
    }

    /// [`Gpu::storage`] with this content.
    ///
    /// # Errors
    /// As for [`Gpu::storage`].
    pub fn storage_from<T: Pod>(&self, label: &str, data: &[T]) -> Result<wgpu::Buffer> {
        let buffer = self.storage::<T>(label, data.len())?;
        self.write(&buffer, 0, data)?;
        Ok(buffer)
    }

    /// A small buffer that is the same for every invocation.
    ///
    /// # Errors
    /// [`Error::Gpu`] beyond `max_uniform_buffer_binding_size`, or when memory runs out.
    pub fn uniform_from<T: Pod>(&self, label: &str, data: &[T]) -> Result<wgpu::Buffer> {
        let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        let limit = self.limits.max_uniform_buffer_binding_size;
        let buffer = self.buffer(
            label,
            bytes_of::<T>(data.len()),
            usage,
            "max_uniform_buffer_binding_size",
            limit,
        )?;
        self.write(&buffer, 0, data)?;
        Ok(buffer)
    }

    fn buffer(
        &self,
        label: &str,
        size: u64,
        usage: BufferUsages,
        limit_name: &str,
        limit: u64,
    ) -> Result<wgpu::Buffer> {
        self.check_size(label, size, limit_name, limit)?;
        self.check_size(label, size, "max_buffer_size", self.limits.max_buffer_size)?;
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        });
        #[cfg(test)]
        self.ration(size);
        self.check(&format!("buffer `{label}` of {size} bytes"))?;
        Ok(buffer)
    }

    pub(super) fn check_size(&self, label: &str, size: u64, name: &str, limit: u64) -> Result<()> {
        if size <= limit {
            return Ok(());
        }
        Err(Error::Gpu {
            problem: format!(
                "buffer `{label}` needs {size} bytes, but {name} of {} is {limit} bytes",
                self.info().name
            ),
            hint: "reconstruct a smaller reconstruct.crop, or give --device cpu".into(),
        })
    }

    /// Copies `data` to the elements of `buffer` from `first` on, before the work that is submitted next.
    ///
    /// The data are copied to a staging buffer at once, while earlier work may still run.
    ///
    /// # Errors
    /// [`Error::Gpu`] when memory runs out.
    pub fn write<T: Pod>(&self, buffer: &wgpu::Buffer, first: usize, data: &[T]) -> Result<()> {
        let Some(size) = wgpu::BufferSize::new(std::mem::size_of_val(data) as u64) else {
            return Ok(());
        };
        let offset = (first * size_of::<T>()) as u64;
        if let Some(mut view) = self.queue.write_buffer_with(buffer, offset, size) {
            view.copy_from_slice(bytemuck::cast_slice(data));
            return Ok(());
        }
        self.check("upload")?;
        Err(Error::Gpu {
            problem: format!("upload of {size} bytes to {} failed", self.info().name),
            hint: "run again, with --device cpu if it recurs".into(),
        })
    }

    /// A buffer that the host can read, for `len` elements of `T`.
    ///
    /// # Errors
    /// [`Error::Gpu`] beyond `max_buffer_size`, or when memory runs out.
    pub fn readback<T: Pod>(&self, label: &str, len: usize) -> Result<Readback> {
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let limit = self.limits.max_buffer_size;
        let buffer = self.buffer(label, bytes_of::<T>(len), usage, "max_buffer_size", limit)?;
        Ok(Readback {
            buffer,
            pending: None,
        })
    }

    /// The whole content of `buffer`; waits for all work before. For tests and small results.
    ///
    /// # Errors
    /// See [`Gpu::check`].
    pub fn read<T: Pod>(&self, buffer: &wgpu::Buffer) -> Result<Vec<T>> {
        let len = buffer.size() as usize / size_of::<T>();
        let mut readback = self.readback::<T>("read", len)?;
        let mut batch = self.batch("read");
        batch.copy(buffer, &readback, 0);
        let ticket = batch.submit();
        readback.request(ticket);
        let mut values = vec![T::zeroed(); len];
        readback.take(self, |bytes: &[T]| values.copy_from_slice(&bytes[..len]))?;
        Ok(values)
    }
}

impl Gpu {
    /// Waits for the batch of `ticket`, and until the host may touch the buffer that it used.
    pub(super) fn wait_mapped(
        &self,
        ticket: &Ticket,
        mapped: &mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
        what: &str,
    ) -> Result<()> {
        let failed = |text: String| Error::Gpu {
            problem: format!("{what}: {} failed ({text})", self.info().name),
            hint: "run again, with --device cpu if it recurs".into(),
        };
        self.wait_for(ticket, what)?;
        let mapped = loop {
            match mapped.try_recv() {
                Ok(mapped) => break mapped,
                Err(mpsc::TryRecvError::Disconnected) => {
                    return Err(failed("the request was dropped".into()));
                }
                Err(mpsc::TryRecvError::Empty) => self.wait(what)?,
            }
        };
        self.check(what)?;
        mapped.map_err(|error| failed(error.to_string()))
    }
}

/// Bytes of `len` elements, at least one element and a multiple of four as copies need it.
fn bytes_of<T>(len: usize) -> u64 {
    (len.max(1) as u64 * size_of::<T>() as u64).next_multiple_of(4)
}

/// A result on its way to the host: copy into it, submit, [`Readback::request`], and later [`Readback::take`].
pub struct Readback {
    pub(super) buffer: wgpu::Buffer,
    pending: Option<Pending>,
}

struct Pending {
    ticket: Ticket,
    mapped: mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
}

impl Readback {
    /// Asks for the content as the batch of this ticket left it.
    pub fn request(&mut self, ticket: Ticket) {
        let (sender, receiver) = mpsc::channel();
        self.buffer
            .map_async(wgpu::MapMode::Read, .., move |result| {
                // the receiver is gone when the result is no longer wanted
                let _ = sender.send(result);
            });
        self.pending = Some(Pending {
            ticket,
            mapped: receiver,
        });
    }

    /// Waits for the content that was asked for and hands it to `consume`.
    ///
    /// # Errors
    /// See [`Gpu::check`].
    pub fn take<T: Pod>(&mut self, gpu: &Gpu, consume: impl FnOnce(&[T])) -> Result<()> {
        let failed = |text: String| Error::Gpu {
            problem: format!("download from {} failed ({text})", gpu.info().name),
            hint: "run again, with --device cpu if it recurs".into(),
        };
        let pending = self
            .pending
            .take()
            .ok_or_else(|| failed("nothing was asked for".into()))?;
        gpu.wait_mapped(&pending.ticket, &pending.mapped, "download")?;
        let view = self
            .buffer
            .get_mapped_range(..)
            .map_err(|error| failed(error.to_string()))?;
        let span = gpu.trace().span(Lane::Download, "slices");
        consume(bytemuck::cast_slice(&view));
        drop(span);
        drop(view);
        self.buffer.unmap();
        Ok(())
    }
}
