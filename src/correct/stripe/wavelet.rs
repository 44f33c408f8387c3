//! One level of the discrete wavelet transform of an image whose columns are contiguous, and its way back.
//!
//! Samples beyond an end are the mirror image with the edge sample repeated (`symmetric` of PyWavelets), and a line of n
//! samples gives `(n + taps - 1) / 2` coefficients, `c[k]` = sum over j of `f[j] x[2k + 1 - j]`. The way back is the
//! transpose, `x[n]` = sum over k of `c[k] f[2k + 1 - n]`, which is the inverse for orthonormal filters.

use super::columns::Columns;
use super::daubechies;
use crate::correct::median::reflect;

/// A wavelet's filters.
#[derive(Debug, Clone)]
pub(super) struct Wavelet {
    low: Vec<f32>,
    high: Vec<f32>,
}

/// Lines of one length, deinterleaved: scratch of the transforms along the angle.
#[derive(Default)]
pub(super) struct Halves {
    even: Vec<f32>,
    odd: Vec<f32>,
}

impl Halves {
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        (self.even.capacity() + self.odd.capacity()) * 4
    }
}

impl Wavelet {
    /// Daubechies' wavelet with `order` vanishing moments.
    pub(super) fn daubechies(order: usize) -> Wavelet {
        let low = daubechies::low_pass(order);
        let single = |taps: &[f64]| taps.iter().map(|&tap| tap as f32).collect();
        Wavelet {
            high: single(&daubechies::high_pass(&low)),
            low: single(&low),
        }
    }

    /// The low-pass filter, then the high-pass one.
    pub(super) fn taps(&self) -> Vec<f32> {
        [&self.low[..], &self.high].concat()
    }

    /// Coefficients of a line of `n` samples.
    pub(super) fn half(&self, n: usize) -> usize {
        (n + self.low.len() - 1) / 2
    }

    /// Low-pass coefficients of `line`, into `out` of length [`Wavelet::half`].
    pub(super) fn low_along(&self, line: &[f32], out: &mut [f32], halves: &mut Halves) {
        let reach = self.low.len() as isize;
        let at = |place: isize| line[reflect(place, line.len())];
        // x[2k + 1 - j] = odd[k - j / 2] for even j, even[k - (j - 1) / 2] for odd j, both from -reach / 2 on
        let first = -(reach / 2);
        let count = out.len() as isize + reach / 2;
        let Halves { even, odd } = halves;
        even.clear();
        odd.clear();
        even.extend((first..first + count).map(|m| at(2 * m)));
        odd.extend((first..first + count).map(|m| at(2 * m + 1)));
        out.fill(0.0);
        for (j, &tap) in self.low.iter().enumerate() {
            let from = self.low.len() / 2 - j / 2;
            let half = if j % 2 == 0 { &odd } else { &even };
            add_scaled(out, &half[from..from + out.len()], tap);
        }
    }

    /// Adjoint of [`Wavelet::low_along`] without its edges: `coefficients` back onto a line of `out.len()` samples.
    pub(super) fn low_along_back(
        &self,
        coefficients: &[f32],
        out: &mut [f32],
        halves: &mut Halves,
    ) {
        let Halves { even, odd } = halves;
        let (n_even, n_odd) = (out.len().div_ceil(2), out.len() / 2);
        even.clear();
        even.resize(n_even, 0.0);
        odd.clear();
        odd.resize(n_odd, 0.0);
        for (j, &tap) in self.low.iter().enumerate() {
            // j = 2k + 1 - n: even j reach the odd samples
            let half = if j % 2 == 0 { &mut *odd } else { &mut *even };
            let count = half.len();
            add_scaled(half, &coefficients[j / 2..j / 2 + count], tap);
        }
        for (pair, (&even, &odd)) in out.chunks_exact_mut(2).zip(even.iter().zip(odd.iter())) {
            (pair[0], pair[1]) = (even, odd);
        }
        if n_even > n_odd {
            out[2 * n_odd] = even[n_odd];
        }
    }

    /// Low-pass and high-pass coefficients across the columns.
    pub(super) fn across(&self, image: &Columns, low: &mut Columns, high: &mut Columns) {
        let n_cols = image.n_cols();
        for (out, filter) in [(low, &self.low), (high, &self.high)] {
            out.reshape(self.half(n_cols), image.n_angles());
            for (k, out) in out.iter_mut().enumerate() {
                out.fill(0.0);
                for (j, &tap) in filter.iter().enumerate() {
                    let col = reflect(2 * k as isize + 1 - j as isize, n_cols);
                    add_scaled(out, image.column(col), tap);
                }
            }
        }
    }

    /// The way back across the columns onto `image` of `n_cols` columns; `low` may be absent, which is zero.
    pub(super) fn across_back(
        &self,
        low: Option<&Columns>,
        high: &Columns,
        n_cols: usize,
        image: &mut Columns,
    ) {
        image.reshape(n_cols, high.n_angles());
        for (col, out) in image.iter_mut().enumerate() {
            out.fill(0.0);
            // j = 2k + 1 - col within the taps
            for k in col / 2..high.n_cols().min((col + self.low.len() - 1) / 2 + 1) {
                let Some(j) = (2 * k + 1).checked_sub(col).filter(|&j| j < self.low.len()) else {
                    continue;
                };
                if let Some(low) = low {
                    add_scaled(out, low.column(k), self.low[j]);
                }
                add_scaled(out, high.column(k), self.high[j]);
            }
        }
    }
}

fn add_scaled(out: &mut [f32], values: &[f32], scale: f32) {
    out.iter_mut()
        .zip(values)
        .for_each(|(out, &value)| *out += scale * value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(index: usize) -> f32 {
        ((index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1u64 << 24) as f32
    }

    #[test]
    fn low_and_high_across_the_columns_give_the_image_back() {
        for (order, n_cols) in [(1, 9), (5, 40), (9, 33), (9, 7)] {
            let wavelet = Wavelet::daubechies(order);
            let mut image = Columns::default();
            image.read(&(0..n_cols * 6).map(noise).collect::<Vec<_>>(), n_cols);
            let (mut low, mut high, mut back) =
                (Columns::default(), Columns::default(), Columns::default());
            wavelet.across(&image, &mut low, &mut high);
            wavelet.across_back(Some(&low), &high, n_cols, &mut back);
            let worst = |a: &Columns, b: &Columns| {
                let pairs = a.values().iter().zip(b.values());
                pairs.map(|(a, b)| (a - b).abs()).fold(0f32, f32::max)
            };
            // sums of 2 x 18 products of values below 1 in f32
            assert!(
                worst(&back, &image) < 4e-6,
                "order {order}, {n_cols} columns"
            );
            wavelet.across_back(None, &high, n_cols, &mut back);
            assert!(worst(&back, &image) > 0.1, "the check is blind");
        }
    }

    #[test]
    fn the_transform_along_the_angle_is_the_one_across_turned() {
        for (order, n) in [(2, 10), (9, 31), (5, 64), (9, 5)] {
            let wavelet = Wavelet::daubechies(order);
            let line: Vec<f32> = (0..n).map(noise).collect();
            let mut turned = Columns::default();
            turned.read(&line, n);
            let (mut low, mut high, mut back) =
                (Columns::default(), Columns::default(), Columns::default());
            wavelet.across(&turned, &mut low, &mut high);
            let (mut along, mut halves) = (vec![f32::NAN; wavelet.half(n)], Halves::default());
            wavelet.low_along(&line, &mut along, &mut halves);
            let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-6);
            assert!(close(&along, low.values()) && !close(&along, high.values()));
            high.iter_mut().for_each(|column| column.fill(0.0));
            wavelet.across_back(Some(&low), &high, n, &mut back);
            let mut line_back = vec![f32::NAN; n];
            wavelet.low_along_back(&along, &mut line_back, &mut halves);
            assert!(close(&line_back, back.values()));
        }
    }
}
