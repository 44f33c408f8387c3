//! Promise: `sample_projections` is what `simulate --preset sample` writes, bit for bit.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{sample, succeeds, text};

/// Every file below `folder` with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(here) = left.pop() {
        for entry in std::fs::read_dir(&here).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_path_buf();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The sample as it is kept: without the page about it and without runs that a user wrote beside it.
fn kept() -> BTreeMap<PathBuf, Vec<u8>> {
    let mut kept = files(&sample());
    let beside = ["README.md", "overlay.png"].map(Path::new);
    kept.retain(|name, _| !beside.contains(&name.as_path()) && !name.starts_with("out"));
    kept
}

/// The first file that one side lacks or that differs.
fn difference(a: &BTreeMap<PathBuf, Vec<u8>>, b: &BTreeMap<PathBuf, Vec<u8>>) -> Option<PathBuf> {
    a.keys()
        .chain(b.keys())
        .find(|name| a.get(*name) != b.get(*name))
        .cloned()
}

#[test]
fn the_sample_is_written_again_byte_for_byte() {
    let scratch = tempfile::tempdir().unwrap();
    let again = scratch.path().join("again");
    succeeds([
        "simulate",
        text(&again),
        "--preset",
        "sample",
        "--threads",
        "1",
        "-q",
    ]);
    let (kept, again) = (kept(), files(&again));
    assert_eq!(difference(&kept, &again), None);
    for name in [
        "series.toml",
        "truth.json",
        "voltage.csv",
        "pristine.nxs",
        "stripped/angles.txt",
    ] {
        assert!(kept.contains_key(Path::new(name)), "{name} is missing");
    }
    let bytes: usize = kept.values().map(Vec::len).sum();
    assert!(bytes < 10_000_000, "{bytes} bytes are too many for git");
    // the comparison sees one bit
    let mut spoiled = again.clone();
    spoiled.get_mut(Path::new("pristine.nxs")).unwrap()[100_000] ^= 1;
    assert_eq!(
        difference(&kept, &spoiled),
        Some(PathBuf::from("pristine.nxs"))
    );
}

#[test]
fn another_seed_gives_another_sample() {
    let scratch = tempfile::tempdir().unwrap();
    let other = scratch.path().join("other");
    succeeds([
        "simulate",
        text(&other),
        "--preset",
        "sample",
        "--seed",
        "7",
        "-q",
    ]);
    assert!(difference(&kept(), &files(&other)).is_some());
}

#[test]
fn the_page_of_the_sample_outlives_writing_it_again() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("sample");
    let simulate = |more: &[&str]| {
        let mut args = vec![
            "simulate",
            text(&folder),
            "--preset",
            "sample",
            "--cols",
            "48",
            "--rows",
            "24",
            "--angles",
            "7",
            "-q",
        ];
        args.extend_from_slice(more);
        succeeds(&args);
    };
    simulate(&[]);
    let page = folder.join("README.md");
    std::fs::write(&page, "about it").unwrap();
    simulate(&["--overwrite"]);
    assert_eq!(std::fs::read_to_string(&page).unwrap(), "about it");
}
