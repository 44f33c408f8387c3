use super::*;
use crate::config::ReconstructConfig;
use crate::gpu::for_tests as gpu;
use crate::reconstruct::geometry::{Grid, InPlaneMotion, rays};
use crate::reconstruct::ramp_filter::twiddles;
use crate::reconstruct::self_test::worst;
use rustfft::num_complex::Complex as C;

/// Angles over more than half a turn, exactly along both axes among them.
fn job(n: usize, n_angles: usize, step: f64) -> SliceJob {
    let angles: Vec<f64> = (0..n_angles)
        .map(|k| (k as f64 - 2.0) * PI / (n_angles as f64 / 1.5).floor())
        .collect();
    SliceJob {
        n_cols: n,
        rays: rays(&angles, InPlaneMotion::default()),
        grid: Grid {
            step,
            ..Grid::square(n)
        },
        config: ReconstructConfig::default(),
        scale: 1.0,
        mask_radius_px: None,
        support: None,
    }
}

fn noise(len: usize) -> Vec<f32> {
    let mut state = 3u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn samples(params: &FourierGridParams) -> Vec<[f32; 4]> {
    let (len, _) = params.lens();
    let values = noise(4 * len);
    values
        .chunks_exact(4)
        .map(|v| [v[0], v[1], v[2], v[3]])
        .collect()
}

/// The sum over all samples and their conjugates within the window, periodic, in f64.
fn cell(
    params: &FourierGridParams,
    geometry: &[Line],
    samples: &[[f32; 4]],
    lane: usize,
    (u, v): (usize, usize),
) -> C<f64> {
    let (n_u, n_v) = (f64::from(params.n_u), f64::from(params.n_v));
    let periodic = |d: f64, n: f64| d - (d / n).round() * n;
    let step = |along: [u32; 2]| f64::from(along[0]) + f64::from(along[1]) * 2.0_f64.powi(-32);
    let mut sum = C::new(0.0, 0.0);
    for (angle, line) in geometry.iter().enumerate() {
        let (du, dv) = (
            step(line.along_u),
            step(line.along_v) * if line.up == 1 { -1.0 } else { 1.0 },
        );
        for k in 0..params.n_k() {
            let at = 2 * (angle * params.n_k() + k);
            let value = C::new(
                f64::from(samples[at][lane]),
                f64::from(samples[at + 1][lane]),
            );
            for (sign, value) in [(1.0, value), (-1.0, value.conj())] {
                let d_u = periodic(u as f64 - sign * k as f64 * du, n_u).abs();
                let d_v = periodic(v as f64 - sign * k as f64 * dv, n_v).abs();
                if d_u < 3.0 && d_v < 3.0 {
                    sum += value * window(d_u) * window(d_v);
                }
            }
        }
    }
    sum
}

#[test]
fn the_twin_gathers_every_sample_and_its_conjugate_across_the_ends_of_the_grid() {
    for (n, n_angles, step) in [(13, 9, 1.0), (30, 7, 0.9), (16, 12, 0.37)] {
        let job = job(n, n_angles, step);
        let plan = FilterPlan::new(&job).unwrap();
        let (n_u, n_v) = (grid_length(n), grid_length(n));
        let band = (n_u / 2 + 1).next_multiple_of(TILE);
        let params = FourierGridParams::new(&plan, (n_u, n_v), 1, n_angles, band);
        let geometry = lines(&job, &plan, n_u, n_v);
        let branches = list_branches(&geometry, plan.n_fft / 2, n_u, n_v);
        let samples = samples(&params);
        let mut cells = vec![[f32::NAN; 2]; params.lens().1];
        gather_cells_cpu(
            &params,
            &geometry,
            &branches,
            &window_table(),
            &samples,
            &mut cells,
        );
        let (mut off, mut largest): (f64, f64) = (0.0, 0.0);
        for u in 0..=n_u / 2 {
            for v in 0..n_v {
                let lane = (u + v) % 4;
                let exact = cell(&params, &geometry, &samples, lane, (u, v));
                let found = cells[(lane * band + u) * n_v + v];
                let found = C::new(f64::from(found[0]), f64::from(found[1]));
                off = off.max((found - exact).norm());
                largest = largest.max(exact.norm());
            }
        }
        // the table errs by 2e-6 of a weight, a place by 4e-6 cells; up to a hundred samples meet at the centre, their
        // errors at random; the window ends with a step of 9e-6
        let tolerance = 3e-5 * (largest + 10.0);
        assert!(off < tolerance && largest > 2.0, "{n}: {off} of {largest}");
        let without = C::new(f64::from(samples[0][0]), 0.0).norm() * 0.1;
        assert!(without > 10.0 * tolerance, "a missing sample must be seen");
    }
}

#[test]
fn spectra_of_a_pair_are_those_of_its_rows() {
    let job = job(20, 3, 1.0);
    let plan = FilterPlan::new(&job).unwrap();
    let params = FourierGridParams::new(&plan, (64, 64), 1, 3, 48);
    let (n_fft, n_k) = (plan.n_fft, plan.n_fft / 2 + 1);
    let rows = noise(4 * 4 * n_fft);
    let row = |row: usize, angle: usize, index: usize| match angle {
        3 => 0.0,
        _ => rows[(row * 4 + angle) * n_fft + index],
    };
    let mut spectrum = vec![[f32::NAN; 2]; 4 * 2 * n_fft];
    let fft = rustfft::FftPlanner::<f64>::new().plan_fft_forward(n_fft);
    for r in 0..4 {
        for pair in 0..2 {
            let mut line: Vec<C<f64>> = (0..n_fft)
                .map(|i| {
                    C::new(
                        f64::from(row(r, 2 * pair, i)),
                        f64::from(row(r, 2 * pair + 1, i)),
                    )
                })
                .collect();
            fft.process(&mut line);
            for (k, value) in line.iter().enumerate() {
                let at = ((k as u32).reverse_bits() >> (32 - params.log2_n_fft)) as usize;
                spectrum[(r * 2 + pair) * n_fft + at] = [value.re as f32, value.im as f32];
            }
        }
    }
    let axes = [9.0, 9.3, 10.1, 8.0];
    let row_phases: Vec<Complex> = axes
        .iter()
        .flat_map(|&axis| row_phase(&plan, axis))
        .collect();
    let phases = angle_phase(&job, &plan, 0..3);
    let mut geometry = lines(&job, &plan, 64, 64);
    geometry[1].mirrored = 1;
    let mut samples = vec![[f32::NAN; 4]; params.lens().0];
    spectra_cpu(
        &params,
        &spectrum,
        &row_phases,
        &phases,
        &geometry,
        &mut samples,
    );
    let (mut off, mut largest): (f64, f64) = (0.0, 0.0);
    for (angle, line) in geometry.iter().enumerate() {
        for k in 0..n_k {
            for (r, axis) in axes.iter().enumerate() {
                let (x, y) = middle(&job.grid);
                let ray = &job.rays[angle];
                let place = ray.offset_px + x * ray.cos + y * ray.sin + plan.n_left as f64 + axis;
                let mut exact = C::new(0.0, 0.0);
                for index in 0..n_fft {
                    let turn = 2.0 * PI * k as f64 * (place - index as f64) / n_fft as f64;
                    exact += f64::from(row(r, angle, index)) * C::from_polar(1.0, turn);
                }
                exact *= f64::from(gain(&plan)[k]);
                if line.mirrored == 1 {
                    exact = exact.conj();
                }
                let at = 2 * (angle * n_k + k);
                let found = C::new(f64::from(samples[at][r]), f64::from(samples[at + 1][r]));
                off = off.max((found - exact).norm());
                largest = largest.max(exact.norm());
            }
        }
    }
    // two f32 factors and a sum: four roundings
    assert!(
        off < 4.0 * f64::from(f32::EPSILON) * largest,
        "{off} of {largest}"
    );

    let Some(gpu) = gpu() else { return };
    let kernels = FourierGrid::new(&gpu).unwrap();
    let block = BlockGeometry::new(&gpu, &job, &plan, &params, 0..3).unwrap();
    gpu.write(&block.geometry, 0, &geometry).unwrap();
    gpu.write(&block.samples, 0, &vec![[f32::NAN; 4]; samples.len()])
        .unwrap();
    let mut batch = gpu.batch("spectra");
    let spectrum = gpu.storage_from("spectrum", &spectrum).unwrap();
    let row_phases = gpu.storage_from("row phase", &row_phases).unwrap();
    kernels
        .spectra(&mut batch, &params, &spectrum, &row_phases, &block)
        .unwrap();
    batch.submit();
    let found: Vec<[f32; 4]> = gpu.read(&block.samples).unwrap();
    let tolerance = 4.0 * f32::EPSILON * largest as f32;
    assert!(worst(found.as_flattened(), samples.as_flattened()) <= tolerance);
    samples[7][1] += 20.0 * tolerance;
    assert!(worst(found.as_flattened(), samples.as_flattened()) > 10.0 * tolerance);
    assert_eq!(twiddles(4)[0], [1.0, 0.0]);
}

#[test]
fn the_kernel_gathers_what_its_twin_gathers_in_any_cut_of_angles_and_columns() {
    let Some(gpu) = gpu() else { return };
    for (n, n_angles, step) in [(40, 50, 1.0), (25, 31, 0.6)] {
        let job = job(n, n_angles, step);
        let plan = FilterPlan::new(&job).unwrap();
        let (n_u, n_v) = (grid_length(n), grid_length(n));
        let band = (n_u / 2 + 1).next_multiple_of(TILE);
        let all = FourierGridParams::new(&plan, (n_u, n_v), 2, n_angles, band);
        let geometry = lines(&job, &plan, n_u, n_v);
        let branches = list_branches(&geometry, plan.n_fft / 2, n_u, n_v);
        let samples = samples(&all);
        let mut reference = vec![[f32::NAN; 2]; all.lens().1];
        let table = window_table();
        gather_cells_cpu(&all, &geometry, &branches, &table, &samples, &mut reference);
        let largest = reference
            .as_flattened()
            .iter()
            .fold(0.0f32, |m, v| m.max(v.abs()));
        // a driver may place a sample by other roundings (4e-6 cells) and take it or leave it at the step at the window's end
        let tolerance = 3e-5 * (largest + 10.0);
        let kernels = FourierGrid::new(&gpu).unwrap();
        let mut results: Vec<Vec<Complex>> = Vec::new();
        for (angles, u_band) in [(n_angles, band), (8, 16)] {
            let mut found = vec![[f32::NAN; 2]; reference.len()];
            for u_first in (0..n_u / 2 + 1).step_by(u_band) {
                let columns = u_band.min(band - u_first);
                let cells = gpu
                    .storage_from("cells", &vec![[f32::NAN; 2]; 8 * u_band * n_v])
                    .unwrap();
                for first in (0..n_angles).step_by(angles) {
                    let part = first..(first + angles).min(n_angles);
                    let mut params =
                        FourierGridParams::new(&plan, (n_u, n_v), 2, part.len(), u_band);
                    params.u_first = u_first as u32;
                    params.start = u32::from(first == 0);
                    let block =
                        BlockGeometry::new(&gpu, &job, &plan, &params, part.clone()).unwrap();
                    let of_group = 2 * params.n_k();
                    let ours: Vec<[f32; 4]> = samples
                        .chunks(of_group * n_angles)
                        .flat_map(|group| &group[part.start * of_group..part.end * of_group])
                        .copied()
                        .collect();
                    gpu.write(&block.samples, 0, &ours).unwrap();
                    let mut batch = gpu.batch("gather");
                    kernels
                        .gather(&mut batch, &params, columns as u32, &block, &cells)
                        .unwrap();
                    batch.submit();
                    gpu.wait("gather").unwrap();
                }
                let values: Vec<Complex> = gpu.read(&cells).unwrap();
                for row in 0..8 {
                    found[(row * band + u_first) * n_v..][..columns * n_v]
                        .copy_from_slice(&values[row * u_band * n_v..][..columns * n_v]);
                }
            }
            let off = worst(found.as_flattened(), reference.as_flattened());
            assert!(off <= tolerance, "{n} {angles}: {off} > {tolerance}");
            results.push(found);
        }
        assert!(results[0] == results[1], "the cut must not show");
        let mut other = samples.clone();
        other[2 * all.n_k()][0] += 0.1;
        let mut moved = vec![[f32::NAN; 2]; reference.len()];
        gather_cells_cpu(&all, &geometry, &branches, &table, &other, &mut moved);
        let seen = worst(moved.as_flattened(), reference.as_flattened());
        assert!(seen > 10.0 * tolerance, "{seen}: the check is blind");
    }
}
