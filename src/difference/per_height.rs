//! `per_height.csv` and the totals, with their errors.
//!
//! The error of the sum over the N voxels of a slice that are beyond the threshold, or around one that is
//! ([`super::grow`]), has these parts:
//!
//! - the noise of the voxels, `c(A) s(z)^2 sum p^2`, with the correlation factor c of patches as large as the grains of the
//!   slice on average ([`super::noise`]);
//! - what unchanged material is off zero by, in every voxel of the sum, over the slice or around its grains, whichever is more: streaks,
//!   drift, faces that are met imperfectly and material whose grey value follows another gain are alike over many voxels, so it is added
//!   up, over the heights too;
//! - what hardly exceeds the threshold anywhere ([`super::grow`]): rings and streaks are added up, over the heights too;
//! - the chance by which voxels at the edge of a grain are counted or not ([`super::measure`]), where the sum is not
//!   grown: at the edge of a grown grain there is nothing to be lost;
//! - what is left of misalignment: edges stand off by u voxels ([`super::edges`]), which moves a profile S(z) along z by as
//!   much: `u |dS/dz|`. It moves change from one slice to the next, so it is not in the totals;
//! - the errors of the matched gain and offset, common to all voxels: in proportion to the sum and to its voxels.
//!
//! Totals add the variances of the slices, times the factor for sums over as many slices as a grain is high. Two things are
//! not in the error bars: grains that stay below the threshold altogether (and, with `difference.grow = 0`, what the
//! blurred rims of the others hold below it), a bias towards smaller sums; and artefacts beyond twice the threshold.

use super::grains::Grain;
use super::mass::MassScale;
use super::match_intensity::Match;
use super::measure::Measured;
use super::noise::Correlation;
use crate::record::PerHeightRow;

/// One slice without its runs.
#[derive(Debug, Clone)]
pub(super) struct Height {
    pub(super) z: usize,
    pub(super) sigma: f64,
    pub(super) threshold: f64,
    pub(super) center: f64,
    /// Mean around the grains.
    pub(super) beside: f64,
    pub(super) voxels: [u64; 2],
    /// Voxels that are in the sums.
    pub(super) summed: [u64; 2],
    pub(super) sums: [f64; 2],
    /// From noise alone.
    pub(super) errs: [f64; 2],
    /// What of the sums may be no change at all.
    pub(super) doubtful: [f64; 2],
    pub(super) measured: u64,
    pub(super) total: f64,
    pub(super) expected: f64,
}

impl Height {
    /// What unchanged material puts into a sum.
    fn offset(&self, side: usize) -> f64 {
        let off = if self.beside.abs() > self.center.abs() {
            self.beside
        } else {
            self.center
        };
        off * self.summed[side] as f64
    }

    /// What adds up over the heights: the offset, and what may be no change.
    fn systematic(&self, side: usize) -> f64 {
        self.offset(side).hypot(self.doubtful[side])
    }

    /// `components`: grains that the slice cuts, of both signs.
    pub(super) fn of(measured: &Measured, components: u64, correlation: &Correlation) -> Height {
        let beyond = measured.sides[0].summed + measured.sides[1].summed;
        let area = beyond as f64 / components.max(1) as f64;
        let factor = correlation.of_area(area);
        let err = |side: usize| {
            let side = &measured.sides[side];
            (factor * measured.sigma.powi(2) * side.squares + side.edge).sqrt()
        };
        Height {
            z: measured.z,
            sigma: measured.sigma,
            threshold: measured.threshold,
            center: measured.spread.center,
            beside: measured.beside,
            voxels: measured.sides.map(|side| side.voxels),
            summed: measured.sides.map(|side| side.summed),
            sums: measured.sides.map(|side| side.sum),
            errs: [err(0), err(1)],
            doubtful: measured.sides.map(|side| side.doubtful),
            measured: measured.voxels,
            total: measured.total,
            expected: measured.expected,
        }
    }
}

/// Error of a sum over `voxels`: that from noise, and those of the grey values that were matched.
fn with_match(noise_err: f64, sum: f64, voxels: u64, matched: &Match) -> f64 {
    noise_err
        .hypot(matched.gain_err * sum)
        .hypot(matched.offset_err * voxels as f64)
}

/// The table, one row per slice of the volume; slices that were not measured have no noise (NaN) and zeros.
///
/// `voxel_um`: edge of a voxel; columns in um are NaN without it. `residue`: what edges stand off by \[voxel\].
pub(super) fn rows(
    depth: usize,
    heights: &[Height],
    grains: &[Grain],
    matched: &Match,
    voxel_um: Option<f64>,
    mass: Option<&MassScale>,
    residue: f64,
) -> Vec<PerHeightRow> {
    let edge = voxel_um.unwrap_or(f64::NAN);
    let volume = edge.powi(3);
    let mut rows: Vec<PerHeightRow> = (0..depth)
        .map(|z| PerHeightRow {
            z,
            height_um: z as f64 * edge,
            increase_um3: 0.0 * volume,
            decrease_um3: 0.0 * volume,
            noise_per_cm: f64::NAN,
            threshold_per_cm: f64::NAN,
            ..PerHeightRow::default()
        })
        .collect();
    for (index, height) in heights.iter().enumerate() {
        let moved = |side: usize| {
            let before = heights[index.saturating_sub(1)].sums[side];
            let after = heights[(index + 1).min(heights.len() - 1)].sums[side];
            residue * (after - before).abs() / 2.0
        };
        let row = &mut rows[height.z];
        row.increase_voxels = height.voxels[0];
        row.decrease_voxels = height.voxels[1];
        row.increase_um3 = height.voxels[0] as f64 * volume;
        row.decrease_um3 = height.voxels[1] as f64 * volume;
        row.increase_sum_per_cm = height.sums[0];
        row.decrease_sum_per_cm = height.sums[1];
        row.net_sum_per_cm = height.sums[0] - height.sums[1];
        row.increase_sum_err = with_match(
            height.errs[0].hypot(moved(0)).hypot(height.systematic(0)),
            height.sums[0],
            height.summed[0],
            matched,
        );
        row.decrease_sum_err = with_match(
            height.errs[1].hypot(moved(1)).hypot(height.systematic(1)),
            height.sums[1],
            height.summed[1],
            matched,
        );
        row.noise_per_cm = height.sigma;
        row.threshold_per_cm = height.threshold;
    }
    let mut grain_voxels = vec![[0u64; 2]; depth];
    for grain in grains {
        let z = (grain.centroid()[0].round() as usize).min(depth - 1);
        let side = usize::from(grain.sign < 0);
        grain_voxels[z][side] += grain.voxels;
        if side == 0 {
            rows[z].increase_grains += 1
        } else {
            rows[z].decrease_grains += 1
        }
    }
    for (row, voxels) in rows.iter_mut().zip(grain_voxels) {
        row.increase_mean_grain_um3 = voxels[0] as f64 * volume / row.increase_grains.max(1) as f64;
        row.decrease_mean_grain_um3 = voxels[1] as f64 * volume / row.decrease_grains.max(1) as f64;
        if let Some(mass) = mass {
            row.increase_ug = Some(mass.ug(row.increase_sum_per_cm));
            row.decrease_ug = Some(mass.ug(row.decrease_sum_per_cm));
            row.net_ug = Some(mass.ug(row.net_sum_per_cm));
            row.net_ug_err = Some(mass.err_ug(
                row.net_sum_per_cm,
                row.increase_sum_err.hypot(row.decrease_sum_err),
            ));
        }
    }
    rows
}

/// Totals over all slices.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) sums: [f64; 2],
    pub(super) errs: [f64; 2],
    pub(super) doubtful: [f64; 2],
    pub(super) all: f64,
    pub(super) all_err: f64,
}

/// Adds the slices up.
pub(super) fn totals(
    heights: &[Height],
    grains: &[Grain],
    correlation: &Correlation,
    matched: &Match,
) -> Totals {
    let voxels: u64 = grains.iter().map(|grain| grain.voxels).sum();
    let extent = |grain: &Grain| f64::from(grain.high[0] - grain.low[0] + 1) * grain.voxels as f64;
    let mean_height = grains.iter().map(extent).sum::<f64>() / voxels.max(1) as f64;
    let along_z = correlation.of_height(mean_height);
    let sum = |side: usize| heights.iter().map(|height| height.sums[side]).sum::<f64>();
    let doubtful = |side: usize| {
        heights
            .iter()
            .map(|height| height.doubtful[side])
            .sum::<f64>()
    };
    let err = |side: usize| {
        let noise = (along_z
            * heights
                .iter()
                .map(|height| height.errs[side].powi(2))
                .sum::<f64>())
        .sqrt();
        let offset: f64 = heights.iter().map(|height| height.offset(side)).sum();
        with_match(
            noise.hypot(offset).hypot(doubtful(side)),
            sum(side),
            heights.iter().map(|height| height.summed[side]).sum(),
            matched,
        )
    };
    // the whole slice is larger than any square on which c was measured: the last one is taken on
    let noise: f64 = heights
        .iter()
        .map(|height| {
            height.sigma.powi(2)
                * height.measured as f64
                * correlation.of_area(height.measured as f64)
        })
        .sum();
    let all = heights.iter().map(|height| height.total).sum();
    let noise = (noise * correlation.of_height(heights.len() as f64)).sqrt();
    Totals {
        sums: [sum(0), sum(1)],
        errs: [err(0), err(1)],
        doubtful: [doubtful(0), doubtful(1)],
        all,
        all_err: with_match(
            noise,
            all,
            heights.iter().map(|height| height.measured).sum(),
            matched,
        ),
    }
}
