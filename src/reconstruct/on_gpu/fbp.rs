//! Back-projection of filtered blocks.

use std::ops::Range;
use std::time::Instant;

use bytemuck::Zeroable;

use super::{Cut, Runner};
use crate::config::GpuKernel;
use crate::error::Result;
use crate::gpu::{AdapterKind, Batch, Gpu, Texture};
use crate::reconstruct::backproject::{
    Backproject, BackprojectParams, MAX_RAYS, RayConstants, TILE, ray_constants, spans,
};
use crate::reconstruct::filter::FilterPlan;
use crate::reconstruct::{Grid, SliceJob};

/// A dispatch should take about this long \[s\]: drivers reset a GPU that does not answer for two.
const DISPATCH_SECONDS: f64 = 0.25;

/// Sums of all slices at once, and what their kernels need.
pub(super) struct FbpBack {
    kernels: Backproject,
    plan: FilterPlan,
    grid: Grid,
    /// Constants of each block.
    rays: Vec<wgpu::Buffer>,
    spans: wgpu::Buffer,
    /// Rows of each band, and its sums `[group, y, x]`.
    bands: Vec<(Range<usize>, wgpu::Buffer)>,
    /// Samples of a block, where the variant reads them from there.
    texture: Option<Texture>,
    /// Power of two that brings filtered rows to the middle of half precision.
    lift: f32,
    /// Whether the length of a dispatch was measured.
    paced: bool,
}

/// What `auto` stands for on a GPU of this kind with so many packs at once: plain and wide give the same bits.
///
/// On the software driver wide is faster by up to 10 % where packs come in pairs (benches/RESULTS.md); an odd one it sums twice.
/// On a GPU both are counted to be limited alike by the first-level cache, and plain keeps more invocations under way.
pub(super) fn chosen(variant: GpuKernel, kind: AdapterKind, packs: usize) -> GpuKernel {
    match (variant, kind) {
        (GpuKernel::Auto, AdapterKind::Software) if packs.is_multiple_of(2) => GpuKernel::Wide,
        (GpuKernel::Auto, _) => GpuKernel::Plain,
        (variant, _) => variant,
    }
}

/// Whether the variant reads half precision.
pub(super) fn is_half(variant: GpuKernel) -> bool {
    match variant {
        GpuKernel::Half | GpuKernel::TextureHalf => true,
        GpuKernel::Auto | GpuKernel::Plain | GpuKernel::Wide | GpuKernel::Texture => false,
    }
}

/// See [`FbpBack::lift`]: a filtered row is of the size of its line integrals times the arc and the unit, so these two are taken off.
fn lift(job: &SliceJob, variant: GpuKernel) -> f32 {
    let arc = job.rays.iter().map(|ray| ray.weight).sum::<f64>() / job.rays.len() as f64;
    let size = arc * job.scale.abs();
    if is_half(variant) && size.is_normal() {
        2.0_f32.powi((-size.log2().floor()).clamp(-100.0, 100.0) as i32)
    } else {
        1.0
    }
}

impl FbpBack {
    /// # Errors
    /// [`crate::Error::Gpu`] beyond a limit or when memory runs out.
    pub(super) fn new(
        gpu: &Gpu,
        job: &SliceJob,
        plan: &FilterPlan,
        cut: Cut,
        bands: &[Range<usize>],
    ) -> Result<Self> {
        let (grid, variant) = (job.grid, job.config.gpu_kernel);
        let sums = bands.iter().map(|y| {
            let voxels = cut.packs * y.len() * grid.n_x;
            Ok((y.clone(), gpu.storage::<[f32; 4]>("slices", voxels)?))
        });
        let constants = ray_constants(job, plan);
        let rays = constants.chunks(cut.angles).map(|block| {
            let mut block = block.to_vec();
            block.resize(MAX_RAYS, RayConstants::zeroed());
            gpu.uniform_from("rays", &block)
        });
        Ok(FbpBack {
            bands: sums.collect::<Result<_>>()?,
            rays: rays.collect::<Result<_>>()?,
            spans: gpu.storage_from("spans", &spans(&grid, job.mask_radius_px))?,
            kernels: Backproject::new(gpu, variant)?,
            texture: match variant {
                GpuKernel::Texture | GpuKernel::TextureHalf => {
                    let angles = cut.angles.min(job.rays.len());
                    let size = [cut.packs, angles, plan.row_stride()];
                    Some(gpu.texture("filtered", size, is_half(variant))?)
                }
                GpuKernel::Auto | GpuKernel::Plain | GpuKernel::Wide | GpuKernel::Half => None,
            },
            lift: lift(job, variant),
            plan: plan.clone(),
            grid,
            paced: false,
        })
    }

    /// What filtered rows are multiplied by.
    pub(super) fn lift(&self) -> f32 {
        self.lift
    }

    /// Adds the filtered rows of block `index` to the sums, in dispatches of at most `cut.updates`.
    pub(super) fn add_block(
        &mut self,
        runner: &mut Runner<'_>,
        cut: &mut Cut,
        index: usize,
        packs: usize,
        n_angles: usize,
        filtered: &wgpu::Buffer,
    ) -> Result<()> {
        // the first block compiles and warms up
        if index == 1 && !self.paced {
            runner.gpu.wait("back-projection")?;
        }
        if let Some(texture) = &self.texture {
            runner.run("texture", |batch| {
                batch.copy_to_texture(filtered, texture, packs, n_angles);
                Ok(())
            })?;
        }
        for (y, slices) in &self.bands {
            let mut params =
                BackprojectParams::new(&self.grid, &self.plan, y.clone(), n_angles, 4 * packs);
            params.start = u32::from(index == 0);
            if let Some(texture) = &self.texture {
                // the last block may fill a part of it only
                params.n_angles = texture.rows() as u32;
            }
            let rows = rows_per_dispatch(&params, packs, cut.updates);
            for y_start in (0..params.n_y).step_by(rows as usize) {
                params.y_start = y_start;
                params.y_end = (y_start + rows).min(y.len() as u32);
                let started = Instant::now();
                let ticket = runner.run("back-projection", |batch| {
                    self.kernels.launch(
                        batch,
                        &params,
                        packs,
                        &self.rays[index],
                        filtered,
                        self.texture.as_ref(),
                        &self.spans,
                        slices,
                    )
                })?;
                if index == 1 && !self.paced {
                    self.paced = true;
                    runner.gpu.wait_for(&ticket, "back-projection")?;
                    cut.updates = paced(
                        params.updates(packs),
                        started.elapsed().as_secs_f64(),
                        cut.updates,
                    );
                }
            }
        }
        Ok(())
    }

    /// Takes the sums of band `index` apart into `volume`.
    pub(super) fn unpack(
        &self,
        batch: &mut Batch<'_>,
        index: usize,
        n_slices: usize,
        volume: &wgpu::Buffer,
    ) -> Result<()> {
        let (y, slices) = &self.bands[index];
        let mut params = BackprojectParams::new(&self.grid, &self.plan, y.clone(), 0, n_slices);
        params.scale = 1.0 / self.lift;
        self.kernels
            .unpack(batch, &params, &self.spans, slices, volume)
    }
}

/// Updates of a dispatch, from one that took `seconds` for `updates`; within a factor of 16 of `before`.
fn paced(updates: u64, seconds: f64, before: u64) -> u64 {
    let rate = updates as f64 / seconds.max(1e-6);
    ((rate * DISPATCH_SECONDS) as u64).clamp(before / 16, before.saturating_mul(16))
}

/// Rows of a band that a dispatch may sum, whole tiles.
fn rows_per_dispatch(params: &BackprojectParams, packs: usize, updates: u64) -> u32 {
    let per_row = params.updates(packs) / u64::from(params.n_y);
    let rows = (updates / per_row.max(1)).clamp(1, u64::from(params.n_y));
    (rows as u32).next_multiple_of(TILE as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dispatch_is_paced_by_what_was_measured() {
        // 1e9 updates in one second: a quarter of them in a quarter of one
        assert_eq!(paced(1_000_000_000, 1.0, 1_000_000_000), 250_000_000);
        assert_eq!(paced(1_000_000_000, 1e-4, 1_000_000_000), 16_000_000_000);
        assert_eq!(paced(1_000, 1.0, 1_600), 250);
        assert_eq!(paced(1_000, 1e9, 1_600), 100);
        assert_eq!(paced(u64::MAX, 0.0, u64::MAX), u64::MAX);
    }
}
