//! Seeds and placement: a generator small enough to be re-created in any language.

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Starts at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        SplitMix64(seed)
    }

    /// A generator of its own for each list of indices (scan, frame, row, ...), whatever the order in which they are asked.
    #[must_use]
    pub fn keyed(seed: u64, indices: &[u64]) -> Self {
        let mut state = seed;
        for &index in indices {
            // the output of one step seeds the next, so that (1, 2) and (2, 1) part
            state = SplitMix64(state ^ index.wrapping_mul(0xD6E8_FEB8_6659_FD93)).next_u64();
        }
        SplitMix64(state)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform between `low` (included) and `high`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0))
    }

    /// Log-uniform between `low` and `high`.
    pub fn log_uniform(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.uniform(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_that_of_the_paper() {
        // first outputs for seed 1234567, from the reference implementation (Vigna, splitmix64.c)
        let mut g = SplitMix64::new(1_234_567);
        assert_eq!(g.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(g.next_u64(), 3_203_168_211_198_807_973);
        assert_ne!(
            SplitMix64::new(1_234_568).next_u64(),
            6_457_827_717_110_365_317
        );
    }

    #[test]
    fn keys_in_another_order_give_another_stream() {
        let first = |keys: &[u64]| SplitMix64::keyed(5, keys).next_u64();
        assert_eq!(first(&[1, 2]), first(&[1, 2]));
        assert!(first(&[1, 2]) != first(&[2, 1]) && first(&[0]) != first(&[0, 0]));
    }
}
