//! Made scans of many kinds, to hold the stated uncertainty against the true error.

use ndarray::{Array2, Array3, Axis};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal};

use super::testing::{Made, degrees};
use super::*;
use crate::reconstruct::tests::{Ellipse, cloth_phantom, disc, sinogram};

/// What a scan shows.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Discs,
    /// Shepp-Logan with woven fibres.
    Cloth,
    /// A tube a little beside the axis, with fibres and dense grains.
    Cell,
}

/// One made scan.
#[derive(Debug, Clone, Copy)]
struct Spec {
    kind: Kind,
    /// Noise of an open beam; behind a line integral p it is exp(p / 2) times as strong.
    noise: f64,
    /// Standard deviation of what each column adds to all views, half of it common to all rows.
    stripes: f64,
    /// Runs of one to three columns stuck at a line integral of 6.
    dead: usize,
    /// The object is half as wide again as the detector.
    truncated: bool,
    /// 0: 180 degrees with both ends; 1: without the last; 2: 360; 3: 360 without opposite views.
    range: usize,
    axis: f64,
    lean: f64,
    seed: u64,
    n_cols: usize,
    n_rows: usize,
}

/// Neighbouring rows that show the same slice.
const GROUP: usize = 4;

fn object(kind: Kind, seed: u64, group: usize, radius: f64) -> Vec<Ellipse> {
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1000 * seed + group as u64);
    let mut uniform = |low: f64, high: f64| low + (high - low) * rng.random::<f64>();
    let inside = |share: f64, uniform: &mut dyn FnMut(f64, f64) -> f64| {
        let (r, phi) = (
            share * radius * uniform(0.0, 1.0).sqrt(),
            uniform(0.0, std::f64::consts::TAU),
        );
        (r * phi.cos(), r * phi.sin())
    };
    match kind {
        Kind::Discs => (0..40)
            .map(|_| {
                let size = uniform(0.03, 0.13) * radius;
                let (x, y) = inside(0.87, &mut uniform);
                disc(x, y, size, uniform(0.5, 1.5) / radius)
            })
            .collect(),
        Kind::Cloth => {
            // unit radius for a detector 2 / 0.95 wide; another turn for each slice
            let n = (2.0 * radius / 0.95) as usize;
            let scale = 2.0 * radius / (0.95 * n as f64);
            let (sin, cos) = (0.13 * group as f64 + seed as f64).sin_cos();
            cloth_phantom(n)
                .iter()
                .map(|e| Ellipse {
                    x: scale * (cos * e.x - sin * e.y),
                    y: scale * (sin * e.x + cos * e.y),
                    a: scale * e.a,
                    b: scale * e.b,
                    phi: e.phi + sin.atan2(cos),
                    value: 1.9 * e.value,
                })
                .collect()
        }
        Kind::Cell => {
            let (sin, cos) = (1.7 * seed as f64).sin_cos();
            let middle = (0.01 * radius * cos, 0.01 * radius * sin);
            let mut all = vec![
                disc(middle.0, middle.1, 0.97 * radius, 0.6 / radius),
                disc(middle.0, middle.1, 0.85 * radius, -0.35 / radius),
            ];
            for (count, least, most, value) in [(150, 0.008, 0.02, 0.5), (6, 0.02, 0.06, 1.5)] {
                for _ in 0..count {
                    let (x, y) = inside(0.78, &mut uniform);
                    all.push(disc(
                        middle.0 + x,
                        middle.1 + y,
                        uniform(least, most) * radius,
                        value / radius,
                    ));
                }
            }
            all
        }
    }
}

impl Spec {
    fn make(&self) -> Made {
        let n = (1.2 * self.n_cols as f64) as usize;
        let angles_rad = match self.range {
            0 => degrees(0.0, 180.0 / n as f64, n + 1),
            1 => degrees(-7.0, 180.0 / n as f64, n),
            2 => degrees(0.0, 360.0 / n as f64, n + 1),
            _ => degrees(0.0, 360.0 / (n as f64 + 0.5), n | 1),
        };
        let half = (self.n_cols as f64 - 1.0) / 2.0;
        let room = half - (self.axis - half).abs() - 3.0;
        let radius = if self.truncated {
            1.5 * half
        } else {
            0.93 * room
        };
        let mut sinograms = Array3::<f32>::zeros((self.n_rows, angles_rad.len(), self.n_cols));
        let middle = (self.n_rows as f64 - 1.0) / 2.0;
        for group in 0..self.n_rows.div_ceil(GROUP) {
            let rows = group * GROUP..((group + 1) * GROUP).min(self.n_rows);
            let axis = self.axis + self.lean * ((rows.start + rows.end - 1) as f64 / 2.0 - middle);
            let one = sinogram(
                &object(self.kind, self.seed, group, radius),
                &angles_rad,
                self.n_cols,
                axis,
            );
            rows.for_each(|row| sinograms.index_axis_mut(Axis(0), row).assign(&one));
        }
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(77 + self.seed);
        let columns: Vec<usize> = (0..self.dead)
            .flat_map(|_| {
                let first = rng.random_range(0..self.n_cols - 3);
                first..first + rng.random_range(1..=3)
            })
            .collect();
        let mut normal = |sigma: f64| -> f32 {
            let value: f64 = StandardNormal.sample(&mut rng);
            (sigma * value) as f32
        };
        let common: Vec<f32> = (0..self.n_cols).map(|_| normal(self.stripes)).collect();
        let stripes = Array2::from_shape_fn((self.n_rows, self.n_cols), |(_, col)| {
            common[col] + normal(0.5 * self.stripes)
        });
        for ((row, _, col), value) in sinograms.indexed_iter_mut() {
            *value += normal(self.noise * (0.5 * f64::from(*value)).exp()) + stripes[[row, col]];
        }
        for col in columns {
            sinograms.index_axis_mut(Axis(2), col).fill(6.0);
        }
        Made {
            sinograms,
            angles_rad,
        }
    }
}

/// A mixture over kinds, noise, stripes, dead columns, truncation, ranges, axes and leans.
fn mixture(seeds: u64, n_cols: usize, n_rows: usize) -> Vec<Spec> {
    let mut specs = Vec::new();
    for seed in 0..seeds {
        for (k, kind) in [Kind::Discs, Kind::Cloth, Kind::Cell]
            .into_iter()
            .enumerate()
        {
            for (level, (noise, stripes, dead)) in
                [(0.003, 0.0, 0), (0.02, 0.01, 1), (0.08, 0.03, 2)]
                    .into_iter()
                    .enumerate()
            {
                for range in 0..4 {
                    let mix = k + 3 * seed as usize + 7 * range + 5 * level;
                    specs.push(Spec {
                        kind,
                        noise,
                        stripes,
                        dead,
                        truncated: mix % 2 == 1,
                        range,
                        axis: (n_cols as f64 - 1.0) / 2.0
                            + n_cols as f64 * [0.0015, -0.026, 0.074, -0.095][mix / 2 % 4],
                        lean: if mix.is_multiple_of(5) { 0.01 } else { 0.0 },
                        seed: 31 * seed + range as u64,
                        n_cols,
                        n_rows,
                    });
                }
            }
        }
    }
    specs
}

/// Finds the axis of every scan and returns (error, stated uncertainty) of those without doubt.
fn hold_against_truth(specs: &[Spec]) -> Vec<(f64, f64)> {
    specs
        .iter()
        .filter_map(|spec| {
            match find(&spec.make(), &CenterConfig::default(), &Progress::new(true)) {
                Ok(fit) if fit.agree => {
                    let error = fit.axis_px - spec.axis;
                    eprintln!(
                        "{error:+.4} +- {:.4} {spec:?}, {}",
                        fit.uncertainty_px,
                        fit.notes.last().unwrap()
                    );
                    Some((error, fit.uncertainty_px))
                }
                Ok(fit) => {
                    eprintln!("DOUBT {spec:?} {:?}", fit.notes);
                    None
                }
                Err(error) => {
                    eprintln!("DOUBT {spec:?} {error}");
                    None
                }
            }
        })
        .collect()
}

fn rms(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    (values.iter().map(|v| v * v).sum::<f64>() / values.len().max(1) as f64).sqrt()
}

#[test]
fn stripes_dead_columns_noise_and_truncation_leave_the_axis_within_its_uncertainty() {
    // one scan of each kind and level, ranges in turn
    let specs: Vec<Spec> = mixture(1, 128, 16)
        .into_iter()
        .enumerate()
        .filter(|(k, _)| k % 4 == (k / 4) % 4)
        .map(|(_, spec)| spec)
        .collect();
    let found = hold_against_truth(&specs);
    assert!(
        found.len() + 1 >= specs.len(),
        "{} of {} in doubt",
        specs.len() - found.len(),
        specs.len()
    );
    for (error, uncertainty) in found {
        // nine scans: one of them beyond 4 standard deviations has a chance of 6e-4
        assert!(error.abs() < 4.0 * uncertainty, "{error} +- {uncertainty}");
    }
}

#[test]
#[ignore = "a minute: cargo test --release --lib center::calibration -- --ignored --nocapture"]
fn pulls_are_unit_normal_or_smaller() {
    let specs = mixture(3, 256, 48);
    let found = hold_against_truth(&specs);
    let pulls: Vec<f64> = found.iter().map(|(error, sigma)| error / sigma).collect();
    let beyond = |limit: f64| pulls.iter().filter(|p| p.abs() > limit).count();
    eprintln!(
        "{} scans, {} in doubt; rms pull {:.2}, {} beyond 2, {} beyond 3; rms error {:.4} px, largest {:.3} px",
        specs.len(),
        specs.len() - found.len(),
        rms(pulls.iter().copied()),
        beyond(2.0),
        beyond(3.0),
        rms(found.iter().map(|f| f.0)),
        found.iter().fold(0.0, |top: f64, f| top.max(f.0.abs()))
    );
    // 5 % of a normal distribution lie beyond 2, 0.3 % beyond 3
    assert!(
        rms(pulls.iter().copied()) < 1.1 && beyond(2.0) <= specs.len() / 20 && beyond(3.0) <= 1
    );
    assert!(found.len() * 10 >= specs.len() * 9);
}
