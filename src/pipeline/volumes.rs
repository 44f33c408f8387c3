//! The difference of two volumes that exist already: the `difference` command.
//!
//! Without projections the target can only be moved by resampling its voxels ([`MovedVolume`]), once, slab by slab. That
//! smooths its noise, which the record says; `run` avoids it.

use std::path::Path;

use serde_json::json;

use crate::align::{self, PilotPair};
use crate::config::{AlignConfig, Config};
use crate::difference;
use crate::error::{Error, Result};
use crate::io::volume::{self, VolumeReader};
use crate::pipeline::heights::Heights;
use crate::pipeline::moved_volume::MovedVolume;
use crate::pipeline::output::{Existing, OutputFolder};
use crate::pipeline::pilot::bin_volume;
use crate::pipeline::reconstruct_scan::Motion;
use crate::pipeline::{Session, provenance};
use crate::plan;
use crate::record::{AlignmentRecord, DifferenceRecord};

/// Shifts below this are not worth resampling for \[voxel\].
const LEAST_SHIFT: f64 = 0.02;

/// The two volumes.
pub struct Pair<'a> {
    /// Reference.
    pub reference: &'a Path,
    /// Target.
    pub target: &'a Path,
    /// For both.
    pub hints: volume::Hints,
}

/// Aligns, subtracts, measures; writes the files of a difference into `output`.
///
/// # Errors
/// [`Error::Shape`] when the volumes differ in shape; those of every stage.
pub fn difference(
    pair: &Pair<'_>,
    output: &Path,
    config: &Config,
    session: &Session,
) -> Result<(DifferenceRecord, AlignmentRecord)> {
    let reference = volume::open_with(pair.reference, &pair.hints)?;
    let target = volume::open_with(pair.target, &pair.hints)?;
    let shape = reference.meta().shape;
    if target.meta().shape != shape {
        return Err(Error::Shape {
            what: format!(
                "{} against {} [z, y, x]",
                pair.target.display(),
                pair.reference.display()
            ),
            expected: shape.to_vec(),
            found: target.meta().shape.to_vec(),
            hint: "cut both to the same size first".into(),
        });
    }
    if target.meta().unit != reference.meta().unit {
        return Err(Error::input(
            pair.target,
            format!(
                "values are in {}, those of the reference in {}",
                target.meta().unit,
                reference.meta().unit
            ),
            "convert one of them, or state the unit of both with --unit",
        ));
    }
    let folder = OutputFolder::claim(output, session.existing)?;
    let cap = plan::memory_cap(config)?;
    let mut moved = MovedVolume::new(target, Motion::default());
    let slab = |target: &dyn VolumeReader| {
        let readers = difference::Readers {
            bytes: target.bytes_per_slice() + reference.bytes_per_slice(),
            together: target.slices_together().max(reference.slices_together()),
        };
        plan::difference_slab(shape, config, cap, readers, "the difference").map(|slab| slab.rows)
    };
    // too little memory is said before hours of work
    if config.align.searches() {
        slab(&moved)?;
    }
    let (motion, mut alignment) = register(
        reference.as_ref(),
        moved.inner.as_ref(),
        config,
        cap,
        session,
    )?;
    alignment.reference = pair.reference.display().to_string();
    moved.motion = motion;
    let still = motion == Motion::default();
    let target: &dyn VolumeReader = if still { moved.inner.as_ref() } else { &moved };
    if !still {
        alignment.warnings.push(
            "the target was resampled (cubic): its noise is smoothed; `tomodelta run` on the projections avoids this".into(),
        );
    }
    let [n_z, n_y, n_x] = shape;
    let shift = motion.in_plane.shift_x_px.hypot(motion.in_plane.shift_y_px);
    let covered = Heights::shifted(motion.shift_z_px).covered(&(0..n_z), n_z, n_x);
    let slab = slab(target)?;
    let name = |path: &Path| {
        path.file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    let context = difference::Context {
        target: &name(pair.target),
        reference: &name(pair.reference),
        config: &config.difference,
        mass: config.mass.as_ref(),
        charge_mah_cm2: None,
        shift_err_z: alignment.shift_err_voxel[2],
        halves: None,
        format: config.run.format,
        slab,
        valid_radius: (n_x.min(n_y) as f64 - 1.0) / 2.0 - shift,
        valid_z: covered,
        overwrite: session.existing == Existing::Overwrite,
        provenance: provenance(
            config,
            &name(pair.target),
            &[("reference", json!(name(pair.reference)))],
        ),
        progress: &session.progress,
    };
    let record = difference::run(reference.as_ref(), target, folder.path(), &context)?;
    Ok((record, alignment))
}

fn register(
    reference: &dyn VolumeReader,
    target: &dyn VolumeReader,
    config: &Config,
    cap: u64,
    session: &Session,
) -> Result<(Motion, AlignmentRecord)> {
    if let Some(record) = align::by_hand(&config.align) {
        let [rx, ry, rz] = record.rotation_deg;
        if rx != 0.0 || ry != 0.0 {
            return Err(Error::config(
                "align.rotation",
                format!("{:?}", record.rotation_deg),
                "volumes are turned about z only (the third number)",
            ));
        }
        return Ok((Motion::from_alignment(record.shift_voxel, rz), record));
    }
    let shape = reference.meta().shape;
    let binning = plan::pilot_binning(shape);
    plan::check_pilots(shape, cap, "aligning the volumes")?;
    let stage = session.progress.stage("aligning", 1, "pair");
    let pair = PilotPair {
        reference: bin_volume(reference, binning)?,
        target: bin_volume(target, binning)?,
        binning,
        radius: (shape[1].min(shape[2]) as f64 / 2.0 / binning as f64 - 2.0).max(2.0),
    };
    // volumes are resampled slice by slice: a tilt would only be said
    let upright = AlignConfig {
        max_tilt_deg: 0.0,
        ..config.align.clone()
    };
    let mut record = align::register(&pair, &upright)?;
    stage.inc(1);
    let turn_deg = record.rotation_deg[2];
    let rim = turn_deg.to_radians().abs() * shape[2] as f64 / 2.0;
    let [x, y, z] = record.shift_voxel;
    if [x, y, z, rim].iter().all(|way| way.abs() < LEAST_SHIFT) {
        record.warnings.push(format!(
            "the shift found is below {LEAST_SHIFT} voxel: nothing was moved"
        ));
        return Ok((Motion::default(), record));
    }
    // a turn that moves no voxel is not worth three times the work
    if rim >= LEAST_SHIFT || turn_deg == 0.0 {
        return Ok((Motion::from_alignment(record.shift_voxel, turn_deg), record));
    }
    record.warnings.push(format!(
        "the turn found moves the rim by less than {LEAST_SHIFT} voxel: it was left out"
    ));
    let motion = Motion::from_alignment(record.shift_voxel, 0.0);
    Ok((motion, record))
}
