//! Zingers: isolated bright samples of the transmission sinogram, from X-rays that hit the camera's chip.
//!
//! Source: N. T. Vo et al., Opt. Express 29 (2021) 17849, section 3.2: M is the mean of the eight samples at the
//! distances {-s, 0, s} in angle and column; where `value / M - 1 > threshold`, the sample becomes M.
//! Beyond an edge the neighbour on the other side counts twice. (Algotom wraps around to the opposite edge, which
//! compares the first column with the last; the results differ in the `s` outermost samples of each edge only.)
//! Where M is not positive the ratio means nothing and the sample is left.
//!
//! The rule alone takes bright edges of the sample and, with few photons, noise. So it may be guarded (see [`Guard`]): a
//! ray hits one frame, while structure is seen again, a little further on, at the angles before and after. A ray that crosses
//! several pixels leaves less in the outer ones, and beside an edge of the sample that may be below the threshold: once one
//! of its samples is known, noise alone decides about those beside it, as far as a ray may go.

use std::collections::BTreeMap;

/// Removes the zingers of `sinogram` `[angle, col]` in place and returns how many samples were replaced.
///
/// `threshold` is a relative excess; `size` is the distance s of the neighbours \[px\].
/// Every sample is judged by its neighbours' original values. NaN is left. With a guard, what a ray has left in the samples beside
/// a zinger goes with it ([`Guard`]).
pub fn remove_zingers(
    sinogram: &mut [f32],
    n_cols: usize,
    threshold: f32,
    size: usize,
    guard: Option<Guard>,
) -> u64 {
    let n_angles = sinogram.len().checked_div(n_cols).unwrap_or(0);
    // without a neighbour on either side there is nothing to compare with
    if n_cols <= size || n_angles <= size || size == 0 {
        return 0;
    }
    let mut found: Vec<(usize, f32)> = Vec::new();
    let limit = 1.0 + threshold;
    let mut means = vec![0f32; n_cols];
    for angle in 0..n_angles {
        let line = |angle: usize| &sinogram[angle * n_cols..(angle + 1) * n_cols];
        let (up, down) = neighbours(angle, size, n_angles);
        neighbour_means(line(up), line(angle), line(down), size, &mut means);
        let here = line(angle);
        for first in (0..n_cols).step_by(64) {
            let block = first..(first + 64).min(n_cols);
            // a branch-free look first: nearly every block is clean
            let any = here[block.clone()]
                .iter()
                .zip(&means[block.clone()])
                .fold(false, |any, (v, m)| any | (*v > m * limit));
            if any {
                for col in block.filter(|&col| means[col] > 0.0 && here[col] > means[col] * limit) {
                    found.push((angle * n_cols + col, means[col]));
                }
            }
        }
    }
    if let Some(guard) = guard {
        found.retain_mut(|(index, value)| {
            match guard.judge(sinogram, n_cols, *index, *value, limit) {
                Some(better) => {
                    *value = better;
                    true
                }
                None => false,
            }
        });
        Guard::spread(sinogram, n_cols, &mut found);
    }
    for &(index, mean) in &found {
        sinogram[index] = mean;
    }
    found.len() as u64
}

/// What a sample must be beside bright among its neighbours to be a zinger: beyond structure and beyond noise.
///
/// Structure: nothing at the two angles before and the two after comes near it, within the columns that anything in the field
/// of view can have moved. Two, because a thread as thin as a pixel is dimmer where it falls between two. What none of the angles beside it sees,
/// at least as a third, is a ray of its own: two that hit close together must not pass for structure. Noise: its excess over the brightest of these is more than
/// `Guard::SIGMA` times the noise of its column around it, the median size of the second difference along the angle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// Columns that structure moves from one projection to the next, at most \[px\].
    pub reach: usize,
}

impl Guard {
    /// Excess in standard deviations: by noise alone one in 1e9 samples.
    pub const SIGMA: f32 = 6.0;
    /// Samples before and after from which the noise is taken.
    pub const AROUND: usize = 24;
    /// Samples before and after that a sample is judged by.
    pub const HALO: usize = Guard::AROUND + 1;
    /// Samples beside a zinger that the same ray can have reached, on either side.
    pub const TRACK: usize = 4;
    /// By how much structure may be dimmer from one angle to the next. A thread that falls between two pixels leaves each a half.
    pub const DIMMER: f32 = 3.0;
    /// Share of a sample that cannot be told from rounding.
    pub const ROUNDING: f32 = 1e-4;

    /// For a scan at these angles \[rad\].
    #[must_use]
    pub fn for_scan(angles_rad: &[f64], n_cols: usize) -> Guard {
        let mut steps: Vec<f64> = angles_rad
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).abs())
            .collect();
        steps.sort_by(f64::total_cmp);
        // the median: a gap in the angles is no reason to compare with the whole line
        Guard::for_step(steps.get(steps.len() / 2).copied().unwrap_or(0.0), n_cols)
    }

    /// For projections `step` \[rad\] apart.
    pub(super) fn for_step(step: f64, n_cols: usize) -> Guard {
        let motion = (0.5 * n_cols as f64 * step).ceil() as usize;
        // one more for the blur; a scan with few projections is compared with a part of the line only
        Guard {
            reach: motion.min(n_cols / 8).max(1) + 1,
        }
    }

    /// The value to put in the place of a zinger, between those before and after; `None` for what is none.
    fn judge(
        self,
        sinogram: &[f32],
        n_cols: usize,
        index: usize,
        mean: f32,
        limit: f32,
    ) -> Option<f32> {
        let n_angles = sinogram.len() / n_cols;
        let (angle, col) = (index / n_cols, index % n_cols);
        let value = sinogram[index];
        let base = Self::between(sinogram, n_cols, index).unwrap_or(mean);
        // the most that an angle so far away rises above that
        let rise = |away: isize| {
            let a = angle.checked_add_signed(away).filter(|&a| a < n_angles)?;
            // one column of the reach is for the blur
            let reach = (self.reach - 1) * away.unsigned_abs() + 1;
            let around = col.saturating_sub(reach)..(col + reach + 1).min(n_cols);
            let line = &sinogram[a * n_cols..(a + 1) * n_cols];
            Some(line[around].iter().fold(0f32, |most, v| most.max(v - base)))
        };
        let brightest =
            base + Self::structure([-2, -1, 1, 2].map(|away| rise(away).unwrap_or(0.0)));
        if value <= limit * brightest {
            return None;
        }
        let noise = Self::noise(sinogram, n_cols, index);
        if noise.is_some_and(|noise| value - brightest <= Guard::SIGMA * noise) {
            return None;
        }
        Some(Self::between(sinogram, n_cols, index).unwrap_or(mean))
    }

    /// How much of what rises at the two angles before and the two after is structure, which three angles in a row see, and not one or two more rays.
    pub(super) fn structure([before2, before, after, after2]: [f32; 4]) -> f32 {
        let side = |near: f32, far: f32, other: f32| {
            let seen_twice = far.min(Guard::DIMMER * near);
            seen_twice.max(near.min(Guard::DIMMER * far.max(other)))
        };
        side(before, before2, after).max(side(after, after2, before))
    }

    /// Adds to `found` (index and new value, by ascending index) what rays have left beside them: the samples of the same line, [`Guard::TRACK`] on
    /// either side at most, that stand out without a gap.
    fn spread(sinogram: &[f32], n_cols: usize, found: &mut Vec<(usize, f32)>) {
        let judged = |index: usize| {
            found
                .binary_search_by_key(&index, |&(index, _)| index)
                .is_ok()
        };
        let mut beside: BTreeMap<usize, f32> = BTreeMap::new();
        let mut walk = |line: &mut dyn Iterator<Item = usize>| {
            for index in line.take(Guard::TRACK) {
                match Self::stands_out(sinogram, n_cols, index) {
                    Some(value) if !judged(index) => beside.insert(index, value),
                    _ => break,
                };
            }
        };
        for &(index, _) in found.iter() {
            let first = index - index % n_cols;
            walk(&mut (first..index).rev());
            walk(&mut (index + 1..first + n_cols));
        }
        found.extend(beside);
    }

    /// The value between those before and after, if the sample stands out above it by more than the noise.
    fn stands_out(sinogram: &[f32], n_cols: usize, index: usize) -> Option<f32> {
        let value = Self::between(sinogram, n_cols, index)?;
        let noise = Self::noise(sinogram, n_cols, index)?;
        let least = (Guard::SIGMA * noise).max(Guard::ROUNDING * value.abs());
        (sinogram[index] - value > least).then_some(value)
    }

    /// Mean of the samples before and after; `None` at the first and the last angle.
    fn between(sinogram: &[f32], n_cols: usize, index: usize) -> Option<f32> {
        let before = index.checked_sub(n_cols)?;
        let after = sinogram.get(index + n_cols)?;
        Some(0.5 * (sinogram[before] + after))
    }

    /// Noise of a column around a sample, from second differences along the angle that do not hold it.
    fn noise(sinogram: &[f32], n_cols: usize, index: usize) -> Option<f32> {
        let n_angles = sinogram.len() / n_cols;
        let (angle, col) = (index / n_cols, index % n_cols);
        let at = |angle: usize| sinogram[angle * n_cols + col];
        let mut sizes = [0f32; 2 * Guard::AROUND];
        let mut n = 0;
        let first = angle.saturating_sub(Guard::AROUND).max(1);
        let last = (angle + Guard::AROUND).min(n_angles.saturating_sub(2));
        for a in (first..=last).filter(|a| a.abs_diff(angle) > 1) {
            sizes[n] = (at(a) - 0.5 * (at(a - 1) + at(a + 1))).abs();
            n += 1;
        }
        let sizes = &mut sizes[..n];
        if sizes.is_empty() {
            return None;
        }
        let median = *sizes.select_nth_unstable_by(n / 2, f32::total_cmp).1;
        // of a second difference of this kind the variance is 1 + 2 / 4
        Some(1.4826 * median / 1.5f32.sqrt())
    }
}

/// The indices at the distance `size` on both sides; beyond an end, the other side's.
pub(super) fn neighbours(index: usize, size: usize, len: usize) -> (usize, usize) {
    let before = index.checked_sub(size);
    let after = Some(index + size).filter(|&after| after < len);
    (
        before.or(after).unwrap_or(index),
        after.or(before).unwrap_or(index),
    )
}

/// Mean of the eight neighbours of every sample of the line `here`.
pub(super) fn neighbour_means(
    up: &[f32],
    here: &[f32],
    down: &[f32],
    size: usize,
    means: &mut [f32],
) {
    let n_cols = here.len();
    let at = |left: usize, col: usize, right: usize| {
        let sides = (up[left] + up[right]) + (down[left] + down[right]);
        (sides + (here[left] + here[right]) + (up[col] + down[col])) * 0.125
    };
    let middle = size..n_cols.saturating_sub(size).max(size);
    let edges = (0..size).chain(middle.end..n_cols);
    let (left, right) = (0..middle.len(), 2 * size..2 * size + middle.len());
    if !middle.is_empty() {
        let ups = up[left.clone()]
            .iter()
            .zip(&up[middle.clone()])
            .zip(&up[right.clone()]);
        let heres = here[left.clone()].iter().zip(&here[right.clone()]);
        let downs = down[left]
            .iter()
            .zip(&down[middle.clone()])
            .zip(&down[right]);
        for (((mean, ((ul, um), ur)), (hl, hr)), ((dl, dm), dr)) in
            means[middle].iter_mut().zip(ups).zip(heres).zip(downs)
        {
            let sides = (ul + ur) + (dl + dr);
            *mean = (sides + (hl + hr) + (um + dm)) * 0.125;
        }
    }
    for col in edges {
        let (left, right) = neighbours(col, size, n_cols);
        means[col] = at(left, col, right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correct::goldens::{Golden, worst};

    /// The rule in plain indices and f64, without any of the shortcuts.
    fn slow(sinogram: &[f32], n_cols: usize, threshold: f64, size: usize) -> Vec<f32> {
        let n_angles = sinogram.len() / n_cols;
        let other_side = |index: usize, step: isize, len: usize| -> usize {
            let there = index as isize + step;
            if there < 0 || there >= len as isize {
                (index as isize - step) as usize
            } else {
                there as usize
            }
        };
        let mut out = sinogram.to_vec();
        for angle in 0..n_angles {
            for col in 0..n_cols {
                let mut sum = 0.0;
                for (i, j) in [
                    (-1, -1),
                    (-1, 0),
                    (-1, 1),
                    (0, -1),
                    (0, 1),
                    (1, -1),
                    (1, 0),
                    (1, 1),
                ] {
                    let a = other_side(angle, i * size as isize, n_angles);
                    let c = other_side(col, j * size as isize, n_cols);
                    sum += f64::from(sinogram[a * n_cols + c]);
                }
                let mean = sum / 8.0;
                if f64::from(sinogram[angle * n_cols + col]) / mean - 1.0 > threshold {
                    out[angle * n_cols + col] = mean as f32;
                }
            }
        }
        out
    }

    #[test]
    fn zingers_agree_with_the_plain_rule_in_every_corner() {
        let (n_angles, n_cols) = (11, 131);
        let mut sinogram: Vec<f32> = (0..n_angles * n_cols)
            .map(|i| 1.0 + 0.02 * ((i * 7919 % 101) as f32 / 101.0))
            .collect();
        for index in [
            0,
            n_cols - 1,
            65,
            3 * n_cols + 64,
            10 * n_cols,
            11 * n_cols - 1,
            5 * n_cols + 1,
        ] {
            sinogram[index] = 3.0;
        }
        let expected = slow(&sinogram, n_cols, 0.08, 2);
        let mut found = sinogram.clone();
        let count = remove_zingers(&mut found, n_cols, 0.08, 2, None);
        assert_eq!(
            count,
            expected
                .iter()
                .zip(&sinogram)
                .filter(|(a, b)| a != b)
                .count() as u64
        );
        assert!(count >= 7 && worst(&found, &expected) < 4e-7);
        assert!(worst(&sinogram, &expected) > 1.0, "the check is blind");
    }

    /// A bright thread that wanders through the field of view, seen through a sharp edge, with noise; `zing` adds rays.
    fn threads(noise: f32, zing: &[(usize, f32)]) -> (Vec<f32>, usize, Vec<f64>) {
        let (n_angles, n_cols) = (181, 120);
        let angles: Vec<f64> = (0..n_angles)
            .map(|a| a as f64 * std::f64::consts::PI / 180.0)
            .collect();
        let mut state = 7u64;
        let mut sinogram = Vec::with_capacity(n_angles * n_cols);
        for angle in &angles {
            let thread = 59.5 + 45.0 * (angle + 0.3).cos();
            for col in 0..n_cols {
                let inside = (col as f64 - 59.5).abs() < 50.0;
                // blurred by 0.6 px and the pixel: variance 0.36 + 1 / 12
                let bright = (-(col as f64 - thread).powi(2) / (2.0 * 0.443)).exp();
                // twelve uniform numbers make a normal one
                let normal: f64 = (0..12)
                    .map(|_| {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        (state >> 40) as f64 / f64::from(1u32 << 24)
                    })
                    .sum::<f64>()
                    - 6.0;
                let base = if inside { 0.4 + 0.3 * bright } else { 1.0 };
                sinogram.push((base * (1.0 + f64::from(noise) * normal)) as f32);
            }
        }
        for &(at, extra) in zing {
            sinogram[at] += extra;
        }
        (sinogram, n_cols, angles)
    }

    #[test]
    fn the_guard_tells_rays_from_threads_edges_and_noise() {
        for noise in [0.002, 0.05] {
            let clean = threads(noise, &[]);
            let at = |angle: usize, col: usize| angle * clean.1 + col;
            let rays = [
                (at(40, 60), 1.0),
                (at(40, 61), 0.6),
                (at(90, 20), 0.5),
                (at(120, 100), 2.0),
            ];
            let (mut found, n_cols, angles) = threads(noise, &rays);
            let guard = Guard::for_scan(&angles, n_cols);
            assert_eq!(guard.reach, 3, "60 columns times a degree is 1.05");
            let mut alone = found.clone();
            let unguarded = remove_zingers(&mut alone, n_cols, 0.08, 2, None);
            assert!(
                unguarded > 100,
                "the check is blind: the plain rule takes {unguarded}"
            );
            assert_eq!(
                remove_zingers(&mut found, n_cols, 0.08, 2, Some(guard)),
                4,
                "{noise}"
            );
            for (index, (found, clean)) in found.iter().zip(&clean.0).enumerate() {
                if rays.iter().any(|ray| ray.0 == index) {
                    // between its neighbours in angle: their noise, and nothing of the ray
                    assert!(
                        (found - clean).abs() < 0.05 + 5.0 * noise * clean,
                        "{index}"
                    );
                } else {
                    assert_eq!(found, clean);
                }
            }
        }
    }

    #[test]
    fn rays_that_hit_close_together_do_not_pass_for_structure() {
        let at = |angle: usize, col: usize| angle * 120 + col;
        // two angles apart and one, where any of them could have come from where another is
        let rays = [
            (at(40, 26), 0.42),
            (at(42, 30), 0.47),
            (at(90, 20), 0.5),
            (at(91, 22), 0.5),
            (at(140, 90), 0.3),
            (at(142, 90), 0.3),
        ];
        let clean = threads(0.002, &[]).0;
        let (mut found, n_cols, angles) = threads(0.002, &rays);
        let guard = Guard::for_scan(&angles, n_cols);
        assert_eq!(remove_zingers(&mut found, n_cols, 0.08, 2, Some(guard)), 6);
        for (found, clean) in found.iter().zip(&clean) {
            assert!((found - clean).abs() < 0.02, "{found} {clean}");
        }
        // a third angle makes it structure
        let mut slit = rays[2..4].to_vec();
        slit.push((at(92, 24), 0.5));
        let (mut found, ..) = threads(0.002, &slit);
        assert_eq!(remove_zingers(&mut found, n_cols, 0.08, 2, Some(guard)), 0);
    }

    #[test]
    fn what_a_ray_leaves_beside_an_edge_goes_with_it() {
        let clean = threads(0.002, &[]);
        let at = |angle: usize, col: usize| angle * clean.1 + col;
        // column 10 is the first behind the edge, three columns count one angle on: 0.5 is nothing beside 1.0
        let rays = [(at(60, 13), 0.8), (at(60, 12), 0.1), (at(60, 14), 0.02)];
        let (mut found, n_cols, angles) = threads(0.002, &rays);
        let guard = Guard::for_scan(&angles, n_cols);
        let judged = |ray: &(usize, f32)| {
            guard
                .judge(&found, n_cols, ray.0, clean.0[ray.0], 1.08)
                .is_some()
        };
        assert_eq!(rays.map(|ray| judged(&ray)), [true, false, false]);
        assert_eq!(remove_zingers(&mut found, n_cols, 0.08, 2, Some(guard)), 3);
        for (found, clean) in found.iter().zip(&clean.0) {
            assert!((found - clean).abs() < 0.02, "{found} {clean}");
        }
    }

    #[test]
    fn images_smaller_than_the_distance_are_left() {
        let mut tiny = [1.0, 5.0];
        assert_eq!(
            (remove_zingers(&mut tiny, 2, 0.08, 2, None), tiny),
            (0, [1.0, 5.0])
        );
        assert_eq!(remove_zingers(&mut [], 0, 0.08, 2, None), 0);
    }

    #[test]
    fn zingers_agree_with_algotom_away_from_the_edges() {
        for (case, threshold, size) in [("zinger_0", 0.08, 2), ("zinger_1", 0.05, 1)] {
            for set in ["a", "b"] {
                let Some(golden) = Golden::read("in_sino", case, set) else {
                    return;
                };
                let mut found = golden.input.clone();
                remove_zingers(&mut found, golden.n_cols, threshold, size, None);
                let inner = |values: &[f32]| -> Vec<f32> {
                    let n_angles = values.len() / golden.n_cols;
                    let lines = values
                        .chunks(golden.n_cols)
                        .take(n_angles - size)
                        .skip(size);
                    lines
                        .flat_map(|line| line[size..golden.n_cols - size].to_vec())
                        .collect()
                };
                // a mean of eight f32 in another order: 8 rounding errors of values below 4
                assert!(
                    worst(&inner(&found), &inner(&golden.expected)) < 8.0 * f32::EPSILON * 4.0,
                    "{case} {set}"
                );
                assert!(
                    worst(&inner(&golden.input), &inner(&golden.expected)) > 0.1,
                    "the check is blind"
                );
            }
        }
    }
}
