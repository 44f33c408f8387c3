//! TOML with pairs laid over it, and errors that name the key.

use serde::Deserialize;

use super::{Config, DEFAULT_TOML};
use crate::error::{Error, Result};

/// Parses TOML with `key=value` pairs laid over it.
///
/// # Errors
/// As for [`Config::load`].
pub fn parse(text: &str, origin: &str, overrides: &[(String, String)]) -> Result<Config> {
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        Error::input(origin, one_line(&error), "correct the TOML")
    })?;
    for (key, value) in overrides {
        set(&mut table, key, value)?;
    }
    check_keys(&table, origin)?;
    Config::deserialize(toml::Value::Table(table.clone()))
        .map_err(|error| blame(&table, origin, &error))
}

/// Finds the table that does not fit, so that the error names its key.
fn blame(table: &toml::Table, origin: &str, error: &toml::de::Error) -> Error {
    let text = one_line(error);
    for (name, value) in table {
        let alone: toml::Table = [(name.clone(), value.clone())].into_iter().collect();
        if Config::deserialize(toml::Value::Table(alone)).is_ok() {
            continue;
        }
        if let toml::Value::Table(inner) = value {
            for (key, value) in inner {
                let leaf: toml::Table = [(key.clone(), value.clone())].into_iter().collect();
                let alone: toml::Table = [(name.clone(), toml::Value::Table(leaf))]
                    .into_iter()
                    .collect();
                if Config::deserialize(toml::Value::Table(alone)).is_err() {
                    return Error::config(format!("{name}.{key}"), value, text);
                }
            }
        }
        return Error::config(name, value, text);
    }
    Error::input(origin, text, "compare with `tomodelta config --default`")
}

fn one_line(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.retain(|line| !line.starts_with('|') && !line.chars().all(|c| "^| ".contains(c)));
    lines.join(" ")
}

/// Lays one `key=value` over the table; the value is TOML, or a bare word taken as a string.
fn set(table: &mut toml::Table, key: &str, value: &str) -> Result<()> {
    let parsed = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_string()));
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let mut here = table;
    for part in parts {
        let next = here
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        here = next.as_table_mut().ok_or_else(|| {
            Error::config(
                key,
                value,
                format!("{part} is not a table; see `tomodelta config --default`"),
            )
        })?;
    }
    here.insert(last.to_string(), parsed);
    Ok(())
}

/// Every key of every table, optional ones included, as the text of the defaults has them.
pub(super) fn known_keys() -> toml::Table {
    let mut text = String::new();
    for line in DEFAULT_TOML.lines() {
        // optional keys stand in the default text as `#key = example`, without a space behind the hash
        let optional = line
            .strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['));
        text.push_str(optional.unwrap_or(line));
        text.push('\n');
    }
    let mut known: toml::Table = text.parse().expect("default.toml is tested");
    // `input` of a scan takes the keys of [input], which the text explains once
    let input = known.get("input").cloned();
    let scan = known
        .get_mut("scan")
        .and_then(|scans| scans.get_mut(0))
        .and_then(toml::Value::as_table_mut);
    if let (Some(input), Some(scan)) = (input, scan) {
        scan.insert("input".into(), input);
    }
    known
}

fn check_keys(table: &toml::Table, origin: &str) -> Result<()> {
    fn walk(found: &toml::Table, known: &toml::Table, prefix: &str, origin: &str) -> Result<()> {
        for (key, value) in found {
            let full = format!("{prefix}{key}");
            let Some(known_value) = known.get(key) else {
                let nearest = known
                    .keys()
                    .map(|candidate| (strsim::jaro_winkler(key, candidate), candidate))
                    .max_by(|a, b| a.0.total_cmp(&b.0))
                    .filter(|(score, _)| *score > 0.6)
                    .map(|(_, candidate)| format!(", the nearest known key is {prefix}{candidate}"))
                    .unwrap_or_default();
                return Err(Error::UnknownKey {
                    origin: origin.to_string(),
                    key: full,
                    nearest,
                });
            };
            match (value, known_value) {
                (toml::Value::Table(value), toml::Value::Table(known)) => {
                    walk(value, known, &format!("{full}."), origin)?;
                }
                (toml::Value::Array(values), toml::Value::Array(known)) => {
                    if let Some(toml::Value::Table(known)) = known.first() {
                        for (index, value) in values.iter().enumerate() {
                            if let toml::Value::Table(value) = value {
                                walk(value, known, &format!("{full}[{index}]."), origin)?;
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
    walk(table, &known_keys(), "", origin)
}
