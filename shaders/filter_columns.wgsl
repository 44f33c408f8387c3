// The lowest waves along the angle of each column: taken out (filtering, of which they are then sorted), smoothed across (fft), or
// all that is kept (the detail of wavelet-fft, see wavelet_columns.wgsl).
// Twins: the functions of the same names in src/correct/stripe/on_gpu/waves.rs (same order of operations).
//
//   take_waves    Fourier samples of a column, extended at its ends, at the few frequencies that the window lets through
//   across_waves  what the window across the columns removes of each of these frequencies
//   take_away     the sum of these waves is taken off the columns, and kept for what comes next
//   put_waves     the sum of these waves itself
//   add_ranked    the smoothed sample of each rank is added at the angle that the rank came from
//
// A wave has so many half turns to the extended column: the low-pass of filtering stands between the frequencies of odd lengths.
// Source: Vo, Atwood and Drakopoulos, Opt. Express 26 (2018) 28396, algorithm 2; Raven, Rev. Sci. Instrum. 69 (1998) 2978; windows
// and edges as in src/correct/stripe/filtering.rs and raven.rs.

struct WaveParams {
    n_cols: u32,
    n_angles: u32,
    pad: u32,              // by which columns and rows are extended at each end
    n_waves: u32,
    odd: u32,              // half turns of the first wave: 0 or 1; the others have two more each
    mirrored: u32,         // 1: columns are extended by their mirror image, 0: by their mean
}

@group(0) @binding(0) var<uniform> params: WaveParams;
@group(0) @binding(1) var<storage, read_write> columns: array<f32>;           // [row, col, angle]
@group(0) @binding(2) var<storage, read> turns: array<vec2<f32>>;             // cosine and sine of a turn in two steps per sample
@group(0) @binding(3) var<storage, read_write> waves: array<vec2<f32>>;       // [row, wave, col]
@group(0) @binding(4) var<storage, read_write> removed: array<vec2<f32>>;     // [row, wave, col]
@group(0) @binding(5) var<storage, read> window: array<f32>;                  // [distance], across the columns
@group(0) @binding(6) var<storage, read> gains: array<f32>;                   // [wave]
@group(0) @binding(7) var<storage, read_write> low: array<f32>;               // [row, col, angle]
@group(0) @binding(8) var<storage, read> order: array<u32>;                   // [row, col, rank], angle
@group(0) @binding(9) var<storage, read> ranked: array<f32>;                  // [row, col, rank]

var<workgroup> parts: array<vec2<f32>, 256>;

// two numbers of each invocation, added up in one order
fn sum_of(own: vec2<f32>, thread: u32) -> vec2<f32> {
    workgroupBarrier();
    parts[thread] = own;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            parts[thread] += parts[thread + half];
        }
    }
    workgroupBarrier();
    return parts[0];
}

// the turn of a wave at a sample of the extended column
fn turn(wave: u32, place: u32) -> vec2<f32> {
    return turns[(2u * wave + params.odd) * place % (2u * (params.n_angles + 2u * params.pad))];
}

// x: column, y: row
@compute @workgroup_size(256)
fn take_waves(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = (group.y * params.n_cols + group.x) * params.n_angles;
    let tall = params.n_angles + 2u * params.pad;
    var mean = 0.0;
    if params.mirrored == 0u {
        var sum = 0.0;
        for (var angle = thread; angle < params.n_angles; angle += 256u) {
            sum += columns[column + angle];
        }
        mean = sum_of(vec2(sum, 0.0), thread).x / f32(params.n_angles);
    }
    let last = i32(params.n_angles) - 1;
    for (var wave = 0u; wave < params.n_waves; wave += 1u) {
        var sum = vec2<f32>();
        for (var place = thread; place < tall; place += 256u) {
            let angle = i32(place) - i32(params.pad);
            var value = 0.0;
            if params.mirrored == 1u {
                value = columns[column + u32(last - abs(last - abs(angle)))];
            } else if angle >= 0 && angle <= last {
                // the mean itself is in the first wave only
                value = columns[column + u32(angle)] - mean;
            }
            sum += value * vec2(1.0, -1.0) * turn(wave, place);
        }
        var all = sum_of(sum, thread);
        if params.mirrored == 0u && wave == 0u {
            all = vec2(mean * f32(tall), 0.0);
        }
        if thread == 0u {
            waves[(group.y * params.n_waves + wave) * params.n_cols + group.x] = all;
        }
    }
}

// x: 256 columns, y: wave, z: row
@compute @workgroup_size(256)
fn across_waves(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_cols {
        return;
    }
    let line = (id.z * params.n_waves + id.y) * params.n_cols;
    let wide = params.n_cols + 2u * params.pad;
    let here = id.x + params.pad;
    var sum = vec2<f32>();
    for (var place = 0u; place < wide; place += 1u) {
        let apart = max(here, place) - min(here, place);
        // beyond the edges the outermost columns are repeated
        let col = clamp(place, params.pad, params.pad + params.n_cols - 1u) - params.pad;
        sum += window[min(apart, wide - apart)] * waves[line + col];
    }
    removed[line + id.x] = sum;
}

// the sum of all waves at an angle, column and row
fn sum_at(id: vec3<u32>) -> f32 {
    var sum = 0.0;
    for (var wave = 0u; wave < params.n_waves; wave += 1u) {
        let size = waves[(id.z * params.n_waves + wave) * params.n_cols + id.y];
        let at = turn(wave, id.x + params.pad);
        sum += gains[wave] * (size.x * at.x - size.y * at.y);
    }
    return sum;
}

// x: angle, y: column, z: row
@compute @workgroup_size(256)
fn put_waves(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < params.n_angles {
        columns[(id.z * params.n_cols + id.y) * params.n_angles + id.x] = sum_at(id);
    }
}

// x: angle, y: column, z: row
@compute @workgroup_size(256)
fn take_away(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let sum = sum_at(id);
    let index = (id.z * params.n_cols + id.y) * params.n_angles + id.x;
    columns[index] -= sum;
    if params.mirrored == 1u {
        low[index] = sum;
    }
}

// x: rank, y: column, z: row
@compute @workgroup_size(256)
fn add_ranked(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let column = (id.z * params.n_cols + id.y) * params.n_angles;
    columns[column + order[column + id.x]] += ranked[column + id.x];
}
