//! What edges of the reference leave in the difference, slice by slice: the weighted gradient.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::edges::Residue;

/// Voxels on either side of an edge that its ripple reaches.
pub(super) const RIPPLE: usize = 2;

/// Takes slices of the reference in order and gives, one slice later, what its edges leave in the difference: its gradient
/// \[per voxel\] times the residue.
pub(super) struct Gradient {
    shape: [usize; 3],
    residue: Residue,
    /// Up to three slices; the gradient of the middle one can be taken.
    window: VecDeque<Vec<f32>>,
    given: usize,
    squares: Vec<[f32; 2]>,
}

impl Gradient {
    pub(super) fn new(shape: [usize; 3], residue: Residue) -> Gradient {
        Gradient {
            shape,
            residue,
            window: VecDeque::new(),
            given: 0,
            squares: Vec::new(),
        }
    }

    /// Takes the next slice, the first of them slice 0.
    pub(super) fn push(&mut self, slice: &[f32]) -> Option<Vec<f32>> {
        self.window.push_back(slice.to_vec());
        let n = self.window.len();
        if n == 1 {
            return None;
        }
        let out = gradient(
            (n == 3).then(|| self.window[0].as_slice()),
            &self.window[n - 2],
            Some(&self.window[n - 1]),
            self.shape[2],
            self.residue,
            &mut self.squares,
        );
        if n == 3 {
            self.window.pop_front();
        }
        self.given += 1;
        Some(out)
    }

    /// The last slice.
    pub(super) fn finish(&mut self) -> Option<Vec<f32>> {
        if self.given == self.shape[0] {
            return None;
        }
        self.given += 1;
        let here = self.window.pop_back()?;
        let below = self.window.pop_back();
        Some(gradient(
            below.as_deref(),
            &here,
            None,
            self.shape[2],
            self.residue,
            &mut self.squares,
        ))
    }
}

/// Size of the weighted gradient of a slice by central differences, one-sided at the ends; 0 where a neighbour is not finite.
/// `squares` is memory to work in.
fn gradient(
    below: Option<&[f32]>,
    here: &[f32],
    above: Option<&[f32]>,
    width: usize,
    residue: Residue,
    squares: &mut Vec<[f32; 2]>,
) -> Vec<f32> {
    let height = here.len() / width;
    let row = |y: usize| y * width..(y + 1) * width;
    let steps_z = usize::from(below.is_some()) + usize::from(above.is_some());
    // the slice itself where there is none: a slope of 0
    let (below, above) = (below.unwrap_or(here), above.unwrap_or(here));
    squares.resize(here.len(), [0.0; 2]);
    let rows = squares.par_chunks_mut(width).enumerate();
    rows.for_each(|(y, squares)| {
        let (up, down) = (y.saturating_sub(1), (y + 1).min(height - 1));
        let ends = [
            [&here[row(up)], &here[row(down)]],
            [&below[row(y)], &above[row(y)]],
        ];
        squares_of_row(&here[row(y)], ends, [down - up, steps_z], squares);
    });
    let [in_plane, z, ripple] =
        [residue.in_plane, residue.along_z, residue.ripple].map(|factor| (factor * factor) as f32);
    let mut out = vec![0f32; here.len()];
    out.par_chunks_mut(width).enumerate().for_each(|(y, out)| {
        for (square, [across, along]) in out.iter_mut().zip(&squares[row(y)]) {
            *square = in_plane * across + z * along;
        }
        if ripple > 0.0 {
            add_around(out, y, squares, ripple);
        }
        out.iter_mut().for_each(|square| *square = square.sqrt());
    });
    out
}

/// Squares of the slope within the slice and along z for a row; `ends`: the rows before and behind it along y and z, so many steps apart.
fn squares_of_row(
    here: &[f32],
    ends: [[&[f32]; 2]; 2],
    steps: [usize; 2],
    squares: &mut [[f32; 2]],
) {
    let per_step = |steps: usize| 1.0 / steps.max(1) as f32;
    let finite = |square: f32| if square.is_finite() { square } else { 0.0 };
    let scales = steps.map(per_step);
    let one = |along_x: f32, [up, down]: [f32; 2], [below, above]: [f32; 2]| {
        let (along_y, along_z) = ((down - up) * scales[0], (above - below) * scales[1]);
        [
            finite(along_x * along_x + along_y * along_y),
            finite(along_z * along_z),
        ]
    };
    let n = here.len();
    for x in [0, n - 1] {
        let (left, right) = (x.saturating_sub(1), (x + 1).min(n - 1));
        let [y, z] = ends.map(|rows| rows.map(|row| row[x]));
        squares[x] = one((here[right] - here[left]) * per_step(right - left), y, z);
    }
    if n < 3 {
        return;
    }
    // slices of one length, so that the loop goes through lanes
    let [[up, down], [below, above]] = ends.map(|rows| rows.map(|row| &row[1..n - 1]));
    let neighbours = here[..n - 2].iter().zip(&here[2..]);
    let along_y = up.iter().zip(down);
    let along_z = below.iter().zip(above);
    for (((square, (left, right)), (up, down)), (below, above)) in squares[1..n - 1]
        .iter_mut()
        .zip(neighbours)
        .zip(along_y)
        .zip(along_z)
    {
        *square = one((right - left) * 0.5, [*up, *down], [*below, *above]);
    }
}

/// Adds `factor` times the mean of the squares within the slice over [`RIPPLE`] voxels around, fewer at the ends, to row `y`.
fn add_around(row: &mut [f32], y: usize, squares: &[[f32; 2]], factor: f32) {
    let width = row.len();
    let rows = y.saturating_sub(RIPPLE)..(y + RIPPLE + 1).min(squares.len() / width);
    let mut columns = vec![0f32; width];
    for y in rows.clone() {
        let squares = &squares[y * width..(y + 1) * width];
        columns
            .iter_mut()
            .zip(squares)
            .for_each(|(sum, [across, _])| *sum += across);
    }
    for (x, value) in row.iter_mut().enumerate() {
        let around = &columns[x.saturating_sub(RIPPLE)..(x + RIPPLE + 1).min(width)];
        *value += factor * around.iter().sum::<f32>() / (around.len() * rows.len()) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::super::edges::EdgeSample;
    use super::*;

    #[test]
    fn the_gradient_of_a_plane_is_its_slope() {
        let (depth, height, width) = (4, 5, 6);
        let both = Residue {
            in_plane: 1.0,
            along_z: 1.0,
            ripple: 0.0,
        };
        let mut stream = Gradient::new([depth, height, width], both);
        let mut out = Vec::new();
        for z in 0..depth {
            let slice: Vec<f32> = (0..height * width)
                .map(|i| 2.0 * z as f32 + 3.0 * (i / width) as f32 - 6.0 * (i % width) as f32)
                .collect();
            out.extend(stream.push(&slice));
        }
        out.extend(stream.finish());
        assert_eq!(out.len(), depth);
        assert!(stream.finish().is_none());
        assert!(
            out.iter().flatten().all(|g| (g - 7.0).abs() < 1e-5),
            "{out:?}"
        );
    }

    #[test]
    fn slopes_are_central_and_those_to_what_is_not_finite_are_left_out() {
        let (width, of) = (7, |z: f32, y: f32, x: f32| {
            x * x - 2.0 * y * y + 3.0 * z * z + y
        });
        let slice = |z: usize| -> Vec<f32> {
            (0..5 * width)
                .map(|i| of(z as f32, (i / width) as f32, (i % width) as f32))
                .collect()
        };
        let [below, mut here, above] = [0, 1, 2].map(slice);
        here[2 * width + 4] = f32::NAN;
        let [across, along, _] = EdgeSample::GRADIENTS.map(|residue| {
            let squares = &mut vec![[7.0; 2]; 3];
            gradient(Some(&below), &here, Some(&above), width, residue, squares)
        });
        for (i, (across, along)) in across.into_iter().zip(along).enumerate() {
            let (y, x) = (i / width, i % width);
            // beside the hole, whether in x or y; over it, slopes reach from below to above
            let beside = (y == 2 && x.abs_diff(4) == 1) || (x == 4 && y.abs_diff(2) == 1);
            // one-sided differences of a parabola are off by one half of its second derivative
            let d = |at: usize, last: usize| {
                2.0 * at as f32 + f32::from(at == 0) - f32::from(at == last)
            };
            let expected = if beside {
                0.0
            } else {
                d(x, width - 1).hypot(1.0 - 2.0 * d(y, 4))
            };
            assert!(
                (across - expected).abs() < 1e-4,
                "{y} {x}: {across} {expected}"
            );
            assert!((along - 6.0).abs() < 1e-4, "{y} {x}: {along}");
        }
    }

    #[test]
    fn the_mean_around_is_that_of_the_voxels_there() {
        let (height, width) = (7, 9);
        let slice: Vec<f32> = (0..height * width)
            .map(|i| ((i * 37) % 11) as f32)
            .collect();
        let [own, _, around] = EdgeSample::GRADIENTS
            .map(|residue| gradient(None, &slice, None, width, residue, &mut Vec::new()));
        for (y, x) in [(0, 0), (3, 4), (6, 8), (1, 7)] {
            let near = (0..own.len())
                .filter(|i| (i / width).abs_diff(y) <= RIPPLE && (i % width).abs_diff(x) <= RIPPLE);
            let squares: Vec<f32> = near.map(|i| own[i] * own[i]).collect();
            let expected = (squares.iter().sum::<f32>() / squares.len() as f32).sqrt();
            let found = around[y * width + x];
            assert!((found / expected - 1.0).abs() < 1e-5, "{found} {expected}");
        }
    }
}
