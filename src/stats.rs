//! Medians, as several stages need them.

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
