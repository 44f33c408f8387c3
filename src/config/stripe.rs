//! `[correct.stripe]`: what becomes rings in the slices.

use serde::{Deserialize, Serialize};

use super::rules::Table;
use crate::error::Result;

/// `[correct.stripe]`: Vo, Atwood and Drakopoulos 2018, OE 26:28396.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StripeConfig {
    /// Which algorithm.
    pub method: StripeMethod,
    /// Ratio that separates a large stripe from its neighbours (algorithm 4).
    pub snr: f32,
    /// Median window of large and dead stripes \[px\].
    pub large_size: usize,
    /// Median window of small and medium stripes \[px\].
    pub small_size: usize,
    /// Share of the sorted samples left out at both ends together (algorithm 5).
    pub drop_ratio: f32,
    /// Divide all columns by their factor in algorithm 5.
    pub normalize: bool,
    /// Sigma of the low-pass of algorithm 2 \[Fourier samples\].
    pub filter_sigma: f32,
    /// Polynomial order of algorithm 1.
    pub fit_order: usize,
    /// Sigma of the smoothing of algorithm 1, across the columns \[Fourier samples\].
    pub fit_sigma: f32,
    /// Sigma of the normalisation-based method \[px\].
    pub normalize_sigma: f32,
    /// Scales of the wavelet-Fourier filter (Muench et al. 2009, OE 17:8567), at most.
    pub wavelet_levels: usize,
    /// Vanishing moments of its Daubechies wavelet (9: "db9").
    pub wavelet_order: usize,
    /// Width of its damping along the angle \[Fourier samples\].
    pub wavelet_sigma: f32,
    /// Weight of the correction in Titarenko's method (Appl. Math. Lett. 23:1489); smaller is stronger.
    pub regularization_alpha: f64,
    /// Half-value of Raven's window (RSI 69:2978) \[Fourier samples across the columns\].
    pub fft_cutoff: f32,
    /// Order of that window.
    pub fft_order: usize,
    /// Frequencies along the angle on each side of 0 that it filters.
    pub fft_rows: usize,
}

impl Default for StripeConfig {
    fn default() -> Self {
        StripeConfig {
            method: StripeMethod::None,
            snr: 3.0,
            large_size: 51,
            small_size: 21,
            drop_ratio: 0.1,
            normalize: true,
            filter_sigma: 3.0,
            fit_order: 2,
            fit_sigma: 10.0,
            normalize_sigma: 15.0,
            wavelet_levels: 5,
            wavelet_order: 9,
            wavelet_sigma: 1.0,
            regularization_alpha: 5e-4,
            fft_cutoff: 20.0,
            fft_order: 8,
            fft_rows: 1,
        }
    }
}

/// Stripe removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum StripeMethod {
    /// Leave them.
    None,
    /// Algorithm 3.
    Sorting,
    /// Algorithm 2.
    Filtering,
    /// Algorithm 1.
    Fitting,
    /// Algorithm 5.
    Large,
    /// Algorithm 6, then algorithm 5 for what it leaves, as published.
    Dead,
    /// Algorithms 6, 5, 4 and 3 in this order.
    All,
    /// Algorithm 4 with interpolation across the stripes.
    Interpolation,
    /// Column means smoothed (Rivers' normalisation).
    Normalization,
    /// Wavelet-Fourier filter (Muench et al. 2009).
    WaveletFft,
    /// Smoothest correction of the column means (Titarenko et al. 2010).
    Regularization,
    /// Low-pass of the lowest frequencies along the angle (Raven 1998).
    Fft,
}

impl StripeConfig {
    pub(super) fn validate(&self) -> Result<()> {
        let table = Table("correct.stripe");
        for (key, value) in [
            ("snr", self.snr),
            ("filter_sigma", self.filter_sigma),
            ("fit_sigma", self.fit_sigma),
            ("normalize_sigma", self.normalize_sigma),
        ] {
            table.positive(key, value)?;
        }
        table.within("large_size", self.large_size as f64, 1.0..=1001.0)?;
        table.within("small_size", self.small_size as f64, 1.0..=1001.0)?;
        table.within("drop_ratio", self.drop_ratio, 0.0..=0.9)?;
        table.within("fit_order", self.fit_order as f64, 0.0..=9.0)?;
        table.within("wavelet_levels", self.wavelet_levels as f64, 1.0..=12.0)?;
        table.within("wavelet_order", self.wavelet_order as f64, 1.0..=20.0)?;
        table.within("wavelet_sigma", self.wavelet_sigma, 0.01..=1e4)?;
        table.within(
            "regularization_alpha",
            self.regularization_alpha,
            1e-9..=1e3,
        )?;
        table.within("fft_cutoff", self.fft_cutoff, 0.1..=1e5)?;
        table.within("fft_order", self.fft_order as f64, 1.0..=64.0)?;
        table.within("fft_rows", self.fft_rows as f64, 0.0..=1000.0)
    }
}
