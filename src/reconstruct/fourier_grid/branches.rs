//! Which lines come near which tile of the grid.

use super::{Line, REACH, TILE};

/// Branches `line | negative << 24 | u + n_u << 25 | v + n_v << 26` that come near each tile, in the order of the lines.
#[derive(Debug, Clone)]
pub struct Branches {
    /// Where the branches of a tile begin, and behind the last where they end.
    tiles: Vec<u32>,
    branches: Vec<u32>,
}

impl Branches {
    /// `[tile + 1]`, tile (u, v) at `u * tiles along v + v`.
    #[must_use]
    pub fn tiles(&self) -> &[u32] {
        &self.tiles
    }

    /// All of them, tile after tile.
    #[must_use]
    pub fn all(&self) -> &[u32] {
        &self.branches
    }

    /// Those of a tile; `None` beyond the last.
    #[must_use]
    pub fn of_tile(&self, tile: usize) -> Option<&[u32]> {
        let (first, last) = (*self.tiles.get(tile)?, *self.tiles.get(tile + 1)?);
        Some(&self.branches[first as usize..last as usize])
    }
}

/// Lists the branches of `lines`, samples 0 to `last` of each, for the tiles of columns 0 to `n_u / 2` and all v.
#[must_use]
pub fn list_branches(lines: &[Line], last: usize, n_u: usize, n_v: usize) -> Branches {
    let (tiles_u, tiles_v) = ((n_u / 2 + 1).div_ceil(TILE), n_v / TILE);
    let mut counts = vec![0u32; tiles_u * tiles_v + 1];
    each(lines, last, n_u, n_v, |tile, _| counts[tile + 1] += 1);
    for tile in 1..counts.len() {
        counts[tile] += counts[tile - 1];
    }
    let tiles = counts.clone();
    let mut branches = vec![0; tiles[tiles.len() - 1] as usize];
    each(lines, last, n_u, n_v, |tile, branch| {
        branches[counts[tile] as usize] = branch;
        counts[tile] += 1;
    });
    Branches { tiles, branches }
}

fn each(lines: &[Line], last: usize, n_u: usize, n_v: usize, mut put: impl FnMut(usize, u32)) {
    for (index, line) in lines.iter().enumerate() {
        let step = |along: [u32; 2]| f64::from(along[0]) + f64::from(along[1]) * 2.0_f64.powi(-32);
        let down = if line.up == 1 { -1.0 } else { 1.0 };
        let (du, dv) = (step(line.along_u), down * step(line.along_v));
        for negative in [0u32, 1] {
            let sign = if negative == 1 { -1.0 } else { 1.0 };
            for wrap_u in 0..=negative {
                for wrap_v in [0u32, 1] {
                    let branch = index as u32 | negative << 24 | wrap_u << 25 | wrap_v << 26;
                    let first = (
                        f64::from(wrap_u) * n_u as f64,
                        f64::from(wrap_v) * n_v as f64,
                    );
                    let step = (sign * du, sign * dv);
                    tiles_near(first, step, last as f64, n_u, n_v, |tile| put(tile, branch));
                }
            }
        }
    }
}

/// The tiles that the samples `first + k step`, k from 0 to `last`, reach; at most one tile too many at each side.
fn tiles_near(
    first: (f64, f64),
    step: (f64, f64),
    last: f64,
    n_u: usize,
    n_v: usize,
    mut put: impl FnMut(usize),
) {
    let (tiles_u, tiles_v) = ((n_u / 2 + 1).div_ceil(TILE), n_v / TILE);
    let (tile, reach) = (TILE as f64, REACH as f64 + 0.01);
    // tiles whose cells are within reach of coordinates from `low` to `high`
    let range = |low: f64, high: f64, n: usize| {
        let from = ((low - reach - (tile - 1.0)) / tile).ceil().max(0.0);
        let to = ((high + reach) / tile).floor().min(n as f64 - 1.0);
        (from as usize, to)
    };
    let ends = (first.0, first.0 + last * step.0);
    let (from_u, to_u) = range(ends.0.min(ends.1), ends.0.max(ends.1), tiles_u);
    if to_u < from_u as f64 {
        return;
    }
    for tile_u in from_u..=to_u as usize {
        // samples within reach of this column of tiles
        let (low, high) = (
            tile_u as f64 * tile - reach,
            tile_u as f64 * tile + tile - 1.0 + reach,
        );
        let (mut k_0, mut k_1) = (0.0, last);
        if step.0.abs() > 1e-9 {
            let (a, b) = ((low - first.0) / step.0, (high - first.0) / step.0);
            (k_0, k_1) = (a.min(b).max(0.0), a.max(b).min(last));
        }
        if k_0 > k_1 {
            continue;
        }
        let v = (first.1 + k_0 * step.1, first.1 + k_1 * step.1);
        let (from_v, to_v) = range(v.0.min(v.1), v.0.max(v.1), tiles_v);
        if to_v < from_v as f64 {
            continue;
        }
        for tile_v in from_v..=to_v as usize {
            put(tile_u * tiles_v + tile_v);
        }
    }
}
