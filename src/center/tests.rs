//! The axis of made scans, known exactly, and of published references.

use super::testing::{Made, Recipe, degrees};
use super::*;

fn found(made: &Made, config: &CenterConfig) -> AxisFit {
    find(made, config, &Progress::new(true)).unwrap()
}

fn middle_answer(fit: &AxisFit, method: &str) -> f64 {
    crate::stats::median(fit.methods[method].axis_px.clone())
}

#[test]
fn both_methods_find_a_clean_axis_to_a_twentieth_of_a_pixel() {
    for axis in [79.5, 71.3, 88.85] {
        let fit = found(&Recipe::half_turn(axis).make(), &CenterConfig::default());
        assert!(fit.agree, "{fit:?}");
        assert!((fit.axis_px - axis).abs() < 0.05, "{axis}: {fit:?}");
        assert!(
            (middle_answer(&fit, "phase-correlation") - axis).abs() < 0.05,
            "{axis}: {fit:?}"
        );
        assert_eq!(fit.slope_px_per_row, 0.0);
        assert!(fit.uncertainty_px < 0.1);
    }
}

#[test]
fn the_axis_of_a_full_turn_is_found_where_no_views_are_opposite() {
    let recipe = Recipe {
        angles_rad: degrees(0.0, 360.0 / 375.0, 376),
        ..Recipe::half_turn(73.4)
    };
    let fit = found(&recipe.make(), &CenterConfig::default());
    assert!(fit.agree && fit.methods.len() == 3, "{fit:?}");
    for method in ["mirror-match", "double-wedge", "phase-correlation"] {
        assert!(
            (middle_answer(&fit, method) - 73.4).abs() < 0.1,
            "{method}: {fit:?}"
        );
    }
    assert!((fit.axis_px - 73.4).abs() < 0.05);
}

#[test]
fn angles_in_any_order_and_without_the_last_view_do_not_matter() {
    let mut recipe = Recipe {
        angles_rad: degrees(-30.0, 1.0, 180),
        ..Recipe::half_turn(84.7)
    };
    for k in 0..90 {
        recipe.angles_rad.swap(k, (k * 67) % 180);
    }
    let fit = found(&recipe.make(), &CenterConfig::default());
    assert!(fit.agree && (fit.axis_px - 84.7).abs() < 0.05, "{fit:?}");
    assert!(
        (middle_answer(&fit, "phase-correlation") - 84.7).abs() < 0.15,
        "{fit:?}"
    );
}

#[test]
fn a_lean_is_found_with_noise_and_stripes() {
    // 1.43 degrees: inside the default limit, outside the narrower one below
    let recipe = Recipe {
        slope: 0.025,
        n_rows: 96,
        noise: 0.02,
        stripes: 0.02,
        air_rows: 30,
        ..Recipe::half_turn(74.6)
    };
    let made = recipe.make();
    let fit = found(&made, &CenterConfig::default());
    assert!(fit.agree, "{fit:?}");
    assert!(
        (fit.at(60.0) - (74.6 + 0.025 * 12.5)).abs() < 0.1,
        "{fit:?}"
    );
    assert!((fit.slope_px_per_row - 0.025).abs() < 0.004, "{fit:?}");
    assert!(
        fit.methods["double-wedge"]
            .rows
            .iter()
            .all(|&row| row >= 30.0),
        "air was asked: {fit:?}"
    );
    let limited = found(
        &made,
        &CenterConfig {
            max_lean_deg: 0.5,
            ..CenterConfig::default()
        },
    );
    assert_eq!(limited.slope_px_per_row, 0.0);
    assert!(
        limited.notes.iter().any(|n| n.contains("max_lean_deg")),
        "{limited:?}"
    );
}

#[test]
fn a_truncated_object_and_a_far_axis_are_no_harm() {
    let truncated = Recipe {
        radius: 170.0,
        n_discs: 150,
        noise: 0.005,
        ..Recipe::half_turn(83.3)
    };
    let fit = found(&truncated.make(), &CenterConfig::default());
    assert!(fit.agree && (fit.axis_px - 83.3).abs() < 0.1, "{fit:?}");
    assert!(
        (middle_answer(&fit, "phase-correlation") - 83.3).abs() < 0.2,
        "{fit:?}"
    );
    let far = Recipe {
        radius: 38.0,
        n_rows: 2,
        ..Recipe::half_turn(44.4)
    };
    let fit = found(&far.make(), &CenterConfig::default());
    assert!(fit.agree && (fit.axis_px - 44.4).abs() < 0.05, "{fit:?}");
}

#[test]
fn strong_noise_widens_the_uncertainty_instead_of_hiding_in_it() {
    for seed in 0..3 {
        let recipe = Recipe {
            noise: 0.1,
            n_discs: 20 + seed,
            ..Recipe::half_turn(76.2)
        };
        let fit = found(&recipe.make(), &CenterConfig::default());
        let error = (fit.axis_px - 76.2).abs();
        eprintln!("error {error:.3}, stated {:.3}", fit.uncertainty_px);
        assert!(
            error < 3.0 * fit.uncertainty_px + 0.05 && error < 0.6,
            "{error}: {fit:?}"
        );
    }
}

#[test]
fn half_acquisition_is_found_at_both_edges() {
    for axis in [12.4, 148.15] {
        let recipe = Recipe {
            angles_rad: degrees(0.0, 1.0, 361),
            radius: 140.0,
            n_discs: 120,
            n_rows: 3,
            noise: 0.005,
            ..Recipe::half_turn(axis)
        };
        let fit = found(&recipe.make(), &CenterConfig::default());
        assert!(
            fit.agree && (fit.axis_px - axis).abs() < 0.1,
            "{axis}: {fit:?}"
        );
        assert_eq!(fit.methods.keys().collect::<Vec<_>>(), ["mirror-match"]);
        assert!(fit.notes.iter().any(|n| n.contains("half acquisition")));
    }
}

#[test]
fn a_given_axis_is_taken_without_reading() {
    struct Unreadable;
    impl SinogramSource for Unreadable {
        fn n_rows(&self) -> usize {
            11
        }
        fn n_cols(&self) -> usize {
            64
        }
        fn angles_rad(&self) -> &[f64] {
            &[0.0]
        }
        fn sinograms(&self, _: std::ops::Range<usize>) -> Result<crate::scan::Sinograms> {
            panic!("was read")
        }
        fn projection(&self, _: usize, _: std::ops::Range<usize>) -> Result<Array2<f32>> {
            panic!("was read")
        }
    }
    let given = CenterConfig {
        value: Some(30.5),
        slope: 0.01,
        ..CenterConfig::default()
    };
    let fit = find(&Unreadable, &given, &Progress::new(true)).unwrap();
    assert_eq!((fit.axis_px, fit.at(7.0), fit.agree), (30.5, 30.52, true));
    let error = find(&Unreadable, &CenterConfig::default(), &Progress::new(true)).unwrap_err();
    assert!(
        error.to_string().contains("half a turn") && error.to_string().contains("--axis"),
        "{error}"
    );
}

#[test]
fn the_method_and_the_rows_asked_are_honoured() {
    let made = Recipe::half_turn(81.2).make();
    for (method, name) in [
        (CenterMethod::DoubleWedge, "double-wedge"),
        (CenterMethod::PhaseCorrelation, "phase-correlation"),
    ] {
        let fit = found(
            &made,
            &CenterConfig {
                method,
                ..CenterConfig::default()
            },
        );
        assert_eq!(fit.methods.keys().collect::<Vec<_>>(), [name]);
        assert!((fit.axis_px - 81.2).abs() < 0.05, "{fit:?}");
    }
    let fit = find_at_rows(
        &made,
        &[3, 17],
        &CenterConfig::default(),
        &Progress::new(true),
    )
    .unwrap();
    assert_eq!(fit.methods["double-wedge"].rows, [3.0, 17.0]);
    assert!(find_at_rows(&made, &[24], &CenterConfig::default(), &Progress::new(true)).is_err());
    let mirror = CenterConfig {
        method: CenterMethod::MirrorMatch,
        ..CenterConfig::default()
    };
    let error = find(&made, &mirror, &Progress::new(true)).unwrap_err();
    assert!(error.to_string().contains("opposite"), "{error}");
}

#[test]
fn a_search_that_does_not_reach_the_axis_is_told() {
    let made = Recipe::half_turn(100.0).make();
    let narrow = CenterConfig {
        search_px: 8.0,
        ..CenterConfig::default()
    };
    if let Ok(fit) = find(&made, &narrow, &Progress::new(true)) {
        assert!(!fit.agree, "{fit:?}");
    }
    let wide = CenterConfig {
        search_px: 30.0,
        ..CenterConfig::default()
    };
    assert!((found(&made, &wide).axis_px - 100.0).abs() < 0.05);
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let made = Recipe {
        noise: 0.05,
        n_rows: 6,
        ..Recipe::half_turn(78.1)
    }
    .make();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| found(&made, &CenterConfig::default()))
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn no_sample_at_all_gives_no_confident_axis() {
    let recipe = Recipe {
        n_discs: 0,
        noise: 0.1,
        ..Recipe::half_turn(79.5)
    };
    if let Ok(fit) = find(
        &recipe.make(),
        &CenterConfig::default(),
        &Progress::new(true),
    ) {
        assert!(!fit.agree, "{fit:?}");
    }
}

/// Measures; the numbers are in the module's documentation.
#[test]
#[ignore = "takes minutes unoptimised: cargo test --release center::tests::seconds -- --ignored --nocapture"]
fn seconds_per_row_of_the_double_wedge() {
    for (n_angles, n_cols, axis) in [(1501, 1024, 518.8), (3001, 2048, 1030.8)] {
        let recipe = Recipe {
            n_rows: 1,
            n_cols,
            angles_rad: degrees(0.0, 180.0 / (n_angles as f64 - 1.0), n_angles),
            n_discs: 300,
            radius: 0.45 * n_cols as f64,
            noise: 0.01,
            stripes: 0.01,
            ..Recipe::half_turn(axis)
        };
        let made = recipe.make();
        let config = CenterConfig {
            method: CenterMethod::DoubleWedge,
            ..CenterConfig::default()
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let started = std::time::Instant::now();
        let fit = pool.install(|| found(&made, &config));
        eprintln!(
            "{n_angles} x {n_cols}: {:.2} s, error {:+.3} px",
            started.elapsed().as_secs_f64(),
            fit.axis_px - axis
        );
        assert!((fit.axis_px - axis).abs() < 0.1);
    }
}
