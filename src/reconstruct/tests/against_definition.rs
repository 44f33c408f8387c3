//! Both methods against their sums written out in f64, and every instruction set against the plain one.

use ndarray::{Array2, Array3, Axis};

use super::*;
use crate::config::FilterWindow;
use crate::reconstruct::fbp::CpuFbp;
use crate::reconstruct::fbp::simd::Level;

/// Noise without symmetry: mirrored columns, swapped angles and shifted samples all show.
fn noise(n_angles: usize, n_cols: usize, seed: u64) -> Array2<f32> {
    let mut random = SplitMix64(seed);
    Array2::from_shape_fn((n_angles, n_cols), |_| random.uniform(0.0, 1.0) as f32)
}

/// A job in which nothing is centred, even or square.
fn awkward_job() -> SliceJob {
    let mut angles: Vec<f64> = (0..37).map(|k| -0.4 + f64::from(k) * 0.19).collect();
    angles.swap(3, 30);
    let mut job = job(45, &angles);
    job.rays = rays(
        &angles,
        InPlaneMotion {
            shift_x_px: 3.3,
            shift_y_px: -1.7,
            rotation_rad: 0.21,
        },
    );
    job.grid = Grid {
        n_x: 39,
        n_y: 23,
        x0: -18.3,
        y0: 9.1,
        step: 0.8,
    };
    job.mask_radius_px = Some(16.0);
    job.scale = 7.5;
    job
}

fn with_level(job: &SliceJob, level: Level, sinograms: &Array3<f32>, axes: &[f64]) -> Array3<f32> {
    let mut out = Array3::from_elem((axes.len(), job.grid.n_y, job.grid.n_x), f32::NAN);
    CpuFbp::with_level(job, level)
        .unwrap()
        .slab(sinograms.view(), axes, out.view_mut());
    out
}

/// Rounding of f32 in FFTs of a few hundred samples and sums of 37 terms: some 1e-6 of the peak.
const ROUNDING: f32 = 5e-6;

#[test]
fn every_instruction_set_gives_the_sum_written_out_in_f64() {
    let sinogram = noise(37, 45, 1);
    let axis = 20.6;
    for upsample in [1, 2, 4] {
        let mut job = awkward_job();
        job.config.upsample = upsample;
        let expected = by_definition(&job, &sinogram, axis, true);
        let limit = ROUNDING * peak(&expected);
        for level in Level::available() {
            let found = with_level(
                &job,
                level,
                &stack(std::slice::from_ref(&sinogram)),
                &[axis],
            )
            .index_axis_move(Axis(0), 0);
            let off = largest_difference(&found, &expected);
            assert!(
                off < limit,
                "{level:?}, {upsample} samples per pixel: {off} of {limit}"
            );
        }
        let moved = by_definition(&job, &sinogram, axis + 1e-4, true);
        assert!(
            largest_difference(&moved, &expected) > limit,
            "the test must see 1e-4 px"
        );
    }
}

#[test]
fn levels_agree_bit_for_bit_where_all_fuse_multiply_and_add_and_to_rounding_with_the_plain_one() {
    let sinograms = stack(&[noise(37, 45, 1), noise(37, 45, 2), noise(37, 45, 3)]);
    let (job, axes) = (awkward_job(), [20.6, 21.0, 23.7]);
    let plain = with_level(&job, Level::Plain, &sinograms, &axes);
    let best = with_level(&job, Level::best(), &sinograms, &axes);
    for level in Level::available() {
        let found = with_level(&job, level, &sinograms, &axes);
        assert!(
            largest_difference(&found, &plain) < ROUNDING * peak(&plain),
            "{level:?}"
        );
        if level != Level::Plain {
            assert_eq!(found, best, "{level:?}");
        }
    }
}

#[test]
fn the_fourier_method_gives_the_sum_with_exact_interpolation() {
    let sinogram = noise(37, 45, 4);
    let axis = 20.6;
    for (upsample, window) in [
        (1, FilterWindow::Ramp),
        (2, FilterWindow::Ramp),
        (2, FilterWindow::Hann),
    ] {
        let mut job = awkward_job();
        (job.config.upsample, job.config.filter) = (upsample, window);
        let expected = by_definition(&job, &sinogram, axis, false);
        let off = largest_difference(
            &slice(&job, ReconstructMethod::Fourier, &sinogram, axis),
            &expected,
        );
        let limit = 2e-5 * peak(&expected);
        assert!(off < limit, "{window:?}, {upsample}: {off} of {limit}");
        let moved = by_definition(&job, &sinogram, axis + 1e-3, false);
        assert!(
            largest_difference(&moved, &expected) > limit,
            "the test must see 1e-3 px"
        );
    }
}

#[test]
fn the_fourier_method_takes_even_and_odd_grids_and_angles_along_both_axes() {
    use std::f64::consts::FRAC_PI_2;
    let angles = [
        0.0,
        FRAC_PI_2,
        2.0 * FRAC_PI_2,
        3.0 * FRAC_PI_2,
        0.7,
        0.7 + FRAC_PI_2,
    ];
    let sinogram = noise(6, 24, 5);
    for n in [20, 21] {
        let mut job = job(24, &angles);
        job.grid = Grid {
            n_x: n,
            n_y: 41 - n,
            x0: -9.0,
            y0: 11.0,
            step: 1.0,
        };
        job.mask_radius_px = None;
        let expected = by_definition(&job, &sinogram, 11.5, false);
        let off = largest_difference(
            &slice(&job, ReconstructMethod::Fourier, &sinogram, 11.5),
            &expected,
        );
        assert!(
            off < 2e-5 * peak(&expected),
            "{n}: {off} of {}",
            peak(&expected)
        );
    }
}
