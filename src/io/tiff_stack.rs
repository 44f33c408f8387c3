//! Frames in TIFF files: one page per file or many, in the order given.
//!
//! Rows of uncompressed strips are read from where they stand; compressed strips and tiles are decoded one by one,
//! only those that the rows need.

mod claims;
mod directory;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;
use tiff::decoder::DecodingResult;
use tiff::tags::ByteOrder;

pub(crate) use claims::limits;
use directory::{Page, Place, TiffDecoder, damaged, open_decoder, read_directories};

use crate::error::{Error, Result};
use crate::io::stall::watched;
use crate::io::waits::at_once;
use crate::scan::{FrameStack, PixelType};

/// A stack of TIFF pages of one size and type.
pub(super) struct TiffStack {
    /// Folder or file, for messages.
    name: PathBuf,
    files: Vec<PathBuf>,
    /// The file and the directory of each frame.
    frames: Vec<(usize, Page)>,
    shape: [usize; 3],
    pixel: PixelType,
    /// Decoders of files with many pages, each with the list of pages it has walked; by file.
    idle: Mutex<Vec<(usize, TiffDecoder)>>,
}

impl TiffStack {
    /// Reads the directories of all `files`, in their order.
    ///
    /// # Errors
    /// [`Error::Input`] for a file that is damaged, truncated, or of an unusable kind; [`Error::Shape`] for mixed sizes.
    pub(super) fn open(name: &Path, files: Vec<PathBuf>) -> Result<TiffStack> {
        let pages: Vec<Vec<Page>> = files
            .par_iter()
            .map(|file| read_directories(file))
            .collect::<Result<_>>()?;
        let frames: Vec<(usize, Page)> = pages
            .into_iter()
            .enumerate()
            .flat_map(|(file, pages)| pages.into_iter().map(move |page| (file, page)))
            .collect();
        let Some((_, first)) = frames.first() else {
            return Err(Error::input(
                name,
                "there are no TIFF pages",
                "give a folder of TIFF files",
            ));
        };
        let (rows, cols, pixel) = (first.rows, first.cols, first.pixel);
        for (file, page) in &frames {
            if (page.rows, page.cols) != (rows, cols) {
                return Err(Error::Shape {
                    what: format!("rows and columns of {}, compared with {}", files[*file].display(), files[0].display()),
                    expected: vec![rows, cols],
                    found: vec![page.rows, page.cols],
                    hint: "keep only the frames of one scan in a folder, or name them with a pattern such as --data 'raw_*.tif'".into(),
                });
            }
            if page.pixel != pixel {
                return Err(Error::input(
                    &files[*file],
                    format!(
                        "its pixels are {:?}, those of {} are {pixel:?}",
                        page.pixel,
                        files[0].display()
                    ),
                    "keep only the frames of one scan in a folder",
                ));
            }
        }
        let shape = [frames.len(), rows, cols];
        Ok(TiffStack {
            name: name.to_path_buf(),
            files,
            frames,
            shape,
            pixel,
            idle: Mutex::default(),
        })
    }

    /// The files of the stack.
    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn read_page(&self, frame: usize, rows: &Range<usize>, out: &mut [f32]) -> Result<()> {
        let (file, page) = &self.frames[frame];
        let path = &self.files[*file];
        match &page.place {
            Place::Plain {
                strips,
                rows_per_strip,
                order,
            } => read_plain(path, page, strips, *rows_per_strip, *order, rows, out)
                .map_err(|error| damaged(path, frame, error)),
            Place::Coded {
                page: number,
                rows: height,
                cols: width,
            } => {
                let mut decoder = self.decoder(*file)?;
                read_coded(
                    &mut decoder,
                    *number,
                    (*height, *width),
                    page.cols,
                    rows,
                    out,
                )
                .map_err(|error| damaged(path, frame, error))?;
                self.idle
                    .lock()
                    .expect("no thread panics while it holds the lock")
                    .push((*file, decoder));
                Ok(())
            }
        }
    }

    fn decoder(&self, file: usize) -> Result<TiffDecoder> {
        let mut idle = self
            .idle
            .lock()
            .expect("no thread panics while it holds the lock");
        if let Some(at) = idle.iter().position(|(of, _)| *of == file) {
            return Ok(idle.swap_remove(at).1);
        }
        // Decoders of other files stay only while files are few: a folder of thousands must not keep all open.
        if idle.len() > 64 {
            idle.clear();
        }
        drop(idle);
        open_decoder(&self.files[file])
    }
}

fn read_plain(
    path: &Path,
    page: &Page,
    strips: &[u64],
    rows_per_strip: usize,
    order: ByteOrder,
    rows: &Range<usize>,
    out: &mut [f32],
) -> std::io::Result<()> {
    let row_bytes = page.cols * page.pixel.bytes();
    let mut file = File::open(path)?;
    let mut bytes = vec![0u8; rows.len() * row_bytes];
    let mut row = rows.start;
    while row < rows.end {
        // Strips that follow each other in the file are read in one go.
        let strip = row / rows_per_strip;
        let offset = strips[strip] + ((row - strip * rows_per_strip) * row_bytes) as u64;
        let mut end = ((strip + 1) * rows_per_strip).min(rows.end);
        while end < rows.end
            && strips[end / rows_per_strip] == offset + ((end - row) * row_bytes) as u64
        {
            end = (end + rows_per_strip).min(rows.end);
        }
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(
            &mut bytes[(row - rows.start) * row_bytes..(end - rows.start) * row_bytes],
        )?;
        row = end;
    }
    to_f32(&bytes, page.pixel, order == ByteOrder::BigEndian, out);
    Ok(())
}

fn to_f32(bytes: &[u8], pixel: PixelType, big: bool, out: &mut [f32]) {
    macro_rules! convert {
        ($type:ty, $size:literal) => {
            for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact($size)) {
                let bytes = bytes
                    .try_into()
                    .expect("chunks_exact gives chunks of this size");
                *out = if big {
                    <$type>::from_be_bytes(bytes)
                } else {
                    <$type>::from_le_bytes(bytes)
                } as f32;
            }
        };
    }
    match pixel {
        PixelType::U8 => convert!(u8, 1),
        PixelType::U16 => convert!(u16, 2),
        PixelType::I16 => convert!(i16, 2),
        PixelType::U32 => convert!(u32, 4),
        PixelType::I32 => convert!(i32, 4),
        PixelType::F32 => convert!(f32, 4),
        PixelType::F64 => convert!(f64, 8),
    }
}

fn read_coded(
    decoder: &mut TiffDecoder,
    page: usize,
    (chunk_rows, chunk_cols): (usize, usize),
    cols: usize,
    rows: &Range<usize>,
    out: &mut [f32],
) -> Result<(), String> {
    let text = |error: tiff::TiffError| error.to_string();
    decoder.seek_to_image(page).map_err(text)?;
    let across = cols.div_ceil(chunk_cols);
    for down in rows.start / chunk_rows..rows.end.div_ceil(chunk_rows) {
        for right in 0..across {
            let number =
                u32::try_from(down * across + right).map_err(|_| "too many strips".to_string())?;
            let (width, height) = decoder.chunk_data_dimensions(number);
            let (width, height) = (width as usize, height as usize);
            let counts = as_f32(decoder.read_chunk(number).map_err(text)?)?;
            if counts.len() < width * height || right * chunk_cols + width > cols {
                return Err(format!("strip or tile {number} is too small"));
            }
            for (row, line) in (down * chunk_rows..)
                .zip(counts.chunks_exact(width))
                .take(height)
            {
                if rows.contains(&row) {
                    let first = (row - rows.start) * cols + right * chunk_cols;
                    out[first..first + width].copy_from_slice(line);
                }
            }
        }
    }
    Ok(())
}

fn as_f32(counts: DecodingResult) -> Result<Vec<f32>, String> {
    Ok(match counts {
        DecodingResult::U8(values) => values.into_iter().map(f32::from).collect(),
        DecodingResult::U16(values) => values.into_iter().map(f32::from).collect(),
        DecodingResult::I16(values) => values.into_iter().map(f32::from).collect(),
        DecodingResult::U32(values) => values.into_iter().map(|value| value as f32).collect(),
        DecodingResult::I32(values) => values.into_iter().map(|value| value as f32).collect(),
        DecodingResult::F32(values) => values,
        DecodingResult::F64(values) => values.into_iter().map(|value| value as f32).collect(),
        _ => return Err("the decoder gave another type than the directory says".into()),
    })
}

impl FrameStack for TiffStack {
    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn pixel_type(&self) -> PixelType {
        self.pixel
    }

    fn read(&self, frames: &[usize], rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let frame_len =
            super::hdf5::check_request(self.shape, frames, &rows, out, || self.describe())?;
        if frame_len == 0 {
            return Ok(());
        }
        let mut read = || {
            frames
                .par_iter()
                .zip(out.par_chunks_mut(frame_len))
                .try_for_each(|(&frame, out)| {
                    watched(&self.files[self.frames[frame].0], || {
                        self.read_page(frame, &rows, out)
                    })
                })
        };
        match self.frames[0].1.place {
            Place::Plain { .. } => at_once(frame_len * self.pixel.bytes(), read),
            Place::Coded { .. } => read(),
        }
    }

    fn decoded_bytes(&self, rows: Range<usize>) -> u64 {
        let [_, n_rows, n_cols] = self.shape;
        let (height, width) = match &self.frames[0].1.place {
            Place::Plain { .. } => (rows.len(), n_cols),
            Place::Coded {
                rows: chunk_rows,
                cols: chunk_cols,
                ..
            } => {
                let whole = rows.end.div_ceil(*chunk_rows) * chunk_rows
                    - rows.start / chunk_rows * chunk_rows;
                (
                    whole.min(n_rows.next_multiple_of(*chunk_rows)),
                    n_cols.next_multiple_of(*chunk_cols),
                )
            }
        };
        (height * width * self.pixel.bytes()) as u64
    }

    fn describe(&self) -> String {
        self.name.display().to_string()
    }
}
