use ndarray::Array3;

use super::goldens::{read_npy, worst};
use super::*;
use crate::config::{Average, FlatInTime, StripeConfig, StripeMethod};
use crate::scan::{FrameGroup, FrameStack, PixelType};

/// Frames in memory.
struct Frames(Array3<f32>);

impl FrameStack for Frames {
    fn shape(&self) -> [usize; 3] {
        self.0.dim().into()
    }
    /// As a camera would store them where all of them are whole.
    fn pixel_type(&self) -> PixelType {
        let whole = |&v: &f32| v.fract() == 0.0 && (0.0..65536.0).contains(&v);
        if self.0.iter().all(whole) {
            PixelType::U16
        } else {
            PixelType::F32
        }
    }
    fn read(&self, frames: &[usize], rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let wanted = frames.iter().flat_map(|&frame| {
            self.0
                .slice(s![frame, rows.clone(), ..])
                .iter()
                .copied()
                .collect::<Vec<_>>()
        });
        out.iter_mut()
            .zip(wanted)
            .for_each(|(out, value)| *out = value);
        Ok(())
    }
    fn decoded_bytes(&self, rows: Range<usize>) -> u64 {
        (rows.len() * self.0.dim().2 * 4) as u64
    }
    fn describe(&self) -> String {
        "frames in memory".to_string()
    }
}

/// A scan of frames in memory; angles in steps of 0.01 rad.
pub(super) fn scan(
    projections: Array3<f32>,
    flats: Option<Array3<f32>>,
    darks: Option<Array3<f32>>,
) -> Scan {
    let n_angles = projections.dim().0;
    let group = |frames: &Option<Array3<f32>>| {
        let all = |frames: &Array3<f32>| FrameGroup {
            frames: (0..frames.dim().0).collect(),
            at_projection: 0.0,
        };
        frames.iter().map(all).collect::<Vec<_>>()
    };
    Scan {
        path: "test.h5".into(),
        layout: "HDF5".into(),
        flat_groups: group(&flats),
        dark_groups: group(&darks),
        projections: Box::new(Frames(projections)),
        projection_frames: (0..n_angles).collect(),
        projection_numbers: (0..n_angles).collect(),
        shifts: None,
        left_out: Vec::new(),
        flats: flats.map(|frames| Box::new(Frames(frames)) as Box<dyn FrameStack>),
        darks: darks.map(|frames| Box::new(Frames(frames)) as Box<dyn FrameStack>),
        angles_rad: (0..n_angles).map(|i| i as f64 * 0.01).collect(),
        angle_source: String::new(),
        monitor: None,
        pixel_size_um: None,
        start_time: None,
        warnings: Vec::new(),
        files: Vec::new(),
        clock: crate::scan::ReadClock::default(),
    }
}

/// Division and logarithm only.
pub(super) fn plain() -> CorrectConfig {
    let mut config = CorrectConfig::default();
    config.zinger.enabled = false;
    config.stripe.method = StripeMethod::None;
    config
}

pub(super) fn noise(index: usize) -> f32 {
    ((index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1u64 << 24) as f32 - 0.5
}

/// Counts of 41 angles, 5 rows, 67 columns with noise, uneven flats, a bad pixel, a NaN and a zinger.
fn noisy_scan() -> Scan {
    let mut counts = 0;
    let mut next = || {
        counts += 1;
        noise(counts)
    };
    let flats = Array3::from_shape_fn((4, 5, 67), |(_, row, col)| {
        1000.0 + 20.0 * ((row * 67 + col) as f32).sin() + 30.0 * next()
    });
    let mut projections = Array3::from_shape_fn((41, 5, 67), |(angle, row, col)| {
        100.0
            + (900.0 + 20.0 * ((row * 67 + col) as f32).sin())
                * (0.6 + 0.2 * (angle as f32 / 9.0).cos())
            + 20.0 * next()
    });
    projections[[7, 2, 30]] = f32::NAN;
    projections[[20, 1, 40]] = 5000.0;
    let mut darks = Array3::from_elem((3, 5, 67), 100.0);
    darks.slice_mut(s![.., 3, 12]).fill(2000.0);
    scan(projections, Some(flats), Some(darks))
}

#[test]
fn line_integrals_are_minus_log_of_normalised_counts_and_all_is_counted() {
    // flat 1100, dark 100: transmission (p - 100) / 1000
    let mut projections = Array3::from_elem((4, 3, 6), 600.0);
    projections[[1, 0, 2]] = 1100.0;
    projections[[2, 0, 3]] = 50.0;
    projections[[3, 1, 1]] = f32::NAN;
    projections[[3, 1, 0]] = 350.0;
    projections[[3, 1, 2]] = 850.0;
    projections.slice_mut(s![0, 2, ..]).fill(f32::INFINITY);
    let mut flats = Array3::from_elem((3, 3, 6), 1100.0);
    // one frame with a gamma spot, one pixel without signal
    flats[[1, 0, 0]] = 60000.0;
    flats.slice_mut(s![.., 2, 4]).fill(100.5);
    let corrected = CorrectedScan::new(
        scan(
            projections,
            Some(flats),
            Some(Array3::from_elem((2, 3, 6), 100.0)),
        ),
        &plain(),
    )
    .unwrap();
    let (sinograms, counts) = corrected.slab(0..3).unwrap();
    let expected = CorrectionCounts {
        samples: 72,
        bad_pixels: 1,
        // the NaN, and the five good pixels of the infinite line
        not_finite: 6,
        lost_lines: 1,
        clipped: 1,
        ..CorrectionCounts::default()
    };
    assert_eq!(counts, expected);
    assert_eq!(sinograms.dim(), (3, 4, 6));
    let half = 2f32.ln();
    let close = |found: f32, expected: f32| {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}")
    };
    close(sinograms[[0, 0, 0]], half);
    close(sinograms[[0, 1, 2]], 0.0);
    close(sinograms[[0, 2, 3]], -(1e-4f32).ln());
    // between 0.25 and 0.75
    close(sinograms[[1, 3, 1]], half);
    close(sinograms[[1, 3, 0]], 4f32.ln());
    sinograms
        .slice(s![2, .., ..])
        .iter()
        .for_each(|&value| close(value, half));
    assert_eq!(
        (
            corrected.bad_pixels(),
            corrected.is_bad_pixel(2, 4),
            corrected.is_bad_pixel(2, 3)
        ),
        (1, true, false)
    );
    assert_eq!(
        corrected.warnings().len(),
        1,
        "1 of 18 pixels is many: {:?}",
        corrected.warnings()
    );
}

#[test]
fn the_mean_of_flats_differs_from_their_median_by_the_spot() {
    let flats = Array3::from_shape_fn(
        (5, 1, 1),
        |(frame, _, _)| if frame == 2 { 6000.0 } else { 1000.0 },
    );
    let value = |average| {
        let config = CorrectConfig { average, ..plain() };
        let scan = scan(
            Array3::from_elem((1, 1, 1), 500.0),
            Some(flats.clone()),
            Some(Array3::zeros((1, 1, 1))),
        );
        CorrectedScan::new(scan, &config)
            .unwrap()
            .slab(0..1)
            .unwrap()
            .0[[0, 0, 0]]
    };
    assert!((value(Average::Median) - 2f32.ln()).abs() < 1e-6);
    assert!((value(Average::Mean) - 4f32.ln()).abs() < 1e-6);
}

#[test]
fn groups_of_flats_are_joined_or_followed_in_time() {
    let flats = Array3::from_shape_fn(
        (2, 1, 1),
        |(frame, _, _)| if frame == 0 { 1000.0 } else { 3000.0 },
    );
    let values = |flat_in_time| {
        let mut scan = scan(
            Array3::from_elem((4, 1, 1), 500.0),
            Some(flats.clone()),
            None,
        );
        scan.flat_groups = vec![
            FrameGroup {
                frames: vec![0],
                at_projection: 0.0,
            },
            FrameGroup {
                frames: vec![1],
                at_projection: 4.0,
            },
        ];
        let corrected = CorrectedScan::new(
            scan,
            &CorrectConfig {
                flat_in_time,
                ..plain()
            },
        )
        .unwrap();
        assert!(corrected.warnings()[0].contains("--darks"));
        corrected
            .transmission(0..1)
            .unwrap()
            .0
            .iter()
            .map(|t| 500.0 / t)
            .collect::<Vec<f32>>()
    };
    let close =
        |found: &[f32], expected: [f32; 4]| assert!(worst(found, &expected) < 1e-2, "{found:?}");
    close(&values(FlatInTime::Mean), [2000.0; 4]);
    close(
        &values(FlatInTime::Nearest),
        [1000.0, 1000.0, 3000.0, 3000.0],
    );
    close(
        &values(FlatInTime::Linear),
        [1250.0, 1750.0, 2250.0, 2750.0],
    );
}

#[test]
fn missing_flats_are_an_error_that_names_the_way_out() {
    let config = plain();
    let empty = scan(Array3::ones((2, 2, 4)), None, None);
    let text = CorrectedScan::new(empty, &config)
        .err()
        .expect("no flats is an error")
        .to_string();
    assert!(
        text.contains("--flats") && text.contains("correct.without_flats = true"),
        "{text}"
    );
    let mut no_frames = scan(Array3::ones((2, 2, 4)), Some(Array3::ones((1, 2, 4))), None);
    no_frames.flat_groups.clear();
    assert!(CorrectedScan::new(no_frames, &config).is_err());

    let config = CorrectConfig {
        without_flats: true,
        ..config
    };
    let transmission = Array3::from_elem((2, 2, 4), 0.25);
    let corrected = CorrectedScan::new(scan(transmission.clone(), None, None), &config).unwrap();
    assert!(corrected.warnings().is_empty());
    assert!(
        corrected
            .slab(0..2)
            .unwrap()
            .0
            .iter()
            .all(|&v| (v - 4f32.ln()).abs() < 1e-6)
    );
    let unused = scan(transmission, Some(Array3::ones((1, 2, 4))), None);
    assert!(CorrectedScan::new(unused, &config).unwrap().warnings()[0].contains("not used"));
}

#[test]
fn flats_darks_and_rows_of_another_size_are_errors() {
    let ones = |rows, cols| Some(Array3::ones((1, rows, cols)));
    for (flats, darks) in [(ones(3, 4), ones(2, 4)), (ones(2, 4), ones(2, 5))] {
        let error = CorrectedScan::new(scan(Array3::ones((2, 2, 4)), flats, darks), &plain()).err();
        assert!(matches!(error, Some(Error::Shape { .. })), "{error:?}");
    }
    let corrected =
        CorrectedScan::new(scan(Array3::ones((2, 2, 4)), ones(2, 4), None), &plain()).unwrap();
    assert!(matches!(corrected.slab(1..3), Err(Error::Shape { .. })));
    assert!(matches!(
        corrected.projection(2, 0..2),
        Err(Error::Shape { .. })
    ));
    assert!(corrected.slab(1..1).unwrap().0.is_empty());
}

#[test]
fn zero_flats_leave_rows_that_are_open_beam_and_said() {
    let mut flats = Array3::from_elem((2, 3, 4), 100.0);
    flats.slice_mut(s![.., 1, ..]).fill(0.0);
    let corrected = CorrectedScan::new(
        scan(Array3::from_elem((5, 3, 4), 50.0), Some(flats), None),
        &plain(),
    )
    .unwrap();
    let (sinograms, counts) = corrected.slab(0..3).unwrap();
    assert_eq!(
        (counts.bad_pixels, counts.lost_lines, counts.not_finite),
        (4, 5, 0)
    );
    assert!(sinograms.slice(s![1, .., ..]).iter().all(|&v| v == 0.0) && sinograms[[0, 0, 0]] > 0.6);
    assert!(
        corrected
            .projection(0, 0..3)
            .unwrap()
            .row(1)
            .iter()
            .all(|&v| v == 0.0)
    );
    assert!(
        corrected
            .warnings()
            .iter()
            .any(|text| text.contains("1 of 3 detector rows")),
        "{:?}",
        corrected.warnings()
    );
    assert!(
        !corrected
            .warnings()
            .iter()
            .any(|text| text.contains("are interpolated"))
    );
}

#[test]
fn slab_height_and_thread_count_do_not_matter() {
    for method in [
        StripeMethod::None,
        StripeMethod::Sorting,
        StripeMethod::Filtering,
        StripeMethod::Fitting,
        StripeMethod::Large,
        StripeMethod::Dead,
        StripeMethod::All,
        StripeMethod::Interpolation,
        StripeMethod::Normalization,
        StripeMethod::WaveletFft,
        StripeMethod::Regularization,
        StripeMethod::Fft,
    ] {
        let config = CorrectConfig {
            stripe: StripeConfig {
                method,
                ..StripeConfig::default()
            },
            ..CorrectConfig::default()
        };
        let corrected = CorrectedScan::new(noisy_scan(), &config).unwrap();
        let (whole, counts) = corrected.slab(0..5).unwrap();
        assert!(
            counts.bad_pixels == 1 && counts.not_finite == 1 && counts.zingers >= 1,
            "{counts:?}"
        );
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            for height in [1, 2, 5] {
                let mut total = CorrectionCounts::default();
                for first in (0..5).step_by(height) {
                    let rows = first..(first + height).min(5);
                    let (part, counts) = pool.install(|| corrected.slab(rows.clone())).unwrap();
                    assert_eq!(
                        part,
                        whole.slice(s![rows, .., ..]),
                        "{method:?}, {threads} threads, {height} rows"
                    );
                    total += counts;
                }
                assert_eq!(total, counts);
            }
        }
        // the comparison sees a change in a single sample of the input
        let mut other = noisy_scan();
        other.projection_frames.swap(0, 1);
        assert_ne!(
            CorrectedScan::new(other, &config)
                .unwrap()
                .slab(0..5)
                .unwrap()
                .0,
            whole
        );
    }
}

#[test]
fn a_projection_equals_the_sinograms_without_zingers_and_stripes() {
    let corrected = CorrectedScan::new(noisy_scan(), &plain()).unwrap();
    let sinograms = corrected.sinograms(1..4).unwrap();
    for angle in [0, 7, 40] {
        assert_eq!(
            corrected.projection(angle, 1..4).unwrap(),
            sinograms.slice(s![.., angle, ..])
        );
    }
    assert_ne!(
        corrected.projection(8, 1..4).unwrap(),
        sinograms.slice(s![.., 7, ..])
    );
}

#[test]
fn transmission_is_the_exponential_of_the_line_integrals() {
    let corrected = CorrectedScan::new(noisy_scan(), &CorrectConfig::default()).unwrap();
    let (transmission, _) = corrected.transmission(0..5).unwrap();
    let (line_integrals, _) = corrected.slab(0..5).unwrap();
    let again: Vec<f32> = line_integrals.iter().map(|v| (-v).exp()).collect();
    assert!(worst(&again, &transmission.iter().copied().collect::<Vec<_>>()) < 4.0 * f32::EPSILON);
}

#[test]
fn flat_field_agrees_with_algotom_except_at_its_bad_pixel() {
    let all = ["in_ff_proj", "in_ff_flat", "in_ff_dark", "out_flatfield_0"].map(read_npy);
    let [
        Some((shape, projections)),
        Some((_, flat)),
        Some((_, dark)),
        Some((_, expected)),
    ] = all
    else {
        return;
    };
    let (n_angles, n_rows, n_cols) = (shape[0], shape[1], shape[2]);
    let frames = |n, values| Array3::from_shape_vec((n, n_rows, n_cols), values).unwrap();
    let config = plain();
    let scan = scan(
        frames(n_angles, projections.clone()),
        Some(frames(1, flat)),
        Some(frames(1, dark)),
    );
    let (found, counts) = CorrectedScan::new(scan, &config)
        .unwrap()
        .transmission(0..n_rows)
        .unwrap();
    // the flat equals the dark at row 3, column 5: interpolated here, divided by the mean open beam there
    assert_eq!(counts.bad_pixels, 1);
    let mut pairs = Vec::new();
    let mut at_bad = 0f32;
    for (index, &expected) in expected.iter().enumerate() {
        let (angle, row, col) = (
            index / (n_rows * n_cols),
            index / n_cols % n_rows,
            index % n_cols,
        );
        if (row, col) == (3, 5) {
            let between = 0.5 * (found[[row, angle, 4]] + found[[row, angle, 6]]);
            assert!((found[[row, angle, 5]] - between).abs() < 1e-6);
            at_bad = at_bad.max((found[[row, angle, 5]] - expected).abs());
        } else {
            pairs.push((found[[row, angle, col]], expected));
        }
    }
    let (found, expected): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
    // two subtractions and a division in f32 of values of order 1
    assert!(
        worst(&found, &expected) < 4.0 * f32::EPSILON,
        "{}",
        worst(&found, &expected)
    );
    assert!(at_bad > 1e-3, "the check is blind");
}

#[test]
fn the_stated_scratch_covers_blocks_and_buffers() {
    let mut config = CorrectConfig::default();
    config.stripe.method = StripeMethod::All;
    config.lock.enabled = false;
    let corrected = CorrectedScan::new(noisy_scan(), &config).unwrap();
    let plane = 41 * 67 * 4;
    let stated = corrected.scratch_bytes(1);
    // the block of counts, the columns, their sorted values and order; keys are small beside them
    let tile = super::median::Tile::bytes(67, 51);
    assert!(
        stated >= 4 * plane + tile && stated < 6 * plane + tile,
        "{stated}"
    );
    assert!(corrected.scratch_bytes(5) > stated);
    assert_eq!(corrected.held_bytes(), (2 * 5 * 67 + 5) * 4);
}

#[test]
fn phase_retrieval_gives_the_same_bits_for_any_slab_and_counts_each_row_once() {
    let mut config = CorrectConfig {
        phase: crate::config::PhaseConfig {
            method: crate::config::PhaseMethod::Paganin,
            distance_mm: 30.0,
            energy_kev: 25.0,
            delta_beta: 100.0,
        },
        ..CorrectConfig::default()
    };
    let tall = || {
        let mut scan = noisy_scan();
        // rows beyond one band, so that slabs cut bands
        let frames = Array3::from_shape_fn((41, 90, 67), |(angle, row, col)| {
            300.0 + 200.0 * noise(angle * 90 * 67 + row * 67 + col)
        });
        scan.projections = Box::new(Frames(frames));
        scan.flats = Some(Box::new(Frames(Array3::from_elem((4, 90, 67), 1000.0))));
        scan.darks = Some(Box::new(Frames(Array3::from_elem((3, 90, 67), 100.0))));
        scan.pixel_size_um = Some(2.0);
        scan
    };
    let corrected = CorrectedScan::new(tall(), &config).unwrap();
    let (whole, counts) = corrected.slab(0..90).unwrap();
    for (threads, height) in [(1, 7), (3, 32), (2, 89)] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let mut total = CorrectionCounts::default();
        for first in (0..90).step_by(height) {
            let rows = first..(first + height).min(90);
            let (part, counts) = pool.install(|| corrected.slab(rows.clone())).unwrap();
            assert_eq!(
                part,
                whole.slice(s![rows, .., ..]),
                "{threads} threads, {height} rows"
            );
            total += counts;
        }
        assert_eq!(total, counts);
    }
    let plain = corrected.without_phase().slab(0..90).unwrap().0;
    let spread = |sinograms: &Sinograms| {
        let mean = sinograms.mean().unwrap();
        sinograms.iter().map(|v| (v - mean).powi(2)).sum::<f32>()
    };
    assert!(
        spread(&whole) < 0.5 * spread(&plain),
        "the filter smooths noise"
    );
    // without a pixel size it is an error that names the way out
    let mut unknown = tall();
    unknown.pixel_size_um = None;
    let error = CorrectedScan::new(unknown, &config)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("--pixel-size"), "{error}");
    config.phase.energy_kev = 0.0;
    let whole = crate::config::Config {
        correct: config,
        ..crate::config::Config::default()
    };
    let error = whole.validate().unwrap_err().to_string();
    assert!(error.contains("correct.phase.energy_kev"), "{error}");
}

#[test]
fn a_monitor_levels_the_beam_group_by_group() {
    use crate::config::{BeamConfig, BeamDrift};
    // the beam was at 2 for the first flats, falls to 1 and stays; the sample passes one half
    let reading = [2.0, 1.5, 1.0, 1.0];
    let make = |flats: Option<Vec<f64>>| {
        let projections =
            Array3::from_shape_fn((4, 1, 3), |(angle, _, _)| 500.0 * reading[angle] as f32);
        let open = Array3::from_shape_fn(
            (2, 1, 3),
            |(frame, _, _)| if frame == 0 { 2000.0 } else { 1000.0 },
        );
        let mut scan = scan(projections, Some(open), Some(Array3::zeros((1, 1, 3))));
        let group = |frame, at_projection| FrameGroup {
            frames: vec![frame],
            at_projection,
        };
        scan.flat_groups = vec![group(0, 0.0), group(1, 4.0)];
        scan.monitor = Some(crate::scan::Monitor {
            projections: reading.to_vec(),
            flats,
            source: "current.txt".into(),
        });
        scan
    };
    let values = |drift, flat_in_time, flats| {
        let config = CorrectConfig {
            flat_in_time,
            beam: BeamConfig {
                drift,
                ..BeamConfig::default()
            },
            ..plain()
        };
        let corrected = CorrectedScan::new(make(flats), &config).unwrap();
        let projection = corrected.projection(0, 0..1).unwrap()[[0, 0]];
        let (transmission, _) = corrected.transmission(0..1).unwrap();
        assert!((projection + transmission[[0, 0, 0]].ln()).abs() < 1e-6);
        transmission.slice(s![0, .., 0]).to_vec()
    };
    let flats = || Some(vec![2.0, 1.0]);
    for flat_in_time in [FlatInTime::Mean, FlatInTime::Nearest, FlatInTime::Linear] {
        let found = values(BeamDrift::Monitor, flat_in_time, flats());
        assert!(
            worst(&found, &[0.5; 4]) < 1e-6,
            "{flat_in_time:?}: {found:?}"
        );
        let found = values(BeamDrift::None, flat_in_time, flats());
        assert!(
            worst(&found, &[0.5; 4]) > 0.05,
            "the check is blind: {flat_in_time:?}: {found:?}"
        );
    }
    // without readings for the flats only the drift goes: 1500 is the mean flat, 1.375 the mean reading
    let found = values(BeamDrift::Monitor, FlatInTime::Mean, None);
    assert!(
        worst(&found, &[500.0 * 1.375 / 1500.0; 4]) < 1e-6,
        "{found:?}"
    );
    let mut dark = make(None);
    dark.monitor.as_mut().unwrap().projections[2] = 0.0;
    let config = CorrectConfig {
        beam: BeamConfig {
            drift: BeamDrift::Monitor,
            ..BeamConfig::default()
        },
        ..plain()
    };
    let error = CorrectedScan::new(dark, &config).err().unwrap().to_string();
    assert!(
        error.contains("value 2") && error.contains("current.txt"),
        "{error}"
    );
    let mut absent = make(None);
    absent.monitor = None;
    let error = CorrectedScan::new(absent, &config)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("input.monitor"), "{error}");
}

#[test]
fn spots_are_bad_pixels_with_a_count_of_their_own() {
    let spot = |row: usize, col: usize| (row as f32 - 20.0).hypot(col as f32 - 30.0) < 4.0;
    let flats = Array3::from_shape_fn(
        (3, 40, 60),
        |(_, row, col)| {
            if spot(row, col) { 1800.0 } else { 1000.0 }
        },
    );
    // the spot answers less than its flat says
    let projections =
        Array3::from_shape_fn(
            (5, 40, 60),
            |(_, row, col)| {
                if spot(row, col) { 600.0 } else { 500.0 }
            },
        );
    let mut config = plain();
    config.spots.find = true;
    let make = || scan(projections.clone(), Some(flats.clone()), None);
    let (sinograms, counts) = CorrectedScan::new(make(), &config)
        .unwrap()
        .slab(0..40)
        .unwrap();
    let pixels = (0..40 * 60).filter(|i| spot(i / 60, i % 60)).count() as u64;
    assert_eq!((counts.spots, counts.bad_pixels), (pixels, pixels));
    assert!(sinograms.iter().all(|v| (v - 2f32.ln()).abs() < 1e-6));
    config.spots.find = false;
    let (sinograms, counts) = CorrectedScan::new(make(), &config)
        .unwrap()
        .slab(0..40)
        .unwrap();
    assert_eq!((counts.spots, counts.bad_pixels), (0, 0));
    assert!((sinograms[[20, 0, 30]] - 3f32.ln()).abs() < 1e-6);
}

#[test]
fn zingers_of_projections_are_found_whatever_the_slab() {
    use crate::config::{OutlierKind, ZingerDomain};
    let make = |dark: bool| {
        let mut projections = Array3::from_shape_fn((9, 12, 40), |(angle, row, col)| {
            500.0 + 20.0 * noise(angle * 480 + row * 40 + col)
        });
        // a zinger in every projection at one pixel is none among its neighbours in angle
        projections.slice_mut(s![.., 5, 20]).fill(900.0);
        projections[[3, 0, 0]] = 900.0;
        if dark {
            projections[[6, 11, 39]] = 100.0;
        }
        scan(
            projections,
            Some(Array3::from_elem((2, 12, 40), 1000.0)),
            None,
        )
    };
    let corrected = |kind, domain, dark| {
        let mut config = plain();
        config.zinger.enabled = true;
        (config.zinger.kind, config.zinger.domain) = (kind, domain);
        (config.zinger.threshold, config.zinger.size) = (0.2, 2);
        CorrectedScan::new(make(dark), &config).unwrap()
    };
    let count = |kind, domain| corrected(kind, domain, true).slab(0..12).unwrap().1.zingers;
    assert_eq!(count(OutlierKind::Bright, ZingerDomain::Projection), 10);
    assert_eq!(count(OutlierKind::Both, ZingerDomain::Projection), 11);
    assert_eq!(count(OutlierKind::Dark, ZingerDomain::Sinogram), 1);
    let scan = corrected(OutlierKind::Both, ZingerDomain::Both, true);
    let (whole, counts) = scan.slab(0..12).unwrap();
    assert!((whole[[5, 4, 20]] - 2f32.ln()).abs() < 0.03);
    for height in [1, 3, 5] {
        let mut total = CorrectionCounts::default();
        for first in (0..12).step_by(height) {
            let rows = first..(first + height).min(12);
            let (part, counts) = scan.slab(rows.clone()).unwrap();
            assert_eq!(part, whole.slice(s![rows, .., ..]), "{height} rows");
            total += counts;
        }
        assert_eq!(total, counts);
    }
}
