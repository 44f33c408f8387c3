//! Promises of all formats. The chain of trust: arrays made by a formula, our reader against them bit by bit, and the
//! Zarr library against our shards. (Python's zarr, tifffile, h5py and numpy were compared by hand.)

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::config::VolumeFormat::{self, Hdf5, Npy, Tiff, Zarr};

const FORMATS: [VolumeFormat; 4] = [Zarr, Tiff, Hdf5, Npy];

fn meta(shape: [usize; 3], voxel_type: VoxelType) -> VolumeMeta {
    VolumeMeta {
        shape,
        voxel_type,
        unit: if voxel_type == VoxelType::F32 {
            "1/cm".into()
        } else {
            "label".into()
        },
        voxel_size_um: Some(1.3),
        first_row: 17,
        provenance: serde_json::json!({ "program": "test", "inputs": ["ä.nxs"] }),
    }
}

fn values([nz, ny, nx]: [usize; 3]) -> Array3<f32> {
    let mut values = Array3::from_shape_fn((nz, ny, nx), |(z, y, x)| {
        ((z * 31 + y * 7 + x) as f32 * 0.37).sin() * 1e3
    });
    values[[nz - 1, ny / 2, nx - 1]] = f32::NAN;
    values[[0, 0, 0]] = -0.0;
    values
}

fn labels([nz, ny, nx]: [usize; 3]) -> Array3<u32> {
    Array3::from_shape_fn((nz, ny, nx), |(z, y, x)| {
        ((z * 31 + y * 7 + x) as u32 % 11).saturating_mul(400_000_000)
    })
}

fn write(path: &Path, format: VolumeFormat, meta: &VolumeMeta, values: &Array3<f32>, slab: usize) {
    let mut writer = create(path, format, meta, false).unwrap();
    for z0 in (0..meta.shape[0]).step_by(slab) {
        let z1 = (z0 + slab).min(meta.shape[0]);
        writer
            .write(z0, values.slice(ndarray::s![z0..z1, .., ..]))
            .unwrap();
    }
    writer.finish().unwrap();
}

fn same(a: &Array3<f32>, b: &Array3<f32>) -> bool {
    a.dim() == b.dim() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[test]
fn every_format_gives_back_every_bit_for_any_slab_height() {
    for format in FORMATS {
        for (shape, slab) in [
            ([5, 7, 9], 2),
            ([1, 33, 70], 1),
            ([70, 66, 3], 13),
            ([66, 1, 1], 66),
            ([3, 300, 65], 4),
        ] {
            let scratch = tempfile::tempdir().unwrap();
            let path = scratch.path().join(file_name("volume", format));
            let (expected, meta) = (values(shape), meta(shape, VoxelType::F32));
            write(&path, format, &meta, &expected, slab);
            let reader = open(&path).unwrap();
            assert_eq!(reader.meta(), &meta, "{format:?}");
            assert!(
                same(&reader.read(0..shape[0]).unwrap(), &expected),
                "{format:?} {shape:?}"
            );
            let (a, b) = (shape[0] / 3, shape[0] - shape[0] / 4);
            let part = expected.slice(ndarray::s![a..b, .., ..]).to_owned();
            assert!(
                same(&reader.read(a..b).unwrap(), &part),
                "{format:?} {shape:?} {a}..{b}"
            );
            assert_eq!(reader.read(a..a).unwrap().len(), 0);
            assert!(reader.read(0..shape[0] + 1).is_err() && reader.read_labels(0..1).is_err());
            let mut changed = expected.clone();
            changed[[0, 0, 0]] = 0.0;
            assert!(
                !same(&reader.read(0..shape[0]).unwrap(), &changed),
                "the comparison is blind to the sign of zero"
            );
            assert!(verify(&path).unwrap().is_sound());
        }
    }
}

#[test]
fn every_format_gives_back_labels() {
    for format in FORMATS {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("labels");
        let shape = [67, 13, 70];
        let expected = labels(shape);
        let mut writer = create(&path, format, &meta(shape, VoxelType::U32), false).unwrap();
        assert!(
            writer.write(0, values(shape).view()).is_err(),
            "values in a label volume"
        );
        writer
            .write_labels(0, expected.slice(ndarray::s![0..10, .., ..]))
            .unwrap();
        writer
            .write_labels(10, expected.slice(ndarray::s![10.., .., ..]))
            .unwrap();
        writer.finish().unwrap();
        let reader = open(&path).unwrap();
        assert_eq!(
            reader.read_labels(0..shape[0]).unwrap(),
            expected,
            "{format:?}"
        );
        assert_eq!(
            reader.read(1..2).unwrap()[[0, 0, 0]],
            expected[[1, 0, 0]] as f32
        );
    }
}

#[test]
fn slabs_out_of_order_of_wrong_size_or_missing_are_refused_and_leave_nothing() {
    for format in FORMATS {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join(file_name("volume", format));
        let shape = [4, 5, 6];
        let voxels = values(shape);
        let mut writer = create(&path, format, &meta(shape, VoxelType::F32), false).unwrap();
        assert!(writer.write(1, voxels.view()).is_err());
        assert!(
            writer
                .write(0, voxels.slice(ndarray::s![.., 1.., ..]))
                .is_err()
        );
        writer
            .write(0, voxels.slice(ndarray::s![0..2, .., ..]))
            .unwrap();
        assert!(
            writer
                .write(3, voxels.slice(ndarray::s![3..4, .., ..]))
                .is_err()
        );
        assert!(writer.finish().is_err(), "two slices are missing");
        assert_eq!(
            std::fs::read_dir(scratch.path()).unwrap().count(),
            0,
            "{format:?} left something"
        );
        drop(create(&path, format, &meta(shape, VoxelType::F32), false).unwrap());
        assert_eq!(
            std::fs::read_dir(scratch.path()).unwrap().count(),
            0,
            "{format:?} left something"
        );
        assert!(create(&path, format, &meta([0, 5, 6], VoxelType::F32), false).is_err());
    }
}

#[test]
fn overwrite_replaces_our_volumes_only() {
    for format in FORMATS {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join(file_name("volume", format));
        let (first, second) = ([4, 5, 6], [3, 4, 5]);
        write(
            &path,
            format,
            &meta(first, VoxelType::F32),
            &values(first),
            4,
        );
        assert!(matches!(
            create(&path, format, &meta(second, VoxelType::F32), false),
            Err(Error::OutputExists { .. })
        ));
        assert!(check_output(&path, false).is_err() && check_output(&path, true).is_ok());
        let writer = create(&path, format, &meta(second, VoxelType::F32), true).unwrap();
        assert_eq!(
            open(&path).unwrap().meta().shape,
            first,
            "the old volume stands until the new one is complete"
        );
        drop(writer);
        write_array(
            &path,
            format,
            &meta(second, VoxelType::F32),
            values(second).view(),
            true,
        )
        .unwrap();
        assert_eq!(open(&path).unwrap().meta().shape, second);
        if path.is_dir() {
            std::fs::write(path.join("notes.txt"), "mine").unwrap();
            assert!(
                check_output(&path, true).is_err(),
                "{format:?}: a file of the user would be lost"
            );
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("foreign.npy");
    std::fs::write(&path, b"\x93NUMPY something else").unwrap();
    assert!(matches!(
        check_output(&path, true),
        Err(Error::Input { .. })
    ));
}

/// The largest file of voxels of a volume.
fn largest_file(path: &Path) -> PathBuf {
    fn walk(path: &Path, files: &mut Vec<(u64, PathBuf)>) {
        if path.is_dir() {
            std::fs::read_dir(path)
                .unwrap()
                .for_each(|entry| walk(&entry.unwrap().path(), files));
        } else if path.extension().is_none_or(|extension| extension != "json") {
            files.push((path.metadata().unwrap().len(), path.to_path_buf()));
        }
    }
    let mut files = Vec::new();
    walk(path, &mut files);
    files.into_iter().max().unwrap().1
}

#[test]
fn damage_is_an_error_and_never_zeros() {
    for format in FORMATS {
        let shape = [6, 40, 30];
        for damage in ["short", "bit", "gone"] {
            let scratch = tempfile::tempdir().unwrap();
            let path = scratch.path().join(file_name("volume", format));
            write(
                &path,
                format,
                &meta(shape, VoxelType::F32),
                &values(shape),
                6,
            );
            let file = largest_file(&path);
            let mut bytes = std::fs::read(&file).unwrap();
            match damage {
                "short" => std::fs::write(&file, &bytes[..bytes.len() * 2 / 3]).unwrap(),
                "gone" => std::fs::remove_file(&file).unwrap(),
                _ => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 0x10;
                    std::fs::write(&file, &bytes).unwrap();
                }
            }
            let read = open(&path).and_then(|reader| reader.read(0..shape[0]));
            if damage == "bit" {
                // only Zarr carries checksums that are tested at every read; all formats have them for `verify`
                assert!(read.is_err() || format != Zarr, "{format:?}");
                assert_eq!(verify(&path).unwrap().problems.len(), 1, "{format:?}");
            } else {
                assert!(read.is_err(), "{format:?} {damage}");
                assert!(
                    !verify(&path).is_ok_and(|report| report.is_sound()),
                    "{format:?} {damage}"
                );
            }
        }
    }
}

#[test]
fn the_zarr_library_reads_our_shards_and_every_scale() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a.ome.zarr");
    let shape = [70, 5, 530];
    let mut expected = values(shape);
    expected.mapv_inplace(|v| if v.is_nan() { 0.0 } else { v });
    write(&path, Zarr, &meta(shape, VoxelType::F32), &expected, 9);
    let group: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path.join("zarr.json")).unwrap()).unwrap();
    let datasets = group
        .pointer("/attributes/ome/multiscales/0/datasets")
        .unwrap()
        .as_array()
        .unwrap();
    assert_eq!(datasets.len(), 3);
    for (scale, dataset) in datasets.iter().enumerate() {
        let store = Arc::new(zarrs::filesystem::FilesystemStore::new(&path).unwrap());
        let array =
            zarrs::array::Array::open(store, &format!("/{}", dataset["path"].as_str().unwrap()))
                .unwrap();
        let factor = 1 << scale;
        let sides: Vec<u64> = shape.iter().map(|n| n.div_ceil(factor) as u64).collect();
        assert_eq!(array.shape(), sides);
        let read = array
            .retrieve_array_subset::<Vec<f32>>(&array.subset_all())
            .unwrap();
        let read = Array3::from_shape_vec(
            (sides[0] as usize, sides[1] as usize, sides[2] as usize),
            read,
        )
        .unwrap();
        // a voxel away from the odd edge is the mean of its block; f32 rounds once per scale
        let block = expected.slice(ndarray::s![0..factor, 0..factor, 0..factor]);
        let mean = block.iter().map(|&v| f64::from(v)).sum::<f64>() / block.len() as f64;
        assert!((f64::from(read[[0, 0, 0]]) - mean).abs() < 3.0 * f64::from(f32::EPSILON) * 1e3);
        assert_eq!(scale == 0, same(&read, &expected));
        let transform = &dataset["coordinateTransformations"];
        assert_eq!(transform[0]["scale"][2], 1.3 * factor as f64);
        assert!(
            (transform[1]["translation"][0].as_f64().unwrap() - 1.3 * (factor as f64 - 1.0) / 2.0)
                .abs()
                < 1e-12
        );
    }
}

#[test]
fn a_foreign_zarr_is_read_and_its_missing_chunks_are_errors() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Arc::new(zarrs::filesystem::FilesystemStore::new(scratch.path()).unwrap());
    let array = zarrs::array::ArrayBuilder::new(
        vec![1, 4, 6, 5],
        vec![1, 2, 6, 5],
        zarrs::array::data_type::uint16(),
        0u16,
    )
    .build(store, "/0")
    .unwrap();
    array.store_metadata().unwrap();
    std::fs::write(scratch.path().join("zarr.json"), r#"{"zarr_format":3,"node_type":"group","attributes":{"ome":{"multiscales":[{
        "axes":[{"name":"c"},{"name":"z","unit":"micrometer"},{"name":"y","unit":"micrometer"},{"name":"x","unit":"micrometer"}],
        "datasets":[{"path":"0","coordinateTransformations":[{"type":"scale","scale":[1,0.5,0.5,0.5]}]}]}]}}}"#).unwrap();
    let voxels: Vec<u16> = (1..=60).collect();
    array.store_chunk(&[0, 0, 0, 0], voxels.as_slice()).unwrap();
    let reader = open(scratch.path()).unwrap();
    assert_eq!(
        (reader.meta().shape, reader.meta().voxel_size_um),
        ([4, 6, 5], Some(0.5))
    );
    assert_eq!(reader.meta().unit, UNIT_UNKNOWN);
    assert_eq!(reader.read(1..2).unwrap()[[0, 5, 4]], 60.0);
    assert!(
        reader
            .read(1..3)
            .unwrap_err()
            .to_string()
            .contains("missing")
    );
}

fn foreign_tiff(path: &Path, pages: &[Vec<u16>], width: u32, height: u32) {
    let mut encoder =
        ::tiff::encoder::TiffEncoder::new(std::fs::File::create(path).unwrap()).unwrap();
    for page in pages {
        encoder
            .write_image::<::tiff::encoder::colortype::Gray16>(width, height, page)
            .unwrap();
    }
}

#[test]
fn tiff_stacks_of_other_software_come_in_the_order_a_person_expects() {
    let scratch = tempfile::tempdir().unwrap();
    for z in 0..11u16 {
        foreign_tiff(
            &scratch.path().join(format!("rec_{z}.tiff")),
            &[vec![z; 6]],
            3,
            2,
        );
    }
    let hints = Hints {
        unit: Some("1/cm".into()),
        voxel_size_um: Some(2.0),
    };
    let reader = open_with(scratch.path(), &hints).unwrap();
    assert_eq!(reader.meta().shape, [11, 2, 3]);
    assert_eq!(
        (reader.meta().unit.as_str(), reader.meta().voxel_size_um),
        ("1/cm", Some(2.0))
    );
    let read = reader.read(0..11).unwrap();
    assert!((0..11).all(|z| read[[z, 1, 2]] == z as f32));
    assert_eq!(open(scratch.path()).unwrap().meta().unit, UNIT_UNKNOWN);
    assert!(verify(scratch.path()).is_err());
    foreign_tiff(&scratch.path().join("rec_5.tiff"), &[vec![5; 8]], 4, 2);
    assert!(matches!(
        open(scratch.path()).unwrap().read(4..6),
        Err(Error::Shape { .. })
    ));
    let pages = scratch.path().join("pages.tif");
    foreign_tiff(&pages, &[vec![7; 6], vec![8; 6], vec![9; 6]], 3, 2);
    let reader = open(&pages).unwrap();
    assert_eq!(
        (reader.meta().shape, reader.read(1..3).unwrap()[[1, 0, 0]]),
        ([3, 2, 3], 9.0)
    );
}

#[test]
fn a_dataset_of_any_hdf5_file_is_named_behind_a_colon() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("other.h5");
    let file = rust_hdf5::H5File::create(&path).unwrap();
    let voxels: Vec<i16> = (0..24).map(|i| i - 12).collect();
    file.new_dataset::<i16>()
        .shape([2, 3, 4])
        .create("recon")
        .unwrap()
        .write_raw(&voxels)
        .unwrap();
    let gaps = file
        .new_dataset::<f32>()
        .shape([4, 2, 2])
        .chunk(&[2, 2, 2])
        .create("gaps")
        .unwrap();
    gaps.write_slice(&[0, 0, 0], &[2, 2, 2], &[1f32; 8])
        .unwrap();
    file.close().unwrap();
    let named = |dataset: &str| open(Path::new(&format!("{}:/{dataset}", path.display())));
    assert_eq!(named("recon").unwrap().read(1..2).unwrap()[[0, 2, 3]], 11.0);
    let error = open(&path).err().unwrap().to_string();
    assert!(error.contains("/recon"), "{error}");
    let gaps = named("gaps").unwrap();
    assert!(
        gaps.read(0..2).is_ok() && gaps.read(1..3).is_err(),
        "a chunk that was never written"
    );
    assert!(check_output(&path, true).is_err());
}

#[test]
fn what_is_no_volume_is_said_to_be_none() {
    let scratch = tempfile::tempdir().unwrap();
    assert!(matches!(
        open(&scratch.path().join("absent")),
        Err(Error::Io { .. })
    ));
    assert!(
        open(scratch.path())
            .err()
            .unwrap()
            .to_string()
            .contains(".tif")
    );
    let text = scratch.path().join("a.txt");
    std::fs::write(&text, "hello").unwrap();
    assert!(open(&text).is_err());
    let flat = scratch.path().join("flat.npy");
    std::fs::write(
        &flat,
        b"\x93NUMPY\x01\x00\x3a\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }   \n",
    )
    .unwrap();
    assert!(open(&flat).is_err());
}

#[test]
fn a_long_provenance_survives_in_every_format() {
    for format in FORMATS {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("v");
        let mut meta = meta([2, 3, 4], VoxelType::F32);
        meta.provenance = serde_json::json!({ "config": "x".repeat(100_000) });
        meta.voxel_size_um = None;
        write(&path, format, &meta, &values([2, 3, 4]), 1);
        assert_eq!(open(&path).unwrap().meta(), &meta, "{format:?}");
    }
}

#[test]
fn viewers_are_told_the_bounds_of_all_voxels_those_of_chunks_that_are_not_whole_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.ome.zarr");
    // 70 x 90 voxels are no whole chunks, and 67 slices are one layer and 3
    let shape = [67, 70, 90];
    let volume = Array3::from_shape_fn(shape, |(z, y, x)| match (z, y, x) {
        (66, 69, 89) => 3.5,
        (0, 69, 0) => -2.25,
        (5, 5, 5) => f32::NAN,
        (6, 6, 6) => f32::INFINITY,
        _ => 1.0 + (x % 7) as f32 / 10.0,
    });
    write(&path, Zarr, &meta(shape, VoxelType::F32), &volume, 20);
    let text = std::fs::read_to_string(path.join("zarr.json")).unwrap();
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    let window = &told["attributes"]["ome"]["omero"]["channels"][0]["window"];
    assert_eq!(
        [window["min"].as_f64(), window["max"].as_f64()],
        [Some(-2.25), Some(3.5)]
    );
}
