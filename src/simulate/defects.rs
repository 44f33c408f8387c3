//! Pixels that answer wrongly: the causes of stripes in sinograms and rings in slices (Vo, Atwood and Drakopoulos 2018, section 2).

use crate::phantom::SplitMix64;

/// A block of bad pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Defect {
    rows: [usize; 2],
    cols: [usize; 2],
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// Hardly any light: dead.
    Blind,
    /// The same counts whatever the light: unresponsive.
    Stuck(u16),
    /// Sensitivity changes steadily by this share over the scan.
    Drift(f64),
    /// Sensitivity changes by this share at a time: partial stripe.
    Step(f64, f64),
    /// Signal is the share of the open beam to the power of one plus this: wrong only where there is a sample.
    Bent(f64),
}

/// The bad pixels of a camera: the same places in every scan of a series, other amounts.
pub(super) fn defects(
    seed: u64,
    scan: usize,
    [n_rows, n_cols]: [usize; 2],
    strength: f64,
) -> Vec<Defect> {
    let mut places = SplitMix64::keyed(seed, &[0xDEFEC7]);
    let mut amounts = SplitMix64::keyed(seed, &[0xDEFEC7, 1 + scan as u64]);
    let number = (n_rows * n_cols / 3400).clamp(4, 60);
    (0..number)
        .map(|index| {
            let sign = if places.uniform(0.0, 1.0) < 0.5 {
                -1.0
            } else {
                1.0
            };
            let amount = sign
                * strength.min(20.0)
                * places.log_uniform(0.004, 0.015)
                * amounts.uniform(0.7, 1.3);
            let fault = match index % 8 {
                2 => Fault::Blind,
                5 => Fault::Stuck(places.uniform(3000.0, 20_000.0) as u16),
                1 | 6 => Fault::Step(amount, amounts.uniform(0.2, 0.8)),
                4 => Fault::Bent(2.0 * amount),
                _ => Fault::Drift(amount),
            };
            let lost = matches!(fault, Fault::Blind | Fault::Stuck(_));
            let high = n_rows as f64 * places.uniform(0.03, if lost { 0.08 } else { 0.35 });
            let wide = if lost {
                1
            } else {
                1 + (places.next_u64() % 2) as usize
            };
            let row = (places.uniform(0.0, 1.0) * (n_rows as f64 - high).max(1.0)) as usize;
            let col = (places.uniform(0.06, 0.92) * n_cols as f64) as usize;
            Defect {
                rows: [row, (row + high.max(2.0) as usize).min(n_rows)],
                cols: [col, (col + wide).min(n_cols)],
                fault,
            }
        })
        .collect()
}

impl Defect {
    fn pixels(&self, n_cols: usize) -> impl Iterator<Item = usize> {
        let [c0, c1] = self.cols;
        (self.rows[0]..self.rows[1])
            .flat_map(move |row| (c0..c1).map(move |col| row * n_cols + col))
    }

    /// Changes the photons that the pixels of a frame seem to see at `time`, 0 to 1.
    pub(super) fn respond(
        &self,
        [_, n_cols]: [usize; 2],
        time: f64,
        open: &[f32],
        photons: &mut [f32],
    ) {
        for at in self.pixels(n_cols) {
            let seen = f64::from(photons[at]);
            photons[at] = match self.fault {
                Fault::Blind => 1e-5 * seen,
                Fault::Stuck(_) => seen,
                Fault::Drift(share) => seen * (1.0 + share * time),
                Fault::Step(share, at) => seen * if time > at { 1.0 + share } else { 1.0 },
                Fault::Bent(power) => seen * (seen / f64::from(open[at])).powf(power),
            } as f32;
        }
    }

    /// Overwrites the counts of pixels that do not answer.
    pub(super) fn stick(&self, [_, n_cols]: [usize; 2], counts: &mut [u16]) {
        if let Fault::Stuck(value) = self.fault {
            for at in self.pixels(n_cols) {
                counts[at] = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_the_same_bad_pixels_in_every_scan_but_other_amounts() {
        let (a, b) = (
            defects(1, 0, [160, 256], 1.0),
            defects(1, 1, [160, 256], 1.0),
        );
        assert!(a.len() >= 8);
        assert!(
            a.iter()
                .zip(&b)
                .all(|(a, b)| a.rows == b.rows && a.cols == b.cols)
        );
        assert!(a.iter().zip(&b).any(|(a, b)| a.fault != b.fault));
        assert!(a.iter().all(|d| d.rows[0] < d.rows[1]
            && d.rows[1] <= 160
            && d.cols[0] < d.cols[1]
            && d.cols[1] <= 256));
    }

    #[test]
    fn every_kind_of_stripe_is_there() {
        let all = defects(1, 0, [160, 256], 1.0);
        let has = |test: fn(&Fault) -> bool| all.iter().any(|d| test(&d.fault));
        assert!(has(|f| matches!(f, Fault::Blind)) && has(|f| matches!(f, Fault::Stuck(_))));
        assert!(has(|f| matches!(f, Fault::Drift(_))) && has(|f| matches!(f, Fault::Step(..))));
        assert!(has(|f| matches!(f, Fault::Bent(_))));
    }
}
