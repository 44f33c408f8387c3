//! What a run writes beside the volumes: the records that the report, and users' scripts, read back.

use std::collections::BTreeMap;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::progress::{Meter, Work};

/// `run.json`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// Version of the program.
    pub version: String,
    /// Title of the series.
    pub series: String,
    /// Start of the run, UTC.
    pub started: String,
    /// `cpu`, or name, backend and driver of the GPU.
    pub device: String,
    /// Threads used.
    pub threads: usize,
    /// Cap on host memory \[bytes\].
    pub memory_cap_bytes: u64,
    /// The resolved config.
    pub config: serde_json::Value,
    /// Names of the scans in order.
    pub scans: Vec<String>,
    /// `(target, reference)` of each difference in order.
    pub differences: Vec<(String, String)>,
    /// Inputs with size and hash.
    pub inputs: Vec<InputRecord>,
    /// The pixels that answer wrongly in the whole series, where they were looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<crate::correct::lock::LockRecord>,
    /// Wall time per stage \[s\], in order.
    pub stages: Vec<(String, f64)>,
    /// Where the time went, by kind of work, the report left out.
    pub work: Vec<WorkRecord>,
    /// Everything that a person should read.
    pub warnings: Vec<String>,
}

/// One kind of work.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkRecord {
    /// What was done; `all else` is what was not measured.
    pub name: String,
    /// Wall time \[s\].
    pub seconds: f64,
    /// Share of the run.
    pub share: f64,
    /// Bytes through it per second, where that says something.
    pub bytes_per_s: Option<f64>,
    /// Voxel updates per second, for reconstruction.
    pub updates_per_s: Option<f64>,
}

impl WorkRecord {
    /// Everything that `meter` measured of a run that took `wall`.
    #[must_use]
    pub fn all(meter: &Meter, wall: Duration) -> Vec<WorkRecord> {
        let rest = Work {
            name: "all else".into(),
            time: wall.saturating_sub(meter.total()),
            ..Work::default()
        };
        let record = |work: Work| {
            let seconds = work.time.as_secs_f64();
            let rate = |count: u64| (count > 0 && seconds > 0.0).then(|| count as f64 / seconds);
            WorkRecord {
                seconds,
                share: seconds / wall.as_secs_f64().max(1e-9),
                bytes_per_s: rate(work.bytes),
                updates_per_s: rate(work.updates),
                name: work.name,
            }
        };
        meter.work().into_iter().chain([rest]).map(record).collect()
    }
}

/// One input file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InputRecord {
    /// Scan that it belongs to.
    pub scan: String,
    /// Path as opened.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// BLAKE3 of the content (of the first and last MiB and the size where the file is larger than 64 MiB).
    pub blake3: String,
}

/// `scans/<scan>/scan.json`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ScanRecord {
    /// Name of the scan.
    pub name: String,
    /// Layout of the input.
    pub layout: String,
    /// Projections used.
    pub n_angles: usize,
    /// Numbers of the projections left out, counted from 0 in the file: by hand, or for their light.
    pub left_out: Vec<usize>,
    /// Detector rows.
    pub n_rows: usize,
    /// Detector columns.
    pub n_cols: usize,
    /// First and last angle \[degrees\].
    pub angle_range_deg: [f64; 2],
    /// Where the angles came from.
    pub angle_source: String,
    /// Size of a pixel \[um\].
    pub pixel_size_um: Option<f64>,
    /// Time of the scan, where known.
    pub time: Option<String>,
    /// Charge passed \[mAh/cm2\], where given.
    pub charge_mah_cm2: Option<f64>,
    /// The rotation axis.
    pub rotation_axis: crate::center::AxisFit,
    /// What the corrections touched.
    pub corrections: crate::correct::CorrectionCounts,
    /// Least, largest and mean value of the volume.
    pub value_range: ValueRange,
    /// Unit of the volume: `1/cm` or `1/px`.
    pub unit: String,
    /// Reconstruction: method, filter, device.
    pub reconstruction: BTreeMap<String, serde_json::Value>,
    /// Warnings about this scan.
    pub warnings: Vec<String>,
}

/// Range of the values of a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ValueRange {
    /// Least finite value.
    pub min: f64,
    /// Largest finite value.
    pub max: f64,
    /// Mean of the finite values.
    pub mean: f64,
    /// Values that are not finite.
    pub not_finite: u64,
}

/// `differences/<scan>/alignment.json`: how the target's sample is moved relative to the reference.
///
/// A point at x in the reference stands at R(x) + shift in the target, R being the rotation about the centre of
/// the volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlignmentRecord {
    /// `[x, y, z]` \[voxel\]; x to the right and y down along the slice's columns and rows, z along the detector rows.
    pub shift_voxel: [f64; 3],
    /// `[rx, ry, rz]` \[degrees\]: first the tilt, whose rotation vector is `[rx, ry, 0]` (rx turns y towards z, ry turns z
    /// towards x), then rz, which turns x towards y.
    pub rotation_deg: [f64; 3],
    /// One standard deviation of each \[degrees\]; 0 where it was not looked for or not believed.
    pub rotation_err_deg: [f64; 3],
    /// One standard deviation of each shift \[voxel\].
    pub shift_err_voxel: [f64; 3],
    /// 0 (chance) to 1 (certain); 1 for a motion given by hand, or none, which is taken as it stands ([`AlignmentRecord::measured`]).
    pub confidence: f64,
    /// Root mean square of reference minus target, before alignment, over the whole pilot volume.
    pub residual_before: f64,
    /// The same after alignment.
    pub residual_after: f64,
    /// Shift found at each of several heights: `[z, dx, dy, dz]`, relative to `shift_voxel`.
    pub per_height: Vec<[f64; 4]>,
    /// One standard deviation of each of these shifts \[voxel\]; the number of slices where a height does not fix one.
    pub per_height_err: Vec<[f64; 3]>,
    /// Root mean square of what is left in each octant around the middle, over that left at the same heights: `[x < 0, x >= 0]`
    /// fastest, then y, then z. Far from 1 in one of them: a rotation, a deformation, or change on one side.
    pub per_octant: Vec<f64>,
    /// What was added to the axis that the target's own projections gave, for it to stand as that of the reference does.
    pub axis_correction: Option<AxisCorrection>,
    /// Closure over three scans: the shift \[voxel\] that is found between this scan and another one of the same reference, both on the
    /// grid of the reference. 0 where the three alignments agree.
    pub closure_voxel: Option<[f64; 3]>,
    /// The other scan.
    pub closure_with: Option<String>,
    /// `translation`, `rigid`, `given` or `none`.
    pub method: String,
    /// Reference scan.
    pub reference: String,
    /// What a person should read.
    pub warnings: Vec<String>,
}

impl AlignmentRecord {
    /// Whether the motion was found, and its errors and residuals with it: not where it was given by hand, or none was asked for.
    #[must_use]
    pub fn measured(&self) -> bool {
        !matches!(self.method.as_str(), "given" | "none")
    }
}

/// How the axis of a scan stands against that of its reference, beyond what each scan says of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AxisCorrection {
    /// At `row` \[px\].
    pub axis_px: f64,
    /// One standard deviation \[px\].
    pub axis_err_px: f64,
    /// Lean \[px per row\].
    pub slope_px_per_row: f64,
    /// One standard deviation \[px per row\].
    pub slope_err_px_per_row: f64,
    /// Detector row of the target at which `axis_px` holds.
    pub row: f64,
}

impl AxisCorrection {
    /// The correction at detector row `row` \[px\].
    #[must_use]
    pub fn at(&self, row: f64) -> f64 {
        self.axis_px + self.slope_px_per_row * (row - self.row)
    }
}

/// `differences/<scan>/difference.json`: totals of a difference.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DifferenceRecord {
    /// Target scan.
    pub target: String,
    /// Reference scan.
    pub reference: String,
    /// Unit of the change: `1/cm` or `1/px`.
    pub unit: String,
    /// Size of a voxel \[um\], where known.
    pub voxel_size_um: Option<f64>,
    /// `target = gain * reference + offset` over unchanged material; the target was divided back.
    pub gain: f64,
    /// See `gain`.
    pub offset: f64,
    /// Median over the slices of the noise of the difference (one standard deviation of a voxel).
    pub noise: f64,
    /// Residue of unchanged edges, as a shift \[voxel\]: misalignment, and structure finer than the pixels. The threshold takes it in.
    pub edge_residue_voxel: f64,
    /// The same of faces across the axis.
    pub edge_residue_z_voxel: f64,
    /// Ripple around edges within a slice, over the root mean square of their gradient \[voxel\]. The threshold takes it in.
    pub edge_ripple_voxel: f64,
    /// Median noise of the unchanged voxels over the noise that even and odd projections say, where those were compared: what
    /// is beyond 1 are rings, misalignment, drift.
    pub noise_excess: Option<f64>,
    /// What the same rule finds in the null difference (even against odd projections of both scans).
    pub null: Option<NullRecord>,
    /// Median over the slices of the threshold.
    pub threshold: f64,
    /// How the threshold was set.
    pub threshold_rule: String,
    /// Voxels measured.
    pub voxels: u64,
    /// Voxels beyond the threshold.
    pub increase_voxels: u64,
    /// Voxels beyond the threshold on the other side.
    pub decrease_voxels: u64,
    /// Voxels expected beyond the threshold on each side by noise alone (normal distribution).
    pub expected_by_noise: f64,
    /// Sum of the change over increase voxels.
    pub increase_sum: f64,
    /// Sum of the change over decrease voxels, positive.
    pub decrease_sum: f64,
    /// Uncertainty of the sums.
    pub increase_sum_err: f64,
    /// Uncertainty of the sums.
    pub decrease_sum_err: f64,
    /// The parts of the uncertainty of the increase.
    pub increase_err_parts: SumErrorParts,
    /// The same of the decrease.
    pub decrease_err_parts: SumErrorParts,
    /// Of the sums, what nowhere exceeds twice the threshold: change, rings or streaks. The uncertainty holds as much of it as may
    /// be none.
    pub increase_doubtful_sum: f64,
    /// The same of the decrease.
    pub decrease_doubtful_sum: f64,
    /// Increase away from grains in cubes of 4 x 4 x 4 voxels that stand out by 6 sigma as a whole, while their voxels stay below the threshold: in no sum, and
    /// in the uncertainty.
    pub increase_below_sum: f64,
    /// The same of the decrease.
    pub decrease_below_sum: f64,
    /// Sum of the change over all measured voxels, thresholded or not.
    pub total_sum: f64,
    /// Its uncertainty.
    pub total_sum_err: f64,
    /// Grains of increase.
    pub increase_grains: u64,
    /// Grains of decrease.
    pub decrease_grains: u64,
    /// Grains dropped because they were smaller than `difference.min_grain_voxels`.
    pub dropped_grains: u64,
    /// Voxels of the dropped grains.
    pub dropped_voxels: u64,
    /// Masses, where `[mass]` is given.
    pub mass: Option<MassRecord>,
    /// What a person should read.
    pub warnings: Vec<String>,
}

/// The null difference: half the difference of even and odd projections of the target less that of the reference, which is
/// noise of the strength that the difference has, and no change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NullRecord {
    /// Slices that were sampled.
    pub slices: u64,
    /// Voxels measured in them.
    pub voxels: u64,
    /// Voxels beyond the threshold.
    pub increase_voxels: u64,
    /// Voxels beyond the threshold on the other side.
    pub decrease_voxels: u64,
    /// Voxels expected beyond the threshold on each side (normal distribution).
    pub expected_by_noise: f64,
    /// Grains of at least `difference.min_grain_voxels`; false by construction.
    pub grains: u64,
}

/// `scans/<scan>/noise.json`: which slices `noise.ome.zarr` holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NoiseRecord {
    /// First and last (not included) slice of each group, in the order of the volume.
    pub groups: Vec<[usize; 2]>,
}

/// What makes up the error of a sum of change, in the unit of the sum; the parts are independent of one another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SumErrorParts {
    /// Noise of the projections, correlated as the reconstruction makes it.
    pub noise: f64,
    /// What unchanged material scatters by beyond that, and is off zero by: rings, streaks, too few angles, drift.
    pub structure: f64,
    /// Change that hardly exceeds the threshold anywhere and may be none.
    pub doubtful: f64,
    /// Edges that do not meet, and (of a height) change that stands in the next slice.
    pub alignment: f64,
    /// Gain and offset of the grey values.
    pub matching: f64,
    /// Change in patches that stand out while their voxels stay below the threshold: the sum is too small by it.
    pub missed: f64,
}

impl SumErrorParts {
    /// One standard deviation.
    #[must_use]
    pub fn combined(&self) -> f64 {
        let SumErrorParts {
            noise,
            structure,
            doubtful,
            alignment,
            matching,
            missed,
        } = *self;
        [structure, doubtful, alignment, matching, missed]
            .into_iter()
            .fold(noise, f64::hypot)
    }
}

/// Masses of a difference.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MassRecord {
    /// Mass of the increase \[ug\].
    pub increase_ug: f64,
    /// Mass of the decrease, positive \[ug\].
    pub decrease_ug: f64,
    /// Increase minus decrease \[ug\].
    pub net_ug: f64,
    /// Uncertainty of the net mass \[ug\].
    pub net_err_ug: f64,
    /// Mass that the charge moves by Faraday's law \[ug\], where the charge and the area are known.
    pub faraday_ug: Option<f64>,
    /// Net over Faraday mass.
    pub ratio: Option<f64>,
    /// Its uncertainty: that of the net mass (sum and mass attenuation) and that of the charge.
    pub ratio_err: Option<f64>,
}

/// One row of `per_height.csv`, the columns in their order. A decrease is given as a positive number.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the names are the columns of the file, explained in the README"
)]
pub struct PerHeightRow {
    pub z: usize,
    pub height_um: f64,
    pub increase_voxels: u64,
    pub decrease_voxels: u64,
    pub increase_um3: f64,
    pub decrease_um3: f64,
    pub increase_sum_per_cm: f64,
    pub decrease_sum_per_cm: f64,
    pub net_sum_per_cm: f64,
    pub increase_sum_err: f64,
    pub decrease_sum_err: f64,
    pub increase_grains: u64,
    pub decrease_grains: u64,
    pub increase_mean_grain_um3: f64,
    pub decrease_mean_grain_um3: f64,
    pub noise_per_cm: f64,
    pub threshold_per_cm: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub increase_ug: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decrease_ug: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_ug: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net_ug_err: Option<f64>,
    #[serde(default)]
    pub increase_noise_err: f64,
    #[serde(default)]
    pub increase_structure_err: f64,
    #[serde(default)]
    pub increase_doubtful_err: f64,
    #[serde(default)]
    pub increase_alignment_err: f64,
    #[serde(default)]
    pub increase_matching_err: f64,
    #[serde(default)]
    pub decrease_noise_err: f64,
    #[serde(default)]
    pub decrease_structure_err: f64,
    #[serde(default)]
    pub decrease_doubtful_err: f64,
    #[serde(default)]
    pub decrease_alignment_err: f64,
    #[serde(default)]
    pub decrease_matching_err: f64,
    #[serde(default)]
    pub increase_missed_err: f64,
    #[serde(default)]
    pub decrease_missed_err: f64,
}

impl PerHeightRow {
    /// Fills in the parts of the errors of increase and decrease.
    pub fn set_parts(&mut self, parts: &[SumErrorParts; 2]) {
        let [up, down] = parts;
        self.increase_noise_err = up.noise;
        self.increase_structure_err = up.structure;
        self.increase_doubtful_err = up.doubtful;
        self.increase_alignment_err = up.alignment;
        self.increase_matching_err = up.matching;
        self.decrease_noise_err = down.noise;
        self.decrease_structure_err = down.structure;
        self.decrease_doubtful_err = down.doubtful;
        self.decrease_alignment_err = down.alignment;
        self.decrease_matching_err = down.matching;
        self.increase_missed_err = up.missed;
        self.decrease_missed_err = down.missed;
    }
}

/// One row of `grains.csv`; bounds are inclusive.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the names are the columns of the file, explained in the README"
)]
pub struct GrainRow {
    pub id: u32,
    pub sign: i8,
    pub voxels: u64,
    pub volume_um3: f64,
    pub z: f64,
    pub y: f64,
    pub x: f64,
    pub zmin: usize,
    pub zmax: usize,
    pub ymin: usize,
    pub ymax: usize,
    pub xmin: usize,
    pub xmax: usize,
    pub sum_per_cm: f64,
    pub mean_per_cm: f64,
    pub peak_per_cm: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mass_ug: Option<f64>,
}

/// One row of `histogram.csv`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the names are the columns of the file, explained in the README"
)]
pub struct HistogramRow {
    pub low_per_cm: f64,
    pub high_per_cm: f64,
    pub voxels: u64,
}
