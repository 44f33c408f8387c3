//! Rows and columns averaged in groups, for pilots and previews.
//!
//! Line integrals are averaged, not transmissions: the mean line integral over the larger pixel is what a detector with
//! such pixels and an ideal logarithm would see, so that the slice is that of the same object, averaged.

use std::ops::Range;

use ndarray::{Array2, Array3, ArrayView2, ArrayViewMut2, Axis};

use crate::correct::line_integrals::{CountSlab, Touched};
use crate::error::Result;
use crate::pipeline::rows::{RowSource, RowState};
use crate::plan::forecast::cost::{Cost, repeated};
use crate::scan::{Sinograms, reused};

/// Means over `binning` rows and columns of another source.
pub struct BinnedRows<'a> {
    source: &'a mut dyn RowSource,
    first_row: usize,
    binning: usize,
    /// Rows of the source held at a time: whole groups, or a part of one.
    at_once: usize,
    /// Memory of the last of these, for the next: fresh memory costs page faults.
    spare: Option<Sinograms>,
}

impl<'a> BinnedRows<'a> {
    /// Binned row k is the mean of the rows from `first_row + k * binning` on; what is left at the end is left out.
    /// At most `rows_at_once` rows of the source are held (but never less than one); how many does not change a bit.
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
            at_once: if rows_at_once < binning {
                rows_at_once.max(1)
            } else {
                rows_at_once / binning * binning
            },
            spare: None,
        }
    }
}

impl RowSource for BinnedRows<'_> {
    fn n_rows(&self) -> usize {
        (self.source.n_rows() - self.first_row) / self.binning
    }

    fn rows_into(&mut self, rows: Range<usize>, used: Option<Sinograms>) -> Result<Sinograms> {
        let b = self.binning;
        let fine = self.first_row + rows.start * b..self.first_row + rows.end * b;
        if b == 1 {
            return self.source.rows_into(fine, used);
        }
        let mut used = used;
        let mut out: Option<Array3<f32>> = None;
        // whole groups in one read where there is room: a frame stored as one compressed chunk is decoded once then
        for start in fine.clone().step_by(self.at_once) {
            let part = start..(start + self.at_once).min(fine.end);
            let read = self.source.rows_into(part.clone(), self.spare.take())?;
            let (_, angles, cols) = read.dim();
            let out = out.get_or_insert_with(|| {
                let mut sums = reused(used.take(), [rows.len(), angles, cols / b]);
                sums.fill(0.0);
                sums
            });
            for (row, sinogram) in part.zip(read.outer_iter()) {
                let sums = out.index_axis_mut(Axis(0), (row - fine.start) / b);
                add_binned(sums, sinogram, b);
            }
            self.spare = Some(read);
        }
        let scale = 1.0 / (b * b) as f32;
        let mut out = out.unwrap_or_else(|| Array3::zeros((0, 0, 0)));
        out.par_mapv_inplace(|sum| sum * scale);
        Ok(out)
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

/// What it takes to average one row `[angle, col]` of the source.
pub(crate) fn cost_per_row([n_angles, n_cols]: [usize; 2], b: usize) -> Cost {
    if b <= 1 {
        return Cost::NONE;
    }
    let row = Array2::zeros((n_angles, n_cols));
    let mut sums = Array2::zeros((n_angles, n_cols / b));
    let added = repeated(|| {
        add_binned(sums.view_mut(), row.view(), b);
        Ok(())
    });
    added.unwrap_or(Cost::NONE)
}

/// Adds sums over `b` columns of a row to those of the rows before it: always in this order, however the rows come.
fn add_binned(mut sums: ArrayViewMut2<'_, f32>, row: ArrayView2<'_, f32>, b: usize) {
    ndarray::Zip::from(sums.rows_mut())
        .and(row.rows())
        .par_for_each(|sums, line| {
            let line = line
                .to_slice()
                .expect("a row of a fresh array is contiguous");
            let sums = sums
                .into_slice()
                .expect("a row of a fresh array is contiguous");
            match b {
                2 => add_groups(sums, line.as_chunks::<2>().0),
                3 => add_groups(sums, line.as_chunks::<3>().0),
                4 => add_groups(sums, line.as_chunks::<4>().0),
                _ => {
                    for (sum, columns) in sums.iter_mut().zip(line.chunks_exact(b)) {
                        *sum += columns.iter().sum::<f32>();
                    }
                }
            }
        });
}

/// The same for groups of a size that the compiler knows, which go through lanes.
fn add_groups<const B: usize>(sums: &mut [f32], groups: &[[f32; B]]) {
    for (sum, columns) in sums.iter_mut().zip(groups) {
        *sum += columns[1..].iter().fold(columns[0], |sum, v| sum + v);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::s;

    use super::*;

    struct Waves;

    impl RowSource for Waves {
        fn n_rows(&self) -> usize {
            23
        }
        fn rows_into(&mut self, rows: Range<usize>, _: Option<Sinograms>) -> Result<Sinograms> {
            Ok(Array3::from_shape_fn((rows.len(), 3, 11), |(r, a, c)| {
                ((rows.start + r) as f32 * 0.7 + a as f32 + c as f32 * 0.3).sin()
            }))
        }
    }

    #[test]
    fn means_are_those_of_the_groups_and_rows_at_once_change_no_bit() {
        let binned = |at_once: usize| {
            BinnedRows::new(&mut Waves, 2, 4, at_once)
                .rows(1..5)
                .unwrap()
        };
        let whole = binned(100);
        assert_eq!(whole.dim(), (4, 3, 2));
        for at_once in [0, 1, 3, 4, 5, 9] {
            assert_eq!(binned(at_once), whole, "{at_once} rows at once");
        }
        let all = Waves.rows(0..23).unwrap();
        for ((k, angle, col), &mean) in whole.indexed_iter() {
            let (row, col) = (2 + 4 * (1 + k), 4 * col);
            let block = all.slice(s![row..row + 4, angle, col..col + 4]);
            let expected = block.iter().map(|&v| f64::from(v)).sum::<f64>() / 16.0;
            // 16 values below 1: each addition rounds by at most half an f32 step of a sum below 16
            assert!((f64::from(mean) - expected).abs() < 16.0 * f64::from(f32::EPSILON));
        }
        let shifted = BinnedRows::new(&mut Waves, 3, 4, 100).rows(1..5).unwrap();
        assert_ne!(shifted, whole, "the check is blind");
    }
}
