//! Gridding of the Fourier method on the GPU: parameters, CPU twin, launch. The mathematics is that of `super::fourier`.

mod branches;

use std::f64::consts::PI;

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::SliceJob;
use super::filter::FilterPlan;
use super::fourier::gridding::window;
use super::fourier::{gain, middle};
use super::radix::{Complex, multiply};
use crate::error::Result;
use crate::gpu::{Batch, Gpu, Kernel};
pub use branches::{Branches, list_branches};

/// The shader.
pub const SOURCE: &str = include_str!("../../shaders/fourier_grid.wgsl");
/// Cells of a tile along each axis.
pub const TILE: usize = 16;
/// Steps of the table of the window within a cell.
pub const STEPS: usize = 512;
/// Cells that a sample reaches to either side.
pub const REACH: usize = 3;

/// Parameters of both entry points.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct FourierGridParams {
    /// Detector rows, a multiple of 4.
    pub n_rows: u32,
    /// Angles of this block.
    pub n_angles: u32,
    /// Half of them, rounded up.
    pub n_pairs: u32,
    /// Length of the extended row, a power of two.
    pub n_fft: u32,
    /// Its logarithm.
    pub log2_n_fft: u32,
    /// Length of the grid along u, a power of two from 32.
    pub n_u: u32,
    /// Length of the grid along v, a power of two from 32.
    pub n_v: u32,
    /// First column of the band, a multiple of [`TILE`].
    pub u_first: u32,
    /// Columns in the cells, a multiple of [`TILE`].
    pub u_band: u32,
    /// 1: nothing was added yet.
    pub start: u32,
    /// Fills up the last 16 bytes.
    pub unused_0: u32,
    /// Fills up the last 16 bytes.
    pub unused_1: u32,
}

/// Cells from one sample of a line to the next: whole cells and 2^-32 parts. u grows along the line.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Line {
    /// Along u.
    pub along_u: [u32; 2],
    /// Along v, its absolute value.
    pub along_v: [u32; 2],
    /// 1: v falls along the line.
    pub up: u32,
    /// 1: the line was turned by half a turn, its samples are conjugated.
    pub mirrored: u32,
}

/// Length of the transform for `n` voxels: the power of two that is twice `n` or more, at least two tiles.
#[must_use]
pub fn grid_length(n: usize) -> usize {
    (2 * n).next_power_of_two().max(2 * TILE)
}

/// The line of each projection through the spectrum of a grid of `n_u` x `n_v` cells.
#[must_use]
pub fn lines(job: &SliceJob, plan: &FilterPlan, n_u: usize, n_v: usize) -> Vec<Line> {
    let per_bin = job.grid.step / plan.n_fft as f64;
    let fixed = |step: f64| {
        let parts = (step.abs() * 2.0_f64.powi(32)).round() as u64;
        [(parts >> 32) as u32, parts as u32]
    };
    job.rays
        .iter()
        .map(|ray| {
            // row j of a slice grows downwards, y upwards
            let (u, v) = (
                ray.cos * per_bin * n_u as f64,
                -ray.sin * per_bin * n_v as f64,
            );
            let mirrored = u < 0.0;
            Line {
                along_u: fixed(u),
                along_v: fixed(v),
                up: u32::from(if mirrored { -v } else { v } < 0.0),
                mirrored: u32::from(mirrored),
            }
        })
        .collect()
}

/// Filter and phase of a row with this axis, `[n_fft / 2 + 1]`, from f64.
#[must_use]
pub fn row_phase(plan: &FilterPlan, axis_px: f64) -> Vec<Complex> {
    turned(axis_px, &gain(plan), plan.n_fft)
}

/// Phase of each projection counted from the voxel in the middle, `[angle, n_fft / 2 + 1]`, from f64.
#[must_use]
pub fn angle_phase(
    job: &SliceJob,
    plan: &FilterPlan,
    angles: std::ops::Range<usize>,
) -> Vec<Complex> {
    let (x, y) = middle(&job.grid);
    let ones = vec![1.0; plan.n_fft / 2 + 1];
    job.rays[angles]
        .par_iter()
        .flat_map_iter(|ray| {
            let place = ray.offset_px + x * ray.cos + y * ray.sin + plan.n_left as f64;
            turned(place, &ones, plan.n_fft)
        })
        .collect()
}

/// gain\[k\] exp(2 pi i k place / n_fft).
fn turned(place_px: f64, gain: &[f32], n_fft: usize) -> Vec<Complex> {
    let turns_per_bin = place_px / n_fft as f64;
    gain.iter()
        .enumerate()
        .map(|(k, &gain)| {
            // whole turns are taken out first: the phase stays exact for long rows
            let (sin, cos) = (2.0 * PI * (k as f64 * turns_per_bin).fract()).sin_cos();
            [
                (f64::from(gain) * cos) as f32,
                (f64::from(gain) * sin) as f32,
            ]
        })
        .collect()
}

/// The Kaiser-Bessel window from its middle to the third cell in [`STEPS`] steps per cell, then a zero.
#[must_use]
pub fn window_table() -> Vec<f32> {
    (0..=REACH * STEPS + 1)
        .map(|step| {
            if step <= REACH * STEPS {
                window(step as f64 / STEPS as f64) as f32
            } else {
                0.0
            }
        })
        .collect()
}

impl FourierGridParams {
    /// For `n_groups` of four detector rows, a block of `n_angles` and a band of columns.
    #[must_use]
    pub fn new(
        plan: &FilterPlan,
        grid: (usize, usize),
        n_groups: usize,
        n_angles: usize,
        u_band: usize,
    ) -> Self {
        FourierGridParams {
            n_rows: 4 * n_groups as u32,
            n_angles: n_angles as u32,
            n_pairs: n_angles.div_ceil(2) as u32,
            n_fft: plan.n_fft as u32,
            log2_n_fft: plan.n_fft.ilog2(),
            n_u: grid.0 as u32,
            n_v: grid.1 as u32,
            u_first: 0,
            u_band: u_band as u32,
            start: 1,
            unused_0: 0,
            unused_1: 0,
        }
    }

    fn n_k(&self) -> usize {
        self.n_fft as usize / 2 + 1
    }

    /// Elements of `samples` (vec4) and of `cells` (complex).
    #[must_use]
    pub fn lens(&self) -> (usize, usize) {
        let groups = self.n_rows as usize / 4;
        (
            2 * groups * self.n_angles as usize * self.n_k(),
            self.n_rows as usize * self.u_band as usize * self.n_v as usize,
        )
    }
}

/// Twin of `spectra`: samples `[group, angle, k]` of real and imaginary parts from the bit-reversed transforms of pairs.
///
/// # Panics
/// When a slice is too short.
pub fn spectra_cpu(
    params: &FourierGridParams,
    spectrum: &[Complex],
    row_phase: &[Complex],
    angle_phase: &[Complex],
    geometry: &[Line],
    samples: &mut [[f32; 4]],
) {
    let (n_fft, n_k) = (params.n_fft as usize, params.n_k());
    let reversed = |k: usize| ((k as u32).reverse_bits() >> (32 - params.log2_n_fft)) as usize;
    for row in 0..params.n_rows as usize {
        for pair in 0..params.n_pairs as usize {
            let line = &spectrum[(row * params.n_pairs as usize + pair) * n_fft..][..n_fft];
            for k in 0..n_k {
                let (z, w) = (line[reversed(k)], line[reversed((n_fft - k) % n_fft)]);
                let turn = row_phase[row * n_k + k];
                let a = multiply([0.5 * (z[0] + w[0]), 0.5 * (z[1] - w[1])], turn);
                let b = multiply([0.5 * (z[1] + w[1]), 0.5 * (w[0] - z[0])], turn);
                for (angle, value) in [(2 * pair, a), (2 * pair + 1, b)] {
                    if angle >= params.n_angles as usize {
                        continue;
                    }
                    let [re, im] = multiply(value, angle_phase[angle * n_k + k]);
                    let at = 2 * ((row / 4 * params.n_angles as usize + angle) * n_k + k);
                    samples[at][row % 4] = re;
                    let conjugated = geometry[angle].mirrored == 1;
                    samples[at + 1][row % 4] = if conjugated { -im } else { im };
                }
            }
        }
    }
}

/// A branch near a tile.
struct Near {
    place: [f32; 2],
    step: [f32; 2],
    sample: usize,
    count: i32,
    negative: bool,
    along_u: bool,
}

fn place(along: [u32; 2], k: u32, backwards: bool, shift: i32) -> f32 {
    let low = k.wrapping_mul(along[1] & 0xffff);
    let high = k.wrapping_mul(along[1] >> 16).wrapping_add(low >> 16);
    let whole = k.wrapping_mul(along[0]).wrapping_add(high >> 16) as i32;
    let rest = ((high << 16) | (low & 0xffff)) as f32 * 2.0_f32.powi(-32);
    if backwards {
        (shift - whole) as f32 - rest
    } else {
        (shift + whole) as f32 + rest
    }
}

fn near(step: f32, shift: i32, last: f32) -> [f32; 2] {
    if step == 0.0 {
        return [0.0, last];
    }
    let (a, b) = ((-3.0 - shift as f32) / step, (18.0 - shift as f32) / step);
    [
        (a.min(b).floor() - 1.0).clamp(0.0, last + 1.0),
        (a.max(b).ceil() + 1.0).clamp(-1.0, last),
    ]
}

fn set_branch(params: &FourierGridParams, geometry: &[Line], branch: u32, u: i32, v: i32) -> Near {
    let angle = (branch & 0xff_ffff) as usize;
    let line = &geometry[angle];
    let negative = (branch >> 24) & 1;
    let shift_u = (((branch >> 25) & 1) * params.n_u) as i32 - u;
    let shift_v = (((branch >> 26) & 1) * params.n_v) as i32 - v;
    let back_v = line.up != negative;
    let step = |along: [u32; 2], back: bool| {
        let size = along[0] as f32 + along[1] as f32 * 2.0_f32.powi(-32);
        if back { -size } else { size }
    };
    let steps = [
        step(line.along_u, negative == 1),
        step(line.along_v, back_v),
    ];
    let last = (params.n_fft / 2) as f32;
    let (by_u, by_v) = (near(steps[0], shift_u, last), near(steps[1], shift_v, last));
    let first = by_u[0].max(by_v[0]) as u32;
    Near {
        place: [
            place(line.along_u, first, negative == 1, shift_u),
            place(line.along_v, first, back_v, shift_v),
        ],
        step: steps,
        sample: angle * params.n_k() + first as usize,
        count: (by_u[1].min(by_v[1]) as i32 - first as i32 + 1).max(0),
        negative: negative == 1,
        along_u: steps[0].abs() >= steps[1].abs(),
    }
}

fn weight(table: &[f32], distance: f32) -> f32 {
    let at = distance * STEPS as f32;
    let step = at as usize;
    (at - step as f32).mul_add(table[step + 1] - table[step], table[step])
}

/// Twin of `gather_cells`: adds a block of samples to the cells `[row, u - u_first, v]` of a band.
///
/// # Panics
/// When a slice is too short.
pub fn gather_cells_cpu(
    params: &FourierGridParams,
    geometry: &[Line],
    branches: &Branches,
    window: &[f32],
    samples: &[[f32; 4]],
    cells: &mut [Complex],
) {
    let (n_v, u_band) = (params.n_v as usize, params.u_band as usize);
    let n_samples = params.n_angles as usize * params.n_k();
    for tile_u in 0..u_band / TILE {
        for tile_v in 0..n_v / TILE {
            let u = params.u_first as usize + TILE * tile_u;
            let index = u / TILE * (n_v / TILE) + tile_v;
            let Some(list) = branches.of_tile(index) else {
                continue;
            };
            let near: Vec<Near> = list
                .iter()
                .map(|&branch| {
                    set_branch(params, geometry, branch, u as i32, (TILE * tile_v) as i32)
                })
                .collect();
            for group in 0..params.n_rows as usize / 4 {
                for cell in 0..TILE * TILE {
                    let (u_in, v_in) = (cell / TILE, cell % TILE);
                    let at = (TILE * tile_u + u_in) * n_v + TILE * tile_v + v_in;
                    let cell_of = |lane: usize| (4 * group + lane) * u_band * n_v + at;
                    let mut sum: [Complex; 4] = std::array::from_fn(|lane| match params.start {
                        0 => cells[cell_of(lane)],
                        _ => [0.0; 2],
                    });
                    for near in &near {
                        let [u_0, v_0] = [near.place[0] - u_in as f32, near.place[1] - v_in as f32];
                        let (along, across, step, other) = if near.along_u {
                            (u_0, v_0, near.step[0], near.step[1])
                        } else {
                            (v_0, u_0, near.step[1], near.step[0])
                        };
                        let inverse = 1.0 / step;
                        let middle = -along * inverse;
                        if middle.mul_add(other, across).abs() >= 6.0 {
                            continue;
                        }
                        let reach = 3.0 * inverse.abs();
                        let from = ((middle - reach).ceil() as i32).max(0);
                        let to = ((middle + reach).floor() as i32).min(near.count - 1);
                        for j in from..=to {
                            let du = (j as f32).mul_add(near.step[0], u_0).abs();
                            let dv = (j as f32).mul_add(near.step[1], v_0).abs();
                            if du < 3.0 && dv < 3.0 {
                                let both = weight(window, du) * weight(window, dv);
                                let sample = 2 * (group * n_samples + near.sample + j as usize);
                                let signed = if near.negative { -both } else { both };
                                for (lane, sum) in sum.iter_mut().enumerate() {
                                    sum[0] = both.mul_add(samples[sample][lane], sum[0]);
                                    sum[1] = signed.mul_add(samples[sample + 1][lane], sum[1]);
                                }
                            }
                        }
                    }
                    for (lane, sum) in sum.iter().enumerate() {
                        cells[cell_of(lane)] = *sum;
                    }
                }
            }
        }
    }
}

/// What is the same for all rows of a block of angles.
pub struct BlockGeometry {
    geometry: wgpu::Buffer,
    angle_phase: wgpu::Buffer,
    tiles: wgpu::Buffer,
    branches: wgpu::Buffer,
    /// `[group, angle, k]`
    pub samples: wgpu::Buffer,
}

impl BlockGeometry {
    /// # Errors
    /// [`crate::Error::Gpu`] beyond a limit or when memory runs out.
    pub fn new(
        gpu: &Gpu,
        job: &SliceJob,
        plan: &FilterPlan,
        params: &FourierGridParams,
        angles: std::ops::Range<usize>,
    ) -> Result<Self> {
        let (n_u, n_v) = (params.n_u as usize, params.n_v as usize);
        let geometry = lines(job, plan, n_u, n_v)[angles.clone()].to_vec();
        let branches = list_branches(&geometry, plan.n_fft / 2, n_u, n_v);
        Ok(BlockGeometry {
            angle_phase: gpu.storage_from("angle phase", &angle_phase(job, plan, angles))?,
            tiles: gpu.storage_from("tiles", branches.tiles())?,
            branches: gpu.storage_from("branches", branches.all())?,
            geometry: gpu.storage_from("lines", &geometry)?,
            samples: gpu.storage::<[f32; 4]>("samples", params.lens().0)?,
        })
    }
}

impl BlockGeometry {
    /// Bytes taken on the GPU.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        [
            &self.geometry,
            &self.angle_phase,
            &self.tiles,
            &self.branches,
            &self.samples,
        ]
        .map(wgpu::Buffer::size)
        .iter()
        .sum()
    }
}

/// The kernels.
pub struct FourierGrid {
    spectra: Kernel,
    gather_cells: Kernel,
    window: wgpu::Buffer,
}

impl FourierGrid {
    /// Compiles them.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] when the driver refuses a kernel.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        Ok(FourierGrid {
            spectra: Kernel::new(gpu, SOURCE, "spectra")?,
            gather_cells: Kernel::new(gpu, SOURCE, "gather_cells")?,
            window: gpu.storage_from("window", &window_table())?,
        })
    }

    /// From the transforms of pairs to the samples of `block`.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn spectra(
        &self,
        batch: &mut Batch<'_>,
        params: &FourierGridParams,
        spectrum: &wgpu::Buffer,
        row_phase: &wgpu::Buffer,
        block: &BlockGeometry,
    ) -> Result<()> {
        batch.launch(
            &self.spectra,
            params,
            &[
                (1, spectrum),
                (2, row_phase),
                (3, &block.angle_phase),
                (4, &block.geometry),
                (8, &block.samples),
            ],
            [
                (params.n_fft / 2 + 1).div_ceil(256),
                params.n_pairs,
                params.n_rows / 4,
            ],
        )
    }

    /// Adds the samples of `block` to the columns of a band in `cells`.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn gather(
        &self,
        batch: &mut Batch<'_>,
        params: &FourierGridParams,
        columns: u32,
        block: &BlockGeometry,
        cells: &wgpu::Buffer,
    ) -> Result<()> {
        batch.launch(
            &self.gather_cells,
            params,
            &[
                (4, &block.geometry),
                (5, &block.tiles),
                (6, &block.branches),
                (7, &self.window),
                (8, &block.samples),
                (9, cells),
            ],
            [
                params.n_v / TILE as u32,
                columns.div_ceil(TILE as u32),
                params.n_rows / 4,
            ],
        )
    }
}

#[cfg(test)]
mod tests;
