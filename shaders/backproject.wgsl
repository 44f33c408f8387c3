// Back-projection: every voxel sums, over all angles, the filtered value that its ray meets.
// Twin: backproject_cpu in src/reconstruct/backproject.rs (same names, same order of operations).
//
// One invocation sums four voxels (16 apart in x and y) of four slices, so the constants of an angle are read once per
// 16 updates, each coordinate is computed once per four, and eight loads of 16 bytes are under way at once. 32 neighbouring
// invocations cover 8 x 4 voxels, whatever the angle: their loads fall into few cache lines.
// Linear interpolation; the zeros around each stored row make rays beyond it add 0 without a branch.
// Angles come in blocks: a dispatch adds to what those before it left, in the order of the angles, so the result does
// not depend on how the angles were cut.
// Source: Kak & Slaney (1988), section 3.3.

struct BackprojectParams {
    n_rays: u32,         // of this dispatch, at most 256
    first_ray: u32,      // the first of them in `filtered`
    n_angles: u32,       // rays in `filtered`
    row_stride: u32,     // samples of a stored row
    n_x: u32,
    n_y: u32,            // rows in `slices`
    y_first: u32,        // slice row of the first of them
    y_start: u32,        // rows [y_start, y_end) of `slices` are summed here
    y_end: u32,
    n_slices: u32,       // slices wanted
    start: u32,          // 1: nothing was summed yet
    u_max: f32,          // largest coordinate that may be read, n_out + 1
    x_middle: f32,       // coordinates count from here [voxel]
    y_middle: f32,
}

@group(0) @binding(0) var<uniform> params: BackprojectParams;
// x: samples per voxel along x; y: along y; z: coordinate in the stored row of the voxel in the middle
@group(0) @binding(1) var<uniform> rays: array<vec4<f32>, 256>;
@group(0) @binding(2) var<storage, read> filtered: array<vec4<f32>>;        // [group, angle, sample]
@group(0) @binding(3) var<storage, read> spans: array<vec2<u32>>;           // [slice row], columns inside the mask
@group(0) @binding(4) var<storage, read_write> slices: array<vec4<f32>>;    // [group, y, x]
@group(0) @binding(5) var<storage, read_write> volume: array<f32>;          // [slice, y, x]

fn inside(x: u32, y: u32) -> bool {
    if x >= params.n_x || y >= params.y_end {
        return false;
    }
    let span = spans[params.y_first + y];
    return x >= span.x && x < span.y;
}

// `sum` and the value at coordinate `u_free` of the row that begins at `first`
fn add_sample(sum: vec4<f32>, first: u32, u_free: f32) -> vec4<f32> {
    let u = clamp(u_free, 0.0, params.u_max);
    let lower = u32(u);
    let share = u - f32(lower);
    return fma(filtered[first + lower + 1u], vec4(share), fma(filtered[first + lower], vec4(1.0 - share), sum));
}

// the x and y of invocation `thread` in its 16 x 16 tile: bits in turn, so that neighbours in number are neighbours in place
fn place(thread: u32) -> vec2<u32> {
    var x = thread & 0x55u;
    var y = (thread >> 1u) & 0x55u;
    x = (x | (x >> 1u)) & 0x33u;
    y = (y | (y >> 1u)) & 0x33u;
    return vec2((x | (x >> 2u)) & 0x0fu, (y | (y >> 2u)) & 0x0fu);
}

// x, y: tile of 32 x 32 voxels, z: group of four slices
@compute @workgroup_size(256)
fn backproject(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let at = place(thread);
    let x0 = tile.x * 32u + at.x;
    let x1 = x0 + 16u;
    let y0 = params.y_start + tile.y * 32u + at.y;
    let y1 = y0 + 16u;
    let in00 = inside(x0, y0);
    let in01 = inside(x1, y0);
    let in10 = inside(x0, y1);
    let in11 = inside(x1, y1);
    if !(in00 || in01 || in10 || in11) {
        return;
    }
    let base = tile.z * params.n_y;
    let i00 = (base + y0) * params.n_x + x0;
    let i10 = (base + y1) * params.n_x + x0;
    var sum00 = vec4<f32>();
    var sum01 = vec4<f32>();
    var sum10 = vec4<f32>();
    var sum11 = vec4<f32>();
    if params.start == 0u {
        if in00 { sum00 = slices[i00]; }
        if in01 { sum01 = slices[i00 + 16u]; }
        if in10 { sum10 = slices[i10]; }
        if in11 { sum11 = slices[i10 + 16u]; }
    }
    let fx0 = f32(x0) - params.x_middle;
    let fx1 = f32(x1) - params.x_middle;
    let fy0 = f32(params.y_first + y0) - params.y_middle;
    let fy1 = f32(params.y_first + y1) - params.y_middle;
    var first = (tile.z * params.n_angles + params.first_ray) * params.row_stride;
    for (var a = 0u; a < params.n_rays; a += 1u) {
        let ray = rays[a];
        let u0 = fma(fy0, ray.y, ray.z);
        let u1 = fma(fy1, ray.y, ray.z);
        sum00 = add_sample(sum00, first, fma(fx0, ray.x, u0));
        sum01 = add_sample(sum01, first, fma(fx1, ray.x, u0));
        sum10 = add_sample(sum10, first, fma(fx0, ray.x, u1));
        sum11 = add_sample(sum11, first, fma(fx1, ray.x, u1));
        first += params.row_stride;
    }
    if in00 { slices[i00] = sum00; }
    if in01 { slices[i00 + 16u] = sum01; }
    if in10 { slices[i10] = sum10; }
    if in11 { slices[i10 + 16u] = sum11; }
}

// Four packed slices apart, and 0 outside the mask. x: column, y: row of `slices`, z: group of four slices
@compute @workgroup_size(256)
fn unpack_slices(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_x {
        return;
    }
    let span = spans[params.y_first + id.y];
    var value = vec4<f32>();
    if id.x >= span.x && id.x < span.y {
        value = slices[(id.z * params.n_y + id.y) * params.n_x + id.x];
    }
    for (var lane = 0u; lane < 4u; lane += 1u) {
        let slice = 4u * id.z + lane;
        if slice < params.n_slices {
            volume[(slice * params.n_y + id.y) * params.n_x + id.x] = value[lane];
        }
    }
}
