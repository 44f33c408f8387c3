//! Rigid motion between two scans, from pilot volumes.

use ndarray::Array3;

use crate::config::AlignConfig;
use crate::error::Result;
use crate::record::AlignmentRecord;

/// Two pilot volumes on the same grid, `[z, y, x]`, with what is known of them.
pub struct PilotPair {
    /// The reference.
    pub reference: Array3<f32>,
    /// The target, on its own unmoved grid (or on the grid of an earlier estimate).
    pub target: Array3<f32>,
    /// Voxels of the full volume per voxel of the pilot, along every axis.
    pub binning: usize,
    /// Voxels outside this radius \[pilot voxel\] around the middle of a slice are not used.
    pub radius: f64,
}

/// Finds how the target's sample is moved relative to the reference, in voxels of the full volume.
///
/// # Errors
/// [`crate::Error::Shape`] when the volumes differ in shape; [`crate::Error::Config`] for a method that does not fit.
pub fn register(pair: &PilotPair, config: &AlignConfig) -> Result<AlignmentRecord> {
    let _ = (pair, config);
    unimplemented!("align")
}
/// x
#[must_use]
pub fn bytes_per_pilot_voxel() -> u64 { 64 }
