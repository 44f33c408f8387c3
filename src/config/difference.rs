//! `[difference]` and `[mass]`: the subtraction and what is measured on it.

use serde::{Deserialize, Serialize};

use super::rules::Table;
use crate::error::{Error, Result};

/// `[difference]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DifferenceConfig {
    /// Fit gain and offset of the target over unchanged material first.
    pub match_intensity: bool,
    /// Smoothing of both volumes before the subtraction: sigma of a Gaussian \[voxel\], 0: none.
    pub smooth_sigma: f64,
    /// Median of the difference over a cube of this edge \[voxel\] instead, 0: none.
    pub smooth_median: usize,
    /// Where the noise comes from.
    pub noise: NoiseSource,
    /// Widen the threshold at edges of the reference by what unchanged edges leave in the difference.
    pub edge_noise: bool,
    /// Share of the slices on which the null difference is made; 0: as many as the noise needs.
    pub null_share: f64,
    /// Change counts beyond this multiple of the noise.
    pub sigma: f64,
    /// Share of false voxels among those that count as changed; given: `sigma` is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fdr: Option<f64>,
    /// Change counts beyond this \[1/cm\] (1/px where the pixel size is unknown); given: `sigma` is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absolute: Option<f64>,
    /// Sums take in so many voxels around those of grains; 0: the voxels beyond the threshold, those too few for a grain too.
    pub grow: usize,
    /// 6, 18 or 26 neighbours join a grain.
    pub connectivity: u8,
    /// Smaller grains are noise: dropped from the labels and from `grains.csv`, counted \[voxels\].
    pub min_grain_voxels: u64,
    /// Voxels outside this radius, as a share of half the width, are left out of every measurement.
    pub radius: f64,
    /// Slices at which nothing is measured at each end of the volume.
    pub skip_slices: usize,
    /// Bins of `histogram.csv`.
    pub histogram_bins: usize,
}

impl Default for DifferenceConfig {
    fn default() -> Self {
        DifferenceConfig {
            match_intensity: true,
            smooth_sigma: 0.0,
            smooth_median: 0,
            noise: NoiseSource::Auto,
            edge_noise: true,
            null_share: 0.0,
            sigma: 5.0,
            fdr: None,
            absolute: None,
            grow: 2,
            connectivity: 26,
            min_grain_voxels: 8,
            radius: 0.95,
            skip_slices: 0,
            histogram_bins: 400,
        }
    }
}

/// Where the noise of a difference comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoiseSource {
    /// The larger of the two.
    Auto,
    /// Even against odd projections of both scans.
    Halves,
    /// The unchanged voxels of the difference; no halves are reconstructed.
    Voxels,
}

/// `[mass]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MassConfig {
    /// Mass attenuation of the moving species at the beam's energy \[cm2/g\].
    pub mass_attenuation_cm2_g: f64,
    /// Its relative uncertainty.
    pub mass_attenuation_rel_err: f64,
    /// Area of the electrode \[cm2\], for the Faraday check; 0: no check.
    pub electrode_area_cm2: f64,
    /// Molar mass of the species \[g/mol\].
    pub molar_mass_g_mol: f64,
    /// Electrons per ion.
    pub valence: u32,
    /// Relative uncertainty of charge and area together, for the error of the ratio.
    pub charge_rel_err: f64,
}

impl Default for MassConfig {
    fn default() -> Self {
        // sodium at 44.79 keV (NIST), one electron
        MassConfig {
            mass_attenuation_cm2_g: 0.319,
            mass_attenuation_rel_err: 0.02,
            electrode_area_cm2: 0.0,
            molar_mass_g_mol: 22.990,
            valence: 1,
            charge_rel_err: 0.01,
        }
    }
}

impl DifferenceConfig {
    pub(super) fn validate(&self) -> Result<()> {
        let table = Table("difference");
        table.positive("sigma", self.sigma)?;
        table.within("smooth_sigma", self.smooth_sigma, 0.0..=20.0)?;
        if let Some(absolute) = self.absolute {
            table.positive("absolute", absolute)?;
        }
        let rule = "must be 0 (none), 3, 5 or 7 voxels";
        table.one_of("smooth_median", self.smooth_median, &[0, 3, 5, 7], rule)?;
        if self.smooth_median > 0 && self.smooth_sigma > 0.0 {
            return Err(Error::config(
                "difference.smooth_median",
                self.smooth_median,
                "excludes difference.smooth_sigma: set one of the two to 0",
            ));
        }
        table.within("null_share", self.null_share, 0.0..=1.0)?;
        if let Some(rate) = self.fdr {
            table.within("fdr", rate, 1e-9..=0.5)?;
            if self.absolute.is_some() {
                return Err(Error::config(
                    "difference.fdr",
                    rate,
                    "excludes difference.absolute: leave one of the two out",
                ));
            }
        }
        table.within("grow", self.grow as f64, 0.0..=8.0)?;
        let rule = "must be 6, 18 or 26";
        table.one_of("connectivity", self.connectivity, &[6, 18, 26], rule)?;
        table.within("radius", self.radius, 0.01..=2.0)?;
        table.within(
            "histogram_bins",
            self.histogram_bins as f64,
            2.0..=100_000.0,
        )
    }
}

impl MassConfig {
    pub(super) fn validate(&self) -> Result<()> {
        let table = Table("mass");
        table.positive("mass_attenuation_cm2_g", self.mass_attenuation_cm2_g)?;
        table.within(
            "mass_attenuation_rel_err",
            self.mass_attenuation_rel_err,
            0.0..=1.0,
        )?;
        table.within("electrode_area_cm2", self.electrode_area_cm2, 0.0..=1e6)?;
        table.positive("molar_mass_g_mol", self.molar_mass_g_mol)?;
        table.within("valence", self.valence, 1.0..=8.0)?;
        table.within("charge_rel_err", self.charge_rel_err, 0.0..=1.0)
    }
}
