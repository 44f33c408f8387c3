// Back-projection: every voxel sums, over all angles, the filtered value that its ray meets.
// Twin: backproject_cpu in src/reconstruct/backproject.rs (same names, same order of operations).
//
// One invocation sums four voxels (16 apart in x and y) of four slices, so the constants of an angle are read once per
// 16 updates, each coordinate is computed once per four, and eight loads of 16 bytes are under way at once. 32 neighbouring
// invocations cover 8 x 4 voxels, whatever the angle: their loads fall into few cache lines.
// Coordinates stay exact however wide the detector is: where the corner of a tile stands in each row is summed in
// integers (28 bits behind the point) once per workgroup, and f32 only has to span the 32 voxels of the tile.
// Linear interpolation; the zeros around each stored row make rays beyond it add 0 without a branch.
// Angles come in blocks: a dispatch adds to what those before it left, in the order of the angles, so the result does
// not depend on how the angles were cut.
// Variants of the same sum: backproject_wide takes eight slices, backproject_half samples of half precision (relative error
// 2^-12 of each), backproject_texture leaves the interpolation to the texture units (shares in steps of 1/256 on most GPUs).
// Source: Kak & Slaney (1988), section 3.3; Chilingaryan et al., J. Real-Time Image Proc. 17 (2020) 1331.

struct BackprojectParams {
    n_rays: u32,         // of this dispatch, at most 256
    first_ray: u32,      // the first of them in `filtered`
    n_angles: u32,       // rays in `filtered`
    row_stride: u32,     // samples of a stored row
    n_x: u32,
    n_y: u32,            // rows in `slices`
    y_first: u32,        // slice row of the first of them, a multiple of 32
    y_start: u32,        // rows [y_start, y_end) of `slices` are summed here; a multiple of 32
    y_end: u32,
    n_slices: u32,       // slices wanted
    start: u32,          // 1: nothing was summed yet
    u_max: f32,          // largest coordinate that may be read, n_out + 1
    scale: f32,          // of the slices, 1 unless samples are stored in half precision
}

// Coordinates are samples of the stored row; pairs are whole samples and 2^-28 parts of one.
struct RayConstants {
    along_x: f32,            // samples per voxel to the right
    along_y: f32,            // samples per voxel downwards
    origin: vec2<i32>,       // coordinate of voxel (0, 0)
    tile_x: vec2<i32>,       // samples per tile to the right
    tile_y: vec2<i32>,       // samples per tile downwards
}

@group(0) @binding(0) var<uniform> params: BackprojectParams;
@group(0) @binding(1) var<uniform> rays: array<RayConstants, 256>;
@group(0) @binding(2) var<storage, read> filtered: array<vec4<f32>>;        // [group, angle, sample]
@group(0) @binding(3) var<storage, read> spans: array<vec2<u32>>;           // [slice row], columns inside the mask
@group(0) @binding(4) var<storage, read_write> slices: array<vec4<f32>>;    // [group, y, x]
@group(0) @binding(5) var<storage, read_write> volume: array<f32>;          // [slice, y, x]
@group(0) @binding(6) var<storage, read> filtered_half: array<vec2<u32>>;   // [group, angle, sample], half precision
@group(0) @binding(7) var filtered_texture: texture_2d_array<f32>;          // [group][angle, sample]
@group(0) @binding(8) var between: sampler;                                  // linear

// per ray: samples along x and along y, and where the corner of the tile stands: part of a sample, whole samples
var<workgroup> places: array<vec4<f32>, 256>;

fn inside(x: u32, y: u32) -> bool {
    if x >= params.n_x || y >= params.y_end {
        return false;
    }
    let span = spans[params.y_first + y];
    return x >= span.x && x < span.y;
}

// where the corner of tile (x, y) stands in the row of `ray`
fn tile_place(ray: RayConstants, x: i32, y: i32) -> vec4<f32> {
    let low = x * (ray.tile_x.y & 0x3fff) + y * (ray.tile_y.y & 0x3fff) + (ray.origin.y & 0x3fff);
    let high = x * (ray.tile_x.y >> 14u) + y * (ray.tile_y.y >> 14u) + (ray.origin.y >> 14u) + (low >> 14u);
    let whole = x * ray.tile_x.x + y * ray.tile_y.x + ray.origin.x + (high >> 14u);
    let part = f32(((high & 0x3fff) << 14u) | (low & 0x3fff)) * 0x1p-28f;
    return vec4(ray.along_x, ray.along_y, part, f32(whole));
}

// `sum` and the value `u_free` samples behind `corner`, the corner of the tile, in the row that begins at `first`
fn add_sample(sum: vec4<f32>, first: u32, corner: f32, u_free: f32) -> vec4<f32> {
    let u = clamp(u_free, -corner, params.u_max - corner);
    let lower = floor(u);
    let share = u - lower;
    let at = first + u32(i32(corner) + i32(lower));
    return fma(filtered[at + 1u], vec4(share), fma(filtered[at], vec4(1.0 - share), sum));
}

// the same where the samples are in half precision
fn add_half(sum: vec4<f32>, first: u32, corner: f32, u_free: f32) -> vec4<f32> {
    let u = clamp(u_free, -corner, params.u_max - corner);
    let lower = floor(u);
    let share = u - lower;
    let at = first + u32(i32(corner) + i32(lower));
    let here = filtered_half[at];
    let next = filtered_half[at + 1u];
    let left = vec4(unpack2x16float(here.x), unpack2x16float(here.y));
    let right = vec4(unpack2x16float(next.x), unpack2x16float(next.y));
    return fma(right, vec4(share), fma(left, vec4(1.0 - share), sum));
}

// the same where the texture unit interpolates; `row` is the middle of the row of the texture
fn add_texel(sum: vec4<f32>, group: u32, row: f32, corner: f32, u_free: f32) -> vec4<f32> {
    let u = clamp(u_free, -corner, params.u_max - corner);
    let x = ((u + corner) + 0.5) / f32(params.row_stride);
    return sum + textureSampleLevel(filtered_texture, between, vec2(x, row), group, 0.0);
}

// a place between two samples of a row: the first of them in `filtered`, and the share of the second
struct Between {
    at: u32,
    share: f32,
}

fn between_samples(first: u32, corner: f32, u_free: f32) -> Between {
    let u = clamp(u_free, -corner, params.u_max - corner);
    let lower = floor(u);
    return Between(first + u32(i32(corner) + i32(lower)), u - lower);
}

fn add_at(sum: vec4<f32>, place: Between, apart: u32) -> vec4<f32> {
    let at = place.at + apart;
    return fma(filtered[at + 1u], vec4(place.share), fma(filtered[at], vec4(1.0 - place.share), sum));
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
    let tile_row = (params.y_first + params.y_start) / 32u + tile.y;
    if thread < params.n_rays {
        places[thread] = tile_place(rays[thread], i32(tile.x), i32(tile_row));
    }
    workgroupBarrier();
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
    let fx = f32(at.x);
    let fy = f32(at.y);
    var first = (tile.z * params.n_angles + params.first_ray) * params.row_stride;
    for (var a = 0u; a < params.n_rays; a += 1u) {
        let p = places[a];
        let u0 = fma(fy, p.y, p.z);
        let u1 = fma(fy + 16.0, p.y, p.z);
        sum00 = add_sample(sum00, first, p.w, fma(fx, p.x, u0));
        sum01 = add_sample(sum01, first, p.w, fma(fx + 16.0, p.x, u0));
        sum10 = add_sample(sum10, first, p.w, fma(fx, p.x, u1));
        sum11 = add_sample(sum11, first, p.w, fma(fx + 16.0, p.x, u1));
        first += params.row_stride;
    }
    if in00 { slices[i00] = sum00; }
    if in01 { slices[i00 + 16u] = sum01; }
    if in10 { slices[i10] = sum10; }
    if in11 { slices[i10 + 16u] = sum11; }
}

// The same for eight slices: coordinates are computed once for two groups.
// x, y: tile of 32 x 32 voxels, z: two groups of four slices
@compute @workgroup_size(256)
fn backproject_wide(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let tile_row = (params.y_first + params.y_start) / 32u + tile.y;
    if thread < params.n_rays {
        places[thread] = tile_place(rays[thread], i32(tile.x), i32(tile_row));
    }
    workgroupBarrier();
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
    let last = params.n_slices / 4u - 1u;
    let group_0 = 2u * tile.z;
    // where the number of groups is odd, the last one is summed twice and stored once
    let group_1 = min(group_0 + 1u, last);
    let plane = params.n_y * params.n_x;
    let i00 = y0 * params.n_x + x0;
    let i10 = (y0 + 16u) * params.n_x + x0;
    var sums: array<vec4<f32>, 8>;
    if params.start == 0u {
        for (var g = 0u; g < 2u; g += 1u) {
            let base = select(group_0, group_1, g == 1u) * plane;
            if in00 { sums[4u * g] = slices[base + i00]; }
            if in01 { sums[4u * g + 1u] = slices[base + i00 + 16u]; }
            if in10 { sums[4u * g + 2u] = slices[base + i10]; }
            if in11 { sums[4u * g + 3u] = slices[base + i10 + 16u]; }
        }
    }
    var a0 = sums[0];
    var a1 = sums[1];
    var a2 = sums[2];
    var a3 = sums[3];
    var b0 = sums[4];
    var b1 = sums[5];
    var b2 = sums[6];
    var b3 = sums[7];
    let fx = f32(at.x);
    let fy = f32(at.y);
    var first = (group_0 * params.n_angles + params.first_ray) * params.row_stride;
    let apart = (group_1 - group_0) * params.n_angles * params.row_stride;
    for (var a = 0u; a < params.n_rays; a += 1u) {
        let p = places[a];
        let u0 = fma(fy, p.y, p.z);
        let u1 = fma(fy + 16.0, p.y, p.z);
        let s0 = between_samples(first, p.w, fma(fx, p.x, u0));
        let s1 = between_samples(first, p.w, fma(fx + 16.0, p.x, u0));
        let s2 = between_samples(first, p.w, fma(fx, p.x, u1));
        let s3 = between_samples(first, p.w, fma(fx + 16.0, p.x, u1));
        a0 = add_at(a0, s0, 0u);
        a1 = add_at(a1, s1, 0u);
        a2 = add_at(a2, s2, 0u);
        a3 = add_at(a3, s3, 0u);
        b0 = add_at(b0, s0, apart);
        b1 = add_at(b1, s1, apart);
        b2 = add_at(b2, s2, apart);
        b3 = add_at(b3, s3, apart);
        first += params.row_stride;
    }
    let first_0 = group_0 * plane;
    if in00 { slices[first_0 + i00] = a0; }
    if in01 { slices[first_0 + i00 + 16u] = a1; }
    if in10 { slices[first_0 + i10] = a2; }
    if in11 { slices[first_0 + i10 + 16u] = a3; }
    if group_1 == group_0 {
        return;
    }
    let first_1 = group_1 * plane;
    if in00 { slices[first_1 + i00] = b0; }
    if in01 { slices[first_1 + i00 + 16u] = b1; }
    if in10 { slices[first_1 + i10] = b2; }
    if in11 { slices[first_1 + i10 + 16u] = b3; }
}

// The same from samples in half precision: half of the bytes are read.
// x, y: tile of 32 x 32 voxels, z: group of four slices
@compute @workgroup_size(256)
fn backproject_half(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let tile_row = (params.y_first + params.y_start) / 32u + tile.y;
    if thread < params.n_rays {
        places[thread] = tile_place(rays[thread], i32(tile.x), i32(tile_row));
    }
    workgroupBarrier();
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
    let fx = f32(at.x);
    let fy = f32(at.y);
    var first = (tile.z * params.n_angles + params.first_ray) * params.row_stride;
    for (var a = 0u; a < params.n_rays; a += 1u) {
        let p = places[a];
        let u0 = fma(fy, p.y, p.z);
        let u1 = fma(fy + 16.0, p.y, p.z);
        sum00 = add_half(sum00, first, p.w, fma(fx, p.x, u0));
        sum01 = add_half(sum01, first, p.w, fma(fx + 16.0, p.x, u0));
        sum10 = add_half(sum10, first, p.w, fma(fx, p.x, u1));
        sum11 = add_half(sum11, first, p.w, fma(fx + 16.0, p.x, u1));
        first += params.row_stride;
    }
    if in00 { slices[i00] = sum00; }
    if in01 { slices[i00 + 16u] = sum01; }
    if in10 { slices[i10] = sum10; }
    if in11 { slices[i10 + 16u] = sum11; }
}

// The same from a texture, whose units fetch and interpolate: no arithmetic is left but the coordinate and the sum.
// x, y: tile of 32 x 32 voxels, z: group of four slices
@compute @workgroup_size(256)
fn backproject_texture(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let tile_row = (params.y_first + params.y_start) / 32u + tile.y;
    if thread < params.n_rays {
        places[thread] = tile_place(rays[thread], i32(tile.x), i32(tile_row));
    }
    workgroupBarrier();
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
    let fx = f32(at.x);
    let fy = f32(at.y);
    var row = (f32(params.first_ray) + 0.5) / f32(params.n_angles);
    let next_row = 1.0 / f32(params.n_angles);
    for (var a = 0u; a < params.n_rays; a += 1u) {
        let p = places[a];
        let u0 = fma(fy, p.y, p.z);
        let u1 = fma(fy + 16.0, p.y, p.z);
        sum00 = add_texel(sum00, tile.z, row, p.w, fma(fx, p.x, u0));
        sum01 = add_texel(sum01, tile.z, row, p.w, fma(fx + 16.0, p.x, u0));
        sum10 = add_texel(sum10, tile.z, row, p.w, fma(fx, p.x, u1));
        sum11 = add_texel(sum11, tile.z, row, p.w, fma(fx + 16.0, p.x, u1));
        row += next_row;
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
            volume[(slice * params.n_y + id.y) * params.n_x + id.x] = value[lane] * params.scale;
        }
    }
}
