//! Filtered back-projection on the CPU.
//!
//! f(x, y) = sum over angles of arc * q(offset + x cos + y sin), q the filtered row of [`super::filter`], linearly interpolated
//! between its (upsampled) samples. Kak & Slaney (1988), section 3.3.
//!
//! Where the speed comes from: 4 to 32 slices are interleaved, so that what a voxel reads is one contiguous load for all
//! of them and its place is computed once; the slice is cut into tiles whose sums and samples stay in the
//! second-level cache; sixteen angles are added per pass with the sums in registers. A block of angles is filtered at a time:
//! neither a filtered scan nor an interleaved slab is ever held.
//!
//! Every voxel adds its angles in the same order with the same operations, whatever the number of slices, tiles, blocks and threads,
//! so results are the same bit for bit.

mod interleave;
pub(crate) mod kernel;
mod rows;
pub(crate) mod simd;

use std::ops::Range;
use std::time::{Duration, Instant};

use ndarray::{ArrayView3, ArrayViewMut3, Axis, s};
use rayon::prelude::*;

use super::filter::FilterPlan;
use super::geometry::{Grid, Ray};
use super::{SliceJob, inside};
use crate::error::Result;
use kernel::{ANGLES, Lines, RUN, Segment, Table};
use rows::{Buffer, RowFilter};
use simd::Level;

/// Columns and rows of a tile: its sums for 32 slices are half a megabyte.
const TILE: (usize, usize) = (64, 64);
/// A block of filtered angles takes as much memory as the slices that it is added to, within these \[bytes\]: each
/// block reads and writes all of them once. It is never shorter than [`ANGLES`] angles.
const BLOCK_BYTES: (usize, usize) = (32 << 20, 256 << 20);

/// Filtered back-projection of slabs.
pub(crate) struct CpuFbp {
    filter: RowFilter,
    rays: Vec<Ray>,
    grid: Grid,
    mask_radius_px: Option<f64>,
    level: Level,
    block: Buffer,
}

impl CpuFbp {
    /// Plans the filter; takes the instruction set of [`Level::chosen`].
    ///
    /// # Errors
    /// Those of [`FilterPlan::new`] and of [`Level::chosen`].
    pub(crate) fn new(job: &SliceJob) -> Result<Self> {
        Self::with_level(job, Level::chosen()?)
    }

    /// The same with a given instruction set.
    ///
    /// # Errors
    /// Those of [`FilterPlan::new`].
    pub(crate) fn with_level(job: &SliceJob, level: Level) -> Result<Self> {
        let plan = FilterPlan::new(job)?;
        let weights = job.rays.iter().map(|ray| ray.weight as f32).collect();
        Ok(CpuFbp {
            filter: RowFilter::new(plan, weights),
            rays: job.rays.clone(),
            grid: job.grid,
            mask_radius_px: job.mask_radius_px,
            level,
            block: Buffer::default(),
        })
    }

    /// Slices `[z, y, x]` of sinograms `[row, angle, col]`; the shapes were checked by the caller. Gives the time of the filter.
    pub(crate) fn slab(
        &mut self,
        sinograms: ArrayView3<'_, f32>,
        axis_px: &[f64],
        mut out: ArrayViewMut3<'_, f32>,
    ) -> Duration {
        let mut filtering = Duration::ZERO;
        let mut start = 0;
        while start < axis_px.len() {
            let slices = interleaved(self.level, axis_px.len() - start);
            let end = (start + slices).min(axis_px.len());
            filtering += self.group(
                sinograms.slice(s![start..end, .., ..]),
                &axis_px[start..end],
                out.slice_mut(s![start..end, .., ..]),
                slices,
            );
            start = end;
        }
        filtering
    }

    /// Host memory beside the arguments of a slab of `rows` \[bytes\].
    pub(crate) fn scratch_bytes(&self, rows: usize) -> u64 {
        let slices = interleaved(self.level, rows);
        let plan = &self.filter.plan;
        let block = self.block_angles(slices) * self.filter.stride(slices) * 4;
        let multipliers = slices * (plan.n_fft / 2 + 1) * 8;
        let thread = self
            .filter
            .workspace_bytes(slices)
            .max(TILE.0 * TILE.1 * slices * 4);
        (block + multipliers + thread * rayon::current_num_threads()) as u64
    }

    /// For the record.
    pub(crate) fn describe(&self) -> String {
        let plan = &self.filter.plan;
        format!(
            "filtered back-projection on the CPU ({}), rows extended to {}, {} samples per pixel",
            self.level.name(),
            plan.n_fft,
            plan.upsample
        )
    }

    /// Angles filtered at a time, a multiple of [`ANGLES`].
    fn block_angles(&self, slices: usize) -> usize {
        let bytes =
            (slices * self.grid.n_x * self.grid.n_y * 4).clamp(BLOCK_BYTES.0, BLOCK_BYTES.1);
        let fit = bytes / (self.filter.stride(slices) * 4);
        (fit / ANGLES * ANGLES).clamp(ANGLES, self.rays.len().next_multiple_of(ANGLES))
    }

    fn group(
        &mut self,
        sinograms: ArrayView3<'_, f32>,
        axis_px: &[f64],
        mut out: ArrayViewMut3<'_, f32>,
        slices: usize,
    ) -> Duration {
        let multipliers: Vec<_> = axis_px
            .iter()
            .map(|&axis| self.filter.plan.multiplier(axis))
            .collect();
        let (stride, angles) = (self.filter.stride(slices), self.block_angles(slices));
        let mut block = std::mem::take(&mut self.block);
        let mut filtering = Duration::ZERO;
        for first in (0..self.rays.len()).step_by(angles) {
            let n = angles.min((self.rays.len() - first).next_multiple_of(ANGLES));
            let samples = block.at_least(n * stride);
            let started = Instant::now();
            self.filter
                .block(sinograms, &multipliers, first, slices, samples);
            filtering += started.elapsed();
            let samples = &block.as_slice()[..n * stride];
            tiles(out.view_mut()).into_par_iter().for_each_init(
                Buffer::default,
                |sums, (x, y, out)| {
                    self.tile(
                        samples,
                        first,
                        slices,
                        x,
                        y,
                        sums.at_least(TILE.0 * TILE.1 * slices),
                        out,
                    )
                },
            );
        }
        self.block = block;
        filtering
    }

    /// Adds a block of filtered angles, the first of which is `first`, to the voxels of one tile.
    fn tile(
        &self,
        samples: &[f32],
        first: usize,
        slices: usize,
        x: usize,
        y: usize,
        sums: &mut [f32],
        mut out: ArrayViewMut3<'_, f32>,
    ) {
        let (n_z, n_y, n_x) = out.dim();
        let rows_inside: Vec<Range<usize>> = (0..n_y)
            .map(|j| inside(&self.grid, self.mask_radius_px, y + j, x, n_x))
            .collect();
        if rows_inside.iter().all(Range::is_empty) {
            if first == 0 {
                out.fill(0.0);
            }
            return;
        }
        if first == 0 || n_z < slices {
            sums.fill(0.0);
        }
        if first > 0 {
            interleave::take(out.view(), sums, slices, TILE.0);
        }
        let mut table = Table::new();
        let stride = self.filter.stride(slices);
        let n_samples = self.filter.plan.n_out;
        for (pass, samples) in samples.chunks(ANGLES * stride).enumerate() {
            let lines = lines(
                &self.rays,
                first + pass * ANGLES,
                &self.filter.plan,
                self.grid.step,
            );
            // runs of one column of the tile before the next: the samples that they meet stay in the first-level cache
            for run in (0..n_x).step_by(RUN) {
                for j in 0..n_y {
                    let from = rows_inside[j].start.max(run);
                    let to = rows_inside[j].end.min(run + RUN);
                    if from < to {
                        let segment = Segment {
                            samples,
                            stride,
                            n_samples,
                            lines: &lines,
                            x: self.grid.x0 + (x + run) as f64 * self.grid.step,
                            y: self.grid.y0 - (y + j) as f64 * self.grid.step,
                            voxels: from - run..to - run,
                        };
                        let at = (j * TILE.0 + from) * slices;
                        self.level.accumulate(
                            slices,
                            &segment,
                            &mut table,
                            &mut sums[at..(j * TILE.0 + to) * slices],
                        );
                    }
                }
            }
        }
        interleave::give(sums, out, slices, TILE.0);
    }
}

/// Projections `first..` as the kernel wants them; beyond the last one the samples are 0 and may be read anywhere.
fn lines(rays: &[Ray], first: usize, plan: &FilterPlan, step: f64) -> Lines {
    let upsample = plan.upsample as f64;
    let zero = [0.0; ANGLES];
    let mut lines = Lines {
        at_axis: zero,
        along_x: zero,
        along_y: zero,
        step: [0.0; ANGLES],
        back: zero,
    };
    for (angle, ray) in rays.iter().skip(first).take(ANGLES).enumerate() {
        lines.at_axis[angle] = (ray.offset_px - plan.t0) * upsample;
        lines.along_x[angle] = ray.cos * upsample;
        lines.along_y[angle] = ray.sin * upsample;
        lines.step[angle] = (ray.cos * upsample * step) as f32;
        if lines.step[angle] < 0.0 {
            lines.back[angle] = (RUN - 1) as f64 * step;
        }
    }
    lines
}

/// Slices interleaved when this many are left.
fn interleaved(level: Level, left: usize) -> usize {
    let narrow = match left {
        0..=4 => 4,
        5..=8 => 8,
        9..=16 => 16,
        // one pass of 16 and a narrow one cost less than 32 lanes that are half empty
        17..=24 => 16,
        _ => 32,
    };
    narrow.min(level.widest())
}

/// Cuts the slab `[z, y, x]` into tiles over y and x, each with the column and row where it begins.
fn tiles(out: ArrayViewMut3<'_, f32>) -> Vec<(usize, usize, ArrayViewMut3<'_, f32>)> {
    let mut tiles = Vec::new();
    let mut below = out;
    let mut y = 0;
    while below.len_of(Axis(1)) > 0 {
        let height = TILE.1.min(below.len_of(Axis(1)));
        let (mut band, rest) = below.split_at(Axis(1), height);
        below = rest;
        let mut x = 0;
        while band.len_of(Axis(2)) > 0 {
            let width = TILE.0.min(band.len_of(Axis(2)));
            let (tile, rest) = band.split_at(Axis(2), width);
            band = rest;
            tiles.push((x, y, tile));
            x += width;
        }
        y += height;
    }
    tiles
}
