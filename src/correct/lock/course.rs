//! The course of a pixel over the parts of a scan: whether it is that of a detector, of an edge that passes, or of none at all.

use super::evidence::PARTS;

/// Over the parts.
pub(super) fn root_mean_square(values: [f32; PARTS]) -> f32 {
    let squares: f32 = values.iter().map(|value| value * value).sum();
    (squares / PARTS as f32).sqrt()
}

/// Root mean square of what a drift (a straight line) or a step (two levels, and between them a part in which it happened) leaves of the `course` of an
/// anomaly over the parts of a scan, whichever leaves less.
pub(super) fn left_by_a_detector(course: &[f32; PARTS]) -> f32 {
    let away = |values: &[f32], level: f32| -> f32 {
        values.iter().map(|value| (value - level).powi(2)).sum()
    };
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    let time = |part: usize| part as f32 - 0.5 * (PARTS - 1) as f32;
    let spread: f32 = (0..PARTS).map(|part| time(part).powi(2)).sum();
    let along: f32 = (0..PARTS).map(|part| time(part) * course[part]).sum();
    let line = away(course, mean(course)) - along * along / spread;
    let step = |at: usize| {
        let (before, after) = (&course[..at], &course[at + 1..]);
        let levels = [mean(before), mean(after)];
        let between = course[at].clamp(levels[0].min(levels[1]), levels[0].max(levels[1]));
        away(before, levels[0]) + away(after, levels[1]) + (course[at] - between).powi(2)
    };
    let least = (1..PARTS - 1).map(step).fold(line.max(0.0), f32::min);
    (least / PARTS as f32).sqrt()
}

/// Whether `own` goes along with `around`, by the slope of the line through the parts; `None` where these hardly change.
pub(super) fn follows(own: &[f32; PARTS], around: &[f32; PARTS]) -> Option<bool> {
    // a change of line integrals by this much is far beyond what a pixel that responds is wrong by
    const ENOUGH: f32 = 0.03;
    let mean = |values: &[f32; PARTS]| values.iter().sum::<f32>() / PARTS as f32;
    let (own_mean, around_mean) = (mean(own), mean(around));
    let (mut both, mut power) = (0.0, 0.0);
    for (o, a) in own.iter().zip(around) {
        both += (o - own_mean) * (a - around_mean);
        power += (a - around_mean).powi(2);
    }
    (power > PARTS as f32 * ENOUGH * ENOUGH).then(|| (0.5..=2.0).contains(&(both / power)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_and_steps_are_those_of_a_detector_and_edges_that_pass_are_not() {
        let drift = std::array::from_fn(|part| 3.0 - 2.0 * part as f32);
        let step = [-5.0, -5.0, -5.0, 1.0, 7.0, 7.0, 7.0, 7.0];
        assert!(left_by_a_detector(&drift) < 1e-5 && left_by_a_detector(&step) < 1e-5);
        // the fourth difference of an edge that moves over three columns in the course of a scan
        let edge = [2.0, 6.0, 12.0, 8.0, -10.0, -17.0, -18.0, -11.0];
        assert!(left_by_a_detector(&edge) > 0.25 * root_mean_square(edge));
        // a part between the levels must lie between them
        let spike = [-5.0, -5.0, -5.0, 20.0, 7.0, 7.0, 7.0, 7.0];
        assert!(left_by_a_detector(&spike) > 4.0);
    }

    #[test]
    fn a_pixel_follows_by_the_slope_where_there_is_one() {
        let around = std::array::from_fn(|part| 0.1 * part as f32);
        assert_eq!(follows(&around.map(|v| 0.3 + 0.9 * v), &around), Some(true));
        assert_eq!(follows(&[0.3; PARTS], &around), Some(false));
        assert_eq!(follows(&around, &[0.3; PARTS]), None);
    }
}
