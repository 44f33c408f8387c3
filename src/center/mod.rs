//! The rotation axis of a scan.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::CenterConfig;
use crate::error::Result;
use crate::progress::Progress;
use crate::scan::SinogramSource;

/// The rotation axis as a line over height: column `axis_px + slope * (row - middle_row)`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AxisFit {
    /// Column at `middle_row` \[px\], 0-based, integer = pixel centre.
    pub axis_px: f64,
    /// Lean \[px per row\].
    pub slope_px_per_row: f64,
    /// One standard deviation of `axis_px` \[px\].
    pub uncertainty_px: f64,
    /// Row at which `axis_px` holds.
    pub middle_row: f64,
    /// Each method's answers.
    pub methods: BTreeMap<String, MethodAnswers>,
    /// Whether the methods agree within the tolerance.
    pub agree: bool,
    /// How the line was chosen, and what a person should know.
    pub notes: Vec<String>,
}

/// The answers of one method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MethodAnswers {
    /// Heights asked.
    pub rows: Vec<f64>,
    /// Answer at each height \[px\].
    pub axis_px: Vec<f64>,
}

impl AxisFit {
    /// Column of the axis at detector row `row` \[px\].
    #[must_use]
    pub fn at(&self, row: f64) -> f64 {
        self.axis_px + self.slope_px_per_row * (row - self.middle_row)
    }
}

/// Finds the axis, or takes the one given in `config`. The result says whether the methods agree; the caller decides.
///
/// # Errors
/// Those of the source; [`crate::Error::Input`] when no height gives an answer.
pub fn find(source: &dyn SinogramSource, config: &CenterConfig, progress: &Progress) -> Result<AxisFit> {
    let _ = (source, config, progress);
    unimplemented!("center")
}
