//! Frames turned on the disk: a copy `[row, frame, col]` of a stack whose rows are dear to read.
//!
//! Cameras write frames, reconstruction reads rows. Where a frame is stored as one compressed chunk, every slab of rows
//! costs the decoding of the whole scan. The copy costs it once: frames are read in blocks, and each row of a block
//! goes to its place. Counts of 8 and 16 bits are kept as they are, others as the f32 that readers give anyway, so the
//! values are the same bits.
//!
//! The file has no name: the system removes it when the program ends, however it ends.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::{ArrayViewMut3, Axis};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::scan::{FrameStack, PixelType};
use crate::stop;

/// What fails where the copy has no room; the scan itself can still be read then.
const NO_ROOM: &str = "write a scratch file in";
/// Read from the copy at a time \[bytes\]: what a core's own cache holds beside the counts that it becomes.
const READ_BYTES: usize = 256 << 10;
/// Stands for a frame that is not in the copy.
const ABSENT: usize = usize::MAX;

/// How a count lies in the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    U8,
    U16,
    I16,
    F32,
}

impl Kept {
    fn of(pixel: PixelType) -> Kept {
        match pixel {
            PixelType::U8 => Kept::U8,
            PixelType::U16 => Kept::U16,
            PixelType::I16 => Kept::I16,
            PixelType::U32 | PixelType::I32 | PixelType::F32 | PixelType::F64 => Kept::F32,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Kept::U8 => 1,
            Kept::U16 | Kept::I16 => 2,
            Kept::F32 => 4,
        }
    }

    /// `counts` in this form, into as many bytes as they take; exact, because the reader converted them from it.
    fn store(self, counts: &[f32], bytes: &mut [u8]) {
        fn each<const N: usize>(counts: &[f32], bytes: &mut [u8], form: impl Fn(f32) -> [u8; N]) {
            let stored = bytes.as_chunks_mut::<N>().0;
            stored
                .iter_mut()
                .zip(counts)
                .for_each(|(to, &v)| *to = form(v));
        }
        match self {
            Kept::U8 => each(counts, bytes, |v| [v as u8]),
            Kept::U16 => each(counts, bytes, |v| (v as u16).to_le_bytes()),
            Kept::I16 => each(counts, bytes, |v| (v as i16).to_le_bytes()),
            Kept::F32 => each(counts, bytes, f32::to_le_bytes),
        }
    }

    fn load(self, bytes: &[u8], counts: &mut [f32]) {
        let wide = bytes.as_chunks::<2>().0;
        match self {
            Kept::U8 => {
                for (count, &byte) in counts.iter_mut().zip(bytes) {
                    *count = f32::from(byte);
                }
            }
            Kept::U16 => {
                for (count, pair) in counts.iter_mut().zip(wide) {
                    *count = f32::from(u16::from_le_bytes(*pair));
                }
            }
            Kept::I16 => {
                for (count, pair) in counts.iter_mut().zip(wide) {
                    *count = f32::from(i16::from_le_bytes(*pair));
                }
            }
            Kept::F32 => {
                for (count, four) in counts.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *count = f32::from_le_bytes(*four);
                }
            }
        }
    }
}

/// A stack with a turned copy of some of its frames. Reads of few whole frames still go to the stack itself.
pub struct TurnedStack {
    inner: Box<dyn FrameStack>,
    file: File,
    folder: PathBuf,
    kept: Kept,
    /// Place of each frame in a row of the copy.
    places: Vec<usize>,
    /// Frames in the copy.
    n_kept: usize,
}

/// Bytes on the disk that the copy of `n_frames` frames of a stack takes.
#[must_use]
pub fn turned_bytes(shape: [usize; 3], pixel: PixelType, n_frames: usize) -> u64 {
    let [_, n_rows, n_cols] = shape;
    (n_rows as u64) * (n_cols as u64) * (n_frames as u64) * Kept::of(pixel).bytes() as u64
}

/// Whether a copy could not be made for want of room or rights, while the scan itself can be read.
#[must_use]
pub fn is_no_room(error: &Error) -> bool {
    matches!(
        error,
        Error::Io {
            action: NO_ROOM,
            ..
        }
    )
}

impl TurnedStack {
    /// Reads `frames` of `inner` once and turns them into a nameless file in `folder`; `memory` \[bytes\] is what the
    /// blocks may take.
    ///
    /// # Errors
    /// The stack as it was, with those of the reader, [`Error::Io`] where the folder has no room or no rights (see
    /// [`is_no_room`]), or [`Error::Interrupted`].
    pub fn make(
        inner: Box<dyn FrameStack>,
        frames: &[usize],
        folder: &Path,
        memory: u64,
        progress: &Progress,
    ) -> Result<TurnedStack, (Box<dyn FrameStack>, Error)> {
        let [n_frames, _, _] = inner.shape();
        let file = std::fs::create_dir_all(folder)
            .and_then(|()| tempfile::tempfile_in(folder))
            .map_err(Error::io(NO_ROOM, folder));
        let file = match file {
            Ok(file) => file,
            Err(error) => return Err((inner, error)),
        };
        let mut places = vec![ABSENT; n_frames];
        for (place, &frame) in frames.iter().enumerate() {
            places[frame] = place;
        }
        let stack = TurnedStack {
            kept: Kept::of(inner.pixel_type()),
            inner,
            file,
            folder: folder.to_path_buf(),
            places,
            n_kept: frames.len(),
        };
        match stack.fill(frames, memory, progress) {
            Ok(()) => Ok(stack),
            Err(error) => Err((stack.inner, error)),
        }
    }

    fn fill(&self, frames: &[usize], memory: u64, progress: &Progress) -> Result<()> {
        let [_, n_rows, n_cols] = self.inner.shape();
        // a block is held as f32 and, row by row, as it is written
        let frame_bytes = 4 * n_rows * n_cols + self.kept.bytes() * n_cols;
        let block = (memory as usize / frame_bytes.max(1)).clamp(1, frames.len().max(1));
        let mut counts = vec![0f32; block * n_rows * n_cols];
        let stage = progress.stage("turning the frames", frames.len() as u64, "frames");
        for (index, frames) in frames.chunks(block).enumerate() {
            stop::check()?;
            let counts = &mut counts[..frames.len() * n_rows * n_cols];
            self.inner.read(frames, 0..n_rows, counts)?;
            let counts = &*counts;
            let width = n_cols * self.kept.bytes();
            (0..n_rows).into_par_iter().try_for_each_init(
                || vec![0; frames.len() * width],
                |bytes, row| {
                    for (frame, bytes) in bytes.chunks_exact_mut(width).enumerate() {
                        let first = (frame * n_rows + row) * n_cols;
                        self.kept.store(&counts[first..first + n_cols], bytes);
                    }
                    write_at(&self.file, bytes, self.offset(row, index * block))
                        .map_err(Error::io(NO_ROOM, &self.folder))
                },
            )?;
            stage.inc(frames.len() as u64);
        }
        Ok(())
    }

    fn offset(&self, row: usize, place: usize) -> u64 {
        let n_cols = self.inner.shape()[2] as u64;
        (row as u64 * self.n_kept as u64 + place as u64) * n_cols * self.kept.bytes() as u64
    }

    /// Whether the copy has all `frames`, and gives them at less cost than the stack itself: it is read row by row.
    fn serves(&self, frames: &[usize], rows: &Range<usize>) -> bool {
        frames.len() >= rows.len().min(16)
            && frames.iter().all(|&frame| self.places[frame] != ABSENT)
    }
}

impl FrameStack for TurnedStack {
    fn shape(&self) -> [usize; 3] {
        self.inner.shape()
    }

    fn pixel_type(&self) -> PixelType {
        self.inner.pixel_type()
    }

    fn read(&self, frames: &[usize], rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let shape = self.shape();
        let frame_len = super::hdf5::check_request(shape, frames, &rows, out, || self.describe())?;
        if frame_len == 0 || !self.serves(frames, &rows) {
            return self.inner.read(frames, rows, out);
        }
        let n_cols = shape[2];
        let width = n_cols * self.kept.bytes();
        // frames that follow each other in the copy are read in one go, as long as they stay in the cache
        let longest = (READ_BYTES / width).max(1);
        let runs = runs(frames.iter().map(|&frame| self.places[frame]), longest);
        let mut out = ArrayViewMut3::from_shape((frames.len(), rows.len(), n_cols), out)
            .expect("the length was checked");
        let lines = out.axis_iter_mut(Axis(1)).into_par_iter().zip(rows);
        lines.try_for_each_init(Vec::new, |bytes, (mut lines, row)| {
            let mut to = 0;
            for &(place, n) in &runs {
                bytes.resize(n * width, 0);
                read_at(&self.file, bytes, self.offset(row, place))
                    .map_err(Error::io("read a scratch file in", &self.folder))?;
                for part in bytes.chunks_exact(width) {
                    let mut line = lines.row_mut(to);
                    let line = line.as_slice_mut().expect("a line of counts is contiguous");
                    self.kept.load(part, line);
                    to += 1;
                }
            }
            Ok(())
        })
    }

    fn decoded_bytes(&self, rows: Range<usize>) -> u64 {
        (rows.len() * self.shape()[2] * self.kept.bytes()) as u64
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// First place and number of places that follow each other, at most `longest`.
fn runs(places: impl Iterator<Item = usize>, longest: usize) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for place in places {
        match runs.last_mut() {
            Some((first, n)) if *first + *n == place && *n < longest => *n += 1,
            _ => runs.push((place, 1)),
        }
    }
    runs
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut at: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_write(file, bytes, at)?;
        (bytes, at) = (&bytes[n..], at + n as u64);
    }
    Ok(())
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, bytes, at)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        (bytes, at) = (&mut bytes[n..], at + n as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts that say where they are from, and how many frames were read.
    struct Counted(PixelType, std::sync::Arc<AtomicUsize>);

    fn count(frame: usize, row: usize, col: usize, pixel: PixelType) -> f32 {
        let value = (1000 * frame + 37 * row + col) as f32;
        match pixel {
            PixelType::U8 => value % 256.0,
            PixelType::I16 => value - 5000.0,
            PixelType::F32 => value + 0.25,
            _ => value + 30000.0,
        }
    }

    impl FrameStack for Counted {
        fn shape(&self) -> [usize; 3] {
            [30, 7, 11]
        }
        fn pixel_type(&self) -> PixelType {
            self.0
        }
        fn read(&self, frames: &[usize], rows: Range<usize>, out: &mut [f32]) -> Result<()> {
            self.1.fetch_add(frames.len(), Ordering::Relaxed);
            let mut out = out.iter_mut();
            for &frame in frames {
                for row in rows.clone() {
                    for col in 0..11 {
                        *out.next().unwrap() = count(frame, row, col, self.0);
                    }
                }
            }
            Ok(())
        }
        fn decoded_bytes(&self, _: Range<usize>) -> u64 {
            7 * 11 * 2
        }
        fn describe(&self) -> String {
            "counted".into()
        }
    }

    #[test]
    fn a_turned_stack_gives_the_same_bits_and_decodes_each_frame_once() {
        let folder = tempfile::tempdir().unwrap();
        for pixel in [
            PixelType::U8,
            PixelType::U16,
            PixelType::I16,
            PixelType::F32,
        ] {
            let read = std::sync::Arc::new(AtomicUsize::new(0));
            let frames: Vec<usize> = (3..29).filter(|f| f % 5 != 0).collect();
            // 4 KiB: blocks of a dozen frames
            let inner = Box::new(Counted(pixel, read.clone()));
            let turned =
                TurnedStack::make(inner, &frames, folder.path(), 4096, &Progress::new(true))
                    .map_err(|(_, error)| error)
                    .unwrap();
            assert_eq!(read.load(Ordering::Relaxed), frames.len());
            for rows in [0..7, 2..3, 4..7] {
                for asked in [&frames[..], &frames[5..12], &[28, 4, 9, 8, 7, 6, 21][..]] {
                    let mut out = vec![f32::NAN; asked.len() * rows.len() * 11];
                    turned.read(asked, rows.clone(), &mut out).unwrap();
                    let mut expected = vec![0.0; out.len()];
                    Counted(pixel, std::sync::Arc::default())
                        .read(asked, rows.clone(), &mut expected)
                        .unwrap();
                    assert_eq!(out, expected, "{pixel:?} {rows:?}");
                }
            }
            assert_eq!(
                read.load(Ordering::Relaxed),
                frames.len(),
                "a frame was decoded twice"
            );
            // frames that are not in the copy come from the stack
            let mut out = vec![0.0; 7 * 11];
            turned.read(&[5], 0..7, &mut out).unwrap();
            assert_eq!(out[12], count(5, 1, 1, pixel));
        }
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "the copy has no name"
        );
    }
}
