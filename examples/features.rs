//! A vector for each token of a text, from every layer: `cargo run --release --example features MODEL [TEXT ...]`

use minilm::FeatureExtractor;

fn main() -> minilm::Result<()> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("minilm=warn"));
    let mut arguments = std::env::args().skip(1);
    let Some(model) = arguments.next() else {
        eprintln!("name the folder of any encoder, such as https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2");
        std::process::exit(2);
    };
    let mut texts: Vec<String> = arguments.collect();
    if texts.is_empty() {
        texts = vec!["A cat sits on the mat.".into()];
    }

    let extractor = FeatureExtractor::builder().all_layers(true).from_dir(model)?;
    let encodings = extractor.encode(&texts)?;
    for ((text, encoding), features) in texts.iter().zip(&encodings).zip(extractor.features(&texts)?) {
        println!("{text}: {} states of {} tokens, {} numbers each", features.states().len(), features.rows().len(), features.dimension());
        // The last state.
        for (piece, row) in extractor.model().tokenizer().pieces(&encoding.ids).iter().zip(features.rows()) {
            println!("  [{:+.4}, {:+.4}, {:+.4}, ...]  {piece}", row[0], row[1], row[2]);
        }
    }
    Ok(())
}
