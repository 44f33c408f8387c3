//! Which pixels deviate from their neighbours in all scans, row by row.

use std::ops::Range;

use ndarray::s;
use rayon::prelude::*;

use super::super::bad_pixels::lagrange;
use super::Verdict;
use super::broad::{self, Run};
use super::evidence::{Evidence, PARTS};
use crate::stats::middle;

/// Side of the blocks that share one scale \[px\]; blocks are counted from the first row of the detector.
pub(super) const BLOCK: usize = 8;
/// Half height and half width of the window in which good pixels are looked at for the scale \[px\].
pub(super) const WINDOW: [usize; 2] = [8, 12];
/// Rows held at most on both sides together of those that are judged.
pub(super) const HALO: usize = 2 * (WINDOW[0] + BLOCK);
/// Widest gap that is looked across \[px\].
const WIDEST: usize = 5;
/// Good neighbours are looked for this far \[px\].
const REACH: usize = 8;
/// Widest group of wrong pixels that is taken in one step \[px\]; wider ones take several.
const GROUP: usize = 4;
/// Least scale: a stripe of this size in line integrals is below the noise of any detector.
pub(super) const LEAST_SCALE: f32 = 3e-5;
/// A pixel that moves this many times more, or less, than its neighbours does not respond.
const UNRESPONSIVE: f32 = 4.0;
/// The scans dispute a part of the scan where one shows an anomaly and another less than this share of it here, but more than [`ELSEWHERE`] of it at most
/// [`BESIDE`] columns away: a wrong pixel stays where it is, even if it drifts, while the edge of a sample that moved by a pixel or two meets the same
/// pixels in some parts only.
const DISPUTED: f32 = 0.25;
/// See [`DISPUTED`].
const ELSEWHERE: f32 = 0.5;
/// See [`DISPUTED`] \[px\].
const BESIDE: usize = 4;
/// Where more parts than these are disputed, an anomaly counts at most [`STEADY`] times what all but so many parts show of it.
const EXCUSED: usize = 2;
/// See [`EXCUSED`].
const STEADY: f32 = 2.0;
/// Movement of the sample between the scans with which broad stripes can be told from it \[px\].
const MOVED: f32 = 0.7;
/// The calm ones of a row are as lively as the pixel at this part of it, counted from the stillest.
const CALM: usize = 10;
/// A pixel that moves by less than this share of them says nothing.
const SILENT: f32 = 0.1;

/// What was found in one row.
pub(super) struct Found {
    /// Column, verdict, strength.
    pub(super) pixels: Vec<(usize, Verdict, f32)>,
    /// Broad stripes.
    pub(super) runs: Vec<Run>,
    /// More than a quarter of the row looked wrong: nothing is trusted but pixels without signal.
    pub(super) given_up: bool,
}

/// The rows whose evidence is needed to judge `rows`, so that the verdict does not depend on how rows are cut.
pub(super) fn with_halo(rows: &Range<usize>, n_rows: usize) -> Range<usize> {
    let start = (rows.start / BLOCK * BLOCK).saturating_sub(WINDOW[0]);
    let end = (rows.end.div_ceil(BLOCK) * BLOCK + WINDOW[0]).min(n_rows);
    start..end
}

/// Judges `rows` by the evidence of the rows `held`.
pub(super) fn search(
    evidence: &[Evidence],
    held: &Range<usize>,
    rows: &Range<usize>,
    ratio: f32,
) -> Vec<Found> {
    let first_block = rows.start / BLOCK;
    let blocks: Vec<Vec<Scales>> = (first_block..rows.end.div_ceil(BLOCK))
        .into_par_iter()
        .map(|block| {
            evidence
                .iter()
                .map(|one| Scales::measure(one, held, block))
                .collect()
        })
        .collect();
    rows.clone()
        .into_par_iter()
        .map(|row| {
            let row_held = row - held.start;
            let n_cols = evidence.first().map_or(0, |e| e.bad.ncols());
            let line = |one: &Evidence, part| one.means.slice(s![row_held, part, ..]).to_vec();
            let means = evidence
                .iter()
                .map(|one| (0..PARTS).map(|part| line(one, part)).collect())
                .collect();
            Row {
                evidence,
                row: row_held,
                means,
                scales: &blocks[row / BLOCK - first_block],
                n_cols,
                ratio,
            }
            .judge()
        })
        .collect()
}

/// Median size of the anomaly of good pixels around a row of blocks, for each width of the gap on either side.
struct Scales {
    /// `[block of columns][left gap - 1][right gap - 1]`
    of_block: Vec<[[f32; WIDEST]; WIDEST]>,
    /// Median size of the steps, of which the edges of broad stripes stand out `[block of columns]`.
    steps: Vec<f32>,
}

impl Scales {
    fn measure(evidence: &Evidence, held: &Range<usize>, block: usize) -> Scales {
        let n_cols = evidence.bad.ncols();
        let of_block = block * BLOCK + BLOCK / 2;
        let low = of_block.saturating_sub(WINDOW[0]).max(held.start) - held.start;
        let high = (of_block + WINDOW[0] + 1).min(held.end) - held.start;
        let mut of_block = vec![[[LEAST_SCALE; WIDEST]; WIDEST]; n_cols.div_ceil(BLOCK)];
        let mut sizes = Vec::new();
        for left in 1..=WIDEST {
            for right in left..=(WIDEST + 1 - left).max(left) {
                if left + right > WIDEST + 1 {
                    continue;
                }
                let offsets = [
                    -(left as isize) - 1,
                    -(left as isize),
                    right as isize,
                    right as isize + 1,
                ];
                let weights = lagrange(offsets.map(|o| o as f32));
                for (index, scale) in of_block.iter_mut().enumerate() {
                    let centre = index * BLOCK + BLOCK / 2;
                    let first = centre.saturating_sub(WINDOW[1]).max(left + 1);
                    let last = (centre + WINDOW[1] + 1).min(n_cols.saturating_sub(right + 1));
                    sizes.clear();
                    for row in (low..high).step_by(2) {
                        for col in (first..last).step_by(2) {
                            let at = offsets.map(|o| (col as isize + o) as usize);
                            if evidence.bad[[row, col]]
                                || at.iter().any(|&c| evidence.bad[[row, c]])
                            {
                                continue;
                            }
                            let mut power = 0.0;
                            for part in 0..PARTS {
                                let line = |c: usize| evidence.means[[row, part, c]];
                                let around: f32 =
                                    at.iter().zip(weights).map(|(&c, w)| w * line(c)).sum();
                                power += (line(col) - around).powi(2);
                            }
                            sizes.push((power / PARTS as f32).sqrt());
                        }
                    }
                    let median = middle(&mut sizes, f32::total_cmp)
                        .unwrap_or(0.0)
                        .max(LEAST_SCALE);
                    scale[left - 1][right - 1] = median;
                    scale[right - 1][left - 1] = median;
                }
            }
        }
        Scales {
            of_block,
            steps: broad::scales(evidence, held, block),
        }
    }

    /// Scale at `col` across the gap between good neighbours `left` and `right` columns away.
    fn at(&self, col: usize, left: usize, right: usize) -> f32 {
        let scale = &self.of_block[col / BLOCK];
        let (mut left, mut right) = (left.min(WIDEST), right.min(WIDEST));
        let mut wider = 1.0;
        // gaps wider than those measured: the error of a cubic grows with the fourth power of the width, less for rough
        // structure; twice per pixel is between
        while left + right > WIDEST + 1 {
            if left > right {
                left -= 1;
            } else {
                right -= 1;
            }
            wider *= 2.0;
        }
        wider * scale[left - 1][right - 1]
    }
}

/// Anomaly of a pixel that all scans share.
#[derive(Clone, Copy, Default)]
struct Level {
    /// As a multiple of what good pixels show.
    ratio: f32,
    /// In line integrals.
    strength: f32,
}

/// The same in a part of the scan.
#[derive(Clone, Copy)]
struct Shared {
    ratio: f32,
    strength: f32,
    /// The scans contradict each other ([`DISPUTED`]).
    disputed: bool,
}

/// One row under judgement.
struct Row<'a> {
    evidence: &'a [Evidence],
    /// Within the evidence.
    row: usize,
    /// Means of each scan, `[part][col]`, less the broad stripes found.
    means: Vec<Vec<Vec<f32>>>,
    /// Of each scan.
    scales: &'a [Scales],
    n_cols: usize,
    ratio: f32,
}

impl Row<'_> {
    fn judge(mut self) -> Found {
        let mut bad: Vec<bool> = (0..self.n_cols)
            .map(|col| self.evidence.iter().any(|e| e.bad[[self.row, col]]))
            .collect();
        for (bad, silent) in bad.iter_mut().zip(self.silent()) {
            *bad |= silent;
        }
        let mut wrong = self.narrow(&bad);
        let scale = |scan: usize, col: usize| self.scales[scan].steps[col / BLOCK];
        let single = few_together(&wrong, &bad);
        let runs = if self.moved(&single) {
            broad::find(&self.means, scale, &single, self.ratio)
        } else {
            Vec::new()
        };
        let (silent, runs): (Vec<Run>, Vec<Run>) = runs
            .into_iter()
            .partition(|run| self.unresponsive_run(run, &single));
        for run in &silent {
            bad[run.columns.clone()].fill(true);
        }
        if !runs.is_empty() || !silent.is_empty() {
            // groups of narrow ones were seen in their place
            for parts in &mut self.means {
                broad::level(parts, &runs, &single);
            }
            wrong = self.narrow(&bad);
        }
        let n_marked = wrong.iter().zip(&bad).filter(|(w, b)| **w && !**b).count();
        let given_up = n_marked * 4 > self.n_cols;
        if given_up {
            wrong.clone_from(&bad);
        }
        let pixels = (0..self.n_cols)
            .filter(|&col| wrong[col])
            .map(|col| {
                let strength = self.level(col, &wrong).strength;
                let verdict = if bad[col] || self.unresponsive(col, &wrong) {
                    Verdict::Interpolated
                } else {
                    Verdict::Corrected
                };
                (col, verdict, strength)
            })
            .collect();
        Found {
            pixels,
            runs,
            given_up,
        }
    }

    /// Whether the sample stands elsewhere in some scan than in the first, by about a pixel or more: else walls around the axis
    /// stand as still as a broad stripe does, and nobody can tell them apart.
    ///
    /// Where the sample moved by d, the mean lines of two scans differ by d times their slope; steps of the difference are
    /// compared with changes of the slope, in which a change of the sample, that is smooth over the angles, has little part.
    fn moved(&self, wrong: &[bool]) -> bool {
        let line = |parts: &Vec<Vec<f32>>| -> Vec<f32> {
            (0..self.n_cols)
                .map(|col| parts.iter().map(|part| part[col]).sum::<f32>() / PARTS as f32)
                .collect()
        };
        let lines: Vec<Vec<f32>> = self.means.iter().map(line).collect();
        let Some((first, others)) = lines.split_first() else {
            return false;
        };
        let good: Vec<usize> = (0..self.n_cols).filter(|&col| !wrong[col]).collect();
        let bends: f32 = good
            .windows(3)
            .map(|c| (first[c[0]] - 2.0 * first[c[1]] + first[c[2]]).abs())
            .sum();
        others.iter().any(|other| {
            let apart = |col: usize| other[col] - first[col];
            let steps: f32 = good
                .windows(2)
                .map(|c| (apart(c[1]) - apart(c[0])).abs())
                .sum();
            steps > MOVED * bends
        })
    }

    /// Pixels that say nothing in any scan, as saturated ones: they hardly move beside the calmest of the row, which feel the
    /// noise of the open beam at least.
    fn silent(&self) -> Vec<bool> {
        let mut silent = vec![true; self.n_cols];
        for one in self.evidence {
            let moves = one.activity.row(self.row);
            let mut sorted = moves.to_vec();
            sorted.sort_unstable_by(f32::total_cmp);
            let calm = sorted.get(self.n_cols / CALM).copied().unwrap_or(0.0);
            for (silent, &own) in silent.iter_mut().zip(&moves) {
                *silent &= own < SILENT * calm;
            }
        }
        silent
    }

    /// Pixels that deviate from their good neighbours, and those without signal.
    fn narrow(&self, bad: &[bool]) -> Vec<bool> {
        let mut wrong = bad.to_vec();
        self.mark(&mut wrong);
        self.prune(&mut wrong, bad);
        wrong
    }

    /// Marks groups of pixels, the worst first, until no pixel left deviates from its good neighbours.
    fn mark(&self, wrong: &mut [bool]) {
        let mut levels: Vec<f32> = (0..self.n_cols)
            .map(|col| self.level(col, wrong).ratio)
            .collect();
        let mut hopeless = vec![false; self.n_cols];
        for _ in 0..self.n_cols {
            let worst = (0..self.n_cols)
                .filter(|&col| !wrong[col] && !hopeless[col])
                .max_by(|&a, &b| levels[a].total_cmp(&levels[b]).then(b.cmp(&a)));
            let Some(worst) = worst.filter(|&col| levels[col] > self.ratio) else {
                return;
            };
            match self.best_group(worst, wrong) {
                Some(group) => wrong[group].fill(true),
                None => hopeless[worst] = true,
            }
            let reach = 2 * REACH;
            let around = worst.saturating_sub(reach)..(worst + reach + 1).min(self.n_cols);
            for (level, col) in levels[around.clone()].iter_mut().zip(around) {
                *level = self.level(col, wrong).ratio;
            }
        }
    }

    /// The group around `worst` that explains most: with it left out, the pixels around follow each other.
    ///
    /// A good pixel beside a wrong pair deviates more from its neighbours than either of the pair, so the worst pixel is
    /// not always the wrong one.
    fn best_group(&self, worst: usize, wrong: &mut [bool]) -> Option<Range<usize>> {
        let half = 0.5 * self.ratio;
        let around = worst.saturating_sub(REACH)..(worst + REACH + 1).min(self.n_cols);
        let unexplained = |wrong: &[bool]| -> f32 {
            around
                .clone()
                .filter(|&col| !wrong[col])
                .map(|col| (self.level(col, wrong).ratio - half).max(0.0).powi(2))
                .sum()
        };
        let mut least = unexplained(wrong);
        let mut best = None;
        for width in 1..=GROUP {
            for start in
                worst.saturating_sub(width)..=(worst + 1).min(self.n_cols.saturating_sub(width))
            {
                let group = start..start + width;
                let before: Vec<bool> = wrong[group.clone()].to_vec();
                let new = before.iter().filter(|&&w| !w).count();
                if new == 0 {
                    continue;
                }
                wrong[group.clone()].fill(true);
                let cost = unexplained(wrong) + new as f32 * half * half;
                wrong[group.clone()].copy_from_slice(&before);
                if cost < least {
                    (least, best) = (cost, Some(group));
                }
            }
        }
        best
    }

    /// Takes back marks of pixels that follow the good ones around them after all.
    fn prune(&self, wrong: &mut [bool], bad: &[bool]) {
        for col in 0..self.n_cols {
            if wrong[col] && !bad[col] && self.level(col, wrong).ratio < 0.5 * self.ratio {
                wrong[col] = false;
            }
        }
    }

    /// The two nearest good columns on either side, nearest first; `None` where a side has none.
    fn neighbours(&self, col: usize, wrong: &[bool]) -> Option<[[Option<usize>; 2]; 2]> {
        let side = |columns: &mut dyn Iterator<Item = usize>| {
            let mut good = columns.filter(|&c| !wrong[c]);
            let nearest = good.next();
            [nearest, nearest.and(good.next())]
        };
        let left = side(&mut (col.saturating_sub(REACH)..col).rev());
        let right = side(&mut (col + 1..(col + 1 + REACH).min(self.n_cols)));
        (left[0].is_some() && right[0].is_some()).then_some([left, right])
    }

    /// The anomaly of `col` against its neighbours that are not `wrong`, as far as all scans share it.
    fn level(&self, col: usize, wrong: &[bool]) -> Level {
        let Some([[Some(l1), l2], [Some(r1), r2]]) = self.neighbours(col, wrong) else {
            return Level::default();
        };
        let away = |c: usize| c as f32 - col as f32;
        let (columns, weights) = match (l2, r2) {
            (Some(l2), Some(r2)) => (
                [l2, l1, r1, r2],
                lagrange([away(l2), away(l1), away(r1), away(r2)]),
            ),
            // at the edges of the detector, a straight line
            _ => {
                let [a, b] = lagrange([away(l1), away(r1)]);
                ([l1, l1, r1, r1], [0.0, a, b, 0.0])
            }
        };
        let parts: [Shared; PARTS] = std::array::from_fn(|part| {
            let anomaly = |scan: usize| {
                let line = &self.means[scan][part];
                let around: f32 = columns.iter().zip(weights).map(|(&c, w)| w * line[c]).sum();
                let scale = self.scales[scan].at(col, col - l1, r1 - col);
                (line[col] - around, scale)
            };
            self.shared(col, part, anomaly)
        });
        let rms = |of: fn(&Shared) -> f32| {
            let squares = parts.iter().map(|part| of(part).powi(2) / PARTS as f32);
            squares.sum::<f32>().sqrt()
        };
        let ratio = rms(|part| part.ratio);
        let disputed = parts.iter().filter(|part| part.disputed).count();
        Level {
            ratio: if disputed > EXCUSED {
                ratio.min(STEADY * all_but(EXCUSED, parts.map(|part| part.ratio)))
            } else {
                ratio
            },
            strength: rms(|part| part.strength),
        }
    }

    /// What all scans share of an `anomaly` of `col`, which comes with what good pixels show, in a part of the scan.
    fn shared(&self, col: usize, part: usize, anomaly: impl Fn(usize) -> (f32, f32)) -> Shared {
        let mut least = Shared {
            ratio: f32::INFINITY,
            strength: f32::INFINITY,
            disputed: false,
        };
        let (mut sign, mut most, mut calmest) = (0f32, 0f32, (f32::INFINITY, 0));
        for scan in 0..self.means.len() {
            let (own, scale) = anomaly(scan);
            let ratio = own.abs() / scale;
            most = most.max(ratio);
            if ratio < calmest.0 {
                calmest = (ratio, scan);
            }
            if sign * own < 0.0 {
                (least.ratio, least.strength) = (0.0, 0.0);
            } else {
                least.ratio = least.ratio.min(ratio);
                least.strength = least.strength.min(own.abs());
            }
            sign = own;
        }
        least.disputed = most > self.ratio
            && least.ratio < DISPUTED * most
            && self.most_beside(col, calmest.1, part) > ELSEWHERE * most;
        least
    }

    /// The largest anomaly of the columns beside `col` in a part of a scan, against the next two on either side, as a multiple of what good pixels show.
    fn most_beside(&self, col: usize, scan: usize, part: usize) -> f32 {
        let line = &self.means[scan][part];
        let columns = col.saturating_sub(BESIDE).max(2)
            ..(col + BESIDE + 1).min(self.n_cols.saturating_sub(2));
        columns
            .filter(|&c| c != col)
            .map(|c| {
                let around = (4.0 * (line[c - 1] + line[c + 1]) - line[c - 2] - line[c + 2]) / 6.0;
                (line[c] - around).abs() / self.scales[scan].at(c, 1, 1)
            })
            .fold(0.0, f32::max)
    }

    /// Whether the pixel does not follow its good neighbours, in most of the scans: from part to part of the scan, or, where
    /// these do not change enough to tell, from one projection to the next.
    fn unresponsive(&self, col: usize, wrong: &[bool]) -> bool {
        let Some([[Some(left), _], [Some(right), _]]) = self.neighbours(col, wrong) else {
            return true;
        };
        self.apart(col, left, right)
    }

    /// The same for most columns of a broad stripe, against the good columns on either side of it.
    fn unresponsive_run(&self, run: &Run, wrong: &[bool]) -> bool {
        let good = |col: &usize| !wrong[*col];
        let left = (0..run.columns.start).rev().find(good);
        let right = (run.columns.end..self.n_cols).find(good);
        let (Some(left), Some(right)) = (left, right) else {
            return false;
        };
        let columns = run.columns.clone();
        let odd = columns.filter(|&col| self.apart(col, left, right)).count();
        2 * odd > run.columns.len()
    }

    /// Whether the column goes its own way beside `left` and `right`, in most of the scans.
    fn apart(&self, col: usize, left: usize, right: usize) -> bool {
        let odd = self
            .evidence
            .iter()
            .zip(&self.means)
            .filter(|(one, means)| {
                let part = |c: usize, part: usize| means[part][c];
                let moves = |c: usize| one.activity[[self.row, c]];
                let own: [f32; PARTS] = std::array::from_fn(|k| part(col, k));
                let around = std::array::from_fn(|k| 0.5 * (part(left, k) + part(right, k)));
                let around_moves = 0.5 * (moves(left) + moves(right));
                let follows = follows(&own, &around).unwrap_or(true);
                let lively = moves(col) * UNRESPONSIVE >= around_moves
                    && moves(col) <= UNRESPONSIVE * around_moves;
                !(follows && lively)
            })
            .count();
        odd > self.evidence.len() / 2
    }
}

/// What all parts of the scan but so many reach at least.
fn all_but(excused: usize, mut ratios: [f32; PARTS]) -> f32 {
    ratios.sort_unstable_by(f32::total_cmp);
    ratios[excused]
}

/// The `wrong` columns that stand together by [`GROUP`] at most, and the `bad` ones.
fn few_together(wrong: &[bool], bad: &[bool]) -> Vec<bool> {
    let mut few = bad.to_vec();
    let mut first = 0;
    for run in wrong.chunk_by(|a, b| a == b) {
        if run[0] && run.len() <= GROUP {
            few[first..first + run.len()].fill(true);
        }
        first += run.len();
    }
    few
}

/// Whether `own` goes along with `around`, by the slope of the line through the parts; `None` where these hardly change.
fn follows(own: &[f32; PARTS], around: &[f32; PARTS]) -> Option<bool> {
    // a change of line integrals by this much is far beyond what a pixel that responds is wrong by
    const ENOUGH: f32 = 0.03;
    let mean = |values: &[f32; PARTS]| values.iter().sum::<f32>() / PARTS as f32;
    let (own_mean, around_mean) = (mean(own), mean(around));
    let (mut both, mut power) = (0.0, 0.0);
    for (o, a) in own.iter().zip(around) {
        both += (o - own_mean) * (a - around_mean);
        power += (a - around_mean).powi(2);
    }
    (power > PARTS as f32 * ENOUGH * ENOUGH).then(|| (0.5..=2.0).contains(&(both / power)))
}
