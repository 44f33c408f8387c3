//! Detection of stripes on one number per column (algorithm 4 of Vo et al. 2018).

/// Columns whose factor stands out of the straight line through the sorted factors.
///
/// The line is fitted to the middle half of the sorted factors; it gives the lowest and highest factor, y0 and y1, that a
/// detector without stripes would have, and their distance is the noise. Where the largest factor lies `snr` times the
/// noise above y1, columns above `y1 + snr / 2 * noise` are flagged; likewise below y0.
///
/// The noise is taken as at least 1e-6 (as TomoPy does; Algotom refuses such rows), so that noise-free rows pass.
/// Fewer than 8 columns, or factors that are not finite, flag nothing.
pub(super) fn detect(factors: &[f64], snr: f64) -> Vec<bool> {
    let n = factors.len();
    if n < 8 || factors.iter().any(|factor| !factor.is_finite()) {
        return vec![false; n];
    }
    let mut sorted = factors.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (intercept, slope) = line_through(&sorted, n / 4, n - n / 4 - 1);
    let (low, high) = (intercept, intercept + slope * (n - 1) as f64);
    let noise = (high - low).abs().max(1e-6);
    let bright = (sorted[n - 1] - high).abs() / noise >= snr;
    let dark = (low - sorted[0]).abs() / noise >= snr;
    let margin = 0.5 * snr * noise;
    factors
        .iter()
        .map(|&r| (bright && r > high + margin) || (dark && r <= low - margin))
        .collect()
}

/// Least-squares `(intercept, slope)` of `values[first..end]` against their index.
fn line_through(values: &[f64], first: usize, end: usize) -> (f64, f64) {
    let n = (end - first) as f64;
    let mean_x = (first + end - 1) as f64 / 2.0;
    let mean_y = values[first..end].iter().sum::<f64>() / n;
    let (mut xy, mut xx) = (0.0, 0.0);
    for (index, value) in values.iter().enumerate().take(end).skip(first) {
        let x = index as f64 - mean_x;
        xy += x * (value - mean_y);
        xx += x * x;
    }
    let slope = if xx > 0.0 { xy / xx } else { 0.0 };
    (mean_y - slope * mean_x, slope)
}

/// Flags the neighbours of flagged columns as well.
pub(super) fn dilate(flagged: &[bool]) -> Vec<bool> {
    let at = |col: Option<usize>| {
        col.and_then(|col| flagged.get(col))
            .is_some_and(|&flag| flag)
    };
    (0..flagged.len())
        .map(|col| at(col.checked_sub(1)) || at(Some(col)) || at(Some(col + 1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correct::goldens::{Golden, worst};

    #[test]
    fn the_line_passes_through_exact_points() {
        let values: Vec<f64> = (0..20).map(|i| 3.0 - 0.25 * f64::from(i)).collect();
        let (intercept, slope) = line_through(&values, 5, 14);
        assert!((intercept - 3.0).abs() < 1e-12 && (slope + 0.25).abs() < 1e-12);
    }

    #[test]
    fn outliers_on_both_sides_are_flagged_and_only_they() {
        let mut factors: Vec<f64> = (0..100)
            .map(|i| 1.0 + 0.001 * f64::from((i * 37) % 100))
            .collect();
        factors[20] = 2.0;
        factors[70] = 0.1;
        let flagged = detect(&factors, 3.0);
        let found: Vec<usize> = (0..100).filter(|&col| flagged[col]).collect();
        assert_eq!(found, [20, 70]);
        assert_eq!((0..100).filter(|&col| dilate(&flagged)[col]).count(), 6);
        assert!(
            detect(&[1.0; 100], 3.0).iter().all(|&flag| !flag),
            "noise-free factors flag nothing"
        );
        assert!(
            detect(&[f64::NAN; 100], 3.0)
                .iter()
                .chain(&detect(&[], 3.0))
                .all(|&flag| !flag)
        );
    }

    #[test]
    fn detection_agrees_with_algotom_in_every_column() {
        for (index, snr) in [3.0, 2.0, 1.2].into_iter().enumerate() {
            for set in ["a", "b"] {
                let Some(golden) = Golden::read("in_profile", &format!("util_detect_{index}"), set)
                else {
                    return;
                };
                let factors: Vec<f64> = golden.input.iter().map(|&v| f64::from(v)).collect();
                let found = |snr| {
                    detect(&factors, snr)
                        .iter()
                        .map(|&flag| f32::from(u8::from(flag)))
                        .collect::<Vec<_>>()
                };
                assert_eq!(worst(&found(snr), &golden.expected), 0.0, "{index} {set}");
                assert!(
                    worst(&found(snr * 6.0), &golden.expected) > 0.0,
                    "the check is blind"
                );
            }
        }
    }
}
