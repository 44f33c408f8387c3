//! What a run leaves on the disk.

use serde::Serialize;

use super::{DifferencePlan, ScanPlan};
use crate::config::{Config, ReconstructConfig};
use crate::difference::half_groups;
use crate::io::volume::{self, VoxelType};

/// Figures and tables of a scan ...
const SCAN_FIGURES: u64 = 90 << 10;
/// ... and of a difference \[bytes\]; the report holds them once more.
const DIFFERENCE_FIGURES: u64 = 1 << 20;

/// Bytes on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Compressed as volumes of noise usually are.
    pub expected: u64,
    /// If nothing can be compressed.
    pub at_most: u64,
}

impl Written {
    fn add(&mut self, [expected, at_most]: [u64; 2]) {
        self.expected += expected;
        self.at_most += at_most;
    }
}

/// Share of the voxels of a square slice that the mask leaves: the others are 0.
#[must_use]
pub fn share_inside(config: &ReconstructConfig) -> f64 {
    let mask = config.mask_radius;
    if mask > 0.0 && config.crop.is_empty() {
        (std::f64::consts::FRAC_PI_4 * mask * mask).min(1.0)
    } else {
        1.0
    }
}

/// What all volumes, figures and records of a run take.
pub(super) fn written(
    config: &Config,
    scans: &[ScanPlan],
    differences: &[DifferencePlan],
) -> Written {
    let mut all = Written::default();
    let share = share_inside(&config.reconstruct);
    let format = config.run.format;
    let of = |depth: usize, slice: [usize; 2], voxel: VoxelType| {
        volume::stored_bytes(format, [depth, slice[1], slice[0]], voxel, share)
    };
    for scan in scans {
        let depth = scan.slices.len();
        all.add(of(depth, scan.slice, VoxelType::F32));
        all.add([2 * SCAN_FIGURES; 2]);
        if scans.len() > 1 {
            let halves = half_groups(depth, &config.difference);
            let sampled = halves.iter().map(ExactSizeIterator::len).sum();
            all.add(of(sampled, scan.slice, VoxelType::F32));
        }
    }
    for difference in differences {
        let Some(scan) = scans.iter().find(|scan| scan.name == difference.target) else {
            continue;
        };
        all.add(of(scan.slices.len(), scan.slice, VoxelType::F32));
        all.add(of(scan.slices.len(), scan.slice, VoxelType::U32));
        all.add([2 * DIFFERENCE_FIGURES; 2]);
    }
    all
}
