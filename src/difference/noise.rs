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

use serde::Serialize;

use super::grow::mark;
use super::region::Region;
use super::spread::{Spread, spread};
use crate::config::NoiseSource;

/// Rings of equal area.
const RINGS: usize = 10;
/// p(r) is used from this ratio of the noisiest to the quietest ring on.
const CLEAR: f64 = 1.08;
/// Values of a ring, or sums of blocks, kept per slice.
const KEPT: usize = 20_000;
/// Squares with fewer sums than this say nothing.
const LEAST_SUMS: usize = 100;
/// Side of the squares on which the correlation along z is measured.
const COLUMN: usize = 4;
/// Slices with fewer voxels take the noise of the sample.
const LEAST_VOXELS: u64 = 200;
/// Blocks with a voxel beyond this many sigma have changed.
const CHANGED: f64 = 4.0;
/// A voxel beyond this many sigma is change. What overshoots and undershoots up to so many voxels [`AROUND`] it is no noise either.
const SURE: f64 = 10.0;
/// Half width of the cube around sure change that the tails are not judged by \[voxel\].
const AROUND: usize = 4;

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

/// Gathers [`NoiseModel`] from groups of adjacent slices of the difference.
pub(super) struct NoiseSample<'a> {
    region: &'a Region,
    rings: Vec<Vec<f32>>,
    sigmas: Vec<f64>,
    along_z: Vec<[f64; 2]>,
    beyond: [u64; 2],
    count: u64,
    sums: Vec<(usize, Vec<f32>)>,
    stacks: Vec<(usize, Vec<f32>)>,
}

impl<'a> NoiseSample<'a> {
    pub(super) fn new(region: &'a Region) -> Self {
        // eight squares across the region at least
        let largest = (region.row(region.height() / 2).len() / 8).max(1);
        let sides = std::iter::successors(Some(1), |side| Some(side * 2))
            .take_while(|&side| side == 1 || side <= largest.min(64));
        NoiseSample {
            region,
            rings: vec![Vec::new(); RINGS],
            sigmas: Vec::new(),
            along_z: Vec::new(),
            beyond: [0; 2],
            count: 0,
            sums: sides.map(|side| (side, Vec::new())).collect(),
            stacks: [1, 2, 4]
                .into_iter()
                .map(|height| (height, Vec::new()))
                .collect(),
        }
    }

    /// Adds adjacent slices `[y, x]` of `width` columns, the first of which is slice `z`.
    pub(super) fn add(&mut self, z: usize, slices: &[Vec<f32>], width: usize) {
        let mut spreads = Vec::with_capacity(slices.len());
        let largest = self.region.largest_radius_squared().max(1.0);
        for slice in slices {
            let found = spread(|| self.region.voxels(slice).map(|(_, _, value)| value), 0.0);
            spreads.push(found);
            if found.sigma <= 0.0 {
                continue;
            }
            self.sigmas.push(found.sigma);
            let step = (self.region.voxels_per_slice() / (RINGS * KEPT)).max(1);
            for (y, x, value) in self.region.voxels(slice).step_by(step) {
                let ring = (self.region.radius_squared(y, x) / largest * RINGS as f64) as usize;
                if value.is_finite() {
                    self.rings[ring.min(RINGS - 1)]
                        .push(((f64::from(value) - found.center) / found.sigma) as f32);
                }
            }
            for (side, sums) in &mut self.sums {
                sums.extend(
                    block_sums(slice, width, self.region, *side, &found)
                        .into_iter()
                        .flatten(),
                );
            }
        }
        self.count_tails(slices, &spreads, width);
        let mut known: Vec<f64> = spreads
            .iter()
            .map(|found| found.sigma)
            .filter(|&sigma| sigma > 0.0)
            .collect();
        known.sort_by(f64::total_cmp);
        if let Some(&sigma) = known.get(known.len() / 2) {
            self.along_z
                .push([z as f64 + (slices.len() as f64 - 1.0) / 2.0, sigma]);
        }
        if slices.len() >= 2 && spreads.iter().all(|found| found.sigma > 0.0) {
            let columns: Vec<Vec<Option<f32>>> = slices
                .iter()
                .zip(&spreads)
                .map(|(slice, found)| block_sums(slice, width, self.region, COLUMN, found))
                .collect();
            for (height, stacks) in &mut self.stacks {
                for group in columns.chunks_exact(*height) {
                    stacks.extend((0..group[0].len()).filter_map(|block| {
                        group.iter().map(|slice| slice[block]).sum::<Option<f32>>()
                    }));
                }
            }
        }
    }

    /// Counts the voxels beyond 3 sigma on each side, away from what surely changed.
    fn count_tails(&mut self, slices: &[Vec<f32>], spreads: &[Spread], width: usize) {
        let off = |value: f32, found: &Spread| (f64::from(value) - found.center) / found.sigma;
        let mut changed = vec![Vec::new(); slices.len()];
        for (z, (slice, found)) in slices.iter().zip(spreads).enumerate() {
            let sure = |&(_, _, value): &(usize, usize, f32)| off(value, found).abs() > SURE;
            for (y, x, _) in self.region.voxels(slice).filter(sure) {
                for near in
                    &mut changed[z.saturating_sub(AROUND)..(z + AROUND + 1).min(slices.len())]
                {
                    near.resize(slice.len(), 0);
                    mark(near, width, y, x..x + 1, AROUND, 1);
                }
            }
        }
        for ((slice, found), near) in slices.iter().zip(spreads).zip(&changed) {
            if found.sigma <= 0.0 {
                continue;
            }
            for (y, x, value) in self.region.voxels(slice) {
                let relative = off(value, found);
                if relative.is_nan() || near.get(y * width + x) == Some(&1) {
                    continue;
                }
                self.count += 1;
                self.beyond[0] += u64::from(relative < -3.0);
                self.beyond[1] += u64::from(relative > 3.0);
            }
        }
    }

    pub(super) fn finish(mut self) -> NoiseModel {
        let rings: Vec<f64> = self
            .rings
            .iter()
            .map(|ring| spread(|| ring.iter().copied(), 1.0).sigma)
            .collect();
        let enough = self.rings.iter().all(|ring| ring.len() >= 400);
        let profile = if enough {
            Profile::of_rings(&rings, self.region)
        } else {
            Profile::FLAT
        };
        self.sigmas.sort_by(f64::total_cmp);
        let sigma = self
            .sigmas
            .get(self.sigmas.len() / 2)
            .copied()
            .unwrap_or(0.0);
        let expected = self.count as f64 * super::spread::upper_tail(3.0);
        let tails = if expected > 20.0 {
            self.beyond[0].min(self.beyond[1]) as f64 / expected
        } else {
            1.0
        };
        let variances = |sums: &[(usize, Vec<f32>)], size: fn(usize) -> f64| -> Vec<[f64; 2]> {
            let variance = |sums: &Vec<f32>| spread(|| sums.iter().copied(), 0.0).sigma.powi(2);
            let Some(single) = sums
                .first()
                .map(|(_, sums)| variance(sums))
                .filter(|&single| single > 0.0)
            else {
                return Vec::new();
            };
            sums.iter()
                .filter(|(_, sums)| sums.len() >= LEAST_SUMS)
                .map(|(side, sums)| [*side as f64, variance(sums) / (size(*side) * single)])
                .filter(|point| point[1] > 0.0)
                .collect()
        };
        let correlation = Correlation {
            sides: variances(&self.sums, |side| (side * side) as f64),
            heights: variances(&self.stacks, |height| height as f64),
        };
        NoiseModel {
            sigma,
            profile,
            correlation,
            tails,
            rings,
            along_z: self.along_z,
            halves: None,
            excess: None,
            projections: None,
        }
    }
}

/// Sums of (value - middle) / sigma over squares of `side` voxels; `None` for squares that leave the region or changed.
fn block_sums(
    slice: &[f32],
    width: usize,
    region: &Region,
    side: usize,
    found: &Spread,
) -> Vec<Option<f32>> {
    let height = slice.len() / width;
    let blocks_x = width / side;
    let total = height / side * blocks_x;
    let step = (total / KEPT).max(1);
    (0..total)
        .step_by(step)
        .map(|block| {
            let (y0, x0) = (block / blocks_x * side, block % blocks_x * side);
            let mut sum = 0f64;
            for y in y0..y0 + side {
                let row = region.row(y);
                if row.start > x0 || row.end < x0 + side {
                    return None;
                }
                for &value in &slice[y * width + x0..y * width + x0 + side] {
                    let relative = (f64::from(value) - found.center) / found.sigma;
                    if relative.is_nan() || relative.abs() >= CHANGED {
                        return None;
                    }
                    sum += relative;
                }
            }
            Some(sum as f32)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, StandardNormal};

    fn noise(seed: u128, depth: usize, n: usize) -> Vec<Vec<f32>> {
        let mut random = rand_pcg::Pcg64Mcg::new(seed);
        (0..depth)
            .map(|_| {
                (0..n * n)
                    .map(|_| StandardNormal.sample(&mut random))
                    .collect()
            })
            .collect()
    }

    fn model(slices: &[Vec<f32>], n: usize) -> NoiseModel {
        let region = Region::new([slices.len(), n, n], n as f64 / 2.0, 0..slices.len());
        let mut sample = NoiseSample::new(&region);
        slices.chunks(4).for_each(|group| sample.add(0, group, n));
        sample.finish()
    }

    #[test]
    fn independent_noise_has_no_profile_and_no_correlation() {
        let found = model(&noise(1, 8, 128), 128);
        assert!(
            (found.sigma - 1.0).abs() < 0.02 && found.profile.is_flat(),
            "{found:?}"
        );
        for side in [1.0, 2.0, 4.0, 8.0] {
            let c = found.correlation.of_area(side * side);
            // a variance from the deviation of n sums scatters by 2.3 / sqrt(n); four times that
            assert!(
                (c - 1.0).abs() < 4.0 * 2.3 * side / (8.0f64 * 12868.0).sqrt(),
                "{side}: {c}"
            );
        }
        assert!((found.correlation.of_height(4.0) - 1.0).abs() < 0.15);
        assert!((found.tails - 1.0).abs() < 0.3);
    }

    #[test]
    fn the_rims_of_change_are_no_tails_and_streaks_are() {
        let n = 128;
        let plain = noise(11, 8, n);
        let expected = model(&plain, n).tails;
        // balls of 30 sigma, of both signs, that overshoot by 4 sigma three voxels further out
        let mut changed = plain.clone();
        for slice in &mut changed[2..6] {
            for (k, sign) in [(0, 1.0), (1, -1.0), (2, 1.0), (3, -1.0)] {
                let (y0, x0) = (40 + 48 * (k / 2_usize), 40 + 48 * (k % 2_usize));
                for (y, x) in (y0 - 5..=y0 + 5).flat_map(|y| (x0 - 5..=x0 + 5).map(move |x| (y, x)))
                {
                    let far = y.abs_diff(y0).max(x.abs_diff(x0));
                    slice[y * n + x] += sign * [30.0, 30.0, 30.0, 0.0, 0.0, -4.0][far];
                }
            }
        }
        let found = model(&changed, n).tails;
        assert!((found / expected - 1.0).abs() < 0.1, "{found} {expected}");
        // lines of 4 sigma, of both signs: 0.4 % of the voxels, against 0.13 % that noise has on each side
        let mut streaks = plain;
        for slice in &mut streaks {
            for (y, sign) in [(60, 4.0), (70, -4.0)] {
                slice[y * n + 32..y * n + 96]
                    .iter_mut()
                    .for_each(|value| *value += sign);
            }
        }
        let found = model(&streaks, n).tails;
        assert!(found > 3.0 * expected, "{found} {expected}");
    }

    #[test]
    fn averaged_neighbours_give_sums_of_the_calculable_variance() {
        // d = (n[x] + n[x+1]) / sqrt 2: pairs in a row of length b share b - 1 neighbours, c = 1 + (b - 1) / b
        let n = 128;
        let slices: Vec<Vec<f32>> = noise(3, 8, n)
            .iter()
            .map(|slice| {
                (0..slice.len())
                    .map(|i| (slice[i] + slice[(i + 1) % slice.len()]) / 2f32.sqrt())
                    .collect()
            })
            .collect();
        let found = model(&slices, n).correlation;
        for (side, expected) in [(2.0, 1.5), (4.0, 1.75), (8.0, 1.875)] {
            let c = found.of_area(side * side);
            // a variance from the deviation of n sums scatters by 2.3 / sqrt(n); four times that
            let tolerance = 4.0 * 2.3 * side / (8.0f64 * 12868.0).sqrt();
            assert!(
                (c / expected - 1.0).abs() < tolerance,
                "{side}: {c} {expected}"
            );
        }
        // and noise with alternating signs cancels in sums
        let slices: Vec<Vec<f32>> = noise(5, 8, n)
            .iter()
            .map(|slice| {
                (0..slice.len())
                    .map(|i| (slice[i] - slice[(i + 1) % slice.len()]) / 2f32.sqrt())
                    .collect()
            })
            .collect();
        // the sum of b neighbours telescopes to two terms: c = 1 / b
        let c = model(&slices, n).correlation.of_area(16.0);
        assert!((c / 0.25 - 1.0).abs() < 0.15, "{c}");
    }

    #[test]
    fn noise_that_grows_outwards_is_followed() {
        let n = 128;
        let middle = (n as f64 - 1.0) / 2.0;
        let growth = |y: usize, x: usize| {
            1.0 + (y as f64 - middle).hypot(x as f64 - middle).powi(2) / middle.powi(2)
        };
        let mut slices = noise(7, 8, n);
        for slice in &mut slices {
            slice
                .iter_mut()
                .enumerate()
                .for_each(|(i, v)| *v *= growth(i / n, i % n) as f32);
        }
        let found = model(&slices, n);
        assert!(!found.profile.is_flat());
        let region = Region::new([8, n, n], n as f64 / 2.0, 0..8);
        let s = found.of_slice(&slices[3], &region).sigma;
        // rings are linear between their middles, and level beyond the first and last: 5 % at both ends of the growth
        for radius in [0.0, 20.0, 40.0, 60.0f64] {
            let expected = 1.0 + (radius / middle).powi(2);
            let sigma = s * f64::from(found.profile.at(radius * radius));
            assert!(
                (sigma / expected - 1.0).abs() < 0.08,
                "{radius}: {sigma} {expected}"
            );
        }
    }

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
