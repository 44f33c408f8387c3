//! Volumes `[z, y, x]` written and read by slabs of slices.
//!
//! Four formats hold the same things: the voxels, their unit, the size of a voxel, the provenance, and a BLAKE3
//! checksum per part.
//!
//! | format | voxels | the rest |
//! |---|---|---|
//! | OME-Zarr 0.5 | sharded Zarr v3 arrays `0`, `1`, ... each half as large as the one before | group attributes `tomodelta`, `0/checksums.json` |
//! | TIFF | `slice_00000.tif`, ... | `volume.json`, `checksums.json`, tags of every file |
//! | HDF5 | `/volume`, one chunk per slice | attributes of `/volume`, `/volume_blake3` |
//! | npy | one C-ordered array | `NAME.json` beside it |
//!
//! A volume appears under its name when it is complete. A part that is missing, short or damaged is an error when it
//! is read; no reader makes up zeros. Labels are u32; read as f32 they are exact up to 16 777 216.

mod behind;
mod checksum;
mod hdf5;
mod journal;
mod npy;
pub(crate) mod partial;
#[cfg(test)]
mod tests;
mod tiff;
mod writer;
mod zarr;

use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::{Array3, ArrayView3};
use serde::{Deserialize, Serialize};

use crate::config::VolumeFormat;
use crate::error::{Error, Result};
use crate::io::stall::watched;

pub use checksum::VerifyReport;
pub use journal::{Journaled, Kept};

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
    /// Slices that are stored together: reads of aligned multiples of this many decode every part once.
    fn slices_together(&self) -> usize {
        1
    }
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
    /// Slices from 0 on that a later process could read back if this one died now.
    fn stored(&self) -> usize;
    /// Slices `z` that this writer, or one before it at the same place, has stored.
    ///
    /// # Errors
    /// Slices that are not there or damaged, and formats that cannot be read before they are finished (HDF5).
    fn read_back(&self, z: Range<usize>) -> Result<Array3<f32>>;
    /// What is unfinished stays on the disk when the writer is dropped, for one that goes on with it.
    fn keep_when_dropped(&mut self);
    /// The hidden folder in which the volume is built.
    fn folder(&self) -> &Path;
}

/// What the caller knows of a volume that does not say it itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hints {
    /// Unit of the values, e.g. `1/cm`.
    pub unit: Option<String>,
    /// Edge of a voxel \[um\].
    pub voxel_size_um: Option<f64>,
}

/// Unit of a volume that does not state one.
pub const UNIT_UNKNOWN: &str = "unknown";

/// The name of a volume in its folder: `volume.ome.zarr`, `volume` (a folder of TIFF files), `volume.h5`, `volume.npy`.
#[must_use]
pub fn file_name(stem: &str, format: VolumeFormat) -> String {
    match format {
        VolumeFormat::Zarr => format!("{stem}.ome.zarr"),
        VolumeFormat::Tiff => stem.to_string(),
        VolumeFormat::Hdf5 => format!("{stem}.h5"),
        VolumeFormat::Npy => format!("{stem}.npy"),
    }
}

/// Refuses an output that exists, before any work is done for it.
///
/// # Errors
/// [`crate::Error::OutputExists`] without `overwrite`; [`crate::Error::Input`] for something that no volume writer of
/// this program made, which is never replaced.
pub fn check_output(path: &Path, overwrite: bool) -> Result<()> {
    partial::check_target(path, overwrite)
}

/// Starts a volume at `path` (which gets no suffix added).
///
/// # Errors
/// [`crate::Error::OutputExists`] without `overwrite`; [`crate::Error::Input`] where `overwrite` would replace something
/// that is not a volume of this program; those of the file system.
pub fn create(
    path: &Path,
    format: VolumeFormat,
    meta: &VolumeMeta,
    overwrite: bool,
) -> Result<Box<dyn VolumeWriter>> {
    create_in(path, format, meta, overwrite, false)
}

/// As [`create`]; with `again`, what an earlier writer left unfinished stays where it is.
fn create_in(
    path: &Path,
    format: VolumeFormat,
    meta: &VolumeMeta,
    overwrite: bool,
    again: bool,
) -> Result<Box<dyn VolumeWriter>> {
    let partial = if again {
        partial::Partial::start_again(path, overwrite)?
    } else {
        partial::Partial::start(path, overwrite)?
    };
    match format {
        VolumeFormat::Zarr => zarr::create(partial, meta),
        VolumeFormat::Tiff => tiff::create(partial, meta),
        VolumeFormat::Hdf5 => hdf5::create(partial, meta),
        VolumeFormat::Npy => npy::create(partial, meta),
    }
}

/// Writes a part of a volume, unless it is there already, byte for byte: an earlier run may have stored it.
fn store_part(path: &Path, bytes: &[u8]) -> Result<()> {
    watched(path, || {
        let there = std::fs::metadata(path).is_ok_and(|meta| meta.len() == bytes.len() as u64)
            && std::fs::read(path).is_ok_and(|old| old == bytes);
        if there {
            return Ok(());
        }
        std::fs::write(path, bytes).map_err(Error::io("write", path))
    })
}

/// Bytes on the disk of a volume of which the share `filled` is not all one value: as they usually are, and at most.
#[must_use]
pub fn stored_bytes(
    format: VolumeFormat,
    shape: [usize; 3],
    voxel_type: VoxelType,
    filled: f64,
) -> [u64; 2] {
    match format {
        VolumeFormat::Zarr => zarr::stored_bytes(shape, voxel_type, filled),
        VolumeFormat::Tiff | VolumeFormat::Hdf5 | VolumeFormat::Npy => {
            [4 * shape.iter().product::<usize>() as u64; 2]
        }
    }
}

/// How many of the `stored` bytes of a volume are in the system's cache of files when it is finished.
#[must_use]
pub fn cached_bytes(format: VolumeFormat, shape: [usize; 3], stored: u64) -> u64 {
    match format {
        VolumeFormat::Zarr => {
            behind::kept_in_cache(4 * shape.iter().product::<usize>() as u64, stored)
        }
        VolumeFormat::Tiff | VolumeFormat::Hdf5 | VolumeFormat::Npy => stored,
    }
}

/// Bytes of memory that a writer holds beside the slab it is given.
///
/// The Zarr writer keeps one layer of chunks (2 to 64 slices, at most 48 MiB where 2 slices fit into that) of every
/// scale, and one encoded shard; the others keep less than two slices per thread.
#[must_use]
pub fn writer_bytes(format: VolumeFormat, shape: [usize; 3]) -> u64 {
    let slice = 4 * shape[1] as u64 * shape[2] as u64;
    let threads = rayon::current_num_threads() as u64;
    match format {
        VolumeFormat::Zarr => zarr::writer_bytes(shape),
        VolumeFormat::Tiff => 2 * slice * threads,
        VolumeFormat::Hdf5 => 2 * slice,
        VolumeFormat::Npy => 1 << 16,
    }
}

/// Bytes of memory that a reader of a volume of ours holds beside the slices that it gives: what
/// [`VolumeReader::bytes_per_slice`] says, before there is a volume.
#[must_use]
pub fn reader_bytes(format: VolumeFormat, shape: [usize; 3]) -> u64 {
    let slice = 4 * shape[1] as u64 * shape[2] as u64;
    match format {
        VolumeFormat::Zarr => zarr::reader_bytes(shape),
        VolumeFormat::Tiff => tiff::reader_bytes(shape),
        VolumeFormat::Npy => slice,
        VolumeFormat::Hdf5 => 2 * slice,
    }
}

/// Slices that a reader of a volume of ours gives best at a time: [`VolumeReader::slices_together`], before there is a volume.
#[must_use]
pub fn slices_together(format: VolumeFormat, shape: [usize; 3]) -> usize {
    match format {
        VolumeFormat::Zarr => zarr::slices_together(shape),
        VolumeFormat::Tiff | VolumeFormat::Npy | VolumeFormat::Hdf5 => 1,
    }
}

/// Opens a volume of any of our formats, or one of other software: a folder of TIFF files, a multi-page TIFF, a `.npy`,
/// a 3-D dataset `FILE.h5:/dataset`, an OME-Zarr.
///
/// # Errors
/// What is not a volume, with what was found.
pub fn open(path: &Path) -> Result<Box<dyn VolumeReader>> {
    open_with(path, &Hints::default())
}

/// As [`open`], with what the caller knows; a hint wins over what the volume says.
///
/// # Errors
/// As for [`open`].
pub fn open_with(path: &Path, hints: &Hints) -> Result<Box<dyn VolumeReader>> {
    match recognise(path)? {
        Kind::Zarr => zarr::open(path, hints),
        Kind::Tiff => tiff::open(path, hints),
        Kind::Hdf5(file, dataset) => hdf5::open(&file, &dataset, hints),
        Kind::Npy => npy::open(path, hints),
    }
}

/// Compares every part of a volume of ours with the checksum it was written with.
///
/// # Errors
/// What is not a volume of ours, or has lost its checksums; damage is not an error but in the report.
pub fn verify(path: &Path) -> Result<VerifyReport> {
    match recognise(path)? {
        Kind::Zarr => Ok(checksum::Checksums::load(&path.join("0"))?.verify_files(path)),
        Kind::Tiff if path.is_dir() => Ok(checksum::Checksums::load(path)?.verify_files(path)),
        Kind::Hdf5(file, dataset) => hdf5::verify(&file, &dataset),
        Kind::Npy => npy::verify(path),
        Kind::Tiff => Err(Error::input(
            path,
            "holds no checksums",
            "only volumes written by tomodelta can be verified",
        )),
    }
}

/// Writes a whole array at once, for small volumes.
///
/// # Errors
/// As for [`create`]; [`crate::Error::Shape`] when `meta.shape` is not that of the array.
pub fn write_array(
    path: &Path,
    format: VolumeFormat,
    meta: &VolumeMeta,
    voxels: ArrayView3<'_, f32>,
    overwrite: bool,
) -> Result<()> {
    let mut writer = create(path, format, meta, overwrite)?;
    writer.write(0, voxels)?;
    writer.finish()
}

enum Kind {
    Zarr,
    Tiff,
    Hdf5(PathBuf, String),
    Npy,
}

fn recognise(path: &Path) -> Result<Kind> {
    if let Some((file, dataset)) = split_dataset(path) {
        return Ok(Kind::Hdf5(file, dataset));
    }
    let found = std::fs::metadata(path).map_err(Error::io("open", path))?;
    if found.is_dir() {
        let is_zarr = ["zarr.json", ".zattrs", ".zarray", ".zgroup"]
            .iter()
            .any(|name| path.join(name).exists());
        return Ok(if is_zarr { Kind::Zarr } else { Kind::Tiff });
    }
    let mut magic = [0u8; 8];
    let mut file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let read = std::io::Read::read(&mut file, &mut magic).map_err(Error::io("read", path))?;
    match &magic[..read] {
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Ok(Kind::Npy),
        [0x89, b'H', b'D', b'F', ..] => {
            Ok(Kind::Hdf5(path.to_path_buf(), hdf5::DATASET.to_string()))
        }
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Ok(Kind::Tiff),
        start => Err(Error::input(
            path,
            format!(
                "is no volume: a file that starts with {start:02x?} is neither HDF5, TIFF nor .npy"
            ),
            "give an OME-Zarr folder, a folder of TIFF slices, a multi-page TIFF, FILE.h5:/dataset or a .npy",
        )),
    }
}

/// Takes `FILE.h5:/dataset` apart.
fn split_dataset(path: &Path) -> Option<(PathBuf, String)> {
    let text = path.to_str()?;
    let (file, dataset) = text.rsplit_once(":/")?;
    let extension = Path::new(file).extension()?.to_str()?.to_ascii_lowercase();
    ["h5", "hdf5", "hdf", "nxs"]
        .contains(&extension.as_str())
        .then(|| (PathBuf::from(file), format!("/{dataset}")))
}

/// Whether `path` is a volume that this program wrote and nothing else: only then may it be replaced.
/// Whether `path` is a volume that this program wrote.
#[must_use]
pub fn is_own(path: &Path) -> bool {
    match recognise(path) {
        Ok(Kind::Zarr) => zarr::is_own(path),
        Ok(Kind::Tiff) => tiff::is_own(path),
        Ok(Kind::Hdf5(file, dataset)) => hdf5::is_own(&file, &dataset),
        Ok(Kind::Npy) => npy::is_own(path),
        Err(_) => false,
    }
}

/// The metadata as it stands inside every volume.
#[derive(Serialize, Deserialize)]
struct Stored {
    program: String,
    conventions: String,
    volume: VolumeMeta,
}

impl Stored {
    fn of(meta: &VolumeMeta) -> Stored {
        Stored {
            program: concat!("tomodelta ", env!("CARGO_PKG_VERSION")).into(),
            conventions: "axes [z, y, x]; z is the detector row (slice 0 is row first_row), y points down and x to the right in \
                          a slice; voxel centres are integers and the rotation axis is at ((W-1)/2, (W-1)/2)"
                .into(),
            volume: meta.clone(),
        }
    }

    fn value(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("plain data has no maps with other keys than strings")
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)
        .expect("plain data has no maps with other keys than strings");
    text.push(b'\n');
    std::fs::write(path, text).map_err(Error::io("write", path))
}

/// Metadata of a volume that carries none.
fn foreign_meta(shape: [usize; 3], voxel_type: VoxelType, hints: &Hints) -> VolumeMeta {
    VolumeMeta {
        shape,
        voxel_type,
        unit: hints.unit.clone().unwrap_or_else(|| UNIT_UNKNOWN.into()),
        voxel_size_um: hints.voxel_size_um,
        first_row: 0,
        provenance: serde_json::Value::Null,
    }
}

fn apply_hints(meta: &mut VolumeMeta, hints: &Hints) {
    if let Some(unit) = &hints.unit {
        meta.unit.clone_from(unit);
    }
    if hints.voxel_size_um.is_some() {
        meta.voxel_size_um = hints.voxel_size_um;
    }
}

/// Slices as they are stored.
enum Slab {
    Values(Array3<f32>),
    Labels(Array3<u32>),
}

/// Values of a slab that is known to hold some.
fn values(slab: Slab) -> Result<Array3<f32>> {
    match slab {
        Slab::Values(values) => Ok(values),
        Slab::Labels(_) => Err(Error::input(
            "volume",
            "holds labels, not values",
            "labels are not written with a journal",
        )),
    }
}

/// What a format has to give; [`Opened`] makes a [`VolumeReader`] of it.
trait Stack: Send + Sync {
    fn meta(&self) -> &VolumeMeta;
    fn path(&self) -> &Path;
    /// Slices `z`, which lie within the volume.
    fn slab(&self, z: Range<usize>) -> Result<Slab>;
    fn bytes_per_slice(&self) -> u64;
    fn slices_together(&self) -> usize {
        1
    }
}

struct Opened<S>(S);

impl<S: Stack> Opened<S> {
    fn checked(&self, z: Range<usize>) -> Result<Slab> {
        crate::stop::check()?;
        let depth = self.0.meta().shape[0];
        if z.start > z.end || z.end > depth {
            return Err(Error::Shape {
                what: format!("slices read from {}", self.0.path().display()),
                expected: vec![0, depth],
                found: vec![z.start, z.end],
                hint: "ask for slices within the volume".into(),
            });
        }
        self.0.slab(z)
    }
}

impl<S: Stack> VolumeReader for Opened<S> {
    fn meta(&self) -> &VolumeMeta {
        self.0.meta()
    }
    fn read(&self, z: Range<usize>) -> Result<Array3<f32>> {
        Ok(match self.checked(z)? {
            Slab::Values(values) => values,
            Slab::Labels(labels) => labels.mapv(|label| label as f32),
        })
    }
    fn read_labels(&self, z: Range<usize>) -> Result<Array3<u32>> {
        match self.checked(z)? {
            Slab::Labels(labels) => Ok(labels),
            Slab::Values(_) => Err(Error::input(
                self.0.path(),
                "holds values, not labels (u32)",
                "read it as values",
            )),
        }
    }
    fn bytes_per_slice(&self) -> u64 {
        self.0.bytes_per_slice()
    }
    fn slices_together(&self) -> usize {
        self.0.slices_together()
    }
}
