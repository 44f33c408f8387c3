//! Takes the slow part of the deviation of wrong pixels off one sinogram.

use std::ops::Range;

use super::Verdict;
use super::broad::{self, StepSum};
use crate::correct::bad_pixels::lagrange;
use crate::correct::sliding::running_median;

/// Buffers of one sinogram.
#[derive(Default)]
pub(in crate::correct) struct Scratch {
    deviation: Vec<f32>,
    slow: Vec<f32>,
    window: Vec<f32>,
}

/// Share of the scan over which the deviation of a pixel is taken as slow.
const SHARE: usize = 8;
/// The same for the level of a broad stripe: it was steady through the scans, and its error is spread over many columns.
const SHARE_BROAD: usize = 2;
/// Good neighbours are looked for this far \[px\].
const REACH: usize = 32;

/// Corrects the columns of the transmission sinogram `[angle, col]` that `verdicts` `[col]` names, in place.
///
/// The deviation is `-ln` of the column less the cubic through the two nearest good columns on either side (a straight
/// line where a side has one). Its slow part, a straight line and a running median over an eighth of the
/// angles of the rest, is taken off: the median follows steps and forgets structure that passes the column quickly.
pub(super) fn treat(
    sinogram: &mut [f32],
    verdicts: &[Verdict],
    min_transmission: f32,
    scratch: &mut Scratch,
) {
    let n_cols = verdicts.len();
    let n_angles = sinogram.len().checked_div(n_cols).unwrap_or(0);
    let mut exponents: Vec<(usize, Vec<f32>)> = Vec::new();
    for col in (0..n_cols).filter(|&col| verdicts[col] == Verdict::Corrected) {
        // the search flags no pixel without good neighbours
        let Some((columns, weights)) = neighbours(verdicts, col) else {
            continue;
        };
        let Scratch {
            deviation,
            slow,
            window,
        } = scratch;
        deviation.clear();
        deviation.extend(sinogram.chunks_exact(n_cols).map(|line| {
            let integral = |c: usize| -line[c].max(min_transmission).ln();
            let around: f32 = columns
                .iter()
                .zip(weights)
                .map(|(&c, w)| w * integral(c))
                .sum();
            integral(col) - around
        }));
        slow_part(deviation, SHARE, slow, window);
        exponents.push((col, slow.clone()));
    }
    for (col, slow) in exponents {
        for angle in 0..n_angles {
            sinogram[angle * n_cols + col] *= slow[angle].exp();
        }
    }
}

/// Brings the broad stripes `runs` of the transmission sinogram `[angle, col]` to the level of their surroundings, in place.
///
/// The deviation at either edge is the step of `-ln` there; its slow part (as in [`treat`], over half of the angles) is
/// taken off, in a straight line from edge to edge.
pub(super) fn level(
    sinogram: &mut [f32],
    verdicts: &[Verdict],
    runs: &[Range<usize>],
    min_transmission: f32,
    scratch: &mut Scratch,
) {
    let n_cols = verdicts.len();
    let Scratch {
        deviation,
        slow,
        window,
    } = scratch;
    for (columns, sums) in measured(verdicts, runs) {
        let [left, right] = sums.map(|sum| {
            deviation.clear();
            deviation.extend(
                sinogram
                    .chunks_exact(n_cols)
                    .map(|line| sum.of(|col| -line[col].max(min_transmission).ln())),
            );
            slow_part(deviation, SHARE_BROAD, slow, window);
            slow.clone()
        });
        for (line, (&left, &right)) in sinogram
            .chunks_exact_mut(n_cols)
            .zip(left.iter().zip(&right))
        {
            for col in columns.clone() {
                line[col] *= broad::between([left, -right], &columns, col).exp();
            }
        }
    }
}

/// The runs whose steps can be measured, with the sums that do.
pub(super) fn measured(
    verdicts: &[Verdict],
    runs: &[Range<usize>],
) -> Vec<(Range<usize>, [StepSum; 2])> {
    // no run is measured on the columns of another
    let inside = |col: usize| runs.iter().position(|run| run.contains(&col));
    let of_run = |(index, columns): (usize, &Range<usize>)| {
        let good = |col: usize| {
            verdicts[col] == Verdict::Good && inside(col).is_none_or(|other| other == index)
        };
        let sums = broad::edges(columns, verdicts.len(), good)?;
        Some((columns.clone(), sums))
    };
    runs.iter().enumerate().filter_map(of_run).collect()
}

/// The two nearest good columns on either side of `col` and the weights of the cubic through them, or one on either side and
/// those of a straight line, each standing twice; `None` where a side has none.
pub(in crate::correct) fn neighbours(
    verdicts: &[Verdict],
    col: usize,
) -> Option<([usize; 4], [f32; 4])> {
    let good = |&c: &usize| verdicts[c] == Verdict::Good;
    let mut left = (col.saturating_sub(REACH)..col).rev().filter(good);
    let mut right = (col + 1..(col + 1 + REACH).min(verdicts.len())).filter(good);
    let away = |c: usize| c as f32 - col as f32;
    match (left.next(), left.next(), right.next(), right.next()) {
        (Some(l1), Some(l2), Some(r1), Some(r2)) => Some((
            [l2, l1, r1, r2],
            lagrange([away(l2), away(l1), away(r1), away(r2)]),
        )),
        (Some(l1), _, Some(r1), _) => {
            let [a, b] = lagrange([away(l1), away(r1)]);
            Some(([l1, l1, r1, r1], [0.0, a, b, 0.0]))
        }
        _ => None,
    }
}

/// Samples of the running median of a pixel over `n_angles`, an odd number.
pub(in crate::correct) fn median_width(n_angles: usize) -> usize {
    (n_angles / SHARE) | 1
}

/// The same at the edge of a broad stripe.
pub(in crate::correct) fn median_width_broad(n_angles: usize) -> usize {
    (n_angles / SHARE_BROAD) | 1
}

/// The slow part of a deviation by running medians over `width` samples.
pub(in crate::correct) fn slow_part_over(deviation: &mut [f32], width: usize) -> Vec<f32> {
    let (mut slow, mut window) = (Vec::new(), Vec::new());
    slow_part_of(deviation, width, &mut slow, &mut window);
    slow
}

/// The slow part of the deviation of a pixel: over an eighth of the samples.
pub(in crate::correct) fn slow_part_of_pixel(
    deviation: &mut [f32],
    slow: &mut Vec<f32>,
    window: &mut Vec<f32>,
) {
    slow_part(deviation, SHARE, slow, window);
}

/// Straight line plus running median of the rest, over the `share`-th part of the samples.
fn slow_part(deviation: &mut [f32], share: usize, slow: &mut Vec<f32>, window: &mut Vec<f32>) {
    let width = (deviation.len() / share) | 1;
    slow_part_of(deviation, width, slow, window);
}

fn slow_part_of(deviation: &mut [f32], width: usize, slow: &mut Vec<f32>, window: &mut Vec<f32>) {
    // the line is fitted to the medians, not to the samples: structure that passes has no say
    running_median(deviation, width, slow, window);
    let (offset, slope) = line_through(slow);
    for (k, value) in deviation.iter_mut().enumerate() {
        *value -= offset + slope * k as f32;
    }
    running_median(deviation, width, slow, window);
    for (k, value) in slow.iter_mut().enumerate() {
        *value += offset + slope * k as f32;
    }
}

/// Offset and slope of the least-squares line.
fn line_through(values: &[f32]) -> (f32, f32) {
    let n = values.len() as f64;
    let middle = (n - 1.0) / 2.0;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n.max(1.0);
    let (mut across, mut spread) = (0.0, 0.0);
    for (k, &value) in values.iter().enumerate() {
        across += (k as f64 - middle) * f64::from(value);
        spread += (k as f64 - middle).powi(2);
    }
    let slope = if spread > 0.0 { across / spread } else { 0.0 };
    ((mean - slope * middle) as f32, slope as f32)
}
