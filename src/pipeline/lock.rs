//! The series lock within a run: found once over the scans, kept beside the results.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::Array2;
use serde_json::json;

use super::output::{Existing, OutputFolder, read_json, write_json};
use super::series::SeriesRun;
use crate::config::{Config, VolumeFormat};
use crate::correct::CorrectedScan;
use crate::correct::lock::{self, LockRecord, PixelMap};
use crate::error::{Error, Result};
use crate::io::volume::{self, VolumeMeta, VoxelType};
use crate::plan::{self, Plan};
use crate::progress::Progress;
use crate::scan::{Shifts, SinogramSource, Sinograms};

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
                    std::slice::from_ref(&(0..asked.shape[0])),
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
            "lock: {} pixels corrected, {} levelled and {} interpolated alike in every scan, of {} x {}",
            record.corrected,
            record.levelled,
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
            "axes": "[plane, row, col]; plane 0: 0 good, 1 corrected, 2 interpolated, and 4 more in a broad stripe; plane 1: anomaly shared by all scans",
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

/// A scan on its own, with the wrong pixels that it shows by itself in `rows` where the config asks for them.
///
/// # Errors
/// Those of reading; [`Error::Memory`].
pub fn locked_alone(
    scan: CorrectedScan,
    rows: &[Range<usize>],
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
        rows,
        |_| Ok(&scan),
        &config.correct.lock,
        band,
        progress,
    )?;
    log::info!(
        "lock: {} pixels corrected, {} levelled and {} interpolated, found on this scan alone",
        record.corrected,
        record.levelled,
        record.interpolated
    );
    for doubt in doubts(&record) {
        log::warn!("{doubt}");
    }
    scan.with_lock(Arc::new(map))
}

/// A scan on its own whose wrong pixels are looked for row by row, as its sinograms are asked for.
///
/// For work on a few rows, such as the search of the axis. Sinograms are those of [`locked_alone`]; projections are not
/// treated.
pub struct LockedByRows<'a> {
    scan: CorrectedScan,
    config: &'a Config,
    progress: &'a Progress,
    /// The map, and the rows that it is known in.
    found: Mutex<(Arc<PixelMap>, Vec<bool>)>,
}

impl<'a> LockedByRows<'a> {
    /// Finds nothing yet.
    #[must_use]
    pub fn new(scan: CorrectedScan, config: &'a Config, progress: &'a Progress) -> Self {
        let shape = (scan.n_rows(), scan.n_cols());
        let known = vec![!config.correct.lock.enabled; shape.0];
        LockedByRows {
            scan,
            config,
            progress,
            found: Mutex::new((Arc::new(PixelMap::clean(shape)), known)),
        }
    }

    /// The map, known in `rows` at least.
    fn map(&self, rows: &Range<usize>) -> Result<Arc<PixelMap>> {
        // a panic of another thread leaves a map that is whole in the rows said to be known
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let (map, known) = &mut *found;
        if let Some(first) = rows.clone().find(|&row| !known[row]) {
            let unknown = first..rows.end;
            let shape = [self.scan.n_rows(), self.scan.n_cols()];
            let (band, _) = plan::lock_band(1, shape, plan::memory_cap(self.config)?)?;
            let (more, _) = lock::find(
                1,
                shape,
                std::slice::from_ref(&unknown),
                |_| Ok(&self.scan),
                &self.config.correct.lock,
                band,
                self.progress,
            )?;
            Arc::make_mut(map).take_rows(unknown.clone(), &more);
            known[unknown].fill(true);
        }
        Ok(map.clone())
    }
}

impl SinogramSource for LockedByRows<'_> {
    fn n_rows(&self) -> usize {
        SinogramSource::n_rows(&self.scan)
    }

    fn n_cols(&self) -> usize {
        SinogramSource::n_cols(&self.scan)
    }

    fn angles_rad(&self) -> &[f64] {
        self.scan.angles_rad()
    }

    fn shifts(&self) -> Option<&Shifts> {
        self.scan.shifts()
    }

    fn sinograms(&self, rows: Range<usize>) -> Result<Sinograms> {
        if rows.end > SinogramSource::n_rows(self) {
            // refused with the reason
            return self.scan.sinograms(rows);
        }
        let map = self.map(&rows)?;
        self.scan.without_phase().with_lock(map)?.sinograms(rows)
    }

    fn projection(&self, angle: usize, rows: Range<usize>) -> Result<Array2<f32>> {
        self.scan.projection(angle, rows)
    }
}
