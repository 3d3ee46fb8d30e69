// Sums over a workgroup that is one subgroup: no barrier, no memory.

override WORKGROUP: u32 = 64u; // lanes of a subgroup

fn reduce_sum(value: f32, lane: u32) -> f32 {
    return subgroupAdd(value);
}
