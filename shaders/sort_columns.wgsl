// Columns of sinograms as a whole: out of blocks of angles, sorted along the angle, smoothed across, put back, and in logarithm.
// Twins: sort_columns_cpu in src/correct/stripe/on_gpu/twin.rs for the merges of the same names; for the others, which move or choose
// values and compute none, SortedColumns (columns.rs) and across_columns (median.rs) of the CPU, which must give the same bits.
//
//   take_columns   a block [row, angle, col] becomes part of the columns [row, col, angle]
//   sort_within    2048 samples of a column at a time (fewer where it has no more), ascending, each with its angle
//   merge_across   one step of a merge between samples that lie farther apart than a workgroup holds
//   merge_within   the last steps of that merge
//   median_across  of neighbouring columns, rank by rank
//   unsort         the sample of each rank goes to the angle that the rank came from
//   write_lines    a block of the columns back as [row, angle, col], as -ln, not below the least transmission
//
// The sort is bitonic with a first step that mirrors (Batcher 1968; all comparisons ascend, so samples beyond the last need not be
// there). Equal samples are compared by their angles: the result is the one stable order, however it is reached.
// Samples are compared as integers in the order of the numbers, so they keep their bits.

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
@group(0) @binding(1) var<storage, read_write> lines: array<f32>;             // [row of the step, wanted angle, col]
@group(0) @binding(2) var<storage, read_write> columns: array<u32>;           // [row, col, angle or rank], bits of f32
@group(0) @binding(3) var<storage, read_write> order: array<u32>;             // [row, col, rank], angle
@group(0) @binding(4) var<storage, read_write> smoothed: array<u32>;            // [row, col, rank], bits of f32
@group(0) @binding(5) var<storage, read_write> touched: array<atomic<u32>>;   // the first: raised to the least transmission

// samples that a workgroup sorts: 16 KiB with their angles, which every GPU has
const LOCAL: u32 = 2048u;
// columns that an invocation slides its window over
const SEGMENT: u32 = 64u;

var<workgroup> keys: array<u32, 2048>;
var<workgroup> places: array<u32, 2048>;
// 32 x 32, one more to a row so that columns of it lie in different banks
var<workgroup> tile: array<f32, 1056>;
var<workgroup> n_raised: atomic<u32>;

// bits in the order of the numbers
fn ordered(bits: u32) -> u32 {
    return select(bits | 0x80000000u, ~bits, bits >> 31u == 1u);
}

fn number(ordered: u32) -> u32 {
    return select(~ordered, ordered & 0x7fffffffu, ordered >> 31u == 1u);
}

// x: 32 columns, y: 32 wanted angles, z: row
@compute @workgroup_size(256)
fn take_columns(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let across = thread % 32u;
    for (var down = thread / 32u; down < 32u; down += 8u) {
        let col = 32u * group.x + across;
        let angle = 32u * group.y + down;
        if col < params.n_cols && angle < params.n_wanted {
            tile[down * 33u + across] = lines[((params.first_row + group.z) * params.n_wanted + angle) * params.n_cols + col];
        }
    }
    workgroupBarrier();
    for (var down = thread / 32u; down < 32u; down += 8u) {
        let col = 32u * group.x + down;
        let angle = 32u * group.y + across;
        if col < params.n_cols && angle < params.n_wanted {
            let index = (group.z * params.n_cols + col) * params.n_angles + params.first_wanted + angle;
            columns[index] = bitcast<u32>(tile[across * 33u + down]);
        }
    }
}

// the lesser of two samples of the workgroup to the first place
fn exchange(i: u32, j: u32) {
    let a = keys[i];
    let b = keys[j];
    let p = places[i];
    let q = places[j];
    if a > b || (a == b && p > q) {
        keys[i] = b;
        keys[j] = a;
        places[i] = q;
        places[j] = p;
    }
}

// steps of a merge of `size` samples at the distances `first`, half of it, and so on
fn merge_from(first: u32, size: u32, thread: u32) {
    for (var stride = first; stride > 0u; stride /= 2u) {
        workgroupBarrier();
        for (var pair = thread; pair < size / 2u; pair += 256u) {
            let within = pair & (stride - 1u);
            let i = 2u * (pair - within) + within;
            exchange(i, i + stride);
        }
    }
}

// x: block of a column, y: column, z: row
@compute @workgroup_size(256)
fn sort_within(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = (group.z * params.n_cols + group.y) * params.n_angles;
    for (var place = thread; place < params.size; place += 256u) {
        let index = group.x * LOCAL + place;
        var key = 0xffffffffu;
        if index < params.n_angles {
            key = ordered(columns[column + index]);
        }
        keys[place] = key;
        places[place] = index;
    }
    for (var size = 2u; size <= params.size; size *= 2u) {
        workgroupBarrier();
        let half = size / 2u;
        for (var pair = thread; pair < params.size / 2u; pair += 256u) {
            let within = pair & (half - 1u);
            let first = 2u * (pair - within);
            exchange(first + within, first + size - 1u - within);
        }
        merge_from(half / 2u, params.size, thread);
    }
    workgroupBarrier();
    for (var place = thread; place < params.size; place += 256u) {
        let index = group.x * LOCAL + place;
        if index < params.n_angles {
            columns[column + index] = number(keys[place]);
            order[column + index] = places[place];
        }
    }
}

// x: 256 pairs of a column, y: column, z: row
@compute @workgroup_size(256)
fn merge_across(@builtin(global_invocation_id) id: vec3<u32>) {
    let column = (id.z * params.n_cols + id.y) * params.n_angles;
    let mirrors = params.stride == 0u;
    let half = select(params.stride, params.size / 2u, mirrors);
    let within = id.x & (half - 1u);
    let first = 2u * (id.x - within);
    let i = first + within;
    let j = select(i + half, first + params.size - 1u - within, mirrors);
    if j >= params.n_angles {
        return;
    }
    let a = columns[column + i];
    let b = columns[column + j];
    let p = order[column + i];
    let q = order[column + j];
    if ordered(a) > ordered(b) || (a == b && p > q) {
        columns[column + i] = b;
        columns[column + j] = a;
        order[column + i] = q;
        order[column + j] = p;
    }
}

// x: block of a column, y: column, z: row
@compute @workgroup_size(256)
fn merge_within(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = (group.z * params.n_cols + group.y) * params.n_angles;
    for (var place = thread; place < LOCAL; place += 256u) {
        let index = group.x * LOCAL + place;
        var key = 0xffffffffu;
        var angle = 0xffffffffu;
        if index < params.n_angles {
            key = ordered(columns[column + index]);
            angle = order[column + index];
        }
        keys[place] = key;
        places[place] = angle;
    }
    merge_from(LOCAL / 2u, LOCAL, thread);
    workgroupBarrier();
    for (var place = thread; place < LOCAL; place += 256u) {
        let index = group.x * LOCAL + place;
        if index < params.n_angles {
            columns[column + index] = number(keys[place]);
            order[column + index] = places[place];
        }
    }
}

// beyond the edges the columns are mirrored, the outermost repeated
fn reflected(place: i32) -> u32 {
    let n = i32(params.n_cols);
    if place >= 0 && place < n {
        return u32(place);
    }
    let inside = ((place % (2 * n)) + 2 * n) % (2 * n);
    return u32(select(2 * n - 1 - inside, inside, inside < n));
}

// When the window moves by one column, one sample leaves and one enters: the median stays, or moves to the next sample on one side.
// x: rank, y: segment of columns, z: row
@compute @workgroup_size(256)
fn median_across(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let row = id.z * params.n_cols;
    let left = i32(params.window / 2u);
    let rank = params.window / 2u;
    let first = SEGMENT * id.y;
    // the largest number below which no more than `rank` of the first window lie, bit by bit
    var median = 0u;
    for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
        let candidate = median | bit;
        var below = 0u;
        for (var step = 0u; step < params.window; step += 1u) {
            let col = reflected(i32(first + step) - left);
            below += select(0u, 1u, ordered(columns[(row + col) * params.n_angles + id.x]) < candidate);
        }
        median = select(median, candidate, below <= rank);
    }
    let end = min(first + SEGMENT, params.n_cols);
    for (var at = first; at < end; at += 1u) {
        if at > first {
            var n_below = 0u;
            var n_above = 0u;
            var next_below = 0u;
            var next_above = 0xffffffffu;
            for (var step = 0u; step < params.window; step += 1u) {
                let col = reflected(i32(at + step) - left);
                let key = ordered(columns[(row + col) * params.n_angles + id.x]);
                if key < median {
                    n_below += 1u;
                    next_below = max(next_below, key);
                }
                if key > median {
                    n_above += 1u;
                    next_above = min(next_above, key);
                }
            }
            if n_below > rank {
                median = next_below;
            } else if n_above >= params.window - rank {
                median = next_above;
            }
        }
        smoothed[(row + at) * params.n_angles + id.x] = number(median);
    }
}

// x: rank, y: column, z: row
@compute @workgroup_size(256)
fn unsort(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let column = (id.z * params.n_cols + id.y) * params.n_angles;
    columns[column + order[column + id.x]] = smoothed[column + id.x];
}

// x: 32 columns, y: 32 wanted angles, z: row
@compute @workgroup_size(256)
fn write_lines(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    if thread == 0u {
        atomicStore(&n_raised, 0u);
    }
    let across = thread % 32u;
    for (var down = thread / 32u; down < 32u; down += 8u) {
        let col = 32u * group.x + down;
        let angle = 32u * group.y + across;
        if col < params.n_cols && angle < params.n_wanted {
            let index = (group.z * params.n_cols + col) * params.n_angles + params.first_wanted + angle;
            tile[across * 33u + down] = bitcast<f32>(columns[index]);
        }
    }
    workgroupBarrier();
    let row = params.first_row + group.z;
    for (var down = thread / 32u; down < 32u; down += 8u) {
        let col = 32u * group.x + across;
        let angle = 32u * group.y + down;
        if col < params.n_cols && angle < params.n_wanted {
            var value = tile[down * 33u + across];
            if !(value >= params.min_transmission) {
                value = params.min_transmission;
                if row >= params.first_counted {
                    atomicAdd(&n_raised, 1u);
                }
            }
            lines[(row * params.n_wanted + angle) * params.n_cols + col] = -log(value);
        }
    }
    workgroupBarrier();
    if thread == 0u {
        atomicAdd(&touched[0], atomicLoad(&n_raised));
    }
}
