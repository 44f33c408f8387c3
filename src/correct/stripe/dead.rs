//! Dead and fluctuating stripes (algorithm 6 of Vo et al. 2018).

use super::columns::Columns;
use super::detect::{detect, dilate};
use super::median::{of_line, reflect};

/// Parameters of algorithm 6.
#[derive(Debug, Clone, Copy)]
pub struct Dead {
    /// Ratio that separates a stripe from its neighbours.
    pub snr: f64,
    /// Median window \[px\].
    pub size: usize,
    /// Length of the running mean along the angle \[projections\].
    pub smooth: usize,
}

/// Length of the running mean in the paper and in every package.
pub(super) const SMOOTH: usize = 10;

impl Dead {
    /// Replaces dead and fluctuating columns by straight lines between good ones; returns how many.
    ///
    /// A column's restlessness is the sum of its distances from its own running mean; relative to the median of the
    /// neighbours it is near 0 for a dead column and large for a fluctuating one. The two outermost columns at each edge
    /// are never flagged. Where a third of the columns or more is flagged the rule has failed and nothing is changed.
    pub(super) fn apply(&self, columns: &mut Columns) -> u64 {
        let flagged = self.flags(columns);
        let count = flagged.iter().filter(|&&flag| flag).count();
        if count >= columns.n_cols() / 3 {
            return 0;
        }
        columns.bridge(&flagged);
        count as u64
    }

    fn flags(&self, columns: &Columns) -> Vec<bool> {
        let mut padded = Vec::new();
        let restless: Vec<f64> = columns
            .iter()
            .map(|column| restlessness(column, self.smooth, &mut padded))
            .collect();
        let mut usual = of_line(&restless, self.size);
        let mean = usual.iter().sum::<f64>() / usual.len().max(1) as f64;
        usual
            .iter_mut()
            .filter(|usual| **usual == 0.0)
            .for_each(|usual| *usual = mean);
        let ratio = |(&own, &usual): (&f64, &f64)| if usual > 0.0 { own / usual } else { 1.0 };
        let factors: Vec<f64> = restless.iter().zip(&usual).map(ratio).collect();
        let mut flagged = dilate(&detect(&factors, self.snr));
        let n = flagged.len();
        flagged[..2.min(n)].fill(false);
        flagged[n.saturating_sub(2)..].fill(false);
        flagged
    }
}

/// Sum over the angles of `|value - running mean|`; the mean covers `i - length/2 .. i - length/2 + length`, `reflect`
/// edges. `padded` is scratch. Exactly 0 for a column that is the same at all angles, so that many of them side by side are
/// compared with the rest of the row, not with rounding.
fn restlessness(column: &[f32], length: usize, padded: &mut Vec<f32>) -> f64 {
    let half = (length / 2) as isize;
    let n = column.len() as isize;
    padded.clear();
    padded.extend((-half..0).map(|i| column[reflect(i, column.len())]));
    padded.extend_from_slice(column);
    padded.extend((n..n - half + length as isize - 1).map(|i| column[reflect(i, column.len())]));
    let mut sum: f64 = padded[..length].iter().map(|&v| f64::from(v)).sum();
    let mut total = 0.0;
    let moves = padded[length..].iter().chain(&[0.0]).zip(padded.iter());
    for (&value, (&enters, &leaves)) in column.iter().zip(moves) {
        total += (length as f64 * f64::from(value) - sum).abs();
        // one addition from mean to mean, because each waits for the one before
        sum += f64::from(enters) - f64::from(leaves);
    }
    total / length as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_region_without_signal_is_dead_whatever_its_values() {
        let (n_cols, n_angles) = (240, 50);
        let mut columns = Columns::default();
        let sinogram: Vec<f32> = (0..n_cols * n_angles)
            .map(|i| match i % n_cols {
                100..140 => 0.1 * ((i % n_cols) as f32).sqrt(),
                _ => 0.5 + ((i * i * 31) % 97) as f32 / 1000.0,
            })
            .collect();
        columns.read(&sinogram, n_cols);
        let dead = Dead {
            snr: 3.0,
            size: 21,
            smooth: SMOOTH,
        };
        // and a neighbour on either side
        assert_eq!(dead.apply(&mut columns), 42);
    }

    #[test]
    fn restlessness_equals_the_plain_sum() {
        let column: Vec<f32> = (0..57).map(|i| ((i * i * 31) % 17) as f32 - 5.0).collect();
        for length in [1, 2, 5, 10] {
            let mean = |i: isize| {
                let first = i - (length / 2) as isize;
                (first..first + length as isize)
                    .map(|k| f64::from(column[reflect(k, 57)]))
                    .sum::<f64>()
                    / length as f64
            };
            let expected: f64 = (0..57)
                .map(|i| (f64::from(column[i as usize]) - mean(i)).abs())
                .sum();
            assert!(
                (restlessness(&column, length, &mut vec![1.0]) - expected).abs() < 1e-9,
                "{length}"
            );
            assert!(
                length == 1
                    || (restlessness(&column, length + 1, &mut Vec::new()) - expected).abs() > 1e-3
            );
        }
    }
}
