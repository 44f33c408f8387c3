//! The default library, `rust-hdf5`, behind [`Dataset`].

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use rust_hdf5::{
    DatasetAccess, DatatypeMessage, FillValue, Filter, H5Dataset, H5File, H5FileOptions, H5Type,
    StorageLayout,
};

use super::{Dataset, DatasetInfo, Element, LONGEST_LIST, Layout, believable, guard, shape_text};
use crate::error::{Error, Result};
use crate::scan::PixelType;

/// Opens a file after checking that it is complete.
///
/// A file that another process writes is refused where the file system knows locks; where it knows none, no lock is
/// asked for.
pub(super) fn open_file(path: &Path) -> Result<H5File> {
    guard::check_complete(path)?;
    H5FileOptions::new()
        .best_effort_locking()
        .open(path)
        .map_err(|error| {
            Error::input(
                path,
                format!(
                    "the HDF5 structure cannot be read ({})",
                    first_line(&error.to_string())
                ),
                "check it with h5dump, or copy it again",
            )
        })
}

/// Long texts of the library (every path it tried) cut to what a person reads.
pub(super) fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_string(),
    }
}

/// The first filter that this library, built as it is, cannot undo, in words.
fn undecodable(filters: &[Filter]) -> Option<String> {
    let name = |filter: &Filter| match (filter.id, &filter.cd_values[..]) {
        // deflate, shuffle, fletcher32, szip, n-bit, scale-offset; LZF, LZ4, zstd
        (1..=6 | 32000 | 32004 | 32015, _) => None,
        // Bitshuffle names its compression in the fifth value, blosc in the seventh.
        (32008, [_, _, _, _, 3, ..]) => Some(" (bitshuffle with zstd)"),
        (32001, [_, _, _, _, _, _, 3, ..]) => Some(" (blosc with snappy)"),
        (32001 | 32008, _) => None,
        (307, _) => Some(" (bzip2)"),
        (32013, _) => Some(" (zfp)"),
        (32019, _) => Some(" (jpeg)"),
        (32026, _) => Some(" (blosc2)"),
        _ => Some(""),
    };
    filters
        .iter()
        .find_map(|filter| Some(format!("{}{}", filter.id, name(filter)?)))
}

thread_local! {
    /// Values as they are stored, of the block that is read: fresh memory costs more than the conversion.
    static STORED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}
/// Largest block whose memory a thread keeps \[bytes\].
const KEPT_BYTES: usize = 1 << 20;

/// A dataset of a file that stays open with it.
pub(super) struct NativeDataset {
    dataset: H5Dataset,
    info: DatasetInfo,
    file: PathBuf,
}

impl NativeDataset {
    /// Opens the dataset `path`, which no link to another file may lead to.
    pub(super) fn open(file: &H5File, file_path: &Path, path: &str) -> Result<NativeDataset> {
        let fail = |error: rust_hdf5::Hdf5Error| {
            Error::dataset(
                file_path,
                path,
                format!("it cannot be opened ({})", first_line(&error.to_string())),
                "`h5ls -r` or `tomodelta inspect` list what is there",
            )
        };
        // Raw data files are looked for beside the HDF5 file, not in the working folder.
        let access = DatasetAccess::new().efile_prefix("${ORIGIN}");
        let dataset = file
            .dataset_with(path.trim_start_matches('/'), access)
            .map_err(fail)?;
        let info = read_info(&dataset).map_err(fail)?;
        Ok(NativeDataset {
            dataset,
            info,
            file: file_path.to_path_buf(),
        })
    }

    /// Refuses a list (angles, keys, text) that its header makes longer than the file can hold.
    fn check_list(&self) -> Result<(), String> {
        let size = match self.info.element {
            Element::Pixel(pixel) => pixel.bytes(),
            _ => 8,
        };
        let chunk = match &self.info.layout {
            Layout::Chunked(chunk) => chunk.iter().map(|&n| n as u128).product(),
            _ => 0,
        };
        match self.info.len() {
            Some(len)
                if len <= LONGEST_LIST
                    && believable(&self.file, chunk.max(len as u128) * size as u128) =>
            {
                Ok(())
            }
            _ => Err(format!(
                "its header claims {} values",
                shape_text(&self.info.shape)
            )),
        }
    }

    /// The mappings of a virtual dataset.
    pub(super) fn virtual_mappings(&self) -> Result<Vec<rust_hdf5::VirtualMapping>, String> {
        self.dataset
            .virtual_mappings()
            .map_err(|error| first_line(&error.to_string()))
    }

    /// The raw files of a dataset stored outside: name, offset and bytes.
    pub(super) fn outside_files(&self) -> Result<Vec<(String, u64, u64)>, String> {
        let files = self
            .dataset
            .external_files()
            .map_err(|error| first_line(&error.to_string()))?;
        Ok(files
            .into_iter()
            .map(|file| (file.name, file.offset, file.size))
            .collect())
    }

    fn read_as<T: H5Type + bytemuck::Pod>(
        &self,
        start: &[usize],
        count: &[usize],
        out: &mut [f32],
        convert: impl Fn(T) -> f32,
    ) -> Result<(), String> {
        STORED.with_borrow_mut(|stored| {
            let words = (out.len() * size_of::<T>()).div_ceil(size_of::<u64>());
            if stored.len() < words {
                // nothing of the old block is wanted, so it need not be copied
                *stored = vec![0; words];
            }
            let values = &mut bytemuck::cast_slice_mut::<u64, T>(stored)[..out.len()];
            let read = self.read_into(start, count, values);
            for (out, &value) in out.iter_mut().zip(&*values) {
                *out = convert(value);
            }
            if words * size_of::<u64>() > KEPT_BYTES {
                *stored = Vec::new();
            }
            read
        })
    }

    fn read_into<T: H5Type>(
        &self,
        start: &[usize],
        count: &[usize],
        values: &mut [T],
    ) -> Result<(), String> {
        self.dataset
            .read_slice_into(values, start, count)
            .map_err(|error| first_line(&error.to_string()))
    }
}

fn read_info(dataset: &H5Dataset) -> rust_hdf5::Result<DatasetInfo> {
    let datatype = dataset.datatype()?;
    let layout = match dataset.storage_layout()? {
        StorageLayout::Compact => Layout::Compact,
        StorageLayout::Contiguous if !dataset.external_files()?.is_empty() => Layout::Outside,
        StorageLayout::Contiguous => Layout::Contiguous,
        StorageLayout::Chunked => Layout::Chunked(dataset.chunk_dims().unwrap_or_default()),
        StorageLayout::Virtual => Layout::Virtual,
    };
    let element = element_of(&datatype);
    let fill = match dataset.fill_value()? {
        FillValue::UserDefined(bytes) => number_from(&element, &bytes).unwrap_or(0.0),
        FillValue::Default | FillValue::Undefined => 0.0,
    };
    let filters = dataset.filters()?;
    // A null dataspace has no elements, but its shape is that of a single value.
    let shape = if dataset.is_null() {
        vec![0]
    } else {
        dataset.shape()
    };
    Ok(DatasetInfo {
        shape,
        element,
        layout,
        undecodable: undecodable(&filters),
        filtered: !filters.is_empty(),
        fill,
    })
}

/// The library itself compares only sizes, so the type is judged here, bit for bit.
fn element_of(datatype: &DatatypeMessage) -> Element {
    match datatype {
        DatatypeMessage::FixedPoint {
            size,
            signed,
            bit_offset: 0,
            bit_precision,
            ..
        } if !*signed || u32::from(*bit_precision) == size * 8 => integer(*size, *signed, datatype),
        DatatypeMessage::BitField {
            size,
            bit_offset: 0,
            ..
        } => integer(*size, false, datatype),
        DatatypeMessage::FloatingPoint {
            size: 4,
            exponent_size: 8,
            mantissa_size: 23,
            exponent_bias: 127,
            ..
        } => Element::Pixel(PixelType::F32),
        DatatypeMessage::FloatingPoint {
            size: 8,
            exponent_size: 11,
            mantissa_size: 52,
            exponent_bias: 1023,
            ..
        } => Element::Pixel(PixelType::F64),
        DatatypeMessage::FloatingPoint {
            size: 2,
            exponent_size: 5,
            mantissa_size: 10,
            ..
        } => Element::Number("f16"),
        DatatypeMessage::FixedString { .. } | DatatypeMessage::VarLenString { .. } => Element::Text,
        other => Element::Other(first_line(&other.to_string())),
    }
}

fn integer(size: u32, signed: bool, datatype: &DatatypeMessage) -> Element {
    match (size, signed) {
        (1, false) => Element::Pixel(PixelType::U8),
        (2, false) => Element::Pixel(PixelType::U16),
        (4, false) => Element::Pixel(PixelType::U32),
        (2, true) => Element::Pixel(PixelType::I16),
        (4, true) => Element::Pixel(PixelType::I32),
        (1, true) => Element::Number("i8"),
        (8, true) => Element::Number("i64"),
        (8, false) => Element::Number("u64"),
        _ => Element::Other(first_line(&datatype.to_string())),
    }
}

/// One little-endian element; big-endian fill values other than zero are not told apart, which costs a needless check.
fn number_from(element: &Element, bytes: &[u8]) -> Option<f64> {
    let Element::Pixel(pixel) = element else {
        return None;
    };
    Some(match pixel {
        PixelType::U8 => f64::from(*bytes.first()?),
        PixelType::U16 => f64::from(u16::from_le_bytes(bytes.try_into().ok()?)),
        PixelType::U32 => f64::from(u32::from_le_bytes(bytes.try_into().ok()?)),
        PixelType::I16 => f64::from(i16::from_le_bytes(bytes.try_into().ok()?)),
        PixelType::I32 => f64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        PixelType::F32 => f64::from(f32::from_le_bytes(bytes.try_into().ok()?)),
        PixelType::F64 => f64::from_le_bytes(bytes.try_into().ok()?),
    })
}

impl Dataset for NativeDataset {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn read_block(&self, start: &[usize], count: &[usize], out: &mut [f32]) -> Result<(), String> {
        let Element::Pixel(pixel) = self.info.element else {
            return Err(format!(
                "its type is {}, not a number of 8 to 32 bits or a float",
                self.info.element.describe()
            ));
        };
        match pixel {
            PixelType::U8 => self.read_as::<u8>(start, count, out, f32::from),
            PixelType::U16 => self.read_as::<u16>(start, count, out, f32::from),
            PixelType::U32 => self.read_as::<u32>(start, count, out, |value| value as f32),
            PixelType::I16 => self.read_as::<i16>(start, count, out, f32::from),
            PixelType::I32 => self.read_as::<i32>(start, count, out, |value| value as f32),
            PixelType::F32 => self.read_into(start, count, out),
            PixelType::F64 => self.read_as::<f64>(start, count, out, |value| value as f32),
        }
    }

    fn read_numbers(&self) -> Result<Vec<f64>, String> {
        if !self.info.element.is_number() {
            return Err(format!(
                "its type is {}, not a number",
                self.info.element.describe()
            ));
        }
        self.check_list()?;
        let fail = |error: rust_hdf5::Hdf5Error| first_line(&error.to_string());
        match self.info.element {
            Element::Pixel(PixelType::F32 | PixelType::F64) | Element::Number("f16") => {
                self.dataset.read_numeric_as::<f64>().map_err(fail)
            }
            Element::Number("u64") => Ok(self
                .dataset
                .read_numeric_as::<u64>()
                .map_err(fail)?
                .into_iter()
                .map(|value| value as f64)
                .collect()),
            _ => Ok(self
                .dataset
                .read_numeric_as::<i64>()
                .map_err(fail)?
                .into_iter()
                .map(|value| value as f64)
                .collect()),
        }
    }

    fn read_text(&self) -> Result<String, String> {
        if self.info.element != Element::Text {
            return Err(format!(
                "its type is {}, not text",
                self.info.element.describe()
            ));
        }
        self.check_list()?;
        let strings = self
            .dataset
            .read_strings_lossy()
            .map_err(|error| first_line(&error.to_string()))?;
        Ok(strings.first().map(|text| trim(text)).unwrap_or_default())
    }

    fn text_attribute(&self, name: &str) -> Option<String> {
        let attribute = self.dataset.attr(name).ok()?;
        // read_string answers for numbers too, with nonsense.
        match attribute.datatype().ok()? {
            DatatypeMessage::FixedString { .. } | DatatypeMessage::VarLenString { .. } => {
                attribute.read_string().ok().map(|text| trim(&text))
            }
            _ => None,
        }
    }

    fn chunk_is_stored(&self, chunk: &[usize]) -> Result<bool, String> {
        match self.dataset.read_chunk_raw_at(chunk) {
            Ok(_) => Ok(true),
            Err(error) if error.to_string().contains("has not been written") => Ok(false),
            Err(error) => Err(first_line(&error.to_string())),
        }
    }
}

pub(super) fn trim(text: &str) -> String {
    text.trim_matches(|c: char| c == '\0' || c.is_whitespace())
        .to_string()
}
