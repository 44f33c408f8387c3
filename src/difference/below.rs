//! What changed below the threshold.
//!
//! A voxel of faint change may stay below a threshold that noise demands, and nothing of it is found, while a patch of such voxels stands out as a
//! whole. So away from grains the change is summed over cubes of [`SIDE`] voxels, and those beyond [`SIGNIFICANT`] times the noise of such a sum are
//! counted. They are in no sum, as drift may look like this, and in the error of it; where they hold much, more smoothing or more light finds it.

use super::noise::NoiseModel;

/// Side of the cubes \[voxel\].
pub(super) const SIDE: usize = 4;
/// Noise alone exceeds this in two of a thousand million cubes.
const SIGNIFICANT: f64 = 6.0;

/// A cube, or as much of it as was seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cube {
    in_sigma: f32,
    change: f32,
    voxels: u16,
}

impl Cube {
    /// Adds a voxel that is at no grain; a cube without one of its voxels does not count.
    pub(super) fn add(&mut self, change: f32, sigma: f32) {
        if sigma > 0.0 {
            self.in_sigma += change / sigma;
            self.change += change;
            self.voxels += 1;
        }
    }
}

/// Sums of cubes, layer by layer.
#[derive(Default)]
pub(super) struct Below {
    layer: Vec<Cube>,
    /// Cubes in a row.
    width: usize,
    slices: usize,
    /// Standard deviation of the sum over a cube, in sigma of a voxel.
    noise: f64,
    /// Increase and decrease of every whole layer of cubes that was seen.
    found: Vec<[f64; 2]>,
}

impl Below {
    pub(super) fn new(model: &NoiseModel) -> Below {
        let (area, height) = ((SIDE * SIDE) as f64, SIDE as f64);
        Below {
            layer: Vec::new(),
            width: 0,
            slices: 0,
            noise: (area * height * model.variance_of_sums(area, height)[0]).sqrt(),
            found: Vec::new(),
        }
    }

    /// Bytes for slices of so many bytes of f32.
    pub(super) fn bytes(slice: u64) -> u64 {
        slice / 4 * size_of::<Cube>() as u64 / (SIDE * SIDE) as u64
    }

    /// The rows of cubes of the next slice, `[SIDE rows][width / SIDE]`; what is left over at the ends is in none.
    pub(super) fn rows(&mut self, height: usize, width: usize) -> Vec<&mut [Cube]> {
        self.width = width / SIDE;
        self.layer
            .resize(self.width * height.div_ceil(SIDE), Cube::default());
        self.layer.chunks_mut(self.width.max(1)).collect()
    }

    /// Ends a slice.
    pub(super) fn end_slice(&mut self) {
        self.slices += 1;
        if self.slices < SIDE {
            return;
        }
        let mut found = [0.0; 2];
        for cube in &self.layer {
            let whole = usize::from(cube.voxels) == SIDE.pow(3);
            if whole && f64::from(cube.in_sigma.abs()) > SIGNIFICANT * self.noise {
                found[usize::from(cube.change < 0.0)] += f64::from(cube.change.abs());
            }
        }
        self.found.push(found);
        self.layer.fill(Cube::default());
        self.slices = 0;
    }

    /// Increase and decrease in the cubes that stood out, of the slice that was the `index`-th to end: its part of their height.
    pub(super) fn of_slice(&self, index: usize) -> [f64; 2] {
        let layer = self.found.get(index / SIDE).copied().unwrap_or_default();
        layer.map(|change| change / SIDE as f64)
    }
}
