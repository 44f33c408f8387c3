//! Sinogram rows on the height grid of the reference.
//!
//! Slice z of the reference grid is row z + shift of a moved scan ([`Heights`] says it in full). Where that is no whole
//! number, rows are interpolated once, before the reconstruction (which is linear and acts on each row alone, so this equals
//! interpolating the slices, but nothing is interpolated in x and y). The kernel is a Lanczos window of three lobes
//! (Duchon 1979, J. Appl. Meteorol. 18:1016), corrected to sum 1 and to stand exactly at the wanted height: cut off
//! after three lobes it would stand up to 0.02 rows beside. It keeps 79 % (one half between two rows) to 100 % of the noise power
//! of a row, where linear interpolation would keep 50 %.

use std::ops::Range;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ndarray::{Array3, ArrayView1, ArrayView3, ArrayViewMut1, ArrayViewMut2, Axis, s};
use serde::{Deserialize, Serialize};

use crate::correct::line_integrals::{CountSlab, Placement, Taps, Touched};
use crate::correct::{CorrectedScan, CorrectionCounts};
use crate::error::Result;
use crate::pipeline::heights::Heights;
use crate::plan::HALO_ROWS;
use crate::progress::Meter;
use crate::scan::{SinogramSource, Sinograms, reused};

/// What a source has counted, so that a resumed run counts nothing twice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RowState {
    /// Sum over the rows given so far.
    pub counts: CorrectionCounts,
    /// Rows below this one are counted.
    pub counted: usize,
}

/// Gives corrected rows once each, however slabs and their halos overlap.
pub trait RowSource: Send {
    /// Detector rows.
    fn n_rows(&self) -> usize;
    /// Line integrals of `rows`, `[row, angle, col]`, in the memory of rows that are `used` up where the source can do that. What stands
    /// between a source and its slabs passes it on: fresh memory for every slab costs page faults.
    ///
    /// # Errors
    /// Those of the source.
    fn rows_into(&mut self, rows: Range<usize>, used: Option<Sinograms>) -> Result<Sinograms>;
    /// The same in memory of its own.
    ///
    /// # Errors
    /// Those of the source.
    fn rows(&mut self, rows: Range<usize>) -> Result<Sinograms> {
        self.rows_into(rows, None)
    }
    /// Why its rows are not corrected on the GPU; `None`: [`RowSource::counts`] gives them.
    fn off_device(&self) -> Option<String> {
        Some("line integrals are given".into())
    }
    /// Counts of `rows` for the corrections on the GPU, which end with [`RowSource::touched`].
    ///
    /// # Errors
    /// Those of the source; any source that [`RowSource::off_device`] gives a reason for.
    fn counts(&mut self, rows: Range<usize>) -> Result<CountSlab> {
        let _ = rows;
        Err(crate::error::Error::config(
            "run.device",
            "gpu",
            "these rows have no counts",
        ))
    }
    /// What the corrections on the GPU touched in all counts that were given.
    fn touched(&mut self, touched: Touched) {
        let _ = touched;
    }
    /// What was counted so far, without what the GPU touched; nothing where nothing is.
    fn state(&self) -> RowState {
        RowState::default()
    }
    /// Goes on counting behind `state`.
    fn restore(&mut self, _state: &RowState) {}
}

/// A corrected scan that adds up what its corrections touched.
pub struct CountedScan<'a> {
    scan: &'a CorrectedScan,
    meter: Option<&'a Meter>,
    state: RowState,
}

impl<'a> CountedScan<'a> {
    /// Starts with nothing counted.
    #[must_use]
    pub fn new(scan: &'a CorrectedScan) -> Self {
        CountedScan {
            scan,
            meter: None,
            state: RowState::default(),
        }
    }

    /// What the corrections touched, over all rows given so far, each counted once.
    #[must_use]
    pub fn corrections(&self) -> &CorrectionCounts {
        &self.state.counts
    }
}

impl<'a> CountedScan<'a> {
    /// Corrected rows, each counted once.
    fn counted(&mut self, rows: Range<usize>, used: Option<Sinograms>) -> Result<Sinograms> {
        let known = self.state.counted.clamp(rows.start, rows.end);
        let (new, counts) = self.scan.slab_into(known..rows.end, used)?;
        self.state.counts += counts;
        self.state.counted = self.state.counted.max(rows.end);
        if known == rows.start {
            return Ok(new);
        }
        // the halo of a slab that an earlier run has counted
        let (old, _) = self.scan.slab(rows.start..known)?;
        if new.is_empty() {
            return Ok(old);
        }
        let (_, angles, cols) = new.dim();
        let mut both = Array3::zeros((rows.len(), angles, cols));
        both.slice_mut(s![..old.dim().0, .., ..]).assign(&old);
        both.slice_mut(s![old.dim().0.., .., ..]).assign(&new);
        Ok(both)
    }

    /// Adds its time to `meter`: reading and correcting.
    #[must_use]
    pub fn metered(mut self, meter: &'a Meter) -> Self {
        self.meter = Some(meter);
        self
    }
}

impl RowSource for CountedScan<'_> {
    fn n_rows(&self) -> usize {
        SinogramSource::n_rows(self.scan)
    }
    fn rows_into(&mut self, rows: Range<usize>, used: Option<Sinograms>) -> Result<Sinograms> {
        let clock = &self.scan.scan().clock;
        let (started, (read, bytes)) = (Instant::now(), clock.so_far());
        let sinograms = self.counted(rows, used)?;
        if let Some(meter) = self.meter {
            let now = clock.so_far();
            let reading = now.0.saturating_sub(read);
            meter.add("read", reading, now.1 - bytes, 0);
            let correcting = started.elapsed().saturating_sub(reading);
            meter.add("correct", correcting, 4 * sinograms.len() as u64, 0);
        }
        Ok(sinograms)
    }
    fn state(&self) -> RowState {
        self.state.clone()
    }
    fn restore(&mut self, state: &RowState) {
        self.state = state.clone();
    }
    fn off_device(&self) -> Option<String> {
        self.scan.off_device()
    }
    fn counts(&mut self, rows: Range<usize>) -> Result<CountSlab> {
        let (slab, known) = self.scan.count_slab(rows.clone(), self.state.counted)?;
        self.state.counts += known;
        self.state.counted = self.state.counted.max(rows.end);
        Ok(slab)
    }
    fn touched(&mut self, touched: Touched) {
        self.state.counts += touched;
    }
}

/// Line integrals from elsewhere (`.npy`).
pub struct PlainSource<'a>(pub &'a dyn SinogramSource);

impl RowSource for PlainSource<'_> {
    fn n_rows(&self) -> usize {
        self.0.n_rows()
    }
    fn rows_into(&mut self, rows: Range<usize>, _used: Option<Sinograms>) -> Result<Sinograms> {
        self.0.sinograms(rows)
    }
}

/// Rows of a scan on the heights of slices, asked for in ascending slabs; overlapping rows are kept, not read again.
pub struct ShiftedRows<'a> {
    source: &'a mut dyn RowSource,
    heights: Heights<'a>,
    n_cols: usize,
    kept: Option<(usize, Sinograms)>,
    in_source: Duration,
}

/// Part of a slab for which the scan has rows, and their line integrals.
pub struct ShiftedSlab {
    /// Slices of the slab that have data; the others lie above or below the detector.
    pub covered: Range<usize>,
    /// `[covered, angle, col]`
    pub sinograms: Sinograms,
}

impl<'a> ShiftedRows<'a> {
    /// Slices stand where `heights` says; the source has `n_cols` columns.
    pub fn new(source: &'a mut dyn RowSource, heights: Heights<'a>, n_cols: usize) -> Self {
        ShiftedRows {
            source,
            heights,
            n_cols,
            kept: None,
            in_source: Duration::ZERO,
        }
    }

    /// Time that the source took so far.
    #[must_use]
    pub fn in_source(&self) -> Duration {
        self.in_source
    }

    fn timed_rows(&mut self, rows: Range<usize>, used: Option<Sinograms>) -> Result<Sinograms> {
        let started = Instant::now();
        let sinograms = self.source.rows_into(rows, used)?;
        self.in_source += started.elapsed();
        Ok(sinograms)
    }

    /// Why the rows of slices are not corrected on the GPU.
    #[must_use]
    pub fn off_device(&self) -> Option<String> {
        if self.heights.lean.is_some() {
            return Some("rows are taken along the lean of the axis on the CPU".into());
        }
        if self.heights.scale > 2.0 * HALO_ROWS as f64 {
            return Some("slices with rows left out between them are made on the CPU".into());
        }
        self.source.off_device()
    }

    /// Counts of the slices of `slices` that have data; none where there are none.
    ///
    /// # Errors
    /// Those of the source.
    pub fn counts(&mut self, slices: Range<usize>) -> Result<(Range<usize>, Option<CountSlab>)> {
        let n_rows = self.source.n_rows();
        let covered = self.heights.covered(&slices, n_rows, self.n_cols);
        if covered.is_empty() {
            return Ok((covered, None));
        }
        let placement = match self.heights.whole_shift() {
            Some(_) => None,
            None => Some(self.placement(&covered)),
        };
        let rows = match &placement {
            None => {
                let row = |z: usize| self.heights.row(z as f64) as usize;
                row(covered.start)..row(covered.end - 1) + 1
            }
            Some(_) => self.rows_around(&covered),
        };
        let mut counts = self.source.counts(rows.clone())?;
        counts.placement = placement.map(|mut placement| {
            for taps in &mut placement.taps {
                taps.first -= rows.start as i32;
            }
            placement
        });
        Ok((covered, Some(counts)))
    }

    /// Where the slices `covered` stand, in rows of the detector.
    fn placement(&self, covered: &Range<usize>) -> Placement {
        let moving = self.heights.shifts.map_or(&[][..], |shifts| &shifts.z_px);
        let still = moving.iter().all(|&z| z == 0.0);
        let moving = if still { &[0.0] } else { moving };
        let taps = covered.clone().flat_map(|z| {
            let row = self.heights.row(z as f64);
            moving.iter().map(move |down| {
                let whole = (row + down).floor();
                let weights = lanczos_taps(row + down - whole).map(|weight| weight as f32);
                Taps {
                    weights,
                    first: whole as i32 - (HALO_ROWS as i32 - 1),
                    unused: 0,
                }
            })
        });
        let (above, below) = self.heights.spread(self.source.n_rows(), self.n_cols);
        Placement {
            taps: taps.collect(),
            n_slices: covered.len(),
            scale: self.heights.scale,
            spread: below - above,
        }
    }

    /// The rows that the slices `covered` are interpolated from.
    fn rows_around(&self, covered: &Range<usize>) -> Range<usize> {
        let n_rows = self.source.n_rows();
        let (above, below) = self.heights.spread(n_rows, self.n_cols);
        let row = |z: usize, spread: f64| (self.heights.row(z as f64) + spread).floor() as i64;
        let halo = HALO_ROWS as i64;
        let low = (row(covered.start, above) - (halo - 1)).max(0) as usize;
        let high = (row(covered.end - 1, below) + halo).min(n_rows as i64 - 1) as usize + 1;
        low..high
    }

    /// What the corrections on the GPU touched.
    pub fn touched(&mut self, touched: Touched) {
        self.source.touched(touched);
    }

    /// Goes on counting behind `state`.
    pub fn restore(&mut self, state: &RowState) {
        self.source.restore(state);
    }

    /// What the source has counted.
    #[must_use]
    pub fn state(&self) -> RowState {
        self.source.state()
    }

    /// Line integrals of slices `slices`, in the memory of a slab that is `used` up where it suffices.
    ///
    /// # Errors
    /// Those of the source.
    pub fn slab(&mut self, slices: Range<usize>, used: Option<Sinograms>) -> Result<ShiftedSlab> {
        let n_rows = self.source.n_rows();
        let covered = self.heights.covered(&slices, n_rows, self.n_cols);
        if covered.is_empty() {
            return Ok(ShiftedSlab {
                covered,
                sinograms: Array3::zeros((0, 0, 0)),
            });
        }
        if let Some(shift) = self.heights.whole_shift() {
            let rows =
                (covered.start as i64 + shift) as usize..(covered.end as i64 + shift) as usize;
            return Ok(ShiftedSlab {
                covered,
                sinograms: self.timed_rows(rows, used)?,
            });
        }
        let rows = self.rows_around(&covered);
        let low = rows.start;
        let window = self.window(rows)?;
        let (_, angles, cols) = window.dim();
        // every line is written below
        let mut sinograms = reused(used, [covered.len(), angles, cols]);
        let lines = Lines {
            window: window.view(),
            low,
            n_rows,
        };
        ndarray::Zip::indexed(sinograms.axis_iter_mut(Axis(0))).par_for_each(|k, out| {
            lines.slice(&self.heights, (covered.start + k) as f64, out);
        });
        self.kept = Some((low, window));
        Ok(ShiftedSlab { covered, sinograms })
    }

    /// Rows `rows`, as many as possible from those kept.
    fn window(&mut self, rows: Range<usize>) -> Result<Sinograms> {
        let Some((start, kept)) = self.kept.take() else {
            return self.timed_rows(rows, None);
        };
        let end = start + kept.dim().0;
        if rows.start < start || rows.start >= end || rows.end <= end {
            drop(kept);
            return self.timed_rows(rows, None);
        }
        let old = kept.slice(s![rows.start - start.., .., ..]).to_owned();
        drop(kept);
        let new = self.timed_rows(end..rows.end, None)?;
        let (_, angles, cols) = new.dim();
        let mut window = Array3::zeros((rows.len(), angles, cols));
        window.slice_mut(s![..old.dim().0, .., ..]).assign(&old);
        window.slice_mut(s![old.dim().0.., .., ..]).assign(&new);
        Ok(window)
    }
}

/// Rows of the detector from which lines of slices are interpolated.
struct Lines<'a> {
    window: ArrayView3<'a, f32>,
    /// Detector row of the first of them.
    low: usize,
    n_rows: usize,
}

impl Lines<'_> {
    /// All lines of slice `z`, `[angle, col]`.
    fn slice(&self, heights: &Heights<'_>, z: f64, mut out: ArrayViewMut2<'_, f32>) {
        let row = heights.row(z);
        for (angle, line) in out.outer_iter_mut().enumerate() {
            let (down, right) = heights.movement(angle);
            match heights.lean {
                None => self.level(angle, row + down, line),
                Some(axis) => {
                    // the row falls by the slope from one column to the next
                    let slope = axis.slope_px_per_row;
                    let first = row + down + slope * (axis.at(row) + right);
                    self.leaning(angle, first, slope, line);
                }
            }
        }
    }

    /// Line `row` of a projection; rows beyond the detector repeat its edge row.
    fn level(&self, angle: usize, row: f64, mut out: ArrayViewMut1<'_, f32>) {
        let whole = row.floor();
        let fraction = row - whole;
        if fraction == 0.0 {
            out.assign(&self.line(angle, whole as i64));
            return;
        }
        out.fill(0.0);
        for (tap, weight) in lanczos_taps(fraction).into_iter().enumerate() {
            let row = whole as i64 + tap as i64 - (HALO_ROWS as i64 - 1);
            out.scaled_add(weight as f32, &self.line(angle, row));
        }
    }

    /// The line that stands at row `first` in column 0 and `slope` rows higher with each further column.
    fn leaning(&self, angle: usize, first: f64, slope: f64, mut out: ArrayViewMut1<'_, f32>) {
        let table = leaning_taps();
        let mut col = 0;
        while col < out.len() {
            let whole = (first - slope * col as f64).floor();
            let lines: [_; 2 * HALO_ROWS] = std::array::from_fn(|tap| {
                self.line(angle, whole as i64 + tap as i64 - (HALO_ROWS as i64 - 1))
            });
            // as long as the six rows stay the same
            while col < out.len() {
                let fraction = first - slope * col as f64 - whole;
                if !(0.0..1.0).contains(&fraction) {
                    break;
                }
                let taps = &table[(fraction * LEANING_STEPS as f64 + 0.5) as usize];
                let mut sum = 0.0;
                for (weight, line) in taps.iter().zip(&lines) {
                    sum += weight * line[col];
                }
                out[col] = sum;
                col += 1;
            }
        }
    }

    fn line(&self, angle: usize, row: i64) -> ArrayView1<'_, f32> {
        let row = row.clamp(0, self.n_rows as i64 - 1) as usize - self.low;
        self.window.slice(s![row, angle, ..])
    }
}

/// Steps of the table of [`leaning_taps`]: a row is placed to half of one, 1.2e-4 of a row.
const LEANING_STEPS: usize = 4096;

/// [`lanczos_taps`] at every step of a row.
fn leaning_taps() -> &'static [[f32; 2 * HALO_ROWS]] {
    static TABLE: OnceLock<Vec<[f32; 2 * HALO_ROWS]>> = OnceLock::new();
    TABLE.get_or_init(|| {
        (0..=LEANING_STEPS)
            .map(|step| lanczos_taps(step as f64 / LEANING_STEPS as f64).map(|tap| tap as f32))
            .collect()
    })
}

/// Weights of rows -2..=3 around a position `fraction` past row 0: their sum is 1 and their centre of mass is `fraction`, so
/// anything linear in height is met exactly.
pub(super) fn lanczos_taps(fraction: f64) -> [f64; 2 * HALO_ROWS] {
    let lobes = HALO_ROWS as f64;
    let sinc = |x: f64| {
        if x.abs() < 1e-12 {
            1.0
        } else {
            (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x)
        }
    };
    let mut taps = std::array::from_fn(|tap| {
        let x = fraction - (tap as f64 - (lobes - 1.0));
        if x.abs() < lobes {
            sinc(x) * sinc(x / lobes)
        } else {
            0.0
        }
    });
    let sum: f64 = taps.iter().sum();
    for tap in &mut taps {
        *tap /= sum;
    }
    // the least change of the weights, in squares, that moves the centre of mass: linear in the row. It leaves the sum.
    let row = |tap: usize| tap as f64 - (lobes - 1.0);
    let middle = 0.5 * (row(0) + row(taps.len() - 1));
    let beside: f64 = (0..taps.len()).map(|k| taps[k] * row(k)).sum::<f64>() - fraction;
    let squares: f64 = (0..taps.len()).map(|k| (row(k) - middle).powi(2)).sum();
    for (k, tap) in taps.iter_mut().enumerate() {
        *tap -= beside * (row(k) - middle) / squares;
    }
    taps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row r holds the smooth function f(r); every read is counted.
    struct Ramp {
        n_rows: usize,
        read: usize,
    }

    fn f(row: f64) -> f64 {
        (0.15 * row).sin() + 0.01 * row
    }

    impl RowSource for Ramp {
        fn n_rows(&self) -> usize {
            self.n_rows
        }
        fn rows_into(&mut self, rows: Range<usize>, _: Option<Sinograms>) -> Result<Sinograms> {
            self.read += rows.len();
            Ok(Array3::from_shape_fn((rows.len(), 2, 3), |(r, _, _)| {
                f((rows.start + r) as f64) as f32
            }))
        }
    }

    fn all(shift: f64, slab: usize, n_rows: usize) -> (Vec<(usize, f32)>, usize) {
        let mut ramp = Ramp { n_rows, read: 0 };
        let mut rows = ShiftedRows::new(&mut ramp, Heights::shifted(shift), 3);
        let mut values = Vec::new();
        for start in (0..n_rows).step_by(slab) {
            let slab = rows.slab(start..(start + slab).min(n_rows), None).unwrap();
            for (k, z) in slab.covered.clone().enumerate() {
                values.push((z, slab.sinograms[[k, 1, 2]]));
            }
        }
        (values, ramp.read)
    }

    #[test]
    fn a_fractional_shift_follows_a_smooth_function() {
        let (values, _) = all(3.37, 7, 60);
        assert_eq!(values.first().map(|v| v.0), Some(0));
        assert_eq!(
            values.last().map(|v| v.0),
            Some(55),
            "of rows 0 to 59, 55 + 3.37 is the last on the detector"
        );
        for &(z, value) in values.iter().filter(|(z, _)| *z < 52) {
            // at 0.024 cycles per row the kernel errs by at most 3e-4 of the amplitude (1); values near 1.5 are rounded to 1e-7
            assert!((f64::from(value) - f(z as f64 + 3.37)).abs() < 4e-4, "{z}");
        }
        let wrong = f64::from(values[20].1) - f(20.0 + 3.0);
        assert!(wrong.abs() > 0.02, "the check is blind");
    }

    #[test]
    fn slab_height_does_not_matter_and_no_row_is_read_twice() {
        let (whole, _) = all(-2.6, 60, 60);
        for slab in [1, 4, 9] {
            let (parts, read) = all(-2.6, slab, 60);
            assert_eq!(parts, whole);
            assert!(
                slab < 4 || read <= 60,
                "{read} rows read in slabs of {slab}"
            );
        }
    }

    #[test]
    fn a_whole_shift_copies_rows() {
        let (values, read) = all(-4.0, 8, 30);
        assert_eq!((values.len(), read), (26, 26));
        assert!(
            values
                .iter()
                .all(|&(z, value)| value == f(z as f64 - 4.0) as f32)
        );
    }

    #[test]
    fn taps_sum_to_one_stand_at_the_fraction_and_keep_the_noise() {
        let row = |tap: usize| tap as f64 - (HALO_ROWS as f64 - 1.0);
        let mut before: Option<[f64; 2 * HALO_ROWS]> = None;
        for k in 0..=100 {
            let fraction = f64::from(k) / 100.0;
            let taps = lanczos_taps(fraction);
            let sum: f64 = taps.iter().sum();
            let centre: f64 = (0..taps.len()).map(|k| taps[k] * row(k)).sum();
            assert!(
                (sum - 1.0).abs() < 1e-12 && (centre - fraction).abs() < 1e-12,
                "{fraction}"
            );
            // 1 at a row; at one half the taps are symmetric, so nothing was corrected: six Lanczos weights, 0.786
            let noise: f64 = taps.iter().map(|tap| tap * tap).sum();
            assert!((0.78..=1.0 + 1e-12).contains(&noise), "{fraction}: {noise}");
            // no jump from one fraction to the next, nor at the whole row
            if let Some(before) = before {
                let jump = (0..taps.len())
                    .map(|k| (taps[k] - before[k]).abs())
                    .fold(0.0, f64::max);
                assert!(jump < 0.02, "{fraction}: {jump}");
            }
            before = Some(taps);
        }
        for (fraction, tap) in [(0.0, HALO_ROWS - 1), (1.0, HALO_ROWS)] {
            assert!((lanczos_taps(fraction)[tap] - 1.0).abs() < 1e-12);
        }
    }
}
