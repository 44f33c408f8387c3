//! Stripe removal from one transmission sinogram: the algorithms of N. T. Vo, R. C. Atwood and M. Drakopoulos,
//! "Superior techniques for eliminating ring artifacts in X-ray micro-tomography", Opt. Express 26 (2018) 28396, and the
//! older ones by smoothing (Rivers, Titarenko), in Fourier space (Raven) and in wavelet space (Muench).
//!
//! Takes and gives a sinogram `[angle, col]` in place, without NaN. Inside, columns are contiguous. The combined method
//! sorts every column once: no later step of it changes the order inside a column (see `large`).
//!
//! Everything runs on one thread per sinogram, in a fixed order, so that results do not depend on slabs or threads.
//! Differences from Algotom 1.7, on purpose: rows without noise are no error (see `detect`), factors that are not
//! positive are not divided by, and equal values keep their order in angle, once and for all steps (Algotom's sort
//! leaves it open, and sorts anew for algorithm 3). Counts are integers, so a third of the samples of a column may be
//! equal: with 22 000 photons, 1501 x 1024, the combined method then differs from Algotom by more than 1e-5 in 17 % of
//! the samples, by more than 1e-3 in 0.03 %, exactly as a stable sort in f64 does. No order is more right than another.
//!
//! Largest difference from Algotom on sinograms of 181 x 256 and 90 x 135 samples, as a share of the peak (held by tests):
//!
//! | method | difference | why more than 1e-4 |
//! |---|---|---|
//! | large, interpolation, normalization | 1e-6 | |
//! | fitting | 1e-5 | |
//! | sorting, dead, all | 3e-4, in 0.04 % of the samples more than 1e-5 | order of equal values |
//! | filtering | 5e-4, in 0.13 % | order of values equal but for rounding |
//! | wavelet-fft | 1.3 % (6e-7 with its placement) | its window stands one sample off for even heights |
//! | regularization | 0.5 % (2e-7 with its matrix) | two indices of its closed form are one off |
//! | fft | 2.4 % (0.07 % for odd heights) | its window stands one sample off for even sizes, and signs are lost |
//!
//! Of Algotom's options the square median (`dim = 2`), parts of the sinogram treated on their own (`num_chunk`), and sorting
//! before fitting or transforming are not offered.

mod columns;
mod daubechies;
mod dead;
mod detect;
mod filtering;
mod fitting;
mod fourier;
mod large;
mod normalization;
pub mod on_gpu;
mod raven;
mod regularization;
mod wavelet;
mod wavelet_fft;

pub(super) use columns::Columns;
pub use dead::Dead;
pub use filtering::Filtering;
pub use fitting::Fitting;
pub use large::Large;
pub use raven::Raven;
pub use wavelet_fft::WaveletFft;

use super::median::{self, Tile, across_columns};
use crate::config::{StripeConfig, StripeMethod};
use columns::SortedColumns;
use large::divide;

/// Buffers of one sinogram, reused from one to the next.
#[derive(Default)]
pub struct Scratch {
    columns: Columns,
    work: Columns,
    sorted: SortedColumns,
    tile: Tile,
    wavelet: wavelet_fft::Work,
}

/// Columns that a method replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StripeCounts {
    /// Taken as large stripes.
    pub large: u64,
    /// Taken as dead or fluctuating.
    pub dead: u64,
}

/// One way to remove stripes, with its parameters.
#[derive(Debug, Clone, Copy)]
pub enum StripeRemoval {
    /// Algorithm 3: every sorted sample becomes the median over this many columns \[px\].
    Sorting(usize),
    /// Algorithm 2.
    Filtering(Filtering),
    /// Algorithm 1.
    Fitting(Fitting),
    /// Algorithm 5 with the detection of algorithm 4.
    Large(Large),
    /// Algorithm 6, and algorithm 5 for what it leaves, as published.
    Dead(Dead, Option<Large>),
    /// Algorithms 6, 5 (with 4) and 3 in this order; the number is the median window of algorithm 3 \[px\].
    All(Dead, Large, usize),
    /// The stripes that algorithm 5 finds, replaced by straight lines between good columns.
    Interpolation(Large),
    /// Smoothed column means; sigma \[px\].
    Normalization(f64),
    /// Wavelet-Fourier filter (Muench et al. 2009).
    WaveletFft(WaveletFft),
    /// Smoothest correction of the column means (Titarenko et al. 2010); alpha.
    Regularization(f64),
    /// Low-pass of the lowest frequencies along the angle (Raven 1998).
    Fft(Raven),
}

impl StripeRemoval {
    /// What the config asks for; `None` for `none`.
    #[must_use]
    pub fn from_config(config: &StripeConfig) -> Option<StripeRemoval> {
        let &StripeConfig {
            method,
            snr,
            large_size,
            small_size,
            drop_ratio,
            normalize,
            filter_sigma,
            fit_order,
            fit_sigma,
            normalize_sigma,
            wavelet_levels,
            wavelet_order,
            wavelet_sigma,
            regularization_alpha,
            fft_cutoff,
            fft_order,
            fft_rows,
        } = config;
        let large = Large {
            snr: f64::from(snr),
            size: large_size,
            drop_ratio: f64::from(drop_ratio),
            normalize,
        };
        let dead = Dead {
            snr: f64::from(snr),
            size: large_size,
            smooth: dead::SMOOTH,
        };
        Some(match method {
            StripeMethod::None => return None,
            StripeMethod::Sorting => StripeRemoval::Sorting(small_size),
            StripeMethod::Filtering => StripeRemoval::Filtering(Filtering {
                sigma: f64::from(filter_sigma),
                size: small_size,
            }),
            StripeMethod::Fitting => StripeRemoval::Fitting(Fitting {
                order: fit_order,
                sigma: f64::from(fit_sigma),
            }),
            StripeMethod::Large => StripeRemoval::Large(large),
            StripeMethod::Dead => StripeRemoval::Dead(dead, Some(large)),
            StripeMethod::All => StripeRemoval::All(dead, large, small_size),
            StripeMethod::Interpolation => StripeRemoval::Interpolation(large),
            StripeMethod::Normalization => StripeRemoval::Normalization(f64::from(normalize_sigma)),
            StripeMethod::WaveletFft => StripeRemoval::WaveletFft(WaveletFft {
                levels: wavelet_levels,
                order: wavelet_order,
                sigma: f64::from(wavelet_sigma),
            }),
            StripeMethod::Regularization => StripeRemoval::Regularization(regularization_alpha),
            StripeMethod::Fft => StripeRemoval::Fft(Raven {
                cutoff: f64::from(fft_cutoff),
                order: fft_order,
                rows: fft_rows,
            }),
        })
    }

    /// Removes the stripes of `sinogram` `[angle, col]` in place; it may hold no NaN.
    pub fn apply(
        &self,
        sinogram: &mut [f32],
        n_cols: usize,
        scratch: &mut Scratch,
    ) -> StripeCounts {
        let mut counts = StripeCounts::default();
        if sinogram.is_empty() || n_cols == 0 {
            return counts;
        }
        let Scratch {
            columns,
            work,
            sorted,
            tile,
            wavelet,
        } = scratch;
        columns.read(sinogram, n_cols);
        match self {
            StripeRemoval::Sorting(size) => {
                sorted.sort(columns);
                across_columns(&sorted.values, *size, columns, tile);
                sorted.unsort_in_place(columns).write(sinogram);
                return counts;
            }
            StripeRemoval::Large(large) => {
                sorted.sort(columns);
                counts.large = large.apply(sorted, columns, tile);
                sorted.unsort_values(columns);
            }
            StripeRemoval::Dead(dead, residual) => {
                counts.dead = dead.apply(columns);
                if let Some(large) = residual {
                    sorted.sort(columns);
                    counts.large = large.apply(sorted, columns, tile);
                    sorted.unsort_values(columns);
                }
            }
            StripeRemoval::All(dead, large, small_size) => {
                counts.dead = dead.apply(columns);
                sorted.sort(columns);
                counts.large = large.apply(sorted, columns, tile);
                across_columns(&sorted.values, *small_size, columns, tile);
                sorted.unsort_in_place(columns).write(sinogram);
                return counts;
            }
            StripeRemoval::Interpolation(large) => {
                sorted.sort(columns);
                across_columns(&sorted.values, large.size, columns, tile);
                let found = large.factors(&sorted.values, columns);
                sorted.unsort_values(columns);
                if large.normalize {
                    columns
                        .iter_mut()
                        .zip(&found.factors)
                        .for_each(|(column, &factor)| divide(column, factor));
                }
                columns.bridge(&found.flagged);
                counts.large = found.flagged.iter().filter(|&&flag| flag).count() as u64;
            }
            StripeRemoval::Filtering(filtering) => filtering.apply(columns, work, sorted, tile),
            StripeRemoval::Fitting(fitting) => fitting.apply(columns, work),
            StripeRemoval::Normalization(sigma) => normalization::normalize(columns, *sigma),
            StripeRemoval::WaveletFft(filter) => filter.apply(columns, wavelet),
            StripeRemoval::Regularization(alpha) => regularization::regularize(columns, *alpha),
            StripeRemoval::Fft(raven) => raven.apply(columns),
        }
        columns.write(sinogram);
        counts
    }

    /// Bytes of scratch for one sinogram of this size.
    #[must_use]
    pub fn scratch_bytes(&self, n_cols: usize, n_angles: usize) -> usize {
        let plane = 4 * n_cols * n_angles;
        let tile = |size| Tile::bytes(n_cols, size);
        // sorted values, their order, and two lists of keys of one column
        let sorted = 2 * plane + 16 * n_angles;
        plane
            + match self {
                StripeRemoval::Sorting(size) => sorted + tile(*size),
                StripeRemoval::Large(large) | StripeRemoval::Interpolation(large) => {
                    sorted + tile(large.size)
                }
                StripeRemoval::Dead(_, residual) => {
                    residual.map_or(0, |large| sorted + tile(large.size))
                }
                StripeRemoval::All(_, large, small_size) => {
                    sorted + tile(large.size.max(*small_size))
                }
                StripeRemoval::Filtering(filtering) => plane + sorted + tile(filtering.size),
                StripeRemoval::Fitting(_) => plane + Fitting::bytes(n_cols, n_angles),
                StripeRemoval::Normalization(_) | StripeRemoval::Regularization(_) => 32 * n_cols,
                StripeRemoval::WaveletFft(filter) => filter.bytes(n_cols, n_angles),
                StripeRemoval::Fft(raven) => raven.bytes(n_cols, n_angles),
            }
    }
}

#[cfg(test)]
mod tests;
