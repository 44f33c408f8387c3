//! One scan to slices: rows, slabs, reconstruction.

use std::ops::Range;

use ndarray::{Array3, ArrayView3, s};

use crate::center::AxisFit;
use crate::config::ReconstructConfig;
use crate::error::Result;
use crate::gpu::Device;
use crate::pipeline::rows::{RowSource, ShiftedRows};
use crate::progress::Stage;
use crate::reconstruct::geometry::{Grid, InPlaneMotion, rays};
use crate::reconstruct::{Reconstructor, SliceJob};
use crate::record::ValueRange;

/// How the sample of a scan stands against its reference: in the slice plane, and along the height.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Motion {
    /// In the slice plane.
    pub in_plane: InPlaneMotion,
    /// Slice z of the reference is row z + this \[px\].
    pub shift_z_px: f64,
}

impl Motion {
    /// From an alignment: `[x, y, z]` \[voxel\] and the turn about the rotation axis \[degrees\].
    #[must_use]
    pub fn from_alignment(shift_voxel: [f64; 3], turn_deg: f64) -> Motion {
        Motion {
            in_plane: InPlaneMotion {
                shift_x_px: shift_voxel[0],
                shift_y_px: shift_voxel[1],
                rotation_rad: turn_deg.to_radians(),
            },
            shift_z_px: shift_voxel[2],
        }
    }

    /// This motion after a `residual` was found on a volume that was already put on the grid with this one.
    ///
    /// A point p of the reference was found at R' p + d there, which stands at R (R' p + d) + s in the scan.
    #[must_use]
    pub fn followed_by(self, residual: Motion) -> Motion {
        let (sin, cos) = self.in_plane.rotation_rad.sin_cos();
        let (dx, dy) = (residual.in_plane.shift_x_px, residual.in_plane.shift_y_px);
        Motion {
            in_plane: InPlaneMotion {
                shift_x_px: self.in_plane.shift_x_px + cos * dx - sin * dy,
                shift_y_px: self.in_plane.shift_y_px + sin * dx + cos * dy,
                rotation_rad: self.in_plane.rotation_rad + residual.in_plane.rotation_rad,
            },
            shift_z_px: self.shift_z_px + residual.shift_z_px,
        }
    }

    /// `[x, y, z]` \[voxel\]
    #[must_use]
    pub fn shift_voxel(&self) -> [f64; 3] {
        [
            self.in_plane.shift_x_px,
            self.in_plane.shift_y_px,
            self.shift_z_px,
        ]
    }

    /// The same motion in voxels `binning` times larger.
    #[must_use]
    pub fn binned(self, binning: usize) -> Motion {
        let scale = 1.0 / binning as f64;
        Motion {
            in_plane: InPlaneMotion {
                shift_x_px: self.in_plane.shift_x_px * scale,
                shift_y_px: self.in_plane.shift_y_px * scale,
                ..self.in_plane
            },
            shift_z_px: self.shift_z_px * scale,
        }
    }
}

/// What to reconstruct of a scan; lengths in pixels of the rows that the source gives.
pub struct ScanJob<'a> {
    /// Angle of each projection \[rad\].
    pub angles_rad: &'a [f64],
    /// Detector columns.
    pub n_cols: usize,
    /// Slices, as rows of the reference.
    pub slices: Range<usize>,
    /// Slices at a time.
    pub slab: usize,
    /// The voxels of a slice.
    pub grid: Grid,
    /// Motion against the reference.
    pub motion: Motion,
    /// Rotation axis of this scan.
    pub axis: &'a AxisFit,
    /// `[reconstruct]`
    pub config: &'a ReconstructConfig,
    /// Multiplies attenuation per pixel.
    pub scale: f64,
}

impl ScanJob<'_> {
    /// Reconstructs slab by slab; `consume` gets the index of the first slice (0 at `slices.start`) and the slices.
    /// Slices above or below the detector are NaN.
    ///
    /// # Errors
    /// Those of the source, the device and `consume`.
    pub fn run(
        &self,
        source: &mut dyn RowSource,
        device: &Device,
        stage: &Stage,
        mut consume: impl FnMut(usize, ArrayView3<'_, f32>) -> Result<()>,
    ) -> Result<Reconstructed> {
        let rays = rays(self.angles_rad, self.motion.in_plane);
        let job = SliceJob::new(self.n_cols, rays, self.grid, self.config, self.scale);
        let mut reconstructor = Reconstructor::new(job, device)?;
        let mut rows = ShiftedRows::new(source, self.motion.shift_z_px);
        let mut range = RangeSum::default();
        let mut covered = self.slices.end..self.slices.start;
        let mut off_device = reconstructor.off_device().or_else(|| rows.off_device());
        if let Some(reason) = &off_device {
            log::debug!("corrections on the CPU: {reason}");
        }
        let slab_rows = self.slab.min(self.slices.len()).max(1);
        let mut volume = Array3::<f32>::zeros((slab_rows, self.grid.n_y, self.grid.n_x));
        for start in self.slices.clone().step_by(slab_rows) {
            let slices = start..(start + slab_rows).min(self.slices.end);
            let mut out = volume.slice_mut(s![..slices.len(), .., ..]);
            let axes = |covered: &Range<usize>| -> Vec<f64> {
                let at = |z| self.axis.at(z as f64 + self.motion.shift_z_px);
                covered.clone().map(at).collect()
            };
            let part = |covered: &Range<usize>| covered.start - start..covered.end - start;
            let mut slab = None;
            if off_device.is_none() {
                let (covered, counts) = rows.counts(slices.clone())?;
                match counts.map(|counts| reconstructor.takes(&counts).map(|()| counts)) {
                    None => slab = Some((covered, None)),
                    Some(Ok(counts)) => slab = Some((covered, Some(counts))),
                    Some(Err(error)) => {
                        log::warn!("corrections on the CPU: {error}");
                        off_device = Some(error.to_string());
                    }
                }
            }
            let has_data = match slab {
                Some((covered, counts)) => {
                    if covered.len() < slices.len() {
                        out.fill(f32::NAN);
                    }
                    if let Some(counts) = counts {
                        let out = out.slice_mut(s![part(&covered), .., ..]);
                        let touched =
                            reconstructor.slab_of_counts(&counts, &axes(&covered), out)?;
                        rows.touched(touched);
                    }
                    covered
                }
                None => {
                    let slab = rows.slab(slices.clone())?;
                    if slab.covered.len() < slices.len() {
                        out.fill(f32::NAN);
                    }
                    if !slab.covered.is_empty() {
                        let out = out.slice_mut(s![part(&slab.covered), .., ..]);
                        reconstructor.slab(slab.sinograms.view(), &axes(&slab.covered), out)?;
                    }
                    slab.covered
                }
            };
            if !has_data.is_empty() {
                range.add(out.slice(s![part(&has_data), .., ..]));
                covered = covered.start.min(has_data.start)..covered.end.max(has_data.end);
            }
            consume(start - self.slices.start, out.view())?;
            stage.inc(slices.len() as u64);
        }
        if covered.start >= covered.end {
            covered = 0..0;
        } else {
            covered = covered.start - self.slices.start..covered.end - self.slices.start;
        }
        Ok(Reconstructed {
            range: range.finish(),
            covered,
            method: reconstructor.describe(),
        })
    }
}

/// What came out of a reconstruction beside the slices.
#[derive(Debug, Clone)]
pub struct Reconstructed {
    /// Values of the volume.
    pub range: ValueRange,
    /// Slices that have data, from 0.
    pub covered: Range<usize>,
    /// Method, filter, device.
    pub method: String,
}

#[derive(Default)]
struct RangeSum {
    sum: f64,
    count: u64,
    not_finite: u64,
    bounds: Option<(f32, f32)>,
}

impl RangeSum {
    fn add(&mut self, slices: ArrayView3<'_, f32>) {
        for &value in slices {
            if value.is_finite() {
                self.sum += f64::from(value);
                self.count += 1;
                let (low, high) = self.bounds.unwrap_or((value, value));
                self.bounds = Some((low.min(value), high.max(value)));
            } else {
                self.not_finite += 1;
            }
        }
    }

    fn finish(self) -> ValueRange {
        let (min, max) = self.bounds.unwrap_or((0.0, 0.0));
        ValueRange {
            min: f64::from(min),
            max: f64::from(max),
            mean: self.sum / self.count.max(1) as f64,
            not_finite: self.not_finite,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn motions_compose_as_points_move() {
        let first = Motion::from_alignment([2.0, -1.0, 3.0], 10.0);
        let residual = Motion::from_alignment([0.5, 0.25, -0.5], -2.0);
        let apply = |m: &Motion, p: [f64; 2]| {
            let (sin, cos) = m.in_plane.rotation_rad.sin_cos();
            [
                cos * p[0] - sin * p[1] + m.in_plane.shift_x_px,
                sin * p[0] + cos * p[1] + m.in_plane.shift_y_px,
            ]
        };
        let both = first.followed_by(residual);
        let point = [7.0, 11.0];
        let (one, two) = (apply(&both, point), apply(&first, apply(&residual, point)));
        assert!((one[0] - two[0]).abs() < 1e-12 && (one[1] - two[1]).abs() < 1e-12);
        assert!((both.shift_z_px - 2.5).abs() < 1e-12);
    }
}
