//! Shards: how a volume is cut, and one shard encoded and decoded.
//!
//! A shard holds its inner chunks one after the other in C order, then the index: offset and length of each chunk as two
//! u64 (both 2^64-1: not stored), then the CRC-32C of the index. Source: Zarr v3 `sharding_indexed` codec, version 1.0.
//! Written here and not by the Zarr library, because its order of chunks in a shard depends on the threads, and because
//! partial reads there do not check the CRC; the tests read these shards with the library.

use std::borrow::Cow;

use rayon::prelude::*;
use zarrs::array::codec::{Crc32cCodec, bytes_to_bytes::blosc};
use zarrs::array::{BytesRepresentation, BytesToBytesCodecTraits, CodecOptions};

use super::super::writer::{Voxel, wider};

/// Compression level of Blosc: higher ones gain nothing on noise.
pub(super) const LEVEL: u8 = 1;
/// Largest layer of chunks that is held for the sake of high chunks \[bytes\].
const LAYER_BYTES: usize = 48 << 20;
/// Lowest chunks: a layer of them is held whatever the size of a slice.
const LEAST_HEIGHT: usize = 2;
/// Largest shard, as it is in memory \[bytes\].
const SHARD_BYTES: usize = 32 << 20;
const ABSENT: u64 = u64::MAX;

/// How an array is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Of the array.
    pub(super) shape: [usize; 3],
    /// Of an inner chunk.
    pub(super) chunk: [usize; 3],
    /// Of a shard: as high as a chunk.
    pub(super) shard: [usize; 3],
}

impl Layout {
    /// Chunks are 64^3 where a layer of them stays below 48 MiB, else lower (down to 2) and wider (up to 256). Shards
    /// are as wide as 32 MiB allow, 2048 at most.
    pub(super) fn of(shape: [usize; 3]) -> Layout {
        Layout::of_scale(shape, shape)
    }

    /// A smaller scale has chunks of the same height as the full one, so that its layers are smaller too.
    pub(super) fn of_scale(full: [usize; 3], shape: [usize; 3]) -> Layout {
        let slice_bytes = 4 * full[1] * full[2];
        let mut height = 64;
        while height > LEAST_HEIGHT && height * slice_bytes > LAYER_BYTES {
            height /= 2;
        }
        let width = match height {
            32.. => 64,
            8..32 => 128,
            _ => 256,
        };
        let mut shard_side: usize = width;
        while shard_side < 2048 && 4 * height * (2 * shard_side).pow(2) <= SHARD_BYTES {
            shard_side *= 2;
        }
        let chunk = [
            height.min(shape[0]),
            width.min(shape[1]),
            width.min(shape[2]),
        ];
        let side =
            |axis: usize| chunk[axis] * (shard_side / width).min(shape[axis].div_ceil(chunk[axis]));
        Layout {
            shape,
            chunk,
            shard: [chunk[0], side(1), side(2)],
        }
    }

    /// Shards along each axis.
    pub(super) fn grid(&self) -> [usize; 3] {
        std::array::from_fn(|axis| self.shape[axis].div_ceil(self.shard[axis]))
    }

    /// Chunks of a shard along y and x.
    pub(super) fn chunks(&self) -> [usize; 2] {
        [self.shard[1] / self.chunk[1], self.shard[2] / self.chunk[2]]
    }

    /// Voxels of a chunk.
    pub(super) fn chunk_len(&self) -> usize {
        self.chunk.iter().product()
    }

    /// Key of a shard below the array.
    pub(super) fn key(shard: [usize; 3]) -> String {
        format!("c/{}/{}/{}", shard[0], shard[1], shard[2])
    }

    /// First y and x of a chunk of a shard.
    pub(super) fn origin(&self, shard: [usize; 2], chunk: usize) -> [usize; 2] {
        let across = self.chunks()[1];
        [
            shard[0] * self.shard[1] + chunk / across * self.chunk[1],
            shard[1] * self.shard[2] + chunk % across * self.chunk[2],
        ]
    }
}

/// A chunk as it is stored (`None` beyond the array), and the bounds of its voxels.
type Chunk = (Option<Vec<u8>>, [f64; 2]);

/// Encodes the shard `[sy, sx]` of a layer `[z, y, x]` that may hold fewer slices than a chunk, in place of `bytes`; gives the bounds of its
/// voxels ([`Voxel::bounds`]), which are in the cache then.
pub(super) fn encode<T: Voxel>(
    layout: &Layout,
    layer: &[T],
    shard: [usize; 2],
    bytes: &mut Vec<u8>,
) -> Result<[f64; 2], String> {
    let [_, height, width] = layout.shape;
    let depth = layer.len() / (height * width);
    let n_chunks = layout.chunks().iter().product::<usize>();
    let chunks: Result<Vec<Chunk>, String> = (0..n_chunks)
        .into_par_iter()
        .map(|index| {
            let [y0, x0] = layout.origin(shard, index);
            if y0 >= height || x0 >= width {
                return Ok((None, T::bounds(&[])));
            }
            let [cz, cy, cx] = layout.chunk;
            let (rows, columns) = (cy.min(height - y0), cx.min(width - x0));
            let lines = (0..depth).flat_map(|z| (0..rows).map(move |y| (z, y)));
            let line = |z: usize, y: usize| {
                let from = (z * height + y0 + y) * width + x0;
                &layer[from..from + columns]
            };
            let mut chunk = Vec::with_capacity(cz * cy * cx);
            lines
                .clone()
                .for_each(|(z, y)| chunk.extend_from_slice(line(z, y)));
            let bounds = T::bounds(&chunk);
            if chunk.len() < cz * cy * cx {
                chunk.clear();
                chunk.resize(cz * cy * cx, T::FILL);
                lines.for_each(|(z, y)| {
                    chunk[(z * cy + y) * cx..][..columns].copy_from_slice(line(z, y));
                });
            }
            let stored = compress(bytemuck::cast_slice(&chunk))?;
            Ok((Some(stored), bounds))
        })
        .collect();
    let (encoded, bounds): (Vec<_>, Vec<_>) = chunks?.into_iter().unzip();
    let voxels: usize = encoded.iter().flatten().map(Vec::len).sum();
    bytes.clear();
    bytes.reserve(voxels + index_bytes(layout) as usize);
    let mut index = Vec::with_capacity(16 * n_chunks + 4);
    for chunk in encoded {
        let entry = chunk.as_ref().map_or([ABSENT; 2], |chunk| {
            [bytes.len() as u64, chunk.len() as u64]
        });
        index.extend(entry.into_iter().flat_map(u64::to_le_bytes));
        bytes.extend(chunk.unwrap_or_default());
    }
    bytes.extend(with_crc(index));
    Ok(bounds.into_iter().fold(T::bounds(&[]), wider))
}

/// Offset and length of every chunk of a shard, from the last bytes of its file.
pub(super) fn decode_index(
    layout: &Layout,
    tail: &[u8],
    file_len: u64,
) -> Result<Vec<[u64; 2]>, String> {
    let index = without_crc(tail)?;
    let chunks = layout.chunks().iter().product::<usize>();
    if index.len() != 16 * chunks {
        return Err(format!(
            "its index has {} bytes instead of {}",
            index.len(),
            16 * chunks
        ));
    }
    let (words, _) = index.as_chunks::<8>();
    let entries: Vec<[u64; 2]> = words
        .chunks_exact(2)
        .map(|pair| [u64::from_le_bytes(pair[0]), u64::from_le_bytes(pair[1])])
        .collect();
    for [start, len] in &entries {
        if *start != ABSENT && start.checked_add(*len).is_none_or(|end| end > file_len) {
            return Err(format!(
                "its index points {len} bytes at {start}, behind its end at {file_len}"
            ));
        }
    }
    Ok(entries)
}

/// Bytes of the index of a shard.
pub(super) fn index_bytes(layout: &Layout) -> u64 {
    16 * layout.chunks().iter().product::<usize>() as u64 + 4
}

/// Voxels of one stored chunk.
pub(super) fn decode_chunk<T: Voxel>(layout: &Layout, stored: &[u8]) -> Result<Vec<T>, String> {
    let compressed = without_crc(stored)?;
    let expected = 4 * layout.chunk_len();
    let bytes = blosc::blosc_decompress_bytes(&compressed, expected, 1)
        .map_err(|error| error.to_string())?;
    if bytes.len() != expected {
        return Err(format!(
            "a chunk has {} bytes instead of {expected}",
            bytes.len()
        ));
    }
    Ok(bytemuck::pod_collect_to_vec(&bytes))
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let level = blosc::BloscCompressionLevel::try_from(LEVEL)
        .map_err(|level| format!("Blosc has no level {level}"))?;
    let compressed = blosc::blosc_compress_bytes(
        bytes,
        level,
        blosc::BloscShuffleMode::Shuffle,
        4,
        blosc::BloscCompressor::LZ4,
        0,
        1,
    )
    .map_err(|error| error.to_string())?;
    Ok(with_crc(compressed))
}

fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

fn without_crc(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let options = CodecOptions::default().with_validate_checksums(true);
    Crc32cCodec::new()
        .decode(
            Cow::Borrowed(bytes),
            &BytesRepresentation::UnboundedSize,
            &options,
        )
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_get_lower_where_slices_are_large_and_never_exceed_the_volume() {
        assert_eq!(Layout::of([400, 400, 400]).chunk, [64, 64, 64]);
        assert_eq!(Layout::of([512, 512, 512]).chunk, [32, 64, 64]);
        assert_eq!(Layout::of([1024, 1024, 1024]).chunk, [8, 128, 128]);
        let large = Layout::of([3077, 3077, 3077]);
        assert_eq!((large.chunk, large.shard), ([2, 256, 256], [2, 2048, 2048]));
        assert_eq!(
            Layout::of([5, 7, 200]),
            Layout {
                shape: [5, 7, 200],
                chunk: [5, 7, 64],
                shard: [5, 7, 256]
            }
        );
        for n in [1, 63, 64, 65, 1000, 2048] {
            let layout = Layout::of([n, n, n]);
            assert!(
                layout
                    .shard
                    .iter()
                    .zip(layout.chunk)
                    .all(|(shard, chunk)| shard % chunk == 0)
            );
            let layer = 4 * n * n * layout.chunk[0];
            assert!(
                layer <= LAYER_BYTES || layout.chunk[0] == LEAST_HEIGHT,
                "{n}: {layer}"
            );
            let shard = 4 * layout.shard.iter().product::<usize>();
            assert!(shard <= SHARD_BYTES, "{n}: shards of {shard} bytes");
        }
    }

    #[test]
    fn a_flipped_bit_in_a_chunk_or_in_the_index_is_noticed() {
        let layout = Layout::of([3, 70, 5]);
        let layer: Vec<f32> = (0..3 * 70 * 5).map(|i| (i as f32).sin()).collect();
        let mut bytes = vec![7; 3];
        encode(&layout, &layer, [0, 0], &mut bytes).unwrap();
        let tail = bytes.len() - index_bytes(&layout) as usize;
        let entries = decode_index(&layout, &bytes[tail..], bytes.len() as u64).unwrap();
        assert_eq!(entries.len(), 2);
        let [start, len] = entries[0].map(|n| n as usize);
        let chunk: Vec<f32> = decode_chunk(&layout, &bytes[start..start + len]).unwrap();
        assert_eq!(chunk[1], layer[1]);
        let mut damaged = bytes.clone();
        damaged[start + len / 2] ^= 4;
        assert!(decode_chunk::<f32>(&layout, &damaged[start..start + len]).is_err());
        damaged[tail] ^= 1;
        assert!(decode_index(&layout, &damaged[tail..], bytes.len() as u64).is_err());
        assert!(
            decode_index(&layout, &bytes[tail..], 100).is_err(),
            "points behind the end"
        );
    }
}
