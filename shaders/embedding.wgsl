// y[tokens, hidden] = layer norm of word[id] + position[position] + token_type[type]; one workgroup a token.
//
// A vocabulary that is larger than one binding may be is split over several buffers, each with a dispatch of its own: a workgroup
// whose token is in another part ends at once.

struct Part {
    first: u32, // the first id that this part holds
    rows: u32,
}

@group(0) @binding(0) var<uniform> part: Part;
@group(0) @binding(1) var<storage, read> ids: array<u32>;           // [tokens]
@group(0) @binding(2) var<storage, read> places: array<u32>;        // [tokens]: position | type << 24
@group(0) @binding(3) var<storage, read> word: array<Packed>;       // [part.rows, HIDDEN4], each row behind its scale where SCALED
@group(0) @binding(4) var<storage, read> position: array<vec4f>;    // [positions, HIDDEN4]
@group(0) @binding(5) var<storage, read> token_type: array<vec4f>;  // [types, HIDDEN4]

fn row_value(row: u32, column: u32) -> vec4f {
    let id = ids[row] - part.first;
    let place = places[row];
    let word_row = id * (hidden4() + u32(SCALED));
    let value = unpack(word[word_row + u32(SCALED) + column]) * scale_of(word[word_row]);
    return value
        + position[(place & 0xffffffu) * hidden4() + column]
        + token_type[(place >> 24u) * hidden4() + column];
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    // Wraps around for ids below `first`, so one comparison tells both sides.
    if ids[group.x] - part.first < part.rows {
        layer_norm(group.x, lane);
    }
}
