// Weights in f32: four of them at a time, as they lie.

const SCALED = false;

alias Packed = vec4f;

fn unpack(packed: Packed) -> vec4f {
    return packed;
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
