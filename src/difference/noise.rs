//! The noise of the difference: sigma(z, r), and how far its values hang together.
//!
//! - **sigma(z, r) = s(z) p(r).** s(z) comes from the halves of both scans ([`super::halves`]), linear between the heights where
//!   they were sampled, and from every slice itself, from its unchanged voxels ([`spread`]): by default the larger of the two
//!   counts, since the one knows nothing of rings and misalignment and the other is widened where much changed. p(r), by
//!   how much the noise of a filtered back-projection grows or falls from the axis outwards, is taken from a sample of slices in
//!   rings of equal area; it is used only where it differs from 1 by more than 8 %. Its mean square over the region is 1,
//!   so s(z) is the root mean square noise of a slice.
//! - **Sums.** The noise of a back-projection is correlated: the ramp filter makes neighbours compensate one another, smoothing
//!   makes them agree. The variance of the sum over N voxels is not N sigma^2 but c N sigma^2. c is measured: sums over unchanged
//!   squares of 1, 2, 4, ... voxels give c(side), and sums over several slices c(height). The null difference of the halves knows
//!   the noise of the projections, which falls with the side (the ramp filter takes the low frequencies); the unchanged voxels of the difference
//!   hold rings, streaks and drift too, which add up over many voxels where noise does not. The larger variance counts at every size.

mod sample;

use serde::Serialize;

pub(super) use sample::{NoiseSample, near_change};

use super::region::Region;
use super::spread::{Spread, spread};
use crate::config::NoiseSource;

/// Rings of equal area.
const RINGS: usize = 10;
/// p(r) is used from this ratio of the noisiest to the quietest ring on.
const CLEAR: f64 = 1.08;
/// Slices with fewer voxels take the noise of the sample.
const LEAST_VOXELS: u64 = 200;

/// p(r), looked up by the squared radius.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Profile {
    /// Empty: 1 everywhere.
    table: Vec<f32>,
    per_radius_squared: f64,
}

impl Profile {
    /// The noise is the same everywhere.
    pub(super) const FLAT: Profile = Profile {
        table: Vec::new(),
        per_radius_squared: 0.0,
    };
    const STEPS: usize = 4096;

    /// From the noise in rings of equal area, i.e. at equal steps of the squared radius; linear between their middles.
    fn of_rings(rings: &[f64], region: &Region) -> Profile {
        let largest = region.largest_radius_squared().max(1.0);
        let (low, high) = rings
            .iter()
            .fold((f64::INFINITY, 0f64), |(low, high), &ring| {
                (low.min(ring), high.max(ring))
            });
        if !(low > 0.0 && high / low > CLEAR) {
            return Profile::FLAT;
        }
        let raw = |share: f64| {
            let place = (share * rings.len() as f64 - 0.5).clamp(0.0, rings.len() as f64 - 1.0);
            let (ring, part) = (place as usize, place.fract());
            rings[ring] + part * (rings[(ring + 1).min(rings.len() - 1)] - rings[ring])
        };
        let table: Vec<f64> = (0..=Self::STEPS)
            .map(|step| raw(step as f64 / Self::STEPS as f64))
            .collect();
        let square = table.iter().map(|p| p * p).sum::<f64>() / table.len() as f64;
        Profile {
            table: table.iter().map(|p| (p / square.sqrt()) as f32).collect(),
            per_radius_squared: Self::STEPS as f64 / largest,
        }
    }

    /// Whether it is 1 everywhere.
    pub(super) fn is_flat(&self) -> bool {
        self.table.is_empty()
    }

    /// Relative noise at a squared distance from the middle \[voxel^2\].
    pub(super) fn at(&self, radius_squared: f64) -> f32 {
        let step = (radius_squared * self.per_radius_squared) as usize;
        self.table
            .get(step)
            .or(self.table.last())
            .copied()
            .unwrap_or(1.0)
    }
}

/// Variance of sums, relative to independent voxels.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Correlation {
    /// `[side of a square, c]`, ascending.
    sides: Vec<[f64; 2]>,
    /// `[slices, c]`, ascending.
    heights: Vec<[f64; 2]>,
}

impl Correlation {
    /// c of a compact patch of `area` voxels in a slice.
    pub(super) fn of_area(&self, area: f64) -> f64 {
        interpolate(&self.sides, area.max(1.0).sqrt())
    }
    /// The larger variance of two sources at every size, relative to independent voxels of noise 1; `own` and `others` are the noise
    /// of the voxels of the two.
    fn larger(&self, own: f64, other: &Correlation, others: f64) -> Correlation {
        let join = |a: &[[f64; 2]], b: &[[f64; 2]], scales: [f64; 2]| {
            let mut sizes: Vec<f64> = a.iter().chain(b).map(|point| point[0]).collect();
            sizes.sort_by(f64::total_cmp);
            sizes.dedup();
            sizes
                .into_iter()
                .map(|size| {
                    let of = |points: &[[f64; 2]], scale: f64| {
                        if points.is_empty() {
                            0.0
                        } else {
                            scale * interpolate(points, size)
                        }
                    };
                    [size, of(a, scales[0]).max(of(b, scales[1]))]
                })
                .collect()
        };
        Correlation {
            sides: join(&self.sides, &other.sides, [own * own, others * others]),
            heights: join(&self.heights, &other.heights, [1.0, 1.0]),
        }
    }

    /// Factor on top of it for sums over `height` adjacent slices.
    pub(super) fn of_height(&self, height: f64) -> f64 {
        interpolate(&self.heights, height.max(1.0))
    }
}

/// Log-log interpolation; constant beyond both ends, 1 without points.
fn interpolate(points: &[[f64; 2]], at: f64) -> f64 {
    let above = points.partition_point(|point| point[0] <= at);
    match (
        above.checked_sub(1).map(|below| points[below]),
        points.get(above),
    ) {
        (Some(a), Some(b)) => {
            let part = (at / a[0]).ln() / (b[0] / a[0]).ln();
            (a[1].ln() + part * (b[1] / a[1]).ln()).exp()
        }
        (Some(a), None) => a[1],
        (None, Some(b)) => b[1],
        (None, None) => 1.0,
    }
}

/// What the sample says about the noise of the whole difference.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NoiseModel {
    /// Median of s(z) over the sample.
    pub(super) sigma: f64,
    /// p(r)
    pub(super) profile: Profile,
    /// c
    pub(super) correlation: Correlation,
    /// Values beyond 3 sigma on the side that has fewer of them, over those of a normal distribution.
    pub(super) tails: f64,
    rings: Vec<f64>,
    /// `[z, s(z)]` of the sample, ascending.
    along_z: Vec<[f64; 2]>,
    /// `along_z` and the rest come from the halves of the scans; how they are used.
    halves: Option<NoiseSource>,
    /// Median of s(z) from unchanged voxels over that from the halves.
    pub(super) excess: Option<f64>,
    /// Variance of sums by the noise of the projections alone, relative to independent voxels of noise `sigma`.
    projections: Option<Correlation>,
}

impl NoiseModel {
    /// This model from unchanged voxels, replaced by that from the halves of the scans.
    pub(super) fn with_halves(self, halves: NoiseModel, source: NoiseSource) -> NoiseModel {
        let (sigma, correlation) = match source {
            NoiseSource::Halves => (halves.sigma, halves.correlation.clone()),
            NoiseSource::Auto | NoiseSource::Voxels => {
                let sigma = halves.sigma.max(self.sigma);
                let [own, others] = [halves.sigma / sigma, self.sigma / sigma];
                (
                    sigma,
                    halves.correlation.larger(own, &self.correlation, others),
                )
            }
        };
        NoiseModel {
            projections: Some(Correlation::default().larger(
                0.0,
                &halves.correlation,
                halves.sigma / sigma,
            )),
            excess: Some(self.sigma / halves.sigma),
            // what is common to even and odd projections shows here only
            tails: self.tails,
            sigma,
            correlation,
            halves: Some(source),
            ..halves
        }
    }

    /// Variance of the sum over patches of `area` voxels that go through `height` slices, relative to independent voxels: all of it, and the part of the
    /// projections' noise (all of it, where that is not known apart).
    pub(super) fn variance_of_sums(&self, area: f64, height: f64) -> [f64; 2] {
        self.all_and_noise(|c| c.of_area(area) * c.of_height(height))
    }

    /// Factor on the variance of sums that go through `height` adjacent slices: of all, and of the projections' noise.
    pub(super) fn along_z(&self, height: f64) -> [f64; 2] {
        self.all_and_noise(|c| c.of_height(height))
    }

    fn all_and_noise(&self, of: impl Fn(&Correlation) -> f64) -> [f64; 2] {
        let all = of(&self.correlation);
        let noise = self.projections.as_ref().map_or(all, of);
        [all, noise.min(all)]
    }

    /// s(z) from the halves of the scans.
    pub(super) fn halves_at(&self, z: usize) -> Option<f64> {
        self.halves?;
        let z = z as f64;
        let above = self.along_z.partition_point(|point| point[0] <= z);
        match (
            above.checked_sub(1).map(|below| self.along_z[below]),
            self.along_z.get(above),
        ) {
            (Some(a), Some(b)) => Some(a[1] + (z - a[0]) / (b[0] - a[0]) * (b[1] - a[1])),
            (Some(a), None) => Some(a[1]),
            (None, b) => b.map(|b| b[1]),
        }
    }

    /// s(z) of a slice whose unchanged voxels have the width `own`.
    pub(super) fn sigma_at(&self, z: usize, own: &Spread) -> f64 {
        let own = if own.count < LEAST_VOXELS {
            self.sigma
        } else {
            own.sigma
        };
        match (self.halves, self.halves_at(z)) {
            (Some(NoiseSource::Halves), Some(halves)) => halves,
            (Some(_), Some(halves)) => halves.max(own),
            _ => own,
        }
    }

    /// For the provenance of the difference.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "sigma": self.sigma,
            "relative_noise_in_rings_of_equal_area_from_the_axis_outwards": self.rings,
            "rings_used": !self.profile.is_flat(),
            "variance_of_sums_over_independent": self.correlation,
            "tails_over_normal": self.tails,
            "from": if self.halves.is_some() { "even and odd projections" } else { "unchanged voxels" },
            "sampled_z_and_sigma": self.along_z,
            "unchanged_voxels_over_halves": self.excess,
        })
    }

    /// Share of the region beyond `ratio` times s(z) on one side, by noise alone.
    pub(super) fn mean_tail(&self, ratio: f64) -> f64 {
        if self.profile.is_flat() {
            return super::spread::upper_tail(ratio);
        }
        // the table has equal steps of the squared radius, i.e. of area
        let tails = self
            .profile
            .table
            .iter()
            .step_by(32)
            .map(|&p| super::spread::upper_tail(ratio / f64::from(p)));
        tails.clone().sum::<f64>() / tails.count() as f64
    }

    /// s(z) of a slice of the difference `[y, x]`.
    pub(super) fn of_slice(&self, slice: &[f32], region: &Region) -> Spread {
        if self.profile.is_flat() {
            return spread(
                || region.voxels(slice).map(|(_, _, value)| value),
                self.sigma,
            );
        }
        spread(
            || {
                region
                    .voxels(slice)
                    .map(|(y, x, value)| value / self.profile.at(region.radius_squared(y, x)))
            },
            self.sigma,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::interpolate;

    #[test]
    fn interpolation_is_exact_at_its_points_and_level_outside() {
        let points = [[1.0, 1.0], [2.0, 0.5], [8.0, 0.25]];
        assert_eq!(interpolate(&points, 2.0), 0.5);
        assert!((interpolate(&points, 4.0) - (0.5f64 * 0.25).sqrt()).abs() < 1e-12);
        assert_eq!(
            (
                interpolate(&points, 0.5),
                interpolate(&points, 99.0),
                interpolate(&[], 3.0)
            ),
            (1.0, 0.25, 1.0)
        );
    }
}
