//! Search by meaning over a few sentences in several languages: `cargo run --release --example search [QUERY ...]`

use minilm::{Embedder, Embeddings, cosine, default_model};

const SENTENCES: [&str; 12] = [
    "Das Museum ist montags geschlossen.",
    "The museum opens at nine and closes at five.",
    "Pour le pain, laissez lever la pâte une heure.",
    "Knead the dough, let it rise, then bake it for forty minutes.",
    "El tren a Madrid sale cada hora desde el andén tres.",
    "The last train leaves shortly before midnight.",
    "Il cane insegue la palla nel parco.",
    "Кошка спит на тёплом подоконнике.",
    "电池充满电大约需要两个小时。",
    "ノートパソコンの電源が入りません。",
    "Der Akku hält bei normaler Nutzung zehn Stunden.",
    "O médico recomendou beber mais água.",
];
const QUERIES: [&str; 3] = ["When can I visit the museum?", "how do I bake bread?", "my computer does not start"];

fn main() -> minilm::Result<()> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("minilm=warn"));
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let queries: Vec<&str> = if asked.is_empty() { QUERIES.into() } else { asked.iter().map(String::as_str).collect() };

    // The prompts of this model tell questions and answers apart.
    let embedder = Embedder::from_dir(default_model()?)?;
    let prompted = |prompt: &str, texts: &[&str]| -> minilm::Result<Embeddings> {
        embedder.embed(texts.iter().map(|text| format!("{prompt}{text}")).collect::<Vec<_>>().iter())
    };
    let passages = prompted("passage: ", &SENTENCES)?;

    for (query, query_row) in queries.iter().zip(prompted("query: ", &queries)?.rows()) {
        let mut ranked: Vec<(f64, &str)> = passages.rows().map(|row| cosine(query_row, row)).zip(SENTENCES).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        println!("{query}");
        for (score, sentence) in &ranked[..3] {
            println!("  {score:.4}  {sentence}");
        }
    }
    Ok(())
}
