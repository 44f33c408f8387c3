//! A slab reconstructed on the GPU is the one that the CPU gives.
//!
//! The two share the plan of the filter and nothing else: other transforms, other order of sums. Both place a voxel to 1e-5
//! sample or better, so what is left is rounding in f32.

use ndarray::Array3;
use tomodelta::config::DeviceChoice;
use tomodelta::gpu::Device;
use tomodelta::reconstruct::Reconstructor;
use tomodelta::reconstruct::self_test::{Case, worst};

fn slab(case: &Case, device: &Device, axis_off_px: f64) -> Vec<f32> {
    let wanted = case.n_rows * case.n_angles * case.n_cols;
    let values = case.line_integrals()[..wanted].to_vec();
    let sinograms =
        Array3::from_shape_vec((case.n_rows, case.n_angles, case.n_cols), values).unwrap();
    let mut out = Array3::from_elem((case.n_rows, case.grid.n_y, case.grid.n_x), f32::NAN);
    let axes: Vec<f64> = case.axes().iter().map(|axis| axis + axis_off_px).collect();
    Reconstructor::new(case.job(), device)
        .unwrap()
        .slab(sinograms.view(), &axes, out.view_mut())
        .unwrap();
    out.into_raw_vec_and_offset().0
}

#[test]
fn noise_is_reconstructed_alike_on_cpu_and_gpu() {
    let Ok(gpu) = Device::open(DeviceChoice::Gpu(None)) else {
        assert!(
            std::env::var_os("TOMODELTA_REQUIRE_GPU").is_none(),
            "TOMODELTA_REQUIRE_GPU is set, but there is no GPU"
        );
        println!("SKIPPED: no GPU, not even a software one");
        return;
    };
    for case in [
        Case::new(200, 151, 5),
        Case {
            upsample: 1,
            ..Case::new(301, 100, 4)
        },
        Case {
            upsample: 4,
            mask_radius_px: None,
            ..Case::new(128, 300, 9)
        },
    ] {
        let (on_cpu, on_gpu) = (slab(&case, &Device::Cpu, 0.0), slab(&case, &gpu, 0.0));
        let reference = case.run_cpu().unwrap();
        let [_, tolerance] = case.tolerances(&reference).unwrap();
        let off = worst(&on_gpu, &on_cpu);
        assert!(off <= tolerance, "{case:?}: {off} > {tolerance}");
        let blind = worst(&slab(&case, &Device::Cpu, 0.05), &on_cpu);
        assert!(
            blind > 10.0 * tolerance,
            "an axis wrong by 0.05 px must be seen: {blind} against {tolerance}"
        );
    }
}
