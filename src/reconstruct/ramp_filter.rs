//! The ramp filter on the GPU: parameters, CPU twin, launch. The plan behind both is [`super::filter`].

use std::f64::consts::PI;

use bytemuck::{Pod, Zeroable};

use super::filter::{FilterPlan, View};
use super::radix::{
    Complex, Direction, add, conjugate, decimate_in_frequency, for_workgroups, multiply, subtract,
};
pub use super::radix::{LOCAL, twiddles};
use super::support::share;
use crate::error::Result;
use crate::gpu::{Batch, Gpu, Kernel};

/// The shader.
pub const SOURCE: &str = include_str!("../../shaders/ramp_filter.wgsl");
/// Parameters of all entry points.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct RampFilterParams {
    /// Detector rows, a multiple of 4.
    pub n_rows: u32,
    /// Angles of this block.
    pub n_angles: u32,
    /// Half of them, rounded up.
    pub n_pairs: u32,
    /// Detector columns.
    pub n_cols: u32,
    /// Length of the extended row, a power of two, at least 4.
    pub n_fft: u32,
    /// Its logarithm.
    pub log2_n_fft: u32,
    /// Elements that a workgroup transforms.
    pub n_local: u32,
    /// Index of column 0 in the extended row.
    pub n_left: u32,
    /// Samples per pixel of the filtered row.
    pub upsample: u32,
    /// Samples kept.
    pub n_out: u32,
    /// Samples stored: a zero before, two or more behind.
    pub row_stride: u32,
    /// Size of the blocks that a global pass splits or joins.
    pub block: u32,
}

impl RampFilterParams {
    /// For `n_groups` of four detector rows and a block of `n_angles`.
    #[must_use]
    pub fn new(plan: &FilterPlan, n_groups: usize, n_angles: usize, local: usize) -> Self {
        RampFilterParams {
            n_rows: 4 * n_groups as u32,
            n_angles: n_angles as u32,
            n_pairs: n_angles.div_ceil(2) as u32,
            n_cols: plan.n_cols as u32,
            n_fft: plan.n_fft as u32,
            log2_n_fft: plan.n_fft.ilog2(),
            n_local: plan.n_fft.min(local) as u32,
            n_left: plan.n_left as u32,
            upsample: plan.upsample as u32,
            n_out: plan.n_out as u32,
            row_stride: plan.row_stride() as u32,
            block: 0,
        }
    }

    /// Elements of each buffer, in the order of the bindings.
    #[must_use]
    pub fn lens(&self) -> RampFilterLens {
        let (rows, angles, pairs) = (
            self.n_rows as usize,
            self.n_angles as usize,
            self.n_pairs as usize,
        );
        let (n_fft, upsample) = (self.n_fft as usize, self.upsample as usize);
        RampFilterLens {
            line_integrals: rows * angles * self.n_cols as usize,
            multiplier: rows * upsample * (n_fft / 2 + 1),
            lines: rows * pairs * n_fft,
            fine_lines: rows * upsample * pairs * n_fft,
            filtered: rows / 4 * angles * self.row_stride as usize,
        }
    }
}

/// Bytes that the kernels read and write for a block: what a memory bandwidth is compared with.
#[must_use]
pub fn traffic_bytes(params: &RampFilterParams) -> u64 {
    let lens = params.lens();
    let (lines, fine_lines) = (8 * lens.lines as u64, 8 * lens.fine_lines as u64);
    let passes = u64::from((params.n_fft / params.n_local).ilog2());
    let extend = 4 * lens.line_integrals as u64 + lines;
    let forward = 2 * lines * (passes + 1);
    let inverse = u64::from(params.upsample) * lines + fine_lines * (2 * passes + 1);
    // two samples of a pair are read as one complex number, four rows are written as one vec4
    let gather = 2 * 16 * lens.filtered as u64;
    extend + forward + inverse + gather
}

/// Elements of the buffers of a block; see the shader for their shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RampFilterLens {
    /// f32
    pub line_integrals: usize,
    /// complex
    pub multiplier: usize,
    /// complex
    pub lines: usize,
    /// complex
    pub fine_lines: usize,
    /// vec4
    pub filtered: usize,
}

impl RampFilterLens {
    /// Bytes of the largest buffer, and of all.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let all = [
            4 * self.line_integrals as u64,
            8 * self.multiplier as u64,
            8 * self.lines as u64,
            8 * self.fine_lines as u64,
            16 * self.filtered as u64,
        ];
        (all.into_iter().max().unwrap_or(0), all.iter().sum())
    }
}

/// What the spectrum of a row with this axis is multiplied by, `[phase, n_fft / 2 + 1]`, from f64.
///
/// Phase p gives the samples p, p + upsample, ...: its spectrum is turned by another p / upsample pixels. The Nyquist
/// sample stands for k and -k at once, so its factor is the mean of both, which is real.
#[must_use]
pub fn multipliers(plan: &FilterPlan, axis_px: f64) -> Vec<[f32; 2]> {
    let (n_fft, half) = (plan.n_fft as f64, plan.n_fft / 2);
    let nyquist = if plan.upsample > 1 { 2.0 } else { 1.0 } * f64::from(plan.response[half]);
    let mut all = Vec::with_capacity(plan.upsample * (half + 1));
    for phase in 0..plan.upsample {
        let shift_px = plan.phase_px(axis_px) + phase as f64 / plan.upsample as f64;
        all.extend((0..half).map(|k| {
            // whole turns are taken out first: the phase stays exact for long rows
            let (sin, cos) = (2.0 * PI * (k as f64 * (shift_px / n_fft)).fract()).sin_cos();
            let gain = f64::from(plan.response[k]);
            [(gain * cos) as f32, (gain * sin) as f32]
        }));
        all.push([
            (nyquist * (PI * shift_px.rem_euclid(2.0)).cos()) as f32,
            0.0,
        ]);
    }
    all
}

/// Twin of the shader: filtered rows `[row / 4, angle, sample]` of line integrals `[row, angle, col]`.
///
/// `views` `[angle]`, `roll_off` `[2, n_fft - n_cols]`, `multiplier` `[row, phase, n_fft / 2 + 1]`. Every element of
/// `filtered` is written.
///
/// # Panics
/// When a slice is shorter than [`RampFilterParams::lens`] says.
pub fn ramp_filter_cpu(
    params: &RampFilterParams,
    line_integrals: &[f32],
    views: &[View],
    roll_off: &[f32],
    multiplier: &[Complex],
    filtered: &mut [[f32; 4]],
) {
    let twiddles = twiddles(params.n_fft as usize);
    let (n_fft, upsample) = (params.n_fft as usize, params.upsample as usize);
    let mut line = vec![[f32::NAN; 2]; n_fft];
    let mut fine_line = vec![[f32::NAN; 2]; n_fft];
    for row in 0..params.n_rows as usize {
        for pair in 0..params.n_pairs as usize {
            for (index, value) in line.iter_mut().enumerate() {
                let re = extended(
                    params,
                    line_integrals,
                    views,
                    roll_off,
                    row,
                    2 * pair,
                    index,
                );
                let im = extended(
                    params,
                    line_integrals,
                    views,
                    roll_off,
                    row,
                    2 * pair + 1,
                    index,
                );
                *value = [re, im];
            }
            let n_local = params.n_local as usize;
            decimate_in_frequency(Direction::Forward, n_local, &twiddles, &mut line);
            for phase in 0..upsample {
                let half_spectrum = (row * upsample + phase) * (n_fft / 2 + 1);
                for (index, value) in fine_line.iter_mut().enumerate() {
                    let k = ((index as u32).reverse_bits() >> (32 - params.log2_n_fft)) as usize;
                    let gain = if k <= n_fft / 2 {
                        multiplier[half_spectrum + k]
                    } else {
                        conjugate(multiplier[half_spectrum + n_fft - k])
                    };
                    *value = multiply(line[index], gain);
                }
                inverse_cpu(params, &twiddles, &mut fine_line);
                gather_cpu(params, &fine_line, row, pair, phase, filtered);
            }
        }
    }
}

fn extended(
    params: &RampFilterParams,
    line_integrals: &[f32],
    views: &[View],
    roll_off: &[f32],
    row: usize,
    angle: usize,
    index: usize,
) -> f32 {
    let (n_angles, n_cols, n_fft) = (
        params.n_angles as usize,
        params.n_cols as usize,
        params.n_fft as usize,
    );
    if angle >= n_angles {
        return 0.0;
    }
    let first = (row * n_angles + angle) * n_cols;
    let column = (index + n_fft - params.n_left as usize) % n_fft;
    if column < n_cols {
        return line_integrals[first + column] * views[angle].weight;
    }
    let view = &views[angle];
    let left = line_integrals[first];
    let right = line_integrals[first + n_cols - 1];
    // samples behind the last column, and before the first one
    let (behind, before) = (column - n_cols, n_fft - 1 - column);
    let (on_right, on_left) = if view.radius > 0.0 {
        (
            share(view.radius, view.seen_right, (behind + 1) as f32),
            share(view.radius, view.seen_left, (before + 1) as f32),
        )
    } else {
        (roll_off[behind], roll_off[n_fft - n_cols + before])
    };
    (right * on_right + left * on_left) * view.weight
}

fn inverse_cpu(params: &RampFilterParams, twiddles: &[Complex], line: &mut [Complex]) {
    let (n_fft, n_local) = (params.n_fft as usize, params.n_local as usize);
    let mut block = 4;
    while block <= n_local {
        let quarter = block / 4;
        let step = n_fft / block;
        for first in (0..n_fft).step_by(block) {
            for j in 0..quarter {
                let at = first + j;
                let c0 = line[at];
                let c1 = multiply(line[at + quarter], conjugate(twiddles[2 * j * step]));
                let c2 = multiply(line[at + 2 * quarter], conjugate(twiddles[j * step]));
                let c3 = multiply(line[at + 3 * quarter], conjugate(twiddles[3 * j * step]));
                let (even, odd) = (add(c0, c1), subtract(c0, c1));
                let s23 = add(c2, c3);
                let d23 = [c3[1] - c2[1], c2[0] - c3[0]]; // i (c2 - c3)
                line[at] = add(even, s23);
                line[at + quarter] = add(odd, d23);
                line[at + 2 * quarter] = subtract(even, s23);
                line[at + 3 * quarter] = subtract(odd, d23);
            }
        }
        block *= 4;
    }
    let mut block = if n_local.ilog2() % 2 == 1 {
        n_local
    } else {
        2 * n_local
    };
    while block <= n_fft {
        let half = block / 2;
        for first in (0..n_fft).step_by(block) {
            for j in 0..half {
                let a = line[first + j];
                let b = multiply(
                    line[first + j + half],
                    conjugate(twiddles[j * (n_fft / block)]),
                );
                line[first + j] = add(a, b);
                line[first + j + half] = subtract(a, b);
            }
        }
        block *= 2;
    }
}

fn gather_cpu(
    params: &RampFilterParams,
    fine_line: &[Complex],
    row: usize,
    pair: usize,
    phase: usize,
    filtered: &mut [[f32; 4]],
) {
    let (n_out, stride, upsample) = (
        params.n_out as usize,
        params.row_stride as usize,
        params.upsample as usize,
    );
    for (part, angle) in [2 * pair, 2 * pair + 1].into_iter().enumerate() {
        if angle >= params.n_angles as usize {
            continue;
        }
        let stored =
            &mut filtered[(row / 4 * params.n_angles as usize + angle) * stride..][..stride];
        stored[0][row % 4] = 0.0;
        for outside in &mut stored[n_out + 1..] {
            outside[row % 4] = 0.0;
        }
        for m in (phase..n_out).step_by(upsample) {
            stored[m + 1][row % 4] = fine_line[m / upsample][part];
        }
    }
}

/// Buffers of a block.
pub struct RampFilterBuffers {
    /// In, `[row, angle, col]`.
    pub line_integrals: wgpu::Buffer,
    /// In, `[row, phase, n_fft / 2 + 1]`.
    pub multiplier: wgpu::Buffer,
    /// Spectra of pairs of rows `[row, pair, n_fft]`.
    pub lines: wgpu::Buffer,
    fine_lines: wgpu::Buffer,
    /// Out, `[row / 4, angle, sample]`, of 16 bytes, or of 8 in half precision.
    pub filtered: wgpu::Buffer,
    half: bool,
}

impl RampFilterBuffers {
    /// Allocates what [`RampFilter::launch_forward`] needs, for blocks no larger than `params`.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] beyond a limit or when memory runs out.
    pub fn forward(gpu: &Gpu, params: &RampFilterParams) -> Result<Self> {
        let lens = params.lens();
        Ok(RampFilterBuffers {
            line_integrals: gpu.storage::<f32>("line integrals", lens.line_integrals)?,
            multiplier: gpu.storage::<Complex>("multiplier", 0)?,
            lines: gpu.storage::<Complex>("lines", lens.lines)?,
            fine_lines: gpu.storage::<Complex>("fine lines", 0)?,
            filtered: gpu.storage::<[f32; 4]>("filtered", 0)?,
            half: false,
        })
    }

    /// Allocates them for blocks no larger than `params`; `half`: filtered rows are stored in half precision.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] beyond a limit or when memory runs out.
    pub fn new(gpu: &Gpu, params: &RampFilterParams, half: bool) -> Result<Self> {
        let lens = params.lens();
        Ok(RampFilterBuffers {
            line_integrals: gpu.storage::<f32>("line integrals", lens.line_integrals)?,
            multiplier: gpu.storage::<Complex>("multiplier", lens.multiplier)?,
            lines: gpu.storage::<Complex>("lines", lens.lines)?,
            fine_lines: gpu.storage::<Complex>("fine lines", lens.fine_lines)?,
            filtered: match half {
                false => gpu.storage::<[f32; 4]>("filtered", lens.filtered)?,
                true => gpu.storage::<[u32; 2]>("filtered", lens.filtered)?,
            },
            half,
        })
    }
}

/// The kernels with what is the same for all rows.
pub struct RampFilter {
    /// Elements that a workgroup transforms.
    pub local: usize,
    twiddles: wgpu::Buffer,
    roll_off: wgpu::Buffer,
    extend_rows: Kernel,
    forward_global: Kernel,
    forward_local: Kernel,
    inverse_local: Kernel,
    inverse_global: Kernel,
    gather_filtered: Kernel,
    gather_filtered_half: Kernel,
}

impl RampFilter {
    /// Compiles the kernels; `local` is [`LOCAL`] or less, a power of two, and cut to the workgroup memory of the GPU.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] when the driver refuses a kernel.
    pub fn new(gpu: &Gpu, plan: &FilterPlan, local: usize) -> Result<Self> {
        let (local, source) = for_workgroups(gpu, SOURCE, local);
        let kernel = |entry| Kernel::new(gpu, &source, entry);
        Ok(RampFilter {
            local,
            twiddles: gpu.storage_from("twiddles", &twiddles(plan.n_fft))?,
            roll_off: gpu.storage_from("roll-off", &plan.roll_off)?,
            extend_rows: kernel("extend_rows")?,
            forward_global: kernel("forward_global")?,
            forward_local: kernel("forward_local")?,
            inverse_local: kernel("inverse_local")?,
            inverse_global: kernel("inverse_global")?,
            gather_filtered: kernel("gather_filtered")?,
            gather_filtered_half: kernel("gather_filtered_half")?,
        })
    }

    /// From `buffers.line_integrals` to the spectra in `buffers.lines`, bit-reversed; `views` `[angle]` of this block, of [`View`].
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn launch_forward(
        &self,
        batch: &mut Batch<'_>,
        params: &RampFilterParams,
        views: &wgpu::Buffer,
        buffers: &RampFilterBuffers,
    ) -> Result<()> {
        let (pairs, rows, lines) = (params.n_pairs, params.n_rows, &buffers.lines);
        batch.launch(
            &self.extend_rows,
            params,
            &[
                (1, &buffers.line_integrals),
                (2, views),
                (3, &self.roll_off),
                (6, lines),
            ],
            [params.n_fft.div_ceil(256), pairs, rows],
        )?;
        let butterflies = (params.n_fft / 2).div_ceil(256);
        let mut block = params.n_fft;
        while block > params.n_local {
            let pass = RampFilterParams { block, ..*params };
            batch.launch(
                &self.forward_global,
                &pass,
                &[(4, &self.twiddles), (6, lines)],
                [butterflies, pairs, rows],
            )?;
            block /= 2;
        }
        let blocks = params.n_fft / params.n_local;
        batch.launch(
            &self.forward_local,
            params,
            &[(4, &self.twiddles), (6, lines)],
            [blocks, pairs, rows],
        )
    }

    /// From `buffers.line_integrals` to `buffers.filtered`; `views` `[angle]` of this block, of [`View`].
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn launch(
        &self,
        batch: &mut Batch<'_>,
        params: &RampFilterParams,
        views: &wgpu::Buffer,
        buffers: &RampFilterBuffers,
    ) -> Result<()> {
        self.launch_forward(batch, params, views, buffers)?;
        let (pairs, rows, phases) = (
            params.n_pairs,
            params.n_rows,
            params.n_rows * params.upsample,
        );
        let (lines, fine_lines) = (&buffers.lines, &buffers.fine_lines);
        let butterflies = (params.n_fft / 2).div_ceil(256);
        let blocks = params.n_fft / params.n_local;
        let mut block = params.n_local;
        batch.launch(
            &self.inverse_local,
            params,
            &[
                (4, &self.twiddles),
                (5, &buffers.multiplier),
                (6, lines),
                (7, fine_lines),
            ],
            [blocks, pairs, phases],
        )?;
        while block < params.n_fft {
            block *= 2;
            let pass = RampFilterParams { block, ..*params };
            batch.launch(
                &self.inverse_global,
                &pass,
                &[(4, &self.twiddles), (7, fine_lines)],
                [butterflies, pairs, phases],
            )?;
        }
        let (kernel, binding) = match buffers.half {
            false => (&self.gather_filtered, 8),
            true => (&self.gather_filtered_half, 9),
        };
        batch.launch(
            kernel,
            params,
            &[(7, fine_lines), (binding, &buffers.filtered)],
            [params.row_stride.div_ceil(256), pairs, rows / 4],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ReconstructConfig;
    use crate::reconstruct::SliceJob;
    use crate::reconstruct::geometry::{Grid, InPlaneMotion, rays};
    use crate::reconstruct::support::Support;

    fn plan(n_cols: usize, n_angles: usize, upsample: usize, motion: InPlaneMotion) -> FilterPlan {
        let angles: Vec<f64> = (0..n_angles)
            .map(|k| k as f64 * PI / n_angles as f64)
            .collect();
        FilterPlan::new(&SliceJob {
            n_cols,
            rays: rays(&angles, motion),
            grid: Grid::square(n_cols),
            config: ReconstructConfig {
                upsample,
                ..ReconstructConfig::default()
            },
            scale: 1.0,
            mask_radius_px: Some(n_cols as f64 / 2.0),
            support: Some(Support {
                axis_px: 0.6 * n_cols as f64,
                radius_px: 0.9 * n_cols as f64,
            }),
        })
        .unwrap()
    }

    /// q(t0 + m / upsample) by the sum that defines it, in f64.
    fn filtered_by_definition(
        plan: &FilterPlan,
        angle: usize,
        row: &[f32],
        axis_px: f64,
        m: usize,
    ) -> f64 {
        let mut padded = vec![0.0; plan.n_fft];
        plan.pad_row(angle, row, &mut padded);
        let n = plan.n_fft as f64;
        let place = plan.phase_px(axis_px) + m as f64 / plan.upsample as f64;
        let mut sum = 0.0;
        for (k, &gain) in plan.response.iter().enumerate() {
            // frequencies k and -k; at Nyquist both stand in one response, halved where the output is finer
            let both = if k == 0 || (2 * k == plan.n_fft && plan.upsample == 1) {
                1.0
            } else {
                2.0
            };
            for (index, &value) in padded.iter().enumerate() {
                let turns = k as f64 * (place - index as f64) / n;
                sum += both * f64::from(gain) * f64::from(value) * (2.0 * PI * turns).cos();
            }
        }
        sum
    }

    #[test]
    fn the_twin_is_the_sum_that_defines_the_filter_for_every_split_of_the_transform() {
        for (n_cols, upsample, local, shift) in [
            (1, 1, 4096, 0.0),
            (7, 2, 4096, 1.5),
            (13, 4, 8, 0.0),
            (16, 2, 4, -3.0),
            (31, 1, 16, 0.0),
            (20, 2, 32, 20.0),
        ] {
            let n_angles = 3;
            let motion = InPlaneMotion {
                shift_x_px: shift,
                ..InPlaneMotion::default()
            };
            let plan = plan(n_cols, n_angles, upsample, motion);
            let params = RampFilterParams::new(&plan, 1, n_angles, local);
            let lens = params.lens();
            let values: Vec<f32> = (0..lens.line_integrals)
                .map(|i| ((i * i * 7 + 3) % 101) as f32 / 101.0)
                .collect();
            let weights: [f32; 3] = [0.5, 1.0, 2.0];
            let views: Vec<View> = (0..n_angles)
                .map(|angle| plan.view(angle, f64::from(weights[angle])))
                .collect();
            let axes = [n_cols as f64 / 2.0, 0.3, 5.75, n_cols as f64 - 1.0];
            let multiplier: Vec<Complex> = axes
                .iter()
                .flat_map(|&axis| multipliers(&plan, axis))
                .collect();
            let mut filtered = vec![[f32::NAN; 4]; lens.filtered];
            ramp_filter_cpu(
                &params,
                &values,
                &views,
                &plan.roll_off,
                &multiplier,
                &mut filtered,
            );
            // f32 transforms of values up to 1: log2(n) rounding steps, weights up to 2, gain up to 1/2 per pixel
            let tolerance = 4.0 * f64::from(f32::EPSILON) * f64::from(params.log2_n_fft + 1) * 2.0;
            let (mut worst, mut blind): (f64, f64) = (0.0, 0.0);
            for row in 0..4 {
                for angle in 0..n_angles {
                    let first = (row * n_angles + angle) * n_cols;
                    let source = &values[first..first + n_cols];
                    let stored = &filtered[angle * params.row_stride as usize..]
                        [..params.row_stride as usize];
                    for zero in [0, plan.n_out + 1, plan.n_out + 2] {
                        assert_eq!(stored[zero][row], 0.0);
                    }
                    for m in 0..plan.n_out {
                        let found = f64::from(stored[m + 1][row]);
                        let weight = f64::from(weights[angle]);
                        let expected =
                            weight * filtered_by_definition(&plan, angle, source, axes[row], m);
                        let moved = weight
                            * filtered_by_definition(&plan, angle, source, axes[row] + 0.25, m);
                        worst = worst.max((found - expected).abs());
                        blind = blind.max((found - moved).abs());
                    }
                }
            }
            assert!(
                worst < tolerance,
                "{n_cols} columns x {upsample}, {local} local: {worst} > {tolerance}"
            );
            assert!(
                blind > 100.0 * tolerance || n_cols == 1,
                "an axis wrong by 0.25 px must be seen: {blind}"
            );
        }
    }
}
