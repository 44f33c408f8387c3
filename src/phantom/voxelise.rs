//! The phantom as voxels: the truth of a reconstruction.

use std::ops::Range;

use ndarray::{ArrayViewMut2, ArrayViewMut3, Axis};
use rayon::prelude::*;

use super::object::Section;
use super::{Object, Phantom, strip_area};
use crate::reconstruct::geometry::Grid;

/// Bands along x of which each voxel is made; the area of an ellipse within a band is exact, its slant ends are taken as upright.
pub const LINES_PER_VOXEL: usize = 8;

impl Phantom {
    /// Adds the slices `rows` of the phantom to `out` `[z, y, x]`: each voxel is the mean over its volume.
    ///
    /// An edge is placed to [`LINES_PER_VOXEL`] bands per voxel along y, along z as in [`super::Projector`]; the sum over
    /// a slice is the mass of its height to rounding.
    /// Slice r holds the heights r - `middle_row` +- 0.5; the same numbers come out for any slab height and number of threads.
    ///
    /// # Panics
    /// If `out` is not `[rows, grid.n_y, grid.n_x]`.
    pub fn add_voxels(
        &self,
        rows: Range<usize>,
        middle_row: f64,
        grid: &Grid,
        mut out: ArrayViewMut3<'_, f32>,
    ) {
        assert_eq!(
            out.shape(),
            [rows.len(), grid.n_y, grid.n_x],
            "the slab and the grid differ"
        );
        let start = rows.start;
        out.axis_iter_mut(Axis(0))
            .into_par_iter()
            .enumerate()
            .for_each(|(index, mut slice)| {
                let z = (start + index) as f64 - middle_row;
                let mut sections = Vec::new();
                for object in &self.objects {
                    sections.clear();
                    object.sections(z - 0.5, z + 0.5, &mut sections);
                    for section in &sections {
                        fill(object, *section, grid, &mut slice);
                    }
                }
            });
    }
}

/// Adds one ellipse to a slice: in each band along x the chord is shared among the voxels that it crosses.
fn fill(object: &Object, section: Section, grid: &Grid, slice: &mut ArrayViewMut2<'_, f32>) {
    let (sin, cos) = object.phi.sin_cos();
    let [a, b] = object.semi.map(|semi| semi * section.scale);
    let (x, y) = (
        object.centre[0] + object.lean[0] * section.dz,
        object.centre[1] + object.lean[1] * section.dz,
    );
    let value = object.value * section.weight / LINES_PER_VOXEL as f64;
    // the middles of the chords lie on the line x = slant * y (quadratic form of the ellipse, solved for x)
    let half_height_2 = (a * sin).powi(2) + (b * cos).powi(2);
    let (slant, half_height) = (
        sin * cos * (a * a - b * b) / half_height_2,
        half_height_2.sqrt(),
    );
    let first = ((grid.y0 - (y + half_height)) / grid.step - 0.5)
        .floor()
        .max(0.0) as usize;
    let last = ((grid.y0 - (y - half_height)) / grid.step + 1.5)
        .ceil()
        .clamp(0.0, grid.n_y as f64) as usize;
    for j in first..last {
        for line in 0..LINES_PER_VOXEL {
            let band = grid.step / LINES_PER_VOXEL as f64;
            let top = grid.y0 - (j as f64 - 0.5) * grid.step - line as f64 * band - y;
            let (high, low) = (top.min(half_height), (top - band).max(-half_height));
            if high <= low {
                continue;
            }
            // the chord that gives the band its exact area, so that no mass is lost
            let area = a * b * (strip_area(high / half_height) - strip_area(low / half_height));
            let half_chord = 0.5 * area / band;
            let middle = x + 0.5 * (high + low) * slant;
            // in voxels, whose edges are at whole numbers
            let from =
                ((middle - half_chord - grid.x0) / grid.step + 0.5).clamp(0.0, grid.n_x as f64);
            let to =
                ((middle + half_chord - grid.x0) / grid.step + 0.5).clamp(0.0, grid.n_x as f64);
            let mut i = from as usize;
            while (i as f64) < to {
                let covered = to.min(i as f64 + 1.0) - from.max(i as f64);
                slice[[j, i]] += (value * covered) as f32;
                i += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array3, s};

    fn scene() -> Phantom {
        let mut leaning = Object::ellipsoid([-3.0, 4.0, 0.3], [7.0, 2.5, 4.0], 0.9, 0.5);
        leaning.lean = [0.3, 0.5];
        Phantom::new(vec![
            Object::cylinder([1.0, -2.0, 0.0], 9.3, [3.0, 2.5], 1.0, 0.4),
            leaning,
        ])
    }

    #[test]
    fn every_slice_holds_the_mass_of_its_height() {
        let phantom = scene();
        let grid = Grid::square(31);
        let mut out = Array3::<f32>::zeros((13, 31, 31));
        phantom.add_voxels(0..13, 6.0, &grid, out.view_mut());
        for z in 0..13 {
            let mass = phantom.mass_between(z as f64 - 6.5, z as f64 - 5.5);
            let sum: f64 = out
                .index_axis(Axis(0), z)
                .iter()
                .map(|v| f64::from(*v))
                .sum();
            // f32 sums of at most 16 parts per voxel
            assert!(
                (sum - mass).abs() < 16.0 * f64::from(f32::EPSILON) * 150.0,
                "{z}: {sum} {mass}"
            );
        }
        let blind = (phantom.mass_between(-2.5, -1.5) - phantom.mass_between(-3.5, -2.5)).abs();
        assert!(blind > 1.0, "the check is blind: {blind}");
    }

    #[test]
    fn a_voxel_is_the_mean_of_the_values_inside_it() {
        let phantom = scene();
        let grid = Grid {
            n_x: 19,
            n_y: 23,
            x0: -8.3,
            y0: 11.0,
            step: 0.9,
        };
        let mut out = Array3::<f32>::zeros((9, 23, 19));
        phantom.add_voxels(0..9, 4.0, &grid, out.view_mut());
        let mean = |z: usize, j: usize, i: usize| {
            let mut sum = 0.0;
            for k in 0..20 * 20 * 20 {
                let at = |n: usize| (n as f64 + 0.5) / 20.0 - 0.5;
                let p = [
                    grid.x0 + (i as f64 + at(k % 20)) * grid.step,
                    grid.y0 - (j as f64 + at(k / 20 % 20)) * grid.step,
                    z as f64 - 4.0 + at(k / 400),
                ];
                sum += phantom.value_at(p);
            }
            sum / 8000.0
        };
        let (mut worst, mut blind) = (0f64, 0f64);
        for z in [1, 4, 6] {
            for j in (0..22).step_by(3) {
                for i in (0..18).step_by(2) {
                    worst = worst.max((f64::from(out[[z, j, i]]) - mean(z, j, i)).abs());
                    blind = blind.max((f64::from(out[[z, j + 1, i]]) - mean(z, j, i)).abs());
                }
            }
        }
        // two heights and eight bands against twenty of each: a face that cuts a voxel obliquely is off by up to 1/16
        // across and somewhat more along z, of a step of 0.5
        assert!(worst < 0.06, "{worst}");
        assert!(blind > 0.2, "the check is blind: {blind}");
    }

    #[test]
    fn slabs_give_what_the_whole_gives() {
        let phantom = scene();
        let grid = Grid::square(24);
        let mut whole = Array3::<f32>::zeros((9, 24, 24));
        phantom.add_voxels(0..9, 4.0, &grid, whole.view_mut());
        let mut slab = Array3::<f32>::zeros((4, 24, 24));
        phantom.add_voxels(3..7, 4.0, &grid, slab.view_mut());
        assert_eq!(slab, whole.slice(s![3..7, .., ..]));
        assert_ne!(slab, whole.slice(s![2..6, .., ..]));
    }
}
