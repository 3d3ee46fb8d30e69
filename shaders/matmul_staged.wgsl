// As matmul.wgsl, through workgroup memory: all lanes load a block of x and of the weight, DEPTH4 * 4 deep, and then each multiplies its own
// register tile of ROWS x 4 COLUMNS4 outputs from there. Sums have the same order as in matmul.wgsl, so they have the same bits.
//
// NOW, a block is loaded when it is its turn. AHEAD, its loads are under way while the lanes compute with the one before, and there are two BLOCKS,
// used in turns: no lane writes what another still reads, since who has passed a barrier is done with the block before the last.

const TILE_ROWS = ROWS * ROW_GROUPS;
const TILE_COLUMNS4 = COLUMNS4 * LANES;
const ALL_LANES = LANES * ROW_GROUPS;
const X_BLOCK = TILE_ROWS * ROW_STRIDE;
const WEIGHT_BLOCK = 4u * DEPTH4 * TILE_COLUMNS4;

var<workgroup> x_block: array<vec4f, BLOCKS * X_BLOCK>;
var<workgroup> weight_block: array<vec4f, BLOCKS * WEIGHT_BLOCK>;

// A lane's part of a block, as it lies in the buffers: to make numbers of it is to wait for it.
struct Loaded {
#for l in X_LOADS
    x_{l}: vec4f,
#end
#for l in WEIGHT_LOADS
    weight_{l}: Stored,
#end
}

// What is beyond an edge is read as the last there is, and not used or not written.
fn inner_of(i: u32, block: u32) -> u32 {
    return min(4u * block + i / TILE_COLUMNS4, 4u * INNER4 - 1u);
}

fn column_of(i: u32, first_column: u32) -> u32 {
    return min(first_column + i % TILE_COLUMNS4, OUTER4 - 1u);
}

fn load(index: u32, block: u32, first_row: u32, last_row: u32, first_column: u32) -> Loaded {
    var loaded: Loaded;
#for l in X_LOADS
    let x_{l} = index + {l}u * ALL_LANES;
    loaded.x_{l} = x[min(first_row + x_{l} / DEPTH4, last_row) * INNER4 + min(block + x_{l} % DEPTH4, INNER4 - 1u)];
#end
#for l in WEIGHT_LOADS
    let weight_{l} = index + {l}u * ALL_LANES;
    let k_{l} = inner_of(weight_{l}, block);
    loaded.weight_{l} = stored_at(k_{l} / 4u, k_{l} % 4u, column_of(weight_{l}, first_column));
#end
    return loaded;
}

fn keep(loaded: Loaded, index: u32, block: u32, turn: u32, first_column: u32) {
#for l in X_LOADS
    let x_{l} = index + {l}u * ALL_LANES;
    x_block[turn * X_BLOCK + x_{l} / DEPTH4 * ROW_STRIDE + x_{l} % DEPTH4] = x_of(loaded.x_{l});
#end
#for l in WEIGHT_LOADS
    let weight_{l} = index + {l}u * ALL_LANES;
    let k_{l} = inner_of(weight_{l}, block);
    weight_block[turn * WEIGHT_BLOCK + weight_{l}] = weight_of(loaded.weight_{l}, k_{l} / 4u, k_{l} % 4u, column_of(weight_{l}, first_column));
#end
}

@compute @workgroup_size(LANES, ROW_GROUPS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) lane: vec3u, @builtin(local_invocation_index) index: u32) {
    let first_row = group.y * TILE_ROWS; // a lane's next row is ROW_GROUPS further
    let first_column = group.x * TILE_COLUMNS4;
    let last_row = row_count() - 1u;
#for r in ROWS
#for c in COLUMNS4
    var sum_{r}_{c} = vec4f();
#end
#end

#for ahead in AHEAD
    var loaded = load(index, 0u, first_row, last_row, first_column);
#end
    for (var block = 0u; block < INNER4; block += DEPTH4) {
        let depth = min(DEPTH4, INNER4 - block);
        let turn = block / DEPTH4 % BLOCKS;
#for now in NOW
        let loaded = load(index, block, first_row, last_row, first_column);
#end
        keep(loaded, index, block, turn, first_column);
        workgroupBarrier();
#for ahead in AHEAD
        if block + DEPTH4 < INNER4 {
            loaded = load(index, block + DEPTH4, first_row, last_row, first_column);
        }
#end
        let x_from = turn * X_BLOCK + lane.y * ROW_STRIDE;
        let weight_from = turn * WEIGHT_BLOCK + lane.x;
        for (var k = 0u; k < depth; k++) {
#for c in COLUMNS4
#for j in 4
            let weight_{j}_{c} = weight_block[weight_from + (4u * k + {j}u) * TILE_COLUMNS4 + {c}u * LANES];
#end
#end
#for r in ROWS
            let a_{r} = x_block[x_from + {r}u * ROW_GROUPS * ROW_STRIDE + k];
#for c in COLUMNS4
            sum_{r}_{c} = fma(vec4f(a_{r}.x), weight_0_{c}, sum_{r}_{c});
            sum_{r}_{c} = fma(vec4f(a_{r}.y), weight_1_{c}, sum_{r}_{c});
            sum_{r}_{c} = fma(vec4f(a_{r}.z), weight_2_{c}, sum_{r}_{c});
            sum_{r}_{c} = fma(vec4f(a_{r}.w), weight_3_{c}, sum_{r}_{c});
#end
#end
        }
#for now in NOW
        workgroupBarrier();
#end
    }

#for c in COLUMNS4
    let column_{c} = first_column + {c}u * LANES + lane.x;
    let bias_{c} = bias[min(column_{c}, OUTER4 - 1u)];
#end
#for r in ROWS
#for c in COLUMNS4
    store(first_row + {r}u * ROW_GROUPS + lane.y, last_row, column_{c}, sum_{r}_{c}, bias_{c});
#end
#end
}
