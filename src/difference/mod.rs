//! Voxel-by-voxel difference of two volumes on one grid, and what is measured on it.
//!
//! Takes the volumes by slabs and gives, in one folder, the difference, the labels of its grains, three tables and `difference.json`:
//!
//! 1. gain and offset of the grey values are fitted on a sample of slices (`match_intensity`) and taken back;
//! 2. the same slices give the radial profile and the correlation of the noise (`noise`);
//! 3. slab by slab: `d = (target - offset) / gain - reference`, smoothed where asked, the noise of every slice from its unchanged
//!    voxels, the threshold, sums (`measure`), and grains (`grains`) two slices at a time;
//! 4. the labels, numbered in the order of the first voxel of each grain, increase and decrease together.
//!
//! Measured are voxels within `difference.radius` (and the radius that both scans cover), without `difference.skip_slices` at
//! both ends of the slices that both scans cover. The difference is written wherever both scans are valid and is 0 elsewhere; NaN stays NaN,
//! is counted, and is never a change. Sums are over voxels beyond the threshold: what the rims of a grain hold below
//! it is not in them. Nothing depends on the height of the slabs.

mod grains;
mod histogram;
mod inputs;
mod labels;
mod mass;
mod match_intensity;
mod measure;
mod noise;
mod output;
mod per_height;
mod region;
mod smooth;
mod spread;
#[cfg(test)]
mod tests;

use std::path::Path;

use ndarray::Array3;
use rayon::prelude::*;

use crate::config::{DifferenceConfig, MassConfig, VolumeFormat};
use crate::error::{Error, Result};
use crate::io::volume::{self, VolumeMeta, VolumeReader, VoxelType};
use crate::progress::Progress;
use crate::record::DifferenceRecord;

use grains::{Grains, Labeller};
use histogram::ChangeHistogram;
use inputs::Inputs;
use labels::Scratch;
use match_intensity::Match;
use measure::{Measure, Measured, Rule};
use noise::{NoiseModel, NoiseSample};
use per_height::Height;
use region::{Region, sample_groups};
use smooth::Smoother;

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
/// Adjacent slices of a group.
const GROUP_HEIGHT: usize = 4;

/// Bytes of memory that [`run`] holds at most, for slabs of `slab` slices `[z, y, x]`, without what the readers hold themselves.
#[must_use]
pub fn bytes(
    shape: [usize; 3],
    slab: usize,
    format: VolumeFormat,
    config: &DifferenceConfig,
) -> u64 {
    let slice = 4 * shape[1] as u64 * shape[2] as u64;
    let reach = if config.smooth_sigma > 0.0 {
        smooth::reach(config.smooth_sigma) as u64
    } else {
        0
    };
    // reference, target turned difference, smoothed difference; the window of the smoother; runs of the slab's slices
    let slabs =
        3 * (slab.max(GROUP_HEIGHT) as u64 + 2 * reach) * slice + (2 * reach + 2) * 2 * slice;
    slabs + slab as u64 * slice / 4 + volume::writer_bytes(format, shape) + (96 << 20)
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
    let (model, floor) = sample_noise(&inputs, &measured, &groups, config.smooth_sigma, || {
        stage.inc(1)
    })?;
    drop(stage);

    std::fs::create_dir_all(folder).map_err(Error::io("create folder", folder))?;
    let rule = config
        .absolute
        .map_or(Rule::Sigma(config.sigma), Rule::Absolute);
    let measure = Measure {
        region: &measured,
        model: &model,
        rule,
        floor,
        bins: config.histogram_bins,
    };
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
        "noise": model.json(),
    });
    let meta = VolumeMeta {
        shape,
        voxel_type: VoxelType::F32,
        unit: inputs.unit.clone(),
        voxel_size_um: inputs.voxel_size_um,
        first_row: reference.meta().first_row,
        provenance,
    };
    let labels_meta = VolumeMeta {
        voxel_type: VoxelType::U32,
        unit: "label".into(),
        ..meta.clone()
    };
    let [difference_path, labels_path] =
        ["difference", "labels"].map(|stem| folder.join(volume::file_name(stem, context.format)));

    let mut writer = volume::create(&difference_path, context.format, &meta, context.overwrite)?;
    let mut scratch = Scratch::new(folder)?;
    let mut tally = Tally::new(config, &measured, &model);
    let stage = context
        .progress
        .stage("difference", shape[0] as u64, "slices");
    stream(&inputs, context.slab, config.smooth_sigma, |z0, slab| {
        let slices: Vec<Measured> = slab
            .outer_iter()
            .into_par_iter()
            .enumerate()
            .filter(|(index, _)| measured.z.contains(&(z0 + index)))
            .map(|(index, slice)| {
                measure.slice(
                    z0 + index,
                    slice
                        .as_slice()
                        .expect("a slice of a fresh array is contiguous"),
                )
            })
            .collect();
        for slice in slices {
            tally.add(slice, &mut scratch, &model)?;
        }
        writer.write(z0, slab.view())?;
        stage.inc(slab.dim().0 as u64);
        Ok(())
    })?;
    writer.finish()?;
    drop(stage);

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
        heights: &tally.heights,
        grains: &grains,
        dropped: [dropped, dropped_voxels],
        histogram: tally.histogram.rows(),
        not_finite: tally.not_finite,
    };
    output::write(folder, context, &results)
}

/// Noise model of the difference, and the size of what is rounding only.
fn sample_noise(
    inputs: &Inputs<'_>,
    region: &Region,
    groups: &[std::ops::Range<usize>],
    smooth_sigma: f64,
    done: impl Fn(),
) -> Result<(NoiseModel, f64)> {
    let [depth, height, width] = inputs.shape;
    let reach = if smooth_sigma > 0.0 {
        smooth::reach(smooth_sigma)
    } else {
        0
    };
    let mut sample = NoiseSample::new(region);
    let mut largest = 0f32;
    for group in groups {
        let around = group.start.saturating_sub(reach)..(group.end + reach).min(depth);
        let (difference, magnitude) = inputs.difference(around.clone())?;
        largest = largest.max(magnitude);
        let mut slices = Vec::with_capacity(group.len());
        if reach > 0 {
            let mut smoother =
                Smoother::new(smooth_sigma, inputs.shape, &inputs.valid, group.clone());
            for (z, slice) in around.zip(difference.outer_iter()) {
                slices.extend(
                    smoother.push(
                        z,
                        slice
                            .as_slice()
                            .expect("a slice of a fresh array is contiguous"),
                    ),
                );
            }
            slices.extend(smoother.finish(height * width));
        } else {
            slices.extend(
                difference
                    .outer_iter()
                    .map(|slice| slice.iter().copied().collect()),
            );
        }
        sample.add(&slices, width);
        done();
    }
    // the rounding of each of the four operations that make a voxel of the difference
    Ok((sample.finish(), 4.0 * f64::from(f32::EPSILON * largest)))
}

/// Gives the difference of the whole volume to `consume`, slab by slab.
fn stream(
    inputs: &Inputs<'_>,
    slab: usize,
    smooth_sigma: f64,
    mut consume: impl FnMut(usize, Array3<f32>) -> Result<()>,
) -> Result<()> {
    let [depth, height, width] = inputs.shape;
    let step = inputs.slab_height(slab);
    let slabs = (0..depth)
        .step_by(step)
        .map(|z0| z0..(z0 + step).min(depth));
    if smooth_sigma <= 0.0 {
        return slabs
            .into_iter()
            .try_for_each(|z| consume(z.start, inputs.difference(z)?.0));
    }
    let mut smoother = Smoother::new(smooth_sigma, inputs.shape, &inputs.valid, 0..depth);
    let mut next = 0;
    for z in slabs {
        let (difference, _) = inputs.difference(z.clone())?;
        let mut done = Vec::new();
        for (z, slice) in z.clone().zip(difference.outer_iter()) {
            done.extend(
                smoother.push(
                    z,
                    slice
                        .as_slice()
                        .expect("a slice of a fresh array is contiguous"),
                ),
            );
        }
        drop(difference);
        if z.end == depth {
            done.extend(smoother.finish(height * width));
        }
        if !done.is_empty() {
            let shape = (done.len(), height, width);
            let flat: Vec<f32> = done.into_iter().flatten().collect();
            consume(
                next,
                Array3::from_shape_vec(shape, flat)
                    .expect("every slice has the size of the volume"),
            )?;
            next += shape.0;
        }
    }
    Ok(())
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
        self.heights.push(Height::of(
            &slice,
            self.labeller.touched,
            &model.correlation,
        ));
        self.not_finite += slice.not_finite;
        self.histogram.merge(slice.histogram);
        Ok(())
    }
}
