//! Samples without a usable value: filled along the detector, or along the angle where a whole line is lost.
//!
//! One rule for pixels without signal and for samples that are not finite: linear between the nearest good columns of
//! the same line, the nearest good column beyond the outermost ones. A line without any good column is taken
//! linearly from the nearest good angles of its sinogram; a sinogram without any good line is open beam
//! (transmission 1), because a detector row outside the beam knows nothing and must not spoil a slice with NaN.

/// Fills every sample of `line` that is not finite from its good neighbours; false when there is no good one.
pub(super) fn fill_line(line: &mut [f32]) -> bool {
    let good = |value: &f32| value.is_finite();
    let Some(first) = line.iter().position(good) else {
        return false;
    };
    let edge = line[first];
    line[..first].fill(edge);
    let mut last_good = first;
    let mut col = first + 1;
    while col < line.len() {
        if line[col].is_finite() {
            let (left, right) = (line[last_good], line[col]);
            let gap = (col - last_good) as f32;
            for step in 1..col - last_good {
                line[last_good + step] = left + (right - left) * (step as f32 / gap);
            }
            last_good = col;
        }
        col += 1;
    }
    let edge = line[last_good];
    line[last_good + 1..].fill(edge);
    true
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
        assert!(fill_line(&mut line));
        assert_eq!(line, [1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0]);
    }

    #[test]
    fn a_line_without_good_columns_is_reported_and_left() {
        let mut line = [f32::NAN; 3];
        assert!(!fill_line(&mut line) && line.iter().all(|v| v.is_nan()));
        assert!(!fill_line(&mut []));
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
