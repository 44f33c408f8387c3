//! Instruction sets of the back-projection, chosen at run time.
//!
//! The compilers' own vectorisation of this loop is up to 20 times slower than intrinsics and depends on details, so the
//! kernel is written over [`Lanes`] and compiled once per instruction set. All levels with fused multiply-add do
//! the same operations in the same order on every voxel: they agree bit for bit, whatever their width.
#![expect(
    unsafe_code,
    reason = "SIMD loads and stores go through pointers; every kernel checks its slices first"
)]

use super::kernel::{ANGLES, RUN, Segment, Table, accumulate};

/// What the processor can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Whatever the compiler makes of arrays of four (NEON on aarch64).
    Plain,
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

    /// Slices interleaved at most.
    pub(crate) fn widest(self) -> usize {
        match self {
            Level::Plain => 16,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => 16,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => 32,
        }
    }

    /// For the record.
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "aarch64")]
            Level::Plain => "NEON",
            #[cfg(not(target_arch = "aarch64"))]
            Level::Plain => "plain",
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
    pub(crate) fn accumulate(self, slices: usize, segment: &Segment<'_>, sums: &mut [f32]) {
        match self {
            Level::Plain => match slices {
                4 => accumulate::<Four, Plain, 1, 2>(segment, sums),
                8 => accumulate::<Four, Plain, 2, 2>(segment, sums),
                16 => accumulate::<Four, Plain, 4, 1>(segment, sums),
                32 => accumulate::<Four, Plain, 8, 1>(segment, sums),
                other => panic!("{other} slices cannot be interleaved"),
            },
            // SAFETY: a level other than plain is only made by `available`, which asked the processor.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { x86::accumulate_avx2(slices, segment, sums) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { x86::accumulate_avx512(slices, segment, sums) },
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
                table.left[k][angle] = 1.0 - share;
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
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128, __m256, __m512, _CMP_LT_OQ, _mm_add_ps, _mm_cvtsi32_si128, _mm_fmadd_ps,
        _mm_loadu_ps, _mm_set1_ps, _mm_storeu_ps, _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps,
        _mm256_cmp_ps, _mm256_cvtepi32_ps, _mm256_cvttps_epi32, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_loadu_si256, _mm256_max_epi32, _mm256_min_epi32, _mm256_mul_ps, _mm256_mullo_epi32,
        _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps,
        _mm256_setzero_si256, _mm256_sll_epi32, _mm256_storeu_ps, _mm256_storeu_si256,
        _mm256_sub_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps,
        _mm512_cvttps_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_maskz_mov_ps, _mm512_max_epi32, _mm512_min_epi32, _mm512_mul_ps, _mm512_mullo_epi32,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_ps,
        _mm512_setzero_si512, _mm512_sll_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
        _mm512_sub_ps,
    };

    use super::{Lanes, RUN, Segment, Table, Tabulate, accumulate};

    macro_rules! lanes {
        ($type:ty, $width:literal, $load:ident, $store:ident, $splat:ident, $fma:ident, $add:ident) => {
            impl Lanes for $type {
                const WIDTH: usize = $width;
                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: the caller's promise.
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn splat(value: f32) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $splat(value) }
                }
                #[inline(always)]
                unsafe fn times_plus(self, factor: Self, addend: Self) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $fma(self, factor, addend) }
                }
                #[inline(always)]
                unsafe fn plus(self, other: Self) -> Self {
                    // SAFETY: the caller's promise.
                    unsafe { $add(self, other) }
                }
            }
        };
    }
    lanes!(
        __m128,
        4,
        _mm_loadu_ps,
        _mm_storeu_ps,
        _mm_set1_ps,
        _mm_fmadd_ps,
        _mm_add_ps
    );
    lanes!(
        __m256,
        8,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps
    );
    lanes!(
        __m512,
        16,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps
    );

    /// Eight angles at once.
    pub(super) struct Eight;

    impl Tabulate for Eight {
        #[inline(always)]
        unsafe fn fill(segment: &Segment<'_>, slices: usize, table: &mut Table) {
            // SAFETY: every pointer is to eight of the sixteen angles of an array.
            unsafe {
                let start = segment.start();
                let last = _mm256_set1_epi32(segment.n_samples as i32 - 2);
                let zero = _mm256_setzero_si256();
                let shift = _mm_cvtsi32_si128(slices.trailing_zeros() as i32);
                for half in [0, 8] {
                    let rest = _mm256_loadu_ps(start.rest.as_ptr().add(half));
                    let step = _mm256_loadu_ps(segment.lines.step.as_ptr().add(half));
                    let first = _mm256_loadu_si256(start.whole.as_ptr().add(half).cast());
                    let falls = _mm256_cmp_ps::<_CMP_LT_OQ>(step, _mm256_setzero_ps());
                    let back = _mm256_and_ps(falls, _mm256_set1_ps((RUN - 1) as f32));
                    let lanes = _mm256_add_epi32(
                        _mm256_set1_epi32(half as i32),
                        _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                    );
                    let row = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(segment.stride as i32));
                    for (k, voxel) in segment.voxels.clone().enumerate() {
                        let from = _mm256_sub_ps(_mm256_set1_ps(voxel as f32), back);
                        let p = _mm256_add_ps(rest, _mm256_mul_ps(from, step));
                        let whole = _mm256_cvttps_epi32(p);
                        let share = _mm256_sub_ps(p, _mm256_cvtepi32_ps(whole));
                        let sample = _mm256_add_epi32(first, whole);
                        let sample = _mm256_min_epi32(_mm256_max_epi32(sample, zero), last);
                        let offset = _mm256_add_epi32(_mm256_sll_epi32(sample, shift), row);
                        _mm256_storeu_si256(table.offset[k].as_mut_ptr().add(half).cast(), offset);
                        _mm256_storeu_ps(table.right[k].as_mut_ptr().add(half), share);
                        let left = _mm256_sub_ps(_mm256_set1_ps(1.0), share);
                        _mm256_storeu_ps(table.left[k].as_mut_ptr().add(half), left);
                    }
                }
            }
        }
    }

    /// Sixteen angles at once.
    pub(super) struct Sixteen;

    impl Tabulate for Sixteen {
        #[inline(always)]
        unsafe fn fill(segment: &Segment<'_>, slices: usize, table: &mut Table) {
            // SAFETY: every pointer is to the sixteen angles of an array.
            unsafe {
                let start = segment.start();
                let last = _mm512_set1_epi32(segment.n_samples as i32 - 2);
                let zero = _mm512_setzero_si512();
                let shift = _mm_cvtsi32_si128(slices.trailing_zeros() as i32);
                let rest = _mm512_loadu_ps(start.rest.as_ptr());
                let step = _mm512_loadu_ps(segment.lines.step.as_ptr());
                let first = _mm512_loadu_si512(start.whole.as_ptr().cast());
                let falls = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(step, _mm512_setzero_ps());
                let back = _mm512_maskz_mov_ps(falls, _mm512_set1_ps((RUN - 1) as f32));
                let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                let row = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(segment.stride as i32));
                for (k, voxel) in segment.voxels.clone().enumerate() {
                    let from = _mm512_sub_ps(_mm512_set1_ps(voxel as f32), back);
                    let p = _mm512_add_ps(rest, _mm512_mul_ps(from, step));
                    let whole = _mm512_cvttps_epi32(p);
                    let share = _mm512_sub_ps(p, _mm512_cvtepi32_ps(whole));
                    let sample = _mm512_add_epi32(first, whole);
                    let sample = _mm512_min_epi32(_mm512_max_epi32(sample, zero), last);
                    let offset = _mm512_add_epi32(_mm512_sll_epi32(sample, shift), row);
                    _mm512_storeu_si512(table.offset[k].as_mut_ptr().cast(), offset);
                    _mm512_storeu_ps(table.right[k].as_mut_ptr(), share);
                    _mm512_storeu_ps(
                        table.left[k].as_mut_ptr(),
                        _mm512_sub_ps(_mm512_set1_ps(1.0), share),
                    );
                }
            }
        }
    }

    /// # Safety
    /// The processor must have AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn accumulate_avx2(slices: usize, segment: &Segment<'_>, sums: &mut [f32]) {
        match slices {
            4 => accumulate::<__m128, Eight, 1, 4>(segment, sums),
            8 => accumulate::<__m256, Eight, 1, 4>(segment, sums),
            16 => accumulate::<__m256, Eight, 2, 2>(segment, sums),
            32 => accumulate::<__m256, Eight, 4, 1>(segment, sums),
            other => panic!("{other} slices cannot be interleaved"),
        }
    }

    /// # Safety
    /// The processor must have AVX2, FMA and AVX-512F.
    #[target_feature(enable = "avx2,fma,avx512f")]
    pub(super) unsafe fn accumulate_avx512(slices: usize, segment: &Segment<'_>, sums: &mut [f32]) {
        match slices {
            4 => accumulate::<__m128, Sixteen, 1, 4>(segment, sums),
            8 => accumulate::<__m256, Sixteen, 1, 4>(segment, sums),
            16 => accumulate::<__m512, Sixteen, 1, 4>(segment, sums),
            32 => accumulate::<__m512, Sixteen, 2, 2>(segment, sums),
            other => panic!("{other} slices cannot be interleaved"),
        }
    }
}
