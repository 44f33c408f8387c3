//! HDF5: dataset `/volume` in uncompressed chunks of one slice, its attributes, and `/volume_blake3` `[z, 32]`.
//!
//! Uncompressed, because every HDF5 library reads that without plugins and noise does not compress.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ndarray::Array3;
use rust_hdf5::dataset::StorageLayout;
use rust_hdf5::{DatatypeMessage, H5Dataset, H5File, H5FileOptions, VarLenUnicode};

use super::checksum::{Part, VerifyReport};
use super::partial::Partial;
use super::writer::{Backend, Voxel, Writer};
use super::{
    Hints, Opened, Slab, Stack, Stored, VolumeMeta, VolumeReader, VolumeWriter, VoxelType,
};
use crate::error::{Error, Result};
use crate::io::hdf5::{believable, check_complete, guarded};

/// The dataset of our own files.
pub(super) const DATASET: &str = "/volume";
const HASHES: &str = "volume_blake3";

fn bad(path: &Path, dataset: &str) -> impl FnOnce(rust_hdf5::Hdf5Error) -> Error {
    let (path, dataset) = (path.to_path_buf(), dataset.to_string());
    move |error| {
        Error::dataset(
            path,
            dataset,
            error.to_string(),
            "check the file with h5dump or h5py",
        )
    }
}

pub(super) fn create(partial: Partial, meta: &VolumeMeta) -> Result<Box<dyn VolumeWriter>> {
    Writer::start(partial, meta, |building| Hdf5Backend::start(building, meta))
}

struct Hdf5Backend {
    dataset: H5Dataset,
    file: H5File,
    path: PathBuf,
    meta: VolumeMeta,
    hashes: Vec<u8>,
}

impl Hdf5Backend {
    fn start(path: &Path, meta: &VolumeMeta) -> Result<Self> {
        let [_, ny, nx] = meta.shape;
        // the partial folder has a lock of its own, and network file systems often refuse these
        let file = H5FileOptions::new()
            .no_locking()
            .create(path)
            .map_err(bad(path, "/"))?;
        let dataset = match meta.voxel_type {
            VoxelType::F32 => file
                .new_dataset::<f32>()
                .shape(meta.shape)
                .chunk(&[1, ny, nx])
                .fill_value(f32::NAN)
                .create("volume"),
            VoxelType::U32 => file
                .new_dataset::<u32>()
                .shape(meta.shape)
                .chunk(&[1, ny, nx])
                .create("volume"),
        }
        .map_err(bad(path, DATASET))?;
        let stored = Stored::of(meta).value().to_string();
        let describe = || -> rust_hdf5::Result<()> {
            for (name, text) in [
                ("unit", meta.unit.as_str()),
                ("axes", "z, y, x"),
                ("tomodelta", stored.as_str()),
            ] {
                let attribute = dataset.new_attr::<VarLenUnicode>().shape(()).create(name)?;
                attribute.write_scalar(&VarLenUnicode(text.to_string()))?;
            }
            if let Some(size) = meta.voxel_size_um {
                dataset
                    .new_attr::<f64>()
                    .shape(())
                    .create("voxel_size_um")?
                    .write_numeric(&size)?;
            }
            Ok(())
        };
        describe().map_err(bad(path, DATASET))?;
        Ok(Hdf5Backend {
            dataset,
            file,
            path: path.to_path_buf(),
            meta: meta.clone(),
            hashes: Vec::new(),
        })
    }
}

impl Backend for Hdf5Backend {
    fn append<T: Voxel>(&mut self, z0: usize, slices: &[T]) -> Result<()> {
        let [_, ny, nx] = self.meta.shape;
        for (index, slice) in slices.chunks(ny * nx).enumerate() {
            self.hashes
                .extend(blake3::hash(bytemuck::cast_slice(slice)).as_bytes());
            self.dataset
                .write_slice(&[z0 + index, 0, 0], &[1, ny, nx], slice)
                .map_err(bad(&self.path, DATASET))?;
        }
        Ok(())
    }

    /// None: the file has no valid structure before it is closed.
    fn stored(&self) -> usize {
        0
    }

    fn read_back(&self, _z: Range<usize>) -> Result<Array3<f32>> {
        Err(Error::input(
            &self.path,
            "an HDF5 volume cannot be read before it is finished",
            "it is made anew; the other formats go on where they stopped",
        ))
    }

    fn finish(self) -> Result<Vec<String>> {
        let Hdf5Backend {
            dataset,
            file,
            path,
            meta,
            hashes,
        } = self;
        let store = || -> rust_hdf5::Result<()> {
            file.new_dataset::<u8>()
                .shape([meta.shape[0], 32])
                .create(HASHES)?
                .write_raw(&hashes)?;
            drop(dataset);
            file.close()
        };
        store().map_err(bad(&path, HASHES))?;
        Ok(Vec::new())
    }
}

struct Hdf5Volume {
    path: PathBuf,
    dataset: String,
    meta: VolumeMeta,
    chunk: Option<Vec<usize>>,
    datatype: DatatypeMessage,
    /// Ours: whole slices are read as they lie in the file.
    own: bool,
    // handles are one lock each; every thread takes one of its own from here
    pool: Mutex<Vec<H5File>>,
}

pub(super) fn open(path: &Path, dataset: &str, hints: &Hints) -> Result<Box<dyn VolumeReader>> {
    let volume = guarded(path, || Hdf5Volume::open(path, dataset, hints))?;
    Ok(Box::new(Opened(volume)))
}

pub(super) fn is_own(path: &Path, dataset: &str) -> bool {
    guarded(path, || Hdf5Volume::open(path, dataset, &Hints::default()))
        .is_ok_and(|volume| volume.own)
}

pub(super) fn verify(path: &Path, dataset: &str) -> Result<VerifyReport> {
    guarded(path, || compare_hashes(path, dataset))
}

fn compare_hashes(path: &Path, dataset: &str) -> Result<VerifyReport> {
    let volume = Hdf5Volume::open(path, dataset, &Hints::default())?;
    if !volume.own {
        return Err(Error::dataset(
            path,
            dataset,
            "has no checksums",
            "only volumes written by tomodelta can be verified",
        ));
    }
    let hashes: Vec<u8> = volume
        .with_file(|file| file.dataset(HASHES)?.read_raw())
        .map_err(bad(path, HASHES))?;
    let mut report = VerifyReport::default();
    for z in 0..volume.meta.shape[0] {
        let expected = hashes
            .get(32 * z..32 * z + 32)
            .map(blake3_hex)
            .unwrap_or_default();
        match volume.raw_slice(z) {
            Ok(bytes) => {
                let expected = Part {
                    bytes: 4 * (volume.meta.shape[1] * volume.meta.shape[2]) as u64,
                    blake3: expected,
                };
                report.compare(&format!("slice {z}"), &expected, &Part::of(&bytes));
            }
            Err(error) => report.problem(error.to_string()),
        }
    }
    Ok(report)
}

fn blake3_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Refuses a volume that its file cannot hold, before memory is taken for it.
fn check_size(
    path: &Path,
    name: &str,
    shape: [usize; 3],
    datatype: &DatatypeMessage,
    chunk: Option<&[usize]>,
) -> Result<()> {
    let size = match datatype {
        DatatypeMessage::FloatingPoint { size, .. } | DatatypeMessage::FixedPoint { size, .. } => {
            u128::from(*size)
        }
        _ => 8,
    };
    let len = |n: &[usize]| {
        n.iter()
            .try_fold(size, |len, &n| len.checked_mul(n as u128))
            .unwrap_or(u128::MAX)
    };
    let chunk_fits = chunk.is_none_or(|chunk| {
        chunk.len() == 3 && !chunk.contains(&0) && believable(path, len(chunk))
    });
    if shape.contains(&0) || !chunk_fits || !believable(path, len(&shape)) {
        return Err(Error::dataset(
            path,
            name,
            format!("its header claims {shape:?} voxels, which the file cannot hold"),
            "the header is damaged, or slices were never written; copy or write it again",
        ));
    }
    Ok(())
}

impl Hdf5Volume {
    fn open(path: &Path, name: &str, hints: &Hints) -> Result<Self> {
        check_complete(path)?;
        let file = H5FileOptions::new()
            .no_locking()
            .open(path)
            .map_err(bad(path, "/"))?;
        let dataset = file.dataset(name).map_err(|_| {
            let names = file.dataset_names();
            let cubes: Vec<String> = names
                .into_iter()
                .filter(|name| {
                    file.dataset(name)
                        .is_ok_and(|dataset| dataset.shape().len() == 3)
                })
                .map(|name| format!("/{}", name.trim_start_matches('/')))
                .collect();
            let hint = if cubes.is_empty() {
                "it has no dataset with three axes".to_string()
            } else {
                format!(
                    "name one of its 3-D datasets as FILE.h5:/dataset: {}",
                    cubes.join(", ")
                )
            };
            Error::dataset(path, name, "is not there", hint)
        })?;
        let shape = dataset.shape();
        let &[nz, ny, nx] = shape.as_slice() else {
            return Err(Error::dataset(
                path,
                name,
                format!("has shape {shape:?}"),
                "a volume has three axes [z, y, x]",
            ));
        };
        let datatype = dataset.datatype().map_err(bad(path, name))?;
        let voxel_type = match &datatype {
            DatatypeMessage::FloatingPoint { size: 4 | 8, .. } => VoxelType::F32,
            DatatypeMessage::FixedPoint {
                size: 4,
                signed: false,
                ..
            } => VoxelType::U32,
            DatatypeMessage::FixedPoint {
                size: 1 | 2 | 4, ..
            } => VoxelType::F32,
            other => {
                return Err(Error::dataset(
                    path,
                    name,
                    format!("has elements of type {other:?}"),
                    "store it as 32-bit float",
                ));
            }
        };
        if dataset.storage_layout().map_err(bad(path, name))? == StorageLayout::Virtual {
            return Err(Error::dataset(
                path,
                name,
                "is virtual, and missing parts of it would read as zeros",
                "copy it into one file (h5repack)",
            ));
        }
        let stored = dataset
            .attr("tomodelta")
            .ok()
            .filter(|attribute| {
                !matches!(
                    attribute.datatype(),
                    Ok(DatatypeMessage::FloatingPoint { .. } | DatatypeMessage::FixedPoint { .. })
                )
            })
            .and_then(|attribute| attribute.read_string().ok())
            .and_then(|text| serde_json::from_str::<Stored>(&text).ok())
            .filter(|stored| stored.volume.shape == [nz, ny, nx]);
        let chunk = dataset.chunk_dims();
        check_size(path, name, [nz, ny, nx], &datatype, chunk.as_deref())?;
        let own = stored.is_some() && chunk.as_deref() == Some(&[1, ny, nx]);
        let mut meta = stored.map_or_else(
            || super::foreign_meta([nz, ny, nx], voxel_type, hints),
            |stored| stored.volume,
        );
        meta.voxel_type = voxel_type;
        super::apply_hints(&mut meta, hints);
        Ok(Hdf5Volume {
            path: path.to_path_buf(),
            dataset: name.to_string(),
            meta,
            chunk,
            datatype,
            own,
            pool: Mutex::new(vec![file]),
        })
    }

    fn with_file<T>(
        &self,
        work: impl FnOnce(&H5File) -> rust_hdf5::Result<T>,
    ) -> rust_hdf5::Result<T> {
        let pooled = self
            .pool
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let file = match pooled {
            Some(file) => file,
            None => H5FileOptions::new().no_locking().open(&self.path)?,
        };
        let result = work(&file);
        self.pool
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(file);
        result
    }

    /// Slice of one of our own files, as it is stored; a slice that was never written is an error.
    fn raw_slice(&self, z: usize) -> Result<Vec<u8>> {
        let (bytes, _) = self
            .with_file(|file| file.dataset(&self.dataset)?.read_chunk_raw_at(&[z, 0, 0]))
            .map_err(bad(&self.path, &self.dataset))?;
        let expected = 4 * self.meta.shape[1] * self.meta.shape[2];
        if bytes.len() != expected {
            return Err(Error::dataset(
                &self.path,
                &self.dataset,
                format!("slice {z} has {} bytes instead of {expected}", bytes.len()),
                "write the volume again",
            ));
        }
        Ok(bytes)
    }

    /// Refuses chunks that were never written, which the library would fill.
    fn refuse_missing_chunks(
        &self,
        dataset: &H5Dataset,
        z: &Range<usize>,
    ) -> rust_hdf5::Result<()> {
        let Some(chunk) = &self.chunk else {
            return Ok(());
        };
        let grid: Vec<usize> = self
            .meta
            .shape
            .iter()
            .zip(chunk)
            .map(|(n, c)| n.div_ceil(*c))
            .collect();
        for cz in z.start / chunk[0]..z.end.div_ceil(chunk[0]) {
            for cy in 0..grid[1] {
                for cx in 0..grid[2] {
                    dataset.read_chunk_raw_at(&[cz, cy, cx])?;
                }
            }
        }
        Ok(())
    }

    fn foreign(&self, dataset: &H5Dataset, z: &Range<usize>) -> rust_hdf5::Result<Slab> {
        self.refuse_missing_chunks(dataset, z)?;
        let (starts, counts) = (
            [z.start, 0, 0],
            [z.len(), self.meta.shape[1], self.meta.shape[2]],
        );
        macro_rules! read {
            ($stored:ty, $of:expr) => {
                dataset
                    .read_slice::<$stored>(&starts, &counts)?
                    .into_iter()
                    .map($of)
                    .collect::<Vec<f32>>()
            };
        }
        // sizes are all that the library checks: the type is taken from the file, not from hope
        let values = match &self.datatype {
            DatatypeMessage::FloatingPoint { size: 8, .. } => read!(f64, |v| v as f32),
            DatatypeMessage::FloatingPoint { .. } => dataset.read_slice::<f32>(&starts, &counts)?,
            DatatypeMessage::FixedPoint {
                size: 1,
                signed: false,
                ..
            } => read!(u8, f32::from),
            DatatypeMessage::FixedPoint { size: 1, .. } => read!(i8, f32::from),
            DatatypeMessage::FixedPoint {
                size: 2,
                signed: false,
                ..
            } => read!(u16, f32::from),
            DatatypeMessage::FixedPoint { size: 2, .. } => read!(i16, f32::from),
            DatatypeMessage::FixedPoint { signed: false, .. } => {
                let labels = dataset.read_slice::<u32>(&starts, &counts)?;
                return Ok(Slab::Labels(
                    Array3::from_shape_vec(counts, labels)
                        .expect("the library gives what was asked"),
                ));
            }
            _ => read!(i32, |v| v as f32),
        };
        Ok(Slab::Values(
            Array3::from_shape_vec(counts, values).expect("the library gives what was asked"),
        ))
    }
}

impl Stack for Hdf5Volume {
    fn meta(&self) -> &VolumeMeta {
        &self.meta
    }
    fn path(&self) -> &Path {
        &self.path
    }
    fn slab(&self, z: Range<usize>) -> Result<Slab> {
        guarded(&self.path, || self.read_slab(z))
    }
    fn bytes_per_slice(&self) -> u64 {
        8 * (self.slices_together() * self.meta.shape[1] * self.meta.shape[2]) as u64
    }
    fn slices_together(&self) -> usize {
        self.chunk.as_ref().map_or(1, |chunk| chunk[0])
    }
}

impl Hdf5Volume {
    fn read_slab(&self, z: Range<usize>) -> Result<Slab> {
        if !self.own {
            return self
                .with_file(|file| self.foreign(&file.dataset(&self.dataset)?, &z))
                .map_err(bad(&self.path, &self.dataset));
        }
        let mut bytes = Vec::with_capacity(4 * z.len() * self.meta.shape[1] * self.meta.shape[2]);
        let shape = (z.len(), self.meta.shape[1], self.meta.shape[2]);
        for z in z {
            bytes.extend(self.raw_slice(z)?);
        }
        Ok(match self.meta.voxel_type {
            VoxelType::F32 => Slab::Values(array(shape, &bytes)),
            VoxelType::U32 => Slab::Labels(array(shape, &bytes)),
        })
    }
}

fn array<T: Voxel>(shape: (usize, usize, usize), bytes: &[u8]) -> Array3<T> {
    // the bytes may lie at any address
    let values = bytemuck::pod_collect_to_vec(bytes);
    Array3::from_shape_vec(shape, values).expect("every slice was checked for its length")
}
