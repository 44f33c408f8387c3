//! Reads what [`super::pyramid`] wrote; every chunk is checked against its CRC.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::{Array3, s};
use rayon::prelude::*;

use super::super::writer::Voxel;
use super::super::{Slab, Stack, VolumeMeta, VoxelType};
use super::metadata;
use super::shard::{self, Layout};
use crate::error::{Error, Result};

pub(super) struct OwnZarr {
    path: PathBuf,
    meta: VolumeMeta,
    layout: Layout,
}

impl OwnZarr {
    pub(super) fn open(path: &Path, meta: VolumeMeta) -> Result<OwnZarr> {
        let layout = Layout::of(meta.shape);
        let array = path.join("0");
        let found = super::load_json(&array)?;
        let expected = match meta.voxel_type {
            VoxelType::F32 => metadata::array::<f32>(&layout),
            VoxelType::U32 => metadata::array::<u32>(&layout),
        };
        for key in [
            "shape",
            "data_type",
            "chunk_grid",
            "chunk_key_encoding",
            "codecs",
        ] {
            if found[key] != expected[key] {
                return Err(Error::input(
                    array.join("zarr.json"),
                    format!("{key} is {} instead of {}", found[key], expected[key]),
                    "the array was changed or rewritten by other software; remove `tomodelta` from the attributes of the group to read it as a foreign one",
                ));
            }
        }
        Ok(OwnZarr {
            path: path.to_path_buf(),
            meta,
            layout,
        })
    }

    fn read<T: Voxel>(&self, z: Range<usize>) -> Result<Array3<T>> {
        let [_, height, width] = self.meta.shape;
        let mut out = Array3::from_elem((z.len(), height, width), T::FILL);
        if z.is_empty() {
            return Ok(out);
        }
        let layer_height = self.layout.chunk[0];
        let [_, across_y, across_x] = self.layout.grid();
        for layer in z.start / layer_height..z.end.div_ceil(layer_height) {
            let first = layer * layer_height;
            // slices of this layer that are wanted, counted within the layer
            let within = z.start.max(first) - first..z.end.min(first + layer_height) - first;
            for sy in 0..across_y {
                for sx in 0..across_x {
                    for (index, chunk) in self.shard::<T>([layer, sy, sx])? {
                        let [y0, x0] = self.layout.origin([sy, sx], index);
                        let (y1, x1) = (
                            (y0 + self.layout.chunk[1]).min(height),
                            (x0 + self.layout.chunk[2]).min(width),
                        );
                        let to = first + within.start - z.start;
                        out.slice_mut(s![to..to + within.len(), y0..y1, x0..x1])
                            .assign(&chunk.slice(s![within.clone(), ..y1 - y0, ..x1 - x0]));
                    }
                }
            }
        }
        Ok(out)
    }

    /// Chunks of a shard that lie in the volume, decoded.
    fn shard<T: Voxel>(&self, shard: [usize; 3]) -> Result<Vec<(usize, Array3<T>)>> {
        let path = self.path.join("0").join(Layout::key(shard));
        let damaged = |problem: String| {
            Error::input(
                &path,
                format!("is damaged: {problem}"),
                "write the volume again",
            )
        };
        let mut file = File::open(&path).map_err(Error::io("read", &path))?;
        let length = file.metadata().map_err(Error::io("read", &path))?.len();
        let tail_bytes = shard::index_bytes(&self.layout);
        if length < tail_bytes {
            return Err(damaged(format!("{length} bytes are less than its index")));
        }
        let mut stored = Vec::with_capacity(length as usize);
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_end(&mut stored))
            .map_err(Error::io("read", &path))?;
        let tail = &stored[stored.len().saturating_sub(tail_bytes as usize)..];
        let entries = shard::decode_index(&self.layout, tail, length).map_err(damaged)?;
        let [_, height, width] = self.layout.shape;
        entries
            .into_par_iter()
            .enumerate()
            .filter(|(index, _)| {
                let [y0, x0] = self.layout.origin([shard[1], shard[2]], *index);
                y0 < height && x0 < width
            })
            .map(|(index, [start, len])| {
                let bytes = usize::try_from(start)
                    .ok()
                    .zip(usize::try_from(len).ok())
                    .and_then(|(start, len)| stored.get(start..start.checked_add(len)?))
                    .ok_or_else(|| damaged(format!("chunk {index} is missing")))?;
                let voxels = shard::decode_chunk::<T>(&self.layout, bytes)
                    .map_err(|problem| damaged(format!("chunk {index}: {problem}")))?;
                let shape = self.layout.chunk;
                Ok((
                    index,
                    Array3::from_shape_vec(shape, voxels).expect("the decoder checked the length"),
                ))
            })
            .collect()
    }
}

impl Stack for OwnZarr {
    fn meta(&self) -> &VolumeMeta {
        &self.meta
    }
    fn path(&self) -> &Path {
        &self.path
    }
    fn slab(&self, z: Range<usize>) -> Result<Slab> {
        Ok(match self.meta.voxel_type {
            VoxelType::F32 => Slab::Values(self.read(z)?),
            VoxelType::U32 => Slab::Labels(self.read(z)?),
        })
    }
    fn bytes_per_slice(&self) -> u64 {
        super::reader_bytes(self.layout.shape)
    }
    fn slices_together(&self) -> usize {
        self.layout.chunk[0]
    }
}
