//! The target seen from the grid of the reference.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis};

use super::motion::{RigidMotion, turned};
use super::pyramid::Frame;

/// Weights of the samples at -1, 0, 1, 2 for a point at 0 <= t < 1: cubic convolution, a = -1/2.
///
/// Exact for quadratics. Source: Keys (1981), IEEE Trans. ASSP 29:1153, equation 15.
pub(crate) fn keys_weights(t: f64) -> [f64; 4] {
    let (t2, t3) = (t * t, t * t * t);
    [
        -0.5 * t3 + t2 - 0.5 * t,
        1.5 * t3 - 2.5 * t2 + 1.0,
        -1.5 * t3 + 2.0 * t2 + 0.5 * t,
        0.5 * t3 - 0.5 * t2,
    ]
}

/// First of the four samples around `index`, clamped so that far points stay representable, and their weights.
fn taps(index: f64, n: usize) -> (isize, [f32; 4]) {
    let index = index.clamp(-2.0, n as f64 + 1.0);
    let floor = index.floor();
    (
        floor as isize - 1,
        keys_weights(index - floor).map(|w| w as f32),
    )
}

fn clamped(index: isize, n: usize) -> usize {
    index.clamp(0, n as isize - 1) as usize
}

/// `target` at `motion(p)` for every voxel p of the frame, `[z, y, x]`; edge values are repeated outside.
pub(crate) fn warped(
    target: ArrayView3<'_, f32>,
    frame: &Frame,
    motion: &RigidMotion,
) -> Array3<f32> {
    let [n_z, n_y, n_x] = frame.shape;
    let mut out = Array3::<f32>::zeros((n_z, n_y, n_x));
    ndarray::Zip::indexed(out.axis_iter_mut(Axis(0))).par_for_each(|z, mut slice| {
        let here = frame.position(2, z as f64);
        let height = here + motion.shift[2];
        let between = if motion.tilts() {
            tilted_slice(target, frame, motion, here)
        } else {
            slice_at(target, frame.index(2, height))
        };
        if motion.turn == 0.0 && !motion.tilts() {
            let shift = [0, 1].map(|a| motion.shift[a] / frame.factor[a]);
            shift_slice(between.view(), shift, &mut slice);
        } else {
            turn_slice(between.view(), frame, motion, here, &mut slice);
        }
    });
    out
}

/// The slice at a fractional height.
fn slice_at(volume: ArrayView3<'_, f32>, index: f64) -> Array2<f32> {
    let (n_z, n_y, n_x) = volume.dim();
    let (first, weights) = taps(index, n_z);
    let mut out = Array2::<f32>::zeros((n_y, n_x));
    for (tap, &weight) in weights.iter().enumerate() {
        if weight != 0.0 {
            out.scaled_add(
                weight,
                &volume.index_axis(Axis(0), clamped(first + tap as isize, n_z)),
            );
        }
    }
    out
}

/// The values that the slice of the reference at `height` meets in the columns of the target: each column is asked where the
/// tilted slice cuts it. Exact to first order in the tilt; what is left is its square times the radius.
fn tilted_slice(
    volume: ArrayView3<'_, f32>,
    frame: &Frame,
    motion: &RigidMotion,
    height: f64,
) -> Array2<f32> {
    let (n_z, n_y, n_x) = volume.dim();
    let [rx, ry] = motion.tilt;
    Array2::from_shape_fn((n_y, n_x), |(y, x)| {
        let from = [
            frame.position(0, x as f64) - motion.shift[0],
            frame.position(1, y as f64) - motion.shift[1],
        ];
        let [u, v] = turned(from, -motion.turn);
        let at = height + motion.shift[2] + rx * v - ry * u;
        let (first, weights) = taps(frame.index(2, at), n_z);
        (0..4)
            .map(|tap| weights[tap] * volume[[clamped(first + tap as isize, n_z), y, x]])
            .sum()
    })
}

fn shift_slice(
    from: ArrayView2<'_, f32>,
    shift: [f64; 2],
    to: &mut ndarray::ArrayViewMut2<'_, f32>,
) {
    let (n_y, n_x) = from.dim();
    let mut row = vec![0f32; n_x];
    for (y, mut line) in to.outer_iter_mut().enumerate() {
        let (first, weights) = taps(y as f64 + shift[1], n_y);
        row.fill(0.0);
        for (tap, &weight) in weights.iter().enumerate() {
            if weight != 0.0 {
                let source = from.row(clamped(first + tap as isize, n_y));
                for (sum, value) in row.iter_mut().zip(source) {
                    *sum += weight * value;
                }
            }
        }
        for (x, value) in line.iter_mut().enumerate() {
            let (first, weights) = taps(x as f64 + shift[0], n_x);
            *value = (0..4)
                .map(|tap| weights[tap] * row[clamped(first + tap as isize, n_x)])
                .sum();
        }
    }
}

fn turn_slice(
    from: ArrayView2<'_, f32>,
    frame: &Frame,
    motion: &RigidMotion,
    height: f64,
    to: &mut ndarray::ArrayViewMut2<'_, f32>,
) {
    let (n_y, n_x) = from.dim();
    for ((y, x), value) in to.indexed_iter_mut() {
        let p = motion.apply([
            frame.position(0, x as f64),
            frame.position(1, y as f64),
            height,
        ]);
        let (first_x, weights_x) = taps(frame.index(0, p[0]), n_x);
        let (first_y, weights_y) = taps(frame.index(1, p[1]), n_y);
        let mut sum = 0.0;
        for (j, &weight_y) in weights_y.iter().enumerate() {
            let row = clamped(first_y + j as isize, n_y);
            let mut line = 0.0;
            for (i, &weight_x) in weights_x.iter().enumerate() {
                line += weight_x * from[[row, clamped(first_x + i as isize, n_x)]];
            }
            sum += weight_y * line;
        }
        *value = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::align::pyramid::PairFrame;

    fn frame() -> Frame {
        PairFrame {
            shape: [10, 16, 16],
            radius: 8.0,
            filled: [[0, 10], [0, 10]],
        }
        .level([1, 1, 1], [0, 0, 0])
    }

    /// A quadratic in each axis, which cubic convolution interpolates exactly.
    fn field(p: [f64; 3]) -> f64 {
        0.3 + 0.5 * p[0] - 0.2 * p[1] + 0.1 * p[2] + 0.02 * p[0] * p[0] - 0.03 * p[1] * p[1]
            + 0.01 * p[2] * p[2]
    }

    #[test]
    fn a_moved_quadratic_is_found_back_exactly() {
        let frame = frame();
        let at = |z: usize, y: usize, x: usize| {
            [
                frame.position(0, x as f64),
                frame.position(1, y as f64),
                frame.position(2, z as f64),
            ]
        };
        let volume = Array3::from_shape_fn((10, 16, 16), |(z, y, x)| field(at(z, y, x)) as f32);
        for motion in [
            RigidMotion::upright([1.3, -0.7, 0.4], 0.0),
            RigidMotion::upright([0.2, 0.9, -1.6], 0.15),
        ] {
            let out = warped(volume.view(), &frame, &motion);
            let mut worst = 0f64;
            let mut control = 0f64;
            for z in 3..7 {
                for y in 5..11 {
                    for x in 5..11 {
                        let found = f64::from(out[[z, y, x]]);
                        worst = worst.max((found - field(motion.apply(at(z, y, x)))).abs());
                        control =
                            control.max((found - field(motion.inverse().apply(at(z, y, x)))).abs());
                    }
                }
            }
            // f32 sums of 20 terms of size 5
            assert!(worst < 2e-5, "{worst}");
            assert!(
                control > 0.1,
                "the motion the other way must not fit: {control}"
            );
        }
    }
}
