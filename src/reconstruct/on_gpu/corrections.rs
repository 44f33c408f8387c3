//! From counts to line integrals where the filter reads them.

use std::ops::Range;

use ndarray::s;

use super::cut::shares_memory;
use super::submit::{Runner, Uploads, contiguous};
use super::{Error, GpuEngine, Result};
use crate::correct::Guard;
use crate::correct::line_integrals::{CountSlab, LineIntegrals, Step, column_bytes};
use crate::correct::stripe::StripeRemoval;

impl GpuEngine {
    /// Takes the memory of the corrections, once.
    ///
    /// # Errors
    /// [`Error::Gpu`] when they do not fit beside the rest.
    pub fn prepare(&mut self, slab: &CountSlab) -> Result<()> {
        if self.corrections.is_none() {
            let rows = self.rows_at_once();
            let blocks: Vec<Range<usize>> = self
                .blocks
                .iter()
                .map(|block| block.angles.clone())
                .collect();
            let corrections = LineIntegrals::new(&self.gpu, slab, rows, &blocks, self.cut.updates)?;
            let bytes = corrections.block_bytes();
            if bytes > 4 * (rows * self.cut.angles * self.plan.n_cols) as u64 {
                // few angles or slices, and a wide halo
                self.uploads = Uploads::new(&self.gpu, bytes)?;
            }
            self.corrections = Some(corrections);
        }
        Ok(())
    }

    /// Everything about a step that needs all its angles; whether no block has to be uploaded again.
    pub(super) fn look_ahead(&mut self, slab: &CountSlab, step: &Step) -> Result<bool> {
        let corrections = self.corrections.as_mut().ok_or_else(not_prepared)?;
        let locked = corrections.set_rows(&self.gpu, slab, step)?;
        if corrections.takes_columns() {
            self.treat_columns(slab, step)?;
            return Ok(true);
        }
        let kept = locked && corrections.keeps_counts();
        if locked {
            self.look_at_locked(slab, step)?;
        }
        Ok(kept)
    }

    /// Uploads the counts of a block.
    fn upload_counts(&mut self, slab: &CountSlab, step: &Step, index: usize) -> Result<()> {
        let Some(corrections) = &self.corrections else {
            return Err(not_prepared());
        };
        let mut runner = Runner {
            gpu: &self.gpu,
            timings: &mut self.timings,
        };
        let held = slab.held(&self.blocks[index].angles);
        if step.new_rows().is_empty() {
            return Ok(());
        }
        let block = slab.counts.slice(s![held, step.new_rows(), ..]);
        let target = corrections.counts(index);
        self.uploads.send(&mut runner, &contiguous(&block), target)
    }

    /// Uploads all counts of a step, and finds the slow part of what the locked pixels there deviate by.
    fn look_at_locked(&mut self, slab: &CountSlab, step: &Step) -> Result<()> {
        for index in 0..self.blocks.len() {
            self.upload_counts(slab, step, index)?;
            let params = slab.params(self.blocks[index].angles.clone(), step);
            let (corrections, _, mut runner) = self.correcting()?;
            runner.run("locked pixels", |batch| {
                corrections.deviate(batch, &params, index)
            })?;
        }
        let params = slab.params(0..self.n_angles, step);
        let (corrections, _, mut runner) = self.correcting()?;
        corrections.slow_part(&params, |record| {
            runner.run("locked pixels", record).map(drop)
        })
    }

    /// Uploads all counts of a step, and treats their transmission column by column, which stays on the GPU.
    fn treat_columns(&mut self, slab: &CountSlab, step: &Step) -> Result<()> {
        for index in 0..self.blocks.len() {
            self.upload_counts(slab, step, index)?;
            let params = slab.params(self.blocks[index].angles.clone(), step);
            let (corrections, lines, mut runner) = self.correcting()?;
            runner.run("transmission", |batch| {
                corrections.take_block(batch, &params, index, lines)
            })?;
        }
        let params = slab.params(0..self.n_angles, step);
        let (corrections, _, mut runner) = self.correcting()?;
        corrections.treat_columns(&params, |record| runner.run("columns", record).map(drop))
    }

    /// Corrects a block whose counts or columns are `on_gpu`, or go up here; its line integrals end where the filter reads them.
    pub(super) fn correct(
        &mut self,
        slab: &CountSlab,
        step: &Step,
        index: usize,
        on_gpu: bool,
    ) -> Result<()> {
        if !on_gpu {
            self.upload_counts(slab, step, index)?;
        }
        let params = slab.params(self.blocks[index].angles.clone(), step);
        let (corrections, lines, mut runner) = self.correcting()?;
        runner
            .run("corrections", |batch| {
                corrections.launch(batch, &params, index, lines)
            })
            .map(drop)
    }

    /// The corrections, where the filter reads its line integrals, and what runs their kernels.
    fn correcting(&mut self) -> Result<(&LineIntegrals, &wgpu::Buffer, Runner<'_>)> {
        let corrections = self.corrections.as_ref().ok_or_else(not_prepared)?;
        let runner = Runner {
            gpu: &self.gpu,
            timings: &mut self.timings,
        };
        Ok((corrections, &self.filter_buffers.line_integrals, runner))
    }

    /// Rows of the detector that a step is made of, at most.
    fn rows_around(&self) -> usize {
        self.rows_at_once() + 2 * crate::plan::HALO_ROWS + 2
    }

    /// Memory that the corrections take on the GPU at most, but for a few fields of the detector \[bytes\]: rows around a step of
    /// slices as counts of all blocks, as transmission and as line integrals of one, and rows that two steps share as line integrals.
    pub(super) fn correction_bytes(&self) -> u64 {
        let held = (self.cut.angles + 2 * Guard::HALO).min(self.n_angles);
        let per_pixel = 2 * held * self.blocks.len() + 4 * held + 4 * self.cut.angles;
        // rows that the next step shares, at all angles
        let kept = 4 * (2 * crate::plan::HALO_ROWS + 2) * self.n_angles;
        ((self.rows_around() * per_pixel + kept) * self.plan.n_cols) as u64
    }

    /// What [`CountSlab::takes_columns`] takes more on the GPU at most, with this stripe removal, where that is memory of the
    /// host \[bytes\].
    #[must_use]
    pub fn column_bytes(&self, stripes: Option<&StripeRemoval>) -> u64 {
        if !shares_memory(self.gpu.info().kind) {
            return 0;
        }
        let rows = self.rows_around();
        // counts of all blocks, with two bytes each, are not kept then
        let counts = 2 * (rows * self.n_angles * self.plan.n_cols) as u64;
        column_bytes(stripes, [self.n_angles, self.plan.n_cols], rows) - counts
    }
}

fn not_prepared() -> Error {
    Error::Gpu {
        problem: "counts were handed over before the memory of the corrections was taken".into(),
        hint: "report this; --device cpu avoids it".into(),
    }
}
