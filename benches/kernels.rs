//! Speed of the reconstruction of one slab, filter included.
//!
//! `cargo bench --bench kernels`; throughput is in voxel updates (angles x voxels x slices) per second.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array3;
use tomodelta::config::{ReconstructConfig, ReconstructMethod};
use tomodelta::gpu::Device;
use tomodelta::reconstruct::geometry::{Grid, InPlaneMotion, rays};
use tomodelta::reconstruct::{Reconstructor, SliceJob};

/// Half a turn of `n_angles`, the full square slice without a mask.
fn job(n_angles: usize, n_cols: usize, method: ReconstructMethod) -> SliceJob {
    let angles: Vec<f64> = (0..n_angles)
        .map(|k| k as f64 * std::f64::consts::PI / (n_angles - 1) as f64)
        .collect();
    SliceJob {
        n_cols,
        rays: rays(&angles, InPlaneMotion::default()),
        grid: Grid::square(n_cols),
        config: ReconstructConfig {
            method,
            ..ReconstructConfig::default()
        },
        scale: 1.0,
        mask_radius_px: None,
        support: None,
    }
}

fn slabs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reconstruct");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(8));
    for (n_angles, n_cols) in [(721, 512), (1501, 1024), (3001, 2048)] {
        for method in [ReconstructMethod::Fbp, ReconstructMethod::Fourier] {
            for rows in [1, 2, 5, 16, 32] {
                // a minute and more for each
                if n_cols == 2048 && (method == ReconstructMethod::Fbp || rows > 5) {
                    continue;
                }
                let sinograms = Array3::from_shape_fn((rows, n_angles, n_cols), |(z, a, c)| {
                    ((z * 7 + a * 13 + c * 29) % 97) as f32 / 97.0
                });
                let axes = vec![(n_cols as f64 - 1.0) / 2.0 + 7.3; rows];
                let mut out = Array3::zeros((rows, n_cols, n_cols));
                let mut engine = Reconstructor::new(job(n_angles, n_cols, method), &Device::Cpu)
                    .expect("a valid job");
                group.throughput(Throughput::Elements(
                    (rows * n_angles * n_cols * n_cols) as u64,
                ));
                let name = format!("{method:?} {n_angles}x{n_cols}");
                group.bench_function(BenchmarkId::new(name, rows), |bencher| {
                    bencher.iter(|| {
                        engine
                            .slab(sinograms.view(), &axes, out.view_mut())
                            .expect("shapes fit")
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, slabs);
criterion_main!(benches);
