//! From runs with provisional components to the label volume, through a scratch file.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ndarray::Array3;

use super::grains::Labelled;
use crate::error::{Error, Result};
use crate::io::volume::VolumeWriter;

/// Runs of slice after slice on disk, 16 bytes each, in a file without a name: it goes with the program, however that ends.
pub(super) struct Scratch {
    folder: PathBuf,
    file: BufWriter<File>,
}

impl Scratch {
    /// In `folder`, because the systems' temporary folders are often small or in memory.
    pub(super) fn new(folder: &Path) -> Result<Scratch> {
        let file = tempfile::tempfile_in(folder).map_err(Error::io("create a file in", folder))?;
        Ok(Scratch {
            folder: folder.to_path_buf(),
            file: BufWriter::with_capacity(1 << 20, file),
        })
    }

    /// Appends the runs of the next slice.
    pub(super) fn push(&mut self, runs: &[Labelled]) -> Result<()> {
        let mut bytes = Vec::with_capacity(4 + 16 * runs.len());
        bytes.extend((runs.len() as u32).to_le_bytes());
        for run in runs {
            for word in [run.y, run.x0, run.x1, run.component] {
                bytes.extend(word.to_le_bytes());
            }
        }
        self.file
            .write_all(&bytes)
            .map_err(Error::io("write a scratch file in", &self.folder))
    }

    /// Paints the slices `first..first + n` of a label volume of `shape`, the others staying 0, and writes them in slabs.
    pub(super) fn paint(
        mut self,
        shape: [usize; 3],
        slices: std::ops::Range<usize>,
        label_of: &[u32],
        slab: usize,
        writer: &mut dyn VolumeWriter,
        mut done: impl FnMut(usize),
    ) -> Result<()> {
        self.file
            .flush()
            .map_err(Error::io("write a scratch file in", &self.folder))?;
        let file = self.file.get_mut();
        file.seek(SeekFrom::Start(0))
            .map_err(Error::io("read a scratch file in", &self.folder))?;
        let mut stored = BufReader::with_capacity(1 << 20, file);
        let folder = &self.folder;
        let mut word = || -> Result<u32> {
            let mut bytes = [0u8; 4];
            stored
                .read_exact(&mut bytes)
                .map_err(Error::io("read a scratch file in", folder))?;
            Ok(u32::from_le_bytes(bytes))
        };
        let [depth, height, width] = shape;
        for z0 in (0..depth).step_by(slab.max(1)) {
            crate::stop::check()?;
            let z1 = (z0 + slab.max(1)).min(depth);
            let mut labels = Array3::<u32>::zeros((z1 - z0, height, width));
            for z in z0..z1 {
                if !slices.contains(&z) {
                    continue;
                }
                for _ in 0..word()? {
                    let (y, x0, x1, component) = (
                        word()? as usize,
                        word()? as usize,
                        word()? as usize,
                        word()?,
                    );
                    let label = label_of[component as usize];
                    labels.slice_mut(ndarray::s![z - z0, y, x0..x1]).fill(label);
                }
            }
            writer.write_labels(z0, labels.view())?;
            done(z1 - z0);
        }
        Ok(())
    }
}
