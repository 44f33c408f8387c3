//! Filtering and the Fourier filter: the few waves along the angle that their windows let through are computed one by one.
//!
//! The window of either falls to nothing within a few frequencies, so that as many sums over a column cost less than a transform of a
//! length that is no power of two, and are as exact.

use bytemuck::{Pod, Zeroable};

use super::twin::sum_of;
use super::{FILTER_SOURCE, StripeParams, samples};
use crate::correct::median::{Tile, across_columns};
use crate::correct::stripe::columns::{Columns, SortedColumns};
use crate::correct::stripe::fourier::{gauss, padding};
use crate::correct::stripe::{Filtering, Raven, StripeRemoval};
use crate::error::Result;
use crate::gpu::{Batch, Gpu, Kernel};

/// Parameters of all entry points.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct WaveParams {
    /// Detector columns.
    pub n_cols: u32,
    /// Angles.
    pub n_angles: u32,
    /// By which columns and rows are extended at each end.
    pub pad: u32,
    /// Waves.
    pub n_waves: u32,
    /// Half turns of the first wave: 0 or 1; the others have two more each.
    pub odd: u32,
    /// 1: columns are extended by their mirror image, 0: by their mean.
    pub mirrored: u32,
}

/// The waves of a method for sinograms of one size.
#[derive(Debug, Clone)]
pub(super) struct Waves {
    pub(super) params: WaveParams,
    /// `[wave]`
    pub(super) gains: Vec<f32>,
    /// `[distance]`, what the window across the columns removes; empty for filtering.
    window: Vec<f32>,
}

impl Waves {
    /// `None` for methods without.
    pub(super) fn new(removal: &StripeRemoval, n_cols: usize, n_angles: usize) -> Option<Waves> {
        match removal {
            StripeRemoval::Filtering(filtering) => {
                Some(Waves::low_pass(filtering, n_cols, n_angles))
            }
            StripeRemoval::Fft(raven) => Some(Waves::of_raven(raven, n_cols, n_angles)),
            _ => None,
        }
    }

    /// The low-pass of `fourier::LowPass::two_real`, frequency by frequency, as far as single precision sees it.
    fn low_pass(filtering: &Filtering, n_cols: usize, n_angles: usize) -> Waves {
        let pad = padding(n_angles);
        let tall = n_angles + 2 * pad;
        let odd = tall % 2;
        let middle = (tall as f64 - 1.0) / 2.0;
        let gain = |half_turns: usize| {
            let m = (tall - half_turns) / 2;
            let both = [m, (tall - m) % tall].map(|m| gauss(m as f64 - middle, filtering.sigma));
            // a frequency and its negative are one wave, but for none and the highest
            let pair = half_turns != 0 && half_turns != tall;
            0.5 * (both[0] + both[1]) / tall as f64 * if pair { 2.0 } else { 1.0 }
        };
        let seen = 1 + 2 * (6.5 * filtering.sigma).ceil() as usize;
        let gains: Vec<f32> = (odd..=tall.min(odd + seen))
            .step_by(2)
            .map(|half_turns| gain(half_turns) as f32)
            .collect();
        Waves {
            params: WaveParams {
                n_cols: n_cols as u32,
                n_angles: n_angles as u32,
                pad: pad as u32,
                n_waves: gains.len() as u32,
                odd: odd as u32,
                mirrored: 1,
            },
            gains,
            window: Vec::new(),
        }
    }

    /// The window of [`Raven`] across the columns as a sum over them.
    fn of_raven(raven: &Raven, n_cols: usize, n_angles: usize) -> Waves {
        let pad = padding(n_cols.min(n_angles));
        let (wide, tall) = (n_cols + 2 * pad, n_angles + 2 * pad);
        let n_waves = (raven.rows + 1).min(tall / 2 + 1);
        let pair = |wave: usize| wave != 0 && 2 * wave != tall;
        let gain = |wave: usize| if pair(wave) { 2.0 } else { 1.0 } / tall as f64;
        let removed = raven.removed(wide);
        let at = |distance: usize| -> f64 {
            let terms = removed.iter().enumerate().map(|(m, part)| {
                let turn = (m * distance % wide) as f64 / wide as f64;
                part * (std::f64::consts::TAU * turn).cos()
            });
            terms.sum::<f64>() / wide as f64
        };
        Waves {
            params: WaveParams {
                n_cols: n_cols as u32,
                n_angles: n_angles as u32,
                pad: pad as u32,
                n_waves: n_waves as u32,
                odd: 0,
                mirrored: 0,
            },
            gains: (0..n_waves).map(|wave| gain(wave) as f32).collect(),
            window: (0..=wide / 2).map(|distance| at(distance) as f32).collect(),
        }
    }

    /// The lowest frequencies of columns as they are, weighted by `exp(-k^2 / (2 sigma^2))`: as many as single precision sees.
    pub(super) fn lowest(sigma: f64, n_cols: usize, n_angles: usize) -> Waves {
        let pair = |wave: usize| wave != 0 && 2 * wave != n_angles;
        let gain = |wave: usize| {
            let both = if pair(wave) { 2.0 } else { 1.0 };
            (gauss(wave as f64, sigma) * both / n_angles as f64) as f32
        };
        let gains: Vec<f32> = (0..Waves::count_lowest(sigma, n_angles))
            .map(gain)
            .collect();
        Waves {
            params: WaveParams {
                n_cols: n_cols as u32,
                n_angles: n_angles as u32,
                pad: 0,
                n_waves: gains.len() as u32,
                odd: 0,
                mirrored: 1,
            },
            gains,
            window: Vec::new(),
        }
    }

    /// How many waves [`Waves::lowest`] has.
    pub(super) fn count_lowest(sigma: f64, n_angles: usize) -> usize {
        ((6.5 * sigma).ceil() as usize).min(n_angles / 2) + 1
    }

    /// Samples of an extended column.
    fn tall(&self) -> usize {
        (self.params.n_angles + 2 * self.params.pad) as usize
    }

    /// Cosine and sine of a turn in two steps per sample of an extended column.
    pub(super) fn turns(&self) -> Vec<[f32; 2]> {
        let n = 2 * self.tall();
        let turn = |step: usize| {
            let (sin, cos) = (std::f64::consts::TAU * step as f64 / n as f64).sin_cos();
            [cos as f32, sin as f32]
        };
        (0..n).map(turn).collect()
    }

    /// How far the sum of the waves in f32 may be from that of the CPU, as a share of the largest sample.
    ///
    /// A Fourier sample is a sum of n / 256 terms and eight levels of a tree, each of two roundings; the window across the columns adds
    /// its width once, and its size may be that of all its weights.
    #[cfg(test)]
    pub(super) fn tolerance(&self) -> f32 {
        let sum = (self.tall() / 256 + 12) as f32 * f32::EPSILON;
        let gains: f32 = self.gains.iter().map(|gain| gain.abs()).sum();
        let gains = gains * self.tall() as f32;
        let across: f32 = 2.0 * self.window.iter().map(|weight| weight.abs()).sum::<f32>();
        let rounded = (self.window.len() as f32).sqrt() * f32::EPSILON;
        match self.params.mirrored {
            1 => gains * (sum + self.gains.len() as f32 * f32::EPSILON),
            _ => gains * across * (sum + rounded + 4.0 * f32::EPSILON),
        }
    }

    /// Takes the waves of `columns` off them, and gives their sum: what the kernels do.
    fn take_away(&self, columns: &mut Columns) -> Columns {
        let low = self.sum_of_waves(columns);
        for (column, low) in columns.iter_mut().zip(low.iter()) {
            let samples = column.iter_mut().zip(low);
            samples.for_each(|(value, low)| *value -= low);
        }
        low
    }

    /// The sum of the waves of `columns`.
    pub(super) fn sum_of_waves(&self, columns: &Columns) -> Columns {
        let turns = self.turns();
        let params = &self.params;
        let turn = |wave: usize, place: usize| {
            turns[(2 * wave + params.odd as usize) * place % turns.len()]
        };
        let mut waves = self.take_waves(columns, &turn);
        if params.mirrored == 0 {
            waves = waves.iter().map(|line| self.across_waves(line)).collect();
        }
        let mut low = Columns::default();
        low.reshape(columns.n_cols(), columns.n_angles());
        for (col, low) in low.iter_mut().enumerate() {
            for (angle, low) in low.iter_mut().enumerate() {
                let mut sum = 0.0;
                for (wave, gain) in self.gains.iter().enumerate() {
                    let (size, at) = (waves[wave][col], turn(wave, angle + params.pad as usize));
                    sum += gain * (size[0] * at[0] - size[1] * at[1]);
                }
                *low = sum;
            }
        }
        low
    }

    /// `[wave][col]`
    fn take_waves(
        &self,
        columns: &Columns,
        turn: &impl Fn(usize, usize) -> [f32; 2],
    ) -> Vec<Vec<[f32; 2]>> {
        let (pad, last) = (self.params.pad as isize, columns.n_angles() as isize - 1);
        let mirrored = self.params.mirrored == 1;
        let mean = |column: &[f32]| match mirrored {
            true => 0.0,
            false => sum_of(column.iter().copied().enumerate()) / column.len() as f32,
        };
        let of_column = |wave: usize, column: &[f32]| {
            let mean = mean(column);
            if wave == 0 && !mirrored {
                return [mean * self.tall() as f32, 0.0];
            }
            let value = |place: usize| {
                let angle = place as isize - pad;
                match (mirrored, (0..=last).contains(&angle)) {
                    (true, _) => column[(last - (last - angle.abs()).abs()) as usize],
                    (false, true) => column[angle as usize] - mean,
                    (false, false) => 0.0,
                }
            };
            let places = 0..self.tall();
            let real = places
                .clone()
                .map(|place| (place, value(place) * turn(wave, place)[0]));
            let imaginary = places.map(|place| (place, -value(place) * turn(wave, place)[1]));
            [sum_of(real), sum_of(imaginary)]
        };
        (0..self.gains.len())
            .map(|wave| {
                columns
                    .iter()
                    .map(|column| of_column(wave, column))
                    .collect()
            })
            .collect()
    }

    /// What the window across the columns removes of one wave `[col]`.
    fn across_waves(&self, line: &[[f32; 2]]) -> Vec<[f32; 2]> {
        let (n, pad) = (line.len(), self.params.pad as usize);
        let wide = n + 2 * pad;
        let of_column = |col: usize| {
            let mut sum = [0f32; 2];
            for place in 0..wide {
                let apart = place.abs_diff(col + pad);
                let weight = self.window[apart.min(wide - apart)];
                let wave = line[place.clamp(pad, pad + n - 1) - pad];
                sum = [sum[0] + weight * wave[0], sum[1] + weight * wave[1]];
            }
            sum
        };
        (0..n).map(of_column).collect()
    }
}

/// Algorithm 3 on the low part of the columns.
pub(super) fn smooth_sorted(mut low: Columns, size: usize) -> Columns {
    let (mut sorted, mut smooth) = (SortedColumns::default(), Columns::default());
    sorted.sort(&low);
    across_columns(&sorted.values, size, &mut smooth, &mut Tile::default());
    sorted.unsort(&smooth, &mut low);
    low
}

/// Filtering or the Fourier filter as the kernels do it.
pub(super) fn filter_cpu(removal: &StripeRemoval, columns: &mut Columns) {
    let waves = Waves::new(removal, columns.n_cols(), columns.n_angles());
    let Some(waves) = waves else {
        return;
    };
    let low = waves.take_away(columns);
    let StripeRemoval::Filtering(filtering) = removal else {
        return;
    };
    let corrected = smooth_sorted(low, filtering.size);
    for (column, low) in columns.iter_mut().zip(corrected.iter()) {
        column
            .iter_mut()
            .zip(low)
            .for_each(|(value, low)| *value += low);
    }
}

/// The kernels, with the buffers for so many rows at a time.
pub(super) struct WaveKernels {
    take_waves: Kernel,
    across_waves: Kernel,
    take_away: Kernel,
    add_ranked: Kernel,
    params: WaveParams,
    turns: wgpu::Buffer,
    gains: wgpu::Buffer,
    window: wgpu::Buffer,
    /// `[row, wave, col]`
    waves: wgpu::Buffer,
    /// The same, across the columns; a word for filtering.
    removed: wgpu::Buffer,
    /// `[row, col, angle]`, the sum of the waves; a word for the Fourier filter.
    pub(super) low: wgpu::Buffer,
}

impl WaveKernels {
    /// `None` for methods that need none of it.
    pub(super) fn new(
        gpu: &Gpu,
        removal: &StripeRemoval,
        [n_rows, n_cols, n_angles]: [usize; 3],
    ) -> Result<Option<WaveKernels>> {
        let Some(waves) = Waves::new(removal, n_cols, n_angles) else {
            return Ok(None);
        };
        let kernel = |entry| Kernel::new(gpu, FILTER_SOURCE, entry);
        let lines = n_rows * waves.gains.len() * n_cols;
        let of_filtering = waves.params.mirrored == 1;
        let samples = n_rows * n_cols * n_angles;
        let window = match of_filtering {
            true => &[0.0],
            false => &waves.window[..],
        };
        Ok(Some(WaveKernels {
            take_waves: kernel("take_waves")?,
            across_waves: kernel("across_waves")?,
            take_away: kernel("take_away")?,
            add_ranked: kernel("add_ranked")?,
            turns: gpu.storage_from("turns", &waves.turns())?,
            gains: gpu.storage_from("gains of the waves", &waves.gains)?,
            window: gpu.storage_from("window across the columns", window)?,
            waves: gpu.storage::<[f32; 2]>("waves", lines)?,
            removed: gpu.storage::<[f32; 2]>("removed", if of_filtering { 1 } else { lines })?,
            low: gpu.storage::<f32>("low columns", if of_filtering { samples } else { 1 })?,
            params: waves.params,
        }))
    }

    /// The waves are taken off the columns; those of filtering are then in `low`.
    pub(super) fn take_away(
        &self,
        batch: &mut Batch<'_>,
        params: &StripeParams,
        columns: &wgpu::Buffer,
    ) -> Result<()> {
        let rows = params.n_rows;
        let buffers = [(1, columns), (2, &self.turns), (3, &self.waves)];
        let each = [params.n_cols, rows, 1];
        batch.launch(&self.take_waves, &self.params, &buffers, each)?;
        let waves = match self.params.mirrored {
            1 => &self.waves,
            _ => {
                batch.launch(
                    &self.across_waves,
                    &self.params,
                    &[(3, &self.waves), (4, &self.removed), (5, &self.window)],
                    [params.n_cols.div_ceil(256), self.params.n_waves, rows],
                )?;
                &self.removed
            }
        };
        batch.launch(
            &self.take_away,
            &self.params,
            &[
                (1, columns),
                (2, &self.turns),
                (3, waves),
                (6, &self.gains),
                (7, &self.low),
            ],
            samples(params),
        )
    }

    /// Adds `smooth` `[row, col, rank]` to the columns, each sample at the angle that `order` says.
    pub(super) fn add_ranked(
        &self,
        batch: &mut Batch<'_>,
        params: &StripeParams,
        columns: &wgpu::Buffer,
        order: &wgpu::Buffer,
        smooth: &wgpu::Buffer,
    ) -> Result<()> {
        let buffers = [(1, columns), (8, order), (9, smooth)];
        batch.launch(&self.add_ranked, &self.params, &buffers, samples(params))
    }
}
