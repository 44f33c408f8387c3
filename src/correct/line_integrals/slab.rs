//! What goes up to the GPU: counts of some rows with all that is known of them, and which of it a step takes.

use std::ops::Range;

use ndarray::Array3;

use super::{
    LevelledColumn, LineIntegralParams, LockedPixel, Placement, Step, Taps, locked_tolerance,
    tolerance,
};
use crate::config::OutlierKind;
use crate::correct::lock;
use crate::correct::stripe::StripeRemoval;
use crate::correct::{Beam, Guard};

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
    pub(super) fn taps(&self, step: &Step) -> Vec<Taps> {
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
    pub(super) fn locked_of(&self, rows: &Range<usize>) -> (Vec<LockedPixel>, Vec<u32>) {
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
    pub(super) fn rows_of<T: Copy>(&self, field: &[T], rows: &Range<usize>) -> Vec<T> {
        let n_cols = self.counts.len_of(ndarray::Axis(2));
        field
            .chunks_exact((self.n_rows() * n_cols).max(1))
            .flat_map(|group| &group[rows.start * n_cols..rows.end * n_cols])
            .copied()
            .collect()
    }
}
