//! Labels of your own for a text, likeliest first: `cargo run --release --example zero_shot MODEL [TEXT LABEL ...]`

use minilm::{ZeroShot, ZeroShotOptions};

fn main() -> minilm::Result<()> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("minilm=warn"));
    let mut arguments = std::env::args().skip(1);
    let Some(model) = arguments.next() else {
        eprintln!(
            "name the folder of a model of inference between sentences, such as https://huggingface.co/cross-encoder/nli-MiniLM2-L6-H768"
        );
        std::process::exit(2);
    };
    let text = arguments.next().unwrap_or_else(|| "It will rain all day tomorrow.".into());
    let mut labels: Vec<String> = arguments.collect();
    if labels.is_empty() {
        labels = ["sports", "politics", "weather"].map(String::from).into();
    }

    // What counts is whether "This text is about weather." follows from the text.
    let options = ZeroShotOptions { template: "This text is about {}.", ..ZeroShotOptions::default() };
    let classifier = ZeroShot::from_dir(model)?;
    for label in &classifier.classify(&[text], &labels, &options)?[0].labels {
        println!("{:.4}  {}", label.score, labels[label.index]);
    }
    Ok(())
}
