//! What the program does with a file that somebody else wrote: opened through every door, and a little of it read.
//!
//! The mutation test and the fuzz targets share it. Errors are right answers here; panics and huge allocations are not.

use std::path::Path;

use tomodelta::config::{Config, ElectrochemistryConfig, InputConfig};
use tomodelta::io::{self, angles, npy, volume};
use tomodelta::report;

/// A format, by the door that takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Scans and volumes.
    Hdf5,
    /// Scans and volumes.
    Tiff,
    /// Line integrals and volumes.
    Npy,
    /// Configs.
    Toml,
    /// Angles and voltages.
    Csv,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Kind; 5] = [Kind::Hdf5, Kind::Tiff, Kind::Npy, Kind::Toml, Kind::Csv];

    /// The name that a file of this kind gets.
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Kind::Hdf5 => "scan.nxs",
            Kind::Tiff => "scan.tif",
            Kind::Npy => "sinograms.npy",
            Kind::Toml => "series.toml",
            Kind::Csv => "angles.csv",
        }
    }
}

/// Takes `bytes` as a file of `kind` in `folder`; `true` where some door accepted it.
pub(crate) fn digest(kind: Kind, folder: &Path, bytes: &[u8]) -> bool {
    let path = folder.join(kind.file_name());
    std::fs::write(&path, bytes).expect("the scratch folder takes files");
    match kind {
        Kind::Hdf5 => scan(&path, &InputConfig::default()) | a_volume(&path),
        Kind::Tiff => {
            let input = InputConfig {
                angles: Some("0:180:3".into()),
                flats: Some(path.display().to_string()),
                ..InputConfig::default()
            };
            scan(&path, &input) | a_volume(&path)
        }
        Kind::Npy => line_integrals(&path) | a_volume(&path),
        Kind::Toml => Config::load(Some(&path), &[]).is_ok(),
        Kind::Csv => {
            let table = ElectrochemistryConfig {
                path: path.clone(),
                ..ElectrochemistryConfig::default()
            };
            angles::parse("angles.csv", folder, None).is_ok()
                | report::voltage_rows(&table, folder).is_ok()
        }
    }
}

fn scan(path: &Path, input: &InputConfig) -> bool {
    let summary = io::inspect::scan(path, input, None).is_ok();
    let Ok(scan) = io::open_scan(path, input, None) else {
        return summary;
    };
    let [_, n_rows, n_cols] = scan.projections.shape();
    // what a plan would take at least: one row of every projection, if that is little
    let frames = &scan.projection_frames[..scan.projection_frames.len().min(16)];
    let mut row = vec![0f32; frames.len().saturating_mul(n_cols).min(1 << 16)];
    if row.len() == frames.len() * n_cols {
        let _ = scan.projections.read(frames, n_rows - 1..n_rows, &mut row);
    }
    true
}

fn a_volume(path: &Path) -> bool {
    let verified = volume::verify(path).is_ok();
    let Ok(reader) = volume::open(path) else {
        return verified;
    };
    let _ = reader.read(0..1);
    let _ = reader.read_labels(0..1);
    true
}

fn line_integrals(path: &Path) -> bool {
    use tomodelta::scan::SinogramSource;
    let Ok(source) = npy::open_line_integrals(path, vec![0.0, 1.0, 2.0]) else {
        return false;
    };
    let _ = source.sinograms(0..1);
    let _ = source.projection(2, 0..1);
    true
}
