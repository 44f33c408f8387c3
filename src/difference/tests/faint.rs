//! What hardly exceeds the threshold: grains are believed, lines and sheets are not.

use super::*;

/// 5 sigma of a difference on the axis, where everything stands here.
const THRESHOLD: f32 = 5.0 * SIGMA * std::f32::consts::SQRT_2;
const MIDDLE: [f64; 3] = [19.7, 44.3, 45.1];

fn record_of(change: impl Fn([f64; 3]) -> f64) -> DifferenceRecord {
    let mut volume = zeros();
    for ((z, y, x), value) in volume.indexed_iter_mut() {
        let from_middle = [0, 1, 2].map(|axis| [z, y, x][axis] as f64 - MIDDLE[axis]);
        *value = THRESHOLD * change(from_middle) as f32;
    }
    let (reference, target) = pair(71, 1.0, 0.0, &volume);
    difference(&reference, &target, |_, config, _| {
        (config.match_intensity, config.min_grain_voxels) = (false, 4);
    })
    .unwrap()
    .record
}

/// The sum of the increase, and the share of it that may be no change.
fn share_in_doubt(change: impl Fn([f64; 3]) -> f64) -> (f64, f64) {
    let found = record_of(change);
    (
        found.increase_sum,
        found.increase_doubtful_sum / found.increase_sum,
    )
}

fn ball(height: f64, radius: f64) -> impl Fn([f64; 3]) -> f64 {
    move |[z, y, x]| {
        let r = (z * z + y * y + x * x).sqrt();
        height / (1.0 + ((r - radius) / 0.5).exp())
    }
}

#[test]
fn a_faint_grain_is_no_artefact() {
    // every third voxel of it is below the threshold, none is at twice the threshold
    let (sum, doubt) = share_in_doubt(ball(1.1, 5.0));
    let truth: f64 = 1.1 * f64::from(THRESHOLD) * 4.0 / 3.0 * std::f64::consts::PI * 125.0;
    assert!(
        (sum / truth - 1.0).abs() < 0.1 && doubt < 0.2,
        "{sum} {truth} {doubt}"
    );
    // one of two voxels across could be anything
    let (_, doubt) = share_in_doubt(ball(1.4, 1.5));
    assert!(doubt > 0.9, "{doubt}");
}

#[test]
fn lines_and_sheets_may_be_artefacts() {
    let width = |t: f64| (-(t / 1.2).powi(2)).exp();
    for degrees in [0.0, 20.0, 45.0, 70.0] {
        let (sin, cos) = f64::to_radians(degrees).sin_cos();
        // a streak through all slices, two pixels wide
        let (sum, doubt) = share_in_doubt(|[_, y, x]| {
            let along = x * cos + y * sin;
            1.5 * width(y * cos - x * sin) * f64::from(along.abs() < 12.0)
        });
        assert!(sum > 0.0 && doubt > 0.95, "{degrees}: {doubt}");
    }
    // a ring, and a sheet
    let (sum, doubt) =
        share_in_doubt(|[z, y, x]| 1.5 * width(y.hypot(x) - 15.0) * f64::from(z.abs() < 0.5));
    assert!(sum > 0.0 && doubt > 0.95, "{doubt}");
    let (sum, doubt) =
        share_in_doubt(|[z, y, x]| 1.5 * f64::from(z.abs() < 0.5 && y.abs().max(x.abs()) < 12.0));
    assert!(sum > 0.0 && doubt > 0.95, "{doubt}");
}

#[test]
fn change_below_the_threshold_is_said() {
    let of_ball = |height: f64, radius: f64| {
        height * f64::from(THRESHOLD) * 4.0 / 3.0 * std::f64::consts::PI * radius.powi(3)
    };
    let said = |record: &DifferenceRecord| {
        record
            .warnings
            .iter()
            .any(|warning| warning.contains("smooth_sigma"))
    };
    // 2.5 sigma: one voxel in 160 is found; cubes hold 20 sigma or more where they are full, so two thirds filled ones stand out too
    let faint = record_of(ball(0.5, 12.0));
    let truth = of_ball(0.5, 12.0);
    let below = faint.increase_below_sum + faint.increase_sum;
    assert!(
        faint.increase_sum < 0.2 * truth
            && below > 0.6 * truth
            && below < 1.1 * truth
            && said(&faint),
        "{} + {} of {truth}",
        faint.increase_sum,
        faint.increase_below_sum
    );
    // the error holds what is missing: cubes that are not full and do not stand out leave some
    let off = (truth - faint.increase_sum) / faint.increase_sum_err;
    assert!(off > 0.8 && off < 1.7, "{off}");
    // nothing is left around a grain that is found, nor by noise alone
    for clear in [record_of(ball(3.0, 5.0)), record_of(|_| 0.0)] {
        assert_eq!(
            (clear.increase_below_sum, clear.decrease_below_sum),
            (0.0, 0.0)
        );
        assert!(!said(&clear));
    }
}
