//! What the tests of the program share: running it, its folders, real scans.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs the program with `args`.
pub(crate) fn tomodelta<I, S>(args: I) -> Output
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    Command::new(env!("CARGO_BIN_EXE_tomodelta"))
        .args(args)
        .output()
        .expect("the program starts")
}

/// Runs the program and requires success; returns its standard output.
#[track_caller]
pub(crate) fn succeeds<I, S>(args: I) -> String
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let output = tomodelta(args);
    assert!(
        output.status.success(),
        "exit {:?}\n{}\n{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("the program prints UTF-8")
}

/// Runs the program and requires exit code `code` with one sentence on standard error that holds every word of `words`.
#[track_caller]
pub(crate) fn refuses<I, S>(code: i32, words: &[&str], args: I)
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let output = tomodelta(args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    // the last: libraries under the GPU driver write lines of their own before it
    let sentence = error
        .lines()
        .rfind(|line| line.starts_with("error: "))
        .unwrap_or_else(|| panic!("no error line in {error:?}"));
    for word in words {
        assert!(
            sentence.contains(word),
            "{word:?} is missing from {sentence:?}"
        );
    }
    assert!(!error.contains("panicked"), "{error}");
}

/// A folder of the shared real data; `None`, with a line that says so, where it is absent.
pub(crate) fn real_data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/data")
        .join(name);
    if path.exists() {
        return Some(path);
    }
    println!("SKIPPED: {name} is not on this machine");
    None
}

/// The sample series of the repository.
pub(crate) fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sample_projections")
}

/// Path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// A `.npy` of f32 as shape and values.
pub(crate) fn read_npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).expect("the file is there");
    let file = npyz::NpyFile::new(&bytes[..]).expect("it is .npy");
    let shape = file.shape().iter().map(|&n| n as usize).collect();
    (shape, file.into_vec().expect("it holds f32"))
}

/// The first `n` values of a `.npy` of f32.
pub(crate) fn read_npy_part(path: &Path, n: usize) -> Vec<f32> {
    let file = std::io::BufReader::new(std::fs::File::open(path).expect("the file is there"));
    let file = npyz::NpyFile::new(file).expect("it is .npy");
    file.data::<f32>()
        .expect("it holds f32")
        .take(n)
        .collect::<Result<_, _>>()
        .expect("it is that long")
}
