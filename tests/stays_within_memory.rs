//! Promise: `--memory` is kept, and how much of it there is does not change a single bit of the result.
#![cfg(target_os = "linux")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::{succeeds, text};
use tomodelta::center::AxisFit;
use tomodelta::config::{Config, DeviceChoice};
use tomodelta::gpu::Device;
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
