//! A sample of slices of half the difference of even and odd projections, from which the noise of a difference is known.
//!
//! They are reconstructed as the volume is, motion and all, with the projections added with alternating signs. See
//! [`crate::difference::Halves`] for what they say.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::Axis;

use crate::config::VolumeFormat;
use crate::error::Result;
use crate::gpu::Device;
use crate::io::volume::{self, VolumeMeta, VolumeReader};
use crate::pipeline::output::{read_json, write_json};
use crate::pipeline::reconstruct_scan::ScanJob;
use crate::pipeline::rows::RowSource;
use crate::progress::Progress;
use crate::record::NoiseRecord;
use crate::scan::Sinograms;

/// Volume and record of the sample in the folder of a scan.
#[must_use]
pub fn paths(folder: &Path, format: VolumeFormat) -> [PathBuf; 2] {
    [
        folder.join(volume::file_name("noise", format)),
        folder.join("noise.json"),
    ]
}

/// Rows whose odd projections have the other sign.
pub struct Alternating<'a>(pub &'a mut dyn RowSource);

impl RowSource for Alternating<'_> {
    fn n_rows(&self) -> usize {
        self.0.n_rows()
    }
    fn rows_into(&mut self, rows: Range<usize>, used: Option<Sinograms>) -> Result<Sinograms> {
        let mut sinograms = self.0.rows_into(rows, used)?;
        for mut odd in sinograms.axis_iter_mut(Axis(1)).skip(1).step_by(2) {
            odd.mapv_inplace(|value| -value);
        }
        Ok(sinograms)
    }
}

/// Reconstructs the slices `groups` (from 0 at `job.slices.start`) of `(even - odd) / 2` and writes them with their record, which
/// comes last. `meta` is that of the volume.
///
/// # Errors
/// Those of the source, the device and of writing.
pub fn sample(
    folder: &Path,
    format: VolumeFormat,
    meta: &VolumeMeta,
    groups: &[Range<usize>],
    job: &ScanJob<'_>,
    source: &mut dyn RowSource,
    device: &Device,
    progress: &Progress,
    overwrite: bool,
) -> Result<()> {
    let [path, record] = paths(folder, format);
    let total: usize = groups.iter().map(ExactSizeIterator::len).sum();
    let mut provenance = meta.provenance.clone();
    provenance["content"] = serde_json::json!(
        "(even - odd projections) / 2 of the slices listed in noise.json: the noise of the volume without the sample"
    );
    let meta = VolumeMeta {
        shape: [total, meta.shape[1], meta.shape[2]],
        provenance,
        ..meta.clone()
    };
    let mut writer = volume::create(&path, format, &meta, overwrite)?;
    let stage = progress.stage("noise: even against odd", total as u64, "slices");
    let mut alternating = Alternating(source);
    let mut written = 0;
    for group in groups {
        let part = ScanJob {
            slices: job.slices.start + group.start..job.slices.start + group.end,
            // noise alone has nothing in common with the reference
            beyond: None,
            ..job.clone()
        };
        part.run(&mut alternating, device, &stage, None, |z, slices, _| {
            writer.write(written + z, slices)
        })?;
        written += group.len();
    }
    writer.finish()?;
    let groups = groups.iter().map(|g| [g.start, g.end]).collect();
    write_json(&record, &NoiseRecord { groups })
}

/// The sample in the folder of a scan; `None` where there is none of these `groups`.
#[must_use]
pub fn open(
    folder: &Path,
    format: VolumeFormat,
    groups: &[Range<usize>],
) -> Option<Box<dyn VolumeReader>> {
    let [path, record] = paths(folder, format);
    let record: NoiseRecord = read_json(&record).ok()?;
    let same = record.groups.len() == groups.len()
        && record
            .groups
            .iter()
            .zip(groups)
            .all(|(a, b)| a[0] == b.start && a[1] == b.end);
    if !same {
        return None;
    }
    volume::open(&path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::center::AxisFit;
    use crate::config::ReconstructConfig;
    use crate::gpu::Device;
    use crate::phantom::{Object, Phantom, PhantomScan};
    use crate::pipeline::geometry::ScanGeometry;
    use crate::pipeline::reconstruct_scan::{Motion, ScanJob};
    use crate::pipeline::rows::{PlainSource, RowSource};
    use crate::progress::Progress;
    use crate::reconstruct::geometry::Grid;
    use crate::scan::Sinograms;
    use ndarray::{Array3, s};
    use rand_distr::{Distribution, StandardNormal};

    const ANGLES: usize = 301;
    const COLS: usize = 128;
    const ROWS: usize = 12;

    /// A phantom, noise, or both.
    struct Source {
        phantom: Option<PhantomScan>,
        noise: f32,
    }

    impl RowSource for Source {
        fn n_rows(&self) -> usize {
            ROWS
        }
        fn rows_into(&mut self, rows: Range<usize>, _: Option<Sinograms>) -> Result<Sinograms> {
            let mut out = match &self.phantom {
                Some(phantom) => PlainSource(phantom).rows(rows.clone())?,
                None => Sinograms::zeros((rows.len(), ANGLES, COLS)),
            };
            for (mut sinogram, row) in out.outer_iter_mut().zip(rows) {
                let mut random = rand_pcg::Pcg64Mcg::new(77 + row as u128);
                for value in &mut sinogram {
                    let z: f32 = StandardNormal.sample(&mut random);
                    *value += self.noise * z;
                }
            }
            Ok(out)
        }
    }

    fn phantom(blur_px: f64) -> PhantomScan {
        let mut objects = vec![Object::cylinder(
            [3.0, 1.0, 0.0],
            50.0,
            [99.0, 99.0],
            0.0,
            0.01,
        )];
        for k in 0..30 {
            let (sin, cos) = (2.4 * f64::from(k)).sin_cos();
            let r = 3.0 + 1.4 * f64::from(k);
            objects.push(Object::sphere([r * cos, r * sin, 0.0], 4.0, 0.02));
        }
        let mut scan = PhantomScan::half_turn(Phantom::new(objects), ANGLES, ROWS, COLS);
        scan.blur_px = blur_px;
        scan
    }

    /// Volume and sample of a source, slab by slab of `slab` rows.
    fn run(source: &mut Source, slab: usize, shift_z: f64) -> (Array3<f32>, Array3<f32>) {
        let folder = tempfile::tempdir().unwrap();
        let angles: Vec<f64> = (0..ANGLES)
            .map(|k| std::f64::consts::PI * k as f64 / (ANGLES - 1) as f64)
            .collect();
        let axis = AxisFit {
            axis_px: (COLS as f64 - 1.0) / 2.0,
            ..AxisFit::default()
        };
        let config = ReconstructConfig::default();
        let geometry =
            ScanGeometry::of_parts(&angles, [ROWS, COLS], None, &axis, &(0..ROWS), &config)
                .unwrap();
        let job = ScanJob {
            geometry: &geometry,
            slices: 0..ROWS,
            middle_slice: (ROWS as f64 - 1.0) / 2.0,
            slab,
            grid: Grid::square(COLS),
            motion: Motion::from_alignment([0.3, -1.2, shift_z], 2.0),
            config: &config,
            scale: 1.0,
            meter: None,
            beyond: None,
        };
        let meta = VolumeMeta {
            shape: [ROWS, COLS, COLS],
            voxel_type: volume::VoxelType::F32,
            unit: "1/px".into(),
            voxel_size_um: None,
            first_row: 0,
            provenance: serde_json::json!({}),
        };
        let groups = vec![1..4, 6..12];
        let format = VolumeFormat::Npy;
        let mut volume = Array3::zeros((ROWS, COLS, COLS));
        let stage = Progress::new(true).stage("x", 1, "x");
        job.run(source, &Device::Cpu, &stage, None, |z, part, _| {
            volume
                .slice_mut(s![z..z + part.dim().0, .., ..])
                .assign(&part);
            Ok(())
        })
        .unwrap();
        let quiet = Progress::new(true);
        sample(
            folder.path(),
            format,
            &meta,
            &groups,
            &job,
            source,
            &Device::Cpu,
            &quiet,
            false,
        )
        .unwrap();
        assert!(
            open(folder.path(), format, &groups[..1]).is_none(),
            "other slices are another sample"
        );
        let sample = open(folder.path(), format, &groups).unwrap();
        (volume, sample.read(0..9).unwrap())
    }

    /// Standard deviation within `radius` of the middle, from `inner` on.
    fn deviation(slices: &Array3<f32>, inner: f64, radius: f64) -> f64 {
        let middle = (COLS as f64 - 1.0) / 2.0;
        let values: Vec<f64> = slices
            .indexed_iter()
            .filter(|((_, y, x), _)| {
                let r = (*y as f64 - middle).hypot(*x as f64 - middle);
                r < radius && r >= inner
            })
            .map(|(_, value)| f64::from(*value))
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    }

    #[test]
    fn the_sample_has_the_noise_of_the_volume_and_nothing_of_the_object() {
        let noise_only = |slab| {
            run(
                &mut Source {
                    phantom: None,
                    noise: 0.02,
                },
                slab,
                0.0,
            )
        };
        let (volume, sample) = noise_only(12);
        for (inner, outer) in [(0.0, 25.0), (25.0, 45.0), (45.0, 60.0)] {
            let (a, b) = (
                deviation(&volume, inner, outer),
                deviation(&sample, inner, outer),
            );
            // 10^4 voxels at least, of which noise correlated over 1.5 voxels leaves half: 1 % each
            assert!((b / a - 1.0).abs() < 0.04, "{inner}: {a} {b}");
        }
        let (_, other) = noise_only(5);
        assert_eq!(sample, other, "slabs do not matter");

        // without noise only what is too fine for half the projections is left, and optics leave little of that
        let leak = |blur: f64| {
            let source = &mut Source {
                phantom: Some(phantom(blur)),
                noise: 0.0,
            };
            let (volume, sample) = run(source, 12, 0.0);
            (deviation(&volume, 0.0, 60.0), deviation(&sample, 0.0, 60.0))
        };
        let ((object, sharp), (_, blurred)) = (leak(0.0), leak(0.7));
        eprintln!(
            "of an object of {object:.2e} {sharp:.2e} leak, {blurred:.2e} through optics of 0.7 px"
        );
        assert!(sharp < 0.02 * object && blurred < 0.005 * object);

        // and with both, the noise is the same as without the object
        let (_, both) = run(
            &mut Source {
                phantom: Some(phantom(0.7)),
                noise: 0.02,
            },
            12,
            0.0,
        );
        let (a, b) = (deviation(&sample, 0.0, 60.0), deviation(&both, 0.0, 60.0));
        assert!((b / a - 1.0).abs() < 0.01, "{a} {b}");
    }

    #[test]
    fn slices_without_rows_are_nan_in_the_sample_too() {
        let (volume, sample) = run(
            &mut Source {
                phantom: None,
                noise: 0.02,
            },
            5,
            2.5,
        );
        assert!(volume.slice(s![9, .., ..]).iter().all(|v| v.is_nan()));
        assert!(
            sample.slice(s![5, .., ..]).iter().all(|v| v.is_finite()),
            "slice 8"
        );
        assert!(
            sample.slice(s![6.., .., ..]).iter().all(|v| v.is_nan()),
            "slices 9 to 11"
        );
    }
}
