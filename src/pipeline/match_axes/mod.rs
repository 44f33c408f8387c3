//! How the rotation axis of a scan stands against that of its reference, from the projections of both.
//!
//! Each scan alone tells its axis to a few hundredths of a pixel, and its lean less well. A half turn takes such an error for a shift of the
//! sample: over 180 degrees a constant is 4/pi times a sine, which is a shift perpendicular to the first view, and a lean shears the volume. Both scans hold the
//! same sample, though. At equal angle a of the sample, and height h, the one is the other moved to the side by
//!
//! ```text
//! x cos a - y sin a + axis + lean h
//! ```
//!
//! and a constant, a cosine and a sine are independent of one another over a half turn as over a whole one. So bands of rows of both scans are compared
//! view by view ([`fit`]); the volumes, which know the shifts themselves better, are compared after that. Line integrals are true where the sample is wider
//! than the detector, too, which slices are not.
//!
//! What is held, at most 110 MB, is less than what the alignment needs beside its pilots, which are held meanwhile.

mod cost;
mod fit;
#[cfg(test)]
mod tests;

use std::ops::Range;

use ndarray::{Array3, s};

use crate::align::{SMOOTHING_REACH, smooth};
use crate::error::Result;
use crate::pipeline::geometry::ScanGeometry;
use crate::pipeline::reconstruct_scan::Motion;
use crate::reconstruct::geometry::arc_weights;
use crate::record::{AlignmentRecord, AxisCorrection};
use crate::scan::SinogramSource;
pub(crate) use cost::{cost, rows_corrected};
use fit::{Band, Pair, Side, View};

/// Samples compared, at most.
const SAMPLES: usize = 6_000_000;
/// Views compared, at least, where there are as many, and those without which nothing is said.
const VIEWS: usize = 60;
const LEAST_VIEWS: usize = 16;
/// Bands of rows, at most, and rows of each; fewer rows make narrower bands.
const BANDS: usize = 8;
const BAND_ROWS: usize = 8;
/// Bands without which no error can be told.
const LEAST_BANDS: usize = 4;
/// Rows needed beside those that are compared: the kernel, and a neighbour for the gradient or the interpolation.
const MARGIN: usize = SMOOTHING_REACH + 2;
/// Angles closer than this are one \[rad\].
const SAME_ANGLE: f64 = 1e-6;

/// A scan as it is seen here, in detector pixels.
pub(super) struct Seen<'a> {
    /// Line integrals.
    pub(super) source: &'a dyn SinogramSource,
    /// How it was taken, with the axis that it gave itself.
    pub(super) geometry: &'a ScanGeometry,
    /// Where it stands against the grid of the volumes.
    pub(super) motion: Motion,
    /// Rows that may be held at a time with all their angles.
    pub(super) at_once: usize,
}

impl Seen<'_> {
    fn side(&self) -> Side<'_> {
        Side {
            axis: &self.geometry.axis,
            motion: self.motion,
            fixed_row: self.geometry.fixed_row,
        }
    }

    /// Column of the middle of the grid from the axis, and row from where it is without movement, of projection `angle`.
    fn offset(&self, angle: usize) -> [f64; 2] {
        let (sin, cos) = self.geometry.angles_rad[angle].sin_cos();
        let in_plane = self.motion.in_plane;
        let column = in_plane.shift_x_px * cos - in_plane.shift_y_px * sin;
        match &self.geometry.shifts {
            Some(moved) => [column + moved.x_px[angle], moved.z_px[angle]],
            None => [column, 0.0],
        }
    }

    /// Rows `rows` of the given mixtures of projections `[view, row, col]`, smoothed.
    fn band(&self, rows: Range<usize>, views: &[Vec<(usize, f64)>]) -> Result<Array3<f32>> {
        let mut out = Array3::<f32>::zeros((views.len(), rows.len(), self.source.n_cols()));
        let step = self.at_once.max(1);
        for first in rows.clone().step_by(step) {
            let piece = first..(first + step).min(rows.end);
            let sinograms = self.source.sinograms(piece.clone())?;
            let at = piece.start - rows.start..piece.end - rows.start;
            for (view, mixture) in views.iter().enumerate() {
                let mut own = out.slice_mut(s![view, at.clone(), ..]);
                for &(angle, weight) in mixture {
                    own.scaled_add(weight as f32, &sinograms.slice(s![.., angle, ..]));
                }
            }
        }
        for axis in [1, 2] {
            smooth(&mut out, axis);
        }
        Ok(out)
    }
}

/// What is to be added to the axis of `target` for it to stand as that of `reference` does, at the row of the middle of `slices` and as a
/// lean; `None` where the projections do not say it (too few rows or views, or nothing in common).
///
/// `motion` of each side places the sample on one grid, to within a pixel; slices are numbered as rows of the grid.
///
/// # Errors
/// Those of the sources.
pub(super) fn find(
    reference: &Seen<'_>,
    target: &Seen<'_>,
    slices: &Range<usize>,
) -> Result<Option<AxisCorrection>> {
    let middle_slice = super::middle_of(slices);
    let sides = [reference.side(), target.side()];
    let matched = match_angles(reference, target);
    let bands = bands(reference, target, slices);
    if matched.len() < LEAST_VIEWS || bands.len() < LEAST_BANDS {
        return Ok(None);
    }
    let n_rows: usize = bands.iter().map(|(rows, _)| rows.len()).sum();
    let stride = matched
        .len()
        .div_ceil(most_views(n_rows, reference.source.n_cols()));
    let matched: Vec<_> = matched.into_iter().step_by(stride).collect();
    let views: Vec<View> = matched
        .iter()
        .map(|(own, mixture)| {
            let direction_rad =
                reference.geometry.angles_rad[*own] + reference.motion.in_plane.rotation_rad;
            View {
                direction_rad,
                target_rad: direction_rad - target.motion.in_plane.rotation_rad,
                offsets: [reference.offset(*own), mixed_offset(target, mixture)],
            }
        })
        .collect();
    let own_views: Vec<Vec<(usize, f64)>> =
        matched.iter().map(|(own, _)| vec![(*own, 1.0)]).collect();
    let mixtures: Vec<Vec<(usize, f64)>> =
        matched.into_iter().map(|(_, mixture)| mixture).collect();
    let mut held = Vec::with_capacity(bands.len());
    for (rows, of_target) in bands {
        let first = rows.start - MARGIN;
        held.push(Band {
            reference: reference.band(first..rows.end + MARGIN, &own_views)?,
            first_row: first,
            compared: MARGIN..MARGIN + rows.len(),
            target: target.band(of_target.clone(), &mixtures)?,
            target_row: of_target.start,
        });
    }
    let pair = Pair {
        sides,
        views: &views,
        bands: &held,
        middle_slice,
        half_height: (slices.len() as f64 / 2.0).max(1.0),
    };
    Ok(fit::axis(&pair).map(|found| AxisCorrection {
        axis_px: found.axis_px,
        axis_err_px: found.axis_err_px,
        slope_px_per_row: found.slope,
        slope_err_px_per_row: found.slope_err,
        row: target.geometry.heights(&target.motion).row(middle_slice),
    }))
}

/// Offset of a view of the target that is mixed of several.
fn mixed_offset(target: &Seen<'_>, mixture: &[(usize, f64)]) -> [f64; 2] {
    mixture.iter().fold([0.0; 2], |sum, &(angle, weight)| {
        let own = target.offset(angle);
        [sum[0] + weight * own[0], sum[1] + weight * own[1]]
    })
}

/// Each projection of the reference with the mixture of the target's that shows the sample from the same side.
///
/// Between projections the target is interpolated by the cubic through four (Lagrange), which a table of movement forbids.
fn match_angles(reference: &Seen<'_>, target: &Seen<'_>) -> Vec<(usize, Vec<(usize, f64)>)> {
    let turn = reference.motion.in_plane.rotation_rad - target.motion.in_plane.rotation_rad;
    let angles = &target.geometry.angles_rad;
    let mut order: Vec<usize> = (0..angles.len()).collect();
    order.sort_by(|&a, &b| angles[a].total_cmp(&angles[b]));
    order.dedup_by(|a, b| (angles[*a] - angles[*b]).abs() < SAME_ANGLE);
    let mut matched = Vec::new();
    for (own, &angle) in reference.geometry.angles_rad.iter().enumerate() {
        let wanted = angle + turn;
        let above = order.partition_point(|&k| angles[k] < wanted - SAME_ANGLE);
        if above < order.len() && (angles[order[above]] - wanted).abs() <= SAME_ANGLE {
            matched.push((own, vec![(order[above], 1.0)]));
            continue;
        }
        if above < 2 || above + 2 > order.len() || target.geometry.shifts.is_some() {
            continue;
        }
        let nodes = &order[above - 2..above + 2];
        let weight = |k: usize| {
            let others = nodes.iter().filter(|&&other| other != k);
            others.fold(1.0, |product, &other| {
                product * (wanted - angles[other]) / (angles[k] - angles[other])
            })
        };
        matched.push((own, nodes.iter().map(|&k| (k, weight(k))).collect()));
    }
    matched
}

/// Bands of rows of the reference, and the rows of the target that show the same heights, all with margins that both detectors have.
fn bands(
    reference: &Seen<'_>,
    target: &Seen<'_>,
    slices: &Range<usize>,
) -> Vec<(Range<usize>, Range<usize>)> {
    let [heights, of_target] = [reference, target].map(|seen| seen.geometry.heights(&seen.motion));
    let sides = [reference.side(), target.side()];
    let [rx, ry] = fit::tilt_between(&sides);
    let half_width = reference.source.n_cols() as f64 / 2.0;
    let moved = [reference, target]
        .into_iter()
        .filter_map(|seen| seen.geometry.shifts.as_ref())
        .flat_map(|shifts| &shifts.z_px)
        .fold(0.0_f64, |most, z| most.max(z.abs()));
    let reach = MARGIN + (rx.hypot(ry) * half_width + 2.0 * moved).ceil() as usize;
    let row_of = |row: usize| of_target.row(heights.slice_at(row as f64));
    let inside = |row: &usize| {
        let slice = heights.slice_at(*row as f64);
        let other = row_of(*row);
        slice >= slices.start as f64 - 0.5
            && slice <= slices.end as f64 - 0.5
            && other - reach as f64 >= 0.0
            && other + reach as f64 + 1.0 <= target.source.n_rows() as f64 - 1.0
    };
    let n_rows = reference.source.n_rows();
    let usable: Vec<usize> = (MARGIN..n_rows.saturating_sub(MARGIN))
        .filter(inside)
        .collect();
    let (Some(&first), n) = (usable.first(), usable.len()) else {
        return Vec::new();
    };
    let [count, height] = bands_of(n);
    (0..count)
        .map(|k| {
            let start = first + (n - height) * k / (count - 1).max(1);
            let rows = start..start + height;
            let low = row_of(rows.start).floor() as usize - reach;
            let high = row_of(rows.end - 1).ceil() as usize + reach;
            (rows, low..high + 1)
        })
        .collect()
}

/// How many bands of how many rows are compared where `n` rows can be.
fn bands_of(n: usize) -> [usize; 2] {
    let height = (n / BANDS).clamp(1, BAND_ROWS);
    [(n / height).min(BANDS), height]
}

/// Views of `n_rows` rows in all that are compared at most.
fn most_views(n_rows: usize, n_cols: usize) -> usize {
    (SAMPLES / (n_rows * n_cols)).max(VIEWS)
}

/// What an axis that is off by one pixel shifts a sample by, x and y (down), that is seen from `angles_rad`: the cosine and the
/// sine nearest to a constant. 4/pi over a half turn, 0 over a whole one.
pub(super) fn shift_per_axis(angles_rad: &[f64]) -> [f64; 2] {
    let weights = arc_weights(angles_rad);
    let mut sums = [0.0; 5];
    for (angle, w) in angles_rad.iter().zip(weights) {
        let (sin, cos) = angle.sin_cos();
        let terms = [cos * cos, -cos * sin, sin * sin, cos, -sin];
        for (sum, term) in sums.iter_mut().zip(terms) {
            *sum += w * term;
        }
    }
    let [cc, cs, ss, c, s] = sums;
    let det = cc * ss - cs * cs;
    if det <= 1e-9 * (cc + ss).powi(2) {
        return [0.0; 2];
    }
    [(ss * c - cs * s) / det, (cc * s - cs * c) / det]
}

/// Largest correction that is believed where the axes say nothing of their errors \[px\].
const MOST_PX: f64 = 0.5;

/// By how much two axes may stand apart as each scan alone tells its own.
fn axes_unknown_px(target: &ScanGeometry, reference: &ScanGeometry) -> f64 {
    target
        .axis
        .uncertainty_px
        .hypot(reference.axis.uncertainty_px)
}

/// Whether a correction is within what the two axes may be wrong by; if not, that is a doubt to be told.
pub(super) fn believed(
    found: &AxisCorrection,
    target: &ScanGeometry,
    reference: &ScanGeometry,
    warnings: &mut Vec<String>,
) -> bool {
    let expected = axes_unknown_px(target, reference);
    let size = found.axis_px.abs();
    log::info!(
        "axis against the reference: {:.3} +- {:.3} px, lean {:.5} +- {:.5} px per row",
        found.axis_px,
        found.axis_err_px,
        found.slope_px_per_row,
        found.slope_err_px_per_row
    );
    if size <= MOST_PX.max(5.0 * expected) {
        return true;
    }
    warnings.push(format!(
        "alignment: the projections of both scans say that the axis is off by {:.2} px, far more than found ({expected:.2} px); it was left \
         where it is, look at `tomodelta center` for both scans",
        found.axis_px
    ));
    false
}

/// Adds to the errors of a motion what the axes of the two scans leave unknown of it.
pub(super) fn widen_errors(
    record: &mut AlignmentRecord,
    target: &ScanGeometry,
    reference: &ScanGeometry,
) {
    let per_axis = shift_per_axis(&target.angles_rad);
    let own = axes_unknown_px(target, reference);
    let (axis, lean) = record
        .axis_correction
        .map_or((own, 0.0), |c| (c.axis_err_px, c.slope_err_px_per_row));
    for (err, by) in record.shift_err_voxel.iter_mut().zip(per_axis) {
        *err = err.hypot(axis * by);
    }
    // a shear along y is taken for a tilt about x, one along x for one about y
    let [along_x, along_y] = per_axis;
    for (err, by) in record.rotation_err_deg.iter_mut().zip([along_y, along_x]) {
        if *err > 0.0 {
            *err = err.hypot((lean * by).to_degrees());
        }
    }
}
