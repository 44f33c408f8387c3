//! Every kernel gives what its CPU twin gives.
//!
//! Chain of trust: the twins are checked against sums in f64 (beside them), the kernels against the twins (here), slabs
//! against the twins and an analytic disk (`reconstruct::on_gpu`). What a kernel writes was NaN before; each
//! comparison is also made with the axis half a pixel off and must then fail.

use tomodelta::config::DeviceChoice;
use tomodelta::gpu::{Device, Gpu};
use tomodelta::reconstruct::geometry::Grid;
use tomodelta::reconstruct::self_test::kernels::checks;
use tomodelta::reconstruct::self_test::{Case, check, worst};

/// A GPU, software ones included; without one the test says so, and fails where `TOMODELTA_REQUIRE_GPU` is set.
fn gpu() -> Option<std::sync::Arc<Gpu>> {
    match Device::open(DeviceChoice::Gpu(None)) {
        Ok(Device::Gpu(gpu)) => Some(gpu),
        _ => {
            assert!(
                std::env::var_os("TOMODELTA_REQUIRE_GPU").is_none(),
                "TOMODELTA_REQUIRE_GPU is set, but there is no GPU, not even a software one"
            );
            println!("SKIPPED: no GPU, not even a software one");
            None
        }
    }
}

#[test]
fn the_kernels_agree_with_their_twins_at_odd_prime_and_tiny_sizes() {
    let Some(gpu) = gpu() else { return };
    let cases = [
        Case::new(77, 181, 3),
        Case::new(64, 40, 4),
        Case {
            upsample: 1,
            ..Case::new(101, 300, 5)
        },
        Case {
            upsample: 4,
            ..Case::new(31, 17, 9)
        },
        Case {
            grid: Grid {
                n_x: 1,
                n_y: 67,
                x0: 3.5,
                y0: 33.0,
                step: 1.0,
            },
            ..Case::new(67, 23, 2)
        },
        Case {
            grid: Grid {
                n_x: 45,
                n_y: 1,
                x0: -30.0,
                y0: 2.0,
                step: 1.3,
            },
            mask_radius_px: None,
            ..Case::new(67, 23, 2)
        },
        Case {
            mask_radius_px: None,
            ..Case::new(2, 7, 1)
        },
    ];
    for case in cases {
        for check in check(&gpu, &case).unwrap() {
            assert!(check.passed, "{case:?}: {check:?}");
        }
    }
}

#[test]
fn transforms_longer_than_a_workgroup_agree_too() {
    let Some(gpu) = gpu() else { return };
    // 4, 8 and 16 elements per workgroup: an even and an odd number of radix-2 steps, one to six passes through memory
    for (local, upsample) in [(4, 2), (8, 1), (16, 4), (256, 2)] {
        let case = Case {
            local,
            upsample,
            ..Case::new(113, 11, 4)
        };
        for check in check(&gpu, &case).unwrap() {
            assert!(check.passed, "{case:?}: {check:?}");
        }
    }
    // and the longest that a workgroup holds, and twice that
    for n_cols in [1500, 2500] {
        let case = Case {
            grid: Grid {
                n_x: 40,
                n_y: 3,
                x0: -700.0,
                y0: 20.0,
                step: 36.0,
            },
            ..Case::new(n_cols, 5, 1)
        };
        for check in check(&gpu, &case).unwrap() {
            assert!(check.passed, "{case:?}: {check:?}");
        }
    }
}

#[test]
fn a_detector_of_one_column_gives_finite_slices() {
    let Some(gpu) = gpu() else { return };
    let case = Case {
        mask_radius_px: None,
        ..Case::new(1, 1, 1)
    };
    let (reference, found) = (case.run_cpu().unwrap(), case.run_gpu(&gpu).unwrap());
    let [filtered, volume] = case.tolerances(&reference).unwrap();
    assert!(worst(&found.filtered, &reference.filtered) <= filtered);
    assert!(worst(&found.volume, &reference.volume) <= volume);
}

#[test]
fn two_runs_are_the_same_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    let case = Case::new(53, 61, 7);
    let (first, second) = (case.run_gpu(&gpu).unwrap(), case.run_gpu(&gpu).unwrap());
    assert!(first.volume == second.volume && first.filtered == second.filtered);
    let moved = Case {
        axis_px: case.axis_px + 1e-3,
        ..case
    }
    .run_gpu(&gpu)
    .unwrap();
    assert!(
        moved.volume != first.volume,
        "another axis is another result"
    );
}

#[test]
fn the_kernels_of_the_corrections_and_of_the_fourier_method_pass_what_devices_test_asks() {
    let Some(gpu) = gpu() else { return };
    for check in checks(&gpu).unwrap() {
        assert!(check.passed, "{check:?}");
    }
}
