//! What is done with finished volumes, tried on two made ones in a folder of its own: writing, binning, registering,
//! subtracting, drawing.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::Array3;
use rayon::prelude::*;

use super::cost::{Cost, Line, spent};
use crate::align::{self, PilotPair};
use crate::config::Config;
use crate::difference::{self, Halves, half_groups};
use crate::error::{Error, Result};
use crate::io::volume::{self, VolumeMeta, VoxelType};
use crate::pipeline::pilot::bin_volume;
use crate::progress::Progress;
use crate::report;

/// A difference looks at so many slices for its noise, however many there are.
const SAMPLED: usize = 64;
/// Side of the slices of a small trial, and of a large one at most \[voxel\].
const SIDES: [usize; 2] = [48, 144];
/// Slices and side of the pilots compared, the side at most: one that is next to nothing, and one of which the residuals are sampled as
/// those of any larger one.
const PILOTS: [[usize; 2]; 2] = [[8, 32], [24, 192]];
/// By how much the pilots are apart, and volumes that were aligned \[voxel\].
const APART: f32 = 0.4;
const ALIGNED: f32 = 0.03;
/// Volumes that the figures of a difference are drawn from, and their number.
const DRAWN_FROM: f64 = 4.0;
const FIGURES: f64 = 9.0;
/// Slices at a time.
const SLAB: usize = 32;

/// Cost of volumes by their voxels.
pub(super) struct Volumes {
    /// Writing.
    write: Line,
    /// Reading and averaging.
    bin: Line,
    /// Comparing two pilots.
    register: Line,
    /// Whatever the width: files, tables, what is fitted.
    subtract: Cost,
    /// For every voxel of a slice that is looked at for the noise.
    sampled: Cost,
    /// For every voxel.
    subtracted: Cost,
    /// Figures of a difference, without reading its volumes.
    figures: Cost,
}

impl Volumes {
    /// Tries what `config` asks for on slices `side` voxels wide, or fewer: a series of several scans is also compared.
    pub(super) fn tried(config: &Config, side: usize) -> Result<Volumes> {
        let compared = config.scan.len() > 1;
        let wide = side.clamp(SIDES[0] + 1, SIDES[1]);
        let tried = |depth, side| Trial::of(config, [depth, side, side], compared);
        let narrow = tried(SAMPLED, SIDES[0])?;
        let [small, large] = [tried(SAMPLED, wide)?, tried(3 * SAMPLED, wide)?];
        let line = |cost: fn(&Trial) -> Cost| {
            Line::through([
                (narrow.voxels(), cost(&narrow)),
                (large.voxels(), cost(&large)),
            ])
        };
        let bin = line(|trial| trial.bin);
        // by the width of what is sampled, and by the slices that are not
        let of_width = Line::through([
            (narrow.voxels(), narrow.subtract),
            (small.voxels(), small.subtract),
        ]);
        let of_depth = Line::through([
            (small.voxels(), small.subtract),
            (large.voxels(), large.subtract),
        ]);
        let register = if compared && config.align.searches() {
            let pilot = |[depth, most]: [usize; 2]| register(config, depth, most.min(side).max(16));
            Line::through([pilot(PILOTS[0])?, pilot(PILOTS[1])?])
        } else {
            Line::default()
        };
        Ok(Volumes {
            write: line(|trial| trial.write),
            bin,
            register,
            subtract: of_width.at_least,
            sampled: (of_width.each - of_depth.each).at_least_none(),
            subtracted: of_depth.each,
            figures: (small.figures - bin.each * (DRAWN_FROM * small.voxels())).at_least_none(),
        })
    }

    /// Writing a volume.
    pub(super) fn written(&self, voxels: f64) -> Cost {
        self.write.at(voxels)
    }

    /// Reading a volume for its pilot.
    pub(super) fn binned(&self, voxels: f64) -> Cost {
        self.bin.at(voxels)
    }

    /// Comparing two pilots of so many voxels.
    pub(super) fn registered(&self, voxels: f64) -> Cost {
        self.register.at(voxels)
    }

    /// Subtracting two volumes `[z, y, x]` and measuring the change.
    pub(super) fn subtracted(&self, [depth, n_y, n_x]: [usize; 3]) -> Cost {
        let slice = (n_y * n_x) as f64;
        self.subtract
            + self.sampled * (depth.min(SAMPLED) as f64 * slice)
            + self.subtracted * (depth as f64 * slice)
    }

    /// The figures of a difference of so many voxels.
    pub(super) fn drawn(&self, voxels: f64) -> Cost {
        self.figures + self.bin.each * (DRAWN_FROM * voxels)
    }

    /// The figure of the axis of one scan.
    pub(super) fn axis_drawn(&self) -> Cost {
        self.figures * (1.0 / FIGURES)
    }
}

/// Two volumes of one shape, from writing them to their figures.
struct Trial {
    shape: [usize; 3],
    write: Cost,
    bin: Cost,
    subtract: Cost,
    figures: Cost,
}

impl Trial {
    fn of(config: &Config, shape: [usize; 3], compared: bool) -> Result<Trial> {
        let folder =
            tempfile::tempdir().map_err(Error::io("create folder", &std::env::temp_dir()))?;
        let path = |name: &str| {
            folder
                .path()
                .join(volume::file_name(name, config.run.format))
        };
        let names = ["reference", "target"];
        let mut write = Cost::NONE;
        for (moved, name) in names.iter().enumerate().take(if compared { 2 } else { 1 }) {
            write += written(config, &path(name), shape, moved)? * if compared { 0.5 } else { 1.0 };
        }
        let mut trial = Trial {
            shape,
            write,
            bin: Cost::NONE,
            subtract: Cost::NONE,
            figures: Cost::NONE,
        };
        if compared {
            let reference = volume::open(&path(names[0]))?;
            let (bin, done) = spent(|| bin_volume(reference.as_ref(), 2));
            done?;
            drop(reference);
            let volumes = names.map(path);
            let out = folder.path().join("difference");
            trial.bin = bin;
            trial.subtract = subtracted(config, shape, folder.path(), &volumes, &out)?;
            let (figures, done) =
                spent(|| report::try_figures(&out, &volumes, &Progress::new(true)));
            trial.figures = figures;
            done?;
        }
        Ok(trial)
    }

    fn voxels(&self) -> f64 {
        self.shape.iter().product::<usize>() as f64
    }
}

/// A volume with a sample in it, moved or not.
fn written(config: &Config, path: &Path, shape: [usize; 3], moved: usize) -> Result<Cost> {
    let ([depth, side, _], meta) = (shape, meta(shape));
    let mut writer = volume::create(path, config.run.format, &meta, false)?;
    let mut all = Cost::NONE;
    for start in (0..depth).step_by(SLAB) {
        let slab = sample(start..(start + SLAB).min(depth), side, moved, ALIGNED, 0.1);
        let (cost, done) = spent(|| writer.write(start, slab.view()));
        done?;
        all += cost;
    }
    let (cost, done) = spent(|| writer.finish());
    done?;
    Ok(all + cost)
}

fn subtracted(
    config: &Config,
    [depth, side, _]: [usize; 3],
    folder: &Path,
    volumes: &[PathBuf; 2],
    out: &Path,
) -> Result<Cost> {
    let groups = half_groups(depth, &config.difference);
    let sampled: usize = groups.iter().map(ExactSizeIterator::len).sum();
    let mut halves = Vec::new();
    for (seed, name) in ["noise-reference", "noise-target"].into_iter().enumerate() {
        if sampled > 0 {
            let path = folder.join(volume::file_name(name, config.run.format));
            let noise = sample(0..sampled, side, 2 + seed, 0.0, 0.1);
            volume::write_array(
                &path,
                config.run.format,
                &meta([sampled, side, side]),
                noise.view(),
                false,
            )?;
            halves.push(volume::open(&path)?);
        }
    }
    let [reference, target] = [volume::open(&volumes[0])?, volume::open(&volumes[1])?];
    let progress = Progress::new(true);
    let context = difference::Context {
        target: "target",
        reference: "reference",
        config: &config.difference,
        mass: None,
        charge_mah_cm2: None,
        shift_err_z: 0.0,
        halves: match &halves[..] {
            [reference, target] => Some(Halves {
                groups,
                reference: reference.as_ref(),
                target: target.as_ref(),
            }),
            _ => None,
        },
        format: config.run.format,
        slab: SLAB,
        valid_radius: side as f64 / 2.0 - 2.0,
        valid_z: 0..depth,
        overwrite: false,
        provenance: serde_json::Value::Null,
        progress: &progress,
    };
    let (cost, done) =
        spent(|| difference::run(reference.as_ref(), target.as_ref(), out, &context));
    done?;
    Ok(cost)
}

/// Voxels of a pair of pilots, and what comparing them costs.
fn register(config: &Config, depth: usize, side: usize) -> Result<(f64, Cost)> {
    let pair = PilotPair {
        reference: sample(0..depth, side, 0, APART, 0.05),
        target: sample(0..depth, side, 1, APART, 0.05),
        binning: 1,
        radius: side as f64 / 2.0 - 2.0,
    };
    let (cost, done) = spent(|| align::register(&pair, &config.align));
    done?;
    Ok(((depth * side * side) as f64, cost))
}

fn meta(shape: [usize; 3]) -> VolumeMeta {
    VolumeMeta {
        shape,
        voxel_type: VoxelType::F32,
        unit: "1/cm".into(),
        voxel_size_um: Some(1.0),
        first_row: 0,
        provenance: serde_json::Value::Null,
    }
}

/// Slices of a sample in a round field: fibres, their noise, and a few grains more where it is `moved` (1) `by` so many voxels; noise alone from 2 on.
fn sample(z: Range<usize>, side: usize, moved: usize, by: f32, noise: f32) -> Array3<f32> {
    let mut out = Array3::<f32>::zeros((z.len(), side, side));
    let middle = (side as f32 - 1.0) / 2.0;
    let shift = if moved == 1 { by } else { 0.0 };
    let slices: Vec<_> = out.outer_iter_mut().zip(z).collect();
    slices.into_par_iter().for_each(|(mut slice, z)| {
        for ((y, x), value) in slice.indexed_iter_mut() {
            let (px, py, pz) = (x as f32 - shift, y as f32, z as f32);
            if (px - middle).hypot(py - middle) > middle - 1.0 {
                continue;
            }
            let number = ((z * side + y) * side + x) as u64 + ((moved as u64) << 40);
            let random =
                (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 24) as f32;
            *value = noise * 3.4 * (random - 0.5);
            if moved < 2 {
                *value += 1.0 + 0.5 * (0.31 * px + 0.2 * pz).sin() * (0.27 * py - 0.13 * pz).cos();
            }
            // a grain in every cube of 32 voxels a side
            let far = |p: f32| (p % 32.0 - 16.0).powi(2);
            if moved == 1 && far(px) + far(py) + far(pz) < 9.0 {
                *value += 0.8;
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ScanConfig;

    #[test]
    fn more_voxels_cost_more_of_everything() {
        let config = Config {
            scan: vec![ScanConfig::default(), ScanConfig::default()],
            ..Config::default()
        };
        let volumes = Volumes::tried(&config, 32).unwrap();
        let costs = |shape: [usize; 3]| {
            let voxels = shape.iter().product::<usize>() as f64;
            [
                volumes.written(voxels),
                volumes.binned(voxels),
                volumes.registered(voxels),
                volumes.subtracted(shape),
                volumes.drawn(voxels),
            ]
        };
        let small = costs([8, 64, 64]);
        let large = costs([800, 640, 640]);
        for (small, large) in small.iter().zip(&large) {
            assert!(small.wall >= 0.0 && small.wall.is_finite(), "{small:?}");
            assert!(large.wall >= small.wall, "{small:?} {large:?}");
        }
    }
}
