// What every form of the matrix product shares: its interface, and what happens to a finished sum. `x` and `weight` are in operands.wgsl, or
// with the form that reads them in its own way.

override INNER4: u32;
override OUTER4: u32;
override RESIDUAL: bool;

@group(0) @binding(0) var<uniform> batch: Header;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;       // [OUTER4]
@group(0) @binding(4) var<storage, read> scale: array<vec4f>;      // [4 * INNER4 / GROUP, OUTER4], read only where SCALED
@group(0) @binding(5) var<storage, read> residual: array<vec4f>;   // [rows, OUTER4], read only where RESIDUAL
@group(0) @binding(6) var<storage, read_write> y: array<vec4f>;    // [rows, OUTER4]

// The bias comes from the caller, who reads it once for all of a lane's rows.
fn store(row: u32, last_row: u32, column: u32, sum: vec4f, bias_of_column: vec4f) {
    if row <= last_row && column < OUTER4 {
        let at = row * OUTER4 + column;
        var result = activate(sum + bias_of_column);
        if RESIDUAL {
            result += residual[at];
        }
        y[at] = result;
    }
}
