//! Errors against analytic objects with exact strip integrals.

use ndarray::Array2;

use super::*;

/// Reconstructs the cloth phantom by both methods; `limit` is the error of the best peer.
fn cloth_phantom_is_below(limit: f64, n_angles: usize, n: usize) {
    let angles = half_turn(n_angles);
    let axis = (n as f64 - 1.0) / 2.0 + 7.3;
    let phantom = cloth_phantom(n);
    assert_eq!(phantom.len(), 1280);
    let truth = truth(&phantom, &Grid::square(n));
    let sinogram = sinogram(&phantom, &angles, n, axis);
    for method in METHODS {
        let found = slice(&job(n, &angles), method, &sinogram, axis);
        let (factor, rmse) = factor_and_rmse(&found, &truth, 0.9);
        let rmse = rmse * n as f64 / 2.0;
        println!("{method:?} {n_angles} x {n}: factor {factor:.5}, rmse {rmse:.5}");
        assert!((factor - 1.0).abs() < 0.002, "{method:?}: factor {factor}");
        assert!(rmse < limit, "{method:?}: rmse {rmse}");
    }
    let mut coarse = job(n, &angles);
    coarse.config.upsample = 1;
    let (_, rmse) = factor_and_rmse(&slice(&coarse, METHODS[0], &sinogram, axis), &truth, 0.9);
    assert!(
        rmse * n as f64 / 2.0 > limit,
        "linear interpolation of single samples is worse, and the test sees it"
    );
}

#[test]
fn the_cloth_phantom_comes_back_with_an_error_below_the_best_peer() {
    cloth_phantom_is_below(0.01781, 721, 512);
}

#[test]
#[ignore = "a minute in the release profile, much longer without"]
fn the_cloth_phantom_comes_back_with_an_error_below_the_best_peer_at_full_size() {
    cloth_phantom_is_below(0.01323, 1501, 1024);
    cloth_phantom_is_below(0.00917, 3001, 2048);
    cloth_phantom_is_below(0.00746, 3001, 3072);
}

/// Mean of the slice between two radii about a voxel coordinate.
fn ring_mean(slice: &Array2<f32>, grid: &Grid, middle: (f64, f64), radii: (f64, f64)) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for ((j, i), &value) in slice.indexed_iter() {
        let (x, y) = (
            grid.x0 + i as f64 * grid.step,
            grid.y0 - j as f64 * grid.step,
        );
        let radius = (x - middle.0).hypot(y - middle.1);
        if radius >= radii.0 && radius < radii.1 {
            (sum, count) = (sum + f64::from(value), count + 1.0);
        }
    }
    sum / count
}

#[test]
fn a_disc_within_the_field_of_view_is_flat_and_has_the_right_value() {
    let (n, value) = (201, 0.013);
    let angles = half_turn(361);
    let object = [disc(4.0, -3.0, 80.0, value)];
    let sinogram = sinogram(&object, &angles, n, 103.4);
    let job = job(n, &angles);
    for method in METHODS {
        let slice = slice(&job, method, &sinogram, 103.4);
        for ring in 0..9 {
            let radii = (f64::from(ring) * 8.5, f64::from(ring) * 8.5 + 8.5);
            let mean = ring_mean(&slice, &job.grid, (4.0, -3.0), radii);
            assert!(
                (mean / value - 1.0).abs() < 0.002,
                "{method:?}: {mean} at {radii:?}"
            );
        }
        let outside = ring_mean(&slice, &job.grid, (4.0, -3.0), (84.0, 93.0));
        assert!(
            outside.abs() < 0.002 * value,
            "{method:?}: {outside} outside"
        );
        assert!(
            (ring_mean(&slice, &job.grid, (4.0, -3.0), (76.0, 84.0)) / value - 1.0).abs() > 0.1,
            "an edge shows"
        );
    }
}

/// Centre of mass within `reach` of (x, y), after the mean of the surroundings was taken off.
fn centroid(slice: &Array2<f32>, grid: &Grid, x: f64, y: f64, reach: f64) -> (f64, f64) {
    let (mut sum, mut sum_x, mut sum_y) = (0.0, 0.0, 0.0);
    for ((j, i), &value) in slice.indexed_iter() {
        let at = (
            grid.x0 + i as f64 * grid.step,
            grid.y0 - j as f64 * grid.step,
        );
        if (at.0 - x).hypot(at.1 - y) <= reach {
            let value = f64::from(value);
            (sum, sum_x, sum_y) = (sum + value, sum_x + value * at.0, sum_y + value * at.1);
        }
    }
    (sum_x / sum, sum_y / sum)
}

#[test]
fn small_discs_stand_where_they_are() {
    let n = 161;
    let angles = half_turn(361);
    let places = [(30.3, 41.7), (-52.8, 10.1), (3.6, -60.4), (-20.2, -20.9)];
    let object: Vec<Ellipse> = places.iter().map(|&(x, y)| disc(x, y, 4.2, 0.05)).collect();
    let sinogram = sinogram(&object, &angles, n, 77.3);
    let job = job(n, &angles);
    for method in METHODS {
        let right = slice(&job, method, &sinogram, 77.3);
        let wrong = slice(&job, method, &sinogram, 77.4);
        for (x, y) in places {
            let (found_x, found_y) = centroid(&right, &job.grid, x, y, 9.0);
            assert!(
                (found_x - x).hypot(found_y - y) < 0.01,
                "{method:?}: {found_x}, {found_y} for {x}, {y}"
            );
            let (found_x, found_y) = centroid(&wrong, &job.grid, x, y, 9.0);
            assert!(
                (found_x - x).hypot(found_y - y) > 0.03,
                "an axis off by 0.1 px must show"
            );
        }
    }
}

#[test]
fn a_mirrored_slice_would_be_seen() {
    let n = 101;
    let angles = half_turn(181);
    let job = job(n, &angles);
    // one disc in the quadrant of columns to the right, rows above
    let sinogram = sinogram(&[disc(25.0, 15.0, 5.0, 1.0)], &angles, n, 50.0);
    for method in METHODS {
        let slice = slice(&job, method, &sinogram, 50.0);
        let at = |x: i32, y: i32| slice[[(50 - y) as usize, (50 + x) as usize]];
        assert!((at(25, 15) - 1.0).abs() < 0.1, "{method:?}");
        for (x, y) in [(-25, 15), (25, -15), (-25, -15), (15, 25)] {
            assert!(at(x, y).abs() < 0.1, "{method:?} at {x}, {y}");
        }
    }
}
