//! How the work is cut for a GPU.

use crate::gpu::AdapterKind;
use crate::reconstruct::Grid;
use crate::reconstruct::backproject::{MAX_RAYS, TILE};
use crate::reconstruct::filter::FilterPlan;
use crate::reconstruct::fourier_grid::grid_length;
use crate::reconstruct::ramp_filter::{LOCAL, RampFilterParams};

/// Buffers of a block take at most this \[bytes\], so that they fit beside the slices on a small GPU.
pub(super) const BLOCK_BYTES: u64 = 256 << 20;
/// The same where the memory of the GPU is that of the host.
const SHARED_BLOCK_BYTES: u64 = 96 << 20;
/// Packs of four slices are joined until a dispatch covers about this many voxels of one slice.
const VOXELS_PER_DISPATCH: usize = 1 << 22;

/// How the work is cut for this GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Packs of four slices at once.
    pub(super) packs: usize,
    /// Angles of a block; even where there are several blocks, so that the same two angles share a transform in any cut.
    pub(super) angles: usize,
    /// Slice rows of a band: one buffer of slices holds no more. Whole tiles.
    pub(super) band_rows: usize,
    /// Voxel updates of a dispatch at most, so that it ends well within a second.
    pub(super) updates: u64,
}

impl Cut {
    /// From the limits of the GPU: `bytes` is the largest buffer that a kernel may see.
    pub(super) fn new(
        plan: &FilterPlan,
        grid: &Grid,
        n_angles: usize,
        kind: AdapterKind,
        max_bytes: u64,
    ) -> Cut {
        let block_bytes = if shares_memory(kind) {
            SHARED_BLOCK_BYTES
        } else {
            BLOCK_BYTES
        };
        let fits = |packs: usize, angles: usize| {
            let (largest, all) = RampFilterParams::new(plan, packs, angles, LOCAL)
                .lens()
                .bytes();
            largest <= max_bytes && all <= block_bytes
        };
        let row_bytes = 16 * grid.n_x as u64;
        Cut::fitting(
            grid,
            n_angles.min(MAX_RAYS),
            kind,
            max_bytes,
            row_bytes,
            fits,
        )
    }

    /// The same for the Fourier method: spectra of all angles are kept, and the launches for each block are many, so blocks are
    /// as long as fits.
    pub(super) fn fourier(
        plan: &FilterPlan,
        grid: &Grid,
        n_angles: usize,
        kind: AdapterKind,
        max_bytes: u64,
    ) -> Cut {
        let block_bytes = if shares_memory(kind) {
            SHARED_BLOCK_BYTES
        } else {
            2 * BLOCK_BYTES
        };
        let n_k = plan.n_fft as u64 / 2 + 1;
        let fits = |packs: usize, angles: usize| {
            let lens = RampFilterParams::new(plan, packs, angles, LOCAL).lens();
            let integrals = 4 * lens.line_integrals as u64;
            let lines = 8 * lens.lines as u64;
            let samples = 32 * (packs * angles) as u64 * n_k;
            let largest = integrals.max(lines).max(samples);
            largest <= max_bytes && integrals + lines + samples <= block_bytes
        };
        let row_bytes = 32 * (grid_length(grid.n_x) / 2 + 1) as u64;
        // workgroups along an axis
        Cut::fitting(grid, n_angles.min(65_534), kind, max_bytes, row_bytes, fits)
    }

    /// The largest cut, of `angles` at most, whose blocks `fits` takes and whose bands, of `row_bytes` for each row of a pack, are
    /// no larger than `max_bytes`.
    fn fitting(
        grid: &Grid,
        mut angles: usize,
        kind: AdapterKind,
        max_bytes: u64,
        row_bytes: u64,
        fits: impl Fn(usize, usize) -> bool,
    ) -> Cut {
        while angles > 2 && !fits(1, angles) {
            angles = (angles / 2).next_multiple_of(2);
        }
        let band_rows = ((max_bytes / row_bytes) as usize / TILE * TILE).clamp(TILE, 65_504);
        // 65535 workgroups along an axis are always there; along z they count rows times phases
        let most = if band_rows < grid.n_y { 1 } else { 64 };
        let mut packs = (VOXELS_PER_DISPATCH / (grid.n_x * grid.n_y)).clamp(1, most);
        let band_bytes = |packs: usize| row_bytes * (packs * band_rows.min(grid.n_y)) as u64;
        while packs > 1 && !(fits(packs, angles) && band_bytes(packs) <= max_bytes) {
            packs -= 1;
        }
        Cut {
            packs,
            angles,
            band_rows,
            updates: updates_per_dispatch(kind),
        }
    }

    /// A smaller one, for when memory runs out.
    pub(super) fn smaller(self) -> Option<Cut> {
        match (self.packs, self.angles) {
            (2.., _) => Some(Cut {
                packs: self.packs / 2,
                ..self
            }),
            (_, 33..) => Some(Cut {
                angles: (self.angles / 2).next_multiple_of(2),
                ..self
            }),
            _ => None,
        }
    }
}

/// Whether what is taken on the GPU is taken from the host.
pub(super) fn shares_memory(kind: AdapterKind) -> bool {
    matches!(kind, AdapterKind::Software | AdapterKind::Integrated)
}

/// A tenth to half of a second on a slow GPU of its kind: drivers reset a GPU that does not answer for two seconds.
fn updates_per_dispatch(kind: AdapterKind) -> u64 {
    match kind {
        AdapterKind::Discrete | AdapterKind::Virtual => 5_000_000_000,
        AdapterKind::Integrated | AdapterKind::Unknown => 1_000_000_000,
        AdapterKind::Software => 100_000_000,
    }
}
