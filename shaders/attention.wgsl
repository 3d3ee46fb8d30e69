// context[tokens, heads, head_dim] = softmax(q * transpose(k) * SCALE + bias) * v within each text; one lane a query, one workgroup a tile of
// TILE queries of one text and one head.
//
// One pass over the keys with a running maximum and sum (online softmax: Milakov and Gimelshein 2018, arXiv 1805.02867), so no
// [length, length] buffer exists and any length runs. Keys are taken KEYS at a time from the text's first token on, so the order of
// every sum depends on the text alone.

@compute @workgroup_size(TILE)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32LANE_IN_SUBGROUP) {
    let head = group.y;
    let text = text_of_tile(group.x);
    let first = offsets[text].token;
    let length = offsets[text + 1u].token - first;
    let query = (group.x - offsets[text].tile) * TILE + lane;
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
        score_{j} = select(LOWEST, with_bias(score_{j}, head, own_query, k + {j}u), k + {j}u < length);
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
        sum_{d} = fma(vec4f(weight_{j}), VALUE_{j}_{d}, sum_{d});
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
