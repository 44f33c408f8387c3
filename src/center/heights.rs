//! Which rows are asked: heights spread over those that show the sample.

use std::ops::Range;

use crate::config::CenterConfig;
use crate::error::Result;
use crate::scan::SinogramSource;

/// A row counts as sample when its edges are at least this strong, relative to the strong rows of the scan.
const LEAST_CONTRAST: f64 = 0.1;
/// Rows that a band of the phase correlation has at least, where the detector allows.
const BAND_ROWS: usize = 16;

/// Bands for each height, where there are rows enough: a band costs no further reading.
const BANDS_PER_HEIGHT: usize = 3;

/// The rows that are asked.
pub(super) struct Heights {
    /// Rows averaged at each height, for methods on sinograms.
    pub(super) slabs: Vec<Range<usize>>,
    /// Bands of rows, for methods on projections.
    pub(super) bands: Vec<Range<usize>>,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

/// Heights for `source`: around `rows` when given, else spread over the rows with sample.
///
/// # Errors
/// Those of the source.
pub(super) fn choose(
    source: &dyn SinogramSource,
    rows: &[usize],
    config: &CenterConfig,
) -> Result<Heights> {
    let n_rows = source.n_rows();
    let thick = config.rows_per_height.clamp(1, n_rows.max(1));
    let around = |row: usize, thick: usize| {
        let start = row
            .saturating_sub((thick - 1) / 2)
            .min(n_rows.saturating_sub(thick));
        start..(start + thick).min(n_rows)
    };
    if !rows.is_empty() {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        rows.dedup();
        return Ok(Heights {
            slabs: rows.iter().map(|&row| around(row, thick)).collect(),
            bands: rows
                .iter()
                .map(|&row| around(row, thick.max(BAND_ROWS.min(n_rows))))
                .collect(),
            notes: Vec::new(),
        });
    }
    let sample = rows_with_sample(source)?;
    let n = config.heights.clamp(1, sample.len());
    let mut slabs: Vec<Range<usize>> = (0..n)
        .map(|k| around(sample[(2 * k + 1) * sample.len() / (2 * n)], thick))
        .collect();
    slabs.dedup();
    let (first, last) = (sample[0], sample[sample.len() - 1] + 1);
    let n_bands = ((last - first) / BAND_ROWS).clamp(1, BANDS_PER_HEIGHT * config.heights.max(1));
    let edge = |k: usize| first + k * (last - first) / n_bands;
    let bands = (0..n_bands).map(|k| edge(k)..edge(k + 1)).collect();
    let mut notes = Vec::new();
    if sample.len() < n_rows {
        notes.push(format!(
            "{} of {n_rows} rows show too little of the sample and were not asked.",
            n_rows - sample.len()
        ));
    }
    Ok(Heights {
        slabs,
        bands,
        notes,
    })
}

/// Rows whose contrast is not far below that of the strong rows; all rows when none stands out.
fn rows_with_sample(source: &dyn SinogramSource) -> Result<Vec<usize>> {
    let (n_rows, n_angles) = (source.n_rows(), source.angles_rad().len());
    let mut contrasts: Vec<Vec<f64>> = vec![Vec::new(); n_rows];
    for third in 0..3 {
        let view = source.projection((2 * third + 1) * n_angles / 6, 0..n_rows)?;
        for (contrast, line) in contrasts.iter_mut().zip(view.outer_iter()) {
            let line: Vec<f64> = line
                .iter()
                .map(|&v| if v.is_finite() { f64::from(v) } else { 0.0 })
                .collect();
            contrast.push(contrast_of(&line));
        }
    }
    let contrast: Vec<f64> = contrasts.into_iter().map(crate::stats::median).collect();
    let mut sorted = contrast.clone();
    sorted.sort_by(f64::total_cmp);
    let strong = sorted[(sorted.len() - 1) * 9 / 10];
    let rows: Vec<usize> = (0..n_rows)
        .filter(|&r| contrast[r] >= LEAST_CONTRAST * strong)
        .collect();
    Ok(if rows.is_empty() {
        (0..n_rows).collect()
    } else {
        rows
    })
}

/// Strength of the structure in a line above its noise: rms of the differences between means of 4 columns and of the next 4,
/// less the part that noise alone would give. Single bad pixels are taken out first, by a median of three.
fn contrast_of(line: &[f64]) -> f64 {
    const HALF: usize = 4;
    if line.len() < 4 * HALF + 2 {
        return 1.0;
    }
    let calm: Vec<f64> = line
        .windows(3)
        .map(|w| w[0].min(w[1]).max(w[0].max(w[1]).min(w[2])))
        .collect();
    let mean = |from: usize| calm[from..from + HALF].iter().sum::<f64>() / HALF as f64;
    let steps: Vec<f64> = (0..calm.len() - 2 * HALF)
        .map(|i| (mean(i + HALF) - mean(i)).powi(2))
        .collect();
    // second differences of white noise have a median absolute value of 0.6745 sqrt(6) sigma
    let rough: Vec<f64> = line
        .windows(3)
        .map(|w| (w[0] - 2.0 * w[1] + w[2]).abs())
        .collect();
    let sigma = crate::stats::median(rough) / (0.6745 * 6f64.sqrt());
    let square = steps.iter().sum::<f64>() / steps.len() as f64 - 2.0 * sigma * sigma / HALF as f64;
    square.max(0.0).sqrt()
}
