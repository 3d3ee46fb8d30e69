// The rows of x that a lane multiplies, at one step of the inner dimension. Rows beyond the last are read as the last.

fn load_rows(first: u32, last: u32, k: u32, lane: u32) -> array<vec4f, ROWS> {
    var rows: array<vec4f, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        rows[r] = x[min(first + r, last) * INNER4 + k];
    }
    return rows;
}
