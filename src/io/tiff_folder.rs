//! A scan as a folder of TIFF files: which files are projections, flats and darks, and where the angles are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::angles::{self, Angles};
use super::assemble::{Frames, Parts};
use super::tiff_stack::TiffStack;
use crate::config::InputConfig;
use crate::error::{Error, Result};
use crate::scan::FrameStack;

/// Folder names that mean projections.
const PROJECTION_FOLDERS: [&str; 14] = [
    "projections",
    "projection",
    "projs",
    "proj",
    "raw",
    "tomo",
    "sample",
    "images",
    "image",
    "data",
    "radiographs",
    "radiograph",
    "ct",
    "tomography",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flat,
    Dark,
}

/// Opens a folder. Projections are `input.data`, else the files of a folder of a usual name (`projections`, `raw` ...),
/// else the files in `folder` itself that are not flats or darks by their names, else those of the only subfolder left.
/// Flats and darks are `input.flats` and `input.darks`, else the subfolders and files of usual names (`flat*`, `ob`,
/// `ref`, `white*`, `dark*`, `dc` ...).
pub(super) fn open(folder: &Path, input: &InputConfig) -> Result<Parts> {
    let listing = Listing::read(folder)?;
    let mut warnings = Vec::new();
    let (name, files) = match &input.data {
        Some(spec) => (resolve(folder, spec), files_of(folder, spec)?),
        None => listing.projections(folder, &mut warnings)?,
    };
    let projections_folder = if name.is_dir() {
        name.clone()
    } else {
        folder.to_path_buf()
    };
    let flats = frames(folder, input.flats.as_deref(), &listing, Kind::Flat)?;
    let darks = frames(folder, input.darks.as_deref(), &listing, Kind::Dark)?;
    let stack = TiffStack::open(&name, files)?;
    let angles = angles_of(folder, &projections_folder, input)?;
    parts(folder, "TIFF folder", stack, flats, darks, angles, warnings)
}

/// Opens one multi-page TIFF; flats and darks only where they are named.
pub(super) fn open_file(path: &Path, input: &InputConfig) -> Result<Parts> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let files = match &input.data {
        Some(spec) => files_of(folder, spec)?,
        None => vec![path.to_path_buf()],
    };
    let empty = Listing::default();
    let flats = frames(folder, input.flats.as_deref(), &empty, Kind::Flat)?;
    let darks = frames(folder, input.darks.as_deref(), &empty, Kind::Dark)?;
    let stack = TiffStack::open(path, files)?;
    let angles = angles_of(folder, folder, input)?;
    parts(path, "TIFF file", stack, flats, darks, angles, Vec::new())
}

fn parts(
    path: &Path,
    layout: &'static str,
    stack: TiffStack,
    flats: Option<(TiffStack, Times)>,
    darks: Option<(TiffStack, Times)>,
    angles: Angles,
    warnings: Vec<String>,
) -> Result<Parts> {
    let mut files = stack.files().to_vec();
    files.extend(angles.files.iter().cloned());
    let mut take = |frames: Option<(TiffStack, Times)>| {
        frames.map(|(stack, Times { before, after })| {
            files.extend(stack.files().iter().cloned());
            Frames {
                stack: Arc::new(stack),
                before,
                after,
            }
        })
    };
    let (flats, darks) = (take(flats), take(darks));
    Ok(Parts {
        path: path.to_path_buf(),
        layout,
        stack: Arc::new(stack),
        image_key: None,
        flats,
        darks,
        angles,
        pixel_size_um: None,
        start_time: None,
        warnings,
        files,
    })
}

/// Frames taken before the projections, or at an unknown time, and after them.
struct Times {
    before: Vec<usize>,
    after: Vec<usize>,
}

/// What a folder holds, sorted as a person would.
#[derive(Debug, Default)]
struct Listing {
    tiffs: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Listing {
    fn read(folder: &Path) -> Result<Listing> {
        let mut listing = Listing::default();
        for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
            let path = entry.map_err(Error::io("list", folder))?.path();
            if name_of(&path).starts_with('.') {
                continue;
            }
            if path.is_dir() {
                listing.folders.push(path);
            } else if is_tiff_name(&path) {
                listing.tiffs.push(path);
            }
        }
        listing
            .tiffs
            .sort_by(|a, b| natord::compare(&name_of(a), &name_of(b)));
        listing
            .folders
            .sort_by(|a, b| natord::compare(&name_of(a), &name_of(b)));
        Ok(listing)
    }

    fn projections(
        &self,
        folder: &Path,
        warnings: &mut Vec<String>,
    ) -> Result<(PathBuf, Vec<PathBuf>)> {
        let with_tiffs: Vec<(&PathBuf, Vec<PathBuf>)> = self
            .folders
            .iter()
            .filter(|path| kind_of_folder(&name_of(path)).is_none())
            .filter_map(|path| Some((path, Listing::read(path).ok()?.tiffs)))
            .filter(|(_, tiffs)| !tiffs.is_empty())
            .collect();
        let usual = with_tiffs.iter().position(|(path, _)| {
            PROJECTION_FOLDERS.contains(&name_of(path).to_lowercase().as_str())
        });
        let own: Vec<PathBuf> = self
            .tiffs
            .iter()
            .filter(|path| kind_of_file(&name_of(path)).is_none())
            .cloned()
            .collect();
        let chosen = match (usual, &with_tiffs[..]) {
            (Some(usual), _) => Some(usual),
            (None, [_]) if own.is_empty() => Some(0),
            _ => None,
        };
        let left_out: Vec<String> = with_tiffs
            .iter()
            .enumerate()
            .filter(|(i, _)| chosen != Some(*i))
            .map(|(_, (path, _))| name_of(path))
            .collect();
        if let Some(chosen) = chosen {
            if !own.is_empty() {
                warnings.push(format!(
                    "{} TIFF files beside the folder {} are left out",
                    own.len(),
                    with_tiffs[chosen].0.display()
                ));
            }
            note_left_out(&left_out, warnings);
            return Ok((with_tiffs[chosen].0.clone(), with_tiffs[chosen].1.clone()));
        }
        if own.is_empty() {
            return Err(self.no_projections(folder, &left_out));
        }
        note_left_out(&left_out, warnings);
        let mut stems: Vec<String> = own
            .iter()
            .map(|path| stem_without_number(&name_of(path)))
            .collect();
        stems.sort();
        stems.dedup();
        if stems.len() > 1 {
            warnings.push(format!(
                "projections of {} kinds of names are taken together: {}",
                stems.len(),
                stems.join(", ")
            ));
        }
        Ok((folder.to_path_buf(), own))
    }

    fn no_projections(&self, folder: &Path, candidates: &[String]) -> Error {
        let (problem, hint) = if !candidates.is_empty() {
            (
                format!(
                    "there are TIFF files in several folders ({}), and none has a usual name",
                    candidates.join(", ")
                ),
                "name the projections with --data",
            )
        } else if self.tiffs.is_empty() {
            (
                "there are no TIFF files in this folder".to_string(),
                "give the folder of the projections, or an HDF5 file",
            )
        } else {
            (
                format!(
                    "all {} TIFF files are flats or darks by their names",
                    self.tiffs.len()
                ),
                "name the projections with --data, e.g. --data 'scan_*.tif'",
            )
        };
        Error::input(folder, problem, hint)
    }

    /// Files of flats or darks taken before (or at an unknown time), and after.
    fn of_kind(&self, kind: Kind) -> Result<[Vec<PathBuf>; 2]> {
        let mut found = [Vec::new(), Vec::new()];
        for folder in self
            .folders
            .iter()
            .filter(|path| kind_of_folder(&name_of(path)) == Some(kind))
        {
            found[usize::from(is_after(&name_of(folder)))].extend(Listing::read(folder)?.tiffs);
        }
        for file in self
            .tiffs
            .iter()
            .filter(|path| kind_of_file(&name_of(path)) == Some(kind))
        {
            found[usize::from(is_after(&name_of(file)))].push(file.clone());
        }
        Ok(found)
    }
}

fn note_left_out(folders: &[String], warnings: &mut Vec<String>) {
    if !folders.is_empty() {
        warnings.push(format!("TIFF files in {} are left out", folders.join(", ")));
    }
}

fn frames(
    folder: &Path,
    spec: Option<&str>,
    listing: &Listing,
    kind: Kind,
) -> Result<Option<(TiffStack, Times)>> {
    let (name, [before, after]) = match spec {
        Some(spec) => (resolve(folder, spec), [files_of(folder, spec)?, Vec::new()]),
        None => {
            let found = listing.of_kind(kind)?;
            let first = found.iter().flatten().next();
            let place = first
                .and_then(|file| file.parent())
                .unwrap_or(folder)
                .to_path_buf();
            (place, found)
        }
    };
    if before.is_empty() && after.is_empty() {
        return Ok(None);
    }
    let n_before = match &before[..] {
        [] => 0,
        files => TiffStack::open(&name, files.to_vec())?.shape()[0],
    };
    let stack = TiffStack::open(&name, before.into_iter().chain(after).collect())?;
    let n = stack.shape()[0];
    Ok(Some((
        stack,
        Times {
            before: (0..n_before).collect(),
            after: (n_before..n).collect(),
        },
    )))
}

fn resolve(folder: &Path, spec: &str) -> PathBuf {
    angles::find(spec, folder).unwrap_or_else(|_| folder.join(spec))
}

/// The files that `--data`, `--flats` or `--darks` name: a folder, a file, or a pattern with `*` in the last part.
fn files_of(folder: &Path, spec: &str) -> Result<Vec<PathBuf>> {
    let path = resolve(folder, spec);
    let nothing = |what: &str| {
        Error::input(
            &path,
            format!("{what} (named as {spec})"),
            "name a TIFF file, a folder, or a pattern such as 'raw_*.tif'",
        )
    };
    if path.is_dir() {
        let tiffs = Listing::read(&path)?.tiffs;
        return if tiffs.is_empty() {
            Err(nothing("there are no TIFF files in this folder"))
        } else {
            Ok(tiffs)
        };
    }
    if path.is_file() {
        return Ok(vec![path]);
    }
    let pattern = name_of(&path);
    if pattern.contains('*') {
        let parent = path.parent().unwrap_or(Path::new(""));
        let mut tiffs = Listing::read(parent)?.tiffs;
        tiffs.retain(|file| matches(&pattern, &name_of(file)));
        if !tiffs.is_empty() {
            return Ok(tiffs);
        }
        return Err(nothing("no TIFF file has such a name"));
    }
    Err(nothing("it does not exist"))
}

/// Whether `name` is `pattern` with each `*` replaced by any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|left| {
            left.char_indices()
                .map(|(i, _)| i)
                .chain([left.len()])
                .any(|i| matches(rest, &left[i..]))
        }),
    }
}

/// Angles that the user names, or the only `angles*.txt` or `.csv` of the folder, of its projections, or of its parent.
fn angles_of(folder: &Path, projections: &Path, input: &InputConfig) -> Result<Angles> {
    if let Some(spec) = &input.angles {
        return angles::load(spec, folder);
    }
    let parent = std::path::absolute(folder)
        .ok()
        .and_then(|path| path.parent().map(Path::to_path_buf));
    for place in [
        Some(folder.to_path_buf()),
        Some(projections.to_path_buf()),
        parent,
    ]
    .into_iter()
    .flatten()
    {
        let mut found: Vec<PathBuf> = std::fs::read_dir(&place)
            .map_err(Error::io("list", &place))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| is_angle_name(&name_of(path)) && path.is_file())
            .collect();
        found.sort();
        match &found[..] {
            [] => {}
            [file] => return angles::from_text(file),
            several => {
                let names: Vec<String> = several.iter().map(|path| name_of(path)).collect();
                return Err(Error::input(
                    &place,
                    format!("several files may hold the angles: {}", names.join(", ")),
                    "choose one with --angles",
                ));
            }
        }
    }
    Err(Error::input(
        folder,
        "no angles were found",
        "give --angles START:STOP:COUNT in degrees, or a text file with one angle per line (angles.txt is found by itself)",
    ))
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Whether the name ends as a TIFF file's.
pub(super) fn is_tiff_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        extension.eq_ignore_ascii_case("tif") || extension.eq_ignore_ascii_case("tiff")
    })
}

fn is_angle_name(name: &str) -> bool {
    let name = name.to_lowercase();
    name.starts_with("angle") && (name.ends_with(".txt") || name.ends_with(".csv"))
}

fn stem_without_number(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    stem.trim_end_matches(|c: char| c.is_ascii_digit())
        .to_string()
}

fn words(name: &str) -> Vec<String> {
    let stem = name
        .rsplit_once('.')
        .map_or(name, |(stem, _)| stem)
        .to_lowercase();
    stem.split(|c: char| !c.is_alphabetic())
        .filter(|word| !word.is_empty())
        .map(str::to_string)
        .collect()
}

fn kind_of_file(name: &str) -> Option<Kind> {
    let words = words(name);
    let first = words.first()?.as_str();
    let any = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    // Short names count only where they stand first: a sample may be called "ob" further on.
    if first.starts_with("dark")
        || ["dc", "df", "di"].contains(&first)
        || any(&["dark", "darks", "darkfield"])
    {
        Some(Kind::Dark)
    } else if ["flat", "white", "openbeam", "refhst"]
        .iter()
        .any(|start| first.starts_with(start))
        || ["ob", "ref", "refs", "ff"].contains(&first)
        || any(&["flat", "flats", "flatfield"])
    {
        Some(Kind::Flat)
    } else {
        None
    }
}

fn kind_of_folder(name: &str) -> Option<Kind> {
    // A folder's name has no suffix to cut off.
    let name = format!("{name}.");
    let first = words(&name).into_iter().next()?;
    match first.as_str() {
        "open" | "gain" | "bright" | "brightfield" => Some(Kind::Flat),
        "bias" | "offset" => Some(Kind::Dark),
        _ => kind_of_file(&name),
    }
}

fn is_after(name: &str) -> bool {
    words(&format!("{name}."))
        .iter()
        .any(|word| ["after", "post", "end"].contains(&word.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_of_flats_and_darks_are_known_and_samples_are_not_taken_for_them() {
        for name in [
            "flat_00001.tiff",
            "FlatField1.tif",
            "ob_00001.tif",
            "refHST0000.tif",
            "white-3.tif",
            "scan1_flat_002.tif",
        ] {
            assert_eq!(kind_of_file(name), Some(Kind::Flat), "{name}");
        }
        for name in [
            "dark_00001.tiff",
            "dc_00001.tif",
            "DarkField.tif",
            "di_4.tif",
            "scan1_dark_1.tif",
        ] {
            assert_eq!(kind_of_file(name), Some(Kind::Dark), "{name}");
        }
        for name in [
            "raw_00000.tiff",
            "ct5s_00001.tif",
            "object_1.tif",
            "reference_cell_1.tif",
            "0001.tif",
            "obsidian.tif",
        ] {
            assert_eq!(kind_of_file(name), None, "{name}");
        }
        assert_eq!(kind_of_folder("blackbody_open"), None);
        assert_eq!(kind_of_folder("Flat_After"), Some(Kind::Flat));
        assert!(is_after("Flat_After") && !is_after("Flat_Before"));
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(
            matches("raw_*.tif", "raw_001.tif") && matches("*", "") && matches("a*b*c", "aXbYbc")
        );
        assert!(!matches("raw_*.tif", "flat_001.tif") && !matches("a*b", "abc"));
    }
}
