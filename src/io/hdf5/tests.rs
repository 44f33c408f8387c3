//! Every guard against what the library below lets pass, on files written here.

use std::path::{Path, PathBuf};

use rust_hdf5::types::VarLenUnicode;
use rust_hdf5::{ByteOrder, DatatypeMessage, Filter, FilterPipeline, H5File, H5Type, Selection};

use super::*;
use crate::scan::FrameStack;

pub(super) fn count(frame: usize, row: usize, col: usize) -> u16 {
    (1 + frame * 100 + row * 10 + col) as u16
}

/// Counts `[frame, row, col]` that are never zero.
fn counts(frames: usize, rows: usize, cols: usize) -> Vec<u16> {
    let of_frame =
        |frame| (0..rows).flat_map(move |row| (0..cols).map(move |col| count(frame, row, col)));
    (0..frames).flat_map(of_frame).collect()
}

fn create(folder: &Path, name: &str, fill: impl FnOnce(&H5File)) -> PathBuf {
    let path = folder.join(name);
    let file = H5File::create(&path).unwrap();
    fill(&file);
    file.close().unwrap();
    path
}

fn stack_of(path: &Path, dataset: &str) -> Result<Box<dyn FrameStack>> {
    open_stack(&Tree::open(path)?, dataset)
}

fn read_all(stack: &dyn FrameStack) -> Result<Vec<f32>> {
    let [frames, rows, cols] = stack.shape();
    let mut out = vec![f32::NAN; frames * rows * cols];
    stack.read(&(0..frames).collect::<Vec<_>>(), 0..rows, &mut out)?;
    Ok(out)
}

fn text<T>(result: Result<T>) -> String {
    result.err().expect("this must be an error").to_string()
}

#[test]
fn every_pixel_type_and_byte_order_reads_as_its_values() {
    fn case<T: H5Type + Copy>(folder: &Path, values: &[T], expected: &[f32], pixel: PixelType) {
        let path = create(folder, "types.h5", |file| {
            file.new_dataset::<T>()
                .shape([2, 1, 2])
                .create("d")
                .unwrap()
                .write_raw(values)
                .unwrap();
        });
        let stack = stack_of(&path, "/d").unwrap();
        assert_eq!(stack.pixel_type(), pixel);
        assert_eq!(read_all(&*stack).unwrap(), expected);
    }
    let folder = tempfile::tempdir().unwrap();
    case::<u8>(
        folder.path(),
        &[0, 1, 2, 255],
        &[0., 1., 2., 255.],
        PixelType::U8,
    );
    case::<u16>(
        folder.path(),
        &[0, 1, 2, 65535],
        &[0., 1., 2., 65535.],
        PixelType::U16,
    );
    case::<u32>(
        folder.path(),
        &[0, 1, 2, 1 << 31],
        &[0., 1., 2., 2147483648.],
        PixelType::U32,
    );
    case::<i16>(
        folder.path(),
        &[-3, 1, 2, -32768],
        &[-3., 1., 2., -32768.],
        PixelType::I16,
    );
    case::<i32>(
        folder.path(),
        &[-3, 1, 2, -70000],
        &[-3., 1., 2., -70000.],
        PixelType::I32,
    );
    case::<f32>(
        folder.path(),
        &[-0.5, 1., 2., 1e30],
        &[-0.5, 1., 2., 1e30],
        PixelType::F32,
    );
    case::<f64>(
        folder.path(),
        &[-0.5, 1., 2., 0.1],
        &[-0.5, 1., 2., 0.1],
        PixelType::F64,
    );
    let big = DatatypeMessage::FixedPoint {
        size: 2,
        byte_order: ByteOrder::BigEndian,
        signed: false,
        bit_offset: 0,
        bit_precision: 16,
    };
    let path = create(folder.path(), "big.h5", |file| {
        let dataset = file
            .new_dataset::<u16>()
            .shape([1, 1, 2])
            .datatype(big)
            .create("d")
            .unwrap();
        dataset.write_raw_bytes(&[1, 2, 255, 0]).unwrap();
    });
    assert_eq!(
        read_all(&*stack_of(&path, "d").unwrap()).unwrap(),
        [258., 65280.]
    );
}

#[test]
fn types_that_are_no_counts_are_refused_and_not_reinterpreted() {
    let folder = tempfile::tempdir().unwrap();
    let path = create(folder.path(), "t.h5", |file| {
        file.new_dataset::<u64>()
            .shape([1, 1, 2])
            .create("u64")
            .unwrap()
            .write_raw(&[1u64, 2])
            .unwrap();
        file.new_dataset::<i8>()
            .shape([1, 1, 2])
            .create("i8")
            .unwrap()
            .write_raw(&[1i8, 2])
            .unwrap();
        file.new_dataset::<f32>()
            .shape([2])
            .create("angles")
            .unwrap()
            .write_raw(&[0.5f32, 1.5])
            .unwrap();
        file.new_dataset::<i64>()
            .shape([2])
            .create("keys")
            .unwrap()
            .write_raw(&[-1i64, 2])
            .unwrap();
        file.write_vlen_strings("words", &["a", "b"]).unwrap();
    });
    let tree = Tree::open(&path).unwrap();
    assert!(text(open_stack(&tree, "/u64")).contains("found u64"));
    assert!(text(open_stack(&tree, "/i8")).contains("found i8"));
    assert_eq!(tree.numbers("/angles").unwrap().0, [0.5, 1.5]);
    assert_eq!(tree.numbers("/keys").unwrap().0, [-1.0, 2.0]);
    assert!(text(tree.numbers("/words")).contains("text, not a number"));
    assert_eq!(tree.text("/words").as_deref(), Some("a"));
    assert_eq!(tree.text("/angles"), None);
}

#[test]
fn a_numeric_attribute_is_no_text_and_a_text_attribute_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = create(folder.path(), "a.h5", |file| {
        let numeric = file
            .new_dataset::<f64>()
            .shape([1])
            .create("numeric")
            .unwrap();
        numeric.write_raw(&[1f64]).unwrap();
        numeric
            .new_attr::<f64>()
            .shape(())
            .create("units")
            .unwrap()
            .write_numeric(&1.5f64)
            .unwrap();
        let text = file.new_dataset::<f64>().shape([1]).create("text").unwrap();
        text.write_raw(&[1f64]).unwrap();
        let units = text
            .new_attr::<VarLenUnicode>()
            .shape(())
            .create("units")
            .unwrap();
        units
            .write_scalar(&VarLenUnicode("degrees".into()))
            .unwrap();
    });
    let tree = Tree::open(&path).unwrap();
    assert_eq!(tree.numbers("numeric").unwrap().1, None);
    assert_eq!(tree.numbers("text").unwrap().1.as_deref(), Some("degrees"));
}

#[test]
fn links_lead_into_other_files_with_their_attributes_and_groups() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("raw")).unwrap();
    create(&folder.path().join("raw"), "camera.h5", |file| {
        let group = file.create_group("entry").unwrap();
        let theta = group
            .new_dataset::<f64>()
            .shape([2])
            .create("theta")
            .unwrap();
        theta.write_raw(&[0f64, 180.]).unwrap();
        let units = theta
            .new_attr::<VarLenUnicode>()
            .shape(())
            .create("units")
            .unwrap();
        units
            .write_scalar(&VarLenUnicode("degrees".into()))
            .unwrap();
        group
            .new_dataset::<u16>()
            .shape([2, 2, 3])
            .create("data")
            .unwrap()
            .write_raw(&counts(2, 2, 3))
            .unwrap();
    });
    let path = create(folder.path(), "master.h5", |file| {
        let root = file.root_group();
        // The text of a variable-length attribute stands in the other file's heap.
        root.create_external_link("angles", "raw/camera.h5", "/entry/theta")
            .unwrap();
        // An absolute path of another machine and an inner path without its slash, as facilities write them.
        root.create_external_link("group", "/nowhere/raw/../camera.h5", "entry")
            .unwrap();
        root.create_external_link("good", "raw/camera.h5", "entry")
            .unwrap();
        root.create_soft_link("soft", "/good/data").unwrap();
        root.create_soft_link("circle", "/circle").unwrap();
        root.create_soft_link("lost", "/not/there").unwrap();
    });
    let tree = Tree::open(&path).unwrap();
    assert_eq!(
        tree.numbers("/angles").unwrap(),
        (vec![0.0, 180.0], Some("degrees".to_string()))
    );
    assert_eq!(
        read_all(&*open_stack(&tree, "soft").unwrap()).unwrap()[7],
        f32::from(count(1, 0, 1))
    );
    let (found, dangling) = tree.datasets();
    let paths: Vec<&str> = found.iter().map(|d| d.path.as_str()).collect();
    assert_eq!(paths, ["/angles", "/good/data", "/good/theta", "/soft"]);
    assert_eq!(dangling, ["/circle", "/group", "/lost"]);
    assert!(text(tree.locate("/circle/x")).contains("circle"));
    let lost = text(tree.locate("/group"));
    assert!(
        lost.contains("camera.h5, and that file is missing") && lost.len() < 300,
        "{lost}"
    );
    // The same file beside the master is found by its bare name.
    std::fs::copy(
        folder.path().join("raw/camera.h5"),
        folder.path().join("camera.h5"),
    )
    .unwrap();
    assert!(Tree::open(&path).unwrap().locate("/group/data").is_ok());
}

#[test]
fn a_truncated_file_behind_a_link_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let other = create(folder.path(), "other.h5", |file| {
        file.new_dataset::<u16>()
            .shape([2, 2, 3])
            .create("d")
            .unwrap()
            .write_raw(&counts(2, 2, 3))
            .unwrap();
    });
    let path = create(folder.path(), "master.h5", |file| {
        file.root_group()
            .create_external_link("d", "other.h5", "/d")
            .unwrap();
    });
    assert!(stack_of(&path, "/d").is_ok());
    let bytes = std::fs::read(&other).unwrap();
    std::fs::write(&other, &bytes[..bytes.len() - 1]).unwrap();
    let problem = text(stack_of(&path, "/d"));
    assert!(
        problem.contains("truncated") && problem.contains("other.h5"),
        "{problem}"
    );
}

#[test]
fn the_end_of_the_file_is_found_behind_a_user_block_and_in_every_superblock() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("block.h5");
    // Superblocks after the HDF5 file format specification, version 3.0, section II.A; addresses of 8 bytes.
    for (version, base_at, end_at) in [(0u8, 24, 40), (1, 28, 44), (2, 12, 28), (3, 12, 28)] {
        for (user_block, base) in [(0u64, 0u64), (512, 512), (2048, 0)] {
            let mut block = vec![0u8; 96];
            block[..8].copy_from_slice(b"\x89HDF\r\n\x1a\n");
            block[8] = version;
            block[if version < 2 { 13 } else { 9 }] = 8;
            block[base_at..base_at + 8].copy_from_slice(&base.to_le_bytes());
            let end = 1000 + base;
            block[end_at..end_at + 8].copy_from_slice(&end.to_le_bytes());
            let mut bytes = vec![0u8; user_block as usize];
            bytes.extend(block);
            // A base address that lags behind its user block shifts the end along.
            bytes.resize((1000 + user_block) as usize, 0);
            std::fs::write(&path, &bytes).unwrap();
            guard::check_complete(&path).unwrap();
            assert!(is_hdf5(&path));
            std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            assert!(
                text(guard::check_complete(&path)).contains("truncated"),
                "version {version}, user block {user_block}"
            );
        }
    }
    std::fs::write(&path, b"\x89HDF\r\n\x1a\n\x00").unwrap();
    assert!(text(guard::check_complete(&path)).contains("truncated"));
    std::fs::write(&path, b"II*\0").unwrap();
    assert!(!is_hdf5(&path) && guard::check_complete(&path).is_err());
}

#[test]
fn a_frame_that_was_never_written_is_an_error_and_a_black_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = create(folder.path(), "holes.h5", |file| {
        let bytes = |values: &[u16]| {
            values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        for (name, fill) in [("zero", None), ("seven", Some(7u16))] {
            let builder = file
                .new_dataset::<u16>()
                .shape([4, 4, 4])
                .chunk(&[1, 2, 4])
                .shuffle_deflate(4);
            let builder = match fill {
                Some(fill) => builder.fill_value(fill),
                None => builder,
            };
            let dataset = builder.create(name).unwrap();
            for frame in [0, 1, 3] {
                for half in 0..2 {
                    // Frame 1 is the fill value itself; the lower half of frame 3 is missing.
                    let value = if frame == 1 { fill.unwrap_or(0) } else { 9 };
                    if (frame, half) != (3, 1) {
                        dataset
                            .write_chunk_at(&[frame, half, 0], &bytes(&[value; 8]))
                            .unwrap();
                    }
                }
            }
        }
    });
    for dataset in ["zero", "seven"] {
        let stack = stack_of(&path, dataset).unwrap();
        let mut out = vec![f32::NAN; 32];
        stack.read(&[1, 0], 0..4, &mut out).unwrap();
        assert!(out[16..].iter().all(|&v| v == 9.0));
        let mut frame = vec![f32::NAN; 16];
        let problem = text(stack.read(&[2], 0..4, &mut frame));
        assert!(
            problem.contains("frame 2") && problem.contains("never written"),
            "{problem}"
        );
        stack.read(&[3], 0..2, &mut frame[..8]).unwrap();
        assert!(stack.read(&[3], 1..4, &mut frame[..12]).is_err());
    }
}

#[test]
fn a_header_that_claims_a_trillion_frames_is_refused_before_anything_is_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let path = create(folder.path(), "huge.h5", |file| {
        let n = 1_000_000_000_000usize;
        file.new_dataset::<u16>()
            .shape([n, 16, 16])
            .chunk(&[1, 16, 16])
            .max_shape(&[None, Some(16), Some(16)])
            .create("data")
            .unwrap();
        file.new_dataset::<f64>()
            .shape([n])
            .chunk(&[1024])
            .max_shape(&[None])
            .create("angles")
            .unwrap();
    });
    let tree = Tree::open(&path).unwrap();
    assert!(text(open_stack(&tree, "data")).contains("claims 1000000000000 x 16 x 16"));
    assert!(text(tree.numbers("angles")).contains("claims 1000000000000 values"));
}

#[test]
fn wrong_ranks_empty_datasets_and_groups_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = create(folder.path(), "ranks.h5", |file| {
        file.new_dataset::<u16>()
            .shape([4])
            .create("one")
            .unwrap()
            .write_raw(&[1u16; 4])
            .unwrap();
        file.new_dataset::<u16>()
            .shape([1, 1, 2, 2])
            .create("four")
            .unwrap()
            .write_raw(&[1u16; 4])
            .unwrap();
        file.new_dataset::<u16>()
            .shape([2, 2])
            .create("two")
            .unwrap()
            .write_raw(&[1u16; 4])
            .unwrap();
        file.new_dataset::<u16>()
            .shape([0, 2, 2])
            .chunk(&[1, 2, 2])
            .max_shape(&[None, Some(2), Some(2)])
            .create("none")
            .unwrap();
        file.create_group("group").unwrap();
    });
    let tree = Tree::open(&path).unwrap();
    assert!(text(open_stack(&tree, "one")).contains("expected frames x rows x columns, found 4"));
    assert!(text(open_stack(&tree, "four")).contains("found 1 x 1 x 2 x 2"));
    assert!(text(open_stack(&tree, "none")).contains("holds nothing"));
    assert!(text(open_stack(&tree, "group")).contains("is a group"));
    assert!(text(open_stack(&tree, "absent")).contains("does not exist"));
    assert_eq!(open_stack(&tree, "two").unwrap().shape(), [1, 2, 2]);
    let stack = open_stack(&tree, "two").unwrap();
    assert!(
        stack.read(&[1], 0..2, &mut [0.0; 4]).is_err()
            && stack.read(&[0], 0..3, &mut [0.0; 6]).is_err()
    );
}

#[test]
fn chunks_of_any_shape_and_any_order_of_frames_give_the_same_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (frames, rows, cols) = (7, 5, 6);
    let path = create(folder.path(), "chunks.h5", |file| {
        for (name, chunk, compressed) in [
            ("a", [1, 5, 6], true),
            ("b", [3, 2, 4], true),
            ("c", [7, 1, 6], true),
            ("d", [2, 5, 5], true),
            ("f", [1, 5, 6], false),
            ("g", [1, 2, 6], false),
            ("h", [1, 5, 3], false),
            ("i", [2, 5, 6], false),
        ] {
            let dataset = file
                .new_dataset::<u16>()
                .shape([frames, rows, cols])
                .chunk(&chunk);
            let dataset = if compressed {
                dataset.shuffle_deflate(1)
            } else {
                dataset
            };
            let dataset = dataset.create(name).unwrap();
            dataset.write_raw(&counts(frames, rows, cols)).unwrap();
        }
        file.new_dataset::<u16>()
            .shape([frames, rows, cols])
            .create("e")
            .unwrap()
            .write_raw(&counts(frames, rows, cols))
            .unwrap();
    });
    let tree = Tree::open(&path).unwrap();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
        let stack = open_stack(&tree, name).unwrap();
        for order in [&[6, 0, 3, 4, 4, 1][..], &[1, 2, 3, 5, 6], &[0, 0, 1]] {
            let mut out = vec![f32::NAN; order.len() * 3 * cols];
            stack.read(order, 1..4, &mut out).unwrap();
            for (i, value) in out.iter().enumerate() {
                let (frame, row, col) = (order[i / (3 * cols)], 1 + i / cols % 3, i % cols);
                assert_eq!(
                    *value,
                    f32::from(count(frame, row, col)),
                    "{name} at {frame} {row} {col}"
                );
            }
        }
    }
    let bytes = |name: &str, rows| open_stack(&tree, name).unwrap().decoded_bytes(rows);
    // A whole frame for one row where the frame is one compressed chunk; two rows of eight columns where chunks are 2 x 4.
    assert_eq!(bytes("a", 2..3), 5 * 6 * 2);
    assert_eq!(bytes("b", 2..3), 2 * 8 * 2);
    // One row where nothing has to be decoded and it is one stretch of the file.
    for name in ["e", "f", "g"] {
        assert_eq!(bytes(name, 2..3), 6 * 2, "{name}");
    }
    assert_eq!(bytes("h", 2..3), 5 * 6 * 2);
    assert_eq!(bytes("i", 2..3), 5 * 6 * 2);
}

#[test]
fn every_filter_gives_the_counts_that_h5py_wrote() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/io/hdf5/fixtures/filters.h5");
    let tree = Tree::open(&path).unwrap();
    let found = tree.datasets().0;
    assert_eq!(found.len(), 14);
    for dataset in found {
        let stack = open_stack(&tree, &dataset.path).unwrap();
        let mut out = vec![f32::NAN; 2 * 5 * 16];
        stack.read(&[1, 0], 17..22, &mut out).unwrap();
        for (i, value) in out.iter().enumerate() {
            let (frame, row, col) = (1 - i / 80, 17 + i / 16 % 5, i % 16);
            assert_eq!(
                *value,
                (1000 * frame + 20 * (row / 6) + col / 8 + 1) as f32,
                "{} at {frame} {row} {col}",
                dataset.path
            );
        }
    }
}

#[test]
fn an_unknown_filter_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = create(folder.path(), "filter.h5", |file| {
        let pipeline = FilterPipeline {
            filters: vec![Filter {
                id: 32013,
                flags: 0,
                cd_values: vec![],
            }],
        };
        let dataset = file
            .new_dataset::<u16>()
            .shape([1, 2, 2])
            .chunk(&[1, 2, 2])
            .filter_pipeline(pipeline)
            .create("d")
            .unwrap();
        dataset
            .write_chunk_raw_at(&[0, 0, 0], &[1, 2, 3], 0)
            .unwrap();
    });
    let problem = match stack_of(&path, "d") {
        Err(error) => error.to_string(),
        // With the C library the dataset opens, and reading says that the plugin is missing.
        Ok(stack) => text(read_all(&*stack)),
    };
    assert!(
        cfg!(feature = "hdf5-c") || problem.contains("filter 32013 (zfp)"),
        "{problem}"
    );
}

#[test]
fn raw_data_outside_the_file_must_be_there_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("frames.raw");
    let path = create(folder.path(), "outside.h5", |file| {
        let builder = file
            .new_dataset::<u16>()
            .shape([2, 2, 3])
            .external(&[("frames.raw", 4, 24)]);
        builder
            .efile_prefix("${ORIGIN}")
            .create("d")
            .unwrap()
            .write_raw(&counts(2, 2, 3))
            .unwrap();
    });
    assert_eq!(
        read_all(&*stack_of(&path, "d").unwrap()).unwrap()[11],
        f32::from(count(1, 1, 2))
    );
    let bytes = std::fs::read(&raw).unwrap();
    std::fs::write(&raw, &bytes[..27]).unwrap();
    assert!(text(stack_of(&path, "d")).contains("27 bytes where 28 are needed"));
    std::fs::remove_file(&raw).unwrap();
    assert!(text(stack_of(&path, "d")).contains("file is missing"));
}

/// Frames `frames` of a stack of `rows` x `cols`.
fn frames_selected(frames: std::ops::Range<u64>, rows: u64, cols: u64) -> Selection {
    let block = rust_hdf5::HyperslabBlock {
        start: vec![frames.start, 0, 0],
        end: vec![frames.end - 1, rows - 1, cols - 1],
    };
    Selection::Hyperslab {
        rank: 3,
        form: rust_hdf5::Hyperslab::Blocks(vec![block]),
    }
}

#[test]
fn a_virtual_dataset_reads_its_sources_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let all = counts(6, 2, 3);
    for (name, part) in [("first.h5", &all[..18]), ("second.h5", &all[18..30])] {
        create(folder.path(), name, |file| {
            file.new_dataset::<u16>()
                .shape([part.len() / 6, 2, 3])
                .create("d")
                .unwrap()
                .write_raw(part)
                .unwrap();
        });
    }
    let path = create(folder.path(), "virtual.h5", |file| {
        file.new_dataset::<u16>()
            .shape([6, 2, 3])
            .virtual_mapping(frames_selected(0..3, 2, 3), "first.h5", "d", Selection::All)
            .virtual_mapping(
                frames_selected(3..5, 2, 3),
                "second.h5",
                "d",
                Selection::All,
            )
            .create("v")
            .unwrap();
    });
    let stack = stack_of(&path, "v").unwrap();
    let mut out = vec![f32::NAN; 9];
    stack.read(&[4, 0, 3], 1..2, &mut out).unwrap();
    let expected: Vec<f32> = [4, 0, 3]
        .iter()
        .flat_map(|&f| (0..3).map(move |c| f32::from(count(f, 1, c))))
        .collect();
    assert_eq!(out, expected);
    assert_eq!(stack.decoded_bytes(0..1), 6);
    assert!(text(stack.read(&[5], 0..2, &mut [0.0; 6])).contains("frame 5: no source"));
    let second = folder.path().join("second.h5");
    let bytes = std::fs::read(&second).unwrap();
    std::fs::write(&second, &bytes[..bytes.len() - 1]).unwrap();
    assert!(text(stack_of(&path, "v")).contains("truncated"));
    std::fs::remove_file(&second).unwrap();
    let problem = text(stack_of(&path, "v"));
    assert!(
        problem.contains("second.h5, and that file is missing"),
        "{problem}"
    );
}

#[test]
fn a_virtual_dataset_of_tiles_and_interleaved_frames_is_put_together() {
    let folder = tempfile::tempdir().unwrap();
    for (name, offset) in [("even.h5", 0), ("odd.h5", 1)] {
        create(folder.path(), name, |file| {
            let part: Vec<u16> = (0..2)
                .flat_map(|i| counts(4, 2, 3)[(2 * i + offset) * 6..][..6].to_vec())
                .collect();
            file.new_dataset::<u16>()
                .shape([2, 2, 3])
                .create("d")
                .unwrap()
                .write_raw(&part)
                .unwrap();
        });
    }
    let every_second = |start: u64| Selection::Hyperslab {
        rank: 3,
        form: rust_hdf5::Hyperslab::Regular(rust_hdf5::RegularHyperslab {
            start: vec![start, 0, 0],
            stride: vec![2, 1, 1],
            count: vec![2, 1, 1],
            block: vec![1, 2, 3],
        }),
    };
    let path = create(folder.path(), "interleaved.h5", |file| {
        file.new_dataset::<u16>()
            .shape([4, 2, 3])
            .virtual_mapping(every_second(0), "even.h5", "d", Selection::All)
            .virtual_mapping(every_second(1), "odd.h5", "d", Selection::All)
            .create("v")
            .unwrap();
    });
    let expected: Vec<f32> = counts(4, 2, 3).into_iter().map(f32::from).collect();
    assert_eq!(read_all(&*stack_of(&path, "v").unwrap()).unwrap(), expected);
    // Left and right halves of a detector, one source each, one frame being a source of two axes.
    let half = |cols: std::ops::Range<u64>, frames: std::ops::Range<u64>| Selection::Hyperslab {
        rank: 3,
        form: rust_hdf5::Hyperslab::Blocks(vec![rust_hdf5::HyperslabBlock {
            start: vec![frames.start, 0, cols.start],
            end: vec![frames.end - 1, 1, cols.end - 1],
        }]),
    };
    let tiles = create(folder.path(), "tiles.h5", |file| {
        file.new_dataset::<u16>()
            .shape([2, 2, 6])
            .virtual_mapping(half(0..3, 0..2), "even.h5", "d", Selection::All)
            .virtual_mapping(half(3..6, 0..2), "odd.h5", "d", Selection::All)
            .create("v")
            .unwrap();
    });
    let stack = stack_of(&tiles, "v").unwrap();
    let mut out = vec![f32::NAN; 6];
    stack.read(&[1], 1..2, &mut out).unwrap();
    let expected: Vec<f32> = (0..6)
        .map(|c| f32::from(count(if c < 3 { 2 } else { 3 }, 1, c % 3)))
        .collect();
    assert_eq!(out, expected);
}

#[cfg(feature = "hdf5-c")]
#[test]
fn the_c_library_and_the_default_read_alike() {
    let folder = tempfile::tempdir().unwrap();
    let made = create(folder.path(), "made.h5", |file| {
        let dataset = file
            .new_dataset::<u16>()
            .shape([7, 5, 6])
            .chunk(&[3, 2, 4])
            .shuffle_deflate(1)
            .create("packed")
            .unwrap();
        dataset.write_raw(&counts(7, 5, 6)).unwrap();
        let holes = file
            .new_dataset::<f32>()
            .shape([2, 2, 2])
            .chunk(&[1, 2, 2])
            .deflate(1)
            .create("holes")
            .unwrap();
        holes.write_chunk_at(&[0, 0, 0], &[0; 16]).unwrap();
        file.new_dataset::<i32>()
            .shape([1, 1, 2])
            .create("i32")
            .unwrap()
            .write_raw(&[-7i32, 1 << 24 | 1])
            .unwrap();
        file.new_dataset::<u32>()
            .shape([1, 1, 2])
            .create("u32")
            .unwrap()
            .write_raw(&[u32::MAX, 3])
            .unwrap();
        file.new_dataset::<f64>()
            .shape([1, 1, 2])
            .create("f64")
            .unwrap()
            .write_raw(&[0.1f64, 1e300])
            .unwrap();
    });
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let real = [
        "i13_24737/24737.nxs",
        "k11_diad_nexus/k11-18014.nxs",
        "tooth_dxchange/tooth.h5",
    ]
    .map(|name| shared.join(name));
    let (mut blocks, mut lists, mut texts) = (0, 0, 0);
    for path in real.into_iter().filter(|path| path.exists()).chain([made]) {
        let tree = Tree::open(&path).unwrap();
        for found in tree.datasets().0 {
            let a = tree.dataset(&found.at).unwrap();
            let b = c_library::CDataset::open(&found.at.file, &found.at.path, a.info().clone())
                .unwrap();
            assert_eq!(
                a.text_attribute("units"),
                b.text_attribute("units"),
                "{}",
                found.path
            );
            if found.element == Element::Text {
                assert_eq!(a.read_text(), b.read_text(), "{}", found.path);
                texts += 1;
            } else if found.shape.len() == 1 && found.element.is_number() {
                let bits =
                    |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<_>>();
                assert_eq!(
                    a.read_numbers().map(bits),
                    b.read_numbers().map(bits),
                    "{}",
                    found.path
                );
                lists += 1;
            } else if found.shape.len() == 3 {
                let start = [found.shape[0] / 2, 0, found.shape[2] / 3];
                let count = [1, found.shape[1], found.shape[2] - start[2]];
                let mut out = [
                    vec![f32::NAN; count.iter().product()],
                    vec![f32::NAN; count.iter().product()],
                ];
                a.read_block(&start, &count, &mut out[0]).unwrap();
                b.read_block(&start, &count, &mut out[1]).unwrap();
                assert!(
                    out[0] == out[1] && !out[0].iter().any(|v| v.is_nan()),
                    "{}",
                    found.path
                );
                assert!(
                    b.read_block(&[start[0] + found.shape[0], 0, 0], &count, &mut out[1])
                        .is_err()
                );
                if let Layout::Chunked(chunk) = &a.info().layout {
                    for frame in 0..2.min(found.shape[0].div_ceil(chunk[0])) {
                        assert_eq!(
                            a.chunk_is_stored(&[frame, 0, 0]),
                            b.chunk_is_stored(&[frame, 0, 0]),
                            "{}",
                            found.path
                        );
                    }
                }
                blocks += 1;
            }
        }
    }
    assert!(
        blocks >= 5,
        "{blocks} blocks, {lists} lists, {texts} texts were compared"
    );
    eprintln!("{blocks} blocks, {lists} lists, {texts} texts were compared");
}
