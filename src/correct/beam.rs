//! Drift of the beam's intensity during a scan: every line of a sinogram is scaled to what it was in the flats.
//!
//! By a monitor: `T_i := T_i * (flat monitor / monitor_i)`, the flats being scaled group by group; without values for the
//! flats by the mean over the projections, which leaves the mean intensity as it is.
//! By air: every line (one detector row of one projection) is divided by the straight line through the means of the air
//! left and right of the sample, at the middles of the two regions (as TomoPy's `normalize_bg`); with one region by its mean.

use std::ops::Range;

use crate::config::{BeamConfig, BeamDrift};
use crate::error::{Error, Result};
use crate::scan::Scan;

/// Means of air between these are believed; a line with another is left, and counted.
const BELIEVED: Range<f64> = 0.5..2.0;

/// What every line is scaled by.
#[derive(Debug, Clone, PartialEq)]
pub struct Beam {
    /// One factor per projection.
    pub factors: Option<Vec<f32>>,
    /// Columns of air: left and right, or one region; none where only a monitor is asked for.
    pub air: Vec<Range<usize>>,
}

impl Beam {
    /// What the config asks for; `None` for `none`.
    ///
    /// # Errors
    /// [`Error::Config`] for air beyond the detector; [`Error::Input`] without monitor values where they are asked for.
    ///
    /// `by_flats`: the open beams are in one unit of the monitor (see [`monitor_of_flats`]).
    pub(super) fn from_config(
        config: &BeamConfig,
        scan: &Scan,
        by_flats: bool,
    ) -> Result<Option<Beam>> {
        let BeamConfig {
            drift,
            air: _,
            air_columns,
        } = config;
        if *drift == BeamDrift::None {
            return Ok(None);
        }
        let (by_monitor, by_air) = match drift {
            BeamDrift::None => (false, false),
            BeamDrift::Air => (false, true),
            BeamDrift::Monitor => (true, false),
            BeamDrift::Both => (true, true),
        };
        let n_cols = scan.n_cols();
        let mut air = Vec::new();
        if by_air {
            air = config.air_ranges()?;
            if air.is_empty() {
                let width = (*air_columns).min(n_cols / 2).max(1);
                air = vec![0..width, n_cols.saturating_sub(width)..n_cols];
            }
            if air.iter().any(|range| range.end > n_cols) {
                return Err(Error::config(
                    "correct.beam.air",
                    &config.air,
                    format!("the detector has columns 0..{n_cols}"),
                ));
            }
        }
        let factors = by_monitor
            .then(|| monitor_factors(scan, by_flats))
            .transpose()?;
        Ok(Some(Beam { factors, air }))
    }

    /// Scales all lines of a sinogram `[angle, col]`; returns how many were left because their air is not believed.
    pub(super) fn apply(&self, sinogram: &mut [f32], n_cols: usize) -> u64 {
        let lines = sinogram.chunks_exact_mut(n_cols.max(1));
        lines
            .enumerate()
            .map(|(angle, line)| u64::from(!self.line(angle, line)))
            .sum()
    }

    /// Scales one line, `[col]`; false where its air is not believed.
    pub(super) fn line(&self, angle: usize, line: &mut [f32]) -> bool {
        if let Some(factors) = &self.factors {
            line.iter_mut().for_each(|value| *value *= factors[angle]);
        }
        let mean = |range: &Range<usize>| {
            let sum: f64 = line[range.clone()].iter().map(|&v| f64::from(v)).sum();
            sum / range.len() as f64
        };
        let means: Vec<f64> = self.air.iter().map(mean).collect();
        if !means.iter().all(|mean| BELIEVED.contains(mean)) {
            return false;
        }
        match (&self.air[..], &means[..]) {
            ([left, right], [a, b]) => {
                let (from, to) = (middle(left), middle(right));
                let slope = (b - a) / (to - from);
                for (col, value) in line.iter_mut().enumerate() {
                    *value = (f64::from(*value) / (a + slope * (col as f64 - from))) as f32;
                }
            }
            (_, [mean]) => {
                let factor = (1.0 / mean) as f32;
                line.iter_mut().for_each(|value| *value *= factor);
            }
            _ => {}
        }
        true
    }

    /// How far a line that is scaled in f32 may be from one that is scaled in f64, as a share of its samples.
    ///
    /// A mean of n samples is a sum of n / 256 of them, eight levels of a tree and a quotient; the line through two means is off by no
    /// more than its steepest part makes of that; scaling takes two quotients more, of 2.5 units each on a GPU.
    #[must_use]
    pub fn tolerance(&self, n_cols: usize) -> f32 {
        let widest = self.air.iter().map(ExactSizeIterator::len).max();
        let mean = (widest.unwrap_or(0) / 256 + 8) as f32;
        let beyond = match &self.air[..] {
            [left, right] => {
                let (from, to) = (middle(left), middle(right));
                let share = |col: f64| ((col - from) / (to - from)).abs();
                let ends = [0.0, n_cols as f64].map(|col| share(col) + (1.0 - share(col)).abs());
                ends[0].max(ends[1]) as f32
            }
            _ => 1.0,
        };
        (mean * beyond + 8.0) * f32::EPSILON
    }
}

/// The middle of columns of air.
pub(super) fn middle(range: &Range<usize>) -> f64 {
    0.5 * (range.start + range.end - 1) as f64
}

/// Factor of each projection.
fn monitor_factors(scan: &Scan, by_flats: bool) -> Result<Vec<f32>> {
    let Some(monitor) = &scan.monitor else {
        return Err(Error::input(
            &scan.path,
            "correct.beam.drift asks for a monitor, and the scan has none",
            "name its values with input.monitor (dataset or text file, one per projection or frame)",
        ));
    };
    let values = monitor.flats.iter().flatten().chain(&monitor.projections);
    if let Some((index, value)) = values
        .enumerate()
        .find(|(_, v)| !(v.is_finite() && **v > 0.0))
    {
        return Err(Error::input(
            &scan.path,
            format!(
                "value {index} of the beam monitor {} is {value}",
                monitor.source
            ),
            "give values above 0, leave these projections out with input.exclude, or set correct.beam.drift = \"air\"",
        ));
    }
    let n = monitor.projections.len().max(1) as f64;
    let unit = if by_flats {
        1.0
    } else {
        monitor.projections.iter().sum::<f64>() / n
    };
    let factor = |value: &f64| (unit / value) as f32;
    Ok(monitor.projections.iter().map(factor).collect())
}

/// Readings of the monitor at the groups of flats, where the config uses them and the scan has them.
pub(super) fn monitor_of_flats<'a>(config: &BeamConfig, scan: &'a Scan) -> Option<&'a [f64]> {
    let asked = matches!(config.drift, BeamDrift::Monitor | BeamDrift::Both);
    scan.monitor
        .as_ref()
        .filter(|_| asked)
        .and_then(|monitor| monitor.flats.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn air(ranges: &[(usize, usize)]) -> Beam {
        Beam {
            factors: None,
            air: ranges.iter().map(|&(from, to)| from..to).collect(),
        }
    }

    #[test]
    fn a_tilted_and_drifting_beam_is_levelled_by_its_air() {
        let (n_angles, n_cols) = (30, 64);
        let clean = |angle: usize, col: usize| match col {
            16..48 => 0.3 + 0.1 * (0.2 * (angle + col) as f64).sin(),
            _ => 1.0,
        };
        let beam = |angle: usize, col: usize| 1.0 - 0.01 * angle as f64 + 0.002 * col as f64;
        let mut sinogram: Vec<f32> = (0..n_angles * n_cols)
            .map(|i| (clean(i / n_cols, i % n_cols) * beam(i / n_cols, i % n_cols)) as f32)
            .collect();
        let worst = |sinogram: &[f32]| {
            let errors = sinogram.iter().enumerate();
            errors
                .map(|(i, &v)| (f64::from(v) - clean(i / n_cols, i % n_cols)).abs())
                .fold(0.0, f64::max)
        };
        assert!(worst(&sinogram) > 0.2, "the check is blind");
        assert_eq!(air(&[(0, 10), (54, 64)]).apply(&mut sinogram, n_cols), 0);
        assert!(worst(&sinogram) < 1e-6, "{}", worst(&sinogram));
    }

    #[test]
    fn a_line_whose_air_holds_sample_is_left_and_counted() {
        let mut sinogram = vec![0.2, 0.2, 0.9, 0.9, 0.8, 0.8, 0.5, 0.8];
        assert_eq!(air(&[(0, 2)]).apply(&mut sinogram, 4), 1);
        assert_eq!(sinogram[..4], [0.2, 0.2, 0.9, 0.9]);
        assert!((sinogram[6] - 0.625).abs() < 1e-6 && (sinogram[4] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_monitor_scales_every_projection() {
        let beam = Beam {
            factors: Some(vec![2.0, 0.5]),
            air: Vec::new(),
        };
        let mut sinogram = vec![0.25, 0.5, 1.0, 2.0];
        assert_eq!(beam.apply(&mut sinogram, 2), 0);
        assert_eq!(sinogram, [0.5, 1.0, 0.5, 1.0]);
    }
}
