//! Synthetic series with their ground truth.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::progress::Progress;

/// Size and kind of a synthetic series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Small enough for git: the sample in `sample_projections`.
    Sample,
    /// The demo: a pristine scan and two later ones.
    Demo,
    /// One large scan, to measure memory and speed.
    Large,
}

/// Writes a series (`series.toml`, scans, `truth.json`) into `folder`.
///
/// # Errors
/// Those of writing; [`crate::Error::OutputExists`] without `overwrite`.
pub fn write(folder: &Path, preset: Preset, overwrite: bool, progress: &Progress) -> Result<Truth> {
    let _ = (folder, preset, overwrite, progress);
    unimplemented!("simulate")
}

/// What was simulated: `truth.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// Size of a pixel \[um\].
    pub pixel_size_um: f64,
    /// Rotation axis at the middle row \[px\], per scan.
    pub axis_px: Vec<f64>,
    /// The scans after the first, compared with the first.
    pub scans: Vec<ScanTruth>,
}

/// One later scan against the first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScanTruth {
    /// Name of the scan.
    pub name: String,
    /// `[x, y, z]` as in `alignment.json` \[voxel\].
    pub shift_voxel: [f64; 3],
    /// `[rx, ry, rz]` as in `alignment.json` \[degrees\].
    pub rotation_deg: [f64; 3],
    /// Per slice of the reference grid: sum over the voxels of the increase \[1/cm\].
    pub increase_sum_per_cm: Vec<f64>,
    /// Per slice: sum of the decrease, positive \[1/cm\].
    pub decrease_sum_per_cm: Vec<f64>,
    /// Masses \[ug\].
    pub increase_ug: f64,
    /// Positive \[ug\].
    pub decrease_ug: f64,
    /// Grains that appeared.
    pub increase_grains: usize,
    /// Grains that vanished.
    pub decrease_grains: usize,
}
