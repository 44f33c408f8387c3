//! From detector counts to line integrals.
//!
//! Takes a [`Scan`] of counts `[angle, row, col]`, gives sinograms `[row, angle, col]` of line integrals, slab by slab.
//! The steps, in this order, each counted in [`CorrectionCounts`]:
//!
//! 1. `(projection - dark) / (flat - dark)`, flats and darks averaged once for the whole detector;
//! 2. pixels without signal and samples that are not finite are filled by one rule (see `bad_pixels`);
//! 3. zingers, 4. pixels that answer wrongly in the whole series (see [`lock`]), 5. stripes, all on the transmission
//!    sinogram;
//! 6. transmission below the least one is raised to it, and `-ln` is taken.
//!
//! Every detector row is worked on by one thread in a fixed order, so results do not depend on the height of the slab
//! or on the number of threads. Where the config asks for it, drift of the beam is taken off after step 2 (see `beam`), the
//! sharp part of the angular mean after step 4 (see `double_flat`), and the phase is retrieved between stripes and logarithm (see `phase`).

mod bad_pixels;
mod beam;
mod double_flat;
mod family;
mod flat_dark;
/// Memory held for the averaged flats and darks of a scan `[angle, row, col]`, with groups before and after \[bytes\].
#[must_use]
pub fn fixed_bytes([_, n_rows, n_cols]: [usize; 3]) -> u64 {
    (3 * n_rows * n_cols * 4 + n_rows * 4) as u64
}

/// What correcting one row of a scan `[angle, row, col]` takes when all threads do so: tried on noise.
///
/// Phase retrieval needs the pixel \[um\]; without one it is refused anyway. Its time is that of the middle of a scan, whose
/// halo is shared by the bands of a slab of `slab` rows.
#[must_use]
pub(crate) fn cost_per_row(
    [n_angles, n_rows, n_cols]: [usize; 3],
    slab: usize,
    config: &CorrectConfig,
    pixel_size_um: Option<f64>,
) -> Cost {
    // a transmission of about one half with a few per cent of noise, from a multiplicative congruence
    let sinogram: Vec<f32> = (0..n_angles * n_cols)
        .map(|i| {
            0.5 + 0.03 * ((i.wrapping_mul(2_654_435_761) >> 8 & 0xffff) as f32 / 65536.0 - 0.5)
        })
        .collect();
    let stripe = StripeRemoval::from_config(&config.stripe);
    let guard = Guard::for_step(std::f64::consts::PI / n_angles.max(1) as f64, n_cols);
    let locked = PixelMap::usual(n_cols);
    let (dark, open) = (vec![0f32; n_cols], vec![1f32; n_cols]);
    let one = per_item(rayon::current_num_threads(), || {
        let mut sinogram = sinogram.clone();
        for line in sinogram.chunks_exact_mut(n_cols.max(1)) {
            let fields = dark.iter().zip(&open);
            let counts = line.iter_mut().zip(fields);
            counts.for_each(|(value, (dark, open))| *value = (*value - dark) / (open - dark));
            std::hint::black_box(line.iter().all(|value| value.is_finite()));
        }
        if config.zinger.enabled {
            remove_zingers(
                &mut sinogram,
                n_cols,
                config.zinger.threshold,
                config.zinger.size,
                config.zinger.guard.then_some(guard),
            );
        }
        if config.lock.enabled {
            locked.treat(
                0,
                &mut sinogram,
                config.min_transmission,
                &mut lock::Scratch::default(),
            );
        }
        if let Some(stripe) = &stripe {
            stripe.apply(&mut sinogram, n_cols, &mut stripe::Scratch::default());
        }
        minus_log(&mut sinogram, config.min_transmission);
    });
    match pixel_size_um.and_then(|size| Phase::new(&config.phase, size)) {
        None => one,
        Some(phase) => {
            let (held, per_row) = phase.cost([n_angles, n_rows, n_cols], slab);
            one * held + per_row
        }
    }
}

/// Memory that correcting a slab of `rows` rows of a scan `[angle, row, col]` needs beside its result \[bytes\].
///
/// Phase retrieval needs the pixel \[um\] for its halo; without one it is refused anyway.
#[must_use]
pub fn scratch_bytes(
    shape: [usize; 3],
    rows: usize,
    config: &CorrectConfig,
    pixel_size_um: Option<f64>,
) -> u64 {
    match pixel_size_um.and_then(|size| Phase::new(&config.phase, size)) {
        None => transmission_bytes(shape, rows, config),
        Some(phase) => {
            let (own, piece) = phase.scratch_bytes(shape, rows);
            own + transmission_bytes(shape, piece, config)
        }
    }
}

fn transmission_bytes(shape: [usize; 3], rows: usize, config: &CorrectConfig) -> u64 {
    let [n_angles, _, n_cols] = shape;
    let block = frames_per_block(shape, rows) * rows * n_cols * 4;
    let stripe = StripeRemoval::from_config(&config.stripe)
        .map_or(0, |stripe| stripe.scratch_bytes(n_cols, n_angles));
    let zinger = n_cols * 4;
    let double_flat = if config.double_flat > 0.0 {
        double_flat::bytes(shape)
    } else {
        0
    };
    // the deviation of one column and its slow part; a twentieth of the columns, corrected together, is many
    let lock = if config.lock.enabled {
        (3 + n_cols / 20) * n_angles * 4
    } else {
        0
    };
    let halo = Outliers::from_config(&config.zinger).halo() * n_angles * n_cols * 4;
    (block + rayon::current_num_threads().min(rows) * (stripe + zinger + lock) + halo) as u64
        + double_flat
}

fn frames_per_block([n_angles, _, n_cols]: [usize; 3], rows: usize) -> usize {
    (BLOCK_BYTES / (4 * rows * n_cols).max(1)).clamp(1, n_angles.max(1))
}

#[cfg(test)]
mod goldens;
pub mod line_integrals;
pub mod lock;
mod median;
mod minus_log;
mod outliers;
mod phase;
pub mod screen;
mod sliding;
mod spots;
pub mod stripe;
mod zinger;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use ndarray::{Array2, ArrayView3, Axis, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::config::{
    CorrectConfig, OutlierKind, PhaseMethod, StripeConfig, StripeMethod, ZingerConfig, ZingerDomain,
};
use crate::error::{Error, Result};
use crate::plan::forecast::cost::{Cost, per_item};
use crate::scan::{Scan, Shifts, SinogramSource, Sinograms, reused};
use bad_pixels::{fill_line, fill_lost_lines};
pub use beam::Beam;
pub use family::{Touched, out_of_family};
use flat_dark::FlatDark;
use lock::{PixelMap, Verdict};
use minus_log::minus_log;
use outliers::Outliers;
use phase::Phase;
use stripe::StripeRemoval;
pub use zinger::{Guard, remove_zingers};

/// Memory for the counts that are read at a time \[bytes\].
const BLOCK_BYTES: usize = 64 << 20;

/// What the corrections touched; adds up over slabs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CorrectionCounts {
    /// Samples corrected in all.
    pub samples: u64,
    /// Detector pixels without signal (flat minus dark below the floor).
    pub bad_pixels: u64,
    /// Samples that were NaN or infinite in the input, on pixels that are not bad.
    pub not_finite: u64,
    /// Lines of a sinogram (one detector row of one projection) without any good sample, taken from their neighbours
    /// in angle, or as open beam where a detector row has no good line at all.
    pub lost_lines: u64,
    /// Samples raised to the least transmission.
    pub clipped: u64,
    /// Pixels taken as large spots; they are among the bad ones.
    pub spots: u64,
    /// Lines left without the correction of beam drift because their air is far from open beam.
    pub beam_left: u64,
    /// Samples replaced as zingers.
    pub zingers: u64,
    /// Columns taken as large stripes, over all rows.
    pub large_stripes: u64,
    /// Columns taken as dead or fluctuating, over all rows.
    pub dead_stripes: u64,
    /// Pixels whose slow deviation from their neighbours was taken off by the series lock.
    pub lock_corrected: u64,
    /// Pixels interpolated by the series lock that carry signal in this scan.
    pub lock_interpolated: u64,
    /// Pixels of broad stripes whose level was corrected by the series lock.
    pub lock_levelled: u64,
}

impl std::ops::AddAssign for CorrectionCounts {
    fn add_assign(&mut self, other: Self) {
        self.samples += other.samples;
        self.bad_pixels += other.bad_pixels;
        self.not_finite += other.not_finite;
        self.lost_lines += other.lost_lines;
        self.clipped += other.clipped;
        self.spots += other.spots;
        self.beam_left += other.beam_left;
        self.zingers += other.zingers;
        self.large_stripes += other.large_stripes;
        self.dead_stripes += other.dead_stripes;
        self.lock_corrected += other.lock_corrected;
        self.lock_interpolated += other.lock_interpolated;
        self.lock_levelled += other.lock_levelled;
    }
}

/// A scan with its flats and darks averaged: gives line integrals by rows.
pub struct CorrectedScan {
    scan: Arc<Scan>,
    config: CorrectConfig,
    fields: Arc<FlatDark>,
    zinger: Option<(f32, usize, Option<Guard>)>,
    outliers: Outliers,
    /// Wrong pixels of the series, where it is locked.
    lock: Option<Arc<PixelMap>>,
    stripe: Option<StripeRemoval>,
    /// Blur of the double flat field \[px\], where it is asked for.
    double_flat: Option<f64>,
    /// Its map, once it was needed.
    sharp_mean: Arc<Mutex<Option<Arc<Array2<f32>>>>>,
    beam: Option<Beam>,
    phase: Option<Phase>,
    /// Large spots of each detector row \[px\].
    spots: Arc<Vec<u64>>,
    min_transmission: f32,
    bad_pixels: u64,
    warnings: Vec<String>,
    /// Buffers: as many as sinograms were ever worked on at once.
    scratch: Mutex<Vec<Scratch>>,
}

/// Buffers of the work on one sinogram.
#[derive(Default)]
struct Scratch {
    lock: lock::Scratch,
    stripe: stripe::Scratch,
}

impl CorrectedScan {
    /// Averages the flats and darks of the whole detector (in blocks of rows).
    ///
    /// Without darks, 0 is subtracted and a warning is kept. With `correct.without_flats` the data are taken as
    /// transmission as they are; flats and darks of the scan are then not used, which is a warning too.
    ///
    /// # Errors
    /// Those of the readers; [`Error::Input`] when there are no flats and `without_flats` is off;
    /// [`Error::Shape`] when flats or darks differ from the projections in rows or columns.
    pub fn new(scan: Scan, config: &CorrectConfig) -> Result<Self> {
        // taken apart, so that a parameter that no step uses does not compile
        let CorrectConfig {
            average,
            flat_in_time,
            floor_counts,
            min_transmission,
            without_flats,
            double_flat,
            zinger,
            stripe,
            // found over a whole series, by the caller
            beam,
            spots,
            phase,
            lock: _,
        } = config;
        let mut warnings = Vec::new();
        let has_flats = scan.flats.is_some()
            && scan
                .flat_groups
                .iter()
                .any(|group| !group.frames.is_empty());
        let mut fields = match (has_flats, *without_flats) {
            (false, false) => {
                return Err(Error::input(
                    &scan.path,
                    "expected flats (open-beam frames), found none",
                    "give them (--flats), or set correct.without_flats = true if the data are transmission already",
                ));
            }
            (found, true) => {
                if found {
                    warnings.push(
                        "the flats are not used because correct.without_flats = true".to_string(),
                    );
                }
                FlatDark::none(scan.n_rows())
            }
            (true, false) => {
                if scan.darks.is_none()
                    || scan.dark_groups.iter().all(|group| group.frames.is_empty())
                {
                    warnings.push(
                        "no darks: 0 counts are subtracted; give them with --darks".to_string(),
                    );
                }
                FlatDark::read(&scan, *average, *flat_in_time, *floor_counts)?
            }
        };
        let (n_rows, n_cols) = (scan.n_rows(), scan.n_cols());
        let readings = beam::monitor_of_flats(beam, &scan).filter(|_| !without_flats);
        if let Some(readings) = readings {
            fields.per_monitor_unit(readings, &scan.flat_groups);
        }
        let before: Vec<u64> = (0..n_rows).map(|row| fields.bad_pixels(row)).collect();
        if spots.find {
            let found = fields.mark_spots(spots);
            log::info!("spots: {found} pixels of the open beam are interpolated");
        }
        let in_spots = |(row, before)| fields.bad_pixels(row) - before;
        let spots = before.into_iter().enumerate().map(in_spots).collect();
        let bad_pixels: u64 = (0..n_rows).map(|row| fields.bad_pixels(row)).sum();
        warn_of_bad_pixels(&fields, n_rows, n_cols, *floor_counts, &mut warnings);
        Ok(CorrectedScan {
            fields: Arc::new(fields),
            zinger: zinger_rule(zinger, &scan),
            outliers: Outliers::from_config(zinger),
            lock: None,
            double_flat: (*double_flat > 0.0).then_some(*double_flat),
            sharp_mean: Arc::default(),
            stripe: StripeRemoval::from_config(stripe),
            beam: Beam::from_config(beam, &scan, readings.is_some())?,
            phase: Phase::from_config(phase, scan.pixel_size_um, &scan.path)?,
            spots: Arc::new(spots),
            min_transmission: *min_transmission,
            bad_pixels,
            warnings,
            scratch: Mutex::default(),
            config: config.clone(),
            scan: Arc::new(scan),
        })
    }

    /// Treats the pixels of `map` as it says, in this scan as in every other.
    ///
    /// # Errors
    /// [`Error::Shape`] when the map belongs to another detector.
    pub fn with_lock(mut self, map: Arc<PixelMap>) -> Result<CorrectedScan> {
        lock::check_detector(&self, map.shape())?;
        self.lock = Some(map);
        // its mean was that of the unlocked scan
        self.sharp_mean = Arc::default();
        Ok(self)
    }

    /// The same scan and fields with another stripe method, for pilots and previews.
    #[must_use]
    pub fn with_stripes(&self, method: StripeMethod) -> CorrectedScan {
        let mut stripe = self.config.stripe.clone();
        stripe.method = method;
        self.with_recipe(&self.config.zinger, &stripe)
    }

    /// The same scan and fields with other parameters for zingers and stripes.
    #[must_use]
    pub fn with_recipe(&self, zinger: &ZingerConfig, stripe: &StripeConfig) -> CorrectedScan {
        let mut config = self.config.clone();
        (config.zinger, config.stripe) = (zinger.clone(), stripe.clone());
        CorrectedScan {
            scan: self.scan.clone(),
            fields: self.fields.clone(),
            zinger: zinger_rule(zinger, &self.scan),
            outliers: Outliers::from_config(zinger),
            lock: self.lock.clone(),
            double_flat: self.double_flat,
            sharp_mean: self.sharp_mean.clone(),
            stripe: StripeRemoval::from_config(&config.stripe),
            beam: self.beam.clone(),
            phase: self.phase,
            spots: self.spots.clone(),
            min_transmission: self.min_transmission,
            bad_pixels: self.bad_pixels,
            warnings: self.warnings.clone(),
            scratch: Mutex::default(),
            config,
        }
    }

    /// The same without phase retrieval, to find the rotation axis on: one row of it needs many.
    #[must_use]
    pub fn without_phase(&self) -> CorrectedScan {
        let mut plain = self.with_stripes(self.config.stripe.method);
        (plain.phase, plain.config.phase.method) = (None, PhaseMethod::None);
        plain
    }

    /// The scan behind it.
    #[must_use]
    pub fn scan(&self) -> &Scan {
        &self.scan
    }

    /// The parameters it was made with.
    #[must_use]
    pub fn config(&self) -> &CorrectConfig {
        &self.config
    }

    /// What a person should read about the flats and darks.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Pixels without signal on the whole detector.
    #[must_use]
    pub fn bad_pixels(&self) -> u64 {
        self.bad_pixels
    }

    /// Whether the pixel carries no signal.
    #[must_use]
    pub fn is_bad_pixel(&self, row: usize, col: usize) -> bool {
        self.fields.is_bad(row, col)
    }

    /// Memory held for the averaged flats and darks \[bytes\].
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.fields.bytes()
    }

    /// Memory that [`CorrectedScan::slab`] of `rows` rows needs beside its result, for the threads of the current pool
    /// \[bytes\]: the block of counts and the buffers of the stripe removal. The reader's own buffers come on top.
    #[must_use]
    pub fn scratch_bytes(&self, rows: usize) -> usize {
        let shape = [self.scan.n_angles(), self.scan.n_rows(), self.scan.n_cols()];
        scratch_bytes(shape, rows, &self.config, self.scan.pixel_size_um) as usize
    }

    /// Line integrals of `rows` `[row, angle, col]`, and what was touched.
    ///
    /// # Errors
    /// Those of the reader; [`Error::Shape`] for rows that the detector does not have.
    pub fn slab(&self, rows: Range<usize>) -> Result<(Sinograms, CorrectionCounts)> {
        self.slab_into(rows, None)
    }

    /// The same, in the memory of a slab that is `used` up where it suffices.
    ///
    /// # Errors
    /// As for [`CorrectedScan::slab`].
    pub fn slab_into(
        &self,
        rows: Range<usize>,
        used: Option<Sinograms>,
    ) -> Result<(Sinograms, CorrectionCounts)> {
        let (mut sinograms, mut counts) = match &self.phase {
            Some(phase) => {
                drop(used);
                phase.transmission(self, rows)?
            }
            None => self.transmission_of(rows.clone(), &rows, used)?,
        };
        counts.clipped = self
            .each_row(&mut sinograms, |_, sinogram| {
                minus_log(sinogram, self.min_transmission)
            })
            .iter()
            .sum();
        Ok((sinograms, counts))
    }

    /// The same without the last steps: transmission of `rows` `[row, angle, col]`, zingers and stripes removed, neither
    /// filtered for phase nor raised to the least transmission nor in logarithm.
    ///
    /// # Errors
    /// As for [`CorrectedScan::slab`].
    pub fn transmission(&self, rows: Range<usize>) -> Result<(Sinograms, CorrectionCounts)> {
        self.transmission_of(rows.clone(), &rows, None)
    }

    /// Transmission of `rows`; what was touched is counted in `counted` of them only.
    fn transmission_of(
        &self,
        rows: Range<usize>,
        counted: &Range<usize>,
        used: Option<Sinograms>,
    ) -> Result<(Sinograms, CorrectionCounts)> {
        let first = rows.start;
        let sharp_mean = self.sharp_mean()?;
        let (mut sinograms, mut counts) = self.divided(rows.clone(), counted, used)?;
        counts.zingers += self
            .outliers
            .in_projections(self, &rows, counted, &mut sinograms)?;
        let n_cols = self.scan.n_cols();
        let per_row = self.each_row(&mut sinograms, |row, sinogram| {
            let beam_left = self
                .beam
                .as_ref()
                .map_or(0, |beam| beam.apply(sinogram, n_cols));
            let zingers = self.zinger.map_or(0, |(threshold, size, guard)| {
                remove_zingers(sinogram, n_cols, threshold, size, guard)
            });
            let zingers = zingers + self.outliers.in_sinogram(sinogram, n_cols);
            let lent = self.scratch.lock().ok().and_then(|mut pool| pool.pop());
            let mut scratch = lent.unwrap_or_default();
            if let Some(map) = &self.lock {
                map.treat(
                    first + row,
                    sinogram,
                    self.min_transmission,
                    &mut scratch.lock,
                );
            }
            if let Some(map) = &sharp_mean {
                let factors: Vec<f32> = map.row(first + row).iter().map(|m| m.exp()).collect();
                for line in sinogram.chunks_exact_mut(n_cols) {
                    line.iter_mut().zip(&factors).for_each(|(t, f)| *t *= f);
                }
            }
            let stripes = self
                .stripe
                .as_ref()
                .map(|stripe| stripe.apply(sinogram, n_cols, &mut scratch.stripe));
            if let Ok(mut pool) = self.scratch.lock() {
                pool.push(scratch);
            }
            (beam_left, zingers, stripes.unwrap_or_default())
        });
        let of_counted = per_row.into_iter().zip(rows);
        for ((beam_left, zingers, stripes), _) in
            of_counted.filter(|(_, row)| counted.contains(row))
        {
            counts.beam_left += beam_left;
            counts.zingers += zingers;
            counts.large_stripes += stripes.large;
            counts.dead_stripes += stripes.dead;
        }
        Ok((sinograms, counts))
    }

    /// The map of the double flat field, measured when it is first asked for.
    fn sharp_mean(&self) -> Result<Option<Arc<Array2<f32>>>> {
        let Some(sigma) = self.double_flat else {
            return Ok(None);
        };
        // a panic of another thread leaves either nothing or a whole map
        let mut held = self
            .sharp_mean
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if held.is_none() {
            *held = Some(Arc::new(double_flat::measure(self, sigma)?));
        }
        Ok(held.clone())
    }

    /// Steps 1 and 2: transmission without holes, `[row, angle, col]`; what was touched in the `counted` rows.
    fn divided(
        &self,
        rows: Range<usize>,
        counted: &Range<usize>,
        used: Option<Sinograms>,
    ) -> Result<(Sinograms, CorrectionCounts)> {
        self.check_rows(&rows)?;
        let (n_angles, n_cols) = (self.scan.n_angles(), self.scan.n_cols());
        // every line of every projection is written below
        let mut sinograms = reused(used, [rows.len(), n_angles, n_cols]);
        let mut not_finite = vec![0u64; rows.len()];
        let consume = |first: usize, block: ArrayView3<'_, f32>| {
            let slab = sinograms
                .axis_iter_mut(Axis(0))
                .into_par_iter()
                .zip(&mut not_finite)
                .enumerate();
            slab.for_each(|(row, (mut sinogram, not_finite))| {
                for (index, counts) in block.slice(s![.., row, ..]).outer_iter().enumerate() {
                    let angle = first + index;
                    let mut line = sinogram.row_mut(angle);
                    let counts = counts.to_slice().expect("a line of a block is contiguous");
                    let line = line
                        .as_slice_mut()
                        .expect("a line of a new array is contiguous");
                    *not_finite += self.divide_line(angle, rows.start + row, counts, line).0;
                }
            });
            Ok(())
        };
        self.scan
            .for_each_block(rows.clone(), self.frames_per_block(rows.len()), consume)?;
        let lost = self.each_row(&mut sinograms, |_, sinogram| {
            fill_lost_lines(sinogram, n_cols) as u64
        });
        let first = rows.start;
        let counted = counted.start.max(rows.start)..counted.end.min(rows.end);
        let within = counted.start.max(first) - first..counted.end.max(first) - first;
        let counts = CorrectionCounts {
            samples: (counted.len() * n_angles * n_cols) as u64,
            not_finite: not_finite[within.clone()].iter().sum(),
            lost_lines: lost[within].iter().sum(),
            ..self.pixels_touched(counted)
        };
        Ok((sinograms, counts))
    }

    /// What of the rows `counted` is known before any projection is read.
    fn pixels_touched(&self, counted: Range<usize>) -> CorrectionCounts {
        let locked = |verdict: Verdict| -> u64 {
            let pixels = counted
                .clone()
                .flat_map(|row| self.locked(row, verdict).map(move |col| (row, col)));
            pixels
                .filter(|&(row, col)| !self.fields.is_bad(row, col))
                .count() as u64
        };
        let levelled = |map: &PixelMap| counted.clone().map(|row| map.levelled(row)).sum();
        CorrectionCounts {
            spots: counted.clone().map(|row| self.spots[row]).sum(),
            lock_corrected: locked(Verdict::Corrected),
            lock_interpolated: locked(Verdict::Interpolated),
            lock_levelled: self.lock.as_deref().map_or(0, levelled),
            bad_pixels: counted.clone().map(|row| self.fields.bad_pixels(row)).sum(),
            ..CorrectionCounts::default()
        }
    }

    /// One line of transmission, its holes filled; the samples that were not finite on good pixels, and whether there
    /// was anything to fill from.
    fn divide_line(
        &self,
        angle: usize,
        row: usize,
        counts: &[f32],
        line: &mut [f32],
    ) -> (u64, bool) {
        self.fields.divide(angle, row, counts, line);
        let mut locked = 0;
        for col in self.locked(row, Verdict::Interpolated) {
            locked += u64::from(!self.fields.is_bad(row, col));
            line[col] = f32::NAN;
        }
        let holes = line.iter().filter(|value| !value.is_finite()).count() as u64;
        if holes == 0 {
            return (0, true);
        }
        // every bad or locked pixel is a hole, whatever was counted there
        let not_finite = holes - self.fields.bad_pixels(row) - locked;
        (not_finite, fill_line(line, self.lock.is_some()))
    }

    /// Runs `work` on the number within the slab and the sinogram `[angle, col]` of every row, and gives the answers in
    /// the order of the rows.
    fn each_row<T: Send>(
        &self,
        sinograms: &mut Sinograms,
        work: impl Fn(usize, &mut [f32]) -> T + Sync,
    ) -> Vec<T> {
        let rows = sinograms.axis_iter_mut(Axis(0)).into_par_iter().enumerate();
        rows.map(|(row, mut sinogram)| {
            work(
                row,
                sinogram
                    .as_slice_mut()
                    .expect("a row of a new array is contiguous"),
            )
        })
        .collect()
    }

    /// Columns of a row with that verdict of the series lock.
    fn locked(&self, row: usize, verdict: Verdict) -> impl Iterator<Item = usize> + '_ {
        let map = self.lock.as_deref();
        map.into_iter()
            .flat_map(move |map| map.columns(row, verdict))
    }

    fn frames_per_block(&self, rows: usize) -> usize {
        frames_per_block(
            [self.scan.n_angles(), self.scan.n_rows(), self.scan.n_cols()],
            rows,
        )
    }

    fn check_rows(&self, rows: &Range<usize>) -> Result<()> {
        let n_rows = self.scan.n_rows();
        if rows.start <= rows.end && rows.end <= n_rows {
            return Ok(());
        }
        Err(Error::Shape {
            what: format!("detector rows of {}", self.scan.path.display()),
            expected: vec![0, n_rows],
            found: vec![rows.start, rows.end],
            hint: format!("ask for rows within 0..{n_rows}"),
        })
    }
}

impl SinogramSource for CorrectedScan {
    fn n_rows(&self) -> usize {
        self.scan.n_rows()
    }

    fn n_cols(&self) -> usize {
        self.scan.n_cols()
    }

    fn angles_rad(&self) -> &[f64] {
        &self.scan.angles_rad
    }

    fn shifts(&self) -> Option<&Shifts> {
        self.scan.shifts.as_ref()
    }

    fn sinograms(&self, rows: Range<usize>) -> Result<Sinograms> {
        Ok(self.slab(rows)?.0)
    }

    /// Flat, dark, bad pixels, beam drift and logarithm only, without phase retrieval; a line without any good pixel is open beam (0).
    fn projection(&self, angle: usize, rows: Range<usize>) -> Result<Array2<f32>> {
        self.check_rows(&rows)?;
        let Some(&frame) = self.scan.projection_frames.get(angle) else {
            return Err(Error::Shape {
                what: format!("projection of {}", self.scan.path.display()),
                expected: vec![self.scan.n_angles()],
                found: vec![angle],
                hint: "count the projections from 0".to_string(),
            });
        };
        let n_cols = self.scan.n_cols();
        let mut counts = vec![0f32; rows.len() * n_cols];
        self.scan
            .projections
            .read(&[frame], rows.clone(), &mut counts)?;
        let mut projection = Array2::zeros((rows.len(), n_cols));
        let lines = projection
            .axis_iter_mut(Axis(0))
            .into_par_iter()
            .zip(counts.par_chunks_exact(n_cols.max(1)));
        lines.zip(rows).for_each(|((mut line, counts), row)| {
            let line = line
                .as_slice_mut()
                .expect("a line of a new array is contiguous");
            if !self.divide_line(angle, row, counts, line).1 {
                line.fill(1.0);
            }
            if let Some(beam) = &self.beam {
                beam.line(angle, line);
            }
            minus_log(line, self.min_transmission);
        });
        Ok(projection)
    }
}

fn zinger_rule(config: &ZingerConfig, scan: &Scan) -> Option<(f32, usize, Option<Guard>)> {
    let &ZingerConfig {
        enabled,
        threshold,
        size,
        kind,
        domain,
        guard,
    } = config;
    let guard = guard.then(|| Guard::for_scan(&scan.angles_rad, scan.n_cols()));
    // other kinds and domains are for `outliers`
    (enabled && kind == OutlierKind::Bright && domain != ZingerDomain::Projection)
        .then_some((threshold, size, guard))
}

/// Says when bad pixels are many, or leave nothing of a detector row.
fn warn_of_bad_pixels(
    fields: &FlatDark,
    n_rows: usize,
    n_cols: usize,
    floor: f32,
    warnings: &mut Vec<String>,
) {
    let dead_rows: Vec<usize> = (0..n_rows)
        .filter(|&row| n_cols > 0 && fields.bad_pixels(row) == n_cols as u64)
        .collect();
    if let (Some(first), Some(last)) = (dead_rows.first(), dead_rows.last()) {
        warnings.push(format!(
            "{} of {n_rows} detector rows (between {first} and {last}) have no pixel with flat minus dark of at least \
             {floor} counts; they are taken as open beam, leave them out with reconstruct.rows",
            dead_rows.len()
        ));
    }
    let lit = (n_rows - dead_rows.len()) * n_cols;
    let bad: u64 = (0..n_rows).map(|row| fields.bad_pixels(row)).sum::<u64>()
        - (dead_rows.len() * n_cols) as u64;
    // a usual camera has well below one bad pixel in a hundred
    if bad * 100 > lit as u64 {
        warnings.push(format!(
            "{bad} of {lit} pixels have flat minus dark below correct.floor_counts = {floor} and are interpolated; are the \
             flats and darks those of this scan?"
        ));
    }
}
