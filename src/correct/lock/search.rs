//! Which pixels deviate from their neighbours in all scans, row by row.

use std::ops::Range;

use ndarray::s;
use rayon::prelude::*;

use super::super::bad_pixels::lagrange;
use super::Verdict;
use super::broad::{self, Run};
use super::course::{follows, left_by_a_detector, root_mean_square};
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
/// Scans contradict each other in a part of the scan where one shows an anomaly and another less than this share of it here, but more than [`ELSEWHERE`] of
/// it at most [`BESIDE`] columns away: a wrong pixel stays where it is, while the edge of a sample that moved by a pixel or two meets the same pixels in some
/// parts only.
const DISPUTED: f32 = 0.35;
/// See [`DISPUTED`].
const ELSEWHERE: f32 = 0.5;
/// See [`DISPUTED`] \[px\].
const BESIDE: usize = 4;
/// They contradict each other as well where they show anomalies of opposite sign, the smaller at least this share of the larger.
const OPPOSITE: f32 = 0.25;
/// Contradictions in so many parts are left to structure that passes.
const EXCUSED: usize = 2;
/// The course of an anomaly over the parts of a scan is that of a detector where no more than this share of it, or than so many times what good pixels show, is
/// left by a line or by two levels: edges that pass leave more. Pixels that do not respond have no course.
const PASSING: f32 = 0.25;
const PASSING_LEAST: f32 = 2.0;
/// The same for a course that is so clear that it excuses signs that are opposite in more parts: a step at another time in each scan.
const CLEAR: f32 = 0.15;
const CLEAR_LEAST: f32 = 1.5;
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
    /// As a multiple of what good pixels show; 0 where it is no fault of the detector.
    ratio: f32,
    /// The same, whatever it is.
    shared: f32,
    /// In line integrals.
    strength: f32,
}

/// The same in a part of the scan.
#[derive(Clone, Copy)]
struct Shared {
    ratio: f32,
    strength: f32,
    contradiction: Option<Contradiction>,
}

/// How scans contradict each other.
#[derive(Clone, Copy, PartialEq)]
enum Contradiction {
    /// What one shows stands beside it in the other ([`DISPUTED`]).
    Elsewhere,
    /// [`OPPOSITE`].
    Opposite,
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
                Some(group) => group.into_iter().for_each(|col| wrong[col] = true),
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
    /// A good pixel beside a wrong pair, or between two wrong ones, deviates more from its neighbours than either of them, so the
    /// worst pixel is not always the wrong one.
    fn best_group(&self, worst: usize, wrong: &mut [bool]) -> Option<Vec<usize>> {
        let half = 0.5 * self.ratio;
        let around = worst.saturating_sub(REACH)..(worst + REACH + 1).min(self.n_cols);
        // what is no fault at first needs no explanation; what is one, and no longer looks like it beside the wrong group, does
        let no_fault: Vec<bool> = around
            .clone()
            .map(|col| self.level(col, wrong).ratio == 0.0)
            .collect();
        let unexplained = |wrong: &[bool]| -> f32 {
            let rest = around
                .clone()
                .zip(&no_fault)
                .filter(|(col, _)| !wrong[*col]);
            rest.map(|(col, &no_fault)| {
                let level = self.level(col, wrong);
                let ratio = if no_fault { level.ratio } else { level.shared };
                (ratio - half).max(0.0).powi(2)
            })
            .sum()
        };
        let mut least = unexplained(wrong);
        let mut best = None;
        for mut group in groups(worst, self.n_cols) {
            group.retain(|&col| !wrong[col]);
            if group.is_empty() {
                continue;
            }
            group.iter().for_each(|&col| wrong[col] = true);
            let cost = unexplained(wrong) + price(&group) * half * half;
            group.iter().for_each(|&col| wrong[col] = false);
            if cost < least {
                (least, best) = (cost, Some(group));
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
        // beside the edge of the detector a straight line would take the curvature of a sample that goes on there for an anomaly
        let Some([[Some(l1), Some(l2)], [Some(r1), Some(r2)]]) = self.neighbours(col, wrong) else {
            return Level::default();
        };
        let away = |c: usize| c as f32 - col as f32;
        let columns = [l2, l1, r1, r2];
        let weights = lagrange(columns.map(away));
        let anomaly = |scan: usize, part: usize| {
            let line = &self.means[scan][part];
            let around: f32 = columns.iter().zip(weights).map(|(&c, w)| w * line[c]).sum();
            line[col] - around
        };
        let scale = |scan: usize| self.scales[scan].at(col, col - l1, r1 - col);
        let parts: [Shared; PARTS] = std::array::from_fn(|part| {
            self.shared(col, part, |scan| (anomaly(scan, part), scale(scan)))
        });
        let rms = |of: fn(&Shared) -> f32| root_mean_square(parts.each_ref().map(of));
        let ratio = rms(|part| part.ratio);
        let like_a_detector = |share: f32, least: f32| {
            (0..self.means.len()).all(|scan| {
                let course = std::array::from_fn(|part| anomaly(scan, part) / scale(scan));
                left_by_a_detector(&course) < least.max(share * root_mean_square(course))
            })
        };
        let number = |of: Contradiction| {
            let said = parts.iter().filter(|part| part.contradiction == Some(of));
            said.count()
        };
        let [elsewhere, opposite] = [Contradiction::Elsewhere, Contradiction::Opposite].map(number);
        let refuted = elsewhere > EXCUSED
            || elsewhere + opposite > EXCUSED && !like_a_detector(CLEAR, CLEAR_LEAST)
            || !like_a_detector(PASSING, PASSING_LEAST) && !self.apart(col, l1, r1);
        Level {
            ratio: if refuted { 0.0 } else { ratio },
            shared: ratio,
            strength: rms(|part| part.strength),
        }
    }

    /// What all scans share of an `anomaly` of `col`, which comes with what good pixels show, in a part of the scan.
    fn shared(&self, col: usize, part: usize, anomaly: impl Fn(usize) -> (f32, f32)) -> Shared {
        let (mut ratio, mut strength) = (f32::INFINITY, f32::INFINITY);
        let (mut most, mut calmest) = (0f32, 0);
        let mut signs = [false; 2];
        for scan in 0..self.means.len() {
            let (own, scale) = anomaly(scan);
            let size = own.abs() / scale;
            most = most.max(size);
            if size < ratio {
                (ratio, calmest) = (size, scan);
            }
            strength = strength.min(own.abs());
            signs[0] |= own < 0.0;
            signs[1] |= own > 0.0;
        }
        let opposite = signs[0] && signs[1];
        let contradiction = if most <= self.ratio {
            None
        } else if opposite && ratio > OPPOSITE * most {
            Some(Contradiction::Opposite)
        } else {
            let calm = opposite || ratio < DISPUTED * most;
            (calm && self.most_beside(col, calmest, part) > ELSEWHERE * most)
                .then_some(Contradiction::Elsewhere)
        };
        if opposite {
            (ratio, strength) = (0.0, 0.0);
        }
        Shared {
            ratio,
            strength,
            contradiction,
        }
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

    /// The same for most columns of a broad stripe, against the good columns on each side of it.
    fn unresponsive_run(&self, run: &Run, wrong: &[bool]) -> bool {
        let good = |col: &usize| !wrong[*col];
        let left = (0..run.columns.start).rev().find(good);
        let right = (run.columns.end..self.n_cols).find(good);
        let (Some(left), Some(right)) = (left, right) else {
            return false;
        };
        let columns = run.columns.clone();
        // the edge of the sample may stand within the run: then its columns go with those on their own side
        let alone = |&col: &usize| self.apart(col, left, left) && self.apart(col, right, right);
        let odd = columns.filter(alone).count();
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

/// Groups of columns that may be the wrong ones where `worst` deviates most: [`GROUP`] together at most, or two apart.
fn groups(worst: usize, n_cols: usize) -> impl Iterator<Item = Vec<usize>> {
    let together = (1..=GROUP).flat_map(move |width| {
        let last = (worst + 1).min(n_cols.saturating_sub(width));
        (worst.saturating_sub(width)..=last).map(move |start| (start..start + width).collect())
    });
    let apart = (worst.saturating_sub(GROUP)..=worst).flat_map(move |left| {
        let rights = worst.max(left + 2)..(left + GROUP + 2).min(n_cols);
        rights.map(move |right| vec![left, right])
    });
    together.chain(apart)
}

/// What a group of columns costs beside what it leaves unexplained: each of them one, and good ones between them a half, as the columns on either side of
/// a run of wrong ones explain nearly as much as the run does.
fn price(group: &[usize]) -> f32 {
    let across = group
        .last()
        .zip(group.first())
        .map_or(0, |(last, first)| last - first + 1);
    0.5 * (group.len() + across) as f32
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns taken in a row of evidence that two scans share, made from noise `[part, col]` of its own by `change`.
    fn taken(noise: f32, change: impl Fn(usize, usize) -> f32) -> Vec<usize> {
        let shape = (16, 96);
        let evidence: Vec<Evidence> = (0..2)
            .map(|scan| {
                let mut one = Evidence::of_noise(shape, scan);
                for ((_, part, col), value) in one.means.indexed_iter_mut() {
                    *value = 0.7 + noise * (*value - 0.7) / 0.01 + change(part, col);
                }
                one
            })
            .collect();
        let found = search(&evidence, &(0..16), &(0..16), 4.0);
        found[5].pixels.iter().map(|pixel| pixel.0).collect()
    }

    #[test]
    fn two_wrong_columns_are_found_and_not_the_good_one_between() {
        for apart in [2, 3, 5] {
            let wrong = [40, 40 + apart];
            let fault = |_: usize, col: usize| if wrong.contains(&col) { 0.03 } else { 0.0 };
            assert_eq!(taken(3e-3, fault), wrong);
        }
    }

    #[test]
    fn a_bent_line_that_goes_on_beyond_the_detector_is_no_fault() {
        let bent = |_: usize, col: usize| -1e-4 * (col as f32 - 48.0).powi(2);
        assert!(taken(1e-4, bent).is_empty());
        // the same line broken within the detector is one
        let broken = |part: usize, col: usize| bent(part, col) + if col == 60 { 4e-3 } else { 0.0 };
        assert_eq!(taken(1e-4, broken), [60]);
    }

    #[test]
    fn columns_on_either_side_of_the_edge_of_a_sample_respond() {
        let n_cols = 96;
        let (run, edge) = (40..60, 52);
        let line = |stuck: bool| -> Vec<Vec<f32>> {
            let at = |part: usize, col: usize| match col {
                _ if stuck && run.contains(&col) => 0.2,
                _ if col < edge => 0.5 + 0.1 * part as f32,
                _ => 0.0,
            };
            (0..PARTS)
                .map(|part| (0..n_cols).map(|col| at(part, col)).collect())
                .collect()
        };
        let unresponsive = |stuck: bool| {
            let mut one = Evidence::of_noise((1, n_cols), 0);
            for (col, moves) in one.activity.row_mut(0).iter_mut().enumerate() {
                *moves = match col {
                    _ if stuck && run.contains(&col) => 1e-4,
                    _ if col < edge => 0.05,
                    _ => 0.005,
                };
            }
            let row = Row {
                evidence: &[one],
                row: 0,
                means: vec![line(stuck)],
                scales: &[],
                n_cols,
                ratio: 4.0,
            };
            let columns = run.clone();
            row.unresponsive_run(
                &Run {
                    columns,
                    strength: 0.01,
                },
                &vec![false; n_cols],
            )
        };
        assert!(!unresponsive(false));
        assert!(unresponsive(true));
    }
}
