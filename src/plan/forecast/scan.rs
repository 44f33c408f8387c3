//! What the rows and slices of one scan cost.

use std::ops::Range;

use ndarray::{Array2, Array3};

use super::cost::{Cost, repeated, spent};
use crate::center;
use crate::config::{CenterConfig, Config, ReconstructMethod};
use crate::correct::line_integrals::CountSlab;
use crate::correct::stripe::StripeRemoval;
use crate::error::Result;
use crate::gpu::Device;
use crate::pipeline::binned;
use crate::pipeline::heights::Heights;
use crate::pipeline::match_axes;
use crate::pipeline::pilot::BLOCK_WIDTH;
use crate::pipeline::rows::{PlainSource, ShiftedRows};
use crate::plan::{HALO_ROWS, ScanPlan, disk, slice_grid};
use crate::progress::Progress;
use crate::reconstruct::geometry::{Grid, InPlaneMotion, rays};
use crate::reconstruct::self_test::throughput::counts;
use crate::reconstruct::{Reconstructor, SliceJob};
use crate::scan::{Scan, SinogramSource, Sinograms};

/// Bytes of frames read for the trial.
const TRIAL_BYTES: usize = 64 << 20;
/// Side of the part of a slice that is back-projected for the trial \[voxel\].
const TRIAL_SIDE: usize = 256;

/// Cost of one row and one slice of a scan.
pub(super) struct Unit {
    /// Correcting one row.
    pub(super) correct: Cost,
    /// Averaging one row of the detector into those of the volume, and one of these into those of a pilot.
    pub(super) bin: Cost,
    pub(super) bin_pilot: Cost,
    /// One slice.
    pub(super) reconstruct: Cost,
    /// Per byte decoded.
    pub(super) read: Cost,
    /// For the whole search of the axis, without reading and correcting.
    pub(super) axis: Cost,
    /// Interpolating one slice's rows between those of the detector; nothing for a scan that is not moved.
    pub(super) place: Cost,
    /// One slice of a pilot, and one of a block at full resolution; nothing where nothing is aligned.
    pub(super) pilot: Cost,
    pub(super) block: Cost,
    /// Holding its axis against that of the reference, without reading and correcting.
    pub(super) match_axes: Cost,
}

impl Unit {
    pub(super) fn tried(
        config: &Config,
        plan: &ScanPlan,
        scan: &Scan,
        device: &Device,
    ) -> Result<Unit> {
        let slices = SliceTrial {
            config,
            plan,
            scan,
            device,
        };
        let moved = plan.reference.is_some();
        let aligned = moved && config.align.searches();
        let when = |wanted: bool, trial: &dyn Fn() -> Result<Cost>| match wanted {
            true => trial(),
            false => Ok(Cost::NONE),
        };
        Ok(Unit {
            read: read(plan, scan)?,
            correct: crate::correct::cost_per_row(
                plan.shape,
                plan.slab,
                &config.correct,
                scan.pixel_size_um,
            ),
            bin: binned::cost_per_row([scan.n_angles(), scan.n_cols()], plan.binning),
            bin_pilot: when(aligned, &|| {
                let row = [scan.n_angles(), scan.n_cols() / plan.binning];
                Ok(binned::cost_per_row(row, plan.pilot_binning))
            })?,
            reconstruct: slices.of_the_volume()?,
            axis: axis(scan, &config.center),
            place: when(moved, &|| place(plan, scan))?,
            pilot: when(aligned, &|| slices.of_a_pilot())?,
            match_axes: when(aligned && config.align.match_axis, &|| {
                Ok(match_axes::cost([
                    scan.n_angles(),
                    plan.rows.len(),
                    plan.shape[2],
                ]))
            })?,
            block: when(aligned && plan.pilot_binning > 1, &|| slices.of_a_block())?,
        })
    }
}

/// Per byte decoded, from some frames.
fn read(plan: &ScanPlan, scan: &Scan) -> Result<Cost> {
    let [_, n_rows, n_cols] = plan.shape;
    let frame = n_rows * n_cols;
    let frames = (TRIAL_BYTES / (4 * frame)).clamp(1, scan.projection_frames.len());
    let mut counts = vec![0f32; frames * frame];
    // from the middle: the first frames may lie in memory since the scan was opened
    let middle = (scan.projection_frames.len() - frames) / 2;
    let chosen = &scan.projection_frames[middle..middle + frames];
    let (cost, done) = spent(|| scan.projections.read(chosen, 0..n_rows, &mut counts));
    done?;
    let decoded = scan.projections.decoded_bytes(0..n_rows) as f64 * frames as f64;
    Ok(cost * (1.0 / decoded))
}

/// Time of the search of the axis at all heights, from that of one and of three.
fn axis(scan: &Scan, config: &CenterConfig) -> Cost {
    let disc = Disc {
        angles_rad: &scan.angles_rad,
        n_cols: scan.n_cols(),
    };
    let at = |heights: usize| {
        let config = CenterConfig {
            heights,
            ..config.clone()
        };
        // where it finds nothing it has cost the same
        spent(|| center::find(&disc, &config, &Progress::new(true))).0
    };
    let (one, three) = (at(1), at(3));
    let per_height = ((three - one) * 0.5).at_least_none();
    one + per_height * (config.heights as f64 - 1.0)
}

/// Rows between rows.
fn place(plan: &ScanPlan, scan: &Scan) -> Result<Cost> {
    let slices = plan.slab.min(2 * HALO_ROWS);
    let blank = Blank {
        angles_rad: &scan.angles_rad,
        n_cols: plan.shape[2] / plan.binning,
    };
    let mut source = PlainSource(&blank);
    let mut rows = ShiftedRows::new(&mut source, Heights::shifted(0.4), blank.n_cols);
    let (mut first, mut used) = (HALO_ROWS, None);
    let cost = repeated(|| {
        let slab = rows.slab(first..first + slices, used.take())?;
        used = Some(slab.sinograms);
        first += slices;
        Ok(())
    })?;
    Ok(cost * (1.0 / slices as f64))
}

/// Trials of slices of one scan.
struct SliceTrial<'a> {
    config: &'a Config,
    plan: &'a ScanPlan,
    scan: &'a Scan,
    device: &'a Device,
}

impl SliceTrial<'_> {
    fn n_cols(&self) -> usize {
        self.plan.shape[2] / self.plan.binning
    }

    fn of_the_volume(&self) -> Result<Cost> {
        let grid = slice_grid(&self.config.reconstruct, self.plan.field)?;
        let mut whole = self.make(self.n_cols(), grid, self.config.reconstruct.method)?;
        if whole.describe().starts_with("Fourier") {
            // two slices travel together in one complex transform
            let rows = self.plan.slab.min(2 * rayon::current_num_threads());
            return self.time(&mut whole, self.n_cols(), grid, rows);
        }
        drop(whole);
        self.back_projected(self.n_cols(), grid, self.plan.slab.min(16))
    }

    fn of_a_pilot(&self) -> Result<Cost> {
        let b = self.plan.pilot_binning;
        let fine = slice_grid(&self.config.reconstruct, self.plan.field)?.binned(b);
        let grid = Grid {
            x0: fine.x0 / b as f64,
            y0: fine.y0 / b as f64,
            step: 1.0,
            ..fine
        };
        let rows = (self.plan.pilot_slab / b).clamp(1, 16);
        self.back_projected(self.n_cols() / b, grid, rows)
    }

    fn of_a_block(&self) -> Result<Cost> {
        let grid = slice_grid(&self.config.reconstruct, self.plan.field)?;
        let side = |n: usize| {
            let width = BLOCK_WIDTH.min(n);
            (n - width) / 2..(n - width) / 2 + width
        };
        let grid = grid.crop(&side(grid.n_x), &side(grid.n_y));
        self.back_projected(self.n_cols(), grid, self.plan.slab.min(16))
    }

    fn make(&self, n_cols: usize, grid: Grid, method: ReconstructMethod) -> Result<Reconstructor> {
        let mut config = self.config.reconstruct.clone();
        config.method = method;
        let rays = rays(&self.scan.angles_rad, InPlaneMotion::default());
        Reconstructor::new(SliceJob::new(n_cols, rays, grid, &config, 1.0), self.device)
    }

    /// One slice of `rows` that are made together.
    fn time(
        &self,
        reconstructor: &mut Reconstructor,
        n_cols: usize,
        grid: Grid,
        rows: usize,
    ) -> Result<Cost> {
        let n_angles = self.scan.angles_rad.len();
        let mut out = Array3::<f32>::zeros((rows, grid.n_y, grid.n_x));
        let axis_px = vec![(n_cols as f64 - 1.0) / 2.0; rows];
        let all = if self.plan.corrected_on_gpu && n_cols == self.n_cols() {
            let slab = CountSlab {
                stripe: StripeRemoval::from_config(&self.config.correct.stripe),
                ..counts(n_cols, n_angles, rows)
            };
            reconstructor.takes(&slab)?;
            repeated(|| {
                let made = reconstructor.slab_of_counts(&slab, &axis_px, out.view_mut());
                made.map(drop)
            })?
        } else {
            let sinograms = Sinograms::from_elem((rows, n_angles, n_cols), 0.5);
            repeated(|| reconstructor.slab(sinograms.view(), &axis_px, out.view_mut()))?
        };
        Ok(all * (1.0 / rows as f64))
    }

    /// One slice by back-projection, from parts of it: its cost is that of its voxels, and of the filter.
    fn back_projected(&self, n_cols: usize, grid: Grid, rows: usize) -> Result<Cost> {
        let side = |part: usize| part.min(grid.n_x).min(grid.n_y);
        let trial = |side: usize| {
            let (x, y) = ((grid.n_x - side) / 2, (grid.n_y - side) / 2);
            let part = grid.crop(&(x..x + side), &(y..y + side));
            let mut made = self.make(n_cols, part, ReconstructMethod::Fbp)?;
            self.time(&mut made, n_cols, part, rows)
        };
        let sides = [side(TRIAL_SIDE / 2), side(TRIAL_SIDE)];
        let [small, large] = sides.map(|side| (side * side) as f64);
        let whole = (grid.n_x * grid.n_y) as f64;
        // a part from the middle of a slice has no corners
        let share = if sides[1] < grid.n_x.max(grid.n_y) {
            disk::share_inside(&self.config.reconstruct)
        } else {
            1.0
        };
        if small == large {
            return Ok(trial(sides[1])? * (share * whole / large));
        }
        let line =
            super::cost::Line::through([(small, trial(sides[0])?), (large, trial(sides[1])?)]);
        Ok(line.at(share * whole))
    }
}

/// Rows that cost nothing to make.
struct Blank<'a> {
    angles_rad: &'a [f64],
    n_cols: usize,
}

impl SinogramSource for Blank<'_> {
    fn n_rows(&self) -> usize {
        usize::MAX >> 1
    }
    fn n_cols(&self) -> usize {
        self.n_cols
    }
    fn angles_rad(&self) -> &[f64] {
        self.angles_rad
    }
    fn sinograms(&self, rows: Range<usize>) -> Result<Sinograms> {
        Ok(Array3::zeros((
            rows.len(),
            self.angles_rad.len(),
            self.n_cols,
        )))
    }
    fn projection(&self, _angle: usize, rows: Range<usize>) -> Result<Array2<f32>> {
        Ok(Array2::zeros((rows.len(), self.n_cols)))
    }
}

/// Line integrals of a disc beside the axis, with some noise: what the search of the axis is tried on.
struct Disc<'a> {
    angles_rad: &'a [f64],
    n_cols: usize,
}

impl Disc<'_> {
    const ROWS: usize = 64;

    fn line(&self, angle: usize, row: usize, mut out: ndarray::ArrayViewMut1<'_, f32>) {
        let (radius, middle) = (0.4 * self.n_cols as f64, (self.n_cols as f64 - 1.0) / 2.0);
        let center = middle + 0.05 * self.n_cols as f64 * self.angles_rad[angle].cos();
        for (col, value) in out.iter_mut().enumerate() {
            let t = col as f64 - center;
            let chord = (radius * radius - t * t).max(0.0).sqrt() / radius;
            let number = (angle * self.n_cols + col) * Self::ROWS + row;
            let noise = number.wrapping_mul(2_654_435_761) >> 8 & 0xffff;
            *value = (chord + 0.02 * (noise as f64 / 65536.0 - 0.5)) as f32;
        }
    }
}

impl SinogramSource for Disc<'_> {
    fn n_rows(&self) -> usize {
        Self::ROWS
    }
    fn n_cols(&self) -> usize {
        self.n_cols
    }
    fn angles_rad(&self) -> &[f64] {
        self.angles_rad
    }
    fn sinograms(&self, rows: Range<usize>) -> Result<Sinograms> {
        let mut out = Array3::zeros((rows.len(), self.angles_rad.len(), self.n_cols));
        for (row, mut sinogram) in rows.zip(out.outer_iter_mut()) {
            for (angle, line) in sinogram.outer_iter_mut().enumerate() {
                self.line(angle, row, line);
            }
        }
        Ok(out)
    }
    fn projection(&self, angle: usize, rows: Range<usize>) -> Result<Array2<f32>> {
        let mut out = Array2::zeros((rows.len(), self.n_cols));
        for (row, line) in rows.zip(out.outer_iter_mut()) {
            self.line(angle, row, line);
        }
        Ok(out)
    }
}
