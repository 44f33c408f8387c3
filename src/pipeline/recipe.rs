//! What a run is made from: the resolved config and the inputs, kept beside the results, and held against those of a resumed run.

use std::path::PathBuf;

use super::lock;
use super::output::{Existing, OutputFolder, read_json, write_json};
use crate::config::{Config, RunConfig};
use crate::error::{Error, Result};
use crate::io;
use crate::io::volume::partial::write_file;
use crate::record::InputRecord;
use crate::scan::Scan;

/// Size and hash of every input file.
pub(super) fn hash_inputs(config: &Config, scans: &[Scan]) -> Result<Vec<InputRecord>> {
    let mut records = Vec::new();
    for (scan_config, scan) in config.scan.iter().zip(scans) {
        for path in &scan.files {
            let (bytes, blake3) = io::fingerprint::fingerprint(path)?;
            records.push(InputRecord {
                scan: scan_config.name.clone(),
                path: path.display().to_string(),
                bytes,
                blake3,
            });
        }
    }
    Ok(records)
}

/// Writes the recipe of this run (resolved config, inputs), or holds a resumed run to the one that is there.
pub(super) fn keep_or_check_recipe(
    config: &Config,
    inputs: &[InputRecord],
    folder: &OutputFolder,
    existing: Existing,
) -> Result<()> {
    let config_path = folder.path().join("config.toml");
    let inputs_path = folder.path().join("inputs.json");
    let text = recipe_text(config)?;
    if existing == Existing::Resume && config_path.exists() {
        let old = std::fs::read_to_string(&config_path).map_err(Error::io("read", &config_path))?;
        if let Some(change) = first_change(&old, &text) {
            return Err(Error::input(
                &config_path,
                format!("the run to be resumed had another config: {change}"),
                "restore it, or start anew with --overwrite",
            ));
        }
        if inputs_path.exists() {
            let old: Vec<InputRecord> = read_json(&inputs_path)?;
            if let Some(changed) = changed_input(&old, inputs) {
                return Err(Error::input(
                    changed,
                    "changed since the run to be resumed",
                    "start anew with --overwrite",
                ));
            }
        }
    }
    if existing == Existing::Overwrite {
        // an old record beside new volumes would look finished
        for stale in ["run.json", "report.html", "first_change.csv", lock::RECORD] {
            let stale = folder.path().join(stale);
            if stale.exists() {
                std::fs::remove_file(&stale).map_err(Error::io("remove", &stale))?;
            }
        }
        remove_records(folder)?;
    }
    write_file(&config_path, text.as_bytes())?;
    write_json(&inputs_path, &inputs)
}

fn remove_records(folder: &OutputFolder) -> Result<()> {
    for (group, names) in [
        ("scans", &["scan.json", "axis.json", "noise.json"][..]),
        ("differences", &["alignment.json", "difference.json"][..]),
    ] {
        let Ok(entries) = std::fs::read_dir(folder.path().join(group)) else {
            continue;
        };
        for entry in entries.flatten() {
            for name in names {
                let path = entry.path().join(name);
                if path.exists() {
                    std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                }
            }
        }
    }
    Ok(())
}

/// The resolved config as TOML, with absolute paths: running it again gives the same result.
fn recipe_text(config: &Config) -> Result<String> {
    let mut config = config.clone();
    let absolute = |path: &mut PathBuf| {
        if let Ok(full) = std::path::absolute(&*path) {
            *path = full;
        }
    };
    absolute(&mut config.series.output);
    for scan in &mut config.scan {
        absolute(&mut scan.path);
    }
    if let Some(table) = &mut config.electrochemistry {
        absolute(&mut table.path);
    }
    toml::to_string_pretty(&config).map_err(|error| {
        Error::config(
            "config",
            "(resolved)",
            format!("cannot be written as TOML: {error}"),
        )
    })
}

fn first_change(old: &str, new: &str) -> Option<String> {
    // how fast the work is done does not change the result; the device does: another one may take another method
    let counts = |line: &&str| {
        !RunConfig::FREE_KEYS
            .iter()
            .any(|key| line.starts_with(&format!("{key} =")))
    };
    let mut old_lines = old.lines().filter(counts);
    let mut new_lines = new.lines().filter(counts);
    loop {
        match (old_lines.next(), new_lines.next()) {
            (None, None) => return None,
            (before, after) if before == after => {}
            (before, after) => {
                return Some(format!(
                    "{:?} before, {:?} now",
                    before.unwrap_or("(nothing)"),
                    after.unwrap_or("(nothing)")
                ));
            }
        }
    }
}

fn changed_input(old: &[InputRecord], new: &[InputRecord]) -> Option<PathBuf> {
    new.iter()
        .find(|now| {
            !old.iter()
                .any(|then| then.path == now.path && then.blake3 == now.blake3)
        })
        .map(|now| PathBuf::from(&now.path))
}
