//! What one pass over a subset of the projections tells of every pixel.

use std::ops::Range;

use ndarray::{Array2, Array3, Axis, Zip};
use rayon::prelude::*;

use crate::correct::CorrectedScan;
use crate::error::Result;
use crate::phantom::SplitMix64;
use crate::scan::SinogramSource;

/// Parts of the scan, in time, of which the mean is kept: enough to see drift and steps.
pub(super) const PARTS: usize = 8;
/// Planes `[row, col]` held for each scan: the parts, the activity and (a byte each) the bad pixels.
pub(super) const PLANES: u64 = PARTS as u64 + 2;

/// The evidence of one scan about some rows of its detector.
pub(super) struct Evidence {
    /// Mean line integral of each part of the scan, without its highest and lowest sample (a zinger is one)
    /// `[row, part, col]`.
    pub(super) means: Array3<f32>,
    /// Mean absolute step of the line integral from one chosen projection to the next `[row, col]`.
    pub(super) activity: Array2<f32>,
    /// Pixels without signal `[row, col]`.
    pub(super) bad: Array2<bool>,
}

/// Projections that are looked at: all where they are few, else `wanted` of them, evenly spread.
pub(super) fn chosen(n_angles: usize, wanted: usize) -> Vec<usize> {
    if n_angles <= wanted + wanted / 2 {
        return (0..n_angles).collect();
    }
    (0..wanted)
        .map(|k| (2 * k + 1) * n_angles / (2 * wanted))
        .collect()
}

/// Sums over one part of the scan.
struct Part {
    sum: Array2<f32>,
    low: Array2<f32>,
    high: Array2<f32>,
    n: usize,
}

impl Part {
    fn new(shape: (usize, usize)) -> Part {
        Part {
            sum: Array2::zeros(shape),
            low: Array2::from_elem(shape, f32::INFINITY),
            high: Array2::from_elem(shape, f32::NEG_INFINITY),
            n: 0,
        }
    }

    fn add(&mut self, frame: &Array2<f32>) {
        Zip::from(&mut self.sum)
            .and(&mut self.low)
            .and(&mut self.high)
            .and(frame)
            .par_for_each(|sum, low, high, &value| {
                *sum += value;
                *low = low.min(value);
                *high = high.max(value);
            });
        self.n += 1;
    }

    /// The mean without the extremes, where there are enough samples to leave them out.
    fn finish(self) -> Array2<f32> {
        let Part {
            mut sum,
            low,
            high,
            n,
        } = self;
        if n < 5 {
            return sum / n.max(1) as f32;
        }
        let scale = 1.0 / (n - 2) as f32;
        Zip::from(&mut sum)
            .and(&low)
            .and(&high)
            .par_for_each(|sum, &low, &high| *sum = (*sum - low - high) * scale);
        sum
    }
}

impl Evidence {
    /// Evidence of noise alone `[row, col]`, to try the search on.
    pub(super) fn of_noise((n_rows, n_cols): (usize, usize), seed: u64) -> Evidence {
        let mut random = SplitMix64::keyed(seed, &[0x10CC]);
        Evidence {
            means: Array3::from_shape_simple_fn((n_rows, PARTS, n_cols), || {
                random.uniform(0.69, 0.71) as f32
            }),
            activity: Array2::from_elem((n_rows, n_cols), 0.01),
            bad: Array2::from_elem((n_rows, n_cols), false),
        }
    }

    /// Each of `rows` taken together with `reach` rows on either side, as far as they are held: the means of the pixels that have a signal.
    pub(super) fn together(&self, rows: Range<usize>, reach: usize) -> Evidence {
        let (held, n_cols) = self.bad.dim();
        let shape = (rows.len(), n_cols);
        let mut means = Array3::zeros((shape.0, PARTS, n_cols));
        let mut activity = Array2::zeros(shape);
        let mut number = Array2::<f32>::zeros(shape);
        for (index, row) in rows.enumerate() {
            for other in row.saturating_sub(reach)..(row + reach + 1).min(held) {
                for col in (0..n_cols).filter(|&col| !self.bad[[other, col]]) {
                    number[[index, col]] += 1.0;
                    activity[[index, col]] += self.activity[[other, col]];
                    for part in 0..PARTS {
                        means[[index, part, col]] += self.means[[other, part, col]];
                    }
                }
            }
        }
        let bad = number.mapv(|number| number == 0.0);
        number.mapv_inplace(|number| number.max(1.0));
        activity /= &number;
        means /= &number.insert_axis(Axis(1));
        Evidence {
            means,
            activity,
            bad,
        }
    }

    /// Looks at the projections `chosen` of `scan`, each read once, a few at a time.
    pub(super) fn gather(
        scan: &CorrectedScan,
        rows: Range<usize>,
        chosen: &[usize],
    ) -> Result<Evidence> {
        let shape = (rows.len(), scan.n_cols());
        let mut means = Array3::zeros((shape.0, PARTS, shape.1));
        let mut activity = Array2::<f32>::zeros(shape);
        let mut before: Option<Array2<f32>> = None;
        let mut part = Part::new(shape);
        let mut at = 0;
        let part_of = |k: usize| k * PARTS / chosen.len().max(1);
        for (first, angles) in
            chosen
                .chunks(rayon::current_num_threads().max(1))
                .scan(0, |first, angles| {
                    let now = *first;
                    *first += angles.len();
                    Some((now, angles))
                })
        {
            let frames: Vec<Array2<f32>> = angles
                .par_iter()
                .map(|&angle| scan.projection(angle, rows.clone()))
                .collect::<Result<_>>()?;
            for (k, frame) in frames.into_iter().enumerate() {
                if part_of(first + k) != at {
                    let done = std::mem::replace(&mut part, Part::new(shape));
                    means.index_axis_mut(Axis(1), at).assign(&done.finish());
                    at = part_of(first + k);
                }
                part.add(&frame);
                if let Some(before) = &before {
                    Zip::from(&mut activity)
                        .and(before)
                        .and(&frame)
                        .par_for_each(|sum, &a, &b| *sum += (b - a).abs());
                }
                before = Some(frame);
            }
        }
        means.index_axis_mut(Axis(1), at).assign(&part.finish());
        activity /= chosen.len().saturating_sub(1).max(1) as f32;
        let bad =
            Array2::from_shape_fn(shape, |(row, col)| scan.is_bad_pixel(rows.start + row, col));
        Ok(Evidence {
            means,
            activity,
            bad,
        })
    }
}
