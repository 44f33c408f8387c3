//! Gaussian low-pass of many lines in the Fourier domain, in the form that the stripe algorithms were published with.
//!
//! A line of length n is multiplied by (-1)^k, transformed, weighted by `exp(-(m - (n-1)/2)^2 / (2 sigma^2))` over the
//! samples m, transformed back and multiplied by (-1)^k again: a low-pass whose sigma counts Fourier samples of the
//! (padded) line. For even n the window stands half a sample off the mean; for odd n so do all frequencies.

use std::sync::Arc;

use rustfft::{Fft, FftPlanner, num_complex::Complex32};

/// Plan of a low-pass for lines of one length.
pub(super) struct LowPass {
    forward: Arc<dyn Fft<f32>>,
    inverse: Arc<dyn Fft<f32>>,
    window: Vec<f32>,
    scratch: Vec<Complex32>,
}

impl LowPass {
    /// For lines of `n` samples, with the window as published: complex lines in, complex lines out.
    pub(super) fn complex(n: usize, sigma: f64) -> LowPass {
        LowPass::with_window(n, |m| gauss(m as f64 - (n as f64 - 1.0) / 2.0, sigma))
    }

    /// For real lines of which the real part of the result is wanted: the window is made symmetric, which is the same, so
    /// that two lines travel as the real and the imaginary part of one.
    pub(super) fn two_real(n: usize, sigma: f64) -> LowPass {
        let middle = (n as f64 - 1.0) / 2.0;
        LowPass::with_window(n, |m| {
            0.5 * (gauss(m as f64 - middle, sigma) + gauss(((n - m) % n) as f64 - middle, sigma))
        })
    }

    fn with_window(n: usize, weight: impl Fn(usize) -> f64) -> LowPass {
        let mut planner = FftPlanner::new();
        let (forward, inverse) = (planner.plan_fft_forward(n), planner.plan_fft_inverse(n));
        let scratch = forward
            .get_inplace_scratch_len()
            .max(inverse.get_inplace_scratch_len());
        // rustfft does not normalise
        let window = (0..n).map(|m| (weight(m) / n as f64) as f32).collect();
        LowPass {
            forward,
            inverse,
            window,
            scratch: vec![Complex32::default(); scratch],
        }
    }

    /// Filters one line in place.
    pub(super) fn apply(&mut self, line: &mut [Complex32]) {
        flip_odd(line);
        self.forward.process_with_scratch(line, &mut self.scratch);
        line.iter_mut()
            .zip(&self.window)
            .for_each(|(value, &weight)| *value *= weight);
        self.inverse.process_with_scratch(line, &mut self.scratch);
        flip_odd(line);
    }
}

pub(super) fn gauss(distance: f64, sigma: f64) -> f64 {
    (-distance * distance / (2.0 * sigma * sigma)).exp()
}

fn flip_odd(line: &mut [Complex32]) {
    line.iter_mut()
        .skip(1)
        .step_by(2)
        .for_each(|value| *value = -*value);
}

/// Width by which lines of `n` samples are extended at each end.
pub(super) fn padding(n: usize) -> usize {
    (n / 10).min(150)
}
