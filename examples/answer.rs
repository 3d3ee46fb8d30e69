//! The answer to a question, as a piece of a text: `cargo run --release --example answer MODEL [QUESTION CONTEXT]`

use minilm::{AnswerOptions, Answerer};

fn main() -> minilm::Result<()> {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("minilm=warn"));
    let mut arguments = std::env::args().skip(1);
    let Some(model) = arguments.next() else {
        eprintln!(
            "name the folder of a model of extractive question answering, such as https://huggingface.co/deepset/minilm-uncased-squad2"
        );
        std::process::exit(2);
    };
    let question = arguments.next().unwrap_or_else(|| "When does the museum open?".into());
    let context = arguments.next().unwrap_or_else(|| "The museum is closed on Mondays. On all other days it opens at nine.".into());

    // A context of any length is read in windows.
    let options = AnswerOptions { n_best: 3, ..AnswerOptions::default() };
    let answerer = Answerer::builder().answers(options).from_dir(model)?;
    for answer in &answerer.answer([(&*question, &*context)])?[0].answers {
        println!("{:.4}  {}  (bytes {:?} of the context)", answer.probability, answer.text, answer.bytes);
    }
    Ok(())
}
