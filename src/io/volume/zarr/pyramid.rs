//! The writer: full resolution and smaller scales at once, each a layer of chunks behind the slices it was given.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::Array3;
use rayon::prelude::*;

use super::super::behind::Behind;
use super::super::checksum::{Checksums, Part};
use super::super::writer::{Backend, Voxel, wider};
use super::super::{Stack, VolumeMeta, VoxelType};
use super::metadata;
use super::read::OwnZarr;
use super::shard::{self, Layout};
use crate::error::{Error, Result};

/// Scales are added until no side is longer than this.
const SMALLEST: usize = 256;
/// Voxels of the smallest scale that are kept to choose the contrast.
const CONTRAST_SAMPLES: usize = 1 << 16;

/// Memory of the writer: one layer of chunks and up to one slice waiting for its pair at every scale, and one shard
/// encoded (at most as large as it is decoded, and its chunks once more).
pub(in super::super) fn writer_bytes(shape: [usize; 3]) -> u64 {
    let layer =
        |&scale: &[usize; 3]| scale[1] * scale[2] * (Layout::of_scale(shape, scale).chunk[0] + 1);
    let layers: usize = scales(shape).iter().map(layer).sum();
    let shard: usize = Layout::of(shape).shard.iter().product();
    4 * (layers + 2 * shard) as u64
}

/// What Blosc-LZ4 leaves of noise around a level: the three bytes of its mantissa and, of the fourth, 0.08 to 1.0 (seen in
/// slices and differences of simulated scans).
const NOISE_LEFT: f64 = 0.9;
/// The same of labels of grains, which are few.
const LABELS_LEFT: f64 = 0.03;

/// Bytes on the disk, of all scales: expected, and at most.
pub(in super::super) fn stored_bytes(
    shape: [usize; 3],
    voxel_type: VoxelType,
    filled: f64,
) -> [u64; 2] {
    let voxels: usize = scales(shape)
        .iter()
        .map(|scale| scale.iter().product::<usize>())
        .sum();
    let bytes = 4 * voxels as u64;
    let left = match voxel_type {
        VoxelType::F32 => NOISE_LEFT,
        VoxelType::U32 => LABELS_LEFT,
    };
    [(filled * left * bytes as f64) as u64, bytes]
}

fn scales(shape: [usize; 3]) -> Vec<[usize; 3]> {
    let mut scales = vec![shape];
    let mut last = shape;
    while last.iter().any(|&side| side > SMALLEST) {
        last = last.map(|side| side.div_ceil(2));
        scales.push(last);
    }
    scales
}

/// One scale. Voxels are kept as u32, the common size of all element types.
struct Scale {
    folder: PathBuf,
    layout: Layout,
    layer: Vec<u32>,
    layers_written: usize,
    /// A slice that waits for the one above it to make a slice of the next scale.
    waiting: Vec<u32>,
}

pub(super) struct Pyramid {
    folder: PathBuf,
    meta: VolumeMeta,
    scales: Vec<Scale>,
    checksums: Checksums,
    /// Of the voxels of full resolution that were stored.
    range: [f64; 2],
    contrast: Vec<f64>,
    behind: Behind,
    /// The last shard; its memory is kept for the next one.
    encoded: Vec<u8>,
}

impl Pyramid {
    pub(super) fn start(folder: &Path, meta: &VolumeMeta) -> Result<Pyramid> {
        let mut pyramid = Pyramid {
            folder: folder.to_path_buf(),
            meta: meta.clone(),
            scales: Vec::new(),
            checksums: Checksums::default(),
            range: [f64::INFINITY, f64::NEG_INFINITY],
            contrast: Vec::new(),
            behind: Behind::of(4 * meta.shape.iter().product::<usize>() as u64),
            encoded: Vec::new(),
        };
        for (index, shape) in scales(meta.shape).into_iter().enumerate() {
            let folder = folder.join(index.to_string());
            std::fs::create_dir_all(&folder).map_err(Error::io("create folder", &folder))?;
            let layout = Layout::of_scale(meta.shape, shape);
            let description = match meta.voxel_type {
                VoxelType::F32 => metadata::array::<f32>(&layout),
                VoxelType::U32 => metadata::array::<u32>(&layout),
            };
            super::super::write_json(&folder.join("zarr.json"), &description)?;
            pyramid.scales.push(Scale {
                folder,
                layout,
                layer: Vec::new(),
                layers_written: 0,
                waiting: Vec::new(),
            });
        }
        Ok(pyramid)
    }

    /// Adds slices to a scale, and what follows from them to the smaller ones.
    fn push<T: Voxel>(&mut self, scale: usize, slices: &[T]) -> Result<()> {
        let [_, height, width] = self.scales[scale].layout.shape;
        let slice_len = height * width;
        let smallest = scale + 1 == self.scales.len();
        if smallest {
            slices
                .chunks_exact(slice_len)
                .for_each(|slice| self.sample(slice));
        }
        let layer_len = slice_len * self.scales[scale].layout.chunk[0];
        let mut rest = slices;
        while !rest.is_empty() {
            let layer = &mut self.scales[scale].layer;
            if layer.is_empty() && rest.len() >= layer_len {
                // whole layers are stored from where they are
                let (whole, behind) = rest.split_at(layer_len);
                self.store_layer(scale, whole)?;
                rest = behind;
                continue;
            }
            let (more, behind) = rest.split_at(rest.len().min(layer_len - layer.len()));
            layer.extend_from_slice(bytemuck::cast_slice(more));
            rest = behind;
            if layer.len() == layer_len {
                self.store_kept_layer::<T>(scale)?;
            }
        }
        if smallest {
            return Ok(());
        }
        let (first, rest) = match self.scales[scale].waiting.is_empty() {
            true => slices.split_at(0),
            false => slices.split_at(slice_len.min(slices.len())),
        };
        if !first.is_empty() {
            let below = std::mem::take(&mut self.scales[scale].waiting);
            let pooled = pool::<T>(&[bytemuck::cast_slice(&below), first], height, width);
            self.push(scale + 1, &pooled)?;
        }
        let pairs = rest.chunks_exact(2 * slice_len);
        let waiting = bytemuck::cast_slice(pairs.remainder());
        self.scales[scale].waiting.extend_from_slice(waiting);
        for pair in pairs {
            let (below, above) = pair.split_at(slice_len);
            let pooled = pool(&[below, above], height, width);
            self.push(scale + 1, &pooled)?;
        }
        Ok(())
    }

    /// Stores the layer that was gathered, whole or not; its memory is kept for the next one.
    fn store_kept_layer<T: Voxel>(&mut self, scale: usize) -> Result<()> {
        let mut layer = std::mem::take(&mut self.scales[scale].layer);
        self.store_layer::<T>(scale, bytemuck::cast_slice(&layer))?;
        layer.clear();
        self.scales[scale].layer = layer;
        Ok(())
    }

    fn store_layer<T: Voxel>(&mut self, scale: usize, layer: &[T]) -> Result<()> {
        let this = &mut self.scales[scale];
        let [_, across_y, across_x] = this.layout.grid();
        let mut all = T::bounds(&[]);
        for sy in 0..across_y {
            for sx in 0..across_x {
                let key = Layout::key([this.layers_written, sy, sx]);
                let path = this.folder.join(&key);
                let bytes = &mut self.encoded;
                let found =
                    shard::encode(&this.layout, layer, [sy, sx], bytes).map_err(|error| {
                        Error::input(
                            &path,
                            format!("cannot be encoded: {error}"),
                            "choose another --format",
                        )
                    })?;
                all = wider(all, found);
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(Error::io("create folder", parent))?;
                }
                super::super::store_part(&path, bytes)?;
                self.behind.wrote(&path, bytes.len() as u64)?;
                self.checksums
                    .parts
                    .insert(format!("{scale}/{key}"), Part::of(bytes));
            }
        }
        this.layers_written += 1;
        if scale == 0 {
            self.range = wider(self.range, all);
        }
        Ok(())
    }

    /// Keeps some voxels of the smallest scale, for the contrast that viewers start with.
    fn sample<T: Voxel>(&mut self, slice: &[T]) {
        let shape = self.scales[self.scales.len() - 1].layout.shape;
        let step = (shape.iter().product::<usize>() / CONTRAST_SAMPLES).max(1);
        let finite = slice
            .iter()
            .step_by(step)
            .map(|voxel| voxel.number())
            .filter(|number| number.is_finite());
        self.contrast.extend(finite);
    }

    fn window(&mut self) -> Option<[f64; 4]> {
        let [min, max] = self.range;
        if min > max {
            return None;
        }
        self.contrast.sort_by(f64::total_cmp);
        let at = |share: f64| {
            self.contrast
                .get((share * (self.contrast.len().max(1) - 1) as f64) as usize)
                .copied()
        };
        let (start, end) = (at(0.001).unwrap_or(min), at(0.999).unwrap_or(max));
        Some([min, max, start, if end > start { end } else { max }])
    }

    fn finish_as<T: Voxel>(&mut self) -> Result<()> {
        for scale in 0..self.scales.len() {
            // a slice without a partner is pooled in the plane only
            let waiting = std::mem::take(&mut self.scales[scale].waiting);
            if !waiting.is_empty() {
                let [_, height, width] = self.scales[scale].layout.shape;
                let pooled = pool::<T>(&[bytemuck::cast_slice(&waiting)], height, width);
                self.push(scale + 1, &pooled)?;
            }
            if !self.scales[scale].layer.is_empty() {
                self.store_kept_layer::<T>(scale)?;
            }
        }
        Ok(())
    }
}

/// One slice of the next scale from one or two slices; blocks at an odd edge are smaller.
fn pool<T: Voxel>(slices: &[&[T]], height: usize, width: usize) -> Vec<T> {
    let (rows, columns) = (height.div_ceil(2), width.div_ceil(2));
    let mut pooled = vec![T::FILL; rows * columns];
    pooled
        .par_chunks_mut(columns)
        .enumerate()
        .for_each(|(row, to)| {
            let lines: Vec<&[T]> = slices
                .iter()
                .flat_map(|slice| {
                    (2 * row..(2 * row + 2).min(height)).map(|y| &slice[y * width..(y + 1) * width])
                })
                .collect();
            // most blocks are whole: these need no list
            let whole = match &lines[..] {
                &[a, b, c, d] => {
                    T::pool_pairs([a, b, c, d], to);
                    width / 2
                }
                _ => 0,
            };
            let mut block = Vec::with_capacity(8);
            for (column, to) in to.iter_mut().enumerate().skip(whole) {
                let x = 2 * column;
                block.clear();
                for line in &lines {
                    block.extend_from_slice(&line[x..(x + 2).min(width)]);
                }
                *to = T::pool(&block);
            }
        });
    pooled
}

impl Backend for Pyramid {
    fn append<T: Voxel>(&mut self, _z0: usize, slices: &[T]) -> Result<()> {
        self.push(0, slices)
    }

    fn stored(&self) -> usize {
        let full = &self.scales[0];
        (full.layers_written * full.layout.chunk[0]).min(self.meta.shape[0])
    }

    fn read_back(&self, z: Range<usize>) -> Result<Array3<f32>> {
        let written = OwnZarr::open(&self.folder, self.meta.clone())?;
        super::super::values(written.slab(z)?)
    }

    fn finish(mut self) -> Result<Vec<String>> {
        match self.meta.voxel_type {
            VoxelType::F32 => self.finish_as::<f32>()?,
            VoxelType::U32 => self.finish_as::<u32>()?,
        }
        let name = self
            .folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let name = name.trim_end_matches(".zarr").trim_end_matches(".ome");
        let window = self.window();
        let group = metadata::group(&self.meta, name, self.scales.len(), window);
        super::super::write_json(&self.folder.join("zarr.json"), &group)?;
        // within array 0, because Zarr readers warn of files in a group that they do not know
        self.checksums.store(&self.scales[0].folder)?;
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_halve_until_no_side_is_longer_than_256() {
        assert_eq!(
            scales([600, 301, 2]),
            [[600, 301, 2], [300, 151, 1], [150, 76, 1]]
        );
        assert_eq!(scales([256, 1, 1]), [[256, 1, 1]]);
    }

    #[test]
    fn odd_edges_are_pooled_over_what_is_there() {
        let slice = [1.0f32, 3.0, 10.0, 5.0, f32::NAN, 20.0, 7.0, 9.0, f32::NAN];
        assert_eq!(pool(&[&slice], 3, 3)[..3], [3.0, 15.0, 8.0]);
        assert!(pool(&[&slice], 3, 3)[3].is_nan());
        assert_eq!(pool(&[&[1u32, 0, 5, 0], &[0, 7, 0, 0]], 2, 2), [7]);
    }

    #[test]
    fn the_stated_memory_covers_a_layer_of_every_scale() {
        // 2048^2 slices: 2 + 1 slices of 16 MiB at scale 0, a quarter at the next and so on down, and two shards
        let bytes = writer_bytes([2048, 2048, 2048]);
        assert!(bytes > (3 * 16) << 20 && bytes < 144 << 20, "{bytes}");
    }
}
