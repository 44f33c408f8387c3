//! The distribution of the change over a range that is not known beforehand.

use crate::record::HistogramRow;

/// Counts in bins of equal width around 0; when a value lies outside, the bins are doubled in width.
///
/// The width is always the first one times a power of two and the edges are its multiples, so the result depends on the values
/// only, not on their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChangeHistogram {
    width: f64,
    /// Bins `-half..half`.
    counts: Vec<u64>,
}

/// Inner bins per bin that is written.
const FINE: usize = 8;

impl ChangeHistogram {
    /// `bins` rows in the end; `scale` \[unit of the change\] is the finest structure of interest, e.g. sigma.
    pub(super) fn new(bins: usize, scale: f64) -> ChangeHistogram {
        let finest = if scale > 0.0 && scale.is_finite() {
            scale / 64.0
        } else {
            1e-6
        };
        ChangeHistogram {
            width: finest,
            counts: vec![0; bins.div_ceil(2) * 2 * FINE],
        }
    }

    /// Counts values; NaN is skipped, infinite ones too.
    pub(super) fn add(&mut self, values: impl Iterator<Item = f32>) {
        let mut half = (self.counts.len() / 2) as f64;
        for value in values {
            let value = f64::from(value);
            if !value.is_finite() {
                continue;
            }
            let mut bin = (value / self.width).floor();
            while bin < -half || bin >= half {
                self.double();
                half = (self.counts.len() / 2) as f64;
                bin = (value / self.width).floor();
            }
            self.counts[(bin + half) as usize] += 1;
        }
    }

    fn double(&mut self) {
        let half = self.counts.len() / 2;
        let mut counts = vec![0; self.counts.len()];
        for (index, &count) in self.counts.iter().enumerate() {
            let bin = (index as i64 - half as i64).div_euclid(2);
            counts[(bin + half as i64) as usize] += count;
        }
        self.counts = counts;
        self.width *= 2.0;
    }

    /// Adds the counts of another one made with the same arguments.
    pub(super) fn merge(&mut self, mut other: ChangeHistogram) {
        while self.width < other.width {
            self.double();
        }
        while other.width < self.width {
            other.double();
        }
        self.counts
            .iter_mut()
            .zip(other.counts)
            .for_each(|(count, more)| *count += more);
    }

    /// `histogram.csv`: from the most negative to the most positive bin, symmetric around 0.
    pub(super) fn rows(&self) -> Vec<HistogramRow> {
        let half = (self.counts.len() / FINE / 2) as f64;
        let width = self.width * FINE as f64;
        self.counts
            .chunks(FINE)
            .enumerate()
            .map(|(index, counts)| HistogramRow {
                low_per_cm: (index as f64 - half) * width,
                high_per_cm: (index as f64 + 1.0 - half) * width,
                voxels: counts.iter().sum(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bin_whatever_the_order() {
        let values: Vec<f32> = (0..5000)
            .map(|i| ((i * 7919) % 5000) as f32 * 0.01 - 20.0)
            .collect();
        let mut forward = ChangeHistogram::new(40, 1.0);
        forward.add(values.iter().copied().chain([f32::NAN]));
        let (mut a, mut b) = (ChangeHistogram::new(40, 1.0), ChangeHistogram::new(40, 1.0));
        a.add(values[..10].iter().rev().copied());
        b.add(values[10..].iter().rev().copied());
        a.merge(b);
        assert_eq!(a, forward);
        let rows = forward.rows();
        assert_eq!(rows.len(), 40);
        assert_eq!(rows.iter().map(|row| row.voxels).sum::<u64>(), 5000);
        for row in &rows {
            let within = values
                .iter()
                .filter(|&&v| f64::from(v) >= row.low_per_cm && f64::from(v) < row.high_per_cm)
                .count();
            assert_eq!(row.voxels, within as u64, "{row:?}");
        }
        assert!(
            rows[39].high_per_cm >= 30.0
                && rows[39].high_per_cm < 60.0
                && rows[0].low_per_cm == -rows[39].high_per_cm
        );
    }
}
