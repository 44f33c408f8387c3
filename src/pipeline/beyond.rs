//! Rows of a later scan that go on beyond the detector as those of its reference do.
//!
//! What the ramp filter leaves in the field depends on what lies beyond the ends of the rows, and that nobody measured. Whatever a
//! scan is given there, a later one of the same sample must be given the same, or the difference shows the two guesses. A sample
//! that moved by s shows the later scan s pixels more of it on one side, and s less on the other, and no model of a
//! wall at the edge of the field is so good that both guesses agree.
//!
//! So the rows of the later scan are continued by those of the reference. At the place t of the sample in a view,
//!
//! q(t) = p(t) where both scans see it, r(t) + d f(t) elsewhere
//!
//! with the later scan's own value p, the row r of the reference in this direction (measured, and beyond its own ends continued as it was
//! reconstructed), the jump d = p - r where both still see the sample, and f falling from 1 to 0 over a few pixels. The
//! difference is then the slice of p - r where both scans see the sample and of nothing elsewhere: what lies outside cancels, whatever it is.
//! A change that itself lies outside leaves its jump d.
//!
//! The reference is read once more for that, on the heights of the later scan's slices; directions between two of its views are interpolated.
//! Rows become wider by what is needed; the model ([`crate::reconstruct::support`]) goes on behind them.

use std::f64::consts::PI;
use std::ops::Range;

use ndarray::{ArrayView2, Axis, s};
use rayon::prelude::*;

use crate::error::Result;
use crate::pipeline::binned::BinnedRows;
use crate::pipeline::geometry::ScanGeometry;
use crate::pipeline::heights::Heights;
use crate::pipeline::reconstruct_scan::Motion;
use crate::pipeline::rows::{PlainSource, RowSource, ShiftedRows, ShiftedSlab};
use crate::reconstruct::filter::roll_off_share;
use crate::reconstruct::geometry::Ray;
use crate::reconstruct::support::{Support, share};
use crate::scan::{SinogramSource, Sinograms, reused};

/// The jump falls to 0 over this part of the width of the detector: the shorter, the less of it is spread beyond the rows, and much shorter is a step.
const FALL: usize = 32;
/// Samples that moved by less than this everywhere in the field go on as their own rows do \[px\].
const STILL_PX: f64 = 0.1;
/// Those that moved by more than this part of the detector do, too: too little is seen by both.
const MOST: f64 = 0.25;
/// A model that ends less than this much beyond the wide rows is held by them.
const ENDS_NEARBY: f64 = 1.06;
/// Directions farther apart are not interpolated between \[rad\].
const WIDEST_GAP: f64 = 12.0 * PI / 180.0;

/// The reference of a scan whose sample is wider than the detector.
#[derive(Clone, Copy)]
pub struct Beyond<'a> {
    /// Its line integrals.
    pub source: &'a dyn SinogramSource,
    /// Detector row of its first binned row, and the binning.
    pub binned_from: (usize, usize),
    /// Detector rows that are held at a time to be binned.
    pub at_once: usize,
    /// How it was taken, binned.
    pub geometry: &'a ScanGeometry,
    /// How it stands on the grid of the slices.
    pub motion: Motion,
}

impl Beyond<'_> {
    /// The same in pixels and rows averaged in groups of `binning`, the first group beginning at `first_row`: with this geometry.
    #[must_use]
    pub fn binned<'b>(
        &self,
        first_row: usize,
        binning: usize,
        geometry: &'b ScanGeometry,
    ) -> Beyond<'b>
    where
        Self: 'b,
    {
        let (detector_row, own) = self.binned_from;
        Beyond {
            source: self.source,
            binned_from: (detector_row + own * first_row, own * binning),
            at_once: self.at_once,
            geometry,
            motion: self.motion.binned(binning),
        }
    }
}

/// Room at the ends of wide rows, for a job that goes on by `beyond`; 0 where it goes on by itself, because the sample stands still, moved too
/// far, or because one side of the rows is joined to the other.
#[must_use]
pub fn margin_px(
    beyond: &Beyond<'_>,
    own: &ScanGeometry,
    motion: &Motion,
    slices: &Range<usize>,
) -> usize {
    let reference = beyond.geometry;
    if own.field.half || reference.field.half || !reference.reach.is_beyond(reference.n_cols) {
        return 0;
    }
    let (lacks, moved) = lacking_px(beyond, own, motion, slices);
    if moved < STILL_PX || lacks > MOST * own.n_cols as f64 {
        return 0;
    }
    lacks.ceil() as usize + 2 + model_px(reference, own.n_cols, lacks)
}

/// The same before the motion is known, for the memory.
#[must_use]
pub fn likely_margin_px(geometry: &ScanGeometry) -> usize {
    if geometry.field.half || !geometry.reach.is_beyond(geometry.n_cols) {
        return 0;
    }
    let lacks = geometry.n_cols as f64 / 16.0;
    lacks as usize + 2 + model_px(geometry, geometry.n_cols, lacks)
}

/// How far the field of the reference reaches beyond that of the scan at most, and how far the sample moved in the field at most \[px\].
fn lacking_px(
    beyond: &Beyond<'_>,
    own: &ScanGeometry,
    motion: &Motion,
    slices: &Range<usize>,
) -> (f64, f64) {
    let (rays, views) = (own.rays(motion), Views::new(beyond));
    let tilt = motion.reach_in_plane_px(slices.len()) - motion.shift_in_plane_px();
    let (own_heights, heights) = (own.heights(motion), beyond.geometry.heights(&beyond.motion));
    let last = own.n_cols as f64 - 1.0;
    let turned = motion.in_plane.rotation_rad - beyond.motion.in_plane.rotation_rad;
    let (mut lacks, mut moved) = (0.0_f64, 0.5 * last * turned.abs());
    for z in [slices.start as f64, slices.end as f64 - 1.0] {
        let axis = own.axis.at(own_heights.row(z));
        let other = beyond.geometry.axis.at(heights.row(z));
        for ray in &rays {
            let (own, Some(near)) = (Line::of(ray, axis, 0.0), views.near(ray)) else {
                continue;
            };
            let seen = views.seen(&near, other);
            let [low, high] = seen.map(|t| own.column(t));
            lacks = lacks.max(high - last).max(-low);
            moved = moved.max(0.5 * (high - last + low).abs());
            moved = moved.max((own.offset_px - views.offset_px(&near)).abs());
        }
    }
    (lacks + tilt, moved + tilt)
}

/// Pixels that the model of the reference fills beyond `lacks`, where it ends nearby.
fn model_px(reference: &ScanGeometry, n_cols: usize, lacks: f64) -> usize {
    let half = n_cols as f64 / 2.0;
    match reference.support() {
        None => half.ceil() as usize,
        Some(support) => {
            let [right, left] = support.seen_px(reference.n_cols, 0.0);
            let ends_nearby = support.radius_px < ENDS_NEARBY * (right.max(left) + lacks + 2.0);
            let length = (support.radius_px - right.min(left)).clamp(0.0, half);
            if ends_nearby {
                length.ceil() as usize
            } else {
                0
            }
        }
    }
}

/// Where the places t of the sample stand in a row.
#[derive(Clone, Copy)]
struct Line {
    axis_px: f64,
    offset_px: f64,
    scale: f64,
}

impl Line {
    fn of(ray: &Ray, axis_px: f64, beside_px: f64) -> Line {
        Line {
            axis_px,
            offset_px: ray.offset_px + beside_px,
            scale: ray.cos.hypot(ray.sin),
        }
    }

    fn column(&self, t: f64) -> f64 {
        self.axis_px + self.offset_px + self.scale * t
    }

    fn place(&self, column: f64) -> f64 {
        (column - self.axis_px - self.offset_px) / self.scale
    }
}

/// A projection of the reference next to a direction: its share, and 1 or -1 where it looks from the other side.
#[derive(Clone, Copy)]
struct Near {
    view: usize,
    share: f64,
    sign: f64,
}

/// The projections of the reference by their direction.
struct Views<'a> {
    geometry: &'a ScanGeometry,
    rays: Vec<Ray>,
    /// Direction in \[0, pi), projection, side.
    sorted: Vec<(f64, usize, f64)>,
}

impl<'a> Views<'a> {
    fn new(beyond: &Beyond<'a>) -> Views<'a> {
        let rays = beyond.geometry.rays(&beyond.motion);
        let mut sorted: Vec<_> = rays
            .iter()
            .enumerate()
            .map(|(view, ray)| {
                let (direction, sign) = direction(ray);
                (direction, view, sign)
            })
            .collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        Views {
            geometry: beyond.geometry,
            rays,
            sorted,
        }
    }

    /// The two projections between which a ray looks; `None` in a gap.
    fn near(&self, ray: &Ray) -> Option<[Near; 2]> {
        let (wanted, side) = direction(ray);
        let above = self.sorted.partition_point(|view| view.0 <= wanted);
        let n = self.sorted.len();
        // half a turn on, everything is seen from the other side
        let (low, low_turn) = if above == 0 {
            (n.checked_sub(1)?, -PI)
        } else {
            (above - 1, 0.0)
        };
        let (high, high_turn) = if above == n { (0, PI) } else { (above, 0.0) };
        let (from, to) = (
            self.sorted[low].0 + low_turn,
            self.sorted[high].0 + high_turn,
        );
        if to - from > WIDEST_GAP {
            return None;
        }
        let part = if to > from {
            (wanted - from) / (to - from)
        } else {
            0.0
        };
        let near = |at: usize, turn: f64, share: f64| {
            let (_, view, sign) = self.sorted[at];
            let turned = if turn == 0.0 { 1.0 } else { -1.0 };
            Near {
                view,
                share,
                sign: side * sign * turned,
            }
        };
        Some([near(low, low_turn, 1.0 - part), near(high, high_turn, part)])
    }

    fn line(&self, near: &Near, axis_px: f64) -> Line {
        Line::of(&self.rays[near.view], axis_px, 0.0)
    }

    /// Places of the sample that these projections see, with the axis at this column.
    fn seen(&self, near: &[Near; 2], axis_px: f64) -> [f64; 2] {
        let last = self.geometry.n_cols as f64 - 1.0;
        near.iter()
            .fold([f64::NEG_INFINITY, f64::INFINITY], |seen, near| {
                let line = self.line(near, axis_px);
                let ends = [0.0, last].map(|column| near.sign * line.place(column));
                [
                    seen[0].max(ends[0].min(ends[1])),
                    seen[1].min(ends[0].max(ends[1])),
                ]
            })
    }

    /// How far these projections show the sample beside the axis, as one that looks from this side does.
    fn offset_px(&self, near: &[Near; 2]) -> f64 {
        near.iter()
            .map(|near| near.share * near.sign * self.rays[near.view].offset_px)
            .sum()
    }
}

/// Direction of a ray in \[0, pi), and the side from which it is looked along.
fn direction(ray: &Ray) -> (f64, f64) {
    let angle = ray.sin.atan2(ray.cos);
    let direction = angle.rem_euclid(PI);
    // rounding may give pi itself
    if direction >= PI {
        return (0.0, if angle < 0.0 { 1.0 } else { -1.0 });
    }
    (
        direction,
        if (0.0..PI).contains(&angle) {
            1.0
        } else {
            -1.0
        },
    )
}

/// How rows go on where nothing was measured.
struct Model {
    support: Option<Support>,
    n_cols: usize,
}

impl Model {
    fn of(geometry: &ScanGeometry) -> Model {
        Model {
            support: geometry.support(),
            n_cols: geometry.n_cols,
        }
    }

    /// The row `[col]` at any column, in a projection that shows the sample `offset_px` to the right.
    fn value(&self, row: &[f32], column: f64, offset_px: f64) -> f64 {
        let last = self.n_cols as f64 - 1.0;
        if (0.0..=last).contains(&column) {
            let whole = (column as usize).min(self.n_cols.saturating_sub(2));
            let part = column - whole as f64;
            let next = row[(whole + 1).min(self.n_cols - 1)];
            return f64::from(row[whole]) * (1.0 - part) + f64::from(next) * part;
        }
        let right = column > last;
        let (end, past) = if right {
            (row[self.n_cols - 1], column - last)
        } else {
            (row[0], -column)
        };
        let share = match &self.support {
            None => roll_off_share(past, self.n_cols),
            Some(support) => {
                let offset = if support.follows(self.n_cols) {
                    offset_px
                } else {
                    0.0
                };
                let [of_right, of_left] = support.seen_px(self.n_cols, offset);
                let seen = if right { of_right } else { of_left };
                f64::from(share(support.radius_px as f32, seen as f32, past as f32))
            }
        };
        f64::from(end) * share
    }
}

/// Rows of the reference, as they are needed.
pub(super) struct ReferenceRows<'a>(pub(super) Beyond<'a>);

impl RowSource for ReferenceRows<'_> {
    fn n_rows(&self) -> usize {
        let (first, binning) = self.0.binned_from;
        (self.0.source.n_rows() - first) / binning
    }

    fn rows_into(&mut self, rows: Range<usize>, used: Option<Sinograms>) -> Result<Sinograms> {
        let (first, binning) = self.0.binned_from;
        let mut plain = PlainSource(self.0.source);
        BinnedRows::new(&mut plain, first, binning, self.0.at_once).rows_into(rows, used)
    }
}

/// Makes rows wide, slab by slab.
pub(super) struct Continuation<'a> {
    reference: ShiftedRows<'a>,
    widening: Widening<'a>,
    used: Option<Sinograms>,
    /// Own rows that were used up.
    pub(super) spare: Option<Sinograms>,
}

/// What is needed to make a row wide.
struct Widening<'a> {
    own: &'a ScanGeometry,
    own_heights: Heights<'a>,
    own_rays: Vec<Ray>,
    own_model: Model,
    heights: Heights<'a>,
    views: Views<'a>,
    model: Model,
    margin: usize,
}

impl<'a> Continuation<'a> {
    /// Slice z of the slabs is the row `own_heights.row(z)` of the scan, whose sample stands as `motion` says but for its tilt, and the row
    /// `heights.row(z)` of the reference, whose rows are `rows`.
    pub(super) fn new(
        beyond: &Beyond<'a>,
        rows: &'a mut ReferenceRows<'_>,
        heights: Heights<'a>,
        own: &'a ScanGeometry,
        own_heights: Heights<'a>,
        motion: &Motion,
        margin: usize,
    ) -> Continuation<'a> {
        Continuation {
            reference: ShiftedRows::new(rows, heights, beyond.geometry.n_cols),
            widening: Widening {
                own,
                own_heights,
                own_rays: own.rays(motion),
                own_model: Model::of(own),
                heights,
                views: Views::new(beyond),
                model: Model::of(beyond.geometry),
                margin,
            },
            used: None,
            spare: None,
        }
    }

    /// The rows `[slice, angle, col]` of slices `slices`, wider by the margin on either side, in the memory of `used` where it suffices.
    /// `plane` is the shift of each slice in its plane (x, y down) beside that of the motion \[px\].
    ///
    /// # Errors
    /// Those of the reference.
    pub(super) fn widen(
        &mut self,
        slices: &Range<usize>,
        rows: &Sinograms,
        plane: &[[f64; 2]],
        used: Option<Sinograms>,
    ) -> Result<Sinograms> {
        let (n_slices, n_angles, n_cols) = rows.dim();
        let mut wide = reused(
            used,
            [n_slices, n_angles, n_cols + 2 * self.widening.margin],
        );
        let ShiftedSlab { covered, sinograms } =
            self.reference.slab(slices.clone(), self.used.take())?;
        let widening = &self.widening;
        for (k, z) in slices.clone().enumerate() {
            let reference = covered
                .contains(&z)
                .then(|| sinograms.index_axis(Axis(0), z - covered.start));
            let from = rows.index_axis(Axis(0), k);
            wide.index_axis_mut(Axis(0), k)
                .axis_iter_mut(Axis(0))
                .into_par_iter()
                .zip(from.axis_iter(Axis(0)))
                .enumerate()
                .for_each(|(angle, (mut out, row))| {
                    let out = out.as_slice_mut().expect("rows of a slab are contiguous");
                    let row = row.as_slice().expect("rows of a slab are contiguous");
                    widening.row(z as f64, angle, plane[k], row, reference, out);
                });
        }
        self.used = Some(sinograms);
        Ok(wide)
    }
}

impl Widening<'_> {
    /// Row `row` of projection `angle` of the slice z, whose sample stands shifted by `plane` beside the motion.
    fn row(
        &self,
        z: f64,
        angle: usize,
        plane: [f64; 2],
        row: &[f32],
        reference: Option<ArrayView2<'_, f32>>,
        out: &mut [f32],
    ) {
        let ray = &self.own_rays[angle];
        let (sin, cos) = self.own.angles_rad[angle].sin_cos();
        let beside = plane[0] * cos - plane[1] * sin;
        let axis = self.own.axis.at(self.own_heights.row(z));
        let line = Line::of(ray, axis, beside);
        let other = reference.and_then(|lines| Some((lines, self.views.near(ray)?)));
        out[self.margin..][..row.len()].copy_from_slice(row);
        let outside = |c: usize| c as f64 - self.margin as f64;
        let Some((lines, near)) = other else {
            for c in (0..self.margin).chain(self.margin + row.len()..out.len()) {
                let value = self.own_model.value(row, outside(c), line.offset_px);
                out[c] = value as f32;
            }
            return;
        };
        let axis = self.views.geometry.axis.at(self.heights.row(z));
        let value = |column: f64| -> f64 {
            let t = line.place(column);
            near.iter()
                .map(|near| {
                    let line = self.views.line(near, axis);
                    let row = lines.slice(s![near.view, ..]);
                    let row = row.as_slice().expect("rows of a slab are contiguous");
                    let column = line.column(near.sign * t);
                    near.share * self.model.value(row, column, line.offset_px)
                })
                .sum()
        };
        // the columns that show what the reference sees too
        let [low, high] = self.views.seen(&near, axis).map(|t| line.column(t));
        let last = row.len() as f64 - 1.0;
        let first = low.ceil().clamp(0.0, last) as usize;
        let end = (high.floor().clamp(0.0, last) as usize).max(first);
        let jumps = [first, end].map(|c| f64::from(row[c]) - value(c as f64));
        let length = (row.len() / FALL).max(4) as f64;
        for c in (0..self.margin + first).chain(self.margin + end + 1..out.len()) {
            let column = outside(c);
            let (jump, past) = if column < first as f64 {
                (jumps[0], first as f64 - column)
            } else {
                (jumps[1], column - end as f64)
            };
            let fall = 0.5 + 0.5 * (PI * (past / length).min(1.0)).cos();
            out[c] = (value(column) + jump * fall) as f32;
        }
    }
}

#[cfg(test)]
mod tests;

/// Heights of the reference for the rows of a scan: `row(r)` is the row of the reference that holds the slice of row r.
pub(super) fn heights_of_rows<'a>(reference: Heights<'a>, own: &Heights<'_>) -> Heights<'a> {
    let scale = reference.scale / own.scale;
    Heights {
        shift_px: reference.row(own.slice_at(own.fixed_row)) - own.fixed_row,
        scale,
        fixed_row: own.fixed_row,
        ..reference
    }
}
