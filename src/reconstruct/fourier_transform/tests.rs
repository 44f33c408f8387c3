use super::*;
use crate::gpu::for_tests as gpu;
use crate::reconstruct::self_test::worst;
use rustfft::num_complex::Complex as C;

fn noise(len: usize) -> Vec<Complex> {
    let mut state = 5u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| [next(), next()]).collect()
}

fn params(n: usize, local: usize, n_lines: usize) -> FourierTransformParams {
    FourierTransformParams::new(n, local, n_lines, n, &Grid::square(n / 2), &(0..n / 2), 3)
}

/// log2(n) roundings of values that grow with the root of n, four of them at once.
fn tolerance(n: usize) -> f32 {
    4.0 * f32::EPSILON * n.ilog2() as f32 * (n as f32).sqrt() * 2.0
}

#[test]
fn the_twin_is_the_inverse_transform_whatever_a_workgroup_holds() {
    for (n, local) in [
        (4, 4),
        (32, 4096),
        (64, 8),
        (128, 32),
        (256, 4),
        (2048, 512),
    ] {
        let lines = noise(3 * n);
        let mut found = lines.clone();
        transform_cpu(&params(n, local, 3), &twiddles(n), &mut found);
        let fft = rustfft::FftPlanner::<f64>::new().plan_fft_inverse(n);
        for (line, found) in lines.chunks(n).zip(found.chunks(n)) {
            let mut exact: Vec<C<f64>> = line
                .iter()
                .map(|v| C::new(f64::from(v[0]), f64::from(v[1])))
                .collect();
            fft.process(&mut exact);
            let mut off: f64 = 0.0;
            for (k, exact) in exact.iter().enumerate() {
                let at = found[params(n, local, 3).reversed(k)];
                off = off.max((C::new(f64::from(at[0]), f64::from(at[1])) - exact).norm());
            }
            assert!(off < f64::from(tolerance(n)), "{n} {local}: {off}");
            assert!(
                exact[1].norm() > 100.0 * f64::from(tolerance(n)),
                "the check is blind"
            );
        }
    }
}

#[test]
fn every_kernel_agrees_with_its_twin() {
    let Some(gpu) = gpu() else { return };
    for (grid, mask, local, y) in [
        (Grid::square(16), Some(8.0), LOCAL, 0..16),
        (
            Grid {
                n_x: 37,
                n_y: 11,
                ..Grid::square(37)
            },
            None,
            16,
            4..11,
        ),
        (
            Grid {
                n_x: 20,
                n_y: 33,
                ..Grid::square(33)
            },
            Some(12.0),
            8,
            0..33,
        ),
    ] {
        let next = |n: usize| (2 * n).next_power_of_two().max(32);
        let (n_u, n_v) = (next(grid.n_x), next(grid.n_y));
        let (n_columns, u_band, rows) = (n_u / 2 + 1, 16, 4);
        let kernels = FourierTransform::new(&gpu, &grid, mask, (n_u, n_v), local).unwrap();
        let mut kept = vec![[f32::NAN; 2]; rows * y.len() * n_columns];
        let on_gpu = gpu.storage_from("kept", &kept).unwrap();
        for u_first in (0..n_columns).step_by(u_band) {
            let mut cells = noise(rows * u_band * n_v);
            let buffer = gpu.storage_from("cells", &cells).unwrap();
            let mut params =
                FourierTransformParams::new(n_v, kernels.local, u_band, n_u, &grid, &y, 3);
            params.u_first = u_first as u32;
            let mut batch = gpu.batch("along v");
            kernels
                .transform(&mut batch, &params, Along::V, rows as u32, &buffer)
                .unwrap();
            kernels
                .keep_rows(&mut batch, &params, rows as u32, &buffer, &on_gpu)
                .unwrap();
            batch.submit();
            transform_cpu(&params, &twiddles(n_v), &mut cells);
            let found: Vec<Complex> = gpu.read(&buffer).unwrap();
            let off = worst(found.as_flattened(), cells.as_flattened());
            assert!(off <= tolerance(n_v), "{off}");
            keep_rows_cpu(&params, &cells, &mut kept);
        }
        let found: Vec<Complex> = gpu.read(&on_gpu).unwrap();
        assert!(worst(found.as_flattened(), kept.as_flattened()) <= tolerance(n_v));

        let n_lines = y.len().div_ceil(2);
        let params = FourierTransformParams::new(n_u, kernels.local, n_lines, n_u, &grid, &y, 3);
        let mut lines = vec![[f32::NAN; 2]; rows * n_lines * n_u];
        let mut volume = vec![f32::NAN; 3 * y.len() * grid.n_x];
        let buffer = gpu.storage_from("lines", &lines).unwrap();
        let slices = gpu.storage_from("volume", &volume).unwrap();
        let mut batch = gpu.batch("along u");
        kernels
            .pair_rows(&mut batch, &params, rows as u32, &on_gpu, &buffer)
            .unwrap();
        kernels
            .transform(&mut batch, &params, Along::U, rows as u32, &buffer)
            .unwrap();
        kernels
            .write_slices(&mut batch, &params, &buffer, &slices)
            .unwrap();
        batch.submit();
        pair_rows_cpu(&params, &kept, &mut lines);
        transform_cpu(&params, &twiddles(n_u), &mut lines);
        let table = deapodise_table(&grid, n_u, n_v);
        let inside = spans(&grid, mask);
        write_slices_cpu(&params, &lines, &table, &inside, &mut volume);
        let largest = volume.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        // the errors of both transforms, as large as the slices are
        let tolerance = 4.0 * f32::EPSILON * (n_u.ilog2() + n_v.ilog2()) as f32 * largest;
        let found: Vec<f32> = gpu.read(&slices).unwrap();
        let off = worst(&found, &volume);
        assert!(off <= tolerance, "{off} > {tolerance}");
        kept[y.len() / 2 * n_columns + 2][0] += 1e-1;
        let before = volume.clone();
        pair_rows_cpu(&params, &kept, &mut lines);
        transform_cpu(&params, &twiddles(n_u), &mut lines);
        write_slices_cpu(&params, &lines, &table, &inside, &mut volume);
        assert!(worst(&before, &volume) > tolerance, "the check is blind");
    }
}
