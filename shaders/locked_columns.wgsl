// The series lock on whole columns of transmission: broad stripes are brought to the level of their surroundings, pixels lose the slow
// part of what they deviate by. The slow parts themselves: slow_part and fit_line in line_integrals.wgsl.
// Twins: deviate_cpu, level_cpu and treat_cpu in src/correct/line_integrals/twin.rs (same order of operations); source: src/correct/lock.
//
//   deviate_column  line integral of a pixel less what its neighbours say, or the step of the line integrals at the edge of a stripe
//   level_columns   the columns of a broad stripe lose what lies on the straight line between the slow parts at its two edges
//   treat_columns   a pixel loses its slow part
//   scale_columns   every pixel takes its factor of the double flat field, as take_log in line_integrals.wgsl has it

struct LockedColumnParams {
    n_cols: u32,
    n_angles: u32,
    first_row: u32,        // of these columns, within the rows of the step
    first: u32,            // first pixel, edge or column of this dispatch
    min_transmission: f32,
}

// a pixel that the series lock corrects, or the edge of a broad stripe
struct LockedPixel {
    at: vec4<u32>,         // row, column, 1: an edge, unused
    columns: vec4<u32>,    // good neighbours
    weights: vec4<f32>,    // of the polynomial through them, or of the step between them
}

// a column of a broad stripe
struct LevelledColumn {
    row: u32,
    col: u32,
    left: u32,             // place of its left edge among all; the right one follows
    share: f32,            // of the way from the left edge to the right one
}

@group(0) @binding(0) var<uniform> params: LockedColumnParams;
@group(0) @binding(1) var<storage, read_write> columns: array<f32>;           // [row, col, angle], transmission
@group(0) @binding(2) var<storage, read> pixels: array<LockedPixel>;
@group(0) @binding(3) var<storage, read_write> deviation: array<f32>;         // [pixel, angle]
@group(0) @binding(4) var<storage, read> slow: array<f32>;                    // [pixel, angle]
@group(0) @binding(5) var<storage, read> levelled: array<LevelledColumn>;
@group(0) @binding(6) var<storage, read> factors: array<f32>;                 // [row of the step, col]

fn index_of(row: u32, col: u32, angle: u32) -> u32 {
    return ((row - params.first_row) * params.n_cols + col) * params.n_angles + angle;
}

fn integral(row: u32, col: u32, angle: u32) -> f32 {
    return -log(max(columns[index_of(row, col, angle)], params.min_transmission));
}

// x: angle, y: pixel
@compute @workgroup_size(256)
fn deviate_column(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let index = params.first + id.y;
    let pixel = pixels[index];
    let row = pixel.at.x;
    let around = pixel.weights.x * integral(row, pixel.columns.x, id.x)
        + pixel.weights.y * integral(row, pixel.columns.y, id.x)
        + pixel.weights.z * integral(row, pixel.columns.z, id.x)
        + pixel.weights.w * integral(row, pixel.columns.w, id.x);
    var deviates = around;
    if pixel.at.z == 0u {
        deviates = integral(row, pixel.at.y, id.x) - around;
    }
    deviation[index * params.n_angles + id.x] = deviates;
}

// x: angle, y: column of a broad stripe
@compute @workgroup_size(256)
fn level_columns(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let column = levelled[params.first + id.y];
    let left = slow[column.left * params.n_angles + id.x];
    // the step at the right edge leads back down
    let right = -slow[(column.left + 1u) * params.n_angles + id.x];
    columns[index_of(column.row, column.col, id.x)] *= exp(left + column.share * (right - left));
}

// x: angle, y: pixel
@compute @workgroup_size(256)
fn treat_columns(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let index = params.first + id.y;
    let pixel = pixels[index];
    columns[index_of(pixel.at.x, pixel.at.y, id.x)] *= exp(slow[index * params.n_angles + id.x]);
}

// x: angle, y: column, z: row
@compute @workgroup_size(256)
fn scale_columns(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.n_angles {
        return;
    }
    let factor = factors[(params.first_row + id.z) * params.n_cols + id.y];
    columns[index_of(params.first_row + id.z, id.y, id.x)] *= factor;
}
