//! Virtual datasets: frames composed from datasets of other files.
//!
//! The library below would build the whole virtual image for every read, and fill what a missing source leaves out.
//! Here the mappings are turned into rectangles of frames, each read from its source with all guards; a part that no
//! source gives is an error.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use rayon::prelude::*;
use rust_hdf5::{Hyperslab, Selection, VirtualMapping};

use super::native::NativeDataset;
use super::stack::{AnyStack, Rect, check_request, open_rect};
use super::tree::{Located, Tree, find_beside};
use crate::error::{Error, Result};
use crate::io::waits::at_once;
use crate::scan::{FrameStack, PixelType};

/// Virtual datasets made of virtual datasets, this deep.
const MAX_DEPTH: usize = 8;

/// A part of one frame, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    source: usize,
    source_frame: usize,
    source_row: usize,
    source_col: usize,
    rows: Range<usize>,
    cols: Range<usize>,
}

/// Frames composed from the frames of other stacks.
pub(super) struct VirtualStack {
    file: PathBuf,
    path: String,
    shape: [usize; 3],
    pixel: PixelType,
    sources: Vec<AnyStack>,
    /// The pieces of each frame.
    frames: Vec<Vec<Piece>>,
}

/// Opens every source of a virtual dataset, so that a missing or truncated one is an error.
pub(super) fn check_sources(tree: &Tree, at: &Located) -> Result<()> {
    let fail = |problem: String| {
        Error::dataset(
            &at.file,
            &at.path,
            problem,
            "give the source file and dataset itself",
        )
    };
    for mapping in tree.native(at)?.virtual_mappings().map_err(fail)? {
        tree.native(&source_of(
            tree,
            at,
            &mapping.source_file_name,
            &mapping.source_dset_name,
        )?)?;
    }
    Ok(())
}

/// The dataset that a mapping names.
fn source_of(tree: &Tree, at: &Located, file: &str, dataset: &str) -> Result<Located> {
    let path = if file == "." {
        Some(at.file.clone())
    } else {
        find_beside(&at.file, file)
    };
    let path = path.ok_or_else(|| {
        Error::dataset(
            &at.file,
            &at.path,
            format!(
                "it is a virtual dataset that takes frames from {file}, and that file is missing"
            ),
            "put the missing file beside this one",
        )
    })?;
    tree.locate_from(&path, dataset)
}

impl VirtualStack {
    pub(super) fn open(
        tree: &Tree,
        at: &Located,
        native: &NativeDataset,
        shape: [usize; 3],
        pixel: PixelType,
        depth: usize,
    ) -> Result<VirtualStack> {
        let fail = |problem: String| {
            Error::dataset(
                &at.file,
                &at.path,
                problem,
                "give the source file and dataset itself, or copy the data with h5repack",
            )
        };
        if depth > MAX_DEPTH {
            return Err(fail(
                "it is a virtual dataset of virtual datasets without end".into(),
            ));
        }
        if shape[0] > super::LONGEST_LIST {
            return Err(fail(format!("its header claims {} frames", shape[0])));
        }
        let mut stack = VirtualStack {
            file: at.file.clone(),
            path: at.path.clone(),
            shape,
            pixel,
            sources: Vec::new(),
            frames: vec![Vec::new(); shape[0]],
        };
        let mut opened: BTreeMap<Located, usize> = BTreeMap::new();
        for mapping in native.virtual_mappings().map_err(fail)? {
            for (file, dataset, target) in expand(&mapping, shape[0] as u64) {
                let located = match source_of(tree, at, &file, &dataset) {
                    Ok(located) => located,
                    // A numbered series of sources ends with the first one that is missing.
                    Err(_)
                        if dataset != mapping.source_dset_name
                            || file != mapping.source_file_name =>
                    {
                        break;
                    }
                    Err(error) => return Err(error),
                };
                let source = match opened.get(&located) {
                    Some(&source) => source,
                    None => {
                        stack.sources.push(open_rect(tree, &located, depth + 1)?);
                        opened.insert(located, stack.sources.len() - 1);
                        stack.sources.len() - 1
                    }
                };
                stack
                    .add(source, &mapping.source_selection, &target)
                    .map_err(fail)?;
            }
        }
        Ok(stack)
    }

    /// Pairs the frames selected in the source with those selected here.
    fn add(&mut self, source: usize, from: &Selection, to: &Selection) -> Result<(), String> {
        let here = rectangles(to, self.shape)?;
        let there = rectangles(from, self.sources[source].rect().shape())?;
        let unlimited = from.unlim_dim().is_some() || to.unlim_dim().is_some();
        if here.len() != there.len() && !unlimited {
            return Err(format!(
                "a mapping of this virtual dataset pairs {} with {} frames",
                here.len(),
                there.len()
            ));
        }
        for (here, there) in here.into_iter().zip(there) {
            if here.rows.len() != there.rows.len() || here.cols.len() != there.cols.len() {
                return Err(
                    "a mapping of this virtual dataset reshapes frames, which cannot be read"
                        .into(),
                );
            }
            self.frames[here.frame].push(Piece {
                source,
                source_frame: there.frame,
                source_row: there.rows.start,
                source_col: there.cols.start,
                rows: here.rows,
                cols: here.cols,
            });
        }
        Ok(())
    }

    fn read_frame(
        &self,
        frame: usize,
        rows: &Range<usize>,
        cols: &Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let mut part = Vec::new();
        let mut covered = 0;
        for piece in &self.frames[frame] {
            let take_rows = overlap(&piece.rows, rows);
            let take_cols = overlap(&piece.cols, cols);
            if take_rows.is_empty() || take_cols.is_empty() {
                continue;
            }
            covered += take_rows.len() * take_cols.len();
            let row0 = piece.source_row + take_rows.start - piece.rows.start;
            let col0 = piece.source_col + take_cols.start - piece.cols.start;
            let source = self.sources[piece.source].rect();
            part.clear();
            part.resize(take_rows.len() * take_cols.len(), f32::NAN);
            source.read_rect(
                piece.source_frame..piece.source_frame + 1,
                row0..row0 + take_rows.len(),
                col0..col0 + take_cols.len(),
                &mut part,
            )?;
            for (row, line) in take_rows.zip(part.chunks(take_cols.len())) {
                let first = (row - rows.start) * cols.len() + (take_cols.start - cols.start);
                out[first..first + line.len()].copy_from_slice(line);
            }
        }
        if covered < rows.len() * cols.len() {
            return Err(Error::dataset(
                &self.file,
                &self.path,
                format!("frame {frame}: no source of this virtual dataset gives all of it"),
                "leave the frame out with input.exclude, or add the missing source file",
            ));
        }
        Ok(())
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// A rectangle of one frame.
struct Rectangle {
    frame: usize,
    rows: Range<usize>,
    cols: Range<usize>,
}

/// The selection as rectangles of single frames, in the order of the selection.
fn rectangles(selection: &Selection, shape: [usize; 3]) -> Result<Vec<Rectangle>, String> {
    let unreadable = |_| "a mapping of this virtual dataset cannot be read".to_string();
    // Sources of one frame may have two axes; our stacks always have three.
    let rank = if let Selection::Hyperslab { rank, .. } = selection {
        *rank
    } else {
        3
    };
    if !(2..=3).contains(&rank) {
        return Err(format!("a mapping of this virtual dataset has {rank} axes"));
    }
    let dims: Vec<u64> = shape[3 - rank..].iter().map(|&n| n as u64).collect();
    let bounded = match selection.unlim_dim() {
        Some(axis) => selection
            .clip_unlimited(*dims.get(axis).ok_or("a mapping has too many axes")?)
            .map_err(unreadable)?,
        None => selection.clone(),
    };
    let mut found: Vec<Rectangle> = Vec::new();
    for (start, count) in bounded.to_boxes(&dims).map_err(unreadable)? {
        let axis = |from_end: usize| -> Range<usize> {
            match start.len().checked_sub(from_end) {
                Some(axis) => start[axis] as usize..(start[axis] + count[axis]) as usize,
                None => 0..1,
            }
        };
        let (frames, rows, cols) = (axis(3), axis(2), axis(1));
        if start.len() > 3 || frames.end > shape[0] || rows.end > shape[1] || cols.end > shape[2] {
            return Err("a mapping of this virtual dataset reaches beyond its frames".into());
        }
        // With several rectangles in a frame the order of the elements would no longer be that of the rectangles.
        if found.last().is_some_and(|last| last.frame >= frames.start) {
            return Err(
                "a mapping of this virtual dataset has gaps within frames, which cannot be read"
                    .into(),
            );
        }
        found.extend(frames.map(|frame| Rectangle {
            frame,
            rows: rows.clone(),
            cols: cols.clone(),
        }));
    }
    Ok(found)
}

/// File, dataset and target of a mapping; a numbered series (`%b`) gives one of each per block.
fn expand(mapping: &VirtualMapping, frames: u64) -> Vec<(String, String, Selection)> {
    let (file, dataset) = (&mapping.source_file_name, &mapping.source_dset_name);
    let numbered = file.contains("%b") || dataset.contains("%b");
    let Selection::Hyperslab {
        rank,
        form: Hyperslab::Regular(target),
    } = &mapping.virtual_selection
    else {
        return vec![(
            file.clone(),
            dataset.clone(),
            mapping.virtual_selection.clone(),
        )];
    };
    if !numbered || target.unlim_dim() != Some(0) {
        return vec![(
            file.clone(),
            dataset.clone(),
            mapping.virtual_selection.clone(),
        )];
    }
    (0..frames)
        .map(|block| (block, target.unlim_block(block)))
        .take_while(|(_, target)| target.start[0] < frames)
        .map(|(block, target)| {
            let name = |text: &str| text.replace("%b", &block.to_string()).replace("%%", "%");
            (
                name(file),
                name(dataset),
                Selection::Hyperslab {
                    rank: *rank,
                    form: Hyperslab::Regular(target),
                },
            )
        })
        .collect()
}

impl Rect for VirtualStack {
    fn read_rect(
        &self,
        frames: Range<usize>,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let frame_len = rows.len() * cols.len();
        frames
            .zip(out.chunks_mut(frame_len.max(1)))
            .try_for_each(|(frame, out)| self.read_frame(frame, &rows, &cols, out))
    }

    fn as_stored(&self) -> bool {
        self.sources.iter().all(|source| source.rect().as_stored())
    }
}

impl FrameStack for VirtualStack {
    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn pixel_type(&self) -> PixelType {
        self.pixel
    }

    fn read(&self, frames: &[usize], rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let frame_len = check_request(self.shape, frames, &rows, out, || self.describe())?;
        if frame_len == 0 {
            return Ok(());
        }
        let mut read = || {
            frames
                .par_iter()
                .zip(out.par_chunks_mut(frame_len))
                .try_for_each(|(&frame, out)| {
                    self.read_frame(frame, &rows, &(0..self.shape[2]), out)
                })
        };
        if self.as_stored() {
            at_once(frame_len * self.pixel.bytes(), read)
        } else {
            read()
        }
    }

    fn decoded_bytes(&self, rows: Range<usize>) -> u64 {
        let Some(pieces) = self.frames.iter().find(|pieces| !pieces.is_empty()) else {
            return 0;
        };
        pieces
            .iter()
            .filter(|piece| !overlap(&piece.rows, &rows).is_empty())
            .map(|piece| {
                let take = overlap(&piece.rows, &rows);
                let first = piece.source_row + take.start - piece.rows.start;
                self.sources[piece.source]
                    .rect()
                    .decoded_bytes(first..first + take.len())
            })
            .sum()
    }

    fn describe(&self) -> String {
        format!("{}:{}", self.file.display(), self.path)
    }
}
