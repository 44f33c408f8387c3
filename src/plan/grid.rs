//! Which voxels and rows a config asks for.

use std::ops::Range;

use crate::config::ReconstructConfig;
use crate::error::{Error, Result};
use crate::reconstruct::acquisition::Field;
use crate::reconstruct::geometry::Grid;

/// The grid of a slice that is `field` wide: square, binned, cut by `crop`.
///
/// # Errors
/// [`Error::Config`] when the crop leaves the slice, or the binning leaves nothing.
pub fn slice_grid(config: &ReconstructConfig, field: Field) -> Result<Grid> {
    let (width, b) = (field.width, config.binning);
    if width / b < 2 {
        return Err(Error::config(
            "reconstruct.binning",
            b,
            format!("a slice of this scan is {width} px wide"),
        ));
    }
    let grid = Grid::square(width / b);
    match config.crop_ranges()? {
        None => Ok(grid),
        Some([x, y]) if x.end <= width && y.end <= width => {
            // every voxel that the crop touches
            let binned =
                |range: Range<usize>| range.start / b..range.end.div_ceil(b).min(width / b);
            Ok(grid.crop(&binned(x), &binned(y)))
        }
        Some(_) => Err(Error::config(
            "reconstruct.crop",
            &config.crop,
            format!("a slice of this scan is {width} x {width} px"),
        )),
    }
}

/// What is seen of a slice, as far as it is known before the axis was found.
///
/// # Errors
/// [`Error::Config`] for a malformed crop.
pub fn field_before_the_axis(
    config: &ReconstructConfig,
    angles_rad: &[f64],
    n_cols: usize,
) -> Result<Field> {
    let crop = config.crop_ranges()?;
    let needed = crop.map_or(0, |[x, y]| x.end.max(y.end));
    let mode = config.acquisition;
    Ok(Field::before_the_axis(mode, angles_rad, n_cols, needed))
}

/// Detector rows `rows` as rows of the binned detector; what is left at the end is left out.
///
/// # Errors
/// [`Error::Config`] when the binning leaves nothing.
pub fn binned_rows(rows: &Range<usize>, binning: usize) -> Result<Range<usize>> {
    if rows.len() < binning {
        return Err(Error::config(
            "reconstruct.binning",
            binning,
            format!("there are {} detector rows", rows.len()),
        ));
    }
    let start = rows.start / binning;
    Ok(start..start + rows.len() / binning)
}
