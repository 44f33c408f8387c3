//! Promise: a run that is killed at any moment goes on with `--resume`, and what it leaves is what an uninterrupted run
//! leaves, bit for bit; a signal stops it within seconds, with a sentence.
#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{succeeds, text};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// A series of two scans, high enough for several slabs and layers of shards.
fn series(folder: &Path) -> PathBuf {
    let scans = folder.join("scans");
    succeeds([
        "simulate",
        text(&scans),
        "--preset",
        "demo",
        "--cols",
        "48",
        "--rows",
        "200",
        "--angles",
        "31",
        "-q",
    ]);
    scans.join("series.toml")
}

fn run(series: &Path, out: &Path, format: &str, resume: bool) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tomodelta"));
    command.args([
        "run",
        text(series),
        "--output",
        text(out),
        "--format",
        format,
        "--device",
        "cpu",
        "-q",
    ]);
    command.args(["--set", "center.heights=3", "--memory", "1GiB"]);
    if resume {
        command.arg("--resume");
    }
    command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Every file below `folder` but those that hold the time of the run; folders of broken-off work must be gone.
fn results(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(current) = folders.pop() {
        for entry in std::fs::read_dir(current).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(
                !name.ends_with(".partial"),
                "{} was left behind",
                path.display()
            );
            if path.is_dir() {
                folders.push(path);
            } else if !["run.json", "report.html"].contains(&name.as_str()) {
                files.insert(
                    path.strip_prefix(folder).unwrap().to_path_buf(),
                    std::fs::read(&path).unwrap(),
                );
            }
        }
    }
    files
}

fn same(found: &BTreeMap<PathBuf, Vec<u8>>, expected: &BTreeMap<PathBuf, Vec<u8>>) {
    let names = |of: &BTreeMap<PathBuf, Vec<u8>>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{} differs", name.display());
    }
}

/// Kills living runs `kills` times in all and lets each go on until it ends by itself; then compares the results.
fn survive(kills: usize, seed: u64) {
    let scratch = tempfile::tempdir().unwrap();
    let series = series(scratch.path());
    let out = scratch.path().join("out");
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut done = 0;
    for format in ["zarr", "hdf5", "tiff", "npy"].into_iter().cycle() {
        if done == kills {
            return;
        }
        let started = Instant::now();
        finish(run(&series, &out, format, false));
        let whole = started.elapsed();
        let expected = results(&out);
        std::fs::remove_dir_all(&out).unwrap();
        let mut moments = Vec::new();
        while done < kills {
            let mut child = run(&series, &out, format, !moments.is_empty());
            let moment = whole.mul_f64(random.random_range(0.02..0.7));
            std::thread::sleep(moment);
            if child.try_wait().unwrap().is_some() {
                finish(child);
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            moments.push(moment);
            done += 1;
        }
        finish(run(&series, &out, format, true));
        same(&results(&out), &expected);
        println!("{format}: {whole:?} uninterrupted; killed after {moments:?}; same bytes");
        std::fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn killed_runs_end_with_the_same_bytes() {
    survive(3, 1);
}

/// Whether a file or folder below `folder` has a name that starts with `start`.
fn appeared(folder: &Path, start: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| {
        entry.file_name().to_string_lossy().starts_with(start) || appeared(&entry.path(), start)
    })
}

#[test]
fn killed_in_every_stage_the_difference_included_a_run_ends_with_the_same_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    let series = series(scratch.path());
    let out = scratch.path().join("out");
    for format in ["hdf5", "zarr"] {
        finish(run(&series, &out, format, false));
        let expected = results(&out);
        std::fs::remove_dir_all(&out).unwrap();
        // what is hidden beside each output while it is made
        let mut struck = Vec::new();
        for (index, building) in [".volume.", ".noise.", ".difference.", ".labels."]
            .into_iter()
            .enumerate()
        {
            let mut child = run(&series, &out, format, index > 0);
            let started = Instant::now();
            while !appeared(&out, building) && child.try_wait().unwrap().is_none() {
                assert!(started.elapsed() < Duration::from_secs(120), "{building}");
                std::thread::sleep(Duration::from_millis(1));
            }
            if child.try_wait().unwrap().is_none() {
                struck.push(building);
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        finish(run(&series, &out, format, true));
        same(&results(&out), &expected);
        println!("{format}: killed while {struck:?} was made; same bytes");
        assert!(struck.contains(&".difference."), "{struck:?}");
        std::fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
#[ignore = "minutes"]
fn fifty_kills_at_random_moments() {
    survive(50, 50);
}

#[test]
fn a_signal_stops_within_seconds_and_says_how_to_go_on() {
    let scratch = tempfile::tempdir().unwrap();
    let series = series(scratch.path());
    let out = scratch.path().join("out");
    for (signal, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let child = run(&series, &out, "zarr", signal == libc::SIGINT);
        // into the work: the folder is claimed before it
        let started = Instant::now();
        while !out.join("config.toml").exists() && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(300));
        let pid = child.id().to_string();
        let name = if signal == libc::SIGTERM {
            "-TERM"
        } else {
            "-INT"
        };
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
        let sent = Instant::now();
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(
            sent.elapsed() < Duration::from_secs(8),
            "{:?}",
            sent.elapsed()
        );
        assert!(error.contains("--resume"), "{error}");
    }
    finish(run(&series, &out, "zarr", true));
    assert!(out.join("report.html").exists());
    results(&out);
}
