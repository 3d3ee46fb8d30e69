// logits[selected, vocabulary] = x[selected, width] * transpose(word[vocabulary, width]) + bias: the table of word embeddings is read
// as it lies, a row a lane. A table in several parts (see embedding.wgsl) takes a dispatch for each.

struct Part {
    first: u32,
    rows: u32,
}

override WIDTH4: u32;
override VOCABULARY: u32;

@group(0) @binding(0) var<uniform> batch: Header;
@group(0) @binding(1) var<uniform> part: Part;
@group(0) @binding(2) var<storage, read> x: array<vec4f>;             // [selected, WIDTH4]
@group(0) @binding(3) var<storage, read> word: array<Packed>;         // [part.rows, WIDTH4], each row behind its scale where SCALED
@group(0) @binding(4) var<storage, read> bias: array<f32>;            // [VOCABULARY]
@group(0) @binding(5) var<storage, read_write> logits: array<f32>;    // [selected, VOCABULARY]

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = group.x * LANES + lane;
    let first = group.y * ROWS;
    let last = batch.selected - 1u;
    if row >= part.rows || first > last {
        return;
    }
    let word_row = row * (WIDTH4 + u32(SCALED));
    var sums: array<f32, ROWS>;
    for (var k = 0u; k < WIDTH4; k++) {
        let w = unpack(word[word_row + u32(SCALED) + k]);
        for (var r = 0u; r < ROWS; r++) {
            sums[r] += dot(w, x[min(first + r, last) * WIDTH4 + k]);
        }
    }
    let scale = scale_of(word[word_row]);
    for (var r = 0u; r < ROWS; r++) {
        if first + r <= last {
            logits[(first + r) * VOCABULARY + part.first + row] = sums[r] * scale + bias[part.first + row];
        }
    }
}
