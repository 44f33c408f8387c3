//! Instruction sets of the back-projection, chosen at run time.
//!
//! The compilers' own vectorisation of this loop is up to 20 times slower than intrinsics and depends on details, so the
//! kernel is written over [`Lanes`] and compiled once per instruction set. All levels with fused multiply-add do
//! the same operations in the same order on every voxel: they agree bit for bit, whatever their width.
#![expect(
    unsafe_code,
    reason = "SIMD loads and stores go through pointers; every kernel checks its slices first"
)]

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::error::{Error, Result};

use super::kernel::{ANGLES, RUN, Segment, Table, accumulate};

/// The variable that forces a level.
const VARIABLE: &str = "TOMODELTA_SIMD";

/// What the processor can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Whatever the compiler makes of arrays of four.
    Plain,
    /// 128 bits, part of every AArch64 processor.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// 256 bits with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The levels of this processor, the fastest last.
    pub(crate) fn available() -> Vec<Level> {
        let mut levels = vec![Level::Plain];
        #[cfg(target_arch = "aarch64")]
        levels.push(Level::Neon);
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 {
                levels.push(Level::Avx2);
            }
            if avx2 && is_x86_feature_detected!("avx512f") {
                levels.push(Level::Avx512);
            }
        }
        levels
    }

    /// The fastest level of this processor.
    pub(crate) fn best() -> Level {
        *Level::available().last().expect("plain is always there")
    }

    /// The level that `TOMODELTA_SIMD` names, for timings and to compare levels: `plain`, `neon`, `avx2` or `avx512`; without it the fastest.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that this processor has no level for.
    pub(crate) fn chosen() -> Result<Level> {
        match std::env::var(VARIABLE) {
            Ok(name) => Level::named(&name),
            Err(_) => Ok(Level::best()),
        }
    }

    fn named(name: &str) -> Result<Level> {
        let key = |level: Level| level.name().to_lowercase().replace('-', "");
        let levels = Level::available();
        levels
            .iter()
            .copied()
            .find(|&level| key(level) == name)
            .ok_or_else(|| {
                let known: Vec<String> = levels.iter().map(|&level| key(level)).collect();
                Error::config(
                    VARIABLE,
                    name,
                    format!(
                        "this processor has {}; unset it for the fastest",
                        known.join(", ")
                    ),
                )
            })
    }

    /// Slices interleaved at most.
    pub(crate) fn widest(self) -> usize {
        match self {
            Level::Plain => 16,
            #[cfg(target_arch = "aarch64")]
            Level::Neon => 16,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => 32,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => 32,
        }
    }

    /// For the record.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Plain => "plain",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "NEON",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "AVX-512",
        }
    }

    /// Adds the angles of a segment to its voxels, `sums` `[voxel, slice]` with `slices` of 4, 8, 16 or 32.
    ///
    /// # Panics
    /// For another number of slices, or slices of memory that are too short.
    pub(crate) fn accumulate(
        self,
        slices: usize,
        segment: &Segment<'_>,
        table: &mut Table,
        sums: &mut [f32],
    ) {
        match self {
            Level::Plain => match slices {
                4 => accumulate::<Four, Plain, 1, 2>(segment, table, sums),
                8 => accumulate::<Four, Plain, 2, 2>(segment, table, sums),
                16 => accumulate::<Four, Plain, 4, 1>(segment, table, sums),
                32 => accumulate::<Four, Plain, 8, 1>(segment, table, sums),
                other => panic!("{other} slices cannot be interleaved"),
            },
            #[cfg(target_arch = "aarch64")]
            Level::Neon => neon::accumulate_neon(slices, segment, table, sums),
            // SAFETY: a level other than plain is only made by `available`, which asked the processor.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { x86::accumulate_avx2(slices, segment, table, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { x86::accumulate_avx512(slices, segment, table, sums) },
        }
    }
}

/// A few slices of one sample.
pub(crate) trait Lanes: Copy {
    /// How many.
    const WIDTH: usize;
    /// # Safety
    /// `from` must hold `WIDTH` values; the instruction set must be there.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// `to` must have room for `WIDTH` values; the instruction set must be there.
    unsafe fn store(self, to: *mut f32);
    /// # Safety
    /// The instruction set must be there.
    unsafe fn splat(value: f32) -> Self;
    /// `self * factor + addend`, rounded once where the processor can.
    ///
    /// # Safety
    /// The instruction set must be there.
    unsafe fn times_plus(self, factor: Self, addend: Self) -> Self;
    /// # Safety
    /// The instruction set must be there.
    unsafe fn plus(self, other: Self) -> Self;
    /// # Safety
    /// The instruction set must be there.
    unsafe fn minus(self, other: Self) -> Self;
}

/// Fills the table of a run: p = rest + from * step, the sample whole + floor(p) and its fraction.
///
/// `from` counts from the end where the coordinate falls along the row, so p is not negative and truncation is floor.
/// All levels round alike.
pub(crate) trait Tabulate {
    /// # Safety
    /// The instruction set must be there.
    unsafe fn fill(segment: &Segment<'_>, slices: usize, table: &mut Table);
}

/// One angle after another.
struct Plain;

impl Tabulate for Plain {
    #[inline(always)]
    unsafe fn fill(segment: &Segment<'_>, slices: usize, table: &mut Table) {
        let (start, last) = (segment.start(), segment.n_samples as i32 - 2);
        for (k, voxel) in segment.voxels.clone().enumerate() {
            for angle in 0..ANGLES {
                let step = segment.lines.step[angle];
                let from = if step < 0.0 {
                    voxel as f32 - (RUN - 1) as f32
                } else {
                    voxel as f32
                };
                let p = start.rest[angle] + from * step;
                let whole = p as i32;
                let share = p - whole as f32;
                let sample = start.whole[angle].saturating_add(whole).clamp(0, last);
                table.offset[k][angle] =
                    angle as i32 * segment.stride as i32 + sample * slices as i32;
                table.right[k][angle] = share;
            }
        }
    }
}

/// Four values that the compiler puts into one 128-bit register.
#[derive(Clone, Copy)]
struct Four([f32; 4]);

impl Lanes for Four {
    const WIDTH: usize = 4;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; unaligned on purpose.
        Four(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Four([value; 4])
    }
    #[inline(always)]
    unsafe fn times_plus(self, factor: Self, addend: Self) -> Self {
        // where fused multiply-add is no instruction of the target, `mul_add` is a slow call
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            Four(std::array::from_fn(|k| {
                self.0[k].mul_add(factor.0[k], addend.0[k])
            }))
        } else {
            Four(std::array::from_fn(|k| {
                self.0[k] * factor.0[k] + addend.0[k]
            }))
        }
    }
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        Four(std::array::from_fn(|k| self.0[k] + other.0[k]))
    }
    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        Four(std::array::from_fn(|k| self.0[k] - other.0[k]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconstruct::fbp::kernel::Lines;

    #[test]
    fn a_level_is_chosen_by_name_and_an_unknown_one_is_an_error_that_lists_them() {
        for level in Level::available() {
            let name = level.name().to_lowercase().replace('-', "");
            assert_eq!(Level::named(&name).unwrap(), level);
        }
        let error = Level::named("altivec").unwrap_err().to_string();
        assert!(
            error.contains(VARIABLE) && error.contains("plain"),
            "{error}"
        );
    }

    /// Sixteen directions over half a turn, which meet the middle of the rows, or lie beside them at both ends.
    fn lines(at_axis: f64) -> Lines {
        let angle = |k: usize| k as f64 * std::f64::consts::PI / ANGLES as f64;
        let along_x: [f64; ANGLES] = std::array::from_fn(|k| angle(k).cos());
        Lines {
            at_axis: [at_axis; ANGLES],
            along_x,
            along_y: std::array::from_fn(|k| angle(k).sin()),
            step: along_x.map(|along| along as f32),
            back: along_x.map(|along| if along < 0.0 { (RUN - 1) as f64 } else { 0.0 }),
        }
    }

    /// Sums of one voxel by definition: the sample left of the place, or the last but one, and the one right of it.
    fn by_definition(segment: &Segment<'_>, slices: usize, voxel: usize) -> Vec<f64> {
        let (lines, mut sums) = (segment.lines, vec![0.0; slices]);
        for angle in 0..ANGLES {
            let x = segment.x + voxel as f64;
            let place =
                lines.at_axis[angle] + x * lines.along_x[angle] + segment.y * lines.along_y[angle];
            let share = place - place.floor();
            let left = (place.floor() as i64).clamp(0, segment.n_samples as i64 - 2) as usize;
            for (slice, sum) in sums.iter_mut().enumerate() {
                let at = |sample: usize| {
                    f64::from(segment.samples[angle * segment.stride + sample * slices + slice])
                };
                *sum += (1.0 - share) * at(left) + share * at(left + 1);
            }
        }
        sums
    }

    /// All memory is as long as the kernel asks for and no longer, so that a checker of memory sees the first value beside it.
    #[test]
    fn every_level_gives_the_sums_of_the_definition_within_just_the_memory_it_asks_for() {
        let n_samples = 21;
        for (level, slices, at_axis, voxels) in Level::available()
            .into_iter()
            .flat_map(|level| [4, 8, 16, 32].map(|slices| (level, slices)))
            .flat_map(|(level, slices)| [-40.0, 10.0, 60.0].map(|at| (level, slices, at)))
            .flat_map(|(level, slices, at)| {
                [0..RUN, 0..1, 3..RUN, 2..5].map(|voxels| (level, slices, at, voxels))
            })
        {
            let stride = n_samples * slices + 4;
            let length = (ANGLES - 1) * stride + n_samples * slices;
            let samples: Vec<f32> = (0..length)
                .map(|k| (k * 7919 % 1009) as f32 / 1009.0)
                .collect();
            let segment = Segment {
                samples: &samples,
                stride,
                n_samples,
                lines: &lines(at_axis),
                x: -3.3,
                y: 1.7,
                voxels: voxels.clone(),
            };
            let mut sums = vec![1.0f32; voxels.len() * slices];
            level.accumulate(slices, &segment, &mut Table::new(), &mut sums);
            for (voxel, sums) in voxels.clone().zip(sums.chunks_exact(slices)) {
                for (sum, expected) in sums.iter().zip(by_definition(&segment, slices, voxel)) {
                    // a place of up to 8 is rounded three times, a sum of up to 17 with each of its 33 terms, to 2^-24
                    let difference = (f64::from(*sum) - 1.0 - expected).abs();
                    assert!(
                        difference < (16.0 * 3.0 * 8.0 + 33.0 * 17.0) * 6e-8,
                        "{level:?}, {slices} slices, {voxels:?} at {at_axis}: {difference}"
                    );
                }
            }
        }
    }
}
