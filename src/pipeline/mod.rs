//! The stages in order: this is where a run happens.
//!
//! [`run_series`] reads like the work itself: open every scan, plan, find every axis (so that a doubt shows before the
//! long work), then for each scan correct, align to its reference, reconstruct on the reference grid, subtract,
//! measure; at the end the report. Nothing holds a scan or a volume in memory: everything goes by slabs of the height
//! that the plan chose.

pub mod beyond;
pub mod binned;
pub mod first_change;
pub mod geometry;
#[cfg(test)]
mod geometry_tests;
pub mod halves;
pub mod heights;
mod lock;
pub(crate) mod match_axes;
pub mod moved_volume;
pub mod output;
pub mod pilot;
mod recipe;
pub mod reconstruct_scan;
pub mod rows;
pub mod sample_radius;
mod series;
mod single;
pub mod steady;
pub mod sweep;
pub(crate) mod tilt;
pub mod volumes;

use std::ops::Range;

use serde_json::json;

use crate::allocator;
use crate::center::{self, AxisFit};
use crate::config::{CenterConfig, Config, GridConfig, ReconstructConfig, ScanConfig};
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::io;
use crate::progress::Progress;
use crate::record::ScanRecord;
use crate::scan::{Scan, SinogramSource};
use output::Existing;
use reconstruct_scan::Motion;
use steady::Steadied;

pub use lock::{LockedByRows, locked_alone};
pub use series::run_series;
pub use single::{reconstruct_one, write_sinograms};

/// What a run needs beside its config.
pub struct Session {
    /// Where the kernels run.
    pub device: Device,
    /// Bars and times.
    pub progress: Progress,
    /// What happens to existing output.
    pub existing: Existing,
}

/// Opens every scan of the series, in the order of the config.
///
/// # Errors
/// Those of [`io::open_scan`].
pub fn open_series(config: &Config) -> Result<Vec<Scan>> {
    if config.scan.is_empty() {
        return Err(Error::config(
            "scan",
            "[]",
            "the series has no scans; add a [[scan]] table for each",
        ));
    }
    config
        .scan
        .iter()
        .map(|scan| {
            let opened = open_one(config, scan)?;
            for warning in &opened.warnings {
                log::warn!("{}: {warning}", scan.name);
            }
            Ok(opened)
        })
        .collect()
}

fn open_one(config: &Config, scan: &ScanConfig) -> Result<Scan> {
    io::open_scan(
        &scan.path,
        &config.input_of(scan),
        config.series.pixel_size_um,
    )
}

/// Factor from attenuation per pixel to the unit of the volume, and that unit.
#[must_use]
pub fn attenuation_unit(pixel_size_um: Option<f64>) -> (f64, &'static str) {
    match pixel_size_um {
        Some(size) => (1e4 / size, "1/cm"),
        None => (1.0, "1/px"),
    }
}

/// As [`center::find_at_rows`], on projections moved back where the movement of the sample is known.
///
/// # Errors
/// Those of [`center::find_at_rows`].
pub fn find_axis(
    source: &dyn SinogramSource,
    rows: &[usize],
    config: &CenterConfig,
    progress: &Progress,
) -> Result<AxisFit> {
    let found = match Steadied::new(source) {
        Some(steadied) => center::find_at_rows(&steadied, rows, config, progress),
        None => center::find_at_rows(source, rows, config, progress),
    };
    allocator::release();
    found
}

/// The rotation axis, or the error that says what to pass when the methods disagree.
///
/// # Errors
/// Those of [`center::find`]; [`Error::CenterDisagrees`].
pub fn certain_axis(
    name: &str,
    source: &dyn SinogramSource,
    config: &CenterConfig,
    progress: &Progress,
) -> Result<AxisFit> {
    let axis = find_axis(source, &[], config, progress)?;
    log::info!(
        "{name}: rotation axis {:.2} +- {:.2} px at row {:.0}, lean {:.5} px/row",
        axis.axis_px,
        axis.uncertainty_px,
        axis.middle_row,
        axis.slope_px_per_row
    );
    if axis.agree {
        return Ok(axis);
    }
    Err(Error::CenterDisagrees {
        problem: format!(
            "{name}: the methods disagree about the rotation axis ({})",
            axis.notes.join("; ")
        ),
        hint: format!(
            "look at `tomodelta center` for this scan and pass the axis with --axis COL (in a series: axis = COL in its [[scan]] table; best guess {:.2})",
            axis.axis_px
        ),
    })
}

/// Middle of a range of slices.
#[must_use]
pub fn middle_of(slices: &Range<usize>) -> f64 {
    (slices.start + slices.end) as f64 / 2.0 - 0.5
}

/// The motion that the config puts the grid at, in detector pixels.
#[must_use]
pub fn grid_motion(config: &ReconstructConfig) -> Motion {
    let GridConfig {
        shift,
        rotation,
        scale,
    } = &config.grid;
    Motion::from_alignment(*shift, *rotation).magnified(*scale)
}

/// The part of `scan.json` that the input alone decides.
#[must_use]
pub fn scan_record(name: &str, scan: &Scan, axis: AxisFit) -> ScanRecord {
    let degrees = |angle: Option<&f64>| angle.copied().unwrap_or(0.0).to_degrees();
    ScanRecord {
        name: name.to_string(),
        layout: scan.layout.clone(),
        n_angles: scan.n_angles(),
        n_rows: scan.n_rows(),
        n_cols: scan.n_cols(),
        angle_range_deg: [
            degrees(scan.angles_rad.first()),
            degrees(scan.angles_rad.last()),
        ],
        angle_source: scan.angle_source.clone(),
        pixel_size_um: scan.pixel_size_um,
        rotation_axis: axis,
        left_out: scan.left_out.clone(),
        warnings: scan.warnings.clone(),
        ..ScanRecord::default()
    }
}

/// What every volume carries about its making.
#[must_use]
pub fn provenance(
    config: &Config,
    scan: &str,
    extra: &[(&str, serde_json::Value)],
) -> serde_json::Value {
    let mut value = json!({
        "program": "tomodelta",
        "version": env!("CARGO_PKG_VERSION"),
        "scan": scan,
        "axes": "[z, y, x]; z is the detector row, x to the right, y down; the rotation axis stands at ((n_x-1)/2, (n_y-1)/2) of an uncropped slice",
        "angle": "a ray of detector coordinate t at angle theta holds the points with x cos(theta) - y sin(theta) = t, both from the axis",
        "config": config,
    });
    for (key, item) in extra {
        value[*key] = item.clone();
    }
    value
}
