//! Passages by how well they answer a query, best first: `cargo run --release --example rerank MODEL [QUERY PASSAGE ...]`

use minilm::Reranker;

fn main() -> minilm::Result<()> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("minilm=warn"));
    let mut arguments = std::env::args().skip(1);
    let Some(model) = arguments.next() else {
        eprintln!("name the folder of a cross-encoder with one score, such as https://huggingface.co/cross-encoder/ms-marco-MiniLM-L6-v2");
        std::process::exit(2);
    };
    let query = arguments.next().unwrap_or_else(|| "How do I bake bread?".into());
    let mut passages: Vec<String> = arguments.collect();
    if passages.is_empty() {
        passages =
            ["The bakery opens at seven.", "Knead the dough, let it rise, then bake it for forty minutes.", "Bread is a staple food."]
                .map(String::from)
                .into();
    }

    // Slower than comparing embeddings, since it reads each passage with the query, and better: first search, then rerank what was found.
    let reranker = Reranker::from_dir(model)?;
    for ranked in reranker.rerank(&query, &passages)? {
        println!("{:.4}  {}", ranked.score, passages[ranked.index]);
    }
    Ok(())
}
