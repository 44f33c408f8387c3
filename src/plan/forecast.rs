//! How long a run will take: each kind of work is tried on a little of it, with the sizes of the scan.
//!
//! What is tried: looking for wrong pixels on a few rows of noise, correcting one sinogram per thread, reconstructing a few
//! slices (back-projection on a part of a slice, because its cost is that of its voxels), reading a few frames, the search
//! of the axis on a made sinogram. Writing, registering pilots and the passes over finished volumes have fixed rates per
//! thread. On the CPU everything shares the threads, so times add; with a GPU the longer of the two sides counts, and slices are
//! tried from counts where it corrects them.

use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use ndarray::{Array2, Array3};
use rayon::prelude::*;
use serde::Serialize;

use super::{DifferencePlan, Plan, ScanPlan, slice_grid};
use crate::center;
use crate::config::{CenterConfig, Config, ReconstructMethod};
use crate::correct::line_integrals::CountSlab;
use crate::correct::stripe::StripeRemoval;
use crate::correct::{lock, screen};
use crate::difference::half_groups;
use crate::error::Result;
use crate::gpu::Device;
use crate::progress::Progress;
use crate::reconstruct::geometry::{Grid, InPlaneMotion, rays};
use crate::reconstruct::self_test::throughput::counts;
use crate::reconstruct::{Reconstructor, SliceJob};
use crate::scan::{Scan, SinogramSource, Sinograms};

/// Bytes of a volume that one thread compresses, hashes and writes in a second (Zarr with LZ4; 2.7 s of CPU for 1.07 GB seen).
const WRITE_PER_THREAD: f64 = 350e6;
/// Voxels that one thread takes through a difference in a second, all passes together (seen on 1.7e9 of them) ...
const CHANGE_PER_THREAD: f64 = 20e6;
/// ... and what a difference and its figures take however small it is, on one thread \[s\].
const CHANGE_AT_LEAST: f64 = 1.2;
/// Voxels of a pilot that one thread registers in a second, all levels together (seen on 2e6 and 8e6 of them).
const REGISTER_PER_THREAD: f64 = 0.57e6;
/// Bytes to and from a turned copy in a second.
const COPY: f64 = 400e6;
/// Bytes of frames read for the trial.
const TRIAL_BYTES: usize = 64 << 20;
/// Side of the part of a slice that is back-projected for the trial \[voxel\].
const TRIAL_SIDE: usize = 256;

/// Seconds that the parts of a run take, and all of it.
#[derive(Debug, Clone, Serialize)]
pub struct Forecast {
    /// What, and how long \[s\].
    pub parts: Vec<(&'static str, f64)>,
    /// In all \[s\].
    pub seconds: f64,
}

/// Cost of one row and one slice of a scan \[s\].
struct Unit {
    correct: f64,
    reconstruct: f64,
    /// Per byte decoded.
    read: f64,
    /// For the whole search of the axis, without reading and correcting.
    axis: f64,
}

/// Tries the work of `plan` for a few seconds.
///
/// # Errors
/// Those of the readers and the device.
pub fn forecast(plan: &Plan, config: &Config, scans: &[Scan], device: &Device) -> Result<Forecast> {
    let threads = rayon::current_num_threads() as f64;
    let [
        mut lock,
        mut correct,
        mut reconstruct,
        mut read,
        mut write,
        mut axis,
        mut align,
        mut change,
    ] = [0.0; 8];
    let mut known: Vec<([usize; 3], Unit)> = Vec::new();
    for scan_plan in &plan.scans {
        let scan = &scans[scan_plan.index];
        let tried = known
            .iter()
            .position(|(shape, _)| *shape == scan_plan.shape);
        let index = match tried {
            Some(index) => index,
            None => {
                known.push((scan_plan.shape, try_unit(config, scan_plan, scan, device)?));
                known.len() - 1
            }
        };
        let unit = &known[index].1;
        let rows = scan_plan.rows.len() as f64;
        let center = config.center_of(&config.scan[scan_plan.index]);
        if center.value.is_none() {
            axis += unit.axis;
            correct += (center.heights * center.rows_per_height) as f64 * unit.correct;
        }
        // even against odd projections of a few slices
        let halves: usize = match config.scan.len() {
            1 => 0,
            _ => half_groups(scan_plan.slices.len(), &config.difference)
                .iter()
                .map(ExactSizeIterator::len)
                .sum(),
        };
        // where the GPU corrects, its time for a slice holds that
        if !scan_plan.corrected_on_gpu {
            correct += (rows + (halves * scan_plan.binning) as f64) * unit.correct;
        }
        reconstruct += (scan_plan.slices.len() + halves) as f64 * unit.reconstruct;
        let decoded = scan_plan.reading.decoded_bytes;
        read += unit.read * (decoded + bytes_of_light(scan)) as f64;
        if let Some(copy) = &scan_plan.reading.scratch {
            // made for the search of the axis, and again for the slices unless it is kept
            let again = center.value.is_none() && !plan.keeps_copies;
            let times = if again { 2.0 } else { 1.0 };
            read += times * 2.0 * copy.bytes as f64 / COPY;
            read += (times - 1.0) * unit.read * decoded as f64;
        }
        let slice_bytes = scan_plan.volume_bytes / scan_plan.slices.len() as u64;
        let written = scan_plan.volume_bytes + slice_bytes * halves as u64;
        write += written as f64 / WRITE_PER_THREAD / threads;
        if scan_plan.reference.is_some() && config.align.searches() {
            // two pilots: every row once more, slices of fewer voxels and less of them
            let less = (scan_plan.pilot_binning as f64).powi(3);
            align += 2.0 * rows * (unit.correct + unit.reconstruct / less);
            let voxels = scan_plan.volume_bytes as f64 / 4.0 / less;
            // and whether it closes, once another scan stands on the same grid
            let same =
                |other: &&DifferencePlan| Some(&other.reference) == scan_plan.reference.as_ref();
            let first = plan.differences.iter().find(same);
            let closes = first.is_some_and(|first| first.target != scan_plan.name);
            let times = if closes { 3.0 } else { 2.0 };
            align += times * voxels / REGISTER_PER_THREAD / threads;
        }
    }
    if let Some(asked) = &plan.lock {
        let projections =
            |scan: usize| lock::projections_of(scans[scan].n_angles(), &config.correct.lock);
        let most = asked.scans.iter().map(|&scan| projections(scan)).max();
        lock = lock::seconds(asked.scans.len(), asked.shape, most.unwrap_or(0));
        for &scan in &asked.scans {
            let unit = known
                .iter()
                .find(|(shape, _)| shape[0] == scans[scan].n_angles());
            let frames = &scans[scan].projections;
            let bytes = frames.decoded_bytes(0..asked.shape[0]) as f64 * projections(scan) as f64;
            lock += unit.map_or(0.0, |(_, unit)| unit.read * bytes);
        }
    }
    for difference in &plan.differences {
        let voxels = difference.volume_bytes as f64 / 8.0;
        change += (CHANGE_AT_LEAST + voxels / CHANGE_PER_THREAD) / threads;
    }
    let seconds = match device {
        Device::Cpu => correct + reconstruct + read + write,
        Device::Gpu(_) | Device::Several(_) => (correct + read + write).max(reconstruct),
    } + lock
        + axis
        + align
        + change;
    let parts = [
        ("comparing the detector", lock),
        ("reading", read),
        ("rotation axis", axis),
        ("correcting", correct),
        ("reconstructing", reconstruct),
        ("writing", write),
        ("aligning", align),
        ("subtracting", change),
    ];
    Ok(Forecast {
        parts: parts.into_iter().filter(|(_, time)| *time > 0.0).collect(),
        seconds,
    })
}

/// Bytes decoded for the light of every projection.
fn bytes_of_light(scan: &Scan) -> u64 {
    let of_frame = |rows| scan.projections.decoded_bytes(rows);
    let light: u64 = screen::bands(scan).into_iter().map(of_frame).sum();
    light * scan.n_angles() as u64
}

/// Line integrals of a disc beside the axis, with some noise: what the search of the axis is tried on.
struct Disc<'a> {
    angles_rad: &'a [f64],
    n_cols: usize,
}

impl Disc<'_> {
    const ROWS: usize = 64;

    fn line(&self, angle: usize, row: usize, mut out: ndarray::ArrayViewMut1<'_, f32>) {
        let (radius, middle) = (0.4 * self.n_cols as f64, (self.n_cols as f64 - 1.0) / 2.0);
        let center = middle + 0.05 * self.n_cols as f64 * self.angles_rad[angle].cos();
        for (col, value) in out.iter_mut().enumerate() {
            let t = col as f64 - center;
            let chord = (radius * radius - t * t).max(0.0).sqrt() / radius;
            let number = (angle * self.n_cols + col) * Self::ROWS + row;
            let noise = number.wrapping_mul(2_654_435_761) >> 8 & 0xffff;
            *value = (chord + 0.02 * (noise as f64 / 65536.0 - 0.5)) as f32;
        }
    }
}

impl SinogramSource for Disc<'_> {
    fn n_rows(&self) -> usize {
        Self::ROWS
    }
    fn n_cols(&self) -> usize {
        self.n_cols
    }
    fn angles_rad(&self) -> &[f64] {
        self.angles_rad
    }
    fn sinograms(&self, rows: Range<usize>) -> Result<Sinograms> {
        let mut out = Array3::zeros((rows.len(), self.angles_rad.len(), self.n_cols));
        for (row, mut sinogram) in rows.zip(out.outer_iter_mut()) {
            for (angle, line) in sinogram.outer_iter_mut().enumerate() {
                self.line(angle, row, line);
            }
        }
        Ok(out)
    }
    fn projection(&self, angle: usize, rows: Range<usize>) -> Result<Array2<f32>> {
        let mut out = Array2::zeros((rows.len(), self.n_cols));
        for (row, line) in rows.zip(out.outer_iter_mut()) {
            self.line(angle, row, line);
        }
        Ok(out)
    }
}

/// Time of the search of the axis at all heights, from that of one and of three.
fn seconds_of_axis(scan: &Scan, config: &CenterConfig) -> f64 {
    let disc = Disc {
        angles_rad: &scan.angles_rad,
        n_cols: scan.n_cols(),
    };
    let time = |heights: usize| {
        let config = CenterConfig {
            heights,
            ..config.clone()
        };
        let started = Instant::now();
        // where it finds nothing it has cost the same
        let _ = center::find(&disc, &config, &Progress::new(true));
        started.elapsed().as_secs_f64()
    };
    let (one, three) = (time(1), time(3));
    let per_height = ((three - one) / 2.0).max(0.0);
    one + (config.heights as f64 - 1.0) * per_height
}

fn try_unit(config: &Config, plan: &ScanPlan, scan: &Scan, device: &Device) -> Result<Unit> {
    let [_, n_rows, n_cols] = plan.shape;
    let frame = n_rows * n_cols;
    let frames = (TRIAL_BYTES / (4 * frame)).clamp(1, scan.projection_frames.len());
    let mut counts = vec![0f32; frames * frame];
    // from the middle: the first frames may lie in memory since the scan was opened
    let middle = (scan.projection_frames.len() - frames) / 2;
    let started = Instant::now();
    let chosen = &scan.projection_frames[middle..middle + frames];
    scan.projections.read(chosen, 0..n_rows, &mut counts)?;
    let decoded = scan.projections.decoded_bytes(0..n_rows) as f64 * frames as f64;
    Ok(Unit {
        read: started.elapsed().as_secs_f64() / decoded,
        correct: crate::correct::seconds_per_row(
            plan.shape,
            plan.slab,
            &config.correct,
            scan.pixel_size_um,
        ),
        reconstruct: seconds_per_slice(config, plan, scan, device)?,
        axis: seconds_of_axis(scan, &config.center),
    })
}

fn seconds_per_slice(
    config: &Config,
    plan: &ScanPlan,
    scan: &Scan,
    device: &Device,
) -> Result<f64> {
    let n_angles = plan.shape[0];
    let n_cols = plan.shape[2] / plan.binning;
    let grid = slice_grid(&config.reconstruct, plan.field)?;
    let make = |grid: Grid, method: ReconstructMethod| {
        let mut config = config.reconstruct.clone();
        config.method = method;
        let rays = rays(&scan.angles_rad, InPlaneMotion::default());
        Reconstructor::new(SliceJob::new(n_cols, rays, grid, &config, 1.0), device)
    };
    let threads = rayon::current_num_threads();
    let time = |reconstructor: &mut Reconstructor, grid: Grid, rows: usize| -> Result<f64> {
        let mut out = Array3::<f32>::zeros((rows, grid.n_y, grid.n_x));
        let axis_px = vec![(n_cols as f64 - 1.0) / 2.0; rows];
        if plan.corrected_on_gpu {
            let slab = CountSlab {
                stripe: StripeRemoval::from_config(&config.correct.stripe),
                ..counts(n_cols, n_angles, rows)
            };
            reconstructor.takes(&slab)?;
            let started = Instant::now();
            reconstructor.slab_of_counts(&slab, &axis_px, out.view_mut())?;
            return Ok(started.elapsed().as_secs_f64() / rows as f64);
        }
        let sinograms = Array3::<f32>::from_elem((rows, n_angles, n_cols), 0.5);
        let started = Instant::now();
        reconstructor.slab(sinograms.view(), &axis_px, out.view_mut())?;
        Ok(started.elapsed().as_secs_f64() / rows as f64)
    };
    let mut whole = make(grid, config.reconstruct.method)?;
    if whole.describe().starts_with("Fourier") {
        // two slices travel together in one complex transform
        return time(&mut whole, grid, plan.slab.min(2 * threads));
    }
    drop(whole);
    let rows = plan.slab.min(16);
    let side = |part: usize| part.min(grid.n_x).min(grid.n_y);
    let mut times = [0.0; 2];
    let sides = [side(TRIAL_SIDE / 2), side(TRIAL_SIDE)];
    for (spent, side) in times.iter_mut().zip(sides) {
        let (x, y) = ((grid.n_x - side) / 2, (grid.n_y - side) / 2);
        let part = grid.crop(&(x..x + side), &(y..y + side));
        *spent = time(&mut make(part, ReconstructMethod::Fbp)?, part, rows)?;
    }
    let voxels = sides.map(|side| (side * side) as f64);
    let share = super::disk::share_inside(&config.reconstruct);
    let wanted = share * (grid.n_x * grid.n_y) as f64;
    if voxels[0] == voxels[1] {
        return Ok(times[1] * wanted / voxels[1]);
    }
    // filtering costs the same for any part of the slice
    let per_voxel = ((times[1] - times[0]) / (voxels[1] - voxels[0])).max(0.0);
    Ok((times[0] - per_voxel * voxels[0]).max(0.0) + per_voxel * wanted)
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |seconds: f64| {
            // two figures are all that a forecast is good for
            let step = 10f64.powf(seconds.max(1.0).log10().floor() - 1.0).max(0.1);
            let rounded = Duration::from_secs_f64((seconds / step).round() * step);
            humantime::format_duration(Duration::from_millis(rounded.as_millis() as u64))
                .to_string()
        };
        let parts: Vec<String> = self
            .parts
            .iter()
            .map(|(what, seconds)| format!("{what} {}", text(*seconds)))
            .collect();
        write!(f, "about {} ({})", text(self.seconds), parts.join(", "))
    }
}

/// For the trial in [`crate::correct`]: seconds of `work` per item, `n` at a time on all threads.
pub(crate) fn per_item(n: usize, work: impl Fn() + Sync) -> f64 {
    let started = Instant::now();
    (0..n).into_par_iter().for_each(|_| work());
    started.elapsed().as_secs_f64() / n as f64
}
