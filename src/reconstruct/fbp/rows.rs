//! Filters a block of projections of several slices and interleaves the slices: `[angle, sample, slice]`.

use std::sync::Arc;

use ndarray::{ArrayView3, s};
use rayon::prelude::*;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use crate::reconstruct::filter::FilterPlan;

/// A cache line, so that buffers start on one.
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A buffer that starts on a cache line, kept from block to block.
#[derive(Default)]
pub(crate) struct Buffer(Vec<Line>);

impl Buffer {
    /// At least `len` values; what they were before, or 0.
    pub(crate) fn at_least(&mut self, len: usize) -> &mut [f32] {
        let lines = len.div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0.0; 16]));
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }

    /// What was asked for last.
    pub(crate) fn as_slice(&self) -> &[f32] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The filter with its transforms.
pub(crate) struct RowFilter {
    pub(crate) plan: FilterPlan,
    weights: Vec<f32>,
    forward: Arc<dyn Fft<f32>>,
    inverse: Arc<dyn Fft<f32>>,
}

/// What one thread needs: the two transforms and their scratch, and two angles of all slices before interleaving.
struct Workspace {
    row: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    fine: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    filtered: Vec<Complex<f32>>,
}

impl RowFilter {
    /// `weights` is the arc of each projection \[rad\].
    pub(crate) fn new(plan: FilterPlan, weights: Vec<f32>) -> Self {
        let mut planner = FftPlanner::new();
        let forward = planner.plan_fft_forward(plan.n_fft);
        let inverse = planner.plan_fft_inverse(plan.n_inverse());
        RowFilter {
            plan,
            weights,
            forward,
            inverse,
        }
    }

    /// Values from one angle to the next: an odd number of cache lines, so that the same sample of neighbouring angles
    /// does not fall into the same cache set.
    pub(crate) fn stride(&self, slices: usize) -> usize {
        let lines = (self.plan.n_out * slices).div_ceil(16);
        (lines + 1 - lines % 2) * 16
    }

    /// Filters projections `first..first + n` of `sinograms` `[slice, angle, col]` into `out` `[angle, sample, slice]`
    /// with [`RowFilter::stride`], each already multiplied by its arc.
    ///
    /// Slices beyond those of `sinograms` and angles beyond the last projection become 0. Projections 2k and 2k + 1 of one slice go
    /// through one complex transform: who shares it with whom never depends on the block or the slab.
    ///
    /// # Panics
    /// When `first` is odd or `out` is not a whole number of strides.
    pub(crate) fn block(
        &self,
        sinograms: ArrayView3<'_, f32>,
        multipliers: &[Vec<Complex<f32>>],
        first: usize,
        slices: usize,
        out: &mut [f32],
    ) {
        let stride = self.stride(slices);
        assert!(
            first.is_multiple_of(2) && out.len().is_multiple_of(stride),
            "whole pairs of projections"
        );
        out.par_chunks_mut(2 * stride).enumerate().for_each_init(
            || self.workspace(slices),
            |work, (pair, out)| {
                let angle = first + 2 * pair;
                if angle >= self.weights.len() {
                    out.fill(0.0);
                    return;
                }
                for (slice, multiplier) in multipliers.iter().enumerate() {
                    self.pair(sinograms.slice(s![slice, .., ..]), angle, multiplier, work);
                    let n_out = self.plan.n_out;
                    work.filtered[slice * n_out..(slice + 1) * n_out]
                        .copy_from_slice(&work.fine[..n_out]);
                }
                let (even, odd) = out.split_at_mut(stride);
                self.interleave(&work.filtered, multipliers.len(), slices, even, odd);
            },
        );
    }

    fn workspace(&self, slices: usize) -> Workspace {
        let zero = Complex::new(0.0, 0.0);
        let scratch = self
            .forward
            .get_inplace_scratch_len()
            .max(self.inverse.get_inplace_scratch_len());
        Workspace {
            row: vec![0.0; self.plan.n_fft],
            spectrum: vec![zero; self.plan.n_fft],
            fine: vec![zero; self.plan.n_inverse()],
            scratch: vec![zero; scratch],
            filtered: vec![zero; slices * self.plan.n_out],
        }
    }

    /// Bytes of one thread's workspace.
    pub(crate) fn workspace_bytes(&self, slices: usize) -> usize {
        let scratch = self
            .forward
            .get_inplace_scratch_len()
            .max(self.inverse.get_inplace_scratch_len());
        4 * self.plan.n_fft
            + 8 * (self.plan.n_fft + self.plan.n_inverse() + scratch + slices * self.plan.n_out)
    }

    /// Projections `angle` and `angle + 1` as real and imaginary part; the samples are left in `work.fine`.
    fn pair(
        &self,
        sinogram: ndarray::ArrayView2<'_, f32>,
        angle: usize,
        multiplier: &[Complex<f32>],
        work: &mut Workspace,
    ) {
        let plan = &self.plan;
        for part in 0..2 {
            if angle + part < self.weights.len() {
                let row = sinogram.row(angle + part);
                match row.as_slice() {
                    Some(row) => plan.pad_row(angle + part, row, &mut work.row),
                    None => plan.pad_row(angle + part, &row.to_vec(), &mut work.row),
                }
            } else {
                work.row.fill(0.0);
            }
            let weight = self.weights.get(angle + part).copied().unwrap_or(0.0);
            for (value, &padded) in work.spectrum.iter_mut().zip(&work.row) {
                if part == 0 {
                    value.re = weight * padded;
                } else {
                    value.im = weight * padded;
                }
            }
        }
        self.forward
            .process_with_scratch(&mut work.spectrum, &mut work.scratch);
        // the filter is real in space, so it acts on both parts alike: no unpacking
        let (n, half, n_fine) = (plan.n_fft, plan.n_fft / 2, plan.n_inverse());
        work.fine[half..=n_fine - half].fill(Complex::new(0.0, 0.0));
        for (k, &gain) in multiplier[..half].iter().enumerate() {
            work.fine[k] = work.spectrum[k] * gain;
            if k > 0 {
                work.fine[n_fine - k] = work.spectrum[n - k] * gain.conj();
            }
        }
        // at Nyquist both signs of the frequency are one sample: each gets half (the plan's response has it)
        let nyquist = work.spectrum[half];
        if plan.upsample > 1 {
            work.fine[half] = nyquist * multiplier[half];
            work.fine[n_fine - half] = nyquist * multiplier[half].conj();
        } else {
            work.fine[half] = nyquist * multiplier[half].re;
        }
        self.inverse
            .process_with_scratch(&mut work.fine, &mut work.scratch);
    }

    /// From `[slice, sample]` pairs to `[sample, slice]`, 16 samples at a time so that reads and writes stay in cache.
    fn interleave(
        &self,
        filtered: &[Complex<f32>],
        used: usize,
        slices: usize,
        even: &mut [f32],
        odd: &mut [f32],
    ) {
        let n_out = self.plan.n_out;
        for start in (0..n_out).step_by(16) {
            let end = (start + 16).min(n_out);
            for slice in 0..slices {
                for sample in start..end {
                    let value = if slice < used {
                        filtered[slice * n_out + sample]
                    } else {
                        Complex::new(0.0, 0.0)
                    };
                    even[sample * slices + slice] = value.re;
                    odd[sample * slices + slice] = value.im;
                }
            }
        }
    }
}
