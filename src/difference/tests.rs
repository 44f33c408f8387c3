//! Promises of the whole stage. Truth is put in by hand: noise of a known law, with the correlation that a ramp filter gives
//! (neighbours compensate one another) and growing with the radius, and grains of a known change.

mod edges;
mod faint;

use std::ops::Range;

use ndarray::Array3;
use rand_distr::{Distribution, StandardNormal};

use super::*;
use crate::record::{GrainRow, HistogramRow, PerHeightRow};

/// A volume in memory.
struct Memory {
    meta: VolumeMeta,
    voxels: Array3<f32>,
}

impl VolumeReader for Memory {
    fn meta(&self) -> &VolumeMeta {
        &self.meta
    }
    fn read(&self, z: Range<usize>) -> Result<Array3<f32>> {
        Ok(self.voxels.slice(ndarray::s![z, .., ..]).to_owned())
    }
    fn read_labels(&self, _z: Range<usize>) -> Result<Array3<u32>> {
        unreachable!("values are read")
    }
    fn bytes_per_slice(&self) -> u64 {
        0
    }
}

fn memory(voxels: Array3<f32>) -> Memory {
    let (nz, ny, nx) = voxels.dim();
    let meta = VolumeMeta {
        shape: [nz, ny, nx],
        voxel_type: VoxelType::F32,
        unit: "1/cm".into(),
        voxel_size_um: Some(2.0),
        first_row: 5,
        provenance: serde_json::Value::Null,
    };
    Memory { meta, voxels }
}

const SHAPE: [usize; 3] = [40, 90, 90];
/// Standard deviation of the noise of one scan on the axis.
const SIGMA: f32 = 0.1;

/// Noise of a reconstruction: white noise minus the mean of its four neighbours, with standard deviation `SIGMA` on the axis
/// and 1.5 times as much at the edge.
fn noise(seed: u128, shape: [usize; 3]) -> Array3<f32> {
    let mut random = rand_pcg::Pcg64Mcg::new(seed);
    let [nz, ny, nx] = shape;
    let white = Array3::<f32>::from_shape_simple_fn((nz, ny + 2, nx + 2), || {
        StandardNormal.sample(&mut random)
    });
    let middle = (nx as f32 - 1.0) / 2.0;
    Array3::from_shape_fn((nz, ny, nx), |(z, y, x)| {
        let (v, u) = (y + 1, x + 1);
        let near = white[[z, v - 1, u]]
            + white[[z, v + 1, u]]
            + white[[z, v, u - 1]]
            + white[[z, v, u + 1]];
        let high_pass = (white[[z, v, u]] - near / 4.0) / 1.25f32.sqrt();
        let r = (y as f32 - middle).hypot(x as f32 - middle) / middle;
        SIGMA * (1.0 + 0.5 * r * r) * high_pass
    })
}

/// Three materials in squares, so that a gain can be fitted.
fn material(y: usize, x: usize) -> f32 {
    0.5 + 0.6 * ((y / 15 + x / 15) % 3) as f32
}

/// Noisy reference, and target with `change` added, grey values scaled by `gain` and `offset`.
fn pair(seed: u128, gain: f32, offset: f32, change: &Array3<f32>) -> (Memory, Memory) {
    let (nz, ny, nx) = change.dim();
    let with = |noise: Array3<f32>, change: Option<&Array3<f32>>| {
        Array3::from_shape_fn((nz, ny, nx), |at| {
            material(at.1, at.2) + noise[at] + change.map_or(0.0, |change| change[at])
        })
    };
    let reference = with(noise(seed, [nz, ny, nx]), None);
    let target =
        with(noise(seed + 1000, [nz, ny, nx]), Some(change)).mapv(|value| gain * value + offset);
    (memory(reference), memory(target))
}

struct Found {
    record: DifferenceRecord,
    heights: Vec<PerHeightRow>,
    grains: Vec<GrainRow>,
    histogram: Vec<HistogramRow>,
    difference: Array3<f32>,
    labels: Array3<u32>,
    tables: Vec<Vec<u8>>,
}

fn table<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Vec<T> {
    ::csv::Reader::from_reader(bytes)
        .deserialize()
        .map(|row| row.unwrap())
        .collect()
}

fn difference(
    reference: &Memory,
    target: &Memory,
    change: impl FnOnce(&mut Context<'_>, &mut DifferenceConfig, &mut Option<MassConfig>),
) -> Result<Found> {
    let scratch = tempfile::tempdir().unwrap();
    difference_in(scratch.path(), reference, target, None, change)
}

fn difference_with(
    halves: &[Memory; 2],
    reference: &Memory,
    target: &Memory,
    change: impl FnOnce(&mut Context<'_>, &mut DifferenceConfig, &mut Option<MassConfig>),
) -> Result<Found> {
    let scratch = tempfile::tempdir().unwrap();
    difference_in(scratch.path(), reference, target, Some(halves), change)
}

fn difference_in(
    folder: &Path,
    reference: &Memory,
    target: &Memory,
    halves: Option<&[Memory; 2]>,
    change: impl FnOnce(&mut Context<'_>, &mut DifferenceConfig, &mut Option<MassConfig>),
) -> Result<Found> {
    let progress = Progress::new(true);
    let (mut config, mut mass) = (DifferenceConfig::default(), None);
    let unused = DifferenceConfig::default();
    let mut context = Context {
        target: "after",
        reference: "before",
        config: &unused,
        mass: None,
        charge_mah_cm2: None,
        shift_err_z: 0.0,
        halves: halves.and_then(all_slices),
        format: VolumeFormat::Npy,
        slab: 7,
        valid_radius: 1e9,
        valid_z: 0..reference.meta.shape[0],
        overwrite: false,
        provenance: serde_json::Value::Null,
        progress: &progress,
    };
    change(&mut context, &mut config, &mut mass);
    let context = Context {
        config: &config,
        mass: mass.as_ref(),
        ..context
    };
    let record = run(reference, target, folder, &context)?;
    let tables: Vec<Vec<u8>> = ["per_height.csv", "grains.csv", "histogram.csv"]
        .iter()
        .map(|name| std::fs::read(folder.join(name)).unwrap())
        .collect();
    let open =
        |stem: &str| volume::open(&folder.join(volume::file_name(stem, context.format))).unwrap();
    let depth = reference.meta.shape[0];
    let written: DifferenceRecord =
        serde_json::from_slice(&std::fs::read(folder.join("difference.json")).unwrap()).unwrap();
    assert_eq!(
        serde_json::to_value(&written).unwrap(),
        serde_json::to_value(&record).unwrap()
    );
    let hidden = std::fs::read_dir(folder)
        .unwrap()
        .filter(|e| {
            e.as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with('.')
        })
        .count();
    assert_eq!(hidden, 0, "scratch files were left");
    Ok(Found {
        record,
        heights: table(&tables[0]),
        grains: table(&tables[1]),
        histogram: table(&tables[2]),
        difference: open("difference").read(0..depth).unwrap(),
        labels: open("labels").read_labels(0..depth).unwrap(),
        tables,
    })
}

fn zeros() -> Array3<f32> {
    Array3::zeros(SHAPE)
}

/// Cubes of side 5 at every height, alternately up and down, away from one another: `(z, y, x)` of their first voxels.
fn cubes() -> Vec<[usize; 3]> {
    let mut corners = Vec::new();
    for (layer, z) in (1..SHAPE[0] - 5).step_by(8).enumerate() {
        for y in (20..65).step_by(11) {
            for x in (20..65).step_by(11) {
                corners.push([z + (x / 11 + layer) % 3, y, x]);
            }
        }
    }
    corners
}

fn with_cubes(size: f32) -> Array3<f32> {
    let mut change = zeros();
    for (index, [z, y, x]) in cubes().into_iter().enumerate() {
        let sign = if index % 2 == 0 { size } else { -size };
        change
            .slice_mut(ndarray::s![z..z + 5, y..y + 5, x..x + 5])
            .fill(sign);
    }
    change
}

#[test]
fn a_null_difference_is_empty_at_the_stated_rate() {
    for seed in [1, 2] {
        let (reference, target) = pair(seed, 1.0, 0.0, &zeros());
        let found = difference(&reference, &target, |_, _, _| {}).unwrap();
        assert_eq!(
            (found.record.increase_grains, found.record.decrease_grains),
            (0, 0)
        );
        assert!(
            found.record.increase_voxels + found.record.decrease_voxels <= 2,
            "{:?}",
            found.record
        );
        assert!(found.labels.iter().all(|&label| label == 0));
        assert!(
            found.grains.is_empty() && found.tables[1].starts_with(b"id,sign,voxels"),
            "an empty table has its header"
        );
        // the sum over all voxels is zero within its error
        assert!(
            found.record.total_sum.abs() < 4.0 * found.record.total_sum_err,
            "{:?}",
            found.record
        );
        // at 3 sigma the number of voxels is that of a normal distribution: 5 % for sigma itself, and four times the chance
        let at_3 = difference(&reference, &target, |_, config, _| {
            config.sigma = 3.0;
            config.min_grain_voxels = 1;
        })
        .unwrap()
        .record;
        let expected = at_3.expected_by_noise;
        assert!((expected / (at_3.voxels as f64 * 1.349_898e-3) - 1.0).abs() < 1e-6);
        for voxels in [at_3.increase_voxels, at_3.decrease_voxels] {
            assert!(
                (voxels as f64 - expected).abs() < 0.05 * expected + 4.0 * expected.sqrt(),
                "{voxels} {expected}"
            );
        }
    }
}

#[test]
fn sigma_follows_the_radius() {
    let (reference, target) = pair(3, 1.0, 0.0, &zeros());
    let found = difference(&reference, &target, |_, config, _| {
        config.sigma = 3.0;
        config.min_grain_voxels = 1;
    })
    .unwrap();
    let middle = (SHAPE[2] as f64 - 1.0) / 2.0;
    // as many voxels beyond the threshold in the outer as in the inner half of the area
    let mut counts = [0f64; 2];
    let half = 0.5 * (0.95 * 45.0f64).powi(2);
    for ((_, y, x), &label) in found.labels.indexed_iter() {
        if label > 0 {
            counts
                [usize::from((y as f64 - middle).powi(2) + (x as f64 - middle).powi(2) > half)] +=
                1.0;
        }
    }
    assert!(
        (counts[0] - counts[1]).abs() < 5.0 * (counts[0] + counts[1]).sqrt(),
        "{counts:?}"
    );
    assert!(counts[0] > 100.0);
    assert!(
        found
            .record
            .threshold_rule
            .contains("distance from the axis")
    );
}

#[test]
fn known_grains_are_recovered_with_their_sums_within_their_errors() {
    let change = with_cubes(2.5);
    let (reference, target) = pair(5, 1.06, -0.08, &change);
    let found = difference(&reference, &target, |_, _, _| {}).unwrap();
    assert!(
        (found.record.gain - 1.06).abs() < 0.01 && (found.record.offset + 0.08).abs() < 0.015,
        "{:?}",
        found.record
    );
    let corners = cubes();
    assert_eq!(found.grains.len(), corners.len());
    let truth_up: f64 = change
        .iter()
        .filter(|v| **v > 0.0)
        .map(|v| f64::from(*v))
        .sum();
    let truth_down: f64 = change
        .iter()
        .filter(|v| **v < 0.0)
        .map(|v| -f64::from(*v))
        .sum();
    assert!(
        (found.record.increase_sum - truth_up).abs() < 4.0 * found.record.increase_sum_err,
        "{truth_up} {:?}",
        found.record
    );
    assert!(
        (found.record.decrease_sum - truth_down).abs() < 4.0 * found.record.decrease_sum_err,
        "{truth_down} {:?}",
        found.record
    );
    assert!(
        (found.record.increase_sum - truth_up).abs() < 0.01 * truth_up
            && found.record.increase_sum_err < 0.01 * truth_up
    );
    for grain in &found.grains {
        let near = corners.iter().find(|[z, y, x]| {
            (grain.z - *z as f64 - 2.0).abs() < 0.3
                && (grain.y - *y as f64 - 2.0).abs() < 0.3
                && (grain.x - *x as f64 - 2.0).abs() < 0.3
        });
        let &[z, y, x] = near.unwrap_or_else(|| panic!("no cube at {grain:?}"));
        assert_eq!(f32::from(grain.sign), change[[z, y, x]].signum());
        assert!(grain.voxels >= 123 && grain.voxels <= 127, "{grain:?}");
        assert!((grain.volume_um3 / (grain.voxels as f64 * 8.0) - 1.0).abs() < 1e-12);
        let label = found.labels[[z + 2, y + 2, x + 2]];
        assert_eq!(label, grain.id);
        assert_eq!(
            found.labels.iter().filter(|&&l| l == label).count() as u64,
            grain.voxels
        );
    }
    assert_eq!(
        found
            .heights
            .iter()
            .map(|row| row.increase_grains + row.decrease_grains)
            .sum::<u64>(),
        corners.len() as u64
    );
    assert_eq!(
        found.histogram.iter().map(|row| row.voxels).sum::<u64>(),
        found.record.voxels
    );
    assert!((found.heights[3].height_um - 6.0).abs() < 1e-12 && found.heights.len() == SHAPE[0]);
}

#[test]
fn pulls_of_the_sums_per_height_are_near_a_unit_normal() {
    // white noise this time, and the noise of a back-projection: the error bars hold for both
    for correlated in [true, false] {
        let change = with_cubes(2.5);
        let (reference, mut target) = pair(7, 1.0, 0.0, &change);
        if !correlated {
            let mut random = rand_pcg::Pcg64Mcg::new(99);
            target.voxels = Array3::from_shape_fn(change.dim(), |at| {
                let white: f32 = StandardNormal.sample(&mut random);
                reference.voxels[at] + change[at] + SIGMA * 2f32.sqrt() * white
            });
        }
        let found = difference(&reference, &target, |_, config, _| {
            (config.match_intensity, config.grow) = (false, 1);
        })
        .unwrap();
        let pulls = pulls(&found, &change, |row, side| {
            [row.increase_sum_err, row.decrease_sum_err][side]
        });
        // about 60 pulls: the root mean square of a unit normal scatters by 0.09; the factor c by another 0.1
        assert!(
            pulls > 0.6 && pulls < 1.4,
            "correlated {correlated}: {pulls}"
        );
        // control: independent voxels, of which seven by seven are in the sum of a slice of a cube; the noise of a back-projection
        // leaves a fifteenth of their variance, the rim of the square
        let independent = self::pulls(&found, &change, |row, side| {
            let slice = change.index_axis(ndarray::Axis(0), row.z);
            let sign = [1.0, -1.0][side];
            let cubes = slice.iter().filter(|v| **v * sign > 0.0).count() as f64 / 25.0;
            row.noise_per_cm * (49.0 * cubes).sqrt()
        });
        assert_eq!(
            independent > 0.6 && independent < 1.4,
            !correlated,
            "{independent}"
        );
    }
}

/// Root mean square of the pulls of the sums per height that hold a change.
fn pulls(found: &Found, change: &Array3<f32>, err: impl Fn(&PerHeightRow, usize) -> f64) -> f64 {
    let mut pulls = Vec::new();
    for row in &found.heights {
        let slice = change.index_axis(ndarray::Axis(0), row.z);
        let sums = [row.increase_sum_per_cm, row.decrease_sum_per_cm];
        for (side, sum) in sums.into_iter().enumerate() {
            let sign = [1.0, -1.0][side];
            let truth = slice
                .iter()
                .filter(|v| **v * sign > 0.0)
                .map(|v| f64::from(v.abs()))
                .sum::<f64>();
            if truth > 0.0 {
                pulls.push((sum - truth) / err(row, side));
            }
        }
    }
    (pulls.iter().map(|pull| pull * pull).sum::<f64>() / pulls.len() as f64).sqrt()
}

#[test]
fn nothing_depends_on_the_slabs_or_the_threads() {
    let (reference, target) = pair(9, 1.03, 0.02, &with_cubes(1.4));
    for smooth in [0.0, 0.8] {
        let one = difference(&reference, &target, |context, config, _| {
            (context.slab, config.smooth_sigma) = (40, smooth);
        })
        .unwrap();
        for (slab, threads) in [(1, 1), (7, 2), (13, 3)] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let other = pool.install(|| {
                difference(&reference, &target, |context, config, _| {
                    (context.slab, config.smooth_sigma) = (slab, smooth);
                })
                .unwrap()
            });
            assert!(
                one.tables == other.tables && one.labels == other.labels,
                "{slab} {threads}"
            );
            let same = one
                .difference
                .iter()
                .zip(&other.difference)
                .all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{slab} {threads}");
        }
        assert!(!one.grains.is_empty());
    }
}

#[test]
fn smoothing_lowers_noise_and_threshold_together() {
    let (reference, target) = pair(11, 1.0, 0.0, &with_cubes(0.9));
    let plain = difference(&reference, &target, |_, _, _| {}).unwrap();
    let smooth = difference(&reference, &target, |_, config, _| {
        config.smooth_sigma = 1.0
    })
    .unwrap();
    assert!(smooth.record.noise < 0.4 * plain.record.noise);
    assert!((smooth.record.threshold / smooth.record.noise - 5.0).abs() < 0.05);
    assert_eq!(smooth.grains.len(), cubes().len());
    let (reference, target) = pair(12, 1.0, 0.0, &zeros());
    let null = difference(&reference, &target, |_, config, _| {
        config.smooth_sigma = 1.0
    })
    .unwrap();
    assert_eq!(null.grains.len(), 0);
}

#[test]
fn only_the_region_is_measured() {
    let mut change = zeros();
    // in the corner, in a skipped slice, in a slice without data, and one that counts
    for (z, y, x) in [(20, 2, 2), (1, 40, 40), (36, 40, 40), (20, 40, 40)] {
        change
            .slice_mut(ndarray::s![z..z + 3, y..y + 3, x..x + 3])
            .fill(50.0);
    }
    let (reference, target) = pair(13, 1.0, 0.0, &change);
    let found = difference(&reference, &target, |context, config, _| {
        config.skip_slices = 4;
        context.valid_z = 0..36;
    })
    .unwrap();
    assert_eq!(found.grains.len(), 1);
    assert_eq!(found.grains[0].voxels, 27);
    assert!(found.heights[0].noise_per_cm.is_nan() && found.heights[36].increase_voxels == 0);
    assert!(found.heights[20].noise_per_cm > 0.0);
    assert_eq!(
        found.difference[[37, 41, 41]],
        0.0,
        "one scan has nothing there"
    );
    assert!(
        (found.difference[[2, 41, 41]] - 50.0).abs() < 2.0,
        "valid, if not measured"
    );
    let none = difference(&reference, &target, |_, config, _| config.skip_slices = 20);
    assert!(matches!(none, Err(Error::Input { .. })));
}

#[test]
fn nan_is_counted_and_is_never_a_change() {
    let (reference, mut target) = pair(15, 1.0, 0.0, &zeros());
    target
        .voxels
        .slice_mut(ndarray::s![10..14, 40..45, 40..45])
        .fill(f32::NAN);
    for smooth in [0.0, 1.0] {
        let found = difference(&reference, &target, |_, config, _| {
            config.smooth_sigma = smooth
        })
        .unwrap();
        assert!(
            found.record.increase_voxels + found.record.decrease_voxels <= 2
                && found.grains.is_empty()
        );
        assert!(
            found
                .record
                .warnings
                .iter()
                .any(|text| text.starts_with("100 measured voxels")),
            "{:?}",
            found.record.warnings
        );
        assert!(found.difference[[11, 42, 42]].is_nan() && found.record.total_sum.is_finite());
    }
}

#[test]
fn equal_volumes_have_no_difference_at_all() {
    let (reference, _) = pair(17, 1.0, 0.0, &zeros());
    let found = difference(&reference, &reference, |_, _, _| {}).unwrap();
    assert!(found.difference.iter().all(|&d| d == 0.0));
    assert_eq!(
        (
            found.record.increase_voxels,
            found.record.gain,
            found.record.noise
        ),
        (0, 1.0, 0.0)
    );
    assert!(found.record.expected_by_noise == 0.0);
}

#[test]
fn without_noise_every_change_is_found() {
    let change = with_cubes(0.01);
    let reference = memory(Array3::from_shape_fn(change.dim(), |(_, y, x)| {
        material(y, x)
    }));
    let target = memory(&reference.voxels + &change);
    let found = difference(&reference, &target, |_, _, _| {}).unwrap();
    assert_eq!(found.grains.len(), cubes().len());
    assert!(found.grains.iter().all(|grain| grain.voxels == 125));
}

#[test]
fn masses_need_a_pixel_size_and_a_change_in_per_cm() {
    let change = with_cubes(2.5);
    let (mut reference, mut target) = pair(19, 1.0, 0.0, &change);
    let config = MassConfig {
        electrode_area_cm2: 1e-6,
        ..MassConfig::default()
    };
    let found = difference(&reference, &target, |context, _, mass| {
        (*mass, context.charge_mah_cm2) = (Some(config.clone()), Some(0.5));
    })
    .unwrap();
    let mass = found.record.mass.as_ref().unwrap();
    // 8 um3 voxels: 8e-12 cm3 / 0.319 cm2/g, in ug
    let per_sum = 8e-12 / 0.319 * 1e6;
    assert!((mass.increase_ug / (found.record.increase_sum * per_sum) - 1.0).abs() < 1e-12);
    assert!((mass.faraday_ug.unwrap() / 428.9e-6 - 1.0).abs() < 1e-3);
    assert!((mass.ratio.unwrap() - mass.net_ug / mass.faraday_ug.unwrap()).abs() < 1e-12);
    let row = &found.heights[10];
    assert!(
        (row.net_ug.unwrap() - row.net_sum_per_cm * per_sum).abs() < 1e-15
            && row.net_ug_err.unwrap() > 0.0
    );
    assert!(
        (found.grains[0].mass_ug.unwrap() / (found.grains[0].sum_per_cm * per_sum) - 1.0).abs()
            < 1e-12
    );

    for meta in [&mut reference.meta, &mut target.meta] {
        (meta.unit, meta.voxel_size_um) = ("1/px".into(), None);
    }
    let found = difference(&reference, &target, |_, _, mass| {
        *mass = Some(config.clone())
    })
    .unwrap();
    assert!(found.record.mass.is_none() && found.heights[10].net_ug.is_none());
    assert_eq!(found.record.unit, "1/px");
    assert!(
        found
            .record
            .warnings
            .iter()
            .any(|text| text.contains("pixel_size_um"))
    );
    assert!(
        found
            .heights
            .iter()
            .all(|row| row.height_um.is_nan() && row.increase_um3.is_nan())
    );
    assert!(found.heights[10].increase_sum_per_cm > 0.0);
}

#[test]
fn per_pixel_values_of_known_voxels_become_per_cm() {
    let (reference, mut target) = pair(21, 1.0, 0.0, &with_cubes(2.5));
    (target.meta.unit, target.voxels) = ("1/px".into(), target.voxels.mapv(|value| value * 2e-4));
    let found = difference(&reference, &target, |_, config, _| {
        config.match_intensity = false
    })
    .unwrap();
    assert_eq!(found.record.unit, "1/cm");
    assert_eq!(found.grains.len(), cubes().len());
}

#[test]
fn volumes_that_do_not_fit_are_refused() {
    let (reference, target) = pair(23, 1.0, 0.0, &zeros());
    let with = |change: fn(&mut Memory)| {
        let mut other = memory(target.voxels.clone());
        change(&mut other);
        difference(&reference, &other, |_, _, _| {})
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert!(with(|other| other.meta.shape = [40, 90, 89]).contains("one grid"));
    assert!(with(|other| other.meta.voxel_size_um = Some(1.0)).contains("one voxel size"));
    assert!(with(|other| other.meta.unit = "unknown".into()).contains("unit"));
}

#[test]
fn existing_output_is_refused_before_any_work_and_replaced_on_demand() {
    let scratch = tempfile::tempdir().unwrap();
    let (reference, target) = pair(25, 1.0, 0.0, &with_cubes(2.5));
    for format in [VolumeFormat::Zarr, VolumeFormat::Tiff, VolumeFormat::Hdf5] {
        let folder = scratch.path().join(format!("{format:?}"));
        let first = difference_in(&folder, &reference, &target, None, |context, _, _| {
            context.format = format
        })
        .unwrap();
        assert_eq!(first.grains.len(), cubes().len());
        assert!(matches!(
            check_output(&folder, false),
            Err(Error::OutputExists { .. })
        ));
        let again = difference_in(&folder, &reference, &target, None, |context, _, _| {
            context.format = format
        });
        assert!(matches!(again, Err(Error::OutputExists { .. })));
        let over = difference_in(&folder, &reference, &target, None, |context, _, _| {
            (context.format, context.overwrite) = (format, true);
        });
        assert_eq!(over.unwrap().labels, first.labels);
    }
}

#[test]
fn an_absolute_threshold_is_the_same_everywhere() {
    let (reference, target) = pair(27, 1.0, 0.0, &with_cubes(2.5));
    let found = difference(&reference, &target, |_, config, _| {
        config.absolute = Some(1.5)
    })
    .unwrap();
    assert_eq!(found.record.threshold, 1.5);
    for (&value, &label) in found.difference.iter().zip(&found.labels) {
        assert!(label == 0 || value.abs() > 1.5);
    }
    assert_eq!(found.grains.len(), cubes().len());
}

#[test]
fn a_single_slice_is_a_volume_too() {
    let mut change = Array3::zeros((1, 90, 90));
    change.slice_mut(ndarray::s![.., 40..50, 40..50]).fill(2.5);
    let (reference, target) = pair(29, 1.0, 0.0, &change);
    for smooth in [0.0, 1.0] {
        let found = difference(&reference, &target, |_, config, _| {
            config.smooth_sigma = smooth
        })
        .unwrap();
        assert_eq!(found.grains.len(), 1, "{:?}", found.record);
    }
}

#[test]
#[ignore = "a measurement: BEFORE=a.npy AFTER=b.npy OUT=folder cargo test --release difference_speed -- --ignored --nocapture"]
fn difference_speed() {
    let env = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let open = |name: &str| {
        let hints = volume::Hints {
            unit: Some("1/cm".into()),
            voxel_size_um: Some(1.3),
        };
        volume::open_with(Path::new(&env(name)), &hints).unwrap()
    };
    let (reference, target) = (open("BEFORE"), open("AFTER"));
    let config = DifferenceConfig::default();
    let shape = reference.meta().shape;
    let progress = Progress::new(true);
    let context = Context {
        target: "after",
        reference: "before",
        config: &config,
        mass: None,
        charge_mah_cm2: None,
        shift_err_z: 0.0,
        halves: None,
        format: VolumeFormat::Zarr,
        slab: 16,
        valid_radius: 1e9,
        valid_z: 0..shape[0],
        overwrite: true,
        provenance: serde_json::Value::Null,
        progress: &progress,
    };
    let record = run(
        reference.as_ref(),
        target.as_ref(),
        Path::new(&env("OUT")),
        &context,
    )
    .unwrap();
    eprintln!("{record:#?}\n{:?}", progress.times());
    let readers = Readers {
        bytes: reference.bytes_per_slice() + target.bytes_per_slice(),
        together: reference.slices_together(),
    };
    let stated = bytes(shape, 16, readers, VolumeFormat::Zarr, &config);
    eprintln!("stated memory {:?} MiB", stated.map(|bytes| bytes >> 20));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    eprintln!(
        "{}",
        status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap_or_default()
    );
}

/// Half differences of even and odd projections of both scans: noise of their own.
fn halves_of(seed: u128) -> [Memory; 2] {
    // the generator takes the last two bits of its seed for its own
    [0, 1].map(|k| memory(noise(seed + 40_000 * (k + 1), SHAPE)))
}

fn all_slices<'a>(halves: &'a [Memory; 2]) -> Option<Halves<'a>> {
    Some(Halves {
        groups: std::iter::once(0..SHAPE[0]).collect(),
        reference: &halves[0],
        target: &halves[1],
    })
}

#[test]
fn halves_know_the_noise_where_most_of_a_slice_changed() {
    // two thirds of every slice change by an amount that differs from voxel to voxel: no voxel says what is unchanged
    let mut random = rand_pcg::Pcg64Mcg::new(5);
    let mut change = zeros();
    for ((_, y, _), value) in change.indexed_iter_mut() {
        let size: f32 = StandardNormal.sample(&mut random);
        if y > 30 {
            *value = 1.5 * size;
        }
    }
    let (reference, target) = pair(31, 1.0, 0.0, &change);
    let halves = halves_of(700);
    let with = |source: crate::config::NoiseSource| {
        difference_with(&halves, &reference, &target, |_, config, _| {
            (config.noise, config.match_intensity) = (source, false);
        })
        .unwrap()
        .record
    };
    let known = with(crate::config::NoiseSource::Halves);
    // root mean square over the region of a profile from 1 to 1.5: known to a few per cent
    let (mut squares, mut n) = (0.0f64, 0.0f64);
    let region = Region::new(SHAPE, 0.95 * 45.0, 0..1);
    for y in 0..SHAPE[1] {
        for x in region.row(y) {
            squares += (1.0 + 0.5 * region.radius_squared(y, x) / 44.5f64.powi(2)).powi(2);
            n += 1.0;
        }
    }
    let truth = f64::from(SIGMA) * 2f64.sqrt() * (squares / n).sqrt();
    assert!(
        (known.noise / truth - 1.0).abs() < 0.03,
        "{} {truth}",
        known.noise
    );
    assert!(known.noise_excess.unwrap() > 1.7, "{known:?}");
    assert!(
        known
            .warnings
            .iter()
            .any(|text| text.contains("projections alone"))
    );
    // control: the voxels alone take the change for noise
    let blind = with(crate::config::NoiseSource::Voxels);
    assert!(blind.noise > 1.7 * truth, "{} {truth}", blind.noise);
    // and the larger of both is the default
    assert_eq!(with(crate::config::NoiseSource::Auto).noise, blind.noise);
}

#[test]
fn the_null_difference_is_empty_at_the_stated_rate() {
    let (reference, target) = pair(33, 1.1, 0.3, &with_cubes(2.5));
    let halves = halves_of(900);
    let found = |sigma: f64| {
        difference_with(&halves, &reference, &target, |_, config, _| {
            config.sigma = sigma;
        })
        .unwrap()
        .record
    };
    // the target's halves are noise of an unscaled volume here, so that of the difference is that of 1 and 1 / 1.1
    let at_three = found(3.0);
    let null = at_three.null.clone().unwrap();
    let beyond = (null.increase_voxels + null.decrease_voxels) as f64;
    let expected = 2.0 * null.expected_by_noise;
    assert!(null.voxels > 200_000 && null.slices == 40);
    // neighbours are anti-correlated, which makes the scatter no larger; the width is known to 1 %, the tail then to 10 %
    assert!(
        (beyond - expected).abs() < 4.0 * expected.sqrt() + 0.1 * expected,
        "{beyond} {expected}"
    );
    let at_five = found(5.0);
    let null = at_five.null.unwrap();
    assert!(
        null.grains == 0 && null.increase_voxels + null.decrease_voxels <= 3,
        "{null:?}"
    );
    assert_eq!(
        at_five.increase_grains + at_five.decrease_grains,
        cubes().len() as u64
    );
}

#[test]
fn a_false_discovery_rate_sets_the_threshold() {
    let change = with_cubes(1.0);
    let (reference, target) = pair(35, 1.0, 0.0, &change);
    let halves = halves_of(1100);
    for rate in [0.01, 0.1] {
        let found = difference_with(&halves, &reference, &target, |_, config, _| {
            (config.fdr, config.match_intensity) = (Some(rate), false);
            config.min_grain_voxels = 1;
        })
        .unwrap();
        assert!(found.record.threshold_rule.contains("false-discovery"));
        let (mut wrong, mut all) = (0.0, 0.0);
        for (at, &label) in found.labels.indexed_iter() {
            if label > 0 {
                all += 1.0;
                wrong += f64::from(u8::from(change[at] == 0.0));
            }
        }
        eprintln!("{wrong} of {all} at {rate}");
        // the share is kept on average; it may be lower, where the tails of the null difference cost power
        assert!(
            all > 500.0 && wrong <= rate * all + 4.0 * (rate * all).sqrt(),
            "{wrong} of {all}"
        );
        assert!(
            rate < 0.05 || wrong > 0.2 * rate * all,
            "a rate that is never used up: {wrong} of {all}"
        );
    }
}

#[test]
fn the_median_lowers_noise_and_threshold_together_and_nothing_depends_on_the_slabs() {
    let (reference, target) = pair(37, 1.0, 0.0, &with_cubes(0.9));
    let halves = halves_of(1300);
    let with = |median: usize, slab: usize, sigma: f64| {
        difference_with(&halves, &reference, &target, |context, config, _| {
            (config.smooth_median, context.slab, config.sigma) = (median, slab, sigma);
        })
        .unwrap()
    };
    let plain = with(0, 16, 5.0);
    let smooth = with(3, 16, 5.0);
    assert!(smooth.record.noise < 0.6 * plain.record.noise);
    let excess = smooth.record.noise_excess.unwrap();
    // the rims of the cubes, a fifth of the voxels after the filter, are neither changed nor unchanged
    assert!(excess > 0.9 && excess < 1.4, "{excess}");
    assert_eq!(smooth.grains.len(), cubes().len());
    let warned = |found: &Found| found.record.warnings.iter().any(|w| w.contains("median"));
    assert!(warned(&smooth) && !warned(&plain));
    // in the null difference, too, the stated number is found
    let null = with(3, 16, 3.0).record.null.unwrap();
    let (beyond, expected) = (
        (null.increase_voxels + null.decrease_voxels) as f64,
        2.0 * null.expected_by_noise,
    );
    // medians of values that compensate one another have heavier tails than a normal distribution, which is why the null
    // difference stands in the record: twice as many here
    assert!(
        beyond > 0.7 * expected && beyond < 3.0 * expected,
        "{beyond} {expected}"
    );
    for slab in [1, 7] {
        let other = with(3, slab, 5.0);
        assert!(
            other.tables == smooth.tables && other.labels == smooth.labels,
            "{slab}"
        );
    }
}

/// What the grain of [`blurred`] weighs, and the volume with it.
fn blurred(radius: f64, height: f32) -> (f64, Array3<f32>) {
    let middle = [19.7, 44.3, 45.1];
    let mut change = zeros();
    let mut sum = 0.0;
    for (at, value) in change.indexed_iter_mut() {
        let p = [at.0, at.1, at.2];
        let d = (0..3)
            .map(|a| (p[a] as f64 - middle[a]).powi(2))
            .sum::<f64>()
            .sqrt();
        // an edge blurred by 0.9 voxels
        *value = height * (1.0 / (1.0 + ((d - radius) / 0.5).exp())) as f32;
        sum += f64::from(*value);
    }
    (sum, change)
}

#[test]
fn sums_over_grown_grains_hold_what_blur_has_put_below_the_threshold() {
    let (truth, change) = blurred(5.0, 2.0);
    let sum = |grow: usize, seed: u128| {
        let (reference, target) = pair(seed, 1.0, 0.0, &change);
        let found = difference(&reference, &target, |_, config, _| {
            (config.grow, config.match_intensity) = (grow, false);
        })
        .unwrap();
        (found.record.increase_sum, found.record.increase_sum_err)
    };
    let seeds = 41..47u128;
    let mean = |grow: usize| {
        seeds.clone().map(|seed| sum(grow, seed).0).sum::<f64>() / seeds.clone().count() as f64
    };
    let (bare, grown) = (mean(0), mean(2));
    eprintln!("bare {:.4}, grown {:.4}", bare / truth, grown / truth);
    // 5 sigma is a third of the grain's height: a third of a voxel of its rim, 3 / 5 of a voxel of surface per voxel
    assert!(bare < 0.97 * truth, "the check is blind: {bare} {truth}");
    let scatter = sum(2, 41).1 / (seeds.count() as f64).sqrt();
    assert!(
        (grown - truth).abs() < 4.0 * scatter,
        "{grown} {truth} {scatter}"
    );
}
