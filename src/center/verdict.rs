//! From the answers of the methods to one line over height, with what a person should know about it.

use std::collections::BTreeMap;

use super::fit::{self, Line, Point};
use super::{Asked, AxisFit, MethodAnswers, in_doubt};
use crate::config::CenterConfig;
use crate::error::Result;

/// Size of the detector.
#[derive(Debug, Clone, Copy)]
pub(super) struct Detector {
    pub(super) n_rows: usize,
    pub(super) n_cols: usize,
}

struct Judged<'a> {
    asked: &'a Asked,
    line: Line,
}

/// Share of a method's answers that its line must follow for the method to count as sound.
const FOLLOWED: f64 = 0.7;

impl Judged<'_> {
    /// One standard deviation at the middle row, with what the scatter over height does not show \[px\].
    fn sigma_px(&self) -> f64 {
        self.line.sigma_px.hypot(self.asked.systematic_px)
    }

    /// Share of the answers that the line follows.
    fn share(&self) -> f64 {
        self.line.kept as f64 / self.asked.points.len().max(1) as f64
    }

    fn at(&self, row: f64, middle_row: f64) -> f64 {
        self.line.axis_px + self.line.slope * (row - middle_row)
    }
}

/// Fits a line to each method's answers, chooses one, and compares them.
///
/// # Errors
/// [`crate::Error::CenterDisagrees`] when no method gave an answer.
pub(super) fn judge(
    asked: &[Asked],
    config: &CenterConfig,
    detector: Detector,
    mut notes: Vec<String>,
) -> Result<AxisFit> {
    let middle_row = (detector.n_rows as f64 - 1.0) / 2.0;
    let max_slope = config.max_lean_deg.to_radians().tan();
    let mut judged = Vec::new();
    for asked in asked {
        let good = good_points(asked);
        if let Some(line) = fit::fit(&good, middle_row, max_slope) {
            describe(asked, &line, good.len(), config, &mut notes);
            judged.push(Judged { asked, line });
        } else if let Some((_, reason)) = asked.refusals.first() {
            notes.push(format!("{} gave no answer: {reason}.", capital(asked.name)));
        }
    }
    let Some(chosen) = choose(&judged) else {
        let reasons = notes.join(" ");
        return Err(in_doubt(
            format!("no method found the rotation axis. {reasons}"),
            detector.n_cols,
        ));
    };
    let mut agree = true;
    let mut uncertainty_px = chosen.sigma_px();
    for other in judged.iter().filter(|other| !std::ptr::eq(*other, chosen)) {
        let rows = chosen
            .asked
            .points
            .iter()
            .map(|p| p.row)
            .chain([middle_row]);
        let apart = rows
            .map(|row| (chosen.at(row, middle_row) - other.at(row, middle_row)).abs())
            .fold(0.0, f64::max);
        let scatter = 3.0 * chosen.sigma_px().hypot(other.sigma_px());
        if apart > config.tolerance_px && apart > scatter {
            agree = false;
            notes.push(format!(
                "{} and {} disagree by {apart:.2} px, more than center.tolerance_px = {} and than their scatter; look at the \
                 montage of both and pass the right one: --axis {:.2} or --axis {:.2}.",
                capital(chosen.asked.name),
                other.asked.name,
                config.tolerance_px,
                chosen.line.axis_px,
                other.line.axis_px
            ));
        } else {
            // what the other's scatter does not explain is an uncertainty of both
            uncertainty_px = uncertainty_px.max(0.5 * (apart - 2.0 * other.sigma_px()));
        }
    }
    let heights = chosen.asked.points.len() + chosen.asked.refusals.len();
    if 2 * chosen.line.kept < heights {
        agree = false;
        notes.push(format!(
            "Only {} of {heights} heights of {} support the axis; look at the montage and pass --axis COL, e.g. --axis {:.2}.",
            chosen.line.kept, chosen.asked.name, chosen.line.axis_px
        ));
    }
    if uncertainty_px > config.tolerance_px {
        agree = false;
        notes.push(format!(
            "The heights scatter so much that the axis is only known to {uncertainty_px:.1} px; look at the montage and pass \
             --axis COL, e.g. --axis {:.2}.",
            chosen.line.axis_px
        ));
    }
    notes.push(format!("The axis is that of {}.", chosen.asked.name));
    let methods: BTreeMap<String, MethodAnswers> = asked
        .iter()
        .filter(|asked| !asked.points.is_empty())
        .map(|asked| {
            let answers = MethodAnswers {
                rows: asked.points.iter().map(|p| p.row).collect(),
                axis_px: asked.points.iter().map(|p| p.axis_px).collect(),
            };
            (asked.name.to_string(), answers)
        })
        .collect();
    Ok(AxisFit {
        axis_px: chosen.line.axis_px,
        slope_px_per_row: chosen.line.slope,
        uncertainty_px,
        middle_row,
        methods,
        agree,
        notes,
    })
}

/// Answers whose quality is not far below the method's best: a shallow minimum is what rows without sample give.
fn good_points(asked: &Asked) -> Vec<Point> {
    let best = asked.qualities.iter().copied().fold(0.0, f64::max);
    asked
        .points
        .iter()
        .zip(&asked.qualities)
        .filter(|(_, q)| **q >= 0.4 * best)
        .map(|(p, _)| *p)
        .collect()
}

/// The method with the least uncertainty among those whose line at least [`FOLLOWED`] of their heights follow, if there are any;
/// the first of equals.
fn choose<'a, 'b>(judged: &'a [Judged<'b>]) -> Option<&'a Judged<'b>> {
    let least = |only_followed: bool| {
        judged
            .iter()
            .filter(|j| !only_followed || j.share() >= FOLLOWED)
            .min_by(|a, b| a.sigma_px().total_cmp(&b.sigma_px()))
    };
    least(true).or_else(|| least(false))
}

fn describe(
    asked: &Asked,
    line: &Line,
    n_good: usize,
    config: &CenterConfig,
    notes: &mut Vec<String>,
) {
    let lean = if line.slope == 0.0 {
        String::new()
    } else {
        format!(
            ", leaning by {:.3} degrees ({:.5} px per row)",
            line.slope.atan().to_degrees(),
            line.slope
        )
    };
    let heights = asked.points.len() + asked.refusals.len();
    let used = if line.kept == heights {
        format!("{heights}")
    } else {
        format!("{} of {heights}", line.kept)
    };
    notes.push(format!(
        "{}: {:.2} +- {:.2} px from {used} height{}{lean}.",
        capital(asked.name),
        line.axis_px,
        line.sigma_px,
        if heights == 1 { "" } else { "s" }
    ));
    if let Some((row, reason)) = asked.refusals.first() {
        let rest = asked.refusals.len() - 1;
        let more = if rest > 0 {
            format!(", and {rest} more heights")
        } else {
            String::new()
        };
        notes.push(format!(
            "{} gave no answer at row {row}{more}: {reason}.",
            capital(asked.name)
        ));
    }
    let shallow = asked.points.len() - n_good;
    if shallow > 0 {
        notes.push(format!(
            "{}: {shallow} answers with a weak minimum were left out.",
            capital(asked.name)
        ));
    }
    let answers = asked.points.len();
    if (line.kept as f64) < FOLLOWED * answers as f64 {
        notes.push(format!(
            "{}: {} of {answers} answers do not follow its line; it is taken only where no other method does better.",
            capital(asked.name),
            answers - line.kept
        ));
    }
    if let Some(slope) = line.refused_slope {
        notes.push(format!(
            "{} leans by {:.2} degrees over height, more than center.max_lean_deg = {}; the line was taken as level.",
            capital(asked.name),
            slope.atan().to_degrees(),
            config.max_lean_deg
        ));
    }
}

fn capital(name: &str) -> String {
    let spaced = name.replace('-', " ");
    let mut letters = spaced.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &'static str, axis: f64) -> Asked {
        let points = (0..5)
            .map(|k| Point {
                row: 10.0 * f64::from(k),
                axis_px: axis + 0.02 * f64::from(k % 3),
                sigma_px: 0.05,
            })
            .collect();
        Asked {
            name,
            points,
            qualities: vec![0.8; 5],
            refusals: Vec::new(),
            systematic_px: 0.0,
        }
    }

    fn judged(a: f64, b: f64) -> AxisFit {
        let methods = [asked("double-wedge", a), asked("phase-correlation", b)];
        judge(
            &methods,
            &CenterConfig::default(),
            Detector {
                n_rows: 41,
                n_cols: 200,
            },
            Vec::new(),
        )
        .unwrap()
    }

    #[test]
    fn methods_that_disagree_are_not_settled_by_a_guess() {
        let fit = judged(100.0, 104.0);
        assert!(!fit.agree);
        assert!(
            fit.notes
                .iter()
                .any(|n| n.contains("--axis 100.0") && n.contains("--axis 104.0")),
            "{:?}",
            fit.notes
        );
        let near = judged(100.0, 100.6);
        assert!(
            near.agree && near.uncertainty_px > 0.2 && (near.axis_px - 100.02).abs() < 0.03,
            "{near:?}"
        );
    }

    #[test]
    fn the_more_precise_of_two_methods_is_taken_unless_its_heights_leave_its_line() {
        let mut wedge = asked("double-wedge", 100.0);
        for (k, point) in wedge.points.iter_mut().enumerate() {
            point.axis_px += [0.3, -0.3, 0.2, -0.2, 0.1][k];
        }
        let mut phase = asked("phase-correlation", 100.1);
        let chosen = |methods: &[Asked]| {
            let detector = Detector {
                n_rows: 41,
                n_cols: 200,
            };
            let fit = judge(methods, &CenterConfig::default(), detector, Vec::new()).unwrap();
            let last = fit.notes.last().unwrap().clone();
            (last, fit.notes.iter().any(|n| n.contains("do not follow")))
        };
        let methods = [wedge, phase];
        let (last, doubt) = chosen(&methods);
        assert!(last.contains("phase-correlation") && !doubt, "{last}");
        // negative control: two of five heights elsewhere
        let [wedge, other] = methods;
        phase = other;
        phase.points[1].axis_px = 130.0;
        phase.points[3].axis_px = 130.0;
        let (last, doubt) = chosen(&[wedge, phase]);
        assert!(last.contains("double-wedge") && doubt, "{last}");
    }

    #[test]
    fn no_answer_at_all_says_what_to_pass() {
        let mut none = asked("double-wedge", 0.0);
        none.points.clear();
        none.qualities.clear();
        none.refusals.push((
            3.0,
            "the metric has no minimum inside the search range".into(),
        ));
        let error = judge(
            &[none],
            &CenterConfig::default(),
            Detector {
                n_rows: 4,
                n_cols: 200,
            },
            Vec::new(),
        );
        let error = error.unwrap_err();
        assert!(
            error.to_string().contains("--axis") && error.to_string().contains("minimum"),
            "{error}"
        );
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn weak_minima_do_not_vote() {
        let mut wedge = asked("double-wedge", 100.0);
        for k in 0..2 {
            wedge.points[k].axis_px = 140.0;
            wedge.qualities[k] = 0.12;
        }
        let fit = judge(
            &[wedge],
            &CenterConfig::default(),
            Detector {
                n_rows: 41,
                n_cols: 200,
            },
            Vec::new(),
        )
        .unwrap();
        assert!((fit.axis_px - 100.02).abs() < 0.05, "{fit:?}");
    }
}
