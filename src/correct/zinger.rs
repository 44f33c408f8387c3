//! Zingers: isolated bright samples of the transmission sinogram, from X-rays that hit the camera's chip.
//!
//! Source: N. T. Vo et al., Opt. Express 29 (2021) 17849, section 3.2: M is the mean of the eight samples at the
//! distances {-s, 0, s} in angle and column; where `value / M - 1 > threshold`, the sample becomes M.
//! Beyond an edge the neighbour on the other side counts twice. (Algotom wraps around to the opposite edge, which
//! compares the first column with the last; the results differ in the `s` outermost samples of each edge only.)
//! Where M is not positive the ratio means nothing and the sample is left.

/// Removes the zingers of `sinogram` `[angle, col]` in place and returns how many samples were replaced.
///
/// `threshold` is a relative excess; `size` is the distance s of the neighbours \[px\].
/// Every sample is judged by its neighbours' original values. NaN is left.
pub fn remove_zingers(sinogram: &mut [f32], n_cols: usize, threshold: f32, size: usize) -> u64 {
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
    for &(index, mean) in &found {
        sinogram[index] = mean;
    }
    found.len() as u64
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
        let count = remove_zingers(&mut found, n_cols, 0.08, 2);
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

    #[test]
    fn images_smaller_than_the_distance_are_left() {
        let mut tiny = [1.0, 5.0];
        assert_eq!(
            (remove_zingers(&mut tiny, 2, 0.08, 2), tiny),
            (0, [1.0, 5.0])
        );
        assert_eq!(remove_zingers(&mut [], 0, 0.08, 2), 0);
    }

    #[test]
    fn zingers_agree_with_algotom_away_from_the_edges() {
        for (case, threshold, size) in [("zinger_0", 0.08, 2), ("zinger_1", 0.05, 1)] {
            for set in ["a", "b"] {
                let Some(golden) = Golden::read("in_sino", case, set) else {
                    return;
                };
                let mut found = golden.input.clone();
                remove_zingers(&mut found, golden.n_cols, threshold, size);
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
