//! Coarse search over all shifts, and over angles where a turn is looked for.

use super::correlation::{Correlator, Texture};
use super::gauss_newton::{Free, refine};
use super::motion::{RigidMotion, turned};
use super::pyramid::{Frame, Level};

/// Candidates that are refined before the best is chosen: repeating structure has several peaks.
const CANDIDATES: usize = 4;
/// Movement of the rim between two angles of the search \[level voxel\].
const RIM_STEP: f64 = 1.0;
/// Wrong turn that must lower the correlation, as a movement of the rim \[level voxel\].
const RIM_TEST: f64 = 4.0;
/// Correlation that what is left without layers must reach for its word to count.
const LEAST_COMMON: f64 = 0.3;
/// Steps of refinement given to each candidate.
const STEPS: usize = 12;

/// Largest shift searched on a level, `[x, y, z]` \[level voxel\].
pub(crate) fn search_range(frame: &Frame, share: f64) -> [i32; 3] {
    [2, 1, 0].map(|a| ((share * frame.shape[a] as f64).ceil() as i32).max(1))
}

/// The best motion on `level`: peaks of the correlation (found on `angular` for a list of turns if there is one),
/// each refined, the one with the highest correlation of `texture` taken.
pub(crate) fn coarse(
    level: &Level,
    texture: &Texture,
    angular: Option<(&Texture, f64)>,
    share: f64,
    free: Free,
) -> RigidMotion {
    let range = search_range(&level.frame, share);
    let candidates = match angular {
        None => candidates(texture, &[0.0], range, CANDIDATES),
        Some((small, largest_turn)) => {
            let rim = small.frame.reach() / small.frame.factor[0].max(small.frame.factor[1]);
            let step = RIM_STEP / rim;
            let most = (largest_turn / step).ceil() as i32;
            let turns: Vec<f64> = (-most..=most).map(|k| f64::from(k) * step).collect();
            candidates(
                small,
                &turns,
                search_range(&small.frame, share),
                2 * CANDIDATES,
            )
        }
    };
    let mut best = (f64::NEG_INFINITY, RigidMotion::default());
    for start in candidates {
        let motion = refine(level, &start, free, STEPS).map_or(start, |refined| refined.motion);
        // a refinement that ran away is worth less than its start
        for motion in [motion, start] {
            let allowed = (0..3).all(|a| {
                motion.shift[a].abs() / level.frame.factor[a] <= f64::from(range[a]) + 1.0
            });
            let value = texture.coefficient(&motion);
            if allowed && value > best.0 {
                best = (value, motion);
            }
        }
    }
    best.1
}

/// The best peaks over all turns, best first.
fn candidates(texture: &Texture, turns: &[f64], range: [i32; 3], most: usize) -> Vec<RigidMotion> {
    let engine = Correlator::new(texture.frame.shape, range.map(|s| s as usize));
    let reference = texture.transform_reference(&engine);
    let mut all: Vec<(f32, RigidMotion)> = Vec::new();
    for &turn in turns {
        let map = texture.correlate(&RigidMotion::upright([0.0; 3], turn), &engine, &reference);
        for (shift, value) in map.peaks(range, CANDIDATES) {
            // the map was made in the turned frame: T(R(p + s)) = T(R p + R s)
            let along = [0, 1, 2].map(|a| f64::from(shift[a]) * texture.frame.factor[a]);
            let [x, y] = turned([along[0], along[1]], turn);
            all.push((value, RigidMotion::upright([x, y, along[2]], turn)));
        }
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    all.truncate(most);
    all.into_iter().map(|(_, motion)| motion).collect()
}

/// By how much the correlation falls when the turn is wrong by `RIM_TEST` voxels at the rim and the shift is allowed
/// to make up for it: near 0 for a rotationally symmetric sample, wherever its axis stands.
///
/// A wall or a layer that is symmetric may rule the correlation and hide the texture inside it. So the same is asked without what goes through all heights or
/// fills slices, where enough of the rest is common to both volumes, and the larger fall counts.
pub(crate) fn drop_without_turn(
    level: &Level,
    texture: &Texture,
    motion: &RigidMotion,
    free: Free,
) -> f64 {
    let rim = level.frame.reach() / level.frame.factor[0].max(level.frame.factor[1]);
    let wrong = [-1.0, 1.0].map(|side| {
        let start = RigidMotion {
            turn: motion.turn + side * RIM_TEST / rim,
            ..*motion
        };
        let fixed = Free {
            turn: false,
            ..free
        };
        refine(level, &start, fixed, STEPS).map_or(start, |refined| refined.motion)
    });
    let fall = |texture: &Texture| {
        let own = texture.coefficient(motion);
        let rivals = wrong.iter().map(|wrong| texture.coefficient(wrong));
        (own, own - rivals.fold(f64::NEG_INFINITY, f64::max))
    };
    let (_, of_all) = fall(texture);
    let (common, of_rest) = fall(&texture.without_layers());
    if common > LEAST_COMMON {
        of_all.max(of_rest)
    } else {
        of_all
    }
}
