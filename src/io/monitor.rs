//! Readings of the beam monitor: from a dataset or a text file, one per projection or one per frame.

use std::path::{Path, PathBuf};

use super::angles::{find, split_dataset};
use super::hdf5::{self, Tree};
use crate::error::{Error, Result};

/// More readings than any scan has: a typing error or a damaged file.
const MOST_BYTES: u64 = 1 << 28;

/// Reads `spec`: `/dataset` of the scan's HDF5 file `base`, `file.h5:/dataset`, or a text file with one number per line
/// (lines that start with `#` are passed over). Gives the values, their source in words and the file.
///
/// # Errors
/// A source that is missing or is no list of numbers.
pub(super) fn load(spec: &str, base: &Path) -> Result<(Vec<f64>, String, PathBuf)> {
    let spec = spec.trim();
    if let Some((file, dataset)) = split_dataset(spec) {
        return from_dataset(&Tree::open(&find(file, base)?)?, dataset);
    }
    if spec.starts_with('/') && !Path::new(spec).is_file() && base.is_file() && hdf5::is_hdf5(base)
    {
        return from_dataset(&Tree::open(base)?, spec);
    }
    from_text(&find(spec, base)?)
}

fn from_dataset(tree: &Tree, path: &str) -> Result<(Vec<f64>, String, PathBuf)> {
    let (values, _) = tree.numbers(path)?;
    let source = format!("{}:{path}", tree.root().display());
    Ok((values, source, tree.locate(path)?.file))
}

fn from_text(path: &Path) -> Result<(Vec<f64>, String, PathBuf)> {
    let hint = "write one monitor reading per line, one line per projection";
    let bytes = std::fs::metadata(path)
        .map_err(Error::io("read", path))?
        .len();
    if !path.is_file() || bytes > MOST_BYTES {
        return Err(Error::input(
            path,
            "expected a text file of monitor readings",
            hint,
        ));
    }
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    let text = String::from_utf8(text)
        .map_err(|_| Error::input(path, "expected text, found binary data", hint))?;
    let mut values = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim().trim_end_matches([',', ';']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        values.push(line.parse::<f64>().map_err(|_| {
            let problem = format!("line {}: expected one number, found \"{line}\"", number + 1);
            Error::input(path, problem, hint)
        })?);
    }
    Ok((values, path.display().to_string(), path.to_path_buf()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_and_a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("current.txt");
        std::fs::write(&path, "# ring current [mA]\n300.5\n300.1,\n\n299.9\n").unwrap();
        let (values, source, file) = load("current.txt", folder.path()).unwrap();
        assert_eq!((values, file), (vec![300.5, 300.1, 299.9], path.clone()));
        assert!(source.ends_with("current.txt"));
        std::fs::write(&path, "300\nhigh\n").unwrap();
        let error = load("current.txt", folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("line 2") && error.contains("high"),
            "{error}"
        );
        assert!(load("absent.txt", folder.path()).is_err());
    }
}
