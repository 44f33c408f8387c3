//! Double flat field: the part of the angular mean of a scan that is sharp on the detector.
//!
//! The line integrals of all projections are averaged; stripes and specks of the detector are sharp in that mean, the sample,
//! having turned, is smooth but for what lies near the axis. The mean less its Gaussian blur is taken off every
//! projection. As in nabu (its `dff_sigma`; the blur mirrors at the edges with the edge sample repeated); here always on the
//! mean of `-ln T`, so that it is exact for errors of the gain. What is sharp and concentric in the sample is lost, in each scan
//! differently: within a series use the lock (see `lock`), which asks whether the scans agree.

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use super::CorrectedScan;
use crate::error::Result;
use crate::scan::SinogramSource;

/// The map to be taken off every projection, in line integrals `[row, col]`; sigma \[px\].
///
/// # Errors
/// Those of reading: every projection is read once, a few at a time.
pub(super) fn measure(scan: &CorrectedScan, sigma: f64) -> Result<Array2<f32>> {
    let n_angles = scan.angles_rad().len();
    let mut sum = Array2::<f64>::zeros((scan.n_rows(), scan.n_cols()));
    let angles: Vec<usize> = (0..n_angles).collect();
    for some in angles.chunks(rayon::current_num_threads().max(1)) {
        let frames: Vec<Array2<f32>> = some
            .par_iter()
            .map(|&angle| scan.projection(angle, 0..scan.n_rows()))
            .collect::<Result<_>>()?;
        for frame in frames {
            // in the order of the angles, so that threads do not matter
            ndarray::Zip::from(&mut sum)
                .and(&frame)
                .par_for_each(|sum, &value| *sum += f64::from(value));
        }
    }
    let mean = sum / n_angles.max(1) as f64;
    let blurred = blur(&blur(&mean, sigma, Axis(1)), sigma, Axis(0));
    Ok((mean - blurred).mapv(|value| value as f32))
}

/// Memory of the map and of finding it \[bytes\].
pub(super) fn bytes([_, n_rows, n_cols]: [usize; 3]) -> u64 {
    ((4 + 4 * 8 + 4 * rayon::current_num_threads()) * n_rows * n_cols) as u64
}

/// Gaussian along one axis, cut at four sigma, mirrored at the edges (d c b a | a b c d | d c b a).
fn blur(image: &Array2<f64>, sigma: f64, axis: Axis) -> Array2<f64> {
    let reach = (4.0 * sigma + 0.5) as isize;
    let weights: Vec<f64> = (-reach..=reach)
        .map(|k| (-0.5 * (k as f64 / sigma).powi(2)).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    let n = image.len_of(axis) as isize;
    let mut out = Array2::zeros(image.dim());
    let lanes = out.lanes_mut(axis).into_iter().zip(image.lanes(axis));
    for (mut to, from) in lanes {
        for (k, value) in to.iter_mut().enumerate() {
            let at = |offset: isize| {
                let place = (k as isize + offset).rem_euclid(2 * n);
                from[if place < n { place } else { 2 * n - 1 - place } as usize]
            };
            let sum: f64 = (-reach..=reach).zip(&weights).map(|(o, w)| w * at(o)).sum();
            *value = sum / total;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::config::{CorrectConfig, StripeMethod};
    use crate::correct::tests::scan;

    #[test]
    fn the_blur_is_that_of_scipy() {
        // scipy.ndimage.gaussian_filter([[0,0,1,0,0,0,0]], 1.0, mode="reflect"): the normal kernel cut at 4 sigma
        let image =
            Array2::from_shape_vec((1, 7), vec![0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
        let row = blur(&image, 1.0, Axis(1));
        let g = |k: i32| (-0.5 * f64::from(k * k)).exp();
        let total = (-4..=4).map(g).sum::<f64>();
        // at 0 the sample at 2 is seen directly and mirrored, 3 to the left of the edge
        let expected = [g(2) + g(3), g(1) + g(4), g(0), g(1), g(2), g(3), g(4)];
        for (found, expected) in row.iter().zip(expected) {
            assert!((found - expected / total).abs() < 1e-15);
        }
        assert_eq!(blur(&image, 1.0, Axis(0)), image);
    }

    #[test]
    fn a_column_of_wrong_gain_is_evened_out_and_a_smooth_sample_is_kept() {
        let (n_angles, n_rows, n_cols) = (40, 30, 64);
        let truth = |row: usize, col: usize| {
            0.8 + 0.002 * row as f64 - 0.3 * ((col as f64 - 31.0) / 40.0).powi(2)
        };
        let frames = |gain: f64| {
            Array3::from_shape_fn((n_angles, n_rows, n_cols), |(_, row, col)| {
                let gain = if (row, col) == (12, 20) { gain } else { 1.0 };
                (20_000.0 * gain * (-truth(row, col)).exp()) as f32
            })
        };
        let flats = Array3::from_elem((1, n_rows, n_cols), 20_000.0);
        let mut config = CorrectConfig::default();
        config.zinger.enabled = false;
        config.stripe.method = StripeMethod::None;
        config.double_flat = 8.0;
        let corrected = |gain: f64, config: &CorrectConfig| {
            let scan = scan(frames(gain), Some(flats.clone()), None);
            CorrectedScan::new(scan, config)
                .unwrap()
                .sinograms(12..13)
                .unwrap()
        };
        let (with, without) = (corrected(1.05, &config), corrected(1.0, &config));
        // a speck of 1 px keeps 1 / (2 pi sigma^2) of itself under its blur
        let left = f64::from(with[[0, 7, 20]] - without[[0, 7, 20]]).abs() / 1.05f64.ln();
        let expected = 1.0 / (2.0 * std::f64::consts::PI * 64.0);
        assert!(
            (left - expected).abs() < 0.1 * expected,
            "{left} of {expected}"
        );
        config.double_flat = 0.0;
        let plain = corrected(1.05, &config);
        assert!(
            (plain[[0, 7, 20]] - with[[0, 7, 20]]).abs() > 0.03,
            "the check is blind"
        );
        // away from the edges the mean less its blur is sigma^2 / 2 times the curvature, 0.3 * 2 / 40^2
        let kept = f64::from(with[[0, 7, 32]]) - truth(12, 32);
        let curvature = -0.3 * 2.0 / 1600.0;
        assert!((kept - 32.0 * curvature).abs() < 2e-3, "{kept}");
    }
}
