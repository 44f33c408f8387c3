//! Gaussian smoothing of the difference, slice by slice.
//!
//! Smoothing the difference is the same as smoothing both volumes alike: the filter is linear. Voxels outside the region
//! and NaN have no weight, and the weights of the others are scaled up to 1, so the border is not drawn towards zero:
//! `out = G * (m d) / G * m`, m being 1 for voxels that count. The kernel ends at 4 sigma, as in scipy.

use std::collections::VecDeque;
use std::sync::Arc;

use rayon::prelude::*;

use super::region::Region;

/// Takes slices in order and gives each one smoothed as soon as those above it are there.
pub(super) struct Smoother {
    kernel: Vec<f32>,
    width: usize,
    region: Region,
    /// In-plane weights of a slice without NaN.
    full: Arc<Vec<f32>>,
    window: VecDeque<Planar>,
    /// Slice to be given next.
    next: usize,
    end: usize,
}

/// A slice smoothed in its plane.
struct Planar {
    z: usize,
    sum: Vec<f32>,
    weight: Arc<Vec<f32>>,
    /// The slice as it came, for its NaN.
    nan: Vec<usize>,
}

/// Half width of the kernel \[voxel\].
pub(super) fn reach(sigma: f64) -> usize {
    (4.0 * sigma + 0.5) as usize
}

impl Smoother {
    /// Smooths slices `z` of the region by a Gaussian of `sigma` \[voxel\]; outside of `region.z` slices count as absent.
    pub(super) fn new(
        sigma: f64,
        shape: [usize; 3],
        region: &Region,
        z: std::ops::Range<usize>,
    ) -> Smoother {
        let half = reach(sigma) as i64;
        let weights: Vec<f64> = (-half..=half)
            .map(|i| (-(i as f64 / sigma).powi(2) / 2.0).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        let kernel: Vec<f32> = weights
            .iter()
            .map(|weight| (weight / total) as f32)
            .collect();
        let mut mask = vec![0f32; shape[1] * shape[2]];
        for y in 0..shape[1] {
            mask[y * shape[2]..][region.row(y)].fill(1.0);
        }
        let full = Arc::new(planar(&mask, shape[2], &kernel));
        Smoother {
            kernel,
            width: shape[2],
            region: region.clone(),
            full,
            window: VecDeque::new(),
            next: z.start,
            end: z.end,
        }
    }

    /// Takes slice `z` (in order, from `reach` below the first one wanted to `reach` above the last) and returns the
    /// slices that are complete with it.
    pub(super) fn push(&mut self, z: usize, slice: &[f32]) -> Vec<Vec<f32>> {
        if self.region.z.contains(&z) {
            let mut masked = vec![0f32; slice.len()];
            let mut nan = Vec::new();
            for y in 0..slice.len() / self.width {
                for at in self.region.row(y).map(|x| y * self.width + x) {
                    if slice[at].is_nan() {
                        nan.push(at);
                    } else {
                        masked[at] = slice[at];
                    }
                }
            }
            let weight = if nan.is_empty() {
                self.full.clone()
            } else {
                let mut mask = vec![0f32; slice.len()];
                for y in 0..slice.len() / self.width {
                    mask[y * self.width..][self.region.row(y)].fill(1.0);
                }
                nan.iter().for_each(|&at| mask[at] = 0.0);
                Arc::new(planar(&mask, self.width, &self.kernel))
            };
            self.window.push_back(Planar {
                z,
                sum: planar(&masked, self.width, &self.kernel),
                weight,
                nan,
            });
        }
        let half = self.kernel.len() / 2;
        let mut done = Vec::new();
        while self.next < self.end && z >= self.next + half {
            done.push(self.take(slice.len()));
        }
        done
    }

    /// The slices that wait for others which do not exist.
    pub(super) fn finish(&mut self, slice_len: usize) -> Vec<Vec<f32>> {
        let mut done = Vec::new();
        while self.next < self.end {
            done.push(self.take(slice_len));
        }
        done
    }

    fn take(&mut self, slice_len: usize) -> Vec<f32> {
        let (z, half) = (self.next, self.kernel.len() / 2);
        self.next += 1;
        while self.window.front().is_some_and(|slice| slice.z + half < z) {
            self.window.pop_front();
        }
        let mut out = vec![0f32; slice_len];
        if !self.region.z.contains(&z) {
            return out;
        }
        let near: Vec<(&Planar, f32)> = self
            .window
            .iter()
            .filter(|slice| slice.z <= z + half)
            .map(|slice| (slice, self.kernel[slice.z + half - z]))
            .collect();
        out.par_chunks_mut(self.width)
            .enumerate()
            .for_each(|(y, row)| {
                for x in self.region.row(y) {
                    let at = y * self.width + x;
                    let (mut sum, mut weight) = (0f32, 0f32);
                    for (slice, factor) in &near {
                        sum += factor * slice.sum[at];
                        weight += factor * slice.weight[at];
                    }
                    row[x] = sum / weight;
                }
            });
        // a voxel that was not measured stays one
        if let Some(own) = self.window.iter().find(|slice| slice.z == z) {
            own.nan.iter().for_each(|&at| out[at] = f32::NAN);
        }
        out
    }
}

/// Convolves along x and y; outside of the slice is zero.
fn planar(slice: &[f32], width: usize, kernel: &[f32]) -> Vec<f32> {
    let half = kernel.len() / 2;
    let height = slice.len() / width;
    let mut along_x = vec![0f32; slice.len()];
    along_x
        .par_chunks_mut(width)
        .zip(slice.par_chunks(width))
        .for_each(|(out, row)| {
            for (tap, &factor) in kernel.iter().enumerate() {
                // out[x] += factor * row[x + tap - half]
                let from = half.saturating_sub(tap)..width.min((width + half).saturating_sub(tap));
                if from.start < from.end {
                    let source = &row[from.start + tap - half..from.end + tap - half];
                    out[from]
                        .iter_mut()
                        .zip(source)
                        .for_each(|(out, value)| *out += factor * value);
                }
            }
        });
    let mut out = vec![0f32; slice.len()];
    out.par_chunks_mut(width).enumerate().for_each(|(y, out)| {
        for (tap, &factor) in kernel.iter().enumerate() {
            if let Some(from) = (y + tap).checked_sub(half).filter(|&from| from < height) {
                let source = &along_x[from * width..(from + 1) * width];
                out.iter_mut()
                    .zip(source)
                    .for_each(|(out, value)| *out += factor * value);
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smoothed(volume: &[Vec<f32>], width: usize, sigma: f64, region: &Region) -> Vec<Vec<f32>> {
        let height = volume[0].len() / width;
        let mut smoother = Smoother::new(
            sigma,
            [volume.len(), height, width],
            region,
            0..volume.len(),
        );
        let mut out = Vec::new();
        for (z, slice) in volume.iter().enumerate() {
            out.extend(smoother.push(z, slice));
        }
        out.extend(smoother.finish(height * width));
        out
    }

    #[test]
    fn a_point_becomes_the_gaussian() {
        let (n, sigma) = (21, 1.2);
        let mut volume = vec![vec![0f32; n * n]; n];
        volume[10][10 * n + 10] = 1.0;
        let out = smoothed(&volume, n, sigma, &Region::new([n; 3], 1e9, 0..n));
        assert_eq!(out.len(), n);
        let weight = |d: f64| (-d * d / (2.0 * sigma * sigma)).exp();
        let total: f64 = (-5..=5).map(|d| weight(f64::from(d))).sum();
        for (z, y, x) in [(10, 10, 10), (9, 12, 10), (13, 8, 14), (6, 10, 10)] {
            let expected: f64 = [z, y, x]
                .iter()
                .map(|&c| weight(c as f64 - 10.0) / total)
                .product();
            assert!(
                (f64::from(out[z][y * n + x]) - expected).abs() < 1e-6 * weight(0.0),
                "{z} {y} {x}"
            );
        }
    }

    #[test]
    fn a_constant_stays_one_up_to_the_border_and_around_nan() {
        let (n, depth) = (15, 4);
        let region = Region::new([depth, n, n], 6.3, 0..depth);
        let mut volume = vec![vec![2.5f32; n * n]; depth];
        volume[2][7 * n + 7] = f32::NAN;
        volume[1][0] = 1e9;
        let out = smoothed(&volume, n, 1.5, &region);
        for (z, slice) in out.iter().enumerate() {
            for (y, x, value) in region.voxels(slice) {
                if (z, y, x) == (2, 7, 7) {
                    assert!(value.is_nan());
                } else {
                    assert!((value - 2.5).abs() < 1e-5, "{z} {y} {x} {value}");
                }
            }
            assert_eq!(slice[0], 0.0, "outside of the region");
        }
    }
}
