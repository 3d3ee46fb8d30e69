// How many rows there are, of tokens, texts or selected tokens: the numbers are those of `kernels::rows_code`.

override ROWS_ARE: u32 = 0u;

fn row_count() -> u32 {
    switch ROWS_ARE {
        case 1u: { return batch.texts; }
        case 2u: { return batch.selected; }
        default: { return batch.tokens; }
    }
}
