//! `[series]`, `[input]`, `[[scan]]` and `[electrochemistry]`: which scans, and how they are read.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;
use super::rules::Table;
use crate::error::{Error, Result};

/// `[series]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeriesConfig {
    /// Title of the report.
    pub name: String,
    /// Output folder, relative to the config file.
    pub output: PathBuf,
    /// Name of the scan that the others are compared with; empty: the first one.
    pub reference: String,
    /// Detector pixel at the sample \[um\]; absent: taken from the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixel_size_um: Option<f64>,
}

impl Default for SeriesConfig {
    fn default() -> Self {
        SeriesConfig {
            name: "series".into(),
            output: "out".into(),
            reference: String::new(),
            pixel_size_um: None,
        }
    }
}

/// `[[scan]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScanConfig {
    /// Name of the scan, also of its output folder.
    pub name: String,
    /// HDF5 file or folder of TIFF files, relative to the config file.
    pub path: PathBuf,
    /// Scan to compare with, where it is not the series' reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Rotation axis of this scan by hand \[px\], at its middle row; nothing is searched then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub axis: Option<f64>,
    /// Lean of the axis given by hand \[px per row\].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub axis_slope: Option<f64>,
    /// Pixels of this scan per pixel of its reference, where the sample is seen larger or smaller; absent: the ratio of
    /// the pixel sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub magnification: Option<f64>,
    /// When the scan was taken (RFC 3339), for the time axis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Charge passed between the reference and this scan \[mAh/cm2\], for the Faraday check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charge_mah_cm2: Option<f64>,
    /// Overrides of `[input]` for this scan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<InputConfig>,
}

/// `[input]`: where the data are when the layout does not say it.
///
/// For HDF5 each of `data`, `flats`, `darks`, `angles` is `/dataset/path`, or `file.h5:/dataset/path` for another
/// file; for TIFF a file or folder. Relative paths are relative to the scan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputConfig {
    /// Projections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Flats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flats: Option<String>,
    /// Darks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub darks: Option<String>,
    /// Angles: a dataset path, a text file with one angle per line, or `START:STOP:COUNT` in degrees, both ends included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub angles: Option<String>,
    /// NXtomo image key (0 projection, 1 flat, 2 dark).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_key: Option<String>,
    /// Name of the detector group, where a file has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detector: Option<String>,
    /// Unit of the angles; absent: read from the file, else inferred from their span, and said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub angle_unit: Option<AngleUnit>,
    /// Readings of the beam monitor, one per projection or per frame: a dataset path, or a text file with one per line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
    /// Movement of the sample during the scan: a CSV file with the columns `x_px` and `z_px`, one line per projection, or
    /// a dataset `[projection, 2]` of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shifts: Option<String>,
    /// Projections to leave out, counted from 0 among the projections.
    pub exclude: Vec<usize>,
    /// Which bad projections are left out without being named in `exclude`; absent: those that hold no picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_projections: Option<BadProjections>,
}

/// Which projections are left out for their light: see [`crate::correct::screen`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadProjections {
    /// None; they are named in a warning.
    None,
    /// Those without a picture: dark, blank, or not a number.
    #[default]
    Lost,
    /// Those too whose light differs from that of their neighbours.
    All,
}

/// Unit of the angles in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum AngleUnit {
    Degrees,
    Radians,
}

/// `[electrochemistry]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ElectrochemistryConfig {
    /// CSV file, relative to the config file.
    pub path: PathBuf,
    /// Column of the time \[s\].
    pub time_column: String,
    /// Column of the voltage \[V\].
    pub voltage_column: String,
    /// Column of the current; empty: none.
    pub current_column: String,
    /// Start of the table's clock (RFC 3339), to place scans that have a `time`; empty: their order on the axis.
    pub start: String,
}

impl Default for ElectrochemistryConfig {
    fn default() -> Self {
        ElectrochemistryConfig {
            path: PathBuf::new(),
            time_column: "time_s".into(),
            voltage_column: "voltage_v".into(),
            current_column: String::new(),
            start: String::new(),
        }
    }
}

impl SeriesConfig {
    pub(super) fn validate(&self) -> Result<()> {
        match self.pixel_size_um {
            Some(size) => Table("series").positive("pixel_size_um", size),
            None => Ok(()),
        }
    }
}

impl Config {
    pub(super) fn validate_scans(&self) -> Result<()> {
        let names: Vec<&str> = self.scan.iter().map(|scan| scan.name.as_str()).collect();
        for (index, scan) in self.scan.iter().enumerate() {
            let plain = !scan.name.is_empty()
                && scan.name != "."
                && scan.name != ".."
                && scan
                    .name
                    .chars()
                    .all(|c| c.is_alphanumeric() || "-_.+ ".contains(c));
            if !plain {
                return Err(Error::config(
                    format!("scan[{index}].name"),
                    format!("{:?}", scan.name),
                    "becomes a folder: use letters, digits, space, '-', '_', '+' or '.'",
                ));
            }
            if names[..index].contains(&scan.name.as_str()) {
                return Err(Error::config(
                    format!("scan[{index}].name"),
                    &scan.name,
                    "is used twice; names must differ",
                ));
            }
            if scan.path.as_os_str().is_empty() {
                return Err(Error::config(
                    format!("scan[{index}].path"),
                    "\"\"",
                    "give the file or folder of the scan",
                ));
            }
            if scan.axis_slope.is_some() && scan.axis.is_none() {
                return Err(Error::config(
                    format!("scan[{index}].axis_slope"),
                    scan.axis_slope.unwrap_or_default(),
                    "is the lean of an axis given by hand: give scan.axis too, or leave it out",
                ));
            }
            if let Some(scale) = scan.magnification {
                let rule = if self.reference_of(scan).is_none() {
                    "is pixels per pixel of the reference, and this scan is the reference; leave it out, or give reconstruct.grid.scale"
                } else if !(0.9..=1.1).contains(&scale) {
                    "must lie between 0.9 and 1.1: pixels of this scan per pixel of its reference"
                } else {
                    ""
                };
                if !rule.is_empty() {
                    let key = format!("scan[{index}].magnification");
                    return Err(Error::config(key, scale, rule));
                }
            }
            if let Some(reference) = self.reference_of(scan)
                && !names.contains(&reference)
            {
                return Err(Error::config(
                    format!("scan[{index}].reference"),
                    reference,
                    format!("names no scan; the scans are {}", names.join(", ")),
                ));
            }
        }
        Ok(())
    }
}
