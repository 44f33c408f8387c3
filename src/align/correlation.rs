//! Where one volume lies on another: normalised cross-correlation over the overlap of two masks, by FFT.
//!
//! Padfield (2012), IEEE Trans. Image Process. 21:2706: every shift is given the correlation coefficient of the
//! voxels that both masks hold at that shift, so neither the edge of the field of view nor a small overlap nor the
//! mean draws the peak.

use std::sync::Arc;

use ndarray::{Array3, Axis, Zip, s};
use rustfft::num_complex::Complex32;
use rustfft::{Fft, FftPlanner};

use super::motion::RigidMotion;
use super::pyramid::{Frame, Level, Side, convolve, gaussian};
use super::resample::warped;

/// Structure wider than this \[voxel of the coarse level\] (standard deviation) is taken out before correlating:
/// it makes broad peaks, and artefacts that stand still with the detector are of this kind.
const HIGH_PASS_SIGMA: f64 = 5.0;

/// Values beyond this multiple of the typical size (from the median) are cut to it.
const CLIP: f64 = 4.0;

/// Residuals beyond this multiple of the typical one are change.
const CHANGED: f64 = 3.5;

/// Share of the power that must be left without layers.
const LEAST_TEXTURE: f64 = 0.02;
/// Slices from which on what goes through all of them is taken out.
const LEAST_SLICES: usize = 16;

/// Both volumes of a level without their wide structure, with masks.
#[derive(Clone)]
pub(crate) struct Texture {
    pub(crate) frame: Frame,
    /// `[z, y, x]`, 0 outside the mask.
    pub(crate) reference: Array3<f32>,
    /// `[z, y, x]`, 0 outside the mask.
    pub(crate) target: Array3<f32>,
    /// 1 where the reference counts.
    reference_mask: Array3<f32>,
}

impl Texture {
    /// Subtracts the Gaussian mean over the mask from both volumes.
    pub(crate) fn new(level: &Level) -> Texture {
        let frame = level.frame.clone();
        let still = RigidMotion::default();
        let reference_mask = mask(&frame, Side::Reference, &still);
        let target_mask = mask(&frame, Side::Target, &still);
        Texture {
            reference: high_passed(&level.reference, &reference_mask),
            target: high_passed(&level.target, &target_mask),
            reference_mask,
            frame,
        }
    }

    /// The same without the mean of every slice and of every column along z: layers and the tube, which any two samples of a
    /// kind share.
    ///
    /// Where next to nothing is left they are all there is, and they stay.
    pub(crate) fn without_layers(&self) -> Texture {
        let still = RigidMotion::default();
        let target_mask = mask(&self.frame, Side::Target, &still);
        let own = |volume: &Array3<f32>, mask: &Array3<f32>| {
            let mut out = volume * mask;
            take_out_means(&mut out, mask, 0);
            // the mean over a few slices is the texture itself
            if self.frame.shape[0] >= LEAST_SLICES {
                take_out_means(&mut out, mask, 1);
            }
            out
        };
        let reference = own(&self.reference, &self.reference_mask);
        let target = own(&self.target, &target_mask);
        let power =
            |volume: &Array3<f32>| volume.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        if power(&reference) < LEAST_TEXTURE * power(&self.reference) {
            return self.clone();
        }
        Texture {
            reference,
            target,
            ..self.clone()
        }
    }

    /// The target moved back by `motion`, 0 outside of its mask, and the mask.
    fn aligned(&self, motion: &RigidMotion) -> (Array3<f32>, Array3<f32>) {
        let target_mask = mask(&self.frame, Side::Target, motion);
        let mut target = warped(self.target.view(), &self.frame, motion);
        target *= &target_mask;
        (target, target_mask)
    }

    /// The same without the voxels that changed between the scans: those whose residual is far beyond the typical.
    ///
    /// Volumes that have nothing in common have normal residuals, of which this takes one in two thousand.
    pub(crate) fn unchanged(&self, motion: &RigidMotion) -> (Array3<f32>, Array3<f32>) {
        let (mut target, mut target_mask) = self.aligned(motion);
        let both = &target_mask * &self.reference_mask;
        let gain = typical(&target, &both) / typical(&self.reference, &both).max(1e-12);
        let mut residual = self.reference.mapv(|r| (gain * f64::from(r)) as f32);
        residual -= &target;
        let limit = (CHANGED * typical(&residual, &both)) as f32;
        if limit > 0.0 {
            Zip::from(&mut target_mask)
                .and(&residual)
                .and(&self.reference_mask)
                .for_each(|m, &r, &own| {
                    if own > 0.0 && r.abs() > limit {
                        *m = 0.0;
                    }
                });
            target *= &target_mask;
        }
        (target, target_mask)
    }

    /// Correlation coefficients of the reference with the target moved back by `motion`, over further shifts.
    pub(crate) fn correlate(
        &self,
        motion: &RigidMotion,
        engine: &Correlator,
        reference: &Transformed,
    ) -> CorrelationMap {
        let (target, target_mask) = self.aligned(motion);
        engine.map(reference, &target, &target_mask)
    }

    /// Correlation coefficients of the reference with itself.
    pub(crate) fn correlate_with_itself(
        &self,
        engine: &Correlator,
        reference: &Transformed,
    ) -> CorrelationMap {
        engine.map(reference, &self.reference, &self.reference_mask)
    }

    /// The reference made ready for [`Texture::correlate`].
    pub(crate) fn transform_reference(&self, engine: &Correlator) -> Transformed {
        engine.transform(&self.reference, &self.reference_mask)
    }

    /// Correlation coefficient of the reference with the target at `motion`, without further shift.
    pub(crate) fn coefficient(&self, motion: &RigidMotion) -> f64 {
        let (target, target_mask) = self.aligned(motion);
        self.coefficient_with(&target, &target_mask)
    }

    /// Correlation coefficient of the reference with a volume on its grid.
    pub(crate) fn coefficient_with(&self, target: &Array3<f32>, target_mask: &Array3<f32>) -> f64 {
        let mut sums = [0f64; 6];
        let both = self.reference_mask.iter().zip(target_mask);
        for ((&r, &t), (&m_r, &m_t)) in self.reference.iter().zip(target).zip(both) {
            let (r, t, m) = (f64::from(r), f64::from(t), f64::from(m_r * m_t));
            for (sum, term) in sums.iter_mut().zip([1.0, r, t, r * r, t * t, r * t]) {
                *sum += m * term;
            }
        }
        let [n, r, t, rr, tt, rt] = sums;
        if n < 1.0 {
            return 0.0;
        }
        let variance = (rr - r * r / n) * (tt - t * t / n);
        if variance > 0.0 {
            (rt - r * t / n) / variance.sqrt()
        } else {
            0.0
        }
    }
}

/// Subtracts the mean over the mask from every slice (`kind` 0) or from every column along z (1); 0 outside.
fn take_out_means(volume: &mut Array3<f32>, mask: &Array3<f32>, kind: usize) {
    if kind == 0 {
        for (mut slice, mask) in volume.outer_iter_mut().zip(mask.outer_iter()) {
            let mean = slice.sum() / mask.sum().max(1.0);
            slice.scaled_add(-mean, &mask);
        }
        return;
    }
    let sum = volume.sum_axis(Axis(0));
    let weight = mask.sum_axis(Axis(0)).mapv(|n| n.max(1.0));
    let mean = sum / weight;
    for (mut slice, mask) in volume.outer_iter_mut().zip(mask.outer_iter()) {
        slice -= &(&mean * &mask);
    }
}

fn mask(frame: &Frame, side: Side, motion: &RigidMotion) -> Array3<f32> {
    let [n_z, n_y, n_x] = frame.shape;
    Array3::from_shape_fn((n_z, n_y, n_x), |(z, y, x)| {
        let p = [
            frame.position(0, x as f64),
            frame.position(1, y as f64),
            frame.position(2, z as f64),
        ];
        f32::from(u8::from(frame.weight(side, motion.apply(p)) >= 0.5))
    })
}

fn high_passed(volume: &Array3<f32>, mask: &Array3<f32>) -> Array3<f32> {
    let kernel = gaussian(HIGH_PASS_SIGMA);
    let mut wide = volume * mask;
    let mut weight = mask.clone();
    for axis in 0..3 {
        // an axis as short as the kernel has no wide structure of its own
        if volume.len_of(Axis(axis)) as f64 > 4.0 * HIGH_PASS_SIGMA {
            convolve(&mut wide, axis, &kernel);
            convolve(&mut weight, axis, &kernel);
        } else if let Some(mean) = wide.mean_axis(Axis(axis)) {
            let share = weight
                .mean_axis(Axis(axis))
                .expect("the same shape has a mean too");
            for k in 0..volume.len_of(Axis(axis)) {
                wide.index_axis_mut(Axis(axis), k).assign(&mean);
                weight.index_axis_mut(Axis(axis), k).assign(&share);
            }
        }
    }
    let mut out = Array3::<f32>::zeros(volume.raw_dim());
    Zip::from(&mut out)
        .and(volume)
        .and(mask)
        .and(&wide)
        .and(&weight)
        .for_each(|o, &v, &m, &sum, &w| {
            *o = if m > 0.0 && w > 1e-6 {
                v - sum / w
            } else {
                0.0
            };
        });
    // what changed between the scans may be far stronger than the structure: it must not rule the correlation
    let limit = (CLIP * typical(&out, mask)) as f32;
    if limit > 0.0 {
        out.mapv_inplace(|v| v.clamp(-limit, limit));
    }
    // unit variance, so that squares and sums stay in the range where f32 is exact enough
    let n = f64::from(mask.sum()).max(1.0);
    let power = (out.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n).sqrt();
    if power > 0.0 {
        out.mapv_inplace(|v| (f64::from(v) / power) as f32);
    }
    out
}

/// Median absolute value over the mask, as a standard deviation.
fn typical(volume: &Array3<f32>, mask: &Array3<f32>) -> f64 {
    let mut sizes: Vec<f32> = volume
        .iter()
        .zip(mask)
        .filter(|&(_, &m)| m > 0.0)
        .map(|(v, _)| v.abs())
        .collect();
    if sizes.is_empty() {
        return 0.0;
    }
    let middle = sizes.len() / 2;
    1.4826 * f64::from(*sizes.select_nth_unstable_by(middle, f32::total_cmp).1)
}

/// FFT plans for volumes of one shape, zero-padded so that shifts up to `reach` do not wrap.
pub(crate) struct Correlator {
    shape: [usize; 3],
    padded: [usize; 3],
    forward: [Arc<dyn Fft<f32>>; 3],
    inverse: [Arc<dyn Fft<f32>>; 3],
}

/// Spectra of one volume: values, values with squares, mask.
pub(crate) struct Transformed {
    values: Array3<Complex32>,
    with_squares: Array3<Complex32>,
    mask: Array3<Complex32>,
}

/// Correlation coefficient for every shift `[x, y, z]`; NaN where too few voxels overlap.
pub(crate) struct CorrelationMap {
    values: Array3<f32>,
    /// Largest shift `[x, y, z]` that the padding holds.
    pub(crate) reach: [i32; 3],
}

impl Correlator {
    /// Plans for `shape` `[z, y, x]` and shifts up to `reach` `[x, y, z]`.
    pub(crate) fn new(shape: [usize; 3], reach: [usize; 3]) -> Correlator {
        let mut planner = FftPlanner::<f32>::new();
        let padded = [0, 1, 2].map(|a| fast_length(shape[a] + reach[2 - a]));
        let forward = padded.map(|n| planner.plan_fft_forward(n));
        let inverse = padded.map(|n| planner.plan_fft_inverse(n));
        Correlator {
            shape,
            padded,
            forward,
            inverse,
        }
    }

    fn transform(&self, values: &Array3<f32>, mask: &Array3<f32>) -> Transformed {
        Transformed {
            values: self.spectrum(values, |v| Complex32::new(v, 0.0)),
            with_squares: self.spectrum(values, |v| Complex32::new(v, v * v)),
            mask: self.spectrum(mask, |v| Complex32::new(v, 0.0)),
        }
    }

    fn spectrum(&self, volume: &Array3<f32>, pack: impl Fn(f32) -> Complex32) -> Array3<Complex32> {
        let [p_z, p_y, p_x] = self.padded;
        let [n_z, n_y, n_x] = self.shape;
        let mut out = Array3::<Complex32>::zeros((p_z, p_y, p_x));
        Zip::from(out.slice_mut(s![..n_z, ..n_y, ..n_x]))
            .and(volume)
            .for_each(|o, &v| *o = pack(v));
        fft3(&mut out, &self.forward);
        out
    }

    /// Coefficients of `reference(x)` with `target(x + shift)`.
    pub(crate) fn map(
        &self,
        reference: &Transformed,
        target: &Array3<f32>,
        target_mask: &Array3<f32>,
    ) -> CorrelationMap {
        let target = self.transform(target, target_mask);
        let total = self.padded.iter().product::<usize>() as f32;
        let product = |a: &Array3<Complex32>, b: &Array3<Complex32>| {
            let mut out = a.mapv(|v| v.conj());
            out *= b;
            out
        };
        // two real correlations travel as the real and imaginary part of one inverse transform
        let mut overlap = product(&reference.mask, &target.mask);
        overlap *= Complex32::i();
        overlap += &product(&reference.values, &target.values);
        fft3(&mut overlap, &self.inverse);
        let mut of_target = product(&reference.mask, &target.with_squares);
        fft3(&mut of_target, &self.inverse);
        // the sums of the reference run with the opposite shift
        let mut of_reference = product(&target.mask, &reference.with_squares);
        fft3(&mut of_reference, &self.inverse);

        let most = overlap.iter().map(|v| v.im).fold(0f32, f32::max) / total;
        let least = (0.1 * most).max(8.0);
        let [p_z, p_y, p_x] = self.padded;
        let values = Array3::from_shape_fn((p_z, p_y, p_x), |(z, y, x)| {
            let back = [(p_z - z) % p_z, (p_y - y) % p_y, (p_x - x) % p_x];
            let (cross, n) = (
                overlap[[z, y, x]].re / total,
                (overlap[[z, y, x]].im / total).round(),
            );
            let (t, tt) = (
                of_target[[z, y, x]].re / total,
                of_target[[z, y, x]].im / total,
            );
            let (r, rr) = (of_reference[back].re / total, of_reference[back].im / total);
            if n < least {
                return f32::NAN;
            }
            // a spread below the rounding of the transform is no spread
            let floor = 1e-4 * n;
            let (spread_r, spread_t) = (rr - r * r / n, tt - t * t / n);
            if spread_r < floor || spread_t < floor {
                return 0.0;
            }
            ((cross - r * t / n) / (spread_r * spread_t).sqrt()).clamp(-1.0, 1.0)
        });
        let reach =
            [2, 1, 0].map(|a| (self.padded[a] - self.shape[a]).min(self.shape[a] - 1) as i32);
        CorrelationMap { values, reach }
    }
}

impl CorrelationMap {
    /// Coefficient at a shift `[x, y, z]` within the reach.
    pub(crate) fn at(&self, shift: [i32; 3]) -> f32 {
        let (p_z, p_y, p_x) = self.values.dim();
        let wrap = |s: i32, n: usize| s.rem_euclid(n as i32) as usize;
        self.values[[
            wrap(shift[2], p_z),
            wrap(shift[1], p_y),
            wrap(shift[0], p_x),
        ]]
    }

    /// The highest local maxima with every component of the shift within `search`, best first.
    pub(crate) fn peaks(&self, search: [i32; 3], most: usize) -> Vec<([i32; 3], f32)> {
        let search = [0, 1, 2].map(|a| search[a].min(self.reach[a]));
        let mut found = Vec::new();
        for shift in shifts(search) {
            let value = self.at(shift);
            if !value.is_finite() {
                continue;
            }
            let highest = shifts([1, 1, 1]).all(|step| {
                let near = [0, 1, 2].map(|a| shift[a] + step[a]);
                let inside = (0..3).all(|a| near[a].abs() <= search[a]);
                !inside || self.at(near) <= value || self.at(near).is_nan()
            });
            if highest {
                found.push((shift, value));
            }
        }
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found.truncate(most);
        found
    }
}

/// All shifts within `search`, in order of z, y, x.
pub(crate) fn shifts(search: [i32; 3]) -> impl Iterator<Item = [i32; 3]> {
    (-search[2]..=search[2]).flat_map(move |z| {
        (-search[1]..=search[1]).flat_map(move |y| (-search[0]..=search[0]).map(move |x| [x, y, z]))
    })
}

fn fft3(volume: &mut Array3<Complex32>, plans: &[Arc<dyn Fft<f32>>; 3]) {
    for (axis, plan) in plans.iter().enumerate() {
        if plan.len() == 1 {
            continue;
        }
        Zip::from(volume.lanes_mut(Axis(axis))).par_for_each(|mut lane| {
            if let Some(line) = lane.as_slice_mut() {
                plan.process(line);
                return;
            }
            let mut line: Vec<Complex32> = lane.iter().copied().collect();
            plan.process(&mut line);
            for (value, new) in lane.iter_mut().zip(line) {
                *value = new;
            }
        });
    }
}

/// The next length of the form 2^a 3^b 5^c.
fn fast_length(n: usize) -> usize {
    (n.max(1)..)
        .find(|&m| {
            let mut rest = m;
            for prime in [2, 3, 5] {
                while rest % prime == 0 {
                    rest /= prime;
                }
            }
            rest == 1
        })
        .expect("powers of two have no end")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, voxel by voxel.
    fn direct(
        r: &Array3<f32>,
        m_r: &Array3<f32>,
        t: &Array3<f32>,
        m_t: &Array3<f32>,
        shift: [i32; 3],
    ) -> f64 {
        let (n_z, n_y, n_x) = r.dim();
        let mut pairs = Vec::new();
        for ((z, y, x), &value) in r.indexed_iter() {
            let to = [
                z as i32 + shift[2],
                y as i32 + shift[1],
                x as i32 + shift[0],
            ];
            if to
                .iter()
                .zip([n_z, n_y, n_x])
                .any(|(&k, n)| k < 0 || k >= n as i32)
            {
                continue;
            }
            let to = to.map(|k| k as usize);
            if m_r[[z, y, x]] > 0.0 && m_t[to] > 0.0 {
                pairs.push((f64::from(value), f64::from(t[to])));
            }
        }
        let n = pairs.len() as f64;
        let mean = |f: fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>() / n;
        let (r, t) = (mean(|p| p.0), mean(|p| p.1));
        let (mut rt, mut rr, mut tt) = (0.0, 0.0, 0.0);
        for (a, b) in &pairs {
            rt += (a - r) * (b - t);
            rr += (a - r) * (a - r);
            tt += (b - t) * (b - t);
        }
        rt / (rr * tt).sqrt()
    }

    #[test]
    fn the_transform_gives_the_correlation_coefficient_of_the_overlap() {
        let noise = |seed: u32| {
            let mut state = seed;
            Array3::from_shape_fn((5, 7, 6), |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 16_777_216.0 - 0.4
            })
        };
        let binary = |v: Array3<f32>| v.mapv(|v| f32::from(u8::from(v > -0.2)));
        let (m_r, m_t) = (binary(noise(3)), binary(noise(4)));
        let (r, t) = (noise(1) * &m_r, noise(2) * &m_t);
        let engine = Correlator::new([5, 7, 6], [3, 3, 2]);
        let map = engine.map(&engine.transform(&r, &m_r), &t, &m_t);
        let (mut worst, mut control) = (0f64, 0f64);
        for shift in shifts([3, 3, 2]) {
            let found = f64::from(map.at(shift));
            worst = worst.max((found - direct(&r, &m_r, &t, &m_t, shift)).abs());
            control = control.max((found - direct(&r, &m_r, &t, &m_t, shift.map(|s| -s))).abs());
        }
        // 100 terms of size 1 in f32 through three transforms
        assert!(worst < 1e-5, "{worst}");
        assert!(control > 0.1, "the opposite shift must not fit: {control}");
    }
}
