//! A sample wider than the detector: how far it reaches, and how rows go on beyond their ends.
//!
//! What the ramp filter leaves inside the field of view depends on the ends of the row that were not seen: where rows stop too early
//! the slice gets a bright rim, where they go on too long it gets dark. How long they must go on depends on the width of the sample,
//! so no fixed length suits. Outside the field the sample is therefore taken for a disc about the axis, of radius R and even
//! density: a row that ends with the value a at the distance T from the axis goes on as the chord of that disc,
//!
//! p(t) = a sqrt((R^2 - t^2) / (R^2 - T^2)),   T < t < R
//!
//! the water cylinder of Hsieh et al., Med. Phys. 31 (2004) 2385, but with one radius for the whole scan: the extension stays linear
//! in the row and the same for every row of a view, so a difference of two scans with the same R sees the change alone.
//!
//! That scan is continued by the rows of the other where one is compared with it ([`crate::pipeline::beyond`]); the disc is for the first of them.
//!
//! The disc is part of the sample: where the sample moves ([`super::geometry::Ray::offset_px`]), within a scan or from one scan to the next, it goes along.
//! A disc that ends at the very edge of the field does not: rows that fall more steeply than any disc that reaches beyond it show a wall there,
//! and the edge of the disc would be moved into the field, where the sample has none.
//!
//! R is found in the rows ([`Rows`]). Where only the outer, even part of the sample is passed, p^2 = 4 f^2 (R^2 - t^2): a
//! straight line in t^2, whose slope gives the density f there and whose height then R. Everything farther in
//! than the outermost tenth of the field leaves no trace in it. Squares are averaged over both sides of many views: a sample
//! that is not in the middle adds a term that is odd in t, and one that is not round a mean R. Views that
//! pass beside the sample are left out. Whether there is anything at the ends is asked of the mean over the rows of a view.
//! Where rows rise towards their ends (a dense wall outside the field) no R follows; a radius can be given.

use std::collections::BTreeMap;

/// A disc about the rotation axis that stands for the sample outside the field of view, where that has not moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Support {
    /// Column of the axis \[px\].
    pub axis_px: f64,
    /// Its radius \[px\].
    pub radius_px: f64,
}

/// Part of the distance from the axis to the last column that the fit looks at.
const OUTER: f64 = 0.1;
/// Rows of a sample inside the field end with less than this share of their middle ...
const TRUNCATED: f64 = 0.03;
/// ... or less than so many times their noise.
const NOISE: f64 = 5.0;
/// Below this share it may be the light of the beam that is off, so that nothing is said where no radius follows.
const SAID: f64 = 0.1;
/// Ends below this share of the high ones belong to views that pass beside the sample.
const PASSES: f64 = 0.25;
/// The chord is at least this much longer than the seen part, so that no row ends with a step.
const LEAST: f64 = 1.02;
/// Up to this ratio of its radius to the seen part a disc is no longer than [`LEAST`] made it, for another axis than that it was found with.
const AT_THE_EDGE: f64 = 1.03;
/// A radius beyond so many times the seen one is not believed: rows then fall by less than 1 % over their outermost tenth, as
/// much as flat fields are wrong by.
const MOST: f64 = 3.2;

impl Support {
    /// Distance from the middle of the disc to the last and to the first column, in a projection that shows it `offset_px` to the right of the axis.
    #[must_use]
    pub fn seen_px(&self, n_cols: usize, offset_px: f64) -> [f64; 2] {
        let middle = self.axis_px + offset_px;
        [n_cols as f64 - 1.0 - middle, middle]
    }

    /// Share of the end value in sample j = 1, 2, ... `gap` behind the last column, then the same before the first, in a projection that
    /// shows the disc `offset_px` to the right of the axis.
    #[must_use]
    pub fn shares(&self, n_cols: usize, gap: usize, offset_px: f64) -> Vec<f32> {
        let mut shares = vec![0.0; 2 * gap];
        for (side, seen) in self.seen_px(n_cols, offset_px).into_iter().enumerate() {
            // behind the end of the chord there is nothing
            let chord = self.radius_px.max(LEAST * seen.max(1.0)) - seen;
            let reach = gap.min(chord.ceil() as usize);
            for (j, value) in shares[side * gap..][..reach].iter_mut().enumerate() {
                *value = share(self.radius_px as f32, seen as f32, (j + 1) as f32);
            }
        }
        shares
    }

    /// Whether the disc goes along with a sample that moves: not where it ends at the edge of the field.
    #[must_use]
    pub fn follows(&self, n_cols: usize) -> bool {
        let [right, left] = self.seen_px(n_cols, 0.0);
        self.radius_px > AT_THE_EDGE * right.max(left)
    }

    /// Length of the periodic row that holds the disc, with room so that its far side is not felt from behind \[px\].
    #[must_use]
    pub fn room_px(&self) -> f64 {
        2.3 * self.radius_px
    }
}

/// Chord of a disc of this radius at `beyond` pixels behind the end of a row, over that at its end, which is `seen` from the middle.
///
/// The same operations as in `shaders/ramp_filter.wgsl`.
#[must_use]
pub fn share(radius: f32, seen: f32, beyond: f32) -> f32 {
    let seen = seen.max(1.0);
    let radius = radius.max(LEAST as f32 * seen);
    let far = seen + beyond;
    // as products, which keep their digits near the edge of the disc
    let left = (radius - far) * (radius + far);
    (left.max(0.0) / ((radius - seen) * (radius + seen))).sqrt()
}

/// What rows tell of the width of the sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reach {
    /// It stays inside the field of view.
    Inside,
    /// It reaches this far from the axis \[px\].
    Radius(f64),
    /// It is wider than the field of view; how much, its rows do not tell.
    Unknown,
}

impl Reach {
    /// From the axis to its end, where that is known \[px\].
    #[must_use]
    pub fn radius_px(self) -> Option<f64> {
        match self {
            Reach::Radius(radius) => Some(radius),
            Reach::Inside | Reach::Unknown => None,
        }
    }

    /// The same in pixels of which `scale` stand for one of before.
    #[must_use]
    pub fn scaled(self, scale: f64) -> Reach {
        match self {
            Reach::Radius(radius) => Reach::Radius(radius * scale),
            other => other,
        }
    }

    /// Whether a detector of `n_cols` does not hold it.
    #[must_use]
    pub fn is_beyond(self, n_cols: usize) -> bool {
        match self {
            Reach::Inside => false,
            Reach::Radius(radius) => 2.0 * radius > n_cols as f64 - 1.0,
            Reach::Unknown => true,
        }
    }
}

/// Rows of line integrals, from which [`Rows::reach`] follows.
#[derive(Debug, Default)]
pub struct Rows {
    ends: Vec<End>,
}

/// The outermost part of one row on one side: mean value there and in the middle, square of the noise of the former, and sums over
/// p^2 (y) and t^2 (x).
#[derive(Debug, Clone, Copy)]
struct End {
    view: usize,
    right: bool,
    noise: f64,
    value: f64,
    middle: f64,
    mean_x: f64,
    mean_y: f64,
    xx: f64,
    xy: f64,
    seen: f64,
}

impl Rows {
    /// Takes a row `[col]` of view `view`, with its axis \[px\]; values that are not finite are left out.
    pub fn add(&mut self, view: usize, row: &[f32], axis_px: f64) {
        let last = row.len() as f64 - 1.0;
        let finite = |from: usize, to: usize| {
            (from..to.min(row.len()))
                .map(|col| (col as f64 - axis_px, f64::from(row[col])))
                .filter(|(_, p)| p.is_finite())
        };
        let quarter = row.len() / 4;
        let inner: Vec<f64> = finite(quarter, row.len() - quarter)
            .map(|(_, p)| p)
            .collect();
        let middle = mean(inner.iter().copied());
        for right in [false, true] {
            let seen = if right { last - axis_px } else { axis_px };
            // the near side of a half acquisition looks at the middle of the sample
            if seen < last / 4.0 {
                continue;
            }
            let width = ((OUTER * seen) as usize).max(4);
            let points: Vec<(f64, f64)> = if right {
                finite(row.len().saturating_sub(width), row.len()).collect()
            } else {
                finite(0, width).collect()
            };
            if points.len() < 4 {
                continue;
            }
            let mean_x = mean(points.iter().map(|(t, _)| t * t));
            let mean_y = mean(points.iter().map(|(_, p)| p * p));
            let sum = |f: &dyn Fn(f64, f64) -> f64| {
                points
                    .iter()
                    .map(|(t, p)| f(t * t - mean_x, p * p - mean_y))
                    .sum::<f64>()
            };
            // of neighbours, so that the sample does not count
            let steps = points
                .windows(2)
                .map(|pair| (pair[1].1 - pair[0].1).powi(2));
            self.ends.push(End {
                view,
                right,
                noise: mean(steps) / 2.0 / points.len() as f64,
                value: mean(points.iter().map(|(_, p)| *p)),
                middle,
                mean_x,
                mean_y,
                xx: sum(&|x, _| x * x),
                xy: sum(&|x, y| x * y),
                seen,
            });
        }
    }

    /// How far the sample reaches, of all rows together.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let mut views: BTreeMap<(usize, bool), [f64; 4]> = BTreeMap::new();
        for end in &self.ends {
            let sums = views.entry((end.view, end.right)).or_default();
            let own = [1.0, end.value, end.middle, end.noise];
            sums.iter_mut().zip(own).for_each(|(sum, v)| *sum += v);
        }
        let high = |of: fn(&[f64; 4]) -> f64| {
            let mut values: Vec<f64> = views.values().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() * 19 / 20).copied().unwrap_or(0.0)
        };
        let (end, middle) = (high(|s| s[1] / s[0]), high(|s| s[2] / s[0]));
        let noise = high(|s| s[3].sqrt() / s[0]);
        if end <= (TRUNCATED * middle).max(NOISE * noise) {
            return Reach::Inside;
        }
        let passed: Vec<&End> = self
            .ends
            .iter()
            .filter(|e| e.value > PASSES * end)
            .collect();
        let slope =
            passed.iter().map(|e| e.xy).sum::<f64>() / passed.iter().map(|e| e.xx).sum::<f64>();
        let sides: Vec<f64> = [false, true]
            .into_iter()
            .filter_map(|right| {
                let side = || passed.iter().filter(move |e| e.right == right);
                (side().count() > 0).then(|| {
                    mean(side().map(|e| e.mean_x)) - mean(side().map(|e| e.mean_y)) / slope
                })
            })
            .collect();
        let seen = passed.iter().map(|e| e.seen).fold(0.0, f64::max);
        let radius = mean(sides.iter().copied()).max(0.0).sqrt();
        if !(slope < 0.0 && radius <= MOST * seen) {
            return if end > SAID * middle {
                Reach::Unknown
            } else {
                Reach::Inside
            };
        }
        Reach::Radius(radius.max(LEAST * seen))
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconstruct::tests::{Ellipse, disc, half_turn, sinogram};

    fn reach(object: &[Ellipse], axis_px: f64, noise: f32) -> Reach {
        let angles = half_turn(60);
        let sinogram = sinogram(object, &angles, 200, axis_px);
        let mut rows = Rows::default();
        let mut state = 1u32;
        for (view, row) in sinogram.outer_iter().enumerate() {
            let noisy: Vec<f32> = row
                .iter()
                .map(|v| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    v + noise * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
                })
                .collect();
            rows.add(view, &noisy, axis_px);
        }
        rows.reach()
    }

    fn radius(object: &[Ellipse], axis_px: f64, noise: f32) -> f64 {
        match reach(object, axis_px, noise) {
            Reach::Radius(radius) => radius,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_radius_of_a_disc_is_found_whatever_stands_in_the_middle() {
        for wide in [1.05, 1.1, 1.5, 2.0, 3.0] {
            let r = 100.0 * wide;
            for object in [
                vec![disc(0.0, 0.0, r, 0.01)],
                vec![disc(0.0, 0.0, r, 0.004), disc(3.0, -5.0, 82.0, 0.012)],
            ] {
                for axis in [99.5, 103.0] {
                    let found = radius(&object, axis, 0.0);
                    assert!(
                        (found / r - 1.0).abs() < 0.01,
                        "{found} for {r}, axis {axis}"
                    );
                }
            }
            if wide <= 2.0 {
                // noise of 2 % in 60 rows of 10 samples at each end
                let noisy = radius(&[disc(0.0, 0.0, r, 0.01)], 99.5, 0.02 * 0.02 * r as f32);
                assert!(
                    (noisy / r - 1.0).abs() < 0.1 * wide,
                    "{noisy} for {r} with noise"
                );
            }
        }
        // an axis off by 20 px is another distance to the end, and must show
        let found = radius(&[disc(20.0, 0.0, 110.0, 0.01)], 99.5, 0.0);
        assert!(
            (found / 110.0 - 1.0).abs() < 0.1 && (found / 110.0 - 1.0).abs() > 0.001,
            "{found}"
        );
    }

    #[test]
    fn samples_inside_the_field_and_walls_outside_are_told() {
        assert_eq!(
            reach(&[disc(5.0, 0.0, 80.0, 0.01)], 99.5, 0.01),
            Reach::Inside
        );
        assert_eq!(reach(&[], 99.5, 0.0), Reach::Inside);
        // noise alone, as strong as the sample
        assert_eq!(
            reach(&[disc(5.0, 0.0, 80.0, 0.001)], 99.5, 0.2),
            Reach::Inside
        );
        let tube = [disc(0.0, 0.0, 130.0, 0.02), disc(0.0, 0.0, 125.0, -0.02)];
        assert_eq!(reach(&tube, 99.5, 0.0), Reach::Unknown);
        assert_eq!(Rows::default().reach(), Reach::Inside);
        let mut rows = Rows::default();
        rows.add(0, &[f32::NAN; 40], 19.5);
        rows.add(1, &[0.5; 3], 1.0);
        assert_eq!(rows.reach(), Reach::Inside);
    }

    #[test]
    fn shares_are_the_chord_of_the_disc_on_either_side() {
        let support = Support {
            axis_px: 12.0,
            radius_px: 25.0,
        };
        let shares = support.shares(31, 20, 0.0);
        assert_eq!(shares.len(), 40);
        for (side, seen) in [(0, 18.0_f64), (20, 12.0)] {
            for j in 1..=20 {
                let chord = |t: f64| (625.0 - t * t).max(0.0).sqrt();
                let expected = chord(seen + f64::from(j)) / chord(seen);
                let found = f64::from(shares[side + j as usize - 1]);
                assert!(
                    (found - expected).abs() < 1e-6,
                    "{side} {j}: {found} {expected}"
                );
            }
        }
        // moved to the right by 3: the last column is nearer to the middle, the first one farther off
        let right = Support {
            axis_px: 15.0,
            ..support
        };
        assert_eq!(support.shares(31, 20, 3.0), right.shares(31, 20, 0.0));
        assert_ne!(support.shares(31, 20, 3.0), shares);
        // a disc that ends before the row does
        let short = Support {
            radius_px: 10.0,
            ..support
        };
        assert!(
            short
                .shares(31, 20, 0.0)
                .iter()
                .all(|share| (0.0..1.0).contains(share))
        );
    }
}
