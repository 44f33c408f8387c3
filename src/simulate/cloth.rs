//! Carbon cloth: two layers of plain weave in the upper part of the alloy.

use super::cell::Frame;
use super::placer::Placer;
use crate::phantom::Object;

/// Adds the fibres; `value` is what a fibre adds to the alloy that it displaces.
///
/// Tows run along x and along y; at the crossing (i, j) one of them is on top, the other below, and they change
/// places at the next. A tow is three bundles of fibres side by side, each a long ellipsoid from crossing to crossing.
/// Bundles that would run through a grain are left out.
pub(super) fn weave(frame: &Frame, placer: &Placer, value: f64, objects: &mut Vec<Object>) {
    let unit = frame.unit.max(0.45);
    let (pitch, thickness, amplitude) = (15.0 * unit, 3.0 * unit, 2.6 * unit);
    let n = (frame.reach / pitch).floor() as i32;
    for layer in 0..2 {
        let z = frame.tops[0] + (7.0 + 11.0 * f64::from(layer)) * unit;
        let slip = 0.4 * pitch * f64::from(layer);
        for along_x in [true, false] {
            for tow in -n..=n {
                for crossing in -n..n {
                    for bundle in -1..=1 {
                        let across =
                            f64::from(tow) * pitch + slip + 1.1 * thickness * f64::from(bundle);
                        let end = |crossing: i32| {
                            let along = f64::from(crossing) * pitch + slip;
                            let on_top = ((crossing + tow) % 2 == 0) == along_x;
                            let z = if on_top { z - amplitude } else { z + amplitude };
                            let [x, y] = if along_x {
                                [along, across]
                            } else {
                                [across, along]
                            };
                            [frame.middle[0] + x, frame.middle[1] + y, z]
                        };
                        let (from, to) = (end(crossing), end(crossing + 1));
                        if inside(frame, from)
                            && inside(frame, to)
                            && clear(placer, from, to, thickness)
                        {
                            objects.push(Object::fibre(from, to, thickness, value));
                        }
                    }
                }
            }
        }
    }
}

fn inside(frame: &Frame, [x, y, _]: [f64; 3]) -> bool {
    (x - frame.middle[0]).hypot(y - frame.middle[1]) < 0.97 * frame.radius.min(1.1 * frame.reach)
}

fn clear(placer: &Placer, from: [f64; 3], to: [f64; 3], thickness: f64) -> bool {
    (0..=4).all(|k| {
        let s = f64::from(k) / 4.0;
        let point = [0, 1, 2].map(|axis| from[axis] + s * (to[axis] - from[axis]));
        // a quarter of the bundle's length lies between two points
        !placer.hits(point, 0.5 * thickness, thickness, 0.25 * thickness)
    })
}
