//! Every parameter of a run.
//!
//! One table per stage, named as its module. Defaults stand once, in `Default`; `default.toml` is the commented
//! text that `tomodelta config` prints, and a test holds it to `Default`. Unknown keys are errors that name the
//! nearest known key. Flags are laid over the file as `key=value` pairs before anything is judged.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The commented default config.
pub const DEFAULT_TOML: &str = include_str!("config/default.toml");

/// The reference that stands for the scan before.
pub const PREVIOUS: &str = "previous";

/// What the user wants: the whole of `series.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The series as a whole.
    pub series: SeriesConfig,
    /// How scans are read.
    pub input: InputConfig,
    /// Machine and output.
    pub run: RunConfig,
    /// From counts to line integrals.
    pub correct: CorrectConfig,
    /// The rotation axis.
    pub center: CenterConfig,
    /// From line integrals to slices.
    pub reconstruct: ReconstructConfig,
    /// Onto the grid of the reference.
    pub align: AlignConfig,
    /// Subtraction and what is measured on it.
    pub difference: DifferenceConfig,
    /// From attenuation to mass; absent: no mass columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mass: Option<MassConfig>,
    /// Voltage and current over time; absent: no such panel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub electrochemistry: Option<ElectrochemistryConfig>,
    /// The scans, in the order of time.
    pub scan: Vec<ScanConfig>,
}

/// `[series]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeriesConfig {
    /// Title of the report.
    pub name: String,
    /// Output folder, relative to the config file.
    pub output: PathBuf,
    /// Name of the scan that the others are compared with; empty: the first one.
    pub reference: String,
    /// Detector pixel at the sample \[um\]; absent: taken from the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixel_size_um: Option<f64>,
}

impl Default for SeriesConfig {
    fn default() -> Self {
        SeriesConfig {
            name: "series".into(),
            output: "out".into(),
            reference: String::new(),
            pixel_size_um: None,
        }
    }
}

/// `[[scan]]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScanConfig {
    /// Name of the scan, also of its output folder.
    pub name: String,
    /// HDF5 file or folder of TIFF files, relative to the config file.
    pub path: PathBuf,
    /// Scan to compare with, where it is not the series' reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Rotation axis of this scan by hand \[px\], at its middle row; nothing is searched then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub axis: Option<f64>,
    /// Lean of the axis given by hand \[px per row\].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub axis_slope: Option<f64>,
    /// Pixels of this scan per pixel of its reference, where the sample is seen larger or smaller; absent: the ratio of
    /// the pixel sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub magnification: Option<f64>,
    /// When the scan was taken (RFC 3339), for the time axis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Charge passed between the reference and this scan \[mAh/cm2\], for the Faraday check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charge_mah_cm2: Option<f64>,
    /// Overrides of `[input]` for this scan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<InputConfig>,
}

/// `[input]`: where the data are when the layout does not say it.
///
/// For HDF5 each of `data`, `flats`, `darks`, `angles` is `/dataset/path`, or `file.h5:/dataset/path` for another
/// file; for TIFF a file or folder. Relative paths are relative to the scan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputConfig {
    /// Projections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Flats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flats: Option<String>,
    /// Darks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub darks: Option<String>,
    /// Angles: a dataset path, a text file with one angle per line, or `START:STOP:COUNT` in degrees, both ends included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub angles: Option<String>,
    /// NXtomo image key (0 projection, 1 flat, 2 dark).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_key: Option<String>,
    /// Name of the detector group, where a file has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detector: Option<String>,
    /// Unit of the angles; absent: read from the file, else inferred from their span, and said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub angle_unit: Option<AngleUnit>,
    /// Readings of the beam monitor, one per projection or per frame: a dataset path, or a text file with one per line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
    /// Movement of the sample during the scan: a CSV file with the columns `x_px` and `z_px`, one line per projection, or
    /// a dataset `[projection, 2]` of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shifts: Option<String>,
    /// Projections to leave out, counted from 0 among the projections.
    pub exclude: Vec<usize>,
    /// Which bad projections are left out without being named in `exclude`; absent: those that hold no picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_projections: Option<BadProjections>,
}

/// Which projections are left out for their light: see [`crate::correct::screen`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadProjections {
    /// None; they are named in a warning.
    None,
    /// Those without a picture: dark, blank, or not a number.
    #[default]
    Lost,
    /// Those too whose light differs from that of their neighbours.
    All,
}

/// Unit of the angles in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum AngleUnit {
    Degrees,
    Radians,
}

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

/// `[correct]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorrectConfig {
    /// How the frames of a group of flats or darks are joined.
    pub average: Average,
    /// Which flats a projection is divided by when there are several groups in time.
    pub flat_in_time: FlatInTime,
    /// A pixel whose flat minus dark is below this is bad: it carries no signal \[counts\].
    pub floor_counts: f32,
    /// Transmission below this is raised to it before the logarithm; counted.
    pub min_transmission: f32,
    /// Scans without flats: `true` takes the data as transmission already; flats that are there are not used then.
    pub without_flats: bool,
    /// Double flat field: blur of the angular mean whose sharp part is taken off \[px\]; 0: none.
    pub double_flat: f64,
    /// Isolated hot pixels.
    pub zinger: ZingerConfig,
    /// Column artefacts of the sinogram.
    pub stripe: StripeConfig,
    /// Detector pixels that answer wrongly, found once over all scans and treated alike in each.
    pub lock: LockConfig,
    /// Drift of the beam's intensity.
    pub beam: BeamConfig,
    /// Large spots of the scintillator.
    pub spots: SpotConfig,
    /// Single-distance phase retrieval.
    pub phase: PhaseConfig,
}

impl Default for CorrectConfig {
    fn default() -> Self {
        CorrectConfig {
            average: Average::Median,
            flat_in_time: FlatInTime::Mean,
            floor_counts: 1.0,
            min_transmission: 1e-4,
            without_flats: false,
            double_flat: 0.0,
            zinger: ZingerConfig::default(),
            stripe: StripeConfig::default(),
            lock: LockConfig::default(),
            beam: BeamConfig::default(),
            spots: SpotConfig::default(),
            phase: PhaseConfig::default(),
        }
    }
}

/// How frames are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Average {
    Mean,
    Median,
}

/// Which flats count for a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlatInTime {
    /// All groups joined.
    Mean,
    /// The group nearest in time.
    Nearest,
    /// Linear between the groups before and after.
    Linear,
}

/// `[correct.zinger]`: bright outliers of the transmission sinogram (Vo et al. 2021, OE 29:17849).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZingerConfig {
    /// Remove them.
    pub enabled: bool,
    /// Relative excess over the mean of the eight neighbours that marks a zinger.
    pub threshold: f32,
    /// Distance of the neighbours \[px\].
    pub size: usize,
    /// Bright ones, dark ones, or both; with dark ones the median of the neighbours takes the place of their mean.
    pub kind: OutlierKind,
    /// Where neighbours are looked for.
    pub domain: ZingerDomain,
    /// Only what stands out from the angles before and after too, and from the noise.
    pub guard: bool,
}

impl Default for ZingerConfig {
    fn default() -> Self {
        ZingerConfig {
            enabled: true,
            threshold: 0.08,
            size: 2,
            kind: OutlierKind::Bright,
            domain: ZingerDomain::Sinogram,
            guard: true,
        }
    }
}

/// `[correct.lock]`: the series lock, see [`crate::correct::lock`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockConfig {
    /// Find the pixels that answer wrongly over all scans of the run, and treat them alike in each.
    pub enabled: bool,
    /// Least anomaly, shared by all scans, of a wrong pixel, as a multiple of what good pixels around it show.
    pub ratio: f32,
    /// Projections of each scan that are looked at, at least (all where there are fewer).
    pub projections: usize,
}

impl Default for LockConfig {
    fn default() -> Self {
        LockConfig {
            enabled: true,
            ratio: 4.0,
            projections: 200,
        }
    }
}

/// `[correct.beam]`: drift of the beam's intensity during a scan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BeamConfig {
    /// What the intensity is taken from.
    pub drift: BeamDrift,
    /// Columns of air, `A..B` or `A..B,C..D` left and right of the sample; empty: the outermost `air_columns` of both edges.
    pub air: String,
    /// Width of the air at the edges where `air` does not say it \[px\].
    pub air_columns: usize,
}

impl Default for BeamConfig {
    fn default() -> Self {
        BeamConfig {
            drift: BeamDrift::None,
            air: String::new(),
            air_columns: 20,
        }
    }
}

impl BeamConfig {
    /// Columns of air by hand, one or two ranges; none when it is left to the edges.
    ///
    /// # Errors
    /// [`Error::Config`] for anything but `A..B` and `A..B,C..D` in the order of the columns.
    pub fn air_ranges(&self) -> Result<Vec<std::ops::Range<usize>>> {
        if self.air.trim().is_empty() {
            return Ok(Vec::new());
        }
        let ranges: Option<Vec<_>> = self.air.split(',').map(parse_range).collect();
        ranges
            .filter(|ranges| match &ranges[..] {
                [_] => true,
                [left, right] => left.end <= right.start,
                _ => false,
            })
            .ok_or_else(|| {
                Error::config(
                    "correct.beam.air",
                    &self.air,
                    "must be columns A..B, or A..B,C..D left and right of the sample, e.g. 0..30,994..1024",
                )
            })
    }
}

/// What the intensity of the beam is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BeamDrift {
    /// It is taken as steady.
    None,
    /// Air beside the sample.
    Air,
    /// Readings named by `input.monitor`.
    Monitor,
    /// The monitor, then air.
    Both,
}

/// Which outliers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum OutlierKind {
    Bright,
    Dark,
    Both,
}

/// Where the neighbours of a zinger are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZingerDomain {
    /// Angle and column.
    Sinogram,
    /// Row and column of one projection.
    Projection,
    /// Projections, then sinograms.
    Both,
}

/// `[correct.spots]`: large spots that stay in place, found on the open beam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpotConfig {
    /// Find them; they are interpolated like bad pixels.
    pub find: bool,
    /// Bright ones, dark ones, or both.
    pub kind: OutlierKind,
    /// Relative deviation from the surroundings that makes a spot.
    pub threshold: f32,
    /// Relative deviation down to which it grows.
    pub grow: f32,
    /// Sigma of the Gaussian mean that is the surroundings \[px\].
    pub sigma: f32,
}

impl Default for SpotConfig {
    fn default() -> Self {
        SpotConfig {
            find: false,
            kind: OutlierKind::Both,
            threshold: 0.3,
            grow: 0.1,
            sigma: 20.0,
        }
    }
}

/// `[correct.phase]`: single-distance phase retrieval (see `correct::phase` for formula and conventions).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhaseConfig {
    /// Which filter.
    pub method: PhaseMethod,
    /// Distance from the sample to the detector \[mm\].
    pub distance_mm: f64,
    /// Photon energy \[keV\].
    pub energy_kev: f64,
    /// Ratio of the decrement of the refractive index to its imaginary part, as tabulated.
    pub delta_beta: f64,
}

impl Default for PhaseConfig {
    fn default() -> Self {
        PhaseConfig {
            method: PhaseMethod::None,
            distance_mm: 0.0,
            energy_kev: 0.0,
            delta_beta: 0.0,
        }
    }
}

/// Phase retrieval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseMethod {
    /// None: attenuation as measured.
    None,
    /// Paganin et al. 2002, J. Microsc. 206:33.
    Paganin,
    /// Paganin et al. 2020, J. Opt. 22:115607.
    GeneralizedPaganin,
}

/// `[correct.stripe]`: Vo, Atwood and Drakopoulos 2018, OE 26:28396.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StripeConfig {
    /// Which algorithm.
    pub method: StripeMethod,
    /// Ratio that separates a large stripe from its neighbours (algorithm 4).
    pub snr: f32,
    /// Median window of large and dead stripes \[px\].
    pub large_size: usize,
    /// Median window of small and medium stripes \[px\].
    pub small_size: usize,
    /// Share of the sorted samples left out at both ends together (algorithm 5).
    pub drop_ratio: f32,
    /// Divide all columns by their factor in algorithm 5.
    pub normalize: bool,
    /// Sigma of the low-pass of algorithm 2 \[Fourier samples\].
    pub filter_sigma: f32,
    /// Polynomial order of algorithm 1.
    pub fit_order: usize,
    /// Sigma of the smoothing of algorithm 1, across the columns \[Fourier samples\].
    pub fit_sigma: f32,
    /// Sigma of the normalisation-based method \[px\].
    pub normalize_sigma: f32,
    /// Scales of the wavelet-Fourier filter (Muench et al. 2009, OE 17:8567), at most.
    pub wavelet_levels: usize,
    /// Vanishing moments of its Daubechies wavelet (9: "db9").
    pub wavelet_order: usize,
    /// Width of its damping along the angle \[Fourier samples\].
    pub wavelet_sigma: f32,
    /// Weight of the correction in Titarenko's method (Appl. Math. Lett. 23:1489); smaller is stronger.
    pub regularization_alpha: f64,
    /// Half-value of Raven's window (RSI 69:2978) \[Fourier samples across the columns\].
    pub fft_cutoff: f32,
    /// Order of that window.
    pub fft_order: usize,
    /// Frequencies along the angle on each side of 0 that it filters.
    pub fft_rows: usize,
}

impl Default for StripeConfig {
    fn default() -> Self {
        StripeConfig {
            method: StripeMethod::None,
            snr: 3.0,
            large_size: 51,
            small_size: 21,
            drop_ratio: 0.1,
            normalize: true,
            filter_sigma: 3.0,
            fit_order: 2,
            fit_sigma: 10.0,
            normalize_sigma: 15.0,
            wavelet_levels: 5,
            wavelet_order: 9,
            wavelet_sigma: 1.0,
            regularization_alpha: 5e-4,
            fft_cutoff: 20.0,
            fft_order: 8,
            fft_rows: 1,
        }
    }
}

/// Stripe removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum StripeMethod {
    /// Leave them.
    None,
    /// Algorithm 3.
    Sorting,
    /// Algorithm 2.
    Filtering,
    /// Algorithm 1.
    Fitting,
    /// Algorithm 5.
    Large,
    /// Algorithm 6, then algorithm 5 for what it leaves, as published.
    Dead,
    /// Algorithms 6, 5, 4 and 3 in this order.
    All,
    /// Algorithm 4 with interpolation across the stripes.
    Interpolation,
    /// Column means smoothed (Rivers' normalisation).
    Normalization,
    /// Wavelet-Fourier filter (Muench et al. 2009).
    WaveletFft,
    /// Smoothest correction of the column means (Titarenko et al. 2010).
    Regularization,
    /// Low-pass of the lowest frequencies along the angle (Raven 1998).
    Fft,
}

/// `[center]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CenterConfig {
    /// Which methods are asked.
    pub method: CenterMethod,
    /// The axis by hand \[px\], at the middle row; nothing is searched then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Lean of a given axis \[px per row\].
    pub slope: f64,
    /// Half width of the search around the detector middle \[px\]; 0: a quarter of the width.
    pub search_px: f64,
    /// Heights that are asked, spread over the rows with sample.
    pub heights: usize,
    /// Rows averaged at each height.
    pub rows_per_height: usize,
    /// Largest lean that is believed \[degrees\]; a fit beyond it is taken as level.
    pub max_lean_deg: f64,
    /// Disagreement of the methods that is still accepted \[px\].
    pub tolerance_px: f64,
}

impl Default for CenterConfig {
    fn default() -> Self {
        CenterConfig {
            method: CenterMethod::Auto,
            value: None,
            slope: 0.0,
            search_px: 0.0,
            heights: 7,
            rows_per_height: 1,
            max_lean_deg: 2.0,
            tolerance_px: 2.0,
        }
    }
}

/// How the rotation axis is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum CenterMethod {
    /// All that suit the scan, compared.
    Auto,
    /// Vo 2014, OE 22:19078.
    DoubleWedge,
    /// Projections half a turn apart, one mirrored.
    PhaseCorrelation,
    /// Every view against the one half a turn later; needs more than 180 degrees.
    MirrorMatch,
    /// The sharpest of slices reconstructed with many axes; every view votes. Slow.
    TrialSlices,
}

/// `[reconstruct]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReconstructConfig {
    /// Algorithm.
    pub method: ReconstructMethod,
    /// Window on the ramp.
    pub filter: FilterWindow,
    /// Where the window ends, as a share of the Nyquist frequency, 0 to 1.
    pub cutoff: f64,
    /// Width to which a row is extended, as a multiple of the detector width; a sample wider than that makes it longer.
    pub padding: f64,
    /// How rows of a sample wider than the detector go on.
    pub truncation: Truncation,
    /// Diameter of the sample, where it is wider than the detector and known \[mm\].
    pub sample_diameter_mm: Option<f64>,
    /// Samples per pixel of the filtered row, interpolated in the filter's own FFT: 1, 2 or 4.
    pub upsample: usize,
    /// Detector rows, `A..B` (B not included); empty: all.
    pub rows: String,
    /// Part of the slice, `X0..X1,Y0..Y1` \[px\]; empty: all.
    pub crop: String,
    /// Voxels outside this radius, as a share of half the width, are set to 0; 0: none.
    pub mask_radius: f64,
    /// How wide a slice the scan tells.
    pub acquisition: Acquisition,
    /// Rows and columns of the detector averaged in groups, for previews: the voxel is as many times larger.
    pub binning: usize,
    /// A leaning axis mixes heights; where it does by more than this at the edge of the detector, rows are taken along
    /// the lean \[px\].
    pub level_above: f64,
    /// How back-projection reads its samples on a GPU.
    pub gpu_kernel: GpuKernel,
    /// Where the voxels stand.
    pub grid: GridConfig,
}

impl Default for ReconstructConfig {
    fn default() -> Self {
        ReconstructConfig {
            method: ReconstructMethod::Auto,
            filter: FilterWindow::Ramp,
            cutoff: 1.0,
            padding: 2.0,
            truncation: Truncation::Auto,
            sample_diameter_mm: None,
            upsample: 2,
            rows: String::new(),
            crop: String::new(),
            mask_radius: 1.0,
            acquisition: Acquisition::Auto,
            binning: 1,
            level_above: 1.0,
            gpu_kernel: GpuKernel::Auto,
            grid: GridConfig::default(),
        }
    }
}

/// How rows of a sample wider than the detector go on: see [`crate::reconstruct::support`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Truncation {
    /// As the chord of a disc, whose radius is given or found in the rows; else as [`Truncation::RollOff`].
    Auto,
    /// The edge values, rolling off over half the width of the detector.
    RollOff,
}

/// How wide a slice a scan tells: see [`crate::reconstruct::acquisition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Acquisition {
    /// Half where a full turn was taken with the axis near the edge of the detector.
    Auto,
    /// As wide as the detector.
    Full,
    /// A full turn that sees each side once: up to twice as wide.
    Half,
}

/// `[reconstruct.grid]`: a point p of the output stands at scale R p + shift in the scan, from the rotation axis and
/// the middle row; R turns x (columns) towards y (rows).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GridConfig {
    /// `[x, y, z]` \[px\]
    pub shift: [f64; 3],
    /// Turn about the rotation axis \[degrees\].
    pub rotation: f64,
    /// Pixels of the scan per voxel.
    pub scale: f64,
}

impl Default for GridConfig {
    fn default() -> Self {
        GridConfig {
            shift: [0.0; 3],
            rotation: 0.0,
            scale: 1.0,
        }
    }
}

/// Reconstruction algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ReconstructMethod {
    /// What is faster for the size at equal accuracy.
    Auto,
    /// Filtered back-projection.
    Fbp,
    /// Gridding (non-uniform FFT).
    Fourier,
}

/// How back-projection reads its samples on a GPU. Which one is fastest differs between GPUs: `benches/gpu.sh` times all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum GpuKernel {
    /// Plain or wide, by the class of the GPU.
    Auto,
    /// Single precision from buffers, four slices at once.
    Plain,
    /// The same with eight slices at once, bit for bit.
    Wide,
    /// Half precision from buffers: each sample is rounded to 2^-12.
    Half,
    /// Single precision from textures that the GPU interpolates, shares in steps of 1/256.
    Texture,
    /// Half precision from textures.
    TextureHalf,
}

/// Window on the ramp filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "the names say it; the formulas stand in reconstruct::filter"
)]
pub enum FilterWindow {
    Ramp,
    SheppLogan,
    Cosine,
    Hamming,
    Hann,
    Parzen,
    Butterworth,
}

/// `[align]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlignConfig {
    /// What is searched.
    pub method: AlignMethod,
    /// The shift by hand \[voxel\], `[x, y, z]`; nothing is searched then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<[f64; 3]>,
    /// The rotation by hand \[degrees\], `[rx, ry, rz]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<[f64; 3]>,
    /// Largest shift that is searched, as a share of each side of the volume.
    pub search: f64,
    /// Largest tilt about x and y that `rigid` looks for \[degrees\]; memory is kept for it. 0: none.
    pub max_tilt_deg: f64,
    /// Below this confidence (0 to 1) the run warns.
    pub min_confidence: f64,
}

impl Default for AlignConfig {
    fn default() -> Self {
        AlignConfig {
            method: AlignMethod::Translation,
            shift: None,
            rotation: None,
            search: 0.25,
            max_tilt_deg: 0.5,
            min_confidence: 0.5,
        }
    }
}

impl AlignConfig {
    /// Whether pilots are compared; else the motion is given or none.
    #[must_use]
    pub fn searches(&self) -> bool {
        self.method != AlignMethod::None && self.shift.is_none() && self.rotation.is_none()
    }
}

/// What the alignment searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AlignMethod {
    /// Three shifts.
    Translation,
    /// Three shifts and the turn about the rotation axis.
    Rigid,
    /// Nothing: the scans are on one grid already.
    None,
}

/// `[difference]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DifferenceConfig {
    /// Fit gain and offset of the target over unchanged material first.
    pub match_intensity: bool,
    /// Smoothing of both volumes before the subtraction: sigma of a Gaussian \[voxel\], 0: none.
    pub smooth_sigma: f64,
    /// Median of the difference over a cube of this edge \[voxel\] instead, 0: none.
    pub smooth_median: usize,
    /// Where the noise comes from.
    pub noise: NoiseSource,
    /// Widen the threshold at edges of the reference by what unchanged edges leave in the difference.
    pub edge_noise: bool,
    /// Share of the slices on which the null difference is made; 0: as many as the noise needs.
    pub null_share: f64,
    /// Change counts beyond this multiple of the noise.
    pub sigma: f64,
    /// Share of false voxels among those that count as changed; given: `sigma` is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fdr: Option<f64>,
    /// Change counts beyond this \[1/cm\] (1/px where the pixel size is unknown); given: `sigma` is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absolute: Option<f64>,
    /// Sums take in so many voxels around those beyond the threshold.
    pub grow: usize,
    /// 6, 18 or 26 neighbours join a grain.
    pub connectivity: u8,
    /// Smaller grains are noise: dropped from the labels and from `grains.csv`, counted \[voxels\].
    pub min_grain_voxels: u64,
    /// Voxels outside this radius, as a share of half the width, are left out of every measurement.
    pub radius: f64,
    /// Slices at which nothing is measured at each end of the volume.
    pub skip_slices: usize,
    /// Bins of `histogram.csv`.
    pub histogram_bins: usize,
}

impl Default for DifferenceConfig {
    fn default() -> Self {
        DifferenceConfig {
            match_intensity: true,
            smooth_sigma: 0.0,
            smooth_median: 0,
            noise: NoiseSource::Auto,
            edge_noise: true,
            null_share: 0.0,
            sigma: 5.0,
            fdr: None,
            absolute: None,
            grow: 1,
            connectivity: 26,
            min_grain_voxels: 8,
            radius: 0.95,
            skip_slices: 0,
            histogram_bins: 400,
        }
    }
}

/// Where the noise of a difference comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoiseSource {
    /// The larger of the two.
    Auto,
    /// Even against odd projections of both scans.
    Halves,
    /// The unchanged voxels of the difference; no halves are reconstructed.
    Voxels,
}

/// `[mass]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MassConfig {
    /// Mass attenuation of the moving species at the beam's energy \[cm2/g\].
    pub mass_attenuation_cm2_g: f64,
    /// Its relative uncertainty.
    pub mass_attenuation_rel_err: f64,
    /// Area of the electrode \[cm2\], for the Faraday check; 0: no check.
    pub electrode_area_cm2: f64,
    /// Molar mass of the species \[g/mol\].
    pub molar_mass_g_mol: f64,
    /// Electrons per ion.
    pub valence: u32,
    /// Relative uncertainty of charge and area together, for the error of the ratio.
    pub charge_rel_err: f64,
}

impl Default for MassConfig {
    fn default() -> Self {
        // sodium at 44.79 keV (NIST), one electron
        MassConfig {
            mass_attenuation_cm2_g: 0.319,
            mass_attenuation_rel_err: 0.02,
            electrode_area_cm2: 0.0,
            molar_mass_g_mol: 22.990,
            valence: 1,
            charge_rel_err: 0.01,
        }
    }
}

/// `[electrochemistry]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ElectrochemistryConfig {
    /// CSV file, relative to the config file.
    pub path: PathBuf,
    /// Column of the time \[s\].
    pub time_column: String,
    /// Column of the voltage \[V\].
    pub voltage_column: String,
    /// Column of the current; empty: none.
    pub current_column: String,
    /// Start of the table's clock (RFC 3339), to place scans that have a `time`; empty: their order on the axis.
    pub start: String,
}

impl Default for ElectrochemistryConfig {
    fn default() -> Self {
        ElectrochemistryConfig {
            path: PathBuf::new(),
            time_column: "time_s".into(),
            voltage_column: "voltage_v".into(),
            current_column: String::new(),
            start: String::new(),
        }
    }
}

impl Config {
    /// Reads a config file and lays `key=value` pairs over it; paths become relative to the file's folder.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Input`] (not TOML), [`Error::UnknownKey`], [`Error::Config`].
    pub fn load(path: Option<&Path>, overrides: &[(String, String)]) -> Result<Config> {
        let (text, origin) = match path {
            Some(path) => (
                std::fs::read_to_string(path).map_err(Error::io("read", path))?,
                path.display().to_string(),
            ),
            None => (String::new(), "the flags".to_string()),
        };
        let mut config = parse(&text, &origin, overrides)?;
        if let Some(folder) = path.and_then(Path::parent) {
            config.resolve_paths(folder);
        }
        config.validate()?;
        Ok(config)
    }

    fn resolve_paths(&mut self, folder: &Path) {
        self.series.output = folder.join(&self.series.output);
        if !["", "none"].contains(&self.run.scratch.as_str()) {
            self.run.scratch = folder.join(&self.run.scratch).display().to_string();
        }
        for scan in &mut self.scan {
            scan.path = folder.join(&scan.path);
        }
        if let Some(table) = &mut self.electrochemistry {
            table.path = folder.join(&table.path);
        }
    }

    /// The input table of one scan: its own over the common one.
    #[must_use]
    pub fn input_of(&self, scan: &ScanConfig) -> InputConfig {
        let common = &self.input;
        match &scan.input {
            None => common.clone(),
            Some(own) => InputConfig {
                data: own.data.clone().or_else(|| common.data.clone()),
                flats: own.flats.clone().or_else(|| common.flats.clone()),
                darks: own.darks.clone().or_else(|| common.darks.clone()),
                angles: own.angles.clone().or_else(|| common.angles.clone()),
                image_key: own.image_key.clone().or_else(|| common.image_key.clone()),
                detector: own.detector.clone().or_else(|| common.detector.clone()),
                angle_unit: own.angle_unit.or(common.angle_unit),
                monitor: own.monitor.clone().or_else(|| common.monitor.clone()),
                shifts: own.shifts.clone().or_else(|| common.shifts.clone()),
                bad_projections: own.bad_projections.or(common.bad_projections),
                exclude: if own.exclude.is_empty() {
                    common.exclude.clone()
                } else {
                    own.exclude.clone()
                },
            },
        }
    }

    /// The table of the rotation axis of one scan: an axis given for it over the common one.
    #[must_use]
    pub fn center_of(&self, scan: &ScanConfig) -> CenterConfig {
        let mut center = self.center.clone();
        if scan.axis.is_some() {
            center.value = scan.axis;
            center.slope = scan.axis_slope.unwrap_or(0.0);
        }
        center
    }

    /// The scan that `scan` is compared with; `None` for the series' reference itself, and for the first scan where each is
    /// compared with the previous one (`reference = "previous"`, unless a scan has that name).
    #[must_use]
    pub fn reference_of<'a>(&'a self, scan: &'a ScanConfig) -> Option<&'a str> {
        let common = if self.series.reference.is_empty() {
            self.scan.first().map_or("", |first| first.name.as_str())
        } else {
            self.series.reference.as_str()
        };
        let reference = scan.reference.as_deref().unwrap_or(common);
        if reference == PREVIOUS && self.scan.iter().all(|other| other.name != PREVIOUS) {
            let place = self.scan.iter().position(|other| other.name == scan.name)?;
            return Some(self.scan.get(place.checked_sub(1)?)?.name.as_str());
        }
        (reference != scan.name).then_some(reference)
    }

    /// Judges every value; the first that breaks a rule is the error.
    ///
    /// # Errors
    /// [`Error::Config`] with the key, the value and the rule.
    pub fn validate(&self) -> Result<()> {
        let positive = |key: &str, value: f64| {
            if value > 0.0 && value.is_finite() {
                Ok(())
            } else {
                Err(Error::config(key, value, "must be above 0"))
            }
        };
        let within = |key: &str, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(Error::config(
                    key,
                    value,
                    format!("must lie between {low} and {high}"),
                ))
            }
        };
        if let Some(size) = self.series.pixel_size_um {
            positive("series.pixel_size_um", size)?;
        }
        within("run.stall_warning", self.run.stall_warning, 0.0, 1e6)?;
        within(
            "correct.floor_counts",
            f64::from(self.correct.floor_counts),
            0.0,
            1e9,
        )?;
        within(
            "correct.min_transmission",
            f64::from(self.correct.min_transmission),
            1e-12,
            0.5,
        )?;
        positive(
            "correct.zinger.threshold",
            f64::from(self.correct.zinger.threshold),
        )?;
        within(
            "correct.zinger.size",
            self.correct.zinger.size as f64,
            1.0,
            64.0,
        )?;
        within(
            "correct.lock.ratio",
            f64::from(self.correct.lock.ratio),
            1.0,
            1e6,
        )?;
        within(
            "correct.lock.projections",
            self.correct.lock.projections as f64,
            16.0,
            1e6,
        )?;
        within("correct.double_flat", self.correct.double_flat, 0.0, 1e4)?;
        self.correct.beam.air_ranges()?;
        let (spots, phase) = (&self.correct.spots, &self.correct.phase);
        for (key, value, low, high) in [
            (
                "beam.air_columns",
                self.correct.beam.air_columns as f64,
                1.0,
                1e6,
            ),
            ("spots.threshold", spots.threshold.into(), 1e-3, 1e3),
            (
                "spots.grow",
                spots.grow.into(),
                1e-3,
                spots.threshold.into(),
            ),
            ("spots.sigma", spots.sigma.into(), 0.5, 1e3),
        ] {
            within(&format!("correct.{key}"), value, low, high)?;
        }
        if phase.method != PhaseMethod::None {
            for (key, value, high) in [
                ("distance_mm", phase.distance_mm, 1e6),
                ("energy_kev", phase.energy_kev, 1e4),
                ("delta_beta", phase.delta_beta, 1e7),
            ] {
                if !(value > 0.0 && value <= high) {
                    return Err(Error::config(
                        format!("correct.phase.{key}"),
                        value,
                        format!("is needed by correct.phase.method: above 0, at most {high}"),
                    ));
                }
            }
        }
        positive("correct.stripe.snr", f64::from(self.correct.stripe.snr))?;
        within(
            "correct.stripe.large_size",
            self.correct.stripe.large_size as f64,
            1.0,
            1001.0,
        )?;
        within(
            "correct.stripe.small_size",
            self.correct.stripe.small_size as f64,
            1.0,
            1001.0,
        )?;
        within(
            "correct.stripe.drop_ratio",
            f64::from(self.correct.stripe.drop_ratio),
            0.0,
            0.9,
        )?;
        within(
            "correct.stripe.fit_order",
            self.correct.stripe.fit_order as f64,
            0.0,
            9.0,
        )?;
        positive(
            "correct.stripe.filter_sigma",
            f64::from(self.correct.stripe.filter_sigma),
        )?;
        positive(
            "correct.stripe.fit_sigma",
            f64::from(self.correct.stripe.fit_sigma),
        )?;
        positive(
            "correct.stripe.normalize_sigma",
            f64::from(self.correct.stripe.normalize_sigma),
        )?;
        let stripe = &self.correct.stripe;
        for (key, value, low, high) in [
            ("wavelet_levels", stripe.wavelet_levels as f64, 1.0, 12.0),
            ("wavelet_order", stripe.wavelet_order as f64, 1.0, 20.0),
            ("wavelet_sigma", stripe.wavelet_sigma.into(), 0.01, 1e4),
            (
                "regularization_alpha",
                stripe.regularization_alpha,
                1e-9,
                1e3,
            ),
            ("fft_cutoff", stripe.fft_cutoff.into(), 0.1, 1e5),
            ("fft_order", stripe.fft_order as f64, 1.0, 64.0),
            ("fft_rows", stripe.fft_rows as f64, 0.0, 1000.0),
        ] {
            within(&format!("correct.stripe.{key}"), value, low, high)?;
        }
        within("center.search_px", self.center.search_px, 0.0, 1e6)?;
        within("center.heights", self.center.heights as f64, 1.0, 1000.0)?;
        within(
            "center.rows_per_height",
            self.center.rows_per_height as f64,
            1.0,
            1000.0,
        )?;
        within("center.max_lean_deg", self.center.max_lean_deg, 0.0, 45.0)?;
        positive("center.tolerance_px", self.center.tolerance_px)?;
        within("reconstruct.cutoff", self.reconstruct.cutoff, 0.01, 1.0)?;
        within("reconstruct.padding", self.reconstruct.padding, 1.0, 8.0)?;
        if ![1, 2, 4].contains(&self.reconstruct.upsample) {
            return Err(Error::config(
                "reconstruct.upsample",
                self.reconstruct.upsample,
                "must be 1, 2 or 4",
            ));
        }
        if let Some(diameter) = self.reconstruct.sample_diameter_mm {
            positive("reconstruct.sample_diameter_mm", diameter)?;
            if self.reconstruct.truncation == Truncation::RollOff {
                return Err(Error::config(
                    "reconstruct.sample_diameter_mm",
                    diameter,
                    "is of no use with reconstruct.truncation = \"roll-off\": leave one of the two out",
                ));
            }
        }
        within(
            "reconstruct.mask_radius",
            self.reconstruct.mask_radius,
            0.0,
            2.0,
        )?;
        within(
            "reconstruct.binning",
            self.reconstruct.binning as f64,
            1.0,
            64.0,
        )?;
        within(
            "reconstruct.level_above",
            self.reconstruct.level_above,
            0.0,
            1e9,
        )?;
        self.reconstruct.grid.validate()?;
        self.reconstruct.row_range(usize::MAX)?;
        self.reconstruct.crop_ranges()?;
        within("align.search", self.align.search, 0.01, 0.5)?;
        within("align.min_confidence", self.align.min_confidence, 0.0, 1.0)?;
        within("align.max_tilt_deg", self.align.max_tilt_deg, 0.0, 5.0)?;
        if let Some([rx, ry, rz]) = self.align.rotation {
            within("align.rotation", rx.hypot(ry), 0.0, 5.0)?;
            within("align.rotation", rz, -360.0, 360.0)?;
        }
        positive("difference.sigma", self.difference.sigma)?;
        within(
            "difference.smooth_sigma",
            self.difference.smooth_sigma,
            0.0,
            20.0,
        )?;
        if let Some(absolute) = self.difference.absolute {
            positive("difference.absolute", absolute)?;
        }
        let median = self.difference.smooth_median;
        if ![0, 3, 5, 7].contains(&median) {
            return Err(Error::config(
                "difference.smooth_median",
                median,
                "must be 0 (none), 3, 5 or 7 voxels",
            ));
        }
        if median > 0 && self.difference.smooth_sigma > 0.0 {
            return Err(Error::config(
                "difference.smooth_median",
                median,
                "excludes difference.smooth_sigma: set one of the two to 0",
            ));
        }
        within(
            "difference.null_share",
            self.difference.null_share,
            0.0,
            1.0,
        )?;
        if let Some(rate) = self.difference.fdr {
            within("difference.fdr", rate, 1e-9, 0.5)?;
            if self.difference.absolute.is_some() {
                return Err(Error::config(
                    "difference.fdr",
                    rate,
                    "excludes difference.absolute: leave one of the two out",
                ));
            }
        }
        within("difference.grow", self.difference.grow as f64, 0.0, 8.0)?;
        if ![6, 18, 26].contains(&self.difference.connectivity) {
            return Err(Error::config(
                "difference.connectivity",
                self.difference.connectivity,
                "must be 6, 18 or 26",
            ));
        }
        within("difference.radius", self.difference.radius, 0.01, 2.0)?;
        within(
            "difference.histogram_bins",
            self.difference.histogram_bins as f64,
            2.0,
            100_000.0,
        )?;
        if let Some(mass) = &self.mass {
            positive("mass.mass_attenuation_cm2_g", mass.mass_attenuation_cm2_g)?;
            within(
                "mass.mass_attenuation_rel_err",
                mass.mass_attenuation_rel_err,
                0.0,
                1.0,
            )?;
            within("mass.electrode_area_cm2", mass.electrode_area_cm2, 0.0, 1e6)?;
            positive("mass.molar_mass_g_mol", mass.molar_mass_g_mol)?;
            within("mass.valence", f64::from(mass.valence), 1.0, 8.0)?;
            within("mass.charge_rel_err", mass.charge_rel_err, 0.0, 1.0)?;
        }
        self.run.memory_bytes()?;
        self.run.device_choice()?;
        self.validate_scans()
    }

    fn validate_scans(&self) -> Result<()> {
        let names: Vec<&str> = self.scan.iter().map(|scan| scan.name.as_str()).collect();
        for (index, scan) in self.scan.iter().enumerate() {
            let plain = !scan.name.is_empty()
                && scan.name != "."
                && scan.name != ".."
                && scan
                    .name
                    .chars()
                    .all(|c| c.is_alphanumeric() || "-_.+ ".contains(c));
            if !plain {
                return Err(Error::config(
                    format!("scan[{index}].name"),
                    format!("{:?}", scan.name),
                    "becomes a folder: use letters, digits, space, '-', '_', '+' or '.'",
                ));
            }
            if names[..index].contains(&scan.name.as_str()) {
                return Err(Error::config(
                    format!("scan[{index}].name"),
                    &scan.name,
                    "is used twice; names must differ",
                ));
            }
            if scan.path.as_os_str().is_empty() {
                return Err(Error::config(
                    format!("scan[{index}].path"),
                    "\"\"",
                    "give the file or folder of the scan",
                ));
            }
            if scan.axis_slope.is_some() && scan.axis.is_none() {
                return Err(Error::config(
                    format!("scan[{index}].axis_slope"),
                    scan.axis_slope.unwrap_or_default(),
                    "is the lean of an axis given by hand: give scan.axis too, or leave it out",
                ));
            }
            if let Some(scale) = scan.magnification {
                let rule = if self.reference_of(scan).is_none() {
                    "is pixels per pixel of the reference, and this scan is the reference; leave it out, or give reconstruct.grid.scale"
                } else if !(0.9..=1.1).contains(&scale) {
                    "must lie between 0.9 and 1.1: pixels of this scan per pixel of its reference"
                } else {
                    ""
                };
                if !rule.is_empty() {
                    let key = format!("scan[{index}].magnification");
                    return Err(Error::config(key, scale, rule));
                }
            }
            if let Some(reference) = self.reference_of(scan)
                && !names.contains(&reference)
            {
                return Err(Error::config(
                    format!("scan[{index}].reference"),
                    reference,
                    format!("names no scan; the scans are {}", names.join(", ")),
                ));
            }
        }
        Ok(())
    }
}

impl RunConfig {
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

impl GridConfig {
    fn validate(&self) -> Result<()> {
        let GridConfig {
            shift,
            rotation,
            scale,
        } = self;
        let rule = |key: &str, value: String, rule: &str| {
            Err(Error::config(
                format!("reconstruct.grid.{key}"),
                value,
                rule,
            ))
        };
        if shift.iter().any(|s| s.is_nan() || s.abs() > 1e5) {
            return rule(
                "shift",
                format!("{shift:?}"),
                "must be three numbers of at most 1e5 px",
            );
        }
        if rotation.is_nan() || rotation.abs() > 360.0 {
            return rule(
                "rotation",
                rotation.to_string(),
                "must lie between -360 and 360 degrees",
            );
        }
        if !(0.9..=1.1).contains(scale) {
            return rule(
                "scale",
                scale.to_string(),
                "must lie between 0.9 and 1.1; for coarser voxels use reconstruct.binning",
            );
        }
        Ok(())
    }
}

impl ReconstructConfig {
    /// Detector rows to reconstruct, cut from `n_rows`.
    ///
    /// # Errors
    /// [`Error::Config`] for anything but `A..B` with `A < B <= n_rows`.
    pub fn row_range(&self, n_rows: usize) -> Result<std::ops::Range<usize>> {
        if self.rows.trim().is_empty() {
            return Ok(0..n_rows);
        }
        let range = parse_range(&self.rows).ok_or_else(|| {
            Error::config(
                "reconstruct.rows",
                &self.rows,
                "must be A..B, e.g. 100..200, with A below B",
            )
        })?;
        if n_rows != usize::MAX && range.end > n_rows {
            return Err(Error::config(
                "reconstruct.rows",
                &self.rows,
                format!("the scan has {n_rows} detector rows (0..{n_rows})"),
            ));
        }
        Ok(range)
    }

    /// Ranges of x and y to reconstruct.
    ///
    /// # Errors
    /// [`Error::Config`] for anything but `X0..X1,Y0..Y1`.
    pub fn crop_ranges(&self) -> Result<Option<[std::ops::Range<usize>; 2]>> {
        if self.crop.trim().is_empty() {
            return Ok(None);
        }
        let mut parts = self.crop.split(',').map(parse_range);
        match (parts.next().flatten(), parts.next().flatten(), parts.next()) {
            (Some(x), Some(y), None) => Ok(Some([x, y])),
            _ => Err(Error::config(
                "reconstruct.crop",
                &self.crop,
                "must be X0..X1,Y0..Y1, e.g. 100..900,100..900",
            )),
        }
    }
}

fn parse_range(text: &str) -> Option<std::ops::Range<usize>> {
    let (start, end) = text.trim().split_once("..")?;
    let start = if start.trim().is_empty() {
        0
    } else {
        start.trim().parse().ok()?
    };
    let end = end.trim().parse().ok()?;
    (start < end).then_some(start..end)
}

/// Parses TOML with `key=value` pairs laid over it.
///
/// # Errors
/// As for [`Config::load`].
pub fn parse(text: &str, origin: &str, overrides: &[(String, String)]) -> Result<Config> {
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        Error::input(origin, one_line(&error), "correct the TOML")
    })?;
    for (key, value) in overrides {
        set(&mut table, key, value)?;
    }
    check_keys(&table, origin)?;
    Config::deserialize(toml::Value::Table(table.clone()))
        .map_err(|error| blame(&table, origin, &error))
}

/// Finds the table that does not fit, so that the error names its key.
fn blame(table: &toml::Table, origin: &str, error: &toml::de::Error) -> Error {
    let text = one_line(error);
    for (name, value) in table {
        let alone: toml::Table = [(name.clone(), value.clone())].into_iter().collect();
        if Config::deserialize(toml::Value::Table(alone)).is_ok() {
            continue;
        }
        if let toml::Value::Table(inner) = value {
            for (key, value) in inner {
                let leaf: toml::Table = [(key.clone(), value.clone())].into_iter().collect();
                let alone: toml::Table = [(name.clone(), toml::Value::Table(leaf))]
                    .into_iter()
                    .collect();
                if Config::deserialize(toml::Value::Table(alone)).is_err() {
                    return Error::config(format!("{name}.{key}"), value, text);
                }
            }
        }
        return Error::config(name, value, text);
    }
    Error::input(origin, text, "compare with `tomodelta config --default`")
}

fn one_line(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.retain(|line| !line.starts_with('|') && !line.chars().all(|c| "^| ".contains(c)));
    lines.join(" ")
}

/// Lays one `key=value` over the table; the value is TOML, or a bare word taken as a string.
fn set(table: &mut toml::Table, key: &str, value: &str) -> Result<()> {
    let parsed = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_string()));
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let mut here = table;
    for part in parts {
        let next = here
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        here = next.as_table_mut().ok_or_else(|| {
            Error::config(
                key,
                value,
                format!("{part} is not a table; see `tomodelta config --default`"),
            )
        })?;
    }
    here.insert(last.to_string(), parsed);
    Ok(())
}

/// Every key of every table, optional ones included, as the text of the defaults has them.
fn known_keys() -> toml::Table {
    let mut text = String::new();
    for line in DEFAULT_TOML.lines() {
        // optional keys stand in the default text as `#key = example`, without a space behind the hash
        let optional = line
            .strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['));
        text.push_str(optional.unwrap_or(line));
        text.push('\n');
    }
    let mut known: toml::Table = text.parse().expect("default.toml is tested");
    // `input` of a scan takes the keys of [input], which the text explains once
    let input = known.get("input").cloned();
    let scan = known
        .get_mut("scan")
        .and_then(|scans| scans.get_mut(0))
        .and_then(toml::Value::as_table_mut);
    if let (Some(input), Some(scan)) = (input, scan) {
        scan.insert("input".into(), input);
    }
    known
}

fn check_keys(table: &toml::Table, origin: &str) -> Result<()> {
    fn walk(found: &toml::Table, known: &toml::Table, prefix: &str, origin: &str) -> Result<()> {
        for (key, value) in found {
            let full = format!("{prefix}{key}");
            let Some(known_value) = known.get(key) else {
                let nearest = known
                    .keys()
                    .map(|candidate| (strsim::jaro_winkler(key, candidate), candidate))
                    .max_by(|a, b| a.0.total_cmp(&b.0))
                    .filter(|(score, _)| *score > 0.6)
                    .map(|(_, candidate)| format!(", the nearest known key is {prefix}{candidate}"))
                    .unwrap_or_default();
                return Err(Error::UnknownKey {
                    origin: origin.to_string(),
                    key: full,
                    nearest,
                });
            };
            match (value, known_value) {
                (toml::Value::Table(value), toml::Value::Table(known)) => {
                    walk(value, known, &format!("{full}."), origin)?;
                }
                (toml::Value::Array(values), toml::Value::Array(known)) => {
                    if let Some(toml::Value::Table(known)) = known.first() {
                        for (index, value) in values.iter().enumerate() {
                            if let toml::Value::Table(value) = value {
                                walk(value, known, &format!("{full}[{index}]."), origin)?;
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
    walk(table, &known_keys(), "", origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_text_gives_the_defaults() {
        assert_eq!(
            parse(DEFAULT_TOML, "default.toml", &[]).unwrap(),
            Config::default()
        );
    }

    #[test]
    fn the_default_text_names_every_key() {
        let mut full = Config {
            mass: Some(MassConfig::default()),
            ..Config::default()
        };
        full.electrochemistry = Some(ElectrochemistryConfig::default());
        let text = toml::to_string(&full).unwrap();
        fn keys(table: &toml::Table, prefix: &str, out: &mut Vec<String>) {
            for (key, value) in table {
                match value {
                    toml::Value::Table(inner) => keys(inner, &format!("{prefix}{key}."), out),
                    _ => out.push(format!("{prefix}{key}")),
                }
            }
        }
        let (mut ours, mut known) = (Vec::new(), Vec::new());
        keys(&text.parse().unwrap(), "", &mut ours);
        keys(&known_keys(), "", &mut known);
        for key in ours {
            assert!(known.contains(&key), "{key} is missing from default.toml");
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = parse("[difference]\nsigmma = 3.0\n", "a.toml", &[]).unwrap_err();
        assert!(error.to_string().contains("difference.sigma"), "{error}");
        let error = parse("[[scan]]\nname = 'a'\npth = 'b'\n", "a.toml", &[]).unwrap_err();
        assert!(error.to_string().contains("scan[0].path"), "{error}");
        let scan =
            |input: &str| format!("[[scan]]\nname = 'a'\npath = 'b'\ninput = {{ {input} }}\n");
        assert!(parse(&scan("flats = 'flats'"), "a.toml", &[]).is_ok());
        let error = parse(&scan("flat = 'flats'"), "a.toml", &[]).unwrap_err();
        assert!(error.to_string().contains("scan[0].input.flats"), "{error}");
    }

    #[test]
    fn a_wrong_type_names_its_key() {
        let error = parse("[center]\nheights = 'many'\n", "a.toml", &[]).unwrap_err();
        assert!(error.to_string().contains("center.heights"), "{error}");
    }

    #[test]
    fn flags_win_over_the_file() {
        let over = [
            ("difference.sigma".to_string(), "4".to_string()),
            ("run.device".to_string(), "cpu".to_string()),
        ];
        let config = parse("[difference]\nsigma = 3.0\n", "a.toml", &over).unwrap();
        assert_eq!(
            (config.difference.sigma, config.run.device.as_str()),
            (4.0, "cpu")
        );
    }

    #[test]
    fn the_previous_scan_can_be_the_reference() {
        let scans = "[[scan]]\nname = \"a\"\npath = \"a\"\n[[scan]]\nname = \"b\"\npath = \"b\"\n[[scan]]\nname = \"c\"\npath = \"c\"\n";
        let of = |text: &str| -> Vec<Option<String>> {
            let config = parse(&format!("{text}{scans}"), "x", &[]).unwrap();
            config.validate().unwrap();
            config
                .scan
                .iter()
                .map(|scan| config.reference_of(scan).map(str::to_string))
                .collect()
        };
        let some = |name: &str| Some(name.to_string());
        assert_eq!(
            of("[series]\nreference = \"previous\"\n"),
            [None, some("a"), some("b")]
        );
        assert_eq!(of(""), [None, some("a"), some("a")]);
        // a scan of that name is meant by its name
        let named = scans.replace("\"a\"", "\"previous\"");
        let config = parse(
            &format!("[series]\nreference = \"previous\"\n{named}"),
            "x",
            &[],
        )
        .unwrap();
        assert_eq!(config.reference_of(&config.scan[2]), Some("previous"));
    }

    #[test]
    fn memory_has_units() {
        let bytes = |text: &str| {
            RunConfig {
                memory: text.into(),
                ..RunConfig::default()
            }
            .memory_bytes()
        };
        assert_eq!(bytes("12GiB").unwrap(), Some(12 << 30));
        assert_eq!(bytes("500MB").unwrap(), Some(500_000_000));
        assert!(bytes("lots").is_err() && bytes("-3GiB").is_err() && bytes("0").is_err());
    }

    #[test]
    fn a_resolved_config_reads_back_the_same() {
        let config = Config {
            mass: Some(MassConfig::default()),
            ..Config::default()
        };
        assert_eq!(
            parse(&toml::to_string(&config).unwrap(), "again", &[]).unwrap(),
            config
        );
    }
}
