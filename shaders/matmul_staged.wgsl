// As matmul.wgsl, through workgroup memory: all lanes load a block of x and of the weight, DEPTH4 * 4 deep, and then each multiplies its own
// register tile of ROWS x 4 COLUMNS4 outputs from there. Sums have the same order as in matmul.wgsl, so they have the same bits.

const TILE_ROWS = ROWS * ROW_GROUPS;
const TILE_COLUMNS4 = COLUMNS4 * LANES;
const ALL_LANES = LANES * ROW_GROUPS;
const ROW_STRIDE = DEPTH4 + 1u; // one more than is used: neighbouring rows lie in different banks

var<workgroup> x_block: array<vec4f, TILE_ROWS * ROW_STRIDE>;
var<workgroup> weight_block: array<vec4f, 4u * DEPTH4 * TILE_COLUMNS4>;

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

    for (var block = 0u; block < INNER4; block += DEPTH4) {
        let depth = min(DEPTH4, INNER4 - block);
        // What is beyond an edge is read as the last there is, and not used or not written.
        for (var i = index; i < TILE_ROWS * DEPTH4; i += ALL_LANES) {
            let row = min(first_row + i / DEPTH4, last_row);
            x_block[i / DEPTH4 * ROW_STRIDE + i % DEPTH4] = x_at(row * INNER4 + min(block + i % DEPTH4, INNER4 - 1u));
        }
        for (var i = index; i < 4u * DEPTH4 * TILE_COLUMNS4; i += ALL_LANES) {
            let k = min(4u * block + i / TILE_COLUMNS4, 4u * INNER4 - 1u);
            weight_block[i] = weight_at(k / 4u, k % 4u, min(first_column + i % TILE_COLUMNS4, OUTER4 - 1u));
        }
        workgroupBarrier();
        for (var k = 0u; k < depth; k++) {
#for c in COLUMNS4
#for j in 4
            let weight_{j}_{c} = weight_block[(4u * k + {j}u) * TILE_COLUMNS4 + {c}u * LANES + lane.x];
#end
#end
#for r in ROWS
            let a_{r} = x_block[({r}u * ROW_GROUPS + lane.y) * ROW_STRIDE + k];
#for c in COLUMNS4
            sum_{r}_{c} = fma(vec4f(a_{r}.x), weight_0_{c}, sum_{r}_{c});
            sum_{r}_{c} = fma(vec4f(a_{r}.y), weight_1_{c}, sum_{r}_{c});
            sum_{r}_{c} = fma(vec4f(a_{r}.z), weight_2_{c}, sum_{r}_{c});
            sum_{r}_{c} = fma(vec4f(a_{r}.w), weight_3_{c}, sum_{r}_{c});
#end
#end
        }
        workgroupBarrier();
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
