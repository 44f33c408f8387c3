//! Which detector row a slice is taken from: shift, magnification, movement during the scan, and lean of the axis.

use std::ops::Range;

use crate::center::AxisFit;
use crate::scan::Shifts;

/// Where slices stand on the detector.
///
/// At the axis, slice z is row `fixed_row + scale * (z - fixed_row) + shift_px`, and `z_px` of the projection further
/// down. Where the axis leans by a slope, the detector is rolled against it: its rows are no slices. A ray that
/// passes the axis at the distance t, to the right, meets the slice `slope * t` rows higher up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heights<'a> {
    /// Row of slice `fixed_row`, minus `fixed_row` \[px\].
    pub shift_px: f64,
    /// Rows per slice.
    pub scale: f64,
    /// Row that magnification leaves where it is.
    pub fixed_row: f64,
    /// Movement of the sample during the scan.
    pub shifts: Option<&'a Shifts>,
    /// The axis, where rows are to be taken along its lean.
    pub lean: Option<&'a AxisFit>,
}

impl<'a> Heights<'a> {
    /// Slice z is row `z + shift_px`, in every projection and column.
    #[must_use]
    pub fn shifted(shift_px: f64) -> Heights<'a> {
        Heights {
            shift_px,
            scale: 1.0,
            fixed_row: 0.0,
            shifts: None,
            lean: None,
        }
    }

    /// Row of slice `z` at the axis of a projection that did not move \[px\].
    #[must_use]
    pub fn row(&self, z: f64) -> f64 {
        if self.scale == 1.0 {
            return z + self.shift_px;
        }
        self.fixed_row + self.scale * (z - self.fixed_row) + self.shift_px
    }

    /// The other way: the slice whose row at the axis is `row`.
    #[must_use]
    pub fn slice_at(&self, row: f64) -> f64 {
        self.fixed_row + (row - self.shift_px - self.fixed_row) / self.scale
    }

    /// The whole number of rows by which every slice is shifted, if there is one.
    pub(super) fn whole_shift(&self) -> Option<i64> {
        let still = self
            .shifts
            .is_none_or(|shifts| shifts.z_px.iter().all(|&z| z == 0.0));
        let plain = self.scale == 1.0 && still && self.lean.is_none();
        (plain && self.shift_px.fract() == 0.0).then_some(self.shift_px as i64)
    }

    /// Whether rows are interpolated between.
    #[must_use]
    pub fn is_interpolated(&self) -> bool {
        self.whole_shift().is_none()
    }

    /// Movement of projection `angle` in height and to the right \[px\].
    pub(super) fn movement(&self, angle: usize) -> (f64, f64) {
        self.shifts
            .map_or((0.0, 0.0), |s| (s.z_px[angle], s.x_px[angle]))
    }

    /// How far rows lie above (negative) and below [`Heights::row`] at most, over all projections and columns \[px\].
    #[must_use]
    pub fn spread(&self, n_rows: usize, n_cols: usize) -> (f64, f64) {
        let (mut low, mut high) = (0.0_f64, 0.0_f64);
        let mut x = (0.0_f64, 0.0_f64);
        if let Some(shifts) = self.shifts {
            let bounds = |values: &[f64]| {
                values
                    .iter()
                    .fold((f64::INFINITY, f64::NEG_INFINITY), |b, &v| {
                        (b.0.min(v), b.1.max(v))
                    })
            };
            (low, high) = bounds(&shifts.z_px);
            x = bounds(&shifts.x_px);
        }
        if let Some(axis) = self.lean {
            let ends = [axis.at(0.0), axis.at(n_rows as f64 - 1.0)];
            let right = n_cols as f64 - 1.0 - ends[0].min(ends[1]) - x.0;
            let left = ends[0].max(ends[1]) + x.1;
            let slope = axis.slope_px_per_row;
            let (a, b) = (-slope * right, slope * left);
            low += a.min(b);
            high += a.max(b);
        }
        (low, high)
    }

    /// The slices of `slices` that every projection sees with all its columns.
    #[must_use]
    pub fn covered(&self, slices: &Range<usize>, n_rows: usize, n_cols: usize) -> Range<usize> {
        let (low, high) = self.spread(n_rows, n_cols);
        let on_detector = |z: usize| {
            let row = self.row(z as f64);
            row + low >= -1e-9 && row + high <= n_rows as f64 - 1.0 + 1e-9
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
}
