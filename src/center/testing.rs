//! Discs with exact projections, as a source of line integrals.

use std::ops::Range;

use ndarray::{Array2, Array3, s};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal};

use crate::error::Result;
use crate::scan::{SinogramSource, Sinograms};

/// Discs `(x, y, radius, attenuation)`, measured from the axis \[px\], y up.
#[derive(Debug, Clone)]
pub(super) struct Discs(Vec<[f64; 4]>);

impl Discs {
    /// `n` discs inside `radius`.
    pub(super) fn random(seed: u64, n: usize, radius: f64) -> Discs {
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
        let mut uniform = |low: f64, high: f64| low + (high - low) * rng.random::<f64>();
        Discs(
            (0..n)
                .map(|_| {
                    let size = uniform(0.04, 0.15) * radius;
                    let (r, phi) = (
                        (radius - size) * uniform(0.0, 1.0).sqrt(),
                        uniform(0.0, std::f64::consts::TAU),
                    );
                    [
                        r * phi.cos(),
                        r * phi.sin(),
                        size,
                        uniform(0.5, 1.5) / radius,
                    ]
                })
                .collect(),
        )
    }

    /// The mean over each pixel of the line integrals at `angle_rad`, with the axis at column `axis`.
    pub(super) fn project(&self, axis: f64, angle_rad: f64, out: &mut [f32]) {
        let (sin, cos) = angle_rad.sin_cos();
        out.fill(0.0);
        for [x, y, radius, mu] in &self.0 {
            // the chord 2 sqrt(R^2 - d^2) integrated from the disc's middle to d
            let area = |d: f64| {
                let d = d.clamp(-radius, *radius);
                d * (radius * radius - d * d).max(0.0).sqrt()
                    + radius * radius * (d / radius).asin()
            };
            let middle = axis + x * cos + y * sin;
            let first = (middle - radius - 1.0).max(0.0) as usize;
            let last = ((middle + radius + 1.0).max(0.0) as usize).min(out.len().saturating_sub(1));
            for (col, value) in out.iter_mut().enumerate().take(last + 1).skip(first) {
                let d = col as f64 - middle;
                *value += (mu * (area(d + 0.5) - area(d - 0.5))) as f32;
            }
        }
    }

    /// `[view, col]`
    pub(super) fn sinogram(
        &self,
        n: usize,
        n_cols: usize,
        axis: f64,
        angle: impl Fn(u32) -> f64,
    ) -> Array2<f32> {
        let mut out = Array2::zeros((n, n_cols));
        for (k, mut row) in out.outer_iter_mut().enumerate() {
            self.project(axis, angle(k as u32), row.as_slice_mut().unwrap());
        }
        out
    }
}

/// A made scan, held in memory.
pub(super) struct Made {
    pub(super) sinograms: Sinograms,
    pub(super) angles_rad: Vec<f64>,
}

/// What is made.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) n_rows: usize,
    pub(super) n_cols: usize,
    pub(super) angles_rad: Vec<f64>,
    /// Axis at the middle row.
    pub(super) axis: f64,
    pub(super) slope: f64,
    pub(super) n_discs: usize,
    /// Radius of the object.
    pub(super) radius: f64,
    /// Standard deviation of the noise; a full disc across the object gives about 1.
    pub(super) noise: f64,
    /// Rows at the top that hold nothing but a fixed slope of the background.
    pub(super) air_rows: usize,
    /// Standard deviation of what is added to every column of all views.
    pub(super) stripes: f64,
}

/// `n` angles from `first` in steps of `step` degrees.
pub(super) fn degrees(first: f64, step: f64, n: usize) -> Vec<f64> {
    (0..n)
        .map(|k| (first + step * k as f64).to_radians())
        .collect()
}

impl Recipe {
    /// 180 degrees with both ends, an object well inside the field of view.
    pub(super) fn half_turn(axis: f64) -> Recipe {
        Recipe {
            n_rows: 24,
            n_cols: 160,
            angles_rad: degrees(0.0, 1.0, 181),
            axis,
            slope: 0.0,
            n_discs: 25,
            radius: 55.0,
            noise: 0.0,
            air_rows: 0,
            stripes: 0.0,
        }
    }

    pub(super) fn make(&self) -> Made {
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(11);
        let mut sinograms = Array3::zeros((self.n_rows, self.angles_rad.len(), self.n_cols));
        let middle = (self.n_rows as f64 - 1.0) / 2.0;
        let mut normal = |sigma: f64| {
            let value: f64 = StandardNormal.sample(&mut rng);
            (sigma * value) as f32
        };
        for (row, mut sinogram) in sinograms.outer_iter_mut().enumerate() {
            // neighbouring rows share their discs, as neighbouring slices of a sample do
            let discs = Discs::random(100 + row as u64 / 4, self.n_discs, self.radius);
            let axis = self.axis + self.slope * (row as f64 - middle);
            let stripes: Vec<f32> = (0..self.n_cols).map(|_| normal(self.stripes)).collect();
            for (mut view, &angle) in sinogram.outer_iter_mut().zip(&self.angles_rad) {
                let line = view.as_slice_mut().unwrap();
                if row >= self.air_rows {
                    discs.project(axis, angle, line);
                }
                for (col, value) in line.iter_mut().enumerate() {
                    *value += normal(self.noise)
                        + stripes[col]
                        + if row < self.air_rows {
                            1e-4 * col as f32
                        } else {
                            0.0
                        };
                }
            }
        }
        Made {
            sinograms,
            angles_rad: self.angles_rad.clone(),
        }
    }
}

impl SinogramSource for Made {
    fn n_rows(&self) -> usize {
        self.sinograms.dim().0
    }
    fn n_cols(&self) -> usize {
        self.sinograms.dim().2
    }
    fn angles_rad(&self) -> &[f64] {
        &self.angles_rad
    }
    fn sinograms(&self, rows: Range<usize>) -> Result<Sinograms> {
        Ok(self.sinograms.slice(s![rows, .., ..]).to_owned())
    }
    fn projection(&self, angle: usize, rows: Range<usize>) -> Result<Array2<f32>> {
        Ok(self.sinograms.slice(s![rows, angle, ..]).to_owned())
    }
}
