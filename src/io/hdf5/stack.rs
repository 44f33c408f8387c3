//! Frames of an HDF5 dataset `[frame, row, col]` (or of one frame `[row, col]`).

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;

use super::native::NativeDataset;
use super::tree::{Located, Tree};
use super::virtual_layout::VirtualStack;
use super::{Dataset, DatasetInfo, Element, Layout, believable, guarded, open_dataset, shape_text};
use crate::error::{Error, Result};
use crate::io::stall::watched;
use crate::io::waits::{SMALL_BYTES, at_once};
use crate::scan::{FrameStack, PixelType};

/// Consecutive small frames are read in one call up to this size \[bytes\].
const RUN_BYTES: usize = 1 << 20;

/// A stack that also reads a part of the columns, which virtual datasets need.
pub(super) trait Rect: FrameStack {
    /// Reads `rows` and `cols` of consecutive `frames` into `out` `[frame, row, col]`.
    fn read_rect(
        &self,
        frames: Range<usize>,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut [f32],
    ) -> Result<()>;

    /// Whether rows are stored as they are: nothing is decoded, and nothing beside them read.
    fn as_stored(&self) -> bool;
}

/// Opens the dataset at `path` as a stack of frames.
///
/// # Errors
/// [`Error::Dataset`] for a dataset that is missing, dangling, no stack of frames, empty, of no pixel type, compressed
/// in an unknown way, or larger than its file can hold.
pub(crate) fn open_stack(tree: &Tree, path: &str) -> Result<Box<dyn FrameStack>> {
    let at = tree.locate(path)?;
    Ok(match guarded(&at.file, || open_rect(tree, &at, 0))? {
        AnyStack::Plain(stack) => Box::new(stack),
        AnyStack::Virtual(stack) => Box::new(stack),
    })
}

pub(super) enum AnyStack {
    Plain(Hdf5Stack),
    Virtual(VirtualStack),
}

impl AnyStack {
    pub(super) fn rect(&self) -> &dyn Rect {
        match self {
            AnyStack::Plain(stack) => stack,
            AnyStack::Virtual(stack) => stack,
        }
    }
}

pub(super) fn open_rect(tree: &Tree, at: &Located, depth: usize) -> Result<AnyStack> {
    let native = tree.native(at)?;
    let info = native.info().clone();
    let (shape, pixel) = frame_shape(at, &info)?;
    if info.layout == Layout::Virtual {
        return Ok(AnyStack::Virtual(VirtualStack::open(
            tree, at, &native, shape, pixel, depth,
        )?));
    }
    check_size(at, &info, &native, pixel)?;
    // Here the C library takes over where the default lacks a filter.
    let first = open_dataset(&at.file, &at.path)?;
    Ok(AnyStack::Plain(Hdf5Stack {
        file: at.file.clone(),
        path: at.path.clone(),
        shape,
        pixel,
        info,
        handles: Mutex::new(vec![first]),
    }))
}

fn frame_shape(at: &Located, info: &DatasetInfo) -> Result<([usize; 3], PixelType)> {
    let fail = |problem: String, hint: &str| Err(Error::dataset(&at.file, &at.path, problem, hint));
    let shape = match info.shape[..] {
        [frames, rows, cols] => [frames, rows, cols],
        [rows, cols] => [1, rows, cols],
        _ => {
            return fail(
                format!(
                    "expected frames x rows x columns, found {}",
                    shape_text(&info.shape)
                ),
                "give the path of a dataset with three axes",
            );
        }
    };
    if shape.contains(&0) {
        return fail(
            format!("it holds nothing ({})", shape_text(&info.shape)),
            "the acquisition wrote no frames; use another file or dataset",
        );
    }
    if info
        .len()
        .and_then(|len| len.checked_mul(8))
        .is_none_or(|bytes| bytes > isize::MAX as usize)
    {
        return fail(
            format!("its header claims {}", shape_text(&info.shape)),
            "the header is damaged; copy the file again",
        );
    }
    match info.element {
        Element::Pixel(pixel) => Ok((shape, pixel)),
        ref other => fail(
            format!(
                "expected counts of type u8, u16, u32, i16, i32, f32 or f64, found {}",
                other.describe()
            ),
            "give the path of the detector's images, or convert them",
        ),
    }
}

/// Refuses a dataset that its file cannot hold: a damaged header, or one whose frames were never written.
fn check_size(
    at: &Located,
    info: &DatasetInfo,
    native: &NativeDataset,
    pixel: PixelType,
) -> Result<()> {
    let file_len = std::fs::metadata(&at.file)
        .map_err(Error::io("read", &at.file))?
        .len() as u128;
    let bytes = info.shape.iter().map(|&n| n as u128).product::<u128>() * pixel.bytes() as u128;
    let too_large = |needed: String| {
        Err(Error::dataset(
            &at.file,
            &at.path,
            format!(
                "its header claims {}, that is {needed}, but the file has only {file_len} bytes",
                shape_text(&info.shape)
            ),
            "the frames were never written or the header is damaged; use a complete copy",
        ))
    };
    match &info.layout {
        Layout::Contiguous if bytes > file_len => too_large(format!("{bytes} bytes")),
        Layout::Chunked(chunk) => {
            let chunks: u128 = info
                .shape
                .iter()
                .zip(chunk)
                .map(|(&n, &c)| n.div_ceil(c.max(1)) as u128)
                .product();
            // A stored chunk takes at least one byte.
            if chunk.len() != info.shape.len() || chunk.contains(&0) || chunks > file_len {
                return too_large(format!("{chunks} chunks"));
            }
            let chunk_bytes =
                chunk.iter().map(|&n| n as u128).product::<u128>() * pixel.bytes() as u128;
            if !believable(&at.file, chunk_bytes) {
                return too_large(format!("chunks of {chunk_bytes} bytes"));
            }
            Ok(())
        }
        Layout::Outside => check_outside_files(at, native, bytes),
        _ => Ok(()),
    }
}

/// Raw data in other files: they have to be there, in full.
fn check_outside_files(at: &Located, native: &NativeDataset, bytes: u128) -> Result<()> {
    let fail = |problem: String| {
        Err(Error::dataset(
            &at.file,
            &at.path,
            problem,
            "put the raw data file, complete, beside the HDF5 file",
        ))
    };
    let files = match native.outside_files() {
        Ok(files) => files,
        Err(problem) => return fail(problem),
    };
    let mut left = bytes;
    for (name, offset, size) in files {
        let path = at.file.parent().unwrap_or(Path::new("")).join(&name);
        let here = left.min(u128::from(size));
        match std::fs::metadata(&path) {
            Err(_) => return fail(format!("its data are in {name}, and that file is missing")),
            Ok(meta) if u128::from(meta.len()) < u128::from(offset) + here => {
                return fail(format!(
                    "its data are in {name}, which has {} bytes where {} are needed",
                    meta.len(),
                    u128::from(offset) + here
                ));
            }
            Ok(_) => left -= here,
        }
    }
    if left > 0 {
        fail(format!("its raw data files are {left} bytes short"))
    } else {
        Ok(())
    }
}

/// Frames stored in one dataset; each thread that reads takes a handle of its own, because a handle is one lock.
pub(super) struct Hdf5Stack {
    file: PathBuf,
    path: String,
    shape: [usize; 3],
    pixel: PixelType,
    info: DatasetInfo,
    handles: Mutex<Vec<Box<dyn Dataset>>>,
}

impl Hdf5Stack {
    fn with_handle<T>(&self, work: impl FnOnce(&dyn Dataset) -> Result<T>) -> Result<T> {
        let idle = self
            .handles
            .lock()
            .expect("no thread panics while it holds the lock")
            .pop();
        let (handle, result) = guarded(&self.file, || {
            let handle = match idle {
                Some(handle) => handle,
                None => open_dataset(&self.file, &self.path)?,
            };
            let result = watched(&self.file, || work(&*handle));
            Ok((handle, result))
        })?;
        self.handles
            .lock()
            .expect("no thread panics while it holds the lock")
            .push(handle);
        result
    }

    fn fail(&self, frame: usize, problem: impl std::fmt::Display) -> Error {
        Error::dataset(
            &self.file,
            &self.path,
            format!("frame {frame}: {problem}"),
            "copy the file again, or leave the frame out with input.exclude",
        )
    }

    /// Frames per chunk, 1 where the data are not chunked.
    fn chunk_frames(&self) -> usize {
        match &self.info.layout {
            Layout::Chunked(chunk) if chunk.len() == 3 => chunk[0],
            _ => 1,
        }
    }

    /// Whether rows of a frame are one stretch of the file, which the library reads without the rest of their chunk.
    fn rows_stand_alone(&self, chunk: &[usize]) -> bool {
        !self.info.filtered && self.chunk_frames() == 1 && chunk.last() == Some(&self.shape[2])
    }

    /// What was never written reads as the fill value: a block that holds nothing else is looked up.
    fn check_written(
        &self,
        dataset: &dyn Dataset,
        frames: &Range<usize>,
        rows: &Range<usize>,
        cols: &Range<usize>,
        out: &[f32],
    ) -> Result<()> {
        let fill = self.info.fill as f32;
        let is_fill = |value: f32| value == fill || (value.is_nan() && fill.is_nan());
        let Layout::Chunked(chunk) = &self.info.layout else {
            return Ok(());
        };
        let [chunk_frames, chunk_rows, chunk_cols] = match chunk[..] {
            [f, r, c] => [f, r, c],
            [r, c] => [1, r, c],
            _ => return Ok(()),
        };
        for frame_block in blocks(frames, chunk_frames) {
            for row_block in blocks(rows, chunk_rows) {
                for col_block in blocks(cols, chunk_cols) {
                    let mut lines = frame_block.clone().flat_map(|frame| {
                        let col_block = col_block.clone();
                        row_block.clone().map(move |row| {
                            let line = (frame - frames.start) * rows.len() + (row - rows.start);
                            let first = line * cols.len() + (col_block.start - cols.start);
                            &out[first..first + col_block.len()]
                        })
                    });
                    if !lines.all(|line| line.iter().all(|&value| is_fill(value))) {
                        continue;
                    }
                    let at = [
                        frame_block.start / chunk_frames,
                        row_block.start / chunk_rows,
                        col_block.start / chunk_cols,
                    ];
                    let at = &at[3 - chunk.len()..];
                    match dataset.chunk_is_stored(at) {
                        Ok(true) => {}
                        Ok(false) => {
                            return Err(self.fail(
                                frame_block.start,
                                "it was never written (its chunk is missing)",
                            ));
                        }
                        Err(problem) => return Err(self.fail(frame_block.start, problem)),
                    }
                }
            }
        }
        Ok(())
    }

    fn read_with(
        &self,
        dataset: &dyn Dataset,
        frames: Range<usize>,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let start = [frames.start, rows.start, cols.start];
        let count = [frames.len(), rows.len(), cols.len()];
        let skip = 3 - self.info.shape.len();
        dataset
            .read_block(&start[skip..], &count[skip..], out)
            .map_err(|problem| self.fail(frames.start, format!("it cannot be read ({problem})")))?;
        self.check_written(dataset, &frames, &rows, &cols, out)
    }
}

/// `range` cut at the multiples of `size`.
fn blocks(range: &Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> + Clone + use<> {
    let Range { start, end } = *range;
    (start / size..end.div_ceil(size))
        .map(move |block| (block * size).max(start)..((block + 1) * size).min(end))
}

impl Rect for Hdf5Stack {
    fn read_rect(
        &self,
        frames: Range<usize>,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        self.with_handle(|dataset| self.read_with(dataset, frames, rows, cols, out))
    }

    fn as_stored(&self) -> bool {
        match &self.info.layout {
            Layout::Chunked(chunk) => self.rows_stand_alone(chunk),
            _ => true,
        }
    }
}

impl FrameStack for Hdf5Stack {
    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn pixel_type(&self) -> PixelType {
        self.pixel
    }

    fn read(&self, frames: &[usize], rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let cols = 0..self.shape[2];
        let frame_len = check_request(self.shape, frames, &rows, out, || self.describe())?;
        if frame_len == 0 {
            return Ok(());
        }
        let frame_bytes = frame_len * self.pixel.bytes();
        let run_frames = |bytes: usize| (bytes / frame_bytes).max(1);
        let read = |stretch: (Range<usize>, &mut [f32])| {
            self.with_handle(|dataset| {
                self.read_with(dataset, stretch.0, rows.clone(), cols.clone(), stretch.1)
            })
        };
        if self.as_stored() {
            let stretches = stretches(frames, out, frame_len, run_frames(SMALL_BYTES));
            return at_once(frame_bytes, || stretches.into_par_iter().try_for_each(read));
        }
        let run_frames = run_frames(RUN_BYTES);
        if self.chunk_frames() == 1 {
            return stretches(frames, out, frame_len, run_frames)
                .into_par_iter()
                .try_for_each(read);
        }
        let mut wanted: Vec<(usize, &mut [f32])> = frames
            .iter()
            .copied()
            .zip(out.chunks_mut(frame_len))
            .collect();
        wanted.sort_by_key(|(frame, _)| *frame);
        let runs = into_runs(wanted, self.chunk_frames(), run_frames);
        runs.into_par_iter().try_for_each(|mut run| {
            self.with_handle(|dataset| {
                let (first, last) = (run[0].0, run[run.len() - 1].0);
                if let [(frame, out)] = &mut run[..] {
                    return self.read_with(
                        dataset,
                        *frame..*frame + 1,
                        rows.clone(),
                        cols.clone(),
                        out,
                    );
                }
                let mut block = vec![f32::NAN; (last + 1 - first) * frame_len];
                self.read_with(
                    dataset,
                    first..last + 1,
                    rows.clone(),
                    cols.clone(),
                    &mut block,
                )?;
                for (frame, out) in run {
                    out.copy_from_slice(&block[(frame - first) * frame_len..][..frame_len]);
                }
                Ok(())
            })
        })
    }

    /// Share of one frame: chunks of several frames are counted once for all of them.
    fn decoded_bytes(&self, rows: Range<usize>) -> u64 {
        let (height, width) = match &self.info.layout {
            Layout::Chunked(chunk) if !self.rows_stand_alone(chunk) => {
                let size = chunk[chunk.len() - 2];
                let whole = (rows.end.div_ceil(size) * size)
                    .min(self.shape[1].div_ceil(size) * size)
                    - rows.start / size * size;
                (
                    whole,
                    self.shape[2].next_multiple_of(chunk[chunk.len() - 1]),
                )
            }
            _ => (rows.len(), self.shape[2]),
        };
        (height * width * self.pixel.bytes()) as u64
    }

    fn describe(&self) -> String {
        format!("{}:{}", self.file.display(), self.path)
    }
}

/// Length of one frame's part in `out`.
pub(in crate::io) fn check_request(
    shape: [usize; 3],
    frames: &[usize],
    rows: &Range<usize>,
    out: &[f32],
    describe: impl Fn() -> String,
) -> Result<usize> {
    let frame_len = rows.len() * shape[2];
    let asked = vec![frames.iter().max().map_or(0, |last| last + 1), rows.end];
    if asked[0] > shape[0] || rows.end > shape[1] || out.len() != frames.len() * frame_len {
        return Err(Error::Shape {
            what: format!("frames and rows asked of {}", describe()),
            expected: vec![shape[0], shape[1]],
            found: asked,
            hint: "ask for frames and rows that exist".into(),
        });
    }
    Ok(frame_len)
}

/// Cuts a request at frames that do not follow each other, and into at most `longest` of them, each with its part of `out`.
fn stretches<'a>(
    frames: &[usize],
    mut out: &'a mut [f32],
    frame_len: usize,
    longest: usize,
) -> Vec<(Range<usize>, &'a mut [f32])> {
    let mut stretches = Vec::new();
    let follow = frames.chunk_by(|&before, &after| after == before + 1);
    for part in follow.flat_map(|stretch| stretch.chunks(longest)) {
        let (own, rest) = std::mem::take(&mut out).split_at_mut(part.len() * frame_len);
        stretches.push((part[0]..part[0] + part.len(), own));
        out = rest;
    }
    stretches
}

/// Groups sorted frames that are read together: those of one chunk, or consecutive ones up to `run_frames`.
fn into_runs<'a>(
    wanted: Vec<(usize, &'a mut [f32])>,
    chunk_frames: usize,
    run_frames: usize,
) -> Vec<Vec<(usize, &'a mut [f32])>> {
    let mut runs: Vec<Vec<(usize, &'a mut [f32])>> = Vec::new();
    for (frame, out) in wanted {
        if let Some(run) = runs.last_mut() {
            let (first, last) = (run[0].0, run[run.len() - 1].0);
            let same_chunk = first / chunk_frames == frame / chunk_frames;
            let continues = frame <= last + 1 && frame - first < run_frames;
            if same_chunk || continues {
                run.push((frame, out));
                continue;
            }
        }
        runs.push(vec![(frame, out)]);
    }
    runs
}
