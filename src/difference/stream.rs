//! The difference as a stream of slabs, smoothed where asked.

use std::collections::VecDeque;
use std::ops::Range;

use ndarray::Array3;

use super::edges::Residue;
use super::gradient::Gradient;
use super::inputs::Inputs;
use super::median::MedianFilter;
use super::region::Region;
use super::smooth::{self, Smoother};
use crate::config::DifferenceConfig;
use crate::error::Result;

/// How the difference is smoothed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Smoothing {
    None,
    /// Sigma of a Gaussian \[voxel\].
    Gaussian(f64),
    /// Edge of the cube of a median \[voxel\], odd.
    Median(usize),
}

/// A filter that takes slices in order and gives those that are complete.
pub(super) enum Filter {
    Gaussian(Smoother),
    Median(MedianFilter),
}

impl Filter {
    pub(super) fn push(&mut self, z: usize, slice: &[f32]) -> Vec<Vec<f32>> {
        match self {
            Filter::Gaussian(filter) => filter.push(z, slice),
            Filter::Median(filter) => filter.push(z, slice),
        }
    }

    pub(super) fn finish(&mut self, slice_len: usize) -> Vec<Vec<f32>> {
        match self {
            Filter::Gaussian(filter) => filter.finish(slice_len),
            Filter::Median(filter) => filter.finish(),
        }
    }
}

impl Smoothing {
    /// What the config asks for.
    pub(super) fn of(config: &DifferenceConfig) -> Smoothing {
        if config.smooth_sigma > 0.0 {
            Smoothing::Gaussian(config.smooth_sigma)
        } else if config.smooth_median > 1 {
            Smoothing::Median(config.smooth_median)
        } else {
            Smoothing::None
        }
    }

    /// Slices on each side that a slice needs.
    pub(super) fn reach(self) -> usize {
        match self {
            Smoothing::None => 0,
            Smoothing::Gaussian(sigma) => smooth::reach(sigma),
            Smoothing::Median(edge) => edge / 2,
        }
    }

    /// Bytes of the windows that the filter holds, for slices of so many bytes.
    pub(super) fn bytes(self, slice: u64) -> u64 {
        let reach = self.reach() as u64;
        match self {
            Smoothing::None => 0,
            Smoothing::Gaussian(_) => (2 * reach + 2) * 2 * slice,
            Smoothing::Median(_) => (2 * reach + 2) * slice,
        }
    }

    fn filter(self, shape: [usize; 3], region: &Region, z: Range<usize>) -> Option<Filter> {
        match self {
            Smoothing::None => None,
            Smoothing::Gaussian(sigma) => {
                Some(Filter::Gaussian(Smoother::new(sigma, shape, region, z)))
            }
            Smoothing::Median(edge) => {
                Some(Filter::Median(MedianFilter::new(edge, shape, region, z)))
            }
        }
    }

    /// Slices `core` of `around`, smoothed.
    pub(super) fn apply(
        self,
        inputs: &Inputs<'_>,
        difference: &Array3<f32>,
        around: &Range<usize>,
        core: &Range<usize>,
    ) -> Vec<Vec<f32>> {
        let Some(mut filter) = self.filter(inputs.shape, &inputs.valid, core.clone()) else {
            return difference
                .outer_iter()
                .map(|slice| slice.iter().copied().collect())
                .collect();
        };
        let mut slices = Vec::with_capacity(core.len());
        for (z, slice) in around.clone().zip(difference.outer_iter()) {
            slices.extend(filter.push(z, contiguous(&slice)));
        }
        slices.extend(filter.finish(inputs.shape[1] * inputs.shape[2]));
        slices
    }
}

/// Slices of fresh arrays are contiguous.
pub(super) fn contiguous<'a>(slice: &'a ndarray::ArrayView2<'_, f32>) -> &'a [f32] {
    slice
        .as_slice()
        .expect("a slice of a fresh array is contiguous")
}

/// Slices of the difference, and what edges of the reference leave in them (empty where that is nothing).
pub(super) struct Slab {
    pub(super) z0: usize,
    pub(super) difference: Array3<f32>,
    pub(super) gradient: Vec<Vec<f32>>,
}

impl Slab {
    /// What edges leave in the slice of this index.
    pub(super) fn gradient(&self, index: usize) -> Option<&[f32]> {
        self.gradient.get(index).map(Vec::as_slice)
    }
}

/// Gives the difference of the whole volume to `consume`, slab by slab.
pub(super) fn stream(
    inputs: &Inputs<'_>,
    slab: usize,
    smoothing: Smoothing,
    residue: Residue,
    mut consume: impl FnMut(&Slab) -> Result<()>,
) -> Result<()> {
    let [depth, height, width] = inputs.shape;
    let step = inputs.slab_height(slab);
    let mut filter = smoothing.filter(inputs.shape, &inputs.valid, 0..depth);
    let edges = !residue.is_none();
    let mut slopes = edges.then(|| Gradient::new(inputs.shape, residue));
    let (mut smoothed, mut gradients) = (VecDeque::new(), VecDeque::new());
    let mut next = 0;
    for z0 in (0..depth).step_by(step) {
        let z = z0..(z0 + step).min(depth);
        let read = inputs.difference(z.clone())?;
        if let Some(slopes) = &mut slopes {
            for slice in read.reference.outer_iter() {
                gradients.extend(slopes.push(contiguous(&slice)));
            }
            if z.end == depth {
                gradients.extend(slopes.finish());
            }
        }
        if filter.is_none() && slopes.is_none() {
            let slab = Slab {
                z0,
                difference: read.difference,
                gradient: Vec::new(),
            };
            consume(&slab)?;
            continue;
        }
        for (z, slice) in z.clone().zip(read.difference.outer_iter()) {
            match &mut filter {
                Some(filter) => smoothed.extend(filter.push(z, contiguous(&slice))),
                None => smoothed.push_back(slice.iter().copied().collect()),
            }
        }
        drop(read);
        if let (Some(filter), true) = (&mut filter, z.end == depth) {
            smoothed.extend(filter.finish(height * width));
        }
        let ready = if edges {
            smoothed.len().min(gradients.len())
        } else {
            smoothed.len()
        };
        if ready > 0 {
            // the size is told beforehand: a vector that grows would be held twice
            let mut flat = Vec::with_capacity(ready * height * width);
            smoothed
                .drain(..ready)
                .for_each(|slice: Vec<f32>| flat.extend_from_slice(&slice));
            let taken = if edges { ready } else { 0 };
            let slab = Slab {
                z0: next,
                difference: Array3::from_shape_vec((ready, height, width), flat)
                    .expect("every slice has the size of the volume"),
                gradient: gradients.drain(..taken).collect(),
            };
            consume(&slab)?;
            next += ready;
        }
    }
    Ok(())
}
