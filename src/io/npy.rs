//! Line integrals in a `.npy` file, `[row, angle, col]`, read by rows.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3};
use npyz::{DType, NpyHeader, Order};

use crate::error::{Error, Result};
use crate::scan::{Shifts, SinogramSource, Sinograms};

/// Line integrals of a `.npy` file, f32 or f64; nothing is read before it is asked for.
#[derive(Debug)]
pub struct NpySinograms {
    path: PathBuf,
    /// Offset of the first value.
    start: u64,
    /// `[row, angle, col]`
    shape: [usize; 3],
    width: Width,
    big_endian: bool,
    angles_rad: Vec<f64>,
    /// Projections of the file that are used.
    used: Vec<usize>,
    shifts: Option<Shifts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    F32,
    F64,
}

/// Opens a `.npy` of line integrals `[row, angle, col]` taken at `angles_rad` \[rad\].
///
/// # Errors
/// What is no `.npy`, other axes or types than three of f32 or f64 in C order, a truncated file, no values, and a
/// number of angles other than the file's.
pub fn open_line_integrals(path: &Path, angles_rad: Vec<f64>) -> Result<NpySinograms> {
    let hint = "save it with numpy.save as a C-ordered f32 array [row, angle, col]";
    let file = File::open(path).map_err(Error::io("open", path))?;
    let len = file.metadata().map_err(Error::io("read", path))?.len();
    let mut reader = BufReader::new(file);
    let header = read_header(&mut reader, path)?;
    let start = reader.stream_position().map_err(Error::io("read", path))?;
    let text = header.dtype().descr().trim_matches('\'').to_string();
    let (width, big_endian) = match (&header.dtype(), text.as_str()) {
        (DType::Plain(_), "<f4" | "=f4") => (Width::F32, false),
        (DType::Plain(_), "<f8" | "=f8") => (Width::F64, false),
        (DType::Plain(_), ">f4") => (Width::F32, true),
        (DType::Plain(_), ">f8") => (Width::F64, true),
        _ => {
            return Err(Error::input(
                path,
                format!("expected f32 or f64 values, found {text}"),
                hint,
            ));
        }
    };
    let found: Vec<usize> = header
        .shape()
        .iter()
        .map(|&n| usize::try_from(n).unwrap_or(usize::MAX))
        .collect();
    let [rows, angles, cols] = found[..] else {
        return Err(Error::input(
            path,
            format!("expected three axes [row, angle, col], found {found:?}"),
            hint,
        ));
    };
    if header.order() != Order::C {
        return Err(Error::input(path, "its values are in Fortran order", hint));
    }
    let size = if width == Width::F32 { 4u64 } else { 8 };
    let bytes = found
        .iter()
        .try_fold(size, |bytes, &n| bytes.checked_mul(n as u64));
    if bytes == Some(0) {
        return Err(Error::input(
            path,
            format!("it holds no values {found:?}"),
            hint,
        ));
    }
    match bytes.and_then(|bytes| bytes.checked_add(start)) {
        Some(needed) if needed <= len => {}
        needed => {
            let needed = needed.map_or_else(
                || "more than any file".into(),
                |needed| format!("{needed} bytes"),
            );
            return Err(Error::input(
                path,
                format!("the file is truncated: {len} bytes, but its header says {needed}"),
                "copy it again",
            ));
        }
    }
    if angles != angles_rad.len() {
        return Err(Error::input(
            path,
            format!(
                "expected one angle for each of {angles} projections, found {}",
                angles_rad.len()
            ),
            format!("give --angles with {angles} angles, e.g. 0:180:{angles}"),
        ));
    }
    Ok(NpySinograms {
        path: path.to_path_buf(),
        start,
        shape: [rows, angles, cols],
        width,
        big_endian,
        used: (0..angles).collect(),
        shifts: None,
        angles_rad,
    })
}

/// Longest header that is believed \[bytes\]; `numpy` itself stays below 64 KiB.
const LONGEST_HEADER: u64 = 1 << 20;

/// The header of a `.npy`, and the reader at the first value.
///
/// # Errors
/// [`Error::Input`] for what is no `.npy`, or claims a header longer than any.
pub(crate) fn read_header(reader: &mut (impl Read + Seek), path: &Path) -> Result<NpyHeader> {
    let bad = |problem: String| {
        Error::input(
            path,
            format!("it is no .npy file ({problem})"),
            "save it with numpy.save",
        )
    };
    let failed = |error: std::io::Error| bad(error.to_string());
    let mut start = [0u8; 12];
    reader.read_exact(&mut start).map_err(failed)?;
    let long = u64::from(u32::from_le_bytes([
        start[8], start[9], start[10], start[11],
    ]));
    // version 1 has a length of two bytes, later ones of four
    if start[6] > 1 && long > LONGEST_HEADER {
        return Err(bad(format!("its header claims {long} bytes")));
    }
    reader.seek(SeekFrom::Start(0)).map_err(failed)?;
    NpyHeader::from_reader(reader).map_err(failed)
}

impl NpySinograms {
    /// Projections of the file.
    #[must_use]
    pub fn n_projections(&self) -> usize {
        self.shape[1]
    }

    /// Leaves out the projections `exclude`, counted from 0 in the file.
    ///
    /// # Errors
    /// [`Error::Config`] for a projection that the file does not have, and when none is left.
    pub fn without(mut self, exclude: &[usize]) -> Result<Self> {
        let used = super::assemble::leave_out(self.shape[1], exclude)?;
        self.angles_rad = used.iter().map(|&k| self.angles_rad[k]).collect();
        self.shifts = self.shifts.map(|shifts| shifts.of(&used));
        self.used = used;
        Ok(self)
    }

    /// With the movement of the sample in each projection of the file.
    #[must_use]
    pub fn with_shifts(mut self, shifts: &Shifts) -> Self {
        self.shifts = Some(shifts.of(&self.used));
        self
    }

    fn check(&self, rows: &Range<usize>) -> Result<()> {
        if rows.end <= self.shape[0] {
            return Ok(());
        }
        Err(Error::Shape {
            what: format!("rows asked of {}", self.path.display()),
            expected: vec![self.shape[0]],
            found: vec![rows.end],
            hint: "ask for rows that exist".into(),
        })
    }

    /// Reads `out.len()` values from number `first` on.
    fn read(&self, file: &mut File, first: usize, out: &mut [f32]) -> Result<()> {
        let size = if self.width == Width::F32 { 4 } else { 8 };
        let mut bytes = vec![0u8; out.len() * size];
        file.seek(SeekFrom::Start(self.start + (first * size) as u64))
            .map_err(Error::io("read", &self.path))?;
        file.read_exact(&mut bytes)
            .map_err(Error::io("read", &self.path))?;
        for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(size)) {
            *out = match (self.width, self.big_endian) {
                (Width::F32, false) => {
                    f32::from_le_bytes(bytes.try_into().expect("the chunk has 4 bytes"))
                }
                (Width::F32, true) => {
                    f32::from_be_bytes(bytes.try_into().expect("the chunk has 4 bytes"))
                }
                (Width::F64, false) => {
                    f64::from_le_bytes(bytes.try_into().expect("the chunk has 8 bytes")) as f32
                }
                (Width::F64, true) => {
                    f64::from_be_bytes(bytes.try_into().expect("the chunk has 8 bytes")) as f32
                }
            };
        }
        Ok(())
    }
}

impl SinogramSource for NpySinograms {
    fn n_rows(&self) -> usize {
        self.shape[0]
    }

    fn n_cols(&self) -> usize {
        self.shape[2]
    }

    fn angles_rad(&self) -> &[f64] {
        &self.angles_rad
    }

    fn shifts(&self) -> Option<&Shifts> {
        self.shifts.as_ref()
    }

    fn sinograms(&self, rows: Range<usize>) -> Result<Sinograms> {
        self.check(&rows)?;
        let [_, angles, cols] = self.shape;
        let mut sinograms = Array3::zeros((rows.len(), self.used.len(), cols));
        let mut file = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        // Row by row, so that the bytes never take as much memory as the values.
        for (row, mut sinogram) in rows.zip(sinograms.outer_iter_mut()) {
            let values = sinogram
                .as_slice_mut()
                .expect("a fresh array is contiguous");
            if self.used.len() == angles {
                self.read(&mut file, row * angles * cols, values)?;
                continue;
            }
            for (&angle, line) in self.used.iter().zip(values.chunks_exact_mut(cols)) {
                self.read(&mut file, (row * angles + angle) * cols, line)?;
            }
        }
        Ok(sinograms)
    }

    fn projection(&self, angle: usize, rows: Range<usize>) -> Result<Array2<f32>> {
        self.check(&rows)?;
        let [_, angles, cols] = self.shape;
        let Some(&angle) = self.used.get(angle) else {
            return Err(Error::Shape {
                what: format!("projection asked of {}", self.path.display()),
                expected: vec![self.used.len()],
                found: vec![angle],
                hint: "ask for a projection that exists".into(),
            });
        };
        let mut projection = Array2::zeros((rows.len(), cols));
        let mut file = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        for (row, mut line) in rows.zip(projection.outer_iter_mut()) {
            let values = line.as_slice_mut().expect("a fresh array is contiguous");
            self.read(&mut file, (row * angles + angle) * cols, values)?;
        }
        Ok(projection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A .npy of format version 1.0, written by hand after the numpy format description.
    fn write(folder: &Path, descr: &str, order: &str, shape: &str, body: &[u8]) -> PathBuf {
        let mut header =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
        while (header.len() + 11) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(body);
        let path = folder.join("line_integrals.npy");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn value(row: usize, angle: usize, col: usize) -> f64 {
        (row * 100 + angle * 10 + col) as f64 + 0.5
    }

    fn body(convert: impl Fn(f64) -> Vec<u8>) -> Vec<u8> {
        let mut body = Vec::new();
        for row in 0..3 {
            for angle in 0..4 {
                for col in 0..5 {
                    body.extend(convert(value(row, angle, col)));
                }
            }
        }
        body
    }

    #[test]
    fn rows_and_projections_come_from_their_places_in_every_type() {
        let folder = tempfile::tempdir().unwrap();
        let cases: [(&str, Vec<u8>); 4] = [
            ("<f4", body(|v| (v as f32).to_le_bytes().to_vec())),
            ("<f8", body(|v| v.to_le_bytes().to_vec())),
            (">f4", body(|v| (v as f32).to_be_bytes().to_vec())),
            (">f8", body(|v| v.to_be_bytes().to_vec())),
        ];
        for (descr, body) in cases {
            let path = write(folder.path(), descr, "False", "(3, 4, 5)", &body);
            let source = open_line_integrals(&path, vec![0.0; 4]).unwrap();
            assert_eq!((source.n_rows(), source.n_cols()), (3, 5));
            let rows = source.sinograms(1..3).unwrap();
            let projection = source.projection(2, 1..3).unwrap();
            assert_eq!(rows.dim(), (2, 4, 5));
            for row in 0..2 {
                for col in 0..5 {
                    assert!(
                        (0..4).all(|angle| f64::from(rows[[row, angle, col]])
                            == value(row + 1, angle, col)),
                        "{descr}"
                    );
                    assert_eq!(
                        f64::from(projection[[row, col]]),
                        value(row + 1, 2, col),
                        "{descr}"
                    );
                }
            }
            assert!(source.sinograms(2..4).is_err() && source.projection(4, 0..1).is_err());
        }
    }

    #[test]
    fn what_cannot_be_line_integrals_is_refused_in_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let full = body(|v| (v as f32).to_le_bytes().to_vec());
        let message = |descr: &str, order: &str, shape: &str, body: &[u8], angles: usize| {
            let path = write(folder.path(), descr, order, shape, body);
            open_line_integrals(&path, vec![0.0; angles])
                .unwrap_err()
                .to_string()
        };
        assert!(message("<i4", "False", "(3, 4, 5)", &full, 4).contains("f32 or f64"));
        assert!(message("<f4", "True", "(3, 4, 5)", &full, 4).contains("Fortran"));
        assert!(message("<f4", "False", "(12, 5)", &full, 4).contains("three axes"));
        assert!(message("<f4", "False", "(3, 4, 5)", &full[..100], 4).contains("truncated"));
        assert!(message("<f4", "False", "(3, 4, 5)", &full, 7).contains("4 projections, found 7"));
        assert!(message("<f4", "False", "(0, 4, 5)", &[], 4).contains("no values"));
        assert!(message("<f4", "False", "(1000000000000, 4, 5)", &full, 4).contains("truncated"));
        let text = folder.path().join("no.npy");
        std::fs::write(&text, "hello").unwrap();
        assert!(open_line_integrals(&text, vec![]).is_err());
    }
}
