// From detector counts to line integrals: flat and dark field, bad pixels, zingers, minus-log.
// Twin: line_integrals_cpu in src/correct/line_integrals.rs (same names, same order of operations).
//
// Counts come as they were measured, 16 bits each, a frame after the other; a block holds the angles that are wanted and, on both
// sides, as many more as a zinger is compared with.
//   divide     transmission of one sample; a bad pixel takes the line between its nearest good columns
//   take_log   a sample far above its eight neighbours becomes their mean; then -ln, not below the least transmission
// What was touched is counted in integers, so the counts do not depend on the order of the invocations.
// Source of the zinger rule: Vo et al., Opt. Express 29 (2021) 17849, section 3.2.

struct LineIntegralParams {
    n_rows: u32,           // detector rows of this step
    n_cols: u32,
    first_held: u32,       // first angle in `counts`, as a projection of the scan
    n_held: u32,
    first_wanted: u32,     // first angle in `line_integrals`, as a projection of the scan
    n_wanted: u32,
    n_angles: u32,         // of the scan
    n_groups: u32,         // open beams; 0: counts are transmission already
    zinger_size: u32,      // distance of the neighbours; 0: zingers are left
    zinger_limit: f32,     // 1 + threshold
    min_transmission: f32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> params: LineIntegralParams;
@group(0) @binding(1) var<storage, read> counts: array<u32>;                  // [held angle, row, col], two to a word
@group(0) @binding(2) var<storage, read> dark: array<f32>;                    // [row, col]
@group(0) @binding(3) var<storage, read> open_beams: array<f32>;              // [group, row, col], flat minus dark
@group(0) @binding(4) var<storage, read> good: array<u32>;                    // [row, col], nearest good columns: left | right << 16
@group(0) @binding(5) var<storage, read> in_time: array<vec4<u32>>;           // [angle], group before, group after, weight of it
@group(0) @binding(6) var<storage, read_write> transmission: array<f32>;      // [row, held angle, col]
@group(0) @binding(7) var<storage, read_write> line_integrals: array<f32>;    // [row, wanted angle, col]
@group(0) @binding(8) var<storage, read_write> touched: array<atomic<u32>>;   // raised to the least transmission; zingers

// a detector row without any good column is open beam
const LOST: u32 = 0xffffffffu;

var<workgroup> n_raised: atomic<u32>;
var<workgroup> n_zingers: atomic<u32>;

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
            let share = f32(id.x - left) / f32(right - left);
            value += (divided(id.z, id.y, right) - value) * share;
        }
    }
    transmission[(id.z * params.n_held + id.y) * params.n_cols + id.x] = value;
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
    let first = row * params.n_held;
    let up = (first + angles.x - params.first_held) * params.n_cols;
    let here = (first + angle - params.first_held) * params.n_cols;
    let down = (first + angles.y - params.first_held) * params.n_cols;
    let sides = (transmission[up + cols.x] + transmission[up + cols.y])
        + (transmission[down + cols.x] + transmission[down + cols.y]);
    return (sides + (transmission[here + cols.x] + transmission[here + cols.y])
        + (transmission[up + col] + transmission[down + col])) * 0.125;
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
        var value = transmission[(id.z * params.n_held + angle - params.first_held) * params.n_cols + id.x];
        if params.zinger_size > 0u {
            let mean = neighbour_mean(id.z, angle, id.x);
            if mean > 0.0 && value > mean * params.zinger_limit {
                value = mean;
                atomicAdd(&n_zingers, 1u);
            }
        }
        if !(value >= params.min_transmission) {
            value = params.min_transmission;
            atomicAdd(&n_raised, 1u);
        }
        line_integrals[(id.z * params.n_wanted + id.y) * params.n_cols + id.x] = -log(value);
    }
    workgroupBarrier();
    if thread == 0u {
        atomicAdd(&touched[0], atomicLoad(&n_raised));
        atomicAdd(&touched[1], atomicLoad(&n_zingers));
    }
}
