//! The files of a difference beside its volumes.

use std::path::Path;

use serde::Serialize;

use super::Context;
use super::edges::Residue;
use super::grains::Grain;
use super::inputs::Inputs;
use super::mass::{self, MassScale};
use super::measure::Rule;
use super::noise::NoiseModel;
use super::per_height::{self, Height, Totals};
use crate::config::VolumeFormat;
use crate::error::{Error, Result};
use crate::io::volume::{self, partial};
use crate::record::{DifferenceRecord, GrainRow, HistogramRow, NullRecord, PerHeightRow};

const TABLES: [&str; 4] = [
    "per_height.csv",
    "grains.csv",
    "histogram.csv",
    "difference.json",
];

/// Shifts up to here move a profile by as much as its slope says \[voxel\].
const LINEAR: f64 = 1.0;
/// Share of a sum from which on change below the threshold is worth a warning.
const MISSED: f64 = 0.02;

/// Refuses a folder that holds a difference already, before any work is done for it.
///
/// # Errors
/// [`crate::Error::OutputExists`] without `overwrite`; [`crate::Error::Input`] where a volume in the way was not written by
/// this program.
pub fn check_output(folder: &Path, overwrite: bool) -> Result<()> {
    for stem in ["difference", "labels"] {
        for format in [
            VolumeFormat::Zarr,
            VolumeFormat::Tiff,
            VolumeFormat::Hdf5,
            VolumeFormat::Npy,
        ] {
            volume::check_output(&folder.join(volume::file_name(stem, format)), overwrite)?;
        }
    }
    let table = TABLES
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.exists());
    match table {
        Some(path) if !overwrite => Err(Error::OutputExists { path }),
        _ => Ok(()),
    }
}

/// What the stream over the volumes gave.
pub(super) struct Results<'a> {
    pub(super) inputs: &'a Inputs<'a>,
    pub(super) model: &'a NoiseModel,
    pub(super) rule: Rule,
    /// What edges of the reference leave in the difference.
    pub(super) edge: Residue,
    pub(super) heights: &'a [Height],
    pub(super) grains: &'a [Grain],
    /// Grains dropped, and their voxels.
    pub(super) dropped: [u64; 2],
    pub(super) histogram: Vec<HistogramRow>,
    pub(super) not_finite: u64,
    pub(super) null: Option<NullRecord>,
}

/// Writes the tables and `difference.json`, which comes last.
pub(super) fn write(
    folder: &Path,
    context: &Context<'_>,
    results: &Results<'_>,
) -> Result<DifferenceRecord> {
    let inputs = results.inputs;
    let in_per_cm = inputs.unit == "1/cm";
    let scale = match (context.mass, inputs.voxel_size_um) {
        (Some(mass), Some(size)) if in_per_cm => Some(MassScale::new(mass, size)),
        _ => None,
    };
    let rows = per_height::rows(
        inputs.shape[0],
        results.heights,
        results.grains,
        &inputs.matched,
        inputs.voxel_size_um,
        scale.as_ref(),
        results.edge.along_z.hypot(context.shift_err_z.min(LINEAR)),
    );
    let grains = grain_rows(results.grains, inputs.voxel_size_um, scale.as_ref());
    partial::write_file(
        &folder.join(TABLES[0]),
        &csv(&rows, &PerHeightRow::default())?,
    )?;
    let empty = GrainRow {
        mass_ug: scale.map(|_| 0.0),
        ..GrainRow::default()
    };
    partial::write_file(&folder.join(TABLES[1]), &csv(&grains, &empty)?)?;
    partial::write_file(
        &folder.join(TABLES[2]),
        &csv(&results.histogram, &HistogramRow::default())?,
    )?;

    let totals = per_height::totals(
        results.heights,
        results.grains,
        results.model,
        &inputs.matched,
    );
    let mut record = record(context, results, &totals);
    if let (Some(mass), Some(scale)) = (context.mass, &scale) {
        record.mass = Some(mass::record(
            mass,
            scale,
            totals.sums,
            totals.errs.map(|parts| parts.combined()),
            context.charge_mah_cm2,
        ));
    }
    record.warnings = warnings(context, results, &record);
    let json = serde_json::to_vec_pretty(&record)
        .expect("plain data has no maps with other keys than strings");
    partial::write_file(&folder.join(TABLES[3]), &json)?;
    Ok(record)
}

fn grain_rows(grains: &[Grain], voxel_um: Option<f64>, mass: Option<&MassScale>) -> Vec<GrainRow> {
    let volume = voxel_um.unwrap_or(f64::NAN).powi(3);
    let row = |(index, grain): (usize, &Grain)| {
        let [z, y, x] = grain.centroid();
        GrainRow {
            id: index as u32 + 1,
            sign: grain.sign,
            voxels: grain.voxels,
            volume_um3: grain.voxels as f64 * volume,
            z,
            y,
            x,
            zmin: grain.low[0] as usize,
            zmax: grain.high[0] as usize,
            ymin: grain.low[1] as usize,
            ymax: grain.high[1] as usize,
            xmin: grain.low[2] as usize,
            xmax: grain.high[2] as usize,
            sum_per_cm: grain.sum,
            mean_per_cm: grain.sum / grain.voxels as f64,
            peak_per_cm: f64::from(grain.peak),
            mass_ug: mass.map(|mass| mass.ug(grain.sum)),
        }
    };
    grains.iter().enumerate().map(row).collect()
}

/// A table with its header, also when it has no rows: then `empty` says the columns.
fn csv<T: Serialize>(rows: &[T], empty: &T) -> Result<Vec<u8>> {
    let failed = |error: ::csv::Error| Error::input("table", error.to_string(), "report this");
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row).map_err(failed)?;
    }
    if rows.is_empty() {
        writer.serialize(empty).map_err(failed)?;
    }
    let mut bytes = writer
        .into_inner()
        .map_err(|error| failed(error.into_error().into()))?;
    if rows.is_empty() {
        let header = bytes
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(bytes.len(), |end| end + 1);
        bytes.truncate(header);
    }
    Ok(bytes)
}

fn record(context: &Context<'_>, results: &Results<'_>, totals: &Totals) -> DifferenceRecord {
    let heights = results.heights;
    let median = |of: fn(&Height) -> f64| {
        let mut values: Vec<f64> = heights.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    let count = |sign: i8| {
        results
            .grains
            .iter()
            .filter(|grain| grain.sign == sign)
            .count() as u64
    };
    let sum = |side: usize| heights.iter().map(|height| height.voxels[side]).sum();
    DifferenceRecord {
        target: context.target.to_string(),
        reference: context.reference.to_string(),
        unit: results.inputs.unit.clone(),
        voxel_size_um: results.inputs.voxel_size_um,
        gain: results.inputs.matched.gain,
        offset: results.inputs.matched.offset,
        noise: median(|height| height.sigma),
        threshold: median(|height| height.threshold),
        threshold_rule: match results.rule {
            Rule::Sigma(multiple) if results.model.profile.is_flat() => {
                format!("{multiple} sigma of the noise of each slice")
            }
            Rule::Sigma(multiple) => {
                format!("{multiple} sigma of the noise of each slice and distance from the axis")
            }
            Rule::Discovery(rate, multiple) => {
                format!("{multiple:.2} sigma, which keeps the false-discovery rate at {rate}")
            }
            Rule::Absolute(level) => format!("{level} {} everywhere", results.inputs.unit),
        },
        edge_residue_voxel: results.edge.in_plane,
        edge_residue_z_voxel: results.edge.along_z,
        edge_ripple_voxel: results.edge.ripple,
        noise_excess: results.model.excess,
        null: results.null.clone(),
        voxels: heights.iter().map(|height| height.measured).sum(),
        increase_voxels: sum(0),
        decrease_voxels: sum(1),
        expected_by_noise: heights.iter().map(|height| height.expected).sum(),
        increase_sum: totals.sums[0],
        decrease_sum: totals.sums[1],
        increase_sum_err: totals.errs[0].combined(),
        decrease_sum_err: totals.errs[1].combined(),
        increase_err_parts: totals.errs[0],
        decrease_err_parts: totals.errs[1],
        increase_doubtful_sum: totals.doubtful[0],
        decrease_doubtful_sum: totals.doubtful[1],
        increase_below_sum: totals.errs[0].missed,
        decrease_below_sum: totals.errs[1].missed,
        total_sum: totals.all,
        total_sum_err: totals.all_err,
        increase_grains: count(1),
        decrease_grains: count(-1),
        dropped_grains: results.dropped[0],
        dropped_voxels: results.dropped[1],
        mass: None,
        warnings: Vec::new(),
    }
}

fn warnings(
    context: &Context<'_>,
    results: &Results<'_>,
    record: &DifferenceRecord,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let inputs = results.inputs;
    if !["1/cm", "1/px"].contains(&inputs.unit.as_str()) {
        warnings.push(format!(
            "the unit of the volumes is {}, so columns named per_cm are in that unit",
            inputs.unit
        ));
    } else if inputs.unit == "1/px" {
        warnings.push("the pixel size is unknown: columns named per_cm are in 1/px, and columns in um are NaN".into());
    }
    if context.mass.is_some() && (inputs.unit != "1/cm" || inputs.voxel_size_um.is_none()) {
        warnings.push("[mass] is given, but masses need a change in 1/cm and the pixel size; give series.pixel_size_um".into());
    }
    if context.config.smooth_median > 1 {
        warnings.push(
            "a median does not keep sums: it takes what is small or thin, so that sums and masses come out too small, beyond their errors; difference.smooth_sigma keeps them".into(),
        );
    }
    if !inputs.matched.has_contrast {
        warnings.push(
            "the grey values differ too little to fit a gain between the scans; it was taken as 1"
                .into(),
        );
    } else if (inputs.matched.gain - 1.0).abs() > 0.1 {
        warnings.push(format!("the grey values of the scans differ by a factor of {:.3}; check flats, energy and units", inputs.matched.gain));
    }
    if results.not_finite > 0 {
        warnings.push(format!(
            "{} measured voxels are not finite and were left out",
            results.not_finite
        ));
    }
    let off = results
        .heights
        .iter()
        .filter(|height| height.sigma > 0.0)
        .max_by(|a, b| {
            let of = |height: &Height| (height.center / height.sigma).abs();
            of(a).total_cmp(&of(b))
        });
    if let Some(height) = off.filter(|height| height.center.abs() > 0.3 * height.sigma) {
        warnings.push(format!(
            "unchanged material is off zero by up to {:.2} sigma (slice {}), which shifts sums over many voxels",
            height.center / height.sigma,
            height.z
        ));
    }
    if results.model.tails > 2.0 {
        warnings.push(format!(
            "{:.1} times as many voxels lie beyond 3 sigma as a normal distribution has: more noise than stated may exceed the threshold (rings, streaks, misalignment)",
            results.model.tails
        ));
    }
    for (sign, below, sum) in [
        ("increase", record.increase_below_sum, record.increase_sum),
        ("decrease", record.decrease_below_sum, record.decrease_sum),
    ] {
        if below > MISSED * sum {
            warnings.push(format!(
                "{sign} of {below:.4} {unit} lies away from grains in patches that stand out while their voxels stay below the threshold; {sum:.4} {unit} were found: \
                 a larger difference.smooth_sigma finds more of it, unless it is drift",
                unit = inputs.unit
            ));
        }
    }
    if let Some(excess) = results.model.excess.filter(|excess| *excess > 1.5) {
        warnings.push(format!(
            "unchanged voxels scatter {excess:.1} times as much as the projections alone explain: rings, misalignment, drift, or a change of most of the sample"
        ));
    }
    if let Some(null) = record.null.as_ref() {
        let beyond = (null.increase_voxels + null.decrease_voxels) as f64;
        let expected = 2.0 * null.expected_by_noise;
        if null.grains > 0 || beyond > 10.0 * expected + 10.0 {
            warnings.push(format!(
                "the null difference (even against odd projections, {} slices) is not empty: {beyond} voxels beyond the threshold, {expected:.1} expected, {} grains; raise difference.sigma",
                null.slices, null.grains
            ));
        }
    }
    let beyond = record.increase_voxels + record.decrease_voxels;
    if beyond as f64 > 0.3 * record.voxels as f64 {
        warnings.push("more than 30 % of the voxels changed, so what counts as unchanged, and its noise, is uncertain".into());
    }
    warnings
}
