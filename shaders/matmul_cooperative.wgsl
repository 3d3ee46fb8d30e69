// As matmul_staged.wgsl, in f16 with f32 sums on the GPU's matrix units: a subgroup computes ROWS x COLUMNS4 fragments of SIZE x SIZE outputs. The
// order of a sum is the unit's own, so the bits are not those of the other forms; but it is the same for every row of every batch.

const TILE_ROWS = ROWS * ROW_GROUPS * SIZE;
const TILE_COLUMNS = COLUMNS4 * LANES * SIZE;
const ALL_LANES = LANES * ROW_GROUPS * SUBGROUP;
const DEPTH4 = DEPTH * SIZE / 4u;
const X_STRIDE = DEPTH * SIZE + 8u; // more than is used: neighbouring rows lie in different banks
const WEIGHT_STRIDE = TILE_COLUMNS + 8u;
const FRAGMENT4 = SIZE * SIZE / 4u;

@group(0) @binding(1) var<storage, read> x: array<vec4f>;              // [rows, INNER4]
@group(0) @binding(2) var<storage, read> weight: array<vec4<f16>>;     // [4 * INNER4, OUTER4]

var<workgroup> x_block: array<f16, TILE_ROWS * X_STRIDE>;
var<workgroup> weight_block: array<f16, 4u * DEPTH4 * WEIGHT_STRIDE>;
var<workgroup> finished: array<f32, LANES * ROW_GROUPS * SIZE * SIZE>;

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

    for (var block = 0u; block < INNER4; block += DEPTH4) {
        // What is beyond an edge is zero along the sum, and otherwise the last there is, which is not written.
        for (var i = index; i < TILE_ROWS * DEPTH4; i += ALL_LANES) {
            let k = block + i % DEPTH4;
            var value = vec4<f16>();
            if k < INNER4 {
                let wide = x[min(first_row + i / DEPTH4, last_row) * INNER4 + k];
                value = vec4<f16>(select(wide, wide * 3.0e38, abs(wide) > vec4f(65504.0))); // as in operands.wgsl
            }
            let at = i / DEPTH4 * X_STRIDE + i % DEPTH4 * 4u;
#for j in 4
            x_block[at + {j}u] = value[{j}];
#end
        }
        for (var i = index; i < DEPTH4 * TILE_COLUMNS; i += ALL_LANES) {
            let k = 4u * block + i / (TILE_COLUMNS / 4u);
            let column = i % (TILE_COLUMNS / 4u);
            var value = vec4<f16>();
            if k < 4u * INNER4 {
                value = weight[k * OUTER4 + min(first_column + column, OUTER4 - 1u)];
            }
            let at = i / (TILE_COLUMNS / 4u) * WEIGHT_STRIDE + 4u * column;
#for j in 4
            weight_block[at + {j}u] = value[{j}];
#end
        }
        workgroupBarrier();
#for d in DEPTH
#for r in ROWS
        let x_{d}_{r} = coopLoadT<coop_matSIZExSIZE<f16, A>>(&x_block[(own_row + {r}u * SIZE) * X_STRIDE + {d}u * SIZE], X_STRIDE);
#end
#for c in COLUMNS4
        let weight_{d}_{c} = coopLoadT<coop_matSIZExSIZE<f16, B>>(&weight_block[{d}u * SIZE * WEIGHT_STRIDE + own_column + {c}u * SIZE], WEIGHT_STRIDE);
#for r in ROWS
        sum_{r}_{c} = coopMultiplyAdd(x_{d}_{r}, weight_{d}_{c}, sum_{r}_{c});
#end
#end
#end
        workgroupBarrier();
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
