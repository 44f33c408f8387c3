//! Daubechies' orthonormal wavelet filters, computed.

use rustfft::num_complex::Complex64;

/// Low-pass analysis filter of the Daubechies wavelet with `order` vanishing moments: `2 * order` taps, sum sqrt(2).
///
/// Source: I. Daubechies, Comm. Pure Appl. Math. 41 (1988) 909, section 4: `|H|^2` is `cos^(2N)(w/2)` times the polynomial
/// `P(y)` = sum over k < N of `binomial(N-1+k, k) y^k` with `y = sin^2(w/2)`. Each root of P gives a pair `z, 1/z` by
/// `z + 1/z = 2 - 4y`; the roots inside the unit circle are taken (the choice of least phase), with N roots at -1.
/// In the order of PyWavelets' `dec_lo`. Orthonormal to 1e-7 up to order 20, which is the largest that the config takes.
pub(super) fn low_pass(order: usize) -> Vec<f64> {
    let inner: Vec<Complex64> = roots(&half_band(order))
        .into_iter()
        .map(|y| {
            let half = Complex64::new(1.0, 0.0) - 2.0 * y;
            let root = (half * half - 1.0).sqrt();
            let (a, b) = (half + root, half - root);
            if a.norm_sqr() < b.norm_sqr() { a } else { b }
        })
        .collect();
    let mut taps = vec![Complex64::new(1.0, 0.0)];
    let minus_ones = std::iter::repeat_n(Complex64::new(-1.0, 0.0), order);
    for zero in minus_ones.chain(inner) {
        taps.push(Complex64::default());
        for k in (1..taps.len()).rev() {
            let before = taps[k - 1];
            taps[k] -= zero * before;
        }
    }
    let sum: f64 = taps.iter().map(|tap| tap.re).sum();
    taps.iter()
        .rev()
        .map(|tap| tap.re * std::f64::consts::SQRT_2 / sum)
        .collect()
}

/// The high-pass filter that belongs to a low-pass one: reversed, with alternating signs.
pub(super) fn high_pass(low: &[f64]) -> Vec<f64> {
    low.iter()
        .rev()
        .enumerate()
        .map(|(k, &tap)| if k % 2 == 0 { tap } else { -tap })
        .collect()
}

/// Coefficients of P(y), ascending.
fn half_band(order: usize) -> Vec<f64> {
    let mut coefficients = vec![1.0];
    for k in 1..order {
        let last = coefficients[k - 1];
        coefficients.push(last * (order - 1 + k) as f64 / k as f64);
    }
    coefficients
}

/// All roots of a polynomial with ascending real coefficients, by Aberth's iteration (O. Aberth, Math. Comp. 27 (1973)
/// 339).
fn roots(coefficients: &[f64]) -> Vec<Complex64> {
    let degree = coefficients.len() - 1;
    // not symmetric about the real axis, so that no pair of roots is mistaken for one
    let mut roots: Vec<Complex64> = (0..degree)
        .map(|k| Complex64::from_polar(0.4, 0.3 + std::f64::consts::TAU * k as f64 / degree as f64))
        .collect();
    for _ in 0..200 {
        let mut largest = 0f64;
        for k in 0..degree {
            let at = roots[k];
            let (mut value, mut slope) = (Complex64::default(), Complex64::default());
            for &c in coefficients.iter().rev() {
                slope = slope * at + value;
                value = value * at + c;
            }
            let newton = value / slope;
            let others: Complex64 = (0..degree)
                .filter(|&other| other != k)
                .map(|other| 1.0 / (at - roots[other]))
                .sum();
            let step = newton / (1.0 - newton * others);
            if !step.is_finite() {
                continue;
            }
            roots[k] -= step;
            largest = largest.max(step.norm() / roots[k].norm());
        }
        if largest < 1e-15 {
            break;
        }
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_are_orthonormal_with_vanishing_moments() {
        for order in 1..=20 {
            let low = low_pass(order);
            let high = high_pass(&low);
            assert_eq!(low.len(), 2 * order);
            for shift in 0..order {
                let dot = |a: &[f64], b: &[f64]| -> f64 {
                    a.iter().skip(2 * shift).zip(b).map(|(a, b)| a * b).sum()
                };
                let one = f64::from(u8::from(shift == 0));
                assert!((dot(&low, &low) - one).abs() < 1e-7, "order {order}");
                assert!(dot(&low, &high).abs() < 1e-7 && dot(&high, &low).abs() < 1e-7);
            }
            // a constant and a slope leave no detail
            for power in 0..order.min(2) {
                let moment: f64 = high
                    .iter()
                    .enumerate()
                    .map(|(k, tap)| tap * (k as f64).powi(power as i32))
                    .sum();
                assert!(
                    moment.abs() < 1e-6,
                    "order {order}, moment {power}: {moment}"
                );
            }
        }
    }

    #[test]
    fn the_second_filter_is_daubechies_closed_form() {
        // Daubechies 1988, section 4: (1 + sqrt 3, 3 + sqrt 3, 3 - sqrt 3, 1 - sqrt 3) / (4 sqrt 2), reversed
        let root = 3f64.sqrt();
        let expected = [1.0 - root, 3.0 - root, 3.0 + root, 1.0 + root]
            .map(|tap| tap / (4.0 * std::f64::consts::SQRT_2));
        for (tap, expected) in low_pass(2).iter().zip(expected) {
            assert!((tap - expected).abs() < 1e-14, "{tap} is not {expected}");
        }
    }
}
