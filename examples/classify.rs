//! The likeliest label of each text: `cargo run --release --example classify MODEL [TEXT ...]`

use minilm::Classifier;

fn main() -> minilm::Result<()> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("minilm=warn"));
    let mut arguments = std::env::args().skip(1);
    let Some(model) = arguments.next() else {
        eprintln!(
            "name the folder of a classifier of texts, such as https://huggingface.co/distilbert/distilbert-base-uncased-finetuned-sst-2-english"
        );
        std::process::exit(2);
    };
    let mut texts: Vec<String> = arguments.collect();
    if texts.is_empty() {
        texts = ["What a lovely film!", "I want my money back."].map(String::from).into();
    }

    let classifier = Classifier::from_dir(model)?;
    // Pairs go the same way: `classifier.classify([("It is raining.", "The street is wet.")])`.
    for (text, found) in texts.iter().zip(classifier.classify(&texts)?) {
        let best = found.best();
        println!("{:.4}  {}  {text}", found.scores[best], classifier.labels()[best]);
    }
    Ok(())
}
