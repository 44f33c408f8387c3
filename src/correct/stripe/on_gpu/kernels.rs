//! The launches and their buffers.

use super::fits::FitKernels;
use super::means::MeanKernels;
use super::wavelets::WaveletKernels;
use super::waves::WaveKernels;
use super::{FIND_SOURCE, LOCAL, SEGMENT, SORT_SOURCE, StripeParams, samples};
use crate::correct::stripe::{Dead, Large, StripeRemoval};
use crate::error::Result;
use crate::gpu::{Batch, Gpu, Kernel, Submit};

/// Sorts columns along the angle.
pub struct Sorter {
    sort_within: Kernel,
    merge_across: Kernel,
    merge_within: Kernel,
}

impl Sorter {
    /// Compiles the kernels.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] when the driver refuses them.
    pub fn new(gpu: &Gpu) -> Result<Sorter> {
        Ok(Sorter {
            sort_within: Kernel::new(gpu, SORT_SOURCE, "sort_within")?,
            merge_across: Kernel::new(gpu, SORT_SOURCE, "merge_across")?,
            merge_within: Kernel::new(gpu, SORT_SOURCE, "merge_within")?,
        })
    }

    /// Sorts every column of `columns` `[row, col, angle]` in place; `order` gets the angle of each rank.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn launch(
        &self,
        batch: &mut Batch<'_>,
        params: &StripeParams,
        columns: &wgpu::Buffer,
        order: &wgpu::Buffer,
    ) -> Result<()> {
        let buffers = [(2, columns), (3, order)];
        let all = (params.n_angles.max(1)).next_power_of_two();
        let blocks = [
            params.n_angles.div_ceil(LOCAL as u32),
            params.n_cols,
            params.n_rows,
        ];
        let pairs = [(all / 2).div_ceil(256), params.n_cols, params.n_rows];
        let of = |size: u32, stride: u32| StripeParams {
            size,
            stride,
            ..*params
        };
        let within = of(all.min(LOCAL as u32), 0);
        batch.launch(&self.sort_within, &within, &buffers, blocks)?;
        let mut size = 2 * LOCAL as u32;
        while size <= all {
            batch.launch(&self.merge_across, &of(size, 0), &buffers, pairs)?;
            let mut stride = size / 4;
            while stride >= LOCAL as u32 {
                batch.launch(&self.merge_across, &of(size, stride), &buffers, pairs)?;
                stride /= 2;
            }
            batch.launch(&self.merge_within, &of(size, 0), &buffers, blocks)?;
            size *= 2;
        }
        Ok(())
    }
}

/// What algorithms 4, 5 and 6 take beside.
struct Finder {
    restless: Kernel,
    judge: Kernel,
    compare: Kernel,
    detect: Kernel,
    bridge: Kernel,
    replace: Kernel,
    /// `[row, col]`, each of these.
    restlessness: wgpu::Buffer,
    factors: wgpu::Buffer,
    excess: wgpu::Buffer,
    sorted: wgpu::Buffer,
    order: wgpu::Buffer,
    flags: wgpu::Buffer,
}

impl Finder {
    fn new(gpu: &Gpu, n_cols: usize, n_rows: usize) -> Result<Finder> {
        let kernel = |entry| Kernel::new(gpu, FIND_SOURCE, entry);
        let buffer = |label| gpu.storage::<f32>(label, n_cols * n_rows);
        Ok(Finder {
            restless: kernel("restless")?,
            judge: kernel("judge")?,
            compare: kernel("compare")?,
            detect: kernel("detect")?,
            bridge: kernel("bridge")?,
            replace: kernel("replace")?,
            restlessness: buffer("restlessness")?,
            factors: buffer("factors")?,
            excess: buffer("excess")?,
            sorted: buffer("sorted excess")?,
            order: buffer("order of the excess")?,
            flags: buffer("flags")?,
        })
    }
}

/// The kernels, with the buffers for columns of so many rows at a time.
pub struct StripeKernels {
    removal: StripeRemoval,
    sorter: Sorter,
    median_across: Kernel,
    unsort: Kernel,
    finder: Option<Finder>,
    means: Option<MeanKernels>,
    pub(super) waves: Option<WaveKernels>,
    fits: Option<FitKernels>,
    wavelets: Option<WaveletKernels>,
    /// `[row, col, rank]`, the angle of each rank.
    order: wgpu::Buffer,
    /// `[row, col, rank]`
    smooth: wgpu::Buffer,
}

impl StripeKernels {
    /// Compiles the kernels of `removal` and takes the buffers for columns `[row, col, angle]` of this shape.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] beyond a limit or when memory runs out.
    pub fn new(gpu: &Gpu, removal: StripeRemoval, shape: [usize; 3]) -> Result<StripeKernels> {
        let [n_rows, n_cols, n_angles] = shape;
        // a method that takes none has buffers of a word
        let beside = match removal.sorts() {
            false => 1,
            true => n_rows * n_cols * n_angles,
        };
        let moves = matches!(
            removal,
            StripeRemoval::Sorting(_) | StripeRemoval::Filtering(_)
        );
        let seeks = removal.sorts() && !moves;
        Ok(StripeKernels {
            removal,
            sorter: Sorter::new(gpu)?,
            median_across: Kernel::new(gpu, SORT_SOURCE, "median_across")?,
            unsort: Kernel::new(gpu, SORT_SOURCE, "unsort")?,
            finder: match seeks {
                false => None,
                true => Some(Finder::new(gpu, n_cols, n_rows)?),
            },
            means: MeanKernels::new(gpu, &removal, n_cols, n_rows)?,
            waves: WaveKernels::new(gpu, &removal, shape)?,
            fits: match &removal {
                StripeRemoval::Fitting(fitting) => Some(FitKernels::new(gpu, fitting, shape)?),
                _ => None,
            },
            wavelets: match &removal {
                StripeRemoval::WaveletFft(filter) => Some(WaveletKernels::new(gpu, filter, shape)?),
                _ => None,
            },
            order: gpu.storage::<u32>("order of the columns", beside)?,
            smooth: gpu.storage::<f32>("smooth columns", beside)?,
        })
    }

    /// Removes the stripes of `columns` `[row, col, angle]` in place; `touched` counts, see `find_stripes.wgsl`. `run` submits what each
    /// batch takes.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`], see [`Batch::launch`].
    pub fn launch(
        &self,
        params: &StripeParams,
        columns: &wgpu::Buffer,
        touched: &wgpu::Buffer,
        run: &mut Submit<'_>,
    ) -> Result<()> {
        match &self.removal {
            StripeRemoval::Sorting(size) => {
                self.sort(params, columns, run)?;
                self.small(params, *size, columns, run)
            }
            StripeRemoval::Large(large) => {
                self.sort(params, columns, run)?;
                self.large(params, large, columns, touched, run)?;
                self.back(params, columns, run)
            }
            StripeRemoval::Dead(dead, residual) => {
                self.dead(params, dead, columns, touched, run)?;
                let Some(large) = residual else {
                    return Ok(());
                };
                self.sort(params, columns, run)?;
                self.large(params, large, columns, touched, run)?;
                self.back(params, columns, run)
            }
            StripeRemoval::All(dead, large, size) => {
                self.dead(params, dead, columns, touched, run)?;
                self.sort(params, columns, run)?;
                self.large(params, large, columns, touched, run)?;
                self.small(params, *size, columns, run)
            }
            StripeRemoval::Interpolation(large) => {
                self.sort(params, columns, run)?;
                let params = StripeParams { keep: 1, ..*params };
                self.large(&params, large, columns, touched, run)?;
                self.back(&params, columns, run)?;
                run(&|batch| self.bridge(batch, &params, columns))
            }
            StripeRemoval::Filtering(filtering) => {
                let waves = self.waves();
                let params = StripeParams {
                    window: filtering.size as u32,
                    ..*params
                };
                run(&|batch| waves.take_away(batch, &params, columns))?;
                self.sort(&params, &waves.low, run)?;
                run(&|batch| {
                    self.median(batch, &params, &waves.low)?;
                    waves.add_ranked(batch, &params, columns, &self.order, &self.smooth)
                })
            }
            StripeRemoval::Fft(_) => {
                let waves = self.waves();
                run(&|batch| waves.take_away(batch, params, columns))
            }
            StripeRemoval::Fitting(_) => self.fits().launch(params, columns, run),
            StripeRemoval::WaveletFft(_) => self.wavelets().launch(params, columns, run),
            removal @ (StripeRemoval::Normalization(_) | StripeRemoval::Regularization(_)) => {
                run(&|batch| self.means().launch(batch, params, removal, columns))
            }
        }
    }

    fn fits(&self) -> &FitKernels {
        self.fits.as_ref().expect("made for fitting")
    }

    fn wavelets(&self) -> &WaveletKernels {
        self.wavelets
            .as_ref()
            .expect("made for the wavelet-Fourier filter")
    }

    fn waves(&self) -> &WaveKernels {
        self.waves
            .as_ref()
            .expect("made for every method that takes waves out")
    }

    fn means(&self) -> &MeanKernels {
        self.means
            .as_ref()
            .expect("made for every method that moves columns by their means")
    }

    fn finder(&self) -> &Finder {
        self.finder
            .as_ref()
            .expect("made for every method that seeks stripes")
    }

    fn sort(
        &self,
        params: &StripeParams,
        columns: &wgpu::Buffer,
        run: &mut Submit<'_>,
    ) -> Result<()> {
        run(&|batch| self.sorter.launch(batch, params, columns, &self.order))
    }

    /// Algorithm 3 behind the sort: medians over `size` columns, each back where its rank came from.
    fn small(
        &self,
        params: &StripeParams,
        size: usize,
        columns: &wgpu::Buffer,
        run: &mut Submit<'_>,
    ) -> Result<()> {
        let params = StripeParams {
            window: size as u32,
            ..*params
        };
        run(&|batch| {
            self.median(batch, &params, columns)?;
            self.unsort(batch, &params, &self.smooth, columns)
        })
    }

    fn median(
        &self,
        batch: &mut Batch<'_>,
        params: &StripeParams,
        columns: &wgpu::Buffer,
    ) -> Result<()> {
        let workgroups = [
            params.n_angles.div_ceil(256),
            params.n_cols.div_ceil(SEGMENT as u32),
            params.n_rows,
        ];
        let buffers = [(2, columns), (4, &self.smooth)];
        batch.launch(&self.median_across, params, &buffers, workgroups)
    }

    fn unsort(
        &self,
        batch: &mut Batch<'_>,
        params: &StripeParams,
        ranked: &wgpu::Buffer,
        columns: &wgpu::Buffer,
    ) -> Result<()> {
        let buffers = [(2, columns), (3, &self.order), (4, ranked)];
        batch.launch(&self.unsort, params, &buffers, samples(params))
    }

    /// The sorted columns themselves back in the order of their angles.
    fn back(
        &self,
        params: &StripeParams,
        columns: &wgpu::Buffer,
        run: &mut Submit<'_>,
    ) -> Result<()> {
        run(&|batch| {
            self.unsort(batch, params, columns, &self.smooth)?;
            batch.copy_within_gpu(&self.smooth, columns, 4 * params.samples() as u64);
            Ok(())
        })
    }

    /// Algorithm 5 on sorted columns.
    fn large(
        &self,
        params: &StripeParams,
        large: &Large,
        columns: &wgpu::Buffer,
        touched: &wgpu::Buffer,
        run: &mut Submit<'_>,
    ) -> Result<()> {
        let finder = self.finder();
        let params = params.of_large(large);
        run(&|batch| self.median(batch, &params, columns))?;
        run(&|batch| {
            batch.launch(
                &finder.compare,
                &params,
                &[
                    (1, columns),
                    (2, &self.smooth),
                    (4, &finder.factors),
                    (5, &finder.excess),
                    (6, &finder.sorted),
                ],
                [params.n_cols, params.n_rows, 1],
            )?;
            self.detect(batch, &params, touched)?;
            batch.launch(
                &finder.replace,
                &params,
                &[
                    (1, columns),
                    (2, &self.smooth),
                    (4, &finder.factors),
                    (7, &finder.flags),
                ],
                samples(&params),
            )
        })
    }

    /// Algorithm 6 on columns in the order of the angles.
    fn dead(
        &self,
        params: &StripeParams,
        dead: &Dead,
        columns: &wgpu::Buffer,
        touched: &wgpu::Buffer,
        run: &mut Submit<'_>,
    ) -> Result<()> {
        let finder = self.finder();
        let params = params.of_dead(dead);
        run(&|batch| {
            batch.launch(
                &finder.restless,
                &params,
                &[(1, columns), (3, &finder.restlessness)],
                [params.n_cols, params.n_rows, 1],
            )?;
            batch.launch(
                &finder.judge,
                &params,
                &[
                    (3, &finder.restlessness),
                    (4, &finder.factors),
                    (5, &finder.excess),
                    (6, &finder.sorted),
                ],
                [params.n_rows, 1, 1],
            )?;
            self.detect(batch, &params, touched)?;
            self.bridge(batch, &params, columns)
        })
    }

    /// Algorithm 4 on the excess of each column.
    fn detect(
        &self,
        batch: &mut Batch<'_>,
        params: &StripeParams,
        touched: &wgpu::Buffer,
    ) -> Result<()> {
        let finder = self.finder();
        let rows = params.along_rows();
        self.sorter
            .launch(batch, &rows, &finder.sorted, &finder.order)?;
        batch.launch(
            &finder.detect,
            params,
            &[
                (5, &finder.excess),
                (6, &finder.sorted),
                (7, &finder.flags),
                (8, touched),
            ],
            [params.n_rows, 1, 1],
        )
    }

    fn bridge(
        &self,
        batch: &mut Batch<'_>,
        params: &StripeParams,
        columns: &wgpu::Buffer,
    ) -> Result<()> {
        let finder = self.finder();
        let buffers = [(1, columns), (7, &finder.flags)];
        batch.launch(&finder.bridge, params, &buffers, samples(params))
    }
}
