//! Sums over the changed voxels and the ring around them.
//!
//! A grain is blurred by optics and reconstruction: part of its change lies in voxels that stay below the threshold, and
//! a sum over the voxels beyond it is too small, the more so the smaller the grain. So the sum is taken over every voxel that is
//! at most `grow` voxels (along each axis) from one beyond the threshold. Outside of the grain these hold noise of mean
//! zero, which costs some precision and no bias. A voxel below the threshold that is near both an increase and a decrease is shared by
//! halves: to go by its own sign would add its noise to both sums. A voxel beyond the threshold without a neighbour of its kind in its
//! slice is noise more often than not, and is in no sum.
//!
//! What stays within [`DOUBTFUL`] times the threshold all around may be a grain, a piece of a ring or a streak: noise that the
//! projections do not show as noise. It is in the sum, and stands beside it as what the sum could be wrong by.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::grains::Run;
use super::measure::{Measured, Side};
use super::noise::Profile;
use super::region::Region;

const INCREASE: u8 = 1;
const DECREASE: u8 = 2;
/// Shift to the bits of the voxels that are beyond the threshold themselves.
const CORE: u8 = 2;

/// Shift to the bits of the voxels that have one beyond [`DOUBTFUL`] times the threshold nearby.
const SURE: u8 = 4;
/// A grain is sure where it exceeds the threshold by this factor.
const DOUBTFUL: f64 = 2.0;
/// A sure voxel speaks for those that are so many voxels away, beyond the growth.
const SPEAKS_FOR: usize = 2;

/// Bit of the voxels that lie around grains, beyond the growth: what they hold on average the grains hold too.
const BESIDE: u8 = 1 << 6;
/// Width of that shell \[voxel\].
const SHELL: usize = 3;

/// Takes measured slices in order and gives them back with the sums over grown grains.
pub(super) struct Grower<'a> {
    grow: usize,
    region: &'a Region,
    profile: &'a Profile,
    window: VecDeque<Entry>,
    /// Place in the window of the slice to be given next.
    next: usize,
}

struct Entry {
    measured: Measured,
    slice: Vec<f32>,
    /// In-plane part of the growth: bits per voxel.
    near: Vec<u8>,
}

/// Bytes that the window holds, for slices of so many bytes of f32.
pub(super) fn bytes(grow: usize, slice: u64) -> u64 {
    if grow == 0 {
        0
    } else {
        (2 * grow as u64 + 2) * (slice + slice / 4)
    }
}

impl<'a> Grower<'a> {
    pub(super) fn new(grow: usize, region: &'a Region, profile: &'a Profile) -> Self {
        Grower {
            grow,
            region,
            profile,
            window: VecDeque::new(),
            next: 0,
        }
    }

    /// Takes a slice `[y, x]` and returns those that are complete with it.
    pub(super) fn push(&mut self, measured: Measured, slice: &[f32]) -> Vec<Measured> {
        if self.grow == 0 {
            return vec![measured];
        }
        let width = slice.len() / self.region.height();
        self.window.push_back(Entry {
            near: self.in_plane(&measured, width, slice.len()),
            slice: slice.to_vec(),
            measured,
        });
        let mut done = Vec::new();
        while self.window.len() > self.next + self.grow {
            done.push(self.take(width));
        }
        done
    }

    /// The slices that wait for others which do not exist.
    pub(super) fn finish(&mut self) -> Vec<Measured> {
        let mut done = Vec::new();
        while self.next < self.window.len() {
            let width = self.window[0].slice.len() / self.region.height();
            done.push(self.take(width));
        }
        done
    }

    fn in_plane(&self, measured: &Measured, width: usize, len: usize) -> Vec<u8> {
        let mut near = vec![0u8; len];
        let bit_of = |sign: i8| if sign > 0 { INCREASE } else { DECREASE };
        for run in &measured.runs {
            let row = run.y as usize * width;
            near[row + run.x0 as usize..row + run.x1 as usize].fill(bit_of(run.sign) << CORE);
        }
        for run in &measured.runs {
            let bit = bit_of(run.sign);
            let y = run.y as usize;
            if run.x1 - run.x0 == 1 && alone(&near, width, [y, run.x0 as usize], bit << CORE) {
                continue;
            }
            mark(&mut near, width, y, run, self.grow, bit);
            mark(&mut near, width, y, run, self.grow + SHELL, BESIDE);
            if f64::from(run.peak.abs()) > DOUBTFUL * measured.threshold {
                mark(
                    &mut near,
                    width,
                    y,
                    run,
                    self.grow + SPEAKS_FOR,
                    bit << SURE,
                );
            }
        }
        near
    }

    fn take(&mut self, width: usize) -> Measured {
        let around =
            self.next.saturating_sub(self.grow)..(self.next + self.grow + 1).min(self.window.len());
        let near: Vec<&[u8]> = self
            .window
            .range(around)
            .map(|entry| entry.near.as_slice())
            .collect();
        let Entry {
            slice,
            near: near_here,
            ..
        } = &self.window[self.next];
        let rows: Vec<([Side; 2], [f64; 2])> = (0..self.region.height())
            .into_par_iter()
            .map(|y| self.row(y, width, slice, near_here, &near))
            .collect();
        let measured = &mut self.window[self.next].measured;
        for (side, kept) in measured.sides.iter_mut().enumerate() {
            let voxels = kept.voxels;
            *kept = Side {
                voxels,
                ..Side::default()
            };
            for (row, _) in &rows {
                kept.summed += row[side].summed;
                kept.sum += row[side].sum;
                kept.squares += row[side].squares;
                kept.doubtful += row[side].doubtful;
            }
        }
        let [count, sum] = rows
            .iter()
            .fold([0.0; 2], |[n, s], (_, [count, sum])| [n + count, s + sum]);
        measured.beside = if count > 0.0 { sum / count } else { 0.0 };
        let measured = measured.clone();
        if self.next == self.grow {
            self.window.pop_front();
        } else {
            self.next += 1;
        }
        measured
    }

    fn row(
        &self,
        y: usize,
        width: usize,
        slice: &[f32],
        near_here: &[u8],
        near: &[&[u8]],
    ) -> ([Side; 2], [f64; 2]) {
        let mut sides = [Side::default(); 2];
        let mut beside = [0.0; 2];
        for x in self.region.row(y) {
            let at = y * width + x;
            let around = near.iter().fold(0, |bits, near| bits | near[at]);
            let bits = around & (INCREASE | DECREASE);
            let value = f64::from(slice[at]);
            if !value.is_finite() {
                continue;
            }
            if bits == 0 {
                if near_here[at] & BESIDE != 0 {
                    beside = [beside[0] + 1.0, beside[1] + value];
                }
                continue;
            }
            let own = (near_here[at] >> CORE) & (INCREASE | DECREASE);
            let (bits, share) = match (own, bits) {
                (0, INCREASE | DECREASE) => (bits, 1.0),
                (0, _) => (INCREASE | DECREASE, 0.5),
                // beyond the threshold, and near a change: its own side
                _ => (own, 1.0),
            };
            let p = if self.profile.is_flat() {
                1.0
            } else {
                f64::from(self.profile.at(self.region.radius_squared(y, x)))
            };
            for (side, bit, sign) in [(0, INCREASE, 1.0), (1, DECREASE, -1.0)] {
                if bits & bit != 0 {
                    let side: &mut Side = &mut sides[side];
                    side.summed += 1;
                    side.sum += sign * share * value;
                    if (around >> SURE) & bit == 0 {
                        side.doubtful += sign * share * value;
                    }
                    side.squares += share * share * p * p;
                }
            }
        }
        (sides, beside)
    }
}

/// Sets `bit` in the voxels of a slice that are at most `by` from `run` in row `y`, along each axis.
fn mark(near: &mut [u8], width: usize, y: usize, run: &Run, by: usize, bit: u8) {
    let rows = y.saturating_sub(by)..(y + by + 1).min(near.len() / width);
    let columns = (run.x0 as usize).saturating_sub(by)..(run.x1 as usize + by).min(width);
    for row in rows {
        near[row * width + columns.start..row * width + columns.end]
            .iter_mut()
            .for_each(|bits| *bits |= bit);
    }
}

/// Whether none of the eight neighbours of a voxel has `core` among its bits.
fn alone(near: &[u8], width: usize, [y, x]: [usize; 2], core: u8) -> bool {
    let height = near.len() / width;
    let rows = y.saturating_sub(1)..(y + 2).min(height);
    let columns = x.saturating_sub(1)..(x + 2).min(width);
    rows.flat_map(|v| columns.clone().map(move |u| (v, u)))
        .all(|(v, u)| (v, u) == (y, x) || near[v * width + u] & core == 0)
}
