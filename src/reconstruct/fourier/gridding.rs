//! Samples of the spectrum on lines through the origin, spread onto a Cartesian grid.
//!
//! Each sample at (u, v) adds to the 6 x 6 cells around it with weights phi(cell - u) phi(cell - v), phi the Kaiser-Bessel window
//! of width 6. With a grid oversampled twice its error is 4e-6 (Fessler & Sutton, IEEE TSP 51 (2003) 560; Beatty
//! et al., IEEE TMI 24 (2005) 799, eq. 5 for beta).
//!
//! The slice is real, so only half of its spectrum is wanted: samples with u < 0 are replaced by their mirror image. The grid is cut
//! into stripes of u, one task each, and a task takes from every line the samples that reach its stripe: no two tasks
//! write the same cell, and a cell always adds its samples in the order of the projections. So the result does not
//! depend on the number of threads. Neighbouring projections meet nearly the same cells, so these stay in the cache.

use std::f64::consts::PI;

use rayon::prelude::*;
use rustfft::num_complex::Complex;

/// Cells that a sample reaches along each axis.
pub(crate) const WIDTH: usize = 6;
/// Cells kept on either side for samples near the ends; they are folded back afterwards.
pub(crate) const MARGIN: usize = 8;
/// Columns of a task.
const STRIPE: usize = 64;
/// Steps of the table of weights within a cell; linear interpolation between them errs by 2e-6.
const STEPS: usize = 512;
/// Fractional bits of a position.
const BITS: u32 = 32;

/// Shape parameter of the window for width 6 and twofold oversampling.
fn beta() -> f64 {
    let width = WIDTH as f64;
    PI * (width * width / 4.0 * 2.25 - 0.8).sqrt()
}

/// The window at distance `x` \[cell\], 1 in the middle.
pub(crate) fn window(x: f64) -> f64 {
    let inside = 1.0 - (2.0 * x / WIDTH as f64).powi(2);
    if inside < 0.0 {
        0.0
    } else {
        bessel_i0(beta() * inside.sqrt()) / bessel_i0(beta())
    }
}

/// Fourier transform of [`window`] at `frequency` \[cycles/cell\]; what a voxel has too much and is divided by.
pub(crate) fn window_transform(frequency: f64) -> f64 {
    let width = WIDTH as f64;
    let squared = beta().powi(2) - (PI * width * frequency).powi(2);
    // within the grid the argument stays positive: frequency <= 1/4 and beta > pi * 6 / 4
    let root = squared.max(1e-12).sqrt();
    width * root.sinh() / (root * bessel_i0(beta()))
}

/// Modified Bessel function of order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 1..200 {
        term *= quarter / f64::from(k * k);
        sum += term;
        if term < 1e-17 * sum {
            break;
        }
    }
    sum
}

/// One projection's line through the spectrum: sample k stands at (k du, k dv) \[cell\], du not negative.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    du: f64,
    du_fixed: i64,
    dv_fixed: i64,
    /// Samples that the grid carries; the others are passed over.
    n_k: usize,
    /// The line was mirrored: its samples are to be conjugated.
    pub(crate) mirrored: bool,
}

impl Line {
    pub(crate) fn new(du: f64, dv: f64, n_k: usize) -> Self {
        let mirrored = du < 0.0;
        let (du, dv) = if mirrored { (-du, -dv) } else { (du, dv) };
        let fixed = |step: f64| (step * 2.0_f64.powi(BITS as i32)).round() as i64;
        Line {
            du,
            du_fixed: fixed(du),
            dv_fixed: fixed(dv),
            n_k,
            mirrored,
        }
    }
}

/// The half spectrum `[u, v]`, u from 0 to `n_u / 2` and v from `-n_v / 2` to `n_v / 2`, with margins.
pub(crate) struct HalfGrid {
    /// Full length of the transform along u.
    pub(crate) n_u: usize,
    /// Full length of the transform along v.
    pub(crate) n_v: usize,
    /// Cell (u, v) at `(u + MARGIN) * stride() + v + n_v / 2 + MARGIN`.
    pub(crate) cells: Vec<Complex<f32>>,
}

/// Weights `[step, cell]`, each twice for the real and imaginary part, two cells more than needed so that a row is a
/// whole number of vectors.
pub(crate) struct Weights(Vec<[f32; 16]>);

impl Weights {
    pub(crate) fn new() -> Self {
        let at = |step: usize, cell: usize| {
            let distance = cell as f64 - (WIDTH / 2 - 1) as f64 - step as f64 / STEPS as f64;
            if cell < WIDTH {
                window(distance) as f32
            } else {
                0.0
            }
        };
        Weights(
            (0..=STEPS)
                .map(|step| std::array::from_fn(|k| at(step, k / 2)))
                .collect(),
        )
    }

    /// For a position with these fractional bits.
    #[inline(always)]
    fn at(&self, position: i64) -> [f32; 16] {
        let fraction = (position & ((1 << BITS) - 1)) as u32;
        let step = (fraction >> (BITS - 9)) as usize;
        let rest =
            (fraction & ((1 << (BITS - 9)) - 1)) as f32 * (1.0 / (1_u32 << (BITS - 9)) as f32);
        let (before, after) = (&self.0[step], &self.0[step + 1]);
        std::array::from_fn(|k| before[k] + rest * (after[k] - before[k]))
    }
}

impl HalfGrid {
    pub(crate) fn new(n_u: usize, n_v: usize) -> Self {
        let columns = n_u / 2 + 1 + 2 * MARGIN;
        HalfGrid {
            n_u,
            n_v,
            cells: vec![Complex::new(0.0, 0.0); columns * Self::stride_of(n_v)],
        }
    }

    /// Bytes of a grid.
    pub(crate) fn bytes(n_u: usize, n_v: usize) -> usize {
        (n_u / 2 + 1 + 2 * MARGIN) * Self::stride_of(n_v) * 8
    }

    fn stride_of(n_v: usize) -> usize {
        n_v + 2 * MARGIN
    }

    /// Cells from one u to the next.
    pub(crate) fn stride(&self) -> usize {
        Self::stride_of(self.n_v)
    }

    /// Replaces the grid by the sum of all samples `[line, k]`, `n_k` per line.
    pub(crate) fn spread(
        &mut self,
        weights: &Weights,
        lines: &[Line],
        samples: &[Complex<f32>],
        n_k: usize,
    ) {
        let (stride, middle) = (self.stride(), self.n_v / 2 + MARGIN);
        self.cells
            .par_chunks_mut(STRIPE * stride)
            .enumerate()
            .for_each(|(index, cells)| {
                cells.fill(Complex::new(0.0, 0.0));
                let stripe = Stripe {
                    first: (index * STRIPE) as i64 - MARGIN as i64,
                    stride,
                    middle,
                };
                dispatch(&stripe, cells, weights, lines, samples, n_k);
            });
    }
}

/// Where a task's cells stand.
struct Stripe {
    /// u of the first column.
    first: i64,
    stride: usize,
    /// Index of v = 0.
    middle: usize,
}

/// The same code for every instruction set; multiplication and addition are rounded apart, so all agree bit for bit.
#[inline(always)]
fn spread_stripe(
    stripe: &Stripe,
    cells: &mut [Complex<f32>],
    weights: &Weights,
    lines: &[Line],
    samples: &[Complex<f32>],
    n_k: usize,
) {
    let reach = WIDTH as i64 / 2;
    let columns = (cells.len() / stripe.stride) as i64;
    for (line, samples) in lines.iter().zip(samples.chunks_exact(n_k)) {
        let samples = &samples[..n_k.min(line.n_k)];
        // samples that may reach the stripe; those that do not are clipped below
        let low = (stripe.first - reach - 1) as f64 / line.du.max(1e-300);
        let high = (stripe.first + columns + reach) as f64 / line.du.max(1e-300);
        let from = low.clamp(0.0, n_k as f64).floor() as usize;
        let to = high.clamp(0.0, (n_k - 1) as f64).ceil() as usize + 1;
        for (k, &sample) in samples.iter().enumerate().take(to).skip(from) {
            let (u, v) = (k as i64 * line.du_fixed, k as i64 * line.dv_fixed);
            let column = (u >> BITS) - (reach - 1) - stripe.first;
            let (begin, end) = (
                (-column).clamp(0, WIDTH as i64),
                (columns - column).clamp(0, WIDTH as i64),
            );
            if begin >= end {
                continue;
            }
            let row = ((v >> BITS) - (reach - 1) + stripe.middle as i64) as usize;
            let (along_u, along_v) = (weights.at(u), weights.at(v));
            for cell in begin..end {
                let weight = along_u[2 * cell as usize];
                let (re, im) = (weight * sample.re, weight * sample.im);
                let at = (column + cell) as usize * stripe.stride + row;
                let Some(cells) = cells.get_mut(at..at + 8) else {
                    continue;
                };
                for (cell, weight) in cells.iter_mut().zip(along_v.chunks_exact(2)) {
                    cell.re += re * weight[0];
                    cell.im += im * weight[1];
                }
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
use spread_stripe as dispatch;

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "calls of functions compiled for instruction sets that were asked for"
)]
fn dispatch(
    stripe: &Stripe,
    cells: &mut [Complex<f32>],
    weights: &Weights,
    lines: &[Line],
    samples: &[Complex<f32>],
    n_k: usize,
) {
    #[target_feature(enable = "avx2")]
    fn avx2(
        s: &Stripe,
        c: &mut [Complex<f32>],
        w: &Weights,
        l: &[Line],
        x: &[Complex<f32>],
        n: usize,
    ) {
        spread_stripe(s, c, w, l, x, n);
    }
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor was asked.
        unsafe { avx2(stripe, cells, weights, lines, samples, n_k) }
    } else {
        spread_stripe(stripe, cells, weights, lines, samples, n_k);
    }
}
