//! What edges add to the noise: residues of misalignment and of sampling.
//!
//! Where the reference has an edge, a misalignment by u voxels leaves `u |gradient|` in the difference, and so does structure finer than
//! the detector resolves, whose image depends on where it falls between the pixels. Neither is noise of the
//! projections. u is taken from the edges themselves: voxels of the sample are sorted by the gradient of the reference,
//! the spread of the unchanged ones is taken in every class, and `spread^2 = flat^2 + (u gradient)^2` is fitted: once for edges within
//! a slice, and once for faces across the axis, where rows were interpolated between and the beam has no second
//! direction to look from.
//!
//! Sampling leaves more than that: a ripple of the finest wave that the pixels hold, some voxels to either side of an edge, and in the middle of a thin
//! wall too, where the gradient vanishes. It goes with the root mean square of the gradient over [`RIPPLE`](super::gradient::RIPPLE) voxels around, by a factor w that is
//! fitted in the same way to what u does not explain. The ripple is strong where the edge keeps its place between the pixels over many views, and weak elsewhere,
//! so the middle of the distribution does not tell of its ends: here the width is taken from the ends, of voxels that are not near what surely changed.
//!
//! The threshold follows the sum `sqrt(sigma^2 + (u gradient)^2 + (w around)^2)`: an edge must change by more than its residue to count.

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
const KEPT: usize = 20_000;
/// Share of a class beyond either end of its width, and where a normal distribution has it in units of sigma.
const BEYOND: f64 = 0.025;
const NORMAL_END: f64 = 1.959_964;

/// What unchanged edges leave, over their gradient: as far as it is a shift, by so much \[voxel\].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Residue {
    /// Edges within a slice.
    pub(super) in_plane: f64,
    /// Faces across the axis.
    pub(super) along_z: f64,
    /// Ripple around edges within a slice.
    pub(super) ripple: f64,
}

impl Residue {
    /// Whether there is none.
    pub(super) fn is_none(self) -> bool {
        self == Residue::default()
    }
}

/// One direction of the gradient must be so many times the other for an edge to belong to it.
const CLEAR: f32 = 2.0;

/// A voxel of the sample.
#[derive(Clone, Copy)]
struct Voxel {
    difference: f32,
    /// What it is sorted by.
    gradient: f32,
    /// Within the slice, and along z.
    slopes: [f32; 2],
    /// It lies near what surely changed.
    changed: bool,
}

/// Voxels sorted by a gradient.
struct Classes {
    edges: Vec<Vec<Voxel>>,
    flat: Vec<Voxel>,
    seen: usize,
}

impl Classes {
    fn new() -> Classes {
        Classes {
            edges: vec![Vec::new(); CLASSES],
            flat: Vec::new(),
            seen: 0,
        }
    }

    /// `ratio`: of its gradient to the noise.
    fn add(&mut self, voxel: Voxel, ratio: f64) {
        let class = if ratio >= EDGE {
            &mut self.edges[((2.0 * (ratio / EDGE).log2()) as usize).min(CLASSES - 1)]
        } else if ratio <= FLAT {
            &mut self.flat
        } else {
            return;
        };
        self.seen += 1;
        if class.len() < KEPT {
            class.push(voxel);
        } else {
            // every so often one is replaced, so that all slices have their part
            let at = (self.seen * 7919) % (4 * KEPT);
            if at < KEPT {
                class[at] = voxel;
            }
        }
    }

    /// Divides everything by what a voxel scatters by where edges leave `residue`, in units of its noise `sigma`.
    fn take_out(&mut self, residue: Residue, sigma: f64) {
        for voxel in self.edges.iter_mut().flatten().chain(&mut self.flat) {
            let [across, along] = voxel.slopes.map(f64::from);
            let left = (residue.in_plane * across).hypot(residue.along_z * along) / sigma;
            let scale = (1.0 / left.hypot(1.0)) as f32;
            voxel.difference *= scale;
            voxel.gradient *= scale;
        }
    }

    /// What the gradient adds to the width, class by class, where flat voxels are `sigma` wide if there are few.
    fn excesses(&self, sigma: f64, width: fn(&[Voxel]) -> f64) -> Vec<Excess> {
        let flat = if self.flat.len() >= LEAST_VOXELS {
            width(&self.flat)
        } else {
            sigma
        };
        let edges = self.edges.iter();
        edges
            .filter(|class| class.len() >= LEAST_VOXELS)
            .filter_map(|class| {
                let (width, voxels) = (width(class), class.len() as f64);
                let squares = class.iter().map(|v| f64::from(v.gradient).powi(2));
                let square = squares.sum::<f64>() / voxels;
                (width > 0.0).then(|| Excess {
                    voxels,
                    ratio: (width * width - flat * flat) / square,
                    // a variance is known to var sqrt(2 / n)
                    variance: 2.0 / voxels * (width * width / square).powi(2),
                })
            })
            .collect()
    }
}

/// What edges of a class are wider by than flat voxels.
struct Excess {
    voxels: f64,
    /// In variance, over the squared gradient, and the variance of this.
    ratio: f64,
    variance: f64,
}

/// Root of the weighted mean of the ratios; `None` without edges, and 0 where nothing is left beyond what chance leaves.
fn mean_factor(excesses: &[Excess], weight: fn(&Excess) -> f64) -> Option<f64> {
    let sum = |of: &dyn Fn(&Excess) -> f64| excesses.iter().map(of).sum::<f64>();
    let weights = sum(&|excess| weight(excess));
    if weights <= 0.0 {
        return None;
    }
    let square = sum(&|excess| weight(excess) * excess.ratio) / weights;
    let error = sum(&|excess| weight(excess).powi(2) * excess.variance).sqrt() / weights;
    Some(if square > 3.0 * error {
        square.sqrt()
    } else {
        0.0
    })
}

/// Gathers differences by gradient, and fits the residues.
pub(super) struct EdgeSample {
    /// By the gradient within the slice, along z, and around within the slice.
    classes: [Classes; 3],
    sigma: f64,
}

impl EdgeSample {
    /// `sigma`: noise of a voxel.
    pub(super) fn new(sigma: f64) -> EdgeSample {
        EdgeSample {
            classes: [(); 3].map(|()| Classes::new()),
            sigma,
        }
    }

    /// The gradients that [`EdgeSample::add`] takes, as residues of 1.
    pub(super) const GRADIENTS: [Residue; 3] = [
        Residue {
            in_plane: 1.0,
            along_z: 0.0,
            ripple: 0.0,
        },
        Residue {
            in_plane: 0.0,
            along_z: 1.0,
            ripple: 0.0,
        },
        Residue {
            in_plane: 0.0,
            along_z: 0.0,
            ripple: 1.0,
        },
    ];

    /// Adds a slice of the difference with its gradients; `changed` is 1 near what surely changed, empty where nothing did, and `p` the relative noise of a
    /// voxel `[y, x]`.
    pub(super) fn add(
        &mut self,
        slice: &[f32],
        gradients: [&[f32]; 3],
        changed: &[u8],
        width: usize,
        region: &Region,
        p: impl Fn(usize, usize) -> f32,
    ) {
        for (y, x, value) in region.voxels(slice).filter(|(_, _, v)| v.is_finite()) {
            let (at, p) = (y * width + x, p(y, x));
            let [in_plane, along_z, around] = gradients.map(|gradient| gradient[at]);
            let sorted = [(in_plane, along_z), (along_z, in_plane), (around, along_z)];
            for (classes, (own, other)) in self.classes.iter_mut().zip(sorted) {
                let larger = own.max(other);
                let ratio = f64::from(larger) / self.sigma;
                // edges of the other kind are neither flat nor of this kind
                if own > CLEAR * other || ratio <= FLAT {
                    let voxel = Voxel {
                        difference: value / p,
                        gradient: larger / p,
                        slopes: [in_plane / p, along_z / p],
                        changed: changed.get(at) == Some(&1),
                    };
                    classes.add(voxel, ratio);
                }
            }
        }
    }

    /// Residues of both kinds of edges, and the ripple around those within a slice; 0 where there are none, or nothing is left at them beyond what chance leaves.
    /// Where there are no edges of one kind, they are taken to be like the other.
    ///
    /// Edges are compared with flat voxels, as change widens the spread of both.
    pub(super) fn residue(mut self) -> Residue {
        let sigma = self.sigma;
        let [in_plane, along_z] = [0, 1].map(|kind| {
            let excesses = self.classes[kind].excesses(sigma, middle_width);
            mean_factor(&excesses, |excess| 1.0 / excess.variance)
        });
        let shifts = Residue {
            in_plane: in_plane.or(along_z).unwrap_or(0.0),
            along_z: along_z.or(in_plane).unwrap_or(0.0),
            ripple: 0.0,
        };
        let around = &mut self.classes[2];
        around.take_out(shifts, sigma);
        Residue {
            // one wall may ripple and another not, so that all voxels count alike, and not those by which one value would be known best
            ripple: mean_factor(&around.excesses(sigma, width_of_ends), |excess| {
                excess.voxels
            })
            .unwrap_or(0.0),
            ..shifts
        }
    }
}

/// Standard deviation by the middle of the distribution.
fn middle_width(voxels: &[Voxel]) -> f64 {
    spread(|| voxels.iter().map(|voxel| voxel.difference), 0.0).sigma
}

/// Standard deviation by the end of the distribution that is nearer to its median, of voxels that are not near what surely changed: what changed there and is not
/// sure may lie on one side only. 0 where too few are left.
fn width_of_ends(voxels: &[Voxel]) -> f64 {
    let quiet = voxels.iter().filter(|voxel| !voxel.changed);
    let mut quiet: Vec<f32> = quiet.map(|voxel| voxel.difference).collect();
    if quiet.len() < LEAST_VOXELS {
        return 0.0;
    }
    quiet.sort_unstable_by(f32::total_cmp);
    let at = |place: usize| f64::from(quiet[place]);
    let out = (BEYOND * quiet.len() as f64) as usize;
    let (first, middle, last) = (at(out), at(quiet.len() / 2), at(quiet.len() - 1 - out));
    (middle - first).min(last - middle) / NORMAL_END
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, StandardNormal};

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
                let gradients = [[&gradient[..], &none], [&none, &gradient[..]]][k % 2];
                let gradients = [gradients[0], gradients[1], &none];
                sample.add(&slice, gradients, &[], n, &region, |_, _| 1.0);
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
