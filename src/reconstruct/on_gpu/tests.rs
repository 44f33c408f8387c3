mod columns;
mod speed;

use super::cut::BLOCK_BYTES;
use super::*;
use crate::config::GpuKernel;
use crate::gpu::AdapterKind;
use crate::gpu::for_tests as gpu;
use crate::reconstruct::backproject::{MAX_RAYS, TILE};
use crate::reconstruct::self_test::{Case, worst};
use ndarray::Array3;

fn sinograms(case: &Case) -> Array3<f32> {
    let len = case.n_rows * case.n_angles * case.n_cols;
    Array3::from_shape_vec(
        (case.n_rows, case.n_angles, case.n_cols),
        case.line_integrals()[..len].to_vec(),
    )
    .unwrap()
}

fn volume(case: &Case) -> Array3<f32> {
    Array3::from_elem((case.n_rows, case.grid.n_y, case.grid.n_x), f32::NAN)
}

#[test]
fn a_slab_is_what_the_twins_give_and_the_same_bit_for_bit_however_it_is_cut() {
    let Some(gpu) = gpu() else { return };
    let case = Case::new(77, 29, 13);
    let (job, plan) = (case.job(), FilterPlan::new(&case.job()).unwrap());
    let reference = case.run_cpu().unwrap();
    let [_, tolerance] = case.tolerances(&reference).unwrap();
    let all = Cut {
        packs: 4,
        angles: 29,
        band_rows: 96,
        updates: u64::MAX,
    };
    let mut results: Vec<Array3<f32>> = Vec::new();
    for cut in [
        all,
        Cut { packs: 1, ..all },
        Cut {
            packs: 3,
            angles: 8,
            ..all
        },
        Cut {
            angles: 6,
            band_rows: 32,
            ..all
        },
        Cut { updates: 1, ..all },
        Cut {
            packs: 2,
            angles: 2,
            band_rows: 64,
            updates: 1,
        },
    ] {
        let mut fbp =
            GpuEngine::with_cut(Arc::clone(&gpu), &job, plan.clone(), cut, false).unwrap();
        let mut out = volume(&case);
        fbp.slab(sinograms(&case).view(), &case.axes(), out.view_mut())
            .unwrap();
        assert!(
            worst(out.as_slice().unwrap(), &reference.volume) <= tolerance,
            "{cut:?}"
        );
        results.push(out);
    }
    assert!(
        results.iter().all(|result| *result == results[0]),
        "the cut must not show"
    );

    // another slab height, through buffers that hold the last slab, and a view that is not contiguous
    let mut fbp = GpuEngine::new(gpu, &job).unwrap();
    let wide = Array3::from_shape_fn((13, 29, 80), |(row, angle, col)| {
        if col < 77 {
            sinograms(&case)[[row, angle, col]]
        } else {
            f32::NAN
        }
    });
    let mut out = volume(&case);
    for rows in [0..5, 5..6, 6..13] {
        let part = wide.slice(s![rows.clone(), .., ..77]);
        fbp.slab(
            part,
            &case.axes()[rows.clone()],
            out.slice_mut(s![rows, .., ..]),
        )
        .unwrap();
    }
    assert_eq!(out, results[0]);
    let mut moved = volume(&case);
    let axes: Vec<f64> = case.axes().iter().map(|axis| axis + 0.1).collect();
    fbp.slab(sinograms(&case).view(), &axes, moved.view_mut())
        .unwrap();
    assert!(
        worst(moved.as_slice().unwrap(), &reference.volume) > 10.0 * tolerance,
        "0.1 px must be seen"
    );
}

#[test]
fn a_disk_has_its_attenuation_at_its_place() {
    let Some(gpu) = gpu() else { return };
    let (n, radius, at) = (96, 20.0, (11.0, 7.0));
    let case = Case {
        mask_radius_px: Some(47.0),
        ..Case::new(n, 151, 1)
    };
    let job = SliceJob {
        scale: 3.0,
        ..case.job()
    };
    let axis = 45.2;
    // a chord of a disk of attenuation 1 per pixel, averaged over the pixel
    let sinogram = Array3::from_shape_fn((1, 151, n), |(_, angle, col)| {
        let ray = job.rays[angle];
        let middle = ray.offset_px + at.0 * ray.cos + at.1 * ray.sin;
        let chord = |t: f64| 2.0 * (radius * radius - (t - middle).powi(2)).max(0.0).sqrt();
        let mean: f64 = (0..16)
            .map(|k| chord(col as f64 - axis + (k as f64 - 7.5) / 16.0))
            .sum::<f64>()
            / 16.0;
        mean as f32
    });
    let mut out = Array3::from_elem((1, n, n), f32::NAN);
    GpuEngine::new(gpu, &job)
        .unwrap()
        .slab(sinogram.view(), &[axis], out.view_mut())
        .unwrap();
    let half = (n as f64 - 1.0) / 2.0;
    let (mut sum, mut count, mut moment) = (0.0, 0.0, [0.0; 3]);
    for ((_, j, i), &value) in out.indexed_iter() {
        let (x, y) = (i as f64 - half, half - j as f64);
        let from_middle = (x - at.0).hypot(y - at.1);
        if from_middle < radius - 3.0 {
            sum += f64::from(value);
            count += 1.0;
        }
        if from_middle < radius + 4.0 {
            moment[0] += f64::from(value);
            moment[1] += x * f64::from(value);
            moment[2] += y * f64::from(value);
        }
        if x.hypot(y) > 47.0 {
            assert_eq!(value, 0.0);
        }
    }
    assert!((sum / count / 3.0 - 1.0).abs() < 5e-3, "{}", sum / count);
    let found = (moment[1] / moment[0], moment[2] / moment[0]);
    assert!(
        (found.0 - at.0).abs() < 0.02 && (found.1 - at.1).abs() < 0.02,
        "{found:?}"
    );
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let Some(gpu) = gpu() else { return };
    let case = Case::new(16, 9, 2);
    let mut fbp = GpuEngine::new(gpu, &case.job()).unwrap();
    let mut out = volume(&case);
    let error = fbp
        .slab(sinograms(&case).view(), &case.axes()[..1], out.view_mut())
        .unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    let error = fbp
        .slab(
            sinograms(&case).slice(s![.., ..8, ..]),
            &case.axes(),
            out.view_mut(),
        )
        .unwrap_err();
    assert!(error.to_string().contains("sinograms"), "{error}");
}

#[test]
fn the_cut_respects_the_largest_binding_at_every_size() {
    for (n_cols, n_angles) in [
        (1, 1),
        (100, 50),
        (1024, 1501),
        (2048, 3001),
        (3072, 3001),
        (6000, 6001),
    ] {
        let job = Case::new(n_cols, n_angles, 4).job();
        let plan = FilterPlan::new(&job).unwrap();
        for (kind, limit) in [
            (AdapterKind::Software, 128 << 20),
            (AdapterKind::Discrete, (2u64 << 30) - 4),
        ] {
            let cut = Cut::new(&plan, &job.grid, n_angles, kind, limit);
            let (largest, all) = RampFilterParams::new(&plan, cut.packs, cut.angles, LOCAL)
                .lens()
                .bytes();
            assert!(largest <= limit && all <= BLOCK_BYTES, "{n_cols}: {cut:?}");
            assert!(
                (16 * cut.packs * cut.band_rows.min(n_cols) * n_cols) as u64 <= limit,
                "{n_cols}: {cut:?}"
            );
            assert!(
                cut.angles >= 32.min(n_angles)
                    && cut.angles <= MAX_RAYS
                    && cut.band_rows.is_multiple_of(TILE),
                "{n_cols}: {cut:?}"
            );
            let mut smallest = cut;
            while let Some(next) = smallest.smaller() {
                assert!(next != smallest);
                smallest = next;
            }
            assert!(smallest.packs == 1 && smallest.angles <= 32);
        }
    }
}

#[test]
fn a_gpu_that_is_lost_between_slabs_is_an_error_and_no_slices_of_zeros() {
    let Some(gpu) = gpu() else { return };
    let case = Case::new(16, 9, 2);
    let mut fbp = GpuEngine::new(Arc::clone(&gpu), &case.job()).unwrap();
    let mut out = volume(&case);
    fbp.slab(sinograms(&case).view(), &case.axes(), out.view_mut())
        .unwrap();
    gpu.lose();
    let error = fbp
        .slab(sinograms(&case).view(), &case.axes(), out.view_mut())
        .unwrap_err();
    assert!(matches!(error, Error::Gpu { .. }), "{error}");
    assert!(GpuEngine::new(gpu, &case.job()).is_err());
}

/// The case with the Fourier method.
fn fourier(case: &Case) -> SliceJob {
    let mut job = case.job();
    job.config.method = ReconstructMethod::Fourier;
    job
}

#[test]
fn the_fourier_method_gives_the_slices_of_the_cpu_and_the_same_bits_however_it_is_cut() {
    let Some(gpu) = gpu() else { return };
    for case in [
        Case::new(77, 60, 9),
        Case {
            upsample: 1,
            mask_radius_px: None,
            grid: Grid {
                n_x: 31,
                n_y: 50,
                x0: -20.0,
                y0: 30.0,
                step: 0.8,
            },
            ..Case::new(64, 45, 5)
        },
    ] {
        let (job, plan) = (fourier(&case), FilterPlan::new(&case.job()).unwrap());
        let mut reference = volume(&case);
        Fourier::new(&job).unwrap().slab(
            sinograms(&case).view(),
            &case.axes(),
            reference.view_mut(),
        );
        let peak = reference.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        // both err by 1e-5 of the peak against the exact sum (table of the window, f32); other grid lengths, other roundings
        let tolerance = 2e-5 * peak;
        let chosen = Cut::fourier(
            &plan,
            &job.grid,
            case.n_angles,
            AdapterKind::Software,
            128 << 20,
        );
        let mut results: Vec<Array3<f32>> = Vec::new();
        for cut in [
            chosen,
            Cut {
                packs: 1,
                angles: 14,
                ..chosen
            },
            Cut {
                packs: 2,
                angles: 2,
                band_rows: 32,
                ..chosen
            },
        ] {
            let mut engine =
                GpuEngine::with_cut(Arc::clone(&gpu), &job, plan.clone(), cut, true).unwrap();
            let mut out = volume(&case);
            engine
                .slab(sinograms(&case).view(), &case.axes(), out.view_mut())
                .unwrap();
            let off = worst(out.as_slice().unwrap(), reference.as_slice().unwrap());
            assert!(off <= tolerance, "{cut:?}: {off} > {tolerance}");
            results.push(out);
        }
        assert!(
            results.iter().all(|result| *result == results[0]),
            "the cut must not show"
        );
        // one slice alone has the same bits as in a pack of four
        let mut engine = GpuEngine::new(Arc::clone(&gpu), &job).unwrap();
        let mut one = volume(&case);
        engine
            .slab(
                sinograms(&case).slice(s![2..3, .., ..]),
                &case.axes()[2..3],
                one.slice_mut(s![2..3, .., ..]),
            )
            .unwrap();
        assert!(one.slice(s![2, .., ..]) == results[0].slice(s![2, .., ..]));
        let axes: Vec<f64> = case.axes().iter().map(|axis| axis + 0.05).collect();
        let mut moved = volume(&case);
        engine
            .slab(sinograms(&case).view(), &axes, moved.view_mut())
            .unwrap();
        let seen = worst(moved.as_slice().unwrap(), reference.as_slice().unwrap());
        assert!(seen > 10.0 * tolerance, "0.05 px must be seen: {seen}");
    }
}

#[test]
fn the_method_is_chosen_by_cost_and_a_coarse_grid_is_refused_by_name() {
    let Some(gpu) = gpu() else { return };
    let mut job = Case::new(64, 5, 1).job();
    job.config.method = ReconstructMethod::Auto;
    let small = GpuEngine::new(Arc::clone(&gpu), &job).unwrap().describe();
    assert!(small.contains("back-projection"), "{small}");
    let mut wide = Case::new(512, 5, 1).job();
    wide.config.method = ReconstructMethod::Auto;
    let wide = GpuEngine::new(Arc::clone(&gpu), &wide).unwrap().describe();
    assert!(wide.contains("Fourier"), "{wide}");
    job.grid.step = 2.0;
    job.config.method = ReconstructMethod::Fourier;
    let Err(error) = GpuEngine::new(gpu, &job) else {
        panic!("voxels wider than a pixel")
    };
    assert!(error.to_string().contains("reconstruct.method"), "{error}");
}

#[test]
fn the_variants_of_back_projection_differ_by_no_more_than_they_say() {
    let Some(gpu) = gpu() else { return };
    let case = Case::new(64, 90, 13);
    let run = |variant: GpuKernel| -> Result<Array3<f32>> {
        let mut job = case.job();
        job.config.gpu_kernel = variant;
        // 1 / cm for pixels of a micrometre: what is stored in half precision must not depend on the unit
        job.scale = 1e4;
        let mut engine = GpuEngine::new(Arc::clone(&gpu), &job)?;
        let mut out = volume(&case);
        engine.slab(sinograms(&case).view(), &case.axes(), out.view_mut())?;
        Ok(out)
    };
    let plain = run(GpuKernel::Plain).unwrap();
    assert!(
        run(GpuKernel::Wide).unwrap() == plain,
        "the same operations"
    );
    let reference = case.run_cpu().unwrap();
    let filtered = reference
        .filtered
        .iter()
        .fold(0.0f32, |most, v| most.max(v.abs()));
    let peak = plain.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    // 4 standard deviations of a sum of n errors: half precision rounds to 2^-12 of the largest sample, a share in steps of 1/256
    // errs by 1/512 of the difference of two neighbours, which is at most twice the largest sample
    let sum = 4.0 * (case.n_angles as f32).sqrt() * filtered * 1e4;
    for (variant, error) in [
        (GpuKernel::Half, 2.0_f32.powi(-12)),
        (GpuKernel::Texture, 2.0 / 512.0),
        (GpuKernel::TextureHalf, 2.0 / 512.0 + 2.0_f32.powi(-12)),
    ] {
        let found = match run(variant) {
            Ok(found) => found,
            Err(error) => {
                let text = error.to_string();
                assert!(
                    variant == GpuKernel::Texture && text.contains("float32-filterable"),
                    "{text}"
                );
                continue;
            }
        };
        let off = worst(found.as_slice().unwrap(), plain.as_slice().unwrap());
        eprintln!("{variant:?}: off by {:.1e} of the peak", off / peak);
        assert!(off > 0.0, "{variant:?} reads what it says");
        assert!(
            off <= sum * error + 1e-5 * peak,
            "{variant:?}: {off} > {}",
            sum * error
        );
        assert!(sum * error < 0.5 * peak, "{variant:?}: the check is blind");
    }
}

#[test]
fn two_gpus_give_the_bits_and_the_counters_of_one() {
    let (Some(one), Some(other)) = (gpu(), gpu()) else {
        return;
    };
    for method in [ReconstructMethod::Fbp, ReconstructMethod::Fourier] {
        let case = Case::new(40, 30, 11);
        let mut job = case.job();
        job.config.method = method;
        let plan = FilterPlan::new(&job).unwrap();
        let fourier = method == ReconstructMethod::Fourier;
        let cut = Cut {
            packs: 1,
            ..Cut::new(&plan, &job.grid, 30, AdapterKind::Software, 128 << 20)
        };
        let engine = |gpu: &Arc<Gpu>| {
            GpuEngine::with_cut(Arc::clone(gpu), &job, plan.clone(), cut, fourier).unwrap()
        };
        let (mut alone, mut both) = (engine(&one), vec![engine(&one), engine(&other)]);
        let (mut a, mut b) = (volume(&case), volume(&case));
        let axes = case.axes();
        alone
            .slab(sinograms(&case).view(), &axes, a.view_mut())
            .unwrap();
        several::slab(&mut both, sinograms(&case).view(), &axes, b.view_mut()).unwrap();
        assert!(a == b && a.iter().all(|v| v.is_finite()), "{method:?}");
        let slab = crate::reconstruct::self_test::throughput::counts(40, 30, 11);
        let touched = alone.slab_of_counts(&slab, &axes, a.view_mut()).unwrap();
        let dealt = several::slab_of_counts(&mut both, &slab, &axes, b.view_mut()).unwrap();
        assert!(a == b && touched == dealt, "{method:?}");
    }
    // one that is lost stops all, by name
    let case = Case::new(40, 30, 11);
    let mut both = vec![
        GpuEngine::new(one, &case.job()).unwrap(),
        GpuEngine::new(Arc::clone(&other), &case.job()).unwrap(),
    ];
    both.iter_mut().for_each(|engine| engine.cut.packs = 1);
    other.lose();
    let mut out = volume(&case);
    let error = several::slab(
        &mut both,
        sinograms(&case).view(),
        &case.axes(),
        out.view_mut(),
    );
    assert!(matches!(error, Err(Error::Gpu { .. })));
}

#[test]
fn small_limits_cut_the_work_and_leave_the_bits_and_too_small_ones_are_named() {
    let Some(gpu) = gpu() else { return };
    let case = Case::new(77, 60, 9);
    for method in [ReconstructMethod::Fbp, ReconstructMethod::Fourier] {
        let mut job = case.job();
        job.config.method = method;
        let run = |gpu: Arc<Gpu>| -> Result<(Array3<f32>, Cut)> {
            let mut engine = GpuEngine::new(gpu, &job)?;
            let mut out = volume(&case);
            engine.slab(sinograms(&case).view(), &case.axes(), out.view_mut())?;
            Ok((out, engine.cut))
        };
        let (free, whole) = run(Arc::clone(&gpu)).unwrap();
        let limited = |bytes: u64| {
            let small = Gpu::limited(|limits| {
                limits.max_storage_buffer_binding_size = bytes;
                limits.max_buffer_size = 4 * bytes;
            });
            run(small.expect("an adapter was there"))
        };
        let (small, cut) = limited(256 << 10).unwrap();
        assert!(cut != whole, "{cut:?}");
        assert!(small == free, "{method:?}: {cut:?} must not show");
        let error = limited(4 << 10).map(drop).unwrap_err().to_string();
        assert!(
            error.contains("max_") && error.contains("--device cpu"),
            "{error}"
        );
    }
}

#[test]
fn where_memory_runs_out_the_work_is_cut_smaller_and_leaves_the_bits() {
    let (Some(gpu), Some(starved)) = (gpu(), Gpu::limited(|_| {})) else {
        return;
    };
    let case = Case::new(77, 90, 21);
    for method in [ReconstructMethod::Fbp, ReconstructMethod::Fourier] {
        let mut job = case.job();
        job.config.method = method;
        let mut out = [volume(&case), volume(&case)];
        let run = |engine: &mut GpuEngine, out: &mut Array3<f32>| {
            engine.slab(sinograms(&case).view(), &case.axes(), out.view_mut())
        };
        let mut whole = GpuEngine::new(Arc::clone(&gpu), &job).unwrap();
        run(&mut whole, &mut out[0]).unwrap();
        starved.starve(3);
        let mut small = GpuEngine::new(Arc::clone(&starved), &job).unwrap();
        assert!(small.cut.packs < whole.cut.packs, "{:?}", small.cut);
        run(&mut small, &mut out[1]).unwrap();
        assert!(out[0] == out[1], "{method:?}");
        starved.starve(u32::MAX);
        let Err(error) = GpuEngine::new(Arc::clone(&starved), &job) else {
            panic!("there was no memory")
        };
        let text = error.to_string();
        assert!(
            text.contains("memory of") && text.contains("--device cpu"),
            "{text}"
        );
        // corrections that find none are refused, and the engine can still be used with line integrals
        let counts = crate::reconstruct::self_test::throughput::counts(77, 90, 21);
        let error = small.prepare(&counts).unwrap_err().to_string();
        assert!(error.contains("memory of"), "{error}");
        starved.starve(0);
        run(&mut small, &mut out[1]).unwrap();
        assert!(out[0] == out[1], "{method:?}");
    }
}

#[test]
fn missing_features_and_too_few_workgroups_are_named() {
    let Some(few) = Gpu::limited(|limits| limits.max_compute_workgroups_per_dimension = 2) else {
        return;
    };
    let case = Case::new(100, 9, 2);
    let mut job = case.job();
    let mut out = volume(&case);
    let mut engine = GpuEngine::new(Arc::clone(&few), &job).unwrap();
    let error = engine
        .slab(sinograms(&case).view(), &case.axes(), out.view_mut())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("max_compute_workgroups_per_dimension") && error.contains("--device cpu"),
        "{error}"
    );
    job.config.gpu_kernel = GpuKernel::Texture;
    let Err(error) = GpuEngine::new(few, &job) else {
        panic!("no float32-filterable")
    };
    let text = error.to_string();
    assert!(
        text.contains("float32-filterable") && text.contains("gpu_kernel=plain"),
        "{text}"
    );
}

#[test]
fn a_timeline_shows_upload_gpu_and_download_and_changes_nothing() {
    let Some(gpu) = gpu() else { return };
    let case = Case::new(33, 20, 6);
    let mut engine = GpuEngine::new(Arc::clone(&gpu), &case.job()).unwrap();
    let (mut before, mut after) = (volume(&case), volume(&case));
    engine
        .slab(sinograms(&case).view(), &case.axes(), before.view_mut())
        .unwrap();
    let trace = crate::trace::Trace::on(None);
    gpu.set_trace(trace.clone());
    engine
        .slab(sinograms(&case).view(), &case.axes(), after.view_mut())
        .unwrap();
    gpu.wait("the end").unwrap();
    assert!(before == after);
    let lanes: Vec<crate::trace::Lane> = trace.spans().iter().map(|span| span.lane).collect();
    use crate::trace::Lane;
    for lane in [Lane::Upload, Lane::Gpu(gpu.info().number), Lane::Download] {
        assert!(lanes.contains(&lane), "{lane:?} in {lanes:?}");
    }
}
