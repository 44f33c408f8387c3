//! DXchange: `/exchange/{data, data_white, data_dark, theta}` (De Carlo et al. 2014, J. Synchrotron Rad. 21:1224).

use super::angles;
use super::hdf5::Tree;
use super::hdf5_scan::Sources;
use super::pixel_size;
use crate::error::Result;

/// Names the datasets that are there. The layout does not say when flats and darks were taken; they are put before the
/// first projection.
///
/// # Errors
/// A missing `/exchange/data`, or links that lead nowhere.
pub(super) fn find(tree: &Tree) -> Result<Sources> {
    let data = "/exchange/data";
    tree.locate(data)?;
    let mut sources = Sources {
        layout: "DXchange",
        data: data.into(),
        ..Sources::default()
    };
    let present = |path: &str| tree.locate(path).is_ok().then(|| path.to_string());
    sources.flats = present("/exchange/data_white");
    sources.darks = present("/exchange/data_dark");
    if let Some(theta) = present("/exchange/theta") {
        sources.angles = Some(angles::from_dataset(tree, &theta)?);
    }
    sources.start_time = [
        "/process/acquisition/start_date",
        "/measurement/start_time",
        "/file_creation_datetime",
    ]
    .iter()
    .find_map(|path| tree.text(path));
    sources.pixel_size_um = pixel_size(tree, &mut sources.warnings);
    Ok(sources)
}

/// The size at the sample where the optic's resolution is written; else the detector's pixel over the magnification.
fn pixel_size(tree: &Tree, warnings: &mut Vec<String>) -> Option<f64> {
    let instrument = "/measurement/instrument";
    for path in [
        "detection_system/objective/resolution",
        "detector/actual_pixel_size_x",
    ] {
        if let Some(size) = pixel_size::read(tree, &format!("{instrument}/{path}"), warnings) {
            return Some(size);
        }
    }
    let detector = ["detector/pixel_size_x", "detector/x_pixel_size"]
        .iter()
        .find_map(|path| pixel_size::read(tree, &format!("{instrument}/{path}"), warnings))?;
    let magnification = format!("{instrument}/detection_system/objective/magnification");
    match tree
        .numbers(&magnification)
        .ok()
        .and_then(|(values, _)| values.first().copied())
    {
        Some(by) if by.is_finite() && by > 0.0 => Some(detector / by),
        _ => {
            warnings.push(format!(
                "the pixel size {detector} um is the detector's and no magnification is written; give pixel_size_um if the optic magnifies"
            ));
            Some(detector)
        }
    }
}
