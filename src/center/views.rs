//! Which views of a scan show the same rays mirrored, and half turns cut out of it. Angles in any order.

use std::f64::consts::PI;
use std::ops::RangeInclusive;

use ndarray::{Array2, ArrayView2};

/// The views sorted by angle.
#[derive(Debug, Clone)]
pub(super) struct Views {
    /// `(angle [rad], index of the projection)`, ascending.
    sorted: Vec<(f64, usize)>,
    /// Median step between distinct neighbours \[rad\].
    pub(super) step: f64,
    /// From the first to the last view \[rad\].
    pub(super) span: f64,
    /// The widest gap between neighbours \[rad\].
    pub(super) widest_gap: f64,
}

/// A value between two views: `(1 - weight) * view low + weight * view high`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Between {
    /// Projection before.
    pub(super) low: usize,
    /// Projection after.
    pub(super) high: usize,
    /// 0 at `low`, 1 at `high`.
    pub(super) weight: f32,
}

/// Pairs of views about half a turn apart, in two classes of different miss.
///
/// The second view misses the exact opposite of the first by `miss` \[rad\]; the axis found from a class moves
/// linearly with its miss, so two classes lead to the axis at a miss of zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct OppositePairs {
    /// The nearest pairs.
    pub(super) near: Vec<(usize, usize)>,
    /// Mean miss of `near` \[rad\].
    pub(super) near_miss: f64,
    /// Pairs with another miss; empty when `near` is exact enough.
    pub(super) far: Vec<(usize, usize)>,
    /// Mean miss of `far` \[rad\].
    pub(super) far_miss: f64,
}

impl Views {
    /// `None` when there are fewer than three different finite angles.
    pub(super) fn new(angles_rad: &[f64]) -> Option<Views> {
        let mut sorted: Vec<(f64, usize)> = angles_rad
            .iter()
            .enumerate()
            .filter(|(_, a)| a.is_finite())
            .map(|(i, &a)| (a, i))
            .collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut steps: Vec<f64> = sorted
            .windows(2)
            .map(|w| w[1].0 - w[0].0)
            .filter(|&s| s > 1e-9)
            .collect();
        steps.sort_by(f64::total_cmp);
        if steps.len() < 2 {
            return None;
        }
        let span = sorted[sorted.len() - 1].0 - sorted[0].0;
        Some(Views {
            step: steps[steps.len() / 2],
            span,
            widest_gap: steps[steps.len() - 1],
            sorted,
        })
    }

    /// Whether there is a half turn, up to one missing end.
    pub(super) fn has_half_turn(&self) -> bool {
        self.span >= PI - 1.5 * self.step
            && self.widest_gap <= (5.0 * self.step).max(3f64.to_radians())
    }

    /// Whether views and their opposites were both taken over most of the turn.
    pub(super) fn has_full_turn(&self) -> bool {
        self.span >= 1.5 * PI && self.has_half_turn()
    }

    /// The views around `angle`; the end view itself when `angle` lies at most `beyond` outside the scan.
    fn around(&self, angle: f64, beyond: f64) -> Option<Between> {
        let after = self.sorted.partition_point(|v| v.0 < angle);
        let n = self.sorted.len();
        if after == 0 || after == n {
            let (end, index) = self.sorted[if after == 0 { 0 } else { n - 1 }];
            return ((end - angle).abs() <= beyond).then_some(Between {
                low: index,
                high: index,
                weight: 0.0,
            });
        }
        let (low, high) = (self.sorted[after - 1], self.sorted[after]);
        let gap = high.0 - low.0;
        if gap > (5.0 * self.step).max(3f64.to_radians()) {
            return None;
        }
        let weight = if gap > 0.0 {
            (angle - low.0) / gap
        } else {
            0.0
        };
        Some(Between {
            low: low.1,
            high: high.1,
            weight: weight as f32,
        })
    }

    /// Equally spaced views of a half turn, its end not included, that starts `start` \[rad\] after the first view.
    ///
    /// Every view between two measured ones is interpolated; the last may stand for one that is missing.
    pub(super) fn half_turn(&self, start: f64) -> Option<Vec<Between>> {
        if !self.has_half_turn() {
            return None;
        }
        let n = (PI / self.step).round().max(2.0) as usize;
        let step = PI / n as f64;
        // rounding of the angles must not turn a measured view into a mixture of two
        let snap = |mut b: Between| {
            if b.weight < 0.02 {
                b = Between {
                    high: b.low,
                    weight: 0.0,
                    ..b
                };
            } else if b.weight > 0.98 {
                b = Between {
                    low: b.high,
                    weight: 0.0,
                    ..b
                };
            }
            b
        };
        (0..n)
            .map(|k| {
                self.around(self.sorted[0].0 + start + k as f64 * step, 1.6 * self.step)
                    .map(snap)
            })
            .collect()
    }

    /// Each view `k` whose opposite was measured, with the views around angle + pi; at most about `most`.
    pub(super) fn opposites(&self, most: usize) -> Vec<(usize, Between)> {
        let all: Vec<(usize, Between)> = self
            .sorted
            .iter()
            .filter_map(|&(angle, index)| Some((index, self.around(angle + PI, 1e-3 * self.step)?)))
            .collect();
        let stride = all.len().div_ceil(most.max(1)).max(1);
        all.into_iter().step_by(stride).collect()
    }

    /// Pairs of single views half a turn apart, around at most `anchors` directions.
    ///
    /// A pair that misses by more than `tolerance` \[rad\] is joined by pairs on the other side of the opposite where
    /// there are any, else by pairs one step farther off.
    pub(super) fn opposite_pairs(&self, tolerance: f64, anchors: usize) -> OppositePairs {
        let n = self.sorted.len();
        let reach = 1.6 * self.step;
        let last = self.sorted[n - 1].0;
        let mut firsts: Vec<usize> = (0..n)
            .filter(|&i| self.sorted[i].0 + PI <= last + 1e-6)
            .collect();
        if firsts.is_empty() && self.span >= PI - reach {
            firsts.push(0);
        }
        let stride = firsts.len().div_ceil(anchors.max(1)).max(1);
        let mut pairs = OppositePairs::default();
        let (mut near_sum, mut far_sum) = (0.0, 0.0);
        let miss = |i: usize, j: usize| self.sorted[j].0 - self.sorted[i].0 - PI;
        for &i in firsts.iter().step_by(stride) {
            let target = self.sorted[i].0 + PI;
            let after = self.sorted.partition_point(|v| v.0 < target);
            let Some(near) = [after.saturating_sub(1), after.min(n - 1)]
                .into_iter()
                .min_by(|&a, &b| miss(i, a).abs().total_cmp(&miss(i, b).abs()))
            else {
                continue;
            };
            if miss(i, near).abs() > reach {
                continue;
            }
            pairs.near.push((self.sorted[i].1, self.sorted[near].1));
            near_sum += miss(i, near);
            if miss(i, near).abs() <= tolerance {
                continue;
            }
            let partners = if miss(i, near) > 0.0 {
                [Some((i, near.wrapping_sub(1))), None]
            } else if near + 1 < n {
                [Some((i, near + 1)), None]
            } else {
                [near.checked_sub(1).map(|j| (i, j)), Some((i + 1, near))]
            };
            for (a, b) in partners
                .into_iter()
                .flatten()
                .filter(|&(a, b)| a < n && b < n && a < b)
            {
                pairs.far.push((self.sorted[a].1, self.sorted[b].1));
                far_sum += miss(a, b);
            }
        }
        pairs.near_miss = near_sum / pairs.near.len().max(1) as f64;
        pairs.far_miss = far_sum / pairs.far.len().max(1) as f64;
        pairs
    }

    /// First and last angle \[degrees\], for messages.
    pub(super) fn range_deg(&self) -> RangeInclusive<f64> {
        self.sorted[0].0.to_degrees()..=self.sorted[self.sorted.len() - 1].0.to_degrees()
    }
}

/// The views `between` of a sinogram `[angle, col]`, as `[view, col]`.
pub(super) fn resample(sinogram: ArrayView2<'_, f32>, between: &[Between]) -> Array2<f32> {
    let mut out = Array2::zeros((between.len(), sinogram.ncols()));
    for (mut row, b) in out.outer_iter_mut().zip(between) {
        mix(
            sinogram,
            *b,
            row.as_slice_mut().expect("a fresh array is contiguous"),
        );
    }
    out
}

/// One view `between` of a sinogram `[angle, col]`; NaN and infinities become 0.
pub(super) fn mix(sinogram: ArrayView2<'_, f32>, between: Between, out: &mut [f32]) {
    let (low, high) = (sinogram.row(between.low), sinogram.row(between.high));
    for ((out, &l), &h) in out.iter_mut().zip(low).zip(high) {
        let value = if between.weight == 0.0 {
            l
        } else {
            l + between.weight * (h - l)
        };
        *out = if value.is_finite() { value } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn degrees(first: f64, step: f64, n: usize) -> Vec<f64> {
        (0..n)
            .map(|k| (first + step * k as f64).to_radians())
            .collect()
    }

    #[test]
    fn a_half_turn_with_both_ends_leaves_the_repeated_end_out() {
        let views = Views::new(&degrees(-88.2, 2.0, 91)).unwrap();
        let half = views.half_turn(0.0).unwrap();
        assert_eq!(half.len(), 90);
        assert!(
            half.iter()
                .enumerate()
                .all(|(k, b)| b.low == k && b.high == k)
        );
        let pairs = views.opposite_pairs(1e-3, 4);
        assert_eq!((pairs.near, pairs.far.len()), (vec![(0, 90)], 0));
    }

    #[test]
    fn a_missing_end_leads_to_two_classes_of_pairs() {
        let views = Views::new(&degrees(0.0, 180.0 / 181.0, 181)).unwrap();
        assert_eq!(views.half_turn(0.0).unwrap().len(), 181);
        let pairs = views.opposite_pairs(1e-3, 4);
        assert_eq!(pairs.near, vec![(0, 180)]);
        assert_eq!(pairs.far, vec![(0, 179), (1, 180)]);
        assert!((pairs.far_miss - 2.0 * pairs.near_miss).abs() < 1e-9 && pairs.near_miss < 0.0);
    }

    #[test]
    fn a_full_turn_without_exact_pairs_is_bracketed() {
        let views = Views::new(&degrees(0.0, 360.0 / 375.0, 376)).unwrap();
        assert!(views.has_full_turn());
        let pairs = views.opposite_pairs(1e-3, 4);
        assert!(!pairs.near.is_empty() && pairs.near.len() == pairs.far.len());
        assert!((pairs.near_miss + pairs.far_miss).abs() < 1e-6, "{pairs:?}");
        assert!(
            views
                .opposites(1000)
                .iter()
                .all(|(_, b)| (b.weight - 0.5).abs() < 1e-3 || b.weight < 1e-3 || b.weight > 0.999)
        );
    }

    #[test]
    fn shuffled_angles_give_the_same_half_turn() {
        let angles = degrees(10.0, 1.0, 181);
        let order: Vec<usize> = (0..181).map(|k| (k * 67) % 181).collect();
        let shuffled: Vec<f64> = order.iter().map(|&k| angles[k]).collect();
        let half = Views::new(&shuffled).unwrap().half_turn(0.0).unwrap();
        assert!(half.iter().enumerate().all(|(k, b)| order[b.low] == k));
    }

    #[test]
    fn too_short_or_broken_ranges_do_not_suit() {
        assert!(
            Views::new(&degrees(0.0, 1.0, 170))
                .unwrap()
                .half_turn(0.0)
                .is_none()
        );
        let mut broken = degrees(0.0, 1.0, 181);
        broken.drain(60..100);
        assert!(Views::new(&broken).unwrap().half_turn(0.0).is_none());
        assert!(Views::new(&[0.0, f64::NAN, 0.0]).is_none());
    }
}
