//! Promise: a scan with the axis near the edge of the detector gives the slice of a detector of twice the width.
//!
//! The same simulated cell, seen over a full turn by a detector that the axis cuts in two, and over a half turn by one as
//! wide as the slice: against the phantom both must be wrong by the same, through the whole program.

mod common;

use std::path::Path;

use common::{read_npy, succeeds, text};
use ndarray::{Array3, ArrayView3, s};
use tomodelta::reconstruct::geometry::Grid;
use tomodelta::simulate::{Options, Preset, Series, Turn};

const ROWS: usize = 24;
const COLS: usize = 128;

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn volume(path: &Path) -> Array3<f32> {
    let (shape, values) = read_npy(path);
    Array3::from_shape_vec([shape[0], shape[1], shape[2]], values).unwrap()
}

fn options(turn: Turn) -> Options {
    Options {
        turn,
        cols: Some(COLS),
        rows: Some(ROWS),
        angles: Some(401),
        photons: Some(1e6),
        artefacts: 0.0,
        ..Options::new(Preset::Null)
    }
}

fn simulate(folder: &Path, turn: &str, cols: usize, angles: usize) {
    succeeds([
        "simulate",
        text(folder),
        "--preset",
        "null",
        "--turn",
        turn,
        "--cols",
        &cols.to_string(),
        "--rows",
        &ROWS.to_string(),
        "--angles",
        &angles.to_string(),
        "--photons",
        "1e6",
        "--artefacts",
        "0",
        "-q",
    ]);
}

fn reconstruct(scan: &Path, output: &Path, more: &[&str]) -> Array3<f32> {
    let plain = [
        "--device",
        "cpu",
        "--set",
        "correct.stripe.method=none",
        "--set",
        "correct.zinger.enabled=false",
        "--overwrite",
        "-q",
    ];
    let start = ["reconstruct", text(scan), "-o", text(output)];
    succeeds(start.iter().chain(&plain).chain(more));
    volume(output)
}

/// Root mean square of found - truth \[1/cm\] within 0.85 of half the width, rows 3 to the third from below.
fn rmse(found: &Array3<f32>, truth: ArrayView3<'_, f32>) -> f64 {
    let n = found.dim().2;
    let middle = (n as f64 - 1.0) / 2.0;
    let (mut sum, mut count) = (0.0, 0.0);
    for ((z, y, x), &value) in found.indexed_iter() {
        let inside = (x as f64 - middle).hypot(y as f64 - middle) < 0.85 * n as f64 / 2.0;
        if inside && (3..ROWS - 3).contains(&z) {
            sum += f64::from(value - truth[[z, y, x]]).powi(2);
            count += 1.0;
        }
    }
    (sum / f64::max(count, 1.0)).sqrt()
}

#[test]
fn the_axis_near_either_edge_gives_the_wide_slice() {
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("volume.npy");
    for (word, turn) in [
        ("offset-left", Turn::OffsetLeft),
        ("offset-right", Turn::OffsetRight),
    ] {
        let folder = scratch.path().join(word);
        simulate(&folder, word, COLS, 401);
        let series = Series::plan(&options(turn)).unwrap();
        let wide = series.slice_cols;
        assert!(wide > 165, "{wide}");
        let truth_axis = series.scans[0].axis_px;

        // found by itself, near the edge
        let scan = folder.join("first.nxs");
        let fit = succeeds(["center", text(&scan), "--json", "-q", "--device", "cpu"]);
        let fit: serde_json::Value = serde_json::from_str(&fit).unwrap();
        let off = fit["axis_px"].as_f64().unwrap() - truth_axis;
        assert!(off.abs() < 0.2, "{word}: the axis is {off} px off");

        let mut truth = Array3::zeros((ROWS, wide, wide));
        let grid = Grid::square(wide);
        let phantom = series.sample(0);
        phantom.add_voxels(0..ROWS, series.middle_row(), &grid, truth.view_mut());

        let full = scratch.path().join(format!("{word}-full"));
        simulate(&full, "half", wide, 201);
        let full_scan = full.join("first.nxs");
        for method in ["fbp", "fourier"] {
            let more = ["--method", method];
            let half = reconstruct(&scan, &output, &more);
            assert_eq!(half.dim(), (ROWS, wide, wide), "{word}");
            let here = rmse(&half, truth.view());
            let whole = reconstruct(&full_scan, &output, &more);
            let there = rmse(&whole, truth.view());
            println!(
                "{word}, {method}: rmse {here:.5} against {there:.5} 1/cm, axis off by {off:.3}"
            );
            // the same blur and the same edges decide; the axis of each is found on its own, and counts are alike
            assert!(
                here < 1.1 * there,
                "{word}, {method}: {here} against {there}"
            );
        }
        // the same slices without the far side: as wide as the detector, and wrong
        let narrow = reconstruct(&scan, &output, &["--acquisition", "full"]);
        assert_eq!(narrow.dim().2, COLS);
        // a wrong axis must show
        let wrong = format!("{}", truth_axis + 1.5);
        let wrong = reconstruct(&scan, &output, &["--axis", &wrong]);
        let width = wrong.dim().2.min(wide);
        let cut = |n: usize| (n - width) / 2..(n - width) / 2 + width;
        let (a, b) = (cut(wrong.dim().2), cut(wide));
        let wrong = wrong.slice(s![.., a.clone(), a]).to_owned();
        let blurred = rmse(&wrong, truth.slice(s![.., b.clone(), b]));
        let sharp = rmse(&reconstruct(&scan, &output, &[]), truth.view());
        assert!(blurred > 1.1 * sharp, "{word}: {blurred} against {sharp}");
    }
}

#[test]
fn a_series_of_offset_scans_runs_to_its_report() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("series");
    simulate(&folder, "offset-left", COLS, 301);
    let series = Series::plan(&options(Turn::OffsetLeft)).unwrap();
    let plan = folder.join("series.toml");
    let dry = succeeds(["run", text(&plan), "--dry-run", "--device", "cpu", "-q"]);
    assert!(dry.contains("half acquisition"), "{dry}");
    let method = "reconstruct.method=fbp";
    succeeds(["run", text(&plan), "--device", "cpu", "-q", "--set", method]);
    let out = folder.join("out");
    let scan = json(&out.join("scans/second/scan.json"));
    assert_eq!(scan["reconstruction"]["half_acquisition"], true);
    let found = &json(&out.join("differences/second/alignment.json"))["shift_voxel"];
    let shift = series.scans[1].motion.shift;
    for axis in 0..3 {
        let off = found[axis].as_f64().unwrap() - shift[axis];
        assert!(off.abs() < 0.15, "axis {axis}: {off} voxels off");
    }
    let work = &json(&out.join("run.json"))["work"];
    let named = |name: &str| {
        let all = work.as_array().unwrap();
        all.iter().find(|w| w["name"] == name).unwrap().clone()
    };
    assert!(named("read")["bytes_per_s"].as_f64().unwrap() > 0.0);
    assert!(named("back-project")["updates_per_s"].as_f64().unwrap() > 0.0);
    assert!(out.join("report.html").exists());
}
