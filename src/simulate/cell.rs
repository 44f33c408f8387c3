//! A small battery as a phantom: a tube, carbon cloth soaked with a liquid alloy, a ceramic pellet with a rough top,
//! a sodium counter electrode, and sodium grains that come and go.
//!
//! Lengths are shares of the detector, so that the same cell is seen at every size; the grain at each site either
//! is there or leaves a void, stage by stage, so that a change is sodium against nothing.

use super::cloth;
use super::placer::{Placer, Spot};
use crate::phantom::{Object, Phantom, Profile};

/// Sodium at 44.79 keV: 0.319 cm2/g times 0.968 g/cm3 \[1/cm\].
pub const SODIUM: f64 = 0.319 * 0.968;
/// NaK65 at 44.79 keV: 0.714 cm2/g times 0.87 g/cm3 \[1/cm\].
pub const ALLOY: f64 = 0.714 * 0.87;
/// The ceramic (a NASICON of about 3.2 g/cm3) \[1/cm\].
pub const CERAMIC: f64 = 1.30;
/// The tube (PEEK) \[1/cm\].
pub const TUBE: f64 = 0.30;
/// Carbon fibres \[1/cm\].
pub const CARBON: f64 = 0.30;

/// Whether the grain of a site is there, at each of the stages pristine, plated, stripped.
type Stages = [bool; 3];
const STAYS_AWAY_THEN_STAYS: Stages = [false, true, true];
const COMES_AND_GOES: Stages = [false, true, false];
const COMES_LATE: Stages = [false, false, true];
const GOES_LATE: Stages = [true, true, false];
const GOES: Stages = [true, false, false];

/// A place where sodium is, or a void.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Site {
    /// The grain, with the attenuation of sodium \[1/cm\].
    pub grain: Object,
    /// At which stages it is there.
    pub present: Stages,
}

/// The cell, unmoved. Attenuations in 1/cm, z = 0 at the middle row.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// What is there at every stage, voids of the sites included.
    pub fixed: Phantom,
    /// The places of the grains; no two touch.
    pub sites: Vec<Site>,
    /// Radius of the electrode \[px\].
    pub electrode_radius_px: f64,
    /// Height of the interface between alloy and ceramic \[px\].
    pub interface_z: f64,
}

/// Heights of the layers \[px\] and what limits them sideways.
pub(super) struct Frame {
    /// Middle of the cell, a little off the rotation axis.
    pub(super) middle: [f64; 2],
    /// Top of the alloy, of the ceramic, of the counter electrode, of the plug.
    pub(super) tops: [f64; 4],
    /// Radius of the alloy.
    pub(super) radius: f64,
    /// Radius within which things are placed: inside the field of view also when the cell is not.
    pub(super) reach: f64,
    /// Size of the inclusions: 1 at 256 columns and 160 rows.
    pub(super) unit: f64,
}

impl Cell {
    /// The cell for a detector of `[n_rows, n_cols]`; `truncated` makes it wider than the field of view.
    #[must_use]
    pub fn new([n_rows, n_cols]: [usize; 2], seed: u64, truncated: bool) -> Self {
        let (height, width) = (n_rows as f64, n_cols as f64);
        let wide = width * if truncated { 1.35 } else { 1.0 };
        let frame = Frame {
            middle: [0.010 * width, -0.006 * width],
            tops: [0.06, 0.38, 0.80, 0.92].map(|share| (share - 0.5) * height),
            radius: 0.355 * wide,
            reach: (0.335 * wide).min(0.41 * width),
            unit: (width / 256.0).min(height / 160.0),
        };
        let mut placer = Placer::new(seed, frame.middle);
        let mut fixed = layers(&frame, wide, height);
        let mut sites = Vec::new();
        place_sites(&frame, &mut placer, &mut fixed, &mut sites);
        place_texture(&frame, &mut placer, &mut fixed);
        cloth::weave(&frame, &placer, CARBON - ALLOY, &mut fixed);
        Cell {
            fixed: Phantom::new(fixed),
            sites,
            electrode_radius_px: frame.radius,
            interface_z: frame.tops[1],
        }
    }

    /// The whole cell at a stage (0 pristine, 1 plated, 2 stripped).
    #[must_use]
    pub fn at(&self, stage: usize) -> Phantom {
        let mut objects = self.fixed.objects.clone();
        objects.extend(
            self.sites
                .iter()
                .filter(|site| site.present[stage])
                .map(|site| site.grain),
        );
        Phantom::new(objects)
    }

    /// The grains that `to` has and `from` has not, and the other way round, each with the attenuation of sodium.
    #[must_use]
    pub fn change(&self, from: usize, to: usize) -> (Vec<Object>, Vec<Object>) {
        let pick = |has: usize, has_not: usize| {
            self.sites
                .iter()
                .filter(|s| s.present[has] && !s.present[has_not])
                .map(|s| s.grain)
                .collect()
        };
        (pick(to, from), pick(from, to))
    }
}

/// Tube, alloy, ceramic, counter electrode and plug.
fn layers(frame: &Frame, wide: f64, height: f64) -> Vec<Object> {
    let [x, y] = frame.middle;
    let [alloy, ceramic, counter, plug] = frame.tops;
    // faces that a real cell has are never sharper than this
    let edge = 1.5;
    let layer = |top: f64, bottom: f64, radius: f64, value: f64| {
        let half = 0.5 * (bottom - top);
        Object::cylinder(
            [x, y, 0.5 * (top + bottom)],
            radius,
            [half, half],
            edge,
            value,
        )
    };
    let mut tube = Phantom::default();
    // ends far outside the detector: the tube is endless for the scan
    tube.push_tube(
        [x, y, 0.0],
        [0.375 * wide, 0.43 * wide],
        [4.0 * height, 4.0 * height],
        0.0,
        TUBE,
    );
    let mut objects = tube.objects;
    objects.extend([
        layer(alloy, ceramic, frame.radius, ALLOY),
        layer(ceramic, counter, 0.365 * wide, CERAMIC),
        layer(counter, plug, frame.radius, SODIUM),
        layer(plug, 4.0 * height, 0.36 * wide, TUBE),
    ]);
    objects
}

/// Where the grains are: many flat ones at the interface, round ones in the alloy, some in the counter electrode and
/// in cracks of the ceramic.
fn place_sites(frame: &Frame, placer: &mut Placer, fixed: &mut Vec<Object>, sites: &mut Vec<Site>) {
    let [alloy, ceramic, counter, plug] = frame.tops;
    let unit = frame.unit;
    let gap = 3.0;
    let mut add = |base: f64, stages: Stages, spot: Option<Spot>| {
        if let Some(spot) = spot {
            fixed.push(spot.ellipsoid(-base));
            sites.push(Site {
                grain: spot.ellipsoid(SODIUM),
                present: stages,
            });
        }
    };
    let at_interface = [
        STAYS_AWAY_THEN_STAYS,
        GOES_LATE,
        STAYS_AWAY_THEN_STAYS,
        COMES_AND_GOES,
        COMES_LATE,
        STAYS_AWAY_THEN_STAYS,
        GOES,
        STAYS_AWAY_THEN_STAYS,
        GOES_LATE,
        COMES_AND_GOES,
    ];
    for index in 0..34 {
        let a = placer.random.log_uniform(7.0, 14.0) * unit.max(0.5);
        let c = (placer.random.uniform(2.8, 3.8) * unit).max(2.0);
        let semi = [a, a * placer.random.uniform(0.55, 1.0), c];
        // just above the rough top of the ceramic
        let heights = [ceramic - 5.0 * unit.max(0.5) - c, ceramic - 1.5 - c];
        let spot = placer.place(semi, frame.reach, heights, gap);
        add(ALLOY, at_interface[index % at_interface.len()], spot);
    }
    let in_alloy = [
        GOES,
        STAYS_AWAY_THEN_STAYS,
        GOES_LATE,
        STAYS_AWAY_THEN_STAYS,
        COMES_LATE,
        GOES,
        STAYS_AWAY_THEN_STAYS,
        COMES_AND_GOES,
        GOES_LATE,
        STAYS_AWAY_THEN_STAYS,
    ];
    for index in 0..44 {
        let a = (placer.random.log_uniform(4.5, 8.5) * unit).max(2.6);
        let semi = [
            a,
            a * placer.random.uniform(0.7, 1.0),
            a * placer.random.uniform(0.7, 1.0),
        ];
        let heights = [
            alloy + 3.0 + semi[2],
            ceramic - 9.0 * unit.max(0.5) - semi[2],
        ];
        let spot = placer.place(semi, frame.reach, heights, gap);
        add(ALLOY, in_alloy[index % in_alloy.len()], spot);
    }
    for index in 0..10 {
        let a = (placer.random.log_uniform(4.5, 6.5) * unit).max(2.6);
        let semi = [a, 0.85 * a, (0.7 * a).max(2.0)];
        let spot = placer.place(
            semi,
            frame.reach,
            [counter + 3.0 + semi[2], plug - 2.0 - semi[2]],
            gap,
        );
        add(SODIUM, if index % 3 == 0 { GOES } else { GOES_LATE }, spot);
    }
    for index in 0..10 {
        let semi = [5.5, 4.2, 7.5]
            .map(|semi: f64| (semi * unit * placer.random.uniform(0.8, 1.2)).max(2.2));
        let top = ceramic + 6.0 * unit.max(0.5) + semi[2];
        let spot = placer.place(semi, frame.reach, [top, top + 12.0 * unit], gap);
        add(
            CERAMIC,
            if index % 3 == 2 {
                COMES_LATE
            } else {
                STAYS_AWAY_THEN_STAYS
            },
            spot,
        );
    }
}

/// The rough top of the ceramic, its grains and pores: what an alignment can hold on to, also for a turn.
fn place_texture(frame: &Frame, placer: &mut Placer, fixed: &mut Vec<Object>) {
    let [_, ceramic, counter, _] = frame.tops;
    let unit = frame.unit;
    for index in 0..70 {
        let a = placer.random.log_uniform(4.0, 11.0) * unit.max(0.4);
        let c = placer.random.uniform(1.5, 4.5) * unit.max(0.4);
        let semi = [a, a * placer.random.uniform(0.5, 1.0), c];
        // bumps stand in the alloy above the top, pits are filled with alloy below it
        let bump = index % 2 == 0;
        let middle = if bump {
            ceramic - 0.5 * c
        } else {
            ceramic + 0.5 * c
        };
        let flat = [semi[0], semi[1], 0.5 * c];
        if let Some(spot) = placer.place(flat, frame.reach, [middle, middle], 0.5) {
            let mut object = spot.ellipsoid(if bump {
                CERAMIC - ALLOY
            } else {
                ALLOY - CERAMIC
            });
            object.centre[2] = ceramic;
            object.profile = if bump {
                Profile::Ellipsoid { up: c, down: 0.0 }
            } else {
                Profile::Ellipsoid { up: 0.0, down: c }
            };
            fixed.push(object);
        }
    }
    for index in 0..380 {
        let pore = index % 5 >= 3;
        let a = if pore {
            placer.random.log_uniform(1.3, 3.5) * unit
        } else {
            placer.random.log_uniform(3.0, 9.0) * unit
        };
        let a = a.max(0.9);
        let semi = [
            a,
            a * placer.random.uniform(0.5, 1.0),
            a * placer.random.uniform(0.6, 1.0),
        ];
        let value = if pore {
            -CERAMIC
        } else {
            placer.random.uniform(-0.35, 0.35)
        };
        let heights = [ceramic + 1.5 + semi[2], counter - 1.5 - semi[2]];
        if let Some(spot) = placer.place(semi, frame.reach, heights, 0.5) {
            fixed.push(spot.ellipsoid(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phantom::SplitMix64;

    #[test]
    fn nothing_in_the_cell_is_below_zero_or_denser_than_the_ceramic_grains() {
        for (shape, truncated) in [([64, 144], false), ([160, 256], false), ([96, 192], true)] {
            let cell = Cell::new(shape, 7, truncated);
            let mut g = SplitMix64::new(3);
            for stage in 0..3 {
                let phantom = cell.at(stage);
                for _ in 0..3000 {
                    let half = [
                        0.45 * shape[1] as f64,
                        0.45 * shape[1] as f64,
                        0.5 * shape[0] as f64,
                    ];
                    let value = phantom.value_at(half.map(|h| g.uniform(-h, h)));
                    assert!(
                        (-1e-9..1.66).contains(&value),
                        "{value} at stage {stage} of {shape:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn grains_come_and_go_and_stay_apart() {
        for shape in [[64, 144], [160, 256]] {
            let cell = Cell::new(shape, 7, false);
            for to in 1..3 {
                let (plus, minus) = cell.change(0, to);
                assert!(
                    plus.len() >= 10 && minus.len() >= 5,
                    "{shape:?} {to}: {} {}",
                    plus.len(),
                    minus.len()
                );
                let (back_plus, back_minus) = cell.change(to, 0);
                assert_eq!((back_plus, back_minus), (minus, plus));
            }
            for (index, a) in cell.sites.iter().enumerate() {
                let [top, bottom] = a.grain.z_range();
                let half = shape[0] as f64 / 2.0;
                assert!(
                    top > -half + 2.0 && bottom < half - 2.0,
                    "inside the field of view"
                );
                for b in &cell.sites[..index] {
                    let [dx, dy, dz] = [0, 1, 2].map(|k| a.grain.centre[k] - b.grain.centre[k]);
                    let reach = a.grain.semi[0] + b.grain.semi[0];
                    let [top_b, bottom_b] = b.grain.z_range();
                    let heights = 0.5 * (bottom - top + bottom_b - top_b);
                    assert!(
                        dx.hypot(dy) > reach + 2.9 || dz.abs() > heights + 2.9,
                        "two grains touch"
                    );
                }
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_cell() {
        assert_eq!(
            Cell::new([64, 144], 1, false),
            Cell::new([64, 144], 1, false)
        );
        assert_ne!(
            Cell::new([64, 144], 1, false).sites,
            Cell::new([64, 144], 2, false).sites
        );
    }

    #[test]
    fn change_is_concentrated_at_the_interface() {
        let cell = Cell::new([160, 256], 7, false);
        let (_, minus) = cell.change(0, 2);
        let (plus, _) = cell.change(0, 2);
        for grains in [plus, minus] {
            let at = |z: f64| -> f64 {
                grains
                    .iter()
                    .map(|g| g.volume_between(z - 0.5, z + 0.5))
                    .sum()
            };
            let near = (-8..0)
                .map(|d| at(cell.interface_z + f64::from(d)))
                .fold(0.0, f64::max);
            let far = (-35..-12)
                .map(|d| at(cell.interface_z + f64::from(d)))
                .fold(0.0, f64::max);
            assert!(
                near > 1.5 * far,
                "a spike at the interface: {near} against {far}"
            );
        }
    }
}
