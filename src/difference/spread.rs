//! Middle and width of a distribution of which a part is something else: noise with changed voxels in it.

use crate::stats::middle;

/// Bins of the histogram on each side of zero.
const HALF: usize = 4096;
/// Bins per guessed standard deviation.
const PER_SIGMA: f64 = 64.0;
/// Values further off than this many standard deviations are left out.
const CLIP: f64 = 3.0;
/// Median of |z| of a normal distribution cut at [`CLIP`]: the t with P(|z| < t) = P(|z| < 3) / 2.
const CLIPPED_MEDIAN: f64 = 0.672_367_3;
/// Median of |z| of a normal distribution.
const MEDIAN: f64 = 0.674_489_8;

/// Result of [`spread`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Spread {
    /// Median.
    pub(super) center: f64,
    /// Standard deviation of the normal distribution that fits the middle; 0: more than half of the values are equal.
    pub(super) sigma: f64,
    /// Values counted.
    pub(super) count: u64,
}

impl Spread {
    /// A value in units of the standard deviation, from the middle.
    pub(super) fn relative(&self, value: f32) -> f32 {
        ((f64::from(value) - self.center) / self.sigma) as f32
    }
}

/// Median and standard deviation of what is normal in `values`.
///
/// The median absolute deviation gives a first sigma; then median and deviation are taken again from the values within
/// 3 sigma, corrected for the cut, until they settle. Values further off (changed voxels) then have no influence, where
/// the plain deviation would grow by 31 % when a fifth of the voxels has changed to one side. All quantiles are taken from a
/// histogram of 1/64 of a sigma, so the order of the values does not matter.
///
/// `guess` is a first sigma; 0: taken from the values. NaN is skipped.
pub(super) fn spread<I: Iterator<Item = f32>>(values: impl Fn() -> I, guess: f64) -> Spread {
    let mut guess = if guess > 0.0 {
        guess
    } else {
        first_guess(values())
    };
    let mut found = Spread::default();
    for _ in 0..4 {
        if guess <= 0.0 || !guess.is_finite() {
            let mut finite: Vec<f32> = values().filter(|value| value.is_finite()).collect();
            let center = f64::from(median(&mut finite));
            return Spread {
                center,
                sigma: 0.0,
                count: finite.len() as u64,
            };
        }
        found = Histogram::of(values(), guess).spread();
        // too coarse, or the tails are cut off: once more with what was found
        if found.sigma < guess / 8.0 || found.sigma > guess * 10.0 {
            guess = first_guess(values());
        } else {
            break;
        }
    }
    found
}

/// Plain scaled median absolute deviation of at most about 20 000 of the values.
fn first_guess(values: impl Iterator<Item = f32>) -> f64 {
    let mut kept = Vec::new();
    let mut step = 1;
    for (index, value) in values.filter(|value| value.is_finite()).enumerate() {
        if index % step == 0 {
            kept.push(value);
        }
        if kept.len() > 20_000 {
            kept = kept.into_iter().step_by(2).collect();
            step *= 2;
        }
    }
    let center = median(&mut kept);
    kept.iter_mut()
        .for_each(|value| *value = (*value - center).abs());
    f64::from(median(&mut kept)) / MEDIAN
}

/// Middle value; of an even number of values the upper one. 0 of none.
pub(super) fn median(values: &mut [f32]) -> f32 {
    middle(values, f32::total_cmp).unwrap_or(0.0)
}

struct Histogram {
    width: f64,
    /// `below[i]`: values below the lower edge of bin i.
    below: Vec<u64>,
}

impl Histogram {
    fn of(values: impl Iterator<Item = f32>, sigma: f64) -> Histogram {
        let width = sigma / PER_SIGMA;
        let scale = (1.0 / width) as f32;
        let mut below = vec![0u64; 2 * HALF + 1];
        let (low, high) = (-(HALF as f32), HALF as f32 - 1.0);
        for value in values {
            if !value.is_nan() {
                let bin = (value * scale).floor().clamp(low, high) as i32 + HALF as i32;
                below[bin as usize + 1] += 1;
            }
        }
        let mut sum = 0;
        for count in &mut below {
            sum += *count;
            *count = sum;
        }
        Histogram { width, below }
    }

    fn count(&self) -> u64 {
        self.below[2 * HALF]
    }

    /// Values below `value`, taken as even within a bin.
    fn below(&self, value: f64) -> f64 {
        let place = (value / self.width + HALF as f64).clamp(0.0, 2.0 * HALF as f64);
        let bin = (place as usize).min(2 * HALF - 1);
        let (low, high) = (self.below[bin] as f64, self.below[bin + 1] as f64);
        low + (place - bin as f64) * (high - low)
    }

    /// The value below which `rank` values lie.
    fn value(&self, rank: f64) -> f64 {
        let bin = self
            .below
            .partition_point(|&below| below as f64 <= rank)
            .clamp(1, 2 * HALF)
            - 1;
        let (low, high) = (self.below[bin] as f64, self.below[bin + 1] as f64);
        let within = if high > low {
            ((rank - low) / (high - low)).clamp(0.0, 1.0)
        } else {
            0.5
        };
        (bin as f64 + within - HALF as f64) * self.width
    }

    /// Median, and median absolute deviation from it, of the values between `low` and `high`.
    fn middle(&self, low: f64, high: f64) -> (f64, f64) {
        let (first, last) = (self.below(low), self.below(high));
        let center = self.value((first + last) / 2.0);
        let half = (last - first) / 2.0;
        let (mut near, mut far) = (0.0, 2.0 * HALF as f64 * self.width);
        for _ in 0..50 {
            let t = (near + far) / 2.0;
            let within = self.below((center + t).min(high)) - self.below((center - t).max(low));
            if within < half { near = t } else { far = t }
        }
        (center, far)
    }

    fn spread(&self) -> Spread {
        let count = self.count();
        if count == 0 {
            return Spread::default();
        }
        let edge = HALF as f64 * self.width;
        let (mut center, deviation) = self.middle(-edge, edge);
        let mut sigma = deviation / MEDIAN;
        for _ in 0..30 {
            let (next_center, deviation) =
                self.middle(center - CLIP * sigma, center + CLIP * sigma);
            let next = deviation / CLIPPED_MEDIAN;
            let settled = (next - sigma).abs() < 1e-5 * sigma;
            (center, sigma) = (next_center, next);
            if settled {
                break;
            }
        }
        Spread {
            center,
            sigma,
            count,
        }
    }
}

/// P(z > `x`) of the normal distribution, relative error below 1e-10.
///
/// Below 2 the series erf(t) = 2 exp(-t^2)/sqrt(pi) sum 2^n t^(2n+1)/(2n+1)!! (Abramowitz and Stegun 7.1.6); above, the
/// continued fraction of Mills' ratio 1/(x + 1/(x + 2/(x + 3/...))) (26.2.14).
pub(super) fn upper_tail(x: f64) -> f64 {
    if x < 0.0 {
        return 1.0 - upper_tail(-x);
    }
    let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if x < 2.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..60 {
            term *= x * x / (2 * n + 1) as f64;
            sum += term;
        }
        return 0.5 - density * sum;
    }
    let mut fraction = x;
    for n in (1..200).rev() {
        fraction = x + f64::from(n) / fraction;
    }
    density / fraction
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, Normal};

    fn normal(seed: u64, count: usize, sigma: f64) -> Vec<f32> {
        let mut random = rand_pcg::Pcg64Mcg::new(u128::from(seed) * 2 + 1);
        let normal = Normal::new(0.0, sigma).unwrap();
        (0..count)
            .map(|_| normal.sample(&mut random) as f32)
            .collect()
    }

    #[test]
    fn the_tail_has_the_tabulated_values() {
        // scipy.stats.norm.sf
        for (x, expected) in [
            (0.0, 0.5),
            (1.0, 0.158_655_253_931_457_05),
            (1.999, 0.02280417693265888),
            (2.0, 0.022_750_131_948_179_195),
            (3.0, 1.349_898_031_630_094_6e-3),
            (5.0, 2.866_515_718_791_933e-7),
            (8.0, 6.220_960_574_271_74e-16),
        ] {
            assert!(
                (upper_tail(x) / expected - 1.0).abs() < 1e-7,
                "{x}: {}",
                upper_tail(x)
            );
        }
        assert!((upper_tail(-1.0) - 0.841_344_746_068_542_9).abs() < 1e-12);
        // the constants of this file
        assert!((1.0 - 2.0 * upper_tail(MEDIAN) - 0.5).abs() < 1e-6);
        assert!((1.0 - 2.0 * upper_tail(CLIPPED_MEDIAN) - (0.5 - upper_tail(CLIP))).abs() < 1e-6);
    }

    #[test]
    fn a_normal_distribution_has_its_own_sigma() {
        // the scatter of a deviation from the median is 1.17 sigma / sqrt(n): 0.0037 at 1e5; five times that is allowed
        for (seed, sigma, guess) in [(1, 1.0, 0.0), (2, 1e-4, 1.0), (3, 1e4, 1.0), (4, 0.3, 0.3)] {
            let values = normal(seed, 100_000, sigma);
            let found = spread(|| values.iter().copied(), guess);
            assert!((found.sigma / sigma - 1.0).abs() < 0.0185, "{found:?}");
            assert!(found.center.abs() < 0.02 * sigma && found.count == 100_000);
        }
    }

    #[test]
    fn a_fifth_of_changed_voxels_does_not_widen_it() {
        let mut values = normal(5, 100_000, 1.0);
        values[..20_000].iter_mut().for_each(|value| *value += 12.0);
        let found = spread(|| values.iter().copied(), 0.0);
        assert!((found.sigma - 1.0).abs() < 0.02, "{found:?}");
        assert!(found.center.abs() < 0.03);
        let center = median(&mut values.clone());
        let mut off: Vec<f32> = values.iter().map(|value| (value - center).abs()).collect();
        assert!(
            f64::from(median(&mut off)) / MEDIAN > 1.25,
            "the plain deviation would not have passed"
        );
    }

    #[test]
    fn degenerate_values_are_survived() {
        assert_eq!(spread(std::iter::empty, 0.0), Spread::default());
        assert_eq!(spread(|| [f32::NAN; 3].into_iter(), 1.0).count, 0);
        let found = spread(|| [2.5f32; 100].into_iter(), 0.0);
        assert_eq!((found.center, found.sigma), (2.5, 0.0));
    }
}
