//! Scans of real instruments; their numbers come from h5py, numpy and tifffile.

use rust_hdf5::H5File;

use super::*;

/// The 91 angles of the projections, cut from the 111 lines as the data's own notes say.
fn angles_of_24737(folder: &Path) -> String {
    let text = std::fs::read_to_string(shared("i13_24737/tiff/angles.txt").unwrap()).unwrap();
    let lines: Vec<&str> = text.lines().skip(10).take(91).collect();
    let path = folder.join("cut.txt");
    std::fs::write(&path, lines.join("\n")).unwrap();
    path.display().to_string()
}

#[test]
fn the_same_scan_as_nxtomo_and_as_tiff_gives_identical_frames() {
    let (Some(nxs), Some(folder)) = (shared("i13_24737/24737.nxs"), shared("i13_24737/tiff"))
    else {
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let a = open(&nxs).unwrap();
    let input = InputConfig {
        angles: Some(angles_of_24737(temp.path())),
        angle_unit: Some(AngleUnit::Degrees),
        ..Default::default()
    };
    let b = open_scan(&folder, &input, Some(1.5)).unwrap();
    assert_eq!(
        (a.layout.as_str(), b.layout.as_str()),
        ("NXtomo", "TIFF folder")
    );
    assert_eq!((a.n_angles(), a.n_rows(), a.n_cols()), (91, 135, 160));
    assert_eq!((a.pixel_size_um, b.pixel_size_um), (None, Some(1.5)));
    assert!(
        (a.angles_rad[0].to_degrees() + 88.2).abs() < 1e-9
            && a.angle_source.contains("units = degrees")
    );
    for (x, y) in a.angles_rad.iter().zip(&b.angles_rad) {
        assert!((x - y).abs() < 1e-9);
    }
    assert_eq!(a.projection_frames, (2..93).collect::<Vec<_>>());
    for (i, (&x, &y)) in a
        .projection_frames
        .iter()
        .zip(&b.projection_frames)
        .enumerate()
    {
        assert!(
            frame(&*a.projections, x) == frame(&*b.projections, y),
            "projection {i}"
        );
    }
    assert!(
        frame(&*a.projections, 2) != frame(&*a.projections, 3),
        "the comparison is blind"
    );
    for (x, y, gx, gy) in [
        (&a.flats, &b.flats, &a.flat_groups, &b.flat_groups),
        (&a.darks, &b.darks, &a.dark_groups, &b.dark_groups),
    ] {
        assert_eq!(
            (gx.len(), gy.len(), gx[0].at_projection, gy[0].at_projection),
            (1, 1, 0.0, 0.0)
        );
        let (x, y) = (x.as_ref().unwrap(), y.as_ref().unwrap());
        assert!(frame(&**x, gx[0].frames[0]) == frame(&**y, gy[0].frames[0]));
    }
    // The flats are f32, the projections u16.
    assert_eq!(
        b.flats.as_ref().unwrap().pixel_type(),
        crate::scan::PixelType::F32
    );
    let mut rows = vec![f32::NAN; 7 * 160 * 2];
    a.projections.read(&[40, 12], 100..107, &mut rows).unwrap();
    assert!(rows[..7 * 160] == frame(&*a.projections, 40)[100 * 160..107 * 160]);
}

#[test]
fn a_list_of_111_angles_for_91_images_is_refused_with_both_counts_and_the_way_out() {
    let Some(folder) = shared("i13_24737/tiff") else {
        return;
    };
    let text = error_of(open(&folder));
    for part in [
        "91 projections",
        "111 angles",
        "angles.txt",
        "START:STOP:91",
        "cut the list",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_truncated_file_is_an_error_at_every_length() {
    let Some(nxs) = shared("i13_24737/24737.nxs") else {
        return;
    };
    let bytes = std::fs::read(nxs).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("cut.nxs");
    for part in 0..40 {
        let len = (bytes.len() - 1) * part / 39;
        std::fs::write(&path, &bytes[..len]).unwrap();
        let text = error_of(open(&path));
        assert!(text.contains("cut.nxs"), "{len}: {text}");
        assert!(len < 100 || text.contains("truncated"), "{len}: {text}");
    }
    std::fs::write(&path, &bytes).unwrap();
    open(&path).unwrap();
}

#[test]
fn k11_reads_through_its_links_past_the_wrong_detector_and_the_dangling_ones() {
    let Some(path) = shared("k11_diad_nexus/k11-18014.nxs") else {
        return;
    };
    let scan = open(&path).unwrap();
    assert_eq!(
        (scan.n_angles(), scan.n_rows(), scan.n_cols()),
        (3001, 22, 26)
    );
    // Values read with h5py.
    assert_eq!(
        (scan.projection_frames[0], scan.projection_frames[3000]),
        (100, 3100)
    );
    for (i, deg) in [
        (0, 89.99511003711643),
        (1500, 179.99847135660414),
        (3000, 269.99462809348137),
    ] {
        assert!((scan.angles_rad[i].to_degrees() - deg).abs() < 1e-9);
    }
    assert_eq!(
        frame(&*scan.projections, 100)[3 * 26 + 4..][..4],
        [40156., 32522., 31924., 31817.]
    );
    assert_eq!(
        frame(&*scan.projections, 3100)[21 * 26 + 22..],
        [38755., 40170., 37967., 37259.]
    );
    assert_eq!(
        frame(&*scan.projections, 1600)
            .iter()
            .map(|&v| f64::from(v))
            .sum::<f64>(),
        17141072.0
    );
    let times = |groups: &[crate::scan::FrameGroup]| {
        groups
            .iter()
            .map(|g| (g.frames.len(), g.at_projection))
            .collect::<Vec<_>>()
    };
    assert_eq!(times(&scan.flat_groups), [(50, 0.0), (50, 3001.0)]);
    assert_eq!(times(&scan.dark_groups), [(50, 0.0), (50, 3001.0)]);
    assert_eq!(
        (
            scan.flat_groups[1].frames[0],
            scan.dark_groups[1].frames[49]
        ),
        (3101, 3200)
    );
    assert!(
        scan.files.len() >= 3
            && scan
                .angle_source
                .contains("gts_theta_value, degrees (inferred"),
        "{}",
        scan.angle_source
    );
    assert!(scan.warnings.iter().any(|w| w.contains("lead nowhere")));
    // All frames at once and one by one are the same.
    let all: Vec<usize> = (0..3201).collect();
    let mut out = vec![f32::NAN; 3201 * 3 * 26];
    scan.projections.read(&all, 4..7, &mut out).unwrap();
    assert_eq!(
        out[1600 * 78..1601 * 78],
        frame(&*scan.projections, 1600)[4 * 26..7 * 26]
    );
    let wrong = InputConfig {
        detector: Some("EtherCAT".into()),
        ..Default::default()
    };
    let text = error_of(open_scan(&path, &wrong, None));
    assert!(
        text.contains("k11-18014-EtherCAT.h5, and that file is missing"),
        "{text}"
    );
}

#[test]
fn k11_with_a_lost_or_truncated_image_file_is_an_error() {
    let Some(path) = shared("k11_diad_nexus") else {
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("k11-18014")).unwrap();
    let copy = temp.path().join("k11-18014.nxs");
    std::fs::copy(path.join("k11-18014.nxs"), &copy).unwrap();
    let panda = "k11-18014/k11-18014-pcompPanda.h5";
    std::fs::copy(path.join(panda), temp.path().join(panda)).unwrap();
    assert!(error_of(open(&copy)).contains("is missing"));
    let images = "k11-18014/k11-18014-imaging.h5";
    let bytes = std::fs::read(path.join(images)).unwrap();
    std::fs::write(temp.path().join(images), &bytes[..bytes.len() / 2]).unwrap();
    let text = error_of(open(&copy));
    assert!(
        text.contains("truncated") && text.contains("imaging.h5"),
        "{text}"
    );
}

#[test]
fn the_tooth_reads_as_dxchange() {
    let Some(path) = shared("tooth_dxchange/tooth.h5") else {
        return;
    };
    let scan = open(&path).unwrap();
    assert_eq!(
        (scan.layout.as_str(), scan.projections.shape()),
        ("DXchange", [181, 2, 640])
    );
    // Values read with h5py.
    assert_eq!(
        frame(&*scan.projections, 100)[640 + 300..][..3],
        [10425.75, 10286.25, 10422.5]
    );
    assert_eq!(frame(&**scan.flats.as_ref().unwrap(), 3)[5], 28143.25);
    assert_eq!(frame(&**scan.darks.as_ref().unwrap(), 9)[640 + 639], 101.25);
    assert!((scan.angles_rad[180].to_degrees() - 179.00552486187846).abs() < 1e-9);
    assert_eq!(
        (
            scan.flat_groups[0].frames.len(),
            scan.dark_groups[0].frames.len()
        ),
        (10, 10)
    );
}

#[test]
fn the_neutron_rods_read_from_their_folders() {
    let Some(path) = shared("neutron_rods_tiff") else {
        return;
    };
    let scan = open(&path).unwrap();
    assert_eq!(scan.projections.shape(), [376, 24, 835]);
    assert_eq!(
        (
            scan.flat_groups[0].frames.len(),
            scan.dark_groups[0].frames.len()
        ),
        (10, 10)
    );
    assert!(
        scan.angle_source
            .contains("angles_deg.txt, degrees (its name says so)"),
        "{}",
        scan.angle_source
    );
    assert!((scan.angles_rad[375] - std::f64::consts::TAU).abs() < 1e-9);
    // Big-endian; values read with tifffile.
    let last = frame(&*scan.projections, 375);
    assert_eq!(last[23 * 835 + 830..], [1691., 1666., 1665., 1644., 1583.]);
    assert_eq!(last.iter().map(|&v| f64::from(v)).sum::<f64>(), 27398597.0);
    assert!(
        scan.warnings
            .iter()
            .any(|w| w.contains("blackbody_open, blackbody_sample are left out")),
        "{:?}",
        scan.warnings
    );
    assert_eq!(scan.projections.decoded_bytes(3..5), 2 * 835 * 2);
}

#[test]
fn scans_without_their_images_say_which_file_is_missing() {
    for (name, missing) in [
        ("112482.nxs", "pco1-112482.hdf"),
        ("24888.nxs", "pco1-24888.hdf"),
    ] {
        let Some(path) = shared(&format!("diamond_headers_dangling/{name}")) else {
            return;
        };
        let text = error_of(open(&path));
        assert!(text.contains(missing) && text.contains("missing"), "{text}");
    }
}

#[test]
fn the_headers_of_diamond_scans_read_once_their_images_are_there() {
    // Images made here, put where the dangling links point: angles, keys and the odd metadata are real.
    for (name, link, inner, n, frames, angles, groups) in [
        (
            "112482.nxs",
            "pco1-112482.hdf",
            "entry/instrument/detector",
            3751,
            3601,
            (0.0, 360.015),
            2,
        ),
        (
            "24888.nxs",
            "pco1-24888.hdf",
            "entry/instrument/detector",
            111,
            91,
            (-89.1, 90.9),
            2,
        ),
    ] {
        let Some(path) = shared(&format!("diamond_headers_dangling/{name}")) else {
            return;
        };
        let temp = tempfile::tempdir().unwrap();
        let copy = temp.path().join(name);
        std::fs::copy(path, &copy).unwrap();
        let file = H5File::create(temp.path().join(link)).unwrap();
        let mut group = file.root_group();
        for part in inner.split('/') {
            group = group.create_group(part).unwrap();
        }
        group
            .new_dataset::<u16>()
            .shape([n, 2, 3])
            .create("data")
            .unwrap()
            .write_raw(&vec![7u16; n * 6])
            .unwrap();
        file.close().unwrap();
        let scan = open(&copy).unwrap();
        assert_eq!(scan.n_angles(), frames);
        assert!(
            (scan.angles_rad[0].to_degrees() - angles.0).abs() < 0.01,
            "{}",
            scan.angles_rad[0].to_degrees()
        );
        assert!((scan.angles_rad[frames - 1].to_degrees() - angles.1).abs() < 0.01);
        assert_eq!(scan.flat_groups.len(), groups);
        assert_eq!(scan.pixel_size_um, None);
        assert!(
            scan.warnings
                .iter()
                .any(|w| w.contains("x_pixel_size was not used")),
            "{:?}",
            scan.warnings
        );
    }
}

#[test]
fn inspect_tells_the_known_oddities_of_the_real_scans() {
    let input = InputConfig::default();
    if let Some(path) = shared("neutron_rods_tiff") {
        let summary = inspect::scan(&path, &input, None).unwrap();
        assert!(
            summary
                .problems
                .iter()
                .any(|p| p.contains("repeats the first")),
            "{summary}"
        );
        assert!(
            summary.problems.iter().any(|p| p.contains("off by 0.480")),
            "{summary}"
        );
        // Mean of flats 0, 2, 4, 6 and 9, taken with numpy.
        assert!(
            (summary.flat_counts.as_ref().unwrap().mean - 1627.1716766467066).abs() < 1e-6,
            "{summary}"
        );
        assert!(
            (summary.dark_counts.as_ref().unwrap().mean - 298.0).abs() < 1.0,
            "{summary}"
        );
        let json = serde_json::to_string(&summary).unwrap();
        assert_eq!(
            serde_json::from_str::<inspect::ScanSummary>(&json).unwrap(),
            summary
        );
    }
    if let Some(path) = shared("i13_24737/24737.nxs") {
        let summary = inspect::scan(&path, &input, None).unwrap();
        // Pixel (0, 0) is 0 in the only flat.
        assert_eq!(summary.flat_counts.as_ref().unwrap().n_zero, 1);
        assert!(
            summary
                .problems
                .iter()
                .any(|p| p.contains("flats are zero")),
            "{summary}"
        );
        assert!(
            (summary.angles.step_deg - 2.0).abs() < 1e-3
                && summary
                    .to_string()
                    .contains("91 of 135 rows x 160 columns, u16")
        );
    }
}
