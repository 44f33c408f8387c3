//! Promise: bad input gets one sentence that names the file or key and the way out, exit code 2, and leaves nothing
//! that looks like a result.

mod common;

use std::path::Path;

use common::{refuses, sample, succeeds, text};

fn series_with(folder: &Path, content: &str) -> std::path::PathBuf {
    let path = folder.join("series.toml");
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn usage_errors_exit_with_2() {
    refuses(2, &["unexpected argument"], ["inspect", "--frobnicate"]);
    refuses(
        2,
        &["sigmaa", "difference.sigma"],
        ["config", "--set", "difference.sigmaa=3"],
    );
    refuses(
        2,
        &["difference.connectivity", "6, 18 or 26"],
        ["config", "--set", "difference.connectivity=7"],
    );
    refuses(2, &["run.memory"], ["config", "--memory", "plenty"]);
    refuses(2, &["run.device"], ["config", "--device", "quantum"]);
}

#[test]
fn missing_and_empty_inputs_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("v.npy");
    let reconstruct = |path: &Path, words: &[&str]| {
        refuses(
            2,
            words,
            [
                "reconstruct",
                text(path),
                "--output",
                text(&out),
                "--axis",
                "10",
                "-q",
            ],
        );
        assert!(!out.exists());
    };
    reconstruct(&scratch.path().join("nowhere.nxs"), &["nowhere.nxs"]);
    let empty = scratch.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    reconstruct(&empty, &["empty"]);
    let zero = scratch.path().join("zero.nxs");
    std::fs::write(&zero, b"").unwrap();
    reconstruct(&zero, &["zero.nxs"]);
    let text_file = scratch.path().join("notes.h5");
    std::fs::write(
        &text_file,
        b"this is no HDF5 file at all, whatever its name says",
    )
    .unwrap();
    reconstruct(&text_file, &["notes.h5"]);
    let npy = scratch.path().join("short.npy");
    std::fs::write(&npy, b"\x93NUMPY").unwrap();
    refuses(
        2,
        &["short.npy"],
        [
            "reconstruct",
            text(&npy),
            "--angles",
            "0:180:3",
            "--output",
            text(&out),
            "--axis",
            "1",
            "-q",
        ],
    );
}

#[test]
fn angles_that_do_not_fit_say_both_counts() {
    let scratch = tempfile::tempdir().unwrap();
    let npy = scratch.path().join("sino.npy");
    let mut bytes = Vec::new();
    {
        use npyz::WriterBuilder;
        let mut writer = npyz::WriteOptions::<f32>::new()
            .default_dtype()
            .shape(&[1, 7, 16])
            .writer(&mut bytes)
            .begin_nd()
            .unwrap();
        writer.extend((0..7 * 16).map(|k| (k % 5) as f32)).unwrap();
        writer.finish().unwrap();
    }
    std::fs::write(&npy, bytes).unwrap();
    let out = scratch.path().join("v.npy");
    refuses(
        2,
        &["sino.npy", "7", "9"],
        [
            "reconstruct",
            text(&npy),
            "--angles",
            "0:180:9",
            "--output",
            text(&out),
            "--axis",
            "7.5",
            "-q",
        ],
    );
    refuses(
        2,
        &["--angles"],
        [
            "reconstruct",
            text(&npy),
            "--output",
            text(&out),
            "--axis",
            "7.5",
            "-q",
        ],
    );
    succeeds([
        "reconstruct",
        text(&npy),
        "--angles",
        "0:180:7",
        "--output",
        text(&out),
        "--axis",
        "7.5",
        "--device",
        "cpu",
        "-q",
    ]);
    refuses(
        2,
        &["v.npy", "--overwrite"],
        [
            "reconstruct",
            text(&npy),
            "--angles",
            "0:180:7",
            "--output",
            text(&out),
            "--axis",
            "7.5",
            "-q",
        ],
    );
}

#[test]
fn a_series_is_judged_before_any_work() {
    let scratch = tempfile::tempdir().unwrap();
    let run = |content: &str, words: &[&str]| {
        let path = series_with(scratch.path(), content);
        refuses(2, words, ["run", text(&path), "-q"]);
        assert!(
            !scratch.path().join("out").exists(),
            "no output for a series that cannot run"
        );
    };
    run("[series]\nname = 'a'\n", &["scan"]);
    run("[[scan]]\nname = 'a'\npath = 'gone.nxs'\n", &["gone.nxs"]);
    run("[[scan]]\nname = '../a'\npath = 'x'\n", &["scan[0].name"]);
    run(
        "[[scan]]\nname = 'a'\npath = 'x'\nreference = 'b'\n",
        &["scan[0].reference", "b"],
    );
    run("[seris]\n", &["seris", "series"]);
    run("[series\n", &["series.toml"]);
}

#[test]
fn too_little_memory_names_what_is_needed() {
    let path = sample().join("series.toml");
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    refuses(
        2,
        &["--memory"],
        [
            "run",
            text(&path),
            "--output",
            text(&out),
            "--memory",
            "1MiB",
            "-q",
        ],
    );
    assert!(!out.exists());
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let path = sample().join("series.toml");
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("occupied");
    std::fs::write(&file, b"a file, not a folder").unwrap();
    let out = file.join("out");
    let output = common::tomodelta(["run", text(&path), "--output", text(&out), "-q"]);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("occupied"));
    assert_eq!(std::fs::read(&file).unwrap(), b"a file, not a folder");
}
