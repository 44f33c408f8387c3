//! Sub-voxel refinement of a motion by iterated, robustly weighted least squares.
//!
//! Inverse compositional form (Baker and Matthews 2004, Int. J. Comput. Vis. 56:221, section 3.2): the gradient is
//! taken on the reference, which is never resampled. At the true motion the noise of a voxel and the central
//! difference around it are uncorrelated, so the sum that is brought to zero has mean zero whatever the noise; with
//! the gradient of the resampled target it would not.
//!
//! Grey values: `target = gain * reference + offset`, the gain being the ratio of the spreads, as both volumes are
//! noisy (a regression of one on the other would take the noise of the first for contrast).
//!
//! Weights: Tukey's biweight of the residual over `sqrt(sigma^2 + (u |gradient|)^2)`, sigma from the median absolute
//! residual, u the misalignment that is still possible: while the volumes are apart, their edges are not mistaken for
//! change; at the end whatever changed has weight 0.

use ndarray::{Array3, ArrayView3};
use rayon::prelude::*;

use super::motion::RigidMotion;
use super::pyramid::{Frame, Level};
use super::resample::warped;
use crate::stats::middle;

/// Tukey's constant: 95 % efficiency for normal residuals.
const TUKEY: f64 = 4.685;
/// Misalignment \[level voxel\] that the weights allow for at first and at last.
const LOOSE: f64 = 0.7;
const TIGHT: f64 = 0.1;
/// Edge of the blocks over which residuals may be correlated \[level voxel\], at least.
const BLOCK: usize = 8;
/// Residuals looked at for the median.
const MEDIAN_SAMPLES: usize = 100_000;

/// Parameters: shift x, y, z, and the turn and the tilts about x and y times the reach (so that all are lengths) \[pilot voxel\].
type Vector = [f64; N];
type Matrix = [[f64; N]; N];
/// Number of parameters.
const N: usize = 6;

/// Which parameters move.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Free {
    pub(crate) z: bool,
    pub(crate) turn: bool,
    pub(crate) tilt: bool,
}

impl Free {
    fn mask(self) -> [bool; N] {
        [true, true, self.z, self.turn, self.tilt, self.tilt]
    }
}

/// Outcome of a refinement.
#[derive(Debug, Clone)]
pub(crate) struct Refined {
    pub(crate) motion: RigidMotion,
    /// One standard deviation of x, y, z \[pilot voxel\] and of the turn and the tilts times the reach.
    pub(crate) errors: Vector,
    /// Share of the reference's gradient power along each parameter that the target has too: 1 signal, 0 noise.
    pub(crate) reliability: Vector,
    /// Share of the weight that voxels kept.
    pub(crate) kept: f64,
}

/// Normal equations of one slice.
#[derive(Debug, Clone, Default)]
struct Normal {
    /// Sum of w J J'
    h: Matrix,
    /// Sum of w J K', K being the gradient of the target: free of noise power
    signal: Matrix,
    /// Sum of w J r
    g: Vector,
    /// Sums of w (1, R, T, RR, TT), for gain and offset.
    grey: [f64; 5],
    /// Sum of the geometric weights alone.
    geometric: f64,
    /// Sums of w J r over blocks of the slice.
    blocks: Vec<Vector>,
}

impl Normal {
    fn add(&mut self, other: &Normal) {
        for i in 0..N {
            for j in 0..N {
                self.h[i][j] += other.h[i][j];
                self.signal[i][j] += other.signal[i][j];
            }
            self.g[i] += other.g[i];
        }
        for (sum, term) in self.grey.iter_mut().zip(other.grey) {
            *sum += term;
        }
        self.geometric += other.geometric;
    }

    /// The step by the noise-free normal matrix where it is well conditioned, else by the plain one.
    fn step(&self, free: [bool; N]) -> Option<Vector> {
        let reliable = (0..N).all(|i| !free[i] || self.signal[i][i] > 0.2 * self.h[i][i]);
        let plain = solve(&self.h, &self.g, free);
        if reliable && let Some(step) = solve(&symmetric(&self.signal), &self.g, free) {
            return Some(step);
        }
        plain
    }
}

/// `target = gain * reference + offset`.
#[derive(Debug, Clone, Copy)]
struct Grey {
    gain: f64,
    mean_reference: f64,
    mean_target: f64,
}

impl Grey {
    fn from_sums(sums: [f64; 5]) -> Option<Grey> {
        let [w, r, t, rr, tt] = sums;
        if w <= 0.0 {
            return None;
        }
        let (mean_reference, mean_target) = (r / w, t / w);
        let spread = |sum: f64, mean: f64| (sum / w - mean * mean).max(0.0);
        let (of_reference, of_target) = (spread(rr, mean_reference), spread(tt, mean_target));
        if of_reference <= 0.0 || of_target <= 0.0 {
            return None;
        }
        Some(Grey {
            gain: (of_target / of_reference).sqrt(),
            mean_reference,
            mean_target,
        })
    }

    fn residual(&self, reference: f32, target: f32) -> f64 {
        f64::from(target)
            - self.mean_target
            - self.gain * (f64::from(reference) - self.mean_reference)
    }
}

/// How residuals become weights.
#[derive(Debug, Clone, Copy)]
struct Robust {
    sigma: f64,
    /// \[pilot voxel\]
    possible: f64,
}

impl Robust {
    fn weight(&self, residual: f64, gradient_squared: f64) -> f64 {
        let scale = self.sigma * self.sigma + self.possible * self.possible * gradient_squared;
        tukey(residual * residual / scale.max(f64::MIN_POSITIVE))
    }
}

/// Tukey's biweight of the square of a residual over its variance.
pub(crate) fn tukey(squared: f64) -> f64 {
    let t = squared / (TUKEY * TUKEY);
    if t < 1.0 { (1.0 - t) * (1.0 - t) } else { 0.0 }
}

/// Refines `start` on one level; `None` when no voxels overlap or nothing varies.
pub(crate) fn refine(
    level: &Level,
    start: &RigidMotion,
    free: Free,
    most_steps: usize,
) -> Option<Refined> {
    let free = Free {
        z: free.z && level.frame.sees_z(),
        tilt: free.tilt && level.frame.sees_z(),
        ..free
    };
    let voxel = level.frame.factor[0].max(level.frame.factor[1]);
    let reach = level.frame.reach();
    let mut motion = *start;
    let mut possible = LOOSE;
    let mut grey: Option<Grey> = None;
    for _ in 0..most_steps {
        let target = warped(level.target.view(), &level.frame, &motion);
        let (sums, used) = equations(level, &target, &motion, grey, possible * voxel, None)?;
        grey = Grey::from_sums(sums.grey).or(Some(used));
        let Some(mut step) = sums.step(free.mask()) else {
            break;
        };
        limit(&mut step, &level.frame.factor);
        let turn = step[3] / reach;
        let back = RigidMotion {
            shift: [step[0], step[1], step[2]],
            turn,
            tilt: [step[4] / reach, step[5] / reach],
        }
        .inverse();
        motion = motion.after(&back);
        let moved = (0..N)
            .map(|i| step[i].abs() / level.frame.factor[i.min(2)])
            .fold(0.0, f64::max);
        let next = (2.0 * moved).clamp(TIGHT, LOOSE);
        let settled = moved < 5e-4 && possible <= TIGHT;
        possible = next.min(possible);
        if settled {
            break;
        }
    }
    finish(level, motion, free, grey, possible * voxel)
}

/// No step beyond one and a half voxels of the level.
fn limit(step: &mut Vector, factor: &[f64; 3]) {
    let longest = (0..N)
        .map(|i| step[i].abs() / factor[i.min(2)])
        .fold(0.0, f64::max);
    if longest > 1.5 {
        for value in step.iter_mut() {
            *value *= 1.5 / longest;
        }
    }
}

/// Uncertainty and sums by slice at the end.
fn finish(
    level: &Level,
    motion: RigidMotion,
    free: Free,
    grey: Option<Grey>,
    possible: f64,
) -> Option<Refined> {
    let target = warped(level.target.view(), &level.frame, &motion);
    let mut slices = Vec::new();
    let (sums, _) = equations(level, &target, &motion, grey, possible, Some(&mut slices))?;
    let mask = free.mask();
    let reliability = std::array::from_fn(|i| {
        if sums.h[i][i] > 0.0 {
            (sums.signal[i][i] / sums.h[i][i]).clamp(0.0, 1.0)
        } else {
            0.0
        }
    });
    let errors = sandwich(&sums, &slices, mask);
    Some(Refined {
        motion,
        errors,
        reliability,
        kept: if sums.geometric > 0.0 {
            sums.grey[0] / sums.geometric
        } else {
            0.0
        },
    })
}

/// Standard deviations from the scatter of the block sums, which holds for residuals correlated within a block:
/// `H^-1 (sum of g_b g_b') H^-1` with the noise-free H. Blocks span several slices as well.
///
/// Source: Liang and Zeger (1986), Biometrika 73:13, section 3 (the robust variance estimate, blocks as clusters).
fn sandwich(sums: &Normal, slices: &[Normal], free: [bool; N]) -> Vector {
    let none = [f64::INFINITY; N];
    let n_blocks = slices.iter().map(|s| s.blocks.len()).max().unwrap_or(0);
    let mut scatter: Matrix = [[0.0; N]; N];
    let mut used = 0usize;
    for group in slices.chunks(BLOCK) {
        for block in 0..n_blocks {
            let mut g = [0.0; N];
            for slice in group {
                if let Some(part) = slice.blocks.get(block) {
                    for i in 0..N {
                        g[i] += part[i];
                    }
                }
            }
            if g.iter().all(|&v| v == 0.0) {
                continue;
            }
            used += 1;
            for i in 0..N {
                for j in 0..N {
                    scatter[i][j] += g[i] * g[j];
                }
            }
        }
    }
    if used < 6 {
        return none;
    }
    let signal = symmetric(&sums.signal);
    let mut errors = [0.0; N];
    for i in 0..N {
        if !free[i] {
            continue;
        }
        let mut unit = [0.0; N];
        unit[i] = 1.0;
        // without signal along a parameter nothing is known of it
        let known = sums.signal[i][i] > 0.02 * sums.h[i][i];
        let Some(row) = solve(&signal, &unit, free).filter(|_| known) else {
            errors[i] = f64::INFINITY;
            continue;
        };
        let mut variance = 0.0;
        for (a, row_a) in row.iter().enumerate() {
            for (b, row_b) in row.iter().enumerate() {
                variance += row_a * scatter[a][b] * row_b;
            }
        }
        let few = used as f64 / (used as f64 - 5.0);
        errors[i] = (variance.max(0.0) * few).sqrt();
    }
    errors
}

/// Normal equations at `motion`; the grey values and weights start from the geometric weights alone if not given.
fn equations(
    level: &Level,
    target: &Array3<f32>,
    motion: &RigidMotion,
    grey: Option<Grey>,
    possible: f64,
    by_slice: Option<&mut Vec<Normal>>,
) -> Option<(Normal, Grey)> {
    let n_z = level.frame.shape[0];
    let grey = match grey {
        Some(grey) => grey,
        None => first_grey(level, target, motion)?,
    };
    let sigma = 1.4826 * median_residual(level, target, motion, grey)?;
    let robust = Robust {
        sigma: sigma.max(1e-6 * grey.gain),
        possible,
    };
    let slices: Vec<Normal> = (0..n_z)
        .into_par_iter()
        .map(|z| slice_equations(level, target, motion, grey, robust, z, by_slice.is_some()))
        .collect();
    let mut sums = Normal::default();
    for slice in &slices {
        sums.add(slice);
    }
    if sums.grey[0] < 16.0 {
        return None;
    }
    if let Some(out) = by_slice {
        *out = slices;
    }
    Some((sums, grey))
}

/// Calls `each` for every voxel of slice `z` that counts, with its indices, position and geometric weight.
fn for_each_voxel(
    frame: &Frame,
    motion: &RigidMotion,
    z: usize,
    stride: usize,
    mut each: impl FnMut(usize, usize, [f64; 3], f64),
) {
    let [_, n_y, n_x] = frame.shape;
    let height = frame.position(2, z as f64);
    for y in 0..n_y {
        let across = frame.position(1, y as f64);
        for x in (0..n_x).step_by(stride) {
            let p = [frame.position(0, x as f64), across, height];
            let weight = frame.pair_weight(p, motion);
            if weight > 0.0 {
                each(y, x, p, weight);
            }
        }
    }
}

/// Calls `value` for a regular subset of the voxels that count.
fn sampled<T: Send>(
    level: &Level,
    motion: &RigidMotion,
    value: impl Fn([usize; 3]) -> T + Sync,
) -> Vec<T> {
    let [n_z, n_y, n_x] = level.frame.shape;
    let stride = (n_z * n_y * n_x / MEDIAN_SAMPLES).max(1);
    let (stride_z, stride_x) = if stride < 8 {
        (1, stride)
    } else {
        ((stride / 8).min(n_z / 4).max(1), 8)
    };
    let parts: Vec<Vec<T>> = (0..n_z)
        .into_par_iter()
        .filter(|z| (z + stride_z / 2).is_multiple_of(stride_z))
        .map(|z| {
            let mut out = Vec::new();
            for_each_voxel(&level.frame, motion, z, stride_x, |y, x, _, _| {
                out.push(value([z, y, x]))
            });
            out
        })
        .collect();
    parts.into_iter().flatten().collect()
}

/// Median absolute residual.
fn median_residual(
    level: &Level,
    target: &Array3<f32>,
    motion: &RigidMotion,
    grey: Grey,
) -> Option<f64> {
    let mut residuals = sampled(level, motion, |at| {
        grey.residual(level.reference[at], target[at]).abs()
    });
    middle(&mut residuals, f64::total_cmp)
}

/// Grey values from medians, which changed regions do not rule; from mean and spread where more than half of the
/// voxels hold one value.
fn first_grey(level: &Level, target: &Array3<f32>, motion: &RigidMotion) -> Option<Grey> {
    let pairs = sampled(level, motion, |at| {
        [f64::from(level.reference[at]), f64::from(target[at])]
    });
    let robust = [0, 1].map(|side| {
        let mut values: Vec<f64> = pairs.iter().map(|pair| pair[side]).collect();
        let center = middle(&mut values, f64::total_cmp)?;
        values.iter_mut().for_each(|v| *v = (*v - center).abs());
        Some((center, middle(&mut values, f64::total_cmp)?))
    });
    let [
        Some((mean_reference, of_reference)),
        Some((mean_target, of_target)),
    ] = robust
    else {
        return None;
    };
    let mut sums = [0.0; 5];
    for [r, t] in pairs {
        for (sum, term) in sums.iter_mut().zip([1.0, r, t, r * r, t * t]) {
            *sum += term;
        }
    }
    let plain = Grey::from_sums(sums)?;
    let tiny = 1e-3
        * (sums[3] / sums[0] - plain.mean_reference * plain.mean_reference)
            .max(0.0)
            .sqrt();
    if of_reference <= tiny || of_target <= tiny * plain.gain {
        return Some(plain);
    }
    Some(Grey {
        gain: of_target / of_reference,
        mean_reference,
        mean_target,
    })
}

/// Central differences \[1/pilot voxel\] `[x, y, z]`; 0 where a neighbour is missing.
fn gradient(volume: &Array3<f32>, factor: &[f64; 3], z: usize, y: usize, x: usize) -> [f64; 3] {
    let (n_z, n_y, n_x) = volume.dim();
    let along = |inside: bool, low: [usize; 3], high: [usize; 3], step: f64| {
        if inside {
            f64::from(volume[high] - volume[low]) / (2.0 * step)
        } else {
            0.0
        }
    };
    [
        along(
            x > 0 && x + 1 < n_x,
            [z, y, x.saturating_sub(1)],
            [z, y, (x + 1).min(n_x - 1)],
            factor[0],
        ),
        along(
            y > 0 && y + 1 < n_y,
            [z, y.saturating_sub(1), x],
            [z, (y + 1).min(n_y - 1), x],
            factor[1],
        ),
        along(
            z > 0 && z + 1 < n_z,
            [z.saturating_sub(1), y, x],
            [(z + 1).min(n_z - 1), y, x],
            factor[2],
        ),
    ]
}

fn slice_equations(
    level: &Level,
    target: &Array3<f32>,
    motion: &RigidMotion,
    grey: Grey,
    robust: Robust,
    z: usize,
    with_blocks: bool,
) -> Normal {
    let frame = &level.frame;
    let reach = frame.reach();
    let [_, n_y, n_x] = frame.shape;
    let edge = BLOCK.max(n_x.max(n_y).div_ceil(32));
    let blocks_x = n_x.div_ceil(edge);
    let mut sums = Normal::default();
    if with_blocks {
        sums.blocks = vec![[0.0; N]; blocks_x * n_y.div_ceil(edge)];
    }
    for_each_voxel(frame, motion, z, 1, |y, x, p, geometric| {
        let (r, t) = (level.reference[[z, y, x]], target[[z, y, x]]);
        let residual = grey.residual(r, t);
        let along = gradient(&level.reference, &frame.factor, z, y, x).map(|d| grey.gain * d);
        let w = geometric * robust.weight(residual, along.iter().map(|d| d * d).sum());
        sums.geometric += geometric;
        if w == 0.0 {
            return;
        }
        let jacobian = |d: [f64; 3]| {
            [
                d[0],
                d[1],
                d[2],
                (p[0] * d[1] - p[1] * d[0]) / reach,
                (p[1] * d[2] - p[2] * d[1]) / reach,
                (p[2] * d[0] - p[0] * d[2]) / reach,
            ]
        };
        let own = jacobian(along);
        let other = jacobian(gradient(target, &frame.factor, z, y, x));
        for i in 0..N {
            for j in 0..N {
                sums.h[i][j] += w * own[i] * own[j];
                sums.signal[i][j] += w * own[i] * other[j];
            }
            sums.g[i] += w * own[i] * residual;
        }
        let (r, t) = (f64::from(r), f64::from(t));
        for (sum, term) in sums.grey.iter_mut().zip([1.0, r, t, r * r, t * t]) {
            *sum += w * term;
        }
        if with_blocks {
            let block = &mut sums.blocks[(y / edge) * blocks_x + x / edge];
            for i in 0..N {
                block[i] += w * own[i] * residual;
            }
        }
    });
    sums
}

fn symmetric(m: &Matrix) -> Matrix {
    let mut out = *m;
    for i in 0..N {
        for j in 0..N {
            out[i][j] = 0.5 * (m[i][j] + m[j][i]);
        }
    }
    out
}

/// Solves for the free parameters by Cholesky decomposition; `None` when the matrix is not positive definite.
pub(crate) fn solve<const M: usize>(
    matrix: &[[f64; M]; M],
    right: &[f64; M],
    free: [bool; M],
) -> Option<[f64; M]> {
    let rows: Vec<usize> = (0..M).filter(|&i| free[i]).collect();
    let n = rows.len();
    let mut lower = [[0.0f64; M]; M];
    for i in 0..n {
        for j in 0..=i {
            let mut sum = matrix[rows[i]][rows[j]];
            sum -= lower[i]
                .iter()
                .zip(&lower[j])
                .take(j)
                .map(|(a, b)| a * b)
                .sum::<f64>();
            if i == j {
                if sum <= 1e-9 * matrix[rows[i]][rows[i]].abs() || !sum.is_finite() {
                    return None;
                }
                lower[i][i] = sum.sqrt();
            } else {
                lower[i][j] = sum / lower[j][j];
            }
        }
    }
    let mut middle = [0.0; M];
    for i in 0..n {
        let known: f64 = (0..i).map(|k| lower[i][k] * middle[k]).sum();
        middle[i] = (right[rows[i]] - known) / lower[i][i];
    }
    let mut out = [0.0; M];
    let mut solution = [0.0; M];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|k| lower[k][i] * solution[k]).sum();
        solution[i] = (middle[i] - known) / lower[i][i];
        out[rows[i]] = solution[i];
    }
    Some(out)
}

/// Root mean square of reference minus target at `motion` over the voxels of `frame` that count, without any
/// weighting by residuals; what is not finite is left out.
pub(crate) fn rms(
    reference: ArrayView3<'_, f32>,
    target: ArrayView3<'_, f32>,
    frame: &Frame,
    motion: &RigidMotion,
) -> f64 {
    let (weight, power) = squares_of_slices(reference, target, frame, motion)
        .iter()
        .fold((0.0, 0.0), |(a, b), s| (a + s[8][0], b + s[8][1]));
    if weight > 0.0 {
        (power / weight).sqrt()
    } else {
        0.0
    }
}

/// The same in each octant around the middle, relative to what is left at the same heights; 1 in those without voxels.
///
/// Slices differ in what they hold, air or ceramic, and so in their residual: every slice is measured by its own.
pub(crate) fn octants(
    reference: ArrayView3<'_, f32>,
    target: ArrayView3<'_, f32>,
    frame: &Frame,
    motion: &RigidMotion,
) -> Vec<f64> {
    let mut sums = [[0.0; 2]; 8];
    for slice in squares_of_slices(reference, target, frame, motion) {
        let [weight, power] = slice[8];
        if power > 0.0 {
            for (sum, part) in sums.iter_mut().zip(&slice) {
                sum[0] += part[0];
                sum[1] += part[1] * weight / power;
            }
        }
    }
    sums.iter()
        .map(|[weight, power]| {
            if *weight > 0.0 {
                (power / weight).sqrt()
            } else {
                1.0
            }
        })
        .collect()
}

/// Of each slice, sums of weights and of weighted squares over the eight octants and over all voxels.
fn squares_of_slices(
    reference: ArrayView3<'_, f32>,
    target: ArrayView3<'_, f32>,
    frame: &Frame,
    motion: &RigidMotion,
) -> Vec<[[f64; 2]; 9]> {
    let target = warped(target, frame, motion);
    (0..frame.shape[0])
        .into_par_iter()
        .map(|z| {
            let mut sums = [[0.0; 2]; 9];
            for_each_voxel(frame, motion, z, 1, |y, x, p, w| {
                let d = f64::from(reference[[z, y, x]] - target[[z, y, x]]);
                if d.is_finite() {
                    let octant = (0..3).map(|a| usize::from(p[a] >= 0.0) << a).sum::<usize>();
                    for sum in [octant, 8] {
                        sums[sum][0] += w;
                        sums[sum][1] += w * d * d;
                    }
                }
            });
            sums
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_solver_leaves_fixed_parameters_alone() {
        let matrix = [
            [4.0, 1.0, 0.0, 0.5, 0.1, 0.0],
            [1.0, 3.0, 0.2, 0.0, 0.0, 0.3],
            [0.0, 0.2, 2.0, 0.0, 0.4, 0.0],
            [0.5, 0.0, 0.0, 5.0, 0.0, 0.0],
            [0.1, 0.0, 0.4, 0.0, 3.0, 0.2],
            [0.0, 0.3, 0.0, 0.0, 0.2, 2.5],
        ];
        let truth = [1.0, -2.0, 3.0, 0.0, 0.5, -0.7];
        let right = std::array::from_fn(|i| (0..N).map(|j| matrix[i][j] * truth[j]).sum());
        let found = solve(&matrix, &right, [true, true, true, false, true, true]).unwrap();
        assert!(
            found.iter().zip(truth).all(|(a, b)| (a - b).abs() < 1e-12),
            "{found:?}"
        );
        assert!(solve(&[[0.0; N]; N], &right, [true; N]).is_none());
    }

    #[test]
    fn tukey_ignores_what_changed_but_not_an_edge_that_may_still_move() {
        let robust = Robust {
            sigma: 1.0,
            possible: 0.7,
        };
        assert_eq!(robust.weight(6.0, 0.0), 0.0);
        assert!(robust.weight(6.0, 100.0) > 0.5);
        assert_eq!(robust.weight(0.0, 0.0), 1.0);
    }
}
