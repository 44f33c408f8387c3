//! Full stripes by the smoothest correction of the column means.
//!
//! Source: S. Titarenko, P. J. Withers and A. Yagola, "An analytical formula for ring artefact suppression in X-ray
//! tomography", Appl. Math. Lett. 23 (2010) 1489.

use super::columns::Columns;

/// Multiplies every column by `exp(-c)`, c being the correction of the mean line integrals m of the columns that makes
/// `|D(m + c)|^2 + alpha |c|^2` least (D: difference of neighbours).
///
/// The paper's closed form of c has hyperbolic functions that overflow; here the same minimum is found by its normal
/// equations `(D'D + alpha) c = -D'D m`, a tridiagonal solve in f64, for any width. The closed form in Algotom has the
/// indices of its two terms off by one sample: on sinograms of 256 and 135 columns the results differ by up to 0.5 % of the
/// peak at the outermost columns, with its matrix by 2e-7. Its sorting changes nothing, as whole columns move together.
///
/// A sample that is not positive has no line integral: for the mean it counts as the mean magnitude of the sinogram, and
/// it keeps its sign. Smaller alpha is stronger.
pub(super) fn regularize(columns: &mut Columns, alpha: f64) {
    let means = mean_line_integrals(columns);
    let corrections = smoothest_correction(&means, alpha);
    for (column, c) in columns.iter_mut().zip(corrections) {
        let factor = (-c).exp() as f32;
        column.iter_mut().for_each(|value| *value *= factor);
    }
}

fn mean_line_integrals(columns: &Columns) -> Vec<f64> {
    let n = columns.values().len().max(1) as f64;
    let magnitude: f64 = columns
        .values()
        .iter()
        .map(|&v| f64::from(v.abs()))
        .sum::<f64>()
        / n;
    let instead = if magnitude > 0.0 { magnitude.ln() } else { 0.0 };
    let n_angles = columns.n_angles() as f64;
    columns
        .iter()
        .map(|column| {
            // the logarithm in f32 is right to 1e-7, and the mean of many is better than that
            let sum: f64 = column
                .iter()
                .map(|&v| if v > 0.0 { f64::from(v.ln()) } else { instead })
                .sum();
            -sum / n_angles
        })
        .collect()
}

/// Solves `(L + alpha) c = -L m`, L being the second difference with free ends (Thomas' algorithm).
fn smoothest_correction(means: &[f64], alpha: f64) -> Vec<f64> {
    let n = means.len();
    if n < 2 {
        return vec![0.0; n];
    }
    let degree = |i: usize| if i == 0 || i == n - 1 { 1.0 } else { 2.0 };
    let curvature = |i: usize| {
        let left = if i > 0 { means[i] - means[i - 1] } else { 0.0 };
        let right = if i + 1 < n {
            means[i] - means[i + 1]
        } else {
            0.0
        };
        left + right
    };
    let mut upper = vec![0.0; n];
    let mut c = vec![0.0; n];
    for i in 0..n {
        let (above, before) = if i > 0 {
            (upper[i - 1], c[i - 1])
        } else {
            (0.0, 0.0)
        };
        let pivot = degree(i) + alpha + above;
        upper[i] = -1.0 / pivot;
        c[i] = (before - curvature(i)) / pivot;
    }
    for i in (0..n - 1).rev() {
        c[i] -= upper[i] * c[i + 1];
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correct::goldens::{Golden, worst};

    /// `c = M g` with the matrix of hyperbolic functions; `shift` 0 is the inverse of `L + alpha`, 1 is Algotom's.
    fn closed_form(means: &[f64], alpha: f64, shift: f64) -> Vec<f64> {
        let n = means.len();
        let width = n as f64;
        let tau = 2.0 * (alpha.sqrt() / 2.0).asinh();
        let clamp = |i: isize| means[i.clamp(0, n as isize - 1) as usize];
        let gradient: Vec<f64> = (0..n as isize)
            .map(|i| 2.0 * clamp(i) - clamp(i - 1) - clamp(i + 1))
            .collect();
        let scale = -(tau / 2.0).tanh() / (alpha * (width * tau).sinh());
        (0..n)
            .map(|i| {
                let term = |j: usize| {
                    let (apart, sum) = (i.abs_diff(j) as f64, (i + j) as f64);
                    ((width - shift - apart) * tau).cosh()
                        + ((width - 1.0 + shift - sum) * tau).cosh()
                };
                scale * (0..n).map(|j| term(j) * gradient[j]).sum::<f64>()
            })
            .collect()
    }

    #[test]
    fn the_tridiagonal_solve_is_the_closed_form() {
        let means: Vec<f64> = (0..200)
            .map(|i| (f64::from(i) / 30.0).sin() + f64::from(i * 37 % 11) / 50.0)
            .collect();
        for alpha in [5e-4, 0.05, 3.0] {
            let (solved, exact) = (
                smoothest_correction(&means, alpha),
                closed_form(&means, alpha, 0.0),
            );
            let apart = solved
                .iter()
                .zip(&exact)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max);
            assert!(apart < 1e-10, "{alpha}: {apart}");
            let perturbed = smoothest_correction(&means, alpha * 1.01);
            let apart = perturbed
                .iter()
                .zip(&exact)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max);
            assert!(apart > 1e-5, "the check is blind");
        }
        assert!(
            smoothest_correction(&vec![0.3; 5000], 5e-4)
                .iter()
                .all(|c| c.abs() < 1e-12)
        );
        assert_eq!(smoothest_correction(&[1.0], 1.0), [0.0]);
    }

    #[test]
    fn regularization_agrees_with_algotom_but_for_its_matrix() {
        for set in ["a", "b"] {
            let Some(golden) = Golden::read("in_soft", "regularization_0", set) else {
                return;
            };
            let mut columns = Columns::default();
            columns.read(&golden.input, golden.n_cols);
            let corrections = closed_form(&mean_line_integrals(&columns), 5e-4, 1.0);
            let with_its_matrix: Vec<f32> = golden
                .input
                .iter()
                .enumerate()
                .map(|(i, &v)| (f64::from(v) * (-corrections[i % golden.n_cols]).exp()) as f32)
                .collect();
            regularize(&mut columns, 5e-4);
            let mut ours = golden.input.clone();
            columns.write(&mut ours);
            let (same, apart) = (
                worst(&with_its_matrix, &golden.expected) / golden.peak(),
                worst(&ours, &golden.expected) / golden.peak(),
            );
            // f32 against f64 in the factors
            assert!(same < 2e-6, "{set}: {same}");
            assert!(apart < 1e-2, "{set}: {apart}");
            assert!(
                worst(&golden.input, &golden.expected) > 1e-3,
                "the check is blind"
            );
        }
    }
}
