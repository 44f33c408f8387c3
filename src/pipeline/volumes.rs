//! The difference of two volumes that exist already: the `difference` command.
//!
//! Without projections the target can only be moved by resampling its voxels: cubic convolution (Keys 1981, IEEE
//! Trans. ASSP 29:1153, a = -1/2), once, slab by slab. That smooths its noise, which the record says; `run` avoids it.

use std::ops::Range;
use std::path::Path;

use ndarray::{Array3, Axis, s};
use serde_json::json;

use crate::align::{self, PilotPair, keys_weights};
use crate::config::{AlignConfig, Config};
use crate::difference;
use crate::error::{Error, Result};
use crate::io::volume::{self, VolumeMeta, VolumeReader};
use crate::pipeline::heights::Heights;
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
    let (motion, mut alignment) =
        register(reference.as_ref(), target.as_ref(), config, cap, session)?;
    alignment.reference = pair.reference.display().to_string();
    let moved = MovedVolume::new(target, motion);
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
    let readers = difference::Readers {
        bytes: target.bytes_per_slice() + reference.bytes_per_slice(),
        together: target.slices_together().max(reference.slices_together()),
    };
    let slab = plan::difference_slab(shape, config, cap, readers, "the difference")?.rows;
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
    let motion = Motion::from_alignment(record.shift_voxel, record.rotation_deg[2]);
    let rim = record.rotation_deg[2].to_radians().abs() * shape[2] as f64 / 2.0;
    if record
        .shift_voxel
        .iter()
        .all(|shift| shift.abs() < LEAST_SHIFT)
        && rim < LEAST_SHIFT
    {
        record.warnings.push(format!(
            "the shift found is below {LEAST_SHIFT} voxel: nothing was moved"
        ));
        return Ok((Motion::default(), record));
    }
    Ok((motion, record))
}

/// A volume seen from the reference grid: voxel p is taken at R p + s by cubic convolution; NaN outside.
pub struct MovedVolume {
    inner: Box<dyn VolumeReader>,
    motion: Motion,
}

impl MovedVolume {
    /// `inner` moved back by `motion`, which does not tilt.
    pub(crate) fn new(inner: Box<dyn VolumeReader>, motion: Motion) -> Self {
        MovedVolume { inner, motion }
    }
}

impl VolumeReader for MovedVolume {
    fn meta(&self) -> &VolumeMeta {
        self.inner.meta()
    }

    fn read(&self, z: Range<usize>) -> Result<Array3<f32>> {
        let [n_z, n_y, n_x] = self.inner.meta().shape;
        let shift = self.motion.shift_z_px;
        let whole = shift.floor();
        let weights = keys_weights(shift - whole);
        let low = (z.start as f64 + whole - 1.0).clamp(0.0, n_z as f64 - 1.0) as usize;
        let high = ((z.end as f64 - 1.0 + whole + 2.0).clamp(0.0, n_z as f64 - 1.0)) as usize + 1;
        let window = self.inner.read(low..high)?;
        let mut out = Array3::<f32>::from_elem((z.len(), n_y, n_x), f32::NAN);
        let covered = Heights::shifted(shift).covered(&z, n_z, 1);
        ndarray::Zip::indexed(out.axis_iter_mut(Axis(0))).par_for_each(|k, mut slice| {
            if !covered.contains(&(z.start + k)) {
                return;
            }
            let mut between = ndarray::Array2::<f32>::zeros((n_y, n_x));
            for (tap, &weight) in weights.iter().enumerate() {
                let row = (z.start + k) as f64 + whole + tap as f64 - 1.0;
                let row = row.clamp(0.0, n_z as f64 - 1.0) as usize - low;
                between.scaled_add(weight as f32, &window.slice(s![row, .., ..]));
            }
            self.turn(&between, &mut slice);
        });
        Ok(out)
    }

    fn read_labels(&self, _z: Range<usize>) -> Result<Array3<u32>> {
        Err(Error::config(
            "volume",
            "labels",
            "labels cannot be interpolated; give the volume of attenuation",
        ))
    }

    fn bytes_per_slice(&self) -> u64 {
        // the window beyond the slab, and a slice between two others for each thread
        let [_, n_y, n_x] = self.inner.meta().shape;
        let slices = 4 + rayon::current_num_threads();
        self.inner.bytes_per_slice() + (slices * n_y * n_x * 4) as u64
    }
}

impl MovedVolume {
    fn turn(&self, slice: &ndarray::Array2<f32>, out: &mut ndarray::ArrayViewMut2<'_, f32>) {
        let (n_y, n_x) = slice.dim();
        let (middle_y, middle_x) = ((n_y as f64 - 1.0) / 2.0, (n_x as f64 - 1.0) / 2.0);
        let motion = self.motion.in_plane;
        let (sin, cos) = motion.rotation_rad.sin_cos();
        for ((j, i), value) in out.indexed_iter_mut() {
            let (x, y) = (i as f64 - middle_x, j as f64 - middle_y);
            let at_x = cos * x - sin * y + motion.shift_x_px + middle_x;
            let at_y = sin * x + cos * y + motion.shift_y_px + middle_y;
            if at_x < 0.0 || at_y < 0.0 || at_x > n_x as f64 - 1.0 || at_y > n_y as f64 - 1.0 {
                continue;
            }
            let (whole_x, whole_y) = (at_x.floor(), at_y.floor());
            let (weights_x, weights_y) =
                (keys_weights(at_x - whole_x), keys_weights(at_y - whole_y));
            let mut sum = 0.0;
            for (tap_y, weight_y) in weights_y.iter().enumerate() {
                let row = (whole_y + tap_y as f64 - 1.0).clamp(0.0, n_y as f64 - 1.0) as usize;
                for (tap_x, weight_x) in weights_x.iter().enumerate() {
                    let col = (whole_x + tap_x as f64 - 1.0).clamp(0.0, n_x as f64 - 1.0) as usize;
                    sum += weight_y * weight_x * f64::from(slice[[row, col]]);
                }
            }
            *value = sum as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Quadratic(VolumeMeta);

    fn value(z: f64, y: f64, x: f64) -> f64 {
        0.01 * x * x - 0.02 * y * y + 0.03 * x * y + 0.05 * z * z - z + 0.2 * x
    }

    impl VolumeReader for Quadratic {
        fn meta(&self) -> &VolumeMeta {
            &self.0
        }
        fn read(&self, z: Range<usize>) -> Result<Array3<f32>> {
            let [_, n_y, n_x] = self.0.shape;
            Ok(Array3::from_shape_fn((z.len(), n_y, n_x), |(k, j, i)| {
                value((z.start + k) as f64, j as f64 - 15.0, i as f64 - 20.0) as f32
            }))
        }
        fn read_labels(&self, _: Range<usize>) -> Result<Array3<u32>> {
            unreachable!("no labels here")
        }
        fn bytes_per_slice(&self) -> u64 {
            0
        }
    }

    #[test]
    fn a_moved_volume_is_the_function_at_moved_points() {
        let meta = VolumeMeta {
            shape: [20, 31, 41],
            voxel_type: crate::io::volume::VoxelType::F32,
            unit: "1/cm".into(),
            voxel_size_um: None,
            first_row: 0,
            provenance: serde_json::Value::Null,
        };
        let motion = Motion::from_alignment([1.3, -0.6, 2.4], 5.0);
        let moved = MovedVolume {
            inner: Box::new(Quadratic(meta)),
            motion,
        };
        let slab = moved.read(4..12).unwrap();
        let (sin, cos) = 5f64.to_radians().sin_cos();
        for (k, j, i) in [(0, 15, 20), (3, 10, 25), (7, 20, 12)] {
            let (x, y) = (i as f64 - 20.0, j as f64 - 15.0);
            let expected = value(
                (4 + k) as f64 + 2.4,
                sin * x + cos * y - 0.6,
                cos * x - sin * y + 1.3,
            );
            // cubic convolution reproduces a quadratic exactly; f32 rounding is left
            assert!(
                (f64::from(slab[[k, j, i]]) - expected).abs() < 1e-4 * 20.0,
                "{k} {j} {i}"
            );
            let unmoved = value((4 + k) as f64, y, x);
            assert!((unmoved - expected).abs() > 0.1, "the check is blind");
        }
        assert!(
            moved.read(18..20).unwrap().iter().all(|v| v.is_nan()),
            "above the volume there is nothing"
        );
    }
}
