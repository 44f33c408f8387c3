//! 256 and 512 bits of x86-64.

use std::arch::x86_64::{
    __m128, __m256, __m512, _CMP_LT_OQ, _mm_add_ps, _mm_cvtsi32_si128, _mm_fmadd_ps, _mm_loadu_ps,
    _mm_set1_ps, _mm_storeu_ps, _mm_sub_ps, _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps,
    _mm256_cmp_ps, _mm256_cvtepi32_ps, _mm256_cvttps_epi32, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_max_epi32, _mm256_min_epi32, _mm256_mul_ps, _mm256_mullo_epi32,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_sll_epi32, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_ps, _mm512_add_epi32,
    _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_cvttps_epi32, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_maskz_mov_ps, _mm512_max_epi32, _mm512_min_epi32,
    _mm512_mul_ps, _mm512_mullo_epi32, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_sll_epi32, _mm512_storeu_ps,
    _mm512_storeu_si512, _mm512_sub_ps,
};

use super::{Lanes, RUN, Segment, Table, Tabulate, accumulate};

macro_rules! lanes {
    ($type:ty, $width:literal, $load:ident, $store:ident, $splat:ident, $fma:ident, $add:ident, $sub:ident) => {
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
            #[inline(always)]
            unsafe fn minus(self, other: Self) -> Self {
                // SAFETY: the caller's promise.
                unsafe { $sub(self, other) }
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
    _mm_add_ps,
    _mm_sub_ps
);
lanes!(
    __m256,
    8,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_sub_ps
);
lanes!(
    __m512,
    16,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_sub_ps
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
            }
        }
    }
}

/// # Safety
/// The processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn accumulate_avx2(
    slices: usize,
    segment: &Segment<'_>,
    table: &mut Table,
    sums: &mut [f32],
) {
    match slices {
        4 => accumulate::<__m128, Eight, 1, 4>(segment, table, sums),
        8 => accumulate::<__m256, Eight, 1, 4>(segment, table, sums),
        16 => accumulate::<__m256, Eight, 2, 2>(segment, table, sums),
        32 => accumulate::<__m256, Eight, 4, 1>(segment, table, sums),
        other => panic!("{other} slices cannot be interleaved"),
    }
}

/// # Safety
/// The processor must have AVX2, FMA and AVX-512F.
#[target_feature(enable = "avx2,fma,avx512f")]
pub(super) unsafe fn accumulate_avx512(
    slices: usize,
    segment: &Segment<'_>,
    table: &mut Table,
    sums: &mut [f32],
) {
    match slices {
        4 => accumulate::<__m128, Sixteen, 1, 4>(segment, table, sums),
        8 => accumulate::<__m256, Sixteen, 1, 4>(segment, table, sums),
        16 => accumulate::<__m512, Sixteen, 1, 4>(segment, table, sums),
        32 => accumulate::<__m512, Sixteen, 2, 2>(segment, table, sums),
        other => panic!("{other} slices cannot be interleaved"),
    }
}
