// Sums over a workgroup of WORKGROUP lanes, always in the same order.

override WORKGROUP: u32 = 64u;

var<workgroup> partial: array<f32, WORKGROUP>;

fn reduce_sum(value: f32, lane: u32) -> f32 {
    partial[lane] = value;
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    workgroupBarrier();
    let sum = partial[0];
    workgroupBarrier(); // before the next sum overwrites it
    return sum;
}
