//! Sentences to vectors, and how alike they are: `cargo run --release --example embed [SENTENCE ...]`

use minilm::{Embedder, cosine, default_model};

fn main() -> minilm::Result<()> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("minilm=warn"));

    let mut sentences: Vec<String> = std::env::args().skip(1).collect();
    if sentences.is_empty() {
        sentences =
            ["A cat sits on the mat.", "Eine Katze sitzt auf der Matte.", "猫がマットの上に座っている。", "Shares fell sharply today."]
                .map(String::from)
                .into();
    }

    // This model was trained with a prompt before every text; most need none.
    let embedder = Embedder::builder().prompt("query").from_dir(default_model()?)?;
    let embeddings = embedder.embed(&sentences)?; // [sentences, hidden]
    let first = embeddings.as_slice()[..embeddings.dimension()].to_vec();
    for (sentence, row) in sentences.iter().zip(embeddings.rows()) {
        println!("{:.4}  [{:+.4}, {:+.4}, {:+.4}, ...]  {sentence}", cosine(&first, row), row[0], row[1], row[2]);
    }
    Ok(())
}
