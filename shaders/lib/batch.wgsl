// One packed batch, as `src/batch.rs` writes it before each pass. No kernel ever sees a pad token.

struct Header {
    tokens: u32, // in the whole batch
    texts: u32,
    tiles: u32,  // of attention: each covers up to TILE tokens of one text
    selected: u32, // rows that a head has asked for
}

// Where a text begins; one more entry at the end holds the totals.
struct Offset {
    token: u32,
    tile: u32,
}
