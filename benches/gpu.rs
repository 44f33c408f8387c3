//! Checks every kernel against its twin and times it: `cargo bench --bench gpu -- [gpu|gpu:N] [SIDExPROJECTIONS]...`
//!
//! Not criterion: each number comes from the clock of the GPU over a whole step of the reconstruction, and beside it
//! stands the wall time from memory to memory. One JSON object goes to stdout, the table to stderr.

use std::process::ExitCode;

use tomodelta::config::{DeviceChoice, RunConfig};
use tomodelta::gpu::{Device, list};
use tomodelta::reconstruct::self_test::self_test;

fn size(text: &str) -> Option<(usize, usize)> {
    let (side, projections) = text.split_once('x')?;
    Some((
        side.parse().ok().filter(|&n| n > 0)?,
        projections.parse().ok().filter(|&n| n > 0)?,
    ))
}

fn run() -> Result<bool, String> {
    let mut choice = DeviceChoice::Gpu(None);
    let mut sizes = Vec::new();
    // cargo adds --bench
    for argument in std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
    {
        if let Some(size) = size(&argument) {
            sizes.push(size);
        } else {
            let config = RunConfig {
                device: argument.clone(),
                ..RunConfig::default()
            };
            choice = config.device_choice().map_err(|_| {
                format!("{argument} is neither gpu, gpu:N nor a size such as 1024x1501")
            })?;
        }
    }
    for adapter in list() {
        eprintln!(
            "gpu:{} {} ({}, {}), {:?}",
            adapter.number, adapter.name, adapter.backend, adapter.driver, adapter.kind
        );
        eprintln!(
            "      {:?}; {}",
            adapter.limits,
            adapter.features.join(", ")
        );
    }
    let Device::Gpu(gpu) = Device::open(choice).map_err(|error| error.to_string())? else {
        return Err("cpu has no kernels to test; give gpu or gpu:N".into());
    };
    let report = self_test(&gpu, &sizes).map_err(|error| error.to_string())?;
    eprint!("{report}");
    println!(
        "{}",
        serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?
    );
    Ok(report.passed())
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
