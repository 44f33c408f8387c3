//! Tilted ellipsoids: a stack of ellipses that leans, again.

use super::object::{Object, Profile};

/// Symmetric quadratic form `p' A p` of a body around its centre, 3 x 3.
type Form = [[f64; 3]; 3];

/// Rotation by the vector `w` \[rad\] (Rodrigues): `cos t I + sin t [n]x + (1 - cos t) n n'`.
fn rotation(w: [f64; 3]) -> Form {
    let angle = w[0].hypot(w[1]).hypot(w[2]);
    if angle == 0.0 {
        return [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    }
    let n = w.map(|part| part / angle);
    let (sin, cos) = angle.sin_cos();
    let cross = [[0.0, -n[2], n[1]], [n[2], 0.0, -n[0]], [-n[1], n[0], 0.0]];
    [0, 1, 2].map(|i| {
        [0, 1, 2].map(|j| {
            let same = if i == j { cos } else { 0.0 };
            same + sin * cross[i][j] + (1.0 - cos) * n[i] * n[j]
        })
    })
}

/// Where a point `[x, y, z]` (y **up**) goes by a tilt `[rx, ry]`, whose rotation vector is given for y down as everywhere outside of
/// the phantoms: y up turns the sense of both.
pub(super) fn tilted(point: [f64; 3], [rx, ry]: [f64; 2]) -> [f64; 3] {
    let r = rotation([-rx, ry, 0.0]);
    [0, 1, 2].map(|i| (0..3).map(|j| r[i][j] * point[j]).sum())
}

/// An object tilted about its own centre, by `[rx, ry]` as in [`tilted`].
///
/// Exact for ellipsoids (whose two halves are alike) and for endless columns; the ends of a column stay horizontal, so what is
/// tilted must end outside of the field of view.
pub(super) fn tilt(object: &Object, by: [f64; 2]) -> Object {
    if by == [0.0; 2] {
        return *object;
    }
    // at height w an ellipse around L w: (h - L w)' M (h - L w) + w^2 / c^2 = 1
    let (sin, cos) = object.phi.sin_cos();
    let [a, b] = object.semi.map(|semi| semi.powi(-2));
    let m = [
        [a * cos * cos + b * sin * sin, (a - b) * sin * cos],
        [(a - b) * sin * cos, a * sin * sin + b * cos * cos],
    ];
    let c = match object.profile {
        Profile::Ellipsoid { up, down } => 0.5 * (up + down),
        Profile::Column { .. } => f64::INFINITY,
    };
    let l = object.lean;
    let ml = [0, 1].map(|i| m[i][0] * l[0] + m[i][1] * l[1]);
    let form = [
        [m[0][0], m[0][1], -ml[0]],
        [m[1][0], m[1][1], -ml[1]],
        [-ml[0], -ml[1], l[0] * ml[0] + l[1] * ml[1] + c.powi(-2)],
    ];
    let r = rotation([-by[0], by[1], 0.0]);
    let turned: Form = [0, 1, 2].map(|i| {
        [0, 1, 2].map(|j| {
            (0..3)
                .flat_map(|k| (0..3).map(move |n| (k, n)))
                .map(|(k, n)| r[i][k] * form[k][n] * r[j][n])
                .sum()
        })
    });
    from_form(object, &turned)
}

fn from_form(object: &Object, form: &Form) -> Object {
    let [[p, q, u], [_, s, v], [_, _, w]] = *form;
    let determinant = p * s - q * q;
    // L = -M^-1 A_hw
    let lean = [(q * v - s * u) / determinant, (q * u - p * v) / determinant];
    let rest = w + lean[0] * u + lean[1] * v;
    // M = R(phi) diag(1 / a^2, 1 / b^2) R(-phi), a the longer one
    let (middle, half) = (0.5 * (p + s), (0.5 * (p - s)).hypot(q));
    let phi = if half > 0.0 {
        0.5 * (-q).atan2(0.5 * (s - p))
    } else {
        0.0
    };
    let profile = match object.profile {
        Profile::Ellipsoid { .. } => {
            let c = rest.sqrt().recip();
            Profile::Ellipsoid { up: c, down: c }
        }
        column @ Profile::Column { .. } => column,
    };
    Object {
        semi: [
            (middle - half).sqrt().recip(),
            (middle + half).sqrt().recip(),
        ],
        phi,
        lean,
        profile,
        ..*object
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phantom::{Motion, SplitMix64};

    #[test]
    fn a_tilted_ellipsoid_has_its_value_where_its_points_went() {
        let motion = Motion {
            shift: [1.0, -2.0, 0.5],
            rotation_rad: 0.4,
            tilt_rad: [0.3, -0.2],
        };
        let mut leaning = Object::ellipsoid([3.0, -2.0, 1.0], [7.0, 3.0, 4.0], 0.7, 1.0);
        leaning.lean = [0.3, -0.1];
        let endless = Object::cylinder([1.0, 2.0, 0.0], 5.0, [1e9, 1e9], 0.0, 1.0);
        let mut random = SplitMix64::new(3);
        for object in [leaning, endless] {
            let moved = object.moved(&motion);
            let (mut wrong, mut blind, mut inside) = (0, 0, 0);
            for _ in 0..4000 {
                let p = [0; 3].map(|_| random.uniform(-9.0, 9.0));
                let value = object.value_at(p);
                inside += usize::from(value > 0.0);
                wrong += usize::from(moved.value_at(motion.apply(p)) != value);
                let other = Motion {
                    tilt_rad: [-0.3, 0.2],
                    ..motion
                };
                blind += usize::from(moved.value_at(other.apply(p)) != value);
            }
            assert!(wrong == 0 && inside > 200, "{wrong} of {inside}");
            assert!(blind > 100, "the check is blind: {blind}");
        }
        let volume = leaning.moved(&motion).volume();
        assert!((volume / leaning.volume() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_sense_of_a_tilt_is_that_of_the_alignment_record() {
        // rx turns y (down) towards z, ry turns z towards x; y is up here
        let go = |tilt_rad, p| {
            Motion {
                tilt_rad,
                ..Motion::default()
            }
            .apply(p)
        };
        assert!(go([0.1, 0.0], [0.0, -1.0, 0.0])[2] > 0.09);
        assert!(go([0.0, 0.1], [0.0, 0.0, 1.0])[0] > 0.09);
    }
}
