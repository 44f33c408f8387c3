//! One object: a stack of similar ellipses along z.

use super::tilt;
use crate::record::AlignmentRecord;

/// How the ellipse of an [`Object`] changes along z.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Profile {
    /// An ellipsoid: the ellipse shrinks as sqrt(1 - u^2), where u is the distance from the centre over `up` (towards
    /// smaller z) or `down` (towards larger z). Different ones give an egg; one of them 0 gives half an ellipsoid.
    Ellipsoid {
        /// Semi-axis towards smaller z \[px\].
        up: f64,
        /// Semi-axis towards larger z \[px\].
        down: f64,
    },
    /// A cylinder or plate: the same ellipse between the two ends; there the value rises linearly from 0 to all of
    /// it over `edge`, centred on the end (0: sharp). Infinite `up` and `down` give a phantom that is the same at every z.
    Column {
        /// Length towards smaller z \[px\].
        up: f64,
        /// Length towards larger z \[px\].
        down: f64,
        /// Width of the ramp at each end \[px\], at most twice the shorter length.
        edge: f64,
    },
}

/// A stack of similar ellipses along z with one value. Coordinates as in [`crate::phantom`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Object {
    /// Value inside, e.g. attenuation \[1/cm\]; may be negative to take away from another object.
    pub value: f64,
    /// Centre `[x, y, z]` \[px\], y up.
    pub centre: [f64; 3],
    /// Semi-axes of the ellipse at the centre \[px\].
    pub semi: [f64; 2],
    /// Direction of the first semi-axis \[rad\], from x towards y (up).
    pub phi: f64,
    /// Drift of the ellipse's centre per pixel of z, along x and y. A leaning ellipsoid is again an ellipsoid.
    pub lean: [f64; 2],
    /// Along z.
    pub profile: Profile,
}

/// A rigid motion: the point at p stands at R p + s, as in [`AlignmentRecord`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Motion {
    /// `[x, y, z]` \[px\]; x along columns, **y along the rows of a slice (down)**, z along detector rows.
    pub shift: [f64; 3],
    /// Turn about z \[rad\], from x towards y (down).
    pub rotation_rad: f64,
    /// Tilt before the turn: the rotation vector `[rx, ry, 0]` \[rad\]; rx turns y (down) towards z, ry turns z towards x.
    pub tilt_rad: [f64; 2],
}

impl Motion {
    /// The motion that an alignment record tells.
    #[must_use]
    pub fn of(record: &AlignmentRecord) -> Self {
        let [rx, ry, rz] = record.rotation_deg.map(f64::to_radians);
        Motion {
            shift: record.shift_voxel,
            rotation_rad: rz,
            tilt_rad: [rx, ry],
        }
    }

    /// Where a point `[x, y, z]` (y up) stands afterwards.
    #[must_use]
    pub fn apply(&self, point: [f64; 3]) -> [f64; 3] {
        let [x, y, z] = tilt::tilted(point, self.tilt_rad);
        let [x, y] = self.turn([x, y]);
        [x + self.shift[0], y - self.shift[1], z + self.shift[2]]
    }

    /// A direction (y up) after the turn: from x towards y down is clockwise where y is up.
    fn turn(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let (sin, cos) = self.rotation_rad.sin_cos();
        [x * cos + y * sin, y * cos - x * sin]
    }
}

impl Object {
    /// An ellipsoid with semi-axes `[a, b, c]` \[px\], turned by `phi` about z.
    #[must_use]
    pub fn ellipsoid(centre: [f64; 3], [a, b, c]: [f64; 3], phi: f64, value: f64) -> Self {
        Object {
            value,
            centre,
            semi: [a, b],
            phi,
            lean: [0.0; 2],
            profile: Profile::Ellipsoid { up: c, down: c },
        }
    }

    /// A sphere.
    #[must_use]
    pub fn sphere(centre: [f64; 3], radius: f64, value: f64) -> Self {
        Object::ellipsoid(centre, [radius; 3], 0.0, value)
    }

    /// A cylinder along z from `top` above to `bottom` below its centre, ends ramped over `edge`.
    #[must_use]
    pub fn cylinder(
        centre: [f64; 3],
        radius: f64,
        [top, bottom]: [f64; 2],
        edge: f64,
        value: f64,
    ) -> Self {
        let profile = Profile::Column {
            up: top,
            down: bottom,
            edge,
        };
        Object {
            value,
            centre,
            semi: [radius; 2],
            phi: 0.0,
            lean: [0.0; 2],
            profile,
        }
    }

    /// A fibre: a long ellipsoid from one point to another, `thickness` across \[px\].
    ///
    /// It is the horizontal ellipsoid of that length, each point lifted by the slope times its place along the fibre,
    /// so `thickness` is measured vertically; the two points must differ in x or y.
    #[must_use]
    pub fn fibre(from: [f64; 3], to: [f64; 3], thickness: f64, value: f64) -> Self {
        let half = [
            0.5 * (to[0] - from[0]),
            0.5 * (to[1] - from[1]),
            0.5 * (to[2] - from[2]),
        ];
        let centre = [
            0.5 * (to[0] + from[0]),
            0.5 * (to[1] + from[1]),
            0.5 * (to[2] + from[2]),
        ];
        let (length, radius) = (half[0].hypot(half[1]), 0.5 * thickness);
        let phi = half[1].atan2(half[0]);
        // (u / length)^2 + ((w - slope u) / radius)^2 <= 1, u along the fibre and w vertical, with the square completed
        // in u: at height w an ellipse centred at u = lean w, of semi-axis a sqrt(1 - (w / c)^2)
        let slope = half[2] / length;
        let c = (radius * radius + slope * slope * length * length).sqrt();
        let lean = slope * length * length / (c * c);
        let a = length * radius / c;
        Object {
            value,
            centre,
            semi: [a, radius],
            phi,
            lean: [lean * phi.cos(), lean * phi.sin()],
            profile: Profile::Ellipsoid { up: c, down: c },
        }
    }

    /// After a rigid motion of the sample.
    ///
    /// A tilt is exact for ellipsoids whose halves are alike and for columns that end outside of the field of view: the ends of a column stay
    /// horizontal.
    #[must_use]
    pub fn moved(&self, motion: &Motion) -> Object {
        let tilted = tilt::tilt(self, motion.tilt_rad);
        Object {
            centre: motion.apply(self.centre),
            phi: tilted.phi - motion.rotation_rad,
            lean: motion.turn(tilted.lean),
            ..tilted
        }
    }

    /// Heights between which the object is not empty.
    #[must_use]
    pub fn z_range(&self) -> [f64; 2] {
        let z = self.centre[2];
        match self.profile {
            Profile::Ellipsoid { up, down } => [z - up, z + down],
            Profile::Column { up, down, edge } => [z - up - 0.5 * edge, z + down + 0.5 * edge],
        }
    }

    /// Scale of the ellipse and weight of the value at height `z`; both 0 outside.
    fn scale_and_weight(&self, z: f64) -> (f64, f64) {
        let dz = z - self.centre[2];
        match self.profile {
            Profile::Ellipsoid { up, down } => {
                let reach = if dz < 0.0 { up } else { down };
                let u = dz / reach;
                if u.abs() < 1.0 {
                    ((1.0 - u * u).sqrt(), 1.0)
                } else {
                    (0.0, 0.0)
                }
            }
            Profile::Column { up, down, edge } => {
                let inside = (up + dz).min(down - dz);
                let weight = if edge > 0.0 {
                    (inside / edge + 0.5).clamp(0.0, 1.0)
                } else {
                    f64::from(inside >= 0.0)
                };
                (if weight > 0.0 { 1.0 } else { 0.0 }, weight)
            }
        }
    }

    /// Value at a point `[x, y, z]`, 0 outside.
    #[must_use]
    pub fn value_at(&self, [x, y, z]: [f64; 3]) -> f64 {
        let (scale, weight) = self.scale_and_weight(z);
        if scale <= 0.0 {
            return 0.0;
        }
        let dz = z - self.centre[2];
        let (dx, dy) = (
            x - self.centre[0] - self.lean[0] * dz,
            y - self.centre[1] - self.lean[1] * dz,
        );
        let (sin, cos) = self.phi.sin_cos();
        let (u, v) = (
            (dx * cos + dy * sin) / self.semi[0],
            (dy * cos - dx * sin) / self.semi[1],
        );
        if u * u + v * v <= scale * scale {
            self.value * weight
        } else {
            0.0
        }
    }

    /// Value times chord length \[px\] along the ray (theta \[rad\], t, z).
    ///
    /// The chord of an ellipse with semi-axes a, b and direction phi at distance u from the ray through its centre is
    /// 2 a b sqrt(A^2 - u^2) / A^2 with A^2 = a^2 cos^2(theta - phi) + b^2 sin^2(theta - phi) (Kak & Slaney 1988, section 3.1).
    #[must_use]
    pub fn line_integral(&self, theta: f64, t: f64, z: f64) -> f64 {
        let (scale, weight) = self.scale_and_weight(z);
        if scale <= 0.0 {
            return 0.0;
        }
        let (sin, cos) = theta.sin_cos();
        let dz = z - self.centre[2];
        let middle =
            (self.centre[0] + self.lean[0] * dz) * cos + (self.centre[1] + self.lean[1] * dz) * sin;
        let reach = scale * self.half_width(theta);
        let u = (t - middle) / reach;
        if u.abs() >= 1.0 {
            return 0.0;
        }
        let area = scale * scale * self.semi[0] * self.semi[1];
        self.value * weight * 2.0 * area * (1.0 - u * u).sqrt() / reach
    }

    /// Half the width of the shadow of the ellipse at the centre, seen at angle `theta` \[px\].
    #[must_use]
    pub fn half_width(&self, theta: f64) -> f64 {
        let (sin, cos) = (theta - self.phi).sin_cos();
        (self.semi[0] * cos).hypot(self.semi[1] * sin)
    }

    /// Volume \[px^3\] between two heights, the ramps of a column weighted.
    #[must_use]
    pub fn volume_between(&self, z0: f64, z1: f64) -> f64 {
        let area = std::f64::consts::PI * self.semi[0] * self.semi[1];
        area * (self.area_integral(z1) - self.area_integral(z0))
    }

    /// Volume \[px^3\]; infinite for an endless column.
    #[must_use]
    pub fn volume(&self) -> f64 {
        let [z0, z1] = self.z_range();
        self.volume_between(z0, z1)
    }

    /// Integral of weight times scale squared from the centre to `z`.
    fn area_integral(&self, z: f64) -> f64 {
        let dz = z - self.centre[2];
        match self.profile {
            Profile::Ellipsoid { up, down } => {
                let reach = if dz < 0.0 { up } else { down };
                let d = dz.clamp(-up, down);
                if reach > 0.0 {
                    d - d * d * d / (3.0 * reach * reach)
                } else {
                    0.0
                }
            }
            Profile::Column { up, down, edge } => {
                // the integral of a ramp that is 1 up to `end - edge / 2` and 0 from `end + edge / 2` on
                let one_side = |d: f64, end: f64| {
                    let over = (d - (end - 0.5 * edge)).clamp(0.0, edge);
                    let flat = d.min(end - 0.5 * edge);
                    if edge > 0.0 {
                        flat + over - 0.5 * over * over / edge
                    } else {
                        flat
                    }
                };
                if dz < 0.0 {
                    -one_side(-dz, up)
                } else {
                    one_side(dz, down)
                }
            }
        }
    }

    /// Heights and weights that stand for the mean over `z0..z1` (weights sum to the share of it that is filled).
    ///
    /// Two Gauss points on each piece between kinks: exact for the area, which is quadratic in z, so sums over the
    /// detector and over voxels keep the mass. A column without lean needs one height.
    pub(super) fn sections(&self, z0: f64, z1: f64, out: &mut Vec<Section>) {
        let height = z1 - z0;
        let zc = self.centre[2];
        if let (Profile::Column { .. }, [0.0, 0.0]) = (self.profile, self.lean) {
            let weight = (self.area_integral(z1) - self.area_integral(z0)) / height;
            if weight > 0.0 {
                out.push(Section {
                    dz: 0.0,
                    scale: 1.0,
                    weight,
                });
            }
            return;
        }
        let [top, bottom] = self.z_range();
        let (low, high) = (z0.max(top), z1.min(bottom));
        let mut kinks = [low, high, high, high];
        match self.profile {
            Profile::Ellipsoid { .. } => kinks[1] = zc.clamp(low, high.max(low)),
            Profile::Column { up, down, edge } => {
                kinks[1] = (zc - up + 0.5 * edge).clamp(low, high.max(low));
                kinks[2] = (zc + down - 0.5 * edge).clamp(kinks[1], high.max(kinks[1]));
            }
        }
        for pair in kinks.windows(2) {
            let (half, middle) = (0.5 * (pair[1] - pair[0]), 0.5 * (pair[1] + pair[0]));
            if half <= 0.0 {
                continue;
            }
            let offset = half / 3f64.sqrt();
            for z in [middle - offset, middle + offset] {
                let (scale, weight) = self.scale_and_weight(z);
                if scale > 0.0 {
                    out.push(Section {
                        dz: z - zc,
                        scale,
                        weight: weight * half / height,
                    });
                }
            }
        }
    }
}

/// The ellipse of an object at one height.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    /// Height above the object's centre \[px\].
    pub(super) dz: f64,
    /// Scale of the ellipse.
    pub(super) scale: f64,
    /// Share of the height interval that it stands for, times the weight of the value.
    pub(super) weight: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::PI;

    fn examples() -> Vec<Object> {
        let mut leaning = Object::ellipsoid([3.0, -5.0, 1.2], [9.0, 4.0, 6.0], 0.7, 1.3);
        leaning.lean = [0.4, -0.3];
        let mut egg = Object::sphere([-2.0, 1.0, 0.5], 5.0, 0.8);
        egg.profile = Profile::Ellipsoid { up: 2.0, down: 7.0 };
        let mut half = egg;
        half.profile = Profile::Ellipsoid { up: 4.0, down: 0.0 };
        let column = Object::cylinder([1.0, 2.0, -0.3], 6.0, [3.0, 5.0], 1.5, 0.5);
        let mut leaning_column = column;
        leaning_column.lean = [0.5, 0.2];
        let fibre = Object::fibre([-9.0, 1.0, -2.0], [8.0, 5.0, 3.0], 2.0, 0.4);
        vec![leaning, egg, half, column, leaning_column, fibre]
    }

    #[test]
    fn a_chord_is_the_integral_of_the_value_along_the_ray() {
        // midpoint rule: each end of the chord is off by at most half a step; two ends per object
        let step = 1e-3;
        for object in examples() {
            for (theta, t, z) in [
                (0.0, 0.5, 0.7),
                (0.4, -1.0, -0.8),
                (1.9, 2.0, 2.1),
                (3.0, -3.1, 1.4),
            ] {
                let (sin, cos) = f64::sin_cos(theta);
                let numeric = |object: &Object| -> f64 {
                    let n = (60.0 / step) as i64;
                    (0..n)
                        .map(|k| (k as f64 + 0.5) * step - 30.0)
                        .map(|l| object.value_at([t * cos - l * sin, t * sin + l * cos, z]) * step)
                        .sum()
                };
                let exact = object.line_integral(theta, t, z);
                assert!(
                    (numeric(&object) - exact).abs() <= 1.01 * step * object.value,
                    "{object:?} {theta} {t} {z}"
                );
                let wrong = Object {
                    semi: object.semi.map(|semi| 1.03 * semi),
                    ..object
                };
                if exact > 0.5 {
                    assert!(
                        (numeric(&wrong) - exact).abs() > 5.0 * step * object.value,
                        "the check is blind: {object:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn volumes_are_those_of_the_formulas() {
        let objects = examples();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12 * b;
        assert!(close(objects[0].volume(), 4.0 / 3.0 * PI * 9.0 * 4.0 * 6.0));
        assert!(close(objects[1].volume(), 2.0 / 3.0 * PI * 25.0 * 9.0));
        assert!(close(objects[2].volume(), 2.0 / 3.0 * PI * 25.0 * 4.0));
        assert!(
            close(objects[3].volume(), PI * 36.0 * 8.0),
            "a ramp centred on the end keeps the volume"
        );
        // a sphere cut at half its radius: cap of height h has pi h^2 (3 r - h) / 3
        let sphere = Object::sphere([0.0; 3], 4.0, 1.0);
        assert!(close(
            sphere.volume_between(2.0, 9.0),
            PI * 4.0 * (12.0 - 2.0) / 3.0
        ));
        assert!(!close(
            sphere.volume_between(2.1, 9.0),
            PI * 4.0 * (12.0 - 2.0) / 3.0
        ));
    }

    #[test]
    fn sections_keep_the_volume_of_every_height() {
        for object in examples() {
            let mut worst = 0f64;
            for row in -9..9 {
                let (z0, z1) = (f64::from(row) - 0.5, f64::from(row) + 0.5);
                let mut sections = Vec::new();
                object.sections(z0, z1, &mut sections);
                let sum: f64 = sections.iter().map(|s| s.weight * s.scale * s.scale).sum();
                let exact = object.volume_between(z0, z1) / (PI * object.semi[0] * object.semi[1]);
                worst = worst.max((sum - exact).abs());
            }
            assert!(worst < 1e-12, "{object:?}: {worst}");
        }
    }

    #[test]
    fn a_fibre_ends_where_it_was_told_and_is_as_thick_as_told() {
        let (from, to) = ([-9.0, 1.0, -2.0], [8.0, 5.0, 3.0]);
        let fibre = Object::fibre(from, to, 2.0, 1.0);
        let at = |s: f64| {
            [
                from[0] + s * (to[0] - from[0]),
                from[1] + s * (to[1] - from[1]),
                from[2] + s * (to[2] - from[2]),
            ]
        };
        assert!(fibre.value_at(at(0.005)) > 0.0 && fibre.value_at(at(0.995)) > 0.0);
        assert!(fibre.value_at(at(-0.005)) == 0.0 && fibre.value_at(at(1.005)) == 0.0);
        let [x, y, z] = at(0.5);
        assert!(fibre.value_at([x, y, z + 0.99]) > 0.0 && fibre.value_at([x, y, z + 1.01]) == 0.0);
    }

    #[test]
    fn a_moved_object_has_the_value_of_the_unmoved_one_at_the_unmoved_point() {
        let motion = Motion {
            shift: [2.4, -1.7, 3.3],
            rotation_rad: 0.3,
            ..Motion::default()
        };
        let mut g = crate::phantom::SplitMix64::new(4);
        for object in examples() {
            let moved = object.moved(&motion);
            let mut inside = 0;
            for _ in 0..4000 {
                let p = [
                    g.uniform(-10.0, 10.0),
                    g.uniform(-10.0, 10.0),
                    g.uniform(-6.0, 6.0),
                ];
                assert!((moved.value_at(motion.apply(p)) - object.value_at(p)).abs() < 1e-9);
                inside += usize::from(object.value_at(p) > 0.0);
            }
            assert!(inside > 20);
        }
        // x to the right turns towards y down, which is -y here
        let turned = Motion {
            rotation_rad: 0.1,
            ..Motion::default()
        }
        .apply([1.0, 0.0, 0.0]);
        assert!(turned[1] < 0.0);
        assert_eq!(
            Motion {
                shift: [0.0, 2.0, 0.0],
                ..Motion::default()
            }
            .apply([0.0; 3]),
            [0.0, -2.0, 0.0]
        );
    }
}
