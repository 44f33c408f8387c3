//! One scan for itself: the commands `reconstruct` and `correct`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use super::binned::BinnedRows;
use super::geometry::ScanGeometry;
use super::output::Existing;
use super::reconstruct_scan::{Reconstructed, ScanJob};
use super::rows::RowSource;
use super::{Session, attenuation_unit, grid_motion, middle_of, provenance};
use crate::config::{Config, VolumeFormat};
use crate::correct::{self, CorrectedScan, CorrectionCounts};
use crate::error::{Error, Result};
use crate::io::volume::{VolumeMeta, VoxelType};
use crate::io::{self, volume};
use crate::plan::{self, slice_grid};
use crate::scan::SinogramSource;

/// One scan to one volume: the `reconstruct` command; `geometry` is that of the source, before any binning, and `files` are
/// what the scan was read from.
///
/// # Errors
/// Those of every stage, and [`Error::OutputExists`].
pub fn reconstruct_one(
    source: &mut dyn RowSource,
    geometry: &ScanGeometry,
    pixel_size_um: Option<f64>,
    slab: usize,
    output: &Path,
    files: &[PathBuf],
    config: &Config,
    session: &Session,
) -> Result<Reconstructed> {
    let b = config.reconstruct.binning;
    let rows = config.reconstruct.row_range(source.n_rows())?;
    let slices = plan::binned_rows(&rows, b)?;
    let grid = slice_grid(&config.reconstruct, geometry.field)?;
    let motion = grid_motion(&config.reconstruct).binned(b);
    let pixel = pixel_size_um.map(|size| size * b as f64);
    let (scale, unit) = attenuation_unit(pixel);
    let meta = VolumeMeta {
        shape: [slices.len(), grid.n_y, grid.n_x],
        voxel_type: VoxelType::F32,
        unit: unit.to_string(),
        voxel_size_um: pixel.map(|size| size * motion.magnification),
        first_row: slices.start,
        provenance: provenance(
            config,
            &output.display().to_string(),
            &[
                ("rotation_axis", json!(geometry.axis)),
                ("field", json!(geometry.field)),
                ("sample_radius_px", json!(geometry.reach.radius_px())),
            ],
        ),
    };
    let binned = geometry.binned(rows.start % b, b);
    let mut source = BinnedRows::new(source, rows.start % b, b, slab);
    let job = ScanJob {
        geometry: &binned,
        middle_slice: middle_of(&slices),
        slices,
        slab,
        grid,
        motion,
        config: &config.reconstruct,
        scale,
        meter: Some(session.progress.meter()),
        beyond: None,
    };
    let format = config.run.format;
    reconstruct_into(
        &mut source,
        &job,
        &meta,
        output,
        format,
        "reconstructing",
        &stamp(files)?,
        session,
    )
}

/// Carries out `job` and writes its slices as one volume.
pub(super) fn reconstruct_into(
    source: &mut dyn RowSource,
    job: &ScanJob<'_>,
    meta: &VolumeMeta,
    path: &Path,
    format: VolumeFormat,
    title: &str,
    inputs: &serde_json::Value,
    session: &Session,
) -> Result<Reconstructed> {
    let overwrite = session.existing != Existing::Refuse;
    let resume = session.existing == Existing::Resume;
    let (mut writer, kept) =
        volume::Journaled::start(path, format, meta, overwrite, resume, inputs)?;
    let stage = session
        .progress
        .stage(title, job.slices.len() as u64, "slices");
    let from = match kept {
        Some(kept) => {
            log::info!(
                "{}: {} slices are stored, kept",
                path.display(),
                kept.slices
            );
            Some(serde_json::from_value(kept.state).map_err(|error| {
                Error::input(
                    path,
                    format!("the journal of the unfinished volume is of another version ({error})"),
                    "start anew with --overwrite",
                )
            })?)
        }
        None => None,
    };
    let meter = session.progress.meter();
    let done = job.run(source, &session.device, &stage, from, |z, slices, state| {
        let started = Instant::now();
        writer.write(z, slices, json!(state))?;
        meter.add("write", started.elapsed(), 4 * slices.len() as u64, 0);
        Ok(())
    })?;
    meter.time("write", || writer.finish())?;
    Ok(done)
}

/// What of the files of a scan tells a changed one cheaply: names, sizes and times.
fn stamp(files: &[PathBuf]) -> Result<serde_json::Value> {
    let mut hasher = blake3::Hasher::new();
    for path in files {
        let meta = std::fs::metadata(path).map_err(Error::io("read", path))?;
        let time = meta.modified().map_err(Error::io("read", path))?;
        hasher.update(format!("{}{}{time:?}", path.display(), meta.len()).as_bytes());
    }
    Ok(json!(hasher.finalize().to_hex().to_string()))
}

/// Corrected line integrals of `rows` into an HDF5 file, dataset `/sinograms` `[row, angle, col]`: the `correct` command.
///
/// # Errors
/// Those of reading, correcting and writing.
pub fn write_sinograms(
    scan: &CorrectedScan,
    rows: Range<usize>,
    output: &Path,
    config: &Config,
    session: &Session,
    overwrite: bool,
) -> Result<CorrectionCounts> {
    let shape = [
        rows.len(),
        scan.angles_rad().len(),
        SinogramSource::n_cols(scan),
    ];
    let sinogram = (shape[1] * shape[2] * 4) as u64;
    let all_rows = SinogramSource::n_rows(scan);
    let need = plan::SlabNeed {
        fixed: correct::fixed_bytes([shape[1], all_rows, shape[2]]),
        per_slice: 2 * sinogram,
        ..plan::SlabNeed::default()
    };
    let slab = need
        .slab_under(
            plan::memory_cap(config)?,
            rows.len(),
            "correcting",
            |rows| plan::SlabScratch {
                correct: correct::scratch_bytes(
                    [shape[1], all_rows, shape[2]],
                    rows,
                    &config.correct,
                    scan.scan().pixel_size_um,
                ),
                reconstruct: 0,
            },
        )?
        .rows;
    let mut file =
        io::sinograms::Writer::create(output, shape, scan, rows.start, config, overwrite)?;
    let stage = session
        .progress
        .stage("correcting", rows.len() as u64, "rows");
    let mut counts = CorrectionCounts::default();
    for start in rows.clone().step_by(slab) {
        let end = (start + slab).min(rows.end);
        let (sinograms, touched) = scan.slab(start..end)?;
        counts += touched;
        file.write(start - rows.start, sinograms.view())?;
        stage.inc((end - start) as u64);
    }
    file.finish(&counts)?;
    Ok(counts)
}
