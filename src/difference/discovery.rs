//! The threshold that keeps the share of false voxels among the changed ones at a stated rate.
//!
//! Benjamini and Hochberg (1995), J. R. Stat. Soc. B 57:289: of N voxels with significance `z = |d| / sigma`, all beyond
//! t count where `N p(t) <= rate * n(t)`, n(t) being the number beyond t and p(t) the chance of one unchanged voxel to lie there; the
//! smallest such t is taken. The voxels are counted in a histogram, so nothing has to be sorted or held.
//!
//! p is that of a normal distribution or, where it is larger, the share of voxels of the null difference beyond t: tails that
//! are heavier than normal are then paid for.

/// Bins per sigma.
const PER_SIGMA: f64 = 50.0;
/// Bins; what lies beyond counts in the last one.
const BINS: usize = 1000;

/// Voxels by their significance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Significance {
    counts: Vec<u64>,
}

impl Significance {
    pub(super) fn new() -> Significance {
        Significance {
            counts: vec![0; BINS],
        }
    }

    /// Counts a voxel; NaN is left out.
    pub(super) fn add(&mut self, z: f64) {
        if !z.is_nan() {
            self.counts[((z.abs() * PER_SIGMA) as usize).min(BINS - 1)] += 1;
        }
    }

    pub(super) fn merge(&mut self, other: &Significance) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The threshold in sigma for `rate`; where no voxel can be told from noise, one that noise alone exceeds with the chance
    /// `rate` in all voxels together.
    pub(super) fn threshold(&self, rate: f64, null: &Significance) -> f64 {
        let total = self.total().max(1) as f64;
        let null_total = null.total().max(1) as f64;
        let (mut beyond, mut null_beyond) = (0u64, 0u64);
        let mut best = None;
        for bin in (1..BINS).rev() {
            beyond += self.counts[bin];
            null_beyond += null.counts[bin];
            let t = bin as f64 / PER_SIGMA;
            let chance = two_sided(t).max(null_beyond as f64 / null_total);
            if beyond > 0 && total * chance <= rate * beyond as f64 {
                best = Some(t);
            }
        }
        best.unwrap_or_else(|| {
            (1..BINS)
                .map(|bin| bin as f64 / PER_SIGMA)
                .find(|&t| total * two_sided(t) <= rate)
                .unwrap_or(BINS as f64 / PER_SIGMA)
        })
    }
}

fn two_sided(t: f64) -> f64 {
    2.0 * super::spread::upper_tail(t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, StandardNormal};

    fn sample(seed: u128, n: usize, shifted: usize, by: f64) -> (Vec<f64>, Significance) {
        let mut random = rand_pcg::Pcg64Mcg::new(seed);
        let mut all = Significance::new();
        let values: Vec<f64> = (0..n)
            .map(|k| {
                let z: f64 = StandardNormal.sample(&mut random);
                if k < shifted { z + by } else { z }
            })
            .collect();
        values.iter().for_each(|&z| all.add(z));
        (values, all)
    }

    #[test]
    fn the_histogram_gives_the_threshold_of_the_sorted_list() {
        for (by, rate) in [(4.0, 0.01), (3.0, 0.05), (6.0, 0.001)] {
            let (values, all) = sample(3, 200_000, 4000, by);
            let t = all.threshold(rate, &Significance::new());
            // the definition: the largest k with p_(k) <= rate k / N
            let mut sizes: Vec<f64> = values.iter().map(|z| z.abs()).collect();
            sizes.sort_by(|a, b| b.total_cmp(a));
            let exact = sizes
                .iter()
                .enumerate()
                .rev()
                .find(|(k, z)| two_sided(**z) <= rate * (*k + 1) as f64 / 200_000.0)
                .map(|(_, z)| *z)
                .unwrap();
            assert!((t - exact).abs() < 2.0 / PER_SIGMA, "{t} {exact}");
            // and what it promises: the share of unchanged voxels among those beyond it
            let beyond = values.iter().filter(|z| z.abs() > t).count() as f64;
            let false_ones = values[4000..].iter().filter(|z| z.abs() > t).count() as f64;
            let expected = rate * beyond;
            assert!(
                (false_ones - expected).abs() < 4.0 * expected.sqrt() + 0.1 * expected,
                "{false_ones} of {beyond} at {rate}"
            );
        }
    }

    #[test]
    fn noise_alone_and_heavy_tails_raise_it() {
        let (_, noise) = sample(5, 100_000, 0, 0.0);
        let t = noise.threshold(0.01, &Significance::new());
        assert!(t > 4.5 && two_sided(t) * 1e5 <= 0.011, "{t}");
        let (_, all) = sample(7, 100_000, 2000, 4.0);
        let mut heavy = Significance::new();
        for k in 0..100_000 {
            heavy.add(if k < 100 { 4.2 } else { 0.5 });
        }
        let (plain, paid) = (
            all.threshold(0.01, &Significance::new()),
            all.threshold(0.01, &heavy),
        );
        assert!(paid >= 4.2 && plain < 4.0, "{plain} {paid}");
    }
}
