//! 128 bits of AArch64, where every processor has NEON with fused multiply-add.

use std::arch::aarch64::{
    float32x4_t, vaddq_f32, vaddq_s32, vandq_u32, vcltzq_f32, vcvtq_f32_s32, vcvtq_s32_f32,
    vdupq_n_f32, vdupq_n_s32, vfmaq_f32, vld1q_f32, vld1q_s32, vmaxq_s32, vminq_s32, vmulq_f32,
    vmulq_s32, vqaddq_s32, vreinterpretq_f32_u32, vreinterpretq_u32_f32, vshlq_s32, vst1q_f32,
    vst1q_s32, vsubq_f32,
};

use super::{ANGLES, Lanes, RUN, Segment, Table, Tabulate, accumulate};

impl Lanes for float32x4_t {
    const WIDTH: usize = 4;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { vst1q_f32(to, self) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vdupq_n_f32(value) }
    }
    #[inline(always)]
    unsafe fn times_plus(self, factor: Self, addend: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vfmaq_f32(addend, self, factor) }
    }
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vaddq_f32(self, other) }
    }
    #[inline(always)]
    unsafe fn minus(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { vsubq_f32(self, other) }
    }
}

/// Four angles at once.
struct Four;

impl Tabulate for Four {
    #[inline(always)]
    unsafe fn fill(segment: &Segment<'_>, slices: usize, table: &mut Table) {
        const LANE: [i32; 4] = [0, 1, 2, 3];
        // SAFETY: every pointer is to four of the sixteen angles of an array.
        unsafe {
            let start = segment.start();
            let last = vdupq_n_s32(segment.n_samples as i32 - 2);
            let zero = vdupq_n_s32(0);
            let shift = vdupq_n_s32(slices.trailing_zeros() as i32);
            let stride = vdupq_n_s32(segment.stride as i32);
            for quarter in (0..ANGLES).step_by(4) {
                let rest = vld1q_f32(start.rest.as_ptr().add(quarter));
                let step = vld1q_f32(segment.lines.step.as_ptr().add(quarter));
                let first = vld1q_s32(start.whole.as_ptr().add(quarter));
                let back = vreinterpretq_f32_u32(vandq_u32(
                    vcltzq_f32(step),
                    vreinterpretq_u32_f32(vdupq_n_f32((RUN - 1) as f32)),
                ));
                let lanes = vaddq_s32(vdupq_n_s32(quarter as i32), vld1q_s32(LANE.as_ptr()));
                let row = vmulq_s32(lanes, stride);
                for (k, voxel) in segment.voxels.clone().enumerate() {
                    let from = vsubq_f32(vdupq_n_f32(voxel as f32), back);
                    // two roundings, as on the other levels
                    let p = vaddq_f32(rest, vmulq_f32(from, step));
                    let whole = vcvtq_s32_f32(p);
                    let share = vsubq_f32(p, vcvtq_f32_s32(whole));
                    let sample = vqaddq_s32(first, whole);
                    let sample = vminq_s32(vmaxq_s32(sample, zero), last);
                    let offset = vaddq_s32(vshlq_s32(sample, shift), row);
                    vst1q_s32(table.offset[k].as_mut_ptr().add(quarter), offset);
                    vst1q_f32(table.right[k].as_mut_ptr().add(quarter), share);
                }
            }
        }
    }
}

/// Of the 32 registers, 16 hold the sums of 16 slices of two voxels.
pub(super) fn accumulate_neon(
    slices: usize,
    segment: &Segment<'_>,
    table: &mut Table,
    sums: &mut [f32],
) {
    match slices {
        4 => accumulate::<float32x4_t, Four, 1, 4>(segment, table, sums),
        8 => accumulate::<float32x4_t, Four, 2, 4>(segment, table, sums),
        16 => accumulate::<float32x4_t, Four, 4, 2>(segment, table, sums),
        32 => accumulate::<float32x4_t, Four, 8, 1>(segment, table, sums),
        other => panic!("{other} slices cannot be interleaved"),
    }
}
