//! What a TIFF claims, against what its bytes can hold: judged before the decoder takes memory for it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use tiff::decoder::Limits;

/// Bytes that one stored byte can stand for: 2731 for LZW, whose codes of 12 bits reach 4096 bytes; deflate 1032.
const MOST_EXPANSION: u128 = 2731;
/// Small claims are not worth a doubt \[bytes\].
const ALWAYS_BELIEVED: u128 = 1 << 16;
/// Entries of a directory; real ones have a few dozen.
const MOST_ENTRIES: u64 = 4096;

/// Whether `claimed` bytes of pixels can come out of `stored` ones.
pub(super) fn believable(claimed: u128, stored: u64) -> bool {
    claimed <= MOST_EXPANSION * u128::from(stored) + ALWAYS_BELIEVED
}

/// Memory that decoding this file may take: no more than its bytes can stand for.
///
/// # Errors
/// Those of the file system, and a first directory whose lists are longer than the file: the decoder reads that one
/// before it can be told any limit.
pub(crate) fn limits(file: &mut File) -> std::io::Result<Limits> {
    let len = file.metadata()?.len();
    check_first_directory(file, len)?;
    file.seek(SeekFrom::Start(0))?;
    let most = (u128::from(len) * MOST_EXPANSION + ALWAYS_BELIEVED).min(8 << 30) as usize;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = most;
    limits.intermediate_buffer_size = most;
    limits.ifd_value_size = limits.ifd_value_size.min(most);
    Ok(limits)
}

/// TIFF 6.0, section 2, and the BigTIFF extension: every entry names a type and a count.
fn check_first_directory(file: &mut File, len: u64) -> std::io::Result<()> {
    let mut head = [0u8; 16];
    let read = file.read(&mut head)?;
    let little = head.starts_with(b"II");
    let number = |bytes: &[u8]| {
        let each = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        if little {
            bytes.iter().rev().fold(0, each)
        } else {
            bytes.iter().fold(0, each)
        }
    };
    let big = number(&head[2..4]) == 43;
    if read < 8 || (big && read < 16) {
        return Ok(());
    }
    let (at, count_bytes, entry_bytes) = if big {
        (number(&head[8..16]), 8, 20)
    } else {
        (number(&head[4..8]), 2, 12)
    };
    let mut count = [0u8; 8];
    file.seek(SeekFrom::Start(at))?;
    if file.read_exact(&mut count[..count_bytes]).is_err() {
        return Ok(());
    }
    let entries = number(&count[..count_bytes]).min(MOST_ENTRIES);
    let mut table = Vec::new();
    file.take(entries * entry_bytes).read_to_end(&mut table)?;
    for entry in table.chunks_exact(entry_bytes as usize) {
        let values = number(&entry[4..if big { 12 } else { 8 }]);
        // types 3 and 8 have two bytes, 1, 2, 6 and 7 one, the others four or eight
        let size = match number(&entry[2..4]) {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            _ => 8,
        };
        if values.saturating_mul(size) > len {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!(
                    "tag {} claims {values} values, more than the file can hold",
                    number(&entry[..2])
                ),
            ));
        }
    }
    Ok(())
}
