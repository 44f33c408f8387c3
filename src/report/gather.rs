//! Everything that a run left in its folder, read back.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::record::{
    AlignmentRecord, DifferenceRecord, GrainRow, HistogramRow, PerHeightRow, RunRecord, ScanRecord,
};

/// A finished run.
pub(super) struct Run {
    pub(super) record: RunRecord,
    pub(super) scans: Vec<Scan>,
    pub(super) changes: Vec<Change>,
}

/// One scan.
pub(super) struct Scan {
    pub(super) record: ScanRecord,
    pub(super) folder: PathBuf,
    pub(super) volume: PathBuf,
}

/// One difference.
pub(super) struct Change {
    pub(super) folder: PathBuf,
    pub(super) record: DifferenceRecord,
    pub(super) alignment: AlignmentRecord,
    pub(super) per_height: Vec<PerHeightRow>,
    pub(super) grains: Vec<GrainRow>,
    pub(super) histogram: Vec<HistogramRow>,
    pub(super) difference: PathBuf,
    pub(super) labels: PathBuf,
    pub(super) reference: PathBuf,
    pub(super) target: PathBuf,
}

impl Change {
    /// Reads the records and tables in `folder`, of a difference of the volumes `reference` and `target`.
    ///
    /// # Errors
    /// As for [`Run::read`].
    pub(super) fn read(
        folder: PathBuf,
        alignment: AlignmentRecord,
        [reference, target]: [PathBuf; 2],
    ) -> Result<Change> {
        Ok(Change {
            record: json(&folder.join("difference.json"))?,
            alignment,
            per_height: table(&folder.join("per_height.csv"))?,
            grains: table(&folder.join("grains.csv"))?,
            histogram: table(&folder.join("histogram.csv"))?,
            difference: find_volume(&folder, "difference")?,
            labels: find_volume(&folder, "labels")?,
            reference,
            target,
            folder,
        })
    }

    /// Edge of a voxel and its unit: um where known, else voxels.
    pub(super) fn length(&self) -> (f64, &'static str) {
        match self.record.voxel_size_um {
            Some(size) if size > 0.0 => (size, "µm"),
            _ => (1.0, "voxel"),
        }
    }

    /// Volume of a voxel and its unit.
    pub(super) fn cubic(&self) -> (f64, &'static str) {
        match self.record.voxel_size_um {
            Some(size) if size > 0.0 => (size.powi(3), "µm³"),
            _ => (1.0, "voxels"),
        }
    }
}

impl Run {
    /// Names of the scans in the order of the config, which is that of time.
    pub(super) fn config_order(&self) -> Vec<&str> {
        self.record.config["scan"]
            .as_array()
            .map(|scans| {
                scans
                    .iter()
                    .filter_map(|scan| scan["name"].as_str())
                    .collect()
            })
            .unwrap_or_default()
    }

    /// Reads the records and tables of the run in `folder`; volumes are found, not opened.
    ///
    /// # Errors
    /// [`Error::Input`] or [`Error::Io`] naming what is missing or damaged.
    pub(super) fn read(folder: &Path) -> Result<Run> {
        let record: RunRecord = json(&folder.join("run.json"))?;
        let scans = record
            .scans
            .iter()
            .map(|name| {
                let folder = folder.join("scans").join(name);
                Ok(Scan {
                    record: json(&folder.join("scan.json"))?,
                    volume: find_volume(&folder, "volume")?,
                    folder,
                })
            })
            .collect::<Result<Vec<Scan>>>()?;
        let volume_of = |name: &str| {
            scans
                .iter()
                .find(|scan| scan.record.name == name)
                .map(|scan| scan.volume.clone())
                .ok_or_else(|| {
                    Error::input(
                        folder.join("run.json"),
                        format!("a difference names the scan {name}, which is not among the scans"),
                        "run again with --resume",
                    )
                })
        };
        let changes = record
            .differences
            .iter()
            .map(|(target, reference)| {
                let folder = folder.join("differences").join(target);
                let alignment = json(&folder.join("alignment.json"))?;
                Change::read(
                    folder,
                    alignment,
                    [volume_of(reference)?, volume_of(target)?],
                )
            })
            .collect::<Result<Vec<Change>>>()?;
        Ok(Run {
            record,
            scans,
            changes,
        })
    }
}

/// The volume called `stem` in `folder`, whatever its format.
///
/// # Errors
/// [`Error::Input`] when there is none.
pub(super) fn find_volume(folder: &Path, stem: &str) -> Result<PathBuf> {
    let names = [
        format!("{stem}.ome.zarr"),
        format!("{stem}.h5"),
        format!("{stem}.npy"),
        stem.to_string(),
    ];
    names
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.exists())
        .ok_or_else(|| {
            Error::input(
                folder,
                format!("no volume {stem} (looked for {})", names.join(", ")),
                "run again with --resume to complete it",
            )
        })
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::input(
            path,
            format!("is not a record of this program: {error}"),
            "run again with --overwrite",
        )
    })
}

fn table<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let damaged = |error: csv::Error| {
        Error::input(
            path,
            format!("is not a table of this program: {error}"),
            "run again with --overwrite",
        )
    };
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    csv::Reader::from_reader(std::io::BufReader::new(file))
        .deserialize()
        .collect::<std::result::Result<_, _>>()
        .map_err(damaged)
}
