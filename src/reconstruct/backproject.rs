//! Back-projection on the GPU: parameters, CPU twin, launch.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::SliceJob;
use super::filter::FilterPlan;
use super::geometry::Grid;
use crate::config::GpuKernel;
use crate::error::Result;
use crate::gpu::{Batch, Gpu, Kernel, Texture};

/// The shader.
pub const SOURCE: &str = include_str!("../../shaders/backproject.wgsl");
/// Rays of one dispatch at most.
pub const MAX_RAYS: usize = 256;
/// Side of the square of voxels that a workgroup sums.
pub const TILE: usize = 32;

/// Parameters of all entry points.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct BackprojectParams {
    /// Rays of this dispatch, at most [`MAX_RAYS`].
    pub n_rays: u32,
    /// The first of them in `filtered`.
    pub first_ray: u32,
    /// Rays in `filtered`.
    pub n_angles: u32,
    /// Samples of a stored row.
    pub row_stride: u32,
    /// Columns of a slice.
    pub n_x: u32,
    /// Rows in `slices`.
    pub n_y: u32,
    /// Slice row of the first of them, a multiple of [`TILE`].
    pub y_first: u32,
    /// First row of `slices` that is summed, a multiple of [`TILE`].
    pub y_start: u32,
    /// The row behind the last one.
    pub y_end: u32,
    /// Slices wanted.
    pub n_slices: u32,
    /// 1: nothing was summed yet.
    pub start: u32,
    /// Largest coordinate that may be read, `n_out + 1`.
    pub u_max: f32,
    /// Of the slices, 1 unless samples are stored in half precision.
    pub scale: f32,
}

/// Where the voxels of a slice stand in the stored row of one ray.
///
/// Coordinates are samples of the stored row, whose first sample is a zero. Pairs are whole samples and 2^-28 parts of one: they
/// are summed in integers, so the place of a tile is exact to 2^-20 sample in slices of any size.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct RayConstants {
    /// Samples per voxel to the right.
    pub along_x: f32,
    /// Samples per voxel downwards.
    pub along_y: f32,
    /// Coordinate of voxel (0, 0).
    pub origin: [i32; 2],
    /// Samples per tile to the right.
    pub tile_x: [i32; 2],
    /// Samples per tile downwards.
    pub tile_y: [i32; 2],
}

impl BackprojectParams {
    /// For the slice rows `y` of a block of `n_angles`, all of them summed at once.
    #[must_use]
    pub fn new(
        grid: &Grid,
        plan: &FilterPlan,
        y: Range<usize>,
        n_angles: usize,
        n_slices: usize,
    ) -> Self {
        BackprojectParams {
            n_rays: n_angles as u32,
            first_ray: 0,
            n_angles: n_angles as u32,
            row_stride: plan.row_stride() as u32,
            n_x: grid.n_x as u32,
            n_y: y.len() as u32,
            y_first: y.start as u32,
            y_start: 0,
            y_end: y.len() as u32,
            n_slices: n_slices as u32,
            start: 1,
            u_max: (plan.n_out + 1) as f32,
            scale: 1.0,
        }
    }

    /// Voxel updates of this dispatch, of `n_groups` of four slices.
    #[must_use]
    pub fn updates(&self, n_groups: usize) -> u64 {
        u64::from(self.n_x)
            * u64::from(self.y_end - self.y_start)
            * u64::from(self.n_rays)
            * 4
            * n_groups as u64
    }
}

/// Per ray, from f64.
#[must_use]
pub fn ray_constants(job: &SliceJob, plan: &FilterPlan) -> Vec<RayConstants> {
    let grid = &job.grid;
    let upsample = plan.upsample as f64;
    let fixed = |value: f64| {
        let parts = (value * f64::from(1 << 28)).round() as i64;
        [(parts >> 28) as i32, (parts & ((1 << 28) - 1)) as i32]
    };
    job.rays
        .iter()
        .map(|ray| {
            let origin =
                (ray.offset_px + grid.x0 * ray.cos + grid.y0 * ray.sin - plan.t0) * upsample + 1.0;
            let (along_x, along_y) = (
                grid.step * ray.cos * upsample,
                -grid.step * ray.sin * upsample,
            );
            RayConstants {
                along_x: along_x as f32,
                along_y: along_y as f32,
                origin: fixed(origin),
                tile_x: fixed(along_x * TILE as f64),
                tile_y: fixed(along_y * TILE as f64),
            }
        })
        .collect()
}

/// Columns inside the mask, `[y]` of `[first, behind the last]`.
#[must_use]
pub fn spans(grid: &Grid, mask_radius_px: Option<f64>) -> Vec<[u32; 2]> {
    (0..grid.n_y)
        .map(|j| {
            let Some(radius) = mask_radius_px else {
                return [0, grid.n_x as u32];
            };
            let y = grid.y0 - j as f64 * grid.step;
            let inside = |i: &usize| {
                let x = grid.x0 + *i as f64 * grid.step;
                x * x + y * y <= radius * radius
            };
            match ((0..grid.n_x).find(inside), (0..grid.n_x).rev().find(inside)) {
                (Some(first), Some(last)) => [first as u32, last as u32 + 1],
                _ => [0, 0],
            }
        })
        .collect()
}

/// Twin of `backproject`: adds the rays of `params` to `slices` `[group, y, x]`.
///
/// `rays` `[ray]`, `filtered` `[group, angle, sample]`, `spans` `[slice row]`. Voxels outside the mask are not written.
///
/// # Panics
/// When a slice is too short.
pub fn backproject_cpu(
    params: &BackprojectParams,
    rays: &[RayConstants],
    filtered: &[[f32; 4]],
    spans: &[[u32; 2]],
    slices: &mut [[f32; 4]],
) {
    let n_y = params.n_y as usize;
    let n_groups = slices.len() / (n_y * params.n_x as usize);
    for group in 0..n_groups {
        for y in params.y_start..params.y_end {
            let span = spans[(params.y_first + y) as usize];
            for x in span[0]..span[1] {
                let voxel = (group * n_y + y as usize) * params.n_x as usize + x as usize;
                let mut sum = if params.start == 0 {
                    slices[voxel]
                } else {
                    [0.0; 4]
                };
                let row = params.y_first + y;
                let (fx, fy) = ((x % 32) as f32, (row % 32) as f32);
                let mut first = (group * params.n_angles as usize + params.first_ray as usize)
                    * params.row_stride as usize;
                for ray in &rays[..params.n_rays as usize] {
                    let [along_x, along_y, part, whole] =
                        tile_place(ray, (x / 32) as i32, (row / 32) as i32);
                    let u = fx.mul_add(along_x, fy.mul_add(along_y, part));
                    sum = add_sample(params, filtered, sum, first, whole, u);
                    first += params.row_stride as usize;
                }
                slices[voxel] = sum;
            }
        }
    }
}

fn tile_place(ray: &RayConstants, x: i32, y: i32) -> [f32; 4] {
    let low =
        x * (ray.tile_x[1] & 0x3fff) + y * (ray.tile_y[1] & 0x3fff) + (ray.origin[1] & 0x3fff);
    let high =
        x * (ray.tile_x[1] >> 14) + y * (ray.tile_y[1] >> 14) + (ray.origin[1] >> 14) + (low >> 14);
    let whole = x * ray.tile_x[0] + y * ray.tile_y[0] + ray.origin[0] + (high >> 14);
    let part = (((high & 0x3fff) << 14) | (low & 0x3fff)) as f32 / (1 << 28) as f32;
    [ray.along_x, ray.along_y, part, whole as f32]
}

fn add_sample(
    params: &BackprojectParams,
    filtered: &[[f32; 4]],
    sum: [f32; 4],
    first: usize,
    corner: f32,
    u_free: f32,
) -> [f32; 4] {
    let u = u_free.clamp(-corner, params.u_max - corner);
    let lower = u.floor();
    let share = u - lower;
    let at = first + (corner as i32 + lower as i32) as usize;
    let (here, next) = (filtered[at], filtered[at + 1]);
    std::array::from_fn(|lane| {
        next[lane].mul_add(share, here[lane].mul_add(1.0 - share, sum[lane]))
    })
}

/// Twin of `unpack_slices`: `volume` `[slice, y, x]` of `slices` `[group, y, x]`, 0 outside the mask.
///
/// # Panics
/// When a slice is too short.
pub fn unpack_slices_cpu(
    params: &BackprojectParams,
    spans: &[[u32; 2]],
    slices: &[[f32; 4]],
    volume: &mut [f32],
) {
    let (n_x, n_y) = (params.n_x as usize, params.n_y as usize);
    for slice in 0..params.n_slices as usize {
        for y in 0..n_y {
            let span = spans[params.y_first as usize + y];
            for x in 0..n_x {
                let inside = (span[0] as usize..span[1] as usize).contains(&x);
                let value = slices[(slice / 4 * n_y + y) * n_x + x][slice % 4];
                volume[(slice * n_y + y) * n_x + x] =
                    if inside { value * params.scale } else { 0.0 };
            }
        }
    }
}

/// The kernels.
pub struct Backproject {
    variant: GpuKernel,
    backproject: Kernel,
    unpack_slices: Kernel,
}

impl Backproject {
    /// Compiles them.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] when the driver refuses a kernel.
    pub fn new(gpu: &Gpu, variant: GpuKernel) -> Result<Self> {
        let entry = match variant {
            GpuKernel::Auto | GpuKernel::Plain => "backproject",
            GpuKernel::Wide => "backproject_wide",
            GpuKernel::Half => "backproject_half",
            GpuKernel::Texture | GpuKernel::TextureHalf => "backproject_texture",
        };
        Ok(Backproject {
            variant,
            backproject: Kernel::new(gpu, SOURCE, entry)?,
            unpack_slices: Kernel::new(gpu, SOURCE, "unpack_slices")?,
        })
    }

    /// Adds `rays` (a uniform buffer of [`MAX_RAYS`]) to `slices` of `n_groups`.
    ///
    /// `filtered` holds the samples that the variant reads; a `texture` is read in its place.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn launch(
        &self,
        batch: &mut Batch<'_>,
        params: &BackprojectParams,
        n_groups: usize,
        rays: &wgpu::Buffer,
        filtered: &wgpu::Buffer,
        texture: Option<&Texture>,
        spans: &wgpu::Buffer,
        slices: &wgpu::Buffer,
    ) -> Result<()> {
        let deep = match self.variant {
            GpuKernel::Wide => n_groups.div_ceil(2),
            _ => n_groups,
        };
        let groups = [
            params.n_x.div_ceil(32),
            (params.y_end - params.y_start).div_ceil(32),
            deep as u32,
        ];
        let common = [(1, rays), (3, spans), (4, slices)];
        let mut entries: Vec<wgpu::BindGroupEntry<'_>> = common
            .iter()
            .map(|&(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        match texture {
            Some(texture) => entries.extend(texture.entries(7, 8)),
            None => entries.push(wgpu::BindGroupEntry {
                binding: if self.variant == GpuKernel::Half {
                    6
                } else {
                    2
                },
                resource: filtered.as_entire_binding(),
            }),
        }
        batch.launch_with(&self.backproject, params, &entries, groups)
    }

    /// Takes `slices` apart into `volume`.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn unpack(
        &self,
        batch: &mut Batch<'_>,
        params: &BackprojectParams,
        spans: &wgpu::Buffer,
        slices: &wgpu::Buffer,
        volume: &wgpu::Buffer,
    ) -> Result<()> {
        batch.launch(
            &self.unpack_slices,
            params,
            &[(3, spans), (4, slices), (5, volume)],
            [
                params.n_x.div_ceil(256),
                params.n_y,
                params.n_slices.div_ceil(4),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ReconstructConfig;
    use crate::reconstruct::geometry::{InPlaneMotion, rays};

    fn job(n_cols: usize, n_angles: usize) -> SliceJob {
        let angles: Vec<f64> = (0..n_angles)
            .map(|k| k as f64 * std::f64::consts::PI / n_angles as f64)
            .collect();
        let motion = InPlaneMotion {
            shift_x_px: 1.3,
            shift_y_px: -0.4,
            rotation_rad: 0.1,
        };
        SliceJob {
            n_cols,
            rays: rays(&angles, motion),
            grid: Grid {
                n_x: n_cols + 2,
                n_y: n_cols.div_ceil(2),
                x0: -3.25,
                y0: 4.5,
                step: 0.75,
            },
            config: ReconstructConfig::default(),
            scale: 1.0,
            mask_radius_px: None,
            support: None,
        }
    }

    #[test]
    fn the_twin_is_the_sum_over_angles_of_interpolated_values_in_f64() {
        let job = job(23, 19);
        let plan = FilterPlan::new(&job).unwrap();
        let params = BackprojectParams::new(&job.grid, &plan, 0..job.grid.n_y, 19, 4);
        let stride = params.row_stride as usize;
        let mut filtered: Vec<[f32; 4]> = (0..19 * stride)
            .map(|i| {
                std::array::from_fn(|lane| ((i * i * 13 + 29 * lane) % 97) as f32 / 97.0 - 0.5)
            })
            .collect();
        for row in filtered.chunks_mut(stride) {
            for zero in [0, plan.n_out + 1, plan.n_out + 2] {
                row[zero] = [0.0; 4];
            }
        }
        let mut slices = vec![[f32::NAN; 4]; job.grid.n_x * job.grid.n_y];
        backproject_cpu(
            &params,
            &ray_constants(&job, &plan),
            &filtered,
            &spans(&job.grid, None),
            &mut slices,
        );
        // a coordinate within a tile, below 128, is off by a few units of 2^-17, at slopes of at most 1 per sample
        let tolerance = 19.0 * (4.0 * 128.0 * f64::from(f32::EPSILON) + f64::from(f32::EPSILON));
        let (mut worst, mut blind): (f64, f64) = (0.0, 0.0);
        for j in 0..job.grid.n_y {
            for i in 0..job.grid.n_x {
                let (x, y) = (job.grid.x0 + i as f64 * 0.75, job.grid.y0 - j as f64 * 0.75);
                for lane in 0..4 {
                    let at = |shift: f64| -> f64 {
                        let value = |angle: usize, ray: &crate::reconstruct::geometry::Ray| {
                            let t = ray.offset_px + x * ray.cos + y * ray.sin + shift;
                            let m = (t - plan.t0) * plan.upsample as f64;
                            let share = m - m.floor();
                            let row = &filtered[angle * stride..];
                            let sample = |m: f64| f64::from(row[m as usize + 1][lane]);
                            (1.0 - share) * sample(m.floor()) + share * sample(m.floor() + 1.0)
                        };
                        job.rays
                            .iter()
                            .enumerate()
                            .map(|(angle, ray)| value(angle, ray))
                            .sum()
                    };
                    let found = f64::from(slices[j * job.grid.n_x + i][lane]);
                    worst = worst.max((found - at(0.0)).abs());
                    blind = blind.max((found - at(0.1)).abs());
                }
            }
        }
        assert!(worst < tolerance, "{worst} > {tolerance}");
        assert!(
            blind > 10.0 * tolerance,
            "a shift of 0.1 px must be seen: {blind}"
        );
    }

    #[test]
    fn spans_hold_exactly_the_voxels_within_the_radius() {
        let grid = Grid::square(7);
        assert_eq!(spans(&grid, None), vec![[0, 7]; 7]);
        assert_eq!(
            spans(&grid, Some(3.0)),
            [[3, 4], [1, 6], [1, 6], [0, 7], [1, 6], [1, 6], [3, 4]]
        );
        assert_eq!(spans(&grid, Some(0.5))[0], [0, 0]);
    }

    #[test]
    fn a_tile_stands_where_f64_puts_it_however_wide_the_slice() {
        let mut job = job(6000, 37);
        job.grid = Grid {
            n_x: 6000,
            n_y: 6000,
            x0: -3001.3,
            y0: 2988.7,
            step: 1.0,
        };
        let plan = FilterPlan::new(&job).unwrap();
        let mut naive: f64 = 0.0;
        for (ray, constants) in job.rays.iter().zip(ray_constants(&job, &plan)) {
            for (tile_x, tile_y) in [(0, 0), (187, 187), (0, 187), (93, 11)] {
                let (x, y) = (
                    job.grid.x0 + f64::from(32 * tile_x),
                    job.grid.y0 - f64::from(32 * tile_y),
                );
                let at = |y: f64| {
                    (ray.offset_px + x * ray.cos + y * ray.sin - plan.t0) * plan.upsample as f64
                        + 1.0
                };
                let [_, _, part, whole] = tile_place(&constants, tile_x, tile_y);
                let found = f64::from(whole) + f64::from(part);
                // three numbers rounded to 2^-29, two of them times 188; and the part as f32, to 2^-25
                let tolerance = 377.0 * 0.5_f64.powi(29) + 0.5_f64.powi(25);
                assert!((found - at(y)).abs() < tolerance, "{found} {}", at(y));
                assert!(
                    (found - at(y + 1e-3)).abs() > tolerance || ray.sin.abs() < 1e-3,
                    "blind"
                );
                naive = naive.max((f64::from(at(y) as f32) - at(y)).abs());
            }
        }
        assert!(naive > 1e-4, "f32 alone is worse: {naive}");
    }
}
