// What every form of attention has: its buffers, and where a workgroup's queries are.

override HEADS: u32;
override SCALE: f32; // 1 / sqrt(head_dim)
override BIAS: bool; // whether scores depend on the distance of two tokens

const LOWEST = -3.0e38;
const RANGE = i32(BIAS_RANGE);

@group(0) @binding(0) var<uniform> batch: Header;
@group(0) @binding(1) var<storage, read> offsets: array<Offset>;        // [texts + 1]
@group(0) @binding(2) var<storage, read> qkv: array<vec4f>;             // [tokens, 3, HEADS, HEAD_DIM4]
@group(0) @binding(3) var<storage, read> bias: array<f32>;              // [HEADS, 2 * RANGE + 1] by distance, read only where BIAS
@group(0) @binding(4) var<storage, read_write> context: array<vec4f>;   // [tokens, HEADS, HEAD_DIM4]

// The last text that begins at this tile or before it.
fn text_of_tile(tile: u32) -> u32 {
    var low = 0u;
    var high = batch.texts;
    while high - low > 1u {
        let middle = (low + high) / 2u;
        if offsets[middle].tile <= tile {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// A score with what the distance of its two tokens adds.
fn with_bias(score: f32, head: u32, query: u32, key: u32) -> f32 {
    if !BIAS {
        return score;
    }
    let distance = clamp(i32(key) - i32(query), -RANGE, RANGE) + RANGE;
    return score + bias[head * u32(2 * RANGE + 1) + u32(distance)];
}
