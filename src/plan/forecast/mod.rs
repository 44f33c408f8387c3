//! How long a run will take: each kind of work is tried on a little of it, with the sizes of the scan.
//!
//! Of every scan: reading a few frames, looking for wrong pixels on a few rows of noise, correcting one sinogram per thread,
//! reconstructing a few slices (back-projection on a part of a slice, because its cost is that of its voxels), the search
//! of the axis on a made sinogram. Of a series: two made volumes of two depths each are written, binned, registered, subtracted
//! and drawn, which gives what such work costs at least and for each voxel. What is tried is multiplied by how often the plan does it.
//! Trials find their memory in use, while a run takes most of its own for the first time: that is tried by itself.
//!
//! Every trial is measured by the clock and by the processor. On the CPU everything shares the threads, so times add; with a GPU
//! the longer of the two sides counts, and slices are tried from counts where it corrects them.

pub(crate) mod cost;
mod scan;
mod volumes;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{DifferencePlan, Plan, ScanPlan};
use crate::allocator;
use crate::config::Config;
use crate::correct::{lock, screen};
use crate::difference::half_groups;
use crate::error::Result;
use crate::gpu::Device;
use crate::pipeline::{match_axes, pilot};
use crate::plan::{HALO_ROWS, PROGRAM_BYTES};
use crate::scan::Scan;
pub use cost::Cost;
use scan::Unit;
use volumes::Volumes;

/// Bytes to and from a turned copy in a second.
const COPY: f64 = 400e6;
/// Bytes written to try the system's cache: more than the few that it has from files just removed.
const CACHE_TRIED: u64 = 256 << 20;
/// How often the flats and darks of a scan are averaged: for the axis, for the width of the sample or the lock, and for its slices.
const FLATS_READ: f64 = 3.0;

/// What the parts of a run take, and all of it.
#[derive(Debug, Clone, Serialize)]
pub struct Forecast {
    /// What, and how long.
    pub parts: Vec<(&'static str, Cost)>,
    /// In all.
    pub total: Cost,
}

/// The parts of a run.
#[derive(Default)]
struct Parts {
    lock: Cost,
    read: Cost,
    axis: Cost,
    correct: Cost,
    reconstruct: Cost,
    write: Cost,
    align: Cost,
    change: Cost,
    figures: Cost,
    memory: Cost,
}

/// Tries the work of `plan` for a few seconds.
///
/// # Errors
/// Those of the readers, the device, and of writing into the folder for temporary files.
pub fn forecast(plan: &Plan, config: &Config, scans: &[Scan], device: &Device) -> Result<Forecast> {
    // first of all: what others write and remove leaves pages in use
    let in_cache = cost::fresh_cache(CACHE_TRIED.min(plan.disk.cached) as usize);
    let in_cache = in_cache.unwrap_or_else(|error| {
        log::debug!("what fresh pages of the cache cost cannot be tried: {error}");
        Cost::NONE
    });
    let side = plan.scans.iter().flat_map(|scan| scan.slice).max();
    let volumes = Volumes::tried(config, side.unwrap_or(0))?;
    let mut known: Vec<(([usize; 3], bool), Unit)> = Vec::new();
    let mut parts = Parts::default();
    for scan_plan in &plan.scans {
        let scan = &scans[scan_plan.index];
        // a scan that is moved has more work
        let kind = (scan_plan.shape, scan_plan.reference.is_some());
        let index = match known.iter().position(|(tried, _)| *tried == kind) {
            Some(index) => index,
            None => {
                known.push((kind, Unit::tried(config, scan_plan, scan, device)?));
                known.len() - 1
            }
        };
        let work = Work {
            config,
            plan,
            scan_plan,
            scan,
            unit: &known[index].1,
            volumes: &volumes,
        };
        work.add_to(&mut parts);
    }
    if let Some(asked) = &plan.lock {
        let projections =
            |scan: usize| lock::projections_of(scans[scan].n_angles(), &config.correct.lock);
        let most = asked.scans.iter().map(|&scan| projections(scan)).max();
        parts.lock = lock::cost(asked.scans.len(), asked.shape, most.unwrap_or(0));
        for &scan in &asked.scans {
            let unit = known
                .iter()
                .find(|((shape, _), _)| shape[0] == scans[scan].n_angles());
            let frames = &scans[scan].projections;
            let bytes = frames.decoded_bytes(0..asked.shape[0]) as f64 * projections(scan) as f64;
            parts.lock += unit.map_or(Cost::NONE, |(_, unit)| unit.read * bytes);
        }
    }
    for difference in &plan.differences {
        let voxels = difference.volume_bytes as f64 / 8.0;
        let target = plan.scans.iter().find(|s| s.name == difference.target);
        let shape = target.map_or([0; 3], ScanPlan::volume_shape);
        parts.change += volumes.subtracted(shape);
        parts.figures += volumes.drawn(voxels);
        if plan.differences.len() > 1 {
            // when each voxel first changed: every volume of labels is read, and one written
            parts.change += volumes.binned(voxels)
                + volumes.written(voxels) * (1.0 / plan.differences.len() as f64);
        }
    }
    parts.memory = fresh_memory(plan, in_cache);
    Ok(parts.sum(device))
}

impl Parts {
    fn sum(self, device: &Device) -> Forecast {
        let host = self.correct + self.read + self.write;
        let slices = match device {
            Device::Cpu => host + self.reconstruct,
            Device::Gpu(_) | Device::Several(_) => Cost {
                wall: host.wall.max(self.reconstruct.wall),
                cpu: host.cpu + self.reconstruct.cpu,
            },
        };
        let parts = [
            ("comparing the detector", self.lock),
            ("reading", self.read),
            ("rotation axis", self.axis),
            ("correcting", self.correct),
            ("reconstructing", self.reconstruct),
            ("writing", self.write),
            ("aligning", self.align),
            ("subtracting", self.change),
            ("drawing", self.figures),
            ("taking memory", self.memory),
        ];
        for (what, cost) in parts {
            log::debug!(
                "{what}: {:.2} s, {:.2} s of all threads",
                cost.wall,
                cost.cpu
            );
        }
        Forecast {
            total: slices
                + self.lock
                + self.axis
                + self.align
                + self.change
                + self.figures
                + self.memory,
            parts: parts
                .into_iter()
                .filter(|(_, cost)| cost.wall > 0.0)
                .collect(),
        }
    }
}

/// What the run takes from the system for the first time: the memory of every scan and difference, which is given back in between, and as much of the
/// cache of files as `in_cache`, for each byte, is taken for what it writes.
fn fresh_memory(plan: &Plan, in_cache: Cost) -> Cost {
    let own = |likely: u64| likely.saturating_sub(PROGRAM_BYTES);
    let scans: u64 = plan.scans.iter().map(|scan| own(scan.likely_bytes)).sum();
    let differences = plan.differences.iter();
    let differences: u64 = differences.map(|change| own(change.likely_bytes)).sum();
    let tried = allocator::keeps(plan.memory_cap) as usize * 5 / 4 + (8 << 20);
    cost::fresh_memory(tried) * (scans + differences) as f64 + in_cache * plan.disk.cached as f64
}

/// The work on one scan.
struct Work<'a> {
    config: &'a Config,
    plan: &'a Plan,
    scan_plan: &'a ScanPlan,
    scan: &'a Scan,
    unit: &'a Unit,
    volumes: &'a Volumes,
}

impl Work<'_> {
    fn add_to(&self, parts: &mut Parts) {
        let (scan_plan, unit) = (self.scan_plan, self.unit);
        let center = self.config.center_of(&self.config.scan[scan_plan.index]);
        let searched = center.value.is_none();
        let mut rows = scan_plan.rows.len();
        if searched {
            parts.axis += unit.axis;
            rows += center.heights * center.rows_per_height;
        }
        // even against odd projections of a few slices
        let groups = match self.config.scan.len() {
            1 => Vec::new(),
            _ => half_groups(scan_plan.slices.len(), &self.config.difference),
        };
        let halves: usize = groups.iter().map(ExactSizeIterator::len).sum();
        let halo = match scan_plan.reference {
            Some(_) => 2 * HALO_ROWS * groups.len(),
            None => 0,
        };
        let slices = scan_plan.slices.len() + halves;
        rows += (halves + halo) * scan_plan.binning;
        // where the GPU corrects, its time for a slice holds that
        if !scan_plan.corrected_on_gpu {
            parts.correct += (unit.correct + unit.bin) * rows as f64 + unit.place * slices as f64;
        }
        parts.reconstruct += unit.reconstruct * slices as f64;
        parts.read += self.reading(searched);
        let voxels = (scan_plan.volume_bytes / 4) as f64;
        parts.write += self
            .volumes
            .written(voxels * slices as f64 / scan_plan.slices.len() as f64);
        if scan_plan.reference.is_some() && self.config.align.searches() {
            parts.align += self.aligning(voxels);
        }
        parts.figures += self.volumes.axis_drawn();
    }

    fn reading(&self, searched: bool) -> Cost {
        let (scan, reading) = (self.scan, &self.scan_plan.reading);
        let whole = scan.projections.decoded_bytes(0..scan.n_rows()) as f64;
        let flats = scan.flat_groups.iter().chain(&scan.dark_groups);
        let flats: usize = flats.map(|group| group.frames.len()).sum();
        let mut bytes = reading.decoded_bytes as f64 + bytes_of_light(scan) as f64;
        bytes += FLATS_READ * flats as f64 * whole;
        let mut copying = 0.0;
        if let Some(copy) = &reading.scratch {
            // made for the search of the axis, and again for the slices unless it is kept
            let again = searched && !self.plan.keeps_copies;
            let times = if again { 2.0 } else { 1.0 };
            copying = times * 2.0 * copy.bytes as f64 / COPY;
            bytes += (times - 1.0) * reading.decoded_bytes as f64;
        }
        // the disk is waited for, while the processor copies
        self.unit.read * bytes
            + Cost {
                wall: copying,
                cpu: copying,
            }
    }

    /// Two pilots of the scan, one of its reference, their comparison, then that of blocks at full resolution.
    fn aligning(&self, voxels: f64) -> Cost {
        let (scan_plan, unit, volumes) = (self.scan_plan, self.unit, self.volumes);
        let b = scan_plan.pilot_binning;
        let pilot_voxels = voxels / (b as f64).powi(3);
        let slices = (scan_plan.slices.len() / b) as f64;
        let rows = scan_plan.rows.len() as f64;
        let binned = unit.bin + unit.bin_pilot * (1.0 / scan_plan.binning as f64);
        let pilot = (unit.correct + binned) * rows + (unit.pilot + unit.place) * slices;
        let mut cost = volumes.binned(voxels) + (pilot + volumes.registered(pilot_voxels)) * 2.0;
        if self.config.align.match_axis {
            let held = match_axes::rows_corrected(scan_plan.rows.len());
            cost += unit.correct * held as f64 + unit.match_axes;
        }
        let blocks = pilot::blocks(scan_plan.slices.len());
        for block in blocks.take_while(|_| b > 1) {
            let height = block.len() as f64;
            let plane = pilot::block_plane(scan_plan.slice) as f64;
            let held = (block.len() + 2 * HALO_ROWS) * scan_plan.binning;
            cost += (unit.correct + unit.bin) * held as f64 + (unit.block + unit.place) * height;
            cost += volumes.registered(height * plane);
            cost += volumes.binned(voxels * height / scan_plan.slices.len() as f64);
        }
        // and whether it closes, once another scan stands on the same grid
        let same = |other: &&DifferencePlan| Some(&other.reference) == scan_plan.reference.as_ref();
        let first = self.plan.differences.iter().find(same);
        if first.is_some_and(|first| first.target != scan_plan.name) {
            cost += volumes.binned(voxels) * 2.0 + volumes.registered(pilot_voxels);
        }
        cost
    }
}

/// Bytes decoded for the light of every projection.
fn bytes_of_light(scan: &Scan) -> u64 {
    let of_frame = |rows| scan.projections.decoded_bytes(rows);
    let light: u64 = screen::bands(scan).into_iter().map(of_frame).sum();
    light * scan.n_angles() as u64
}

/// Two figures are all that a forecast is good for.
fn in_words(seconds: f64) -> String {
    let step = 10f64.powf(seconds.max(1.0).log10().floor() - 1.0).max(0.1);
    let rounded = Duration::from_secs_f64((seconds / step).round() * step);
    humantime::format_duration(Duration::from_millis(rounded.as_millis() as u64)).to_string()
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self
            .parts
            .iter()
            .map(|(what, cost)| format!("{what} {}", in_words(cost.wall)))
            .collect();
        write!(f, "about {}", in_words(self.total.wall))?;
        if self.total.cpu.is_finite() {
            write!(f, ", {} of all threads together", in_words(self.total.cpu))?;
        }
        write!(f, " ({})", parts.join(", "))
    }
}
