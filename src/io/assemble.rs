//! From what a layout gives (stacks, image key, angles) to a checked [`Scan`].

use std::path::PathBuf;
use std::sync::Arc;

use super::angles::{self, Angles};
use super::monitor;
use crate::config::InputConfig;
use crate::error::{Error, Result};
use crate::scan::{FrameGroup, FrameStack, Monitor, PixelType, ReadClock, Scan};

/// What a layout found, unjudged.
pub(super) struct Parts {
    pub(super) path: PathBuf,
    pub(super) layout: &'static str,
    /// Projections, and flats and darks too where there is an image key.
    pub(super) stack: Arc<dyn FrameStack>,
    /// One value per frame, and where it stands.
    pub(super) image_key: Option<(Vec<f64>, String)>,
    /// Flats in a stack of their own; they win over those of the image key.
    pub(super) flats: Option<Frames>,
    /// Darks, likewise.
    pub(super) darks: Option<Frames>,
    pub(super) angles: Angles,
    pub(super) pixel_size_um: Option<f64>,
    pub(super) start_time: Option<String>,
    pub(super) warnings: Vec<String>,
    pub(super) files: Vec<PathBuf>,
}

/// Flats or darks that are stored apart from the projections.
pub(super) struct Frames {
    pub(super) stack: Arc<dyn FrameStack>,
    /// Frames taken before the projections (or at an unknown time), and those taken after them.
    pub(super) before: Vec<usize>,
    pub(super) after: Vec<usize>,
}

impl Frames {
    /// A stack of frames of one group.
    pub(super) fn all(stack: Arc<dyn FrameStack>) -> Frames {
        Frames {
            before: (0..stack.shape()[0]).collect(),
            after: Vec::new(),
            stack,
        }
    }
}

impl FrameStack for Arc<dyn FrameStack> {
    fn shape(&self) -> [usize; 3] {
        (**self).shape()
    }
    fn pixel_type(&self) -> PixelType {
        (**self).pixel_type()
    }
    fn read(&self, frames: &[usize], rows: std::ops::Range<usize>, out: &mut [f32]) -> Result<()> {
        (**self).read(frames, rows, out)
    }
    fn decoded_bytes(&self, rows: std::ops::Range<usize>) -> u64 {
        (**self).decoded_bytes(rows)
    }
    fn describe(&self) -> String {
        (**self).describe()
    }
}

/// Sorts frames by the image key, pairs projections with angles, leaves out what the user excludes, and checks that
/// all fits.
pub(super) fn assemble(
    parts: Parts,
    input: &InputConfig,
    pixel_size_um: Option<f64>,
) -> Result<Scan> {
    let Parts {
        path,
        layout,
        stack,
        image_key,
        flats,
        darks,
        angles,
        mut warnings,
        mut files,
        start_time,
        ..
    } = parts;
    let n_frames = stack.shape()[0];
    let keys = sort_by_key(&stack, image_key, &mut warnings)?;

    let n_projections = keys.projections.len();
    let used = leave_out(n_projections, &input.exclude)?;
    let values = match angles.values.len() {
        n if n == n_projections => used.iter().map(|&i| angles.values[i]).collect(),
        n if n == n_frames => used
            .iter()
            .map(|&i| angles.values[keys.projections[i]])
            .collect(),
        n => {
            return Err(angles_do_not_match(
                &stack,
                &angles,
                n,
                n_projections,
                n_frames,
            ));
        }
    };
    let angles = angles::in_radians(
        &Angles {
            values,
            ..angles.clone()
        },
        input.angle_unit,
    )?;
    warnings.extend(angles.warnings);
    let shifts = match &input.shifts {
        None => None,
        Some(spec) => {
            let (shifts, file) = super::shifts::load(spec, &path, n_projections)?;
            files.push(file);
            Some(shifts.of(&used))
        }
    };

    let monitor = match &input.monitor {
        None => None,
        Some(spec) => {
            let (values, source, file) = monitor::load(spec, &path)?;
            files.push(file);
            let own_flats = flats.is_none();
            Some(monitor_of(&stack, values, source, &keys, &used, own_flats)?)
        }
    };

    // Times of groups are counted in projections of the file above, in used projections from here on.
    let in_used = |groups: Vec<(Vec<usize>, usize)>| -> Vec<FrameGroup> {
        let time = |at: usize| used.partition_point(|&i| i < at) as f64;
        groups
            .into_iter()
            .map(|(frames, at)| FrameGroup {
                frames,
                at_projection: time(at),
            })
            .collect()
    };
    let apart = |frames: Frames| {
        let groups = [(frames.before, 0), (frames.after, n_projections)];
        (
            frames.stack,
            groups
                .into_iter()
                .filter(|(frames, _)| !frames.is_empty())
                .collect(),
        )
    };
    let (flat_stack, flat_groups) = flats.map_or_else(|| (Arc::clone(&stack), keys.flats), apart);
    let (dark_stack, dark_groups) = darks.map_or_else(|| (Arc::clone(&stack), keys.darks), apart);
    let (flat_groups, dark_groups) = (in_used(flat_groups), in_used(dark_groups));
    same_size("flats", &stack, &flat_stack)?;
    same_size("darks", &stack, &dark_stack)?;
    if flat_groups.is_empty() {
        warnings.push("there are no flats: transmission cannot be computed from counts".into());
    }
    if dark_groups.is_empty() {
        warnings.push("there are no darks: the camera's offset stays in the counts".into());
    }
    let boxed =
        |stack: Arc<dyn FrameStack>, groups: &[FrameGroup]| -> Option<Box<dyn FrameStack>> {
            (!groups.is_empty()).then(|| Box::new(stack) as Box<dyn FrameStack>)
        };
    files.sort();
    files.dedup();
    Ok(Scan {
        path,
        layout: layout.into(),
        projection_frames: used.iter().map(|&i| keys.projections[i]).collect(),
        left_out: {
            let mut left_out = input.exclude.clone();
            left_out.sort_unstable();
            left_out.dedup();
            left_out
        },
        projection_numbers: used,
        shifts,
        flats: boxed(flat_stack, &flat_groups),
        flat_groups,
        darks: boxed(dark_stack, &dark_groups),
        dark_groups,
        projections: Box::new(stack),
        monitor,
        angles_rad: angles.values,
        angle_source: angles.source,
        pixel_size_um: pixel_size_um.or(parts.pixel_size_um),
        start_time,
        warnings,
        files,
        clock: ReadClock::default(),
    })
}

/// Frames by kind; each group with the number of projections before it.
struct Sorted {
    projections: Vec<usize>,
    flats: Vec<(Vec<usize>, usize)>,
    darks: Vec<(Vec<usize>, usize)>,
}

fn sort_by_key(
    stack: &Arc<dyn FrameStack>,
    image_key: Option<(Vec<f64>, String)>,
    warnings: &mut Vec<String>,
) -> Result<Sorted> {
    let n_frames = stack.shape()[0];
    let mut sorted = Sorted {
        projections: Vec::new(),
        flats: Vec::new(),
        darks: Vec::new(),
    };
    let Some((keys, source)) = image_key else {
        sorted.projections = (0..n_frames).collect();
        return Ok(sorted);
    };
    if keys.len() != n_frames {
        return Err(Error::Shape {
            what: format!("image key {source} of {}", stack.describe()),
            expected: vec![n_frames],
            found: vec![keys.len()],
            hint: "the scan may have been interrupted; give another input.image_key or input.data"
                .into(),
        });
    }
    let mut others = 0;
    for (frame, key) in keys.iter().enumerate() {
        let before = sorted.projections.len();
        let groups = match *key {
            0.0 => {
                sorted.projections.push(frame);
                continue;
            }
            1.0 => &mut sorted.flats,
            2.0 => &mut sorted.darks,
            _ => {
                others += 1;
                continue;
            }
        };
        // Frames with no projection in between are one group, whatever else lies between them.
        match groups.last_mut() {
            Some((frames, at)) if *at == before => frames.push(frame),
            _ => groups.push((vec![frame], before)),
        }
    }
    if others > 0 {
        warnings.push(format!(
            "{others} frames with an image key other than 0, 1 or 2 are left out"
        ));
    }
    if sorted.projections.is_empty() {
        return Err(Error::input(
            stack.describe(),
            format!("the image key {source} marks none of {n_frames} frames as a projection (0)"),
            "this file may hold only flats and darks; give the scan, or another input.image_key",
        ));
    }
    Ok(sorted)
}

/// Pairs the readings of the beam monitor with the projections used, and with the flats where there is one per frame.
fn monitor_of(
    stack: &Arc<dyn FrameStack>,
    values: Vec<f64>,
    source: String,
    keys: &Sorted,
    used: &[usize],
    own_flats: bool,
) -> Result<Monitor> {
    let (n_frames, n_projections) = (stack.shape()[0], keys.projections.len());
    let mean = |frames: &[usize]| {
        frames.iter().map(|&frame| values[frame]).sum::<f64>() / frames.len() as f64
    };
    let per_frame = values.len() == n_frames && n_frames != n_projections;
    let (projections, flats) = match values.len() {
        n if n == n_projections => (used.iter().map(|&i| values[i]).collect(), None),
        _ if per_frame => (
            used.iter().map(|&i| values[keys.projections[i]]).collect(),
            own_flats.then(|| keys.flats.iter().map(|(frames, _)| mean(frames)).collect()),
        ),
        n => {
            return Err(Error::input(
                stack.describe(),
                format!(
                    "expected one reading of the beam monitor for each of {n_projections} projections (or of {n_frames} frames), \
                     found {n} in {source}"
                ),
                "name another list with input.monitor, or leave it out",
            ));
        }
    };
    Ok(Monitor {
        projections,
        flats,
        source,
    })
}

/// The projections that are left.
pub(super) fn leave_out(n_projections: usize, exclude: &[usize]) -> Result<Vec<usize>> {
    if let Some(beyond) = exclude.iter().find(|&&i| i >= n_projections) {
        return Err(Error::config(
            "input.exclude",
            beyond,
            format!("projections are counted from 0, and there are {n_projections}"),
        ));
    }
    let used: Vec<usize> = (0..n_projections)
        .filter(|i| !exclude.contains(i))
        .collect();
    if used.is_empty() {
        return Err(Error::config(
            "input.exclude",
            format!("{exclude:?}"),
            "at least one projection has to be left",
        ));
    }
    Ok(used)
}

fn angles_do_not_match(
    stack: &Arc<dyn FrameStack>,
    angles: &Angles,
    found: usize,
    n_projections: usize,
    n_frames: usize,
) -> Error {
    let expected = if n_frames == n_projections {
        format!("{n_projections} projections")
    } else {
        format!("{n_projections} projections among {n_frames} frames")
    };
    let hint = match &angles.files[..] {
        [] => format!("COUNT must be {n_projections}"),
        _ => format!(
            "cut the list to the {n_projections} angles of the projections, or give START:STOP:{n_projections} as --angles"
        ),
    };
    Error::input(
        stack.describe(),
        format!(
            "expected one angle for each of {expected}, found {found} angles in {}",
            angles.source
        ),
        hint,
    )
}

fn same_size(
    what: &str,
    projections: &Arc<dyn FrameStack>,
    other: &Arc<dyn FrameStack>,
) -> Result<()> {
    let (expected, found) = (projections.shape(), other.shape());
    if expected[1..] == found[1..] {
        return Ok(());
    }
    Err(Error::Shape {
        what: format!("rows and columns of the {what} in {}", other.describe()),
        expected: expected[1..].to_vec(),
        found: found[1..].to_vec(),
        hint: format!(
            "give {what} of the same camera settings as the projections in {}",
            projections.describe()
        ),
    })
}
