//! `[reconstruct]`: from line integrals to slices.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::rules::{Table, parse_range};
use crate::error::{Error, Result};

/// `[reconstruct]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReconstructConfig {
    /// Algorithm.
    pub method: ReconstructMethod,
    /// Window on the ramp.
    pub filter: FilterWindow,
    /// Where the window ends, as a share of the Nyquist frequency, 0 to 1.
    pub cutoff: f64,
    /// Width to which a row is extended, as a multiple of the detector width; a sample wider than that makes it longer.
    pub padding: f64,
    /// How rows of a sample wider than the detector go on.
    pub truncation: Truncation,
    /// Diameter of the sample, where it is wider than the detector and known \[mm\].
    pub sample_diameter_mm: Option<f64>,
    /// Samples per pixel of the filtered row, interpolated in the filter's own FFT: 1, 2 or 4.
    pub upsample: usize,
    /// Detector rows, `A..B` (B not included); empty: all.
    pub rows: String,
    /// Part of the slice, `X0..X1,Y0..Y1` \[px\]; empty: all.
    pub crop: String,
    /// Voxels outside this radius, as a share of half the width, are set to 0; 0: none.
    pub mask_radius: f64,
    /// How wide a slice the scan tells.
    pub acquisition: Acquisition,
    /// Rows and columns of the detector averaged in groups, for previews: the voxel is as many times larger.
    pub binning: usize,
    /// A leaning axis mixes heights; where it does by more than this at the edge of the detector, rows are taken along
    /// the lean \[px\].
    pub level_above: f64,
    /// How back-projection reads its samples on a GPU.
    pub gpu_kernel: GpuKernel,
    /// Where the voxels stand.
    pub grid: GridConfig,
}

impl Default for ReconstructConfig {
    fn default() -> Self {
        ReconstructConfig {
            method: ReconstructMethod::Auto,
            filter: FilterWindow::Ramp,
            cutoff: 1.0,
            padding: 2.0,
            truncation: Truncation::Auto,
            sample_diameter_mm: None,
            upsample: 2,
            rows: String::new(),
            crop: String::new(),
            mask_radius: 1.0,
            acquisition: Acquisition::Auto,
            binning: 1,
            level_above: 1.0,
            gpu_kernel: GpuKernel::Auto,
            grid: GridConfig::default(),
        }
    }
}

/// How rows of a sample wider than the detector go on: see [`crate::reconstruct::support`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Truncation {
    /// As the chord of a disc, whose radius is given or found in the rows; else as [`Truncation::RollOff`]. A later scan goes on as the rows
    /// of its reference: see [`crate::pipeline::beyond`].
    Auto,
    /// The edge values, rolling off over half the width of the detector.
    RollOff,
}

/// How wide a slice a scan tells: see [`crate::reconstruct::acquisition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Acquisition {
    /// Half where a full turn was taken with the axis near the edge of the detector.
    Auto,
    /// As wide as the detector.
    Full,
    /// A full turn that sees each side once: up to twice as wide.
    Half,
}

/// `[reconstruct.grid]`: a point p of the output stands at scale R p + shift in the scan, from the rotation axis and
/// the middle row; R turns x (columns) towards y (rows).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GridConfig {
    /// `[x, y, z]` \[px\]
    pub shift: [f64; 3],
    /// Turn about the rotation axis \[degrees\].
    pub rotation: f64,
    /// Pixels of the scan per voxel.
    pub scale: f64,
}

impl Default for GridConfig {
    fn default() -> Self {
        GridConfig {
            shift: [0.0; 3],
            rotation: 0.0,
            scale: 1.0,
        }
    }
}

/// Reconstruction algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ReconstructMethod {
    /// What is faster for the size at equal accuracy.
    Auto,
    /// Filtered back-projection.
    Fbp,
    /// Gridding (non-uniform FFT).
    Fourier,
}

/// How back-projection reads its samples on a GPU. Which one is fastest differs between GPUs: `benches/gpu.sh` times all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum GpuKernel {
    /// Plain or wide, by the class of the GPU.
    Auto,
    /// Single precision from buffers, four slices at once.
    Plain,
    /// The same with eight slices at once, bit for bit.
    Wide,
    /// Half precision from buffers: each sample is rounded to 2^-12.
    Half,
    /// Single precision from textures that the GPU interpolates, shares in steps of 1/256.
    Texture,
    /// Half precision from textures.
    TextureHalf,
}

/// Window on the ramp filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "the names say it; the formulas stand in reconstruct::filter"
)]
pub enum FilterWindow {
    Ramp,
    SheppLogan,
    Cosine,
    Hamming,
    Hann,
    Parzen,
    Butterworth,
}

impl GridConfig {
    fn validate(&self) -> Result<()> {
        let GridConfig {
            shift,
            rotation,
            scale,
        } = self;
        let rule = |key: &str, value: String, rule: &str| {
            Err(Error::config(
                format!("reconstruct.grid.{key}"),
                value,
                rule,
            ))
        };
        if shift.iter().any(|s| s.is_nan() || s.abs() > 1e5) {
            return rule(
                "shift",
                format!("{shift:?}"),
                "must be three numbers of at most 1e5 px",
            );
        }
        if rotation.is_nan() || rotation.abs() > 360.0 {
            return rule(
                "rotation",
                rotation.to_string(),
                "must lie between -360 and 360 degrees",
            );
        }
        if !(0.9..=1.1).contains(scale) {
            return rule(
                "scale",
                scale.to_string(),
                "must lie between 0.9 and 1.1; for coarser voxels use reconstruct.binning",
            );
        }
        Ok(())
    }
}

impl ReconstructConfig {
    pub(super) fn validate(&self) -> Result<()> {
        let table = Table("reconstruct");
        table.within("cutoff", self.cutoff, 0.01..=1.0)?;
        table.within("padding", self.padding, 1.0..=8.0)?;
        table.one_of("upsample", self.upsample, &[1, 2, 4], "must be 1, 2 or 4")?;
        if let Some(diameter) = self.sample_diameter_mm {
            table.positive("sample_diameter_mm", diameter)?;
            if self.truncation == Truncation::RollOff {
                return Err(Error::config(
                    "reconstruct.sample_diameter_mm",
                    diameter,
                    "is of no use with reconstruct.truncation = \"roll-off\": leave one of the two out",
                ));
            }
        }
        table.within("mask_radius", self.mask_radius, 0.0..=2.0)?;
        table.within("binning", self.binning as f64, 1.0..=64.0)?;
        table.within("level_above", self.level_above, 0.0..=1e9)?;
        self.grid.validate()?;
        self.row_range(usize::MAX)?;
        self.crop_ranges()?;
        Ok(())
    }

    /// Detector rows to reconstruct, cut from `n_rows`.
    ///
    /// # Errors
    /// [`Error::Config`] for anything but `A..B` with `A < B <= n_rows`.
    pub fn row_range(&self, n_rows: usize) -> Result<Range<usize>> {
        if self.rows.trim().is_empty() {
            return Ok(0..n_rows);
        }
        let range = parse_range(&self.rows).ok_or_else(|| {
            Error::config(
                "reconstruct.rows",
                &self.rows,
                "must be A..B, e.g. 100..200, with A below B",
            )
        })?;
        if n_rows != usize::MAX && range.end > n_rows {
            return Err(Error::config(
                "reconstruct.rows",
                &self.rows,
                format!("the scan has {n_rows} detector rows (0..{n_rows})"),
            ));
        }
        Ok(range)
    }

    /// Ranges of x and y to reconstruct.
    ///
    /// # Errors
    /// [`Error::Config`] for anything but `X0..X1,Y0..Y1`.
    pub fn crop_ranges(&self) -> Result<Option<[Range<usize>; 2]>> {
        if self.crop.trim().is_empty() {
            return Ok(None);
        }
        let mut parts = self.crop.split(',').map(parse_range);
        match (parts.next().flatten(), parts.next().flatten(), parts.next()) {
            (Some(x), Some(y), None) => Ok(Some([x, y])),
            _ => Err(Error::config(
                "reconstruct.crop",
                &self.crop,
                "must be X0..X1,Y0..Y1, e.g. 100..900,100..900",
            )),
        }
    }
}
