//! The series lock within a run: found once over the scans, kept beside the results.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::SeriesRun;
use super::output::{Existing, OutputFolder, read_json, write_json};
use crate::config::{Config, VolumeFormat};
use crate::correct::CorrectedScan;
use crate::correct::lock::{self, LockRecord, PixelMap};
use crate::error::{Error, Result};
use crate::io::volume::{self, VolumeMeta, VoxelType};
use crate::plan::{self, Plan};
use crate::progress::Progress;
use crate::scan::SinogramSource;

/// What was found, within the output folder; written last, so that the map is whole where it stands.
pub(super) const RECORD: &str = "stripes/lock.json";
/// The map: verdicts and strengths, `[2, row, col]`.
const MAP: &str = "stripes/pixels.npy";

impl SeriesRun<'_> {
    /// Finds the pixels that answer wrongly in the whole series, or takes what an earlier run found.
    pub(super) fn lock_series(&mut self, plan: &Plan) -> Result<()> {
        let Some(asked) = &plan.lock else {
            if self.config.correct.lock.enabled {
                self.warnings.push(
                    "the scans have detectors of different sizes: wrong pixels are not looked for (correct.lock)".into(),
                );
            }
            return Ok(());
        };
        let kept = match self.session.existing {
            Existing::Resume => read(self.folder.path(), asked.shape),
            _ => None,
        };
        let (map, record) = match kept {
            Some(kept) => kept,
            None => {
                let (map, mut record) = lock::find(
                    asked.scans.len(),
                    asked.shape,
                    |k| self.corrected(asked.scans[k], false),
                    &self.config.correct.lock,
                    asked.band,
                    &self.session.progress,
                )?;
                let name = |&index: &usize| self.config.scan[index].name.clone();
                record.scans = asked.scans.iter().map(name).collect();
                write(self.folder, &map, &record)?;
                (map, record)
            }
        };
        log::info!(
            "lock: {} pixels corrected and {} interpolated alike in every scan, of {} x {}",
            record.corrected,
            record.interpolated,
            asked.shape[0],
            asked.shape[1]
        );
        self.warnings.extend(doubts(&record));
        self.lock = Some((Arc::new(map), record));
        Ok(())
    }
}

/// What a person should read about the map.
fn doubts(record: &LockRecord) -> Vec<String> {
    let mut doubts = Vec::new();
    if record.rows_given_up > 0 {
        doubts.push(format!(
            "in {} detector rows more than a quarter of the pixels differ from their neighbours in every scan; nothing is corrected there (correct.lock)",
            record.rows_given_up
        ));
    }
    let pixels = (record.shape[0] * record.shape[1]) as u64;
    if 20 * (record.corrected + record.interpolated) > pixels {
        doubts.push(format!(
            "{} of {pixels} pixels, more than a twentieth, were taken as wrong: raise correct.lock.ratio if slices look smoothed",
            record.corrected + record.interpolated
        ));
    }
    doubts
}

fn write(folder: &OutputFolder, map: &PixelMap, record: &LockRecord) -> Result<()> {
    let planes = map.to_planes();
    let (a, b, c) = planes.dim();
    let meta = VolumeMeta {
        shape: [a, b, c],
        voxel_type: VoxelType::F32,
        unit: "line integral".into(),
        voxel_size_um: None,
        first_row: 0,
        provenance: json!({
            "program": "tomodelta",
            "axes": "[plane, row, col]; plane 0: 0 good, 1 corrected, 2 interpolated; plane 1: anomaly shared by all scans",
        }),
    };
    let path = folder.path().join(MAP);
    let parent = path.parent().unwrap_or(folder.path());
    std::fs::create_dir_all(parent).map_err(Error::io("create folder", parent))?;
    volume::write_array(&path, VolumeFormat::Npy, &meta, planes.view(), true)?;
    write_json(&folder.path().join(RECORD), record)
}

/// The map of an earlier run for a detector `[row, col]`; `None` where there is none that fits.
fn read(folder: &Path, shape: [usize; 2]) -> Option<(PixelMap, LockRecord)> {
    let record: LockRecord = read_json(&folder.join(RECORD)).ok()?;
    let planes = volume::open(&folder.join(MAP)).ok()?.read(0..2).ok()?;
    let map = PixelMap::from_planes(&planes)?;
    (map.shape() == (shape[0], shape[1])).then_some((map, record))
}

/// A scan on its own, with the wrong pixels that it shows by itself where the config asks for them.
///
/// # Errors
/// Those of reading; [`Error::Memory`].
pub fn locked_alone(
    scan: CorrectedScan,
    config: &Config,
    progress: &Progress,
) -> Result<CorrectedScan> {
    if !config.correct.lock.enabled {
        return Ok(scan);
    }
    let shape = [SinogramSource::n_rows(&scan), SinogramSource::n_cols(&scan)];
    let (band, _) = plan::lock_band(1, shape, plan::memory_cap(config)?)?;
    let (map, record) = lock::find(
        1,
        shape,
        |_| Ok(&scan),
        &config.correct.lock,
        band,
        progress,
    )?;
    log::info!(
        "lock: {} pixels corrected and {} interpolated, found on this scan alone",
        record.corrected,
        record.interpolated
    );
    for doubt in doubts(&record) {
        log::warn!("{doubt}");
    }
    scan.with_lock(Arc::new(map))
}
