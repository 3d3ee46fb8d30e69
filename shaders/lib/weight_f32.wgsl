// Weights in f32: four of them at a time, as they lie.

alias Packed = vec4f;

fn unpack(packed: Packed) -> vec4f {
    return packed;
}
