//! The whole main job, scan by scan.

mod axes;
mod change;
mod motion;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde_json::json;

use super::beyond::Beyond;
use super::binned::BinnedRows;
use super::geometry::ScanGeometry;
use super::halves;
use super::output::{Existing, OutputFolder, read_json, write_json};
use super::recipe::{hash_inputs, keep_or_check_recipe};
use super::reconstruct_scan::{Motion, ScanJob};
use super::rows::CountedScan;
use super::single::reconstruct_into;
use super::{
    Session, attenuation_unit, grid_motion, middle_of, open_one, open_series, provenance,
    scan_record,
};
use crate::allocator;
use crate::center::AxisFit;
use crate::config::Config;
use crate::correct::lock::{LockRecord, PixelMap};
use crate::correct::screen::leave_out_bad;
use crate::correct::{self, CorrectedScan, CorrectionCounts};
use crate::difference;
use crate::error::{Error, Result};
use crate::io::volume::{self, VolumeMeta, VoxelType};
use crate::plan::{self, Plan, ScanPlan, slice_grid};
use crate::reconstruct::geometry::Grid;
use crate::reconstruct::support::Reach;
use crate::record::{RunRecord, ScanRecord, WorkRecord};
use crate::report;
use crate::scan::{Scan, Stacks};

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
        copies: Mutex::default(),
        bad: vec![Vec::new(); scans.len()],
        reaches: vec![Reach::Inside; scans.len()],
        lock: None,
        touched: Vec::new(),
        warnings: Vec::new(),
    };
    meter.time("look at every projection", || run.screen(&mut scans))?;
    meter.time("lock the series", || run.lock_series(&plan))?;
    let axes = meter.time("rotation axis", || run.find_axes(&plan, &scans))?;
    run.reaches = meter.time("width of the sample", || {
        run.find_reaches(&plan, &scans, &axes)
    })?;
    let plan = plan_again(&plan, config, &scans, &axes, &run.reaches, session)?;
    for (done, scan_plan) in plan.scans.iter().enumerate() {
        run.scan(scan_plan, axes[scan_plan.index].clone(), &plan)?;
        for ended in &plan.scans[..=done] {
            run.let_copy_go(ended.index, &plan.scans[done + 1..], &plan);
        }
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
    reaches: &[Reach],
    session: &Session,
) -> Result<Plan> {
    let again = Plan::with_axes(config, scans, axes, reaches, &session.device)?;
    let same = |a: &ScanPlan, b: &ScanPlan| a.field == b.field && a.slab == b.slab;
    if plan.scans.iter().zip(&again.scans).all(|(a, b)| same(a, b)) {
        return Ok(again);
    }
    log::info!("plan, with the axes found:\n{again}");
    Ok(again)
}

/// One run of a series, while it goes on.
pub(super) struct SeriesRun<'a> {
    pub(super) config: &'a Config,
    pub(super) session: &'a Session,
    plan: &'a Plan,
    pub(super) folder: &'a OutputFolder,
    finished: BTreeMap<String, Finished>,
    /// Turned copies of scans that are not done, where there is room for all of them.
    copies: Mutex<BTreeMap<usize, Stacks>>,
    /// Projections of each scan that are left out for their light.
    bad: Vec<Vec<usize>>,
    /// How far from the axis each scan's sample reaches.
    reaches: Vec<Reach>,
    /// Pixels that answer wrongly in the whole series; `None` where nobody asked.
    pub(super) lock: Option<(Arc<PixelMap>, LockRecord)>,
    /// What the corrections of each scan touched: name, counts, projections and columns.
    touched: Vec<(String, CorrectionCounts, [usize; 2])>,
    pub(super) warnings: Vec<String>,
}

/// What later scans need of a finished one.
#[derive(Clone)]
struct Finished {
    volume: PathBuf,
    valid_radius: f64,
    /// Slices with data, from 0.
    valid_z: Range<usize>,
    /// Rotation axis, before any binning.
    axis: AxisFit,
    pixel_size_um: Option<f64>,
    /// Pixels per voxel.
    magnification: f64,
    /// How it was taken, with the axis that it was reconstructed with.
    geometry: ScanGeometry,
    /// Where it stands against its grid.
    motion: Motion,
    /// Which scan of the config.
    index: usize,
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
    pub(super) fn corrected(&self, index: usize, turn: bool) -> Result<CorrectedScan> {
        let mut opened = open_one(self.config, &self.config.scan[index])?;
        opened.leave_out(&self.bad[index]);
        // a panic of another thread leaves either nothing or a whole entry
        let mut kept = self
            .copies
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let planned = self.plan.scans.iter().find(|scan| scan.index == index);
        let opened = match (planned, kept.get(&index)) {
            (_, Some(stacks)) => opened.reading_from(stacks),
            (Some(planned), None) if turn && planned.reading.scratch.is_some() => {
                let memory = plan::turning_bytes(self.plan.memory_cap);
                let turned = opened.turned(&planned.reading, memory, &self.session.progress)?;
                if self.plan.keeps_copies {
                    let (turned, stacks) = turned.shared();
                    kept.insert(index, stacks);
                    turned
                } else {
                    turned
                }
            }
            _ => opened,
        };
        drop(kept);
        let scan = CorrectedScan::new(opened, &self.config.correct)?;
        match &self.lock {
            Some((map, _)) => scan.with_lock(map.clone()),
            None => Ok(scan),
        }
    }

    /// The first scan of those that a scan is compared with, whose rows its own go on as; `None` where the detector holds the sample.
    fn continued_from<'p>(&self, scan_plan: &ScanPlan, plan: &'p Plan) -> Option<&'p ScanPlan> {
        let named = |name: &String| plan.scans.iter().find(|other| other.name == *name);
        let mut root = named(scan_plan.reference.as_ref()?)?;
        while let Some(other) = root.reference.as_ref().and_then(named) {
            root = other;
        }
        let wide = self.reaches[root.index].is_beyond(root.shape[2]);
        wide.then_some(root)
    }

    /// The turned copy of a scan that is done leaves the disk, unless rows of a scan in `next` go on as its own.
    fn let_copy_go(&self, index: usize, next: &[ScanPlan], plan: &Plan) {
        let continues = |scan: &ScanPlan| self.continued_from(scan, plan).map(|root| root.index);
        if next.iter().any(|scan| continues(scan) == Some(index)) {
            return;
        }
        if let Ok(mut copies) = self.copies.lock() {
            copies.remove(&index);
        }
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
        geometry.reach = self.reaches[plan.index];
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

    fn scan(&mut self, scan_plan: &ScanPlan, mut axis: AxisFit, plan: &Plan) -> Result<()> {
        let meter = self.session.progress.meter();
        let scan = meter.time("flats and darks", || self.corrected(scan_plan.index, true))?;
        for warning in scan.warnings() {
            self.warnings.push(format!("{}: {warning}", scan_plan.name));
        }
        let name = &scan_plan.name;
        let scan_folder = self.folder.scan(name)?;
        let volume_path = scan_folder.join(volume::file_name("volume", self.config.run.format));
        let mut taken = self.taken(scan_plan, &scan, &axis)?;
        for note in taken.geometry.notes() {
            log::info!("{name}: {note}");
        }

        let root = self.continued_from(scan_plan, plan);
        let opened = match root {
            Some(root) => Some((root, self.corrected(root.index, false)?)),
            None => None,
        };
        let root_taken = match &opened {
            Some((root, scan)) => Some(self.taken(root, scan, &self.finished[&root.name].axis)?),
            None => None,
        };
        let beyond = root_taken.as_ref().map(|root| Beyond {
            source: root.scan,
            binned_from: root.binned_from,
            at_once: scan_plan.slab,
            geometry: &root.geometry,
            motion: root.start,
        });

        let mut alignment = None;
        let mut motion = taken.start;
        if let Some(reference) = &scan_plan.reference {
            let (found, record) = meter.time("align", || self.align(&taken, reference, beyond))?;
            motion = found;
            if let Some(correction) = &record.axis_correction {
                taken.geometry.correct_axis(correction, taken.binned_from);
                axis.correct(correction, reference);
            }
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
            let beyond = root.map(|root| root.name.as_str()).zip(beyond);
            let record = self.reconstruct(&taken, &axis, motion, beyond, &volume_path)?;
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
            axis: axis.clone(),
            pixel_size_um: scan.scan().pixel_size_um,
            magnification: motion.magnification,
            geometry: taken.geometry.clone(),
            motion,
            index: scan_plan.index,
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

    fn reconstruct(
        &mut self,
        taken: &Taken<'_>,
        axis: &AxisFit,
        motion: Motion,
        beyond: Option<(&str, Beyond<'_>)>,
        volume_path: &Path,
    ) -> Result<ScanRecord> {
        allocator::release();
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
                    ("sample_radius_px", json!(taken.geometry.reach.radius_px())),
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
            beyond: beyond.map(|(_, beyond)| beyond),
        };
        let continued = beyond.filter(|_| job.margin_px() > 0).map(|(root, _)| root);
        if let Some(root) = continued {
            log::info!(
                "{name}: rows go on beyond the detector as those of {root}, moved with the sample"
            );
        }
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
        say("continued_from", json!(continued));
        say("levelled", json!(taken.geometry.is_levelled()));
        say("sample_radius_px", json!(taken.geometry.reach.radius_px()));
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
}
