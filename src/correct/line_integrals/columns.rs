//! Transmission of all angles on the GPU, for what looks at whole columns: broad stripes of the series lock, and stripe removal.
//!
//! Blocks of angles come in cleaned of zingers and are turned into columns `[row, col, angle]`; when the last is there, the
//! lock and the stripe removal work on the columns in place, and the blocks go out again as line integrals. Rows lie in
//! several buffers where one would be larger than the GPU allows or a launch would take too long; a row does not depend
//! on its neighbours, so that this does not show.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::kernels::{Lock, chunks};
use super::{CountSlab, LineIntegralParams, LockedPixel, Step, locked_tolerance};
use crate::correct::lock;
use crate::correct::stripe::StripeRemoval;
use crate::correct::stripe::on_gpu::{SORT_SOURCE, StripeKernels, StripeParams};
use crate::error::Result;
use crate::gpu::{Batch, Gpu, Kernel, Submit};

/// The shader of the lock on whole columns.
pub const LOCKED_COLUMNS_SOURCE: &str = include_str!("../../../shaders/locked_columns.wgsl");
/// Columns are kept in buffers of at most this size \[bytes\], so that what is held beside the one at work stays small.
const BUFFER_BYTES: u64 = 256 << 20;
/// Samples that the window of a running median may look at in a launch, per update of back-projection of a launch as long.
const LOOKS_PER_UPDATE: u64 = 2;

/// Parameters of the lock on whole columns.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct LockedColumnParams {
    /// Detector columns.
    pub n_cols: u32,
    /// Angles.
    pub n_angles: u32,
    /// First row of these columns within the rows of the step.
    pub first_row: u32,
    /// First pixel, edge or column of the dispatch.
    pub first: u32,
    /// Least transmission.
    pub min_transmission: f32,
}

/// A column of a broad stripe.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct LevelledColumn {
    /// Row within the rows at hand.
    pub row: u32,
    /// Column of the detector.
    pub col: u32,
    /// Place of the left edge of the stripe among all; the right one follows.
    pub left: u32,
    /// Share of the way from the left edge to the right one.
    pub share: f32,
}

impl CountSlab {
    /// Edges and columns of the broad stripes of `rows`, counted from the first of these.
    pub(super) fn broad_of(&self, rows: &Range<usize>) -> (Vec<LockedPixel>, Vec<LevelledColumn>) {
        let first = rows.start as u32;
        let row_of = |edge: &LockedPixel| edge.at[0] as usize;
        let before = self.edges.partition_point(|edge| row_of(edge) < rows.start);
        let end = self.edges.partition_point(|edge| row_of(edge) < rows.end);
        let edges = self.edges[before..end].iter().map(|edge| LockedPixel {
            at: [edge.at[0] - first, edge.at[1], edge.at[2], edge.at[3]],
            ..*edge
        });
        let within = |column: &&LevelledColumn| rows.contains(&(column.row as usize));
        let levelled = self.levelled.iter().filter(within);
        let levelled = levelled.map(|column| LevelledColumn {
            row: column.row - first,
            left: column.left - before as u32,
            ..*column
        });
        (edges.collect(), levelled.collect())
    }

    /// How far a line integral of the kernels may be from that of the CPU where [`CountSlab::takes_columns`], but for samples that
    /// change places in a sort: column by column, once both are sorted.
    ///
    /// The step at the edge of a broad stripe is a sum of line integrals with its weights, and takes one more exponential; a locked
    /// pixel may have levelled neighbours. A sorted column, and a median over sorted columns, is no farther off than
    /// the worst sample; a factor and its quotient are off by 2.5 units each, a straight line by two roundings, and twice
    /// that is what -ln may make of them. Regularization takes a difference of means of logarithms. Normalization adds a difference of
    /// means of transmission: for it this holds of transmission, not of line integrals.
    ///
    /// What filtering, fitting, the Fourier and the wavelet filter add is bounded beside their kernels, not here.
    #[must_use]
    pub fn columns_tolerance(&self) -> f32 {
        let of = |edge: &LockedPixel| locked_tolerance(self.min_transmission, &edge.weights);
        let levelled = self.edges.iter().map(of).fold(0.0, f32::max);
        let rounded = 16.0 * f32::EPSILON;
        let before = self.tolerance() + levelled;
        match self.stripe {
            None => 2.0 * before,
            Some(StripeRemoval::Normalization(_)) => 3.0 * before + rounded,
            Some(StripeRemoval::Regularization(_)) => 3.0 * before + 2.0_f32.powi(-20) + rounded,
            Some(_) => 2.0 * before + rounded,
        }
    }
}

/// Columns of some rows of a step.
struct Part {
    rows: Range<usize>,
    /// `[row, col, angle]`
    columns: wgpu::Buffer,
}

/// What broad stripes take beside.
struct Broad {
    level_columns: Kernel,
    edges: Lock,
    /// Of the rows that were set last.
    levelled: Vec<LevelledColumn>,
    columns: wgpu::Buffer,
}

/// What locked pixels take beside.
struct Pixels {
    treat_columns: Kernel,
    lock: Lock,
}

/// The columns of a step with the kernels that work on them.
pub(super) struct WholeColumns {
    take_columns: Kernel,
    write_lines: Kernel,
    parts: Vec<Part>,
    broad: Option<Broad>,
    pixels: Option<Pixels>,
    /// Where there is a double flat field.
    scale_columns: Option<Kernel>,
    stripes: Option<StripeKernels>,
}

/// Rows to a buffer, of rows with so many columns and angles.
fn rows_at_once(
    stripes: Option<&StripeRemoval>,
    [n_angles, n_cols]: [usize; 2],
    limit: u64,
    updates: u64,
) -> usize {
    let samples = (n_cols * n_angles).max(1) as u64;
    let beside = stripes.map_or(0, |removal| removal.beside_on_gpu(n_cols, n_angles).largest);
    let by_size = limit.min(BUFFER_BYTES) / (4 * samples.max(beside as u64));
    let window = stripes.map_or(1, |removal| removal.widest_window(n_cols, n_angles));
    // a first median looks at 32 windows for a segment of columns, and each of the others at one
    let looks = LOOKS_PER_UPDATE.saturating_mul(updates) / (samples * 2 * window.max(1) as u64);
    by_size.min(looks).max(1) as usize
}

impl WholeColumns {
    /// Compiles the kernels and takes the buffers for `n_rows` rows of `slab`.
    pub(super) fn new(gpu: &Gpu, slab: &CountSlab, n_rows: usize, updates: u64) -> Result<Self> {
        let (n_angles, _, n_cols) = slab.counts.dim();
        let of_row = [n_angles, n_cols];
        let at_once = rows_at_once(slab.stripe.as_ref(), of_row, gpu.max_bytes(), updates);
        let part = |first: usize| {
            let rows = first..(first + at_once).min(n_rows);
            let samples = rows.len() * n_cols * n_angles;
            Ok(Part {
                rows,
                columns: gpu.storage::<f32>("columns", samples)?,
            })
        };
        let parts: Vec<Part> = (0..n_rows)
            .step_by(at_once)
            .map(part)
            .collect::<Result<_>>()?;
        let lock = |most: usize| {
            let source = (LOCKED_COLUMNS_SOURCE, "deviate_column");
            Lock::new(gpu, source, n_rows * most, n_angles, updates)
        };
        let [most_edges, most_levelled] = slab.most_broad;
        Ok(WholeColumns {
            take_columns: Kernel::new(gpu, SORT_SOURCE, "take_columns")?,
            write_lines: Kernel::new(gpu, SORT_SOURCE, "write_lines")?,
            parts,
            broad: match most_edges {
                0 => None,
                _ => Some(Broad {
                    level_columns: Kernel::new(gpu, LOCKED_COLUMNS_SOURCE, "level_columns")?,
                    edges: lock(most_edges)?,
                    levelled: Vec::new(),
                    columns: gpu
                        .storage::<LevelledColumn>("broad stripes", n_rows * most_levelled)?,
                }),
            },
            pixels: match slab.most_locked {
                0 => None,
                most => Some(Pixels {
                    treat_columns: Kernel::new(gpu, LOCKED_COLUMNS_SOURCE, "treat_columns")?,
                    lock: lock(most)?,
                }),
            },
            scale_columns: match slab.factors.is_empty() {
                true => None,
                false => Some(Kernel::new(gpu, LOCKED_COLUMNS_SOURCE, "scale_columns")?),
            },
            stripes: match slab.stripe {
                None => None,
                Some(removal) => {
                    let shape = [at_once.min(n_rows), n_cols, n_angles];
                    Some(StripeKernels::new(gpu, removal, shape)?)
                }
            },
        })
    }

    /// Hands over what the lock says of the rows of a step.
    pub(super) fn set_rows(&mut self, gpu: &Gpu, slab: &CountSlab, step: &Step) -> Result<()> {
        if let Some(pixels) = &mut self.pixels {
            pixels.lock.set(gpu, slab.locked_of(&step.new_rows()).0)?;
        }
        if let Some(broad) = &mut self.broad {
            let (edges, levelled) = slab.broad_of(&step.new_rows());
            broad.edges.set(gpu, edges)?;
            gpu.write(&broad.columns, 0, &levelled)?;
            broad.levelled = levelled;
        }
        Ok(())
    }

    /// Those parts that hold rows of the step, with these rows.
    fn parts(&self, n_rows: usize) -> impl Iterator<Item = (Range<usize>, &wgpu::Buffer)> {
        let within = move |part: &Part| part.rows.start..part.rows.end.min(n_rows);
        let parts = self.parts.iter();
        parts
            .map(move |part| (within(part), &part.columns))
            .filter(|(rows, _)| !rows.is_empty())
    }

    /// Cleaned transmission `[row, wanted angle, col]` of a block becomes part of the columns.
    pub(super) fn take(
        &self,
        batch: &mut Batch<'_>,
        params: &LineIntegralParams,
        lines: &wgpu::Buffer,
    ) -> Result<()> {
        for (rows, columns) in self.parts(params.n_rows as usize) {
            let params = stripe_params(params, &rows);
            let buffers = [(1, lines), (2, columns)];
            batch.launch(&self.take_columns, &params, &buffers, tiles(&params))?;
        }
        Ok(())
    }

    /// Line integrals `[row, wanted angle, col]` of a block from the columns, behind those of rows that were kept.
    pub(super) fn write(
        &self,
        batch: &mut Batch<'_>,
        params: &LineIntegralParams,
        lines: &wgpu::Buffer,
        touched: &wgpu::Buffer,
    ) -> Result<()> {
        for (rows, columns) in self.parts(params.n_rows as usize) {
            let params = StripeParams {
                first_row: params.n_kept + rows.start as u32,
                first_counted: params.n_kept + params.first_counted,
                ..stripe_params(params, &rows)
            };
            let buffers = [(1, lines), (2, columns), (5, touched)];
            batch.launch(&self.write_lines, &params, &buffers, tiles(&params))?;
        }
        Ok(())
    }

    /// The lock, the double flat field and the stripe removal, on the columns of all angles; `run` submits what each batch takes.
    pub(super) fn treat(
        &self,
        params: &LineIntegralParams,
        factors: &wgpu::Buffer,
        touched: &wgpu::Buffer,
        mut run: impl FnMut(&dyn Fn(&mut Batch<'_>) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        let n_rows = params.n_rows as usize;
        let n_angles = params.n_angles as usize;
        if let Some(broad) = &self.broad {
            self.deviate(params, &broad.edges, &mut run)?;
            let params = LineIntegralParams {
                width: lock::median_width_broad(n_angles) as u32,
                ..*params
            };
            broad.edges.slow_part(&params, &mut run)?;
            for (rows, columns) in self.parts(n_rows) {
                let of = |row: usize| broad.levelled.partition_point(|c| (c.row as usize) < row);
                let buffers = [(1, columns), (4, &broad.edges.slow), (5, &broad.columns)];
                let within = of(rows.start)..of(rows.end);
                let params = locked_params(&params, &rows);
                locked_part(&broad.level_columns, &params, within, &buffers, &mut run)?;
            }
        }
        if let Some(pixels) = &self.pixels {
            self.deviate(params, &pixels.lock, &mut run)?;
            pixels.lock.slow_part(params, &mut run)?;
            for (rows, columns) in self.parts(n_rows) {
                let buffers = [
                    (1, columns),
                    (2, &pixels.lock.pixels),
                    (4, &pixels.lock.slow),
                ];
                let within = pixels.lock.of_rows(&rows);
                let params = locked_params(params, &rows);
                locked_part(&pixels.treat_columns, &params, within, &buffers, &mut run)?;
            }
        }
        if let Some(scale_columns) = &self.scale_columns {
            for (rows, columns) in self.parts(n_rows) {
                let n = [
                    params.n_angles.div_ceil(256),
                    params.n_cols,
                    rows.len() as u32,
                ];
                let buffers = [(1, columns), (6, factors)];
                let params = locked_params(params, &rows);
                run(&|batch| batch.launch(scale_columns, &params, &buffers, n))?;
            }
        }
        if let Some(stripes) = &self.stripes {
            for (rows, columns) in self.parts(n_rows) {
                let params = stripe_params(params, &rows);
                stripes.launch(&params, columns, touched, &mut run)?;
            }
        }
        Ok(())
    }

    /// What the pixels or edges of `lock` deviate by.
    fn deviate(
        &self,
        params: &LineIntegralParams,
        lock: &Lock,
        run: &mut Submit<'_>,
    ) -> Result<()> {
        for (rows, columns) in self.parts(params.n_rows as usize) {
            let buffers = [(1, columns), (2, &lock.pixels), (3, &lock.deviation)];
            let within = lock.of_rows(&rows);
            let params = locked_params(params, &rows);
            locked_part(&lock.deviate, &params, within, &buffers, run)?;
        }
        Ok(())
    }
}

/// Launches `kernel` on the pixels or columns `within`.
fn locked_part(
    kernel: &Kernel,
    params: &LockedColumnParams,
    within: Range<usize>,
    buffers: &[(u32, &wgpu::Buffer)],
    run: &mut Submit<'_>,
) -> Result<()> {
    for pixels in chunks(within, usize::MAX) {
        let params = LockedColumnParams {
            first: pixels.start as u32,
            ..*params
        };
        let workgroups = [params.n_angles.div_ceil(256), pixels.len() as u32, 1];
        run(&|batch| batch.launch(kernel, &params, buffers, workgroups))?;
    }
    Ok(())
}

fn locked_params(params: &LineIntegralParams, rows: &Range<usize>) -> LockedColumnParams {
    LockedColumnParams {
        n_cols: params.n_cols,
        n_angles: params.n_angles,
        first_row: rows.start as u32,
        first: 0,
        min_transmission: params.min_transmission,
    }
}

fn stripe_params(params: &LineIntegralParams, rows: &Range<usize>) -> StripeParams {
    StripeParams {
        n_rows: rows.len() as u32,
        n_cols: params.n_cols,
        n_angles: params.n_angles,
        first_row: rows.start as u32,
        first_wanted: params.first_wanted,
        n_wanted: params.n_wanted,
        first_counted: params.first_counted,
        min_transmission: params.min_transmission,
        ..StripeParams::default()
    }
}

/// Tiles of 32 columns and angles.
fn tiles(params: &StripeParams) -> [u32; 3] {
    [
        params.n_cols.div_ceil(32),
        params.n_wanted.div_ceil(32),
        params.n_rows,
    ]
}

/// Bytes that whole columns take on the GPU for steps of `rows` rows, at most, with this stripe removal.
#[must_use]
pub fn column_bytes(
    stripes: Option<&StripeRemoval>,
    [n_angles, n_cols]: [usize; 2],
    rows: usize,
) -> u64 {
    let samples = (n_angles * n_cols) as u64;
    let one_buffer = (rows as u64 * samples).min((BUFFER_BYTES / 4).max(samples));
    let beside = stripes.map_or(0, |removal| removal.beside_on_gpu(n_cols, n_angles).samples);
    // beside the columns of one buffer only
    4 * (rows as u64 * samples + (one_buffer * beside as u64).div_ceil(samples.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correct::stripe::{Fitting, WaveletFft};

    #[test]
    fn rows_share_a_buffer_as_far_as_it_may_be_large_and_a_launch_long() {
        let large = u64::MAX / 8;
        let at_once = |removal: StripeRemoval, limit: u64, updates: u64| {
            rows_at_once(Some(&removal), [3001, 2048], limit, updates)
        };
        let median = StripeRemoval::Sorting(51);
        // 24.6 MB to a row
        assert_eq!(at_once(median, large, large), 10);
        assert_eq!(at_once(median, 100 << 20, large), 4);
        // 6.1 million samples with 102 looks each
        assert_eq!(at_once(median, large, 1_000_000_000), 3);
        assert_eq!(at_once(median, 1, 1), 1);
        // a sigma of 10 in 2348 Fourier samples is one of 37 samples; 6.1 million with twice 5.5 of them on either side
        let fitting = StripeRemoval::Fitting(Fitting {
            order: 2,
            sigma: 10.0,
        });
        assert_eq!(at_once(fitting, large, 10_000_000_000), 3);
        let plane = 4 * 3001 * 2048;
        assert_eq!(column_bytes(None, [3001, 2048], 4), 4 * plane);
        let means = StripeRemoval::Normalization(15.0);
        assert_eq!(column_bytes(Some(&means), [3001, 2048], 4), 4 * plane);
        let sorting = StripeRemoval::Sorting(21);
        assert_eq!(column_bytes(Some(&sorting), [3001, 2048], 4), 3 * 4 * plane);
        // the fit and two parts of it; polynomials of 3 terms in blocks of 64, twice as many as a column has, and a few sums
        let of_fit = column_bytes(Some(&fitting), [3001, 2048], 4) as f64 / (4 * plane) as f64;
        assert!((of_fit - 4.0 - 6.0 / 64.0).abs() < 0.003, "{of_fit}");
        // low-pass along the angle, approximation, details, all with edges of 150, and two of 2048 and 17 coefficients
        let wavelets = StripeRemoval::WaveletFft(WaveletFft {
            levels: 5,
            order: 9,
            sigma: 1.0,
        });
        let (tall, wide) = (3301.0 / 3001.0, 2348.0 / 2048.0);
        let share = tall * wide * (1.0 / 2.0 + 1.0 / 4.0 + 1.0 / 3.0);
        let of_wavelets = column_bytes(Some(&wavelets), [3001, 2048], 4) as f64;
        let of_wavelets = of_wavelets / (4 * plane) as f64 - 1.0;
        assert!(
            (of_wavelets / share - 1.0).abs() < 0.03,
            "{of_wavelets} {share}"
        );
        let twenty = column_bytes(Some(&sorting), [3001, 2048], 20);
        assert_eq!(twenty, 4 * 20 * 3001 * 2048 + 2 * (256 << 20));
    }
}
