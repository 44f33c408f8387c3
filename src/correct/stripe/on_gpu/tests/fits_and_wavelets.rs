use super::*;
use crate::correct::stripe::on_gpu::fits::FitKernels;
use crate::correct::stripe::on_gpu::wavelets::{WaveletKernels, tolerance};

#[test]
fn fits_of_any_length_order_and_width_are_those_of_the_cpu_and_few_angles_are_left() {
    let Some(gpu) = gpu() else { return };
    for (n_angles, n_cols, order, sigma) in [
        (1, 9, 2, 10.0),
        (2, 9, 2, 10.0),
        (3, 9, 2, 10.0),
        (4, 1, 3, 10.0),
        (5, 2, 9, 0.5),
        (9, 30, 0, 10.0),
        (63, 31, 2, 3.0),
        (64, 31, 5, 10.0),
        (65, 40, 2, 200.0),
        (127, 9, 9, 10.0),
        (128, 17, 8, 0.3),
        (129, 16, 2, 10.0),
        (300, 520, 9, 10.0),
        (700, 25, 2, 1.0),
    ] {
        let what = format!("{n_angles} x {n_cols}, order {order}, sigma {sigma}");
        let sinogram = striped(n_angles, n_cols, 7);
        let fitting = Fitting { order, sigma };
        let removal = StripeRemoval::Fitting(fitting);
        let mut on_cpu = sinogram.clone();
        removal.apply(&mut on_cpu, n_cols, &mut Scratch::default());
        let mut by_twin = sinogram.clone();
        stripes_cpu(&removal, &mut by_twin, n_cols);
        let found = &on_gpu(&gpu, removal, std::slice::from_ref(&sinogram), n_cols, 0).0[0];
        let tolerance = fit_tolerance(&fitting, &sinogram, n_cols);
        for (whose, expected) in [("CPU", &on_cpu), ("twin", &by_twin)] {
            let off = worst(found, expected);
            assert!(off <= tolerance, "{what}, {whose}: {off} > {tolerance}");
        }
        assert!(tolerance < 1e-3, "{what}: {tolerance}");
        if n_angles < 3 {
            assert_eq!(found, &sinogram, "{what}");
            continue;
        }
        // a wider window across the columns must be seen, and another order where there is more than one
        let other = Fitting {
            sigma: 1.2 * sigma,
            order: if order < 2 { 2 } else { 0 },
        };
        let mut moved = sinogram.clone();
        StripeRemoval::Fitting(other).apply(&mut moved, n_cols, &mut Scratch::default());
        let seen = worst(found, &moved);
        assert!(
            n_cols < 5 || n_angles < 5 || seen > 10.0 * tolerance,
            "{what}: blind, {seen} at {tolerance}"
        );
    }
}

#[test]
fn scales_of_any_size_are_those_of_the_cpu_and_small_sinograms_are_left() {
    let Some(gpu) = gpu() else { return };
    for (n_angles, n_cols, levels, order, sigma) in [
        (20, 300, 5, 9, 1.0),
        (300, 26, 5, 9, 1.0),
        (1, 1, 5, 9, 1.0),
        (27, 27, 5, 20, 1.0),
        (28, 28, 5, 20, 1.0),
        (31, 40, 12, 1, 0.01),
        (64, 65, 1, 2, 1e4),
        (65, 64, 12, 20, 30.0),
        (131, 90, 2, 9, 2.0),
        (600, 140, 12, 9, 1.0),
    ] {
        let what = format!("{n_angles} x {n_cols}, {levels} levels, order {order}, sigma {sigma}");
        let sinogram = striped(n_angles, n_cols, 8);
        let filter = WaveletFft {
            levels,
            order,
            sigma,
        };
        let removal = StripeRemoval::WaveletFft(filter);
        let mut on_cpu = sinogram.clone();
        removal.apply(&mut on_cpu, n_cols, &mut Scratch::default());
        let mut by_twin = sinogram.clone();
        stripes_cpu(&removal, &mut by_twin, n_cols);
        let found = &on_gpu(&gpu, removal, std::slice::from_ref(&sinogram), n_cols, 0).0[0];
        let tolerance = 1.3 * tolerance(&filter, n_cols, n_angles);
        for (whose, expected) in [("CPU", &on_cpu), ("twin", &by_twin)] {
            let off = worst(found, expected);
            assert!(off <= tolerance, "{what}, {whose}: {off} > {tolerance}");
        }
        assert!(tolerance < 1e-3, "{what}: {tolerance}");
        if n_angles.min(n_cols) < 28 {
            assert_eq!(found, &sinogram, "{what}");
            continue;
        }
        let other = WaveletFft {
            sigma: if sigma > 20.0 { 5.0 } else { sigma + 0.7 },
            ..filter
        };
        let mut moved = sinogram.clone();
        let other = StripeRemoval::WaveletFft(other);
        other.apply(&mut moved, n_cols, &mut Scratch::default());
        let seen = worst(found, &moved);
        assert!(
            seen > 10.0 * tolerance,
            "{what}: blind, {seen} at {tolerance}"
        );
    }
}

#[test]
fn a_row_takes_the_memory_that_is_planned_for_it() {
    let Some(gpu) = gpu() else { return };
    for (n_angles, n_cols) in [(181, 64), (50, 301), (2, 9), (40, 33)] {
        let fitting = Fitting {
            order: 6,
            sigma: 10.0,
        };
        let filter = wavelets(20, 3.0);
        let of_fits = |n_rows| FitKernels::new(&gpu, &fitting, [n_rows, n_cols, n_angles]);
        let of_wavelets = |n_rows| WaveletKernels::new(&gpu, &filter, [n_rows, n_cols, n_angles]);
        let fits = |n_rows| of_fits(n_rows).unwrap().held_sizes();
        let wavelets = |n_rows| of_wavelets(n_rows).unwrap().held_sizes();
        for (removal, three, two) in [
            (StripeRemoval::Fitting(fitting), fits(3), fits(2)),
            (StripeRemoval::WaveletFft(filter), wavelets(3), wavelets(2)),
        ] {
            // what the same tables take for any number of rows is in neither
            let more = three.iter().zip(&two).map(|(three, two)| three - two);
            let planned = removal.beside_on_gpu(n_cols, n_angles);
            let what = format!("{removal:?} {n_angles} {n_cols}");
            let [all, largest] = [planned.samples, planned.largest].map(|n| 4 * n as u64);
            assert_eq!(more.clone().max(), Some(largest), "{what}");
            assert_eq!(more.sum::<u64>(), all, "{what}");
            let small =
                n_angles < 3 || (n_angles < 28 && matches!(removal, StripeRemoval::WaveletFft(_)));
            assert_eq!(all == 0, small, "{what}");
        }
    }
}
