//! One function per command: flags to config, library call, result to the terminal.

mod demo;
mod look;
mod single;
mod sweep;

use std::time::Duration;

use anyhow::Result;
use tomodelta::config::Config;
use tomodelta::gpu::Device;
use tomodelta::io;
use tomodelta::pipeline::output::Existing;
use tomodelta::pipeline::{self, Session};
use tomodelta::plan::{self, Plan};
use tomodelta::progress::Progress;
use tomodelta::trace::Trace;

use crate::cli::{Command, Shared, quoted};

/// Runs a command; the number is the exit code.
pub(crate) fn run(command: Command) -> Result<u8> {
    match command {
        Command::Demo {
            folder,
            overwrite,
            shared,
        } => demo::run(&folder, overwrite, &shared),
        Command::Run {
            series,
            output,
            dry_run,
            resume,
            overwrite,
            shared,
        } => {
            let mut overrides = shared.overrides();
            if let Some(output) = &output {
                // relative to where the user stands, not to the series
                overrides.push((
                    "series.output".into(),
                    quoted(std::path::absolute(output)?.display()),
                ));
            }
            let config = Config::load(Some(&series), &overrides)?;
            let existing = match (resume, overwrite) {
                (true, _) => Existing::Resume,
                (_, true) => Existing::Overwrite,
                _ => Existing::Refuse,
            };
            let session = session(&shared, &config, existing)?;
            if dry_run {
                let scans = pipeline::open_series(&config)?;
                let plan = Plan::new(&config, &scans, &session.device)?;
                print!("{plan}");
                let time = plan::forecast::forecast(&plan, &config, &scans, &session.device)?;
                println!("time     {time}");
                return Ok(0);
            }
            let report = pipeline::run_series(&config, &session)?;
            times(&shared, &session.progress);
            println!("{}", report.display());
            Ok(0)
        }
        Command::Inspect {
            scan,
            json,
            input,
            shared,
        } => look::inspect(&scan, json, &input, &shared),
        Command::Center {
            scan,
            row,
            method,
            montage,
            json,
            input,
            shared,
        } => look::center(
            &scan,
            &row,
            method,
            montage.as_deref(),
            json,
            &input,
            &shared,
        ),
        Command::Correct {
            scan,
            output,
            rows,
            sweep,
            axis,
            json,
            overwrite,
            input,
            shared,
        } => match (&sweep[..], output) {
            ([], Some(output)) => single::correct(&scan, &output, rows, overwrite, &input, &shared),
            (keys, folder) => {
                let flags = sweep::SweepFlags {
                    keys,
                    rows: rows.as_deref(),
                    axis,
                    folder: &folder.unwrap_or_else(|| "sweep".into()),
                    overwrite,
                    json,
                };
                sweep::run(&scan, &flags, &input, &shared)
            }
        },
        Command::Reconstruct {
            scan,
            output,
            rows,
            crop,
            axis,
            placement,
            method,
            filter,
            resume,
            overwrite,
            input,
            shared,
        } => {
            let flags = single::ReconstructFlags {
                rows,
                crop,
                axis,
                placement,
                method,
                filter,
                resume,
                overwrite,
            };
            single::reconstruct(&scan, &output, &flags, &input, &shared)
        }
        Command::Difference {
            reference,
            target,
            output,
            align,
            unit,
            pixel_size,
            overwrite,
            json,
            shared,
        } => {
            let flags = single::DifferenceFlags {
                align,
                unit,
                pixel_size,
                overwrite,
                json,
            };
            single::difference(&reference, &target, &output, &flags, &shared)
        }
        Command::Simulate {
            folder,
            preset,
            cols,
            rows,
            angles,
            turn,
            seed,
            photons,
            artefacts,
            truncated,
            shift,
            rotation,
            overwrite,
            shared,
        } => {
            let mut options = tomodelta::simulate::Options::new(preset);
            options.cols = cols;
            options.rows = rows;
            options.angles = angles;
            options.turn = turn;
            options.photons = photons;
            options.seed = seed.unwrap_or(options.seed);
            options.artefacts = artefacts.unwrap_or(options.artefacts);
            options.truncated |= truncated;
            options.shift_voxel = shift;
            options.rotation_deg = rotation;
            demo::simulate(&folder, &options, overwrite, &shared)
        }
        Command::Config {
            file,
            default,
            shared,
        } => look::config(file.as_deref(), default, &shared),
        Command::Devices {
            test,
            size,
            json,
            shared,
        } => look::devices(test, &size, json, &shared),
        Command::Report { folder, shared } => {
            let progress = progress(&shared);
            println!(
                "{}",
                tomodelta::report::write(&folder, &progress)?.display()
            );
            Ok(0)
        }
    }
}

/// The config of commands that need none: `--config` if given, the flags over it.
fn config_of(shared: &Shared, more: Vec<(String, String)>) -> Result<Config> {
    let mut overrides = shared.overrides();
    overrides.extend(more);
    Ok(Config::load(shared.config.as_deref(), &overrides)?)
}

/// Bars on stderr and a logger that draws above them.
fn progress(shared: &Shared) -> Progress {
    let progress = Progress::new(shared.quiet);
    let level = match (shared.quiet, shared.verbose) {
        (true, _) => log::LevelFilter::Warn,
        (_, 0) => log::LevelFilter::Info,
        (_, 1) => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    let others = if shared.verbose >= 2 {
        log::LevelFilter::Warn
    } else {
        log::LevelFilter::Error
    };
    let bars = progress.bars();
    let logger = env_logger::Builder::new()
        .filter_level(others)
        .filter_module("tomodelta", level)
        .format(|out, record| {
            use std::io::Write;
            match record.level() {
                log::Level::Info => writeln!(out, "{}", record.args()),
                level => writeln!(out, "{}: {}", level.as_str().to_lowercase(), record.args()),
            }
        })
        .build();
    // a second call in one process keeps the first logger
    if log::set_boxed_logger(Box::new(AboveBars { logger, bars })).is_ok() {
        log::set_max_level(level.max(others));
    }
    progress
}

/// Lifts the bars while a line is written.
struct AboveBars {
    logger: env_logger::Logger,
    bars: indicatif::MultiProgress,
}

impl log::Log for AboveBars {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }
    fn log(&self, record: &log::Record<'_>) {
        if self.logger.matches(record) {
            self.bars.suspend(|| self.logger.log(record));
        }
    }
    fn flush(&self) {
        self.logger.flush();
    }
}

/// Threads, device, bars.
fn session(shared: &Shared, config: &Config, existing: Existing) -> Result<Session> {
    let progress = progress(shared);
    threads(config)?;
    tomodelta::allocator::tune(plan::memory_cap(config)?);
    io::stall::warn_after(Duration::from_secs_f64(config.run.stall_warning));
    let device = Device::open(config.run.device_choice()?)?;
    let file = Some(&config.run.trace).filter(|file| !file.is_empty());
    let progress = if shared.verbose > 0 || file.is_some() {
        let trace = Trace::on(file.map(Into::into));
        device.set_trace(&trace);
        progress.with_trace(trace)
    } else {
        progress
    };
    log::info!("device: {}", device.describe());
    Ok(Session {
        device,
        progress,
        existing,
    })
}

fn threads(config: &Config) -> Result<()> {
    if config.run.threads > 0 {
        rayon::ThreadPoolBuilder::new()
            .num_threads(config.run.threads)
            .build_global()?;
    }
    Ok(())
}

/// Wall time per stage, where it went and per lane, with `-v`; the timeline where it was asked for.
fn times(shared: &Shared, progress: &Progress) {
    if shared.verbose > 0 {
        for (name, time) in progress.times() {
            eprintln!("{:>10.2} s  {name}", time.as_secs_f64());
        }
        eprint!("{}", progress.meter().table(progress.wall()));
        eprint!("{}", progress.trace().summary());
    }
    if let Err(error) = progress.trace().write() {
        log::warn!("{error}");
    }
}

/// Opens the scan of a one-scan command with the flags in place.
fn open(path: &std::path::Path, config: &Config) -> Result<tomodelta::scan::Scan> {
    let mut scan = io::open_scan(path, &config.input, config.series.pixel_size_um)?;
    let mode = config.input.bad_projections.unwrap_or_default();
    tomodelta::correct::screen::leave_out_bad(&mut scan, mode)?;
    for warning in &scan.warnings {
        log::warn!("{warning}");
    }
    log::info!(
        "{}: {}, {} projections of {} x {}; {}",
        path.display(),
        scan.layout,
        scan.n_angles(),
        scan.n_rows(),
        scan.n_cols(),
        scan.angle_source
    );
    Ok(scan)
}

/// Refuses an output that is in the way, before any work.
fn refuse_existing(path: &std::path::Path, overwrite: bool) -> Result<()> {
    if path.exists() && !overwrite {
        return Err(tomodelta::Error::OutputExists {
            path: path.to_path_buf(),
        }
        .into());
    }
    Ok(())
}
