//! Zingers beyond the published rule: dark ones, and those of single projections.
//!
//! A sample is compared with the eight at the distances {-s, 0, s} along both axes of a sinogram (angle and column) or of a
//! projection (row and column). For bright ones M is their mean, as published (see `zinger`). Where dark ones count too, M
//! is their median, the mean of the fourth and fifth: a mean is drawn by the outliers themselves, so that the neighbours of
//! a dark sample would look bright and those of a bright one dark. A sample is replaced by M where `value / M - 1` is beyond
//! the threshold, above 0 for bright and below 0 for dark ones. Every sample is judged by the original values of its
//! neighbours; beyond an edge the neighbour on the other side counts twice; where M is not positive nothing is done.

use std::ops::Range;

use ndarray::{Axis, s};
use rayon::prelude::*;

use super::CorrectedScan;
use super::zinger::{neighbour_means, neighbours};
use crate::config::{OutlierKind, ZingerConfig, ZingerDomain};
use crate::error::Result;
use crate::scan::Sinograms;

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rule {
    kind: OutlierKind,
    threshold: f32,
    size: usize,
}

/// What is done beside the bright zingers of sinograms.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Outliers {
    sinogram: Option<Rule>,
    projection: Option<Rule>,
}

impl Outliers {
    pub(super) fn from_config(config: &ZingerConfig) -> Outliers {
        let rule = Rule {
            kind: config.kind,
            threshold: config.threshold,
            size: config.size,
        };
        let (enabled, domain) = (config.enabled, config.domain);
        Outliers {
            sinogram: (enabled
                && domain != ZingerDomain::Projection
                && config.kind != OutlierKind::Bright)
                .then_some(rule),
            projection: (enabled && domain != ZingerDomain::Sinogram).then_some(rule),
        }
    }

    /// Kind, threshold and distance of the rule for sinograms.
    pub(super) fn of_sinograms(&self) -> Option<(OutlierKind, f32, usize)> {
        self.sinogram
            .map(|rule| (rule.kind, rule.threshold, rule.size))
    }

    /// Detector rows held above and below a slab for the projections.
    pub(super) fn halo(&self) -> usize {
        self.projection.map_or(0, |rule| 2 * rule.size)
    }

    /// Replaces the outliers of a sinogram `[angle, col]`; returns how many.
    pub(super) fn in_sinogram(&self, sinogram: &mut [f32], n_cols: usize) -> u64 {
        let n_angles = sinogram.len().checked_div(n_cols).unwrap_or(0);
        let Some(rule) = self.sinogram else {
            return 0;
        };
        if n_cols <= rule.size || n_angles <= rule.size {
            return 0;
        }
        let mut middle = vec![0f32; n_cols];
        let mut found = Vec::new();
        for angle in 0..n_angles {
            let line = |angle: usize| &sinogram[angle * n_cols..(angle + 1) * n_cols];
            let (up, down) = neighbours(angle, rule.size, n_angles);
            let first = angle * n_cols;
            rule.judge(
                line(up),
                line(angle),
                line(down),
                &mut middle,
                |col, value| {
                    found.push((first + col, value));
                },
            );
        }
        for &(index, value) in &found {
            sinogram[index] = value;
        }
        found.len() as u64
    }

    /// Replaces the outliers of the projections in `rows` of `scan`, whose transmission is `sinograms`; returns how many there
    /// are in the `counted` rows.
    ///
    /// # Errors
    /// Those of reading the rows above and below.
    pub(super) fn in_projections(
        &self,
        scan: &CorrectedScan,
        rows: &Range<usize>,
        counted: &Range<usize>,
        sinograms: &mut Sinograms,
    ) -> Result<u64> {
        let (n_rows, n_cols) = (scan.scan.n_rows(), scan.scan.n_cols());
        let Some(rule) = self.projection else {
            return Ok(0);
        };
        if rows.is_empty() || n_cols <= rule.size || n_rows <= rule.size {
            return Ok(0);
        }
        let above = rows.start.saturating_sub(rule.size)..rows.start;
        let below = rows.end..(rows.end + rule.size).min(n_rows);
        let halo = [above.clone(), below.clone()];
        let [over, under] = halo.map(|rows| {
            let divided = scan.divided(rows.clone(), &rows, None);
            divided.map(|(sinograms, _)| sinograms)
        });
        let (over, under) = (over?, under?);
        let given = &*sinograms;
        let line = |row: usize, angle: usize| {
            let (block, first) = if row < rows.start {
                (&over, above.start)
            } else if row < rows.end {
                (given, rows.start)
            } else {
                (&under, below.start)
            };
            block.line(row - first, angle)
        };
        let found: Vec<Vec<(usize, usize, f32)>> = rows
            .clone()
            .into_par_iter()
            .map(|row| {
                let mut middle = vec![0f32; n_cols];
                let mut found = Vec::new();
                let (up, down) = neighbours(row, rule.size, n_rows);
                for angle in 0..given.dim().1 {
                    let lines = [up, row, down].map(|row| line(row, angle));
                    rule.judge(lines[0], lines[1], lines[2], &mut middle, |col, value| {
                        found.push((angle, col, value));
                    });
                }
                found
            })
            .collect();
        let mut count = 0;
        let found = found.into_iter().zip(rows.clone());
        for (mut sinogram, (found, row)) in sinograms.axis_iter_mut(Axis(0)).zip(found) {
            if counted.contains(&row) {
                count += found.len() as u64;
            }
            for (angle, col, value) in found {
                sinogram[[angle, col]] = value;
            }
        }
        Ok(count)
    }
}

/// One line `[col]` of a block `[row, angle, col]`.
trait Lines {
    fn line(&self, row: usize, angle: usize) -> &[f32];
}

impl Lines for Sinograms {
    fn line(&self, row: usize, angle: usize) -> &[f32] {
        let line = self.slice(s![row, angle, ..]).to_slice();
        line.expect("a line of a new array is contiguous")
    }
}

impl Rule {
    /// Calls `found` with column and replacement of every outlier of the line `here`.
    fn judge(
        &self,
        up: &[f32],
        here: &[f32],
        down: &[f32],
        middle: &mut [f32],
        mut found: impl FnMut(usize, f32),
    ) {
        if self.kind == OutlierKind::Bright {
            neighbour_means(up, here, down, self.size, middle);
        } else {
            self.neighbour_medians(up, here, down, middle);
        }
        let (most, least) = (1.0 + self.threshold, 1.0 - self.threshold);
        for (col, (&value, &middle)) in here.iter().zip(&*middle).enumerate() {
            let bright = value > middle * most && self.kind != OutlierKind::Dark;
            let dark = value < middle * least && self.kind != OutlierKind::Bright;
            if middle > 0.0 && (bright || dark) {
                found(col, middle);
            }
        }
    }

    fn neighbour_medians(&self, up: &[f32], here: &[f32], down: &[f32], middle: &mut [f32]) {
        for (col, middle) in middle.iter_mut().enumerate() {
            let (left, right) = neighbours(col, self.size, here.len());
            *middle = median_of_eight([
                up[left],
                up[col],
                up[right],
                here[left],
                here[right],
                down[left],
                down[col],
                down[right],
            ]);
        }
    }
}

/// Mean of the fourth and fifth of eight values, by exchanges without branches.
fn median_of_eight(mut v: [f32; 8]) -> f32 {
    // Batcher's odd-even merge sort of eight
    const PAIRS: [(usize, usize); 19] = [
        (0, 1),
        (2, 3),
        (4, 5),
        (6, 7),
        (0, 2),
        (1, 3),
        (4, 6),
        (5, 7),
        (1, 2),
        (5, 6),
        (0, 4),
        (1, 5),
        (2, 6),
        (3, 7),
        (2, 4),
        (3, 5),
        (1, 2),
        (3, 4),
        (5, 6),
    ];
    for (a, b) in PAIRS {
        let (low, high) = (v[a].min(v[b]), v[a].max(v[b]));
        (v[a], v[b]) = (low, high);
    }
    0.5 * (v[3] + v[4])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(index: usize) -> f32 {
        ((index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1u64 << 24) as f32
    }

    fn of(kind: OutlierKind) -> Outliers {
        let rule = Rule {
            kind,
            threshold: 0.2,
            size: 1,
        };
        Outliers {
            sinogram: Some(rule),
            projection: None,
        }
    }

    #[test]
    fn the_network_gives_the_median() {
        for seed in 0..500 {
            let values: [f32; 8] = std::array::from_fn(|k| (noise(8 * seed + k) * 9.0).floor());
            let mut sorted = values;
            sorted.sort_by(f32::total_cmp);
            assert_eq!(
                median_of_eight(values),
                0.5 * (sorted[3] + sorted[4]),
                "{values:?}"
            );
        }
    }

    #[test]
    fn dark_and_bright_samples_go_and_their_neighbours_stay() {
        let (n_angles, n_cols) = (20, 30);
        let clean: Vec<f32> = (0..n_angles * n_cols)
            .map(|i| 0.5 + 0.02 * noise(i))
            .collect();
        let at = |angle: usize, col: usize| angle * n_cols + col;
        let (dark, bright) = (
            [at(0, 0), at(7, 12), at(19, 29)],
            [at(3, 3), at(12, 0), at(15, 20)],
        );
        let mut given = clean.clone();
        dark.iter().for_each(|&i| given[i] = 0.0);
        bright.iter().for_each(|&i| given[i] = 8.0);
        for (kind, gone) in [
            (OutlierKind::Dark, dark.to_vec()),
            (OutlierKind::Both, [dark, bright].concat()),
        ] {
            let mut found = given.clone();
            assert_eq!(
                of(kind).in_sinogram(&mut found, n_cols),
                gone.len() as u64,
                "{kind:?}"
            );
            for i in 0..given.len() {
                if gone.contains(&i) {
                    assert!((found[i] - 0.51).abs() < 0.011, "{kind:?} {i}");
                } else {
                    assert_eq!(found[i], given[i], "{kind:?} {i}");
                }
            }
        }
        let mut tiny = [0.1, 9.0];
        assert_eq!(of(OutlierKind::Both).in_sinogram(&mut tiny, 1), 0);
    }
}
