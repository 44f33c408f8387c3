//! Projections that hold no picture: found before anything is computed, on the light of every frame.
//!
//! A beam that is dumped, a shutter that stays closed, a frame that was never written: such a projection is a streak across
//! every slice, and its logarithm has no meaning. Light is the mean of the counts above the dark level, in bands of rows.
//!
//! - **lost**: nothing finite, all counts equal, or less than a twentieth of the light of the middle projection. No sample
//!   that can be reconstructed darkens one direction that much, so these are left out without asking.
//! - **odd**: the light differs from that of the neighbours in angle by more than a tenth and more than eight times the scatter, or
//!   a band of it is dark. That may be the sample, so these are named and kept, unless the config says otherwise.

use std::f64::consts::TAU;
use std::ops::Range;

use crate::config::BadProjections;
use crate::error::{Error, Result};
use crate::scan::{FrameStack, Scan};
use crate::stats::middle;

/// Light of a lost projection, as a share of the median.
const LOST: f64 = 0.05;
/// Least jump of an odd one, as a share of its neighbours ...
const ODD: f64 = 0.1;
/// ... and as a multiple of the scatter.
const ODD_SIGMAS: f64 = 8.0;
/// More lost ones than this share are no accident: then the scan is what it is.
const MOST_LOST: f64 = 0.25;
/// Neighbours in angle on each side.
const NEIGHBOURS: usize = 5;
/// Memory for the frames that are read at a time \[bytes\].
const BLOCK_BYTES: usize = 32 << 20;
/// Numbers written out in a message.
const MOST_NAMED: usize = 40;

/// What was found; indices into the projections used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Screening {
    /// Projections without a picture.
    pub lost: Vec<usize>,
    /// Projections whose light jumps, and by what share.
    pub odd: Vec<(usize, f64)>,
}

/// A frame's light in one band.
#[derive(Clone, Copy)]
struct Light {
    mean: f64,
    /// Nothing finite, or all the same.
    blank: bool,
}

/// Rows of every projection that [`screen`] reads.
#[must_use]
pub fn bands(scan: &Scan) -> Vec<Range<usize>> {
    let n_rows = scan.n_rows();
    let whole = (n_rows * scan.n_cols() * scan.projections.pixel_type().bytes()) as u64;
    let as_one = 2 * scan.projections.decoded_bytes(0..1.min(n_rows)) > whole;
    if as_one || n_rows < 8 {
        return std::iter::once(0..n_rows).collect();
    }
    let last = n_rows - 2;
    [last / 20, last / 2, last - last / 20]
        .map(|row| row..row + 2)
        .to_vec()
}

/// Looks at every projection of `scan`: three bands of two rows, or all rows where a frame is decoded as a whole anyway.
///
/// # Errors
/// Those of the reader.
pub fn screen(scan: &Scan) -> Result<Screening> {
    let mut bands: Vec<Vec<Light>> = Vec::new();
    for rows in self::bands(scan) {
        // a band that a part of a frame can be missing from
        let parts = if rows.len() < 8 { 1 } else { 4 };
        let dark = dark_level(scan, &rows)?;
        let mut lights = vec![Vec::with_capacity(scan.n_angles()); parts];
        let stack = scan.projections.as_ref();
        each_frame(stack, &scan.projection_frames, &rows, |frame| {
            for (lights, part) in lights
                .iter_mut()
                .zip(frame.chunks(frame.len().div_ceil(parts)))
            {
                lights.push(light(part, dark));
            }
        })?;
        bands.extend(lights);
    }
    Ok(judge(&bands, &scan.angles_rad))
}

/// Screens `scan` and leaves out what `mode` says; warnings name every projection by its number in the file.
///
/// # Errors
/// Those of [`screen`]; [`Error::Input`] when nothing would be left.
pub fn leave_out_bad(scan: &mut Scan, mode: BadProjections) -> Result<Vec<usize>> {
    let Screening { lost, odd } = screen(scan)?;
    let odd_ones: Vec<usize> = odd.iter().map(|(index, _)| *index).collect();
    let mut out = Vec::new();
    let largest = odd.iter().fold(0.0_f64, |m, (_, jump)| m.max(jump.abs()));
    for (indices, leave, what) in [
        (
            &lost,
            mode != BadProjections::None,
            "hold no picture (dark, blank or not a number)".to_string(),
        ),
        (
            &odd_ones,
            mode == BadProjections::All,
            format!(
                "differ in light from their neighbours by up to {:.0} %",
                100.0 * largest
            ),
        ),
    ] {
        if indices.is_empty() {
            continue;
        }
        let numbers: Vec<usize> = indices
            .iter()
            .map(|&k| scan.projection_numbers[k])
            .collect();
        let list = named(&numbers);
        if leave {
            scan.warnings
                .push(format!("projections {list} {what} and are left out"));
            out.extend(indices);
        } else {
            scan.warnings.push(format!(
                "projections {list} {what}; leave them out with input.exclude = [{list}] if they are bad"
            ));
        }
    }
    if out.len() >= scan.n_angles() {
        return Err(Error::input(
            &scan.path,
            "no projection holds a picture",
            "look at the frames; input.bad_projections = \"none\" takes them as they are",
        ));
    }
    scan.leave_out(&out);
    Ok(out)
}

/// Numbers, the first of them where they are many.
fn named(numbers: &[usize]) -> String {
    let shown: Vec<String> = numbers
        .iter()
        .take(MOST_NAMED)
        .map(ToString::to_string)
        .collect();
    let rest = numbers.len().saturating_sub(MOST_NAMED);
    let more = if rest > 0 {
        format!(", and {rest} more")
    } else {
        String::new()
    };
    shown.join(", ") + &more
}

fn light(counts: &[f32], dark: f64) -> Light {
    let (mut sum, mut n) = (0.0, 0.0_f64);
    let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
    for &value in counts.iter().filter(|value| value.is_finite()) {
        sum += f64::from(value);
        n += 1.0;
        (low, high) = (low.min(value), high.max(value));
    }
    Light {
        mean: sum / n.max(1.0) - dark,
        blank: n == 0.0 || (low >= high && counts.len() > 1),
    }
}

/// Mean counts of the darks in `rows`; 0 without darks.
fn dark_level(scan: &Scan, rows: &Range<usize>) -> Result<f64> {
    let Some(stack) = &scan.darks else {
        return Ok(0.0);
    };
    let frames: Vec<usize> = scan
        .dark_groups
        .iter()
        .flat_map(|group| group.frames.iter().copied())
        .take(8)
        .collect();
    let (mut sum, mut n) = (0.0, 0.0);
    each_frame(stack.as_ref(), &frames, rows, |frame| {
        let level = light(frame, 0.0);
        if !level.blank || level.mean.is_finite() {
            sum += level.mean;
            n += 1.0;
        }
    })?;
    Ok(if n > 0.0 { sum / n } else { 0.0 })
}

fn each_frame(
    stack: &dyn FrameStack,
    frames: &[usize],
    rows: &Range<usize>,
    mut look: impl FnMut(&[f32]),
) -> Result<()> {
    let len = rows.len() * stack.shape()[2];
    let at_once = (BLOCK_BYTES / (4 * len).max(1)).clamp(1, frames.len().max(1));
    let mut counts = vec![0.0; at_once * len];
    for block in frames.chunks(at_once) {
        let counts = &mut counts[..block.len() * len];
        stack.read(block, rows.clone(), counts)?;
        counts.chunks_exact(len.max(1)).for_each(&mut look);
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    middle(values, f64::total_cmp).expect("projections were seen")
}

/// From the light of every projection, `[band][projection]`.
fn judge(bands: &[Vec<Light>], angles_rad: &[f64]) -> Screening {
    let n = angles_rad.len();
    if n < 3 || bands.is_empty() {
        return Screening::default();
    }
    let usual: Vec<f64> = bands
        .iter()
        .map(|band| median(&mut band.iter().map(|light| light.mean).collect::<Vec<_>>()))
        .collect();
    let dark = |band: usize, k: usize| {
        let light = bands[band][k];
        light.blank || (usual[band] > 0.0 && light.mean < LOST * usual[band])
    };
    let lost: Vec<usize> = (0..n)
        .filter(|&k| (0..bands.len()).all(|band| dark(band, k)))
        .collect();
    if lost.len() as f64 > MOST_LOST * n as f64 {
        return Screening::default();
    }
    let mut left: Vec<usize> = (0..n).filter(|k| !lost.contains(k)).collect();
    let turned = |k: usize| angles_rad[k].rem_euclid(TAU);
    left.sort_by(|&a, &b| turned(a).total_cmp(&turned(b)).then(a.cmp(&b)));
    let mean = |k: usize| bands.iter().map(|band| band[k].mean).sum::<f64>();
    let jumps: Vec<f64> = (0..left.len()).map(|at| jump(&left, at, &mean)).collect();
    let scatter = 1.4826 * median(&mut jumps.iter().map(|jump| jump.abs()).collect::<Vec<_>>());
    let mut odd: Vec<(usize, f64)> = left
        .iter()
        .zip(&jumps)
        .filter(|&(&k, jump)| {
            jump.abs() > ODD.max(ODD_SIGMAS * scatter)
                || (0..bands.len()).any(|band| dark(band, k)) && jump.abs() > ODD / 4.0
        })
        .map(|(&k, &jump)| (k, jump))
        .collect();
    odd.sort_by_key(|(k, _)| *k);
    if odd.len() as f64 > MOST_LOST * n as f64 {
        odd.clear();
    }
    Screening { lost, odd }
}

/// Light of projection `order[at]` against the median of its neighbours, as a share of it.
fn jump(order: &[usize], at: usize, mean: &impl Fn(usize) -> f64) -> f64 {
    let from = at.saturating_sub(NEIGHBOURS);
    let to = (at + NEIGHBOURS + 1).min(order.len());
    let mut around: Vec<f64> = (from..to)
        .filter(|&k| k != at)
        .map(|k| mean(order[k]))
        .collect();
    if around.is_empty() {
        return 0.0;
    }
    let usual = median(&mut around);
    if usual > 0.0 {
        mean(order[at]) / usual - 1.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correct::tests::scan as scan_of;
    use ndarray::Array3;

    /// 60 projections of a plate that darkens from face to edge by half, with one per cent of noise over a dark of 100.
    fn counts() -> Array3<f32> {
        Array3::from_shape_fn((60, 20, 8), |(angle, row, col)| {
            let light = 1000.0 * (0.75 + 0.25 * (angle as f32 * 0.01 * 2.0).cos());
            let noise = ((angle * 160 + row * 8 + col) as f32 * 12.9898).sin() * 10.0;
            100.0 + light + noise
        })
    }

    fn scan(counts: Array3<f32>) -> Scan {
        let mut dark = Array3::from_elem((4, 20, 8), 100.0);
        dark[[0, 0, 0]] = 101.0;
        let flats = Array3::from_elem((4, 20, 8), 1100.0);
        scan_of(counts, Some(flats), Some(dark))
    }

    #[test]
    fn a_good_scan_loses_nothing() {
        assert_eq!(screen(&scan(counts())).unwrap(), Screening::default());
    }

    #[test]
    fn dark_blank_and_empty_frames_are_lost_and_jumps_are_odd() {
        let mut bad = counts();
        let mut set = |angle: usize, value: &dyn Fn(f32) -> f32| {
            bad.index_axis_mut(ndarray::Axis(0), angle)
                .mapv_inplace(value);
        };
        set(7, &|v| 100.0 + (v - 100.0) * 0.01);
        set(8, &|v| 100.0 + (v - 100.0) * 0.01);
        set(20, &|_| f32::NAN);
        set(30, &|_| 400.0);
        set(41, &|v| 100.0 + (v - 100.0) * 0.8);
        // the lower half was never written
        bad.slice_mut(ndarray::s![50, 10.., ..]).fill(0.0);
        let found = screen(&scan(bad.clone())).unwrap();
        assert_eq!(found.lost, [7, 8, 20, 30]);
        let odd: Vec<usize> = found.odd.iter().map(|o| o.0).collect();
        assert_eq!(odd, [41, 50], "{:?}", found.odd);
        assert!((found.odd[0].1 + 0.2).abs() < 0.02);

        for (mode, left) in [
            (BadProjections::None, 60),
            (BadProjections::Lost, 56),
            (BadProjections::All, 54),
        ] {
            let mut scan = scan(bad.clone());
            leave_out_bad(&mut scan, mode).unwrap();
            assert_eq!(
                (scan.n_angles(), scan.projection_frames.len()),
                (left, left)
            );
            let text = scan.warnings.join("\n");
            assert!(
                text.contains("7, 8, 20, 30") && text.contains("41, 50"),
                "{text}"
            );
            assert_eq!(
                text.contains("input.exclude = [41, 50]"),
                mode != BadProjections::All,
                "{text}"
            );
            if mode != BadProjections::None {
                assert_eq!(scan.left_out[..4], [7, 8, 20, 30]);
                assert!(
                    (scan.angles_rad[7] - 0.09).abs() < 1e-12,
                    "angles go with their frames"
                );
            }
        }
    }

    #[test]
    fn a_scan_that_is_dark_for_long_is_left_as_it_is() {
        let mut bad = counts();
        bad.slice_mut(ndarray::s![..40, .., ..]).fill(100.0);
        assert!(screen(&scan(bad)).unwrap().lost.is_empty());
    }
}
