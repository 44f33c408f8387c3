//! Slices of counts whose transmission is kept on the GPU for all angles.

use super::*;
use crate::correct::line_integrals::{CountSlab, Placement, Taps, line_integrals_cpu};
use crate::correct::stripe::{Dead, Large, StripeRemoval};
use crate::reconstruct::self_test::throughput::{counts, with_broad_stripe};
use crate::trace::{Lane, Trace};

/// Counts of 9 rows with a large stripe, a broad one of the lock, and dead columns.
fn slab(case: &Case) -> CountSlab {
    let (n_cols, n_angles, n_rows) = (case.n_cols, case.n_angles, case.n_rows);
    let large = Large {
        snr: 3.0,
        size: 21,
        drop_ratio: 0.1,
        normalize: true,
    };
    let dead = Dead {
        snr: 3.0,
        size: 21,
        smooth: 10,
    };
    let mut slab = CountSlab {
        locked: Vec::new(),
        most_locked: 0,
        stripe: Some(StripeRemoval::All(dead, large, 5)),
        ..with_broad_stripe(counts(n_cols, n_angles, n_rows), 2, 30..36)
    };
    for ((angle, row, col), count) in slab.counts.indexed_iter_mut() {
        let value = 9_000 + (row * 31 + angle * 17 + col * 7) % 101 * 5;
        *count = match col {
            50 | 51 => value - 2_700,
            65 => 4_000,
            30..36 if row == 2 => value + 300,
            _ => value,
        } as u16;
    }
    slab
}

#[test]
fn stripes_are_removed_between_one_upload_and_one_download_and_the_cut_does_not_show() {
    let Some(gpu) = gpu() else { return };
    let case = Case::new(77, 60, 9);
    let job = case.job();
    let plan = FilterPlan::new(&job).unwrap();
    let slab = slab(&case);
    let (line_integrals, expected) = line_integrals_cpu(&slab);
    assert!(
        expected.large_stripes > 0 && expected.dead_stripes > 0,
        "{expected:?}"
    );
    let line_integrals = Array3::from_shape_vec((9, 60, 77), line_integrals).unwrap();
    let all = Cut {
        packs: 1,
        angles: 20,
        band_rows: 96,
        updates: u64::MAX,
    };
    let engine =
        |cut: Cut| GpuEngine::with_cut(Arc::clone(&gpu), &job, plan.clone(), cut, false).unwrap();
    let mut reference = volume(&case);
    engine(all)
        .slab(line_integrals.view(), &case.axes(), reference.view_mut())
        .unwrap();
    // an error of every line integral comes out 2.4 times as large (see tests/cpu_and_gpu_agree.rs), a pixel has two samples
    let tolerance = 2.4 * slab.columns_tolerance() + 1e-5;
    let mut results: Vec<Array3<f32>> = Vec::new();
    for cut in [
        all,
        Cut { packs: 3, ..all },
        // a launch for each row
        Cut { updates: 1, ..all },
        Cut { angles: 60, ..all },
    ] {
        let mut engine = engine(cut);
        engine.prepare(&slab).unwrap();
        let mut found = volume(&case);
        let trace = Trace::on(None);
        gpu.set_trace(trace.clone());
        let touched = engine
            .slab_of_counts(&slab, &case.axes(), found.view_mut())
            .unwrap();
        gpu.set_trace(Trace::default());
        assert_eq!(touched, expected, "{cut:?}");
        let off = worst(found.as_slice().unwrap(), reference.as_slice().unwrap());
        assert!(off <= tolerance, "{cut:?}: {off} > {tolerance}");
        let of = |lane: Lane| {
            trace
                .spans()
                .iter()
                .filter(|span| span.lane == lane)
                .count()
        };
        let steps = 9_usize.div_ceil(4 * cut.packs);
        // every block goes up once; slices come down once for each step, and the counters at the end
        assert_eq!(
            of(Lane::Upload),
            steps * 60_usize.div_ceil(cut.angles),
            "{cut:?}"
        );
        assert_eq!(of(Lane::Download), steps + 1, "{cut:?}");
        results.push(found);
    }
    assert!(results.iter().all(|result| *result == results[0]));
    let mut untreated = slab.clone();
    untreated.stripe = None;
    let mut found = volume(&case);
    engine(all)
        .slab_of_counts(&untreated, &case.axes(), found.view_mut())
        .unwrap();
    let seen = worst(found.as_slice().unwrap(), reference.as_slice().unwrap());
    assert!(seen > 10.0 * tolerance, "stripes must be seen: {seen}");
}

/// The same slab with 12 slices, each from six rows around it; so that steps share rows.
fn between_rows(slab: &CountSlab, scale: f64) -> CountSlab {
    let taps = (0..12).map(|slice| Taps {
        weights: [0.02, -0.12, 0.6, 0.6, -0.12, 0.02],
        first: (f64::from(slice) * scale).floor() as i32 - 2,
        unused: 0,
    });
    CountSlab {
        placement: Some(Placement {
            taps: taps.collect(),
            n_slices: 12,
            scale,
            spread: 0.0,
        }),
        ..slab.clone()
    }
}

#[test]
fn rows_that_steps_share_are_corrected_once_and_give_the_bits_of_one_step() {
    let (Some(gpu), Some(second)) = (gpu(), gpu()) else {
        return;
    };
    let case = Case::new(77, 60, 12);
    let (job, axes) = (case.job(), case.axes());
    let plan = FilterPlan::new(&job).unwrap();
    let cut = |packs: usize| Cut {
        packs,
        angles: 20,
        band_rows: 96,
        updates: u64::MAX,
    };
    let engine = |gpu: &Arc<Gpu>, packs: usize| {
        GpuEngine::with_cut(Arc::clone(gpu), &job, plan.clone(), cut(packs), false).unwrap()
    };
    let striped = slab(&Case::new(77, 60, 9));
    let mut locked = counts(77, 60, 9);
    locked.counts[[30, 4, 20]] = 60_000;
    for (slab, scale) in [
        (&striped, 0.7),
        (&locked, 0.7),
        (&striped, 0.3),
        (&locked, 1.2),
    ] {
        let slab = between_rows(slab, scale);
        let run = |packs: usize| {
            let mut found = volume(&case);
            let trace = Trace::on(None);
            gpu.set_trace(trace.clone());
            let mut engine = engine(&gpu, packs);
            let touched = engine.slab_of_counts(&slab, &axes, found.view_mut());
            gpu.set_trace(Trace::default());
            let spans = trace.spans();
            let uploads = spans.iter().filter(|span| span.lane == Lane::Upload);
            (found, touched.unwrap(), uploads.count())
        };
        let (at_once, touched, uploads) = run(3);
        assert_eq!(uploads, 3, "a block each");
        let (in_steps, again, _) = run(1);
        assert!(in_steps == at_once && again == touched, "{scale}");
        let mut dealt = volume(&case);
        let mut both = [engine(&gpu, 1), engine(&second, 1)];
        let again = several::slab_of_counts(&mut both, &slab, &axes, dealt.view_mut()).unwrap();
        assert!(dealt == at_once && again == touched, "{scale}");
        assert!(touched.zingers > 0 || touched.large_stripes > 0);
        // every row is new in one step only
        let (mut before, mut new) = (slab.step(0..4), slab.step(0..4).new_rows());
        for slices in [4..8, 8..12] {
            let step = slab.step(slices).after(&before, slab.most_kept());
            assert_eq!(step.new_rows().start, new.end, "{scale}");
            assert!(step.kept > 0 && step.kept <= slab.most_kept());
            new.end = step.rows.end;
            before = step;
        }
        let mut other = slab.clone();
        other.counts[[7, 5, 33]] += 300;
        let mut seen = volume(&case);
        engine(&gpu, 1)
            .slab_of_counts(&other, &axes, seen.view_mut())
            .unwrap();
        assert!(seen != at_once, "a row that is shared must be seen");
    }
}
