//! Voxels of a tile `[z, y, x]` to its sums `[y, x, z]`, and back.
//!
//! Each row of each slice lies on a page of memory of its own, and waiting for these is what takes time. So blocks of 16 slices by 16
//! columns are moved: their cache lines are asked for together, and the turning happens in the first-level cache.

use ndarray::{ArrayView3, ArrayViewMut3, Axis, s};

/// Slices and columns of a block: a cache line.
const BLOCK: usize = 16;

/// The voxels of a tile to its sums, which are rows of `columns` voxels of `slices` values. Values of voxels and slices that
/// the tile does not have stay as they are.
pub(super) fn take(tile: ArrayView3<'_, f32>, sums: &mut [f32], slices: usize, columns: usize) {
    let (n_z, _, n_x) = tile.dim();
    let rows = sums.chunks_exact_mut(columns * slices);
    for (plane, sums) in tile.axis_iter(Axis(1)).zip(rows) {
        for (z, x) in blocks(n_z, n_x) {
            let mut block = [[0.0; BLOCK]; BLOCK];
            let part = plane.slice(s![z..n_z.min(z + BLOCK), x..n_x.min(x + BLOCK)]);
            for (to, from) in block.iter_mut().zip(part.outer_iter()) {
                match from.as_slice() {
                    Some(from) => to[..from.len()].copy_from_slice(from),
                    None => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
                }
            }
            let (height, width) = part.dim();
            for column in 0..width {
                let sums = &mut sums[(x + column) * slices + z..][..height];
                for (sum, row) in sums.iter_mut().zip(&block) {
                    *sum = row[column];
                }
            }
        }
    }
}

/// The sums of a tile to its voxels: [`take`] the other way round.
pub(super) fn give(sums: &[f32], mut tile: ArrayViewMut3<'_, f32>, slices: usize, columns: usize) {
    let (n_z, _, n_x) = tile.dim();
    let rows = sums.chunks_exact(columns * slices);
    for (mut plane, sums) in tile.axis_iter_mut(Axis(1)).zip(rows) {
        for (z, x) in blocks(n_z, n_x) {
            let mut block = [[0.0; BLOCK]; BLOCK];
            let mut part = plane.slice_mut(s![z..n_z.min(z + BLOCK), x..n_x.min(x + BLOCK)]);
            let (height, width) = part.dim();
            for column in 0..width {
                let sums = &sums[(x + column) * slices + z..][..height];
                for (sum, row) in sums.iter().zip(&mut block) {
                    row[column] = *sum;
                }
            }
            for (from, mut to) in block.iter().zip(part.outer_iter_mut()) {
                match to.as_slice_mut() {
                    Some(to) => to.copy_from_slice(&from[..to.len()]),
                    None => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
                }
            }
        }
    }
}

/// First slice and column of each block, the slices of one run of columns before the next.
fn blocks(n_z: usize, n_x: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n_x)
        .step_by(BLOCK)
        .flat_map(move |x| (0..n_z).step_by(BLOCK).map(move |z| (z, x)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    /// Shapes that are no whole number of blocks, rows that are and are not contiguous.
    #[test]
    fn every_voxel_meets_its_own_sum_and_no_other() {
        const UNTOUCHED: f32 = -1.0;
        for (n_z, n_y, n_x, slices, columns) in [
            (32, 3, 64, 32, 64),
            (5, 4, 37, 8, 64),
            (17, 2, 16, 32, 16),
            (1, 1, 1, 4, 20),
        ] {
            let whole = Array3::from_shape_fn((n_z, n_y, 2 * n_x), |(z, y, x)| {
                (z * 10_000 + y * 1000 + x) as f32
            });
            for step in [1, 2] {
                let tile = whole.slice(s![.., .., ..step * n_x; step as isize]);
                let mut sums = vec![UNTOUCHED; (n_y + 1) * columns * slices];
                take(tile, &mut sums, slices, columns);
                let at = |z, y, x| (y * columns + x) * slices + z;
                for (index, &sum) in sums.iter().enumerate() {
                    let (z, x, y) = (
                        index % slices,
                        index / slices % columns,
                        index / slices / columns,
                    );
                    let expected = tile.get((z, y, x)).copied().unwrap_or(UNTOUCHED);
                    assert_eq!((sum, index), (expected, at(z, y, x)), "{z} {y} {x}");
                }
                let mut back = Array3::from_elem(whole.dim(), UNTOUCHED);
                let mut part = back.slice_mut(s![.., .., ..step * n_x; step as isize]);
                give(&sums, part.view_mut(), slices, columns);
                assert_eq!(part, tile);
                assert_eq!(
                    back.iter().filter(|&&v| v == UNTOUCHED).count(),
                    n_z * n_y * n_x,
                    "half of the columns are not of the tile"
                );
            }
        }
    }
}
