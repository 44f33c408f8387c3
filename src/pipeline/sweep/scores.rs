//! What a person would judge a correction by, as numbers.

use ndarray::{Array2, ArrayView2};

/// Sectors of the polar picture.
const SECTORS: usize = 24;
/// Pairs of sectors compared: 15 and 30 degrees apart, so that the arc of a stripe that lasts an eighth of a turn counts.
const APART: [usize; 2] = [1, 2];
/// Half width of the running median over the radius that is taken off \[px\]: rings up to this width stay, and the edges of
/// walls of the sample thicker than this go, which a median keeps.
const SMOOTH: usize = 6;
/// Rings closer to the axis have too few pixels to average \[px\].
const LEAST_RADIUS: usize = 8;

/// Height of the rings around the middle of a square slice, inside `radius` \[px\]; in the unit of the slice.
///
/// The slice is averaged over [`SECTORS`] sectors for every radius, and the running median over the radius is taken off (it
/// keeps the edges of the sample). What a stripe leaves is the same in sectors side by side, while the sample and the noise
/// mostly are not: so the mean product of two sectors counts the power of rings. The score is its square root, 0 where it
/// is not positive. What the sample itself has in common over an arc adds to it, alike for all settings.
pub(super) fn rings(slice: ArrayView2<'_, f32>, radius: f64) -> f64 {
    let middle = (slice.ncols() as f64 - 1.0) / 2.0;
    let n_radii = (radius.min(middle - 1.0)).max(0.0) as usize;
    if n_radii < LEAST_RADIUS + 2 * SMOOTH {
        return 0.0;
    }
    let profiles: Vec<Vec<f64>> = (0..SECTORS)
        .map(|sector| {
            let radii = LEAST_RADIUS..n_radii;
            high_pass(
                &radii
                    .map(|r| mean_of_arc(slice, middle, r, sector))
                    .collect::<Vec<_>>(),
            )
        })
        .collect();
    let (mut sum, mut count) = (0.0, 0.0);
    for first in 0..SECTORS {
        for apart in APART {
            let second = &profiles[(first + apart) % SECTORS];
            sum += profiles[first]
                .iter()
                .zip(second)
                .map(|(a, b)| a * b)
                .sum::<f64>();
            count += second.len() as f64;
        }
    }
    (sum / count).max(0.0).sqrt()
}

fn mean_of_arc(slice: ArrayView2<'_, f32>, middle: f64, radius: usize, sector: usize) -> f64 {
    let arc = std::f64::consts::TAU / SECTORS as f64;
    let n = (radius as f64 * arc).ceil().max(2.0) as usize;
    let sample = |k: usize| {
        let angle = arc * (sector as f64 + (k as f64 + 0.5) / n as f64);
        let (x, y) = (
            middle + radius as f64 * angle.cos(),
            middle + radius as f64 * angle.sin(),
        );
        let (col, row) = (x.floor() as usize, y.floor() as usize);
        let (fx, fy) = (x - x.floor(), y - y.floor());
        let at = |r: usize, c: usize| f64::from(slice[[r, c]]);
        let above = at(row, col) + fx * (at(row, col + 1) - at(row, col));
        let below = at(row + 1, col) + fx * (at(row + 1, col + 1) - at(row + 1, col));
        above + fy * (below - above)
    };
    (0..n).map(sample).sum::<f64>() / n as f64
}

fn high_pass(profile: &[f64]) -> Vec<f64> {
    let mut around = Vec::with_capacity(2 * SMOOTH + 1);
    (0..profile.len())
        .map(|k| {
            around.clear();
            let end = (k + SMOOTH + 1).min(profile.len());
            around.extend_from_slice(&profile[k.saturating_sub(SMOOTH)..end]);
            let middle = around.len() / 2;
            profile[k] - *around.select_nth_unstable_by(middle, f64::total_cmp).1
        })
        .collect()
}

/// Coarse detail that a correction took away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Loss {
    /// Root mean square of the change of block means, in the unit of the slice.
    pub(super) change: f64,
    /// Spread of the block means before, in that unit.
    pub(super) spread: f64,
}

impl Loss {
    /// The change as a share of what was there.
    pub(super) fn share(self) -> f64 {
        if self.spread > 0.0 {
            self.change / self.spread
        } else {
            0.0
        }
    }
}

/// How much the means of blocks change from `before` to `after`, inside `radius` \[px\].
///
/// Blocks have a side of 8 px or a 128th of the slice, whichever is more: rings are finer and mostly cancel in them.
pub(super) fn loss(before: ArrayView2<'_, f32>, after: ArrayView2<'_, f32>, radius: f64) -> Loss {
    let n = before.ncols();
    let block = (n / 128).max(8);
    let middle = (n as f64 - 1.0) / 2.0;
    let (mut change, mut sum, mut square, mut count) = (0.0, 0.0, 0.0, 0.0);
    for row in (0..n.saturating_sub(block - 1)).step_by(block) {
        for col in (0..n.saturating_sub(block - 1)).step_by(block) {
            let from_middle = |at: usize| at as f64 + (block as f64 - 1.0) / 2.0 - middle;
            if from_middle(row).hypot(from_middle(col)) > radius - block as f64 {
                continue;
            }
            let place = ndarray::s![row..row + block, col..col + block];
            let mean = |slice: ArrayView2<'_, f32>| {
                slice
                    .slice(place)
                    .iter()
                    .map(|&v| f64::from(v))
                    .sum::<f64>()
                    / (block * block) as f64
            };
            let (a, b) = (mean(before), mean(after));
            change += (a - b) * (a - b);
            sum += a;
            square += a * a;
            count += 1.0;
        }
    }
    let n = f64::max(count, 1.0);
    Loss {
        change: (change / n).sqrt(),
        spread: (square / n - (sum / n).powi(2)).max(0.0).sqrt(),
    }
}

/// Samples of a sinogram `[angle, col]` that stand out from those before and after, per million: zingers that are left.
///
/// A second difference along the angle beyond 8 times the noise of its column (1.4826 times its median size) counts.
pub(super) fn spikes(sinogram: ArrayView2<'_, f32>) -> f64 {
    let (n_angles, n_cols) = sinogram.dim();
    if n_angles < 8 {
        return 0.0;
    }
    let mut beyond = 0usize;
    for col in 0..n_cols {
        let column = sinogram.column(col);
        let sizes: Vec<f32> = (1..n_angles - 1)
            .map(|a| (column[a] - 0.5 * (column[a - 1] + column[a + 1])).abs())
            .collect();
        let mut sorted = sizes.clone();
        let half = sorted.len() / 2;
        let median = *sorted.select_nth_unstable_by(half, f32::total_cmp).1;
        let limit = 8.0 * 1.4826 * median;
        // a spike raises its neighbours' differences by half: only the local maximum counts
        beyond += (0..sizes.len())
            .filter(|&k| {
                sizes[k] > limit
                    && (k == 0 || sizes[k] >= sizes[k - 1])
                    && (k + 1 == sizes.len() || sizes[k] > sizes[k + 1])
            })
            .count();
    }
    1e6 * beyond as f64 / (n_angles * n_cols) as f64
}

/// The middle of a slice, at most `side` wide.
pub(super) fn middle_of(slice: ArrayView2<'_, f32>, side: usize) -> Array2<f32> {
    let cut = |n: usize| {
        let shown = n.min(side);
        (n - shown) / 2..(n - shown) / 2 + shown
    };
    slice
        .slice(ndarray::s![cut(slice.nrows()), cut(slice.ncols())])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(index: usize) -> f64 {
        ((index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / f64::from(1u32 << 24)
            - 0.5
    }

    /// A slice with grains, noise, and rings of height `ring` every tenth radius, full or over one half.
    fn slice(ring: f64, half: bool) -> Array2<f32> {
        Array2::from_shape_fn((256, 256), |(y, x)| {
            let (dy, dx) = (y as f64 - 127.5, x as f64 - 127.5);
            let grain = 0.7 + 0.6 * noise(7 + x / 12 * 1000 + y / 12);
            let sign = match dy.hypot(dx).round() as usize % 10 {
                3 => 1.0,
                8 => -1.0,
                _ => 0.0,
            };
            let on = if half && dx <= 0.0 { 0.0 } else { sign };
            (grain + 0.2 * noise(y * 256 + x) + ring * on) as f32
        })
    }

    #[test]
    fn the_ring_score_is_the_height_of_rings_whatever_the_sample() {
        // the grains add to it alike
        let floor = rings(slice(0.0, false).view(), 120.0);
        let above = |ring, half| {
            let score = rings(slice(ring, half).view(), 120.0);
            (score * score - floor * floor).sqrt()
        };
        // one in five radii has a ring of height h: a spread of h sqrt(0.2) = 0.09, and sampling between pixels blurs it
        let full = above(0.2, false);
        assert!(
            (0.06..0.09).contains(&full) && full > floor,
            "{full}, {floor}"
        );
        let twice = above(0.4, false);
        assert!((twice / full - 2.0).abs() < 0.1, "{twice} of {full}");
        // 12 of 24 sectors lie on the half, and so do 11 of the pairs of neighbours and 10 of those two apart
        let half = above(0.2, true);
        assert!(
            (half / full - (10.5f64 / 24.0).sqrt()).abs() < 0.1,
            "{half} of {full}"
        );
        assert_eq!(
            rings(slice(0.2, false).slice(ndarray::s![..40, ..40]), 20.0),
            0.0
        );
    }

    #[test]
    fn the_walls_of_the_sample_are_no_rings() {
        // a wall 14 px thick, blurred and 3 px off the axis
        let wall = |height: f64| {
            Array2::from_shape_fn((256, 256), |(y, x)| {
                let r = (y as f64 - 127.5).hypot(x as f64 - 124.5);
                let edge = |at: f64| 1.0 / (1.0 + (-(r - at) / 0.8).exp());
                (height * (edge(70.0) - edge(84.0)) + 0.05 * noise(y * 256 + x)) as f32
            })
        };
        let (bare, walled) = (wall(0.0), wall(1.0));
        let (floor, score) = (rings(bare.view(), 120.0), rings(walled.view(), 120.0));
        assert!(score < 0.03, "{score} over {floor}");
    }

    #[test]
    fn the_loss_score_sees_coarse_detail_and_hardly_rings() {
        let before = slice(0.3, false);
        let share = |a: &Array2<f32>, b: &Array2<f32>| loss(a.view(), b.view(), 120.0).share();
        assert_eq!(share(&before, &before), 0.0);
        let smaller = before.mapv(|v| 0.9 * v);
        // 10 % of the grains' mean is missing as well
        assert!(share(&before, &smaller) > 0.1);
        let without_rings = share(&before, &slice(0.0, false));
        let grey = before.mapv(|_| 0.7);
        assert!(
            without_rings < 0.2 * share(&before, &grey),
            "{without_rings}"
        );
    }

    #[test]
    fn spikes_are_counted_one_by_one() {
        let mut sinogram = Array2::from_shape_fn((100, 50), |(a, c)| {
            (a as f64 / 20.0).sin() as f32 + 0.01 * noise(a * 50 + c) as f32
        });
        assert_eq!(spikes(sinogram.view()), 0.0);
        for (a, c) in [(20, 3), (20, 4), (70, 49), (50, 0)] {
            sinogram[[a, c]] += 1.0;
        }
        assert_eq!(spikes(sinogram.view()), 1e6 * 4.0 / 5000.0);
    }
}
