//! How a scan was taken, in the pixels of the rows that a source gives: axis, acquisition, movement, binning.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::center::AxisFit;
use crate::config::ReconstructConfig;
use crate::error::Result;
use crate::pipeline::heights::Heights;
use crate::pipeline::reconstruct_scan::Motion;
use crate::reconstruct::acquisition::Field;
use crate::reconstruct::geometry::{Ray, rays};
use crate::reconstruct::support::{Reach, Support};
use crate::record::AxisCorrection;
use crate::scan::{Scan, Shifts, SinogramSource};

/// Everything about the rays of a scan.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanGeometry {
    /// Angle of each projection \[rad\].
    pub angles_rad: Vec<f64>,
    /// Rows of the source.
    pub n_rows: usize,
    /// Columns of the source.
    pub n_cols: usize,
    /// Row about which magnification acts.
    pub fixed_row: f64,
    /// Rotation axis.
    pub axis: AxisFit,
    /// What is seen of a slice.
    pub field: Field,
    /// Movement during the scan.
    pub shifts: Option<Shifts>,
    /// Rows are taken along the lean of the axis where it mixes heights by more than this at the edge \[px\].
    pub level_above_px: f64,
    /// How far from the axis the sample reaches.
    pub reach: Reach,
}

impl ScanGeometry {
    /// Of a scan whose axis was found, for its detector rows `rows`, before any binning.
    ///
    /// # Errors
    /// Those of [`Field::of_scan`].
    pub fn new(
        source: &dyn SinogramSource,
        axis: &AxisFit,
        rows: &Range<usize>,
        config: &ReconstructConfig,
    ) -> Result<ScanGeometry> {
        let (angles, shape) = (source.angles_rad(), [source.n_rows(), source.n_cols()]);
        Self::of_parts(angles, shape, source.shifts(), axis, rows, config)
    }

    /// The same for a scan that was opened only.
    ///
    /// # Errors
    /// Those of [`Field::of_scan`].
    pub fn of_scan(
        scan: &Scan,
        axis: &AxisFit,
        rows: &Range<usize>,
        config: &ReconstructConfig,
    ) -> Result<ScanGeometry> {
        let shape = [scan.n_rows(), scan.n_cols()];
        let shifts = scan.shifts.as_ref();
        Self::of_parts(&scan.angles_rad, shape, shifts, axis, rows, config)
    }

    pub(crate) fn of_parts(
        angles_rad: &[f64],
        [n_rows, n_cols]: [usize; 2],
        shifts: Option<&Shifts>,
        axis: &AxisFit,
        rows: &Range<usize>,
        config: &ReconstructConfig,
    ) -> Result<ScanGeometry> {
        Ok(ScanGeometry {
            angles_rad: angles_rad.to_vec(),
            n_rows,
            n_cols,
            fixed_row: (n_rows as f64 - 1.0) / 2.0,
            axis: axis.clone(),
            field: Field::of_scan(
                config.acquisition,
                angles_rad,
                n_cols,
                axis_ends(axis, rows),
            )?,
            shifts: shifts.cloned(),
            level_above_px: config.level_above,
            reach: Reach::Inside,
        })
    }

    /// The same scan seen by rows and columns averaged in groups of `binning`, the first group beginning at `first_row`.
    #[must_use]
    pub fn binned(&self, first_row: usize, binning: usize) -> ScanGeometry {
        if binning == 1 && first_row == 0 {
            return self.clone();
        }
        let b = binning as f64;
        // the middle of the first group
        let middle = (b - 1.0) / 2.0;
        let first = first_row as f64 + middle;
        ScanGeometry {
            angles_rad: self.angles_rad.clone(),
            n_rows: (self.n_rows - first_row) / binning,
            n_cols: self.n_cols / binning,
            fixed_row: (self.fixed_row - first) / b,
            axis: AxisFit {
                axis_px: (self.axis.at(first) - middle) / b,
                uncertainty_px: self.axis.uncertainty_px / b,
                middle_row: 0.0,
                methods: BTreeMap::new(),
                ..self.axis.clone()
            },
            field: Field {
                width: self.field.width / binning,
                ..self.field
            },
            shifts: self.shifts.as_ref().map(|shifts| Shifts {
                x_px: shifts.x_px.iter().map(|x| x / b).collect(),
                z_px: shifts.z_px.iter().map(|z| z / b).collect(),
            }),
            level_above_px: self.level_above_px,
            reach: self.reach.scaled(1.0 / b),
        }
    }

    /// Adds what was found against the reference to the axis; row 0 holds detector rows from `first` on, `binning` of them.
    pub fn correct_axis(&mut self, correction: &AxisCorrection, (first, binning): (usize, usize)) {
        let b = binning as f64;
        let row = first as f64 + b * self.axis.middle_row + (b - 1.0) / 2.0;
        self.axis.axis_px += correction.at(row) / b;
        self.axis.slope_px_per_row += correction.slope_px_per_row;
    }

    /// What the sample is taken for outside the field of view.
    #[must_use]
    pub fn support(&self) -> Option<Support> {
        self.reach.radius_px().map(|radius_px| Support {
            axis_px: self.axis.at(self.fixed_row),
            radius_px,
        })
    }

    /// Heights that the lean of the axis mixes at the edge of the detector, if rows are taken as they are \[px\].
    #[must_use]
    pub fn mixed_heights_px(&self) -> f64 {
        let middle = self.axis.at(self.fixed_row);
        let reach = middle.max(self.n_cols as f64 - 1.0 - middle);
        self.axis.slope_px_per_row.abs() * reach
    }

    /// Whether rows are taken along the lean of the axis.
    #[must_use]
    pub fn is_levelled(&self) -> bool {
        self.mixed_heights_px() > self.level_above_px
    }

    /// What a person should know of it.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.field.half {
            notes.push(format!(
                "half acquisition: the axis stands at column {:.1} of {}, slices are {} px wide",
                self.axis.axis_px, self.n_cols, self.field.width
            ));
        }
        let mixed = self.mixed_heights_px();
        if self.is_levelled() {
            notes.push(format!(
                "the axis leans by {:.3} degrees: rows are taken along the lean, which moves by {mixed:.1} rows at the edge",
                self.axis.slope_px_per_row.atan().to_degrees()
            ));
        } else if mixed > 0.1 {
            notes.push(format!(
                "the axis leans by {:.3} degrees: heights are mixed by up to {mixed:.2} rows at the edge \
                 (reconstruct.level_above = {} lets it pass)",
                self.axis.slope_px_per_row.atan().to_degrees(),
                self.level_above_px
            ));
        }
        if let Some(radius) = self.reach.radius_px() {
            notes.push(format!(
                "the sample is wider than the detector: rows go on as those of a disc of {:.0} px, {:.2} times as wide as the detector",
                2.0 * radius,
                2.0 * radius / self.n_cols as f64
            ));
        }
        if let Some(shifts) = &self.shifts {
            let most = |values: &[f64]| values.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
            notes.push(format!(
                "movement by the table: up to {:.2} px to the side, {:.2} px in height",
                most(&shifts.x_px),
                most(&shifts.z_px)
            ));
        }
        notes
    }

    /// Where the slices of a sample that is moved by `motion` stand.
    #[must_use]
    pub fn heights(&self, motion: &Motion) -> Heights<'_> {
        Heights {
            shift_px: motion.shift_z_px,
            scale: motion.magnification,
            fixed_row: self.fixed_row,
            shifts: self.shifts.as_ref(),
            lean: self.is_levelled().then_some(&self.axis),
        }
    }

    /// The slices of `slices` that every projection sees with all its columns, of a sample that is moved by `motion`.
    #[must_use]
    pub fn covered(&self, motion: &Motion, slices: &Range<usize>) -> Range<usize> {
        let heights = self.heights(motion);
        let [rx, ry] = motion.tilt_rad;
        let reach = rx.hypot(ry) * motion.magnification * self.field.width as f64 / 2.0;
        let [low, high] = [-reach, reach].map(|by| {
            let tilted = Heights {
                shift_px: heights.shift_px + by,
                ..heights
            };
            tilted.covered(slices, self.n_rows, self.n_cols)
        });
        let start = low.start.max(high.start);
        start..low.end.min(high.end).max(start)
    }

    /// The rays through a sample that is moved by `motion`.
    #[must_use]
    pub fn rays(&self, motion: &Motion) -> Vec<Ray> {
        let mut rays = rays(&self.angles_rad, motion.in_plane);
        self.field.weigh(&self.angles_rad, &mut rays);
        // along a rolled row a point is seen nearer to the axis, by the cosine of the roll
        let foreshortened = if self.is_levelled() {
            self.axis.slope_px_per_row.atan().cos()
        } else {
            1.0
        };
        let scale = motion.magnification * foreshortened;
        for (angle, ray) in rays.iter_mut().enumerate() {
            if scale != 1.0 {
                ray.cos *= scale;
                ray.sin *= scale;
            }
            if let Some(shifts) = &self.shifts {
                ray.offset_px += shifts.x_px[angle];
            }
        }
        rays
    }

    /// Radius around the axis within which every ray of every angle was measured \[px\], for slices `slices`.
    #[must_use]
    pub fn seen_radius(&self, slices: &Range<usize>) -> f64 {
        let last = self.n_cols as f64 - 1.0;
        let ends = axis_ends(&self.axis, slices);
        let (low, high) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
        let moved = self.shifts.as_ref().map_or(0.0, |shifts| {
            shifts.x_px.iter().fold(0.0_f64, |m, x| m.max(x.abs()))
        });
        if self.field.half {
            // the far side, at the row where it is narrowest
            let far = if low < last / 2.0 { last - high } else { low };
            return far - moved;
        }
        let near = low.min(last - high);
        // an axis far off the middle means a sample that fits on one side of it: then the whole slice is seen
        let whole = last / 2.0;
        let reach = if near < 0.75 * whole { whole } else { near };
        reach - moved
    }
}

/// Column of the axis at the first and the last of `rows`.
fn axis_ends(axis: &AxisFit, rows: &Range<usize>) -> [f64; 2] {
    [
        axis.at(rows.start as f64),
        axis.at(rows.end.max(1) as f64 - 1.0),
    ]
}
