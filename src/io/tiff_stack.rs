//! Frames in TIFF files: one page per file or many, in the order given.
//!
//! Rows of uncompressed strips are read from where they stand; compressed strips and tiles are decoded one by one,
//! only those that the rows need.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;
use tiff::ColorType;
use tiff::decoder::{ChunkType, Decoder, DecodingResult, Limits};
use tiff::tags::{ByteOrder, Tag};

use crate::error::{Error, Result};
use crate::scan::{FrameStack, PixelType};

type TiffDecoder = Decoder<BufReader<File>>;

/// What the directory of one page says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Page {
    rows: usize,
    cols: usize,
    pixel: PixelType,
    place: Place,
}

/// Where the rows of a page stand.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Uncompressed strips, readable without a decoder.
    Plain {
        strips: Vec<u64>,
        rows_per_strip: usize,
        order: ByteOrder,
    },
    /// Strips or tiles that have to be decoded: rows and columns of one.
    Coded {
        page: usize,
        rows: usize,
        cols: usize,
    },
}

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

fn damaged(path: &Path, frame: usize, error: impl std::fmt::Display) -> Error {
    Error::input(
        path,
        format!("frame {frame} cannot be read ({error})"),
        "the file is damaged or truncated; copy it again or leave the frame out with input.exclude",
    )
}

fn open_decoder(path: &Path) -> Result<TiffDecoder> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = 8 << 30;
    let decoder = Decoder::new(BufReader::new(file)).map_err(|error| {
        Error::input(
            path,
            format!("it is no readable TIFF ({error})"),
            "remove it from the folder, or copy it again",
        )
    })?;
    Ok(decoder.with_limits(limits))
}

fn read_directories(path: &Path) -> Result<Vec<Page>> {
    let len = std::fs::metadata(path)
        .map_err(Error::io("read", path))?
        .len();
    let mut decoder = open_decoder(path)?;
    let mut pages = Vec::new();
    loop {
        let number = pages.len();
        let page = read_directory(&mut decoder, number, len).map_err(|problem| {
            Error::input(
                path,
                format!("page {number}: {problem}"),
                "give uncompressed, LZW or deflate TIFF of one grey channel, complete",
            )
        })?;
        pages.push(page);
        if !decoder.more_images() {
            break;
        }
        decoder
            .next_image()
            .map_err(|error| damaged(path, number + 1, error))?;
    }
    if let [page] = &pages[..]
        && let Some(more) = imagej_frames(&mut decoder, page, len)
    {
        pages = more;
    }
    Ok(pages)
}

/// ImageJ writes stacks beyond 4 GiB as one page followed by the raw frames, with the number in the description.
fn imagej_frames(decoder: &mut TiffDecoder, page: &Page, len: u64) -> Option<Vec<Page>> {
    let description = decoder.get_tag_ascii_string(Tag::ImageDescription).ok()?;
    let images = description
        .lines()
        .find_map(|line| line.strip_prefix("images="))?
        .trim()
        .parse::<u64>()
        .ok()?;
    let Place::Plain { strips, order, .. } = &page.place else {
        return None;
    };
    let frame_bytes = (page.rows * page.cols * page.pixel.bytes()) as u64;
    let [first] = strips[..] else { return None };
    if images < 2 || first.checked_add(images.checked_mul(frame_bytes)?)? > len {
        return None;
    }
    let at = |i: u64| Place::Plain {
        strips: vec![first + i * frame_bytes],
        rows_per_strip: page.rows,
        order: *order,
    };
    Some(
        (0..images)
            .map(|i| Page {
                place: at(i),
                ..page.clone()
            })
            .collect(),
    )
}

fn read_directory(decoder: &mut TiffDecoder, number: usize, len: u64) -> Result<Page, String> {
    let text = |error: tiff::TiffError| error.to_string();
    let (cols, rows) = decoder.dimensions().map_err(text)?;
    let (rows, cols) = (rows as usize, cols as usize);
    let compression: u16 = decoder
        .find_tag_unsigned(Tag::Compression)
        .map_err(text)?
        .unwrap_or(1);
    let photometric: u16 = decoder
        .find_tag_unsigned(Tag::PhotometricInterpretation)
        .map_err(text)?
        .unwrap_or(1);
    let predictor: u16 = decoder
        .find_tag_unsigned(Tag::Predictor)
        .map_err(text)?
        .unwrap_or(1);
    let format: u16 = decoder
        .find_tag_unsigned_vec(Tag::SampleFormat)
        .map_err(text)?
        .and_then(|formats: Vec<u16>| formats.first().copied())
        .unwrap_or(1);
    let plain = compression == 1 && predictor == 1 && decoder.get_chunk_type() == ChunkType::Strip;
    let bits = match decoder.colortype().map_err(text)? {
        ColorType::Gray(bits) => bits,
        // A colour table for display; the stored values are the counts.
        ColorType::Palette(bits) if plain => bits,
        other => return Err(format!("expected one grey channel, found {other:?}")),
    };
    let pixel = match (format, bits) {
        (1 | 4, 8) => PixelType::U8,
        (1 | 4, 16) => PixelType::U16,
        (1 | 4, 32) => PixelType::U32,
        (2, 16) => PixelType::I16,
        (2, 32) => PixelType::I32,
        (3, 32) => PixelType::F32,
        (3, 64) => PixelType::F64,
        _ => {
            return Err(format!(
                "expected 8 to 32 bit integers or floats, found {bits} bits of sample format {format}"
            ));
        }
    };
    if rows == 0
        || cols == 0
        || rows
            .checked_mul(cols)
            .and_then(|n| n.checked_mul(8))
            .is_none()
    {
        return Err(format!("its size is {rows} x {cols}"));
    }
    // The decoder inverts such images; for integers and floats alike the stored value is the count.
    if photometric == 0 && !plain {
        return Err("compressed images whose zero is white are not read".into());
    }
    let place = if plain {
        let strips = decoder.get_tag_u64_vec(Tag::StripOffsets).map_err(text)?;
        let rows_per_strip: u32 = decoder
            .find_tag_unsigned(Tag::RowsPerStrip)
            .map_err(text)?
            .unwrap_or(u32::MAX);
        let rows_per_strip = (rows_per_strip as usize).clamp(1, rows);
        if strips.len() != rows.div_ceil(rows_per_strip) {
            return Err(format!(
                "expected {} strips, found {}",
                rows.div_ceil(rows_per_strip),
                strips.len()
            ));
        }
        for (strip, &offset) in strips.iter().enumerate() {
            let height = rows_per_strip.min(rows - strip * rows_per_strip);
            let end = offset.saturating_add((height * cols * pixel.bytes()) as u64);
            if end > len {
                return Err(format!(
                    "the file is truncated: its pixels end at byte {end} of {len}"
                ));
            }
        }
        Place::Plain {
            strips,
            rows_per_strip,
            order: decoder.byte_order(),
        }
    } else {
        let (offsets, counts) = match decoder.get_chunk_type() {
            ChunkType::Strip => (Tag::StripOffsets, Tag::StripByteCounts),
            ChunkType::Tile => (Tag::TileOffsets, Tag::TileByteCounts),
        };
        let offsets = decoder.get_tag_u64_vec(offsets).map_err(text)?;
        let counts = decoder.get_tag_u64_vec(counts).map_err(text)?;
        if let Some(end) = offsets
            .iter()
            .zip(&counts)
            .map(|(o, c)| o.saturating_add(*c))
            .find(|end| *end > len)
        {
            return Err(format!(
                "the file is truncated: its pixels end at byte {end} of {len}"
            ));
        }
        let (chunk_cols, chunk_rows) = decoder.chunk_dimensions();
        let (mut chunk_rows, chunk_cols) = (chunk_rows as usize, chunk_cols as usize);
        if decoder.get_chunk_type() == ChunkType::Strip {
            // Without RowsPerStrip the only strip claims 2^32 - 1 rows.
            chunk_rows = chunk_rows.min(rows);
        }
        if chunk_rows == 0
            || chunk_cols == 0
            || offsets.len() < rows.div_ceil(chunk_rows) * cols.div_ceil(chunk_cols)
        {
            return Err(format!(
                "strips or tiles of {chunk_rows} x {chunk_cols} do not cover {rows} x {cols}"
            ));
        }
        Place::Coded {
            page: number,
            rows: chunk_rows,
            cols: chunk_cols,
        }
    };
    Ok(Page {
        rows,
        cols,
        pixel,
        place,
    })
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
        frames
            .par_iter()
            .zip(out.par_chunks_mut(frame_len))
            .try_for_each(|(&frame, out)| self.read_page(frame, &rows, out))
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
