// Dead and large stripes: one number per column says how it differs from its neighbours, and columns that stand out are mended.
// Twins: the functions of the same names in src/correct/stripe/on_gpu/twin.rs (same order of operations).
//
//   restless  sum over the angles of the distance from the running mean (algorithm 6)
//   judge     of that, the excess over the median of the columns around
//   compare   mean of a sorted column over that of its smooth version, and its excess over 1 (algorithm 5)
//   detect    columns that stand out of the line through the sorted excesses (algorithm 4), with their neighbours
//   bridge    flagged columns become straight lines between good ones
//   replace   flagged columns become their smooth versions, others are divided by their factors
//   sum_columns    a column over its angles, as transmission or as its logarithm (normalization, regularization)
//   smooth_means   what the mean of a column lacks to the weighted mean of those around
//   shift_columns  every column moves by that, as a whole
//
// Sums over a column are whole numbers of 64 bits, in units of 2^-41 of the largest sample or less: they do not depend on their order,
// and the small difference of two of them is not lost. What is judged is the excess over 1, so that single precision resolves it.
// Source: Vo, Atwood and Drakopoulos, Opt. Express 26 (2018) 28396; of the means: src/correct/stripe/normalization.rs and
// regularization.rs; edges, and what happens to few or equal columns, as in src/correct/stripe.

struct StripeParams {
    n_rows: u32,           // of these columns
    n_cols: u32,
    n_angles: u32,
    first_row: u32,        // of these columns, within the rows of the step
    first_wanted: u32,     // first angle of the block
    n_wanted: u32,         // angles of the block
    size: u32,             // samples that a sort or merge puts in order
    stride: u32,           // distance of the samples that merge_across compares; 0: its first step, which mirrors
    window: u32,           // columns of the running median
    first_kept: u32,       // sorted samples before this one and
    end_kept: u32,         // from this one on say nothing of the column
    mean_over: u32,        // angles of the running mean
    snr: f32,              // what tells a stripe from its neighbours
    dead: u32,             // 1: dead stripes are sought, 0: large ones
    keep: u32,             // 1: flagged columns are divided like the others, 0: replaced
    normalize: u32,        // 1: columns are divided by their factor
    first_counted: u32,    // rows of the step before this one were counted in another step
    min_transmission: f32,
    reach: u32,            // columns on either side whose means are looked at
    logarithm: u32,        // 1: means are those of the logarithm, and columns move by a factor
}

@group(0) @binding(0) var<uniform> params: StripeParams;
@group(0) @binding(1) var<storage, read_write> columns: array<f32>;           // [row, col, angle or rank]
@group(0) @binding(2) var<storage, read> smoothed: array<f32>;                  // [row, col, rank]
@group(0) @binding(3) var<storage, read_write> restlessness: array<f32>;      // [row, col]
@group(0) @binding(4) var<storage, read_write> factors: array<f32>;           // [row, col]
@group(0) @binding(5) var<storage, read_write> excess: array<f32>;            // [row, col], of the factor over 1
@group(0) @binding(6) var<storage, read_write> sorted: array<f32>;            // [row, col], the same, to be sorted
@group(0) @binding(7) var<storage, read_write> flags: array<u32>;             // [row, col]
@group(0) @binding(8) var<storage, read_write> touched: array<atomic<u32>>;   // the third: large stripes, the fourth: dead ones

@group(0) @binding(9) var<storage, read_write> sums: array<vec4<f32>>;       // [row, col], see sum_columns
@group(0) @binding(10) var<storage, read> weights: array<f32>;               // [distance], of the columns around; all have sum 1

// places that the mantissa of the largest sample of a column is moved up: 65536 angles of 10 differences stay below 2^63
const SHIFT: u32 = 18u;
// least distance of the ends of the line through the sorted excesses
const LEAST_NOISE: f32 = 1e-6;

var<workgroup> peaks: array<u32, 256>;
var<workgroup> whole: array<vec4<u32>, 256>;
var<workgroup> parts: array<vec2<f32>, 256>;
var<workgroup> n_flagged: atomic<u32>;

// whole numbers of 64 bits: x the lower half
fn plus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn negative(a: vec2<u32>) -> vec2<u32> {
    return plus(~a, vec2(1u, 0u));
}

fn size_of(a: vec2<u32>) -> vec2<u32> {
    if a.y >> 31u == 1u {
        return negative(a);
    }
    return a;
}

fn real(a: vec2<u32>) -> f32 {
    let b = size_of(a);
    let value = f32(b.y) * 4294967296.0 + f32(b.x);
    return select(value, -value, a.y >> 31u == 1u);
}

// a sample as a whole number, where the largest exponent of its column is `top`
fn fixed(value: f32, top: u32) -> vec2<u32> {
    let bits = bitcast<u32>(value);
    let exponent = (bits >> 23u) & 0xffu;
    let mantissa = (bits & 0x7fffffu) | select(0u, 0x800000u, exponent > 0u);
    let down = top - max(exponent, 1u);
    var number = vec2<u32>();
    if down <= SHIFT {
        let up = SHIFT - down;
        number = vec2(mantissa << up, (mantissa >> 1u) >> (31u - up));
    } else if down - SHIFT < 24u {
        number = vec2(mantissa >> (down - SHIFT), 0u);
    }
    if bits >> 31u == 1u {
        return negative(number);
    }
    return number;
}

// the largest exponent of what the invocations saw
fn top_of(peak: u32, thread: u32) -> u32 {
    peaks[thread] = peak;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            peaks[thread] = max(peaks[thread], peaks[thread + half]);
        }
    }
    workgroupBarrier();
    return max(peaks[0] >> 23u, 1u);
}

// two whole numbers of each invocation, added up
fn total(own: vec4<u32>, thread: u32) -> vec4<u32> {
    whole[thread] = own;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            let other = whole[thread + half];
            whole[thread] = vec4(plus(whole[thread].xy, other.xy), plus(whole[thread].zw, other.zw));
        }
    }
    workgroupBarrier();
    return whole[0];
}

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

// the index inside 0..n of a list that is mirrored at its ends
fn reflected(place: i32, n: i32) -> u32 {
    if place >= 0 && place < n {
        return u32(place);
    }
    let inside = ((place % (2 * n)) + 2 * n) % (2 * n);
    return u32(select(2 * n - 1 - inside, inside, inside < n));
}

// x: column, y: row
@compute @workgroup_size(256)
fn restless(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = (group.y * params.n_cols + group.x) * params.n_angles;
    var peak = 0u;
    for (var angle = thread; angle < params.n_angles; angle += 256u) {
        peak = max(peak, bitcast<u32>(columns[column + angle]) & 0x7fffffffu);
    }
    let top = top_of(peak, thread);
    var sum = vec2<u32>();
    for (var angle = thread; angle < params.n_angles; angle += 256u) {
        let own = fixed(columns[column + angle], top);
        let first = i32(angle) - i32(params.mean_over / 2u);
        // as many times the distance as there are angles in the mean
        var distance = vec2<u32>();
        for (var k = 0; k < i32(params.mean_over); k += 1) {
            let other = columns[column + reflected(first + k, i32(params.n_angles))];
            distance = plus(distance, plus(own, negative(fixed(other, top))));
        }
        sum = plus(sum, size_of(distance));
    }
    let all = total(vec4(sum, 0u, 0u), thread);
    if thread == 0u {
        // a power of two: that of the unit
        let unit = bitcast<f32>(select(0u, (top - 41u) << 23u, top > 41u));
        restlessness[group.y * params.n_cols + group.x] = real(all.xy) * unit;
    }
}

// median of the restlessness of the columns around one
fn usual(row: u32, col: u32) -> f32 {
    // bits of positive numbers are in their order: the largest number below which no more than half lie, bit by bit
    var median = 0u;
    for (var bit = 0x40000000u; bit > 0u; bit >>= 1u) {
        let candidate = median | bit;
        var below = 0u;
        for (var step = 0u; step < params.window; step += 1u) {
            let near = reflected(i32(col + step) - i32(params.window / 2u), i32(params.n_cols));
            below += select(0u, 1u, bitcast<u32>(restlessness[row + near]) < candidate);
        }
        median = select(median, candidate, below <= params.window / 2u);
    }
    return bitcast<f32>(median);
}

// x: row
@compute @workgroup_size(256)
fn judge(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.x * params.n_cols;
    var sum = 0.0;
    for (var col = thread; col < params.n_cols; col += 256u) {
        let around = usual(row, col);
        factors[row + col] = around;
        sum += around;
    }
    let mean = sum_of(vec2(sum, 0.0), thread).x / f32(params.n_cols);
    for (var col = thread; col < params.n_cols; col += 256u) {
        var around = factors[row + col];
        if around == 0.0 {
            around = mean;
        }
        var more = 0.0;
        if around > 0.0 {
            more = (restlessness[row + col] - around) / around;
        }
        excess[row + col] = more;
        sorted[row + col] = more;
    }
}

// x: column, y: row
@compute @workgroup_size(256)
fn compare(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = (group.y * params.n_cols + group.x) * params.n_angles;
    var peak = 0u;
    for (var rank = params.first_kept + thread; rank < params.end_kept; rank += 256u) {
        let bits = max(bitcast<u32>(columns[column + rank]) & 0x7fffffffu, bitcast<u32>(smoothed[column + rank]) & 0x7fffffffu);
        peak = max(peak, bits);
    }
    let top = top_of(peak, thread);
    var sums = vec4<u32>();
    for (var rank = params.first_kept + thread; rank < params.end_kept; rank += 256u) {
        let own = fixed(columns[column + rank], top);
        let around = fixed(smoothed[column + rank], top);
        sums = vec4(plus(sums.xy, own), plus(sums.zw, around));
    }
    sums = total(sums, thread);
    if thread == 0u {
        let col = group.y * params.n_cols + group.x;
        var factor = 1.0;
        var more = 0.0;
        if any(sums.zw != vec2(0u)) {
            factor = real(sums.xy) / real(sums.zw);
            more = real(plus(sums.xy, negative(sums.zw))) / real(sums.zw);
        }
        factors[col] = factor;
        excess[col] = more;
        sorted[col] = more;
    }
}

// what the line through the middle half of the sorted excesses says of a detector without stripes
struct Usual {
    low: f32,              // at its first column
    high: f32,             // and at its last
}

fn line_through(row: u32, thread: u32) -> Usual {
    let first = params.n_cols / 4u;
    let end = params.n_cols - params.n_cols / 4u - 1u;
    let n = f32(end - first);
    let middle = 0.5 * f32(first + end - 1u);
    var sum = 0.0;
    for (var k = first + thread; k < end; k += 256u) {
        sum += sorted[row + k];
    }
    let mean = sum_of(vec2(sum, 0.0), thread).x / n;
    var across = 0.0;
    for (var k = first + thread; k < end; k += 256u) {
        across += (f32(k) - middle) * (sorted[row + k] - mean);
    }
    // the sum of the squared distances from the middle
    let spread = n * (n * n - 1.0) / 12.0;
    let slope = select(0.0, sum_of(vec2(across, 0.0), thread).x / spread, spread > 0.0);
    let low = mean - slope * middle;
    return Usual(low, low + slope * f32(params.n_cols - 1u));
}

// x: row
@compute @workgroup_size(256)
fn detect(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.x * params.n_cols;
    let n = params.n_cols;
    if thread == 0u {
        atomicStore(&n_flagged, 0u);
    }
    let line = line_through(row, thread);
    let noise = max(abs(line.high - line.low), LEAST_NOISE);
    // fewer than 8 columns say nothing
    let bright = n >= 8u && abs(sorted[row + n - 1u] - line.high) / noise >= params.snr;
    let dark = n >= 8u && abs(line.low - sorted[row]) / noise >= params.snr;
    let margin = 0.5 * params.snr * noise;
    for (var col = thread; col < n; col += 256u) {
        var flag = false;
        // a stripe reaches into the columns beside it
        for (var near = max(col, 1u) - 1u; near <= min(col + 1u, n - 1u); near += 1u) {
            let own = excess[row + near];
            flag = flag || (bright && own > line.high + margin) || (dark && own <= line.low - margin);
        }
        // the two outermost columns at each edge are never taken as dead
        if params.dead == 1u && (col < 2u || col + 2u >= n) {
            flag = false;
        }
        flags[row + col] = select(0u, 1u, flag);
        if flag {
            atomicAdd(&n_flagged, 1u);
        }
    }
    workgroupBarrier();
    let count = atomicLoad(&n_flagged);
    // where a third of the columns is dead the rule has failed
    let failed = params.dead == 1u && count >= n / 3u;
    if failed {
        for (var col = thread; col < n; col += 256u) {
            flags[row + col] = 0u;
        }
    }
    if thread == 0u && !failed && params.first_row + group.x >= params.first_counted {
        atomicAdd(&touched[select(2u, 3u, params.dead == 1u)], count);
    }
}

// x: angle, y: column, z: row
@compute @workgroup_size(256)
fn bridge(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.z * params.n_cols;
    if id.x >= params.n_angles || flags[row + id.y] == 0u {
        return;
    }
    let n = i32(params.n_cols);
    var left = i32(id.y) - 1;
    while left >= 0 && flags[row + u32(max(left, 0))] == 1u {
        left -= 1;
    }
    var right = i32(id.y) + 1;
    while right < n && flags[row + u32(min(right, n - 1))] == 1u {
        right += 1;
    }
    if left < 0 && right >= n {
        return;
    }
    // beyond the outermost good column its value holds
    let from_left = select(left, right, left < 0);
    let from_right = select(right, left, right >= n);
    let a = columns[(row + u32(from_left)) * params.n_angles + id.x];
    let b = columns[(row + u32(from_right)) * params.n_angles + id.x];
    var weight = 0.0;
    if from_left != from_right {
        weight = f32(i32(id.y) - from_left) / f32(from_right - from_left);
    }
    columns[(row + id.y) * params.n_angles + id.x] = a + weight * (b - a);
}

// x: rank, y: column, z: row
@compute @workgroup_size(256)
fn replace(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let col = id.z * params.n_cols + id.y;
    let index = col * params.n_angles + id.x;
    if flags[col] == 1u && params.keep == 0u {
        columns[index] = smoothed[index];
        return;
    }
    let factor = factors[col];
    // a factor that is not positive means nothing
    if params.normalize == 1u && factor > 0.0 {
        columns[index] /= factor;
    }
}

// what of a sample is summed
fn term(value: f32) -> f32 {
    if params.logarithm == 0u {
        return value;
    }
    return select(0.0, log(max(value, 0x1p-126f)), value > 0.0);
}

// The sum in two parts, the second of which the first has no digits for; the sum of the magnitudes of all samples, and how many of
// them have no logarithm.
// x: column, y: row
@compute @workgroup_size(256)
fn sum_columns(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = (group.y * params.n_cols + group.x) * params.n_angles;
    var peak = 0u;
    for (var angle = thread; angle < params.n_angles; angle += 256u) {
        peak = max(peak, bitcast<u32>(term(columns[column + angle])) & 0x7fffffffu);
    }
    let top = top_of(peak, thread);
    var sum = vec2<u32>();
    var others = vec2<f32>();
    for (var angle = thread; angle < params.n_angles; angle += 256u) {
        let value = columns[column + angle];
        sum = plus(sum, fixed(term(value), top));
        others += vec2(abs(value), select(1.0, 0.0, value > 0.0));
    }
    let all = total(vec4(sum, 0u, 0u), thread).xy;
    others = sum_of(others, thread);
    if thread == 0u {
        let size = size_of(all);
        // the first 24 digits of the upper half
        let low = max(firstLeadingBit(max(size.y, 1u)), 23u) - 23u;
        let first = (size.y >> low) << low;
        let sign = select(1.0, -1.0, all.y >> 31u == 1u);
        let unit = sign * bitcast<f32>(select(0u, (top - 41u) << 23u, top > 41u));
        let rest = f32(size.y - first) * 4294967296.0 + f32(size.x);
        sums[group.y * params.n_cols + group.x] = vec4(f32(first) * 4294967296.0 * unit, rest * unit, others);
    }
}

// x: 256 columns, y: row
@compute @workgroup_size(256)
fn smooth_means(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.y * params.n_cols;
    var magnitude = 0.0;
    for (var col = thread; col < params.n_cols; col += 256u) {
        magnitude += sums[row + col].z;
    }
    magnitude = sum_of(vec2(magnitude, 0.0), thread).x / (f32(params.n_cols) * f32(params.n_angles));
    // a sample without logarithm counts as the mean magnitude
    let instead = select(0.0, log(max(magnitude, 0x1p-126f)), magnitude > 0.0);
    let col = 256u * group.x + thread;
    if col >= params.n_cols {
        return;
    }
    let own = sums[row + col];
    let reach = i32(params.reach);
    var lacking = 0.0;
    for (var step = -reach; step <= reach; step += 1) {
        let other = sums[row + reflected(i32(col) + step, i32(params.n_cols))];
        var more = (other.x - own.x) + (other.y - own.y);
        if params.logarithm == 1u {
            more += instead * (other.w - own.w);
        }
        lacking += weights[abs(step)] * more;
    }
    lacking /= f32(params.n_angles);
    factors[row + col] = lacking;
    if params.logarithm == 1u {
        factors[row + col] = exp(lacking);
    }
}

// x: angle, y: column, z: row
@compute @workgroup_size(256)
fn shift_columns(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let col = id.z * params.n_cols + id.y;
    if params.logarithm == 1u {
        columns[col * params.n_angles + id.x] *= factors[col];
    } else {
        columns[col * params.n_angles + id.x] += factors[col];
    }
}
