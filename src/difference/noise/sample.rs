//! What a sample of slices tells of the noise: sigma, its rings, how far values hang together, and how heavy the tails are.

use super::super::grow::mark;
use super::super::region::Region;
use super::super::spread::{Spread, spread, upper_tail};
use super::{Correlation, NoiseModel, Profile, RINGS};

/// Values of a ring, or sums of blocks, kept per slice.
const KEPT: usize = 20_000;
/// Squares with fewer sums than this say nothing.
const LEAST_SUMS: usize = 100;
/// Side of the squares on which the correlation along z is measured.
const COLUMN: usize = 4;
/// Blocks with a voxel beyond this many sigma have changed.
const CHANGED: f64 = 4.0;
/// A voxel is surely in a change where the mean over it and its neighbours is beyond this many sigma: more than rings and streaks reach, which are
/// a voxel or two wide. What overshoots and undershoots up to so many voxels [`AROUND`] it is no noise either.
const SURE: f64 = 2.5;
/// Half width of the cube around sure change that the tails are not judged by \[voxel\].
const AROUND: usize = 4;

/// Bins of a sigma in which tails are counted, and how far.
const BINS: usize = 20;
const TAIL_END: usize = 12;

/// Values of a ring by their size, decrease and increase, in bins of sigma; what is beyond the last is in it.
#[derive(Clone, Default)]
struct Tails {
    count: u64,
    sides: [Vec<u32>; 2],
}

impl Tails {
    fn add(&mut self, relative: f32) {
        self.count += 1;
        let side = &mut self.sides[usize::from(relative > 0.0)];
        side.resize(BINS * TAIL_END, 0);
        let bin = (relative.abs() * BINS as f32) as usize;
        side[bin.min(BINS * TAIL_END - 1)] += 1;
    }

    /// Values beyond `level` sigma on each side; of the bin that holds it, its share.
    fn beyond(&self, level: f64) -> [f64; 2] {
        let at = level * BINS as f64;
        let (bin, share) = (at as usize, 1.0 - at.fract());
        [0, 1].map(|side| {
            let counts = self.sides[side].iter().skip(bin).map(|&n| f64::from(n));
            let cut = self.sides[side].get(bin).map_or(0.0, |&n| f64::from(n));
            counts.sum::<f64>() - (1.0 - share) * cut
        })
    }
}

/// Gathers [`NoiseModel`] from groups of adjacent slices of the difference.
pub(in super::super) struct NoiseSample<'a> {
    region: &'a Region,
    /// Rings of equal area per squared voxel.
    per_radius_squared: f64,
    rings: Vec<Vec<f32>>,
    sigmas: Vec<f64>,
    along_z: Vec<[f64; 2]>,
    tails: Vec<Tails>,
    sums: Vec<(usize, Vec<f32>)>,
    stacks: Vec<(usize, Vec<f32>)>,
}

impl<'a> NoiseSample<'a> {
    pub(in super::super) fn new(region: &'a Region) -> Self {
        // eight squares across the region at least
        let largest = (region.row(region.height() / 2).len() / 8).max(1);
        let sides = std::iter::successors(Some(1), |side| Some(side * 2))
            .take_while(|&side| side == 1 || side <= largest.min(64));
        NoiseSample {
            region,
            per_radius_squared: RINGS as f64 / region.largest_radius_squared().max(1.0),
            rings: vec![Vec::new(); RINGS],
            sigmas: Vec::new(),
            along_z: Vec::new(),
            tails: vec![Tails::default(); RINGS],
            sums: sides.map(|side| (side, Vec::new())).collect(),
            stacks: [1, 2, 4]
                .into_iter()
                .map(|height| (height, Vec::new()))
                .collect(),
        }
    }

    /// Adds adjacent slices `[y, x]` of `width` columns, the first of which is slice `z`.
    pub(in super::super) fn add(&mut self, z: usize, slices: &[Vec<f32>], width: usize) {
        let mut spreads = Vec::with_capacity(slices.len());
        for slice in slices {
            let found = spread(|| self.region.voxels(slice).map(|(_, _, value)| value), 0.0);
            spreads.push(found);
            if found.sigma <= 0.0 {
                continue;
            }
            self.sigmas.push(found.sigma);
            let step = (self.region.voxels_per_slice() / (RINGS * KEPT)).max(1);
            for (y, x, value) in self.region.voxels(slice).step_by(step) {
                if value.is_finite() {
                    let ring = self.ring_of(y, x);
                    self.rings[ring].push(((f64::from(value) - found.center) / found.sigma) as f32);
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

    /// The ring of equal area that holds a voxel.
    fn ring_of(&self, y: usize, x: usize) -> usize {
        let ring = self.region.radius_squared(y, x) * self.per_radius_squared;
        (ring as usize).min(RINGS - 1)
    }

    /// Counts the voxels by their size, away from what surely changed.
    fn count_tails(&mut self, slices: &[Vec<f32>], spreads: &[Spread], width: usize) {
        let changed = near_change(slices, spreads, self.region, width);
        for ((slice, found), near) in slices.iter().zip(spreads).zip(&changed) {
            if found.sigma <= 0.0 {
                continue;
            }
            for (y, x, value) in self.region.voxels(slice) {
                if value.is_nan() || near.get(y * width + x) == Some(&1) {
                    continue;
                }
                let ring = self.ring_of(y, x);
                self.tails[ring].add(found.relative(value));
            }
        }
    }

    pub(in super::super) fn finish(mut self) -> NoiseModel {
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
        // of the noise of each ring, which need not be that of the slice
        let count: u64 = self.tails.iter().map(|ring| ring.count).sum();
        let expected = count as f64 * upper_tail(3.0);
        let tails = if expected > 20.0 {
            let beyond = self
                .tails
                .iter()
                .zip(&rings)
                .map(|(tails, sigma)| tails.beyond(3.0 * sigma))
                .fold([0.0; 2], |[a, b], [c, d]| [a + c, b + d]);
            beyond[0].min(beyond[1]) / expected
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

/// 1 for every voxel of adjacent `slices` that is at most [`AROUND`] from one that surely changed, by the width of each slice; empty for slices without.
pub(in super::super) fn near_change(
    slices: &[Vec<f32>],
    spreads: &[Spread],
    region: &Region,
    width: usize,
) -> Vec<Vec<u8>> {
    let relative: Vec<Vec<f32>> = slices
        .iter()
        .zip(spreads)
        .map(|(slice, found)| slice.iter().map(|&value| found.relative(value)).collect())
        .collect();
    let mut changed = vec![Vec::new(); slices.len()];
    for (z, slice) in relative.iter().enumerate() {
        for (y, x, value) in region.voxels(slice) {
            if value.abs() <= 3.0 || mean_around(&relative, [z, y, x], width).abs() <= SURE {
                continue;
            }
            for near in &mut changed[z.saturating_sub(AROUND)..(z + AROUND + 1).min(slices.len())] {
                near.resize(slice.len(), 0);
                mark(near, width, y, x..x + 1, AROUND, 1);
            }
        }
    }
    changed
}

/// Mean of the finite voxels of `slices` that touch one, itself included.
fn mean_around(slices: &[Vec<f32>], [z, y, x]: [usize; 3], width: usize) -> f64 {
    let height = slices[z].len() / width;
    let (mut count, mut sum) = (0.0, 0.0);
    for slice in &slices[z.saturating_sub(1)..(z + 2).min(slices.len())] {
        for y in y.saturating_sub(1)..(y + 2).min(height) {
            for value in &slice[y * width..][x.saturating_sub(1)..(x + 2).min(width)] {
                if value.is_finite() {
                    count += 1.0;
                    sum += f64::from(*value);
                }
            }
        }
    }
    sum / f64::max(count, 1.0)
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
        // and of 4.5 sigma, no voxel of which is sure by itself
        let mut faint = plain.clone();
        for slice in &mut faint {
            for (y, x) in (30..60).flat_map(|y| (30..60).map(move |x| (y, x))) {
                slice[y * n + x] += 4.5;
                slice[(y + 35) * n + x + 35] -= 4.5;
            }
        }
        let found = model(&faint, n).tails;
        // 139 voxels are expected; change near 3 sigma widens the noise found by 1 %, which takes 10 % of them
        assert!((found / expected - 1.0).abs() < 0.2, "{found} {expected}");
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
}
