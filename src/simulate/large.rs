//! A sample whose projections are cheap at any size: layers that are each the same at every height.
//!
//! A common body, endless along z, and a few layers of discs; layer l weighs w_l(z), which rises and falls linearly at
//! its ends. A frame is then a(t) + sum of w_l(row) b_l(t): two rows of a phantom per height instead of thousands of
//! objects, and still the exact projection of the phantom that [`Layers::phantom`] gives.

use super::cell::{CERAMIC, TUBE};
use super::placer::Placer;
use crate::phantom::{Object, Phantom, Profile, Projector};

/// Number of layers.
const LAYERS: usize = 6;

/// The sample, attenuations in 1/cm.
pub(super) struct Layers {
    shape: [usize; 2],
    body: Vec<Object>,
    layers: Vec<Vec<Object>>,
}

impl Layers {
    /// For a detector of `[n_rows, n_cols]`.
    pub(super) fn new(shape: [usize; 2]) -> Self {
        let [height, width] = shape.map(|n| n as f64);
        let endless = [f64::INFINITY; 2];
        let middle = [0.01 * width, -0.006 * width];
        let mut body = Phantom::default();
        body.push_tube(
            [middle[0], middle[1], 0.0],
            [0.375 * width, 0.43 * width],
            endless,
            0.0,
            TUBE,
        );
        body.objects.push(Object::cylinder(
            [middle[0], middle[1], 0.0],
            0.36 * width,
            endless,
            0.0,
            CERAMIC,
        ));
        let step = height / LAYERS as f64;
        // the same sample whatever the seed of the noise: layers are told apart by their number
        let layers = (0..LAYERS)
            .map(|layer| {
                let mut placer = Placer::new(layer as u64, middle);
                let z = (layer as f64 + 0.5) * step - 0.5 * height;
                let profile = Profile::Column {
                    up: 0.5 * step,
                    down: 0.5 * step,
                    edge: 0.5 * step,
                };
                (0..70)
                    .filter_map(|index| {
                        let a = placer.random.log_uniform(0.006, 0.04) * width;
                        let value = if index % 4 == 0 {
                            -CERAMIC
                        } else {
                            placer.random.uniform(-0.5, 0.5)
                        };
                        let semi = [a, a * placer.random.uniform(0.4, 1.0), step];
                        let spot = placer.place(semi, 0.34 * width, [z, z], 0.0)?;
                        Some(Object {
                            profile,
                            ..spot.ellipsoid(value)
                        })
                    })
                    .collect()
            })
            .collect();
        Layers {
            shape,
            body: body.objects,
            layers,
        }
    }

    /// As one phantom.
    pub(super) fn phantom(&self) -> Phantom {
        Phantom::new(
            self.body
                .iter()
                .chain(self.layers.iter().flatten())
                .copied()
                .collect(),
        )
    }

    /// For projections.
    pub(super) fn projector(&self) -> LayersProjector {
        let [n_rows, n_cols] = self.shape;
        let middle_row = (n_rows as f64 - 1.0) / 2.0;
        let one_row = |objects: &[Object]| {
            let endless = Profile::Column {
                up: f64::INFINITY,
                down: f64::INFINITY,
                edge: 0.0,
            };
            let objects = objects
                .iter()
                .map(|object| Object {
                    profile: endless,
                    ..*object
                })
                .collect();
            Projector::new(&Phantom::new(objects), [1, n_cols], 0.0)
        };
        let weights = (0..n_rows)
            .map(|row| {
                let z = row as f64 - middle_row;
                let weight = |objects: &Vec<Object>| {
                    objects.first().map_or(0.0, |object| {
                        let area = std::f64::consts::PI * object.semi[0] * object.semi[1];
                        object.volume_between(z - 0.5, z + 0.5) / area
                    })
                };
                let all = self.layers.iter().map(weight).enumerate();
                all.filter(|(_, weight)| *weight > 0.0)
                    .map(|(layer, weight)| (layer, weight as f32))
                    .collect()
            })
            .collect();
        LayersProjector {
            n_cols,
            body: one_row(&self.body),
            layers: self.layers.iter().map(|objects| one_row(objects)).collect(),
            weights,
        }
    }
}

/// Projections of [`Layers`].
pub(super) struct LayersProjector {
    n_cols: usize,
    body: Projector,
    layers: Vec<Projector>,
    /// Per row: layer and weight.
    weights: Vec<Vec<(usize, f32)>>,
}

impl LayersProjector {
    /// Line integrals `[row, col]` at `theta` \[rad\] for an upright axis at `axis_px`; `cm` is the size of a pixel.
    pub(super) fn integrals(&self, theta: f64, axis_px: f64, cm: f64) -> Vec<f32> {
        let row = |projector: &Projector| -> Vec<f32> {
            let frame = projector.frame(theta, |_| axis_px);
            frame.iter().map(|value| (value * cm) as f32).collect()
        };
        let body = row(&self.body);
        let layers: Vec<Vec<f32>> = self.layers.iter().map(row).collect();
        let mut out = Vec::with_capacity(self.weights.len() * self.n_cols);
        for weights in &self.weights {
            let start = out.len();
            out.extend_from_slice(&body);
            for &(layer, weight) in weights {
                for (out, value) in out[start..].iter_mut().zip(&layers[layer]) {
                    *out += weight * value;
                }
            }
        }
        out
    }
}
