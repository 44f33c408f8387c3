//! What it costs to hold two axes against one another.

use ndarray::Array3;

use super::fit::{self, Band, Pair, Side, View};
use super::{MARGIN, bands_of, most_views};
use crate::center::AxisFit;
use crate::pipeline::reconstruct_scan::Motion;
use crate::plan::forecast::cost::{Cost, repeated};

/// Views of the trial.
const TRIED: usize = 12;

/// Detector rows of both scans together that are corrected for it, of scans of `n_rows` rows.
pub(crate) fn rows_corrected(n_rows: usize) -> usize {
    let [count, height] = bands_of(n_rows);
    // those of the target are taken to whole rows on both sides
    count * (2 * height + 4 * MARGIN + 2)
}

/// The comparison of rows that are corrected, of scans `[angle, row, col]`, tried on a few views.
pub(crate) fn cost([n_angles, n_rows, n_cols]: [usize; 3]) -> Cost {
    let [count, height] = bands_of(n_rows);
    let views = n_angles.min(most_views(count * height, n_cols));
    let shape = (TRIED, height + 2 * MARGIN + 2, n_cols);
    let rough = |(view, row, col)| (0.3 * col as f32 + 0.2 * (row + view) as f32).sin();
    let bands: Vec<Band> = (0..count)
        .map(|_| Band {
            reference: Array3::from_shape_fn(shape, rough),
            first_row: 0,
            compared: MARGIN..MARGIN + height,
            target: Array3::from_shape_fn(shape, rough),
            target_row: 0,
        })
        .collect();
    let views_tried: Vec<View> = (0..TRIED)
        .map(|view| View {
            direction_rad: 0.2 * view as f64,
            target_rad: 0.2 * view as f64,
            offsets: [[0.0; 2]; 2],
        })
        .collect();
    let axis = AxisFit {
        axis_px: (n_cols as f64 - 1.0) / 2.0,
        ..AxisFit::default()
    };
    let side = Side {
        axis: &axis,
        motion: Motion::default(),
        fixed_row: 0.0,
    };
    let pair = Pair {
        sides: [side; 2],
        views: &views_tried,
        bands: &bands,
        middle_slice: 0.0,
        half_height: n_rows as f64 / 2.0,
    };
    let pass = repeated(|| {
        fit::one_pass(&pair);
        Ok(())
    });
    let passes = (fit::PASSES * views) as f64 / TRIED as f64;
    pass.map_or(Cost::NONE, |pass| pass * passes)
}
