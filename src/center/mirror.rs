//! Correlation of detector lines with mirrored detector lines, summed over many pairs, at every axis at once.
//!
//! The line b mirrored about the axis c stands at b(2c - x), so its correlation with a is the convolution
//! (a * b)(2c): one transform per line, whatever the number of candidates.

use std::f64::consts::PI;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use realfft::{RealFftPlanner, RealToComplex};
use rustfft::num_complex::{Complex32, Complex64};

/// Sums over pairs of lines of one length.
pub(super) struct Correlator {
    n_cols: usize,
    padded: usize,
    fft: Arc<dyn RealToComplex<f32>>,
}

/// What the pairs add up to.
#[derive(Clone)]
pub(super) struct Sums {
    /// Sum of -A B over the pairs, `[frequency]`; minus, because mirroring turns the sign of a derivative.
    cross: Vec<Complex64>,
    /// Sum of |A|^2 and of |B|^2.
    power: [Vec<f64>; 2],
    /// Sum of a^2 and of b^2 over the pairs, `[col]`.
    energy: [Vec<f64>; 2],
}

/// A curve over twice the axis.
pub(super) struct Peak {
    /// Axis \[px\].
    pub(super) axis_px: f64,
    /// Height of the curve.
    pub(super) height: f64,
    /// Highest other peak inside the search, relative to this one.
    pub(super) rival: f64,
    /// Height over the rms of the rest of the curve inside the search.
    pub(super) clarity: f64,
}

/// Width of the derivative of a Gaussian that the lines are filtered with \[px\].
const SIGMA: f64 = 1.2;
/// Half length of the filter: the Gaussian is below 4e-4 of its middle beyond.
pub(super) const REACH: usize = 5;
/// Columns that must be seen from both sides for a match to mean anything.
pub(super) const LEAST_OVERLAP: f64 = 8.0;

impl Correlator {
    pub(super) fn new(n_cols: usize) -> Correlator {
        let padded = (2 * n_cols).next_power_of_two();
        Correlator {
            n_cols,
            padded,
            fft: RealFftPlanner::new().plan_fft_forward(padded),
        }
    }

    /// Sums over `n_pairs` pairs; `pair` fills line a and line b, before filtering.
    ///
    /// Only columns inside `overlap` count, faded at its ends over a tenth of it when `fade`. The pairs are summed in blocks of
    /// fixed size and the blocks in order, so that the number of threads does not matter.
    pub(super) fn sum(
        &self,
        n_pairs: usize,
        overlap: Range<usize>,
        fade: bool,
        pair: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) -> Sums {
        let window = window(self.n_cols, &overlap, fade);
        let blocks: Vec<Sums> = (0..n_pairs.div_ceil(32))
            .into_par_iter()
            .map(|block| {
                let mut sums = self.empty();
                let mut lines = [vec![0f32; self.n_cols], vec![0f32; self.n_cols]];
                let mut padded = self.fft.make_input_vec();
                let mut spectra = [self.fft.make_output_vec(), self.fft.make_output_vec()];
                let mut scratch = self.fft.make_scratch_vec();
                for index in block * 32..((block + 1) * 32).min(n_pairs) {
                    let [a, b] = &mut lines;
                    pair(index, a, b);
                    for side in 0..2 {
                        padded.fill(0.0);
                        derivative(&lines[side], &mut padded[..self.n_cols]);
                        for ((value, weight), energy) in
                            padded.iter_mut().zip(&window).zip(&mut sums.energy[side])
                        {
                            *value *= weight;
                            *energy += f64::from(*value * *value);
                        }
                        self.fft
                            .process_with_scratch(&mut padded, &mut spectra[side], &mut scratch)
                            .expect("the buffers were made by the plan");
                    }
                    sums.add_pair(&spectra);
                }
                sums
            })
            .collect();
        blocks.iter().fold(self.empty(), |mut sums, block| {
            sums.add(block);
            sums
        })
    }

    /// No pairs.
    pub(super) fn empty(&self) -> Sums {
        let n = self.padded / 2 + 1;
        Sums {
            cross: vec![Complex64::ZERO; n],
            power: [vec![0.0; n], vec![0.0; n]],
            energy: [vec![0.0; self.n_cols], vec![0.0; self.n_cols]],
        }
    }

    /// The peak of the phase correlation with the axis in `range_px`: each frequency weighted by its squared
    /// coherence over the pairs and a Gaussian of 0.2 cycles per pixel.
    pub(super) fn phase_peak(&self, sums: &Sums, range_px: (f64, f64)) -> Option<Peak> {
        // below a ten-millionth of the strongest power there is only rounding
        let floor = 1e-7
            * sums.power[0]
                .iter()
                .zip(&sums.power[1])
                .map(|(a, b)| (a * b).sqrt())
                .fold(0.0, f64::max);
        let spectrum: Vec<Complex64> = sums
            .cross
            .iter()
            .enumerate()
            .map(|(k, &cross)| {
                let both = sums.power[0][k] * sums.power[1][k];
                let low_pass = (-0.5 * (k as f64 / self.padded as f64 / 0.2).powi(2)).exp();
                if both.sqrt() <= floor {
                    Complex64::ZERO
                } else {
                    cross * (cross.norm() / both * low_pass)
                }
            })
            .collect();
        self.peak(&spectrum, range_px, |_| 1.0, |_| 1.0)
    }

    /// The peak of the normalised correlation with the axis in `range_px`, both lines cut to the columns that have a mirror
    /// image; `height` is the correlation coefficient. Small overlaps count less: by the root of their share.
    pub(super) fn matched_peak(&self, sums: &Sums, range_px: (f64, f64)) -> Option<Peak> {
        let running: Vec<Vec<f64>> = sums
            .energy
            .iter()
            .map(|energy| {
                let mut sum = 0.0;
                std::iter::once(0.0)
                    .chain(energy.iter().map(|e| {
                        sum += e;
                        sum
                    }))
                    .collect()
            })
            .collect();
        let last = self.n_cols as f64 - 1.0;
        let total = (running[0][self.n_cols] * running[1][self.n_cols]).sqrt();
        let norm = |doubled: f64| {
            // the filter leaves nothing within its reach of either edge, of the line and of its mirror image
            let reach = REACH as f64;
            let from = (doubled - last + reach).max(reach);
            let to = (doubled - reach).min(last - reach) + 1.0;
            if to - from < LEAST_OVERLAP {
                return 0.0;
            }
            let inside = |sums: &[f64]| {
                let at = |x: f64| {
                    let i = (x.max(0.0) as usize).min(self.n_cols - 1);
                    sums[i] + (x - i as f64) * (sums[i + 1] - sums[i])
                };
                at(to) - at(from)
            };
            let both = (inside(&running[0]) * inside(&running[1])).max(0.0).sqrt();
            // an overlap without signal correlates by chance
            if both <= 1e-4 * total {
                0.0
            } else {
                1.0 / both
            }
        };
        let share = |doubled: f64| {
            ((doubled.min(2.0 * last - doubled) + 1.0) / self.n_cols as f64)
                .max(0.0)
                .sqrt()
        };
        self.peak(&sums.cross, range_px, norm, share)
    }

    /// Highest point of `norm(s) * share(s) * curve(s)`, refined on `norm * curve`; s is twice the axis.
    fn peak(
        &self,
        spectrum: &[Complex64],
        range_px: (f64, f64),
        norm: impl Fn(f64) -> f64,
        share: impl Fn(f64) -> f64,
    ) -> Option<Peak> {
        let curve = self.curve(spectrum);
        let first = (2.0 * range_px.0).ceil().max(0.0) as usize;
        let last = ((2.0 * range_px.1).floor().max(0.0) as usize).min(2 * self.n_cols - 2);
        if last < first + 4 {
            return None;
        }
        let scored: Vec<f64> = (first..=last)
            .map(|s| curve[s] * norm(s as f64) * share(s as f64))
            .collect();
        let best = (0..scored.len()).max_by(|&a, &b| scored[a].total_cmp(&scored[b]))?;
        if best == 0 || best + 1 == scored.len() || scored[best] <= 0.0 {
            return None;
        }
        let apart = (self.n_cols / 100).max(8);
        let others: Vec<f64> = scored
            .iter()
            .enumerate()
            .filter(|(i, _)| i.abs_diff(best) > apart)
            .map(|(_, &v)| v)
            .collect();
        let rival = others.iter().copied().fold(0.0, f64::max) / scored[best];
        let rms = (others.iter().map(|v| v * v).sum::<f64>() / others.len().max(1) as f64).sqrt();
        let clarity = scored[best] / rms.max(f64::MIN_POSITIVE);
        let height = |s: f64| norm(s) * self.at(spectrum, s);
        // golden section between the neighbours of the highest sample
        let (mut low, mut high) = ((first + best) as f64 - 1.0, (first + best) as f64 + 1.0);
        let golden = 0.5 * (5f64.sqrt() - 1.0);
        while high - low > 0.002 {
            let (a, b) = (high - golden * (high - low), low + golden * (high - low));
            if height(a) > height(b) {
                high = b
            } else {
                low = a
            }
        }
        let doubled = 0.5 * (low + high);
        Some(Peak {
            axis_px: 0.5 * doubled,
            height: height(doubled),
            rival,
            clarity,
        })
    }

    /// The inverse transform of `spectrum` at every whole s.
    fn curve(&self, spectrum: &[Complex64]) -> Vec<f64> {
        let mut buffer = spectrum.to_vec();
        // the ends of the spectrum of a real curve are real
        buffer[0].im = 0.0;
        buffer[self.padded / 2].im = 0.0;
        let mut out = vec![0.0; self.padded];
        RealFftPlanner::new()
            .plan_fft_inverse(self.padded)
            .process(&mut buffer, &mut out)
            .expect("the buffers fit the plan and the ends are real");
        out
    }

    /// The inverse transform of `spectrum` at any s, on the scale of [`Correlator::curve`].
    fn at(&self, spectrum: &[Complex64], s: f64) -> f64 {
        let turn = Complex64::from_polar(1.0, 2.0 * PI * s / self.padded as f64);
        let mut phase = Complex64::ONE;
        let mut sum = 0.0;
        for (k, value) in spectrum.iter().enumerate() {
            // the recurrence drifts by one rounding per step; restarted now and then it stays below 1e-13
            if k % 256 == 0 {
                phase = Complex64::from_polar(1.0, 2.0 * PI * s * k as f64 / self.padded as f64);
            }
            let ends = k == 0 || k == self.padded / 2;
            sum += (value * phase).re * if ends { 1.0 } else { 2.0 };
            phase *= turn;
        }
        sum
    }
}

impl Sums {
    fn add_pair(&mut self, spectra: &[Vec<Complex32>; 2]) {
        for (k, (a, b)) in spectra[0].iter().zip(&spectra[1]).enumerate() {
            let product = -a * b;
            self.cross[k] += Complex64::new(f64::from(product.re), f64::from(product.im));
            self.power[0][k] += f64::from(a.norm_sqr());
            self.power[1][k] += f64::from(b.norm_sqr());
        }
    }

    /// Adds the pairs of `other`.
    pub(super) fn add(&mut self, other: &Sums) {
        self.cross
            .iter_mut()
            .zip(&other.cross)
            .for_each(|(a, b)| *a += b);
        for side in 0..2 {
            self.power[side]
                .iter_mut()
                .zip(&other.power[side])
                .for_each(|(a, b)| *a += b);
            self.energy[side]
                .iter_mut()
                .zip(&other.energy[side])
                .for_each(|(a, b)| *a += b);
        }
    }
}

/// Columns that have a mirror image about `axis_px` on a detector of `n_cols`.
pub(super) fn overlap(n_cols: usize, axis_px: f64) -> Range<usize> {
    let last = n_cols as f64 - 1.0;
    let from = (2.0 * axis_px - last).max(0.0).ceil() as usize;
    let to = (2.0 * axis_px).min(last).floor().max(0.0) as usize + 1;
    from.min(n_cols)..to.min(n_cols).max(from.min(n_cols))
}

fn window(n_cols: usize, overlap: &Range<usize>, fade: bool) -> Vec<f32> {
    let ramp = if fade {
        (overlap.len() as f64 / 10.0).max(1.0)
    } else {
        1e-9
    };
    (0..n_cols)
        .map(|col| {
            if !overlap.contains(&col) {
                return 0.0;
            }
            let inside = (col - overlap.start).min(overlap.end - 1 - col) as f64 + 0.5;
            if inside >= ramp {
                1.0
            } else {
                (0.5 - 0.5 * (PI * inside / ramp).cos()) as f32
            }
        })
        .collect()
}

/// Convolution with the derivative of a Gaussian; 0 within its reach of both ends, where it would see the edge.
pub(super) fn derivative(line: &[f32], out: &mut [f32]) {
    let taps: [f32; 2 * REACH + 1] = std::array::from_fn(|i| {
        let x = i as f64 - REACH as f64;
        (x * (-0.5 * (x / SIGMA).powi(2)).exp()) as f32
    });
    out.fill(0.0);
    for col in REACH..line.len().saturating_sub(REACH) {
        out[col] = line[col - REACH..=col + REACH]
            .iter()
            .zip(&taps)
            .map(|(v, t)| v * t)
            .sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bumps(x: f64) -> f64 {
        [(20.0, 3.0), (33.0, 5.0), (61.0, 2.5), (70.0, 4.0)]
            .iter()
            .map(|(at, width): &(f64, f64)| (-0.5 * ((x - at) / width).powi(2)).exp())
            .sum()
    }

    #[test]
    fn both_peaks_find_a_mirrored_line_to_a_fiftieth_of_a_pixel() {
        let correlator = Correlator::new(96);
        for axis in [44.0, 47.3, 49.85] {
            let sums = correlator.sum(5, 0..96, false, |_, a, b| {
                for col in 0..96 {
                    a[col] = bumps(col as f64) as f32;
                    b[col] = bumps(2.0 * axis - col as f64) as f32;
                }
            });
            let matched = correlator.matched_peak(&sums, (24.0, 71.0)).unwrap();
            assert!(
                (matched.axis_px - axis).abs() < 0.01 && matched.height > 0.999,
                "{axis}: {}",
                matched.axis_px
            );
            let phase = correlator.phase_peak(&sums, (24.0, 71.0)).unwrap();
            // the whitened peak also sees the tails of the bumps cut off at the edges
            assert!(
                (phase.axis_px - axis).abs() < 0.02,
                "{axis}: {}",
                phase.axis_px
            );
            // negative control: a tenth of a pixel more must show
            let moved = correlator.sum(5, 0..96, false, |_, a, b| {
                for col in 0..96 {
                    a[col] = bumps(col as f64) as f32;
                    b[col] = bumps(2.0 * axis + 0.2 - col as f64) as f32;
                }
            });
            let moved = [
                correlator.matched_peak(&moved, (24.0, 71.0)),
                correlator.phase_peak(&moved, (24.0, 71.0)),
            ];
            assert!(
                moved
                    .iter()
                    .flatten()
                    .all(|m| (m.axis_px - axis).abs() > 0.05),
                "the check is blind"
            );
        }
    }

    #[test]
    fn the_overlap_is_symmetric_about_the_axis() {
        assert_eq!(overlap(100, 49.5), 0..100);
        assert_eq!(overlap(100, 10.0), 0..21);
        assert_eq!(overlap(100, 90.0), 81..100);
        assert_eq!(overlap(100, -3.0), 0..1);
    }
}
