//! The corrections on the GPU: parameters, CPU twin, launch.
//!
//! Counts of 8 or 16 bits, flat and dark fields in any mode, bad pixels, zingers and minus-log run there; what else is chosen keeps a
//! scan on the CPU, and [`off_device`] says why. Integer counts are finite, so a sample has no value only where its
//! pixel is bad: which columns stand in for it is known before any projection is read.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use ndarray::{Array3, ArrayView3, s};
use serde_json::json;

use super::{CorrectedScan, CorrectionCounts};
use crate::config::{
    BeamDrift, CorrectConfig, OutlierKind, PhaseMethod, StripeMethod, ZingerDomain,
};
use crate::error::{Error, Result};
use crate::gpu::{Batch, Gpu, Kernel};
use crate::scan::{PixelType, Scan};

/// The shader.
pub const SOURCE: &str = include_str!("../../shaders/line_integrals.wgsl");
/// A detector row without any good column.
const LOST: u32 = u32::MAX;

/// Parameters of both entry points.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct LineIntegralParams {
    /// Detector rows of this step.
    pub n_rows: u32,
    /// Detector columns.
    pub n_cols: u32,
    /// First angle in the counts, as a projection of the scan.
    pub first_held: u32,
    /// Angles in the counts.
    pub n_held: u32,
    /// First angle wanted, as a projection of the scan.
    pub first_wanted: u32,
    /// Angles wanted.
    pub n_wanted: u32,
    /// Projections of the scan.
    pub n_angles: u32,
    /// Open beams; 0: counts are transmission already.
    pub n_groups: u32,
    /// Distance of a zinger's neighbours; 0: zingers are left.
    pub zinger_size: u32,
    /// 1 + threshold.
    pub zinger_limit: f32,
    /// Least transmission.
    pub min_transmission: f32,
    /// Fills up the last 16 bytes.
    pub unused: u32,
}

/// Why the corrections of this scan stay on the CPU; `None`: they run on the GPU.
#[must_use]
pub fn off_device(scan: &Scan, config: &CorrectConfig) -> Option<String> {
    // taken apart, so that a correction that is not on the GPU does not compile before it is named here
    let CorrectConfig {
        average: _,
        flat_in_time: _,
        floor_counts: _,
        min_transmission: _,
        without_flats: _,
        double_flat,
        zinger,
        lock,
        spots: _,
        stripe,
        beam,
        phase,
    } = config;
    let on_cpu =
        |key: &str, method: serde_json::Value| Some(format!("{key} = {method} runs on the CPU"));
    if stripe.method != StripeMethod::None {
        return on_cpu("correct.stripe.method", json!(stripe.method));
    }
    if lock.enabled {
        return on_cpu("correct.lock.enabled", json!(true));
    }
    if *double_flat > 0.0 {
        return on_cpu("correct.double_flat", json!(double_flat));
    }
    if zinger.enabled && zinger.guard {
        return on_cpu("correct.zinger.guard", json!(true));
    }
    if zinger.enabled && zinger.kind != OutlierKind::Bright {
        return on_cpu("correct.zinger.kind", json!(zinger.kind));
    }
    if zinger.enabled && zinger.domain != ZingerDomain::Sinogram {
        return on_cpu("correct.zinger.domain", json!(zinger.domain));
    }
    if beam.drift != BeamDrift::None {
        return on_cpu("correct.beam.drift", json!(beam.drift));
    }
    if phase.method != PhaseMethod::None {
        return on_cpu("correct.phase.method", json!(phase.method));
    }
    let stored = scan.projections.pixel_type();
    if !matches!(stored, PixelType::U8 | PixelType::U16) {
        return Some(format!("counts are stored as {stored:?}, not as u8 or u16"));
    }
    (scan.n_cols() > 65535).then(|| format!("{} columns are more than 65535", scan.n_cols()))
}

/// Counts of some detector rows with all that turns them into line integrals.
#[derive(Debug, Clone)]
pub struct CountSlab {
    /// `[angle, row, col]`
    pub counts: Array3<u16>,
    /// `[row, col]` \[counts\]
    pub dark: Vec<f32>,
    /// `[group, row, col]` \[counts\], flat minus dark; not a number on bad pixels.
    pub open_beams: Vec<f32>,
    /// `[row, col]`, nearest good columns: left | right << 16.
    pub good: Vec<u32>,
    /// `[angle]`, group before, group after, bits of the weight of the latter.
    pub in_time: Vec<[u32; 4]>,
    /// Groups of open beams.
    pub n_groups: usize,
    /// Excess over the neighbours' mean, and their distance.
    pub zinger: Option<(f32, usize)>,
    /// Least transmission.
    pub min_transmission: f32,
}

/// What the kernels counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Touched {
    /// Samples raised to the least transmission.
    pub clipped: u64,
    /// Samples replaced as zingers.
    pub zingers: u64,
}

impl CorrectedScan {
    /// Why the corrections stay on the CPU; `None`: they run on the GPU.
    #[must_use]
    pub fn off_device(&self) -> Option<String> {
        off_device(&self.scan, &self.config)
    }

    /// Counts of `rows` as the GPU takes them, and what is known of them before: all but [`Touched`].
    ///
    /// # Errors
    /// Those of the reader; [`Error::Shape`] for rows that the detector does not have.
    pub fn count_slab(&self, rows: Range<usize>) -> Result<(CountSlab, CorrectionCounts)> {
        self.check_rows(&rows)?;
        let (n_angles, n_cols) = (self.scan.n_angles(), self.scan.n_cols());
        let mut counts = Array3::<u16>::zeros((n_angles, rows.len(), n_cols));
        self.scan.for_each_block(
            rows.clone(),
            self.frames_per_block(rows.len()),
            |first, block| {
                let n = block.len_of(ndarray::Axis(0));
                ndarray::Zip::from(counts.slice_mut(s![first..first + n, .., ..]))
                    .and(block)
                    .par_for_each(|count, &value| *count = value as u16);
                Ok(())
            },
        )?;
        let fields = self.fields.of_rows(rows.clone(), n_angles, n_cols);
        let lost = (0..rows.len())
            .filter(|row| n_cols > 0 && fields.good[row * n_cols] == LOST)
            .count();
        let slab = CountSlab {
            counts,
            zinger: self
                .zinger
                .filter(|&(_, size, _)| size > 0 && n_cols > size && n_angles > size)
                .map(|(threshold, size, _)| (threshold, size)),
            min_transmission: self.min_transmission,
            ..fields
        };
        let known = CorrectionCounts {
            samples: slab.counts.len() as u64,
            spots: self.spots[rows.clone()].iter().sum(),
            bad_pixels: rows.map(|row| self.fields.bad_pixels(row)).sum(),
            lost_lines: (lost * n_angles) as u64,
            ..CorrectionCounts::default()
        };
        Ok((slab, known))
    }
}

/// Columns that stand in for each column of a row, `bad[col]` saying which have no signal.
pub(super) fn good_columns(bad: &[bool]) -> Vec<u32> {
    let n = bad.len();
    let mut left: Vec<Option<u32>> = Vec::with_capacity(n);
    let mut last = None;
    for (col, &bad) in bad.iter().enumerate() {
        if !bad {
            last = Some(col as u32);
        }
        left.push(last);
    }
    let mut next = None;
    let mut good = vec![LOST; n];
    for col in (0..n).rev() {
        if !bad[col] {
            next = Some(col as u32);
        }
        // beyond the outermost good column its value holds
        if let (Some(l), Some(r)) = (left[col].or(next), next.or(left[col])) {
            good[col] = l | (r << 16);
        }
    }
    good
}

impl CountSlab {
    /// Detector rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.counts.len_of(ndarray::Axis(1))
    }

    /// Parameters for the angles `wanted` of `rows` rows.
    #[must_use]
    pub fn params(&self, wanted: Range<usize>, rows: usize) -> LineIntegralParams {
        let (n_angles, _, n_cols) = self.counts.dim();
        let held = self.held(&wanted);
        LineIntegralParams {
            n_rows: rows as u32,
            n_cols: n_cols as u32,
            first_held: held.start as u32,
            n_held: held.len() as u32,
            first_wanted: wanted.start as u32,
            n_wanted: wanted.len() as u32,
            n_angles: n_angles as u32,
            n_groups: self.n_groups as u32,
            zinger_size: self.zinger.map_or(0, |(_, size)| size as u32),
            zinger_limit: self.zinger.map_or(0.0, |(threshold, _)| 1.0 + threshold),
            min_transmission: self.min_transmission,
            unused: 0,
        }
    }

    /// The angles that are read for those wanted. Beyond an end the other side stands in, which is among them.
    #[must_use]
    pub fn held(&self, wanted: &Range<usize>) -> Range<usize> {
        let n_angles = self.counts.len_of(ndarray::Axis(0));
        let halo = self.zinger.map_or(0, |(_, size)| size);
        // an angle near the end looks `halo` back, and one at the begin `halo` ahead: both lie within
        wanted.start.saturating_sub(halo)..(wanted.end + halo).min(n_angles)
    }

    /// The part of a field `[.., row, col]` in `rows`, group after group.
    fn rows_of<T: Copy>(&self, field: &[T], rows: &Range<usize>) -> Vec<T> {
        let n_cols = self.counts.len_of(ndarray::Axis(2));
        field
            .chunks_exact((self.n_rows() * n_cols).max(1))
            .flat_map(|group| &group[rows.start * n_cols..rows.end * n_cols])
            .copied()
            .collect()
    }
}

/// Twin of both entry points: line integrals `[row, wanted angle, col]` of a block of counts `[held angle, row, col]`.
///
/// The fields are those of [`CountSlab`], cut to the rows of `params`.
///
/// # Panics
/// When a slice is shorter than `params` says.
pub fn line_integrals_cpu(
    params: &LineIntegralParams,
    counts: ArrayView3<'_, u16>,
    dark: &[f32],
    open_beams: &[f32],
    good: &[u32],
    in_time: &[[u32; 4]],
    line_integrals: &mut [f32],
) -> Touched {
    let (n_rows, n_cols) = (params.n_rows as usize, params.n_cols as usize);
    let (n_held, n_wanted) = (params.n_held as usize, params.n_wanted as usize);
    let divided = |row: usize, held: usize, col: usize| -> f32 {
        let count = f32::from(counts[[held, row, col]]);
        if params.n_groups == 0 {
            return count;
        }
        let (pixel, group) = (row * n_cols + col, n_rows * n_cols);
        let time = in_time[params.first_held as usize + held];
        let mut open = open_beams[time[0] as usize * group + pixel];
        let weight = f32::from_bits(time[2]);
        if weight != 0.0 {
            open += weight * (open_beams[time[1] as usize * group + pixel] - open);
        }
        (count - dark[pixel]) / open
    };
    let mut transmission = vec![f32::NAN; n_rows * n_held * n_cols];
    for row in 0..n_rows {
        for held in 0..n_held {
            for col in 0..n_cols {
                let columns = good[row * n_cols + col];
                let mut value = 1.0;
                if columns != LOST {
                    let (left, right) = ((columns & 0xffff) as usize, (columns >> 16) as usize);
                    value = divided(row, held, left);
                    if left != right {
                        let share = (col - left) as f32 / (right - left) as f32;
                        value += (divided(row, held, right) - value) * share;
                    }
                }
                transmission[(row * n_held + held) * n_cols + col] = value;
            }
        }
    }
    let neighbours = |index: usize, len: usize| -> (usize, usize) {
        let size = params.zinger_size as usize;
        let before = if index >= size { index - size } else { index };
        let after = if index + size < len {
            index + size
        } else {
            index
        };
        (
            if index >= size { before } else { after },
            if index + size < len { after } else { before },
        )
    };
    let mut touched = Touched::default();
    for row in 0..n_rows {
        for wanted in 0..n_wanted {
            let angle = params.first_wanted as usize + wanted;
            let line = |angle: usize| (row * n_held + angle - params.first_held as usize) * n_cols;
            for col in 0..n_cols {
                let here = line(angle);
                let mut value = transmission[here + col];
                if params.zinger_size > 0 {
                    let (above, below) = neighbours(angle, params.n_angles as usize);
                    let (left, right) = neighbours(col, n_cols);
                    let (up, down) = (line(above), line(below));
                    let t = &transmission;
                    let sides = (t[up + left] + t[up + right]) + (t[down + left] + t[down + right]);
                    let mean = (sides
                        + (t[here + left] + t[here + right])
                        + (t[up + col] + t[down + col]))
                        * 0.125;
                    if mean > 0.0 && value > mean * params.zinger_limit {
                        value = mean;
                        touched.zingers += 1;
                    }
                }
                if value.is_nan() || value < params.min_transmission {
                    value = params.min_transmission;
                    touched.clipped += 1;
                }
                line_integrals[(row * n_wanted + wanted) * n_cols + col] = -value.ln();
            }
        }
    }
    touched
}

/// How far a line integral of the kernels may be from that of the CPU.
///
/// WGSL lets a division be off by 2.5 units in the last place (both operands are rounded alike on both sides; a fused open beam or
/// interpolation adds two), which -ln turns into an absolute error; the logarithm by 2^-21 near 1 and 3 units elsewhere.
#[must_use]
pub fn tolerance(min_transmission: f32) -> f32 {
    let largest = min_transmission.ln().abs().max(12.0);
    5.0 * f32::EPSILON + 2.0_f32.powi(-21) + 4.0 * f32::EPSILON * largest
}

/// The kernels with their buffers, for blocks of at most so many rows and angles.
pub struct LineIntegrals {
    divide: Kernel,
    take_log: Kernel,
    /// `[held angle, row, col]`, two to a word.
    pub counts: wgpu::Buffer,
    transmission: wgpu::Buffer,
    dark: wgpu::Buffer,
    open_beams: wgpu::Buffer,
    good: wgpu::Buffer,
    in_time: wgpu::Buffer,
    touched: wgpu::Buffer,
    largest_held: usize,
}

impl LineIntegrals {
    /// Bytes of the largest buffer, and of all, for steps of `rows` rows and `held` angles of `slab`.
    #[must_use]
    pub fn bytes(slab: &CountSlab, rows: usize, held: usize) -> (u64, u64) {
        let (n_angles, _, n_cols) = slab.counts.dim();
        let plane = (rows * n_cols) as u64;
        let all = [
            2 * plane * held as u64,
            4 * plane * held as u64,
            4 * plane,
            4 * plane * slab.n_groups as u64,
            4 * plane,
            16 * n_angles as u64,
        ];
        (all.into_iter().max().unwrap_or(0), all.iter().sum())
    }

    /// Compiles the kernels and takes the buffers for steps of `rows` rows and blocks of `angles` wanted angles of `slab`.
    ///
    /// # Errors
    /// [`Error::Gpu`] beyond a limit or when memory runs out.
    pub fn new(gpu: &Gpu, slab: &CountSlab, rows: usize, angles: usize) -> Result<Self> {
        let (n_angles, _, n_cols) = slab.counts.dim();
        let halo = slab.zinger.map_or(0, |(_, size)| 2 * size);
        let held = (angles + halo).min(n_angles);
        let plane = rows * n_cols;
        Ok(LineIntegrals {
            divide: Kernel::new(gpu, SOURCE, "divide")?,
            take_log: Kernel::new(gpu, SOURCE, "take_log")?,
            counts: gpu.storage::<u16>("counts", held * plane)?,
            transmission: gpu.storage::<f32>("transmission", held * plane)?,
            dark: gpu.storage::<f32>("dark", plane)?,
            open_beams: gpu.storage::<f32>("open beams", slab.n_groups * plane)?,
            good: gpu.storage::<u32>("good columns", plane)?,
            in_time: gpu.storage_from("open beams in time", &slab.in_time)?,
            touched: gpu.storage::<u32>("touched", 2)?,
            largest_held: held,
        })
    }

    /// Angles that a block may hold.
    #[must_use]
    pub fn largest_held(&self) -> usize {
        self.largest_held
    }

    /// Sets the counters of [`LineIntegrals::touched`] to zero.
    ///
    /// # Errors
    /// [`Error::Gpu`] for a lost device.
    pub fn reset(&self, gpu: &Gpu) -> Result<()> {
        gpu.write(&self.touched, 0, &[0u32; 2])
    }

    /// Hands over the fields of `rows` of `slab`, before the launches that are submitted next.
    ///
    /// # Errors
    /// [`Error::Gpu`] for a lost device.
    pub fn set_rows(&self, gpu: &Gpu, slab: &CountSlab, rows: &Range<usize>) -> Result<()> {
        gpu.write(&self.dark, 0, &slab.rows_of(&slab.dark, rows))?;
        gpu.write(&self.open_beams, 0, &slab.rows_of(&slab.open_beams, rows))?;
        gpu.write(&self.good, 0, &slab.rows_of(&slab.good, rows))
    }

    /// From [`LineIntegrals::counts`] to `line_integrals` `[row, wanted angle, col]`.
    ///
    /// # Errors
    /// [`Error::Gpu`], see [`Batch::launch`].
    pub fn launch(
        &self,
        batch: &mut Batch<'_>,
        params: &LineIntegralParams,
        line_integrals: &wgpu::Buffer,
    ) -> Result<()> {
        let columns = params.n_cols.div_ceil(256);
        batch.launch(
            &self.divide,
            params,
            &[
                (1, &self.counts),
                (2, &self.dark),
                (3, &self.open_beams),
                (4, &self.good),
                (5, &self.in_time),
                (6, &self.transmission),
            ],
            [columns, params.n_held, params.n_rows],
        )?;
        batch.launch(
            &self.take_log,
            params,
            &[
                (6, &self.transmission),
                (7, line_integrals),
                (8, &self.touched),
            ],
            [columns, params.n_wanted, params.n_rows],
        )
    }

    /// What was counted since [`LineIntegrals::reset`]; waits for all work before.
    ///
    /// # Errors
    /// See [`Gpu::check`].
    pub fn touched(&self, gpu: &Gpu) -> Result<Touched> {
        let counted: Vec<u32> = gpu.read(&self.touched)?;
        Ok(Touched {
            clipped: u64::from(counted[0]),
            zingers: u64::from(counted[1]),
        })
    }
}

/// A slab does not fit the job that it is given to.
pub(crate) fn check_slab(
    slab: &CountSlab,
    n_angles: usize,
    rows: usize,
    n_cols: usize,
) -> Result<()> {
    let found = slab.counts.shape();
    if found == [n_angles, rows, n_cols] {
        return Ok(());
    }
    Err(Error::Shape {
        what: "counts [angle, row, col]".into(),
        expected: vec![n_angles, rows, n_cols],
        found: found.to_vec(),
        hint: "one rotation axis per row, and the columns and projections of the job".into(),
    })
}

#[cfg(test)]
mod tests;
