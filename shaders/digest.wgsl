// y[blocks, 2] = the low and the high half of the sum over a block of x, each word folded and weighted by its place; one workgroup a block.

const WEIGHT: u32 = 0x3c6ef372u; // even, so that no word's weight is

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;   // [blocks, 2], whole numbers

var<workgroup> sums: array<u32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let end = min((group.x + 1u) * BLOCK, arrayLength(&x));
    var sum = 0u;
    for (var i = group.x * BLOCK + lane; i < end; i += WORKGROUP) {
        let word = x[i];
        sum += (word ^ (word >> 16u)) * (i * WEIGHT + 1u);
    }
    sums[lane] = sum;
    workgroupBarrier();
    if lane == 0u {
        for (var other = 1u; other < WORKGROUP; other++) {
            sum += sums[other];
        }
        y[2u * group.x] = f32(sum & 0xffffu);
        y[2u * group.x + 1u] = f32(sum >> 16u);
    }
}
