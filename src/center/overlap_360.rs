//! The mirror match: in a scan of a full turn every view is compared with the one half a turn later, mirrored.
//!
//! All views vote, so noise counts far less than at the two seams of a half turn; and the axis may stand near the
//! edge of the detector (half acquisition), where only a narrow strip is seen from both sides: the correlation is
//! normalised over just the columns that have a mirror image, as in the overlap search of Vo et al., Opt. Express 29
//! (2021) 17849, section 2. Where no view stands exactly opposite, the two beside are mixed linearly, whose shifts cancel.

use ndarray::ArrayView2;

use super::Answer;
use super::mirror::{Correlator, LEAST_OVERLAP, Peak, REACH, Sums};
use super::views::{Between, mix};

/// Least correlation coefficient that counts as a match.
const MIN_MATCH: f64 = 0.25;
/// A second peak this close in height makes the first a guess.
const MAX_RIVAL: f64 = 0.9;

const NO_PEAK: &str = "the match has no peak inside the search range";
/// A match near the edge must be better than one in the middle by this: narrow strips match by chance.
const EDGE_LEAD: f64 = 1.6;

/// Views of one height correlated with what was seen half a turn later: all that any search of its axis needs.
pub(super) struct Matches {
    correlator: Correlator,
    n_cols: usize,
    /// Of the even and of the odd views, less what stands still.
    moving: [Sums; 2],
    /// The same as they were seen.
    whole: [Sums; 2],
}

impl Matches {
    /// Of `sinogram` `[angle, col]`; `opposites` are views with what was seen half a turn later.
    pub(super) fn new(
        sinogram: ArrayView2<'_, f32>,
        opposites: &[(usize, Between)],
    ) -> Result<Matches, String> {
        let n_cols = sinogram.ncols();
        if opposites.len() < 8 || n_cols < 16 {
            return Err("fewer than 8 views with an opposite".into());
        }
        let correlator = Correlator::new(n_cols);
        let still = mean_of_pairs(sinogram, opposites);
        let moving = correlate(&correlator, sinogram, opposites, &still);
        let whole = correlate(&correlator, sinogram, opposites, &vec![0.0; n_cols]);
        Ok(Matches {
            correlator,
            n_cols,
            moving,
            whole,
        })
    }

    /// The axis, and whether it stands near an edge. It is searched in `wide_px`; where that leads out of `range_px`, the best
    /// match inside counts unless it is much poorer.
    pub(super) fn search(
        &self,
        range_px: (f64, f64),
        wide_px: (f64, f64),
    ) -> Result<(Answer, bool), String> {
        let best = |parts: &[Sums; 2]| {
            let all = self.both(parts);
            let inside = self.correlator.matched_peak(&all, range_px);
            match (self.correlator.matched_peak(&all, wide_px), inside) {
                (Some(wide), Some(inside)) if wide.height < EDGE_LEAD * inside.height => {
                    Some(inside)
                }
                (None, inside) => inside,
                (wide, _) => wide,
            }
        };
        let moving = best(&self.moving);
        // Near an edge few columns have a mirror image: there the part of the sample that is symmetric about the axis is needed
        // too, and what stands still, which matches about other columns, is left in.
        let near_the_edge = |axis_px: f64| axis_px < range_px.0 || axis_px > range_px.1;
        let whole = best(&self.whole).filter(|peak| {
            near_the_edge(peak.axis_px)
                && moving
                    .as_ref()
                    .is_none_or(|other| near_the_edge(other.axis_px) || peak.height > other.height)
        });
        let (peak, parts) = whole
            .map(|peak| (peak, &self.whole))
            .or(moving.map(|peak| (peak, &self.moving)))
            .ok_or(NO_PEAK)?;
        let near = near_the_edge(peak.axis_px);
        Ok((self.answer(&peak, parts)?, near))
    }

    /// The axis within `range_px`, near an edge or not.
    fn search_near(&self, range_px: (f64, f64), near_the_edge: bool) -> Result<Answer, String> {
        let parts = match near_the_edge {
            true => &self.whole,
            false => &self.moving,
        };
        let peak = self.correlator.matched_peak(&self.both(parts), range_px);
        self.answer(&peak.ok_or(NO_PEAK)?, parts)
    }

    /// What a peak is worth.
    fn answer(&self, peak: &Peak, parts: &[Sums; 2]) -> Result<Answer, String> {
        let to_the_edge = peak.axis_px.min(self.n_cols as f64 - 1.0 - peak.axis_px);
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
            .filter_map(|p| Some(self.correlator.matched_peak(p, close)?.axis_px))
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

    fn both(&self, parts: &[Sums; 2]) -> Sums {
        let mut all = self.correlator.empty();
        parts.iter().for_each(|part| all.add(part));
        all
    }
}

/// The axis of each height. Where most of them agree on an edge of the detector, or on its middle, all are asked there: a height
/// with little of the sample matches anywhere by chance. Each keeps the last word on where exactly, within `lean` times its
/// distance from the middle of the heights \[rows\] and a twentieth of the detector. Without a majority each is asked alone.
pub(super) fn search_heights(
    heights: &[(f64, Result<Matches, String>)],
    lean: f64,
    range_px: (f64, f64),
    wide_px: (f64, f64),
) -> Vec<(f64, Result<Answer, String>)> {
    let alone: Vec<_> = heights
        .iter()
        .map(|(_, matches)| {
            matches
                .as_ref()
                .map_err(String::clone)?
                .search(range_px, wide_px)
        })
        .collect();
    let common = common_place(&alone, range_px);
    let middle = heights.iter().map(|(row, _)| row).sum::<f64>() / heights.len().max(1) as f64;
    heights
        .iter()
        .zip(alone)
        .map(|((row, matches), alone)| {
            let answer = match (matches, common) {
                (Ok(matches), Some((place, near_the_edge))) => {
                    let reach = lean * (row - middle).abs() + 0.05 * matches.n_cols as f64;
                    let close = (
                        (place - reach).max(wide_px.0),
                        (place + reach).min(wide_px.1),
                    );
                    let is_there = |found: &(Answer, bool)| {
                        found.1 == near_the_edge && (close.0..=close.1).contains(&found.0.axis_px)
                    };
                    match alone {
                        Ok(found) if is_there(&found) => Ok(found.0),
                        _ => matches.search_near(close, near_the_edge),
                    }
                }
                _ => alone.map(|(answer, _)| answer),
            };
            (*row, answer)
        })
        .collect()
}

/// Where most of the answers lie (near the left edge, in the middle, near the right edge): the middle one of those there, and whether
/// it is near an edge.
fn common_place(
    answers: &[Result<(Answer, bool), String>],
    range_px: (f64, f64),
) -> Option<(f64, bool)> {
    let side = |axis_px: f64| match axis_px {
        left if left < range_px.0 => 0,
        right if right > range_px.1 => 2,
        _ => 1,
    };
    let mut places: [Vec<f64>; 3] = Default::default();
    for (answer, _) in answers.iter().flatten() {
        places[side(answer.axis_px)].push(answer.axis_px);
    }
    let total: usize = places.iter().map(Vec::len).sum();
    let (side, there) = places.iter_mut().enumerate().max_by_key(|(_, p)| p.len())?;
    if there.len() < 2 || 2 * there.len() <= total {
        return None;
    }
    there.sort_by(f64::total_cmp);
    Some((there[there.len() / 2], side != 1))
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Discs, degrees};
    use super::super::views::Views;
    use super::*;

    #[test]
    fn a_height_that_matches_at_the_other_edge_follows_the_others() {
        let angles = degrees(0.0, 1.5, 240);
        let opposites = Views::new(&angles).unwrap().opposites(1500);
        let discs = |seed: u64, axis: f64| {
            Discs::random(seed, 40, 130.0).sinogram(240, 160, axis, |k| angles[k as usize])
        };
        let good = discs(1, 14.7);
        // what stands for the sample is faint; what moves about a column at the other edge is not
        let astray = 0.3_f32 * discs(2, 14.7) + discs(3, 143.2);
        let (range, wide) = ((40.0, 119.0), (4.0, 155.0));
        let of = |sinograms: &[&ndarray::Array2<f32>]| -> Vec<Result<Answer, String>> {
            let heights: Vec<_> = sinograms
                .iter()
                .enumerate()
                .map(|(row, sinogram)| (row as f64, Matches::new(sinogram.view(), &opposites)))
                .collect();
            let found = search_heights(&heights, 0.02, range, wide);
            found.into_iter().map(|(_, answer)| answer).collect()
        };
        let alone = of(&[&astray])[0].clone().unwrap().axis_px;
        assert!(
            (alone - 143.2).abs() < 0.5,
            "alone it must go astray: {alone}"
        );
        let together = of(&[&good, &astray, &good]);
        for good in [0, 2] {
            let axis = together[good].as_ref().unwrap().axis_px;
            assert!((axis - 14.7).abs() < 0.05, "{axis}");
        }
        if let Ok(answer) = &together[1] {
            assert!((answer.axis_px - 14.7).abs() < 8.5, "{}", answer.axis_px);
        }
    }
}
