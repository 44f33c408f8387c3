//! Running medians with SciPy's `reflect` edges (d c b a | a b c d | d c b a).
//!
//! The window of length k around column j covers `j - k/2 .. j - k/2 + k` and gives the value of rank `k/2`: the middle
//! for odd k, the upper middle one for even k, as `scipy.ndimage.median_filter`.
//!
//! When the window moves by one column, one value leaves and one enters, so the median stays or moves to the next
//! value below or above. One pass over the window counts what lies on either side of the old median and finds these
//! two neighbours. The pass has no branches and runs over [`LANES`] angles at once.

use super::stripe::Columns;

/// Angles that are worked on at once: a cache line of f32.
const LANES: usize = 16;
/// Cache lines of a column that are fetched together: columns are pages apart, and a page is dear to look up.
const GROUP: usize = 4;
type Lanes = [f32; LANES];

/// Median over `size` neighbouring columns for every angle, from `input` into `output` (same shape).
///
/// No value may be NaN (the result is then some value of the window).
pub(super) fn across_columns(input: &Columns, size: usize, output: &mut Columns, tile: &mut Tile) {
    let (n_cols, n_angles) = (input.n_cols(), input.n_angles());
    output.reshape(n_cols, n_angles);
    let left = size / 2;
    let padded_cols = n_cols + size - 1;
    tile.padded.resize(GROUP * padded_cols, [0.0; LANES]);
    tile.medians.resize(GROUP * n_cols, [0.0; LANES]);
    for first in (0..n_angles).step_by(GROUP * LANES) {
        let angles = first..(first + GROUP * LANES).min(n_angles);
        for col in 0..n_cols {
            let pieces = input.column(col)[angles.clone()].chunks(LANES);
            for (group, piece) in pieces.enumerate() {
                // the lanes beyond the last angle keep old values, which are finite and never read
                let place = &mut tile.padded[group * padded_cols + left + col];
                match <&Lanes>::try_from(piece) {
                    Ok(whole) => *place = *whole,
                    Err(_) => place[..piece.len()].copy_from_slice(piece),
                }
            }
        }
        for group in 0..angles.len().div_ceil(LANES) {
            let padded = &mut tile.padded[group * padded_cols..][..padded_cols];
            for place in (0..left).chain(left + n_cols..padded_cols) {
                padded[place] = padded[left + reflect(place as isize - left as isize, n_cols)];
            }
            let medians = &mut tile.medians[group * n_cols..][..n_cols];
            slide(padded, size, medians);
        }
        for col in 0..n_cols {
            let pieces = output.column_mut(col)[angles.clone()].chunks_mut(LANES);
            for (group, piece) in pieces.enumerate() {
                let medians = &tile.medians[group * n_cols + col];
                piece.copy_from_slice(&medians[..piece.len()]);
            }
        }
    }
}

/// Median over `size` neighbouring values of one line.
pub(super) fn of_line(line: &[f64], size: usize) -> Vec<f64> {
    let mut window = Vec::with_capacity(size);
    (0..line.len() as isize)
        .map(|middle| {
            let first = middle - (size / 2) as isize;
            window.clear();
            window.extend(
                (first..first + size as isize).map(|place| line[reflect(place, line.len())]),
            );
            *window.select_nth_unstable_by(size / 2, f64::total_cmp).1
        })
        .collect()
}

/// The index inside `0..len` that `reflect` edges give for `place`, however far outside.
pub(super) fn reflect(place: isize, len: usize) -> usize {
    let period = 2 * len as isize;
    let inside = place.rem_euclid(period);
    (if inside < len as isize {
        inside
    } else {
        period - 1 - inside
    }) as usize
}

/// Scratch of [`across_columns`]: some cache lines of every column, with its edges.
#[derive(Default)]
pub(super) struct Tile {
    padded: Vec<Lanes>,
    medians: Vec<Lanes>,
}

impl Tile {
    /// Bytes for sinograms of `n_cols` columns and windows up to `size`.
    pub(super) fn bytes(n_cols: usize, size: usize) -> usize {
        GROUP * (2 * n_cols + size) * size_of::<Lanes>()
    }

    /// Bytes held.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        (self.padded.capacity() + self.medians.capacity()) * size_of::<Lanes>()
    }
}

/// `medians[j]` of `values[j..j + size]`, lane by lane.
fn slide(values: &[Lanes], size: usize, medians: &mut [Lanes]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[expect(
            unsafe_code,
            reason = "the processor was just asked for the feature that the function is compiled with"
        )]
        // SAFETY: AVX2 is present.
        return unsafe { slide_avx2(values, size, medians) };
    }
    slide_plain(values, size, medians);
}

/// [`slide_plain`] compiled for AVX2; the same operations in the same order, hence the same result.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn slide_avx2(values: &[Lanes], size: usize, medians: &mut [Lanes]) {
    slide_plain(values, size, medians);
}

#[inline(always)]
fn slide_plain(values: &[Lanes], size: usize, medians: &mut [Lanes]) {
    let rank = (size / 2) as i32;
    let most_above = size as i32 - rank;
    let mut median = first_median(&values[..size]);
    for (window, out) in values.windows(size).zip(medians) {
        let mut n_below = [0i32; LANES];
        let mut n_above = [0i32; LANES];
        let mut next_below = [f32::NEG_INFINITY; LANES];
        let mut next_above = [f32::INFINITY; LANES];
        for value in window {
            for lane in 0..LANES {
                let (v, m) = (value[lane], median[lane]);
                n_below[lane] += i32::from(v < m);
                n_above[lane] += i32::from(v > m);
                let below = if v < m { v } else { f32::NEG_INFINITY };
                let above = if v > m { v } else { f32::INFINITY };
                next_below[lane] = if below > next_below[lane] {
                    below
                } else {
                    next_below[lane]
                };
                next_above[lane] = if above < next_above[lane] {
                    above
                } else {
                    next_above[lane]
                };
            }
        }
        for lane in 0..LANES {
            // rank r is the median if at most r values are below it and more than r are not above it; selected, not
            // branched on: whether the median moves is a toss-up
            let (low, high) = (next_below[lane], next_above[lane]);
            let up = if n_above[lane] >= most_above {
                high
            } else {
                median[lane]
            };
            median[lane] = if n_below[lane] > rank { low } else { up };
        }
        *out = median;
    }
}

/// Medians of the first window by selection.
fn first_median(window: &[Lanes]) -> Lanes {
    let mut lane_values = Vec::with_capacity(window.len());
    std::array::from_fn(|lane| {
        lane_values.clear();
        lane_values.extend(window.iter().map(|values| values[lane]));
        *lane_values
            .select_nth_unstable_by(window.len() / 2, f32::total_cmp)
            .1
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correct::goldens::{Golden, worst};

    fn noise(index: usize) -> f32 {
        // few distinct values, so that ties are common; both signs
        ((index.wrapping_mul(2_654_435_761) >> 7) % 23) as f32 - 11.0
    }

    fn check(n_cols: usize, n_angles: usize, size: usize) {
        let mut input = Columns::default();
        input.reshape(n_cols, n_angles);
        for col in 0..n_cols {
            input
                .column_mut(col)
                .iter_mut()
                .enumerate()
                .for_each(|(angle, v)| *v = noise(angle * n_cols + col));
        }
        let (mut output, mut tile) = (Columns::default(), Tile::default());
        across_columns(&input, size, &mut output, &mut tile);
        let mut differs_without_edges = false;
        for angle in 0..n_angles {
            for col in 0..n_cols {
                let first = col as isize - (size / 2) as isize;
                let places = first..first + size as isize;
                let mut window: Vec<f32> = places
                    .clone()
                    .map(|place| input.column(reflect(place, n_cols))[angle])
                    .collect();
                window.sort_by(f32::total_cmp);
                assert_eq!(
                    output.column(col)[angle],
                    window[size / 2],
                    "{n_cols} {n_angles} {size} at {col}, {angle}"
                );
                let clamp = |place: isize| place.clamp(0, n_cols as isize - 1) as usize;
                let mut window: Vec<f32> = places
                    .map(|place| input.column(clamp(place))[angle])
                    .collect();
                window.sort_by(f32::total_cmp);
                differs_without_edges |= output.column(col)[angle] != window[size / 2];
            }
        }
        assert!(
            differs_without_edges || n_cols < 3 || size < 5,
            "the check is blind to the edges"
        );
    }

    #[test]
    fn sliding_medians_equal_sorted_windows_for_odd_even_and_wide_windows() {
        for (n_cols, n_angles, size) in [
            (37, 19, 5),
            (37, 16, 21),
            (23, 17, 51),
            (19, 131, 7),
            (1, 3, 5),
            (2, 1, 4),
            (40, 33, 6),
            (9, 5, 1),
        ] {
            check(n_cols, n_angles, size);
        }
    }

    #[test]
    fn the_plain_and_the_compiled_path_are_bit_identical() {
        let values: Vec<Lanes> = (0..90)
            .map(|i| std::array::from_fn(|lane| noise(i * LANES + lane)))
            .collect();
        let (mut plain, mut dispatched) =
            (vec![[f32::NAN; LANES]; 70], vec![[f32::NAN; LANES]; 70]);
        slide_plain(&values, 21, &mut plain);
        slide(&values, 21, &mut dispatched);
        assert_eq!(plain, dispatched);
    }

    #[test]
    fn the_median_of_a_line_equals_that_of_columns() {
        let line: Vec<f64> = (0..41).map(|i| f64::from(noise(i))).collect();
        let mut input = Columns::default();
        input.reshape(41, 1);
        line.iter()
            .enumerate()
            .for_each(|(col, &v)| input.column_mut(col)[0] = v as f32);
        let (mut output, mut tile) = (Columns::default(), Tile::default());
        across_columns(&input, 7, &mut output, &mut tile);
        let medians = of_line(&line, 7);
        assert!((0..41).all(|col| f64::from(output.column(col)[0]) == medians[col]));
    }

    #[test]
    fn medians_agree_with_scipy() {
        let Some(golden) = Golden::read_named("in_soft_a", "out_scipy_median_0") else {
            return;
        };
        let mut input = Columns::default();
        input.read(&golden.input, golden.n_cols);
        let (mut output, mut tile) = (Columns::default(), Tile::default());
        across_columns(&input, 21, &mut output, &mut tile);
        let mut found = vec![f32::NAN; golden.input.len()];
        output.write(&mut found);
        assert_eq!(worst(&found, &golden.expected), 0.0);
        across_columns(&input, 19, &mut output, &mut tile);
        output.write(&mut found);
        assert!(worst(&found, &golden.expected) > 1e-3, "the check is blind");
    }
}
