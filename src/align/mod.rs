//! Rigid motion between two scans, from pilot volumes.
//!
//! Takes two small volumes on one grid and gives the motion that takes the reference's sample to the target's, with
//! an uncertainty and a confidence. It moves no volume: the caller reconstructs the target with the motion.
//!
//! ```text
//! pilots -> bin, smooth, take out wide structure -> correlation over all shifts (and turns) -> best peaks
//!        -> robust least squares, coarse to fine -> motion, errors from the scatter of blocks, heights on their own
//! ```
//!
//! A point p of the reference, measured from the middle `(n - 1) / 2` of the volume, stands at `R p + shift` in the
//! target; R tilts by `rx` and `ry` and then turns by `rz` from x towards y (down). [`AlignMethod::Rigid`] looks for all six; a
//! tilt counts only where it is beyond its error and moves something. To a translation a tilt shows as shifts that
//! change with height, which a warning says.

mod confidence;
mod correlation;
mod gauss_newton;
mod motion;
mod pyramid;
mod resample;
mod search;
#[cfg(test)]
mod tests;

use ndarray::Array3;

use crate::config::{AlignConfig, AlignMethod};
use crate::error::{Error, Result};
use crate::record::AlignmentRecord;

use confidence::{Confidence, judge};
use correlation::Texture;
use gauss_newton::{Free, Refined, octants, refine, rms};
use motion::RigidMotion;
use pyramid::{Level, PairFrame, filled_slices, schedule};

pub(crate) use gauss_newton::{solve, tukey};
pub(crate) use pyramid::{SMOOTHING_REACH, smooth};
pub(crate) use resample::keys_weights;

/// Longest side of the coarsest level.
const COARSE_SIDE: usize = 64;
/// Longest side of the level on which turns are tried.
const ANGULAR_SIDE: usize = 32;
/// Steps of refinement on each level.
const STEPS: usize = 15;
/// What interpolation leaves at best \[voxel of the level\]; added to the statistical error.
const FLOOR: f64 = 0.01;
/// A wrong turn must lower the correlation by this for the turn to count as known.
const LEAST_DROP: f64 = 0.02;
/// Slices that a pilot needs for a tilt, and what a tilt must move at the rim to count \[pilot voxel\].
const LEAST_FOR_TILT: usize = 8;
const LEAST_TILT: f64 = 0.03;
/// Heights asked on their own, and slices that each needs at least.
const HEIGHTS: usize = 8;
const HEIGHT_SLICES: usize = 6;
/// Error \[pilot voxel\] from which on a level is not taken if a coarser one knows better.
const UNSURE: f64 = 0.05;
/// Error \[pilot voxel\] from which on a shift counts as hardly known.
const UNSURE_AXIS: f64 = 0.5;
/// Share of the gradient of a height that both volumes must have for its shift to count; of the whole, for a shift that is hardly known.
const LEAST_SIGNAL: f64 = 0.3;
/// Error of a shift that a height does not fix \[pilot voxel\].
const UNKNOWN: f64 = 1e3;
/// Heights disagree where their shifts scatter by this much \[pilot voxel\], each weighted by what it knows ...
const LEAST_SCATTER: f64 = 0.1;
/// ... and by so many of their standard deviations.
const SIGNIFICANT: f64 = 4.0;
/// Correlation below which volumes of no confidence are left where they stand: not even layers or a wall are common to both.
const LEAST_IN_COMMON: f64 = 0.2;
/// Steps of refinement at each height.
const HEIGHT_STEPS: usize = 8;

/// Two pilot volumes on the same grid, `[z, y, x]`, with what is known of them.
pub struct PilotPair {
    /// The reference.
    pub reference: Array3<f32>,
    /// The target, on its own unmoved grid (or on the grid of an earlier estimate).
    pub target: Array3<f32>,
    /// Voxels of the full volume per voxel of the pilot, along every axis.
    pub binning: usize,
    /// Voxels outside this radius \[pilot voxel\] around the middle of a slice are not used.
    pub radius: f64,
}

/// Bytes that [`register`] needs for each voxel of one pilot, the two pilots themselves included: 8 for the pair, 8
/// for its smoothed copy, 8 for the part of it around one height, 4 for the moved target.
#[must_use]
pub const fn bytes_per_pilot_voxel() -> u64 {
    28
}

/// Bytes that [`register`] needs whatever the pilots: spectra of the coarse level (64 voxels a side, padded to 96).
#[must_use]
pub const fn fixed_bytes() -> u64 {
    12 * 8 * 96 * 96 * 96
}

/// Bytes that [`register`] likely takes at once for pilots of `voxels`: the spectra of the coarse level, beside the pair and its smoothed copy, are
/// gone before heights are looked at one by one.
#[must_use]
pub const fn likely_bytes(voxels: u64) -> u64 {
    let (coarse, heights) = (
        fixed_bytes() + 16 * voxels,
        bytes_per_pilot_voxel() * voxels,
    );
    if coarse > heights { coarse } else { heights }
}

/// The record of a motion that is given, or of none; `None` where it is to be searched for.
#[must_use]
pub fn by_hand(config: &AlignConfig) -> Option<AlignmentRecord> {
    let given = config.shift.is_some() || config.rotation.is_some();
    (!config.searches()).then(|| AlignmentRecord {
        shift_voxel: config.shift.unwrap_or_default(),
        rotation_deg: config.rotation.unwrap_or_default(),
        confidence: 1.0,
        method: if given { "given" } else { "none" }.into(),
        ..AlignmentRecord::default()
    })
}

/// Finds how the target's sample is moved relative to the reference, in voxels of the full volume.
///
/// Shifts are searched up to `config.search` of each side; with [`AlignMethod::Rigid`] turns are searched up to
/// `config.search` of 180 degrees. A shift or rotation given in `config` is not searched but judged: the residuals
/// are filled in. Values that are not finite count as 0; slices at the ends that hold one value throughout are taken
/// as not reconstructed. The same pair gives the same answer whatever the number of threads.
///
/// # Errors
/// [`Error::Shape`] when the volumes differ in shape or are empty; [`Error::Config`] for a method that does not fit.
///
/// Sources: Padfield (2012), IEEE TIP 21:2706 (masked correlation); Baker and Matthews (2004), IJCV 56:221, section
/// 3.2 (inverse compositional least squares).
pub fn register(pair: &PilotPair, config: &AlignConfig) -> Result<AlignmentRecord> {
    check(pair)?;
    let (n_z, n_y, n_x) = pair.reference.dim();
    let frame = PairFrame {
        shape: [n_z, n_y, n_x],
        radius: pair.radius,
        filled: [
            filled_slices(pair.reference.view()),
            filled_slices(pair.target.view()),
        ],
    };
    let mut record = AlignmentRecord::default();
    let still = RigidMotion::default();
    record.residual_before = residual(pair, &frame, &still);
    if config.shift.is_some() || config.rotation.is_some() || config.method == AlignMethod::None {
        given(pair, config, &frame, &mut record)?;
        return Ok(record);
    }
    record.method = match config.method {
        AlignMethod::Rigid => "rigid",
        AlignMethod::Translation | AlignMethod::None => "translation",
    }
    .into();
    let Some(found) = find(pair, config, &frame) else {
        record.residual_after = record.residual_before;
        record.shift_err_voxel = [0, 1, 2]
            .map(|a| pair.reference.len_of(ndarray::Axis(2 - a)) as f64 * pair.binning as f64);
        record.warnings.push(
            "alignment: the pilots hold no structure within the field of view, nothing was moved; give align.shift".into(),
        );
        return Ok(record);
    };
    fill(&mut record, &found, pair, config);
    record.residual_after = residual(pair, &frame, &found.motion);
    record.per_octant = octants(
        pair.reference.view(),
        pair.target.view(),
        &frame.level([1, 1, 1], [0, 0, 0]),
        &found.motion,
    );
    Ok(record)
}

fn check(pair: &PilotPair) -> Result<()> {
    let (expected, found) = (pair.reference.shape(), pair.target.shape());
    if expected != found || expected.contains(&0) {
        return Err(Error::Shape {
            what: "pilot volumes of an alignment [z, y, x], target against reference".into(),
            expected: expected.to_vec(),
            found: found.to_vec(),
            hint: "reconstruct both scans on one grid (same reconstruct.rows and reconstruct.crop)"
                .into(),
        });
    }
    Ok(())
}

fn residual(pair: &PilotPair, frame: &PairFrame, motion: &RigidMotion) -> f64 {
    rms(
        pair.reference.view(),
        pair.target.view(),
        &frame.level([1, 1, 1], [0, 0, 0]),
        motion,
    )
}

/// Takes the motion of the config as it stands.
fn given(
    pair: &PilotPair,
    config: &AlignConfig,
    frame: &PairFrame,
    record: &mut AlignmentRecord,
) -> Result<()> {
    let by_hand = config.shift.is_some() || config.rotation.is_some();
    record.shift_voxel = config.shift.unwrap_or_default();
    record.rotation_deg = config.rotation.unwrap_or_default();
    record.confidence = 1.0;
    record.method = if by_hand { "given" } else { "none" }.into();
    let [rx, ry, rz] = record.rotation_deg.map(f64::to_radians);
    let motion = RigidMotion {
        shift: record.shift_voxel.map(|s| s / pair.binning as f64),
        turn: rz,
        tilt: [rx, ry],
    };
    record.residual_after = residual(pair, frame, &motion);
    Ok(())
}

/// Everything that the search found.
struct Found {
    motion: RigidMotion,
    refined: Refined,
    confidence: Confidence,
    /// Turn that a translation leaves unexplained, and its standard deviation \[rad\].
    leftover_turn: Option<(f64, f64)>,
    /// The turn was looked for but nothing fixes it.
    turn_unknown: bool,
    /// A tilt larger than is looked for \[rad\].
    tilt_beyond: Option<f64>,
    /// Height \[pilot voxel\] and correction `[x, y, z]` with its errors.
    heights: Vec<(f64, [f64; 3], [f64; 3])>,
    sees_z: bool,
    /// Axes along which nothing was moved, as nothing fixes the shift.
    left_alone: [bool; 3],
    /// The outermost shifts that were searched, and their distance from the next ones inwards `[x, y, z]` \[pilot voxel\].
    limit: [[f64; 2]; 3],
    reach: f64,
    /// What interpolation leaves \[pilot voxel\].
    floor: f64,
}

fn find(pair: &PilotPair, config: &AlignConfig, frame: &PairFrame) -> Option<Found> {
    let level =
        |factors: [usize; 3]| Level::new(pair.reference.view(), pair.target.view(), frame, factors);
    let factors = schedule(frame.shape, COARSE_SIDE);
    let coarsest = level(factors[0]);
    let texture = Texture::new(&coarsest);
    let rigid = config.method == AlignMethod::Rigid;
    let mut free = Free {
        z: true,
        turn: rigid,
        tilt: false,
    };
    let angular = rigid.then(|| Texture::new(&level(schedule(frame.shape, ANGULAR_SIDE)[0])));
    let largest_turn = config.search * std::f64::consts::PI;
    let start = search::coarse(
        &coarsest,
        &texture,
        angular.as_ref().map(|t| (t, largest_turn)),
        config.search,
        free,
    );
    drop(angular);

    let mut start = start;
    // where nothing fixes the turn (a rotationally symmetric sample), a random one would only blur
    let turn_unknown =
        rigid && search::drop_without_turn(&coarsest, &texture, &start, free) < LEAST_DROP;
    if turn_unknown {
        free.turn = false;
        start = search::coarse(&coarsest, &texture, None, config.search, free);
    }
    let tilts = rigid && config.max_tilt_deg > 0.0 && frame.shape[0] >= LEAST_FOR_TILT;
    let (refined, finest) = descend(&level, &factors, coarsest, start, free, tilts)?;
    let (mut refined, tilt_beyond) = believed_tilt(&finest, refined, free, config.max_tilt_deg)?;
    let turn_unknown = turn_unknown || unknown(&refined, 3) && free.turn;
    if turn_unknown && refined.motion.turn != 0.0 {
        (free.turn, free.tilt) = (false, false);
        let upright = RigidMotion::upright(refined.motion.shift, 0.0);
        refined = refine(&finest, &upright, free, STEPS)?;
    }
    let left_alone = leave_alone(&mut refined);
    let range = search::search_range(&texture.frame, config.search);
    let limit = [0, 1, 2].map(|a| {
        let step = texture.frame.factor[a];
        [f64::from(range[a]) * step, step]
    });
    let errors = [
        refined.errors[0],
        refined.errors[1],
        if finest.frame.sees_z() {
            refined.errors[2]
        } else {
            0.0
        },
    ];
    let confidence = judge(&texture, &refined.motion, range, errors);
    let left_alone =
        if confidence.value == 0.0 && texture.coefficient(&refined.motion) < LEAST_IN_COMMON {
            // wherever chance put the sample, it is worse than where it stands
            refined.motion = RigidMotion::default();
            refined.errors = [f64::INFINITY; 6];
            [true; 3]
        } else {
            left_alone
        };
    let leftover_turn = (!rigid).then(|| leftover_turn(&finest, &refined)).flatten();
    Some(Found {
        motion: refined.motion,
        confidence,
        leftover_turn,
        turn_unknown,
        tilt_beyond,
        heights: heights(&finest, &refined),
        sees_z: finest.frame.sees_z(),
        left_alone,
        limit,
        reach: finest.frame.reach(),
        floor: FLOOR * finest.frame.factor.into_iter().fold(1.0, f64::max),
        refined,
    })
}

/// Refines from the coarsest level (given) to the finest that still knows more, which is returned too.
///
/// Where noise rules the voxels of a level their gradients are noise too: the steps come out far too short and the errors large.
/// Coarser voxels, being means of many, then know the motion better.
fn descend(
    level: &impl Fn([usize; 3]) -> Level,
    factors: &[[usize; 3]],
    coarsest: Level,
    start: RigidMotion,
    free: Free,
    tilts: bool,
) -> Option<(Refined, Level)> {
    let mut current = coarsest;
    let mut refined = refine(&current, &start, free, STEPS)?;
    let free = Free {
        tilt: tilts,
        ..free
    };
    if tilts {
        refined = refine(&current, &refined.motion, free, STEPS)?;
    }
    let worst = |refined: &Refined| {
        let looked_for = if free.turn { 4 } else { 2 };
        (0..looked_for)
            .filter(|&k| k != 2)
            .map(|k| refined.errors[k])
            .fold(0.0, f64::max)
    };
    for &finer in &factors[1..] {
        let next = level(finer);
        let Some(found) = refine(&next, &refined.motion, free, STEPS) else {
            break;
        };
        if worst(&found) > worst(&refined) && worst(&found) > UNSURE {
            break;
        }
        (refined, current) = (found, next);
    }
    Some((refined, current))
}

/// Takes back a tilt that is within its error, moves nothing, or is larger than what is looked for (which is returned).
fn believed_tilt(
    finest: &Level,
    refined: Refined,
    free: Free,
    largest_deg: f64,
) -> Option<(Refined, Option<f64>)> {
    if !refined.motion.tilts() {
        return Some((refined, None));
    }
    let reach = finest.frame.reach();
    let size = refined.motion.tilt.map(f64::abs);
    let known = (0..2).any(|k| {
        let error = refined.errors[4 + k];
        error.is_finite() && size[k] * reach > (4.0 * error).max(LEAST_TILT)
    });
    let angle = size[0].hypot(size[1]);
    let beyond = known && angle > largest_deg.to_radians();
    if known && !beyond {
        return Some((refined, None));
    }
    let turn = if free.turn { refined.motion.turn } else { 0.0 };
    let upright = RigidMotion::upright(refined.motion.shift, turn);
    let again = refine(finest, &upright, free, STEPS)?;
    Some((again, beyond.then_some(angle)))
}

/// Takes back the shift along every axis that nothing fixes: a random one would move the sample off itself.
fn leave_alone(refined: &mut Refined) -> [bool; 3] {
    let left = [0, 1, 2].map(|a| unknown(refined, a));
    for a in (0..3).filter(|&a| left[a]) {
        refined.motion.shift[a] = 0.0;
    }
    left
}

/// Whether nothing fixes parameter `k`: its error is large, and what varies along it is not common to both volumes.
fn unknown(refined: &Refined, k: usize) -> bool {
    refined.errors[k] > UNSURE_AXIS && refined.reliability[k] < LEAST_SIGNAL
}

/// What a few more steps with a free turn make of a translation.
fn leftover_turn(finest: &Level, refined: &Refined) -> Option<(f64, f64)> {
    let turned = refine(
        finest,
        &refined.motion,
        Free {
            z: true,
            turn: true,
            tilt: false,
        },
        4,
    )?;
    let known = turned.reliability[3] > 0.2 && turned.errors[3].is_finite();
    known.then(|| (turned.motion.turn, turned.errors[3] / finest.frame.reach()))
}

/// Groups of slices registered on their own, shifts only.
fn heights(finest: &Level, refined: &Refined) -> Vec<(f64, [f64; 3], [f64; 3])> {
    let n = finest.frame.shape[0];
    let groups = (n / HEIGHT_SLICES).clamp(1, HEIGHTS);
    let reach = refined.motion.shift[2].abs().ceil() as usize + 2;
    let free = Free {
        z: finest.frame.sees_z(),
        turn: false,
        tilt: false,
    };
    (0..groups)
        .filter_map(|k| {
            let slices = k * n / groups..(k + 1) * n / groups;
            let of_level = (slices.start + slices.end) as f64 / 2.0 - 0.5;
            // in voxels of the pilot
            let middle = (of_level + 0.5) * finest.frame.factor[2] - 0.5;
            let own = refine(
                &finest.slab(slices, reach),
                &refined.motion,
                free,
                HEIGHT_STEPS,
            )?;
            let step = [0, 1, 2].map(|a| own.motion.shift[a] - refined.motion.shift[a]);
            let errors = [own.errors[0], own.errors[1], own.errors[2]];
            // nearly empty slices, or such that changed altogether, say nothing about the motion
            let says = own.kept > 0.5 && own.reliability[..2].iter().all(|&r| r > LEAST_SIGNAL);
            if !says || errors.iter().any(|&e| e >= 1.0) {
                return None;
            }
            // a layer of one material fixes x and y by its rim, and nothing along z
            let along_z = free.z && own.reliability[2] > LEAST_SIGNAL;
            let errors = errors.map(|error| error.hypot(FLOOR));
            Some(if along_z {
                (middle, step, errors)
            } else {
                (
                    middle,
                    [step[0], step[1], 0.0],
                    [errors[0], errors[1], UNKNOWN],
                )
            })
        })
        .collect()
}

/// Writes what was found into the record, in voxels of the full volume.
fn fill(record: &mut AlignmentRecord, found: &Found, pair: &PilotPair, config: &AlignConfig) {
    let binning = pair.binning as f64;
    record.shift_voxel = found.motion.shift.map(|s| s * binning);
    let [rx, ry] = found.motion.tilt;
    record.rotation_deg = [rx, ry, found.motion.turn].map(f64::to_degrees);
    let angular = |k: usize| {
        let error = found.refined.errors[k].hypot(found.floor) / found.reach;
        if error.is_finite() {
            error.to_degrees()
        } else {
            180.0
        }
    };
    // what was not looked for has no error
    record.rotation_err_deg = [
        if rx == 0.0 { 0.0 } else { angular(4) },
        if ry == 0.0 { 0.0 } else { angular(5) },
        if found.motion.turn == 0.0 {
            0.0
        } else {
            angular(3)
        },
    ];
    let sides = [2, 1, 0].map(|a| pair.reference.len_of(ndarray::Axis(a)) as f64);
    // nothing known: the whole side, which JSON can write (infinity it cannot)
    record.shift_err_voxel =
        [0, 1, 2].map(|a| found.refined.errors[a].hypot(found.floor).min(sides[a]) * binning);
    if !found.sees_z {
        record.shift_err_voxel[2] = sides[2] * binning;
    }
    record.confidence = found.confidence.value;
    record.per_height = found
        .heights
        .iter()
        .map(|(z, step, _)| {
            [
                (z + 0.5) * binning - 0.5,
                step[0] * binning,
                step[1] * binning,
                step[2] * binning,
            ]
        })
        .collect();
    record.per_height_err = found
        .heights
        .iter()
        .map(|(_, _, errors)| errors.map(|error| error.min(sides[2]) * binning))
        .collect();
    record.warnings = warnings(found, config, binning);
}

fn warnings(found: &Found, config: &AlignConfig, binning: f64) -> Vec<String> {
    let mut out = Vec::new();
    let names = ["x", "y", "z"];
    for (axis, name) in names.into_iter().enumerate() {
        // nearest to the outermost shift of the search: a better one may lie beyond
        let [limit, step] = found.limit[axis];
        let shift = found.motion.shift[axis].abs();
        if shift > limit - 0.5 * step {
            out.push(format!(
                "alignment: the shift along {} ({:.1} voxels) is at the limit of the search; raise align.search (now {})",
                name,
                found.motion.shift[axis] * binning,
                config.search
            ));
        }
        let error = found.refined.errors[axis] * binning;
        if (axis < 2 || found.sees_z) && found.refined.errors[axis] > UNSURE_AXIS {
            out.push(format!(
                "alignment: the volumes hardly fix the shift along {} (uncertainty {}): little structure changes along it{}",
                name,
                if error.is_finite() { format!("{error:.1} voxels") } else { "unknown".into() },
                if found.left_alone[axis] { "; it was left at 0, give align.shift if it moved" } else { "" }
            ));
        }
    }
    if !found.sees_z {
        out.push("alignment: too few slices to find a shift along z; z was left alone".into());
    }
    let c = found.confidence;
    if c.value < config.min_confidence {
        out.push(format!(
            "alignment: low confidence {:.2} (correlation {:.2}, by chance {:.2}, next best position {:.2}); check the checkerboard or give align.shift",
            c.value, c.coefficient, c.chance, c.rival
        ));
    }
    if let Some(angle) = found.tilt_beyond {
        out.push(format!(
            "alignment: the sample seems tilted by {:.2} degrees, more than align.max_tilt_deg (now {}); it was left upright",
            angle.to_degrees(),
            config.max_tilt_deg
        ));
    }
    let turn = found.motion.turn.abs();
    if config.method == AlignMethod::Rigid && turn > 0.98 * config.search * std::f64::consts::PI {
        out.push(format!(
            "alignment: the turn ({:.1} degrees) is at the limit of the search; raise align.search (now {})",
            found.motion.turn.to_degrees(),
            config.search
        ));
    }
    if found.turn_unknown {
        out.push(
            "alignment: no texture fixes the turn about the rotation axis (rotationally symmetric sample); it was left at 0".into(),
        );
    }
    if let Some((turn, error)) = found.leftover_turn
        && turn.abs() * found.reach > (5.0 * error * found.reach).max(0.15)
        && c.value >= config.min_confidence
    {
        out.push(format!(
            "alignment: the sample seems turned by {:.2} degrees, which a translation cannot follow; set align.method = \"rigid\"",
            turn.to_degrees()
        ));
    }
    out.extend(height_warning(found, binning));
    if found.refined.kept < 0.5 {
        out.push(format!(
            "alignment: only {:.0} % of the voxels agree between the scans; most of the sample changed or it deformed",
            100.0 * found.refined.kept
        ));
    }
    out
}

/// Heights that disagree: a lean or a deformation.
///
/// Every height counts by what it knows of the shift, 1 / error^2, so that one with little structure does not speak for the sample.
fn height_warning(found: &Found, binning: f64) -> Option<String> {
    let scatter = |axis: usize| {
        let (mut weights, mut squares, mut pulls) = (0.0, 0.0, 0.0);
        for (_, step, errors) in &found.heights {
            let weight = errors[axis].powi(-2);
            weights += weight;
            squares += weight * step[axis].powi(2);
            pulls += (step[axis] / errors[axis]).powi(2);
        }
        let n = found.heights.len().max(1) as f64;
        (
            (squares / f64::max(weights, f64::MIN_POSITIVE)).sqrt(),
            (pulls / n).sqrt(),
        )
    };
    let (axis, size) = (0..3)
        .map(|axis| (axis, scatter(axis)))
        .filter(|(_, (size, pull))| *size > LEAST_SCATTER && *pull > SIGNIFICANT)
        .map(|(axis, (size, _))| (axis, size))
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    let (z, step, _) = found.heights.iter().max_by(|a, b| {
        let pull = |h: &(f64, [f64; 3], [f64; 3])| (h.1[axis] / h.2[axis]).abs();
        pull(a).total_cmp(&pull(b))
    })?;
    Some(format!(
        "alignment: heights disagree along {} by {:.2} voxels (root mean square, weighted by what each knows), most clearly near slice {:.0}, by {:.2}; the sample leans or deformed between the scans",
        ["x", "y", "z"][axis],
        size * binning,
        z * binning,
        step[axis] * binning
    ))
}
