//! Size and hash of an input file, for the run record and for `--resume`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};

/// Files up to this size are hashed whole; of larger ones the two ends, blocks in between, and the size \[bytes\].
const WHOLE: u64 = 64 << 20;
/// Length of each end \[bytes\].
const END: u64 = 1 << 20;
/// Blocks in between, evenly spread.
const BLOCKS: u64 = 256;
/// Length of a block \[bytes\].
const BLOCK: u64 = 1 << 16;

/// Size \[bytes\] and BLAKE3 (hex) of a file: of the whole content up to 64 MiB, else of the size, the first and last MiB and
/// 256 blocks of 64 KiB between them, since hashing 57 GB would take longer than reading them once for the
/// reconstruction. Other projections of the same size are noticed; a single changed pixel of a large file may not be.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read.
pub fn fingerprint(path: &Path) -> Result<(u64, String)> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let size = file.metadata().map_err(Error::io("read", path))?.len();
    let mut hasher = blake3::Hasher::new();
    let mut feed = |file: &mut File, length: u64| -> Result<()> {
        let mut buffer = vec![0u8; 1 << 16];
        let mut left = length;
        while left > 0 {
            let want = buffer.len().min(left as usize);
            let got = file
                .read(&mut buffer[..want])
                .map_err(Error::io("read", path))?;
            if got == 0 {
                break;
            }
            hasher.update(&buffer[..got]);
            left -= got as u64;
        }
        Ok(())
    };
    if size <= WHOLE {
        feed(&mut file, size)?;
    } else {
        fingerprint_parts(size).try_for_each(|(start, length)| {
            file.seek(SeekFrom::Start(start))
                .map_err(Error::io("read", path))?;
            feed(&mut file, length)
        })?;
        hasher.update(&size.to_le_bytes());
    }
    Ok((size, hasher.finalize().to_hex().to_string()))
}

/// Start and length of what is hashed of a large file.
fn fingerprint_parts(size: u64) -> impl Iterator<Item = (u64, u64)> {
    let step = (size - 2 * END) / BLOCKS;
    let between = (0..BLOCKS).map(move |k| (END + k * step, BLOCK.min(step)));
    std::iter::once((0, END))
        .chain(between)
        .chain([(size - END, END)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_is_hashed_at_its_ends_and_evenly_between() {
        for size in [WHOLE + 1, 57 << 30, u64::MAX >> 1] {
            let parts: Vec<_> = fingerprint_parts(size).collect();
            assert_eq!((parts[0], parts[257]), ((0, END), (size - END, END)));
            for pair in parts.windows(2) {
                let unseen = pair[1].0.checked_sub(pair[0].0 + pair[0].1).unwrap();
                assert!(unseen <= size / 250, "{size}: {unseen} bytes");
            }
        }
    }

    #[test]
    fn one_changed_byte_changes_the_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"projections").unwrap();
        let before = fingerprint(&path).unwrap();
        assert_eq!(
            before,
            (11, blake3::hash(b"projections").to_hex().to_string())
        );
        std::fs::write(&path, b"projectionz").unwrap();
        assert_ne!(fingerprint(&path).unwrap().1, before.1);
    }
}
