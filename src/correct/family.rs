//! The counts of the corrections by name, and scans whose counts are out of family in their series.
//!
//! One recipe for all scans should touch about as much in each; a scan of which it touches far more is one to look at before
//! its difference is believed. What is far: with four scans and more, beyond five times the scatter (1.4826 times the
//! median absolute deviation) and a factor of two from the median of all, either way; with two or three, where no
//! scatter can be told, more than three times the mean of the others. In both cases the count must also be
//! beyond five standard deviations of a Poisson number, and the share above one in 1e5, or it changes nothing.

use super::CorrectionCounts;
use crate::stats::median;

/// One rule and what it touched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Touched {
    /// The rule, in words.
    pub rule: &'static str,
    /// How many.
    pub count: u64,
    /// Of how many, for a share.
    pub of: u64,
}

impl Touched {
    /// The share touched, 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.count as f64 / self.of.max(1) as f64
    }
}

impl CorrectionCounts {
    /// What each rule touched, of a scan with that many projections and columns.
    #[must_use]
    pub fn touched(&self, [n_angles, n_cols]: [usize; 2]) -> [Touched; 12] {
        // taken apart, so that a count that is not shown does not compile
        let &CorrectionCounts {
            samples,
            bad_pixels,
            not_finite,
            lost_lines,
            clipped,
            zingers,
            large_stripes,
            dead_stripes,
            spots,
            beam_left,
            lock_corrected,
            lock_interpolated,
            lock_levelled,
        } = self;
        // pixels, counted once for each time that their row was read, as the counts are
        let pixels = samples / n_angles.max(1) as u64;
        let lines = samples / n_cols.max(1) as u64;
        let touched = |rule, count, of| Touched { rule, count, of };
        [
            touched("pixels without signal", bad_pixels, pixels),
            touched("of these, large spots", spots, pixels),
            touched("not finite", not_finite, samples),
            touched("lines lost", lost_lines, lines),
            touched("lines without air for the beam", beam_left, lines),
            touched("transmission raised", clipped, samples),
            touched("zingers", zingers, samples),
            touched("pixels corrected by the lock", lock_corrected, pixels),
            touched("pixels interpolated by the lock", lock_interpolated, pixels),
            touched("pixels levelled by the lock", lock_levelled, pixels),
            touched("columns with a large stripe", large_stripes, pixels),
            touched("columns dead or fluctuating", dead_stripes, pixels),
        ]
    }
}

/// Scans of which a rule touched far more, or far less, than of the others; `scans` are names, counts, projections and columns.
#[must_use]
pub fn out_of_family(scans: &[(String, CorrectionCounts, [usize; 2])]) -> Vec<String> {
    let all: Vec<_> = scans
        .iter()
        .map(|(_, counts, n)| counts.touched(*n))
        .collect();
    let mut out = Vec::new();
    let Some(first) = all.first() else {
        return out;
    };
    for rule in 0..first.len() {
        let touched: Vec<Touched> = all.iter().map(|rules| rules[rule]).collect();
        for (index, (name, _, _)) in scans.iter().enumerate() {
            if let Some(usual) = odd(&touched, index) {
                let one = touched[index];
                out.push(format!(
                    "{name}: {}: {} ({:.2e} of all) against {usual:.2e} in the series; look at its projections before its difference is believed",
                    one.rule,
                    one.count,
                    one.share()
                ));
            }
        }
    }
    out
}

/// The usual share, where that of scan `index` is far from it.
fn odd(touched: &[Touched], index: usize) -> Option<f64> {
    const LEAST: f64 = 1e-5;
    let share = touched[index].share();
    let (usual, far) = if touched.len() >= 4 {
        let shares: Vec<f64> = touched.iter().map(Touched::share).collect();
        let usual = median(shares.clone());
        let scatter = 1.4826 * median(shares.iter().map(|s| (s - usual).abs()).collect());
        let factor = share > 2.0 * usual || 2.0 * share < usual;
        (usual, factor && (share - usual).abs() > 5.0 * scatter)
    } else {
        let others = touched.iter().enumerate().filter(|(k, _)| *k != index);
        let usual = others.map(|(_, t)| t.share()).sum::<f64>() / (touched.len() - 1).max(1) as f64;
        (usual, touched.len() > 1 && share > 3.0 * usual)
    };
    let of = touched[index].of as f64;
    let by_chance = 5.0 * (usual.max(share) * of).sqrt();
    let counts = (share - usual).abs() * of > by_chance && (share - usual).abs() > LEAST;
    (far && counts).then_some(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(zingers: &[u64]) -> Vec<(String, CorrectionCounts, [usize; 2])> {
        zingers
            .iter()
            .enumerate()
            .map(|(k, &zingers)| {
                let counts = CorrectionCounts {
                    samples: 10_000_000,
                    zingers,
                    bad_pixels: 40,
                    ..CorrectionCounts::default()
                };
                (format!("scan {k}"), counts, [1000, 100])
            })
            .collect()
    }

    fn named(zingers: &[u64]) -> Vec<String> {
        out_of_family(&series(zingers))
            .iter()
            .map(|w| w.split(':').next().unwrap_or_default().to_string())
            .collect()
    }

    #[test]
    fn the_odd_scan_of_a_series_is_named_and_scatter_is_not() {
        // two and three scans: the one with far more, never the good ones beside it
        assert_eq!(named(&[500, 2000]), ["scan 1"]);
        assert_eq!(named(&[5000, 500, 600]), ["scan 0"]);
        assert!(named(&[500, 1400]).is_empty() && named(&[500, 900, 1300]).is_empty());
        // more: either way
        assert_eq!(named(&[500, 520, 480, 510, 2000, 490]), ["scan 4"]);
        assert_eq!(named(&[5000, 5200, 4800, 5100, 900, 4900]), ["scan 4"]);
        assert!(
            named(&[500, 520, 480, 510, 900, 490]).is_empty(),
            "within a factor of two"
        );
        assert!(
            named(&[500, 1500, 400, 2600, 900, 3000]).is_empty(),
            "within the scatter"
        );
        // too few to be more than chance, or to matter
        assert!(named(&[2, 12]).is_empty() && named(&[10, 90]).is_empty());
        assert!(named(&[700]).is_empty() && out_of_family(&[]).is_empty());
        let warning = out_of_family(&series(&[500, 2000])).remove(0);
        assert!(
            warning.contains("zingers: 2000 (2.00e-4 of all) against 5.00e-5"),
            "{warning}"
        );
    }

    #[test]
    fn shares_are_of_pixels_or_of_samples() {
        let counts = CorrectionCounts {
            samples: 1000,
            bad_pixels: 3,
            clipped: 7,
            ..CorrectionCounts::default()
        };
        let rules = counts.touched([10, 5]);
        let share = |rule: &str| rules.iter().find(|t| t.rule == rule).unwrap().share();
        assert_eq!(
            (share("pixels without signal"), share("transmission raised")),
            (0.03, 0.007)
        );
    }
}
