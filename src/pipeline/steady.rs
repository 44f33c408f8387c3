//! A scan whose sample moved, as if it had not: for the search of the axis only.
//!
//! The reconstruction takes movement to the side into its geometry and never resamples for it; the methods that find the
//! axis compare projections, and need them in place. Both directions are interpolated by the Lanczos window of three lobes.

use std::ops::Range;

use ndarray::{Array2, Array3, ArrayView1, ArrayViewMut1, Axis, s};

use crate::error::Result;
use crate::pipeline::rows::lanczos_taps;
use crate::plan::HALO_ROWS;
use crate::scan::{Shifts, SinogramSource, Sinograms};

/// `source` with every projection moved back by its shift.
pub struct Steadied<'a> {
    source: &'a dyn SinogramSource,
    shifts: &'a Shifts,
}

impl<'a> Steadied<'a> {
    /// `None` where the source knows of no movement.
    #[must_use]
    pub fn new(source: &'a dyn SinogramSource) -> Option<Self> {
        source.shifts().map(|shifts| Steadied { source, shifts })
    }

    /// Rows of the source that `rows` are interpolated from, in the projections `angles`.
    fn window(&self, rows: &Range<usize>, angles: Range<usize>) -> Range<usize> {
        let z = &self.shifts.z_px[angles];
        let low = z.iter().copied().fold(f64::INFINITY, f64::min).floor();
        let high = z.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
        let halo = HALO_ROWS as f64;
        let last = self.source.n_rows() as f64 - 1.0;
        let start = (rows.start as f64 + low - halo).clamp(0.0, last) as usize;
        let end = (rows.end as f64 + high + halo).clamp(1.0, last + 1.0) as usize;
        start..end.max(start + 1)
    }

    /// Line `row` of projection `angle`; `line(r)` is row r of it as measured.
    fn line<'b>(
        &self,
        angle: usize,
        row: usize,
        window: &Range<usize>,
        line: impl Fn(usize) -> ArrayView1<'b, f32>,
        mut out: ArrayViewMut1<'_, f32>,
    ) {
        let mut level = ndarray::Array1::<f32>::zeros(out.len());
        let at = row as f64 + self.shifts.z_px[angle];
        let reach = HALO_ROWS as i64 - 1;
        for (tap, weight) in lanczos_taps(at - at.floor()).into_iter().enumerate() {
            if weight != 0.0 {
                let row = at.floor() as i64 + tap as i64 - reach;
                let row = row.clamp(window.start as i64, window.end as i64 - 1) as usize;
                level.scaled_add(weight as f32, &line(row));
            }
        }
        let x = self.shifts.x_px[angle];
        let taps = lanczos_taps(x - x.floor()).map(|tap| tap as f32);
        let last = out.len() as i64 - 1;
        for (col, value) in out.iter_mut().enumerate() {
            let first = col as i64 + x.floor() as i64 - reach;
            *value = (first..)
                .zip(&taps)
                .map(|(col, tap)| tap * level[col.clamp(0, last) as usize])
                .sum();
        }
    }
}

impl SinogramSource for Steadied<'_> {
    fn n_rows(&self) -> usize {
        self.source.n_rows()
    }

    fn n_cols(&self) -> usize {
        self.source.n_cols()
    }

    fn angles_rad(&self) -> &[f64] {
        self.source.angles_rad()
    }

    fn sinograms(&self, rows: Range<usize>) -> Result<Sinograms> {
        let n = self.angles_rad().len();
        let window = self.window(&rows, 0..n);
        let measured = self.source.sinograms(window.clone())?;
        let mut out = Array3::zeros((rows.len(), n, self.n_cols()));
        for (row, mut sinogram) in rows.zip(out.axis_iter_mut(Axis(0))) {
            ndarray::Zip::indexed(sinogram.rows_mut()).par_for_each(|angle, out| {
                let line = |row: usize| measured.slice(s![row - window.start, angle, ..]);
                self.line(angle, row, &window, line, out);
            });
        }
        Ok(out)
    }

    fn projection(&self, angle: usize, rows: Range<usize>) -> Result<Array2<f32>> {
        let window = self.window(&rows, angle..angle + 1);
        let measured = self.source.projection(angle, window.clone())?;
        let mut out = Array2::zeros((rows.len(), self.n_cols()));
        for (row, out) in rows.zip(out.rows_mut()) {
            let line = |row: usize| measured.row(row - window.start);
            self.line(angle, row, &window, line, out);
        }
        Ok(out)
    }
}
