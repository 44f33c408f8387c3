//! What is estimated before anything is measured: the noise, what edges add to it, the threshold, and what the rule finds where
//! there is nothing.

use std::ops::Range;

use rayon::prelude::*;

use super::Context;
use super::discovery::Significance;
use super::edges::{EdgeSample, Residue};
use super::gradient::Gradient;
use super::grains::Labeller;
use super::halves::{Halves, Piece};
use super::inputs::Inputs;
use super::measure::{Measure, Rule};
use super::noise::{NoiseModel, NoiseSample, near_change};
use super::region::Region;
use super::spread::spread;
use super::stream::{Smoothing, contiguous, stream};
use crate::config::DifferenceConfig;
use crate::error::Result;
use crate::record::NullRecord;

/// Noise model of the difference, and the size of what is rounding only.
///
/// From the halves of the scans where they are there; the unchanged voxels are looked at in any case.
pub(super) fn sample_noise(
    inputs: &Inputs<'_>,
    region: &Region,
    groups: &[Range<usize>],
    context: &Context<'_>,
    done: impl Fn(),
) -> Result<(NoiseModel, f64)> {
    let [depth, _, width] = inputs.shape;
    let smoothing = Smoothing::of(context.config);
    let reach = smoothing.reach();
    let mut sample = NoiseSample::new(region);
    let mut largest = 0f32;
    for group in groups {
        let around = group.start.saturating_sub(reach)..(group.end + reach).min(depth);
        let read = inputs.difference(around.clone())?;
        largest = largest.max(read.largest);
        let slices = smoothing.apply(inputs, &read.difference, &around, group);
        sample.add(group.start, &slices, width);
        done();
    }
    let voxels = sample.finish();
    // the rounding of each of the four operations that make a voxel of the difference
    let floor = 4.0 * f64::from(f32::EPSILON * largest);
    let Some(halves) = &context.halves else {
        return Ok((voxels, floor));
    };
    let mut sample = NoiseSample::new(region);
    for piece in halves.pieces(region, reach, depth) {
        let slices = null_slices(inputs, halves, smoothing, &piece)?;
        sample.add(piece.core.start, &slices, width);
    }
    let model = sample.finish();
    if model.sigma <= 0.0 {
        return Ok((voxels, floor));
    }
    Ok((voxels.with_halves(model, context.config.noise), floor))
}

/// What edges add to the noise, from the sampled slices.
pub(super) fn sample_edges(
    inputs: &Inputs<'_>,
    region: &Region,
    groups: &[Range<usize>],
    model: &NoiseModel,
    config: &DifferenceConfig,
) -> Result<Residue> {
    let [depth, height, width] = inputs.shape;
    let smoothing = Smoothing::of(config);
    let reach = smoothing.reach().max(1);
    let sigma = model.sigma;
    if !config.edge_noise || sigma <= 0.0 {
        return Ok(Residue::default());
    }
    let mut sample = EdgeSample::new(sigma);
    for group in groups {
        let around = group.start.saturating_sub(reach)..(group.end + reach).min(depth);
        let read = inputs.difference(around.clone())?;
        let slices = smoothing.apply(inputs, &read.difference, &around, group);
        drop(read.difference);
        let gradients = EdgeSample::GRADIENTS.map(|direction| {
            let mut slopes = Gradient::new([around.len(), height, width], direction);
            let mut gradients = Vec::with_capacity(group.len());
            for (z, slice) in around.clone().zip(read.reference.outer_iter()) {
                // it comes one slice later
                let slope = slopes.push(contiguous(&slice));
                gradients.extend(slope.filter(|_| group.contains(&(z - 1))));
            }
            if group.end == around.end {
                gradients.extend(slopes.finish());
            }
            gradients
        });
        drop(read.reference);
        // without a filter all of `around` comes back
        let first = if slices.len() == around.len() {
            around.start
        } else {
            group.start
        };
        let slices = &slices[group.start - first..group.end - first];
        let spreads: Vec<_> = slices
            .iter()
            .map(|slice| spread(|| region.voxels(slice).map(|(_, _, value)| value), sigma))
            .collect();
        let changed = near_change(slices, &spreads, region, width);
        for (index, slice) in slices.iter().enumerate() {
            sample.add(
                slice,
                [0, 1, 2].map(|k| gradients[k][index].as_slice()),
                &changed[index],
                width,
                region,
                |y, x| model.profile.at(region.radius_squared(y, x)),
            );
        }
    }
    Ok(sample.residue())
}

/// The null difference in the slices of a piece, smoothed as the difference is.
fn null_slices(
    inputs: &Inputs<'_>,
    halves: &Halves<'_>,
    smoothing: Smoothing,
    piece: &Piece,
) -> Result<Vec<Vec<f32>>> {
    let noise = halves.difference(inputs, &piece.around)?;
    Ok(smoothing.apply(inputs, &noise, &piece.around, &piece.core))
}

/// How the threshold is set; for a false-discovery rate the whole difference is counted first.
pub(super) fn rule_of(
    inputs: &Inputs<'_>,
    region: &Region,
    model: &NoiseModel,
    edge: Residue,
    context: &Context<'_>,
) -> Result<Rule> {
    let config = context.config;
    if let Some(level) = config.absolute {
        return Ok(Rule::Absolute(level));
    }
    let Some(rate) = config.fdr else {
        return Ok(Rule::Sigma(config.sigma));
    };
    let smoothing = Smoothing::of(config);
    let stage = context.progress.stage(
        "difference: false-discovery rate",
        inputs.shape[0] as u64,
        "slices",
    );
    let width = inputs.shape[2];
    let count = |slice: &[f32], gradient: Option<&[f32]>, sigma: f64| {
        let mut counts = Significance::new();
        for (y, x, value) in region.voxels(slice).filter(|_| sigma > 0.0) {
            let p = f64::from(model.profile.at(region.radius_squared(y, x)));
            let g = gradient.map_or(0.0, |gradient| f64::from(gradient[y * width + x]));
            counts.add(f64::from(value) / (sigma * p).hypot(g));
        }
        counts
    };
    let mut all = Significance::new();
    stream(inputs, context.slab, smoothing, edge, |slab| {
        let z0 = slab.z0;
        let parts: Vec<Significance> = slab
            .difference
            .outer_iter()
            .into_par_iter()
            .enumerate()
            .filter(|(index, _)| region.z.contains(&(z0 + index)))
            .map(|(index, slice)| {
                let slice = contiguous(&slice);
                let sigma = model.sigma_at(z0 + index, &model.of_slice(slice, region));
                count(slice, slab.gradient(index), sigma)
            })
            .collect();
        parts.iter().for_each(|part| all.merge(part));
        stage.inc(slab.difference.dim().0 as u64);
        Ok(())
    })?;
    let mut null = Significance::new();
    if let Some(halves) = &context.halves {
        for piece in halves.pieces(region, smoothing.reach(), inputs.shape[0]) {
            let slices = null_slices(inputs, halves, smoothing, &piece)?;
            for (z, slice) in piece.core.clone().zip(&slices) {
                let sigma = model.halves_at(z).unwrap_or(model.sigma);
                null.merge(&count(slice, None, sigma));
            }
        }
    }
    Ok(Rule::Discovery(rate, all.threshold(rate, &null)))
}

/// What the rule finds in the null difference, where there is nothing to be found.
pub(super) fn measure_null(
    inputs: &Inputs<'_>,
    measure: &Measure<'_>,
    context: &Context<'_>,
) -> Result<Option<NullRecord>> {
    let Some(halves) = &context.halves else {
        return Ok(None);
    };
    let (config, region) = (context.config, measure.region);
    let smoothing = Smoothing::of(config);
    let mut record = NullRecord::default();
    let mut open: Option<(usize, Labeller)> = None;
    for piece in halves.pieces(region, smoothing.reach(), inputs.shape[0]) {
        let slices = null_slices(inputs, halves, smoothing, &piece)?;
        if open
            .as_ref()
            .is_none_or(|(end, _)| *end != piece.core.start)
        {
            record.grains += open
                .take()
                .map_or(0, |(_, labeller)| labeller.finish().grains.len() as u64);
        }
        let (end, labeller) = open.get_or_insert_with(|| {
            let start = piece.core.start;
            (
                start,
                Labeller::new(config.connectivity, config.min_grain_voxels, start),
            )
        });
        *end = piece.core.end;
        for (z, slice) in piece.core.clone().zip(&slices) {
            let found = measure.slice_with(z, slice, None, measure.model.halves_at(z));
            labeller.push(&found.runs, region.height())?;
            record.slices += 1;
            record.voxels += found.voxels;
            record.increase_voxels += found.sides[0].voxels;
            record.decrease_voxels += found.sides[1].voxels;
            record.expected_by_noise += found.expected;
        }
    }
    record.grains += open.map_or(0, |(_, labeller)| labeller.finish().grains.len() as u64);
    Ok((record.slices > 0).then_some(record))
}
