//! Broad stripes: runs of columns, wider than the search by neighbours can look across, that answer too much or too little
//! together.
//!
//! Nothing can be interpolated across so many columns without losing the sample, but a stripe has two edges, and an edge is
//! measured on the few columns beside it: the step of a straight line (least squares over [`SIDE`] good columns on
//! either side, one slope for both; curvature cancels). A broad stripe is a pair of steps of opposite sign and like
//! height that all scans share, in one place to the pixel and through the whole scan. Edges of the sample
//! are not: they move with the sample, and turn with it. So a step is the median over the parts of a scan, which forgets
//! what passes or lingers in a few of them.

use std::ops::Range;

use super::evidence::{Evidence, PARTS};
use super::scales::{BLOCK, LEAST_SCALE, window};
use crate::stats::middle;

/// Good columns on either side that a step is measured on: more would feel less noise and more of the sample.
const SIDE: usize = 2;
/// Columns beside an edge in which they are looked for.
const REACH: usize = 8;
/// Boundaries on either side above which an edge stands out, and columns between two runs, at least.
const APART: usize = 3;
/// Narrowest run \[px\]; narrower ones are compared with their neighbours.
const NARROWEST: usize = 5;
/// Widest run \[px\], and the share of the row that it may be.
const WIDEST: usize = 64;
const WIDEST_SHARE: usize = 8;
/// Half width of the window in which the steps of good columns are looked at for the scale \[px\].
const WINDOW_COLS: usize = 32;
/// Parts of a scan, of [`PARTS`], in which a step must stand.
const STEADY: usize = 6;
/// Least share of a step that lies between two neighbouring columns.
const SHARP: f32 = 0.4;
/// Least ratio of the two steps of a run.
const ALIKE: f32 = 0.7;

/// A run of columns that answer wrongly together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    pub(super) columns: Range<usize>,
    /// Mean size of its steps, in line integrals.
    pub(super) strength: f32,
}

/// A sum over columns: the step of the line at a boundary, the right side less the left.
pub(super) struct StepSum {
    terms: [(usize, f32); 2 * SIDE],
    n: usize,
}

impl StepSum {
    /// The step between the columns `boundary - 1` and `boundary`, from good ones in `within`; `None` where a side has
    /// fewer.
    pub(super) fn new(
        boundary: usize,
        within: Range<usize>,
        good: impl Fn(usize) -> bool,
    ) -> Option<StepSum> {
        let mut terms = [(0, 0.0); 2 * SIDE];
        let left = within.start.max(boundary.saturating_sub(REACH))..boundary;
        let right = boundary..within.end.min(boundary + REACH);
        let mut n = 0;
        for col in left.rev().filter(|&c| good(c)).take(SIDE) {
            terms[n].0 = col;
            n += 1;
        }
        let n_left = n;
        for col in right.filter(|&c| good(c)).take(SIDE) {
            terms[n].0 = col;
            n += 1;
        }
        if n_left < SIDE || n - n_left < SIDE {
            return None;
        }
        let away = |col: usize| col as f32 - boundary as f32;
        let mean = |side: &[(usize, f32)]| {
            side.iter().map(|term| away(term.0)).sum::<f32>() / side.len() as f32
        };
        let means = [mean(&terms[..n_left]), mean(&terms[n_left..n])];
        let side = |k: usize| usize::from(k >= n_left);
        let spread: f32 = (0..n)
            .map(|k| (away(terms[k].0) - means[side(k)]).powi(2))
            .sum();
        for (k, term) in terms[..n].iter_mut().enumerate() {
            let share = [-1.0 / n_left as f32, 1.0 / (n - n_left) as f32][side(k)];
            let slope = (away(term.0) - means[side(k)]) / spread;
            term.1 = share - (means[1] - means[0]) * slope;
        }
        Some(StepSum { terms, n })
    }

    /// Its columns with their weights; columns that fill up the four have the weight 0.
    pub(super) fn terms(&self) -> ([usize; 2 * SIDE], [f32; 2 * SIDE]) {
        (
            self.terms.map(|(col, _)| col),
            self.terms.map(|(_, weight)| weight),
        )
    }

    /// The step of the line whose value at a column is `at`.
    pub(super) fn of(&self, at: impl Fn(usize) -> f32) -> f32 {
        self.terms[..self.n]
            .iter()
            .map(|&(col, weight)| weight * at(col))
            .sum()
    }
}

/// Median size of the steps of good columns around a row of blocks, of which the edges of broad stripes stand out, of one scan `[block of columns]`.
pub(super) fn scales(evidence: &Evidence, held: &Range<usize>, block: usize) -> Vec<f32> {
    let n_cols = evidence.bad.ncols();
    let height = |row: usize, boundary: usize| {
        let around = boundary - SIDE..boundary + SIDE;
        if around.clone().any(|col| evidence.bad[[row, col]]) {
            return None;
        }
        let step = StepSum::new(boundary, around, |_| true)?;
        let parts = std::array::from_fn(|part| step.of(|c| evidence.means[[row, part, c]]));
        Some(median(parts).abs())
    };
    let boundaries = SIDE..(n_cols + 1).saturating_sub(SIDE).max(SIDE);
    let heights: Vec<Vec<Option<f32>>> = window(block, held)
        .step_by(2)
        .map(|row| boundaries.clone().map(|b| height(row, b)).collect())
        .collect();
    let mut sizes = Vec::new();
    (0..n_cols.div_ceil(BLOCK))
        .map(|index| {
            let centre = index * BLOCK + BLOCK / 2;
            let near = |b: usize| b.clamp(boundaries.start, boundaries.end) - boundaries.start;
            let columns = near(centre.saturating_sub(WINDOW_COLS))..near(centre + WINDOW_COLS + 1);
            sizes.clear();
            for row in &heights {
                sizes.extend(row[columns.clone()].iter().step_by(2).flatten());
            }
            middle(&mut sizes, f32::total_cmp)
                .unwrap_or(0.0)
                .max(LEAST_SCALE)
        })
        .collect()
}

/// A step that all scans share.
struct Step {
    boundary: usize,
    /// As a multiple of what good columns show.
    ratio: f32,
    /// Mean over the scans of the median over the parts, in line integrals.
    height: f32,
}

/// Runs in one row; `means` are those of each scan `[part][col]`, `scales` that of each scan at a column, `wrong` the columns
/// that are not to be asked.
pub(super) fn find(
    means: &[Vec<Vec<f32>>],
    scales: impl Fn(usize, usize) -> f32,
    wrong: &[bool],
    ratio: f32,
) -> Vec<Run> {
    let n_cols = wrong.len();
    let steps: Vec<Option<Step>> = (0..n_cols)
        .map(|boundary| shared(boundary, means, &scales, wrong))
        .collect();
    let level = |b: usize| steps[b].as_ref().map_or(0.0, |step| step.ratio);
    let mut edges: Vec<&Step> = steps
        .iter()
        .flatten()
        .filter(|step| {
            let b = step.boundary;
            let near = b.saturating_sub(APART)..(b + APART + 1).min(n_cols);
            // of equal ones (the same columns asked on both sides of a gap) the first
            let highest = near.clone().all(|other| {
                level(other) < step.ratio || (other >= b && level(other) == step.ratio)
            });
            step.ratio > ratio && highest
        })
        .collect();
    edges.sort_by_key(|step| step.boundary);
    let mut edges: Vec<Step> = edges
        .into_iter()
        .filter_map(|step| pinned(step, means, wrong))
        .collect();
    edges.dedup_by_key(|step| step.boundary);
    let widest = WIDEST.min(n_cols / WIDEST_SHARE);
    // a run is what lies between one edge and the next; those whose edges are most alike come first
    let mut pairs: Vec<(f32, Run)> = edges
        .windows(2)
        .filter_map(|pair| {
            let columns = pair[0].boundary..pair[1].boundary;
            let [a, b] = [pair[0].height, pair[1].height];
            let alike = a.abs().min(b.abs()) / a.abs().max(b.abs());
            let strength = 0.5 * (a.abs() + b.abs());
            (a * b < 0.0 && alike >= ALIKE && (NARROWEST..=widest).contains(&columns.len()))
                .then_some((alike, Run { columns, strength }))
        })
        .collect();
    pairs.sort_by(|a, b| {
        let by_place = a.1.columns.start.cmp(&b.1.columns.start);
        b.0.total_cmp(&a.0).then(by_place)
    });
    let mut runs: Vec<Run> = Vec::new();
    for (_, run) in pairs {
        let apart = |other: &Run| {
            other.columns.end + APART <= run.columns.start
                || run.columns.end + APART <= other.columns.start
        };
        if runs.iter().all(apart) {
            runs.push(run);
        }
    }
    runs.sort_by_key(|run| run.columns.start);
    let wide: usize = runs.iter().map(|run| run.columns.len()).sum();
    // where more than a quarter of a row is a stripe, nothing is left that says what is right
    if 4 * wide > n_cols { Vec::new() } else { runs }
}

/// The step at `boundary` as far as all scans share it.
fn shared(
    boundary: usize,
    means: &[Vec<Vec<f32>>],
    scales: &impl Fn(usize, usize) -> f32,
    wrong: &[bool],
) -> Option<Step> {
    let sum = StepSum::new(boundary, 0..wrong.len(), |col| !wrong[col])?;
    let heights: Vec<[f32; PARTS]> = means
        .iter()
        .map(|parts| std::array::from_fn(|part| sum.of(|col| parts[part][col])))
        .collect();
    let of_scan: Vec<f32> = heights.iter().map(|&parts| median(parts)).collect();
    let height = of_scan.iter().sum::<f32>() / of_scan.len() as f32;
    let ratio = of_scan
        .iter()
        .enumerate()
        .map(|(scan, own)| (own * height.signum()).max(0.0) / scales(scan, boundary))
        .fold(f32::INFINITY, f32::min);
    let steady = heights.iter().enumerate().all(|(scan, parts)| {
        // a part is noisier than all together by about the root of their number
        let noise = (PARTS as f32).sqrt() * scales(scan, boundary);
        let room = 0.5 * of_scan[scan].abs() + noise;
        parts
            .iter()
            .filter(|part| (*part - of_scan[scan]).abs() <= room)
            .count()
            >= STEADY
    });
    steady.then_some(Step {
        boundary,
        ratio,
        height,
    })
}

/// The step at the boundary, near where it was measured, between whose columns most of it lies in every scan; `None` where
/// it is not in one place.
fn pinned(step: &Step, means: &[Vec<Vec<f32>>], wrong: &[bool]) -> Option<Step> {
    let n_cols = wrong.len();
    // beyond the columns that were left out on either side, and one more
    let mut first = step.boundary;
    while first > 1 && wrong[first - 1] {
        first -= 1;
    }
    let mut last = step.boundary;
    while last + 1 < n_cols && wrong[last] {
        last += 1;
    }
    let sign = step.height.signum();
    let jump = |b: usize| {
        let of_scan = |parts: &Vec<Vec<f32>>| {
            median(std::array::from_fn(|part| {
                parts[part][b] - parts[part][b - 1]
            }))
        };
        means
            .iter()
            .map(|parts| sign * of_scan(parts))
            .fold(f32::INFINITY, f32::min)
    };
    let places = first.saturating_sub(1).max(1)..=(last + 1).min(n_cols - 1);
    let best = places.max_by(|&a, &b| jump(a).total_cmp(&jump(b)).then(b.cmp(&a)))?;
    (jump(best) >= SHARP * step.height.abs()).then_some(Step {
        boundary: best,
        ..*step
    })
}

/// Takes the deviation of the `runs` off the means of one scan `[part][col]`.
pub(super) fn level(parts: &mut [Vec<f32>], runs: &[Run], wrong: &[bool]) {
    for Run { columns, .. } in runs {
        let Some([left, right]) = edges(columns, wrong.len(), |col| !wrong[col]) else {
            continue;
        };
        let of_all =
            |step: &StepSum| median(std::array::from_fn(|part| step.of(|c| parts[part][c])));
        let ends = [of_all(&left), -of_all(&right)];
        for line in parts.iter_mut() {
            for col in columns.clone() {
                line[col] -= between(ends, columns, col);
            }
        }
    }
}

/// Median over the parts of a scan.
fn median(mut parts: [f32; PARTS]) -> f32 {
    parts.sort_unstable_by(f32::total_cmp);
    0.5 * (parts[(PARTS - 1) / 2] + parts[PARTS / 2])
}

/// The steps at both ends of a run, on a row with `n_cols` columns.
pub(super) fn edges(
    columns: &Range<usize>,
    n_cols: usize,
    good: impl Fn(usize) -> bool,
) -> Option<[StepSum; 2]> {
    let left = StepSum::new(columns.start, 0..columns.end, &good)?;
    let right = StepSum::new(columns.end, columns.start..n_cols, &good)?;
    Some([left, right])
}

/// The deviation at `col` of a run, on the straight line between those at its two ends.
pub(super) fn between(ends: [f32; 2], columns: &Range<usize>, col: usize) -> f32 {
    ends[0] + share(columns, col) * (ends[1] - ends[0])
}

/// How much of the way from the left to the right end of a run lies before the middle of `col`.
pub(super) fn share(columns: &Range<usize>, col: usize) -> f32 {
    ((col - columns.start) as f32 + 0.5) / columns.len() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_of_a_parabola_with_a_jump_is_the_jump() {
        let curve = |col: usize| {
            let x = col as f32;
            0.3 - 0.05 * x + 0.002 * x * x
        };
        let line = |col: usize| curve(col) + if col >= 20 { 0.7 } else { 0.0 };
        let sum = StepSum::new(20, 0..40, |_| true).unwrap();
        assert!((sum.of(line) - 0.7).abs() < 1e-5);
        // beside it, and across a gap on a straight line
        assert!((StepSum::new(21, 0..40, |_| true).unwrap().of(line) - 0.7).abs() > 0.1);
        let straight = |col: usize| 0.1 * col as f32 + if col >= 20 { 0.7 } else { 0.0 };
        let gap = StepSum::new(21, 0..40, |col| !(18..23).contains(&col)).unwrap();
        assert!((gap.of(straight) - 0.7).abs() < 1e-5);
        assert!(StepSum::new(1, 0..40, |_| true).is_none());
    }

    #[test]
    fn runs_are_found_to_the_pixel_and_edges_that_move_are_not() {
        let n_cols = 256;
        let line = |scan: usize, part: usize, col: usize| {
            let moved = col as f32 - 3.0 * scan as f32;
            // structure, a wall that moves with the sample, and one that turns with it
            let wall = |at: f32| {
                if (at..at + 20.0).contains(&moved) {
                    0.05
                } else {
                    0.0
                }
            };
            let sample = 1e-3 * (0.7 * moved).sin() + wall(180.0) + wall(100.0 + 1.5 * part as f32);
            let stripes = match col {
                40..47 => 0.02,
                60..85 => -0.01,
                _ => 0.0,
            };
            sample + stripes
        };
        let means: Vec<Vec<Vec<f32>>> = (0..2)
            .map(|scan| {
                (0..PARTS)
                    .map(|part| (0..n_cols).map(|col| line(scan, part, col)).collect())
                    .collect()
            })
            .collect();
        let wrong = vec![false; n_cols];
        let runs = find(&means, |_, _| 1.5e-3, &wrong, 4.0);
        let columns: Vec<Range<usize>> = runs.iter().map(|run| run.columns.clone()).collect();
        assert_eq!(columns, [40..47, 60..85]);
        assert!((runs[0].strength - 0.02).abs() < 0.004);
        let mut levelled = means[0].clone();
        level(&mut levelled, &runs, &wrong);
        let faultless =
            |col: usize| line(0, 3, col) - if (40..47).contains(&col) { 0.02 } else { -0.01 };
        for col in (40..47).chain(60..85) {
            assert!((levelled[3][col] - faultless(col)).abs() < 3e-3, "{col}");
        }
        // with one scan alone nobody can tell the wall that stands still
        let alone = find(&means[..1], |_, _| 1.5e-3, &wrong, 4.0);
        assert_eq!(alone.len(), 3);
    }
}
