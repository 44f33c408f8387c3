//! A sample of which the seed decides everything: what is measured on one of them was not made for it.
//!
//! A filled tube, none to two plates with faces across the axis, texture, and grains of any attenuation that come or go. What tilts has no
//! plates, as the faces of a plate would not tilt with it.

use super::cell::{Cell, Site};
use super::placer::Placer;
use crate::phantom::{Motion, Object, Phantom, SplitMix64};

/// Photons, blur and motion of a random pair.
pub(super) struct RandomPair {
    pub(super) photons: f64,
    pub(super) blur_px: f64,
    pub(super) motion: Motion,
}

impl RandomPair {
    /// Shift alone, with a turn, or with a turn and tilts, a third each.
    pub(super) fn new(seed: u64) -> RandomPair {
        let mut random = SplitMix64::keyed(seed, &[0x9A17]);
        let kind = random.uniform(0.0, 3.0) as usize;
        let shift = [3.5, 3.5, 2.5].map(|most| random.uniform(-most, most));
        let [turn, rx, ry] = [0.6, 0.35, 0.35].map(|most: f64| random.uniform(-most, most));
        RandomPair {
            photons: random.log_uniform(4e5, 8e6),
            blur_px: random.uniform(0.5, 1.0),
            motion: Motion {
                shift,
                rotation_rad: if kind > 0 { turn.to_radians() } else { 0.0 },
                tilt_rad: if kind > 1 {
                    [rx, ry].map(f64::to_radians)
                } else {
                    [0.0; 2]
                },
            },
        }
    }
}

/// The sample for a detector of `[n_rows, n_cols]`; `truncated` makes it wider than the field of view, `plates` allows faces across the axis.
pub(super) fn cell([n_rows, n_cols]: [usize; 2], seed: u64, truncated: bool, plates: bool) -> Cell {
    let (height, width) = (n_rows as f64, n_cols as f64);
    let mut random = SplitMix64::keyed(seed, &[0x5A3B]);
    let middle = [0, 1].map(|_| random.uniform(-0.012, 0.012) * width);
    let outer = random.uniform(0.36, 0.43) * width * if truncated { 1.4 } else { 1.0 };
    let bore = outer - random.uniform(0.03, 0.08) * width;
    let reach = (bore - 2.0).min(0.41 * width);
    let endless = [4.0 * height; 2];
    let wall = random.uniform(0.15, 0.6);
    let filling = random.uniform(0.3, 0.8);
    let mut fixed = Phantom::default();
    let at = [middle[0], middle[1], 0.0];
    fixed.push_tube(at, [bore, outer], endless, 0.0, wall);
    fixed
        .objects
        .push(Object::cylinder(at, bore, endless, 0.0, filling));
    let n_plates = if plates {
        random.uniform(0.0, 3.0) as usize
    } else {
        0
    };
    for _ in 0..n_plates {
        let half = random.uniform(0.06, 0.18) * height;
        let z = random.uniform(-0.35, 0.35) * height;
        let edge = random.uniform(1.0, 3.0);
        let value = random.uniform(-0.5 * filling, 0.7);
        let radius = random.uniform(0.85, 1.0) * bore;
        fixed.objects.push(Object::cylinder(
            [at[0], at[1], z],
            radius,
            [half; 2],
            edge,
            value,
        ));
    }
    let mut placer = Placer::new(seed, middle);
    let sites = grains(&mut random, &mut placer, reach, height);
    let n_texture = random.uniform(80.0, 260.0) as usize;
    let least = -0.6 * filling;
    for _ in 0..n_texture {
        let a = random.log_uniform(1.5, 0.05 * width);
        let semi = [
            a,
            a * random.uniform(0.5, 1.0),
            a * random.uniform(0.5, 1.0),
        ];
        let value = random.uniform(least, 0.6);
        if let Some(spot) = placer.place(semi, reach, [-0.5 * height, 0.5 * height], 0.5) {
            fixed.objects.push(spot.ellipsoid(value));
        }
    }
    Cell {
        fixed,
        sites,
        electrode_radius_px: bore,
        interface_z: 0.0,
    }
}

/// Grains that come or go, inside of the heights that a shift leaves in view.
fn grains(random: &mut SplitMix64, placer: &mut Placer, reach: f64, height: f64) -> Vec<Site> {
    let number = random.log_uniform(8.0, 40.0) as usize;
    let come = random.uniform(0.2, 0.8);
    let value = random.uniform(0.2, 0.5);
    let largest = random.uniform(4.0, 8.0);
    let mut sites = Vec::new();
    for _ in 0..number {
        let a = random.log_uniform(2.2, largest);
        let semi = [
            a,
            a * random.uniform(0.6, 1.0),
            a * random.uniform(0.6, 1.0),
        ];
        let ends = 0.5 * height - 5.0 - semi[2];
        let comes = random.uniform(0.0, 1.0) < come;
        let own = value * random.uniform(0.7, 1.3);
        if let Some(spot) = placer.place(semi, reach, [-ends, ends], 3.0) {
            sites.push(Site {
                grain: spot.ellipsoid(own),
                present: if comes {
                    [false, true, true]
                } else {
                    [true, false, false]
                },
            });
        }
    }
    sites
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_another_sample_that_nowhere_holds_less_than_nothing() {
        let mut kinds = [0; 3];
        for seed in 0..40 {
            let cell = cell([48, 160], seed, seed % 3 == 0, true);
            assert!(cell.sites.len() >= 6, "{seed}: {}", cell.sites.len());
            let mut random = SplitMix64::new(seed);
            for stage in [0, 2] {
                let phantom = cell.at(stage);
                for _ in 0..500 {
                    let p = [60.0, 60.0, 24.0].map(|h| random.uniform(-h, h));
                    let value = phantom.value_at(p);
                    assert!((-1e-9..4.0).contains(&value), "{value} in {seed}");
                }
            }
            let motion = RandomPair::new(seed).motion;
            let kind =
                usize::from(motion.rotation_rad != 0.0) + usize::from(motion.tilt_rad != [0.0; 2]);
            kinds[kind] += 1;
        }
        assert!(kinds.iter().all(|&n| n > 5), "{kinds:?}");
    }
}
