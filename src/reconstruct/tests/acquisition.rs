//! Angles as they come, and half acquisition, on phantoms with exact projections.

use std::f64::consts::{PI, TAU};

use ndarray::{Array2, Axis, s};

use super::*;
use crate::config::Acquisition;
use crate::phantom;
use crate::reconstruct::acquisition::{Field, blend, blend_by, is_full_turn};

/// A rich object without symmetry that fills `n` columns: a tenth of the cloth's ellipses, the largest ones.
fn object(n: usize) -> Vec<Ellipse> {
    let mut all = cloth_phantom(n);
    all.sort_by(|a, b| (b.a * b.b).total_cmp(&(a.a * a.b)));
    all.truncate(90);
    all
}

fn even(n: usize, turn: f64) -> Vec<f64> {
    (0..n).map(|k| turn * k as f64 / n as f64).collect()
}

/// The slice of a half acquisition with `n_cols` columns and the axis at `axis`.
fn half(
    method: ReconstructMethod,
    object: &[Ellipse],
    angles: &[f64],
    n_cols: usize,
    axis: f64,
    disturb: impl Fn(&mut Array2<f32>),
) -> (Array2<f32>, Field) {
    let mode = Acquisition::Auto;
    let field = Field::of_scan(mode, angles, n_cols, [axis; 2]).expect("a full turn");
    assert!(field.half);
    let mut measured = sinogram(object, angles, n_cols, axis);
    disturb(&mut measured);
    let mut measured = measured.insert_axis(Axis(0));
    blend(measured.view_mut(), &[axis], &[]);
    let config = ReconstructConfig {
        method,
        ..ReconstructConfig::default()
    };
    let config = field.widen(&config, n_cols);
    let mut rays = rays(angles, InPlaneMotion::default());
    field.weigh(angles, &mut rays);
    let job = SliceJob::new(n_cols, rays, Grid::square(field.width), &config, 1.0);
    let slice = reconstruct(&job, &measured, &[axis]).index_axis_move(Axis(0), 0);
    (slice, field)
}

/// Root mean square of found - truth where the distance to the axis lies in `range` \[px\].
fn ring_rmse(found: &Array2<f32>, truth: &Array2<f32>, range: std::ops::Range<f64>) -> f64 {
    let middle = (truth.ncols() as f64 - 1.0) / 2.0;
    let (mut sum, mut count) = (0.0, 0.0_f64);
    for ((j, i), &t) in truth.indexed_iter() {
        if range.contains(&(i as f64 - middle).hypot(j as f64 - middle)) {
            sum += f64::from(found[[j, i]] - t).powi(2);
            count += 1.0;
        }
    }
    (sum / count.max(1.0)).sqrt()
}

#[test]
fn half_acquisition_is_as_good_as_a_detector_of_twice_the_width() {
    let wide = 256;
    let object = object(wide);
    let truth = truth(&object, &Grid::square(wide));
    let n = 400;
    for method in METHODS {
        let angles = even(n, PI);
        let full = slice(
            &job(wide, &angles),
            method,
            &sinogram(&object, &angles, wide, 127.5),
            127.5,
        );
        let (_, reference) = factor_and_rmse(&full, &truth, 0.9);
        // columns so that the far side reaches as far as in the wide scan; axis left and right, between pixels and on one; both
        // ends of the turn included, or opposite views that miss each other by half a step
        let cases = [
            (141, 13.3, even(2 * n, TAU)),
            (141, 140.0 - 13.0, even(2 * n, TAU)),
            (133, 4.6, even(2 * n + 1, TAU)),
            (
                160,
                31.9,
                (0..=2 * n).map(|k| k as f64 * PI / n as f64).collect(),
            ),
        ];
        for (n_cols, axis, angles) in cases {
            let (found, field) = half(method, &object, &angles, n_cols, axis, |_| ());
            let edge = (field.width - wide) / 2;
            let found = found
                .slice(s![edge..edge + wide, edge..edge + wide])
                .to_owned();
            let (factor, rmse) = factor_and_rmse(&found, &truth, 0.9);
            let overlap = axis.min(n_cols as f64 - 1.0 - axis);
            // the seam would stand where the overlap ends
            let seam = overlap - 3.0..overlap + 3.0;
            let (here, there) = (
                ring_rmse(&found, &truth, seam.clone()),
                ring_rmse(&full, &truth, seam),
            );
            println!(
                "{method:?}, {n_cols} columns, axis {axis}: factor {factor:.5}, rmse {rmse:.3e} against {reference:.3e}, at the seam {here:.3e} against {there:.3e}"
            );
            // the same rays at other places of the pixel grid: the error of sharp edges differs in its phase only, by some per
            // cent over the slice and more in a ring of few voxels
            assert!((factor - 1.0).abs() < 2e-3, "{method:?} {axis}: {factor}");
            assert!(
                rmse < 1.05 * reference,
                "{method:?} {axis}: {rmse} against {reference}"
            );
            assert!(
                here < 1.25 * there.max(reference),
                "{method:?} {axis}: {here} against {there}"
            );
        }
        // an axis that is wrong by half a pixel must show
        let angles = even(2 * n, TAU);
        let measured = |axis: f64| {
            let field = Field::of_scan(Acquisition::Half, &angles, 141, [axis; 2]).unwrap();
            let mut sinogram = sinogram(&object, &angles, 141, 13.3).insert_axis(Axis(0));
            blend(sinogram.view_mut(), &[axis], &[]);
            let mut rays = rays(&angles, InPlaneMotion::default());
            field.weigh(&angles, &mut rays);
            let config = field.widen(&job(141, &angles).config, 141);
            let job = SliceJob::new(141, rays, Grid::square(wide), &config, 1.0);
            let found = reconstruct(&job, &sinogram, &[axis]).index_axis_move(Axis(0), 0);
            factor_and_rmse(&found, &truth, 0.9).1
        };
        assert!(measured(13.8) > 1.2 * measured(13.3), "{method:?}");
    }
}

#[test]
fn a_beam_that_changes_within_the_turn_makes_no_seam() {
    let wide = 256;
    let object = object(wide);
    let truth = truth(&object, &Grid::square(wide));
    let angles = even(800, TAU);
    // half a per cent less beam in the second half of the turn: -ln is higher by 0.005
    let drift = |sinogram: &mut Array2<f32>| {
        sinogram
            .slice_mut(s![400.., ..])
            .mapv_inplace(|v| v + 0.005);
    };
    let method = ReconstructMethod::Fourier;
    let slice = |disturb: &dyn Fn(&mut Array2<f32>)| {
        let (found, field) = half(method, &object, &angles, 141, 13.3, disturb);
        let edge = (field.width - wide) / 2;
        found
            .slice(s![edge..edge + wide, edge..edge + wide])
            .to_owned()
    };
    let (even, drifted) = (slice(&|_| ()), slice(&drift));
    let added = &drifted - &even;
    // what the same drift does to a row stitched without blending: a step of 0.005 at the axis, whose ramp-filtered edge is
    // 0.005 / pi^2 per px next to it, in every view
    let middle = added.slice(s![118..138, 118..138]);
    let largest = middle.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    println!(
        "drift of 0.005: {largest:.2e} 1/px at the axis, peak of the object {:.2e}",
        peak(&truth)
    );
    assert!(
        largest < 0.25 * 0.005 * 2.0 / std::f32::consts::PI,
        "{largest}"
    );
    assert!(largest > 0.0, "blind");
}

#[test]
fn the_acquisition_follows_from_axis_and_angles() {
    let auto = |axis: f64, angles: &[f64]| {
        Field::of_scan(Acquisition::Auto, angles, 101, [axis; 2]).unwrap()
    };
    let (turn, half_turn) = (even(200, TAU), even(100, PI));
    assert!(!auto(50.0, &turn).half && !auto(42.0, &turn).half);
    assert!(
        !auto(10.0, &half_turn).half,
        "a half turn sees no far side twice"
    );
    assert_eq!(
        auto(10.0, &turn),
        Field {
            half: true,
            width: 184
        }
    );
    assert_eq!(
        auto(90.0, &turn),
        Field {
            half: true,
            width: 184
        }
    );
    assert!(is_full_turn(&turn) && !is_full_turn(&half_turn));
    let mut gap = turn.clone();
    gap.drain(20..30);
    assert!(!is_full_turn(&gap), "18 degrees are missing");
    let half =
        |axis: f64, angles: &[f64]| Field::of_scan(Acquisition::Half, angles, 101, [axis; 2]);
    assert!(
        half(10.0, &half_turn)
            .unwrap_err()
            .to_string()
            .contains("181.8 degrees")
    );
    assert!(
        half(-3.0, &turn)
            .unwrap_err()
            .to_string()
            .contains("reconstruct.acquisition")
    );
    assert!(
        half(50.0, &turn).unwrap().half,
        "asked for, it is done in the middle, too"
    );
    let full = Field::of_scan(Acquisition::Full, &turn, 101, [10.0; 2]).unwrap();
    assert_eq!(full, Field::full(101));
}

/// What the ways to join the two sides leave, on exact and on noisy data: figures for the choice in `acquisition`.
#[test]
#[ignore = "figures, not a promise"]
fn ways_to_join_the_two_sides() {
    let (wide, n, n_cols, axis) = (256, 400, 155, 27.3_f64);
    let object = object(wide);
    let truth = truth(&object, &Grid::square(wide));
    let angles = even(2 * n, TAU);
    let method = ReconstructMethod::Fourier;
    let smooth = |u: f64| 0.5 + 0.5 * (PI / 2.0 * u.clamp(-1.0, 1.0)).sin();
    let shapes: [(&str, &(dyn Fn(f64) -> f64 + Sync)); 5] = [
        ("linear", &|u: f64| 0.5 + 0.5 * u.clamp(-1.0, 1.0)),
        ("half a sine", &smooth),
        ("half a sine, inner half", &|u: f64| smooth(2.0 * u)),
        ("one half in the inner half", &|u: f64| {
            if u.abs() < 0.5 {
                0.5
            } else {
                0.5 + 0.5 * u.signum() * smooth(4.0 * u.abs() - 3.0)
            }
        }),
        ("polynomial of degree 9", &|u: f64| {
            let v = 0.5 + 0.5 * u.clamp(-1.0, 1.0);
            v.powi(5) * (126.0 - 420.0 * v + 540.0 * v * v - 315.0 * v.powi(3) + 70.0 * v.powi(4))
        }),
    ];
    let mut random = phantom::SplitMix64::new(2);
    let clean = sinogram(&object, &angles, n_cols, axis);
    let peak = peak(&clean);
    let noisy = clean.mapv(|v| {
        let sum: f64 = (0..12).map(|_| random.uniform(-0.5, 0.5)).sum();
        v + 0.01 * peak * sum as f32
    });
    let mut drifting = clean.clone();
    drifting
        .slice_mut(s![n.., ..])
        .mapv_inplace(|v| v + 0.01 * peak);
    for (data, measured) in [
        ("exact", &clean),
        ("noisy", &noisy),
        ("drifting", &drifting),
    ] {
        for (name, share) in &shapes {
            let mut weighted = measured.clone().insert_axis(Axis(0));
            blend_by(|u, _| share(u), weighted.view_mut(), &[axis], &[]);
            let field = Field::of_scan(Acquisition::Half, &angles, n_cols, [axis; 2]).unwrap();
            let config = field.widen(&job(n_cols, &angles).config, n_cols);
            let config = ReconstructConfig { method, ..config };
            let mut rays = rays(&angles, InPlaneMotion::default());
            field.weigh(&angles, &mut rays);
            let job = SliceJob::new(n_cols, rays, Grid::square(wide), &config, 1.0);
            let found = reconstruct(&job, &weighted, &[axis]).index_axis_move(Axis(0), 0);
            let all = factor_and_rmse(&found, &truth, 0.9).1;
            let middle = ring_rmse(&found, &truth, 0.0..27.0);
            println!("{data}, every view, {name}: rmse {all:.4e}, within the overlap {middle:.4e}");
        }
        // the usual way: opposite views joined to rows of a half turn, the mirrored one moved by linear interpolation
        let added = (n_cols as f64 - 1.0 - 2.0 * axis).floor() as usize;
        let mut joined = Array2::<f32>::zeros((n, n_cols + added));
        for ((view, col), value) in joined.indexed_iter_mut() {
            let t = col as f64 - added as f64 - axis;
            let w = smooth(t / (axis + 0.5));
            let other = axis - t;
            let (whole, part) = (other.floor(), other.fract() as f32);
            let at =
                |row: usize, col: f64| measured[[row, (col.max(0.0) as usize).min(n_cols - 1)]];
            let mirrored = at(view + n, whole) * (1.0 - part) + at(view + n, whole + 1.0) * part;
            let own = if t >= -axis { at(view, t + axis) } else { 0.0 };
            *value = w as f32 * own + (1.0 - w) as f32 * mirrored;
        }
        let mut job = job(n_cols + added, &even(n, PI));
        job.grid = Grid::square(wide);
        let found = slice(&job, method, &joined, axis + added as f64);
        let all = factor_and_rmse(&found, &truth, 0.9).1;
        let middle = ring_rmse(&found, &truth, 0.0..27.0);
        println!("{data}, joined to half a turn: rmse {all:.4e}, within the overlap {middle:.4e}");
    }
}

/// Views of a scan and how well they must do against evenly spread ones.
struct Views {
    name: &'static str,
    angles: Vec<f64>,
    /// Largest share by which the amplitude may be off.
    amplitude: f64,
    /// Largest root mean square error, as a multiple of that of the even half turn.
    error: f64,
}

#[test]
fn angles_are_taken_as_they_come() {
    let n_cols = 160;
    let object = object(n_cols);
    let truth = truth(&object, &Grid::square(n_cols));
    let n = 300;
    let axis = 79.2;
    let mut random = phantom::SplitMix64::new(1);
    let mut shuffled = even(n, PI);
    for k in (1..n).rev() {
        shuffled.swap(k, (random.uniform(0.0, k as f64 + 1.0) as usize).min(k));
    }
    let golden = PI * (5.0_f64.sqrt() - 1.0) / 2.0;
    let mut doubled = even(n, PI);
    doubled.extend(even(n, PI).into_iter().take(100));
    let mut turns = even(n, PI);
    turns
        .iter_mut()
        .enumerate()
        .for_each(|(k, a)| *a += TAU * (k % 5) as f64 - 3.0 * TAU);
    let mut gap = even(n, PI);
    gap.drain(100..104);
    let random_ones = (0..2 * n).map(|_| random.uniform(0.0, TAU)).collect();
    let cases = [
        Views {
            name: "shuffled",
            angles: shuffled,
            amplitude: 1e-5,
            error: 1.0001,
        },
        Views {
            name: "both ends",
            angles: half_turn(n + 1),
            amplitude: 1e-4,
            error: 1.01,
        },
        Views {
            name: "golden angle",
            angles: (0..n).map(|k| golden * k as f64).collect(),
            amplitude: 3e-3,
            error: 1.0,
        },
        Views {
            name: "full turn",
            angles: even(n, TAU),
            amplitude: 3e-3,
            error: 1.0,
        },
        Views {
            name: "220 degrees",
            angles: (0..=366).map(|k| f64::from(k) * PI / 300.0).collect(),
            amplitude: 3e-3,
            error: 1.0,
        },
        Views {
            name: "a third of them twice",
            angles: doubled,
            amplitude: 1e-4,
            error: 1.01,
        },
        Views {
            name: "whole turns off, negative",
            angles: turns,
            amplitude: 1e-5,
            error: 1.0001,
        },
        Views {
            name: "backwards",
            angles: even(n, PI).into_iter().rev().collect(),
            amplitude: 1e-5,
            error: 1.0001,
        },
        Views {
            name: "four lost",
            angles: gap,
            amplitude: 3e-3,
            error: 1.06,
        },
        Views {
            name: "random",
            angles: random_ones,
            amplitude: 5e-3,
            error: 1.2,
        },
    ];
    for method in METHODS {
        let angles = even(n, PI);
        let found = slice(
            &job(n_cols, &angles),
            method,
            &sinogram(&object, &angles, n_cols, axis),
            axis,
        );
        let (least_factor, least) = factor_and_rmse(&found, &truth, 0.9);
        for Views {
            name,
            angles,
            amplitude,
            error,
        } in &cases
        {
            let found = slice(
                &job(n_cols, angles),
                method,
                &sinogram(&object, angles, n_cols, axis),
                axis,
            );
            let (factor, rmse) = factor_and_rmse(&found, &truth, 0.9);
            println!(
                "{method:?}, {name}: factor {factor:.5} ({least_factor:.5}), rmse {:.3} times",
                rmse / least
            );
            assert!(
                (factor - least_factor).abs() < *amplitude,
                "{method:?}, {name}: {factor} against {least_factor}"
            );
            assert!(
                rmse < error * least,
                "{method:?}, {name}: {rmse} against {least}"
            );
        }
    }
}

/// How a gap of missing projections is best weighted: figures for the rule in `geometry`.
#[test]
#[ignore = "figures, not a promise"]
fn gaps_shared_by_their_neighbours_or_left_out() {
    let n_cols = 256;
    let object = object(n_cols);
    let truth = truth(&object, &Grid::square(n_cols));
    let n = 900;
    for lost in [0, 2, 5, 10, 15, 25, 50, 100, 200] {
        let mut angles = even(n, PI);
        angles.drain(300..300 + lost);
        let measured = sinogram(&object, &angles, n_cols, 127.5);
        let step = PI / n as f64;
        let ends = [299, 300];
        let measure = |end_weight: f64| {
            let mut job = job(n_cols, &angles);
            job.rays.iter_mut().for_each(|ray| ray.weight = step);
            for end in ends {
                job.rays[end].weight = end_weight;
            }
            factor_and_rmse(
                &slice(&job, ReconstructMethod::Fourier, &measured, 127.5),
                &truth,
                0.9,
            )
        };
        let shared = measure(0.5 * step * (lost as f64 + 2.0));
        let left = measure(step);
        println!(
            "{lost} lost ({:.1} degrees): shared {:.5} {:.4e}, left out {:.5} {:.4e}",
            lost as f64 * 180.0 / n as f64,
            shared.0,
            shared.1,
            left.0,
            left.1
        );
    }
}
