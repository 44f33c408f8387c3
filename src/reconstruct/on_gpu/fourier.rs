//! The Fourier method: spectra of all blocks are kept, then gathered and transformed column by column.

use std::ops::Range;

use rayon::prelude::*;

use super::{Cut, Runner};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::reconstruct::filter::FilterPlan;
use crate::reconstruct::fourier_grid::{
    BlockGeometry, FourierGrid, FourierGridParams, TILE, grid_length, row_phase,
};
use crate::reconstruct::fourier_transform::{
    Along, FourierTransform, FourierTransformParams, LOCAL,
};
use crate::reconstruct::{Grid, SliceJob};

/// Columns of the grid worked on at once take about this \[bytes\]: they are gathered, transformed and left while they
/// may still be in the cache of a large GPU.
const BAND_BYTES: u64 = 48 << 20;

/// Spectra of a step, the grid, and what their kernels need.
pub(super) struct FourierBack {
    gridding: FourierGrid,
    transforms: FourierTransform,
    plan: FilterPlan,
    grid: Grid,
    /// Lengths of the transforms along u and v.
    lengths: (usize, usize),
    blocks: Vec<(Range<usize>, BlockGeometry)>,
    row_phase: wgpu::Buffer,
    /// Columns at once.
    u_band: usize,
    /// `[row, u - u_first, v]`
    cells: wgpu::Buffer,
    /// Rows of each band, and what is kept for them, `[row, y - y_first, n_u / 2 + 1]`.
    bands: Vec<(Range<usize>, wgpu::Buffer)>,
    /// `[row, pair of rows, n_u]`
    lines: wgpu::Buffer,
}

impl FourierBack {
    /// # Errors
    /// [`crate::Error::Gpu`] beyond a limit or when memory runs out.
    pub(super) fn new(
        gpu: &Gpu,
        job: &SliceJob,
        plan: &FilterPlan,
        cut: Cut,
        bands: &[Range<usize>],
    ) -> Result<Self> {
        let grid = job.grid;
        let lengths = (grid_length(grid.n_x), grid_length(grid.n_y));
        let (n_u, n_v) = lengths;
        let column = 32 * cut.packs as u64 * n_v as u64;
        let room = (BAND_BYTES.min(gpu.max_bytes()) / column) as usize / TILE * TILE;
        let u_band = room.clamp(TILE, (n_u / 2 + 1).next_multiple_of(TILE));
        let rows = 4 * cut.packs;
        let longest = bands.iter().map(Range::len).max().unwrap_or(0);
        let kept = bands.iter().map(|y| {
            let values = rows * y.len() * (n_u / 2 + 1);
            Ok((y.clone(), gpu.storage::<[f32; 2]>("kept", values)?))
        });
        let n_angles = job.rays.len();
        let blocks = (0..n_angles).step_by(cut.angles).map(|first| {
            let angles = first..(first + cut.angles).min(n_angles);
            let params = FourierGridParams::new(plan, lengths, cut.packs, angles.len(), u_band);
            let geometry = BlockGeometry::new(gpu, job, plan, &params, angles.clone())?;
            Ok((angles, geometry))
        });
        Ok(FourierBack {
            blocks: blocks.collect::<Result<_>>()?,
            bands: kept.collect::<Result<_>>()?,
            cells: gpu.storage::<[f32; 2]>("cells", rows * u_band * n_v)?,
            lines: gpu.storage::<[f32; 2]>("lines along u", rows * longest.div_ceil(2) * n_u)?,
            row_phase: gpu.storage::<[f32; 2]>("row phase", rows * (plan.n_fft / 2 + 1))?,
            gridding: FourierGrid::new(gpu)?,
            transforms: FourierTransform::new(gpu, &grid, job.mask_radius_px, lengths, LOCAL)?,
            plan: plan.clone(),
            grid,
            lengths,
            u_band,
        })
    }

    /// Sets the rotation axis of each row.
    pub(super) fn set_axes(&self, gpu: &Gpu, axis_px: &[f64]) -> Result<()> {
        let phases: Vec<[f32; 2]> = axis_px
            .par_iter()
            .flat_map_iter(|&axis| row_phase(&self.plan, axis))
            .collect();
        gpu.write(&self.row_phase, 0, &phases)
    }

    /// Keeps the spectra of block `index`, transformed in pairs.
    pub(super) fn add_block(
        &self,
        runner: &mut Runner<'_>,
        index: usize,
        packs: usize,
        spectrum: &wgpu::Buffer,
    ) -> Result<()> {
        let (angles, block) = &self.blocks[index];
        let params =
            FourierGridParams::new(&self.plan, self.lengths, packs, angles.len(), self.u_band);
        runner.run("spectra", |batch| {
            self.gridding
                .spectra(batch, &params, spectrum, &self.row_phase, block)
        })?;
        Ok(())
    }

    /// From the spectra of all blocks to the rows that the bands keep.
    pub(super) fn gather(&self, runner: &mut Runner<'_>, packs: usize) -> Result<()> {
        let (n_u, n_v) = self.lengths;
        let rows = 4 * packs as u32;
        for u_first in (0..=n_u / 2).step_by(self.u_band) {
            let columns = self.u_band.min(n_u / 2 + 1 - u_first);
            for (index, (angles, block)) in self.blocks.iter().enumerate() {
                let mut params = FourierGridParams::new(
                    &self.plan,
                    self.lengths,
                    packs,
                    angles.len(),
                    self.u_band,
                );
                params.u_first = u_first as u32;
                params.start = u32::from(index == 0);
                runner.run("gridding", |batch| {
                    self.gridding
                        .gather(batch, &params, columns as u32, block, &self.cells)
                })?;
            }
            runner.run("transform along v", |batch| {
                let mut params = FourierTransformParams::new(
                    n_v,
                    self.transforms.local,
                    self.u_band,
                    n_u,
                    &self.grid,
                    &(0..0),
                    0,
                );
                params.u_first = u_first as u32;
                self.transforms
                    .transform(batch, &params, Along::V, rows, &self.cells)?;
                for (y, kept) in &self.bands {
                    params.y_first = y.start as u32;
                    params.y_band = y.len() as u32;
                    self.transforms
                        .keep_rows(batch, &params, rows, &self.cells, kept)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// From the rows of band `index` to `volume`.
    pub(super) fn slices(
        &self,
        runner: &mut Runner<'_>,
        index: usize,
        packs: usize,
        n_slices: usize,
        volume: &wgpu::Buffer,
    ) -> Result<()> {
        let (y, kept) = &self.bands[index];
        let params = FourierTransformParams::new(
            self.lengths.0,
            self.transforms.local,
            y.len().div_ceil(2),
            self.lengths.0,
            &self.grid,
            y,
            n_slices,
        );
        let rows = 4 * packs as u32;
        runner.run("transform along u", |batch| {
            self.transforms
                .pair_rows(batch, &params, rows, kept, &self.lines)?;
            self.transforms
                .transform(batch, &params, Along::U, rows, &self.lines)?;
            self.transforms
                .write_slices(batch, &params, &self.lines, volume)
        })?;
        Ok(())
    }

    /// Bytes taken beside the buffers of the filter.
    pub(super) fn bytes(&self) -> u64 {
        let bands = self.bands.iter().map(|(_, kept)| kept.size());
        let blocks = self.blocks.iter().map(|(_, block)| block.bytes());
        self.cells.size() + self.lines.size() + bands.chain(blocks).sum::<u64>()
    }

    /// For the record.
    pub(super) fn describe(&self) -> String {
        format!("grid {} x {}", self.lengths.0, self.lengths.1)
    }
}
