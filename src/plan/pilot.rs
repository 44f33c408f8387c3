//! Pilots of an alignment: how coarse, and whether two of them fit.

use std::ops::Range;

use super::slab::SlabOf;
use super::{BASE_BYTES, PROGRAM_BYTES, binned_rows, human_bytes};
use crate::config::ReconstructMethod;
use crate::error::{Error, Result};

/// Largest pilot volume \[voxels\]: enough for an alignment to a hundredth of its voxel, and little enough for 512 MiB.
/// It does not follow `--memory`, or the shift found would depend on the machine.
const PILOT_VOXELS: usize = 11_000_000;

/// Voxels of the volume per voxel of its pilot.
#[must_use]
pub fn pilot_binning(shape: [usize; 3]) -> usize {
    (1..64)
        .find(|b| shape.iter().map(|n| n / b).product::<usize>() <= PILOT_VOXELS)
        .unwrap_or(64)
}

/// Voxels of the pilot of a volume of `shape`.
pub(super) fn pilot_voxels(shape: [usize; 3]) -> u64 {
    let b = pilot_binning(shape);
    shape.iter().map(|n| (n / b) as u64).product()
}

/// Memory that an alignment of volumes of `shape` likely takes \[bytes\].
pub(super) fn likely_bytes(shape: [usize; 3]) -> u64 {
    PROGRAM_BYTES + crate::align::likely_bytes(pilot_voxels(shape))
}

fn align_bytes(shape: [usize; 3]) -> u64 {
    crate::align::fixed_bytes() + crate::align::bytes_per_pilot_voxel() * pilot_voxels(shape)
}

/// Refuses an alignment of volumes of `shape` whose pilots do not fit under `cap`.
///
/// # Errors
/// [`Error::Memory`].
pub fn check_pilots(shape: [usize; 3], cap: u64, what: &str) -> Result<()> {
    let needed = BASE_BYTES + align_bytes(shape);
    if needed <= cap {
        return Ok(());
    }
    Err(Error::Memory {
        what: what.to_string(),
        needed: human_bytes(needed),
        cap: human_bytes(cap),
    })
}

/// Slices at a time of a pilot binned by `binning`, which is reconstructed while two pilots of `voxels` are held.
pub(super) fn pilot_slab_of(
    scan: &SlabOf<'_>,
    rows: &Range<usize>,
    binning: usize,
    voxels: u64,
    cap: u64,
    name: &str,
) -> Result<usize> {
    let mut config = scan.config.clone();
    config.reconstruct.binning *= binning;
    config.reconstruct.method = ReconstructMethod::Fbp;
    let slices = binned_rows(rows, config.reconstruct.binning)?.len();
    let pilot = SlabOf {
        config: &config,
        ..*scan
    };
    let cap = cap.saturating_sub(2 * 4 * voxels);
    Ok(pilot.slab(slices, cap, &format!("aligning {name}"))?.0.rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pilot_fits_its_share() {
        assert_eq!(pilot_binning([160, 256, 256]), 1);
        for shape in [[3000, 3077, 3077], [160, 256, 257], [7, 9000, 9000]] {
            assert!(pilot_voxels(shape) <= PILOT_VOXELS as u64);
            check_pilots(shape, 512 << 20, "x").unwrap();
            assert!(
                check_pilots(shape, 256 << 20, "x").is_err(),
                "refused, not made coarser"
            );
        }
        assert_eq!(pilot_binning([3000, 3077, 3077]), 14);
    }
}
