//! The stages in order: this is where a run happens.
//!
//! [`run_series`] reads like the work itself: open every scan, plan, find every axis (so that a doubt shows before the
//! long work), then for each scan correct, align to its reference, reconstruct on the reference grid, subtract,
//! measure; at the end the report. Nothing holds a scan or a volume in memory: everything goes by slabs of the height
//! that the plan chose.

pub mod binned;
pub mod first_change;
pub mod geometry;
#[cfg(test)]
mod geometry_tests;
pub mod halves;
pub mod heights;
mod lock;
pub mod output;
pub mod pilot;
pub mod reconstruct_scan;
pub mod rows;
pub mod sample_radius;
pub mod steady;
pub mod sweep;
pub(crate) mod tilt;
pub mod volumes;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::json;

use crate::align::{self, PilotPair};
use crate::center::{self, AxisFit};
use crate::config::{
    AlignConfig, AlignMethod, CenterConfig, Config, GridConfig, ReconstructConfig, RunConfig,
    ScanConfig, StripeMethod, Truncation, VolumeFormat,
};
use crate::correct::lock::{LockRecord, PixelMap};
use crate::correct::screen::leave_out_bad;
use crate::correct::{self, CorrectedScan, CorrectionCounts};
use crate::difference;
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::io::volume::partial::write_file;
use crate::io::volume::{VolumeMeta, VoxelType};
use crate::io::{self, volume};
use crate::plan::{self, Plan, ScanPlan, slice_grid};
use crate::progress::Progress;
use crate::reconstruct::geometry::Grid;
use crate::record::{
    AlignmentRecord, DifferenceRecord, InputRecord, RunRecord, ScanRecord, WorkRecord,
};
use crate::report;
use crate::scan::{Scan, SinogramSource};
use binned::BinnedRows;
use geometry::ScanGeometry;
pub use lock::{LockedByRows, locked_alone};
use output::{Existing, OutputFolder, read_json, write_json};
use pilot::{Target, find_motion};
use reconstruct_scan::{Motion, ScanJob};
use rows::{CountedScan, RowSource};
use steady::Steadied;

/// What a run needs beside its config.
pub struct Session {
    /// Where the kernels run.
    pub device: Device,
    /// Bars and times.
    pub progress: Progress,
    /// What happens to existing output.
    pub existing: Existing,
}

/// Opens every scan of the series, in the order of the config.
///
/// # Errors
/// Those of [`io::open_scan`].
pub fn open_series(config: &Config) -> Result<Vec<Scan>> {
    if config.scan.is_empty() {
        return Err(Error::config(
            "scan",
            "[]",
            "the series has no scans; add a [[scan]] table for each",
        ));
    }
    config
        .scan
        .iter()
        .map(|scan| {
            let opened = open_one(config, scan)?;
            for warning in &opened.warnings {
                log::warn!("{}: {warning}", scan.name);
            }
            Ok(opened)
        })
        .collect()
}

fn open_one(config: &Config, scan: &ScanConfig) -> Result<Scan> {
    io::open_scan(
        &scan.path,
        &config.input_of(scan),
        config.series.pixel_size_um,
    )
}

/// Factor from attenuation per pixel to the unit of the volume, and that unit.
#[must_use]
pub fn attenuation_unit(pixel_size_um: Option<f64>) -> (f64, &'static str) {
    match pixel_size_um {
        Some(size) => (1e4 / size, "1/cm"),
        None => (1.0, "1/px"),
    }
}

/// As [`center::find_at_rows`], on projections moved back where the movement of the sample is known.
///
/// # Errors
/// Those of [`center::find_at_rows`].
pub fn find_axis(
    source: &dyn SinogramSource,
    rows: &[usize],
    config: &CenterConfig,
    progress: &Progress,
) -> Result<AxisFit> {
    match Steadied::new(source) {
        Some(steadied) => center::find_at_rows(&steadied, rows, config, progress),
        None => center::find_at_rows(source, rows, config, progress),
    }
}

/// The rotation axis, or the error that says what to pass when the methods disagree.
///
/// # Errors
/// Those of [`center::find`]; [`Error::CenterDisagrees`].
pub fn certain_axis(
    name: &str,
    source: &dyn SinogramSource,
    config: &CenterConfig,
    progress: &Progress,
) -> Result<AxisFit> {
    let axis = find_axis(source, &[], config, progress)?;
    log::info!(
        "{name}: rotation axis {:.2} +- {:.2} px at row {:.0}, lean {:.5} px/row",
        axis.axis_px,
        axis.uncertainty_px,
        axis.middle_row,
        axis.slope_px_per_row
    );
    if axis.agree {
        return Ok(axis);
    }
    Err(Error::CenterDisagrees {
        problem: format!(
            "{name}: the methods disagree about the rotation axis ({})",
            axis.notes.join("; ")
        ),
        hint: format!(
            "look at `tomodelta center` for this scan and pass the axis with --axis COL (in a series: axis = COL in its [[scan]] table; best guess {:.2})",
            axis.axis_px
        ),
    })
}

/// The whole main job; returns the path of the report.
///
/// # Errors
/// The first of any stage. What was finished before is kept.
pub fn run_series(config: &Config, session: &Session) -> Result<PathBuf> {
    let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut scans = open_series(config)?;
    let plan = Plan::new(config, &scans, &session.device)?;
    log::info!("plan:\n{plan}");
    if let Some(table) = &config.electrochemistry
        && let Err(problem) = report::voltage_rows(table, &config.series.output)
    {
        log::warn!("the report will have no voltage: {problem}");
    }
    let folder = OutputFolder::claim(&config.series.output, session.existing)?;
    let meter = session.progress.meter();
    let inputs = meter.time("hash inputs", || hash_inputs(config, &scans))?;
    keep_or_check_recipe(config, &inputs, &folder, session.existing)?;
    let mut record = RunRecord {
        version: env!("CARGO_PKG_VERSION").into(),
        series: config.series.name.clone(),
        started,
        device: plan.device.clone(),
        threads: plan.threads,
        memory_cap_bytes: plan.memory_cap,
        config: json!(config),
        inputs,
        ..RunRecord::default()
    };
    let mut run = SeriesRun {
        config,
        session,
        plan: &plan,
        folder: &folder,
        finished: BTreeMap::new(),
        bad: vec![Vec::new(); scans.len()],
        sample_radii_px: vec![None; scans.len()],
        lock: None,
        touched: Vec::new(),
        warnings: Vec::new(),
    };
    meter.time("look at every projection", || run.screen(&mut scans))?;
    meter.time("lock the series", || run.lock_series(&plan))?;
    let axes = meter.time("rotation axis", || run.find_axes(&plan, &scans))?;
    run.sample_radii_px = meter.time("width of the sample", || {
        run.find_radii(&plan, &scans, &axes)
    })?;
    let plan = plan_again(&plan, config, &scans, &axes, &run.sample_radii_px, session)?;
    for scan_plan in &plan.scans {
        run.scan(scan_plan, axes[scan_plan.index].clone(), &plan)?;
        record.scans.push(scan_plan.name.clone());
        if let Some(reference) = &scan_plan.reference {
            record
                .differences
                .push((scan_plan.name.clone(), reference.clone()));
        }
    }
    run.first_change()?;
    run.warnings.extend(correct::out_of_family(&run.touched));
    record.lock = run.lock.take().map(|(_, record)| record);
    record.warnings = std::mem::take(&mut run.warnings);
    record.stages = session
        .progress
        .times()
        .into_iter()
        .map(|(name, time)| (name, time.as_secs_f64()))
        .collect();
    record.work = WorkRecord::all(meter, session.progress.wall());
    write_json(&folder.path().join("run.json"), &record)?;
    report::write(folder.path(), &session.progress)
}

/// The plan with the axes known: an axis near the edge makes slices wider, a leaning one needs more rows.
fn plan_again(
    plan: &Plan,
    config: &Config,
    scans: &[Scan],
    axes: &[AxisFit],
    sample_radii_px: &[Option<f64>],
    session: &Session,
) -> Result<Plan> {
    let again = Plan::with_axes(config, scans, axes, sample_radii_px, &session.device)?;
    let same = |a: &ScanPlan, b: &ScanPlan| a.field == b.field && a.slab == b.slab;
    if plan.scans.iter().zip(&again.scans).all(|(a, b)| same(a, b)) {
        return Ok(again);
    }
    log::info!("plan, with the axes found:\n{again}");
    Ok(again)
}

/// One run of a series, while it goes on.
struct SeriesRun<'a> {
    config: &'a Config,
    session: &'a Session,
    plan: &'a Plan,
    folder: &'a OutputFolder,
    finished: BTreeMap<String, Finished>,
    /// Projections of each scan that are left out for their light.
    bad: Vec<Vec<usize>>,
    /// Radius of each scan's sample, where it is wider than the detector.
    sample_radii_px: Vec<Option<f64>>,
    /// Pixels that answer wrongly in the whole series; `None` where nobody asked.
    lock: Option<(Arc<PixelMap>, LockRecord)>,
    /// What the corrections of each scan touched: name, counts, projections and columns.
    touched: Vec<(String, CorrectionCounts, [usize; 2])>,
    warnings: Vec<String>,
}

/// What later scans need of a finished one.
#[derive(Clone)]
struct Finished {
    volume: PathBuf,
    valid_radius: f64,
    /// Slices with data, from 0.
    valid_z: Range<usize>,
    pixel_size_um: Option<f64>,
    /// Pixels per voxel.
    magnification: f64,
    /// Scan whose grid it stands on.
    reference: Option<String>,
}

/// A scan as it is reconstructed.
struct Taken<'a> {
    plan: &'a ScanPlan,
    scan: &'a CorrectedScan,
    /// Binned.
    geometry: ScanGeometry,
    grid: Grid,
    /// Detector row of the first binned row, and the binning.
    binned_from: (usize, usize),
    /// Factor from attenuation per binned pixel to that of the volume.
    scale: f64,
    unit: &'static str,
    voxel_size_um: Option<f64>,
    /// Where the sample stands before anything is searched.
    start: Motion,
}

/// Radius \[voxel\] within which the scan was measured and the mask leaves values, for a sample moved by `motion`.
fn valid_radius(taken: &Taken<'_>, config: &Config, motion: &Motion) -> f64 {
    let geometry = &taken.geometry;
    let seen = geometry.seen_radius(&taken.plan.slices);
    let shift = motion.reach_in_plane_px(taken.plan.slices.len());
    let seen = (seen - shift) / motion.magnification;
    match config.reconstruct.mask_radius {
        share if share > 0.0 => seen.min(share * geometry.field.width as f64 / 2.0),
        _ => seen,
    }
}

impl SeriesRun<'_> {
    /// Leaves out the projections of every scan that hold no picture.
    fn screen(&mut self, scans: &mut [Scan]) -> Result<()> {
        let stage =
            self.session
                .progress
                .stage("looking at every projection", scans.len() as u64, "scans");
        for (index, scan) in scans.iter_mut().enumerate() {
            let own = &self.config.scan[index];
            let mode = self.config.input_of(own).bad_projections;
            let known = scan.warnings.len();
            self.bad[index] = leave_out_bad(scan, mode.unwrap_or_default())?;
            for warning in &scan.warnings[known..] {
                log::warn!("{}: {warning}", own.name);
            }
            stage.inc(1);
        }
        Ok(())
    }

    /// Opens and averages a scan of the series, locked to the others where the config asks for it; with `turn`, its frames
    /// are turned first where the plan says so.
    fn corrected(&self, index: usize, turn: bool) -> Result<CorrectedScan> {
        let mut opened = open_one(self.config, &self.config.scan[index])?;
        opened.leave_out(&self.bad[index]);
        let planned = self.plan.scans.iter().find(|scan| scan.index == index);
        let opened = match planned {
            Some(planned) if turn => opened.turned(
                &planned.reading,
                plan::turning_bytes(self.plan.memory_cap),
                &self.session.progress,
            )?,
            _ => opened,
        };
        let scan = CorrectedScan::new(opened, &self.config.correct)?;
        match &self.lock {
            Some((map, _)) => scan.with_lock(map.clone()),
            None => Ok(scan),
        }
    }

    /// Finds the axis of every scan (in the order of the config) before any long work, so that a doubt stops the run early. The averaged flats are
    /// not kept: twenty scans of them are gigabytes.
    fn find_axes(&mut self, plan: &Plan, scans: &[Scan]) -> Result<Vec<AxisFit>> {
        let mut axes = vec![AxisFit::default(); scans.len()];
        for scan_plan in &plan.scans {
            for warning in &scans[scan_plan.index].warnings {
                self.warnings.push(format!("{}: {warning}", scan_plan.name));
            }
            let kept: Option<ScanRecord> = match self.session.existing {
                Existing::Resume => {
                    read_json(&self.folder.scan(&scan_plan.name)?.join("scan.json")).ok()
                }
                _ => None,
            };
            let axis_path = self.folder.scan(&scan_plan.name)?.join("axis.json");
            let found: Option<AxisFit> = match self.session.existing {
                Existing::Resume => read_json(&axis_path).ok(),
                _ => None,
            };
            axes[scan_plan.index] = match kept.map(|record| record.rotation_axis).or(found) {
                Some(axis) => axis,
                None => {
                    let corrected = self.corrected(scan_plan.index, true)?;
                    let axis = certain_axis(
                        &scan_plan.name,
                        &corrected.without_phase(),
                        &self.config.center_of(&self.config.scan[scan_plan.index]),
                        &self.session.progress,
                    )?;
                    write_json(&axis_path, &axis)?;
                    axis
                }
            };
        }
        Ok(axes)
    }

    /// How wide the sample of every scan is, where the detector does not hold it (in the order of the config). A scan takes over what was found
    /// of its reference, in its own pixels: rows that go on alike leave nothing in the difference.
    fn find_radii(
        &self,
        plan: &Plan,
        scans: &[Scan],
        axes: &[AxisFit],
    ) -> Result<Vec<Option<f64>>> {
        let config = &self.config.reconstruct;
        let mut radii = vec![None; scans.len()];
        for scan_plan in &plan.scans {
            let index = scan_plan.index;
            let pixel = scans[index].pixel_size_um;
            radii[index] = match &scan_plan.reference {
                _ if config.truncation == Truncation::RollOff => None,
                _ if config.sample_diameter_mm.is_some() => sample_radius::given(config, pixel)?,
                Some(reference) => {
                    let other = plan.scans.iter().find(|other| other.name == *reference);
                    let other = other.expect("references stand in the plan").index;
                    let magnification = self.config.scan[index].magnification;
                    let seen = match (magnification, scans[other].pixel_size_um, pixel) {
                        (Some(given), _, _) => given,
                        (None, Some(theirs), Some(ours)) => theirs / ours,
                        _ => 1.0,
                    };
                    radii[other].map(|radius: f64| radius * seen)
                }
                None => {
                    let scan = self.corrected(index, false)?;
                    let rows = &scan_plan.rows;
                    let geometry = ScanGeometry::new(&scan, &axes[index], rows, config)?;
                    sample_radius::find(
                        &scan_plan.name,
                        &scan,
                        &geometry,
                        rows.clone(),
                        config,
                        pixel,
                    )?
                }
            };
        }
        Ok(radii)
    }

    /// How a scan is reconstructed, but for what is still to be searched.
    fn taken<'a>(
        &self,
        plan: &'a ScanPlan,
        scan: &'a CorrectedScan,
        axis: &AxisFit,
    ) -> Result<Taken<'a>> {
        let config = &self.config.reconstruct;
        let binned_from = (plan.rows.start % plan.binning, plan.binning);
        let mut geometry = ScanGeometry::new(scan, axis, &plan.rows, config)?;
        geometry.field = plan.field;
        geometry.sample_radius_px = self.sample_radii_px[plan.index];
        let pixel = scan.scan().pixel_size_um;
        let start = grid_motion(config).magnified(self.magnification(plan, pixel)?);
        let start = start.binned(plan.binning);
        let voxel = pixel.map(|size| size * plan.binning as f64);
        let (scale, unit) = attenuation_unit(voxel);
        Ok(Taken {
            plan,
            scan,
            geometry: geometry.binned(binned_from.0, binned_from.1),
            grid: slice_grid(config, plan.field)?,
            binned_from,
            scale,
            unit,
            voxel_size_um: voxel.map(|size| size * start.magnification),
            start,
        })
    }

    /// Pixels of a scan per voxel of the volumes.
    fn magnification(&self, plan: &ScanPlan, pixel_size_um: Option<f64>) -> Result<f64> {
        let Some(reference) = &plan.reference else {
            return Ok(self.config.reconstruct.grid.scale);
        };
        let other = &self.finished[reference];
        let given = self.config.scan[plan.index].magnification;
        let own = match (given, other.pixel_size_um, pixel_size_um) {
            (Some(given), _, _) => given,
            (None, Some(theirs), Some(ours)) => theirs / ours,
            _ => 1.0,
        };
        if !(0.9..=1.1).contains(&own) {
            return Err(Error::config(
                "scan.magnification",
                own,
                format!(
                    "{} and its reference {reference} have pixels of {:?} and {:?} um: more than a tenth apart cannot be put on one \
                     grid; if they are equal in truth, give series.pixel_size_um",
                    plan.name, pixel_size_um, other.pixel_size_um
                ),
            ));
        }
        if own != 1.0 {
            log::info!("{}: seen {own:.5} times as large as {reference}", plan.name);
        }
        Ok(own * other.magnification)
    }

    fn scan(&mut self, scan_plan: &ScanPlan, axis: AxisFit, plan: &Plan) -> Result<()> {
        let meter = self.session.progress.meter();
        let scan = meter.time("flats and darks", || self.corrected(scan_plan.index, true))?;
        for warning in scan.warnings() {
            self.warnings.push(format!("{}: {warning}", scan_plan.name));
        }
        let name = &scan_plan.name;
        let scan_folder = self.folder.scan(name)?;
        let volume_path = scan_folder.join(volume::file_name("volume", self.config.run.format));
        let taken = self.taken(scan_plan, &scan, &axis)?;
        for note in taken.geometry.notes() {
            log::info!("{name}: {note}");
        }

        let mut alignment = None;
        let mut motion = taken.start;
        if let Some(reference) = &scan_plan.reference {
            let (found, record) = meter.time("align", || self.align(&taken, reference))?;
            motion = found;
            alignment = Some(record);
        }
        let record_path = scan_folder.join("scan.json");
        let sample = self.sampled_slices(scan_plan);
        let sampled = sample.is_empty()
            || halves::open(&scan_folder, self.config.run.format, &sample).is_some();
        let resumed = self.session.existing == Existing::Resume
            && sampled
            && volume::open(&volume_path).is_ok();
        let kept: Option<ScanRecord> = resumed.then(|| read_json(&record_path).ok()).flatten();
        let record = if let Some(record) = kept {
            log::info!("{name}: the volume is complete, kept");
            record
        } else {
            let record = self.reconstruct(&taken, &axis, motion, &volume_path)?;
            write_json(&record_path, &record)?;
            record
        };
        self.touched.push((
            name.clone(),
            record.corrections,
            [record.n_angles, record.n_cols],
        ));
        let slices = &scan_plan.slices;
        let geometry = &taken.geometry;
        let covered = geometry.covered(&motion, slices);
        let finished = Finished {
            volume: volume_path,
            valid_radius: valid_radius(&taken, self.config, &motion),
            valid_z: covered.start - slices.start..covered.end - slices.start,
            pixel_size_um: scan.scan().pixel_size_um,
            magnification: motion.magnification,
            reference: scan_plan.reference.clone(),
        };
        if let (Some(reference), Some(alignment)) = (&scan_plan.reference, &mut alignment) {
            self.closure(scan_plan, &finished, reference, alignment)?;
        }
        if let (Some(reference), Some(alignment)) = (&scan_plan.reference, alignment) {
            meter.time("difference", || {
                self.subtract(scan_plan, &finished, reference, &alignment, plan)
            })?;
        }
        self.finished.insert(name.clone(), finished);
        Ok(())
    }

    /// Registers the scan with another one of the same reference, both on its grid: what is found there is the
    /// disagreement of three alignments.
    fn closure(
        &mut self,
        scan_plan: &ScanPlan,
        own: &Finished,
        reference: &str,
        alignment: &mut AlignmentRecord,
    ) -> Result<()> {
        let searched = matches!(alignment.method.as_str(), "translation" | "rigid");
        let other = self
            .finished
            .iter()
            .find(|(_, other)| other.reference.as_deref() == Some(reference))
            .map(|(name, other)| (name.clone(), other.clone()));
        let (Some((name, other)), true, None) = (other, searched, alignment.closure_voxel) else {
            return Ok(());
        };
        let binning = scan_plan.pilot_binning;
        let radius = own.valid_radius.min(other.valid_radius) / binning as f64 - 2.0;
        let stage = self.session.progress.stage("closure", 1, "pair");
        let pair = PilotPair {
            reference: pilot::bin_volume(volume::open(&other.volume)?.as_ref(), binning)?,
            target: pilot::bin_volume(volume::open(&own.volume)?.as_ref(), binning)?,
            binning,
            radius: radius.max(2.0),
        };
        let config = AlignConfig {
            method: AlignMethod::Translation,
            search: 0.05_f64.min(self.config.align.search),
            ..self.config.align.clone()
        };
        let found = align::register(&pair, &config)?;
        stage.inc(1);
        if found.confidence < config.min_confidence {
            log::info!(
                "{}: no closure, {name} has too little in common with it",
                scan_plan.name
            );
            return Ok(());
        }
        let worst = found.shift_voxel.iter().fold(0f64, |a, b| a.max(b.abs()));
        log::info!("{}: closure with {name} {:.3} voxel", scan_plan.name, worst);
        if worst > 0.2 {
            let text = format!(
                "alignment: it does not close: against {name}, on the same grid, this scan is off by {worst:.2} voxel"
            );
            self.warn(&scan_plan.name, std::slice::from_ref(&text));
            alignment.warnings.push(text);
        }
        alignment.closure_voxel = Some(found.shift_voxel);
        alignment.closure_with = Some(name);
        let path = self
            .folder
            .difference(&scan_plan.name)?
            .join("alignment.json");
        write_json(&path, alignment)
    }

    /// The map of when each voxel first changed, where there are several differences.
    fn first_change(&mut self) -> Result<()> {
        let format = self.config.run.format;
        let mut labels = Vec::new();
        for scan in &self.config.scan {
            if self.config.reference_of(scan).is_some() {
                let folder = self.folder.difference(&scan.name)?;
                let path = folder.join(volume::file_name("labels", format));
                labels.push((scan.name.clone(), volume::open(&path)?));
            }
        }
        if labels.len() < 2 {
            return Ok(());
        }
        let budget = crate::plan::memory_cap(self.config)? / 4;
        let table = self.folder.path().join("first_change.csv");
        if self.session.existing == Existing::Resume && table.exists() {
            return Ok(());
        }
        first_change::write(
            self.folder.path(),
            &labels,
            format,
            budget,
            self.session.existing != Existing::Refuse,
            &self.session.progress,
        )?;
        Ok(())
    }

    /// Finds how the scan is moved, or takes what an earlier run found.
    fn align(&mut self, taken: &Taken<'_>, reference: &str) -> Result<(Motion, AlignmentRecord)> {
        let scan_plan = taken.plan;
        let path = self
            .folder
            .difference(&scan_plan.name)?
            .join("alignment.json");
        if self.session.existing == Existing::Resume
            && let Ok(record) = read_json::<AlignmentRecord>(&path)
        {
            self.warn(&scan_plan.name, &record.warnings);
            let found = Motion::from_rotations(record.shift_voxel, record.rotation_deg);
            return Ok((taken.start.followed_by(found), record));
        }
        let other = self
            .finished
            .get(reference)
            .expect("references come first")
            .clone();
        let volume = volume::open(&other.volume)?;
        let pilots = taken
            .scan
            .with_stripes(match self.config.correct.stripe.method {
                // rings stand still between the scans and would pull the shift towards zero, so pilots lose them too,
                // by the cheapest method that does it
                StripeMethod::None => StripeMethod::None,
                _ => StripeMethod::Sorting,
            });
        let still = Motion::default().magnified(taken.start.magnification);
        let target = Target {
            scan: &pilots,
            geometry: &taken.geometry,
            binned_from: taken.binned_from,
            slices: scan_plan.slices.clone(),
            grid: taken.grid,
            config: &self.config.reconstruct,
            scale: taken.scale,
            valid_radius: valid_radius(taken, self.config, &still).min(other.valid_radius),
            slab: scan_plan.slab,
            pilot_slab: scan_plan.pilot_slab,
            start: taken.start,
        };
        let (motion, mut record) = find_motion(
            volume.as_ref(),
            &target,
            scan_plan.pilot_binning,
            &self.config.align,
            &self.session.device,
            &self.session.progress,
        )?;
        record.reference = reference.to_string();
        if record.confidence < self.config.align.min_confidence {
            record.warnings.push(format!(
                "alignment of {} is uncertain (confidence {:.2}): look at the checkerboard in the report, or give align.shift",
                scan_plan.name, record.confidence
            ));
        }
        self.warn(&scan_plan.name, &record.warnings);
        let [x, y, z] = record.shift_voxel;
        log::info!(
            "{}: moved by x {x:.2}, y {y:.2}, z {z:.2} voxels against {reference}",
            scan_plan.name
        );
        write_json(&path, &record)?;
        Ok((motion, record))
    }

    fn reconstruct(
        &mut self,
        taken: &Taken<'_>,
        axis: &AxisFit,
        motion: Motion,
        volume_path: &Path,
    ) -> Result<ScanRecord> {
        let (scan_plan, scan) = (taken.plan, taken.scan);
        let name = &scan_plan.name;
        let grid = taken.grid;
        let meta = VolumeMeta {
            shape: [scan_plan.slices.len(), grid.n_y, grid.n_x],
            voxel_type: VoxelType::F32,
            unit: taken.unit.to_string(),
            voxel_size_um: taken.voxel_size_um,
            first_row: scan_plan.slices.start,
            provenance: provenance(
                self.config,
                name,
                &[
                    ("rotation_axis", json!(axis)),
                    ("motion", json!(motion.shift_voxel())),
                    ("rotation_deg", json!(motion.rotation_deg())),
                    ("magnification", json!(motion.magnification)),
                    ("field", json!(scan_plan.field)),
                    ("sample_radius_px", json!(taken.geometry.sample_radius_px)),
                ],
            ),
        };
        let job = ScanJob {
            geometry: &taken.geometry,
            slices: scan_plan.slices.clone(),
            middle_slice: middle_of(&scan_plan.slices),
            slab: scan_plan.slab,
            grid,
            motion,
            config: &self.config.reconstruct,
            scale: taken.scale,
            meter: Some(self.session.progress.meter()),
        };
        let mut counted = CountedScan::new(scan).metered(self.session.progress.meter());
        let (first, binning) = taken.binned_from;
        let mut source = BinnedRows::new(&mut counted, first, binning, scan_plan.slab);
        let title = format!("reconstructing {name}");
        let format = self.config.run.format;
        let done = reconstruct_into(
            &mut source,
            &job,
            &meta,
            volume_path,
            format,
            &title,
            // the recipe of the run was held against its inputs already
            &serde_json::Value::Null,
            self.session,
        )?;
        let corrections = counted.corrections().clone();
        let sample = self.sampled_slices(scan_plan);
        if !sample.is_empty() {
            let mut again = CountedScan::new(scan);
            let mut source = BinnedRows::new(&mut again, first, binning, scan_plan.slab);
            halves::sample(
                &self.folder.scan(name)?,
                format,
                &meta,
                &sample,
                &job,
                &mut source,
                &self.session.device,
                &self.session.progress,
                self.session.existing != Existing::Refuse,
            )?;
        }
        let scan_config = &self.config.scan[scan_plan.index];
        let mut record = scan_record(name, scan.scan(), axis.clone());
        record.time = scan_config
            .time
            .clone()
            .or_else(|| scan.scan().start_time.clone());
        record.charge_mah_cm2 = scan_config.charge_mah_cm2;
        record.corrections = corrections;
        record.value_range = done.range;
        record.unit = taken.unit.to_string();
        let mut say = |key: &str, value| record.reconstruction.insert(key.into(), value);
        say("method", json!(done.method));
        say("device", json!(self.session.device.describe()));
        say(
            "slices_with_data",
            json!([done.covered.start, done.covered.end]),
        );
        say("half_acquisition", json!(scan_plan.field.half));
        say("binning", json!(binning));
        say("levelled", json!(taken.geometry.is_levelled()));
        say("sample_radius_px", json!(taken.geometry.sample_radius_px));
        record.warnings.extend(scan.warnings().iter().cloned());
        Ok(record)
    }

    /// Slices of which the noise is sampled; none where nothing is subtracted.
    fn sampled_slices(&self, scan_plan: &ScanPlan) -> Vec<Range<usize>> {
        if self.config.scan.len() < 2 {
            return Vec::new();
        }
        difference::half_groups(scan_plan.slices.len(), &self.config.difference)
    }

    /// Says the warnings of a result, made now or kept, and keeps them for the record.
    fn warn(&mut self, name: &str, warnings: &[String]) {
        for warning in warnings {
            log::warn!("{name}: {warning}");
            self.warnings.push(format!("{name}: {warning}"));
        }
    }

    fn subtract(
        &mut self,
        scan_plan: &ScanPlan,
        target: &Finished,
        reference: &str,
        alignment: &AlignmentRecord,
        plan: &Plan,
    ) -> Result<()> {
        let name = &scan_plan.name;
        let folder = self.folder.difference(name)?;
        if self.session.existing == Existing::Resume && folder.join("difference.json").exists() {
            log::info!("{name}: the difference is complete, kept");
            let record: DifferenceRecord = read_json(&folder.join("difference.json"))?;
            self.warn(name, &record.warnings);
            return Ok(());
        }
        let other = self
            .finished
            .get(reference)
            .expect("references come first")
            .clone();
        let slab = plan
            .differences
            .iter()
            .find(|d| &d.target == name)
            .map_or(1, |d| d.slab);
        let groups = self.sampled_slices(scan_plan);
        let open = |name: &str| -> Result<_> {
            let folder = self.folder.scan(name)?;
            Ok(halves::open(&folder, self.config.run.format, &groups))
        };
        let samples = if groups.is_empty() {
            (None, None)
        } else {
            (open(reference)?, open(name)?)
        };
        let context = difference::Context {
            target: name,
            reference,
            halves: match &samples {
                (Some(reference), Some(target)) => Some(difference::Halves {
                    groups,
                    reference: reference.as_ref(),
                    target: target.as_ref(),
                }),
                _ => None,
            },
            config: &self.config.difference,
            mass: self.config.mass.as_ref(),
            charge_mah_cm2: self.config.scan[scan_plan.index].charge_mah_cm2,
            format: self.config.run.format,
            slab,
            valid_radius: target.valid_radius.min(other.valid_radius),
            valid_z: target.valid_z.start.max(other.valid_z.start)
                ..target.valid_z.end.min(other.valid_z.end),
            overwrite: self.session.existing != Existing::Refuse,
            provenance: provenance(
                self.config,
                name,
                &[
                    ("reference", json!(reference)),
                    ("alignment", json!(alignment)),
                ],
            ),
            progress: &self.session.progress,
        };
        let (reference_volume, target_volume) =
            (volume::open(&other.volume)?, volume::open(&target.volume)?);
        let record = difference::run(
            reference_volume.as_ref(),
            target_volume.as_ref(),
            &folder,
            &context,
        )?;
        self.warn(name, &record.warnings);
        Ok(())
    }
}

/// Middle of a range of slices.
#[must_use]
pub fn middle_of(slices: &Range<usize>) -> f64 {
    (slices.start + slices.end) as f64 / 2.0 - 0.5
}

/// The motion that the config puts the grid at, in detector pixels.
#[must_use]
pub fn grid_motion(config: &ReconstructConfig) -> Motion {
    let GridConfig {
        shift,
        rotation,
        scale,
    } = &config.grid;
    Motion::from_alignment(*shift, *rotation).magnified(*scale)
}

/// The part of `scan.json` that the input alone decides.
#[must_use]
pub fn scan_record(name: &str, scan: &Scan, axis: AxisFit) -> ScanRecord {
    let degrees = |angle: Option<&f64>| angle.copied().unwrap_or(0.0).to_degrees();
    ScanRecord {
        name: name.to_string(),
        layout: scan.layout.clone(),
        n_angles: scan.n_angles(),
        n_rows: scan.n_rows(),
        n_cols: scan.n_cols(),
        angle_range_deg: [
            degrees(scan.angles_rad.first()),
            degrees(scan.angles_rad.last()),
        ],
        angle_source: scan.angle_source.clone(),
        pixel_size_um: scan.pixel_size_um,
        rotation_axis: axis,
        left_out: scan.left_out.clone(),
        warnings: scan.warnings.clone(),
        ..ScanRecord::default()
    }
}

/// What every volume carries about its making.
#[must_use]
pub fn provenance(
    config: &Config,
    scan: &str,
    extra: &[(&str, serde_json::Value)],
) -> serde_json::Value {
    let mut value = json!({
        "program": "tomodelta",
        "version": env!("CARGO_PKG_VERSION"),
        "scan": scan,
        "axes": "[z, y, x]; z is the detector row, x to the right, y down; the rotation axis stands at ((n_x-1)/2, (n_y-1)/2) of an uncropped slice",
        "angle": "a ray of detector coordinate t at angle theta holds the points with x cos(theta) - y sin(theta) = t, both from the axis",
        "config": config,
    });
    for (key, item) in extra {
        value[*key] = item.clone();
    }
    value
}

/// Size and hash of every input file.
fn hash_inputs(config: &Config, scans: &[Scan]) -> Result<Vec<InputRecord>> {
    let mut records = Vec::new();
    for (scan_config, scan) in config.scan.iter().zip(scans) {
        for path in &scan.files {
            let (bytes, blake3) = io::fingerprint::fingerprint(path)?;
            records.push(InputRecord {
                scan: scan_config.name.clone(),
                path: path.display().to_string(),
                bytes,
                blake3,
            });
        }
    }
    Ok(records)
}

/// Writes the recipe of this run (resolved config, inputs), or holds a resumed run to the one that is there.
fn keep_or_check_recipe(
    config: &Config,
    inputs: &[InputRecord],
    folder: &OutputFolder,
    existing: Existing,
) -> Result<()> {
    let config_path = folder.path().join("config.toml");
    let inputs_path = folder.path().join("inputs.json");
    let text = recipe_text(config)?;
    if existing == Existing::Resume && config_path.exists() {
        let old = std::fs::read_to_string(&config_path).map_err(Error::io("read", &config_path))?;
        if let Some(change) = first_change(&old, &text) {
            return Err(Error::input(
                &config_path,
                format!("the run to be resumed had another config: {change}"),
                "restore it, or start anew with --overwrite",
            ));
        }
        if inputs_path.exists() {
            let old: Vec<InputRecord> = read_json(&inputs_path)?;
            if let Some(changed) = changed_input(&old, inputs) {
                return Err(Error::input(
                    changed,
                    "changed since the run to be resumed",
                    "start anew with --overwrite",
                ));
            }
        }
    }
    if existing == Existing::Overwrite {
        // an old record beside new volumes would look finished
        for stale in ["run.json", "report.html", "first_change.csv", lock::RECORD] {
            let stale = folder.path().join(stale);
            if stale.exists() {
                std::fs::remove_file(&stale).map_err(Error::io("remove", &stale))?;
            }
        }
        remove_records(folder)?;
    }
    write_file(&config_path, text.as_bytes())?;
    write_json(&inputs_path, &inputs)
}

fn remove_records(folder: &OutputFolder) -> Result<()> {
    for (group, names) in [
        ("scans", &["scan.json", "axis.json", "noise.json"][..]),
        ("differences", &["alignment.json", "difference.json"][..]),
    ] {
        let Ok(entries) = std::fs::read_dir(folder.path().join(group)) else {
            continue;
        };
        for entry in entries.flatten() {
            for name in names {
                let path = entry.path().join(name);
                if path.exists() {
                    std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                }
            }
        }
    }
    Ok(())
}

/// The resolved config as TOML, with absolute paths: running it again gives the same result.
fn recipe_text(config: &Config) -> Result<String> {
    let mut config = config.clone();
    let absolute = |path: &mut PathBuf| {
        if let Ok(full) = std::path::absolute(&*path) {
            *path = full;
        }
    };
    absolute(&mut config.series.output);
    for scan in &mut config.scan {
        absolute(&mut scan.path);
    }
    if let Some(table) = &mut config.electrochemistry {
        absolute(&mut table.path);
    }
    toml::to_string_pretty(&config).map_err(|error| {
        Error::config(
            "config",
            "(resolved)",
            format!("cannot be written as TOML: {error}"),
        )
    })
}

fn first_change(old: &str, new: &str) -> Option<String> {
    // how fast the work is done does not change the result; the device does: another one may take another method
    let counts = |line: &&str| {
        !RunConfig::FREE_KEYS
            .iter()
            .any(|key| line.starts_with(&format!("{key} =")))
    };
    let mut old_lines = old.lines().filter(counts);
    let mut new_lines = new.lines().filter(counts);
    loop {
        match (old_lines.next(), new_lines.next()) {
            (None, None) => return None,
            (before, after) if before == after => {}
            (before, after) => {
                return Some(format!(
                    "{:?} before, {:?} now",
                    before.unwrap_or("(nothing)"),
                    after.unwrap_or("(nothing)")
                ));
            }
        }
    }
}

fn changed_input(old: &[InputRecord], new: &[InputRecord]) -> Option<PathBuf> {
    new.iter()
        .find(|now| {
            !old.iter()
                .any(|then| then.path == now.path && then.blake3 == now.blake3)
        })
        .map(|now| PathBuf::from(&now.path))
}

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
) -> Result<reconstruct_scan::Reconstructed> {
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
                ("sample_radius_px", json!(geometry.sample_radius_px)),
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
fn reconstruct_into(
    source: &mut dyn RowSource,
    job: &ScanJob<'_>,
    meta: &VolumeMeta,
    path: &Path,
    format: VolumeFormat,
    title: &str,
    inputs: &serde_json::Value,
    session: &Session,
) -> Result<reconstruct_scan::Reconstructed> {
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
    rows: std::ops::Range<usize>,
    output: &Path,
    config: &Config,
    session: &Session,
    overwrite: bool,
) -> Result<crate::correct::CorrectionCounts> {
    let shape = [
        rows.len(),
        scan.angles_rad().len(),
        SinogramSource::n_cols(scan),
    ];
    let sinogram = (shape[1] * shape[2] * 4) as u64;
    let all_rows = SinogramSource::n_rows(scan);
    let need = crate::plan::SlabNeed {
        fixed: crate::correct::fixed_bytes([shape[1], all_rows, shape[2]]),
        per_slice: 2 * sinogram,
    };
    let slab = need
        .slab_under(
            crate::plan::memory_cap(config)?,
            rows.len(),
            "correcting",
            |rows| {
                crate::correct::scratch_bytes(
                    [shape[1], all_rows, shape[2]],
                    rows,
                    &config.correct,
                    scan.scan().pixel_size_um,
                )
            },
        )?
        .rows;
    let mut file =
        io::sinograms::Writer::create(output, shape, scan, rows.start, config, overwrite)?;
    let stage = session
        .progress
        .stage("correcting", rows.len() as u64, "rows");
    let mut counts = crate::correct::CorrectionCounts::default();
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
