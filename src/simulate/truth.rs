//! What is true of a simulated series: `truth.json`.

use serde::{Deserialize, Serialize};

use super::series::Series;
use crate::phantom::{Object, Phantom, blur_kernel};

/// Faraday constant \[C/mol\].
const FARADAY: f64 = 96_485.332_12;
/// Mass attenuation of sodium at 44.79 keV \[cm2/g\].
pub(super) const SODIUM_CM2_G: f64 = 0.319;
/// Molar mass of sodium \[g/mol\].
pub(super) const SODIUM_G_MOL: f64 = 22.990;

/// What was simulated: `truth.json`. Numbers are rounded to 10 digits, so that machines with another libm agree.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Truth {
    /// Kind of the series.
    pub preset: String,
    /// Seed.
    pub seed: u64,
    /// `[angles, rows, cols]` of every scan.
    pub shape: [usize; 3],
    /// Columns and rows of a slice, where they are more than the detector's (the axis near its edge); 0: the detector's.
    #[serde(skip_serializing_if = "is_zero")]
    pub slice_cols: usize,
    /// Size of a pixel \[um\].
    pub pixel_size_um: f64,
    /// Names of the scans.
    pub names: Vec<String>,
    /// Rotation axis at the middle row \[px\], per scan.
    pub axis_px: Vec<f64>,
    /// Lean of the axis \[px per row\], per scan.
    pub slope_px_per_row: Vec<f64>,
    /// Zingers in all frames, per scan.
    pub zingers: Vec<u64>,
    /// Photons per pixel and frame in the open beam.
    pub photons: f64,
    /// Blur of the projections, one sigma \[px\].
    pub blur_px: f64,
    /// Row of the interface between alloy and ceramic.
    pub interface_row: f64,
    /// Area of the electrode \[cm2\].
    pub electrode_area_cm2: f64,
    /// Of the species that moves \[cm2/g\].
    pub mass_attenuation_cm2_g: f64,
    /// The scans after the first, compared with the first.
    pub scans: Vec<ScanTruth>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// One later scan against the first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScanTruth {
    /// Name of the scan.
    pub name: String,
    /// `[x, y, z]` as in `alignment.json` \[voxel\].
    pub shift_voxel: [f64; 3],
    /// `[rx, ry, rz]` as in `alignment.json` \[degrees\].
    pub rotation_deg: [f64; 3],
    /// Per slice of the reference grid: sum over the voxels of the increase \[1/cm\], blurred over height as the scan is.
    pub increase_sum_per_cm: Vec<f64>,
    /// Per slice: sum of the decrease, positive \[1/cm\].
    pub decrease_sum_per_cm: Vec<f64>,
    /// Masses \[ug\].
    pub increase_ug: f64,
    /// Positive \[ug\].
    pub decrease_ug: f64,
    /// Increase minus decrease \[ug\].
    pub net_ug: f64,
    /// Charge that moves the net mass \[mAh/cm2\], negative when mass is lost.
    pub charge_mah_cm2: f64,
    /// Grains that appeared.
    pub increase_grains: usize,
    /// Grains that vanished.
    pub decrease_grains: usize,
    /// Every one of them.
    pub grains: Vec<GrainTruth>,
}

/// A grain that appeared or vanished.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrainTruth {
    /// 1 appeared, -1 vanished.
    pub sign: i8,
    /// `[z, y, x]` of its centroid on the reference grid \[voxel\].
    pub centre: [f64; 3],
    /// Volume \[um3\].
    pub volume_um3: f64,
    /// Sum of its attenuation over the voxels, positive \[1/cm\].
    pub sum_per_cm: f64,
}

impl Truth {
    /// Everything but the zingers, from closed forms: the sum over the voxels of a slice is the integral over it.
    pub(super) fn of(series: &Series) -> Truth {
        let cell = series.cell.as_ref();
        let area = cell.map_or(0.0, |cell| {
            std::f64::consts::PI * (cell.electrode_radius_px * series.pixel_cm()).powi(2)
        });
        Truth {
            preset: serde_json::to_value(series.preset)
                .ok()
                .and_then(|value| value.as_str().map(str::to_string))
                .unwrap_or_default(),
            seed: series.seed,
            shape: [series.n_angles, series.n_rows, series.n_cols],
            slice_cols: if series.slice_cols == series.n_cols {
                0
            } else {
                series.slice_cols
            },
            pixel_size_um: series.pixel_size_um,
            names: series.scans.iter().map(|scan| scan.name.clone()).collect(),
            axis_px: series
                .scans
                .iter()
                .map(|scan| rounded(scan.axis_px))
                .collect(),
            slope_px_per_row: series
                .scans
                .iter()
                .map(|scan| rounded(scan.slope_px_per_row))
                .collect(),
            zingers: Vec::new(),
            photons: series.detector.photons,
            blur_px: series.blur_px,
            interface_row: cell.map_or(0.0, |cell| rounded(cell.interface_z + series.middle_row())),
            electrode_area_cm2: rounded(area),
            mass_attenuation_cm2_g: SODIUM_CM2_G,
            scans: (1..series.scans.len())
                .map(|index| ScanTruth::of(series, index, area))
                .collect(),
        }
    }
}

impl ScanTruth {
    fn of(series: &Series, index: usize, area_cm2: f64) -> ScanTruth {
        let plan = &series.scans[index];
        let (plus, minus) = series.change(index);
        let (increase_sum_per_cm, decrease_sum_per_cm) =
            (per_slice(series, &plus), per_slice(series, &minus));
        let ug = |sums: &[f64]| {
            sums.iter().sum::<f64>() * series.pixel_cm().powi(3) / SODIUM_CM2_G * 1e6
        };
        let (increase_ug, decrease_ug) = (ug(&increase_sum_per_cm), ug(&decrease_sum_per_cm));
        let net_ug = increase_ug - decrease_ug;
        // m = Q M / (z F), with Q in mAh
        let charge = if area_cm2 > 0.0 {
            net_ug * 1e-6 * FARADAY / SODIUM_G_MOL / 3.6 / area_cm2
        } else {
            0.0
        };
        let grains = plus
            .objects
            .iter()
            .map(|g| (1, g))
            .chain(minus.objects.iter().map(|g| (-1, g)));
        ScanTruth {
            name: plan.name.clone(),
            shift_voxel: plan.motion.shift,
            rotation_deg: {
                let [rx, ry] = plan.motion.tilt_rad;
                [rx, ry, plan.motion.rotation_rad].map(|angle| rounded(angle.to_degrees()))
            },
            increase_grains: plus.objects.len(),
            decrease_grains: minus.objects.len(),
            grains: grains
                .map(|(sign, grain)| GrainTruth::of(series, sign, grain))
                .collect(),
            increase_sum_per_cm,
            decrease_sum_per_cm,
            increase_ug: rounded(increase_ug),
            decrease_ug: rounded(decrease_ug),
            net_ug: rounded(net_ug),
            charge_mah_cm2: rounded(charge),
        }
    }
}

impl GrainTruth {
    fn of(series: &Series, sign: i8, grain: &Object) -> GrainTruth {
        let middle = (series.slice_cols as f64 - 1.0) / 2.0;
        let [x, y, z] = grain.centre;
        GrainTruth {
            sign,
            centre: [z + series.middle_row(), middle - y, middle + x].map(rounded),
            volume_um3: rounded(grain.volume() * series.pixel_size_um.powi(3)),
            sum_per_cm: rounded(grain.value * grain.volume()),
        }
    }
}

/// The mass of each slice, blurred over height as the projections are.
fn per_slice(series: &Series, grains: &Phantom) -> Vec<f64> {
    let kernel = blur_kernel(series.blur_px);
    let reach = (kernel.len() / 2) as f64;
    (0..series.n_rows)
        .map(|row| {
            let z = row as f64 - series.middle_row() - reach;
            let heights = kernel
                .iter()
                .enumerate()
                .map(|(k, weight)| (z + k as f64, weight));
            rounded(
                heights
                    .map(|(z, weight)| weight * grains.mass_between(z - 0.5, z + 0.5))
                    .sum(),
            )
        })
        .collect()
}

/// To 10 significant digits.
fn rounded(value: f64) -> f64 {
    // adding 0 makes -0, the sum of nothing, a plain 0
    format!("{:.9e}", value + 0.0).parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconstruct::geometry::Grid;
    use crate::simulate::{Options, Preset};
    use ndarray::{Array3, Axis};

    #[test]
    fn sums_and_masses_are_those_of_the_voxels() {
        let series = Series::plan(&Options {
            blur_px: Some(0.0),
            ..Options::new(Preset::Sample)
        })
        .unwrap();
        let truth = series.truth();
        let (plus, minus) = series.change(1);
        let grid = Grid::square(series.n_cols);
        let shape = (series.n_rows, series.n_cols, series.n_cols);
        for (grains, sums, ug, sign) in [
            (
                plus,
                &truth.scans[0].increase_sum_per_cm,
                truth.scans[0].increase_ug,
                1,
            ),
            (
                minus,
                &truth.scans[0].decrease_sum_per_cm,
                truth.scans[0].decrease_ug,
                -1,
            ),
        ] {
            let mut voxels = Array3::<f32>::zeros(shape);
            grains.add_voxels(
                0..series.n_rows,
                series.middle_row(),
                &grid,
                voxels.view_mut(),
            );
            let found: Vec<f64> = voxels
                .axis_iter(Axis(0))
                .map(|slice| slice.iter().map(|v| f64::from(*v)).sum())
                .collect();
            let top = sums.iter().copied().fold(0.0, f64::max);
            let worst = |a: &[f64], b: &[f64]| {
                a.iter()
                    .zip(b)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f64::max)
            };
            // f32 sums of at most 16 parts per voxel
            assert!(
                worst(&found, sums) < 1e-5 * top,
                "{} of {top}",
                worst(&found, sums)
            );
            assert!(worst(&found[1..], sums) > 0.01 * top, "the check is blind");
            // volume of sodium times its density
            let volume: f64 = truth.scans[0]
                .grains
                .iter()
                .filter(|g| g.sign == sign)
                .map(|g| g.volume_um3)
                .sum();
            assert!(
                (volume * 1e-12 * 0.968 * 1e6 - ug).abs() < 1e-6 * ug,
                "{volume} {ug}"
            );
        }
    }

    #[test]
    fn the_blur_spreads_the_sums_and_keeps_the_mass() {
        let truth = |blur| {
            Series::plan(&Options {
                blur_px: Some(blur),
                ..Options::new(Preset::Demo)
            })
            .unwrap()
            .truth()
        };
        let (sharp, blurred) = (truth(0.0), truth(0.8));
        let (a, b) = (&sharp.scans[0], &blurred.scans[0]);
        assert!((a.increase_ug / b.increase_ug - 1.0).abs() < 1e-8);
        let top = |sums: &[f64]| sums.iter().copied().fold(0.0, f64::max);
        assert!(top(&b.increase_sum_per_cm) < 0.99 * top(&a.increase_sum_per_cm));
    }

    #[test]
    fn the_charge_is_that_of_faraday() {
        // 0.5 mAh/cm2 is 0.4289 mg/cm2 of sodium
        let truth = Series::plan(&Options::new(Preset::Demo)).unwrap().truth();
        assert_eq!(truth.scans.len(), 2);
        for scan in &truth.scans {
            let expected = scan.charge_mah_cm2 / 0.5 * 428.9 * truth.electrode_area_cm2;
            assert!(
                (expected / scan.net_ug - 1.0).abs() < 2e-4,
                "{expected} {}",
                scan.net_ug
            );
            assert!(
                scan.charge_mah_cm2 > 0.1,
                "the demo plates more than it strips: {}",
                scan.charge_mah_cm2
            );
        }
    }

    #[test]
    fn nothing_changes_in_the_null_series() {
        let truth = Series::plan(&Options::new(Preset::Null)).unwrap().truth();
        assert!(
            truth.scans[0].grains.is_empty()
                && truth.scans[0].increase_sum_per_cm.iter().all(|v| *v == 0.0)
        );
        assert!(truth.scans[0].shift_voxel[0] != 0.0);
    }

    #[test]
    fn rounding_keeps_ten_digits() {
        assert_eq!(rounded(1.234_567_890_123), 1.234_567_890);
        assert_eq!(rounded(0.0), 0.0);
    }
}
