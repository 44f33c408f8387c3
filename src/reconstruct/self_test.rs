//! Every kernel against its twin, and how fast it runs: `tomodelta devices --test`.

pub mod kernels;
pub mod stripes;
pub mod throughput;

use std::sync::Arc;

use bytemuck::Zeroable;
use serde::Serialize;

use super::SliceJob;
use super::backproject::{
    Backproject, BackprojectParams, MAX_RAYS, RayConstants, TILE, backproject_cpu, ray_constants,
    spans, unpack_slices_cpu,
};
use super::filter::{FilterPlan, View};
use super::geometry::{Grid, InPlaneMotion, rays};
use super::ramp_filter::{
    LOCAL, RampFilter, RampFilterBuffers, RampFilterParams, multipliers, ramp_filter_cpu,
};
use super::support::Support;
use crate::config::{GpuKernel, ReconstructConfig, ReconstructMethod};
use crate::error::Result;
use crate::gpu::Gpu;
pub use stripes::StripeRate;
pub use throughput::{Kind, Rate};

/// What a kernel was asked to do, on the GPU and on the CPU.
#[derive(Debug, Clone)]
pub struct Case {
    /// Detector columns.
    pub n_cols: usize,
    /// Projections.
    pub n_angles: usize,
    /// Detector rows.
    pub n_rows: usize,
    /// Samples per pixel of the filtered row.
    pub upsample: usize,
    /// Elements that a workgroup of the filter transforms.
    pub local: usize,
    /// Rotation axis of row 0; each further row has it 0.05 px farther right.
    pub axis_px: f64,
    /// The voxels.
    pub grid: Grid,
    /// Outside this radius there are zeros.
    pub mask_radius_px: Option<f64>,
}

/// What a kernel left, element by element.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Filtered rows `[row / 4, angle, sample]`, lanes last.
    pub filtered: Vec<f32>,
    /// Slices `[slice, y, x]`.
    pub volume: Vec<f32>,
}

impl Case {
    /// A square slice as wide as the detector, axis near its middle.
    #[must_use]
    pub fn new(n_cols: usize, n_angles: usize, n_rows: usize) -> Case {
        Case {
            n_cols,
            n_angles,
            n_rows,
            upsample: 2,
            local: LOCAL,
            axis_px: (n_cols as f64 - 1.0) / 2.0 + 0.3,
            grid: Grid::square(n_cols),
            mask_radius_px: Some(n_cols as f64 / 2.0),
        }
    }

    /// The reconstruction that the case belongs to.
    #[must_use]
    pub fn job(&self) -> SliceJob {
        let angles: Vec<f64> = (0..self.n_angles)
            .map(|k| k as f64 * std::f64::consts::PI / self.n_angles as f64)
            .collect();
        SliceJob {
            n_cols: self.n_cols,
            rays: rays(
                &angles,
                InPlaneMotion {
                    shift_x_px: 0.7,
                    shift_y_px: -0.2,
                    rotation_rad: 0.05,
                },
            ),
            grid: self.grid,
            config: ReconstructConfig {
                // the twin of the kernels; the CPU would choose another where that is faster
                method: ReconstructMethod::Fbp,
                upsample: self.upsample,
                ..ReconstructConfig::default()
            },
            scale: 1.0,
            mask_radius_px: self.mask_radius_px,
            // the outermost values of the rows go on
            support: Some(Support {
                axis_px: self.axis_px,
                radius_px: 0.8 * self.n_cols as f64,
            }),
        }
    }

    fn n_packs(&self) -> usize {
        self.n_rows.div_ceil(4)
    }

    /// The rotation axis of each row.
    #[must_use]
    pub fn axes(&self) -> Vec<f64> {
        (0..self.n_rows)
            .map(|row| self.axis_px + 0.05 * row as f64)
            .collect()
    }

    /// Line integrals `[row, angle, col]` from 0 to 1, the same in every run; rows that fill up a pack are 0.
    #[must_use]
    pub fn line_integrals(&self) -> Vec<f32> {
        let wanted = self.n_rows * self.n_angles * self.n_cols;
        let mut state = 7u32;
        let mut values: Vec<f32> = (0..wanted)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32
            })
            .collect();
        values.resize(4 * self.n_packs() * self.n_angles * self.n_cols, 0.0);
        values
    }

    fn multiplier(&self, plan: &FilterPlan) -> Vec<[f32; 2]> {
        let mut axes = self.axes();
        axes.resize(4 * self.n_packs(), self.axis_px);
        axes.iter()
            .flat_map(|&axis| multipliers(plan, axis))
            .collect()
    }

    /// The twins.
    ///
    /// # Errors
    /// Those of [`FilterPlan::new`].
    pub fn run_cpu(&self) -> Result<Outcome> {
        let job = self.job();
        let plan = FilterPlan::new(&job)?;
        let params = RampFilterParams::new(&plan, self.n_packs(), self.n_angles, self.local);
        let views = views(&job, &plan);
        let mut filtered = vec![[f32::NAN; 4]; params.lens().filtered];
        ramp_filter_cpu(
            &params,
            &self.line_integrals(),
            &views,
            &plan.roll_off,
            &self.multiplier(&plan),
            &mut filtered,
        );
        let spans = spans(&self.grid, self.mask_radius_px);
        let voxels = self.grid.n_x * self.grid.n_y;
        let mut slices = vec![[f32::NAN; 4]; self.n_packs() * voxels];
        let params = BackprojectParams::new(
            &self.grid,
            &plan,
            0..self.grid.n_y,
            self.n_angles,
            self.n_rows,
        );
        backproject_cpu(
            &params,
            &ray_constants(&job, &plan),
            &filtered,
            &spans,
            &mut slices,
        );
        let mut volume = vec![f32::NAN; self.n_rows * voxels];
        unpack_slices_cpu(&params, &spans, &slices, &mut volume);
        Ok(Outcome {
            filtered: filtered.into_flattened(),
            volume,
        })
    }

    /// The kernels, launched in blocks of at most [`MAX_RAYS`] angles, all in one filtered buffer; what they write was NaN before.
    ///
    /// # Errors
    /// Those of [`FilterPlan::new`]; [`crate::Error::Gpu`].
    pub fn run_gpu(&self, gpu: &Gpu) -> Result<Outcome> {
        let job = self.job();
        let plan = FilterPlan::new(&job)?;
        let filter = RampFilter::new(gpu, &plan, self.local)?;
        let params = RampFilterParams::new(&plan, self.n_packs(), self.n_angles, filter.local);
        let buffers = RampFilterBuffers::new(gpu, &params, false)?;
        gpu.write(&buffers.line_integrals, 0, &self.line_integrals())?;
        gpu.write(&buffers.multiplier, 0, &self.multiplier(&plan))?;
        gpu.write(
            &buffers.filtered,
            0,
            &vec![[f32::NAN; 4]; params.lens().filtered],
        )?;
        let views = views(&job, &plan);
        let views = gpu.storage_from("views", &views)?;
        let mut batch = gpu.batch("filter");
        filter.launch(&mut batch, &params, &views, &buffers)?;
        batch.submit();

        let backproject = Backproject::new(gpu, GpuKernel::Plain)?;
        let voxels = self.grid.n_x * self.grid.n_y;
        let spans = gpu.storage_from("spans", &spans(&self.grid, self.mask_radius_px))?;
        let slices = gpu.storage_from("slices", &vec![[f32::NAN; 4]; self.n_packs() * voxels])?;
        let volume = gpu.storage_from("volume", &vec![f32::NAN; self.n_rows * voxels])?;
        let mut params = BackprojectParams::new(
            &self.grid,
            &plan,
            0..self.grid.n_y,
            self.n_angles,
            self.n_rows,
        );
        let constants = ray_constants(&job, &plan);
        let mut batch = gpu.batch("back-projection");
        for (block, constants) in constants.chunks(MAX_RAYS).enumerate() {
            params.first_ray = (block * MAX_RAYS) as u32;
            params.n_rays = constants.len() as u32;
            params.start = u32::from(block == 0);
            let mut rays = constants.to_vec();
            rays.resize(
                MAX_RAYS,
                RayConstants {
                    along_x: f32::NAN,
                    ..RayConstants::zeroed()
                },
            );
            let rays = gpu.uniform_from("rays", &rays)?;
            backproject.launch(
                &mut batch,
                &params,
                self.n_packs(),
                &rays,
                &buffers.filtered,
                None,
                &spans,
                &slices,
            )?;
        }
        backproject.unpack(&mut batch, &params, &spans, &slices, &volume)?;
        batch.submit();
        let filtered: Vec<[f32; 4]> = gpu.read(&buffers.filtered)?;
        Ok(Outcome {
            filtered: filtered.into_flattened(),
            volume: gpu.read(&volume)?,
        })
    }

    /// How far a kernel may be from its twin, for filtered rows and for slices.
    ///
    /// Both sides do the same operations in the same order; a driver may fuse a multiplication and an addition, which
    /// rounds once instead of twice. The transform has log2(n) + 1 such steps. A coordinate within a tile is rounded
    /// to two units in the last place of the largest; the error of a sum grows with the root of its terms, and 4 of
    /// its standard deviations hold for every voxel.
    ///
    /// # Errors
    /// Those of [`FilterPlan::new`].
    pub fn tolerances(&self, reference: &Outcome) -> Result<[f32; 2]> {
        let plan = FilterPlan::new(&self.job())?;
        let largest = peak(&reference.filtered);
        let filtered = 4.0 * f32::EPSILON * (plan.n_fft.ilog2() + 1) as f32 * largest;
        let coordinate =
            2.0 * f32::EPSILON * (2.0 * self.grid.step * (TILE * self.upsample) as f64) as f32;
        // neighbours differ by twice the largest value at most
        let per_angle = filtered + coordinate * 2.0 * largest;
        let sum = f32::EPSILON * peak(&reference.volume);
        Ok([
            filtered,
            4.0 * (self.n_angles as f32).sqrt() * (per_angle + sum),
        ])
    }
}

/// Largest absolute value; NaN counts as infinite.
fn peak(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, value| {
        if value.is_nan() {
            f32::INFINITY
        } else {
            most.max(value.abs())
        }
    })
}

/// Largest difference of two results; infinite where one of them is NaN or the lengths differ.
#[must_use]
pub fn worst(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    a.iter().zip(b).fold(0.0, |most, (a, b)| {
        if (a - b).is_nan() {
            f32::INFINITY
        } else {
            most.max((a - b).abs())
        }
    })
}

/// A kernel against its twin.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Name of the shader.
    pub kernel: String,
    /// Columns, projections, rows.
    pub size: [usize; 3],
    /// Largest difference.
    pub worst: f32,
    /// Largest difference allowed.
    pub tolerance: f32,
    /// Whether it is within, and whether a shift of the axis by half a pixel is seen.
    pub passed: bool,
}

/// What [`self_test`] found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Name, backend, driver.
    pub device: String,
    /// All of them.
    pub checks: Vec<Check>,
    /// All of them.
    pub rates: Vec<Rate>,
    /// Removal of stripes, at the same sizes.
    pub stripes: Vec<StripeRate>,
}

impl Report {
    /// Whether every kernel agrees with its twin.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.device)?;
        for check in &self.checks {
            let [cols, angles, rows] = check.size;
            writeln!(
                f,
                "  {:<17} {cols} columns x {angles} projections x {rows} rows: off by {:.2e}, {:.2e} allowed: {}",
                check.kernel,
                check.worst,
                check.tolerance,
                if check.passed { "ok" } else { "FAILED" }
            )?;
        }
        for rate in &self.rates {
            writeln!(f, "  {rate}")?;
        }
        for rate in &self.stripes {
            writeln!(f, "  {rate}")?;
        }
        Ok(())
    }
}

/// Every kernel against its twin on small cases, then the speed at each of `sizes` (side of the slice, projections).
///
/// # Errors
/// [`crate::Error::Gpu`] where a launch fails; a wrong result is no error but [`Check::passed`] = false.
pub fn self_test(gpu: &Arc<Gpu>, sizes: &[(usize, usize)]) -> Result<Report> {
    let mut checks = Vec::new();
    for case in [
        Case::new(77, 181, 3),
        Case {
            local: 64,
            upsample: 4,
            ..Case::new(131, 300, 6)
        },
    ] {
        checks.extend(check(gpu, &case)?);
    }
    checks.extend(kernels::checks(gpu)?);
    let (mut rates, mut of_stripes) = (Vec::new(), Vec::new());
    for &(n, n_angles) in sizes {
        of_stripes.push(stripes::stripe_rate(gpu, n, n_angles)?);
        for kind in [Kind::Fbp(GpuKernel::Plain), Kind::Fourier] {
            rates.push(throughput::rate(gpu, n, n_angles, kind)?);
        }
    }
    Ok(Report {
        device: gpu.describe(),
        checks,
        rates,
        stripes: of_stripes,
    })
}

/// Both kernels of `case` against their twins, with a negative control.
///
/// # Errors
/// [`crate::Error::Gpu`] where a launch fails.
pub fn check(gpu: &Gpu, case: &Case) -> Result<[Check; 2]> {
    let (reference, found) = (case.run_cpu()?, case.run_gpu(gpu)?);
    let moved = Case {
        axis_px: case.axis_px + 0.5,
        ..case.clone()
    }
    .run_cpu()?;
    let [filter_tolerance, volume_tolerance] = case.tolerances(&reference)?;
    let check = |kernel: &str, found: &[f32], reference: &[f32], moved: &[f32], tolerance: f32| {
        let off = worst(found, reference);
        // a check that cannot see half a pixel would pass anything
        let blind = worst(moved, reference) < 10.0 * tolerance;
        Check {
            kernel: kernel.into(),
            size: [case.n_cols, case.n_angles, case.n_rows],
            worst: off,
            tolerance,
            passed: off <= tolerance && !blind,
        }
    };
    Ok([
        check(
            "ramp_filter",
            &found.filtered,
            &reference.filtered,
            &moved.filtered,
            filter_tolerance,
        ),
        check(
            "backproject",
            &found.volume,
            &reference.volume,
            &moved.volume,
            volume_tolerance,
        ),
    ])
}

fn views(job: &SliceJob, plan: &FilterPlan) -> Vec<View> {
    let rays = job.rays.iter().enumerate();
    rays.map(|(angle, ray)| plan.view(angle, ray.weight))
        .collect()
}
