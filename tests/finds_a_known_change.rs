//! Promise: a run of the sample finds the shift and the change that were simulated, writes every file it promises,
//! and finds nothing where nothing changed.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use common::{refuses, sample, succeeds, text};
use serde_json::Value;
use tomodelta::simulate::{ScanTruth, Truth};

/// Largest error of a shift \[voxel\]: a quarter of what moves a grain's edge by the blur of the sample (0.7 px / 2),
/// and three times the 0.03 that noise alone leaves on blocks of this size.
const SHIFT_TOLERANCE: f64 = 0.1;
/// Largest relative error of a sum of change. Sums leave out what stays below the threshold: of an edge of height v
/// blurred by s, s (phi(z) + z Phi(z)) v per area, where Phi(z) is the threshold over v. Sodium is v = 0.31 / cm and
/// s = 0.7 voxels; 5 sigma of a noise of 0.017 to 0.025 / cm is 0.27 to 0.40 of v, so 0.12 to 0.20 voxels of every
/// edge are lost. Grains of r = 3 voxels (the mean of the sample by volume) have 3 / r = 1 voxel of surface per voxel,
/// hence lose 12 to 20 %; noise adds 1 %, and the rest is room for rings.
const SUM_TOLERANCE: f64 = 0.25;

/// The finished run of the sample that the tests of this file look at and leave as it is.
fn finished() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("finds_a_known_change");
        if output.exists() {
            std::fs::remove_dir_all(&output).unwrap();
        }
        run(&output, &[]);
        output
    })
}

fn run_args<'a>(series: &'a Path, output: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![
        "run",
        text(series),
        "--output",
        text(output),
        "--device",
        "cpu",
        "-q",
    ];
    args.extend_from_slice(more);
    args
}

/// Runs the sample; returns what was printed.
fn run(output: &Path, more: &[&str]) -> String {
    let series = sample().join("series.toml");
    succeeds(run_args(&series, output, more))
}

fn json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn truth() -> ScanTruth {
    let bytes = std::fs::read(sample().join("truth.json")).unwrap();
    let truth: Truth = serde_json::from_slice(&bytes).unwrap();
    truth
        .scans
        .into_iter()
        .next()
        .expect("the sample has a later scan")
}

/// Columns of a table by name.
fn table(path: &Path) -> (Vec<String>, BTreeMap<String, Vec<f64>>) {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let names: Vec<String> = reader
        .headers()
        .unwrap()
        .iter()
        .map(str::to_string)
        .collect();
    let mut columns: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in reader.records() {
        for (name, field) in names.iter().zip(row.unwrap().iter()) {
            let value = field
                .parse()
                .unwrap_or_else(|_| panic!("{name}: {field:?}"));
            columns.entry(name.clone()).or_default().push(value);
        }
    }
    (names, columns)
}

/// Every file below `folder`: its content and when it was written.
fn files(folder: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(here) = left.pop() {
        for entry in std::fs::read_dir(&here).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let written = path.metadata().unwrap().modified().unwrap();
                let name = path.strip_prefix(folder).unwrap().to_path_buf();
                found.insert(name, (written, std::fs::read(&path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn the_shift_is_the_one_simulated() {
    let alignment = json(&finished().join("differences/stripped/alignment.json"));
    let found: Vec<f64> = alignment["shift_voxel"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect();
    let expected = truth().shift_voxel;
    println!("shift {found:.3?}, true {expected:.3?}");
    let worst = |expected: [f64; 3]| {
        found
            .iter()
            .zip(expected)
            .map(|(found, expected)| (found - expected).abs())
            .fold(0.0, f64::max)
    };
    assert!(
        worst(expected) <= SHIFT_TOLERANCE,
        "{found:?}, true {expected:?}"
    );
    let [x, y, z] = expected;
    assert!(
        worst([x, -y, z]) > SHIFT_TOLERANCE,
        "another sign is another shift"
    );
    assert_eq!(alignment["reference"], "pristine");
    for key in [
        "rotation_deg",
        "confidence",
        "residual_before",
        "residual_after",
    ] {
        assert!(!alignment[key].is_null(), "{key} is missing");
    }
}

#[test]
fn the_summed_change_is_the_one_simulated() {
    let (_, columns) = table(&finished().join("differences/stripped/per_height.csv"));
    let truth = truth();
    let (increase, decrease) = (
        truth.increase_sum_per_cm.iter().sum::<f64>(),
        truth.decrease_sum_per_cm.iter().sum::<f64>(),
    );
    let error = |column: &str, expected: f64| columns[column].iter().sum::<f64>() / expected - 1.0;
    let (up, down) = (
        error("increase_sum_per_cm", increase),
        error("decrease_sum_per_cm", decrease),
    );
    println!(
        "increase off by {:.1} %, decrease by {:.1} %",
        100.0 * up,
        100.0 * down
    );
    // swapped, they are far off
    assert!(error("increase_sum_per_cm", decrease).abs() > SUM_TOLERANCE);
    // the accuracy of the whole chain: the axis of each scan, what is left of stripes, the shift
    assert!(
        up.abs() <= SUM_TOLERANCE && down.abs() <= SUM_TOLERANCE,
        "increase off by {:.1} %, decrease by {:.1} %",
        100.0 * up,
        100.0 * down
    );
    // masses are the same sums in another unit: voxel^3 / (mass attenuation)
    let ug = (46.25e-4f64).powi(3) / 0.319 * 1e6;
    for (mass, sum) in [
        ("increase_ug", "increase_sum_per_cm"),
        ("decrease_ug", "decrease_sum_per_cm"),
    ] {
        for (mass, sum) in columns[mass].iter().zip(&columns[sum]) {
            assert!(
                (mass - sum * ug).abs() <= 1e-9 * sum.max(1.0),
                "{mass} of {sum}"
            );
        }
    }
}

#[test]
fn every_promised_file_is_there_with_its_columns() {
    let out = finished();
    for name in [
        "report.html",
        "run.json",
        "config.toml",
        "scans/pristine/volume.ome.zarr",
        "scans/pristine/scan.json",
        "scans/stripped/volume.ome.zarr",
        "scans/stripped/scan.json",
        "differences/stripped/alignment.json",
        "differences/stripped/difference.ome.zarr",
        "differences/stripped/labels.ome.zarr",
        "differences/stripped/per_height.csv",
        "differences/stripped/grains.csv",
        "differences/stripped/histogram.csv",
        "differences/stripped/figures",
    ] {
        assert!(out.join(name).exists(), "{name} is missing");
    }
    assert!(
        !out.join("differences/pristine").exists(),
        "the reference has no difference"
    );
    let figures: Vec<String> = std::fs::read_dir(out.join("differences/stripped/figures"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    for ending in [".png", ".svg"] {
        assert!(
            figures.iter().any(|name| name.ends_with(ending)),
            "{figures:?}"
        );
    }

    let (names, per_height) = table(&out.join("differences/stripped/per_height.csv"));
    assert_eq!(
        names.join(", "),
        "z, height_um, increase_voxels, decrease_voxels, increase_um3, decrease_um3, increase_sum_per_cm, \
         decrease_sum_per_cm, net_sum_per_cm, increase_sum_err, decrease_sum_err, increase_grains, decrease_grains, \
         increase_mean_grain_um3, decrease_mean_grain_um3, noise_per_cm, threshold_per_cm, increase_ug, decrease_ug, \
         net_ug, net_ug_err, increase_noise_err, increase_structure_err, increase_doubtful_err, \
         increase_alignment_err, increase_matching_err, decrease_noise_err, decrease_structure_err, \
         decrease_doubtful_err, decrease_alignment_err, decrease_matching_err, \
         increase_missed_err, decrease_missed_err"
    );
    assert_eq!(per_height["z"].len(), 64, "one row per slice");
    let (names, grains) = table(&out.join("differences/stripped/grains.csv"));
    assert_eq!(
        names.join(", "),
        "id, sign, voxels, volume_um3, z, y, x, zmin, zmax, ymin, ymax, xmin, xmax, sum_per_cm, mean_per_cm, \
         peak_per_cm, mass_ug"
    );
    let total: f64 = per_height["increase_grains"].iter().sum::<f64>()
        + per_height["decrease_grains"].iter().sum::<f64>();
    assert_eq!(
        total,
        grains["id"].len() as f64,
        "every grain stands at one height"
    );

    let record = json(&out.join("run.json"));
    for key in [
        "version", "config", "inputs", "device", "stages", "warnings",
    ] {
        assert!(!record[key].is_null(), "{key} is missing from run.json");
    }
    let scan = json(&out.join("scans/stripped/scan.json"));
    for key in ["rotation_axis", "corrections", "value_range"] {
        assert!(!scan[key].is_null(), "{key} is missing from scan.json");
    }
    let volume = tomodelta::io::volume::open(&out.join("scans/stripped/volume.ome.zarr")).unwrap();
    assert_eq!(volume.meta().shape, [64, 144, 144]);
    assert_eq!(volume.meta().unit, "1/cm");
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains("Simulated cell, sample"));
    for network in ["src=\"http", "href=\"http", "url(http"] {
        assert!(!report.contains(network), "the report needs no network");
    }
}

#[test]
fn nothing_is_found_where_nothing_changed() {
    let scratch = tempfile::tempdir().unwrap();
    let volume = finished().join("scans/pristine/volume.ome.zarr");
    let out = scratch.path().join("null");
    let answer = succeeds([
        "difference",
        text(&volume),
        text(&volume),
        "--output",
        text(&out),
        "--device",
        "cpu",
        "--json",
        "-q",
    ]);
    let answer: Value = serde_json::from_str(&answer).expect("one JSON object");
    for shift in answer["alignment"]["shift_voxel"].as_array().unwrap() {
        assert!(
            shift.as_f64().unwrap().abs() < 1e-3,
            "{}",
            answer["alignment"]
        );
    }
    let found = &answer["difference"];
    for key in [
        "increase_voxels",
        "decrease_voxels",
        "increase_grains",
        "decrease_grains",
    ] {
        assert_eq!(found[key].as_f64(), Some(0.0), "{key} in {found}");
    }
    let (_, per_height) = table(&out.join("per_height.csv"));
    assert!(
        per_height["increase_sum_per_cm"]
            .iter()
            .all(|&sum| sum == 0.0)
    );
    let (_, grains) = table(&out.join("grains.csv"));
    assert!(grains.is_empty());

    // the same command on the two scans does find a change
    let other = finished().join("scans/stripped/volume.ome.zarr");
    let out = scratch.path().join("change");
    let answer = succeeds([
        "difference",
        text(&volume),
        text(&other),
        "--output",
        text(&out),
        "--align",
        "none",
        "--device",
        "cpu",
        "--json",
        "-q",
    ]);
    let answer: Value = serde_json::from_str(&answer).expect("one JSON object");
    assert!(answer["difference"]["increase_voxels"].as_u64() > Some(100));
    assert!(answer["difference"]["decrease_voxels"].as_u64() > Some(100));
}

#[test]
fn a_dry_run_writes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let before = files(&sample());
    let plan = run(&out, &["--dry-run"]);
    for word in ["pristine", "stripped", "memory", "slab"] {
        assert!(plan.contains(word), "{word} is missing from {plan}");
    }
    assert!(!out.exists());
    assert!(
        files(&sample()) == before,
        "the inputs are left as they are"
    );
}

#[test]
fn a_finished_run_is_kept_by_resume_and_never_replaced_unasked() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    // a part of the heights is enough here
    let part = ["--set", "reconstruct.rows=12..44"];
    run(&out, &part);
    let before = files(&out);

    let series = sample().join("series.toml");
    refuses(2, &["out", "--overwrite"], run_args(&series, &out, &part));
    assert!(files(&out) == before, "a refused run touches nothing");

    let mut resume = part.to_vec();
    resume.push("--resume");
    run(&out, &resume);
    let after = files(&out);
    assert!(after.keys().eq(before.keys()), "no file comes or goes");
    for (name, (written, content)) in &after {
        let (first_written, first_content) = &before[name];
        // the record of the run tells its own time and how long it took, and the report shows that
        if !name.ends_with("run.json") && !name.ends_with("report.html") {
            assert!(content == first_content, "{} changed", name.display());
        }
        if name
            .components()
            .any(|part| part.as_os_str().to_string_lossy().ends_with(".zarr"))
        {
            assert_eq!(
                written,
                first_written,
                "{} was written again",
                name.display()
            );
        }
    }
    let warnings = |files: &BTreeMap<PathBuf, (SystemTime, Vec<u8>)>| {
        let record: Value = serde_json::from_slice(&files[Path::new("run.json")].1).unwrap();
        record["warnings"].clone()
    };
    assert_eq!(
        warnings(&after),
        warnings(&before),
        "no warning is lost by a resume"
    );

    let other = [
        "--set",
        "reconstruct.rows=12..44",
        "--set",
        "difference.sigma=4.5",
        "--resume",
    ];
    refuses(
        2,
        &["sigma", "--overwrite"],
        run_args(&series, &out, &other),
    );

    // its own config gives the same again
    let again = scratch.path().join("again");
    let config = out.join("config.toml");
    succeeds(run_args(&config, &again, &[]));
    let same = Path::new("differences/stripped/per_height.csv");
    assert!(files(&again)[same].1 == before[same].1);
}
