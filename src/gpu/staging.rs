//! Uploads through host memory that the GPU reads itself.

use std::sync::mpsc;

use bytemuck::Pod;
use rayon::prelude::*;
use wgpu::BufferUsages;

use super::{Batch, Gpu, Ticket};
use crate::error::{Error, Result};
use crate::trace::Lane;

/// Bytes that a thread copies at a time.
const CHUNK: usize = 1 << 16;

/// Host memory that the GPU copies from: fill it, [`Batch::upload`] it, submit, and hand the ticket to [`Staging::lend`]. The next
/// fill waits for that copy only, so with two of them the host writes one while the GPU reads the other.
pub struct Staging {
    buffer: wgpu::Buffer,
    lent: Option<(Ticket, mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>)>,
}

impl Gpu {
    /// A staging buffer of `bytes`.
    ///
    /// # Errors
    /// [`Error::Gpu`] beyond `max_buffer_size`, or when memory runs out.
    pub fn staging(&self, label: &str, bytes: u64) -> Result<Staging> {
        let limit = self.limits.max_buffer_size;
        let size = bytes.max(4).next_multiple_of(4);
        self.check_size(label, size, "max_buffer_size", limit)?;
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage: BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC,
            mapped_at_creation: true,
        });
        self.check(&format!("staging buffer `{label}` of {size} bytes"))?;
        Ok(Staging { buffer, lent: None })
    }
}

impl Staging {
    /// Writes `parts` one after another, by all threads, and gives the bytes to copy (a multiple of four). Waits until the GPU has
    /// read what was there before.
    ///
    /// # Errors
    /// [`Error::Gpu`] for a lost device, or when the parts are larger than the buffer.
    pub fn fill<T: Pod>(&mut self, gpu: &Gpu, parts: &[&[T]]) -> Result<u64> {
        let failed = |text: String| Error::Gpu {
            problem: format!("upload to {} failed ({text})", gpu.info().name),
            hint: "run again, with --device cpu if it recurs".into(),
        };
        self.reclaim(gpu)?;
        let _span = gpu.trace().span(Lane::Upload, "fill");
        let bytes: usize = parts.iter().map(|part| size_of_val(*part)).sum();
        let padded = (bytes as u64).next_multiple_of(4);
        if padded > self.buffer.size() {
            return Err(failed(format!(
                "{bytes} bytes for a staging buffer of {}",
                self.buffer.size()
            )));
        }
        if padded > 0 {
            let mut view = self
                .buffer
                .get_mapped_range_mut(..padded)
                .map_err(|error| failed(error.to_string()))?;
            let parts: Vec<&[u8]> = parts
                .iter()
                .map(|part| bytemuck::cast_slice(part))
                .collect();
            let mut behind: Vec<usize> = Vec::with_capacity(parts.len());
            for part in &parts {
                behind.push(behind.last().unwrap_or(&0) + part.len());
            }
            // only chunks of a fixed size may go to other threads
            let (chunks, rest) = view.slice(..bytes).into_chunks::<CHUNK>();
            let chunks: Vec<_> = chunks.into_iter().collect();
            let n_chunks = chunks.len();
            chunks
                .into_par_iter()
                .enumerate()
                .for_each(|(index, chunk)| {
                    copy_parts(chunk.into(), index * CHUNK, &parts, &behind);
                });
            copy_parts(rest, n_chunks * CHUNK, &parts, &behind);
        }
        self.buffer.unmap();
        Ok(padded)
    }

    /// The batch of this ticket copies from here; afterwards the host may write again.
    pub fn lend(&mut self, ticket: Ticket) {
        let (sender, receiver) = mpsc::channel();
        self.buffer
            .map_async(wgpu::MapMode::Write, .., move |result| {
                // the receiver is gone when the buffer is
                let _ = sender.send(result);
            });
        self.lent = Some((ticket, receiver));
    }

    fn reclaim(&mut self, gpu: &Gpu) -> Result<()> {
        let Some((ticket, mapped)) = self.lent.take() else {
            return Ok(());
        };
        gpu.wait_mapped(&ticket, &mapped, "upload")
    }
}

/// Fills `target` with what stands from byte `first` on in all parts together; `behind` says where each part ends.
fn copy_parts(
    mut target: wgpu::WriteOnly<'_, [u8]>,
    first: usize,
    parts: &[&[u8]],
    behind: &[usize],
) {
    let mut index = behind.partition_point(|&end| end <= first);
    let mut at = first;
    while !target.is_empty() {
        let part = &parts[index][at - (behind[index] - parts[index].len())..];
        let length = part.len().min(target.len());
        let (mut place, rest) = target.split_at(length);
        place.copy_from_slice(&part[..length]);
        target = rest;
        at += length;
        index += 1;
    }
}

impl Batch<'_> {
    /// Copies the first `bytes` of `from` (a multiple of four) to the begin of `to`.
    pub fn copy_within_gpu(&mut self, from: &wgpu::Buffer, to: &wgpu::Buffer, bytes: u64) {
        self.copy_part((from, 0), (to, 0), bytes);
    }

    /// Copies `bytes` from a place in one buffer to a place in another, all multiples of four; nothing where there are none.
    pub fn copy_part(&mut self, from: (&wgpu::Buffer, u64), to: (&wgpu::Buffer, u64), bytes: u64) {
        if bytes > 0 {
            self.encoder
                .copy_buffer_to_buffer(from.0, from.1, to.0, to.1, bytes);
        }
    }

    /// Copies the first `bytes` of `from` to the begin of `to`.
    pub fn upload(&mut self, from: &Staging, to: &wgpu::Buffer, bytes: u64) {
        if bytes > 0 {
            self.encoder
                .copy_buffer_to_buffer(&from.buffer, 0, to, 0, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn parts_arrive_in_order_through_two_buffers_in_turn() {
        let Some(gpu) = crate::gpu::for_tests() else {
            return;
        };
        let mut staging = [gpu.staging("a", 64).unwrap(), gpu.staging("b", 64).unwrap()];
        let target = gpu.storage::<u16>("target", 12).unwrap();
        for turn in 0..5u16 {
            let staging = &mut staging[usize::from(turn % 2)];
            let parts: [&[u16]; 3] = [&[turn, 1, 2], &[], &[3, 4, 5, 6]];
            let bytes = staging.fill(&gpu, &parts).unwrap();
            assert_eq!(bytes, 16, "seven numbers of two bytes, whole words");
            let mut batch = gpu.batch("upload");
            batch.upload(staging, &target, bytes);
            staging.lend(batch.submit());
            let found: Vec<u16> = gpu.read(&target).unwrap();
            assert_eq!(found[..7], [turn, 1, 2, 3, 4, 5, 6]);
        }
        // several chunks, cut elsewhere than the parts
        let values: Vec<u32> = (0..50_000).collect();
        let mut large = gpu.staging("large", 200_000).unwrap();
        let target = gpu.storage::<u32>("target", values.len()).unwrap();
        let parts: Vec<&[u32]> = values.chunks(7919).collect();
        let bytes = large.fill(&gpu, &parts).unwrap();
        let mut batch = gpu.batch("upload");
        batch.upload(&large, &target, bytes);
        batch.submit();
        assert_eq!(gpu.read::<u32>(&target).unwrap(), values);
        let error = staging[0].fill(&gpu, &[&[0u8; 65][..]]).unwrap_err();
        assert!(error.to_string().contains("65 bytes"), "{error}");
    }
}
