// As attention.wgsl, as two matrix products through workgroup memory: scores = queries * transpose(keys), context = weights * values, for
// a block of KEYS keys at a time and for LANES * 4 of a head's numbers. Each lane computes ROWS queries: in the first product the scores
// of four keys, in the second, of each slice, four numbers of the context. So its registers hold ROWS rows of a few numbers, however
// wide the head is, and a tile takes ROW_GROUPS * LANES lanes.
//
// Keys come in the text's order from its first token on, so the order of every sum depends on the text alone.

const QUERIES = ROWS * ROW_GROUPS;
const PARTS = TILE / QUERIES; // workgroups of a tile
const KEYS = 4u * LANES;
const STRIDE = LANES + 1u;    // one more than is used: neighbouring rows lie in different banks

// Row r of lane group y lies at r * ROW_GROUPS + y, key j of lane x at j * LANES + x: again in different banks.
var<workgroup> left: array<Held, QUERIES * STRIDE>;  // a slice of the queries, then the weights of all keys
var<workgroup> right: array<Held, KEYS * STRIDE>;    // a slice of the keys, then of the values
var<workgroup> parts: array<f32, QUERIES * LANES>;    // each lane's maximum of a row, at the end its total

// KEYS rows from the block's first on, of which those beyond the text are read as its last: their weight is zero.
fn load_block(at: u32, block: u32, length: u32, lane: vec3u) {
    for (var i = lane.y; i < KEYS; i += ROW_GROUPS) {
        let key = min(block + 4u * (i % LANES) + i / LANES, length - 1u);
        right[i * STRIDE + lane.x] = held(qkv[at + key * 3u * HEADS * HEAD_DIM4]);
    }
}

@compute @workgroup_size(LANES, ROW_GROUPS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) lane: vec3u) {
    let head = group.y / PARTS;
    let text = text_of_tile(group.x);
    let first = offsets[text].token;
    let length = offsets[text + 1u].token - first;
    let part_query = (group.x - offsets[text].tile) * TILE + group.y % PARTS * QUERIES;
    if part_query >= length {
        return; // the text ends in an earlier part of its tile
    }
    let first_query = part_query + lane.y * ROWS;
    // Lanes beyond the text load for the others and compute nothing.
    let is_needed = first_query < length;

    let width = HEADS * HEAD_DIM4;
    let queries_at = first * 3u * width + head * HEAD_DIM4;
#for s in SLICES
    let column_{s} = min({s}u * LANES + lane.x, HEAD_DIM4 - 1u); // beyond the head the last again, not used or not written
#end
#for r in ROWS
    let query_{r} = min(first_query + {r}u, length - 1u);
    let row_{r} = {r}u * ROW_GROUPS + lane.y;
    var maximum_{r} = LOWEST;
    var total_{r} = 0.0; // of the lane's own keys
#for s in SLICES
    var sum_{r}_{s} = vec4f();
#end
#end
    for (var block = 0u; block < length; block += KEYS) {
#for r in ROWS
        var score_{r} = vec4f();
#end
#for s in SLICES
#for r in ROWS
        left[row_{r} * STRIDE + lane.x] = held(qkv[queries_at + query_{r} * 3u * width + column_{s}]);
#end
        load_block(queries_at + width + column_{s}, block, length, lane);
        workgroupBarrier();
        for (var k = 0u; k < select(0u, min(LANES, HEAD_DIM4 - {s}u * LANES), is_needed); k++) {
#for j in 4
            let key_{j} = vec4f(right[({j}u * LANES + lane.x) * STRIDE + k]);
#end
#for r in ROWS
            let q_{r} = vec4f(left[row_{r} * STRIDE + k]);
            score_{r} += vec4f(dot(q_{r}, key_0), dot(q_{r}, key_1), dot(q_{r}, key_2), dot(q_{r}, key_3));
#end
        }
        if {s}u + 1u < SLICES {
            workgroupBarrier(); // before the next slice takes its place
        }
#end

        let key = block + 4u * lane.x;
        let is_key = vec4u(key, key + 1u, key + 2u, key + 3u) < vec4u(length);
#for r in ROWS
        let biased_{r} = vec4f(
#for j in 4
            with_bias(score_{r}[{j}] * SCALE, head, query_{r}, key + {j}u),
#end
        );
        score_{r} = select(vec4f(LOWEST), biased_{r}, is_key);
        parts[row_{r} * LANES + lane.x] = max(max(score_{r}.x, score_{r}.y), max(score_{r}.z, score_{r}.w));
#end
        workgroupBarrier();
#for r in ROWS
        var new_maximum_{r} = maximum_{r};
        for (var i = 0u; i < LANES; i++) {
            new_maximum_{r} = max(new_maximum_{r}, parts[row_{r} * LANES + i]);
        }
        let shrink_{r} = exp(maximum_{r} - new_maximum_{r});
        maximum_{r} = new_maximum_{r};
        left[row_{r} * STRIDE + lane.x] = held(exp(score_{r} - maximum_{r})); // zero beyond the text
        let weight_{r} = vec4f(left[row_{r} * STRIDE + lane.x]); // as it is multiplied
        total_{r} = total_{r} * shrink_{r} + (weight_{r}.x + weight_{r}.y + weight_{r}.z + weight_{r}.w);
#end
#for s in SLICES
        load_block(queries_at + 2u * width + column_{s}, block, length, lane);
        workgroupBarrier();
#for r in ROWS
        sum_{r}_{s} *= shrink_{r};
#end
        for (var i = 0u; i < select(0u, min(LANES, (length - block + 3u) / 4u), is_needed); i++) {
#for j in 4
            let value_{j} = vec4f(right[({j}u * LANES + i) * STRIDE + lane.x]);
#end
#for r in ROWS
            let w_{r} = vec4f(left[row_{r} * STRIDE + i]);
#for j in 4
            sum_{r}_{s} = fma(vec4f(w_{r}[{j}]), value_{j}, sum_{r}_{s});
#end
#end
        }
        workgroupBarrier();
#end
    }

#for r in ROWS
    parts[row_{r} * LANES + lane.x] = total_{r};
#end
    workgroupBarrier();
#for r in ROWS
    if first_query + {r}u < length {
        var total = 0.0;
        for (var i = 0u; i < LANES; i++) {
            total += parts[row_{r} * LANES + i];
        }
        let context_at = (first + first_query + {r}u) * width + head * HEAD_DIM4;
#for s in SLICES
        if {s}u * LANES + lane.x < HEAD_DIM4 {
            context[context_at + {s}u * LANES + lane.x] = sum_{r}_{s} / total;
        }
#end
    }
#end
}
