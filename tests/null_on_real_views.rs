//! Promise: two halves of one real scan differ by their noise alone, and the numbers say so.
//!
//! The views of a neutron scan over a full turn are dealt out by turns: same sample, independent noise. The count of
//! voxels beyond 5 sigma may reach ten times what a normal distribution has (heavier tails, gamma spots), and what a
//! gamma spot leaves in one half may pass as a grain, at most two. Both halves are smoothed alike, since the rods stand out of the noise of a voxel only weakly. Negative control: one half put 3 voxels beside the other.

mod common;

use common::{real_data, succeeds, text};

#[test]
fn even_and_odd_views_show_no_change() {
    let Some(folder) = real_data("neutron_rods_tiff") else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let run = |name: &str, shift: f64| -> serde_json::Value {
        let half = |parity: usize| {
            (0..376)
                .filter(|view| view % 2 == parity)
                .collect::<Vec<_>>()
        };
        let path = text(&folder);
        let series = format!(
            "[series]\noutput = {name:?}\n[align]\nshift = [{shift:?}, 0.0, 0.0]\n\
             [[scan]]\nname = \"even\"\npath = {path:?}\naxis = 399.13\ninput = {{ exclude = {:?} }}\n\
             [[scan]]\nname = \"odd\"\npath = {path:?}\naxis = 399.13\ninput = {{ exclude = {:?} }}\n",
            half(1),
            half(0)
        );
        let file = scratch.path().join(format!("{name}.toml"));
        std::fs::write(&file, series).unwrap();
        succeeds([
            "run",
            text(&file),
            "--device",
            "cpu",
            "--set",
            "reconstruct.rows=4..20",
            "--set",
            "difference.smooth_sigma=1.5",
            "-q",
        ]);
        let record = scratch
            .path()
            .join(name)
            .join("differences/odd/difference.json");
        serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap()
    };
    let count = |record: &serde_json::Value, key: &str| record[key].as_f64().unwrap();
    let null = run("null", 0.0);
    let beyond = count(&null, "increase_voxels") + count(&null, "decrease_voxels");
    assert!(
        beyond <= 20.0 * count(&null, "expected_by_noise").max(1.0),
        "{null}"
    );
    assert!(
        count(&null, "increase_grains") + count(&null, "decrease_grains") <= 2.0,
        "{null}"
    );

    let wrong = run("wrong", 3.0);
    let seen = count(&wrong, "increase_voxels") + count(&wrong, "decrease_voxels");
    assert!(seen > 20.0 * beyond.max(1.0), "the check is blind: {wrong}");
}
