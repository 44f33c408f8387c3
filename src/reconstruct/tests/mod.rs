#![expect(
    clippy::print_stdout,
    reason = "tests print what they measured and what they skip"
)]
//! What the tests of this folder share: an analytic object with exact strip integrals, and back-projection by definition.

use std::f64::consts::PI;

use ndarray::{Array2, Array3, Axis};
use rayon::prelude::*;

use super::filter::FilterPlan;
use super::geometry::{Grid, InPlaneMotion, rays};
use super::{Reconstructor, SliceJob};
use crate::config::{ReconstructConfig, ReconstructMethod};
use crate::gpu::Device;

mod accuracy;
mod acquisition;
mod against_definition;
mod goldens;
mod properties;
mod speed;
mod truncation;

/// Both methods of the CPU.
pub(crate) const METHODS: [ReconstructMethod; 2] =
    [ReconstructMethod::Fbp, ReconstructMethod::Fourier];

/// An ellipse of constant attenuation \[1/px\]; lengths in pixels from the axis, y up, turned by `phi` \[rad\].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ellipse {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) a: f64,
    pub(crate) b: f64,
    pub(crate) phi: f64,
    pub(crate) value: f64,
}

pub(crate) fn disc(x: f64, y: f64, radius: f64, value: f64) -> Ellipse {
    Ellipse {
        x,
        y,
        a: radius,
        b: radius,
        phi: 0.0,
        value,
    }
}

/// `n` angles from 0 to 180 degrees, both included.
pub(crate) fn half_turn(n: usize) -> Vec<f64> {
    (0..n).map(|k| k as f64 * PI / (n - 1) as f64).collect()
}

/// A job with the defaults of the config on the full square slice.
pub(crate) fn job(n_cols: usize, angles: &[f64]) -> SliceJob {
    SliceJob {
        n_cols,
        rays: rays(angles, InPlaneMotion::default()),
        grid: Grid::square(n_cols),
        config: ReconstructConfig::default(),
        scale: 1.0,
        mask_radius_px: Some(n_cols as f64 / 2.0),
        support: None,
    }
}

/// Mean line integral over the width of each column, `[angle, col]`.
///
/// The line integral of an ellipse is 2 w sqrt(A^2 - u^2), A its half width seen from the angle; its antiderivative
/// w (u sqrt(A^2 - u^2) + A^2 asin(u / A)) is differenced over the column.
pub(crate) fn sinogram(
    ellipses: &[Ellipse],
    angles: &[f64],
    n_cols: usize,
    axis_px: f64,
) -> Array2<f32> {
    let mut out = Array2::zeros((angles.len(), n_cols));
    out.axis_iter_mut(Axis(0))
        .into_par_iter()
        .zip(angles)
        .for_each(|(mut row, &angle)| {
            let mut sums = vec![0.0; n_cols];
            let (sin, cos) = angle.sin_cos();
            for e in ellipses {
                let middle = e.x * cos + e.y * sin + axis_px;
                let (sin_e, cos_e) = (angle - e.phi).sin_cos();
                let squared = (e.a * cos_e).powi(2) + (e.b * sin_e).powi(2);
                let half = squared.sqrt();
                let weight = e.value * e.a * e.b / squared;
                let integral = |edge: f64| {
                    let u = (edge - middle).clamp(-half, half);
                    weight
                        * (u * (squared - u * u).max(0.0).sqrt()
                            + squared * (u / half).clamp(-1.0, 1.0).asin())
                };
                let from = (middle - half - 0.5).floor().clamp(0.0, n_cols as f64) as usize;
                let to = (middle + half + 1.5).ceil().clamp(0.0, n_cols as f64) as usize;
                for (column, sum) in sums.iter_mut().enumerate().take(to).skip(from) {
                    *sum += integral(column as f64 + 0.5) - integral(column as f64 - 0.5);
                }
            }
            for (value, sum) in row.iter_mut().zip(sums) {
                *value = sum as f32;
            }
        });
    out
}

/// The object on the grid, each voxel the mean of 16 x 16 points, `[y, x]`.
pub(crate) fn truth(ellipses: &[Ellipse], grid: &Grid) -> Array2<f32> {
    let mut out = Array2::zeros((grid.n_y, grid.n_x));
    out.axis_iter_mut(Axis(0))
        .into_par_iter()
        .enumerate()
        .for_each(|(j, mut row)| {
            let y = grid.y0 - j as f64 * grid.step;
            for e in ellipses {
                let reach = e.a.max(e.b) + grid.step;
                if (y - e.y).abs() > reach {
                    continue;
                }
                let (sin, cos) = e.phi.sin_cos();
                let from = ((e.x - reach - grid.x0) / grid.step)
                    .floor()
                    .clamp(0.0, grid.n_x as f64) as usize;
                let to = ((e.x + reach - grid.x0) / grid.step)
                    .ceil()
                    .clamp(0.0, grid.n_x as f64) as usize;
                for i in from..to {
                    let x = grid.x0 + i as f64 * grid.step;
                    let distance = |dx: f64, dy: f64| {
                        let (u, v) = (x + dx - e.x, y + dy - e.y);
                        ((u * cos + v * sin) / e.a).hypot((v * cos - u * sin) / e.b)
                    };
                    let small = e.a.min(e.b);
                    let middle = distance(0.0, 0.0) * small;
                    let share = if middle > small + 0.75 * grid.step {
                        0.0
                    } else if middle < small - 0.75 * grid.step {
                        1.0
                    } else {
                        let at = |k: usize| ((k as f64 + 0.5) / 16.0 - 0.5) * grid.step;
                        let hits = (0..256)
                            .filter(|k| distance(at(k % 16), at(k / 16)) <= 1.0)
                            .count();
                        hits as f64 / 256.0
                    };
                    row[i] += (e.value * share) as f32;
                }
            }
        });
    out
}

/// SplitMix64, so that the object below is the one of the peers' measurements.
struct SplitMix64(u64);

impl SplitMix64 {
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        low + (high - low) * ((z ^ (z >> 31)) >> 11) as f64 / 9_007_199_254_740_992.0
    }
}

/// Modified Shepp-Logan (Toft 1996) with 40 discs and pores and 1230 fibre ends in two woven layers, in pixels of a detector of
/// `n_cols` columns; values are per pixel, `2 / n_cols` times those of the phantom.
pub(crate) fn cloth_phantom(n_cols: usize) -> Vec<Ellipse> {
    const SHEPP_LOGAN: [(f64, f64, f64, f64, f64, f64); 10] = [
        (1.0, 0.69, 0.92, 0.0, 0.0, 0.0),
        (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0),
        (-0.2, 0.11, 0.31, 0.22, 0.0, -18.0),
        (-0.2, 0.16, 0.41, -0.22, 0.0, 18.0),
        (0.1, 0.21, 0.25, 0.0, 0.35, 0.0),
        (0.1, 0.046, 0.046, 0.0, 0.1, 0.0),
        (0.1, 0.046, 0.046, 0.0, -0.1, 0.0),
        (0.1, 0.046, 0.023, -0.08, -0.605, 0.0),
        (0.1, 0.023, 0.023, 0.0, -0.606, 0.0),
        (0.1, 0.023, 0.046, 0.06, -0.605, 0.0),
    ];
    let mut all: Vec<Ellipse> = SHEPP_LOGAN
        .iter()
        .map(|&(value, a, b, x, y, degrees)| Ellipse {
            x,
            y,
            a,
            b,
            phi: f64::to_radians(degrees),
            value,
        })
        .collect();
    let mut random = SplitMix64(20_261_121);
    let mut placed: Vec<(f64, f64, f64)> = Vec::new();
    while placed.len() < 40 {
        let radius = 0.004 * (0.045_f64 / 0.004).powf(random.uniform(0.0, 1.0));
        let (x, y) = (random.uniform(-0.58, 0.58), random.uniform(-0.8, 0.78));
        let mut value = 0.15 + 0.5 * random.uniform(0.0, 1.0);
        let hole = random.uniform(0.0, 1.0) > 0.8;
        let _drift = (random.uniform(-0.06, 0.06), random.uniform(-0.06, 0.06));
        if (x / 0.60).powi(2) + ((y + 0.0184) / 0.80).powi(2) > 0.9 || (y > -0.46 && y < -0.16) {
            continue;
        }
        if placed
            .iter()
            .any(|q| (x - q.0).powi(2) + (y - q.1).powi(2) < (radius + q.2 + 0.012).powi(2))
        {
            continue;
        }
        let far_from_ventricles = SHEPP_LOGAN[2..4].iter().all(|q| {
            let (sin, cos) = q.5.to_radians().sin_cos();
            let u = (x - q.3) * cos + (y - q.4) * sin;
            let v = ((y - q.4) * cos - (x - q.3) * sin) * q.1 / q.2;
            u.hypot(v) > q.1 + radius + 0.08
        });
        if hole && far_from_ventricles {
            value = -0.18;
        }
        placed.push((x, y, radius));
        all.push(disc(x, y, radius, value));
    }
    let (fibre, pitch) = (0.0055, 0.0125);
    for layer in 0..2 {
        let middle_y = -0.25 - 0.115 * f64::from(layer);
        for tow in 0..6 {
            let middle_x = -0.45 + 0.18 * f64::from(tow) + 0.05 * f64::from(layer);
            let up = if (tow + layer) % 2 == 0 {
                0.026
            } else {
                -0.026
            };
            for i in -8..9 {
                for j in -5_i32..6 {
                    let x = pitch * (f64::from(i) + 0.5 * f64::from(j & 1));
                    let y = pitch * 0.866_025_403_784_438_6 * f64::from(j);
                    let (jx, jy) = (
                        random.uniform(-0.0016, 0.0016),
                        random.uniform(-0.0016, 0.0016),
                    );
                    let radius = fibre * random.uniform(0.85, 1.1);
                    if (x / 0.078).powi(2) + (y / 0.031).powi(2) < 1.0 {
                        all.push(disc(
                            middle_x + x + jx,
                            middle_y + up + y + jy,
                            radius,
                            0.35,
                        ));
                    }
                }
            }
        }
        for line in 0..3 {
            for k in 0..95 {
                let x = -0.54 + 1.08 * f64::from(k) / 94.0;
                let phase = PI * (x + 0.45 - 0.05 * f64::from(layer)) / 0.18;
                let sign = if layer == 0 { -1.0 } else { 1.0 };
                let y = middle_y + sign * 0.036 * phase.cos() + (f64::from(line) - 1.0) * 0.0118;
                all.push(disc(x, y + random.uniform(-0.0008, 0.0008), fibre, 0.3));
            }
        }
    }
    let to_px = 0.95 * n_cols as f64 / 2.0;
    for e in &mut all {
        (e.x, e.y, e.a, e.b) = (e.x * to_px, e.y * to_px, e.a * to_px, e.b * to_px);
        e.value *= 2.0 / n_cols as f64;
    }
    all
}

/// Best factor k and root mean square of k * found - truth inside `share` of half the width.
pub(crate) fn factor_and_rmse(found: &Array2<f32>, truth: &Array2<f32>, share: f64) -> (f64, f64) {
    let n = truth.ncols();
    let middle = (n as f64 - 1.0) / 2.0;
    let (mut ft, mut ff, mut tt, mut count) = (0.0, 0.0, 0.0, 0.0);
    for ((j, i), &t) in truth.indexed_iter() {
        if (i as f64 - middle).hypot(j as f64 - middle) <= share * n as f64 / 2.0 {
            let (f, t) = (f64::from(found[[j, i]]), f64::from(t));
            (ft, ff, tt, count) = (ft + f * t, ff + f * f, tt + t * t, count + 1.0);
        }
    }
    let factor = ft / ff;
    (factor, ((tt - factor * ft) / count).max(0.0).sqrt())
}

/// Several sinograms as one slab `[row, angle, col]`.
pub(crate) fn stack(sinograms: &[Array2<f32>]) -> Array3<f32> {
    let views: Vec<_> = sinograms.iter().map(|sinogram| sinogram.view()).collect();
    ndarray::stack(Axis(0), &views).expect("all of one shape")
}

/// Largest absolute difference.
pub(crate) fn largest_difference<D: ndarray::Dimension>(
    a: &ndarray::Array<f32, D>,
    b: &ndarray::Array<f32, D>,
) -> f32 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// Largest absolute value.
pub(crate) fn peak<D: ndarray::Dimension>(a: &ndarray::Array<f32, D>) -> f32 {
    a.iter().fold(0.0, |peak, value| peak.max(value.abs()))
}

/// Slices of one slab on the CPU.
pub(crate) fn reconstruct(job: &SliceJob, sinograms: &Array3<f32>, axis_px: &[f64]) -> Array3<f32> {
    let mut out = Array3::from_elem((axis_px.len(), job.grid.n_y, job.grid.n_x), f32::NAN);
    let mut engine = Reconstructor::new(job.clone(), &Device::Cpu).expect("a valid job");
    engine
        .slab(sinograms.view(), axis_px, out.view_mut())
        .expect("shapes fit");
    out
}

/// One slice by one method.
pub(crate) fn slice(
    job: &SliceJob,
    method: ReconstructMethod,
    sinogram: &Array2<f32>,
    axis_px: f64,
) -> Array2<f32> {
    let mut job = job.clone();
    job.config.method = method;
    reconstruct(&job, &sinogram.clone().insert_axis(Axis(0)), &[axis_px])
        .index_axis_move(Axis(0), 0)
}

/// The slice by the definition in f64, angle after angle and frequency after frequency.
///
/// With `linear`, rows are sampled `upsample` times per pixel and interpolated, as the fast path does; else every
/// voxel is given the exact value of the band-limited row, times the same [`FilterPlan::transfer`].
pub(crate) fn by_definition(
    job: &SliceJob,
    sinogram: &Array2<f32>,
    axis_px: f64,
    linear: bool,
) -> Array2<f32> {
    let plan = FilterPlan::new(job).expect("a valid job");
    let (n, half) = (plan.n_fft, plan.n_fft / 2);
    let grid = &job.grid;
    let mut sums = Array2::<f64>::zeros((grid.n_y, grid.n_x));
    let mut padded = vec![0.0; n];
    for (angle, (ray, row)) in job.rays.iter().zip(sinogram.outer_iter()).enumerate() {
        plan.pad_row(
            angle,
            row.as_slice().expect("rows are contiguous"),
            &mut padded,
        );
        let spectrum: Vec<(f64, f64)> = (0..=half)
            .map(|k| {
                let both = if k == 0 || (k == half && plan.upsample == 1) {
                    1.0
                } else {
                    2.0
                };
                let gain = both
                    * f64::from(plan.response[k])
                    * if linear {
                        1.0
                    } else {
                        plan.transfer(k).powi(2)
                    };
                let terms = padded.iter().enumerate().map(|(index, &value)| {
                    let (sin, cos) = (2.0 * PI * ((k * index) % n) as f64 / n as f64).sin_cos();
                    (f64::from(value) * cos, -f64::from(value) * sin)
                });
                let (re, im) = terms.fold((0.0, 0.0), |sum, term| (sum.0 + term.0, sum.1 + term.1));
                (gain * re, gain * im)
            })
            .collect();
        let filtered = |t: f64| -> f64 {
            let turn = 2.0 * PI * (t + axis_px + plan.n_left as f64) / n as f64;
            spectrum
                .iter()
                .enumerate()
                .map(|(k, (re, im))| re * (k as f64 * turn).cos() - im * (k as f64 * turn).sin())
                .sum()
        };
        let fine: Vec<f64> = if linear {
            (0..plan.n_out)
                .map(|m| filtered(plan.t0 + m as f64 / plan.upsample as f64))
                .collect()
        } else {
            Vec::new()
        };
        for ((j, i), sum) in sums.indexed_iter_mut() {
            let (x, y) = (
                grid.x0 + i as f64 * grid.step,
                grid.y0 - j as f64 * grid.step,
            );
            if job
                .mask_radius_px
                .is_some_and(|radius| x * x + y * y > radius * radius)
            {
                continue;
            }
            let t = ray.offset_px + x * ray.cos + y * ray.sin;
            let value = if linear {
                let m = (t - plan.t0) * plan.upsample as f64;
                let (left, share) = (m.floor() as usize, m - m.floor());
                fine[left] * (1.0 - share) + fine[left + 1] * share
            } else {
                filtered(t)
            };
            *sum += ray.weight * value;
        }
    }
    sums.mapv(|sum| sum as f32)
}
