// y[rows, hidden] = layer norm of x[rows, hidden]; one workgroup a row.

@group(0) @binding(0) var<storage, read> x: array<vec4f>; // [rows, HIDDEN4]

fn row_value(row: u32, column: u32) -> vec4f {
    return x[row * hidden4() + column];
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    layer_norm(group.x, lane);
}
