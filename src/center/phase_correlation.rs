//! Phase correlation of projections half a turn apart, one mirrored.
//!
//! Each detector row is correlated with itself seen from behind; the cross spectra of the rows of a band, and of all pairs of
//! projections, are added before the phase is taken, so that frequencies in which the rows disagree (noise) lose their
//! weight. Lines are differentiated first, after Argyriou & Vlachos, Electron. Lett. 39 (2003) 20030666.
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
const ROWS_PER_BAND: usize = 64;
/// A second peak this close in height makes the first a guess.
const MAX_RIVAL: f64 = 0.8;
/// A peak must stand out of the rms of the curve by this: the highest of a thousand normal values reaches 3.2, a smooth curve
/// of noise has fewer independent ones.
const MIN_CLARITY: f64 = 4.5;

/// The answer of each band of rows in `bands`, `Err` with the reason where there is none.
///
/// # Errors
/// Those of the source.
pub(super) fn search(
    source: &dyn SinogramSource,
    pairs: &OppositePairs,
    bands: &[Range<usize>],
    range_px: (f64, f64),
) -> Result<Vec<Result<Answer, String>>> {
    let near = search_class(source, &pairs.near, bands, range_px)?;
    if pairs.far.is_empty() {
        return Ok(near);
    }
    let far = search_class(source, &pairs.far, bands, range_px)?;
    let ratio = pairs.near_miss / (pairs.far_miss - pairs.near_miss);
    Ok(near
        .into_iter()
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
        .collect())
}

fn search_class(
    source: &dyn SinogramSource,
    pairs: &[(usize, usize)],
    bands: &[Range<usize>],
    range_px: (f64, f64),
) -> Result<Vec<Result<Answer, String>>> {
    let mut lines: Vec<Vec<[Array2<f32>; 2]>> = bands.iter().map(|_| Vec::new()).collect();
    for &(first, second) in pairs {
        let (top, bottom) = (
            bands.iter().map(|b| b.start).min().unwrap_or(0),
            bands.iter().map(|b| b.end).max().unwrap_or(0),
        );
        let views = [
            source.projection(first, top..bottom)?,
            source.projection(second, top..bottom)?,
        ];
        for (band, lines) in bands.iter().zip(&mut lines) {
            let stride = band.len().div_ceil(ROWS_PER_BAND).max(1);
            lines.push(views.each_ref().map(|view| {
                view.slice(s![band.start - top..band.end - top;stride, ..])
                    .to_owned()
            }));
        }
    }
    Ok(lines
        .iter()
        .map(|lines| search_lines(lines, range_px))
        .collect())
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
