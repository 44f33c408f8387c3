//! Twins of the kernels: plain loops in the order of operations of `line_integrals.wgsl`, for all angles of a slab at once.

use std::ops::Range;

use super::{CountSlab, LOST, LevelledColumn, LineIntegralParams, LockedPixel, Placement, Touched};
use crate::correct::Guard;
use crate::correct::bad_pixels::{WIDEST_CUBIC, lagrange};
use crate::correct::beam::middle;
use crate::correct::lock;
use crate::correct::minus_log::ln;
use crate::correct::stripe::on_gpu::{stripes_cpu, sum_of};

/// Line integrals `[slice, angle, col]` of all counts of `slab`, and what was touched.
///
/// # Panics
/// When a field of the slab is shorter than its counts say.
#[must_use]
pub fn line_integrals_cpu(slab: &CountSlab) -> (Vec<f32>, Touched) {
    let (n_angles, n_rows, _) = slab.counts.dim();
    let params = slab.params(0..n_angles, &slab.step(0..slab.n_slices()));
    let mut transmission = divide(slab);
    let left = level_lines(slab, params.first_counted as usize, &mut transmission);
    let twin = Twin {
        params,
        transmission,
    };
    let with_left = |touched: Touched| Touched {
        beam_left: left,
        ..touched
    };
    if slab.takes_columns() {
        let (line_integrals, touched) = twin.by_columns(slab);
        let touched = with_left(touched);
        return (placed(slab, line_integrals), touched);
    }
    let (locked, places) = slab.locked_of(&(0..n_rows));
    let slow: Vec<Vec<f32>> = locked
        .iter()
        .map(|pixel| {
            let mut deviation: Vec<f32> = (0..n_angles).map(|a| twin.deviate(pixel, a)).collect();
            let (mut slow, mut window) = (Vec::new(), Vec::new());
            lock::slow_part_of_pixel(&mut deviation, &mut slow, &mut window);
            slow
        })
        .collect();
    let (line_integrals, touched) = twin.take_log(&places, &slow, &slab.factors);
    (placed(slab, line_integrals), with_left(touched))
}

fn placed(slab: &CountSlab, line_integrals: Vec<f32>) -> Vec<f32> {
    match &slab.placement {
        None => line_integrals,
        Some(placement) => place_rows(slab, placement, &line_integrals),
    }
}

/// What a pixel or an edge deviates by in one line of transmission.
fn deviate_cpu(pixel: &LockedPixel, line: &[f32], min_transmission: f32) -> f32 {
    let integral = |col: u32| -line[col as usize].max(min_transmission).ln();
    let mut around = 0.0;
    for (&col, weight) in pixel.columns.iter().zip(pixel.weights) {
        around += weight * integral(col);
    }
    match pixel.at[2] {
        0 => integral(pixel.at[1]) - around,
        _ => around,
    }
}

/// The slow part of what the pixels or edges of a row deviate by in its sinogram `[angle, col]`.
fn slow_parts(
    pixels: &[LockedPixel],
    sinogram: &[f32],
    n_cols: usize,
    width: usize,
    min_transmission: f32,
) -> Vec<Vec<f32>> {
    let of_pixel = |pixel: &LockedPixel| {
        let lines = sinogram.chunks_exact(n_cols);
        let mut deviation: Vec<f32> = lines
            .map(|line| deviate_cpu(pixel, line, min_transmission))
            .collect();
        lock::slow_part_over(&mut deviation, width)
    };
    pixels.iter().map(of_pixel).collect()
}

/// Takes the level of broad stripes off a sinogram `[angle, col]`.
fn level_cpu(columns: &[LevelledColumn], slow: &[Vec<f32>], sinogram: &mut [f32], n_cols: usize) {
    for (angle, line) in sinogram.chunks_exact_mut(n_cols).enumerate() {
        for column in columns {
            let left = slow[column.left as usize][angle];
            let right = -slow[column.left as usize + 1][angle];
            line[column.col as usize] *= (left + column.share * (right - left)).exp();
        }
    }
}

/// Takes the slow parts of pixels off a sinogram `[angle, col]`.
fn treat_cpu(pixels: &[LockedPixel], slow: &[Vec<f32>], sinogram: &mut [f32], n_cols: usize) {
    for (angle, line) in sinogram.chunks_exact_mut(n_cols).enumerate() {
        for (pixel, slow) in pixels.iter().zip(slow) {
            line[pixel.at[1] as usize] *= slow[angle].exp();
        }
    }
}

/// Lines of slices `[slice, angle, col]` from those of detector rows `[row, angle, col]`.
fn place_rows(slab: &CountSlab, placement: &Placement, rows: &[f32]) -> Vec<f32> {
    let (n_angles, n_rows, n_cols) = slab.counts.dim();
    let mut line_integrals = vec![f32::NAN; placement.n_slices * n_angles * n_cols];
    for slice in 0..placement.n_slices {
        for angle in 0..n_angles {
            let line = if placement.is_moving() { angle } else { 0 };
            let taps = placement.of_slice(slice)[line];
            for col in 0..n_cols {
                let mut sum = 0.0;
                for (tap, weight) in taps.weights.iter().enumerate() {
                    let row = (taps.first + tap as i32).clamp(0, n_rows as i32 - 1) as usize;
                    sum += weight * rows[(row * n_angles + angle) * n_cols + col];
                }
                line_integrals[(slice * n_angles + angle) * n_cols + col] = sum;
            }
        }
    }
    line_integrals
}

/// Transmission `[row, angle, col]` without holes.
fn divide(slab: &CountSlab) -> Vec<f32> {
    let (n_angles, n_rows, n_cols) = slab.counts.dim();
    let divided = |row: usize, angle: usize, col: usize| -> f32 {
        let count = f32::from(slab.counts[[angle, row, col]]);
        if slab.n_groups == 0 {
            return count;
        }
        let (pixel, group) = (row * n_cols + col, n_rows * n_cols);
        let time = slab.in_time[angle];
        let mut open = slab.open_beams[time[0] as usize * group + pixel];
        let weight = f32::from_bits(time[2]);
        if weight != 0.0 {
            open += weight * (slab.open_beams[time[1] as usize * group + pixel] - open);
        }
        (count - slab.dark[pixel]) / open
    };
    let is_good =
        |row: usize, col: usize| slab.good[row * n_cols + col] as usize == (col | (col << 16));
    let takes_cubic = |row: usize, left: usize, right: usize| {
        slab.cubic
            && (right - left) as f32 <= WIDEST_CUBIC + 1.0
            && left > 0
            && right + 1 < n_cols
            && is_good(row, left - 1)
            && is_good(row, right + 1)
    };
    let mut transmission = vec![f32::NAN; n_rows * n_angles * n_cols];
    for row in 0..n_rows {
        for angle in 0..n_angles {
            for col in 0..n_cols {
                let columns = slab.good[row * n_cols + col];
                let mut value = 1.0;
                if columns != LOST {
                    let (left, right) = ((columns & 0xffff) as usize, (columns >> 16) as usize);
                    value = divided(row, angle, left);
                    if left != right {
                        let last = divided(row, angle, right);
                        let (gap, here) = ((right - left) as f32, (col - left) as f32);
                        if takes_cubic(row, left, right) {
                            let w = lagrange([-1.0 - here, -here, gap - here, gap + 1.0 - here]);
                            value = w[0] * divided(row, angle, left - 1)
                                + w[1] * value
                                + w[2] * last
                                + w[3] * divided(row, angle, right + 1);
                        } else {
                            value += (last - value) * (here / gap);
                        }
                    }
                }
                transmission[(row * n_angles + angle) * n_cols + col] = value;
            }
        }
    }
    transmission
}

/// Takes drift of the beam off `transmission` `[row, angle, col]`; how many lines from row `first_counted` on were left.
fn level_lines(slab: &CountSlab, first_counted: usize, transmission: &mut [f32]) -> u64 {
    let (n_angles, _, n_cols) = slab.counts.dim();
    let Some(beam) = &slab.beam else {
        return 0;
    };
    let mut left = 0;
    for (index, line) in transmission.chunks_exact_mut(n_cols).enumerate() {
        let (row, angle) = (index / n_angles, index % n_angles);
        let reading = beam.factors.as_ref().map_or(1.0, |factors| factors[angle]);
        let mean = |air: &Range<usize>| {
            let of_air = line[air.clone()].iter().enumerate();
            sum_of(of_air.map(|(thread, value)| (thread, value * reading))) / air.len() as f32
        };
        let means: Vec<f32> = beam.air.iter().map(mean).collect();
        let believed = means.iter().all(|mean| (0.5..2.0).contains(mean));
        left += u64::from(!believed && row >= first_counted);
        for (col, value) in line.iter_mut().enumerate() {
            *value *= reading;
            match (&beam.air[..], &means[..]) {
                _ if !believed => {}
                ([left, right], [a, b]) => {
                    let (from, to) = (middle(left) as f32, middle(right) as f32);
                    *value /= a + (b - a) / (to - from) * (col as f32 - from);
                }
                (_, [mean]) => *value *= 1.0 / mean,
                _ => {}
            }
        }
    }
    left
}

struct Twin {
    params: LineIntegralParams,
    /// `[row, angle, col]`
    transmission: Vec<f32>,
}

impl Twin {
    fn n_angles(&self) -> usize {
        self.params.n_angles as usize
    }

    fn n_cols(&self) -> usize {
        self.params.n_cols as usize
    }

    fn at(&self, row: usize, angle: usize, col: usize) -> f32 {
        self.transmission[(row * self.n_angles() + angle) * self.n_cols() + col]
    }

    fn neighbours(&self, index: usize, len: usize) -> (usize, usize) {
        let size = self.params.zinger_size as usize;
        let before = if index >= size { index - size } else { index };
        let after = if index + size < len {
            index + size
        } else {
            index
        };
        (
            if index >= size { before } else { after },
            if index + size < len { after } else { before },
        )
    }

    fn neighbour_mean(&self, row: usize, angle: usize, col: usize) -> f32 {
        let (up, down) = self.neighbours(angle, self.n_angles());
        let (left, right) = self.neighbours(col, self.n_cols());
        let at = |angle: usize, col: usize| self.at(row, angle, col);
        let sides = (at(up, left) + at(up, right)) + (at(down, left) + at(down, right));
        (sides + (at(angle, left) + at(angle, right)) + (at(up, col) + at(down, col))) * 0.125
    }

    /// The most that the line of an angle rises above `base` beside `col`; nothing beyond the first and the last.
    fn rise(&self, row: usize, angle: usize, away: isize, col: usize, base: f32) -> f32 {
        let there = angle.checked_add_signed(away);
        let Some(a) = there.filter(|&a| a < self.n_angles()) else {
            return 0.0;
        };
        let reach = (self.params.guard_reach as usize - 1) * away.unsigned_abs() + 1;
        let around = col.saturating_sub(reach)..(col + reach + 1).min(self.n_cols());
        around.fold(0.0, |most, c| most.max(self.at(row, a, c) - base))
    }

    fn brightest_beside(&self, row: usize, angle: usize, col: usize, base: f32) -> f32 {
        let rise = |away| self.rise(row, angle, away, col, base);
        base + Guard::structure([rise(-2), rise(-1), rise(1), rise(2)])
    }

    fn noise_around(&self, row: usize, angle: usize, col: usize) -> Option<f32> {
        let first = angle.saturating_sub(Guard::AROUND).max(1);
        let end = (angle + Guard::AROUND + 1).min(self.n_angles() - 1);
        let at = |a: usize| self.at(row, a, col);
        let mut sizes: Vec<f32> = (first..end)
            .filter(|a| a.abs_diff(angle) > 1)
            .map(|a| (at(a) - 0.5 * (at(a - 1) + at(a + 1))).abs())
            .collect();
        sizes.sort_by(f32::total_cmp);
        let median = sizes.get(sizes.len() / 2)?;
        Some(1.4826 * median / 1.5f32.sqrt())
    }

    fn neighbour_median(&self, row: usize, angle: usize, col: usize) -> f32 {
        let (up, down) = self.neighbours(angle, self.n_angles());
        let (left, right) = self.neighbours(col, self.n_cols());
        let lines = [up, angle, down].map(|a| [left, col, right].map(|c| self.at(row, a, c)));
        let [up, [left, _, right], down] = lines;
        let mut around: Vec<f32> = up.into_iter().chain([left, right]).chain(down).collect();
        around.sort_by(f32::total_cmp);
        0.5 * (around[3] + around[4])
    }

    /// The sample in the place of one beyond the threshold, if it is a zinger.
    fn judged(&self, row: usize, angle: usize, col: usize) -> Option<f32> {
        let value = self.at(row, angle, col);
        if self.params.zinger_kind > 0 {
            let median = self.neighbour_median(row, angle, col);
            let bright = self.params.zinger_kind == 2 && value > median * self.params.zinger_limit;
            let dark = value < median * self.params.dark_limit;
            return (median > 0.0 && (bright || dark)).then_some(median);
        }
        let mean = self.neighbour_mean(row, angle, col);
        let limit = self.params.zinger_limit;
        if !(mean > 0.0 && value > mean * limit) {
            return None;
        }
        if self.params.guard_reach == 0 {
            return Some(mean);
        }
        let base = self.between(row, angle, col).unwrap_or(mean);
        let brightest = self.brightest_beside(row, angle, col, base);
        let noise = self.noise_around(row, angle, col);
        let is_noise = noise.is_some_and(|noise| value - brightest <= Guard::SIGMA * noise);
        if value <= limit * brightest || is_noise {
            return None;
        }
        Some(base)
    }

    fn between(&self, row: usize, angle: usize, col: usize) -> Option<f32> {
        let inner = angle > 0 && angle + 1 < self.n_angles();
        inner.then(|| 0.5 * (self.at(row, angle - 1, col) + self.at(row, angle + 1, col)))
    }

    fn stands_out(&self, row: usize, angle: usize, col: usize) -> bool {
        let Some(value) = self.between(row, angle, col) else {
            return false;
        };
        let rise = self.at(row, angle, col) - value;
        rise > Guard::ROUNDING * value.abs()
            && self
                .noise_around(row, angle, col)
                .is_some_and(|noise| rise > Guard::SIGMA * noise)
    }

    /// Whether a zinger stands `TRACK` samples to one side at most, and all from there to here stand out.
    fn is_beside(&self, row: usize, angle: usize, col: usize, side: isize) -> bool {
        for away in 1..=Guard::TRACK as isize {
            let other = col as isize + side * away;
            if other < 0 || other >= self.n_cols() as isize {
                return false;
            }
            if self.judged(row, angle, other as usize).is_some() {
                return (0..away)
                    .all(|a| self.stands_out(row, angle, (col as isize + side * a) as usize));
            }
        }
        false
    }

    /// The sample, and whether it stands in the place of a zinger.
    fn cleaned(&self, row: usize, angle: usize, col: usize) -> (f32, bool) {
        let value = self.at(row, angle, col);
        if self.params.zinger_size == 0 {
            return (value, false);
        }
        if let Some(better) = self.judged(row, angle, col) {
            return (better, true);
        }
        let Some(between) = self.between(row, angle, col) else {
            return (value, false);
        };
        let beside = self.params.guard_reach > 0
            && value - between > Guard::ROUNDING * between.abs()
            && (self.is_beside(row, angle, col, -1) || self.is_beside(row, angle, col, 1));
        if beside {
            (between, true)
        } else {
            (value, false)
        }
    }

    fn deviate(&self, pixel: &LockedPixel, angle: usize) -> f32 {
        let row = pixel.at[0] as usize;
        let integral = |col: u32| {
            let value = self.cleaned(row, angle, col as usize).0;
            -value.max(self.params.min_transmission).ln()
        };
        let mut around = 0.0;
        for (&col, weight) in pixel.columns.iter().zip(pixel.weights) {
            around += weight * integral(col);
        }
        integral(pixel.at[1]) - around
    }

    /// Lock and stripe removal on whole columns, row by row; then -ln.
    fn by_columns(&self, slab: &CountSlab) -> (Vec<f32>, Touched) {
        let (n_angles, n_cols) = (self.n_angles(), self.n_cols());
        let min_transmission = self.params.min_transmission;
        let mut touched = Touched::default();
        let mut line_integrals = self.transmission.clone();
        let sinograms = line_integrals.chunks_exact_mut((n_angles * n_cols).max(1));
        for (row, sinogram) in sinograms.enumerate() {
            let counts_here = row >= self.params.first_counted as usize;
            for angle in 0..n_angles {
                for col in 0..n_cols {
                    let (value, zinger) = self.cleaned(row, angle, col);
                    sinogram[angle * n_cols + col] = value;
                    touched.zingers += u64::from(zinger && counts_here);
                }
            }
            let (edges, levelled) = slab.broad_of(&(row..row + 1));
            let width = lock::median_width_broad(n_angles);
            let slow = slow_parts(&edges, sinogram, n_cols, width, min_transmission);
            level_cpu(&levelled, &slow, sinogram, n_cols);
            let (pixels, _) = slab.locked_of(&(row..row + 1));
            let width = lock::median_width(n_angles);
            let slow = slow_parts(&pixels, sinogram, n_cols, width, min_transmission);
            treat_cpu(&pixels, &slow, sinogram, n_cols);
            if let Some(factors) = slab.factors.chunks_exact(n_cols).nth(row) {
                let samples = sinogram.iter_mut().zip(factors.iter().cycle());
                samples.for_each(|(value, factor)| *value *= factor);
            }
            if let Some(removal) = &slab.stripe {
                let counts = stripes_cpu(removal, sinogram, n_cols);
                touched.large_stripes += if counts_here { counts.large } else { 0 };
                touched.dead_stripes += if counts_here { counts.dead } else { 0 };
            }
            for value in sinogram {
                if value.is_nan() || *value < min_transmission {
                    *value = min_transmission;
                    touched.clipped += u64::from(counts_here);
                }
                *value = -ln(*value);
            }
        }
        (line_integrals, touched)
    }

    /// `places` `[row, col]`, 1 + place in `slow`, which is `[pixel][angle]`; 0 elsewhere; `factors` `[row, col]`, or none.
    fn take_log(&self, places: &[u32], slow: &[Vec<f32>], factors: &[f32]) -> (Vec<f32>, Touched) {
        let mut touched = Touched::default();
        let mut line_integrals = vec![f32::NAN; self.transmission.len()];
        for row in 0..self.params.n_rows as usize {
            for angle in 0..self.n_angles() {
                for col in 0..self.n_cols() {
                    let (mut value, zinger) = self.cleaned(row, angle, col);
                    let counts_here = row >= self.params.first_counted as usize;
                    touched.zingers += u64::from(zinger && counts_here);
                    let pixel = places[row * self.n_cols() + col] as usize;
                    if pixel > 0 {
                        value *= slow[pixel - 1][angle].exp();
                    }
                    if let Some(factor) = factors.get(row * self.n_cols() + col) {
                        value *= factor;
                    }
                    if value.is_nan() || value < self.params.min_transmission {
                        value = self.params.min_transmission;
                        touched.clipped += u64::from(counts_here);
                    }
                    line_integrals[(row * self.n_angles() + angle) * self.n_cols() + col] =
                        -ln(value);
                }
            }
        }
        (line_integrals, touched)
    }
}
