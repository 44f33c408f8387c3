//! A volume put on the grid of another by resampling its voxels.
//!
//! Cubic convolution (Keys 1981, IEEE Trans. ASSP 29:1153, a = -1/2) along z, y and x in turn where nothing is turned, else
//! along z and then in the plane.

use std::ops::Range;

use ndarray::{Array3, ArrayView3, Axis};
use rayon::prelude::*;

use crate::align::keys_weights;
use crate::error::{Error, Result};
use crate::io::volume::{VolumeMeta, VolumeReader};
use crate::pipeline::heights::Heights;
use crate::pipeline::reconstruct_scan::Motion;
use crate::reconstruct::geometry::InPlaneMotion;

/// A volume seen from the reference grid: voxel p is taken at R p + s by cubic convolution; NaN outside.
pub struct MovedVolume {
    pub(super) inner: Box<dyn VolumeReader>,
    pub(super) motion: Motion,
}

impl MovedVolume {
    /// `inner` moved back by `motion`, which does not tilt.
    pub(crate) fn new(inner: Box<dyn VolumeReader>, motion: Motion) -> Self {
        MovedVolume { inner, motion }
    }
}

impl VolumeReader for MovedVolume {
    fn meta(&self) -> &VolumeMeta {
        self.inner.meta()
    }

    fn read(&self, z: Range<usize>) -> Result<Array3<f32>> {
        let [n_z, n_y, n_x] = self.inner.meta().shape;
        let shift = self.motion.shift_z_px;
        let whole = shift.floor();
        let low = (z.start as f64 + whole - 1.0).clamp(0.0, n_z as f64 - 1.0) as usize;
        let high = ((z.end as f64 - 1.0 + whole + 2.0).clamp(0.0, n_z as f64 - 1.0)) as usize + 1;
        let window = self.inner.read(low..high)?;
        let weights = keys_weights(shift - whole).map(|weight| weight as f32);
        let mut out = Array3::<f32>::from_elem((z.len(), n_y, n_x), f32::NAN);
        let covered = Heights::shifted(shift).covered(&z, n_z, 1);
        let plane = Plane::new(self.motion.in_plane, [n_y, n_x]);
        let mut between = vec![0f32; n_y * n_x];
        for (k, mut slice) in out.axis_iter_mut(Axis(0)).enumerate() {
            if !covered.contains(&(z.start + k)) {
                continue;
            }
            let at = |tap: usize| {
                let row = (z.start + k) as f64 + whole + tap as f64 - 1.0;
                row.clamp(0.0, n_z as f64 - 1.0) as usize - low
            };
            mix(&window, std::array::from_fn(at), weights, &mut between);
            let slice = slice
                .as_slice_mut()
                .expect("a slice of a new array is contiguous");
            plane.resample(&between, slice);
        }
        Ok(out)
    }

    fn read_labels(&self, _z: Range<usize>) -> Result<Array3<u32>> {
        Err(Error::config(
            "volume",
            "labels",
            "labels cannot be interpolated; give the volume of attenuation",
        ))
    }

    fn bytes_per_slice(&self) -> u64 {
        // the window beyond the slab, and a slice between two others
        let [_, n_y, n_x] = self.inner.meta().shape;
        self.inner.bytes_per_slice() + (5 * n_y * n_x * 4) as u64
    }
}

/// The sum of four slices of `window` by their weights. One without weight is not looked at: its NaN would count.
fn mix(window: &Array3<f32>, slices: [usize; 4], weights: [f32; 4], out: &mut [f32]) {
    let n_x = window.len_of(Axis(2));
    out.par_chunks_mut(n_x.max(1))
        .enumerate()
        .for_each(|(row, out)| {
            out.fill(0.0);
            for (slice, weight) in slices.into_iter().zip(weights).filter(|tap| tap.1 != 0.0) {
                let line = line(&window.view(), slice, row);
                for (sum, value) in out.iter_mut().zip(line) {
                    *sum += weight * value;
                }
            }
        });
}

fn line<'a>(window: &ArrayView3<'a, f32>, slice: usize, row: usize) -> &'a [f32] {
    window
        .index_axis_move(Axis(0), slice)
        .index_axis_move(Axis(0), row)
        .to_slice()
        .expect("a slab is in standard layout")
}

/// Where the voxels of a slice `[y, x]` come from.
struct Plane {
    motion: InPlaneMotion,
    shape: [usize; 2],
}

impl Plane {
    fn new(motion: InPlaneMotion, shape: [usize; 2]) -> Plane {
        Plane { motion, shape }
    }

    /// Fills `out` where it comes from within `slice`; the rest is left.
    fn resample(&self, slice: &[f32], out: &mut [f32]) {
        let n_x = self.shape[1];
        let rows = out.par_chunks_mut(n_x.max(1)).enumerate();
        if self.motion.rotation_rad == 0.0 {
            rows.for_each_init(Vec::new, |padded, (j, out)| {
                self.shifted(slice, j, padded, out);
            });
        } else {
            rows.for_each(|(j, out)| self.turned(slice, j, out));
        }
    }

    /// Row `j` of a slice that is only shifted: every voxel lies equally between its neighbours.
    fn shifted(&self, slice: &[f32], j: usize, padded: &mut Vec<f32>, out: &mut [f32]) {
        let [n_y, n_x] = self.shape;
        let InPlaneMotion {
            shift_x_px,
            shift_y_px,
            ..
        } = self.motion;
        let (last_x, at_y) = (n_x as f64 - 1.0, j as f64 + shift_y_px);
        let from = (-shift_x_px).ceil().clamp(0.0, n_x as f64) as usize;
        let to = (last_x - shift_x_px).floor().clamp(-1.0, last_x) + 1.0;
        let to = to as usize;
        if !(0.0..=n_y as f64 - 1.0).contains(&at_y) || from >= to {
            return;
        }
        let whole_y = at_y.floor();
        let rows = keys_weights(at_y - whole_y).map(|weight| weight as f32);
        // one more column before the first, and two after the last, as `clamp` would give them
        padded.clear();
        padded.resize(n_x + 3, 0.0);
        for (tap, weight) in rows.into_iter().enumerate() {
            let row = clamped(whole_y + tap as f64 - 1.0, n_y);
            let line = &slice[row * n_x..(row + 1) * n_x];
            for (sum, value) in padded[1..=n_x].iter_mut().zip(line) {
                *sum += weight * value;
            }
        }
        padded[0] = padded[1];
        let last = padded[n_x];
        padded[n_x + 1..].fill(last);
        let whole_x = shift_x_px.floor();
        let [a, b, c, d] = keys_weights(shift_x_px - whole_x).map(|weight| weight as f32);
        let first = (from as f64 + whole_x) as usize;
        let tap = |k: usize| &padded[first + k..][..to - from];
        let left = tap(0).iter().zip(tap(1));
        let right = tap(2).iter().zip(tap(3));
        let taps = left.zip(right);
        for (out, ((va, vb), (vc, vd))) in out[from..to].iter_mut().zip(taps) {
            *out = a * va + b * vb + c * vc + d * vd;
        }
    }

    /// Row `j` of a slice that is turned as well.
    fn turned(&self, slice: &[f32], j: usize, out: &mut [f32]) {
        let [n_y, n_x] = self.shape;
        let (last_y, last_x) = (n_y as f64 - 1.0, n_x as f64 - 1.0);
        let (middle_y, middle_x) = (last_y / 2.0, last_x / 2.0);
        let (sin, cos) = self.motion.rotation_rad.sin_cos();
        let y = j as f64 - middle_y;
        for (i, value) in out.iter_mut().enumerate() {
            let x = i as f64 - middle_x;
            let at_x = cos * x - sin * y + self.motion.shift_x_px + middle_x;
            let at_y = sin * x + cos * y + self.motion.shift_y_px + middle_y;
            let inside = at_x >= 0.0 && at_y >= 0.0 && at_x <= last_x && at_y <= last_y;
            if !inside {
                continue;
            }
            // nothing is below zero here, and a conversion is cheaper than `floor`
            let (column, row) = (at_x as usize, at_y as usize);
            let across = keys_weights(at_x - column as f64).map(|weight| weight as f32);
            let down = keys_weights(at_y - row as f64).map(|weight| weight as f32);
            let whole = column > 0 && row > 0 && column + 2 < n_x && row + 2 < n_y;
            *value = if whole {
                let first = (row - 1) * n_x + column - 1;
                let line = |tap: usize| -> f32 {
                    let taps = &slice[first + tap * n_x..][..4];
                    taps.iter().zip(across).map(|(v, weight)| v * weight).sum()
                };
                (0..4).map(|tap| down[tap] * line(tap)).sum()
            } else {
                let at = |tap_y: usize, tap_x: usize| {
                    let row = clamped(row as f64 + tap_y as f64 - 1.0, n_y);
                    slice[row * n_x + clamped(column as f64 + tap_x as f64 - 1.0, n_x)]
                };
                let line = |tap_y: usize| -> f32 {
                    (0..4).map(|tap_x| across[tap_x] * at(tap_y, tap_x)).sum()
                };
                (0..4).map(|tap| down[tap] * line(tap)).sum()
            };
        }
    }
}

/// The row or column at a whole place, the first or last beyond the ends.
fn clamped(at: f64, n: usize) -> usize {
    at.clamp(0.0, n as f64 - 1.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Quadratic(VolumeMeta);

    fn value(z: f64, y: f64, x: f64) -> f64 {
        0.01 * x * x - 0.02 * y * y + 0.03 * x * y + 0.05 * z * z - z + 0.2 * x
    }

    impl VolumeReader for Quadratic {
        fn meta(&self) -> &VolumeMeta {
            &self.0
        }
        fn read(&self, z: Range<usize>) -> Result<Array3<f32>> {
            let [_, n_y, n_x] = self.0.shape;
            Ok(Array3::from_shape_fn((z.len(), n_y, n_x), |(k, j, i)| {
                value((z.start + k) as f64, j as f64 - 15.0, i as f64 - 20.0) as f32
            }))
        }
        fn read_labels(&self, _: Range<usize>) -> Result<Array3<u32>> {
            unreachable!("no labels here")
        }
        fn bytes_per_slice(&self) -> u64 {
            0
        }
    }

    fn meta() -> VolumeMeta {
        VolumeMeta {
            shape: [20, 31, 41],
            voxel_type: crate::io::volume::VoxelType::F32,
            unit: "1/cm".into(),
            voxel_size_um: None,
            first_row: 0,
            provenance: serde_json::Value::Null,
        }
    }

    /// Shifted alone, turned as well, and shifted by whole voxels along z.
    #[test]
    fn a_moved_volume_is_the_function_at_moved_points_and_nothing_outside() {
        for (shift, turn_deg) in [
            ([1.3, -0.6, 2.4], 5.0),
            ([1.3, -0.6, 2.4], 0.0),
            ([-7.8, 3.0, -1.0], 0.0),
        ] {
            let motion = Motion::from_alignment(shift, turn_deg);
            let moved = MovedVolume::new(Box::new(Quadratic(meta())), motion);
            let slab = moved.read(4..12).unwrap();
            let (sin, cos) = turn_deg.to_radians().sin_cos();
            let mut seen = 0;
            for ((k, j, i), &found) in slab.indexed_iter() {
                let (x, y) = (i as f64 - 20.0, j as f64 - 15.0);
                let at = [
                    (4 + k) as f64 + shift[2],
                    sin * x + cos * y + shift[1],
                    cos * x - sin * y + shift[0],
                ];
                // from the nearest edge of the slice, negative beyond it
                let within = (15.0 - at[1].abs()).min(20.0 - at[2].abs());
                if within < -1e-9 {
                    assert!(found.is_nan(), "{k} {j} {i}: {found}");
                } else if within > 1e-9 {
                    assert!(found.is_finite(), "{k} {j} {i}");
                }
                // where the ends are held on to, the function is not met
                if within < 1.0 {
                    continue;
                }
                seen += 1;
                // cubic convolution reproduces a quadratic exactly; the roundings of three times four f32 products of values below 64 are left
                let off = f64::from(found) - value(at[0], at[1], at[2]);
                assert!(
                    off.abs() < 24.0 * 64.0 * f64::from(f32::EPSILON),
                    "{k} {j} {i}: {off}"
                );
            }
            assert!(seen > 4000, "{seen}");
            let off = f64::from(slab[[7, 20, 22]]) - value(11.0, 5.0, 2.0);
            assert!(off.abs() > 0.1, "the check is blind");
        }
        let motion = Motion::from_alignment([0.0, 0.0, 2.4], 0.0);
        let moved = MovedVolume::new(Box::new(Quadratic(meta())), motion);
        assert!(
            moved.read(18..20).unwrap().iter().all(|v| v.is_nan()),
            "above the volume there is nothing"
        );
    }
}
