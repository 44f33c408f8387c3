//! Scans of a smooth object with closed forms: what the geometry of a scan must not change.
#![expect(clippy::print_stdout, reason = "tests print what they measured")]

use std::f64::consts::{PI, TAU};
use std::ops::Range;

use ndarray::{Array2, Array3, ArrayView3, s};
use rayon::prelude::*;

use crate::center::AxisFit;
use crate::config::{Acquisition, DeviceChoice, ReconstructConfig, ReconstructMethod};
use crate::error::Result;
use crate::gpu::Device;
use crate::phantom::SplitMix64;
use crate::pipeline::binned::BinnedRows;
use crate::pipeline::geometry::ScanGeometry;
use crate::pipeline::reconstruct_scan::{Motion, ScanJob};
use crate::pipeline::rows::PlainSource;
use crate::pipeline::steady::Steadied;
use crate::plan::slice_grid;
use crate::progress::Progress;
use crate::scan::{Shifts, SinogramSource, Sinograms};

const METHODS: [ReconstructMethod; 2] = [ReconstructMethod::Fbp, ReconstructMethod::Fourier];

/// A Gaussian ball: value `height` in the middle `[x, y up, z down]`, sigma `size` \[px\].
#[derive(Clone, Copy)]
struct Blob {
    at: [f64; 3],
    size: f64,
    height: f64,
}

impl Blob {
    fn value(&self, p: [f64; 3]) -> f64 {
        let squared: f64 = (0..3).map(|k| (p[k] - self.at[k]).powi(2)).sum();
        self.height * (-0.5 * squared / (self.size * self.size)).exp()
    }

    fn integral(&self, theta: f64, t: f64, z: f64) -> f64 {
        let middle = self.at[0] * theta.cos() + self.at[1] * theta.sin();
        let squared = (t - middle).powi(2) + (z - self.at[2]).powi(2);
        self.height * self.size * TAU.sqrt() * (-0.5 * squared / (self.size * self.size)).exp()
    }
}

/// Balls within `radius` of the axis and `height` of the middle, 2.2 to 5 px wide, and one outermost.
fn blobs(radius: f64, height: f64) -> Vec<Blob> {
    let mut random = SplitMix64::new(7);
    let mut all = vec![
        Blob {
            at: [radius, 0.0, 0.3],
            size: 3.0,
            height: 0.02,
        },
        Blob {
            at: [0.6, -0.3, 0.0],
            size: 3.0,
            height: 0.02,
        },
    ];
    while all.len() < 14 {
        let at = [
            random.uniform(-radius, radius),
            random.uniform(-radius, radius),
            random.uniform(-height, height),
        ];
        if at[0].hypot(at[1]) < radius {
            all.push(Blob {
                at,
                size: random.uniform(2.2, 5.0),
                height: random.uniform(-0.02, 0.03),
            });
        }
    }
    all
}

/// An ideal detector at the points of its pixels; rolled against the axis by the slope of `axis` if `rolled`.
struct Detector {
    blobs: Vec<Blob>,
    angles: Vec<f64>,
    shape: [usize; 2],
    axis: AxisFit,
    shifts: Option<Shifts>,
    rolled: bool,
}

impl Detector {
    fn new(blobs: Vec<Blob>, angles: Vec<f64>, shape: [usize; 2], axis_px: f64) -> Detector {
        Detector {
            blobs,
            angles,
            axis: AxisFit {
                axis_px,
                middle_row: (shape[0] as f64 - 1.0) / 2.0,
                ..AxisFit::default()
            },
            shape,
            shifts: None,
            rolled: false,
        }
    }

    fn value(&self, angle: usize, row: f64, col: f64) -> f32 {
        let (x, z) = self
            .shifts
            .as_ref()
            .map_or((0.0, 0.0), |s| (s.x_px[angle], s.z_px[angle]));
        let (a, b) = (col - self.axis.axis_px - x, row - self.axis.middle_row - z);
        let (sin, cos) = if self.rolled {
            self.axis.slope_px_per_row.atan().sin_cos()
        } else {
            (0.0, 1.0)
        };
        let (t, z) = (a * cos - b * sin, a * sin + b * cos);
        let theta = self.angles[angle];
        self.blobs
            .iter()
            .map(|blob| blob.integral(theta, t, z))
            .sum::<f64>() as f32
    }
}

impl SinogramSource for Detector {
    fn n_rows(&self) -> usize {
        self.shape[0]
    }
    fn n_cols(&self) -> usize {
        self.shape[1]
    }
    fn angles_rad(&self) -> &[f64] {
        &self.angles
    }
    fn shifts(&self) -> Option<&Shifts> {
        self.shifts.as_ref()
    }
    fn sinograms(&self, rows: Range<usize>) -> Result<Sinograms> {
        let mut out = Array3::zeros((rows.len(), self.angles.len(), self.shape[1]));
        out.axis_iter_mut(ndarray::Axis(0))
            .into_par_iter()
            .zip(rows)
            .for_each(|(mut out, row)| {
                for ((angle, col), value) in out.indexed_iter_mut() {
                    *value = self.value(angle, row as f64, col as f64);
                }
            });
        Ok(out)
    }
    fn projection(&self, angle: usize, rows: Range<usize>) -> Result<Array2<f32>> {
        let shape = (rows.len(), self.shape[1]);
        Ok(Array2::from_shape_fn(shape, |(row, col)| {
            self.value(angle, (rows.start + row) as f64, col as f64)
        }))
    }
}

fn config(method: ReconstructMethod) -> ReconstructConfig {
    ReconstructConfig {
        method,
        mask_radius: 0.0,
        ..ReconstructConfig::default()
    }
}

/// The volume of a detector in slabs of `slab`, and its geometry.
fn volume_by(
    scan: &Detector,
    config: &ReconstructConfig,
    motion: Motion,
    slab: usize,
) -> (Array3<f32>, ScanGeometry) {
    volume_on(&Device::Cpu, scan, config, motion, slab)
}

fn volume_on(
    device: &Device,
    scan: &Detector,
    config: &ReconstructConfig,
    motion: Motion,
    slab: usize,
) -> (Array3<f32>, ScanGeometry) {
    let rows = config.row_range(scan.n_rows()).unwrap();
    let b = config.binning;
    let whole = ScanGeometry::new(scan, &scan.axis, &rows, config).unwrap();
    let geometry = whole.binned(rows.start % b, b);
    let grid = slice_grid(config, whole.field).unwrap();
    let job = ScanJob {
        geometry: &geometry,
        slices: rows.start / b..rows.start / b + rows.len() / b,
        middle_slice: 0.0,
        slab,
        grid,
        motion: motion.binned(b),
        config,
        scale: 1.0 / b as f64,
        meter: None,
        beyond: None,
    };
    let mut plain = PlainSource(scan);
    let mut source = BinnedRows::new(&mut plain, rows.start % b, b, slab);
    let mut out = Array3::zeros((job.slices.len(), grid.n_y, grid.n_x));
    let stage = Progress::new(true).stage("test", 1, "step");
    job.run(&mut source, device, &stage, None, |z, slices, _| {
        out.slice_mut(s![z..z + slices.dim().0, .., ..])
            .assign(&slices);
        Ok(())
    })
    .unwrap();
    (out, geometry)
}

fn volume(scan: &Detector, config: &ReconstructConfig) -> Array3<f32> {
    volume_by(scan, config, Motion::default(), 8).0
}

/// The blobs on a grid of `step` px whose axis stands in the middle and whose slice 0 is at height `z0`.
fn truth(blobs: &[Blob], shape: (usize, usize, usize), z0: f64, step: f64) -> Array3<f32> {
    let middle = |n: usize| (n as f64 - 1.0) / 2.0;
    Array3::from_shape_fn(shape, |(k, j, i)| {
        let at = [
            (i as f64 - middle(shape.2)) * step,
            (middle(shape.1) - j as f64) * step,
            z0 + k as f64 * step,
        ];
        blobs.iter().map(|blob| blob.value(at)).sum::<f64>() as f32
    })
}

/// Largest error within `radius` of the axis over the slices that have data, as a share of 0.02 (a blob's height).
fn worst(found: ArrayView3<'_, f32>, truth: ArrayView3<'_, f32>, radius: f64) -> f64 {
    let middle = (found.dim().2 as f64 - 1.0) / 2.0;
    let mut worst = 0.0_f64;
    for ((k, j, i), &value) in found.indexed_iter() {
        if (i as f64 - middle).hypot(j as f64 - middle) < radius && value.is_finite() {
            worst = worst.max(f64::from((value - truth[[k, j, i]]).abs()));
        }
    }
    worst / 0.02
}

fn angles(n: usize, turn: f64) -> Vec<f64> {
    (0..n).map(|k| turn * k as f64 / n as f64).collect()
}

#[test]
fn a_sample_that_jitters_is_reconstructed_where_it_is() {
    let (n_rows, n_cols, n_angles) = (40, 96, 180);
    let blobs = blobs(30.0, 10.0);
    let mut random = SplitMix64::new(3);
    let mut jitter = |reach: f64| -> Vec<f64> {
        (0..n_angles)
            .map(|_| random.uniform(-reach, reach))
            .collect()
    };
    let mut scan = Detector::new(blobs.clone(), angles(n_angles, PI), [n_rows, n_cols], 46.7);
    for method in METHODS {
        let config = config(method);
        scan.shifts = None;
        let still = volume(&scan, &config);
        let truth = truth(&blobs, still.dim(), -19.5, 1.0);
        let least = worst(still.view(), truth.view(), 44.0);
        scan.shifts = Some(Shifts {
            x_px: jitter(4.0),
            z_px: jitter(3.0),
        });
        let (moved, geometry) = volume_by(&scan, &config, Motion::default(), 8);
        let covered = geometry
            .heights(&Motion::default())
            .covered(&(0..n_rows), n_rows, n_cols);
        let error = worst(moved.view(), truth.view(), 44.0);
        // to the side nothing is resampled; in height a ball of 2.2 px loses 0.7 % at most by the window of three lobes
        // (its transfer at the frequencies of the ball), and each projection another part of it
        println!("{method:?}: still {least:.5}, jittered {error:.5}, slices {covered:?}");
        assert!(error < least + 0.01, "{method:?}: {error} against {least}");
        assert_eq!(
            covered,
            3..37,
            "rows that some projection does not see are left out"
        );
        assert!(moved[[2, 40, 40]].is_nan() && moved[[37, 40, 40]].is_nan());
        for height in [1, 13] {
            let again = volume_by(&scan, &config, Motion::default(), height).0;
            assert!(
                again
                    .iter()
                    .zip(&moved)
                    .all(|(a, b)| a.to_bits() == b.to_bits()),
                "{method:?}: slabs of {height}"
            );
        }
        // the sign and the half of it must matter
        let right = scan.shifts.clone().unwrap();
        for (x, z) in [(-1.0, 1.0), (1.0, -1.0), (0.0, 0.0), (0.5, 0.5)] {
            let mut wrong =
                Detector::new(blobs.clone(), angles(n_angles, PI), [n_rows, n_cols], 46.7);
            wrong.shifts = Some(right.clone());
            let rows = 0..n_rows;
            let mut geometry = ScanGeometry::new(&wrong, &wrong.axis, &rows, &config).unwrap();
            geometry.shifts = Some(Shifts {
                x_px: right.x_px.iter().map(|v| v * x).collect(),
                z_px: right.z_px.iter().map(|v| v * z).collect(),
            });
            let job = ScanJob {
                geometry: &geometry,
                slices: 15..25,
                middle_slice: 0.0,
                slab: 8,
                grid: slice_grid(&config, geometry.field).unwrap(),
                motion: Motion::default(),
                config: &config,
                scale: 1.0,
                meter: None,
                beyond: None,
            };
            let mut out = Array3::zeros((10, n_cols, n_cols));
            let stage = Progress::new(true).stage("test", 1, "step");
            job.run(
                &mut PlainSource(&wrong),
                &Device::Cpu,
                &stage,
                None,
                |z, slices, _| {
                    out.slice_mut(s![z..z + slices.dim().0, .., ..])
                        .assign(&slices);
                    Ok(())
                },
            )
            .unwrap();
            let seen = worst(out.view(), truth.slice(s![15..25, .., ..]), 44.0);
            assert!(
                seen > 10.0 * error,
                "{method:?} {x} {z}: {seen} against {error}"
            );
        }
    }
}

#[test]
fn the_axis_is_found_on_projections_moved_back() {
    let n_angles = 120;
    let mut scan = Detector::new(blobs(30.0, 8.0), angles(n_angles, PI), [30, 96], 46.7);
    let mut random = SplitMix64::new(5);
    let mut jitter = |reach: f64| -> Vec<f64> {
        (0..n_angles)
            .map(|_| random.uniform(-reach, reach))
            .collect()
    };
    let still = scan.sinograms(10..20).unwrap();
    scan.shifts = Some(Shifts {
        x_px: jitter(4.0),
        z_px: jitter(3.0),
    });
    let steadied = Steadied::new(&scan).unwrap();
    let back = steadied.sinograms(10..20).unwrap();
    let peak = still.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let largest = |other: &Sinograms| {
        still
            .iter()
            .zip(other)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max)
            / peak
    };
    // two interpolations of at most 0.7 % each, see above
    assert!(largest(&back) < 0.015, "{}", largest(&back));
    assert!(largest(&scan.sinograms(10..20).unwrap()) > 0.3, "blind");
    let one = steadied.projection(17, 10..20).unwrap();
    assert_eq!(one, back.slice(s![.., 17, ..]));
}

#[test]
fn a_rolled_detector_is_levelled_by_its_rows() {
    let (n_rows, n_cols) = (48, 192);
    let blobs = blobs(78.0, 12.0);
    let mut scan = Detector::new(blobs.clone(), angles(300, PI), [n_rows, n_cols], 94.2);
    scan.rolled = true;
    let method = ReconstructMethod::Fourier;
    let measure = |scan: &Detector, level_above: f64| {
        let config = ReconstructConfig {
            level_above,
            ..config(method)
        };
        let (found, geometry) = volume_by(scan, &config, Motion::default(), 8);
        let truth = truth(&blobs, found.dim(), -23.5, 1.0);
        (
            worst(found.view(), truth.view(), 88.0),
            geometry.mixed_heights_px(),
        )
    };
    let (upright, _) = measure(&scan, 1e9);
    for degrees in [0.05, 0.1, 0.3, 1.0, 2.0, -0.3] {
        scan.axis.slope_px_per_row = f64::to_radians(degrees).tan();
        let (as_lean, mixed) = measure(&scan, 1e9);
        let (levelled, _) = measure(&scan, 0.0);
        println!(
            "roll {degrees:>5} degrees, {mixed:.2} rows at the edge: {as_lean:.4} as a lean, {levelled:.4} levelled, {upright:.4} upright"
        );
        // the window of three lobes, see the test of jitter
        assert!(
            levelled < upright + 0.01,
            "{degrees}: {levelled} against {upright}"
        );
        if mixed > 0.5 {
            assert!(as_lean > 3.0 * levelled, "{degrees}: {as_lean}");
        }
    }
}

#[test]
fn a_binned_preview_shows_the_object_where_it_is() {
    let blob = Blob {
        at: [21.3, -13.7, 2.4],
        size: 3.2,
        height: 0.02,
    };
    // rests on all sides: 101 columns, 43 rows, rows from 5 on
    let scan = Detector::new(vec![blob], angles(160, PI), [43, 101], 47.35);
    for (binning, rows) in [(1, "5..42"), (2, "5..42"), (3, "5..41"), (4, "6..42")] {
        let config = ReconstructConfig {
            binning,
            rows: rows.into(),
            ..config(ReconstructMethod::Fbp)
        };
        let (found, _) = volume_by(&scan, &config, Motion::default(), 5);
        let start = config.row_range(43).unwrap().start as f64;
        let (b, dim) = (binning as f64, found.dim());
        let mut sums = [0.0; 4];
        for ((k, j, i), &value) in found.indexed_iter() {
            // heights of groups of rows from the middle row 21; the axis in the middle of the slice
            let at = [
                (i as f64 - (dim.2 as f64 - 1.0) / 2.0) * b,
                ((dim.1 as f64 - 1.0) / 2.0 - j as f64) * b,
                start + (b - 1.0) / 2.0 + k as f64 * b - 21.0,
            ];
            let distance: f64 = (0..3).map(|d| (at[d] - blob.at[d]).powi(2)).sum();
            if distance < 16.0_f64.powi(2) {
                let value = f64::from(value);
                sums[3] += value;
                (0..3).for_each(|d| sums[d] += value * (at[d] - blob.at[d]));
            }
        }
        let off: Vec<f64> = (0..3).map(|d| sums[d] / sums[3]).collect();
        let mass = sums[3] * b.powi(3) / (0.02 * (TAU.sqrt() * 3.2).powi(3));
        println!("binned by {binning}: off by {off:.4?} px, mass {mass:.5}");
        assert!(off.iter().all(|d| d.abs() < 0.02), "{binning}: {off:?}");
        // binned by four the ball is 0.8 pixels wide: half a per cent of it rings beyond the sphere
        assert!((mass - 1.0).abs() < 5e-3, "{binning}: {mass}");
    }
}

#[test]
fn a_grid_that_is_moved_turned_and_magnified_shows_the_object_of_the_reference() {
    let (n_rows, n_cols) = (40, 110);
    let blobs = blobs(28.0, 8.0);
    let motion = Motion::from_alignment([3.4, -2.6, 1.7], 7.0).magnified(1.03);
    // where a point of the reference stands in the scan; y up, rows down
    let (sin, cos) = (-motion.in_plane.rotation_rad).sin_cos();
    let m = motion.magnification;
    let moved: Vec<Blob> = blobs
        .iter()
        .map(|b| Blob {
            at: [
                m * (cos * b.at[0] - sin * b.at[1]) + 3.4,
                m * (sin * b.at[0] + cos * b.at[1]) + 2.6,
                m * b.at[2] + 1.7,
            ],
            size: m * b.size,
            ..*b
        })
        .collect();
    let scan = Detector::new(moved, angles(200, PI), [n_rows, n_cols], 54.1);
    for method in METHODS {
        let config = config(method);
        let (found, _) = volume_by(&scan, &config, motion, 8);
        let truth = truth(&blobs, found.dim(), -19.5, 1.0);
        let error = worst(found.view(), truth.view(), 38.0);
        let (plain, _) = volume_by(&scan, &config, motion.magnified(1.0), 8);
        let unscaled = worst(plain.view(), truth.view(), 38.0);
        println!("{method:?}: {error:.5}, without the scale {unscaled:.4}");
        // one interpolation in height, see the test of jitter, and what the filter itself leaves (0.2 %)
        assert!(
            error < 0.012 && unscaled > 10.0 * error,
            "{method:?}: {error}, {unscaled}"
        );
    }
}

#[test]
fn half_acquisition_in_three_dimensions_gives_the_wide_volume() {
    let (n_rows, n_cols) = (12, 70);
    let blobs = blobs(44.0, 3.0);
    for axis in [9.4, 59.6] {
        let mut scan = Detector::new(blobs.clone(), angles(400, TAU), [n_rows, n_cols], axis);
        // a lean that moves the overlap from row to row, and a jitter that moves it from view to view
        scan.axis.slope_px_per_row = 0.02;
        scan.rolled = true;
        let mut random = SplitMix64::new(11);
        scan.shifts = Some(Shifts {
            x_px: (0..400).map(|_| random.uniform(-1.5, 1.5)).collect(),
            z_px: vec![0.0; 400],
        });
        for method in METHODS {
            let config = config(method);
            let (found, geometry) = volume_by(&scan, &config, Motion::default(), 5);
            assert!(geometry.field.half, "the axis at {axis} is near the edge");
            let radius = geometry.seen_radius(&(0..n_rows));
            let truth = truth(&blobs, found.dim(), -5.5, 1.0);
            let error = worst(found.view(), truth.view(), radius);
            println!("{method:?}, axis {axis}: {error:.5} within {radius:.1} px");
            assert!(radius > 55.0 && found.dim().2 >= 116);
            assert!(error < 0.015, "{method:?}, axis {axis}: {error}");
            let full = ReconstructConfig {
                acquisition: Acquisition::Full,
                ..config
            };
            let (narrow, _) = volume_by(&scan, &full, Motion::default(), 5);
            assert_eq!(
                narrow.dim().2,
                n_cols,
                "the slice is as wide as the detector then"
            );
        }
    }
}

#[test]
fn the_gpu_sees_the_same_geometry() {
    let Ok(gpu) = Device::open(DeviceChoice::Gpu(None)) else {
        println!("SKIPPED: no GPU, not even a software one");
        return;
    };
    let mut scan = Detector::new(blobs(28.0, 2.0), angles(160, TAU), [9, 48], 7.4);
    let mut random = SplitMix64::new(13);
    scan.shifts = Some(Shifts {
        x_px: (0..160).map(|_| random.uniform(-1.5, 1.5)).collect(),
        z_px: (0..160).map(|_| random.uniform(-0.5, 0.5)).collect(),
    });
    let motion = Motion::from_alignment([1.4, -0.6, 0.2], 3.0).magnified(1.02);
    let config = config(ReconstructMethod::Fbp);
    let (on_cpu, geometry) = volume_by(&scan, &config, motion, 4);
    let (on_gpu, _) = volume_on(&gpu, &scan, &config, motion, 4);
    assert!(geometry.field.half);
    let largest = |other: &Array3<f32>| {
        on_cpu
            .iter()
            .zip(other)
            .filter(|(a, _)| a.is_finite())
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max)
    };
    // rounding of f32 in 160 sums of values of 0.01, and coordinates to 1e-5 px
    assert!(largest(&on_gpu) < 2e-6, "{}", largest(&on_gpu));
    let (other, _) = volume_by(&scan, &config, motion.magnified(1.019), 4);
    assert!(largest(&other) > 2e-5, "blind: {}", largest(&other));
}
