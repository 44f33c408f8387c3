//! One slab on several GPUs: each makes a share of its slices, all at the same time.
//!
//! A slice does not depend on what is made with it, so the shares do not show: GPUs of one kind give the bits of one of them.

use std::ops::Range;

use ndarray::{ArrayView3, ArrayViewMut3, Axis};

use super::{GpuEngine, Input};
use crate::correct::line_integrals::{CountSlab, Touched};
use crate::error::{Error, Result};

/// Slices `[z, y, x]` of sinograms `[row, angle, col]`, see [`GpuEngine::slab`].
///
/// # Errors
/// As for [`GpuEngine::slab`], the first of any GPU.
pub fn slab(
    engines: &mut [GpuEngine],
    sinograms: ArrayView3<'_, f32>,
    axis_px: &[f64],
    out: ArrayViewMut3<'_, f32>,
) -> Result<()> {
    deal(engines, Input::LineIntegrals(sinograms), axis_px, out).map(drop)
}

/// Slices of counts that are corrected on the way, see [`GpuEngine::slab_of_counts`].
///
/// # Errors
/// As for [`GpuEngine::slab_of_counts`], the first of any GPU.
pub fn slab_of_counts(
    engines: &mut [GpuEngine],
    slab: &CountSlab,
    axis_px: &[f64],
    out: ArrayViewMut3<'_, f32>,
) -> Result<Touched> {
    deal(engines, Input::Counts(slab), axis_px, out)
}

/// Rows of each of `n` GPUs, whole steps of `step` rows.
fn shares(n_rows: usize, step: usize, n: usize) -> Vec<Range<usize>> {
    let steps = n_rows.div_ceil(step);
    let at = |index: usize| (steps * index / n * step).min(n_rows);
    (0..n).map(|index| at(index)..at(index + 1)).collect()
}

fn deal(
    engines: &mut [GpuEngine],
    input: Input<'_>,
    axis_px: &[f64],
    mut out: ArrayViewMut3<'_, f32>,
) -> Result<Touched> {
    let step = engines
        .iter()
        .map(GpuEngine::rows_at_once)
        .max()
        .unwrap_or(1);
    let shares = shares(axis_px.len(), step, engines.len());
    let parts: Vec<Result<Touched>> = std::thread::scope(|scope| {
        let mut running = Vec::with_capacity(engines.len());
        for (engine, rows) in engines.iter_mut().zip(&shares) {
            let (part, rest) = out.split_at(Axis(0), rows.len());
            out = rest;
            let rows = rows.clone();
            running.push(scope.spawn(move || match rows.is_empty() {
                true => Ok(Touched::default()),
                false => engine.part(input, rows.clone(), &axis_px[rows], part),
            }));
        }
        let joined = running.into_iter().map(|thread| thread.join());
        joined
            .map(|part| {
                part.unwrap_or_else(|_| {
                    Err(Error::Gpu {
                        problem: "the thread of a GPU ended early".into(),
                        hint: "run again with one GPU, and report this".into(),
                    })
                })
            })
            .collect()
    });
    let mut all = Touched::default();
    for part in parts {
        all += part?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_dealt_out_once_in_whole_steps() {
        for (n_rows, step, n) in [(13, 4, 2), (4, 4, 3), (128, 16, 4), (1, 8, 2), (0, 4, 2)] {
            let shares = shares(n_rows, step, n);
            assert_eq!(shares.len(), n);
            assert_eq!((shares[0].start, shares[n - 1].end), (0, n_rows));
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(
                shares
                    .iter()
                    .all(|share| share.start.is_multiple_of(step) || share.is_empty())
            );
        }
    }
}
