// pooled[texts, STRIDE] = each text's rows of x[tokens, hidden] as one row, from COLUMN on; one workgroup a text. All tokens count,
// specials included, as in sentence-transformers.

override HIDDEN: u32;
override POOLING: u32;   // the numbers are those of `kernels::pooling::code`
override STRIDE: u32;
override COLUMN: u32;
override WIDTH: u32;     // columns to write: zeros beyond HIDDEN

@group(0) @binding(0) var<storage, read> offsets: array<Offset>;       // [texts + 1]
@group(0) @binding(1) var<storage, read> x: array<f32>;                // [tokens, HIDDEN padded to a multiple of 4]
@group(0) @binding(2) var<storage, read_write> pooled: array<f32>;     // [texts, STRIDE]

const CLS = 1u;
const MAX = 2u;
const MEAN_SQRT_LEN = 3u;
const WEIGHTED_MEAN = 4u;
const LAST_TOKEN = 5u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let text = group.x;
    let first = offsets[text].token;
    let length = offsets[text + 1u].token - first;
    let stride = (HIDDEN + 3u) / 4u * 4u;

    for (var column = lane; column < WIDTH; column += WORKGROUP) {
        var value = 0.0;
        if column < HIDDEN {
            value = x[(first + select(0u, length - 1u, POOLING == LAST_TOKEN)) * stride + column];
            if POOLING != CLS && POOLING != LAST_TOKEN {
                for (var i = 1u; i < length; i++) {
                    let next = x[(first + i) * stride + column];
                    let weight = select(1.0, f32(i + 1u), POOLING == WEIGHTED_MEAN);
                    value = select(value + next * weight, max(value, next), POOLING == MAX);
                }
            }
            switch POOLING {
                case CLS, MAX, LAST_TOKEN: {}
                case MEAN_SQRT_LEN: { value /= sqrt(f32(length)); }
                case WEIGHTED_MEAN: { value /= f32(length) * f32(length + 1u) * 0.5; }
                default: { value /= f32(length); }
            }
        }
        pooled[text * STRIDE + COLUMN + column] = value;
    }
}
