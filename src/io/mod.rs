//! Files in and out: the only module that touches them.

pub mod angles;
mod assemble;
mod dxchange;
pub mod fingerprint;
pub mod hdf5;
mod hdf5_scan;
pub mod inspect;
mod monitor;
mod nexus;
pub mod npy;
mod pixel_size;
pub mod scratch;
pub mod shifts;
pub mod sinograms;
pub mod stall;
mod tiff_folder;
mod tiff_stack;
pub mod volume;
mod waits;

use std::path::Path;

use crate::config::InputConfig;
use crate::error::{Error, Result};
use crate::scan::Scan;

/// Opens a scan without reading it: recognises the layout, finds frames, angles, flats and darks.
///
/// `path` is an HDF5 file (NXtomo, DXchange, or any other whose datasets `input` names), a folder of TIFF files, or one
/// multi-page TIFF. `pixel_size_um` \[um\] wins over the size in the file.
///
/// # Errors
/// Everything that makes the scan unusable, with the way out: a missing or truncated file, a link to a missing file,
/// an unknown layout (with the datasets that could be meant), frames of mixed or unusable sizes and types, angles that
/// do not match the projections or are not finite, no projections.
pub fn open_scan(path: &Path, input: &InputConfig, pixel_size_um: Option<f64>) -> Result<Scan> {
    if let Some(size) = pixel_size_um.filter(|size| !(size.is_finite() && *size > 0.0)) {
        return Err(Error::config(
            "pixel_size_um",
            size,
            "expected a positive number of micrometres",
        ));
    }
    let meta = std::fs::metadata(path).map_err(Error::io("open", path))?;
    let parts = if meta.is_dir() {
        tiff_folder::open(path, input)?
    } else if hdf5::is_hdf5(path) {
        hdf5_scan::open(path, input)?
    } else if tiff_folder::is_tiff_name(path) {
        tiff_folder::open_file(path, input)?
    } else if path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("npy"))
    {
        return Err(Error::input(
            path,
            "a .npy file holds line integrals, not a raw scan",
            "`tomodelta reconstruct` takes it, with --angles",
        ));
    } else {
        return Err(Error::input(
            path,
            if meta.len() == 0 {
                "the file is empty"
            } else {
                "it is neither an HDF5 nor a TIFF file"
            },
            "give an HDF5 file (NXtomo, DXchange or other) or a folder of TIFF projections",
        ));
    };
    assemble::assemble(parts, input, pixel_size_um)
}

#[cfg(test)]
mod tests;
