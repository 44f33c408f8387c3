//! What the library below does not guard against itself.
//!
//! - A truncated HDF5 file must be an error: the library would read the missing part as zeros.
//! - A damaged one must be an error too: where the library panics on it, the panic stops here.
//! - A header may claim anything: [`believable`] refuses what the bytes of its file cannot hold, before the library
//!   takes the memory.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};

/// Bytes that one stored byte can stand for: LZ4 reaches 255, deflate 1032; zstd and szip more, but not on anything
/// that a detector or a motor ever wrote.
const MOST_EXPANSION: u128 = 1100;
/// Small claims are not worth a doubt \[bytes\].
const ALWAYS_BELIEVED: u128 = 1 << 20;

thread_local! {
    static GUARDED: Cell<usize> = const { Cell::new(0) };
}

/// Runs `work` on the content of `file`; a panic of the library becomes an error.
pub(crate) fn guarded<T>(file: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    GUARDED.set(GUARDED.get() + 1);
    // what `work` had in its hands is dropped with it: nothing half changed is seen afterwards
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    GUARDED.set(GUARDED.get() - 1);
    done.unwrap_or_else(|_| {
        Err(Error::input(
            file,
            "its HDF5 structure is damaged beyond what can be read",
            "check it with h5dump, or copy it again",
        ))
    })
}

/// Keeps panics that `guarded` turns into errors from being printed. Call once, in `main`.
pub fn silence_guarded_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if GUARDED.get() == 0 {
            print(info);
        }
    }));
}

/// Whether the file at `path` can hold `bytes` bytes of values, however well they are compressed.
pub(crate) fn believable(path: &Path, bytes: u128) -> bool {
    bytes <= ALWAYS_BELIEVED
        || std::fs::metadata(path)
            .is_ok_and(|meta| bytes <= u128::from(meta.len()) * MOST_EXPANSION)
}

const SIGNATURE: [u8; 8] = *b"\x89HDF\r\n\x1a\n";

/// Whether the file starts, or continues after a user block, as an HDF5 file.
pub(crate) fn is_hdf5(path: &Path) -> bool {
    File::open(path)
        .is_ok_and(|mut file| find_superblock(&mut file).is_ok_and(|found| found.is_some()))
}

/// Refuses a file that is shorter than the end-of-file address in its superblock.
///
/// # Errors
/// [`Error::Input`] for a truncated file and for one that is no HDF5.
pub(crate) fn check_complete(path: &Path) -> Result<()> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let found = file.metadata().map_err(Error::io("read", path))?.len();
    let no_hdf5 = || {
        Error::input(
            path,
            "this is not an HDF5 file, or its first bytes are damaged",
            "give an HDF5 file or a folder of TIFF files",
        )
    };
    let start = find_superblock(&mut file)
        .map_err(Error::io("read", path))?
        .ok_or_else(no_hdf5)?;
    let needed = end_of_file(&mut file, start)
        .map_err(|_| truncated(path, found, None))?
        .ok_or_else(no_hdf5)?;
    if found < needed {
        Err(truncated(path, found, Some(needed)))
    } else {
        Ok(())
    }
}

fn truncated(path: &Path, found: u64, needed: Option<u64>) -> Error {
    let expected = needed.map_or_else(|| "more".to_string(), |needed| needed.to_string());
    Error::input(
        path,
        format!("the file is truncated: {found} bytes, but its header says {expected}"),
        "copy it again, or wait until the acquisition has closed it",
    )
}

/// Offset of the superblock: 0, or after a user block of 512, 1024, 2048 ... bytes.
fn find_superblock(file: &mut File) -> std::io::Result<Option<u64>> {
    let len = file.metadata()?.len();
    let mut offset = 0u64;
    while offset + 8 <= len {
        let mut bytes = [0u8; 8];
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut bytes)?;
        if bytes == SIGNATURE {
            return Ok(Some(offset));
        }
        offset = if offset == 0 { 512 } else { offset * 2 };
    }
    Ok(None)
}

/// The end-of-file address, corrected for a user block that was put in front afterwards; `None` for an unknown version.
fn end_of_file(file: &mut File, start: u64) -> std::io::Result<Option<u64>> {
    let mut head = [0u8; 16];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut head)?;
    // Where the base address stands, how many addresses after it the end of file, and the size of an address.
    let (base_at, addresses_between, size) = match head[8] {
        0 => (24, 2, head[13]),
        1 => (28, 2, head[13]),
        2 | 3 => (12, 2, head[9]),
        _ => return Ok(None),
    };
    if !matches!(size, 2 | 4 | 8) {
        return Ok(None);
    }
    let size = u64::from(size);
    let base = read_address(file, start + base_at, size)?;
    let end = read_address(file, start + base_at + addresses_between * size, size)?;
    Ok(Some(if start >= base {
        end.saturating_add(start - base)
    } else {
        end.saturating_sub(base - start)
    }))
}

fn read_address(file: &mut File, at: u64, size: u64) -> std::io::Result<u64> {
    let mut bytes = [0u8; 8];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes[..size as usize])?;
    Ok(u64::from_le_bytes(bytes))
}
