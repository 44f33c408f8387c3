//! What a run will do, decided from the config, the headers and the device before any work: plain data.
//!
//! The plan answers what users ask before they start: how many slices at a time, how much memory and disk, on which
//! device. `--dry-run` prints it, and the pipeline only carries it out.

pub mod forecast;
mod reading;

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::center::AxisFit;
use crate::config::{
    Acquisition, AlignMethod, Config, ReconstructConfig, ReconstructMethod, ScanConfig,
    VolumeFormat,
};
use crate::correct::lock;
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::io::volume;
use crate::pipeline::geometry::ScanGeometry;
use crate::pipeline::reconstruct_scan::{Motion, ScanJob};
use crate::pipeline::sample_radius;
use crate::pipeline::tilt;
use crate::reconstruct::Reconstructor;
use crate::reconstruct::acquisition::{Field, is_full_turn};
use crate::reconstruct::geometry::Grid;
use crate::scan::Scan;

pub use reading::{Reading, Scratch};

/// Rows on each side that the interpolation of sinogram rows needs (six taps).
pub const HALO_ROWS: usize = 3;
/// Host memory that a run needs whatever the scan: code, threads, headers, the report \[bytes\].
pub const BASE_BYTES: u64 = 128 << 20;
/// Largest pilot volume \[voxels\]: enough for an alignment to a hundredth of its voxel, and little enough for 512 MiB.
/// It does not follow `--memory`, or the shift found would depend on the machine.
const PILOT_VOXELS: usize = 11_000_000;
/// Most slices in one slab: beyond this nothing gets faster.
const MOST_SLAB_ROWS: usize = 128;

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
    /// Bytes written at most (volumes uncompressed).
    pub disk_bytes: u64,
    /// Largest turned copy of a scan, which is there while that scan is worked on.
    pub scratch_bytes: u64,
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
    /// Peak host memory predicted \[bytes\].
    pub peak_bytes: u64,
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
    /// Slices at a time.
    pub slab: usize,
    /// Peak host memory predicted \[bytes\].
    pub peak_bytes: u64,
    /// How the projections are read.
    pub reading: Reading,
    /// Bytes of the volume, uncompressed.
    pub volume_bytes: u64,
    /// Voxels of the volume per voxel of the pilot, for the alignment.
    pub pilot_binning: usize,
    /// Slices of a pilot at a time.
    pub pilot_slab: usize,
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
    /// Bytes of the difference and the labels, uncompressed.
    pub volume_bytes: u64,
}

/// Memory that a slab needs, for the choice of its height.
#[derive(Debug, Clone, Copy)]
pub struct SlabNeed {
    /// Whatever the height \[bytes\].
    pub fixed: u64,
    /// For each slice \[bytes\].
    pub per_slice: u64,
}

/// A slab height and the memory that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slab {
    /// Slices at a time.
    pub rows: usize,
    /// Peak host memory \[bytes\].
    pub peak_bytes: u64,
}

impl SlabNeed {
    /// The largest slab under `cap`, at most `rows`; `scratch` says what a stage needs on top for a slab of so many rows.
    ///
    /// # Errors
    /// [`Error::Memory`] when not even one slice fits.
    pub fn slab_under(
        &self,
        cap: u64,
        rows: usize,
        what: &str,
        scratch: impl Fn(usize) -> u64,
    ) -> Result<Slab> {
        let peak =
            |rows: usize| BASE_BYTES + self.fixed + self.per_slice * rows as u64 + scratch(rows);
        let most = rows.clamp(1, MOST_SLAB_ROWS);
        // whole groups of sixteen keep the interleaved kernels full
        let heights = std::iter::once(most)
            .chain((1..most).rev().filter(|rows| *rows <= 16 || rows % 16 == 0));
        for rows in heights {
            if peak(rows) <= cap {
                return Ok(Slab {
                    rows,
                    peak_bytes: peak(rows),
                });
            }
        }
        Err(Error::Memory {
            what: what.to_string(),
            needed: human_bytes(peak(1)),
            cap: human_bytes(cap),
        })
    }
}

/// Memory for turning the frames of a scan: nothing else is held meanwhile, and more than a gigabyte gains nothing.
#[must_use]
pub fn turning_bytes(cap: u64) -> u64 {
    (cap.saturating_sub(BASE_BYTES) / 2).min(1 << 30)
}

/// Cap on host memory: the one given, else three quarters of what is free (inside the container, if there is one).
///
/// # Errors
/// [`Error::Config`] for a malformed `run.memory`.
pub fn memory_cap(config: &Config) -> Result<u64> {
    if let Some(bytes) = config.run.memory_bytes()? {
        return Ok(bytes);
    }
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let mut free = system.available_memory();
    if let Some(limits) = system.cgroup_limits() {
        free = free.min(limits.free_memory.max(256 << 20));
    }
    Ok((free / 4 * 3).max(512 << 20))
}

/// The grid of a slice that is `field` wide: square, binned, cut by `crop`.
///
/// # Errors
/// [`Error::Config`] when the crop leaves the slice, or the binning leaves nothing.
pub fn slice_grid(config: &ReconstructConfig, field: Field) -> Result<Grid> {
    let (width, b) = (field.width, config.binning);
    if width / b < 2 {
        return Err(Error::config(
            "reconstruct.binning",
            b,
            format!("a slice of this scan is {width} px wide"),
        ));
    }
    let grid = Grid::square(width / b);
    match config.crop_ranges()? {
        None => Ok(grid),
        Some([x, y]) if x.end <= width && y.end <= width => {
            // every voxel that the crop touches
            let binned =
                |range: Range<usize>| range.start / b..range.end.div_ceil(b).min(width / b);
            Ok(grid.crop(&binned(x), &binned(y)))
        }
        Some(_) => Err(Error::config(
            "reconstruct.crop",
            &config.crop,
            format!("a slice of this scan is {width} x {width} px"),
        )),
    }
}

/// What is seen of a slice, as far as it is known before the axis was found.
///
/// # Errors
/// [`Error::Config`] for a malformed crop.
pub fn field_before_the_axis(
    config: &ReconstructConfig,
    angles_rad: &[f64],
    n_cols: usize,
) -> Result<Field> {
    let crop = config.crop_ranges()?;
    let needed = crop.map_or(0, |[x, y]| x.end.max(y.end));
    let mode = config.acquisition;
    Ok(Field::before_the_axis(mode, angles_rad, n_cols, needed))
}

/// Detector rows `rows` as rows of the binned detector; what is left at the end is left out.
///
/// # Errors
/// [`Error::Config`] when the binning leaves nothing.
pub fn binned_rows(rows: &Range<usize>, binning: usize) -> Result<Range<usize>> {
    if rows.len() < binning {
        return Err(Error::config(
            "reconstruct.binning",
            binning,
            format!("there are {} detector rows", rows.len()),
        ));
    }
    let start = rows.start / binning;
    Ok(start..start + rows.len() / binning)
}

/// Which rows a slab needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsNeeded {
    /// Rows and columns averaged in groups.
    pub binning: usize,
    /// Whether rows are interpolated between, so that those they come from are held beside them.
    pub moved: bool,
    /// Rows beyond the slab that are needed for it, above and below together.
    pub halo: usize,
}

/// Memory of correcting and reconstructing slabs of one scan `[angle, row, col]`, beside the reconstructor's scratch:
/// rows of one slab are corrected while the one before is reconstructed and the one before that is written.
#[must_use]
pub fn reconstruct_need(
    shape: [usize; 3],
    grid: &Grid,
    volume_rows: usize,
    format: VolumeFormat,
    reading: RowsNeeded,
) -> SlabNeed {
    let [n_angles, _, n_cols] = shape;
    let b = reading.binning;
    let sinogram = (n_angles * (n_cols / b) * 4) as u64;
    let slice = (grid.n_x * grid.n_y * 4) as u64;
    let (copies, halo) = if reading.moved {
        (3, 3 * reading.halo as u64)
    } else {
        (1, 0)
    };
    // binned rows are averaged from as many rows of the detector at a time as the slab has slices
    let fine = if b == 1 {
        0
    } else {
        (n_angles * n_cols * 4) as u64
    };
    SlabNeed {
        fixed: crate::correct::fixed_bytes(shape)
            + volume::writer_bytes(format, [volume_rows, grid.n_y, grid.n_x])
            + halo * sinogram,
        per_slice: (copies + 1) * sinogram + 2 * slice + fine,
    }
}

/// A slab of a scan `[angle, row, col]` that is reconstructed for itself, on `device`, as `geometry` (not yet binned) says.
///
/// # Errors
/// [`Error::Memory`]; those of [`Reconstructor::new`].
pub fn single_slab(
    config: &Config,
    geometry: &ScanGeometry,
    motion: &Motion,
    pixel_size_um: Option<f64>,
    device: &Device,
) -> Result<Slab> {
    let shape = [geometry.angles_rad.len(), geometry.n_rows, geometry.n_cols];
    let rows = config.reconstruct.row_range(shape[1])?;
    let slices = binned_rows(&rows, config.reconstruct.binning)?;
    let need = SlabOf {
        config,
        geometry,
        motion,
        moved: false,
        pixel_size_um,
        device,
    };
    Ok(need
        .slab(slices.len(), memory_cap(config)?, "reconstructing")?
        .0)
}

/// What the height of a slab of one scan depends on.
struct SlabOf<'a> {
    config: &'a Config,
    /// Not yet binned.
    geometry: &'a ScanGeometry,
    motion: &'a Motion,
    /// The motion is found later.
    moved: bool,
    pixel_size_um: Option<f64>,
    device: &'a Device,
}

impl SlabOf<'_> {
    /// Tilt for which memory is kept \[degrees\].
    fn largest_tilt_deg(&self) -> f64 {
        let align = &self.config.align;
        match (align.rotation, align.method) {
            _ if !self.moved => 0.0,
            (Some([rx, ry, _]), _) => rx.hypot(ry),
            (None, AlignMethod::Rigid) if align.shift.is_none() => align.max_tilt_deg,
            _ => 0.0,
        }
    }

    /// The slab, and why counts are not corrected where slices are made.
    fn slab(&self, n_slices: usize, cap: u64, what: &str) -> Result<(Slab, Option<String>)> {
        let config = &self.config.reconstruct;
        let b = config.binning;
        let shape = [
            self.geometry.angles_rad.len(),
            self.geometry.n_rows,
            self.geometry.n_cols,
        ];
        let grid = slice_grid(config, self.geometry.field)?;
        let geometry = self.geometry.binned(0, b);
        let heights = geometry.heights(self.motion);
        let (above, below) = heights.spread(geometry.n_rows, geometry.n_cols);
        let reading = RowsNeeded {
            binning: b,
            moved: self.moved || heights.is_interpolated(),
            halo: 2 * HALO_ROWS + (below - above).ceil() as usize,
        };
        let mut need = reconstruct_need(shape, &grid, n_slices, self.config.run.format, reading);
        let tilt = self.largest_tilt_deg();
        if tilt > 0.0 {
            // whole rows are reconstructed first, and held for as long as a slice needs them
            let voxels = (grid.n_x * grid.n_y) as u64;
            let held = tilt::halo_slices(tilt, grid.n_x.max(grid.n_y)) as u64;
            need.fixed += 4 * voxels * held + 4 * voxels;
            need.per_slice += 8 * voxels;
        }
        let job = ScanJob {
            geometry: &geometry,
            slices: 0..n_slices,
            middle_slice: 0.0,
            slab: 1,
            grid,
            motion: *self.motion,
            config,
            scale: 1.0,
            meter: None,
        };
        // asked for its memory only
        let reconstructor = Reconstructor::new(job.slice_job(), self.device)?;
        let slab = need.slab_under(cap, n_slices, what, |rows| {
            let correct = &self.config.correct;
            reconstructor.scratch_bytes(rows)
                + crate::correct::scratch_bytes(shape, rows, correct, self.pixel_size_um)
        })?;
        Ok((slab, reconstructor.off_device()))
    }
}

/// Voxels of the volume per voxel of its pilot.
#[must_use]
pub fn pilot_binning(shape: [usize; 3]) -> usize {
    (1..64)
        .find(|b| shape.iter().map(|n| n / b).product::<usize>() <= PILOT_VOXELS)
        .unwrap_or(64)
}

/// Voxels of the pilot of a volume of `shape`.
fn pilot_voxels(shape: [usize; 3]) -> u64 {
    let b = pilot_binning(shape);
    shape.iter().map(|n| (n / b) as u64).product()
}

/// Refuses an alignment of volumes of `shape` whose pilots do not fit under `cap`.
///
/// # Errors
/// [`Error::Memory`].
pub fn check_pilots(shape: [usize; 3], cap: u64, what: &str) -> Result<()> {
    let needed = BASE_BYTES
        + crate::align::fixed_bytes()
        + crate::align::bytes_per_pilot_voxel() * pilot_voxels(shape);
    if needed <= cap {
        return Ok(());
    }
    Err(Error::Memory {
        what: what.to_string(),
        needed: human_bytes(needed),
        cap: human_bytes(cap),
    })
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

    /// As [`Plan::new`], with the axis of every scan and the radius of a sample that is wider than the detector (same order
    /// as `config.scan`).
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
        sample_radii_px: &[Option<f64>],
        device: &Device,
    ) -> Result<Plan> {
        let known: Vec<Guess> = scans
            .iter()
            .zip(axes)
            .zip(sample_radii_px)
            .map(|((scan, axis), &sample_radius_px)| {
                let rows = config.reconstruct.row_range(scan.n_rows())?;
                Ok(Guess {
                    geometry: ScanGeometry {
                        sample_radius_px,
                        ..ScanGeometry::of_scan(scan, axis, &rows, &config.reconstruct)?
                    },
                    may_be_half: false,
                })
            })
            .collect::<Result<_>>()?;
        Self::with(config, scans, &known, device)
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
            disk_bytes: 0,
            scratch_bytes: 0,
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
                plan.differences.push(DifferencePlan {
                    target: planned.name.clone(),
                    reference,
                    slab: difference_slab(
                        volume,
                        config,
                        cap,
                        2 * volume::reader_bytes(config.run.format, volume),
                        &format!("the difference of {}", planned.name),
                    )?
                    .rows,
                    volume_bytes: voxels * 8,
                });
            }
            plan.scans.push(planned);
        }
        plan.scratch_bytes = plan
            .scans
            .iter()
            .filter_map(|scan| scan.reading.scratch.as_ref())
            .map(|scratch| scratch.bytes)
            .max()
            .unwrap_or(0);
        plan.disk_bytes = plan.scans.iter().map(|scan| scan.volume_bytes).sum::<u64>()
            + plan
                .differences
                .iter()
                .map(|difference| difference.volume_bytes)
                .sum::<u64>();
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
    let (band, peak_bytes) = lock_band(count, shape, cap)?;
    Ok(Some(LockPlan {
        scans: (0..count)
            .map(|k| k * (scans.len() - 1) / (count - 1).max(1))
            .collect(),
        shape,
        band,
        peak_bytes,
    }))
}

/// Rows at a time, and peak memory, of looking for wrong pixels in `n_scans` scans of a detector `[row, col]`.
///
/// # Errors
/// [`Error::Memory`] when even few rows do not fit.
pub fn lock_band(n_scans: usize, shape: [usize; 2], cap: u64) -> Result<(usize, u64)> {
    let fixed = BASE_BYTES + crate::correct::fixed_bytes([0, shape[0], shape[1]]);
    let band = lock::band_rows(n_scans, shape, cap.saturating_sub(fixed));
    let peak = fixed + lock::bytes(n_scans, shape, band);
    if peak > cap {
        return Err(Error::Memory {
            what: "comparing the detector over the scans (correct.lock)".into(),
            needed: human_bytes(peak),
            cap: human_bytes(cap),
        });
    }
    Ok((band, peak))
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
        geometry.sample_radius_px =
            sample_radius::given(&config.reconstruct, opened.pixel_size_um)?;
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
            let heights = guess.geometry.heights(&Motion::default());
            let leans = heights.lean.is_some();
            leans.then(|| "rows are taken along the lean of the axis there".into())
        })
        .or_else(|| crate::correct::line_integrals::off_device(scan, &config.correct));
    let corrections = match reason {
        Some(reason) => format!("on the CPU ({reason})"),
        None => "on the GPU, one upload of counts".to_string(),
    };
    let volume = [slices.len(), grid.n_y, grid.n_x];
    let pilot = pilot_binning(volume);
    let mut reads = reads_of(config, scan, &rows, read);
    let mut pilot_slab = slab;
    if reference.is_some() && config.align.searches() {
        check_pilots(volume, cap, &format!("aligning {name}"))?;
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
    }
    Ok(ScanPlan {
        corrections,
        index,
        layout: scan.layout.clone(),
        shape: [scan.n_angles(), scan.n_rows(), scan.n_cols()],
        reference,
        slice: [grid.n_x, grid.n_y],
        slab,
        peak_bytes,
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

/// Slices at a time of a pilot binned by `binning`, which is reconstructed while two pilots of `voxels` are held.
fn pilot_slab_of(
    scan: &SlabOf<'_>,
    rows: &Range<usize>,
    binning: usize,
    voxels: u64,
    cap: u64,
    name: &str,
) -> Result<usize> {
    let mut config = scan.config.clone();
    config.reconstruct.binning *= binning;
    config.reconstruct.method = ReconstructMethod::Fbp;
    let slices = binned_rows(rows, config.reconstruct.binning)?.len();
    let pilot = SlabOf {
        config: &config,
        ..*scan
    };
    let cap = cap.saturating_sub(2 * 4 * voxels);
    Ok(pilot.slab(slices, cap, &format!("aligning {name}"))?.0.rows)
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

/// The largest slab of a difference of volumes of `shape` `[z, y, x]` under `cap`, with readers that hold `readers` bytes.
///
/// # Errors
/// [`Error::Memory`] when not even one slice fits.
pub fn difference_slab(
    shape: [usize; 3],
    config: &Config,
    cap: u64,
    readers: u64,
    what: &str,
) -> Result<Slab> {
    let need = SlabNeed {
        fixed: readers,
        per_slice: 0,
    };
    need.slab_under(cap, shape[0], what, |rows| {
        crate::difference::bytes(shape, rows, config.run.format, &config.difference)
    })
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

/// `1.5 GiB`
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "device   {} ({} threads)", self.device, self.threads)?;
        writeln!(f, "memory   at most {}", human_bytes(self.memory_cap))?;
        writeln!(
            f,
            "disk     at most {} written, before compression; {} more while the work goes on",
            human_bytes(self.disk_bytes),
            human_bytes(self.scratch_bytes)
        )?;
        if let Some(lock) = &self.lock {
            writeln!(
                f,
                "lock     wrong pixels found over {} scans, {} rows at a time; peak memory {}",
                lock.scans.len(),
                lock.band,
                human_bytes(lock.peak_bytes)
            )?;
        }
        for scan in &self.scans {
            let [angles, rows, cols] = scan.shape;
            writeln!(
                f,
                "scan     {} ({}): {angles} projections of {rows} x {cols}",
                scan.name, scan.layout
            )?;
            if let Some(reference) = &scan.reference {
                writeln!(
                    f,
                    "         put on the grid of {reference}; pilot volumes binned by {}",
                    scan.pilot_binning
                )?;
            }
            writeln!(f, "         corrected {}", scan.corrections)?;
            writeln!(
                f,
                "         rows {}..{} to slices of {} x {}, {} slabs of {}; peak memory {}; writes {}",
                scan.rows.start,
                scan.rows.end,
                scan.slice[0],
                scan.slice[1],
                scan.slices.len().div_ceil(scan.slab),
                scan.slab,
                human_bytes(scan.peak_bytes),
                human_bytes(scan.volume_bytes)
            )?;
            writeln!(f, "         {}", scan.reading)?;
            if scan.field.half {
                writeln!(
                    f,
                    "         half acquisition: what lies beyond the axis is seen once, the slice is up to {} px wide",
                    scan.field.width
                )?;
            }
            if scan.may_be_half {
                writeln!(
                    f,
                    "         a full turn: if the axis is found near the edge (half acquisition), slices are up to {cols2} x {cols2}, \
                     and memory and disk are planned anew",
                    cols2 = 2 * cols / scan.binning
                )?;
            }
            if scan.binning > 1 {
                writeln!(
                    f,
                    "         rows and columns averaged in groups of {}",
                    scan.binning
                )?;
            }
        }
        for difference in &self.differences {
            writeln!(
                f,
                "change   {} minus {}: slabs of {}, writes {}",
                difference.target,
                difference.reference,
                difference.slab,
                human_bytes(difference.volume_bytes)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ScanConfig;

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

    #[test]
    fn a_slab_never_exceeds_the_cap() {
        let need = SlabNeed {
            fixed: 10 << 20,
            per_slice: 37 << 20,
        };
        let scratch = |rows: usize| (rows as u64) << 20;
        for cap in [200u64 << 20, 512 << 20, 3 << 30, 64 << 30] {
            let slab = need.slab_under(cap, 1000, "x", scratch).unwrap();
            assert!(slab.peak_bytes <= cap, "{slab:?} under {cap}");
            assert_eq!(
                slab.peak_bytes,
                BASE_BYTES + (10 << 20) + slab.rows as u64 * (38 << 20)
            );
        }
        assert!(need.slab_under(150 << 20, 1000, "x", scratch).is_err());
        assert_eq!(need.slab_under(64 << 30, 5, "x", scratch).unwrap().rows, 5);
    }

    #[test]
    fn the_pilot_fits_its_share() {
        assert_eq!(pilot_binning([160, 256, 256]), 1);
        for shape in [[3000, 3077, 3077], [160, 256, 257], [7, 9000, 9000]] {
            assert!(pilot_voxels(shape) <= PILOT_VOXELS as u64);
            check_pilots(shape, 512 << 20, "x").unwrap();
            assert!(
                check_pilots(shape, 256 << 20, "x").is_err(),
                "refused, not made coarser"
            );
        }
        assert_eq!(pilot_binning([3000, 3077, 3077]), 14);
    }
}
