// As attention_staged.wgsl, in f16 with f32 sums on the GPU's matrix units: a subgroup takes SIZE queries, a workgroup ROW_GROUPS subgroups, which
// share blocks of KEYS keys or values. A fragment's numbers cannot be scaled row by row, so the running maximum of a softmax in one pass is of no
// use: a first pass over the keys finds each row's maximum, a second computes the scores of all blocks but the last again.
//
// The order of every sum depends on the text alone, and within a fragment on the unit.

const QUERIES = ROW_GROUPS * SIZE;
const PARTS = TILE / QUERIES; // workgroups of a tile
const KEYS = COLUMNS * SIZE;
const ALL_LANES = ROW_GROUPS * SUBGROUP;
const DEPTH4 = SLICES * SIZE / 4u; // a head's numbers, and zeros up to whole fragments
// More than is used: neighbouring rows lie in different banks.
const STRIDE = 4u * DEPTH4 + 8u;
const WEIGHT_STRIDE = KEYS + 8u;
const SCORE_STRIDE = KEYS + 4u;
// The softmax of a row is shared by as many lanes, or a lane has several rows.
const ROW_LANES = max(SUBGROUP / SIZE, 1u);

var<workgroup> queries: array<f16, QUERIES * STRIDE>;
var<workgroup> block_rows: array<f16, KEYS * STRIDE>;        // a block of keys, or of values
var<workgroup> scores: array<f32, QUERIES * SCORE_STRIDE>;   // of a block, at the end a fragment of the context
var<workgroup> weights: array<f16, QUERIES * WEIGHT_STRIDE>; // of a block
var<workgroup> parts: array<f32, QUERIES * ROW_LANES>;       // each lane's maximum of a row, at the end its total

// KEYS rows of keys or values from the block's first on, of which those beyond the text are its last again: their weight is zero.
fn load_block(at: u32, block: u32, length: u32, index: u32) {
    for (var i = index; i < KEYS * DEPTH4; i += ALL_LANES) {
        let d = i % DEPTH4;
        var value = Held();
        if d < HEAD_DIM4 {
            value = held(qkv[at + min(block + i / DEPTH4, length - 1u) * 3u * HEADS * HEAD_DIM4 + d]);
        }
#for j in 4
        block_rows[i / DEPTH4 * STRIDE + 4u * d + {j}u] = value[{j}];
#end
    }
}

// The scores of a subgroup's queries, of which the first is `own`, with the block of keys that is loaded.
fn multiply(own: u32) {
    for (var c = 0u; c < COLUMNS; c++) {
        var score = coop_matSIZExSIZE<f32, C>();
#for s in SLICES
        let query_{s} = coopLoadT<coop_matSIZExSIZE<f16, A>>(&queries[own * STRIDE + {s}u * SIZE], STRIDE);
        // Keys are the columns of the second factor: read down rather than across.
        let key_{s} = coopLoad<coop_matSIZExSIZE<f16, B>>(&block_rows[c * SIZE * STRIDE + {s}u * SIZE], STRIDE);
        score = coopMultiplyAdd(query_{s}, key_{s}, score);
#end
        coopStoreT(score, &scores[own * SCORE_STRIDE + c * SIZE], SCORE_STRIDE);
    }
}

@compute @workgroup_size(ALL_LANES)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let head = group.y / PARTS;
    let text = text_of_tile(group.x);
    let first = offsets[text].token;
    let length = offsets[text + 1u].token - first;
    let first_query = (group.x - offsets[text].tile) * TILE + group.y % PARTS * QUERIES;
    // None where the text ends in an earlier part of its tile: fragments do not allow to return before them.
    let blocks = select((length + KEYS - 1u) / KEYS, 0u, first_query >= length);

    let width = HEADS * HEAD_DIM4;
    let queries_at = first * 3u * width + head * HEAD_DIM4;
    for (var i = index; i < QUERIES * DEPTH4; i += ALL_LANES) {
        let d = i % DEPTH4;
        var value = Held();
        if d < HEAD_DIM4 {
            value = held(qkv[queries_at + min(first_query + i / DEPTH4, length - 1u) * 3u * width + d]);
        }
#for j in 4
        queries[i / DEPTH4 * STRIDE + 4u * d + {j}u] = value[{j}];
#end
    }
    let own = subgroup * SIZE; // the subgroup's first row
    let part = lane % ROW_LANES;
#for r in LANE_ROWS
    let row_{r} = own + lane / ROW_LANES + {r}u * SUBGROUP;
    var maximum_{r} = LOWEST;
    var total_{r} = 0.0; // of the lane's own keys
#end
#for s in SLICES
    var sum_{s} = coop_matSIZExSIZE<f32, C>();
#end

    for (var i = 0u; i < blocks; i++) {
        load_block(queries_at + width, i * KEYS, length, index);
        workgroupBarrier();
        multiply(own);
        workgroupBarrier();
#for r in LANE_ROWS
        for (var k = part; k < min(KEYS, length - i * KEYS); k += ROW_LANES) {
            let score = with_bias(scores[row_{r} * SCORE_STRIDE + k] * SCALE, head, first_query + row_{r}, i * KEYS + k);
            maximum_{r} = max(maximum_{r}, score);
        }
#end
    }
#for r in LANE_ROWS
    parts[row_{r} * ROW_LANES + part] = maximum_{r};
#end
    workgroupBarrier();
#for r in LANE_ROWS
    for (var i = 0u; i < ROW_LANES; i++) {
        maximum_{r} = max(maximum_{r}, parts[row_{r} * ROW_LANES + i]);
    }
#end

    // The last block's scores are there already, so the blocks are taken from the last to the first.
    for (var i = blocks; i > 0u;) {
        i--;
        load_block(queries_at + 2u * width, i * KEYS, length, index);
#for r in LANE_ROWS
        for (var k = part; k < KEYS; k += ROW_LANES) {
            var weight = 0.0h;
            if i * KEYS + k < length {
                let score = with_bias(scores[row_{r} * SCORE_STRIDE + k] * SCALE, head, first_query + row_{r}, i * KEYS + k);
                weight = f16(exp(score - maximum_{r}));
            }
            weights[row_{r} * WEIGHT_STRIDE + k] = weight;
            total_{r} += f32(weight); // as it is multiplied
        }
#end
        workgroupBarrier();
        for (var c = 0u; c < COLUMNS; c++) {
            let weight = coopLoadT<coop_matSIZExSIZE<f16, A>>(&weights[own * WEIGHT_STRIDE + c * SIZE], WEIGHT_STRIDE);
#for s in SLICES
            let value_{s} = coopLoadT<coop_matSIZExSIZE<f16, B>>(&block_rows[c * SIZE * STRIDE + {s}u * SIZE], STRIDE);
            sum_{s} = coopMultiplyAdd(weight, value_{s}, sum_{s});
#end
        }
        if i == 0u {
            break;
        }
        workgroupBarrier();
        load_block(queries_at + width, (i - 1u) * KEYS, length, index);
        workgroupBarrier();
        multiply(own);
        workgroupBarrier();
    }

#for r in LANE_ROWS
    parts[row_{r} * ROW_LANES + part] = total_{r};
#end
#for s in SLICES
    coopStoreT(sum_{s}, &scores[own * SCORE_STRIDE], SCORE_STRIDE);
    workgroupBarrier();
    for (var i = lane; i < SIZE * SIZE / 4u; i += SUBGROUP) {
        let row = own + 4u * i / SIZE;
        let d = {s}u * SIZE / 4u + i % (SIZE / 4u);
        if first_query + row < length && d < HEAD_DIM4 {
            var total = 0.0;
            for (var j = 0u; j < ROW_LANES; j++) {
                total += parts[row * ROW_LANES + j];
            }
            let at = row * SCORE_STRIDE + 4u * i % SIZE;
            let sum = vec4f(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
            context[(first + first_query + row) * width + head * HEAD_DIM4 + d] = sum / total;
        }
    }
    workgroupBarrier();
#end
}
