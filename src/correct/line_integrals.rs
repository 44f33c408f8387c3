//! The corrections on the GPU: what goes up in `counts` and `slab`, where slices stand in `places`; the CPU twins in `twin`, the
//! launches in `kernels`.
//!
//! Counts of 8 or 16 bits, flat and dark fields in any mode, bad pixels, drift of the beam, zingers of sinograms, the series lock, the
//! double flat field, all ways to remove stripes and minus-log run there; what else is chosen keeps a scan on the CPU, and
//! [`off_device`] says why. Integer counts are finite, so a sample has no value only where its pixel is bad or locked out: which
//! columns stand in for it is known before any projection is read.
//!
//! Without stripe removal and broad stripes, angles are corrected block by block. With them, transmission is kept on the
//! GPU for all angles (see `columns`).

mod columns;
mod counts;
mod kernels;
mod places;
mod slab;
mod twin;

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::CorrectionCounts;
use crate::config::{CorrectConfig, PhaseMethod, ZingerDomain};
use crate::error::{Error, Result};
use crate::scan::{PixelType, Scan};

pub use columns::{LOCKED_COLUMNS_SOURCE, LevelledColumn, LockedColumnParams, column_bytes};
pub use kernels::LineIntegrals;
pub use places::{Placement, Step, Taps};
pub use slab::{CountSlab, ZingerRule};
pub use twin::line_integrals_cpu;

/// The shader.
pub const SOURCE: &str = include_str!("../../shaders/line_integrals.wgsl");
/// A detector row without any good column.
const LOST: u32 = u32::MAX;

/// Parameters of all entry points.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct LineIntegralParams {
    /// Detector rows that are corrected in this step.
    pub n_rows: u32,
    /// Detector columns.
    pub n_cols: u32,
    /// First angle in the counts, as a projection of the scan.
    pub first_held: u32,
    /// Angles in the counts.
    pub n_held: u32,
    /// First angle wanted, as a projection of the scan.
    pub first_wanted: u32,
    /// Angles wanted.
    pub n_wanted: u32,
    /// Projections of the scan.
    pub n_angles: u32,
    /// Open beams; 0: counts are transmission already.
    pub n_groups: u32,
    /// Distance of a zinger's neighbours; 0: zingers are left.
    pub zinger_size: u32,
    /// 1 + threshold.
    pub zinger_limit: f32,
    /// Columns that structure moves from one projection to the next, and one; 0: zingers are not guarded.
    pub guard_reach: u32,
    /// 1: narrow gaps are bridged by a cubic.
    pub cubic: u32,
    /// Least transmission.
    pub min_transmission: f32,
    /// First locked pixel of this dispatch.
    pub first_locked: u32,
    /// Samples of the running median.
    pub width: u32,
    /// 0: medians of the deviation, 1: of what the straight line leaves of it.
    pub turn: u32,
    /// Rows before this one were counted in another step.
    pub first_counted: u32,
    /// Slices between rows; 0: rows are slices.
    pub n_slices: u32,
    /// 1: every projection has rows of its own.
    pub moving: u32,
    /// 0: zingers are bright, 1: dark, 2: both.
    pub zinger_kind: u32,
    /// 1 - threshold.
    pub dark_limit: f32,
    /// 1: every projection is scaled by the reading of a monitor.
    pub monitored: u32,
    /// Columns of air at the left: the first.
    pub left_air: u32,
    /// One behind the last; the first where there is none.
    pub left_air_end: u32,
    /// The same at the right.
    pub right_air: u32,
    /// One behind the last.
    pub right_air_end: u32,
    /// 1: lines whose air is not believed are counted in this launch.
    pub counts_lines: u32,
    /// 1: pixels have factors of a double flat field.
    pub has_factors: u32,
    /// Rows before these whose line integrals the step before has left.
    pub n_kept: u32,
}

/// A pixel of which the series lock takes the slow deviation off, or the edge of a broad stripe.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct LockedPixel {
    /// Row within the rows at hand, column, 1 for an edge, and a word that is not used.
    pub at: [u32; 4],
    /// Good neighbours.
    pub columns: [u32; 4],
    /// Weights of the polynomial through them, or of the step between them.
    pub weights: [f32; 4],
}

/// Why the corrections of this scan stay on the CPU; `None`: they run on the GPU.
#[must_use]
pub fn off_device(scan: &Scan, config: &CorrectConfig) -> Option<String> {
    // taken apart, so that a correction that is not on the GPU does not compile before it is named here
    let CorrectConfig {
        average: _,
        flat_in_time: _,
        floor_counts: _,
        min_transmission: _,
        without_flats: _,
        // measured on the CPU over the whole scan, applied on the GPU
        double_flat: _,
        zinger,
        // found on the CPU over the whole series, applied on the GPU
        lock: _,
        spots: _,
        stripe: _,
        beam: _,
        phase,
    } = config;
    let on_cpu =
        |key: &str, method: serde_json::Value| Some(format!("{key} = {method} runs on the CPU"));
    if zinger.enabled && zinger.domain != ZingerDomain::Sinogram {
        return on_cpu("correct.zinger.domain", json!(zinger.domain));
    }
    if phase.method != PhaseMethod::None {
        return on_cpu("correct.phase.method", json!(phase.method));
    }
    let stored = scan.projections.pixel_type();
    if !matches!(stored, PixelType::U8 | PixelType::U16) {
        return Some(format!("counts are stored as {stored:?}, not as u8 or u16"));
    }
    (scan.n_cols() > 65535).then(|| format!("{} columns are more than 65535", scan.n_cols()))
}

/// What the kernels counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Touched {
    /// Samples raised to the least transmission.
    pub clipped: u64,
    /// Samples replaced as zingers.
    pub zingers: u64,
    /// Columns taken as large stripes, over all rows.
    pub large_stripes: u64,
    /// Columns taken as dead or fluctuating, over all rows.
    pub dead_stripes: u64,
    /// Lines left as they are because their air is far from open beam.
    pub beam_left: u64,
}

impl std::ops::AddAssign for Touched {
    fn add_assign(&mut self, other: Self) {
        self.clipped += other.clipped;
        self.zingers += other.zingers;
        self.large_stripes += other.large_stripes;
        self.dead_stripes += other.dead_stripes;
        self.beam_left += other.beam_left;
    }
}

impl std::ops::AddAssign<Touched> for CorrectionCounts {
    fn add_assign(&mut self, touched: Touched) {
        let Touched {
            clipped,
            zingers,
            large_stripes,
            dead_stripes,
            beam_left,
        } = touched;
        self.clipped += clipped;
        self.zingers += zingers;
        self.large_stripes += large_stripes;
        self.dead_stripes += dead_stripes;
        self.beam_left += beam_left;
    }
}

/// How far a line integral of the kernels may be from that of the CPU.
///
/// WGSL lets a division be off by 2.5 units in the last place (both operands are rounded alike on both sides; a fused open beam or
/// interpolation adds two), which -ln turns into an absolute error; the logarithm by 2^-21 near 1 and 3 units elsewhere.
#[must_use]
pub fn tolerance(min_transmission: f32) -> f32 {
    let largest = min_transmission.ln().abs().max(12.0);
    5.0 * f32::EPSILON + 2.0_f32.powi(-21) + 4.0 * f32::EPSILON * largest
}

/// The same on a pixel that the lock corrects, whose neighbours have these weights.
///
/// Its deviation is a sum of line integrals, each within [`tolerance`] and rounded once more; a median is no farther off than the
/// worst of its samples, and the straight line, which is taken off before it and put back behind, is forgotten but for two
/// roundings. An exponential may be off by 3 + 2 |x| units.
#[must_use]
pub fn locked_tolerance(min_transmission: f32, weights: &[f32; 4]) -> f32 {
    let largest = min_transmission.ln().abs().max(12.0);
    let all: f32 = 1.0 + weights.iter().map(|weight| weight.abs()).sum::<f32>();
    let deviation = all * (tolerance(min_transmission) + 4.0 * f32::EPSILON * largest);
    let exponential = (4.0 + 2.0 * all * largest) * f32::EPSILON;
    tolerance(min_transmission) + deviation + 4.0 * f32::EPSILON * all * largest + exponential
}

/// A slab does not fit the job that it is given to, which wants `slices` slices or more of it.
pub(crate) fn check_slab(
    slab: &CountSlab,
    n_angles: usize,
    slices: usize,
    n_cols: usize,
) -> Result<()> {
    let (angles, _, cols) = slab.counts.dim();
    let found = [angles, slab.n_slices(), cols];
    if found[0] == n_angles && found[1] >= slices && found[2] == n_cols {
        return Ok(());
    }
    Err(Error::Shape {
        what: "counts [angle, row, col]".into(),
        expected: vec![n_angles, slices, n_cols],
        found: found.to_vec(),
        hint: "one rotation axis per row, and the columns and projections of the job".into(),
    })
}

#[cfg(test)]
mod tests;
