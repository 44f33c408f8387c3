//! Commands that make their own data: demo, simulate.

use std::path::Path;

use anyhow::Result;
use tomodelta::config::Config;
use tomodelta::pipeline::output::{Existing, read_json};
use tomodelta::pipeline::run_series;
use tomodelta::record::{AlignmentRecord, DifferenceRecord};
use tomodelta::simulate::{self, Preset, Truth};

use crate::cli::Shared;

pub(crate) fn simulate(
    folder: &Path,
    options: &simulate::Options,
    overwrite: bool,
    shared: &Shared,
) -> Result<u8> {
    let progress = super::progress(shared);
    super::threads(&super::config_of(shared, Vec::new())?)?;
    simulate::write_with(folder, options, overwrite, &progress)?;
    println!("{}", folder.join("series.toml").display());
    Ok(0)
}

/// Simulates, runs the main job and compares with the truth; exit code 1 when the result is outside the stated bounds.
pub(crate) fn run(folder: &Path, overwrite: bool, shared: &Shared) -> Result<u8> {
    let existing = if overwrite {
        Existing::Overwrite
    } else {
        Existing::Refuse
    };
    let scans = folder.join("scans");
    super::refuse_existing(&folder.join("out"), overwrite)?;
    let config_only = super::config_of(shared, Vec::new())?;
    let session = super::session(shared, &config_only, existing)?;
    let truth = simulate::write(
        &scans,
        Preset::Demo,
        overwrite || scans.exists(),
        &session.progress,
    )?;
    let mut overrides = shared.overrides();
    overrides.push((
        "series.output".into(),
        crate::cli::quoted(std::path::absolute(folder.join("out"))?.display()),
    ));
    let config = Config::load(Some(&scans.join("series.toml")), &overrides)?;
    let report = run_series(&config, &session)?;
    super::times(shared, &session.progress);
    let right = compare(&truth, &config)?;
    println!("\nreport: {}", report.display());
    Ok(u8::from(!right))
}

/// Largest error of a shift that the demo accepts \[voxel\].
const SHIFT_TOLERANCE: f64 = 0.1;
/// Largest relative error of a mass that the demo accepts.
const MASS_TOLERANCE: f64 = 0.05;

/// Prints found against true values; false when one is outside the bounds.
fn compare(truth: &Truth, config: &Config) -> Result<bool> {
    let mut right = true;
    println!(
        "\n{:<14} {:<22} {:>10} {:>10} {:>10}",
        "scan", "quantity", "found", "true", "error"
    );
    let mut line =
        |scan: &str, name: &str, found: f64, expected: f64, error: String, fine: bool| {
            right &= fine;
            println!(
                "{scan:<14} {name:<22} {found:>10.3} {expected:>10.3} {error:>10}{}",
                if fine { "" } else { "  OUT OF BOUNDS" }
            );
        };
    for scan in &truth.scans {
        let folder = config.series.output.join("differences").join(&scan.name);
        let alignment: AlignmentRecord = read_json(&folder.join("alignment.json"))?;
        let difference: DifferenceRecord = read_json(&folder.join("difference.json"))?;
        for (axis, name) in ["shift x [voxel]", "shift y [voxel]", "shift z [voxel]"]
            .into_iter()
            .enumerate()
        {
            let (found, expected) = (alignment.shift_voxel[axis], scan.shift_voxel[axis]);
            let error = found - expected;
            line(
                &scan.name,
                name,
                found,
                expected,
                format!("{error:.3}"),
                error.abs() <= SHIFT_TOLERANCE,
            );
        }
        if let Some(mass) = &difference.mass {
            for (name, found, expected) in [
                ("increase [ug]", mass.increase_ug, scan.increase_ug),
                ("decrease [ug]", mass.decrease_ug, scan.decrease_ug),
            ] {
                let error = if expected > 0.0 {
                    found / expected - 1.0
                } else {
                    0.0
                };
                line(
                    &scan.name,
                    name,
                    found,
                    expected,
                    format!("{:.1} %", 100.0 * error),
                    error.abs() <= MASS_TOLERANCE,
                );
            }
        }
    }
    Ok(right)
}
