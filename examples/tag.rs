//! Names and places in texts: `cargo run --release --example tag MODEL [TEXT ...]`

use minilm::{Aggregation, EntityOptions, Tagger};

fn main() -> minilm::Result<()> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("minilm=warn"));
    let mut arguments = std::env::args().skip(1);
    let Some(model) = arguments.next() else {
        eprintln!("name the folder of a classifier of tokens, such as https://huggingface.co/dslim/bert-base-NER");
        std::process::exit(2);
    };
    let mut texts: Vec<String> = arguments.collect();
    if texts.is_empty() {
        texts = ["Ada Lovelace lived in London.", "The Rhine flows past Köln."].map(String::from).into();
    }

    // Tokens of one label become an entity, in whole words.
    let options = EntityOptions { aggregation: Aggregation::First, ..EntityOptions::default() };
    let tagger = Tagger::builder().entities(options).from_dir(model)?;
    for (text, tagged) in texts.iter().zip(tagger.tag(&texts)?) {
        println!("{text}");
        for entity in tagged.entities {
            println!("  {:.4}  {}  {}", entity.score, entity.label, &text[entity.bytes]);
        }
    }
    Ok(())
}
