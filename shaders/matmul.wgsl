// y[rows, outer] = activation(x[rows, inner] * weight + bias) + residual; rows are tokens, texts or selected tokens.
//
// The weight is stored transposed, [inner, outer], so that neighbouring lanes read neighbouring columns. Each lane computes a
// register tile of ROWS x 4 COLUMNS4 outputs; sizes are padded to multiples of 4 with zeros, so no inner loop has an edge.
// Every output is one sum over `inner` in ascending order, whatever the tile: a text has the same bits in any batch.

override INNER4: u32;
override OUTER4: u32;
override RESIDUAL: bool;

@group(0) @binding(0) var<uniform> batch: Header;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;          // [rows, INNER4]
@group(0) @binding(2) var<storage, read> weight: array<vec4f>;     // [4 * INNER4, OUTER4]
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;       // [OUTER4]
@group(0) @binding(4) var<storage, read> residual: array<vec4f>;   // [rows, OUTER4], read only where RESIDUAL
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;    // [rows, OUTER4]

@compute @workgroup_size(LANES, ROW_GROUPS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) lane: vec3u) {
    let first_row = (group.y * ROW_GROUPS + lane.y) * ROWS;
    let first_column = group.x * LANES * COLUMNS4 + lane.x; // in vec4; a lane's next column is LANES further
    let last_row = row_count() - 1u;
    if first_row > last_row {
        return;
    }

    var sums: array<array<vec4f, COLUMNS4>, ROWS>;
    for (var k = 0u; k < INNER4; k++) {
        var w: array<array<vec4f, COLUMNS4>, 4>;
        for (var j = 0u; j < 4u; j++) {
            for (var c = 0u; c < COLUMNS4; c++) {
                w[j][c] = weight[(4u * k + j) * OUTER4 + min(first_column + c * LANES, OUTER4 - 1u)];
            }
        }
        var rows = load_rows(first_row, last_row, k, lane.x); // a variable: a value that is indexed would be copied at each index
        for (var r = 0u; r < ROWS; r++) {
            let a = rows[r];
            for (var c = 0u; c < COLUMNS4; c++) {
                sums[r][c] += a.x * w[0][c] + a.y * w[1][c] + a.z * w[2][c] + a.w * w[3][c];
            }
        }
    }

    for (var r = 0u; r < ROWS; r++) {
        let row = first_row + r;
        for (var c = 0u; c < COLUMNS4; c++) {
            let column = first_column + c * LANES;
            if row <= last_row && column < OUTER4 {
                let at = row * OUTER4 + column;
                var result = activate(sums[r][c] + bias[column]);
                if RESIDUAL {
                    result += residual[at];
                }
                y[at] = result;
            }
        }
    }
}
