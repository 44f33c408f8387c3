//! A tilted sample on the upright grid of its reference.
//!
//! A point (x, y, z) of the reference, z from the middle of the volume, stands to first order in the tilt (rx, ry) at
//! `(x + ry z, y - rx z, z + rx y - ry x)` in the scan, before the turn, the scale and the shift that apply to all heights alike. So
//!
//! - the row of height h is seen shifted in its plane by (ry h, -rx h), which is a shift of its rows along the detector, other
//!   for each projection: it is applied to the sinogram as a phase, which moves without blurring;
//! - the slice z of the reference meets other rows at other places: whole rows of the scan are reconstructed, and each
//!   column of voxels is interpolated along z alone, at its own fraction, by the kernel of [`super::rows`]. A
//!   back-projection is linear and acts on each row by itself, so this is the one interpolation of rows that an upright scan
//!   gets too; nothing is interpolated in x and y.
//!
//! Where the axis leans or the sample moved during the scan, level rows are interpolated before that ([`Heights`]).
//!
//! What is left is of second order: the square of the tilt times the radius, 0.04 voxel at 0.3 degrees and 1500 voxels.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array2, Array3, ArrayView3, Axis};
use rayon::prelude::*;
use rustfft::num_complex::Complex64;
use rustfft::{Fft, FftPlanner};

use crate::error::Result;
use crate::gpu::Device;
use crate::pipeline::beyond::{Continuation, ReferenceRows, heights_of_rows};
use crate::pipeline::heights::Heights;
use crate::pipeline::reconstruct_scan::{JobState, Motion, Reconstructed, ScanJob};
use crate::pipeline::rows::{RowSource, ShiftedRows, lanczos_taps};
use crate::plan::HALO_ROWS;
use crate::progress::Stage;
use crate::reconstruct::Reconstructor;
use crate::reconstruct::acquisition::blend;
use crate::reconstruct::geometry::Grid;
use crate::stop;

/// Fractions of a row that are told apart.
const FRACTIONS: usize = 1024;
/// Columns by which a row is extended for its shift.
const MARGIN: usize = 64;

/// Slices of the scan that are held beyond those of a slab, for a tilt of `tilt_deg` and slices `n` voxels wide.
#[must_use]
pub(crate) fn halo_slices(tilt_deg: f64, n: usize) -> usize {
    let reach = tilt_deg.to_radians() * n as f64 * std::f64::consts::FRAC_1_SQRT_2;
    (2.0 * reach).ceil() as usize + 2 * HALO_ROWS + 1
}

/// By how much the row that each column of voxels meets lies beside the row of the slice at the axis.
struct Columns {
    /// `[y * n_x + x]` \[px\]
    beside: Vec<f32>,
    /// Least and largest row within the field of view.
    seen: [f64; 2],
    taps: Vec<[f32; 2 * HALO_ROWS]>,
}

impl Columns {
    fn new(grid: &Grid, motion: &Motion, radius: f64) -> Columns {
        let [rx, ry] = motion.tilt_rad.map(|tilt| tilt * motion.magnification);
        let mut beside = Vec::with_capacity(grid.n_x * grid.n_y);
        let mut seen = [f64::INFINITY, f64::NEG_INFINITY];
        for j in 0..grid.n_y {
            for i in 0..grid.n_x {
                let x = grid.x0 + i as f64 * grid.step;
                // y down
                let y = j as f64 * grid.step - grid.y0;
                let at = rx * y - ry * x;
                if x.hypot(y) <= radius {
                    seen = [seen[0].min(at), seen[1].max(at)];
                }
                beside.push(at as f32);
            }
        }
        Columns {
            beside,
            seen,
            taps: (0..FRACTIONS)
                .map(|k| lanczos_taps(k as f64 / FRACTIONS as f64).map(|w| w as f32))
                .collect(),
        }
    }

    /// Whole row and step of the fraction for a place `beside` the row `at`.
    fn place(at: f64, beside: f32) -> (i64, usize) {
        let steps = ((at + f64::from(beside)) * FRACTIONS as f64).round() as i64;
        (
            steps.div_euclid(FRACTIONS as i64),
            steps.rem_euclid(FRACTIONS as i64) as usize,
        )
    }

    /// Whole rows that a slice at the row `at` meets anywhere, the neighbours of the kernel not counted.
    fn span(&self, at: f64) -> [i64; 2] {
        let ends = self
            .beside
            .iter()
            .fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &v| {
                [low.min(v), high.max(v)]
            });
        ends.map(|end| Self::place(at, end).0)
    }

    /// Whether every column of a slice at the row `at` that is seen has its row among `rows`.
    fn covers(&self, at: f64, rows: &Range<usize>) -> bool {
        at + self.seen[0] >= rows.start as f64 - 1e-9
            && at + self.seen[1] <= rows.end as f64 - 1.0 + 1e-9
    }
}

/// Rows of the scan, reconstructed and shifted in their plane, as far as they are needed.
struct Window<'a, 'b> {
    job: &'a ScanJob<'b>,
    reconstructor: Reconstructor,
    beyond: Option<Continuation<'a>>,
    margin: usize,
    shifter: RowShifter,
    columns: Columns,
    /// Where the slices of the reference stand.
    heights: Heights<'a>,
    /// Rows that can be had.
    rows: Range<usize>,
    slices: VecDeque<Array2<f32>>,
    /// Row of the first of them.
    first: usize,
}

impl Window<'_, '_> {
    /// Drops rows before `from` and reconstructs those up to `to`.
    fn advance(&mut self, from: usize, to: usize, source: &mut ShiftedRows<'_>) -> Result<()> {
        while self.first < from && self.slices.pop_front().is_some() {
            self.first += 1;
        }
        if self.slices.is_empty() {
            self.first = self.first.max(from);
        }
        let (grid, geometry, motion) = (self.job.grid, self.job.geometry, &self.job.motion);
        let mut start = self.first + self.slices.len();
        while start < to {
            let end = (start + self.job.slab.max(1)).min(to);
            let mut sinograms = source.slab(start..end, None)?.sinograms;
            let plane: Vec<[f64; 2]> = (start..end)
                .map(|row| {
                    let slice = self.heights.slice_at(row as f64);
                    motion.in_plane_at(slice - self.job.middle_slice)
                })
                .collect();
            if let Some(beyond) = &mut self.beyond {
                sinograms = beyond.widen(&(start..end), &sinograms, &plane, None)?;
            }
            let axis: Vec<f64> = (start..end)
                .map(|row| geometry.axis.at(row as f64) + self.margin as f64)
                .collect();
            if geometry.field.half {
                let x_px = self.heights.shifts.map_or(&[][..], |shifts| &shifts.x_px);
                blend(sinograms.view_mut(), &axis, x_px);
            }
            for (mut rows, shift) in sinograms.outer_iter_mut().zip(plane) {
                self.shifter.shift(&mut rows, &geometry.angles_rad, shift);
            }
            let mut out = Array3::<f32>::zeros((end - start, grid.n_y, grid.n_x));
            self.reconstructor
                .slab(sinograms.view(), &axis, out.view_mut())?;
            self.slices
                .extend(out.outer_iter().map(|slice| slice.to_owned()));
            start = end;
        }
        Ok(())
    }

    /// Slice `z` of the reference grid; NaN where its row lies beyond the detector.
    fn slice(&self, z: usize, mut out: ndarray::ArrayViewMut2<'_, f32>) {
        let n_x = self.job.grid.n_x;
        let at = self.heights.row(z as f64);
        let (top, last) = (self.rows.start as i64, self.rows.end as i64 - 1);
        // the reconstructor cannot be shared between threads
        let (columns, first) = (&self.columns, self.first);
        let rows: Vec<&[f32]> = self
            .slices
            .iter()
            .map(|slice| slice.as_slice().expect("owned slices are contiguous"))
            .collect();
        ndarray::Zip::indexed(out.rows_mut()).par_for_each(|y, mut line| {
            for (x, value) in line.iter_mut().enumerate() {
                let voxel = y * n_x + x;
                let (row, fraction) = Columns::place(at, columns.beside[voxel]);
                if row < top || row + i64::from(fraction > 0) > last {
                    *value = f32::NAN;
                    continue;
                }
                *value = columns.taps[fraction]
                    .iter()
                    .enumerate()
                    .map(|(tap, weight)| {
                        // rows beyond the detector repeat its edge row
                        let from = (row + tap as i64 - (HALO_ROWS as i64 - 1)).clamp(top, last);
                        weight * rows[from as usize - first][voxel]
                    })
                    .sum();
            }
        });
    }

    /// Rows that slices `slices` need, with the neighbours of the kernel.
    fn needed(&self, slices: &Range<usize>) -> Range<usize> {
        let halo = HALO_ROWS as i64;
        let ends =
            [slices.start, slices.end - 1].map(|z| self.columns.span(self.heights.row(z as f64)));
        let low = ends[0][0].min(ends[1][0]) - (halo - 1);
        let high = ends[0][1].max(ends[1][1]) + halo + 1;
        let clip = |row: i64| row.clamp(self.rows.start as i64, self.rows.end as i64) as usize;
        clip(low)..clip(high).max(clip(low))
    }
}

/// Carries out a job whose motion tilts; see [`ScanJob::run`].
///
/// # Errors
/// Those of the source, the device and `consume`.
pub(super) fn run(
    job: &ScanJob<'_>,
    source: &mut dyn RowSource,
    device: &Device,
    stage: &Stage,
    from: Option<JobState>,
    mut consume: impl FnMut(usize, ArrayView3<'_, f32>, &JobState) -> Result<()>,
) -> Result<Reconstructed> {
    let geometry = job.geometry;
    let all = 0..source.n_rows();
    let mut state = from.unwrap_or_else(|| JobState::start(&job.slices));
    source.restore(state.rows());
    stage.inc(state.slices() as u64);
    let upright = Motion::default();
    // rows as they are on the detector, but levelled
    let level = geometry.heights(&upright);
    let rows = level.covered(&all, all.len(), geometry.n_cols);
    let margin = job.margin_px();
    let mut reference = job.beyond.map(ReferenceRows);
    let mut window = Window {
        job,
        reconstructor: Reconstructor::new(job.slice_job(), device)?,
        beyond: match (&job.beyond, &mut reference) {
            (Some(beyond), Some(rows)) if margin > 0 => Some(Continuation::new(
                beyond,
                rows,
                heights_of_rows(
                    beyond.geometry.heights(&beyond.motion),
                    &geometry.heights(&job.motion),
                ),
                geometry,
                level,
                &job.motion,
                margin,
            )),
            _ => None,
        },
        margin,
        shifter: RowShifter::new(geometry.n_cols + 2 * margin),
        columns: Columns::new(&job.grid, &job.motion, geometry.field.width as f64 / 2.0),
        heights: geometry.heights(&job.motion),
        slices: VecDeque::new(),
        first: rows.start,
        rows,
    };
    let mut source = ShiftedRows::new(source, level, geometry.n_cols);
    let slab = job.slab.min(job.slices.len()).max(1);
    for start in (job.slices.start + state.slices()..job.slices.end).step_by(slab) {
        stop::check()?;
        let slices = start..(start + slab).min(job.slices.end);
        let needed = window.needed(&slices);
        window.advance(needed.start, needed.end, &mut source)?;
        let mut out = Array3::<f32>::zeros((slices.len(), job.grid.n_y, job.grid.n_x));
        for (z, slice) in slices.clone().zip(out.axis_iter_mut(Axis(0))) {
            window.slice(z, slice);
            let at = window.heights.row(z as f64);
            if window.columns.covers(at, &window.rows) {
                state.cover(z);
            }
        }
        state.advance(out.view(), slices.end - job.slices.start, source.state());
        consume(start - job.slices.start, out.view(), &state)?;
        stage.inc(slices.len() as u64);
    }
    Ok(state.finish(&job.slices, window.reconstructor.describe()))
}

/// Shifts rows along the detector by fractions of a pixel, as a phase.
struct RowShifter {
    n_cols: usize,
    n: usize,
    forward: Arc<dyn Fft<f64>>,
    inverse: Arc<dyn Fft<f64>>,
}

impl RowShifter {
    fn new(n_cols: usize) -> RowShifter {
        let n = (n_cols + 2 * MARGIN).next_multiple_of(64);
        let mut planner = FftPlanner::new();
        RowShifter {
            n_cols,
            n,
            forward: planner.plan_fft_forward(n),
            inverse: planner.plan_fft_inverse(n),
        }
    }

    /// Rows `[angle, col]` of one height, as they were with the sample `shift` (x, y down) less far off.
    fn shift(
        &self,
        rows: &mut ndarray::ArrayViewMut2<'_, f32>,
        angles_rad: &[f64],
        shift: [f64; 2],
    ) {
        if shift[0].hypot(shift[1]) < 1e-4 {
            return;
        }
        rows.axis_iter_mut(Axis(0))
            .into_par_iter()
            .zip(angles_rad)
            .for_each_init(
                || vec![Complex64::default(); self.n],
                |buffer, (mut row, angle)| {
                    let (sin, cos) = angle.sin_cos();
                    self.shift_row(&mut row, shift[0] * cos - shift[1] * sin, buffer);
                },
            );
    }

    /// `row[t]` becomes `row[t + by]`.
    fn shift_row(
        &self,
        row: &mut ndarray::ArrayViewMut1<'_, f32>,
        by: f64,
        buffer: &mut [Complex64],
    ) {
        let (n, cols) = (self.n, self.n_cols);
        for (k, value) in buffer.iter_mut().enumerate() {
            // behind its end a row goes over to its begin, so that the period has no step
            let real = if k < cols {
                f64::from(row[k])
            } else {
                let part = (k - cols + 1) as f64 / (n - cols + 1) as f64;
                let part = 0.5 - 0.5 * (std::f64::consts::PI * part).cos();
                (1.0 - part) * f64::from(row[cols - 1]) + part * f64::from(row[0])
            };
            *value = Complex64::new(real, 0.0);
        }
        self.forward.process(buffer);
        for (k, value) in buffer.iter_mut().enumerate() {
            let frequency = if 2 * k < n {
                k as f64
            } else {
                k as f64 - n as f64
            };
            let phase = 2.0 * std::f64::consts::PI * frequency * by / n as f64;
            *value *= if 2 * k == n {
                // the highest frequency has no sign: a real row stays real
                Complex64::new(phase.cos() / n as f64, 0.0)
            } else {
                Complex64::from_polar(1.0 / n as f64, phase)
            };
        }
        self.inverse.process(buffer);
        for (value, shifted) in row.iter_mut().zip(buffer) {
            *value = shifted.re as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::center::AxisFit;
    use crate::config::{ReconstructConfig, ReconstructMethod};
    use crate::phantom::{Object, Phantom, PhantomScan};
    use crate::pipeline::geometry::ScanGeometry;
    use crate::pipeline::rows::PlainSource;
    use crate::progress::Progress;
    use ndarray::s;

    fn geometry(angles_rad: &[f64], config: &ReconstructConfig) -> ScanGeometry {
        let axis = AxisFit {
            axis_px: (SIDE as f64 - 1.0) / 2.0,
            ..AxisFit::default()
        };
        ScanGeometry::of_parts(angles_rad, [ROWS, SIDE], None, &axis, &(0..ROWS), config).unwrap()
    }

    #[test]
    fn a_row_is_shifted_without_blur() {
        let n = 90;
        let f = |t: f64| (-0.5 * ((t - 41.3) / 2.5).powi(2)).exp() + 0.01 * t;
        let shifter = RowShifter::new(n);
        let mut buffer = vec![Complex64::default(); shifter.n];
        let mut row = ndarray::Array1::from_shape_fn(n, |k| f(k as f64) as f32);
        shifter.shift_row(&mut row.view_mut(), 1.37, &mut buffer);
        for k in 15..75 {
            // the kinks of the straight part at the ends ring through by a few thousandths of its slope
            assert!((f64::from(row[k]) - f(k as f64 + 1.37)).abs() < 3e-4, "{k}");
        }
        assert!(
            (f64::from(row[40]) - f(40.0 - 1.37)).abs() > 0.1,
            "the check is blind"
        );
    }

    const SIDE: usize = 64;
    const ROWS: usize = 48;

    fn spheres(motion: &Motion) -> PhantomScan {
        let [rx, ry] = motion.tilt_rad;
        let mut objects = Vec::new();
        for k in 0..24 {
            let (sin, cos) = (2.4 * f64::from(k)).sin_cos();
            let r = 4.0 + 0.85 * f64::from(k);
            // y down; z from the middle
            let p = [r * cos, r * sin, -14.0 + 1.2 * f64::from(k)];
            let q = [
                p[0] + ry * p[2] + motion.in_plane.shift_x_px,
                p[1] - rx * p[2] + motion.in_plane.shift_y_px,
                p[2] + rx * p[1] - ry * p[0] + motion.shift_z_px,
            ];
            objects.push(Object::sphere([q[0], -q[1], q[2]], 3.5, 0.05));
        }
        let mut scan = PhantomScan::half_turn(Phantom::new(objects), 151, ROWS, SIDE);
        scan.blur_px = 0.8;
        scan
    }

    /// All slices of `source` with the views of [`spheres`].
    fn reconstruct(
        source: &mut dyn RowSource,
        method: ReconstructMethod,
        motion: Motion,
        slab: usize,
    ) -> Array3<f32> {
        let config = ReconstructConfig {
            method,
            ..ReconstructConfig::default()
        };
        let angles = spheres(&Motion::default()).angles_rad;
        let job = ScanJob {
            geometry: &geometry(&angles, &config),
            slices: 0..ROWS,
            middle_slice: (ROWS as f64 - 1.0) / 2.0,
            slab,
            grid: Grid::square(SIDE),
            motion,
            config: &config,
            scale: 1.0,
            meter: None,
            beyond: None,
        };
        let mut out = Array3::zeros((ROWS, SIDE, SIDE));
        let stage = Progress::new(true).stage("x", 1, "x");
        job.run(source, &Device::Cpu, &stage, None, |z, slices, _| {
            out.slice_mut(s![z..z + slices.dim().0, .., ..])
                .assign(&slices);
            Ok(())
        })
        .unwrap();
        out
    }

    fn volume(scan: &PhantomScan, motion: Motion, slab: usize) -> Array3<f32> {
        reconstruct(&mut PlainSource(scan), ReconstructMethod::Fbp, motion, slab)
    }

    #[test]
    fn a_tilted_sample_comes_upright_whatever_the_slabs() {
        // a degree and a half at 30 voxels: the second order is 0.02 voxel
        let motion = Motion {
            tilt_rad: [0.014, -0.022],
            ..Motion::from_alignment([0.6, -0.4, 1.3], 0.0)
        };
        let scan = spheres(&motion);
        let upright = volume(&spheres(&Motion::default()), Motion::default(), 48);
        let back = volume(&scan, motion, 48);
        let other = volume(&scan, motion, 7);
        let same = back
            .iter()
            .zip(&other)
            .all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "slabs do not matter");
        let difference = |other: &Array3<f32>| {
            let middle = s![8..40, 8..56, 8..56];
            let (a, b) = (upright.slice(middle), other.slice(middle));
            let rms = |sum: f64| (sum / a.len() as f64).sqrt();
            rms(a
                .iter()
                .zip(&b)
                .map(|(a, b)| f64::from(a - b).powi(2))
                .sum())
        };
        let left = difference(&back);
        let no_tilt = Motion {
            tilt_rad: [0.0; 2],
            ..motion
        };
        let wrong = Motion {
            tilt_rad: [-0.014, 0.022],
            ..motion
        };
        let (without, against) = (
            difference(&volume(&scan, no_tilt, 16)),
            difference(&volume(&scan, wrong, 16)),
        );
        eprintln!("{left:.2e}, without the tilt {without:.2e}, with the opposite {against:.2e}");
        // what an upright pair with fractions of a voxel between leaves, at edges blurred by 0.8 voxel
        assert!(
            left < 0.15 * without && without < against,
            "{left} {without} {against}"
        );
    }

    /// Noise of line integrals, other for each row and seed.
    struct Noisy<'a>(Option<&'a PhantomScan>, u128);

    impl RowSource for Noisy<'_> {
        fn n_rows(&self) -> usize {
            ROWS
        }
        fn rows_into(
            &mut self,
            rows: std::ops::Range<usize>,
            _: Option<crate::scan::Sinograms>,
        ) -> Result<crate::scan::Sinograms> {
            use rand_distr::{Distribution, StandardNormal};
            let mut out = match self.0 {
                Some(scan) => return PlainSource(scan).rows(rows),
                None => crate::scan::Sinograms::zeros((rows.len(), 151, SIDE)),
            };
            for (mut sinogram, row) in out.outer_iter_mut().zip(rows) {
                let mut random = rand_pcg::Pcg64Mcg::new(self.1 + 4 * row as u128);
                sinogram.mapv_inplace(|_| StandardNormal.sample(&mut random));
            }
            Ok(out)
        }
    }

    /// Slices of a source on the grid of the reference: reconstructed there, or resampled afterwards.
    fn both_ways(scan: Option<&PhantomScan>, seed: u128, motion: Motion) -> [Array3<f32>; 2] {
        let make = |motion: Motion| {
            let method = ReconstructConfig::default().method;
            reconstruct(&mut Noisy(scan, seed), method, motion, 16)
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unmoved.npy");
        let meta = crate::io::volume::VolumeMeta {
            shape: [ROWS, SIDE, SIDE],
            voxel_type: crate::io::volume::VoxelType::F32,
            unit: "1/px".into(),
            voxel_size_um: None,
            first_row: 0,
            provenance: serde_json::json!({}),
        };
        let unmoved = make(Motion::default());
        let format = crate::config::VolumeFormat::Npy;
        crate::io::volume::write_array(&path, format, &meta, unmoved.view(), false).unwrap();
        let reader = crate::io::volume::open(&path).unwrap();
        let resampled = crate::pipeline::moved_volume::MovedVolume::new(reader, motion);
        use crate::io::volume::VolumeReader;
        [make(motion), resampled.read(0..ROWS).unwrap()]
    }

    fn rms(volume: &Array3<f32>, less: Option<&Array3<f32>>) -> f64 {
        let middle = s![10..38, 14..50, 14..50];
        let part = volume.slice(middle);
        let sum: f64 = match less {
            None => part.iter().map(|v| f64::from(*v).powi(2)).sum(),
            Some(less) => part
                .iter()
                .zip(less.slice(middle))
                .map(|(a, b)| f64::from(a - b).powi(2))
                .sum(),
        };
        (sum / part.len() as f64).sqrt()
    }

    #[test]
    fn the_grid_moves_instead_of_the_volume_and_edges_and_noise_stay_as_they_are() {
        let still = Motion::default();
        let [reference, _] = both_ways(Some(&spheres(&still)), 0, still);
        let [noise, _] = both_ways(None, 1000, still);
        for (shift, turn) in [
            ([0.5, 0.5, 0.5], 0.0),
            ([0.5, 0.5, 0.0], 0.0),
            ([0.3, -0.2, 0.4], 0.0),
        ] {
            let motion = Motion::from_alignment(shift, turn);
            let [ours, resampled] = both_ways(Some(&spheres(&motion)), 0, motion);
            let edges = [&ours, &resampled].map(|v| rms(v, Some(&reference)));
            let [ours, resampled] = both_ways(None, 2000, motion);
            let noises = [&ours, &resampled].map(|v| rms(v, None) / rms(&noise, None));
            eprintln!(
                "{shift:?}: edge residue {:.2e}, resampled {:.2e}; noise of a volume {:.3}, resampled {:.3}, of an unmoved one 1",
                edges[0], edges[1], noises[0], noises[1]
            );
            // 0.65 to 0.72 was seen; the rest is the interpolation in height, and structure finer than the pixels
            assert!(edges[0] < 0.8 * edges[1], "{edges:?}");
            // the row kernel keeps 0.9 of the noise at the worst fraction; resampling takes more than that away,
            // so that what is left of an edge stands out of it and no two differences have one noise
            assert!(noises[0] > 0.85 && noises[0] < 1.05, "{noises:?}");
            assert!(noises[1] < 0.8, "{noises:?}");
        }
    }
}
