//! The rotation axis of a scan.
//!
//! Takes line integrals, gives the detector column of the axis as a line over height. Up to three methods are asked,
//! each at several heights, and compared:
//!
//! | method | sees | suits |
//! |---|---|---|
//! | `double-wedge` | the two seams of a half turn, through the spectrum of the whole sinogram | 180 degrees and more |
//! | `phase-correlation` | what moves in pairs of projections half a turn apart, all rows of a band | 180 degrees and more |
//! | `mirror-match` | every view against the one half a turn later | 270 degrees and more; half acquisition |
//! | `trial-slices` | the sharpest slice, every view votes; only when asked for | 180 degrees and more |
//!
//! Rows without sample are not asked. Columns that answer wrongly are interpolated first, and what stands still
//! leaves the two methods that compare views. The phase correlation reads a few whole views, not every view of a row, so it is asked at three
//! times as many heights. Of the methods that follow their own line over height, the most precise is taken. A doubt is told ([`AxisFit::agree`], [`AxisFit::notes`]), never guessed away.

#[cfg(test)]
mod calibration;
mod columns;
mod double_wedge;
mod fit;
mod heights;
mod mirror;
mod montage;
mod overlap_360;
mod phase_correlation;
#[cfg(test)]
mod real_data;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trial_slices;
mod verdict;
mod views;

use std::collections::BTreeMap;
use std::ops::Range;

use ndarray::{Array2, Axis};
use serde::{Deserialize, Serialize};

pub(crate) use montage::write_tiles;
pub use montage::{candidates, montage};

use crate::config::{CenterConfig, CenterMethod};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::record::AxisCorrection;
use crate::scan::SinogramSource;
use fit::Point;
use overlap_360::Matches;
use views::Views;

/// The rotation axis as a line over height: column `axis_px + slope * (row - middle_row)`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AxisFit {
    /// Column at `middle_row` \[px\], 0-based, integer = pixel centre.
    pub axis_px: f64,
    /// Lean \[px per row\].
    pub slope_px_per_row: f64,
    /// One standard deviation of `axis_px` \[px\].
    pub uncertainty_px: f64,
    /// Row at which `axis_px` holds.
    pub middle_row: f64,
    /// Each method's answers.
    pub methods: BTreeMap<String, MethodAnswers>,
    /// Whether the methods agree within the tolerance.
    pub agree: bool,
    /// How the line was chosen, and what a person should know.
    pub notes: Vec<String>,
}

/// The answers of one method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MethodAnswers {
    /// Heights asked.
    pub rows: Vec<f64>,
    /// Answer at each height \[px\].
    pub axis_px: Vec<f64>,
}

impl AxisFit {
    /// Column of the axis at detector row `row` \[px\].
    #[must_use]
    pub fn at(&self, row: f64) -> f64 {
        self.axis_px + self.slope_px_per_row * (row - self.middle_row)
    }

    /// Adds what was found against the axis of the scan `reference`.
    pub fn correct(&mut self, correction: &AxisCorrection, reference: &str) {
        let by = correction.at(self.middle_row);
        self.axis_px += by;
        self.slope_px_per_row += correction.slope_px_per_row;
        self.notes.push(format!(
            "Moved by {by:.3} px and leant by {:.5} px per row, to stand as the axis of {reference} does.",
            correction.slope_px_per_row
        ));
    }
}

/// What one method says about one height.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Answer {
    /// Column of the axis \[px\].
    axis_px: f64,
    /// One standard deviation, from independent parts of the data \[px\].
    sigma_px: f64,
    /// 0 (chance) to 1 (certain): depth of the minimum, or lead of the peak.
    quality: f64,
}

/// One method's points, and why heights are missing.
struct Asked {
    name: &'static str,
    points: Vec<Point>,
    qualities: Vec<f64>,
    refusals: Vec<(f64, String)>,
    /// What all heights may be wrong by together, one standard deviation \[px\]; their scatter does not show it.
    systematic_px: f64,
}

impl Asked {
    fn new(name: &'static str) -> Asked {
        Asked {
            name,
            points: Vec::new(),
            qualities: Vec::new(),
            refusals: Vec::new(),
            systematic_px: 0.0,
        }
    }

    fn note(&mut self, row: f64, answer: std::result::Result<Answer, String>) {
        match answer {
            Ok(a) => {
                self.points.push(Point {
                    row,
                    axis_px: a.axis_px,
                    sigma_px: a.sigma_px,
                });
                self.qualities.push(a.quality);
            }
            Err(reason) => self.refusals.push((row, reason)),
        }
    }
}

/// What phase correlation may be wrong by where it is carried on to pairs exactly half a turn apart \[px\].
const CARRIED_ON_PX: f64 = 0.1;
/// What every method that compares the two ends of a half turn may be wrong by: half of what the sample and the stage moved
/// meanwhile, the same at every height. Without it the heights of a real scan (a grain in a capillary, 180 degrees) gave 0.01 px for
/// both methods, while the axis of the sharpest slices, which rests on all views, was 0.10 +- 0.03 px elsewhere.
const ENDS_PX: f64 = 0.05;
/// What it may be wrong by where what stands still could not be told from the sample \[px\].
const STANDING_PX: f64 = 0.25;
/// Views that the mirror match compares, at most: more do not narrow the answer further.
const MIRROR_VIEWS: usize = 1500;

/// Finds the axis, or takes the one given in `config`. The result says whether the methods agree; the caller decides.
///
/// # Errors
/// Those of the source; [`Error::CenterDisagrees`] when no height gives an answer.
pub fn find(
    source: &dyn SinogramSource,
    config: &CenterConfig,
    progress: &Progress,
) -> Result<AxisFit> {
    find_at_rows(source, &[], config, progress)
}

/// As [`find`], at the detector rows `rows` instead of heights spread over the sample; empty: as [`find`].
///
/// # Errors
/// As [`find`]; [`Error::Config`] for a row that the detector does not have.
pub fn find_at_rows(
    source: &dyn SinogramSource,
    rows: &[usize],
    config: &CenterConfig,
    progress: &Progress,
) -> Result<AxisFit> {
    let (n_rows, n_cols) = (source.n_rows(), source.n_cols());
    let middle_row = (n_rows as f64 - 1.0) / 2.0;
    if let Some(&row) = rows.iter().find(|&&row| row >= n_rows) {
        return Err(Error::config(
            "--row",
            row,
            format!("the detector has rows 0 to {}", n_rows.saturating_sub(1)),
        ));
    }
    if let Some(axis_px) = config.value {
        return Ok(AxisFit {
            axis_px,
            slope_px_per_row: config.slope,
            middle_row,
            agree: true,
            notes: vec!["The axis was given by hand; nothing was searched.".into()],
            ..AxisFit::default()
        });
    }
    let views = Views::new(source.angles_rad()).filter(Views::has_half_turn).ok_or_else(|| {
        let range = Views::new(source.angles_rad()).map_or("fewer than 3 different angles".into(), |views| {
            let range = views.range_deg();
            format!(
                "{:.2} to {:.2} degrees, widest gap {:.2}",
                range.start(),
                range.end(),
                views.widest_gap.to_degrees()
            )
        });
        in_doubt(
            format!("the rotation axis cannot be found: every method needs half a turn without gaps, found {range}"),
            n_cols,
        )
    })?;
    let middle = (n_cols as f64 - 1.0) / 2.0;
    let within = |half: f64| {
        (
            (middle - half).max(2.0),
            (middle + half).min(n_cols as f64 - 3.0),
        )
    };
    let range_px = within(if config.search_px > 0.0 {
        config.search_px
    } else {
        n_cols as f64 / 4.0
    });
    let heights = heights::choose(source, rows, config)?;

    let mut notes = heights.notes.clone();
    let mut asked = ask_sinograms(
        source, &views, config, &heights, range_px, progress, &mut notes,
    )?;
    let wants_pairs = matches!(
        config.method,
        CenterMethod::Auto | CenterMethod::PhaseCorrelation
    );
    if let Some(note) = half_acquisition(&mut asked, range_px) {
        notes.push(note);
    } else if wants_pairs {
        asked.push(ask_projections(
            source, &views, &heights, range_px, progress, &mut notes,
        )?);
    }
    verdict::judge(&asked, config, verdict::Detector { n_rows, n_cols }, notes)
}

/// The methods that read sinograms, at every height.
fn ask_sinograms(
    source: &dyn SinogramSource,
    views: &Views,
    config: &CenterConfig,
    heights: &heights::Heights,
    range_px: (f64, f64),
    progress: &Progress,
    notes: &mut Vec<String>,
) -> Result<Vec<Asked>> {
    let full_turn = views.has_full_turn();
    let wants_wedge = matches!(
        config.method,
        CenterMethod::Auto | CenterMethod::DoubleWedge
    );
    let wants_mirror = match config.method {
        CenterMethod::Auto => full_turn,
        CenterMethod::MirrorMatch => true,
        _ => false,
    };
    let wants_trial = config.method == CenterMethod::TrialSlices;
    if !wants_wedge && !wants_mirror && !wants_trial {
        return Ok(Vec::new());
    }
    let n_cols = source.n_cols() as f64;
    // by default a full turn is searched up to strips of 5 % of the detector
    let mirror_range = if config.search_px > 0.0 {
        range_px
    } else {
        (0.025 * n_cols, n_cols - 1.0 - 0.025 * n_cols)
    };
    let opposites = if wants_mirror {
        views.opposites(MIRROR_VIEWS)
    } else {
        Vec::new()
    };
    let starts: &[f64] = if full_turn {
        &[0.0, std::f64::consts::FRAC_PI_2]
    } else {
        &[0.0]
    };
    let half_turns: Vec<_> = starts
        .iter()
        .filter_map(|&start| views.half_turn(start))
        .collect();

    let stage = progress.stage("Rotation axis", heights.slabs.len() as u64, "heights");
    let mut mended = 0;
    let (mut wedge, mut mirror) = (Asked::new("double-wedge"), Asked::new("mirror-match"));
    let mut trial = Asked::new("trial-slices");
    let mut matched = Vec::new();
    if !full_turn {
        wedge.systematic_px = ENDS_PX;
    }
    let sinogram_at = |slab: &Range<usize>| -> Result<(Array2<f32>, usize)> {
        let rows = source.sinograms(slab.clone())?;
        let mut sinogram = match rows.len_of(Axis(0)) {
            1 => rows.index_axis_move(Axis(0), 0),
            _ => rows
                .mean_axis(Axis(0))
                .expect("a height has at least one row"),
        };
        let mended = columns::mend(&mut sinogram);
        Ok((sinogram, mended))
    };
    let mut search = |slab: &Range<usize>, sinogram: Array2<f32>| {
        let row = 0.5 * (slab.start + slab.end - 1) as f64;
        let mut near_the_edge = false;
        if wants_mirror {
            let matches = Matches::new(sinogram.view(), &opposites);
            let alone = matches.as_ref().map(|m| m.search(range_px, mirror_range));
            near_the_edge = matches!(alone, Ok(Ok((_, true))));
            matched.push((row, matches));
        }
        if wants_wedge && !near_the_edge {
            let halves: Vec<Array2<f32>> = half_turns
                .iter()
                .map(|half| views::resample(sinogram.view(), half))
                .collect();
            wedge.note(row, double_wedge::search(&halves, range_px));
        }
        if wants_trial {
            trial.note(
                row,
                trial_slices::search(&sinogram, source.angles_rad(), range_px),
            );
        }
        stage.inc(1);
    };
    // a row is read and corrected on one thread: that of the next height beside the search of this one
    let mut slabs = heights.slabs.iter().peekable();
    let mut next = slabs.peek().map(|slab| sinogram_at(slab));
    while let (Some(slab), Some(read)) = (slabs.next(), next.take()) {
        let (sinogram, wrong) = read?;
        mended = mended.max(wrong);
        let following = slabs.peek();
        let ((), read) = rayon::join(
            || search(slab, sinogram),
            || following.map(|slab| sinogram_at(slab)),
        );
        next = read;
    }
    let lean = config.max_lean_deg.to_radians().tan();
    for (row, answer) in overlap_360::search_heights(&matched, lean, range_px, mirror_range) {
        mirror.note(row, answer);
    }
    if mended > 0 {
        notes.push(format!(
            "Up to {mended} columns of a row answer wrongly and were interpolated for the search."
        ));
    }
    let used = |asked: &Asked| !asked.points.is_empty() || !asked.refusals.is_empty();
    Ok([mirror, wedge, trial].into_iter().filter(used).collect())
}

/// Phase correlation, over bands of rows.
fn ask_projections(
    source: &dyn SinogramSource,
    views: &Views,
    heights: &heights::Heights,
    range_px: (f64, f64),
    progress: &Progress,
    notes: &mut Vec<String>,
) -> Result<Asked> {
    // a point at the rim moves by at most a quarter of a pixel between such a pair
    let tolerance = 0.5 / source.n_cols() as f64;
    let pairs = views.opposite_pairs(tolerance, 4);
    let mut asked = Asked::new("phase-correlation");
    if pairs.near.is_empty() {
        notes.push(
            "No two projections are half a turn apart, so phase correlation was not asked.".into(),
        );
        return Ok(asked);
    }
    if !pairs.far.is_empty() {
        notes.push(format!(
            "No projections are half a turn apart within {:.3} degrees; phase correlation was taken at {:.3} and {:.3} \
             degrees off, and carried on to 0.",
            tolerance.to_degrees(),
            pairs.near_miss.to_degrees(),
            pairs.far_miss.to_degrees()
        ));
    }
    let stage = progress.stage("Rotation axis, opposite views", 1, "step");
    let found = phase_correlation::search(source, &pairs, &heights.bands, range_px)?;
    stage.inc(1);
    if !views.has_full_turn() {
        asked.systematic_px = ENDS_PX;
    }
    if !pairs.far.is_empty() {
        asked.systematic_px = asked.systematic_px.hypot(CARRIED_ON_PX);
    }
    if !found.standing_removed {
        // stripes may have answered in place of the sample
        asked.systematic_px = STANDING_PX;
        notes.push(
            "Little of the sample moves from view to view, so phase correlation was taken with what stands still.".into(),
        );
    }
    for (band, answer) in heights.bands.iter().zip(found.answers) {
        asked.note(0.5 * (band.start + band.end - 1) as f64, answer);
    }
    Ok(asked)
}

/// Where most heights match near the edge of the detector, the methods for a centred sample are left out.
fn half_acquisition(asked: &mut Vec<Asked>, range_px: (f64, f64)) -> Option<String> {
    let mirror = asked.iter().find(|a| a.name == "mirror-match")?;
    let outside = mirror
        .points
        .iter()
        .filter(|p| p.axis_px < range_px.0 || p.axis_px > range_px.1)
        .count();
    if 2 * outside <= mirror.points.len() {
        return None;
    }
    asked.retain(|a| a.name == "mirror-match");
    Some("The axis stands near the edge of the detector (half acquisition); only the mirror match suits that.".into())
}

/// The error of an axis in doubt.
fn in_doubt(problem: String, n_cols: usize) -> Error {
    Error::CenterDisagrees {
        problem,
        hint: format!(
            "look at the montage of `tomodelta center` and pass --axis COL (the detector's middle is {})",
            (n_cols as f64 - 1.0) / 2.0
        ),
    }
}
