// pooled[texts, hidden] = mean, first token or maximum of each text's rows of x[tokens, hidden], divided by its L2 norm where
// NORMALIZE; one workgroup a text. The mean is over all tokens, specials included, as sentence-transformers takes it.

override HIDDEN: u32;
override POOLING: u32;   // 0 mean, 1 first token, 2 maximum
override NORMALIZE: bool;

@group(0) @binding(0) var<storage, read> offsets: array<Offset>;       // [texts + 1]
@group(0) @binding(1) var<storage, read> x: array<f32>;                // [tokens, HIDDEN padded to a multiple of 4]
@group(0) @binding(2) var<storage, read_write> pooled: array<f32>;     // [texts, HIDDEN]

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let text = group.x;
    let first = offsets[text].token;
    let end = offsets[text + 1u].token;
    let stride = (HIDDEN + 3u) / 4u * 4u;

    var squares = 0.0;
    for (var column = lane; column < HIDDEN; column += WORKGROUP) {
        var value = x[first * stride + column];
        if POOLING != 1u {
            for (var token = first + 1u; token < end; token++) {
                let next = x[token * stride + column];
                value = select(value + next, max(value, next), POOLING == 2u);
            }
        }
        if POOLING == 0u {
            value /= f32(end - first);
        }
        pooled[text * HIDDEN + column] = value;
        squares += value * value;
    }

    if NORMALIZE {
        // As torch.nn.functional.normalize: a row of zeros stays zero.
        let norm = max(sqrt(reduce_sum(squares, lane)), 1e-12);
        for (var column = lane; column < HIDDEN; column += WORKGROUP) {
            pooled[text * HIDDEN + column] /= norm; // each lane reads back only what it wrote itself
        }
    }
}
