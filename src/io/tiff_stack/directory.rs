//! Directories of TIFF pages: size, type, and where the rows stand, judged before a pixel is read.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use tiff::ColorType;
use tiff::decoder::{ChunkType, Decoder};
use tiff::tags::{ByteOrder, Tag};

use super::claims::{believable, limits};
use crate::error::{Error, Result};
use crate::scan::PixelType;

pub(super) type TiffDecoder = Decoder<BufReader<File>>;

/// What the directory of one page says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) pixel: PixelType,
    pub(super) place: Place,
}

/// Where the rows of a page stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
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

pub(super) fn damaged(path: &Path, frame: usize, error: impl std::fmt::Display) -> Error {
    Error::input(
        path,
        format!("frame {frame} cannot be read ({error})"),
        "the file is damaged or truncated; copy it again or leave the frame out with input.exclude",
    )
}

pub(super) fn open_decoder(path: &Path) -> Result<TiffDecoder> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let unreadable = |error: String| {
        Error::input(
            path,
            format!("it is no readable TIFF ({error})"),
            "remove it from the folder, or copy it again",
        )
    };
    let limits = limits(&mut file).map_err(|error| unreadable(error.to_string()))?;
    let decoder =
        Decoder::new(BufReader::new(file)).map_err(|error| unreadable(error.to_string()))?;
    Ok(decoder.with_limits(limits))
}

pub(super) fn read_directories(path: &Path) -> Result<Vec<Page>> {
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
        let claimed = (chunk_rows as u128) * (chunk_cols as u128) * pixel.bytes() as u128;
        let stored = counts.iter().copied().max().unwrap_or(0);
        if !believable(claimed, stored) {
            return Err(format!(
                "strips or tiles of {chunk_rows} x {chunk_cols} cannot stand in {stored} bytes"
            ));
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
