//! The kernels of the corrections and of the Fourier method against their twins on small cases.

use super::throughput::{counts, with_broad_stripe};
use super::{Case, Check, worst};
use crate::correct::Beam;
use crate::correct::line_integrals::{
    CountSlab, LineIntegrals, Placement, Taps, line_integrals_cpu,
};
use crate::correct::stripe::on_gpu::{
    LOCAL as LOCAL_SORT, Sorter, StripeKernels, StripeParams, stripes_cpu,
};
use crate::correct::stripe::{
    Dead, Filtering, Fitting, Large, Raven, StripeCounts, StripeRemoval, WaveletFft,
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
        locked_columns(gpu)?,
        sort_columns(gpu)?,
        find_stripes(gpu)?,
        column_means(gpu)?,
        filter_columns(gpu)?,
        fit_columns(gpu)?,
        wavelet_columns(gpu)?,
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
        beam: Some(Beam {
            factors: None,
            air: vec![2..12, 118..129],
        }),
        factors: (0..n_rows * n_cols)
            .map(|i| 1.0 + 0.001 * (i % 7) as f32)
            .collect(),
        ..counts(n_cols, n_angles, n_rows)
    };
    // a little noise, so that a zinger stands out of it; a pixel that drifts, which is locked
    for ((angle, row, col), count) in slab.counts.indexed_iter_mut() {
        let drift = if col == n_cols / 2 { 3 * angle } else { 0 };
        let air = match col {
            ..14 | 116.. => 12_000 + 20 * angle,
            _ => 0,
        };
        *count = (5_000 + (angle * 31 + row * 17 + col * 7) % 101 + drift + air) as u16;
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
    other.counts[[5, 2, 40]] += 100;
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

/// A broad stripe, and locked pixels, with a buffer for each row.
fn locked_columns(gpu: &Gpu) -> Result<Check> {
    let (n_angles, n_rows, n_cols) = (70, 2, 131);
    let mut slab = with_broad_stripe(counts(n_cols, n_angles, n_rows), 1, 40..49);
    for ((angle, row, col), count) in slab.counts.indexed_iter_mut() {
        let broad = if row == 1 && (40..49).contains(&col) {
            250 + angle
        } else {
            0
        };
        *count = (5_000 + (angle * 31 + row * 17 + col * 7) % 101 + broad) as u16;
    }
    let blocks = [0..n_angles / 2, n_angles / 2..n_angles];
    let mut kernels = LineIntegrals::new(gpu, &slab, n_rows, &blocks, 1)?;
    let (found, found_touched) = kernels.run(gpu, &slab, &blocks)?;
    let (reference, touched) = line_integrals_cpu(&slab);
    let mut other = slab.clone();
    // a step that is no difference
    other.edges[0].weights = [-1.5, 0.5, 1.0, -0.5];
    let mut check = check(
        "locked_columns",
        [n_cols, n_angles, n_rows],
        &found,
        &reference,
        &line_integrals_cpu(&other).0,
        slab.columns_tolerance(),
    );
    check.passed &= found_touched == touched;
    Ok(check)
}

/// More angles than a workgroup sorts at once, many of them equal.
fn sort_columns(gpu: &Gpu) -> Result<Check> {
    let (n_angles, n_cols) = (LOCAL_SORT + 700, 5);
    let values: Vec<f32> = noise(n_angles * n_cols)
        .iter()
        .map(|value| (value * 400.0).round() / 7.0)
        .collect();
    let columns = gpu.storage_from("columns", &values)?;
    let order = gpu.storage::<u32>("order", values.len())?;
    let params = StripeParams {
        n_rows: 1,
        n_cols: n_cols as u32,
        n_angles: n_angles as u32,
        ..StripeParams::default()
    };
    let mut batch = gpu.batch("sorting");
    Sorter::new(gpu)?.launch(&mut batch, &params, &columns, &order)?;
    batch.submit();
    let mut found: Vec<f32> = gpu.read(&columns)?;
    found.extend(gpu.read::<u32>(&order)?.iter().map(|&angle| angle as f32));
    let by_host = |values: &[f32]| {
        let mut orders: Vec<f32> = Vec::new();
        let mut sorted: Vec<f32> = Vec::new();
        for column in values.chunks_exact(n_angles) {
            let mut order: Vec<usize> = (0..n_angles).collect();
            order.sort_by(|&a, &b| column[a].total_cmp(&column[b]));
            sorted.extend(order.iter().map(|&angle| column[angle]));
            orders.extend(order.iter().map(|&angle| angle as f32));
        }
        sorted.extend(orders);
        sorted
    };
    let mut other = values.clone();
    other[n_angles / 2] += 100.0;
    Ok(check(
        "sort_columns",
        [n_cols, n_angles, 1],
        &found,
        &by_host(&values),
        &by_host(&other),
        // values are moved, not computed
        0.0,
    ))
}

/// Columns `[row, col, angle]` of 2 rows, 160 columns and 70 angles: some of wrong gain, and one that is dead.
fn striped() -> Vec<f32> {
    let sample = noise(2 * 160 * 70);
    let at = |(index, noise): (usize, &f32)| {
        let value = 0.6 + 0.02 * noise;
        match index / 70 % 160 {
            90 => 0.4,
            40..43 => 0.8 * value,
            _ => value,
        }
    };
    sample.iter().enumerate().map(at).collect()
}

/// Stripes are removed from columns of the size of [`striped`] as by the twin, and as many are counted.
fn stripes(
    gpu: &Gpu,
    name: &str,
    removal: StripeRemoval,
    columns: &[f32],
    tolerance: f32,
) -> Result<(Check, [u32; 2])> {
    let (n_angles, n_cols, n_rows) = (70, 160, 2);
    let buffer = gpu.storage_from("columns", columns)?;
    let touched = gpu.storage::<u32>("touched", 4)?;
    let params = StripeParams {
        n_rows: n_rows as u32,
        n_cols: n_cols as u32,
        n_angles: n_angles as u32,
        ..StripeParams::default()
    };
    let kernels = StripeKernels::new(gpu, removal, [n_rows, n_cols, n_angles])?;
    kernels.launch(&params, &buffer, &touched, &mut |record| {
        let mut batch = gpu.batch("stripes");
        record(&mut batch)?;
        batch.submit();
        Ok(())
    })?;
    let found: Vec<f32> = gpu.read(&buffer)?;
    let counted: Vec<u32> = gpu.read(&touched)?;
    let by_twin = |columns: &[f32]| {
        let (mut treated, mut counts) = (Vec::new(), StripeCounts::default());
        for row in columns.chunks_exact(n_cols * n_angles) {
            let turned = |values: &[f32], rows: usize, cols: usize| -> Vec<f32> {
                let of = |i: usize| values[i % rows * cols + i / rows];
                (0..values.len()).map(of).collect()
            };
            let mut sinogram = turned(row, n_cols, n_angles);
            let found = stripes_cpu(&removal, &mut sinogram, n_cols);
            counts.large += found.large;
            counts.dead += found.dead;
            treated.extend(turned(&sinogram, n_angles, n_cols));
        }
        (treated, counts)
    };
    let mut other = columns.to_vec();
    other.iter_mut().step_by(97).for_each(|value| *value *= 1.2);
    let (moved, _) = by_twin(&other);
    let (reference, counts) = by_twin(columns);
    let size = [n_cols, n_angles, n_rows];
    let mut check = check(name, size, &found, &reference, &moved, tolerance);
    let expected = [counts.large, counts.dead].map(|count| count as u32);
    check.passed &= counted[2..] == expected;
    Ok((check, expected))
}

fn find_stripes(gpu: &Gpu) -> Result<Check> {
    let large = Large {
        snr: 3.0,
        size: 31,
        drop_ratio: 0.1,
        normalize: true,
    };
    let dead = Dead {
        snr: 3.0,
        size: 31,
        smooth: 10,
    };
    // two quotients of values below 1
    let tolerance = 8.0 * f32::EPSILON;
    let removal = StripeRemoval::All(dead, large, 7);
    let (mut check, counted) = stripes(gpu, "find_stripes", removal, &striped(), tolerance)?;
    check.passed &= counted.iter().all(|&count| count > 0);
    Ok(check)
}

/// The worse of two checks of one shader.
fn worse(one: Check, other: Check) -> Check {
    Check {
        worst: one.worst.max(other.worst),
        passed: one.passed && other.passed,
        ..one
    }
}

fn column_means(gpu: &Gpu) -> Result<Check> {
    // two logarithms near 1, and an exponential
    let tolerance = 2.0_f32.powi(-20) + 8.0 * f32::EPSILON;
    let of = |removal| stripes(gpu, "column_means", removal, &striped(), tolerance);
    let (sums, _) = of(StripeRemoval::Normalization(9.0))?;
    let (logarithms, _) = of(StripeRemoval::Regularization(5e-3))?;
    Ok(worse(sums, logarithms))
}

fn filter_columns(gpu: &Gpu) -> Result<Check> {
    // a dozen waves, each a sum of 12 roundings, twice: once in each of the two parts of a sample
    let tolerance = 2.0 * 12.0 * 12.0 * f32::EPSILON;
    let of = |removal, columns: &[f32]| stripes(gpu, "filter_columns", removal, columns, tolerance);
    let raven = StripeRemoval::Fft(Raven {
        cutoff: 8.0,
        order: 4,
        rows: 2,
    });
    let (raven, _) = of(raven, &striped())?;
    // samples of a column that are far apart, as those equal but for rounding would change places
    let smooth = |index: usize| {
        let (col, angle) = (index / 70 % 160, index % 70);
        let gain = 1.0 + 0.02 * (col * col % 5) as f32;
        gain * (0.6 + 0.2 * (angle as f32 / 70.0 * std::f32::consts::PI).cos())
    };
    let smooth: Vec<f32> = (0..2 * 160 * 70).map(smooth).collect();
    let filtering = Filtering {
        sigma: 12.0,
        size: 7,
    };
    let (filtering, _) = of(StripeRemoval::Filtering(filtering), &smooth)?;
    Ok(worse(raven, filtering))
}

fn fit_columns(gpu: &Gpu) -> Result<Check> {
    // samples of 0.4 to 0.6, and of all of these the fit and its smooth version: each a sum of up to 256 terms, thus 16 roundings, of
    // magnitudes of up to twice the sum; two of them in a quotient of values below 1.5, and a few roundings of its own
    let tolerance = 2.0 * 2.0 * 1.5 * 16.0 * f32::EPSILON;
    let fitting = StripeRemoval::Fitting(Fitting {
        order: 4,
        sigma: 10.0,
    });
    Ok(stripes(gpu, "fit_columns", fitting, &striped(), tolerance)?.0)
}

fn wavelet_columns(gpu: &Gpu) -> Result<Check> {
    let filter = WaveletFft {
        levels: 5,
        order: 5,
        sigma: 1.0,
    };
    // two scales of four passes, each of 10 roundings of part sums of at most 10^(1/2), which come out at random; and the waves
    let tolerance = 6.0 * 8f32.sqrt() * 10.0 * f32::EPSILON / 12f32.sqrt() + 12.0 * f32::EPSILON;
    let removal = StripeRemoval::WaveletFft(filter);
    Ok(stripes(gpu, "wavelet_columns", removal, &striped(), tolerance)?.0)
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
