//! HDF5 behind a thin trait: one open dataset, read as f32 or f64, with every guard that the crates below lack.
//!
//! - `guard` refuses files that are shorter than their superblock says;
//! - `native` is the default, in Rust; `c_library` (feature `hdf5-c`) decodes what the default cannot;
//! - `tree` walks groups and links, also into other files;
//! - `stack` and `virtual_layout` give frames.

#[cfg(feature = "hdf5-c")]
mod c_library;
mod guard;
mod native;
mod stack;
mod tree;
mod virtual_layout;

use std::path::Path;

use crate::error::Result;
use crate::scan::PixelType;

pub use guard::silence_guarded_panics;
pub(crate) use guard::{believable, check_complete, guarded, is_hdf5};
pub(super) use stack::check_request;
pub(crate) use stack::open_stack;
pub(crate) use tree::{Found, Tree, parent};

/// Longest one-dimensional dataset (angles, image keys) that is believed; a longer claim is refused before anything
/// is allocated.
const LONGEST_LIST: usize = 16_000_000;

/// Element type of a dataset, as far as we read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Element {
    /// A type that detector counts may have.
    Pixel(PixelType),
    /// A number that is no pixel type: 8-bit signed, 64-bit and half-precision.
    Number(&'static str),
    /// Strings of fixed or variable length.
    Text,
    /// Anything else, in words.
    Other(String),
}

impl Element {
    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Element::Pixel(_) | Element::Number(_))
    }

    pub(crate) fn describe(&self) -> String {
        match self {
            Element::Pixel(pixel) => format!("{pixel:?}").to_lowercase(),
            Element::Number(name) => (*name).to_string(),
            Element::Text => "text".into(),
            Element::Other(what) => what.clone(),
        }
    }
}

/// How the values of a dataset lie in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One stretch of the file.
    Contiguous,
    /// One or more stretches of other, raw files.
    Outside,
    /// Inside the header.
    Compact,
    /// Blocks of this shape.
    Chunked(Vec<usize>),
    /// Composed from other datasets.
    Virtual,
}

/// What the header of a dataset says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DatasetInfo {
    pub(crate) shape: Vec<usize>,
    pub(crate) element: Element,
    pub(crate) layout: Layout,
    /// The first filter that the default library cannot undo, in words.
    pub(crate) undecodable: Option<String>,
    /// Whether stored bytes have to be decoded (compressed, shuffled, checked) before they are values.
    pub(crate) filtered: bool,
    /// What reading gives where nothing was written.
    pub(crate) fill: f64,
}

impl DatasetInfo {
    /// Number of elements; `None` where the product overflows.
    pub(crate) fn len(&self) -> Option<usize> {
        self.shape
            .iter()
            .try_fold(1usize, |len, &n| len.checked_mul(n))
    }
}

/// One dataset, open for reading by one thread. The texts of its errors say what failed; the caller adds file and path.
pub(crate) trait Dataset: Send {
    /// What the header says.
    fn info(&self) -> &DatasetInfo;
    /// A block of a numeric dataset, converted to f32, into `out` of the block's size.
    fn read_block(&self, start: &[usize], count: &[usize], out: &mut [f32]) -> Result<(), String>;
    /// All values of a numeric dataset.
    fn read_numbers(&self) -> Result<Vec<f64>, String>;
    /// The first value of a text dataset.
    fn read_text(&self) -> Result<String, String>;
    /// A text attribute; `None` where there is none, or it holds no text.
    fn text_attribute(&self, name: &str) -> Option<String>;
    /// Whether the chunk at these chunk coordinates was ever written.
    fn chunk_is_stored(&self, chunk: &[usize]) -> Result<bool, String>;
}

/// Opens a dataset of `file` (no links to other files are followed) with the default library, or, where that lacks a
/// filter and the feature `hdf5-c` is built in, with the C library.
fn open_dataset(file: &Path, path: &str) -> Result<Box<dyn Dataset>> {
    let dataset = native::NativeDataset::open(&native::open_file(file)?, file, path)?;
    match dataset.info().undecodable.clone() {
        None => Ok(Box::new(dataset)),
        Some(filter) => open_with_c_library(file, path, dataset.info(), &filter),
    }
}

#[cfg(feature = "hdf5-c")]
fn open_with_c_library(
    file: &Path,
    path: &str,
    info: &DatasetInfo,
    _filter: &str,
) -> Result<Box<dyn Dataset>> {
    Ok(Box::new(c_library::CDataset::open(
        file,
        path,
        info.clone(),
    )?))
}

#[cfg(not(feature = "hdf5-c"))]
fn open_with_c_library(
    file: &Path,
    path: &str,
    _info: &DatasetInfo,
    filter: &str,
) -> Result<Box<dyn Dataset>> {
    Err(crate::error::Error::dataset(
        file,
        path,
        format!("it is compressed with filter {filter}, which the built-in reader cannot decode"),
        "build with `--features hdf5-c` (needs libhdf5 and the filter's plugin), or rewrite the file with h5repack",
    ))
}

/// Shape in words, `93 x 135 x 160`.
pub(crate) fn shape_text(shape: &[usize]) -> String {
    if shape.is_empty() {
        return "a single value".into();
    }
    shape
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" x ")
}

#[cfg(test)]
mod tests;
