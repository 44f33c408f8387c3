//! Angles: from a dataset, a text file, or `START:STOP:COUNT`; their unit read, given, or inferred from the span.

use std::path::{Path, PathBuf};

use super::hdf5::{self, Tree};
use crate::config::AngleUnit;
use crate::error::{Error, Result};

/// More angles than any scan has: a typing error or a damaged file.
const MOST_ANGLES: usize = 10_000_000;

/// Angles as they stand in their source.
#[derive(Debug, Clone)]
pub(crate) struct Angles {
    pub(crate) values: Vec<f64>,
    /// The unit, where the source says it, and how it does.
    pub(crate) unit: Option<(AngleUnit, String)>,
    /// The source, for messages.
    pub(crate) source: String,
    pub(crate) files: Vec<PathBuf>,
}

/// Angles \[rad\] from `--angles`, and where they came from in words.
///
/// `spec` is `START:STOP:COUNT` in degrees (both ends included), a text file with one angle per line, or a dataset
/// (`file.h5:/dataset`, or `/dataset` where `base` is an HDF5 file). Relative paths are looked for in `base` (its
/// folder where it is a file), then in the working folder.
///
/// # Errors
/// A source that is missing or holds no angles, values that are not finite, and a unit given for `START:STOP:COUNT`
/// other than degrees.
pub fn parse(spec: &str, base: &Path, unit: Option<AngleUnit>) -> Result<(Vec<f64>, String)> {
    let angles = load(spec, base)?;
    let radians = in_radians(&angles, unit)?;
    Ok((radians.values, radians.source))
}

/// Angles in radians, with the source and its unit in words.
#[derive(Debug, Clone)]
pub(crate) struct Radians {
    pub(crate) values: Vec<f64>,
    pub(crate) source: String,
    pub(crate) warnings: Vec<String>,
}

/// Reads angles as [`parse`] does, without judging them.
pub(crate) fn load(spec: &str, base: &Path) -> Result<Angles> {
    let spec = spec.trim();
    if let Some(angles) = parse_range(spec)? {
        return Ok(angles);
    }
    if let Some((file, dataset)) = split_dataset(spec) {
        return from_dataset(&Tree::open(&find(file, base)?)?, dataset);
    }
    if base.is_file() && hdf5::is_hdf5(base) {
        let tree = Tree::open(base)?;
        if spec.starts_with('/') || tree.locate(spec).is_ok() {
            let absent = tree.locate(spec).is_err();
            if !(absent && Path::new(spec).is_file()) {
                return from_dataset(&tree, spec);
            }
        }
    }
    from_text(&find(spec, base)?)
}

/// `file.h5:/dataset` into its parts.
pub(crate) fn split_dataset(spec: &str) -> Option<(&str, &str)> {
    let at = spec.rfind(":/")?;
    // "C:/data" has a drive letter, not a file, before the colon.
    (at > 1).then(|| (&spec[..at], &spec[at + 1..]))
}

/// A file given by the user: relative to the scan, else to the working folder.
pub(crate) fn find(name: &str, base: &Path) -> Result<PathBuf> {
    let folder = if base.is_dir() {
        base
    } else {
        base.parent().unwrap_or(Path::new(""))
    };
    let beside = folder.join(name);
    let found = if beside.exists() {
        Some(beside)
    } else {
        Some(PathBuf::from(name)).filter(|path| path.exists())
    };
    found.ok_or_else(|| {
        Error::input(
            folder.join(name),
            "it does not exist",
            "paths are relative to the scan; angles are a dataset, a text file with one angle per line, or START:STOP:COUNT",
        )
    })
}

fn parse_range(spec: &str) -> Result<Option<Angles>> {
    let parts: Vec<&str> = spec.split(':').collect();
    let [start, stop, count] = parts[..] else {
        return Ok(None);
    };
    let (Ok(start), Ok(stop)) = (start.trim().parse::<f64>(), stop.trim().parse::<f64>()) else {
        return Ok(None);
    };
    let fail = |rule: &str| Err(Error::config("input.angles", spec, rule));
    let Ok(count) = count.trim().parse::<usize>() else {
        return fail(
            "COUNT in START:STOP:COUNT must be the number of projections, e.g. 0:180:1801",
        );
    };
    if count == 0 || count > MOST_ANGLES || !start.is_finite() || !stop.is_finite() {
        return fail(
            "START and STOP must be finite degrees and COUNT a number of projections, e.g. 0:180:1801",
        );
    }
    let step = if count > 1 {
        (stop - start) / (count - 1) as f64
    } else {
        0.0
    };
    Ok(Some(Angles {
        values: (0..count)
            .map(|i| {
                if i + 1 == count && count > 1 {
                    stop
                } else {
                    start + step * i as f64
                }
            })
            .collect(),
        unit: Some((AngleUnit::Degrees, "START:STOP:COUNT is in degrees".into())),
        source: spec.to_string(),
        files: Vec::new(),
    }))
}

/// Angles in a dataset, with the unit of its `units` attribute.
pub(crate) fn from_dataset(tree: &Tree, path: &str) -> Result<Angles> {
    let (values, units) = tree.numbers(path)?;
    let unit = units
        .as_deref()
        .and_then(|text| Some((unit_from_text(text)?, format!("attribute units = {text}"))));
    Ok(Angles {
        values,
        unit,
        source: format!("{}:{path}", tree.root().display()),
        files: vec![tree.locate(path)?.file],
    })
}

fn unit_from_text(text: &str) -> Option<AngleUnit> {
    let text = text.trim().to_lowercase();
    if text.starts_with("deg") || text == "°" {
        Some(AngleUnit::Degrees)
    } else if text.starts_with("rad") {
        Some(AngleUnit::Radians)
    } else {
        None
    }
}

/// One number per line; empty lines, lines that start with `#`, and a heading in the first line are passed over.
pub(crate) fn from_text(path: &Path) -> Result<Angles> {
    let bytes = std::fs::metadata(path)
        .map_err(Error::io("read", path))?
        .len();
    let hint = "write one angle per line, or give START:STOP:COUNT";
    if !path.is_file() || bytes > 32 * MOST_ANGLES as u64 {
        return Err(Error::input(
            path,
            "expected a text file of angles, found something else",
            hint,
        ));
    }
    let content = std::fs::read(path).map_err(Error::io("read", path))?;
    let text = String::from_utf8(content)
        .map_err(|_| Error::input(path, "expected text, found binary data", hint))?;
    let mut values = Vec::new();
    let mut heading_passed = false;
    for (number, line) in text.lines().enumerate() {
        let line = line
            .trim_start_matches('\u{feff}')
            .trim()
            .trim_end_matches([',', ';']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.parse::<f64>() {
            Ok(value) => values.push(value),
            Err(_)
                if values.is_empty()
                    && !heading_passed
                    && line.chars().any(char::is_alphabetic) =>
            {
                heading_passed = true;
            }
            Err(_) => {
                return Err(Error::input(
                    path,
                    format!("line {}: expected one angle, found \"{line}\"", number + 1),
                    hint,
                ));
            }
        }
    }
    if values.is_empty() {
        return Err(Error::input(path, "it holds no angles", hint));
    }
    Ok(Angles {
        values,
        unit: unit_from_name(path),
        source: path.display().to_string(),
        files: vec![path.to_path_buf()],
    })
}

/// `angles_deg.txt` says its unit in its name.
fn unit_from_name(path: &Path) -> Option<(AngleUnit, String)> {
    let stem = path.file_stem()?.to_string_lossy().to_lowercase();
    let units = ["deg", "degree", "degrees", "rad", "radian", "radians"];
    let unit = stem
        .split(|c: char| !c.is_ascii_alphabetic())
        .rfind(|word| units.contains(word))?;
    Some((unit_from_text(unit)?, "its name says so".into()))
}

/// Decides the unit and converts.
///
/// The unit is the one given, else the source's, else inferred: a span of at most 2.1 pi is radians, a wider one
/// degrees. A span in between that is neither half a turn nor a full one in radians is warned about.
///
/// # Errors
/// No angles; angles that are not finite; a given unit that contradicts `START:STOP:COUNT`.
pub(crate) fn in_radians(angles: &Angles, given: Option<AngleUnit>) -> Result<Radians> {
    let Angles {
        values,
        unit,
        source,
        files,
    } = angles;
    let bad: Vec<usize> = (0..values.len())
        .filter(|&i| !values[i].is_finite())
        .collect();
    if let Some(first) = bad.first() {
        return Err(Error::input(
            files.first().map_or(Path::new(source), PathBuf::as_path),
            format!(
                "{} of {} angles are not finite, the first is number {first}",
                bad.len(),
                values.len()
            ),
            "leave these projections out with input.exclude, or give other angles with --angles",
        ));
    }
    if files.is_empty() && given == Some(AngleUnit::Radians) {
        return Err(Error::config(
            "input.angle_unit",
            "radians",
            "START:STOP:COUNT is always in degrees; leave the unit out or give the angles in a file",
        ));
    }
    let mut warnings = Vec::new();
    let span = values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
        - values.iter().copied().fold(f64::INFINITY, f64::min);
    let (unit, how) = match (given, unit) {
        (Some(given), said) => {
            if said.as_ref().is_some_and(|(said, _)| *said != given) {
                warnings.push(format!("the angles of {source} say another unit than the one given; the one given was taken"));
            }
            (given, "given".to_string())
        }
        (None, Some((unit, how))) => (*unit, how.clone()),
        (None, None) => {
            let pi = std::f64::consts::PI;
            let unit = if span <= 2.1 * pi {
                AngleUnit::Radians
            } else {
                AngleUnit::Degrees
            };
            let turns = span / pi;
            let plain = (0.9..=1.1).contains(&turns) || (1.9..=2.1).contains(&turns);
            if unit == AngleUnit::Radians && !plain {
                warnings.push(format!(
                    "the angles of {source} span {span:.3} and say no unit; radians were assumed, set input.angle_unit if they are degrees"
                ));
            }
            (unit, format!("inferred from the span {span:.3}"))
        }
    };
    let (values, name) = match unit {
        AngleUnit::Degrees => (
            values.iter().map(|value| value.to_radians()).collect(),
            "degrees",
        ),
        AngleUnit::Radians => (values.clone(), "radians"),
    };
    Ok(Radians {
        values,
        source: format!("{source}, {name} ({how})"),
        warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_range_includes_both_ends() {
        let (angles, source) = parse("0:180:181", Path::new("."), None).unwrap();
        assert_eq!(angles.len(), 181);
        assert_eq!(angles[0], 0.0);
        assert!((angles[1] - 1f64.to_radians()).abs() < 1e-15);
        assert_eq!(angles[180], std::f64::consts::PI);
        assert!(source.contains("degrees"), "{source}");
        let one = parse("5:9:1", Path::new("."), None).unwrap().0;
        assert_eq!(one, [5f64.to_radians()]);
    }

    #[test]
    fn a_bad_range_names_the_key_and_the_rule() {
        for bad in ["0:180:0", "0:180:many", "0:inf:5", "0:180:-3", "0:180:1.5"] {
            let error = parse(bad, Path::new("."), None).unwrap_err();
            assert!(error.to_string().contains("input.angles"), "{bad}: {error}");
        }
        assert!(parse("0:180:5", Path::new("."), Some(AngleUnit::Radians)).is_err());
    }

    #[test]
    fn a_text_file_may_have_comments_a_heading_and_trailing_commas() {
        let (_folder, path) = file(
            "a.csv",
            "\u{feff}# from the log\nangle\n0.5,\n\n 90 \r\n180\n",
        );
        let (angles, source) = parse(path.to_str().unwrap(), Path::new("."), None).unwrap();
        assert_eq!(
            angles,
            [
                0.5f64.to_radians(),
                90f64.to_radians(),
                std::f64::consts::PI
            ]
        );
        assert!(source.contains("inferred from the span 179.5"), "{source}");
    }

    #[test]
    fn the_unit_is_given_named_or_inferred_and_said() {
        let (_folder, path) = file("angles_rad.txt", "0\n90\n");
        assert!(
            parse(path.to_str().unwrap(), Path::new("."), None)
                .unwrap()
                .1
                .contains("radians (its name says so)")
        );
        let (angles, source) = parse(
            path.to_str().unwrap(),
            Path::new("."),
            Some(AngleUnit::Degrees),
        )
        .unwrap();
        assert!(
            (angles[1] - std::f64::consts::FRAC_PI_2).abs() < 1e-15 && source.contains("given"),
            "{source}"
        );
        let (_folder, path) = file("a.txt", "0\n1.5707963\n3.1415926\n");
        let inferred = in_radians(&from_text(&path).unwrap(), None).unwrap();
        assert!(
            inferred.source.contains("radians (inferred") && inferred.warnings.is_empty(),
            "{}",
            inferred.source
        );
        let (_folder, path) = file("a.txt", "0\n1\n5\n");
        assert_eq!(
            in_radians(&from_text(&path).unwrap(), None)
                .unwrap()
                .warnings
                .len(),
            1
        );
    }

    #[test]
    fn what_is_no_list_of_angles_is_refused_with_its_line() {
        let (_folder, path) = file("a.txt", "0\n1 2\n");
        assert!(from_text(&path).unwrap_err().to_string().contains("line 2"));
        let (_folder, path) = file("a.txt", "\n\n");
        assert!(
            from_text(&path)
                .unwrap_err()
                .to_string()
                .contains("no angles")
        );
        let (_folder, path) = file("a.txt", "0\nNaN\n");
        assert!(
            in_radians(&from_text(&path).unwrap(), None)
                .unwrap_err()
                .to_string()
                .contains("not finite")
        );
        assert!(
            parse("nowhere.txt", Path::new("."), None)
                .unwrap_err()
                .to_string()
                .contains("does not exist")
        );
    }

    #[test]
    fn a_drive_letter_is_no_dataset() {
        assert_eq!(split_dataset("C:/data/a.txt"), None);
        assert_eq!(
            split_dataset("C:/data/a.h5:/x/y"),
            Some(("C:/data/a.h5", "/x/y"))
        );
        assert_eq!(split_dataset("a.h5:/x"), Some(("a.h5", "/x")));
    }
}
