//! Median over a window that slides along a list.

/// Median of the `width` (odd) samples around each sample of `values`, into `out`; beyond the ends the list is mirrored (the
/// last sample repeated). `window` is a buffer. NaN sorts last.
pub(super) fn running_median(
    values: &[f32],
    width: usize,
    out: &mut Vec<f32>,
    window: &mut Vec<f32>,
) {
    let n = values.len() as isize;
    out.clear();
    if n == 0 {
        return;
    }
    let half = (width / 2) as isize;
    let mirrored = |k: isize| {
        let k = k.rem_euclid(2 * n);
        values[if k < n { k } else { 2 * n - 1 - k } as usize]
    };
    let place =
        |window: &[f32], value: f32| window.partition_point(|w| w.total_cmp(&value).is_lt());
    window.clear();
    window.extend((-half..=half).map(mirrored));
    window.sort_unstable_by(f32::total_cmp);
    for k in 0..n {
        out.push(window[half as usize]);
        // the sample that leaves is overwritten by shifting towards the place of the one that comes
        let (old, new) = (mirrored(k - half), mirrored(k + half + 1));
        let from = place(window, old);
        let to = place(window, new);
        if to > from {
            window.copy_within(from + 1..to, from);
            window[to - 1] = new;
        } else {
            window.copy_within(to..from, to + 1);
            window[to] = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_median_is_that_of_each_window() {
        let values: Vec<f32> = (0..97).map(|k| ((k * 7919) % 101) as f32 - 50.0).collect();
        for width in [1, 3, 13, 97, 151] {
            let (mut out, mut window) = (Vec::new(), Vec::new());
            running_median(&values, width, &mut out, &mut window);
            for (k, found) in out.iter().enumerate() {
                let half = (width / 2) as isize;
                let mut around: Vec<f32> = (k as isize - half..=k as isize + half)
                    .map(|i| {
                        let i = i.rem_euclid(194);
                        values[if i < 97 { i } else { 193 - i } as usize]
                    })
                    .collect();
                around.sort_by(f32::total_cmp);
                assert_eq!(*found, around[around.len() / 2], "{width} at {k}");
            }
        }
        running_median(&[], 5, &mut vec![1.0], &mut Vec::new());
    }
}
