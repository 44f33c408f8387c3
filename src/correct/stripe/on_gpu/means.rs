//! Normalization and regularization: every column moves, as a whole, by what its mean lacks to a weighted mean of the columns around.
//!
//! Normalization smooths the means by a Gaussian. The correction that regularization seeks has a closed form of the same kind: with
//! `L` the second difference with free ends, `c = -(L + alpha)^-1 L m` is `alpha (L + alpha)^-1 m - m`, and the rows of
//! `alpha (L + alpha)^-1` are positive, have sum 1, and fall off as `exp(-tau distance)` with `4 sinh(tau / 2)^2 = alpha`, mirrored
//! at the edges like the Gaussian. Weighted differences of neighbours lose nothing in single precision, where the
//! tridiagonal solve of the CPU would.

use super::{FIND_SOURCE, StripeParams, samples};
use crate::correct::stripe::{StripeRemoval, normalization};
use crate::error::Result;
use crate::gpu::{Batch, Gpu, Kernel};

/// Weights by distance of the columns around one, of `n_cols`; `None` for methods without.
pub(super) fn mean_weights(removal: &StripeRemoval, n_cols: usize) -> Option<Vec<f32>> {
    let weights = match removal {
        StripeRemoval::Normalization(sigma) => normalization::weights(*sigma),
        StripeRemoval::Regularization(alpha) => exponential(*alpha, n_cols),
        _ => return None,
    };
    Some(weights.into_iter().map(|weight| weight as f32).collect())
}

/// A row of `alpha (L + alpha)^-1` by distance, all mirror images beyond `n_cols` columns folded in; cut off where nothing is left
/// in single precision.
fn exponential(alpha: f64, n_cols: usize) -> Vec<f64> {
    let tau = 2.0 * (alpha.sqrt() / 2.0).asinh();
    let n = n_cols as f64;
    let reach = ((30.0 * std::f64::consts::LN_2 / tau).ceil()).min(n) as usize;
    let weight = |distance: usize| {
        let d = distance as f64;
        // tanh(tau / 2) cosh((n - d) tau) / sinh(n tau)
        let folded = (1.0 + (-2.0 * (n - d) * tau).exp()) / -(-2.0 * n * tau).exp_m1();
        let weight = (tau / 2.0).tanh() * (-d * tau).exp() * folded;
        // one column lies at this distance on both sides
        if distance == n_cols {
            0.5 * weight
        } else {
            weight
        }
    };
    (0..=reach).map(weight).collect()
}

/// The kernels, with the buffers for so many rows at a time.
pub(super) struct MeanKernels {
    sum_columns: Kernel,
    smooth_means: Kernel,
    shift_columns: Kernel,
    weights: wgpu::Buffer,
    /// Columns on either side that the weights reach.
    reach: usize,
    /// `[row, col]`, both.
    sums: wgpu::Buffer,
    factors: wgpu::Buffer,
}

impl MeanKernels {
    /// `None` for methods that need none of it.
    pub(super) fn new(
        gpu: &Gpu,
        removal: &StripeRemoval,
        n_cols: usize,
        n_rows: usize,
    ) -> Result<Option<MeanKernels>> {
        let Some(weights) = mean_weights(removal, n_cols) else {
            return Ok(None);
        };
        let kernel = |entry| Kernel::new(gpu, FIND_SOURCE, entry);
        Ok(Some(MeanKernels {
            sum_columns: kernel("sum_columns")?,
            smooth_means: kernel("smooth_means")?,
            shift_columns: kernel("shift_columns")?,
            weights: gpu.storage_from("weights of the means", &weights)?,
            reach: weights.len() - 1,
            sums: gpu.storage::<[f32; 4]>("sums of the columns", n_cols * n_rows)?,
            factors: gpu.storage::<f32>("shifts of the columns", n_cols * n_rows)?,
        }))
    }

    pub(super) fn launch(
        &self,
        batch: &mut Batch<'_>,
        params: &StripeParams,
        removal: &StripeRemoval,
        columns: &wgpu::Buffer,
    ) -> Result<()> {
        let params = params.of_means(removal, self.reach);
        batch.launch(
            &self.sum_columns,
            &params,
            &[(1, columns), (9, &self.sums)],
            [params.n_cols, params.n_rows, 1],
        )?;
        batch.launch(
            &self.smooth_means,
            &params,
            &[(4, &self.factors), (9, &self.sums), (10, &self.weights)],
            [params.n_cols.div_ceil(256), params.n_rows, 1],
        )?;
        let buffers = [(1, columns), (4, &self.factors)];
        batch.launch(&self.shift_columns, &params, &buffers, samples(&params))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_all_columns_around_any_column_have_sum_1() {
        for (alpha, n_cols) in [
            (5e-4, 2048),
            (5e-4, 100),
            (1e-9, 64),
            (3.0, 7),
            (1e-6, 1),
            (1e3, 40),
        ] {
            let weights = exponential(alpha, n_cols);
            let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f64>();
            assert!((sum - 1.0).abs() < 1e-8, "{alpha} {n_cols}: {sum}");
            // (L + alpha) on a row of the inverse, where nothing is mirrored
            if weights.len() > 3 && n_cols == 2048 {
                let applied = (2.0 + alpha) * weights[2] - weights[1] - weights[3];
                let at_own = (2.0 + alpha) * weights[0] - 2.0 * weights[1];
                assert!(applied.abs() < 1e-15 && (at_own - alpha).abs() < 1e-15);
            }
        }
    }
}
