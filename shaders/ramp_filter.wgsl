// The ramp filter: rows of line integrals -> filtered rows, four slices packed in a vec4 for the back-projection.
// Twin: ramp_filter_cpu in src/reconstruct/ramp_filter.rs (same names, same order of operations).
//
// Two rows (angles 2 pair and 2 pair + 1 of the same detector row) travel as the real and imaginary part of one line.
//   extend_rows          line, extended to n_fft
//   forward_global       decimation in frequency, radix 2, while the blocks exceed what a workgroup holds
//   forward_local        the rest within a workgroup, radix 4; the spectrum ends in bit-reversed order
//   inverse_local        times the multiplier of one phase, then decimation in time, radix 4
//   inverse_global       radix 2, until the blocks are whole lines again
//   gather_filtered      n_out samples from t0 on, zeros around them, into [group, angle, sample]
// An output `upsample` times finer is that many inverse transforms, phase p giving the samples p, p + upsample, ...
// In bit-reversed order no element ever moves: a pass reads and writes the same places, and one buffer is enough.
// Source: Cooley & Tukey, Math. Comp. 19 (1965) 297; Gentleman & Sande, AFIPS 29 (1966) 563.

struct RampFilterParams {
    n_rows: u32,        // detector rows, a multiple of 4
    n_angles: u32,      // of this block
    n_pairs: u32,       // ceil(n_angles / 2)
    n_cols: u32,
    n_fft: u32,         // a power of two, at least 4
    log2_n_fft: u32,
    n_local: u32,       // elements that a workgroup transforms, at most LOCAL
    n_left: u32,        // column 0 stands here in the extended row
    upsample: u32,
    n_out: u32,
    row_stride: u32,    // n_out + 3 or more
    block: u32,         // size of the blocks that a global pass splits or joins
}

struct View {
    weight: f32,        // arc of the projection [rad]
    radius: f32,        // of the disc that the sample is taken for outside the field, where it moves, else 0: then roll_off holds
    seen_right: f32,    // from the middle of the disc to the last column
    seen_left: f32,     // and to the first one
}

// elements of the transform in workgroup memory; the host writes the number in
const LOCAL: u32 = 4096u;
const THREADS: u32 = 256u;

@group(0) @binding(0) var<uniform> params: RampFilterParams;
@group(0) @binding(1) var<storage, read> line_integrals: array<f32>;      // [row, angle, col]
@group(0) @binding(2) var<storage, read> views: array<View>;              // [angle]
@group(0) @binding(3) var<storage, read> roll_off: array<f32>;            // [2, n_fft - n_cols], shares of the right and left edge
@group(0) @binding(4) var<storage, read> twiddles: array<vec2<f32>>;      // [n_fft], exp(-2 pi i t / n_fft)
@group(0) @binding(5) var<storage, read> multiplier: array<vec2<f32>>;    // [row, phase, n_fft / 2 + 1]
@group(0) @binding(6) var<storage, read_write> lines: array<vec2<f32>>;   // [row, pair, n_fft]
@group(0) @binding(7) var<storage, read_write> fine_lines: array<vec2<f32>>;   // [row, phase, pair, n_fft]
@group(0) @binding(8) var<storage, read_write> filtered: array<vec4<f32>>;     // [row / 4, angle, sample]
@group(0) @binding(9) var<storage, read_write> filtered_half: array<vec2<u32>>;   // the same in half precision

var<workgroup> line: array<vec2<f32>, LOCAL>;

fn multiply(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return vec2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

fn conjugate(a: vec2<f32>) -> vec2<f32> {
    return vec2(a.x, -a.y);
}

// the chord is at least this much longer than the seen part
const LEAST: f32 = 1.02;

// Chord of the disc `beyond` pixels behind the end of a row, over that at its end. Twin: share in src/reconstruct/support.rs.
fn share(disc: f32, from_middle: f32, beyond: f32) -> f32 {
    let seen = max(from_middle, 1.0);
    let radius = max(disc, LEAST * seen);
    let far = seen + beyond;
    let left = (radius - far) * (radius + far);
    return sqrt(max(left, 0.0) / ((radius - seen) * (radius + seen)));
}

// One sample of the extended row: edge values, turning from the right edge to the left one around the wrap.
fn extended(row: u32, angle: u32, index: u32) -> f32 {
    if angle >= params.n_angles {
        return 0.0;
    }
    let first = (row * params.n_angles + angle) * params.n_cols;
    let column = (index + params.n_fft - params.n_left) % params.n_fft;
    if column < params.n_cols {
        return line_integrals[first + column] * views[angle].weight;
    }
    let view = views[angle];
    let left = line_integrals[first];
    let right = line_integrals[first + params.n_cols - 1u];
    // samples behind the last column, and before the first one
    let behind = column - params.n_cols;
    let before = params.n_fft - 1u - column;
    var on_right: f32;
    var on_left: f32;
    if view.radius > 0.0 {
        on_right = share(view.radius, view.seen_right, f32(behind + 1u));
        on_left = share(view.radius, view.seen_left, f32(before + 1u));
    } else {
        on_right = roll_off[behind];
        on_left = roll_off[params.n_fft - params.n_cols + before];
    }
    return (right * on_right + left * on_left) * view.weight;
}

// x: sample, y: pair, z: row
@compute @workgroup_size(256)
fn extend_rows(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_fft {
        return;
    }
    let re = extended(id.z, 2u * id.y, id.x);
    let im = extended(id.z, 2u * id.y + 1u, id.x);
    lines[(id.z * params.n_pairs + id.y) * params.n_fft + id.x] = vec2(re, im);
}

// x: butterfly, y: pair, z: row
@compute @workgroup_size(256)
fn forward_global(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_fft / 2u {
        return;
    }
    let half = params.block / 2u;
    let j = id.x % half;
    let at = (id.z * params.n_pairs + id.y) * params.n_fft + (id.x / half) * params.block + j;
    let a = lines[at];
    let b = lines[at + half];
    lines[at] = a + b;
    lines[at + half] = multiply(a - b, twiddles[j * (params.n_fft / params.block)]);
}

// x: butterfly, y: pair, z: row * upsample + phase
@compute @workgroup_size(256)
fn inverse_global(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_fft / 2u {
        return;
    }
    let half = params.block / 2u;
    let j = id.x % half;
    let at = (id.z * params.n_pairs + id.y) * params.n_fft + (id.x / half) * params.block + j;
    let a = fine_lines[at];
    let b = multiply(fine_lines[at + half], conjugate(twiddles[j * (params.n_fft / params.block)]));
    fine_lines[at] = a + b;
    fine_lines[at + half] = a - b;
}

// x: block of n_local elements, y: pair, z: row
@compute @workgroup_size(256)
fn forward_local(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let first = (group.z * params.n_pairs + group.y) * params.n_fft + group.x * params.n_local;
    for (var i = thread; i < params.n_local; i += THREADS) {
        line[i] = lines[first + i];
    }
    workgroupBarrier();
    var block = params.n_local;
    if (firstTrailingBit(params.n_local) & 1u) == 1u {
        let half = block / 2u;
        for (var i = thread; i < half; i += THREADS) {
            let a = line[i];
            let b = line[i + half];
            line[i] = a + b;
            line[i + half] = multiply(a - b, twiddles[i * (params.n_fft / block)]);
        }
        block = half;
        workgroupBarrier();
    }
    while block >= 4u {
        let quarter = block / 4u;
        let step = params.n_fft / block;
        for (var i = thread; i < params.n_local / 4u; i += THREADS) {
            let j = i % quarter;
            let at = (i / quarter) * block + j;
            let a0 = line[at];
            let a1 = line[at + quarter];
            let a2 = line[at + 2u * quarter];
            let a3 = line[at + 3u * quarter];
            let even = a0 + a2;
            let odd = a1 + a3;
            let d02 = a0 - a2;
            let d13 = vec2(a1.y - a3.y, a3.x - a1.x);      // -i (a1 - a3)
            line[at] = even + odd;
            line[at + quarter] = multiply(even - odd, twiddles[2u * j * step]);
            line[at + 2u * quarter] = multiply(d02 + d13, twiddles[j * step]);
            line[at + 3u * quarter] = multiply(d02 - d13, twiddles[3u * j * step]);
        }
        block = quarter;
        workgroupBarrier();
    }
    for (var i = thread; i < params.n_local; i += THREADS) {
        lines[first + i] = line[i];
    }
}

// x: block of n_local elements, y: pair, z: row * upsample + phase
@compute @workgroup_size(256)
fn inverse_local(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.z / params.upsample;
    let first = (row * params.n_pairs + group.y) * params.n_fft + group.x * params.n_local;
    let half_spectrum = group.z * (params.n_fft / 2u + 1u);
    for (var i = thread; i < params.n_local; i += THREADS) {
        let k = reverseBits(group.x * params.n_local + i) >> (32u - params.log2_n_fft);
        var gain: vec2<f32>;
        if k <= params.n_fft / 2u {
            gain = multiplier[half_spectrum + k];
        } else {
            gain = conjugate(multiplier[half_spectrum + params.n_fft - k]);
        }
        line[i] = multiply(lines[first + i], gain);
    }
    workgroupBarrier();
    var block = 4u;
    while block <= params.n_local {
        let quarter = block / 4u;
        let step = params.n_fft / block;
        for (var i = thread; i < params.n_local / 4u; i += THREADS) {
            let j = i % quarter;
            let at = (i / quarter) * block + j;
            let w2 = conjugate(twiddles[2u * j * step]);
            let c0 = line[at];
            let c1 = multiply(line[at + quarter], w2);
            let c2 = multiply(line[at + 2u * quarter], conjugate(twiddles[j * step]));
            let c3 = multiply(line[at + 3u * quarter], conjugate(twiddles[3u * j * step]));
            let even = c0 + c1;
            let odd = c0 - c1;
            let s23 = c2 + c3;
            let d23 = vec2(c3.y - c2.y, c2.x - c3.x);      // i (c2 - c3)
            line[at] = even + s23;
            line[at + quarter] = odd + d23;
            line[at + 2u * quarter] = even - s23;
            line[at + 3u * quarter] = odd - d23;
        }
        block = block * 4u;
        workgroupBarrier();
    }
    if (firstTrailingBit(params.n_local) & 1u) == 1u {
        let half = params.n_local / 2u;
        for (var i = thread; i < half; i += THREADS) {
            let a = line[i];
            let b = multiply(line[i + half], conjugate(twiddles[i * (params.n_fft / params.n_local)]));
            line[i] = a + b;
            line[i + half] = a - b;
        }
        workgroupBarrier();
    }
    let first_fine = (group.z * params.n_pairs + group.y) * params.n_fft + group.x * params.n_local;
    for (var i = thread; i < params.n_local; i += THREADS) {
        fine_lines[first_fine + i] = line[i];
    }
}

// a sample of both rows of a pair, for four detector rows
struct Samples {
    re: vec4<f32>,
    im: vec4<f32>,
}

// sample x of the stored rows of pair y, of group z of four detector rows
fn stored_samples(id: vec3<u32>) -> Samples {
    var samples = Samples();
    // sample m is stored at m + 1: one zero before and two behind let the back-projection clamp instead of branch
    if id.x >= 1u && id.x <= params.n_out {
        let m = id.x - 1u;
        let phase = m % params.upsample;
        let at = m / params.upsample;
        for (var lane = 0u; lane < 4u; lane += 1u) {
            let source = ((4u * id.z + lane) * params.upsample + phase) * params.n_pairs + id.y;
            let value = fine_lines[source * params.n_fft + at];
            samples.re[lane] = value.x;
            samples.im[lane] = value.y;
        }
    }
    return samples;
}

// x: sample of the stored row, y: pair, z: group of four detector rows
@compute @workgroup_size(256)
fn gather_filtered(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.row_stride {
        return;
    }
    let samples = stored_samples(id);
    let row = (id.z * params.n_angles + 2u * id.y) * params.row_stride;
    filtered[row + id.x] = samples.re;
    if 2u * id.y + 1u < params.n_angles {
        filtered[row + params.row_stride + id.x] = samples.im;
    }
}

fn packed(value: vec4<f32>) -> vec2<u32> {
    return vec2(pack2x16float(value.xy), pack2x16float(value.zw));
}

// x: sample of the stored row, y: pair, z: group of four detector rows
@compute @workgroup_size(256)
fn gather_filtered_half(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.row_stride {
        return;
    }
    let samples = stored_samples(id);
    let row = (id.z * params.n_angles + 2u * id.y) * params.row_stride;
    filtered_half[row + id.x] = packed(samples.re);
    if 2u * id.y + 1u < params.n_angles {
        filtered_half[row + params.row_stride + id.x] = packed(samples.im);
    }
}
