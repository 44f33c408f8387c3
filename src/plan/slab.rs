//! How many slices at a time fit under the cap.

use super::{binned_rows, disk, human_bytes, slice_grid};
use crate::allocator;
use crate::config::{AlignMethod, Config, VolumeFormat};
use crate::correct::lock;
use crate::correct::stripe::StripeRemoval;
use crate::difference::Readers;
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::io::volume;
use crate::pipeline::beyond::likely_margin_px;
use crate::pipeline::geometry::ScanGeometry;
use crate::pipeline::reconstruct_scan::{Motion, ScanJob};
use crate::pipeline::tilt;
use crate::reconstruct::Reconstructor;
use crate::reconstruct::geometry::Grid;

/// Rows on each side that the interpolation of sinogram rows needs (six taps).
pub const HALO_ROWS: usize = 3;

/// Host memory that a run needs whatever the scan: code, threads, headers, the report \[bytes\].
pub const BASE_BYTES: u64 = 128 << 20;

/// What of that is likely taken where nothing runs on a GPU, whose driver takes most of it \[bytes\].
pub const PROGRAM_BYTES: u64 = 36 << 20;

/// One part in so many that the allocator holds beside what is asked for: blocks that are free but too small for the next slab. Seen: 1.5 %
/// more than the sum of the parts.
const HELD_BESIDE: u64 = 32;

/// Most slices in one slab: beyond this nothing gets faster.
const MOST_SLAB_ROWS: usize = 128;

/// Memory that a slab needs, for the choice of its height.
#[derive(Debug, Clone, Copy, Default)]
pub struct SlabNeed {
    /// The program itself, likely: [`PROGRAM_BYTES`], or [`BASE_BYTES`] with the driver of a GPU.
    pub program: u64,
    /// Whatever the height \[bytes\].
    pub fixed: u64,
    /// What writes the slices \[bytes\].
    pub writer: u64,
    /// For each slice of the slab at work \[bytes\].
    pub per_slice: u64,
    /// For each slice of the next slab, which is read meanwhile, or of the last one, which is written \[bytes\].
    pub beside: u64,
    /// Of each slice what nobody writes to, outside the mask: the system does not hand it out \[bytes\].
    pub untouched: u64,
}

/// What a slab needs beside its rows and slices \[bytes\].
#[derive(Debug, Clone, Copy, Default)]
pub struct SlabScratch {
    /// While it is corrected.
    pub correct: u64,
    /// While it is reconstructed.
    pub reconstruct: u64,
}

/// A slab height and the memory that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slab {
    /// Slices at a time.
    pub rows: usize,
    /// Peak host memory, at most \[bytes\].
    pub peak_bytes: u64,
    /// The same, likely: less than at most where what is freed is given back, and stages do not meet \[bytes\].
    pub likely_bytes: u64,
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
        scratch: impl Fn(usize) -> SlabScratch,
    ) -> Result<Slab> {
        // where one slab is all, or nearly, there is nothing to be read or written meanwhile
        let beside = |height: usize| height.min(rows.saturating_sub(height)) as u64;
        let slabs = |height: usize| self.per_slice * height as u64 + self.beside * beside(height);
        let most = |height: usize| {
            let SlabScratch {
                correct,
                reconstruct,
            } = scratch(height);
            self.fixed + self.writer + slabs(height) + correct + reconstruct
        };
        let (rows, peak_bytes) = tallest(cap, rows, what, most)?;
        let SlabScratch {
            correct,
            reconstruct,
        } = scratch(rows);
        let stages = match beside(rows) {
            0 => self.writer.max(correct).max(reconstruct),
            _ => self.writer + correct + reconstruct,
        };
        let untouched = self.untouched * (rows as u64 + beside(rows));
        let own = self.fixed + slabs(rows) + stages - untouched;
        Ok(Slab {
            rows,
            peak_bytes,
            likely_bytes: self.program + own + kept(own, cap),
        })
    }
}

/// The tallest slab of `rows` at most, and its peak memory, that fits under `cap` where a slab of so many rows takes `own` bytes beside the program.
fn tallest(cap: u64, rows: usize, what: &str, own: impl Fn(usize) -> u64) -> Result<(usize, u64)> {
    let peak = |height: usize| {
        let parts = BASE_BYTES + own(height);
        parts + parts / HELD_BESIDE
    };
    let most = rows.clamp(1, MOST_SLAB_ROWS);
    // whole groups of sixteen keep the interleaved kernels full; slices go in pairs through the Fourier method and to the smaller scales of a
    // volume, so that one without its partner is held
    let suits = |rows: &usize| {
        rows.is_multiple_of(16) || (*rows < 16 && rows.is_multiple_of(2)) || *rows == 1
    };
    std::iter::once(most)
        .chain((1..most).rev().filter(suits))
        .map(|height| (height, peak(height)))
        .find(|&(_, peak)| peak <= cap)
        .ok_or_else(|| Error::Memory {
            what: what.to_string(),
            needed: human_bytes(peak(1)),
            cap: human_bytes(cap),
        })
}

/// What is likely free and stays in the process beside the `own` memory of a stage: a quarter of what may, as stages take it again \[bytes\].
fn kept(own: u64, cap: u64) -> u64 {
    allocator::keeps(cap).min(own / 3) / 4
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
    // rows that slices are interpolated from are held beside those of the slices, and once more while they are gathered
    let (copies, held, halo) = if reading.moved {
        (3, 1, need_halo(&reading))
    } else {
        (1, 0, 0)
    };
    // binned rows are averaged from as many rows of the detector at a time as the slab has slices
    let fine = if b == 1 {
        0
    } else {
        (n_angles * n_cols * 4) as u64
    };
    SlabNeed {
        program: PROGRAM_BYTES,
        fixed: crate::correct::fixed_bytes(shape) + halo * sinogram,
        writer: volume::writer_bytes(format, [volume_rows, grid.n_y, grid.n_x]),
        untouched: 0,
        per_slice: (1 + held) * sinogram + slice + fine,
        beside: (copies - held) * sinogram + slice,
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
pub(super) struct SlabOf<'a> {
    pub(super) config: &'a Config,
    /// Not yet binned.
    pub(super) geometry: &'a ScanGeometry,
    pub(super) motion: &'a Motion,
    /// The motion is found later.
    pub(super) moved: bool,
    pub(super) pixel_size_um: Option<f64>,
    pub(super) device: &'a Device,
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
    pub(super) fn slab(
        &self,
        n_slices: usize,
        cap: u64,
        what: &str,
    ) -> Result<(Slab, Option<String>)> {
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
        let outside = 1.0 - disk::share_inside(config);
        need.untouched = ((4 * grid.n_x * grid.n_y) as f64 * outside) as u64;
        if !matches!(self.device, Device::Cpu) {
            need.program = BASE_BYTES;
        }
        let tilt = self.largest_tilt_deg();
        if tilt > 0.0 {
            // whole rows are reconstructed first, and held for as long as a slice needs them
            let voxels = (grid.n_x * grid.n_y) as u64;
            let held = tilt::halo_slices(tilt, grid.n_x.max(grid.n_y)) as u64;
            need.fixed += 4 * voxels * held + 4 * voxels;
            need.per_slice += 8 * voxels;
        }
        let margin = if self.moved {
            likely_margin_px(&geometry)
        } else {
            0
        };
        if margin > 0 {
            // wide rows, and those of the reference with the rows they are interpolated from
            let narrow = (4 * shape[0] * geometry.n_cols) as u64;
            let wide = (8 * shape[0] * margin) as u64;
            need.fixed += need_halo(&reading) * narrow;
            need.per_slice += wide;
            need.beside += 2 * wide + 4 * narrow;
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
            beyond: None,
        };
        // asked for its memory only
        let reconstructor = Reconstructor::new(job.slice_job().widened(margin), self.device)?;
        let slab = need.slab_under(cap, n_slices, what, |rows| {
            let correct = &self.config.correct;
            // broad stripes are found later
            let columns = match StripeRemoval::from_config(&correct.stripe) {
                Some(removal) => reconstructor.column_bytes(Some(&removal)),
                None if correct.lock.enabled => reconstructor.column_bytes(None),
                _ => 0,
            };
            SlabScratch {
                correct: crate::correct::scratch_bytes(shape, rows, correct, self.pixel_size_um),
                reconstruct: reconstructor.scratch_bytes(rows) + columns,
            }
        })?;
        Ok((slab, reconstructor.off_device()))
    }
}

/// Rows held beside those of a slab that is interpolated, in all the copies there are of them.
fn need_halo(reading: &RowsNeeded) -> u64 {
    3 * reading.halo as u64
}

/// Rows at a time, and peak memory, at most and likely, of looking for wrong pixels in `n_scans` scans of a detector `[row, col]`.
///
/// # Errors
/// [`Error::Memory`] when even few rows do not fit.
pub fn lock_band(n_scans: usize, shape: [usize; 2], cap: u64) -> Result<(usize, [u64; 2])> {
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
    Ok((band, [peak, peak - BASE_BYTES + PROGRAM_BYTES]))
}

/// The largest slab of a difference of volumes of `shape` `[z, y, x]` under `cap`.
///
/// # Errors
/// [`Error::Memory`] when not even one slice fits.
pub fn difference_slab(
    shape: [usize; 3],
    config: &Config,
    cap: u64,
    readers: Readers,
    what: &str,
) -> Result<Slab> {
    let bytes = |rows| {
        crate::difference::bytes(shape, rows, readers, config.run.format, &config.difference)
    };
    let (rows, peak_bytes) = tallest(cap, shape[0], what, |rows| bytes(rows)[0])?;
    let own = bytes(rows)[1];
    Ok(Slab {
        rows,
        peak_bytes,
        likely_bytes: PROGRAM_BYTES + own + kept(own, cap),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_never_exceeds_the_cap() {
        let need = SlabNeed {
            fixed: 10 << 20,
            per_slice: 30 << 20,
            beside: 7 << 20,
            ..SlabNeed::default()
        };
        let scratch = |rows: usize| SlabScratch {
            correct: (rows as u64) << 20,
            reconstruct: 0,
        };
        let held = |parts: u64| parts + parts / HELD_BESIDE;
        for cap in [200u64 << 20, 512 << 20, 3 << 30, 64 << 30] {
            let slab = need.slab_under(cap, 1000, "x", scratch).unwrap();
            assert!(slab.peak_bytes <= cap, "{slab:?} under {cap}");
            assert!(slab.rows == 1 || slab.rows.is_multiple_of(2), "{slab:?}");
            assert_eq!(
                slab.peak_bytes,
                held(BASE_BYTES + (10 << 20) + slab.rows as u64 * (38 << 20))
            );
        }
        assert!(need.slab_under(150 << 20, 1000, "x", scratch).is_err());
        // a single slab has none beside it, and the second of two may be small
        let slab = need.slab_under(64 << 30, 5, "x", scratch).unwrap();
        assert_eq!(slab.rows, 5);
        assert_eq!(
            slab.peak_bytes,
            held(BASE_BYTES + (10 << 20) + 5 * (31 << 20))
        );
        let cap = held(BASE_BYTES + (10 << 20) + 4 * (31 << 20) + (7 << 20));
        let slab = need.slab_under(cap, 5, "x", scratch).unwrap();
        assert_eq!((slab.rows, slab.peak_bytes), (4, cap));
    }
}
