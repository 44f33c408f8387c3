//! What a run will do, decided from the config, the headers and the device before any work: plain data.
//!
//! The plan answers what users ask before they start: how many slices at a time, how much memory and disk, on which
//! device. `--dry-run` prints it, and the pipeline only carries it out.

pub mod disk;
pub mod forecast;
mod grid;
mod pilot;
mod reading;
mod slab;
mod text;

use std::ops::Range;

use serde::Serialize;

use crate::center::AxisFit;
use crate::config::{Acquisition, Config, ScanConfig, StripeMethod};
use crate::correct::lock;
use crate::difference::{Readers, half_groups};
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::io::volume;
use crate::pipeline::beyond::likely_margin_px;
use crate::pipeline::geometry::ScanGeometry;
use crate::pipeline::pilot::blocks;
use crate::pipeline::reconstruct_scan::Motion;
use crate::pipeline::sample_radius;
use crate::reconstruct::acquisition::{Field, is_full_turn};
use crate::reconstruct::support::Reach;
use crate::scan::Scan;
use pilot::{pilot_slab_of, pilot_voxels};
use slab::SlabOf;

use disk::Written;
pub use grid::{binned_rows, field_before_the_axis, slice_grid};
pub use pilot::{check_pilots, pilot_binning};
pub use reading::{Reading, Scratch};
pub use slab::{
    BASE_BYTES, HALO_ROWS, PROGRAM_BYTES, RowsNeeded, Slab, SlabNeed, SlabScratch, difference_slab,
    lock_band, memory_cap, reconstruct_need, single_slab, turning_bytes,
};
pub use text::human_bytes;

/// The whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Device, in words.
    pub device: String,
    /// Threads.
    pub threads: usize,
    /// Cap on host memory \[bytes\].
    pub memory_cap: u64,
    /// Every scan in the order of work: references first.
    pub scans: Vec<ScanPlan>,
    /// Every difference.
    pub differences: Vec<DifferencePlan>,
    /// What stays on the disk.
    pub disk: Written,
    /// Turned copies of scans that are there at the same time, at most.
    pub scratch_bytes: u64,
    /// Whether the copy made for the search of the axis stays until the slices are made.
    pub keeps_copies: bool,
    /// How wrong pixels are looked for over the scans; `None` where they are not.
    pub lock: Option<LockPlan>,
}

/// The series lock (see [`crate::correct::lock`]).
#[derive(Debug, Clone, Serialize)]
pub struct LockPlan {
    /// Scans asked, as indices into `config.scan`.
    pub scans: Vec<usize>,
    /// Detector `[row, col]`.
    pub shape: [usize; 2],
    /// Detector rows looked at at a time; each such band reads the chosen projections anew.
    pub band: usize,
    /// Peak host memory, at most \[bytes\].
    pub peak_bytes: u64,
    /// The same, likely \[bytes\].
    pub likely_bytes: u64,
}

/// One scan.
#[derive(Debug, Clone, Serialize)]
pub struct ScanPlan {
    /// Name.
    pub name: String,
    /// Index into `config.scan`.
    pub index: usize,
    /// Layout of the input.
    pub layout: String,
    /// `[angle, row, col]`
    pub shape: [usize; 3],
    /// Scan that this one is put on the grid of.
    pub reference: Option<String>,
    /// Detector rows that become slices.
    pub rows: Range<usize>,
    /// The same as rows of the binned detector, whose row 0 begins at detector row `rows.start % binning`.
    pub slices: Range<usize>,
    /// Rows and columns averaged in groups.
    pub binning: usize,
    /// What is seen of a slice, before the binning.
    pub field: Field,
    /// Whether half acquisition is still to be decided by the axis.
    pub may_be_half: bool,
    /// Columns and rows of a slice.
    pub slice: [usize; 2],
    /// Where counts become line integrals, and why there.
    pub corrections: String,
    /// Whether counts go to the GPU as they are.
    pub corrected_on_gpu: bool,
    /// Slices at a time.
    pub slab: usize,
    /// Peak host memory, at most \[bytes\].
    pub peak_bytes: u64,
    /// The same, likely \[bytes\].
    pub likely_bytes: u64,
    /// How the projections are read.
    pub reading: Reading,
    /// Bytes of the volume, uncompressed.
    pub volume_bytes: u64,
    /// Voxels of the volume per voxel of the pilot, for the alignment.
    pub pilot_binning: usize,
    /// Slices of a pilot at a time.
    pub pilot_slab: usize,
}

impl ScanPlan {
    /// The volume, `[z, y, x]`.
    #[must_use]
    pub fn volume_shape(&self) -> [usize; 3] {
        let [n_x, n_y] = self.slice;
        [self.slices.len(), n_y, n_x]
    }
}

/// One difference.
#[derive(Debug, Clone, Serialize)]
pub struct DifferencePlan {
    /// Target scan.
    pub target: String,
    /// Reference scan.
    pub reference: String,
    /// Slices at a time.
    pub slab: usize,
    /// Peak host memory, at most \[bytes\].
    pub peak_bytes: u64,
    /// The same, likely \[bytes\].
    pub likely_bytes: u64,
    /// Bytes of the difference and the labels, uncompressed.
    pub volume_bytes: u64,
}

impl Plan {
    /// Plans the series `config` with its `scans` opened (same order as `config.scan`), before any axis was found:
    /// slices are taken to be as wide as the detector where half acquisition depends on the axis.
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Config`], [`Error::Shape`] when a scan does not fit its reference.
    ///
    /// # Panics
    /// When `scans` are fewer than `config.scan`.
    pub fn new(config: &Config, scans: &[Scan], device: &Device) -> Result<Plan> {
        let guesses: Vec<Guess> = config
            .scan
            .iter()
            .zip(scans)
            .map(|(scan, opened)| Guess::new(config, scan, opened))
            .collect::<Result<_>>()?;
        Self::with(config, scans, &guesses, device)
    }

    /// As [`Plan::new`], with the axis of every scan and how far its sample reaches (same order as `config.scan`).
    ///
    /// # Errors
    /// As for [`Plan::new`].
    ///
    /// # Panics
    /// When `scans` or `axes` are fewer than `config.scan`.
    pub fn with_axes(
        config: &Config,
        scans: &[Scan],
        axes: &[AxisFit],
        reaches: &[Reach],
        device: &Device,
    ) -> Result<Plan> {
        let known: Vec<Guess> = scans
            .iter()
            .zip(axes)
            .zip(reaches)
            .map(|((scan, axis), &reach)| {
                let rows = config.reconstruct.row_range(scan.n_rows())?;
                Ok(Guess {
                    geometry: ScanGeometry {
                        reach,
                        ..ScanGeometry::of_scan(scan, axis, &rows, &config.reconstruct)?
                    },
                    may_be_half: false,
                })
            })
            .collect::<Result<_>>()?;
        Self::with(config, scans, &known, device)
    }

    /// Peak host memory that the whole run likely takes \[bytes\].
    #[must_use]
    pub fn likely_bytes(&self) -> u64 {
        self.memory().map(|[_, likely]| likely).max().unwrap_or(0)
    }

    /// Peak host memory of the whole run, at most \[bytes\].
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.memory().map(|[peak, _]| peak).max().unwrap_or(0)
    }

    /// Memory of every part of the run, at most and likely.
    fn memory(&self) -> impl Iterator<Item = [u64; 2]> {
        let scans = self.scans.iter().map(|s| [s.peak_bytes, s.likely_bytes]);
        let lock = self.lock.iter().map(|l| [l.peak_bytes, l.likely_bytes]);
        let differences = self.differences.iter();
        let differences = differences.map(|d| [d.peak_bytes, d.likely_bytes]);
        scans.chain(lock).chain(differences)
    }

    fn with(config: &Config, scans: &[Scan], guesses: &[Guess], device: &Device) -> Result<Plan> {
        let cap = memory_cap(config)?;
        let order = order_of_work(config)?;
        // one width for all, or no volume would fit its reference
        let half_width = guesses
            .iter()
            .filter(|guess| guess.geometry.field.half)
            .map(|guess| guess.geometry.field.width)
            .max();
        let mut plan = Plan {
            device: device.describe(),
            threads: rayon::current_num_threads(),
            memory_cap: cap,
            scans: Vec::new(),
            differences: Vec::new(),
            disk: Written::default(),
            scratch_bytes: 0,
            keeps_copies: false,
            lock: plan_lock(config, scans, cap)?,
        };
        for index in order {
            let scan = &scans[index];
            let mut guess = guesses[index].clone();
            if let Some(width) = half_width {
                guess.geometry.field.width = width;
            }
            let reference = config.reference_of(&config.scan[index]).map(str::to_string);
            let planned = plan_scan(config, index, scan, &guess, reference.clone(), cap, device)?;
            if let Some(reference) = reference {
                let other = plan
                    .scans
                    .iter()
                    .find(|other| other.name == reference)
                    .expect("the order of work puts references first");
                check_pair(&planned, other)?;
                let voxels = (planned.slices.len() * planned.slice[0] * planned.slice[1]) as u64;
                let volume = [planned.slices.len(), planned.slice[1], planned.slice[0]];
                let slab = difference_slab(
                    volume,
                    config,
                    cap,
                    Readers {
                        bytes: 2 * volume::reader_bytes(config.run.format, volume),
                        together: volume::slices_together(config.run.format, volume),
                    },
                    &format!("the difference of {}", planned.name),
                )?;
                plan.differences.push(DifferencePlan {
                    target: planned.name.clone(),
                    reference,
                    slab: slab.rows,
                    peak_bytes: slab.peak_bytes,
                    likely_bytes: slab.likely_bytes,
                    volume_bytes: voxels * 8,
                });
            }
            plan.scans.push(planned);
        }
        plan.disk = disk::written(config, &plan.scans, &plan.differences);
        (plan.scratch_bytes, plan.keeps_copies) = reading::copies(&plan.scans, plan.disk.at_most);
        Ok(plan)
    }
}

/// Which scans are asked for wrong pixels; `None` where the config asks for none or the detectors differ.
fn plan_lock(config: &Config, scans: &[Scan], cap: u64) -> Result<Option<LockPlan>> {
    let shapes: Vec<[usize; 2]> = scans.iter().map(|s| [s.n_rows(), s.n_cols()]).collect();
    let Some(&shape) = shapes.first().filter(|_| config.correct.lock.enabled) else {
        return Ok(None);
    };
    if shapes.iter().any(|other| *other != shape) {
        return Ok(None);
    }
    let count = scans.len().min(lock::MOST_SCANS);
    let (band, [peak_bytes, likely_bytes]) = lock_band(count, shape, cap)?;
    Ok(Some(LockPlan {
        scans: (0..count)
            .map(|k| k * (scans.len() - 1) / (count - 1).max(1))
            .collect(),
        shape,
        band,
        peak_bytes,
        likely_bytes,
    }))
}

/// The geometry of a scan as far as it is known.
#[derive(Clone)]
struct Guess {
    geometry: ScanGeometry,
    may_be_half: bool,
}

impl Guess {
    /// From an axis given by hand, else from the detector alone.
    fn new(config: &Config, scan: &ScanConfig, opened: &Scan) -> Result<Guess> {
        let rows = config.reconstruct.row_range(opened.n_rows())?;
        let center = config.center_of(scan);
        let middle = (opened.n_cols() as f64 - 1.0) / 2.0;
        let axis = AxisFit {
            axis_px: center.value.unwrap_or(middle),
            slope_px_per_row: center.value.map_or(0.0, |_| center.slope),
            middle_row: (opened.n_rows() as f64 - 1.0) / 2.0,
            ..AxisFit::default()
        };
        let mut geometry = ScanGeometry::of_scan(opened, &axis, &rows, &config.reconstruct)?;
        if let Some(radius) = sample_radius::given(&config.reconstruct, opened.pixel_size_um)? {
            geometry.reach = Reach::Radius(radius);
        }
        let open = center.value.is_none() && is_full_turn(&opened.angles_rad);
        if center.value.is_none() {
            geometry.field =
                field_before_the_axis(&config.reconstruct, &opened.angles_rad, opened.n_cols())?;
        }
        Ok(Guess {
            geometry,
            may_be_half: open && config.reconstruct.acquisition == Acquisition::Auto,
        })
    }
}

fn plan_scan(
    config: &Config,
    index: usize,
    scan: &Scan,
    guess: &Guess,
    reference: Option<String>,
    cap: u64,
    device: &Device,
) -> Result<ScanPlan> {
    let name = config.scan[index].name.clone();
    let rows = config.reconstruct.row_range(scan.n_rows())?;
    let binning = config.reconstruct.binning;
    let slices = binned_rows(&rows, binning)?;
    let grid = slice_grid(&config.reconstruct, guess.geometry.field)?;
    let need = SlabOf {
        config,
        geometry: &guess.geometry,
        motion: &Motion::default(),
        moved: reference.is_some(),
        pixel_size_um: scan.pixel_size_um,
        device,
    };
    let (slab, off_device) = need.slab(slices.len(), cap, &format!("reconstructing {name}"))?;
    let Slab {
        rows: slab,
        peak_bytes,
        mut likely_bytes,
    } = slab;
    // of the detector rows that are read at a time
    let read = if slab < binning {
        slab
    } else {
        slab / binning * binning
    };
    let reason = off_device
        .or_else(|| {
            let half = guess.geometry.field.half;
            half.then(|| "half acquisition is blended there".into())
        })
        .or_else(|| (binning > 1).then(|| "rows are binned there".into()))
        .or_else(|| {
            let goes_on = reference.is_some() && likely_margin_px(&guess.geometry) > 0;
            goes_on.then(|| "rows go on as those of the reference there".into())
        })
        .or_else(|| {
            let heights = guess.geometry.heights(&Motion::default());
            let leans = heights.lean.is_some();
            leans.then(|| "rows are taken along the lean of the axis there".into())
        })
        .or_else(|| crate::correct::line_integrals::off_device(scan, &config.correct));
    let corrected_on_gpu = reason.is_none();
    let stripes = config.correct.stripe.method;
    let corrections = match reason {
        Some(reason) => format!("on the CPU ({reason})"),
        None if stripes == StripeMethod::None => "on the GPU, one upload of counts".to_string(),
        None => format!(
            "on the GPU, one upload of counts, stripes ({}) removed there",
            serde_json::json!(stripes).as_str().unwrap_or("stripes")
        ),
    };
    let volume = [slices.len(), grid.n_y, grid.n_x];
    let pilot = pilot_binning(volume);
    let mut reads = reads_of(config, scan, &rows, read);
    if guess.geometry.reach.is_beyond(scan.n_cols()) {
        // once more for each scan whose rows go on as these
        let others = config
            .scan
            .iter()
            .filter(|other| config.reference_of(other) == Some(&name));
        let times = others.count();
        let starts = rows.clone().step_by(read);
        reads.extend(starts.map(|start| (start..(start + read).min(rows.end), times)));
    }
    let rows_of = |slices: &Range<usize>| {
        rows.start + slices.start * binning..rows.start + slices.end * binning
    };
    if config.scan.len() > 1 {
        // even against odd projections of a few slices
        let of_noise = half_groups(slices.len(), &config.difference);
        reads.extend(of_noise.iter().map(|group| (rows_of(group), 1)));
    }
    let mut pilot_slab = slab;
    if reference.is_some() && config.align.searches() {
        check_pilots(volume, cap, &format!("aligning {name}"))?;
        likely_bytes = likely_bytes.max(pilot::likely_bytes(volume));
        pilot_slab = pilot_slab_of(&need, &rows, pilot, pilot_voxels(volume), cap, &name)?;
        // two pilots, as many rows at a time as one of their slabs has slices
        let group = pilot * binning;
        let at_once = if pilot_slab < group {
            pilot_slab
        } else {
            pilot_slab / group * group
        };
        let all = rows.start..rows.start + rows.len() / group * group;
        let starts = all.clone().step_by(at_once);
        reads.extend(starts.map(|start| (start..(start + at_once).min(all.end), 2)));
        if pilot > 1 {
            reads.extend(blocks(slices.len()).map(|block| (rows_of(&block), 1)));
        }
    }
    Ok(ScanPlan {
        corrections,
        corrected_on_gpu,
        index,
        layout: scan.layout.clone(),
        shape: [scan.n_angles(), scan.n_rows(), scan.n_cols()],
        reference,
        slice: [grid.n_x, grid.n_y],
        slab,
        peak_bytes,
        likely_bytes,
        reading: reading::plan(config, scan, &reads, &config.series.output),
        volume_bytes: (slices.len() * grid.n_x * grid.n_y * 4) as u64,
        pilot_binning: pilot,
        pilot_slab,
        rows,
        slices,
        binning,
        field: guess.geometry.field,
        may_be_half: guess.may_be_half,
        name,
    })
}

/// Rows that the axis search and the slabs of one scan read.
fn reads_of(
    config: &Config,
    scan: &Scan,
    rows: &Range<usize>,
    slab: usize,
) -> Vec<(Range<usize>, usize)> {
    let heights = config.center.heights.clamp(1, scan.n_rows());
    let thick = config.center.rows_per_height.clamp(1, scan.n_rows());
    let mut reads: Vec<_> = rows
        .clone()
        .step_by(slab)
        .map(|start| (start..(start + slab).min(rows.end), 1))
        .collect();
    if config.center.value.is_none() {
        let first = |k: usize| (2 * k + 1) * (scan.n_rows() - thick) / (2 * heights);
        reads.extend((0..heights).map(|k| (first(k)..first(k) + thick, 1)));
    }
    reads
}

/// How a scan that is reconstructed for itself is read, in slabs of `slab` rows, for an output in `folder`.
///
/// # Errors
/// [`Error::Config`] for rows that the scan does not have.
pub fn single_reading(
    config: &Config,
    scan: &Scan,
    slab: usize,
    folder: &std::path::Path,
) -> Result<Reading> {
    let rows = config.reconstruct.row_range(scan.n_rows())?;
    let reads = reads_of(config, scan, &rows, slab);
    Ok(reading::plan(config, scan, &reads, folder))
}

fn check_pair(target: &ScanPlan, reference: &ScanPlan) -> Result<()> {
    if target.slice != reference.slice || target.slices != reference.slices {
        return Err(Error::Shape {
            what: format!("volume of {} against its reference {} [z, y, x]", target.name, reference.name),
            expected: vec![reference.slices.len(), reference.slice[1], reference.slice[0]],
            found: vec![target.slices.len(), target.slice[1], target.slice[0]],
            hint: "scans of a series need the same detector size; cut them with reconstruct.rows and reconstruct.crop"
                .into(),
        });
    }
    Ok(())
}

/// Indices of the scans, every reference before the scans compared with it.
fn order_of_work(config: &Config) -> Result<Vec<usize>> {
    let mut order: Vec<usize> = Vec::new();
    let mut left: Vec<usize> = (0..config.scan.len()).collect();
    while !left.is_empty() {
        let ready = left
            .iter()
            .position(|&index| match config.reference_of(&config.scan[index]) {
                None => true,
                Some(reference) => order
                    .iter()
                    .any(|&done| config.scan[done].name == reference),
            });
        match ready {
            Some(position) => order.push(left.remove(position)),
            None => {
                let names: Vec<&str> = left
                    .iter()
                    .map(|&index| config.scan[index].name.as_str())
                    .collect();
                return Err(Error::config(
                    "scan.reference",
                    names.join(", "),
                    "these scans refer to each other in a circle; one of them must be its own reference",
                ));
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(pairs: &[(&str, Option<&str>)]) -> Config {
        let scan = pairs
            .iter()
            .map(|(name, reference)| ScanConfig {
                name: (*name).into(),
                path: "x".into(),
                reference: reference.map(str::to_string),
                ..ScanConfig::default()
            })
            .collect();
        Config {
            scan,
            ..Config::default()
        }
    }

    #[test]
    fn references_come_first() {
        let mut config = series(&[
            ("late", Some("plated")),
            ("plated", Some("pristine")),
            ("pristine", None),
        ]);
        config.series.reference = "pristine".into();
        assert_eq!(order_of_work(&config).unwrap(), [2, 1, 0]);
        config.scan[2].reference = Some("late".into());
        assert!(order_of_work(&config).is_err(), "a circle has no start");
    }
}
