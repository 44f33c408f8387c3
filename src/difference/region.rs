//! Which voxels count: a cylinder around the middle of the slices, and a range of slices.

use std::ops::Range;

/// Voxels within `radius` of the middle of their slice, in the slices `z`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Region {
    /// Slices.
    pub(super) z: Range<usize>,
    /// Columns of each row.
    rows: Vec<Range<usize>>,
    middle: [f64; 2],
}

impl Region {
    /// `shape` is `[z, y, x]`; `radius` \[voxel\] is measured between voxel centres.
    pub(super) fn new(shape: [usize; 3], radius: f64, z: Range<usize>) -> Region {
        let [depth, height, width] = shape;
        let middle = [(height as f64 - 1.0) / 2.0, (width as f64 - 1.0) / 2.0];
        let rows = (0..height)
            .map(|row| {
                let y = row as f64 - middle[0];
                let half_squared = radius * radius - y * y;
                if radius < 0.0 || half_squared < 0.0 {
                    return 0..0;
                }
                let half = half_squared.sqrt();
                // the epsilon keeps voxels that lie on the circle on both sides of the middle
                let first = (middle[1] - half - 1e-9).ceil().max(0.0) as usize;
                let last = (middle[1] + half + 1e-9).floor().min(width as f64 - 1.0);
                if last < first as f64 {
                    0..0
                } else {
                    first..last as usize + 1
                }
            })
            .collect();
        Region {
            z: z.start.min(depth)..z.end.min(depth),
            rows,
            middle,
        }
    }

    /// Rows of a slice.
    pub(super) fn height(&self) -> usize {
        self.rows.len()
    }

    /// Columns of row `y` that count.
    pub(super) fn row(&self, y: usize) -> Range<usize> {
        self.rows[y].clone()
    }

    /// Voxels of one slice.
    pub(super) fn voxels_per_slice(&self) -> usize {
        self.rows.iter().map(ExactSizeIterator::len).sum()
    }

    /// Squared distance from the middle of the slice \[voxel^2\].
    pub(super) fn radius_squared(&self, y: usize, x: usize) -> f64 {
        let (dy, dx) = (y as f64 - self.middle[0], x as f64 - self.middle[1]);
        dy * dy + dx * dx
    }

    /// Largest squared distance of a voxel that counts.
    pub(super) fn largest_radius_squared(&self) -> f64 {
        let ends = |(y, row): (usize, &Range<usize>)| {
            if row.is_empty() {
                0.0
            } else {
                self.radius_squared(y, row.start)
                    .max(self.radius_squared(y, row.end - 1))
            }
        };
        self.rows.iter().enumerate().map(ends).fold(0.0, f64::max)
    }

    /// Values of a slice `[y, x]` that count, with their place.
    pub(super) fn voxels<'a>(
        &'a self,
        slice: &'a [f32],
    ) -> impl Iterator<Item = (usize, usize, f32)> + 'a {
        let width = slice.len() / self.rows.len().max(1);
        self.rows
            .iter()
            .enumerate()
            .flat_map(move |(y, row)| row.clone().map(move |x| (y, x, slice[y * width + x])))
    }
}

/// Up to `count` groups of up to `height` adjacent slices, spread evenly over `z`, for what is estimated on a sample.
pub(super) fn sample_groups(z: Range<usize>, count: usize, height: usize) -> Vec<Range<usize>> {
    let height = height.min(z.len());
    if height == 0 {
        return Vec::new();
    }
    let count = count.min(z.len() / height).max(1);
    let free = z.len() - height;
    (0..count)
        .map(|index| {
            let start = z.start
                + if count == 1 {
                    free / 2
                } else {
                    index * free / (count - 1)
                };
            start..start + height
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_the_disc_around_the_middle() {
        for (height, width, radius) in [
            (11, 11, 5.0),
            (10, 13, 4.2),
            (1, 7, 2.0),
            (6, 6, 100.0),
            (5, 5, 0.4),
        ] {
            let region = Region::new([3, height, width], radius, 1..9);
            assert_eq!(region.z, 1..3);
            let slice = vec![0f32; height * width];
            let inside: Vec<(usize, usize)> =
                region.voxels(&slice).map(|(y, x, _)| (y, x)).collect();
            let expected: Vec<(usize, usize)> = (0..height)
                .flat_map(|y| (0..width).map(move |x| (y, x)))
                .filter(|&(y, x)| {
                    let (dy, dx) = (
                        y as f64 - (height as f64 - 1.0) / 2.0,
                        x as f64 - (width as f64 - 1.0) / 2.0,
                    );
                    dy.hypot(dx) <= radius
                })
                .collect();
            assert_eq!(inside, expected);
            assert_eq!(region.voxels_per_slice(), expected.len());
        }
    }

    #[test]
    fn groups_lie_in_the_range_and_do_not_overlap() {
        for (z, count, height) in [
            (0..1000, 16, 4),
            (5..9, 16, 4),
            (5..7, 16, 4),
            (3..20, 16, 4),
            (0..1, 3, 4),
        ] {
            let groups = sample_groups(z.clone(), count, height);
            assert!(!groups.is_empty() && groups[0].start == z.start || groups.len() == 1);
            assert!(
                groups
                    .iter()
                    .all(|group| group.start >= z.start && group.end <= z.end && !group.is_empty())
            );
            assert!(
                groups.windows(2).all(|pair| pair[0].end <= pair[1].start),
                "{groups:?}"
            );
        }
        assert!(sample_groups(4..4, 3, 4).is_empty());
    }
}
