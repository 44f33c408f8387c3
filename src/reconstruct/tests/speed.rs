//! How fast the methods are: run by hand, the figures are in benches/RESULTS.md.

use super::*;
use crate::reconstruct::fbp::CpuFbp;
use crate::reconstruct::fbp::simd::Level;

/// CPU seconds of `work`, the least of `repeats` runs on one thread: the scheduler's clock does not count other programs.
fn cpu_seconds(repeats: usize, mut work: impl FnMut() + Send) -> f64 {
    let on_cpu = || -> f64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat")
            .expect("the scheduler's clock of Linux");
        text.split_whitespace()
            .next()
            .unwrap()
            .parse::<f64>()
            .unwrap()
            * 1e-9
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    pool.install(|| {
        (0..repeats)
            .map(|_| {
                let start = on_cpu();
                work();
                on_cpu() - start
            })
            .fold(f64::INFINITY, f64::min)
    })
}

fn made(rows: usize, n_angles: usize, n_cols: usize) -> Array3<f32> {
    Array3::from_shape_fn((rows, n_angles, n_cols), |(z, a, c)| {
        ((z * 7 + a * 13 + c * 29) % 97) as f32 / 97.0
    })
}

/// Sizes as `ANGLESxCOLUMNS` from `SIZES`, or these.
fn sizes(default: &str) -> Vec<(usize, usize)> {
    let text = std::env::var("SIZES").unwrap_or(default.into());
    text.split(',')
        .map(|size| {
            let (angles, cols) = size.split_once('x').expect("ANGLESxCOLUMNS");
            (angles.parse().unwrap(), cols.parse().unwrap())
        })
        .collect()
}

#[test]
#[ignore = "minutes: cargo test --release --lib tests::speed::back_projection -- --ignored --nocapture"]
fn back_projection_per_core() {
    for (n_angles, n) in sizes("1501x1024") {
        for level in Level::available() {
            for rows in [1, 2, 4, 8, 12, 16, 24, 32] {
                if level == Level::Plain && rows != 16 {
                    continue;
                }
                let sinograms = made(rows, n_angles, n);
                let axes = vec![(n as f64 - 1.0) / 2.0 + 7.3; rows];
                let mut out = Array3::zeros((rows, n, n));
                let mut job = job(n, &half_turn(n_angles));
                job.mask_radius_px = None;
                let mut engine = CpuFbp::with_level(&job, level).unwrap();
                let seconds = cpu_seconds(3, || {
                    engine.slab(sinograms.view(), &axes, out.view_mut());
                });
                let updates = (n_angles * n * n * rows) as f64;
                println!(
                    "{n_angles} x {n}, {:8} {rows:2} rows: {:.3} CPU-s per slice, {:.2} updates/ns",
                    level.name(),
                    seconds / rows as f64,
                    1e-9 * updates / seconds
                );
            }
        }
    }
}

#[test]
#[ignore = "minutes: cargo test --release --lib tests::speed::fourier -- --ignored --nocapture"]
fn fourier_per_core() {
    for (n_angles, n) in sizes("1501x1024,3001x2048") {
        for rows in [1, 2, 4] {
            let sinograms = made(rows, n_angles, n);
            let axes = vec![(n as f64 - 1.0) / 2.0 + 7.3; rows];
            let mut out = Array3::zeros((rows, n, n));
            let mut job = job(n, &half_turn(n_angles));
            job.config.method = ReconstructMethod::Fourier;
            let mut engine = Reconstructor::new(job, &Device::Cpu).unwrap();
            let seconds = cpu_seconds(3, || {
                engine
                    .slab(sinograms.view(), &axes, out.view_mut())
                    .unwrap();
            });
            println!(
                "{n_angles} x {n}, Fourier, {rows} rows: {:.3} CPU-s per slice",
                seconds / rows as f64
            );
        }
    }
}
