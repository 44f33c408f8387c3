//! BLAKE3 of every stored part, and the check against it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// File beside the parts of a volume that is a folder.
pub(super) const CHECKSUMS: &str = "checksums.json";

/// Sizes and hashes of the parts of a volume: shards, slices as files, or slices within one file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Checksums {
    pub(super) algorithm: String,
    pub(super) parts: BTreeMap<String, Part>,
}

/// One part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) bytes: u64,
    pub(super) blake3: String,
}

impl Default for Checksums {
    fn default() -> Self {
        Checksums {
            algorithm: "blake3".into(),
            parts: BTreeMap::new(),
        }
    }
}

impl Part {
    pub(super) fn of(bytes: &[u8]) -> Part {
        Part {
            bytes: bytes.len() as u64,
            blake3: blake3::hash(bytes).to_hex().to_string(),
        }
    }
}

impl Checksums {
    pub(super) fn load(folder: &Path) -> Result<Checksums> {
        let path = folder.join(CHECKSUMS);
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        serde_json::from_str(&text).map_err(|error| {
            Error::input(
                &path,
                format!("is not a list of checksums: {error}"),
                "write the volume again",
            )
        })
    }

    pub(super) fn store(&self, folder: &Path) -> Result<()> {
        super::write_json(&folder.join(CHECKSUMS), self)
    }

    /// Hashes every file of the list below `folder`.
    pub(super) fn verify_files(&self, folder: &Path) -> VerifyReport {
        let mut report = VerifyReport::default();
        for (name, expected) in &self.parts {
            match hash_file(&folder.join(name)) {
                Ok(found) => report.compare(name, expected, &found),
                Err(error) => report.problem(format!("{name}: {error}")),
            }
        }
        report
    }
}

fn hash_file(path: &Path) -> std::io::Result<Part> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let bytes = std::io::copy(&mut file, &mut hasher)?;
    Ok(Part {
        bytes,
        blake3: hasher.finalize().to_hex().to_string(),
    })
}

/// Result of [`super::verify`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Parts (shards or slices) compared with their checksum.
    pub parts: usize,
    /// Bytes hashed.
    pub bytes: u64,
    /// One sentence per part that is missing or differs; empty: the volume is as it was written.
    pub problems: Vec<String>,
}

impl VerifyReport {
    /// Whether every part is there and unchanged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    pub(super) fn compare(&mut self, name: &str, expected: &Part, found: &Part) {
        self.parts += 1;
        self.bytes += found.bytes;
        if found.bytes != expected.bytes {
            self.problems.push(format!(
                "{name}: {} bytes expected, {} found",
                expected.bytes, found.bytes
            ));
        } else if found.blake3 != expected.blake3 {
            self.problems
                .push(format!("{name}: the content differs from what was written"));
        }
    }

    pub(super) fn problem(&mut self, problem: String) {
        self.parts += 1;
        self.problems.push(problem);
    }
}
