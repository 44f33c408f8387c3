//! The HDF5 C library behind [`Dataset`], for filters that the default lacks.
//!
//! It loads plugins from `HDF5_PLUGIN_PATH`, and holds one lock for the whole process: threads do not make it faster.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use hdf5_metno as hdf5;
use hdf5_metno::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenAscii, VarLenUnicode};

use super::native::first_line;
use super::{Dataset, DatasetInfo, Element, LONGEST_LIST, shape_text};
use crate::error::{Error, Result};

/// Longest text of fixed length that is read.
const TEXT: usize = 4096;

/// A dataset of the C library.
pub(super) struct CDataset {
    dataset: hdf5::Dataset,
    /// As the default library reads it, which understands every header that the tree was walked with.
    info: DatasetInfo,
    /// First elements of the chunks that were written.
    stored: OnceLock<BTreeSet<Vec<u64>>>,
}

impl CDataset {
    pub(super) fn open(file: &Path, path: &str, info: DatasetInfo) -> Result<CDataset> {
        let fail = |error: hdf5::Error| {
            Error::dataset(
                file,
                path,
                format!(
                    "the HDF5 C library cannot open it ({})",
                    first_line(&error.to_string())
                ),
                "its version may be older than the file; rewrite the file with h5repack",
            )
        };
        let dataset = hdf5::File::open(file)
            .and_then(|file| file.dataset(path))
            .map_err(fail)?;
        Ok(CDataset {
            dataset,
            info,
            stored: OnceLock::new(),
        })
    }
}

fn words(error: &hdf5::Error) -> String {
    let text = first_line(&error.to_string());
    if text.contains("filter") || text.contains("pipeline") || text.contains("plugin") {
        return format!("{text}; set HDF5_PLUGIN_PATH to the folder of the filter's plugin");
    }
    text
}

/// The first text of a dataset or attribute; `None` where it holds none.
fn text_of(container: &hdf5::Container) -> Option<String> {
    let text = match container.dtype().ok()?.to_descriptor().ok()? {
        TypeDescriptor::VarLenUnicode => container
            .read_raw::<VarLenUnicode>()
            .ok()?
            .first()?
            .to_string(),
        TypeDescriptor::VarLenAscii => container
            .read_raw::<VarLenAscii>()
            .ok()?
            .first()?
            .to_string(),
        TypeDescriptor::FixedAscii(n) if n <= TEXT => container
            .read_raw::<FixedAscii<TEXT>>()
            .ok()?
            .first()?
            .to_string(),
        TypeDescriptor::FixedUnicode(n) if n <= TEXT => container
            .read_raw::<FixedUnicode<TEXT>>()
            .ok()?
            .first()?
            .to_string(),
        _ => return None,
    };
    Some(super::native::trim(&text))
}

impl Dataset for CDataset {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn read_block(&self, start: &[usize], count: &[usize], out: &mut [f32]) -> Result<(), String> {
        if !matches!(self.info.element, Element::Pixel(_)) {
            return Err(format!(
                "its type is {}, not a number of 8 to 32 bits or a float",
                self.info.element.describe()
            ));
        }
        let block: Vec<hdf5::SliceOrIndex> = start
            .iter()
            .zip(count)
            .map(|(&start, &count)| hdf5::SliceOrIndex::SliceCount {
                start,
                step: 1,
                count,
                block: 1,
            })
            .collect();
        // The library converts to f32 as Rust's `as` does: to the nearest.
        let values: ndarray::ArrayD<f32> = self
            .dataset
            .read_slice(hdf5::Hyperslab::from(block))
            .map_err(|error| words(&error))?;
        let values = values.as_slice().ok_or("the block is not contiguous")?;
        if values.len() != out.len() {
            return Err(format!(
                "expected {} values, found {}",
                out.len(),
                values.len()
            ));
        }
        out.copy_from_slice(values);
        Ok(())
    }

    fn read_numbers(&self) -> Result<Vec<f64>, String> {
        if !self.info.element.is_number() {
            return Err(format!(
                "its type is {}, not a number",
                self.info.element.describe()
            ));
        }
        if self.info.len().is_none_or(|len| len > LONGEST_LIST) {
            return Err(format!(
                "its header claims {} values",
                shape_text(&self.info.shape)
            ));
        }
        self.dataset
            .read_raw::<f64>()
            .map_err(|error| words(&error))
    }

    fn read_text(&self) -> Result<String, String> {
        if self.info.len() == Some(0) && self.info.element == Element::Text {
            return Ok(String::new());
        }
        text_of(&self.dataset)
            .ok_or_else(|| format!("its type is {}, not text", self.info.element.describe()))
    }

    fn text_attribute(&self, name: &str) -> Option<String> {
        text_of(&*self.dataset.attr(name).ok()?)
    }

    fn chunk_is_stored(&self, chunk: &[usize]) -> Result<bool, String> {
        let stored = self.stored.get_or_init(|| {
            let n = self.dataset.num_chunks().unwrap_or(0);
            (0..n)
                .filter_map(|i| self.dataset.chunk_info(i))
                .map(|info| info.offset)
                .collect()
        });
        let size = self.dataset.chunk().ok_or("it is not chunked")?;
        let first: Vec<u64> = chunk
            .iter()
            .zip(size)
            .map(|(&at, size)| (at * size) as u64)
            .collect();
        Ok(stored.contains(&first))
    }
}
