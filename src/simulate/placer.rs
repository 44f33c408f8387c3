//! Places ellipsoids at random so that none touches another.

use crate::phantom::{Object, SplitMix64};

/// Remembers what is taken.
pub(super) struct Placer {
    /// Draws positions and, for the callers, sizes.
    pub(super) random: SplitMix64,
    middle: [f64; 2],
    taken: Vec<Upright>,
}

/// An upright cylinder around a placed ellipsoid.
#[derive(Clone, Copy)]
struct Upright {
    centre: [f64; 3],
    radius: f64,
    half_height: f64,
}

/// A place that was found.
pub(super) struct Spot {
    centre: [f64; 3],
    semi: [f64; 3],
    phi: f64,
}

impl Spot {
    pub(super) fn ellipsoid(&self, value: f64) -> Object {
        Object::ellipsoid(self.centre, self.semi, self.phi, value)
    }
}

/// Tries before a place is given up.
const TRIES: usize = 400;

impl Placer {
    pub(super) fn new(seed: u64, middle: [f64; 2]) -> Self {
        Placer {
            random: SplitMix64::keyed(seed, &[0xCE11]),
            middle,
            taken: Vec::new(),
        }
    }

    /// A place for an ellipsoid with semi-axes `semi`, within `reach` of the middle and its centre between the two
    /// `heights`, at least `gap` away from everything placed before. `None` when there is no room.
    pub(super) fn place(
        &mut self,
        semi: [f64; 3],
        reach: f64,
        heights: [f64; 2],
        gap: f64,
    ) -> Option<Spot> {
        let radius = semi[0].max(semi[1]);
        if heights[0] > heights[1] || radius >= reach {
            return None;
        }
        for _ in 0..TRIES {
            let x = self.random.uniform(-reach, reach);
            let y = self.random.uniform(-reach, reach);
            let z = self.random.uniform(heights[0], heights[1]);
            let phi = self.random.uniform(0.0, std::f64::consts::PI);
            let centre = [self.middle[0] + x, self.middle[1] + y, z];
            if x.hypot(y) + radius > reach || self.hits(centre, radius, semi[2], gap) {
                continue;
            }
            self.taken.push(Upright {
                centre,
                radius,
                half_height: semi[2],
            });
            return Some(Spot { centre, semi, phi });
        }
        None
    }

    /// Whether an upright cylinder comes closer than `gap` to anything placed.
    pub(super) fn hits(&self, centre: [f64; 3], radius: f64, half_height: f64, gap: f64) -> bool {
        self.taken.iter().any(|other| {
            let apart = (centre[0] - other.centre[0]).hypot(centre[1] - other.centre[1]);
            apart < radius + other.radius + gap
                && (centre[2] - other.centre[2]).abs() < half_height + other.half_height + gap
        })
    }
}
