//! The flags: all optional, laid over the config file as `key=value`; no algorithm here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tomodelta::config::{
    Acquisition, AlignMethod, CenterMethod, FilterWindow, ReconstructMethod, VolumeFormat,
};
use tomodelta::simulate::{Preset, Turn};

/// From raw micro-CT scans to measured change.
#[derive(Debug, Parser)]
#[command(
    name = "tomodelta",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Simulate a small in-situ series, run the whole chain on it and write the report
    #[command(
        after_help = "Example: tomodelta demo\n         tomodelta demo /tmp/demo --device gpu"
    )]
    Demo {
        /// Folder for the simulated scans and the results
        #[arg(default_value = "tomodelta-demo")]
        folder: PathBuf,
        /// Replace an earlier demo in the folder
        #[arg(long)]
        overwrite: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// The main job: correct, reconstruct, align, subtract and measure every scan of a series
    #[command(
        after_help = "Example: tomodelta run series.toml --dry-run\n         tomodelta run series.toml --memory 12GiB --set difference.sigma=4"
    )]
    Run {
        /// The series
        series: PathBuf,
        /// Output folder
        #[arg(short, long)]
        output: Option<PathBuf>,
        /// Print the plan (slabs, memory, disk, device) without work
        #[arg(long)]
        dry_run: bool,
        /// Go on with a run that was broken off
        #[arg(long, conflicts_with = "overwrite")]
        resume: bool,
        /// Replace the results of an earlier run
        #[arg(long)]
        overwrite: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// What is in a scan or a volume: layout, shapes, angles, flats and darks, statistics, every problem found
    #[command(after_help = "Example: tomodelta inspect scan.nxs --json")]
    Inspect {
        /// HDF5 file, folder of TIFF files, or a volume written by this program
        scan: PathBuf,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        input: Input,
        #[command(flatten)]
        shared: Shared,
    },
    /// The rotation axis, with each method's answer and a fit over height
    #[command(
        after_help = "Example: tomodelta center scan.nxs --montage trial.png\nExit code 3 when the methods disagree."
    )]
    Center {
        /// HDF5 file, folder of TIFF files, or .npy of line integrals
        scan: PathBuf,
        /// Detector row to ask, instead of heights spread over the scan; repeatable
        #[arg(long)]
        row: Vec<usize>,
        /// Which method
        #[arg(long, value_enum)]
        method: Option<CenterMethod>,
        /// PNG of trial slices around the answer, labelled with their axis
        #[arg(long)]
        montage: Option<PathBuf>,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        input: Input,
        #[command(flatten)]
        shared: Shared,
    },
    /// Corrected sinograms (line integrals), HDF5 dataset /sinograms [row, angle, col]
    #[command(
        after_help = "Example: tomodelta correct scan.nxs --output sinograms.h5 --rows 100..140\n         tomodelta correct scan.nxs --set correct.stripe.method=sorting --sweep correct.stripe.small_size=5,11,21,31 --rows 100,120"
    )]
    Correct {
        /// HDF5 file or folder of TIFF files
        scan: PathBuf,
        /// HDF5 file to write; with --sweep the folder for sweep.csv and sweep.png
        #[arg(short, long, required_unless_present = "sweep")]
        output: Option<PathBuf>,
        /// Detector rows A..B; with --sweep also a list such as 100,120
        #[arg(long)]
        rows: Option<String>,
        /// Try values of a key of correct.stripe or correct.zinger on the rows instead; repeatable, all combinations
        #[arg(long, value_name = "KEY=V1,V2", value_parser = key_value)]
        sweep: Vec<(String, String)>,
        /// Rotation axis [px] of the trial slices; found when not given
        #[arg(long, requires = "sweep")]
        axis: Option<f64>,
        /// The result of --sweep as one JSON object on stdout
        #[arg(long, requires = "sweep")]
        json: bool,
        /// Replace the file
        #[arg(long)]
        overwrite: bool,
        #[command(flatten)]
        input: Input,
        #[command(flatten)]
        shared: Shared,
    },
    /// One scan to one volume
    #[command(
        after_help = "Example: tomodelta reconstruct scan.nxs --output volume.ome.zarr\n         tomodelta reconstruct sino.npy --angles 0:180:721 --axis 262.8 --format npy --output slices.npy"
    )]
    Reconstruct {
        /// HDF5 file, folder of TIFF files, or .npy of line integrals [row, angle, col]
        scan: PathBuf,
        /// Volume to write
        #[arg(short, long)]
        output: PathBuf,
        /// Detector rows A..B
        #[arg(long)]
        rows: Option<String>,
        /// Part of the slice, X0..X1,Y0..Y1
        #[arg(long)]
        crop: Option<String>,
        /// Rotation axis [px] at the middle row; found when not given
        #[arg(long)]
        axis: Option<f64>,
        #[command(flatten)]
        placement: Placement,
        /// Algorithm
        #[arg(long, value_enum)]
        method: Option<ReconstructMethod>,
        /// Window on the ramp filter
        #[arg(long, value_enum)]
        filter: Option<FilterWindow>,
        /// Go on with a volume that was broken off
        #[arg(long, conflicts_with = "overwrite")]
        resume: bool,
        /// Replace the volume
        #[arg(long)]
        overwrite: bool,
        #[command(flatten)]
        input: Input,
        #[command(flatten)]
        shared: Shared,
    },
    /// Two existing volumes: align, subtract, measure
    #[command(
        after_help = "Example: tomodelta difference pristine.ome.zarr stripped.ome.zarr --output change\n         tomodelta difference a_slices/ b_slices/ --unit 1/cm --pixel-size 1.3 --output change"
    )]
    Difference {
        /// Reference volume (any output format, or a TIFF stack of other software)
        reference: PathBuf,
        /// Target volume
        target: PathBuf,
        /// Folder to write
        #[arg(short, long)]
        output: PathBuf,
        /// How to align
        #[arg(long, value_enum)]
        align: Option<AlignMethod>,
        /// Unit of volumes that do not say it: 1/cm or 1/px
        #[arg(long)]
        unit: Option<String>,
        /// Edge of a voxel [um] of volumes that do not say it
        #[arg(long)]
        pixel_size: Option<f64>,
        /// Replace results in the folder
        #[arg(long)]
        overwrite: bool,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// Write a synthetic series (NXtomo and TIFF) with its ground truth
    #[command(after_help = "Example: tomodelta simulate demo-data --preset demo")]
    Simulate {
        /// Folder to write
        folder: PathBuf,
        /// Size and kind
        #[arg(long, value_enum, default_value = "demo")]
        preset: Preset,
        /// Detector columns, instead of the preset's
        #[arg(long)]
        cols: Option<usize>,
        /// Detector rows
        #[arg(long)]
        rows: Option<usize>,
        /// Projections
        #[arg(long)]
        angles: Option<usize>,
        /// Half or full turn; offset: a full turn with the axis near the edge (half acquisition)
        #[arg(long, value_enum, default_value = "half")]
        turn: Turn,
        /// Everything random follows from it: noise, grains, and with `--preset random` the whole sample
        #[arg(long)]
        seed: Option<u64>,
        /// Photons per pixel and frame in the open beam
        #[arg(long)]
        photons: Option<f64>,
        /// Stripes, zingers and beam drift: 0 none, 1 as usual
        #[arg(long)]
        artefacts: Option<f64>,
        /// A cell wider than the field of view
        #[arg(long)]
        truncated: bool,
        /// Shift of every later scan [voxel], as in alignment.json
        #[arg(long, value_name = "X,Y,Z", allow_hyphen_values = true, value_parser = three)]
        shift: Option<[f64; 3]>,
        /// Turn of every later scan about the axis [degrees]
        #[arg(long, value_name = "DEG", allow_hyphen_values = true)]
        rotation: Option<f64>,
        /// Replace the files
        #[arg(long)]
        overwrite: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// Print the complete commented config, or check a file and print it resolved
    #[command(
        after_help = "Example: tomodelta config --default > series.toml\n         tomodelta config series.toml"
    )]
    Config {
        /// File to check
        file: Option<PathBuf>,
        /// Print the commented defaults
        #[arg(long)]
        default: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// The GPUs that can be used, with limits and driver, and which would be chosen
    #[command(after_help = "Example: tomodelta devices --test")]
    Devices {
        /// Run every kernel against its twin on the CPU and time it
        #[arg(long)]
        test: bool,
        /// Size to time with --test: side of the slice x projections; repeatable
        #[arg(long, value_name = "NxANGLES", value_parser = test_size)]
        size: Vec<(usize, usize)>,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// Rebuild the report of a finished run
    #[command(after_help = "Example: tomodelta report out")]
    Report {
        /// Output folder of the run
        folder: PathBuf,
        #[command(flatten)]
        shared: Shared,
    },
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Shared {
    /// Config file
    #[arg(long, global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Set a key of the config, e.g. --set difference.sigma=4; repeatable
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// auto | cpu | gpu | gpu:N | gpu:N,M
    #[arg(long, global = true)]
    pub(crate) device: Option<String>,
    /// Threads; 0: one per core
    #[arg(long, global = true)]
    pub(crate) threads: Option<usize>,
    /// Cap on host memory, e.g. 12GiB
    #[arg(long, global = true)]
    pub(crate) memory: Option<String>,
    /// Format of the volumes
    #[arg(long, global = true, value_enum)]
    pub(crate) format: Option<VolumeFormat>,
    /// Write the timeline of reading, GPU and writing to this file (Chrome trace format)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Say more: -v times per stage, -vv every decision
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Only warnings and errors, no progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// Where the data are, when the layout does not say it.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Input {
    /// Projections: /dataset, other.h5:/dataset, or a file or folder of TIFF
    #[arg(long)]
    data: Option<String>,
    /// Flats, likewise
    #[arg(long)]
    flats: Option<String>,
    /// Darks, likewise
    #[arg(long)]
    darks: Option<String>,
    /// Angles: dataset, text file with one angle per line, or START:STOP:COUNT in degrees, both ends included
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) angles: Option<String>,
    /// Movement of the sample: CSV file with the columns x_px and z_px, a line per projection; or a dataset
    #[arg(long)]
    shifts: Option<String>,
    /// Detector pixel at the sample [um]
    #[arg(long)]
    pixel_size: Option<f64>,
}

/// What slices are made, and where they lie.
#[derive(Debug, Args)]
pub(crate) struct Placement {
    /// Half acquisition (a full turn with the axis near the edge) or not; auto sees it
    #[arg(long, value_enum)]
    acquisition: Option<Acquisition>,
    /// Average rows and columns in groups of N: a quick preview
    #[arg(long, value_name = "N")]
    bin: Option<usize>,
    /// Put the grid elsewhere: X,Y,Z in pixels
    #[arg(long, allow_hyphen_values = true, value_name = "X,Y,Z")]
    shift: Option<String>,
    /// Turn the grid about the rotation axis, from x towards y [degrees]
    #[arg(long, allow_hyphen_values = true)]
    rotation: Option<f64>,
    /// Pixels per voxel, for a scan that sees the sample larger (above 1) or smaller
    #[arg(long)]
    scale: Option<f64>,
}

impl Placement {
    /// These flags as overrides of the config.
    pub(crate) fn overrides(&self) -> Vec<(String, String)> {
        let number = |value: &f64| format!("{value:?}");
        [
            ("acquisition", self.acquisition.as_ref().map(word)),
            ("binning", self.bin.map(|bin| bin.to_string())),
            ("grid.shift", self.shift.as_ref().map(|s| format!("[{s}]"))),
            ("grid.rotation", self.rotation.as_ref().map(number)),
            ("grid.scale", self.scale.as_ref().map(number)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((format!("reconstruct.{key}"), value?)))
        .collect()
    }
}

fn test_size(text: &str) -> Result<(usize, usize), String> {
    text.split_once('x')
        .and_then(|(side, angles)| Some((side.parse().ok()?, angles.parse().ok()?)))
        .filter(|&(side, angles)| (8..=16384).contains(&side) && (2..=100_000).contains(&angles))
        .ok_or_else(|| format!("{text} is not NxANGLES, e.g. 1024x1501"))
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_string(), value.trim().to_string()))
        .ok_or_else(|| format!("{text} is not KEY=VALUE, e.g. difference.sigma=4"))
}

/// A string as TOML.
pub(crate) fn quoted(text: impl std::fmt::Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

/// The name that clap and the config share for a value of an enum.
pub(crate) fn word(value: &impl clap::ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| quoted(value.get_name()))
}

impl Shared {
    /// These flags as overrides of the config; `--set` first, so that a named flag wins.
    pub(crate) fn overrides(&self) -> Vec<(String, String)> {
        let mut list = self.set.clone();
        let mut push = |key: &str, value: Option<String>| {
            list.extend(value.map(|value| (key.to_string(), value)))
        };
        push("run.device", self.device.as_ref().map(quoted));
        push(
            "run.trace",
            self.trace.as_ref().map(|file| quoted(file.display())),
        );
        push(
            "run.threads",
            self.threads.map(|threads| threads.to_string()),
        );
        push("run.memory", self.memory.as_ref().map(quoted));
        push("run.format", self.format.as_ref().map(word));
        list
    }
}

impl Input {
    /// These flags as overrides of the config.
    pub(crate) fn overrides(&self) -> Vec<(String, String)> {
        [
            ("data", &self.data),
            ("flats", &self.flats),
            ("darks", &self.darks),
            ("angles", &self.angles),
            ("shifts", &self.shifts),
        ]
        .into_iter()
        .filter_map(|(key, value)| {
            value
                .as_ref()
                .map(|value| (format!("input.{key}"), quoted(value)))
        })
        .chain(
            self.pixel_size
                .map(|size| ("series.pixel_size_um".to_string(), format!("{size:?}"))),
        )
        .collect()
    }
}

/// Three numbers between commas.
fn three(text: &str) -> Result<[f64; 3], String> {
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    numbers
        .ok()
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| "expected three numbers between commas, such as 1.5,-2,0".to_string())
}
