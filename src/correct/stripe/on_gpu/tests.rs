mod fits_and_wavelets;

use super::*;
use crate::correct::goldens::worst;
use crate::correct::stripe::columns::{Columns, SortedColumns};
use crate::correct::stripe::filtering::low_pass;
use crate::correct::stripe::fitting::{fit_columns, smooth};
use crate::correct::stripe::on_gpu::fits::Fits;
use crate::correct::stripe::on_gpu::waves::{WaveKernels, Waves, smooth_sorted};
use crate::correct::stripe::{
    Filtering, Fitting, Raven, Scratch, StripeCounts, StripeRemoval, WaveletFft, dead,
};
use crate::error::Result;
use crate::gpu::{Batch, Gpu, for_tests as gpu};

fn noise(index: usize) -> f32 {
    let bits = (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    bits as f32 / (1u64 << 24) as f32
}

fn large(size: usize) -> Large {
    Large {
        snr: 3.0,
        size,
        drop_ratio: 0.1,
        normalize: true,
    }
}

fn raven(cutoff: f64) -> Raven {
    Raven {
        cutoff,
        order: 4,
        rows: 2,
    }
}

fn dead(size: usize) -> Dead {
    Dead {
        snr: 3.0,
        size,
        smooth: dead::SMOOTH,
    }
}

fn wavelets(order: usize, sigma: f64) -> WaveletFft {
    WaveletFft {
        levels: 5,
        order,
        sigma,
    }
}

/// How far a fitted sample may be from that of the CPU: the quotient passes on the rounding of the fit and of its smooth version.
fn fit_tolerance(fitting: &Fitting, sinogram: &[f32], n_cols: usize) -> f32 {
    let (mut columns, mut fit) = (Columns::default(), Columns::default());
    columns.read(sinogram, n_cols);
    let Some(fits) = Fits::new(fitting, n_cols, columns.n_angles()) else {
        return 0.0;
    };
    fit_columns(&columns, fitting.order, &mut fit);
    let smooth = smooth(&fit, Fitting::sigma_angle(n_cols), fitting.sigma);
    let peak = sinogram
        .iter()
        .fold(0f32, |peak, value| peak.max(value.abs()));
    let [of_fit, of_smooth] = fits.tolerances().map(|share| share * peak);
    let magnitude = |sum: f32, value: f32| sum + value.abs();
    let all = fit.values().iter().copied().fold(0.0, magnitude);
    let scale = all / smooth.iter().map(|value| value.re).fold(0.0, magnitude);
    let mut most = 0f32;
    for (col, (column, fit)) in columns.iter().zip(fit.iter()).enumerate() {
        for (angle, (value, fit)) in column.iter().zip(fit).enumerate() {
            let ratio = (value / fit).abs();
            let smooth = scale * smooth[angle * n_cols + col].re.abs();
            let apart = ratio * (scale * of_smooth + smooth / fit.abs() * of_fit);
            // two quotients, two products, and the ratio of two sums
            most = most.max(apart + 12.0 * f32::EPSILON * ratio * smooth);
        }
    }
    most
}

/// A sinogram `[angle, col]` of a disk off the axis with noise and columns of wrong gain, dead, and fluctuating.
fn striped(n_angles: usize, n_cols: usize, seed: usize) -> Vec<f32> {
    let at = |angle: usize, col: usize| {
        let t =
            col as f32 - n_cols as f32 * (0.5 + 0.1 * (angle as f32 * 3.1 / n_angles as f32).cos());
        let radius = 0.3 * n_cols as f32;
        let chord = 2.0 * (radius * radius - t * t).max(0.0).sqrt() / n_cols as f32;
        let index = (seed * n_angles + angle) * n_cols + col;
        let value = (-1.2 * chord).exp() * (1.0 + 0.02 * (noise(index) - 0.5));
        match (n_cols > 20, col * 100 / n_cols) {
            // a wide dip, a lone dead column at two thirds, one that flickers
            (true, 30..33) => 0.8 * value,
            (true, 66) if col == n_cols * 2 / 3 => 0.4,
            (true, 80) if col == n_cols * 4 / 5 => value + 0.2 * (noise(7 * index) - 0.5),
            _ => value,
        }
    };
    (0..n_angles * n_cols)
        .map(|index| at(index / n_cols, index % n_cols))
        .collect()
}

/// Runs what it is given at once.
fn run(gpu: &Gpu, record: &dyn Fn(&mut Batch<'_>) -> Result<()>) -> Result<()> {
    let mut batch = gpu.batch("test");
    record(&mut batch)?;
    batch.submit();
    Ok(())
}

/// Sinograms `[row][angle, col]` without their stripes, and how many columns were taken for stripes in rows from `counted` on.
fn on_gpu(
    gpu: &Gpu,
    removal: StripeRemoval,
    rows: &[Vec<f32>],
    n_cols: usize,
    counted: usize,
) -> (Vec<Vec<f32>>, StripeCounts) {
    let n_angles = rows[0].len() / n_cols;
    let mut columns = Columns::default();
    let mut values: Vec<f32> = Vec::new();
    for row in rows {
        columns.read(row, n_cols);
        values.extend(columns.values());
    }
    let buffer = gpu.storage_from("columns", &values).unwrap();
    let touched = gpu.storage::<u32>("touched", 4).unwrap();
    let kernels = StripeKernels::new(gpu, removal, [rows.len(), n_cols, n_angles]).unwrap();
    let params = StripeParams {
        n_rows: rows.len() as u32,
        n_cols: n_cols as u32,
        n_angles: n_angles as u32,
        first_counted: counted as u32,
        ..StripeParams::default()
    };
    kernels
        .launch(&params, &buffer, &touched, &mut |record| run(gpu, record))
        .unwrap();
    let found: Vec<f32> = gpu.read(&buffer).unwrap();
    let touched: Vec<u32> = gpu.read(&touched).unwrap();
    let sinograms = found.chunks_exact(n_angles * n_cols).map(|row| {
        columns.values_mut().copy_from_slice(row);
        let mut sinogram = vec![f32::NAN; row.len()];
        columns.write(&mut sinogram);
        sinogram
    });
    let counts = StripeCounts {
        large: u64::from(touched[2]),
        dead: u64::from(touched[3]),
    };
    (sinograms.collect(), counts)
}

#[test]
fn columns_of_any_length_are_sorted_as_on_the_cpu_bit_by_bit() {
    let Some(gpu) = gpu() else { return };
    let sorter = Sorter::new(&gpu).unwrap();
    for n_angles in [1, 2, 3, 63, 255, 2047, 2048, 2049, 5000, 9001] {
        let n_cols = 3;
        // many equal values, and such as have no place among the numbers
        let mut columns = Columns::default();
        columns.reshape(n_cols, n_angles);
        for (col, column) in columns.iter_mut().enumerate() {
            for (angle, value) in column.iter_mut().enumerate() {
                *value = (noise(col * n_angles + angle) * 40.0).floor() / 7.0 - 2.0;
            }
            if n_angles > 60 {
                (column[3], column[50], column[7]) = (f32::INFINITY, f32::NEG_INFINITY, f32::NAN);
                (column[8], column[9]) = (-0.0, 1e-42);
            }
        }
        let mut sorted = SortedColumns::default();
        sorted.sort(&columns);
        let buffer = gpu.storage_from("columns", columns.values()).unwrap();
        let order = gpu
            .storage_from("order", &vec![7u32; n_cols * n_angles])
            .unwrap();
        let params = StripeParams {
            n_rows: 1,
            n_cols: n_cols as u32,
            n_angles: n_angles as u32,
            ..StripeParams::default()
        };
        run(&gpu, &|batch| {
            sorter.launch(batch, &params, &buffer, &order)
        })
        .unwrap();
        let bits: Vec<u32> = gpu.read(&buffer).unwrap();
        let expected: Vec<u32> = sorted.values.values().iter().map(|v| v.to_bits()).collect();
        assert!(bits == expected, "{n_angles}");
        let order: Vec<u32> = gpu.read(&order).unwrap();
        assert!(
            order == sorted.order(),
            "{n_angles}: equal values keep their order"
        );
    }
}

#[test]
fn every_method_gives_the_bits_of_the_cpu_or_is_within_the_rounding_of_a_quotient() {
    let Some(gpu) = gpu() else { return };
    for (n_angles, n_cols, size, small) in [(47, 131, 31, 21), (90, 61, 21, 6), (2100, 40, 9, 5)] {
        let rows: Vec<Vec<f32>> = (0..2).map(|seed| striped(n_angles, n_cols, seed)).collect();
        let (large, dead) = (large(size), dead(size));
        let fitting = Fitting {
            order: 4,
            sigma: 10.0,
        };
        for removal in [
            StripeRemoval::Sorting(small),
            StripeRemoval::Large(large),
            StripeRemoval::Large(Large {
                normalize: false,
                ..large
            }),
            StripeRemoval::Dead(dead, Some(large)),
            StripeRemoval::Dead(dead, None),
            StripeRemoval::All(dead, large, small),
            StripeRemoval::Interpolation(large),
            StripeRemoval::Normalization(size as f64 / 4.0),
            StripeRemoval::Regularization(5e-4),
            StripeRemoval::Fft(raven(8.0)),
            StripeRemoval::Fitting(fitting),
            StripeRemoval::WaveletFft(wavelets(5, 1.5)),
        ] {
            let name = format!("{removal:?} {n_angles} {n_cols}");
            let apply = |row: &Vec<f32>| {
                let mut on_cpu = row.clone();
                let counts = removal.apply(&mut on_cpu, n_cols, &mut Scratch::default());
                (on_cpu, counts)
            };
            let by_twin = |row: &Vec<f32>| {
                let mut by_twin = row.clone();
                let counts = stripes_cpu(&removal, &mut by_twin, n_cols);
                (by_twin, counts)
            };
            // sums of at most 1 have 24 bits on both sides, a quotient is off by 2.5 units on a GPU, there are two of them, one
            // behind the other; a straight line takes two roundings
            let tolerance = match removal {
                StripeRemoval::Sorting(_) => 0.0,
                StripeRemoval::Fft(_) => {
                    let waves = Waves::new(&removal, n_cols, n_angles).unwrap();
                    1.3 * (waves.tolerance() + f32::EPSILON)
                }
                StripeRemoval::Fitting(fitting) => {
                    let of = |row: &Vec<f32>| fit_tolerance(&fitting, row, n_cols);
                    rows.iter().map(of).fold(0.0, f32::max)
                }
                StripeRemoval::WaveletFft(filter) => {
                    1.3 * super::wavelets::tolerance(&filter, n_cols, n_angles)
                }
                // a logarithm near 1 is off by 2^-21 on a GPU, an exponential by 3 units
                StripeRemoval::Regularization(_) => 1.3 * (2.0 / 2_097_152.0 + 8.0 * f32::EPSILON),
                _ => 1.3 * 8.0 * f32::EPSILON,
            };
            let (found, counts) = on_gpu(&gpu, removal, &rows, n_cols, 1);
            for (row, found) in rows.iter().zip(&found) {
                let (on_cpu, cpu_counts) = apply(row);
                let (by_twin, twin_counts) = by_twin(row);
                assert_eq!(twin_counts, cpu_counts, "{name}");
                let (twin, cpu) = (worst(found, &by_twin), worst(found, &on_cpu));
                assert!(twin <= tolerance, "{name}: {twin} > {tolerance}");
                assert!(cpu <= tolerance, "{name}: {cpu} > {tolerance}");
                let few = n_cols < 100 && matches!(removal, StripeRemoval::Dead(_, None));
                assert!(
                    few || worst(row, &on_cpu) > 0.01,
                    "{name}: nothing was removed"
                );
            }
            for (row, found) in rows.iter().zip(&found) {
                let alone = on_gpu(&gpu, removal, std::slice::from_ref(row), n_cols, 0).0;
                assert!(
                    &alone[0] == found,
                    "{name}: rows do not depend on each other"
                );
            }
            // rows before the second were counted elsewhere
            assert_eq!(counts, apply(&rows[1]).1, "{name}");
            let seeks_large = !matches!(
                removal,
                StripeRemoval::Sorting(_)
                    | StripeRemoval::Dead(_, None)
                    | StripeRemoval::Normalization(_)
                    | StripeRemoval::Regularization(_)
                    | StripeRemoval::Fft(_)
                    | StripeRemoval::Fitting(_)
                    | StripeRemoval::WaveletFft(_)
            );
            assert!(counts.large > 0 || !seeks_large, "{name}: {counts:?}");
            let seeks_dead = matches!(removal, StripeRemoval::Dead(..) | StripeRemoval::All(..));
            assert!(
                counts.dead > 0 || !seeks_dead || n_cols < 100,
                "{name}: {counts:?}"
            );
            let mut other = rows.clone();
            other[0][3 * n_cols..4 * n_cols]
                .iter_mut()
                .step_by(7)
                .for_each(|value| *value *= 1.3);
            let seen = worst(&on_gpu(&gpu, removal, &other, n_cols, 0).0[0], &found[0]);
            assert!(
                seen > 10.0 * tolerance,
                "{name}: other samples must be seen: {seen}"
            );
        }
    }
}

#[test]
fn rows_wider_than_a_workgroup_sorts_and_rows_of_few_columns_are_judged_alike() {
    let Some(gpu) = gpu() else { return };
    for (n_angles, n_cols) in [(6, 2300), (20, 7), (5, 1), (1, 9), (12, 8)] {
        let rows = vec![striped(n_angles, n_cols, 3)];
        let removal = StripeRemoval::All(dead(51), large(51), 21);
        let mut on_cpu = rows[0].clone();
        let counts = removal.apply(&mut on_cpu, n_cols, &mut Scratch::default());
        let (found, found_counts) = on_gpu(&gpu, removal, &rows, n_cols, 0);
        assert_eq!(found_counts, counts, "{n_angles} {n_cols}");
        assert!(counts.large > 0 || n_cols < 20);
        let off = worst(&found[0], &on_cpu);
        assert!(
            off <= 1.3 * 8.0 * f32::EPSILON,
            "{n_angles} {n_cols}: {off}"
        );
    }
}

#[test]
fn columns_that_all_do_the_same_are_no_stripes_and_a_third_that_is_dead_is_left() {
    let Some(gpu) = gpu() else { return };
    let mut half_dead = striped(30, 40, 1);
    for line in half_dead.chunks_exact_mut(40) {
        line[5..30]
            .iter_mut()
            .step_by(2)
            .for_each(|value| *value = 0.5);
    }
    // a wide region of columns that are the same at all angles, each with a value that has no short binary form
    let wide: Vec<f32> = (0..240 * 50)
        .map(|i| match i % 240 {
            100..140 => 0.1 * ((i % 240) as f32).sqrt(),
            _ => 0.5 + 0.1 * noise(i),
        })
        .collect();
    let cases = [
        (vec![0.7; 40 * 30], 40, 0),
        (half_dead, 40, 0),
        (wide, 240, 42),
    ];
    for (sinogram, n_cols, dead_columns) in cases {
        let size = if n_cols == 40 { 5 } else { 21 };
        let removal = StripeRemoval::Dead(dead(size), Some(large(size)));
        let mut on_cpu = sinogram.clone();
        let counts = removal.apply(&mut on_cpu, n_cols, &mut Scratch::default());
        let (found, found_counts) = on_gpu(&gpu, removal, &[sinogram], n_cols, 0);
        assert_eq!((found_counts, counts.dead), (counts, dead_columns));
        assert!(worst(&found[0], &on_cpu) <= 8.0 * f32::EPSILON);
    }
}

#[test]
fn samples_without_signal_and_rows_narrower_than_the_weights_move_as_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for (n_angles, n_cols) in [(50, 40), (7, 1), (1, 3), (300, 520)] {
        let mut sinogram = striped(n_angles, n_cols, 4);
        for (index, value) in sinogram.iter_mut().enumerate() {
            if index % 37 == 5 {
                *value = -0.01 * (index % 3) as f32;
            }
        }
        for removal in [
            StripeRemoval::Normalization(15.0),
            StripeRemoval::Regularization(5e-4),
            StripeRemoval::Regularization(1e-7),
        ] {
            let mut on_cpu = sinogram.clone();
            removal.apply(&mut on_cpu, n_cols, &mut Scratch::default());
            let found = &on_gpu(&gpu, removal, &[sinogram.clone()], n_cols, 0).0[0];
            let off = worst(found, &on_cpu);
            // as above; here a third of the columns has samples that count as the mean magnitude
            let tolerance = 1.3 * (2.0 / 2_097_152.0 + 12.0 * f32::EPSILON);
            assert!(off <= tolerance, "{removal:?} {n_angles} {n_cols}: {off}");
            assert!(n_cols < 4 || worst(&sinogram, &on_cpu) > 100.0 * tolerance);
        }
    }
}

#[test]
fn the_low_part_is_that_of_the_cpu_and_is_sorted_and_added_again_bit_by_bit() {
    let Some(gpu) = gpu() else { return };
    for (n_angles, n_cols, sigma, size) in [
        (150, 61, 3.0, 11),
        (151, 40, 10.0, 5),
        (63, 41, 40.0, 5),
        (600, 12, 3.0, 21),
        (7, 20, 3.0, 5),
        (1, 9, 3.0, 3),
    ] {
        let sinogram = striped(n_angles, n_cols, 6);
        let removal = StripeRemoval::Filtering(Filtering { sigma, size });
        let what = format!("{n_angles} {n_cols} {sigma}");
        let mut columns = Columns::default();
        columns.read(&sinogram, n_cols);
        let mut on_cpu = Columns::default();
        low_pass(&columns, sigma, &mut on_cpu);
        let buffer = gpu.storage_from("columns", columns.values()).unwrap();
        let params = StripeParams {
            n_rows: 1,
            n_cols: n_cols as u32,
            n_angles: n_angles as u32,
            ..StripeParams::default()
        };
        let shape = [1, n_cols, n_angles];
        let kernels = WaveKernels::new(&gpu, &removal, shape).unwrap().unwrap();
        run(&gpu, &|batch| kernels.take_away(batch, &params, &buffer)).unwrap();
        let low: Vec<f32> = gpu.read(&kernels.low).unwrap();
        let high: Vec<f32> = gpu.read(&buffer).unwrap();
        let waves = Waves::new(&removal, n_cols, n_angles).unwrap();
        // an FFT of f32 errs by a few units of the peak, as its own test has it
        let tolerance = 1.3 * (waves.tolerance() + 16.0 * f32::EPSILON);
        let off = worst(&low, on_cpu.values());
        assert!(off <= tolerance, "{what}: {off} > {tolerance}");
        low_pass(&columns, 1.2 * sigma, &mut on_cpu);
        let seen = worst(&low, on_cpu.values());
        assert!(
            n_angles < 60 || sigma > 30.0 || seen > 10.0 * tolerance,
            "{what}: blind, {seen}"
        );
        // what is left of the method moves values, and adds them once
        on_cpu.values_mut().copy_from_slice(&low);
        let smooth = smooth_sorted(on_cpu, size);
        let mut expected = Columns::default();
        expected.reshape(n_cols, n_angles);
        let sums = high
            .iter()
            .zip(smooth.values())
            .map(|(high, low)| high + low);
        expected
            .values_mut()
            .iter_mut()
            .zip(sums)
            .for_each(|(to, sum)| *to = sum);
        let mut treated = vec![f32::NAN; sinogram.len()];
        expected.write(&mut treated);
        let found = &on_gpu(&gpu, removal, std::slice::from_ref(&sinogram), n_cols, 0).0[0];
        assert_eq!(worst(found, &treated), 0.0, "{what}");
        assert!(
            n_cols < 20 || n_angles < 60 || worst(found, &sinogram) > 0.01,
            "{what}: nothing was removed"
        );
        // where no two samples change places the CPU gives the same; elsewhere they take each other's
        let mut whole = sinogram.clone();
        removal.apply(&mut whole, n_cols, &mut Scratch::default());
        let swapped = found
            .iter()
            .zip(&whole)
            .filter(|(a, b)| (*a - *b).abs() > 2.0 * tolerance);
        let swapped = swapped.count() as f64 / whole.len() as f64;
        assert!(swapped < 0.01, "{what}: {swapped} of the samples differ");
    }
}
