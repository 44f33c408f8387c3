//! One scan to slices: rows, slabs, reconstruction.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc;
use std::time::Instant;

use ndarray::{Array3, ArrayView3, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::config::ReconstructConfig;
use crate::correct::line_integrals::{CountSlab, Touched};
use crate::error::Result;
use crate::gpu::Device;
use crate::pipeline::beyond::{Beyond, Continuation, ReferenceRows, margin_px};
use crate::pipeline::geometry::ScanGeometry;
use crate::pipeline::rows::{RowSource, RowState, ShiftedRows, ShiftedSlab};
use crate::progress::{Meter, Stage};
use crate::reconstruct::acquisition::blend;
use crate::reconstruct::geometry::{Grid, InPlaneMotion};
use crate::reconstruct::{Reconstructor, SliceJob};
use crate::record::ValueRange;
use crate::scan::{Sinograms, reused};
use crate::stats;
use crate::stop;
use crate::threads;
use crate::trace::{Lane, Trace};

/// How the sample of a scan stands against its reference: in the slice plane, and along the height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Motion {
    /// In the slice plane.
    pub in_plane: InPlaneMotion,
    /// Slice z of the reference is row z + this \[px\].
    pub shift_z_px: f64,
    /// Pixels of this scan per voxel of the reference; acts about the axis and the middle row, before the shift.
    pub magnification: f64,
    /// Tilt about x and y \[rad\], before all of these, about the middle of the volume.
    pub tilt_rad: [f64; 2],
}

impl Default for Motion {
    fn default() -> Self {
        Motion {
            in_plane: InPlaneMotion::default(),
            shift_z_px: 0.0,
            magnification: 1.0,
            tilt_rad: [0.0; 2],
        }
    }
}

impl Motion {
    /// From an alignment: `[x, y, z]` \[voxel\] and the turn about the rotation axis \[degrees\].
    #[must_use]
    pub fn from_alignment(shift_voxel: [f64; 3], turn_deg: f64) -> Motion {
        Motion {
            in_plane: InPlaneMotion {
                shift_x_px: shift_voxel[0],
                shift_y_px: shift_voxel[1],
                rotation_rad: turn_deg.to_radians(),
            },
            shift_z_px: shift_voxel[2],
            ..Motion::default()
        }
    }

    /// From an alignment with all its rotations `[rx, ry, rz]` \[degrees\].
    #[must_use]
    pub fn from_rotations(shift_voxel: [f64; 3], rotation_deg: [f64; 3]) -> Motion {
        let [rx, ry, rz] = rotation_deg;
        Motion {
            tilt_rad: [rx.to_radians(), ry.to_radians()],
            ..Motion::from_alignment(shift_voxel, rz)
        }
    }

    /// `[rx, ry, rz]` \[degrees\]
    #[must_use]
    pub fn rotation_deg(&self) -> [f64; 3] {
        let [rx, ry] = self.tilt_rad;
        [rx, ry, self.in_plane.rotation_rad].map(f64::to_degrees)
    }

    /// Whether it tilts at all.
    #[must_use]
    pub fn tilts(&self) -> bool {
        self.tilt_rad != [0.0; 2]
    }

    /// What the tilt adds to the shift in the plane, x and y (down), at a height from the middle of the volume \[px\].
    #[must_use]
    pub fn in_plane_at(&self, height: f64) -> [f64; 2] {
        let [rx, ry] = self.tilt_rad;
        let (sin, cos) = self.in_plane.rotation_rad.sin_cos();
        let (dx, dy) = (ry * height, -rx * height);
        [cos * dx - sin * dy, sin * dx + cos * dy].map(|d| self.magnification * d)
    }

    /// Largest shift in the plane over a volume of `n_slices` \[px\].
    #[must_use]
    pub fn reach_in_plane_px(&self, n_slices: usize) -> f64 {
        let [x, y] = self.in_plane_at(n_slices as f64 / 2.0);
        self.shift_in_plane_px() + x.hypot(y)
    }

    /// The tilt as it is seen from a sample turned by `turn_rad` about the axis.
    fn turned_tilt(&self, turn_rad: f64) -> [f64; 2] {
        let [rx, ry] = self.tilt_rad;
        let (sin, cos) = turn_rad.sin_cos();
        [cos * rx + sin * ry, cos * ry - sin * rx]
    }

    /// This motion after a `residual` was found on a volume that was already put on the grid with this one.
    ///
    /// A point p of the reference was found at m' R' p + d there, which stands at m R (m' R' p + d) + s in the scan. Tilts are
    /// small, and followed to first order.
    #[must_use]
    pub fn followed_by(self, residual: Motion) -> Motion {
        let (sin, cos) = self.in_plane.rotation_rad.sin_cos();
        let [rx, ry] = self.tilt_rad;
        let [x, y, z] = residual.shift_voxel();
        let (dx, dy, dz) = (x + ry * z, y - rx * z, z + rx * y - ry * x);
        let turned = self.turned_tilt(residual.in_plane.rotation_rad);
        let m = self.magnification;
        Motion {
            in_plane: InPlaneMotion {
                shift_x_px: self.in_plane.shift_x_px + m * (cos * dx - sin * dy),
                shift_y_px: self.in_plane.shift_y_px + m * (sin * dx + cos * dy),
                rotation_rad: self.in_plane.rotation_rad + residual.in_plane.rotation_rad,
            },
            shift_z_px: self.shift_z_px + m * dz,
            magnification: m * residual.magnification,
            tilt_rad: [0, 1].map(|k| turned[k] + residual.tilt_rad[k]),
        }
    }

    /// The same motion but for its scale.
    #[must_use]
    pub fn magnified(self, magnification: f64) -> Motion {
        Motion {
            magnification,
            ..self
        }
    }

    /// The motion that gives this one when it follows `start`, which does not tilt.
    #[must_use]
    pub fn relative_to(&self, start: Motion) -> Motion {
        debug_assert!(!start.tilts(), "grids are placed upright");
        let m = start.magnification;
        let (sin, cos) = start.in_plane.rotation_rad.sin_cos();
        let dx = (self.in_plane.shift_x_px - start.in_plane.shift_x_px) / m;
        let dy = (self.in_plane.shift_y_px - start.in_plane.shift_y_px) / m;
        Motion {
            in_plane: InPlaneMotion {
                shift_x_px: cos * dx + sin * dy,
                shift_y_px: -sin * dx + cos * dy,
                rotation_rad: self.in_plane.rotation_rad - start.in_plane.rotation_rad,
            },
            shift_z_px: (self.shift_z_px - start.shift_z_px) / m,
            magnification: self.magnification / m,
            tilt_rad: self.tilt_rad,
        }
    }

    /// Length of the shift in the slice plane \[px\].
    #[must_use]
    pub fn shift_in_plane_px(&self) -> f64 {
        self.in_plane.shift_x_px.hypot(self.in_plane.shift_y_px)
    }

    /// `[x, y, z]` \[voxel\]
    #[must_use]
    pub fn shift_voxel(&self) -> [f64; 3] {
        [
            self.in_plane.shift_x_px,
            self.in_plane.shift_y_px,
            self.shift_z_px,
        ]
    }

    /// The same motion in voxels `binning` times larger.
    #[must_use]
    pub fn binned(self, binning: usize) -> Motion {
        let scale = 1.0 / binning as f64;
        Motion {
            in_plane: InPlaneMotion {
                shift_x_px: self.in_plane.shift_x_px * scale,
                shift_y_px: self.in_plane.shift_y_px * scale,
                ..self.in_plane
            },
            shift_z_px: self.shift_z_px * scale,
            magnification: self.magnification,
            tilt_rad: self.tilt_rad,
        }
    }
}

/// What to reconstruct of a scan; lengths in pixels of the rows that the source gives.
#[derive(Clone)]
pub struct ScanJob<'a> {
    /// How the scan was taken.
    pub geometry: &'a ScanGeometry,
    /// Slices, as rows of the reference.
    pub slices: Range<usize>,
    /// Middle of the whole volume, as a row of the reference: tilts are about it.
    pub middle_slice: f64,
    /// Slices at a time.
    pub slab: usize,
    /// The voxels of a slice.
    pub grid: Grid,
    /// Motion against the reference.
    pub motion: Motion,
    /// `[reconstruct]`
    pub config: &'a ReconstructConfig,
    /// Multiplies attenuation per pixel.
    pub scale: f64,
    /// What counts the time; `None` for pilots, which belong to the alignment.
    pub meter: Option<&'a Meter>,
    /// The scan whose rows these go on as beyond the detector; `None`: they go on by themselves.
    pub beyond: Option<Beyond<'a>>,
}

impl ScanJob<'_> {
    /// What one slice takes.
    #[must_use]
    pub fn slice_job(&self) -> SliceJob {
        let geometry = self.geometry;
        let config = geometry.field.widen(self.config, geometry.n_cols);
        let rays = geometry.rays(&self.motion);
        let job = SliceJob {
            support: geometry.support(),
            ..SliceJob::new(geometry.n_cols, rays, self.grid, &config, self.scale)
        };
        job.widened(self.margin_px())
    }

    /// Columns that its rows gain on either side, see [`crate::pipeline::beyond`].
    #[must_use]
    pub fn margin_px(&self) -> usize {
        self.beyond.map_or(0, |beyond| {
            margin_px(&beyond, self.geometry, &self.motion, &self.slices)
        })
    }

    /// Why the line integrals are wanted on the host.
    fn off_device(&self) -> Option<String> {
        let half = self.geometry.field.half;
        let half = half.then(|| "half acquisition is blended on the CPU".into());
        let wide = || "rows go on as those of the reference, on the CPU".into();
        half.or_else(|| (self.margin_px() > 0).then(wide))
    }

    /// Reconstructs slab by slab; `consume` gets the index of the first slice (0 at `slices.start`), the slices, and how
    /// far the job is with them. Slices above or below the detector are NaN.
    ///
    /// Rows of the next slab are read and corrected, and slices of the last one consumed, while this one is
    /// reconstructed: two slabs of rows and two of slices are held. A job that is given a state of an earlier one goes
    /// on behind it, and ends with the same numbers as if it had never stopped.
    ///
    /// # Errors
    /// Those of the source, the device and `consume`; [`crate::Error::Interrupted`].
    pub fn run(
        &self,
        source: &mut dyn RowSource,
        device: &Device,
        stage: &Stage,
        from: Option<JobState>,
        consume: impl FnMut(usize, ArrayView3<'_, f32>, &JobState) -> Result<()> + Send,
    ) -> Result<Reconstructed> {
        if self.motion.tilts() {
            return super::tilt::run(self, source, device, stage, from, consume);
        }
        let mut reconstructor = Reconstructor::new(self.slice_job(), device)?;
        let mut state = from.unwrap_or_else(|| JobState::start(&self.slices));
        source.restore(&state.rows);
        stage.inc(state.slices as u64);
        let heights = self.geometry.heights(&self.motion);
        let mut rows = ShiftedRows::new(source, heights, self.geometry.n_cols);
        let margin = self.margin_px();
        let mut reference = self.beyond.map(ReferenceRows);
        let beyond = match (&self.beyond, &mut reference) {
            (Some(beyond), Some(rows)) if margin > 0 => Some(Continuation::new(
                beyond,
                rows,
                beyond.geometry.heights(&beyond.motion),
                self.geometry,
                heights,
                &self.motion,
                margin,
            )),
            _ => None,
        };
        let method = reconstructor.describe();
        let slab_rows = self.slab.min(self.slices.len()).max(1);
        let mut slabs: VecDeque<Range<usize>> = (self.slices.start + state.slices..self.slices.end)
            .step_by(slab_rows)
            .map(|start| start..(start + slab_rows).min(self.slices.end))
            .collect();
        let first = match slabs.front() {
            Some(slices) if self.off_device().is_none() => {
                first_counts(&mut reconstructor, &mut rows, slices)?
            }
            _ => None,
        };
        if first.is_some() {
            slabs.pop_front();
        }
        let (to_reconstruct, prepared) = mpsc::sync_channel(0);
        let (to_consume, finished) = mpsc::sync_channel(0);
        // slabs go back to where they were filled: fresh memory costs a page fault per 4 KiB
        let (rows_back, used_rows) = mpsc::channel();
        let (slices_back, used_slices) = mpsc::channel();
        let reuse = Reuse {
            rows: rows_back,
            slices: used_slices,
        };
        let mut rows = std::thread::scope(|scope| {
            let producer = scope.spawn(|| {
                on_own_threads(|| {
                    prepare(
                        (rows, beyond),
                        first,
                        slabs,
                        self.meter,
                        to_reconstruct,
                        used_rows,
                        stage.trace(),
                    )
                })
            });
            let consumer = scope.spawn(|| {
                on_own_threads(|| consume_all(finished, slices_back, consume, stage.trace()))
            });
            let worked = self.reconstruct(
                &mut reconstructor,
                prepared,
                &to_consume,
                reuse,
                &mut state,
                stage,
            );
            drop(to_consume);
            let consumed = consumer
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let rows = producer
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // where the consumer failed, the work ended because of that
            consumed.and(worked).map(|()| rows)
        })?;
        if let Some(meter) = self.meter {
            for spent in reconstructor.spent() {
                meter.add(spent.name, spent.time, 0, spent.updates);
            }
        }
        rows.touched(state.touched);
        Ok(state.finish(&self.slices, method))
    }

    /// The middle of the three: rows in, slices out. Ends early, without an error of its own, where nobody takes them.
    fn reconstruct(
        &self,
        reconstructor: &mut Reconstructor,
        prepared: mpsc::Receiver<Result<Prepared>>,
        to_consume: &mpsc::SyncSender<Finished>,
        reuse: Reuse,
        state: &mut JobState,
        stage: &Stage,
    ) -> Result<()> {
        let margin = self.margin_px() as f64;
        for next in prepared {
            let Prepared {
                slices,
                covered,
                load,
                rows,
            } = next?;
            let shape = [slices.len(), self.grid.n_y, self.grid.n_x];
            // every voxel is written below, so it does not matter what stands there
            let mut volume = reused(reuse.slices.try_recv().ok(), shape);
            if covered.len() < slices.len() {
                volume.fill(f32::NAN);
            }
            if !covered.is_empty() {
                let heights = self.geometry.heights(&self.motion);
                let axis_px: Vec<f64> = covered
                    .clone()
                    .map(|z| self.geometry.axis.at(heights.row(z as f64)) + margin)
                    .collect();
                let part = covered.start - slices.start..covered.end - slices.start;
                let out = volume.slice_mut(s![part.clone(), .., ..]);
                match load {
                    Load::Integrals(mut sinograms) => {
                        if self.geometry.field.half {
                            let x_px = heights.shifts.map_or(&[][..], |shifts| &shifts.x_px);
                            blend(sinograms.view_mut(), &axis_px, x_px);
                        }
                        reconstructor.slab(sinograms.view(), &axis_px, out)?;
                        // where nobody takes it any more, it goes
                        let _ = reuse.rows.send(sinograms);
                    }
                    Load::Counts(counts) => {
                        reconstructor.takes(&counts)?;
                        state.touched += reconstructor.slab_of_counts(&counts, &axis_px, out)?;
                    }
                }
                state.range.add(volume.slice(s![part, .., ..]));
                state.covered = [
                    state.covered[0].min(covered.start),
                    state.covered[1].max(covered.end),
                ];
            }
            state.slices = slices.end - self.slices.start;
            state.rows = rows;
            let first = slices.start - self.slices.start;
            if to_consume.send((first, volume, state.clone())).is_err() {
                break;
            }
            stage.inc(slices.len() as u64);
        }
        Ok(())
    }
}

/// Does `work` with as many threads as there are, but its own; with those that there are where these are fewer than the cores, as no more of them
/// are to be at work then (`run.threads`).
///
/// What is handed to the threads of another stage waits until these find nothing else to do: rows would not be corrected, nor slices written,
/// before the slab between them is reconstructed, and then that stage would wait for them.
fn on_own_threads<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if threads::are_fewer_than_cores() {
        return work();
    }
    let threads = rayon::current_num_threads();
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(own) => own.install(work),
        Err(error) => {
            log::debug!("no threads of their own for rows or slices: {error}");
            work()
        }
    }
}

/// Slabs that were used up.
struct Reuse {
    /// Line integrals, back to where rows are corrected.
    rows: mpsc::Sender<Sinograms>,
    /// Slices that were consumed.
    slices: mpsc::Receiver<Array3<f32>>,
}

/// Rows of a slab, ready to be reconstructed.
struct Prepared {
    slices: Range<usize>,
    /// Those of them that have data.
    covered: Range<usize>,
    load: Load,
    /// What the source had counted then.
    rows: RowState,
}

/// What goes into the reconstruction of a slab.
enum Load {
    /// Corrected already.
    Integrals(Sinograms),
    /// To be corrected on the GPU.
    Counts(Box<CountSlab>),
}

/// Counts of the first slab, where the GPU takes them; nothing where rows are corrected on the CPU. Decided once for
/// all slabs: none needs more memory than the first.
fn first_counts(
    reconstructor: &mut Reconstructor,
    rows: &mut ShiftedRows<'_>,
    slices: &Range<usize>,
) -> Result<Option<Prepared>> {
    if let Some(reason) = reconstructor.off_device().or_else(|| rows.off_device()) {
        log::debug!("corrections on the CPU: {reason}");
        return Ok(None);
    }
    let before = rows.state();
    let prepared = count(rows, slices.clone())?;
    if let Load::Counts(counts) = &prepared.load
        && let Err(error) = reconstructor.takes(counts)
    {
        log::warn!("corrections on the CPU: {error}");
        rows.restore(&before);
        return Ok(None);
    }
    Ok(Some(prepared))
}

/// Counts of a slab; where it has no data, no line integrals instead.
fn count(rows: &mut ShiftedRows<'_>, slices: Range<usize>) -> Result<Prepared> {
    let (covered, counts) = rows.counts(slices.clone())?;
    Ok(Prepared {
        slices,
        covered,
        load: match counts {
            Some(counts) => Load::Counts(Box::new(counts)),
            None => Load::Integrals(Array3::zeros((0, 0, 0))),
        },
        rows: rows.state(),
    })
}

fn correct(
    rows: &mut ShiftedRows<'_>,
    beyond: &mut Option<Continuation<'_>>,
    slices: Range<usize>,
    used: Option<Sinograms>,
    meter: Option<&Meter>,
) -> Result<Prepared> {
    let (started, before) = (Instant::now(), rows.in_source());
    let slab = match beyond {
        None => rows.slab(slices.clone(), used)?,
        Some(beyond) => {
            let slab = rows.slab(slices.clone(), beyond.spare.take())?;
            if slab.covered.is_empty() {
                slab
            } else {
                let plane = vec![[0.0; 2]; slab.covered.len()];
                let wide = beyond.widen(&slab.covered, &slab.sinograms, &plane, used)?;
                beyond.spare = Some(slab.sinograms);
                ShiftedSlab {
                    covered: slab.covered,
                    sinograms: wide,
                }
            }
        }
    };
    if let Some(meter) = meter {
        let in_source = rows.in_source().saturating_sub(before);
        let own = started.elapsed().saturating_sub(in_source);
        meter.add("place rows", own, 4 * slab.sinograms.len() as u64, 0);
    }
    Ok(Prepared {
        slices,
        covered: slab.covered,
        load: Load::Integrals(slab.sinograms),
        rows: rows.state(),
    })
}

/// Reads, and where the GPU does not do it corrects, one slab after the other, until nobody takes them.
fn prepare<'a>(
    (mut rows, mut beyond): (ShiftedRows<'a>, Option<Continuation<'_>>),
    first: Option<Prepared>,
    slabs: VecDeque<Range<usize>>,
    meter: Option<&Meter>,
    to: mpsc::SyncSender<Result<Prepared>>,
    used: mpsc::Receiver<Sinograms>,
    trace: &Trace,
) -> ShiftedRows<'a> {
    let on_device = first.is_some();
    if first.is_some_and(|first| to.send(Ok(first)).is_err()) {
        return rows;
    }
    for slices in slabs {
        let span = trace.span(Lane::Read, "rows");
        let slab = stop::check().and_then(|()| match on_device {
            true => count(&mut rows, slices),
            false => correct(&mut rows, &mut beyond, slices, used.try_recv().ok(), meter),
        });
        drop(span);
        let failed = slab.is_err();
        if to.send(slab).is_err() || failed {
            break;
        }
    }
    rows
}

/// First slice, slices, and how far the job is with them.
type Finished = (usize, Array3<f32>, JobState);

fn consume_all(
    finished: mpsc::Receiver<Finished>,
    back: mpsc::Sender<Array3<f32>>,
    mut consume: impl FnMut(usize, ArrayView3<'_, f32>, &JobState) -> Result<()>,
    trace: &Trace,
) -> Result<()> {
    for (first, slices, state) in finished {
        let _span = trace.span(Lane::Write, "slices");
        consume(first, slices.view(), &state)?;
        // after the last slab nobody waits for it
        let _ = back.send(slices);
    }
    Ok(())
}

/// How far a job has come: enough to go on behind it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobState {
    /// Slices done, from the first of the job on.
    slices: usize,
    range: RangeSum,
    /// First and last slice with data, plus one.
    covered: [usize; 2],
    rows: RowState,
    /// Touched by the corrections on the GPU, which the source does not see.
    #[serde(flatten)]
    touched: Touched,
}

impl JobState {
    /// Nothing done yet.
    pub(super) fn start(slices: &Range<usize>) -> JobState {
        JobState {
            slices: 0,
            range: RangeSum::default(),
            covered: [slices.end, slices.start],
            rows: RowState::default(),
            touched: Touched::default(),
        }
    }

    /// Slices done so far.
    pub(super) fn slices(&self) -> usize {
        self.slices
    }

    /// What the source had counted.
    pub(super) fn rows(&self) -> &RowState {
        &self.rows
    }

    /// Slice `z` has data.
    pub(super) fn cover(&mut self, z: usize) {
        self.covered = [self.covered[0].min(z), self.covered[1].max(z + 1)];
    }

    /// `slices` are done up to `done` (from the first of the job on), with what the source had counted then.
    pub(super) fn advance(&mut self, slices: ArrayView3<'_, f32>, done: usize, rows: RowState) {
        self.range.add(slices);
        self.slices = done;
        self.rows = rows;
    }

    /// All of the job's `slices` are done.
    pub(super) fn finish(self, slices: &Range<usize>, method: String) -> Reconstructed {
        let [first, end] = self.covered;
        Reconstructed {
            range: self.range.finish(),
            covered: if first >= end {
                0..0
            } else {
                first - slices.start..end - slices.start
            },
            method,
        }
    }
}

/// What came out of a reconstruction beside the slices.
#[derive(Debug, Clone)]
pub struct Reconstructed {
    /// Values of the volume.
    pub range: ValueRange,
    /// Slices that have data, from 0.
    pub covered: Range<usize>,
    /// Method, filter, device.
    pub method: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct RangeSum {
    sum: f64,
    count: u64,
    not_finite: u64,
    bounds: Option<(f32, f32)>,
}

impl RangeSum {
    /// Voxels that are summed apart from others; what the parts give is added in their order, so that neither slabs nor
    /// threads change the sum, and rounding grows with the number of parts, not of voxels.
    const PART: usize = 1 << 14;

    fn add(&mut self, slices: ArrayView3<'_, f32>) {
        for slice in slices.outer_iter() {
            let voxels = slice
                .as_slice()
                .expect("a slice of a fresh array is contiguous");
            let parts: Vec<RangeSum> = voxels.par_chunks(Self::PART).map(Self::of_part).collect();
            parts.iter().for_each(|part| self.merge(part));
        }
    }

    /// In lanes that do not wait for one another.
    fn of_part(voxels: &[f32]) -> RangeSum {
        const LANES: usize = 16;
        let (mut sums, mut counts) = ([0f64; LANES], [0u32; LANES]);
        let mut note = |voxels: &[f32]| {
            for ((&voxel, sum), count) in voxels.iter().zip(&mut sums).zip(&mut counts) {
                *sum += f64::from(if voxel.is_finite() { voxel } else { 0.0 });
                *count += u32::from(voxel.is_finite());
            }
        };
        let (whole, rest) = voxels.as_chunks::<LANES>();
        whole.iter().for_each(|voxels| note(voxels));
        note(rest);
        let count = counts.iter().map(|&count| u64::from(count)).sum();
        let [low, high] = stats::bounds(voxels);
        RangeSum {
            sum: sums.iter().sum(),
            count,
            not_finite: voxels.len() as u64 - count,
            bounds: (count > 0).then_some((low, high)),
        }
    }

    fn merge(&mut self, part: &RangeSum) {
        self.sum += part.sum;
        self.count += part.count;
        self.not_finite += part.not_finite;
        self.bounds = match (self.bounds, part.bounds) {
            (Some(own), Some(other)) => Some((own.0.min(other.0), own.1.max(other.1))),
            (own, other) => own.or(other),
        };
    }

    fn finish(self) -> ValueRange {
        let (min, max) = self.bounds.unwrap_or((0.0, 0.0));
        ValueRange {
            min: f64::from(min),
            max: f64::from(max),
            mean: self.sum / self.count.max(1) as f64,
            not_finite: self.not_finite,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_more_voxels_than_f32_counts_is_exact_and_slabs_do_not_matter() {
        // 2^24 + 1 is the first count that f32 cannot hold; a sum kept in f32 would stop growing there
        let part = RangeSum {
            sum: 16_777_216.0,
            count: 1 << 24,
            not_finite: 0,
            bounds: Some((1.0, 1.0)),
        };
        let mut all = RangeSum::default();
        // 10^10 voxels of value 1, the last of them 2
        for _ in 0..596 {
            all.merge(&part);
        }
        let last = RangeSum::of_part(&[2.0, f32::NAN, f32::INFINITY, f32::from_bits(1)]);
        all.merge(&last);
        assert_eq!(all.count, 596 * (1 << 24) + 2);
        assert!(all.count > u64::from(u32::MAX));
        let range = all.clone().finish();
        assert_eq!((range.max, range.not_finite), (2.0, 2));
        assert_eq!(
            range.min,
            f64::from(f32::from_bits(1)),
            "a denormal is a value"
        );
        let expected = (596.0 * f64::from(1u32 << 24) + 2.0) / all.count as f64;
        assert!((range.mean - expected).abs() < 1e-15, "{}", range.mean);

        let slices = Array3::from_shape_fn((7, 290, 301), |(z, y, x)| {
            ((z * 77 + y * 13 + x) as f32).sin() * 1e3
        });
        let by = |step: usize| {
            let mut sum = RangeSum::default();
            for z in (0..7).step_by(step) {
                sum.add(slices.slice(ndarray::s![z..(z + step).min(7), .., ..]));
            }
            sum.finish()
        };
        assert_eq!(by(1), by(7));
        assert_eq!(by(3), by(7));
        let exact = slices.iter().map(|&v| f64::from(v)).sum::<f64>() / slices.len() as f64;
        assert!((by(1).mean - exact).abs() < 1e-9);
    }

    #[test]
    fn motions_compose_as_points_move() {
        let first = Motion::from_alignment([2.0, -1.0, 3.0], 10.0).magnified(1.02);
        let residual = Motion::from_alignment([0.5, 0.25, -0.5], -2.0).magnified(0.99);
        let apply = |m: &Motion, p: [f64; 2]| {
            let (sin, cos) = m.in_plane.rotation_rad.sin_cos();
            let s = m.magnification;
            [
                s * (cos * p[0] - sin * p[1]) + m.in_plane.shift_x_px,
                s * (sin * p[0] + cos * p[1]) + m.in_plane.shift_y_px,
            ]
        };
        let both = first.followed_by(residual);
        let again = both.relative_to(first);
        assert!(
            (again.shift_voxel()[0] - 0.5).abs() < 1e-12
                && (again.shift_voxel()[1] - 0.25).abs() < 1e-12
        );
        let point = [7.0, 11.0];
        let (one, two) = (apply(&both, point), apply(&first, apply(&residual, point)));
        assert!((one[0] - two[0]).abs() < 1e-12 && (one[1] - two[1]).abs() < 1e-12);
        // z: 1.02 (0.99 z - 0.5) + 3
        assert!((both.shift_z_px - 2.49).abs() < 1e-12);
        assert!((both.magnification - 1.02 * 0.99).abs() < 1e-12);
    }
}
