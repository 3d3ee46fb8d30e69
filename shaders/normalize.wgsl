// y[rows, COLUMNS] = the first columns of x[rows, ..] divided by their L2 norm; one workgroup a row.

override COLUMNS: u32;
override X_STRIDE: u32;
override Y_STRIDE: u32; // zeros beyond COLUMNS

@group(0) @binding(0) var<storage, read> x: array<f32>;         // [rows, X_STRIDE]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;   // [rows, Y_STRIDE]

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    var squares = 0.0;
    for (var column = lane; column < COLUMNS; column += WORKGROUP) {
        let value = x[group.x * X_STRIDE + column];
        squares += value * value;
    }
    // As torch.nn.functional.normalize: a row of zeros stays zero.
    let norm = max(sqrt(reduce_sum(squares, lane)), 1e-12);
    for (var column = lane; column < Y_STRIDE; column += WORKGROUP) {
        var value = 0.0;
        if column < COLUMNS {
            value = x[group.x * X_STRIDE + column] / norm;
        }
        y[group.x * Y_STRIDE + column] = value;
    }
}
