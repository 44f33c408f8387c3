//! Promise: `--memory` is kept, and how much of it there is does not change a single bit of the result.
#![cfg(target_os = "linux")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::{succeeds, text};
use tomodelta::center::AxisFit;
use tomodelta::config::{Config, DeviceChoice, VolumeFormat};
use tomodelta::gpu::Device;
use tomodelta::io::volume::{self, VolumeMeta, VoxelType};
use tomodelta::pipeline::geometry::ScanGeometry;
use tomodelta::pipeline::reconstruct_scan::Motion;
use tomodelta::{io, plan};

/// Runs the program and returns the largest resident memory that it had \[bytes\].
#[expect(
    unsafe_code,
    reason = "the peak of one finished child is given by wait4 alone; files of /proc vanish with the process"
)]
#[expect(clippy::zombie_processes, reason = "wait4 waits for it")]
fn peak_memory(args: &[&str]) -> u64 {
    let child = Command::new(env!("CARGO_BIN_EXE_tomodelta"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts");
    let pid = libc::pid_t::try_from(child.id()).expect("process ids are small");
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which zero is a value; wait4 writes only to the two places given, and the
    // child is waited for by nobody else (std waits only when asked).
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(
            libc::wait4(pid, &raw mut status, 0, &raw mut usage),
            pid,
            "the child can be waited for"
        );
        usage
    };
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "{args:?} ended with status {status}"
    );
    u64::try_from(usage.ru_maxrss).expect("memory is not negative") * 1024
}

/// Slices that the plan takes at a time under a cap.
fn slab_rows(scan: &Path, memory: &str) -> usize {
    let overrides = [("run.memory", memory), ("run.format", "npy")]
        .map(|(key, value)| (key.to_string(), format!("{value:?}")));
    let config = Config::load(None, &overrides).unwrap();
    let scan = io::open_scan(scan, &config.input, None).unwrap();
    let axis = AxisFit {
        axis_px: (scan.n_cols() as f64 - 1.0) / 2.0,
        ..AxisFit::default()
    };
    let rows = 0..scan.n_rows();
    let geometry = ScanGeometry::of_scan(&scan, &axis, &rows, &config.reconstruct).unwrap();
    let device = Device::open(DeviceChoice::Cpu).unwrap();
    let motion = Motion::default();
    plan::single_slab(&config, &geometry, &motion, scan.pixel_size_um, &device)
        .unwrap()
        .rows
}

fn same_bytes(a: &Path, b: &Path) -> bool {
    std::fs::read(a).unwrap() == std::fs::read(b).unwrap()
}

#[test]
fn a_scan_larger_than_the_room_is_reconstructed_within_it_and_bit_for_bit() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("scan");
    // 98 MB of counts, 196 MB of line integrals, 67 MB of volume: more than fits beside the program in 256 MiB
    succeeds([
        "simulate",
        text(&folder),
        "--preset",
        "large",
        "--cols",
        "512",
        "--rows",
        "64",
        "--angles",
        "1501",
        "-q",
    ]);
    let scan = folder.join("large.nxs");
    let reconstruct = |output: &Path, memory: &str, more: &[&str]| {
        let mut args = vec![
            "reconstruct",
            text(&scan),
            "--output",
            text(output),
            "--axis",
            "255.5",
            "--device",
            "cpu",
            "--memory",
            memory,
            "-q",
        ];
        args.extend_from_slice(more);
        peak_memory(&args)
    };
    let path = |name: &str| scratch.path().join(name);
    let (tight, tighter, roomy) = (path("tight.npy"), path("tighter.npy"), path("roomy.npy"));

    let heights = ["192MiB", "256MiB", "4GiB"].map(|memory| slab_rows(&scan, memory));
    assert!(
        heights[0] < heights[1] && heights[1] < heights[2] && heights[2] == 64,
        "three caps are to mean three slab heights: {heights:?}"
    );
    for (output, memory, cap) in [
        (&tight, "256MiB", 256u64 << 20),
        (&tighter, "192MiB", 192 << 20),
    ] {
        let peak = reconstruct(output, memory, &[]);
        println!("{} MiB under {memory}", peak >> 20);
        assert!(peak <= cap, "{} MiB under a cap of {memory}", peak >> 20);
    }
    // what is measured is what the cap holds down
    let free = reconstruct(&roomy, "4GiB", &[]);
    assert!(free > 256 << 20, "{} MiB without a cap", free >> 20);

    assert!(same_bytes(&tight, &roomy), "256 MiB and 4 GiB differ");
    assert!(same_bytes(&tighter, &roomy), "192 MiB and 4 GiB differ");

    // into the chunked format, whose writer holds whole chunks, and by the method that the plan did not choose
    let zarr = path("middle.ome.zarr");
    let peak = reconstruct(
        &zarr,
        "384MiB",
        &["--method", "fbp", "--crop", "128..384,128..384"],
    );
    println!("{} MiB under 384MiB, into OME-Zarr", peak >> 20);
    assert!(peak <= 384 << 20, "{} MiB into OME-Zarr", peak >> 20);
    let moved = path("moved.npy");
    succeeds([
        "reconstruct",
        text(&scan),
        "--output",
        text(&moved),
        "--axis",
        "255.6",
        "--rows",
        "0..2",
        "--device",
        "cpu",
        "-q",
    ]);
    let start = |path: &Path| common::read_npy_part(path, 2 * 512 * 512);
    assert!(
        start(&moved) != start(&roomy),
        "another axis is to give another volume"
    );
}

/// A cylinder of value 1 with noise, and in `changed` a cube of 20 voxels that is brighter by 1; slices of 400 x 400.
fn cylinder(path: &Path, depth: usize, seed: u32, changed: bool) {
    let meta = VolumeMeta {
        shape: [depth, 400, 400],
        voxel_type: VoxelType::F32,
        unit: "1/cm".into(),
        voxel_size_um: Some(1.0),
        first_row: 0,
        provenance: serde_json::Value::Null,
    };
    let mut writer = volume::create(path, VolumeFormat::Npy, &meta, false).unwrap();
    let mut number = seed;
    for z in 0..depth {
        let slice = ndarray::Array3::from_shape_fn((1, 400, 400), |(_, y, x)| {
            let (dx, dy) = (x as f32 - 199.5, y as f32 - 199.5);
            let steps = if z / 50 % 2 == 0 { 1.0 } else { 1.5 };
            let body = if dx.hypot(dy) < 190.0 { steps } else { 0.0 };
            let cube = changed && [x, y, z].iter().all(|at| (100..120).contains(at));
            // the sum of four uniform numbers is nearly normal
            let mut noise = 0.0;
            for _ in 0..4 {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise += (number >> 8) as f32 / (1 << 24) as f32 - 0.5;
            }
            body + f32::from(u8::from(cube)) + 0.05 * noise
        });
        writer.write(z, slice.view()).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn the_difference_of_volumes_larger_than_the_room_stays_within_it_and_slabs_do_not_matter() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    // 141 MB each
    let depth = 220;
    cylinder(&path("a.npy"), depth, 1, false);
    cylinder(&path("b.npy"), depth, 2, true);
    let difference = |output: &str, memory: &str| {
        peak_memory(&[
            "difference",
            text(&path("a.npy")),
            text(&path("b.npy")),
            "--output",
            text(&path(output)),
            "--align",
            "none",
            "--format",
            "npy",
            "--memory",
            memory,
            "-q",
        ])
    };
    // less than both volumes together
    let peak = difference("tight", "256MiB");
    println!("{} MiB under 256MiB", peak >> 20);
    assert!(peak <= 256 << 20, "{} MiB", peak >> 20);
    let free = difference("roomy", "4GiB");
    assert!(free > peak, "what is measured is what the cap holds down");
    for name in [
        "difference.npy",
        "labels.npy",
        "grains.csv",
        "per_height.csv",
    ] {
        let of = |folder: &str| path(folder).join(name);
        assert!(
            same_bytes(&of("tight"), &of("roomy")),
            "{name} depends on --memory"
        );
    }
    let grains = std::fs::read_to_string(path("tight").join("grains.csv")).unwrap();
    // one cube of 8000 voxels
    let first = grains.lines().nth(1).expect("the cube is found");
    assert!(first.contains(",8000,"), "{first}");
}
