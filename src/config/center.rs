//! `[center]`: the rotation axis.

use serde::{Deserialize, Serialize};

use super::rules::Table;
use crate::error::Result;

/// `[center]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CenterConfig {
    /// Which methods are asked.
    pub method: CenterMethod,
    /// The axis by hand \[px\], at the middle row; nothing is searched then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Lean of a given axis \[px per row\].
    pub slope: f64,
    /// Half width of the search around the detector middle \[px\]; 0: a quarter of the width.
    pub search_px: f64,
    /// Heights that are asked, spread over the rows with sample.
    pub heights: usize,
    /// Rows averaged at each height.
    pub rows_per_height: usize,
    /// Largest lean that is believed \[degrees\]; a fit beyond it is taken as level.
    pub max_lean_deg: f64,
    /// Disagreement of the methods that is still accepted \[px\].
    pub tolerance_px: f64,
}

impl Default for CenterConfig {
    fn default() -> Self {
        CenterConfig {
            method: CenterMethod::Auto,
            value: None,
            slope: 0.0,
            search_px: 0.0,
            heights: 7,
            rows_per_height: 1,
            max_lean_deg: 2.0,
            tolerance_px: 2.0,
        }
    }
}

/// How the rotation axis is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum CenterMethod {
    /// All that suit the scan, compared.
    Auto,
    /// Vo 2014, OE 22:19078.
    DoubleWedge,
    /// Projections half a turn apart, one mirrored.
    PhaseCorrelation,
    /// Every view against the one half a turn later; needs more than 180 degrees.
    MirrorMatch,
    /// The sharpest of slices reconstructed with many axes; every view votes. Slow.
    TrialSlices,
}

impl CenterConfig {
    pub(super) fn validate(&self) -> Result<()> {
        let table = Table("center");
        table.within("search_px", self.search_px, 0.0..=1e6)?;
        table.within("heights", self.heights as f64, 1.0..=1000.0)?;
        table.within("rows_per_height", self.rows_per_height as f64, 1.0..=1000.0)?;
        table.within("max_lean_deg", self.max_lean_deg, 0.0..=45.0)?;
        table.positive("tolerance_px", self.tolerance_px)
    }
}
