//! `[run]`: machine and output.

use serde::{Deserialize, Serialize};

use super::rules::Table;
use crate::error::{Error, Result};

/// `[run]`: machine and output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// `auto`, `cpu`, `gpu`, `gpu:N` or `gpu:N,M`.
    pub device: String,
    /// Threads; 0: one per core.
    pub threads: usize,
    /// Folder for turned copies of compressed scans; empty: the output folder; `none`: no copies.
    pub scratch: String,
    /// Cap on host memory, e.g. `12GiB`; empty: three quarters of what is free.
    pub memory: String,
    /// Format of the volumes.
    pub format: VolumeFormat,
    /// File for the timeline of the run (Chrome trace format); empty: none.
    pub trace: String,
    /// A file that gives or takes nothing for so long is named \[s\]; 0: never.
    pub stall_warning: f64,
}

impl RunConfig {
    /// Keys that change how the work is done, not what comes out: a resumed run may have others.
    pub const FREE_KEYS: [&str; 5] = ["threads", "memory", "scratch", "trace", "stall_warning"];
}

impl Default for RunConfig {
    fn default() -> Self {
        RunConfig {
            device: "auto".into(),
            threads: 0,
            scratch: String::new(),
            memory: String::new(),
            format: VolumeFormat::Zarr,
            trace: String::new(),
            stall_warning: 30.0,
        }
    }
}

/// How volumes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum VolumeFormat {
    /// OME-Zarr 0.5: chunked, compressed, multi-scale.
    Zarr,
    /// One f32 TIFF per slice.
    Tiff,
    /// HDF5, dataset `/volume`.
    Hdf5,
    /// One `.npy` file `[z, y, x]`.
    Npy,
}

impl RunConfig {
    pub(super) fn validate(&self) -> Result<()> {
        Table("run").within("stall_warning", self.stall_warning, 0.0..=1e6)?;
        self.memory_bytes()?;
        self.device_choice()?;
        Ok(())
    }

    /// `--memory` in bytes; `None` when it is left to the plan.
    ///
    /// # Errors
    /// [`Error::Config`] for anything but a number with an optional unit.
    pub fn memory_bytes(&self) -> Result<Option<u64>> {
        let text = self.memory.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let split = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "k" | "kib" => 1024.0,
            "kb" => 1e3,
            "m" | "mib" => 1024.0 * 1024.0,
            "mb" => 1e6,
            "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
            "gb" => 1e9,
            "t" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
            "tb" => 1e12,
            _ => f64::NAN,
        };
        match number.parse::<f64>() {
            Ok(number) if (number * factor).is_finite() && number * factor >= 1.0 => {
                Ok(Some((number * factor) as u64))
            }
            _ => Err(Error::config(
                "run.memory",
                text,
                "must be a size such as 12GiB, 500MB or 8e9 written as 8GB",
            )),
        }
    }

    /// `--device` taken apart.
    ///
    /// # Errors
    /// [`Error::Config`] for anything but `auto`, `cpu`, `gpu`, `gpu:N` and `gpu:N,M` with different numbers.
    pub fn device_choice(&self) -> Result<DeviceChoice> {
        let text = self.device.trim();
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "gpu" => Ok(DeviceChoice::Gpu(None)),
            _ => text
                .strip_prefix("gpu:")
                .and_then(gpu_numbers)
                .ok_or_else(|| {
                    Error::config(
                        "run.device",
                        text,
                        "must be auto, cpu, gpu, gpu:N or gpu:N,M with different numbers (see `tomodelta devices`)",
                    )
                }),
        }
    }
}

/// `N` or `N,M,..`, each once.
fn gpu_numbers(text: &str) -> Option<DeviceChoice> {
    let numbers: Vec<usize> = text
        .split(',')
        .map(|number| number.trim().parse().ok())
        .collect::<Option<_>>()?;
    let twice = |(place, number): (usize, &usize)| numbers[..place].contains(number);
    match numbers[..] {
        [number] => Some(DeviceChoice::Gpu(Some(number))),
        _ if numbers.iter().enumerate().any(twice) => None,
        _ => Some(DeviceChoice::Several(numbers)),
    }
}

/// Which device a run asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A real GPU if there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, the best one or the one of this number; a software adapter counts here.
    Gpu(Option<usize>),
    /// Several GPUs, two or more different numbers.
    Several(Vec<usize>),
}
