//! How a scan is read: from its file for every slab, or once into a turned copy.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{ScanPlan, human_bytes};
use crate::config::Config;
use crate::io::scratch::turned_bytes;
use crate::scan::Scan;

/// Bytes that one thread decodes in a second: gzip and bitshuffle-LZ4 gave 800 MB/s on a quiet core of 2.8 GHz.
const DECODE_PER_THREAD: f64 = 500e6;
/// Bytes written to and read from a disk in a second, of a plain SSD.
const WRITE: f64 = 400e6;
const READ: f64 = 1000e6;
/// A copy must save this share of the time: the disk may be slower than thought.
const LEAST_GAIN: f64 = 0.7;
/// Share of the free disk that a copy may take.
const MOST_DISK: f64 = 0.9;

/// The way one scan is read, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Reading {
    /// Bytes decoded from the file in all.
    pub decoded_bytes: u64,
    /// The folder of the turned copy and its size, where one is made.
    pub scratch: Option<Scratch>,
    /// Why not, or why so.
    pub why: String,
}

/// A turned copy on the disk.
#[derive(Debug, Clone, Serialize)]
pub struct Scratch {
    /// Where.
    pub folder: PathBuf,
    /// How large.
    pub bytes: u64,
}

/// Row ranges of a scan that are read, each with how often.
pub(super) type Reads = Vec<(Range<usize>, usize)>;

/// Decides how `scan` is read when the rows of `reads` are needed; `output` is where scratch goes by default.
pub(super) fn plan(config: &Config, scan: &Scan, reads: &Reads, output: &Path) -> Reading {
    let stack = &scan.projections;
    let n_angles = scan.n_angles() as u64;
    let [_, n_rows, n_cols] = stack.shape();
    let direct: u64 = reads
        .iter()
        .map(|(rows, times)| stack.decoded_bytes(rows.clone()) * *times as u64 * n_angles)
        .sum();
    let wanted: u64 = reads
        .iter()
        .map(|(rows, times)| {
            (rows.len() * times * n_cols * stack.pixel_type().bytes()) as u64 * n_angles
        })
        .sum();
    let whole = stack.decoded_bytes(0..n_rows) * n_angles;
    let flats = scan.flat_groups.iter().chain(&scan.dark_groups);
    let n_frames = scan.n_angles() + flats.map(|group| group.frames.len()).sum::<usize>();
    let bytes = turned_bytes(stack.shape(), stack.pixel_type(), n_frames);
    let stay = |why: String| Reading {
        decoded_bytes: direct,
        scratch: None,
        why,
    };
    if direct <= wanted + wanted / 10 {
        return stay("rows stand alone in the file".into());
    }
    let decode = DECODE_PER_THREAD * rayon::current_num_threads() as f64;
    let from_file = direct as f64 / decode;
    let through_copy = whole as f64 / decode + bytes as f64 / WRITE + wanted as f64 / READ;
    if through_copy > LEAST_GAIN * from_file {
        return stay(format!(
            "decoding {} for all slabs is not dearer than a copy of {}",
            human_bytes(direct),
            human_bytes(bytes)
        ));
    }
    let folder = match config.run.scratch.as_str() {
        "none" => return stay("run.scratch is none".into()),
        "" if output.as_os_str().is_empty() => PathBuf::from("."),
        "" => output.to_path_buf(),
        given => PathBuf::from(given),
    };
    if let Some(free) = free_bytes(&folder)
        && bytes as f64 > MOST_DISK * free as f64
    {
        return stay(format!(
            "a copy of {} does not fit into {} ({} free); give run.scratch another folder",
            human_bytes(bytes),
            folder.display(),
            human_bytes(free)
        ));
    }
    Reading {
        decoded_bytes: whole,
        why: format!("{} would be decoded without it", human_bytes(direct)),
        scratch: Some(Scratch { folder, bytes }),
    }
}

/// Bytes of the turned copies that are there at once, and whether those made for the search of the axis are kept for the
/// slices: where all of them fit beside `written` bytes of output.
pub(super) fn copies(scans: &[ScanPlan], written: u64) -> (u64, bool) {
    let copies = || {
        scans
            .iter()
            .filter_map(|scan| scan.reading.scratch.as_ref())
    };
    let all: u64 = copies().map(|copy| copy.bytes).sum();
    let largest = copies().map(|copy| copy.bytes).max().unwrap_or(0);
    let room = copies().filter_map(|copy| free_bytes(&copy.folder)).min();
    match room {
        Some(free) if (all + written) as f64 <= MOST_DISK * free as f64 => (all, true),
        _ => (largest, false),
    }
}

/// Free space of the file system that holds `folder`, or will; `None` where it is not known.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    let full = std::path::absolute(folder).ok()?;
    let there = full.ancestors().find(|path| path.exists())?;
    let there = there.canonicalize().ok()?;
    let disks = sysinfo::Disks::new_with_refreshed_list();
    disks
        .iter()
        .filter(|disk| there.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().as_os_str().len())
        .map(sysinfo::Disk::available_space)
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scratch {
            None => write!(
                f,
                "read from the file for every slab, {} decoded ({})",
                human_bytes(self.decoded_bytes),
                self.why
            ),
            Some(scratch) => write!(
                f,
                "decoded once ({}) into a turned copy of {} in {} ({}); the copy is gone when the program ends",
                human_bytes(self.decoded_bytes),
                human_bytes(scratch.bytes),
                scratch.folder.display(),
                self.why
            ),
        }
    }
}
