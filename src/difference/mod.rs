//! Voxel-by-voxel difference of two volumes on one grid, and what is measured on it.
//!
//! Takes the volumes by slabs and gives, in one folder, the difference, the labels of its grains, three tables and `difference.json`:
//!
//! 1. gain and offset of the grey values are fitted on a sample of slices (`match_intensity`) and taken back;
//! 2. even against odd projections of both scans (`halves`), else the same slices, give the noise by height and distance from the
//!    axis, and its correlation (`noise`);
//! 3. slab by slab: `d = (target - offset) / gain - reference`, smoothed where asked, the noise of every slice,
//!    the threshold (`measure`), sums over grains and their rims (`grow`), and grains (`grains`) two slices at a time;
//! 4. the labels, numbered in the order of the first voxel of each grain, increase and decrease together.
//!
//! Measured are voxels within `difference.radius` (and the radius that both scans cover), without `difference.skip_slices` at
//! both ends of the slices that both scans cover. The difference is written wherever both scans are valid and is 0 elsewhere; NaN stays NaN,
//! is counted, and is never a change. Sums are over the voxels of grains and `difference.grow` voxels around
//! them (`grow`), with an error in parts (`per_height`). Nothing depends on the height of the slabs.

mod below;
mod discovery;
mod edges;
mod estimate;
mod gradient;
mod grains;
mod grow;
mod halves;
mod histogram;
mod inputs;
mod labels;
mod mass;
mod match_intensity;
mod measure;
mod median;
mod noise;
mod output;
mod per_height;
mod region;
mod smooth;
mod spread;
mod stream;
#[cfg(test)]
mod tests;

use std::path::Path;

use rayon::prelude::*;

use crate::allocator;
use crate::config::{DifferenceConfig, MassConfig, VolumeFormat};
use crate::error::{Error, Result};
use crate::io::volume::{self, VolumeMeta, VolumeReader, VolumeWriter, VoxelType};
use crate::progress::Progress;
use crate::record::DifferenceRecord;

use edges::Residue;
use estimate::{measure_null, rule_of, sample_edges, sample_noise};
use grains::{Grains, Labeller};
use grow::Grower;
use halves::GROUP_HEIGHT;
use histogram::ChangeHistogram;
use inputs::Inputs;
use labels::Scratch;
use match_intensity::Match;
use measure::{Measure, Measured};
use noise::NoiseModel;
use per_height::Height;
use region::{Region, sample_groups};
use stream::{Smoothing, contiguous, stream};

pub use halves::{Halves, half_groups};
pub use output::check_output;

/// Everything about one difference that is not in the volumes.
pub struct Context<'a> {
    /// Name of the target scan.
    pub target: &'a str,
    /// Name of the reference scan.
    pub reference: &'a str,
    /// `[difference]`
    pub config: &'a DifferenceConfig,
    /// `[mass]`
    pub mass: Option<&'a MassConfig>,
    /// Charge passed between the two scans \[mAh/cm2\].
    pub charge_mah_cm2: Option<f64>,
    /// One standard deviation of the shift along z between the two \[voxel\]; 0 where there was nothing to align.
    pub shift_err_z: f64,
    /// Half differences of even and odd projections of both scans, where they were reconstructed.
    pub halves: Option<Halves<'a>>,
    /// Format of the difference and the labels.
    pub format: VolumeFormat,
    /// Slices held in memory at once, from the plan.
    pub slab: usize,
    /// Radius around the middle of a slice within which both scans are valid \[voxel\].
    pub valid_radius: f64,
    /// Slices within which both scans are valid (the z shift may leave some at the ends empty).
    pub valid_z: std::ops::Range<usize>,
    /// Replace existing output.
    pub overwrite: bool,
    /// Provenance written into the volumes.
    pub provenance: serde_json::Value,
    /// Bars.
    pub progress: &'a Progress,
}

/// Groups of slices on which gain and noise are estimated.
const SAMPLE_GROUPS: usize = 16;

/// What the readers of the two volumes hold.
#[derive(Debug, Clone, Copy)]
pub struct Readers {
    /// Beside the slices that they give, both together \[bytes\].
    pub bytes: u64,
    /// Slices that they give best at a time.
    pub together: usize,
}

/// Memory that [`run`] holds, `[at most, likely]` \[bytes\], for slabs of `slab` slices of volumes of `shape` `[z, y, x]`.
#[must_use]
pub fn bytes(
    shape: [usize; 3],
    slab: usize,
    readers: Readers,
    format: VolumeFormat,
    config: &DifferenceConfig,
) -> [u64; 2] {
    let slice = 4 * shape[1] as u64 * shape[2] as u64;
    let smoothing = Smoothing::of(config);
    let reach = smoothing.reach() as u64;
    let slab = inputs::slab_height(slab, readers.together);
    // reference, target turned difference, the smoothed difference and the slices that wait for it, gradient, of which four are there at a
    // time; the window of the smoother; runs of the slab's slices; squares of one gradient
    let slabs = 4 * (slab.max(GROUP_HEIGHT) as u64 + 2 * reach) * slice;
    let windows = smoothing.bytes(slice)
        + grow::bytes(config.grow, slice)
        + slab as u64 * slice / 4
        + 2 * slice;
    let writer = volume::writer_bytes(format, shape);
    // reading comes before, and writing after, all four are there
    let stages = slabs.max(slabs / 2 + readers.bytes.max(writer));
    [
        readers.bytes + slabs + windows + writer + (96 << 20),
        windows + stages,
    ]
}

/// Subtracts `reference` from `target` slab by slab and writes everything of `differences/<scan>/` but the figures.
///
/// Masses need a change in 1/cm and the size of a voxel; without them they are left out with a warning.
///
/// # Errors
/// [`crate::Error::Shape`] when the volumes do not fit; [`crate::Error::Input`] when their units or voxel sizes differ or
/// nothing is left to measure; [`crate::Error::OutputExists`]; those of reading and writing.
///
/// # Panics
/// Never: slices of arrays in standard layout are contiguous.
pub fn run(
    reference: &dyn VolumeReader,
    target: &dyn VolumeReader,
    folder: &Path,
    context: &Context<'_>,
) -> Result<DifferenceRecord> {
    check_output(folder, context.overwrite)?;
    let config = context.config;
    let mut inputs = Inputs::new(reference, target, context)?;
    let shape = inputs.shape;
    let measured = inputs.measured_region(context)?;
    let groups = sample_groups(measured.z.clone(), SAMPLE_GROUPS, GROUP_HEIGHT);

    let stage = context.progress.stage(
        "difference: grey values, noise",
        2 * groups.len() as u64,
        "samples",
    );
    let matched = if config.match_intensity {
        match_intensity::fit(&groups, &measured, |z| {
            stage.inc(1);
            inputs.read_pair(z)
        })?
    } else {
        Match::NONE
    };
    inputs.matched = matched;
    let (model, floor) = sample_noise(&inputs, &measured, &groups, context, || stage.inc(1))?;
    drop(stage);
    let edge = sample_edges(&inputs, &measured, &groups, &model, config)?;
    let rule = rule_of(&inputs, &measured, &model, edge, context)?;
    allocator::release();

    std::fs::create_dir_all(folder).map_err(Error::io("create folder", folder))?;
    let measure = Measure {
        region: &measured,
        model: &model,
        rule,
        floor,
        bins: config.histogram_bins,
    };
    let meta = meta_of_change(&inputs, reference, &model, edge, context);
    let labels_meta = VolumeMeta {
        voxel_type: VoxelType::U32,
        unit: "label".into(),
        ..meta.clone()
    };
    let [difference_path, labels_path] =
        ["difference", "labels"].map(|stem| folder.join(volume::file_name(stem, context.format)));

    let mut scratch = Scratch::new(folder)?;
    let null = measure_null(&inputs, &measure, context)?;
    let writer = volume::create(&difference_path, context.format, &meta, context.overwrite)?;
    let tally = write_change(&inputs, &measure, edge, writer, &mut scratch, context)?;

    let found = tally.labeller.finish();
    let stage = context.progress.stage("labels", shape[0] as u64, "slices");
    let mut writer = volume::create(
        &labels_path,
        context.format,
        &labels_meta,
        context.overwrite,
    )?;
    scratch.paint(
        shape,
        measured.z.clone(),
        &found.label_of,
        context.slab,
        writer.as_mut(),
        |slices| stage.inc(slices as u64),
    )?;
    writer.finish()?;
    drop(stage);

    let Grains {
        grains,
        dropped,
        dropped_voxels,
        ..
    } = found;
    let results = output::Results {
        inputs: &inputs,
        model: &model,
        rule,
        edge,
        heights: &tally.heights,
        grains: &grains,
        dropped: [dropped, dropped_voxels],
        histogram: tally.histogram.rows(),
        not_finite: tally.not_finite,
        null,
    };
    output::write(folder, context, &results)
}

/// What the volumes of change and of labels say of themselves.
fn meta_of_change(
    inputs: &Inputs<'_>,
    reference: &dyn VolumeReader,
    model: &NoiseModel,
    edge: Residue,
    context: &Context<'_>,
) -> VolumeMeta {
    let (config, matched) = (context.config, inputs.matched);
    let provenance = serde_json::json!({
        "run": context.provenance,
        "reference": context.reference,
        "target": context.target,
        "difference": "(target - offset) / gain - reference, 0 where one of the two is not valid",
        "gain": matched.gain,
        "offset": matched.offset,
        "gain_err": matched.gain_err,
        "offset_err": matched.offset_err,
        "smooth_sigma": config.smooth_sigma,
        "smooth_median": config.smooth_median,
        "noise": model.json(),
        "edge_residue_voxel": edge.in_plane,
        "edge_residue_z_voxel": edge.along_z,
        "edge_ripple_voxel": edge.ripple,
    });
    VolumeMeta {
        shape: inputs.shape,
        voxel_type: VoxelType::F32,
        unit: inputs.unit.clone(),
        voxel_size_um: inputs.voxel_size_um,
        first_row: reference.meta().first_row,
        provenance,
    }
}

/// Subtracts and measures slab by slab; what lies beyond the threshold goes to `scratch` as runs, for the labels.
fn write_change(
    inputs: &Inputs<'_>,
    measure: &Measure<'_>,
    edge: Residue,
    mut writer: Box<dyn VolumeWriter>,
    scratch: &mut Scratch,
    context: &Context<'_>,
) -> Result<Tally> {
    let (config, measured, model) = (context.config, measure.region, measure.model);
    let mut tally = Tally::new(config, measured, model);
    let mut grower = Grower::new(config, measured, model);
    let stage = context
        .progress
        .stage("difference", inputs.shape[0] as u64, "slices");
    stream(inputs, context.slab, Smoothing::of(config), edge, |slab| {
        let z0 = slab.z0;
        let slices: Vec<Measured> = slab
            .difference
            .outer_iter()
            .into_par_iter()
            .enumerate()
            .filter(|(index, _)| measured.z.contains(&(z0 + index)))
            .map(|(index, slice)| {
                measure.slice(z0 + index, contiguous(&slice), slab.gradient(index))
            })
            .collect();
        for found in slices {
            let index = found.z - z0;
            let slice = slab.difference.index_axis(ndarray::Axis(0), index);
            for found in grower.push(found, contiguous(&slice), slab.gradient(index))? {
                tally.add(found, scratch, model)?;
            }
        }
        writer.write(z0, slab.difference.view())?;
        stage.inc(slab.difference.dim().0 as u64);
        Ok(())
    })?;
    for found in grower.finish()? {
        tally.add(found, scratch, model)?;
    }
    for (index, height) in tally.heights.iter_mut().enumerate() {
        height.missed = grower.below(index);
    }
    writer.finish()?;
    Ok(tally)
}

/// What is gathered over the slices, in their order.
struct Tally {
    labeller: Labeller,
    heights: Vec<Height>,
    histogram: ChangeHistogram,
    not_finite: u64,
    rows: usize,
}

impl Tally {
    fn new(config: &DifferenceConfig, region: &Region, model: &NoiseModel) -> Tally {
        Tally {
            labeller: Labeller::new(config.connectivity, config.min_grain_voxels, region.z.start),
            heights: Vec::with_capacity(region.z.len()),
            histogram: ChangeHistogram::new(config.histogram_bins, model.sigma),
            not_finite: 0,
            rows: region.height(),
        }
    }

    fn add(&mut self, slice: Measured, scratch: &mut Scratch, model: &NoiseModel) -> Result<()> {
        scratch.push(self.labeller.push(&slice.runs, self.rows)?)?;
        self.heights
            .push(Height::of(&slice, self.labeller.touched, model));
        self.not_finite += slice.not_finite;
        self.histogram.merge(slice.histogram);
        Ok(())
    }
}
