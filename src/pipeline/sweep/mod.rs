//! Settings of the corrections tried on a few rows and judged by numbers: `correct --sweep`.
//!
//! Every setting gives quick slices of the same rows (without phase retrieval, around one axis), and these give scores: how
//! high the rings are, how much coarse detail the correction took away against none, how many zingers are left. Both are
//! errors of the slice, so stripes are judged by their sum of squares: the recommended setting takes the least
//! detail among those hardly worse than the best. Zingers are judged by those that are left.

mod scores;

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use ndarray::{Array2, Array3, ArrayView2, Axis};
use serde::Serialize;

use crate::center::{self, AxisFit};
use crate::config::{Config, StripeMethod};
use crate::correct::{CorrectedScan, CorrectionCounts};
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::io::volume::partial::write_file;
use crate::pipeline::attenuation_unit;
use crate::progress::Progress;
use crate::reconstruct::geometry::{Grid, InPlaneMotion, rays};
use crate::reconstruct::{Reconstructor, SliceJob};
use crate::scan::SinogramSource;

/// Settings tried at once, at most.
pub const MOST_SETTINGS: usize = 100;
/// Rows tried at once, at most.
pub const MOST_ROWS: usize = 16;
/// Side of a tile of the montage \[px\].
const TILE: usize = 480;
/// Tiles of smaller slices are enlarged to at least this, for the label \[px\].
const LEAST_TILE: usize = 480;
/// A setting counts as good as the best while it leaves at most this share more of what the best took away.
const AS_GOOD: f64 = 0.05;
/// Where the best takes away less than this share of the fault, none is worth it.
const WORTH: f64 = 0.2;

/// One setting and what it does, over all rows.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// `key=value` of every key that is varied; `uncorrected` for the one all are compared with.
    pub setting: String,
    /// Height of the rings, in the unit of the slices.
    pub rings: f64,
    /// Coarse detail taken away, as a share of what is there.
    pub loss: f64,
    /// The same, in the unit of the slices.
    pub lost: f64,
    /// Samples per million that stand out along the angle: zingers that are left.
    pub spikes: f64,
    /// What the corrections touched.
    pub counts: CorrectionCounts,
    /// Time for correcting one row, on one thread \[s\].
    pub seconds_per_row: f64,
}

/// What a sweep found.
#[derive(Debug, Clone, Serialize)]
pub struct Sweep {
    /// Detector rows tried.
    pub rows: Vec<usize>,
    /// Rotation axis at the first of them \[px\].
    pub axis_px: f64,
    /// Unit of the slices and of the ring score.
    pub unit: String,
    /// Without the corrections that are varied.
    pub uncorrected: Outcome,
    /// Every setting, in the order given.
    pub settings: Vec<Outcome>,
    /// The recommended one; `None`: leave the correction off.
    pub recommended: Option<String>,
    /// Why.
    pub reason: String,
}

impl Sweep {
    /// Writes all settings as CSV, the uncorrected one first.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_table(&self, path: &Path) -> Result<()> {
        let mut table = csv::Writer::from_writer(Vec::new());
        let failed = |error: csv::Error| Error::io("write", path)(std::io::Error::other(error));
        let rings = format!("rings_{}", self.unit.replace('/', "_per_"));
        let heading = [
            "setting",
            &rings,
            "loss",
            "spikes_per_million",
            "zingers",
            "large_stripes",
            "dead_stripes",
            "seconds_per_row",
            "recommended",
        ];
        table.write_record(heading).map_err(failed)?;
        for outcome in std::iter::once(&self.uncorrected).chain(&self.settings) {
            let Outcome {
                setting,
                rings,
                loss,
                lost: _,
                spikes,
                counts,
                seconds_per_row,
            } = outcome;
            let recommended = self.recommended.as_ref() == Some(setting);
            let record = [
                setting.clone(),
                format!("{rings:.4e}"),
                format!("{loss:.6}"),
                format!("{spikes:.3}"),
                counts.zingers.to_string(),
                counts.large_stripes.to_string(),
                counts.dead_stripes.to_string(),
                format!("{seconds_per_row:.4}"),
                u8::from(recommended).to_string(),
            ];
            table.write_record(record).map_err(failed)?;
        }
        let bytes = table
            .into_inner()
            .map_err(|error| Error::io("write", path)(error.into_error()))?;
        write_file(path, &bytes)
    }
}

/// Which corrections are varied; [`check`] finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Varied {
    stripes: bool,
    zingers: bool,
}

/// Tries `settings` (text and whole config of each) on `rows` of `scan`, and draws the slices to `montage`.
///
/// `varied` is what [`check`] found in the same settings and rows. `axis` is the rotation axis found or given.
///
/// # Errors
/// Those of reading, reconstructing and writing.
pub fn run(
    scan: &CorrectedScan,
    (settings, varied): (&[(String, Config)], Varied),
    rows: &[usize],
    axis: &AxisFit,
    montage: &Path,
    progress: &Progress,
) -> Result<Sweep> {
    let (scale, unit) = attenuation_unit(scan.scan().pixel_size_um);
    let base = &settings[0].1;
    let mut bench = Bench::new(scan, base, rows, axis, scale)?;
    let stage = progress.stage("trying settings", (settings.len() + 1) as u64, "settings");

    let mut off = base.correct.clone();
    if varied.stripes {
        off.stripe.method = StripeMethod::None;
    }
    if varied.zingers {
        off.zinger.enabled = false;
    }
    let plain = scan.without_phase().with_recipe(&off.zinger, &off.stripe);
    let before = bench.slices(&plain)?;
    let uncorrected = bench.judge("uncorrected".into(), &before, &before);
    stage.inc(1);

    // tiles of one row stand together
    let mut tiles: Vec<Vec<Array2<f32>>> = bench.tiles(&before);
    let mut outcomes = Vec::new();
    for (text, config) in settings {
        let recipe = scan
            .without_phase()
            .with_recipe(&config.correct.zinger, &config.correct.stripe);
        let after = bench.slices(&recipe)?;
        outcomes.push(bench.judge(text.clone(), &before, &after));
        for (row, tile) in tiles.iter_mut().zip(bench.tiles(&after)) {
            row.extend(tile);
        }
        stage.inc(1);
    }
    let (recommended, reason) = recommend(&uncorrected, &outcomes, varied);
    let label = |outcome: &Outcome, row: usize| {
        let short: Vec<&str> = outcome
            .setting
            .split(' ')
            .map(|pair| pair.rsplit_once('.').map_or(pair, |(_, last)| last))
            .collect();
        let row = if rows.len() > 1 {
            format!("row {}: ", rows[row])
        } else {
            String::new()
        };
        let rings = format!("rings {:.1e}", outcome.rings);
        format!(
            "{row}{}  {rings}  loss {:.1} %",
            short.join(" "),
            100.0 * outcome.loss
        )
    };
    let labels: Vec<String> = (0..rows.len())
        .flat_map(|row| {
            let all = std::iter::once(&uncorrected).chain(&outcomes);
            all.map(move |outcome| label(outcome, row))
                .collect::<Vec<_>>()
        })
        .collect();
    let tiles: Vec<Array2<f32>> = tiles.into_iter().flatten().collect();
    center::write_tiles(&tiles, &labels, scan.n_cols(), LEAST_TILE, montage)?;
    Ok(Sweep {
        rows: rows.to_vec(),
        axis_px: axis.at(rows[0] as f64),
        unit: unit.into(),
        uncorrected,
        settings: outcomes,
        recommended,
        reason,
    })
}

/// Refuses what cannot be tried, and says which corrections differ: before anything of `scan` is read.
///
/// Only keys of `[correct.stripe]` and `[correct.zinger]` may differ from the config of `scan`.
///
/// # Errors
/// [`Error::Config`] for keys, settings or rows that cannot be tried.
pub fn check(
    scan: &CorrectedScan,
    settings: &[(String, Config)],
    rows: &[usize],
) -> Result<Varied> {
    if settings.is_empty() || settings.len() > MOST_SETTINGS {
        let rule = format!("a sweep tries 1 to {MOST_SETTINGS} settings; give fewer values");
        return Err(Error::config("--sweep", settings.len(), rule));
    }
    if rows.is_empty() || rows.len() > MOST_ROWS {
        let rule = format!("a sweep works on 1 to {MOST_ROWS} rows, e.g. --rows 100,120");
        return Err(Error::config("--rows", rows.len(), rule));
    }
    if let Some(beyond) = rows.iter().find(|&&row| row >= scan.n_rows()) {
        let rule = format!("the detector has rows 0 to {}", scan.n_rows() - 1);
        return Err(Error::config("--rows", beyond, rule));
    }
    let base = scan.config();
    let off = |table: &str, is_off: fn(&Config) -> bool, way_out: &str| {
        let idle = settings
            .iter()
            .find(|(text, config)| text.contains(table) && is_off(config));
        match idle {
            Some((text, _)) => Err(Error::config("--sweep", text, way_out)),
            None => Ok(()),
        }
    };
    if !settings
        .iter()
        .any(|(text, _)| text.contains("correct.stripe.method="))
    {
        off(
            "correct.stripe.",
            |config| config.correct.stripe.method == StripeMethod::None,
            "does nothing while correct.stripe.method is none; give one, e.g. --set correct.stripe.method=sorting, or sweep it too",
        )?;
    }
    if !settings
        .iter()
        .any(|(text, _)| text.contains("correct.zinger.enabled="))
    {
        off(
            "correct.zinger.",
            |config| !config.correct.zinger.enabled,
            "does nothing while correct.zinger.enabled is false",
        )?;
    }
    for (text, config) in settings {
        let mut same = config.correct.clone();
        same.stripe = base.stripe.clone();
        same.zinger = base.zinger.clone();
        if same != *base {
            return Err(Error::config(
                "--sweep",
                text,
                "only keys of correct.stripe and correct.zinger can be swept",
            ));
        }
    }
    let differs = |table: fn(&Config) -> String| {
        let first = table(&settings[0].1);
        settings.iter().any(|(_, config)| table(config) != first)
    };
    let stripes = settings
        .iter()
        .any(|(text, _)| text.contains("correct.stripe."));
    Ok(Varied {
        stripes: stripes || differs(|config| format!("{:?}", config.correct.stripe)),
        zingers: settings
            .iter()
            .any(|(text, _)| text.contains("correct.zinger.")),
    })
}

/// Sinograms and slices of the rows under one setting.
struct Tried {
    slices: Array3<f32>,
    spikes: f64,
    counts: CorrectionCounts,
    seconds: f64,
}

/// What all settings share.
struct Bench<'a> {
    rows: &'a [usize],
    axis: &'a AxisFit,
    reconstructor: Reconstructor,
    side: usize,
    radius: f64,
}

impl<'a> Bench<'a> {
    fn new(
        scan: &CorrectedScan,
        config: &Config,
        rows: &'a [usize],
        axis: &'a AxisFit,
        scale: f64,
    ) -> Result<Bench<'a>> {
        let n_cols = scan.n_cols();
        let reach = rows
            .iter()
            .map(|&row| axis.at(row as f64))
            .map(|axis| axis.min(n_cols as f64 - 1.0 - axis))
            .fold(f64::INFINITY, f64::min);
        let middle = (n_cols as f64 - 1.0) / 2.0;
        let job = SliceJob::new(
            n_cols,
            rays(scan.angles_rad(), InPlaneMotion::default()),
            Grid::square(n_cols),
            &config.reconstruct,
            scale,
        );
        Ok(Bench {
            rows,
            axis,
            reconstructor: Reconstructor::new(job, &Device::Cpu)?,
            side: n_cols,
            // an axis far off the middle means a sample that fits on one side of it
            radius: 0.95 * if reach < 0.5 * middle { middle } else { reach },
        })
    }

    /// Corrects and reconstructs, row by row.
    fn slices(&mut self, scan: &CorrectedScan) -> Result<Tried> {
        let mut tried = Tried {
            slices: Array3::zeros((self.rows.len(), self.side, self.side)),
            spikes: 0.0,
            counts: CorrectionCounts::default(),
            seconds: 0.0,
        };
        for (k, &row) in self.rows.iter().enumerate() {
            let range: Range<usize> = row..row + 1;
            let began = Instant::now();
            let (sinogram, counts) = scan.slab(range)?;
            tried.seconds += began.elapsed().as_secs_f64() / self.rows.len() as f64;
            tried.counts += counts;
            tried.spikes +=
                scores::spikes(sinogram.index_axis(Axis(0), 0)) / self.rows.len() as f64;
            let place = tried.slices.slice_mut(ndarray::s![k..k + 1, .., ..]);
            let axis = [self.axis.at(row as f64)];
            self.reconstructor.slab(sinogram.view(), &axis, place)?;
        }
        Ok(tried)
    }

    fn judge(&self, setting: String, before: &Tried, after: &Tried) -> Outcome {
        let pairs = before.slices.outer_iter().zip(after.slices.outer_iter());
        let root = |score: &dyn Fn(ArrayView2<'_, f32>, ArrayView2<'_, f32>) -> f64| {
            let squares: f64 = pairs.clone().map(|(a, b)| score(a, b).powi(2)).sum();
            (squares / self.rows.len() as f64).sqrt()
        };
        Outcome {
            setting,
            rings: root(&|_, after| scores::rings(after, self.radius)),
            loss: root(&|before, after| scores::loss(before, after, self.radius).share()),
            lost: root(&|before, after| scores::loss(before, after, self.radius).change),
            spikes: after.spikes,
            counts: after.counts.clone(),
            seconds_per_row: after.seconds,
        }
    }

    /// The middle of every slice.
    fn tiles(&self, tried: &Tried) -> Vec<Vec<Array2<f32>>> {
        let slices = tried.slices.outer_iter();
        slices
            .map(|slice| vec![scores::middle_of(slice, TILE)])
            .collect()
    }
}

/// The setting with the least loss among those as good as the best, and the reason in words.
fn recommend(
    uncorrected: &Outcome,
    settings: &[Outcome],
    varied: Varied,
) -> (Option<String>, String) {
    let (what, fault): (&str, fn(&Outcome) -> f64) = if varied.stripes {
        // a ring left and a detail lost are both wrong by their height
        ("rings and lost detail", |outcome| {
            outcome.rings.hypot(outcome.lost)
        })
    } else {
        ("spikes", |outcome| outcome.spikes)
    };
    let least = settings.iter().map(fault).fold(f64::INFINITY, f64::min);
    let before = fault(uncorrected);
    if before <= 0.0 || least > (1.0 - WORTH) * before {
        let reason = format!(
            "the best setting leaves {least:.3e} of {what} where no correction leaves {before:.3e}: it takes away less than {:.0} %",
            100.0 * WORTH
        );
        return (None, reason);
    }
    let limit = least + AS_GOOD * (before - least);
    let good = settings.iter().filter(|outcome| fault(outcome) <= limit);
    let Some(best) = good.clone().min_by(|a, b| a.loss.total_cmp(&b.loss)) else {
        return (None, "no setting could be judged".into());
    };
    let reason = format!(
        "leaves {:.3e} of {what} (no correction: {before:.3e}, the best: {least:.3e}) and takes away {:.2} % of the coarse detail, the least \
         of the {} settings that leave at most {limit:.3e}",
        fault(best),
        100.0 * best.loss,
        good.count()
    );
    (Some(best.setting.clone()), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(setting: &str, rings: f64, loss: f64) -> Outcome {
        Outcome {
            setting: setting.into(),
            rings,
            loss,
            // of a spread of 2
            lost: 2.0 * loss,
            spikes: 0.0,
            counts: CorrectionCounts::default(),
            seconds_per_row: 0.0,
        }
    }

    #[test]
    fn the_least_loss_among_the_good_ones_is_recommended() {
        let varied = Varied {
            stripes: true,
            zingers: false,
        };
        let before = outcome("uncorrected", 1.0, 0.0);
        let settings = [
            outcome("weak", 0.6, 0.01),
            outcome("right", 0.14, 0.02),
            outcome("a little more", 0.13, 0.03),
            outcome("strong", 0.1, 0.3),
            outcome("destructive", 0.01, 2.65),
        ];
        let (best, reason) = recommend(&before, &settings, varied);
        assert_eq!(best.as_deref(), Some("right"));
        assert!(
            reason.contains("2.00 %") && reason.contains("2 settings"),
            "{reason}"
        );
        let (best, reason) = recommend(&before, &[outcome("useless", 0.9, 0.1)], varied);
        assert!(
            best.is_none() && reason.contains("less than 20 %"),
            "{reason}"
        );
        assert!(
            recommend(&outcome("clean", 0.0, 0.0), &settings, varied)
                .0
                .is_none()
        );
    }
}
