// What waits in workgroup memory to be multiplied, four numbers at a time: in f32.

alias Held = vec4f;

fn held(value: vec4f) -> Held {
    return value;
}
