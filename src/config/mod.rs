//! Every parameter of a run.
//!
//! One table per stage, named as its module. Defaults stand once, in `Default`; `default.toml` is the commented
//! text that `tomodelta config` prints, and a test holds it to `Default`. Unknown keys are errors that name the
//! nearest known key. Flags are laid over the file as `key=value` pairs before anything is judged.

mod align;
mod center;
mod correct;
mod difference;
mod parse;
mod reconstruct;
mod rules;
mod run;
mod series;
mod stripe;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use align::{AlignConfig, AlignMethod};
pub use center::{CenterConfig, CenterMethod};
pub use correct::{
    Average, BeamConfig, BeamDrift, CorrectConfig, FlatInTime, LockConfig, OutlierKind,
    PhaseConfig, PhaseMethod, SpotConfig, ZingerConfig, ZingerDomain,
};
pub use difference::{DifferenceConfig, MassConfig, NoiseSource};
pub use parse::parse;
pub use reconstruct::{
    Acquisition, FilterWindow, GpuKernel, GridConfig, ReconstructConfig, ReconstructMethod,
    Truncation,
};
pub use run::{DeviceChoice, RunConfig, VolumeFormat};
pub use series::{
    AngleUnit, BadProjections, ElectrochemistryConfig, InputConfig, ScanConfig, SeriesConfig,
};
pub use stripe::{StripeConfig, StripeMethod};

/// The commented default config.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// The reference that stands for the scan before.
pub const PREVIOUS: &str = "previous";

/// What the user wants: the whole of `series.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The series as a whole.
    pub series: SeriesConfig,
    /// How scans are read.
    pub input: InputConfig,
    /// Machine and output.
    pub run: RunConfig,
    /// From counts to line integrals.
    pub correct: CorrectConfig,
    /// The rotation axis.
    pub center: CenterConfig,
    /// From line integrals to slices.
    pub reconstruct: ReconstructConfig,
    /// Onto the grid of the reference.
    pub align: AlignConfig,
    /// Subtraction and what is measured on it.
    pub difference: DifferenceConfig,
    /// From attenuation to mass; absent: no mass columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mass: Option<MassConfig>,
    /// Voltage and current over time; absent: no such panel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub electrochemistry: Option<ElectrochemistryConfig>,
    /// The scans, in the order of time.
    pub scan: Vec<ScanConfig>,
}

impl Config {
    /// Reads a config file and lays `key=value` pairs over it; paths become relative to the file's folder.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Input`] (not TOML), [`Error::UnknownKey`], [`Error::Config`].
    pub fn load(path: Option<&Path>, overrides: &[(String, String)]) -> Result<Config> {
        let (text, origin) = match path {
            Some(path) => (
                std::fs::read_to_string(path).map_err(Error::io("read", path))?,
                path.display().to_string(),
            ),
            None => (String::new(), "the flags".to_string()),
        };
        let mut config = parse(&text, &origin, overrides)?;
        if let Some(folder) = path.and_then(Path::parent) {
            config.resolve_paths(folder);
        }
        config.validate()?;
        Ok(config)
    }

    fn resolve_paths(&mut self, folder: &Path) {
        self.series.output = folder.join(&self.series.output);
        if !["", "none"].contains(&self.run.scratch.as_str()) {
            self.run.scratch = folder.join(&self.run.scratch).display().to_string();
        }
        for scan in &mut self.scan {
            scan.path = folder.join(&scan.path);
        }
        if let Some(table) = &mut self.electrochemistry {
            table.path = folder.join(&table.path);
        }
    }

    /// The input table of one scan: its own over the common one.
    #[must_use]
    pub fn input_of(&self, scan: &ScanConfig) -> InputConfig {
        let common = &self.input;
        match &scan.input {
            None => common.clone(),
            Some(own) => InputConfig {
                data: own.data.clone().or_else(|| common.data.clone()),
                flats: own.flats.clone().or_else(|| common.flats.clone()),
                darks: own.darks.clone().or_else(|| common.darks.clone()),
                angles: own.angles.clone().or_else(|| common.angles.clone()),
                image_key: own.image_key.clone().or_else(|| common.image_key.clone()),
                detector: own.detector.clone().or_else(|| common.detector.clone()),
                angle_unit: own.angle_unit.or(common.angle_unit),
                monitor: own.monitor.clone().or_else(|| common.monitor.clone()),
                shifts: own.shifts.clone().or_else(|| common.shifts.clone()),
                bad_projections: own.bad_projections.or(common.bad_projections),
                exclude: if own.exclude.is_empty() {
                    common.exclude.clone()
                } else {
                    own.exclude.clone()
                },
            },
        }
    }

    /// The table of the rotation axis of one scan: an axis given for it over the common one.
    #[must_use]
    pub fn center_of(&self, scan: &ScanConfig) -> CenterConfig {
        let mut center = self.center.clone();
        if scan.axis.is_some() {
            center.value = scan.axis;
            center.slope = scan.axis_slope.unwrap_or(0.0);
        }
        center
    }

    /// The scan that `scan` is compared with; `None` for the series' reference itself, and for the first scan where each is
    /// compared with the previous one (`reference = "previous"`, unless a scan has that name).
    #[must_use]
    pub fn reference_of<'a>(&'a self, scan: &'a ScanConfig) -> Option<&'a str> {
        let common = if self.series.reference.is_empty() {
            self.scan.first().map_or("", |first| first.name.as_str())
        } else {
            self.series.reference.as_str()
        };
        let reference = scan.reference.as_deref().unwrap_or(common);
        if reference == PREVIOUS && self.scan.iter().all(|other| other.name != PREVIOUS) {
            let place = self.scan.iter().position(|other| other.name == scan.name)?;
            return Some(self.scan.get(place.checked_sub(1)?)?.name.as_str());
        }
        (reference != scan.name).then_some(reference)
    }

    /// Judges every value; the first that breaks a rule is the error.
    ///
    /// # Errors
    /// [`Error::Config`] with the key, the value and the rule.
    pub fn validate(&self) -> Result<()> {
        self.series.validate()?;
        self.run.validate()?;
        self.correct.validate()?;
        self.center.validate()?;
        self.reconstruct.validate()?;
        self.align.validate()?;
        self.difference.validate()?;
        if let Some(mass) = &self.mass {
            mass.validate()?;
        }
        self.validate_scans()
    }
}
