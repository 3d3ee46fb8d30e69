// y[rows, outer] = activation(x[rows, inner] * weight + bias) + residual; rows are tokens, texts or selected tokens.
//
// The weight is stored transposed, [inner, outer], so that neighbouring lanes read neighbouring columns. Each lane computes a
// register tile of ROWS x 4 COLUMNS4 outputs; sizes are padded to multiples of 4 with zeros, so no inner loop has an edge. The tile is
// written out (#for): as an array in a loop, drivers keep it in memory once it has more than some 8 rows, which costs a factor of five.
// Every output is one sum over `inner` in ascending order, whatever the tile: a text has the same bits in any batch. It is written as fma, since
// what a driver makes of `a * b + c` may differ from one form to another.

@compute @workgroup_size(LANES, ROW_GROUPS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) lane: vec3u) {
    let first_row = (group.y * ROW_GROUPS + ROW_GROUP_OF_LANE) * ROWS;
    let first_column = group.x * LANES * COLUMNS4 + lane.x; // in vec4; a lane's next column is LANES further
    let last_row = row_count() - 1u;
    if first_row > last_row {
        return;
    }
    // What is beyond an edge is read as the last row or column there is, and not written.
#for c in COLUMNS4
    let column_{c} = min(first_column + {c}u * LANES, OUTER4 - 1u);
#end
#for l in LOADS
    let load_{l} = min(first_row + {l}u * LOAD_STRIDE + OWN_ROW, last_row) * INNER4;
#end
#for r in ROWS
#for c in COLUMNS4
    var sum_{r}_{c} = vec4f();
#end
#end

    for (var k = 0u; k < INNER4; k++) {
#for l in LOADS
        let x_{l} = x_at(load_{l} + k);
#end
#for c in COLUMNS4
#for j in 4
        let weight_{j}_{c} = weight_at(k, {j}u, column_{c});
#end
#end
#for r in ROWS
        let a_{r} = ROW_{r};
#for c in COLUMNS4
        sum_{r}_{c} = fma(vec4f(a_{r}.x), weight_0_{c}, sum_{r}_{c});
        sum_{r}_{c} = fma(vec4f(a_{r}.y), weight_1_{c}, sum_{r}_{c});
        sum_{r}_{c} = fma(vec4f(a_{r}.z), weight_2_{c}, sum_{r}_{c});
        sum_{r}_{c} = fma(vec4f(a_{r}.w), weight_3_{c}, sum_{r}_{c});
#end
#end
    }

#for c in COLUMNS4
    let bias_{c} = bias[column_{c}];
#end
#for r in ROWS
#for c in COLUMNS4
    store(first_row + {r}u, last_row, first_column + {c}u * LANES, sum_{r}_{c}, bias_{c});
#end
#end
}
