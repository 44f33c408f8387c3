//! Which detector rows slices are made of: where they stand between rows, and the steps in which they are made.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

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
    pub(super) fn of_slice(&self, slice: usize) -> &[Taps] {
        let n = self.taps.len() / self.n_slices.max(1);
        &self.taps[slice * n..(slice + 1) * n]
    }

    pub(super) fn is_moving(&self) -> bool {
        self.taps.len() > self.n_slices
    }

    /// The rows that `slices` are taken from, of `n_rows` at hand.
    pub(super) fn rows(&self, slices: &Range<usize>, n_rows: usize) -> Range<usize> {
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
    pub(super) fn most_rows(&self, slices: usize) -> usize {
        let between = (slices.max(1) - 1) as f64 * self.scale + self.spread;
        // one more at either end where a slice stands between rows
        between.ceil() as usize + Taps::zeroed().weights.len() + 2
    }
}

/// Some slices of a [`super::CountSlab`] that are made at once.
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
