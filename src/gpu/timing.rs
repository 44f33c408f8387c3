//! How long kernels take, by the clock of the GPU.

use std::sync::Mutex;

use super::Gpu;
use crate::error::Result;

/// Counts the launches of one batch.
///
/// Where the GPU has no clock ([`Gpu::has_timestamps`]) it stays empty, and wall time is all there is.
pub struct Timer {
    queries: Option<Queries>,
    labels: Mutex<Vec<String>>,
}

struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    seconds_per_tick: f64,
}

/// Time of one launch.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// Entry point of the shader.
    pub kernel: String,
    /// Time on the GPU \[s\].
    pub seconds: f64,
}

impl Timer {
    /// Launches counted at most; those after it run untimed.
    const CAPACITY: u32 = 1024;

    /// A timer for one batch.
    #[must_use]
    pub fn new(gpu: &Gpu) -> Timer {
        let queries = gpu.has_timestamps().then(|| Queries {
            set: gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timer"),
                ty: wgpu::QueryType::Timestamp,
                count: 2 * Self::CAPACITY,
            }),
            resolved: gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timer"),
                size: u64::from(2 * Self::CAPACITY) * 8,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            }),
            seconds_per_tick: f64::from(gpu.queue.get_timestamp_period()) * 1e-9,
        });
        Timer {
            queries,
            labels: Mutex::default(),
        }
    }

    fn labels(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.labels
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Slots for the launch of `label`.
    pub(super) fn next(&self, label: &str) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let queries = self.queries.as_ref()?;
        let mut labels = self.labels();
        let index = u32::try_from(labels.len())
            .ok()
            .filter(|&index| index < Self::CAPACITY)?;
        labels.push(label.to_string());
        Some(wgpu::ComputePassTimestampWrites {
            query_set: &queries.set,
            beginning_of_pass_write_index: Some(2 * index),
            end_of_pass_write_index: Some(2 * index + 1),
        })
    }

    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        let count = self.labels().len() as u32;
        if let (Some(queries), 1..) = (&self.queries, count) {
            encoder.resolve_query_set(&queries.set, 0..2 * count, &queries.resolved, 0);
        }
    }

    /// The times of the batch, in the order of its launches; waits for it. Empty without a clock.
    ///
    /// # Errors
    /// See [`Gpu::check`].
    pub fn read(&self, gpu: &Gpu) -> Result<Vec<Timing>> {
        let Some(queries) = &self.queries else {
            return Ok(Vec::new());
        };
        let labels = std::mem::take(&mut *self.labels());
        if labels.is_empty() {
            return Ok(Vec::new());
        }
        let ticks: Vec<u64> = gpu.read(&queries.resolved)?;
        let timings = labels
            .into_iter()
            .zip(ticks.chunks_exact(2))
            .map(|(kernel, ticks)| Timing {
                kernel,
                seconds: ticks[1].saturating_sub(ticks[0]) as f64 * queries.seconds_per_tick,
            });
        Ok(timings.collect())
    }
}
