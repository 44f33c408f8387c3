//! The two volumes as one stream of differences in one unit.

use std::ops::Range;

use ndarray::{Array3, Axis};
use rayon::prelude::*;

use super::Context;
use super::match_intensity::Match;
use super::region::Region;
use crate::error::{Error, Result};
use crate::io::volume::{VolumeMeta, VolumeReader};

/// Voxel sizes that differ by less are the same.
const SAME_SIZE: f64 = 1e-3;

pub(super) struct Inputs<'a> {
    reference: &'a dyn VolumeReader,
    target: &'a dyn VolumeReader,
    /// Into `unit`.
    factors: [f32; 2],
    pub(super) shape: [usize; 3],
    /// Unit of the change.
    pub(super) unit: String,
    pub(super) voxel_size_um: Option<f64>,
    /// Where both volumes are valid.
    pub(super) valid: Region,
    /// Grey values of the target against the reference.
    pub(super) matched: Match,
}

/// Slices of the difference and of the reference.
pub(super) struct Subtracted {
    pub(super) difference: Array3<f32>,
    pub(super) reference: Array3<f32>,
    /// Largest finite value of the reference in the valid region.
    pub(super) largest: f32,
}

impl<'a> Inputs<'a> {
    pub(super) fn new(
        reference: &'a dyn VolumeReader,
        target: &'a dyn VolumeReader,
        context: &Context<'_>,
    ) -> Result<Self> {
        let (a, b) = (reference.meta(), target.meta());
        if a.shape != b.shape {
            return Err(Error::Shape {
                what: format!(
                    "volume of {} against that of {}",
                    context.target, context.reference
                ),
                expected: a.shape.to_vec(),
                found: b.shape.to_vec(),
                hint: "both must be reconstructed with the same rows and crop, onto one grid"
                    .into(),
            });
        }
        let name = |meta: &VolumeMeta| {
            meta.voxel_size_um
                .map_or_else(|| "unknown".to_string(), |size| format!("{size} um"))
        };
        if let (Some(one), Some(other)) = (a.voxel_size_um, b.voxel_size_um)
            && (one - other).abs() > SAME_SIZE * one
        {
            return Err(Error::input(
                context.target,
                format!(
                    "its voxels are {} wide, those of {} {}",
                    name(b),
                    context.reference,
                    name(a)
                ),
                "volumes on one grid have one voxel size; state it with --set series.pixel_size_um=.. if one of the files is wrong",
            ));
        }
        let voxel_size_um = a.voxel_size_um.or(b.voxel_size_um);
        let (unit, factor) = per_cm(&a.unit, voxel_size_um);
        let (target_unit, target_factor) = per_cm(&b.unit, voxel_size_um);
        if unit != target_unit {
            return Err(Error::input(
                context.target,
                format!(
                    "its values are in {}, those of {} in {}",
                    b.unit, context.reference, a.unit
                ),
                "state the unit of both volumes, or reconstruct both alike",
            ));
        }
        let valid = Region::new(a.shape, context.valid_radius, context.valid_z.clone());
        Ok(Inputs {
            reference,
            target,
            factors: [factor as f32, target_factor as f32],
            shape: a.shape,
            unit,
            voxel_size_um,
            valid,
            matched: Match::NONE,
        })
    }

    /// The cylinder in which changes are measured.
    pub(super) fn measured_region(&self, context: &Context<'_>) -> Result<Region> {
        let config = context.config;
        let half_width = self.shape[1].max(self.shape[2]) as f64 / 2.0;
        let z = &self.valid.z;
        let skip = config.skip_slices;
        let z = z.start.max(skip)..z.end.min(self.shape[0].saturating_sub(skip));
        // beside the border of what is valid the smoothing has fewer voxels to average over, and more noise
        let radius = (config.radius * half_width).min(
            context.valid_radius - 2.0 * config.smooth_sigma - (config.smooth_median / 2) as f64,
        );
        let region = Region::new(self.shape, radius, z.start..z.end.max(z.start));
        if region.z.is_empty() || region.voxels_per_slice() == 0 {
            return Err(Error::input(
                context.target,
                format!(
                    "no voxel is left to measure in slices {}..{} within a radius of {radius:.1} voxels",
                    z.start, z.end
                ),
                "lower difference.skip_slices or raise difference.radius; the scans may also be shifted out of one another",
            ));
        }
        Ok(region)
    }

    /// Slices of reference and target in `unit`.
    pub(super) fn read_pair(&self, z: Range<usize>) -> Result<(Array3<f32>, Array3<f32>)> {
        let (reference, target) = rayon::join(
            || self.reference.read(z.clone()),
            || self.target.read(z.clone()),
        );
        let (mut reference, mut target) = (reference?, target?);
        for (volume, factor) in [
            (&mut reference, self.factors[0]),
            (&mut target, self.factors[1]),
        ] {
            if factor != 1.0 {
                volume.par_mapv_inplace(|value| value * factor);
            }
        }
        Ok((reference, target))
    }

    /// `target / gain - reference` of volumes that hold noise only, already read; 0 outside the valid region.
    pub(super) fn noise(
        &self,
        z: &Range<usize>,
        reference: Array3<f32>,
        target: Array3<f32>,
    ) -> Array3<f32> {
        let [a, b] = self.factors;
        let reference = reference.mapv_into(|value| value * a);
        self.subtract(z, &reference, target, b / self.matched.gain as f32, 0.0)
            .0
    }

    /// `(target - offset) / gain - reference`, 0 outside the valid region.
    pub(super) fn difference(&self, z: Range<usize>) -> Result<Subtracted> {
        let (reference, target) = self.read_pair(z.clone())?;
        let scale = (1.0 / self.matched.gain) as f32;
        let shift = (-self.matched.offset / self.matched.gain) as f32;
        let (difference, largest) = self.subtract(&z, &reference, target, scale, shift);
        Ok(Subtracted {
            difference,
            reference,
            largest,
        })
    }

    /// `target * scale + shift - reference` in slices `z`.
    fn subtract(
        &self,
        z: &Range<usize>,
        reference: &Array3<f32>,
        target: Array3<f32>,
        scale: f32,
        shift: f32,
    ) -> (Array3<f32>, f32) {
        // readers give arrays in standard layout; others are brought into it
        let mut target = if target.is_standard_layout() {
            target
        } else {
            target.as_standard_layout().into_owned()
        };
        let largest = target
            .axis_iter_mut(Axis(0))
            .into_par_iter()
            .zip(reference.axis_iter(Axis(0)))
            .enumerate()
            .map(|(index, (mut target, reference))| {
                let mut largest = 0f32;
                let inside = self.valid.z.contains(&(z.start + index));
                for (y, (mut target, reference)) in target
                    .outer_iter_mut()
                    .zip(reference.outer_iter())
                    .enumerate()
                {
                    let columns = if inside { self.valid.row(y) } else { 0..0 };
                    for (x, (value, &reference)) in target.iter_mut().zip(reference).enumerate() {
                        if columns.contains(&x) {
                            *value = *value * scale + shift - reference;
                            if reference.is_finite() {
                                largest = largest.max(reference.abs());
                            }
                        } else {
                            *value = 0.0;
                        }
                    }
                }
                largest
            })
            .reduce(|| 0.0, f32::max);
        (target, largest)
    }

    /// At most `slab` slices, a multiple of what is stored together where that fits.
    pub(super) fn slab_height(&self, slab: usize) -> usize {
        let together = self
            .reference
            .slices_together()
            .max(self.target.slices_together());
        slab_height(slab, together)
    }
}

/// Slices of a slab of `slab` at most, from readers that give so many `together`.
pub(super) fn slab_height(slab: usize, together: usize) -> usize {
    let slab = slab.max(1);
    if slab > together {
        slab / together * together
    } else {
        slab
    }
}

/// A volume in 1/px whose voxel size is known is one in 1/cm.
fn per_cm(unit: &str, voxel_size_um: Option<f64>) -> (String, f64) {
    match (unit, voxel_size_um) {
        ("1/px", Some(size)) => ("1/cm".to_string(), 1e4 / size),
        _ => (unit.to_string(), 1.0),
    }
}
