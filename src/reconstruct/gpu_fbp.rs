//! Filtered back-projection on the GPU: line integrals up, slices down, nothing of the host in between.
//!
//! Slices go in packs of four (one `vec4`), several packs at once where slices are small. Angles go in blocks: a block is
//! uploaded, filtered, and added to the slices, so the memory on the GPU does not grow with the number of angles.
//! While the GPU works on a block, the host copies the next one into a staging buffer; while it works on the next
//! packs, the host takes the finished slices out.
//!
//! Every voxel adds its angles in the order of the projections in f32, whatever the packs, blocks, bands and
//! dispatches, so results are the same bit for bit for any slab height.

use std::ops::Range;
use std::sync::Arc;

use bytemuck::Zeroable;
use ndarray::{ArrayView3, ArrayViewMut3, s};

use super::SliceJob;
use super::backproject::{
    Backproject, BackprojectParams, MAX_RAYS, RayConstants, TILE, ray_constants, spans,
};
use super::filter::FilterPlan;
use super::ramp_filter::{LOCAL, RampFilter, RampFilterBuffers, RampFilterParams, multipliers};
use crate::error::{Error, Result};
use crate::gpu::{AdapterKind, Gpu, Readback, Ticket, Timer, Timing};

/// Buffers of a block take at most this \[bytes\], so that they fit beside the slices on a small GPU.
const BLOCK_BYTES: u64 = 256 << 20;
/// The same where the memory of the GPU is that of the host.
const SHARED_BLOCK_BYTES: u64 = 96 << 20;
/// Packs of four slices are joined until a dispatch covers about this many voxels of one slice.
const VOXELS_PER_DISPATCH: usize = 1 << 22;

/// Reconstructs slabs of slices on a GPU; made once per scan.
pub struct GpuFbp {
    gpu: Arc<Gpu>,
    plan: FilterPlan,
    grid: super::Grid,
    n_angles: usize,
    filter: RampFilter,
    backproject: Backproject,
    blocks: Vec<AngleBlock>,
    spans: wgpu::Buffer,
    cut: Cut,
    buffers: Buffers,
    timings: Option<Vec<Timing>>,
}

/// How the work is cut for this GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    /// Packs of four slices at once.
    packs: usize,
    /// Angles of a block; even where there are several blocks, so that the same two angles share a transform in any cut.
    angles: usize,
    /// Slice rows of a band: one buffer of slices holds no more. Whole tiles.
    band_rows: usize,
    /// Voxel updates of a dispatch at most, so that it ends well within a second.
    updates: u64,
}

/// Constants of a block of angles.
struct AngleBlock {
    angles: Range<usize>,
    rays: wgpu::Buffer,
    weights: wgpu::Buffer,
}

/// A band of slice rows.
struct Band {
    y: Range<usize>,
    slices: wgpu::Buffer,
    volume: wgpu::Buffer,
    readbacks: [Readback; 2],
}

struct Buffers {
    filter: RampFilterBuffers,
    bands: Vec<Band>,
}

impl Cut {
    /// From the limits of the GPU: `bytes` is the largest buffer that a kernel may see.
    fn new(
        plan: &FilterPlan,
        grid: &super::Grid,
        n_angles: usize,
        kind: AdapterKind,
        max_bytes: u64,
    ) -> Cut {
        let block_bytes = if shares_memory(kind) {
            SHARED_BLOCK_BYTES
        } else {
            BLOCK_BYTES
        };
        let fits = |packs: usize, angles: usize| {
            let (largest, all) = RampFilterParams::new(plan, packs, angles, LOCAL)
                .lens()
                .bytes();
            largest <= max_bytes && all <= block_bytes
        };
        let mut angles = n_angles.min(MAX_RAYS);
        while angles > 2 && !fits(1, angles) {
            angles = (angles / 2).next_multiple_of(2);
        }
        let band_rows =
            ((max_bytes / (16 * grid.n_x as u64)) as usize / TILE * TILE).clamp(TILE, 65_504);
        // 65535 workgroups along an axis are always there; along z they count rows times phases
        let most = if band_rows < grid.n_y { 1 } else { 64 };
        let mut packs = (VOXELS_PER_DISPATCH / (grid.n_x * grid.n_y)).clamp(1, most);
        let slice_bytes = |packs: usize| 16 * (packs * grid.n_x * band_rows.min(grid.n_y)) as u64;
        while packs > 1 && !(fits(packs, angles) && slice_bytes(packs) <= max_bytes) {
            packs -= 1;
        }
        Cut {
            packs,
            angles,
            band_rows,
            updates: updates_per_dispatch(kind),
        }
    }

    /// A smaller one, for when memory runs out.
    fn smaller(self) -> Option<Cut> {
        match (self.packs, self.angles) {
            (2.., _) => Some(Cut {
                packs: self.packs / 2,
                ..self
            }),
            (_, 33..) => Some(Cut {
                angles: (self.angles / 2).next_multiple_of(2),
                ..self
            }),
            _ => None,
        }
    }
}

/// Whether what is taken on the GPU is taken from the host.
fn shares_memory(kind: AdapterKind) -> bool {
    matches!(kind, AdapterKind::Software | AdapterKind::Integrated)
}

/// A tenth to half of a second on a slow GPU of its kind: drivers reset a GPU that does not answer for two seconds.
fn updates_per_dispatch(kind: AdapterKind) -> u64 {
    match kind {
        AdapterKind::Discrete | AdapterKind::Virtual => 5_000_000_000,
        AdapterKind::Integrated | AdapterKind::Unknown => 1_000_000_000,
        AdapterKind::Software => 100_000_000,
    }
}

impl GpuFbp {
    /// Plans the filter, cuts the work by the limits of the GPU, compiles the kernels and takes the memory.
    ///
    /// # Errors
    /// Those of [`FilterPlan::new`]; [`Error::Gpu`] when not even the smallest cut fits.
    pub fn new(gpu: Arc<Gpu>, job: &SliceJob) -> Result<Self> {
        let plan = FilterPlan::new(job)?;
        let cut = Cut::new(
            &plan,
            &job.grid,
            job.rays.len(),
            gpu.info().kind,
            gpu.max_bytes(),
        );
        Self::with_cut(gpu, job, plan, cut)
    }

    fn with_cut(gpu: Arc<Gpu>, job: &SliceJob, plan: FilterPlan, mut cut: Cut) -> Result<Self> {
        let filter = RampFilter::new(&gpu, &plan, LOCAL)?;
        let backproject = Backproject::new(&gpu)?;
        let buffers = loop {
            match Buffers::new(&gpu, &plan, &job.grid, cut) {
                Ok(buffers) => break buffers,
                Err(error) => {
                    log::debug!("{error}; trying with less memory");
                    cut = cut.smaller().ok_or(error)?;
                }
            }
        };
        let constants = ray_constants(job, &plan);
        let blocks = (0..job.rays.len()).step_by(cut.angles).map(|first| {
            let angles = first..(first + cut.angles).min(job.rays.len());
            let mut rays = constants[angles.clone()].to_vec();
            rays.resize(MAX_RAYS, RayConstants::zeroed());
            let weights: Vec<f32> = job.rays[angles.clone()]
                .iter()
                .map(|ray| ray.weight as f32)
                .collect();
            Ok(AngleBlock {
                angles,
                rays: gpu.uniform_from("rays", &rays)?,
                weights: gpu.storage_from("weights", &weights)?,
            })
        });
        Ok(GpuFbp {
            blocks: blocks.collect::<Result<_>>()?,
            spans: gpu.storage_from("spans", &spans(&job.grid, job.mask_radius_px))?,
            grid: job.grid,
            n_angles: job.rays.len(),
            gpu,
            plan,
            filter,
            backproject,
            cut,
            buffers,
            timings: None,
        })
    }

    /// Slices `[z, y, x]` of sinograms `[row, angle, col]`; `axis_px` is the rotation axis of each row.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes do not fit the job; [`Error::Gpu`] for a lost device or memory that ran out.
    pub fn slab(
        &mut self,
        sinograms: ArrayView3<'_, f32>,
        axis_px: &[f64],
        mut out: ArrayViewMut3<'_, f32>,
    ) -> Result<()> {
        let n_rows = axis_px.len();
        check_shape(
            "sinograms [row, angle, col]",
            [n_rows, self.n_angles, self.plan.n_cols],
            sinograms.shape(),
        )?;
        check_shape(
            "slices [z, y, x]",
            [n_rows, self.grid.n_y, self.grid.n_x],
            out.shape(),
        )?;
        let mut running: Option<Range<usize>> = None;
        for (turn, first) in (0..n_rows).step_by(4 * self.cut.packs).enumerate() {
            let rows = first..(first + 4 * self.cut.packs).min(n_rows);
            self.start(
                turn % 2,
                sinograms.slice(s![rows.clone(), .., ..]),
                &axis_px[rows.clone()],
            )?;
            if let Some(before) = running.replace(rows) {
                self.finish((turn + 1) % 2, out.slice_mut(s![before, .., ..]))?;
            }
        }
        if let Some(last) = running {
            let turn = n_rows.div_ceil(4 * self.cut.packs) - 1;
            self.finish(turn % 2, out.slice_mut(s![last, .., ..]))?;
        }
        Ok(())
    }

    /// Submits everything for these rows; their slices end in the readbacks `side`.
    fn start(
        &mut self,
        side: usize,
        sinograms: ArrayView3<'_, f32>,
        axis_px: &[f64],
    ) -> Result<()> {
        let gpu = Arc::clone(&self.gpu);
        let packs = axis_px.len().div_ceil(4);
        let multiplier: Vec<[f32; 2]> = axis_px
            .iter()
            .flat_map(|&axis| multipliers(&self.plan, axis))
            .collect();
        gpu.write(&self.buffers.filter.multiplier, 0, &multiplier)?;
        let mut tickets: Vec<Ticket> = Vec::with_capacity(self.blocks.len());
        for index in 0..self.blocks.len() {
            // two blocks on their way are enough to keep the GPU busy; more would only fill host memory
            if let Some(before) = index.checked_sub(2) {
                gpu.wait_for(&tickets[before], "back-projection")?;
            }
            let angles = self.blocks[index].angles.clone();
            self.upload(sinograms.slice(s![.., angles, ..]))?;
            tickets.push(self.add_block(index, packs)?);
        }
        for band in &mut self.buffers.bands {
            let params =
                BackprojectParams::new(&self.grid, &self.plan, band.y.clone(), 0, axis_px.len());
            let mut batch = gpu.batch("slices");
            self.backproject.unpack(
                &mut batch,
                &params,
                &self.spans,
                &band.slices,
                &band.volume,
            )?;
            batch.copy(&band.volume, &band.readbacks[side], 0);
            let ticket = batch.submit();
            band.readbacks[side].request(ticket);
        }
        gpu.check("back-projection")
    }

    /// Line integrals `[row, angle, col]` of a block.
    fn upload(&self, block: ArrayView3<'_, f32>) -> Result<()> {
        let row_len = block.len() / block.shape()[0];
        for (row, sinogram) in block.outer_iter().enumerate() {
            let to = &self.buffers.filter.line_integrals;
            match sinogram.as_slice() {
                Some(values) => self.gpu.write(to, row * row_len, values)?,
                None => self.gpu.write(
                    to,
                    row * row_len,
                    &sinogram.iter().copied().collect::<Vec<f32>>(),
                )?,
            }
        }
        Ok(())
    }

    /// Filters a block and adds it to the slices.
    fn add_block(&mut self, index: usize, packs: usize) -> Result<Ticket> {
        let block = &self.blocks[index];
        let timer = self.timings.is_some().then(|| Timer::new(&self.gpu));
        let begin = |label| match &timer {
            Some(timer) => self.gpu.batch(label).timed(timer),
            None => self.gpu.batch(label),
        };
        let params =
            RampFilterParams::new(&self.plan, packs, block.angles.len(), self.filter.local);
        let mut batch = begin("filter");
        self.filter
            .launch(&mut batch, &params, &block.weights, &self.buffers.filter)?;
        let mut ticket = batch.submit();
        let mut timings = timer
            .as_ref()
            .map(|timer| timer.read(&self.gpu))
            .transpose()?
            .unwrap_or_default();
        for band in &self.buffers.bands {
            let mut params = BackprojectParams::new(
                &self.grid,
                &self.plan,
                band.y.clone(),
                block.angles.len(),
                4 * packs,
            );
            params.start = u32::from(index == 0);
            let rows = rows_per_dispatch(&params, packs, self.cut.updates);
            for y_start in (0..params.n_y).step_by(rows as usize) {
                params.y_start = y_start;
                params.y_end = (y_start + rows).min(band.y.len() as u32);
                let mut batch = begin("back-projection");
                self.backproject.launch(
                    &mut batch,
                    &params,
                    packs,
                    &block.rays,
                    &self.buffers.filter.filtered,
                    &self.spans,
                    &band.slices,
                )?;
                ticket = batch.submit();
                if let Some(timer) = &timer {
                    timings.extend(timer.read(&self.gpu)?);
                }
            }
        }
        if let Some(all) = &mut self.timings {
            all.extend(timings);
        }
        Ok(ticket)
    }

    /// Waits for the slices of `side` and copies them out.
    fn finish(&mut self, side: usize, mut out: ArrayViewMut3<'_, f32>) -> Result<()> {
        let (n_slices, n_x) = (out.shape()[0], self.grid.n_x);
        for band in &mut self.buffers.bands {
            let n_y = band.y.len();
            let mut target = out.slice_mut(s![.., band.y.clone(), ..]);
            band.readbacks[side].take(&self.gpu, |values: &[f32]| {
                let values = &values[..n_slices * n_y * n_x];
                let view = ArrayView3::from_shape((n_slices, n_y, n_x), values)
                    .expect("cut to this length");
                target.assign(&view);
            })?;
        }
        Ok(())
    }

    /// Slices to hand over at once so that no pack is partly empty.
    #[must_use]
    pub fn rows_at_once(&self) -> usize {
        4 * self.cut.packs
    }

    /// Host memory that [`GpuFbp::slab`] needs beside its arguments, for a slab of `rows` \[bytes\]: three blocks in staging
    /// buffers, the slices of two steps on their way back, and everything on the GPU where it has no memory of its own.
    #[must_use]
    pub fn scratch_bytes(&self, rows: usize) -> u64 {
        let at_once = rows.min(self.rows_at_once()) as u64;
        let block = 4 * at_once * (self.cut.angles * self.plan.n_cols) as u64;
        let slices = 4 * self.rows_at_once() as u64 * (self.grid.n_x * self.grid.n_y) as u64;
        let device = if shares_memory(self.gpu.info().kind) {
            self.device_bytes()
        } else {
            0
        };
        3 * block + 2 * slices + device
    }

    /// Memory taken on the GPU \[bytes\].
    #[must_use]
    pub fn device_bytes(&self) -> u64 {
        let (_, block) = RampFilterParams::new(&self.plan, self.cut.packs, self.cut.angles, LOCAL)
            .lens()
            .bytes();
        block + 2 * 4 * self.rows_at_once() as u64 * (self.grid.n_x * self.grid.n_y) as u64
    }

    /// Method, filter, padding and device, for the record.
    #[must_use]
    pub fn describe(&self) -> String {
        format!(
            "filtered back-projection on {}, rows extended from {} to {} columns, {} samples per pixel, {} slices and {} \
             projections at once",
            self.gpu.describe(),
            self.plan.n_cols,
            self.plan.n_fft,
            self.plan.upsample,
            self.rows_at_once(),
            self.cut.angles
        )
    }

    /// Parameters of the filter for every block of a full step.
    pub(super) fn filter_params(&self) -> Vec<RampFilterParams> {
        let params = |block: &AngleBlock| {
            RampFilterParams::new(
                &self.plan,
                self.cut.packs,
                block.angles.len(),
                self.filter.local,
            )
        };
        self.blocks.iter().map(params).collect()
    }

    /// From now on the time of each launch is kept (the GPU waits for the host after each batch); see
    /// [`GpuFbp::take_timings`].
    pub fn keep_timings(&mut self) {
        self.timings = Some(Vec::new());
    }

    /// The times kept since the last call; empty where the GPU has no clock.
    pub fn take_timings(&mut self) -> Vec<Timing> {
        self.timings
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }
}

/// Rows of a band that a dispatch may sum, whole tiles.
fn rows_per_dispatch(params: &BackprojectParams, packs: usize, updates: u64) -> u32 {
    let per_row = params.updates(packs) / u64::from(params.n_y);
    let rows = (updates / per_row.max(1)).clamp(1, u64::from(params.n_y));
    (rows as u32).next_multiple_of(TILE as u32)
}

fn check_shape(what: &str, expected: [usize; 3], found: &[usize]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Shape {
        what: what.into(),
        expected: expected.to_vec(),
        found: found.to_vec(),
        hint: "one rotation axis per row, and the columns, projections and grid of the job".into(),
    })
}

impl Buffers {
    fn new(gpu: &Gpu, plan: &FilterPlan, grid: &super::Grid, cut: Cut) -> Result<Buffers> {
        let params = RampFilterParams::new(plan, cut.packs, cut.angles, LOCAL);
        let bands = (0..grid.n_y).step_by(cut.band_rows).map(|first| {
            let y = first..(first + cut.band_rows).min(grid.n_y);
            let voxels = cut.packs * y.len() * grid.n_x;
            let readback = || gpu.readback::<f32>("slices for the host", 4 * voxels);
            Ok(Band {
                slices: gpu.storage::<[f32; 4]>("slices", voxels)?,
                volume: gpu.storage::<f32>("volume", 4 * voxels)?,
                readbacks: [readback()?, readback()?],
                y,
            })
        });
        Ok(Buffers {
            bands: bands.collect::<Result<_>>()?,
            filter: RampFilterBuffers::new(gpu, &params)?,
        })
    }
}

#[cfg(test)]
mod tests;
