//! Voxel-by-voxel difference of two volumes on one grid, and what is measured on it.

use std::path::Path;

use crate::config::{DifferenceConfig, MassConfig, VolumeFormat};
use crate::error::Result;
use crate::io::volume::VolumeReader;
use crate::progress::Progress;
use crate::record::DifferenceRecord;

/// Everything about one difference that is not in the volumes.
pub struct Context<'a> {
    /// Name of the target scan.
    pub target: &'a str,
    /// Name of the reference scan.
    pub reference: &'a str,
    /// `[difference]`
    pub config: &'a DifferenceConfig,
    /// `[mass]`
    pub mass: Option<&'a MassConfig>,
    /// Charge passed between the two scans \[mAh/cm2\].
    pub charge_mah_cm2: Option<f64>,
    /// Format of the difference and the labels.
    pub format: VolumeFormat,
    /// Slices held in memory at once, from the plan.
    pub slab: usize,
    /// Radius around the middle of a slice within which both scans are valid \[voxel\].
    pub valid_radius: f64,
    /// Slices within which both scans are valid (the z shift may leave some at the ends empty).
    pub valid_z: std::ops::Range<usize>,
    /// Replace existing output.
    pub overwrite: bool,
    /// Provenance written into the volumes.
    pub provenance: serde_json::Value,
    /// Bars.
    pub progress: &'a Progress,
}

/// Subtracts `reference` from `target` slab by slab and writes everything of `differences/<scan>/` but the figures.
///
/// # Errors
/// [`crate::Error::Shape`] when the volumes do not fit; those of reading and writing.
pub fn run(
    reference: &dyn VolumeReader,
    target: &dyn VolumeReader,
    folder: &Path,
    context: &Context<'_>,
) -> Result<DifferenceRecord> {
    let _ = (reference, target, folder, context);
    unimplemented!("difference")
}
/// x
pub const BYTES_PER_VOXEL: u64 = 24;
/// x
#[must_use]
pub fn fixed_bytes(shape: [usize; 3]) -> u64 { (shape[1] * shape[2] * 32) as u64 }
