//! One `.npy` file `[z, y, x]`, with `NAME.json` beside it for what the format has no place for.
//!
//! Format: NEP 1 (numpy.lib.format), version 1.0, little-endian, C order; the data start at a multiple of 64 bytes.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::Array3;
use serde::{Deserialize, Serialize};

use super::checksum::{Part, VerifyReport};
use super::partial::Partial;
use super::writer::{Backend, Voxel, Writer};
use super::{
    Hints, Opened, Slab, Stack, Stored, VolumeMeta, VolumeReader, VolumeWriter, VoxelType,
};
use crate::error::{Error, Result};

/// Content of `NAME.json`.
#[derive(Serialize, Deserialize)]
struct Sidecar {
    tomodelta: Stored,
    /// BLAKE3 of each slice.
    slices: Vec<Part>,
}

fn sidecar_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".json");
    path.with_file_name(name)
}

fn load_sidecar(path: &Path) -> Result<Option<Sidecar>> {
    let sidecar = sidecar_path(path);
    match std::fs::read_to_string(&sidecar) {
        Ok(text) => Ok(serde_json::from_str(&text).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", &sidecar)(error)),
    }
}

pub(super) fn create(partial: Partial, meta: &VolumeMeta) -> Result<Box<dyn VolumeWriter>> {
    Writer::start(partial, meta, |building| {
        // slices that an earlier run stored stay where they are until they are written again, with the same bytes
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(building)
            .map_err(Error::io("create", building))?;
        let mut file = BufWriter::new(file);
        let header = header(meta);
        file.write_all(&header)
            .map_err(Error::io("write", building))?;
        Ok(NpyBackend {
            file,
            path: building.to_path_buf(),
            meta: meta.clone(),
            slices: Vec::new(),
            data_start: header.len() as u64,
        })
    })
}

fn header(meta: &VolumeMeta) -> Vec<u8> {
    let [nz, ny, nx] = meta.shape;
    let descr = match meta.voxel_type {
        VoxelType::F32 => f32::NUMPY,
        VoxelType::U32 => u32::NUMPY,
    };
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({nz}, {ny}, {nx}), }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.bytes());
    bytes
}

struct NpyBackend {
    file: BufWriter<File>,
    path: PathBuf,
    meta: VolumeMeta,
    slices: Vec<Part>,
    data_start: u64,
}

impl Backend for NpyBackend {
    fn append<T: Voxel>(&mut self, _z0: usize, slices: &[T]) -> Result<()> {
        let slice_len = self.meta.shape[1] * self.meta.shape[2];
        for slice in slices.chunks(slice_len) {
            let bytes: &[u8] = bytemuck::cast_slice(slice);
            self.slices.push(Part::of(bytes));
            self.file
                .write_all(bytes)
                .map_err(Error::io("write", &self.path))?;
        }
        self.file.flush().map_err(Error::io("write", &self.path))
    }

    fn stored(&self) -> usize {
        self.slices.len()
    }

    fn read_back(&self, z: Range<usize>) -> Result<Array3<f32>> {
        let [_, ny, nx] = self.meta.shape;
        let slice = 4 * (ny * nx) as u64;
        let mut bytes = vec![0; z.len() * slice as usize];
        File::open(&self.path)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(self.data_start + z.start as u64 * slice))?;
                file.read_exact(&mut bytes)
            })
            .map_err(Error::io("read", &self.path))?;
        Ok(
            Array3::from_shape_vec((z.len(), ny, nx), bytemuck::pod_collect_to_vec(&bytes))
                .expect("the bytes were counted"),
        )
    }

    fn finish(mut self) -> Result<Vec<String>> {
        let bytes = self.data_start + 4 * self.meta.shape.iter().product::<usize>() as u64;
        self.file
            .flush()
            .and_then(|()| self.file.get_ref().set_len(bytes))
            .map_err(Error::io("write", &self.path))?;
        let sidecar = sidecar_path(&self.path);
        super::write_json(
            &sidecar,
            &Sidecar {
                tomodelta: Stored::of(&self.meta),
                slices: self.slices,
            },
        )?;
        Ok(vec![
            sidecar
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        ])
    }
}

/// Element types that are read.
#[derive(Clone, Copy)]
enum Element {
    F32,
    F64,
    U32,
    U16,
    U8,
    I16,
    I32,
}

struct Npy {
    path: PathBuf,
    meta: VolumeMeta,
    element: Element,
    big_endian: bool,
    data_start: u64,
    bytes: usize,
}

pub(super) fn open(path: &Path, hints: &Hints) -> Result<Box<dyn VolumeReader>> {
    Ok(Box::new(Opened(Npy::open(path, hints)?)))
}

pub(super) fn is_own(path: &Path) -> bool {
    matches!(load_sidecar(path), Ok(Some(_)))
}

pub(super) fn verify(path: &Path) -> Result<VerifyReport> {
    let Some(sidecar) = load_sidecar(path)? else {
        return Err(Error::input(
            path,
            "has no checksums beside it",
            "only volumes written by tomodelta can be verified",
        ));
    };
    let npy = Npy::open(path, &Hints::default())?;
    let mut report = VerifyReport::default();
    if sidecar.slices.len() != npy.meta.shape[0] {
        report.problem(format!(
            "{} checksums for {} slices",
            sidecar.slices.len(),
            npy.meta.shape[0]
        ));
    }
    for (z, expected) in sidecar.slices.iter().enumerate().take(npy.meta.shape[0]) {
        match npy.raw(z..z + 1) {
            Ok(bytes) => report.compare(&format!("slice {z}"), expected, &Part::of(&bytes)),
            Err(error) => report.problem(error.to_string()),
        }
    }
    Ok(report)
}

impl Npy {
    fn open(path: &Path, hints: &Hints) -> Result<Npy> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let header = crate::io::npy::read_header(&mut file, path)?;
        let data_start = file.stream_position().map_err(Error::io("read", path))?;
        let shape: Vec<usize> = header.shape().iter().map(|&n| n as usize).collect();
        let descr = header.dtype().descr();
        let descr = descr.trim_matches(|c| c == '\'' || c == '"');
        let (big_endian, name) = (
            descr.starts_with('>'),
            descr.trim_start_matches(['<', '>', '|', '=']),
        );
        let (element, bytes) = match name {
            "f4" => (Element::F32, 4),
            "f8" => (Element::F64, 8),
            "u4" => (Element::U32, 4),
            "u2" => (Element::U16, 2),
            "u1" | "b1" => (Element::U8, 1),
            "i2" => (Element::I16, 2),
            "i4" => (Element::I32, 4),
            _ => {
                return Err(Error::input(
                    path,
                    format!("holds {descr}, which is not read as a volume"),
                    "save it as float32",
                ));
            }
        };
        let &[nz, ny, nx] = shape.as_slice() else {
            return Err(Error::Shape {
                what: format!("array in {}", path.display()),
                expected: vec![0, 0, 0],
                found: shape,
                hint: "a volume has three axes [z, y, x]".into(),
            });
        };
        if header.order() != npyz::Order::C || shape.contains(&0) {
            return Err(Error::input(
                path,
                "is in Fortran order or empty",
                "save numpy.ascontiguousarray of it",
            ));
        }
        let expected = shape
            .iter()
            .try_fold(bytes as u64, |len, &n| len.checked_mul(n as u64))
            .and_then(|len| len.checked_add(data_start))
            .unwrap_or(u64::MAX);
        let found = file.metadata().map_err(Error::io("read", path))?.len();
        if found != expected {
            return Err(Error::input(
                path,
                format!("its header asks for {expected} bytes and the file has {found}"),
                "it was cut short or damaged; copy or write it again",
            ));
        }
        let voxel_type = if matches!(element, Element::U32) {
            VoxelType::U32
        } else {
            VoxelType::F32
        };
        let mut meta = match load_sidecar(path)? {
            Some(sidecar) if sidecar.tomodelta.volume.shape == [nz, ny, nx] => {
                sidecar.tomodelta.volume
            }
            Some(sidecar) => {
                return Err(Error::Shape {
                    what: format!(
                        "{} against its {}",
                        path.display(),
                        sidecar_path(path).display()
                    ),
                    expected: sidecar.tomodelta.volume.shape.to_vec(),
                    found: shape,
                    hint:
                        "the two do not belong together; remove the .json to read the array alone"
                            .into(),
                });
            }
            None => super::foreign_meta([nz, ny, nx], voxel_type, hints),
        };
        meta.voxel_type = voxel_type;
        super::apply_hints(&mut meta, hints);
        Ok(Npy {
            path: path.to_path_buf(),
            meta,
            element,
            big_endian,
            data_start,
            bytes,
        })
    }

    fn raw(&self, z: Range<usize>) -> Result<Vec<u8>> {
        let slice = self.meta.shape[1] * self.meta.shape[2] * self.bytes;
        let mut bytes = vec![0u8; z.len() * slice];
        let mut file = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        file.seek(SeekFrom::Start(self.data_start + (z.start * slice) as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(Error::io("read", &self.path))?;
        if self.big_endian {
            bytes.chunks_exact_mut(self.bytes).for_each(<[u8]>::reverse);
        }
        Ok(bytes)
    }
}

impl Stack for Npy {
    fn meta(&self) -> &VolumeMeta {
        &self.meta
    }
    fn path(&self) -> &Path {
        &self.path
    }
    fn slab(&self, z: Range<usize>) -> Result<Slab> {
        let shape = (z.len(), self.meta.shape[1], self.meta.shape[2]);
        let bytes = self.raw(z)?;
        fn convert<const N: usize, T>(bytes: &[u8], of: impl Fn([u8; N]) -> T) -> Vec<T> {
            bytes
                .as_chunks::<N>()
                .0
                .iter()
                .map(|&element| of(element))
                .collect()
        }
        let values = match self.element {
            Element::U32 => {
                let labels = convert(&bytes, u32::from_le_bytes);
                return Ok(Slab::Labels(
                    Array3::from_shape_vec(shape, labels).expect("as many bytes were read"),
                ));
            }
            Element::F32 => convert(&bytes, f32::from_le_bytes),
            Element::F64 => convert(&bytes, |b| f64::from_le_bytes(b) as f32),
            Element::U16 => convert(&bytes, |b| f32::from(u16::from_le_bytes(b))),
            Element::U8 => convert(&bytes, |[b]: [u8; 1]| f32::from(b)),
            Element::I16 => convert(&bytes, |b| f32::from(i16::from_le_bytes(b))),
            Element::I32 => convert(&bytes, |b| i32::from_le_bytes(b) as f32),
        };
        Ok(Slab::Values(
            Array3::from_shape_vec(shape, values).expect("as many bytes were read"),
        ))
    }
    fn bytes_per_slice(&self) -> u64 {
        (self.meta.shape[1] * self.meta.shape[2] * self.bytes) as u64
    }
}
