//! TIFF folders and files written here.

use tiff::encoder::{TiffEncoder, colortype};

use super::*;

fn write16(path: &Path, cols: u32, rows: u32, value: impl Fn(u32) -> u16) {
    let counts: Vec<u16> = (0..rows * cols).map(value).collect();
    let mut encoder = TiffEncoder::new(std::fs::File::create(path).unwrap()).unwrap();
    encoder
        .write_image::<colortype::Gray16>(cols, rows, &counts)
        .unwrap();
}

fn folder(names: &[&str]) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    for (i, name) in names.iter().enumerate() {
        std::fs::create_dir_all(temp.path().join(name).parent().unwrap()).unwrap();
        write16(&temp.path().join(name), 4, 3, |k| {
            (i * 100) as u16 + k as u16
        });
    }
    temp
}

fn with_angles(n: usize) -> InputConfig {
    InputConfig {
        angles: Some(format!("0:180:{n}")),
        ..Default::default()
    }
}

#[test]
fn numbers_in_names_count_as_numbers_and_flats_are_found_by_name() {
    let temp = folder(&[
        "s_10.tif",
        "s_2.tif",
        "flat_before_1.tif",
        "flat_after_1.tif",
        "flat_after_2.tif",
        "dc_1.tif",
        "s_1.tif",
    ]);
    let scan = open_scan(temp.path(), &with_angles(3), None).unwrap();
    let firsts: Vec<f32> = (0..3).map(|i| frame(&*scan.projections, i)[0]).collect();
    assert_eq!(firsts, [600.0, 100.0, 0.0]);
    let flats: Vec<_> = scan
        .flat_groups
        .iter()
        .map(|g| (g.frames.clone(), g.at_projection))
        .collect();
    assert_eq!(flats, [(vec![0], 0.0), (vec![1, 2], 3.0)]);
    assert_eq!(frame(&**scan.flats.as_ref().unwrap(), 2)[0], 400.0);
    assert_eq!(scan.dark_groups[0].frames, [0]);
    let input = InputConfig {
        data: Some("s_1*.tif".into()),
        flats: Some("flat_after_1.tif".into()),
        ..with_angles(2)
    };
    let scan = open_scan(temp.path(), &input, None).unwrap();
    assert_eq!((scan.n_angles(), scan.flat_groups[0].frames.len()), (2, 1));
}

#[test]
fn subfolders_of_usual_names_are_found_and_the_angles_beside_them() {
    let temp = folder(&[
        "scan/proj/a_1.tif",
        "scan/proj/a_2.tif",
        "scan/Flats/x.tif",
        "scan/dark/y.tif",
        "scan/notes/z.tif",
    ]);
    std::fs::write(temp.path().join("angles_rad.csv"), "0\n3.14159265\n").unwrap();
    let scan = open(&temp.path().join("scan")).unwrap();
    assert_eq!(
        (
            scan.n_angles(),
            scan.flat_groups.len(),
            scan.dark_groups.len()
        ),
        (2, 1, 1)
    );
    assert!(
        scan.angle_source.contains("radians") && scan.warnings.iter().any(|w| w.contains("notes")),
        "{:?}",
        scan.warnings
    );
    std::fs::write(temp.path().join("angles_2.txt"), "0\n1\n").unwrap();
    assert!(error_of(open(&temp.path().join("scan"))).contains("angles_2.txt, angles_rad.csv"));
}

#[test]
fn mixed_sizes_missing_angles_and_folders_of_flats_only_are_told() {
    let temp = folder(&["a_1.tif", "a_2.tif"]);
    assert!(error_of(open(temp.path())).contains("no angles were found"));
    write16(&temp.path().join("a_3.tif"), 5, 3, |k| k as u16);
    let text = error_of(open_scan(temp.path(), &with_angles(3), None));
    assert!(
        text.contains("a_3.tif") && text.contains("expected [3, 4], found [3, 5]"),
        "{text}"
    );
    let flats = folder(&["flat_1.tif", "dark_1.tif"]);
    assert!(
        error_of(open_scan(flats.path(), &with_angles(1), None))
            .contains("all 2 TIFF files are flats or darks")
    );
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
fn tiff_bytes(
    big: bool,
    format: u16,
    bits: u16,
    rows_per_strip: usize,
    tile: Option<(usize, usize)>,
    pages: &[Vec<Vec<u8>>],
    rows: usize,
    cols: usize,
) -> Vec<u8> {
    let u16b = |v: u16| {
        if big {
            v.to_be_bytes()
        } else {
            v.to_le_bytes()
        }
    };
    let u32b = |v: usize| {
        if big {
            (v as u32).to_be_bytes()
        } else {
            (v as u32).to_le_bytes()
        }
    };
    let mut out = if big {
        b"MM\0*".to_vec()
    } else {
        b"II*\0".to_vec()
    };
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
        let short = |v: u16| {
            let b = u16b(v);
            [b[0], b[1], 0, 0]
        };
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
        ($type:ty) => {
            if big {
                (value as $type).to_be_bytes().to_vec()
            } else {
                (value as $type).to_le_bytes().to_vec()
            }
        };
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
            let value = |page: usize, row: usize, col: usize| {
                sign * ((page * 90 + row * 7 + col) % 256) as i32
            };
            for layout in [Some(1), Some(4), Some(19), None] {
                let pages: Vec<Vec<Vec<u8>>> = (0..2)
                    .map(|page| match layout {
                        Some(height) => (0..rows)
                            .step_by(height)
                            .map(|top| {
                                (top..(top + height).min(rows))
                                    .flat_map(|row| {
                                        (0..cols).flat_map(move |col| {
                                            sample(format, bits, big, value(page, row, col))
                                        })
                                    })
                                    .collect()
                            })
                            .collect(),
                        None => (0..2)
                            .flat_map(|down| (0..2).map(move |right| (down * 16, right * 16)))
                            .map(|(top, left)| {
                                (top..top + 16)
                                    .flat_map(|row| {
                                        (left..left + 16).flat_map(move |col| {
                                            sample(format, bits, big, value(page, row, col))
                                        })
                                    })
                                    .collect()
                            })
                            .collect(),
                    })
                    .collect();
                let tile = layout.is_none().then_some((16, 16));
                std::fs::write(
                    &path,
                    tiff_bytes(
                        big,
                        format,
                        bits,
                        layout.unwrap_or(0),
                        tile,
                        &pages,
                        rows,
                        cols,
                    ),
                )
                .unwrap();
                let scan = open_scan(&path, &with_angles(2), None).unwrap();
                assert_eq!(scan.layout, "TIFF file");
                let mut out = vec![f32::NAN; 2 * 9 * cols];
                scan.projections.read(&[1, 0], 8..17, &mut out).unwrap();
                for (i, found) in out.iter().enumerate() {
                    let (page, row, col) = (1 - i / (9 * cols), 8 + i / cols % 9, i % cols);
                    assert_eq!(
                        *found,
                        value(page, row, col) as f32,
                        "format {format} {bits} big {big} layout {layout:?} at {page} {row} {col}"
                    );
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
    let ways = [
        ("lzw", Compression::Lzw),
        ("deflate", Compression::Deflate(Default::default())),
        ("plain", Compression::Uncompressed),
    ];
    for (name, compression) in ways {
        let file = std::fs::File::create(&path).unwrap();
        let mut encoder = TiffEncoder::new(file)
            .unwrap()
            .with_compression(compression);
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
        let whole = if name == "plain" {
            9 * 40 * 2
        } else {
            21 * 40 * 2
        };
        assert_eq!(scan.projections.decoded_bytes(6..15), whole, "{name}");
    }
}

/// The position of a tag's value in a little-endian file with one directory.
fn value_of(bytes: &[u8], tag: u16) -> usize {
    let directory = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    let n = u16::from_le_bytes(bytes[directory..directory + 2].try_into().unwrap()) as usize;
    let entries = (0..n).map(|i| directory + 2 + 12 * i);
    entries
        .into_iter()
        .find(|&at| bytes[at..at + 2] == tag.to_le_bytes())
        .unwrap()
        + 8
}

#[test]
fn a_stack_that_imagej_wrote_behind_one_directory_has_all_its_frames() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("stack.tif");
    let mut encoder = TiffEncoder::new(std::fs::File::create(&path).unwrap()).unwrap();
    let mut image = encoder.new_image::<colortype::Gray16>(2, 2).unwrap();
    let description = "ImageJ=1.53\nimages=3\nslices=3\n";
    image
        .encoder()
        .write_tag(tiff::tags::Tag::ImageDescription, description)
        .unwrap();
    image.write_data(&[1, 2, 3, 4]).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // The first frame moves to the end, and the others follow it.
    let at = value_of(&bytes, 273);
    let end = bytes.len() as u32;
    bytes[at..at + 4].copy_from_slice(&end.to_le_bytes());
    bytes.extend((1..=12u16).flat_map(u16::to_le_bytes));
    std::fs::write(&path, &bytes).unwrap();
    let scan = open_scan(&path, &with_angles(3), None).unwrap();
    assert_eq!(scan.projections.shape(), [3, 2, 2]);
    assert_eq!(frame(&*scan.projections, 2), [9.0, 10.0, 11.0, 12.0]);
    // Where the frames are not there, the description is not believed.
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(
        open_scan(&path, &with_angles(1), None).unwrap().n_angles(),
        1
    );
}

#[test]
fn images_whose_zero_is_white_keep_their_stored_counts() {
    let temp = folder(&["a_1.tif"]);
    let path = temp.path().join("a_1.tif");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = value_of(&bytes, 262);
    assert_eq!(bytes[at], 1);
    bytes[at] = 0;
    std::fs::write(&path, bytes).unwrap();
    let scan = open_scan(temp.path(), &with_angles(1), None).unwrap();
    assert_eq!(frame(&*scan.projections, 0)[..3], [0.0, 1.0, 2.0]);
}
