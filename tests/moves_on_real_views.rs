//! Promise: a motion by whole rows and whole angle steps, cut from one real scan, is recovered to a tenth of a row
//! and of a step.
//!
//! Even views of a neutron scan over a full turn are the reference, odd views the target: same sample, independent
//! noise. The target's frames are cut three rows lower, and its angles are labelled four steps further, which turns
//! the sample back by as much. Where the rods are too alike along z to fix the shift, the program must say so.

mod common;

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use common::{real_data, succeeds, text};
use tiff::decoder::{Decoder, DecodingResult};
use tiff::encoder::{TiffEncoder, colortype::Gray16};

/// Degrees between two views.
const STEP: f64 = 0.96;
const ROWS: usize = 20;
const LOWER: usize = 3;
const STEPS: usize = 4;

/// Writes every TIFF of `from` with the rows `first..first + ROWS` into `to`.
fn cut(from: &Path, to: &Path, first: usize) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let mut decoder = Decoder::new(BufReader::new(File::open(&path).unwrap())).unwrap();
        let (width, _) = decoder.dimensions().unwrap();
        let DecodingResult::U16(pixels) = decoder.read_image().unwrap() else {
            panic!("{} is not uint16", path.display());
        };
        let rows = first * width as usize..(first + ROWS) * width as usize;
        let file = File::create(to.join(path.file_name().unwrap())).unwrap();
        TiffEncoder::new(BufWriter::new(file))
            .unwrap()
            .write_image::<Gray16>(width, ROWS as u32, &pixels[rows])
            .unwrap();
    }
}

#[test]
#[ignore = "takes minutes in a debug build: cargo test --release --test moves_on_real_views -- --ignored"]
fn whole_rows_and_angle_steps_are_recovered() {
    let Some(folder) = real_data("neutron_rods_tiff") else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let mut scans = String::new();
    for (name, first, parity, steps) in [("even", 0, 0, 0), ("odd", LOWER, 1, STEPS)] {
        let scan = scratch.path().join(name);
        for part in ["projections", "flats", "darks"] {
            cut(&folder.join(part), &scan.join(part), first);
        }
        let angles: String = (0..376)
            .map(|view| format!("{:.2}\n", STEP * f64::from(view + steps as i32)))
            .collect();
        std::fs::write(scan.join("angles.txt"), angles).unwrap();
        // the last view repeats the first
        let exclude: Vec<usize> = (0..376)
            .filter(|view| view % 2 != parity || *view == 375)
            .collect();
        scans += &format!(
            "[[scan]]\nname = {name:?}\npath = {:?}\naxis = 399.13\ninput = {{ exclude = {exclude:?}, angles = {:?} }}\n",
            text(&scan),
            text(&scan.join("angles.txt")),
        );
    }
    let series = format!("[series]\noutput = \"out\"\n[align]\nmethod = \"rigid\"\n{scans}");
    let file = scratch.path().join("series.toml");
    std::fs::write(&file, series).unwrap();
    succeeds([
        "run",
        text(&file),
        "--device",
        "cpu",
        "--set",
        "difference.noise=voxels",
        "-q",
    ]);
    let record = scratch.path().join("out/differences/odd/alignment.json");
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    println!("{record:#}");
    let of = |key: &str, k: usize| record[key][k].as_f64().unwrap();
    // more angle turns a point from x towards y up, rz from x towards y down
    let turn = -STEP * STEPS as f64;
    assert!(
        (of("rotation_deg", 2) - turn).abs() < 0.1 * STEP,
        "{record}"
    );
    assert!(
        (of("rotation_deg", 2) + turn).abs() > STEP,
        "another sign is another turn"
    );
    for k in [0, 1] {
        assert!(of("shift_voxel", k).abs() < 0.1, "{record}");
    }
    let along_z = (of("shift_voxel", 2) + LOWER as f64).abs();
    let said = of("shift_err_voxel", 2) > 0.1 || record["warnings"].to_string().contains("along z");
    assert!(along_z < 0.1 || said, "{record}");
}
