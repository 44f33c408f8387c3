//! Large stripes (algorithm 5 of Vo et al. 2018, with the detection of algorithm 4).

use std::ops::Range;

use super::columns::{Columns, SortedColumns};
use super::detect::{detect, dilate};
use super::median::{Tile, across_columns};

/// Parameters of algorithm 5.
#[derive(Debug, Clone, Copy)]
pub struct Large {
    /// Ratio that separates a stripe from its neighbours.
    pub snr: f64,
    /// Median window \[px\].
    pub size: usize,
    /// Share of the sorted samples left out at both ends together.
    pub drop_ratio: f64,
    /// Divide every column by its factor, flagged or not.
    pub normalize: bool,
}

/// What algorithm 5 knows about the columns.
pub(super) struct Factors {
    /// Mean of the sorted column over the mean of its smooth version.
    pub(super) factors: Vec<f64>,
    /// Columns taken as stripes, one neighbour on each side included.
    pub(super) flagged: Vec<bool>,
}

impl Large {
    /// Ranks of `n` sorted samples that say something of their column.
    pub(super) fn kept(&self, n: usize) -> Range<usize> {
        let drop = (0.5 * self.drop_ratio * n as f64) as usize;
        drop.min(n)..n.saturating_sub(drop).max(drop.min(n))
    }

    /// Factors and flags from sorted columns and their smooth version, both `[col, rank]`.
    pub(super) fn factors(&self, sorted: &Columns, smooth: &Columns) -> Factors {
        let kept = self.kept(sorted.n_angles());
        let sum = |column: &[f32]| sum(&column[kept.clone()]);
        let ratio = |(sorted, smooth): (&[f32], &[f32])| {
            let below = sum(smooth);
            if below == 0.0 {
                1.0
            } else {
                sum(sorted) / below
            }
        };
        let factors: Vec<f64> = sorted.iter().zip(smooth.iter()).map(ratio).collect();
        let flagged = dilate(&detect(&factors, self.snr));
        Factors { factors, flagged }
    }

    /// Turns `sorted` into the sorted columns of the corrected sinogram, and returns how many columns were replaced.
    ///
    /// The permutation stays valid: dividing by a positive factor keeps the order, and a replaced column is a median of
    /// ascending columns, hence ascending. So nothing has to be sorted again.
    pub(super) fn apply(
        &self,
        sorted: &mut SortedColumns,
        smooth: &mut Columns,
        tile: &mut Tile,
    ) -> u64 {
        across_columns(&sorted.values, self.size, smooth, tile);
        let Factors { factors, flagged } = self.factors(&sorted.values, smooth);
        for (col, column) in sorted.values.iter_mut().enumerate() {
            if flagged[col] {
                column.copy_from_slice(smooth.column(col));
            } else if self.normalize {
                divide(column, factors[col]);
            }
        }
        flagged.iter().filter(|&&flag| flag).count() as u64
    }
}

/// Divides a column by its factor; a factor that is not positive or not finite means nothing and is left out.
pub(super) fn divide(column: &mut [f32], factor: f64) {
    let factor = factor as f32;
    if factor > 0.0 && factor.is_finite() {
        column.iter_mut().for_each(|value| *value /= factor);
    }
}

/// Sum in f64, in eight interleaved parts that need not wait for each other.
fn sum(values: &[f32]) -> f64 {
    let mut parts = [0f64; 8];
    let (whole, rest) = values.as_chunks::<8>();
    for eight in whole {
        parts
            .iter_mut()
            .zip(eight)
            .for_each(|(part, &value)| *part += f64::from(value));
    }
    let rest: f64 = rest.iter().map(|&value| f64::from(value)).sum();
    parts.iter().sum::<f64>() + rest
}
