//! What edges add to the noise: residues of misalignment and of sampling.
//!
//! Where the reference has an edge, a misalignment by u voxels leaves `u |gradient|` in the difference, and so does structure finer than
//! the detector resolves, whose image depends on where it falls between the pixels. Neither is noise of the
//! projections. u is taken from the edges themselves: voxels of the sample are sorted by the gradient of the reference,
//! the spread of the unchanged ones is taken in every class, and `spread^2 = flat^2 + (u gradient)^2` is fitted: once for edges within
//! a slice, and once for faces across the axis, where rows were interpolated between and the beam has no second
//! direction to look from. The threshold then follows `sqrt(sigma^2 + (u gradient)^2)`, the sum of both: an edge must change
//! by more than its residue to count.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::region::Region;
use super::spread::spread;

/// Classes of the gradient, two for each doubling.
const CLASSES: usize = 48;
/// Gradients from which on a voxel is at an edge, and up to which it is not, relative to the noise of a voxel.
const EDGE: f64 = 3.0;
const FLAT: f64 = 2.0;
/// Classes with fewer voxels say nothing.
const LEAST_VOXELS: usize = 300;
/// Voxels kept per class.
const KEPT: usize = 40_000;

/// What unchanged edges stand off by, as a shift \[voxel\].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Residue {
    /// Edges within a slice.
    pub(super) in_plane: f64,
    /// Faces across the axis.
    pub(super) along_z: f64,
}

impl Residue {
    /// Whether there is none.
    pub(super) fn is_none(self) -> bool {
        self == Residue::default()
    }
}

/// Takes slices of the reference in order and gives, one slice later, what its edges leave in the difference: its gradient
/// \[per voxel\] times the residue.
pub(super) struct Gradient {
    shape: [usize; 3],
    residue: Residue,
    /// Up to three slices; the gradient of the middle one can be taken.
    window: VecDeque<Vec<f32>>,
    given: usize,
}

impl Gradient {
    pub(super) fn new(shape: [usize; 3], residue: Residue) -> Gradient {
        Gradient {
            shape,
            residue,
            window: VecDeque::new(),
            given: 0,
        }
    }

    /// Takes the next slice, the first of them slice 0.
    pub(super) fn push(&mut self, slice: &[f32]) -> Option<Vec<f32>> {
        self.window.push_back(slice.to_vec());
        let n = self.window.len();
        if n == 1 {
            return None;
        }
        let out = gradient(
            (n == 3).then(|| self.window[0].as_slice()),
            &self.window[n - 2],
            Some(&self.window[n - 1]),
            self.shape[2],
            self.residue,
        );
        if n == 3 {
            self.window.pop_front();
        }
        self.given += 1;
        Some(out)
    }

    /// The last slice.
    pub(super) fn finish(&mut self) -> Option<Vec<f32>> {
        if self.given == self.shape[0] {
            return None;
        }
        self.given += 1;
        let here = self.window.pop_back()?;
        let below = self.window.pop_back();
        Some(gradient(
            below.as_deref(),
            &here,
            None,
            self.shape[2],
            self.residue,
        ))
    }
}

/// Size of the weighted gradient of a slice by central differences, one-sided at the ends; 0 where a neighbour is not finite.
fn gradient(
    below: Option<&[f32]>,
    here: &[f32],
    above: Option<&[f32]>,
    width: usize,
    residue: Residue,
) -> Vec<f32> {
    let (in_plane, z) = (residue.in_plane as f32, residue.along_z as f32);
    let height = here.len() / width;
    let mut out = vec![0f32; here.len()];
    out.par_chunks_mut(width).enumerate().for_each(|(y, row)| {
        let slope = |a: f32, b: f32, steps: usize| {
            if steps == 0 {
                0.0
            } else {
                (b - a) / steps as f32
            }
        };
        let (up, down) = (y.saturating_sub(1), (y + 1).min(height - 1));
        for (x, value) in row.iter_mut().enumerate() {
            let at = y * width + x;
            let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
            let along_x = slope(
                here[y * width + left],
                here[y * width + right],
                right - left,
            );
            let along_y = slope(here[up * width + x], here[down * width + x], down - up);
            let steps = usize::from(below.is_some()) + usize::from(above.is_some());
            // the voxel itself is left out: its noise is in the difference too
            let along_z = slope(
                below.map_or(here[at], |slice| slice[at]),
                above.map_or(here[at], |slice| slice[at]),
                steps,
            );
            let size = (in_plane * along_x.hypot(along_y)).hypot(z * along_z);
            *value = if size.is_finite() { size } else { 0.0 };
        }
    });
    out
}

/// One direction of the gradient must be so many times the other for an edge to belong to it.
const CLEAR: f32 = 2.0;

/// Gathers differences by gradient, and fits both residues.
pub(super) struct EdgeSample {
    /// Edges within a slice, and faces across the axis.
    classes: [Vec<Vec<[f32; 2]>>; 2],
    flat: Vec<[f32; 2]>,
    sigma: f64,
    seen: usize,
}

impl EdgeSample {
    /// `sigma`: noise of a voxel.
    pub(super) fn new(sigma: f64) -> EdgeSample {
        EdgeSample {
            classes: [vec![Vec::new(); CLASSES], vec![Vec::new(); CLASSES]],
            flat: Vec::new(),
            sigma,
            seen: 0,
        }
    }

    /// Adds a slice of the difference with its gradient in the plane and along z; `p` is the relative noise of a voxel `[y, x]`.
    pub(super) fn add(
        &mut self,
        slice: &[f32],
        gradient: [&[f32]; 2],
        width: usize,
        region: &Region,
        p: impl Fn(usize, usize) -> f32,
    ) {
        for (y, x, value) in region.voxels(slice) {
            let ([in_plane, along_z], p) = (gradient.map(|g| g[y * width + x]), p(y, x));
            let direction = if in_plane > CLEAR * along_z {
                Some(0)
            } else {
                (along_z > CLEAR * in_plane).then_some(1)
            };
            let g = in_plane.max(along_z);
            let pair = [value / p, g / p];
            let ratio = f64::from(g) / self.sigma;
            let class = if ratio >= EDGE {
                let Some(direction) = direction else { continue };
                &mut self.classes[direction]
                    [((2.0 * (ratio / EDGE).log2()) as usize).min(CLASSES - 1)]
            } else if ratio <= FLAT {
                &mut self.flat
            } else {
                continue;
            };
            if !value.is_finite() {
                continue;
            }
            self.seen += 1;
            if class.len() < KEPT {
                class.push(pair);
            } else {
                // every so often one is replaced, so that all slices have their part
                let at = (self.seen * 7919) % (4 * KEPT);
                if at < KEPT {
                    class[at] = pair;
                }
            }
        }
    }

    /// u of both kinds of edges; 0 where there are none, or nothing is left at them beyond what chance leaves. Where there are none
    /// of one kind, they are taken to be like the other.
    ///
    /// Edges are compared with flat voxels, as change widens the spread of both.
    pub(super) fn residue(&self) -> Residue {
        let [in_plane, along_z] = [0, 1].map(|direction| self.fitted(&self.classes[direction]));
        Residue {
            in_plane: in_plane.or(along_z).unwrap_or(0.0),
            along_z: along_z.or(in_plane).unwrap_or(0.0),
        }
    }

    /// `None` without edges.
    fn fitted(&self, classes: &[Vec<[f32; 2]>]) -> Option<f64> {
        let sigma = if self.flat.len() >= LEAST_VOXELS {
            spread(|| self.flat.iter().map(|pair| pair[0]), 0.0).sigma
        } else {
            self.sigma
        };
        let (mut weights, mut sum) = (0.0, 0.0);
        for class in classes.iter().filter(|class| class.len() >= LEAST_VOXELS) {
            let width = spread(|| class.iter().map(|pair| pair[0]), 0.0).sigma;
            let square = class
                .iter()
                .map(|pair| f64::from(pair[1]).powi(2))
                .sum::<f64>()
                / class.len() as f64;
            if width > 0.0 {
                // a variance is known to var sqrt(2 / n)
                let weight = class.len() as f64 * (square / (width * width)).powi(2);
                weights += weight;
                sum += weight * (width * width - sigma * sigma) / square;
            }
        }
        if weights <= 0.0 {
            return None;
        }
        let square = sum / weights;
        Some(if square > 3.0 * (2.0 / weights).sqrt() {
            square.sqrt()
        } else {
            0.0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, StandardNormal};

    #[test]
    fn the_gradient_of_a_plane_is_its_slope() {
        let (depth, height, width) = (4, 5, 6);
        let both = Residue {
            in_plane: 1.0,
            along_z: 1.0,
        };
        let mut stream = Gradient::new([depth, height, width], both);
        let mut out = Vec::new();
        for z in 0..depth {
            let slice: Vec<f32> = (0..height * width)
                .map(|i| 2.0 * z as f32 + 3.0 * (i / width) as f32 - 6.0 * (i % width) as f32)
                .collect();
            out.extend(stream.push(&slice));
        }
        out.extend(stream.finish());
        assert_eq!(out.len(), depth);
        assert!(stream.finish().is_none());
        assert!(
            out.iter().flatten().all(|g| (g - 7.0).abs() < 1e-5),
            "{out:?}"
        );
    }

    #[test]
    fn the_residue_of_edges_is_found_beside_change() {
        let (n, u, sigma) = (200, 0.04, 0.1);
        let region = Region::new([40, n, n], n as f64, 0..40);
        let mut random = rand_pcg::Pcg64Mcg::new(3);
        for residue in [[u, 3.0 * u], [0.0, u], [0.0, 0.0]] {
            let mut sample = EdgeSample::new(sigma);
            for k in 0..20 {
                // slopes from 0 to 20 per voxel; a twentieth of the voxels changed
                let gradient: Vec<f32> = (0..n * n).map(|i| 0.1 * (i % n) as f32).collect();
                let slice: Vec<f32> = gradient
                    .iter()
                    .enumerate()
                    .map(|(i, &g)| {
                        let [a, b]: [f64; 2] = [0, 1].map(|_| StandardNormal.sample(&mut random));
                        let change = if i % 20 == 7 { 30.0 } else { 0.0 };
                        (sigma * a + residue[k % 2] * f64::from(g) * b + change) as f32
                    })
                    .collect();
                let none = vec![0f32; n * n];
                let gradient = [[&gradient[..], &none], [&none, &gradient[..]]][k % 2];
                sample.add(&slice, gradient, n, &region, |_, _| 1.0);
            }
            let found = sample.residue();
            // 400 000 voxels in 15 classes: each variance to 1 %; a twentieth of change adds 6 % to a spread at most
            for (found, expected) in [found.in_plane, found.along_z].into_iter().zip(residue) {
                assert!(
                    (found - expected).abs() < 0.07 * expected.max(u),
                    "{found} {expected}"
                );
            }
        }
    }
}
