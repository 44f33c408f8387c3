//! The least squares behind the comparison of two scans, view by view.
//!
//! Unknown are the three shifts, the two tilts, the axis and its lean, and the gain of the grey values; a constant of each line of each view is free, so that
//! light which drifts does not matter. The gradient is that of the reference, as in `align`: noise is uncorrelated with the central difference around
//! it, so what is brought to zero has mean zero. Weights are Tukey's of the residual.
//!
//! Of a tilt, what it does in the plane of the detector is followed; what it does along the ray (other heights before and behind the axis) is not seen in
//! projections, and has mean zero.
//!
//! Errors come from leaving out one band of rows after the other (the jackknife: Efron and Stein (1981), Annals of Statistics 9:586), as a change of the sample is
//! seen in all views, and in the rows that it stands in.

use std::ops::Range;

use ndarray::{Array3, ArrayView2, Axis};
use rayon::prelude::*;

use crate::align::{keys_weights, solve, tukey};
use crate::center::AxisFit;
use crate::pipeline::heights::Heights;
use crate::pipeline::reconstruct_scan::Motion;
use crate::stats::median;

/// Unknowns: shift x, y, z; tilt about x and y, as lengths at the ends of the volume; the axis; its lean, likewise; the gain.
const N: usize = 8;
type Vector = [f64; N];
type Matrix = [[f64; N]; N];
const AXIS: usize = 5;
const LEAN: usize = 6;
const GAIN: usize = 7;
/// Steps, at most, and when they are done \[px\].
const STEPS: usize = 12;
const SETTLED: f64 = 3e-4;
/// Passes until it has settled, about.
pub(super) const PASSES: usize = 8;
/// Misalignment \[px\] that the weights allow for in the first steps and later: edges that may still move are no change.
const LOOSE: f64 = 0.3;
const TIGHT: f64 = 0.05;
/// No step beyond this \[px\].
const LONGEST: f64 = 1.0;
/// What interpolation between pixels leaves at best \[px\].
const FLOOR: f64 = 0.005;
/// Share of the gradient of the reference that the target must have, and share of the weight that must be kept.
const LEAST_SIGNAL: f64 = 0.3;
const LEAST_KEPT: f64 = 0.5;
/// Largest error with which an answer is one \[px\].
const MOST_ERROR: f64 = 0.1;
/// Columns at the edges that the smoothing and the gradient spoil.
const EDGE: usize = 4;
/// Residuals of a line that go into the spread of all.
const EVERY: usize = 7;

/// Where a scan has its axis and its sample.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) axis: &'a AxisFit,
    pub(super) motion: Motion,
    pub(super) fixed_row: f64,
}

impl Side<'_> {
    fn heights(&self) -> Heights<'_> {
        Heights {
            shift_px: self.motion.shift_z_px,
            scale: self.motion.magnification,
            fixed_row: self.fixed_row,
            shifts: None,
            lean: None,
        }
    }
}

/// One view of the sample.
pub(super) struct View {
    /// Angle at which the grid is seen \[rad\].
    pub(super) direction_rad: f64,
    /// Angle of the target's stage \[rad\].
    pub(super) target_rad: f64,
    /// Column of the middle of the grid from the axis and what the rows are moved by \[px\], reference and target.
    pub(super) offsets: [[f64; 2]; 2],
}

/// A band of rows, `[view, row, col]`, smoothed, with rows around it for gradients and interpolation.
pub(super) struct Band {
    pub(super) reference: Array3<f32>,
    /// Detector row of row 0.
    pub(super) first_row: usize,
    /// Rows of `reference` that are compared.
    pub(super) compared: Range<usize>,
    pub(super) target: Array3<f32>,
    /// Detector row of row 0.
    pub(super) target_row: usize,
}

/// What is compared.
pub(super) struct Pair<'a> {
    /// Reference and target.
    pub(super) sides: [Side<'a>; 2],
    pub(super) views: &'a [View],
    pub(super) bands: &'a [Band],
    /// Height about which tilts and leans act.
    pub(super) middle_slice: f64,
    /// Makes tilts and leans lengths \[px\].
    pub(super) half_height: f64,
}

/// What is to be added to the axis of the target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    /// At the middle height \[px\].
    pub(super) axis_px: f64,
    pub(super) axis_err_px: f64,
    /// \[px per row\]
    pub(super) slope: f64,
    pub(super) slope_err: f64,
}

/// Tilt of the target against the reference `[rx, ry]` \[rad\].
pub(super) fn tilt_between(sides: &[Side<'_>; 2]) -> [f64; 2] {
    let [reference, target] = sides.map(|side| side.motion.tilt_rad);
    [target[0] - reference[0], target[1] - reference[1]]
}

/// The axis and its lean that bring the projections together; `None` where they do not say them.
pub(super) fn axis(pair: &Pair<'_>) -> Option<Found> {
    let mut at = [0.0; N];
    at[GAIN] = 1.0;
    let mut spread = pair.sums(&at, None, LOOSE).1;
    let mut last = None;
    for step in 0..STEPS {
        let possible = if step < 3 { LOOSE } else { TIGHT };
        let (bands, next) = pair.sums(&at, Some(spread), possible);
        spread = next;
        let all = total(&bands);
        let mut by = solve(&all.h, &all.g, [true; N])?;
        // the gradient of the reference holds noise, which makes steps too short
        let signal = all.signal();
        if signal < LEAST_SIGNAL {
            return None;
        }
        let longest = by[..GAIN].iter().fold(0.0_f64, |m, b| m.max(b.abs()));
        let factor = (1.0 / signal).min(LONGEST / longest.max(1e-12));
        for (value, step) in by.iter_mut().zip(&mut at).take(GAIN) {
            *step -= factor * *value;
        }
        at[GAIN] += by[GAIN];
        last = Some(bands);
        if step >= 4 && longest < SETTLED {
            break;
        }
    }
    let bands = last?;
    let all = total(&bands);
    if all.kept < LEAST_KEPT * all.n || !at.iter().all(|v| v.is_finite()) {
        return None;
    }
    let errors = jackknife(&bands, &all)?.map(|error| (error / all.signal()).hypot(FLOOR));
    log::debug!(
        "axes: {at:.4?} +- {errors:.4?}, {:.2} in common",
        all.signal()
    );
    (errors[AXIS].max(errors[LEAN]) < MOST_ERROR).then_some(Found {
        axis_px: at[AXIS],
        axis_err_px: errors[AXIS],
        slope: at[LEAN] / pair.half_height,
        slope_err: errors[LEAN] / pair.half_height,
    })
}

/// One of the passes over all samples of which [`axis`] needs [`PASSES`].
pub(super) fn one_pass(pair: &Pair<'_>) {
    let mut at = [0.0; N];
    at[GAIN] = 1.0;
    std::hint::black_box(pair.sums(&at, Some(1.0), TIGHT));
}

/// Sums over lines.
#[derive(Clone)]
struct Sums {
    /// Sum of w J J'
    h: Matrix,
    /// Sum of w J r
    g: Vector,
    /// Sums of w g g of the reference and of w g k, k being the gradient of the target along the row.
    own: f64,
    shared: f64,
    /// Sum of the weights, and number of samples.
    kept: f64,
    n: f64,
}

impl Sums {
    const NONE: Sums = Sums {
        h: [[0.0; N]; N],
        g: [0.0; N],
        own: 0.0,
        shared: 0.0,
        kept: 0.0,
        n: 0.0,
    };

    fn add(&mut self, other: &Sums, sign: f64) {
        for i in 0..N {
            for j in 0..N {
                self.h[i][j] += sign * other.h[i][j];
            }
            self.g[i] += sign * other.g[i];
        }
        self.own += sign * other.own;
        self.shared += sign * other.shared;
        self.kept += sign * other.kept;
        self.n += sign * other.n;
    }

    /// Share of the gradient of the reference that the target has too.
    fn signal(&self) -> f64 {
        if self.own > 0.0 {
            (self.shared / self.own).min(1.0)
        } else {
            0.0
        }
    }
}

fn total(bands: &[Sums]) -> Sums {
    bands.iter().fold(Sums::NONE, |mut sum, band| {
        sum.add(band, 1.0);
        sum
    })
}

/// Standard deviations from what comes out without each of the bands.
fn jackknife(bands: &[Sums], all: &Sums) -> Option<Vector> {
    let without: Vec<Vector> = bands
        .iter()
        .map(|band| {
            let mut rest = all.clone();
            rest.add(band, -1.0);
            solve(&rest.h, &rest.g, [true; N])
        })
        .collect::<Option<_>>()?;
    let n = without.len() as f64;
    Some(std::array::from_fn(|k| {
        let mean = without.iter().map(|own| own[k]).sum::<f64>() / n;
        let squares: f64 = without.iter().map(|own| (own[k] - mean).powi(2)).sum();
        ((n - 1.0) / n * squares).sqrt()
    }))
}

impl Pair<'_> {
    /// Normal equations of every band at `at`, and the spread of the residuals; without a `spread` every sample counts alike.
    fn sums(&self, at: &Vector, spread: Option<f64>, possible: f64) -> (Vec<Sums>, f64) {
        let mut sizes = Vec::new();
        let bands = self
            .bands
            .iter()
            .map(|band| {
                let views: Vec<(Sums, Vec<f64>)> = (0..self.views.len())
                    .into_par_iter()
                    .map(|view| {
                        let mut sums = Sums::NONE;
                        let mut sizes = Vec::new();
                        let mut line = Line::default();
                        for row in band.compared.clone() {
                            if self.line(band, view, row, at, &mut line) {
                                line.add_to(&mut sums, spread, possible, &mut sizes);
                            }
                        }
                        (sums, sizes)
                    })
                    .collect();
                let mut sums = Sums::NONE;
                for (own, of_view) in views {
                    sums.add(&own, 1.0);
                    sizes.extend(of_view);
                }
                sums
            })
            .collect();
        let spread = if sizes.is_empty() {
            0.0
        } else {
            // 1.4826: from the median of absolute values to the standard deviation of a normal distribution
            1.4826 * median(sizes)
        };
        (bands, spread)
    }

    /// Compares one line; `false` where the target does not show it.
    fn line(&self, band: &Band, view: usize, row: usize, at: &Vector, line: &mut Line) -> bool {
        let [reference, target] = &self.sides;
        let seen = &self.views[view];
        let own = band.reference.index_axis(Axis(0), view);
        let other = band.target.index_axis(Axis(0), view);
        let n_cols = own.ncols();
        let detector_row = (band.first_row + row) as f64;
        let slice = reference
            .heights()
            .slice_at(detector_row - seen.offsets[0][1]);
        let height = slice - self.middle_slice;
        let share = height / self.half_height;
        let (sin, cos) = seen.direction_rad.sin_cos();
        let (sin_of_target, cos_of_target) = seen.target_rad.sin_cos();
        let [rx, ry] = tilt_between(&self.sides);
        let lean = ry * cos + rx * sin + (at[4] * cos + at[3] * sin) / self.half_height;
        let axis_of_own = reference.axis.at(detector_row) + seen.offsets[0][0];
        let scale = target.motion.magnification / reference.motion.magnification;
        let heights = target.heights();
        let to_side = at[0] * cos_of_target - at[1] * sin_of_target + at[AXIS] + at[LEAN] * share;
        line.clear();
        line.sides = [cos_of_target, -sin_of_target, cos, sin];
        line.share = share;
        for col in EDGE..n_cols.saturating_sub(EDGE) {
            let t = (col as f64 - axis_of_own) / reference.motion.magnification;
            let row_of_target = heights.row(slice - t * lean) + seen.offsets[1][1] + at[2];
            let col_of_target = target.axis.at(row_of_target)
                + seen.offsets[1][0]
                + scale
                    * (col as f64 - axis_of_own + reference.motion.magnification * height * lean)
                + to_side;
            let at_target = [row_of_target - band.target_row as f64, col_of_target];
            let Some(value) = interpolated(&other, at_target) else {
                line.push_gap();
                continue;
            };
            let along =
                |by: f32, low: [usize; 2], high: [usize; 2]| f64::from(by * (own[high] - own[low]));
            line.value.push(f64::from(value));
            line.own.push(f64::from(own[[row, col]]));
            line.gradient.push([
                along(0.5, [row, col - 1], [row, col + 1]),
                along(0.5, [row - 1, col], [row + 1, col]),
            ]);
            line.across.push(t / self.half_height);
        }
        line.residuals(at[GAIN])
    }
}

/// Cubic convolution at a row and column; `None` where a neighbour is missing.
fn interpolated(values: &ArrayView2<'_, f32>, [row, col]: [f64; 2]) -> Option<f32> {
    let (n_rows, n_cols) = values.dim();
    let first = [row.floor() - 1.0, col.floor() - 1.0];
    let inside = first[0] >= 0.0
        && first[1] >= EDGE as f64 - 2.0
        && first[0] + 3.0 < n_rows as f64
        && first[1] + 5.0 - (EDGE as f64 - 2.0) < n_cols as f64;
    if !inside {
        return None;
    }
    let down = keys_weights(row - row.floor()).map(|w| w as f32);
    let across = keys_weights(col - col.floor()).map(|w| w as f32);
    let [top, left] = first.map(|f| f as usize);
    let mut sum = 0.0;
    for (i, down) in down.into_iter().enumerate() {
        let mut along = 0.0;
        for (j, across) in across.into_iter().enumerate() {
            along += across * values[[top + i, left + j]];
        }
        sum += down * along;
    }
    Some(sum)
}

/// One line of one view, compared.
#[derive(Default)]
struct Line {
    /// The target where the reference should stand; NaN where it shows nothing.
    value: Vec<f64>,
    own: Vec<f64>,
    /// Of the reference, along the row and down.
    gradient: Vec<[f64; 2]>,
    /// What a tilt moves down by, as a share of what it moves at the ends of the volume.
    across: Vec<f64>,
    residual: Vec<f64>,
    sides: [f64; 4],
    share: f64,
}

impl Line {
    fn clear(&mut self) {
        self.value.clear();
        self.own.clear();
        self.gradient.clear();
        self.across.clear();
        self.residual.clear();
    }

    fn push_gap(&mut self) {
        self.value.push(f64::NAN);
        self.own.push(0.0);
        self.gradient.push([0.0; 2]);
        self.across.push(0.0);
    }

    /// What is left, less the median of the line; `false` without any.
    fn residuals(&mut self, gain: f64) -> bool {
        let differences = self.value.iter().zip(&self.own).map(|(v, o)| v - gain * o);
        self.residual.extend(differences);
        let known: Vec<f64> = self
            .residual
            .iter()
            .copied()
            .filter(|r| r.is_finite())
            .collect();
        if known.len() < N {
            return false;
        }
        let middle = median(known);
        for residual in &mut self.residual {
            *residual -= middle;
        }
        true
    }

    /// Adds the line, with its own constant taken out.
    fn add_to(&self, sums: &mut Sums, spread: Option<f64>, possible: f64, sizes: &mut Vec<f64>) {
        let mut own = Sums::NONE;
        let (mut mean, mut mean_residual) = ([0.0; N], 0.0);
        let [cos_of_target, sin_of_target, cos, sin] = self.sides;
        for (k, &residual) in self.residual.iter().enumerate() {
            let [along, down] = self.gradient[k];
            if !residual.is_finite() || !along.is_finite() || !down.is_finite() {
                continue;
            }
            if k % EVERY == 0 {
                sizes.push(residual.abs());
            }
            own.n += 1.0;
            let weight = spread.map_or(1.0, |spread| {
                let scale = (spread * spread + (possible * along).powi(2)).max(f64::MIN_POSITIVE);
                tukey(residual * residual / scale)
            });
            if weight == 0.0 {
                continue;
            }
            let tilted = along * self.share - down * self.across[k];
            let j = [
                along * cos_of_target,
                along * sin_of_target,
                down,
                tilted * sin,
                tilted * cos,
                along,
                along * self.share,
                self.own[k],
            ];
            for a in 0..N {
                for b in 0..=a {
                    own.h[a][b] += weight * j[a] * j[b];
                }
                own.g[a] += weight * j[a] * residual;
                mean[a] += weight * j[a];
            }
            mean_residual += weight * residual;
            own.kept += weight;
            let beside = [k.checked_sub(1), Some(k + 1)]
                .map(|side| side.and_then(|side| self.value.get(side)).copied());
            if let [Some(low), Some(high)] = beside
                && (high - low).is_finite()
            {
                own.own += weight * along * along;
                own.shared += weight * along * 0.5 * (high - low);
            }
        }
        if own.kept <= 0.0 {
            return;
        }
        for a in 0..N {
            own.g[a] -= mean[a] * mean_residual / own.kept;
            for b in 0..=a {
                own.h[a][b] -= mean[a] * mean[b] / own.kept;
                own.h[b][a] = own.h[a][b];
            }
        }
        sums.add(&own, 1.0);
    }
}
