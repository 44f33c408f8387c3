//! The double wedge: a full turn made of a half turn and its mirror image has an empty wedge in its 2D spectrum.
//!
//! Stacked under itself, flipped left to right about the true axis, the sinogram of a half turn becomes that of a full
//! turn, whose 2D Fourier transform vanishes where |k_angle| > 2 pi r |k_col| / W for an object within radius r \[px\] of
//! the axis. A wrong axis breaks the rows at both seams and fills the wedge. Columns that have no mirror image are
//! filled from the sinogram flipped in angle, which breaks nothing.
//!
//! The transform along the angle is taken once; the flipped halves follow from it by their phases, and a candidate
//! axis at a multiple of half a pixel only picks other columns. So each candidate costs one short transform per
//! row inside the wedge.
//!
//! Source: Vo et al., Opt. Express 22 (2014) 19078. Different here: the spectrum is divided by its own noise per column
//! frequency, the wedge is widened down to the radius of the object as far as the data show it empty, and the minimum is taken from
//! a parabola through half-pixel steps on either side of a first answer. The mirrored half is interpolated once to stand at its
//! fraction, so that all steps are treated alike and the minimum lies in the middle of them: with steps at whole fractions the V of
//! the metric draws the vertex towards the nearest one, by up to 0.02 px.

use std::f64::consts::PI;
use std::sync::Arc;

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;
use rustfft::{Fft, FftPlanner, num_complex::Complex32};

use super::Answer;

/// The coarse search bins columns down to about this many.
const COARSE_COLS: usize = 400;
/// Radii, as shares of W / 2, down to which the wedge may be widened.
const RADII: [f64; 5] = [1.0, 0.7, 0.5, 0.35, 0.25];
/// The wedge is widened over a ring whose rms is below this multiple of the noise (1.27 for pure noise, whose
/// absolute value is measured by its median).
const EMPTY: f64 = 1.6;
/// Least depth of the minimum, relative to the metric around it.
const MIN_DEPTH: f64 = 0.1;

/// Finds the axis from `halves`, each a half turn `[view, col]` of equally spaced views, end not included.
///
/// `range_px` bounds the axis. `Err` says why there is no answer.
pub(super) fn search(halves: &[Array2<f32>], range_px: (f64, f64)) -> Result<Answer, String> {
    let n_cols = halves.first().map_or(0, Array2::ncols);
    if n_cols < 16 || halves.iter().any(|h| h.nrows() < 16) {
        return Err("fewer than 16 views or columns".into());
    }
    let bin = n_cols.div_ceil(COARSE_COLS);
    let (coarse, depth) = coarse_search(halves, range_px, bin)?;
    let n_views = halves.iter().map(Array2::nrows).min().unwrap_or(0);
    // rows of the wedge up to here reach three quarters of the Nyquist frequency of the columns
    let k_max = (n_views - 1).min((1.18 * n_cols as f64) as usize);
    let mut spectra: Vec<Spectrum> = halves
        .iter()
        .map(|half| Spectrum::new(half.view(), 2, k_max))
        .collect();
    let step = if bin > 2 { 2 } else { 1 };
    let blurred = Weights {
        col: blur(n_cols),
        ratio: 1.0,
    };
    let near = refine(
        &spectra,
        2.0 * coarse,
        (bin + 1) as i64 * 2,
        step,
        k_max / 2,
        &blurred,
    )
    .ok_or("the minimum moves to the edge of the fine search")?;
    let weights = wedge_of(&spectra[0], near.doubled.round() as i64);
    // the first pass may be beside by a tenth, so the second stands at its own fraction
    let mut doubled = near.doubled;
    let mut fine = None;
    for reach in [4, 2] {
        let fraction = doubled - doubled.floor();
        spectra.iter_mut().for_each(|s| s.stand_at(fraction));
        let found = refine(&spectra, doubled - fraction, reach, 1, k_max, &weights)
            .ok_or("the minimum moves to the edge of the fine search")?;
        doubled = found.doubled + fraction;
        fine = Some(found);
    }
    let fine = fine.ok_or("no fine search")?;
    let axis_px = 0.5 * doubled;
    if axis_px < range_px.0 || axis_px > range_px.1 {
        return Err("the minimum lies at the edge of the search".into());
    }
    Ok(Answer {
        axis_px,
        sigma_px: (0.25 * fine.split).max(0.02),
        quality: depth,
    })
}

/// Minimum of the binned metric \[px\] and its depth.
fn coarse_search(
    halves: &[Array2<f32>],
    range_px: (f64, f64),
    bin: usize,
) -> Result<(f64, f64), String> {
    let binned: Vec<Array2<f32>> = halves
        .iter()
        .map(|half| bin_columns(half.view(), bin))
        .collect();
    let n_cols = binned[0].ncols();
    let k_max = binned
        .iter()
        .map(|b| b.nrows() - 1)
        .min()
        .unwrap_or(0)
        .min(n_cols);
    let spectra: Vec<Spectrum> = binned
        .iter()
        .map(|b| Spectrum::new(b.view(), 6, k_max))
        .collect();
    let to_binned = |x: f64| (x - 0.5 * (bin as f64 - 1.0)) / bin as f64;
    let step = if n_cols >= 200 { 2 } else { 1 };
    let first = (2.0 * to_binned(range_px.0)).floor().max(8.0) as i64;
    let last = (2.0 * to_binned(range_px.1))
        .ceil()
        .min(2.0 * n_cols as f64 - 10.0) as i64;
    let doubled: Vec<i64> = (first..=last).step_by(step).collect();
    if doubled.len() < 5 {
        return Err("the search range is too narrow for a minimum".into());
    }
    let weights = Weights {
        col: blur(n_cols),
        ratio: 1.0,
    };
    // fewer mirrored columns mean less to break: the metric goes with the root of their share
    let share = |d: i64| (d.min(2 * n_cols as i64 - 2 - d) + 1) as f64 / n_cols as f64;
    let metric: Vec<f64> = doubled
        .iter()
        .map(|&d| metric(&spectra, d, k_max, &weights).iter().sum::<f64>() / share(d).sqrt())
        .collect();
    let window = (metric.len() / 6).max(4);
    let mut best: Option<(usize, f64)> = None;
    for i in 1..metric.len() - 1 {
        if metric[i] <= metric[i - 1] && metric[i] <= metric[i + 1] {
            let around = &metric[i.saturating_sub(window)..(i + window + 1).min(metric.len())];
            let share = metric[i] / crate::stats::median(around.to_vec()).max(f64::MIN_POSITIVE);
            if best.is_none_or(|(_, least)| share < least) {
                best = Some((i, share));
            }
        }
    }
    let (at, share) = best.ok_or("the metric has no minimum inside the search range")?;
    if metric[at] > metric[0].min(metric[metric.len() - 1]) {
        return Err("the metric is least at the edge of the search range".into());
    }
    let depth = 1.0 - share;
    if depth < MIN_DEPTH {
        return Err(format!(
            "the deepest minimum is only {:.0} % deep",
            100.0 * depth
        ));
    }
    let vertex = at as f64 + parabola(metric[at - 1], metric[at], metric[at + 1]);
    let doubled = first as f64 + step as f64 * vertex;
    Ok((0.5 * doubled * bin as f64 + 0.5 * (bin as f64 - 1.0), depth))
}

/// The spectrum along the angle of a half turn padded by zeros to a full one.
struct Spectrum {
    /// `[k_angle - k_first, col]`
    along: Array2<Complex32>,
    /// [`Spectrum::along`] at a fraction behind each column, which the mirrored half is taken from; `None` at 0.
    between: Option<Array2<Complex32>>,
    k_first: usize,
    n_views: usize,
    fft: Arc<dyn Fft<f32>>,
}

impl Spectrum {
    /// Rows `k_first..=k_max` of the transform along the angle.
    fn new(half: ArrayView2<'_, f32>, k_first: usize, k_max: usize) -> Spectrum {
        let (n_views, n_cols) = half.dim();
        let mut planner = FftPlanner::new();
        let fft_angle = planner.plan_fft_forward(2 * n_views);
        // two real columns share one complex transform
        let pairs: Vec<Vec<[Complex32; 2]>> = (0..n_cols.div_ceil(2))
            .into_par_iter()
            .map(|pair| {
                let (a, b) = (
                    half.column(2 * pair),
                    half.column((2 * pair + 1).min(n_cols - 1)),
                );
                let mut buffer: Vec<Complex32> = a
                    .iter()
                    .zip(b)
                    .map(|(&a, &b)| Complex32::new(a, b))
                    .collect();
                buffer.resize(2 * n_views, Complex32::ZERO);
                fft_angle.process(&mut buffer);
                (k_first..=k_max)
                    .map(|k| {
                        let (plus, minus) = (buffer[k], buffer[2 * n_views - k].conj());
                        let difference = plus - minus;
                        [
                            0.5 * (plus + minus),
                            Complex32::new(0.5 * difference.im, -0.5 * difference.re),
                        ]
                    })
                    .collect()
            })
            .collect();
        let mut along = Array2::zeros((k_max + 1 - k_first, n_cols));
        along
            .axis_iter_mut(Axis(0))
            .into_par_iter()
            .enumerate()
            .for_each(|(k, mut row)| {
                for (col, value) in row.iter_mut().enumerate() {
                    *value = pairs[col / 2][k][col % 2];
                }
            });
        Spectrum {
            along,
            between: None,
            k_first,
            n_views,
            fft: planner.plan_fft_forward(n_cols),
        }
    }

    /// Makes `doubled` of [`Spectrum::row`] count from `fraction` (0 to 1) on: interpolated between the columns with a Lanczos
    /// window of four lobes.
    fn stand_at(&mut self, fraction: f64) {
        const LOBES: i64 = 4;
        if fraction < 1e-6 {
            self.between = None;
            return;
        }
        let sinc = |x: f64| (PI * x).sin() / (PI * x);
        let mut taps: Vec<f64> = (1 - LOBES..=LOBES)
            .map(|tap| {
                let x = fraction - tap as f64;
                if x.abs() < 1e-9 {
                    1.0
                } else {
                    sinc(x) * sinc(x / LOBES as f64)
                }
            })
            .collect();
        let sum: f64 = taps.iter().sum();
        taps.iter_mut().for_each(|tap| *tap /= sum);
        let last = self.along.ncols() as i64 - 1;
        let between = self.between.take();
        let mut between = between.unwrap_or_else(|| Array2::zeros(self.along.dim()));
        between
            .axis_iter_mut(Axis(0))
            .into_par_iter()
            .zip(self.along.axis_iter(Axis(0)))
            .for_each(|(mut out, row)| {
                for (col, out) in out.iter_mut().enumerate() {
                    *out = taps
                        .iter()
                        .zip(1 - LOBES..)
                        .map(|(&tap, offset)| {
                            row[(col as i64 + offset).clamp(0, last) as usize] * tap as f32
                        })
                        .sum();
                }
            });
        self.between = Some(between);
    }

    /// Row `k` of the 2D spectrum of the full turn for the axis at `doubled / 2`.
    fn row(&self, k: usize, doubled: i64, out: &mut [Complex32], scratch: &mut [Complex32]) {
        let first = self.along.row(k - self.k_first);
        let first = first
            .as_slice()
            .expect("rows of an owned array are contiguous");
        let (mirrored, n_mirrored) = match &self.between {
            // the last column has nothing behind it
            Some(between) => (between.row(k - self.k_first), first.len() as i64 - 1),
            None => (self.along.row(k - self.k_first), first.len() as i64),
        };
        let mirrored = mirrored
            .to_slice()
            .expect("rows of an owned array are contiguous");
        // the flipped half starts n_views later: a phase of pi k; flipped in angle instead, it is the conjugate
        // turned by one sample
        let sign = if k.is_multiple_of(2) { 1.0f32 } else { -1.0 };
        let turn = PI * k as f64 / self.n_views as f64;
        let turn = Complex32::new(turn.cos() as f32, turn.sin() as f32);
        for (col, (out, &value)) in out.iter_mut().zip(first).enumerate() {
            let mirror = doubled - col as i64;
            *out = value
                + if (0..n_mirrored).contains(&mirror) {
                    sign * mirrored[mirror as usize]
                } else {
                    turn * value.conj()
                };
        }
        self.fft.process_with_scratch(out, scratch);
    }
}

/// Which part of the spectrum counts, and how much.
struct Weights {
    /// Per column frequency `0..=W/2`; 0 leaves it out.
    col: Vec<f32>,
    /// Radius beside which the wedge begins, as a share of W / 2.
    ratio: f64,
}

impl Weights {
    /// Highest column frequency inside the wedge in row `k`.
    fn reach(&self, k: usize) -> usize {
        ((k as f64 / (PI * self.ratio)) as usize).min(self.col.len() - 1)
    }
}

/// Mean of |spectrum| * weight inside the wedge, over the even and over the odd rows.
fn metric(spectra: &[Spectrum], doubled: i64, k_max: usize, weights: &Weights) -> [f64; 2] {
    let mut sums = [0f64; 2];
    for spectrum in spectra {
        let n_cols = spectrum.along.ncols();
        let rows: Vec<(f64, f64)> = (spectrum.k_first..k_max + 1)
            .into_par_iter()
            .with_min_len(8)
            .map_init(
                || {
                    let scratch = spectrum.fft.get_inplace_scratch_len();
                    (
                        vec![Complex32::ZERO; n_cols],
                        vec![Complex32::ZERO; scratch],
                    )
                },
                |(row, scratch), k| {
                    let reach = weights.reach(k);
                    if reach < 2 {
                        return (0.0, 0.0);
                    }
                    spectrum.row(k, doubled, row, scratch);
                    let (mut sum, mut weight) = (0f32, 0f32);
                    for col in 2..=reach {
                        let size = row[col].norm_sqr().sqrt() + row[n_cols - col].norm_sqr().sqrt();
                        sum += weights.col[col] * size;
                        weight += 2.0 * weights.col[col];
                    }
                    (f64::from(sum), f64::from(weight))
                },
            )
            .collect();
        for (parity, total) in sums.iter_mut().enumerate() {
            let (sum, weight) = rows
                .iter()
                .skip(parity)
                .step_by(2)
                .fold((0.0, 0.0), |(s, w), row| (s + row.0, w + row.1));
            *total += sum / weight.max(f64::MIN_POSITIVE);
        }
    }
    sums
}

struct Minimum {
    /// Twice the axis \[px\].
    doubled: f64,
    /// Distance of the minima of the even and of the odd rows, in `doubled`.
    split: f64,
}

/// Minimum within `reach` half pixels of `doubled`, following it when it lies at an edge.
fn refine(
    spectra: &[Spectrum],
    doubled: f64,
    reach: i64,
    step: i64,
    k_max: usize,
    weights: &Weights,
) -> Option<Minimum> {
    let n_cols = spectra[0].along.ncols() as i64;
    let mut values = std::collections::BTreeMap::new();
    let mut middle = doubled.round() as i64;
    for _ in 0..4 {
        let candidates: Vec<i64> = (-(reach / step)..=reach / step)
            .map(|i| middle + i * step)
            .collect();
        for &d in &candidates {
            if d < 4 || d > 2 * n_cols - 6 {
                return None;
            }
            values
                .entry(d)
                .or_insert_with(|| metric(spectra, d, k_max, weights));
        }
        let total = |d: i64| values[&d].iter().sum::<f64>();
        let best = *candidates
            .iter()
            .min_by(|a, b| total(**a).total_cmp(&total(**b)))?;
        if best - candidates[0] < 2 * step || candidates[candidates.len() - 1] - best < 2 * step {
            middle = best;
            continue;
        }
        let vertex = |part: &dyn Fn([f64; 2]) -> f64| {
            // the metric is V-shaped where noise is low and round where it is high; its square is round in both cases
            let y: Vec<f64> = (-2..=2)
                .map(|i| part(values[&(best + i * step)]).powi(2))
                .collect();
            step as f64 * vertex_of_five(&y)
        };
        let split = (vertex(&|v| v[0]) - vertex(&|v| v[1])).abs();
        return Some(Minimum {
            doubled: best as f64 + vertex(&|v| v[0] + v[1]),
            split,
        });
    }
    None
}

/// Weights of the spectrum with the axis near `doubled / 2`: the inverse noise of each column frequency, seen
/// where no object can be, and the radius down to which the wedge holds nothing but noise.
fn wedge_of(spectrum: &Spectrum, doubled: i64) -> Weights {
    let n_cols = spectrum.along.ncols();
    let n_k = spectrum.along.nrows();
    let sizes: Vec<Vec<f32>> = (0..n_k)
        .into_par_iter()
        .map_init(
            || {
                (
                    vec![Complex32::ZERO; n_cols],
                    vec![Complex32::ZERO; spectrum.fft.get_inplace_scratch_len()],
                )
            },
            |(row, scratch), k| {
                spectrum.row(k + spectrum.k_first, doubled, row, scratch);
                (0..=n_cols / 2)
                    .map(|c| 0.5 * (row[c].norm() + row[(n_cols - c) % n_cols].norm()))
                    .collect()
            },
        )
        .collect();
    let outside = |k: usize, col: usize| (k + spectrum.k_first) as f64 / (PI * col as f64);
    let mut noise: Vec<f64> = (0..=n_cols / 2)
        .map(|col| {
            let beyond: Vec<f64> = (0..n_k)
                .filter(|&k| col > 1 && outside(k, col) >= 1.2)
                .map(|k| f64::from(sizes[k][col]))
                .collect();
            if beyond.len() < 4 {
                0.0
            } else {
                crate::stats::median(beyond)
            }
        })
        .collect();
    // data without noise would give all weight to rounding
    let floor = 1e-3 * noise.iter().copied().fold(0.0, f64::max);
    noise
        .iter_mut()
        .filter(|v| **v > 0.0)
        .for_each(|v| *v = v.max(floor));
    let mut ratio = RADII[0];
    for ring in RADII.windows(2) {
        let (mut squares, mut count) = (0.0, 0usize);
        for (k, row) in sizes.iter().enumerate() {
            for (col, &size) in row.iter().enumerate().skip(2) {
                let radius = outside(k, col);
                if radius >= ring[1] && radius < ring[0] && noise[col] > 0.0 {
                    squares += (f64::from(size) / noise[col]).powi(2);
                    count += 1;
                }
            }
        }
        if count == 0 || (squares / count as f64).sqrt() > EMPTY {
            break;
        }
        ratio = ring[1];
    }
    let col = noise
        .iter()
        .map(|&v| if v > 0.0 { (1.0 / v) as f32 } else { 0.0 })
        .collect();
    Weights { col, ratio }
}

/// The transfer function of a Gaussian of one pixel, for column frequencies `0..=W/2`.
fn blur(n_cols: usize) -> Vec<f32> {
    (0..=n_cols / 2)
        .map(|k| (-2.0 * (PI * k as f64 / n_cols as f64).powi(2)).exp() as f32)
        .collect()
}

/// Means of `bin` neighbouring columns; a rest at the end is left out.
pub(super) fn bin_columns(half: ArrayView2<'_, f32>, bin: usize) -> Array2<f32> {
    if bin == 1 {
        return half.to_owned();
    }
    Array2::from_shape_fn((half.nrows(), half.ncols() / bin), |(view, col)| {
        half.row(view).iter().skip(col * bin).take(bin).sum::<f32>() / bin as f32
    })
}

/// Vertex, in steps from the middle, of the parabola through three values.
fn parabola(left: f64, middle: f64, right: f64) -> f64 {
    let curvature = left - 2.0 * middle + right;
    if curvature.abs() < f64::MIN_POSITIVE {
        0.0
    } else {
        (0.5 * (left - right) / curvature).clamp(-1.0, 1.0)
    }
}

/// Vertex, in steps from the middle, of the least-squares parabola through five values.
pub(super) fn vertex_of_five(y: &[f64]) -> f64 {
    let slope = (-2.0 * y[0] - y[1] + y[3] + 2.0 * y[4]) / 10.0;
    let curvature = (2.0 * y[0] - y[1] - 2.0 * y[2] - y[3] + 2.0 * y[4]) / 7.0;
    if curvature <= 0.0 {
        0.0
    } else {
        (-slope / curvature).clamp(-2.0, 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::center::testing::Discs;

    #[test]
    fn the_folded_spectrum_equals_the_transform_of_the_stacked_sinogram() {
        let half = Discs::random(3, 6, 12.0).sinogram(17, 33, 15.5, |k| PI * f64::from(k) / 17.0);
        let spectrum = Spectrum::new(half.view(), 2, 16);
        for doubled in [26i64, 31, 38] {
            // the definition: stack, flip, fill the gap from the sinogram flipped in angle
            let stacked = Array2::from_shape_fn((34, 33), |(v, c)| {
                let mirror = doubled - c as i64;
                match (v < 17, (0..33).contains(&mirror)) {
                    (true, _) => half[[v, c]],
                    (false, true) => half[[v - 17, mirror as usize]],
                    (false, false) => half[[33 - v, c]],
                }
            });
            let mut worst = 0f64;
            let mut top = 0f64;
            for k in 2..=16usize {
                let mut row = vec![Complex32::ZERO; 33];
                let mut scratch = vec![Complex32::ZERO; spectrum.fft.get_inplace_scratch_len()];
                spectrum.row(k, doubled, &mut row, &mut scratch);
                for (j, value) in row.iter().enumerate() {
                    let (mut re, mut im) = (0f64, 0f64);
                    for ((v, c), &s) in stacked.indexed_iter() {
                        let phase = -2.0 * PI * ((k * v) as f64 / 34.0 + (j * c) as f64 / 33.0);
                        re += f64::from(s) * phase.cos();
                        im += f64::from(s) * phase.sin();
                    }
                    worst = worst.max((re - f64::from(value.re)).hypot(im - f64::from(value.im)));
                    top = top.max(re.hypot(im));
                }
            }
            // f32 transforms of 34 x 33 samples: 4 eps log2(1122) of the largest input sum, 5e-6 of the top
            assert!(worst < 2e-5 * top, "{doubled}: {worst} of {top}");
            assert!(top > 0.0);
        }
    }

    #[test]
    fn five_points_of_a_parabola_give_its_vertex() {
        let y: Vec<f64> = (-2..=2)
            .map(|i| (f64::from(i) - 0.37).powi(2) + 4.0)
            .collect();
        assert!((vertex_of_five(&y) - 0.37).abs() < 1e-12);
        assert!((parabola(y[1], y[2], y[3]) - 0.37).abs() < 1e-12);
    }

    #[test]
    fn the_axis_of_discs_is_found_to_a_twentieth_of_a_pixel() {
        for (axis, seed) in [(63.4, 1), (71.85, 2), (44.25, 3)] {
            let discs = Discs::random(seed, 20, 38.0);
            let half = discs.sinogram(150, 130, axis, |k| PI * f64::from(k) / 150.0);
            let found = search(&[half], (32.0, 96.0)).unwrap();
            assert!((found.axis_px - axis).abs() < 0.05, "{axis}: {found:?}");
            assert!(found.quality > 0.5);
        }
    }

    #[test]
    fn an_axis_outside_the_search_is_no_answer() {
        let half =
            Discs::random(1, 20, 30.0).sinogram(150, 130, 40.0, |k| PI * f64::from(k) / 150.0);
        let inside = search(std::slice::from_ref(&half), (30.0, 96.0)).unwrap();
        assert!((inside.axis_px - 40.0).abs() < 0.05, "{inside:?}");
        let outside = search(&[half], (60.0, 96.0));
        assert!(
            outside
                .as_ref()
                .map_or(true, |f| f.quality < 0.5 * inside.quality),
            "{outside:?}"
        );
        assert!(search(&[Array2::zeros((40, 60))], (15.0, 45.0)).is_err());
    }
}
