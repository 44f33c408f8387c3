//! Fuzzes the doors that take csv files.
#![no_main]

#[path = "../../tests/common/hostile.rs"]
mod hostile;

use hostile::{Kind, digest};

thread_local! {
    static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("the system has a scratch folder");
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    FOLDER.with(|folder| digest(Kind::Csv, folder.path(), bytes));
});
