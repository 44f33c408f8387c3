//! The report of a finished run.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::progress::Progress;

/// Draws the figures of every difference and writes `report.html` into `folder`, from what the run left there.
///
/// # Errors
/// Missing or unreadable records and volumes; those of writing.
pub fn write(folder: &Path, progress: &Progress) -> Result<PathBuf> {
    let _ = (folder, progress);
    unimplemented!("report")
}
