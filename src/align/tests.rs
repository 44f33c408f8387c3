//! Known motions of analytic volumes, found back.
//!
//! The volumes are sums of Gaussian blobs, evaluated at the moved positions, so that no interpolation stands between
//! the truth and the answer.

use ndarray::{Array3, s};
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use rand_pcg::Pcg64Mcg;

use super::*;

/// A sample made of blobs within a cylinder, positions from the middle `[x, y, z]`.
#[derive(Clone)]
struct Sample {
    /// Position, standard deviation \[voxel\], height.
    blobs: Vec<([f64; 3], f64, f64)>,
    /// Radius, thickness (standard deviation) and height of a concentric wall.
    wall: Option<[f64; 3]>,
    /// Shift along x per slice above the middle.
    lean: f64,
    /// Solid grains: position, radius, height; their edge is as sharp as a scan's.
    grains: Vec<([f64; 3], f64, f64)>,
}

impl Sample {
    fn random(seed: u64, n: usize, half: [f64; 3]) -> Sample {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let blobs = (0..n)
            .map(|_| {
                let p = [0, 1, 2].map(|a| (2.0 * rng.random::<f64>() - 1.0) * half[a]);
                (
                    p,
                    1.3 + 1.7 * rng.random::<f64>(),
                    rng.random::<f64>() - 0.3,
                )
            })
            .collect();
        Sample {
            blobs,
            wall: None,
            lean: 0.0,
            grains: Vec::new(),
        }
    }

    /// The sample at `motion`, as a volume `[z, y, x]`.
    fn volume(&self, shape: [usize; 3], motion: &RigidMotion) -> Array3<f32> {
        let middle = shape.map(|n| (n as f64 - 1.0) / 2.0);
        let mut out = Array3::<f64>::zeros(shape);
        for &(p, sigma, height) in &self.blobs {
            let q = motion.apply(p);
            let q = [q[2] + middle[0], q[1] + middle[1], q[0] + middle[2]];
            let range = |a: usize| {
                let low = (q[a] - 5.0 * sigma).floor().max(0.0) as usize;
                low..((q[a] + 5.0 * sigma).ceil() + 1.0).clamp(0.0, shape[a] as f64) as usize
            };
            for z in range(0) {
                for y in range(1) {
                    for x in range(2) {
                        let leaned = x as f64 - self.lean * (z as f64 - middle[0]);
                        let d2 = (z as f64 - q[0]).powi(2)
                            + (y as f64 - q[1]).powi(2)
                            + (leaned - q[2]).powi(2);
                        out[[z, y, x]] += height * (-0.5 * d2 / (sigma * sigma)).exp();
                    }
                }
            }
        }
        for &(p, radius, height) in &self.grains {
            let q = motion.apply(p);
            for ((z, y, x), value) in out.indexed_iter_mut() {
                let d2 = (z as f64 - middle[0] - q[2]).powi(2)
                    + (y as f64 - middle[1] - q[1]).powi(2)
                    + (x as f64 - middle[2] - q[0]).powi(2);
                if d2 < (radius + 5.0).powi(2) {
                    *value += height / (1.0 + ((d2.sqrt() - radius) / 0.5).exp());
                }
            }
        }
        if let Some([radius, sigma, height]) = self.wall {
            for ((_, y, x), value) in out.indexed_iter_mut() {
                let d = (x as f64 - middle[2] - motion.shift[0])
                    .hypot(y as f64 - middle[1] - motion.shift[1]);
                *value += height * (-0.5 * ((d - radius) / sigma).powi(2)).exp();
            }
        }
        out.mapv(|v| v as f32)
    }
}

fn noisy(mut volume: Array3<f32>, sigma: f64, seed: u64) -> Array3<f32> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    volume.mapv_inplace(|v| v + (sigma * rng.sample::<f64, _>(StandardNormal)) as f32);
    volume
}

const SHAPE: [usize; 3] = [32, 56, 56];

fn sample(seed: u64) -> Sample {
    Sample::random(seed, 260, [36.0, 36.0, 24.0])
}

fn moved(shift: [f64; 3], turn_deg: f64) -> RigidMotion {
    RigidMotion::upright(shift, turn_deg.to_radians())
}

fn pair_of(sample: &Sample, other: &Sample, motion: &RigidMotion, noise: f64) -> PilotPair {
    PilotPair {
        reference: noisy(sample.volume(SHAPE, &RigidMotion::default()), noise, 11),
        target: noisy(other.volume(SHAPE, motion), noise, 12),
        binning: 1,
        radius: 27.0,
    }
}

fn config(method: AlignMethod) -> AlignConfig {
    AlignConfig {
        method,
        ..AlignConfig::default()
    }
}

fn worst(record: &AlignmentRecord, shift: [f64; 3]) -> f64 {
    (0..3)
        .map(|a| (record.shift_voxel[a] - shift[a]).abs())
        .fold(0.0, f64::max)
}

#[test]
fn a_fractional_shift_is_found_to_three_hundredths_at_realistic_noise() {
    for (seed, shift) in [
        (1, [0.4, -0.7, 0.3]),
        (2, [2.5, 1.5, -1.5]),
        (3, [-3.2, 0.1, 2.75]),
    ] {
        // the contrast (standard deviation) of the blobs is 0.06: twice the noise
        let pair = pair_of(&sample(seed), &sample(seed), &moved(shift, 0.0), 0.03);
        let found = register(&pair, &config(AlignMethod::Translation)).unwrap();
        let error = worst(&found, shift);
        eprintln!(
            "{shift:?}: {error:.4} voxel, stated {:?}, confidence {:.2}",
            found.shift_err_voxel, found.confidence
        );
        assert!(error < 0.03, "{found:?}");
        assert!(
            found.confidence > 0.9 && found.warnings.is_empty(),
            "{found:?}"
        );
        assert!(
            found.residual_after < 0.8 * found.residual_before,
            "{found:?}"
        );
        // control: the other sign is not the answer
        assert!(worst(&found, shift.map(|s| -s)) > 0.5);
    }
}

#[test]
fn without_noise_the_bias_of_interpolation_is_below_a_hundredth() {
    for fraction in [0.25, 0.5, 0.75] {
        let shift = [fraction, -fraction, fraction];
        let found = register(
            &pair_of(&sample(4), &sample(4), &moved(shift, 0.0), 0.0),
            &config(AlignMethod::Translation),
        )
        .unwrap();
        let error = worst(&found, shift);
        eprintln!("{fraction}: {error:.5}");
        assert!(error < 0.01, "{found:?}");
    }
}

#[test]
fn noise_pulls_the_shift_neither_to_whole_nor_to_half_voxels() {
    // twice as much noise as contrast; the mean over runs must stay within its own scatter
    let shift = [0.3, 0.3, 0.3];
    let mut errors = Vec::new();
    let mut pulls = Vec::new();
    for seed in 0..8 {
        let s = sample(20 + seed);
        let pair = PilotPair {
            reference: noisy(s.volume(SHAPE, &RigidMotion::default()), 0.1, 100 + seed),
            target: noisy(s.volume(SHAPE, &moved(shift, 0.0)), 0.1, 200 + seed),
            binning: 1,
            radius: 27.0,
        };
        let found = register(&pair, &config(AlignMethod::Translation)).unwrap();
        for ((value, truth), error) in found
            .shift_voxel
            .iter()
            .zip(shift)
            .zip(found.shift_err_voxel)
        {
            errors.push(value - truth);
            pulls.push((value - truth) / error);
        }
    }
    let n = errors.len() as f64;
    let mean = errors.iter().sum::<f64>() / n;
    let rms = (errors.iter().map(|e| e * e).sum::<f64>() / n).sqrt();
    let pull = (pulls.iter().map(|e| e * e).sum::<f64>() / n).sqrt();
    eprintln!("mean {mean:.4}, rms {rms:.4}, pull {pull:.2}");
    assert!(
        mean.abs() < 4.0 * rms / n.sqrt() && rms < 0.05,
        "mean {mean}, rms {rms}"
    );
    // 24 pulls: the spread of their root mean square is 1 / sqrt(48) = 0.14, four times that allowed
    assert!(
        pull > 0.45 && pull < 1.6,
        "the stated error must be the true one: pull {pull}"
    );
}

#[test]
fn large_shifts_are_found() {
    let shift = [12.3, -11.6, 6.4];
    let found = register(
        &pair_of(&sample(5), &sample(5), &moved(shift, 0.0), 0.03),
        &config(AlignMethod::Translation),
    )
    .unwrap();
    eprintln!("{found:?}");
    assert!(
        worst(&found, shift) < 0.05 && found.confidence > 0.5,
        "{found:?}"
    );
    // control: a search that ends before the shift must say so or doubt itself
    let narrow = AlignConfig {
        search: 0.1,
        ..config(AlignMethod::Translation)
    };
    let lost = register(
        &pair_of(&sample(5), &sample(5), &moved(shift, 0.0), 0.03),
        &narrow,
    )
    .unwrap();
    assert!(!lost.warnings.is_empty(), "{lost:?}");
}

#[test]
fn a_tenth_of_the_volume_may_change() {
    let shift = [1.3, -0.6, 0.8];
    let before = sample(6);
    let mut after = before.clone();
    // grains five times as strong as the structure appear on one side, some of the structure vanishes
    for k in 0..14 {
        let p = [
            6.0 + 2.2 * f64::from(k % 6),
            -16.0 + 5.0 * f64::from(k % 7),
            -12.0 + 1.9 * f64::from(k),
        ];
        after.grains.push((p, 5.2, 0.3));
    }
    after.blobs.drain(0..13);
    let changed = after.grains.len() as f64 * 4.0 / 3.0 * std::f64::consts::PI * 5.2f64.powi(3);
    assert!(changed / (32.0 * std::f64::consts::PI * 27.0 * 27.0) > 0.1);
    let found = register(
        &pair_of(&before, &after, &moved(shift, 0.0), 0.03),
        &config(AlignMethod::Translation),
    )
    .unwrap();
    eprintln!("{found:?}");
    assert!(
        worst(&found, shift) < 0.05 && found.confidence > 0.7,
        "{found:?}"
    );
}

#[test]
fn grey_values_may_differ_in_gain_and_offset() {
    let shift = [0.6, 1.2, -0.4];
    let mut pair = pair_of(&sample(7), &sample(7), &moved(shift, 0.0), 0.05);
    pair.target.mapv_inplace(|v| 1.4 * v + 3.0);
    let found = register(&pair, &config(AlignMethod::Translation)).unwrap();
    assert!(
        worst(&found, shift) < 0.03 && found.confidence > 0.9,
        "{found:?}"
    );
}

#[test]
fn a_turn_is_found_with_the_shift() {
    for (shift, turn) in [
        ([1.3, -0.8, 0.6], 7.3),
        ([-0.4, 2.2, -1.1], -23.0),
        ([0.2, 0.3, 0.0], 0.35),
    ] {
        let pair = pair_of(&sample(8), &sample(8), &moved(shift, turn), 0.03);
        let found = register(&pair, &config(AlignMethod::Rigid)).unwrap();
        eprintln!(
            "{turn}: {:.4} voxel, {:.4} deg, confidence {:.2}",
            worst(&found, shift),
            found.rotation_deg[2] - turn,
            found.confidence
        );
        // shifts are known to 0.01 voxel here, so turns to 0.01 / 14 (mean distance from the axis) = 0.04 degrees
        assert!(
            worst(&found, shift) < 0.03 && (found.rotation_deg[2] - turn).abs() < 0.12,
            "{found:?}"
        );
        assert!(
            found.confidence > 0.8 && found.warnings.is_empty(),
            "{found:?}"
        );
        assert!(
            (found.rotation_deg[2] + turn).abs() > 0.5,
            "control: the turn has a sign"
        );
    }
}

#[test]
fn a_turn_that_a_translation_cannot_follow_is_said() {
    let pair = pair_of(&sample(9), &sample(9), &moved([0.5, 0.0, 0.0], 1.5), 0.1);
    let found = register(&pair, &config(AlignMethod::Translation)).unwrap();
    assert!(
        found.warnings.iter().any(|w| w.contains("rigid")),
        "{found:?}"
    );
}

#[test]
fn a_sample_that_leans_is_said() {
    let still = sample(10);
    let leaning = Sample {
        lean: 0.06,
        ..still.clone()
    };
    let found = register(
        &pair_of(&still, &leaning, &RigidMotion::default(), 0.03),
        &config(AlignMethod::Translation),
    )
    .unwrap();
    eprintln!("{:?}", found.per_height);
    assert!(
        found
            .warnings
            .iter()
            .any(|w| w.contains("heights disagree")),
        "{found:?}"
    );
    for [z, dx, _, _] in &found.per_height {
        // the structure of six slices has its weight up to two slices off their middle
        let allowed = 0.06 * 2.0 + 0.04;
        assert!(
            (dx + found.shift_voxel[0] - 0.06 * (z - 15.5)).abs() < allowed,
            "at {z}: {dx}"
        );
    }
}

#[test]
fn slices_that_were_not_reconstructed_do_not_pull() {
    let shift = [0.7, -1.2, 3.6];
    let mut pair = pair_of(&sample(11), &sample(11), &moved(shift, 0.0), 0.03);
    pair.target.slice_mut(s![0..4, .., ..]).fill(0.0);
    pair.target.slice_mut(s![30.., .., ..]).fill(f32::NAN);
    let found = register(&pair, &config(AlignMethod::Translation)).unwrap();
    assert!(
        worst(&found, shift) < 0.04 && found.confidence > 0.8,
        "{found:?}"
    );
}

#[test]
fn neither_the_edge_of_the_field_of_view_nor_a_wall_draws_the_shift() {
    let shift = [3.4, -2.3, 1.2];
    let mut tube = sample(12);
    tube.wall = Some([19.0, 1.5, 3.0]);
    let mut pair = pair_of(&tube, &tube, &moved(shift, 0.0), 0.03);
    for volume in [&mut pair.reference, &mut pair.target] {
        for ((_, y, x), value) in volume.indexed_iter_mut() {
            let d = (x as f64 - 27.5).hypot(y as f64 - 27.5);
            // local tomography: bright rim inside, nothing outside, neither moves
            if d > 27.0 {
                *value = 0.0;
            } else {
                *value += 5.0 + 0.5 * ((d - 27.0) / 4.0).exp() as f32;
            }
        }
    }
    let found = register(&pair, &config(AlignMethod::Translation)).unwrap();
    eprintln!("{:?} {:?}", found.shift_voxel, found.shift_err_voxel);
    // the bright rim that stands still is a change like any other: a tenth of a voxel is allowed to it
    assert!(
        worst(&found, shift) < 0.1 && found.confidence > 0.5,
        "{found:?}"
    );
}

#[test]
fn unrelated_volumes_are_not_believed() {
    for seed in 0..2 {
        for method in [AlignMethod::Translation, AlignMethod::Rigid] {
            let pair = pair_of(
                &sample(30 + seed),
                &sample(60 + seed),
                &RigidMotion::default(),
                0.05,
            );
            let found = register(&pair, &config(method)).unwrap();
            eprintln!(
                "{method:?}: {:.2} {:?}",
                found.confidence, found.shift_voxel
            );
            assert!(found.confidence < 0.3, "{found:?}");
            assert!(
                found.warnings.iter().any(|w| w.contains("low confidence")),
                "{found:?}"
            );
        }
    }
    // a narrow search leaves chance fewer tries but no more truth
    let pair = pair_of(&sample(33), &sample(63), &RigidMotion::default(), 0.05);
    let found = register(
        &pair,
        &AlignConfig {
            search: 0.05,
            ..config(AlignMethod::Translation)
        },
    )
    .unwrap();
    assert!(found.confidence < 0.3, "{found:?}");
}

#[test]
fn empty_or_constant_volumes_are_not_believed() {
    let pair = PilotPair {
        reference: Array3::zeros(SHAPE),
        target: Array3::zeros(SHAPE),
        binning: 2,
        radius: 27.0,
    };
    let found = register(&pair, &config(AlignMethod::Rigid)).unwrap();
    assert!(
        found.confidence == 0.0 && found.shift_voxel == [0.0; 3] && !found.warnings.is_empty(),
        "{found:?}"
    );
    let noise = PilotPair {
        reference: noisy(Array3::zeros(SHAPE), 1.0, 1),
        target: noisy(Array3::zeros(SHAPE), 1.0, 2),
        binning: 1,
        radius: 27.0,
    };
    let found = register(&noise, &config(AlignMethod::Translation)).unwrap();
    assert!(found.confidence < 0.1, "{found:?}");
}

#[test]
fn a_rotationally_symmetric_sample_says_nothing_about_the_turn() {
    let shift = [1.4, -0.9, 0.7];
    let mut tube = Sample {
        blobs: Vec::new(),
        wall: Some([15.0, 1.5, 2.0]),
        lean: 0.0,
        grains: Vec::new(),
    };
    // discs on the axis: structure along z, none around it
    for (z, height) in [(-9.0, 1.0), (-2.0, -0.7), (3.0, 1.2), (10.0, 0.8)] {
        tube.blobs.push(([0.0, 0.0, z], 3.0, height));
    }
    let found = register(
        &pair_of(&tube, &tube, &moved(shift, 0.0), 0.05),
        &config(AlignMethod::Rigid),
    )
    .unwrap();
    eprintln!("{found:?}");
    assert!(
        found.warnings.iter().any(|w| w.contains("symmetric")),
        "{found:?}"
    );
    assert!(
        found.rotation_deg == [0.0; 3] && worst(&found, shift) < 0.05,
        "{found:?}"
    );
}

#[test]
fn volumes_of_noise_are_left_where_they_stand() {
    let nothing = Sample {
        blobs: Vec::new(),
        ..sample(1)
    };
    for method in [AlignMethod::Translation, AlignMethod::Rigid] {
        let pair = pair_of(&nothing, &nothing, &RigidMotion::default(), 1.0);
        let found = register(&pair, &config(method)).unwrap();
        eprintln!("{method:?}: {found:?}");
        assert_eq!(found.shift_voxel, [0.0; 3], "{found:?}");
        assert_eq!(found.rotation_deg, [0.0; 3], "{found:?}");
        assert!(
            found.confidence < 0.3 && !found.warnings.is_empty(),
            "{found:?}"
        );
    }
}

#[test]
fn small_pilots_work() {
    for (shape, shift) in [
        ([8, 48, 48], [1.6, -0.7, 0.4]),
        ([24, 64, 64], [0.3, 0.9, -2.2]),
        ([2, 48, 48], [1.2, 0.4, 0.0]),
    ] {
        let s = sample(13);
        let pair = PilotPair {
            reference: noisy(s.volume(shape, &RigidMotion::default()), 0.05, 1),
            target: noisy(s.volume(shape, &moved(shift, 0.0)), 0.05, 2),
            binning: 1,
            radius: 23.0,
        };
        let found = register(&pair, &config(AlignMethod::Translation)).unwrap();
        eprintln!(
            "{shape:?}: {:?} {:?} {:.2}",
            found.shift_voxel, found.shift_err_voxel, found.confidence
        );
        // two slices hold a tenth of the voxels
        let allowed = if shape[0] < 4 { 0.15 } else { 0.08 };
        assert!(
            worst(&found, shift) < allowed && found.confidence > 0.5,
            "{found:?}"
        );
    }
}

#[test]
fn several_levels_lead_to_the_finest() {
    let shape = [20, 136, 140];
    let s = Sample::random(14, 900, [75.0, 75.0, 14.0]);
    let motion = moved([9.4, -13.3, 1.7], 4.2);
    let pair = PilotPair {
        reference: noisy(s.volume(shape, &RigidMotion::default()), 0.03, 1),
        target: noisy(s.volume(shape, &motion), 0.03, 2),
        binning: 3,
        radius: 66.0,
    };
    let found = register(&pair, &config(AlignMethod::Rigid)).unwrap();
    eprintln!("{found:?}");
    // shifts are in voxels of the full volume
    assert!(
        worst(&found, motion.shift.map(|v| 3.0 * v)) < 3.0 * 0.03,
        "{found:?}"
    );
    assert!((found.rotation_deg[2] - 4.2).abs() < 0.02, "{found:?}");
}

#[test]
fn what_nothing_fixes_is_left_alone_and_said() {
    let noise = |seed| noisy(Array3::zeros(SHAPE), 1.0, seed);
    let cylinder = |seed, shift: f64| {
        let [n_z, n_y, n_x] = SHAPE;
        let volume = Array3::from_shape_fn((n_z, n_y, n_x), |(_, y, x)| {
            let r = (x as f64 - 27.5 - shift).hypot(y as f64 - 27.5);
            1.0 / (1.0 + ((r - 20.0) / 0.7).exp()) as f32
        });
        noisy(volume, 0.05, seed)
    };
    let cases = [
        ("noise", [noise(1), noise(2)], 0.0, [true; 3]),
        (
            "cylinder",
            [cylinder(3, 0.0), cylinder(4, 1.3)],
            1.3,
            [false, false, true],
        ),
    ];
    for (name, [reference, target], shift, unknown) in cases {
        let pair = PilotPair {
            reference,
            target,
            binning: 1,
            radius: 27.0,
        };
        for method in [AlignMethod::Translation, AlignMethod::Rigid] {
            let found = register(&pair, &config(method)).unwrap();
            assert!(found.confidence < 0.3, "{name}: {found:?}");
            let said = |word: &str| found.warnings.iter().any(|text| text.contains(word));
            assert!(said("low confidence"), "{name}: {found:?}");
            for (axis, unknown) in unknown.into_iter().enumerate() {
                let letter = ["x", "y", "z"][axis];
                if unknown {
                    assert!(
                        said(&format!("hardly fix the shift along {letter}")),
                        "{name}: {found:?}"
                    );
                    assert_eq!(found.shift_voxel[axis], 0.0, "{name}: {found:?}");
                }
            }
            assert!(
                (found.shift_voxel[0] - shift).abs() < 0.05,
                "{name}: {found:?}"
            );
        }
    }
}

#[test]
fn only_the_outermost_shift_of_the_search_is_at_its_limit() {
    // 18 slices and a quarter of them: up to 5 slices are searched
    let (first, other) = (sample(31), sample(31));
    let cut = |volume: Array3<f32>| volume.slice(ndarray::s![7..25, .., ..]).to_owned();
    for (z, at_limit) in [(-3.0, false), (4.2, false), (4.9, true)] {
        let pair = pair_of(&first, &other, &moved([1.3, -0.6, z], 0.0), 0.05);
        let pair = PilotPair {
            reference: cut(pair.reference),
            target: cut(pair.target),
            ..pair
        };
        let record = register(&pair, &config(AlignMethod::Translation)).unwrap();
        assert!(worst(&record, [1.3, -0.6, z]) < 0.1, "{record:?}");
        let said = record
            .warnings
            .iter()
            .any(|text| text.contains("limit of the search"));
        assert_eq!(said, at_limit, "{z}: {:?}", record.warnings);
    }
}

#[test]
fn what_is_given_is_not_searched() {
    let shift = [0.5, -1.0, 2.0];
    let pair = pair_of(&sample(15), &sample(15), &moved(shift, 0.0), 0.01);
    let by_hand = AlignConfig {
        shift: Some(shift),
        ..config(AlignMethod::Translation)
    };
    let found = register(&pair, &by_hand).unwrap();
    assert!(
        found.method == "given"
            && found.shift_voxel == shift
            && found.residual_after < 0.6 * found.residual_before
    );
    let none = register(&pair, &config(AlignMethod::None)).unwrap();
    assert!(
        none.method == "none"
            && none.shift_voxel == [0.0; 3]
            && none.residual_after == none.residual_before
    );
    // all six by hand: the pair is judged with them
    let motion = RigidMotion {
        tilt: [0.01, -0.015],
        ..moved([0.4, -0.3, 0.6], 1.0)
    };
    let pair = pair_of(&sample(15), &sample(15), &motion, 0.01);
    let tilted = AlignConfig {
        shift: Some(motion.shift),
        rotation: Some([motion.tilt[0], motion.tilt[1], motion.turn].map(f64::to_degrees)),
        ..config(AlignMethod::Rigid)
    };
    let found = register(&pair, &tilted).unwrap();
    let upright = AlignConfig {
        rotation: Some([0.0, 0.0, 1.0]),
        ..tilted
    };
    let control = register(&pair, &upright).unwrap();
    assert!(
        found.residual_after < 0.95 * control.residual_after,
        "{found:?} {control:?}"
    );
}

#[test]
fn all_six_degrees_of_freedom_are_found_together() {
    let shape = [48, 72, 72];
    for (seed, shift, turn, tilt) in [
        (40, [1.3, -0.8, 0.6], 1.7, [0.2, -0.35]),
        (41, [-0.4, 2.2, -1.1], -0.4, [-0.1, 0.2]),
    ] {
        let motion = RigidMotion {
            shift,
            turn: f64::to_radians(turn),
            tilt: tilt.map(f64::to_radians),
        };
        let s = Sample::random(seed, 700, [42.0, 42.0, 32.0]);
        let pair = PilotPair {
            reference: noisy(s.volume(shape, &RigidMotion::default()), 0.03, seed),
            target: noisy(s.volume(shape, &motion), 0.03, 100 + seed),
            binning: 1,
            radius: 35.0,
        };
        let found = register(&pair, &config(AlignMethod::Rigid)).unwrap();
        let expected = [tilt[0], tilt[1], turn];
        let off: Vec<f64> = (0..3)
            .map(|k| found.rotation_deg[k] - expected[k])
            .collect();
        eprintln!(
            "{seed}: {:.4} voxel, {off:.4?} deg, stated {:.4?}",
            worst(&found, shift),
            found.rotation_err_deg
        );
        // shifts are known to 0.01 voxel here, so angles to 0.01 / 18 (mean distance) = 0.03 degrees
        assert!(
            worst(&found, shift) < 0.03 && off.iter().all(|d| d.abs() < 0.06),
            "{found:?}"
        );
        assert!(
            found.warnings.iter().all(|text| text.contains("tilted by")),
            "{found:?}"
        );
        // control: without the tilt the heights disagree, or the residual is larger
        let upright = AlignConfig {
            max_tilt_deg: 0.0,
            ..config(AlignMethod::Rigid)
        };
        let control = register(&pair, &upright).unwrap();
        assert!(control.residual_after > found.residual_after, "{control:?}");
    }
    // a tilt that is not there is not found, one that is too large is said and not taken
    let s = sample(43);
    for (tilt, largest) in [(0.0, 0.5), (2.0, 0.5)] {
        let motion = RigidMotion {
            tilt: [f64::to_radians(tilt), 0.0],
            ..moved([0.5, 0.0, 0.0], 0.0)
        };
        let pair = PilotPair {
            reference: noisy(s.volume(SHAPE, &RigidMotion::default()), 0.05, 1),
            target: noisy(s.volume(SHAPE, &motion), 0.05, 2),
            binning: 1,
            radius: 27.0,
        };
        let limited = AlignConfig {
            max_tilt_deg: largest,
            ..config(AlignMethod::Rigid)
        };
        let found = register(&pair, &limited).unwrap();
        assert_eq!(found.rotation_deg[..2], [0.0, 0.0], "{found:?}");
        assert_eq!(
            found
                .warnings
                .iter()
                .any(|text| text.contains("max_tilt_deg")),
            tilt > largest,
            "{found:?}"
        );
    }
}

#[test]
fn different_shapes_are_an_error() {
    let pair = PilotPair {
        reference: Array3::zeros((4, 5, 6)),
        target: Array3::zeros((4, 5, 7)),
        binning: 1,
        radius: 3.0,
    };
    let error = register(&pair, &AlignConfig::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("[4, 5, 6]") && error.contains("[4, 5, 7]"),
        "{error}"
    );
}

#[test]
fn the_answer_does_not_depend_on_the_number_of_threads() {
    let pair = pair_of(&sample(16), &sample(16), &moved([0.5, 1.5, -0.5], 2.0), 0.1);
    let with = |n: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build()
            .unwrap();
        pool.install(|| register(&pair, &config(AlignMethod::Rigid)).unwrap())
    };
    assert_eq!(with(1), with(3));
}

/// scikit-image moves its 3-D image cyclically by (0.7, -1.55, 3.2) in z, y, x and finds it to 0.12 voxel.
#[test]
fn the_golden_pair_is_registered_better_than_by_phase_correlation() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/goldens");
    let read = |name: &str| -> Option<Vec<f32>> {
        let file = std::fs::File::open(folder.join(name)).ok()?;
        npyz::NpyFile::new(std::io::BufReader::new(file))
            .ok()?
            .into_vec::<f32>()
            .ok()
    };
    let (Some(reference), Some(target), Some(golden)) = (
        read("in_ref3d.npy"),
        read("in_mov3d.npy"),
        read("out_pcc3d_2.npy"),
    ) else {
        eprintln!("SKIPPED: no ../shared/goldens");
        return;
    };
    let shape = (24, 28, 30);
    let pair = PilotPair {
        reference: Array3::from_shape_vec(shape, reference).unwrap(),
        target: Array3::from_shape_vec(shape, target).unwrap(),
        binning: 1,
        radius: 14.0,
    };
    let truth = [3.2, -1.55, 0.7];
    let found = register(&pair, &config(AlignMethod::Translation)).unwrap();
    let theirs = (0..3)
        .map(|a| (-f64::from(golden[2 - a]) - truth[a]).abs())
        .fold(0.0, f64::max);
    eprintln!("{found:?}, phase correlation is {theirs:.3} off");
    assert!(worst(&found, truth) < theirs, "{found:?}");
    assert!(
        (0..3).all(|a| (found.shift_voxel[a] + f64::from(golden[2 - a])).abs() < theirs + 0.06),
        "{found:?}"
    );
}
