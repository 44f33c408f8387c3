//! Transforms of the Fourier method on the GPU: parameters, CPU twins, launches.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::Grid;
use super::backproject::spans;
use super::fourier::deapodise;
pub use super::radix::LOCAL;
use super::radix::{
    Complex, Direction, conjugate, decimate_in_frequency, for_workgroups, twiddles,
};
use crate::error::Result;
use crate::gpu::{Batch, Gpu, Kernel};

/// The shader.
pub const SOURCE: &str = include_str!("../../shaders/fourier_transform.wgsl");
/// Parameters of all entry points.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct FourierTransformParams {
    /// Length of a line, a power of two, at least 4.
    pub n: u32,
    /// Its logarithm.
    pub log2_n: u32,
    /// Elements that a workgroup transforms.
    pub n_local: u32,
    /// Size of the blocks that a global pass splits.
    pub block: u32,
    /// Lines of a row of the detector.
    pub n_lines: u32,
    /// Length of the grid along u.
    pub n_u: u32,
    /// First column of the band.
    pub u_first: u32,
    /// Columns of a slice.
    pub n_x: u32,
    /// Rows of a slice.
    pub n_y: u32,
    /// First row of the slice in this band, even.
    pub y_first: u32,
    /// Rows of the slice in this band.
    pub y_band: u32,
    /// Slices wanted.
    pub n_slices: u32,
}

impl FourierTransformParams {
    /// For transforms of length `n`, `n_lines` for each row of the detector, and rows `y` of slices of `grid`.
    #[must_use]
    pub fn new(
        n: usize,
        local: usize,
        n_lines: usize,
        n_u: usize,
        grid: &Grid,
        y: &Range<usize>,
        n_slices: usize,
    ) -> Self {
        FourierTransformParams {
            n: n as u32,
            log2_n: n.ilog2(),
            n_local: n.min(local) as u32,
            block: 0,
            n_lines: n_lines as u32,
            n_u: n_u as u32,
            u_first: 0,
            n_x: grid.n_x as u32,
            n_y: grid.n_y as u32,
            y_first: y.start as u32,
            y_band: y.len() as u32,
            n_slices: n_slices as u32,
        }
    }

    fn reversed(&self, index: usize) -> usize {
        ((index as u32).reverse_bits() >> (32 - self.log2_n)) as usize
    }
}

/// Twin of `transform_global` and `transform_local`: the inverse transform of every line, bit-reversed.
///
/// # Panics
/// When `lines` is no whole number of lines.
pub fn transform_cpu(params: &FourierTransformParams, twiddles: &[Complex], lines: &mut [Complex]) {
    let n_local = params.n_local as usize;
    for line in lines.chunks_exact_mut(params.n as usize) {
        decimate_in_frequency(Direction::Inverse, n_local, twiddles, line);
    }
}

/// Twin of `keep_rows`: what the transforms along v left for the rows of a slice, `[row, y - y_first, n_u / 2 + 1]`.
///
/// # Panics
/// When a slice is too short.
pub fn keep_rows_cpu(params: &FourierTransformParams, lines: &[Complex], kept: &mut [Complex]) {
    let (n, n_lines) = (params.n as usize, params.n_lines as usize);
    let n_columns = params.n_u as usize / 2 + 1;
    for row in 0..lines.len() / (n * n_lines) {
        for y in 0..params.y_band as usize {
            for column in 0..n_lines {
                let u = params.u_first as usize + column;
                let v = (params.y_first as usize + y + n - params.n_y as usize / 2) % n;
                if u < n_columns {
                    kept[(row * params.y_band as usize + y) * n_columns + u] =
                        lines[(row * n_lines + column) * n + params.reversed(v)];
                }
            }
        }
    }
}

/// Twin of `pair_rows`: two rows of a slice as one complex line of length n_u.
///
/// # Panics
/// When a slice is too short.
pub fn pair_rows_cpu(params: &FourierTransformParams, kept: &[Complex], lines: &mut [Complex]) {
    let (n, n_lines) = (params.n as usize, params.n_lines as usize);
    let (half, y_band) = (params.n_u as usize / 2, params.y_band as usize);
    let completed = |row: usize, y: usize, u: usize| -> Complex {
        if y >= y_band {
            return [0.0; 2];
        }
        let first = (row * y_band + y) * (half + 1);
        match u {
            _ if u == 0 || u == half => [kept[first + u][0], 0.0],
            _ if u < half => kept[first + u],
            _ => conjugate(kept[first + 2 * half - u]),
        }
    };
    for row in 0..lines.len() / (n * n_lines) {
        for pair in 0..n_lines {
            for u in 0..n {
                let (a, b) = (completed(row, 2 * pair, u), completed(row, 2 * pair + 1, u));
                lines[(row * n_lines + pair) * n + u] = [a[0] - b[1], a[1] + b[0]];
            }
        }
    }
}

/// Twin of `write_slices`: `volume` `[slice, y - y_first, x]`, 0 outside the mask.
///
/// # Panics
/// When a slice is too short.
pub fn write_slices_cpu(
    params: &FourierTransformParams,
    lines: &[Complex],
    deapodise: &[f32],
    spans: &[[u32; 2]],
    volume: &mut [f32],
) {
    let (n, n_x) = (params.n as usize, params.n_x as usize);
    for slice in 0..params.n_slices as usize {
        for band_y in 0..params.y_band as usize {
            let y = params.y_first as usize + band_y;
            for x in 0..n_x {
                let mut value = 0.0;
                if (spans[y][0] as usize..spans[y][1] as usize).contains(&x) {
                    let u = (x + n - n_x / 2) % n;
                    let line = slice * params.n_lines as usize + band_y / 2;
                    let both = lines[line * n + params.reversed(u)];
                    value = both[band_y % 2] * deapodise[x] * deapodise[n_x + y];
                }
                volume[(slice * params.y_band as usize + band_y) * n_x + x] = value;
            }
        }
    }
}

/// What the window leaves to divide out, `[n_x]` along x and then `[n_y]` along y.
#[must_use]
pub fn deapodise_table(grid: &Grid, n_u: usize, n_v: usize) -> Vec<f32> {
    let mut table = deapodise(grid.n_x, n_u, false);
    table.extend(deapodise(grid.n_y, n_v, false));
    table
}

/// The kernels with what is the same for all rows.
pub struct FourierTransform {
    /// Elements that a workgroup transforms.
    pub local: usize,
    twiddles_u: wgpu::Buffer,
    twiddles_v: wgpu::Buffer,
    deapodise: wgpu::Buffer,
    spans: wgpu::Buffer,
    transform_global: Kernel,
    transform_local: Kernel,
    keep_rows: Kernel,
    pair_rows: Kernel,
    write_slices: Kernel,
}

/// Along which axis of the grid lines run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Along {
    /// Columns of the slice.
    U,
    /// Rows of the slice.
    V,
}

impl FourierTransform {
    /// Compiles the kernels; `local` is [`LOCAL`] or less, a power of two, and cut to the workgroup memory of the GPU.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] when the driver refuses a kernel.
    pub fn new(
        gpu: &Gpu,
        grid: &Grid,
        mask_radius_px: Option<f64>,
        (n_u, n_v): (usize, usize),
        local: usize,
    ) -> Result<Self> {
        let (local, source) = for_workgroups(gpu, SOURCE, local);
        let kernel = |entry| Kernel::new(gpu, &source, entry);
        Ok(FourierTransform {
            local,
            twiddles_u: gpu.storage_from("twiddles u", &twiddles(n_u))?,
            twiddles_v: gpu.storage_from("twiddles v", &twiddles(n_v))?,
            deapodise: gpu.storage_from("deapodise", &deapodise_table(grid, n_u, n_v))?,
            spans: gpu.storage_from("spans", &spans(grid, mask_radius_px))?,
            transform_global: kernel("transform_global")?,
            transform_local: kernel("transform_local")?,
            keep_rows: kernel("keep_rows")?,
            pair_rows: kernel("pair_rows")?,
            write_slices: kernel("write_slices")?,
        })
    }

    /// Transforms `params.n_lines` lines of each of `rows` detector rows in place.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn transform(
        &self,
        batch: &mut Batch<'_>,
        params: &FourierTransformParams,
        along: Along,
        rows: u32,
        lines: &wgpu::Buffer,
    ) -> Result<()> {
        let twiddles = match along {
            Along::U => &self.twiddles_u,
            Along::V => &self.twiddles_v,
        };
        let bindings = [(1, twiddles), (2, lines)];
        let mut block = params.n;
        while block > params.n_local {
            let pass = FourierTransformParams { block, ..*params };
            let groups = [(params.n / 2).div_ceil(256), params.n_lines, rows];
            batch.launch(&self.transform_global, &pass, &bindings, groups)?;
            block /= 2;
        }
        let groups = [params.n / params.n_local, params.n_lines, rows];
        batch.launch(&self.transform_local, params, &bindings, groups)
    }

    /// From the transformed columns of a band to the rows of the slice.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn keep_rows(
        &self,
        batch: &mut Batch<'_>,
        params: &FourierTransformParams,
        rows: u32,
        cells: &wgpu::Buffer,
        kept: &wgpu::Buffer,
    ) -> Result<()> {
        let groups = [params.n_lines.div_ceil(256), params.y_band, rows];
        batch.launch(&self.keep_rows, params, &[(2, cells), (3, kept)], groups)
    }

    /// From the rows of the slice to lines along u.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn pair_rows(
        &self,
        batch: &mut Batch<'_>,
        params: &FourierTransformParams,
        rows: u32,
        kept: &wgpu::Buffer,
        lines: &wgpu::Buffer,
    ) -> Result<()> {
        let groups = [params.n.div_ceil(256), params.n_lines, rows];
        batch.launch(&self.pair_rows, params, &[(2, lines), (3, kept)], groups)
    }

    /// From the transformed lines along u to `volume` `[slice, y - y_first, x]`.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn write_slices(
        &self,
        batch: &mut Batch<'_>,
        params: &FourierTransformParams,
        lines: &wgpu::Buffer,
        volume: &wgpu::Buffer,
    ) -> Result<()> {
        batch.launch(
            &self.write_slices,
            params,
            &[
                (2, lines),
                (4, &self.deapodise),
                (5, &self.spans),
                (6, volume),
            ],
            [params.n_x.div_ceil(256), params.y_band, params.n_slices],
        )
    }
}

#[cfg(test)]
mod tests;
