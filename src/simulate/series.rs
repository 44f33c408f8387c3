//! Options turned into a cell, scans and a camera.

use super::cell::Cell;
use super::detector::DetectorPlan;
use super::random_cell::{self, RandomPair};
use super::truth::Truth;
use super::{Format, Options, Preset, Turn};
use crate::config::Acquisition;
use crate::error::{Error, Result};
use crate::phantom::{Motion, Phantom, PhantomScan};
use crate::reconstruct::acquisition::Field;

/// One scan of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanPlan {
    /// Name in `series.toml`.
    pub name: String,
    /// File or folder, relative to the series.
    pub file: String,
    /// How it is stored.
    pub format: Format,
    /// State of the cell: 0 pristine, 1 plated, 2 stripped.
    pub stage: usize,
    /// How the sample stands, relative to the first scan.
    pub motion: Motion,
    /// Column of the rotation axis at the middle row \[px\].
    pub axis_px: f64,
    /// Lean of the axis \[px per row\].
    pub slope_px_per_row: f64,
}

/// A whole series, planned but not taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its kind.
    pub preset: Preset,
    /// Everything random follows from it.
    pub seed: u64,
    /// Projections per scan, over [`Series::turn_deg`] with both ends.
    pub n_angles: usize,
    /// 180 or 360 degrees.
    pub turn_deg: f64,
    /// Detector rows.
    pub n_rows: usize,
    /// Detector columns.
    pub n_cols: usize,
    /// Columns and rows of a slice: those of the detector, or more where the axis stands near its edge.
    pub slice_cols: usize,
    /// Size of a pixel \[um\].
    pub pixel_size_um: f64,
    /// Flats before and again after the projections.
    pub n_flats: usize,
    /// Darks before the flats.
    pub n_darks: usize,
    /// Blur of scintillator and lens, one sigma \[px\].
    pub blur_px: f64,
    /// Faults and noise.
    pub detector: DetectorPlan,
    /// The sample; `None` for the large scan, which has a simpler one.
    pub cell: Option<Cell>,
    /// The scans in the order of time.
    pub scans: Vec<ScanPlan>,
}

/// `[angles, rows, cols]`, flats and darks of a preset.
fn size(preset: Preset) -> ([usize; 3], usize, usize) {
    match preset {
        Preset::Sample => ([181, 64, 144], 10, 5),
        Preset::Demo => ([401, 160, 256], 20, 10),
        Preset::Null | Preset::Rigid => ([271, 96, 192], 20, 10),
        Preset::Random => ([301, 48, 160], 20, 10),
        Preset::Large => ([3001, 336, 1024], 10, 10),
    }
}

/// Width of the field of view \[um\]: a cell with a bore of 5 mm fits.
const FIELD_UM: f64 = 6660.0;

impl Series {
    /// Judges the options and works out everything but the frames.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes, photons or motions that make no scan.
    pub fn plan(options: &Options) -> Result<Series> {
        let ([angles, rows, cols], n_flats, n_darks) = size(options.preset);
        let full_turn = options.turn != Turn::Half;
        // steps as long as those of a half turn
        let angles = if full_turn { 2 * angles - 1 } else { angles };
        let n_angles = within("angles", options.angles.unwrap_or(angles), 3, 1_000_000)?;
        let n_rows = within("rows", options.rows.unwrap_or(rows), 16, 65_535)?;
        let n_cols = within("cols", options.cols.unwrap_or(cols), 32, 65_535)?;
        let defaults = DetectorPlan::default();
        let random = (options.preset == Preset::Random).then(|| RandomPair::new(options.seed));
        let detector = DetectorPlan {
            photons: options
                .photons
                .or(random.as_ref().map(|random| random.photons))
                .unwrap_or(defaults.photons),
            noise: options.noise,
            artefacts: options.artefacts,
            ..defaults
        };
        if !(detector.photons >= 1.0 && detector.photons <= 1e12) {
            return Err(Error::config(
                "photons",
                detector.photons,
                "must lie between 1 and 1e12 photons per pixel and frame",
            ));
        }
        if !(0.0..=100.0).contains(&detector.artefacts) {
            return Err(Error::config(
                "artefacts",
                detector.artefacts,
                "must lie between 0 (none) and 100; 1 is usual",
            ));
        }
        let blur_px = options
            .blur_px
            .or(random.as_ref().map(|random| random.blur_px))
            .unwrap_or(if options.preset == Preset::Large {
                0.0
            } else {
                0.7
            });
        if !(0.0..=10.0).contains(&blur_px) || (blur_px > 0.0 && options.preset == Preset::Large) {
            return Err(Error::config(
                "blur",
                blur_px,
                "must lie between 0 and 10 pixels, and be 0 for the large scan",
            ));
        }
        let scans = scans(options, [n_rows, n_cols])?;
        let offset = matches!(options.turn, Turn::OffsetLeft | Turn::OffsetRight);
        if full_turn && options.preset == Preset::Large {
            return Err(Error::config(
                "turn",
                format!("{:?}", options.turn),
                "the large scan is taken over a half turn only; choose another preset",
            ));
        }
        let slice_cols = if offset {
            offset_width(&scans, [n_rows, n_cols])
        } else {
            n_cols
        };
        let shape = [n_rows, slice_cols];
        let upright = scans.iter().all(|scan| scan.motion.tilt_rad == [0.0; 2]);
        let cell = match options.preset {
            Preset::Large => None,
            Preset::Random => {
                let cell = random_cell::cell(shape, options.seed, options.truncated, upright);
                Some(cell)
            }
            _ => Some(Cell::new(shape, options.seed, options.truncated)),
        };
        Ok(Series {
            preset: options.preset,
            seed: options.seed,
            n_angles,
            turn_deg: if full_turn { 360.0 } else { 180.0 },
            n_rows,
            n_cols,
            slice_cols,
            pixel_size_um: (1000.0 * FIELD_UM / slice_cols as f64).round() / 1000.0,
            n_flats,
            n_darks,
            blur_px,
            detector,
            cell,
            scans,
        })
    }

    /// Row that looks at z = 0.
    #[must_use]
    pub fn middle_row(&self) -> f64 {
        (self.n_rows as f64 - 1.0) / 2.0
    }

    /// Angle of every projection \[degrees\], both ends included.
    #[must_use]
    pub fn angles_deg(&self) -> Vec<f64> {
        (0..self.n_angles)
            .map(|k| self.turn_deg * k as f64 / (self.n_angles - 1) as f64)
            .collect()
    }

    /// The same \[rad\].
    #[must_use]
    pub fn angles_rad(&self) -> Vec<f64> {
        self.angles_deg().into_iter().map(f64::to_radians).collect()
    }

    /// Pixel size \[cm\].
    #[must_use]
    pub fn pixel_cm(&self) -> f64 {
        self.pixel_size_um * 1e-4
    }

    /// The sample of a scan on the grid of the first scan, unmoved and before the blur \[1/cm\].
    ///
    /// # Panics
    /// If there is no such scan.
    #[must_use]
    pub fn sample(&self, scan: usize) -> Phantom {
        match &self.cell {
            Some(cell) => cell.at(self.scans[scan].stage),
            None => super::large::Layers::new([self.n_rows, self.n_cols]).phantom(),
        }
    }

    /// The change of a scan against the first on the grid of the first, before the blur \[1/cm\]: what was added, and (positive) what was taken.
    ///
    /// # Panics
    /// If there is no such scan.
    #[must_use]
    pub fn change(&self, scan: usize) -> (Phantom, Phantom) {
        let (plus, minus) = self
            .cell
            .as_ref()
            .map(|cell| cell.change(self.scans[0].stage, self.scans[scan].stage))
            .unwrap_or_default();
        (Phantom::new(plus), Phantom::new(minus))
    }

    /// A scan without camera: exact line integrals of the moved sample.
    ///
    /// # Panics
    /// If there is no such scan.
    #[must_use]
    pub fn ideal(&self, scan: usize) -> PhantomScan {
        let plan = &self.scans[scan];
        let mut ideal = PhantomScan::half_turn(
            self.sample(scan).moved(&plan.motion),
            self.n_angles,
            self.n_rows,
            self.n_cols,
        );
        ideal.angles_rad = self.angles_rad();
        ideal.axis_px = plan.axis_px;
        ideal.slope_px_per_row = plan.slope_px_per_row;
        ideal.length_per_px = self.pixel_cm();
        ideal.blur_px = self.blur_px;
        ideal
    }

    /// What is true of the series; `zingers` is filled in as the scans are taken.
    #[must_use]
    pub fn truth(&self) -> Truth {
        Truth::of(self)
    }
}

fn within(key: &str, value: usize, low: usize, high: usize) -> Result<usize> {
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(Error::config(
            key,
            value,
            format!("must lie between {low} and {high}"),
        ))
    }
}

/// Width of the slices that scans with these axes tell; see [`Field`].
fn offset_width(scans: &[ScanPlan], [n_rows, n_cols]: [usize; 2]) -> usize {
    let half = (n_rows as f64 - 1.0) / 2.0;
    let full_turn: Vec<f64> = (0..360).map(|k| f64::from(k).to_radians()).collect();
    scans
        .iter()
        .map(|scan| {
            let ends = [-half, half].map(|row| scan.axis_px + scan.slope_px_per_row * row);
            Field::of_scan(Acquisition::Half, &full_turn, n_cols, ends)
                .map_or(n_cols, |field| field.width)
        })
        .max()
        .unwrap_or(n_cols)
}

/// Names, formats, stages and motions.
fn scans(options: &Options, [n_rows, n_cols]: [usize; 2]) -> Result<Vec<ScanPlan>> {
    use Format::{Nxtomo, NxtomoGzip, Tiff};
    /// Name, format, stage, shift and turn, axis from the middle of the detector.
    type Row = (&'static str, Format, usize, ([f64; 3], f64), f64);
    let still = ([0.0; 3], 0.0);
    let table: &[Row] = match options.preset {
        Preset::Sample => &[
            ("pristine", NxtomoGzip, 0, still, 3.3),
            ("stripped", Tiff, 2, ([1.6, -2.3, 1.7], 0.0), 2.6),
        ],
        Preset::Demo => &[
            ("pristine", Nxtomo, 0, still, 4.6),
            ("plated", Nxtomo, 1, ([2.4, -1.7, 3.3], 0.0), 5.1),
            ("stripped", Nxtomo, 2, ([-3.6, 2.2, -1.4], 0.0), 3.8),
        ],
        Preset::Null => &[
            ("first", Nxtomo, 0, still, 3.7),
            ("second", Nxtomo, 0, ([2.4, -1.7, 1.3], 0.0), 4.4),
        ],
        Preset::Rigid => &[
            ("pristine", Nxtomo, 0, still, 3.7),
            ("stripped", Nxtomo, 2, ([2.4, -1.7, 1.3], 0.3), 4.4),
        ],
        Preset::Random => &[
            ("before", Nxtomo, 0, still, 3.7),
            ("after", Nxtomo, 2, still, 4.4),
        ],
        Preset::Large => &[("large", Nxtomo, 0, still, 6.4)],
    };
    let random = (options.preset == Preset::Random).then(|| RandomPair::new(options.seed).motion);
    let limit = [
        0.05 * n_cols as f64,
        0.05 * n_cols as f64,
        0.25 * n_rows as f64,
    ];
    let last = n_cols as f64 - 1.0;
    // an offset scan sees a tenth of the detector from both sides
    let middle = match options.turn {
        Turn::Half | Turn::Full => last / 2.0,
        Turn::OffsetLeft => 0.1 * last,
        Turn::OffsetRight => 0.9 * last,
    };
    let mut out = Vec::with_capacity(table.len());
    for (index, &(name, format, stage, (shift, turn), offset)) in table.iter().enumerate() {
        let later = index > 0;
        // a small detector has small shifts and offsets
        let small = (n_cols as f64 / 144.0).min(n_rows as f64 / 64.0).min(1.0);
        let own = random.filter(|_| later).unwrap_or(Motion {
            shift,
            rotation_rad: turn.to_radians(),
            ..Motion::default()
        });
        let own = Motion {
            shift: own.shift.map(|voxels| voxels * small),
            ..own
        };
        let motion = Motion {
            shift: options.shift_voxel.filter(|_| later).unwrap_or(own.shift),
            rotation_rad: options
                .rotation_deg
                .filter(|_| later)
                .map_or(own.rotation_rad, f64::to_radians),
            ..own
        };
        let shift = motion.shift;
        if shift
            .iter()
            .zip(limit)
            .any(|(s, limit)| !s.is_finite() || s.abs() > limit)
        {
            let rule = format!(
                "must stay within +-{limit:?} voxel, or the sample leaves the field of view"
            );
            return Err(Error::config("shift", format!("{shift:?}"), rule));
        }
        if !motion.rotation_rad.is_finite() {
            return Err(Error::config(
                "rotation",
                motion.rotation_rad.to_degrees(),
                "must be an angle in degrees",
            ));
        }
        let format = options.format.unwrap_or(format);
        let file = if format == Tiff {
            name.to_string()
        } else {
            format!("{name}.nxs")
        };
        out.push(ScanPlan {
            name: name.into(),
            file,
            format,
            stage,
            motion,
            axis_px: middle + offset * small,
            // the large scan gets its speed from an upright axis
            slope_px_per_row: if options.preset == Preset::Large {
                0.0
            } else {
                // so little that row r can be taken to look at height r everywhere: less than one row at the edge
                (0.004 - 0.0007 * index as f64) * (256.0 / n_cols as f64).min(1.0)
            },
        });
    }
    Ok(out)
}
