//! Twins of the kernels: plain loops in the order of operations of `find_stripes.wgsl`, and the merges of `sort_columns.wgsl`.
//!
//! Where a kernel moves or chooses values, its twin is the function of the CPU that must give the same bits.

use super::fits::fitting_cpu;
use super::means::mean_weights;
use super::wavelets::wavelets_cpu;
use super::waves::filter_cpu;
use super::{SHIFT, StripeParams};
use crate::correct::median::{Tile, across_columns, reflect};
use crate::correct::stripe::columns::{Columns, SortedColumns};
use crate::correct::stripe::{StripeCounts, StripeRemoval};

/// Invocations of a workgroup, whose sums are added in the order of its tree.
const THREADS: usize = 256;
/// Least distance of the ends of the line through the sorted excesses.
const LEAST_NOISE: f32 = 1e-6;

/// Removes the stripes of one sinogram `[angle, col]` as the kernels do.
pub fn stripes_cpu(removal: &StripeRemoval, sinogram: &mut [f32], n_cols: usize) -> StripeCounts {
    let mut counts = StripeCounts::default();
    let (mut columns, mut smooth) = (Columns::default(), Columns::default());
    let (mut sorted, mut tile) = (SortedColumns::default(), Tile::default());
    columns.read(sinogram, n_cols);
    let params = StripeParams {
        n_rows: 1,
        n_cols: n_cols as u32,
        n_angles: columns.n_angles() as u32,
        ..StripeParams::default()
    };
    let mut find_large = |sorted: &mut SortedColumns, large, keep| {
        let params = StripeParams {
            keep,
            ..params.of_large(large)
        };
        across_columns(&sorted.values, large.size, &mut smooth, &mut tile);
        let found = compare(&params, &sorted.values, &smooth);
        let (flags, count) = detect(&params, &found.excess);
        replace(&params, &found.factors, &flags, &smooth, &mut sorted.values);
        (flags, count)
    };
    match removal {
        StripeRemoval::Sorting(size) => {
            sorted.sort(&columns);
            across_columns(&sorted.values, *size, &mut smooth, &mut tile);
            sorted.unsort(&smooth, &mut columns);
        }
        StripeRemoval::Large(large) => {
            sorted.sort(&columns);
            counts.large = find_large(&mut sorted, large, 0).1;
            sorted.unsort_values(&mut columns);
        }
        StripeRemoval::Dead(dead, residual) => {
            counts.dead = mend_dead(&params.of_dead(dead), &mut columns);
            if let Some(large) = residual {
                sorted.sort(&columns);
                counts.large = find_large(&mut sorted, large, 0).1;
                sorted.unsort_values(&mut columns);
            }
        }
        StripeRemoval::All(dead, large, size) => {
            counts.dead = mend_dead(&params.of_dead(dead), &mut columns);
            sorted.sort(&columns);
            counts.large = find_large(&mut sorted, large, 0).1;
            across_columns(&sorted.values, *size, &mut smooth, &mut tile);
            sorted.unsort(&smooth, &mut columns);
        }
        StripeRemoval::Interpolation(large) => {
            sorted.sort(&columns);
            let (flags, count) = find_large(&mut sorted, large, 1);
            sorted.unsort_values(&mut columns);
            columns.bridge(&flags);
            counts.large = count;
        }
        StripeRemoval::Normalization(_) | StripeRemoval::Regularization(_) => {
            let weights = mean_weights(removal, n_cols).unwrap_or_default();
            let params = params.of_means(removal, weights.len().saturating_sub(1));
            let sums = sum_columns(&params, &columns);
            let factors = smooth_means(&params, &sums, &weights);
            shift_columns(&params, &factors, &mut columns);
        }
        StripeRemoval::Filtering(_) | StripeRemoval::Fft(_) => filter_cpu(removal, &mut columns),
        StripeRemoval::Fitting(fitting) => fitting_cpu(fitting, &mut columns),
        StripeRemoval::WaveletFft(filter) => wavelets_cpu(filter, &mut columns),
    }
    columns.write(sinogram);
    counts
}

fn mend_dead(params: &StripeParams, columns: &mut Columns) -> u64 {
    let restless: Vec<f32> = columns
        .iter()
        .map(|column| restless(params, column))
        .collect();
    let (flags, count) = detect(params, &judge(params, &restless));
    columns.bridge(&flags);
    count
}

/// A sample as a whole number, where the largest exponent of its column is `top`.
fn fixed(value: f32, top: u32) -> i64 {
    let bits = value.to_bits();
    let exponent = (bits >> 23) & 0xff;
    let mantissa = i64::from((bits & 0x7f_ffff) | if exponent > 0 { 0x80_0000 } else { 0 });
    let down = top - exponent.max(1);
    let number = if down <= SHIFT {
        mantissa << (SHIFT - down)
    } else {
        mantissa >> (down - SHIFT).min(63)
    };
    if value.is_sign_negative() {
        -number
    } else {
        number
    }
}

/// The same from a whole number, rounded as two halves.
fn real(number: i64) -> f32 {
    let size = number.unsigned_abs();
    let value = (size >> 32) as u32 as f32 * 4_294_967_296.0 + size as u32 as f32;
    if number < 0 { -value } else { value }
}

fn top_of<'a>(values: impl Iterator<Item = &'a f32>) -> u32 {
    let peak = values.map(|value| value.to_bits() & 0x7fff_ffff).max();
    (peak.unwrap_or(0) >> 23).max(1)
}

/// Adds what the invocations of a workgroup have, in the order of its tree.
pub(in crate::correct) fn sum_of(terms: impl Iterator<Item = (usize, f32)>) -> f32 {
    let mut parts = [0f32; THREADS];
    terms.for_each(|(thread, term)| parts[thread % THREADS] += term);
    let mut half = THREADS / 2;
    while half > 0 {
        for thread in 0..half {
            parts[thread] += parts[thread + half];
        }
        half /= 2;
    }
    parts[0]
}

fn restless(params: &StripeParams, column: &[f32]) -> f32 {
    let top = top_of(column.iter());
    let mut sum = 0i64;
    for (angle, &value) in column.iter().enumerate() {
        let first = angle as isize - (params.mean_over / 2) as isize;
        let mut distance = 0i64;
        for k in 0..params.mean_over as isize {
            let other = column[reflect(first + k, column.len())];
            distance += fixed(value, top) - fixed(other, top);
        }
        sum += distance.abs();
    }
    let unit = if top > 41 { (top - 41) << 23 } else { 0 };
    real(sum) * f32::from_bits(unit)
}

/// The excess of each column over the median of those around.
fn judge(params: &StripeParams, restless: &[f32]) -> Vec<f32> {
    let n = restless.len();
    let window = params.window as isize;
    let usual: Vec<f32> = (0..n as isize)
        .map(|col| {
            let first = col - window / 2;
            let mut around: Vec<f32> = (first..first + window)
                .map(|near| restless[reflect(near, n)])
                .collect();
            around.sort_by(f32::total_cmp);
            around[window as usize / 2]
        })
        .collect();
    let mean = sum_of(usual.iter().copied().enumerate()) / n as f32;
    let excess = |(&own, &usual): (&f32, &f32)| {
        let around = if usual == 0.0 { mean } else { usual };
        if around > 0.0 {
            (own - around) / around
        } else {
            0.0
        }
    };
    restless.iter().zip(&usual).map(excess).collect()
}

struct Compared {
    factors: Vec<f32>,
    excess: Vec<f32>,
}

fn compare(params: &StripeParams, sorted: &Columns, smooth: &Columns) -> Compared {
    let kept = params.first_kept as usize..params.end_kept as usize;
    let of_column = |(sorted, smooth): (&[f32], &[f32])| {
        let (sorted, smooth) = (&sorted[kept.clone()], &smooth[kept.clone()]);
        let top = top_of(sorted.iter().chain(smooth));
        let sum = |values: &[f32]| values.iter().map(|&value| fixed(value, top)).sum::<i64>();
        let (own, around) = (sum(sorted), sum(smooth));
        match around {
            0 => (1.0, 0.0),
            _ => (real(own) / real(around), real(own - around) / real(around)),
        }
    };
    let (factors, excess) = sorted.iter().zip(smooth.iter()).map(of_column).unzip();
    Compared { factors, excess }
}

/// Ends of the line through the middle half of the sorted excesses.
fn line_through(sorted: &[f32]) -> (f32, f32) {
    let first = sorted.len() / 4;
    let end = sorted.len() - sorted.len() / 4 - 1;
    let n = (end - first) as f32;
    let middle = 0.5 * (first + end - 1) as f32;
    let within = || sorted[first..end].iter().enumerate();
    let mean = sum_of(within().map(|(k, &value)| (k, value))) / n;
    let across =
        sum_of(within().map(|(k, value)| (k, ((first + k) as f32 - middle) * (value - mean))));
    let spread = n * (n * n - 1.0) / 12.0;
    let slope = if spread > 0.0 { across / spread } else { 0.0 };
    let low = mean - slope * middle;
    (low, low + slope * (sorted.len() - 1) as f32)
}

/// Flagged columns, and how many they are.
fn detect(params: &StripeParams, excess: &[f32]) -> (Vec<bool>, u64) {
    let n = excess.len();
    let none = (vec![false; n], 0);
    if n < 8 {
        return none;
    }
    let mut sorted = excess.to_vec();
    sorted.sort_by(f32::total_cmp);
    let (low, high) = line_through(&sorted);
    let noise = (high - low).abs().max(LEAST_NOISE);
    let bright = (sorted[n - 1] - high).abs() / noise >= params.snr;
    let dark = (low - sorted[0]).abs() / noise >= params.snr;
    let margin = 0.5 * params.snr * noise;
    let stands_out = |own: f32| (bright && own > high + margin) || (dark && own <= low - margin);
    let flags: Vec<bool> = (0..n)
        .map(|col| {
            let near = col.saturating_sub(1)..(col + 2).min(n);
            let outermost = params.dead == 1 && (col < 2 || col + 2 >= n);
            near.into_iter().any(|near| stands_out(excess[near])) && !outermost
        })
        .collect();
    let count = flags.iter().filter(|&&flag| flag).count();
    if params.dead == 1 && count >= n / 3 {
        return none;
    }
    (flags, count as u64)
}

fn replace(
    params: &StripeParams,
    factors: &[f32],
    flags: &[bool],
    smooth: &Columns,
    columns: &mut Columns,
) {
    for (col, column) in columns.iter_mut().enumerate() {
        if flags[col] && params.keep == 0 {
            column.copy_from_slice(smooth.column(col));
        } else if params.normalize == 1 && factors[col] > 0.0 {
            column.iter_mut().for_each(|value| *value /= factors[col]);
        }
    }
}

/// Sum of a column in two parts, sum of its magnitudes, and how many samples have no logarithm.
fn sum_columns(params: &StripeParams, columns: &Columns) -> Vec<[f32; 4]> {
    let term = |value: f32| match params.logarithm {
        0 => value,
        _ if value > 0.0 => value.ln(),
        _ => 0.0,
    };
    let of_column = |column: &[f32]| {
        let terms: Vec<f32> = column.iter().map(|&value| term(value)).collect();
        let top = top_of(terms.iter());
        let sum: i64 = terms.iter().map(|&value| fixed(value, top)).sum();
        let size = sum.unsigned_abs();
        let upper = (size >> 32) as u32;
        let low = upper.max(1).ilog2().max(23) - 23;
        let first = (upper >> low) << low;
        let sign = if sum < 0 { -1.0 } else { 1.0 };
        let unit = sign * f32::from_bits(if top > 41 { (top - 41) << 23 } else { 0 });
        let rest = (upper - first) as f32 * 4_294_967_296.0 + size as u32 as f32;
        let magnitude = sum_of(column.iter().map(|value| value.abs()).enumerate());
        let without = column.iter().filter(|&&value| value <= 0.0).count() as f32;
        [
            first as f32 * 4_294_967_296.0 * unit,
            rest * unit,
            magnitude,
            without,
        ]
    };
    columns.iter().map(of_column).collect()
}

/// What every column moves by: a term, or a factor for the logarithm.
fn smooth_means(params: &StripeParams, sums: &[[f32; 4]], weights: &[f32]) -> Vec<f32> {
    let all = sum_of(sums.iter().map(|sum| sum[2]).enumerate());
    let magnitude = all / (params.n_cols as f32 * params.n_angles as f32);
    let instead = if magnitude > 0.0 { magnitude.ln() } else { 0.0 };
    let reach = params.reach as isize;
    let of_column = |(col, own): (usize, &[f32; 4])| {
        let mut lacking = 0.0;
        for step in -reach..=reach {
            let other = sums[reflect(col as isize + step, sums.len())];
            let mut more = (other[0] - own[0]) + (other[1] - own[1]);
            if params.logarithm == 1 {
                more += instead * (other[3] - own[3]);
            }
            lacking += weights[step.unsigned_abs()] * more;
        }
        lacking /= params.n_angles as f32;
        match params.logarithm {
            0 => lacking,
            _ => lacking.exp(),
        }
    };
    sums.iter().enumerate().map(of_column).collect()
}

fn shift_columns(params: &StripeParams, factors: &[f32], columns: &mut Columns) {
    for (column, &factor) in columns.iter_mut().zip(factors) {
        for value in column {
            match params.logarithm {
                0 => *value += factor,
                _ => *value *= factor,
            }
        }
    }
}
