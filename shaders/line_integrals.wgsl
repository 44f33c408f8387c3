// From detector counts to line integrals: flat and dark field, bad pixels, zingers, series lock, minus-log.
// Twins: the functions of the same names in src/correct/line_integrals/twin.rs (same order of operations); that of slow_part and
// fit_line is slow_part in src/correct/lock/treat.rs.
//
// Counts come as they were measured, 16 bits each, a frame after the other; a block holds the angles that are wanted and, on both
// sides, as many more as a zinger is compared with.
//   divide     transmission of one sample; a bad pixel takes the line between its nearest good columns, or a cubic
//   level_lines  a line is scaled by a monitor and by the air beside the sample, before anything looks at it
//   deviate    line integral of a locked pixel less what its neighbours say, with zingers taken out
//   slow_part  running median of that over an eighth of the angles, of what a straight line leaves where turn is 1
//   fit_line   that straight line, through the medians
//   take_log   a zinger is replaced, a locked pixel loses its slow part, all take their factors; then -ln, not below the least
//              transmission
//   clean      only the zingers are replaced: what comes next looks at all angles (locked_columns.wgsl, sort_columns.wgsl)
//   place_rows a line of a slice between detector rows, from the six around it
// Where pixels are locked, all blocks are divided and deviate before the first takes its logarithm.
// What was touched is counted in integers, so the counts do not depend on the order of the invocations; sums in fit_line have one order.
// Source of the zinger rule: Vo et al., Opt. Express 29 (2021) 17849, section 3.2; of the guard, dark ones, the lock and the beam:
// src/correct/zinger.rs, outliers.rs, lock/mod.rs and beam.rs.

struct LineIntegralParams {
    n_rows: u32,           // detector rows that are corrected in this step
    n_cols: u32,
    first_held: u32,       // first angle in `counts`, as a projection of the scan
    n_held: u32,
    first_wanted: u32,     // first angle in `line_integrals`, as a projection of the scan
    n_wanted: u32,
    n_angles: u32,         // of the scan
    n_groups: u32,         // open beams; 0: counts are transmission already
    zinger_size: u32,      // distance of the neighbours; 0: zingers are left
    zinger_limit: f32,     // 1 + threshold
    guard_reach: u32,      // columns that structure moves from one projection to the next, and one; 0: no guard
    cubic: u32,            // 1: narrow gaps are bridged by a cubic
    min_transmission: f32,
    first_locked: u32,     // first locked pixel of this dispatch
    width: u32,            // of the running median
    turn: u32,             // 0: medians of the deviation, 1: of what the straight line leaves of it
    first_counted: u32,    // rows before this one were counted in another step
    n_slices: u32,         // slices between rows; 0: rows are slices
    moving: u32,           // 1: every projection has rows of its own
    zinger_kind: u32,      // 0: bright, 1: dark, 2: both
    dark_limit: f32,       // 1 - threshold
    monitored: u32,        // 1: every projection is scaled by the reading of a monitor
    left_air: u32,         // columns of air left of the sample
    left_air_end: u32,
    right_air: u32,        // and right of it; none where the end is the begin
    right_air_end: u32,
    counts_lines: u32,     // 1: lines whose air is not believed are counted in this launch
    has_factors: u32,      // 1: pixels have factors of a double flat field
    n_kept: u32,           // rows before these whose line integrals the step before has left
}

// a pixel that the series lock corrects
struct LockedPixel {
    at: vec4<u32>,         // row, column, 0, unused
    columns: vec4<u32>,    // good neighbours
    weights: vec4<f32>,    // of the polynomial through them
}

// the rows that a line of a slice is taken from
struct Taps {
    weights: array<f32, 6>,
    first: i32,            // the first of the six, from the first kept row on; rows beyond all repeat the outermost
    unused: u32,
}

@group(0) @binding(0) var<uniform> params: LineIntegralParams;
@group(0) @binding(1) var<storage, read> counts: array<u32>;                  // [held angle, row, col], two to a word
@group(0) @binding(2) var<storage, read> dark: array<f32>;                    // [row, col]
@group(0) @binding(3) var<storage, read> open_beams: array<f32>;              // [group, row, col], flat minus dark
@group(0) @binding(4) var<storage, read> good: array<u32>;                    // [row, col], nearest good columns: left | right << 16
@group(0) @binding(5) var<storage, read> in_time: array<vec4<u32>>;           // [angle], group before, group after, weight of it
@group(0) @binding(6) var<storage, read_write> transmission: array<f32>;      // [row, held angle, col]
@group(0) @binding(7) var<storage, read_write> line_integrals: array<f32>;    // [row, wanted angle, col], behind kept rows in take_log
@group(0) @binding(8) var<storage, read_write> touched: array<atomic<u32>>;   // raised to the least transmission; zingers; the fifth: lines left
@group(0) @binding(9) var<storage, read> locked: array<u32>;                  // [row, col], 1 + place in `pixels`, 0 elsewhere
@group(0) @binding(10) var<storage, read> pixels: array<LockedPixel>;
@group(0) @binding(11) var<storage, read_write> deviation: array<f32>;        // [pixel, angle]
@group(0) @binding(12) var<storage, read_write> slow: array<f32>;             // [pixel, angle]
@group(0) @binding(13) var<storage, read_write> straight: array<vec2<f32>>;   // [pixel], offset and slope
@group(0) @binding(14) var<storage, read> taps: array<Taps>;                  // [slice], or [slice, angle]
@group(0) @binding(15) var<storage, read> rows: array<f32>;                   // [row, wanted angle, col], line integrals

@group(0) @binding(16) var<storage, read> beam: array<f32>;                   // [angle], by the monitor
@group(0) @binding(17) var<storage, read> factors: array<f32>;                // [row, col], double flat field

// a detector row without any good column is open beam
const LOST: u32 = 0xffffffffu;
// columns from good to good that a cubic bridges: one more than the gap
const WIDEST_CUBIC: u32 = 4u;
// samples before and after from which the noise is taken, and the excess that it cannot make
const AROUND: u32 = 24u;
const SIGMA: f32 = 6.0;
// by how much structure may be dimmer from one angle to the next
const DIMMER: f32 = 3.0;
// share of a sample that cannot be told from rounding
const ROUNDING: f32 = 1e-4;
// samples beside a zinger that the same ray can have reached
const TRACK: i32 = 4;

// a mean of air is believed from the first to below the second
const BELIEVED: vec2<f32> = vec2(0.5, 2.0);

var<workgroup> n_raised: atomic<u32>;
var<workgroup> n_zingers: atomic<u32>;
// sums over the air at the left and at the right; sums over the medians: of the values, and of the values times their distance from the middle
var<workgroup> sums: array<vec2<f32>, 256>;

fn divided(row: u32, held: u32, col: u32) -> f32 {
    let index = (held * params.n_rows + row) * params.n_cols + col;
    let count = f32((counts[index / 2u] >> (16u * (index & 1u))) & 0xffffu);
    if params.n_groups == 0u {
        return count;
    }
    let pixel = row * params.n_cols + col;
    let group = params.n_rows * params.n_cols;
    let time = in_time[params.first_held + held];
    var open = open_beams[time.x * group + pixel];
    let weight = bitcast<f32>(time.z);
    if weight != 0.0 {
        open += weight * (open_beams[time.y * group + pixel] - open);
    }
    return (count - dark[pixel]) / open;
}

fn is_good(row: u32, col: u32) -> bool {
    return good[row * params.n_cols + col] == (col | (col << 16u));
}

// whether the cubic through two good columns on either side of a gap is taken
fn takes_cubic(row: u32, left: u32, right: u32) -> bool {
    if params.cubic == 0u || right - left > WIDEST_CUBIC || left == 0u || right + 1u >= params.n_cols {
        return false;
    }
    return is_good(row, left - 1u) && is_good(row, right + 1u);
}

// weights of samples at `at` for the value at 0 of the cubic through them
fn lagrange(at: vec4<f32>) -> vec4<f32> {
    return vec4(
        at.y / (at.y - at.x) * (at.z / (at.z - at.x)) * (at.w / (at.w - at.x)),
        at.x / (at.x - at.y) * (at.z / (at.z - at.y)) * (at.w / (at.w - at.y)),
        at.x / (at.x - at.z) * (at.y / (at.y - at.z)) * (at.w / (at.w - at.z)),
        at.x / (at.x - at.w) * (at.y / (at.y - at.w)) * (at.z / (at.z - at.w)),
    );
}

// x: column, y: held angle, z: row
@compute @workgroup_size(256)
fn divide(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_cols {
        return;
    }
    let columns = good[id.z * params.n_cols + id.x];
    var value = 1.0;
    if columns != LOST {
        let left = columns & 0xffffu;
        let right = columns >> 16u;
        value = divided(id.z, id.y, left);
        if left != right {
            let last = divided(id.z, id.y, right);
            let gap = f32(right - left);
            let here = f32(id.x - left);
            if takes_cubic(id.z, left, right) {
                let weights = lagrange(vec4(-1.0 - here, -here, gap - here, gap + 1.0 - here));
                value = weights.x * divided(id.z, id.y, left - 1u) + weights.y * value + weights.z * last
                    + weights.w * divided(id.z, id.y, right + 1u);
            } else {
                value += (last - value) * (here / gap);
            }
        }
    }
    transmission[(id.z * params.n_held + id.y) * params.n_cols + id.x] = value;
}

fn is_believed(mean: f32, first: u32, end: u32) -> bool {
    return end == first || (mean >= BELIEVED.x && mean < BELIEVED.y);
}

// x: held angle, y: row
@compute @workgroup_size(256)
fn level_lines(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let line = (group.y * params.n_held + group.x) * params.n_cols;
    let angle = params.first_held + group.x;
    var reading = 1.0;
    if params.monitored == 1u {
        reading = beam[angle];
    }
    var sum = vec2<f32>();
    for (var col = params.left_air + thread; col < params.left_air_end; col += 256u) {
        sum.x += transmission[line + col] * reading;
    }
    for (var col = params.right_air + thread; col < params.right_air_end; col += 256u) {
        sum.y += transmission[line + col] * reading;
    }
    sums[thread] = sum;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            sums[thread] += sums[thread + half];
        }
    }
    workgroupBarrier();
    let n = vec2(params.left_air_end - params.left_air, params.right_air_end - params.right_air);
    let means = sums[0] / vec2<f32>(max(n, vec2(1u)));
    let believed = is_believed(means.x, params.left_air, params.left_air_end)
        && is_believed(means.y, params.right_air, params.right_air_end);
    // the straight line through both means, at the middles of the two regions
    let from_left = 0.5 * f32(params.left_air + params.left_air_end - 1u);
    let from_right = 0.5 * f32(params.right_air + params.right_air_end - 1u);
    let slope = (means.y - means.x) / (from_right - from_left);
    for (var col = thread; col < params.n_cols; col += 256u) {
        var value = transmission[line + col] * reading;
        if believed && n.y > 0u {
            value /= means.x + slope * (f32(col) - from_left);
        } else if believed && n.x > 0u {
            value *= 1.0 / means.x;
        }
        transmission[line + col] = value;
    }
    let wanted = angle >= params.first_wanted && angle < params.first_wanted + params.n_wanted;
    if thread == 0u && !believed && wanted && params.counts_lines == 1u && group.y >= params.first_counted {
        atomicAdd(&touched[4], 1u);
    }
}

fn at(row: u32, angle: u32, col: u32) -> f32 {
    return transmission[(row * params.n_held + angle - params.first_held) * params.n_cols + col];
}

// the indices at the distance of the neighbours on both sides; beyond an end, the other side's
fn neighbours(index: u32, len: u32) -> vec2<u32> {
    let size = params.zinger_size;
    let before = select(index, index - size, index >= size);
    let after = select(index, index + size, index + size < len);
    return vec2(select(after, before, index >= size), select(before, after, index + size < len));
}

fn neighbour_mean(row: u32, angle: u32, col: u32) -> f32 {
    let angles = neighbours(angle, params.n_angles);
    let cols = neighbours(col, params.n_cols);
    let sides = (at(row, angles.x, cols.x) + at(row, angles.x, cols.y))
        + (at(row, angles.y, cols.x) + at(row, angles.y, cols.y));
    return (sides + (at(row, angle, cols.x) + at(row, angle, cols.y))
        + (at(row, angles.x, col) + at(row, angles.y, col))) * 0.125;
}

// mean of the fourth and fifth of the eight neighbours
fn neighbour_median(row: u32, angle: u32, col: u32) -> f32 {
    let angles = neighbours(angle, params.n_angles);
    let cols = neighbours(col, params.n_cols);
    var v = array<f32, 8>(
        at(row, angles.x, cols.x), at(row, angles.x, col), at(row, angles.x, cols.y),
        at(row, angle, cols.x), at(row, angle, cols.y),
        at(row, angles.y, cols.x), at(row, angles.y, col), at(row, angles.y, cols.y),
    );
    var middle = 0.0;
    for (var i = 0u; i < 8u; i += 1u) {
        var rank = 0u;
        for (var j = 0u; j < 8u; j += 1u) {
            rank += select(0u, 1u, v[j] < v[i] || (v[j] == v[i] && j < i));
        }
        if rank == 3u || rank == 4u {
            middle += v[i];
        }
    }
    return 0.5 * middle;
}

// the most that the angle so far away rises above `base`, within what structure can have moved; nothing beyond the first and the last
fn rise(row: u32, angle: u32, away: i32, col: u32, base: f32) -> f32 {
    let a = i32(angle) + away;
    var most = 0.0;
    if a < 0 || a >= i32(params.n_angles) {
        return most;
    }
    // one column of the reach is for the blur
    let reach = (params.guard_reach - 1u) * u32(abs(away)) + 1u;
    let right = min(col + reach, params.n_cols - 1u);
    for (var c = max(col, reach) - reach; c <= right; c += 1u) {
        most = max(most, at(row, u32(a), c) - base);
    }
    return most;
}

// what rises on one side, as far as a second angle sees it
fn seen(near: f32, far: f32, other: f32) -> f32 {
    return max(min(far, DIMMER * near), min(near, DIMMER * max(far, other)));
}

// structure beside a sample, which three angles in a row see, and not one or two more rays
fn brightest_beside(row: u32, angle: u32, col: u32, base: f32) -> f32 {
    let before = rise(row, angle, -1, col, base);
    let after = rise(row, angle, 1, col, base);
    let side_before = seen(before, rise(row, angle, -2, col, base), after);
    let side_after = seen(after, rise(row, angle, 2, col, base), before);
    return base + max(side_before, side_after);
}

// size of the second difference along the angle
fn second_difference(row: u32, angle: u32, col: u32) -> f32 {
    return abs(at(row, angle, col) - 0.5 * (at(row, angle - 1u, col) + at(row, angle + 1u, col)));
}

// the noise of a column around a sample, from the median of the second differences; negative where there are none
fn noise_around(row: u32, angle: u32, col: u32) -> f32 {
    let first = max(max(angle, AROUND) - AROUND, 1u);
    // one behind the last
    let end = min(angle + AROUND + 1u, params.n_angles - 1u);
    var n = 0u;
    for (var a = first; a < end; a += 1u) {
        // differences that hold the sample itself say nothing of the noise
        n += select(0u, 1u, max(a, angle) - min(a, angle) > 1u);
    }
    if n == 0u {
        return -1.0;
    }
    // bits of positive numbers are in their order: the largest number below which no more than half lie, bit by bit
    var median = 0u;
    for (var bit = 0x40000000u; bit > 0u; bit >>= 1u) {
        let candidate = median | bit;
        var below = 0u;
        for (var a = first; a < end; a += 1u) {
            if max(a, angle) - min(a, angle) > 1u {
                below += select(0u, 1u, bitcast<u32>(second_difference(row, a, col)) < candidate);
            }
        }
        median = select(median, candidate, below <= n / 2u);
    }
    // of a second difference of this kind the variance is 1 + 2 / 4
    return 1.4826 * bitcast<f32>(median) / 1.2247449;
}

// a sample, and whether it stands in the place of a zinger
struct Cleaned {
    value: f32,
    zinger: bool,
}

// half way between those before and after; only where both are
fn between(row: u32, angle: u32, col: u32) -> f32 {
    return 0.5 * (at(row, angle - 1u, col) + at(row, angle + 1u, col));
}

fn has_both(angle: u32) -> bool {
    return angle > 0u && angle + 1u < params.n_angles;
}

// the sample judged by the threshold and the guard
fn judged(row: u32, angle: u32, col: u32) -> Cleaned {
    let value = at(row, angle, col);
    if params.zinger_kind > 0u {
        let median = neighbour_median(row, angle, col);
        let bright = params.zinger_kind == 2u && value > median * params.zinger_limit;
        let dark = value < median * params.dark_limit;
        if median > 0.0 && (bright || dark) {
            return Cleaned(median, true);
        }
        return Cleaned(value, false);
    }
    let mean = neighbour_mean(row, angle, col);
    if !(mean > 0.0 && value > mean * params.zinger_limit) {
        return Cleaned(value, false);
    }
    if params.guard_reach == 0u {
        return Cleaned(mean, true);
    }
    var base = mean;
    if has_both(angle) {
        base = between(row, angle, col);
    }
    let brightest = brightest_beside(row, angle, col, base);
    if value <= params.zinger_limit * brightest {
        return Cleaned(value, false);
    }
    let noise = noise_around(row, angle, col);
    if noise >= 0.0 && value - brightest <= SIGMA * noise {
        return Cleaned(value, false);
    }
    return Cleaned(base, true);
}

// the sample is above those before and after by more than rounding and noise
fn stands_out(row: u32, angle: u32, col: u32) -> bool {
    let value = between(row, angle, col);
    let rise = at(row, angle, col) - value;
    if !(rise > ROUNDING * abs(value)) {
        return false;
    }
    let noise = noise_around(row, angle, col);
    return noise >= 0.0 && rise > SIGMA * noise;
}

// a zinger stands TRACK samples to one side (1 or -1) at most, and all from there to here stand out
fn is_beside(row: u32, angle: u32, col: u32, side: i32) -> bool {
    for (var away = 1; away <= TRACK; away += 1) {
        let other = i32(col) + side * away;
        if other < 0 || other >= i32(params.n_cols) {
            return false;
        }
        if judged(row, angle, u32(other)).zinger {
            for (var a = 0; a < away; a += 1) {
                if !stands_out(row, angle, u32(i32(col) + side * a)) {
                    return false;
                }
            }
            return true;
        }
    }
    return false;
}

fn cleaned(row: u32, angle: u32, col: u32) -> Cleaned {
    let value = at(row, angle, col);
    if params.zinger_size == 0u {
        return Cleaned(value, false);
    }
    let own = judged(row, angle, col);
    if own.zinger || params.guard_reach == 0u || !has_both(angle) {
        return own;
    }
    // half of all samples are dimmer than those before and after, and ask no further
    let beside = between(row, angle, col);
    if value - beside > ROUNDING * abs(beside)
        && (is_beside(row, angle, col, -1) || is_beside(row, angle, col, 1)) {
        return Cleaned(beside, true);
    }
    return own;
}

fn integral(row: u32, angle: u32, col: u32) -> f32 {
    return -log(max(cleaned(row, angle, col).value, params.min_transmission));
}

// x: wanted angle, y: locked pixel
@compute @workgroup_size(256)
fn deviate(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_wanted {
        return;
    }
    let index = params.first_locked + id.y;
    let pixel = pixels[index];
    let row = pixel.at.x;
    let angle = params.first_wanted + id.x;
    let around = pixel.weights.x * integral(row, angle, pixel.columns.x)
        + pixel.weights.y * integral(row, angle, pixel.columns.y)
        + pixel.weights.z * integral(row, angle, pixel.columns.z)
        + pixel.weights.w * integral(row, angle, pixel.columns.w);
    deviation[index * params.n_angles + angle] = integral(row, angle, pixel.at.y) - around;
}

// bits in the order of the numbers
fn ordered(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | 0x80000000u, ~bits, bits >> 31u == 1u);
}

fn number(ordered: u32) -> f32 {
    return bitcast<f32>(select(~ordered, ordered & 0x7fffffffu, ordered >> 31u == 1u));
}

// x: angle, y: locked pixel
@compute @workgroup_size(256)
fn slow_part(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let index = params.first_locked + id.y;
    let first = index * params.n_angles;
    var line = vec2<f32>();
    if params.turn == 1u {
        line = straight[index];
    }
    let n = i32(params.n_angles);
    let half = i32(params.width / 2u);
    // the largest number below which no more than half of the window lie, bit by bit
    var median = 0u;
    for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
        let candidate = median | bit;
        var below = 0;
        for (var step = -half; step <= half; step += 1) {
            // beyond the ends the list is mirrored
            var k = i32(id.x) + step;
            k = select(k, -1 - k, k < 0);
            k = select(k, 2 * n - 1 - k, k >= n);
            let rest = deviation[first + u32(k)] - (line.x + line.y * f32(k));
            below += select(0, 1, ordered(rest) < candidate);
        }
        median = select(median, candidate, below <= half);
    }
    slow[first + id.x] = number(median) + (line.x + line.y * f32(id.x));
}

// The straight line of least squares through the medians.
// x: locked pixel
@compute @workgroup_size(256)
fn fit_line(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let index = params.first_locked + group.x;
    let n = f32(params.n_angles);
    let middle = 0.5 * (n - 1.0);
    var sum = vec2<f32>();
    for (var k = thread; k < params.n_angles; k += 256u) {
        let value = slow[index * params.n_angles + k];
        sum += vec2(value, (f32(k) - middle) * value);
    }
    sums[thread] = sum;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            sums[thread] += sums[thread + half];
        }
    }
    if thread == 0u {
        // the sum of the squared distances from the middle
        let spread = n * (n * n - 1.0) / 12.0;
        let slope = select(0.0, sums[0].y / spread, spread > 0.0);
        straight[index] = vec2(sums[0].x / n - slope * middle, slope);
    }
}

// x: column, y: wanted angle, z: row
@compute @workgroup_size(256)
fn take_log(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    if thread == 0u {
        atomicStore(&n_raised, 0u);
        atomicStore(&n_zingers, 0u);
    }
    workgroupBarrier();
    if id.x < params.n_cols {
        let angle = params.first_wanted + id.y;
        let sample = cleaned(id.z, angle, id.x);
        let counts_here = id.z >= params.first_counted;
        if sample.zinger && counts_here {
            atomicAdd(&n_zingers, 1u);
        }
        var value = sample.value;
        let pixel = locked[id.z * params.n_cols + id.x];
        if pixel > 0u {
            value *= exp(slow[(pixel - 1u) * params.n_angles + angle]);
        }
        if params.has_factors == 1u {
            value *= factors[id.z * params.n_cols + id.x];
        }
        if !(value >= params.min_transmission) {
            value = params.min_transmission;
            if counts_here {
                atomicAdd(&n_raised, 1u);
            }
        }
        let row = params.n_kept + id.z;
        line_integrals[(row * params.n_wanted + id.y) * params.n_cols + id.x] = -log(value);
    }
    workgroupBarrier();
    if thread == 0u {
        atomicAdd(&touched[0], atomicLoad(&n_raised));
        atomicAdd(&touched[1], atomicLoad(&n_zingers));
    }
}

// x: column, y: wanted angle, z: row
@compute @workgroup_size(256)
fn clean(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    if thread == 0u {
        atomicStore(&n_zingers, 0u);
    }
    workgroupBarrier();
    if id.x < params.n_cols {
        let sample = cleaned(id.z, params.first_wanted + id.y, id.x);
        if sample.zinger && id.z >= params.first_counted {
            atomicAdd(&n_zingers, 1u);
        }
        line_integrals[(id.z * params.n_wanted + id.y) * params.n_cols + id.x] = sample.value;
    }
    workgroupBarrier();
    if thread == 0u {
        atomicAdd(&touched[1], atomicLoad(&n_zingers));
    }
}

// x: column, y: wanted angle, z: slice
@compute @workgroup_size(256)
fn place_rows(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_cols {
        return;
    }
    let line = select(id.z, id.z * params.n_angles + params.first_wanted + id.y, params.moving == 1u);
    let last = i32(params.n_kept + params.n_rows) - 1;
    var sum = 0.0;
    for (var tap = 0; tap < 6; tap += 1) {
        let row = u32(clamp(taps[line].first + tap, 0, last));
        sum += taps[line].weights[tap] * rows[(row * params.n_wanted + id.y) * params.n_cols + id.x];
    }
    line_integrals[(id.z * params.n_wanted + id.y) * params.n_cols + id.x] = sum;
}
