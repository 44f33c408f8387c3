use rustfft::num_complex::Complex64;

use super::*;
use crate::correct::goldens::worst;

fn config(method: PhaseMethod, distance_mm: f64, energy_kev: f64, delta_beta: f64) -> PhaseConfig {
    PhaseConfig {
        method,
        distance_mm,
        energy_kev,
        delta_beta,
    }
}

/// Filters projections `[row, col]` in bands, as the pipeline does with all rows at hand.
fn filtered(phase: &Phase, images: &[Vec<f32>; 2], n_cols: usize) -> [Vec<f32>; 2] {
    let n_rows = images[0].len() / n_cols;
    let filter = Filter::new(phase, n_cols);
    let mut buffers = filter.buffers();
    let views = images
        .each_ref()
        .map(|image| ArrayView2::from_shape((n_rows, n_cols), image).unwrap());
    let mut out = [0, 1].map(|_| ndarray::Array2::zeros((n_rows, n_cols)));
    for first in (0..n_rows).step_by(phase.band) {
        filter.band(first, n_rows, 0, &views, &mut buffers);
        for (part, out) in out.iter_mut().enumerate() {
            filter.take(first, &(0..n_rows), part, &buffers, out.view_mut());
        }
    }
    out.map(|out| out.into_raw_vec_and_offset().0)
}

/// Complex 2D transform, `[row, col]`, in f64; `sign` -1 forward, 1 inverse without normalisation.
fn transform(image: &[Complex64], n_cols: usize, sign: f64) -> Vec<Complex64> {
    let n_rows = image.len() / n_cols;
    let pass =
        |values: &[Complex64], n: usize, stride: usize, first: usize, m: usize| -> Complex64 {
            (0..n)
                .map(|k| {
                    let turn = (k * m % n) as f64 / n as f64;
                    values[first + k * stride]
                        * Complex64::from_polar(1.0, sign * std::f64::consts::TAU * turn)
                })
                .sum()
        };
    let rows: Vec<Complex64> = (0..image.len())
        .map(|i| pass(image, n_cols, 1, i / n_cols * n_cols, i % n_cols))
        .collect();
    (0..image.len())
        .map(|i| pass(&rows, n_rows, n_cols, i % n_cols, i / n_cols))
        .collect()
}

fn noise(index: usize) -> f32 {
    ((index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1u64 << 24) as f32
}

#[test]
fn the_length_is_that_of_the_textbook() {
    // 12.398 keV is 1 angstrom: L^2 = 1e-10 m * 0.1 m * 400 pi / (4 pi) = 1e-9 m^2, 31.62 um
    let config = config(
        PhaseMethod::Paganin,
        100.0,
        12.398_419_84,
        400.0 * std::f64::consts::PI,
    );
    let phase = Phase::new(&config, 2.0).unwrap();
    assert!((phase.length_px - 1e-9f64.sqrt() * 1e6 / 2.0).abs() < 1e-6);
    // k^2 L^2 = 1 halves the transmission's modulation: k = 1 / L in radians per pixel
    let f = 1.0 / (phase.length_px * std::f64::consts::TAU);
    assert!((phase.factor(0.0, f) - 0.5).abs() < 1e-12 && phase.factor(0.0, 0.0) == 1.0);
    assert!((phase.factor(0.6 * f, 0.8 * f) - 0.5).abs() < 1e-12);
    // the halo leaves less than 1e-4 of exp(-|y| / L) / 2L
    assert!(0.5 * (-(phase.halo as f64) / phase.length_px).exp() <= TAIL);
}

#[test]
fn a_band_is_the_formula_written_out() {
    let (n_rows, n_cols) = (20, 7);
    for method in [PhaseMethod::Paganin, PhaseMethod::GeneralizedPaganin] {
        let phase = Phase {
            length_px: 1.7,
            generalised: method == PhaseMethod::GeneralizedPaganin,
            band: 4,
            halo: 3,
        };
        let images = [0, 1000].map(|seed| {
            (0..n_rows * n_cols)
                .map(|i| 0.3 + noise(i + seed))
                .collect::<Vec<f32>>()
        });
        let found = filtered(&phase, &images, n_cols);
        let (width, height) = (fast_length(14), 10);
        assert_eq!(width, 16);
        for first in [0, 8, 16] {
            for (image, found) in images.iter().zip(&found) {
                // the left edge goes on from the far end
                let at = |k: usize, col: usize| {
                    let row = (first + k).saturating_sub(3).min(n_rows - 1);
                    let col = if col < 7 {
                        col
                    } else if col < 11 {
                        6
                    } else {
                        0
                    };
                    Complex64::from(f64::from(image[row * n_cols + col]))
                };
                let plane: Vec<Complex64> = (0..width * height)
                    .map(|i| at(i / width, i % width))
                    .collect();
                let mut spectrum = transform(&plane, width, -1.0);
                for (i, value) in spectrum.iter_mut().enumerate() {
                    let signed = |m: usize, n: usize| if 2 * m <= n { m as f64 } else { m as f64 - n as f64 } / n as f64;
                    let (fy, fx) = (signed(i / width, height), signed(i % width, width));
                    let tau = std::f64::consts::TAU;
                    let k2 = match method {
                        PhaseMethod::Paganin => tau * tau * (fx * fx + fy * fy),
                        _ => 4.0 - 2.0 * (tau * fx).cos() - 2.0 * (tau * fy).cos(),
                    };
                    *value /= (1.0 + 1.7 * 1.7 * k2) * (width * height) as f64;
                }
                let expected = transform(&spectrum, width, 1.0);
                for row in first..(first + 4).min(n_rows) {
                    for col in 0..n_cols {
                        let expected = expected[(row - first + 3) * width + col].re as f32;
                        let found = found[row * n_cols + col];
                        // f32 transforms of 160 samples of about 1
                        assert!((found - expected).abs() < 2e-6, "{method:?} {row} {col}");
                        assert!(
                            (found - image[row * n_cols + col]).abs() > 1e-5 || row == 0,
                            "the check is blind"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn bands_err_by_no_more_than_the_stated_tail() {
    let (n_rows, n_cols) = (200, 12);
    // the worst contrast: open beam above, nothing below, a step in every place relative to the bands
    for step in [60, 64, 70, 100] {
        let image: Vec<f32> = (0..n_rows * n_cols)
            .map(|i| if i / n_cols < step { 1.0 } else { 0.0 })
            .collect();
        let banded = Phase::new(&config(PhaseMethod::Paganin, 50.0, 20.0, 300.0), 1.3).unwrap();
        assert!(banded.halo < 100 && banded.band < 100);
        let whole = Phase {
            band: 200,
            halo: 300,
            ..banded
        };
        let images = [image.clone(), image];
        let (a, b) = (
            filtered(&banded, &images, n_cols),
            filtered(&whole, &images, n_cols),
        );
        // both ends of a band, and f32
        assert!(
            worst(&a[0], &b[0]) < (2.0 * TAIL) as f32 + 2e-6,
            "{step}: {}",
            worst(&a[0], &b[0])
        );
    }
}

/// Fresnel propagation of a pure phase-and-absorption sheet, then retrieval: the thickness comes back.
#[test]
fn a_propagated_phantom_is_recovered() {
    let (n_rows, n_cols) = (64, 64);
    let (pixel_um, energy_kev, distance_mm, delta_beta) = (1.0, 20.0, 15.0, 50.0);
    let wavelength_um = 1.239_841_984e-3 / energy_kev;
    // line integral of attenuation, up to 0.6; two smooth grains and a slope
    let integral = |row: usize, col: usize| {
        let grain = |y: f64, x: f64, size: f64| {
            (-0.5 * ((row as f64 - y).powi(2) + (col as f64 - x).powi(2)) / (size * size)).exp()
        };
        0.35 * grain(28.0, 25.0, 4.0) + 0.25 * grain(38.0, 42.0, 6.0)
    };
    // psi = exp(-mu t / 2 - i (delta/beta) mu t / 2), because mu = 2 k beta
    let wave: Vec<Complex64> = (0..n_rows * n_cols)
        .map(|i| {
            let half = 0.5 * integral(i / n_cols, i % n_cols);
            Complex64::from_polar((-half).exp(), -delta_beta * half)
        })
        .collect();
    let mut spectrum = transform(&wave, n_cols, -1.0);
    for (i, value) in spectrum.iter_mut().enumerate() {
        let f = |m: usize, n: usize| m.min(n - m) as f64 / (n as f64 * pixel_um);
        let f2 = f(i / n_cols, n_rows).powi(2) + f(i % n_cols, n_cols).powi(2);
        let turn = -std::f64::consts::PI * wavelength_um * (1e3 * distance_mm) * f2;
        *value *= Complex64::from_polar(1.0 / (n_rows * n_cols) as f64, turn);
    }
    let seen: Vec<f32> = transform(&spectrum, n_cols, 1.0)
        .iter()
        .map(|v| v.norm_sqr() as f32)
        .collect();
    let error = |delta_beta: f64, method: PhaseMethod| {
        let phase = Phase::new(
            &config(method, distance_mm, energy_kev, delta_beta),
            pixel_um,
        )
        .unwrap();
        let [found, _] = filtered(&phase, &[seen.clone(), seen.clone()], n_cols);
        let errors = found
            .iter()
            .enumerate()
            .map(|(i, v)| (f64::from(-v.ln()) - integral(i / n_cols, i % n_cols)).abs());
        errors.fold(0.0, f64::max)
    };
    let errors = seen
        .iter()
        .enumerate()
        .map(|(i, v)| (f64::from(-v.ln()) - integral(i / n_cols, i % n_cols)).abs());
    let fringe = errors.fold(0.0, f64::max);
    assert!(fringe > 0.15, "{fringe}");
    // the filter inverts the intensity to first order in the distance; what is left is half the square of the fringe
    for method in [PhaseMethod::Paganin, PhaseMethod::GeneralizedPaganin] {
        let found = error(delta_beta, method);
        assert!(found < 0.5 * fringe * fringe, "{method:?}: {found}");
        // a factor of 4 in delta/beta is what other conventions of the frequency amount to
        for wrong in [4.0 * delta_beta, delta_beta / 4.0] {
            assert!(error(wrong, method) > 0.09, "the check is blind");
        }
    }
}
