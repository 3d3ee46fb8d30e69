// y[selected, width] = the selected rows of x[tokens, width]; one workgroup a row.

override WIDTH4: u32;

@group(0) @binding(0) var<storage, read> selected: array<u32>;       // [selected], which token
@group(0) @binding(1) var<storage, read> x: array<vec4f>;            // [tokens, WIDTH4]
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;      // [selected, WIDTH4]

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let token = selected[group.x];
    for (var i = lane; i < WIDTH4; i += WORKGROUP) {
        y[group.x * WIDTH4 + i] = x[token * WIDTH4 + i];
    }
}
