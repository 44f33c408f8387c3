use super::*;
use crate::config::FlatInTime;
use crate::correct::goldens::worst;
use crate::correct::tests::{noise, plain, scan};
use crate::gpu::for_tests as gpu;
use crate::scan::FrameGroup;

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
    // these stay on the CPU
    config.lock.enabled = false;
    config.zinger.guard = false;
    config.flat_in_time = in_time;
    config.zinger.enabled = size > 0;
    config.zinger.size = size.max(1);
    config.zinger.threshold = 0.3;
    config
}

/// What the kernels leave for all rows, in blocks of `angles` wanted angles.
fn on_gpu(gpu: &Gpu, slab: &CountSlab, angles: usize) -> (Vec<f32>, Touched) {
    let (n_angles, n_rows, n_cols) = slab.counts.dim();
    let kernels = LineIntegrals::new(gpu, slab, n_rows, angles).unwrap();
    kernels.reset(gpu).unwrap();
    kernels.set_rows(gpu, slab, &(0..n_rows)).unwrap();
    let mut all = vec![f32::NAN; n_rows * n_angles * n_cols];
    for first in (0..n_angles).step_by(angles) {
        let wanted = first..(first + angles).min(n_angles);
        let params = slab.params(wanted.clone(), n_rows);
        let held = slab.held(&wanted);
        let mut counts: Vec<u16> = slab
            .counts
            .slice(s![held, .., ..])
            .iter()
            .copied()
            .collect();
        counts.resize(counts.len().next_multiple_of(2), 0);
        gpu.write(&kernels.counts, 0, &counts).unwrap();
        let out = gpu
            .storage_from("out", &vec![f32::NAN; n_rows * wanted.len() * n_cols])
            .unwrap();
        let mut batch = gpu.batch("corrections");
        kernels.launch(&mut batch, &params, &out).unwrap();
        batch.submit();
        let found: Vec<f32> = gpu.read(&out).unwrap();
        for (row, lines) in found.chunks_exact(wanted.len() * n_cols).enumerate() {
            all[(row * n_angles + wanted.start) * n_cols..][..lines.len()].copy_from_slice(lines);
        }
    }
    (all, kernels.touched(gpu).unwrap())
}

fn twin(slab: &CountSlab) -> (Vec<f32>, Touched) {
    let (n_angles, n_rows, n_cols) = slab.counts.dim();
    let mut all = vec![f32::NAN; n_rows * n_angles * n_cols];
    let touched = line_integrals_cpu(
        &slab.params(0..n_angles, n_rows),
        slab.counts.view(),
        &slab.dark,
        &slab.open_beams,
        &slab.good,
        &slab.in_time,
        &mut all,
    );
    (all, touched)
}

#[test]
fn kernels_twin_and_corrections_agree_in_every_mode_and_however_the_angles_are_cut() {
    for in_time in [FlatInTime::Mean, FlatInTime::Nearest, FlatInTime::Linear] {
        for size in [0, 1, 2, 15] {
            let corrected = CorrectedScan::new(counted(), &config(in_time, size)).unwrap();
            assert_eq!(corrected.off_device(), None);
            let (reference, counts) = corrected.slab(0..5).unwrap();
            let reference = reference.as_slice().unwrap().to_vec();
            let (slab, known) = corrected.count_slab(0..5).unwrap();
            let (by_twin, touched) = twin(&slab);
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

#[test]
fn transmission_as_it_is_needs_no_flats() {
    let Some(gpu) = gpu() else { return };
    let mut config = config(FlatInTime::Mean, 2);
    config.without_flats = true;
    let counts = Array3::from_shape_fn((9, 2, 11), |(a, r, c)| ((a + 3 * r + c) % 4) as f32);
    let corrected = CorrectedScan::new(scan(counts, None, None), &config).unwrap();
    let (reference, counts) = corrected.slab(0..2).unwrap();
    let (slab, known) = corrected.count_slab(0..2).unwrap();
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
    config.stripe.method = StripeMethod::Sorting;
    let reason = off_device(&counted(), &config).unwrap();
    assert!(reason.contains("stripe.method = \"sorting\""), "{reason}");
    config.stripe.method = StripeMethod::None;
    let halves = scan(Array3::from_elem((2, 2, 2), 0.5), None, None);
    let reason = off_device(&halves, &config).unwrap();
    assert!(reason.contains("F32"), "{reason}");
}
