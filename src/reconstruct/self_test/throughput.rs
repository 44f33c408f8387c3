//! How fast slabs of slices are made: by the clock of the GPU and from memory to memory.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use ndarray::{Array3, s};
use serde::Serialize;

use super::Case;
use crate::config::{GpuKernel, OutlierKind, ReconstructMethod};
use crate::correct::Guard;
use crate::correct::line_integrals::{CountSlab, LevelledColumn, LockedPixel, ZingerRule};
use crate::error::Result;
use crate::gpu::{Gpu, Timing};
use crate::reconstruct::on_gpu::GpuEngine;
use crate::reconstruct::ramp_filter::traffic_bytes;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Filtered back-projection with this variant of the kernel.
    Fbp(GpuKernel),
    /// The Fourier method.
    Fourier,
}

impl Kind {
    fn name(self) -> String {
        match self {
            Kind::Fbp(variant) => format!("fbp {}", serde_json::json!(variant)).replace('"', ""),
            Kind::Fourier => "fourier".into(),
        }
    }

    fn case(self, n: usize, n_angles: usize) -> (Case, crate::reconstruct::SliceJob) {
        let case = Case {
            mask_radius_px: None,
            ..Case::new(n, n_angles, 4)
        };
        let mut job = case.job();
        match self {
            Kind::Fbp(variant) => {
                job.config.method = ReconstructMethod::Fbp;
                job.config.gpu_kernel = variant;
            }
            Kind::Fourier => job.config.method = ReconstructMethod::Fourier,
        }
        (case, job)
    }
}

/// Time of all launches of a kernel in one step.
#[derive(Debug, Clone, Serialize)]
pub struct KernelTime {
    /// Entry point.
    pub kernel: String,
    /// Launches.
    pub launches: usize,
    /// By the clock of the GPU \[s\].
    pub seconds: f64,
}

/// Speed at one size.
#[derive(Debug, Clone, Serialize)]
pub struct Rate {
    /// Method, and variant of its kernel.
    pub method: String,
    /// Columns of the detector and side of the slice.
    pub n: usize,
    /// Projections.
    pub n_angles: usize,
    /// Slices reconstructed.
    pub n_slices: usize,
    /// Slices of a step, to which `kernels` belongs.
    pub step_slices: usize,
    /// Kernels of one step; empty without a clock on the GPU.
    pub kernels: Vec<KernelTime>,
    /// Voxel updates (side^2 x projections x slices) per second of the back-projection kernel \[1e9/s\].
    pub backproject_gups: Option<f64>,
    /// Bytes read and written per second by the kernels of the filter \[1e9/s\].
    pub filter_gb_per_s: Option<f64>,
    /// Voxel updates, done or replaced by the Fourier method, per second of wall time from memory to memory \[1e9/s\].
    pub wall_gups: f64,
    /// Wall time \[s\].
    pub wall_seconds: f64,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:<17} {n} x {n} x {}: ",
            self.method,
            self.n_angles,
            n = self.n
        )?;
        if let Some(gups) = self.backproject_gups {
            write!(f, "back-projection {gups:.2} GUPS, ")?;
        }
        if let Some(bytes) = self.filter_gb_per_s {
            write!(f, "filter {bytes:.2} GB/s, ")?;
        }
        let all: f64 = self.kernels.iter().map(|kernel| kernel.seconds).sum();
        if all > 0.0 {
            write!(
                f,
                "kernels {:.3} ms per slice, ",
                1e3 * all / self.step_slices as f64
            )?;
        }
        write!(
            f,
            "from memory to memory {:.3} ms per slice ({:.2} GUPS)",
            1e3 * self.wall_seconds / self.n_slices as f64,
            self.wall_gups
        )
    }
}

const FILTER: [&str; 7] = [
    "extend_rows",
    "forward_global",
    "forward_local",
    "inverse_local",
    "inverse_global",
    "gather_filtered",
    "gather_filtered_half",
];

/// The launches of each kernel together, in the order of the first of them.
pub(super) fn sum_up(timings: &[Timing]) -> Vec<KernelTime> {
    let mut kernels: Vec<KernelTime> = Vec::new();
    for timing in timings {
        match kernels
            .iter_mut()
            .find(|kernel| kernel.kernel == timing.kernel)
        {
            Some(kernel) => {
                kernel.launches += 1;
                kernel.seconds += timing.seconds;
            }
            None => kernels.push(KernelTime {
                kernel: timing.kernel.clone(),
                launches: 1,
                seconds: timing.seconds,
            }),
        }
    }
    kernels
}

/// Times slabs of `n` x `n` slices from line integrals.
///
/// # Errors
/// [`crate::Error::Gpu`]
pub fn rate(gpu: &Arc<Gpu>, n: usize, n_angles: usize, kind: Kind) -> Result<Rate> {
    let (case, job) = kind.case(n, n_angles);
    let mut engine = GpuEngine::new(Arc::clone(gpu), &job)?;
    let step = engine.rows_at_once();
    let n_slices = 2 * step;
    let sinograms = Array3::from_shape_fn((n_slices, n_angles, n), |(row, angle, col)| {
        ((row * 31 + angle * 17 + col * 7) % 101) as f32 / 101.0
    });
    let axes = vec![case.axis_px; n_slices];
    let mut volume = Array3::zeros((n_slices, n, n));
    let mut run = |engine: &mut GpuEngine, rows: usize| {
        engine.slab(
            sinograms.slice(s![..rows, .., ..]),
            &axes[..rows],
            volume.slice_mut(s![..rows, .., ..]),
        )
    };
    // compiles and warms up
    run(&mut engine, 4)?;
    let start = Instant::now();
    run(&mut engine, n_slices)?;
    let wall_seconds = start.elapsed().as_secs_f64();
    let updates = (n * n) as f64 * n_angles as f64;
    let mut kernels: Vec<KernelTime> = Vec::new();
    if gpu.has_timestamps() {
        engine.keep_timings();
        run(&mut engine, step)?;
        kernels = sum_up(&engine.take_timings());
    }
    let seconds = |wanted: &dyn Fn(&str) -> bool| -> Option<f64> {
        let of = kernels.iter().filter(|kernel| wanted(&kernel.kernel));
        Some(of.map(|kernel| kernel.seconds).sum::<f64>()).filter(|&seconds| seconds > 0.0)
    };
    let back = seconds(&|kernel| kernel.starts_with("backproject"));
    let filter = seconds(&|kernel| FILTER.contains(&kernel));
    let traffic = match kind {
        Kind::Fbp(_) => engine
            .filter_params()
            .iter()
            .map(traffic_bytes)
            .sum::<u64>(),
        Kind::Fourier => 0,
    };
    Ok(Rate {
        method: kind.name(),
        n,
        n_angles,
        n_slices,
        step_slices: step,
        backproject_gups: back.map(|back| updates * step as f64 / back / 1e9),
        filter_gb_per_s: filter
            .filter(|_| traffic > 0)
            .map(|filter| traffic as f64 / filter / 1e9),
        kernels,
        wall_gups: updates * n_slices as f64 / wall_seconds / 1e9,
        wall_seconds,
    })
}

/// Time of a whole scan whose counts and slices are in memory.
#[derive(Debug, Clone, Serialize)]
pub struct Whole {
    /// Method, and variant of its kernel.
    pub method: String,
    /// Side of the slice, projections, slices of the scan.
    pub size: [usize; 3],
    /// Slices that were made in the time given.
    pub made: usize,
    /// Wall time of those \[s\].
    pub seconds: f64,
    /// The same for all slices of the scan, in proportion where not all were made \[s\].
    pub whole_seconds: f64,
    /// Wall time per slab of the first and the last one \[s\]: they differ where the GPU gets hot.
    pub slab_seconds: [f64; 2],
}

impl std::fmt::Display for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [n, n_angles, n_slices] = self.size;
        write!(
            f,
            "{:<17} counts to slices, {n_angles} x {n_slices} x {n}: {:.1} s{} ({:.3} ms per slice, {:.0} GUPS)",
            self.method,
            self.whole_seconds,
            match self.made == n_slices {
                true => String::new(),
                false => format!(" in proportion to {} slices", self.made),
            },
            1e3 * self.seconds / self.made as f64,
            (n * n * n_angles) as f64 * self.made as f64 / self.seconds / 1e9
        )
    }
}

/// The same with a broad stripe over `columns` of a row, which begins and ends with a step.
pub(crate) fn with_broad_stripe(slab: CountSlab, row: u32, columns: Range<u32>) -> CountSlab {
    // the step between the columns before and behind `col`
    let edge = |col: u32| LockedPixel {
        at: [row, col, 1, 0],
        columns: [col - 1, col - 2, col, col + 1],
        weights: [-1.5, 0.5, 1.5, -0.5],
    };
    let levelled = columns.clone().map(|col| LevelledColumn {
        row,
        col,
        left: 0,
        share: ((col - columns.start) as f32 + 0.5) / columns.len() as f32,
    });
    CountSlab {
        most_broad: [2, columns.len()],
        edges: vec![edge(columns.start), edge(columns.end)],
        levelled: levelled.collect(),
        ..slab
    }
}

/// Counts of a uniform beam with some structure, `rows` detector rows, corrected as by default: guarded zingers, and one column in
/// a hundred (or the middle one) locked.
pub(crate) fn counts(n: usize, n_angles: usize, rows: usize) -> CountSlab {
    let locked = |row: usize| {
        let columns = (n / 2..n)
            .step_by(50)
            .filter(move |&col| col > 1 && col + 2 < n);
        columns.map(move |col| LockedPixel {
            at: [row as u32, col as u32, 0, 0],
            columns: [col - 2, col - 1, col + 1, col + 2].map(|col| col as u32),
            weights: [-1.0 / 6.0, 2.0 / 3.0, 2.0 / 3.0, -1.0 / 6.0],
        })
    };
    let locked: Vec<LockedPixel> = (0..rows).flat_map(locked).collect();
    CountSlab {
        counts: Array3::from_shape_fn((n_angles, rows, n), |(angle, row, col)| {
            (9_000 + (row * 31 + angle * 17 + col * 7) % 101 * 50) as u16
        }),
        dark: vec![100.0; rows * n],
        open_beams: vec![20_000.0; rows * n],
        good: (0..rows)
            .flat_map(|_| (0..n as u32).map(|col| col | col << 16))
            .collect(),
        in_time: vec![[0; 4]; n_angles],
        n_groups: 1,
        zinger: (n > 2 && n_angles > 2).then_some(ZingerRule {
            kind: OutlierKind::Bright,
            threshold: 0.5,
            size: 2,
            guard: Some(Guard { reach: 3 }),
        }),
        cubic: true,
        most_locked: locked.len().checked_div(rows).unwrap_or(0),
        locked,
        min_transmission: 1e-4,
        ..CountSlab::default()
    }
}

/// Makes up to `n_slices` slices of `n` x `n` from counts in memory, slab by slab, for at most about `seconds`; with all stripes
/// removed on the way where `stripes` is set.
///
/// # Errors
/// [`crate::Error::Gpu`]
pub fn whole(
    gpu: &Arc<Gpu>,
    [n, n_angles, n_slices]: [usize; 3],
    kind: Kind,
    stripes: bool,
    seconds: f64,
) -> Result<Whole> {
    let (case, job) = kind.case(n, n_angles);
    let mut engine = GpuEngine::new(Arc::clone(gpu), &job)?;
    // as many slices as a slab of a run has at most; a slab of counts stays below 1 GB
    let fits = (1usize << 30) / (2 * n * n_angles);
    let step = engine.rows_at_once();
    let rows = (fits / step * step)
        .clamp(step, 128.max(step))
        .min(n_slices.max(1));
    let slab = CountSlab {
        stripe: stripes.then(super::stripes::all_stripes),
        ..counts(n, n_angles, rows)
    };
    let axes = vec![case.axis_px; rows];
    let mut volume = Array3::<f32>::zeros((rows, n, n));
    engine.slab_of_counts(&slab, &axes, volume.view_mut())?;
    let (start, mut made, mut slab_seconds) = (Instant::now(), 0, [0.0; 2]);
    while made < n_slices && (made == 0 || start.elapsed().as_secs_f64() < seconds) {
        let before = Instant::now();
        engine.slab_of_counts(&slab, &axes, volume.view_mut())?;
        slab_seconds[1] = before.elapsed().as_secs_f64();
        if made == 0 {
            slab_seconds[0] = slab_seconds[1];
        }
        made += rows;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Whole {
        method: match stripes {
            true => format!("{}, stripes", kind.name()),
            false => kind.name(),
        },
        size: [n, n_angles, n_slices],
        made: made.min(n_slices),
        whole_seconds: seconds * n_slices as f64 / made as f64,
        seconds: seconds * made.min(n_slices) as f64 / made as f64,
        slab_seconds,
    })
}

/// Bytes read and written per second by copies of a large buffer \[1e9/s\]: what a memory bandwidth is compared with.
///
/// # Errors
/// [`crate::Error::Gpu`]
pub fn copy_gb_per_s(gpu: &Gpu) -> Result<f64> {
    let bytes = gpu.max_bytes().min(1 << 30) / 4 * 4;
    let from = gpu.storage::<u8>("from", bytes as usize)?;
    let to = gpu.storage::<u8>("to", bytes as usize)?;
    let mut best: f64 = 0.0;
    for turn in 0..4 {
        let copies = if turn == 0 { 1 } else { 4 };
        gpu.wait("copy")?;
        let start = Instant::now();
        let mut batch = gpu.batch("copy");
        for _ in 0..copies {
            batch.copy_within_gpu(&from, &to, bytes);
        }
        gpu.wait_for(&batch.submit(), "copy")?;
        let rate = (2 * copies * bytes) as f64 / start.elapsed().as_secs_f64() / 1e9;
        if turn > 0 {
            best = best.max(rate);
        }
    }
    Ok(best)
}
