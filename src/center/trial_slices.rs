//! Trial slices: the axis whose slice needs the least absolute attenuation.
//!
//! With a wrong axis every edge opens into arcs that swing above and below the truth, so the sum of absolute values over the
//! slice grows while its sum stays: its minimum is the axis (Donath et al., J. Opt. Soc. Am. A 23 (2006) 1048, metric Q_IA).
//! Every view votes, not only those half a turn apart, so an answer from here is a check of the others where the sample
//! may have moved between the two ends of a half turn. Slices of binned columns narrow the search down first.

use ndarray::{Array2, Array3, Axis};

use super::Answer;
use super::double_wedge::{bin_columns, vertex_of_five};
use crate::config::{FilterWindow, ReconstructConfig};
use crate::gpu::Device;
use crate::reconstruct::geometry::{Grid, InPlaneMotion, rays};
use crate::reconstruct::{Reconstructor, SliceJob};
use crate::stats::median;

/// Columns of the first slices, at most.
const COARSE_COLS: usize = 256;
/// Columns of the last slices, at most: finer ones do not narrow the answer further.
const FINE_COLS: usize = 1024;
/// Steps on either side of the last answer.
const REACH: i64 = 4;
/// Share of half the width within which values count.
const RADIUS: f64 = 0.9;

/// The axis of `sinogram` `[angle, col]` within `range_px`. `Err` says why there is no answer.
pub(super) fn search(
    sinogram: &Array2<f32>,
    angles_rad: &[f64],
    range_px: (f64, f64),
) -> Result<Answer, String> {
    let n_cols = sinogram.ncols();
    if n_cols < 16 || sinogram.nrows() < 16 {
        return Err("fewer than 16 views or columns".into());
    }
    let mut bin = n_cols.div_ceil(COARSE_COLS).next_power_of_two();
    let last_bin = n_cols.div_ceil(FINE_COLS).next_power_of_two();
    let mut trial = Trial::new(sinogram, angles_rad, bin, 1, 0)?;
    let count = ((range_px.1 - range_px.0) / bin as f64).floor() as i64;
    let all = trial.metric(&axes(range_px.0, bin as f64, 0, count))?;
    let best = least(&all);
    if best == 0 || best + 1 == all.len() {
        return Err("the metric is least at the edge of the search range".into());
    }
    let depth = 1.0 - all[best] / median(all.clone()).max(f64::MIN_POSITIVE);
    let mut axis_px = range_px.0 + best as f64 * bin as f64;
    while bin > last_bin {
        bin /= 2;
        trial = Trial::new(sinogram, angles_rad, bin, 1, 0)?;
        axis_px = trial.refine(axis_px, bin as f64)?;
    }
    let step = 0.5 * bin as f64;
    // a second time with the steps on either side of the answer, so that none of them draws it
    let near = trial.refine(axis_px, step)?;
    let axis_px = trial.refine(near, step)?;
    // the even and the odd views apart: their distance says how well the axis is known
    let mut halves = [0.0; 2];
    for (first, half) in halves.iter_mut().enumerate() {
        *half = Trial::new(sinogram, angles_rad, bin, 2, first)?.refine(axis_px, step)?;
    }
    if axis_px < range_px.0 || axis_px > range_px.1 {
        return Err("the minimum lies at the edge of the search".into());
    }
    Ok(Answer {
        axis_px,
        sigma_px: (0.5 * (halves[0] - halves[1]).abs()).max(0.02),
        quality: depth,
    })
}

fn axes(middle: f64, step: f64, from: i64, to: i64) -> Vec<f64> {
    (from..=to).map(|k| middle + k as f64 * step).collect()
}

fn least(values: &[f64]) -> usize {
    (0..values.len())
        .min_by(|&a, &b| values[a].total_cmp(&values[b]))
        .unwrap_or(0)
}

/// Slices of one sinogram with columns averaged by `bin`.
struct Trial {
    sinogram: Array3<f32>,
    bin: f64,
    reconstructor: Reconstructor,
    slice: Array3<f32>,
}

impl Trial {
    /// Views `first`, `first + stride`, ...
    fn new(
        sinogram: &Array2<f32>,
        angles_rad: &[f64],
        bin: usize,
        stride: usize,
        first: usize,
    ) -> Result<Trial, String> {
        let mut views = bin_columns(sinogram.slice(ndarray::s![first..;stride, ..]), bin);
        views.mapv_inplace(|v| if v.is_finite() { v } else { 0.0 });
        let angles: Vec<f64> = angles_rad
            .iter()
            .skip(first)
            .step_by(stride)
            .copied()
            .collect();
        let n = views.ncols();
        let job = SliceJob {
            n_cols: n,
            rays: rays(&angles, InPlaneMotion::default()),
            grid: Grid::square(n),
            config: ReconstructConfig {
                // half of the band: the noise beyond would fill the minimum
                filter: FilterWindow::Hann,
                ..ReconstructConfig::default()
            },
            scale: 1.0,
            mask_radius_px: Some(RADIUS * n as f64 / 2.0),
            support: None,
        };
        Ok(Trial {
            sinogram: views.insert_axis(Axis(0)),
            bin: bin as f64,
            reconstructor: Reconstructor::new(job, &Device::Cpu).map_err(|e| e.to_string())?,
            slice: Array3::zeros((1, n, n)),
        })
    }

    /// Sum of absolute values of the slice for each axis \[px of the detector\].
    fn metric(&mut self, axes_px: &[f64]) -> Result<Vec<f64>, String> {
        let mut sums = Vec::with_capacity(axes_px.len());
        for &axis in axes_px {
            let binned = (axis - 0.5 * (self.bin - 1.0)) / self.bin;
            self.reconstructor
                .slab(self.sinogram.view(), &[binned], self.slice.view_mut())
                .map_err(|e| e.to_string())?;
            sums.push(self.slice.iter().map(|&v| f64::from(v.abs())).sum());
        }
        Ok(sums)
    }

    /// Minimum near `axis_px` on steps of `step`, followed when it lies at an edge, from the parabola through five values.
    fn refine(&mut self, axis_px: f64, step: f64) -> Result<f64, String> {
        let mut middle = axis_px;
        for _ in 0..4 {
            let values = self.metric(&axes(middle, step, -REACH, REACH))?;
            let best = least(&values);
            let offset = best as i64 - REACH;
            if best >= 2 && best + 2 < values.len() {
                return Ok(
                    middle + step * (offset as f64 + vertex_of_five(&values[best - 2..=best + 2]))
                );
            }
            middle += offset as f64 * step;
        }
        Err("the minimum moves to the edge of the fine search".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::center::testing::{Discs, degrees};

    #[test]
    fn the_sharpest_slice_stands_on_the_axis() {
        for (axis, seed) in [(63.4, 1), (71.85, 2)] {
            let angles = degrees(0.0, 1.2, 151);
            let half =
                Discs::random(seed, 20, 38.0).sinogram(151, 130, axis, |k| angles[k as usize]);
            let found = search(&half, &angles, (40.0, 90.0)).unwrap();
            // the five points span 1 px on either side, where the metric is no parabola: a few hundredths
            assert!((found.axis_px - axis).abs() < 0.05, "{axis}: {found:?}");
            assert!(found.quality > 0.02, "{found:?}");
            // an axis outside of the search is no answer
            assert!(search(&half, &angles, (axis + 5.0, 90.0)).is_err());
        }
    }

    #[test]
    fn noise_alone_has_no_axis() {
        let angles = degrees(0.0, 2.0, 91);
        let noise = Array2::from_shape_fn((91, 64), |(a, c)| {
            ((a * 7919 + c * 104_729 + a * a * c) % 1000) as f32
        });
        if let Ok(found) = search(&noise, &angles, (16.0, 48.0)) {
            assert!(found.quality < 0.02, "{found:?}");
        }
    }
}
