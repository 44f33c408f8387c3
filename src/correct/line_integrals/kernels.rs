//! The kernels and their buffers.

use std::ops::Range;

use ndarray::s;

use super::columns::WholeColumns;
use super::{CountSlab, LineIntegralParams, LockedPixel, SOURCE, Step, Taps, Touched};
use crate::error::Result;
use crate::gpu::{Batch, Gpu, Kernel, Submit};

/// Samples that a dispatch of the running median may look at: 32 times a window for each angle of each pixel. As long as
/// a dispatch of back-projection of half that many updates.
const LOOKS_PER_UPDATE: u64 = 2;
/// Workgroups along an axis that every GPU has.
const MOST_GROUPS: usize = 65_535;

/// The kernels with their buffers, for blocks of at most so many rows and angles.
pub struct LineIntegrals {
    divide: Kernel,
    take_log: Kernel,
    beam: Option<Level>,
    lock: Option<Lock>,
    whole: Option<Whole>,
    placing: Option<Placing>,
    /// `[held angle, row, col]`, two to a word: one for each block where they are kept for a second look, else one for all.
    counts: Vec<wgpu::Buffer>,
    transmission: wgpu::Buffer,
    dark: wgpu::Buffer,
    open_beams: wgpu::Buffer,
    good: wgpu::Buffer,
    in_time: wgpu::Buffer,
    touched: wgpu::Buffer,
    /// `[row, col]`, 1 + place of a locked pixel.
    places: wgpu::Buffer,
    /// `[pixel, angle]` where no pixel is locked.
    none: wgpu::Buffer,
    /// `[row, col]` of a double flat field.
    factors: wgpu::Buffer,
}

/// What drift of the beam takes beside.
struct Level {
    level_lines: Kernel,
    /// `[angle]`
    readings: wgpu::Buffer,
}

/// What corrections of whole columns take beside.
struct Whole {
    clean: Kernel,
    columns: WholeColumns,
}

/// What locked pixels take beside, or the edges of broad stripes.
pub(super) struct Lock {
    pub(super) deviate: Kernel,
    slow_part: Kernel,
    fit_line: Kernel,
    pub(super) pixels: wgpu::Buffer,
    /// `[pixel, angle]`
    pub(super) deviation: wgpu::Buffer,
    /// `[pixel, angle]`
    pub(super) slow: wgpu::Buffer,
    /// `[pixel]`, offset and slope.
    straight: wgpu::Buffer,
    /// Row of each pixel in the rows that were set last.
    rows: Vec<u32>,
    /// Samples that a dispatch may look at.
    looks: u64,
}

/// What slices between rows take beside.
struct Placing {
    place_rows: Kernel,
    /// `[slice]`, or `[slice, angle]`.
    taps: wgpu::Buffer,
    /// `[row, wanted angle, col]`, line integrals.
    rows: wgpu::Buffer,
    /// The last of these rows of each block, which the next step shares; they end where the buffer does.
    kept: Vec<wgpu::Buffer>,
}

impl Lock {
    /// For `most` pixels, whose deviation the entry `deviate` of a shader takes.
    pub(super) fn new(
        gpu: &Gpu,
        (source, deviate): (&str, &str),
        most: usize,
        n_angles: usize,
        updates: u64,
    ) -> Result<Lock> {
        Ok(Lock {
            deviate: Kernel::new(gpu, source, deviate)?,
            slow_part: Kernel::new(gpu, SOURCE, "slow_part")?,
            fit_line: Kernel::new(gpu, SOURCE, "fit_line")?,
            pixels: gpu.storage::<LockedPixel>("locked pixels", most)?,
            deviation: gpu.storage::<f32>("deviation", most * n_angles)?,
            slow: gpu.storage::<f32>("slow part", most * n_angles)?,
            straight: gpu.storage::<[f32; 2]>("straight lines", most)?,
            rows: Vec::new(),
            looks: LOOKS_PER_UPDATE.saturating_mul(updates),
        })
    }

    /// Hands over the pixels of a step, row after row.
    pub(super) fn set(&mut self, gpu: &Gpu, pixels: Vec<LockedPixel>) -> Result<()> {
        gpu.write(&self.pixels, 0, &pixels)?;
        self.rows = pixels.iter().map(|pixel| pixel.at[0]).collect();
        Ok(())
    }

    /// Places of the pixels in these rows.
    pub(super) fn of_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let first = |row: usize| self.rows.partition_point(|&at| (at as usize) < row);
        first(rows.start)..first(rows.end)
    }

    /// From the deviation of all pixels at all angles to its slow part; `run` submits what each batch takes.
    pub(super) fn slow_part(
        &self,
        params: &LineIntegralParams,
        run: &mut Submit<'_>,
    ) -> Result<()> {
        let looks = 32 * u64::from(params.n_angles) * u64::from(params.width);
        let at_once = (self.looks / looks.max(1)) as usize;
        for turn in 0..2 {
            for pixels in chunks(0..self.rows.len(), at_once) {
                let params = LineIntegralParams {
                    first_locked: pixels.start as u32,
                    turn,
                    ..*params
                };
                let n = pixels.len() as u32;
                run(&|batch| {
                    batch.launch(
                        &self.slow_part,
                        &params,
                        &[
                            (11, &self.deviation),
                            (12, &self.slow),
                            (13, &self.straight),
                        ],
                        [params.n_angles.div_ceil(256), n, 1],
                    )?;
                    if turn == 1 {
                        return Ok(());
                    }
                    batch.launch(
                        &self.fit_line,
                        &params,
                        &[(12, &self.slow), (13, &self.straight)],
                        [n, 1, 1],
                    )
                })?;
            }
        }
        Ok(())
    }
}

/// Pixels of each dispatch, of those in `pixels`, at most `at_once`.
pub(super) fn chunks(pixels: Range<usize>, at_once: usize) -> impl Iterator<Item = Range<usize>> {
    let step = at_once.clamp(1, MOST_GROUPS);
    let end = pixels.end;
    pixels
        .step_by(step)
        .map(move |first| first..(first + step).min(end))
}

impl LineIntegrals {
    /// Compiles the kernels and takes the buffers for steps of `slices` slices and these blocks of wanted angles of `slab`; a
    /// dispatch is to be about as long as one of so many updates of back-projection.
    ///
    /// Where pixels are locked, the counts of all blocks are kept for a second look if there is memory for that, or transmission is
    /// kept for all angles where a correction looks at whole columns.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] beyond a limit or when memory runs out.
    pub fn new(
        gpu: &Gpu,
        slab: &CountSlab,
        slices: usize,
        blocks: &[Range<usize>],
        updates: u64,
    ) -> Result<Self> {
        let (n_angles, _, n_cols) = slab.counts.dim();
        let rows = slab.most_rows(slices);
        let plane = rows * n_cols;
        let held: Vec<usize> = blocks.iter().map(|block| slab.held(block).len()).collect();
        let largest_held = held.iter().copied().max().unwrap_or(0);
        let whole = slab.takes_columns();
        let most = if whole { 0 } else { rows * slab.most_locked };
        let kept = |held: &[usize]| -> Result<Vec<wgpu::Buffer>> {
            let buffers = held
                .iter()
                .map(|held| gpu.storage::<u16>("counts", held * plane));
            buffers.collect()
        };
        Ok(LineIntegrals {
            divide: Kernel::new(gpu, SOURCE, "divide")?,
            take_log: Kernel::new(gpu, SOURCE, "take_log")?,
            transmission: gpu.storage::<f32>("transmission", largest_held * plane)?,
            dark: gpu.storage::<f32>("dark", plane)?,
            open_beams: gpu.storage::<f32>("open beams", slab.n_groups * plane)?,
            good: gpu.storage::<u32>("good columns", plane)?,
            in_time: gpu.storage_from("open beams in time", &slab.in_time)?,
            touched: gpu.storage::<u32>("touched", 5)?,
            places: gpu.storage::<u32>("places of locked pixels", plane)?,
            none: gpu.storage::<f32>("no slow part", 1)?,
            factors: gpu.storage::<f32>(
                "double flat field",
                if slab.factors.is_empty() { 1 } else { plane },
            )?,
            beam: match &slab.beam {
                None => None,
                Some(beam) => Some(Level {
                    level_lines: Kernel::new(gpu, SOURCE, "level_lines")?,
                    readings: gpu
                        .storage_from("beam", beam.factors.as_deref().unwrap_or(&[1.0]))?,
                }),
            },
            lock: match most {
                0 => None,
                _ => Some(Lock::new(
                    gpu,
                    (SOURCE, "deviate"),
                    most,
                    n_angles,
                    updates,
                )?),
            },
            whole: match whole {
                false => None,
                true => Some(Whole {
                    clean: Kernel::new(gpu, SOURCE, "clean")?,
                    columns: WholeColumns::new(gpu, slab, rows, updates)?,
                }),
            },
            placing: match &slab.placement {
                None => None,
                Some(placement) => {
                    let lines = if placement.is_moving() { n_angles } else { 1 };
                    let wanted = blocks.iter().map(ExactSizeIterator::len).max();
                    let kept = blocks.iter().map(|block| {
                        let lines = slab.most_kept().min(rows) * block.len();
                        gpu.storage::<f32>("rows of the next step", lines * n_cols)
                    });
                    Some(Placing {
                        kept: kept.collect::<Result<_>>()?,
                        place_rows: Kernel::new(gpu, SOURCE, "place_rows")?,
                        taps: gpu.storage::<Taps>("taps", slices * lines)?,
                        rows: gpu.storage::<f32>("rows", wanted.unwrap_or(0) * plane)?,
                    })
                }
            },
            // last, so that what is needed has its place
            counts: match most {
                0 => kept(&[largest_held])?,
                _ => kept(&held).or_else(|error| {
                    log::debug!("{error}; counts go up twice");
                    kept(&[largest_held])
                })?,
            },
        })
    }

    /// Where the counts of block `index` go, `[held angle, row, col]`, two to a word.
    #[must_use]
    pub fn counts(&self, index: usize) -> &wgpu::Buffer {
        &self.counts[index % self.counts.len()]
    }

    /// Whether every block has a buffer of its own for its counts.
    #[must_use]
    pub fn keeps_counts(&self) -> bool {
        self.counts.len() > 1
    }

    /// As on a GPU without memory for the counts of all blocks.
    #[cfg(test)]
    pub(crate) fn forget_counts(&mut self) {
        let largest = (0..self.counts.len()).max_by_key(|&index| self.counts[index].size());
        self.counts = vec![self.counts.swap_remove(largest.unwrap_or(0))];
    }

    /// Sets the counters of [`LineIntegrals::touched`] to zero.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] for a lost device.
    pub fn reset(&self, gpu: &Gpu) -> Result<()> {
        gpu.write(&self.touched, 0, &[0u32; 5])
    }

    /// Bytes of the counts of a block, at most.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        self.counts
            .iter()
            .map(wgpu::Buffer::size)
            .max()
            .unwrap_or(0)
    }

    /// Hands over the fields of a step of `slab`, before the launches that are submitted next, and says whether pixels are
    /// locked there, so that all blocks must [`LineIntegrals::deviate`] first.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] for a lost device.
    pub fn set_rows(&mut self, gpu: &Gpu, slab: &CountSlab, step: &Step) -> Result<bool> {
        let rows = &step.new_rows();
        if let Some(placing) = &self.placing {
            gpu.write(&placing.taps, 0, &slab.taps(step))?;
        }
        gpu.write(&self.dark, 0, &slab.rows_of(&slab.dark, rows))?;
        gpu.write(&self.open_beams, 0, &slab.rows_of(&slab.open_beams, rows))?;
        gpu.write(&self.good, 0, &slab.rows_of(&slab.good, rows))?;
        gpu.write(&self.factors, 0, &slab.rows_of(&slab.factors, rows))?;
        if let Some(whole) = &mut self.whole {
            whole.columns.set_rows(gpu, slab, step)?;
            return Ok(false);
        }
        let (pixels, places) = slab.locked_of(rows);
        gpu.write(&self.places, 0, &places)?;
        let Some(lock) = &mut self.lock else {
            return Ok(false);
        };
        let locked = !pixels.is_empty();
        lock.set(gpu, pixels)?;
        Ok(locked)
    }

    /// Whether transmission is kept for all angles: every block is then taken by [`LineIntegrals::take_block`],
    /// [`LineIntegrals::treat_columns`] follows, and [`LineIntegrals::launch`] needs no counts.
    #[must_use]
    pub fn takes_columns(&self) -> bool {
        self.whole.is_some()
    }

    /// From the counts of block `index` to its part of the columns; `lines` `[slice, wanted angle, col]` is overwritten.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn take_block(
        &self,
        batch: &mut Batch<'_>,
        params: &LineIntegralParams,
        index: usize,
        lines: &wgpu::Buffer,
    ) -> Result<()> {
        let Some(whole) = &self.whole else {
            return Ok(());
        };
        self.divide(batch, params, index)?;
        let rows = self.rows(lines);
        batch.launch(
            &whole.clean,
            params,
            &[(6, &self.transmission), (7, rows), (8, &self.touched)],
            [params.n_cols.div_ceil(256), params.n_wanted, params.n_rows],
        )?;
        whole.columns.take(batch, params, rows)
    }

    /// Lock and stripe removal on the columns of all angles; `run` submits what each batch takes.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn treat_columns(
        &self,
        params: &LineIntegralParams,
        run: impl FnMut(&dyn Fn(&mut Batch<'_>) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        match &self.whole {
            Some(whole) => {
                let columns = &whole.columns;
                columns.treat(params, &self.factors, &self.touched, run)
            }
            None => Ok(()),
        }
    }

    /// Where the line integrals of detector rows go, if those of slices go to `lines`.
    fn rows<'a>(&'a self, lines: &'a wgpu::Buffer) -> &'a wgpu::Buffer {
        self.placing.as_ref().map_or(lines, |placing| &placing.rows)
    }

    /// From the counts of block `index` to transmission, drift of the beam taken off.
    fn divide(
        &self,
        batch: &mut Batch<'_>,
        params: &LineIntegralParams,
        index: usize,
    ) -> Result<()> {
        batch.launch(
            &self.divide,
            params,
            &[
                (1, self.counts(index)),
                (2, &self.dark),
                (3, &self.open_beams),
                (4, &self.good),
                (5, &self.in_time),
                (6, &self.transmission),
            ],
            [params.n_cols.div_ceil(256), params.n_held, params.n_rows],
        )?;
        let Some(beam) = &self.beam else {
            return Ok(());
        };
        batch.launch(
            &beam.level_lines,
            params,
            &[
                (6, &self.transmission),
                (8, &self.touched),
                (16, &beam.readings),
            ],
            [params.n_held, params.n_rows, 1],
        )
    }

    /// From the counts of block `index` to the deviation of the locked pixels at its angles.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn deviate(
        &self,
        batch: &mut Batch<'_>,
        params: &LineIntegralParams,
        index: usize,
    ) -> Result<()> {
        let Some(lock) = &self.lock else {
            return Ok(());
        };
        // its lines are counted when the logarithm is taken
        let params = LineIntegralParams {
            counts_lines: 0,
            ..*params
        };
        self.divide(batch, &params, index)?;
        for pixels in chunks(0..lock.rows.len(), MOST_GROUPS) {
            let params = LineIntegralParams {
                first_locked: pixels.start as u32,
                ..params
            };
            batch.launch(
                &lock.deviate,
                &params,
                &[
                    (6, &self.transmission),
                    (10, &lock.pixels),
                    (11, &lock.deviation),
                ],
                [params.n_wanted.div_ceil(256), pixels.len() as u32, 1],
            )?;
        }
        Ok(())
    }

    /// From the deviation of the locked pixels at all angles to its slow part; `run` submits what each batch takes.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn slow_part(
        &self,
        params: &LineIntegralParams,
        mut run: impl FnMut(&dyn Fn(&mut Batch<'_>) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        match &self.lock {
            Some(lock) => lock.slow_part(params, &mut run),
            None => Ok(()),
        }
    }

    /// From the counts of block `index`, or from the columns, to `line_integrals` `[slice, wanted angle, col]`.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn launch(
        &self,
        batch: &mut Batch<'_>,
        params: &LineIntegralParams,
        index: usize,
        line_integrals: &wgpu::Buffer,
    ) -> Result<()> {
        let columns = params.n_cols.div_ceil(256);
        let rows = self.rows(line_integrals);
        if let Some(whole) = &self.whole {
            whole.columns.write(batch, params, rows, &self.touched)?;
        } else {
            self.divide(batch, params, index)?;
            let slow = self.lock.as_ref().map_or(&self.none, |lock| &lock.slow);
            batch.launch(
                &self.take_log,
                params,
                &[
                    (6, &self.transmission),
                    (7, rows),
                    (8, &self.touched),
                    (9, &self.places),
                    (12, slow),
                    (17, &self.factors),
                ],
                [columns, params.n_wanted, params.n_rows],
            )?;
        }
        let Some(placing) = &self.placing else {
            return Ok(());
        };
        let (kept, row_bytes) = (
            &placing.kept[index],
            4 * u64::from(params.n_wanted * params.n_cols),
        );
        let held = u64::from(params.n_kept) * row_bytes;
        batch.copy_part((kept, kept.size() - held), (&placing.rows, 0), held);
        let there = u64::from(params.n_kept + params.n_rows) * row_bytes;
        let last = there.min(kept.size());
        batch.copy_part(
            (&placing.rows, there - last),
            (kept, kept.size() - last),
            last,
        );
        batch.launch(
            &placing.place_rows,
            params,
            &[
                (7, line_integrals),
                (14, &placing.taps),
                (15, &placing.rows),
            ],
            [columns, params.n_wanted, params.n_slices],
        )
    }

    /// All line integrals `[slice, angle, col]` of `slab`, block by block, and what was touched: for tests, with a wait after every step.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`]
    pub fn run(
        &mut self,
        gpu: &Gpu,
        slab: &CountSlab,
        blocks: &[Range<usize>],
    ) -> Result<(Vec<f32>, Touched)> {
        let (n_angles, _, n_cols) = slab.counts.dim();
        let n_slices = slab.n_slices();
        let step = slab.step(0..n_slices);
        self.reset(gpu)?;
        let locked = self.set_rows(gpu, slab, &step)?;
        let upload = |kernels: &Self, index: usize| {
            let held = slab.held(&blocks[index]);
            let counts = slab.counts.slice(s![held, step.new_rows(), ..]);
            let mut counts: Vec<u16> = counts.iter().copied().collect();
            counts.resize(counts.len().next_multiple_of(2), 0);
            gpu.write(kernels.counts(index), 0, &counts)
        };
        let submit = |record: &dyn Fn(&mut Batch<'_>) -> Result<()>| {
            let mut batch = gpu.batch("corrections");
            record(&mut batch)?;
            batch.submit();
            Ok(())
        };
        let all_angles = slab.params(0..n_angles, &step);
        if locked || self.takes_columns() {
            for (index, block) in blocks.iter().enumerate() {
                upload(self, index)?;
                let params = slab.params(block.clone(), &step);
                let lines = gpu.storage::<f32>("lines", n_slices * block.len() * n_cols)?;
                submit(&|batch| match locked {
                    true => self.deviate(batch, &params, index),
                    false => self.take_block(batch, &params, index, &lines),
                })?;
            }
            match locked {
                true => self.slow_part(&all_angles, submit)?,
                false => self.treat_columns(&all_angles, submit)?,
            }
        }
        let mut all = vec![f32::NAN; n_slices * n_angles * n_cols];
        for (index, block) in blocks.iter().enumerate() {
            if !(locked && self.keeps_counts() || self.takes_columns()) {
                upload(self, index)?;
            }
            let out = vec![f32::NAN; n_slices * block.len() * n_cols];
            let out = gpu.storage_from("out", &out)?;
            let mut batch = gpu.batch("corrections");
            self.launch(&mut batch, &slab.params(block.clone(), &step), index, &out)?;
            batch.submit();
            let found: Vec<f32> = gpu.read(&out)?;
            for (slice, lines) in found.chunks_exact(block.len() * n_cols).enumerate() {
                all[(slice * n_angles + block.start) * n_cols..][..lines.len()]
                    .copy_from_slice(lines);
            }
        }
        Ok((all, self.touched(gpu)?))
    }

    /// What was touched since [`LineIntegrals::reset`]; waits for all work before.
    ///
    /// # Errors
    /// See [`Gpu::check`].
    pub fn touched(&self, gpu: &Gpu) -> Result<Touched> {
        let counted: Vec<u32> = gpu.read(&self.touched)?;
        Ok(Touched {
            clipped: u64::from(counted[0]),
            zingers: u64::from(counted[1]),
            large_stripes: u64::from(counted[2]),
            dead_stripes: u64::from(counted[3]),
            beam_left: u64::from(counted[4]),
        })
    }
}
