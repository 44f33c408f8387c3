//! Small to medium stripes by sorting the low frequencies only (algorithm 2 of Vo et al. 2018).

use rustfft::num_complex::Complex32;

use super::columns::{Columns, SortedColumns};
use super::fourier::{LowPass, padding};
use super::median::{Tile, across_columns};

/// Parameters of algorithm 2.
#[derive(Debug, Clone, Copy)]
pub struct Filtering {
    /// Sigma of the low-pass along the angle \[Fourier samples of the padded column\].
    pub sigma: f64,
    /// Median window \[px\].
    pub size: usize,
}

impl Filtering {
    /// Splits every column into a low and a high part, removes the stripes of the low part by sorting, and adds
    /// the high part again. Columns are extended by their mirror image (edge sample not repeated) for the split.
    pub(super) fn apply(
        &self,
        columns: &mut Columns,
        low: &mut Columns,
        sorted: &mut SortedColumns,
        tile: &mut Tile,
    ) {
        low_pass(columns, self.sigma, low);
        for (high, low) in columns.iter_mut().zip(low.iter()) {
            high.iter_mut()
                .zip(low)
                .for_each(|(high, &low)| *high -= low);
        }
        sorted.sort(low);
        across_columns(&sorted.values, self.size, low, tile);
        let corrected = sorted.unsort_in_place(low);
        for (column, low) in columns.iter_mut().zip(corrected.iter()) {
            column
                .iter_mut()
                .zip(low)
                .for_each(|(value, &low)| *value += low);
        }
    }
}

/// Low part of every column.
pub(super) fn low_pass(columns: &Columns, sigma: f64, low: &mut Columns) {
    let (n_cols, n_angles) = (columns.n_cols(), columns.n_angles());
    low.reshape(n_cols, n_angles);
    let pad = padding(n_angles);
    let mut filter = LowPass::two_real(n_angles + 2 * pad, sigma);
    let mut line = Vec::with_capacity(n_angles + 2 * pad);
    for first in (0..n_cols).step_by(2) {
        // the last of an odd number of columns travels with itself
        let second = (first + 1).min(n_cols - 1);
        let (a, b) = (columns.column(first), columns.column(second));
        let at = |angle: usize| Complex32::new(a[angle], b[angle]);
        line.clear();
        line.extend((1..=pad).rev().map(at));
        line.extend((0..n_angles).map(at));
        line.extend((n_angles - 1 - pad..n_angles - 1).rev().map(at));
        filter.apply(&mut line);
        let inner = &line[pad..pad + n_angles];
        low.column_mut(first)
            .iter_mut()
            .zip(inner)
            .for_each(|(low, value)| *low = value.re);
        low.column_mut(second)
            .iter_mut()
            .zip(inner)
            .for_each(|(low, value)| *low = if second == first { value.re } else { value.im });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correct::goldens::{Golden, worst};

    #[test]
    fn the_low_part_agrees_with_algotom_for_odd_and_even_lengths() {
        for (index, sigma) in [3.0, 10.0].into_iter().enumerate() {
            for set in ["a", "b"] {
                let Some(golden) = Golden::read("in_soft", &format!("util_lowpass_{index}"), set)
                else {
                    return;
                };
                let (mut columns, mut low) = (Columns::default(), Columns::default());
                columns.read(&golden.input, golden.n_cols);
                let mut check = |sigma| {
                    low_pass(&columns, sigma, &mut low);
                    let mut found = vec![f32::NAN; golden.input.len()];
                    low.write(&mut found);
                    worst(&found, &golden.expected)
                };
                // f32 FFTs of about 200 samples: a few rounding errors of the peak, log2(200) stages each way
                assert!(
                    check(sigma) < 16.0 * f32::EPSILON * golden.peak(),
                    "{index} {set}"
                );
                assert!(check(sigma * 1.05) > 1e-4, "the check is blind");
            }
        }
    }
}
