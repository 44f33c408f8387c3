//! What unchanged edges leave in the difference is no change, and change at edges is.

use super::*;

#[test]
fn residues_of_edges_are_no_change() {
    // the target's material stands 0.3 voxels aside; its edges are blurred as optics does it
    let moved = |by: f64, noise: Array3<f32>, change: &Array3<f32>| {
        memory(Array3::from_shape_fn(noise.dim(), |at| {
            let wave = (0.35 * (at.2 as f64 + by)).sin() + (0.41 * at.1 as f64).sin();
            3.5 * (3.0 * wave).tanh() as f32 + noise[at] + change[at]
        }))
    };
    let change = with_cubes(6.0);
    let reference = moved(0.0, noise(51, SHAPE), &zeros());
    let target = moved(0.3, noise(1052, SHAPE), &change);
    let with = |edge_noise: bool| {
        difference(&reference, &target, |_, config, _| {
            (config.edge_noise, config.match_intensity) = (edge_noise, false);
            config.min_grain_voxels = 4;
        })
        .unwrap()
    };
    let (careful, plain) = (with(true), with(false));
    eprintln!(
        "{} {}",
        careful.record.edge_residue_voxel,
        plain.grains.len()
    );
    // |cos| of the direction of the edge against x, root mean square over the directions: 0.3 / sqrt 2
    assert!((careful.record.edge_residue_voxel - 0.21).abs() < 0.07);
    assert!(
        plain.grains.len() > cubes().len() * 5 / 4,
        "the check is blind"
    );
    let near = careful
        .grains
        .iter()
        .filter(|grain| {
            cubes().iter().any(|[z, y, x]| {
                (grain.z - *z as f64 - 2.0).abs() < 2.0
                    && (grain.y - *y as f64 - 2.0).abs() < 2.0
                    && (grain.x - *x as f64 - 2.0).abs() < 2.0
            })
        })
        .count();
    assert!(
        careful.grains.len() - near <= 2 && near >= cubes().len() * 9 / 10,
        "{near} of {} grains are cubes, of {}",
        careful.grains.len(),
        cubes().len()
    );
}

#[test]
fn the_ripple_of_a_thin_wall_is_no_change_and_a_hole_in_it_is() {
    // a tube wall of 4 voxels and 50 sigma; where it keeps its place between the pixels over many views, on two sides, it ripples by 6.5 sigma of the
    // difference, also in its middle, where the gradient vanishes
    let sigma = SIGMA * std::f32::consts::SQRT_2;
    let middle = (SHAPE[2] as f32 - 1.0) / 2.0;
    let place = |y: usize, x: usize| {
        let (dy, dx) = (y as f32 - middle, x as f32 - middle);
        (dy.hypot(dx) - 30.0, dy / dy.hypot(dx))
    };
    let wall = |y: usize, x: usize| 50.0 * SIGMA * (-(place(y, x).0 / 2.0).powi(4)).exp();
    let ripple = |y: usize, x: usize| {
        let (off, sin) = place(y, x);
        let wave = (std::f32::consts::PI * (off - 0.5)).cos() * (-(off / 4.0).powi(2)).exp();
        6.5 * sigma * wave * (-(sin / 0.2).powi(2)).exp()
    };
    let hole = [18..23, 72..77, 42..47];
    let in_hole = |at: [usize; 3]| (0..3).all(|axis| hole[axis].contains(&at[axis]));
    let scan = |seed: u128, changed: bool| {
        let noise = noise(seed, SHAPE);
        memory(Array3::from_shape_fn(noise.dim(), |(z, y, x)| {
            let own = match changed {
                true if in_hole([z, y, x]) => 0.0,
                true => wall(y, x) + ripple(y, x),
                false => wall(y, x),
            };
            own + noise[(z, y, x)]
        }))
    };
    let (reference, target) = (scan(61, false), scan(1062, true));
    let with = |edge_noise: bool| {
        difference(&reference, &target, |_, config, _| {
            (config.edge_noise, config.match_intensity) = (edge_noise, false);
        })
        .unwrap()
    };
    assert!(with(false).grains.len() > 3, "the check is blind");
    let found = with(true);
    assert_eq!(found.grains.len(), 1, "{:?}", found.record);
    let grain = &found.grains[0];
    let at = [grain.z, grain.y, grain.x].map(|middle| middle.round() as usize);
    assert!(grain.sign < 0 && in_hole(at), "{grain:?}");
    // the wall that the cube of the hole takes away
    let truth: f32 = (hole[1].clone())
        .flat_map(|y| hole[2].clone().map(move |x| wall(y, x)))
        .sum::<f32>()
        * hole[0].len() as f32;
    let (sum, error) = (found.record.decrease_sum, found.record.decrease_sum_err);
    assert!(
        (sum / f64::from(truth) - 1.0).abs() < 0.03,
        "{sum} +- {error}, {truth}"
    );
}
