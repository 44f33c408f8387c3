//! Reconstruction on the GPU: counts or line integrals up, slices down, nothing of the host in between.
//!
//! Slices go in packs of four (one `vec4`), several packs at once where slices are small. Angles go in blocks: a block is uploaded,
//! corrected where it comes as counts, filtered, and added to the slices, so the memory on the GPU does not grow with the number of
//! angles. While the GPU works on a block, the host fills the other staging buffer with the next one; while it works on the
//! next packs, the host takes the finished slices out.
//!
//! Every voxel adds its angles in the order of the projections in f32, whatever the packs, blocks, bands and
//! dispatches, so results are the same bit for bit for any slab height.

mod corrections;
mod cut;
mod fbp;
mod fourier;
pub mod several;
mod submit;

use std::ops::Range;
use std::sync::Arc;

use ndarray::{ArrayView3, ArrayViewMut3, Axis, s};
use rayon::prelude::*;

use super::filter::{FilterPlan, View};
use super::fourier::Fourier;
use super::ramp_filter::{LOCAL, RampFilter, RampFilterBuffers, RampFilterParams, multipliers};
use super::{Grid, SliceJob, check};
use crate::config::ReconstructMethod;
use crate::correct::line_integrals::{CountSlab, LineIntegrals, Step, Touched, check_slab};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Readback, Timing};
use cut::{Cut, shares_memory};
use fbp::{FbpBack, chosen, is_half};
use fourier::FourierBack;
use submit::{Runner, Uploads, contiguous};

/// Reconstructs slabs of slices on a GPU; made once per scan.
pub struct GpuEngine {
    gpu: Arc<Gpu>,
    plan: FilterPlan,
    grid: Grid,
    n_angles: usize,
    filter: RampFilter,
    filter_buffers: RampFilterBuffers,
    blocks: Vec<AngleBlock>,
    back: Back,
    bands: Vec<Band>,
    uploads: Uploads,
    corrections: Option<LineIntegrals>,
    cut: Cut,
    timings: Option<Vec<Timing>>,
}

/// From spectra or filtered rows to slices.
enum Back {
    Fbp(Box<FbpBack>),
    Fourier(Box<FourierBack>),
}

/// Voxels per sample of the extended row from which on the Fourier method is the faster one on a GPU.
///
/// Counted, not measured: a voxel takes 5 operations for each angle, a sample about 36 cells x 1.4 x 15 operations beside its
/// share of the transforms. They meet at 80 voxels per sample; the rest is margin, because its memory traffic is less regular.
const VOXELS_PER_FREQUENCY: usize = 128;

/// What a slab is made from.
#[derive(Clone, Copy)]
enum Input<'a> {
    /// `[row, angle, col]`
    LineIntegrals(ArrayView3<'a, f32>),
    Counts(&'a CountSlab),
}

/// What the slices of a step are made from.
enum Part<'a> {
    /// `[row, angle, col]`
    LineIntegrals(ArrayView3<'a, f32>),
    Counts(&'a CountSlab, Step),
}

/// A block of angles with what the filter is told of them.
struct AngleBlock {
    angles: Range<usize>,
    views: wgpu::Buffer,
}

/// A band of slice rows.
struct Band {
    y: Range<usize>,
    /// `[slice, y, x]`
    volume: wgpu::Buffer,
    readbacks: [Readback; 2],
}

/// Everything that takes memory on the GPU and depends on the cut.
struct Taken {
    filter: RampFilterBuffers,
    back: Back,
    bands: Vec<Band>,
    uploads: Uploads,
}

impl Taken {
    fn new(gpu: &Gpu, job: &SliceJob, plan: &FilterPlan, cut: Cut, fourier: bool) -> Result<Taken> {
        let params = RampFilterParams::new(plan, cut.packs, cut.angles, LOCAL);
        let grid = &job.grid;
        let rows: Vec<Range<usize>> = (0..grid.n_y)
            .step_by(cut.band_rows)
            .map(|first| first..(first + cut.band_rows).min(grid.n_y))
            .collect();
        let bands = rows.iter().map(|y| {
            let values = 4 * cut.packs * y.len() * grid.n_x;
            let readback = || gpu.readback::<f32>("slices for the host", values);
            Ok(Band {
                volume: gpu.storage::<f32>("volume", values)?,
                readbacks: [readback()?, readback()?],
                y: y.clone(),
            })
        });
        let block_bytes = 4 * params.lens().line_integrals as u64;
        Ok(Taken {
            bands: bands.collect::<Result<_>>()?,
            filter: match fourier {
                true => RampFilterBuffers::forward(gpu, &params)?,
                false => RampFilterBuffers::new(gpu, &params, is_half(job.config.gpu_kernel))?,
            },
            back: match fourier {
                true => Back::Fourier(Box::new(FourierBack::new(gpu, job, plan, cut, &rows)?)),
                false => Back::Fbp(Box::new(FbpBack::new(gpu, job, plan, cut, &rows)?)),
            },
            uploads: Uploads::new(gpu, block_bytes)?,
        })
    }
}

impl GpuEngine {
    /// Chooses the method, plans the filter, cuts the work by the limits of the GPU, compiles the kernels and takes the memory.
    ///
    /// # Errors
    /// Those of [`FilterPlan::new`]; [`Error::Config`] for a Fourier reconstruction of voxels wider than a pixel;
    /// [`Error::Gpu`] when not even the smallest cut fits.
    pub fn new(gpu: Arc<Gpu>, job: &SliceJob) -> Result<Self> {
        let plan = FilterPlan::new(job)?;
        let fourier = match (job.config.method, Fourier::misfit_above(1.0, job)) {
            (ReconstructMethod::Fourier, Some(misfit)) => {
                return Err(Error::config("reconstruct.method", "fourier", misfit));
            }
            (ReconstructMethod::Fourier, None) => true,
            (ReconstructMethod::Fbp, _) | (ReconstructMethod::Auto, Some(_)) => false,
            (ReconstructMethod::Auto, None) => {
                job.grid.n_x * job.grid.n_y >= VOXELS_PER_FREQUENCY * plan.n_fft
            }
        };
        let limits = (gpu.info().kind, gpu.max_bytes());
        let new = if fourier { Cut::fourier } else { Cut::new };
        let cut = new(&plan, &job.grid, job.rays.len(), limits.0, limits.1);
        Self::with_cut(gpu, job, plan, cut, fourier)
    }

    fn with_cut(
        gpu: Arc<Gpu>,
        job: &SliceJob,
        plan: FilterPlan,
        mut cut: Cut,
        fourier: bool,
    ) -> Result<Self> {
        let filter = RampFilter::new(&gpu, &plan, LOCAL)?;
        let taken = loop {
            let mut job = job.clone();
            job.config.gpu_kernel = chosen(job.config.gpu_kernel, gpu.info().kind, cut.packs);
            match Taken::new(&gpu, &job, &plan, cut, fourier) {
                Ok(taken) => break taken,
                Err(error) => {
                    log::debug!("{error}; trying with less memory");
                    cut = cut.smaller().ok_or(error)?;
                }
            }
        };
        let blocks = (0..job.rays.len()).step_by(cut.angles).map(|first| {
            let angles = first..(first + cut.angles).min(job.rays.len());
            let views: Vec<View> = angles
                .clone()
                .map(|angle| plan.view(angle, job.rays[angle].weight))
                .collect();
            Ok(AngleBlock {
                angles,
                views: gpu.storage_from("views", &views)?,
            })
        });
        Ok(GpuEngine {
            blocks: blocks.collect::<Result<_>>()?,
            grid: job.grid,
            n_angles: job.rays.len(),
            gpu,
            plan,
            filter,
            filter_buffers: taken.filter,
            back: taken.back,
            bands: taken.bands,
            uploads: taken.uploads,
            corrections: None,
            cut,
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
        out: ArrayViewMut3<'_, f32>,
    ) -> Result<()> {
        check(
            "sinograms [row, angle, col]",
            &[axis_px.len(), self.n_angles, self.plan.n_cols],
            sinograms.shape(),
        )?;
        let rows = 0..axis_px.len();
        self.part(Input::LineIntegrals(sinograms), rows, axis_px, out)
            .map(drop)
    }

    /// Slices `[z, y, x]` of counts that are corrected on the way.
    ///
    /// # Errors
    /// As for [`GpuEngine::slab`].
    pub fn slab_of_counts(
        &mut self,
        slab: &CountSlab,
        axis_px: &[f64],
        out: ArrayViewMut3<'_, f32>,
    ) -> Result<Touched> {
        self.part(Input::Counts(slab), 0..axis_px.len(), axis_px, out)
    }

    /// The slices of `rows` of the input.
    fn part(
        &mut self,
        input: Input<'_>,
        rows: Range<usize>,
        axis_px: &[f64],
        out: ArrayViewMut3<'_, f32>,
    ) -> Result<Touched> {
        match input {
            Input::LineIntegrals(sinograms) => {
                let (n_angles, n_cols) = (self.n_angles, self.plan.n_cols);
                let n_rows = sinograms.len_of(Axis(0)).max(rows.end);
                let expected = [n_rows, n_angles, n_cols];
                check("sinograms [row, angle, col]", &expected, sinograms.shape())?;
                self.run(input, rows, axis_px, out)?;
                Ok(Touched::default())
            }
            Input::Counts(slab) => {
                check_slab(slab, self.n_angles, rows.end, self.plan.n_cols)?;
                self.prepare(slab)?;
                if let Some(corrections) = &self.corrections {
                    corrections.reset(&self.gpu)?;
                }
                self.run(input, rows, axis_px, out)?;
                match &self.corrections {
                    Some(corrections) => corrections.touched(&self.gpu),
                    None => Ok(Touched::default()),
                }
            }
        }
    }

    fn run(
        &mut self,
        input: Input<'_>,
        of_input: Range<usize>,
        axis_px: &[f64],
        mut out: ArrayViewMut3<'_, f32>,
    ) -> Result<()> {
        let n_rows = axis_px.len();
        check(
            "slices [z, y, x]",
            &[n_rows, self.grid.n_y, self.grid.n_x],
            out.shape(),
        )?;
        let mut running: Option<Range<usize>> = None;
        let mut step_before: Option<Step> = None;
        for (turn, first) in (0..n_rows).step_by(self.rows_at_once()).enumerate() {
            let rows = first..(first + self.rows_at_once()).min(n_rows);
            let from = of_input.start + rows.start..of_input.start + rows.end;
            let part = match input {
                Input::LineIntegrals(sinograms) => {
                    Part::LineIntegrals(sinograms.slice_move(s![from, .., ..]))
                }
                Input::Counts(slab) => {
                    let step = match &step_before {
                        Some(before) => slab.step(from).after(before, slab.most_kept()),
                        None => slab.step(from),
                    };
                    step_before = Some(step.clone());
                    Part::Counts(slab, step)
                }
            };
            self.start(turn % 2, &part, &axis_px[rows.clone()])?;
            if let Some(before) = running.replace(rows) {
                self.finish((turn + 1) % 2, out.slice_mut(s![before, .., ..]))?;
            }
        }
        if let Some(last) = running {
            let turn = n_rows.div_ceil(self.rows_at_once()) - 1;
            self.finish(turn % 2, out.slice_mut(s![last, .., ..]))?;
        }
        Ok(())
    }

    /// Submits everything for this part of the slab; its slices end in the readbacks `side`.
    fn start(&mut self, side: usize, part: &Part<'_>, axis_px: &[f64]) -> Result<()> {
        let gpu = Arc::clone(&self.gpu);
        let packs = axis_px.len().div_ceil(4);
        match &self.back {
            Back::Fbp(back) => {
                let lift = back.lift();
                let multiplier: Vec<[f32; 2]> = axis_px
                    .par_iter()
                    .flat_map_iter(|&axis| multipliers(&self.plan, axis))
                    .map(|[re, im]| [re * lift, im * lift])
                    .collect();
                gpu.write(&self.filter_buffers.multiplier, 0, &multiplier)?;
            }
            Back::Fourier(back) => back.set_axes(&gpu, axis_px)?,
        }
        let on_gpu = match part {
            Part::Counts(slab, step) => self.look_ahead(slab, step)?,
            Part::LineIntegrals(_) => false,
        };
        for index in 0..self.blocks.len() {
            match part {
                Part::Counts(slab, step) => self.correct(slab, step, index, on_gpu)?,
                Part::LineIntegrals(sinograms) => self.hand_over(sinograms, index)?,
            }
            self.add_block(index, packs)?;
        }
        let mut runner = Runner {
            gpu: &gpu,
            timings: &mut self.timings,
        };
        if let Back::Fourier(back) = &self.back {
            back.gather(&mut runner, packs)?;
        }
        for (index, band) in self.bands.iter_mut().enumerate() {
            let (volume, readback) = (&band.volume, &band.readbacks[side]);
            if let Back::Fourier(back) = &self.back {
                back.slices(&mut runner, index, packs, axis_px.len(), volume)?;
            }
            let ticket = runner.run("slices", |batch| {
                if let Back::Fbp(back) = &self.back {
                    back.unpack(batch, index, axis_px.len(), volume)?;
                }
                batch.copy(volume, readback, 0);
                Ok(())
            })?;
            band.readbacks[side].request(ticket);
        }
        gpu.check("back-projection")
    }

    /// Uploads line integrals of a block to where the filter reads them.
    fn hand_over(&mut self, sinograms: &ArrayView3<'_, f32>, index: usize) -> Result<()> {
        let mut runner = Runner {
            gpu: &self.gpu,
            timings: &mut self.timings,
        };
        let angles = self.blocks[index].angles.clone();
        let block = sinograms.slice(s![.., angles, ..]);
        let owned;
        let parts = if block
            .outer_iter()
            .all(|sinogram| sinogram.is_standard_layout())
        {
            contiguous(&block)
        } else {
            owned = block.as_standard_layout().into_owned();
            vec![owned.as_slice().expect("just laid out")]
        };
        let target = &self.filter_buffers.line_integrals;
        self.uploads.send(&mut runner, &parts, target)
    }

    /// Filters a block and adds it to the slices.
    fn add_block(&mut self, index: usize, packs: usize) -> Result<()> {
        let block = &self.blocks[index];
        let params =
            RampFilterParams::new(&self.plan, packs, block.angles.len(), self.filter.local);
        let mut runner = Runner {
            gpu: &self.gpu,
            timings: &mut self.timings,
        };
        runner.run("filter", |batch| match &self.back {
            Back::Fbp(_) => self
                .filter
                .launch(batch, &params, &block.views, &self.filter_buffers),
            Back::Fourier(_) => {
                self.filter
                    .launch_forward(batch, &params, &block.views, &self.filter_buffers)
            }
        })?;
        match &mut self.back {
            Back::Fbp(back) => back.add_block(
                &mut runner,
                &mut self.cut,
                index,
                packs,
                block.angles.len(),
                &self.filter_buffers.filtered,
            ),
            Back::Fourier(back) => {
                back.add_block(&mut runner, index, packs, &self.filter_buffers.lines)
            }
        }
    }

    /// Waits for the slices of `side` and copies them out, by all threads.
    fn finish(&mut self, side: usize, mut out: ArrayViewMut3<'_, f32>) -> Result<()> {
        let n_x = self.grid.n_x;
        for band in &mut self.bands {
            let slice = band.y.len() * n_x;
            let mut target = out.slice_mut(s![.., band.y.clone(), ..]);
            band.readbacks[side].take(&self.gpu, |values: &[f32]| {
                target
                    .axis_iter_mut(Axis(0))
                    .into_par_iter()
                    .zip(values.par_chunks_exact(slice))
                    .for_each(|(mut target, values)| {
                        target
                            .iter_mut()
                            .zip(values)
                            .for_each(|(to, from)| *to = *from);
                    });
            })?;
        }
        Ok(())
    }

    /// Slices to hand over at once so that no pack is partly empty.
    #[must_use]
    pub fn rows_at_once(&self) -> usize {
        4 * self.cut.packs
    }

    /// Host memory that [`GpuEngine::slab`] needs beside its arguments, for a slab of `rows` \[bytes\]: three blocks in staging
    /// buffers, the slices of two steps on their way back, and everything on the GPU where it has no memory of its own.
    #[must_use]
    pub fn scratch_bytes(&self, rows: usize) -> u64 {
        let at_once = rows.min(self.rows_at_once()) as u64;
        let block = 4 * at_once * (self.cut.angles * self.plan.n_cols) as u64;
        let slices = 4 * self.rows_at_once() as u64 * (self.grid.n_x * self.grid.n_y) as u64;
        let device = if shares_memory(self.gpu.info().kind) {
            self.device_bytes() + self.correction_bytes()
        } else {
            0
        };
        3 * block + 2 * slices + device
    }

    /// Memory taken on the GPU \[bytes\], without that of the corrections.
    #[must_use]
    pub fn device_bytes(&self) -> u64 {
        let lens = RampFilterParams::new(&self.plan, self.cut.packs, self.cut.angles, LOCAL).lens();
        let slices = 4 * self.rows_at_once() as u64 * (self.grid.n_x * self.grid.n_y) as u64;
        match &self.back {
            Back::Fbp(_) => lens.bytes().1 + 2 * slices,
            Back::Fourier(back) => {
                4 * lens.line_integrals as u64 + 8 * lens.lines as u64 + slices + back.bytes()
            }
        }
    }

    /// Method, filter, padding and device, for the record.
    #[must_use]
    pub fn describe(&self) -> String {
        let cut = format!(
            "{} slices and {} projections at once",
            self.rows_at_once(),
            self.cut.angles
        );
        match &self.back {
            Back::Fbp(_) => format!(
                "filtered back-projection on {}, rows extended from {} to {} columns, {} samples per pixel, {cut}",
                self.gpu.describe(),
                self.plan.n_cols,
                self.plan.n_fft,
                self.plan.upsample,
            ),
            Back::Fourier(back) => format!(
                "Fourier reconstruction on {}, rows extended from {} to {} columns, {}, {cut}",
                self.gpu.describe(),
                self.plan.n_cols,
                self.plan.n_fft,
                back.describe(),
            ),
        }
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
    /// [`GpuEngine::take_timings`].
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

#[cfg(test)]
mod tests;
