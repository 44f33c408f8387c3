//! Which pixels deviate from their neighbours in all scans, row by row.

use std::ops::Range;

use rayon::prelude::*;

use super::Verdict;
use super::broad::{self, Run};
use super::evidence::Evidence;
use super::row::Row;
use super::scales::{BLOCK, Scales, WINDOW, window};

/// So many rows above and below a row are looked at together with it: a fault that spans rows stands out of less noise there.
const TOGETHER: usize = 2;
/// Rows held at most on both sides together of those that are judged.
pub(super) const HALO: usize = 2 * (WINDOW[0] + BLOCK + 2 * TOGETHER);

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
    let Range { start, end } = around(rows, TOGETHER, &(0..n_rows));
    let blocks = start / BLOCK * BLOCK..end.div_ceil(BLOCK) * BLOCK;
    around(&blocks, WINDOW[0] + TOGETHER, &(0..n_rows))
}

/// `rows` and so many on either side, within `limits`.
fn around(rows: &Range<usize>, reach: usize, limits: &Range<usize>) -> Range<usize> {
    let start = rows.start.saturating_sub(reach).max(limits.start);
    start..(rows.end + reach).min(limits.end)
}

/// Judges `rows` by the evidence of the rows `held`.
pub(super) fn search(
    evidence: &[Evidence],
    held: &Range<usize>,
    rows: &Range<usize>,
    ratio: f32,
) -> Vec<Found> {
    let suspected = around(rows, TOGETHER, held);
    let suspects = suspects(evidence, held, &suspected, ratio);
    let judge = |block: usize| -> Vec<Found> {
        let scales = scales(evidence, held, block);
        let steps: Vec<Vec<f32>> = evidence
            .iter()
            .map(|one| broad::scales(one, held, block))
            .collect();
        rows_of(block, rows)
            .map(|row| {
                let mut near: Vec<usize> = around(&(row..row + 1), TOGETHER, held).collect();
                near.sort_by_key(|other| other.abs_diff(row));
                let likely: Vec<&[bool]> = near
                    .iter()
                    .map(|other| suspects[other - suspected.start].as_slice())
                    .collect();
                Row::new(evidence, row - held.start, &scales, &steps, &likely, ratio).judge()
            })
            .collect()
    };
    by_block(rows, judge)
}

/// Columns that look wrong in each of `rows` when it is taken together with those around it.
fn suspects(
    evidence: &[Evidence],
    held: &Range<usize>,
    rows: &Range<usize>,
    ratio: f32,
) -> Vec<Vec<bool>> {
    by_block(rows, |block| {
        let window = window(block, held);
        let together: Vec<Evidence> = evidence
            .iter()
            .map(|one| one.together(window.clone(), TOGETHER))
            .collect();
        let window = window.start + held.start..window.end + held.start;
        let scales = scales(&together, &window, block);
        rows_of(block, rows)
            .map(|row| Row::new(&together, row - window.start, &scales, &[], &[], ratio).suspects())
            .collect()
    })
}

/// What `of_block` says of the rows of each block that has some of `rows`.
fn by_block<T: Send>(
    rows: &Range<usize>,
    of_block: impl Fn(usize) -> Vec<T> + Send + Sync,
) -> Vec<T> {
    let blocks = rows.start / BLOCK..rows.end.div_ceil(BLOCK);
    let found: Vec<Vec<T>> = blocks.into_par_iter().map(of_block).collect();
    found.into_iter().flatten().collect()
}

/// Those of `rows` that belong to a block.
fn rows_of(block: usize, rows: &Range<usize>) -> Range<usize> {
    rows.start.max(block * BLOCK)..rows.end.min((block + 1) * BLOCK)
}

/// What good pixels show around a block of rows, of each scan.
fn scales(evidence: &[Evidence], held: &Range<usize>, block: usize) -> Vec<Scales> {
    evidence
        .iter()
        .map(|one| Scales::measure(one, held, block))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::evidence::PARTS;
    use super::*;

    /// Rows in which column 60 is taken where two scans share a fault of it in `wrong` rows that drifts from `size` to its negative, in noise of 0.01.
    fn rows_taken(wrong: &Range<usize>, size: f32, rows: &Range<usize>) -> Vec<usize> {
        let n_rows = 48;
        let evidence: Vec<Evidence> = (0..2)
            .map(|scan| {
                let mut one = Evidence::of_noise((n_rows, 120), scan);
                for row in wrong.clone() {
                    for part in 0..PARTS {
                        let drift = 1.0 - 2.0 * part as f32 / (PARTS - 1) as f32;
                        one.means[[row, part, 60]] += size * drift;
                    }
                }
                one
            })
            .collect();
        let found = search(&evidence, &(0..n_rows), rows, 4.0);
        let others = found.iter().flat_map(|row| &row.pixels);
        assert!(others.clone().all(|pixel| pixel.0 == 60));
        let taken = |row: &&usize| !found[**row - rows.start].pixels.is_empty();
        let rows: Vec<usize> = rows.clone().collect();
        rows.iter().filter(taken).copied().collect()
    }

    #[test]
    fn faults_that_span_rows_are_found_in_all_of_them() {
        let wrong = 13..24;
        // good pixels show 7.5e-3: in single rows the root mean square of the fault is 3.5 times of that, less where the noise of either scan lowers it
        let size = 0.04;
        let all: Vec<usize> = wrong.clone().collect();
        assert_eq!(rows_taken(&wrong, size, &(0..48)), all);
        // whatever the rows asked for
        assert_eq!(rows_taken(&wrong, size, &(17..21)), [17, 18, 19, 20]);
        // as faint in one row alone it is not known from noise
        assert!(rows_taken(&(17..18), size, &(0..48)).is_empty());
    }
}
