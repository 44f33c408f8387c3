//! `[correct]`: from counts to line integrals.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::StripeConfig;
use super::rules::{Table, parse_range};
use crate::error::{Error, Result};

/// `[correct]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorrectConfig {
    /// How the frames of a group of flats or darks are joined.
    pub average: Average,
    /// Which flats a projection is divided by when there are several groups in time.
    pub flat_in_time: FlatInTime,
    /// A pixel whose flat minus dark is below this is bad: it carries no signal \[counts\].
    pub floor_counts: f32,
    /// Transmission below this is raised to it before the logarithm; counted.
    pub min_transmission: f32,
    /// Scans without flats: `true` takes the data as transmission already; flats that are there are not used then.
    pub without_flats: bool,
    /// Double flat field: blur of the angular mean whose sharp part is taken off \[px\]; 0: none.
    pub double_flat: f64,
    /// Isolated hot pixels.
    pub zinger: ZingerConfig,
    /// Column artefacts of the sinogram.
    pub stripe: StripeConfig,
    /// Detector pixels that answer wrongly, found once over all scans and treated alike in each.
    pub lock: LockConfig,
    /// Drift of the beam's intensity.
    pub beam: BeamConfig,
    /// Large spots of the scintillator.
    pub spots: SpotConfig,
    /// Single-distance phase retrieval.
    pub phase: PhaseConfig,
}

impl Default for CorrectConfig {
    fn default() -> Self {
        CorrectConfig {
            average: Average::Median,
            flat_in_time: FlatInTime::Mean,
            floor_counts: 1.0,
            min_transmission: 1e-4,
            without_flats: false,
            double_flat: 0.0,
            zinger: ZingerConfig::default(),
            stripe: StripeConfig::default(),
            lock: LockConfig::default(),
            beam: BeamConfig::default(),
            spots: SpotConfig::default(),
            phase: PhaseConfig::default(),
        }
    }
}

/// How frames are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Average {
    Mean,
    Median,
}

/// Which flats count for a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlatInTime {
    /// All groups joined.
    Mean,
    /// The group nearest in time.
    Nearest,
    /// Linear between the groups before and after.
    Linear,
}

/// `[correct.zinger]`: bright outliers of the transmission sinogram (Vo et al. 2021, OE 29:17849).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZingerConfig {
    /// Remove them.
    pub enabled: bool,
    /// Relative excess over the mean of the eight neighbours that marks a zinger.
    pub threshold: f32,
    /// Distance of the neighbours \[px\].
    pub size: usize,
    /// Bright ones, dark ones, or both; with dark ones the median of the neighbours takes the place of their mean.
    pub kind: OutlierKind,
    /// Where neighbours are looked for.
    pub domain: ZingerDomain,
    /// Only what stands out from the angles before and after too, and from the noise.
    pub guard: bool,
}

impl Default for ZingerConfig {
    fn default() -> Self {
        ZingerConfig {
            enabled: true,
            threshold: 0.08,
            size: 2,
            kind: OutlierKind::Bright,
            domain: ZingerDomain::Sinogram,
            guard: true,
        }
    }
}

/// `[correct.lock]`: the series lock, see [`crate::correct::lock`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockConfig {
    /// Find the pixels that answer wrongly over all scans of the run, and treat them alike in each.
    pub enabled: bool,
    /// Least anomaly, shared by all scans, of a wrong pixel, as a multiple of what good pixels around it show.
    pub ratio: f32,
    /// Projections of each scan that are looked at, at least (all where there are fewer).
    pub projections: usize,
}

impl Default for LockConfig {
    fn default() -> Self {
        LockConfig {
            enabled: true,
            ratio: 4.0,
            projections: 200,
        }
    }
}

/// `[correct.beam]`: drift of the beam's intensity during a scan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BeamConfig {
    /// What the intensity is taken from.
    pub drift: BeamDrift,
    /// Columns of air, `A..B` or `A..B,C..D` left and right of the sample; empty: the outermost `air_columns` of both edges.
    pub air: String,
    /// Width of the air at the edges where `air` does not say it \[px\].
    pub air_columns: usize,
}

impl Default for BeamConfig {
    fn default() -> Self {
        BeamConfig {
            drift: BeamDrift::None,
            air: String::new(),
            air_columns: 20,
        }
    }
}

impl BeamConfig {
    /// Columns of air by hand, one or two ranges; none when it is left to the edges.
    ///
    /// # Errors
    /// [`Error::Config`] for anything but `A..B` and `A..B,C..D` in the order of the columns.
    pub fn air_ranges(&self) -> Result<Vec<Range<usize>>> {
        if self.air.trim().is_empty() {
            return Ok(Vec::new());
        }
        let ranges: Option<Vec<_>> = self.air.split(',').map(parse_range).collect();
        ranges
            .filter(|ranges| match &ranges[..] {
                [_] => true,
                [left, right] => left.end <= right.start,
                _ => false,
            })
            .ok_or_else(|| {
                Error::config(
                    "correct.beam.air",
                    &self.air,
                    "must be columns A..B, or A..B,C..D left and right of the sample, e.g. 0..30,994..1024",
                )
            })
    }
}

/// What the intensity of the beam is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BeamDrift {
    /// It is taken as steady.
    None,
    /// Air beside the sample.
    Air,
    /// Readings named by `input.monitor`.
    Monitor,
    /// The monitor, then air.
    Both,
}

/// Which outliers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum OutlierKind {
    Bright,
    Dark,
    Both,
}

/// Where the neighbours of a zinger are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZingerDomain {
    /// Angle and column.
    Sinogram,
    /// Row and column of one projection.
    Projection,
    /// Projections, then sinograms.
    Both,
}

/// `[correct.spots]`: large spots that stay in place, found on the open beam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpotConfig {
    /// Find them; they are interpolated like bad pixels.
    pub find: bool,
    /// Bright ones, dark ones, or both.
    pub kind: OutlierKind,
    /// Relative deviation from the surroundings that makes a spot.
    pub threshold: f32,
    /// Relative deviation down to which it grows.
    pub grow: f32,
    /// Sigma of the Gaussian mean that is the surroundings \[px\].
    pub sigma: f32,
}

impl Default for SpotConfig {
    fn default() -> Self {
        SpotConfig {
            find: false,
            kind: OutlierKind::Both,
            threshold: 0.3,
            grow: 0.1,
            sigma: 20.0,
        }
    }
}

/// `[correct.phase]`: single-distance phase retrieval (see `correct::phase` for formula and conventions).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhaseConfig {
    /// Which filter.
    pub method: PhaseMethod,
    /// Distance from the sample to the detector \[mm\].
    pub distance_mm: f64,
    /// Photon energy \[keV\].
    pub energy_kev: f64,
    /// Ratio of the decrement of the refractive index to its imaginary part, as tabulated.
    pub delta_beta: f64,
}

impl Default for PhaseConfig {
    fn default() -> Self {
        PhaseConfig {
            method: PhaseMethod::None,
            distance_mm: 0.0,
            energy_kev: 0.0,
            delta_beta: 0.0,
        }
    }
}

/// Phase retrieval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseMethod {
    /// None: attenuation as measured.
    None,
    /// Paganin et al. 2002, J. Microsc. 206:33.
    Paganin,
    /// Paganin et al. 2020, J. Opt. 22:115607.
    GeneralizedPaganin,
}

impl CorrectConfig {
    pub(super) fn validate(&self) -> Result<()> {
        let table = Table("correct");
        table.within("floor_counts", self.floor_counts, 0.0..=1e9)?;
        table.within("min_transmission", self.min_transmission, 1e-12..=0.5)?;
        table.within("double_flat", self.double_flat, 0.0..=1e4)?;
        let zinger = Table("correct.zinger");
        zinger.positive("threshold", self.zinger.threshold)?;
        zinger.within("size", self.zinger.size as f64, 1.0..=64.0)?;
        let lock = Table("correct.lock");
        lock.within("ratio", self.lock.ratio, 1.0..=1e6)?;
        lock.within("projections", self.lock.projections as f64, 16.0..=1e6)?;
        self.beam.air_ranges()?;
        Table("correct.beam").within("air_columns", self.beam.air_columns as f64, 1.0..=1e6)?;
        let spots = Table("correct.spots");
        spots.within("threshold", self.spots.threshold, 1e-3..=1e3)?;
        spots.within("grow", self.spots.grow, 1e-3..=self.spots.threshold.into())?;
        spots.within("sigma", self.spots.sigma, 0.5..=1e3)?;
        self.phase.validate()?;
        self.stripe.validate()
    }
}

impl PhaseConfig {
    fn validate(&self) -> Result<()> {
        if self.method == PhaseMethod::None {
            return Ok(());
        }
        for (key, value, high) in [
            ("distance_mm", self.distance_mm, 1e6),
            ("energy_kev", self.energy_kev, 1e4),
            ("delta_beta", self.delta_beta, 1e7),
        ] {
            if !(value > 0.0 && value <= high) {
                return Err(Error::config(
                    format!("correct.phase.{key}"),
                    value,
                    format!("is needed by correct.phase.method: above 0, at most {high}"),
                ));
            }
        }
        Ok(())
    }
}
