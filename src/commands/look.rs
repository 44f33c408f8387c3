//! Commands that only look: inspect, center, config, devices.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use tomodelta::center;
use tomodelta::config::{CenterMethod, Config, DEFAULT_TOML, DeviceChoice};
use tomodelta::gpu::{self, Device};
use tomodelta::io;
use tomodelta::plan::human_bytes;
use tomodelta::reconstruct::self_test::{Report, self_test};
use tomodelta::scan::SinogramSource;

use tomodelta::pipeline::steady::Steadied;

use crate::cli::{Input, Shared, word};

pub(crate) fn inspect(path: &Path, json: bool, input: &Input, shared: &Shared) -> Result<u8> {
    let config = super::config_of(shared, input.overrides())?;
    super::progress(shared);
    if io::volume::is_own(path) {
        let meta = io::volume::open(path)?.meta().clone();
        let checked = io::volume::verify(path)?;
        if json {
            println!(
                "{}",
                serde_json::to_string_pretty(&json!({ "volume": meta, "verified": checked }))?
            );
        } else {
            println!(
                "volume [z, y, x] {:?}, values in {}, voxel {}",
                meta.shape,
                meta.unit,
                match meta.voxel_size_um {
                    Some(size) => format!("{size} um"),
                    None => "of unknown size".into(),
                }
            );
            println!(
                "{} parts, {} bytes, {} problems",
                checked.parts,
                checked.bytes,
                checked.problems.len()
            );
            for problem in &checked.problems {
                println!("  {problem}");
            }
        }
        return Ok(u8::from(!checked.is_sound()));
    }
    let summary = io::inspect::scan(path, &config.input, config.series.pixel_size_um)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        println!("{summary}");
    }
    Ok(0)
}

pub(crate) fn center(
    path: &Path,
    rows: &[usize],
    method: Option<CenterMethod>,
    montage: Option<&Path>,
    json: bool,
    input: &Input,
    shared: &Shared,
) -> Result<u8> {
    let mut more = input.overrides();
    more.extend(method.map(|method| ("center.method".to_string(), word(&method))));
    let config = super::config_of(shared, more)?;
    let progress = super::progress(shared);
    super::threads(&config)?;
    let source = super::single::line_integrals(path, &config)?;
    // projections are compared over the whole height, sinograms and given rows are few
    let by_sinograms = matches!(
        config.center.method,
        CenterMethod::DoubleWedge | CenterMethod::MirrorMatch | CenterMethod::TrialSlices
    );
    let few = by_sinograms || !rows.is_empty() || config.center.value.is_some();
    let source = if few {
        source
    } else {
        source.locked(&config, &progress)?
    };
    let ask = |source: &dyn SinogramSource| {
        tomodelta::pipeline::find_axis(source, rows, &config.center, &progress)
    };
    let fit = if few {
        source.for_axis_by_rows(&config, &progress, ask)
    } else {
        source.for_axis(ask)
    }?;
    if json {
        println!("{}", serde_json::to_string_pretty(&fit)?);
    } else {
        println!(
            "rotation axis {:.3} +- {:.3} px at row {:.1}, lean {:.6} px per row",
            fit.axis_px, fit.uncertainty_px, fit.middle_row, fit.slope_px_per_row
        );
        for (name, answers) in &fit.methods {
            let list: Vec<String> = answers
                .rows
                .iter()
                .zip(&answers.axis_px)
                .map(|(row, axis)| format!("{row:.0}: {axis:.2}"))
                .collect();
            println!("  {name}: {}", list.join(", "));
        }
        for note in &fit.notes {
            println!("  {note}");
        }
    }
    if let Some(path) = montage {
        let row = rows
            .first()
            .copied()
            .unwrap_or(fit.middle_row.round().max(0.0) as usize);
        let candidates = center::candidates(&fit, row as f64);
        let draw = |source: &dyn SinogramSource| {
            let steadied = Steadied::new(source);
            let source = steadied.as_ref().map_or(source, |source| source);
            center::montage(source, row, &candidates, path)
        };
        if few {
            source.for_axis_by_rows(&config, &progress, draw)
        } else {
            source.for_axis(draw)
        }?;
    }
    Ok(if fit.agree { 0 } else { 3 })
}

pub(crate) fn config(file: Option<&Path>, default: bool, shared: &Shared) -> Result<u8> {
    let Some(file) = file
        .filter(|_| !default)
        .or(shared.config.as_deref().filter(|_| !default))
    else {
        if shared.overrides().is_empty() || default {
            print!("{DEFAULT_TOML}");
        } else {
            print!(
                "{}",
                toml::to_string_pretty(&Config::load(None, &shared.overrides())?)?
            );
        }
        return Ok(0);
    };
    print!(
        "{}",
        toml::to_string_pretty(&Config::load(Some(file), &shared.overrides())?)?
    );
    Ok(0)
}

pub(crate) fn devices(
    test: bool,
    sizes: &[(usize, usize)],
    json: bool,
    shared: &Shared,
) -> Result<u8> {
    super::progress(shared);
    let config = super::config_of(shared, Vec::new())?;
    let adapters = gpu::list();
    let reports: Vec<Report> = if test {
        let choice = match config.run.device_choice()? {
            DeviceChoice::Auto | DeviceChoice::Cpu => DeviceChoice::Gpu(None),
            choice => choice,
        };
        match Device::open(choice)? {
            Device::Gpu(gpu) => vec![self_test(&gpu, sizes)?],
            Device::Several(gpus) => gpus
                .iter()
                .map(|gpu| self_test(gpu, sizes))
                .collect::<tomodelta::error::Result<_>>()?,
            Device::Cpu => Vec::new(),
        }
    } else {
        Vec::new()
    };
    if json {
        let test: Value = match &reports[..] {
            [one] => json!(one),
            [] => Value::Null,
            several => json!(several),
        };
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({ "adapters": adapters, "test": test }))?
        );
    } else {
        if adapters.is_empty() {
            println!(
                "no GPU is visible to Vulkan, Metal or DirectX 12; everything runs with --device cpu"
            );
        }
        for adapter in &adapters {
            let limits = &adapter.limits;
            println!(
                "gpu:{} {}{}\n  {:?}, {}, {}\n  buffer {}, binding {}, workgroup memory {}\n  features: {}",
                adapter.number,
                adapter.name,
                if adapter.would_choose {
                    " (chosen by --device auto)"
                } else {
                    ""
                },
                adapter.kind,
                adapter.backend,
                adapter.driver,
                human_bytes(limits.max_buffer_size),
                human_bytes(limits.max_storage_buffer_binding_size),
                human_bytes(u64::from(limits.max_compute_workgroup_storage_size)),
                adapter.features.join(", ")
            );
        }
        for report in &reports {
            println!("{report}");
        }
    }
    Ok(u8::from(!reports.iter().all(Report::passed)))
}
