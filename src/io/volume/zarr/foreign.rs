//! Zarr volumes of other software (v2 or v3, plain arrays or OME-Zarr), through the `zarrs` library.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::Array3;
use serde_json::Value;
use zarrs::array::{Array, ArraySubset, ElementOwned};
use zarrs::filesystem::FilesystemStore;

use super::super::{Hints, Slab, Stack, VolumeMeta, VoxelType};
use crate::error::{Error, Result};

pub(super) struct ForeignZarr {
    path: PathBuf,
    meta: VolumeMeta,
    array: Array<FilesystemStore>,
    data_type: String,
    /// Axes of length 1 before z (time, channel).
    leading: usize,
}

impl ForeignZarr {
    pub(super) fn open(path: &Path, hints: &Hints) -> Result<ForeignZarr> {
        let (inside, voxel_size_um) = multiscale(path);
        let bad = |problem: String| {
            Error::input(
                path,
                problem,
                "give a Zarr array [z, y, x] or an OME-Zarr image",
            )
        };
        let store = FilesystemStore::new(path)
            .map_err(|error| bad(format!("cannot be opened: {error}")))?;
        let array = Array::open(Arc::new(store), &inside)
            .map_err(|error| bad(format!("has no array {inside}: {error}")))?;
        let shape: Vec<usize> = array.shape().iter().map(|&n| n as usize).collect();
        let leading = shape.len().saturating_sub(3);
        let &[nz, ny, nx] = &shape[leading..] else {
            return Err(bad(format!("its array has shape {shape:?}")));
        };
        if shape[..leading].iter().any(|&n| n != 1) || nz * ny * nx == 0 {
            return Err(bad(format!(
                "its array has shape {shape:?}, of which no one volume can be taken"
            )));
        }
        let data_type = data_type(&path.join(inside.trim_start_matches('/')));
        let voxel_type = if data_type == "uint32" {
            VoxelType::U32
        } else {
            VoxelType::F32
        };
        let mut meta = super::super::foreign_meta([nz, ny, nx], voxel_type, hints);
        meta.voxel_size_um = hints.voxel_size_um.or(voxel_size_um);
        Ok(ForeignZarr {
            path: path.to_path_buf(),
            meta,
            array,
            data_type,
            leading,
        })
    }

    fn read<T: ElementOwned>(&self, z: Range<usize>) -> Result<Vec<T>> {
        let bad = |problem: String| {
            Error::input(&self.path, problem, "the volume is incomplete or damaged")
        };
        let [_, ny, nx] = self.meta.shape.map(|n| n as u64);
        let mut ranges = vec![0..1; self.leading];
        ranges.extend([z.start as u64..z.end as u64, 0..ny, 0..nx]);
        let subset = ArraySubset::new_with_ranges(&ranges);
        // the library fills chunks that are not there; here they are taken for lost
        let chunks = self
            .array
            .chunks_in_array_subset(&subset)
            .map_err(|error| bad(error.to_string()))?;
        for chunk in chunks.map(|chunks| chunks.indices()).iter().flatten() {
            let key = self.array.chunk_key(&chunk);
            if !self.path.join(key.as_str()).exists() {
                return Err(bad(format!("chunk {} is missing", key.as_str())));
            }
        }
        self.array
            .retrieve_array_subset::<Vec<T>>(&subset)
            .map_err(|error| bad(format!("cannot be read: {error}")))
    }
}

impl Stack for ForeignZarr {
    fn meta(&self) -> &VolumeMeta {
        &self.meta
    }
    fn path(&self) -> &Path {
        &self.path
    }
    fn slab(&self, z: Range<usize>) -> Result<Slab> {
        let shape = (z.len(), self.meta.shape[1], self.meta.shape[2]);
        if z.is_empty() {
            return Ok(Slab::Values(Array3::zeros(shape)));
        }
        macro_rules! read {
            ($stored:ty, $of:expr) => {
                self.read::<$stored>(z)?
                    .into_iter()
                    .map($of)
                    .collect::<Vec<f32>>()
            };
        }
        let values = match self.data_type.as_str() {
            "float32" => self.read::<f32>(z)?,
            "float64" => read!(f64, |v| v as f32),
            "uint8" => read!(u8, f32::from),
            "int8" => read!(i8, f32::from),
            "uint16" => read!(u16, f32::from),
            "int16" => read!(i16, f32::from),
            "int32" => read!(i32, |v| v as f32),
            "uint32" => {
                let labels = self.read::<u32>(z)?;
                return Ok(Slab::Labels(
                    Array3::from_shape_vec(shape, labels)
                        .expect("the library gives what was asked"),
                ));
            }
            other => {
                return Err(Error::input(
                    &self.path,
                    format!("holds {other}"),
                    "store it as float32",
                ));
            }
        };
        Ok(Slab::Values(
            Array3::from_shape_vec(shape, values).expect("the library gives what was asked"),
        ))
    }
    fn bytes_per_slice(&self) -> u64 {
        4 * (self.slices_together() * self.meta.shape[1] * self.meta.shape[2]) as u64
    }
    fn slices_together(&self) -> usize {
        let chunk = self.array.chunk_shape(&vec![0; self.array.shape().len()]);
        chunk.map_or(1, |chunk| chunk[self.leading].get() as usize)
    }
}

/// Path of the full resolution, and the size of its voxels where it is stated in micrometres and equal in all axes.
fn multiscale(path: &Path) -> (String, Option<f64>) {
    let load = |name: &str| -> Option<Value> {
        serde_json::from_str(&std::fs::read_to_string(path.join(name)).ok()?).ok()
    };
    let attributes = load("zarr.json")
        .map(|group| group["attributes"].clone())
        .or_else(|| load(".zattrs"))
        .unwrap_or_default();
    let image = attributes
        .pointer("/ome/multiscales/0")
        .or_else(|| attributes.pointer("/multiscales/0"));
    let Some(image) = image else {
        return ("/".into(), None);
    };
    let dataset = &image["datasets"][0];
    let inside = format!("/{}", dataset["path"].as_str().unwrap_or("0"));
    let units: Vec<&str> = image["axes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|axis| axis["unit"].as_str())
        .collect();
    let scale: Vec<f64> = dataset["coordinateTransformations"][0]["scale"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .collect();
    let edges = &scale[scale.len().saturating_sub(3)..];
    let in_um = units.len() >= 3
        && units
            .iter()
            .rev()
            .take(3)
            .all(|unit| ["micrometer", "um"].contains(unit));
    let equal = edges.len() == 3
        && edges
            .iter()
            .all(|edge| (edge - edges[0]).abs() < 1e-6 * edges[0]);
    (inside, (in_um && equal).then(|| edges[0]))
}

/// The element type by its Zarr v3 name; a v2 name (`<u2`) is translated, byte order aside (the library swaps).
fn data_type(array: &Path) -> String {
    let load = |name: &str| -> Option<Value> {
        serde_json::from_str(&std::fs::read_to_string(array.join(name)).ok()?).ok()
    };
    if let Some(found) = load("zarr.json") {
        return found["data_type"]
            .as_str()
            .unwrap_or("an extension type")
            .to_string();
    }
    let found = load(".zarray").unwrap_or_default();
    let short = found["dtype"]
        .as_str()
        .unwrap_or_default()
        .trim_start_matches(['<', '>', '|']);
    match short {
        "f4" => "float32",
        "f8" => "float64",
        "u1" => "uint8",
        "i1" => "int8",
        "u2" => "uint16",
        "i2" => "int16",
        "u4" => "uint32",
        "i4" => "int32",
        other => other,
    }
    .to_string()
}
