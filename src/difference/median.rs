//! Median of the difference over a cube around each voxel, slice by slice.
//!
//! Taken of the difference, so both volumes are treated alike. Voxels outside the region and NaN do not count; of an
//! even number of values the mean of the two middle ones is taken, so that noise keeps its mean of zero at the border.
//! A voxel that is NaN stays NaN. Edges of grains stay sharp, which is what a median is for; the noise that it leaves
//! is measured on noise filtered in the same way.

use std::collections::VecDeque;
use std::ops::Range;

use rayon::prelude::*;

use super::region::Region;

/// Takes slices in order and gives each one filtered as soon as those above it are there.
pub(super) struct MedianFilter {
    half: usize,
    width: usize,
    region: Region,
    /// Slices of the region near the next one, with their index.
    window: VecDeque<(usize, Vec<f32>)>,
    /// Slice to be given next.
    next: usize,
    end: usize,
    slice_len: usize,
}

impl MedianFilter {
    /// Filters slices `z` with a cube of `edge` voxels (odd); outside of `region.z` slices count as absent.
    pub(super) fn new(
        edge: usize,
        shape: [usize; 3],
        region: &Region,
        z: Range<usize>,
    ) -> MedianFilter {
        MedianFilter {
            half: edge / 2,
            width: shape[2],
            region: region.clone(),
            window: VecDeque::new(),
            next: z.start,
            end: z.end,
            slice_len: shape[1] * shape[2],
        }
    }

    /// Takes slice `z` and returns the slices that are complete with it.
    pub(super) fn push(&mut self, z: usize, slice: &[f32]) -> Vec<Vec<f32>> {
        if self.region.z.contains(&z) {
            self.window.push_back((z, slice.to_vec()));
        }
        let mut done = Vec::new();
        while self.next < self.end && z >= self.next + self.half {
            done.push(self.take());
        }
        done
    }

    /// The slices that wait for others which do not exist.
    pub(super) fn finish(&mut self) -> Vec<Vec<f32>> {
        let mut done = Vec::new();
        while self.next < self.end {
            done.push(self.take());
        }
        done
    }

    fn take(&mut self) -> Vec<f32> {
        let (z, half) = (self.next, self.half);
        self.next += 1;
        while self.window.front().is_some_and(|(at, _)| at + half < z) {
            self.window.pop_front();
        }
        let mut out = vec![0f32; self.slice_len];
        let Some((_, own)) = self.window.iter().find(|(at, _)| *at == z) else {
            return out;
        };
        let near: Vec<&[f32]> = self
            .window
            .iter()
            .filter(|(at, _)| *at <= z + half)
            .map(|(_, slice)| slice.as_slice())
            .collect();
        let height = self.slice_len / self.width;
        out.par_chunks_mut(self.width).enumerate().for_each_init(
            Vec::new,
            |values: &mut Vec<f32>, (y, row)| {
                for x in self.region.row(y) {
                    if own[y * self.width + x].is_nan() {
                        row[x] = f32::NAN;
                        continue;
                    }
                    values.clear();
                    for v in y.saturating_sub(half)..(y + half + 1).min(height) {
                        let columns = self.region.row(v);
                        let from = x.saturating_sub(half).max(columns.start);
                        let to = (x + half + 1).min(columns.end);
                        if from < to {
                            for slice in &near {
                                values.extend(
                                    slice[v * self.width + from..v * self.width + to]
                                        .iter()
                                        .filter(|value| !value.is_nan()),
                                );
                            }
                        }
                    }
                    row[x] = middle(values);
                }
            },
        );
        out
    }
}

/// Median; the mean of the two middle values of an even number. The voxel itself is among them, so there is one.
fn middle(values: &mut [f32]) -> f32 {
    let n = values.len();
    let (below, &mut upper, _) = values.select_nth_unstable_by(n / 2, f32::total_cmp);
    if n % 2 == 1 {
        return upper;
    }
    let lower = below.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    0.5 * (lower + upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, voxel by voxel.
    fn slow(volume: &[Vec<f32>], width: usize, region: &Region, half: i64) -> Vec<Vec<f32>> {
        let height = volume[0].len() / width;
        let inside = |z: i64, y: i64, x: i64| {
            z >= 0
                && y >= 0
                && x >= 0
                && (y as usize) < height
                && region.z.contains(&(z as usize))
                && region.row(y as usize).contains(&(x as usize))
        };
        let at = |z: i64, y: i64, x: i64| volume[z as usize][y as usize * width + x as usize];
        let mut out = vec![vec![0f32; volume[0].len()]; volume.len()];
        for z in 0..volume.len() as i64 {
            for y in 0..height as i64 {
                for x in 0..width as i64 {
                    if !inside(z, y, x) {
                        continue;
                    }
                    let mut near = Vec::new();
                    for dz in -half..=half {
                        for dy in -half..=half {
                            for dx in -half..=half {
                                let p = (z + dz, y + dy, x + dx);
                                if inside(p.0, p.1, p.2) && !at(p.0, p.1, p.2).is_nan() {
                                    near.push(at(p.0, p.1, p.2));
                                }
                            }
                        }
                    }
                    near.sort_by(f32::total_cmp);
                    let n = near.len();
                    let value = if at(z, y, x).is_nan() {
                        f32::NAN
                    } else if n % 2 == 1 {
                        near[n / 2]
                    } else {
                        0.5 * (near[n / 2 - 1] + near[n / 2])
                    };
                    out[z as usize][y as usize * width + x as usize] = value;
                }
            }
        }
        out
    }

    #[test]
    fn it_is_the_median_of_the_voxels_that_count() {
        use rand::RngExt;
        let (depth, height, width) = (7, 11, 13);
        let mut random = rand_pcg::Pcg64Mcg::new(3);
        let mut volume: Vec<Vec<f32>> = (0..depth)
            .map(|_| {
                (0..height * width)
                    .map(|_| random.random::<f32>())
                    .collect()
            })
            .collect();
        volume[3][5 * width + 6] = f32::NAN;
        let region = Region::new([depth, height, width], 5.3, 1..6);
        for edge in [3, 5] {
            let mut filter = MedianFilter::new(edge, [depth, height, width], &region, 0..depth);
            let mut out = Vec::new();
            for (z, slice) in volume.iter().enumerate() {
                out.extend(filter.push(z, slice));
            }
            out.extend(filter.finish());
            let expected = slow(&volume, width, &region, edge as i64 / 2);
            assert_eq!(out.len(), depth);
            for (a, b) in out.iter().flatten().zip(expected.iter().flatten()) {
                assert!(a.to_bits() == b.to_bits(), "{a} {b}");
            }
        }
    }
}
