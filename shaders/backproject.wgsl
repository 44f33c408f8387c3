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

// a place between two samples of a row: the first of them in `filtered`, and the share of the second
struct Between {
    at: u32,
    share: f32,
}

// `u_free` samples behind `corner`, the corner of the tile, in the row that begins at `first`
fn between_samples(first: u32, corner: f32, u_free: f32) -> Between {
    let u = clamp(u_free, -corner, params.u_max - corner);
    let lower = floor(u);
    return Between(first + u32(i32(corner) + i32(lower)), u - lower);
}

// `sum` and the value at `place`, `apart` samples on
fn add_at(sum: vec4<f32>, place: Between, apart: u32) -> vec4<f32> {
    let at = place.at + apart;
    return fma(filtered[at + 1u], vec4(place.share), fma(filtered[at], vec4(1.0 - place.share), sum));
}

fn add_sample(sum: vec4<f32>, first: u32, corner: f32, u_free: f32) -> vec4<f32> {
    return add_at(sum, between_samples(first, corner, u_free), 0u);
}

// the same where the samples are in half precision
fn add_half(sum: vec4<f32>, first: u32, corner: f32, u_free: f32) -> vec4<f32> {
    let place = between_samples(first, corner, u_free);
    let here = filtered_half[place.at];
    let next = filtered_half[place.at + 1u];
    let left = vec4(unpack2x16float(here.x), unpack2x16float(here.y));
    let right = vec4(unpack2x16float(next.x), unpack2x16float(next.y));
    return fma(right, vec4(place.share), fma(left, vec4(1.0 - place.share), sum));
}

// the same where the texture unit interpolates; `row` is the middle of the row of the texture
fn add_texel(sum: vec4<f32>, group: u32, row: f32, corner: f32, u_free: f32) -> vec4<f32> {
    let u = clamp(u_free, -corner, params.u_max - corner);
    let x = ((u + corner) + 0.5) / f32(params.row_stride);
    return sum + textureSampleLevel(filtered_texture, between, vec2(x, row), group, 0.0);
}

// the x and y of invocation `thread` in its 16 x 16 tile: bits in turn, so that neighbours in number are neighbours in place
fn place(thread: u32) -> vec2<u32> {
    var x = thread & 0x55u;
    var y = (thread >> 1u) & 0x55u;
    x = (x | (x >> 1u)) & 0x33u;
    y = (y | (y >> 1u)) & 0x33u;
    return vec2((x | (x >> 2u)) & 0x0fu, (y | (y >> 2u)) & 0x0fu);
}

// four voxels of a tile, 16 apart in x and y
struct Quad {
    at: vec2<f32>,           // the first of them within the tile
    index: vec2<u32>,        // in a plane of `slices`: the first of the upper row and of the lower one
    inside: vec4<bool>,      // the mask: upper left, upper right, lower left, lower right
}

// what stands in the four voxels, in the order of `inside`
struct Sums {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

// Fills `places` for the tile; all invocations come here together.
fn place_rays(tile: vec3<u32>, thread: u32) {
    let tile_row = (params.y_first + params.y_start) / 32u + tile.y;
    if thread < params.n_rays {
        places[thread] = tile_place(rays[thread], i32(tile.x), i32(tile_row));
    }
    workgroupBarrier();
}

fn quad(tile: vec3<u32>, thread: u32) -> Quad {
    let at = place(thread);
    let x = tile.x * 32u + at.x;
    let y = params.y_start + tile.y * 32u + at.y;
    return Quad(
        vec2<f32>(at),
        vec2(y, y + 16u) * params.n_x + x,
        vec4(inside(x, y), inside(x + 16u, y), inside(x, y + 16u), inside(x + 16u, y + 16u)),
    );
}

// what earlier dispatches left in the plane that begins at `base`
fn held(quad: Quad, base: u32) -> Sums {
    var sums = Sums();
    if params.start == 0u {
        let index = base + quad.index;
        if quad.inside.x { sums.a = slices[index.x]; }
        if quad.inside.y { sums.b = slices[index.x + 16u]; }
        if quad.inside.z { sums.c = slices[index.y]; }
        if quad.inside.w { sums.d = slices[index.y + 16u]; }
    }
    return sums;
}

fn store(quad: Quad, base: u32, sums: Sums) {
    let index = base + quad.index;
    if quad.inside.x { slices[index.x] = sums.a; }
    if quad.inside.y { slices[index.x + 16u] = sums.b; }
    if quad.inside.z { slices[index.y] = sums.c; }
    if quad.inside.w { slices[index.y + 16u] = sums.d; }
}

// how far behind the corner of the tile the four voxels meet the row of a ray, of which `p` is in `places`
fn coordinates(quad: Quad, p: vec4<f32>) -> vec4<f32> {
    let upper = fma(quad.at.y, p.y, p.z);
    let lower = fma(quad.at.y + 16.0, p.y, p.z);
    return vec4(
        fma(quad.at.x, p.x, upper),
        fma(quad.at.x + 16.0, p.x, upper),
        fma(quad.at.x, p.x, lower),
        fma(quad.at.x + 16.0, p.x, lower),
    );
}

// x, y: tile of 32 x 32 voxels, z: group of four slices
@compute @workgroup_size(256)
fn backproject(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    place_rays(tile, thread);
    let voxels = quad(tile, thread);
    if !any(voxels.inside) {
        return;
    }
    let plane = tile.z * params.n_y * params.n_x;
    var sums = held(voxels, plane);
    var first = (tile.z * params.n_angles + params.first_ray) * params.row_stride;
    for (var ray = 0u; ray < params.n_rays; ray += 1u) {
        let p = places[ray];
        let u = coordinates(voxels, p);
        sums.a = add_sample(sums.a, first, p.w, u.x);
        sums.b = add_sample(sums.b, first, p.w, u.y);
        sums.c = add_sample(sums.c, first, p.w, u.z);
        sums.d = add_sample(sums.d, first, p.w, u.w);
        first += params.row_stride;
    }
    store(voxels, plane, sums);
}

// The same for eight slices: coordinates are computed once for two groups.
// x, y: tile of 32 x 32 voxels, z: two groups of four slices
@compute @workgroup_size(256)
fn backproject_wide(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    place_rays(tile, thread);
    let voxels = quad(tile, thread);
    if !any(voxels.inside) {
        return;
    }
    let group_0 = 2u * tile.z;
    // where the number of groups is odd, the last one is summed twice and stored once
    let group_1 = min(group_0 + 1u, params.n_slices / 4u - 1u);
    let plane = params.n_y * params.n_x;
    var near = held(voxels, group_0 * plane);
    var far = held(voxels, group_1 * plane);
    var first = (group_0 * params.n_angles + params.first_ray) * params.row_stride;
    let apart = (group_1 - group_0) * params.n_angles * params.row_stride;
    for (var ray = 0u; ray < params.n_rays; ray += 1u) {
        let p = places[ray];
        let u = coordinates(voxels, p);
        let a = between_samples(first, p.w, u.x);
        let b = between_samples(first, p.w, u.y);
        let c = between_samples(first, p.w, u.z);
        let d = between_samples(first, p.w, u.w);
        near.a = add_at(near.a, a, 0u);
        near.b = add_at(near.b, b, 0u);
        near.c = add_at(near.c, c, 0u);
        near.d = add_at(near.d, d, 0u);
        far.a = add_at(far.a, a, apart);
        far.b = add_at(far.b, b, apart);
        far.c = add_at(far.c, c, apart);
        far.d = add_at(far.d, d, apart);
        first += params.row_stride;
    }
    store(voxels, group_0 * plane, near);
    if group_1 > group_0 {
        store(voxels, group_1 * plane, far);
    }
}

// The same from samples in half precision: half of the bytes are read.
// x, y: tile of 32 x 32 voxels, z: group of four slices
@compute @workgroup_size(256)
fn backproject_half(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    place_rays(tile, thread);
    let voxels = quad(tile, thread);
    if !any(voxels.inside) {
        return;
    }
    let plane = tile.z * params.n_y * params.n_x;
    var sums = held(voxels, plane);
    var first = (tile.z * params.n_angles + params.first_ray) * params.row_stride;
    for (var ray = 0u; ray < params.n_rays; ray += 1u) {
        let p = places[ray];
        let u = coordinates(voxels, p);
        sums.a = add_half(sums.a, first, p.w, u.x);
        sums.b = add_half(sums.b, first, p.w, u.y);
        sums.c = add_half(sums.c, first, p.w, u.z);
        sums.d = add_half(sums.d, first, p.w, u.w);
        first += params.row_stride;
    }
    store(voxels, plane, sums);
}

// The same from a texture, whose units fetch and interpolate: no arithmetic is left but the coordinate and the sum.
// x, y: tile of 32 x 32 voxels, z: group of four slices
@compute @workgroup_size(256)
fn backproject_texture(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    place_rays(tile, thread);
    let voxels = quad(tile, thread);
    if !any(voxels.inside) {
        return;
    }
    let plane = tile.z * params.n_y * params.n_x;
    var sums = held(voxels, plane);
    var row = (f32(params.first_ray) + 0.5) / f32(params.n_angles);
    let next_row = 1.0 / f32(params.n_angles);
    for (var ray = 0u; ray < params.n_rays; ray += 1u) {
        let p = places[ray];
        let u = coordinates(voxels, p);
        sums.a = add_texel(sums.a, tile.z, row, p.w, u.x);
        sums.b = add_texel(sums.b, tile.z, row, p.w, u.y);
        sums.c = add_texel(sums.c, tile.z, row, p.w, u.z);
        sums.d = add_texel(sums.d, tile.z, row, p.w, u.w);
        row += next_row;
    }
    store(voxels, plane, sums);
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
