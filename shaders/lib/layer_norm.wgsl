// y = (v - mean) / sqrt(variance + EPSILON) * weight + bias over one row, where v = row_value(row, column) comes from the kernel
// that includes this. Two passes: the variance of differences from the mean loses nothing when the mean is large. Each lane keeps its
// PER_LANE columns in registers, so that the row is read once.

override HIDDEN: u32;                // columns that count; the rest up to a multiple of 4 is zero and stays zero
override EPSILON: f32;

@group(0) @binding(10) var<storage, read> weight: array<vec4f>;        // [HIDDEN4], zero beyond HIDDEN
@group(0) @binding(11) var<storage, read> bias: array<vec4f>;          // [HIDDEN4], zero beyond HIDDEN
@group(0) @binding(12) var<storage, read_write> y: array<vec4f>;       // [rows, HIDDEN4]

fn hidden4() -> u32 {
    return (HIDDEN + 3u) / 4u;
}

// Which numbers of a column of four count.
fn counts(column: u32) -> vec4<bool> {
    return vec4u(4u * column) + vec4u(0u, 1u, 2u, 3u) < vec4u(HIDDEN);
}

fn layer_norm(row: u32, lane: u32) {
    var sum = 0.0;
#for i in PER_LANE
    let column_{i} = {i}u * WORKGROUP + lane;
    let value_{i} = row_value(row, min(column_{i}, hidden4() - 1u));
    sum += dot(select(vec4f(), value_{i}, counts(column_{i})), vec4f(1.0));
#end
    let mean = reduce_sum(sum, lane) / f32(HIDDEN);

    var squares = 0.0;
#for i in PER_LANE
    let difference_{i} = select(vec4f(), value_{i} - mean, counts(column_{i}));
    squares += dot(difference_{i}, difference_{i});
#end
    let scale = inverseSqrt(reduce_sum(squares, lane) / f32(HIDDEN) + EPSILON);

#for i in PER_LANE
    if column_{i} < hidden4() {
        y[row * hidden4() + column_{i}] = difference_{i} * scale * weight[column_{i}] + bias[column_{i}];
    }
#end
}
