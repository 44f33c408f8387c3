//! `[align]`: onto the grid of the reference.

use serde::{Deserialize, Serialize};

use super::rules::Table;
use crate::error::Result;

/// `[align]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlignConfig {
    /// What is searched.
    pub method: AlignMethod,
    /// The shift by hand \[voxel\], `[x, y, z]`; nothing is searched then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<[f64; 3]>,
    /// The rotation by hand \[degrees\], `[rx, ry, rz]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<[f64; 3]>,
    /// Largest shift that is searched, as a share of each side of the volume.
    pub search: f64,
    /// Largest tilt about x and y that `rigid` looks for \[degrees\]; memory is kept for it. 0: none.
    pub max_tilt_deg: f64,
    /// Whether the axis of a scan is put where the projections of its reference say, against the one that its own gave.
    pub match_axis: bool,
    /// Below this confidence (0 to 1) the run warns.
    pub min_confidence: f64,
}

impl Default for AlignConfig {
    fn default() -> Self {
        AlignConfig {
            method: AlignMethod::Translation,
            shift: None,
            rotation: None,
            search: 0.25,
            max_tilt_deg: 0.5,
            match_axis: true,
            min_confidence: 0.5,
        }
    }
}

impl AlignConfig {
    pub(super) fn validate(&self) -> Result<()> {
        let table = Table("align");
        table.within("search", self.search, 0.01..=0.5)?;
        table.within("min_confidence", self.min_confidence, 0.0..=1.0)?;
        table.within("max_tilt_deg", self.max_tilt_deg, 0.0..=5.0)?;
        if let Some([rx, ry, rz]) = self.rotation {
            table.within("rotation", rx.hypot(ry), 0.0..=5.0)?;
            table.within("rotation", rz, -360.0..=360.0)?;
        }
        Ok(())
    }

    /// Whether pilots are compared; else the motion is given or none.
    #[must_use]
    pub fn searches(&self) -> bool {
        self.method != AlignMethod::None && self.shift.is_none() && self.rotation.is_none()
    }
}

/// What the alignment searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AlignMethod {
    /// Three shifts.
    Translation,
    /// Three shifts and the turn about the rotation axis.
    Rigid,
    /// Nothing: the scans are on one grid already.
    None,
}
