//! Phase correlation of projections half a turn apart, one mirrored.
//!
//! Each detector row is correlated with itself seen from behind; the cross spectra of the rows of a band, and of all pairs of
//! projections, are added before the phase is taken, so that frequencies in which the rows disagree (noise) lose their
//! weight. Lines are differentiated first, after Argyriou & Vlachos, Electron. Lett. 39 (2003) 20030666.
//! What stands still on the detector (stripes, dead pixels, the pattern that a flat leaves) is its own mirror image about its own
//! column, whatever the axis, and would pull the answer there. The mean m of the views of all pairs holds all of it, and
//! what else it holds is symmetric about the true axis c: each pair a, b has b(x) = a(2c - x), so a + b is. Taken off both views
//! of a pair it therefore leaves nothing that stands still and moves no symmetry: no threshold, no bias. The price is the part
//! of the sample that is symmetric itself.
//! A second pass sees only the columns that have a mirror image about the first answer, faded at both ends: on a truncated
//! object any other window pulls the answer towards the middle of the detector.

use std::ops::Range;

use ndarray::{Array2, s};

use super::Answer;
use super::mirror::{Correlator, overlap};
use super::views::OppositePairs;
use crate::error::Result;
use crate::scan::SinogramSource;

/// Rows of a band that are looked at, at most, spread over it.
const ROWS_PER_BAND: usize = 24;
/// A second peak this close in height makes the first a guess.
const MAX_RIVAL: f64 = 0.8;
/// A peak must stand out of the rms of the curve by this: the highest of a thousand normal values reaches 3.2, a smooth curve
/// of noise has fewer independent ones.
const MIN_CLARITY: f64 = 4.5;

/// What the phase correlation says.
pub(super) struct Found {
    /// The answer of each band, `Err` with the reason where there is none.
    pub(super) answers: Vec<Result<Answer, String>>,
    /// Whether what stands still was taken out of the lines.
    pub(super) standing_removed: bool,
}

/// The answer of each band of rows in `bands`.
///
/// On a sample that is round about the axis nothing moves: where fewer than half of the bands give an answer without
/// what stands still, the lines are taken as they are, if that gives more.
///
/// # Errors
/// Those of the source.
pub(super) fn search(
    source: &dyn SinogramSource,
    pairs: &OppositePairs,
    bands: &[Range<usize>],
    range_px: (f64, f64),
) -> Result<Found> {
    let near = read_class(source, &pairs.near, bands)?;
    let far = read_class(source, &pairs.far, bands)?;
    let cleaned = |lines: &[Lines]| {
        lines
            .iter()
            .map(|lines| moving_part(lines))
            .collect::<Vec<_>>()
    };
    let moving = answers(pairs, &cleaned(&near), &cleaned(&far), range_px);
    let count = |answers: &[Result<Answer, String>]| answers.iter().filter(|a| a.is_ok()).count();
    if 2 * count(&moving) < bands.len() {
        let whole = answers(pairs, &near, &far, range_px);
        if count(&whole) > count(&moving) {
            return Ok(Found {
                answers: whole,
                standing_removed: false,
            });
        }
    }
    Ok(Found {
        answers: moving,
        standing_removed: true,
    })
}

/// Pairs of `[row, col]` of one band.
type Lines = Vec<[Array2<f32>; 2]>;

/// The answer of each band from the pairs of both classes.
fn answers(
    pairs: &OppositePairs,
    near: &[Lines],
    far: &[Lines],
    range_px: (f64, f64),
) -> Vec<Result<Answer, String>> {
    let search = |lines: &[Lines]| -> Vec<Result<Answer, String>> {
        lines
            .iter()
            .map(|lines| search_lines(lines, range_px))
            .collect()
    };
    let near = search(near);
    if pairs.far.is_empty() {
        return near;
    }
    let far = search(far);
    let ratio = pairs.near_miss / (pairs.far_miss - pairs.near_miss);
    near.into_iter()
        .zip(far)
        .map(|(near, far)| {
            let (near, far) = (near?, far?);
            // a straight line through (miss, axis), read at a miss of zero
            let axis_px = near.axis_px - ratio * (far.axis_px - near.axis_px);
            let sigma_px = ((1.0 + ratio) * near.sigma_px).hypot(ratio * far.sigma_px);
            if axis_px < range_px.0 || axis_px > range_px.1 {
                return Err("the peak lies at the edge of the search".into());
            }
            Ok(Answer {
                axis_px,
                sigma_px,
                quality: near.quality.min(far.quality),
            })
        })
        .collect()
}

/// The rows of each band that are looked at, of one view: `[row, col]`, one read.
fn read_view(
    source: &dyn SinogramSource,
    view: usize,
    bands: &[Range<usize>],
) -> Result<Vec<Array2<f32>>> {
    let (top, bottom) = (
        bands.iter().map(|b| b.start).min().unwrap_or(0),
        bands.iter().map(|b| b.end).max().unwrap_or(0),
    );
    let view = source.projection(view, top..bottom)?;
    Ok(bands
        .iter()
        .map(|band| {
            let stride = band.len().div_ceil(ROWS_PER_BAND).max(1);
            view.slice(s![band.start - top..band.end - top;stride, ..])
                .to_owned()
        })
        .collect())
}

/// The lines of all pairs, per band.
fn read_class(
    source: &dyn SinogramSource,
    pairs: &[(usize, usize)],
    bands: &[Range<usize>],
) -> Result<Vec<Lines>> {
    let mut lines: Vec<Lines> = bands.iter().map(|_| Vec::new()).collect();
    for &(first, second) in pairs {
        let views = read_view(source, first, bands)?
            .into_iter()
            .zip(read_view(source, second, bands)?);
        for (lines, (first, second)) in lines.iter_mut().zip(views) {
            lines.push([first, second]);
        }
    }
    Ok(lines)
}

/// The pairs less their mean view; see the head of this file. Pixels that are not finite in any view stay out of all.
pub(super) fn moving_part(lines: &[[Array2<f32>; 2]]) -> Lines {
    let Some([first, _]) = lines.first() else {
        return Vec::new();
    };
    let mut mean = Array2::<f32>::zeros(first.dim());
    lines.iter().flatten().for_each(|view| mean += view);
    mean /= (2 * lines.len()) as f32;
    lines
        .iter()
        .map(|pair| pair.each_ref().map(|view| view - &mean))
        .collect()
}

/// The axis from `lines`, pairs of `[row, col]`.
pub(super) fn search_lines(
    lines: &[[Array2<f32>; 2]],
    range_px: (f64, f64),
) -> Result<Answer, String> {
    let (n_rows, n_cols) = lines.first().map_or((0, 0), |pair| pair[0].dim());
    if n_rows == 0 || n_cols < 16 {
        return Err("no pair of projections half a turn apart".into());
    }
    let correlator = Correlator::new(n_cols);
    // the even and the odd lines apart: their distance says how well the axis is known
    let sums = |window: Range<usize>, fade: bool| {
        [0, 1].map(|parity| {
            let n = n_rows * lines.len();
            correlator.sum((n + 1 - parity) / 2, window.clone(), fade, |index, a, b| {
                let line = 2 * index + parity;
                let pair = &lines[line / n_rows];
                for (out, view) in [(a, &pair[0]), (b, &pair[1])] {
                    for (out, &v) in out.iter_mut().zip(view.row(line % n_rows)) {
                        *out = if v.is_finite() { v } else { 0.0 };
                    }
                }
            })
        })
    };
    let joined = |sums: &[super::mirror::Sums; 2]| {
        let mut all = correlator.empty();
        sums.iter().for_each(|s| all.add(s));
        all
    };
    let first = correlator
        .phase_peak(&joined(&sums(0..n_cols, false)), range_px)
        .ok_or("the correlation has no peak inside the search range")?;
    if first.rival > MAX_RIVAL {
        return Err(format!(
            "a second peak is {:.0} % as high",
            100.0 * first.rival
        ));
    }
    if first.clarity < MIN_CLARITY {
        return Err(format!(
            "the peak is only {:.1} times the rms of the rest",
            first.clarity
        ));
    }
    let close = (first.axis_px - 3.0, first.axis_px + 3.0);
    let halves = sums(overlap(n_cols, first.axis_px), true);
    let second = correlator
        .phase_peak(&joined(&halves), close)
        .ok_or("the peak moves when the window is centred on it")?;
    let parts: Vec<f64> = halves
        .iter()
        .filter_map(|h| Some(correlator.phase_peak(h, close)?.axis_px))
        .collect();
    let sigma_px = match parts[..] {
        [even, odd] => 0.5 * (even - odd).abs(),
        _ => 0.25,
    };
    Ok(Answer {
        axis_px: second.axis_px,
        sigma_px: sigma_px.max(0.02),
        quality: 1.0 - first.rival,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::center::testing::Discs;
    use std::f64::consts::PI;

    /// `n` pairs half a turn apart of twelve rows, with the axis at `axis`.
    fn pairs(n: usize, axis: f64) -> Vec<[Array2<f32>; 2]> {
        (0..n)
            .map(|k| {
                let angle = 0.3 + k as f64;
                [angle, angle + PI].map(|angle| {
                    let mut view = Array2::zeros((12, 160));
                    for (row, mut line) in view.outer_iter_mut().enumerate() {
                        Discs::random(row as u64, 20, 50.0).project(
                            axis,
                            angle,
                            line.as_slice_mut().unwrap(),
                        );
                    }
                    view
                })
            })
            .collect()
    }

    /// What a detector adds to every view alike: dead columns, stripes and a smooth pattern, none of it symmetric about the axis.
    fn still(row: usize, col: usize) -> f32 {
        let dead = if [64, 101].contains(&col) { 4.0 } else { 0.0 };
        let stripe = 0.2 * ((col * 7919 + row / 3) % 13) as f32 / 13.0;
        dead + stripe + 0.5 * (1.0 + (0.05 * col as f32).sin())
    }

    #[test]
    fn what_stands_still_leaves_the_pairs_and_moves_no_axis() {
        let axis = 73.4;
        for n in [1, 3] {
            let mut lines = pairs(n, axis);
            let clean = search_lines(&moving_part(&lines), (40.0, 119.0)).unwrap();
            assert!((clean.axis_px - axis).abs() < 0.05, "{n}: {clean:?}");
            lines.iter_mut().flatten().for_each(|view| {
                view.indexed_iter_mut()
                    .for_each(|((r, c), v)| *v += still(r, c))
            });
            let found = search_lines(&moving_part(&lines), (40.0, 119.0)).unwrap();
            // nothing is left of it but the rounding of 1e-7 of 5
            assert!(
                (found.axis_px - clean.axis_px).abs() < 0.005,
                "{n}: {found:?}, {clean:?}"
            );
            let pulled = search_lines(&lines, (40.0, 119.0));
            assert!(
                pulled
                    .as_ref()
                    .map_or(true, |a| (a.axis_px - axis).abs() > 1.0),
                "the check is blind: {pulled:?}"
            );
        }
    }
}
