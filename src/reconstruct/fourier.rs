//! Filtered back-projection through the Fourier slice theorem: the same sum, evaluated by a non-uniform FFT.
//!
//! With P_k the spectrum of an extended row, R(k) the filter, N its length, and t_a(x, y) = offset + x cos + y sin, [`super::filter`] and
//! back-projection together are
//!
//! f(x, y) = sum_a arc_a 1/N sum_k P_k R(k) exp(2 pi i k (t_a(x, y) + axis + n_left) / N),
//!
//! a sum of plane waves with frequencies (k cos, k sin) / N. It is spread onto a Cartesian grid ([`gridding`]),
//! transformed, and divided by the transform of the spreading window. No row is interpolated: but for 1e-5 of
//! the peak this is FBP with infinitely fine rows; the same [`FilterPlan::transfer`] is applied, so both methods answer alike.
//!
//! Phases are counted from the voxel in the middle of the grid, a whole number of voxels from all others, so that wrapping around
//! the grid costs no sign. One slice is done at a time: its spectrum is Hermitian, so half a grid suffices, and what is packed
//! with it could not change its last bits. Work per slice: angles * N / 2 * 36 cells, and a real transform of the grid.

pub(crate) mod gridding;

use std::f64::consts::PI;
use std::sync::Arc;

use ndarray::{ArrayView2, ArrayView3, ArrayViewMut1, ArrayViewMut2, ArrayViewMut3, Axis, s};
use rayon::prelude::*;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use super::filter::FilterPlan;
use super::geometry::{Grid, Ray};
use super::{SliceJob, inside};
use crate::error::{Error, Result};
use gridding::{HalfGrid, Line, MARGIN, Weights, window_transform};

/// Slices are worked on at once while their grids take less than this \[bytes\].
const AT_ONCE_BYTES: usize = 512 << 20;
/// Voxels per sample of the extended row from which on this method is the faster one.
///
/// CPU seconds per slice with AVX-512, slabs of 32 slices, 1501 projections x 1024 columns, back-projection / Fourier: crop of 128 x 128
/// 0.015 / 0.030, of 256 x 256 0.022 / 0.031, of 512 x 512 0.052 / 0.035, whole slice 0.16 / 0.044. They meet at 52 voxels per
/// sample (2048 of them); without AVX-512 and for slabs of a few slices earlier.
const VOXELS_PER_FREQUENCY: usize = 64;
/// Rows of the slice transformed together after transposition.
const BAND: usize = 16;
/// A page of memory and a line of the cache, in complex numbers.
const PAGE: usize = 4096 / 8;
const LINE: usize = 64 / 8;

/// Fourier reconstruction of slabs.
pub(crate) struct Fourier {
    plan: FilterPlan,
    rays: Vec<Ray>,
    lines: Vec<Line>,
    /// Filter, transfer of the interpolation, and the halves of the ends of the spectrum, `[n_fft / 2 + 1]`.
    gain: Vec<f32>,
    /// x and y of the voxel in the middle \[px\].
    middle: (f64, f64),
    /// Divides the window out, along x and y.
    deapodise: (Vec<f32>, Vec<f32>),
    /// Voxels of row j that the mask leaves.
    inside: Vec<std::ops::Range<usize>>,
    grid: (usize, usize),
    weights: Weights,
    row: Arc<dyn RealToComplex<f32>>,
    along_v: Arc<dyn Fft<f32>>,
    along_u: Arc<dyn ComplexToReal<f32>>,
    workspaces: Vec<Workspace>,
}

/// What one slice needs.
struct Workspace {
    /// Spectra `[angle, k]`.
    spectra: Vec<Complex<f32>>,
    half_grid: HalfGrid,
}

impl Fourier {
    /// Why this method cannot do the job, if so.
    pub(crate) fn misfit(job: &SliceJob) -> Option<String> {
        Self::misfit_above(MAX_PIXELS_PER_VOXEL, job)
    }

    /// The same for an engine that takes voxels of at most so many pixels.
    pub(crate) fn misfit_above(most: f64, job: &SliceJob) -> Option<String> {
        let pixels = pixels_per_voxel(job);
        (pixels > most).then(|| {
            format!("a voxel of {pixels} px is wider than a pixel; use fbp or auto, or bin the projections")
        })
    }

    /// Whether this method fits and is the faster one on a CPU.
    ///
    /// Its work grows with angles * n_fft, that of back-projection with angles * voxels.
    pub(crate) fn pays(job: &SliceJob) -> bool {
        let n_fft = (job.config.padding.max(1.0) * job.n_cols as f64).max(4.0) as usize;
        Self::misfit(job).is_none()
            && job.grid.n_x * job.grid.n_y >= VOXELS_PER_FREQUENCY * n_fft.next_power_of_two()
    }

    /// Plans the transforms.
    ///
    /// # Errors
    /// [`Error::Config`] for voxels wider than a pixel; those of [`FilterPlan::new`].
    pub(crate) fn new(job: &SliceJob) -> Result<Self> {
        if let Some(misfit) = Self::misfit(job) {
            return Err(Error::config("reconstruct.method", "fourier", misfit));
        }
        let plan = FilterPlan::new(job)?;
        let grid = (
            transform_length(job.grid.n_x),
            transform_length(job.grid.n_y),
        );
        let per_bin = job.grid.step / plan.n_fft as f64;
        // frequencies that a grid of these voxels does not carry: none, but for a magnified grid
        let carried = plan.n_fft as f64 / 2.0 / pixels_per_voxel(job) + 1e-6;
        let lines = job
            .rays
            .iter()
            // row j grows downwards, y upwards
            .map(|ray| {
                Line::new(
                    ray.cos * per_bin * grid.0 as f64,
                    -ray.sin * per_bin * grid.1 as f64,
                    carried as usize + 1,
                )
            })
            .collect();
        let mut real = RealFftPlanner::new();
        Ok(Fourier {
            rays: job.rays.clone(),
            lines,
            gain: gain(&plan),
            middle: middle(&job.grid),
            deapodise: (
                deapodise(job.grid.n_x, grid.0, false),
                deapodise(job.grid.n_y, grid.1, true),
            ),
            inside: (0..job.grid.n_y)
                .map(|j| inside(&job.grid, job.mask_radius_px, j, 0, job.grid.n_x))
                .collect(),
            grid,
            weights: Weights::new(),
            row: real.plan_fft_forward(plan.n_fft),
            along_v: FftPlanner::new().plan_fft_inverse(grid.1),
            along_u: real.plan_fft_inverse(grid.0),
            plan,
            workspaces: Vec::new(),
        })
    }

    /// Slices `[z, y, x]` of sinograms `[row, angle, col]`; the shapes were checked by the caller.
    pub(crate) fn slab(
        &mut self,
        sinograms: ArrayView3<'_, f32>,
        axis_px: &[f64],
        mut out: ArrayViewMut3<'_, f32>,
    ) {
        let mut workspaces = std::mem::take(&mut self.workspaces);
        let wanted = self.at_once(axis_px.len());
        workspaces.truncate(wanted);
        while workspaces.len() < wanted {
            workspaces.push(Workspace {
                spectra: vec![Complex::new(0.0, 0.0); self.rays.len() * (self.plan.n_fft / 2 + 1)],
                half_grid: HalfGrid::new(self.grid.0, self.grid.1),
            });
        }
        let each = axis_px.len().div_ceil(wanted.max(1)).max(1);
        workspaces
            .par_iter_mut()
            .zip(out.axis_chunks_iter_mut(Axis(0), each))
            .zip(sinograms.axis_chunks_iter(Axis(0), each))
            .zip(axis_px.par_chunks(each))
            .for_each(|(((work, mut out), sinograms), axes)| {
                for ((out, sinogram), &axis) in
                    out.outer_iter_mut().zip(sinograms.outer_iter()).zip(axes)
                {
                    self.slice(sinogram, axis, out, work);
                }
            });
        self.workspaces = workspaces;
    }

    /// Host memory beside the arguments of a slab of `rows` \[bytes\].
    pub(crate) fn scratch_bytes(&self, rows: usize) -> u64 {
        let line = (self.grid.0 / 2 + 1).next_multiple_of(PAGE) + LINE;
        let thread = 8 * (3 * self.plan.n_fft + BAND * line + 3 * self.grid.0 + 2 * self.grid.1);
        (self.at_once(rows) * self.slice_bytes() + rayon::current_num_threads() * thread) as u64
    }

    /// For the record.
    pub(crate) fn describe(&self) -> String {
        format!(
            "Fourier reconstruction on the CPU (Kaiser-Bessel window of {} cells, grid {} x {}), rows extended to {}",
            gridding::WIDTH,
            self.grid.0,
            self.grid.1,
            self.plan.n_fft
        )
    }

    fn slice_bytes(&self) -> usize {
        HalfGrid::bytes(self.grid.0, self.grid.1) + 8 * self.rays.len() * (self.plan.n_fft / 2 + 1)
    }

    /// Slices worked on at the same time.
    fn at_once(&self, rows: usize) -> usize {
        (AT_ONCE_BYTES / self.slice_bytes())
            .clamp(1, rayon::current_num_threads())
            .min(rows)
    }

    fn slice(
        &self,
        sinogram: ArrayView2<'_, f32>,
        axis_px: f64,
        out: ArrayViewMut2<'_, f32>,
        work: &mut Workspace,
    ) {
        self.spectra(sinogram, axis_px, &mut work.spectra);
        work.half_grid.spread(
            &self.weights,
            &self.lines,
            &work.spectra,
            self.plan.n_fft / 2 + 1,
        );
        self.transform_along_v(&mut work.half_grid);
        self.transform_along_u(&work.half_grid, out);
    }

    /// Filtered spectrum of every row, its phase counted from the voxel in the middle, `[angle, k]`.
    fn spectra(&self, sinogram: ArrayView2<'_, f32>, axis_px: f64, spectra: &mut [Complex<f32>]) {
        let n_k = self.plan.n_fft / 2 + 1;
        spectra.par_chunks_mut(n_k).enumerate().for_each_init(
            || (self.row.make_input_vec(), self.row.make_scratch_vec()),
            |(padded, scratch), (angle, spectrum)| {
                let row = sinogram.row(angle);
                match row.as_slice() {
                    Some(row) => self.plan.pad_row(angle, row, padded),
                    None => self.plan.pad_row(angle, &row.to_vec(), padded),
                }
                self.row
                    .process_with_scratch(padded, spectrum, scratch)
                    .expect("lengths are those of the plan");
                let ray = self.rays[angle];
                let t = ray.offset_px + self.middle.0 * ray.cos + self.middle.1 * ray.sin;
                let turns = (t + axis_px + self.plan.n_left as f64) / self.plan.n_fft as f64;
                self.phase(
                    spectrum,
                    turns,
                    ray.weight as f32,
                    self.lines[angle].mirrored,
                );
            },
        );
    }

    /// Multiplies sample k by `weight`, the gain and exp(2 pi i k turns_per_bin).
    fn phase(
        &self,
        spectrum: &mut [Complex<f32>],
        turns_per_bin: f64,
        weight: f32,
        mirrored: bool,
    ) {
        const FINE: usize = 32;
        let at = |k: usize| {
            let (sin, cos) = (2.0 * PI * (k as f64 * turns_per_bin).fract()).sin_cos();
            Complex::new(cos as f32, sin as f32)
        };
        let fine: [Complex<f32>; FINE] = std::array::from_fn(at);
        for (block, (samples, gains)) in spectrum
            .chunks_mut(FINE)
            .zip(self.gain.chunks(FINE))
            .enumerate()
        {
            let coarse = at(block * FINE) * weight;
            for ((sample, &gain), &fine) in samples.iter_mut().zip(gains).zip(&fine) {
                *sample = *sample * (coarse * fine) * gain;
                if mirrored {
                    sample.im = -sample.im;
                }
            }
        }
    }

    /// Folds the margins back, adds the mirror image where both halves of the spectrum meet, and transforms along v.
    fn transform_along_v(&self, half: &mut HalfGrid) {
        let (n_u, n_v, stride) = (half.n_u, half.n_v, half.stride());
        let cells = &mut half.cells;
        cells.par_chunks_mut(stride).for_each(|column| {
            for k in 0..MARGIN {
                let before = column[k];
                column[k + n_v] += before;
            }
            for k in 0..MARGIN {
                let behind = column[MARGIN + n_v + k];
                column[MARGIN + k] += behind;
            }
        });
        // cell (-u, v) is the conjugate of (u, -v), and u beyond n_u / 2 is u - n_u
        for (from, to) in mirrored_columns(n_u) {
            let source: Vec<Complex<f32>> = cells[from * stride + MARGIN..][..n_v].to_vec();
            let target = &mut cells[to * stride + MARGIN..][..n_v];
            for (k, value) in target.iter_mut().enumerate() {
                *value += source[(n_v - k) % n_v].conj();
            }
        }
        let kept = &mut cells[MARGIN * stride..(MARGIN + n_u / 2 + 1) * stride];
        kept.par_chunks_mut(stride).for_each_init(
            || vec![Complex::new(0.0, 0.0); self.along_v.get_inplace_scratch_len()],
            |scratch, column| {
                self.along_v
                    .process_with_scratch(&mut column[MARGIN..MARGIN + n_v], scratch);
            },
        );
    }

    /// Transforms the rows that are voxels along u and divides the window out.
    fn transform_along_u(&self, half: &HalfGrid, mut out: ArrayViewMut2<'_, f32>) {
        let (n_u, n_y) = (half.n_u, out.nrows());
        let n_k = n_u / 2 + 1;
        // lines a whole number of pages apart would fight for the same few places of the cache
        let apart = n_k.next_multiple_of(PAGE) + LINE;
        out.axis_chunks_iter_mut(Axis(0), BAND)
            .into_par_iter()
            .enumerate()
            .for_each_init(
                || {
                    (
                        vec![Complex::new(0.0, 0.0); BAND * apart],
                        self.along_u.make_output_vec(),
                        self.along_u.make_scratch_vec(),
                    )
                },
                |(rows, line, scratch), (band, mut out)| {
                    let first = band * BAND;
                    gather_rows(half, n_y, first..first + out.nrows(), rows, apart);
                    for (b, (out, spectrum)) in
                        out.outer_iter_mut().zip(rows.chunks_mut(apart)).enumerate()
                    {
                        let spectrum = &mut spectrum[..n_k];
                        // both are real but for rounding; the transform insists
                        spectrum[0].im = 0.0;
                        spectrum[n_k - 1].im = 0.0;
                        self.along_u
                            .process_with_scratch(spectrum, line, scratch)
                            .expect("lengths are those of the plan");
                        self.write_row(first + b, line, out);
                    }
                },
            );
    }

    /// Row `j` of a slice from its transform `line`, which begins in the middle of the row: the window divided out, 0
    /// outside the mask.
    fn write_row(&self, j: usize, line: &[f32], mut out: ArrayViewMut1<'_, f32>) {
        out.fill(0.0);
        for (part, at) in two_parts(&self.inside[j], out.len(), line.len()) {
            let values = out.slice_mut(s![part.clone()]);
            let factors = &self.deapodise.0[part];
            for ((value, &number), &along_x) in values.into_iter().zip(&line[at..]).zip(factors) {
                *value = number * along_x * self.deapodise.1[j];
            }
        }
    }
}

/// Rows `j` of a slice of `n_y` rows out of the columns of the grid, which begin in the middle of the slice: `[j, u]`,
/// lines `apart`.
fn gather_rows(
    half: &HalfGrid,
    n_y: usize,
    j: std::ops::Range<usize>,
    rows: &mut [Complex<f32>],
    apart: usize,
) {
    let stride = half.stride();
    for (part, first) in two_parts(&j, n_y, half.n_v) {
        if part.is_empty() {
            continue;
        }
        for k in 0..half.n_u / 2 + 1 {
            let column = &half.cells[(MARGIN + k) * stride + MARGIN + first..][..part.len()];
            let lines = rows[(part.start - j.start) * apart..].chunks_mut(apart);
            for (line, &value) in lines.zip(column) {
                line[k] = value;
            }
        }
    }
}

/// Places of the voxels `range` of a line of `n` in its transform of `length`, which begins in the middle of the line: two
/// ranges of voxels, and where the first of each stands.
fn two_parts(
    range: &std::ops::Range<usize>,
    n: usize,
    length: usize,
) -> [(std::ops::Range<usize>, usize); 2] {
    let middle = n / 2;
    let before = range.start.min(middle)..range.end.min(middle);
    let behind = range.start.max(middle)..range.end.max(middle);
    let (end, start) = (before.start + length - middle, behind.start - middle);
    [(before, end), (behind, start)]
}

/// Filter, transfer of the interpolation, and the halves of the ends of the spectrum, `[n_fft / 2 + 1]`.
pub(crate) fn gain(plan: &FilterPlan) -> Vec<f32> {
    let half = plan.n_fft / 2;
    plan.response
        .iter()
        .enumerate()
        .map(|(k, &response)| {
            // a cell and its mirror image add up, so the sample at 0 counts half, and so does Nyquist, which the plan
            // has halved already where rows are upsampled
            let both = if k == 0 || (k == half && plan.upsample == 1) {
                0.5
            } else {
                1.0
            };
            (both * f64::from(response) * plan.transfer(k).powi(2)) as f32
        })
        .collect()
}

/// x and y of the voxel in the middle of a slice \[px\].
pub(crate) fn middle(grid: &Grid) -> (f64, f64) {
    (
        grid.x0 + (grid.n_x / 2) as f64 * grid.step,
        grid.y0 - (grid.n_y / 2) as f64 * grid.step,
    )
}

/// A voxel may be this many pixels wide: what lies beyond its Nyquist frequency is then left out.
const MAX_PIXELS_PER_VOXEL: f64 = 1.1;

/// Width of a voxel, the magnification of the scan included.
fn pixels_per_voxel(job: &SliceJob) -> f64 {
    let scale = job
        .rays
        .iter()
        .map(|ray| ray.cos.hypot(ray.sin))
        .fold(0.0, f64::max);
    let pixels = job.grid.step * scale;
    // rays of a scan that is not magnified are of length 1 but for rounding
    if (pixels - 1.0).abs() < 1e-12 {
        1.0
    } else {
        pixels
    }
}

/// Columns of the half grid whose mirror image falls onto another: (from, to), both counted with the margin.
///
/// u = 0 and u = n_u / 2 fall onto themselves.
fn mirrored_columns(n_u: usize) -> impl Iterator<Item = (usize, usize)> {
    let top = MARGIN + n_u / 2;
    (0..=MARGIN)
        .map(|d| (MARGIN - d, MARGIN + d))
        .chain((0..=MARGIN).map(move |d| (top + d, top - d)))
}

/// One over the window's transform at voxel i of n, counted from the middle one; with `centred`, the sign that moves
/// frequency 0 from the middle of the grid to its begin.
pub(crate) fn deapodise(n: usize, n_grid: usize, centred: bool) -> Vec<f32> {
    (0..n)
        .map(|i| {
            let from_middle = i as f64 - (n / 2) as f64;
            let sign = if centred && (i + n / 2) % 2 == 1 {
                -1.0
            } else {
                1.0
            };
            (sign / window_transform(from_middle / n_grid as f64)) as f32
        })
        .collect()
}

/// The smallest even length 2^a 3^b 5^c that is twice `n` or more, and holds the margins.
fn transform_length(n: usize) -> usize {
    let at_least = (2 * n).max(4 * MARGIN);
    (at_least..)
        .find(|&length| {
            let mut rest = length;
            for factor in [2, 3, 5] {
                while rest % factor == 0 {
                    rest /= factor;
                }
            }
            rest == 1 && length % 4 == 0
        })
        .expect("there is always a power of two")
}
