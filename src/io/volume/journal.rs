//! A volume that survives the death of its writer.
//!
//! Beside the unfinished volume stands `journal.jsonl`: first what the volume is made of, then a line per slab with
//! the number of slices that are stored, the BLAKE3 of the slab's voxels, and whatever the maker needs to go on. A
//! resumed writer reads the stored slices back, compares them with their hash, and writes them again through the same
//! code, which leaves equal parts alone: everything that depends on all slices (smaller scales, contrast, checksums)
//! comes out as if the work had never stopped. Nothing that fails its hash is trusted, so no order of writes to the
//! disk has to be relied on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::ArrayView3;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{VolumeMeta, VolumeWriter, create_in};
use crate::config::{RunConfig, VolumeFormat};
use crate::error::{Error, Result};

const NAME: &str = "journal.jsonl";

/// One slab that is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    /// Slices stored, from 0 on.
    slices: usize,
    /// Of the voxels since the entry before.
    blake3: String,
    /// Of the maker.
    state: Value,
}

/// What an earlier run left of a volume.
#[derive(Debug)]
pub struct Kept {
    /// Slices that need not be made again, from 0 on.
    pub slices: usize,
    /// What the maker gave with the last of them.
    pub state: Value,
}

/// A volume being written, with its journal.
pub struct Journaled {
    writer: Box<dyn VolumeWriter>,
    journal: File,
    path: PathBuf,
    /// Slabs that were written but could not be read back yet.
    pending: VecDeque<Entry>,
    slices: usize,
}

impl Journaled {
    /// Starts a volume as [`super::create`] does, or goes on with the one that an earlier run left unfinished.
    ///
    /// `inputs` stands for whatever decides the voxels beside `meta`: a volume of other inputs is not gone on with.
    ///
    /// # Errors
    /// Those of [`super::create`]; [`Error::Input`] where the unfinished volume was made from something else, with the
    /// first difference.
    pub fn start(
        path: &Path,
        format: VolumeFormat,
        meta: &VolumeMeta,
        overwrite: bool,
        resume: bool,
        inputs: &Value,
    ) -> Result<(Journaled, Option<Kept>)> {
        let mut writer = create_in(path, format, meta, overwrite, resume)?;
        let journal_path = writer.folder().join(NAME);
        let head = head_of(meta, format, inputs);
        let old = match resume {
            true => read(&journal_path)?,
            false => None,
        };
        if let Some((old_head, _)) = &old
            && let Some(change) = first_difference("", old_head, &head)
        {
            // whoever asked to go on may have mistaken the config: what is there stays
            writer.keep_when_dropped();
            return Err(Error::input(
                path,
                format!("the unfinished volume beside it was made from something else: {change}"),
                "restore that, or start anew with --overwrite",
            ));
        }
        let entries = old.map(|(_, entries)| entries).unwrap_or_default();
        let mut good = Vec::new();
        let mut slices = 0;
        for entry in entries {
            let range = slices..entry.slices;
            if range.is_empty() || !copy(writer.as_mut(), &range, &entry.blake3)? {
                break;
            }
            slices = range.end;
            good.push(entry);
        }
        let mut text = format!("{head}\n");
        for entry in &good {
            text += &format!("{}\n", json!(entry));
        }
        super::partial::write_file(&journal_path, text.as_bytes())?;
        let journal = File::options()
            .append(true)
            .open(&journal_path)
            .map_err(Error::io("write", &journal_path))?;
        let kept = good.pop().map(|entry| Kept {
            slices,
            state: entry.state,
        });
        writer.keep_when_dropped();
        let journaled = Journaled {
            writer,
            journal,
            path: journal_path,
            pending: VecDeque::new(),
            slices,
        };
        Ok((journaled, kept))
    }

    /// Appends a slab; `state` is what the maker needs to go on behind it.
    ///
    /// # Errors
    /// Those of [`VolumeWriter::write`].
    pub fn write(&mut self, z0: usize, slices: ArrayView3<'_, f32>, state: Value) -> Result<()> {
        let mut hasher = blake3::Hasher::new();
        feed(&mut hasher, slices);
        self.writer.write(z0, slices)?;
        self.slices = z0 + slices.dim().0;
        self.pending.push_back(Entry {
            slices: self.slices,
            blake3: hasher.finalize().to_hex().to_string(),
            state,
        });
        let stored = self.writer.stored();
        while let Some(entry) = self.pending.pop_front_if(|entry| entry.slices <= stored) {
            writeln!(self.journal, "{}", json!(entry))
                .and_then(|()| self.journal.sync_data())
                .map_err(Error::io("write", &self.path))?;
        }
        Ok(())
    }

    /// As [`VolumeWriter::finish`]; the journal goes.
    ///
    /// # Errors
    /// As for [`VolumeWriter::finish`].
    pub fn finish(self) -> Result<()> {
        self.writer.finish()
    }
}

/// Slices read at a time: those of one slab may not fit into memory any more.
const STEP: usize = 8;

/// Compares stored slices with the hash of their slab, and writes them again; `false` where they are not what they were.
fn copy(writer: &mut dyn VolumeWriter, range: &Range<usize>, blake3: &str) -> Result<bool> {
    let steps = || {
        let range = range.clone();
        let end = range.end;
        range.step_by(STEP).map(move |z| z..(z + STEP).min(end))
    };
    let mut hasher = blake3::Hasher::new();
    for step in steps() {
        match writer.read_back(step) {
            Ok(slices) => feed(&mut hasher, slices.view()),
            Err(_) => return Ok(false),
        }
    }
    if hasher.finalize().to_hex().as_str() != blake3 {
        return Ok(false);
    }
    for step in steps() {
        let slices = writer.read_back(step.clone())?;
        writer.write(step.start, slices.view())?;
    }
    Ok(true)
}

fn feed(hasher: &mut blake3::Hasher, slices: ArrayView3<'_, f32>) {
    for slice in slices.outer_iter() {
        match slice.as_slice() {
            Some(voxels) => drop(hasher.update_rayon(bytemuck::cast_slice(voxels))),
            None => {
                for &voxel in slice {
                    hasher.update(bytemuck::bytes_of(&voxel));
                }
            }
        }
    }
}

/// Everything that decides the voxels.
fn head_of(meta: &VolumeMeta, format: VolumeFormat, inputs: &Value) -> Value {
    let mut meta = json!(meta);
    if let Some(run) = meta["provenance"]["config"]["run"].as_object_mut() {
        for key in RunConfig::FREE_KEYS {
            run.remove(key);
        }
    }
    json!({ "format": format, "volume": meta, "inputs": inputs })
}

/// Head and entries; `None` where there is no journal. A last line that was cut short is no entry.
fn read(path: &Path) -> Result<Option<(Value, Vec<Entry>)>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let mut lines = text.lines();
    let Some(head) = lines
        .next()
        .and_then(|line| serde_json::from_str(line).ok())
    else {
        return Ok(None);
    };
    let entries = lines.map_while(|line| serde_json::from_str(line).ok());
    Ok(Some((head, entries.collect())))
}

/// The first key that differs, with both values.
fn first_difference(at: &str, old: &Value, new: &Value) -> Option<String> {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => a
            .keys()
            .chain(b.keys().filter(|key| !a.contains_key(*key)))
            .find_map(|key| {
                let below = format!("{at}{}{key}", if at.is_empty() { "" } else { "." });
                let null = Value::Null;
                first_difference(
                    &below,
                    a.get(key).unwrap_or(&null),
                    b.get(key).unwrap_or(&null),
                )
            }),
        (a, b) if a == b => None,
        (a, b) => Some(format!("{at} was {a}, is {b}")),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, s};

    use super::*;
    use crate::io::volume::{self, VoxelType, file_name};

    const SHAPE: [usize; 3] = [150, 20, 24];

    fn meta() -> VolumeMeta {
        VolumeMeta {
            shape: SHAPE,
            voxel_type: VoxelType::F32,
            unit: "1/cm".into(),
            voxel_size_um: Some(1.0),
            first_row: 0,
            provenance: json!({ "config": { "run": { "memory": "1GiB", "device": "cpu" } } }),
        }
    }

    fn voxels() -> Array3<f32> {
        Array3::from_shape_fn(SHAPE, |(z, y, x)| ((z * 31 + y * 7 + x) as f32).sin())
    }

    /// Writes slabs of 37 slices from `from` on, at most up to `to`.
    fn write(journaled: &mut Journaled, from: usize, to: usize) {
        let voxels = voxels();
        for z in (from..to).step_by(37) {
            let end = (z + 37).min(to);
            journaled
                .write(z, voxels.slice(s![z..end, .., ..]), json!({ "done": end }))
                .unwrap();
        }
    }

    fn tree(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![path.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push((path.clone(), std::fs::read(&path).unwrap()));
                }
            }
        }
        files.sort();
        files
    }

    fn start(path: &Path, format: VolumeFormat, resume: bool) -> (Journaled, Option<Kept>) {
        Journaled::start(path, format, &meta(), true, resume, &json!("inputs")).unwrap()
    }

    #[test]
    fn a_writer_that_died_is_gone_on_with_to_the_same_bytes() {
        // slabs end at 37, 74, 111, 148; layers of Zarr at 64 and 128
        for (format, stored) in [
            (VolumeFormat::Zarr, 37),
            (VolumeFormat::Tiff, 111),
            (VolumeFormat::Npy, 111),
            (VolumeFormat::Hdf5, 0),
        ] {
            let scratch = tempfile::tempdir().unwrap();
            let folder = scratch.path().join("out");
            let path = folder.join(file_name("v", format));
            let (mut whole, kept) = start(&path, format, false);
            assert!(kept.is_none());
            write(&mut whole, 0, SHAPE[0]);
            whole.finish().unwrap();
            let expected = tree(&folder);
            std::fs::remove_dir_all(&folder).unwrap();

            let (mut first, _) = start(&path, format, false);
            write(&mut first, 0, 111);
            drop(first);
            assert!(!path.exists());
            let (mut second, kept) = start(&path, format, true);
            let from = kept.as_ref().map_or(0, |kept| kept.slices);
            assert_eq!(from, stored, "{format:?}");
            if let Some(kept) = kept {
                assert_eq!(kept.state, json!({ "done": from }));
            }
            write(&mut second, from, SHAPE[0]);
            second.finish().unwrap();
            assert_eq!(tree(&folder), expected, "{format:?}");
            assert!(volume::verify(&path).unwrap().is_sound());
        }
    }

    #[test]
    fn stored_slices_that_changed_are_not_trusted() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("v.npy");
        let (mut first, _) = start(&path, VolumeFormat::Npy, false);
        write(&mut first, 0, 111);
        drop(first);
        let building = scratch.path().join(".v.npy.partial/v.npy");
        let mut bytes = std::fs::read(&building).unwrap();
        // one bit in the third slab
        let at = bytes.len() - 1000;
        bytes[at] ^= 1;
        std::fs::write(&building, bytes).unwrap();
        let (second, kept) = start(&path, VolumeFormat::Npy, true);
        assert_eq!(kept.unwrap().slices, 74);
        drop(second);
        // and a line of the journal that was cut short is no line
        let journal = scratch.path().join(".v.npy.partial").join(NAME);
        let text = std::fs::read_to_string(&journal).unwrap();
        std::fs::write(&journal, &text[..text.len() - 20]).unwrap();
        assert_eq!(start(&path, VolumeFormat::Npy, true).1.unwrap().slices, 37);
    }

    #[test]
    fn a_volume_of_something_else_is_refused_with_the_difference() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("v.npy");
        let (mut first, _) = start(&path, VolumeFormat::Npy, false);
        write(&mut first, 0, 74);
        drop(first);
        let again = |meta: &VolumeMeta, inputs: &str| {
            Journaled::start(&path, VolumeFormat::Npy, meta, true, true, &json!(inputs))
        };
        let mut other = meta();
        other.provenance["config"]["run"]["device"] = json!("gpu");
        let error = again(&other, "inputs").err().unwrap().to_string();
        assert!(
            error.contains("run.device was \"cpu\", is \"gpu\""),
            "{error}"
        );
        let error = again(&meta(), "others").err().unwrap().to_string();
        assert!(error.contains("inputs was"), "{error}");
        other = meta();
        other.provenance["config"]["run"]["memory"] = json!("9GiB");
        assert_eq!(again(&other, "inputs").unwrap().1.unwrap().slices, 74);
    }
}
