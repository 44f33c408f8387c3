//! The series lock: detector pixels that answer wrongly, found once over all scans of a series and treated alike in each.
//!
//! A pixel with a wrong response makes a stripe at one place of the detector, while the sample moves between the scans and
//! is never quite the same. Methods that judge each scan alone cannot tell a stripe from structure of the sample that
//! stays in one column; they change other columns in each scan, and what they take away differently comes out as a
//! change that never was. The lock asks all scans together:
//!
//! 1. **Evidence** (`evidence`): one pass over a subset of the projections of each scan leaves, per pixel, the mean line
//!    integral of each eighth of the scan and how much the pixel moves from one projection to the next.
//! 2. **Search** (`search`): the anomaly of a pixel is its mean less the cubic through its good neighbours in the row, as a
//!    multiple of what good pixels around it show. Only what all scans share (the least anomaly over the scans, where
//!    they agree in sign, in each eighth) counts. Structure of the sample moves and is not shared. A fault that spans rows and hides in the noise of each is
//!    found in five rows taken together, where neighbours that are wrong alike, and hide each other, are looked at with all of them left out as well; it is
//!    taken where it stands out half as far in its own row.
//!    Stripes too broad to look across are found by their two edges (`broad`), where the sample moved between the scans.
//! 3. **Treatment** (`treat`): a pixel that still follows its neighbours keeps what it measured; only the slow part of its
//!    deviation from them (a running median over an eighth of the angles) is taken off: gain errors, drift, steps and
//!    wrong curvature, as large as they are in that scan. A pixel that does not respond is interpolated. Of a broad stripe the slow part of the
//!    steps at its two edges is taken off, in a straight line from one to the other. All other pixels keep their values bit
//!    by bit.
//!
//! The same pixels are treated in the same way in every scan. Nothing here is in the literature that we know of; the parts
//! are: the robust detection of stripes on averaged data (Vo, Atwood and Drakopoulos 2018, algorithm 4) and the double
//! flat field (see `double_flat`), which takes the angular mean as it is and with it the sample.

mod anomaly;
mod broad;
mod course;
mod evidence;
mod row;
mod scales;
mod search;
#[cfg(test)]
mod tests;
mod treat;

use std::borrow::Borrow;
use std::ops::Range;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::CorrectedScan;
use crate::config::LockConfig;
use crate::error::{Error, Result};
use crate::plan::forecast::cost::{Cost, repeated};
use crate::progress::Progress;
use crate::scan::SinogramSource;
use evidence::Evidence;

pub(super) use treat::{
    Scratch, median_width, median_width_broad, neighbours, slow_part_of_pixel, slow_part_over,
};

/// Scans looked at, at most, spread over the series: a wrong pixel shows in all of them.
pub const MOST_SCANS: usize = 5;

/// What is done with a pixel in every scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Verdict {
    /// Left as it is.
    Good = 0,
    /// The slow part of its deviation from its neighbours is taken off.
    Corrected = 1,
    /// Interpolated: it does not respond, or is without signal in some scan.
    Interpolated = 2,
}

impl Verdict {
    fn of(value: u8) -> Option<Verdict> {
        [Verdict::Good, Verdict::Corrected, Verdict::Interpolated]
            .into_iter()
            .find(|&verdict| verdict as u8 == value)
    }
}

/// The pixels of a detector that answer wrongly.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelMap {
    /// `[row, col]`
    verdicts: Array2<Verdict>,
    /// Whether the pixel lies in a broad stripe `[row, col]`; there is a good pixel between any two of them.
    broad: Array2<bool>,
    /// By how much each pixel is wrong: the root mean square over the eighths of the scan of the anomaly shared by all
    /// scans, in line integrals `[row, col]`; 0 where nothing was found.
    strength: Array2<f32>,
}

/// A broad stripe, as far as it is the same for every scan.
pub(super) struct BroadStripe {
    /// Its columns.
    pub(super) columns: Range<usize>,
    /// Columns on which the step at either end is measured, with their weights.
    pub(super) edges: [([usize; 4], [f32; 4]); 2],
    /// How far each of its columns lies on the way from the left end to the right one.
    pub(super) shares: Vec<f32>,
}

/// `stripes/lock.json`: what the series lock found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockRecord {
    /// Detector `[rows, columns]`.
    pub shape: [usize; 2],
    /// Scans that were asked.
    pub scans: Vec<String>,
    /// Projections of each that were looked at.
    pub projections: Vec<usize>,
    /// Pixels of which the slow part of the deviation is taken off in every scan.
    pub corrected: u64,
    /// Pixels that are interpolated in every scan (those without signal in some scan included).
    pub interpolated: u64,
    /// Pixels of broad stripes, whose level is brought to that of their surroundings in every scan.
    pub levelled: u64,
    /// Rows in which more than a quarter of the pixels looked wrong; nothing is corrected there.
    pub rows_given_up: u64,
    /// Root mean square of the shared anomaly of the corrected pixels, in line integrals.
    pub strength: f64,
}

impl PixelMap {
    /// A detector `[row, col]` without faults.
    #[must_use]
    pub fn clean(shape: (usize, usize)) -> PixelMap {
        PixelMap {
            verdicts: Array2::from_elem(shape, Verdict::Good),
            broad: Array2::from_elem(shape, false),
            strength: Array2::zeros(shape),
        }
    }

    /// One row with as many wrong pixels as detectors have, one in a hundred and twenty, to try the treatment on.
    pub(super) fn usual(n_cols: usize) -> PixelMap {
        let mut map = PixelMap::clean((1, n_cols));
        for col in (40..n_cols.saturating_sub(40)).step_by(120) {
            map.verdicts[[0, col]] = Verdict::Corrected;
        }
        map
    }

    /// `[row, col]`
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        self.verdicts.dim()
    }

    /// What is done with a pixel.
    #[must_use]
    pub fn verdict(&self, row: usize, col: usize) -> Verdict {
        self.verdicts[[row, col]]
    }

    /// What is done with each pixel of a row.
    pub(super) fn verdicts(&self, row: usize) -> Vec<Verdict> {
        self.verdicts.row(row).to_vec()
    }

    /// The most pixels of a row with that verdict.
    pub(super) fn most_in_a_row(&self, verdict: Verdict) -> usize {
        let rows = 0..self.shape().0;
        let per_row = rows.map(|row| self.columns(row, verdict).count());
        per_row.max().unwrap_or(0)
    }

    /// Columns of a row with that verdict.
    pub(super) fn columns(&self, row: usize, verdict: Verdict) -> impl Iterator<Item = usize> + '_ {
        let row = self.verdicts.row(row);
        (0..row.len()).filter(move |&col| row[col] == verdict)
    }

    /// Corrects the sinogram `[angle, col]` of transmission of a row in place.
    pub(super) fn treat(
        &self,
        row: usize,
        sinogram: &mut [f32],
        min_transmission: f32,
        scratch: &mut Scratch,
    ) {
        let verdicts = self.verdicts(row);
        let runs = self.runs(row);
        if !runs.is_empty() {
            treat::level(sinogram, &verdicts, &runs, min_transmission, scratch);
        }
        treat::treat(sinogram, &verdicts, min_transmission, scratch);
    }

    /// Broad stripes of a row.
    fn runs(&self, row: usize) -> Vec<Range<usize>> {
        let broad = self.broad.row(row);
        let mut runs: Vec<Range<usize>> = Vec::new();
        for col in (0..broad.len()).filter(|&col| broad[col]) {
            match runs.last_mut().filter(|run| run.end == col) {
                Some(run) => run.end = col + 1,
                None => runs.push(col..col + 1),
            }
        }
        runs
    }

    /// Broad stripes of a row that can be levelled, with what their steps are measured on.
    pub(super) fn broad_stripes(&self, row: usize) -> Vec<BroadStripe> {
        let of_run = |(columns, sums): (Range<usize>, [broad::StepSum; 2])| BroadStripe {
            shares: columns
                .clone()
                .map(|col| broad::share(&columns, col))
                .collect(),
            edges: sums.map(|sum| sum.terms()),
            columns,
        };
        let found = treat::measured(&self.verdicts(row), &self.runs(row));
        found.into_iter().map(of_run).collect()
    }

    /// The most broad stripes of a row, and the most columns in them.
    pub(super) fn most_broad(&self) -> [usize; 2] {
        let of_row = |row: usize| [self.runs(row).len(), self.levelled(row) as usize];
        let most = |a: [usize; 2], b: [usize; 2]| [a[0].max(b[0]), a[1].max(b[1])];
        (0..self.shape().0).map(of_row).fold([0, 0], most)
    }

    /// Pixels of broad stripes in a row.
    pub(super) fn levelled(&self, row: usize) -> u64 {
        self.broad.row(row).iter().filter(|&&broad| broad).count() as u64
    }

    /// Takes over what another map of the same detector says of `rows`.
    pub(crate) fn take_rows(&mut self, rows: Range<usize>, other: &PixelMap) {
        let rows = ndarray::s![rows, ..];
        self.verdicts
            .slice_mut(rows)
            .assign(&other.verdicts.slice(rows));
        self.broad.slice_mut(rows).assign(&other.broad.slice(rows));
        self.strength
            .slice_mut(rows)
            .assign(&other.strength.slice(rows));
    }

    /// Pixels with that verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.verdicts.iter().filter(|&&v| v == verdict).count() as u64
    }

    /// Verdicts (0, 1, 2; 4 more in broad stripes) and strengths as `[2, row, col]`, for a file.
    #[must_use]
    pub fn to_planes(&self) -> ndarray::Array3<f32> {
        let (rows, cols) = self.shape();
        ndarray::Array3::from_shape_fn((2, rows, cols), |(plane, row, col)| match plane {
            0 => f32::from(self.verdicts[[row, col]] as u8 + 4 * u8::from(self.broad[[row, col]])),
            _ => self.strength[[row, col]],
        })
    }

    /// Back from [`PixelMap::to_planes`]; `None` for anything else.
    #[must_use]
    pub fn from_planes(planes: &ndarray::Array3<f32>) -> Option<PixelMap> {
        let (2, rows, cols) = planes.dim() else {
            return None;
        };
        let mut map = PixelMap::clean((rows, cols));
        for row in 0..rows {
            for col in 0..cols {
                let value = planes[[0, row, col]];
                let whole = (0.0..=6.0).contains(&value) && value.fract() == 0.0;
                let value = if whole { value as u8 } else { u8::MAX };
                map.broad[[row, col]] = value >= 4;
                map.verdicts[[row, col]] = Verdict::of(value % 4)?;
                map.strength[[row, col]] = planes[[1, row, col]];
            }
        }
        Some(map)
    }

    /// The record of this map; names and numbers of the scans are the caller's.
    #[must_use]
    fn record(&self, rows_given_up: u64) -> LockRecord {
        let corrected = self.count(Verdict::Corrected);
        let power: f64 = self
            .strength
            .iter()
            .zip(&self.verdicts)
            .filter(|(_, verdict)| **verdict == Verdict::Corrected)
            .map(|(&strength, _)| f64::from(strength).powi(2))
            .sum();
        LockRecord {
            shape: [self.shape().0, self.shape().1],
            corrected,
            interpolated: self.count(Verdict::Interpolated),
            levelled: self.broad.iter().filter(|&&broad| broad).count() as u64,
            rows_given_up,
            strength: (power / corrected.max(1) as f64).sqrt(),
            ..LockRecord::default()
        }
    }
}

/// Memory that finding the map takes for `n_scans` scans of a detector `[row, col]`, when `rows` rows are looked at at a
/// time, beside the averaged flats of one scan \[bytes\].
#[must_use]
pub fn bytes(n_scans: usize, [n_rows, n_cols]: [usize; 2], rows: usize) -> u64 {
    let plane = |rows: usize| (rows.min(n_rows) * n_cols * 4) as u64;
    let threads = rayon::current_num_threads() as u64;
    let held = rows + search::HALO;
    let of_all = n_scans as u64 * evidence::PLANES;
    // stored evidence of each scan, and sums, extremes and the frames in work of one; later what each thread looks at together; the map
    of_all * plane(held)
        + ((4 + 2 * threads) * plane(held)).max(threads * of_all * plane(scales::WINDOW_ROWS))
        + (n_rows * n_cols * 6) as u64
}

/// Rows that can be looked at at a time under `room` bytes; at least 32, so that there is something to compare with.
#[must_use]
pub fn band_rows(n_scans: usize, shape: [usize; 2], room: u64) -> usize {
    let mut rows = shape[0].max(1);
    while rows > 32 && bytes(n_scans, shape, rows) > room {
        rows = rows.div_ceil(2).max(32);
    }
    rows
}

/// Samples whose evidence one thread gathers in a second, once they are read: dividing, logarithm, sums.
const GATHERED_PER_THREAD: f64 = 6e7;

/// What finding the map takes when all threads do so, without reading: the search is tried on noise.
pub(crate) fn cost(n_scans: usize, [n_rows, n_cols]: [usize; 2], projections: usize) -> Cost {
    let gathered = (n_scans * projections * n_rows * n_cols) as f64;
    let trial = 0..(2 * scales::BLOCK).min(n_rows);
    let held = search::with_halo(&trial, n_rows);
    let evidence: Vec<Evidence> = (0..n_scans)
        .map(|scan| Evidence::of_noise((held.len(), n_cols), scan as u64))
        .collect();
    let searched = repeated(|| {
        search::search(&evidence, &held, &trial, LockConfig::default().ratio);
        Ok(())
    });
    let rows = n_rows as f64 / trial.len().max(1) as f64;
    Cost::shared(gathered / GATHERED_PER_THREAD) + searched.map_or(Cost::NONE, |cost| cost * rows)
}

/// Projections looked at of a scan with `n_angles`.
#[must_use]
pub fn projections_of(n_angles: usize, config: &LockConfig) -> usize {
    evidence::chosen(n_angles, config.projections).len()
}

/// Finds the pixels that answer wrongly in all of `n_scans` scans of a detector `[row, col]`, `band` rows at a time.
///
/// Only `asked` rows are judged; the map is clean in all others. The verdict on a row does not depend on which are asked.
/// `open` gives a scan by its number; one is held at a time, and each band asks for it, and reads its projections, anew.
/// The result does not depend on `band` or on threads. With one scan there is nobody to agree with: the bar is
/// twice as high, and what stands still in the sample (rings around the axis) may be taken for the detector.
///
/// # Errors
/// [`Error::Shape`] when a detector differs; those of `open` and of reading.
pub fn find<S: Borrow<CorrectedScan>>(
    n_scans: usize,
    [n_rows, n_cols]: [usize; 2],
    asked: &[Range<usize>],
    mut open: impl FnMut(usize) -> Result<S>,
    config: &LockConfig,
    band: usize,
    progress: &Progress,
) -> Result<(PixelMap, LockRecord)> {
    let LockConfig {
        // the caller's question
        enabled: _,
        ratio,
        projections,
    } = *config;
    let band = band.clamp(1, n_rows.max(1));
    let bands: Vec<Range<usize>> = asked
        .iter()
        .flat_map(|rows| {
            let end = rows.end.min(n_rows);
            (rows.start..end)
                .step_by(band)
                .map(move |start| start..(start + band).min(end))
        })
        .collect();
    let stage = progress.stage(
        "comparing the detector over the scans",
        (n_scans * bands.len()) as u64,
        "scans",
    );
    let ratio = if n_scans == 1 { 2.0 * ratio } else { ratio };
    let mut map = PixelMap::clean((n_rows, n_cols));
    let mut given_up = 0;
    let mut looked_at = vec![0; n_scans];
    for rows in bands {
        let held = search::with_halo(&rows, n_rows);
        let mut evidence = Vec::with_capacity(n_scans);
        for (index, looked_at) in looked_at.iter_mut().enumerate() {
            let scan = open(index)?;
            let scan = scan.borrow();
            check_detector(scan, (n_rows, n_cols))?;
            let angles = evidence::chosen(scan.angles_rad().len(), projections);
            *looked_at = angles.len();
            evidence.push(Evidence::gather(scan, held.clone(), &angles)?);
            stage.inc(1);
        }
        let found = search::search(&evidence, &held, &rows, ratio);
        given_up += found.iter().filter(|row| row.given_up).count() as u64;
        for (row, found) in rows.zip(found) {
            for run in found.runs {
                for col in run.columns {
                    map.broad[[row, col]] = true;
                    map.strength[[row, col]] = run.strength;
                }
            }
            for (col, verdict, strength) in found.pixels {
                map.verdicts[[row, col]] = verdict;
                map.strength[[row, col]] = strength;
            }
        }
    }
    let record = LockRecord {
        projections: looked_at,
        ..map.record(given_up)
    };
    Ok((map, record))
}

/// The scan must have the detector `[row, col]`.
pub(super) fn check_detector(scan: &CorrectedScan, shape: (usize, usize)) -> Result<()> {
    let found = (scan.n_rows(), scan.n_cols());
    if found == shape {
        return Ok(());
    }
    Err(Error::Shape {
        what: format!("detector of {} [row, col]", scan.scan().path.display()),
        expected: vec![shape.0, shape.1],
        found: vec![found.0, found.1],
        hint:
            "the scans of a series share one detector; for others set correct.lock.enabled = false"
                .into(),
    })
}
