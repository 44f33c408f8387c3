//! From line integrals to slices.
//!
//! Two methods on the CPU, both the same sum: filtered back-projection, whose work grows with projections x voxels, and the Fourier
//! method, which evaluates it by a non-uniform FFT to 2e-5 of the peak. `auto` takes the Fourier method where it is the faster one: not for
//! small crops, nor for voxels wider than a pixel. CPU seconds per slice on one core with AVX-512 (filter included, slabs of 32 and 4):
//!
//! | projections x columns | back-projection | Fourier |
//! |---|---|---|
//! | 1501 x 1024 | 0.157 | 0.057 |
//! | 3001 x 2048 | not run (1.26 at the same rate) | 0.223 |

pub mod acquisition;
pub mod backproject;
mod fbp;
pub mod filter;
mod fourier;
pub mod fourier_grid;
pub mod fourier_transform;
pub mod geometry;
pub mod on_gpu;
mod radix;
pub mod ramp_filter;
pub mod self_test;
pub mod support;
#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;
use std::time::{Duration, Instant};

use ndarray::{ArrayView3, ArrayViewMut3};

use crate::config::{ReconstructConfig, ReconstructMethod};
use crate::correct::line_integrals::{CountSlab, Touched};
use crate::correct::stripe::StripeRemoval;
use crate::error::{Error, Result};
use crate::gpu::Device;
use fbp::CpuFbp;
use fourier::Fourier;
use geometry::{Grid, Ray};
use on_gpu::{GpuEngine, several};
use support::Support;

/// Everything about a slice that does not depend on its row.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceJob {
    /// Detector columns.
    pub n_cols: usize,
    /// One per projection of the sinograms.
    pub rays: Vec<Ray>,
    /// The voxels.
    pub grid: Grid,
    /// Method, filter, padding, upsampling (rows and crop were applied by the caller).
    pub config: ReconstructConfig,
    /// Multiplies the attenuation per pixel: `1e4 / pixel_size_um` gives 1/cm.
    pub scale: f64,
    /// Voxels farther from the axis than this \[px\] are 0.
    pub mask_radius_px: Option<f64>,
    /// What the sample is taken for outside the field of view; `None`: nothing is known, the ends of rows roll off.
    pub support: Option<Support>,
}

impl SliceJob {
    /// The job of `config` on `grid`: the mask is a share of half the width of the detector. The sample is not known to be
    /// wider than the detector.
    #[must_use]
    pub fn new(
        n_cols: usize,
        rays: Vec<Ray>,
        grid: Grid,
        config: &ReconstructConfig,
        scale: f64,
    ) -> Self {
        let mask = config.mask_radius;
        SliceJob {
            n_cols,
            rays,
            grid,
            config: config.clone(),
            scale,
            mask_radius_px: (mask > 0.0).then_some(mask * n_cols as f64 / 2.0),
            support: None,
        }
    }

    /// The same slices of rows with `margin` columns more on either side. Rows are padded to the same length.
    #[must_use]
    pub fn widened(mut self, margin: usize) -> Self {
        let n_cols = self.n_cols + 2 * margin;
        let longer = n_cols as f64 / self.n_cols.max(1) as f64;
        if let Some(support) = &mut self.support {
            support.axis_px += margin as f64;
        }
        self.config.padding = (self.config.padding / longer).max(1.0);
        self.n_cols = n_cols;
        self
    }
}

/// Reconstructs slabs of slices; made once per scan.
pub struct Reconstructor {
    n_cols: usize,
    n_angles: usize,
    n_x: usize,
    n_y: usize,
    filter: String,
    /// Voxels inside the mask, times the angles.
    updates_per_slice: u64,
    engine: Engine,
    spent: Vec<Spent>,
}

/// What a part of the reconstruction took so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// Which part.
    pub name: &'static str,
    /// Wall time.
    pub time: Duration,
    /// Voxel updates; the Fourier method is credited with those of back-projection.
    pub updates: u64,
}

/// What does the work.
enum Engine {
    Fbp(CpuFbp),
    Gpu(Box<GpuEngine>),
    Several(Vec<GpuEngine>),
    Fourier(Fourier),
}

impl Reconstructor {
    /// Chooses the method, prepares filters and buffers.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] for limits of the device, [`crate::Error::Config`] for a method that does not fit.
    pub fn new(job: SliceJob, device: &Device) -> Result<Self> {
        let method = job.config.method;
        let engine = match device {
            Device::Gpu(gpu) => Engine::Gpu(Box::new(GpuEngine::new(gpu.clone(), &job)?)),
            Device::Several(gpus) => {
                let engines = gpus.iter().map(|gpu| GpuEngine::new(gpu.clone(), &job));
                Engine::Several(engines.collect::<Result<_>>()?)
            }
            Device::Cpu => match method {
                ReconstructMethod::Fbp => Engine::Fbp(CpuFbp::new(&job)?),
                ReconstructMethod::Fourier => Engine::Fourier(Fourier::new(&job)?),
                ReconstructMethod::Auto if Fourier::pays(&job) => {
                    Engine::Fourier(Fourier::new(&job)?)
                }
                ReconstructMethod::Auto => Engine::Fbp(CpuFbp::new(&job)?),
            },
        };
        Ok(Reconstructor {
            n_cols: job.n_cols,
            n_angles: job.rays.len(),
            n_x: job.grid.n_x,
            n_y: job.grid.n_y,
            filter: format!(
                "{:?} filter, cutoff {}",
                job.config.filter, job.config.cutoff
            ),
            updates_per_slice: updates_per_slice(&job),
            engine,
            spent: Vec::new(),
        })
    }

    /// What every part took so far.
    #[must_use]
    pub fn spent(&self) -> &[Spent] {
        &self.spent
    }

    fn spend(&mut self, rows: usize, time: Duration, filtering: Option<Duration>) {
        let name = match &self.engine {
            Engine::Fbp(_) => "back-project",
            Engine::Gpu(_) | Engine::Several(_) => "reconstruct on the GPU",
            Engine::Fourier(_) => "Fourier reconstruction",
        };
        let updates = self.updates_per_slice * rows as u64;
        let rest = time.saturating_sub(filtering.unwrap_or_default());
        for (name, time, updates) in filtering
            .map(|time| ("filter", time, 0))
            .into_iter()
            .chain([(name, rest, updates)])
        {
            match self.spent.iter_mut().find(|spent| spent.name == name) {
                Some(spent) => {
                    spent.time += time;
                    spent.updates += updates;
                }
                None => self.spent.push(Spent {
                    name,
                    time,
                    updates,
                }),
            }
        }
    }

    /// Slices `[z, y, x]` of sinograms `[row, angle, col]`; `axis_px` is the rotation axis of each row.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the shapes do not fit the job; [`crate::Error::Gpu`] for a lost device.
    pub fn slab(
        &mut self,
        sinograms: ArrayView3<'_, f32>,
        axis_px: &[f64],
        out: ArrayViewMut3<'_, f32>,
    ) -> Result<()> {
        let rows = axis_px.len();
        check(
            "sinograms [row, angle, col]",
            &[rows, self.n_angles, self.n_cols],
            sinograms.shape(),
        )?;
        check("slices [z, y, x]", &[rows, self.n_y, self.n_x], out.shape())?;
        check_axes(axis_px)?;
        let started = Instant::now();
        let mut filtering = None;
        match &mut self.engine {
            Engine::Fbp(fbp) => filtering = Some(fbp.slab(sinograms, axis_px, out)),
            Engine::Gpu(fbp) => fbp.slab(sinograms, axis_px, out)?,
            Engine::Several(engines) => several::slab(engines, sinograms, axis_px, out)?,
            Engine::Fourier(fourier) => fourier.slab(sinograms, axis_px, out),
        }
        self.spend(rows, started.elapsed(), filtering);
        Ok(())
    }

    /// Takes the memory for the corrections of such counts.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] where they do not fit; the counts can still be corrected on the CPU.
    pub fn takes(&mut self, slab: &CountSlab) -> Result<()> {
        match &mut self.engine {
            Engine::Gpu(engine) => engine.prepare(slab),
            Engine::Several(engines) => engines.iter_mut().try_for_each(|one| one.prepare(slab)),
            Engine::Fbp(_) | Engine::Fourier(_) => Err(no_gpu()),
        }
    }

    /// Slices of counts that are corrected on the GPU, and what was touched.
    ///
    /// # Errors
    /// As for [`Reconstructor::slab`]; [`crate::Error::Gpu`] where [`Reconstructor::off_device`] gives a reason.
    pub fn slab_of_counts(
        &mut self,
        slab: &CountSlab,
        axis_px: &[f64],
        out: ArrayViewMut3<'_, f32>,
    ) -> Result<Touched> {
        check_axes(axis_px)?;
        let started = Instant::now();
        let touched = match &mut self.engine {
            Engine::Gpu(engine) => engine.slab_of_counts(slab, axis_px, out)?,
            Engine::Several(engines) => several::slab_of_counts(engines, slab, axis_px, out)?,
            Engine::Fbp(_) | Engine::Fourier(_) => return Err(no_gpu()),
        };
        self.spend(axis_px.len(), started.elapsed(), None);
        Ok(touched)
    }

    /// Why counts are not corrected where the slices are made, if so.
    #[must_use]
    pub fn off_device(&self) -> Option<String> {
        match &self.engine {
            Engine::Gpu(_) | Engine::Several(_) => None,
            Engine::Fbp(_) | Engine::Fourier(_) => Some("slices are made on the CPU".into()),
        }
    }

    /// Host memory that [`Reconstructor::slab`] needs beside its arguments, for a slab of `rows` \[bytes\].
    #[must_use]
    pub fn scratch_bytes(&self, rows: usize) -> u64 {
        match &self.engine {
            Engine::Fbp(fbp) => fbp.scratch_bytes(rows),
            Engine::Gpu(fbp) => fbp.scratch_bytes(rows),
            Engine::Several(engines) => engines.iter().map(|one| one.scratch_bytes(rows)).sum(),
            Engine::Fourier(fourier) => fourier.scratch_bytes(rows),
        }
    }

    /// Host memory that corrections of whole columns take beside, with this stripe removal, where counts are corrected on a
    /// GPU that has no memory of its own \[bytes\].
    #[must_use]
    pub fn column_bytes(&self, stripes: Option<&StripeRemoval>) -> u64 {
        match &self.engine {
            Engine::Fbp(_) | Engine::Fourier(_) => 0,
            Engine::Gpu(engine) => engine.column_bytes(stripes),
            Engine::Several(engines) => engines.iter().map(|one| one.column_bytes(stripes)).sum(),
        }
    }

    /// Method, filter, padding and device, for the record.
    #[must_use]
    pub fn describe(&self) -> String {
        let engine = match &self.engine {
            Engine::Fbp(fbp) => fbp.describe(),
            Engine::Gpu(fbp) => fbp.describe(),
            Engine::Several(engines) => {
                let all: Vec<String> = engines.iter().map(GpuEngine::describe).collect();
                all.join(", and ")
            }
            Engine::Fourier(fourier) => fourier.describe(),
        };
        format!("{engine}; {}", self.filter)
    }
}

fn no_gpu() -> Error {
    Error::Gpu {
        problem: "counts can be corrected on a GPU only where one reconstructs".into(),
        hint: "give --device gpu".into(),
    }
}

fn check_axes(axis_px: &[f64]) -> Result<()> {
    match axis_px
        .iter()
        .find(|axis| !axis.is_finite() || axis.abs() > 1e7)
    {
        None => Ok(()),
        Some(axis) => Err(Error::config(
            "center.value",
            axis,
            "the rotation axis must be a detector column",
        )),
    }
}

/// Voxels that the mask leaves, times the projections.
fn updates_per_slice(job: &SliceJob) -> u64 {
    let grid = &job.grid;
    let voxels: usize = (0..grid.n_y)
        .map(|y| inside(grid, job.mask_radius_px, y, 0, grid.n_x).len())
        .sum();
    voxels as u64 * job.rays.len() as u64
}

/// Which of the `n_x` voxels from `x` on in row `y` of the slice stand within `radius` of the axis, counted from `x`.
fn inside(grid: &Grid, radius: Option<f64>, y: usize, x: usize, n_x: usize) -> Range<usize> {
    let Some(radius) = radius else { return 0..n_x };
    let at_y = grid.y0 - y as f64 * grid.step;
    let is_inside =
        |i: usize| (grid.x0 + (x + i) as f64 * grid.step).powi(2) + at_y.powi(2) <= radius.powi(2);
    let from = (0..n_x).find(|&i| is_inside(i)).unwrap_or(n_x);
    let to = (from..n_x)
        .rev()
        .find(|&i| is_inside(i))
        .map_or(from, |i| i + 1);
    from..to
}

/// An error that names what does not fit.
fn check(what: &str, expected: &[usize], found: &[usize]) -> Result<()> {
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
