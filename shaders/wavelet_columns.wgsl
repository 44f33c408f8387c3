// The wavelet-Fourier filter: the detail across the columns that hardly changes along the angle is taken off, in every scale.
// Twins: column_means in src/correct/stripe/on_gpu/wavelets.rs, the others in src/correct/stripe/wavelet.rs and wavelet_fft.rs (same
// order of operations).
//
//   column_means     by which columns are extended along the angle
//   low_along        low-pass coefficients along the angle, of the columns with their edges or of the last approximation
//   across           low-pass and high-pass coefficients of those across the columns: the next approximation, and the detail
//   (filter_columns.wgsl: the detail becomes the sum of its lowest waves along the angle)
//   across_back      the way back, from the coarsest scale to the finest
//   low_along_back
//   take_off         the same for the finest scale, which is taken off the columns
//
// Source: Muench, Trtik, Marone and Stampanoni, Opt. Express 17 (2009) 8567; edges as in src/correct/stripe/wavelet_fft.rs.

struct WaveletParams {
    n_cols: u32,         // of the image that this scale takes apart
    n_angles: u32,
    pad: u32,            // by which it is extended at each end
    half_cols: u32,      // of its coefficients
    half_angles: u32,
    n_taps: u32,
    has_low: u32,        // 1: there is a coarser scale
}

@group(0) @binding(0) var<uniform> params: WaveletParams;
@group(0) @binding(1) var<storage, read_write> image: array<f32>;      // [row, col, angle], the columns or an approximation
@group(0) @binding(2) var<storage, read_write> means: array<f32>;      // [row, col]
@group(0) @binding(3) var<storage, read> filters: array<f32>;          // low-pass, then high-pass
@group(0) @binding(4) var<storage, read_write> tall: array<f32>;       // [row, extended col, angle of the coefficients]
@group(0) @binding(5) var<storage, read_write> low: array<f32>;        // [row, col, angle], both of the coefficients
@group(0) @binding(6) var<storage, read_write> high: array<f32>;       // the same

var<workgroup> parts: array<f32, 256>;

// x: column, y: row
@compute @workgroup_size(256)
fn column_means(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let col = group.y * params.n_cols + group.x;
    var sum = 0.0;
    for (var angle = thread; angle < params.n_angles; angle += 256u) {
        sum += image[col * params.n_angles + angle];
    }
    parts[thread] = sum;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            parts[thread] += parts[thread + half];
        }
    }
    if thread == 0u {
        means[col] = parts[0] / f32(params.n_angles);
    }
}

// the index inside 0..n of a line that is mirrored at its ends, which are repeated
fn reflected(place: i32, n: i32) -> u32 {
    if place >= 0 && place < n {
        return u32(place);
    }
    let inside = ((place % (2 * n)) + 2 * n) % (2 * n);
    return u32(select(2 * n - 1 - inside, inside, inside < n));
}

fn wide() -> u32 {
    return params.n_cols + 2u * params.pad;
}

// x: angle of the coefficients, y: extended column, z: row
@compute @workgroup_size(256)
fn low_along(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.half_angles {
        return;
    }
    let inner = clamp(id.y, params.pad, params.pad + params.n_cols - 1u) - params.pad;
    let col = id.z * params.n_cols + inner;
    let height = i32(params.n_angles + 2u * params.pad);
    var sum = 0.0;
    for (var j = 0u; j < params.n_taps; j += 1u) {
        let place = reflected(2 * i32(id.x) + 1 - i32(j), height);
        var value: f32;
        if place >= params.pad && place < params.pad + params.n_angles {
            value = image[col * params.n_angles + place - params.pad];
        } else {
            value = means[col];
        }
        sum += filters[j] * value;
    }
    tall[(id.z * wide() + id.y) * params.half_angles + id.x] = sum;
}

// x: angle, y: column, both of the coefficients, z: row
@compute @workgroup_size(256)
fn across(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.half_angles {
        return;
    }
    var sum = vec2<f32>();
    for (var j = 0u; j < params.n_taps; j += 1u) {
        let col = reflected(2 * i32(id.y) + 1 - i32(j), i32(wide()));
        let value = tall[(id.z * wide() + col) * params.half_angles + id.x];
        sum += vec2(filters[j], filters[params.n_taps + j]) * value;
    }
    let index = (id.z * params.half_cols + id.y) * params.half_angles + id.x;
    low[index] = sum.x;
    high[index] = sum.y;
}

// x: angle of the coefficients, y: extended column, z: row
@compute @workgroup_size(256)
fn across_back(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.half_angles {
        return;
    }
    var sum = 0.0;
    let end = min(params.half_cols, (id.y + params.n_taps - 1u) / 2u + 1u);
    for (var k = id.y / 2u; k < end; k += 1u) {
        let j = 2u * k + 1u - id.y;
        if j >= params.n_taps {
            continue;
        }
        let index = (id.z * params.half_cols + k) * params.half_angles + id.x;
        if params.has_low == 1u {
            sum += filters[j] * low[index];
        }
        sum += filters[params.n_taps + j] * high[index];
    }
    tall[(id.z * wide() + id.y) * params.half_angles + id.x] = sum;
}

// the sample at `place` of an extended column from its coefficients
fn along_back(row: u32, col: u32, place: u32) -> f32 {
    let first = (row * wide() + col) * params.half_angles;
    var sum = 0.0;
    for (var j = 1u - place % 2u; j < params.n_taps; j += 2u) {
        sum += filters[j] * tall[first + (place + j - 1u) / 2u];
    }
    return sum;
}

// x: angle, y: column, z: row
@compute @workgroup_size(256)
fn low_along_back(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    image[(id.z * params.n_cols + id.y) * params.n_angles + id.x] = along_back(id.z, id.y, id.x);
}

// x: angle, y: column, z: row
@compute @workgroup_size(256)
fn take_off(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    image[(id.z * params.n_cols + id.y) * params.n_angles + id.x]
        -= along_back(id.z, id.y + params.pad, id.x + params.pad);
}
