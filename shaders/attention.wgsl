// context[tokens, heads, head_dim] = softmax(q * transpose(k) * SCALE + bias) * v within each text; one lane a query, one workgroup a tile of
// QUERIES queries of one text and one head.
//
// One pass over the keys with a running maximum and sum (online softmax: Milakov and Gimelshein 2018, arXiv 1805.02867), so no
// [length, length] buffer exists and any length runs. Keys are taken KEYS at a time from the text's first token on, so the order of
// every sum depends on the text alone.

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

@compute @workgroup_size(QUERIES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let head = group.y;
    let text = text_of_tile(group.x);
    let first = offsets[text].token;
    let length = offsets[text + 1u].token - first;
    let query = (group.x - offsets[text].tile) * QUERIES + lane;
    if query >= length {
        return;
    }

    let width = HEADS * HEAD_DIM4;
    let queries_at = (first + query) * 3u * width + head * HEAD_DIM4;
    let keys_at = first * 3u * width + width + head * HEAD_DIM4;
    let values_at = keys_at + width;

    var q: array<vec4f, HEAD_DIM4>;
    var sums: array<vec4f, HEAD_DIM4>;
    for (var d = 0u; d < HEAD_DIM4; d++) {
        q[d] = qkv[queries_at + d] * SCALE;
    }

    var maximum = LOWEST;
    var total = 0.0;
    for (var k = 0u; k < length; k += KEYS) {
        var weights: array<f32, KEYS>;
        var new_maximum = maximum;
        for (var j = 0u; j < KEYS; j++) {
            let at = keys_at + min(k + j, length - 1u) * 3u * width;
            var score = 0.0;
            for (var d = 0u; d < HEAD_DIM4; d++) {
                score += dot(q[d], qkv[at + d]);
            }
            if BIAS {
                let distance = clamp(i32(k + j) - i32(query), -RANGE, RANGE) + RANGE;
                score += bias[head * u32(2 * RANGE + 1) + u32(distance)];
            }
            weights[j] = select(LOWEST, score, k + j < length);
            new_maximum = max(new_maximum, weights[j]);
        }
        let shrink = exp(maximum - new_maximum);
        maximum = new_maximum;
        total *= shrink;
        for (var d = 0u; d < HEAD_DIM4; d++) {
            sums[d] *= shrink;
        }
        for (var j = 0u; j < KEYS; j++) {
            let p = select(0.0, exp(weights[j] - maximum), k + j < length);
            let at = values_at + min(k + j, length - 1u) * 3u * width;
            total += p;
            for (var d = 0u; d < HEAD_DIM4; d++) {
                sums[d] += p * qkv[at + d];
            }
        }
    }

    let context_at = (first + query) * width + head * HEAD_DIM4;
    for (var d = 0u; d < HEAD_DIM4; d++) {
        context[context_at + d] = sums[d] / total;
    }
}
