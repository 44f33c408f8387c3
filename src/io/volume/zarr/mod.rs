//! OME-Zarr 0.5: a Zarr v3 group of arrays `0`, `1`, ..., each half as large along every axis as the one before.
//!
//! Metadata: <https://ngff.openmicroscopy.org/0.5/>. Arrays are sharded (ZEP 2): a shard is one file of inner chunks of
//! about 64^3 voxels, each compressed with Blosc-LZ4 and followed by its CRC-32C. Shards are as high as chunks, so that
//! slices are stored as soon as one layer of chunks is full.

mod foreign;
mod metadata;
mod pyramid;
mod read;
mod shard;

use std::path::Path;

use super::partial::Partial;
use super::writer::Writer;
use super::{Hints, Opened, VolumeMeta, VolumeReader, VolumeWriter};
use crate::error::{Error, Result};

pub(super) use pyramid::{stored_bytes, writer_bytes};

/// One shard as stored and as decoded.
pub(super) fn reader_bytes(shape: [usize; 3]) -> u64 {
    8 * shard::Layout::of(shape).shard.iter().product::<usize>() as u64
}

/// A layer of chunks.
pub(super) fn slices_together(shape: [usize; 3]) -> usize {
    shard::Layout::of(shape).chunk[0]
}

pub(super) fn create(partial: Partial, meta: &VolumeMeta) -> Result<Box<dyn VolumeWriter>> {
    Writer::start(partial, meta, |building| {
        pyramid::Pyramid::start(building, meta)
    })
}

pub(super) fn open(path: &Path, hints: &Hints) -> Result<Box<dyn VolumeReader>> {
    match metadata::load_own(path)? {
        Some(mut meta) => {
            super::apply_hints(&mut meta, hints);
            Ok(Box::new(Opened(read::OwnZarr::open(path, meta)?)))
        }
        None => Ok(Box::new(Opened(foreign::ForeignZarr::open(path, hints)?))),
    }
}

pub(super) fn is_own(path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path) else {
        return false;
    };
    let only_ours = entries.flatten().all(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name == "zarr.json" || name.chars().all(|c| c.is_ascii_digit())
    });
    only_ours && matches!(metadata::load_own(path), Ok(Some(_)))
}

/// `zarr.json` of a group or array.
fn load_json(folder: &Path) -> Result<serde_json::Value> {
    let path = folder.join("zarr.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    serde_json::from_str(&text).map_err(|error| {
        Error::input(
            &path,
            format!("is not JSON: {error}"),
            "the volume is damaged; write it again",
        )
    })
}
