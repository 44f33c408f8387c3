//! Objects wider than the detector.

use ndarray::Array2;

use super::*;

/// A cell of 3/2 the width of the detector with a wall, an off-centre core and a grain.
fn cell(grain: f64) -> Vec<Ellipse> {
    vec![
        disc(0.0, 0.0, 96.0, 0.01),
        disc(0.0, 0.0, 90.0, -0.004),
        Ellipse { x: 8.0, y: -5.0, a: 50.0, b: 35.0, phi: 0.5, value: 0.003 },
        disc(20.0, 25.0, 5.0, grain),
    ]
}

fn mean(slice: &Array2<f32>, from: f64, to: f64) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for ((j, i), &value) in slice.indexed_iter() {
        let radius = (i as f64 - 63.5).hypot(j as f64 - 63.5);
        if radius >= from && radius < to {
            (sum, count) = (sum + f64::from(value), count + 1.0);
        }
    }
    sum / count
}

#[test]
fn a_truncated_object_has_no_bright_rim_and_its_changes_are_right() {
    let angles = half_turn(301);
    let job = job(128, &angles);
    let before = sinogram(&cell(0.0), &angles, 128, 63.5);
    let after = sinogram(&cell(0.02), &angles, 128, 63.5);
    let truth = truth(&cell(0.0), &job.grid);
    for method in METHODS {
        let first = slice(&job, method, &before, 63.5);
        let error = &first - &truth;
        for k in 0..12 {
            println!("{method:?} {} {:.5} of {:.5}", k * 5, mean(&error, k as f64 * 5.0, k as f64 * 5.0 + 5.0), mean(&truth, k as f64 * 5.0, k as f64 * 5.0 + 5.0));
        }
        let difference = slice(&job, method, &after, 63.5) - &first;
        let sum: f64 = difference.iter().map(|&v| f64::from(v)).sum();
        println!("sum {} of {}", sum, 0.02 * PI * 25.0);
    }
}
