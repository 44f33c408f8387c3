//! What a run will do, decided from the config, the headers and the device before any work: plain data.
//!
//! The plan answers what users ask before they start: how many slices at a time, how much memory and disk, on which
//! device. `--dry-run` prints it, and the pipeline only carries it out.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::config::{AlignMethod, Config, ReconstructConfig, VolumeFormat};
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::io::volume;
use crate::reconstruct::geometry::Grid;
use crate::scan::Scan;

/// Rows on each side that the interpolation of sinogram rows needs (six taps).
pub const HALO_ROWS: usize = 3;
/// Host memory that a run needs whatever the scan: code, threads, headers, the report \[bytes\].
pub const BASE_BYTES: u64 = 128 << 20;
/// Largest pilot volume \[voxels\]: enough for an alignment to a hundredth of its voxel.
const PILOT_VOXELS: usize = 1 << 24;
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
    /// Columns and rows of a slice.
    pub slice: [usize; 2],
    /// Slices at a time.
    pub slab: usize,
    /// Peak host memory predicted \[bytes\].
    pub peak_bytes: u64,
    /// Bytes that have to be decoded from the input, over all slabs.
    pub decoded_bytes: u64,
    /// Bytes of the volume, uncompressed.
    pub volume_bytes: u64,
    /// Voxels of the volume per voxel of the pilot, for the alignment.
    pub pilot_binning: usize,
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

/// Memory that a slab of one scan needs, for the choice of its height.
#[derive(Debug, Clone, Copy)]
pub struct SlabNeed {
    /// Whatever the height \[bytes\].
    pub fixed: u64,
    /// For each slice \[bytes\].
    pub per_slice: u64,
}

impl SlabNeed {
    /// The largest slab under `cap`, at most `rows`.
    ///
    /// # Errors
    /// [`Error::Memory`] when not even one slice fits.
    pub fn rows_under(&self, cap: u64, rows: usize, what: &str) -> Result<usize> {
        let room = cap.saturating_sub(self.fixed + BASE_BYTES);
        let most = (room / self.per_slice.max(1)) as usize;
        if most == 0 {
            return Err(Error::Memory {
                what: what.to_string(),
                needed: human_bytes(self.fixed + BASE_BYTES + self.per_slice),
                cap: human_bytes(cap),
            });
        }
        let most = most.min(MOST_SLAB_ROWS).min(rows);
        // whole groups of slices keep the interleaved kernels full
        let most = if most >= 16 && most < rows { most / 16 * 16 } else { most };
        Ok(most.max(1))
    }

    /// Peak memory of a slab of `rows`.
    #[must_use]
    pub fn peak(&self, rows: usize) -> u64 {
        BASE_BYTES + self.fixed + self.per_slice * rows as u64
    }
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

/// The grid of a slice for a detector `n_cols` wide: square, cut by `crop`.
///
/// # Errors
/// [`Error::Config`] when the crop leaves the slice.
pub fn slice_grid(config: &ReconstructConfig, n_cols: usize) -> Result<Grid> {
    let grid = Grid::square(n_cols);
    match config.crop_ranges()? {
        None => Ok(grid),
        Some([x, y]) if x.end <= n_cols && y.end <= n_cols => Ok(grid.crop(&x, &y)),
        Some(_) => Err(Error::config(
            "reconstruct.crop",
            &config.crop,
            format!("a slice of this scan is {n_cols} x {n_cols} voxels"),
        )),
    }
}

/// Memory of correcting and reconstructing slabs of one scan, with `scratch` bytes per slice of the reconstructor.
#[must_use]
pub fn reconstruct_need(
    n_angles: usize,
    n_cols: usize,
    grid: &Grid,
    scratch_fixed: u64,
    scratch_per_slice: u64,
    correct_fixed: u64,
    moved: bool,
    writer_bytes: u64,
) -> SlabNeed {
    let sinogram = (n_angles * n_cols * 4) as u64;
    let slice = (grid.n_x * grid.n_y * 4) as u64;
    // a moved scan holds its rows and the interpolated ones
    let (copies, halo) = if moved { (2, 2 * HALO_ROWS as u64) } else { (1, 0) };
    SlabNeed {
        fixed: scratch_fixed + correct_fixed + writer_bytes + halo * sinogram,
        per_slice: copies * sinogram + slice + scratch_per_slice,
    }
}

/// Voxels of the volume per voxel of its pilot.
#[must_use]
pub fn pilot_binning(shape: [usize; 3], cap: u64) -> usize {
    let bytes = crate::align::bytes_per_pilot_voxel();
    let most = PILOT_VOXELS.min((cap.saturating_sub(BASE_BYTES) / 2 / bytes.max(1)) as usize).max(4096);
    (1..64).find(|b| shape.iter().map(|n| n / b).product::<usize>() <= most).unwrap_or(64)
}

impl Plan {
    /// Plans the series `config` with its `scans` opened (same order as `config.scan`).
    ///
    /// # Errors
    /// [`Error::Memory`], [`Error::Config`], [`Error::Shape`] when a scan does not fit its reference.
    pub fn new(config: &Config, scans: &[Scan], device: &Device) -> Result<Plan> {
        let cap = memory_cap(config)?;
        let order = order_of_work(config)?;
        let mut plan = Plan {
            device: device.describe(),
            threads: rayon::current_num_threads(),
            memory_cap: cap,
            scans: Vec::new(),
            differences: Vec::new(),
            disk_bytes: 0,
        };
        for index in order {
            let scan = &scans[index];
            let reference = config.reference_of(&config.scan[index]).map(str::to_string);
            let planned = plan_scan(config, index, scan, reference.clone(), cap)?;
            if let Some(reference) = reference {
                let other = plan
                    .scans
                    .iter()
                    .find(|other| other.name == reference)
                    .expect("the order of work puts references first");
                check_pair(&planned, other)?;
                let voxels = (planned.rows.len() * planned.slice[0] * planned.slice[1]) as u64;
                plan.differences.push(DifferencePlan {
                    target: planned.name.clone(),
                    reference,
                    slab: difference_need(planned.slice, config.run.format)
                        .rows_under(cap, planned.rows.len(), &format!("the difference of {}", planned.name))?,
                    volume_bytes: voxels * 8,
                });
            }
            plan.scans.push(planned);
        }
        plan.disk_bytes = plan.scans.iter().map(|scan| scan.volume_bytes).sum::<u64>()
            + plan.differences.iter().map(|difference| difference.volume_bytes).sum::<u64>();
        Ok(plan)
    }
}

fn plan_scan(config: &Config, index: usize, scan: &Scan, reference: Option<String>, cap: u64) -> Result<ScanPlan> {
    let name = config.scan[index].name.clone();
    let rows = config.reconstruct.row_range(scan.n_rows())?;
    let grid = slice_grid(&config.reconstruct, scan.n_cols())?;
    let shape = [rows.len(), grid.n_y, grid.n_x];
    let need = reconstruct_need(
        scan.n_angles(),
        scan.n_cols(),
        &grid,
        crate::reconstruct::scratch_fixed_bytes(scan.n_cols(), scan.n_angles(), &config.reconstruct),
        crate::reconstruct::scratch_bytes_per_slice(scan.n_cols(), scan.n_angles(), &config.reconstruct),
        crate::correct::fixed_bytes([scan.n_angles(), scan.n_rows(), scan.n_cols()]),
        reference.is_some(),
        volume::writer_bytes(config.run.format, shape),
    );
    let slab = need.rows_under(cap, rows.len(), &format!("reconstructing {name}"))?;
    let per_frame: u64 = rows
        .clone()
        .step_by(slab)
        .map(|start| scan.projections.decoded_bytes(start..(start + slab).min(rows.end)))
        .sum();
    Ok(ScanPlan {
        index,
        layout: scan.layout.clone(),
        shape: [scan.n_angles(), scan.n_rows(), scan.n_cols()],
        reference,
        slice: [grid.n_x, grid.n_y],
        slab,
        peak_bytes: need.peak(slab),
        decoded_bytes: per_frame * scan.n_angles() as u64,
        volume_bytes: (rows.len() * grid.n_x * grid.n_y * 4) as u64,
        pilot_binning: if config.align.method == AlignMethod::None { 1 } else { pilot_binning(shape, cap) },
        rows,
        name,
    })
}

/// Memory of the difference, per slice of a slab.
#[must_use]
pub fn difference_need(slice: [usize; 2], format: VolumeFormat) -> SlabNeed {
    let slice_voxels = (slice[0] * slice[1]) as u64;
    let shape = [usize::MAX >> 40, slice[1], slice[0]];
    SlabNeed {
        fixed: 2 * volume::writer_bytes(format, shape) + crate::difference::fixed_bytes(slice),
        per_slice: slice_voxels * crate::difference::BYTES_PER_VOXEL,
    }
}

fn check_pair(target: &ScanPlan, reference: &ScanPlan) -> Result<()> {
    if target.slice != reference.slice || target.rows != reference.rows {
        return Err(Error::Shape {
            what: format!("volume of {} against its reference {} [z, y, x]", target.name, reference.name),
            expected: vec![reference.rows.len(), reference.slice[1], reference.slice[0]],
            found: vec![target.rows.len(), target.slice[1], target.slice[0]],
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
        let ready = left.iter().position(|&index| match config.reference_of(&config.scan[index]) {
            None => true,
            Some(reference) => order.iter().any(|&done| config.scan[done].name == reference),
        });
        match ready {
            Some(position) => order.push(left.remove(position)),
            None => {
                let names: Vec<&str> = left.iter().map(|&index| config.scan[index].name.as_str()).collect();
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
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "device   {} ({} threads)", self.device, self.threads)?;
        writeln!(f, "memory   at most {}", human_bytes(self.memory_cap))?;
        writeln!(f, "disk     at most {} written, before compression", human_bytes(self.disk_bytes))?;
        for scan in &self.scans {
            let [angles, rows, cols] = scan.shape;
            writeln!(f, "scan     {} ({}): {angles} projections of {rows} x {cols}", scan.name, scan.layout)?;
            if let Some(reference) = &scan.reference {
                writeln!(f, "         put on the grid of {reference}; pilot volumes binned by {}", scan.pilot_binning)?;
            }
            writeln!(
                f,
                "         rows {}..{} to slices of {} x {}, {} slabs of {}; peak memory {}; decodes {}, writes {}",
                scan.rows.start,
                scan.rows.end,
                scan.slice[0],
                scan.slice[1],
                scan.rows.len().div_ceil(scan.slab),
                scan.slab,
                human_bytes(scan.peak_bytes),
                human_bytes(scan.decoded_bytes),
                human_bytes(scan.volume_bytes)
            )?;
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
        Config { scan, ..Config::default() }
    }

    #[test]
    fn references_come_first() {
        let mut config = series(&[("late", Some("plated")), ("plated", Some("pristine")), ("pristine", None)]);
        config.series.reference = "pristine".into();
        assert_eq!(order_of_work(&config).unwrap(), [2, 1, 0]);
        config.scan[2].reference = Some("late".into());
        assert!(order_of_work(&config).is_err(), "a circle has no start");
    }

    #[test]
    fn a_slab_never_exceeds_the_cap() {
        let need = SlabNeed { fixed: 10 << 20, per_slice: 37 << 20 };
        for cap in [200u64 << 20, 512 << 20, 3 << 30, 64 << 30] {
            let rows = need.rows_under(cap, 1000, "x").unwrap();
            assert!(need.peak(rows) <= cap, "{rows} rows under {cap}");
        }
        assert!(need.rows_under(150 << 20, 1000, "x").is_err());
    }

    #[test]
    fn the_pilot_fits_its_share() {
        assert_eq!(pilot_binning([100, 256, 256], 8 << 30), 1);
        let binning = pilot_binning([3000, 3077, 3077], 64 << 30);
        assert!((8..=16).contains(&binning), "{binning}");
    }
}
