//! Scans of real instruments and made ones, through the door.

mod made;
mod real;
mod tiff_files;

use std::path::{Path, PathBuf};

use super::*;
use crate::config::AngleUnit;

/// A real file, where the shared folder is there.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/data")
        .join(name);
    if !path.exists() {
        eprintln!("SKIPPED: {} is not here", path.display());
        return None;
    }
    Some(path)
}

fn open(path: &Path) -> Result<Scan> {
    open_scan(path, &InputConfig::default(), None)
}

fn error_of(result: Result<Scan>) -> String {
    let text = result.err().expect("this must be an error").to_string();
    assert!(
        !text.contains('\n') && text.len() < 900,
        "not one sentence: {text}"
    );
    text
}

fn frame(stack: &dyn crate::scan::FrameStack, frame: usize) -> Vec<f32> {
    let [_, rows, cols] = stack.shape();
    let mut out = vec![f32::NAN; rows * cols];
    stack.read(&[frame], 0..rows, &mut out).unwrap();
    out
}
