use std::ops::Range;

use ndarray::{Array3, s};

use super::counts::good_columns;
use super::*;
use crate::config::{BeamConfig, BeamDrift, FlatInTime, OutlierKind, PhaseMethod, StripeMethod};
use crate::correct::CorrectedScan;
use crate::correct::goldens::worst;
use crate::correct::lock::PixelMap;
use crate::correct::tests::{noise, plain, scan};
use crate::gpu::{Gpu, for_tests as gpu};
use crate::scan::{FrameGroup, Monitor};

/// Whole counts of 23 angles, 5 rows, 67 columns: uneven flats before and after, bad pixels alone, in a run and at both
/// edges, a row without signal, zingers inside and at every edge, samples below the least transmission.
///
/// Zingers stand twice as high as their neighbours and the noise is 4 %, so no sample is within rounding of the limit.
fn counted() -> Scan {
    let (n_angles, n_rows, n_cols) = (23, 5, 67);
    let mut flats = Array3::from_shape_fn((4, n_rows, n_cols), |(frame, row, col)| {
        (1100.0 + 50.0 * frame as f32 + 40.0 * ((row * n_cols + col) as f32).sin()).round()
    });
    let darks = Array3::from_shape_fn((2, n_rows, n_cols), |(_, row, col)| {
        100.0 + ((row + col) % 3) as f32
    });
    for (row, col) in [(0, 0), (0, 30), (1, 12), (1, 13), (1, 14), (2, 66), (2, 65)] {
        flats.slice_mut(s![.., row, col]).fill(50.0);
    }
    flats.slice_mut(s![.., 3, ..]).fill(90.0);
    let mut projections = Array3::from_shape_fn((n_angles, n_rows, n_cols), |(angle, row, col)| {
        let index = (angle * n_rows + row) * n_cols + col;
        (600.0 + 100.0 * (angle as f32 / 5.0).cos() + 20.0 * noise(index)).round()
    });
    for (angle, row, col) in [
        (0, 0, 5),
        (22, 1, 40),
        (7, 2, 0),
        (9, 4, 66),
        (11, 4, 33),
        (1, 4, 20),
    ] {
        projections[[angle, row, col]] = 1500.0;
    }
    projections[[5, 4, 50]] = 90.0;
    let mut scan = scan(projections, Some(flats), Some(darks));
    let group = |frames, at_projection| FrameGroup {
        frames,
        at_projection,
    };
    scan.flat_groups = vec![group(vec![0, 1], 0.0), group(vec![2, 3], 23.0)];
    scan
}

fn config(in_time: FlatInTime, size: usize) -> CorrectConfig {
    let mut config = plain();
    config.zinger.guard = false;
    config.flat_in_time = in_time;
    config.zinger.enabled = size > 0;
    config.zinger.size = size.max(1);
    config.zinger.threshold = 0.3;
    config
}

/// What the kernels leave for all rows, in blocks of `angles` wanted angles.
fn on_gpu(gpu: &Gpu, slab: &CountSlab, angles: usize) -> (Vec<f32>, Touched) {
    let (n_angles, n_rows, _) = slab.counts.dim();
    let blocks = blocks(n_angles, angles);
    let mut kernels = LineIntegrals::new(gpu, slab, n_rows, &blocks, u64::MAX).unwrap();
    kernels.run(gpu, slab, &blocks).unwrap()
}

fn blocks(n_angles: usize, angles: usize) -> Vec<Range<usize>> {
    (0..n_angles)
        .step_by(angles)
        .map(|first| first..(first + angles).min(n_angles))
        .collect()
}

#[test]
fn kernels_twin_and_corrections_agree_in_every_mode_and_however_the_angles_are_cut() {
    for in_time in [FlatInTime::Mean, FlatInTime::Nearest, FlatInTime::Linear] {
        for size in [0, 1, 2, 15] {
            let corrected = CorrectedScan::new(counted(), &config(in_time, size)).unwrap();
            assert_eq!(corrected.off_device(), None);
            let (reference, counts) = corrected.slab(0..5).unwrap();
            let reference = reference.as_slice().unwrap().to_vec();
            let (slab, known) = corrected.count_slab(0..5, 0).unwrap();
            let (by_twin, touched) = line_integrals_cpu(&slab);
            // the twin rounds as the corrections do: nothing on the CPU is fused
            assert_eq!(worst(&by_twin, &reference), 0.0, "{in_time:?} {size}");
            let all = |touched: Touched| CorrectionCounts {
                clipped: touched.clipped,
                zingers: touched.zingers,
                ..known.clone()
            };
            assert_eq!(all(touched), counts, "{in_time:?} {size}");
            assert!(counts.bad_pixels > 60 && counts.clipped > 0 && counts.lost_lines == 23);
            assert!(size == 0 || counts.zingers >= 5, "{counts:?}");
            let Some(gpu) = gpu() else { return };
            let tolerance = tolerance(1e-4);
            let mut first: Option<Vec<f32>> = None;
            for angles in [23, 7, 1] {
                let (found, touched) = on_gpu(&gpu, &slab, angles);
                let off = worst(&found, &by_twin);
                assert!(
                    off <= tolerance,
                    "{in_time:?} {size} {angles}: {off} > {tolerance}"
                );
                assert_eq!(all(touched), counts, "{in_time:?} {size} {angles}");
                // the cut must not show
                assert!(first.get_or_insert_with(|| found.clone()) == &found);
            }
            let mut brighter = slab.clone();
            brighter.counts[[3, 0, 8]] += 1;
            let seen = worst(&on_gpu(&gpu, &brighter, 23).0, &by_twin);
            assert!(seen > 10.0 * tolerance, "one count must be seen: {seen}");
        }
    }
}

/// 90 angles, 3 rows, 67 columns of [`counted`] kind with a bright thread that wanders, rays at and near every edge, pixels of wrong
/// gain that drift, and those that do not respond; and what the lock says of them.
fn locked() -> (Scan, PixelMap) {
    let (n_angles, n_rows, n_cols) = (90, 3, 67);
    let mut flats = Array3::from_shape_fn((1, n_rows, n_cols), |(_, row, col)| {
        (11000.0 + 400.0 * ((row * n_cols + col) as f32).sin()).round()
    });
    for (row, col) in [
        (0, 0),
        (0, 30),
        (1, 12),
        (1, 13),
        (1, 14),
        (2, 66),
        (2, 40),
        (2, 41),
    ] {
        flats[[0, row, col]] = 0.0;
    }
    let mut projections = Array3::from_shape_fn((n_angles, n_rows, n_cols), |(angle, row, col)| {
        let index = (angle * n_rows + row) * n_cols + col;
        let thread = 33.0 + 25.0 * (angle as f32 * 0.035).cos();
        let bright = 1500.0 * (-(col as f32 - thread).powi(2) / 0.9).exp();
        (4000.0 + 900.0 * (col as f32 / 9.0).sin() + bright + 40.0 * noise(index)).round()
    });
    let planes = |at: &[(usize, usize)], verdict: f32| -> Vec<((usize, usize), f32)> {
        at.iter().map(|&at| (at, verdict)).collect()
    };
    // at the edge, in a pair, beside bad pixels, and one without a second good neighbour on its left
    let wrong = planes(
        &[(0, 2), (0, 50), (0, 51), (1, 11), (1, 40), (2, 1), (2, 39)],
        1.0,
    );
    let dead = planes(&[(0, 20), (1, 15), (1, 66), (2, 20), (2, 22)], 2.0);
    let mut map = Array3::<f32>::zeros((2, n_rows, n_cols));
    for &((row, col), verdict) in wrong.iter().chain(&dead) {
        map[[0, row, col]] = verdict;
        for angle in 0..n_angles {
            let count = &mut projections[[angle, row, col]];
            *count = match verdict as usize {
                1 => (*count * (1.03 + 0.0004 * angle as f32)).round(),
                _ => 300.0,
            };
        }
    }
    for (angle, row, col) in [
        (0, 0, 5),
        (89, 1, 40),
        (1, 1, 60),
        (45, 0, 50),
        (46, 2, 0),
        (47, 2, 66),
        (30, 1, 33),
        (31, 1, 34),
    ] {
        projections[[angle, row, col]] = 16000.0;
    }
    // what the ray at (45, 0, 50) leaves beside it, below the threshold
    for (col, factor) in [(49, 1.15), (48, 1.1)] {
        let count = &mut projections[[45, 0, col]];
        *count = (*count * factor).round();
    }
    projections[[50, 0, 44]] = 0.0;
    let darks = Array3::from_elem((1, n_rows, n_cols), 100.0);
    let scan = scan(projections, Some(flats), Some(darks));
    (scan, PixelMap::from_planes(&map).unwrap())
}

#[test]
fn guarded_zingers_and_locked_pixels_are_those_of_the_cpu_however_the_angles_are_cut() {
    for (in_time, guard) in [(FlatInTime::Mean, true), (FlatInTime::Linear, false)] {
        let mut config = config(in_time, 2);
        (config.zinger.guard, config.lock.enabled) = (guard, true);
        config.zinger.threshold = 0.2;
        let (scan, map) = locked();
        let n_cols = scan.n_cols();
        let unlocked = CorrectedScan::new(scan, &config).unwrap();
        let without = unlocked.slab(0..3).unwrap().0;
        let corrected = unlocked.with_lock(std::sync::Arc::new(map)).unwrap();
        assert_eq!(corrected.off_device(), None);
        let (reference, counts) = corrected.slab(0..3).unwrap();
        let reference = reference.as_slice().unwrap();
        let (slab, known) = corrected.count_slab(0..3, 0).unwrap();
        let transmission = |angle: usize, col: usize| (-reference[angle * n_cols + col]).exp();
        for col in [48, 49] {
            let between = 0.5 * (transmission(44, col) + transmission(46, col));
            let gone = (transmission(45, col) / between - 1.0).abs() < 1e-5;
            assert_eq!(gone, guard, "column {col} beside a ray");
        }
        let (by_twin, touched) = line_integrals_cpu(&slab);
        assert_eq!(worst(&by_twin, reference), 0.0);
        let all = |touched: Touched| CorrectionCounts {
            clipped: touched.clipped,
            zingers: touched.zingers,
            ..known.clone()
        };
        assert_eq!(all(touched), counts);
        assert_eq!(
            (
                counts.lock_corrected,
                counts.lock_interpolated,
                slab.locked.len()
            ),
            (7, 5, 7)
        );
        assert!(counts.clipped > 0 && counts.zingers >= 5, "{counts:?}");
        assert!(
            guard == (counts.zingers < 20),
            "threads are no rays: {counts:?}"
        );
        let Some(gpu) = gpu() else { return };
        let tolerance = slab.tolerance();
        let unlocked = worst(without.as_slice().unwrap(), reference);
        assert!(
            unlocked > 100.0 * tolerance,
            "the lock must be seen: {unlocked}"
        );
        let mut first: Option<Vec<f32>> = None;
        for angles in [90, 32, 7] {
            let (found, touched) = on_gpu(&gpu, &slab, angles);
            let off = worst(&found, &by_twin);
            assert!(off <= tolerance, "{guard} {angles}: {off} > {tolerance}");
            assert_eq!(all(touched), counts, "{guard} {angles}");
            // the cut must not show
            assert!(first.get_or_insert_with(|| found.clone()) == &found);
        }
        // one pixel a dispatch, and counts that go up twice: the same bits
        let blocks = blocks(90, 32);
        let mut kernels = LineIntegrals::new(&gpu, &slab, 3, &blocks, 1).unwrap();
        assert!(kernels.keeps_counts());
        kernels.forget_counts();
        assert!(!kernels.keeps_counts());
        let again = kernels.run(&gpu, &slab, &blocks).unwrap();
        assert!(first.as_ref() == Some(&again.0) && all(again.1) == counts);
        let mut elsewhere = slab.clone();
        elsewhere.locked[3].weights = [0.0, 1.0, 0.0, 0.0];
        let seen = worst(&on_gpu(&gpu, &elsewhere, 90).0, &by_twin);
        assert!(
            seen > 10.0 * tolerance,
            "other weights must be seen: {seen}"
        );
        if guard {
            let mut open = slab.clone();
            open.zinger = slab.zinger.map(|rule| ZingerRule {
                guard: None,
                ..rule
            });
            assert_ne!(on_gpu(&gpu, &open, 90).1, touched, "the guard must be seen");
        }
    }
}

/// [`locked`] with two broad stripes of row 1 (one with a locked pixel inside) and one of row 2, and a large stripe of row 0 that
/// the lock does not know.
fn levelled() -> (Scan, PixelMap) {
    let (mut scan, map) = locked();
    let mut counts = Array3::<f32>::zeros((90, 3, 67));
    let frames: Vec<usize> = (0..90).collect();
    let all = counts.as_slice_mut().unwrap();
    scan.projections.read(&frames, 0..3, all).unwrap();
    counts
        .slice_mut(s![.., 0, 59..61])
        .mapv_inplace(|count| (0.7 * count).round());
    scan.projections = self::scan(counts, None, None).projections;
    let mut planes = map.to_planes();
    for (row, columns) in [(1, 20..26), (1, 48..55), (2, 45..52)] {
        columns.for_each(|col| planes[[0, row, col]] += 4.0);
    }
    planes[[0, 1, 50]] = 5.0;
    (scan, PixelMap::from_planes(&planes).unwrap())
}

#[test]
fn whole_columns_are_levelled_locked_and_cleared_of_stripes_as_on_the_cpu_however_they_are_cut() {
    for method in [
        StripeMethod::None,
        StripeMethod::Sorting,
        StripeMethod::All,
        StripeMethod::Interpolation,
    ] {
        let mut config = config(FlatInTime::Mean, 2);
        (config.zinger.guard, config.lock.enabled) = (true, true);
        config.zinger.threshold = 0.2;
        config.stripe.method = method;
        (config.stripe.large_size, config.stripe.small_size) = (21, 5);
        let (scan, map) = levelled();
        let unlocked = CorrectedScan::new(scan, &config).unwrap();
        let corrected = unlocked.with_lock(std::sync::Arc::new(map)).unwrap();
        assert_eq!(corrected.off_device(), None);
        let (reference, counts) = corrected.slab(0..3).unwrap();
        let reference = reference.as_slice().unwrap();
        let (slab, known) = corrected.count_slab(0..3, 0).unwrap();
        assert_eq!((slab.edges.len(), slab.levelled.len()), (6, 20));
        assert!(slab.takes_columns() && slab.most_broad == [4, 13]);
        let (by_twin, touched) = line_integrals_cpu(&slab);
        // the CPU has its factors in f64: a unit in the last place of a transmission
        let of_factors = match method {
            StripeMethod::None | StripeMethod::Sorting => 0.0,
            _ => 8.0 * f32::EPSILON,
        };
        let off = worst(&by_twin, reference);
        assert!(off <= of_factors, "{method:?}: {off}");
        let all = |touched: Touched| {
            let mut counts = known.clone();
            counts += touched;
            counts
        };
        assert_eq!(all(touched), counts);
        assert!(
            counts.zingers >= 5 && counts.lock_levelled == 20,
            "{counts:?}"
        );
        let seeks = matches!(method, StripeMethod::All | StripeMethod::Interpolation);
        assert!(counts.large_stripes > 0 || !seeks, "{method:?} {counts:?}");
        let Some(gpu) = gpu() else { return };
        let tolerance = slab.columns_tolerance();
        let mut first: Option<Vec<f32>> = None;
        for angles in [90, 32] {
            let (found, touched) = on_gpu(&gpu, &slab, angles);
            let off = misplaced(&found, &by_twin, 67, tolerance);
            assert_eq!(off, 0, "{method:?} {angles} at {tolerance}");
            assert_eq!(all(touched), counts, "{method:?} {angles}");
            // the cut must not show
            assert!(first.get_or_insert_with(|| found.clone()) == &found);
        }
        // one row to a buffer and one pixel to a dispatch: the same bits
        let blocks = blocks(90, 32);
        let mut kernels = LineIntegrals::new(&gpu, &slab, 3, &blocks, 1).unwrap();
        let again = kernels.run(&gpu, &slab, &blocks).unwrap();
        assert!(first.as_ref() == Some(&again.0) && all(again.1) == counts);
        // a step that begins at row 1 counts its pixels, edges and columns from there
        let step = slab.broad_of(&(1..3));
        assert_eq!((step.0.len(), step.1[0].row, step.1[0].left), (6, 0, 0));
        assert_eq!(slab.broad_of(&(2..3)).1[0].left, 0);
        let mut elsewhere = slab.clone();
        elsewhere.levelled[3].share = 2.0;
        elsewhere.counts[[20, 0, 10]] += 50;
        let seen = misplaced(&on_gpu(&gpu, &elsewhere, 90).0, &by_twin, 67, tolerance);
        assert!(seen > 0, "{method:?}: another share and count must be seen");
    }
}

/// Columns of the sinograms `[row, angle, col]` of 90 angles whose sorted line integrals are farther apart than `tolerance`.
///
/// Samples that differ by rounding only may change places in a sort, and then take what belongs to another rank; the sorted
/// columns do not feel that.
fn misplaced(found: &[f32], expected: &[f32], n_cols: usize, tolerance: f32) -> usize {
    let column = |values: &[f32], row: usize, col: usize| -> Vec<f32> {
        let lines = values[row * 90 * n_cols..][..90 * n_cols].chunks_exact(n_cols);
        let mut column: Vec<f32> = lines.map(|line| line[col]).collect();
        column.sort_by(f32::total_cmp);
        column
    };
    let all =
        (0..found.len() / (90 * n_cols)).flat_map(|row| (0..n_cols).map(move |col| (row, col)));
    all.filter(|&(row, col)| {
        worst(&column(found, row, col), &column(expected, row, col)) > tolerance
    })
    .count()
}

#[test]
fn slices_between_rows_are_interpolated_as_by_the_twin_and_rows_counted_once() {
    let (scan, map) = locked();
    let config = config(FlatInTime::Mean, 2);
    let corrected = CorrectedScan::new(scan, &config).unwrap();
    let corrected = corrected.with_lock(std::sync::Arc::new(map)).unwrap();
    let (all, _) = corrected.count_slab(0..3, 0).unwrap();
    let (_, everywhere) = line_integrals_cpu(&all);
    let (rest, known) = corrected.count_slab(0..3, 2).unwrap();
    assert_eq!((rest.counted, known.samples), (2, 90 * 67));
    // two slices, of which the second also needs rows that are not there
    let tap = |first: i32, angle: usize| Taps {
        weights: std::array::from_fn(|k| [0.02, -0.1, 0.7, 0.45, -0.09, 0.02][(k + angle) % 6]),
        first,
        unused: 0,
    };
    for moving in [false, true] {
        let lines = if moving { 90 } else { 1 };
        let taps = (0..2).flat_map(|slice| (0..lines).map(move |angle| tap(slice - 2, angle)));
        let placement = Placement {
            taps: taps.collect(),
            n_slices: 2,
            scale: 1.0,
            spread: 0.0,
        };
        assert_eq!(placement.rows(&(0..2), 3), 0..3);
        let [mut whole, mut second] = [all.clone(), rest.clone()];
        whole.placement = Some(placement.clone());
        second.placement = Some(placement);
        let (reference, touched) = line_integrals_cpu(&whole);
        assert_eq!((reference.len(), touched), (2 * 90 * 67, everywhere));
        let Some(gpu) = gpu() else { return };
        // weights of at most 1.4 in all, and six roundings
        let tolerance = 1.4 * whole.tolerance() + 12.0 * f32::EPSILON * 10.0;
        for angles in [90, 13] {
            let (found, found_touched) = on_gpu(&gpu, &whole, angles);
            assert!(worst(&found, &reference) <= tolerance, "{moving} {angles}");
            assert_eq!(found_touched, touched);
        }
        let (found, of_last) = on_gpu(&gpu, &second, 90);
        assert!(worst(&found, &reference) <= tolerance);
        assert!(of_last.zingers < touched.zingers && of_last == line_integrals_cpu(&second).1);
        whole.placement.as_mut().unwrap().taps[lines].first += 1;
        let seen = worst(&on_gpu(&gpu, &whole, 90).0, &reference);
        assert!(seen > 10.0 * tolerance, "another row must be seen: {seen}");
    }
    // steps of a slab: each row is counted in the first step that reads it
    let mut slab = all;
    slab.counted = 1;
    slab.placement = Some(Placement {
        taps: (0..3).map(|slice| tap(slice - 4, 0)).collect(),
        n_slices: 3,
        scale: 1.0,
        spread: 0.0,
    });
    let steps: Vec<Step> = [0..1, 1..2, 2..3].map(|slices| slab.step(slices)).into();
    assert_eq!(
        steps
            .iter()
            .map(|s| (s.rows.clone(), s.first_counted))
            .collect::<Vec<_>>(),
        [(0..2, 1), (0..3, 2), (0..3, 3)]
    );
    assert!(slab.most_rows(1) >= 3);
}

#[test]
fn transmission_as_it_is_needs_no_flats() {
    let Some(gpu) = gpu() else { return };
    let mut config = config(FlatInTime::Mean, 2);
    config.without_flats = true;
    let counts = Array3::from_shape_fn((9, 2, 11), |(a, r, c)| ((a + 3 * r + c) % 4) as f32);
    let corrected = CorrectedScan::new(scan(counts, None, None), &config).unwrap();
    let (reference, counts) = corrected.slab(0..2).unwrap();
    let (slab, known) = corrected.count_slab(0..2, 0).unwrap();
    let (found, touched) = on_gpu(&gpu, &slab, 4);
    assert!(worst(&found, reference.as_slice().unwrap()) <= tolerance(1e-4));
    assert_eq!(
        (touched.clipped, touched.zingers),
        (counts.clipped, counts.zingers)
    );
    assert!(counts.clipped > 0 && counts.samples == known.samples);
}

#[test]
fn good_columns_are_the_nearest_on_either_side() {
    let good = |bad: &[u8]| -> Vec<(u32, u32)> {
        let bad: Vec<bool> = bad.iter().map(|&bad| bad == 1).collect();
        let pairs = good_columns(&bad).into_iter();
        pairs.map(|pair| (pair & 0xffff, pair >> 16)).collect()
    };
    assert_eq!(
        good(&[1, 0, 1, 1, 0, 1]),
        [(1, 1), (1, 1), (1, 4), (1, 4), (4, 4), (4, 4)]
    );
    assert_eq!(good_columns(&[true, true]), [LOST, LOST]);
}

#[test]
fn what_the_device_cannot_do_is_named() {
    let mut config = config(FlatInTime::Mean, 2);
    config.stripe.method = StripeMethod::WaveletFft;
    assert_eq!(off_device(&counted(), &config), None);
    config.phase.method = PhaseMethod::Paganin;
    let reason = off_device(&counted(), &config).unwrap();
    assert!(reason.contains("phase.method = \"paganin\""), "{reason}");
    config.phase.method = PhaseMethod::None;
    let halves = scan(Array3::from_elem((2, 2, 2), 0.5), None, None);
    let reason = off_device(&halves, &config).unwrap();
    assert!(reason.contains("F32"), "{reason}");
}

#[test]
fn beam_drift_dark_zingers_and_the_double_flat_field_are_those_of_the_cpu_however_the_angles_are_cut()
 {
    let monitored = || {
        let mut scan = counted();
        scan.monitor = Some(Monitor {
            projections: (0..23).map(|k| 90.0 + f64::from(k * k % 7)).collect(),
            flats: Some(vec![91.0, 94.0]),
            source: "memory".into(),
        });
        scan
    };
    let beam = |drift: BeamDrift, air: &str| BeamConfig {
        drift,
        air: air.into(),
        ..BeamConfig::default()
    };
    let none = BeamConfig::default();
    for (beam, kind, double_flat, stripes) in [
        (
            beam(BeamDrift::Air, "4..20,50..60"),
            OutlierKind::Bright,
            0.0,
            StripeMethod::None,
        ),
        (
            beam(BeamDrift::Both, "40..64"),
            OutlierKind::Both,
            0.0,
            StripeMethod::None,
        ),
        (
            beam(BeamDrift::Monitor, ""),
            OutlierKind::Dark,
            3.0,
            StripeMethod::None,
        ),
        (
            beam(BeamDrift::Air, ""),
            OutlierKind::Both,
            2.0,
            StripeMethod::Regularization,
        ),
        (none, OutlierKind::Dark, 0.0, StripeMethod::Normalization),
    ] {
        let what = format!("{beam:?} {kind:?} {double_flat} {stripes:?}");
        let mut config = config(FlatInTime::Linear, 2);
        (config.beam, config.double_flat) = (beam, double_flat);
        (config.zinger.kind, config.stripe.method) = (kind, stripes);
        let corrected = CorrectedScan::new(monitored(), &config).unwrap();
        assert_eq!(corrected.off_device(), None, "{what}");
        let (reference, counts) = corrected.slab(0..5).unwrap();
        let reference = reference.as_slice().unwrap();
        let (slab, known) = corrected.count_slab(0..5, 0).unwrap();
        let tolerance = match slab.takes_columns() {
            true => slab.columns_tolerance(),
            false => slab.tolerance(),
        };
        let (by_twin, touched) = line_integrals_cpu(&slab);
        let apart = |a: &[f32], b: &[f32]| match stripes {
            StripeMethod::Normalization => {
                let transmission = |lines: &[f32]| lines.iter().map(|v| (-v).exp()).collect();
                let (a, b): (Vec<f32>, Vec<f32>) = (transmission(a), transmission(b));
                worst(&a, &b)
            }
            _ => worst(a, b),
        };
        let off = apart(&by_twin, reference);
        assert!(off <= tolerance, "{what}: twin {off} > {tolerance}");
        let all = |touched: Touched| {
            let mut counts = known.clone();
            counts += touched;
            counts
        };
        assert_eq!(all(touched), counts, "{what}");
        let by_air = matches!(config.beam.drift, BeamDrift::Air | BeamDrift::Both);
        assert!(
            (counts.beam_left > 0) == by_air && counts.zingers > 0,
            "{what} {counts:?}"
        );
        let Some(gpu) = gpu() else { return };
        let mut first: Option<Vec<f32>> = None;
        for angles in [23, 7] {
            let (found, touched) = on_gpu(&gpu, &slab, angles);
            let off = apart(&found, &by_twin).max(apart(&found, reference));
            assert!(off <= tolerance, "{what} {angles}: {off} > {tolerance}");
            assert_eq!(all(touched), counts, "{what} {angles}");
            // the cut must not show
            assert!(first.get_or_insert_with(|| found.clone()) == &found);
        }
        let mut plain = slab.clone();
        (plain.beam, plain.factors) = (None, Vec::new());
        plain.zinger = slab.zinger.map(|rule| ZingerRule {
            threshold: 2.0,
            ..rule
        });
        let (found, touched) = on_gpu(&gpu, &plain, 23);
        assert!(
            apart(&found, &by_twin) > 10.0 * tolerance && all(touched) != counts,
            "{what}: blind"
        );
    }
}
