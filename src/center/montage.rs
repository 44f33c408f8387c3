//! Trial slices around the axis, side by side, each labelled with its axis: what a person looks at when in doubt.

use std::path::Path;

use image::RgbImage;
use ndarray::{Array2, Array3, s};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::AxisFit;
use crate::config::{Acquisition, ReconstructConfig, ReconstructMethod};
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::reconstruct::acquisition::{Field, blend};
use crate::reconstruct::geometry::{Grid, InPlaneMotion, rays};
use crate::reconstruct::{Reconstructor, SliceJob};
use crate::scan::SinogramSource;

/// Tiles are at most this wide; of a wider slice the middle is shown, unscaled, where a wrong axis shows as arcs.
const TILE: usize = 512;
/// Height of the label above a tile \[px\].
const LABEL: usize = 30;
/// Gap between tiles \[px\].
const GAP: usize = 6;
/// Tiles are at least this wide, so that the label fits \[px\].
const LEAST_TILE: usize = 170;

/// Axes worth a look at detector row `row`: nine around the fit, and the mean answer of every method that lies elsewhere.
///
/// The step is the uncertainty, rounded to 0.25, 0.5, 1, 2 or 4 px. Ascending, in the columns of the detector \[px\].
#[must_use]
pub fn candidates(fit: &AxisFit, row: f64) -> Vec<f64> {
    let step = [0.25, 0.5, 1.0, 2.0]
        .into_iter()
        .find(|&s| fit.uncertainty_px <= s)
        .unwrap_or(4.0);
    let middle = fit.at(row);
    let mut all: Vec<f64> = (-4..=4).map(|k| middle + f64::from(k) * step).collect();
    for answers in fit.methods.values() {
        let answer = crate::stats::median(answers.axis_px.clone());
        if !answers.axis_px.is_empty() && all.iter().all(|c| (c - answer).abs() > step) {
            all.push(answer);
        }
    }
    all.sort_by(f64::total_cmp);
    all
}

/// Reconstructs detector row `row` with the axis at each of `candidates` \[px\] and writes the slices as one PNG.
///
/// All tiles share one grey scale, from the 1st to the 99th percentile inside the circle that every view sees.
///
/// # Errors
/// Those of the source and of the reconstruction; [`Error::Io`] when `path` cannot be written; [`Error::Config`]
/// when there are no candidates or no such row.
pub fn montage(
    source: &dyn SinogramSource,
    row: usize,
    candidates: &[f64],
    path: &Path,
) -> Result<()> {
    if candidates.is_empty() {
        return Err(Error::config(
            "candidates",
            "[]",
            "a montage needs at least one axis",
        ));
    }
    if row >= source.n_rows() {
        return Err(Error::config(
            "--row",
            row,
            format!("the detector has rows 0 to {}", source.n_rows() - 1),
        ));
    }
    let n_cols = source.n_cols();
    let sinograms = source.sinograms(row..row + 1)?;
    let middle = candidates[candidates.len() / 2];
    let angles_rad = source.angles_rad();
    let field = Field::of_scan(Acquisition::Auto, angles_rad, n_cols, [middle; 2])
        .unwrap_or_else(|_| Field::full(n_cols));
    let mut rays = rays(angles_rad, InPlaneMotion::default());
    field.weigh(angles_rad, &mut rays);
    let shown = field.width.min(TILE);
    let first = (field.width - shown) / 2;
    let job = SliceJob {
        n_cols,
        rays,
        grid: Grid::square(field.width).crop(&(first..first + shown), &(first..first + shown)),
        config: ReconstructConfig {
            method: ReconstructMethod::Fbp,
            ..ReconstructConfig::default()
        },
        scale: 1.0,
        mask_radius_px: None,
        support: None,
    };
    let mut reconstructor = Reconstructor::new(job, &Device::Cpu)?;
    let mut tiles = Vec::with_capacity(candidates.len());
    for &axis_px in candidates {
        let mut slice = Array3::zeros((1, shown, shown));
        let mut sinograms = sinograms.clone();
        if field.half {
            blend(sinograms.view_mut(), &[axis_px], &[]);
        }
        reconstructor.slab(sinograms.view(), &[axis_px], slice.view_mut())?;
        tiles.push(slice.slice_move(s![0, .., ..]));
    }
    let labels: Vec<String> = candidates.iter().map(|c| format!("axis {c:.2}")).collect();
    write_tiles(&tiles, &labels, field.width, LEAST_TILE, path)
}

/// Writes square tiles of one size as one PNG, each below its label, on one grey scale; `n_cols` is the width of the slices
/// that the tiles are the middle of. Tiles are enlarged by whole pixels to at least `least_tile`.
pub(crate) fn write_tiles(
    tiles: &[Array2<f32>],
    labels: &[String],
    n_cols: usize,
    least_tile: usize,
    path: &Path,
) -> Result<()> {
    let picture = draw(tiles, labels, n_cols, least_tile)?;
    picture.save(path).map_err(|error| {
        let cause = match error {
            image::ImageError::IoError(io) => io,
            other => std::io::Error::other(other),
        };
        Error::io("write the montage", path)(cause)
    })
}

/// Tiles in rows, each below its label.
fn draw(
    tiles: &[Array2<f32>],
    labels: &[String],
    n_cols: usize,
    least_tile: usize,
) -> Result<RgbImage> {
    let side = tiles[0].ncols();
    // small slices are enlarged by whole pixels
    let zoom = least_tile.div_ceil(side);
    let pitch = side * zoom + GAP;
    let per_row = (tiles.len() as f64).sqrt().ceil() as usize;
    let n_rows = tiles.len().div_ceil(per_row);
    let (width, height) = (per_row * pitch + GAP, n_rows * (pitch + LABEL) + GAP);
    let mut pixels = vec![255u8; width * height * 3];
    let (low, high) = grey_range(tiles, n_cols);
    let corner = |k: usize| {
        (
            GAP + (k % per_row) * pitch,
            GAP + LABEL + (k / per_row) * (pitch + LABEL),
        )
    };
    for (k, tile) in tiles.iter().enumerate() {
        let (left, top) = corner(k);
        for y in 0..side * zoom {
            for x in 0..side * zoom {
                let value = (tile[[y / zoom, x / zoom]] - low) / (high - low);
                let grey = if value.is_finite() {
                    (255.0 * value.clamp(0.0, 1.0)).round() as u8
                } else {
                    0
                };
                let at = 3 * ((top + y) * width + left + x);
                pixels[at..at + 3].fill(grey);
            }
        }
    }
    let failed = |error: String| {
        Error::io("draw the labels of", "the montage")(std::io::Error::other(error))
    };
    plotters::style::register_font("montage", FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| failed("the built-in font is not readable".into()))?;
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (width as u32, height as u32))
            .into_drawing_area();
        let style = ("montage", 20)
            .into_font()
            .color(&BLACK)
            .pos(Pos::new(HPos::Center, VPos::Center));
        for (k, label) in labels.iter().enumerate() {
            let (left, top) = corner(k);
            let at = ((left + side * zoom / 2) as i32, (top - LABEL / 2) as i32);
            root.draw(&Text::new(label.as_str(), at, style.clone()))
                .map_err(|e| failed(e.to_string()))?;
        }
        root.present().map_err(|e| failed(e.to_string()))?;
    }
    Ok(RgbImage::from_raw(width as u32, height as u32, pixels)
        .expect("the buffer was made for this size"))
}

/// 1st and 99th percentile of all tiles inside the circle that a detector of `n_cols` sees.
fn grey_range(tiles: &[Array2<f32>], n_cols: usize) -> (f32, f32) {
    let side = tiles[0].ncols();
    let (middle, radius) = ((side as f64 - 1.0) / 2.0, 0.48 * n_cols as f64);
    let mut values: Vec<f32> = tiles
        .iter()
        .flat_map(|tile| tile.indexed_iter())
        .filter(|((y, x), v)| {
            (*x as f64 - middle).hypot(*y as f64 - middle) < radius && v.is_finite()
        })
        .map(|(_, &v)| v)
        .collect();
    if values.is_empty() {
        return (0.0, 1.0);
    }
    values.sort_by(f32::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    let (low, high) = (at(0.01), at(0.99));
    if high > low {
        (low, high)
    } else {
        (low, low + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_and_labels_stand_where_they_belong() {
        let tiles: Vec<Array2<f32>> = (0..5)
            .map(|k| Array2::from_shape_fn((64, 64), |(y, x)| (x + y) as f32 + 10.0 * k as f32))
            .collect();
        let labels: Vec<String> = (0..5)
            .map(|k| format!("axis {:.2}", 30.0 + f64::from(k)))
            .collect();
        let picture = draw(&tiles, &labels, 64, LEAST_TILE).unwrap();
        let pitch = 64 * 3 + GAP;
        assert_eq!(
            picture.dimensions(),
            ((3 * pitch + GAP) as u32, (2 * (pitch + LABEL) + GAP) as u32)
        );
        let dark = |x0: usize, y0: usize, w: usize, h: usize| {
            let mut count = 0;
            for y in y0..y0 + h {
                for x in x0..x0 + w {
                    count += usize::from(picture.get_pixel(x as u32, y as u32).0[0] < 100);
                }
            }
            count
        };
        for k in 0..5 {
            let (left, top) = (GAP + (k % 3) * pitch, GAP + (k / 3) * (pitch + LABEL));
            assert!(dark(left, top, 190, LABEL) > 50, "label {k} is missing");
        }
        // the sixth place is empty
        assert_eq!(dark(GAP + 2 * pitch, GAP + pitch + LABEL, 190, LABEL), 0);
        // one grey scale: the first tile's first pixel is the darkest, the fifth's last the brightest
        assert_eq!(picture.get_pixel(GAP as u32, (GAP + LABEL) as u32).0[0], 0);
    }

    #[test]
    fn candidates_hold_the_fit_and_every_method() {
        let mut fit = AxisFit {
            axis_px: 100.3,
            uncertainty_px: 0.1,
            ..AxisFit::default()
        };
        fit.methods.insert(
            "phase-correlation".into(),
            super::super::MethodAnswers {
                rows: vec![3.0],
                axis_px: vec![108.0],
            },
        );
        let all = candidates(&fit, 0.0);
        assert_eq!(all.len(), 10);
        assert!(all.contains(&100.3) && all.contains(&108.0) && all.is_sorted());
        assert!((all[1] - all[0] - 0.25).abs() < 1e-12);
    }
}
