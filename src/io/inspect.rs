//! What is in a scan: everything a person checks before a run, and every problem found.

use std::f64::consts::PI;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::InputConfig;
use crate::error::Result;
use crate::scan::{FrameGroup, FrameStack, PixelType, Scan};

/// Frames looked at for the statistics of each kind, spread evenly.
const FRAMES_LOOKED_AT: usize = 5;

/// What [`scan`] found; `inspect --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScanSummary {
    /// The file or folder.
    pub path: String,
    /// `NXtomo`, `DXchange`, `HDF5`, `TIFF folder` or `TIFF file`.
    pub layout: String,
    /// Where the projections are stored.
    pub data: String,
    /// Projections used.
    pub n_projections: usize,
    /// Detector rows.
    pub n_rows: usize,
    /// Detector columns.
    pub n_cols: usize,
    /// Stored type of the projections.
    pub pixel_type: PixelType,
    /// Bytes of all projections, uncompressed.
    pub projection_bytes: u64,
    /// The angles.
    pub angles: AngleSummary,
    /// Groups of flats, in the order of time.
    pub flats: Vec<GroupSummary>,
    /// Groups of darks, in the order of time.
    pub darks: Vec<GroupSummary>,
    /// Size of a detector pixel at the sample \[um\], where known.
    pub pixel_size_um: Option<f64>,
    /// Start of the scan, as written.
    pub start_time: Option<String>,
    /// Statistics of a few projections.
    pub projection_counts: CountSummary,
    /// Statistics of a few flats.
    pub flat_counts: Option<CountSummary>,
    /// Statistics of a few darks.
    pub dark_counts: Option<CountSummary>,
    /// Everything that a person should read; empty where all is well.
    pub problems: Vec<String>,
    /// Files that belong to the scan.
    pub n_files: usize,
}

/// Angles of the projections \[degrees\].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AngleSummary {
    /// Of the first projection.
    pub first_deg: f64,
    /// Of the last projection.
    pub last_deg: f64,
    /// Median step; negative where the angles fall.
    pub step_deg: f64,
    /// Largest minus smallest.
    pub range_deg: f64,
    /// Where they came from, and their unit there.
    pub source: String,
    /// Distance of the nearest view from 180 degrees after the first \[degrees\]; nothing for less than half a turn.
    pub half_turn_offset_deg: Option<f64>,
}

/// A group of flats or darks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupSummary {
    /// Frames in the group.
    pub n_frames: usize,
    /// Projections before it.
    pub at_projection: f64,
}

/// Counts of a few frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountSummary {
    /// Frames looked at.
    pub n_frames: usize,
    /// Least finite count.
    pub min: f64,
    /// Largest finite count.
    pub max: f64,
    /// Mean of the finite counts.
    pub mean: f64,
    /// Pixels of all frames looked at.
    pub n_pixels: u64,
    /// Pixels at the end of the range: of the type, or of a 12 or 14 bit camera where that is the largest count.
    pub n_saturated: u64,
    /// Pixels that are zero.
    pub n_zero: u64,
    /// Pixels that are NaN or infinite.
    pub n_not_finite: u64,
}

/// Opens a scan, reads a few frames, and says what is there and what is wrong with it.
///
/// # Errors
/// Those of [`super::open_scan`], and frames that cannot be read.
pub fn scan(path: &Path, input: &InputConfig, pixel_size_um: Option<f64>) -> Result<ScanSummary> {
    summarise(&super::open_scan(path, input, pixel_size_um)?)
}

/// As [`scan`], for one that is open already.
///
/// # Errors
/// Frames that cannot be read.
pub fn summarise(scan: &Scan) -> Result<ScanSummary> {
    let projection_counts = count(&*scan.projections, &scan.projection_frames)?;
    let of_groups = |stack: &Option<Box<dyn FrameStack>>,
                     groups: &[FrameGroup]|
     -> Result<Option<CountSummary>> {
        let frames: Vec<usize> = groups
            .iter()
            .flat_map(|group| group.frames.iter().copied())
            .collect();
        stack
            .as_deref()
            .filter(|_| !frames.is_empty())
            .map(|stack| count(stack, &frames))
            .transpose()
    };
    let flat_counts = of_groups(&scan.flats, &scan.flat_groups)?;
    let dark_counts = of_groups(&scan.darks, &scan.dark_groups)?;
    let groups = |groups: &[FrameGroup]| {
        groups
            .iter()
            .map(|group| GroupSummary {
                n_frames: group.frames.len(),
                at_projection: group.at_projection,
            })
            .collect()
    };
    let angles = angle_summary(&scan.angles_rad, &scan.angle_source);
    let mut problems = scan.warnings.clone();
    problems.extend(angle_problems(&scan.angles_rad, &angles));
    problems.extend(count_problems("projections", Some(&projection_counts)));
    problems.extend(count_problems("flats", flat_counts.as_ref()));
    problems.extend(count_problems("darks", dark_counts.as_ref()));
    if let (Some(flats), Some(darks)) = (&flat_counts, &dark_counts)
        && flats.mean <= darks.mean
    {
        problems.push(format!(
            "the flats ({:.1} counts on average) are not brighter than the darks ({:.1}): are they exchanged?",
            flats.mean, darks.mean
        ));
    }
    if scan.pixel_size_um.is_none() {
        problems.push(
            "the pixel size is not known: attenuation will be per pixel; give pixel_size_um".into(),
        );
    }
    let [_, n_rows, n_cols] = scan.projections.shape();
    let pixel_type = scan.projections.pixel_type();
    Ok(ScanSummary {
        path: scan.path.display().to_string(),
        layout: scan.layout.clone(),
        data: scan.projections.describe(),
        n_projections: scan.n_angles(),
        n_rows,
        n_cols,
        pixel_type,
        projection_bytes: (scan.n_angles() * n_rows * n_cols * pixel_type.bytes()) as u64,
        angles,
        flats: groups(&scan.flat_groups),
        darks: groups(&scan.dark_groups),
        pixel_size_um: scan.pixel_size_um,
        start_time: scan.start_time.clone(),
        projection_counts,
        flat_counts,
        dark_counts,
        problems,
        n_files: scan.files.len(),
    })
}

/// Statistics of a few of the frames, one in memory at a time.
fn count(stack: &dyn FrameStack, frames: &[usize]) -> Result<CountSummary> {
    let [_, rows, cols] = stack.shape();
    let n_frames = frames.len().min(FRAMES_LOOKED_AT);
    let mut counts = vec![0f32; rows * cols];
    let mut summary = CountSummary {
        n_frames,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        mean: 0.0,
        n_pixels: (n_frames * rows * cols) as u64,
        n_saturated: 0,
        n_zero: 0,
        n_not_finite: 0,
    };
    // How often each of the levels at which cameras end occurs.
    let levels = saturation_levels(stack.pixel_type());
    let mut at_level = vec![0u64; levels.len()];
    let mut sum = 0.0;
    for i in 0..n_frames {
        let frame = if n_frames > 1 {
            i * (frames.len() - 1) / (n_frames - 1)
        } else {
            0
        };
        stack.read(&frames[frame..=frame], 0..rows, &mut counts)?;
        for &value in &counts {
            if !value.is_finite() {
                summary.n_not_finite += 1;
                continue;
            }
            let value = f64::from(value);
            sum += value;
            summary.min = summary.min.min(value);
            summary.max = summary.max.max(value);
            summary.n_zero += u64::from(value == 0.0);
            for (level, n) in levels.iter().zip(&mut at_level) {
                *n += u64::from(value == *level);
            }
        }
    }
    summary.mean = sum / (summary.n_pixels - summary.n_not_finite) as f64;
    if let Some(level) = levels.iter().position(|level| *level == summary.max) {
        summary.n_saturated = at_level[level];
    }
    Ok(summary)
}

fn saturation_levels(pixel: PixelType) -> &'static [f64] {
    match pixel {
        PixelType::U8 => &[255.0],
        PixelType::U16 => &[4095.0, 16383.0, 65535.0],
        PixelType::I16 => &[4095.0, 16383.0, 32767.0],
        // f32 cannot tell the last few counts of a 32 bit integer apart, and no camera reaches them.
        PixelType::U32 | PixelType::I32 => &[4095.0, 16383.0, 65535.0],
        PixelType::F32 | PixelType::F64 => &[],
    }
}

fn count_problems(what: &str, counts: Option<&CountSummary>) -> Vec<String> {
    let mut problems = Vec::new();
    let Some(counts) = counts else {
        return problems;
    };
    let share = |n: u64| 100.0 * n as f64 / counts.n_pixels as f64;
    if counts.n_saturated > 0 {
        problems.push(format!(
            "{:.3} % of the pixels of the {what} are saturated at {}",
            share(counts.n_saturated),
            counts.max
        ));
    }
    if counts.n_not_finite > 0 {
        problems.push(format!(
            "{:.3} % of the pixels of the {what} are not finite",
            share(counts.n_not_finite)
        ));
    }
    if counts.n_zero == counts.n_pixels && what != "darks" {
        problems.push(format!("the {what} looked at are zero everywhere"));
    } else if counts.n_zero > 0 && what != "darks" {
        problems.push(format!(
            "{:.3} % of the pixels of the {what} are zero",
            share(counts.n_zero)
        ));
    }
    problems
}

fn angle_summary(angles_rad: &[f64], source: &str) -> AngleSummary {
    let deg: Vec<f64> = angles_rad.iter().map(|angle| angle.to_degrees()).collect();
    let mut steps: Vec<f64> = deg.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps.sort_by(f64::total_cmp);
    let range = deg.iter().copied().fold(f64::NEG_INFINITY, f64::max)
        - deg.iter().copied().fold(f64::INFINITY, f64::min);
    let first = deg[0];
    let step = steps.get(steps.len() / 2).copied().unwrap_or(0.0);
    let offset = deg
        .iter()
        .map(|angle| ((angle - first).abs() - 180.0).abs())
        .fold(f64::INFINITY, f64::min);
    AngleSummary {
        first_deg: first,
        last_deg: deg[deg.len() - 1],
        step_deg: step,
        range_deg: range,
        source: source.to_string(),
        half_turn_offset_deg: (range >= 180.0 - 1.5 * step.abs()).then_some(offset),
    }
}

/// What is odd about the angles: too few, gaps, repeats, turning back, a half turn that no view closes.
fn angle_problems(angles_rad: &[f64], summary: &AngleSummary) -> Vec<String> {
    let mut problems = Vec::new();
    let n = angles_rad.len();
    let step = summary.step_deg.abs();
    if n < 2 || step == 0.0 {
        problems.push(format!(
            "{n} projections at {} to {} degrees make no tomogram",
            summary.first_deg, summary.last_deg
        ));
        return problems;
    }
    // A scan over [0, 180) covers the half turn with its last step.
    if summary.range_deg + 1.5 * step < 180.0 {
        problems.push(format!(
            "the angles cover {:.2} degrees, less than half a turn",
            summary.range_deg
        ));
    }
    let steps: Vec<f64> = angles_rad
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).to_degrees() * summary.step_deg.signum())
        .collect();
    let irregular = |test: &dyn Fn(f64) -> bool| {
        steps
            .iter()
            .enumerate()
            .filter(|(_, step)| test(**step))
            .map(|(i, _)| i + 1)
            .collect::<Vec<_>>()
    };
    let mut say = |found: Vec<usize>, what: &str| {
        if let Some(first) = found.first() {
            problems.push(format!(
                "{} {what}, first at projection {first}",
                found.len()
            ));
        }
    };
    say(
        irregular(&|d| d > 1.5 * step),
        "steps of the angles are more than half wider than usual",
    );
    say(irregular(&|d| d < 0.0), "steps of the angles go backwards");
    say(
        irregular(&|d| (0.0..0.5 * step).contains(&d)),
        "steps of the angles are less than half of the usual, or none",
    );
    if (summary.range_deg - 360.0).abs() < 0.5 * step {
        problems
            .push("the last view repeats the first (both ends of a full turn are there)".into());
    } else if summary.range_deg > 360.0 {
        problems.push(format!(
            "the angles cover {:.3} degrees, more than a full turn",
            summary.range_deg
        ));
    }
    if let Some(offset) = summary
        .half_turn_offset_deg
        .filter(|offset| *offset > 0.1 * step)
    {
        problems.push(format!(
            "no view lies 180 degrees from the first: the nearest is off by {offset:.3} degrees"
        ));
    }
    if angles_rad.iter().any(|angle| angle.abs() > 100.0 * PI) {
        problems.push("some angles are beyond 50 turns: is their unit right?".into());
    }
    problems
}

impl fmt::Display for ScanSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = |groups: &[GroupSummary]| match groups {
            [] => "none".to_string(),
            groups => groups
                .iter()
                .map(|group| {
                    format!(
                        "{} before projection {}",
                        group.n_frames, group.at_projection
                    )
                })
                .collect::<Vec<_>>()
                .join(", "),
        };
        let counts = |counts: &CountSummary| {
            format!(
                "{} to {}, mean {:.1}, {} saturated, {} zero, {} not finite ({} frames looked at)",
                counts.min,
                counts.max,
                counts.mean,
                counts.n_saturated,
                counts.n_zero,
                counts.n_not_finite,
                counts.n_frames
            )
        };
        let mut line = |name: &str, text: String| writeln!(f, "{name:<18}{text}");
        line("scan", self.path.clone())?;
        line("layout", self.layout.clone())?;
        line("data", self.data.clone())?;
        let gib = self.projection_bytes as f64 / (1u64 << 30) as f64;
        let pixel = format!("{:?}", self.pixel_type).to_lowercase();
        line(
            "projections",
            format!(
                "{} of {} rows x {} columns, {pixel}, {gib:.2} GiB",
                self.n_projections, self.n_rows, self.n_cols
            ),
        )?;
        let angles = &self.angles;
        let (first, last) = (angles.first_deg, angles.last_deg);
        line(
            "angles",
            format!(
                "{first:.4} to {last:.4} degrees, step {:.4}, range {:.4}",
                angles.step_deg, angles.range_deg
            ),
        )?;
        line("", format!("from {}", angles.source))?;
        line("flats", groups(&self.flats))?;
        line("darks", groups(&self.darks))?;
        line(
            "pixel size",
            self.pixel_size_um
                .map_or("not known".into(), |size| format!("{size} um")),
        )?;
        if let Some(start) = &self.start_time {
            line("start", start.clone())?;
        }
        line("projection counts", counts(&self.projection_counts))?;
        if let Some(flats) = &self.flat_counts {
            line("flat counts", counts(flats))?;
        }
        if let Some(darks) = &self.dark_counts {
            line("dark counts", counts(darks))?;
        }
        line("files", self.n_files.to_string())?;
        if self.problems.is_empty() {
            return line("problems", "none".into());
        }
        line("problems", self.problems.len().to_string())?;
        self.problems
            .iter()
            .try_for_each(|problem| line("", format!("- {problem}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(deg: &[f64]) -> Vec<String> {
        let rad: Vec<f64> = deg.iter().map(|angle| angle.to_radians()).collect();
        angle_problems(&rad, &angle_summary(&rad, "test"))
    }

    fn steps(n: usize, step: f64) -> Vec<f64> {
        (0..n).map(|i| i as f64 * step).collect()
    }

    #[test]
    fn regular_angles_over_a_half_turn_have_no_problem_in_either_direction() {
        assert_eq!(problems(&steps(181, 1.0)), Vec::<String>::new());
        let falling: Vec<f64> = steps(181, 1.0).iter().map(|angle| -angle).collect();
        assert_eq!(problems(&falling), Vec::<String>::new());
    }

    #[test]
    fn every_irregularity_of_the_angles_is_told_with_its_place() {
        let mut gap = steps(181, 1.0);
        gap.remove(90);
        assert!(
            problems(&gap)[0].contains("wider than usual, first at projection 90"),
            "{:?}",
            problems(&gap)
        );
        let mut back = steps(181, 1.0);
        back.swap(50, 51);
        assert!(
            problems(&back)
                .iter()
                .any(|p| p.contains("backwards, first at projection 51")),
            "{:?}",
            problems(&back)
        );
        let mut twice = steps(181, 1.0);
        twice.insert(20, 19.0);
        assert!(
            problems(&twice)[0].contains("less than half"),
            "{:?}",
            problems(&twice)
        );
        assert!(problems(&steps(91, 1.0))[0].contains("less than half a turn"));
        assert!(problems(&[3.0])[0].contains("no tomogram"));
        assert!(
            problems(&steps(2000, 10.0))
                .iter()
                .any(|p| p.contains("unit"))
        );
    }

    #[test]
    fn a_full_turn_of_both_ends_without_a_partner_is_told() {
        let rods = steps(376, 0.96);
        let found = problems(&rods);
        assert!(found[0].contains("repeats the first"), "{found:?}");
        assert!(found[1].contains("off by 0.480"), "{found:?}");
        assert_eq!(problems(&steps(361, 1.0)).len(), 1);
    }
}
