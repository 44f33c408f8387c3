//! A scan in HDF5: which layout it has, and what the user overrides.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::angles::{self, Angles};
use super::assemble::{Frames, Parts};
use super::hdf5::{Found, Tree, open_stack};
use super::{dxchange, nexus};
use crate::config::InputConfig;
use crate::error::{Error, Result};
use crate::scan::FrameStack;

/// Dataset paths of a scan, each `/dataset` or `file.h5:/dataset`, and what else the layout knows.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) layout: &'static str,
    pub(super) data: String,
    pub(super) image_key: Option<String>,
    pub(super) flats: Option<String>,
    pub(super) darks: Option<String>,
    pub(super) angles: Option<Angles>,
    pub(super) pixel_size_um: Option<f64>,
    pub(super) start_time: Option<String>,
    pub(super) warnings: Vec<String>,
}

/// Recognises the layout and opens the stacks.
pub(super) fn open(path: &Path, input: &InputConfig) -> Result<Parts> {
    let tree = Tree::open(path)?;
    let mut sources = recognise(&tree, input)?;
    let mut files = vec![path.to_path_buf()];

    // What the user names wins over what the layout says.
    let given = |key: &Option<String>, found: Option<String>| key.clone().or(found);
    sources.image_key = given(&input.image_key, sources.image_key);
    sources.flats = given(&input.flats, sources.flats);
    sources.darks = given(&input.darks, sources.darks);
    let angles = match (&input.angles, sources.angles) {
        (Some(spec), _) => angles::load(spec, path)?,
        (None, Some(angles)) => angles,
        (None, None) => return Err(no_angles(path, &sources.data)),
    };
    files.extend(angles.files.iter().cloned());

    let stack = stack(&tree, &sources.data, &mut files)?;
    let image_key = match &sources.image_key {
        Some(spec) => Some((numbers(&tree, spec, &mut files)?, spec.clone())),
        None => None,
    };
    let mut frames = |spec: &Option<String>| -> Result<Option<Frames>> {
        spec.as_deref()
            .map(|spec| self::stack(&tree, spec, &mut files).map(Frames::all))
            .transpose()
    };
    let (flats, darks) = (frames(&sources.flats)?, frames(&sources.darks)?);
    files.extend(tree.files());
    Ok(Parts {
        path: path.to_path_buf(),
        layout: sources.layout,
        stack,
        image_key,
        flats,
        darks,
        angles,
        pixel_size_um: sources.pixel_size_um,
        start_time: sources.start_time,
        warnings: sources.warnings,
        files,
    })
}

fn recognise(tree: &Tree, input: &InputConfig) -> Result<Sources> {
    if let Some(data) = &input.data {
        return Ok(generic(tree, data, input));
    }
    if tree.locate("/exchange").is_ok() {
        return dxchange::find(tree);
    }
    let (found, dangling) = tree.datasets();
    match nexus::find(tree, &found, &dangling, input)? {
        Some(sources) => Ok(sources),
        None => Err(unrecognised(tree, &found, &dangling)),
    }
}

/// The user names the data; angles and image key beside them are taken where they fit.
fn generic(tree: &Tree, data: &str, input: &InputConfig) -> Sources {
    let mut sources = Sources {
        layout: "HDF5",
        data: data.to_string(),
        ..Sources::default()
    };
    if angles::split_dataset(data).is_some() {
        return sources;
    }
    let Ok((shape, parent)) = tree.locate(data).and_then(|at| {
        let shape = tree.dataset(&at)?.info().shape.clone();
        Ok((shape, super::hdf5::parent(data)))
    }) else {
        return sources;
    };
    let key = format!("{parent}/image_key");
    let has_key = tree.locate(&key).is_ok_and(|at| {
        tree.dataset(&at)
            .is_ok_and(|key| key.info().shape == shape[..1.min(shape.len())])
    });
    if has_key && input.flats.is_none() && input.darks.is_none() {
        sources.image_key = Some(key);
    }
    if input.angles.is_none() {
        let (found, _) = tree.datasets();
        let lengths = nexus::lengths(
            tree,
            &shape,
            sources.image_key.as_deref().or(input.image_key.as_deref()),
        );
        sources.angles = nexus::find_angles(tree, &found, data, &lengths, &mut sources.warnings);
    }
    nexus::metadata(tree, data, &mut sources);
    sources
}

/// Splits `file.h5:/dataset`, opens the other file, and calls `read` with its tree and the path.
fn with_tree<T>(
    tree: &Tree,
    spec: &str,
    files: &mut Vec<PathBuf>,
    read: impl FnOnce(&Tree, &str) -> Result<T>,
) -> Result<T> {
    match angles::split_dataset(spec) {
        None => read(tree, spec),
        Some((file, path)) => {
            let file = angles::find(file, tree.root())?;
            let other = Tree::open(&file)?;
            let result = read(&other, path)?;
            files.extend(other.files());
            Ok(result)
        }
    }
}

fn stack(tree: &Tree, spec: &str, files: &mut Vec<PathBuf>) -> Result<Arc<dyn FrameStack>> {
    with_tree(tree, spec, files, |tree, path| {
        open_stack(tree, path).map(Arc::from)
    })
}

fn numbers(tree: &Tree, spec: &str, files: &mut Vec<PathBuf>) -> Result<Vec<f64>> {
    with_tree(tree, spec, files, |tree, path| {
        tree.numbers(path).map(|(values, _)| values)
    })
}

fn no_angles(path: &Path, data: &str) -> Error {
    Error::input(
        path,
        format!("no angles were found for the projections in {data}"),
        "give --angles: a dataset, a text file with one angle per line, or START:STOP:COUNT in degrees",
    )
}

/// A file of no known layout: the error lists what could be the images.
fn unrecognised(tree: &Tree, found: &[Found], dangling: &[String]) -> Error {
    let mut stacks: Vec<String> = found
        .iter()
        .filter(|d| d.shape.len() == 3)
        .map(Found::describe)
        .collect();
    let more = stacks.len().saturating_sub(8);
    stacks.truncate(8);
    let mut list = if stacks.is_empty() {
        "no dataset with three axes".to_string()
    } else {
        stacks.join(", ")
    };
    if more > 0 {
        list += &format!(" and {more} more");
    }
    if !dangling.is_empty() {
        list += &format!(
            "; {} links lead nowhere, such as {}",
            dangling.len(),
            dangling[0].escape_debug()
        );
    }
    Error::input(
        tree.root(),
        format!(
            "it is neither NXtomo (no detector with an image_key) nor DXchange (no /exchange/data); found {list}"
        ),
        "name the images with --data, and --flats, --darks and --angles where there are some",
    )
}
