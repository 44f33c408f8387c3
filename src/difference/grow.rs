//! Sums over the changed voxels and the ring around them.
//!
//! A grain is blurred by optics and reconstruction: part of its change lies in voxels that stay below the threshold, and
//! a sum over the voxels beyond it is too small, the more so the smaller the grain. So the sum is taken over every voxel that is
//! at most `grow` voxels (along each axis) from one beyond the threshold. Outside of the grain these hold noise of mean
//! zero, which costs some precision and no bias. A voxel below the threshold that is near both an increase and a decrease is shared by
//! halves: to go by its own sign would add its noise to both sums.
//!
//! What is too small for a grain is noise more often than not, and beyond a threshold noise always adds: with it the sums would grow with the volume
//! that was looked at. So a voxel beyond the threshold counts only if it hangs together with `difference.min_grain_voxels` others, of which as many as
//! are within [`LOOK`] slices are seen.
//!
//! What stays within [`DOUBTFUL`] times the threshold all around and is thin may be a grain, a piece of a ring or a streak, or of a face that is met imperfectly: noise
//! that the projections do not show as noise. It is in the sum, and stands beside it as what the sum could be wrong by. Rings and streaks are as wide as a bad column or a ray, one or
//! two pixels and their blur, and faces as high as the blur. No line covers all four corners of a square of [`THICK`] voxels: where each of them holds [`FILLED`] of the threshold
//! on average, in the slices above and below too, the change is none of these. It is the mean that is asked, since in a faint grain every other voxel is below the threshold.

use std::collections::VecDeque;
use std::ops::Range;

use rayon::prelude::*;

use super::below::{Below, Cube, SIDE};
use super::grains::{Labeller, Run};
use super::measure::{Measured, Side};
use super::noise::{NoiseModel, Profile};
use super::region::Region;
use crate::config::DifferenceConfig;
use crate::error::Result;

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

/// Side of the square whose corners no ring or streak covers \[voxel\], odd.
const THICK: usize = 5;
/// Side of such a corner \[voxel\].
const CORNER: usize = 2;
/// Mean change in each corner, in units of the threshold.
const FILLED: f32 = 0.5;

/// Bit of the voxels that lie around grains, beyond the growth: what they hold on average the grains hold too.
const BESIDE: u8 = 1 << 6;
/// Width of that shell \[voxel\].
const SHELL: usize = 3;
/// Bit of the voxels beyond the threshold that are too few for a grain: they say nothing about what lies around.
const SPECK: u8 = 1 << 7;
/// Slices on each side in which a component is followed to see whether it is a grain.
const LOOK: usize = 3;

/// Takes measured slices in order and gives them back with the sums over grown grains.
pub(super) struct Grower<'a> {
    grow: usize,
    connectivity: u8,
    min_voxels: u64,
    region: &'a Region,
    profile: &'a Profile,
    window: VecDeque<Entry>,
    /// Place in the window of the first slice whose grains are not known yet.
    undecided: usize,
    /// Place in the window of the slice to be given next.
    next: usize,
    below: Below,
}

struct Entry {
    measured: Measured,
    /// Empty once it is given.
    slice: Vec<f32>,
    /// What edges leave in each voxel; empty where that is nothing.
    edges: Vec<f32>,
    /// In-plane part of the growth: bits per voxel.
    near: Vec<u8>,
}

impl Entry {
    /// What edges leave in a voxel.
    fn edge(&self, at: usize) -> f32 {
        self.edges.get(at).copied().unwrap_or(0.0)
    }
}

/// Bytes that the window holds, for slices of so many bytes of f32.
pub(super) fn bytes(grow: usize, slice: u64) -> u64 {
    if grow == 0 {
        return 0;
    }
    let (grow, look) = (grow as u64, LOOK as u64);
    (grow + look + 2) * 2 * slice + (2 * grow + 2) * slice / 4 + Below::bytes(slice)
}

impl<'a> Grower<'a> {
    pub(super) fn new(
        config: &DifferenceConfig,
        region: &'a Region,
        model: &'a NoiseModel,
    ) -> Self {
        Grower {
            grow: config.grow,
            connectivity: config.connectivity,
            min_voxels: config.min_grain_voxels,
            region,
            profile: &model.profile,
            window: VecDeque::new(),
            undecided: 0,
            next: 0,
            below: Below::new(model),
        }
    }

    /// Takes a slice `[y, x]`, with what edges leave in it, and returns those that are complete with it.
    ///
    /// # Errors
    /// More components than can be numbered.
    pub(super) fn push(
        &mut self,
        measured: Measured,
        slice: &[f32],
        edges: Option<&[f32]>,
    ) -> Result<Vec<Measured>> {
        if self.grow == 0 {
            return Ok(vec![measured]);
        }
        self.window.push_back(Entry {
            near: Vec::new(),
            slice: slice.to_vec(),
            edges: edges.map(<[f32]>::to_vec).unwrap_or_default(),
            measured,
        });
        while self.undecided + LOOK < self.window.len() {
            self.decide()?;
        }
        let mut done = Vec::new();
        while self.next + self.grow < self.undecided {
            done.push(self.take());
        }
        Ok(done)
    }

    /// The slices that wait for others which do not exist.
    ///
    /// # Errors
    /// As [`Grower::push`].
    pub(super) fn finish(&mut self) -> Result<Vec<Measured>> {
        while self.undecided < self.window.len() {
            self.decide()?;
        }
        let mut done = Vec::new();
        while self.next < self.window.len() {
            done.push(self.take());
        }
        Ok(done)
    }

    /// Finds which runs of the next undecided slice belong to grains, and marks what is near them.
    fn decide(&mut self) -> Result<()> {
        let at = self.undecided;
        let (kept, components) = self.kept(at)?;
        self.window[at].measured.components = Some(components);
        let width = self.window[at].slice.len() / self.region.height();
        let near = self.in_plane(at, &kept, width);
        self.window[at].near = near;
        self.undecided += 1;
        Ok(())
    }

    /// Whether each run of a slice of the window hangs together with enough voxels, and how many components those make.
    fn kept(&self, at: usize) -> Result<(Vec<bool>, u64)> {
        let around = at.saturating_sub(LOOK)..(at + LOOK + 1).min(self.window.len());
        let mut labeller = Labeller::new(self.connectivity, 1, 0);
        let mut names = Vec::new();
        for place in around {
            let labelled =
                labeller.push(&self.window[place].measured.runs, self.region.height())?;
            if place == at {
                names = labelled.iter().map(|run| run.component).collect();
            }
        }
        let found = labeller.finish();
        let size = |name: u32| {
            let label = found.label_of[name as usize] as usize;
            (label, found.grains[label - 1].voxels)
        };
        let sizes: Vec<(usize, u64)> = names.into_iter().map(size).collect();
        let kept = sizes.iter().map(|(_, voxels)| *voxels >= self.min_voxels);
        let kept: Vec<bool> = kept.collect();
        let mut labels: Vec<usize> = sizes
            .iter()
            .zip(&kept)
            .filter(|(_, kept)| **kept)
            .map(|((label, _), _)| *label)
            .collect();
        labels.sort_unstable();
        labels.dedup();
        Ok((kept, labels.len() as u64))
    }

    fn in_plane(&self, at: usize, kept: &[bool], width: usize) -> Vec<u8> {
        let Entry {
            measured, slice, ..
        } = &self.window[at];
        let mut near = vec![0u8; slice.len()];
        let bit_of = |sign: i8| if sign > 0 { INCREASE } else { DECREASE };
        for (run, kept) in measured.runs.iter().zip(kept) {
            let row = run.y as usize * width;
            near[row + run.x0 as usize..row + run.x1 as usize].fill(if *kept {
                bit_of(run.sign) << CORE
            } else {
                SPECK
            });
        }
        for (run, _) in measured.runs.iter().zip(kept).filter(|(_, kept)| **kept) {
            let bit = bit_of(run.sign);
            let y = run.y as usize;
            let columns = run.x0 as usize..run.x1 as usize;
            let mut around =
                |by: usize, bit: u8| mark(&mut near, width, y, columns.clone(), by, bit);
            around(self.grow, bit);
            around(self.grow + SHELL, BESIDE);
            let high = f64::from(run.peak.abs()) > DOUBTFUL * measured.threshold;
            if high || self.is_thick(at, run, width) {
                mark(
                    &mut near,
                    width,
                    y,
                    columns,
                    self.grow + SPEAKS_FOR,
                    bit << SURE,
                );
            }
        }
        near
    }

    /// Whether a run has a voxel in the middle of a square whose corners are filled, in the slices above and below too.
    fn is_thick(&self, at: usize, run: &Run, width: usize) -> bool {
        let half = THICK / 2;
        let y = run.y as usize;
        let inside = half..(width - half).max(half);
        if y < half || y + half >= self.region.height() {
            return false;
        }
        // the ends of the measured slices hide what goes on there
        let slices = at.saturating_sub(1)..(at + 2).min(self.window.len());
        (run.x0 as usize..run.x1 as usize)
            .filter(|x| inside.contains(x))
            .any(|x| {
                self.window.range(slices.clone()).all(|entry| {
                    [y - half, y + half + 1 - CORNER].iter().all(|top| {
                        [x - half, x + half + 1 - CORNER].iter().all(|left| {
                            self.corner(entry, width, *top, *left) * f32::from(run.sign) >= FILLED
                        })
                    })
                })
            })
    }

    /// Mean change of a corner in units of the threshold; NaN where it holds a voxel that is not finite.
    fn corner(&self, entry: &Entry, width: usize, top: usize, left: usize) -> f32 {
        let mut sum = 0.0;
        for y in top..top + CORNER {
            for x in left..left + CORNER {
                let at = y * width + x;
                let p = self.profile.at(self.region.radius_squared(y, x));
                sum += entry.slice[at] / entry.measured.level.at(p, entry.edge(at));
            }
        }
        sum / (CORNER * CORNER) as f32
    }

    /// Change that stands out in cubes of voxels away from grains, increase and decrease of the `index`-th slice; none where sums do not grow.
    pub(super) fn below(&self, index: usize) -> [f64; 2] {
        self.below.of_slice(index)
    }

    fn take(&mut self) -> Measured {
        let here = self.next;
        let around = here.saturating_sub(self.grow)..(here + self.grow + 1).min(self.window.len());
        let near: Vec<&[u8]> = self
            .window
            .range(around)
            .map(|entry| entry.near.as_slice())
            .collect();
        let entry = &self.window[here];
        let width = entry.slice.len() / self.region.height();
        let height = self.region.height();
        let mut below = std::mem::take(&mut self.below);
        let grower = &*self;
        let rows: Vec<([Side; 2], [f64; 2])> = below
            .rows(height, width)
            .into_par_iter()
            .enumerate()
            .flat_map_iter(|(row, cubes)| {
                let near = &near;
                (row * SIDE..((row + 1) * SIDE).min(height))
                    .map(move |y| grower.row(y, width, entry, near, &mut *cubes))
            })
            .collect();
        below.end_slice();
        self.below = below;
        let entry = &mut self.window[here];
        (entry.slice, entry.edges) = (Vec::new(), Vec::new());
        let measured = &mut entry.measured;
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
                kept.edges += row[side].edges;
                kept.doubtful += row[side].doubtful;
            }
        }
        let [count, sum] = rows
            .iter()
            .fold([0.0; 2], |[n, s], (_, [count, sum])| [n + count, s + sum]);
        measured.beside = if count > 0.0 { sum / count } else { 0.0 };
        let measured = measured.clone();
        self.next += 1;
        let past = self
            .next
            .saturating_sub(self.grow)
            .min(self.undecided.saturating_sub(LOOK));
        self.window.drain(..past);
        self.next -= past;
        self.undecided -= past;
        measured
    }

    /// Sums of row `y`, and number and sum of what lies beside grains; what is at none goes to the `cubes`.
    fn row(
        &self,
        y: usize,
        width: usize,
        entry: &Entry,
        near: &[&[u8]],
        cubes: &mut [Cube],
    ) -> ([Side; 2], [f64; 2]) {
        let Entry {
            measured,
            slice,
            near: near_here,
            ..
        } = entry;
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
                if around & BESIDE == 0 {
                    if let Some(cube) = cubes.get_mut(x / SIDE) {
                        let p = self.profile.at(self.region.radius_squared(y, x));
                        let noise = measured.level.noise(p, entry.edge(at));
                        cube.add((value - measured.spread.center) as f32, noise);
                    }
                } else if near_here[at] & SPECK == 0 {
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
            let p = f64::from(self.profile.at(self.region.radius_squared(y, x)));
            for (side, bit, sign) in [(0, INCREASE, 1.0), (1, DECREASE, -1.0)] {
                if bits & bit != 0 {
                    let side: &mut Side = &mut sides[side];
                    side.summed += 1;
                    side.sum += sign * share * value;
                    if (around >> SURE) & bit == 0 {
                        side.doubtful += sign * share * value;
                    }
                    side.squares += share * share * p * p;
                    side.edges += (share * f64::from(entry.edge(at))).powi(2);
                }
            }
        }
        (sides, beside)
    }
}

/// Sets `bit` in the voxels of a slice that are at most `by` from `columns` of row `y`, along each axis.
pub(super) fn mark(
    near: &mut [u8],
    width: usize,
    y: usize,
    columns: Range<usize>,
    by: usize,
    bit: u8,
) {
    let rows = y.saturating_sub(by)..(y + by + 1).min(near.len() / width);
    let columns = columns.start.saturating_sub(by)..(columns.end + by).min(width);
    for row in rows {
        near[row * width + columns.start..row * width + columns.end]
            .iter_mut()
            .for_each(|bits| *bits |= bit);
    }
}
