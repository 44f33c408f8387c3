//! Promise: whatever a file holds, the program neither panics nor aborts, takes no memory that the file cannot justify,
//! and comes to an end.
//!
//! Files of every kind are damaged at random, from a seed, and taken through every door. An allocator of this test
//! binary counts the memory. `HOSTILE_INPUTS` sets the number of damaged files of the long run.

#[path = "common/hostile.rs"]
mod hostile;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hostile::{Kind, digest};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use rust_hdf5::H5File;
use tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype};
use tomodelta::config::VolumeFormat;
use tomodelta::io::volume::{self, VolumeMeta, VoxelType};

/// Memory that an input may take: so much for each of its bytes (deflate can give 1032, LZW 2731) ...
const PER_BYTE: usize = 2800;
/// ... and so much for buffers, threads and messages.
const ALWAYS: usize = 24 << 20;
/// The seeds are below 40 KB, so that a claim of the header shows against what the file justifies.
const LONGEST: Duration = Duration::from_secs(20);

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its nature; this one counts and passes on"
)]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn note(size: usize) {
    let live = LIVE.fetch_add(size, Ordering::Relaxed) + size;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A sound file of each kind and layout, as bytes.
fn seeds(folder: &Path) -> Vec<(Kind, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut take = |kind, path: PathBuf| seeds.push((kind, std::fs::read(path).unwrap()));
    for (name, compressed) in [("plain.nxs", false), ("packed.nxs", true)] {
        take(Kind::Hdf5, nexus(&folder.join(name), compressed));
    }
    for (name, compression, big) in [
        ("plain.tif", Compression::Uncompressed, false),
        ("lzw.tif", Compression::Lzw, false),
        (
            "deflate.tif",
            Compression::Deflate(DeflateLevel::Fast),
            false,
        ),
        ("big.tif", Compression::Uncompressed, true),
    ] {
        take(Kind::Tiff, pages(&folder.join(name), compression, big));
    }
    let meta = VolumeMeta {
        shape: [3, 12, 16],
        voxel_type: VoxelType::F32,
        unit: "1/cm".into(),
        voxel_size_um: Some(1.3),
        first_row: 0,
        provenance: serde_json::Value::Null,
    };
    let voxels = ndarray::Array3::from_shape_fn((3, 12, 16), |(z, y, x)| (z + y * x) as f32);
    for (kind, name, format) in [
        (Kind::Hdf5, "volume.h5", VolumeFormat::Hdf5),
        (Kind::Npy, "volume.npy", VolumeFormat::Npy),
    ] {
        let path = folder.join(name);
        volume::write_array(&path, format, &meta, voxels.view(), false).unwrap();
        take(kind, path);
    }
    // [row, angle, col], the layout of line integrals
    seeds.push((
        Kind::Npy,
        npy_file("<f4", "3, 3, 16", &[0u8; 4 * 3 * 3 * 16]),
    ));
    seeds.push((Kind::Npy, npy_file(">f8", "2, 3, 4", &[0u8; 8 * 2 * 3 * 4])));
    seeds.push((Kind::Toml, tomodelta::config::DEFAULT_TOML.into()));
    let series = "[[scan]]\nname = \"a\"\npath = \"a.nxs\"\n[[scan]]\nname = \"b\"\npath = \"b.nxs\"\nreference = \"a\"\n\
                  [run]\nmemory = \"2GiB\"\n[reconstruct]\nrows = \"3..9\"\ncrop = \"1..5,2..9\"\n[mass]\nvalence = 1\n";
    seeds.push((Kind::Toml, series.into()));
    let angles: String = (0..40)
        .map(|i| format!("{:.3}\n", 4.5 * f64::from(i)))
        .collect();
    seeds.push((Kind::Csv, format!("angle\n{angles}").into_bytes()));
    let volts: String = (0..40)
        .map(|i| format!("{},{:.4},-0.1\n", 60 * i, 3.0 + 0.01 * f64::from(i)))
        .collect();
    seeds.push((
        Kind::Csv,
        format!("time_s,voltage_v,current_a\n{volts}").into_bytes(),
    ));
    seeds
}

fn npy_file(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.bytes());
    bytes.extend(data);
    bytes
}

fn nexus(path: &Path, compressed: bool) -> PathBuf {
    let file = H5File::create(path).unwrap();
    let entry = file.create_group("entry").unwrap();
    let detector = entry
        .create_group("instrument")
        .unwrap()
        .create_group("camera")
        .unwrap();
    let counts: Vec<u16> = (0..6 * 12 * 16u16).map(|i| 100 + i % 97).collect();
    let data = detector.new_dataset::<u16>().shape([6, 12, 16]);
    let data = if compressed {
        data.chunk(&[1, 12, 16]).shuffle_deflate(4)
    } else {
        data
    };
    data.create("data").unwrap().write_raw(&counts).unwrap();
    let lists = [
        (&detector, "image_key", [2.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
        (&entry, "rotation_angle", [0.0, 0.0, 0.0, 90.0, 180.0, 0.0]),
    ];
    for (group, name, values) in lists {
        group
            .new_dataset::<f64>()
            .shape([6])
            .create(name)
            .unwrap()
            .write_raw(&values)
            .unwrap();
    }
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
    units.write_string("um").unwrap();
    file.close().unwrap();
    path.to_path_buf()
}

fn pages(path: &Path, compression: Compression, big: bool) -> PathBuf {
    let file = std::fs::File::create(path).unwrap();
    let counts: Vec<u16> = (0..12 * 16u16).map(|i| 100 + i % 97).collect();
    macro_rules! write_with {
        ($encoder:expr) => {{
            let mut encoder = $encoder.unwrap().with_compression(compression);
            for _ in 0..3 {
                let mut image = encoder.new_image::<colortype::Gray16>(16, 12).unwrap();
                image.rows_per_strip(5).unwrap();
                image.write_data(&counts).unwrap();
            }
        }};
    }
    if big {
        write_with!(TiffEncoder::new_big(file));
    } else {
        write_with!(TiffEncoder::new(file));
    }
    path.to_path_buf()
}

/// Damages `bytes` in one to eight places: bits, numbers that headers hold, missing, doubled and moved stretches.
fn damage(bytes: &mut Vec<u8>, random: &mut Pcg64Mcg) {
    const NUMBERS: [u64; 14] = [
        0,
        1,
        2,
        7,
        0x7f,
        0xff,
        0x7fff,
        0xffff,
        0x7fff_ffff,
        0xffff_ffff,
        1_000_000_000_000,
        1 << 40,
        i64::MAX as u64,
        u64::MAX,
    ];
    const WORDS: [&str; 10] = [
        "1e999",
        "-1",
        "99999999999999999999",
        "nan",
        "../../x",
        "\"",
        "[",
        "[[scan]]\n",
        "= ",
        "\u{0}",
    ];
    for _ in 0..random.random_range(1..=8) {
        if bytes.is_empty() {
            return;
        }
        let at = random.random_range(0..bytes.len());
        let len = random.random_range(1..=64usize).min(bytes.len() - at);
        match random.random_range(0..9) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 | 3 => {
                let number = NUMBERS[random.random_range(0..NUMBERS.len())];
                let width = [1, 2, 4, 8][random.random_range(0..4)].min(bytes.len() - at);
                let little = number.to_le_bytes();
                bytes[at..at + width].copy_from_slice(&little[..width]);
            }
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..at + len)),
            6 => {
                let copy = bytes[at..at + len].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
            7 => bytes[at..at + len].fill([0, 0xff][random.random_range(0..2)]),
            _ => {
                let word = WORDS[random.random_range(0..WORDS.len())];
                bytes.splice(at..at, word.bytes());
            }
        }
    }
}

/// What one input did.
struct Outcome {
    peak: usize,
    time: Duration,
    accepted: bool,
    panic: bool,
}

/// Damages and digests `count` files of each kind; panics at the first that breaks a promise.
fn survive(count: u64) {
    let scratch = tempfile::tempdir().unwrap();
    let sound = seeds(scratch.path());
    for (kind, bytes) in &sound {
        assert!(
            digest(*kind, scratch.path(), bytes),
            "a sound {kind:?} is refused"
        );
    }
    // the doors print what they caught otherwise
    tomodelta::io::hdf5::silence_guarded_panics();
    let (to_worker, jobs) = mpsc::channel::<(Kind, Vec<u8>)>();
    let (done, outcomes) = mpsc::channel();
    let folder = scratch.path().to_path_buf();
    std::thread::spawn(move || {
        for (kind, bytes) in jobs {
            let before = LIVE.load(Ordering::Relaxed);
            PEAK.store(before, Ordering::Relaxed);
            let started = Instant::now();
            let result = std::panic::catch_unwind(|| digest(kind, &folder, &bytes));
            let outcome = Outcome {
                peak: PEAK.load(Ordering::Relaxed).saturating_sub(before),
                time: started.elapsed(),
                accepted: matches!(result, Ok(true)),
                panic: result.is_err(),
            };
            if done.send(outcome).is_err() {
                return;
            }
        }
    });
    let (mut largest, mut slowest) = (0usize, Duration::ZERO);
    for kind in Kind::ALL {
        let of_kind: Vec<&Vec<u8>> = sound
            .iter()
            .filter(|(of, _)| *of == kind)
            .map(|(_, bytes)| bytes)
            .collect();
        let mut accepted = 0;
        for number in 0..count {
            let mut random = Pcg64Mcg::seed_from_u64(number);
            let mut bytes = of_kind[number as usize % of_kind.len()].clone();
            damage(&mut bytes, &mut random);
            let what = format!("{kind:?} number {number}, {} bytes", bytes.len());
            let allowed = ALWAYS + PER_BYTE * bytes.len();
            // lies there if the process dies over it
            to_worker.send((kind, bytes)).unwrap();
            let outcome = outcomes
                .recv_timeout(LONGEST)
                .unwrap_or_else(|_| panic!("{what}: no end in {LONGEST:?}"));
            assert!(!outcome.panic, "{what}: panicked");
            assert!(
                outcome.peak <= allowed,
                "{what}: took {} bytes, {allowed} are justified",
                outcome.peak
            );
            (largest, slowest) = (largest.max(outcome.peak), slowest.max(outcome.time));
            accepted += u64::from(outcome.accepted);
        }
        println!("{kind:?}: {count} damaged files, {accepted} still accepted");
        assert!(accepted < count, "damage that is never noticed is none");
    }
    println!("largest memory {} KiB, slowest {slowest:?}", largest >> 10);
}

#[test]
#[ignore = "writes fuzz/corpus, from which the fuzz targets start"]
fn sound_files_for_the_fuzz_targets() {
    let scratch = tempfile::tempdir().unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (number, (kind, bytes)) in seeds(scratch.path()).into_iter().enumerate() {
        let folder = corpus.join(format!("{kind:?}").to_lowercase());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("seed{number}")), bytes).unwrap();
    }
}

#[test]
fn damaged_files_are_errors() {
    survive(600);
}

#[test]
#[ignore = "minutes; HOSTILE_INPUTS sets the number of files of all kinds together, 100000 without"]
fn a_hundred_thousand_damaged_files_are_errors() {
    let inputs =
        std::env::var("HOSTILE_INPUTS").map_or(100_000, |text| text.parse().expect("a number"));
    survive(inputs / Kind::ALL.len() as u64);
}
