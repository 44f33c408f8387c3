//! Counts of a scan as the GPU takes them, and what is known of them before any kernel runs.

use std::ops::Range;

use ndarray::{Array3, s};

use super::{CountSlab, LOST, LevelledColumn, LockedPixel, ZingerRule, off_device};
use crate::config::OutlierKind;
use crate::correct::lock::{self, Verdict};
use crate::correct::{CorrectedScan, CorrectionCounts};
use crate::error::Result;

impl CorrectedScan {
    /// Why the corrections stay on the CPU; `None`: they run on the GPU.
    #[must_use]
    pub fn off_device(&self) -> Option<String> {
        off_device(&self.scan, &self.config)
    }

    /// Counts of `rows` as the GPU takes them, and what is known before of those from row `counted` of the detector on: all but
    /// [`super::Touched`].
    ///
    /// # Errors
    /// Those of the reader; [`crate::Error::Shape`] for rows that the detector does not have. A double flat field reads the whole scan
    /// the first time.
    pub fn count_slab(
        &self,
        rows: Range<usize>,
        counted: usize,
    ) -> Result<(CountSlab, CorrectionCounts)> {
        self.check_rows(&rows)?;
        let (n_angles, n_cols) = (self.scan.n_angles(), self.scan.n_cols());
        let mut counts = Array3::<u16>::zeros((n_angles, rows.len(), n_cols));
        self.scan.for_each_block(
            rows.clone(),
            self.frames_per_block(rows.len()),
            |first, block| {
                let n = block.len_of(ndarray::Axis(0));
                ndarray::Zip::from(counts.slice_mut(s![first..first + n, .., ..]))
                    .and(block)
                    .par_for_each(|count, &value| *count = value as u16);
                Ok(())
            },
        )?;
        let good: Vec<u32> = rows
            .clone()
            .flat_map(|row| {
                let mut bad: Vec<bool> = (0..n_cols)
                    .map(|col| self.fields.is_bad(row, col))
                    .collect();
                self.locked(row, Verdict::Interpolated)
                    .for_each(|col| bad[col] = true);
                good_columns(&bad)
            })
            .collect();
        let counted = counted.clamp(rows.start, rows.end);
        let new = counted - rows.start..rows.len();
        let lost = new
            .clone()
            .filter(|row| n_cols > 0 && good[row * n_cols] == LOST)
            .count();
        let (edges, levelled) = self.broad_stripes(&rows);
        let sharp_mean = self.sharp_mean()?;
        let factors = sharp_mean.map(|map| {
            let of_rows = map.slice(s![rows.clone(), ..]);
            of_rows.iter().map(|mean| mean.exp()).collect()
        });
        let slab = CountSlab {
            counts,
            good,
            edges,
            levelled,
            most_broad: self.lock.as_ref().map_or([0, 0], |map| {
                let [stripes, columns] = map.most_broad();
                [2 * stripes, columns]
            }),
            stripe: self.stripe,
            beam: self.beam.clone(),
            factors: factors.unwrap_or_default(),
            zinger: self
                .zinger_of_sinograms()
                .filter(|&ZingerRule { size, .. }| size > 0 && n_cols > size && n_angles > size),
            cubic: self.lock.is_some(),
            locked: self.locked_pixels(&rows),
            most_locked: self
                .lock
                .as_ref()
                .map_or(0, |map| map.most_in_a_row(Verdict::Corrected)),
            min_transmission: self.min_transmission,
            counted: new.start,
            ..self.fields.of_rows(rows.clone(), n_angles, n_cols)
        };
        let known = CorrectionCounts {
            samples: (new.len() * n_angles * n_cols) as u64,
            lost_lines: (lost * n_angles) as u64,
            ..self.pixels_touched(counted..rows.end)
        };
        Ok((slab, known))
    }

    fn zinger_of_sinograms(&self) -> Option<ZingerRule> {
        let bright = self.zinger.map(|(threshold, size, guard)| ZingerRule {
            kind: OutlierKind::Bright,
            threshold,
            size,
            guard,
        });
        let other = self.outliers.of_sinograms();
        bright.or(other.map(|(kind, threshold, size)| ZingerRule {
            kind,
            threshold,
            size,
            guard: None,
        }))
    }

    /// Edges and columns of the broad stripes of `rows`.
    fn broad_stripes(&self, rows: &Range<usize>) -> (Vec<LockedPixel>, Vec<LevelledColumn>) {
        let (mut edges, mut levelled) = (Vec::new(), Vec::new());
        let Some(map) = &self.lock else {
            return (edges, levelled);
        };
        for (index, row) in rows.clone().enumerate() {
            for stripe in map.broad_stripes(row) {
                let left = edges.len() as u32;
                let at = [stripe.columns.start, stripe.columns.end];
                for (col, (columns, weights)) in at.into_iter().zip(stripe.edges) {
                    edges.push(LockedPixel {
                        at: [index as u32, col as u32, 1, 0],
                        columns: columns.map(|col| col as u32),
                        weights,
                    });
                }
                let of_columns = stripe.columns.zip(stripe.shares);
                levelled.extend(of_columns.map(|(col, share)| LevelledColumn {
                    row: index as u32,
                    col: col as u32,
                    left,
                    share,
                }));
            }
        }
        (edges, levelled)
    }

    /// Pixels of `rows` that the lock corrects; those without a good neighbour on either side are left.
    fn locked_pixels(&self, rows: &Range<usize>) -> Vec<LockedPixel> {
        let Some(map) = &self.lock else {
            return Vec::new();
        };
        let of_row = |(index, row): (usize, usize)| {
            let verdicts = map.verdicts(row);
            let pixel = |col: usize| {
                let (columns, weights) = lock::neighbours(&verdicts, col)?;
                Some(LockedPixel {
                    at: [index as u32, col as u32, 0, 0],
                    columns: columns.map(|col| col as u32),
                    weights,
                })
            };
            let columns = map.columns(row, Verdict::Corrected);
            columns.filter_map(pixel).collect::<Vec<_>>()
        };
        rows.clone().enumerate().flat_map(of_row).collect()
    }
}

/// Columns that stand in for each column of a row, `bad[col]` saying which have no signal.
pub(super) fn good_columns(bad: &[bool]) -> Vec<u32> {
    let n = bad.len();
    let mut left: Vec<Option<u32>> = Vec::with_capacity(n);
    let mut last = None;
    for (col, &bad) in bad.iter().enumerate() {
        if !bad {
            last = Some(col as u32);
        }
        left.push(last);
    }
    let mut next = None;
    let mut good = vec![LOST; n];
    for col in (0..n).rev() {
        if !bad[col] {
            next = Some(col as u32);
        }
        // beyond the outermost good column its value holds
        if let (Some(l), Some(r)) = (left[col].or(next), next.or(left[col])) {
            good[col] = l | (r << 16);
        }
    }
    good
}
