//! Promise: the files that beamlines write are read as they are, and reconstruct about the axis that is known of them.
//!
//! The axis of each scan is documented with the data (found by sweeping FBP, or published); the tolerances are those
//! to which it is known. Tests print SKIPPED where the scans are not on the machine.

mod common;

use common::{read_npy, real_data, refuses, succeeds, text, tomodelta};

fn axis(args: &[&str]) -> f64 {
    let mut all = vec!["center", "--json", "-q"];
    all.extend_from_slice(args);
    let output = tomodelta(&all);
    let fit: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    });
    for key in [
        "slope_px_per_row",
        "uncertainty_px",
        "middle_row",
        "methods",
    ] {
        assert!(!fit[key].is_null(), "{key} is missing from {fit}");
    }
    fit["axis_px"].as_f64().expect("a number")
}

/// The angles of the projections alone: the file that came with the TIFF frames lists flats and darks too.
fn i13_angles(folder: &std::path::Path, into: &std::path::Path) -> std::path::PathBuf {
    let all = std::fs::read_to_string(folder.join("tiff/angles.txt")).unwrap();
    let projections: Vec<&str> = all.lines().skip(10).take(91).collect();
    let path = into.join("angles.txt");
    std::fs::write(&path, projections.join("\n")).unwrap();
    path
}

#[test]
fn i13_gives_its_axis_and_the_same_volume_from_nxtomo_and_tiff() {
    let Some(folder) = real_data("i13_24737") else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let nxs = folder.join("24737.nxs");
    let tiff = folder.join("tiff");
    let angles = i13_angles(&folder, scratch.path());
    let from_nxs = axis(&[text(&nxs)]);
    let from_tiff = axis(&[text(&tiff), "--angles", text(&angles)]);
    assert!((from_nxs - 85.5).abs() <= 0.5, "{from_nxs}");
    assert!(
        (from_nxs - from_tiff).abs() < 1e-9,
        "{from_nxs} {from_tiff}"
    );

    let (a, b) = (scratch.path().join("a.npy"), scratch.path().join("b.npy"));
    let common = [
        "--rows", "60..64", "--axis", "85.5", "--device", "cpu", "-q",
    ];
    let mut first = vec!["reconstruct", text(&nxs), "--output", text(&a)];
    first.extend_from_slice(&common);
    succeeds(&first);
    let mut second = vec![
        "reconstruct",
        text(&tiff),
        "--angles",
        text(&angles),
        "--output",
        text(&b),
    ];
    second.extend_from_slice(&common);
    succeeds(&second);
    let (shape, from_nxs) = read_npy(&a);
    assert_eq!(shape, [4, 160, 160]);
    let (_, from_tiff) = read_npy(&b);
    assert!(
        from_nxs == from_tiff,
        "the two containers hold the same frames"
    );
    let spread = from_nxs.iter().fold(0f32, |most, v| most.max(v.abs()));
    assert!(spread > 0.01, "the slices hold something");
}

#[test]
fn neutron_rods_over_a_full_turn_give_their_axis() {
    let Some(folder) = real_data("neutron_rods_tiff") else {
        return;
    };
    let found = axis(&[text(&folder)]);
    assert!((found - 399.0).abs() <= 1.0, "{found}");
}

#[test]
fn the_tooth_gives_its_axis() {
    let Some(folder) = real_data("tooth_dxchange") else {
        return;
    };
    let file = std::fs::read_dir(&folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "h5"))
        .unwrap();
    let found = axis(&[text(&file)]);
    assert!((found - 296.0).abs() <= 1.0, "{found}");
}

#[test]
fn a_file_full_of_links_reads_and_reconstructs() {
    let Some(folder) = real_data("k11_diad_nexus") else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let file = folder.join("k11-18014.nxs");
    let out = scratch.path().join("k11.npy");
    succeeds([
        "reconstruct",
        text(&file),
        "--output",
        text(&out),
        "--axis",
        "12.5",
        "--device",
        "cpu",
        "-q",
    ]);
    let (shape, values) = read_npy(&out);
    assert_eq!(shape, [22, 26, 26]);
    assert!(values.iter().all(|v| v.is_finite()) && values.iter().any(|&v| v != 0.0));
}

#[test]
fn headers_without_their_images_fail_with_a_sentence() {
    let Some(folder) = real_data("diamond_headers_dangling") else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    for name in ["112482.nxs", "24888.nxs"] {
        let out = scratch.path().join("v.npy");
        let file = folder.join(name);
        refuses(
            2,
            &[name],
            [
                "reconstruct",
                text(&file),
                "--output",
                text(&out),
                "--axis",
                "50",
                "-q",
            ],
        );
        assert!(!out.exists());
    }
}
