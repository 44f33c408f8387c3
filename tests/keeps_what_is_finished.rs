//! Promise: a full disk or a scan that vanishes ends the run with a sentence that names it; what was finished is kept,
//! and once the trouble is over `--resume` ends with the same bytes as a run without trouble.
#![cfg(target_os = "linux")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use common::{succeeds, text, tomodelta};

/// A memory disk of a given size; gone when dropped.
struct TinyDisk(PathBuf);

impl TinyDisk {
    /// `None`, with a line that says so, where this user may not mount.
    fn mount(at: &Path, size: &str) -> Option<TinyDisk> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs", text(at)])
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(TinyDisk(at.to_path_buf()));
        }
        println!("SKIPPED: no right to mount a tmpfs");
        None
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let done = Command::new("mount")
            .args(["-o", &options, text(&self.0)])
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn arguments<'a>(scan: &'a Path, output: &'a Path, more: &'a [&'a str]) -> Vec<&'a str> {
    let mut all = vec![
        "reconstruct",
        text(scan),
        "--output",
        text(output),
        "--axis",
        "31.5",
        "--device",
        "cpu",
        "-q",
    ];
    all.extend(more);
    all
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A scan 64 wide and 400 high: its volume has 6.5 MB.
fn scan(folder: &Path) -> PathBuf {
    succeeds([
        "simulate",
        text(folder),
        "--preset",
        "large",
        "--cols",
        "64",
        "--rows",
        "400",
        "--angles",
        "91",
        "-q",
    ]);
    folder.join("large.nxs")
}

#[test]
fn a_full_disk_ends_the_run_with_a_sentence_and_more_room_lets_it_go_on() {
    let scratch = tempfile::tempdir().unwrap();
    let scan = scan(&scratch.path().join("scan"));
    let Some(disk) = TinyDisk::mount(&scratch.path().join("disk"), "4m") else {
        return;
    };
    let expected = scratch.path().join("expected.npy");
    succeeds(arguments(&scan, &expected, &[]));
    let path = disk.0.join("volume.npy");
    // the same command without --resume, as a user would type it
    let output = tomodelta(arguments(&scan, &path, &[]));
    assert_eq!(output.status.code(), Some(1), "{}", error_of(&output));
    assert!(
        error_of(&output).contains("No space left"),
        "{}",
        error_of(&output)
    );
    assert!(
        error_of(&output).contains("volume.npy"),
        "{}",
        error_of(&output)
    );
    assert!(!path.exists(), "half a volume has the name of a whole one");
    disk.resize("40m");
    // without -q: the run says what it kept
    let mut again = arguments(&scan, &path, &["--resume"]);
    again.retain(|argument| *argument != "-q");
    let output = tomodelta(again);
    assert!(output.status.success(), "{}", error_of(&output));
    assert!(
        error_of(&output).contains("slices are stored, kept"),
        "{}",
        error_of(&output)
    );
    assert!(
        std::fs::read(&path).unwrap() == std::fs::read(&expected).unwrap(),
        "the resumed volume differs"
    );
}

#[test]
fn a_full_scratch_disk_costs_time_only() {
    let scratch = tempfile::tempdir().unwrap();
    let scan = scan(&scratch.path().join("scan"));
    let Some(disk) = TinyDisk::mount(&scratch.path().join("disk"), "1m") else {
        return;
    };
    let expected = scratch.path().join("expected.npy");
    succeeds(arguments(
        &scan,
        &expected,
        &["--set", "run.scratch=\"none\""],
    ));
    let path = scratch.path().join("volume.npy");
    let folder = format!("run.scratch={:?}", text(&disk.0));
    // one slab after the other of few rows, so that a copy would pay
    let output = tomodelta(arguments(&scan, &path, &["--set", &folder]));
    assert!(output.status.success(), "{}", error_of(&output));
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&expected).unwrap());
}

#[test]
fn a_scan_that_vanishes_is_named_and_its_return_lets_the_run_go_on() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("frames");
    std::fs::create_dir(&folder).unwrap();
    let mut frames = Vec::new();
    for index in 0..180u16 {
        let path = folder.join(format!("p_{index:04}.tif"));
        let file = std::fs::File::create(&path).unwrap();
        let counts: Vec<u16> = (0..64 * 300u32)
            .map(|i| 20_000 + ((i * 7 + u32::from(index) * 13) % 4001) as u16)
            .collect();
        let mut encoder = tiff::encoder::TiffEncoder::new(file).unwrap();
        encoder
            .write_image::<tiff::encoder::colortype::Gray16>(64, 300, &counts)
            .unwrap();
        frames.push(path);
    }
    let flats = text(&frames[0]).to_string();
    let more = ["--flats", &flats, "--angles", "0:180:180"];
    let expected = scratch.path().join("expected.npy");
    let started = Instant::now();
    succeeds(arguments(&folder, &expected, &more));
    let whole = started.elapsed();
    let path = scratch.path().join("volume.npy");
    let child = Command::new(env!("CARGO_BIN_EXE_tomodelta"))
        .args(arguments(&folder, &path, &more))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(whole.mul_f64(0.4).max(Duration::from_millis(20)));
    let away = scratch.path().join("away");
    std::fs::rename(&folder, &away).unwrap();
    let output = child.wait_with_output().unwrap();
    std::fs::rename(&away, &folder).unwrap();
    if output.status.success() {
        println!("SKIPPED: the run was over before its scan vanished");
        return;
    }
    assert_eq!(output.status.code(), Some(2), "{}", error_of(&output));
    assert!(
        error_of(&output).contains("frames"),
        "{}",
        error_of(&output)
    );
    let mut again = arguments(&folder, &path, &more);
    again.push("--resume");
    succeeds(again);
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&expected).unwrap());
}
