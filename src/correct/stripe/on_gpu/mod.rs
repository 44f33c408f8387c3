//! Stripe removal on the GPU: which methods, parameters, launches; the CPU twins in `twin`.
//!
//! Columns `[row, col, angle]` of transmission stay where they are; beside them are held the angle of each rank and one more
//! image of the same size. Sorting moves values and the median chooses them, so what the GPU gives has the bits of the
//! CPU; only factors and straight lines are computed, in f32 from whole numbers where the CPU has f64 (see `find_stripes.wgsl`).
//! Means, waves along the angle, fits and wavelets are sums too, within rounding of those of the CPU. Filtering sorts such sums:
//! samples equal but for rounding may take each other's place, as between any two programs (see `super`).

mod fits;
mod kernels;
mod means;
#[cfg(test)]
mod tests;
mod twin;
mod wavelets;
mod waves;

use bytemuck::{Pod, Zeroable};

use super::{Dead, Large, StripeRemoval};

pub use fits::{BLOCK, COLS, FLOOR, FitParams};
pub use kernels::{Sorter, StripeKernels};
pub use twin::stripes_cpu;
pub(in crate::correct) use twin::sum_of;
pub use wavelets::WaveletParams;
pub use waves::WaveParams;

/// The shader that sorts columns.
pub const SORT_SOURCE: &str = include_str!("../../../../shaders/sort_columns.wgsl");
/// The shader that finds and mends stripes.
pub const FIND_SOURCE: &str = include_str!("../../../../shaders/find_stripes.wgsl");
/// The shader that takes waves out of columns.
pub const FILTER_SOURCE: &str = include_str!("../../../../shaders/filter_columns.wgsl");
/// The shader that fits columns.
pub const FIT_SOURCE: &str = include_str!("../../../../shaders/fit_columns.wgsl");
/// The shader that takes columns apart into scales.
pub const WAVELET_SOURCE: &str = include_str!("../../../../shaders/wavelet_columns.wgsl");
/// Samples that a workgroup sorts.
pub const LOCAL: usize = 2048;
/// Columns that an invocation slides its window over.
pub const SEGMENT: usize = 64;
/// Places that the mantissa of the largest sample of a column is moved up in sums.
pub const SHIFT: u32 = 18;

/// Parameters of all entry points.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct StripeParams {
    /// Rows of these columns.
    pub n_rows: u32,
    /// Detector columns.
    pub n_cols: u32,
    /// Angles.
    pub n_angles: u32,
    /// First row of these columns within the rows of the step.
    pub first_row: u32,
    /// First angle of the block.
    pub first_wanted: u32,
    /// Angles of the block.
    pub n_wanted: u32,
    /// Samples that a sort or merge puts in order.
    pub size: u32,
    /// Distance of the samples that are compared; 0: the first step of a merge, which mirrors.
    pub stride: u32,
    /// Columns of the running median.
    pub window: u32,
    /// First sorted sample that says something of its column.
    pub first_kept: u32,
    /// One behind the last of them.
    pub end_kept: u32,
    /// Angles of the running mean.
    pub mean_over: u32,
    /// What tells a stripe from its neighbours.
    pub snr: f32,
    /// 1: dead stripes are sought, 0: large ones.
    pub dead: u32,
    /// 1: flagged columns are divided like the others, 0: replaced.
    pub keep: u32,
    /// 1: columns are divided by their factor.
    pub normalize: u32,
    /// Rows of the step before this one were counted in another step.
    pub first_counted: u32,
    /// Least transmission.
    pub min_transmission: f32,
    /// Columns on either side whose means are looked at.
    pub reach: u32,
    /// 1: means are those of the logarithm, and columns move by a factor.
    pub logarithm: u32,
}

impl StripeParams {
    /// To seek dead stripes.
    fn of_dead(self, dead: &Dead) -> Self {
        StripeParams {
            window: dead.size as u32,
            mean_over: dead.smooth as u32,
            snr: dead.snr as f32,
            dead: 1,
            ..self
        }
    }

    /// To seek large stripes.
    fn of_large(self, large: &Large) -> Self {
        let kept = large.kept(self.n_angles as usize);
        StripeParams {
            window: large.size as u32,
            first_kept: kept.start as u32,
            end_kept: kept.end as u32,
            snr: large.snr as f32,
            normalize: u32::from(large.normalize),
            dead: 0,
            ..self
        }
    }

    /// To move columns by their means, which are told from so many columns on either side.
    fn of_means(self, removal: &StripeRemoval, reach: usize) -> Self {
        StripeParams {
            reach: reach as u32,
            logarithm: u32::from(matches!(removal, StripeRemoval::Regularization(_))),
            ..self
        }
    }

    /// To sort one number per column along each row.
    fn along_rows(self) -> Self {
        StripeParams {
            n_angles: self.n_cols,
            n_cols: 1,
            ..self
        }
    }

    /// Columns times angles of all rows.
    fn samples(&self) -> usize {
        self.n_rows as usize * self.n_cols as usize * self.n_angles as usize
    }
}

/// What a row takes on the GPU beside its columns \[samples of 4 bytes\].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Beside {
    /// All of it.
    pub samples: usize,
    /// The largest of its buffers.
    pub largest: usize,
}

impl StripeRemoval {
    /// What it takes beside the columns of a row on the GPU.
    #[must_use]
    pub fn beside_on_gpu(&self, n_cols: usize, n_angles: usize) -> Beside {
        let plane = n_cols * n_angles;
        let images = |count: usize| Beside {
            samples: count * plane,
            largest: if count > 0 { plane } else { 0 },
        };
        match self {
            StripeRemoval::Normalization(_)
            | StripeRemoval::Regularization(_)
            | StripeRemoval::Fft(_) => images(0),
            StripeRemoval::Fitting(fitting) => fits::beside(fitting, n_cols, n_angles),
            StripeRemoval::WaveletFft(filter) => wavelets::beside(filter, n_cols, n_angles),
            // the order of the columns, and their smooth version; of their low part, which is held too
            StripeRemoval::Filtering(_) => images(3),
            StripeRemoval::Sorting(_)
            | StripeRemoval::Large(_)
            | StripeRemoval::Dead(..)
            | StripeRemoval::All(..)
            | StripeRemoval::Interpolation(_) => images(2),
        }
    }

    /// Whether it sorts columns.
    fn sorts(&self) -> bool {
        match self {
            StripeRemoval::Normalization(_)
            | StripeRemoval::Regularization(_)
            | StripeRemoval::Fft(_)
            | StripeRemoval::Fitting(_)
            | StripeRemoval::WaveletFft(_) => false,
            StripeRemoval::Filtering(_)
            | StripeRemoval::Sorting(_)
            | StripeRemoval::Large(_)
            | StripeRemoval::Dead(..)
            | StripeRemoval::All(..)
            | StripeRemoval::Interpolation(_) => true,
        }
    }

    /// Samples that it looks at for each of so many columns and angles, at once: columns of its widest median, waves, or taps.
    #[must_use]
    pub fn widest_window(&self, n_cols: usize, n_angles: usize) -> usize {
        match self {
            StripeRemoval::Sorting(size) => *size,
            StripeRemoval::Large(large) | StripeRemoval::Interpolation(large) => large.size,
            StripeRemoval::Dead(dead, large) => dead.size.max(large.map_or(0, |large| large.size)),
            StripeRemoval::All(dead, large, small) => dead.size.max(large.size).max(*small),
            StripeRemoval::Filtering(filtering) => {
                filtering.size.max((6.5 * filtering.sigma).ceil() as usize)
            }
            StripeRemoval::Fft(raven) => raven.rows + 1,
            StripeRemoval::Fitting(fitting) => fits::looked_at(fitting, n_cols, n_angles),
            StripeRemoval::WaveletFft(filter) => wavelets::looked_at(filter, n_angles),
            StripeRemoval::Normalization(_) | StripeRemoval::Regularization(_) => 1,
        }
    }
}

/// One invocation for each sample.
fn samples(params: &StripeParams) -> [u32; 3] {
    [params.n_angles.div_ceil(256), params.n_cols, params.n_rows]
}
