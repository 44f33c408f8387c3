//! The rigid motion that is searched: a turn about z, a tilt about x and y, and a shift, about the middle of the volume.

/// p -> R p + shift, p measured from the middle of the volume \[pilot voxel\], `[x, y, z]`, y down; R tilts, then turns.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RigidMotion {
    /// `[x, y, z]` \[pilot voxel\]
    pub(crate) shift: [f64; 3],
    /// From x towards y (down) \[rad\].
    pub(crate) turn: f64,
    /// The rotation vector `[rx, ry, 0]` \[rad\]: rx turns y towards z, ry turns z towards x.
    pub(crate) tilt: [f64; 2],
}

impl RigidMotion {
    /// A shift and a turn about z.
    pub(crate) const fn upright(shift: [f64; 3], turn: f64) -> RigidMotion {
        RigidMotion {
            shift,
            turn,
            tilt: [0.0; 2],
        }
    }

    /// Whether it tilts at all.
    pub(crate) fn tilts(&self) -> bool {
        self.tilt != [0.0; 2]
    }

    /// Where the point `p` goes.
    pub(crate) fn apply(&self, p: [f64; 3]) -> [f64; 3] {
        let [x, y, z] = if self.tilts() {
            times(&tilt_matrix(self.tilt), p)
        } else {
            p
        };
        let [x, y] = turned([x, y], self.turn);
        [x + self.shift[0], y + self.shift[1], z + self.shift[2]]
    }

    /// This motion after `first`: p -> self(first(p)).
    pub(crate) fn after(&self, first: &RigidMotion) -> RigidMotion {
        let shift = self.apply(first.shift);
        if !self.tilts() && !first.tilts() {
            return RigidMotion::upright(shift, self.turn + first.turn);
        }
        RigidMotion::of(&product(&self.matrix(), &first.matrix()), shift)
    }

    /// The motion that takes back.
    pub(crate) fn inverse(&self) -> RigidMotion {
        if !self.tilts() {
            let [x, y] = turned([-self.shift[0], -self.shift[1]], -self.turn);
            return RigidMotion::upright([x, y, -self.shift[2]], -self.turn);
        }
        let back = transposed(&self.matrix());
        RigidMotion::of(&back, times(&back, self.shift.map(|s| -s)))
    }

    fn matrix(&self) -> Matrix {
        let (sin, cos) = self.turn.sin_cos();
        let turn = [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]];
        product(&turn, &tilt_matrix(self.tilt))
    }

    /// From a rotation matrix, whose last row is that of the tilt alone.
    fn of(r: &Matrix, shift: [f64; 3]) -> RigidMotion {
        let sin = r[2][0].hypot(r[2][1]);
        let scale = if sin > 1e-15 {
            sin.atan2(r[2][2]) / sin
        } else {
            1.0
        };
        let tilt = [scale * r[2][1], -scale * r[2][0]];
        let turn = product(r, &transposed(&tilt_matrix(tilt)));
        RigidMotion {
            shift,
            turn: turn[1][0].atan2(turn[0][0]),
            tilt,
        }
    }
}

type Matrix = [[f64; 3]; 3];

/// Rotation by the vector `[rx, ry, 0]` (Rodrigues).
fn tilt_matrix([rx, ry]: [f64; 2]) -> Matrix {
    let angle = rx.hypot(ry);
    // series where the closed form loses digits
    let (a, b) = if angle < 1e-4 {
        (1.0 - angle * angle / 6.0, 0.5 - angle * angle / 24.0)
    } else {
        (angle.sin() / angle, (1.0 - angle.cos()) / (angle * angle))
    };
    [
        [1.0 - b * ry * ry, b * rx * ry, a * ry],
        [b * rx * ry, 1.0 - b * rx * rx, -a * rx],
        [-a * ry, a * rx, 1.0 - b * angle * angle],
    ]
}

fn times(m: &Matrix, p: [f64; 3]) -> [f64; 3] {
    [0, 1, 2].map(|i| (0..3).map(|j| m[i][j] * p[j]).sum())
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    [0, 1, 2].map(|i| [0, 1, 2].map(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

fn transposed(m: &Matrix) -> Matrix {
    [0, 1, 2].map(|i| [0, 1, 2].map(|j| m[j][i]))
}

/// `v` turned from x towards y.
pub(crate) fn turned(v: [f64; 2], angle: f64) -> [f64; 2] {
    if angle == 0.0 {
        return v;
    }
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
            tilt: [0.02, -0.03],
        };
        let back = motion.after(&motion.inverse());
        assert!(
            back.turn.abs() < 1e-14
                && back.tilt.iter().all(|t| t.abs() < 1e-14)
                && back.shift.iter().all(|s| s.abs() < 1e-14),
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
    fn tilts_turn_the_axes_that_they_name_and_compose_as_points_move() {
        let tilted = |tilt| RigidMotion {
            tilt,
            ..RigidMotion::default()
        };
        let p = tilted([0.01, 0.0]).apply([0.0, 10.0, 0.0]);
        assert!(
            (p[2] - 0.1).abs() < 1e-4 && p[2] > 0.0,
            "rx takes y to z: {p:?}"
        );
        let p = tilted([0.0, 0.01]).apply([0.0, 0.0, 10.0]);
        assert!(
            (p[0] - 0.1).abs() < 1e-4 && p[0] > 0.0,
            "ry takes z to x: {p:?}"
        );
        let a = RigidMotion {
            shift: [1.0, 2.0, -0.5],
            turn: 0.3,
            tilt: [0.2, -0.1],
        };
        let b = RigidMotion {
            shift: [-0.4, 0.7, 1.5],
            turn: -1.1,
            tilt: [-0.05, 0.3],
        };
        let point = [3.0, -4.0, 7.0];
        let (one, two) = (a.after(&b).apply(point), a.apply(b.apply(point)));
        assert!(
            one.iter().zip(two).all(|(x, y)| (x - y).abs() < 1e-12),
            "{one:?} {two:?}"
        );
    }

    #[test]
    fn a_quarter_turn_takes_x_to_y() {
        let p = RigidMotion::upright([0.0; 3], std::f64::consts::FRAC_PI_2).apply([1.0, 0.0, 7.0]);
        assert!(
            p[0].abs() < 1e-15 && (p[1] - 1.0).abs() < 1e-15 && p[2] == 7.0,
            "{p:?}"
        );
    }
}
