//! From attenuation to mass.

use crate::config::MassConfig;
use crate::record::MassRecord;

/// Faraday constant \[C/mol\] (CODATA 2018).
const FARADAY: f64 = 96_485.332_12;
const COULOMB_PER_MAH: f64 = 3.6;

/// Mass per unit of the sum of attenuation changes: `dm = dmu / (mu/rho) * V`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MassScale {
    /// \[ug\] per \[1/cm\] in one voxel.
    ug_per_sum: f64,
    rel_err: f64,
}

impl MassScale {
    pub(super) fn new(config: &MassConfig, voxel_size_um: f64) -> MassScale {
        let voxel_cm3 = (voxel_size_um * 1e-4).powi(3);
        MassScale {
            ug_per_sum: voxel_cm3 / config.mass_attenuation_cm2_g * 1e6,
            rel_err: config.mass_attenuation_rel_err,
        }
    }

    /// Mass \[ug\] of a sum of changes \[1/cm\].
    pub(super) fn ug(&self, sum: f64) -> f64 {
        sum * self.ug_per_sum
    }

    /// Error of the mass: that of the sum and that of the mass attenuation, which is common to all.
    pub(super) fn err_ug(&self, sum: f64, sum_err: f64) -> f64 {
        self.ug(sum_err).hypot(self.ug(sum) * self.rel_err)
    }
}

/// Mass \[ug\] that a charge moves: `m = Q M / (z F)` per area, times the area.
pub(super) fn faraday_ug(config: &MassConfig, charge_mah_cm2: f64) -> Option<f64> {
    let g_per_cm2 = charge_mah_cm2 * COULOMB_PER_MAH * config.molar_mass_g_mol
        / (f64::from(config.valence) * FARADAY);
    (config.electrode_area_cm2 > 0.0).then_some(g_per_cm2 * config.electrode_area_cm2 * 1e6)
}

/// Totals: sums of increase and decrease \[1/cm\] with their errors.
pub(super) fn record(
    config: &MassConfig,
    scale: &MassScale,
    sums: [f64; 2],
    errs: [f64; 2],
    charge: Option<f64>,
) -> MassRecord {
    let net = sums[0] - sums[1];
    let net_ug = scale.ug(net);
    let faraday_ug = charge.and_then(|charge| faraday_ug(config, charge));
    let known = faraday_ug.filter(|mass| *mass != 0.0);
    let net_err_ug = scale.err_ug(net, errs[0].hypot(errs[1]));
    MassRecord {
        ratio_err: known
            .map(|mass| (net_err_ug / mass).hypot(net_ug / mass * config.charge_rel_err)),
        increase_ug: scale.ug(sums[0]),
        decrease_ug: scale.ug(sums[1]),
        net_ug,
        net_err_ug,
        faraday_ug,
        ratio: known.map(|mass| net_ug / mass),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_milliampere_hour_per_cm2_is_0_4289_mg_of_sodium_per_cm2() {
        let config = MassConfig {
            electrode_area_cm2: 1.0,
            ..MassConfig::default()
        };
        let mass = faraday_ug(&config, 0.5).unwrap();
        assert!((mass / 428.9 - 1.0).abs() < 1e-4, "{mass}");
        assert_eq!(faraday_ug(&MassConfig::default(), 0.5), None);
        let double = faraday_ug(
            &MassConfig {
                valence: 2,
                ..config
            },
            0.5,
        )
        .unwrap();
        assert!((double / mass - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_cube_of_sodium_weighs_what_its_density_says() {
        // 10 um voxels of sodium: mu = 0.319 cm2/g * 0.968 g/cm3; 1000 of them are 1e-6 cm3 = 0.968 ug
        let scale = MassScale::new(&MassConfig::default(), 10.0);
        let sum = 1000.0 * 0.319 * 0.968;
        assert!((scale.ug(sum) / 0.968 - 1.0).abs() < 1e-12);
        // 3 % of the sum and 2 % of the mass attenuation
        assert!(
            (scale.err_ug(sum, 0.03 * sum) / (0.968 * 0.03f64.hypot(0.02)) - 1.0).abs() < 1e-12
        );
    }
}
