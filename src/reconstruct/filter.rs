//! The ramp filter: what is done to each row of a sinogram before back-projection, and where its samples then stand.
//!
//! The row p of n columns is extended to a power of two, transformed, multiplied by the ramp, a window and a phase, and
//! transformed back on a grid `upsample` times finer:
//!
//! q(t) = 1/N sum_k P_k R(k) exp(2 pi i k (t + axis + n_left) / N),   t = t0 + m / upsample
//!
//! - **Ramp**: R is the FFT of the band-limited kernel h\[0\] = 1/4, h\[odd k\] = -1/(pi k)^2, h\[even k\] = 0 (Ramachandran &
//!   Lakshminarayanan 1971; Kak & Slaney 1988, eq. 3.61). An ideal |f| sampled in Fourier space would set the mean of
//!   the padded row to zero and darken the slice.
//! - **Axis**: a phase. Rows with different axes end on the same detector coordinates t, measured from the axis, without
//!   another interpolation.
//! - **Upsampling**: zeros are appended to the spectrum, so the finer samples are exact for the band-limited row; what
//!   is left of the error of linear interpolation falls with its square. Its mean loss is sinc^2(f / upsample); R is
//!   divided by the root of it, so that a filtered row is in effect averaged over one fine sample,
//!   [`FilterPlan::transfer`]: 0.9 at the Nyquist frequency for two samples per pixel. Restoring that last tenth only lifts
//!   frequencies that are half aliased by the detector: on a phantom with sharp edges the error grows by 2 %.
//! - **Extension**: a sample that is wider than the detector goes on as a disc ([`super::support`]). Where nothing is known of
//!   its width, the edge values roll off to 0 as half a cosine over half the width of the detector, so that no step makes a
//!   rim: Ohnesorge et al., Med. Phys. 27 (2000) 39. Both are linear in the row and the same for every row of a view, so differences of
//!   truncated scans stay right.

use std::f64::consts::PI;

use bytemuck::{Pod, Zeroable};
use rustfft::num_complex::Complex;

use super::SliceJob;
use super::support::Support;
use crate::config::FilterWindow;
use crate::error::{Error, Result};

/// Everything about the filter that does not depend on the row.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterPlan {
    /// Columns of a row as measured.
    pub n_cols: usize,
    /// Length of the forward transform N, a power of two.
    pub n_fft: usize,
    /// The inverse transform has `n_fft * upsample` samples.
    pub upsample: usize,
    /// Column 0 stands at this index of the extended row.
    pub n_left: usize,
    /// Ramp times window times scale over N, for frequency k / N in cycles per pixel, `[n_fft / 2 + 1]`, real.
    ///
    /// With it, an inverse transform without normalisation gives `scale` * 1/px once each row was multiplied by the
    /// arc of its projection. The last entry holds half of its value where `upsample > 1`: the Nyquist sample then
    /// stands for two, at k and -k.
    pub response: Vec<f32>,
    /// Share of the right edge in sample j behind the last column, `[n_fft - n_cols]`, then that of the left edge in
    /// sample j before the first column; the extended row is periodic, so both lie in the same gap, read from its two ends.
    pub roll_off: Vec<f32>,
    /// Where the sample moves along the detector: what gives the shares of each projection in place of [`FilterPlan::roll_off`].
    pub moving: Option<Moving>,
    /// Detector coordinate of output sample 0, from the axis \[px\], the same for every row.
    pub t0: f64,
    /// Output samples kept, from `t0` in steps of `1 / upsample`: all that any voxel of the job meets.
    pub n_out: usize,
}

/// The disc that stands for the sample outside the field, and how far each projection shows it to the right of the axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Moving {
    /// At rest.
    pub support: Support,
    /// `[angle]` \[px\]
    pub offsets_px: Vec<f64>,
}

impl Moving {
    fn of(job: &SliceJob) -> Option<Moving> {
        let support = job.support?;
        let moves = job.rays.iter().any(|ray| ray.offset_px != 0.0);
        (moves && support.follows(job.n_cols)).then(|| Moving {
            support,
            offsets_px: job.rays.iter().map(|ray| ray.offset_px).collect(),
        })
    }

    fn shares(&self, angle: usize, n_cols: usize, gap: usize) -> Vec<f32> {
        self.support.shares(n_cols, gap, self.offsets_px[angle])
    }
}

/// What the kernels are told of a projection; laid out as in the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct View {
    /// Arc that it stands for \[rad\].
    pub weight: f32,
    /// Radius of the disc that the sample is taken for outside the field, where it moves, else 0: then [`FilterPlan::roll_off`] holds \[px\].
    pub radius: f32,
    /// From the middle of the disc to the last column \[px\].
    pub seen_right: f32,
    /// From the middle of the disc to the first column \[px\].
    pub seen_left: f32,
}

impl FilterPlan {
    /// Projection `angle`, standing for an arc of `weight`.
    ///
    /// # Panics
    /// When there is no such projection.
    #[must_use]
    pub fn view(&self, angle: usize, weight: f64) -> View {
        let still = View {
            weight: weight as f32,
            radius: 0.0,
            seen_right: 0.0,
            seen_left: 0.0,
        };
        self.moving.as_ref().map_or(still, |moving| {
            let seen = moving
                .support
                .seen_px(self.n_cols, moving.offsets_px[angle]);
            View {
                radius: moving.support.radius_px as f32,
                seen_right: seen[0] as f32,
                seen_left: seen[1] as f32,
                ..still
            }
        })
    }

    /// Plans the filter for every row of `job`.
    ///
    /// # Errors
    /// [`Error::Config`] for a cutoff, padding or upsampling out of range; [`Error::Shape`] for a job without columns,
    /// projections or voxels.
    pub fn new(job: &SliceJob) -> Result<Self> {
        let config = &job.config;
        if job.n_cols == 0 || job.rays.is_empty() || job.grid.n_x == 0 || job.grid.n_y == 0 {
            return Err(Error::Shape {
                what: "sinogram [angle, col] and slice [y, x]".into(),
                expected: vec![1, 1, 1, 1],
                found: vec![job.rays.len(), job.n_cols, job.grid.n_y, job.grid.n_x],
                hint:
                    "at least one of each is needed; check rows, crop and the excluded projections"
                        .into(),
            });
        }
        if ![1, 2, 4].contains(&config.upsample) {
            return Err(Error::config(
                "reconstruct.upsample",
                config.upsample,
                "must be 1, 2 or 4",
            ));
        }
        if !(config.cutoff > 0.0 && config.cutoff <= 1.0) {
            return Err(Error::config(
                "reconstruct.cutoff",
                config.cutoff,
                "must be above 0 and at most 1",
            ));
        }
        if !(config.padding >= 1.0 && config.padding <= 16.0) {
            return Err(Error::config(
                "reconstruct.padding",
                config.padding,
                "must be from 1 to 16",
            ));
        }
        let (t_min, t_max) = reach(job);
        if !(t_min.is_finite() && t_max.is_finite() && t_max - t_min < 5e5) {
            return Err(Error::config(
                "reconstruct.crop",
                format!("rays from {t_min} to {t_max} px"),
                "voxels must stand within 2.5e5 px of the axis; check the shift of the scan and the grid",
            ));
        }
        // one sample more on either side, for the interpolation
        let t0 = t_min.floor() - 1.0;
        let reach_px = (t_max - t0).ceil() as usize + 2;
        // the extended row is periodic; it must hold the samples kept without meeting itself
        let moves = job
            .rays
            .iter()
            .fold(0.0_f64, |most, ray| most.max(ray.offset_px.abs()));
        let room = job.support.map_or(0.0, |support| {
            (support.room_px() + moves).min(MOST_ROOM * job.n_cols as f64)
        });
        let wanted = (config.padding * job.n_cols as f64).max(room).ceil() as usize;
        let n_fft = wanted.max(reach_px).max(4).next_power_of_two();
        let gap = n_fft - job.n_cols;
        Ok(FilterPlan {
            n_cols: job.n_cols,
            n_fft,
            upsample: config.upsample,
            n_left: (n_fft - job.n_cols) / 2,
            response: response(
                n_fft,
                config.upsample,
                config.filter,
                config.cutoff,
                job.scale,
            ),
            roll_off: match &job.support {
                Some(support) => support.shares(job.n_cols, gap, 0.0),
                None => roll_off(gap, job.n_cols),
            },
            moving: Moving::of(job),
            t0,
            n_out: reach_px * config.upsample,
        })
    }

    /// Extends the row `[n_cols]` of projection `angle` to `[n_fft]`.
    ///
    /// # Panics
    /// When the lengths are others, or there is no such projection.
    pub fn pad_row(&self, angle: usize, row: &[f32], out: &mut [f32]) {
        assert_eq!(
            (row.len(), out.len()),
            (self.n_cols, self.n_fft),
            "row and extended row"
        );
        let (left, right) = (row[0], row[self.n_cols - 1]);
        out[self.n_left..self.n_left + self.n_cols].copy_from_slice(row);
        let (before, behind) = out.split_at_mut(self.n_left + self.n_cols);
        let places = behind.iter_mut().chain(&mut before[..self.n_left]);
        let gap = self.n_fft - self.n_cols;
        let own = self
            .moving
            .as_ref()
            .map(|moving| moving.shares(angle, self.n_cols, gap));
        let (on_right, on_left) = own.as_ref().unwrap_or(&self.roll_off).split_at(gap);
        for ((value, &on_right), &on_left) in places.zip(on_right).zip(on_left.iter().rev()) {
            *value = right * on_right + left * on_left;
        }
    }

    /// Shift of the row towards smaller indices \[px\] that brings coordinate `t0` to sample 0: the spectrum is
    /// multiplied by exp(2 pi i k phase_px / n_fft).
    #[must_use]
    pub fn phase_px(&self, axis_px: f64) -> f64 {
        self.t0 + axis_px + self.n_left as f64
    }

    /// [`FilterPlan::response`] times the phase of a row with this axis, `[n_fft / 2 + 1]`; negative frequencies are its
    /// conjugate.
    #[must_use]
    pub fn multiplier(&self, axis_px: f64) -> Vec<Complex<f32>> {
        let turns_per_bin = self.phase_px(axis_px) / self.n_fft as f64;
        self.response
            .iter()
            .enumerate()
            .map(|(k, &gain)| {
                // whole turns are taken out first: the phase stays exact for long rows
                let turns = (k as f64 * turns_per_bin).fract();
                let (sin, cos) = (2.0 * PI * turns).sin_cos();
                Complex::new(
                    (f64::from(gain) * cos) as f32,
                    (f64::from(gain) * sin) as f32,
                )
            })
            .collect()
    }

    /// Gain at frequency k / `n_fft`, beside ramp and window, of a filtered row that is interpolated linearly.
    #[must_use]
    pub fn transfer(&self, k: usize) -> f64 {
        sinc(k as f64 / self.n_inverse() as f64)
    }

    /// Samples of a stored row: a zero before, two behind, and more up to a multiple of 32, so that rows of half precision can
    /// be copied into a texture (256 bytes).
    #[must_use]
    pub fn row_stride(&self) -> usize {
        (self.n_out + 3).next_multiple_of(32)
    }

    /// Length of the inverse transform.
    #[must_use]
    pub fn n_inverse(&self) -> usize {
        self.n_fft * self.upsample
    }
}

/// Smallest and largest detector coordinate that a voxel of the job meets \[px from the axis\].
fn reach(job: &SliceJob) -> (f64, f64) {
    let grid = &job.grid;
    let x = [grid.x0, grid.x0 + (grid.n_x - 1) as f64 * grid.step];
    let y = [grid.y0, grid.y0 - (grid.n_y - 1) as f64 * grid.step];
    let radius = job.mask_radius_px.unwrap_or(f64::INFINITY);
    let mut range = (f64::INFINITY, f64::NEG_INFINITY);
    for ray in &job.rays {
        let along_x = [x[0] * ray.cos, x[1] * ray.cos];
        let along_y = [y[0] * ray.sin, y[1] * ray.sin];
        let low = along_x[0].min(along_x[1]) + along_y[0].min(along_y[1]);
        let high = along_x[0].max(along_x[1]) + along_y[0].max(along_y[1]);
        if !(low.is_finite() && high.is_finite() && ray.offset_px.is_finite()) {
            return (f64::NAN, f64::NAN);
        }
        // a magnified scan meets more of its rows than the mask is wide
        let radius = radius * ray.cos.hypot(ray.sin);
        let (low, high) = (low.max(-radius), high.min(radius));
        if low <= high {
            range = (
                range.0.min(low + ray.offset_px),
                range.1.max(high + ray.offset_px),
            );
        }
    }
    // the mask leaves no voxel
    if range.0 > range.1 { (0.0, 0.0) } else { range }
}

/// A disc wider than this many detectors does not make rows longer: what lies so far out is felt as an offset only.
const MOST_ROOM: f64 = 4.0;

/// Share of the edge value at `beyond` pixels behind the end of a row of `n_cols` that rolls off.
#[must_use]
pub fn roll_off_share(beyond: f64, n_cols: usize) -> f64 {
    half_cosine(beyond / (n_cols / 2).max(1) as f64)
}

/// From 1 at 0 to 0 at 1 and behind it.
fn half_cosine(part: f64) -> f64 {
    0.5 + 0.5 * (PI * part.min(1.0)).cos()
}

/// See [`FilterPlan::roll_off`]: half a cosine over half the width of the detector, or the gap where that is shorter.
fn roll_off(gap: usize, n_cols: usize) -> Vec<f32> {
    let length = (n_cols / 2).clamp(1, gap.max(1)) as f64;
    let side = (1..=gap).map(|j| half_cosine(j as f64 / length) as f32);
    side.clone().chain(side).collect()
}

/// See [`FilterPlan::response`].
fn response(
    n_fft: usize,
    upsample: usize,
    window: FilterWindow,
    cutoff: f64,
    scale: f64,
) -> Vec<f32> {
    let ramp = ramp(n_fft);
    let half = n_fft / 2;
    (0..=half)
        .map(|k| {
            let frequency = k as f64 / n_fft as f64;
            let interpolation = sinc(frequency / upsample as f64);
            let share = if k == half && upsample > 1 { 0.5 } else { 1.0 };
            let gain = ramp[k] * window_at(window, frequency / (0.5 * cutoff)) / interpolation;
            (share * scale * gain / n_fft as f64) as f32
        })
        .collect()
}

/// FFT of the band-limited ramp kernel, `[n / 2 + 1]`, in f64.
///
/// The kernel of length n is even, so its transform is the cosine sum over the odd lags.
fn ramp(n: usize) -> Vec<f64> {
    let mut kernel = vec![Complex::new(0.0, 0.0); n];
    kernel[0].re = 0.25;
    for k in (1..=n / 2).step_by(2) {
        let value = -1.0 / (PI * k as f64).powi(2);
        kernel[k].re = value;
        kernel[n - k].re = value;
    }
    rustfft::FftPlanner::new()
        .plan_fft_forward(n)
        .process(&mut kernel);
    kernel[..=n / 2].iter().map(|value| value.re).collect()
}

/// Gain of a window at `nu` times its cutoff frequency.
///
/// | window | gain for nu <= 1 (0 beyond) |
/// |---|---|
/// | ramp | 1 |
/// | Shepp-Logan | sin(pi nu / 2) / (pi nu / 2) |
/// | cosine | cos(pi nu / 2) |
/// | Hamming | 0.54 + 0.46 cos(pi nu) |
/// | Hann | 0.5 + 0.5 cos(pi nu) |
/// | Parzen | 1 - 6 nu^2 (1 - nu) for nu <= 1/2, else 2 (1 - nu)^3 |
/// | Butterworth | 1 / (1 + nu^16), order 8, half at the cutoff and not cut beyond it |
fn window_at(window: FilterWindow, nu: f64) -> f64 {
    if window == FilterWindow::Butterworth {
        return 1.0 / (1.0 + nu.powi(16));
    }
    if nu > 1.0 {
        return 0.0;
    }
    match window {
        FilterWindow::Ramp | FilterWindow::Butterworth => 1.0,
        FilterWindow::SheppLogan => sinc(nu / 2.0),
        FilterWindow::Cosine => (PI * nu / 2.0).cos(),
        FilterWindow::Hamming => 0.54 + 0.46 * (PI * nu).cos(),
        FilterWindow::Hann => 0.5 + 0.5 * (PI * nu).cos(),
        FilterWindow::Parzen if nu <= 0.5 => 1.0 - 6.0 * nu * nu * (1.0 - nu),
        FilterWindow::Parzen => 2.0 * (1.0 - nu).powi(3),
    }
}

/// sin(pi x) / (pi x).
fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ReconstructConfig;
    use crate::reconstruct::geometry::{Grid, InPlaneMotion, rays};

    fn job(n_cols: usize, n_angles: usize) -> SliceJob {
        let angles: Vec<f64> = (0..n_angles)
            .map(|k| k as f64 * PI / n_angles as f64)
            .collect();
        SliceJob {
            n_cols,
            rays: rays(&angles, InPlaneMotion::default()),
            grid: Grid::square(n_cols),
            config: ReconstructConfig::default(),
            scale: 1.0,
            mask_radius_px: Some(n_cols as f64 / 2.0),
            support: None,
        }
    }

    /// The definition at the head of this file, in f64, one sample after another.
    fn filtered_at(plan: &FilterPlan, row: &[f32], axis_px: f64, t: f64) -> f64 {
        let mut padded = vec![0.0; plan.n_fft];
        plan.pad_row(0, row, &mut padded);
        let ramp = ramp(plan.n_fft);
        let p = t + axis_px + plan.n_left as f64;
        let mut sum = 0.0;
        for (index, &value) in padded.iter().enumerate() {
            let lag = p - index as f64;
            for (k, &gain) in ramp.iter().enumerate() {
                let both = if k == 0 || 2 * k == plan.n_fft {
                    1.0
                } else {
                    2.0
                };
                sum += both
                    * gain
                    * f64::from(value)
                    * (2.0 * PI * k as f64 * lag / plan.n_fft as f64).cos();
            }
        }
        sum / plan.n_fft as f64
    }

    #[test]
    fn at_whole_pixels_the_filter_is_the_convolution_with_the_ramp_kernel() {
        let plan = FilterPlan::new(&job(16, 8)).unwrap();
        let row: Vec<f32> = (0..16)
            .map(|c| {
                if (5..9).contains(&c) {
                    1.0 + c as f32
                } else {
                    0.0
                }
            })
            .collect();
        for column in 0..16 {
            let expected: f64 = (0..16)
                .map(|c| {
                    let lag = (column as i64 - c as i64).unsigned_abs();
                    let kernel = match lag {
                        0 => 0.25,
                        odd if odd % 2 == 1 => -1.0 / (PI * odd as f64).powi(2),
                        _ => 0.0,
                    };
                    kernel * f64::from(row[c])
                })
                .sum();
            let found = filtered_at(&plan, &row, 7.5, column as f64 - 7.5);
            assert!(
                (found - expected).abs() < 1e-9,
                "column {column}: {found} {expected}"
            );
            let moved = filtered_at(&plan, &row, 7.6, column as f64 - 7.5);
            assert!(
                (moved - expected).abs() > 1e-6 || expected.abs() < 1e-3,
                "the axis must matter"
            );
        }
    }

    #[test]
    fn every_voxel_of_the_job_meets_a_kept_sample() {
        let angles: Vec<f64> = (0..50).map(|k| f64::from(k) * PI / 50.0).collect();
        for (mask, magnification) in [(None, 1.0), (Some(16.0), 1.0), (Some(16.0), 1.3)] {
            let mut moved = job(33, 50);
            moved.rays = rays(
                &angles,
                InPlaneMotion {
                    shift_x_px: 6.3,
                    shift_y_px: -2.1,
                    rotation_rad: 0.3,
                },
            );
            for ray in &mut moved.rays {
                (ray.cos, ray.sin) = (ray.cos * magnification, ray.sin * magnification);
            }
            moved.mask_radius_px = mask;
            let plan = FilterPlan::new(&moved).unwrap();
            assert!(plan.n_fft >= plan.n_out / plan.upsample);
            let mut outermost: f64 = 0.0;
            for ray in &moved.rays {
                for j in 0..33 {
                    for i in 0..33 {
                        let (x, y) = (moved.grid.x0 + f64::from(i), moved.grid.y0 - f64::from(j));
                        if mask.is_some_and(|radius| x.hypot(y) > radius) {
                            continue;
                        }
                        let m = (ray.offset_px + x * ray.cos + y * ray.sin - plan.t0)
                            * plan.upsample as f64;
                        assert!(
                            m >= 0.0 && m + 1.0 <= (plan.n_out - 1) as f64,
                            "{m} of {}",
                            plan.n_out
                        );
                        outermost = outermost.max(m);
                    }
                }
            }
            assert!(
                plan.n_out as f64 - outermost < 10.0,
                "no more than needed is kept"
            );
        }
    }

    #[test]
    fn the_extension_begins_with_the_edges_and_falls_to_zero_without_a_step() {
        for padding in [1.2, 2.0, 4.0] {
            let mut job = job(40, 8);
            (job.config.padding, job.mask_radius_px) = (padding, Some(16.0));
            let plan = FilterPlan::new(&job).unwrap();
            let row: Vec<f32> = (0..40).map(|c| 3.0 + c as f32 / 39.0).collect();
            let mut padded = vec![f32::NAN; plan.n_fft];
            plan.pad_row(0, &row, &mut padded);
            let step = |k: usize| (padded[(k + 1) % plan.n_fft] - padded[k]).abs();
            let largest = (0..plan.n_fft).map(step).fold(0.0, f32::max);
            // half a cosine of height 4 over 20 samples: 4 pi / 2 / 20 = 0.31
            assert!(largest < 0.32, "{largest}");
            assert_eq!(&padded[plan.n_left..plan.n_left + 40], &row[..]);
            if padding >= 2.0 {
                assert_eq!(padded[(plan.n_left + 40 + 20) % plan.n_fft], 0.0);
                assert_eq!(padded[(plan.n_left + plan.n_fft - 21) % plan.n_fft], 0.0);
            }
        }
    }

    #[test]
    fn windows_are_one_at_zero_and_as_their_formulas_say_at_the_ends() {
        use FilterWindow::{Butterworth, Cosine, Hamming, Hann, Parzen, Ramp, SheppLogan};
        let table = [
            (Ramp, 1.0, 1.0),
            (SheppLogan, (PI / 4.0).sin() / (PI / 4.0), 2.0 / PI),
            (Cosine, 0.5_f64.sqrt(), 0.0),
            (Hamming, 0.54, 0.08),
            (Hann, 0.5, 0.0),
            (Parzen, 0.25, 0.0),
            (Butterworth, 1.0 / (1.0 + 0.5_f64.powi(16)), 0.5),
        ];
        for (window, middle, end) in table {
            for (nu, expected) in [(0.0, 1.0), (0.5, middle), (1.0, end)] {
                assert!(
                    (window_at(window, nu) - expected).abs() < 1e-12,
                    "{window:?} at {nu}"
                );
            }
            assert!(
                window_at(window, 1.5) < 2e-3,
                "{window:?} beyond its cutoff"
            );
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_key() {
        for (key, change) in [
            (
                "upsample",
                (|c| c.upsample = 3) as fn(&mut ReconstructConfig),
            ),
            ("cutoff", |c| c.cutoff = 0.0),
            ("padding", |c| c.padding = f64::NAN),
        ] {
            let mut job = job(8, 4);
            change(&mut job.config);
            let error = FilterPlan::new(&job).unwrap_err().to_string();
            assert!(error.contains(&format!("reconstruct.{key}")), "{error}");
        }
        let mut empty = job(8, 4);
        empty.rays.clear();
        assert!(FilterPlan::new(&empty).is_err());
    }
}
