//! Against a slow labeller written here, against cc3d's labels, and against what can be counted by hand.

use super::*;
use rand::RngExt;

/// Signs of a volume `[z, y, x]`: 1, -1 or 0.
struct Signs {
    shape: [usize; 3],
    signs: Vec<i8>,
}

impl Signs {
    fn random(seed: u128, shape: [usize; 3], density: f64) -> Signs {
        let mut random = rand_pcg::Pcg64Mcg::new(seed);
        let signs = (0..shape.iter().product())
            .map(|_| match random.random::<f64>() {
                p if p < density => 1,
                p if p < 1.5 * density => -1,
                _ => 0,
            })
            .collect();
        Signs { shape, signs }
    }

    fn at(&self, [z, y, x]: [usize; 3]) -> i8 {
        self.signs[(z * self.shape[1] + y) * self.shape[2] + x]
    }

    fn runs(&self, z: usize) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for y in 0..self.shape[1] {
            for x in 0..self.shape[2] {
                let sign = self.at([z, y, x]);
                let value = f32::from(sign) * (1.0 + x as f32);
                match runs.last_mut() {
                    Some(run) if run.y == y as u32 && run.x1 == x as u32 && run.sign == sign => {
                        run.x1 += 1;
                        run.sum += f64::from(value);
                        run.peak = value;
                    }
                    _ if sign != 0 => {
                        let (y, x) = (y as u32, x as u32);
                        runs.push(Run {
                            y,
                            x0: x,
                            x1: x + 1,
                            sign,
                            peak: value,
                            sum: f64::from(value),
                        });
                    }
                    _ => {}
                }
            }
        }
        runs
    }

    fn label(&self, connectivity: u8, min_voxels: u64) -> (Vec<u32>, Grains) {
        let mut labeller = Labeller::new(connectivity, min_voxels, 0);
        let mut slices = Vec::new();
        for z in 0..self.shape[0] {
            slices.push(
                labeller
                    .push(&self.runs(z), self.shape[1])
                    .unwrap()
                    .to_vec(),
            );
        }
        let grains = labeller.finish();
        let mut labels = vec![0u32; self.signs.len()];
        for (z, runs) in slices.iter().enumerate() {
            for run in runs {
                let row = (z * self.shape[1] + run.y as usize) * self.shape[2];
                labels[row + run.x0 as usize..row + run.x1 as usize]
                    .fill(grains.label_of[run.component as usize]);
            }
        }
        (labels, grains)
    }

    /// Flood fill from every voxel that has no label yet, in scan order.
    fn flood(&self, connectivity: u8) -> Vec<u32> {
        let reach = match connectivity {
            6 => 1,
            18 => 2,
            _ => 3,
        };
        let mut labels = vec![0u32; self.signs.len()];
        let mut last = 0;
        for start in 0..labels.len() {
            if self.signs[start] == 0 || labels[start] != 0 {
                continue;
            }
            last += 1;
            labels[start] = last;
            let mut todo = vec![start];
            while let Some(at) = todo.pop() {
                let here = [
                    at / (self.shape[1] * self.shape[2]),
                    at / self.shape[2] % self.shape[1],
                    at % self.shape[2],
                ];
                for step in 0..27 {
                    let step = [step / 9, step / 3 % 3, step % 3];
                    if step.iter().filter(|&&s| s != 1).count() > reach {
                        continue;
                    }
                    let there: [usize; 3] =
                        std::array::from_fn(|axis| (here[axis] + step[axis]).wrapping_sub(1));
                    if there.iter().zip(self.shape).any(|(&t, n)| t >= n)
                        || self.at(there) != self.at(here)
                    {
                        continue;
                    }
                    let there = (there[0] * self.shape[1] + there[1]) * self.shape[2] + there[2];
                    if labels[there] == 0 {
                        labels[there] = last;
                        todo.push(there);
                    }
                }
            }
        }
        labels
    }
}

#[test]
fn labels_equal_those_of_a_flood_fill_in_scan_order() {
    for connectivity in [6, 18, 26] {
        for (seed, density) in [(1, 0.05), (3, 0.15), (5, 0.25), (7, 0.4), (9, 0.66)] {
            for shape in [
                [9, 14, 17],
                [1, 20, 20],
                [20, 1, 20],
                [20, 20, 1],
                [7, 3, 40],
            ] {
                let volume = Signs::random(seed, shape, density);
                let (labels, _) = volume.label(connectivity, 1);
                assert_eq!(
                    labels,
                    volume.flood(connectivity),
                    "{connectivity} {density} {shape:?}"
                );
            }
        }
    }
    let volume = Signs::random(5, [9, 14, 17], 0.25);
    assert_ne!(
        volume.label(6, 1).0,
        volume.flood(26),
        "the comparison is blind to the connectivity"
    );
}

#[test]
fn statistics_are_those_of_the_labelled_voxels() {
    let volume = Signs::random(11, [12, 13, 14], 0.2);
    let (labels, found) = volume.label(18, 1);
    for (index, grain) in found.grains.iter().enumerate() {
        let mut voxels = Vec::new();
        for z in 0..12 {
            for y in 0..13 {
                for x in 0..14 {
                    if labels[(z * 13 + y) * 14 + x] == index as u32 + 1 {
                        voxels.push([z, y, x]);
                    }
                }
            }
        }
        let count = voxels.len();
        assert_eq!(grain.voxels, count as u64);
        let values: Vec<f64> = voxels
            .iter()
            .map(|&at| f64::from(volume.at(at)) * (1.0 + at[2] as f64))
            .collect();
        assert!((grain.sum - values.iter().sum::<f64>()).abs() < 1e-9);
        assert_eq!(
            f64::from(grain.peak).abs(),
            values
                .iter()
                .fold(0.0, |peak: f64, value| peak.max(value.abs()))
        );
        for axis in 0..3 {
            let along: Vec<usize> = voxels.iter().map(|at| at[axis]).collect();
            assert_eq!(grain.low[axis] as usize, *along.iter().min().unwrap());
            assert_eq!(grain.high[axis] as usize, *along.iter().max().unwrap());
            assert!(
                (grain.centroid()[axis] - along.iter().sum::<usize>() as f64 / count as f64).abs()
                    < 1e-12
            );
        }
        assert!(voxels.iter().all(|&at| volume.at(at) == grain.sign));
    }
}

#[test]
fn small_grains_are_dropped_counted_and_leave_no_gap_in_the_labels() {
    let volume = Signs::random(13, [10, 16, 16], 0.12);
    let (all, found_all) = volume.label(26, 1);
    let (kept, found) = volume.label(26, 5);
    let large: Vec<&Grain> = found_all
        .grains
        .iter()
        .filter(|grain| grain.voxels >= 5)
        .collect();
    assert!(!large.is_empty() && large.len() < found_all.grains.len());
    assert_eq!(found.grains.len(), large.len());
    assert_eq!(found.dropped as usize, found_all.grains.len() - large.len());
    assert_eq!(
        found.dropped_voxels,
        found_all.grains.iter().map(|g| g.voxels).sum::<u64>()
            - large.iter().map(|g| g.voxels).sum::<u64>()
    );
    for (before, after) in all.iter().zip(&kept) {
        let expected = large.iter().position(|grain| {
            *before > 0 && grain.component == found_all.grains[*before as usize - 1].component
        });
        assert_eq!(*after, expected.map_or(0, |index| index as u32 + 1));
    }
}

#[test]
fn memory_is_one_record_per_open_grain() {
    // a thousand slices, each with its own speck: one record serves them all
    let mut labeller = Labeller::new(26, 1, 0);
    for z in 0..1000u32 {
        let runs = if z % 2 == 0 {
            vec![Run {
                y: 3,
                x0: 1,
                x1: 3,
                sign: 1,
                peak: 1.0,
                sum: 2.0,
            }]
        } else {
            Vec::new()
        };
        labeller.push(&runs, 8).unwrap();
        assert!(labeller.records.len() <= 1 && labeller.open.len() <= 1);
    }
    assert_eq!(labeller.finish().grains.len(), 500);
}

fn golden(name: &str) -> Option<ndarray::Array3<f32>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/goldens")
        .join(name);
    let reader = crate::io::volume::open(&path).ok()?;
    reader.read(0..reader.meta().shape[0]).ok()
}

#[test]
fn labels_agree_with_cc3d() {
    let Some(blobs) = golden("in_blobs.npy") else {
        eprintln!("SKIPPED: ../shared/goldens is not there");
        return;
    };
    let (nz, ny, nx) = blobs.dim();
    let volume = Signs {
        shape: [nz, ny, nx],
        signs: blobs.iter().map(|&v| i8::from(v != 0.0)).collect(),
    };
    for connectivity in [6, 18, 26] {
        let (labels, found) = volume.label(connectivity, 1);
        let expected = golden(&format!("out_label_{connectivity}.npy")).unwrap();
        let count = expected.iter().fold(0f32, |most, &v| most.max(v)) as usize;
        assert_eq!(found.grains.len(), count);
        // equal up to renumbering: each of our labels meets one of theirs, and none is met twice
        let mut theirs = vec![0f32; count + 1];
        for (&ours, &other) in labels.iter().zip(&expected) {
            if theirs[ours as usize] == 0.0 {
                theirs[ours as usize] = other;
            }
            assert_eq!(theirs[ours as usize], other);
        }
        theirs.sort_by(f32::total_cmp);
        theirs.dedup();
        assert_eq!(theirs.len(), count + 1);
    }
}

/// Processor time of this thread \[s\], and the largest memory that the process held \[MB\]; NaN where the system does not tell.
fn cpu_and_peak() -> [f64; 2] {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let first = |text: &str| {
        text.split_whitespace()
            .next()
            .and_then(|n| n.parse::<f64>().ok())
    };
    let nanoseconds = first(&read("/proc/thread-self/schedstat"));
    let status = read("/proc/self/status");
    let kilobytes = status
        .lines()
        .find_map(|line| first(line.strip_prefix("VmHWM:")?));
    [
        nanoseconds.map_or(f64::NAN, |ns| 1e-9 * ns),
        kilobytes.map_or(f64::NAN, |kb| 1e-3 * kb),
    ]
}

#[test]
#[ignore = "a measurement: cargo test --release labelling_speed -- --ignored --nocapture"]
fn labelling_speed() {
    use std::io::Read;
    let n = 512;
    let path = std::env::var("BLOBS").expect("BLOBS names a raw u8 volume of 512^3");
    for connectivity in [26, 18, 6] {
        let mut file = std::fs::File::open(&path).unwrap();
        let [start, _] = cpu_and_peak();
        let mut labeller = Labeller::new(connectivity, 1, 0);
        let mut runs = Vec::new();
        let mut slice = vec![0u8; n * n];
        let mut count = 0;
        while file.read_exact(&mut slice).is_ok() {
            runs.clear();
            for (y, row) in slice.chunks(n).enumerate() {
                let mut x = 0;
                while let Some(first) = row[x..].iter().position(|&v| v != 0) {
                    let x0 = x + first;
                    let x1 = row[x0..]
                        .iter()
                        .position(|&v| v == 0)
                        .map_or(n, |len| x0 + len);
                    runs.push(Run {
                        y: y as u32,
                        x0: x0 as u32,
                        x1: x1 as u32,
                        sign: 1,
                        peak: 1.0,
                        sum: (x1 - x0) as f64,
                    });
                    x = x1;
                }
            }
            count += runs.len();
            labeller.push(&runs, n).unwrap();
        }
        let found = labeller.finish();
        let [end, peak] = cpu_and_peak();
        let squares: u64 = found.grains.iter().map(|grain| grain.voxels.pow(2)).sum();
        let largest = found.grains.iter().map(|grain| grain.voxels).max();
        eprintln!(
            "{connectivity}: {} grains, largest {largest:?}, squares of the sizes {squares}, {count} runs, {:.3} CPU-s, peak {peak:.0} MB",
            found.grains.len(),
            end - start,
        );
    }
}

#[test]
fn more_specks_than_can_be_numbered_are_an_error_and_never_share_a_number() {
    // every other voxel of every other row and slice stands alone: 4 x 4 specks in a slice
    let shape = [5, 7, 7];
    let signs = (0..shape.iter().product::<usize>())
        .map(|i| i8::from(i % 7 % 2 == 0 && i / 7 % 7 % 2 == 0 && i / 49 % 2 == 0))
        .collect();
    let signs = Signs { shape, signs };
    let label = |most: u32| {
        let mut labeller = Labeller::new(26, 1, 0);
        labeller.most = most;
        (0..shape[0]).try_for_each(|z| labeller.push(&signs.runs(z), shape[1]).map(|_| ()))
    };
    label(48).unwrap();
    let error = label(47).unwrap_err().to_string();
    assert!(error.contains("difference.sigma"), "{error}");
}
