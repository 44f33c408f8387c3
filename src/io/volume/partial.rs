//! An output that appears under its name only when it is complete.
//!
//! Everything is written into a hidden sibling folder `.NAME.partial`, flushed to the disk, and renamed at the end. A
//! program that dies leaves only that folder behind, which the next run that writes `NAME` removes.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const LOCK: &str = "lock";

/// The output while it is written; dropped without [`Partial::commit`] it vanishes, unless it is to be kept.
pub(crate) struct Partial {
    target: PathBuf,
    folder: PathBuf,
    lock: Option<File>,
    overwrite: bool,
    keep: bool,
}

impl Partial {
    /// Makes the hidden folder beside `target`, and the folders above it; what a dead run left there is removed.
    pub(crate) fn start(target: &Path, overwrite: bool) -> Result<Partial> {
        Self::open(target, overwrite, false)
    }

    /// As [`Partial::start`], but what a dead run left there stays.
    pub(crate) fn start_again(target: &Path, overwrite: bool) -> Result<Partial> {
        Self::open(target, overwrite, true)
    }

    fn open(target: &Path, overwrite: bool, again: bool) -> Result<Partial> {
        check_target(target, overwrite)?;
        let name = file_name(target)?;
        let parent = parent_of(target);
        std::fs::create_dir_all(&parent).map_err(Error::io("create folder", &parent))?;
        let mut hidden = OsString::from(".");
        hidden.push(&name);
        hidden.push(".partial");
        let folder = parent.join(hidden);
        if folder.exists() {
            check_leftover(&folder)?;
            if !again {
                remove_site(&folder).map_err(Error::io("remove", &folder))?;
            }
        }
        std::fs::create_dir_all(&folder).map_err(Error::io("create folder", &folder))?;
        let lock_path = folder.join(LOCK);
        let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
        // a file system without locks is no reason to refuse; then two runs into one folder go unnoticed
        if matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
            return Err(written_elsewhere(&folder));
        }
        Ok(Partial {
            target: target.to_path_buf(),
            folder,
            lock: Some(lock),
            overwrite,
            keep: false,
        })
    }

    /// What is built stays when this is dropped.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }

    /// The hidden folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the output is to be built: a file or a folder that carries the final name.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder
            .join(self.target.file_name().unwrap_or_default())
    }

    /// Flushes everything and gives it its name. `companions` are files beside [`Partial::path`] that go along; they
    /// are moved first, so that the output never stands without them.
    pub(crate) fn commit(mut self, companions: &[String]) -> Result<()> {
        let built = self.path();
        sync_tree(&self.folder)?;
        check_target(&self.target, self.overwrite)?;
        let parent = parent_of(&self.target);
        for companion in companions {
            rename(&self.folder.join(companion), &parent.join(companion))?;
        }
        if self.target.exists() && (self.target.is_dir() || built.is_dir()) {
            // folders cannot be replaced in one step: the old one steps aside, and comes back if the new one fails
            let old = self.folder.join("replaced");
            rename(&self.target, &old)?;
            if let Err(error) = rename(&built, &self.target) {
                let _ = std::fs::rename(&old, &self.target);
                return Err(error);
            }
        } else {
            rename(&built, &self.target)?;
        }
        sync_folder(&parent);
        self.lock = None;
        // whole and named: what is left of the building site is no reason to fail
        self.keep = false;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // closed first: some systems do not remove open files
        self.lock = None;
        if !self.keep {
            let _ = remove_site(&self.folder);
        }
    }
}

/// Writes a small file completely or not at all.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut hidden = OsString::from(".");
    hidden.push(file_name(path)?);
    hidden.push(".partial");
    let partial = parent_of(path).join(hidden);
    let written = std::fs::write(&partial, bytes)
        .and_then(|()| File::open(&partial)?.sync_all())
        .and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written.map_err(Error::io("write", path))
}

/// Refuses a target that may not be replaced.
pub(super) fn check_target(target: &Path, overwrite: bool) -> Result<()> {
    let Ok(found) = target.symlink_metadata() else {
        return Ok(());
    };
    if !overwrite {
        return Err(Error::OutputExists {
            path: target.to_path_buf(),
        });
    }
    let empty_folder = found.is_dir()
        && std::fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
    if found.is_symlink() || !(empty_folder || super::is_own(target)) {
        return Err(Error::input(
            target,
            "is in the way and is not (only) a volume written by tomodelta, so it is not replaced",
            "move it away or choose another output",
        ));
    }
    Ok(())
}

/// What a dead run left may be removed or taken over; the lock of a living one is respected.
fn check_leftover(folder: &Path) -> Result<()> {
    let Ok(lock) = File::open(folder.join(LOCK)) else {
        // a run that died before it made its lock file, or behind it, left nothing to lose
        let nothing = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
        return if nothing {
            Ok(())
        } else {
            Err(Error::input(
                folder,
                "is in the way and holds no lock file of tomodelta",
                "move it away",
            ))
        };
    };
    if matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
        return Err(written_elsewhere(folder));
    }
    Ok(())
}

fn written_elsewhere(folder: &Path) -> Error {
    Error::input(
        folder,
        "is being written by another run",
        "wait for it, or choose another output",
    )
}

/// Removes a hidden folder, the lock file last: a run that dies meanwhile leaves a folder that is known as its own.
fn remove_site(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    std::fs::remove_dir_all(folder)
}

fn file_name(path: &Path) -> Result<OsString> {
    path.file_name().map(OsString::from).ok_or_else(|| {
        Error::input(
            path,
            "names no file or folder to write",
            "give a path that ends in a name",
        )
    })
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(Error::io("rename to", to))
}

/// Flushes every file below `folder`. Done once at the end, when the system has written most of it already.
fn sync_tree(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            // opened for writing: Windows flushes no read-only handle
            let file = File::options()
                .append(true)
                .open(&path)
                .map_err(Error::io("open", &path))?;
            file.sync_all().map_err(Error::io("flush", &path))?;
        }
    }
    sync_folder(folder);
    Ok(())
}

/// Folders can be flushed on Unix only; elsewhere the rename itself is as durable as it gets.
fn sync_folder(folder: &Path) {
    if cfg!(unix)
        && let Ok(handle) = File::open(folder)
    {
        let _ = handle.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_appears_before_commit_and_nothing_stays_after_a_drop() {
        let scratch = tempfile::tempdir().unwrap();
        let target = scratch.path().join("deep").join("a.bin");
        let partial = Partial::start(&target, false).unwrap();
        std::fs::write(partial.path(), b"1").unwrap();
        assert!(!target.exists());
        drop(partial);
        assert_eq!(
            std::fs::read_dir(target.parent().unwrap()).unwrap().count(),
            0
        );
        let partial = Partial::start(&target, false).unwrap();
        std::fs::write(partial.path(), b"2").unwrap();
        partial.commit(&[]).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"2");
        assert_eq!(
            std::fs::read_dir(target.parent().unwrap()).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_foreign_folder_is_never_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let target = scratch.path().join("thesis");
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("chapter1.tex"), b"x").unwrap();
        assert!(matches!(
            Partial::start(&target, false),
            Err(Error::OutputExists { .. })
        ));
        assert!(matches!(
            Partial::start(&target, true),
            Err(Error::Input { .. })
        ));
        assert!(target.join("chapter1.tex").exists());
    }

    #[test]
    fn a_leftover_is_removed_but_a_living_run_is_not_disturbed() {
        let scratch = tempfile::tempdir().unwrap();
        let target = scratch.path().join("v");
        let alive = Partial::start(&target, false).unwrap();
        assert!(Partial::start(&target, false).is_err());
        drop(alive);
        let leftover = scratch.path().join(".v.partial");
        std::fs::create_dir(&leftover).unwrap();
        std::fs::write(leftover.join(LOCK), b"").unwrap();
        std::fs::write(leftover.join("junk"), b"x").unwrap();
        let again = Partial::start(&target, false).unwrap();
        assert!(!leftover.join("junk").exists());
        drop(again);
        // killed before the lock file was made, which is not told from killed while all was removed
        std::fs::create_dir(&leftover).unwrap();
        drop(Partial::start_again(&target, false).unwrap());
        assert!(!leftover.exists());
        std::fs::create_dir(&leftover).unwrap();
        std::fs::write(leftover.join("of somebody else"), b"x").unwrap();
        assert!(Partial::start(&target, false).is_err());
        assert!(leftover.join("of somebody else").exists());
    }
}
