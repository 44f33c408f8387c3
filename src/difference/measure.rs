//! One slice of the difference: its noise, its threshold, and what lies beyond.

use super::grains::Run;
use super::histogram::ChangeHistogram;
use super::noise::NoiseModel;
use super::region::Region;
use super::spread::{Spread, upper_tail};

/// How the threshold is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rule {
    /// Multiple of sigma(z, r).
    Sigma(f64),
    /// The same everywhere.
    Absolute(f64),
    /// False-discovery rate, and the multiple of sigma(z, r) that keeps it.
    Discovery(f64, f64),
}

/// What is the same for all slices.
pub(super) struct Measure<'a> {
    pub(super) region: &'a Region,
    pub(super) model: &'a NoiseModel,
    pub(super) rule: Rule,
    /// Changes below this are rounding of f32.
    pub(super) floor: f64,
    pub(super) bins: usize,
}

/// Voxels beyond the threshold on one side.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Side {
    pub(super) voxels: u64,
    /// Voxels that are in the sum: these, or those of grains and around them.
    pub(super) summed: u64,
    /// Sum of their change, positive on both sides.
    pub(super) sum: f64,
    /// Sum of their p(r)^2: times s(z)^2 the variance of the sum of independent voxels.
    pub(super) squares: f64,
    /// Sum of the squares of what edges of the reference leave in them.
    pub(super) edges: f64,
    /// The part of the sum that may be no change at all ([`super::grow`]).
    pub(super) doubtful: f64,
    /// Variance from voxels that may as well have stayed below the threshold.
    pub(super) edge: f64,
}

/// Noise and threshold of the voxels of a slice.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Level {
    /// Threshold where p is 1 and nothing is left by edges.
    base: f32,
    /// s(z), and 1 / s(z); 0 where there is no noise.
    sigma: f32,
    per_sigma: f32,
    /// Changes below this are rounding of f32.
    floor: f32,
    /// Whether the threshold goes with the noise of the voxel, or is the same everywhere.
    follows: bool,
}

impl Level {
    /// Threshold of a voxel of noise p s(z) that edges of the reference leave `edge` in.
    pub(super) fn at(&self, p: f32, edge: f32) -> f32 {
        if self.follows {
            (self.base * self.widened(p, edge)).max(self.floor)
        } else {
            self.base
        }
    }

    /// What such a voxel scatters by.
    pub(super) fn noise(&self, p: f32, edge: f32) -> f32 {
        self.sigma * self.widened(p, edge)
    }

    /// p with what edges leave, in units of s(z).
    fn widened(&self, p: f32, edge: f32) -> f32 {
        if edge == 0.0 {
            p
        } else {
            p.hypot(self.per_sigma * edge)
        }
    }
}

/// One slice, measured.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) z: usize,
    pub(super) spread: Spread,
    /// s(z), from the slice or the sample.
    pub(super) sigma: f64,
    /// Root mean square over the region.
    pub(super) threshold: f64,
    /// That of each voxel.
    pub(super) level: Level,
    /// Increase and decrease.
    pub(super) sides: [Side; 2],
    /// Finite voxels.
    pub(super) voxels: u64,
    pub(super) not_finite: u64,
    /// Sum of all of them.
    pub(super) total: f64,
    /// Mean of the voxels around the grains of the slice ([`super::grow`]).
    pub(super) beside: f64,
    /// Voxels expected beyond the threshold on each side by noise alone.
    pub(super) expected: f64,
    pub(super) runs: Vec<Run>,
    /// Grains among them, where specks were told from grains.
    pub(super) components: Option<u64>,
    pub(super) histogram: ChangeHistogram,
}

impl Measure<'_> {
    /// Measures slice `z`, `[y, x]`, with what edges of the reference add to the noise, where they do.
    pub(super) fn slice(&self, z: usize, slice: &[f32], edges: Option<&[f32]>) -> Measured {
        self.slice_with(z, slice, edges, None)
    }

    /// The same with s(z) given.
    pub(super) fn slice_with(
        &self,
        z: usize,
        slice: &[f32],
        edges: Option<&[f32]>,
        sigma: Option<f64>,
    ) -> Measured {
        let spread = self.model.of_slice(slice, self.region);
        let sigma = sigma.unwrap_or_else(|| self.model.sigma_at(z, &spread));
        let base = match self.rule {
            Rule::Sigma(multiple) | Rule::Discovery(_, multiple) => multiple * sigma,
            Rule::Absolute(level) => level,
        }
        .max(self.floor);
        let mut histogram = ChangeHistogram::new(self.bins, self.model.sigma.max(self.floor));
        histogram.add(self.region.voxels(slice).map(|(_, _, value)| value));
        let mut found = Measured {
            z,
            spread,
            sigma,
            threshold: base,
            level: Level {
                base: base as f32,
                sigma: sigma as f32,
                per_sigma: if sigma > 0.0 {
                    (1.0 / sigma) as f32
                } else {
                    0.0
                },
                floor: self.floor as f32,
                follows: !matches!(self.rule, Rule::Absolute(_)),
            },
            sides: [Side::default(); 2],
            voxels: 0,
            not_finite: 0,
            total: 0.0,
            beside: 0.0,
            expected: 0.0,
            runs: Vec::new(),
            components: None,
            histogram,
        };
        let width = slice.len() / self.region.height();
        for y in 0..self.region.height() {
            let columns = y * width..(y + 1) * width;
            let edges = edges.map(|edges| &edges[columns.clone()]);
            self.row(y, &slice[columns], edges, &mut found);
        }
        let ratio = if sigma > 0.0 {
            base / sigma
        } else {
            f64::INFINITY
        };
        found.expected = found.voxels as f64
            * match self.rule {
                Rule::Sigma(_) | Rule::Discovery(..) => upper_tail(ratio),
                Rule::Absolute(_) => self.model.mean_tail(ratio),
            };
        found
    }

    fn row(&self, y: usize, row: &[f32], edges: Option<&[f32]>, found: &mut Measured) {
        let flat = self.model.profile.is_flat();
        let mut total = 0.0;
        let mut open: Option<Run> = None;
        for x in self.region.row(y) {
            let value = row[x];
            if !value.is_finite() {
                found.not_finite += 1;
                found.runs.extend(open.take());
                continue;
            }
            found.voxels += 1;
            total += f64::from(value);
            let p = if flat {
                1.0
            } else {
                self.model.profile.at(self.region.radius_squared(y, x))
            };
            let at_edge = edges.map_or(0.0, |edges| edges[x]);
            let threshold = found.level.at(p, at_edge);
            if value.abs() <= threshold {
                found.runs.extend(open.take());
                continue;
            }
            let sign = if value > 0.0 { 1i8 } else { -1 };
            self.count(value, threshold, p, at_edge, found);
            match &mut open {
                Some(run) if run.sign == sign => {
                    run.x1 += 1;
                    run.sum += f64::from(value);
                    if value.abs() > run.peak.abs() {
                        run.peak = value;
                    }
                }
                _ => {
                    found.runs.extend(open.take());
                    let (y, x) = (y as u32, x as u32);
                    open = Some(Run {
                        y,
                        x0: x,
                        x1: x + 1,
                        sign,
                        peak: value,
                        sum: f64::from(value),
                    });
                }
            }
        }
        found.runs.extend(open);
        found.total += total;
    }

    fn count(&self, value: f32, threshold: f32, p: f32, at_edge: f32, found: &mut Measured) {
        let side = &mut found.sides[usize::from(value < 0.0)];
        let (size, p, threshold) = (f64::from(value.abs()), f64::from(p), f64::from(threshold));
        side.voxels += 1;
        side.summed += 1;
        side.sum += size;
        side.squares += p * p;
        side.edges += f64::from(at_edge).powi(2);
        // a voxel at the edge of its grain is in or out by chance: variance T^2 q (1 - q), q being the chance to be in;
        // doubled for the voxels of the same kind that are out and not seen here
        let off = (size - threshold) / (found.sigma * p);
        if off < 5.0 {
            let out = upper_tail(off);
            side.edge += 2.0 * threshold * threshold * out * (1.0 - out);
        }
    }
}
