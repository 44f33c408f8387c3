//! Pilot volumes and the motion between two scans.
//!
//! The motion is found on volumes but applied in the reconstruction: a binned pilot of the target, on its own grid,
//! is registered with the binned reference; the target is then reconstructed on the reference grid with that motion,
//! first again as a pilot, then a few full-resolution blocks, and each time the residual motion is added. The last
//! residual says how good the alignment is. No volume is resampled.

use std::ops::Range;

use ndarray::{Array3, Axis, s};

use crate::align::{self, PilotPair};
use crate::allocator;
use crate::config::{AlignConfig, ReconstructConfig, ReconstructMethod};
use crate::correct::CorrectedScan;
use crate::error::Result;
use crate::gpu::Device;
use crate::io::volume::VolumeReader;
use crate::pipeline::beyond::Beyond;
use crate::pipeline::binned::BinnedRows;
use crate::pipeline::geometry::ScanGeometry;
use crate::pipeline::middle_of;
use crate::pipeline::reconstruct_scan::{Motion, ScanJob};
use crate::pipeline::rows::{CountedScan, RowSource};
use crate::progress::{Progress, Stage};
use crate::reconstruct::geometry::Grid;
use crate::record::{AlignmentRecord, AxisCorrection};

/// Full-resolution blocks are at most this wide \[voxel\] ...
pub(crate) const BLOCK_WIDTH: usize = 384;
/// ... and this high.
const BLOCK_SLICES: usize = 24;
/// Heights at which blocks are taken.
const BLOCK_HEIGHTS: usize = 3;
/// Slices of a volume are read in pieces of about this size \[bytes\].
const PIECE_BYTES: usize = 32 << 20;

/// Slices of the full-resolution blocks of a volume of `n_slices`, which are asked where the pilot is coarser than the volume.
pub fn blocks(n_slices: usize) -> impl Iterator<Item = Range<usize>> {
    let height = BLOCK_SLICES.min(n_slices);
    (0..BLOCK_HEIGHTS)
        .map(move |k| (n_slices - height) * (2 * k + 1) / (2 * BLOCK_HEIGHTS))
        .map(move |start| start..start + height)
}

/// Voxels of one slice of a block in slices of so many columns and rows.
#[must_use]
pub fn block_plane(slice: [usize; 2]) -> usize {
    slice.map(|n| n.min(BLOCK_WIDTH)).iter().product()
}

/// Slices `z` in pieces that are cheap to read: whole layers of the storage, a few tens of MiB where it has none.
fn pieces(
    volume: &dyn VolumeReader,
    z: Range<usize>,
) -> impl Iterator<Item = Range<usize>> + use<> {
    let [_, n_y, n_x] = volume.meta().shape;
    let layer = volume.slices_together().max(1);
    let layers = (PIECE_BYTES / (4 * n_y * n_x * layer).max(1)).max(1);
    let step = layers * layer;
    (z.start / step..z.end.div_ceil(step))
        .map(move |piece| (piece * step).max(z.start)..((piece + 1) * step).min(z.end))
}

/// Means of `binning`^3 voxels of a volume, read a few slices at a time; NaN counts as 0.
///
/// # Errors
/// Those of the reader.
pub fn bin_volume(volume: &dyn VolumeReader, binning: usize) -> Result<Array3<f32>> {
    let [n_z, n_y, n_x] = volume.meta().shape;
    let b = binning;
    let mut out = Array3::<f32>::zeros((n_z / b, n_y / b, n_x / b));
    for piece in pieces(volume, 0..n_z / b * b) {
        let fine = volume.read(piece.clone())?;
        for (z, fine) in piece.zip(fine.outer_iter()) {
            let mut slice = out.index_axis_mut(Axis(0), z / b);
            ndarray::Zip::indexed(slice.rows_mut()).par_for_each(|y, mut line| {
                for (x, sum) in line.iter_mut().enumerate() {
                    for voxel in fine.slice(s![y * b..(y + 1) * b, x * b..(x + 1) * b]) {
                        if voxel.is_finite() {
                            *sum += voxel;
                        }
                    }
                }
            });
        }
    }
    let scale = 1.0 / (b * b * b) as f32;
    out.par_mapv_inplace(|sum| sum * scale);
    Ok(out)
}

/// A block of a volume, read a few slices at a time; NaN becomes 0.
fn read_block(
    volume: &dyn VolumeReader,
    z: Range<usize>,
    y: Range<usize>,
    x: Range<usize>,
) -> Result<Array3<f32>> {
    let mut out = Array3::<f32>::zeros((z.len(), y.len(), x.len()));
    for piece in pieces(volume, z.clone()) {
        let slices = volume.read(piece.clone())?;
        let block = slices.slice(s![.., y.clone(), x.clone()]);
        out.slice_mut(s![piece.start - z.start..piece.end - z.start, .., ..])
            .assign(&block.mapv(|v| if v.is_finite() { v } else { 0.0 }));
    }
    Ok(out)
}

/// The scan to be aligned and everything that its reconstruction needs.
pub struct Target<'a> {
    /// The scan, with the corrections that pilots get.
    pub scan: &'a CorrectedScan,
    /// How it was taken, after the binning that the config asks for.
    pub geometry: ScanGeometry,
    /// Detector row and binning of the geometry's first row.
    pub binned_from: (usize, usize),
    /// Rows of the geometry that become slices.
    pub slices: Range<usize>,
    /// Grid of the slices.
    pub grid: Grid,
    /// `[reconstruct]`
    pub config: &'a ReconstructConfig,
    /// Multiplies attenuation per pixel.
    pub scale: f64,
    /// Voxels farther from the axis \[px\] are outside one of the two fields of view.
    pub valid_radius: f64,
    /// Slices of a full-resolution block at a time.
    pub slab: usize,
    /// Slices of a pilot at a time; the pilots themselves are held beside them.
    pub pilot_slab: usize,
    /// Where the sample stands before anything is searched.
    pub start: Motion,
    /// The scan whose rows these go on as, as soon as it is known roughly where the sample stands.
    pub beyond: Option<Beyond<'a>>,
}

impl Target<'_> {
    /// A pilot binned by `binning`, on the reference grid moved by `motion`; NaN becomes 0.
    fn pilot(
        &self,
        binning: usize,
        motion: Motion,
        beyond: Option<Beyond<'_>>,
        device: &Device,
        progress: &Progress,
        name: &str,
    ) -> Result<Array3<f32>> {
        let n_slices = self.slices.len() / binning;
        let fine = self.grid.binned(binning);
        let b = binning as f64;
        let grid = Grid {
            x0: fine.x0 / b,
            y0: fine.y0 / b,
            step: 1.0,
            ..fine
        };
        let first_row = self.slices.start % binning;
        let first_slice = self.slices.start / binning;
        let geometry = self.geometry.binned(first_row, binning);
        let reference = beyond.map(|beyond| beyond.geometry.binned(first_row, binning));
        let beyond = beyond
            .zip(reference.as_ref())
            .map(|(beyond, geometry)| beyond.binned(first_row, binning, geometry));
        let config = self.fbp();
        let job = ScanJob {
            geometry: &geometry,
            slices: first_slice..first_slice + n_slices,
            middle_slice: middle_of(&(first_slice..first_slice + n_slices)),
            slab: self.pilot_slab,
            grid,
            motion: motion.binned(binning),
            config: &config,
            scale: self.scale / b,
            meter: None,
            beyond,
        };
        let stage = progress.stage(name, n_slices as u64, "slices");
        let (detector_row, own_binning) = self.binned_from;
        let mut scan = CountedScan::new(self.scan);
        let at_once = self.pilot_slab;
        let mut rows = BinnedRows::new(&mut scan, detector_row, own_binning, at_once);
        let mut source = BinnedRows::new(&mut rows, first_row, binning, at_once);
        collect(&job, &mut source, device, &stage)
    }

    /// A block of full-resolution slices on the reference grid; NaN becomes 0.
    fn block(
        &self,
        slices: Range<usize>,
        grid: Grid,
        motion: Motion,
        device: &Device,
        progress: &Progress,
    ) -> Result<Array3<f32>> {
        let rows = self.slices.start + slices.start..self.slices.start + slices.end;
        let config = self.fbp();
        let job = ScanJob {
            geometry: &self.geometry,
            slices: rows.clone(),
            middle_slice: middle_of(&self.slices),
            slab: self.slab,
            grid,
            motion,
            config: &config,
            scale: self.scale,
            meter: None,
            beyond: self.beyond,
        };
        let stage = progress.stage("refining the alignment", rows.len() as u64, "slices");
        let (detector_row, binning) = self.binned_from;
        let mut scan = CountedScan::new(self.scan);
        let mut source = BinnedRows::new(&mut scan, detector_row, binning, self.slab);
        collect(&job, &mut source, device, &stage)
    }

    fn fbp(&self) -> ReconstructConfig {
        ReconstructConfig {
            method: ReconstructMethod::Fbp,
            ..self.config.clone()
        }
    }
}

/// All slices of a job in memory, NaN as 0.
fn collect(
    job: &ScanJob<'_>,
    source: &mut dyn RowSource,
    device: &Device,
    stage: &Stage,
) -> Result<Array3<f32>> {
    let mut out = Array3::<f32>::zeros((job.slices.len(), job.grid.n_y, job.grid.n_x));
    job.run(source, device, stage, None, |z, slices, _| {
        out.slice_mut(s![z..z + slices.dim().0, .., ..])
            .assign(&slices.mapv(|v| if v.is_finite() { v } else { 0.0 }));
        Ok(())
    })?;
    Ok(out)
}

/// What says how the axis of the target stands against that of the reference, given the motion so far; see `match_axes`.
pub(super) type MatchAxes<'a> =
    dyn FnMut(&Target<'_>, &Motion, &mut Vec<String>) -> Result<Option<AxisCorrection>> + 'a;

/// The motion of `target` against the volume `reference`, and the record of how it was found.
///
/// `match_axes` is asked once the sample is found to within a voxel; what it says goes into the geometry of the target.
///
/// # Errors
/// Those of reading, reconstructing and registering.
pub(super) fn find_motion(
    reference: &dyn VolumeReader,
    target: &mut Target<'_>,
    binning: usize,
    config: &AlignConfig,
    match_axes: &mut MatchAxes<'_>,
    device: &Device,
    progress: &Progress,
) -> Result<(Motion, AlignmentRecord)> {
    if let Some(record) = align::by_hand(config) {
        let given = Motion::from_rotations(record.shift_voxel, record.rotation_deg);
        return Ok((target.start.followed_by(given), record));
    }
    let radius = |b: usize, motion: &Motion| {
        let shift = motion.reach_in_plane_px(target.slices.len());
        // two pixels of the rim carry the edge of the field of view, which does not move with the sample
        ((target.valid_radius - shift) / b as f64 - 2.0).max(2.0)
    };
    let start = target.start;
    let reference_pilot = bin_volume(reference, binning)?;
    let name = "pilot of the moved scan";
    let first = target.pilot(binning, start, None, device, progress, name)?;
    let mut pair = PilotPair {
        reference: reference_pilot,
        target: first,
        binning,
        radius: radius(binning, &start),
    };
    let mut record = register(&pair, config)?;
    let mut motion = start.followed_by(Motion::from_rotations(
        record.shift_voxel,
        record.rotation_deg,
    ));
    if record.confidence >= config.min_confidence {
        record.axis_correction = match_axes(target, &motion, &mut record.warnings)?;
    }
    if let Some(correction) = &record.axis_correction {
        target.geometry.correct_axis(correction, target.binned_from);
    }
    // on the reference grid only interpolation-free residuals are left; the first pilot makes room
    drop(std::mem::take(&mut pair.target));
    pair.target = target.pilot(
        binning,
        motion,
        target.beyond,
        device,
        progress,
        "pilot on the reference grid",
    )?;
    pair.radius = radius(binning, &motion);
    let fine = AlignConfig {
        search: 0.05_f64.min(config.search),
        ..config.clone()
    };
    let residual = register(&pair, &fine)?;
    motion = motion.followed_by(Motion::from_rotations(
        residual.shift_voxel,
        residual.rotation_deg,
    ));
    record.residual_after = residual.residual_after;
    record.confidence = residual.confidence;
    record.shift_err_voxel = residual.shift_err_voxel;
    let errors = record.rotation_err_deg.iter_mut();
    for (err, of_residual) in errors.zip(residual.rotation_err_deg) {
        // what is left may be too little to be looked for again
        if of_residual > 0.0 {
            *err = of_residual;
        }
    }
    record.per_height = residual.per_height;
    record.per_height_err = residual.per_height_err;
    record.per_octant = residual.per_octant;
    merge_warnings(&mut record.warnings, residual.warnings);
    // full-resolution blocks take their place
    drop(pair);
    if binning > 1 {
        motion = refine(
            reference,
            target,
            motion,
            config,
            &mut record,
            device,
            progress,
        )?;
    }
    let found = motion.relative_to(start);
    record.shift_voxel = found.shift_voxel();
    record.rotation_deg = found.rotation_deg();
    Ok((motion, record))
}

/// Compares two pilots in the room that making them leaves.
fn register(pair: &PilotPair, config: &AlignConfig) -> Result<AlignmentRecord> {
    allocator::release();
    align::register(pair, config)
}

fn merge_warnings(into: &mut Vec<String>, from: Vec<String>) {
    for warning in from {
        if !into.contains(&warning) {
            into.push(warning);
        }
    }
}

/// The tilt left over, from how the shifts of blocks (height, `[x, y, z]`, errors) change with their height: x by ry and y by -rx
/// per slice.
fn residual_tilt(blocks: &[(f64, [f64; 3], [f64; 3])]) -> [f64; 2] {
    let slope = |axis: usize| {
        let mut sums = [0.0; 5];
        for (z, shift, err) in blocks {
            let w = err[axis].max(1e-4).powi(-2);
            let terms = [w, w * z, w * z * z, w * shift[axis], w * z * shift[axis]];
            for (sum, term) in sums.iter_mut().zip(terms) {
                *sum += term;
            }
        }
        let [w, wz, wzz, ws, wzs] = sums;
        let spread = wzz * w - wz * wz;
        // one height has no slope
        if blocks.len() < 2 || spread <= 0.0 {
            0.0
        } else {
            (wzs * w - wz * ws) / spread
        }
    };
    [-slope(1), slope(0)]
}

/// Adds the residual motion of a few full-resolution blocks, weighted by their uncertainty.
fn refine(
    reference: &dyn VolumeReader,
    target: &Target<'_>,
    mut motion: Motion,
    config: &AlignConfig,
    record: &mut AlignmentRecord,
    device: &Device,
    progress: &Progress,
) -> Result<Motion> {
    let n_slices = target.slices.len();
    let (width_x, width_y) = (
        BLOCK_WIDTH.min(target.grid.n_x),
        BLOCK_WIDTH.min(target.grid.n_y),
    );
    let (x, y) = (
        (target.grid.n_x - width_x) / 2,
        (target.grid.n_y - width_y) / 2,
    );
    let grid = target.grid.crop(&(x..x + width_x), &(y..y + width_y));
    let fine = AlignConfig {
        search: 0.1_f64.min(config.search),
        // a block is too flat for it: the heights of several say it
        max_tilt_deg: 0.0,
        ..config.clone()
    };
    let mut at_heights = Vec::new();
    let mut sums = [[0.0; 2]; 4];
    for slices in blocks(n_slices) {
        let start = slices.start;
        let height = slices.len();
        let pair = PilotPair {
            reference: read_block(reference, slices.clone(), y..y + width_y, x..x + width_x)?,
            target: target.block(slices, grid, motion, device, progress)?,
            binning: 1,
            radius: target.valid_radius - motion.reach_in_plane_px(n_slices) - 2.0,
        };
        let found = register(&pair, &fine)?;
        if found.confidence < config.min_confidence {
            log::info!(
                "block at slice {start} says nothing about the alignment (confidence {:.2})",
                found.confidence
            );
            continue;
        }
        let middle = start as f64 + (height as f64 - 1.0) / 2.0;
        at_heights.push((
            middle - (n_slices as f64 - 1.0) / 2.0,
            found.shift_voxel,
            found.shift_err_voxel,
        ));
        let rotation_weight = found.shift_err_voxel[0]
            .hypot(found.shift_err_voxel[1])
            .max(1e-4)
            .powi(-2);
        let shifts = found.shift_voxel.iter().zip(&found.shift_err_voxel);
        for (sum, (shift, err)) in sums.iter_mut().zip(shifts) {
            let weight = err.max(1e-4).powi(-2);
            sum[0] += weight * shift;
            sum[1] += weight;
        }
        sums[3][0] += rotation_weight * found.rotation_deg[2];
        sums[3][1] += rotation_weight;
    }
    if sums[0][1] == 0.0 {
        record.warnings.push(
            "no full-resolution block held enough structure to refine the alignment; it rests on the binned pilots".into(),
        );
        return Ok(motion);
    }
    let mean = |k: usize| sums[k][0] / sums[k][1];
    let mut residual = Motion::from_alignment([mean(0), mean(1), mean(2)], mean(3));
    if motion.tilts() {
        residual.tilt_rad = residual_tilt(&at_heights);
    }
    motion = motion.followed_by(residual);
    for (err, sum) in record.shift_err_voxel.iter_mut().zip(&sums) {
        *err = err.min(sum[1].powf(-0.5));
    }
    Ok(motion)
}
