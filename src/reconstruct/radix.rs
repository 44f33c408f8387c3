//! What the transforms of the GPU share: complex numbers, roots of unity, and decimation in frequency in the order of the shaders.
//!
//! Source: Gentleman & Sande, AFIPS 29 (1966) 563.

use std::f64::consts::PI;

use crate::gpu::Gpu;

/// Elements that a workgroup transforms, as written in the shaders.
pub const LOCAL: usize = 4096;
const LOCAL_LINE: &str = "const LOCAL: u32 = 4096u;";

/// Real and imaginary part.
pub(super) type Complex = [f32; 2];

pub(super) fn add(a: Complex, b: Complex) -> Complex {
    [a[0] + b[0], a[1] + b[1]]
}

pub(super) fn subtract(a: Complex, b: Complex) -> Complex {
    [a[0] - b[0], a[1] - b[1]]
}

pub(super) fn multiply(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

pub(super) fn conjugate(a: Complex) -> Complex {
    [a[0], -a[1]]
}

/// exp(-2 pi i t / n), `[n]`, from f64.
#[must_use]
pub fn twiddles(n: usize) -> Vec<[f32; 2]> {
    (0..n)
        .map(|t| {
            let (sin, cos) = (-2.0 * PI * t as f64 / n as f64).sin_cos();
            [cos as f32, sin as f32]
        })
        .collect()
}

/// `local` cut to [`LOCAL`] and to the workgroup memory of the GPU, and `source` with that number written in.
pub(super) fn for_workgroups(gpu: &Gpu, source: &str, local: usize) -> (usize, String) {
    let fits = (gpu.info().limits.max_compute_workgroup_storage_size as usize / 8).max(4);
    let local = local.min(LOCAL).min(1 << fits.ilog2());
    let source = source.replace(LOCAL_LINE, &format!("const LOCAL: u32 = {local}u;"));
    (local, source)
}

/// Sign of the exponent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Inverse,
}

/// Transforms `line` in place, not normalised and bit-reversed: radix 2 while blocks exceed `n_local`, then radix 4.
pub(super) fn decimate_in_frequency(
    direction: Direction,
    n_local: usize,
    twiddles: &[Complex],
    line: &mut [Complex],
) {
    let n = line.len();
    let root = |t: usize| match direction {
        Direction::Forward => twiddles[t],
        Direction::Inverse => conjugate(twiddles[t]),
    };
    let radix_2 = |line: &mut [Complex], block: usize| {
        let half = block / 2;
        for first in (0..n).step_by(block) {
            for j in 0..half {
                let (a, b) = (line[first + j], line[first + j + half]);
                line[first + j] = add(a, b);
                line[first + j + half] = multiply(subtract(a, b), root(j * (n / block)));
            }
        }
    };
    let mut block = n;
    while block > n_local {
        radix_2(line, block);
        block /= 2;
    }
    if n_local.ilog2() % 2 == 1 {
        radix_2(line, block);
        block /= 2;
    }
    while block >= 4 {
        let (quarter, step) = (block / 4, n / block);
        for first in (0..n).step_by(block) {
            for j in 0..quarter {
                let at = first + j;
                let [a0, a1, a2, a3] = [0, 1, 2, 3].map(|part| line[at + part * quarter]);
                let (even, odd) = (add(a0, a2), add(a1, a3));
                let d02 = subtract(a0, a2);
                let d13 = match direction {
                    Direction::Forward => [a1[1] - a3[1], a3[0] - a1[0]], // -i (a1 - a3)
                    Direction::Inverse => [a3[1] - a1[1], a1[0] - a3[0]], // i (a1 - a3)
                };
                line[at] = add(even, odd);
                line[at + quarter] = multiply(subtract(even, odd), root(2 * j * step));
                line[at + 2 * quarter] = multiply(add(d02, d13), root(j * step));
                line[at + 3 * quarter] = multiply(subtract(d02, d13), root(3 * j * step));
            }
        }
        block = quarter;
    }
}
