//! How sure an alignment is, 0 (chance) to 1 (certain).
//!
//! The correlation coefficient of the aligned volumes stands against two rivals: what such volumes reach by chance,
//! measured as the root mean square over all other shifts (whatever the search was), and the best other position
//! within the search, which is high for repeating structure. The third part is the uncertainty of the shift itself.
//! Layers and what goes through all heights are left out of the first two: the stack of a cell and its tube agree with those of any
//! other cell of its kind, wherever it stands, and would be taken for what volumes have in common by chance.

use super::correlation::{CorrelationMap, Correlator, Texture, shifts};
use super::motion::RigidMotion;

/// Standard deviations above chance at which confidence leaves 0 and reaches 1. The largest of ten thousand normal
/// values is near 4, so the best of a blind search is there by chance.
const CHANCE: [f64; 2] = [4.0, 8.0];
/// The rival's coefficient, as a share of the peak, at which confidence reaches 0 and leaves 1.
const RIVAL: [f64; 2] = [1.0, 0.75];
/// Standard deviation of a shift \[pilot voxel\] at which confidence leaves 1 and reaches 0.
const ERROR: [f64; 2] = [0.25, 1.0];
/// Part of the reference's own peak that belongs to it: down to this share of the coefficient.
const LOBE: f32 = 0.3;

/// The parts that make up the confidence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confidence {
    /// Correlation coefficient of the aligned volumes (wide structure taken out).
    pub(crate) coefficient: f64,
    /// Root mean square of the coefficient at other shifts.
    pub(crate) chance: f64,
    /// Largest coefficient at another shift within the search.
    pub(crate) rival: f64,
    /// The result.
    pub(crate) value: f64,
}

/// Judges `motion`; `search` \[level voxel\] and `errors` \[pilot voxel\] are `[x, y, z]`.
pub(crate) fn judge(
    texture: &Texture,
    motion: &RigidMotion,
    search: [i32; 3],
    errors: [f64; 3],
) -> Confidence {
    let texture = &texture.without_layers();
    let shape = texture.frame.shape;
    let reach = [shape[2] / 2, shape[1] / 2, shape[0] / 2];
    let engine = Correlator::new(shape, reach);
    let reference = texture.transform_reference(&engine);
    let own = texture.correlate_with_itself(&engine, &reference);
    let lobe = lobe(&own);
    let (target, mask) = texture.unchanged(motion);
    let map = engine.map(&reference, &target, &mask);
    let coefficient = texture.coefficient_with(&target, &mask);
    let (mut power, mut n, mut rival) = (0.0, 0usize, 0f64);
    for shift in shifts(map.reach) {
        let value = f64::from(map.at(shift));
        let distance: f64 = (0..3)
            .map(|a| (f64::from(shift[a]) / f64::from(lobe[a])).powi(2))
            .sum();
        if !value.is_finite() || distance <= 1.0 {
            continue;
        }
        power += value * value;
        n += 1;
        // the shift of this map is on top of the motion found
        let total =
            [0, 1, 2].map(|a| f64::from(shift[a]) + motion.shift[a] / texture.frame.factor[a]);
        if (0..3).all(|a| total[a].abs() <= f64::from(search[a])) {
            rival = rival.max(value);
        }
    }
    let chance = if n > 0 {
        (power / n as f64).sqrt()
    } else {
        1.0
    };
    // Fisher's z: normal with standard deviation 1 / sqrt(n - 3) by chance, n = 1 / chance^2 independent samples
    let independent = (chance.max(1e-3).powi(-2) - 3.0).max(0.0);
    let by_chance = ramp(
        coefficient.clamp(0.0, 0.999).atanh() * independent.sqrt(),
        CHANCE,
    );
    let by_rival = if coefficient > 0.0 {
        ramp(rival / coefficient, RIVAL)
    } else {
        0.0
    };
    let worst = errors.into_iter().fold(0.0, f64::max);
    let by_error = ramp(worst, [ERROR[1], ERROR[0]]);
    // a tenth of the pattern in common is not the same sample, whatever the statistics say
    let by_size = ramp(coefficient, [0.05, 0.2]);
    Confidence {
        coefficient,
        chance,
        rival,
        value: by_chance.min(by_rival).min(by_size) * by_error,
    }
}

/// 0 at `ends[0]`, 1 at `ends[1]`, straight between, whichever is larger.
fn ramp(value: f64, ends: [f64; 2]) -> f64 {
    if value.is_finite() {
        ((value - ends[0]) / (ends[1] - ends[0])).clamp(0.0, 1.0)
    } else if ends[1] > ends[0] {
        1.0
    } else {
        0.0
    }
}

/// Half axes `[x, y, z]` of the ellipsoid around the peak that belongs to the peak.
fn lobe(own: &CorrelationMap) -> [i32; 3] {
    [0, 1, 2].map(|axis| {
        let width = (1..=own.reach[axis])
            .find(|&k| {
                let mut shift = [0; 3];
                shift[axis] = k;
                let value = own.at(shift);
                value.is_nan() || value < LOBE
            })
            .unwrap_or(own.reach[axis]);
        (2 * width).max(3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramps_run_both_ways() {
        assert_eq!(ramp(6.0, [4.0, 8.0]), 0.5);
        assert_eq!(ramp(0.2, [1.0, 0.75]), 1.0);
        assert_eq!(ramp(2.0, [1.0, 0.25]), 0.0);
        assert_eq!(ramp(f64::INFINITY, [1.0, 0.25]), 0.0);
    }
}
