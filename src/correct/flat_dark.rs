//! Flats and darks: averaged once for the whole detector, then `(projection - dark) / (flat - dark)` line by line.

use std::ops::Range;

use ndarray::{Array2, s};
use rayon::prelude::*;

use super::line_integrals::CountSlab;
use crate::config::{Average, FlatInTime, SpotConfig};
use crate::error::{Error, Result};
use crate::scan::{FrameGroup, FrameStack, Scan};

/// Memory for the frames that are averaged at a time \[bytes\]; before any slab, so less than the smallest slabs take.
const AVERAGE_BYTES: usize = 48 << 20;

/// Averaged darks and open beams (flat minus dark) of the whole detector.
///
/// A pixel without signal is NaN in every open beam, so that its transmission is NaN and `bad_pixels` fills it.
#[derive(Clone)]
pub(super) struct FlatDark {
    /// `[row, col]` \[counts\]; absent where the scan has no darks.
    dark: Option<Array2<f32>>,
    /// `[row, col]` \[counts\], one per group in the order of time; empty: the data are transmission already.
    open_beams: Vec<Array2<f32>>,
    /// When each open beam was taken, as an index into the projections.
    times: Vec<f64>,
    /// Bad pixels of each detector row.
    bad_per_row: Vec<u32>,
}

impl FlatDark {
    /// Averages the flats and darks of `scan`; a pixel below `floor_counts` in any group is bad in all of them.
    pub(super) fn read(
        scan: &Scan,
        average: Average,
        in_time: FlatInTime,
        floor_counts: f32,
    ) -> Result<FlatDark> {
        let dark = match &scan.darks {
            Some(stack) if !scan.dark_groups.is_empty() => {
                check_shape(scan, stack.as_ref(), "darks")?;
                Some(average_frames(
                    stack.as_ref(),
                    &joined(&scan.dark_groups),
                    average,
                )?)
            }
            _ => None,
        };
        let mut open_beams = Vec::new();
        let mut times = Vec::new();
        if let Some(stack) = &scan.flats {
            check_shape(scan, stack.as_ref(), "flats")?;
            if in_time == FlatInTime::Mean {
                open_beams.push(average_frames(
                    stack.as_ref(),
                    &joined(&scan.flat_groups),
                    average,
                )?);
                times.push(0.0);
            } else {
                let mut groups: Vec<&FrameGroup> = scan
                    .flat_groups
                    .iter()
                    .filter(|g| !g.frames.is_empty())
                    .collect();
                groups.sort_by(|a, b| a.at_projection.total_cmp(&b.at_projection));
                for group in groups {
                    open_beams.push(average_frames(stack.as_ref(), &group.frames, average)?);
                    times.push(group.at_projection);
                }
            }
        }
        let mut fields = FlatDark {
            dark,
            open_beams,
            times,
            bad_per_row: vec![0; scan.n_rows()],
        };
        fields.subtract_dark(floor_counts);
        if in_time == FlatInTime::Nearest {
            fields.step_halfway();
        }
        Ok(fields)
    }

    /// Brings the open beams to one unit of the beam monitor; `readings` has one for each group of flats of `scan`.
    pub(super) fn per_monitor_unit(&mut self, readings: &[f64], groups: &[FrameGroup]) {
        let frames = |group: &FrameGroup| group.frames.len() as f64;
        let used: Vec<(f64, f64, f64)> = groups
            .iter()
            .zip(readings)
            .filter(|(group, _)| !group.frames.is_empty())
            .map(|(group, &reading)| (group.at_projection, frames(group), reading))
            .collect();
        let units: Vec<f64> = if self.open_beams.len() == used.len() {
            // in the order of time, as the open beams
            let mut used = used;
            used.sort_by(|a, b| a.0.total_cmp(&b.0));
            used.into_iter().map(|(_, _, reading)| reading).collect()
        } else {
            let all: f64 = used.iter().map(|(_, frames, _)| frames).sum();
            let sum: f64 = used
                .iter()
                .map(|(_, frames, reading)| frames * reading)
                .sum();
            vec![sum / all; self.open_beams.len()]
        };
        for (open, unit) in self.open_beams.iter_mut().zip(units) {
            *open /= unit as f32;
        }
    }

    /// Finds the large spots of the first open beam and takes them as bad pixels; returns how many pixels.
    pub(super) fn mark_spots(&mut self, config: &SpotConfig) -> u64 {
        let Some(open_beam) = self.open_beams.first() else {
            return 0;
        };
        let spots = super::spots::find(open_beam.view(), config);
        for &(row, col) in &spots {
            self.bad_per_row[row] += 1;
            for open in &mut self.open_beams {
                open[[row, col]] = f32::NAN;
            }
        }
        spots.len() as u64
    }

    /// The data are transmission already: nothing is subtracted or divided.
    pub(super) fn none(n_rows: usize) -> FlatDark {
        FlatDark {
            dark: None,
            open_beams: Vec::new(),
            times: Vec::new(),
            bad_per_row: vec![0; n_rows],
        }
    }

    /// Turns the averaged flats into open beams and marks the bad pixels in all of them.
    fn subtract_dark(&mut self, floor_counts: f32) {
        let FlatDark {
            dark,
            open_beams,
            bad_per_row,
            ..
        } = self;
        for open in open_beams.iter_mut() {
            if let Some(dark) = dark {
                *open -= &*dark;
            }
        }
        for (row, bad) in bad_per_row.iter_mut().enumerate() {
            let n_cols = open_beams.first().map_or(0, Array2::ncols);
            for col in 0..n_cols {
                // written so that NaN counts as bad; zero carries no signal whatever the floor
                let good = |open: &Array2<f32>| {
                    open[[row, col]] >= floor_counts
                        && open[[row, col]] > 0.0
                        && open[[row, col]].is_finite()
                };
                if !open_beams.iter().all(good) {
                    *bad += 1;
                    open_beams
                        .iter_mut()
                        .for_each(|open| open[[row, col]] = f32::NAN);
                }
            }
        }
    }

    /// `nearest` is `linear` with steps: every group is held until halfway to the next.
    fn step_halfway(&mut self) {
        let times = std::mem::take(&mut self.times);
        // one fewer than groups: in_time() reads these as the moments at which the next group takes over
        self.times = times
            .windows(2)
            .map(|pair| 0.5 * (pair[0] + pair[1]))
            .collect();
    }

    /// The open beams before and after projection `angle` and the weight of the later one.
    fn in_time(&self, angle: usize) -> (usize, usize, f32) {
        // projection i is exposed between the moments i and i + 1
        let now = angle as f64 + 0.5;
        let after = self.times.partition_point(|&time| time < now);
        let last = self.open_beams.len() - 1;
        if self.times.len() < self.open_beams.len() {
            return (after, after, 0.0);
        }
        if after == 0 || last == 0 {
            return (0, 0, 0.0);
        }
        if after > last {
            return (last, last, 0.0);
        }
        let (begin, end) = (self.times[after - 1], self.times[after]);
        (after - 1, after, ((now - begin) / (end - begin)) as f32)
    }

    /// `(projection - dark) / (flat - dark)` of one line: `counts` and `transmission` are `[col]`.
    ///
    /// Bad pixels become NaN; samples that are not finite stay so.
    pub(super) fn divide(
        &self,
        angle: usize,
        row: usize,
        counts: &[f32],
        transmission: &mut [f32],
    ) {
        if self.open_beams.is_empty() {
            transmission.copy_from_slice(counts);
            return;
        }
        match self.dark.as_ref().map(|dark| line(dark, row)) {
            Some(dark) => {
                let both = counts.iter().zip(dark);
                for (t, (&counts, &dark)) in transmission.iter_mut().zip(both) {
                    *t = counts - dark;
                }
            }
            None => transmission.copy_from_slice(counts),
        }
        let (before, after, weight) = self.in_time(angle);
        let before = line(&self.open_beams[before], row);
        if weight == 0.0 {
            for (t, &open) in transmission.iter_mut().zip(before) {
                *t /= open;
            }
        } else {
            let both = before.iter().zip(line(&self.open_beams[after], row));
            for (t, (&a, &b)) in transmission.iter_mut().zip(both) {
                *t /= a + weight * (b - a);
            }
        }
    }

    /// Bad pixels of detector row `row`.
    pub(super) fn bad_pixels(&self, row: usize) -> u64 {
        u64::from(self.bad_per_row[row])
    }

    /// Whether the pixel carries no signal.
    pub(super) fn is_bad(&self, row: usize, col: usize) -> bool {
        self.open_beams
            .first()
            .is_some_and(|open| open[[row, col]].is_nan())
    }

    /// The fields of detector rows `rows`, laid out for the GPU; what is no field is empty.
    pub(super) fn of_rows(&self, rows: Range<usize>, n_angles: usize, n_cols: usize) -> CountSlab {
        let cut = |field: &Array2<f32>| field.slice(s![rows.clone(), ..]).iter().copied().collect();
        CountSlab {
            dark: self
                .dark
                .as_ref()
                .map_or_else(|| vec![0.0; rows.len() * n_cols], cut),
            open_beams: self
                .open_beams
                .iter()
                .flat_map(|open| -> Vec<f32> { cut(open) })
                .collect(),
            in_time: (0..n_angles)
                .map(|angle| match self.open_beams.is_empty() {
                    true => [0; 4],
                    false => {
                        let (before, after, weight) = self.in_time(angle);
                        [before as u32, after as u32, weight.to_bits(), 0]
                    }
                })
                .collect(),
            n_groups: self.open_beams.len(),
            ..CountSlab::default()
        }
    }

    /// Bytes held for the whole detector.
    pub(super) fn bytes(&self) -> usize {
        let fields = self
            .open_beams
            .iter()
            .chain(&self.dark)
            .map(|field| field.len() * 4)
            .sum::<usize>();
        fields + self.bad_per_row.len() * 4
    }
}

/// A row of a field, in one piece: loops over it go through lanes.
fn line(field: &Array2<f32>, row: usize) -> &[f32] {
    let all = field.as_slice().expect("an average is in standard layout");
    &all[row * field.ncols()..(row + 1) * field.ncols()]
}

fn joined(groups: &[FrameGroup]) -> Vec<usize> {
    groups
        .iter()
        .flat_map(|group| group.frames.iter().copied())
        .collect()
}

fn check_shape(scan: &Scan, stack: &dyn FrameStack, what: &str) -> Result<()> {
    let [_, rows, cols] = stack.shape();
    if [rows, cols] == [scan.n_rows(), scan.n_cols()] {
        return Ok(());
    }
    Err(Error::Shape {
        what: format!(
            "size of the {what} ({}) against the projections ({})",
            stack.describe(),
            scan.projections.describe()
        ),
        expected: vec![scan.n_rows(), scan.n_cols()],
        found: vec![rows, cols],
        hint: format!("give the {what} that were taken with the same detector region (--{what})"),
    })
}

/// Mean or median over `frames`, per pixel, `[row, col]`, read in blocks of detector rows.
///
/// Samples that are not finite are left out; a pixel without any finite sample is NaN. The median of an even number
/// is the mean of the two middle values.
///
/// # Errors
/// Those of the reader.
fn average_frames(
    stack: &dyn FrameStack,
    frames: &[usize],
    average: Average,
) -> Result<Array2<f32>> {
    let [_, n_rows, n_cols] = stack.shape();
    let mut averaged = Array2::<f32>::from_elem((n_rows, n_cols), f32::NAN);
    let rows_per_block =
        (AVERAGE_BYTES / (4 * frames.len() * n_cols).max(1)).clamp(1, n_rows.max(1));
    let mut counts = vec![0f32; frames.len() * rows_per_block * n_cols];
    for first in (0..n_rows).step_by(rows_per_block) {
        let rows = first..(first + rows_per_block).min(n_rows);
        let frame_len = rows.len() * n_cols;
        let counts = &mut counts[..frames.len() * frame_len];
        stack.read(frames, rows.clone(), counts)?;
        let target = averaged
            .as_slice_mut()
            .expect("a new array is in standard layout");
        let target = &mut target[rows.start * n_cols..rows.end * n_cols];
        target
            .par_chunks_mut(n_cols.max(1))
            .enumerate()
            .for_each_init(
                || Vec::with_capacity(frames.len()),
                |samples, (row, line)| {
                    for (col, pixel) in line.iter_mut().enumerate() {
                        samples.clear();
                        let here = row * n_cols + col;
                        samples.extend(
                            (0..frames.len())
                                .map(|f| counts[f * frame_len + here])
                                .filter(|v| v.is_finite()),
                        );
                        *pixel = match average {
                            Average::Mean => mean(samples),
                            Average::Median => median(samples),
                        };
                    }
                },
            );
    }
    Ok(averaged)
}

/// Mean; NaN of nothing.
fn mean(samples: &[f32]) -> f32 {
    (samples.iter().map(|&v| f64::from(v)).sum::<f64>() / samples.len() as f64) as f32
}

/// Median, the mean of the two middle values for an even number; NaN of nothing. Reorders `samples`.
fn median(samples: &mut [f32]) -> f32 {
    if samples.is_empty() {
        return f32::NAN;
    }
    let middle = samples.len() / 2;
    let odd = samples.len() % 2 == 1;
    let (below, &mut upper, _) = samples.select_nth_unstable_by(middle, f32::total_cmp);
    if odd {
        return upper;
    }
    let lower = below
        .iter()
        .copied()
        .max_by(f32::total_cmp)
        .unwrap_or(upper);
    lower + 0.5 * (upper - lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 100.0]), 3.5);
        assert_eq!(median(&mut [4.0, 1.0, 3.0]), 3.0);
        assert!(median(&mut []).is_nan() && mean(&[]).is_nan());
    }

    fn two_groups(times: [f64; 2], in_time: FlatInTime) -> FlatDark {
        let open = |counts: f32| Array2::from_elem((1, 1), counts);
        let mut fields = FlatDark {
            dark: Some(Array2::from_elem((1, 1), 10.0)),
            open_beams: vec![open(110.0), open(210.0)],
            times: times.to_vec(),
            bad_per_row: vec![0],
        };
        fields.subtract_dark(1.0);
        if in_time == FlatInTime::Nearest {
            fields.step_halfway();
        }
        fields
    }

    fn transmission(fields: &FlatDark, angle: usize) -> f32 {
        let mut out = [0.0];
        fields.divide(angle, 0, &[60.0], &mut out);
        out[0]
    }

    #[test]
    fn linear_flats_blend_between_their_times_and_hold_outside() {
        // groups at 2 and 10: projection 5 (exposed at 5.5) lies 7/16 of the way, open beam 100 + 100 * 7/16
        let fields = two_groups([2.0, 10.0], FlatInTime::Linear);
        assert_eq!(transmission(&fields, 0), 0.5);
        assert!((transmission(&fields, 5) - 50.0 / 143.75).abs() < 1e-7);
        assert_eq!(transmission(&fields, 10), 0.25);
    }

    #[test]
    fn nearest_flats_switch_halfway() {
        let fields = two_groups([2.0, 10.0], FlatInTime::Nearest);
        assert_eq!(
            [0, 5, 6, 20].map(|angle| transmission(&fields, angle)),
            [0.5, 0.5, 0.25, 0.25]
        );
    }

    #[test]
    fn a_pixel_without_signal_in_one_group_is_bad_in_all() {
        let mut fields = two_groups([0.0, 1.0], FlatInTime::Linear);
        fields.open_beams[1][[0, 0]] = 0.5;
        fields.dark = None;
        fields.subtract_dark(1.0);
        assert!(fields.is_bad(0, 0) && fields.bad_pixels(0) == 1);
        assert!(fields.open_beams[0][[0, 0]].is_nan());
    }
}
