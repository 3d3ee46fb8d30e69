// As matmul.wgsl, of weights in eight bits and activations in two halves of eight bits: four products at a time are whole numbers and their sums
// over a group of GROUP exact; then they count times the scales of both. Every output adds up its groups in ascending order, whatever the
// tile.

const GROUP4 = GROUP / 4u;
const GROUP_WORDS = 1u + 2u * GROUP4;

@group(0) @binding(1) var<storage, read> x: array<u32>;            // [rows, groups, GROUP_WORDS], see quantize.wgsl
@group(0) @binding(2) var<storage, read> weight: array<vec4u>;     // [INNER4, OUTER4], each four rows of four columns

fn dots(four: u32, weights: vec4u) -> vec4i {
    return vec4i(dot4I8Packed(four, weights.x), dot4I8Packed(four, weights.y), dot4I8Packed(four, weights.z), dot4I8Packed(four, weights.w));
}

@compute @workgroup_size(LANES, ROW_GROUPS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) lane: vec3u) {
    let first_row = (group.y * ROW_GROUPS + ROW_GROUP_OF_LANE) * ROWS;
    let first_column = group.x * LANES * COLUMNS4 + lane.x; // in vec4; a lane's next column is LANES further
    let last_row = row_count() - 1u;
    if first_row > last_row {
        return;
    }
    let groups = (INNER4 + GROUP4 - 1u) / GROUP4;
    // What is beyond an edge is read as the last row or column there is, and not written.
#for c in COLUMNS4
    let column_{c} = min(first_column + {c}u * LANES, OUTER4 - 1u);
#end
#for l in LOADS
    let load_{l} = min(first_row + {l}u * LOAD_STRIDE + OWN_ROW, last_row) * groups * GROUP_WORDS;
#end
#for r in ROWS
#for c in COLUMNS4
    var sum_{r}_{c} = vec4f();
#end
#end

    for (var block = 0u; block < groups; block++) {
#for r in ROWS
#for c in COLUMNS4
        var half_0_{r}_{c} = vec4i(); // counts 128 times
        var half_1_{r}_{c} = vec4i();
#end
#end
        let begin = block * GROUP4;
        for (var k = begin; k < min(begin + GROUP4, INNER4); k++) {
            let at = block * GROUP_WORDS + 1u + k - begin;
#for c in COLUMNS4
            let weight_{c} = weight[k * OUTER4 + column_{c}];
#end
#for h in 2
            {
#for l in LOADS
                let x_{l} = x[load_{l} + at + {h}u * GROUP4];
#end
#for r in ROWS
                let a_{r} = ROW_{r};
#for c in COLUMNS4
                half_{h}_{r}_{c} += dots(a_{r}, weight_{c});
#end
#end
            }
#end
        }
#for l in LOADS
        let x_{l} = bitcast<f32>(x[load_{l} + block * GROUP_WORDS]);
#end
#for c in COLUMNS4
        let scale_{c} = scale[block * OUTER4 + column_{c}];
#end
#for r in ROWS
        let scale_of_row_{r} = ROW_{r};
#for c in COLUMNS4
        sum_{r}_{c} = fma(scale_of_row_{r} * scale_{c}, vec4f(128 * half_0_{r}_{c} + half_1_{r}_{c}), sum_{r}_{c});
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
