//! Samples without a usable value: filled along the detector, or along the angle where a whole line is lost.
//!
//! One rule for pixels without signal and for samples that are not finite: linear between the nearest good columns of
//! the same line, the nearest good column beyond the outermost ones; in a locked series (see `lock`) the cubic through the
//! two good columns on either side, where there are two and the gap is at most three. A line without any good column is taken
//! linearly from the nearest good angles of its sinogram; a sinogram without any good line is open beam
//! (transmission 1), because a detector row outside the beam knows nothing and must not spoil a slice with NaN.

/// Widest gap that a cubic bridges \[px\]: across wider ones it amplifies noise and runs away.
pub(super) const WIDEST_CUBIC: f32 = 3.0;

/// Weights of samples at `at` for the value at 0 of the polynomial through them (Lagrange).
pub(super) fn lagrange<const N: usize>(at: [f32; N]) -> [f32; N] {
    std::array::from_fn(|i| {
        (0..N)
            .filter(|&j| j != i)
            .map(|j| at[j] / (at[j] - at[i]))
            .product()
    })
}

/// Fills every sample of `line` that is not finite from its good neighbours, by a cubic where `cubic` and there are enough; false when there is no good one.
pub(super) fn fill_line(line: &mut [f32], cubic: bool) -> bool {
    let good = |value: &f32| value.is_finite();
    let Some(first) = line.iter().position(good) else {
        return false;
    };
    let edge = line[first];
    line[..first].fill(edge);
    // where the good samples before a hole begin: a filled one is no second good one
    let mut run_start = first;
    while let Some(hole) = next_hole(line, run_start) {
        let last_good = hole - 1;
        let Some(length) = line[hole..].iter().position(good) else {
            let edge = line[last_good];
            line[hole..].fill(edge);
            break;
        };
        let col = hole + length;
        let (left, right) = (line[last_good], line[col]);
        let gap = (col - last_good) as f32;
        let before = (last_good > run_start).then(|| line[last_good - 1]);
        let after = line.get(col + 1).copied().filter(good);
        let outer = before
            .zip(after)
            .filter(|_| cubic && gap <= WIDEST_CUBIC + 1.0);
        for step in 1..col - last_good {
            let at = step as f32;
            line[last_good + step] = match outer {
                Some((before, after)) => {
                    let weights = lagrange([-1.0 - at, -at, gap - at, gap + 1.0 - at]);
                    weights[0] * before
                        + weights[1] * left
                        + weights[2] * right
                        + weights[3] * after
                }
                None => left + (right - left) * (at / gap),
            };
        }
        run_start = col;
    }
    true
}

/// The first sample from `from` on that is not finite; most pieces of a line hold none.
fn next_hole(line: &[f32], from: usize) -> Option<usize> {
    const PIECE: usize = 64;
    let holes = |piece: &[f32]| piece.iter().filter(|value| !value.is_finite()).count();
    let start = (from..line.len())
        .step_by(PIECE)
        .find(|&start| holes(&line[start..(start + PIECE).min(line.len())]) > 0)?;
    let within = line[start..].iter().position(|value| !value.is_finite())?;
    Some(start + within)
}

/// Fills the lost lines of `sinogram` `[angle, col]` from the nearest good angles, and returns how many were lost.
///
/// A lost line is one that [`fill_line`] could not fill: all of its samples are not finite.
pub(super) fn fill_lost_lines(sinogram: &mut [f32], n_cols: usize) -> usize {
    let lost: Vec<bool> = sinogram
        .chunks_exact(n_cols)
        .map(|line| !line[0].is_finite())
        .collect();
    let n_lost = lost.iter().filter(|&&lost| lost).count();
    if n_lost == lost.len() {
        sinogram.fill(1.0);
        return n_lost;
    }
    for angle in (0..lost.len()).filter(|&angle| lost[angle]) {
        let before = lost[..angle].iter().rposition(|&lost| !lost);
        let after = lost[angle..]
            .iter()
            .position(|&lost| !lost)
            .map(|step| angle + step);
        for col in 0..n_cols {
            let at = |angle: usize| sinogram[angle * n_cols + col];
            sinogram[angle * n_cols + col] = match (before, after) {
                (Some(a), Some(b)) => {
                    at(a) + (at(b) - at(a)) * ((angle - a) as f32 / (b - a) as f32)
                }
                (Some(a), None) => at(a),
                (None, Some(b)) => at(b),
                (None, None) => 1.0,
            };
        }
    }
    n_lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_bridged_linearly_and_edges_take_the_nearest_good_column() {
        let mut line = [f32::NAN, 1.0, f32::NAN, f32::INFINITY, 4.0, 5.0, f32::NAN];
        assert!(fill_line(&mut line, false));
        assert_eq!(line, [1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0]);
    }

    #[test]
    fn short_gaps_follow_a_cubic_and_wide_ones_a_straight_line() {
        let cubic = |x: usize| {
            let x = x as f32 - 4.0;
            0.02 * x * x * x - 0.1 * x * x + 0.3 * x + 1.0
        };
        for gap in 1..=4 {
            let mut line: Vec<f32> = (0..12).map(cubic).collect();
            line[4..4 + gap].fill(f32::NAN);
            assert!(fill_line(&mut line, true));
            let worst = (0..12)
                .map(|x| (line[x] - cubic(x)).abs())
                .fold(0.0, f32::max);
            // weights below 2 and eight roundings of values below 8; a straight line is off by 0.05 and more
            assert_eq!(
                worst < 16.0 * 8.0 * f32::EPSILON,
                gap <= 3,
                "{gap}: {worst}"
            );
        }
    }

    #[test]
    fn a_line_without_good_columns_is_reported_and_left() {
        let mut line = [f32::NAN; 3];
        assert!(!fill_line(&mut line, false) && line.iter().all(|v| v.is_nan()));
        assert!(!fill_line(&mut [], true));
    }

    #[test]
    fn lost_lines_come_from_their_neighbours_in_angle() {
        let nan = f32::NAN;
        let mut sinogram = [nan, nan, 1.0, 2.0, nan, nan, nan, nan, 4.0, 8.0, nan, nan];
        assert_eq!(fill_lost_lines(&mut sinogram, 2), 4);
        assert_eq!(
            sinogram,
            [1.0, 2.0, 1.0, 2.0, 2.0, 4.0, 3.0, 6.0, 4.0, 8.0, 4.0, 8.0]
        );
        let mut nothing = [nan; 4];
        assert_eq!((fill_lost_lines(&mut nothing, 2), nothing), (2, [1.0; 4]));
    }
}
