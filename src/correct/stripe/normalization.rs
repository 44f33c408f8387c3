//! Full stripes by smoothing the column means (M. Rivers' ring-artifact note, 1998).

use super::columns::Columns;
use super::median::reflect;

/// Adds `G * g - g` to every column, g being the column means and G a Gaussian of `sigma` \[px\] with `reflect` edges,
/// cut off at 4 sigma.
///
/// Sorting the columns first, as Algotom does, changes nothing as long as a column is treated as a whole.
pub(super) fn normalize(columns: &mut Columns, sigma: f64) {
    let n_angles = columns.n_angles() as f64;
    let means: Vec<f64> = columns
        .iter()
        .map(|column| column.iter().map(|&v| f64::from(v)).sum::<f64>() / n_angles)
        .collect();
    let weights = weights(sigma);
    let radius = weights.len() as isize - 1;
    for (col, column) in columns.iter_mut().enumerate() {
        let weighted =
            |k: isize| weights[k.unsigned_abs()] * means[reflect(col as isize + k, means.len())];
        let smooth = (-radius..=radius).map(weighted).sum::<f64>();
        let shift = (smooth - means[col]) as f32;
        column.iter_mut().for_each(|value| *value += shift);
    }
}

/// The Gaussian by distance; all on both sides have sum 1.
pub(super) fn weights(sigma: f64) -> Vec<f64> {
    let radius = (4.0 * sigma + 0.5) as usize;
    let gauss = |k: usize| (-0.5 * (k as f64 / sigma).powi(2)).exp();
    let total = 1.0 + 2.0 * (1..=radius).map(gauss).sum::<f64>();
    (0..=radius).map(|k| gauss(k) / total).collect()
}
