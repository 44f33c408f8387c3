//! From detector counts to line integrals.

use std::ops::Range;

use ndarray::Array3;
use serde::{Deserialize, Serialize};

use crate::config::CorrectConfig;
use crate::error::Result;
use crate::scan::{Scan, Sinograms};

/// What the corrections touched; adds up over slabs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CorrectionCounts {
    /// Samples corrected in all.
    pub samples: u64,
    /// Detector pixels without signal (flat minus dark below the floor).
    pub bad_pixels: u64,
    /// Samples that were NaN or infinite in the input.
    pub not_finite: u64,
    /// Samples raised to the least transmission.
    pub clipped: u64,
    /// Samples replaced as zingers.
    pub zingers: u64,
    /// Columns taken as large stripes, over all rows.
    pub large_stripes: u64,
    /// Columns taken as dead or fluctuating, over all rows.
    pub dead_stripes: u64,
}

impl std::ops::AddAssign for CorrectionCounts {
    fn add_assign(&mut self, other: Self) {
        self.samples += other.samples;
        self.bad_pixels += other.bad_pixels;
        self.not_finite += other.not_finite;
        self.clipped += other.clipped;
        self.zingers += other.zingers;
        self.large_stripes += other.large_stripes;
        self.dead_stripes += other.dead_stripes;
    }
}

/// A scan with its flats and darks averaged: gives line integrals by rows.
pub struct CorrectedScan {
    scan: Scan,
    config: CorrectConfig,
}

impl CorrectedScan {
    /// Averages the flats and darks of the whole detector (in blocks of rows).
    ///
    /// # Errors
    /// Those of the readers; [`crate::Error::Input`] when there are no flats and `without_flats` is off.
    pub fn new(scan: Scan, config: &CorrectConfig) -> Result<Self> {
        Ok(CorrectedScan { scan, config: config.clone() })
    }

    /// The scan behind it.
    #[must_use]
    pub fn scan(&self) -> &Scan {
        &self.scan
    }

    /// Line integrals of `rows` `[row, angle, col]`, and what was touched.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn slab(&self, rows: Range<usize>) -> Result<(Sinograms, CorrectionCounts)> {
        let _ = (&self.config, rows);
        let _: Option<Array3<f32>> = None;
        unimplemented!("correct")
    }
}
