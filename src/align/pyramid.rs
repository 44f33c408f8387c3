//! The pair at several resolutions, and which voxels count.

use std::ops::Range;

use ndarray::{Array3, ArrayView3, Axis, s};

use super::motion::RigidMotion;

/// Half width of the smoothing kernel \[level voxel\].
pub(crate) const SMOOTHING_REACH: usize = 2;
/// Binomial kernel, standard deviation 1 voxel: it takes the frequencies that interpolation distorts out of both
/// volumes, being symmetric without moving anything.
const BINOMIAL: [f32; 5] = [1.0 / 16.0, 4.0 / 16.0, 6.0 / 16.0, 4.0 / 16.0, 1.0 / 16.0];
/// An axis shorter than this is not smoothed: the ends lost to the kernel would cost too much.
const LEAST_SMOOTHED: usize = 16;

/// Both volumes at one resolution.
pub(crate) struct Level {
    /// `[z, y, x]`
    pub(crate) reference: Array3<f32>,
    /// `[z, y, x]`
    pub(crate) target: Array3<f32>,
    /// Where the voxels stand, and which count.
    pub(crate) frame: Frame,
}

/// Where the voxels of a level stand in the pilot, and which of them count.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// Shape of the level `[z, y, x]`.
    pub(crate) shape: [usize; 3],
    /// Pilot voxels per voxel of the level, `[x, y, z]`.
    pub(crate) factor: [f64; 3],
    /// Middle of the pilot `(n - 1) / 2`, `[x, y, z]`.
    middle: [f64; 3],
    /// Voxels farther from the middle \[pilot voxel\] do not count.
    pub(crate) radius: f64,
    /// Width over which the weight rises from 0 to 1 at the radius \[pilot voxel\].
    taper: f64,
    /// First and last position that counts along x and y, from the middle \[pilot voxel\].
    in_plane: [[f64; 2]; 2],
    /// The same along z, for the reference and for the target.
    heights: [[f64; 2]; 2],
}

/// Which volume a weight is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Reference,
    Target,
}

impl Frame {
    /// Position of voxel `index` along `axis` (0 x, 1 y, 2 z), from the middle \[pilot voxel\].
    pub(crate) fn position(&self, axis: usize, index: f64) -> f64 {
        (index + 0.5) * self.factor[axis] - 0.5 - self.middle[axis]
    }

    /// The other way: fractional index of a position.
    pub(crate) fn index(&self, axis: usize, position: f64) -> f64 {
        (position + self.middle[axis] + 0.5) / self.factor[axis] - 0.5
    }

    /// Weight of the voxel at `p`, 0 to 1: inside the field of view, away from the ends.
    pub(crate) fn weight(&self, side: Side, p: [f64; 3]) -> f64 {
        let heights = self.heights[usize::from(side == Side::Target)];
        if p[2] < heights[0] || p[2] > heights[1] {
            return 0.0;
        }
        if p.iter()
            .zip(self.in_plane)
            .any(|(&along, [low, high])| along < low || along > high)
        {
            return 0.0;
        }
        ((self.radius - p[0].hypot(p[1])) / self.taper).clamp(0.0, 1.0)
    }

    /// Weight in both volumes of the voxel at `p` of the reference that stands at `motion(p)` in the target.
    pub(crate) fn pair_weight(&self, p: [f64; 3], motion: &RigidMotion) -> f64 {
        let own = self.weight(Side::Reference, p);
        if own == 0.0 {
            0.0
        } else {
            own * self.weight(Side::Target, motion.apply(p))
        }
    }

    /// Largest distance from the axis that counts \[pilot voxel\].
    pub(crate) fn reach(&self) -> f64 {
        let corner = self.in_plane.map(|[low, high]| low.abs().max(high.abs()));
        self.radius.min(corner[0].hypot(corner[1])).max(1.0)
    }

    /// Whether the level has enough slices to see a shift along z.
    pub(crate) fn sees_z(&self) -> bool {
        self.shape[0] >= 4
    }
}

/// Slices at the ends in which nothing was reconstructed: one value throughout.
pub(crate) fn filled_slices(volume: ArrayView3<'_, f32>) -> [usize; 2] {
    let constant = |z: usize| {
        let slice = volume.index_axis(Axis(0), z);
        let first = finite(slice.first().copied().unwrap_or(0.0));
        slice.iter().all(|&v| finite(v) == first)
    };
    let n_z = volume.dim().0;
    let first = (0..n_z).find(|&z| !constant(z)).unwrap_or(n_z);
    let last = (first..n_z)
        .rev()
        .find(|&z| !constant(z))
        .map_or(first, |z| z + 1);
    [first, last]
}

/// What is common to all levels of a pair.
pub(crate) struct PairFrame {
    /// Shape of the pilots `[z, y, x]`.
    pub(crate) shape: [usize; 3],
    /// Radius of the field of view \[pilot voxel\].
    pub(crate) radius: f64,
    /// Slices with data in the reference and in the target.
    pub(crate) filled: [[usize; 2]; 2],
}

impl PairFrame {
    /// The frame of the level of `factors` `[z, y, x]`; `reach` voxels of the level at every border are left out.
    pub(crate) fn level(&self, factors: [usize; 3], reach: [usize; 3]) -> Frame {
        let shape = [0, 1, 2].map(|a| (self.shape[a] / factors[a]).max(1));
        let factor = [factors[2] as f64, factors[1] as f64, factors[0] as f64];
        let middle = [2, 1, 0].map(|a| (self.shape[a] as f64 - 1.0) / 2.0);
        let bounds = |axis: usize, first: f64, last: f64| {
            // `first`, `last`: positions of the outer voxels with data; reach voxels more are lost to smoothing
            let lost = reach[2 - axis] as f64 * factor[axis];
            [first + lost - 1e-9, last - lost + 1e-9]
        };
        let end = |axis: usize, side: f64| {
            let n = shape[2 - axis] as f64;
            let index = if side < 0.0 { 0.0 } else { n - 1.0 };
            (index + 0.5) * factor[axis] - 0.5 - middle[axis]
        };
        let in_plane = [0, 1].map(|axis| bounds(axis, end(axis, -1.0), end(axis, 1.0)));
        let heights = self.filled.map(|[first, last]| {
            // the first voxel of the level that holds no empty slice
            let first = first.div_ceil(factors[0]);
            let last = (last / factors[0]).min(shape[0]);
            let at = |index: f64| (index + 0.5) * factor[2] - 0.5 - middle[2];
            bounds(2, at(first as f64), at(last as f64 - 1.0))
        });
        // the zeros outside the field of view reach inwards by the kernel and by half a voxel of the level
        // (and a truncated sample has a bright rim there)
        let eroded = (self.radius - (reach[1] as f64 + 0.5) * factor[0].max(factor[1]))
            .min(0.94 * self.radius);
        let radius = eroded.max(0.5 * self.radius);
        let taper = (3.0 * factor[0].max(factor[1])).min(0.3 * radius).max(1e-6);
        Frame {
            shape,
            factor,
            middle,
            radius,
            taper,
            in_plane,
            heights,
        }
    }
}

impl Level {
    /// The part of a full-resolution level in which only `slices` of the reference count, with enough of the target
    /// around it for shifts up to `reach` slices.
    pub(crate) fn slab(&self, slices: Range<usize>, reach: usize) -> Level {
        let margin = reach + 3;
        let kept =
            slices.start.saturating_sub(margin)..(slices.end + margin).min(self.frame.shape[0]);
        let mut frame = self.frame.clone();
        let own = [
            frame.position(2, slices.start as f64),
            frame.position(2, slices.end as f64 - 1.0),
        ];
        frame.heights[0] = [
            own[0].max(frame.heights[0][0]) - 1e-9,
            own[1].min(frame.heights[0][1]) + 1e-9,
        ];
        frame.shape[0] = kept.len();
        frame.middle[2] -= kept.start as f64 * frame.factor[2];
        let part = |volume: &Array3<f32>| volume.slice(s![kept.clone(), .., ..]).to_owned();
        Level {
            reference: part(&self.reference),
            target: part(&self.target),
            frame,
        }
    }

    /// Bins by `factors` `[z, y, x]` and smooths.
    pub(crate) fn new(
        reference: ArrayView3<'_, f32>,
        target: ArrayView3<'_, f32>,
        pair: &PairFrame,
        factors: [usize; 3],
    ) -> Level {
        let mut reference = binned(reference, factors);
        let mut target = binned(target, factors);
        let (n_z, n_y, n_x) = reference.dim();
        // a gradient needs a neighbour on both sides, so one voxel is lost even without smoothing
        let reach = [n_z, n_y, n_x].map(|n| {
            if n >= LEAST_SMOOTHED {
                SMOOTHING_REACH + 1
            } else {
                usize::from(n >= 3)
            }
        });
        for volume in [&mut reference, &mut target] {
            for (axis, n) in [n_z, n_y, n_x].into_iter().enumerate() {
                if n >= LEAST_SMOOTHED {
                    smooth(volume, axis);
                }
            }
        }
        Level {
            frame: pair.level(factors, reach),
            reference,
            target,
        }
    }
}

/// What is not finite counts as 0.
fn finite(v: f32) -> f32 {
    if v.is_finite() { v } else { 0.0 }
}

/// Means of blocks of `factors` `[z, y, x]` voxels; what is not finite counts as 0; a rest at the end is left out.
pub(crate) fn binned(volume: ArrayView3<'_, f32>, factors: [usize; 3]) -> Array3<f32> {
    if factors == [1, 1, 1] {
        return volume.mapv(finite);
    }
    let (n_z, n_y, n_x) = volume.dim();
    let [f_z, f_y, f_x] = factors;
    let mut out =
        Array3::<f32>::zeros(((n_z / f_z).max(1), (n_y / f_y).max(1), (n_x / f_x).max(1)));
    let scale = 1.0 / (f_z * f_y * f_x) as f64;
    ndarray::Zip::indexed(out.axis_iter_mut(Axis(0))).par_for_each(|z, mut slice| {
        for ((y, x), value) in slice.indexed_iter_mut() {
            let block = volume.slice(s![
                z * f_z..(z + 1) * f_z,
                y * f_y..(y + 1) * f_y,
                x * f_x..(x + 1) * f_x
            ]);
            *value = (block.iter().map(|&v| f64::from(finite(v))).sum::<f64>() * scale) as f32;
        }
    });
    out
}

/// Binomial smoothing along one axis in place, edge values repeated.
pub(crate) fn smooth(volume: &mut Array3<f32>, axis: usize) {
    convolve(volume, axis, &BINOMIAL);
}

/// Convolution with an odd symmetric kernel along one axis, edge values repeated.
pub(crate) fn convolve(volume: &mut Array3<f32>, axis: usize, kernel: &[f32]) {
    let half = kernel.len() / 2;
    ndarray::Zip::from(volume.lanes_mut(Axis(axis))).par_for_each(|mut lane| {
        let n = lane.len();
        let old: Vec<f32> = (0..n + 2 * half)
            .map(|i| lane[i.saturating_sub(half).min(n - 1)])
            .collect();
        for (i, value) in lane.iter_mut().enumerate() {
            *value = kernel.iter().zip(&old[i..]).map(|(k, v)| k * v).sum();
        }
    });
}

/// Kernel of a Gaussian of `sigma` voxels, cut at three sigma, summing to 1.
pub(crate) fn gaussian(sigma: f64) -> Vec<f32> {
    let half = (3.0 * sigma).ceil() as i32;
    let raw: Vec<f64> = (-half..=half)
        .map(|i| (-0.5 * (f64::from(i) / sigma).powi(2)).exp())
        .collect();
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|v| (v / sum) as f32).collect()
}

/// Binning factors `[z, y, x]` from coarse to fine: powers of two, the coarsest with at most `longest` voxels a side.
pub(crate) fn schedule(shape: [usize; 3], longest: usize) -> Vec<[usize; 3]> {
    let mut factors = shape.map(|n| {
        let mut f = 1;
        while n / f > longest {
            f *= 2;
        }
        f
    });
    let mut all = vec![factors];
    while factors != [1, 1, 1] {
        let most = factors.into_iter().max().unwrap_or(1);
        factors = factors.map(|f| f.min(most / 2).max(1));
        all.push(factors);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_ends_at_full_resolution() {
        assert_eq!(
            schedule([24, 384, 256], 64),
            vec![[1, 8, 4], [1, 4, 4], [1, 2, 2], [1, 1, 1]]
        );
        assert_eq!(schedule([8, 64, 64], 64), vec![[1, 1, 1]]);
    }

    #[test]
    fn positions_of_a_binned_level_are_the_middles_of_its_blocks() {
        let pair = PairFrame {
            shape: [8, 12, 12],
            radius: 6.0,
            filled: [[0, 8], [0, 8]],
        };
        let frame = pair.level([2, 4, 4], [0, 0, 0]);
        // the pilot voxels 0..4 of 12 stand at -5.5 .. -2.5, their middle at -4
        assert!((frame.position(0, 0.0) + 4.0).abs() < 1e-12);
        assert!((frame.position(2, 3.0) - 3.0).abs() < 1e-12);
        assert!((frame.index(0, frame.position(0, 1.7)) - 1.7).abs() < 1e-12);
    }

    #[test]
    fn slices_without_data_at_the_ends_do_not_count() {
        let mut volume =
            Array3::<f32>::from_shape_fn((6, 4, 4), |(z, y, x)| (z * 16 + y * 4 + x) as f32);
        volume.slice_mut(s![0..2, .., ..]).fill(0.0);
        assert_eq!(filled_slices(volume.view()), [2, 6]);
        assert_eq!(filled_slices(Array3::zeros((3, 2, 2)).view()), [3, 3]);
    }
}
