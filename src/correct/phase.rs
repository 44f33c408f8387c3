//! Single-distance phase retrieval: from propagated transmission to the transmission of a contact image.
//!
//! Takes transmission with stripes removed and gives it filtered, projection by projection; the caller takes the one
//! logarithm. For a sample of one material (or of one ratio delta/beta) at the distance z the transmission T gives
//! `mu t = -ln F^-1( F(T) / (1 + L^2 k^2) )` with `L^2 = lambda z (delta/beta) / (4 pi)` and k in radians per length:
//! D. Paganin et al., J. Microsc. 206 (2002) 33, equation 10. The generalised filter puts
//! `2 / p^2 (2 - cos(p kx) - cos(p ky))` in the place of `k^2` (p: pixel), which is the same at low frequencies and
//! blurs less at high ones: D. M. Paganin et al., J. Opt. 22 (2020) 115607.
//!
//! k is `2 pi m / (N p)` of the extended projection, from `-pi/p` to `pi/p`, and delta/beta is the ratio as tabulated.
//! (Elsewhere the same number means other things: TomoPy's `alpha` is `1 / (4 pi^2 delta/beta)`, and HTTomo's filter has
//! 4 times the effect.)
//!
//! The filter mixes detector rows, and the pipeline works by slabs of them. So rows are filtered in bands that start at
//! multiples of a height from row 0, whatever the slab, each with a halo of true rows on both sides: the result is the
//! same bits for any slab. Summed over the columns the filter is `exp(-|y| / L) / 2L`; the halo is as high as leaves
//! [`TAIL`] of that weight beyond each end, so a band errs by at most that share of the contrast to the rows it does not
//! see. Beyond the detector the edge rows and columns go on; the width is at least doubled.

use std::sync::Arc;

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use rustfft::{Fft, FftPlanner, num_complex::Complex32};

use std::ops::Range;
use std::path::Path;

use super::{CorrectedScan, CorrectionCounts};
use crate::config::{PhaseConfig, PhaseMethod};
use crate::error::{Error, Result};
use crate::plan::forecast::cost::{Cost, per_item};
use crate::scan::Sinograms;

/// Weight of the filter beyond either end of a band's halo.
const TAIL: f64 = 1e-4;
/// Columns transformed along the rows together: a cache line of complex samples and more.
const LANES: usize = 16;
/// Photon energy times wavelength \[keV m\] (CODATA 2018).
const KEV_METRES: f64 = 1.239_841_984e-9;

/// The filter of one scan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phase {
    /// L \[px\].
    length_px: f64,
    generalised: bool,
    /// Rows of a band.
    band: usize,
    /// Rows beyond it on each side.
    halo: usize,
}

impl Phase {
    /// What the config asks for, `None` for `none`.
    ///
    /// # Errors
    /// [`Error::Input`] without a pixel size.
    pub(super) fn from_config(
        config: &PhaseConfig,
        pixel_size_um: Option<f64>,
        path: &Path,
    ) -> Result<Option<Phase>> {
        if config.method == PhaseMethod::None {
            return Ok(None);
        }
        match pixel_size_um {
            Some(size) => Ok(Phase::new(config, size)),
            None => Err(Error::input(
                path,
                "phase retrieval (correct.phase) needs the size of a pixel, and the scan does not say it",
                "give it with --pixel-size or series.pixel_size_um",
            )),
        }
    }

    /// The same for a known pixel \[um\].
    pub(super) fn new(config: &PhaseConfig, pixel_size_um: f64) -> Option<Phase> {
        let &PhaseConfig {
            method,
            distance_mm,
            energy_kev,
            delta_beta,
        } = config;
        let generalised = match method {
            PhaseMethod::None => return None,
            PhaseMethod::Paganin => false,
            PhaseMethod::GeneralizedPaganin => true,
        };
        let wavelength = KEV_METRES / energy_kev;
        let square = wavelength * (1e-3 * distance_mm) * delta_beta / (4.0 * std::f64::consts::PI);
        let length_px = square.sqrt() / (1e-6 * pixel_size_um);
        // 4: the sampled kernel of a very small L rings by that much
        let least = (length_px * (0.5 / TAIL).ln()).ceil().clamp(4.0, 1e6) as usize;
        let band = least.next_multiple_of(16).min(64);
        let height = fast_length(band + 2 * least);
        Some(Phase {
            length_px,
            generalised,
            band,
            halo: (height - band) / 2,
        })
    }

    /// Factor at frequencies in cycles per pixel.
    fn factor(&self, f_row: f64, f_col: f64) -> f64 {
        let tau = std::f64::consts::TAU;
        let k_square = if self.generalised {
            2.0 * (2.0 - (tau * f_row).cos() - (tau * f_col).cos())
        } else {
            tau * tau * (f_row * f_row + f_col * f_col)
        };
        1.0 / (1.0 + self.length_px * self.length_px * k_square)
    }

    /// Rows of a detector with `n_rows` that the bands of `rows` need.
    fn held(&self, rows: &Range<usize>, n_rows: usize) -> Range<usize> {
        let first = rows.start / self.band * self.band;
        let end = rows.end.next_multiple_of(self.band);
        first.saturating_sub(self.halo)..(end + self.halo).min(n_rows)
    }

    /// Memory for filtering `rows` rows of a scan `[angle, row, col]` beside the result and what its transmission takes
    /// \[bytes\], and the rows whose transmission is worked out for them.
    pub(super) fn scratch_bytes(&self, shape: [usize; 3], rows: usize) -> (u64, usize) {
        let [n_angles, n_rows, n_cols] = shape;
        let bands = (rows + self.band - 1).div_ceil(self.band) + usize::from(rows > 1);
        let held = (bands * self.band + 2 * self.halo).min(n_rows);
        let (width, height) = (fast_length(2 * n_cols), self.band + 2 * self.halo);
        let threads = rayon::current_num_threads();
        let plane = 8 * (width * height + LANES * height + 2 * (width + height));
        let window = 4 * width * (height / 2 + 1);
        let transmission = 4 * held * n_angles * n_cols;
        ((transmission + threads * plane + window) as u64, held)
    }

    /// What filtering a scan `[angle, row, col]` by slabs of `slab` rows costs for each row: the rows whose transmission is
    /// worked out, and the filter when all threads work (tried on a pair of projections each).
    pub(super) fn cost(&self, [n_angles, n_rows, n_cols]: [usize; 3], slab: usize) -> (f64, Cost) {
        let slab = slab.clamp(1, n_rows.max(1));
        let middle = (n_rows - slab) / 2;
        let held = self.held(&(middle..middle + slab), n_rows);
        let bands = (slab + self.band - 1).div_ceil(self.band);
        let filter = Filter::new(self, n_cols);
        let plane = Array2::<f32>::from_elem((held.len(), n_cols), 0.5);
        let first = middle / self.band * self.band;
        let pair = per_item(rayon::current_num_threads(), || {
            let views = [plane.view(), plane.view()];
            filter.band(first, n_rows, held.start, &views, &mut filter.buffers());
        });
        let pairs = n_angles.div_ceil(2) as f64;
        (
            held.len() as f64 / slab as f64,
            pair * (pairs * bands as f64 / slab as f64),
        )
    }

    /// Filtered transmission of `rows`, `[row, angle, col]`; what was touched is counted in `rows` only.
    pub(super) fn transmission(
        &self,
        scan: &CorrectedScan,
        rows: Range<usize>,
    ) -> Result<(Sinograms, CorrectionCounts)> {
        let n_rows = scan.scan().n_rows();
        let shape = (rows.len(), scan.scan().n_angles(), scan.scan().n_cols());
        if rows.is_empty() {
            return scan.transmission(rows);
        }
        let held = self.held(&rows, n_rows);
        // what stands in the halo is not counted
        let (given, counts) = scan.transmission_of(held.clone(), &rows, None)?;
        let mut out = Sinograms::zeros(shape);
        let filter = Filter::new(self, shape.2);
        let pairs = given.axis_chunks_iter(Axis(1), 2).into_par_iter();
        pairs
            .zip(out.axis_chunks_iter_mut(Axis(1), 2))
            .for_each_init(
                || filter.buffers(),
                |buffers, (given, mut out)| {
                    let last = given.dim().1 - 1;
                    let views = [given.slice(s![.., 0, ..]), given.slice(s![.., last, ..])];
                    for first in (rows.start / self.band * self.band..rows.end).step_by(self.band) {
                        filter.band(first, n_rows, held.start, &views, buffers);
                        for angle in 0..=last {
                            filter.take(
                                first,
                                &rows,
                                angle,
                                buffers,
                                out.slice_mut(s![.., angle, ..]),
                            );
                        }
                    }
                },
            );
        Ok((out, counts))
    }
}

/// The smallest even length 2^a 3^b 5^c of at least `n`.
fn fast_length(n: usize) -> usize {
    (n.max(2)..)
        .find(|&length| {
            let mut rest = length;
            for prime in [2, 3, 5] {
                while rest % prime == 0 {
                    rest /= prime;
                }
            }
            rest == 1 && length % 2 == 0
        })
        .expect("powers of two have no end")
}

/// Plans and window for bands of one width.
struct Filter {
    phase: Phase,
    n_cols: usize,
    width: usize,
    height: usize,
    along_cols: [Arc<dyn Fft<f32>>; 2],
    along_rows: [Arc<dyn Fft<f32>>; 2],
    /// `[|row frequency|, col frequency]`, with the normalisation of the transforms.
    window: Vec<f32>,
}

/// Scratch of one thread.
struct Buffers {
    /// `[row, col]`, extended.
    plane: Vec<Complex32>,
    /// Some columns of it, `[col, row]`.
    columns: Vec<Complex32>,
    scratch: Vec<Complex32>,
}

impl Filter {
    fn new(phase: &Phase, n_cols: usize) -> Filter {
        let (width, height) = (fast_length(2 * n_cols), phase.band + 2 * phase.halo);
        let mut planner = FftPlanner::new();
        let mut both = |n| [planner.plan_fft_forward(n), planner.plan_fft_inverse(n)];
        let (along_cols, along_rows) = (both(width), both(height));
        let frequency = |m: usize, n: usize| m.min(n - m) as f64 / n as f64;
        let window = (0..=height / 2)
            .flat_map(|row| (0..width).map(move |col| (row, col)))
            .map(|(row, col)| {
                let factor = phase.factor(frequency(row, height), frequency(col, width));
                (factor / (width * height) as f64) as f32
            })
            .collect();
        Filter {
            phase: *phase,
            n_cols,
            width,
            height,
            along_cols,
            along_rows,
            window,
        }
    }

    fn buffers(&self) -> Buffers {
        let plans = self.along_cols.iter().chain(&self.along_rows);
        let scratch = plans.map(|plan| plan.get_inplace_scratch_len()).max();
        Buffers {
            plane: vec![Complex32::default(); self.width * self.height],
            columns: vec![Complex32::default(); LANES * self.height],
            scratch: vec![Complex32::default(); scratch.unwrap_or(0)],
        }
    }

    /// Filters the band that starts at detector row `first`, of two projections `[row, col]` at once, whose rows start at
    /// `held`: the window is real and symmetric, so they travel as real and imaginary part.
    fn band(
        &self,
        first: usize,
        n_rows: usize,
        held: usize,
        given: &[ArrayView2<'_, f32>; 2],
        buffers: &mut Buffers,
    ) {
        let Buffers {
            plane,
            columns,
            scratch,
        } = buffers;
        for (k, line) in plane.chunks_exact_mut(self.width).enumerate() {
            let row = (first + k).saturating_sub(self.phase.halo).min(n_rows - 1) - held;
            let values = given[0].row(row).into_iter().zip(given[1].row(row));
            for (value, (&a, &b)) in line.iter_mut().zip(values) {
                *value = Complex32::new(a, b);
            }
            // half of the extension belongs to either edge; the transform joins its ends
            let (left, right) = (line[0], line[self.n_cols - 1]);
            let middle = self.n_cols + (self.width - self.n_cols) / 2;
            line[self.n_cols..middle].fill(right);
            line[middle..].fill(left);
        }
        self.along_cols[0].process_with_scratch(plane, scratch);
        let kept = self.phase.halo..self.phase.halo + self.phase.band;
        for col in (0..self.width).step_by(LANES) {
            let lanes = LANES.min(self.width - col);
            let columns = &mut columns[..lanes * self.height];
            for (row, line) in plane.chunks_exact(self.width).enumerate() {
                for (lane, &value) in line[col..col + lanes].iter().enumerate() {
                    columns[lane * self.height + row] = value;
                }
            }
            self.along_rows[0].process_with_scratch(columns, scratch);
            for (lane, column) in columns.chunks_exact_mut(self.height).enumerate() {
                for (row, value) in column.iter_mut().enumerate() {
                    *value *= self.window[row.min(self.height - row) * self.width + col + lane];
                }
            }
            self.along_rows[1].process_with_scratch(columns, scratch);
            for row in kept.clone() {
                let line = &mut plane[row * self.width + col..][..lanes];
                for (lane, value) in line.iter_mut().enumerate() {
                    *value = columns[lane * self.height + row];
                }
            }
        }
        let plane = &mut plane[kept.start * self.width..kept.end * self.width];
        self.along_cols[1].process_with_scratch(plane, scratch);
    }

    /// Copies the rows of the band at `first` that lie in `rows` to `out` `[row, col]`; `part` 0 is the first projection.
    fn take(
        &self,
        first: usize,
        rows: &Range<usize>,
        part: usize,
        buffers: &Buffers,
        mut out: ArrayViewMut2<'_, f32>,
    ) {
        for row in first.max(rows.start)..(first + self.phase.band).min(rows.end) {
            let start = (row - first + self.phase.halo) * self.width;
            let line = &buffers.plane[start..start + self.n_cols];
            for (value, filtered) in out.row_mut(row - rows.start).iter_mut().zip(line) {
                *value = if part == 0 { filtered.re } else { filtered.im };
            }
        }
    }
}

#[cfg(test)]
#[path = "phase_tests.rs"]
mod tests;
