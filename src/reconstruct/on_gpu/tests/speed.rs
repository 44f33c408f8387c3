//! How fast the variants of back-projection are on a software driver, whose work is done by this process: run by hand, the figures
//! are in benches/RESULTS.md.

#![expect(
    clippy::print_stdout,
    reason = "figures are for the person who runs the test"
)]

use super::*;

/// CPU time of all threads of this process \[s\], by the scheduler's clock, which does not count other programs.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the threads as Linux lists them");
    let of_task = |task: std::io::Result<std::fs::DirEntry>| -> Option<f64> {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    tasks.filter_map(of_task).sum::<f64>() * 1e-9
}

#[test]
#[ignore = "a minute: cargo test --release --lib on_gpu::tests::speed -- --ignored --nocapture"]
fn back_projection_per_core_on_the_software_driver() {
    let Some(gpu) = gpu() else { return };
    assert_eq!(gpu.info().kind, AdapterKind::Software, "{}", gpu.describe());
    for (n, n_angles) in [(256, 181), (512, 361), (1024, 301)] {
        for variant in [
            GpuKernel::Plain,
            GpuKernel::Wide,
            GpuKernel::Half,
            GpuKernel::Texture,
            GpuKernel::TextureHalf,
        ] {
            let case = Case {
                mask_radius_px: None,
                ..Case::new(n, n_angles, 8)
            };
            let mut job = case.job();
            job.config.gpu_kernel = variant;
            let plan = FilterPlan::new(&job).unwrap();
            let chosen = Cut::new(&plan, &job.grid, n_angles, AdapterKind::Software, 128 << 20);
            let cut = Cut { packs: 2, ..chosen };
            let mut engine = GpuEngine::with_cut(Arc::clone(&gpu), &job, plan, cut, false).unwrap();
            let mut out = volume(&case);
            // compiles, and leaves filtered rows
            engine
                .slab(sinograms(&case).view(), &case.axes(), out.view_mut())
                .unwrap();
            let angles = engine.blocks[0].angles.len();
            let mut best: f64 = 0.0;
            for _ in 0..3 {
                let before = cpu_seconds();
                let Back::Fbp(back) = &mut engine.back else {
                    panic!("back-projection was asked for")
                };
                let mut runner = Runner {
                    gpu: &gpu,
                    timings: &mut None,
                };
                let filtered = &engine.filter_buffers.filtered;
                back.add_block(&mut runner, &mut engine.cut, 0, 2, angles, filtered)
                    .unwrap();
                gpu.wait("back-projection").unwrap();
                let updates = (8 * n * n * angles) as f64;
                best = best.max(updates / (cpu_seconds() - before) * 1e-9);
            }
            println!("{n} x {n}, {angles} angles, {variant:?}: {best:.3} updates/ns of CPU time");
        }
    }
}
