// y[rows, groups, 1 + 2 * GROUP / 4] = each GROUP numbers of x[rows, inner] as a scale, and whole numbers that count times it in two halves of
// eight bits: those that count 128 times first, then the rest. One lane a group.

override INNER4: u32;

const GROUP4 = GROUP / 4u;
const MOST = 16256.0; // 127 * 128

@group(0) @binding(0) var<uniform> batch: Header;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;          // [rows, INNER4]
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

fn x_at(row: u32, column: u32) -> vec4f {
    if column >= INNER4 {
        return vec4f();
    }
    return x[row * INNER4 + column];
}

@compute @workgroup_size(LANES, LANES)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let groups = (INNER4 + GROUP4 - 1u) / GROUP4;
    if id.x >= groups || id.y >= row_count() {
        return;
    }
    var largest = 0.0;
    var total = 0.0;
    for (var i = 0u; i < GROUP4; i++) {
        let value = x_at(id.y, id.x * GROUP4 + i);
        let size = abs(value);
        largest = max(largest, max(max(size.x, size.y), max(size.z, size.w)));
        total += dot(value, vec4f(1.0));
    }
    let inverse = select(0.0, MOST / largest, largest > 0.0);
    let at = (id.y * groups + id.x) * (1u + 2u * GROUP4);
    // What is no number has no place in eight bits: the scale carries it on. By its bits, since drivers may take numbers for finite.
    let finite = (bitcast<u32>(total) & 0x7f800000u) != 0x7f800000u;
    y[at] = bitcast<u32>(select(total, largest / MOST, finite));
    for (var i = 0u; i < GROUP4; i++) {
        let whole = round(x_at(id.y, id.x * GROUP4 + i) * inverse);
        let upper = round(whole / 128.0);
        y[at + 1u + i] = pack4xI8Clamp(vec4i(upper));
        y[at + 1u + GROUP4 + i] = pack4xI8Clamp(vec4i(whole - 128.0 * upper));
    }
}
