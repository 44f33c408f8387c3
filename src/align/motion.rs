//! The rigid motion that is searched: a turn about z and a shift, about the middle of the volume.

/// p -> R(turn) p + shift, p measured from the middle of the volume \[pilot voxel\], `[x, y, z]`, y down.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RigidMotion {
    /// `[x, y, z]` \[pilot voxel\]
    pub(crate) shift: [f64; 3],
    /// From x towards y (down) \[rad\].
    pub(crate) turn: f64,
}

impl RigidMotion {
    /// Where the point `p` goes.
    pub(crate) fn apply(&self, p: [f64; 3]) -> [f64; 3] {
        let [x, y] = turned([p[0], p[1]], self.turn);
        [x + self.shift[0], y + self.shift[1], p[2] + self.shift[2]]
    }

    /// This motion after `first`: p -> self(first(p)).
    pub(crate) fn after(&self, first: &RigidMotion) -> RigidMotion {
        RigidMotion {
            shift: self.apply(first.shift),
            turn: self.turn + first.turn,
        }
    }

    /// The motion that takes back.
    pub(crate) fn inverse(&self) -> RigidMotion {
        let [x, y] = turned([-self.shift[0], -self.shift[1]], -self.turn);
        RigidMotion {
            shift: [x, y, -self.shift[2]],
            turn: -self.turn,
        }
    }
}

/// `v` turned from x towards y.
pub(crate) fn turned(v: [f64; 2], angle: f64) -> [f64; 2] {
    let (sin, cos) = angle.sin_cos();
    [v[0] * cos - v[1] * sin, v[0] * sin + v[1] * cos]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_motion_after_its_inverse_stands_still() {
        let motion = RigidMotion {
            shift: [1.5, -2.0, 3.0],
            turn: 0.4,
        };
        let back = motion.after(&motion.inverse());
        assert!(
            back.turn.abs() < 1e-15 && back.shift.iter().all(|s| s.abs() < 1e-14),
            "{back:?}"
        );
        let point = motion.inverse().apply(motion.apply([3.0, 4.0, 5.0]));
        assert!(
            point
                .iter()
                .zip([3.0, 4.0, 5.0])
                .all(|(a, b)| (a - b).abs() < 1e-13),
            "{point:?}"
        );
        // control: the motion twice is another one
        assert!(motion.after(&motion).shift[2] != 0.0);
    }

    #[test]
    fn a_quarter_turn_takes_x_to_y() {
        let p = RigidMotion {
            shift: [0.0; 3],
            turn: std::f64::consts::FRAC_PI_2,
        }
        .apply([1.0, 0.0, 7.0]);
        assert!(
            p[0].abs() < 1e-15 && (p[1] - 1.0).abs() < 1e-15 && p[2] == 7.0,
            "{p:?}"
        );
    }
}
