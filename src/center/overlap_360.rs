//! The mirror match: in a scan of a full turn every view is compared with the one half a turn later, mirrored.
//!
//! All views vote, so noise counts far less than at the two seams of a half turn; and the axis may stand near the
//! edge of the detector (half acquisition), where only a narrow strip is seen from both sides: the correlation is
//! normalised over just the columns that have a mirror image, as in the overlap search of Vo et al., Opt. Express 29
//! (2021) 17849, section 2. Where no view stands exactly opposite, the two beside are mixed linearly, whose shifts cancel.

use ndarray::ArrayView2;

use super::Answer;
use super::mirror::{Correlator, LEAST_OVERLAP, REACH, Sums};
use super::views::{Between, mix};

/// Least correlation coefficient that counts as a match.
const MIN_MATCH: f64 = 0.25;
/// A second peak this close in height makes the first a guess.
const MAX_RIVAL: f64 = 0.9;

/// A match near the edge must be better than one in the middle by this: narrow strips match by chance.
const EDGE_LEAD: f64 = 1.6;

/// The axis of `sinogram` `[angle, col]`; `opposites` are views with what was seen half a turn later.
///
/// It is searched in `wide_px`; where that leads out of `range_px`, the best match inside counts unless it is much poorer.
pub(super) fn search(
    sinogram: ArrayView2<'_, f32>,
    opposites: &[(usize, Between)],
    range_px: (f64, f64),
    wide_px: (f64, f64),
) -> Result<Answer, String> {
    let n_cols = sinogram.ncols();
    if opposites.len() < 8 || n_cols < 16 {
        return Err("fewer than 8 views with an opposite".into());
    }
    let correlator = Correlator::new(n_cols);
    let still = mean_of_pairs(sinogram, opposites);
    let best = |still: &[f32]| {
        let parts = correlate(&correlator, sinogram, opposites, still);
        let mut all = correlator.empty();
        parts.iter().for_each(|part| all.add(part));
        let inside = correlator.matched_peak(&all, range_px);
        let peak = match (correlator.matched_peak(&all, wide_px), inside) {
            (Some(wide), Some(inside)) if wide.height < EDGE_LEAD * inside.height => Some(inside),
            (None, inside) => inside,
            (wide, _) => wide,
        };
        peak.map(|peak| (peak, parts))
    };
    let moving = best(&still);
    // Near an edge few columns have a mirror image: there the part of the sample that is symmetric about the axis is needed
    // too, and what stands still, which matches about other columns, is left in.
    let near_the_edge = |axis_px: f64| axis_px < range_px.0 || axis_px > range_px.1;
    let whole = best(&vec![0.0; n_cols]).filter(|(peak, _)| {
        near_the_edge(peak.axis_px)
            && moving
                .as_ref()
                .is_none_or(|(other, _)| near_the_edge(other.axis_px) || peak.height > other.height)
    });
    let (peak, parts) = whole
        .or(moving)
        .ok_or("the match has no peak inside the search range")?;
    let to_the_edge = peak.axis_px.min(n_cols as f64 - 1.0 - peak.axis_px);
    if 2.0 * (to_the_edge - REACH as f64) < LEAST_OVERLAP + 1.0 {
        return Err("the best match is the narrowest overlap that can be compared".into());
    }
    if peak.height < MIN_MATCH {
        return Err(format!(
            "the best match has a correlation of only {:.2}",
            peak.height
        ));
    }
    if peak.rival > MAX_RIVAL {
        return Err(format!(
            "a second match is {:.0} % as good",
            100.0 * peak.rival
        ));
    }
    let close = (peak.axis_px - 2.0, peak.axis_px + 2.0);
    let votes: Vec<f64> = parts
        .iter()
        .filter_map(|p| Some(correlator.matched_peak(p, close)?.axis_px))
        .collect();
    let sigma_px = match votes[..] {
        [even, odd] => 0.5 * (even - odd).abs(),
        _ => 0.25,
    };
    Ok(Answer {
        axis_px: peak.axis_px,
        sigma_px: sigma_px.max(0.02),
        quality: peak.height,
    })
}

/// Correlation of the views with their opposites less `still`, of the even and of the odd ones.
fn correlate(
    correlator: &Correlator,
    sinogram: ArrayView2<'_, f32>,
    opposites: &[(usize, Between)],
    still: &[f32],
) -> [Sums; 2] {
    [0, 1].map(|parity| {
        correlator.sum(
            (opposites.len() + 1 - parity) / 2,
            0..sinogram.ncols(),
            false,
            |index, a, b| {
                let (view, opposite) = opposites[2 * index + parity];
                mix(
                    sinogram,
                    Between {
                        low: view,
                        high: view,
                        weight: 0.0,
                    },
                    a,
                );
                mix(sinogram, opposite, b);
                for line in [a, b] {
                    line.iter_mut().zip(still).for_each(|(v, m)| *v -= m);
                }
            },
        )
    })
}

/// The mean of all views that are compared: what stands still, and nothing that is not symmetric about the axis
/// (the reason stands in [`super::phase_correlation`]).
fn mean_of_pairs(sinogram: ArrayView2<'_, f32>, opposites: &[(usize, Between)]) -> Vec<f32> {
    let mut sum = vec![0f64; sinogram.ncols()];
    let mut line = vec![0f32; sinogram.ncols()];
    for &(view, opposite) in opposites {
        let itself = Between {
            low: view,
            high: view,
            weight: 0.0,
        };
        for between in [itself, opposite] {
            mix(sinogram, between, &mut line);
            sum.iter_mut()
                .zip(&line)
                .for_each(|(s, &v)| *s += f64::from(v));
        }
    }
    let n = (2 * opposites.len()) as f64;
    sum.into_iter().map(|s| (s / n) as f32).collect()
}
