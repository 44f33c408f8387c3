//! `correct --sweep`: settings tried on a few rows, a table and a picture to choose by.

use std::path::Path;

use anyhow::Result;
use tomodelta::Error;
use tomodelta::center;
use tomodelta::config::Config;
use tomodelta::correct::CorrectedScan;
use tomodelta::pipeline::sweep::{self, Sweep};
use tomodelta::pipeline::{LockedByRows, locked_alone};
use tomodelta::scan::SinogramSource;

use crate::cli::{Input, Shared};

/// Flags of `correct --sweep`.
pub(crate) struct SweepFlags<'a> {
    pub(crate) keys: &'a [(String, String)],
    pub(crate) rows: Option<&'a str>,
    pub(crate) axis: Option<f64>,
    pub(crate) folder: &'a Path,
    pub(crate) overwrite: bool,
    pub(crate) json: bool,
}

pub(crate) fn run(
    path: &Path,
    flags: &SweepFlags<'_>,
    input: &Input,
    shared: &Shared,
) -> Result<u8> {
    let SweepFlags {
        keys,
        rows,
        axis,
        folder,
        overwrite,
        json,
    } = flags;
    let mut more = input.overrides();
    more.extend(axis.map(|axis| ("center.value".to_string(), format!("{axis:?}"))));
    let config = super::config_of(shared, more.clone())?;
    let settings = settings(keys, |pairs| {
        let mut all = more.clone();
        all.extend(pairs.iter().cloned());
        super::config_of(shared, all)
    })?;
    let (table, montage) = (folder.join("sweep.csv"), folder.join("sweep.png"));
    super::refuse_existing(&table, *overwrite)?;
    super::refuse_existing(&montage, *overwrite)?;
    let progress = super::progress(shared);
    super::threads(&config)?;
    let scan = CorrectedScan::new(super::open(path, &config)?, &config.correct)?;
    let rows = rows_of(*rows, SinogramSource::n_rows(&scan))?;
    let varied = sweep::check(&scan, &settings, &rows)?;
    let by_rows = LockedByRows::new(scan.without_phase(), &config, &progress);
    let fit = center::find(&by_rows, &config.center, &progress)?;
    drop(by_rows);
    let n_rows = SinogramSource::n_rows(&scan);
    let asked: Vec<_> = rows.iter().map(|&row| row..(row + 1).min(n_rows)).collect();
    let scan = locked_alone(scan, &asked, &config, &progress)?;
    if !fit.agree {
        log::warn!(
            "the methods disagree about the rotation axis; {:.2} px is taken, give another with --axis",
            fit.axis_px
        );
    }
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let found = sweep::run(&scan, (&settings, varied), &rows, &fit, &montage, &progress)?;
    found.write_table(&table)?;
    if *json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        print(&found, &table, &montage);
    }
    Ok(0)
}

/// Every combination of the values, as text and whole config; keys come before values of later keys.
fn settings(
    keys: &[(String, String)],
    config: impl Fn(&[(String, String)]) -> Result<Config>,
) -> Result<Vec<(String, Config)>> {
    let mut combinations: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for (key, values) in keys {
        let values: Vec<&str> = values.split(',').map(str::trim).collect();
        if values.len() * combinations.len() > sweep::MOST_SETTINGS {
            let rule = format!("a sweep tries at most {} settings", sweep::MOST_SETTINGS);
            return Err(Error::config("--sweep", key, rule).into());
        }
        combinations = combinations
            .into_iter()
            .flat_map(|combination| {
                values.iter().map(move |value| {
                    let mut longer = combination.clone();
                    longer.push((key.clone(), value.to_string()));
                    longer
                })
            })
            .collect();
    }
    combinations
        .into_iter()
        .map(|pairs| {
            let text: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
            Ok((text.join(" "), config(&pairs)?))
        })
        .collect()
}

/// `100,120`, `A..B`, or the middle row.
fn rows_of(text: Option<&str>, n_rows: usize) -> Result<Vec<usize>> {
    let Some(text) = text else {
        return Ok(vec![n_rows / 2]);
    };
    let fail = || Error::config("--rows", text, "must be rows such as 100,120 or A..B");
    if let Some((from, to)) = text.split_once("..") {
        let (from, to) = (from.trim().parse::<usize>(), to.trim().parse::<usize>());
        return match (from, to) {
            (Ok(from), Ok(to)) if from < to => Ok((from..to).collect()),
            _ => Err(fail().into()),
        };
    }
    text.split(',')
        .map(|row| row.trim().parse().map_err(|_| fail().into()))
        .collect()
}

fn print(found: &Sweep, table: &Path, montage: &Path) {
    let all = || std::iter::once(&found.uncorrected).chain(&found.settings);
    let width = all()
        .map(|outcome| outcome.setting.len())
        .max()
        .unwrap_or(0);
    println!(
        "{:width$}  rings [{}]  loss [%]  spikes [1e-6]  zingers  large  dead  s/row",
        "setting", found.unit
    );
    for outcome in all() {
        println!(
            "{:width$}  {:12.3e}  {:8.2}  {:13.1}  {:7}  {:5}  {:4}  {:5.2}",
            outcome.setting,
            outcome.rings,
            100.0 * outcome.loss,
            outcome.spikes,
            outcome.counts.zingers,
            outcome.counts.large_stripes,
            outcome.counts.dead_stripes,
            outcome.seconds_per_row
        );
    }
    match &found.recommended {
        Some(setting) => println!("recommended: {setting}: {}", found.reason),
        None => println!("recommended: leave it off: {}", found.reason),
    }
    println!("{}, {}", table.display(), montage.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_combinations_are_tried_in_order() {
        let keys = [("a.b", "1,2"), ("c", "x, y")].map(|(k, v)| (k.to_string(), v.to_string()));
        let all = settings(&keys, |_| Ok(Config::default())).unwrap();
        let texts: Vec<&str> = all.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(texts, ["a.b=1 c=x", "a.b=1 c=y", "a.b=2 c=x", "a.b=2 c=y"]);
        let many = [("a".to_string(), vec!["1"; 101].join(","))];
        assert!(settings(&many, |_| Ok(Config::default())).is_err());
    }

    #[test]
    fn rows_are_a_list_a_range_or_the_middle() {
        assert_eq!(rows_of(Some("100, 120"), 200).unwrap(), [100, 120]);
        assert_eq!(rows_of(Some("3..6"), 200).unwrap(), [3, 4, 5]);
        assert_eq!(rows_of(None, 200).unwrap(), [100]);
        for wrong in ["", "a", "5..3", "1,b"] {
            assert!(rows_of(Some(wrong), 200).is_err());
        }
    }
}
