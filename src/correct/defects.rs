//! Pixels that answer wrongly, found once over all scans of a series.
//!
//! A detector pixel with a wrong response makes a stripe at the same place in every scan, while the sample moved between
//! them. So the place is looked for in all scans together, and the same pixels are interpolated in each: whatever this
//! does to the slices, it does the same to both sides of a difference, and good columns are not touched at all. Methods
//! that judge each scan alone change other columns in each, and rings and lost detail survive into the difference.
//!
//! For each pixel and scan the anomaly is the mean over the angles, without the lowest and highest tenth, of
//! `T(col) / mean(T(col - 2), T(col + 2)) - 1` with T the transmission (a wrong response of up to two adjacent columns
//! shows in full), then the median over five rows. Its noise is the scatter over the columns of a row (1.4826 times the
//! median absolute value): mostly structure of the sample, which moves. A pixel is a defect where the anomalies of all
//! scans have one sign and the least of them exceeds `ratio` times that noise.

use std::ops::Range;

use ndarray::{Array2, Axis, s};
use rayon::prelude::*;

use super::CorrectedScan;
use crate::config::StripeMethod;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::scan::SinogramSource;

/// Distance of the columns compared with \[px\].
const REACH: usize = 2;
/// Rows on each side of the median over rows.
const HALO: usize = 2;
/// Scans looked at, at most, spread over the series: a defect shows in all of them.
pub const MOST_SCANS: usize = 5;

/// Pixels of the detector that answer wrongly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefectMap {
    flagged: Array2<bool>,
}

impl DefectMap {
    /// Whether the pixel is a defect.
    #[must_use]
    pub fn contains(&self, row: usize, col: usize) -> bool {
        self.flagged[[row, col]]
    }

    /// Number of defects.
    #[must_use]
    pub fn count(&self) -> usize {
        self.flagged.iter().filter(|&&flag| flag).count()
    }

    /// `[row, col]`
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        self.flagged.dim()
    }
}

/// Finds the defects that all of `scans` share, `slab` rows at a time.
///
/// # Errors
/// [`Error::Shape`] when the detectors differ; those of reading.
pub fn find(
    scans: &[CorrectedScan],
    ratio: f32,
    slab: usize,
    progress: &Progress,
) -> Result<DefectMap> {
    let plain: Vec<CorrectedScan> = scans
        .iter()
        .map(|scan| scan.with_stripes(StripeMethod::None))
        .collect();
    let Some(first) = plain.first() else {
        return Ok(DefectMap {
            flagged: Array2::from_elem((0, 0), false),
        });
    };
    let (n_rows, n_cols) = (first.n_rows(), first.n_cols());
    for scan in &plain {
        if (scan.n_rows(), scan.n_cols()) != (n_rows, n_cols) {
            return Err(Error::Shape {
                what: format!("detector of {} [row, col]", scan.scan().path.display()),
                expected: vec![n_rows, n_cols],
                found: vec![scan.n_rows(), scan.n_cols()],
                hint: "defects can be found together only for one detector: set correct.defects.find = false".into(),
            });
        }
    }
    let stage = progress.stage("finding defects", (n_rows * plain.len()) as u64, "rows");
    let mut flagged = Array2::from_elem((n_rows, n_cols), false);
    for start in (0..n_rows).step_by(slab.max(1)) {
        let rows = start..(start + slab.max(1)).min(n_rows);
        let with_halo = rows.start.saturating_sub(HALO)..(rows.end + HALO).min(n_rows);
        let mut maps = Vec::with_capacity(plain.len());
        for scan in &plain {
            let raw = anomalies(scan, with_halo.clone())?;
            maps.push(median_over_rows(&raw, &with_halo, &rows));
            stage.inc(rows.len() as u64);
        }
        for (k, row) in rows.enumerate() {
            let lines: Vec<_> = maps.iter().map(|map| map.row(k).to_vec()).collect();
            for (col, flag) in vote(&lines, ratio).into_iter().enumerate() {
                flagged[[row, col]] = flag;
            }
        }
    }
    Ok(DefectMap { flagged })
}

/// The anomaly of each pixel of `rows`, `[row, col]`.
fn anomalies(scan: &CorrectedScan, rows: Range<usize>) -> Result<Array2<f32>> {
    let (transmission, _) = scan.transmission(rows)?;
    let (n_rows, n_angles, n_cols) = transmission.dim();
    let mut out = Array2::zeros((n_rows, n_cols));
    out.axis_iter_mut(Axis(0))
        .into_par_iter()
        .zip(transmission.axis_iter(Axis(0)))
        .for_each(|(mut out, sinogram)| {
            let mut ratios = Vec::with_capacity(n_angles);
            for col in 0..n_cols {
                // at the edges the one neighbour counts for both
                let left = if col >= REACH {
                    col - REACH
                } else {
                    col + REACH
                };
                let right = if col + REACH < n_cols {
                    col + REACH
                } else {
                    col.saturating_sub(REACH)
                };
                ratios.clear();
                ratios.extend(sinogram.outer_iter().filter_map(|line| {
                    let around = 0.5 * (line[left.min(n_cols - 1)] + line[right]);
                    let ratio = line[col] / around - 1.0;
                    (around > 1e-3 && ratio.is_finite()).then_some(ratio)
                }));
                out[col] = trimmed_mean(&mut ratios);
            }
        });
    Ok(out)
}

/// Mean without the lowest and highest tenth; 0 for no values.
fn trimmed_mean(values: &mut [f32]) -> f32 {
    let drop = values.len() / 10;
    let kept = if drop == 0 {
        &values[..]
    } else {
        let end = values.len() - drop;
        values.select_nth_unstable_by(drop, f32::total_cmp);
        values[drop..].select_nth_unstable_by(end - drop - 1, f32::total_cmp);
        // the order within is left by the selection, which is the same for the same input
        &values[drop..end]
    };
    let sum: f64 = kept.iter().map(|&v| f64::from(v)).sum();
    (sum / kept.len().max(1) as f64) as f32
}

/// Median over the rows within [`HALO`], for `rows` of a map that holds `held`.
fn median_over_rows(map: &Array2<f32>, held: &Range<usize>, rows: &Range<usize>) -> Array2<f32> {
    Array2::from_shape_fn((rows.len(), map.ncols()), |(k, col)| {
        let row = rows.start + k;
        let low = row.saturating_sub(HALO).max(held.start) - held.start;
        let high = (row + HALO + 1).min(held.end) - held.start;
        let mut around = map.slice(s![low..high, col]).to_vec();
        median(&mut around)
    })
}

fn median(values: &mut [f32]) -> f32 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// Columns of one row that are anomalous in all scans; `lines` are the anomalies of each scan.
fn vote(lines: &[Vec<f32>], ratio: f32) -> Vec<bool> {
    let n_cols = lines.first().map_or(0, Vec::len);
    let noise = lines
        .iter()
        .map(|line| {
            let mut size: Vec<f32> = line.iter().map(|v| v.abs()).collect();
            1.4826 * median(&mut size)
        })
        .fold(0f32, f32::max)
        .max(1e-6);
    let shared: Vec<f32> = (0..n_cols)
        .map(|col| {
            let least = lines
                .iter()
                .map(|line| line[col].abs())
                .fold(f32::INFINITY, f32::min);
            let positive = lines[0][col] > 0.0;
            if lines.iter().all(|line| (line[col] > 0.0) == positive) {
                if positive { least } else { -least }
            } else {
                0.0
            }
        })
        .collect();
    (0..n_cols)
        .map(|col| {
            let value = shared[col];
            if value.abs() <= ratio * noise {
                return false;
            }
            // a neighbour of a defect sees half of it with the other sign
            let ghost = [col.checked_sub(REACH), Some(col + REACH)]
                .into_iter()
                .flatten()
                .any(|other| {
                    shared.get(other).is_some_and(|&other| {
                        other * value < 0.0 && other.abs() > 1.3 * value.abs()
                    })
                });
            !ghost
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64) -> Vec<f32> {
        let mut state = seed;
        (0..200)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.002
            })
            .collect()
    }

    #[test]
    fn a_defect_of_all_scans_is_found_and_its_neighbours_are_not() {
        let mut lines = vec![noise(1), noise(2), noise(3)];
        for line in &mut lines {
            for (col, share) in [
                (50, 1.0),
                (51, 1.0),
                (48, -0.5),
                (49, -0.5),
                (52, -0.5),
                (53, -0.5),
            ] {
                line[col] += 0.02 * share;
            }
        }
        // structure of the sample of one scan
        lines[1][120] += 0.05;
        let flags = vote(&lines, 5.0);
        let found: Vec<usize> = (0..200).filter(|&col| flags[col]).collect();
        assert_eq!(found, [50, 51]);
    }

    #[test]
    fn the_trimmed_mean_forgets_outliers() {
        let mut values: Vec<f32> = (0..100).map(|k| if k < 9 { 1e6 } else { 2.0 }).collect();
        assert!((trimmed_mean(&mut values) - 2.0).abs() < 1e-6);
        assert_eq!(trimmed_mean(&mut []), 0.0);
    }
}
