//! The nouns of a scan: what the readers give and what the stages pass on.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ndarray::{Array2, Array3, ArrayView3};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::io::scratch::{TurnedStack, is_no_room};
use crate::plan::{Reading, Scratch};
use crate::progress::Progress;

/// Element type of the stored counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum PixelType {
    U8,
    U16,
    U32,
    I16,
    I32,
    F32,
    F64,
}

impl PixelType {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            PixelType::U8 => 1,
            PixelType::U16 | PixelType::I16 => 2,
            PixelType::U32 | PixelType::I32 | PixelType::F32 => 4,
            PixelType::F64 => 8,
        }
    }
}

/// A lazy stack of detector frames `[frame, row, col]`: an HDF5 dataset, a folder of TIFF files, a multi-page TIFF.
///
/// Implementations are shared by threads; a reader that needs a handle per thread keeps its own pool.
pub trait FrameStack: Send + Sync {
    /// `[frame, row, col]`.
    fn shape(&self) -> [usize; 3];
    /// Stored element type.
    fn pixel_type(&self) -> PixelType;
    /// Reads `rows` of the frames listed in `frames` (any order) into `out` `[frame, row, col]`, converted to f32.
    ///
    /// # Errors
    /// A truncated, missing or undecodable frame is an error that names the file and the frame; never zeros.
    fn read(&self, frames: &[usize], rows: Range<usize>, out: &mut [f32]) -> Result<()>;
    /// How many bytes have to be decoded to read `rows` of one frame: the whole frame when it is one compressed chunk.
    fn decoded_bytes(&self, rows: Range<usize>) -> u64;
    /// Where the frames are, for messages: file and dataset, or folder.
    fn describe(&self) -> String;
}

/// Flats or darks, taken together at one time of the scan.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameGroup {
    /// Frames of the stack that belong to the group.
    pub frames: Vec<usize>,
    /// When the group was taken, as an index into the projections (0 before the first, `n_angles` after the last).
    pub at_projection: f64,
}

/// Readings of the beam monitor, in its own unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Monitor {
    /// One for each entry of `angles_rad`.
    pub projections: Vec<f64>,
    /// Mean over each of `flat_groups`, where there is one reading per frame.
    pub flats: Option<Vec<f64>>,
    /// Where they came from, for messages.
    pub source: String,
}

/// How the sample moved during a scan: one entry per projection, in the order of the angles.
///
/// A point at height z and at the detector coordinate t from the axis is seen at column `axis + t + x_px` and row
/// `z + z_px`: positive is to the right and down on the detector.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shifts {
    /// To the right \[px\].
    pub x_px: Vec<f64>,
    /// Down \[px\].
    pub z_px: Vec<f64>,
}

impl Shifts {
    /// Those of the projections `used`.
    ///
    /// # Panics
    /// For a projection that there is not.
    #[must_use]
    pub fn of(&self, used: &[usize]) -> Shifts {
        Shifts {
            x_px: used.iter().map(|&k| self.x_px[k]).collect(),
            z_px: used.iter().map(|&k| self.z_px[k]).collect(),
        }
    }
}

/// One scan, opened but not read: which frames are projections, flats and darks, at which angles.
pub struct Scan {
    /// The file or folder given by the user.
    pub path: PathBuf,
    /// The layout recognised, for messages: `NXtomo`, `DXchange`, `HDF5`, `TIFF folder`.
    pub layout: String,
    /// Stack that holds the projections.
    pub projections: Box<dyn FrameStack>,
    /// Frames of [`Scan::projections`] used, in the order of the file, one per entry of `angles_rad`.
    pub projection_frames: Vec<usize>,
    /// Number of each projection used among the projections of the file, counted from 0.
    pub projection_numbers: Vec<usize>,
    /// Numbers of the projections of the file that are left out, as the user said or because they hold no picture.
    pub left_out: Vec<usize>,
    /// Movement of the sample during the scan, where a table of it was given.
    pub shifts: Option<Shifts>,
    /// Stack that holds the flats.
    pub flats: Option<Box<dyn FrameStack>>,
    /// Groups of flats in [`Scan::flats`]; empty when there are none.
    pub flat_groups: Vec<FrameGroup>,
    /// Stack that holds the darks.
    pub darks: Option<Box<dyn FrameStack>>,
    /// Groups of darks in [`Scan::darks`]; empty when there are none.
    pub dark_groups: Vec<FrameGroup>,
    /// Angle of each projection \[rad\], in the order of the file.
    pub angles_rad: Vec<f64>,
    /// Where the angles came from and how their unit was decided, for messages.
    pub angle_source: String,
    /// Readings of the beam monitor, where the user names them.
    pub monitor: Option<Monitor>,
    /// Size of a detector pixel at the sample \[um\], where known.
    pub pixel_size_um: Option<f64>,
    /// Start of the scan as written in the file.
    pub start_time: Option<String>,
    /// Everything odd that was found while opening.
    pub warnings: Vec<String>,
    /// Files that belong to the scan, for the run record.
    pub files: Vec<PathBuf>,
    /// Time spent in the reader.
    pub clock: ReadClock,
}

/// The stacks of a scan, which it shares with other openings of it.
pub struct Stacks {
    projections: Arc<dyn FrameStack>,
    flats: Option<Arc<dyn FrameStack>>,
    darks: Option<Arc<dyn FrameStack>>,
}

fn boxed(stack: &Option<Arc<dyn FrameStack>>) -> Option<Box<dyn FrameStack>> {
    let stack = stack.clone()?;
    Some(Box::new(stack))
}

/// What reading took so far: wall time and bytes decoded.
#[derive(Debug, Default)]
pub struct ReadClock {
    nanos: AtomicU64,
    bytes: AtomicU64,
}

impl ReadClock {
    fn add(&self, time: Duration, bytes: u64) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Time and bytes so far.
    #[must_use]
    pub fn so_far(&self) -> (Duration, u64) {
        (
            Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
            self.bytes.load(Ordering::Relaxed),
        )
    }
}

/// The copy, or the stack itself where there was no room for one.
fn turned_or_as_it_was(
    made: Result<TurnedStack, (Box<dyn FrameStack>, Error)>,
) -> Result<Box<dyn FrameStack>> {
    match made {
        Ok(turned) => Ok(Box::new(turned)),
        Err((stack, error)) if is_no_room(&error) => {
            log::warn!("{error}; every slab is decoded from the scan itself");
            Ok(stack)
        }
        Err((_, error)) => Err(error),
    }
}

impl Scan {
    /// This scan with its projections turned into a copy that gives rows cheaply, where `reading` says so; a folder
    /// without room for it is a warning only, because the scan can be read without. `memory` \[bytes\] is what may be
    /// taken meanwhile.
    ///
    /// # Errors
    /// Those of the reader; [`crate::Error::Interrupted`].
    pub fn turned(mut self, reading: &Reading, memory: u64, progress: &Progress) -> Result<Scan> {
        let Some(Scratch { folder, .. }) = &reading.scratch else {
            return Ok(self);
        };
        let made = TurnedStack::make(
            self.projections,
            &self.projection_frames,
            folder,
            memory,
            progress,
        );
        self.projections = turned_or_as_it_was(made)?;
        // flats are read in bands of rows, which costs as much where their frames are compressed
        for (stack, groups) in [
            (&mut self.flats, &self.flat_groups),
            (&mut self.darks, &self.dark_groups),
        ] {
            let frames: Vec<usize> = groups
                .iter()
                .flat_map(|g| g.frames.iter().copied())
                .collect();
            if let Some(inner) = stack.take() {
                let made = TurnedStack::make(inner, &frames, folder, memory, progress);
                *stack = Some(turned_or_as_it_was(made)?);
            }
        }
        Ok(self)
    }

    /// This scan, with its stacks for another opening of it.
    #[must_use]
    pub fn shared(mut self) -> (Scan, Stacks) {
        let stacks = Stacks {
            projections: self.projections.into(),
            flats: self.flats.map(Arc::from),
            darks: self.darks.map(Arc::from),
        };
        self.projections = Box::new(stacks.projections.clone());
        (self.flats, self.darks) = (boxed(&stacks.flats), boxed(&stacks.darks));
        (self, stacks)
    }

    /// This scan, read from the `stacks` of another opening of it.
    #[must_use]
    pub fn reading_from(self, stacks: &Stacks) -> Scan {
        Scan {
            projections: Box::new(stacks.projections.clone()),
            flats: boxed(&stacks.flats),
            darks: boxed(&stacks.darks),
            ..self
        }
    }

    /// Leaves out the projections `indices` (of those used), with their angles and shifts.
    pub fn leave_out(&mut self, indices: &[usize]) {
        if indices.is_empty() {
            return;
        }
        let kept: Vec<usize> = (0..self.n_angles())
            .filter(|k| !indices.contains(k))
            .collect();
        self.left_out
            .extend(indices.iter().map(|&k| self.projection_numbers[k]));
        self.left_out.sort_unstable();
        for groups in [&mut self.flat_groups, &mut self.dark_groups] {
            for group in groups {
                let before = |&&k: &&usize| (k as f64) < group.at_projection;
                group.at_projection -= indices.iter().filter(before).count() as f64;
            }
        }
        self.projection_frames = kept.iter().map(|&k| self.projection_frames[k]).collect();
        self.projection_numbers = kept.iter().map(|&k| self.projection_numbers[k]).collect();
        self.angles_rad = kept.iter().map(|&k| self.angles_rad[k]).collect();
        self.shifts = self.shifts.take().map(|shifts| shifts.of(&kept));
        if let Some(monitor) = &mut self.monitor {
            monitor.projections = kept.iter().map(|&k| monitor.projections[k]).collect();
        }
    }

    /// Number of projections.
    #[must_use]
    pub fn n_angles(&self) -> usize {
        self.angles_rad.len()
    }
    /// Detector rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.projections.shape()[1]
    }
    /// Detector columns.
    #[must_use]
    pub fn n_cols(&self) -> usize {
        self.projections.shape()[2]
    }

    /// Reads `rows` of all projections in blocks of at most `frames_per_block`, and hands each block
    /// `[angle, row, col]` of counts with the index of its first angle to `consume`.
    ///
    /// # Errors
    /// Those of the reader and of `consume`.
    ///
    /// # Panics
    /// Never: each block is cut to its shape.
    pub fn for_each_block(
        &self,
        rows: Range<usize>,
        frames_per_block: usize,
        mut consume: impl FnMut(usize, ArrayView3<'_, f32>) -> Result<()>,
    ) -> Result<()> {
        let frame_len = rows.len() * self.n_cols();
        let block_len = frames_per_block.clamp(1, self.n_angles().max(1));
        let mut counts = vec![0f32; block_len * frame_len];
        for (block, frames) in self.projection_frames.chunks(block_len).enumerate() {
            crate::stop::check()?;
            let counts = &mut counts[..frames.len() * frame_len];
            let started = Instant::now();
            self.projections.read(frames, rows.clone(), counts)?;
            let bytes = frames.len() as u64 * self.projections.decoded_bytes(rows.clone());
            self.clock.add(started.elapsed(), bytes);
            let view = ArrayView3::from_shape((frames.len(), rows.len(), self.n_cols()), counts)
                .expect("the buffer was cut to this shape");
            consume(block * block_len, view)?;
        }
        Ok(())
    }
}

/// Line integrals of a slab, `[row, angle, col]`.
pub type Sinograms = Array3<f32>;

/// An array of this shape in the memory of `used`, where that suffices, with whatever stands there; zeros else.
///
/// # Panics
/// Never: the memory is cut to the shape.
#[must_use]
pub fn reused(used: Option<Array3<f32>>, shape: [usize; 3]) -> Array3<f32> {
    let len = shape.iter().product();
    let (mut values, first) = used.map_or((Vec::new(), None), Array3::into_raw_vec_and_offset);
    if values.len() < len || first.unwrap_or(0) != 0 {
        // first, or two of them are held
        drop(values);
        return Array3::zeros(shape);
    }
    values.truncate(len);
    Array3::from_shape_vec(shape, values).expect("the memory was cut to the shape")
}

/// Anything that gives corrected line integrals by rows: a corrected scan, a `.npy` of line integrals, a phantom.
pub trait SinogramSource: Sync {
    /// Detector rows.
    fn n_rows(&self) -> usize;
    /// Detector columns.
    fn n_cols(&self) -> usize;
    /// Angle of each projection \[rad\].
    fn angles_rad(&self) -> &[f64];
    /// Movement of the sample during the scan, where it is known; the line integrals are as they were measured.
    fn shifts(&self) -> Option<&Shifts> {
        None
    }
    /// Fully corrected line integrals of `rows`, `[row, angle, col]`.
    ///
    /// # Errors
    /// Those of the reader and of the corrections.
    fn sinograms(&self, rows: Range<usize>) -> Result<Sinograms>;
    /// Line integrals of one projection, `[row, col]`, without corrections that need all angles (stripes).
    ///
    /// # Errors
    /// Those of the reader and of the corrections.
    fn projection(&self, angle: usize, rows: Range<usize>) -> Result<Array2<f32>>;
}
