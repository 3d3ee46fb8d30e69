//! The likeliest words for a gap in a text: `cargo run --release --example fill_mask MODEL [TEXT ...]`

use minilm::FillMask;

fn main() -> minilm::Result<()> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("minilm=warn"));
    let mut arguments = std::env::args().skip(1);
    let Some(model) = arguments.next() else {
        eprintln!("name the folder of a masked language model, such as https://huggingface.co/google-bert/bert-base-uncased");
        std::process::exit(2);
    };
    let filler = FillMask::builder().top(3).from_dir(model)?;
    let mut texts: Vec<String> = arguments.collect();
    if texts.is_empty() {
        texts = vec![format!("The cat sits on the {}.", filler.mask_token())];
    }

    for (text, filled) in texts.iter().zip(filler.fill(&texts)?) {
        println!("{text}");
        for mask in filled.masks {
            let words = mask.words.iter().map(|word| format!("{} {:.4}", word.token, word.score));
            println!("  token {}: {}", mask.position, words.collect::<Vec<_>>().join(", "));
        }
    }
    Ok(())
}
