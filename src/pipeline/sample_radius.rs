//! How wide a sample is that the detector does not hold: given, or found in some views of the scan.

use std::f64::consts::PI;

use ndarray::Axis;

use crate::config::{ReconstructConfig, Truncation};
use crate::error::{Error, Result};
use crate::pipeline::geometry::ScanGeometry;
use crate::reconstruct::support::{Reach, Rows};
use crate::scan::SinogramSource;

/// Views that are looked at, spread over all directions: they need not sample the object, only go round it.
const VIEWS: usize = 48;
/// Rows of a view that are looked at, at most.
const ROWS: usize = 128;

/// The radius that the config gives \[px\]; `None` where it gives none.
///
/// # Errors
/// [`Error::Config`] for a diameter of a scan whose pixel size is not known.
pub fn given(config: &ReconstructConfig, pixel_size_um: Option<f64>) -> Result<Option<f64>> {
    match (config.sample_diameter_mm, pixel_size_um) {
        (None, _) => Ok(None),
        (Some(diameter), Some(pixel)) => Ok(Some(0.5e3 * diameter / pixel)),
        (Some(diameter), None) => Err(Error::config(
            "reconstruct.sample_diameter_mm",
            diameter,
            "the file has no pixel size: give --pixel-size (series.pixel_size_um)",
        )),
    }
}

/// How far from the axis the sample reaches: given, or found in the detector rows `rows`; inside the field of view where nobody
/// asks. `geometry` is that of the source, before any binning.
///
/// # Errors
/// Those of [`given`] and of the source.
pub fn find(
    name: &str,
    source: &dyn SinogramSource,
    geometry: &ScanGeometry,
    rows: std::ops::Range<usize>,
    config: &ReconstructConfig,
    pixel_size_um: Option<f64>,
) -> Result<Reach> {
    if config.truncation == Truncation::RollOff {
        return Ok(Reach::Inside);
    }
    if let Some(radius) = given(config, pixel_size_um)? {
        return Ok(Reach::Radius(radius));
    }
    let mut order: Vec<usize> = (0..geometry.angles_rad.len()).collect();
    let direction = |&k: &usize| geometry.angles_rad[k].rem_euclid(PI);
    order.sort_by(|a, b| direction(a).total_cmp(&direction(b)));
    let views = order.len().min(VIEWS);
    let mut seen = Rows::default();
    for k in 0..views {
        let angle = order[k * order.len() / views];
        let view = source.projection(angle, rows.clone())?;
        let right = geometry.shifts.as_ref().map_or(0.0, |s| s.x_px[angle]);
        let stride = rows.len().div_ceil(ROWS).max(1);
        for (row, line) in view.axis_iter(Axis(0)).enumerate().step_by(stride) {
            let axis = geometry.axis.at((rows.start + row) as f64) + right;
            seen.add(k, &line.to_vec(), axis);
        }
    }
    let reach = seen.reach();
    match reach {
        Reach::Inside => {}
        Reach::Radius(radius) => log::info!(
            "{name}: the sample is wider than the detector: about {:.0} px ({:.2} times as wide), as its rows tell",
            2.0 * radius,
            2.0 * radius / geometry.n_cols as f64
        ),
        Reach::Unknown => log::warn!(
            "{name}: rows do not end in air, and do not tell how far the sample reaches: either a dense wall stands outside the field, \
             then give reconstruct.sample_diameter_mm, or flats and projections differ in light, then see correct.beam; grey values \
             may be off by a tenth and more, most at the rim"
        ),
    }
    Ok(reach)
}
