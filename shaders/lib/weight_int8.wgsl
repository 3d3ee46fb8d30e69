// Weights in eight bits, four in a word; they count times a scale, which comes from elsewhere.

alias Packed = u32;

fn unpack(packed: Packed) -> vec4f {
    return vec4f(unpack4xI8(packed));
}
