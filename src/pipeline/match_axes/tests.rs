//! Gaussian balls, whose projections are Gaussians: every line integral is exact.

use std::ops::Range;

use ndarray::{Array2, Array3};

use super::*;
use crate::center::AxisFit;
use crate::config::ReconstructConfig;
use crate::scan::{Shifts, Sinograms};

const ROWS: usize = 36;
const COLS: usize = 72;
const MIDDLE: f64 = (ROWS as f64 - 1.0) / 2.0;

/// Numbers in -1..1 that follow from their index.
fn random(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// `[x, y, z, sigma, amplitude]`, y down, z from the middle slice.
type Ball = [f64; 5];

fn balls(seed: u64, reach: f64) -> Vec<Ball> {
    let mut next = random(seed);
    (0..60)
        .map(|_| {
            let (r, a) = (reach * next().abs().sqrt(), 3.2 * next());
            let z = MIDDLE * next();
            [
                r * a.cos(),
                r * a.sin(),
                z,
                1.6 + 0.6 * next(),
                0.3 * next(),
            ]
        })
        .collect()
}

/// One scan of balls.
struct Scan {
    balls: Vec<Ball>,
    angles: Vec<f64>,
    /// As it is.
    axis: AxisFit,
    /// As it is.
    motion: Motion,
    shifts: Option<Shifts>,
    noise: f64,
    seed: u64,
}

fn axis(axis_px: f64, slope_px_per_row: f64) -> AxisFit {
    AxisFit {
        axis_px,
        slope_px_per_row,
        middle_row: MIDDLE,
        uncertainty_px: 0.05,
        ..AxisFit::default()
    }
}

fn half_turn(n: usize) -> Vec<f64> {
    (0..n)
        .map(|k| std::f64::consts::PI * k as f64 / n as f64)
        .collect()
}

impl Scan {
    fn of(balls: Vec<Ball>, axis: AxisFit, motion: Motion, seed: u64) -> Scan {
        Scan {
            balls,
            angles: half_turn(90),
            axis,
            motion,
            shifts: None,
            noise: 0.005,
            seed,
        }
    }

    /// How the program takes it: with the axis `found`.
    fn geometry(&self, found: AxisFit) -> ScanGeometry {
        let config = ReconstructConfig::default();
        let shape = [ROWS, COLS];
        ScanGeometry::of_parts(
            &self.angles,
            shape,
            self.shifts.as_ref(),
            &found,
            &(0..ROWS),
            &config,
        )
        .unwrap()
    }
}

impl SinogramSource for Scan {
    fn n_rows(&self) -> usize {
        ROWS
    }
    fn n_cols(&self) -> usize {
        COLS
    }
    fn angles_rad(&self) -> &[f64] {
        &self.angles
    }
    fn shifts(&self) -> Option<&Shifts> {
        self.shifts.as_ref()
    }
    fn sinograms(&self, rows: Range<usize>) -> crate::error::Result<Sinograms> {
        let mut out = Array3::zeros((rows.len(), self.angles.len(), COLS));
        for (angle, theta) in self.angles.iter().enumerate() {
            let view = self.projection(angle, rows.clone())?;
            assert!(theta.is_finite());
            for row in 0..rows.len() {
                out.slice_mut(s![row, angle, ..]).assign(&view.row(row));
            }
        }
        Ok(out)
    }
    fn projection(&self, angle: usize, rows: Range<usize>) -> crate::error::Result<Array2<f32>> {
        let m = self.motion;
        let (sin, cos) = self.angles[angle].sin_cos();
        let (sin_turn, cos_turn) = m.in_plane.rotation_rad.sin_cos();
        let [moved_x, moved_z] = self
            .shifts
            .as_ref()
            .map_or([0.0; 2], |s| [s.x_px[angle], s.z_px[angle]]);
        let mut out = Array2::<f64>::zeros((rows.len(), COLS));
        for &[x, y, z, sigma, amplitude] in &self.balls {
            let [rx, ry] = m.tilt_rad;
            let (x, y, z) = (x + ry * z, y - rx * z, z + rx * y - ry * x);
            let (x, y) = (
                cos_turn * x - sin_turn * y + m.in_plane.shift_x_px,
                sin_turn * x + cos_turn * y + m.in_plane.shift_y_px,
            );
            let from_axis = x * cos - y * sin + moved_x;
            let row_of = z + MIDDLE + m.shift_z_px + moved_z;
            for (k, row) in rows.clone().enumerate() {
                let down = (row as f64 - row_of) / sigma;
                if down.abs() > 5.0 {
                    continue;
                }
                let centre = self.axis.at(row as f64) + from_axis;
                for col in 0..COLS {
                    let d = (col as f64 - centre) / sigma;
                    if d.abs() < 5.0 {
                        out[[k, col]] += amplitude * (-0.5 * (d * d + down * down)).exp();
                    }
                }
            }
        }
        for (k, row) in rows.enumerate() {
            let mut next = random(self.seed + (angle * ROWS + row) as u64 * 7919);
            for col in 0..COLS {
                out[[k, col]] += self.noise * (next() + next() + next());
            }
        }
        Ok(out.mapv(|v| v as f32))
    }
}

/// The correction for the axis `found` of the target, if the motion is taken for `motion`.
fn correction(
    reference: &Scan,
    target: &Scan,
    found: AxisFit,
    motion: Motion,
) -> Option<AxisCorrection> {
    let of_reference = reference.geometry(reference.axis.clone());
    let of_target = target.geometry(found);
    let seen = |source, geometry, motion| Seen {
        source,
        geometry,
        motion,
        at_once: 5,
    };
    find(
        &seen(reference, &of_reference, reference.motion),
        &seen(target, &of_target, motion),
        &(0..ROWS),
    )
    .unwrap()
}

fn moved(shift: [f64; 3], turn_deg: f64) -> Motion {
    Motion::from_alignment(shift, turn_deg)
}

/// The error of the axis and of its lean at the ends, and the stated ones; the truth is `axis(37.1, 0.004)`, found at 36.93 and level.
fn errors(reference: &Scan, target: &Scan, motion: Motion) -> [f64; 4] {
    let found = correction(reference, target, axis(36.93, 0.0), motion).expect("an answer");
    let off = found.at(MIDDLE) - 0.17;
    let half = ROWS as f64 / 2.0;
    [
        off,
        half * (found.slope_px_per_row - 0.004),
        found.axis_err_px,
        half * found.slope_err_px_per_row,
    ]
}

#[test]
fn an_axis_and_its_lean_are_found_against_the_reference_whatever_changed() {
    let mut pulls = Vec::new();
    for seed in 1..=6 {
        let all = balls(seed, 28.0);
        let reference = Scan::of(
            all.clone(),
            axis(35.4, 0.001),
            Motion::default(),
            100 * seed,
        );
        let truth = moved([0.43, -1.28, 2.31], 0.0);
        // a tenth is gone, a tenth is new
        let mut changed = all[6..].to_vec();
        changed.extend_from_slice(&balls(seed + 50, 28.0)[..6]);
        let target = Scan::of(changed, axis(37.1, 0.004), truth, 100 * seed + 50);
        // the volumes saw the axis for a shift along y
        let seen = moved([0.43, -1.28 - 0.17 * 1.27, 2.30], 0.0);
        let [axis, lean, axis_err, lean_err] = errors(&reference, &target, seen);
        eprintln!("{seed}: axis {axis:.4} +- {axis_err:.4}, lean {lean:.4} +- {lean_err:.4}");
        assert!(axis.abs() < 0.02 && lean.abs() < 0.03, "{axis} {lean}");
        assert!(axis_err < 0.02 && lean_err < 0.03);
        pulls.extend([axis / axis_err, lean / lean_err]);
    }
    let rms = (pulls.iter().map(|p| p * p).sum::<f64>() / pulls.len() as f64).sqrt();
    eprintln!("rms pull {rms:.2}");
    assert!(rms < 2.0, "{pulls:?}");
}

#[test]
fn turns_tilts_movements_and_a_narrow_detector_do_not_matter() {
    // wider than the detector
    let all = balls(9, 45.0);
    let reference = Scan::of(all.clone(), axis(35.4, 0.001), Motion::default(), 1);
    let mut truth = moved([0.43, -0.28, 1.31], 2.3);
    truth.tilt_rad = [0.003, -0.002];
    let mut target = Scan::of(all, axis(37.1, 0.004), truth, 2);
    let mut seen = moved([0.43, -0.28 - 0.17 * 1.27, 1.30], 2.3);
    // the lean was taken for a tilt
    seen.tilt_rad = [0.003 + 0.004 * 0.8, -0.002];
    let [axis_off, lean, ..] = errors(&reference, &target, seen);
    eprintln!("turned and tilted: axis {axis_off:.4}, lean {lean:.4}");
    assert!(
        axis_off.abs() < 0.02 && lean.abs() < 0.03,
        "{axis_off} {lean}"
    );

    // moved from view to view, known by a table
    let table = |phase: f64| Shifts {
        x_px: (0..90).map(|k| (0.3 * k as f64 + phase).sin()).collect(),
        z_px: (0..90)
            .map(|k| 0.5 * (0.2 * k as f64 + phase).cos())
            .collect(),
    };
    target.motion = moved([0.43, -0.28, 1.31], 0.0);
    target.shifts = Some(table(1.0));
    let [axis_off, lean, ..] = errors(&reference, &target, target.motion);
    eprintln!("moved: axis {axis_off:.4}, lean {lean:.4}");
    assert!(
        axis_off.abs() < 0.02 && lean.abs() < 0.03,
        "{axis_off} {lean}"
    );
    // control: without the table it is not found, or found elsewhere
    let without = ScanGeometry {
        shifts: None,
        ..target.geometry(axis(36.93, 0.0))
    };
    let of_reference = reference.geometry(reference.axis.clone());
    let seen = |source, geometry, motion| Seen {
        source,
        geometry,
        motion,
        at_once: 64,
    };
    let blind = find(
        &seen(&reference, &of_reference, reference.motion),
        &seen(&target, &without, target.motion),
        &(0..ROWS),
    );
    let off = blind.unwrap().map(|found| found.at(MIDDLE) - 0.17);
    assert!(off.is_none_or(|off| off.abs() > 0.02), "{off:?}");
}

#[test]
fn scans_without_anything_in_common_say_nothing() {
    let reference = Scan::of(balls(3, 28.0), axis(35.4, 0.0), Motion::default(), 1);
    let other = Scan::of(balls(4, 28.0), axis(37.1, 0.0), Motion::default(), 2);
    let found = correction(&reference, &other, axis(37.0, 0.0), Motion::default());
    assert!(found.is_none(), "{found:?}");
    // control: the same sample does
    let same = Scan::of(balls(3, 28.0), axis(37.1, 0.0), Motion::default(), 2);
    let found = correction(&reference, &same, axis(37.0, 0.0), Motion::default()).unwrap();
    assert!((found.axis_px - 0.1).abs() < 0.02, "{found:?}");
    // too few views
    let mut few = Scan::of(balls(3, 28.0), axis(37.1, 0.0), Motion::default(), 2);
    few.angles.truncate(10);
    assert!(correction(&few, &same, axis(37.0, 0.0), Motion::default()).is_none());
}

#[test]
fn a_constant_is_four_over_pi_of_a_sine_over_a_half_turn_and_nothing_over_a_whole_one() {
    let [x, y] = shift_per_axis(&half_turn(1000));
    assert!(
        x.abs() < 0.01 && (y + 4.0 / std::f64::consts::PI).abs() < 0.01,
        "{x} {y}"
    );
    let whole: Vec<f64> = half_turn(1000).iter().map(|a| 2.0 * a).collect();
    let [x, y] = shift_per_axis(&whole);
    assert!(x.abs() < 1e-6 && y.abs() < 1e-6, "{x} {y}");
    // from a quarter turn on: along x
    let late: Vec<f64> = half_turn(1000)
        .iter()
        .map(|a| a + std::f64::consts::FRAC_PI_2)
        .collect();
    let [x, y] = shift_per_axis(&late);
    assert!(
        (x + 4.0 / std::f64::consts::PI).abs() < 0.01 && y.abs() < 0.01,
        "{x} {y}"
    );
}
