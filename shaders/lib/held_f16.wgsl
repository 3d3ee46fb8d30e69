// What waits in workgroup memory to be multiplied, four numbers at a time: in f16.

alias Held = vec4<f16>;

// What is beyond f16 becomes no number. An infinite one would not do: a key's might give it the weight zero.
fn held(value: vec4f) -> Held {
    let none = bitcast<vec4f>(bitcast<vec4u>(value) | vec4u(0x7fc00000u));
    return Held(select(value, none, abs(value) > vec4f(65504.0)));
}
