// The Fourier method: Cartesian cells of the spectrum of a slice -> the slice.
// Twin: the functions of the same names in src/reconstruct/fourier_transform.rs (same order of operations).
//
// A slice is real, so half of its spectrum is held: columns u from 0 to n_u / 2. In the order of the launches:
//   transform_global, transform_local   every column, along v
//   keep_rows                           the v that are voxels, turned round: [row of the slice, u]
//   pair_rows                           two rows of a slice as one complex line, completed to all u
//   transform_global, transform_local   every line, along u
//   write_slices                        real and imaginary part are the two rows; the window is divided out
// Transforms are inverse, decimation in frequency: radix 2 through memory while blocks exceed what a workgroup holds, then
// radix 4 within one; they end in bit-reversed order, which the next step reads. None is normalised.
// Source: Gentleman & Sande, AFIPS 29 (1966) 563.

struct FourierTransformParams {
    n: u32,              // length of a line, a power of two, at least 4
    log2_n: u32,
    n_local: u32,        // elements that a workgroup transforms, at most LOCAL
    block: u32,          // size of the blocks that a global pass splits
    n_lines: u32,        // lines of a row of the detector
    n_u: u32,
    u_first: u32,        // first column of the band
    n_x: u32,
    n_y: u32,
    y_first: u32,        // first row of the slice in this band, even
    y_band: u32,         // rows of the slice in this band
    n_slices: u32,       // slices wanted
}

// elements of the transform in workgroup memory; the host writes the number in
const LOCAL: u32 = 4096u;
const THREADS: u32 = 256u;

@group(0) @binding(0) var<uniform> params: FourierTransformParams;
@group(0) @binding(1) var<storage, read> twiddles: array<vec2<f32>>;         // [n], exp(-2 pi i t / n)
@group(0) @binding(2) var<storage, read_write> lines: array<vec2<f32>>;      // [row, line, n]
@group(0) @binding(3) var<storage, read_write> kept: array<vec2<f32>>;       // [row, y - y_first, n_u / 2 + 1]
@group(0) @binding(4) var<storage, read> deapodise: array<f32>;              // [n_x], then [n_y]
@group(0) @binding(5) var<storage, read> spans: array<vec2<u32>>;            // [y], columns inside the mask
@group(0) @binding(6) var<storage, read_write> volume: array<f32>;           // [slice, y - y_first, x]

var<workgroup> local: array<vec2<f32>, LOCAL>;

fn multiply(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return vec2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

fn conjugate(a: vec2<f32>) -> vec2<f32> {
    return vec2(a.x, -a.y);
}

// x: butterfly, y: line, z: row
@compute @workgroup_size(256)
fn transform_global(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n / 2u {
        return;
    }
    let half = params.block / 2u;
    let j = id.x % half;
    let at = (id.z * params.n_lines + id.y) * params.n + (id.x / half) * params.block + j;
    let a = lines[at];
    let b = lines[at + half];
    lines[at] = a + b;
    lines[at + half] = multiply(a - b, conjugate(twiddles[j * (params.n / params.block)]));
}

// x: block of n_local elements, y: line, z: row
@compute @workgroup_size(256)
fn transform_local(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let first = (group.z * params.n_lines + group.y) * params.n + group.x * params.n_local;
    for (var i = thread; i < params.n_local; i += THREADS) {
        local[i] = lines[first + i];
    }
    workgroupBarrier();
    var block = params.n_local;
    if (firstTrailingBit(params.n_local) & 1u) == 1u {
        let half = block / 2u;
        for (var i = thread; i < half; i += THREADS) {
            let a = local[i];
            let b = local[i + half];
            local[i] = a + b;
            local[i + half] = multiply(a - b, conjugate(twiddles[i * (params.n / block)]));
        }
        block = half;
        workgroupBarrier();
    }
    while block >= 4u {
        let quarter = block / 4u;
        let step = params.n / block;
        for (var i = thread; i < params.n_local / 4u; i += THREADS) {
            let j = i % quarter;
            let at = (i / quarter) * block + j;
            let a0 = local[at];
            let a1 = local[at + quarter];
            let a2 = local[at + 2u * quarter];
            let a3 = local[at + 3u * quarter];
            let even = a0 + a2;
            let odd = a1 + a3;
            let d02 = a0 - a2;
            let d13 = vec2(a3.y - a1.y, a1.x - a3.x);      // i (a1 - a3)
            local[at] = even + odd;
            local[at + quarter] = multiply(even - odd, conjugate(twiddles[2u * j * step]));
            local[at + 2u * quarter] = multiply(d02 + d13, conjugate(twiddles[j * step]));
            local[at + 3u * quarter] = multiply(d02 - d13, conjugate(twiddles[3u * j * step]));
        }
        block = quarter;
        workgroupBarrier();
    }
    for (var i = thread; i < params.n_local; i += THREADS) {
        lines[first + i] = local[i];
    }
}

// where the transform left element `index`
fn reversed(index: u32) -> u32 {
    return reverseBits(index) >> (32u - params.log2_n);
}

// x: column of the band, y: row of the slice in its band, z: row of the detector
@compute @workgroup_size(256)
fn keep_rows(@builtin(global_invocation_id) id: vec3<u32>) {
    let n_columns = params.n_u / 2u + 1u;
    let u = params.u_first + id.x;
    if id.x >= params.n_lines || u >= n_columns {
        return;
    }
    let v = (params.y_first + id.y + params.n - params.n_y / 2u) % params.n;
    kept[(id.z * params.y_band + id.y) * n_columns + u]
        = lines[(id.z * params.n_lines + id.x) * params.n + reversed(v)];
}

// row `y` of the band at column `u`, beyond the middle the conjugate; the ends are real but for rounding
fn completed(row: u32, y: u32, u: u32) -> vec2<f32> {
    if y >= params.y_band {
        return vec2<f32>();
    }
    let half = params.n_u / 2u;
    let first = (row * params.y_band + y) * (half + 1u);
    if u == 0u || u == half {
        return vec2(kept[first + u].x, 0.0);
    }
    if u < half {
        return kept[first + u];
    }
    return conjugate(kept[first + params.n_u - u]);
}

// x: column, y: pair of rows of the slice, z: row of the detector
@compute @workgroup_size(256)
fn pair_rows(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n {
        return;
    }
    let a = completed(id.z, 2u * id.y, id.x);
    let b = completed(id.z, 2u * id.y + 1u, id.x);
    lines[(id.z * params.n_lines + id.y) * params.n + id.x] = vec2(a.x - b.y, a.y + b.x);
}

// x: column of the slice, y: row of the slice in its band, z: slice
@compute @workgroup_size(256)
fn write_slices(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_x {
        return;
    }
    let y = params.y_first + id.y;
    let span = spans[y];
    var value = 0.0;
    if id.x >= span.x && id.x < span.y {
        let u = (id.x + params.n - params.n_x / 2u) % params.n;
        let both = lines[(id.z * params.n_lines + id.y / 2u) * params.n + reversed(u)];
        value = select(both.x, both.y, (id.y & 1u) == 1u) * deapodise[id.x] * deapodise[params.n_x + y];
    }
    volume[(id.z * params.y_band + id.y) * params.n_x + id.x] = value;
}
