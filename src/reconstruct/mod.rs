//! From line integrals to slices.

pub mod backproject;
pub mod filter;
pub mod geometry;
pub mod gpu_fbp;
pub mod ramp_filter;
pub mod self_test;

use ndarray::{ArrayView3, ArrayViewMut3};

use crate::config::ReconstructConfig;
use crate::error::Result;
use crate::gpu::Device;
use geometry::{Grid, Ray};

/// Everything about a slice that does not depend on its row.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceJob {
    /// Detector columns.
    pub n_cols: usize,
    /// One per projection of the sinograms.
    pub rays: Vec<Ray>,
    /// The voxels.
    pub grid: Grid,
    /// Method, filter, padding, upsampling (rows and crop were applied by the caller).
    pub config: ReconstructConfig,
    /// Multiplies the attenuation per pixel: `1e4 / pixel_size_um` gives 1/cm.
    pub scale: f64,
    /// Voxels farther from the axis than this \[px\] are 0.
    pub mask_radius_px: Option<f64>,
}

/// Reconstructs slabs of slices; made once per scan.
pub struct Reconstructor {}

impl Reconstructor {
    /// Chooses the method, prepares filters and buffers.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] for limits of the device, [`crate::Error::Config`] for a method that does not fit.
    pub fn new(job: SliceJob, device: &Device) -> Result<Self> {
        let _ = (job, device);
        unimplemented!("reconstruct")
    }

    /// Slices `[z, y, x]` of sinograms `[row, angle, col]`; `axis_px` is the rotation axis of each row.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the shapes do not fit the job; [`crate::Error::Gpu`] for a lost device.
    pub fn slab(
        &mut self,
        sinograms: ArrayView3<'_, f32>,
        axis_px: &[f64],
        out: ArrayViewMut3<'_, f32>,
    ) -> Result<()> {
        let _ = (sinograms, axis_px, out);
        unimplemented!("reconstruct")
    }

    /// Host memory that [`Reconstructor::slab`] needs beside its arguments, for a slab of `rows` \[bytes\].
    #[must_use]
    pub fn scratch_bytes(&self, rows: usize) -> u64 {
        let _ = rows;
        0
    }

    /// Method, filter, padding and device, for the record.
    #[must_use]
    pub fn describe(&self) -> String {
        String::new()
    }
}
