//! Fitting: a polynomial along the whole column, and a Gaussian low-pass of it, both as sums over samples.
//!
//! The weights of the fit are a polynomial of the distance from the middle of its window. In a block of samples that lies inside of the
//! window they are a sum of as few polynomials as it has coefficients, orthonormal over the block: its samples are summed once for all
//! windows around it, and nothing cancels. The Gaussian is narrow where it is wide in Fourier space, so that a few hundred
//! taps are all of it that single precision sees.

mod kernels;

use bytemuck::{Pod, Zeroable};
use rustfft::{FftPlanner, num_complex::Complex64};

use super::Beside;
use super::twin::sum_of;
use crate::correct::stripe::Fitting;
use crate::correct::stripe::columns::Columns;
use crate::correct::stripe::fitting::{orthonormal, savitzky_golay};
use crate::correct::stripe::fourier::{gauss, padding};

pub(super) use kernels::FitKernels;

/// Samples of a block.
pub const BLOCK: usize = 64;
/// Columns that an invocation smooths.
pub const COLS: usize = 8;
/// Share of the mean magnitude below which the fit divides nothing.
pub const FLOOR: f32 = 1e-6;
/// Sums of magnitudes of a row: of the fit, and of its smooth version.
const TOTALS: usize = 2;
/// Fewer angles are left as they are.
const LEAST_ANGLES: usize = 3;

/// Parameters of all entry points.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct FitParams {
    /// Detector columns.
    pub n_cols: u32,
    /// Angles.
    pub n_angles: u32,
    /// By which the fit is extended at each end for the low-pass.
    pub pad: u32,
    /// Samples of the window on either side.
    pub half: u32,
    /// Whole blocks of a mirrored column.
    pub n_blocks: u32,
    /// Polynomials of a block.
    pub n_terms: u32,
    /// Taps of the low-pass along the angle at negative distances.
    pub before_along: u32,
    /// All of them.
    pub n_along: u32,
    /// The same across the columns.
    pub before_across: u32,
    /// All of them.
    pub n_across: u32,
    /// Sums that are added for a row.
    pub n_parts: u32,
    /// 0: sum of the fit, 1: of its smooth version.
    pub slot: u32,
}

/// The taps of a low-pass, complex, and how many of them stand at negative distances.
struct Taps {
    values: Vec<[f32; 2]>,
    before: usize,
}

impl Taps {
    /// What `fourier::LowPass::complex` does to lines of `n` samples, but for taps whose sum is not seen in single precision.
    ///
    /// A tap stands at the distance from the sample that it weighs; lines go on with themselves, for odd `n` with the other sign.
    fn new(n: usize, sigma: f64) -> Taps {
        let middle = (n as f64 - 1.0) / 2.0;
        let mut line: Vec<Complex64> = (0..n)
            .map(|m| Complex64::new(gauss(m as f64 - middle, sigma) / n as f64, 0.0))
            .collect();
        FftPlanner::new().plan_fft_inverse(n).process(&mut line);
        let at = |distance: isize| {
            let sign = if distance % 2 == 0 { 1.0 } else { -1.0 };
            sign * line[distance.rem_euclid(n as isize) as usize]
        };
        let all = (-(n as isize - 1) / 2)..=(n as isize / 2);
        let mut reach = n / 2;
        let mut left_out = 0.0;
        while reach > 0 {
            left_out += 2.0 * at(reach as isize).norm();
            if left_out > f64::from(f32::EPSILON) / 4.0 {
                break;
            }
            reach -= 1;
        }
        let seen = all.filter(|distance| distance.unsigned_abs() <= reach);
        let value = |distance| {
            let tap = at(distance);
            [tap.re as f32, tap.im as f32]
        };
        Taps {
            before: reach.min((n - 1) / 2),
            values: seen.map(value).collect(),
        }
    }

    /// About how many there are.
    fn count(n: usize, sigma: f64) -> usize {
        // a sigma in Fourier samples is n / (2 pi sigma) samples; five and a half of them on either side
        n.min(1 + 2 * (0.9 * n as f64 / sigma).ceil() as usize)
    }

    #[cfg(test)]
    fn magnitude(&self) -> f32 {
        self.values.iter().map(|[re, im]| re.hypot(*im)).sum()
    }
}

/// What fitting of sinograms of one size takes.
pub(super) struct Fits {
    params: FitParams,
    /// `[term, BLOCK]`
    polynomials: Vec<f32>,
    /// `[2 half + 1]`
    weights: Vec<f32>,
    /// `[term, distance]`
    expansions: Vec<f32>,
    along: Taps,
    across: Taps,
}

/// Samples of the window on either side, whole blocks of a mirrored column, and polynomials of a block.
fn blocks(fitting: &Fitting, n_angles: usize) -> (usize, usize, usize) {
    let half = (n_angles - 1) / 2;
    let n_blocks = if 2 * half + 1 >= BLOCK {
        (n_angles + 2 * half) / BLOCK
    } else {
        0
    };
    // weights are even, so an odd order gives those of the one below
    let order = fitting.order.min(2 * half) / 2 * 2;
    (half, n_blocks, order + 1)
}

impl Fits {
    /// `None` where there are too few angles for a fit.
    pub(super) fn new(fitting: &Fitting, n_cols: usize, n_angles: usize) -> Option<Fits> {
        if n_angles < LEAST_ANGLES {
            return None;
        }
        let (half, n_blocks, n_terms) = blocks(fitting, n_angles);
        let weights = savitzky_golay(half, fitting.order);
        let polynomials = orthonormal(BLOCK, n_terms - 1);
        let expansions = polynomials.iter().flat_map(|polynomial| {
            let windows = weights.windows(BLOCK);
            windows.map(move |weights| weights.iter().zip(polynomial).map(|(w, p)| w * p).sum())
        });
        let pad = padding(n_angles);
        let along = Taps::new(n_angles + 2 * pad, Fitting::sigma_angle(n_cols));
        let across = Taps::new(n_cols + 2 * pad, fitting.sigma);
        let single = |value: f64| value as f32;
        Some(Fits {
            params: FitParams {
                n_cols: n_cols as u32,
                n_angles: n_angles as u32,
                pad: pad as u32,
                half: half as u32,
                n_blocks: n_blocks as u32,
                n_terms: n_terms as u32,
                before_along: along.before as u32,
                n_along: along.values.len() as u32,
                before_across: across.before as u32,
                n_across: across.values.len() as u32,
                n_parts: 0,
                slot: 0,
            },
            expansions: expansions.map(single).collect(),
            polynomials: polynomials.into_iter().flatten().map(single).collect(),
            weights: weights.into_iter().map(single).collect(),
            along,
            across,
        })
    }

    /// How far the fit and its smooth version may be from those of the CPU, as a share of the largest sample.
    ///
    /// A sum of n terms is off by about sqrt(n) roundings, each of at most the magnitudes of all terms; an FFT on the other side by
    /// fewer. Weights of the fit have the length 1 or less over the window, their magnitudes the square root of its samples times that.
    #[cfg(test)]
    pub(super) fn tolerances(&self) -> [f32; 2] {
        let terms = self.params.n_blocks * self.params.n_terms + 2 * BLOCK as u32;
        let magnitude = self.weights.iter().map(|w| w.abs()).sum::<f32>();
        let of = |terms: usize| (terms as f32).sqrt() * f32::EPSILON;
        let fit = magnitude * (of(terms as usize) + of(BLOCK) + 4.0 * f32::EPSILON);
        let taps = [&self.along, &self.across];
        let [along, across] = taps.map(Taps::magnitude);
        let roundings = taps.map(|taps| of(taps.values.len() + 16));
        let smooth = along * across * (fit + magnitude * (roundings[0] + roundings[1]));
        [fit, smooth]
    }

    /// The fit of every column: what the kernels do.
    pub(super) fn fit_columns(&self, columns: &Columns) -> Columns {
        let mut fit = Columns::default();
        fit.reshape(columns.n_cols(), columns.n_angles());
        for (column, fit) in columns.iter().zip(fit.iter_mut()) {
            let moments = self.block_moments(column);
            for (angle, fit) in fit.iter_mut().enumerate() {
                *fit = self.fit_at(column, &moments, angle);
            }
        }
        fit
    }

    /// `[block, term]`
    fn block_moments(&self, column: &[f32]) -> Vec<f32> {
        let n_terms = self.params.n_terms as usize;
        let moment = |index: usize| {
            let (first, term) = (index / n_terms * BLOCK, index % n_terms);
            let mut sum = 0.0;
            for k in 0..BLOCK {
                sum += self.polynomials[term * BLOCK + k] * self.mirrored(column, first + k);
            }
            sum
        };
        (0..self.params.n_blocks as usize * n_terms)
            .map(moment)
            .collect()
    }

    fn mirrored(&self, column: &[f32], place: usize) -> f32 {
        let last = column.len() as isize - 1;
        let angle = (place as isize - self.params.half as isize).abs();
        column[(last - (last - angle).abs()) as usize]
    }

    fn fit_at(&self, column: &[f32], moments: &[f32], begin: usize) -> f32 {
        let end = begin + self.weights.len();
        let first = begin.div_ceil(BLOCK);
        let last = (end / BLOCK).max(first);
        let n_terms = self.params.n_terms as usize;
        let distances = self.expansions.len() / n_terms;
        let mut sum = 0.0;
        for place in begin..end.min(first * BLOCK) {
            sum += self.weights[place - begin] * self.mirrored(column, place);
        }
        for block in first..last {
            for term in 0..n_terms {
                sum += self.expansions[term * distances + block * BLOCK - begin]
                    * moments[block * n_terms + term];
            }
        }
        for place in last * BLOCK..end {
            sum += self.weights[place - begin] * self.mirrored(column, place);
        }
        sum
    }

    /// The smooth version of the fit.
    pub(super) fn smooth(&self, fit: &Columns) -> Columns {
        let (n_cols, n_angles, pad) = (fit.n_cols(), fit.n_angles(), self.params.pad as usize);
        let (wide, tall) = (n_cols + 2 * pad, n_angles + 2 * pad);
        let mut parts = [Columns::default(), Columns::default()];
        for (part, along) in parts.iter_mut().enumerate() {
            along.reshape(n_cols, n_angles);
            for (column, along) in fit.iter().zip(along.iter_mut()) {
                let mean = sum_of(column.iter().copied().enumerate()) / n_angles as f32;
                for (angle, value) in along.iter_mut().enumerate() {
                    let mut sum = 0.0;
                    for (k, tap) in self.along.values.iter().enumerate() {
                        let place = (angle + pad + self.along.before) as isize - k as isize;
                        let (at, sign) = within(place, tall);
                        let inside = at.checked_sub(pad).and_then(|angle| column.get(angle));
                        sum += tap[part] * (inside.copied().unwrap_or(mean) * sign);
                    }
                    *value = sum;
                }
            }
        }
        let mut smooth = Columns::default();
        smooth.reshape(n_cols, n_angles);
        let n_across = self.across.values.len();
        for (col, out) in smooth.iter_mut().enumerate() {
            let begin = (col + pad + self.across.before + 1) as isize - n_across as isize;
            for (angle, out) in out.iter_mut().enumerate() {
                let mut sum = 0.0;
                for (k, tap) in self.across.values.iter().rev().enumerate() {
                    let (at, sign) = within(begin + k as isize, wide);
                    let from = at.clamp(pad, pad + n_cols - 1) - pad;
                    let value = |part: usize| sign * parts[part].column(from)[angle];
                    sum += tap[0] * value(0) - tap[1] * value(1);
                }
                *out = sum;
            }
        }
        smooth
    }
}

/// A place within a line of `n` samples, which is followed by itself, and its sign.
fn within(place: isize, n: usize) -> (usize, f32) {
    let sign = if (0..n as isize).contains(&place) || n.is_multiple_of(2) {
        1.0
    } else {
        -1.0
    };
    (place.rem_euclid(n as isize) as usize, sign)
}

/// Fitting as the kernels do it.
pub(super) fn fitting_cpu(fitting: &Fitting, columns: &mut Columns) {
    let Some(fits) = Fits::new(fitting, columns.n_cols(), columns.n_angles()) else {
        return;
    };
    let fit = fits.fit_columns(columns);
    let smooth = fits.smooth(&fit);
    let magnitude = |column: &[f32]| sum_of(column.iter().map(|value| value.abs()).enumerate());
    let fit_total = sum_of(fit.iter().map(magnitude).enumerate());
    let smooth_total = total_of_groups(&smooth);
    let least = FLOOR * (fit_total / (fit.n_cols() as f32 * fit.n_angles() as f32));
    for (col, column) in columns.iter_mut().enumerate() {
        let samples = column.iter_mut().zip(fit.column(col));
        for ((value, &fit), &smooth) in samples.zip(smooth.column(col)) {
            if fit.abs() > least {
                *value = *value / fit * smooth;
                if smooth_total > 0.0 {
                    *value *= fit_total / smooth_total;
                }
            }
        }
    }
}

/// Sum of all magnitudes, first of 256 angles of a group of columns.
fn total_of_groups(smooth: &Columns) -> f32 {
    let mut parts = Vec::new();
    for first in (0..smooth.n_cols()).step_by(COLS) {
        let group = first..(first + COLS).min(smooth.n_cols());
        for begin in (0..smooth.n_angles()).step_by(256) {
            let angles = begin..(begin + 256).min(smooth.n_angles());
            let of_angle = |angle: usize| {
                let values = group.clone().map(|col| smooth.column(col)[angle].abs());
                values.fold(0.0, |sum, value| sum + value)
            };
            parts.push(sum_of(angles.map(of_angle).enumerate()));
        }
    }
    sum_of(parts.into_iter().enumerate())
}

/// What a row takes beside its columns.
pub(super) fn beside(fitting: &Fitting, n_cols: usize, n_angles: usize) -> Beside {
    if n_angles < LEAST_ANGLES {
        return Beside::default();
    }
    let (_, n_blocks, n_terms) = blocks(fitting, n_angles);
    let moments = n_cols * n_blocks * n_terms;
    let plane = n_cols * n_angles;
    Beside {
        // the fit, and the two parts of what is smooth along the angle
        samples: 3 * plane + moments + n_cols + parts(n_cols, n_angles) + TOTALS,
        largest: plane.max(moments),
    }
}

/// Sums of magnitudes that a row is added from.
fn parts(n_cols: usize, n_angles: usize) -> usize {
    n_cols.max(n_cols.div_ceil(COLS) * n_angles.div_ceil(256))
}

/// Samples that the smoothing looks at for each.
pub(super) fn looked_at(fitting: &Fitting, n_cols: usize, n_angles: usize) -> usize {
    let pad = 2 * padding(n_angles);
    let along = Taps::count(n_angles + pad, Fitting::sigma_angle(n_cols));
    along.max(Taps::count(n_cols + pad, fitting.sigma))
}
