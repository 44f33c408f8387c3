//! Takes the frames of a scan in batches: the next batch is computed while the last one is written.

use std::path::Path;

use rayon::prelude::*;

use super::detector::{Detector, FrameJob, FrameKind};
use super::large::{Layers, LayersProjector};
use super::series::{ScanPlan, Series};
use super::writers;
use crate::error::Result;
use crate::phantom::Projector;
use crate::progress::Progress;

/// Every frame in the order in which it is taken: darks, flats, projections, flats.
pub(super) fn jobs(series: &Series) -> Vec<FrameJob> {
    let frames = |kind, indices: std::ops::Range<usize>, time: fn(f64) -> f64, n: usize| {
        indices.map(move |index| FrameJob {
            kind,
            index,
            time: time(index as f64 / (n.max(2) - 1) as f64),
        })
    };
    let (n, flats) = (series.n_angles, series.n_flats);
    frames(FrameKind::Dark, 0..series.n_darks, |_| 0.0, 2)
        .chain(frames(FrameKind::Flat, 0..flats, |_| 0.0, 2))
        .chain(frames(FrameKind::Projection, 0..n, |time| time, n))
        .chain(frames(FrameKind::Flat, flats..2 * flats, |_| 1.0, 2))
        .collect()
}

/// Simulates and writes one scan; gives the number of zingers.
pub(super) fn take(
    series: &Series,
    index: usize,
    folder: &Path,
    progress: &Progress,
) -> Result<u64> {
    let camera = Camera::new(series, index);
    let jobs = jobs(series);
    let mut writer = writers::create(folder, series, &series.scans[index], &jobs)?;
    let stage = progress.stage(
        &format!("simulate {}", series.scans[index].name),
        jobs.len() as u64,
        "frames",
    );
    let mut zingers = 0;
    let mut taken: Vec<(FrameJob, Vec<u16>)> = Vec::new();
    // bounded memory: two batches of frames, whatever the length of the scan
    for batch in jobs
        .chunks(4 * rayon::current_num_threads().clamp(1, 32))
        .chain([&[][..]])
    {
        let (written, next) = rayon::join(
            || {
                taken
                    .iter()
                    .try_for_each(|(job, counts)| writer.push(*job, counts))
            },
            || {
                batch
                    .par_iter()
                    .map(|job| (*job, camera.take(*job)))
                    .collect::<Vec<_>>()
            },
        );
        written?;
        stage.inc(taken.len() as u64);
        taken.clear();
        for (job, (counts, number)) in next {
            zingers += number;
            taken.push((job, counts));
        }
    }
    writer.finish()?;
    Ok(zingers)
}

/// Sample, axis and detector of one scan.
pub(super) struct Camera<'a> {
    series: &'a Series,
    scan: &'a ScanPlan,
    source: Source,
    detector: Detector,
    angles_rad: Vec<f64>,
}

/// Where the line integrals come from.
enum Source {
    Cell(Projector),
    Layers(LayersProjector),
}

impl<'a> Camera<'a> {
    pub(super) fn new(series: &'a Series, index: usize) -> Self {
        let scan = &series.scans[index];
        let shape = [series.n_rows, series.n_cols];
        let source = match &series.cell {
            Some(cell) => {
                let moved = cell.at(scan.stage).moved(&scan.motion);
                Source::Cell(Projector::blurred(
                    &moved,
                    shape,
                    series.middle_row(),
                    series.blur_px,
                ))
            }
            None => Source::Layers(Layers::new(shape).projector()),
        };
        Camera {
            series,
            scan,
            source,
            detector: Detector::new(series.detector, shape, series.seed, index),
            angles_rad: series.angles_rad(),
        }
    }

    /// Counts and number of zingers of one frame.
    pub(super) fn take(&self, job: FrameJob) -> (Vec<u16>, u64) {
        match job.kind {
            FrameKind::Projection => self.detector.frame(job, Some(&self.integrals(job.index))),
            FrameKind::Flat | FrameKind::Dark => self.detector.frame(job, None),
        }
    }

    /// Line integrals of one projection `[row, col]`.
    pub(super) fn integrals(&self, angle: usize) -> Vec<f32> {
        let theta = self.angles_rad[angle];
        let cm = self.series.pixel_cm();
        match &self.source {
            Source::Cell(projector) => {
                let middle = self.series.middle_row();
                let axis =
                    |row: f64| self.scan.axis_px + self.scan.slope_px_per_row * (row - middle);
                let mut out = vec![0f64; self.series.n_rows * self.series.n_cols];
                projector.fill(theta, axis, &mut out);
                out.into_iter().map(|value| (value * cm) as f32).collect()
            }
            Source::Layers(layers) => layers.integrals(theta, self.scan.axis_px, cm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{Options, Preset};

    fn options() -> Options {
        Options {
            cols: Some(64),
            rows: Some(32),
            angles: Some(13),
            ..Options::new(Preset::Demo)
        }
    }

    #[test]
    fn the_counts_tell_the_line_integrals_within_the_photon_noise() {
        let series = Series::plan(&Options {
            artefacts: 0.0,
            photons: Some(2e4),
            ..options()
        })
        .unwrap();
        let camera = Camera::new(&series, 1);
        let mean = |kind: FrameKind, n: usize| -> Vec<f64> {
            let mut sum = vec![0.0; 64 * 32];
            for index in 0..n {
                let (counts, _) = camera.take(FrameJob {
                    kind,
                    index,
                    time: 0.0,
                });
                sum.iter_mut()
                    .zip(counts)
                    .for_each(|(sum, c)| *sum += f64::from(c) / n as f64);
            }
            sum
        };
        let (flat, dark) = (mean(FrameKind::Flat, 100), mean(FrameKind::Dark, 100));
        let gain = series.detector.level / series.detector.photons;
        let chi_square = |other_angle: usize| {
            let (mut sum, mut n) = (0.0, 0.0);
            for angle in [0, 4, 9] {
                let job = FrameJob {
                    kind: FrameKind::Projection,
                    index: angle,
                    time: 0.0,
                };
                let (counts, _) = camera.take(job);
                let expected = camera.integrals((angle + other_angle) % 13);
                for k in 0..counts.len() {
                    let (signal, open) = (f64::from(counts[k]) - dark[k], flat[k] - dark[k]);
                    let transmission = f64::from((-expected[k]).exp());
                    let found = -(signal / open).ln();
                    // variance of the logarithm: photons of the projection, of 100 flats, read-out and rounding
                    let photons = open / gain;
                    let read = (4.0 + 1.0 / 12.0) / (gain * gain);
                    let variance = (photons * transmission + read)
                        / (photons * transmission).powi(2)
                        + 1.0 / (100.0 * photons);
                    sum += (found - f64::from(expected[k])).powi(2) / variance;
                    n += 1.0;
                }
            }
            sum / n
        };
        // 6144 degrees of freedom: sd sqrt(2 / 6144) = 0.018
        let reduced = chi_square(0);
        assert!((reduced - 1.0).abs() < 0.09, "{reduced}");
        assert!(
            chi_square(1) > 2.0,
            "the check is blind: the next angle should not fit"
        );
    }

    #[test]
    fn the_camera_sees_the_ideal_scan() {
        use crate::scan::SinogramSource;
        for preset in [Preset::Demo, Preset::Rigid, Preset::Large] {
            let series = Series::plan(&Options {
                preset,
                ..options()
            })
            .unwrap();
            let last = series.scans.len() - 1;
            let camera = Camera::new(&series, last);
            let ideal = series.ideal(last);
            for angle in [0, 5, 12] {
                let frame = ideal.projection(angle, 0..32).unwrap();
                let worst = |other: &[f32]| {
                    frame
                        .iter()
                        .zip(other)
                        .map(|(a, b)| (a - b).abs())
                        .fold(0.0, f32::max)
                };
                assert!(worst(&camera.integrals(angle)) < 2e-6, "{preset:?}");
                assert!(
                    worst(&camera.integrals((angle + 1) % 13)) > 1e-2,
                    "{preset:?}: the check is blind"
                );
            }
        }
    }

    #[test]
    fn a_scan_begins_with_darks_and_has_flats_at_both_ends() {
        let series = Series::plan(&options()).unwrap();
        let jobs = jobs(&series);
        assert_eq!(jobs.len(), 10 + 20 + 13 + 20);
        assert!(jobs[..10].iter().all(|job| job.kind == FrameKind::Dark));
        assert!(
            jobs[10..30]
                .iter()
                .all(|job| job.kind == FrameKind::Flat && job.time == 0.0)
        );
        assert!(
            (jobs[30].time, jobs[42].time) == (0.0, 1.0) && jobs[42].kind == FrameKind::Projection
        );
        assert!(
            jobs[43..]
                .iter()
                .all(|job| job.kind == FrameKind::Flat && job.time == 1.0 && job.index >= 20)
        );
        assert_eq!(series.angles_deg()[12], 180.0);
    }
}
