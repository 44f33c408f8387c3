//! The corrections on the GPU: parameters, what goes up; the CPU twins in `twin`, the launches in `kernels`.
//!
//! Counts of 8 or 16 bits, flat and dark fields in any mode, bad pixels, drift of the beam, zingers of sinograms, the series lock, the
//! double flat field, all ways to remove stripes and minus-log run there; what else is chosen keeps a scan on the CPU, and
//! [`off_device`] says why. Integer
//! counts are finite, so a sample has no value only where its pixel is bad or locked out: which columns stand in for it is
//! known before any projection is read.
//!
//! Without stripe removal and broad stripes, angles are corrected block by block. With them, transmission is kept on the
//! GPU for all angles (see `columns`).

mod columns;
mod kernels;
mod twin;

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use ndarray::{Array3, s};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::beam::middle;
use super::lock::{self, Verdict};
use super::stripe::StripeRemoval;
use super::{Beam, CorrectedScan, CorrectionCounts, Guard};
use crate::config::{CorrectConfig, OutlierKind, PhaseMethod, ZingerDomain};
use crate::error::{Error, Result};
use crate::scan::{PixelType, Scan};

pub use columns::{LOCKED_COLUMNS_SOURCE, LevelledColumn, LockedColumnParams, column_bytes};
pub use kernels::LineIntegrals;
pub use twin::line_integrals_cpu;

/// The shader.
pub const SOURCE: &str = include_str!("../../shaders/line_integrals.wgsl");
/// A detector row without any good column.
const LOST: u32 = u32::MAX;

/// Parameters of all entry points.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct LineIntegralParams {
    /// Detector rows that are corrected in this step.
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
    /// Columns that structure moves from one projection to the next, and one; 0: zingers are not guarded.
    pub guard_reach: u32,
    /// 1: narrow gaps are bridged by a cubic.
    pub cubic: u32,
    /// Least transmission.
    pub min_transmission: f32,
    /// First locked pixel of this dispatch.
    pub first_locked: u32,
    /// Samples of the running median.
    pub width: u32,
    /// 0: medians of the deviation, 1: of what the straight line leaves of it.
    pub turn: u32,
    /// Rows before this one were counted in another step.
    pub first_counted: u32,
    /// Slices between rows; 0: rows are slices.
    pub n_slices: u32,
    /// 1: every projection has rows of its own.
    pub moving: u32,
    /// 0: zingers are bright, 1: dark, 2: both.
    pub zinger_kind: u32,
    /// 1 - threshold.
    pub dark_limit: f32,
    /// 1: every projection is scaled by the reading of a monitor.
    pub monitored: u32,
    /// Columns of air at the left: the first.
    pub left_air: u32,
    /// One behind the last; the first where there is none.
    pub left_air_end: u32,
    /// The same at the right.
    pub right_air: u32,
    /// One behind the last.
    pub right_air_end: u32,
    /// 1: lines whose air is not believed are counted in this launch.
    pub counts_lines: u32,
    /// 1: pixels have factors of a double flat field.
    pub has_factors: u32,
    /// Rows before these whose line integrals the step before has left.
    pub n_kept: u32,
}

/// The rows that a line of a slice is taken from.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct Taps {
    /// Of six rows.
    pub weights: [f32; 6],
    /// The first of them; rows beyond those at hand repeat the outermost.
    pub first: i32,
    /// Fills up eight words.
    pub unused: u32,
}

/// Slices between detector rows.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// `[slice]`, or `[slice, angle]` where projections have rows of their own.
    pub taps: Vec<Taps>,
    /// Slices.
    pub n_slices: usize,
    /// Rows from one slice to the next.
    pub scale: f64,
    /// Rows over which the projections move.
    pub spread: f64,
}

impl Placement {
    /// Taps of a slice: one, or one for each angle.
    fn of_slice(&self, slice: usize) -> &[Taps] {
        let n = self.taps.len() / self.n_slices.max(1);
        &self.taps[slice * n..(slice + 1) * n]
    }

    fn is_moving(&self) -> bool {
        self.taps.len() > self.n_slices
    }

    /// The rows that `slices` are taken from, of `n_rows` at hand.
    fn rows(&self, slices: &Range<usize>, n_rows: usize) -> Range<usize> {
        let firsts = slices
            .clone()
            .flat_map(|slice| self.of_slice(slice))
            .map(|taps| taps.first);
        let within = |row: i32| row.clamp(0, n_rows as i32) as usize;
        let n_taps = Taps::zeroed().weights.len() as i32;
        match (firsts.clone().min(), firsts.max()) {
            (Some(low), Some(high)) => within(low)..within(high + n_taps),
            _ => 0..0,
        }
    }

    /// No `slices` slices in a row are taken from more rows.
    fn most_rows(&self, slices: usize) -> usize {
        let between = (slices.max(1) - 1) as f64 * self.scale + self.spread;
        // one more at either end where a slice stands between rows
        between.ceil() as usize + Taps::zeroed().weights.len() + 2
    }
}

/// A pixel of which the series lock takes the slow deviation off, or the edge of a broad stripe.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct LockedPixel {
    /// Row within the rows at hand, column, 1 for an edge, and a word that is not used.
    pub at: [u32; 4],
    /// Good neighbours.
    pub columns: [u32; 4],
    /// Weights of the polynomial through them, or of the step between them.
    pub weights: [f32; 4],
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
        // measured on the CPU over the whole scan, applied on the GPU
        double_flat: _,
        zinger,
        // found on the CPU over the whole series, applied on the GPU
        lock: _,
        spots: _,
        stripe: _,
        beam: _,
        phase,
    } = config;
    let on_cpu =
        |key: &str, method: serde_json::Value| Some(format!("{key} = {method} runs on the CPU"));
    if zinger.enabled && zinger.domain != ZingerDomain::Sinogram {
        return on_cpu("correct.zinger.domain", json!(zinger.domain));
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
#[derive(Debug, Clone, Default)]
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
    /// What every line is scaled by before anything looks at it.
    pub beam: Option<Beam>,
    /// Which samples are zingers.
    pub zinger: Option<ZingerRule>,
    /// Whether narrow gaps are bridged by a cubic, as in a locked series.
    pub cubic: bool,
    /// Pixels that the series lock corrects, row after row.
    pub locked: Vec<LockedPixel>,
    /// The most of them in any row of the detector.
    pub most_locked: usize,
    /// Edges of broad stripes, the left and the right one of each, row after row.
    pub edges: Vec<LockedPixel>,
    /// Columns of broad stripes, row after row.
    pub levelled: Vec<LevelledColumn>,
    /// The most edges, and the most of these columns, in any row of the detector.
    pub most_broad: [usize; 2],
    /// `[row, col]`, what the double flat field multiplies transmission by, behind the lock; empty where there is none.
    pub factors: Vec<f32>,
    /// How stripes are removed.
    pub stripe: Option<StripeRemoval>,
    /// Least transmission.
    pub min_transmission: f32,
    /// Rows before this one were counted with another slab.
    pub counted: usize,
    /// Where slices stand, if not each on a row of its own.
    pub placement: Option<Placement>,
}

/// Some slices of a [`CountSlab`] that are made at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Within the slab.
    pub slices: Range<usize>,
    /// Rows of the slab that they are made of.
    pub rows: Range<usize>,
    /// The first of these rows that no slice before is made of.
    pub first_counted: usize,
    /// As many of these rows are left on the GPU by the step before.
    pub kept: usize,
}

impl Step {
    /// Rows that are corrected in this step.
    #[must_use]
    pub fn new_rows(&self) -> Range<usize> {
        self.rows.start + self.kept..self.rows.end
    }

    /// The same behind `before`, of whose rows the last `most` are still there.
    #[must_use]
    pub fn after(self, before: &Step, most: usize) -> Step {
        let shared = before
            .rows
            .end
            .min(self.rows.end)
            .saturating_sub(self.rows.start);
        let there = before.rows.start <= self.rows.start && shared <= most;
        Step {
            kept: if there { shared } else { 0 },
            ..self
        }
    }
}

/// Which samples are zingers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ZingerRule {
    /// Bright ones are compared with the mean of their neighbours, others with the median.
    pub kind: OutlierKind,
    /// Relative distance from the mean or median of the neighbours.
    pub threshold: f32,
    /// Distance of the neighbours \[px\].
    pub size: usize,
    /// What else a zinger must be.
    pub guard: Option<Guard>,
}

impl ZingerRule {
    /// Angles before and after by which a sample is judged.
    fn halo(&self) -> usize {
        self.size.max(self.guard.map_or(0, |_| Guard::HALO))
    }
}

/// What the kernels counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Touched {
    /// Samples raised to the least transmission.
    pub clipped: u64,
    /// Samples replaced as zingers.
    pub zingers: u64,
    /// Columns taken as large stripes, over all rows.
    pub large_stripes: u64,
    /// Columns taken as dead or fluctuating, over all rows.
    pub dead_stripes: u64,
    /// Lines left as they are because their air is far from open beam.
    pub beam_left: u64,
}

impl std::ops::AddAssign for Touched {
    fn add_assign(&mut self, other: Self) {
        self.clipped += other.clipped;
        self.zingers += other.zingers;
        self.large_stripes += other.large_stripes;
        self.dead_stripes += other.dead_stripes;
        self.beam_left += other.beam_left;
    }
}

impl std::ops::AddAssign<Touched> for CorrectionCounts {
    fn add_assign(&mut self, touched: Touched) {
        let Touched {
            clipped,
            zingers,
            large_stripes,
            dead_stripes,
            beam_left,
        } = touched;
        self.clipped += clipped;
        self.zingers += zingers;
        self.large_stripes += large_stripes;
        self.dead_stripes += dead_stripes;
        self.beam_left += beam_left;
    }
}

impl CorrectedScan {
    /// Why the corrections stay on the CPU; `None`: they run on the GPU.
    #[must_use]
    pub fn off_device(&self) -> Option<String> {
        off_device(&self.scan, &self.config)
    }

    /// Counts of `rows` as the GPU takes them, and what is known before of those from row `counted` of the detector on: all but
    /// [`Touched`].
    ///
    /// # Errors
    /// Those of the reader; [`Error::Shape`] for rows that the detector does not have. A double flat field reads the whole scan
    /// the first time.
    pub fn count_slab(
        &self,
        rows: Range<usize>,
        counted: usize,
    ) -> Result<(CountSlab, CorrectionCounts)> {
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
        let good: Vec<u32> = rows
            .clone()
            .flat_map(|row| {
                let mut bad: Vec<bool> = (0..n_cols)
                    .map(|col| self.fields.is_bad(row, col))
                    .collect();
                self.locked(row, Verdict::Interpolated)
                    .for_each(|col| bad[col] = true);
                good_columns(&bad)
            })
            .collect();
        let counted = counted.clamp(rows.start, rows.end);
        let new = counted - rows.start..rows.len();
        let lost = new
            .clone()
            .filter(|row| n_cols > 0 && good[row * n_cols] == LOST)
            .count();
        let (edges, levelled) = self.broad_stripes(&rows);
        let sharp_mean = self.sharp_mean()?;
        let factors = sharp_mean.map(|map| {
            let of_rows = map.slice(s![rows.clone(), ..]);
            of_rows.iter().map(|mean| mean.exp()).collect()
        });
        let slab = CountSlab {
            counts,
            good,
            edges,
            levelled,
            most_broad: self.lock.as_ref().map_or([0, 0], |map| {
                let [stripes, columns] = map.most_broad();
                [2 * stripes, columns]
            }),
            stripe: self.stripe,
            beam: self.beam.clone(),
            factors: factors.unwrap_or_default(),
            zinger: self
                .zinger_of_sinograms()
                .filter(|&ZingerRule { size, .. }| size > 0 && n_cols > size && n_angles > size),
            cubic: self.lock.is_some(),
            locked: self.locked_pixels(&rows),
            most_locked: self
                .lock
                .as_ref()
                .map_or(0, |map| map.most_in_a_row(Verdict::Corrected)),
            min_transmission: self.min_transmission,
            counted: new.start,
            ..self.fields.of_rows(rows.clone(), n_angles, n_cols)
        };
        let known = CorrectionCounts {
            samples: (new.len() * n_angles * n_cols) as u64,
            lost_lines: (lost * n_angles) as u64,
            ..self.pixels_touched(counted..rows.end)
        };
        Ok((slab, known))
    }

    fn zinger_of_sinograms(&self) -> Option<ZingerRule> {
        let bright = self.zinger.map(|(threshold, size, guard)| ZingerRule {
            kind: OutlierKind::Bright,
            threshold,
            size,
            guard,
        });
        let other = self.outliers.of_sinograms();
        bright.or(other.map(|(kind, threshold, size)| ZingerRule {
            kind,
            threshold,
            size,
            guard: None,
        }))
    }

    /// Edges and columns of the broad stripes of `rows`.
    fn broad_stripes(&self, rows: &Range<usize>) -> (Vec<LockedPixel>, Vec<LevelledColumn>) {
        let (mut edges, mut levelled) = (Vec::new(), Vec::new());
        let Some(map) = &self.lock else {
            return (edges, levelled);
        };
        for (index, row) in rows.clone().enumerate() {
            for stripe in map.broad_stripes(row) {
                let left = edges.len() as u32;
                let at = [stripe.columns.start, stripe.columns.end];
                for (col, (columns, weights)) in at.into_iter().zip(stripe.edges) {
                    edges.push(LockedPixel {
                        at: [index as u32, col as u32, 1, 0],
                        columns: columns.map(|col| col as u32),
                        weights,
                    });
                }
                let of_columns = stripe.columns.zip(stripe.shares);
                levelled.extend(of_columns.map(|(col, share)| LevelledColumn {
                    row: index as u32,
                    col: col as u32,
                    left,
                    share,
                }));
            }
        }
        (edges, levelled)
    }

    /// Pixels of `rows` that the lock corrects; those without a good neighbour on either side are left.
    fn locked_pixels(&self, rows: &Range<usize>) -> Vec<LockedPixel> {
        let Some(map) = &self.lock else {
            return Vec::new();
        };
        let of_row = |(index, row): (usize, usize)| {
            let verdicts = map.verdicts(row);
            let pixel = |col: usize| {
                let (columns, weights) = lock::neighbours(&verdicts, col)?;
                Some(LockedPixel {
                    at: [index as u32, col as u32, 0, 0],
                    columns: columns.map(|col| col as u32),
                    weights,
                })
            };
            let columns = map.columns(row, Verdict::Corrected);
            columns.filter_map(pixel).collect::<Vec<_>>()
        };
        rows.clone().enumerate().flat_map(of_row).collect()
    }
}

/// Columns that stand in for each column of a row, `bad[col]` saying which have no signal.
fn good_columns(bad: &[bool]) -> Vec<u32> {
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

    /// Slices.
    #[must_use]
    pub fn n_slices(&self) -> usize {
        self.placement
            .as_ref()
            .map_or(self.n_rows(), |placement| placement.n_slices)
    }

    /// What `slices` are made of.
    #[must_use]
    pub fn step(&self, slices: Range<usize>) -> Step {
        let rows = |slices: &Range<usize>| match &self.placement {
            Some(placement) => placement.rows(slices, self.n_rows()),
            None => slices.clone(),
        };
        let of = rows(&slices);
        let counted = match slices.start {
            0 => self.counted,
            first => rows(&(first - 1..first)).end,
        };
        Step {
            first_counted: counted.clamp(of.start, of.end) - of.start,
            rows: of,
            slices,
            kept: 0,
        }
    }

    /// No two slices in a row share more rows; 0 where slices stand on rows.
    #[must_use]
    pub fn most_kept(&self) -> usize {
        let placement = self.placement.as_ref();
        placement.map_or(0, |placement| placement.most_rows(1))
    }

    /// The most rows that so many slices of any slab of the scan are made of.
    #[must_use]
    pub fn most_rows(&self, slices: usize) -> usize {
        self.placement
            .as_ref()
            .map_or(slices, |placement| placement.most_rows(slices))
    }

    /// Taps of the slices of `step`, counted from its first row.
    fn taps(&self, step: &Step) -> Vec<Taps> {
        let Some(placement) = &self.placement else {
            return Vec::new();
        };
        let slices = step.slices.clone();
        let of = slices.flat_map(|slice| placement.of_slice(slice));
        of.map(|taps| Taps {
            first: taps.first - step.rows.start as i32,
            ..*taps
        })
        .collect()
    }

    /// Parameters for the angles `wanted` of a step.
    #[must_use]
    pub fn params(&self, wanted: Range<usize>, step: &Step) -> LineIntegralParams {
        let (n_angles, _, n_cols) = self.counts.dim();
        let held = self.held(&wanted);
        let air = |side: usize| -> [u32; 2] {
            let air = self.beam.as_ref().and_then(|beam| beam.air.get(side));
            air.map_or([0; 2], |air| [air.start as u32, air.end as u32])
        };
        let ([left_air, left_air_end], [right_air, right_air_end]) = (air(0), air(1));
        let by_monitor = |beam: &Beam| beam.factors.is_some();
        LineIntegralParams {
            n_rows: step.new_rows().len() as u32,
            n_cols: n_cols as u32,
            first_held: held.start as u32,
            n_held: held.len() as u32,
            first_wanted: wanted.start as u32,
            n_wanted: wanted.len() as u32,
            n_angles: n_angles as u32,
            n_groups: self.n_groups as u32,
            zinger_size: self.zinger.map_or(0, |rule| rule.size as u32),
            zinger_limit: self.zinger.map_or(0.0, |rule| 1.0 + rule.threshold),
            guard_reach: self
                .zinger
                .and_then(|rule| rule.guard)
                .map_or(0, |guard| guard.reach as u32),
            cubic: u32::from(self.cubic),
            min_transmission: self.min_transmission,
            first_locked: 0,
            width: lock::median_width(n_angles) as u32,
            turn: 0,
            first_counted: step.first_counted.saturating_sub(step.kept) as u32,
            n_slices: self.placement.as_ref().map_or(0, |_| step.slices.len()) as u32,
            moving: u32::from(self.placement.as_ref().is_some_and(Placement::is_moving)),
            zinger_kind: self.zinger.map_or(0, |rule| match rule.kind {
                OutlierKind::Bright => 0,
                OutlierKind::Dark => 1,
                OutlierKind::Both => 2,
            }),
            dark_limit: self.zinger.map_or(0.0, |rule| 1.0 - rule.threshold),
            monitored: u32::from(self.beam.as_ref().is_some_and(by_monitor)),
            left_air,
            left_air_end,
            right_air,
            right_air_end,
            counts_lines: 1,
            has_factors: u32::from(!self.factors.is_empty()),
            n_kept: step.kept as u32,
        }
    }

    /// The angles that are read for those wanted. Beyond an end the other side stands in, which is among them.
    #[must_use]
    pub fn held(&self, wanted: &Range<usize>) -> Range<usize> {
        let n_angles = self.counts.len_of(ndarray::Axis(0));
        let halo = self.halo();
        // an angle near the end looks `halo` back, and one at the begin `halo` ahead: both lie within
        wanted.start.saturating_sub(halo)..(wanted.end + halo).min(n_angles)
    }

    /// Whether a correction looks at whole columns, so that transmission is kept for all angles.
    #[must_use]
    pub fn takes_columns(&self) -> bool {
        self.stripe.is_some() || self.most_broad[0] > 0
    }

    /// How far any line integral of the kernels may be from that of the CPU: [`tolerance`], or [`locked_tolerance`] in a locked
    /// series, and what drift of the beam and a double flat field add.
    #[must_use]
    pub fn tolerance(&self) -> f32 {
        let n_cols = self.counts.len_of(ndarray::Axis(2));
        let beam = self
            .beam
            .as_ref()
            .map_or(0.0, |beam| beam.tolerance(n_cols));
        // a zinger or a bad pixel stands between samples as far off, a locked one has four neighbours
        let most = |pixel: &LockedPixel| pixel.weights.map(f32::abs).iter().sum::<f32>();
        let neighbours = self.locked.iter().map(most).fold(2.0, f32::max);
        let factor = if self.factors.is_empty() {
            0.0
        } else {
            f32::EPSILON
        };
        self.tolerance_before() + (1.0 + neighbours) * beam + factor
    }

    /// The same without beam and double flat field.
    fn tolerance_before(&self) -> f32 {
        // a bad pixel has weights of at most these in all, each of three quotients
        let cubic = [-1.0 / 6.0, 2.0 / 3.0, 2.0 / 3.0, -1.0 / 6.0];
        let of = |weights: &[f32; 4]| locked_tolerance(self.min_transmission, weights);
        match self.cubic {
            false => tolerance(self.min_transmission),
            true => self
                .locked
                .iter()
                .map(|pixel| of(&pixel.weights))
                .fold(of(&cubic), f32::max),
        }
    }

    /// Angles before and after that are read beside those wanted.
    fn halo(&self) -> usize {
        self.zinger.map_or(0, |rule| rule.halo())
    }

    /// The locked pixels of `rows`, counted from the first of these, and for each pixel `[row, col]` its place among them plus 1.
    fn locked_of(&self, rows: &Range<usize>) -> (Vec<LockedPixel>, Vec<u32>) {
        let n_cols = self.counts.len_of(ndarray::Axis(2));
        let mut places = vec![0; rows.len() * n_cols];
        let inside = |pixel: &&LockedPixel| rows.contains(&(pixel.at[0] as usize));
        let mut pixels: Vec<LockedPixel> = self.locked.iter().filter(inside).copied().collect();
        for (index, pixel) in pixels.iter_mut().enumerate() {
            pixel.at[0] -= rows.start as u32;
            places[pixel.at[0] as usize * n_cols + pixel.at[1] as usize] = index as u32 + 1;
        }
        (pixels, places)
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

/// How far a line integral of the kernels may be from that of the CPU.
///
/// WGSL lets a division be off by 2.5 units in the last place (both operands are rounded alike on both sides; a fused open beam or
/// interpolation adds two), which -ln turns into an absolute error; the logarithm by 2^-21 near 1 and 3 units elsewhere.
#[must_use]
pub fn tolerance(min_transmission: f32) -> f32 {
    let largest = min_transmission.ln().abs().max(12.0);
    5.0 * f32::EPSILON + 2.0_f32.powi(-21) + 4.0 * f32::EPSILON * largest
}

/// The same on a pixel that the lock corrects, whose neighbours have these weights.
///
/// Its deviation is a sum of line integrals, each within [`tolerance`] and rounded once more; a median is no farther off than the
/// worst of its samples, and the straight line, which is taken off before it and put back behind, is forgotten but for two
/// roundings. An exponential may be off by 3 + 2 |x| units.
#[must_use]
pub fn locked_tolerance(min_transmission: f32, weights: &[f32; 4]) -> f32 {
    let largest = min_transmission.ln().abs().max(12.0);
    let all: f32 = 1.0 + weights.iter().map(|weight| weight.abs()).sum::<f32>();
    let deviation = all * (tolerance(min_transmission) + 4.0 * f32::EPSILON * largest);
    let exponential = (4.0 + 2.0 * all * largest) * f32::EPSILON;
    tolerance(min_transmission) + deviation + 4.0 * f32::EPSILON * all * largest + exponential
}

/// A slab does not fit the job that it is given to, which wants `slices` slices or more of it.
pub(crate) fn check_slab(
    slab: &CountSlab,
    n_angles: usize,
    slices: usize,
    n_cols: usize,
) -> Result<()> {
    let (angles, _, cols) = slab.counts.dim();
    let found = [angles, slab.n_slices(), cols];
    if found[0] == n_angles && found[1] >= slices && found[2] == n_cols {
        return Ok(());
    }
    Err(Error::Shape {
        what: "counts [angle, row, col]".into(),
        expected: vec![n_angles, slices, n_cols],
        found: found.to_vec(),
        hint: "one rotation axis per row, and the columns and projections of the job".into(),
    })
}

#[cfg(test)]
mod tests;
