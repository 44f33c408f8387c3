//! Partial stripes of smooth sinograms by fitting (algorithm 1 of Vo et al. 2018).

use rustfft::{FftPlanner, num_complex::Complex32};

use super::columns::Columns;
use super::fourier::{LowPass, padding};

/// Parameters of algorithm 1.
#[derive(Debug, Clone, Copy)]
pub struct Fitting {
    /// Order of the polynomial along the angle.
    pub order: usize,
    /// Sigma of the smoothing of the fit across the columns \[Fourier samples of the padded line\].
    pub sigma: f64,
}

impl Fitting {
    /// `sinogram / fit * smooth fit`: `fit` is a Savitzky-Golay filter of every column over (nearly) its whole length,
    /// `smooth fit` the same after a Gaussian low-pass over both axes, scaled to the same mean magnitude.
    ///
    /// Along the angle the low-pass has a sigma of a tenth of the width, between 10 and 60 Fourier samples.
    /// Samples at which the fit is within 1e-6 of its mean magnitude of zero are left: the ratio means nothing there.
    /// Fewer than 3 angles are left as they are.
    pub(super) fn apply(&self, columns: &mut Columns, fit: &mut Columns) {
        let (n_cols, n_angles) = (columns.n_cols(), columns.n_angles());
        if n_angles < 3 {
            return;
        }
        fit_columns(columns, self.order, fit);
        let smooth = smooth(fit, Fitting::sigma_angle(n_cols), self.sigma);
        let magnitude = |sum: f64, value: f32| sum + f64::from(value.abs());
        let sum_fit = fit.values().iter().copied().fold(0.0, magnitude);
        let sum_smooth = smooth.iter().map(|value| value.re).fold(0.0, magnitude);
        let scale = if sum_smooth > 0.0 {
            (sum_fit / sum_smooth) as f32
        } else {
            1.0
        };
        let floor = (1e-6 * sum_fit / fit.values().len() as f64) as f32;
        for (col, (column, fit)) in columns.iter_mut().zip(fit.iter()).enumerate() {
            for (angle, (value, &fit)) in column.iter_mut().zip(fit).enumerate() {
                if fit.abs() > floor {
                    *value = *value / fit * (smooth[angle * n_cols + col].re * scale);
                }
            }
        }
    }

    /// Sigma of the smoothing along the angle \[Fourier samples of the extended column\].
    pub(super) fn sigma_angle(n_cols: usize) -> f64 {
        (n_cols / 10).clamp(10, 60) as f64
    }

    /// Bytes of the complex arrays of one sinogram.
    pub(super) fn bytes(n_cols: usize, n_angles: usize) -> usize {
        n_cols * n_angles * size_of::<Complex32>()
    }
}

/// Savitzky-Golay filter along every column with mirrored ends (edge sample not repeated) and the largest odd window
/// that fits.
///
/// With mirrored ends a column of n angles has the period 2n - 2, so the filter is one circular convolution.
pub(super) fn fit_columns(columns: &Columns, order: usize, fit: &mut Columns) {
    let (n_cols, n) = (columns.n_cols(), columns.n_angles());
    fit.reshape(n_cols, n);
    let period = 2 * n - 2;
    let half = (n - 1) / 2;
    let mut planner = FftPlanner::<f32>::new();
    let (forward, inverse) = (
        planner.plan_fft_forward(period),
        planner.plan_fft_inverse(period),
    );
    let response = response(half, order, period);
    let mut line = Vec::with_capacity(period);
    for first in (0..n_cols).step_by(2) {
        let second = (first + 1).min(n_cols - 1);
        let (a, b) = (columns.column(first), columns.column(second));
        let at = |angle: usize| Complex32::new(a[angle], b[angle]);
        line.clear();
        line.extend((0..n).map(at));
        line.extend((1..n - 1).rev().map(at));
        forward.process(&mut line);
        line.iter_mut()
            .zip(&response)
            .for_each(|(value, &weight)| *value *= weight);
        inverse.process(&mut line);
        fit.column_mut(first)
            .iter_mut()
            .zip(&line)
            .for_each(|(fit, value)| *fit = value.re);
        if second != first {
            fit.column_mut(second)
                .iter_mut()
                .zip(&line)
                .for_each(|(fit, value)| *fit = value.im);
        }
    }
}

/// Fourier transform of the Savitzky-Golay kernel of the window `-half..=half`, over `period` samples, divided by
/// `period` because the FFT does not normalise.
fn response(half: usize, order: usize, period: usize) -> Vec<f32> {
    let kernel = savitzky_golay(half, order);
    let mut line = vec![rustfft::num_complex::Complex64::default(); period];
    for (index, weight) in kernel.iter().enumerate() {
        // a window as long as the period meets itself at the far end
        line[(index + period - half) % period].re += weight / period as f64;
    }
    FftPlanner::<f64>::new()
        .plan_fft_forward(period)
        .process(&mut line);
    line.iter().map(|value| value.re as f32).collect()
}

/// Weights with which the least-squares polynomial of the window `-half..=half` gives its value in the middle.
///
/// From polynomials orthonormal over the window: the sum over their orders of `p(0) p(k)`. An order beyond the number of samples
/// is lowered to it.
pub(super) fn savitzky_golay(half: usize, order: usize) -> Vec<f64> {
    let n = 2 * half + 1;
    let mut weights = vec![0.0; n];
    for polynomial in orthonormal(n, order.min(n - 1)) {
        let middle = polynomial[half];
        weights
            .iter_mut()
            .zip(&polynomial)
            .for_each(|(weight, p)| *weight += middle * p);
    }
    weights
}

/// Polynomials of the orders up to `order`, orthonormal over `n` samples, by their three-term recurrence.
pub(super) fn orthonormal(n: usize, order: usize) -> Vec<Vec<f64>> {
    let middle = (n as f64 - 1.0) / 2.0;
    let x = |k: usize| (k as f64 - middle) / middle.max(0.5);
    let (mut previous, mut current) = (vec![0.0; n], vec![1.0; n]);
    let mut norm_previous = 0.0;
    let next = |_| {
        let norm: f64 = current.iter().map(|p| p * p).sum();
        let found = current.iter().map(|p| p / norm.sqrt()).collect();
        let back = if norm_previous > 0.0 {
            norm / norm_previous
        } else {
            0.0
        };
        let next = (0..n)
            .map(|k| x(k) * current[k] - back * previous[k])
            .collect();
        previous = std::mem::replace(&mut current, next);
        norm_previous = norm;
        found
    };
    (0..=order).map(next).collect()
}

/// Gaussian low-pass over both axes of `image`; the result is the real part, `[angle, col]`.
///
/// The image is extended by `padding(angles)` on every side: along the detector by its edge columns, along the angle by
/// the mean of each column.
pub(super) fn smooth(image: &Columns, sigma_angle: f64, sigma_col: f64) -> Vec<Complex32> {
    let (n_cols, n_angles) = (image.n_cols(), image.n_angles());
    let pad = padding(n_angles);
    let mut result = vec![Complex32::default(); n_cols * n_angles];
    let mut along_angle = LowPass::complex(n_angles + 2 * pad, sigma_angle);
    let mut line = Vec::with_capacity(n_angles.max(n_cols) + 2 * pad);
    for (col, column) in image.iter().enumerate() {
        let mean = column.iter().map(|&v| f64::from(v)).sum::<f64>() / n_angles as f64;
        line.clear();
        line.resize(n_angles + 2 * pad, Complex32::new(mean as f32, 0.0));
        line[pad..pad + n_angles]
            .iter_mut()
            .zip(column)
            .for_each(|(value, &v)| value.re = v);
        along_angle.apply(&mut line);
        for (angle, &value) in line[pad..pad + n_angles].iter().enumerate() {
            result[angle * n_cols + col] = value;
        }
    }
    let mut along_col = LowPass::complex(n_cols + 2 * pad, sigma_col);
    for row in result.chunks_exact_mut(n_cols) {
        line.clear();
        line.resize(pad, row[0]);
        line.extend_from_slice(row);
        line.resize(n_cols + 2 * pad, row[n_cols - 1]);
        along_col.apply(&mut line);
        row.copy_from_slice(&line[pad..pad + n_cols]);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correct::goldens::{Golden, worst};

    #[test]
    fn a_polynomial_of_the_order_passes_the_filter_unchanged_and_the_next_does_not() {
        for (half, order) in [(3, 2), (50, 3), (1500, 2)] {
            let weights = savitzky_golay(half, order);
            let value = |power: i32| -> f64 {
                let x = |k: usize| 0.3 + (k as f64 - half as f64) / half as f64;
                weights
                    .iter()
                    .enumerate()
                    .map(|(k, weight)| weight * x(k).powi(power))
                    .sum()
            };
            for power in 0..=order as i32 {
                assert!(
                    (value(power) - 0.3f64.powi(power)).abs() < 1e-10,
                    "{half} {order} {power}"
                );
            }
            assert!(
                (value(4) - 0.3f64.powi(4)).abs() > 1e-3,
                "the check is blind"
            );
        }
        assert_eq!(savitzky_golay(0, 4), [1.0]);
    }

    #[test]
    fn the_fit_agrees_with_algotom() {
        for set in ["a", "b"] {
            let Some(golden) = Golden::read("in_soft", "util_fit_0", set) else {
                return;
            };
            let (mut columns, mut fit) = (Columns::default(), Columns::default());
            columns.read(&golden.input, golden.n_cols);
            let mut check = |order| {
                fit_columns(&columns, order, &mut fit);
                let mut found = vec![f32::NAN; golden.input.len()];
                fit.write(&mut found);
                worst(&found, &golden.expected)
            };
            assert!(check(2) < 16.0 * f32::EPSILON * golden.peak(), "{set}");
            assert!(check(4) > 1e-2, "the check is blind");
        }
    }

    #[test]
    fn the_two_dimensional_low_pass_agrees_with_algotom() {
        let Some(golden) = Golden::read("in_soft", "util_gauss_0", "a") else {
            return;
        };
        let mut columns = Columns::default();
        columns.read(&golden.input, golden.n_cols);
        // the padding of 18 in this case is what `padding` gives for its 181 angles
        let check = |sigma| {
            worst(
                &smooth(&columns, 25.0, sigma)
                    .iter()
                    .map(|v| v.re)
                    .collect::<Vec<_>>(),
                &golden.expected,
            )
        };
        assert!(check(10.0) < 16.0 * f32::EPSILON * golden.peak());
        assert!(check(10.5) > 1e-4, "the check is blind");
    }
}
