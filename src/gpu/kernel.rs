//! Kernels, and batches of launches.

use std::time::Instant;

use bytemuck::Pod;

use super::{Gpu, Ticket, Timer};
use crate::error::{Error, Result};
use crate::trace::Lane;

/// One entry point of a shader.
///
/// Binding 0 of every kernel is its parameters; the others are named at each launch.
pub struct Kernel {
    label: String,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

impl Kernel {
    /// Compiles `entry` of the WGSL text `source`.
    ///
    /// # Errors
    /// [`Error::Gpu`] when the driver refuses it.
    pub fn new(gpu: &Gpu, source: &str, entry: &str) -> Result<Kernel> {
        let module = gpu
            .device
            .create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(entry),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
        let pipeline = gpu
            .device
            .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: None,
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // kernels write before they read
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            });
        gpu.check(&format!("kernel `{entry}`"))?;
        let layout = pipeline.get_bind_group_layout(0);
        Ok(Kernel {
            label: entry.to_string(),
            pipeline,
            layout,
        })
    }
}

/// Launches and copies that run one after another once submitted; each sees what those before it wrote.
pub struct Batch<'a> {
    gpu: &'a Gpu,
    pub(super) encoder: wgpu::CommandEncoder,
    label: String,
    timer: Option<&'a Timer>,
}

/// Submits the launches that are recorded in it, at once or when it sees fit.
pub type Submit<'a> = dyn FnMut(&dyn Fn(&mut Batch<'_>) -> Result<()>) -> Result<()> + 'a;

impl Gpu {
    /// An empty batch.
    #[must_use]
    pub fn batch(&self, label: &str) -> Batch<'_> {
        let encoder = self
            .device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(label) });
        Batch {
            gpu: self,
            encoder,
            label: label.to_string(),
            timer: None,
        }
    }
}

impl<'a> Batch<'a> {
    /// Takes the time of each launch.
    #[must_use]
    pub fn timed(mut self, timer: &'a Timer) -> Self {
        self.timer = Some(timer);
        self
    }

    /// Launches `kernel` on `workgroups` `[x, y, z]`; nothing where one of them is 0.
    ///
    /// # Errors
    /// [`Error::Gpu`] beyond `max_compute_workgroups_per_dimension`, or when the driver refuses the bindings.
    pub fn launch<P: Pod>(
        &mut self,
        kernel: &Kernel,
        params: &P,
        buffers: &[(u32, &wgpu::Buffer)],
        workgroups: [u32; 3],
    ) -> Result<()> {
        let entries: Vec<wgpu::BindGroupEntry<'_>> = buffers
            .iter()
            .map(|&(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        self.launch_with(kernel, params, &entries, workgroups)
    }

    /// [`Batch::launch`] with any kind of binding.
    ///
    /// # Errors
    /// As for [`Batch::launch`].
    pub fn launch_with<P: Pod>(
        &mut self,
        kernel: &Kernel,
        params: &P,
        entries: &[wgpu::BindGroupEntry<'_>],
        workgroups: [u32; 3],
    ) -> Result<()> {
        let limit = self.gpu.limits.max_compute_workgroups_per_dimension;
        if workgroups.iter().any(|&count| count > limit) {
            return Err(Error::Gpu {
                problem: format!(
                    "kernel `{}` needs {workgroups:?} workgroups, but max_compute_workgroups_per_dimension of {} is {limit}",
                    kernel.label,
                    self.gpu.info().name
                ),
                hint: "reconstruct a smaller reconstruct.crop, or give --device cpu".into(),
            });
        }
        if workgroups.contains(&0) {
            return Ok(());
        }
        let params = self
            .gpu
            .uniform_from("params", std::slice::from_ref(params))?;
        let entries: Vec<wgpu::BindGroupEntry<'_>> = std::iter::once(wgpu::BindGroupEntry {
            binding: 0,
            resource: params.as_entire_binding(),
        })
        .chain(entries.iter().cloned())
        .collect();
        let bind_group = self
            .gpu
            .device
            .create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&kernel.label),
                layout: &kernel.layout,
                entries: &entries,
            });
        let mut pass = self
            .encoder
            .begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some(&kernel.label),
                timestamp_writes: self.timer.and_then(|timer| timer.next(&kernel.label)),
            });
        pass.set_pipeline(&kernel.pipeline);
        pass.set_bind_group(0, &bind_group, &[]);
        pass.dispatch_workgroups(workgroups[0], workgroups[1], workgroups[2]);
        drop(pass);
        self.gpu.check(&format!("launch of `{}`", kernel.label))
    }

    /// Copies the whole of `from` into `to`, `to_offset` bytes behind its start.
    pub fn copy(&mut self, from: &wgpu::Buffer, to: &super::Readback, to_offset: u64) {
        self.encoder
            .copy_buffer_to_buffer(from, 0, &to.buffer, to_offset, from.size());
    }

    /// Hands the batch to the GPU and returns at once.
    pub fn submit(mut self) -> Ticket {
        if let Some(timer) = self.timer {
            timer.resolve(&mut self.encoder);
        }
        let ticket = Ticket(self.gpu.queue.submit([self.encoder.finish()]));
        let trace = self.gpu.trace();
        if trace.is_on() {
            let (begin, lane) = (Instant::now(), Lane::Gpu(self.gpu.info().number));
            self.gpu
                .queue
                .on_submitted_work_done(move || trace.ended(lane, &self.label, begin));
        }
        ticket
    }
}
