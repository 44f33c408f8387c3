//! Detector columns that answer wrongly (dead, stuck, a strong stripe): they stand still, are their own mirror image about
//! themselves, and so pull every method to themselves, or to the middle between two of them.

use std::ops::Range;

use crate::stats::median;
use ndarray::Array2;
use rayon::prelude::*;

/// Columns whose median a column is compared with; up to half of them may be bad side by side.
const WINDOW: usize = 11;
/// Columns on either side over which the usual deviation is taken.
const AROUND: usize = 24;
/// A column is bad when it departs from its neighbours by this many times what is usual around it. The median over the views of the
/// absolute value of noise or of passing structure varies by 10 to 40 % from column to column; 5 is far out of that.
const FAR: f64 = 5.0;
/// Widest run of columns that is taken as bad; wider ones may be a wall of the sample.
const WIDEST: usize = 4;
/// A run begins and ends within one column: over that step it loses at least this share of its height, and its neighbours have no
/// more than the rest. A wall seen through the optics does not.
const SHARP: f64 = 0.5;
/// Views looked at, at most.
const VIEWS: usize = 100;

/// Interpolates the bad columns of `sinogram` `[angle, col]` between their neighbours; returns how many there were.
pub(super) fn mend(sinogram: &mut Array2<f32>) -> usize {
    let runs = bad_runs(sinogram);
    let last = sinogram.ncols() - usize::from(sinogram.ncols() > 0);
    for run in &runs {
        for mut view in sinogram.outer_iter_mut() {
            let (before, behind) = match (run.start.checked_sub(1), run.end <= last) {
                (Some(before), true) => (view[before], view[run.end]),
                (Some(before), false) => (view[before], view[before]),
                (None, true) => (view[run.end], view[run.end]),
                (None, false) => continue,
            };
            for col in run.clone() {
                let share = (col + 1 - run.start) as f32 / (run.len() + 1) as f32;
                view[col] = before + share * (behind - before);
            }
        }
    }
    runs.iter().map(ExactSizeIterator::len).sum()
}

/// Runs of bad columns, ascending.
fn bad_runs(sinogram: &Array2<f32>) -> Vec<Range<usize>> {
    let (n_views, n_cols) = sinogram.dim();
    if n_cols < 3 * WINDOW || n_views == 0 {
        return Vec::new();
    }
    let stride = n_views.div_ceil(VIEWS);
    let views: Vec<Vec<f32>> = sinogram
        .outer_iter()
        .step_by(stride)
        .map(|view| {
            view.iter()
                .map(|&v| if v.is_finite() { v } else { 0.0 })
                .collect()
        })
        .collect();
    // how far each view departs from the median of its neighbours, [col][view]
    let off: Vec<Vec<f64>> = (0..n_cols)
        .into_par_iter()
        .map(|col| {
            let from = col.saturating_sub(WINDOW / 2).min(n_cols - WINDOW);
            let mut window = [0f32; WINDOW];
            views
                .iter()
                .map(|view| {
                    window.copy_from_slice(&view[from..from + WINDOW]);
                    window.sort_by(f32::total_cmp);
                    f64::from(view[col] - window[WINDOW / 2])
                })
                .collect()
        })
        .collect();
    let size: Vec<f64> = off
        .iter()
        .map(|off| median(off.iter().map(|v| v.abs()).collect()))
        .collect();
    // where nothing is usual (air without noise), a thousandth of the largest value is nothing yet
    let top = views.iter().flatten().fold(0f32, |top, v| top.max(v.abs()));
    let floor = 1e-3 * f64::from(top);
    let least: Vec<f64> = (0..n_cols)
        .map(|col| {
            let around = &size[col.saturating_sub(AROUND)..(col + AROUND + 1).min(n_cols)];
            FAR * median(around.to_vec()).max(floor)
        })
        .collect();
    // step[col]: from the column before; the ends of the detector are as sharp as can be
    let step: Vec<f64> = (0..=n_cols)
        .map(|col| {
            if col == 0 || col == n_cols {
                return f64::INFINITY;
            }
            let pairs = off[col].iter().zip(&off[col - 1]);
            median(pairs.map(|(a, b)| (a - b).abs()).collect())
        })
        .collect();
    let is_bad = |run: &Range<usize>| {
        let height = size[run.clone()].iter().copied().fold(0.0, f64::max);
        let calm = |outside: Option<usize>| {
            outside
                .and_then(|col| size.get(col))
                .is_none_or(|&size| size <= (1.0 - SHARP) * height)
        };
        run.clone()
            .all(|col| size[col] > least[col] && median(off[col].clone()).abs() > 0.5 * size[col])
            && step[run.start].min(step[run.end]) >= SHARP * height
            && calm(run.start.checked_sub(1))
            && calm(Some(run.end))
    };
    let mut runs = Vec::new();
    let mut col = 0;
    while col < n_cols {
        let run = (col + 1..=(col + WIDEST).min(n_cols))
            .map(|end| col..end)
            .find(is_bad);
        col = run.as_ref().map_or(col + 1, |run| run.end);
        runs.extend(run);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::center::double_wedge;
    use crate::center::testing::{Discs, Recipe, degrees};
    use std::f64::consts::PI;

    fn half(axis: f64, noise: f64) -> Array2<f32> {
        let recipe = Recipe {
            n_rows: 1,
            noise,
            ..Recipe::half_turn(axis)
        };
        let rows = recipe.make().sinograms;
        rows.index_axis_move(ndarray::Axis(0), 0)
            .slice_move(ndarray::s![..180, ..])
    }

    #[test]
    fn dead_and_stuck_columns_are_found_and_healthy_ones_are_not() {
        for noise in [0.0, 0.01, 0.05] {
            let mut sinogram = half(76.3, noise);
            let whole = sinogram.clone();
            assert!(
                bad_runs(&whole).is_empty(),
                "noise {noise}: {:?}",
                bad_runs(&whole)
            );
            sinogram.column_mut(50).fill(6.0);
            for col in 90..93 {
                sinogram.column_mut(col).fill(-0.7);
            }
            assert_eq!(bad_runs(&sinogram), [50..51, 90..93], "noise {noise}");
            assert_eq!(mend(&mut sinogram), 4);
            // what is put in place follows the neighbours of its own view
            let expected = 0.5 * (whole[[7, 49]] + whole[[7, 51]]);
            assert!((sinogram[[7, 50]] - expected).abs() < 1e-6);
            let untouched = |col: usize| sinogram.column(col) == whole.column(col);
            assert!(
                (0..160)
                    .filter(|col| ![50, 90, 91, 92].contains(col))
                    .all(untouched)
            );
        }
    }

    #[test]
    fn the_walls_of_a_tube_that_stands_still_are_no_bad_columns() {
        // a wall of 3 px, blurred as optics do, that wobbles by 0.3 px
        let sinogram = Array2::from_shape_fn((120, 160), |(view, col)| {
            let middle = 80.0 + 0.3 * (PI * view as f64 / 120.0).cos();
            let wall = |at: f64| (-0.5 * ((col as f64 - at) / 1.3f64).powi(2)).exp();
            (wall(middle - 50.0) + wall(middle + 50.0)) as f32
                + 0.003 * ((view * 37 + col * 11) % 17) as f32
        });
        assert!(bad_runs(&sinogram).is_empty(), "{:?}", bad_runs(&sinogram));
    }

    #[test]
    fn bad_columns_pull_the_axis_and_mended_ones_do_not() {
        let axis = 71.35;
        let mut sinogram = half(axis, 0.01);
        for col in [60, 97] {
            sinogram.column_mut(col).fill(6.0);
        }
        let search = |s: &Array2<f32>| double_wedge::search(std::slice::from_ref(s), (40.0, 119.0));
        let pulled = search(&sinogram);
        assert!(
            pulled
                .as_ref()
                .map_or(true, |a| (a.axis_px - axis).abs() > 1.0),
            "the check is blind: {pulled:?}"
        );
        mend(&mut sinogram);
        let found = search(&sinogram).unwrap();
        assert!((found.axis_px - axis).abs() < 0.1, "{found:?}");
    }

    #[test]
    fn columns_at_both_ends_take_their_one_neighbour() {
        let angles = degrees(0.0, 1.0, 180);
        let mut sinogram =
            Discs::random(4, 30, 75.0).sinogram(180, 160, 79.5, |k| angles[k as usize]);
        sinogram.column_mut(0).fill(5.0);
        sinogram.column_mut(159).fill(5.0);
        assert_eq!(mend(&mut sinogram), 2);
        assert_eq!(sinogram[[3, 0]], sinogram[[3, 1]]);
        assert_eq!(sinogram[[3, 159]], sinogram[[3, 158]]);
    }
}
