//! The axis of real scans and of the reference program's inputs, where `../shared` is there.

use std::path::{Path, PathBuf};

use super::testing::{Made, degrees};
use super::*;

fn shared(part: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared")
        .join(part);
    if !path.exists() {
        eprintln!("SKIPPED: {} is not there", path.display());
        return None;
    }
    Some(path)
}

fn golden(name: &str) -> Option<Array2<f32>> {
    let bytes = std::fs::read(shared(&format!("goldens/{name}.npy"))?).unwrap();
    let npy = npyz::NpyFile::new(&bytes[..]).unwrap();
    let shape: Vec<usize> = npy.shape().iter().map(|&n| n as usize).collect();
    Some(Array2::from_shape_vec((shape[0], shape[1]), npy.into_vec::<f32>().unwrap()).unwrap())
}

fn source(sinogram: Array2<f32>, angles_rad: Vec<f64>) -> Made {
    Made {
        sinograms: sinogram.insert_axis(Axis(0)),
        angles_rad,
    }
}

#[test]
fn the_double_wedge_is_no_farther_from_the_truth_than_algotom() {
    // truth and Algotom's default answer from goldens/index.json
    for (name, n, truth, algotom) in [
        ("in_proj_a", 181, 132.8, 132.75),
        ("in_proj_b", 90, 63.4, 63.25),
    ] {
        let Some(sinogram) = golden(name) else { return };
        assert_eq!(sinogram.nrows(), n);
        let made = source(sinogram, degrees(0.0, 180.0 / (n as f64 - 1.0), n));
        let config = CenterConfig {
            method: CenterMethod::DoubleWedge,
            ..CenterConfig::default()
        };
        let fit = find(&made, &config, &Progress::new(true)).unwrap();
        eprintln!(
            "{name}: {:.3} +- {:.3}, truth {truth}",
            fit.axis_px, fit.uncertainty_px
        );
        assert!((fit.axis_px - algotom).abs() < 0.3, "{fit:?}");
        assert!((fit.axis_px - truth).abs() < 0.15, "{fit:?}");
    }
}

#[test]
fn phase_correlation_is_closer_to_the_truth_than_algotom() {
    for (name, truth, algotom) in [("a", 132.8, 132.997), ("b", 63.4, 63.436)] {
        let (Some(first), Some(second)) = (
            golden(&format!("in_p000_{name}")),
            golden(&format!("in_p180_{name}")),
        ) else {
            return;
        };
        let n_cols = first.ncols() as f64;
        let answer =
            phase_correlation::search_lines(&[[first, second]], (n_cols / 4.0, 3.0 * n_cols / 4.0))
                .unwrap();
        eprintln!("{name}: {answer:?}, truth {truth}");
        assert!((answer.axis_px - algotom).abs() < 0.3, "{answer:?}");
        assert!((answer.axis_px - truth).abs() < 0.1, "{answer:?}");
    }
}

#[test]
fn the_mirror_match_finds_the_reference_half_acquisitions() {
    // Algotom finds 141.91 and, with default sides, 42.5 where the truth is 20.75
    for (name, truth) in [("in_s360_r", 141.9), ("in_s360_l", 20.75)] {
        let Some(sinogram) = golden(name) else { return };
        let n = sinogram.nrows();
        let made = source(sinogram, degrees(0.0, 360.0 / (n as f64 - 1.0), n));
        let fit = find(&made, &CenterConfig::default(), &Progress::new(true)).unwrap();
        eprintln!(
            "{name}: {:.3} +- {:.3}, truth {truth}",
            fit.axis_px, fit.uncertainty_px
        );
        assert!((fit.axis_px - truth).abs() < 0.15, "{fit:?}");
    }
}

fn tiff(path: &Path) -> Array2<f32> {
    let mut decoder = tiff::decoder::Decoder::new(std::fs::File::open(path).unwrap()).unwrap();
    let (width, height) = decoder.dimensions().unwrap();
    let values: Vec<f32> = match decoder.read_image().unwrap() {
        tiff::decoder::DecodingResult::U16(v) => v.into_iter().map(f32::from).collect(),
        tiff::decoder::DecodingResult::F32(v) => v,
        _ => panic!("{} has another type", path.display()),
    };
    Array2::from_shape_vec((height as usize, width as usize), values).unwrap()
}

fn tiffs(folder: &Path, prefix: &str) -> Vec<Array2<f32>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.retain(|f| f.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    files.sort();
    files.iter().map(|f| tiff(f)).collect()
}

fn median_frame(frames: &[Array2<f32>]) -> Array2<f32> {
    Array2::from_shape_fn(frames[0].dim(), |at| {
        let mut values: Vec<f32> = frames.iter().map(|f| f[at]).collect();
        values.sort_by(f32::total_cmp);
        values[values.len() / 2]
    })
}

fn line_integrals(
    frames: &[Array2<f32>],
    flat: &Array2<f32>,
    dark: &Array2<f32>,
    angles_rad: Vec<f64>,
) -> Made {
    let (n_rows, n_cols) = flat.dim();
    let sinograms =
        ndarray::Array3::from_shape_fn((n_rows, frames.len(), n_cols), |(row, view, col)| {
            let at = [row, col];
            -((frames[view][at] - dark[at]) / (flat[at] - dark[at]).max(1.0))
                .max(1e-4)
                .ln()
        });
    Made {
        sinograms,
        angles_rad,
    }
}

fn report(name: &str, fit: &AxisFit) {
    eprintln!(
        "{name}: {:.3} +- {:.3}, slope {:.5}, agree {}",
        fit.axis_px, fit.uncertainty_px, fit.slope_px_per_row, fit.agree
    );
    fit.notes.iter().for_each(|note| eprintln!("  {note}"));
    for (method, answers) in &fit.methods {
        eprintln!("  {method}: {:.2?} at {:?}", answers.axis_px, answers.rows);
    }
}

#[test]
fn the_grain_in_a_capillary_is_found_below_its_air() {
    let Some(folder) = shared("data/i13_24737/tiff") else {
        return;
    };
    let text = std::fs::read_to_string(folder.join("angles.txt")).unwrap();
    let angles: Vec<f64> = text
        .split_whitespace()
        .map(|a| a.parse::<f64>().unwrap().to_radians())
        .collect();
    let made = line_integrals(
        &tiffs(&folder, "raw_"),
        &tiffs(&folder, "flat_")[0],
        &tiffs(&folder, "dark_")[0],
        angles[10..101].to_vec(),
    );
    let fit = find(&made, &CenterConfig::default(), &Progress::new(true)).unwrap();
    report("i13_24737", &fit);
    assert!(fit.agree && (fit.axis_px - 85.5).abs() < 0.5, "{fit:?}");
}

#[test]
fn the_neutron_rods_are_found_through_noise_and_gamma_spots() {
    let Some(folder) = shared("data/neutron_rods_tiff") else {
        return;
    };
    let made = line_integrals(
        &tiffs(&folder.join("projections"), "ct5s"),
        &median_frame(&tiffs(&folder.join("flats"), "ob")),
        &median_frame(&tiffs(&folder.join("darks"), "dc")),
        degrees(0.0, 0.96, 376),
    );
    let fit = find(&made, &CenterConfig::default(), &Progress::new(true)).unwrap();
    report("neutron_rods", &fit);
    assert!(fit.agree && (fit.axis_px - 399.0).abs() < 1.0, "{fit:?}");
}

#[test]
fn the_tooth_is_found_far_off_the_middle_from_two_rows() {
    let Some(path) = shared("data/tooth_dxchange/tooth.h5") else {
        return;
    };
    let file = rust_hdf5::H5File::open(&path).unwrap();
    let read = |name: &str| -> Vec<f32> { file.dataset(name).unwrap().read_raw::<f32>().unwrap() };
    let frames = |name: &str| -> Vec<Array2<f32>> {
        read(name)
            .chunks(2 * 640)
            .map(|f| Array2::from_shape_vec((2, 640), f.to_vec()).unwrap())
            .collect()
    };
    let angles: Vec<f64> = file
        .dataset("exchange/theta")
        .unwrap()
        .read_raw::<f64>()
        .unwrap();
    let made = line_integrals(
        &frames("exchange/data"),
        &median_frame(&frames("exchange/data_white")),
        &median_frame(&frames("exchange/data_dark")),
        angles.iter().map(|a| a.to_radians()).collect(),
    );
    let fit = find(&made, &CenterConfig::default(), &Progress::new(true)).unwrap();
    report("tooth", &fit);
    assert!(fit.agree && (fit.axis_px - 296.0).abs() < 1.0, "{fit:?}");
}
