//! Rows and columns averaged in groups, for pilots and previews.
//!
//! Line integrals are averaged, not transmissions: the mean line integral over the larger pixel is what a detector with
//! such pixels and an ideal logarithm would see, so that the slice is that of the same object, averaged.

use std::ops::Range;

use ndarray::{Array3, Axis, s};

use crate::correct::line_integrals::{CountSlab, Touched};
use crate::error::Result;
use crate::pipeline::rows::{RowSource, RowState};
use crate::scan::Sinograms;

/// Means over `binning` rows and columns of another source.
pub struct BinnedRows<'a> {
    source: &'a mut dyn RowSource,
    first_row: usize,
    binning: usize,
    at_once: usize,
}

impl<'a> BinnedRows<'a> {
    /// Binned row k is the mean of the rows from `first_row + k * binning` on; what is left at the end is left out.
    /// At most `rows_at_once` rows of the source are held (but never less than one group).
    pub fn new(
        source: &'a mut dyn RowSource,
        first_row: usize,
        binning: usize,
        rows_at_once: usize,
    ) -> Self {
        BinnedRows {
            source,
            first_row,
            binning,
            at_once: (rows_at_once / binning).max(1),
        }
    }
}

impl RowSource for BinnedRows<'_> {
    fn n_rows(&self) -> usize {
        (self.source.n_rows() - self.first_row) / self.binning
    }

    fn rows(&mut self, rows: Range<usize>) -> Result<Sinograms> {
        let b = self.binning;
        let fine = |rows: &Range<usize>, first: usize| first + rows.start * b..first + rows.end * b;
        if b == 1 {
            return self.source.rows(fine(&rows, self.first_row));
        }
        let mut out: Option<Array3<f32>> = None;
        let scale = 1.0 / (b * b) as f32;
        for start in rows.clone().step_by(self.at_once) {
            let group = start..(start + self.at_once).min(rows.end);
            // in one read: a frame stored as one compressed chunk is decoded once, not once for each row
            let fine = self.source.rows(fine(&group, self.first_row))?;
            let (_, angles, cols) = fine.dim();
            let out = out.get_or_insert_with(|| Array3::zeros((rows.len(), angles, cols / b)));
            let first = group.start - rows.start;
            let mut part = out.slice_mut(s![first..first + group.len(), .., ..]);
            for (k, mut sinogram) in part.axis_iter_mut(Axis(0)).enumerate() {
                ndarray::Zip::indexed(sinogram.rows_mut()).par_for_each(|angle, mut line| {
                    for (col, value) in line.iter_mut().enumerate() {
                        let block =
                            fine.slice(s![k * b..(k + 1) * b, angle, col * b..(col + 1) * b]);
                        *value = block.sum() * scale;
                    }
                });
            }
        }
        Ok(out.unwrap_or_else(|| Array3::zeros((0, 0, 0))))
    }

    fn off_device(&self) -> Option<String> {
        if self.binning > 1 {
            return Some("rows are binned on the CPU".into());
        }
        self.source.off_device()
    }

    fn counts(&mut self, rows: Range<usize>) -> Result<CountSlab> {
        self.source
            .counts(rows.start + self.first_row..rows.end + self.first_row)
    }

    fn touched(&mut self, touched: Touched) {
        self.source.touched(touched);
    }

    fn state(&self) -> RowState {
        self.source.state()
    }

    fn restore(&mut self, state: &RowState) {
        self.source.restore(state);
    }
}
