//! From transmission to line integrals.

/// `-ln(max(transmission, min_transmission))` in place, and how many samples were raised.
///
/// NaN counts as raised, so that the result is finite whatever comes in (except for `+inf`, which has no logarithm
/// and is taken as open beam, and counted as well).
pub(super) fn minus_log(transmission: &mut [f32], min_transmission: f32) -> u64 {
    let mut clipped = 0;
    for value in transmission {
        let raised = value.is_nan() || *value < min_transmission;
        clipped += u64::from(raised || *value == f32::INFINITY);
        let bounded = if raised { min_transmission } else { *value };
        *value = if bounded == f32::INFINITY {
            0.0
        } else {
            -bounded.ln()
        };
    }
    clipped
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
}
