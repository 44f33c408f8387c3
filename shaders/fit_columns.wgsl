// Fitting: every column is divided by a polynomial fit along the angle and multiplied by the same fit, smoothed over both axes.
// Twin: fitting_cpu in src/correct/stripe/on_gpu/fits.rs (same order of operations).
//
//   block_moments   shares of the polynomials in each block of a column that is mirrored at its ends
//   fit_columns     the fit at every angle: whole blocks of its window by their shares, samples at the window's ends one by one
//   sum_fits        mean of each column of the fit, and sum of its magnitudes
//   add_parts       one sum of many, of each row
//   smooth_along    Gaussian low-pass of the fit along the angle, complex, as published
//   apply_fit       the same across the columns; the columns times the ratio of its real part to the fit
//   scale_fitted    and times the ratio of the mean magnitudes of both
//
// The weights of the fit are a polynomial of the distance, so in a block they are a sum of as many orthonormal polynomials as it
// has coefficients: what a sample costs falls from the length of the window to that over BLOCK, with nothing large to cancel.
// Source: Vo, Atwood and Drakopoulos, Opt. Express 26 (2018) 28396, algorithm 1; windows and edges as in
// src/correct/stripe/fitting.rs.

struct FitParams {
    n_cols: u32,
    n_angles: u32,
    pad: u32,              // by which the fit is extended at each end for the low-pass
    half: u32,             // samples of the window on either side
    n_blocks: u32,         // whole blocks of a mirrored column
    n_terms: u32,          // polynomials of a block
    before_along: u32,     // taps of the low-pass at negative distances
    n_along: u32,          // all of them
    before_across: u32,
    n_across: u32,
    n_parts: u32,          // sums that are added for a row
    slot: u32,             // 0: sum of the fit, 1: of its smooth version
}

// samples of a block
const BLOCK: u32 = 64u;
// columns that an invocation smooths
const COLS: u32 = 8u;
// share of the mean magnitude below which the fit divides nothing
const FLOOR: f32 = 1e-6;

@group(0) @binding(0) var<uniform> params: FitParams;
@group(0) @binding(1) var<storage, read_write> columns: array<f32>;           // [row, col, angle]
@group(0) @binding(2) var<storage, read> polynomials: array<f32>;             // [term, BLOCK]
@group(0) @binding(3) var<storage, read_write> moments: array<f32>;           // [row, col, block, term]
@group(0) @binding(4) var<storage, read> weights: array<f32>;                 // [2 half + 1]
@group(0) @binding(5) var<storage, read> expansions: array<f32>;              // [term, distance of a block from the begin of the window]
@group(0) @binding(6) var<storage, read_write> fit: array<f32>;               // [row, col, angle]
@group(0) @binding(7) var<storage, read_write> means: array<f32>;             // [row, col]
@group(0) @binding(8) var<storage, read_write> parts: array<f32>;             // [row, part]
@group(0) @binding(9) var<storage, read_write> totals: array<f32>;            // [row, slot]
@group(0) @binding(10) var<storage, read> taps: array<vec2<f32>>;             // along the angle, or across the columns
@group(0) @binding(11) var<storage, read_write> real_part: array<f32>;        // [row, col, angle]
@group(0) @binding(12) var<storage, read_write> imaginary_part: array<f32>;   // [row, col, angle]

var<workgroup> shared_parts: array<vec2<f32>, 256>;

// two numbers of each invocation, added up in one order
fn sum_of(own: vec2<f32>, thread: u32) -> vec2<f32> {
    workgroupBarrier();
    shared_parts[thread] = own;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            shared_parts[thread] += shared_parts[thread + half];
        }
    }
    workgroupBarrier();
    return shared_parts[0];
}

// a sample of the column that begins at `column`, mirrored at its ends, which are not repeated; place 0 is half a window before it
fn mirrored(column: u32, place: u32) -> f32 {
    let last = i32(params.n_angles) - 1;
    let angle = abs(i32(place) - i32(params.half));
    return columns[column + u32(last - abs(last - angle))];
}

// x: block and term, y: column, z: row
@compute @workgroup_size(256)
fn block_moments(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_blocks * params.n_terms {
        return;
    }
    let col = id.z * params.n_cols + id.y;
    let first = id.x / params.n_terms * BLOCK;
    let term = id.x % params.n_terms;
    var sum = 0.0;
    for (var k = 0u; k < BLOCK; k += 1u) {
        sum += polynomials[term * BLOCK + k] * mirrored(col * params.n_angles, first + k);
    }
    moments[col * params.n_blocks * params.n_terms + id.x] = sum;
}

// x: angle, y: column, z: row
@compute @workgroup_size(256)
fn fit_columns(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let col = id.z * params.n_cols + id.y;
    let column = col * params.n_angles;
    let begin = id.x;
    let end = begin + 2u * params.half + 1u;
    let first = (begin + BLOCK - 1u) / BLOCK;
    let last = max(end / BLOCK, first);
    var sum = 0.0;
    for (var place = begin; place < min(first * BLOCK, end); place += 1u) {
        sum += weights[place - begin] * mirrored(column, place);
    }
    let distances = 2u * params.half + 2u - min(BLOCK, 2u * params.half + 1u);
    for (var block = first; block < last; block += 1u) {
        let of_block = (col * params.n_blocks + block) * params.n_terms;
        for (var term = 0u; term < params.n_terms; term += 1u) {
            sum += expansions[term * distances + block * BLOCK - begin] * moments[of_block + term];
        }
    }
    for (var place = last * BLOCK; place < end; place += 1u) {
        sum += weights[place - begin] * mirrored(column, place);
    }
    fit[column + id.x] = sum;
}

// x: column, y: row
@compute @workgroup_size(256)
fn sum_fits(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let col = group.y * params.n_cols + group.x;
    var sum = vec2<f32>();
    for (var angle = thread; angle < params.n_angles; angle += 256u) {
        let value = fit[col * params.n_angles + angle];
        sum += vec2(value, abs(value));
    }
    let all = sum_of(sum, thread);
    if thread == 0u {
        means[col] = all.x / f32(params.n_angles);
        parts[col] = all.y;
    }
}

// x: row
@compute @workgroup_size(256)
fn add_parts(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    var sum = 0.0;
    for (var part = thread; part < params.n_parts; part += 256u) {
        sum += parts[group.x * params.n_parts + part];
    }
    let all = sum_of(vec2(sum, 0.0), thread);
    if thread == 0u {
        totals[2u * group.x + params.slot] = all.x;
    }
}

// A place within a line of n samples, which is followed by itself, and its sign: for odd n the published form changes it there.
fn within(place: i32, n: u32) -> vec2<i32> {
    let length = i32(n);
    if place >= 0 && place < length {
        return vec2(place, 1);
    }
    return vec2(select(place - length, place + length, place < 0), select(1, -1, (n & 1u) == 1u));
}

// x: angle, y: column, z: row
@compute @workgroup_size(256)
fn smooth_along(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let col = id.z * params.n_cols + id.y;
    let column = col * params.n_angles;
    let tall = params.n_angles + 2u * params.pad;
    let mean = means[col];
    var sum = vec2<f32>();
    for (var k = 0u; k < params.n_along; k += 1u) {
        let at = within(i32(id.x + params.pad + params.before_along) - i32(k), tall);
        let angle = at.x - i32(params.pad);
        var value = mean;
        if angle >= 0 && angle < i32(params.n_angles) {
            value = fit[column + u32(angle)];
        }
        sum += taps[k] * (value * f32(at.y));
    }
    real_part[column + id.x] = sum.x;
    imaginary_part[column + id.x] = sum.y;
}

// the least magnitude of the fit that divides
fn least(row: u32) -> f32 {
    return FLOOR * (totals[2u * row] / (f32(params.n_cols) * f32(params.n_angles)));
}

// x: 256 angles, y: COLS columns, z: row
@compute @workgroup_size(256)
fn apply_fit(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let angle = group.x * 256u + thread;
    let inside = angle < params.n_angles;
    let first = group.y * COLS;
    let wide = params.n_cols + 2u * params.pad;
    var sums = array<f32, COLS>();
    // the taps of a column are those of the one before, one place on
    let begin = i32(first + params.pad + params.before_across) - i32(params.n_across) + 1;
    for (var step = 0u; inside && step < params.n_across + COLS - 1u; step += 1u) {
        let at = within(begin + i32(step), wide);
        // beyond the edges the outermost columns are repeated
        let col = clamp(u32(at.x), params.pad, params.pad + params.n_cols - 1u) - params.pad;
        let index = (group.z * params.n_cols + col) * params.n_angles + angle;
        let value = f32(at.y) * vec2(real_part[index], imaginary_part[index]);
        for (var k = 0u; k < COLS; k += 1u) {
            let tap = params.n_across - 1u + k - step;
            if tap < params.n_across {
                sums[k] += taps[tap].x * value.x - taps[tap].y * value.y;
            }
        }
    }
    var magnitude = 0.0;
    for (var k = 0u; inside && k < min(COLS, params.n_cols - first); k += 1u) {
        let index = (group.z * params.n_cols + first + k) * params.n_angles + angle;
        if abs(fit[index]) > least(group.z) {
            columns[index] = columns[index] / fit[index] * sums[k];
        }
        magnitude += abs(sums[k]);
    }
    let all = sum_of(vec2(magnitude, 0.0), thread);
    if thread == 0u {
        let chunks = (params.n_angles + 255u) / 256u;
        let of_row = group.y * chunks + group.x;
        parts[group.z * chunks * ((params.n_cols + COLS - 1u) / COLS) + of_row] = all.x;
    }
}

// x: angle, y: column, z: row
@compute @workgroup_size(256)
fn scale_fitted(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let index = (id.z * params.n_cols + id.y) * params.n_angles + id.x;
    let smooth_total = totals[2u * id.z + 1u];
    if smooth_total > 0.0 && abs(fit[index]) > least(id.z) {
        columns[index] *= totals[2u * id.z] / smooth_total;
    }
}
