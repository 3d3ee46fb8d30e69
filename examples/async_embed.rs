//! Many callers, one embedder, no thread of theirs ever blocked: `cargo run --release --example async_embed`
//!
//! Any executor will do: the GPU wakes the future that waits for it.

use futures::future::try_join_all;
use minilm::{Embedder, cosine, default_model};

const REQUESTS: [[&str; 2]; 4] = [
    ["query: The weather is lovely today.", "query: It's so sunny outside!"],
    ["query: He drove to the stadium.", "query: Elle est allée au stade en voiture."],
    ["query: The kettle is boiling.", "query: Water turns to steam at 100 degrees."],
    ["query: a red bicycle", "query: ein rotes Fahrrad"],
];

fn main() -> minilm::Result<()> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("minilm=warn"));
    let embedder = Embedder::from_dir(default_model()?)?;

    let requests = REQUESTS.map(|texts| {
        let embedder = &embedder;
        async move {
            let rows = embedder.embed_async(texts).await?.into_vec();
            let (a, b) = rows.split_at(rows.len() / 2);
            minilm::Result::Ok(cosine(a, b))
        }
    });
    // All are under way at once; dropping a future would give up its work.
    for (texts, cosine) in REQUESTS.iter().zip(pollster::block_on(try_join_all(requests))?) {
        println!("{cosine:.4}  {} | {}", &texts[0]["query: ".len()..], &texts[1]["query: ".len()..]);
    }
    println!("{} batches for {} texts", embedder.model().stats().total.batches, embedder.model().stats().total.texts);
    Ok(())
}
