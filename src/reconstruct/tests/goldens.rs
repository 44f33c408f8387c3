//! Orientation, scale and windows against other programs' slices.

use std::path::Path;

use ndarray::{Array2, s};

use super::*;
use crate::config::FilterWindow;

/// A float32 array of the reference outputs, or none where they are not there.
fn golden(name: &str) -> Option<Array2<f32>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/goldens")
        .join(name);
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
        let Some(sinogram) = golden(&format!("in_proj_{set}.npy")) else {
            return;
        };
        let angles = half_turn(sinogram.nrows());
        // the references are 2 to 5 times closer where a window takes out what their interpolation and padding change:
        // linear interpolation of whole samples (fbp) or of the spectrum (dfi), 38 columns of padding where we have 128
        for (name, window, limit) in [
            ("fbp_0", FilterWindow::Ramp, 0.03),
            ("fbp_1", FilterWindow::Hann, 0.01),
            ("dfi_0", FilterWindow::Ramp, 0.025),
            ("dfi_1", FilterWindow::Hann, 0.005),
        ] {
            let Some(expected) = golden(&format!("out_{name}_{set}.npy")) else {
                return;
            };
            let mut job = job(sinogram.ncols(), &angles);
            job.config.filter = window;
            if name.starts_with("dfi") && sinogram.ncols() % 2 == 0 {
                // its axis stands at voxel N / 2
                job.grid.x0 -= 0.5;
                job.grid.y0 += 0.5;
            }
            for method in METHODS {
                let found = slice(&job, method, &sinogram, axis);
                let off = rms(&found, &expected, 0.85);
                println!("{name} {set} {method:?}: {off:.5}");
                assert!(off < limit, "{name} {set} {method:?}: {off}");
                for other in [
                    found.slice(s![.., ..;-1]),
                    found.slice(s![..;-1, ..]),
                    found.t(),
                ] {
                    assert!(
                        rms(&other.to_owned(), &expected, 0.85) > 0.1,
                        "another orientation must fail"
                    );
                }
            }
        }
    }
}

#[test]
fn slices_are_those_of_scikit_image() {
    let Some(sinogram) = golden("in_iradon.npy") else {
        return;
    };
    let sinogram = sinogram.t().as_standard_layout().to_owned();
    let angles: Vec<f64> = (0..90).map(|k| f64::from(k) * PI / 90.0).collect();
    for (name, window, limit) in [
        ("0", FilterWindow::Ramp, 0.02),
        ("1", FilterWindow::SheppLogan, 0.015),
        ("3", FilterWindow::Hamming, 0.006),
        ("4", FilterWindow::Hann, 0.006),
    ] {
        let Some(expected) = golden(&format!("out_iradon_{name}.npy")) else {
            return;
        };
        let mut job = job(128, &angles);
        // its rotation axis stands at voxel N / 2
        (job.config.filter, job.grid) = (
            window,
            Grid {
                x0: -64.0,
                y0: 64.0,
                ..job.grid
            },
        );
        for method in METHODS {
            let found = slice(&job, method, &sinogram, 64.0);
            let off = rms(&found, &expected, 0.85);
            println!("iradon {name} {method:?}: {off:.5}");
            assert!(off < limit, "iradon {name} {method:?}: {off}");
            assert!(
                rms(&found.t().to_owned(), &expected, 0.85) > 0.1,
                "another orientation must fail"
            );
        }
    }
}
