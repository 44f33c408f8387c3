//! What must hold whatever the data are.

use std::f64::consts::PI;

use ndarray::{Array2, Array3, Axis, s};

use super::*;
use crate::error::Error;

const N: usize = 72;
const AXIS: f64 = 36.9;

/// A few ellipses without symmetry, inside the field of view.
fn object() -> Vec<Ellipse> {
    vec![
        Ellipse {
            x: 3.0,
            y: -4.0,
            a: 22.0,
            b: 17.0,
            phi: 0.4,
            value: 0.02,
        },
        disc(10.0, 8.0, 5.0, 0.03),
        disc(-9.0, -11.0, 3.0, -0.01),
    ]
}

/// Slightly different slices, each with its own axis.
fn slab(rows: usize, angles: &[f64]) -> (Array3<f32>, Vec<f64>) {
    let axes: Vec<f64> = (0..rows).map(|row| AXIS + 0.013 * row as f64).collect();
    let sinograms: Vec<_> = axes
        .iter()
        .enumerate()
        .map(|(row, &axis)| {
            let mut object = object();
            object[1].x -= row as f64 * 0.5;
            sinogram(&object, angles, N, axis)
        })
        .collect();
    (stack(&sinograms), axes)
}

#[test]
fn slab_height_thread_count_and_memory_order_do_not_change_a_bit() {
    let angles = half_turn(101);
    let (sinograms, axes) = slab(43, &angles);
    for method in METHODS {
        let mut job = job(N, &angles);
        job.config.method = method;
        let whole = reconstruct(&job, &sinograms, &axes);
        for height in [1, 2, 5, 8, 13, 16, 32] {
            let mut engine = Reconstructor::new(job.clone(), &Device::Cpu).unwrap();
            let mut out = Array3::zeros(whole.dim());
            for start in (0..43).step_by(height) {
                let rows = start..(start + height).min(43);
                engine
                    .slab(
                        sinograms.slice(s![rows.clone(), .., ..]),
                        &axes[rows.clone()],
                        out.slice_mut(s![rows, .., ..]),
                    )
                    .unwrap();
            }
            assert_eq!(out, whole, "{method:?}, slabs of {height}");
        }
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            assert_eq!(
                pool.install(|| reconstruct(&job, &sinograms, &axes)),
                whole,
                "{method:?}, {threads} threads"
            );
        }
        // columns of the array in another order in memory than rows
        let mut turned = Array3::zeros((N, 101, 43));
        turned.assign(&sinograms.view().reversed_axes());
        let mut out = Array3::zeros((N, N, 43)).reversed_axes();
        Reconstructor::new(job.clone(), &Device::Cpu)
            .unwrap()
            .slab(turned.view().reversed_axes(), &axes, out.view_mut())
            .unwrap();
        assert_eq!(out, whole, "{method:?}, strided");
        let mut changed = sinograms.clone();
        changed[[20, 50, 30]] += 1e-3;
        let other = reconstruct(&job, &changed, &axes);
        let differing: Vec<usize> = (0..43)
            .filter(|&z| other.index_axis(Axis(0), z) != whole.index_axis(Axis(0), z))
            .collect();
        assert_eq!(
            differing,
            [20],
            "{method:?}: a slice depends on its own sinogram only"
        );
    }
}

#[test]
fn the_slice_is_linear_in_the_sinogram() {
    let angles = half_turn(91);
    let a = sinogram(&object(), &angles, N, AXIS);
    let b = sinogram(&[disc(-12.0, 7.0, 9.0, 0.04)], &angles, N, AXIS);
    let job = job(N, &angles);
    for method in METHODS {
        let sum = slice(&job, method, &(2.0 * &a - &b), AXIS);
        let expected = 2.0 * slice(&job, method, &a, AXIS) - slice(&job, method, &b, AXIS);
        let limit = 1e-5 * peak(&expected);
        assert!(largest_difference(&sum, &expected) < limit, "{method:?}");
        assert!(largest_difference(&sum, &slice(&job, method, &(&a - &b), AXIS)) > limit);
    }
}

#[test]
fn angles_shifted_by_a_right_angle_turn_the_slice() {
    let angles = half_turn(91);
    let sinogram = sinogram(&object(), &angles, N, AXIS);
    let later: Vec<f64> = angles.iter().map(|angle| angle + PI / 2.0).collect();
    for method in METHODS {
        let straight = slice(&job(N, &angles), method, &sinogram, AXIS);
        let turned = slice(&job(N, &later), method, &sinogram, AXIS);
        // counter-clockwise with y up: what stood at (x, y) now stands at (-y, x)
        let expected = Array2::from_shape_fn((N, N), |(j, i)| straight[[i, N - 1 - j]]);
        assert!(
            largest_difference(&turned, &expected) < 2e-5 * peak(&expected),
            "{method:?}"
        );
        assert!(largest_difference(&turned, &straight) > 0.1 * peak(&expected));
    }
}

#[test]
fn angles_shifted_by_any_angle_turn_the_slice() {
    let angles = half_turn(181);
    let turn = 0.37;
    let (sin, cos) = f64::sin_cos(turn);
    let turned: Vec<Ellipse> = object()
        .iter()
        .map(|e| Ellipse {
            x: cos * e.x - sin * e.y,
            y: sin * e.x + cos * e.y,
            phi: e.phi + turn,
            ..*e
        })
        .collect();
    let later: Vec<f64> = angles.iter().map(|angle| angle + turn).collect();
    let as_seen = sinogram(&object(), &angles, N, AXIS);
    let expected = sinogram(&turned, &angles, N, AXIS);
    for method in METHODS {
        // the same object from other directions: what differs is the aliasing of sharp edges
        let expected = slice(&job(N, &angles), method, &expected, AXIS);
        let found = slice(&job(N, &later), method, &as_seen, AXIS);
        let (factor, rmse) = factor_and_rmse(&found, &expected, 0.95);
        assert!(
            (factor - 1.0).abs() < 1e-3 && rmse < 0.012 * f64::from(peak(&expected)),
            "{method:?}: {factor}, {rmse}"
        );
        let (_, straight) = factor_and_rmse(
            &slice(&job(N, &angles), method, &as_seen, AXIS),
            &expected,
            0.95,
        );
        assert!(straight > 5.0 * rmse, "{method:?}: {straight}");
    }
}

#[test]
fn the_sum_of_a_slice_is_that_of_each_projection() {
    // the line integrals of one view, a pixel apart, add up to the whole object; so do its voxels
    let angles = half_turn(181);
    let object = object();
    let sinogram = sinogram(&object, &angles, N, AXIS);
    let area: f64 = object.iter().map(|e| PI * e.a * e.b * e.value).sum();
    for method in METHODS {
        let sum_within = |radius: f64| -> f64 {
            let mut job = job(N, &angles);
            job.mask_radius_px = Some(radius);
            slice(&job, method, &sinogram, AXIS)
                .iter()
                .map(|&v| f64::from(v))
                .sum()
        };
        for row in [0, 40, 133] {
            let seen: f64 = sinogram.row(row).iter().map(|&v| f64::from(v)).sum();
            assert!(
                (seen / area - 1.0).abs() < 1e-6,
                "row {row}: {seen}, {area}"
            );
        }
        // beyond the object the filtered rows leave a tail that falls as 1 / r^3 and sums to nothing; within 35 px of 72 (padded to 256)
        // less than a thousandth of the sum is missing
        let sum = sum_within(35.0);
        assert!(
            (sum / area - 1.0).abs() < 1e-3,
            "{method:?}: {sum} of {area}"
        );
        let part = sum_within(15.0);
        assert!(
            (part / area - 1.0).abs() > 0.01,
            "{method:?}: the check is blind"
        );
    }
}

#[test]
fn a_row_moved_with_its_axis_gives_the_same_slice() {
    let angles = half_turn(91);
    let job = job(N, &angles);
    for method in METHODS {
        let here = slice(&job, method, &sinogram(&object(), &angles, N, AXIS), AXIS);
        let there = slice(
            &job,
            method,
            &sinogram(&object(), &angles, N, AXIS - 3.0),
            AXIS - 3.0,
        );
        assert!(
            largest_difference(&here, &there) < 1e-4 * peak(&here),
            "{method:?}"
        );
        let wrong = slice(
            &job,
            method,
            &sinogram(&object(), &angles, N, AXIS - 3.0),
            AXIS - 3.1,
        );
        assert!(
            largest_difference(&here, &wrong) > 1e-2 * peak(&here),
            "{method:?}"
        );
    }
}

#[test]
fn a_full_turn_gives_the_slice_of_a_half_turn() {
    let half: Vec<f64> = (0..120).map(|k| f64::from(k) * PI / 120.0).collect();
    let full: Vec<f64> = (0..240).map(|k| f64::from(k) * PI / 120.0).collect();
    for method in METHODS {
        let a = slice(
            &job(N, &half),
            method,
            &sinogram(&object(), &half, N, AXIS),
            AXIS,
        );
        let b = slice(
            &job(N, &full),
            method,
            &sinogram(&object(), &full, N, AXIS),
            AXIS,
        );
        // the mirrored views sample the detector at other places: the same object, other aliasing
        let (factor, rmse) = factor_and_rmse(&a, &b, 0.95);
        assert!(
            (factor - 1.0).abs() < 1e-3 && rmse < 0.01 * f64::from(peak(&b)),
            "{method:?}: {factor}, {rmse}"
        );
    }
}

#[test]
fn projections_in_any_order_and_missing_ones_are_weighted_by_their_arc() {
    let even = half_turn(181);
    let mut uneven = even.clone();
    for _ in 0..5 {
        uneven.remove(60);
    }
    uneven.extend([even[100], even[100], even[3]]);
    uneven.reverse();
    uneven.swap(7, 90);
    for method in METHODS {
        let a = slice(
            &job(N, &even),
            method,
            &sinogram(&object(), &even, N, AXIS),
            AXIS,
        );
        let b = slice(
            &job(N, &uneven),
            method,
            &sinogram(&object(), &uneven, N, AXIS),
            AXIS,
        );
        let (factor, rmse) = factor_and_rmse(&a, &b, 0.95);
        assert!(
            (factor - 1.0).abs() < 2e-3 && rmse < 0.02 * f64::from(peak(&b)),
            "{method:?}: {factor}, {rmse}"
        );
        let mut equal = job(N, &uneven);
        let count = equal.rays.len() as f64;
        equal
            .rays
            .iter_mut()
            .for_each(|ray| ray.weight = PI / count);
        let c = slice(&equal, method, &sinogram(&object(), &uneven, N, AXIS), AXIS);
        assert!(
            largest_difference(&a, &c) > 1.5 * largest_difference(&a, &b),
            "{method:?}: weights must matter"
        );
    }
}

#[test]
fn the_grid_of_a_moved_scan_is_that_of_the_reference() {
    let angles = half_turn(181);
    let motion = InPlaneMotion {
        shift_x_px: 4.6,
        shift_y_px: -2.3,
        rotation_rad: 0.15,
    };
    // a point p of the reference stands at R p + s; rows grow downwards, y upwards
    let (sin, cos) = (-motion.rotation_rad).sin_cos();
    let moved: Vec<Ellipse> = object()
        .iter()
        .map(|e| Ellipse {
            x: cos * e.x - sin * e.y + motion.shift_x_px,
            y: sin * e.x + cos * e.y - motion.shift_y_px,
            phi: e.phi - motion.rotation_rad,
            ..*e
        })
        .collect();
    let later = sinogram(&moved, &angles, N, AXIS);
    let mut on_reference = job(N, &angles);
    on_reference.rays = rays(&angles, motion);
    on_reference.mask_radius_px = Some(28.0);
    let mut as_it_stands = job(N, &angles);
    as_it_stands.mask_radius_px = Some(28.0);
    for method in METHODS {
        let reference = slice(
            &as_it_stands,
            method,
            &sinogram(&object(), &angles, N, AXIS),
            AXIS,
        );
        let found = slice(&on_reference, method, &later, AXIS);
        let (factor, rmse) = factor_and_rmse(&found, &reference, 0.75);
        assert!(
            (factor - 1.0).abs() < 1e-3 && rmse < 0.012 * f64::from(peak(&found)),
            "{method:?}: {factor}, {rmse}"
        );
        let (_, unmoved) = factor_and_rmse(
            &slice(&as_it_stands, method, &later, AXIS),
            &reference,
            0.75,
        );
        assert!(unmoved > 10.0 * rmse, "{method:?}: {unmoved}");
    }
}

#[test]
fn a_crop_and_a_finer_grid_give_the_voxels_of_the_whole_slice() {
    let angles = half_turn(91);
    let sinogram = sinogram(&object(), &angles, N, AXIS);
    let whole = job(N, &angles);
    let mut crop = whole.clone();
    crop.grid = whole.grid.crop(&(20..50), &(7..31));
    let mut fine = whole.clone();
    fine.grid = Grid {
        n_x: 2 * N - 1,
        n_y: 2 * N - 1,
        step: 0.5,
        ..whole.grid
    };
    for method in METHODS {
        let expected = slice(&whole, method, &sinogram, AXIS);
        let limit = 2e-5 * peak(&expected);
        let found = slice(&crop, method, &sinogram, AXIS);
        assert!(
            largest_difference(&found, &expected.slice(s![7..31, 20..50]).to_owned()) < limit,
            "{method:?}"
        );
        assert!(largest_difference(&found, &expected.slice(s![8..32, 20..50]).to_owned()) > limit);
        let found = slice(&fine, method, &sinogram, AXIS);
        assert!(
            largest_difference(&found.slice(s![..;2, ..;2]).to_owned(), &expected) < limit,
            "{method:?}"
        );
    }
}

#[test]
fn the_mask_is_zero_outside_and_changes_nothing_inside() {
    let angles = half_turn(60);
    let sinogram = sinogram(&object(), &angles, N, AXIS);
    let mut open = job(N, &angles);
    open.mask_radius_px = None;
    let mut masked = open.clone();
    masked.mask_radius_px = Some(20.0);
    for method in METHODS {
        let (all, some) = (
            slice(&open, method, &sinogram, AXIS),
            slice(&masked, method, &sinogram, AXIS),
        );
        for ((j, i), &value) in some.indexed_iter() {
            if (i as f64 - 35.5).hypot(j as f64 - 35.5) > 20.0 {
                assert_eq!(value, 0.0);
            } else {
                assert!(
                    (value - all[[j, i]]).abs() < 2e-5 * peak(&all),
                    "{method:?}"
                );
            }
        }
        assert!(all[[0, 0]] != 0.0);
    }
}

#[test]
fn wrong_shapes_and_methods_that_do_not_fit_are_errors() {
    let angles = half_turn(20);
    let mut engine = Reconstructor::new(job(16, &angles), &Device::Cpu).unwrap();
    let mut out = Array3::zeros((1, 16, 16));
    let narrow = Array3::zeros((1, 20, 15));
    let error = engine
        .slab(narrow.view(), &[7.5], out.view_mut())
        .unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    let fits = Array3::zeros((1, 20, 16));
    assert!(
        engine
            .slab(fits.view(), &[7.5, 8.0], out.view_mut())
            .is_err()
    );
    assert!(
        engine
            .slab(fits.view(), &[f64::NAN], out.view_mut())
            .is_err()
    );
    engine.slab(fits.view(), &[7.5], out.view_mut()).unwrap();
    let mut coarse = job(16, &angles);
    coarse.grid = coarse.grid.binned(2);
    coarse.config.method = ReconstructMethod::Fourier;
    assert!(Reconstructor::new(coarse.clone(), &Device::Cpu).is_err());
    coarse.grid.step = 1.0;
    assert!(
        Reconstructor::new(coarse.clone(), &Device::Cpu)
            .unwrap()
            .describe()
            .contains("Fourier")
    );
    coarse.config.method = ReconstructMethod::Auto;
    assert!(
        Reconstructor::new(coarse, &Device::Cpu)
            .unwrap()
            .describe()
            .contains("back-projection"),
        "a small crop"
    );
    let whole = job(128, &angles);
    assert!(
        Reconstructor::new(whole, &Device::Cpu)
            .unwrap()
            .describe()
            .contains("Fourier"),
        "a whole slice"
    );
}
