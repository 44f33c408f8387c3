//! Volumes `[z, y, x]` written and read by slabs of slices.

use std::ops::Range;
use std::path::Path;

use ndarray::{Array3, ArrayView3};
use serde::{Deserialize, Serialize};

use crate::config::VolumeFormat;
use crate::error::Result;

/// Element type of a stored volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VoxelType {
    /// Attenuation or its change.
    F32,
    /// Labels.
    U32,
}

/// What is written inside every volume, whatever the format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeMeta {
    /// `[z, y, x]`
    pub shape: [usize; 3],
    /// Element type.
    pub voxel_type: VoxelType,
    /// Unit of the values: `1/cm`, `1/px`, or `label`.
    pub unit: String,
    /// Edge of a voxel \[um\], where known.
    pub voxel_size_um: Option<f64>,
    /// Detector row of slice 0.
    pub first_row: usize,
    /// Conventions, program, config, inputs.
    pub provenance: serde_json::Value,
}

/// A volume open for reading.
pub trait VolumeReader: Send + Sync {
    /// Shape, units, provenance.
    fn meta(&self) -> &VolumeMeta;
    /// Slices `z` as f32 (labels too), `[z, y, x]`.
    ///
    /// # Errors
    /// A missing, truncated or undecodable part is an error; never zeros.
    fn read(&self, z: Range<usize>) -> Result<Array3<f32>>;
    /// Slices `z` of a label volume.
    ///
    /// # Errors
    /// As for [`VolumeReader::read`], and when the volume holds no labels.
    fn read_labels(&self, z: Range<usize>) -> Result<Array3<u32>>;
    /// Bytes of memory that a read of one slice needs beside its result.
    fn bytes_per_slice(&self) -> u64;
}

/// A volume being written, slabs in ascending order of z without gaps; it appears under its name when finished.
pub trait VolumeWriter: Send {
    /// Appends slices that start at `z0`.
    ///
    /// # Errors
    /// Those of the file system, and slabs out of order.
    fn write(&mut self, z0: usize, slices: ArrayView3<'_, f32>) -> Result<()>;
    /// Appends label slices that start at `z0`.
    ///
    /// # Errors
    /// As for [`VolumeWriter::write`].
    fn write_labels(&mut self, z0: usize, slices: ArrayView3<'_, u32>) -> Result<()>;
    /// Completes the volume (smaller scales, checksums) and gives it its name.
    ///
    /// # Errors
    /// Those of the file system, and missing slices.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Starts a volume at `path` (which gets no suffix added).
///
/// # Errors
/// [`crate::Error::OutputExists`] without `overwrite`; those of the file system.
pub fn create(path: &Path, format: VolumeFormat, meta: &VolumeMeta, overwrite: bool) -> Result<Box<dyn VolumeWriter>> {
    let _ = (path, format, meta, overwrite);
    unimplemented!("volume::create")
}

/// Opens a volume of any of our formats, or a TIFF stack of other software.
///
/// # Errors
/// What is not a volume, with what was found.
pub fn open(path: &Path) -> Result<Box<dyn VolumeReader>> {
    let _ = path;
    unimplemented!("volume::open")
}
