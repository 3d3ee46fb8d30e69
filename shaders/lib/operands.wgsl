// Activations and weights, four at a time, for products in f32.

override HALF: bool; // whether activations are rounded to f16 first

@group(0) @binding(1) var<storage, read> x: array<vec4f>;          // [rows, INNER4]
@group(0) @binding(2) var<storage, read> weight: array<Stored>;    // [STORED_ROWS * INNER4, OUTER4]

fn x_at(at: u32) -> vec4f {
    let value = x[at];
    if !HALF {
        return value;
    }
    // What is beyond f16 must not turn into a number, as it may where a driver rounds towards zero: it becomes infinite.
    let rounded = vec4f(unpack2x16float(pack2x16float(value.xy)), unpack2x16float(pack2x16float(value.zw)));
    return select(rounded, value * 3.0e38, abs(value) > vec4f(65504.0));
}

// Row 4 * k + j of the weight.
fn weight_at(k: u32, j: u32, column: u32) -> vec4f {
    var value = row_of(weight[(STORED_ROWS * k + j % STORED_ROWS) * OUTER4 + column], j);
    if SCALED {
        value *= scale[k / (GROUP / 4u) * OUTER4 + column];
    }
    return value;
}
