//! Corrections of one sinogram on one thread, at the sizes of the peers' table: 1501 x 1024 and 3001 x 2048.
//!
//! Times are CPU times of the thread, so that other work on the machine hardly shows; throughput is in samples. The
//! sinograms are generated: a smooth object, noise, and stripes of every kind, so that no method finds an easy case.
//! Run one size with `cargo bench --bench correct -- 3001`; `python benches/correct.py` runs Algotom beside it.

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tomodelta::config::{StripeConfig, StripeMethod};
use tomodelta::correct::stripe::{Scratch, StripeRemoval};
use tomodelta::correct::{Guard, remove_zingers};

/// CPU time of the calling thread \[ns\], where the system tells it; else wall time.
struct CpuTime;

impl CpuTime {
    fn now() -> f64 {
        // the account of the running thread is brought up to date when it yields
        std::thread::yield_now();
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let on_cpu = text.split(' ').next().and_then(|first| first.parse().ok());
        on_cpu.unwrap_or_else(|| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.unwrap_or_default().as_secs_f64() * 1e9
        })
    }
}

impl Measurement for CpuTime {
    type Intermediate = f64;
    type Value = f64;

    fn start(&self) -> f64 {
        CpuTime::now()
    }

    fn end(&self, started: f64) -> f64 {
        CpuTime::now() - started
    }

    fn add(&self, a: &f64, b: &f64) -> f64 {
        a + b
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        // nanoseconds as well
        WallTime.formatter()
    }
}

/// Transmission `[angle, col]` with noise, four kinds of stripes and some zingers; the same bits every time.
fn sinogram(n_angles: usize, n_cols: usize) -> Vec<f32> {
    let mut state = 7u64;
    let mut uniform = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut sinogram = Vec::with_capacity(n_angles * n_cols);
    for angle in 0..n_angles {
        let turn = angle as f32 / n_angles as f32;
        for col in 0..n_cols {
            let t = 2.0 * col as f32 / n_cols as f32 - 1.0;
            let chord = (0.8 - (t - 0.1 * (3.1 * turn).cos()).powi(2))
                .max(0.0)
                .sqrt();
            let gain = match col % 173 {
                31 => 0.95,
                60 | 61 if turn < 0.45 => 1.06,
                90 => 1.0 + 0.3 * (uniform() - 0.5),
                _ => 1.0 + 0.004 * ((col * 7919 % 101) as f32 / 101.0 - 0.5),
            };
            let zinger = if uniform() < 2e-5 { 1.0 } else { 0.0 };
            let dead = if col % 431 == 120 {
                0.35
            } else {
                (-chord * (1.0 + 0.1 * (9.0 * t + 5.0 * turn).sin())).exp()
            };
            sinogram.push(dead * gain + 0.02 * (uniform() + uniform() - 1.0) + zinger);
        }
    }
    sinogram
}

fn corrections(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("correct");
    group.sample_size(10);
    for (n_angles, n_cols) in [(1501, 1024), (3001, 2048)] {
        let input = sinogram(n_angles, n_cols);
        group.throughput(Throughput::Elements(input.len() as u64));
        let size = format!("{n_angles}x{n_cols}");
        group.bench_function(BenchmarkId::new("zinger", &size), |bencher| {
            bencher.iter_batched_ref(
                || input.clone(),
                |sinogram| remove_zingers(sinogram, n_cols, 0.08, 2, None),
                BatchSize::LargeInput,
            );
        });
        let step = std::f64::consts::PI / (n_angles - 1) as f64;
        let angles: Vec<f64> = (0..n_angles).map(|k| k as f64 * step).collect();
        let guard = Guard::for_scan(&angles, n_cols);
        group.bench_function(BenchmarkId::new("zinger, guarded", &size), |bencher| {
            bencher.iter_batched_ref(
                || input.clone(),
                |sinogram| remove_zingers(sinogram, n_cols, 0.08, 2, Some(guard)),
                BatchSize::LargeInput,
            );
        });
        let methods = [
            ("sorting", StripeMethod::Sorting),
            ("filtering", StripeMethod::Filtering),
            ("fitting", StripeMethod::Fitting),
            ("large", StripeMethod::Large),
            ("dead", StripeMethod::Dead),
            ("all", StripeMethod::All),
            ("interpolation", StripeMethod::Interpolation),
            ("normalization", StripeMethod::Normalization),
            ("wavelet-fft", StripeMethod::WaveletFft),
            ("regularization", StripeMethod::Regularization),
            ("fft", StripeMethod::Fft),
        ];
        for (name, method) in methods {
            let config = StripeConfig {
                method,
                ..StripeConfig::default()
            };
            let Some(removal) = StripeRemoval::from_config(&config) else {
                continue;
            };
            let mut scratch = Scratch::default();
            group.bench_function(BenchmarkId::new(name, &size), |bencher| {
                bencher.iter_batched_ref(
                    || input.clone(),
                    |sinogram| removal.apply(sinogram, n_cols, &mut scratch),
                    BatchSize::LargeInput,
                );
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = corrections
}
criterion_main!(benches);
