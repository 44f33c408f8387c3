//! Projections averaged over each detector pixel.

use std::f64::consts::PI;
use std::ops::Range;

use ndarray::Array2;

use super::{Object, Phantom};

/// Area of the unit disk on the lines t < `v`, minus pi / 2: `v sqrt(1 - v^2) + asin(v)`, clamped to the disk.
///
/// The strip integral of an ellipse with semi-axes a, b between u1 and u2 (measured from its centre, A its half width)
/// is a b (strip_area(u2 / A) - strip_area(u1 / A)).
#[must_use]
#[inline]
pub fn strip_area(v: f64) -> f64 {
    if v.abs() < 1.0 {
        v * (1.0 - v * v).sqrt() + v.asin()
    } else {
        (0.5 * PI).copysign(v)
    }
}

/// Weights of a sampled Gaussian, out to three sigma and summing to 1: the blur of a scintillator and its lens.
#[must_use]
pub fn blur_kernel(sigma_px: f64) -> Vec<f64> {
    if sigma_px <= 0.0 {
        return vec![1.0];
    }
    let reach = (3.0 * sigma_px).ceil() as i64;
    let weights: Vec<f64> = (-reach..=reach)
        .map(|k| (-0.5 * (k as f64 / sigma_px).powi(2)).exp())
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// The projections of one phantom on a detector: everything that does not depend on the angle is worked out once.
///
/// A pixel is the mean of the line integral over its width (exactly) and its height (two heights per piece of an
/// object, which keeps the sum over the detector exact; see [`Object`]). A pixel averages the line integral, not
/// the intensity: the non-linear partial-volume effect of a real pixel at steep edges is left out, so that the
/// truth of a reconstruction is the phantom itself.
pub struct Projector {
    shadows: Vec<Shadow>,
    nodes: Vec<Node>,
    shape: [usize; 2],
    /// Weights of the blur, its middle one in the middle; one weight where there is none.
    kernel: Vec<f64>,
}

/// What an object needs at each angle.
struct Shadow {
    centre: [f64; 2],
    lean: [f64; 2],
    semi: [f64; 2],
    phi: f64,
    nodes: Range<usize>,
}

/// An ellipse of an object at one height within one detector row.
struct Node {
    row: usize,
    dz: f64,
    scale: f64,
    /// Value times the area a b of the ellipse times the share of the row's height.
    area: f64,
}

impl Projector {
    /// For a detector of `[n_rows, n_cols]` whose row `middle_row` looks at z = 0.
    #[must_use]
    pub fn new(phantom: &Phantom, shape: [usize; 2], middle_row: f64) -> Self {
        Self::blurred(phantom, shape, middle_row, 0.0)
    }

    /// As [`Projector::new`], each projection blurred as by [`blur_kernel`] of `sigma_px` along rows and columns.
    ///
    /// That is the projection of the phantom convolved with the same kernel along z and, within a slice, with a
    /// Gaussian: the masses of the slices are those of the phantom, convolved with the kernel.
    #[must_use]
    pub fn blurred(phantom: &Phantom, shape: [usize; 2], middle_row: f64, sigma_px: f64) -> Self {
        let kernel = blur_kernel(sigma_px);
        // what the blur brings in from beyond the edges of the detector is projected too
        let margin = kernel.len() / 2;
        let (shape, middle_row) = (shape.map(|n| n + 2 * margin), middle_row + margin as f64);
        let (mut shadows, mut nodes, mut sections) = (Vec::new(), Vec::new(), Vec::new());
        for object in &phantom.objects {
            let first = nodes.len();
            let [top, bottom] = object.z_range();
            for row in rows_between(top + middle_row, bottom + middle_row, shape[0]) {
                sections.clear();
                let z = row as f64 - middle_row;
                object.sections(z - 0.5, z + 0.5, &mut sections);
                let whole = object.value * object.semi[0] * object.semi[1];
                nodes.extend(sections.iter().map(|section| Node {
                    row,
                    dz: section.dz,
                    scale: section.scale,
                    area: whole * section.weight * section.scale * section.scale,
                }));
            }
            if nodes.len() > first {
                shadows.push(Shadow::of(object, first..nodes.len()));
            }
        }
        Projector {
            shadows,
            nodes,
            shape,
            kernel,
        }
    }

    /// Sets `out` `[row, col]` to the projection at `theta` \[rad\]; the axis of row r stands at column `axis(r)`.
    ///
    /// # Panics
    /// If `out` has another length than the detector.
    pub fn fill(&self, theta: f64, axis: impl Fn(f64) -> f64, out: &mut [f64]) {
        let margin = self.kernel.len() / 2;
        let [rows, cols] = self.shape.map(|n| n - 2 * margin);
        assert_eq!(out.len(), rows * cols, "the buffer is one frame");
        if margin == 0 {
            out.fill(0.0);
            self.add_sharp(theta, axis, out);
            return;
        }
        let wide = self.shape[1];
        let mut sharp = vec![0.0; self.shape[0] * wide];
        let shift = margin as f64;
        self.add_sharp(theta, |row| axis(row - shift) + shift, &mut sharp);
        let mut line = vec![0.0; wide];
        for (row, out) in out.chunks_mut(cols).enumerate() {
            line.fill(0.0);
            for (k, weight) in self.kernel.iter().enumerate() {
                let above = &sharp[(row + k) * wide..(row + k + 1) * wide];
                line.iter_mut()
                    .zip(above)
                    .for_each(|(sum, value)| *sum += weight * value);
            }
            for (col, out) in out.iter_mut().enumerate() {
                *out = self
                    .kernel
                    .iter()
                    .zip(&line[col..])
                    .map(|(weight, value)| weight * value)
                    .sum();
            }
        }
    }

    /// Adds the projection before the blur, margin included.
    fn add_sharp(&self, theta: f64, axis: impl Fn(f64) -> f64, out: &mut [f64]) {
        let n_cols = self.shape[1];
        let (sin, cos) = theta.sin_cos();
        for shadow in &self.shadows {
            let (sin_phi, cos_phi) = (theta - shadow.phi).sin_cos();
            let half_width = (shadow.semi[0] * cos_phi).hypot(shadow.semi[1] * sin_phi);
            let middle = shadow.centre[0] * cos + shadow.centre[1] * sin;
            let lean = shadow.lean[0] * cos + shadow.lean[1] * sin;
            for node in &self.nodes[shadow.nodes.clone()] {
                let row = &mut out[node.row * n_cols..(node.row + 1) * n_cols];
                add_strip(
                    row,
                    axis(node.row as f64) + middle + lean * node.dz,
                    half_width * node.scale,
                    node.area,
                );
            }
        }
    }

    /// The projection at `theta` \[rad\], `[row, col]`.
    ///
    /// # Panics
    /// Never: the buffer is made to fit.
    #[must_use]
    pub fn frame(&self, theta: f64, axis: impl Fn(f64) -> f64) -> Array2<f64> {
        let margin = self.kernel.len() / 2;
        let shape = self.shape.map(|n| n - 2 * margin);
        let mut out = vec![0.0; shape[0] * shape[1]];
        self.fill(theta, axis, &mut out);
        Array2::from_shape_vec(shape, out).expect("the buffer is one frame")
    }
}

impl Shadow {
    fn of(object: &Object, nodes: Range<usize>) -> Self {
        Shadow {
            centre: [object.centre[0], object.centre[1]],
            lean: object.lean,
            semi: object.semi,
            phi: object.phi,
            nodes,
        }
    }
}

/// Rows whose pixels `[row - 0.5, row + 0.5]` meet the heights `top..bottom` (in rows).
pub(super) fn rows_between(top: f64, bottom: f64, n_rows: usize) -> Range<usize> {
    let first = (top + 0.5).floor().clamp(0.0, n_rows as f64) as usize;
    let last = (bottom + 0.5).ceil().clamp(0.0, n_rows as f64) as usize;
    first..last.max(first)
}

/// Adds to each pixel of a row its share of an ellipse's shadow around `middle` (column), `half_width` wide.
#[inline]
fn add_strip(row: &mut [f64], middle: f64, half_width: f64, area: f64) {
    let n_cols = row.len() as f64;
    let first = (middle - half_width + 0.5).floor();
    let last = (middle + half_width + 0.5).ceil();
    if last <= 0.0 || first >= n_cols || half_width <= 0.0 {
        return;
    }
    let (first, last) = (first.max(0.0) as usize, last.min(n_cols) as usize);
    let inverse = 1.0 / half_width;
    let mut before = strip_area((first as f64 - 0.5 - middle) * inverse);
    for (col, pixel) in row.iter_mut().enumerate().take(last).skip(first) {
        let after = strip_area((col as f64 + 0.5 - middle) * inverse);
        *pixel += area * (after - before);
        before = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phantom::{Motion, Profile};

    fn scene() -> Phantom {
        let mut egg = Object::ellipsoid([6.0, 3.0, 1.0], [5.0, 3.0, 4.0], 0.5, 0.7);
        egg.profile = Profile::Ellipsoid { up: 3.0, down: 6.0 };
        egg.lean = [0.2, -0.4];
        Phantom::new(vec![
            Object::cylinder([0.5, -1.0, 0.2], 14.0, [5.0, 5.5], 1.0, 0.3),
            egg,
            Object::fibre([-9.0, 1.0, -2.0], [8.0, 5.0, 3.0], 2.0, -0.2),
            Object::sphere([-4.3, 2.2, -1.0], 2.5, 1.1),
        ])
    }

    #[test]
    fn the_sum_over_a_row_is_the_mass_at_its_height_at_every_angle() {
        let phantom = scene();
        let projector = Projector::new(&phantom, [23, 61], 11.0);
        for theta in [0.0, 0.3, 1.1, 2.9] {
            let frame = projector.frame(theta, |_| 30.0);
            for (row, pixels) in frame.rows().into_iter().enumerate() {
                let z = row as f64 - 11.0;
                let mass = phantom.mass_between(z - 0.5, z + 0.5);
                assert!((pixels.sum() - mass).abs() < 1e-10 * 300.0, "{theta} {row}");
            }
        }
        // negative control: the rows do differ, so a row off by one would be seen
        let frame = projector.frame(0.3, |_| 30.0);
        assert!((frame.row(7).sum() - phantom.mass_between(-4.5, -3.5)).abs() < 1e-7);
        assert!((frame.row(7).sum() - phantom.mass_between(-3.5, -2.5)).abs() > 0.1);
    }

    #[test]
    fn a_pixel_is_the_mean_of_the_line_integrals_that_it_sees() {
        // against the mean over 400 positions across and 8 heights. Two Gauss heights replace a continuum: where an edge
        // sweeps over a pixel within its height, the mean is off by up to some percent of the chord (5.5 at most here)
        let phantom = Phantom::new(scene().objects[1..].to_vec());
        let projector = Projector::new(&phantom, [23, 61], 11.0);
        let frame = projector.frame(0.8, |_| 30.0);
        let numeric = |row: usize, col: usize| -> f64 {
            let mut sum = 0.0;
            for i in 0..400 {
                for j in 0..8 {
                    let t = col as f64 - 30.0 - 0.5 + (f64::from(i) + 0.5) / 400.0;
                    let z = row as f64 - 11.0 - 0.5 + (f64::from(j) + 0.5) / 8.0;
                    sum += phantom.line_integral(0.8, t, z);
                }
            }
            sum / 3200.0
        };
        let (mut worst, mut blind) = (0f64, 0f64);
        for row in [9, 11, 12, 14] {
            for col in 20..44 {
                worst = worst.max((frame[[row, col]] - numeric(row, col)).abs());
                blind = blind.max((frame[[row, col + 1]] - numeric(row, col)).abs());
            }
        }
        assert!(worst < 0.02 * 5.5, "{worst}");
        assert!(blind > 1.0, "the check is blind: {blind}");
    }

    #[test]
    fn a_moved_phantom_is_the_unmoved_one_seen_from_elsewhere() {
        let phantom = scene();
        let rows = [25, 61];
        let still = Projector::new(&phantom, rows, 12.0);
        // whole rows, so that the rows of both agree exactly
        let motion = Motion {
            shift: [2.4, -1.7, 2.0],
            rotation_rad: 0.05,
            ..Motion::default()
        };
        let moved = Projector::new(&phantom.moved(&motion), rows, 12.0);
        let mut worst = 0f64;
        for theta in [0.0, 0.7, 2.0] {
            let (sin, cos) = f64::sin_cos(theta);
            // the rays of crate::reconstruct::geometry::rays
            let offset = motion.shift[0] * cos - motion.shift[1] * sin;
            let seen = moved.frame(theta, |_| 30.0);
            let expected = still.frame(theta + motion.rotation_rad, |_| 30.0 + offset);
            for row in 2..25 {
                for col in 0..61 {
                    worst = worst.max((seen[[row, col]] - expected[[row - 2, col]]).abs());
                }
            }
            let wrong = still.frame(theta - motion.rotation_rad, |_| 30.0 + offset);
            assert!(
                (0..61).any(|col| (seen[[12, col]] - wrong[[10, col]]).abs() > 0.05),
                "the check is blind"
            );
        }
        assert!(worst < 1e-10, "{worst}");
    }

    #[test]
    fn a_blur_is_the_convolution_of_a_larger_detector() {
        let sharp = Projector::new(&scene(), [31, 81], 15.0).frame(0.6, |row| 40.0 + 0.1 * row);
        let blurred =
            Projector::blurred(&scene(), [21, 61], 10.0, 0.8).frame(0.6, |row| 30.5 + 0.1 * row);
        let kernel = blur_kernel(0.8);
        assert_eq!(kernel.len(), 7);
        let mut worst = 0f64;
        for row in 0..21 {
            for col in 0..61 {
                let mut sum = 0.0;
                for (i, a) in kernel.iter().enumerate() {
                    for (j, b) in kernel.iter().enumerate() {
                        sum += a * b * sharp[[row + 5 + i - 3, col + 10 + j - 3]];
                    }
                }
                worst = worst.max((sum - blurred[[row, col]]).abs());
            }
        }
        assert!(worst < 1e-10, "{worst}");
        assert!(
            (blurred[[10, 30]] - sharp[[15, 40]]).abs() > 1e-3,
            "the check is blind"
        );
    }

    #[test]
    fn half_a_turn_mirrors_the_projection_about_the_axis() {
        let projector = Projector::new(&scene(), [23, 61], 11.0);
        let worst = |axis: f64| {
            let (there, back) = (
                projector.frame(0.4, |_| axis),
                projector.frame(0.4 + PI, |_| axis),
            );
            (0..61)
                .map(|col| (there[[10, col]] - back[[10, 60 - col]]).abs())
                .fold(0.0, f64::max)
        };
        assert!(worst(30.0) < 1e-10, "{}", worst(30.0));
        assert!(worst(30.25) > 0.1, "an axis off the middle must be seen");
    }
}
