//! Large spots: blobs of the scintillator or the optics that answer wrongly and stay in place through a scan.
//!
//! Found once on the open beam, as in the UFO-KIT's `find-large-spots`: the relative deviation from the open beam's
//! surroundings (a Gaussian mean) must exceed a threshold somewhere, and from there the spot grows to all connected pixels
//! beyond a lower one. Spots count as bad pixels: every line is interpolated across them.

use ndarray::{Array2, ArrayView2};

use super::median::reflect;
use crate::config::{OutlierKind, SpotConfig};

/// Pixels of `open_beam` `[row, col]` \[counts\] that belong to spots; pixels that are not finite are no part of any.
///
/// Deviation: `open / G(open) - 1`, G a Gaussian mean over the finite pixels, cut off at 3 sigma, mirrored at the edges.
/// Neighbours touch at sides and corners.
pub(super) fn find(open_beam: ArrayView2<'_, f32>, config: &SpotConfig) -> Vec<(usize, usize)> {
    let &SpotConfig {
        find: _,
        kind,
        threshold,
        grow,
        sigma,
    } = config;
    let (n_rows, n_cols) = open_beam.dim();
    let around = surroundings(open_beam, f64::from(sigma));
    let deviation = Array2::from_shape_fn((n_rows, n_cols), |at| {
        let relative = open_beam[at] / around[at] - 1.0;
        let size = match kind {
            OutlierKind::Bright => relative,
            OutlierKind::Dark => -relative,
            OutlierKind::Both => relative.abs(),
        };
        if size.is_finite() { size } else { 0.0 }
    });
    let mut taken = Array2::from_elem((n_rows, n_cols), false);
    let mut spots = Vec::new();
    let seeds: Vec<(usize, usize)> = deviation
        .indexed_iter()
        .filter(|(_, size)| **size > threshold)
        .map(|(at, _)| at)
        .collect();
    for seed in seeds {
        let mut open = vec![seed];
        while let Some((row, col)) = open.pop() {
            if taken[[row, col]] {
                continue;
            }
            taken[[row, col]] = true;
            spots.push((row, col));
            for r in row.saturating_sub(1)..(row + 2).min(n_rows) {
                for c in col.saturating_sub(1)..(col + 2).min(n_cols) {
                    if !taken[[r, c]] && deviation[[r, c]] > grow {
                        open.push((r, c));
                    }
                }
            }
        }
    }
    spots
}

/// Gaussian mean over the finite pixels.
fn surroundings(image: ArrayView2<'_, f32>, sigma: f64) -> Array2<f32> {
    let good = image.mapv(|v| if v.is_finite() { 1.0 } else { 0.0 });
    let filled = image.mapv(|v| if v.is_finite() { v } else { 0.0 });
    blur(&filled, sigma) / blur(&good, sigma)
}

fn blur(image: &Array2<f32>, sigma: f64) -> Array2<f32> {
    let radius = (3.0 * sigma).ceil() as isize;
    let weights: Vec<f32> = (-radius..=radius)
        .map(|k| (-0.5 * (k as f64 / sigma).powi(2)).exp() as f32)
        .collect();
    let (n_rows, n_cols) = image.dim();
    let across = Array2::from_shape_fn((n_rows, n_cols), |(row, col)| {
        let places = (-radius..=radius).map(|k| reflect(col as isize + k, n_cols));
        places
            .zip(&weights)
            .map(|(c, w)| w * image[[row, c]])
            .sum::<f32>()
    });
    let mut both = Array2::zeros((n_rows, n_cols));
    for (row, mut line) in both.outer_iter_mut().enumerate() {
        for (k, &weight) in (-radius..=radius).zip(&weights) {
            line.scaled_add(weight, &across.row(reflect(row as isize + k, n_rows)));
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spot_grows_to_its_flank_and_the_uneven_beam_is_none() {
        let config = |kind| SpotConfig {
            find: true,
            kind,
            threshold: 0.3,
            grow: 0.1,
            sigma: 15.0,
        };
        let distance =
            |row: usize, col: usize, at: (f32, f32)| (row as f32 - at.0).hypot(col as f32 - at.1);
        // a beam that halves across the detector, a bright spot, a dark one, a faint one, a dead pixel
        let mut beam = Array2::from_shape_fn((60, 120), |(row, col)| {
            let spot = |at, height: f32, size: f32| {
                height * (-0.5 * (distance(row, col, at) / size).powi(2)).exp()
            };
            let all = spot((20.0, 30.0), 0.8, 2.0) - spot((40.0, 90.0), 0.5, 2.0)
                + spot((50.0, 15.0), 0.2, 2.0);
            1000.0 * (1.0 - 0.004 * col as f32) * (1.0 + all)
        });
        beam[[5, 60]] = f32::NAN;
        // a Gaussian of height h and size s exceeds g within s sqrt(2 ln(h / g)) of its middle; the spot itself lifts its
        // surroundings by (s / sigma)^2 of its height, 1.4 %, which moves that by less than half a pixel
        let radius = |height: f32| 2.0 * (2.0 * (height / 0.1).ln()).sqrt();
        for (kind, at, height) in [
            (OutlierKind::Bright, (20.0, 30.0), 0.8),
            (OutlierKind::Dark, (40.0, 90.0), 0.5),
        ] {
            let found = find(beam.view(), &config(kind));
            let far = found
                .iter()
                .map(|&(r, c)| distance(r, c, at))
                .fold(0.0, f32::max);
            assert!(far < radius(height) + 0.5, "{kind:?}: {far}");
            let area = std::f32::consts::PI * radius(height).powi(2);
            assert!(
                (found.len() as f32 - area).abs() < 0.25 * area,
                "{kind:?}: {}",
                found.len()
            );
        }
        let both = find(beam.view(), &config(OutlierKind::Both)).len();
        let parts = [OutlierKind::Bright, OutlierKind::Dark]
            .map(|kind| find(beam.view(), &config(kind)).len());
        assert_eq!(both, parts[0] + parts[1]);
    }
}
