#![allow(unsafe_code, missing_docs)]
use std::time::Instant;
use ndarray::Array3;
use tomodelta::config::{ReconstructConfig, ReconstructMethod};
use tomodelta::gpu::Device;
use tomodelta::reconstruct::geometry::{Grid, InPlaneMotion, rays};
use tomodelta::reconstruct::{Reconstructor, SliceJob};
fn cpu() -> f64 {
    unsafe { let mut r: libc::rusage = std::mem::zeroed(); libc::getrusage(libc::RUSAGE_SELF, &mut r);
    (r.ru_utime.tv_sec + r.ru_stime.tv_sec) as f64 + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) as f64 * 1e-6 }
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let m = if args[1] == "fbp" { ReconstructMethod::Fbp } else { ReconstructMethod::Fourier };
    let (na, n): (usize, usize) = (args[2].parse().unwrap(), args[3].parse().unwrap());
    for rows in args[4].split(',').map(|r| r.parse::<usize>().unwrap()) {
        let angles: Vec<f64> = (0..na).map(|k| k as f64 * std::f64::consts::PI / (na - 1) as f64).collect();
        let mask = if args.get(5).is_some_and(|v| v == "mask") { Some(n as f64 / 2.0) } else { None };
        let job = SliceJob { n_cols: n, rays: rays(&angles, InPlaneMotion::default()), grid: if let Some(c) = args.get(6) { let c: usize = c.parse().unwrap(); Grid::square(n).crop(&(0..c), &(0..c)) } else { Grid::square(n) },
            config: ReconstructConfig { method: m, ..Default::default() }, scale: 1.0, mask_radius_px: mask };
        let sino = Array3::from_shape_fn((rows, na, n), |(z, a, c)| ((z * 7 + a * 13 + c * 29) % 97) as f32 / 97.0);
        let mut out = Array3::zeros((rows, job.grid.n_y, job.grid.n_x));
        let axes = vec![(n as f64 - 1.0) / 2.0 + 7.3; rows];
        let mut r = Reconstructor::new(job, &Device::Cpu).unwrap();
        for _ in 0..2 {
            let (w, c) = (Instant::now(), cpu());
            r.slab(sino.view(), &axes, out.view_mut()).unwrap();
            let (w, c) = (w.elapsed().as_secs_f64(), cpu() - c);
            println!("{} {na}x{n} rows {rows}: cpu {:.3} s/slice, wall {:.3}, GUPS/cpu {:.2} wall {:.2}", args[1], c / rows as f64, w / rows as f64,
                (rows * na * n * n) as f64 / c * 1e-9, (rows * na * n * n) as f64 / w * 1e-9);
        }
    }
}
