//! Promise: a full disk, lost rights, read errors or a scan that vanishes end the run with a sentence that names it; what was finished is kept,
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
    let said = error_of(&output).matches("No space left").count();
    assert_eq!(said, 1, "{}", error_of(&output));
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

/// Runs the program with faults injected into its calls of the system on `path`, which are counted for each thread, so there
/// is one; `None`, with a line that says so, where that cannot be done.
fn with_faults(path: &Path, faults: &str, arguments: &[&str]) -> Option<Output> {
    let works = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .status();
    if !works.is_ok_and(|status| status.success()) {
        println!("SKIPPED: no strace, or no right to trace");
        return None;
    }
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-P", text(path)])
        .args(["-e", "trace=pread64,read", "-e", faults])
        .arg(env!("CARGO_BIN_EXE_tomodelta"))
        .args(arguments)
        .args(["--set", "run.threads=1"])
        .output();
    Some(output.expect("strace was there"))
}

#[test]
fn a_scan_that_cannot_be_read_any_more_is_named_and_the_run_goes_on_when_it_can() {
    let scratch = tempfile::tempdir().unwrap();
    let scan = scan(&scratch.path().join("scan"));
    let scan = std::fs::canonicalize(scan).unwrap();
    let expected = scratch.path().join("expected.npy");
    succeeds(arguments(&scan, &expected, &[]));
    for (error, words) in [
        ("EIO", "Input/output error"),
        ("ESTALE", "Stale file handle"),
    ] {
        let path = scratch.path().join(format!("{error}.npy"));
        // the reads of opening and of the flats pass
        let faults = format!("inject=pread64,read:error={error}:when=300+");
        let more = arguments(&scan, &path, &[]);
        let Some(output) = with_faults(&scan, &faults, &more) else {
            return;
        };
        let said = error_of(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.contains("large.nxs"), "{said}");
        assert!(said.contains("frame"), "{said}");
        assert!(!path.exists());
        succeeds(arguments(&scan, &path, &["--resume"]));
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&expected).unwrap());
    }
}

#[test]
fn a_share_that_hangs_is_named_and_the_run_waits_for_it() {
    let scratch = tempfile::tempdir().unwrap();
    let scan = scan(&scratch.path().join("scan"));
    let scan = std::fs::canonicalize(scan).unwrap();
    let expected = scratch.path().join("expected.npy");
    succeeds(arguments(&scan, &expected, &[]));
    let path = scratch.path().join("volume.npy");
    let mut more = arguments(&scan, &path, &["--set", "run.stall_warning=1"]);
    more.retain(|argument| *argument != "-q");
    // one read takes four seconds
    let hang = "inject=pread64:delay_enter=4000000:when=300";
    let Some(output) = with_faults(&scan, hang, &more) else {
        return;
    };
    let said = error_of(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("nothing from") && said.contains("large.nxs for"),
        "{said}"
    );
    assert!(said.contains("answers again after 4 s"), "{said}");
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&expected).unwrap());
}

#[test]
fn lost_rights_end_the_run_with_a_sentence_and_it_goes_on_when_they_are_back() {
    let scratch = tempfile::tempdir().unwrap();
    let scan = scan(&scratch.path().join("scan"));
    let expected = scratch.path().join("expected");
    let path = scratch.path().join("volume");
    let tiff = ["--format", "tiff"];
    let started = Instant::now();
    // under the same name, which every slice holds
    succeeds(arguments(&scan, &path, &tiff));
    let whole = started.elapsed();
    std::fs::rename(&path, &expected).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_tomodelta"))
        .args(arguments(&scan, &path, &tiff))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let building = scratch.path().join(".volume.partial/volume");
    // an attribute that binds the administrator too
    let attribute = |sign: &str| {
        let done = Command::new("chattr")
            .args([sign, text(&building)])
            .output();
        done.is_ok_and(|output| output.status.success())
    };
    let wait = Instant::now();
    while !building.join("slice_00000.tif").exists() && wait.elapsed() < 10 * whole {
        std::thread::sleep(Duration::from_millis(1));
    }
    let taken = attribute("+i");
    let output = child.wait_with_output().unwrap();
    let given = attribute("-i");
    if !taken || output.status.success() {
        println!("SKIPPED: the file system has no such attribute, or the run was over before");
        return;
    }
    assert!(given);
    let said = error_of(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("not permitted") && said.contains("slice_"),
        "{said}"
    );
    assert!(!path.exists());
    let mut again = arguments(&scan, &path, &tiff);
    again.push("--resume");
    again.retain(|argument| *argument != "-q");
    let output = tomodelta(again);
    assert!(output.status.success(), "{}", error_of(&output));
    for entry in std::fs::read_dir(&expected).unwrap() {
        let name = entry.unwrap().file_name();
        let of = |folder: &Path| std::fs::read(folder.join(&name)).unwrap();
        assert!(of(&path) == of(&expected), "{name:?} differs");
    }
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
