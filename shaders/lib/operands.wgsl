// Activations and weights, four at a time, for products in f32.

override HALF: bool; // whether activations are rounded to f16 first

@group(0) @binding(1) var<storage, read> x: array<vec4f>;          // [rows, INNER4]
@group(0) @binding(2) var<storage, read> weight: array<Stored>;    // [STORED_ROWS * INNER4, OUTER4]

fn x_at(at: u32) -> vec4f {
    return x_of(x[at]);
}

fn x_of(value: vec4f) -> vec4f {
    if !HALF {
        return value;
    }
    // The nearest number of f16, ties to even, whichever way the driver's own conversion rounds.
    let bits = bitcast<vec4u>(value);
    let magnitude = bits & vec4u(0x7fffffffu);
    let normal = bitcast<vec4f>((bits + 0xfffu + ((bits >> vec4u(13u)) & vec4u(1u))) & vec4u(0xffffe000u));
    let subnormal = round(value * 16777216.0) * 5.9604644775390625e-8; // of 2^24, what lies below 2^-14
    let rounded = select(normal, subnormal, magnitude < vec4u(0x38800000u));
    // What is beyond f16 must not turn into a number: it becomes infinite.
    return select(rounded, value * 3.0e38, magnitude > vec4u(0x477fe000u));
}

// Row 4 * k + j of the weight.
fn weight_at(k: u32, j: u32, column: u32) -> vec4f {
    return weight_of(stored_at(k, j, column), k, j, column);
}

fn stored_at(k: u32, j: u32, column: u32) -> Stored {
    return weight[(STORED_ROWS * k + j % STORED_ROWS) * OUTER4 + column];
}

fn weight_of(stored: Stored, k: u32, j: u32, column: u32) -> vec4f {
    var value = row_of(stored, j);
    if SCALED {
        value *= scale[k / (GROUP / 4u) * OUTER4 + column];
    }
    return value;
}
