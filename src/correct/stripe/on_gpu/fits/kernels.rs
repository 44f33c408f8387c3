//! The launches of fitting and their buffers.

use super::{COLS, FitParams, Fits, TOTALS, parts};
use crate::correct::stripe::Fitting;
use crate::correct::stripe::on_gpu::{FIT_SOURCE, StripeParams, samples};
use crate::error::Result;
use crate::gpu::{Batch, Gpu, Kernel, Submit};

/// The tables and buffers of [`FitKernels`].
struct Held {
    params: FitParams,
    polynomials: wgpu::Buffer,
    weights: wgpu::Buffer,
    expansions: wgpu::Buffer,
    along: wgpu::Buffer,
    across: wgpu::Buffer,
    moments: wgpu::Buffer,
    fit: wgpu::Buffer,
    real_part: wgpu::Buffer,
    imaginary_part: wgpu::Buffer,
    means: wgpu::Buffer,
    parts: wgpu::Buffer,
    totals: wgpu::Buffer,
}

impl Held {
    fn new(gpu: &Gpu, fits: &Fits, n_rows: usize) -> Result<Held> {
        let [n_cols, n_angles] = [fits.params.n_cols, fits.params.n_angles].map(|n| n as usize);
        let buffer = |label, samples: usize| gpu.storage::<f32>(label, (n_rows * samples).max(1));
        let table = |label, values: &[f32]| match values {
            // no block lies inside of the window
            [] => gpu.storage::<f32>(label, 1),
            _ => gpu.storage_from(label, values),
        };
        let plane = n_cols * n_angles;
        let moments = n_cols * (fits.params.n_blocks * fits.params.n_terms) as usize;
        Ok(Held {
            params: fits.params,
            polynomials: table("polynomials", &fits.polynomials)?,
            weights: table("weights of the fit", &fits.weights)?,
            expansions: table("expansions", &fits.expansions)?,
            along: gpu.storage_from("taps along the angle", &fits.along.values)?,
            across: gpu.storage_from("taps across the columns", &fits.across.values)?,
            moments: buffer("moments of the blocks", moments)?,
            fit: buffer("fit", plane)?,
            real_part: buffer("smooth fit, real part", plane)?,
            imaginary_part: buffer("smooth fit, imaginary part", plane)?,
            means: buffer("means of the fit", n_cols)?,
            parts: buffer("sums of magnitudes", parts(n_cols, n_angles))?,
            totals: buffer("sums of all magnitudes", TOTALS)?,
        })
    }
}

/// The kernels, with the buffers for so many rows at a time.
pub(in crate::correct::stripe::on_gpu) struct FitKernels {
    block_moments: Kernel,
    fit_columns: Kernel,
    sum_fits: Kernel,
    add_parts: Kernel,
    smooth_along: Kernel,
    apply_fit: Kernel,
    scale_fitted: Kernel,
    /// `None` where there are too few angles for a fit.
    held: Option<Held>,
}

impl FitKernels {
    pub(in crate::correct::stripe::on_gpu) fn new(
        gpu: &Gpu,
        fitting: &Fitting,
        [n_rows, n_cols, n_angles]: [usize; 3],
    ) -> Result<FitKernels> {
        let kernel = |entry| Kernel::new(gpu, FIT_SOURCE, entry);
        let fits = Fits::new(fitting, n_cols, n_angles);
        Ok(FitKernels {
            block_moments: kernel("block_moments")?,
            fit_columns: kernel("fit_columns")?,
            sum_fits: kernel("sum_fits")?,
            add_parts: kernel("add_parts")?,
            smooth_along: kernel("smooth_along")?,
            apply_fit: kernel("apply_fit")?,
            scale_fitted: kernel("scale_fitted")?,
            held: match fits {
                None => None,
                Some(fits) => Some(Held::new(gpu, &fits, n_rows)?),
            },
        })
    }

    /// Bytes of each buffer.
    #[cfg(test)]
    pub(in crate::correct::stripe::on_gpu) fn held_sizes(&self) -> Vec<u64> {
        let of = |held: &Held| {
            let per_row = [
                &held.moments,
                &held.fit,
                &held.real_part,
                &held.imaginary_part,
                &held.means,
                &held.parts,
                &held.totals,
            ];
            per_row.map(wgpu::Buffer::size).to_vec()
        };
        self.held.as_ref().map_or_else(|| vec![0], of)
    }

    pub(in crate::correct::stripe::on_gpu) fn launch(
        &self,
        params: &StripeParams,
        columns: &wgpu::Buffer,
        run: &mut Submit<'_>,
    ) -> Result<()> {
        let Some(held) = &self.held else {
            return Ok(());
        };
        run(&|batch| self.fit(batch, held, params, columns))?;
        run(&|batch| {
            let buffers = [
                (6, &held.fit),
                (7, &held.means),
                (10, &held.along),
                (11, &held.real_part),
                (12, &held.imaginary_part),
            ];
            batch.launch(&self.smooth_along, &held.params, &buffers, samples(params))
        })?;
        run(&|batch| self.apply(batch, held, params, columns))
    }

    /// The fit, its means, and the sum of its magnitudes.
    fn fit(
        &self,
        batch: &mut Batch<'_>,
        held: &Held,
        params: &StripeParams,
        columns: &wgpu::Buffer,
    ) -> Result<()> {
        let moments = held.params.n_blocks * held.params.n_terms;
        batch.launch(
            &self.block_moments,
            &held.params,
            &[(1, columns), (2, &held.polynomials), (3, &held.moments)],
            [moments.div_ceil(256), params.n_cols, params.n_rows],
        )?;
        batch.launch(
            &self.fit_columns,
            &held.params,
            &[
                (1, columns),
                (3, &held.moments),
                (4, &held.weights),
                (5, &held.expansions),
                (6, &held.fit),
            ],
            samples(params),
        )?;
        let buffers = [(6, &held.fit), (7, &held.means), (8, &held.parts)];
        let each = [params.n_cols, params.n_rows, 1];
        batch.launch(&self.sum_fits, &held.params, &buffers, each)?;
        self.add(batch, held, [params.n_cols, 0], params.n_rows)
    }

    /// What is smooth along the angle becomes so across the columns, and the columns are scaled by its ratio to the fit.
    fn apply(
        &self,
        batch: &mut Batch<'_>,
        held: &Held,
        params: &StripeParams,
        columns: &wgpu::Buffer,
    ) -> Result<()> {
        let angles = params.n_angles.div_ceil(256);
        let groups = params.n_cols.div_ceil(COLS as u32);
        batch.launch(
            &self.apply_fit,
            &held.params,
            &[
                (1, columns),
                (6, &held.fit),
                (8, &held.parts),
                (9, &held.totals),
                (10, &held.across),
                (11, &held.real_part),
                (12, &held.imaginary_part),
            ],
            [angles, groups, params.n_rows],
        )?;
        self.add(batch, held, [groups * angles, 1], params.n_rows)?;
        let buffers = [(1, columns), (6, &held.fit), (9, &held.totals)];
        batch.launch(&self.scale_fitted, &held.params, &buffers, samples(params))
    }

    /// Adds `n_parts` sums of each row, into a slot of its totals.
    fn add(
        &self,
        batch: &mut Batch<'_>,
        held: &Held,
        [n_parts, slot]: [u32; 2],
        n_rows: u32,
    ) -> Result<()> {
        let params = FitParams {
            n_parts,
            slot,
            ..held.params
        };
        let buffers = [(8, &held.parts), (9, &held.totals)];
        batch.launch(&self.add_parts, &params, &buffers, [n_rows, 1, 1])
    }
}
