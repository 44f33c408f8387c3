//! The series as a whole: its table, and when each voxel first changed.

use std::path::Path;

use ndarray::Array2;

use super::canvas::{Anchor, Canvas, GREY, Pixels, Rgb};
use super::gather::{Run, find_volume};
use crate::error::{Error, Result};
use crate::io::volume;

/// Longest side of a picture \[pixel\].
const LONGEST: usize = 900;
/// Colours from the first difference to the last (viridis at equal steps; van der Walt and Smith 2015).
const COLOURS: [Rgb; 5] = [
    [68, 1, 84],
    [59, 82, 139],
    [33, 145, 140],
    [94, 201, 98],
    [253, 231, 37],
];

/// `growth.csv`: one row per difference, in the order of the series.
pub(super) fn growth_table(run: &Run) -> Result<Vec<u8>> {
    let failed = |error: csv::Error| Error::input("growth.csv", error.to_string(), "report this");
    let mut table = csv::Writer::from_writer(Vec::new());
    table
        .write_record([
            "target",
            "reference",
            "time",
            "charge_mah_cm2",
            "increase_voxels",
            "decrease_voxels",
            "increase_grains",
            "decrease_grains",
            "increase_sum_per_cm",
            "increase_sum_err",
            "decrease_sum_per_cm",
            "decrease_sum_err",
            "net_ug",
            "net_ug_err",
            "faraday_ug",
            "mass_over_faraday",
            "mass_over_faraday_err",
        ])
        .map_err(failed)?;
    let optional = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
    for change in &run.changes {
        let r = &change.record;
        let scan = run.scans.iter().find(|scan| scan.record.name == r.target);
        let mass = r.mass.as_ref();
        table
            .write_record([
                r.target.clone(),
                r.reference.clone(),
                scan.and_then(|s| s.record.time.clone()).unwrap_or_default(),
                optional(scan.and_then(|s| s.record.charge_mah_cm2)),
                r.increase_voxels.to_string(),
                r.decrease_voxels.to_string(),
                r.increase_grains.to_string(),
                r.decrease_grains.to_string(),
                r.increase_sum.to_string(),
                r.increase_sum_err.to_string(),
                r.decrease_sum.to_string(),
                r.decrease_sum_err.to_string(),
                optional(mass.map(|m| m.net_ug)),
                optional(mass.map(|m| m.net_err_ug)),
                optional(mass.and_then(|m| m.faraday_ug)),
                optional(mass.and_then(|m| m.ratio)),
                optional(mass.and_then(|m| m.ratio_err)),
            ])
            .map_err(failed)?;
    }
    table
        .into_inner()
        .map_err(|error| failed(error.into_error().into()))
}

/// The first change seen along y and along z; `None` where the run has no such map.
pub(super) fn first_change(folder: &Path, run: &Run, budget: u64) -> Result<Option<Canvas>> {
    if !folder.join("first_change.csv").exists() {
        return Ok(None);
    }
    let volume = volume::open(&find_volume(folder, "first_change")?)?;
    let [n_z, n_y, n_x] = volume.meta().shape;
    let factor = n_z.max(n_y).max(n_x).div_ceil(LONGEST);
    let mut along_y = Array2::<u32>::zeros((n_z.div_ceil(factor), n_x.div_ceil(factor)));
    let mut along_z = Array2::<u32>::zeros((n_y.div_ceil(factor), n_x.div_ceil(factor)));
    let slab = ((budget / (4 * n_y * n_x).max(1) as u64) as usize).clamp(1, 64);
    for start in (0..n_z).step_by(slab) {
        let part = volume.read_labels(start..(start + slab).min(n_z))?;
        for ((z, y, x), &first) in part.indexed_iter() {
            if first > 0 {
                let [z, y, x] = [start + z, y, x].map(|v| v / factor);
                for pixel in [&mut along_y[[z, x]], &mut along_z[[y, x]]] {
                    if *pixel == 0 || first < *pixel {
                        *pixel = first;
                    }
                }
            }
        }
    }
    let targets: Vec<&str> = run
        .config_order()
        .into_iter()
        .filter(|name| run.changes.iter().any(|c| c.record.target == *name))
        .collect();
    Ok(Some(draw(&along_y, &along_z, &targets)))
}

fn colour(number: u32, of: usize) -> Rgb {
    let share = if of < 2 {
        0.0
    } else {
        f64::from(number - 1) / (of as f64 - 1.0)
    };
    let place = share.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f64;
    let (low, part) = (place as usize, place.fract());
    let high = (low + 1).min(COLOURS.len() - 1);
    [0, 1, 2].map(|k| {
        (f64::from(COLOURS[low][k]) * (1.0 - part) + f64::from(COLOURS[high][k]) * part).round()
            as u8
    })
}

fn draw(along_y: &Array2<u32>, along_z: &Array2<u32>, targets: &[&str]) -> Canvas {
    let size = |plane: &Array2<u32>| {
        let (rows, columns) = plane.dim();
        let scale = (400.0 / columns as f64).min(430.0 / rows as f64);
        [columns as f64 * scale, rows as f64 * scale]
    };
    let sizes = [size(along_y), size(along_z)];
    let legend = 20.0 * targets.len() as f64;
    let height = sizes[0][1].max(sizes[1][1]).max(legend);
    let mut canvas = Canvas::new(sizes[0][0] + sizes[1][0] + 240.0, height + 66.0);
    canvas.bold_text([20.0, 20.0], "first change", 14.0, Anchor::Start);
    let mut x = 20.0;
    for (plane, size, title) in [
        (along_y, sizes[0], "seen along y"),
        (along_z, sizes[1], "seen along z"),
    ] {
        let (height, width) = plane.dim();
        let rgb = plane
            .iter()
            .flat_map(|&first| {
                if first == 0 {
                    [236, 238, 241]
                } else {
                    colour(first, targets.len())
                }
            })
            .collect();
        canvas.image([x, 40.0], size, Pixels { width, height, rgb });
        canvas.coloured_text([x, 40.0 + size[1] + 12.0], title, 11.0, Anchor::Start, GREY);
        x += size[0] + 20.0;
    }
    for (k, name) in targets.iter().enumerate() {
        let y = 44.0 + 20.0 * k as f64;
        canvas.rect(
            [x, y],
            [x + 14.0, y + 12.0],
            colour(k as u32 + 1, targets.len()),
            1.0,
        );
        canvas.text([x + 22.0, y + 6.0], *name, 12.0, Anchor::Start);
    }
    canvas
}
