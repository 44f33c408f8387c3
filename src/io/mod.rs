//! Files in and out: the only module that touches them.

pub mod volume;

use std::path::Path;

use crate::config::InputConfig;
use crate::error::Result;
use crate::scan::Scan;

/// Opens a scan without reading it: recognises the layout, finds frames, angles, flats and darks.
///
/// # Errors
/// Everything that makes the scan unusable, with the way out.
pub fn open_scan(path: &Path, input: &InputConfig, pixel_size_um: Option<f64>) -> Result<Scan> {
    let _ = (path, input, pixel_size_um);
    unimplemented!("open_scan")
}
