// Weights in f16, four in two words; what is computed with them is f32. No adapter lacks this: it asks for no f16 arithmetic.

const SCALED = false;

alias Packed = vec2u;

fn unpack(packed: Packed) -> vec4f {
    return vec4f(unpack2x16float(packed.x), unpack2x16float(packed.y));
}

fn scale_of(packed: Packed) -> f32 {
    return 1.0;
}

// Of a matrix: one row of four columns.
alias Stored = Packed;

const STORED_ROWS = 4u; // that have words of their own, of four

fn row_of(stored: Stored, j: u32) -> vec4f {
    return unpack(stored);
}
