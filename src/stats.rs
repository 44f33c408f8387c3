//! Medians and bounds, as several stages need them.

use std::cmp::Ordering;

/// The median, the mean of the middle two for an even number; 0 without values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    let n = values.len();
    0.5 * (values[(n - 1) / 2] + values[n / 2])
}

/// The middle one of `values` in `order`, the upper of the middle two for an even number, in linear time; reorders them.
pub(crate) fn middle<T: Copy>(
    values: &mut [T],
    order: impl FnMut(&T, &T) -> Ordering,
) -> Option<T> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, order).1)
}

/// Least and largest of the values that are finite; infinite the other way round where none is. In lanes that do not wait for one another.
pub(crate) fn bounds(values: &[f32]) -> [f32; 2] {
    const LANES: usize = 16;
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let mut note = |values: &[f32]| {
        for ((&value, low), high) in values.iter().zip(&mut low).zip(&mut high) {
            let (above, below) = match value.is_finite() {
                true => (value, value),
                false => (f32::INFINITY, f32::NEG_INFINITY),
            };
            *low = if above < *low { above } else { *low };
            *high = if below > *high { below } else { *high };
        }
    };
    let (whole, rest) = values.as_chunks::<LANES>();
    whole.iter().for_each(|values| note(values));
    note(rest);
    [
        low.into_iter().fold(f32::INFINITY, f32::min),
        high.into_iter().fold(f32::NEG_INFINITY, f32::max),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_finite_values_wherever_they_stand() {
        assert_eq!(bounds(&[]), [f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!(bounds(&[f32::NAN; 40]), [f32::INFINITY, f32::NEG_INFINITY]);
        for n in 1..50 {
            for at in 0..n {
                let mut values = vec![f32::NAN; n];
                values[(at + 7) % n] = f32::INFINITY;
                values[(at + 3) % n] = -2.0;
                values[at] = 5.0;
                let least = if n == 1 || n == 3 { 5.0 } else { -2.0 };
                assert_eq!(bounds(&values), [least, 5.0], "{at} of {n}");
            }
        }
    }
}
