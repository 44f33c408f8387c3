//! The output folder of a run: who may write into it, and files that appear only when complete.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::io::volume::partial::write_file;

/// What to do with an output that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Refuse,
    /// Replace what this run writes.
    Overwrite,
    /// Keep what is complete and was made with the same config and inputs.
    Resume,
}

/// A folder that this run alone writes into, until dropped.
#[derive(Debug)]
pub struct OutputFolder {
    path: PathBuf,
    _lock: File,
}

impl OutputFolder {
    /// Claims `path`.
    ///
    /// # Errors
    /// [`Error::OutputExists`] when a finished run is there and `existing` is [`Existing::Refuse`]; [`Error::Input`] when
    /// it was broken off, when another run writes into it or it holds files that are not a run's.
    pub fn claim(path: &Path, existing: Existing) -> Result<OutputFolder> {
        fs::create_dir_all(path).map_err(Error::io("create folder", path))?;
        let lock_path = path.join(".tomodelta.lock");
        let ours = lock_path.exists() || path.join("run.json").exists();
        let empty = fs::read_dir(path)
            .map_err(Error::io("read folder", path))?
            .next()
            .is_none();
        if !empty && !ours {
            return Err(Error::input(
                path,
                "is not empty and was not made by tomodelta",
                "give another --output; nothing there is touched",
            ));
        }
        // a run that is still going on looks like one that was broken off
        // opened as it is: a run that is refused below touches nothing
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(Error::io("write", &lock_path))?;
        if lock.try_lock().is_err() {
            return Err(Error::input(
                path,
                "another run is writing into this folder",
                "wait for it, or give another --output",
            ));
        }
        let used = path.join("config.toml").exists() || path.join("run.json").exists();
        if used && existing == Existing::Refuse && !path.join("run.json").exists() {
            return Err(Error::input(
                path,
                "holds a run that was broken off",
                "give --resume to go on with it, or --overwrite to start anew",
            ));
        }
        if used && existing == Existing::Refuse {
            return Err(Error::OutputExists {
                path: path.to_path_buf(),
            });
        }
        Ok(OutputFolder {
            path: path.to_path_buf(),
            _lock: lock,
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Folder of one scan, made if it is missing.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn scan(&self, name: &str) -> Result<PathBuf> {
        self.folder(&["scans", name])
    }

    /// Folder of one difference, made if it is missing.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn difference(&self, name: &str) -> Result<PathBuf> {
        self.folder(&["differences", name])
    }

    fn folder(&self, parts: &[&str]) -> Result<PathBuf> {
        let path = parts
            .iter()
            .fold(self.path.clone(), |path, part| path.join(part));
        fs::create_dir_all(&path).map_err(Error::io("create folder", &path))?;
        Ok(path)
    }
}

/// Writes a record as JSON, whole.
///
/// # Errors
/// Those of the file system.
pub fn write_json(path: &Path, record: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(record).map_err(|error| {
        Error::input(
            path,
            format!("cannot be written as JSON: {error}"),
            "report this as a bug",
        )
    })?;
    text.push(b'\n');
    write_file(path, &text)
}

/// Reads a record back.
///
/// # Errors
/// [`Error::Io`] when it is missing, [`Error::Input`] when it is not the record.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::input(
            path,
            format!("is not a record of this program: {error}"),
            "run again with --overwrite",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_on_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let first = OutputFolder::claim(&path, Existing::Refuse).unwrap();
        let second = OutputFolder::claim(&path, Existing::Overwrite).unwrap_err();
        assert!(second.to_string().contains("another run"), "{second}");
        drop(first);
        OutputFolder::claim(&path, Existing::Refuse).unwrap();
    }

    #[test]
    fn a_folder_with_foreign_files_is_refused_even_with_overwrite() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "x").unwrap();
        assert!(OutputFolder::claim(folder.path(), Existing::Overwrite).is_err());
    }

    #[test]
    fn a_finished_run_is_not_overwritten_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        drop(OutputFolder::claim(&path, Existing::Refuse).unwrap());
        write_file(&path.join("config.toml"), b"x").unwrap();
        let broken_off = OutputFolder::claim(&path, Existing::Refuse).unwrap_err();
        assert!(broken_off.to_string().contains("--resume"), "{broken_off}");
        write_file(&path.join("run.json"), b"x").unwrap();
        assert!(matches!(
            OutputFolder::claim(&path, Existing::Refuse),
            Err(Error::OutputExists { .. })
        ));
        OutputFolder::claim(&path, Existing::Resume).unwrap();
    }
}
