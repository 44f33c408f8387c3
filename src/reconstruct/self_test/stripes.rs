//! How fast stripes are removed on the GPU.

use std::time::Instant;

use serde::Serialize;

use super::throughput::{KernelTime, sum_up};
use crate::correct::stripe::StripeRemoval;
use crate::correct::stripe::on_gpu::{StripeKernels, StripeParams};
use crate::error::Result;
use crate::gpu::{Gpu, Timer, Timing};

/// Detector rows at once, at most.
const ROWS: usize = 4;

/// All algorithms with the windows of the config's defaults.
#[must_use]
pub fn all_stripes() -> StripeRemoval {
    let config = crate::config::StripeConfig {
        method: crate::config::StripeMethod::All,
        ..crate::config::StripeConfig::default()
    };
    // only `none` is none
    StripeRemoval::from_config(&config).unwrap_or(StripeRemoval::Sorting(config.small_size))
}

/// Speed of the combined method at one size.
#[derive(Debug, Clone, Serialize)]
pub struct StripeRate {
    /// Detector columns.
    pub n_cols: usize,
    /// Projections.
    pub n_angles: usize,
    /// Detector rows at once.
    pub n_rows: usize,
    /// Kernels; empty without a clock on the GPU.
    pub kernels: Vec<KernelTime>,
    /// Wall time of all \[s\].
    pub wall_seconds: f64,
    /// Samples sorted in a second, by the clock of the GPU \[1e9/s\].
    pub sorted_gsamples_per_s: Option<f64>,
    /// Bytes read and written in a second by the kernels that read every sample once, `unsort` and `compare` \[1e9/s\].
    pub gb_per_s: Option<f64>,
}

impl std::fmt::Display for StripeRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "stripes (all)     {} columns x {}: ",
            self.n_cols, self.n_angles
        )?;
        if let Some(sorted) = self.sorted_gsamples_per_s {
            write!(f, "{sorted:.2} Gsamples/s sorted, ")?;
        }
        if let Some(bytes) = self.gb_per_s {
            write!(f, "{bytes:.2} GB/s, ")?;
        }
        write!(
            f,
            "{:.3} ms per row",
            1e3 * self.wall_seconds / self.n_rows as f64
        )
    }
}

/// Times the removal of all stripes from sinograms of `n_cols` columns and `n_angles` angles on the GPU.
///
/// # Errors
/// [`crate::Error::Gpu`]
pub fn stripe_rate(gpu: &Gpu, n_cols: usize, n_angles: usize) -> Result<StripeRate> {
    let samples = n_cols * n_angles;
    let n_rows = ((gpu.max_bytes() / (4 * samples) as u64) as usize).clamp(1, ROWS);
    let mut state = 5u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        0.5 + 0.03 * (state >> 8) as f32 / (1 << 24) as f32
    };
    let values: Vec<f32> = (0..n_rows * samples).map(|_| noise()).collect();
    let columns = gpu.storage_from("columns", &values)?;
    let touched = gpu.storage::<u32>("touched", 4)?;
    let kernels = StripeKernels::new(gpu, all_stripes(), [n_rows, n_cols, n_angles])?;
    let params = StripeParams {
        n_rows: n_rows as u32,
        n_cols: n_cols as u32,
        n_angles: n_angles as u32,
        ..StripeParams::default()
    };
    let run = |timed: bool| -> Result<(f64, Vec<Timing>)> {
        gpu.write(&columns, 0, &values)?;
        gpu.wait("stripes")?;
        let (start, mut timings) = (Instant::now(), Vec::new());
        kernels.launch(&params, &columns, &touched, &mut |record| {
            let timer = timed.then(|| Timer::new(gpu));
            let mut batch = match &timer {
                Some(timer) => gpu.batch("stripes").timed(timer),
                None => gpu.batch("stripes"),
            };
            record(&mut batch)?;
            batch.submit();
            if let Some(timer) = &timer {
                timings.extend(timer.read(gpu)?);
            }
            Ok(())
        })?;
        gpu.wait("stripes")?;
        Ok((start.elapsed().as_secs_f64(), timings))
    };
    // the first launch of a kernel takes longer
    run(false)?;
    let (wall_seconds, _) = run(false)?;
    let kernels = sum_up(&run(gpu.has_timestamps())?.1);
    let of = |names: &[&str]| -> Option<f64> {
        let of = kernels.iter().filter(|time| names.contains(&&*time.kernel));
        Some(of.map(|time| time.seconds).sum::<f64>()).filter(|&seconds| seconds > 0.0)
    };
    let sorting = of(&["sort_within", "merge_across", "merge_within"]);
    // values and order in and values out; two images in
    let moving = of(&["unsort", "compare"]);
    let all = (n_rows * samples) as f64;
    Ok(StripeRate {
        n_cols,
        n_angles,
        n_rows,
        wall_seconds,
        sorted_gsamples_per_s: sorting.map(|seconds| all / seconds / 1e9),
        gb_per_s: moving.map(|seconds| all * (12 + 8) as f64 / seconds / 1e9),
        kernels,
    })
}
