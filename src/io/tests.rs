//! Scans of real instruments and made ones, through the door.

use std::path::{Path, PathBuf};

use rust_hdf5::H5File;
use tiff::encoder::{TiffEncoder, colortype};

use super::*;
use crate::config::AngleUnit;

/// A real file, where the shared folder is there.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.exists() {
        eprintln!("SKIPPED: {} is not here", path.display());
        return None;
    }
    Some(path)
}

fn open(path: &Path) -> Result<Scan> {
    open_scan(path, &InputConfig::default(), None)
}

fn error_of(result: Result<Scan>) -> String {
    let text = result.err().expect("this must be an error").to_string();
    assert!(!text.contains('\n') && text.len() < 900, "not one sentence: {text}");
    text
}

fn frame(stack: &dyn crate::scan::FrameStack, frame: usize) -> Vec<f32> {
    let [_, rows, cols] = stack.shape();
    let mut out = vec![f32::NAN; rows * cols];
    stack.read(&[frame], 0..rows, &mut out).unwrap();
    out
}

mod real {
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
        let (Some(nxs), Some(folder)) = (shared("i13_24737/24737.nxs"), shared("i13_24737/tiff")) else { return };
        let temp = tempfile::tempdir().unwrap();
        let a = open(&nxs).unwrap();
        let input = InputConfig { angles: Some(angles_of_24737(temp.path())), angle_unit: Some(AngleUnit::Degrees), ..Default::default() };
        let b = open_scan(&folder, &input, Some(1.5)).unwrap();
        assert_eq!((a.layout.as_str(), b.layout.as_str()), ("NXtomo", "TIFF folder"));
        assert_eq!((a.n_angles(), a.n_rows(), a.n_cols()), (91, 135, 160));
        assert_eq!((a.pixel_size_um, b.pixel_size_um), (None, Some(1.5)));
        assert!((a.angles_rad[0].to_degrees() + 88.2).abs() < 1e-9 && a.angle_source.contains("units = degrees"));
        for (x, y) in a.angles_rad.iter().zip(&b.angles_rad) {
            assert!((x - y).abs() < 1e-9);
        }
        assert_eq!(a.projection_frames, (2..93).collect::<Vec<_>>());
        for (i, (&x, &y)) in a.projection_frames.iter().zip(&b.projection_frames).enumerate() {
            assert!(frame(&*a.projections, x) == frame(&*b.projections, y), "projection {i}");
        }
        assert!(frame(&*a.projections, 2) != frame(&*a.projections, 3), "the comparison is blind");
        for (x, y, gx, gy) in [
            (&a.flats, &b.flats, &a.flat_groups, &b.flat_groups),
            (&a.darks, &b.darks, &a.dark_groups, &b.dark_groups),
        ] {
            assert_eq!((gx.len(), gy.len(), gx[0].at_projection, gy[0].at_projection), (1, 1, 0.0, 0.0));
            let (x, y) = (x.as_ref().unwrap(), y.as_ref().unwrap());
            assert!(frame(&**x, gx[0].frames[0]) == frame(&**y, gy[0].frames[0]));
        }
        // The flats are f32, the projections u16.
        assert_eq!(b.flats.as_ref().unwrap().pixel_type(), crate::scan::PixelType::F32);
        let mut rows = vec![f32::NAN; 7 * 160 * 2];
        a.projections.read(&[40, 12], 100..107, &mut rows).unwrap();
        assert!(rows[..7 * 160] == frame(&*a.projections, 40)[100 * 160..107 * 160]);
    }

    #[test]
    fn a_list_of_111_angles_for_91_images_is_refused_with_both_counts_and_the_way_out() {
        let Some(folder) = shared("i13_24737/tiff") else { return };
        let text = error_of(open(&folder));
        for part in ["91 projections", "111 angles", "angles.txt", "START:STOP:91", "cut the list"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_truncated_file_is_an_error_at_every_length() {
        let Some(nxs) = shared("i13_24737/24737.nxs") else { return };
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
        let Some(path) = shared("k11_diad_nexus/k11-18014.nxs") else { return };
        let scan = open(&path).unwrap();
        assert_eq!((scan.n_angles(), scan.n_rows(), scan.n_cols()), (3001, 22, 26));
        // Values read with h5py.
        assert_eq!((scan.projection_frames[0], scan.projection_frames[3000]), (100, 3100));
        for (i, deg) in [(0, 89.99511003711643), (1500, 179.99847135660414), (3000, 269.99462809348137)] {
            assert!((scan.angles_rad[i].to_degrees() - deg).abs() < 1e-9);
        }
        assert_eq!(frame(&*scan.projections, 100)[3 * 26 + 4..][..4], [40156., 32522., 31924., 31817.]);
        assert_eq!(frame(&*scan.projections, 3100)[21 * 26 + 22..], [38755., 40170., 37967., 37259.]);
        assert_eq!(frame(&*scan.projections, 1600).iter().map(|&v| f64::from(v)).sum::<f64>(), 17141072.0);
        let times = |groups: &[crate::scan::FrameGroup]| groups.iter().map(|g| (g.frames.len(), g.at_projection)).collect::<Vec<_>>();
        assert_eq!(times(&scan.flat_groups), [(50, 0.0), (50, 3001.0)]);
        assert_eq!(times(&scan.dark_groups), [(50, 0.0), (50, 3001.0)]);
        assert_eq!((scan.flat_groups[1].frames[0], scan.dark_groups[1].frames[49]), (3101, 3200));
        assert!(scan.files.len() >= 3 && scan.angle_source.contains("gts_theta_value, degrees (inferred"), "{}", scan.angle_source);
        assert!(scan.warnings.iter().any(|w| w.contains("lead nowhere")));
        // All frames at once and one by one are the same.
        let all: Vec<usize> = (0..3201).collect();
        let mut out = vec![f32::NAN; 3201 * 3 * 26];
        scan.projections.read(&all, 4..7, &mut out).unwrap();
        assert_eq!(out[1600 * 78..1601 * 78], frame(&*scan.projections, 1600)[4 * 26..7 * 26]);
        let wrong = InputConfig { detector: Some("EtherCAT".into()), ..Default::default() };
        let text = error_of(open_scan(&path, &wrong, None));
        assert!(text.contains("k11-18014-EtherCAT.h5, and that file is missing"), "{text}");
    }

    #[test]
    fn k11_with_a_lost_or_truncated_image_file_is_an_error() {
        let Some(path) = shared("k11_diad_nexus") else { return };
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
        assert!(text.contains("truncated") && text.contains("imaging.h5"), "{text}");
    }

    #[test]
    fn the_tooth_reads_as_dxchange() {
        let Some(path) = shared("tooth_dxchange/tooth.h5") else { return };
        let scan = open(&path).unwrap();
        assert_eq!((scan.layout.as_str(), scan.projections.shape()), ("DXchange", [181, 2, 640]));
        // Values read with h5py.
        assert_eq!(frame(&*scan.projections, 100)[640 + 300..][..3], [10425.75, 10286.25, 10422.5]);
        assert_eq!(frame(&**scan.flats.as_ref().unwrap(), 3)[5], 28143.25);
        assert_eq!(frame(&**scan.darks.as_ref().unwrap(), 9)[640 + 639], 101.25);
        assert!((scan.angles_rad[180].to_degrees() - 179.00552486187846).abs() < 1e-9);
        assert_eq!((scan.flat_groups[0].frames.len(), scan.dark_groups[0].frames.len()), (10, 10));
    }

    #[test]
    fn the_neutron_rods_read_from_their_folders() {
        let Some(path) = shared("neutron_rods_tiff") else { return };
        let scan = open(&path).unwrap();
        assert_eq!(scan.projections.shape(), [376, 24, 835]);
        assert_eq!((scan.flat_groups[0].frames.len(), scan.dark_groups[0].frames.len()), (10, 10));
        assert!(scan.angle_source.contains("angles_deg.txt, degrees (its name says so)"), "{}", scan.angle_source);
        assert!((scan.angles_rad[375] - std::f64::consts::TAU).abs() < 1e-9);
        // Big-endian; values read with tifffile.
        let last = frame(&*scan.projections, 375);
        assert_eq!(last[23 * 835 + 830..], [1691., 1666., 1665., 1644., 1583.]);
        assert_eq!(last.iter().map(|&v| f64::from(v)).sum::<f64>(), 27398597.0);
        assert!(scan.warnings.iter().any(|w| w.contains("blackbody_open, blackbody_sample are left out")), "{:?}", scan.warnings);
        assert_eq!(scan.projections.decoded_bytes(3..5), 2 * 835 * 2);
    }

    #[test]
    fn scans_without_their_images_say_which_file_is_missing() {
        for (name, missing) in [("112482.nxs", "pco1-112482.hdf"), ("24888.nxs", "pco1-24888.hdf")] {
            let Some(path) = shared(&format!("diamond_headers_dangling/{name}")) else { return };
            let text = error_of(open(&path));
            assert!(text.contains(missing) && text.contains("missing"), "{text}");
        }
    }

    #[test]
    fn the_headers_of_diamond_scans_read_once_their_images_are_there() {
        // Images made here, put where the dangling links point: angles, keys and the odd metadata are real.
        for (name, link, inner, n, frames, angles, groups) in [
            ("112482.nxs", "pco1-112482.hdf", "entry/instrument/detector", 3751, 3601, (0.0, 360.015), 2),
            ("24888.nxs", "pco1-24888.hdf", "entry/instrument/detector", 111, 91, (-89.1, 90.9), 2),
        ] {
            let Some(path) = shared(&format!("diamond_headers_dangling/{name}")) else { return };
            let temp = tempfile::tempdir().unwrap();
            let copy = temp.path().join(name);
            std::fs::copy(path, &copy).unwrap();
            let file = H5File::create(temp.path().join(link)).unwrap();
            let mut group = file.root_group();
            for part in inner.split('/') {
                group = group.create_group(part).unwrap();
            }
            group.new_dataset::<u16>().shape([n, 2, 3]).create("data").unwrap().write_raw(&vec![7u16; n * 6]).unwrap();
            file.close().unwrap();
            let scan = open(&copy).unwrap();
            assert_eq!(scan.n_angles(), frames);
            assert!((scan.angles_rad[0].to_degrees() - angles.0).abs() < 0.01, "{}", scan.angles_rad[0].to_degrees());
            assert!((scan.angles_rad[frames - 1].to_degrees() - angles.1).abs() < 0.01);
            assert_eq!(scan.flat_groups.len(), groups);
            assert_eq!(scan.pixel_size_um, None);
            assert!(scan.warnings.iter().any(|w| w.contains("x_pixel_size was not used")), "{:?}", scan.warnings);
        }
    }

    #[test]
    fn inspect_tells_the_known_oddities_of_the_real_scans() {
        let input = InputConfig::default();
        if let Some(path) = shared("neutron_rods_tiff") {
            let summary = inspect::scan(&path, &input, None).unwrap();
            assert!(summary.problems.iter().any(|p| p.contains("repeats the first")), "{summary}");
            assert!(summary.problems.iter().any(|p| p.contains("off by 0.480")), "{summary}");
            // Mean of flats 0, 2, 4, 6 and 9, taken with numpy.
            assert!((summary.flat_counts.as_ref().unwrap().mean - 1627.1716766467066).abs() < 1e-6, "{summary}");
            assert!((summary.dark_counts.as_ref().unwrap().mean - 298.0).abs() < 1.0, "{summary}");
            let json = serde_json::to_string(&summary).unwrap();
            assert_eq!(serde_json::from_str::<inspect::ScanSummary>(&json).unwrap(), summary);
        }
        if let Some(path) = shared("i13_24737/24737.nxs") {
            let summary = inspect::scan(&path, &input, None).unwrap();
            // Pixel (0, 0) is 0 in the only flat.
            assert_eq!(summary.flat_counts.as_ref().unwrap().n_zero, 1);
            assert!(summary.problems.iter().any(|p| p.contains("flats are zero")), "{summary}");
            assert!((summary.angles.step_deg - 2.0).abs() < 1e-3 && summary.to_string().contains("91 of 135 rows x 160 columns, u16"));
        }
    }
}

mod made {
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
        Made { frames: 10, keys, angles }
    }

    fn write(folder: &Path, made: &Made, also: impl FnOnce(&H5File)) -> PathBuf {
        let path = folder.join("scan.nxs");
        let file = H5File::create(&path).unwrap();
        let entry = file.create_group("entry").unwrap();
        let detector = entry.create_group("instrument").unwrap().create_group("camera").unwrap();
        let counts: Vec<u16> = (0..made.frames * 6).map(|i| i as u16 + 1).collect();
        detector.new_dataset::<u16>().shape([made.frames, 2, 3]).create("data").unwrap().write_raw(&counts).unwrap();
        detector.new_dataset::<f64>().shape([made.keys.len()]).create("image_key").unwrap().write_raw(&made.keys).unwrap();
        let size = detector.new_dataset::<f64>().shape([1]).create("x_pixel_size").unwrap();
        size.write_raw(&[1.3f64]).unwrap();
        let units = size.new_attr::<rust_hdf5::VarLenUnicode>().shape(()).create("units").unwrap();
        units.write_string("\u{b5}m").unwrap();
        let sample = entry.create_group("sample").unwrap();
        sample.new_dataset::<f64>().shape([made.angles.len()]).create("rotation_angle").unwrap().write_raw(&made.angles).unwrap();
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
        let flats: Vec<_> = scan.flat_groups.iter().map(|g| (g.frames.clone(), g.at_projection)).collect();
        assert_eq!(flats, [(vec![1], 0.0), (vec![5], 3.0), (vec![9], 5.0)]);
        assert_eq!(scan.dark_groups[0].frames, [0]);
        assert_eq!(scan.pixel_size_um, Some(1.3));
        assert!((scan.angles_rad[4] - std::f64::consts::PI).abs() < 1e-12);
        assert!(scan.warnings.iter().any(|w| w.contains("1 frames with an image key other than")));
        let input = InputConfig { exclude: vec![0, 3], ..Default::default() };
        let less = open_scan(&path, &input, Some(0.65)).unwrap();
        assert_eq!(less.projection_frames, [3, 4, 7]);
        assert_eq!(less.pixel_size_um, Some(0.65));
        assert_eq!(less.flat_groups.iter().map(|g| g.at_projection).collect::<Vec<_>>(), [0.0, 2.0, 3.0]);
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
        assert!(text.contains("9 values") && text.contains("10 frames"), "{text}");
        let text = case(&|m| m.angles.truncate(8), none());
        assert!(text.contains("no angles were found"), "{text}");
        let text = case(&|m| m.angles[3] = f64::NAN, none());
        assert!(text.contains("1 of 5 angles are not finite"), "{text}");
        let text = case(&|m| m.keys.fill(1.0), none());
        assert!(text.contains("none of 10 frames as a projection"), "{text}");
        let text = case(&|_| {}, InputConfig { angles: Some("0:180:6".into()), ..none() });
        assert!(text.contains("5 projections among 10 frames, found 6 angles") && text.contains("COUNT must be 5"), "{text}");
        let text = case(&|_| {}, InputConfig { exclude: vec![5], ..none() });
        assert!(text.contains("input.exclude = 5"), "{text}");
        let text = case(&|_| {}, InputConfig { exclude: (0..5).collect(), ..none() });
        assert!(text.contains("at least one projection"), "{text}");
        let text = case(&|_| {}, InputConfig { detector: Some("pco".into()), ..none() });
        assert!(text.contains("input.detector = pco") && text.contains("/entry/instrument/camera"), "{text}");
        let text = case(&|_| {}, InputConfig { flats: Some("/entry/nothing".into()), ..none() });
        assert!(text.contains("/entry/nothing") && text.contains("does not exist"), "{text}");
        assert!(error_of(open_scan(&write(temp.path(), &made(), |_| {}), &none(), Some(-1.0))).contains("pixel_size_um"));
    }

    #[test]
    fn of_several_detectors_one_has_to_be_chosen() {
        let temp = tempfile::tempdir().unwrap();
        let path = write(temp.path(), &made(), |file| {
            let group = file.create_group("entry/instrument/second");
            let group = group.unwrap_or_else(|_| file.root_group().create_group("entry2").unwrap().create_group("instrument").unwrap());
            group.new_dataset::<u16>().shape([10, 1, 1]).create("data").unwrap().write_raw(&[3u16; 10]).unwrap();
            group.new_dataset::<f64>().shape([10]).create("image_key").unwrap().write_raw(&made().keys).unwrap();
        });
        let text = error_of(open(&path));
        assert!(text.contains("several detectors") && text.contains("input.detector"), "{text}");
        let chosen = InputConfig { detector: Some("camera".into()), ..Default::default() };
        assert_eq!(open_scan(&path, &chosen, None).unwrap().n_cols(), 3);
    }

    #[test]
    fn datasets_anywhere_are_read_when_they_are_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("own.h5");
        let file = H5File::create(&path).unwrap();
        file.new_dataset::<f32>().shape([3, 2, 2]).create("views").unwrap().write_raw(&[2f32; 12]).unwrap();
        file.new_dataset::<f32>().shape([2, 2]).create("dark").unwrap().write_raw(&[1f32; 4]).unwrap();
        file.new_dataset::<f32>().shape([2, 3]).create("narrow").unwrap().write_raw(&[1f32; 6]).unwrap();
        file.close().unwrap();
        let other = H5File::create(temp.path().join("flats.h5")).unwrap();
        other.new_dataset::<u16>().shape([4, 2, 2]).create("f").unwrap().write_raw(&[9u16; 16]).unwrap();
        other.new_dataset::<f64>().shape([3]).create("a").unwrap().write_raw(&[0f64, 1.5, 3.1]).unwrap();
        other.close().unwrap();
        let text = error_of(open(&path));
        assert!(text.contains("/views (3 x 2 x 2, f32)") && text.contains("--data"), "{text}");
        let input = InputConfig {
            data: Some("/views".into()),
            flats: Some("flats.h5:/f".into()),
            darks: Some("/dark".into()),
            angles: Some("flats.h5:/a".into()),
            ..Default::default()
        };
        let scan = open_scan(&path, &input, None).unwrap();
        assert_eq!((scan.layout.as_str(), scan.n_angles(), scan.angles_rad[2]), ("HDF5", 3, 3.1));
        assert_eq!((scan.flat_groups[0].frames.len(), scan.dark_groups[0].frames.len()), (4, 1));
        assert_eq!(frame(&**scan.flats.as_ref().unwrap(), 3), [9.0; 4]);
        assert!(scan.angle_source.contains("radians (inferred"), "{}", scan.angle_source);
        assert_eq!(scan.files.len(), 2);
        let narrow = InputConfig { darks: Some("/narrow".into()), ..input.clone() };
        assert!(error_of(open_scan(&path, &narrow, None)).contains("expected [2, 2], found [2, 3]"));
        let unmeasured = InputConfig { angles: None, ..input };
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
}

mod tiff_files {
    use super::*;

    fn write16(path: &Path, cols: u32, rows: u32, value: impl Fn(u32) -> u16) {
        let counts: Vec<u16> = (0..rows * cols).map(value).collect();
        let mut encoder = TiffEncoder::new(std::fs::File::create(path).unwrap()).unwrap();
        encoder.write_image::<colortype::Gray16>(cols, rows, &counts).unwrap();
    }

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for (i, name) in names.iter().enumerate() {
            std::fs::create_dir_all(temp.path().join(name).parent().unwrap()).unwrap();
            write16(&temp.path().join(name), 4, 3, |k| (i * 100) as u16 + k as u16);
        }
        temp
    }

    fn with_angles(n: usize) -> InputConfig {
        InputConfig { angles: Some(format!("0:180:{n}")), ..Default::default() }
    }

    #[test]
    fn numbers_in_names_count_as_numbers_and_flats_are_found_by_name() {
        let temp = folder(&["s_10.tif", "s_2.tif", "flat_before_1.tif", "flat_after_1.tif", "flat_after_2.tif", "dc_1.tif", "s_1.tif"]);
        let scan = open_scan(temp.path(), &with_angles(3), None).unwrap();
        let firsts: Vec<f32> = (0..3).map(|i| frame(&*scan.projections, i)[0]).collect();
        assert_eq!(firsts, [600.0, 100.0, 0.0]);
        let flats: Vec<_> = scan.flat_groups.iter().map(|g| (g.frames.clone(), g.at_projection)).collect();
        assert_eq!(flats, [(vec![0], 0.0), (vec![1, 2], 3.0)]);
        assert_eq!(frame(&**scan.flats.as_ref().unwrap(), 2)[0], 400.0);
        assert_eq!(scan.dark_groups[0].frames, [0]);
        let input = InputConfig { data: Some("s_1*.tif".into()), flats: Some("flat_after_1.tif".into()), ..with_angles(2) };
        let scan = open_scan(temp.path(), &input, None).unwrap();
        assert_eq!((scan.n_angles(), scan.flat_groups[0].frames.len()), (2, 1));
    }

    #[test]
    fn subfolders_of_usual_names_are_found_and_the_angles_beside_them() {
        let temp = folder(&["scan/proj/a_1.tif", "scan/proj/a_2.tif", "scan/Flats/x.tif", "scan/dark/y.tif", "scan/notes/z.tif"]);
        std::fs::write(temp.path().join("angles_rad.csv"), "0\n3.14159265\n").unwrap();
        let scan = open(&temp.path().join("scan")).unwrap();
        assert_eq!((scan.n_angles(), scan.flat_groups.len(), scan.dark_groups.len()), (2, 1, 1));
        assert!(scan.angle_source.contains("radians") && scan.warnings.iter().any(|w| w.contains("notes")), "{:?}", scan.warnings);
        std::fs::write(temp.path().join("angles_2.txt"), "0\n1\n").unwrap();
        assert!(error_of(open(&temp.path().join("scan"))).contains("angles_2.txt, angles_rad.csv"));
    }

    #[test]
    fn mixed_sizes_missing_angles_and_folders_of_flats_only_are_told() {
        let temp = folder(&["a_1.tif", "a_2.tif"]);
        assert!(error_of(open(temp.path())).contains("no angles were found"));
        write16(&temp.path().join("a_3.tif"), 5, 3, |k| k as u16);
        let text = error_of(open_scan(temp.path(), &with_angles(3), None));
        assert!(text.contains("a_3.tif") && text.contains("expected [3, 4], found [3, 5]"), "{text}");
        let flats = folder(&["flat_1.tif", "dark_1.tif"]);
        assert!(error_of(open_scan(flats.path(), &with_angles(1), None)).contains("all 2 TIFF files are flats or darks"));
        let wide = folder(&["a_1.tif"]);
        write16(&wide.path().join("flat_1.tif"), 5, 3, |k| k as u16);
        assert!(error_of(open_scan(wide.path(), &with_angles(1), None)).contains("flats"));
    }

    #[test]
    fn a_truncated_tiff_is_an_error_and_never_zeros() {
        let temp = folder(&["a_1.tif", "a_2.tif"]);
        let path = temp.path().join("a_2.tif");
        let bytes = std::fs::read(&path).unwrap();
        for len in (0..bytes.len()).step_by(7) {
            std::fs::write(&path, &bytes[..len]).unwrap();
            let text = error_of(open_scan(temp.path(), &with_angles(2), None));
            assert!(text.contains("a_2.tif"), "{len}: {text}");
        }
    }

    /// A TIFF of one or more grey pages, written byte by byte after the TIFF 6.0 specification.
    fn tiff_bytes(big: bool, format: u16, bits: u16, rows_per_strip: usize, tile: Option<(usize, usize)>, pages: &[Vec<Vec<u8>>], rows: usize, cols: usize) -> Vec<u8> {
        let u16b = |v: u16| if big { v.to_be_bytes() } else { v.to_le_bytes() };
        let u32b = |v: usize| if big { (v as u32).to_be_bytes() } else { (v as u32).to_le_bytes() };
        let mut out = if big { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
        let mut link_at = out.len();
        out.extend(u32b(0));
        for blocks in pages {
            let mut offsets = Vec::new();
            for block in blocks {
                offsets.push(out.len());
                out.extend(block);
                // Strips that do not follow each other at once.
                out.extend([0xAA, 0xAA]);
            }
            let list_at = out.len();
            for &offset in &offsets {
                out.extend(u32b(offset));
            }
            let counts_at = out.len();
            for block in blocks {
                out.extend(u32b(block.len()));
            }
            let n = blocks.len();
            let list = |at: usize, first: usize| if n == 1 { u32b(first) } else { u32b(at) };
            let short = |v: u16| { let b = u16b(v); [b[0], b[1], 0, 0] };
            let mut tags: Vec<(u16, u16, usize, [u8; 4])> = vec![
                (256, 4, 1, u32b(cols)),
                (257, 4, 1, u32b(rows)),
                (258, 3, 1, short(bits)),
                (259, 3, 1, short(1)),
                (262, 3, 1, short(1)),
            ];
            if tile.is_none() {
                tags.push((273, 4, n, list(list_at, offsets[0])));
            }
            tags.push((277, 3, 1, short(1)));
            match tile {
                None => {
                    tags.push((278, 4, 1, u32b(rows_per_strip)));
                    tags.push((279, 4, n, list(counts_at, blocks[0].len())));
                }
                Some((height, width)) => {
                    tags.push((322, 4, 1, u32b(width)));
                    tags.push((323, 4, 1, u32b(height)));
                    tags.push((324, 4, n, list(list_at, offsets[0])));
                    tags.push((325, 4, n, list(counts_at, blocks[0].len())));
                }
            }
            tags.push((339, 3, 1, short(format)));
            let here = out.len();
            out[link_at..link_at + 4].copy_from_slice(&u32b(here));
            out.extend(u16b(tags.len() as u16));
            for (tag, kind, count, value) in tags {
                out.extend(u16b(tag));
                out.extend(u16b(kind));
                out.extend(u32b(count));
                out.extend(value);
            }
            link_at = out.len();
            out.extend(u32b(0));
        }
        out
    }

    fn sample(format: u16, bits: u16, big: bool, value: i32) -> Vec<u8> {
        macro_rules! bytes {
            ($type:ty) => { if big { (value as $type).to_be_bytes().to_vec() } else { (value as $type).to_le_bytes().to_vec() } };
        }
        match (format, bits) {
            (1, 8) => bytes!(u8),
            (1, 16) => bytes!(u16),
            (1, 32) => bytes!(u32),
            (2, 16) => bytes!(i16),
            (2, 32) => bytes!(i32),
            (3, 32) => bytes!(f32),
            _ => bytes!(f64),
        }
    }

    #[test]
    fn every_type_byte_order_strip_height_and_tile_gives_the_same_counts() {
        let (rows, cols) = (19, 21);
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("stack.tif");
        for (format, bits) in [(1, 8), (1, 16), (1, 32), (2, 16), (2, 32), (3, 32), (3, 64)] {
            for big in [false, true] {
                let sign = if format == 1 { 1 } else { -1 };
                let value = |page: usize, row: usize, col: usize| sign * ((page * 90 + row * 7 + col) % 256) as i32;
                for layout in [Some(1), Some(4), Some(19), None] {
                    let pages: Vec<Vec<Vec<u8>>> = (0..2)
                        .map(|page| match layout {
                            Some(height) => (0..rows)
                                .step_by(height)
                                .map(|top| (top..(top + height).min(rows)).flat_map(|row| (0..cols).flat_map(move |col| sample(format, bits, big, value(page, row, col)))).collect())
                                .collect(),
                            None => (0..2)
                                .flat_map(|down| (0..2).map(move |right| (down * 16, right * 16)))
                                .map(|(top, left)| (top..top + 16).flat_map(|row| (left..left + 16).flat_map(move |col| sample(format, bits, big, value(page, row, col)))).collect())
                                .collect(),
                        })
                        .collect();
                    let tile = layout.is_none().then_some((16, 16));
                    std::fs::write(&path, tiff_bytes(big, format, bits, layout.unwrap_or(0), tile, &pages, rows, cols)).unwrap();
                    let scan = open_scan(&path, &with_angles(2), None).unwrap();
                    assert_eq!(scan.layout, "TIFF file");
                    let mut out = vec![f32::NAN; 2 * 9 * cols];
                    scan.projections.read(&[1, 0], 8..17, &mut out).unwrap();
                    for (i, found) in out.iter().enumerate() {
                        let (page, row, col) = (1 - i / (9 * cols), 8 + i / cols % 9, i % cols);
                        assert_eq!(*found, value(page, row, col) as f32, "format {format} {bits} big {big} layout {layout:?} at {page} {row} {col}");
                    }
                }
            }
        }
    }

    #[test]
    fn compressed_strips_and_many_pages_read_as_their_counts() {
        use tiff::encoder::Compression;
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("packed.tif");
        let ways = [("lzw", Compression::Lzw), ("deflate", Compression::Deflate(Default::default())), ("plain", Compression::Uncompressed)];
        for (name, compression) in ways {
            let file = std::fs::File::create(&path).unwrap();
            let mut encoder = TiffEncoder::new(file).unwrap().with_compression(compression);
            for page in 0..5u16 {
                let counts: Vec<u16> = (0..40 * 30).map(|k| page * 2000 + k).collect();
                let mut image = encoder.new_image::<colortype::Gray16>(40, 30).unwrap();
                image.rows_per_strip(7).unwrap();
                image.write_data(&counts).unwrap();
            }
            let scan = open_scan(&path, &with_angles(5), None).unwrap();
            let mut out = vec![f32::NAN; 3 * 9 * 40];
            scan.projections.read(&[4, 0, 2], 6..15, &mut out).unwrap();
            for (i, found) in out.iter().enumerate() {
                let (page, row, col) = ([4, 0, 2][i / 360], 6 + i / 40 % 9, i % 40);
                assert_eq!(*found, (page * 2000 + row * 40 + col) as f32, "{name}");
            }
            let whole = if name == "plain" { 9 * 40 * 2 } else { 21 * 40 * 2 };
            assert_eq!(scan.projections.decoded_bytes(6..15), whole, "{name}");
        }
    }
}
