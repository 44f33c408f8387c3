//! A phantom seen by an ideal scanner: line integrals for tests of everything behind the corrections.

use std::ops::Range;

use ndarray::{Array2, Array3, ArrayViewMut2, Axis};
use rayon::prelude::*;

use super::{Phantom, Projector};
use crate::error::Result;
use crate::scan::{SinogramSource, Sinograms};

/// Exact line integrals of a phantom, row by row.
#[derive(Debug, Clone)]
pub struct PhantomScan {
    /// The object.
    pub phantom: Phantom,
    /// Angle of each projection \[rad\].
    pub angles_rad: Vec<f64>,
    /// Detector rows.
    pub n_rows: usize,
    /// Detector columns.
    pub n_cols: usize,
    /// Column of the rotation axis at the middle row `(n_rows - 1) / 2` \[px\].
    pub axis_px: f64,
    /// Lean of the axis \[px per row\].
    pub slope_px_per_row: f64,
    /// Multiplies the integrals: the pixel size in cm for values in 1/cm, 1 for values in 1/px.
    pub length_per_px: f64,
    /// Blur of the projections, one sigma \[px\]; see [`Projector::blurred`].
    pub blur_px: f64,
}

impl PhantomScan {
    /// `n_angles` over half a turn, both ends included, the axis in the middle of the detector, values in 1/px.
    #[must_use]
    pub fn half_turn(phantom: Phantom, n_angles: usize, n_rows: usize, n_cols: usize) -> Self {
        PhantomScan {
            phantom,
            angles_rad: half_turn(n_angles),
            n_rows,
            n_cols,
            axis_px: (n_cols as f64 - 1.0) / 2.0,
            slope_px_per_row: 0.0,
            length_per_px: 1.0,
            blur_px: 0.0,
        }
    }

    /// The row that looks at z = 0.
    #[must_use]
    pub fn middle_row(&self) -> f64 {
        (self.n_rows as f64 - 1.0) / 2.0
    }

    /// The sinogram of one row, `[angle, col]`.
    ///
    /// # Errors
    /// None; the result is that of [`SinogramSource::sinograms`].
    pub fn sinogram(&self, row: usize) -> Result<Array2<f32>> {
        Ok(self.sinograms(row..row + 1)?.index_axis_move(Axis(0), 0))
    }

    fn project(
        &self,
        projector: &Projector,
        angle: usize,
        rows: &Range<usize>,
        mut out: ArrayViewMut2<'_, f32>,
    ) {
        let axis = |row: f64| {
            self.axis_px + self.slope_px_per_row * (rows.start as f64 + row - self.middle_row())
        };
        let frame = projector.frame(self.angles_rad[angle], axis);
        out.zip_mut_with(&frame, |to, from| *to = (from * self.length_per_px) as f32);
    }

    fn projector(&self, rows: &Range<usize>) -> Projector {
        let middle_row = self.middle_row() - rows.start as f64;
        Projector::blurred(
            &self.phantom,
            [rows.len(), self.n_cols],
            middle_row,
            self.blur_px,
        )
    }
}

impl SinogramSource for PhantomScan {
    fn n_rows(&self) -> usize {
        self.n_rows
    }
    fn n_cols(&self) -> usize {
        self.n_cols
    }
    fn angles_rad(&self) -> &[f64] {
        &self.angles_rad
    }
    fn sinograms(&self, rows: Range<usize>) -> Result<Sinograms> {
        let projector = self.projector(&rows);
        let mut out = Array3::zeros((rows.len(), self.angles_rad.len(), self.n_cols));
        out.axis_iter_mut(Axis(1))
            .into_par_iter()
            .enumerate()
            .for_each(|(angle, frame)| {
                self.project(&projector, angle, &rows, frame);
            });
        Ok(out)
    }
    fn projection(&self, angle: usize, rows: Range<usize>) -> Result<Array2<f32>> {
        let mut out = Array2::zeros((rows.len(), self.n_cols));
        self.project(&self.projector(&rows), angle, &rows, out.view_mut());
        Ok(out)
    }
}

/// `n` angles from 0 to pi, both ends included \[rad\].
pub(crate) fn half_turn(n: usize) -> Vec<f64> {
    (0..n)
        .map(|k| std::f64::consts::PI * k as f64 / (n.max(2) - 1) as f64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phantom::Object;

    #[test]
    fn any_rows_and_single_projections_are_parts_of_the_whole() {
        let phantom = Phantom::new(vec![Object::sphere([4.0, -3.0, 1.0], 6.0, 0.02)]);
        let mut scan = PhantomScan::half_turn(phantom, 7, 15, 31);
        scan.slope_px_per_row = 0.1;
        scan.blur_px = 0.7;
        let whole = scan.sinograms(0..15).unwrap();
        assert_eq!(
            scan.sinograms(5..9).unwrap(),
            whole.slice(ndarray::s![5..9, .., ..])
        );
        assert_ne!(
            scan.sinograms(4..8).unwrap(),
            whole.slice(ndarray::s![5..9, .., ..])
        );
        assert_eq!(
            scan.projection(3, 2..12).unwrap(),
            whole.slice(ndarray::s![2..12, 3, ..])
        );
        assert_eq!(scan.sinogram(6).unwrap(), whole.index_axis(Axis(0), 6));
    }
}
