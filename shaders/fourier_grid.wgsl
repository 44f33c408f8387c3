// The Fourier method: spectra of rows -> Cartesian cells of the spectrum of a slice.
// Twin: spectra_cpu and gather_cells_cpu in src/reconstruct/fourier_grid.rs (same names, same order of operations).
//
//   spectra        two rows of one transform apart, times filter and phase; four slices packed, [group, angle, k]
//   gather_cells   every cell adds the samples within three cells of it, weighted by the Kaiser-Bessel window
// A sample k of a line stands at (k du, k dv); its conjugate at the opposite place; both again one period on where the
// grid is periodic. Which of these branches of which lines come near a tile of 16 x 16 cells is known from the
// geometry alone, and listed per tile in the order of the projections: each cell adds in that order, nothing is
// added by two invocations, and the result is the same in any run and for any cut.
// Positions are exact to 2^-20 cell at any size: whole cells and 2^-32 parts are multiplied in integers once per tile,
// and f32 only spans the tile.
// Source: Fessler & Sutton, IEEE TSP 51 (2003) 560; Beatty et al., IEEE TMI 24 (2005) 799.

struct FourierGridParams {
    n_rows: u32,         // detector rows, a multiple of 4
    n_angles: u32,       // of this block
    n_pairs: u32,        // ceil(n_angles / 2)
    n_fft: u32,
    log2_n_fft: u32,
    n_u: u32,            // length of the grid along u, a multiple of 32
    n_v: u32,            // along v
    u_first: u32,        // first column of this band, a multiple of 16
    u_band: u32,         // columns in `cells`
    start: u32,          // 1: nothing was added yet
    unused_0: u32,
    unused_1: u32,
}

// Cells from one sample to the next: whole cells and 2^-32 parts.
struct Line {
    along_u: vec2<u32>,
    along_v: vec2<u32>,
    up: u32,             // 1: v falls along the line
    mirrored: u32,       // 1: the line was turned by half a turn, its samples are conjugated
}

@group(0) @binding(0) var<uniform> params: FourierGridParams;
@group(0) @binding(1) var<storage, read> spectrum: array<vec2<f32>>;         // [row, pair, n_fft], bit-reversed
@group(0) @binding(2) var<storage, read> row_phase: array<vec2<f32>>;        // [row, k], filter and rotation axis
@group(0) @binding(3) var<storage, read> angle_phase: array<vec2<f32>>;      // [angle, k]
@group(0) @binding(4) var<storage, read> geometry: array<Line>;              // [angle]
@group(0) @binding(5) var<storage, read> tiles: array<u32>;                  // [tile + 1], where its branches begin
@group(0) @binding(6) var<storage, read> branches: array<u32>;               // angle | negative << 24 | u + n_u << 25 | v + n_v << 26
@group(0) @binding(7) var<storage, read> window: array<f32>;                 // 512 steps per cell up to the third, and a zero
@group(0) @binding(8) var<storage, read_write> samples: array<vec4<f32>>;    // [group, angle, k] of real and imaginary parts
@group(0) @binding(9) var<storage, read_write> cells: array<vec2<f32>>;      // [row, u - u_first, v]

fn multiply(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    return vec2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

fn put_sample(group: u32, angle: u32, k: u32, re: vec4<f32>, im: vec4<f32>) {
    let n_k = params.n_fft / 2u + 1u;
    let turn = angle_phase[angle * n_k + k];
    let at = 2u * ((group * params.n_angles + angle) * n_k + k);
    samples[at] = re * turn.x - im * turn.y;
    let imaginary = re * turn.y + im * turn.x;
    samples[at + 1u] = select(imaginary, -imaginary, geometry[angle].mirrored == 1u);
}

// x: frequency k, y: pair, z: group of four rows
@compute @workgroup_size(256)
fn spectra(@builtin(global_invocation_id) id: vec3<u32>) {
    let n_k = params.n_fft / 2u + 1u;
    let k = id.x;
    if k >= n_k {
        return;
    }
    let at = reverseBits(k) >> (32u - params.log2_n_fft);
    let opposite = reverseBits((params.n_fft - k) % params.n_fft) >> (32u - params.log2_n_fft);
    var re_0 = vec4<f32>();
    var im_0 = vec4<f32>();
    var re_1 = vec4<f32>();
    var im_1 = vec4<f32>();
    for (var lane = 0u; lane < 4u; lane += 1u) {
        let row = 4u * id.z + lane;
        let first = (row * params.n_pairs + id.y) * params.n_fft;
        let z = spectrum[first + at];
        let w = spectrum[first + opposite];
        let turn = row_phase[row * n_k + k];
        let a = multiply(0.5 * vec2(z.x + w.x, z.y - w.y), turn);
        let b = multiply(0.5 * vec2(z.y + w.y, w.x - z.x), turn);
        re_0[lane] = a.x;
        im_0[lane] = a.y;
        re_1[lane] = b.x;
        im_1[lane] = b.y;
    }
    put_sample(id.z, 2u * id.y, k, re_0, im_0);
    if 2u * id.y + 1u < params.n_angles {
        put_sample(id.z, 2u * id.y + 1u, k, re_1, im_1);
    }
}

// branches at a time in workgroup memory
const CHUNK: u32 = 128u;
const STEPS: u32 = 512u;

// first sample near the tile: place from the corner of the tile, and step to the next [cell]
var<workgroup> places: array<vec4<f32>, 128>;
// its index in `samples` of a group, samples near the tile, 1: conjugated, 1: steps along u are the larger ones
var<workgroup> spans: array<vec4<u32>, 128>;
var<workgroup> table: array<f32, 1538>;

// k steps of a line: whole cells, and the rest of one
fn steps(along: vec2<u32>, k: u32) -> vec2<u32> {
    let low = k * (along.y & 0xffffu);
    let high = k * (along.y >> 16u) + (low >> 16u);
    return vec2(k * along.x + (high >> 16u), (high << 16u) | (low & 0xffffu));
}

fn place(along: vec2<u32>, k: u32, backwards: bool, shift: i32) -> f32 {
    let s = steps(along, k);
    let rest = f32(s.y) * 0x1p-32f;
    if backwards {
        return f32(shift - i32(s.x)) - rest;
    }
    return f32(shift + i32(s.x)) + rest;
}

// samples whose coordinate from the corner of the tile is from -3 to 18, one more on either side
fn near(step: f32, shift: i32, last: f32) -> vec2<f32> {
    if step == 0.0 {
        return vec2(0.0, last);
    }
    let a = (-3.0 - f32(shift)) / step;
    let b = (18.0 - f32(shift)) / step;
    return vec2(clamp(floor(min(a, b)) - 1.0, 0.0, last + 1.0), clamp(ceil(max(a, b)) + 1.0, -1.0, last));
}

fn set_branch(slot: u32, branch: u32, u: i32, v: i32) {
    let angle = branch & 0xffffffu;
    let line = geometry[angle];
    let negative = (branch >> 24u) & 1u;
    let shift_u = i32(((branch >> 25u) & 1u) * params.n_u) - u;
    let shift_v = i32(((branch >> 26u) & 1u) * params.n_v) - v;
    let back_v = line.up != negative;
    let step_u = (f32(line.along_u.x) + f32(line.along_u.y) * 0x1p-32f) * select(1.0, -1.0, negative == 1u);
    let step_v = (f32(line.along_v.x) + f32(line.along_v.y) * 0x1p-32f) * select(1.0, -1.0, back_v);
    let last = f32(params.n_fft / 2u);
    let by_u = near(step_u, shift_u, last);
    let by_v = near(step_v, shift_v, last);
    let first = u32(max(by_u.x, by_v.x));
    let count = max(i32(min(by_u.y, by_v.y)) - i32(first) + 1, 0);
    places[slot] = vec4(
        place(line.along_u, first, negative == 1u, shift_u),
        place(line.along_v, first, back_v, shift_v),
        step_u,
        step_v,
    );
    let sample = angle * (params.n_fft / 2u + 1u) + first;
    spans[slot] = vec4(sample, u32(count), negative, u32(abs(step_u) >= abs(step_v)));
}

fn weight(distance: f32) -> f32 {
    let at = distance * f32(STEPS);
    let step = u32(at);
    return fma(at - f32(step), table[step + 1u] - table[step], table[step]);
}

// x: tile along v, y: tile along u in the band, z: group of four rows
@compute @workgroup_size(256)
fn gather_cells(@builtin(workgroup_id) tile: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    for (var i = thread; i < 1538u; i += 256u) {
        table[i] = window[i];
    }
    let u = params.u_first + 16u * tile.y;
    let v = 16u * tile.x;
    let u_in = thread >> 4u;
    let v_in = thread & 15u;
    let index = (u / 16u) * (params.n_v / 16u) + tile.x;
    let end = tiles[index + 1u];
    let n_samples = params.n_angles * (params.n_fft / 2u + 1u);
    let at = (16u * tile.y + u_in) * params.n_v + v + v_in;
    let plane = params.u_band * params.n_v;
    var re = vec4<f32>();
    var im = vec4<f32>();
    if params.start == 0u {
        for (var lane = 0u; lane < 4u; lane += 1u) {
            let cell = cells[(4u * tile.z + lane) * plane + at];
            re[lane] = cell.x;
            im[lane] = cell.y;
        }
    }
    for (var chunk = tiles[index]; chunk < end; chunk += CHUNK) {
        workgroupBarrier();
        if thread < CHUNK && chunk + thread < end {
            set_branch(thread, branches[chunk + thread], i32(u), i32(v));
        }
        workgroupBarrier();
        let n = min(CHUNK, end - chunk);
        for (var i = 0u; i < n; i += 1u) {
            let p = places[i];
            let span = spans[i];
            let u_0 = p.x - f32(u_in);
            let v_0 = p.y - f32(v_in);
            let along_u = span.w == 1u;
            let inverse = 1.0 / select(p.w, p.z, along_u);
            let middle = -select(v_0, u_0, along_u) * inverse;
            // within the reach the other coordinate changes by 3 at most
            if abs(select(fma(middle, p.z, u_0), fma(middle, p.w, v_0), along_u)) >= 6.0 {
                continue;
            }
            let reach = 3.0 * abs(inverse);
            let from_j = max(i32(ceil(middle - reach)), 0);
            let to_j = min(i32(floor(middle + reach)), i32(span.y) - 1);
            let first = tile.z * n_samples + span.x;
            for (var j = from_j; j <= to_j; j += 1) {
                let du = abs(fma(f32(j), p.z, u_0));
                let dv = abs(fma(f32(j), p.w, v_0));
                if du < 3.0 && dv < 3.0 {
                    let both = weight(du) * weight(dv);
                    let sample = 2u * (first + u32(j));
                    re = fma(vec4(both), samples[sample], re);
                    let signed_both = select(both, -both, span.z == 1u);
                    im = fma(vec4(signed_both), samples[sample + 1u], im);
                }
            }
        }
    }
    for (var lane = 0u; lane < 4u; lane += 1u) {
        cells[(4u * tile.z + lane) * plane + at] = vec2(re[lane], im[lane]);
    }
}
