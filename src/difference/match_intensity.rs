//! Gain and offset between the grey values of two scans, from what has not changed.
//!
//! A plain regression of the target on the reference finds too small a gain, because the reference is noisy too. Here
//! voxels are sorted by the reference *one slice further* (an instrumental variable): it knows the material, but not the
//! noise of this slice, as the rows of a detector are independent. In each of 64 bins of equal count the middle of
//! target minus reference is taken without its outliers, and a line `d = offset + (gain - 1) r` is laid through the 64 points
//! so that bins of changed material do not count (Theil-Sen start, then Tukey's biweight).

use std::ops::Range;

use ndarray::Array3;

use super::region::Region;
use super::spread::{median, spread};
use crate::error::Result;

/// `target = gain * reference + offset` over unchanged material.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Match {
    pub(super) gain: f64,
    pub(super) offset: f64,
    /// One standard deviation of the gain.
    pub(super) gain_err: f64,
    /// One standard deviation of the offset at the mean grey value.
    pub(super) offset_err: f64,
    /// Whether the grey values differ enough from one another to fix a gain; if not it is 1.
    pub(super) has_contrast: bool,
}

impl Match {
    /// Nothing to match.
    pub(super) const NONE: Match = Match {
        gain: 1.0,
        offset: 0.0,
        gain_err: 0.0,
        offset_err: 0.0,
        has_contrast: true,
    };
}

const BINS: usize = 64;
/// Voxels of the sample.
const SAMPLES: usize = 1 << 21;
/// A gain that is known less well than this is not believed.
const GAIN_ERR: f64 = 0.01;

/// One voxel: the reference beside it, and itself in both scans.
#[derive(Clone, Copy)]
struct Triple {
    beside: f32,
    reference: f32,
    difference: f32,
}

/// Fits [`Match`] on sampled slices. `read` gives slices of reference and target.
pub(super) fn fit(
    groups: &[Range<usize>],
    region: &Region,
    read: impl Fn(Range<usize>) -> Result<(Array3<f32>, Array3<f32>)>,
) -> Result<Match> {
    let slices: usize = groups.iter().map(|group| group.len()).sum();
    let step = (slices * region.voxels_per_slice())
        .div_ceil(SAMPLES)
        .max(1);
    let mut triples = Vec::new();
    for group in groups {
        let (reference, target) = read(group.clone())?;
        collect(&reference, &target, region, step, &mut triples);
    }
    Ok(fit_triples(&mut triples))
}

fn collect(
    reference: &Array3<f32>,
    target: &Array3<f32>,
    region: &Region,
    step: usize,
    triples: &mut Vec<Triple>,
) {
    let (depth, height, width) = reference.dim();
    for z in 0..depth {
        let mut count = 0;
        for y in 0..height {
            for x in region.row(y) {
                count += 1;
                // rows start at another column each, so that the sample forms no columns
                if (count + y) % step != 0 {
                    continue;
                }
                let beside = if depth > 1 {
                    let up = z.checked_sub(1).map(|z| reference[[z, y, x]]);
                    let down = (z + 1 < depth).then(|| reference[[z + 1, y, x]]);
                    match (up, down) {
                        (Some(up), Some(down)) => (up + down) / 2.0,
                        (one, other) => one.or(other).unwrap_or(f32::NAN),
                    }
                } else {
                    // a single slice: four voxels three away, where the noise of a reconstruction has mostly died out
                    let near = [
                        (y.wrapping_sub(3), x),
                        (y + 3, x),
                        (y, x.wrapping_sub(3)),
                        (y, x + 3),
                    ];
                    near.iter()
                        .map(|&(y, x)| {
                            if y < height && x < width {
                                reference[[0, y, x]]
                            } else {
                                f32::NAN
                            }
                        })
                        .sum::<f32>()
                        / 4.0
                };
                let (r, t) = (reference[[z, y, x]], target[[z, y, x]]);
                if beside.is_finite() && r.is_finite() && t.is_finite() {
                    triples.push(Triple {
                        beside,
                        reference: r,
                        difference: t - r,
                    });
                }
            }
        }
    }
}

fn fit_triples(triples: &mut [Triple]) -> Match {
    let all = spread(|| triples.iter().map(|triple| triple.difference), 0.0);
    let offset_only = |offset_err: f64| Match {
        gain: 1.0,
        offset: all.center,
        gain_err: 0.0,
        offset_err,
        has_contrast: false,
    };
    let plain_err = if all.count > 0 {
        1.25 * all.sigma / (all.count as f64).sqrt()
    } else {
        0.0
    };
    if triples.len() < BINS * 16 {
        return offset_only(plain_err);
    }
    triples.sort_unstable_by(|a, b| {
        a.beside
            .total_cmp(&b.beside)
            .then(a.reference.total_cmp(&b.reference))
            .then(a.difference.total_cmp(&b.difference))
    });
    let mut points = Vec::with_capacity(BINS);
    let mut own_err = Vec::with_capacity(BINS);
    for bin in 0..BINS {
        let part = &triples[bin * triples.len() / BINS..(bin + 1) * triples.len() / BINS];
        let mut reference: Vec<f32> = part.iter().map(|triple| triple.reference).collect();
        let found = spread(|| part.iter().map(|triple| triple.difference), 0.0);
        points.push([f64::from(median(&mut reference)), found.center]);
        own_err.push(1.25 * found.sigma / (part.len() as f64).sqrt());
    }
    let own_err = own_err.iter().sum::<f64>() / BINS as f64;
    let line = line(&points, own_err);
    if line.slope_err > GAIN_ERR || !line.slope_err.is_finite() {
        return offset_only(plain_err.max(own_err));
    }
    Match {
        gain: 1.0 + line.slope,
        offset: line.intercept,
        gain_err: line.slope_err,
        offset_err: line.level_err,
        has_contrast: true,
    }
}

struct Line {
    slope: f64,
    intercept: f64,
    slope_err: f64,
    /// Error of the line at the mean of its points.
    level_err: f64,
}

/// Robust line through points `[x, y]` that scatter by at least `own_err`.
fn line(points: &[[f64; 2]], own_err: f64) -> Line {
    // Theil-Sen with slopes weighted by the distance of the two points
    let mut slopes: Vec<[f64; 2]> = Vec::new();
    for (index, a) in points.iter().enumerate() {
        for b in &points[index + 1..] {
            let dx = b[0] - a[0];
            if dx != 0.0 {
                slopes.push([(b[1] - a[1]) / dx, dx.abs()]);
            }
        }
    }
    let mut slope = weighted_median(&mut slopes);
    let mut levels: Vec<[f64; 2]> = points.iter().map(|p| [p[1] - slope * p[0], 1.0]).collect();
    let mut intercept = weighted_median(&mut levels);
    let mut errors = (f64::INFINITY, f64::INFINITY);
    for _ in 0..30 {
        let mut off: Vec<f32> = points
            .iter()
            .map(|p| (p[1] - intercept - slope * p[0]).abs() as f32)
            .collect();
        let scatter = (f64::from(median(&mut off)) / 0.6745).max(own_err);
        if scatter == 0.0 {
            // most points lie exactly on the line
            return Line {
                slope,
                intercept,
                slope_err: exact_err(points),
                level_err: 0.0,
            };
        }
        let weight = |p: &[f64; 2]| {
            let u = (p[1] - intercept - slope * p[0]) / (4.685 * scatter);
            if u.abs() < 1.0 {
                (1.0 - u * u).powi(2)
            } else {
                0.0
            }
        };
        let weights: Vec<f64> = points.iter().map(weight).collect();
        let total: f64 = weights.iter().sum();
        let mean = |axis: usize| {
            points
                .iter()
                .zip(&weights)
                .map(|(p, w)| w * p[axis])
                .sum::<f64>()
                / total
        };
        let (x, y) = (mean(0), mean(1));
        let spread_x: f64 = points
            .iter()
            .zip(&weights)
            .map(|(p, w)| w * (p[0] - x).powi(2))
            .sum();
        let together: f64 = points
            .iter()
            .zip(&weights)
            .map(|(p, w)| w * (p[0] - x) * (p[1] - y))
            .sum();
        let next = if spread_x > 0.0 {
            together / spread_x
        } else {
            0.0
        };
        let settled = (next - slope).abs() < 1e-9;
        (slope, intercept) = (next, y - next * x);
        errors = (scatter / spread_x.sqrt(), scatter / total.sqrt());
        if settled {
            break;
        }
    }
    Line {
        slope,
        intercept,
        slope_err: errors.0,
        level_err: errors.1,
    }
}

/// Points without scatter fix a slope if they differ in x at all.
fn exact_err(points: &[[f64; 2]]) -> f64 {
    if points.iter().any(|p| p[0] != points[0][0]) {
        0.0
    } else {
        f64::INFINITY
    }
}

/// Median of `[value, weight]`; 0 of none.
fn weighted_median(values: &mut [[f64; 2]]) -> f64 {
    values.sort_unstable_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    let half = values.iter().map(|value| value[1]).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    for value in values.iter() {
        sum += value[1];
        if sum >= half {
            return value[0];
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, Normal};

    /// Three materials in 4 slices, noise of 0.2, and `changed`: the share of voxels that gain 2.
    fn pair(
        seed: u128,
        gain: f32,
        offset: f32,
        contrast: f32,
        changed: f32,
    ) -> (Array3<f32>, Array3<f32>) {
        let mut random = rand_pcg::Pcg64Mcg::new(seed);
        let noise = Normal::new(0.0f32, 0.2).unwrap();
        let material = |y: usize, x: usize| contrast * ((y / 20 + x / 20) % 3) as f32;
        let shape = (4, 120, 120);
        let reference = Array3::from_shape_fn(shape, |(_, y, x)| {
            material(y, x) + noise.sample(&mut random)
        });
        let target = Array3::from_shape_fn(shape, |(_, y, x)| {
            let change = if ((y * 120 + x) % 100) as f32 / 100.0 < changed {
                2.0
            } else {
                0.0
            };
            gain * (material(y, x) + change) + offset + noise.sample(&mut random)
        });
        (reference, target)
    }

    fn fitted(reference: &Array3<f32>, target: &Array3<f32>) -> Match {
        let (depth, height, width) = reference.dim();
        let region = Region::new([depth, height, width], 1e9, 0..depth);
        fit(std::slice::from_ref(&(0..depth)), &region, |_| {
            Ok((reference.clone(), target.clone()))
        })
        .unwrap()
    }

    #[test]
    fn gain_and_offset_are_recovered_beside_noise_and_change() {
        for (gain, offset, changed) in [(1.0, 0.0, 0.0), (1.07, -0.13, 0.0), (0.93, 0.2, 0.25)] {
            let (reference, target) = pair(7, gain, offset, 0.5, changed);
            let found = fitted(&reference, &target);
            assert!(found.has_contrast && found.gain_err > 0.0);
            assert!(
                (found.gain - f64::from(gain)).abs() < 4.0 * found.gain_err,
                "{found:?}"
            );
            // 57 600 voxels, noise 0.28, contrast 0.4: a plain regression would be sure to 0.003; allowed is four times that
            assert!((found.gain - f64::from(gain)).abs() < 0.012, "{found:?}");
            assert!(
                (found.offset - f64::from(offset)).abs() < 0.012,
                "{found:?}"
            );
        }
        // the negative control: ordinary least squares finds a gain that is too small
        let (reference, target) = pair(7, 1.0, 0.0, 0.5, 0.0);
        let n = reference.len() as f64;
        let (mr, mt) = (f64::from(reference.sum()) / n, f64::from(target.sum()) / n);
        let (mut rr, mut rt) = (0.0, 0.0);
        for (r, t) in reference.iter().zip(&target) {
            rr += (f64::from(*r) - mr).powi(2);
            rt += (f64::from(*r) - mr) * (f64::from(*t) - mt);
        }
        assert!(rt / rr < 0.9, "{}", rt / rr);
    }

    #[test]
    fn without_contrast_the_gain_stays_one() {
        let (reference, target) = pair(9, 1.0, 0.3, 0.0, 0.0);
        let found = fitted(&reference, &target);
        assert_eq!((found.gain, found.has_contrast), (1.0, false));
        assert!((found.offset - 0.3).abs() < 0.01, "{found:?}");
    }

    #[test]
    fn equal_volumes_need_exactly_nothing() {
        let (reference, _) = pair(11, 1.0, 0.0, 0.5, 0.0);
        let found = fitted(&reference, &reference);
        assert_eq!((found.gain, found.offset), (1.0, 0.0));
    }

    #[test]
    fn a_single_slice_is_matched_too() {
        let (reference, target) = pair(13, 1.05, 0.1, 1.0, 0.1);
        let one = |volume: &Array3<f32>| volume.slice(ndarray::s![0..1, .., ..]).to_owned();
        let found = fitted(&one(&reference), &one(&target));
        assert!(
            (found.gain - 1.05).abs() < 0.02 && (found.offset - 0.1).abs() < 0.02,
            "{found:?}"
        );
    }
}
