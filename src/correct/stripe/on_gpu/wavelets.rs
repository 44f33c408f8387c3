//! The wavelet-Fourier filter: the same transforms as on the CPU, one scale after another, and of each detail the few waves that its
//! damping takes away, computed one by one (see `waves`).
//!
//! Both sides keep only what is taken away, so that all other detail has the bits of the input.

use bytemuck::{Pod, Zeroable};

use super::twin::sum_of;
use super::waves::Waves;
use super::{Beside, FILTER_SOURCE, StripeParams, WAVELET_SOURCE, samples};
use crate::correct::stripe::WaveletFft;
use crate::correct::stripe::columns::Columns;
use crate::correct::stripe::fourier::padding;
use crate::correct::stripe::wavelet::Wavelet;
use crate::correct::stripe::wavelet_fft::Work;
use crate::error::Result;
use crate::gpu::{Batch, Gpu, Kernel, Submit};

/// Parameters of all entry points.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct WaveletParams {
    /// Columns of the image that this scale takes apart.
    pub n_cols: u32,
    /// Its angles.
    pub n_angles: u32,
    /// By which it is extended at each end.
    pub pad: u32,
    /// Columns of its coefficients.
    pub half_cols: u32,
    /// Angles of its coefficients.
    pub half_angles: u32,
    /// Taps of the wavelet.
    pub n_taps: u32,
    /// 1: there is a coarser scale.
    pub has_low: u32,
}

/// The scales of sinograms of one size, the finest first; none where they are too small.
pub(super) fn scales(filter: &WaveletFft, n_cols: usize, n_angles: usize) -> Vec<WaveletParams> {
    let sizes = filter.scales(n_cols, n_angles);
    let pad = padding(n_cols.min(n_angles));
    let of = |(level, pair): (usize, &[(usize, usize)])| {
        let pad = if level == 0 { pad } else { 0 };
        WaveletParams {
            n_cols: (pair[0].0 - 2 * pad) as u32,
            n_angles: (pair[0].1 - 2 * pad) as u32,
            pad: pad as u32,
            half_cols: pair[1].0 as u32,
            half_angles: pair[1].1 as u32,
            n_taps: 2 * filter.order as u32,
            has_low: u32::from(level + 2 < sizes.len()),
        }
    };
    sizes.windows(2).enumerate().map(of).collect()
}

impl WaveletParams {
    fn columns(&self) -> usize {
        (self.n_cols + 2 * self.pad) as usize
    }

    /// Samples of the low-pass along the angle.
    fn tall(&self) -> usize {
        self.columns() * self.half_angles as usize
    }

    /// Samples of the detail, and of the next approximation.
    fn detail(&self) -> usize {
        (self.half_cols * self.half_angles) as usize
    }

    /// The waves of the detail that the damping takes away.
    fn waves(&self, filter: &WaveletFft) -> Waves {
        let [cols, angles] = [self.half_cols, self.half_angles].map(|n| n as usize);
        Waves::lowest(filter.sigma, cols, angles)
    }
}

/// Samples of the buffers for a row.
struct Sizes {
    tall: usize,
    approximation: usize,
    /// Pairs of samples.
    waves: usize,
}

fn sizes(filter: &WaveletFft, scales: &[WaveletParams]) -> Sizes {
    let most = |of: &dyn Fn(&WaveletParams) -> usize| scales.iter().map(of).max().unwrap_or(0);
    let waves = |scale: &WaveletParams| {
        Waves::count_lowest(filter.sigma, scale.half_angles as usize) * scale.half_cols as usize
    };
    Sizes {
        tall: most(&WaveletParams::tall),
        approximation: most(&WaveletParams::detail),
        waves: most(&waves),
    }
}

/// What a row takes beside its columns.
pub(super) fn beside(filter: &WaveletFft, n_cols: usize, n_angles: usize) -> Beside {
    let scales = scales(filter, n_cols, n_angles);
    if scales.is_empty() {
        return Beside::default();
    }
    let details = scales.iter().map(WaveletParams::detail).sum::<usize>();
    let sizes = sizes(filter, &scales);
    Beside {
        samples: sizes.tall + sizes.approximation + details + 2 * sizes.waves + n_cols,
        largest: sizes.tall.max(sizes.approximation).max(2 * sizes.waves),
    }
}

/// Samples that it looks at for each of those of a detail, which are a quarter of all at most.
pub(super) fn looked_at(filter: &WaveletFft, n_angles: usize) -> usize {
    let waves = Waves::count_lowest(filter.sigma, n_angles / 2);
    (4 * filter.order).max(waves / 4 + 1)
}

/// The wavelet-Fourier filter as the kernels do it.
pub(super) fn wavelets_cpu(filter: &WaveletFft, columns: &mut Columns) {
    filter.apply_by(columns, &mut Work::default(), column_means, |detail| {
        let waves = Waves::lowest(filter.sigma, detail.n_cols(), detail.n_angles());
        *detail = waves.sum_of_waves(detail);
    });
}

fn column_means(column: &[f32]) -> f32 {
    sum_of(column.iter().copied().enumerate()) / column.len() as f32
}

/// How far a sample may be from that of the CPU, as a share of the largest sample.
///
/// All coefficients are inner products with orthonormal functions, so that a rounding error of any pass comes out with the root mean
/// square that it went in with, relative to coefficients that grow by 2 from scale to scale as the share of a sample in them falls by
/// 2. In every scale there are four passes of sums over the taps, both ways along and across, with at most sqrt(taps) times the largest
/// coefficient in all magnitudes, and the waves (see [`Waves::tolerance`]), each on both sides. The largest of millions of
/// errors is within six of their standard deviations, a rounding is off by EPSILON / sqrt(12).
#[cfg(test)]
pub(super) fn tolerance(filter: &WaveletFft, n_cols: usize, n_angles: usize) -> f32 {
    let scales = scales(filter, n_cols, n_angles);
    let taps = (2 * filter.order) as f32;
    // a sum of so many roundings, each of a part sum of at most sqrt(taps)
    let pass = taps * f32::EPSILON / 12f32.sqrt();
    let squares = |scale: &WaveletParams| {
        let waves = scale.waves(filter).tolerance() / 6.0;
        4.0 * pass * pass + waves * waves
    };
    6.0 * (2.0 * scales.iter().map(squares).sum::<f32>()).sqrt() + f32::EPSILON
}

/// A scale with its detail.
struct Scale {
    params: WaveletParams,
    /// `[row, col, angle]` of the coefficients.
    detail: wgpu::Buffer,
    waves: Waves,
    turns: wgpu::Buffer,
    gains: wgpu::Buffer,
}

/// The kernels, with the buffers for so many rows at a time.
pub(super) struct WaveletKernels {
    column_means: Kernel,
    low_along: Kernel,
    across: Kernel,
    take_waves: Kernel,
    put_waves: Kernel,
    across_back: Kernel,
    low_along_back: Kernel,
    take_off: Kernel,
    filters: wgpu::Buffer,
    scales: Vec<Scale>,
    means: wgpu::Buffer,
    tall: wgpu::Buffer,
    approximation: wgpu::Buffer,
    waves: wgpu::Buffer,
}

impl WaveletKernels {
    pub(super) fn new(
        gpu: &Gpu,
        filter: &WaveletFft,
        [n_rows, n_cols, n_angles]: [usize; 3],
    ) -> Result<WaveletKernels> {
        let kernel = |entry| Kernel::new(gpu, WAVELET_SOURCE, entry);
        let of_waves = |entry| Kernel::new(gpu, FILTER_SOURCE, entry);
        let all = scales(filter, n_cols, n_angles);
        let (sizes, all_left) = (sizes(filter, &all), all.is_empty());
        // a sinogram that is left as it is has buffers of a word
        let buffer = |label, samples: usize| gpu.storage::<f32>(label, (n_rows * samples).max(1));
        let scale = |params: WaveletParams| {
            let waves = params.waves(filter);
            Ok(Scale {
                detail: buffer("detail of a scale", params.detail())?,
                turns: gpu.storage_from("turns", &waves.turns())?,
                gains: gpu.storage_from("gains of the waves", &waves.gains)?,
                params,
                waves,
            })
        };
        Ok(WaveletKernels {
            column_means: kernel("column_means")?,
            low_along: kernel("low_along")?,
            across: kernel("across")?,
            take_waves: of_waves("take_waves")?,
            put_waves: of_waves("put_waves")?,
            across_back: kernel("across_back")?,
            low_along_back: kernel("low_along_back")?,
            take_off: kernel("take_off")?,
            filters: gpu.storage_from("wavelet", &Wavelet::daubechies(filter.order).taps())?,
            scales: all.into_iter().map(scale).collect::<Result<_>>()?,
            means: buffer("means of the columns", if all_left { 0 } else { n_cols })?,
            tall: buffer("low-pass along the angle", sizes.tall)?,
            approximation: buffer("approximation", sizes.approximation)?,
            waves: buffer("waves of a detail", 2 * sizes.waves)?,
        })
    }

    /// Bytes of each buffer.
    #[cfg(test)]
    pub(super) fn held_sizes(&self) -> Vec<u64> {
        let per_row = [&self.means, &self.tall, &self.approximation, &self.waves];
        let details = self.scales.iter().map(|scale| &scale.detail);
        let all = per_row.into_iter().chain(details);
        all.map(wgpu::Buffer::size).collect()
    }

    pub(super) fn launch(
        &self,
        params: &StripeParams,
        columns: &wgpu::Buffer,
        run: &mut Submit<'_>,
    ) -> Result<()> {
        let rows = params.n_rows;
        if let Some(finest) = self.scales.first() {
            let buffers = [(1, columns), (2, &self.means)];
            let each = [finest.params.n_cols, rows, 1];
            run(&|batch| batch.launch(&self.column_means, &finest.params, &buffers, each))?;
        }
        for (level, scale) in self.scales.iter().enumerate() {
            let image = if level == 0 {
                columns
            } else {
                &self.approximation
            };
            run(&|batch| self.take_apart(batch, scale, image, rows))?;
        }
        for (level, scale) in self.scales.iter().enumerate().rev() {
            run(&|batch| {
                self.across_back(batch, scale, rows)?;
                let (kernel, image, n_cols, n_angles) = match level {
                    0 => (&self.take_off, columns, params.n_cols, params.n_angles),
                    _ => {
                        let WaveletParams {
                            n_cols, n_angles, ..
                        } = scale.params;
                        (&self.low_along_back, &self.approximation, n_cols, n_angles)
                    }
                };
                let workgroups = samples(&StripeParams {
                    n_cols,
                    n_angles,
                    ..*params
                });
                let buffers = [(1, image), (3, &self.filters), (4, &self.tall)];
                batch.launch(kernel, &scale.params, &buffers, workgroups)
            })?;
        }
        Ok(())
    }

    /// The next approximation and the detail of a scale, of which only what is taken away is left.
    fn take_apart(
        &self,
        batch: &mut Batch<'_>,
        scale: &Scale,
        image: &wgpu::Buffer,
        rows: u32,
    ) -> Result<()> {
        let params = &scale.params;
        let angles = params.half_angles.div_ceil(256);
        batch.launch(
            &self.low_along,
            params,
            &[
                (1, image),
                (2, &self.means),
                (3, &self.filters),
                (4, &self.tall),
            ],
            [angles, params.columns() as u32, rows],
        )?;
        batch.launch(
            &self.across,
            params,
            &[
                (3, &self.filters),
                (4, &self.tall),
                (5, &self.approximation),
                (6, &scale.detail),
            ],
            [angles, params.half_cols, rows],
        )?;
        let buffers = [(1, &scale.detail), (2, &scale.turns), (3, &self.waves)];
        let each = [params.half_cols, rows, 1];
        batch.launch(&self.take_waves, &scale.waves.params, &buffers, each)?;
        let buffers = [
            (1, &scale.detail),
            (2, &scale.turns),
            (3, &self.waves),
            (6, &scale.gains),
        ];
        let each = [angles, params.half_cols, rows];
        batch.launch(&self.put_waves, &scale.waves.params, &buffers, each)
    }

    fn across_back(&self, batch: &mut Batch<'_>, scale: &Scale, rows: u32) -> Result<()> {
        batch.launch(
            &self.across_back,
            &scale.params,
            &[
                (3, &self.filters),
                (4, &self.tall),
                (5, &self.approximation),
                (6, &scale.detail),
            ],
            [
                scale.params.half_angles.div_ceil(256),
                scale.params.columns() as u32,
                rows,
            ],
        )
    }
}
