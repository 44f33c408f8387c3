//! Orientation, scale and windows against other programs' slices.

use std::path::Path;

use ndarray::{Array2, Axis, s};

use super::*;
use crate::config::FilterWindow;

/// A float32 array of the reference outputs, or none where they are not there.
fn golden(name: &str) -> Option<Array2<f32>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/goldens").join(name);
    let Ok(bytes) = std::fs::read(&path) else {
        println!("SKIPPED: {} is not there", path.display());
        return None;
    };
    let file = npyz::NpyFile::new(&bytes[..]).expect("an .npy file");
    let shape: Vec<usize> = file.shape().iter().map(|&n| n as usize).collect();
    let values: Vec<f32> = file.into_vec().expect("float32");
    Some(Array2::from_shape_vec((shape[0], shape[1]), values).expect("two axes"))
}

/// Root mean square inside `share` of half the width, as a share of the reference's peak.
fn rms(found: &Array2<f32>, expected: &Array2<f32>, share: f64) -> f64 {
    let middle = (expected.ncols() as f64 - 1.0) / 2.0;
    let (mut sum, mut count) = (0.0, 0.0);
    for ((j, i), &value) in expected.indexed_iter() {
        if (i as f64 - middle).hypot(j as f64 - middle) < share * middle {
            (sum, count) = (sum + f64::from(found[[j, i]] - value).powi(2), count + 1.0);
        }
    }
    (sum / count).sqrt() / f64::from(peak(expected))
}

#[test]
fn slices_are_those_of_algotom() {
    for (set, axis) in [("a", 132.8), ("b", 63.4)] {
        let Some(sinogram) = golden(&format!("in_proj_{set}.npy")) else { return };
        let angles = half_turn(sinogram.nrows());
        for (name, window) in [
            ("fbp_0", FilterWindow::Ramp),
            ("fbp_1", FilterWindow::Hann),
            ("fbp_2", FilterWindow::Hamming),
            ("dfi_0", FilterWindow::Ramp),
            ("dfi_1", FilterWindow::Hann),
        ] {
            let Some(expected) = golden(&format!("out_{name}_{set}.npy")) else { return };
            let mut job = job(sinogram.ncols(), &angles);
            (job.config.filter, job.config.upsample) = (window, 1);
            if name.starts_with("dfi") && sinogram.ncols() % 2 == 0 {
                job.grid.x0 -= 0.5;
                job.grid.y0 += 0.5;
            }
            for method in METHODS {
                let found = slice(&job, method, &sinogram, axis);
                let off = rms(&found, &expected, 0.85);
                let mirrored = rms(&found.slice(s![.., ..;-1]).to_owned(), &expected, 0.85);
                let flipped = rms(&found.slice(s![..;-1, ..]).to_owned(), &expected, 0.85);
                println!("{name} {set} {method:?}: {off:.5}, mirrored {mirrored:.5}, flipped {flipped:.5}");
            }
        }
    }
}

#[test]
fn slices_are_those_of_scikit_image() {
    let Some(sinogram) = golden("in_iradon.npy") else { return };
    let sinogram = sinogram.t().as_standard_layout().to_owned();
    let angles: Vec<f64> = (0..90).map(|k| f64::from(k) * PI / 90.0).collect();
    for (name, window) in [
        ("0", FilterWindow::Ramp),
        ("1", FilterWindow::SheppLogan),
        ("3", FilterWindow::Hamming),
        ("4", FilterWindow::Hann),
    ] {
        let Some(expected) = golden(&format!("out_iradon_{name}.npy")) else { return };
        let mut job = job(128, &angles);
        (job.config.filter, job.config.upsample) = (window, 1);
        job.grid = Grid { x0: -64.0, y0: 64.0, ..job.grid };
        for method in METHODS {
            let found = slice(&job, method, &sinogram, 64.0);
            let off = rms(&found, &expected, 0.85);
            println!("iradon {name} {method:?}: {off:.5} {}", rms(&found.t().to_owned(), &expected, 0.85));
        }
    }
    let _ = Axis(0);
}
