// y = (v - mean) / sqrt(variance + EPSILON) * weight + bias over one row, where v = row_value(row, column) comes from the kernel
// that includes this. Two passes: the variance of differences from the mean loses nothing when the mean is large.

override HIDDEN: u32;                // columns that count; the rest up to a multiple of 4 is zero and stays zero
override EPSILON: f32;

@group(0) @binding(10) var<storage, read> weight: array<vec4f>;        // [HIDDEN4], zero beyond HIDDEN
@group(0) @binding(11) var<storage, read> bias: array<vec4f>;          // [HIDDEN4], zero beyond HIDDEN
@group(0) @binding(12) var<storage, read_write> y: array<vec4f>;       // [rows, HIDDEN4]

fn hidden4() -> u32 {
    return (HIDDEN + 3u) / 4u;
}

fn layer_norm(row: u32, lane: u32) {
    var sum = 0.0;
    for (var i = lane; i < hidden4(); i += WORKGROUP) {
        sum += dot(row_value(row, i), vec4f(1.0));
    }
    let mean = reduce_sum(sum, lane) / f32(HIDDEN);

    var squares = 0.0;
    for (var i = lane; i < hidden4(); i += WORKGROUP) {
        let counts = vec4u(4u * i) + vec4u(0u, 1u, 2u, 3u) < vec4u(HIDDEN);
        let difference = select(vec4f(), row_value(row, i) - mean, counts);
        squares += dot(difference, difference);
    }
    let scale = inverseSqrt(reduce_sum(squares, lane) / f32(HIDDEN) + EPSILON);

    for (var i = lane; i < hidden4(); i += WORKGROUP) {
        y[row * hidden4() + i] = (row_value(row, i) - mean) * scale * weight[i] + bias[i];
    }
}
