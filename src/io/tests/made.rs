//! HDF5 scans written here, right and wrong ones.

use rust_hdf5::H5File;

use super::*;

struct Made {
    frames: usize,
    keys: Vec<f64>,
    angles: Vec<f64>,
}

fn made() -> Made {
    // dark, flat, 3 projections, flat, 2 projections, an alignment frame, flat
    let keys = vec![2., 1., 0., 0., 0., 1., 0., 0., -1., 1.];
    let angles = vec![f64::NAN, 0., 0., 45., 90., 0., 135., 180., 0., 0.];
    Made {
        frames: 10,
        keys,
        angles,
    }
}

fn write(folder: &Path, made: &Made, also: impl FnOnce(&H5File)) -> PathBuf {
    let path = folder.join("scan.nxs");
    let file = H5File::create(&path).unwrap();
    let entry = file.create_group("entry").unwrap();
    let detector = entry
        .create_group("instrument")
        .unwrap()
        .create_group("camera")
        .unwrap();
    let counts: Vec<u16> = (0..made.frames * 6).map(|i| i as u16 + 1).collect();
    detector
        .new_dataset::<u16>()
        .shape([made.frames, 2, 3])
        .create("data")
        .unwrap()
        .write_raw(&counts)
        .unwrap();
    detector
        .new_dataset::<f64>()
        .shape([made.keys.len()])
        .create("image_key")
        .unwrap()
        .write_raw(&made.keys)
        .unwrap();
    let size = detector
        .new_dataset::<f64>()
        .shape([1])
        .create("x_pixel_size")
        .unwrap();
    size.write_raw(&[1.3f64]).unwrap();
    let units = size
        .new_attr::<rust_hdf5::VarLenUnicode>()
        .shape(())
        .create("units")
        .unwrap();
    units.write_string("\u{b5}m").unwrap();
    let sample = entry.create_group("sample").unwrap();
    sample
        .new_dataset::<f64>()
        .shape([made.angles.len()])
        .create("rotation_angle")
        .unwrap()
        .write_raw(&made.angles)
        .unwrap();
    also(&file);
    file.close().unwrap();
    path
}

#[test]
fn flats_and_darks_anywhere_become_groups_with_their_times() {
    let temp = tempfile::tempdir().unwrap();
    let path = write(temp.path(), &made(), |_| {});
    let scan = open(&path).unwrap();
    assert_eq!(scan.projection_frames, [2, 3, 4, 6, 7]);
    let flats: Vec<_> = scan
        .flat_groups
        .iter()
        .map(|g| (g.frames.clone(), g.at_projection))
        .collect();
    assert_eq!(flats, [(vec![1], 0.0), (vec![5], 3.0), (vec![9], 5.0)]);
    assert_eq!(scan.dark_groups[0].frames, [0]);
    assert_eq!(scan.pixel_size_um, Some(1.3));
    assert!((scan.angles_rad[4] - std::f64::consts::PI).abs() < 1e-12);
    assert!(
        scan.warnings
            .iter()
            .any(|w| w.contains("1 frames with an image key other than"))
    );
    let input = InputConfig {
        exclude: vec![0, 3],
        ..Default::default()
    };
    let less = open_scan(&path, &input, Some(0.65)).unwrap();
    assert_eq!(less.projection_frames, [3, 4, 7]);
    assert_eq!(less.pixel_size_um, Some(0.65));
    assert_eq!(
        less.flat_groups
            .iter()
            .map(|g| g.at_projection)
            .collect::<Vec<_>>(),
        [0.0, 2.0, 3.0]
    );
    assert!((less.angles_rad[1].to_degrees() - 90.0).abs() < 1e-12);
}

#[test]
fn what_does_not_fit_is_told_with_both_counts() {
    let temp = tempfile::tempdir().unwrap();
    let case = |change: &dyn Fn(&mut Made), input: InputConfig| {
        let mut made = made();
        change(&mut made);
        error_of(open_scan(&write(temp.path(), &made, |_| {}), &input, None))
    };
    let none = InputConfig::default;
    let text = case(&|m| m.keys.truncate(9), none());
    assert!(
        text.contains("9 values") && text.contains("10 frames"),
        "{text}"
    );
    let text = case(&|m| m.angles.truncate(8), none());
    assert!(text.contains("no angles were found"), "{text}");
    let text = case(&|m| m.angles[3] = f64::NAN, none());
    assert!(text.contains("1 of 5 angles are not finite"), "{text}");
    let text = case(&|m| m.keys.fill(1.0), none());
    assert!(text.contains("none of 10 frames as a projection"), "{text}");
    let text = case(
        &|_| {},
        InputConfig {
            angles: Some("0:180:6".into()),
            ..none()
        },
    );
    assert!(
        text.contains("5 projections among 10 frames, found 6 angles")
            && text.contains("COUNT must be 5"),
        "{text}"
    );
    let text = case(
        &|_| {},
        InputConfig {
            exclude: vec![5],
            ..none()
        },
    );
    assert!(text.contains("input.exclude = 5"), "{text}");
    let text = case(
        &|_| {},
        InputConfig {
            exclude: (0..5).collect(),
            ..none()
        },
    );
    assert!(text.contains("at least one projection"), "{text}");
    let text = case(
        &|_| {},
        InputConfig {
            detector: Some("pco".into()),
            ..none()
        },
    );
    assert!(
        text.contains("input.detector = pco") && text.contains("/entry/instrument/camera"),
        "{text}"
    );
    let text = case(
        &|_| {},
        InputConfig {
            flats: Some("/entry/nothing".into()),
            ..none()
        },
    );
    assert!(
        text.contains("/entry/nothing") && text.contains("does not exist"),
        "{text}"
    );
    assert!(
        error_of(open_scan(
            &write(temp.path(), &made(), |_| {}),
            &none(),
            Some(-1.0)
        ))
        .contains("pixel_size_um")
    );
}

#[test]
fn of_several_detectors_one_has_to_be_chosen() {
    let temp = tempfile::tempdir().unwrap();
    let path = write(temp.path(), &made(), |file| {
        let group = file.create_group("entry/instrument/second");
        let group = group.unwrap_or_else(|_| {
            file.root_group()
                .create_group("entry2")
                .unwrap()
                .create_group("instrument")
                .unwrap()
        });
        group
            .new_dataset::<u16>()
            .shape([10, 1, 1])
            .create("data")
            .unwrap()
            .write_raw(&[3u16; 10])
            .unwrap();
        group
            .new_dataset::<f64>()
            .shape([10])
            .create("image_key")
            .unwrap()
            .write_raw(&made().keys)
            .unwrap();
    });
    let text = error_of(open(&path));
    assert!(
        text.contains("several detectors") && text.contains("input.detector"),
        "{text}"
    );
    let chosen = InputConfig {
        detector: Some("camera".into()),
        ..Default::default()
    };
    assert_eq!(open_scan(&path, &chosen, None).unwrap().n_cols(), 3);
}

#[test]
fn datasets_anywhere_are_read_when_they_are_named() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("own.h5");
    let file = H5File::create(&path).unwrap();
    file.new_dataset::<f32>()
        .shape([3, 2, 2])
        .create("views")
        .unwrap()
        .write_raw(&[2f32; 12])
        .unwrap();
    file.new_dataset::<f32>()
        .shape([2, 2])
        .create("dark")
        .unwrap()
        .write_raw(&[1f32; 4])
        .unwrap();
    file.new_dataset::<f32>()
        .shape([2, 3])
        .create("narrow")
        .unwrap()
        .write_raw(&[1f32; 6])
        .unwrap();
    file.close().unwrap();
    let other = H5File::create(temp.path().join("flats.h5")).unwrap();
    other
        .new_dataset::<u16>()
        .shape([4, 2, 2])
        .create("f")
        .unwrap()
        .write_raw(&[9u16; 16])
        .unwrap();
    other
        .new_dataset::<f64>()
        .shape([3])
        .create("a")
        .unwrap()
        .write_raw(&[0f64, 1.5, 3.1])
        .unwrap();
    other.close().unwrap();
    let text = error_of(open(&path));
    assert!(
        text.contains("/views (3 x 2 x 2, f32)") && text.contains("--data"),
        "{text}"
    );
    let input = InputConfig {
        data: Some("/views".into()),
        flats: Some("flats.h5:/f".into()),
        darks: Some("/dark".into()),
        angles: Some("flats.h5:/a".into()),
        ..Default::default()
    };
    let scan = open_scan(&path, &input, None).unwrap();
    assert_eq!(
        (scan.layout.as_str(), scan.n_angles(), scan.angles_rad[2]),
        ("HDF5", 3, 3.1)
    );
    assert_eq!(
        (
            scan.flat_groups[0].frames.len(),
            scan.dark_groups[0].frames.len()
        ),
        (4, 1)
    );
    assert_eq!(frame(&**scan.flats.as_ref().unwrap(), 3), [9.0; 4]);
    assert!(
        scan.angle_source.contains("radians (inferred"),
        "{}",
        scan.angle_source
    );
    assert_eq!(scan.files.len(), 2);
    let narrow = InputConfig {
        darks: Some("/narrow".into()),
        ..input.clone()
    };
    assert!(error_of(open_scan(&path, &narrow, None)).contains("expected [2, 2], found [2, 3]"));
    let unmeasured = InputConfig {
        angles: None,
        ..input
    };
    assert!(error_of(open_scan(&path, &unmeasured, None)).contains("--angles"));
}

#[test]
fn what_is_no_scan_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = temp.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        error_of(open(&path))
    };
    assert!(file("empty.h5", b"").contains("empty"));
    assert!(file("text.h5", b"hello").contains("neither"));
    assert!(file("a.npy", b"\x93NUMPY").contains("reconstruct"));
    assert!(file("bad.tif", b"II*\0").contains("TIFF"));
    assert!(error_of(open(&temp.path().join("nowhere"))).contains("nowhere"));
    let empty = temp.path().join("folder");
    std::fs::create_dir(&empty).unwrap();
    assert!(error_of(open(&empty)).contains("no TIFF files"));
}

#[test]
fn monitor_readings_follow_the_frames_or_the_projections() {
    let temp = tempfile::tempdir().unwrap();
    let path = write(temp.path(), &made(), |_| {});
    let with = |n: usize, exclude: Vec<usize>| {
        let readings: Vec<String> = (0..n).map(|k| format!("{}", 300 + k)).collect();
        std::fs::write(temp.path().join("current.txt"), readings.join("\n")).unwrap();
        let input = InputConfig {
            monitor: Some("current.txt".into()),
            exclude,
            ..Default::default()
        };
        open_scan(&path, &input, None)
    };
    // ten frames: projections 2, 3, 4, 6, 7, flats 1, 5, 9
    let monitor = with(10, vec![1]).unwrap().monitor.unwrap();
    assert_eq!(monitor.projections, [302.0, 304.0, 306.0, 307.0]);
    assert_eq!(monitor.flats, Some(vec![301.0, 305.0, 309.0]));
    let monitor = with(5, Vec::new()).unwrap().monitor.unwrap();
    assert_eq!(monitor.projections, [300.0, 301.0, 302.0, 303.0, 304.0]);
    assert_eq!(monitor.flats, None);
    let text = error_of(with(7, Vec::new()));
    assert!(
        text.contains("found 7") && text.contains("input.monitor"),
        "{text}"
    );
}
