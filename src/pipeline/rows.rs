//! Sinogram rows on the height grid of the reference.
//!
//! Slice z of the reference grid is row z + shift of a moved scan. Where that is no whole number, rows are
//! interpolated once, before the reconstruction (which is linear and acts on each row alone, so this equals
//! interpolating the slices, but nothing is interpolated in x and y). The kernel is a Lanczos window of three lobes
//! (Duchon 1979, J. Appl. Meteorol. 18:1016), corrected to sum 1 and to stand exactly at the wanted height: cut off
//! after three lobes it would stand up to 0.02 rows beside. It keeps 79 % (one half between two rows) to 100 % of the noise power
//! of a row, where linear interpolation would keep 50 %.

use std::ops::Range;

use ndarray::{Array3, Axis, s};
use serde::{Deserialize, Serialize};

use crate::correct::line_integrals::{CountSlab, Touched};
use crate::correct::{CorrectedScan, CorrectionCounts};
use crate::error::Result;
use crate::plan::HALO_ROWS;
use crate::scan::{SinogramSource, Sinograms};

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
    /// Line integrals of `rows`, `[row, angle, col]`.
    ///
    /// # Errors
    /// Those of the source.
    fn rows(&mut self, rows: Range<usize>) -> Result<Sinograms>;
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
    state: RowState,
}

impl<'a> CountedScan<'a> {
    /// Starts with nothing counted.
    #[must_use]
    pub fn new(scan: &'a CorrectedScan) -> Self {
        CountedScan {
            scan,
            state: RowState::default(),
        }
    }

    /// What the corrections touched, over all rows given so far, each counted once.
    #[must_use]
    pub fn corrections(&self) -> &CorrectionCounts {
        &self.state.counts
    }
}

impl RowSource for CountedScan<'_> {
    fn n_rows(&self) -> usize {
        SinogramSource::n_rows(self.scan)
    }
    fn rows(&mut self, rows: Range<usize>) -> Result<Sinograms> {
        let known = self.state.counted.clamp(rows.start, rows.end);
        let (new, counts) = self.scan.slab(known..rows.end)?;
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
        let (slab, known) = self.scan.count_slab(rows.clone())?;
        self.state.counts += known;
        self.state.counted = self.state.counted.max(rows.end);
        Ok(slab)
    }
    fn touched(&mut self, touched: Touched) {
        self.state.counts.clipped += touched.clipped;
        self.state.counts.zingers += touched.zingers;
    }
}

/// Line integrals from elsewhere (`.npy`).
pub struct PlainSource<'a>(pub &'a dyn SinogramSource);

impl RowSource for PlainSource<'_> {
    fn n_rows(&self) -> usize {
        self.0.n_rows()
    }
    fn rows(&mut self, rows: Range<usize>) -> Result<Sinograms> {
        self.0.sinograms(rows)
    }
}

/// Rows of a scan shifted in height, asked for in ascending slabs; overlapping rows are kept, not read again.
pub struct ShiftedRows<'a> {
    source: &'a mut dyn RowSource,
    shift: f64,
    kept: Option<(usize, Sinograms)>,
}

/// Part of a slab for which the scan has rows, and their line integrals.
pub struct ShiftedSlab {
    /// Slices of the slab that have data; the others lie above or below the detector.
    pub covered: Range<usize>,
    /// `[covered, angle, col]`
    pub sinograms: Sinograms,
}

impl<'a> ShiftedRows<'a> {
    /// Slice z is taken from row `z + shift`.
    pub fn new(source: &'a mut dyn RowSource, shift: f64) -> Self {
        ShiftedRows {
            source,
            shift,
            kept: None,
        }
    }

    /// Why the rows of slices are not corrected on the GPU.
    #[must_use]
    pub fn off_device(&self) -> Option<String> {
        if self.shift.fract() != 0.0 {
            return Some("rows are interpolated in height on the CPU".into());
        }
        self.source.off_device()
    }

    /// Counts of the slices of `slices` that have data; none where there are none.
    ///
    /// # Errors
    /// Those of the source.
    pub fn counts(&mut self, slices: Range<usize>) -> Result<(Range<usize>, Option<CountSlab>)> {
        let covered = covered_slices(&slices, self.shift, self.source.n_rows());
        if covered.is_empty() {
            return Ok((covered, None));
        }
        let row = |z: usize| (z as f64 + self.shift) as usize;
        let counts = self
            .source
            .counts(row(covered.start)..row(covered.end - 1) + 1)?;
        Ok((covered, Some(counts)))
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

    /// Line integrals of slices `slices`.
    ///
    /// # Errors
    /// Those of the source.
    pub fn slab(&mut self, slices: Range<usize>) -> Result<ShiftedSlab> {
        let covered = covered_slices(&slices, self.shift, self.source.n_rows());
        if covered.is_empty() {
            return Ok(ShiftedSlab {
                covered,
                sinograms: Array3::zeros((0, 0, 0)),
            });
        }
        let whole = self.shift.floor();
        let fraction = self.shift - whole;
        let first = (covered.start as f64 + whole) as i64;
        let last = ((covered.end - 1) as f64 + whole) as i64;
        if fraction == 0.0 {
            let rows = first as usize..last as usize + 1;
            return Ok(ShiftedSlab {
                covered,
                sinograms: self.source.rows(rows)?,
            });
        }
        let n_rows = self.source.n_rows() as i64;
        let taps = lanczos_taps(fraction);
        let low = (first - (HALO_ROWS as i64 - 1)).max(0) as usize;
        let high = (last + HALO_ROWS as i64).min(n_rows - 1) as usize + 1;
        let window = self.window(low..high)?;
        let (_, angles, cols) = window.dim();
        let mut sinograms = Array3::<f32>::zeros((covered.len(), angles, cols));
        ndarray::Zip::indexed(sinograms.axis_iter_mut(Axis(0))).par_for_each(|k, mut out| {
            for (tap, &weight) in taps.iter().enumerate() {
                // rows beyond the detector repeat its edge row
                let row = (first + k as i64 + tap as i64 - (HALO_ROWS as i64 - 1))
                    .clamp(0, n_rows - 1) as usize;
                out.scaled_add(weight as f32, &window.index_axis(Axis(0), row - low));
            }
        });
        self.kept = Some((low, window));
        Ok(ShiftedSlab { covered, sinograms })
    }

    /// Rows `rows`, as many as possible from those kept.
    fn window(&mut self, rows: Range<usize>) -> Result<Sinograms> {
        let Some((start, kept)) = self.kept.take() else {
            return self.source.rows(rows);
        };
        let end = start + kept.dim().0;
        if rows.start < start || rows.start >= end || rows.end <= end {
            drop(kept);
            return self.source.rows(rows);
        }
        let old = kept.slice(s![rows.start - start.., .., ..]).to_owned();
        drop(kept);
        let new = self.source.rows(end..rows.end)?;
        let (_, angles, cols) = new.dim();
        let mut window = Array3::zeros((rows.len(), angles, cols));
        window.slice_mut(s![..old.dim().0, .., ..]).assign(&old);
        window.slice_mut(s![old.dim().0.., .., ..]).assign(&new);
        Ok(window)
    }
}

/// The slices of `slices` whose row `z + shift` lies on the detector.
#[must_use]
pub fn covered_slices(slices: &Range<usize>, shift: f64, n_rows: usize) -> Range<usize> {
    let on_detector = |z: usize| {
        let row = z as f64 + shift;
        row >= -1e-9 && row <= n_rows as f64 - 1.0 + 1e-9
    };
    let start = slices
        .clone()
        .find(|&z| on_detector(z))
        .unwrap_or(slices.end);
    let end = slices
        .clone()
        .rev()
        .find(|&z| on_detector(z))
        .map_or(start, |z| z + 1);
    start..end
}

/// Weights of rows -2..=3 around a position `fraction` past row 0: their sum is 1 and their centre of mass is `fraction`, so
/// anything linear in height is met exactly.
fn lanczos_taps(fraction: f64) -> [f64; 2 * HALO_ROWS] {
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
        fn rows(&mut self, rows: Range<usize>) -> Result<Sinograms> {
            self.read += rows.len();
            Ok(Array3::from_shape_fn((rows.len(), 2, 3), |(r, _, _)| {
                f((rows.start + r) as f64) as f32
            }))
        }
    }

    fn all(shift: f64, slab: usize, n_rows: usize) -> (Vec<(usize, f32)>, usize) {
        let mut ramp = Ramp { n_rows, read: 0 };
        let mut rows = ShiftedRows::new(&mut ramp, shift);
        let mut values = Vec::new();
        for start in (0..n_rows).step_by(slab) {
            let slab = rows.slab(start..(start + slab).min(n_rows)).unwrap();
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
