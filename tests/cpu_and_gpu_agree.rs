//! A slab reconstructed on the GPU is the one that the CPU gives.
//!
//! The two share the plan of the filter and nothing else: other transforms, other order of sums. Both place a voxel to 1e-5
//! sample or better, so what is left is rounding in f32.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array3, s};
use tomodelta::center::AxisFit;
use tomodelta::config::{Config, DeviceChoice, ReconstructMethod, StripeMethod};
use tomodelta::correct::line_integrals::locked_tolerance;
use tomodelta::correct::lock::PixelMap;
use tomodelta::correct::{CorrectedScan, CorrectionCounts};
use tomodelta::gpu::Device;
use tomodelta::pipeline::geometry::ScanGeometry;
use tomodelta::pipeline::reconstruct_scan::{Motion, ScanJob};
use tomodelta::pipeline::rows::{CountedScan, RowSource};
use tomodelta::progress::Progress;
use tomodelta::reconstruct::Reconstructor;
use tomodelta::reconstruct::geometry::Grid;
use tomodelta::reconstruct::self_test::{Case, worst};
use tomodelta::scan::{FrameGroup, FrameStack, PixelType, ReadClock, Scan};

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

/// A GPU, software ones included; without one the test says so, and fails where `TOMODELTA_REQUIRE_GPU` is set.
fn gpu() -> Option<Device> {
    let gpu = Device::open(DeviceChoice::Gpu(None)).ok();
    if gpu.is_none() {
        assert!(
            std::env::var_os("TOMODELTA_REQUIRE_GPU").is_none(),
            "TOMODELTA_REQUIRE_GPU is set, but there is no GPU"
        );
        println!("SKIPPED: no GPU, not even a software one");
    }
    gpu
}

#[test]
fn noise_is_reconstructed_alike_on_cpu_and_gpu() {
    let Some(gpu) = gpu() else { return };
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

/// Whole counts in memory.
struct Frames(Array3<f32>);

impl FrameStack for Frames {
    fn shape(&self) -> [usize; 3] {
        self.0.dim().into()
    }
    fn pixel_type(&self) -> PixelType {
        PixelType::U16
    }
    fn read(
        &self,
        frames: &[usize],
        rows: Range<usize>,
        out: &mut [f32],
    ) -> tomodelta::error::Result<()> {
        let len = (rows.len() * self.0.dim().2).max(1);
        for (out, &frame) in out.chunks_exact_mut(len).zip(frames) {
            let part = self.0.slice(s![frame, rows.clone(), ..]);
            out.iter_mut().zip(part).for_each(|(to, &from)| *to = from);
        }
        Ok(())
    }
    fn decoded_bytes(&self, rows: Range<usize>) -> u64 {
        (rows.len() * self.0.dim().2 * 2) as u64
    }
    fn describe(&self) -> String {
        "frames in memory".into()
    }
}

/// What the series lock says of these pixels.
fn wrong_pixels() -> PixelMap {
    let mut planes = Array3::<f32>::zeros((2, 11, 96));
    for (row, col) in [(1, 60), (5, 30), (5, 31)] {
        planes[[0, row, col]] = 1.0;
    }
    planes[[0, 6, 70]] = 2.0;
    PixelMap::from_planes(&planes).unwrap()
}

/// A cone off the axis, 61 angles of 11 rows x 96 columns, with a bad pixel, a dead row and zingers.
fn scan() -> Scan {
    let (n_angles, n_rows, n_cols) = (61, 11, 96);
    let angles: Vec<f64> = (0..n_angles)
        .map(|k| k as f64 * std::f64::consts::PI / n_angles as f64)
        .collect();
    let mut flats = Array3::from_elem((2, n_rows, n_cols), 20_000.0);
    flats.slice_mut(s![.., 2, 40..42]).fill(100.0);
    flats.slice_mut(s![.., 7, ..]).fill(100.0);
    let mut projections = Array3::from_shape_fn((n_angles, n_rows, n_cols), |(a, row, col)| {
        let t = col as f64 - 47.0 - 12.0 * angles[a].cos();
        let radius = 18.0 + 0.4 * row as f64;
        let chord = 2.0 * (radius * radius - t * t).max(0.0).sqrt();
        let noise = ((a * 31 + row * 17 + col * 7) % 41) as f64;
        (100.0 + 19_900.0 * (-0.03 * chord).exp() + noise).round() as f32
    });
    for (angle, row, col) in [(3, 1, 20), (60, 5, 95), (0, 9, 0)] {
        projections[[angle, row, col]] = 60_000.0;
    }
    // a gain error of 3 % and a pixel that does not respond
    for angle in 0..n_angles {
        for (row, col) in [(1, 60), (5, 30), (5, 31)] {
            let count = &mut projections[[angle, row, col]];
            *count = (*count * 1.03).round();
        }
        projections[[angle, 6, 70]] = 5_000.0;
    }
    let group = |n: usize| {
        vec![FrameGroup {
            frames: (0..n).collect(),
            at_projection: 0.0,
        }]
    };
    Scan {
        path: "memory".into(),
        layout: "memory".into(),
        projections: Box::new(Frames(projections)),
        projection_frames: (0..n_angles).collect(),
        projection_numbers: (0..n_angles).collect(),
        left_out: Vec::new(),
        shifts: None,
        flats: Some(Box::new(Frames(flats))),
        flat_groups: group(2),
        darks: Some(Box::new(Frames(Array3::from_elem(
            (1, n_rows, n_cols),
            100.0,
        )))),
        dark_groups: group(1),
        angles_rad: angles,
        angle_source: String::new(),
        pixel_size_um: None,
        start_time: None,
        monitor: None,
        warnings: Vec::new(),
        files: Vec::new(),
        clock: ReadClock::default(),
    }
}

/// Slices 1..11 as `motion` places them, in slabs of 4, and what was counted.
fn slices(device: &Device, motion: Motion, axis: f64) -> (Array3<f32>, CorrectionCounts, bool) {
    slices_without(StripeMethod::None, &wrong_pixels(), device, motion, axis)
}

/// The same with a method of stripe removal.
fn slices_without(
    stripes: StripeMethod,
    locked: &PixelMap,
    device: &Device,
    motion: Motion,
    axis: f64,
) -> (Array3<f32>, CorrectionCounts, bool) {
    let mut config = Config::default();
    config.reconstruct.method = ReconstructMethod::Fbp;
    config.correct.stripe.method = stripes;
    config.correct.stripe.large_size = 21;
    config.correct.stripe.small_size = 5;
    let corrected = CorrectedScan::new(scan(), &config.correct).unwrap();
    let corrected = corrected.with_lock(Arc::new(locked.clone())).unwrap();
    let axis = AxisFit {
        axis_px: axis,
        middle_row: 5.0,
        ..AxisFit::default()
    };
    let geometry = ScanGeometry::new(&corrected, &axis, &(1..11), &config.reconstruct).unwrap();
    let job = ScanJob {
        geometry: &geometry,
        slices: 1..11,
        middle_slice: 0.0,
        slab: 4,
        grid: Grid::square(96),
        motion,
        config: &config.reconstruct,
        scale: 1.0,
        meter: None,
        beyond: None,
    };
    let mut source = CountedScan::new(&corrected);
    let on_device = source.off_device().is_none();
    let mut volume = Array3::from_elem((10, 96, 96), f32::NAN);
    let stage = Progress::new(true).stage("test", 10, "slices");
    job.run(&mut source, device, &stage, None, |z, slab, _| {
        let n = slab.len_of(ndarray::Axis(0));
        volume.slice_mut(s![z..z + n, .., ..]).assign(&slab);
        Ok(())
    })
    .unwrap();
    (volume, source.corrections().clone(), on_device)
}

#[test]
fn counts_corrected_on_the_gpu_give_the_slices_and_the_counters_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let moved = |shift_z_px: f64, magnification: f64| Motion {
        shift_z_px,
        magnification,
        ..Motion::default()
    };
    for motion in [
        moved(0.0, 1.0),
        moved(3.0, 1.0),
        moved(-2.0, 1.0),
        moved(0.37, 1.0),
        moved(-1.6, 1.0),
        // the mask then ends beyond the detector
        moved(0.2, 1.04),
        moved(0.2, 0.97),
    ] {
        let (on_cpu, counts, _) = slices(&Device::Cpu, motion, 47.4);
        let (on_gpu, counts_gpu, on_device) = slices(&gpu, motion, 47.4);
        assert!(
            on_device && counts_gpu == counts,
            "{counts_gpu:?} against {counts:?}"
        );
        assert!(
            counts.zingers >= 2 && counts.bad_pixels > 0 && counts.lock_corrected > 0,
            "{counts:?}"
        );
        // NaN stands where the scan has no rows
        let empty = |volume: &Array3<f32>| volume.iter().filter(|v| v.is_nan()).count();
        assert_eq!(empty(&on_cpu), empty(&on_gpu));
        let zeroed = |volume: &Array3<f32>| -> Vec<f32> {
            volume
                .iter()
                .map(|v| if v.is_nan() { 0.0 } else { *v })
                .collect()
        };
        // the filter's kernel sums to 1/2 and the arcs to pi, interpolation adds at most half: an error of every line
        // integral comes out 2.4 times as large; the rest is what the FBP of such rows may differ by
        // (neighbours of a locked pair have weights of at most these)
        let per_line = locked_tolerance(1e-4, &[-0.5, 1.0, 0.75, -0.25]);
        // and the weights of six rows are 1.5 in all at most
        let tolerance = 2.4 * 1.5 * per_line + 1e-5;
        let off = worst(&zeroed(&on_gpu), &zeroed(&on_cpu));
        assert!(off <= tolerance, "{motion:?}: {off} > {tolerance}");
        let moved = slices(&Device::Cpu, motion, 47.6).0;
        let seen = worst(&zeroed(&moved), &zeroed(&on_cpu));
        assert!(
            seen > 10.0 * tolerance,
            "0.2 px must be seen: {seen} against {tolerance}"
        );
        let higher = Motion {
            shift_z_px: motion.shift_z_px - 0.3,
            ..motion
        };
        let higher = slices(&gpu, higher, 47.4).0;
        let both = |(a, b): (&f32, &f32)| {
            if a.is_nan() || b.is_nan() {
                0.0
            } else {
                (a - b).abs()
            }
        };
        let seen = higher.iter().zip(&on_gpu).map(both).fold(0.0, f32::max);
        assert!(seen > 10.0 * tolerance, "0.3 rows must be seen: {seen}");
    }
}

#[test]
fn broad_stripes_and_stripe_removal_on_the_gpu_give_the_slices_and_the_counters_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let mut planes = wrong_pixels().to_planes();
    for col in 50..57 {
        planes[[0, 3, col]] = 4.0;
    }
    let broad = PixelMap::from_planes(&planes).unwrap();
    let moved = |shift_z_px: f64| Motion {
        shift_z_px,
        ..Motion::default()
    };
    for (stripes, shift_z_px) in [
        (StripeMethod::None, 0.0),
        (StripeMethod::Sorting, 0.37),
        (StripeMethod::Large, 0.0),
        (StripeMethod::All, -1.6),
        (StripeMethod::Normalization, 0.0),
        (StripeMethod::Regularization, 0.37),
        (StripeMethod::Fitting, 0.0),
        (StripeMethod::WaveletFft, -1.6),
    ] {
        let run = |device: &Device, stripes: StripeMethod| {
            slices_without(stripes, &broad, device, moved(shift_z_px), 47.4)
        };
        let (on_cpu, counts, _) = run(&Device::Cpu, stripes);
        let (on_gpu, counts_gpu, on_device) = run(&gpu, stripes);
        assert!(
            on_device && counts_gpu == counts,
            "{stripes:?}: {counts_gpu:?} against {counts:?}"
        );
        assert_eq!(counts.lock_levelled, 7);
        let zeroed = |volume: &Array3<f32>| -> Vec<f32> {
            let value = |v: &f32| if v.is_nan() { 0.0 } else { *v };
            volume.iter().map(value).collect()
        };
        // as above; a levelled column takes one more step of the lock, a stripe two quotients
        let per_line = 2.0 * locked_tolerance(1e-4, &[-1.5, 0.5, 1.5, -0.5]) + 16.0 * f32::EPSILON;
        // samples of a locked or interpolated pixel that differ by rounding only may take each other's place in a sort, and with
        // it the value of the next rank: less than four counts of at least 3400 here. A sample is seen with a quarter of its arc.
        let swapped = match stripes {
            StripeMethod::None => 0.0,
            _ => 4.0 / 3400.0 * 0.25 * std::f32::consts::PI / 61.0,
        };
        let tolerance = 2.4 * 1.5 * per_line + 1.5 * swapped + 1e-5;
        let off = worst(&zeroed(&on_gpu), &zeroed(&on_cpu));
        assert!(off <= tolerance, "{stripes:?}: {off} > {tolerance}");
        let other = match stripes {
            StripeMethod::None => StripeMethod::Sorting,
            _ => StripeMethod::None,
        };
        let seen = worst(&zeroed(&run(&Device::Cpu, other).0), &zeroed(&on_cpu));
        assert!(
            seen > 4.0 * tolerance,
            "{stripes:?}: another method must be seen: {seen} against {tolerance}"
        );
    }
}
