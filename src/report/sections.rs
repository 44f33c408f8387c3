//! Sections and projections of a difference, gathered by streaming its volumes once.

use std::ops::Range;

use ndarray::{Array2, Array3};

use super::gather::Change;
use crate::error::{Error, Result};
use crate::io::volume::{self, VolumeReader};
use crate::progress::Stage;

/// Longest side of a picture \[pixel\]; larger sections are averaged down.
const LONGEST: usize = 900;

/// Where the sections are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) z: usize,
    pub(super) y: usize,
    pub(super) x: usize,
}

/// One plane of the volumes, rows from the top, averaged down by [`Sections::factor`].
#[derive(Debug, Clone)]
pub(super) struct Plane {
    pub(super) reference: Array2<f32>,
    /// With gain and offset taken back.
    pub(super) target: Array2<f32>,
    /// Change of voxels that belong to a grain, 0 elsewhere.
    pub(super) change: Array2<f32>,
}

/// What the figures are made of.
pub(super) struct Sections {
    /// Voxels per pixel along both sides of every picture.
    pub(super) factor: usize,
    pub(super) cut: Cut,
    /// `[y, x]`
    pub(super) z: Plane,
    /// `[z, x]`
    pub(super) y: Plane,
    /// `[z, y]`
    pub(super) x: Plane,
    /// Largest increase and largest decrease (positive) of the grains seen along y, `[z, x]`.
    pub(super) along_y: [Array2<f32>; 2],
    /// The same seen along z, `[y, x]`.
    pub(super) along_z: [Array2<f32>; 2],
}

/// Mean of the voxels of each pixel, filled row by row.
struct Mean {
    sum: Array2<f32>,
    count: Array2<f32>,
    factor: usize,
}

impl Mean {
    fn new(rows: usize, columns: usize, factor: usize) -> Mean {
        let shape = (rows.div_ceil(factor), columns.div_ceil(factor));
        Mean {
            sum: Array2::zeros(shape),
            count: Array2::zeros(shape),
            factor,
        }
    }

    fn add(&mut self, row: usize, values: impl Iterator<Item = f32>) {
        let row = row / self.factor;
        for (x, value) in values.enumerate() {
            if value.is_finite() {
                self.sum[[row, x / self.factor]] += value;
                self.count[[row, x / self.factor]] += 1.0;
            }
        }
    }

    fn finish(mut self) -> Array2<f32> {
        self.sum.zip_mut_with(&self.count, |sum, &n| {
            *sum = if n > 0.0 { *sum / n } else { 0.0 }
        });
        self.sum
    }
}

/// The three means of one plane.
struct PlaneMean([Mean; 3]);

impl PlaneMean {
    fn new(rows: usize, columns: usize, factor: usize) -> PlaneMean {
        PlaneMean([0, 1, 2].map(|_| Mean::new(rows, columns, factor)))
    }

    fn finish(self) -> Plane {
        let [reference, target, change] = self.0.map(Mean::finish);
        Plane {
            reference,
            target,
            change,
        }
    }
}

/// The open volumes of a difference.
pub(super) struct Volumes {
    pub(super) reference: Box<dyn VolumeReader>,
    pub(super) target: Box<dyn VolumeReader>,
    pub(super) difference: Box<dyn VolumeReader>,
    pub(super) labels: Box<dyn VolumeReader>,
}

impl Volumes {
    /// Opens them and holds them to one shape.
    ///
    /// # Errors
    /// Those of opening; [`Error::Shape`].
    pub(super) fn open(change: &Change) -> Result<Volumes> {
        let volumes = Volumes {
            reference: volume::open(&change.reference)?,
            target: volume::open(&change.target)?,
            difference: volume::open(&change.difference)?,
            labels: volume::open(&change.labels)?,
        };
        let expected = volumes.difference.meta().shape;
        for (reader, path) in [
            (&volumes.reference, &change.reference),
            (&volumes.target, &change.target),
            (&volumes.labels, &change.labels),
        ] {
            let found = reader.meta().shape;
            if found != expected {
                return Err(Error::Shape {
                    what: format!(
                        "{} against {} [z, y, x]",
                        path.display(),
                        change.difference.display()
                    ),
                    expected: expected.to_vec(),
                    found: found.to_vec(),
                    hint: "the folder holds parts of different runs; run again with --overwrite"
                        .into(),
                });
            }
        }
        Ok(volumes)
    }

    fn all(&self) -> [&dyn VolumeReader; 4] {
        [
            self.reference.as_ref(),
            self.target.as_ref(),
            self.difference.as_ref(),
            self.labels.as_ref(),
        ]
    }

    /// Slices at a time within `budget` bytes, a divisor of what is stored together where that is too much.
    pub(super) fn slab(&self, budget: u64) -> usize {
        let [n_z, n_y, n_x] = self.difference.meta().shape;
        let bytes: u64 = self
            .all()
            .iter()
            .map(|v| v.bytes_per_slice() + 4 * (n_y * n_x) as u64)
            .sum();
        let together = self
            .all()
            .iter()
            .map(|v| v.slices_together())
            .max()
            .unwrap_or(1)
            .clamp(1, n_z.max(1));
        let fits = ((budget / bytes.max(1)) as usize).max(1);
        if fits >= together {
            return together * (fits / together).min(64usize.div_ceil(together)).max(1);
        }
        (1..=fits).rev().find(|n| together % n == 0).unwrap_or(1)
    }
}

/// The planes through most of the change: heights and columns by the voxels of the grains; the middle without any.
pub(super) fn cut(change: &Change, shape: [usize; 3]) -> Cut {
    let most = |n: usize, range: fn(&crate::record::GrainRow) -> (usize, usize)| {
        // each grain counts evenly over its extent; prefix sums of the differences
        let mut steps = vec![0.0; n + 1];
        for grain in &change.grains {
            let (low, high) = range(grain);
            let (low, high) = (low.min(n - 1), high.min(n - 1).max(low.min(n - 1)));
            let share = grain.voxels as f64 / (high - low + 1) as f64;
            steps[low] += share;
            steps[high + 1] -= share;
        }
        let (mut sum, mut best) = (0.0, (0.0, n / 2));
        for (k, step) in steps.iter().take(n).enumerate() {
            sum += step;
            if sum > best.0 + 1e-6 {
                best = (sum, k);
            }
        }
        best.1
    };
    let [n_z, n_y, n_x] = shape.map(|n| n.max(1));
    Cut {
        z: most(n_z, |g| (g.zmin, g.zmax)),
        y: most(n_y, |g| (g.ymin, g.ymax)),
        x: most(n_x, |g| (g.xmin, g.xmax)),
    }
}

/// Streams the volumes of `change` once, `slab` slices at a time.
///
/// # Errors
/// Those of reading.
pub(super) fn gather(
    change: &Change,
    volumes: &Volumes,
    slab: usize,
    stage: &Stage,
) -> Result<Sections> {
    let shape @ [n_z, n_y, n_x] = volumes.difference.meta().shape;
    let factor = n_z.max(n_y).max(n_x).div_ceil(LONGEST).max(1);
    let cut = cut(change, shape);
    let grey = |v: f32| ((f64::from(v) - change.record.offset) / gain(change)) as f32;
    let mut z_plane = PlaneMean::new(n_y, n_x, factor);
    let mut y_plane = PlaneMean::new(n_z, n_x, factor);
    let mut x_plane = PlaneMean::new(n_z, n_y, factor);
    let picture = |rows: usize, columns: usize| {
        Array2::<f32>::zeros((rows.div_ceil(factor), columns.div_ceil(factor)))
    };
    let mut along_y = [picture(n_z, n_x), picture(n_z, n_x)];
    let mut along_z = [picture(n_y, n_x), picture(n_y, n_x)];
    for start in (0..n_z).step_by(slab.max(1)) {
        let part: Range<usize> = start..(start + slab.max(1)).min(n_z);
        let mut masked = volumes.difference.read(part.clone())?;
        let labels = volumes.labels.read_labels(part.clone())?;
        masked.zip_mut_with(&labels, |d, &label| {
            if label == 0 {
                *d = 0.0;
            }
        });
        drop(labels);
        project(&masked, start, factor, &mut along_y, &mut along_z);
        for (k, reader) in [(0, &volumes.reference), (1, &volumes.target)] {
            let values = reader.read(part.clone())?;
            let matched = |v: f32| if k == 1 { grey(v) } else { v };
            add_planes(
                &values,
                start,
                cut,
                k,
                [&mut z_plane, &mut y_plane, &mut x_plane],
                matched,
            );
        }
        add_planes(
            &masked,
            start,
            cut,
            2,
            [&mut z_plane, &mut y_plane, &mut x_plane],
            |v| v,
        );
        stage.inc(part.len() as u64);
    }
    Ok(Sections {
        factor,
        cut,
        z: z_plane.finish(),
        y: y_plane.finish(),
        x: x_plane.finish(),
        along_y,
        along_z,
    })
}

fn gain(change: &Change) -> f64 {
    if change.record.gain.is_finite() && change.record.gain != 0.0 {
        change.record.gain
    } else {
        1.0
    }
}

/// Adds the rows of a slab that lie in the planes, into mean `which` of each.
fn add_planes(
    slab: &Array3<f32>,
    start: usize,
    cut: Cut,
    which: usize,
    planes: [&mut PlaneMean; 3],
    value: impl Fn(f32) -> f32,
) {
    let [z_plane, y_plane, x_plane] = planes;
    for (k, slice) in slab.outer_iter().enumerate() {
        let z = start + k;
        y_plane.0[which].add(z, slice.row(cut.y).iter().map(|&v| value(v)));
        x_plane.0[which].add(z, slice.column(cut.x).iter().map(|&v| value(v)));
        if z == cut.z {
            for (y, row) in slice.outer_iter().enumerate() {
                z_plane.0[which].add(y, row.iter().map(|&v| value(v)));
            }
        }
    }
}

/// Largest increase and decrease along y and along z.
fn project(
    masked: &Array3<f32>,
    start: usize,
    factor: usize,
    along_y: &mut [Array2<f32>; 2],
    along_z: &mut [Array2<f32>; 2],
) {
    for (k, slice) in masked.outer_iter().enumerate() {
        let z = (start + k) / factor;
        for (y, row) in slice.outer_iter().enumerate() {
            for (x, &d) in row.iter().enumerate() {
                if d == 0.0 || !d.is_finite() {
                    continue;
                }
                let side = usize::from(d < 0.0);
                let size = d.abs();
                let front = &mut along_y[side][[z, x / factor]];
                *front = front.max(size);
                let top = &mut along_z[side][[y / factor, x / factor]];
                *top = top.max(size);
            }
        }
    }
}

/// Least and largest of the middle 99 % of the finite values that are not exactly 0 (outside of the field of view).
pub(super) fn window(plane: &Array2<f32>) -> [f32; 2] {
    let mut values: Vec<f32> = plane
        .iter()
        .copied()
        .filter(|v| v.is_finite() && *v != 0.0)
        .collect();
    if values.is_empty() {
        return [0.0, 1.0];
    }
    values.sort_by(f32::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share) as usize];
    let [low, high] = [at(0.005), at(0.995)];
    if high > low {
        [low, high]
    } else {
        [low - 1.0, low + 1.0]
    }
}

/// Squares of `edge` pixels, by turns from the reference and from the target.
pub(super) fn checkerboard(plane: &Plane, edge: usize) -> Array2<f32> {
    let mut out = plane.reference.clone();
    for ((y, x), value) in out.indexed_iter_mut() {
        if (y / edge + x / edge) % 2 == 1 {
            *value = plane.target[[y, x]];
        }
    }
    out
}
