//! When each voxel first changed, over a series whose differences stand on one grid.
//!
//! Streams the labels of all differences side by side: `first_change` holds for every voxel the number of the first
//! difference (from 1, in the order of time) in which it belongs to a grain, 0 where there is none. `first_change.csv` says for each
//! difference how many voxels changed for the first time, how many again, and how many no longer do.
//! Deposits that return to old paths show as voxels that change again (Geng et al. 2023, Energy Environ. Sci. 16).

use std::path::Path;

use ndarray::{Array3, Zip};
use serde::{Deserialize, Serialize};

use crate::config::VolumeFormat;
use crate::error::{Error, Result};
use crate::io::volume::partial::write_file;
use crate::io::volume::{self, VolumeMeta, VolumeReader, VoxelType};
use crate::progress::Progress;

/// One row of `first_change.csv`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FirstChangeRow {
    /// Number in the volume.
    pub number: u32,
    /// Target scan.
    pub scan: String,
    /// Voxels in grains of this difference.
    pub changed_voxels: u64,
    /// Those that were in no earlier one.
    pub first_voxels: u64,
    /// Those that were in an earlier one, but not in the one before.
    pub again_voxels: u64,
    /// Voxels in grains of the difference before, and not of this one.
    pub gone_voxels: u64,
}

/// Name of the volume without the ending of its format.
pub const STEM: &str = "first_change";

/// Bytes held for slabs of one slice `[z, y, x]` by `n` differences.
#[must_use]
pub fn bytes_per_slice(shape: [usize; 3], n: usize) -> u64 {
    // the slab, the labels of one difference, and a bit for the one before
    (shape[1] * shape[2]) as u64 * (4 + 4 + 1) + 64 * n as u64
}

/// Writes the volume and the table into `folder`; `labels` are the label volumes in the order of time, with the names of their scans.
///
/// # Errors
/// [`Error::Shape`] when the volumes differ in shape; those of reading and writing.
pub fn write(
    folder: &Path,
    labels: &[(String, Box<dyn VolumeReader>)],
    format: VolumeFormat,
    budget: u64,
    overwrite: bool,
    progress: &Progress,
) -> Result<Vec<FirstChangeRow>> {
    let Some((_, first)) = labels.first() else {
        return Ok(Vec::new());
    };
    let shape = first.meta().shape;
    for (name, volume) in labels {
        if volume.meta().shape != shape {
            return Err(Error::Shape {
                what: format!("labels of {name} [z, y, x]"),
                expected: shape.to_vec(),
                found: volume.meta().shape.to_vec(),
                hint: "the scans of a series stand on one grid".into(),
            });
        }
    }
    let names: Vec<&str> = labels.iter().map(|(name, _)| name.as_str()).collect();
    let meta = VolumeMeta {
        voxel_type: VoxelType::U32,
        unit: "label".into(),
        provenance: serde_json::json!({
            "program": "tomodelta",
            "version": env!("CARGO_PKG_VERSION"),
            "content": "number of the first difference, from 1, in which the voxel belongs to a grain; 0: none",
            "differences": names,
        }),
        ..first.meta().clone()
    };
    let path = folder.join(volume::file_name(STEM, format));
    let mut writer = volume::create(&path, format, &meta, overwrite)?;
    let per_slice = bytes_per_slice(shape, labels.len()) + first.bytes_per_slice();
    let slab = ((budget / per_slice.max(1)) as usize)
        .clamp(1, 128)
        .min(shape[0].max(1));
    let mut rows: Vec<FirstChangeRow> = (1u32..)
        .zip(&names)
        .map(|(number, name)| FirstChangeRow {
            number,
            scan: (*name).to_string(),
            ..FirstChangeRow::default()
        })
        .collect();
    let stage = progress.stage("first change", shape[0] as u64, "slices");
    for start in (0..shape[0]).step_by(slab) {
        let z = start..(start + slab).min(shape[0]);
        let mut out = Array3::<u32>::zeros((z.len(), shape[1], shape[2]));
        let mut before = Array3::<bool>::default(out.raw_dim());
        for (row, (_, volume)) in rows.iter_mut().zip(labels) {
            let here = volume.read_labels(z.clone())?;
            let number = row.number;
            Zip::from(&mut out)
                .and(&mut before)
                .and(&here)
                .for_each(|first, before, &label| {
                    let changed = label > 0;
                    row.changed_voxels += u64::from(changed);
                    row.gone_voxels += u64::from(*before && !changed);
                    if changed && *first == 0 {
                        *first = number;
                        row.first_voxels += 1;
                    } else if changed && !*before {
                        row.again_voxels += 1;
                    }
                    *before = changed;
                });
        }
        writer.write_labels(start, out.view())?;
        stage.inc(z.len() as u64);
    }
    writer.finish()?;
    let mut table = csv::Writer::from_writer(Vec::new());
    let failed = |error: csv::Error| Error::input("table", error.to_string(), "report this");
    for row in &rows {
        table.serialize(row).map_err(failed)?;
    }
    let bytes = table
        .into_inner()
        .map_err(|error| failed(error.into_error().into()))?;
    write_file(&folder.join(format!("{STEM}.csv")), &bytes)?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_voxel_gets_the_first_of_its_changes() {
        let folder = tempfile::tempdir().unwrap();
        // one column of voxels per history: never, first, second, both, first and third, third
        let histories = [0b000, 0b001, 0b010, 0b011, 0b101, 0b100u32];
        let labels: Vec<(String, Box<dyn VolumeReader>)> = (0..3)
            .map(|k| {
                let volume = Array3::from_shape_fn((5, 1, 6), |(z, _, x)| {
                    if histories[x] >> k & 1 == 1 {
                        7 + z as u32
                    } else {
                        0
                    }
                });
                let meta = VolumeMeta {
                    shape: [5, 1, 6],
                    voxel_type: VoxelType::U32,
                    unit: "label".into(),
                    voxel_size_um: None,
                    first_row: 0,
                    provenance: serde_json::Value::Null,
                };
                let path = folder.path().join(format!("{k}.npy"));
                let mut writer = volume::create(&path, VolumeFormat::Npy, &meta, false).unwrap();
                writer.write_labels(0, volume.view()).unwrap();
                writer.finish().unwrap();
                (format!("scan {k}"), volume::open(&path).unwrap())
            })
            .collect();
        let quiet = Progress::new(true);
        let rows = write(folder.path(), &labels, VolumeFormat::Npy, 1, false, &quiet).unwrap();
        let map = volume::open(&folder.path().join("first_change.npy"))
            .unwrap()
            .read_labels(0..5)
            .unwrap();
        for ((_, _, x), &first) in map.indexed_iter() {
            assert_eq!(first, [0, 1, 2, 1, 1, 3][x]);
        }
        let counts: Vec<[u64; 4]> = rows
            .iter()
            .map(|r| {
                [
                    r.changed_voxels,
                    r.first_voxels,
                    r.again_voxels,
                    r.gone_voxels,
                ]
                .map(|n| n / 5)
            })
            .collect();
        assert_eq!(counts, [[3, 3, 0, 0], [2, 1, 0, 2], [2, 1, 1, 2]]);
        let table = std::fs::read_to_string(folder.path().join("first_change.csv")).unwrap();
        assert!(table.starts_with(
            "number,scan,changed_voxels,first_voxels,again_voxels,gone_voxels\n1,scan 0,15,15,0,0\n"
        ));
    }
}
