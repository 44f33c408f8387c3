//! A robust line through the answers at several heights.

use crate::stats::median;

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// Detector row.
    pub(super) row: f64,
    /// Column of the axis \[px\].
    pub(super) axis_px: f64,
    /// One standard deviation as the method sees it \[px\].
    pub(super) sigma_px: f64,
}

/// The line of one method.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Column at the middle row \[px\].
    pub(super) axis_px: f64,
    /// Lean \[px per row\]; 0 when it is not distinguishable from none.
    pub(super) slope: f64,
    /// One standard deviation of `axis_px` \[px\].
    pub(super) sigma_px: f64,
    /// Answers that the line follows.
    pub(super) kept: usize,
    /// The lean that was found but not believed, because it exceeds the limit \[px per row\].
    pub(super) refused_slope: Option<f64>,
}

/// Nothing in a scan fixes the axis better than this \[px\].
const FLOOR_PX: f64 = 0.01;

/// Fits `axis = axis_px + slope * (row - middle_row)`: Theil-Sen start, then reweighted least squares with Tukey's
/// biweight (Holland & Welsch 1977, constant 4.685), each answer also weighted by its own variance.
///
/// The slope is kept when it exceeds what the scatter explains at 95 % (Student's t), else the line is level; a slope
/// beyond `max_slope` \[px per row\] is refused. The standard deviation follows from the scatter about the line,
/// and is not less than the methods' own. `None` without points.
pub(super) fn fit(points: &[Point], middle_row: f64, max_slope: f64) -> Option<Line> {
    let n = points.len();
    if n == 0 {
        return None;
    }
    // the median: one height that is lost says little about the others
    let own = median(points.iter().map(|p| p.sigma_px).collect()).max(FLOOR_PX);
    if n < 3 {
        let axis_px = points.iter().map(|p| p.axis_px).sum::<f64>() / n as f64;
        let spread = if n == 2 {
            0.5 * (points[0].axis_px - points[1].axis_px).abs()
        } else {
            0.0
        };
        return Some(Line {
            axis_px,
            slope: 0.0,
            sigma_px: (own / (n as f64).sqrt()).max(spread),
            kept: n,
            refused_slope: None,
        });
    }
    let leaning = reweighted(points, middle_row, own, true);
    let freedom = leaning.kept.saturating_sub(2);
    let significant =
        freedom > 0 && leaning.slope.abs() > student_95(freedom) * leaning.slope_sigma;
    let refused = leaning.slope.abs() > max_slope;
    let chosen = if significant && !refused {
        leaning
    } else {
        reweighted(points, middle_row, own, false)
    };
    Some(Line {
        axis_px: chosen.axis_px,
        slope: chosen.slope,
        sigma_px: chosen.sigma_px.max(FLOOR_PX),
        kept: chosen.kept,
        refused_slope: (significant && refused).then_some(leaning.slope),
    })
}

#[derive(Clone, Copy)]
struct Estimate {
    axis_px: f64,
    slope: f64,
    sigma_px: f64,
    slope_sigma: f64,
    kept: usize,
}

fn reweighted(points: &[Point], middle_row: f64, own: f64, leaning: bool) -> Estimate {
    let x: Vec<f64> = points.iter().map(|p| p.row - middle_row).collect();
    let mut slope = if leaning { theil_sen(&x, points) } else { 0.0 };
    let mut axis = median(
        points
            .iter()
            .zip(&x)
            .map(|(p, x)| p.axis_px - slope * x)
            .collect(),
    );
    let mut weights = vec![0.0; points.len()];
    let (mut axis_var, mut slope_var, mut kept) = (own * own, f64::INFINITY, points.len());
    for _ in 0..30 {
        let residuals: Vec<f64> = points
            .iter()
            .zip(&x)
            .map(|(p, x)| p.axis_px - axis - slope * x)
            .collect();
        // 1.4826: from the median of absolute values to the standard deviation of a normal distribution
        let scale = (1.4826 * median(residuals.iter().map(|r| r.abs()).collect())).max(own);
        let cut = 4.685 * scale;
        for ((weight, residual), point) in weights.iter_mut().zip(&residuals).zip(points) {
            let u = residual / cut;
            let tukey = if u.abs() < 1.0 {
                (1.0 - u * u).powi(2)
            } else {
                0.0
            };
            *weight = tukey / (scale * scale + point.sigma_px.powi(2));
        }
        let sum =
            |f: &dyn Fn(usize) -> f64| (0..points.len()).map(|i| weights[i] * f(i)).sum::<f64>();
        let (w, wx, wxx) = (sum(&|_| 1.0), sum(&|i| x[i]), sum(&|i| x[i] * x[i]));
        let (wy, wxy) = (
            sum(&|i| points[i].axis_px),
            sum(&|i| x[i] * points[i].axis_px),
        );
        if w <= 0.0 {
            break;
        }
        let det = w * wxx - wx * wx;
        let with_slope = leaning && det > 1e-12 * w * wxx.max(1e-300);
        (axis, slope) = if with_slope {
            ((wxx * wy - wx * wxy) / det, (w * wxy - wx * wy) / det)
        } else {
            (wy / w, 0.0)
        };
        let follows = |i: &usize| weights[*i] > 0.0;
        kept = (0..points.len()).filter(follows).count();
        let parameters = if with_slope { 2.0 } else { 1.0 };
        let squares: f64 = (0..points.len())
            .filter(follows)
            .map(|i| (points[i].axis_px - axis - slope * x[i]).powi(2))
            .sum();
        let variance = (squares / (kept as f64 - parameters).max(1.0)).max(own * own);
        // the weights relative to their largest, so that they count answers
        let top = weights.iter().copied().fold(0.0, f64::max);
        let (axis_unit, slope_unit) = if with_slope {
            (wxx / det * top, w / det * top)
        } else {
            (top / w, f64::INFINITY)
        };
        (axis_var, slope_var) = (variance * axis_unit, variance * slope_unit);
    }
    Estimate {
        axis_px: axis,
        slope,
        sigma_px: axis_var.sqrt(),
        slope_sigma: slope_var.sqrt(),
        kept,
    }
}

fn theil_sen(x: &[f64], points: &[Point]) -> f64 {
    let mut slopes = Vec::new();
    for i in 0..points.len() {
        for j in 0..i {
            if (x[i] - x[j]).abs() > 1e-9 {
                slopes.push((points[i].axis_px - points[j].axis_px) / (x[i] - x[j]));
            }
        }
    }
    if slopes.is_empty() {
        0.0
    } else {
        median(slopes)
    }
}

/// Two-sided 95 % quantile of Student's t.
fn student_95(freedom: usize) -> f64 {
    const TABLE: [f64; 10] = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23];
    TABLE.get(freedom.saturating_sub(1)).copied().unwrap_or(2.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(row: f64, axis_px: f64) -> Point {
        Point {
            row,
            axis_px,
            sigma_px: 0.05,
        }
    }

    #[test]
    fn a_leaning_axis_is_found_through_two_outliers_of_nine() {
        let wobble = [0.03, -0.02, 0.01, -0.04, 0.02, 0.0, -0.01, 0.03, -0.02];
        let mut points: Vec<Point> = (0..9)
            .map(|k| {
                point(
                    100.0 * k as f64,
                    500.0 + 0.004 * (100.0 * k as f64 - 400.0) + wobble[k],
                )
            })
            .collect();
        points[1].axis_px += 30.0;
        points[6].axis_px -= 12.0;
        let line = fit(&points, 400.0, 0.05).unwrap();
        assert!(
            (line.axis_px - 500.0).abs() < 0.04 && (line.slope - 0.004).abs() < 1e-4,
            "{line:?}"
        );
        assert_eq!(line.kept, 7);
        assert!(line.sigma_px < 0.05);
        // negative control: a plain mean is off by (30 - 12) / 9
        let mean = points.iter().map(|p| p.axis_px).sum::<f64>() / 9.0;
        assert!((mean - 500.0).abs() > 1.0, "the check is blind");
    }

    #[test]
    fn scatter_alone_gives_a_level_line() {
        let points: Vec<Point> = [0.2, -0.3, 0.1, 0.25, -0.2]
            .iter()
            .enumerate()
            .map(|(k, d)| point(k as f64, 80.0 + d))
            .collect();
        let line = fit(&points, 2.0, 1.0).unwrap();
        assert_eq!(line.slope, 0.0);
        assert!(line.sigma_px > 0.05 && line.sigma_px < 0.3, "{line:?}");
    }

    #[test]
    fn a_lean_beyond_the_limit_is_refused_and_told() {
        let points: Vec<Point> = (0..7)
            .map(|k| point(10.0 * k as f64, 80.0 + k as f64))
            .collect();
        let line = fit(&points, 30.0, 0.05).unwrap();
        assert_eq!(line.slope, 0.0);
        assert!((line.refused_slope.unwrap() - 0.1).abs() < 1e-6);
        assert!(fit(&points, 30.0, 0.2).unwrap().refused_slope.is_none());
    }

    #[test]
    fn one_and_two_answers_are_enough_and_none_is_not() {
        assert!(fit(&[], 0.0, 1.0).is_none());
        assert_eq!(fit(&[point(3.0, 7.0)], 0.0, 1.0).unwrap().axis_px, 7.0);
        let two = fit(&[point(0.0, 7.0), point(1.0, 8.0)], 0.0, 1.0).unwrap();
        assert_eq!((two.axis_px, two.slope, two.sigma_px), (7.5, 0.0, 0.5));
    }
}
