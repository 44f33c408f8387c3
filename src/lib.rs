//! From raw synchrotron micro-CT scans to measured change.
//!
//! tomodelta corrects parallel-beam scans, reconstructs them on the GPU (WGSL through wgpu) or the CPU, puts each scan
//! of a series on the grid of its reference, subtracts voxel by voxel, and measures where attenuation (and with it mass)
//! came and went. The binary of the same name is a thin layer over this library.
//!
//! ```text
//! counts [angle, row, col]        scan, io
//!   -> sinograms [row, angle, col]  correct     line integrals
//!   -> rotation axis                center      a line over height
//!   -> motion                       align       target against reference, from pilot volumes
//!   -> slices [z, y, x]             reconstruct attenuation, on the grid of the reference
//!   -> change, grains, tables       difference
//!   -> figures, report.html         report
//! ```
//! [`pipeline::run_series`] holds these stages in order; start reading there.
//!
//! # Conventions
//!
//! | what | convention |
//! |---|---|
//! | array order | slowest first, written in brackets: `[z, y, x]`, `[row, angle, col]` |
//! | pixel centre | integer: pixel 0 covers -0.5 to 0.5 |
//! | rotation axis | column of the detector, 0-based \[px\]; may lean: a line over the detector rows |
//! | roll | an axis that leans by a slope is a detector rolled by its arc tangent: a ray t pixels right of the axis meets the slice slope * t rows higher up |
//! | slice | W x W for a detector W wide (more for half acquisition, fewer for binned rows); the axis stands at `(W - 1) / 2` in x and y |
//! | movement | `x_px`, `z_px` of a projection: the sample is seen that much further right and down, see [`scan::Shifts`] |
//! | directions | x to the right along columns, y down along rows, z along detector rows; slice z is detector row z |
//! | angle | radians inside, degrees at the edges; the ray of detector coordinate t (pixels right of the axis) holds the points with `x cos(theta) - y sin(theta) = t`, y down |
//! | line integral | `-ln((projection - dark) / (flat - dark))`, no unit |
//! | attenuation | 1/cm where the pixel size is known, else 1/px; every file says which |
//! | filter | ramp of unit slope in cycles per pixel, from its band-limited kernel; an FBP of exact line integrals gives the attenuation without a factor to fit |
//! | FFT | unnormalised forward, 1/n backward |
//! | weights of the angles | each projection stands for its arc, see [`reconstruct::geometry::arc_weights`] |
//! | edges | rows are extended by their edge values before the filter; rays off the extended row add 0 |
//! | motion | a point p of the reference, from the middle of the volume, stands at R p + shift in the target; the turn about z is positive from x towards y |
//! | NaN | not finite samples are interpolated and counted by the corrections; slices beyond the detector are NaN in a volume and left out of every measurement |
//! | bit stability | results do not depend on slab height or thread count |
//!
//! # Features
//!
//! `hdf5-c` reads HDF5 through the C library too, for compression plugins that the default reader lacks.
#![warn(clippy::print_stdout)]

pub mod align;
pub mod allocator;
pub mod center;
pub mod config;
pub mod correct;
pub mod difference;
pub mod error;
pub mod gpu;
pub mod io;
pub mod phantom;
pub mod pipeline;
pub mod plan;
pub mod progress;
pub mod reconstruct;
pub mod record;
pub mod report;
pub mod scan;
pub mod simulate;
mod stats;
pub mod stop;
mod threads;
pub mod trace;

pub use config::Config;
pub use error::{Error, Result};
