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
    /// Those of the expected that are in the system's cache of files when they are written: of large volumes only the last.
    pub cached: u64,
}

impl Written {
    fn add(&mut self, [expected, at_most]: [u64; 2], cached: u64) {
        self.expected += expected;
        self.at_most += at_most;
        self.cached += cached;
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
    let mut volume = |depth: usize, slice: [usize; 2], voxel: VoxelType| {
        let shape = [depth, slice[1], slice[0]];
        let stored = volume::stored_bytes(format, shape, voxel, share);
        all.add(stored, volume::cached_bytes(format, shape, stored[0]));
    };
    let mut figures = 0;
    for scan in scans {
        let depth = scan.slices.len();
        volume(depth, scan.slice, VoxelType::F32);
        figures += 2 * SCAN_FIGURES;
        if scans.len() > 1 {
            let halves = half_groups(depth, &config.difference);
            let sampled = halves.iter().map(ExactSizeIterator::len).sum();
            volume(sampled, scan.slice, VoxelType::F32);
        }
    }
    for difference in differences {
        let Some(scan) = scans.iter().find(|scan| scan.name == difference.target) else {
            continue;
        };
        for voxel in [VoxelType::F32, VoxelType::U32] {
            volume(scan.slices.len(), scan.slice, voxel);
        }
        figures += 2 * DIFFERENCE_FIGURES;
    }
    all.add([figures; 2], figures);
    all
}
