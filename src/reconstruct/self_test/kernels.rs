//! The kernels of the corrections and of the Fourier method against their twins on small cases.

use super::throughput::counts;
use super::{Case, Check, worst};
use crate::correct::line_integrals::{
    CountSlab, LineIntegrals, Placement, Taps, line_integrals_cpu,
};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::reconstruct::filter::FilterPlan;
use crate::reconstruct::fourier_grid::{
    BlockGeometry, FourierGrid, FourierGridParams, TILE, gather_cells_cpu, grid_length, lines,
    list_branches, window_table,
};
use crate::reconstruct::fourier_transform::{
    Along, FourierTransform, FourierTransformParams, LOCAL, transform_cpu,
};
use crate::reconstruct::ramp_filter::twiddles;

/// All of them, each with a negative control.
///
/// # Errors
/// [`crate::Error::Gpu`] where a launch fails.
pub fn checks(gpu: &Gpu) -> Result<Vec<Check>> {
    Ok(vec![
        line_integrals(gpu)?,
        fourier_grid(gpu)?,
        fourier_transform(gpu)?,
    ])
}

/// From -1 to 1, the same in every run.
fn noise(len: usize) -> Vec<f32> {
    let mut state = 11u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// `moved`: the twin's result with one input changed, which must be seen.
fn check(
    kernel: &str,
    size: [usize; 3],
    found: &[f32],
    reference: &[f32],
    moved: &[f32],
    tolerance: f32,
) -> Check {
    let off = worst(found, reference);
    Check {
        kernel: kernel.into(),
        size,
        worst: off,
        tolerance,
        passed: off <= tolerance && worst(moved, reference) > 10.0 * tolerance,
    }
}

fn line_integrals(gpu: &Gpu) -> Result<Check> {
    let (n_angles, n_rows, n_cols) = (70, 3, 131);
    let mut slab = CountSlab {
        dark: vec![100.0; n_rows * n_cols],
        open_beams: (0..n_rows * n_cols)
            .map(|i| 20_000.0 + (i % 13) as f32)
            .collect(),
        ..counts(n_cols, n_angles, n_rows)
    };
    // a little noise, so that a zinger stands out of it; a pixel that drifts, which is locked
    for ((angle, row, col), count) in slab.counts.indexed_iter_mut() {
        let drift = if col == n_cols / 2 { 3 * angle } else { 0 };
        *count = (5_000 + (angle * 31 + row * 17 + col * 7) % 101 + drift) as u16;
    }
    slab.counts[[9, 1, 50]] = 60_000;
    // a bad pixel takes the cubic through its neighbours
    slab.good[n_cols + 20] = 19 | 21 << 16;
    // two slices between the three rows, the outermost of which are repeated
    let taps = |first: i32| Taps {
        weights: [0.02, -0.12, 0.6, 0.6, -0.12, 0.02],
        first,
        unused: 0,
    };
    slab.placement = Some(Placement {
        taps: vec![taps(-2), taps(-1)],
        n_slices: 2,
        scale: 1.0,
        spread: 0.0,
    });
    let blocks = [0..n_angles / 2, n_angles / 2..n_angles];
    let mut kernels = LineIntegrals::new(gpu, &slab, 2, &blocks, u64::MAX)?;
    let (found, found_touched) = kernels.run(gpu, &slab, &blocks)?;
    let (reference, touched) = line_integrals_cpu(&slab);
    let mut other = slab.clone();
    other.counts[[5, 2, 7]] += 10;
    let mut check = check(
        "line_integrals",
        [n_cols, n_angles, n_rows],
        &found,
        &reference,
        &line_integrals_cpu(&other).0,
        // of the sizes of the weights, and a rounding for each
        1.5 * slab.tolerance() + 12.0 * f32::EPSILON,
    );
    check.passed &= found_touched == touched && touched.zingers == 1;
    Ok(check)
}

fn fourier_grid(gpu: &Gpu) -> Result<Check> {
    let case = Case::new(48, 70, 4);
    let job = case.job();
    let plan = FilterPlan::new(&job)?;
    let (n_u, n_v) = (grid_length(48), grid_length(48));
    let band = (n_u / 2 + 1).next_multiple_of(TILE);
    let params = FourierGridParams::new(&plan, (n_u, n_v), 1, 70, band);
    let block = BlockGeometry::new(gpu, &job, &plan, &params, 0..70)?;
    let (n_samples, n_cells) = params.lens();
    let mut samples: Vec<[f32; 4]> = noise(4 * n_samples)
        .chunks_exact(4)
        .map(|v| [v[0], v[1], v[2], v[3]])
        .collect();
    gpu.write(&block.samples, 0, &samples)?;
    let cells = gpu.storage_from("cells", &vec![[f32::NAN; 2]; n_cells])?;
    let kernels = FourierGrid::new(gpu)?;
    let mut batch = gpu.batch("gridding");
    kernels.gather(&mut batch, &params, band as u32, &block, &cells)?;
    batch.submit();
    let found: Vec<[f32; 2]> = gpu.read(&cells)?;
    let geometry = lines(&job, &plan, n_u, n_v);
    let branches = list_branches(&geometry, plan.n_fft / 2, n_u, n_v);
    let twin = |samples: &[[f32; 4]]| {
        let mut cells = vec![[f32::NAN; 2]; n_cells];
        gather_cells_cpu(
            &params,
            &geometry,
            &branches,
            &window_table(),
            samples,
            &mut cells,
        );
        cells
    };
    let reference = twin(&samples);
    let largest = reference
        .as_flattened()
        .iter()
        .fold(0.0f32, |most, v| most.max(v.abs()));
    samples[2 * (plan.n_fft / 2 + 1)][0] += 0.1;
    Ok(check(
        "fourier_grid",
        [48, 70, 4],
        found.as_flattened(),
        reference.as_flattened(),
        twin(&samples).as_flattened(),
        // a place may be rounded by 4e-6 cells, and the window ends with a step of 9e-6
        3e-5 * (largest + 10.0),
    ))
}

fn fourier_transform(gpu: &Gpu) -> Result<Check> {
    let case = Case::new(700, 4, 1);
    let n = grid_length(700);
    let kernels = FourierTransform::new(gpu, &case.grid, None, (n, n), LOCAL)?;
    let params = FourierTransformParams::new(n, kernels.local, 3, n, &case.grid, &(0..0), 0);
    let mut reference: Vec<[f32; 2]> = noise(2 * 3 * n)
        .chunks_exact(2)
        .map(|v| [v[0], v[1]])
        .collect();
    let buffer = gpu.storage_from("lines", &reference)?;
    let mut batch = gpu.batch("transform");
    kernels.transform(&mut batch, &params, Along::V, 1, &buffer)?;
    batch.submit();
    let found: Vec<[f32; 2]> = gpu.read(&buffer)?;
    let mut other = reference.clone();
    other[5][0] += 0.1;
    transform_cpu(&params, &twiddles(n), &mut reference);
    transform_cpu(&params, &twiddles(n), &mut other);
    let largest = reference
        .as_flattened()
        .iter()
        .fold(0.0f32, |most, v| most.max(v.abs()));
    Ok(check(
        "fourier_transform",
        [n, 3, 1],
        found.as_flattened(),
        reference.as_flattened(),
        other.as_flattened(),
        4.0 * f32::EPSILON * n.ilog2() as f32 * largest,
    ))
}
