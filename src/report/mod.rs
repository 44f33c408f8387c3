//! The report of a finished run.
//!
//! Made only from what the run left in its folder: the records, the tables, the volumes. For each difference the
//! figures go to `differences/<scan>/figures/` as PNG and SVG, those of the rotation axis to
//! `scans/<scan>/figures/`, those of the series to `figures/`; `report.html` holds them all and needs no network.
//!
//! Volumes are streamed once per difference, a few slices at a time.

mod axes;
mod canvas;
mod clock;
mod curves;
mod gather;
mod heights;
mod html;
mod maps;
mod sections;
mod series;
mod tables;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::config::ElectrochemistryConfig;
use crate::error::{Error, Result};
use crate::io::volume::partial::write_file;
use crate::progress::Progress;
use crate::record::AlignmentRecord;

use canvas::Canvas;
use gather::{Change, Run};
use html::{Figure, Figures};
use maps::View;
use sections::Volumes;

/// Share of the run's memory cap that the slabs of the report may take.
const SHARE: u64 = 4;
/// Bytes for the slabs where the run names no cap, and at most.
const DEFAULT_BUDGET: u64 = 256 << 20;
const MOST_BUDGET: u64 = 2 << 30;

/// Rows of the voltage table of `[electrochemistry]`, to be asked before a run that would only miss it at its end.
///
/// # Errors
/// The sentence that the report would show instead of the curve: what is missing, or why it cannot be read.
pub fn voltage_rows(config: &ElectrochemistryConfig, folder: &Path) -> Result<usize, String> {
    curves::voltage_rows(config, folder)
}

/// Draws the figures of every difference and writes `report.html` into `folder`, from what the run left there.
///
/// The page appears when it is complete. Existing figures are replaced.
///
/// # Errors
/// Missing or unreadable records and volumes; those of writing.
pub fn write(folder: &Path, progress: &Progress) -> Result<PathBuf> {
    let run = Run::read(folder)?;
    let mut figures = Figures::default();
    let budget = match run.record.memory_cap_bytes {
        0 => DEFAULT_BUDGET,
        cap => (cap / SHARE).min(MOST_BUDGET),
    };
    for change in &run.changes {
        figures
            .changes
            .push(change_figures(change, budget, progress)?);
    }
    let stage = progress.stage("report", run.scans.len() as u64 + 2, "figures");
    for scan in &run.scans {
        let caption = "Answers of each method over the detector rows; the line is the axis that was taken, the band its uncertainty.";
        figures.axes.push(save(
            &scan.folder.join("figures"),
            "rotation_axis",
            &curves::rotation_axis(scan),
            caption,
        )?);
        stage.inc(1);
    }
    if run.changes.len() > 1 {
        write_file(&folder.join("growth.csv"), &series::growth_table(&run)?)?;
        if let Some(canvas) = series::first_change(folder, &run, budget)? {
            let caption = "First difference in which a voxel of the line of sight belongs to a grain: early changes over late ones.";
            figures.series.push(save(
                &folder.join("figures"),
                "first_change",
                &canvas,
                caption,
            )?);
        }
        let caption = "Changed volume, and mass or summed change with one standard deviation, over the scans of the series.";
        figures.series.push(save(
            &folder.join("figures"),
            "growth",
            &curves::growth(&run),
            caption,
        )?);
    }
    stage.inc(1);
    match curves::voltage(&run, folder) {
        Some(Ok(canvas)) => {
            let caption = "Cell voltage over time with the scans marked.";
            figures
                .series
                .push(save(&folder.join("figures"), "voltage", &canvas, caption)?);
        }
        Some(Err(problem)) => figures.missing.push(problem),
        None => {}
    }
    stage.inc(1);
    let path = folder.join("report.html");
    write_file(&path, html::page(&run, &figures).as_bytes())?;
    Ok(path)
}

/// All figures of one difference.
fn change_figures(change: &Change, budget: u64, progress: &Progress) -> Result<Vec<Figure>> {
    let volumes = Volumes::open(change)?;
    let slab = volumes.slab(budget);
    let n_z = volumes.difference.meta().shape[0] as u64;
    let stage = progress.stage(
        &format!("figures of {}", change.record.target),
        n_z,
        "slices",
    );
    let sections = sections::gather(change, &volumes, slab, &stage)?;
    drop(stage);
    let limit = maps::full_colour(change);
    let folder = change.folder.join("figures");
    let overlay = "Section of the reference with the change on top: red gained, blue lost attenuation; only voxels of grains are coloured.";
    let drawn = [
        (
            "overlay_y",
            maps::overlay(&sections, change, View::Y, limit),
            overlay,
        ),
        (
            "overlay_z",
            maps::overlay(&sections, change, View::Z, limit),
            overlay,
        ),
        (
            "overlay_x",
            maps::overlay(&sections, change, View::X, limit),
            overlay,
        ),
        (
            "projections",
            maps::projections(&sections, change, limit),
            "Largest change of the grains along the line of sight, from the side and from above.",
        ),
        (
            "per_height",
            heights::per_height(change),
            "Left: volume beyond the threshold in each slice. Right: mass, or summed change, in each slice with one standard deviation.",
        ),
        (
            "grains_per_height",
            heights::grains_per_height(change),
            "Left: number of grains whose centroid lies at that height. Right: their mean volume with its standard error.",
        ),
        (
            "grain_sizes",
            heights::grain_sizes(change),
            "Distribution of the volumes of the grains.",
        ),
        (
            "histogram",
            curves::histogram(change),
            "Distribution of the change over all measured voxels, with the normal distribution of the noise and the thresholds.",
        ),
        (
            "alignment",
            maps::alignment(&sections, change),
            "Squares of the reference and of the aligned target by turns; structure that runs on across the borders is aligned.",
        ),
    ];
    drawn
        .iter()
        .map(|(name, canvas, caption)| save(&folder, name, canvas, caption))
        .collect()
}

/// Draws the figures of the difference in `folder` of `volumes` (reference, target) that were made for a trial: what it costs is all that
/// is wanted of them.
///
/// # Errors
/// As for [`write`].
pub(crate) fn try_figures(
    folder: &Path,
    volumes: &[PathBuf; 2],
    progress: &Progress,
) -> Result<()> {
    let change = Change::read(
        folder.to_path_buf(),
        AlignmentRecord::default(),
        volumes.clone(),
    )?;
    change_figures(&change, DEFAULT_BUDGET, progress).map(drop)
}

/// Writes a figure as PNG and SVG.
fn save(folder: &Path, name: &str, canvas: &Canvas, caption: &str) -> Result<Figure> {
    std::fs::create_dir_all(folder).map_err(Error::io("create folder", folder))?;
    let path = folder.join(format!("{name}.png"));
    let png = canvas.png(&path)?;
    write_file(&path, &png)?;
    let path = folder.join(format!("{name}.svg"));
    write_file(&path, canvas.svg(&path)?.as_bytes())?;
    Ok(Figure {
        name: name.to_string(),
        caption: caption.to_string(),
        png,
    })
}
