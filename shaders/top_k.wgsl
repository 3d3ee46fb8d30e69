// best[selected, 2 * TOP + 1] = the TOP largest logits of each row: their columns, then themselves, then the sum of exp(logit - largest)
// over the whole row. Of equals the first column comes first. One workgroup a row, one pass over the row for each of the TOP.

override VOCABULARY: u32;
override TOP: u32;

@group(0) @binding(0) var<storage, read> logits: array<f32>;          // [selected, VOCABULARY]
@group(0) @binding(1) var<storage, read_write> best: array<f32>;      // [selected, 2 * TOP + 1]; columns are exact below 2^24

const LOWEST = -3.4e38;
const NOWHERE = 0xffffffffu;

var<workgroup> values: array<f32, WORKGROUP>;
var<workgroup> columns: array<u32, WORKGROUP>;

// Whether a value at a column comes before another one.
fn before(value: f32, column: u32, other: f32, other_column: u32) -> bool {
    return value > other || (value == other && column < other_column);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = group.x * VOCABULARY;
    let output = group.x * (2u * TOP + 1u);
    var last = 0.0;
    var last_column = NOWHERE;
    var largest = 0.0;
    for (var i = 0u; i < TOP; i++) {
        // The first of what comes after the last one found.
        var value = LOWEST;
        var column = NOWHERE;
        for (var c = lane; c < VOCABULARY; c += WORKGROUP) {
            let candidate = logits[row + c];
            let is_left = last_column == NOWHERE || before(last, last_column, candidate, c);
            if is_left && before(candidate, c, value, column) {
                value = candidate;
                column = c;
            }
        }
        values[lane] = value;
        columns[lane] = column;
        for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if lane < half && before(values[lane + half], columns[lane + half], values[lane], columns[lane]) {
                values[lane] = values[lane + half];
                columns[lane] = columns[lane + half];
            }
        }
        workgroupBarrier();
        last = values[0];
        last_column = columns[0];
        workgroupBarrier();
        if i == 0u {
            largest = last;
        }
        if lane == 0u {
            best[output + i] = f32(last_column);
            best[output + TOP + i] = last;
        }
    }

    var sum = 0.0;
    for (var c = lane; c < VOCABULARY; c += WORKGROUP) {
        sum += exp(logits[row + c] - largest);
    }
    let total = reduce_sum(sum, lane);
    if lane == 0u {
        best[output + 2u * TOP] = total;
    }
}
