//! Fuzzes the doors that take hdf5 files.
#![no_main]

#[path = "../../tests/common/hostile.rs"]
mod hostile;

use hostile::{Kind, digest};

thread_local! {
    static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("the system has a scratch folder");
}

libfuzzer_sys::fuzz_target!(
    // the fuzzer takes every panic for a finding, those of the library that become errors too
    init: tomodelta::io::hdf5::silence_guarded_panics(),
    |bytes: &[u8]| {
        FOLDER.with(|folder| digest(Kind::Hdf5, folder.path(), bytes));
    }
);
