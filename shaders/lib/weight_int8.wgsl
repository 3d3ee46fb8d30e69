// Weights in eight bits, four in a word; they count times a scale, which comes from elsewhere.

const SCALED = true;

alias Packed = u32;

fn unpack(packed: Packed) -> vec4f {
    return vec4f(unpack4xI8(packed));
}

// The scale of a word, which stands before it.
fn scale_of(packed: Packed) -> f32 {
    return bitcast<f32>(packed);
}

// Of a matrix: four rows of four columns.
alias Stored = vec4u;

const STORED_ROWS = 1u; // that have words of their own, of four

fn row_of(stored: Stored, j: u32) -> vec4f {
    return vec4f(extractBits(bitcast<vec4i>(stored), 8u * j, 8u));
}
