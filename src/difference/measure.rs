//! One slice of the difference: its noise, its threshold, and what lies beyond.

use super::grains::Run;
use super::histogram::ChangeHistogram;
use super::noise::NoiseModel;
use super::region::Region;
use super::spread::{Spread, upper_tail};

/// Slices with fewer voxels take the noise of the sample.
const LEAST_VOXELS: u64 = 200;

/// How the threshold is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rule {
    /// Multiple of sigma(z, r).
    Sigma(f64),
    /// The same everywhere.
    Absolute(f64),
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
    /// Sum of their change, positive on both sides.
    pub(super) sum: f64,
    /// Sum of their p(r)^2: times s(z)^2 the variance of the sum of independent voxels.
    pub(super) squares: f64,
    /// Variance from voxels that may as well have stayed below the threshold.
    pub(super) edge: f64,
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
    /// Increase and decrease.
    pub(super) sides: [Side; 2],
    /// Finite voxels.
    pub(super) voxels: u64,
    pub(super) not_finite: u64,
    /// Sum of all of them.
    pub(super) total: f64,
    /// Voxels expected beyond the threshold on each side by noise alone.
    pub(super) expected: f64,
    pub(super) runs: Vec<Run>,
    pub(super) histogram: ChangeHistogram,
}

impl Measure<'_> {
    /// Measures slice `z`, `[y, x]`.
    pub(super) fn slice(&self, z: usize, slice: &[f32]) -> Measured {
        let spread = self.model.of_slice(slice, self.region);
        let sigma = if spread.count < LEAST_VOXELS {
            self.model.sigma
        } else {
            spread.sigma
        };
        let base = match self.rule {
            Rule::Sigma(multiple) => multiple * sigma,
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
            sides: [Side::default(); 2],
            voxels: 0,
            not_finite: 0,
            total: 0.0,
            expected: 0.0,
            runs: Vec::new(),
            histogram,
        };
        let width = slice.len() / self.region.height();
        for y in 0..self.region.height() {
            self.row(y, &slice[y * width..(y + 1) * width], &mut found);
        }
        let ratio = if sigma > 0.0 {
            base / sigma
        } else {
            f64::INFINITY
        };
        found.expected = found.voxels as f64
            * match self.rule {
                Rule::Sigma(_) => upper_tail(ratio),
                Rule::Absolute(_) => self.model.mean_tail(ratio),
            };
        found
    }

    fn row(&self, y: usize, row: &[f32], found: &mut Measured) {
        let flat = self.model.profile.is_flat();
        let level = found.threshold as f32;
        let follows = matches!(self.rule, Rule::Sigma(_));
        let floor = self.floor as f32;
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
            let threshold = if follows {
                (level * p).max(floor)
            } else {
                level
            };
            if value.abs() <= threshold {
                found.runs.extend(open.take());
                continue;
            }
            let sign = if value > 0.0 { 1i8 } else { -1 };
            self.count(value, threshold, p, found);
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

    fn count(&self, value: f32, threshold: f32, p: f32, found: &mut Measured) {
        let side = &mut found.sides[usize::from(value < 0.0)];
        let (size, p, threshold) = (f64::from(value.abs()), f64::from(p), f64::from(threshold));
        side.voxels += 1;
        side.sum += size;
        side.squares += p * p;
        // a voxel at the edge of its grain is in or out by chance: variance T^2 q (1 - q), q being the chance to be in;
        // doubled for the voxels of the same kind that are out and not seen here
        let off = (size - threshold) / (found.sigma * p);
        if off < 5.0 {
            let out = upper_tail(off);
            side.edge += 2.0 * threshold * threshold * out * (1.0 - out);
        }
    }
}
