//! Commands on one scan or one pair of volumes: correct, reconstruct, difference.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tomodelta::Error;
use tomodelta::center::AxisFit;
use tomodelta::config::{AlignMethod, Config, FilterWindow, ReconstructMethod};
use tomodelta::correct::CorrectedScan;
use tomodelta::io;
use tomodelta::io::npy::NpySinograms;
use tomodelta::pipeline::geometry::ScanGeometry;
use tomodelta::pipeline::output::{Existing, write_json};
use tomodelta::pipeline::rows::{CountedScan, PlainSource};
use tomodelta::pipeline::sample_radius;
use tomodelta::pipeline::volumes;
use tomodelta::pipeline::{self, LockedByRows, Session, certain_axis};
use tomodelta::plan;
use tomodelta::progress::Progress;
use tomodelta::reconstruct::support::Reach;
use tomodelta::record::AlignmentRecord;
use tomodelta::scan::SinogramSource;

use crate::cli::{Input, Placement, Shared, quoted, word};

/// Line integrals, of a scan or from a file of them.
pub(crate) enum LineIntegrals {
    /// A scan with its corrections.
    Scan(Box<CorrectedScan>),
    /// `.npy`
    Npy(NpySinograms),
}

impl LineIntegrals {
    pub(crate) fn as_source(&self) -> &dyn SinogramSource {
        match self {
            LineIntegrals::Scan(scan) => scan.as_ref(),
            LineIntegrals::Npy(npy) => npy,
        }
    }

    /// The same with the wrong pixels of all rows of a scan, where the config asks for them.
    pub(crate) fn locked(self, config: &Config, progress: &Progress) -> Result<LineIntegrals> {
        Ok(match self {
            LineIntegrals::Scan(scan) => {
                let rows = 0..SinogramSource::n_rows(scan.as_ref());
                let asked = std::slice::from_ref(&rows);
                let scan = pipeline::locked_alone(*scan, asked, config, progress)?;
                LineIntegrals::Scan(Box::new(scan))
            }
            npy @ LineIntegrals::Npy(_) => npy,
        })
    }

    /// Calls `find` with what the rotation axis is looked for on.
    pub(crate) fn for_axis<T>(&self, find: impl FnOnce(&dyn SinogramSource) -> T) -> T {
        match self {
            LineIntegrals::Scan(scan) => find(&scan.without_phase()),
            LineIntegrals::Npy(npy) => find(npy),
        }
    }

    /// The same for a scan whose wrong pixels were not looked for: they are, in the rows that `find` asks for.
    pub(crate) fn for_axis_by_rows<T>(
        &self,
        config: &Config,
        progress: &Progress,
        find: impl FnOnce(&dyn SinogramSource) -> T,
    ) -> T {
        match self {
            LineIntegrals::Scan(scan) => {
                find(&LockedByRows::new(scan.without_phase(), config, progress))
            }
            LineIntegrals::Npy(npy) => find(npy),
        }
    }

    fn pixel_size_um(&self, config: &Config) -> Option<f64> {
        match self {
            LineIntegrals::Scan(scan) => scan.scan().pixel_size_um,
            LineIntegrals::Npy(_) => config.series.pixel_size_um,
        }
    }
}

fn is_npy(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("npy"))
}

/// Opens a scan, or a `.npy` of line integrals with `--angles`. Wrong pixels of a scan are not looked for yet.
pub(crate) fn line_integrals(path: &Path, config: &Config) -> Result<LineIntegrals> {
    if is_npy(path) {
        let Some(spec) = &config.input.angles else {
            return Err(Error::input(
                path,
                "a .npy of line integrals carries no angles",
                "give them with --angles, e.g. --angles 0:180:721 or a text file with one angle per line",
            )
            .into());
        };
        // a path on the command line is relative to where the user stands
        let (angles_rad, source) = io::angles::parse(spec, Path::new(""), config.input.angle_unit)?;
        log::info!("angles: {source}");
        let npy = io::npy::open_line_integrals(path, angles_rad)?.without(&config.input.exclude)?;
        return Ok(LineIntegrals::Npy(match &config.input.shifts {
            None => npy,
            Some(spec) => {
                let (shifts, _) = io::shifts::load(spec, path, npy.n_projections())?;
                npy.with_shifts(&shifts)
            }
        }));
    }
    let scan = CorrectedScan::new(super::open(path, config)?, &config.correct)?;
    Ok(LineIntegrals::Scan(Box::new(scan)))
}

/// As [`line_integrals`], with the frames of a scan turned first where that is cheaper than reading them slab by slab.
fn turned_integrals(
    path: &Path,
    config: &Config,
    output: &Path,
    session: &Session,
) -> Result<LineIntegrals> {
    if is_npy(path) {
        return line_integrals(path, config);
    }
    let scan = super::open(path, config)?;
    let all = config.reconstruct.row_range(scan.n_rows())?;
    let middle = AxisFit {
        axis_px: (scan.n_cols() as f64 - 1.0) / 2.0,
        ..AxisFit::default()
    };
    let mut geometry = ScanGeometry::of_scan(&scan, &middle, &all, &config.reconstruct)?;
    geometry.field =
        plan::field_before_the_axis(&config.reconstruct, &scan.angles_rad, scan.n_cols())?;
    let motion = pipeline::grid_motion(&config.reconstruct);
    let pixel = scan.pixel_size_um;
    let slab = plan::single_slab(config, &geometry, &motion, pixel, &session.device)?;
    let folder = output.parent().unwrap_or(Path::new(""));
    let reading = plan::single_reading(config, &scan, slab.rows, folder)?;
    log::info!("{}: {reading}", path.display());
    let memory = plan::turning_bytes(plan::memory_cap(config)?);
    let scan = scan.turned(&reading, memory, &session.progress)?;
    let scan = CorrectedScan::new(scan, &config.correct)?;
    let rows = 0..SinogramSource::n_rows(&scan);
    Ok(LineIntegrals::Scan(Box::new(pipeline::locked_alone(
        scan,
        std::slice::from_ref(&rows),
        config,
        &session.progress,
    )?)))
}

pub(crate) fn correct(
    path: &Path,
    output: &Path,
    rows: Option<String>,
    overwrite: bool,
    input: &Input,
    shared: &Shared,
) -> Result<u8> {
    let mut more = input.overrides();
    more.extend(rows.map(|rows| ("reconstruct.rows".to_string(), quoted(rows))));
    let config = super::config_of(shared, more)?;
    let session = super::session(shared, &config, Existing::Refuse)?;
    super::refuse_existing(output, overwrite)?;
    let scan = CorrectedScan::new(super::open(path, &config)?, &config.correct)?;
    let rows = config
        .reconstruct
        .row_range(SinogramSource::n_rows(&scan))?;
    let asked = std::slice::from_ref(&rows);
    let scan = pipeline::locked_alone(scan, asked, &config, &session.progress)?;
    let counts = pipeline::write_sinograms(&scan, rows, output, &config, &session, overwrite)?;
    println!("{}", serde_json::to_string_pretty(&counts)?);
    Ok(0)
}

/// Flags of `reconstruct`.
pub(crate) struct ReconstructFlags {
    pub(crate) rows: Option<String>,
    pub(crate) crop: Option<String>,
    pub(crate) axis: Option<f64>,
    pub(crate) placement: Placement,
    pub(crate) method: Option<ReconstructMethod>,
    pub(crate) filter: Option<FilterWindow>,
    pub(crate) resume: bool,
    pub(crate) overwrite: bool,
}

pub(crate) fn reconstruct(
    path: &Path,
    output: &Path,
    flags: &ReconstructFlags,
    input: &Input,
    shared: &Shared,
) -> Result<u8> {
    let ReconstructFlags {
        rows,
        crop,
        axis,
        placement,
        method,
        filter,
        resume,
        overwrite,
    } = flags;
    let mut more = input.overrides();
    more.extend(placement.overrides());
    let mut push =
        |key: &str, value: Option<String>| more.extend(value.map(|value| (key.to_string(), value)));
    push("reconstruct.rows", rows.as_ref().map(quoted));
    push("reconstruct.crop", crop.as_ref().map(quoted));
    push("center.value", axis.map(|axis| format!("{axis:?}")));
    push("reconstruct.method", method.as_ref().map(word));
    push("reconstruct.filter", filter.as_ref().map(word));
    if shared.format.is_none()
        && let Some(format) = format_of(output)
    {
        push("run.format", Some(quoted(format)));
    }
    let config = super::config_of(shared, more)?;
    let existing = match (resume, overwrite) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Overwrite,
        _ => Existing::Refuse,
    };
    let session = super::session(shared, &config, existing)?;
    super::refuse_existing(output, *overwrite)?;
    let source = turned_integrals(path, &config, output, &session)?;
    let integrals = source.as_source();
    let all = config.reconstruct.row_range(integrals.n_rows())?;
    let motion = pipeline::grid_motion(&config.reconstruct);
    let pixel = source.pixel_size_um(&config);
    let of_axis =
        |axis_px: &AxisFit| ScanGeometry::new(integrals, axis_px, &all, &config.reconstruct);
    let slab = |geometry: &ScanGeometry| {
        plan::single_slab(&config, geometry, &motion, pixel, &session.device)
    };
    // fails on memory, or on the device, before the axis is searched
    let mut guess = of_axis(&AxisFit {
        axis_px: (integrals.n_cols() as f64 - 1.0) / 2.0,
        ..AxisFit::default()
    })?;
    let (angles, n_cols) = (integrals.angles_rad(), integrals.n_cols());
    guess.field = plan::field_before_the_axis(&config.reconstruct, angles, n_cols)?;
    if let Some(radius) = sample_radius::given(&config.reconstruct, pixel)? {
        guess.reach = Reach::Radius(radius);
    }
    slab(&guess)?;
    let progress = &session.progress;
    let axis = progress.meter().time("rotation axis", || {
        let name = path.display().to_string();
        source.for_axis(|integrals| certain_axis(&name, integrals, &config.center, progress))
    })?;
    let mut geometry = of_axis(&axis)?;
    geometry.reach = progress.meter().time("width of the sample", || {
        let name = path.display().to_string();
        let (rows, config) = (all.clone(), &config.reconstruct);
        sample_radius::find(&name, integrals, &geometry, rows, config, pixel)
    })?;
    let slab = slab(&geometry)?;
    log::info!(
        "{}: {} slices at a time, peak memory {}",
        path.display(),
        slab.rows,
        plan::human_bytes(slab.peak_bytes)
    );
    for note in geometry.notes() {
        log::info!("{note}");
    }
    let done = write_volume(
        path, &source, &geometry, slab.rows, output, &config, &session,
    )?;
    super::times(shared, &session.progress);
    log::info!(
        "{}: {} (values {:.4} to {:.4}, mean {:.4}; {} slices with data)",
        output.display(),
        done.method,
        done.range.min,
        done.range.max,
        done.range.mean,
        done.covered.len()
    );
    Ok(0)
}

fn write_volume(
    path: &Path,
    source: &LineIntegrals,
    geometry: &ScanGeometry,
    slab: usize,
    output: &Path,
    config: &Config,
    session: &Session,
) -> Result<pipeline::reconstruct_scan::Reconstructed> {
    let pixel = source.pixel_size_um(config);
    Ok(match source {
        LineIntegrals::Scan(scan) => {
            let mut rows = CountedScan::new(scan).metered(session.progress.meter());
            let done = pipeline::reconstruct_one(
                &mut rows,
                geometry,
                pixel,
                slab,
                output,
                &scan.scan().files,
                config,
                session,
            )?;
            log::info!(
                "corrections: {}",
                serde_json::to_string(rows.corrections())?
            );
            done
        }
        LineIntegrals::Npy(npy) => {
            let mut rows = PlainSource(npy);
            let files = [path.to_path_buf()];
            pipeline::reconstruct_one(
                &mut rows, geometry, pixel, slab, output, &files, config, session,
            )?
        }
    })
}

/// The format that the name of an output asks for.
fn format_of(output: &Path) -> Option<&'static str> {
    let name = output.file_name()?.to_str()?.to_ascii_lowercase();
    match name.rsplit_once('.')?.1 {
        "zarr" => Some("zarr"),
        "h5" | "hdf5" | "nxs" => Some("hdf5"),
        "npy" => Some("npy"),
        "tif" | "tiff" => Some("tiff"),
        _ => None,
    }
}

/// Flags of `difference`.
pub(crate) struct DifferenceFlags {
    pub(crate) align: Option<AlignMethod>,
    pub(crate) unit: Option<String>,
    pub(crate) pixel_size: Option<f64>,
    pub(crate) overwrite: bool,
    pub(crate) json: bool,
}

pub(crate) fn difference(
    reference: &Path,
    target: &Path,
    output: &Path,
    flags: &DifferenceFlags,
    shared: &Shared,
) -> Result<u8> {
    let DifferenceFlags {
        align,
        unit,
        pixel_size,
        overwrite,
        json,
    } = flags;
    let more = align
        .iter()
        .map(|align| ("align.method".to_string(), word(align)))
        .collect();
    let config = super::config_of(shared, more)?;
    let existing = if *overwrite {
        Existing::Overwrite
    } else {
        Existing::Refuse
    };
    let session = super::session(shared, &config, existing)?;
    let hints = io::volume::Hints {
        unit: unit.clone(),
        voxel_size_um: *pixel_size,
    };
    let pair = volumes::Pair {
        reference,
        target,
        hints,
    };
    let (record, alignment): (_, AlignmentRecord) =
        volumes::difference(&pair, output, &config, &session)?;
    let alignment_path: PathBuf = output.join("alignment.json");
    write_json(&alignment_path, &alignment)?;
    super::times(shared, &session.progress);
    if *json {
        println!(
            "{}",
            serde_json::to_string_pretty(
                &serde_json::json!({ "difference": record, "alignment": alignment })
            )?
        );
    } else {
        println!(
            "shift [x, y, z] {:.3?} voxels, confidence {:.2}",
            alignment.shift_voxel, alignment.confidence
        );
        println!(
            "increase {} voxels in {} grains, decrease {} voxels in {} grains; by noise alone {:.1} voxels on each side",
            record.increase_voxels,
            record.increase_grains,
            record.decrease_voxels,
            record.decrease_grains,
            record.expected_by_noise
        );
        println!(
            "sum of increase {:.4e} +- {:.1e}, of decrease {:.4e} +- {:.1e} ({} x voxels)",
            record.increase_sum,
            record.increase_sum_err,
            record.decrease_sum,
            record.decrease_sum_err,
            record.unit
        );
    }
    Ok(0)
}
