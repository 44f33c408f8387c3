//! Size and hash of an input file, for the run record and for `--resume`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};

/// Files up to this size are hashed whole; of larger ones the two ends and the size \[bytes\].
const WHOLE: u64 = 64 << 20;
/// Length of each end.
const END: u64 = 1 << 20;

/// Size \[bytes\] and BLAKE3 (hex) of a file: of the whole content up to 64 MiB, else of the size and the first and
/// last MiB, since hashing 57 GB would take longer than reading them once for the reconstruction.
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
        feed(&mut file, END)?;
        file.seek(SeekFrom::Start(size - END))
            .map_err(Error::io("read", path))?;
        feed(&mut file, END)?;
        hasher.update(&size.to_le_bytes());
    }
    Ok((size, hasher.finalize().to_hex().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
