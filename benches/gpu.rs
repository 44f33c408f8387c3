//! Checks every kernel against its twin and times all of them and their variants:
//! `cargo bench --bench gpu -- [gpu|gpu:N] [SIDExPROJECTIONS]... [whole:SIDExPROJECTIONSxSLICES]... [seconds:N]`
//!
//! Not criterion: each number comes from the clock of the GPU over a whole step of the reconstruction, and beside it
//! stands the wall time from memory to memory. `whole` makes slices from counts in memory for at most `seconds` per method and says
//! so where that was not the whole scan. A part that fails is reported and does not stop the others. Each part goes to stdout as one
//! line of JSON as soon as it is done (the first says which GPUs there are), and to stderr as text, so that a run that is cut
//! short loses only the part at work.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};
use tomodelta::config::{DeviceChoice, GpuKernel, RunConfig};
use tomodelta::gpu::{AdapterKind, Device, Gpu, list};
use tomodelta::reconstruct::self_test::stripes::stripe_rate;
use tomodelta::reconstruct::self_test::throughput::{copy_gb_per_s, rate, whole};
use tomodelta::reconstruct::self_test::{Kind, self_test};

const VARIANTS: [Kind; 6] = [
    Kind::Fbp(GpuKernel::Plain),
    Kind::Fbp(GpuKernel::Wide),
    Kind::Fbp(GpuKernel::Half),
    Kind::Fbp(GpuKernel::Texture),
    Kind::Fbp(GpuKernel::TextureHalf),
    Kind::Fourier,
];

/// What was asked for.
struct Wanted {
    choice: DeviceChoice,
    sizes: Vec<(usize, usize)>,
    wholes: Vec<[usize; 3]>,
    seconds: f64,
}

fn numbers(text: &str) -> Option<Vec<usize>> {
    text.split('x')
        .map(|part| part.parse().ok().filter(|&n| n > 0))
        .collect()
}

fn wanted() -> Result<Wanted, String> {
    let mut wanted = Wanted {
        choice: DeviceChoice::Gpu(None),
        sizes: Vec::new(),
        wholes: Vec::new(),
        seconds: 45.0,
    };
    // cargo adds --bench
    for argument in std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
    {
        let unknown = || {
            format!(
                "{argument} is neither gpu, gpu:N, a size such as 1024x1501, whole:2048x3001x2048 nor seconds:45"
            )
        };
        if let Some(size) = argument.strip_prefix("whole:") {
            let size = numbers(size).and_then(|size| size.try_into().ok());
            wanted.wholes.push(size.ok_or_else(unknown)?);
        } else if let Some(seconds) = argument.strip_prefix("seconds:") {
            wanted.seconds = seconds.parse().map_err(|_| unknown())?;
        } else if let Some(&[side, projections]) = numbers(&argument).as_deref() {
            wanted.sizes.push((side, projections));
        } else {
            let config = RunConfig {
                device: argument.clone(),
                ..RunConfig::default()
            };
            wanted.choice = config.device_choice().map_err(|_| unknown())?;
        }
    }
    Ok(wanted)
}

/// Whether all parts came to their end.
#[derive(Default)]
struct Found {
    failed: bool,
}

/// One line, written at once.
fn show(part: &Value) {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{part}").and_then(|()| out.flush());
    if let Err(error) = written {
        eprintln!("  cannot write the results: {error}");
    }
}

impl Found {
    /// Writes what a part found, or why it failed.
    fn keep<T: serde::Serialize>(
        &mut self,
        what: &str,
        part: tomodelta::error::Result<T>,
        say: impl FnOnce(&T),
    ) -> Option<T> {
        match part {
            Ok(part) => {
                say(&part);
                show(&json!({ "part": what, "found": &part }));
                Some(part)
            }
            Err(error) => {
                eprintln!("  {what}: FAILED, {error}");
                show(&json!({ "part": what, "error": error.to_string() }));
                self.failed = true;
                None
            }
        }
    }
}

fn goal(what: &str, found: f64, wanted: f64, unit: &str, less_is_better: bool) {
    let reached = if less_is_better {
        found <= wanted
    } else {
        found >= wanted
    };
    eprintln!(
        "  {what}: {found:.1} {unit}, goal {} {wanted:.1}: {}",
        if less_is_better {
            "at most"
        } else {
            "at least"
        },
        if reached { "reached" } else { "MISSED" }
    );
}

fn measure(gpu: &Arc<Gpu>, wanted: &Wanted) -> Found {
    let mut found = Found::default();
    let checks = self_test(gpu, &[]);
    if let Some(report) = found.keep("checks", checks, |report| eprint!("{report}")) {
        found.failed |= !report.passed();
    }
    let copy = found.keep("copy", copy_gb_per_s(gpu), |rate| {
        eprintln!("  copies of a buffer: {rate:.0} GB/s read and written");
    });
    let (mut best_gups, mut best_filter): (f64, f64) = (0.0, 0.0);
    for &(n, n_angles) in &wanted.sizes {
        for kind in VARIANTS {
            let part = rate(gpu, n, n_angles, kind);
            if let Some(rate) = found.keep(&format!("{kind:?} {n}x{n_angles}"), part, |rate| {
                eprintln!("  {rate}");
            }) {
                // the goal is one of single precision
                if matches!(kind, Kind::Fbp(GpuKernel::Plain | GpuKernel::Wide)) {
                    best_gups = best_gups.max(rate.backproject_gups.unwrap_or(0.0));
                    best_filter = best_filter.max(rate.filter_gb_per_s.unwrap_or(0.0));
                }
            }
        }
    }
    for &(n, n_angles) in &wanted.sizes {
        let part = stripe_rate(gpu, n, n_angles);
        found.keep(&format!("stripes {n}x{n_angles}"), part, |rate| {
            eprintln!("  {rate}");
        });
    }
    let mut times = Vec::new();
    for &size in &wanted.wholes {
        for (kind, stripes) in [
            (Kind::Fourier, false),
            (Kind::Fbp(GpuKernel::Plain), false),
            (Kind::Fbp(GpuKernel::Wide), false),
            (Kind::Fourier, true),
        ] {
            let part = whole(gpu, size, kind, stripes, wanted.seconds);
            let name = format!(
                "whole {kind:?}{} {size:?}",
                if stripes { " with stripes" } else { "" }
            );
            let kept = found.keep(&name, part, |whole| eprintln!("  {whole}"));
            if let Some(whole) = kept.filter(|_| !stripes) {
                times.push((kind, size, whole.whole_seconds));
            }
        }
    }
    eprintln!("goals, set for an H200:");
    if !wanted.sizes.is_empty() {
        goal(
            "back-projection in single precision",
            best_gups,
            1000.0,
            "GUPS",
            false,
        );
        if let Some(copy) = copy {
            goal(
                "filter against copies",
                100.0 * best_filter / copy,
                60.0,
                "%",
                false,
            );
        }
    }
    let best = |fourier: bool| {
        let of = times.iter().filter(|(kind, size, _)| {
            (*kind == Kind::Fourier) == fourier && *size == [2048, 3001, 2048]
        });
        of.map(|(_, _, seconds)| *seconds).min_by(f64::total_cmp)
    };
    for (what, fourier, seconds) in [("fbp", false, 40.0), ("fourier", true, 10.0)] {
        match best(fourier) {
            Some(found) => goal(
                &format!("3001 x 2048 x 2048 by {what}"),
                found,
                seconds,
                "s",
                true,
            ),
            None => eprintln!(
                "  3001 x 2048 x 2048 by {what}: not measured (give whole:2048x3001x2048)"
            ),
        }
    }
    found
}

fn run() -> Result<bool, String> {
    let wanted = wanted()?;
    let adapters = list();
    for adapter in &adapters {
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
    let Device::Gpu(gpu) =
        Device::open(wanted.choice.clone()).map_err(|error| error.to_string())?
    else {
        return Err("there are no kernels to test; give gpu or gpu:N".into());
    };
    eprintln!("{}", gpu.describe());
    show(&json!({ "part": "device", "device": gpu.describe(), "adapters": adapters }));
    if gpu.info().kind == AdapterKind::Software {
        eprintln!(
            "  this is a software driver: Vulkan sees no real GPU, so the figures say nothing about one"
        );
    }
    Ok(!measure(&gpu, &wanted).failed)
}

fn main() -> ExitCode {
    #[expect(unsafe_code, reason = "see the function")]
    // SAFETY: nothing has run before that could have started a thread.
    unsafe {
        tomodelta::gpu::look_for_no_compositor();
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
