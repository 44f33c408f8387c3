//! A table of how the sample moved during a scan, one line per projection.

use std::path::{Path, PathBuf};

use super::angles::{find, split_dataset};
use super::hdf5::{self, Tree};
use crate::error::{Error, Result};
use crate::scan::Shifts;

/// Movements beyond this are a typing error or another unit \[px\].
const MOST_PX: f64 = 1e5;

/// Movement of `n` projections, and the file that it stands in.
///
/// `spec` is a CSV file with a heading that names `x_px`, `z_px` or both (other columns are passed over), or a dataset
/// `[projection, 2]` of x and z (`file.h5:/dataset`, or `/dataset` where `base` is an HDF5 file). Relative paths are looked for
/// in `base` (its folder where it is a file), then in the working folder.
///
/// # Errors
/// A source that is missing, without these columns, with another number of lines, or with values that are no shifts.
pub fn load(spec: &str, base: &Path, n: usize) -> Result<(Shifts, PathBuf)> {
    let spec = spec.trim();
    let (shifts, file) = if let Some((file, dataset)) = split_dataset(spec) {
        from_dataset(&Tree::open(&find(file, base)?)?, dataset)?
    } else if spec.starts_with('/')
        && base.is_file()
        && hdf5::is_hdf5(base)
        && !Path::new(spec).is_file()
    {
        from_dataset(&Tree::open(base)?, spec)?
    } else {
        let path = find(spec, base)?;
        (from_csv(&path)?, path)
    };
    let found = shifts.x_px.len();
    if found != n {
        return Err(Error::input(
            spec,
            format!("expected a shift for each of {n} projections, found {found}"),
            "write one line per projection, those to be left out included",
        ));
    }
    let strange = |v: &f64| v.is_nan() || v.abs() > MOST_PX;
    if let Some(line) = (0..n).find(|&k| strange(&shifts.x_px[k]) || strange(&shifts.z_px[k])) {
        return Err(Error::input(
            spec,
            format!(
                "projection {line}: shift of {} and {} px",
                shifts.x_px[line], shifts.z_px[line]
            ),
            "shifts are finite numbers in detector pixels",
        ));
    }
    Ok((shifts, file))
}

fn from_dataset(tree: &Tree, dataset: &str) -> Result<(Shifts, PathBuf)> {
    let (values, _) = tree.numbers(dataset)?;
    let at = tree.locate(dataset)?;
    let shape = tree.dataset(&at)?.info().shape.clone();
    if shape.len() != 2 || shape[1] != 2 {
        return Err(Error::dataset(
            &at.file,
            &at.path,
            format!("expected the shape [projection, 2], found {shape:?}"),
            "give x and z of every projection, in pixels",
        ));
    }
    let column = |k: usize| values.iter().skip(k).step_by(2).copied().collect();
    let shifts = Shifts {
        x_px: column(0),
        z_px: column(1),
    };
    Ok((shifts, at.file))
}

fn from_csv(path: &Path) -> Result<Shifts> {
    let hint = "write a CSV file with the heading x_px,z_px and one line per projection";
    let wrong = |error: csv::Error| Error::input(path, one_line(&error.to_string()), hint);
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .from_path(path)
        .map_err(wrong)?;
    let heading = reader.headers().map_err(wrong)?.clone();
    let column = |name: &str| {
        heading
            .iter()
            .position(|h| h.trim_start_matches('\u{feff}') == name)
    };
    let (x, z) = (column("x_px"), column("z_px"));
    if x.is_none() && z.is_none() {
        let found: Vec<&str> = heading.iter().collect();
        return Err(Error::input(
            path,
            format!("expected a column x_px or z_px, found {}", found.join(", ")),
            hint,
        ));
    }
    let mut shifts = Shifts::default();
    for (line, row) in reader.records().enumerate() {
        let row = row.map_err(wrong)?;
        let value = |column: Option<usize>| match column {
            None => Ok(0.0),
            Some(k) => row
                .get(k)
                .and_then(|text| text.parse::<f64>().ok())
                .ok_or_else(|| {
                    Error::input(
                        path,
                        format!(
                            "projection {line}: {:?} is no number",
                            row.get(k).unwrap_or("")
                        ),
                        hint,
                    )
                }),
        };
        shifts.x_px.push(value(x)?);
        shifts.z_px.push(value(z)?);
    }
    Ok(shifts)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(text: &str, n: usize) -> Result<Shifts> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("s.csv"), text).unwrap();
        load("s.csv", folder.path(), n).map(|found| found.0)
    }

    #[test]
    fn columns_are_found_by_name() {
        let shifts = csv("time,z_px,x_px\n1,0.5,-2\n# a remark\n2,1.5,3e-1\n", 2).unwrap();
        assert_eq!(shifts.x_px, [-2.0, 0.3]);
        assert_eq!(shifts.z_px, [0.5, 1.5]);
        assert_eq!(csv("x_px\n4\n", 1).unwrap().z_px, [0.0]);
    }

    #[test]
    fn what_is_no_table_of_shifts_names_file_and_way_out() {
        for (text, n, part) in [
            ("a,b\n1,2\n", 1, "x_px"),
            ("x_px,z_px\n1,2\n", 3, "3 projections"),
            ("x_px,z_px\n1,much\n", 1, "projection 0"),
            ("x_px,z_px\n1,nan\n", 1, "projection 0"),
            ("x_px,z_px\n1\n", 1, "s.csv"),
        ] {
            let error = csv(text, n).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
        assert!(load("absent.csv", Path::new(""), 1).is_err());
    }

    #[test]
    fn a_dataset_has_two_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.h5");
        let file = rust_hdf5::H5File::create(&path).unwrap();
        let write = |name: &str, shape: &[usize], values: &[f64]| {
            let dataset = file.new_dataset::<f64>().shape(shape).create(name);
            dataset.unwrap().write_raw(values).unwrap();
        };
        write("shifts", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.5]);
        write("flat", &[2], &[1.0, 2.0]);
        file.close().unwrap();
        let (shifts, from) = load("s.h5:/shifts", folder.path(), 3).unwrap();
        assert_eq!(
            (shifts.x_px, shifts.z_px),
            (vec![1.0, 3.0, 5.0], vec![2.0, 4.0, 6.5])
        );
        assert_eq!(from, path);
        assert!(load("/shifts", &path, 3).is_ok());
        assert!(load("s.h5:/flat", folder.path(), 1).is_err());
    }
}
