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
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32LANE_IN_SUBGROUP) {
    let head = group.y;
    let text = text_of_tile(group.x);
    let first = offsets[text].token;
    let length = offsets[text + 1u].token - first;
    let query = (group.x - offsets[text].tile) * QUERIES + lane;
    // Lanes beyond the text compute the last query again, since they may load keys for others; only their result is left out.
    let own_query = min(query, length - 1u);

    let width = HEADS * HEAD_DIM4;
    let queries_at = (first + own_query) * 3u * width + head * HEAD_DIM4;
    let keys_at = first * 3u * width + width + head * HEAD_DIM4;

#for d in HEAD_DIM4
    let q_{d} = qkv[queries_at + {d}u] * SCALE;
    var sum_{d} = vec4f();
#end
    var maximum = LOWEST;
    var total = 0.0;
    for (var k = 0u; k < length; k += KEYS) {
#for l in LOADS
        let key_{l} = keys_at + min(k + KEY_OF_LOAD_{l}, length - 1u) * 3u * width;
#end
        var new_maximum = maximum;
#for j in KEYS
        var score_{j} = 0.0;
#end
#for d in HEAD_DIM4
#for l in LOADS
        let key_{l}_{d} = qkv[key_{l} + {d}u];
#end
#for j in KEYS
        score_{j} += dot(q_{d}, KEY_{j}_{d});
#end
#end
#for j in KEYS
        if BIAS {
            let distance = clamp(i32(k + {j}u) - i32(own_query), -RANGE, RANGE) + RANGE;
            score_{j} += bias[head * u32(2 * RANGE + 1) + u32(distance)];
        }
        score_{j} = select(LOWEST, score_{j}, k + {j}u < length);
        new_maximum = max(new_maximum, score_{j});
#end
        let shrink = exp(maximum - new_maximum);
        maximum = new_maximum;
        total *= shrink;
#for j in KEYS
        let weight_{j} = select(0.0, exp(score_{j} - maximum), k + {j}u < length);
        total += weight_{j};
#end
#for d in HEAD_DIM4
#for l in LOADS
        let value_{l}_{d} = qkv[key_{l} + width + {d}u];
#end
        sum_{d} *= shrink;
#for j in KEYS
        sum_{d} += weight_{j} * VALUE_{j}_{d};
#end
#end
    }

    if query < length {
        let context_at = (first + query) * width + head * HEAD_DIM4;
#for d in HEAD_DIM4
        context[context_at + {d}u] = sum_{d} / total;
#end
    }
}
