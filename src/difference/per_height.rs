//! `per_height.csv` and the totals, with their errors.
//!
//! The error of the sum over N voxels, those of grains and around them ([`super::grow`]), has these parts ([`SumErrorParts`]), which are independent of one
//! another; each is given by itself in the table and in the record:
//!
//! - **noise** of the projections: `c(A) s(z)^2 sum p^2`, with the correlation factor c of patches as large as the grains of the
//!   slice on average, from even against odd projections ([`super::noise`]); where the sum is not grown also the chance by which voxels at the
//!   edge of a grain are counted or not ([`super::measure`]);
//! - **structure** of unchanged material: what its sums over patches of that size scatter by beyond the noise (rings, streaks, too few angles),
//!   and what it is off zero by, over the slice or around its grains, whichever is more: drift, faces that are met imperfectly and material whose
//!   grey value follows another gain are alike over many voxels, so that is added up over the voxels and over the heights too;
//! - **doubtful** change: what hardly exceeds the threshold anywhere ([`super::grow`]), as far as it may be none. Pieces of rings and streaks come
//!   as increase and as decrease alike, so of what is doubtful on one side no more is taken for them than is doubtful on the other, its scatter by
//!   whole grains, and one grain ([`doubtful_shares`]); added up, over the heights too;
//! - **alignment**: unchanged edges in the sum stand off by u voxels ([`super::edges`]), `c(A) sum (u gradient)^2`; and along z the profile S(z) of the change
//!   itself moves by as much, or by what the alignment does not know of z: `u |dS/dz|`. The latter moves change from one slice to the next, so it is not in the totals;
//! - **match** of the grey values: gain and offset, common to all voxels: in proportion to the sum and to its voxels;
//! - what is **missed**: change away from grains that stands out in patches while its voxels stay below the threshold ([`super::below`]). By so much the sum is too small
//!   at least, unless it is drift; it adds up over the heights.
//!
//! Totals add the variances of noise, structure and alignment over the slices, times the factor for sums over as many slices as a grain is high.
//! Two things are not in the error bars: grains that do not stand out in patches either (and, with `difference.grow = 0`, what the
//! blurred rims of the others hold below it), a bias towards smaller sums; and artefacts beyond twice the threshold.

use super::grains::Grain;
use super::mass::MassScale;
use super::match_intensity::Match;
use super::measure::Measured;
use super::noise::NoiseModel;
use crate::record::{PerHeightRow, SumErrorParts};

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
    /// Variances of the sums: noise of the projections, what unchanged material scatters by beyond it, residue of edges.
    pub(super) variances: [[f64; 3]; 2],
    /// What of the sums may be no change at all.
    pub(super) doubtful: [f64; 2],
    /// Change in patches that stand out, in no sum.
    pub(super) missed: [f64; 2],
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

    /// `components`: what the slice cuts that hangs together, of both signs, where grains are not known by themselves.
    pub(super) fn of(measured: &Measured, components: u64, model: &NoiseModel) -> Height {
        let beyond = measured.sides[0].summed + measured.sides[1].summed;
        let grains = measured.components.unwrap_or(components);
        let area = beyond as f64 / grains.max(1) as f64;
        let [all, noise] = model.variance_of_sums(area, 1.0);
        let square = measured.sigma.powi(2);
        Height {
            z: measured.z,
            sigma: measured.sigma,
            threshold: measured.threshold,
            center: measured.spread.center,
            beside: measured.beside,
            voxels: measured.sides.map(|side| side.voxels),
            summed: measured.sides.map(|side| side.summed),
            sums: measured.sides.map(|side| side.sum),
            variances: measured.sides.map(|side| {
                [
                    noise * square * side.squares + side.edge,
                    (all - noise) * square * side.squares,
                    all * side.edges,
                ]
            }),
            doubtful: measured.sides.map(|side| side.doubtful),
            missed: [0.0; 2],
            measured: measured.voxels,
            total: measured.total,
            expected: measured.expected,
        }
    }

    /// The parts of the error of a sum; `moved`: what a shift along z moves into the slice or out of it, `doubt`: share of what is doubtful
    /// that may be no change.
    fn parts(&self, side: usize, moved: f64, doubt: f64, matched: &Match) -> SumErrorParts {
        let [noise, structure, edges] = self.variances[side].map(f64::sqrt);
        SumErrorParts {
            noise,
            structure: structure.hypot(self.offset(side)),
            doubtful: doubt * self.doubtful[side].abs(),
            alignment: edges.hypot(moved),
            matching: matching(self.sums[side], self.summed[side], matched),
            missed: self.missed[side],
        }
    }
}

/// Share of the doubtful sums of increase and decrease that may be no change at all.
fn doubtful_shares(heights: &[Height], grains: &[Grain]) -> [f64; 2] {
    let add = |of: &dyn Fn(&Height) -> f64| heights.iter().map(of).sum::<f64>().abs();
    let doubtful = [0, 1].map(|side| add(&|height| height.doubtful[side]));
    [0, 1].map(|side| {
        let own = grains
            .iter()
            .filter(|grain| usize::from(grain.sign < 0) == side);
        let mean = add(&|height| height.sums[side]) / own.count().max(1) as f64;
        doubtful_share(doubtful[side], doubtful[1 - side], mean)
    })
}

/// Share of a doubtful sum D that may be artefacts, which come on both sides alike, where the other side holds E, by grains of mean sum g:
/// `(E + sqrt(E g) + g) / D`, at most 1.
fn doubtful_share(own: f64, other: f64, grain: f64) -> f64 {
    let most = other + (other * grain).sqrt() + grain;
    if own > most { most / own } else { 1.0 }
}

/// Error by the grey values that were matched of a sum over `voxels`.
fn matching(sum: f64, voxels: u64, matched: &Match) -> f64 {
    (matched.gain_err * sum).hypot(matched.offset_err * voxels as f64)
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
    let doubt = doubtful_shares(heights, grains);
    for (index, height) in heights.iter().enumerate() {
        let moved = |side: usize| {
            let before = heights[index.saturating_sub(1)].sums[side];
            let after = heights[(index + 1).min(heights.len() - 1)].sums[side];
            residue * (after - before).abs() / 2.0
        };
        let parts = [0, 1].map(|side| height.parts(side, moved(side), doubt[side], matched));
        let row = &mut rows[height.z];
        row.increase_voxels = height.voxels[0];
        row.decrease_voxels = height.voxels[1];
        row.increase_um3 = height.voxels[0] as f64 * volume;
        row.decrease_um3 = height.voxels[1] as f64 * volume;
        row.increase_sum_per_cm = height.sums[0];
        row.decrease_sum_per_cm = height.sums[1];
        row.net_sum_per_cm = height.sums[0] - height.sums[1];
        row.increase_sum_err = parts[0].combined();
        row.decrease_sum_err = parts[1].combined();
        row.set_parts(&parts);
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
    pub(super) errs: [SumErrorParts; 2],
    pub(super) doubtful: [f64; 2],
    pub(super) all: f64,
    pub(super) all_err: f64,
}

/// Adds the slices up.
pub(super) fn totals(
    heights: &[Height],
    grains: &[Grain],
    model: &NoiseModel,
    matched: &Match,
) -> Totals {
    let voxels: u64 = grains.iter().map(|grain| grain.voxels).sum();
    let extent = |grain: &Grain| f64::from(grain.high[0] - grain.low[0] + 1) * grain.voxels as f64;
    let mean_height = grains.iter().map(extent).sum::<f64>() / voxels.max(1) as f64;
    let along_z = model.along_z(mean_height);
    let add = |of: &dyn Fn(&Height) -> f64| heights.iter().map(of).sum::<f64>();
    let sum = |side: usize| add(&|height| height.sums[side]);
    let doubtful = |side: usize| add(&|height| height.doubtful[side]);
    let doubt = doubtful_shares(heights, grains);
    let errs = |side: usize| {
        let variance = |part: usize| add(&|height| height.variances[side][part]);
        let noise = along_z[1] * variance(0);
        let all = along_z[0] * (variance(0) + variance(1));
        let offset = add(&|height| height.offset(side));
        SumErrorParts {
            noise: noise.sqrt(),
            structure: (all - noise).max(0.0).sqrt().hypot(offset),
            doubtful: doubt[side] * doubtful(side).abs(),
            alignment: (along_z[0] * variance(2)).sqrt(),
            matching: matching(
                sum(side),
                heights.iter().map(|height| height.summed[side]).sum(),
                matched,
            ),
            missed: add(&|height| height.missed[side]),
        }
    };
    // the whole slice is larger than any square on which c was measured: the last one is taken on
    let noise = add(&|height| {
        let area = height.measured as f64;
        height.sigma.powi(2) * area * model.variance_of_sums(area, heights.len() as f64)[0]
    });
    let all = add(&|height| height.total);
    let measured = heights.iter().map(|height| height.measured).sum();
    Totals {
        sums: [sum(0), sum(1)],
        errs: [errs(0), errs(1)],
        doubtful: [doubtful(0), doubtful(1)],
        all,
        all_err: noise.sqrt().hypot(matching(all, measured, matched)),
    }
}

#[cfg(test)]
mod tests {
    use super::doubtful_share;

    #[test]
    fn what_has_no_counterpart_is_doubted_by_one_grain() {
        // twenty faint grains on one side only: one of them may be none
        assert_eq!(doubtful_share(20.0, 0.0, 1.0), 1.0 / 20.0);
        // sixteen of a hundred have a counterpart, within the scatter of a count of sixteen
        assert_eq!(doubtful_share(100.0, 16.0, 1.0), (16.0 + 4.0 + 1.0) / 100.0);
        // rings: as much on either side
        assert_eq!(doubtful_share(20.0, 19.0, 1.0), 1.0);
        assert_eq!(doubtful_share(1.0, 0.0, 3.0), 1.0);
        assert_eq!(doubtful_share(0.0, 5.0, 1.0), 1.0);
    }
}
