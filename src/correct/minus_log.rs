//! From transmission to line integrals.

/// Samples whose raised ones are counted in 32 bits, which go through lanes as wide as the samples.
const COUNTED_AT_ONCE: usize = 1 << 16;

/// `-ln(max(transmission, min_transmission))` in place, and how many samples were raised.
///
/// NaN counts as raised, so that the result is finite whatever comes in (except for `+inf`, which has no logarithm
/// and is taken as open beam, and counted as well). `min_transmission` is a positive normal number.
pub(super) fn minus_log(transmission: &mut [f32], min_transmission: f32) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[expect(
            unsafe_code,
            reason = "the processor was just asked for the feature that the function is compiled with; half the time of lanes of four"
        )]
        // SAFETY: AVX2 is present.
        return unsafe { minus_log_avx2(transmission, min_transmission) };
    }
    minus_log_plain(transmission, min_transmission)
}

/// [`minus_log_plain`] compiled for AVX2; the same operations in the same order, hence the same result.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn minus_log_avx2(transmission: &mut [f32], min_transmission: f32) -> u64 {
    minus_log_plain(transmission, min_transmission)
}

#[inline(always)]
fn minus_log_plain(transmission: &mut [f32], min_transmission: f32) -> u64 {
    let mut all_raised = 0;
    for part in transmission.chunks_mut(COUNTED_AT_ONCE) {
        let mut raised = 0u32;
        for value in part {
            let seen = *value;
            // false for NaN too
            let enough = seen >= min_transmission;
            let endless = seen == f32::INFINITY;
            raised += u32::from(!enough | endless);
            let bounded = if enough { seen } else { min_transmission };
            *value = -ln(if endless { 1.0 } else { bounded });
        }
        all_raised += u64::from(raised);
    }
    all_raised
}

/// Natural logarithm of a positive normal number, to one unit in the last place.
///
/// The compiler turns a loop over it into lanes, which it does not with the one of the standard library, a call for each value. With
/// x = 2^e (1 + f), f in (sqrt(1/2) - 1, sqrt(2) - 1), and s = f / (2 + f), ln(1 + f) = 2 (s + s^3/3 + s^5/5 + ...); f is
/// split off, because it is exact: 2s = f - s f, and s f = f^2/2 - s f^2/2. What the series leaves out is below 2e-9 of it.
#[inline(always)]
pub(super) fn ln(x: f32) -> f32 {
    /// The bits of sqrt(1/2).
    const LEAST: u32 = 0x3f35_04f3;
    /// ln 2 in two parts; multiples of the first by the exponents are exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let above = x.to_bits().wrapping_sub(LEAST);
    let e = (above.cast_signed() >> 23) as f32;
    let f = f32::from_bits((above & 0x007f_ffff) + LEAST) - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let rest = z * (2.0 / 3.0 + z * (2.0 / 5.0 + z * (2.0 / 7.0 + z * (2.0 / 9.0))));
    let half_square = 0.5 * f * f;
    e * LN2[0] + (f - (half_square - (s * (half_square + rest) + e * LN2[1])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_below_the_least_transmission_are_raised_and_counted() {
        let mut values = [
            1.0,
            0.5,
            1e-4,
            9e-5,
            0.0,
            -3.0,
            f32::NAN,
            f32::INFINITY,
            2.0,
        ];
        assert_eq!(minus_log(&mut values, 1e-4), 5);
        let floor = -(1e-4f32).ln();
        let expected = [
            0.0,
            2f32.ln(),
            floor,
            floor,
            floor,
            floor,
            floor,
            0.0,
            -(2f32.ln()),
        ];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
        }
    }

    /// The whole range, and densely around 1, where the logarithm is small and its relative error would be large.
    #[test]
    fn the_logarithm_is_right_to_a_unit_in_the_last_place() {
        let all = (f32::MIN_POSITIVE.to_bits()..f32::INFINITY.to_bits()).step_by(1009);
        let around_one = (0.7f32.to_bits()..1.5f32.to_bits()).step_by(13);
        let ends = [f32::MIN_POSITIVE, 1.0, f32::MAX, 0.5f32.sqrt(), 2f32.sqrt()];
        let worst = all
            .chain(around_one)
            .map(f32::from_bits)
            .chain(ends)
            .map(|x| {
                let exact = f64::from(x).ln();
                let rounded = (exact as f32).abs();
                let unit = f64::from(rounded.next_up()) - f64::from(rounded);
                ((f64::from(ln(x)) - exact) / unit).abs()
            })
            .fold(0.0, f64::max);
        assert!(worst <= 1.0, "{worst} units in the last place");
    }
}
