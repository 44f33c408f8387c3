//! A flat test object of 1280 ellipses: the modified Shepp-Logan head with small discs, pores and two layers of woven cloth.
//!
//! Its dimensions are shares of half the detector width, so that one object serves every size; as a phantom it is
//! endless along z with values in 1/px. Sinograms come from [`super::PhantomScan`] or [`super::Projector`].

use std::f64::consts::PI;

use super::{Object, Phantom, Profile, SplitMix64};

/// Seed of the object that comparisons with other programs use.
pub const SEED: u64 = 20_261_121;
/// Offset of the rotation axis from the detector middle in those comparisons \[px\].
pub const AXIS_OFFSET_PX: f64 = 7.3;
/// Leaves room for the offset axis.
const SCALE: f64 = 0.95;

/// Modified Shepp-Logan head (Toft 1996): value, a, b, x, y, direction in degrees.
const HEAD: [[f64; 6]; 10] = [
    [1.0, 0.69, 0.92, 0.0, 0.0, 0.0],
    [-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0],
    [-0.2, 0.11, 0.31, 0.22, 0.0, -18.0],
    [-0.2, 0.16, 0.41, -0.22, 0.0, 18.0],
    [0.1, 0.21, 0.25, 0.0, 0.35, 0.0],
    [0.1, 0.046, 0.046, 0.0, 0.1, 0.0],
    [0.1, 0.046, 0.046, 0.0, -0.1, 0.0],
    [0.1, 0.046, 0.023, -0.08, -0.605, 0.0],
    [0.1, 0.023, 0.023, 0.0, -0.606, 0.0],
    [0.1, 0.023, 0.046, 0.06, -0.605, 0.0],
];

/// An ellipse in units of half the detector width.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ellipse {
    /// Centre, y up.
    pub centre: [f64; 2],
    /// Semi-axes.
    pub semi: [f64; 2],
    /// Direction of the first semi-axis \[rad\].
    pub phi: f64,
    /// Attenuation per half detector width.
    pub value: f64,
}

/// The standard object on a detector of `n_cols` pixels, values in 1/px: an ideal reconstruction has the scale 1.
#[must_use]
pub fn peers(n_cols: usize) -> Phantom {
    phantom(n_cols, SEED, 0.0)
}

/// The object of another seed, or at another `height` (0 to 1), which moves discs and cloth a little.
#[must_use]
pub fn phantom(n_cols: usize, seed: u64, height: f64) -> Phantom {
    let pixels = n_cols as f64 / 2.0;
    let endless = Profile::Column {
        up: f64::INFINITY,
        down: f64::INFINITY,
        edge: 0.0,
    };
    Phantom::new(
        ellipses(seed, height)
            .into_iter()
            .map(|ellipse| Object {
                value: ellipse.value / pixels,
                centre: [ellipse.centre[0] * pixels, ellipse.centre[1] * pixels, 0.0],
                semi: ellipse.semi.map(|semi| semi * pixels),
                phi: ellipse.phi,
                lean: [0.0; 2],
                profile: endless,
            })
            .collect(),
    )
}

/// The ellipses, in the order in which the generator places them.
#[must_use]
pub fn ellipses(seed: u64, height: f64) -> Vec<Ellipse> {
    let mut out: Vec<Ellipse> = HEAD
        .iter()
        .map(|&[value, a, b, x, y, degrees]| Ellipse {
            centre: [x, y],
            semi: [a, b],
            phi: degrees.to_radians(),
            value,
        })
        .collect();
    let mut g = SplitMix64::new(seed);
    place_discs(&mut g, height, &mut out);
    for layer in 0..2 {
        weave(&mut g, f64::from(layer), height, &mut out);
    }
    for ellipse in &mut out {
        ellipse.centre = ellipse.centre.map(|v| v * SCALE);
        ellipse.semi = ellipse.semi.map(|v| v * SCALE);
    }
    out
}

/// Forty discs that do not touch, some of them pores.
fn place_discs(g: &mut SplitMix64, height: f64, out: &mut Vec<Ellipse>) {
    let mut placed: Vec<[f64; 3]> = Vec::new();
    while placed.len() < 40 {
        let r = g.log_uniform(0.004, 0.045);
        let (x, y) = (g.uniform(-0.58, 0.58), g.uniform(-0.8, 0.78));
        let mut value = 0.15 + 0.5 * g.uniform(0.0, 1.0);
        let pore = g.uniform(0.0, 1.0) > 0.8;
        let (vx, vy) = (g.uniform(-0.06, 0.06), g.uniform(-0.06, 0.06));
        let outside = (x / 0.60).powi(2) + ((y + 0.0184) / 0.80).powi(2) > 0.9;
        let in_cloth = -0.46 < y && y < -0.16;
        let touches = placed
            .iter()
            .any(|q| (x - q[0]).powi(2) + (y - q[1]).powi(2) < (r + q[2] + 0.012).powi(2));
        if outside || in_cloth || touches {
            continue;
        }
        let clear_of_ventricles = HEAD[2..4].iter().all(|&[_, a, b, x0, y0, degrees]| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            let (dx, dy) = (x - x0, y - y0);
            (dx * cos + dy * sin).hypot((dy * cos - dx * sin) * a / b) > a + r + 0.08
        });
        if pore && clear_of_ventricles {
            // nothing goes below zero
            value = -0.18;
        }
        placed.push([x, y, r]);
        out.push(Ellipse {
            centre: [x + vx * height, y + vy * height],
            semi: [r, r],
            phi: 0.0,
            value,
        });
    }
}

/// One layer of cloth: tows across the slice are ellipses filled with fibre ends, tows along it wavy chains of circles.
fn weave(g: &mut SplitMix64, layer: f64, height: f64, out: &mut Vec<Ellipse>) {
    let (fibre, pitch) = (0.0055, 0.0125);
    let yc = -0.25 - 0.115 * layer;
    for tow in 0..6 {
        let xc = -0.45 + 0.18 * f64::from(tow) + 0.05 * layer + 0.03 * height;
        let up = if (tow + layer as i32) % 2 == 0 {
            1.0
        } else {
            -1.0
        };
        for i in -8..=8 {
            for j in -5..=5i32 {
                let x = pitch * (f64::from(i) + 0.5 * f64::from(j & 1));
                let y = pitch * 0.866_025_403_784_438_6 * f64::from(j);
                let (jx, jy) = (g.uniform(-0.0016, 0.0016), g.uniform(-0.0016, 0.0016));
                let r = fibre * g.uniform(0.85, 1.1);
                if (x / 0.078).powi(2) + (y / 0.031).powi(2) < 1.0 {
                    let centre = [xc + x + jx, yc + up * 0.026 + y + jy];
                    out.push(Ellipse {
                        centre,
                        semi: [r, r],
                        phi: 0.0,
                        value: 0.35,
                    });
                }
            }
        }
    }
    for line in 0..3 {
        for k in 0..95 {
            let x = -0.54 + 1.08 * f64::from(k) / 94.0;
            let phase = PI * (x + 0.45 - 0.05 * layer - 0.03 * height) / 0.18;
            let sign = if layer == 0.0 { -1.0 } else { 1.0 };
            let y = yc + sign * 0.036 * phase.cos() + f64::from(line - 1) * 0.0118;
            let jy = g.uniform(-0.0008, 0.0008);
            out.push(Ellipse {
                centre: [x, y + jy],
                semi: [fibre, fibre],
                phi: 0.0,
                value: 0.3,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phantom::PhantomScan;
    use crate::reconstruct::geometry::Grid;
    use crate::scan::SinogramSource;

    // all expected values come from the same object written in Python (numpy, f64)

    #[test]
    fn the_ellipses_are_those_of_the_other_programs() {
        let all = ellipses(SEED, 0.0);
        assert_eq!(all.len(), 1280);
        let sum = |all: &[Ellipse]| -> f64 {
            all.iter()
                .map(|e| {
                    let [x, y] = e.centre.map(f64::abs);
                    x + y + e.semi[0] + e.semi[1] + e.phi.abs() + e.value.abs()
                })
                .sum()
        };
        assert!((sum(&all) - 1_141.217_200_589_636_6).abs() < 1e-9);
        assert!((sum(&ellipses(SEED, 0.5)) - 1_141.743_607_743_57).abs() < 1e-9);
        assert!(
            (sum(&ellipses(SEED + 1, 0.0)) - 1_141.217_200_589_636_6).abs() > 0.01,
            "the check is blind"
        );
        assert!((all[10].centre[0] + 0.107_550_248_993_179_55).abs() < 1e-14);
        assert!((all[50].semi[0] - 0.005_347_264_846_229_565).abs() < 1e-14);
    }

    #[test]
    fn sinogram_and_truth_are_those_of_the_other_programs() {
        let mut scan = PhantomScan::half_turn(peers(64), 9, 1, 64);
        scan.axis_px += AXIS_OFFSET_PX;
        let sinogram = scan.sinogram(0).unwrap();
        let expected = [
            (0, 30, 0.323_214_295_914_827_8),
            (1, 21, 0.301_941_794_045_218_65),
            (3, 44, 0.267_359_089_033_131_4),
            (5, 38, 0.235_095_255_091_220_6),
            (8, 12, 0.0),
        ];
        for (angle, col, value) in expected {
            assert!(
                (f64::from(sinogram[[angle, col]]) - value).abs() < 1e-6,
                "{angle} {col}"
            );
        }
        assert!(
            (sinogram.iter().map(|v| f64::from(*v)).sum::<f64>() - 141.138_511_914_440_1).abs()
                < 1e-4
        );
        scan.axis_px += 0.1;
        let shifted = scan.projection(0, 0..1).unwrap();
        assert!(
            (f64::from(shifted[[0, 30]]) - expected[0].2).abs() > 1e-4,
            "the check is blind"
        );

        // 16 x 16 samples per voxel there, bands here: fibres of radius 0.17 px are caught to about a fifth of their area,
        // 0.3 * 0.09 / 5 < 0.01 of the unit 1/32 per pixel
        let mut truth = ndarray::Array3::<f32>::zeros((1, 64, 64));
        peers(64).add_voxels(0..1, 0.0, &Grid::square(64), truth.view_mut());
        let expected = [
            (20, 30, 0.005_749_5),
            (40, 33, 0.013_641_4),
            (31, 12, 0.006_25),
            (50, 40, 0.006_25),
        ];
        for (row, col, value) in expected {
            assert!(
                (f64::from(truth[[0, row, col]]) - value).abs() < 0.01 / 32.0,
                "{row} {col}"
            );
        }
        assert!(
            (truth.iter().map(|v| f64::from(*v)).sum::<f64>() - 15.982_788).abs() < 0.005 * 15.98
        );
    }
}
