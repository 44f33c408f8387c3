//! The lock on simulated series whose faults are known: discs or the cloth phantom, static and drifting stripes, dead
//! columns, stage shifts, noise. The measure of a method is the difference of two reconstructions with it, less the
//! difference of the same scans from a faultless detector without any removal: what is left are rings and lost detail.

#![expect(
    clippy::print_stdout,
    reason = "figures are for the person who runs the test"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ndarray::{Array3, Axis};

use super::*;
use crate::config::{CorrectConfig, ReconstructConfig, ReconstructMethod, StripeMethod};
use crate::correct::tests::scan as frames;
use crate::gpu::Device;
use crate::phantom::{Motion, Object, Phantom, PhantomScan, SplitMix64, peers};
use crate::reconstruct::geometry::{Grid, InPlaneMotion, rays};
use crate::reconstruct::{Reconstructor, SliceJob};

/// What is simulated.
#[derive(Clone)]
struct Study {
    n_cols: usize,
    n_rows: usize,
    n_angles: usize,
    /// Shift of each scan \[px\].
    shifts: Vec<[f64; 2]>,
    /// Photons per pixel and frame.
    photons: f64,
    cloth: bool,
    /// The body and its wall stand on the axis of the first scan.
    centred: bool,
    faulty: bool,
    /// Broad stripes instead of narrow ones, so many times the usual height; 0: none.
    broad: f64,
    /// Columns that say 1.2 times the open beam, whatever they see.
    stuck: Range<usize>,
    seed: u64,
    /// Frames and flats of what was taken, by scan and whether faulty.
    taken: Arc<Mutex<Taken>>,
}

type Taken = BTreeMap<(usize, bool), (Array3<f32>, Array3<f32>)>;

impl Study {
    fn new(n_cols: usize) -> Study {
        Study {
            n_cols,
            n_rows: 6,
            n_angles: n_cols * 3 / 2,
            shifts: vec![[0.0, 0.0], [2.4, -1.7], [-3.1, 2.2]],
            photons: 2e6,
            cloth: false,
            centred: false,
            faulty: true,
            broad: 0.0,
            stuck: 0..0,
            seed: 11,
            taken: Arc::default(),
        }
    }

    /// The sample; scans after the first have grains more.
    fn sample(&self, later: bool) -> Phantom {
        let half = 0.5 * self.n_cols as f64;
        let mut sample = if self.cloth {
            peers::phantom(self.n_cols, self.seed, 0.0)
        } else {
            let mut random = SplitMix64::keyed(self.seed, &[1]);
            let column = |centre: [f64; 3], radius: f64, value: f64| {
                Object::cylinder(centre, radius, [1e4, 1e4], 1.0, value)
            };
            // a body around a point beside the axis, a wall around it, and discs of both signs
            let away = if self.centred { 0.0 } else { half };
            let middle = [0.03 * away, -0.02 * away, 0.0];
            let body = 1.2 / (1.6 * half);
            let mut objects = vec![
                column(middle, 0.8 * half, body),
                column(middle, 0.72 * half, -0.3 * body),
            ];
            for _ in 0..60 {
                let (away, turn) = (random.uniform(0.0, 0.62) * half, random.uniform(0.0, 6.3));
                let z = random.uniform(-0.6, 0.6) * self.n_rows as f64;
                let centre = [
                    middle[0] + away * turn.cos(),
                    middle[1] + away * turn.sin(),
                    z,
                ];
                let radius = random.log_uniform(0.02, 0.09) * half;
                objects.push(Object::sphere(
                    centre,
                    radius,
                    random.uniform(-1.0, 1.0) * body,
                ));
            }
            Phantom::new(objects)
        };
        if later {
            let value = 0.6 / half;
            for (x, y) in GRAINS {
                sample.objects.push(Object::sphere(
                    [x * half, y * half, 0.0],
                    0.05 * half,
                    value,
                ));
            }
        }
        sample
    }

    /// Factors of the faults on the light of scan `index` at `col` and `time` from 0 to 1; `None` is a dead pixel.
    fn response(&self, index: usize, col: usize, time: f64) -> Option<f64> {
        let at = |share: f64| (share * self.n_cols as f64) as usize;
        // the amount of a fault that drifts is not the same in every scan
        let amount = [1.0, 0.8, 1.25][index % 3];
        let static_faults = [
            (at(0.21), 0.015),
            (at(0.21) + 1, 0.012),
            (at(0.33), -0.006),
            (at(0.41), 0.004),
            (at(0.58), -0.02),
            (at(0.66), 0.008),
            (at(0.66) + 1, 0.008),
            (at(0.66) + 2, 0.008),
            (at(0.74), -0.005),
        ];
        // first column, width \[px\], error of the gain
        let broad = [
            (at(0.25), 7, 0.04),
            (at(0.36), 9, -0.03),
            (at(0.61), 12, 0.035),
            (at(0.79), 20, -0.03),
        ];
        if self.broad > 0.0 {
            let inside =
                |(first, width, _): &&(usize, usize, f64)| (*first..first + width).contains(&col);
            let gain = broad.iter().find(inside).map_or(0.0, |(_, _, gain)| *gain);
            return Some(1.0 + self.broad * gain);
        }
        if col == at(0.47) {
            return None;
        }
        if let Some((_, gain)) = static_faults.iter().find(|(c, _)| *c == col) {
            return Some(1.0 + gain);
        }
        Some(match col {
            c if c == at(0.53) => 1.0 + 0.01 * amount * (time - 0.5),
            c if c == at(0.29) => {
                1.0 - if time > 0.3 + 0.2 * amount {
                    0.008
                } else {
                    0.0
                }
            }
            _ => 1.0,
        })
    }

    /// One scan as its files would hold it.
    fn take(&self, index: usize) -> crate::scan::Scan {
        let mut taken = self.taken.lock().unwrap();
        let (frame, flats) = taken
            .entry((index, self.faulty))
            .or_insert_with(|| self.simulate(index))
            .clone();
        let n_angles = frame.dim().0;
        let mut scan = frames(frame, Some(flats), None);
        let last = (n_angles - 1) as f64;
        scan.angles_rad = (0..n_angles)
            .map(|k| k as f64 * std::f64::consts::PI / last)
            .collect();
        scan
    }

    /// Frames and flats.
    fn simulate(&self, index: usize) -> (Array3<f32>, Array3<f32>) {
        let [x, y] = self.shifts[index];
        let motion = Motion {
            shift: [x, y, 0.0],
            ..Motion::default()
        };
        let mut ideal = PhantomScan::half_turn(
            self.sample(index > 0).moved(&motion),
            self.n_angles,
            self.n_rows,
            self.n_cols,
        );
        ideal.blur_px = 0.6;
        let integrals = ideal.sinograms(0..self.n_rows).unwrap();
        let level = 30_000.0;
        let mut random = SplitMix64::keyed(self.seed, &[2, index as u64]);
        let mut normal = move || (0..12).map(|_| random.uniform(0.0, 1.0)).sum::<f64>() - 6.0;
        let frame = Array3::from_shape_fn(
            (self.n_angles, self.n_rows, self.n_cols),
            |(angle, row, col)| {
                if self.stuck.contains(&col) {
                    return (1.2 * level) as f32;
                }
                let time = angle as f64 / (self.n_angles - 1) as f64;
                let light = (-f64::from(integrals[[row, angle, col]])).exp();
                let response = if self.faulty {
                    self.response(index, col, time)
                } else {
                    Some(1.0)
                };
                let seen = light * response.unwrap_or(0.0);
                let noise = (light / self.photons).sqrt() * normal();
                let dead = if response.is_none() { 0.3 } else { 0.0 };
                (level * (seen + noise + dead)) as f32
            },
        );
        let flats = Array3::from_shape_fn((1, self.n_rows, self.n_cols), |_| {
            // as many flats as keep their noise a sixth of that of a projection
            (level * (1.0 + normal() / (36.0 * self.photons).sqrt())) as f32
        });
        (frame, flats)
    }

    fn corrected(&self, index: usize, method: StripeMethod) -> CorrectedScan {
        let mut config = CorrectConfig::default();
        config.zinger.enabled = false;
        config.stripe.method = method;
        CorrectedScan::new(self.take(index), &config).unwrap()
    }

    fn find(&self, ratio: f32, band: usize) -> (PixelMap, LockRecord) {
        let config = LockConfig {
            ratio,
            ..LockConfig::default()
        };
        find(
            self.shifts.len(),
            [self.n_rows, self.n_cols],
            std::slice::from_ref(&(0..self.n_rows)),
            |k| Ok(self.corrected(k, StripeMethod::None)),
            &config,
            band,
            &Progress::new(true),
        )
        .unwrap()
    }

    /// Slice at z = 0 of a scan, on the grid of the first.
    fn slice(&self, index: usize, scan: &CorrectedScan) -> Array2<f32> {
        let [x, y] = self.shifts[index];
        let motion = InPlaneMotion {
            shift_x_px: x,
            shift_y_px: y,
            rotation_rad: 0.0,
        };
        let config = ReconstructConfig {
            method: ReconstructMethod::Fbp,
            ..ReconstructConfig::default()
        };
        let grid = Grid::square(self.n_cols);
        let job = SliceJob::new(
            self.n_cols,
            rays(scan.angles_rad(), motion),
            grid,
            &config,
            1.0,
        );
        let row = self.n_rows / 2;
        let sinogram = scan.sinograms(row..row + 1).unwrap();
        let mut out = Array3::zeros((1, self.n_cols, self.n_cols));
        let axis = (self.n_cols as f64 - 1.0) / 2.0;
        Reconstructor::new(job, &Device::Cpu)
            .unwrap()
            .slab(sinogram.view(), &[axis], out.view_mut())
            .unwrap();
        out.index_axis_move(Axis(0), 0)
    }

    /// The change of the second scan against the first.
    fn change(&self, method: StripeMethod, map: Option<&Arc<PixelMap>>) -> Array2<f32> {
        let slice = |index: usize| {
            let scan = self.corrected(index, method);
            let scan = match map {
                Some(map) => scan.with_lock(map.clone()).unwrap(),
                None => scan,
            };
            self.slice(index, &scan)
        };
        slice(1) - slice(0)
    }

    /// Root mean square of `change` less `ideal` inside 0.75 of the field of view.
    fn left_over(&self, change: &Array2<f32>, ideal: &Array2<f32>) -> f64 {
        let half = (self.n_cols as f64 - 1.0) / 2.0;
        let (mut power, mut n) = (0.0, 0.0);
        for ((y, x), value) in change.indexed_iter() {
            if (y as f64 - half).hypot(x as f64 - half) < 0.75 * half {
                power += f64::from(value - ideal[[y, x]]).powi(2);
                n += 1.0;
            }
        }
        (power / n).sqrt()
    }

    /// Sum of the change around the grains that came.
    fn gained(&self, change: &Array2<f32>) -> f64 {
        let half = (self.n_cols as f64 - 1.0) / 2.0;
        let inside = |y: usize, x: usize| {
            GRAINS.iter().any(|(gx, gy)| {
                let (dx, dy) = (x as f64 - half - gx * half, half - y as f64 - gy * half);
                dx.hypot(dy) < 0.05 * half + 3.0
            })
        };
        let values = change.indexed_iter().filter(|((y, x), _)| inside(*y, *x));
        values.map(|(_, &value)| f64::from(value)).sum()
    }

    /// Columns with a fault.
    fn faults(&self) -> Vec<usize> {
        (0..self.n_cols)
            .filter(|&col| {
                [0.0, 1.0]
                    .iter()
                    .any(|&time| self.response(0, col, time) != Some(1.0))
            })
            .collect()
    }
}

/// Grains of the later scans, in halves of the field of view.
const GRAINS: [(f64, f64); 5] = [
    (0.1, 0.05),
    (-0.3, 0.2),
    (0.25, -0.4),
    (-0.05, -0.25),
    (0.45, 0.3),
];

#[test]
fn a_wall_that_stands_still_in_one_scan_is_no_fault() {
    // its edge meets the pixels of the first scan's edge while the sample of the second has turned by a third of the scan
    let study = Study {
        centred: true,
        faulty: false,
        shifts: vec![[0.0, 0.0], [1.3, -0.8]],
        ..Study::new(192)
    };
    let (map, _) = study.find(4.0, 6);
    let taken: Vec<(usize, usize)> = (0..6)
        .flat_map(|row| (0..192).map(move |col| (row, col)))
        .filter(|&(row, col)| map.verdict(row, col) != Verdict::Good)
        .collect();
    assert!(taken.is_empty(), "{taken:?}");
    // the edge is as sharp as a fault: where it stands still in both scans, nobody can tell
    let still = Study {
        shifts: vec![[0.0, 0.0]; 2],
        taken: Arc::default(),
        ..study.clone()
    };
    let (map, _) = still.find(4.0, 6);
    assert!(map.count(Verdict::Corrected) > 0, "the check is blind");
    // faults beside it are found: those of 1 per cent and more in every row, of smaller ones what is rough around them decides
    let faulty = Study {
        faulty: true,
        ..study
    };
    let (map, _) = faulty.find(4.0, 6);
    for col in faulty.faults() {
        let strong = [0.0, 1.0].iter().any(|&time| {
            let gain = faulty.response(0, col, time);
            gain.is_none_or(|gain| (gain - 1.0).abs() >= 0.01)
        });
        let found = (0..6)
            .filter(|&row| map.verdict(row, col) != Verdict::Good)
            .count();
        println!("column {col}: {found} of 6");
        assert!(!strong || found == 6, "column {col}: {found} of 6");
    }
}

#[test]
fn the_map_is_that_of_the_faults_for_every_cut_of_the_rows() {
    let study = Study {
        n_rows: 20,
        ..Study::new(256)
    };
    let (map, record) = study.find(4.0, 20);
    let faults = study.faults();
    let (mut hit, mut beside) = (0, 0);
    for row in 0..study.n_rows {
        for col in (0..256).filter(|&col| map.verdict(row, col) != Verdict::Good) {
            let away = faults.iter().map(|fault| fault.abs_diff(col)).min();
            hit += usize::from(away == Some(0));
            beside += usize::from(away == Some(1));
            assert!(away <= Some(1), "row {row}: column {col} is good");
        }
    }
    println!("{hit} of {} found, {beside} beside them", 20 * faults.len());
    // faults of half a per cent, where the sample is rough, may stay below what good pixels show there; and of a fault that
    // is hardly above it, the neighbour may look worse
    assert!(
        hit * 4 >= 3 * 20 * faults.len() && beside * 20 <= hit,
        "{hit}, {beside}"
    );
    // where the line integrals change enough to tell, the dead column is interpolated
    let dead = (0.47 * 256.0) as usize;
    assert!((0..20).all(|row| map.verdict(row, dead) != Verdict::Good));
    assert!(record.interpolated >= 1);
    assert_eq!(
        record.interpolated + record.corrected,
        (hit + beside) as u64
    );
    assert_eq!(map, study.find(4.0, 7).0);
    let one = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    assert_eq!(map, one.install(|| study.find(4.0, 20).0));
    assert_eq!(PixelMap::from_planes(&map.to_planes()), Some(map.clone()));
    let scan = study
        .corrected(1, StripeMethod::None)
        .with_lock(Arc::new(map))
        .unwrap();
    let (whole, counts) = scan.slab(0..20).unwrap();
    let (part, _) = one.install(|| scan.slab(7..12)).unwrap();
    assert_eq!(part, whole.slice(ndarray::s![7..12, .., ..]));
    let locked = |counts: &crate::correct::CorrectionCounts| {
        (counts.lock_interpolated, counts.lock_corrected)
    };
    assert_eq!(locked(&counts), (record.interpolated, record.corrected));
}

#[test]
fn a_faultless_detector_is_left_alone() {
    let study = Study {
        faulty: false,
        ..Study::new(128)
    };
    let (map, _) = study.find(4.0, 20);
    assert_eq!(map, PixelMap::clean((6, 128)));
    let plain = study
        .corrected(0, StripeMethod::None)
        .sinograms(0..6)
        .unwrap();
    let locked = study
        .corrected(0, StripeMethod::None)
        .with_lock(Arc::new(map))
        .unwrap();
    assert_eq!(locked.sinograms(0..6).unwrap(), plain);
}

#[test]
fn saturated_columns_are_interpolated_however_many_stand_together() {
    let study = Study {
        faulty: false,
        stuck: 50..61,
        ..Study::new(128)
    };
    let (map, record) = study.find(4.0, 20);
    for row in 0..study.n_rows {
        let wrong: Vec<usize> = map.columns(row, Verdict::Interpolated).collect();
        assert_eq!(wrong, study.stuck.clone().collect::<Vec<_>>(), "row {row}");
    }
    assert_eq!((record.corrected, record.levelled), (0, 0));
}

/// With `map` the rings in the difference are a third at most of those without it, and of those that removal scan by scan leaves; the
/// change stays.
fn falls_by_three(study: &Study, map: &Arc<PixelMap>) {
    let clean = Study {
        faulty: false,
        ..study.clone()
    };
    let ideal = clean.change(StripeMethod::None, None);
    let locked = study.change(StripeMethod::None, Some(map));
    let left = study.left_over(&locked, &ideal);
    for method in [StripeMethod::None, StripeMethod::All, StripeMethod::Sorting] {
        let other = study.left_over(&study.change(method, None), &ideal);
        println!(
            "{method:?}: {other:.2e}, locked {left:.2e}: {:.1} times",
            other / left
        );
        assert!(
            other > 3.0 * left,
            "{method:?}: {other:.2e} against {left:.2e}"
        );
    }
    let share = clean.gained(&locked) / clean.gained(&ideal);
    println!("change kept: {share:.4}");
    assert!((share - 1.0).abs() < 0.03, "{share}");
}

/// The promise of the lock, on the smallest series that shows it: a pair with a stage shift.
#[test]
fn rings_in_the_difference_fall_by_three_and_change_stays() {
    let study = Study {
        shifts: vec![[0.0, 0.0], [2.5, -1.5]],
        ..Study::new(192)
    };
    falls_by_three(&study, &Arc::new(study.find(4.0, 20).0));
}

#[test]
fn broad_stripes_fall_by_three_as_well() {
    let study = Study {
        shifts: vec![[0.0, 0.0], [2.5, -1.5]],
        broad: 1.0,
        ..Study::new(256)
    };
    let (map, record) = study.find(4.0, 20);
    println!("{} levelled, row 3: {:?}", record.levelled, map.runs(3));
    falls_by_three(&study, &Arc::new(map.clone()));
    // every stripe in most rows, to the pixel, and next to nothing beside them
    let faults = study.faults();
    let (mut hit, mut beside) = (0, 0);
    for row in 0..study.n_rows {
        for col in map.runs(row).into_iter().flatten() {
            hit += usize::from(faults.contains(&col));
            beside += usize::from(!faults.contains(&col));
        }
    }
    println!(
        "{hit} of {} found, {beside} beside",
        study.n_rows * faults.len()
    );
    assert!(4 * hit >= 3 * study.n_rows * faults.len() && 20 * beside <= hit);
    assert_eq!(PixelMap::from_planes(&map.to_planes()), Some(map));
    // of a scan alone nobody can tell a broad stripe from a wall around the axis
    let alone = Study {
        shifts: vec![[0.0, 0.0]],
        ..study
    };
    assert_eq!(alone.find(4.0, 20).1.levelled, 0);
}

/// Figures for benches/RESULTS.md: `cargo test --release --lib lock::tests::figures -- --ignored --nocapture`.
#[test]
#[ignore = "minutes; prints figures"]
fn figures() {
    let base = |n_cols: usize| Study {
        shifts: vec![[0.0, 0.0], [2.4, -1.7]],
        ..Study::new(n_cols)
    };
    let cases = [
        ("256", base(256)),
        (
            "256, three scans",
            Study {
                shifts: Study::new(256).shifts,
                ..base(256)
            },
        ),
        (
            "256, half a pixel",
            Study {
                shifts: vec![[0.0, 0.0], [0.5, 0.5]],
                ..base(256)
            },
        ),
        (
            "256, no shift",
            Study {
                shifts: vec![[0.0; 2]; 2],
                ..base(256)
            },
        ),
        (
            "256, no faults",
            Study {
                faulty: false,
                ..base(256)
            },
        ),
        (
            "256, no faults, no shift",
            Study {
                faulty: false,
                shifts: vec![[0.0; 2]; 2],
                ..base(256)
            },
        ),
        (
            "256, 20 000 photons",
            Study {
                photons: 2e4,
                ..base(256)
            },
        ),
        (
            "256, cloth",
            Study {
                cloth: true,
                ..base(256)
            },
        ),
        (
            "256, cloth, no faults",
            Study {
                cloth: true,
                faulty: false,
                ..base(256)
            },
        ),
        (
            "256, cloth, no shift",
            Study {
                cloth: true,
                shifts: vec![[0.0; 2]; 2],
                ..base(256)
            },
        ),
        ("512", base(512)),
        (
            "512, cloth",
            Study {
                cloth: true,
                ..base(512)
            },
        ),
        (
            "256, broad stripes",
            Study {
                broad: 1.0,
                ..base(256)
            },
        ),
        (
            "256, broad, half as high",
            Study {
                broad: 0.5,
                ..base(256)
            },
        ),
        (
            "512, broad stripes",
            Study {
                broad: 1.0,
                ..base(512)
            },
        ),
        (
            "512, broad, a quarter",
            Study {
                broad: 0.25,
                ..base(512)
            },
        ),
        (
            "512, cloth, broad stripes",
            Study {
                cloth: true,
                broad: 1.0,
                ..base(512)
            },
        ),
        (
            "1024, 601 angles",
            Study {
                n_angles: 601,
                n_rows: 3,
                ..base(1024)
            },
        ),
    ];
    println!(
        "{:<26} {:>9} {:>9} {:>9} {:>9}  kept: locked, none, all, sorting; pixels found of faults, others",
        "", "locked", "none", "all", "sorting"
    );
    for (name, study) in cases {
        let clean = Study {
            faulty: false,
            ..study.clone()
        };
        let ideal = clean.change(StripeMethod::None, None);
        let map = Arc::new(study.find(4.0, 64).0);
        let changes = [
            study.change(StripeMethod::None, Some(&map)),
            study.change(StripeMethod::None, None),
            study.change(StripeMethod::All, None),
            study.change(StripeMethod::Sorting, None),
        ];
        let left = changes
            .each_ref()
            .map(|change| study.left_over(change, &ideal));
        let kept = changes
            .each_ref()
            .map(|change| study.gained(change) / study.gained(&ideal));
        let faults = if study.faulty {
            study.faults()
        } else {
            Vec::new()
        };
        let wrong = |row: usize, col: usize| {
            map.verdict(row, col) != Verdict::Good || map.broad[[row, col]]
        };
        let pixels = (0..study.n_rows).flat_map(|row| (0..study.n_cols).map(move |col| (row, col)));
        let (found, others): (Vec<_>, Vec<_>) = pixels
            .filter(|&(r, c)| wrong(r, c))
            .partition(|(_, c)| faults.contains(c));
        println!(
            "{name:<26} {:>9.2e} {:>9.2e} {:>9.2e} {:>9.2e}  {:.3} {:.3} {:.3} {:.3}; {} of {}, {}",
            left[0],
            left[1],
            left[2],
            left[3],
            kept[0],
            kept[1],
            kept[2],
            kept[3],
            found.len(),
            faults.len() * study.n_rows,
            others.len()
        );
    }
}
