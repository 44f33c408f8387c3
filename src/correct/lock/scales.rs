//! What good pixels show: the sizes that anomalies are compared with.

use std::ops::Range;

use super::super::bad_pixels::lagrange;
use super::evidence::{Evidence, PARTS};
use crate::stats::middle;

/// Side of the blocks that share one scale \[px\]; blocks are counted from the first row of the detector.
pub(super) const BLOCK: usize = 8;
/// Half height and half width of the window in which good pixels are looked at for the scale \[px\].
pub(super) const WINDOW: [usize; 2] = [8, 12];
/// Rows of that window.
pub(super) const WINDOW_ROWS: usize = 2 * WINDOW[0] + 1;
/// Widest gap that is looked across \[px\].
const WIDEST: usize = 5;
/// Least scale: a stripe of this size in line integrals is below the noise of any detector.
pub(super) const LEAST_SCALE: f32 = 3e-5;

/// Rows in which good pixels are looked at for the scales of a block of rows, of those `held` and counted from their first.
pub(super) fn window(block: usize, held: &Range<usize>) -> Range<usize> {
    let centre = block * BLOCK + BLOCK / 2;
    let within = |row: usize| row.clamp(held.start, held.end) - held.start;
    within(centre.saturating_sub(WINDOW[0]))..within(centre + WINDOW[0] + 1)
}

/// Median size of the anomaly of good pixels around a row of blocks, for each width of the gap on either side.
pub(super) struct Scales {
    /// `[block of columns][left gap - 1][right gap - 1]`
    of_block: Vec<[[f32; WIDEST]; WIDEST]>,
}

impl Scales {
    pub(super) fn measure(evidence: &Evidence, held: &Range<usize>, block: usize) -> Scales {
        let n_cols = evidence.bad.ncols();
        let Range {
            start: low,
            end: high,
        } = window(block, held);
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
        Scales { of_block }
    }

    /// Scale at `col` across the gap between good neighbours `left` and `right` columns away.
    pub(super) fn at(&self, col: usize, left: usize, right: usize) -> f32 {
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
