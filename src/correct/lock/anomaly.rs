//! How far a column of a row deviates from its good neighbours, as far as all scans share it.

use super::super::bad_pixels::lagrange;
use super::course::{follows, left_by_a_detector, root_mean_square};
use super::evidence::PARTS;
use super::row::Row;

/// Good neighbours are looked for this far \[px\].
pub(super) const REACH: usize = 8;
/// A pixel that moves this many times more, or less, than its neighbours does not respond.
const UNRESPONSIVE: f32 = 4.0;
/// Scans contradict each other in a part of the scan where one shows an anomaly and another less than this share of it here, but more than [`ELSEWHERE`] of
/// it at most [`BESIDE`] columns away: a wrong pixel stays where it is, while the edge of a sample that moved by a pixel or two meets the same pixels in some
/// parts only.
const DISPUTED: f32 = 0.35;
/// See [`DISPUTED`].
const ELSEWHERE: f32 = 0.5;
/// See [`DISPUTED`] \[px\].
const BESIDE: usize = 4;
/// They contradict each other as well where they show anomalies of opposite sign, the smaller at least this share of the larger.
const OPPOSITE: f32 = 0.25;
/// Contradictions in so many parts are left to structure that passes.
const EXCUSED: usize = 2;
/// The course of an anomaly over the parts of a scan is that of a detector where no more than this share of it, or than so many times what good pixels show, is
/// left by a line or by two levels: edges that pass leave more. Pixels that do not respond have no course.
const PASSING: f32 = 0.25;
const PASSING_LEAST: f32 = 2.0;
/// The same for a course that is so clear that it excuses signs that are opposite in more parts: a step at another time in each scan.
const CLEAR: f32 = 0.15;
const CLEAR_LEAST: f32 = 1.5;

/// A column and those it is compared with: two on either side, from left to right, with the weights of the cubic through them.
struct Across {
    col: usize,
    columns: [usize; 4],
    weights: [f32; 4],
}

/// The anomaly of a column over the parts of a scan.
struct Course {
    /// In line integrals.
    anomaly: [f32; PARTS],
    /// What good pixels show there.
    scale: f32,
}

impl Course {
    /// As multiples of what good pixels show.
    fn sizes(&self) -> [f32; PARTS] {
        self.anomaly.map(|anomaly| anomaly / self.scale)
    }

    /// Whether it is that of a detector ([`PASSING`]).
    fn like_a_detector(&self, share: f32, least: f32) -> bool {
        let sizes = self.sizes();
        left_by_a_detector(&sizes) < least.max(share * root_mean_square(sizes))
    }
}

/// Anomaly of a pixel that all scans share.
#[derive(Clone, Copy, Default)]
pub(super) struct Level {
    /// As a multiple of what good pixels show; 0 where it is no fault of the detector.
    pub(super) ratio: f32,
    /// The same, whatever it is.
    pub(super) shared: f32,
    /// In line integrals.
    pub(super) strength: f32,
}

/// The same in a part of the scan.
#[derive(Clone, Copy)]
struct Shared {
    ratio: f32,
    strength: f32,
    contradiction: Option<Contradiction>,
}

/// How scans contradict each other.
#[derive(Clone, Copy, PartialEq)]
enum Contradiction {
    /// What one shows stands beside it in the other ([`DISPUTED`]).
    Elsewhere,
    /// [`OPPOSITE`].
    Opposite,
}

impl Row<'_> {
    /// The two nearest good columns on either side, nearest first; `None` where a side has none.
    fn neighbours(&self, col: usize, wrong: &[bool]) -> Option<[[Option<usize>; 2]; 2]> {
        let side = |columns: &mut dyn Iterator<Item = usize>| {
            let mut good = columns.filter(|&c| !wrong[c]);
            let nearest = good.next();
            [nearest, nearest.and(good.next())]
        };
        let left = side(&mut (col.saturating_sub(REACH)..col).rev());
        let right = side(&mut (col + 1..(col + 1 + REACH).min(self.n_cols)));
        (left[0].is_some() && right[0].is_some()).then_some([left, right])
    }

    /// How `col` is looked at from its neighbours that are not `wrong`; `None` where a side has less than two: beside the edge of the detector a straight line
    /// would take the curvature of a sample that goes on there for an anomaly.
    fn across(&self, col: usize, wrong: &[bool]) -> Option<Across> {
        let Some([[Some(l1), Some(l2)], [Some(r1), Some(r2)]]) = self.neighbours(col, wrong) else {
            return None;
        };
        let columns = [l2, l1, r1, r2];
        Some(Across {
            col,
            columns,
            weights: lagrange(columns.map(|c| c as f32 - col as f32)),
        })
    }

    /// The anomaly of a column in a scan.
    fn course(&self, across: &Across, scan: usize) -> Course {
        let [_, left, right, _] = across.columns;
        let anomaly = |part: usize| {
            let line = &self.means[scan][part];
            let terms = across.columns.iter().zip(across.weights);
            line[across.col] - terms.map(|(&c, w)| w * line[c]).sum::<f32>()
        };
        Course {
            anomaly: std::array::from_fn(anomaly),
            scale: self.scales[scan].at(across.col, across.col - left, right - across.col),
        }
    }

    /// The anomaly of `col` against its neighbours that are not `wrong`, as far as all scans share it.
    pub(super) fn level(&self, col: usize, wrong: &[bool]) -> Level {
        let Some(across) = self.across(col, wrong) else {
            return Level::default();
        };
        let courses: Vec<Course> = (0..self.means.len())
            .map(|scan| self.course(&across, scan))
            .collect();
        let parts: [Shared; PARTS] = std::array::from_fn(|part| self.shared(col, part, &courses));
        let rms = |of: fn(&Shared) -> f32| root_mean_square(parts.each_ref().map(of));
        let ratio = rms(|part| part.ratio);
        let like_a_detector = |share, least| {
            courses
                .iter()
                .all(|course| course.like_a_detector(share, least))
        };
        let mut scans = courses.iter().enumerate();
        let number = |of: Contradiction| {
            let said = parts.iter().filter(|part| part.contradiction == Some(of));
            said.count()
        };
        let [elsewhere, opposite] = [Contradiction::Elsewhere, Contradiction::Opposite].map(number);
        let refuted = elsewhere > EXCUSED
            || elsewhere + opposite > EXCUSED && !like_a_detector(CLEAR, CLEAR_LEAST)
            || (!like_a_detector(PASSING, PASSING_LEAST)
                || scans.any(|(scan, course)| self.passes(col, scan, course)))
                && !self.apart(col, across.columns[1], across.columns[2]);
        Level {
            ratio: if refuted { 0.0 } else { ratio },
            shared: ratio,
            strength: rms(|part| part.strength),
        }
    }

    /// Whether what a scan shows there stands beside it, beyond the ratio asked for, in more than one of the parts in which the column is calm: the edge of a
    /// sample passes from column to column in the course of a scan, a fault stays where it is.
    fn passes(&self, col: usize, scan: usize, course: &Course) -> bool {
        let sizes = course.sizes().map(f32::abs);
        let most = sizes.iter().copied().fold(0.0, f32::max);
        let elsewhere = (0..PARTS).filter(|&part| {
            sizes[part] < DISPUTED * most
                && self.most_beside(col, scan, part) > (ELSEWHERE * most).max(self.ratio)
        });
        most > self.ratio && elsewhere.count() > 1
    }

    /// What all scans share of the anomaly of `col` in a part of the scan.
    fn shared(&self, col: usize, part: usize, courses: &[Course]) -> Shared {
        let (mut ratio, mut strength) = (f32::INFINITY, f32::INFINITY);
        let (mut most, mut calmest) = (0f32, 0);
        let mut signs = [false; 2];
        for (scan, course) in courses.iter().enumerate() {
            let own = course.anomaly[part];
            let size = own.abs() / course.scale;
            most = most.max(size);
            if size < ratio {
                (ratio, calmest) = (size, scan);
            }
            strength = strength.min(own.abs());
            signs[0] |= own < 0.0;
            signs[1] |= own > 0.0;
        }
        let opposite = signs[0] && signs[1];
        let contradiction = if most <= self.ratio {
            None
        } else if opposite && ratio > OPPOSITE * most {
            Some(Contradiction::Opposite)
        } else {
            let calm = opposite || ratio < DISPUTED * most;
            (calm && self.most_beside(col, calmest, part) > ELSEWHERE * most)
                .then_some(Contradiction::Elsewhere)
        };
        if opposite {
            (ratio, strength) = (0.0, 0.0);
        }
        Shared {
            ratio,
            strength,
            contradiction,
        }
    }

    /// The largest anomaly of the columns beside `col` in a part of a scan, against the next two on either side, as a multiple of what good pixels show.
    fn most_beside(&self, col: usize, scan: usize, part: usize) -> f32 {
        let line = &self.means[scan][part];
        let columns = col.saturating_sub(BESIDE).max(2)
            ..(col + BESIDE + 1).min(self.n_cols.saturating_sub(2));
        columns
            .filter(|&c| c != col)
            .map(|c| {
                let around = (4.0 * (line[c - 1] + line[c + 1]) - line[c - 2] - line[c + 2]) / 6.0;
                (line[c] - around).abs() / self.scales[scan].at(c, 1, 1)
            })
            .fold(0.0, f32::max)
    }

    /// Whether the pixel does not follow its good neighbours, in most of the scans: from part to part of the scan, or, where
    /// these do not change enough to tell, from one projection to the next.
    pub(super) fn unresponsive(&self, col: usize, wrong: &[bool]) -> bool {
        let Some([[Some(left), _], [Some(right), _]]) = self.neighbours(col, wrong) else {
            return true;
        };
        self.apart(col, left, right)
    }

    /// Whether the column goes its own way beside `left` and `right`, in most of the scans.
    pub(super) fn apart(&self, col: usize, left: usize, right: usize) -> bool {
        let odd = self
            .evidence
            .iter()
            .zip(&self.means)
            .filter(|(one, means)| {
                let part = |c: usize, part: usize| means[part][c];
                let moves = |c: usize| one.activity[[self.row, c]];
                let own: [f32; PARTS] = std::array::from_fn(|k| part(col, k));
                let around = std::array::from_fn(|k| 0.5 * (part(left, k) + part(right, k)));
                let around_moves = 0.5 * (moves(left) + moves(right));
                let follows = follows(&own, &around).unwrap_or(true);
                let lively = moves(col) * UNRESPONSIVE >= around_moves
                    && moves(col) <= UNRESPONSIVE * around_moves;
                !(follows && lively)
            })
            .count();
        odd > self.evidence.len() / 2
    }
}
