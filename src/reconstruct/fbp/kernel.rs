//! The inner loop: a run of neighbouring voxels of one row of the slice meets sixteen projections.
//!
//! Positions and fractions are tabulated first, vectorised over the angles; then only loads and multiply-adds are left,
//! with the sums of a voxel in registers. The sums of left and right neighbours are kept apart until the end:
//! each is a chain of its own, half as long.
#![expect(
    unsafe_code,
    reason = "SIMD loads and stores go through pointers; the slices are checked first"
)]

use super::simd::{Lanes, Tabulate};

/// Projections added in one pass.
pub(crate) const ANGLES: usize = 16;
/// Voxels of a run at most: what 8 voxels meet in 16 projections of 32 slices, sampled twice per pixel, is 25 KB and stays in the
/// first-level cache for the next row.
pub(crate) const RUN: usize = 8;

/// Sixteen projections: the voxel at (x, y) meets sample at_axis + x * along_x + y * along_y.
pub(crate) struct Lines {
    /// Sample of the rotation axis.
    pub(crate) at_axis: [f64; ANGLES],
    /// Samples per pixel along x.
    pub(crate) along_x: [f64; ANGLES],
    /// Samples per pixel along y, upwards.
    pub(crate) along_y: [f64; ANGLES],
    /// Samples from one voxel of a row to the next.
    pub(crate) step: [f32; ANGLES],
    /// x from the first to the last voxel of a run where the coordinate falls along the row, else 0 \[px\].
    pub(crate) back: [f64; ANGLES],
}

/// A run of voxels and the projections that they meet.
pub(crate) struct Segment<'a> {
    /// Filtered rows `[angle, sample, slice]`, [`ANGLES`] of them.
    pub(crate) samples: &'a [f32],
    /// Values from one angle to the next in `samples`.
    pub(crate) stride: usize,
    /// Samples of a row.
    pub(crate) n_samples: usize,
    /// Where the samples stand.
    pub(crate) lines: &'a Lines,
    /// x of voxel 0 of the run \[px\].
    pub(crate) x: f64,
    /// y of the row \[px\], upwards.
    pub(crate) y: f64,
    /// The voxels wanted, within 0..[`RUN`].
    pub(crate) voxels: std::ops::Range<usize>,
}

/// Where the end of the run with the smallest coordinate stands, per angle: whole samples and the rest, 0 to 1.
pub(crate) struct Start {
    pub(crate) whole: [i32; ANGLES],
    pub(crate) rest: [f32; ANGLES],
}

impl Segment<'_> {
    /// In f64, so that the rest has the full precision of f32 however wide the detector is.
    #[inline(always)]
    pub(crate) fn start(&self) -> Start {
        // adding it rounds to whole numbers and leaves them in the low bits; conversions would not be vectorised
        const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
        let lines = self.lines;
        let mut start = Start {
            whole: [0; ANGLES],
            rest: [0.0; ANGLES],
        };
        for angle in 0..ANGLES {
            let x = self.x + lines.back[angle];
            let sample =
                lines.at_axis[angle] + x * lines.along_x[angle] + self.y * lines.along_y[angle];
            let rounded = (sample - 0.5) + ROUND;
            start.whole[angle] = rounded.to_bits() as i32;
            start.rest[angle] = (sample - (rounded - ROUND)) as f32;
        }
        start
    }
}

/// Where each voxel wanted meets each projection, `[voxel, angle]`.
#[repr(align(64))]
pub(crate) struct Table {
    /// Index in `samples` of the left neighbour.
    pub(crate) offset: [[i32; ANGLES]; RUN],
    /// Share of the right neighbour; the left one has the rest. Subtracting costs less than another load: loads are what limits.
    pub(crate) right: [[f32; ANGLES]; RUN],
}

impl Table {
    /// Room for a table, kept from run to run: clearing it for each would take as long as filling it.
    pub(crate) fn new() -> Self {
        Table {
            offset: [[0; ANGLES]; RUN],
            right: [[0.0; ANGLES]; RUN],
        }
    }
}

/// Adds to each voxel of the run, for every angle, the sample at its place, linearly interpolated.
///
/// `sums` is `[voxel, slice]` and begins with the first voxel wanted; `table` is room for the places. `V` registers hold the slices, `P` voxels are
/// worked on at once.
#[inline(always)]
pub(crate) fn accumulate<L: Lanes, T: Tabulate, const V: usize, const P: usize>(
    segment: &Segment<'_>,
    table: &mut Table,
    sums: &mut [f32],
) {
    let slices = L::WIDTH * V;
    let n_voxels = segment.voxels.len();
    assert!(
        segment.voxels.end <= RUN && sums.len() >= n_voxels * slices,
        "a run of {RUN} voxels or fewer"
    );
    assert!(
        segment.n_samples >= 2 && segment.stride >= segment.n_samples * slices,
        "rows of two samples or more"
    );
    assert!(
        segment.samples.len() >= (ANGLES - 1) * segment.stride + segment.n_samples * slices,
        "{ANGLES} filtered rows"
    );
    assert!(
        i32::try_from(segment.samples.len()).is_ok(),
        "offsets of 32 bits"
    );
    // SAFETY: the instruction set is that of the caller.
    unsafe { T::fill(segment, slices, table) };
    let samples = segment.samples.as_ptr();
    let mut k = 0;
    while k + P <= n_voxels {
        // SAFETY: offsets point at two whole samples within the rows checked above; sums holds n_voxels of them. The
        // instruction set is that of the caller.
        unsafe { voxels::<L, V, P>(samples, table, k, sums[k * slices..].as_mut_ptr()) };
        k += P;
    }
    while k < n_voxels {
        // SAFETY: as above.
        unsafe { voxels::<L, V, 1>(samples, table, k, sums[k * slices..].as_mut_ptr()) };
        k += 1;
    }
}

/// # Safety
/// `samples` plus any of the offsets must hold two samples of `V` registers; `sums` must hold `P` voxels of them;
/// `first + P` must be at most [`RUN`].
#[inline(always)]
unsafe fn voxels<L: Lanes, const V: usize, const P: usize>(
    samples: *const f32,
    table: &Table,
    first: usize,
    sums: *mut f32,
) {
    let slices = L::WIDTH * V;
    // SAFETY: the caller's promise.
    unsafe {
        let mut left: [[L; V]; P] = std::array::from_fn(|p| {
            std::array::from_fn(|v| L::load(sums.add(p * slices + v * L::WIDTH)))
        });
        let mut right: [[L; V]; P] = [[L::splat(0.0); V]; P];
        let one = L::splat(1.0);
        for angle in 0..ANGLES {
            for p in 0..P {
                let on_right = L::splat(*table.right.get_unchecked(first + p).get_unchecked(angle));
                let on_left = one.minus(on_right);
                let at = samples
                    .add(*table.offset.get_unchecked(first + p).get_unchecked(angle) as usize);
                for v in 0..V {
                    let (l, r) = (
                        L::load(at.add(v * L::WIDTH)),
                        L::load(at.add(slices + v * L::WIDTH)),
                    );
                    left[p][v] = l.times_plus(on_left, left[p][v]);
                    right[p][v] = r.times_plus(on_right, right[p][v]);
                }
            }
        }
        for p in 0..P {
            for v in 0..V {
                left[p][v]
                    .plus(right[p][v])
                    .store(sums.add(p * slices + v * L::WIDTH));
            }
        }
    }
}
