//! Analytic phantoms with exact projections.
//!
//! A phantom is a sum of objects, each of them a stack of similar ellipses along z (ellipsoids, cylinders, plates),
//! so its line integrals, its strip integrals over a detector pixel and its mass are known in closed form. Nothing
//! here knows of counts or noise; that is [`crate::simulate`].
//!
//! Conventions: positions are in detector pixels from the rotation axis and from a middle row that the caller
//! names: x to the right, **y up**, z along the detector rows (**down**). A ray of detector coordinate t at angle
//! theta holds the points x cos(theta) + y sin(theta) = t. Values add up. An integral is a value times a length in
//! pixels: for values in 1/cm, multiply by the pixel size in cm to get a line integral.

mod object;
pub mod peers;
mod project;
mod random;
mod scan;
mod tilt;
mod voxelise;

pub use object::{Motion, Object, Profile};
pub use project::{Projector, blur_kernel, strip_area};
pub use random::SplitMix64;
pub use scan::PhantomScan;
pub use voxelise::LINES_PER_VOXEL;

/// Objects whose values add up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Phantom {
    /// The objects.
    pub objects: Vec<Object>,
}

impl Phantom {
    /// A phantom of these objects.
    #[must_use]
    pub fn new(objects: Vec<Object>) -> Self {
        Phantom { objects }
    }

    /// A tube along z: `value` between the radii `inner` and `outer` \[px\] around `centre`, between `top` above and
    /// `bottom` below it, each end ramped over `edge` \[px\].
    pub fn push_tube(
        &mut self,
        centre: [f64; 3],
        [inner, outer]: [f64; 2],
        [top, bottom]: [f64; 2],
        edge: f64,
        value: f64,
    ) {
        self.objects
            .push(Object::cylinder(centre, outer, [top, bottom], edge, value));
        self.objects
            .push(Object::cylinder(centre, inner, [top, bottom], edge, -value));
    }

    /// The same phantom after a rigid motion of the sample.
    #[must_use]
    pub fn moved(&self, motion: &Motion) -> Phantom {
        Phantom {
            objects: self
                .objects
                .iter()
                .map(|object| object.moved(motion))
                .collect(),
        }
    }

    /// Value at a point.
    #[must_use]
    pub fn value_at(&self, point: [f64; 3]) -> f64 {
        self.objects
            .iter()
            .map(|object| object.value_at(point))
            .sum()
    }

    /// Integral along the ray (theta \[rad\], t, z): sum of value times chord length.
    #[must_use]
    pub fn line_integral(&self, theta: f64, t: f64, z: f64) -> f64 {
        self.objects
            .iter()
            .map(|object| object.line_integral(theta, t, z))
            .sum()
    }

    /// Sum of value times volume \[px^3\] between the heights `z0` and `z1`.
    #[must_use]
    pub fn mass_between(&self, z0: f64, z1: f64) -> f64 {
        self.objects
            .iter()
            .map(|object| object.value * object.volume_between(z0, z1))
            .sum()
    }
}
