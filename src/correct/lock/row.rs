//! One row under judgement.

use std::ops::Range;

use ndarray::s;

use super::Verdict;
use super::anomaly::REACH;
use super::broad::{self, Run};
use super::evidence::{Evidence, PARTS};
use super::scales::{BLOCK, Scales};
use super::search::Found;

/// Widest group of wrong pixels that is taken in one step \[px\]; wider ones take several.
const GROUP: usize = 4;
/// Movement of the sample between the scans with which broad stripes can be told from it \[px\].
const MOVED: f32 = 0.7;
/// The calm ones of a row are as lively as the pixel at this part of it, counted from the stillest.
const CALM: usize = 10;
/// A pixel that moves by less than this share of them says nothing.
const SILENT: f32 = 0.1;

/// One row under judgement.
pub(super) struct Row<'a> {
    pub(super) evidence: &'a [Evidence],
    /// Within the evidence.
    pub(super) row: usize,
    /// Means of each scan, `[part][col]`, less the broad stripes found.
    pub(super) means: Vec<Vec<Vec<f32>>>,
    /// Of each scan.
    pub(super) scales: &'a [Scales],
    /// What the edges of broad stripes are compared with, of each scan.
    pub(super) steps: &'a [Vec<f32>],
    /// Columns that are wrong where rows are looked at together, of this row and of those around it, nearest first.
    pub(super) likely: &'a [&'a [bool]],
    pub(super) n_cols: usize,
    pub(super) ratio: f32,
}

impl<'a> Row<'a> {
    /// A row of `evidence`, with what it is compared with.
    pub(super) fn new(
        evidence: &'a [Evidence],
        row: usize,
        scales: &'a [Scales],
        steps: &'a [Vec<f32>],
        likely: &'a [&'a [bool]],
        ratio: f32,
    ) -> Row<'a> {
        let line = |one: &Evidence, part| one.means.slice(s![row, part, ..]).to_vec();
        Row {
            evidence,
            row,
            means: evidence
                .iter()
                .map(|one| (0..PARTS).map(|part| line(one, part)).collect())
                .collect(),
            scales,
            steps,
            likely,
            n_cols: evidence.first().map_or(0, |e| e.bad.ncols()),
            ratio,
        }
    }

    /// Columns without signal in some scan.
    fn bad(&self) -> Vec<bool> {
        (0..self.n_cols)
            .map(|col| self.evidence.iter().any(|e| e.bad[[self.row, col]]))
            .collect()
    }

    /// Columns that deviate from their good neighbours; none where they are too many to be believed.
    pub(super) fn suspects(&self) -> Vec<bool> {
        let bad = self.bad();
        let mut wrong = self.narrow(&bad);
        while self.mark_together(&mut wrong) {
            self.mark(&mut wrong);
        }
        self.prune(&mut wrong, &bad);
        marked(&wrong, &bad).unwrap_or_else(|| vec![false; self.n_cols])
    }

    /// What is wrong in the row.
    pub(super) fn judge(mut self) -> Found {
        let mut bad = self.bad();
        for (bad, silent) in bad.iter_mut().zip(self.silent()) {
            *bad |= silent;
        }
        let mut wrong = self.narrow(&bad);
        self.mark_hidden(&mut wrong, &bad);
        let scale = |scan: usize, col: usize| self.steps[scan][col / BLOCK];
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
            self.mark_hidden(&mut wrong, &bad);
        }
        let given_up = marked(&wrong, &bad).is_none();
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

    /// Pixels that deviate from those next to them, and those without signal.
    fn narrow(&self, bad: &[bool]) -> Vec<bool> {
        let mut wrong = bad.to_vec();
        self.mark(&mut wrong);
        self.prune(&mut wrong, bad);
        wrong
    }

    /// Marks as well what hides in the noise of this row.
    fn mark_hidden(&self, wrong: &mut Vec<bool>, bad: &[bool]) {
        for likely in self.likely {
            self.mark_likely(wrong, likely, bad);
        }
        self.mark(wrong);
        self.prune(wrong, bad);
    }

    /// Marks the groups among the `likely` columns that deviate here too, half as much as what is marked for its own sake at least. They take the place of
    /// what was marked beside them where they explain the row as well: in rows together there is less noise to be misled by.
    fn mark_likely(&self, wrong: &mut Vec<bool>, likely: &[bool], bad: &[bool]) {
        let half = 0.5 * self.ratio;
        let mut first = 0;
        for run in likely.chunk_by(|a, b| a == b) {
            let group = first..first + run.len();
            first = group.end;
            if !run[0] || wrong[group.clone()].iter().all(|&wrong| wrong) {
                continue;
            }
            let deviates = |wrong: &[bool]| {
                let mut columns = group.clone();
                columns.all(|col| self.level(col, wrong).ratio > half)
            };
            let mut with = wrong.clone();
            with[group.clone()].fill(true);
            if deviates(&with) {
                *wrong = with;
                continue;
            }
            let around = self.around(&group);
            let mut instead = with;
            for col in around.clone() {
                instead[col] &= bad[col] || likely[col];
            }
            let no_fault = vec![false; around.len()];
            let cost = |wrong: &[bool]| {
                let marked = around.clone().filter(|&col| wrong[col]).count();
                self.unexplained(&around, &no_fault, wrong) + marked as f32 * half * half
            };
            if deviates(&instead) && cost(&instead) <= cost(wrong) {
                *wrong = instead;
            }
        }
    }

    /// Marks groups of pixels, the worst first, until no pixel left deviates from those next to it.
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

    /// Marks neighbours that are wrong alike, and says whether there were any. They hide each other: neither they nor the good ones beside them deviate much
    /// from those next to them, but all of them deviate from those around the whole group.
    fn mark_together(&self, wrong: &mut [bool]) -> bool {
        let groups = (2..=GROUP).flat_map(|width| {
            let last = (self.n_cols + 1).saturating_sub(width);
            (0..last).map(move |start| start..start + width)
        });
        let mut found: Vec<(f32, Range<usize>)> = Vec::new();
        for group in groups {
            if let Some(least) = self.least_of(&group, wrong)
                && self.explains(&group, wrong)
            {
                found.push((least, group));
            }
        }
        found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let mut taken: Vec<Range<usize>> = Vec::new();
        for (_, group) in found {
            // what lies nearer may look otherwise without the one taken
            let far = |other: &Range<usize>| {
                group.start >= other.end + REACH || other.start >= group.end + REACH
            };
            if taken.iter().all(far) {
                wrong[group.clone()].fill(true);
                taken.push(group);
            }
        }
        !taken.is_empty()
    }

    /// Whether the columns around the group follow each other no worse without it.
    fn explains(&self, group: &Range<usize>, wrong: &mut [bool]) -> bool {
        let around = self.around(group);
        let no_fault = self.no_faults(&around, wrong);
        let before = self.unexplained(&around, &no_fault, wrong);
        wrong[group.clone()].fill(true);
        let after = self.unexplained(&around, &no_fault, wrong);
        wrong[group.clone()].fill(false);
        after <= before
    }

    /// The least anomaly of a group of good columns against those around it; `None` where one of them does not stand out or is no fault.
    fn least_of(&self, group: &Range<usize>, wrong: &mut [bool]) -> Option<f32> {
        if wrong[group.clone()].contains(&true) {
            return None;
        }
        wrong[group.clone()].fill(true);
        let mut ratios = group.clone().map(|col| self.level(col, wrong).ratio);
        let least = ratios.try_fold(f32::INFINITY, |least, ratio| {
            (ratio > self.ratio).then(|| least.min(ratio))
        });
        wrong[group.clone()].fill(false);
        least
    }

    /// The group around `worst` that explains most: with it left out, the pixels around follow each other.
    ///
    /// A good pixel beside a wrong pair, or between two wrong ones, deviates more from its neighbours than either of them, so the
    /// worst pixel is not always the wrong one.
    fn best_group(&self, worst: usize, wrong: &mut [bool]) -> Option<Vec<usize>> {
        let half = 0.5 * self.ratio;
        let around = self.around(&(worst..worst + 1));
        let no_fault = self.no_faults(&around, wrong);
        let unexplained = |wrong: &[bool]| self.unexplained(&around, &no_fault, wrong);
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

    /// The columns of a group and those that it can be seen in.
    fn around(&self, group: &Range<usize>) -> Range<usize> {
        group.start.saturating_sub(REACH)..(group.end + REACH).min(self.n_cols)
    }

    /// Which columns are no fault as they look now: what is none at first needs no explanation; what is one, and no longer looks like it beside a wrong group, does.
    fn no_faults(&self, around: &Range<usize>, wrong: &[bool]) -> Vec<bool> {
        around
            .clone()
            .map(|col| self.level(col, wrong).ratio == 0.0)
            .collect()
    }

    /// The sum of the squares of what the columns `around` that are not `wrong` deviate by.
    fn unexplained(&self, around: &Range<usize>, no_fault: &[bool], wrong: &[bool]) -> f32 {
        let rest = around.clone().zip(no_fault).filter(|(col, _)| !wrong[*col]);
        rest.map(|(col, &no_fault)| {
            let level = self.level(col, wrong);
            let ratio = if no_fault { level.ratio } else { level.shared };
            ratio.powi(2)
        })
        .sum()
    }

    /// Takes back marks of pixels that follow the good ones around them after all.
    fn prune(&self, wrong: &mut [bool], bad: &[bool]) {
        for col in 0..self.n_cols {
            if wrong[col] && !bad[col] && self.level(col, wrong).ratio < 0.5 * self.ratio {
                wrong[col] = false;
            }
        }
    }

    /// Whether most columns of a broad stripe go their own way beside the good columns on each side of it.
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
}

/// Groups of columns that may be the wrong ones where `worst` deviates most: [`GROUP`] together at most, or two apart.
fn groups(worst: usize, n_cols: usize) -> impl Iterator<Item = Vec<usize>> {
    let together = (1..=GROUP).flat_map(move |width| {
        let last = (worst + 1).min(n_cols.saturating_sub(width));
        (worst.saturating_sub(width)..=last).map(move |start| (start..start + width).collect())
    });
    let apart = (worst.saturating_sub(GROUP + 1)..=worst).flat_map(move |left| {
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

/// The `wrong` columns that are not `bad`; `None` where they are more than a quarter of the row: then nothing is known of it.
fn marked(wrong: &[bool], bad: &[bool]) -> Option<Vec<bool>> {
    let marked: Vec<bool> = wrong.iter().zip(bad).map(|(w, b)| *w && !*b).collect();
    let number = marked.iter().filter(|&&marked| marked).count();
    (4 * number <= marked.len()).then_some(marked)
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
    use super::super::search::search;
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
    fn neighbours_that_are_wrong_alike_are_found_behind_each_other() {
        for width in 2..=GROUP {
            let wrong: Vec<usize> = (40..40 + width).collect();
            let fault = |_: usize, col: usize| if wrong.contains(&col) { 1.6e-2 } else { 0.0 };
            assert_eq!(taken(3e-3, fault), wrong);
        }
    }

    #[test]
    fn an_edge_that_passes_from_column_to_column_in_all_scans_is_no_fault() {
        let half = PARTS / 2;
        let step = |part: usize, col: usize| if col == 40 && part >= half { 0.03 } else { 0.0 };
        assert_eq!(taken(3e-3, step), [40]);
        let before = |part: usize, col: usize| if col == 37 && part < half { 0.03 } else { 0.0 };
        assert!(taken(3e-3, |part, col| step(part, col) + before(part, col)).is_empty());
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
            let evidence = [one];
            let mut row = Row::new(&evidence, 0, &[], &[], &[], 4.0);
            row.means = vec![line(stuck)];
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
