//! The noise that each scan brings along: half the difference of its even and its odd projections.
//!
//! Even and odd projections of a scan show the same sample with independent noise. A filtered back-projection is linear
//! in the projections, so adding them with alternating signs gives `h = (even - odd) / 2`: the sample cancels, and the noise has the variance that
//! it has in the volume, `(even + odd) / 2`, with the same weights, filter, corrections and interpolation. Of two
//! scans, `h_target / gain - h_reference` is then a sample of the noise of their difference, without any change in it.
//!
//! What does not cancel is structure too fine for half the projections. With N of them over half a turn, structure of
//! frequency f \[1/px\] at a distance R from the axis leaks to a distance r where `2 pi f (R + r) > N`: it widens h
//! where a scan has few projections for its width. That errs to the safe side, and the record states both this noise
//! and that of the unchanged voxels. Not in h: what is common to even and odd projections (rings, drift, misalignment).
//!
//! A sample of slices is enough, a group of adjacent ones every so often.

use std::ops::Range;

use ndarray::Array3;

use super::inputs::Inputs;
use super::region::{Region, sample_groups};
use super::stream::Smoothing;
use crate::config::DifferenceConfig;
use crate::error::Result;
use crate::io::volume::VolumeReader;

/// Adjacent slices that are looked at together.
pub(super) const GROUP_HEIGHT: usize = 4;
/// One group for so many slices ...
const SLICES_PER_GROUP: usize = 24;
/// ... and this many at most, unless a share is asked for.
const MOST_GROUPS: usize = 12;

/// Slices of `(even - odd) / 2` of both scans, on the grid and in the units of their volumes.
pub struct Halves<'a> {
    /// Slices that were sampled, in the order in which both volumes hold them.
    pub groups: Vec<Range<usize>>,
    /// Of the reference, `[sampled slice, y, x]`.
    pub reference: &'a dyn VolumeReader,
    /// Of the target, `[sampled slice, y, x]`.
    pub target: &'a dyn VolumeReader,
}

/// Slices of a volume of `depth` slices of which `(even - odd) / 2` is reconstructed; none where the config does not use it.
#[must_use]
pub fn half_groups(depth: usize, config: &DifferenceConfig) -> Vec<Range<usize>> {
    if config.noise == crate::config::NoiseSource::Voxels {
        return Vec::new();
    }
    let height = GROUP_HEIGHT + 2 * Smoothing::of(config).reach();
    let count = if config.null_share > 0.0 {
        ((config.null_share * depth as f64 / height as f64).ceil() as usize).max(1)
    } else {
        (depth / SLICES_PER_GROUP).clamp(2, MOST_GROUPS)
    };
    if count * height >= depth {
        return std::iter::once(0..depth).collect();
    }
    sample_groups(0..depth, count, height)
}

/// Slices looked at together, and those that their smoothing needs.
pub(super) struct Piece {
    pub(super) core: Range<usize>,
    pub(super) around: Range<usize>,
}

impl Halves<'_> {
    /// The sampled slices of the region, cut into pieces that can be smoothed with what is there.
    pub(super) fn pieces(&self, region: &Region, reach: usize, depth: usize) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for group in &self.groups {
            // beyond the ends of the volume there is nothing in the difference either
            let first = if group.start == 0 {
                0
            } else {
                group.start + reach
            };
            let last = if group.end == depth {
                depth
            } else {
                group.end.saturating_sub(reach)
            };
            let inside = first.max(region.z.start)..last.min(region.z.end);
            for start in inside.clone().step_by(GROUP_HEIGHT) {
                let core = start..(start + GROUP_HEIGHT).min(inside.end);
                pieces.push(Piece {
                    around: core.start.saturating_sub(reach).max(group.start)
                        ..(core.end + reach).min(group.end),
                    core,
                });
            }
        }
        pieces
    }

    /// The noise of the difference in slices `z`, which lie in one group; 0 where one of the two scans is not valid.
    pub(super) fn difference(&self, inputs: &Inputs<'_>, z: &Range<usize>) -> Result<Array3<f32>> {
        let mut first = 0;
        for group in &self.groups {
            if group.contains(&z.start) {
                first += z.start - group.start;
                break;
            }
            first += group.len();
        }
        let stored = first..first + z.len();
        let reference = self.reference.read(stored.clone())?;
        let target = self.target.read(stored)?;
        Ok(inputs.noise(z, reference, target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_a_small_part_of_a_large_volume_and_all_of_a_small_one() {
        let config = DifferenceConfig::default();
        let total = |depth, config: &DifferenceConfig| {
            half_groups(depth, config)
                .iter()
                .map(ExactSizeIterator::len)
                .sum::<usize>()
        };
        assert_eq!(total(3000, &config), 48);
        assert_eq!(total(96, &config), 16);
        assert_eq!(half_groups(7, &config), vec![0..7]);
        let all = DifferenceConfig {
            null_share: 1.0,
            ..config.clone()
        };
        assert_eq!(half_groups(500, &all), vec![0..500]);
        let smoothed = DifferenceConfig {
            smooth_sigma: 1.0,
            ..config.clone()
        };
        assert!(half_groups(3000, &smoothed).iter().all(|g| g.len() == 12));
        let none = DifferenceConfig {
            noise: crate::config::NoiseSource::Voxels,
            ..config
        };
        assert!(half_groups(500, &none).is_empty());
    }
}
