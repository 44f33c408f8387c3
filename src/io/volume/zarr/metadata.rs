//! The `zarr.json` files.

use std::path::Path;

use serde_json::{Value, json};

use super::super::writer::Voxel;
use super::super::{Stored, VolumeMeta, VoxelType};
use super::shard::Layout;
use crate::error::Result;

/// Metadata of one array.
pub(super) fn array<T: Voxel>(layout: &Layout) -> Value {
    let bytes = json!({ "name": "bytes", "configuration": { "endian": "little" } });
    let blosc = json!({ "name": "blosc", "configuration": {
        "cname": "lz4", "clevel": super::shard::LEVEL, "shuffle": "shuffle", "typesize": 4, "blocksize": 0 } });
    let fill = if T::TYPE == VoxelType::F32 {
        json!("NaN")
    } else {
        json!(0)
    };
    json!({
        "zarr_format": 3,
        "node_type": "array",
        "shape": layout.shape,
        "data_type": T::ZARR,
        "chunk_grid": { "name": "regular", "configuration": { "chunk_shape": layout.shard } },
        "chunk_key_encoding": { "name": "default", "configuration": { "separator": "/" } },
        "fill_value": fill,
        "codecs": [{ "name": "sharding_indexed", "configuration": {
            "chunk_shape": layout.chunk,
            "codecs": [bytes, blosc, { "name": "crc32c" }],
            "index_codecs": [bytes, { "name": "crc32c" }],
            "index_location": "end",
        } }],
        "dimension_names": ["z", "y", "x"],
        "attributes": {},
    })
}

/// Metadata of the group. Scale l holds the middles of blocks of 2^l voxels: its origin lies (2^l - 1)/2 voxels in.
///
/// `window`: least and largest value, and where the contrast of a viewer should start and end.
pub(super) fn group(
    meta: &VolumeMeta,
    name: &str,
    scales: usize,
    window: Option<[f64; 4]>,
) -> Value {
    let size = meta.voxel_size_um.unwrap_or(1.0);
    let axes: Vec<Value> = ["z", "y", "x"]
        .iter()
        .map(|axis| match meta.voxel_size_um {
            Some(_) => json!({ "name": axis, "type": "space", "unit": "micrometer" }),
            None => json!({ "name": axis, "type": "space" }),
        })
        .collect();
    let datasets: Vec<Value> = (0..scales)
        .map(|scale| {
            let factor = (1u64 << scale) as f64;
            let (step, origin) = (size * factor, size * (factor - 1.0) / 2.0);
            json!({ "path": scale.to_string(), "coordinateTransformations": [
                { "type": "scale", "scale": [step, step, step] },
                { "type": "translation", "translation": [origin, origin, origin] },
            ] })
        })
        .collect();
    let method = match meta.voxel_type {
        VoxelType::F32 => "mean of 2x2x2 voxels",
        VoxelType::U32 => "largest label of 2x2x2 voxels",
    };
    let mut ome = json!({
        "version": "0.5",
        "multiscales": [{ "name": name, "axes": axes, "datasets": datasets, "type": method }],
    });
    if let Some([min, max, start, end]) = window {
        ome["omero"] = json!({ "channels": [{
            "label": meta.unit, "color": "FFFFFF", "active": true,
            "window": { "min": min, "max": max, "start": start, "end": end },
        }] });
    }
    json!({
        "zarr_format": 3,
        "node_type": "group",
        "attributes": { "ome": ome, "tomodelta": Stored::of(meta).value() },
    })
}

/// The metadata of a volume of ours; `None` for one of other software.
pub(super) fn load_own(path: &Path) -> Result<Option<VolumeMeta>> {
    if !path.join("zarr.json").exists() {
        return Ok(None);
    }
    let group = super::load_json(path)?;
    let stored = serde_json::from_value::<Stored>(group["attributes"]["tomodelta"].clone()).ok();
    Ok(stored.map(|stored| stored.volume))
}
