// As matmul_staged.wgsl, in f16 with f32 sums on the GPU's matrix units: a subgroup computes ROWS x COLUMNS4 fragments of SIZE x SIZE outputs. The
// order of a sum is the unit's own, so the bits are not those of the other forms; but it is the same for every row of every batch. NOW and AHEAD are
// as in matmul_staged.wgsl.

const TILE_ROWS = ROWS * ROW_GROUPS * SIZE;
const TILE_COLUMNS = COLUMNS4 * LANES * SIZE;
const ALL_LANES = LANES * ROW_GROUPS * SUBGROUP;
const DEPTH4 = DEPTH * SIZE / 4u;
const X_STRIDE = DEPTH * SIZE + 8u; // more than is used: neighbouring rows lie in different banks
const WEIGHT_STRIDE = TILE_COLUMNS + 8u;
const X_BLOCK = TILE_ROWS * X_STRIDE;
const WEIGHT_BLOCK = 4u * DEPTH4 * WEIGHT_STRIDE;
const X_VECTORS = TILE_ROWS * DEPTH4;
const WEIGHT_VECTORS = DEPTH4 * TILE_COLUMNS;
const X_EXACT = X_VECTORS % ALL_LANES == 0u; // all lanes load as many
const WEIGHT_EXACT = WEIGHT_VECTORS % ALL_LANES == 0u;
const FRAGMENT4 = SIZE * SIZE / 4u;

@group(0) @binding(1) var<storage, read> x: array<vec4f>;              // [rows, INNER4]
@group(0) @binding(2) var<storage, read> weight: array<vec4<f16>>;     // [4 * INNER4, OUTER4]

var<workgroup> x_block: array<f16, BLOCKS * X_BLOCK>;
var<workgroup> weight_block: array<f16, BLOCKS * WEIGHT_BLOCK>;
var<workgroup> finished: array<f32, LANES * ROW_GROUPS * SIZE * SIZE>;

struct Loaded {
#for l in X_LOADS
    x_{l}: vec4f,
#end
#for l in WEIGHT_LOADS
    weight_{l}: vec4<f16>,
#end
}

// What is beyond an edge is read as the last there is, which is not written; along the sum it is of x zero. An `if` for each load would halve the
// speed of lavapipe.
fn load(index: u32, block: u32, first_row: u32, last_row: u32, first_column: u32) -> Loaded {
    var loaded: Loaded;
#for l in X_LOADS
    let x_{l} = index + {l}u * ALL_LANES;
    let depth_{l} = block + x_{l} % DEPTH4;
    let number_{l} = x[min(first_row + x_{l} / DEPTH4, last_row) * INNER4 + min(depth_{l}, INNER4 - 1u)];
    loaded.x_{l} = select(vec4f(), number_{l}, depth_{l} < INNER4);
#end
#for l in WEIGHT_LOADS
    let weight_{l} = index + {l}u * ALL_LANES;
    let k_{l} = 4u * block + weight_{l} / (TILE_COLUMNS / 4u);
    let column_{l} = min(first_column + weight_{l} % (TILE_COLUMNS / 4u), OUTER4 - 1u);
    loaded.weight_{l} = weight[min(k_{l}, 4u * INNER4 - 1u) * OUTER4 + column_{l}];
#end
    return loaded;
}

fn keep(loaded: Loaded, index: u32, turn: u32) {
#for l in X_LOADS
    let x_{l} = index + {l}u * ALL_LANES;
    if X_EXACT || x_{l} < X_VECTORS {
        let value = vec4<f16>(select(loaded.x_{l}, loaded.x_{l} * 3.0e38, abs(loaded.x_{l}) > vec4f(65504.0))); // as in operands.wgsl
        let at = turn * X_BLOCK + x_{l} / DEPTH4 * X_STRIDE + x_{l} % DEPTH4 * 4u;
#for j in 4
        x_block[at + {j}u] = value[{j}];
#end
    }
#end
#for l in WEIGHT_LOADS
    let weight_{l} = index + {l}u * ALL_LANES;
    if WEIGHT_EXACT || weight_{l} < WEIGHT_VECTORS {
        let at = turn * WEIGHT_BLOCK + weight_{l} / (TILE_COLUMNS / 4u) * WEIGHT_STRIDE + weight_{l} % (TILE_COLUMNS / 4u) * 4u;
#for j in 4
        weight_block[at + {j}u] = loaded.weight_{l}[{j}];
#end
    }
#end
}

@compute @workgroup_size(ALL_LANES)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let first_row = group.y * TILE_ROWS;
    let first_column = group.x * TILE_COLUMNS / 4u;
    let last_row = row_count() - 1u;
    let own_row = subgroup / LANES * ROWS * SIZE;
    let own_column = subgroup % LANES * COLUMNS4 * SIZE;
#for r in ROWS
#for c in COLUMNS4
    var sum_{r}_{c} = coop_matSIZExSIZE<f32, C>();
#end
#end

#for ahead in AHEAD
    var loaded = load(index, 0u, first_row, last_row, first_column);
#end
    for (var block = 0u; block < INNER4; block += DEPTH4) {
        let turn = block / DEPTH4 % BLOCKS;
#for now in NOW
        let loaded = load(index, block, first_row, last_row, first_column);
#end
        keep(loaded, index, turn);
        workgroupBarrier();
#for ahead in AHEAD
        if block + DEPTH4 < INNER4 {
            loaded = load(index, block + DEPTH4, first_row, last_row, first_column);
        }
#end
        let x_from = turn * X_BLOCK + own_row * X_STRIDE;
        let weight_from = turn * WEIGHT_BLOCK + own_column;
#for d in DEPTH
#for r in ROWS
        let x_{d}_{r} = coopLoadT<coop_matSIZExSIZE<f16, A>>(&x_block[x_from + {r}u * SIZE * X_STRIDE + {d}u * SIZE], X_STRIDE);
#end
#for c in COLUMNS4
        let weight_{d}_{c} = coopLoadT<coop_matSIZExSIZE<f16, B>>(&weight_block[weight_from + {d}u * SIZE * WEIGHT_STRIDE + {c}u * SIZE], WEIGHT_STRIDE);
#for r in ROWS
        sum_{r}_{c} = coopMultiplyAdd(x_{d}_{r}, weight_{d}_{c}, sum_{r}_{c});
#end
#end
#end
#for now in NOW
        workgroupBarrier();
#end
    }

    let own = subgroup * SIZE * SIZE;
#for r in ROWS
#for c in COLUMNS4
    coopStoreT(sum_{r}_{c}, &finished[own], SIZE);
    workgroupBarrier();
    for (var i = lane; i < FRAGMENT4; i += SUBGROUP) {
        let at = own + 4u * i;
        let sum = vec4f(finished[at], finished[at + 1u], finished[at + 2u], finished[at + 3u]);
        let row = own_row + {r}u * SIZE + 4u * i / SIZE;
        let column = first_column + (own_column + {c}u * SIZE + 4u * i % SIZE) / 4u;
        store(first_row + row, last_row, column, sum, bias[min(column, OUTER4 - 1u)]);
    }
    workgroupBarrier();
#end
#end
}
