//! What stands beside the scans: `series.toml` that runs them, `truth.json`, and a voltage table.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::series::{ScanPlan, Series};
use super::truth::{SODIUM_CM2_G, SODIUM_G_MOL, Truth};
use super::{Format, Preset};
use crate::error::{Error, Result};
use crate::phantom::SplitMix64;

pub(super) const SERIES: &str = "series.toml";
pub(super) const TRUTH: &str = "truth.json";
pub(super) const VOLTAGE: &str = "voltage.csv";

/// Midnight of the day on which every series begins at ten.
const DAY: &str = "2025-03-25";
const FIRST_SCAN_S: f64 = 10.0 * 3600.0;
/// A scan and the rest before it \[s\].
const SCAN_S: f64 = 600.0;
/// Current while the cell is charged \[mA/cm2\].
const CURRENT: f64 = 1.0;

/// Seconds after the first scan at which a scan starts: the current has to flow in between.
fn seconds_until(truth: &Truth, index: usize) -> f64 {
    let charge = |index: usize| {
        if index == 0 {
            0.0
        } else {
            truth.scans[index - 1].charge_mah_cm2
        }
    };
    (1..=index)
        .map(|k| SCAN_S + ((charge(k) - charge(k - 1)).abs() / CURRENT * 3600.0).round())
        .sum()
}

/// Start of a scan, RFC 3339.
pub(super) fn start_of(series: &Series, scan: &ScanPlan) -> String {
    let index = series
        .scans
        .iter()
        .position(|other| other.name == scan.name)
        .unwrap_or(0);
    time(seconds_until(&series.truth(), index))
}

/// A time of the series' day; later days are reached by the clock running on in March.
fn time(seconds: f64) -> String {
    let total = (FIRST_SCAN_S + seconds) as u64;
    let (days, rest) = (total / 86_400, total % 86_400);
    let (year_month, first) = DAY.split_at(8);
    let day = first.parse::<u64>().unwrap_or(1) + days;
    if day > 31 {
        // a charge of weeks is no cell: stay on the last second of the month
        return format!("{year_month}31T23:59:59Z");
    }
    format!(
        "{year_month}{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Writes all three; `series.toml` last.
pub(super) fn write(folder: &Path, series: &Series, truth: &Truth) -> Result<()> {
    let put = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(Error::io("write", &path))
    };
    let mut json = serde_json::to_string_pretty(truth).map_err(|error| {
        Error::input(
            folder.join(TRUTH),
            error.to_string(),
            "report this as a bug",
        )
    })?;
    json.push('\n');
    put(TRUTH, json)?;
    if series.cell.is_some() {
        put(VOLTAGE, voltage(series, truth))?;
    }
    put(SERIES, toml(series, truth))
}

/// A cell that polarises while current flows and rests during the scans.
fn voltage(series: &Series, truth: &Truth) -> String {
    let mut random = SplitMix64::keyed(series.seed, &[0x7017]);
    let mut text = "time_s,voltage_v,current_ma_cm2\n".to_string();
    let charge = |index: usize| {
        if index == 0 {
            0.0
        } else {
            truth.scans[index - 1].charge_mah_cm2
        }
    };
    let end = seconds_until(truth, series.scans.len() - 1) + SCAN_S;
    let (mut at, mut rest_v) = (0.0, 0.0);
    while at <= end {
        // between the end of scan k - 1 and the start of scan k
        let flowing = (1..series.scans.len()).find_map(|k| {
            let (from, to) = (
                seconds_until(truth, k - 1) + SCAN_S,
                seconds_until(truth, k),
            );
            (at > from && at <= to).then(|| {
                (
                    (at - from) / (to - from),
                    (charge(k) - charge(k - 1)).signum(),
                )
            })
        });
        let (volts, current) = match flowing {
            // a flat plateau that rises steeply when the interface runs out of metal
            Some((share, sign)) => (
                sign * (0.055 + 0.02 * share + 0.18 * share.powi(12)),
                sign * CURRENT,
            ),
            None => (0.3 * rest_v, 0.0),
        };
        rest_v = volts;
        let _ = writeln!(
            text,
            "{at:.0},{:.4},{current:.2}",
            volts + random.uniform(-0.0004, 0.0004)
        );
        at += 60.0;
    }
    text
}

/// The config that runs the series.
fn toml(series: &Series, truth: &Truth) -> String {
    let preset = truth.preset.as_str();
    let mut text = format!(
        "# A simulated series (`tomodelta simulate --preset {preset}`); what is true of it stands in {TRUTH}.\n\
         # Run it:  tomodelta run {SERIES}\n\n\
         [series]\n\
         name = \"{}\"\n\
         output = \"out\"\n",
        title(series.preset)
    );
    if series.scans.len() > 1 {
        let _ = writeln!(text, "reference = \"{}\"", series.scans[0].name);
    }
    if series.scans.iter().any(|scan| scan.format == Format::Tiff) {
        let _ = writeln!(
            text,
            "pixel_size_um = {}  # TIFF folders do not tell it",
            series.pixel_size_um
        );
    }
    for (index, scan) in series.scans.iter().enumerate() {
        let _ = write!(
            text,
            "\n[[scan]]\nname = \"{}\"\npath = \"{}\"\n",
            scan.name, scan.file
        );
        if series.cell.is_some() {
            let _ = writeln!(text, "time = \"{}\"", time(seconds_until(truth, index)));
        }
        if let Some(change) = index
            .checked_sub(1)
            .and_then(|index| truth.scans.get(index))
            && change.charge_mah_cm2 != 0.0
        {
            let _ = writeln!(
                text,
                "charge_mah_cm2 = {}  # since the reference; positive: metal arrives",
                (change.charge_mah_cm2 * 1e5).round() / 1e5
            );
        }
        if scan.format == Format::Tiff {
            text.push_str(
                "input = { data = \"projections\", flats = \"flats\", darks = \"darks\", angles = \"angles.txt\", angle_unit = \"degrees\" }\n",
            );
        }
    }
    if series.scans.len() > 1 {
        let turned = series
            .scans
            .iter()
            .any(|scan| scan.motion.rotation_rad != 0.0 || scan.motion.tilt_rad != [0.0; 2]);
        let method = if turned { "rigid" } else { "translation" };
        let _ = write!(text, "\n[align]\nmethod = \"{method}\"\n");
    }
    if matches!(series.preset, Preset::Demo | Preset::Sample) {
        let _ = write!(
            text,
            "\n[difference]\n\
             sigma = 4.0                     # less of the blurred rims of grains is lost than by the usual 5\n"
        );
    }
    if series.cell.is_some() {
        let _ = write!(
            text,
            "\n[mass]                          # sodium at 44.79 keV\n\
             mass_attenuation_cm2_g = {SODIUM_CM2_G}\n\
             electrode_area_cm2 = {}\n\
             molar_mass_g_mol = {SODIUM_G_MOL}\n\
             valence = 1\n\n\
             [electrochemistry]\n\
             path = \"{VOLTAGE}\"\n\
             current_column = \"current_ma_cm2\"\n\
             start = \"{}\"\n",
            (truth.electrode_area_cm2 * 1e8).round() / 1e8,
            time(0.0)
        );
    }
    text
}

fn title(preset: Preset) -> &'static str {
    match preset {
        Preset::Sample => "Simulated cell, sample",
        Preset::Demo => "Simulated cell, demo",
        Preset::Null => "Simulated cell, nothing changed",
        Preset::Rigid => "Simulated cell, turned between the scans",
        Preset::Random => "Simulated sample of random geometry",
        Preset::Large => "Simulated large scan",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs_over_midnight() {
        assert_eq!(time(0.0), "2025-03-25T10:00:00Z");
        assert_eq!(time(14.0 * 3600.0 + 61.0), "2025-03-26T00:01:01Z");
        assert_eq!(time(1e9), "2025-03-31T23:59:59Z");
    }
}
