//! Synthetic series with their ground truth.
//!
//! [`Series::plan`] turns [`Options`] into a cell, its scans and a camera; [`write_with`] takes the scans frame by frame
//! and writes them as a beamline would, beside `series.toml` that runs them and `truth.json` that says what is true.
//! Everything follows from the seed: the same options give the same bytes whatever the number of threads.
//!
//! The model of a scan: counts = dark + gain * Poisson(open beam * drift * response * exp(-line integral)) + read-out
//! noise, plus zingers, where the line integral is the exact one of an analytic phantom averaged over the pixel and
//! blurred by the optics (the integral is blurred rather than the light, so that what a reconstruction should show is
//! exactly the phantom under the same blur). The
//! axis of rotation leans by a shift per row, so row r of the detector looks at height r everywhere.

mod cell;
mod cloth;
mod defects;
mod detector;
mod frames;
mod large;
mod papers;
mod placer;
mod random_cell;
mod series;
mod truth;
mod writers;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::progress::Progress;

pub use cell::{ALLOY, CARBON, CERAMIC, Cell, SODIUM, Site, TUBE};
pub use detector::{DetectorPlan, EXACT_BELOW_PHOTONS, FrameJob, FrameKind};
pub use series::{ScanPlan, Series};
pub use truth::{GrainTruth, ScanTruth, Truth};

/// Size and kind of a synthetic series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Small enough for git: the sample in `sample_projections`, pristine as NXtomo and stripped as TIFF.
    Sample,
    /// The demo: a pristine scan and two later ones, shifted.
    Demo,
    /// Two scans of a sample that does not change: shifted, with noise of their own.
    Null,
    /// A pristine and a stripped scan, shifted and turned about the axis.
    Rigid,
    /// Two scans of a sample whose geometry, change, motion (also tilts) and light follow from the seed.
    Random,
    /// One large scan, to measure memory and speed.
    Large,
}

/// Over which angles a scan is taken, and where its axis stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Turn {
    /// 180 degrees, the axis in the middle.
    Half,
    /// 360 degrees, the axis in the middle.
    Full,
    /// 360 degrees, the axis near the left edge: the sample is wider than the detector (half acquisition).
    OffsetLeft,
    /// The same near the right edge.
    OffsetRight,
}

/// How scans are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// NXtomo, one uncompressed chunk per frame.
    Nxtomo,
    /// NXtomo, one chunk per frame, shuffle and gzip.
    NxtomoGzip,
    /// A folder with `projections`, `flats`, `darks` and `angles.txt`.
    Tiff,
}

/// What to simulate. `None` is the preset's own choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Size and kind.
    pub preset: Preset,
    /// Everything random follows from it.
    pub seed: u64,
    /// Detector columns.
    pub cols: Option<usize>,
    /// Detector rows.
    pub rows: Option<usize>,
    /// Projections, both ends of the turn included.
    pub angles: Option<usize>,
    /// Half or full turn, and where the axis stands.
    pub turn: Turn,
    /// Photons per pixel and frame in the open beam.
    pub photons: Option<f64>,
    /// Blur of scintillator and lens, one sigma \[px\].
    pub blur_px: Option<f64>,
    /// Photon and read-out noise.
    pub noise: bool,
    /// Stripes, zingers and beam drift: 0 none, 1 as usual.
    pub artefacts: f64,
    /// A cell wider than the field of view.
    pub truncated: bool,
    /// Shift of every later scan \[voxel\], `[x, y, z]` as in `alignment.json`.
    pub shift_voxel: Option<[f64; 3]>,
    /// Turn of every later scan about the axis \[degrees\].
    pub rotation_deg: Option<f64>,
    /// Format of every scan.
    pub format: Option<Format>,
}

impl Options {
    /// The preset as it is.
    #[must_use]
    pub fn new(preset: Preset) -> Self {
        Options {
            preset,
            seed: 2025,
            cols: None,
            rows: None,
            angles: None,
            turn: Turn::Half,
            photons: None,
            blur_px: None,
            noise: true,
            artefacts: 1.0,
            truncated: false,
            shift_voxel: None,
            rotation_deg: None,
            format: None,
        }
    }
}

/// Writes a series (`series.toml`, scans, `truth.json`) into `folder`.
///
/// # Errors
/// Those of writing; [`Error::OutputExists`] without `overwrite`.
pub fn write(folder: &Path, preset: Preset, overwrite: bool, progress: &Progress) -> Result<Truth> {
    write_with(folder, &Options::new(preset), overwrite, progress)
}

/// As [`write()`], with options. `series.toml` is written last, so a folder that has it is complete.
///
/// # Errors
/// [`Error::Config`] for options that make no scan; [`Error::OutputExists`] without `overwrite`; those of writing.
pub fn write_with(
    folder: &Path,
    options: &Options,
    overwrite: bool,
    progress: &Progress,
) -> Result<Truth> {
    let series = Series::plan(options)?;
    let mut files = vec![
        papers::SERIES.to_string(),
        papers::TRUTH.to_string(),
        papers::VOLTAGE.to_string(),
    ];
    files.extend(series.scans.iter().map(|scan| scan.file.clone()));
    for file in &files {
        let path = folder.join(file);
        if path.exists() && !overwrite {
            return Err(Error::OutputExists { path });
        }
    }
    std::fs::create_dir_all(folder).map_err(Error::io("create folder", folder))?;
    // a half-written series must not look complete
    for file in &files[..3] {
        let path = folder.join(file);
        if path.exists() {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    let mut truth = series.truth();
    for index in 0..series.scans.len() {
        let zingers = frames::take(&series, index, folder, progress)?;
        truth.zingers.push(zingers);
    }
    papers::write(folder, &series, &truth)?;
    Ok(truth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    fn tiny(preset: Preset) -> Options {
        Options {
            cols: Some(48),
            rows: Some(24),
            angles: Some(7),
            ..Options::new(preset)
        }
    }

    /// Every file of a folder with its bytes.
    fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut out = BTreeMap::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(here) = folders.pop() {
            for entry in std::fs::read_dir(&here).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    out.insert(
                        path.strip_prefix(folder).unwrap().to_path_buf(),
                        std::fs::read(&path).unwrap(),
                    );
                }
            }
        }
        out
    }

    fn simulate(options: &Options, threads: usize) -> BTreeMap<PathBuf, Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| write_with(folder.path(), options, false, &Progress::new(true)))
            .unwrap();
        content(folder.path())
    }

    #[test]
    fn the_same_options_give_the_same_bytes_on_any_number_of_threads() {
        for preset in [Preset::Sample, Preset::Large] {
            let options = tiny(preset);
            let one = simulate(&options, 1);
            assert!(one == simulate(&options, 2), "{preset:?}");
            assert!(
                one != simulate(&Options { seed: 1, ..options }, 1),
                "another seed gives another series"
            );
        }
    }

    #[test]
    fn a_sample_holds_both_containers_and_what_runs_them() {
        let names: Vec<String> = simulate(&tiny(Preset::Sample), 2)
            .into_keys()
            .map(|path| path.display().to_string())
            .collect();
        for name in [
            "series.toml",
            "truth.json",
            "voltage.csv",
            "pristine.nxs",
            "stripped/angles.txt",
        ] {
            assert!(
                names.iter().any(|other| other == name),
                "{name} in {names:?}"
            );
        }
        assert_eq!(
            names
                .iter()
                .filter(|name| name.starts_with("stripped/projections/"))
                .count(),
            7
        );
        assert_eq!(
            names
                .iter()
                .filter(|name| name.starts_with("stripped/flats/"))
                .count(),
            20
        );
        assert!(names.iter().all(|name| !name.contains("partial")));
    }

    #[test]
    fn the_config_of_every_preset_is_valid_and_finds_its_files() {
        for preset in [
            Preset::Sample,
            Preset::Demo,
            Preset::Null,
            Preset::Rigid,
            Preset::Random,
            Preset::Large,
        ] {
            let folder = tempfile::tempdir().unwrap();
            let truth =
                write_with(folder.path(), &tiny(preset), false, &Progress::new(true)).unwrap();
            let config =
                crate::Config::load(Some(&folder.path().join("series.toml")), &[]).unwrap();
            assert!(
                config.scan.iter().all(|scan| scan.path.exists()),
                "{preset:?}"
            );
            assert_eq!(config.mass.is_some(), preset != Preset::Large);
            assert!(
                config
                    .electrochemistry
                    .is_none_or(|table| table.path.exists())
            );
            let read: Truth = serde_json::from_str(
                &std::fs::read_to_string(folder.path().join("truth.json")).unwrap(),
            )
            .unwrap();
            assert_eq!(read, truth);
            assert_eq!(truth.zingers.len(), truth.names.len());
        }
    }

    #[test]
    fn an_existing_series_is_kept_unless_told_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let options = tiny(Preset::Sample);
        let quiet = Progress::new(true);
        write_with(folder.path(), &options, false, &quiet).unwrap();
        let before = content(folder.path());
        let error = write_with(
            folder.path(),
            &Options {
                seed: 9,
                ..options.clone()
            },
            false,
            &quiet,
        )
        .unwrap_err();
        assert!(matches!(error, Error::OutputExists { .. }), "{error}");
        assert!(before == content(folder.path()));
        write_with(
            folder.path(),
            &Options {
                seed: 9,
                ..options.clone()
            },
            true,
            &quiet,
        )
        .unwrap();
        assert!(before != content(folder.path()));
        // a folder of that name with something of the user's in it is not removed
        std::fs::write(folder.path().join("stripped/notes.txt"), "mine").unwrap();
        let error = write_with(folder.path(), &options, true, &quiet).unwrap_err();
        assert!(error.to_string().contains("notes.txt"), "{error}");
        assert!(folder.path().join("stripped/notes.txt").exists());
    }

    #[test]
    fn options_that_make_no_scan_are_refused() {
        let quiet = Progress::new(true);
        let base = tiny(Preset::Demo);
        for (options, key) in [
            (
                Options {
                    cols: Some(3),
                    ..base.clone()
                },
                "cols",
            ),
            (
                Options {
                    angles: Some(1),
                    ..base.clone()
                },
                "angles",
            ),
            (
                Options {
                    photons: Some(f64::NAN),
                    ..base.clone()
                },
                "photons",
            ),
            (
                Options {
                    blur_px: Some(-0.1),
                    ..base.clone()
                },
                "blur",
            ),
            (
                Options {
                    artefacts: -1.0,
                    ..base.clone()
                },
                "artefacts",
            ),
            (
                Options {
                    shift_voxel: Some([40.0, 0.0, 0.0]),
                    ..base.clone()
                },
                "shift",
            ),
            (
                Options {
                    rotation_deg: Some(f64::INFINITY),
                    ..base.clone()
                },
                "rotation",
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let error =
                write_with(&folder.path().join("new"), &options, false, &quiet).unwrap_err();
            assert!(
                matches!(&error, Error::Config { key: found, .. } if found == key),
                "{error}"
            );
            assert!(
                !folder.path().join("new").exists(),
                "nothing is left behind"
            );
        }
    }
}
