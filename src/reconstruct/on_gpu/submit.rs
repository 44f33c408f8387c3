//! Handing work and data over to the GPU.

use bytemuck::Pod;
use ndarray::{ArrayView3, Axis};

use crate::error::Result;
use crate::gpu::{Batch, Gpu, Staging, Ticket, Timer, Timing};

/// Submits batches, and keeps the times of their launches where they are wanted.
pub(super) struct Runner<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) timings: &'a mut Option<Vec<Timing>>,
}

impl Runner<'_> {
    pub(super) fn run(
        &mut self,
        label: &str,
        record: impl FnOnce(&mut Batch<'_>) -> Result<()>,
    ) -> Result<Ticket> {
        let timer = self.timings.is_some().then(|| Timer::new(self.gpu));
        let mut batch = match &timer {
            Some(timer) => self.gpu.batch(label).timed(timer),
            None => self.gpu.batch(label),
        };
        record(&mut batch)?;
        let ticket = batch.submit();
        if let (Some(timer), Some(all)) = (&timer, self.timings.as_mut()) {
            all.extend(timer.read(self.gpu)?);
        }
        Ok(ticket)
    }
}

/// The way up: two staging buffers in turn.
pub(super) struct Uploads {
    staging: [Staging; 2],
    /// Which staging buffer is next.
    sent: usize,
}

impl Uploads {
    pub(super) fn new(gpu: &Gpu, bytes: u64) -> Result<Uploads> {
        Ok(Uploads {
            staging: [
                gpu.staging("staging 0", bytes)?,
                gpu.staging("staging 1", bytes)?,
            ],
            sent: 0,
        })
    }

    /// Copies `parts`, one after another, to the begin of `target`.
    pub(super) fn send<T: Pod + Sync>(
        &mut self,
        runner: &mut Runner<'_>,
        parts: &[&[T]],
        target: &wgpu::Buffer,
    ) -> Result<()> {
        let staging = &mut self.staging[self.sent % 2];
        self.sent += 1;
        let bytes = staging.fill(runner.gpu, parts)?;
        let ticket = runner.run("upload", |batch| {
            batch.upload(staging, target, bytes);
            Ok(())
        })?;
        staging.lend(ticket);
        Ok(())
    }
}

/// Slices of `view` that are contiguous along axis 0.
pub(super) fn contiguous<'a, T>(view: &'a ArrayView3<'_, T>) -> Vec<&'a [T]> {
    (0..view.len_of(Axis(0)))
        .map(|index| {
            let part = view.index_axis(Axis(0), index);
            part.to_slice().expect("checked by the caller")
        })
        .collect()
}
