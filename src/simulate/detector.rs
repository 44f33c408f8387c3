//! From line integrals to the counts of a camera that has the faults of real ones.

use rand_distr::{Distribution, Poisson, StandardNormal};
use rand_pcg::Pcg64Mcg;

use super::defects::{Defect, defects};
use crate::phantom::SplitMix64;

/// Photons above which the Poisson distribution is drawn as a normal one of the same mean and variance (its skewness
/// is then below 0.032); below, it is exact.
pub const EXACT_BELOW_PHOTONS: f64 = 1000.0;

/// Faults and noise of a scan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectorPlan {
    /// Photons per pixel and frame in the middle of the open beam; more only lowers the noise.
    pub photons: f64,
    /// Counts of that pixel above the dark; counts = level / photons times the photons seen.
    pub level: f64,
    /// Standard deviation of the read-out \[counts\].
    pub read_noise: f64,
    /// Photon and read-out noise; without, counts are rounded expectations.
    pub noise: bool,
    /// Stripes, zingers, drift of the beam: 0 none, 1 as usual, larger worse.
    pub artefacts: f64,
}

impl Default for DetectorPlan {
    fn default() -> Self {
        // a pixel of the presets stands for some 400 pixels of 1.3 um, 20 000 photons each
        DetectorPlan {
            photons: 8e6,
            level: 38_000.0,
            read_noise: 2.0,
            noise: true,
            artefacts: 1.0,
        }
    }
}

/// Which kind of frame, with the number of the NXtomo image key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// Sample in the beam.
    Projection = 0,
    /// Open beam.
    Flat = 1,
    /// No beam.
    Dark = 2,
}

/// One frame to be taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameJob {
    /// What is taken.
    pub kind: FrameKind,
    /// Number among the frames of its kind.
    pub index: usize,
    /// Time within the scan, 0 to 1, for everything that drifts.
    pub time: f64,
}

/// The camera of a series, looking at one of its scans.
pub(super) struct Detector {
    plan: DetectorPlan,
    shape: [usize; 2],
    seed: u64,
    scan: u64,
    /// Expected photons of the open beam `[row, col]`.
    open: Vec<f32>,
    /// Counts without beam `[row, col]`.
    dark: Vec<f32>,
    /// Open beam over height; the beam moves along it.
    profile: Profile,
    defects: Vec<Defect>,
}

/// Brightness of the beam over height: a Gaussian with faint bands, as behind a multilayer.
struct Profile {
    middle: f64,
    sigma: f64,
}

impl Profile {
    fn at(&self, row: f64) -> f64 {
        let u = (row - self.middle) / self.sigma;
        (-0.5 * u * u).exp() * (1.0 + 0.006 * (0.21 * row + 0.4 * (0.037 * row).sin()).sin())
    }
}

impl Detector {
    pub(super) fn new(plan: DetectorPlan, shape: [usize; 2], seed: u64, scan: usize) -> Self {
        let [n_rows, n_cols] = shape;
        let profile = Profile {
            middle: 0.48 * n_rows as f64,
            sigma: 0.9 * n_rows as f64,
        };
        let blobs = dust(seed, shape);
        let mut open = Vec::with_capacity(n_rows * n_cols);
        let mut dark = Vec::with_capacity(n_rows * n_cols);
        for row in 0..n_rows {
            // the pattern belongs to the camera: the same in every scan of the series
            let mut random = generator(seed, &[0xF1A7, row as u64]);
            let height = profile.at(row as f64);
            for col in 0..n_cols {
                let [a, b]: [f64; 2] = [
                    StandardNormal.sample(&mut random),
                    StandardNormal.sample(&mut random),
                ];
                let tilt = 1.0 - 0.12 * (col as f64 / n_cols as f64 - 0.45).powi(2) * 4.0;
                open.push(
                    (plan.photons * height * tilt * (1.0 + 0.012 * a.clamp(-3.0, 3.0))) as f32,
                );
                let hot = if b > 3.2 { 900.0 * (b - 3.1) } else { 0.0 };
                dark.push((96.0 + 3.0 * b + hot) as f32);
            }
        }
        for (row, col, radius, depth) in blobs {
            for (index, pixel) in open.iter_mut().enumerate() {
                let (dr, dc) = ((index / n_cols) as f64 - row, (index % n_cols) as f64 - col);
                let u = (dr * dr + dc * dc) / (radius * radius);
                if u < 12.0 {
                    *pixel *= (1.0 - depth * (-u).exp()) as f32;
                }
            }
        }
        let defects = if plan.artefacts > 0.0 {
            defects(seed, scan, shape, plan.artefacts)
        } else {
            Vec::new()
        };
        Detector {
            plan,
            shape,
            seed,
            scan: scan as u64,
            open,
            dark,
            profile,
            defects,
        }
    }

    /// Counts of one frame `[row, col]` and the number of zingers in it. `integrals` are the line integrals of a projection.
    pub(super) fn frame(&self, job: FrameJob, integrals: Option<&[f32]>) -> (Vec<u16>, u64) {
        let [n_rows, n_cols] = self.shape;
        let keys = [self.scan, job.kind as u64, job.index as u64];
        let gain = self.plan.level / self.plan.photons;
        let mut photons = vec![0f32; n_rows * n_cols];
        if job.kind != FrameKind::Dark {
            self.expose(job, integrals, &mut photons);
        }
        let mut counts = vec![0u16; n_rows * n_cols];
        for (row, counts) in counts.chunks_mut(n_cols).enumerate() {
            let at = row * n_cols..(row + 1) * n_cols;
            let (photons, dark) = (&photons[at.clone()], &self.dark[at]);
            if self.plan.noise {
                let mut random = generator(self.seed, &[keys[0], keys[1], keys[2], row as u64]);
                for ((out, &mean), &dark) in counts.iter_mut().zip(photons).zip(dark) {
                    *out = self.noisy(f64::from(mean), f64::from(dark), gain, &mut random);
                }
            } else {
                for ((out, &mean), &dark) in counts.iter_mut().zip(photons).zip(dark) {
                    *out = (f64::from(dark) + gain * f64::from(mean)).round() as u16;
                }
            }
        }
        if job.kind != FrameKind::Dark {
            for defect in &self.defects {
                defect.stick(self.shape, &mut counts);
            }
        }
        let zingers = self.zing(&keys, &mut counts);
        (counts, zingers)
    }

    /// Expected photons: open beam, its drift and movement, attenuation, response of bad pixels.
    fn expose(&self, job: FrameJob, integrals: Option<&[f32]>, photons: &mut [f32]) {
        use std::f64::consts::TAU;
        let n_cols = self.shape[1];
        let drift =
            self.plan.artefacts * (-0.004 * job.time + 0.001 * (3.1 * TAU * job.time).sin());
        let moved = self.plan.artefacts * 0.15 * (2.3 * TAU * job.time).sin();
        for (row, photons) in photons.chunks_mut(n_cols).enumerate() {
            let at = row * n_cols..(row + 1) * n_cols;
            let z = row as f64;
            let beam = ((1.0 + drift) * self.profile.at(z + moved) / self.profile.at(z)) as f32;
            let open = &self.open[at.clone()];
            match integrals {
                Some(integrals) => {
                    for ((out, &open), &integral) in
                        photons.iter_mut().zip(open).zip(&integrals[at])
                    {
                        *out = open * beam * (-integral).exp();
                    }
                }
                None => photons
                    .iter_mut()
                    .zip(open)
                    .for_each(|(out, &open)| *out = open * beam),
            }
        }
        for defect in &self.defects {
            defect.respond(self.shape, job.time, &self.open, photons);
        }
    }

    #[inline]
    fn noisy(&self, mean: f64, dark: f64, gain: f64, random: &mut Pcg64Mcg) -> u16 {
        let read = self.plan.read_noise;
        let normal: f64 = StandardNormal.sample(random);
        let value = if mean >= EXACT_BELOW_PHOTONS {
            // photon and read-out noise in one draw
            dark + gain * mean + (gain * gain * mean + read * read).sqrt() * normal
        } else {
            let seen = if mean > 0.0 {
                Poisson::new(mean).map_or(0.0, |poisson| poisson.sample(random))
            } else {
                0.0
            };
            dark + gain * seen + read * normal
        };
        // the cast saturates, as the camera does
        value.round() as u16
    }

    /// Rays that hit the chip: one to three pixels far too bright.
    fn zing(&self, keys: &[u64; 3], counts: &mut [u16]) -> u64 {
        let expected = 8e-6 * self.plan.artefacts * counts.len() as f64;
        let mut random = SplitMix64::keyed(self.seed, &[keys[0], keys[1], keys[2], 0x2196E2]);
        // a Poisson number: as many uniform factors as keep the product above exp(-expected) (Knuth)
        let (mut number, mut product, limit) = (0u64, random.uniform(0.0, 1.0), (-expected).exp());
        while product > limit && number < 1000 {
            number += 1;
            product *= random.uniform(0.0, 1.0);
        }
        for _ in 0..number {
            let at = (random.next_u64() % counts.len() as u64) as usize;
            let extra = random.log_uniform(4000.0, 40_000.0);
            let length = 1 + (random.next_u64() % 3) as usize;
            for pixel in counts.iter_mut().skip(at).take(length) {
                *pixel = (f64::from(*pixel) + extra) as u16;
            }
        }
        number
    }
}

/// A generator for one row of one frame.
fn generator(seed: u64, keys: &[u64]) -> Pcg64Mcg {
    let mut words = SplitMix64::keyed(seed, keys);
    Pcg64Mcg::new((u128::from(words.next_u64()) << 64) | u128::from(words.next_u64()))
}

/// Specks on the scintillator: row, column, radius \[px\], share of light lost.
fn dust(seed: u64, [n_rows, n_cols]: [usize; 2]) -> Vec<(f64, f64, f64, f64)> {
    let mut random = SplitMix64::keyed(seed, &[0xD057]);
    (0..7)
        .map(|_| {
            (
                random.uniform(0.0, n_rows as f64),
                random.uniform(0.0, n_cols as f64),
                random.log_uniform(1.5, 0.04 * n_cols as f64 + 1.6),
                random.uniform(0.03, 0.15),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detector(plan: DetectorPlan) -> Detector {
        Detector::new(plan, [40, 60], 5, 1)
    }

    fn job(kind: FrameKind, index: usize) -> FrameJob {
        FrameJob {
            kind,
            index,
            time: 0.5,
        }
    }

    #[test]
    fn without_noise_and_faults_the_counts_tell_the_line_integrals() {
        let plan = DetectorPlan {
            noise: false,
            artefacts: 0.0,
            ..DetectorPlan::default()
        };
        let detector = detector(plan);
        let integrals: Vec<f32> = (0..2400).map(|k| (k % 60) as f32 / 60.0).collect();
        let (projection, _) = detector.frame(job(FrameKind::Projection, 0), Some(&integrals));
        let (flat, _) = detector.frame(job(FrameKind::Flat, 0), None);
        let (dark, _) = detector.frame(job(FrameKind::Dark, 0), None);
        for k in 0..2400 {
            let [p, f, d] = [projection[k], flat[k], dark[k]].map(f64::from);
            let found = -((p - d) / (f - d)).ln();
            // three roundings of half a count, against at least exp(-1) * 0.75 * 38000 counts
            assert!(
                (found - f64::from(integrals[k])).abs() < 2.5 / (0.36 * 0.75 * 38_000.0),
                "{k}: {found}"
            );
        }
    }

    #[test]
    fn noise_is_that_of_the_photons() {
        for photons in [400.0, 1e5] {
            let plan = DetectorPlan {
                photons,
                artefacts: 0.0,
                ..DetectorPlan::default()
            };
            let detector = detector(plan);
            let gain = plan.level / photons;
            let n = 200;
            let frames: Vec<Vec<u16>> = (0..n)
                .map(|k| detector.frame(job(FrameKind::Flat, k), None).0)
                .collect();
            // mean over the pixels of variance / expected variance: 2400 * 199 degrees of freedom, sd sqrt(2 / 477600) = 0.002
            let mut ratio = 0.0;
            for pixel in 0..2400 {
                let values: Vec<f64> = frames.iter().map(|f| f64::from(f[pixel])).collect();
                let mean = values.iter().sum::<f64>() / n as f64;
                let variance =
                    values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n as f64 - 1.0);
                let expected = gain * gain * f64::from(detector.open[pixel]) + 4.0 + 1.0 / 12.0;
                ratio += variance / expected / 2400.0;
            }
            assert!((ratio - 1.0).abs() < 0.01, "{photons}: {ratio}");
            assert!((1.1 * ratio - 1.0).abs() > 0.05, "the check is blind");
        }
    }

    #[test]
    fn frames_differ_by_their_keys_only() {
        let detector = detector(DetectorPlan::default());
        let flat = |index| detector.frame(job(FrameKind::Flat, index), None).0;
        assert_eq!(flat(3), flat(3));
        assert_ne!(flat(3), flat(4));
        let other = Detector::new(DetectorPlan::default(), [40, 60], 5, 2)
            .frame(job(FrameKind::Flat, 3), None)
            .0;
        assert_ne!(flat(3), other);
    }

    #[test]
    fn zingers_come_at_their_rate_and_are_counted() {
        let plan = DetectorPlan {
            noise: false,
            artefacts: 100.0,
            ..DetectorPlan::default()
        };
        let detector = detector(plan);
        let (calm, _) = Detector::new(
            DetectorPlan {
                artefacts: 0.0,
                ..plan
            },
            [40, 60],
            5,
            1,
        )
        .frame(job(FrameKind::Dark, 0), None);
        let (mut counted, mut seen) = (0, 0);
        for index in 0..100 {
            let (counts, number) = detector.frame(job(FrameKind::Dark, index), None);
            counted += number;
            seen += counts
                .iter()
                .zip(&calm)
                .filter(|(a, b)| **a > **b + 3000)
                .count();
        }
        // 8e-6 * 100 * 2400 = 1.92 per frame; 192 +- 14
        assert!((130..260).contains(&counted), "{counted}");
        assert!(
            seen as u64 >= counted && seen as u64 <= 3 * counted,
            "{seen} pixels of {counted}"
        );
    }
}
