//! A small run, written by hand and reported.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::Array3;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::center::{AxisFit, MethodAnswers};
use crate::config::{DifferenceConfig, MassConfig, VolumeFormat};
use crate::correct::{CorrectionCounts, out_of_family};
use crate::difference;
use crate::io::volume::{self, VolumeMeta, VoxelType};
use crate::record::{AlignmentRecord, InputRecord, RunRecord, ScanRecord, ValueRange};

const SHAPE: [usize; 3] = [60, 96, 96];

/// A fibre-like sample with noise; `later` has grains more and some less.
fn volume_of(later: usize, seed: u64) -> Array3<f32> {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let middle = 47.5;
    let mut grains = Pcg64Mcg::seed_from_u64(7);
    let spots: Vec<([f64; 3], f64, f64)> = (0..14 * later)
        .map(|k| {
            let sign = if k % 3 == 2 { -1.0 } else { 1.0 };
            let z = if sign > 0.0 { 30.0 } else { 42.0 } + 8.0 * (grains.random::<f64>() - 0.5);
            let (r, phi) = (
                32.0 * grains.random::<f64>().sqrt(),
                std::f64::consts::TAU * grains.random::<f64>(),
            );
            (
                [z, middle + r * phi.sin(), middle + r * phi.cos()],
                1.5 + 3.0 * grains.random::<f64>(),
                sign,
            )
        })
        .collect();
    Array3::from_shape_fn(SHAPE, |(z, y, x)| {
        let (zf, yf, xf) = (z as f64, y as f64, x as f64);
        let d = (xf - middle).hypot(yf - middle);
        if d > 47.0 {
            return 0.0;
        }
        let cloth = 0.5 + 0.3 * (0.5 * xf + 0.2 * zf).sin() * (0.45 * yf).cos();
        let mut value = if z < 24 {
            0.3 + cloth
        } else if z < 40 {
            0.9
        } else {
            1.6 + 0.05 * (0.8 * zf).sin()
        };
        if (d - 42.0).abs() < 2.0 {
            value = 2.2;
        }
        for (p, radius, sign) in &spots {
            let r = ((zf - p[0]).powi(2) + (yf - p[1]).powi(2) + (xf - p[2]).powi(2)).sqrt();
            value += sign * 0.6 / (1.0 + ((r - radius) / 0.4).exp());
        }
        (value + 0.06 * rng.sample::<f64, _>(StandardNormal)) as f32
    })
}

fn meta() -> VolumeMeta {
    VolumeMeta {
        shape: SHAPE,
        voxel_type: VoxelType::F32,
        unit: "1/cm".into(),
        voxel_size_um: Some(5.2),
        first_row: 0,
        provenance: serde_json::json!({}),
    }
}

fn scan_record(name: &str, k: usize) -> ScanRecord {
    let rows: Vec<f64> = (0..7).map(|i| 5.0 + 8.0 * f64::from(i)).collect();
    let answers = |offset: f64| MethodAnswers {
        axis_px: rows
            .iter()
            .map(|r| 47.3 + 0.004 * r + offset * (r * 1.7).sin())
            .collect(),
        rows: rows.clone(),
    };
    ScanRecord {
        name: name.into(),
        layout: "NXtomo".into(),
        n_angles: 361,
        n_rows: SHAPE[0],
        n_cols: SHAPE[2],
        angle_range_deg: [0.0, 180.0],
        angle_source: "read from the file".into(),
        pixel_size_um: Some(5.2),
        time: Some(format!("2025-03-25T{:02}:30:00Z", 10 + 2 * k)),
        charge_mah_cm2: Some(0.25 * k as f64),
        rotation_axis: AxisFit {
            axis_px: 47.42,
            slope_px_per_row: 0.004,
            uncertainty_px: 0.04,
            middle_row: 29.5,
            methods: BTreeMap::from([
                ("double-wedge".to_string(), answers(0.05)),
                ("phase-correlation".to_string(), answers(0.02)),
            ]),
            agree: true,
            notes: vec!["line through both methods".into()],
        },
        corrections: CorrectionCounts {
            samples: 2_079_360,
            zingers: if k == 2 { 4000 } else { 600 },
            large_stripes: 3,
            ..CorrectionCounts::default()
        },
        value_range: ValueRange {
            min: -0.3,
            max: 2.6,
            mean: 0.8,
            not_finite: 0,
        },
        unit: "1/cm".into(),
        ..ScanRecord::default()
    }
}

fn json(path: &Path, value: &impl serde::Serialize) {
    std::fs::write(path, serde_json::to_vec_pretty(value).unwrap()).unwrap();
}

/// Writes the folder of a run of `n` scans.
fn write_run(folder: &Path, n: usize, format: VolumeFormat) {
    let names: Vec<String> = ["pristine", "half-stripped", "stripped"]
        .iter()
        .take(n)
        .map(|s| (*s).to_string())
        .collect();
    for (k, name) in names.iter().enumerate() {
        let scan = folder.join("scans").join(name);
        std::fs::create_dir_all(&scan).unwrap();
        json(&scan.join("scan.json"), &scan_record(name, k));
        let path = scan.join(volume::file_name("volume", format));
        volume::write_array(
            &path,
            format,
            &meta(),
            volume_of(k, 40 + k as u64).view(),
            false,
        )
        .unwrap();
    }
    let open = |name: &str| {
        volume::open(
            &folder
                .join("scans")
                .join(name)
                .join(volume::file_name("volume", format)),
        )
        .unwrap()
    };
    let progress = Progress::new(true);
    for (k, name) in names.iter().enumerate().skip(1) {
        let out = folder.join("differences").join(name);
        std::fs::create_dir_all(&out).unwrap();
        let mass = MassConfig {
            electrode_area_cm2: 0.2,
            ..MassConfig::default()
        };
        let context = difference::Context {
            target: name,
            reference: "pristine",
            config: &DifferenceConfig::default(),
            mass: Some(&mass),
            charge_mah_cm2: Some(0.25 * k as f64),
            shift_err_z: 0.0,
            halves: None,
            format,
            slab: 8,
            valid_radius: 46.0,
            valid_z: 0..SHAPE[0],
            overwrite: false,
            provenance: serde_json::json!({}),
            progress: &progress,
        };
        difference::run(
            open("pristine").as_ref(),
            open(name).as_ref(),
            &out,
            &context,
        )
        .unwrap();
        let alignment = AlignmentRecord {
            shift_voxel: [3.21, -1.48, 0.62],
            shift_err_voxel: [0.012, 0.011, 0.015],
            confidence: 0.97,
            residual_before: 0.31,
            residual_after: 0.09,
            per_height: vec![
                [9.5, 0.01, -0.02, 0.0],
                [29.5, -0.01, 0.01, 0.01],
                [49.5, 0.0, 0.01, -0.02],
            ],
            method: "translation".into(),
            reference: "pristine".into(),
            ..AlignmentRecord::default()
        };
        json(&out.join("alignment.json"), &alignment);
    }
    let mut table = String::from("time_s,voltage_v,current_ma\n");
    for k in 0..3000 {
        let t = f64::from(k) * 6.0;
        let v = 0.05 + 0.15 * (t / 18000.0).powi(6) + 0.004 * (t / 300.0).sin();
        table += &format!(
            "{t},{v:.5},{}\n",
            if (k / 500) % 2 == 0 { 1.0 } else { 0.0 }
        );
    }
    std::fs::write(folder.join("voltage.csv"), table).unwrap();
    let counted: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(k, name)| {
            let scan = scan_record(name, k);
            (name.clone(), scan.corrections, [scan.n_angles, scan.n_cols])
        })
        .collect();
    let mut warnings = vec!["half-stripped: an example of a warning".to_string()];
    warnings.extend(out_of_family(&counted));
    let run = RunRecord {
        version: "0.1.0".into(),
        series: "NaK50 <critical> stripping".into(),
        started: "2025-03-26T09:00:00Z".into(),
        device: "cpu".into(),
        threads: 2,
        memory_cap_bytes: 1 << 30,
        config: serde_json::json!({"electrochemistry": {
            "path": folder.join("voltage.csv"), "time_column": "time_s", "voltage_column": "voltage_v",
            "current_column": "current_ma", "start": "2025-03-25T10:00:00Z"}}),
        scans: names.clone(),
        differences: names
            .iter()
            .skip(1)
            .map(|name| (name.clone(), "pristine".to_string()))
            .collect(),
        inputs: names
            .iter()
            .map(|name| InputRecord {
                scan: name.clone(),
                path: format!("/data/{name}.nxs"),
                bytes: 2_000_000,
                blake3: "ab".repeat(32),
            })
            .collect(),
        lock: None,
        stages: vec![
            ("reconstructing pristine".into(), 12.5),
            ("difference".into(), 1.25),
        ],
        work: Vec::new(),
        warnings,
    };
    json(&folder.join("run.json"), &run);
}

#[test]
fn a_run_becomes_one_page_with_every_figure() {
    let kept = std::env::var_os("TOMODELTA_KEEP_REPORT").map(PathBuf::from);
    let scratch = tempfile::tempdir().unwrap();
    let folder = kept.as_deref().unwrap_or(scratch.path());
    write_run(folder, 3, VolumeFormat::Zarr);
    let page = write(folder, &Progress::new(true)).unwrap();
    let text = std::fs::read_to_string(page).unwrap();
    for name in [
        "overlay_z",
        "overlay_y",
        "overlay_x",
        "projections",
        "per_height",
        "grains_per_height",
        "grain_sizes",
        "histogram",
        "alignment",
    ] {
        for target in ["half-stripped", "stripped"] {
            for suffix in ["png", "svg"] {
                let path = folder
                    .join("differences")
                    .join(target)
                    .join("figures")
                    .join(format!("{name}.{suffix}"));
                assert!(
                    std::fs::metadata(&path).is_ok_and(|m| m.len() > 1000),
                    "{}",
                    path.display()
                );
            }
        }
        assert!(
            text.matches(&format!("alt=\"{name}\"")).count() == 2,
            "{name}"
        );
    }
    for name in ["growth", "voltage"] {
        assert!(text.contains(&format!("alt=\"{name}\"")), "{name}");
    }
    // one file: nothing is fetched
    assert!(
        !text.contains("http://") && !text.contains("https://") && !text.contains("src=\"figures"),
        "a link"
    );
    assert!(
        text.contains("NaK50 &lt;critical&gt; stripping"),
        "the title is escaped"
    );
    assert!(text.contains("an example of a warning"));
    // 4000 zingers against 600
    assert!(
        text.contains("stripped: zingers: 4000"),
        "the scan that is out of family is named"
    );
    assert!(
        !text.contains("stripped: columns with a large stripe"),
        "and only for what is"
    );
}

#[test]
fn two_scans_in_another_format_are_enough_and_slabs_do_not_matter() {
    let scratch = tempfile::tempdir().unwrap();
    write_run(scratch.path(), 2, VolumeFormat::Npy);
    let run = Run::read(scratch.path()).unwrap();
    let change = &run.changes[0];
    let volumes = Volumes::open(change).unwrap();
    let stage = Progress::new(true).stage("x", 1, "x");
    let [a, b] = [3, 60].map(|slab| sections::gather(change, &volumes, slab, &stage).unwrap());
    assert_eq!(a.along_y, b.along_y);
    assert_eq!(a.y.change, b.y.change);
    assert_eq!(a.z.reference, b.z.reference);
    // the section shows the voxels of the volume: at the height with most change, some of it
    let labels = volumes.labels.read_labels(a.cut.z..a.cut.z + 1).unwrap();
    let difference = volumes.difference.read(a.cut.z..a.cut.z + 1).unwrap();
    for ((y, x), &value) in a.z.change.indexed_iter() {
        let expected = if labels[[0, y, x]] > 0 {
            difference[[0, y, x]]
        } else {
            0.0
        };
        assert_eq!(value, expected);
    }
    assert!(a.z.change.iter().any(|&v| v > 0.0));
    assert!(
        write(scratch.path(), &Progress::new(true))
            .unwrap()
            .exists()
    );
}

#[test]
fn what_is_missing_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let error = write(scratch.path(), &Progress::new(true))
        .unwrap_err()
        .to_string();
    assert!(error.contains("run.json"), "{error}");
    write_run(scratch.path(), 2, VolumeFormat::Npy);
    std::fs::remove_file(scratch.path().join("differences/half-stripped/labels.npy")).unwrap();
    let error = write(scratch.path(), &Progress::new(true))
        .unwrap_err()
        .to_string();
    assert!(error.contains("labels"), "{error}");
}

#[test]
fn a_voltage_table_without_the_column_is_a_sentence_in_the_page() {
    let scratch = tempfile::tempdir().unwrap();
    write_run(scratch.path(), 2, VolumeFormat::Npy);
    let path = scratch.path().join("run.json");
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replace("\"voltage_v\"", "\"volts\"");
    std::fs::write(&path, text).unwrap();
    let page =
        std::fs::read_to_string(write(scratch.path(), &Progress::new(true)).unwrap()).unwrap();
    assert!(page.contains("no column volts") && page.contains("voltage_v"));
    assert!(!page.contains("alt=\"voltage\""));
}
