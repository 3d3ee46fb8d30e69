//! Calls of many texts, whose tokens are made window by window on all cores while the GPU runs: the rows are those of small calls.

mod common;

use common::gpu::gpu;
use common::{files, fixture};
use minilm::{Embedder, Error, Sequence};

const FOLDER: &str = "tiny-minilm-bert-l3-h96";

/// With so small a budget a window holds a few KB of text.
fn embedder() -> Embedder {
    Embedder::builder().gpu(gpu()).token_budget(64).max_length(64).from_dir(fixture(FOLDER)).unwrap()
}

/// Of every length, a long one among them, in no order; so many that there are several windows, each with work for some threads.
fn texts() -> Vec<String> {
    let text = |i: usize| (0..1 + i * 31 % 50).map(|word| format!("word{} ", (i + word) % 97)).collect::<String>();
    let mut texts: Vec<String> = (0..300).map(text).collect();
    texts[150] = "long ".repeat(5000);
    texts
}

#[test]
fn rows_are_the_same_in_one_call_and_in_many() {
    let (embedder, texts) = (embedder(), texts());
    let all = embedder.embed(&texts).unwrap();
    let last = embedder.model().stats().last;
    assert_eq!(last.texts, 300);
    assert!(last.batches > 50 && last.tokenize_nanoseconds > 0, "{last:?}");
    assert!(all.lengths()[150].truncated());
    assert_eq!(pollster::block_on(embedder.embed_async(&texts)).unwrap(), all);
    for (i, chunk) in texts.chunks(7).enumerate() {
        let rows = embedder.embed(chunk).unwrap();
        assert_eq!(rows.as_slice(), &all.as_slice()[i * 7 * 96..][..chunk.len() * 96], "texts from {}", i * 7);
        assert_eq!(rows.lengths(), &all.lengths()[i * 7..][..chunk.len()]);
    }
}

#[test]
fn tokens_are_the_same_on_one_core_and_on_all() {
    let (embedder, texts) = (embedder(), texts());
    let all = embedder.encode(&texts).unwrap();
    for (text, encoding) in texts.iter().zip(&all) {
        assert_eq!(&embedder.model().tokenizer().encode(text, None, 64).unwrap(), encoding, "{text}");
    }
}

#[test]
fn rows_go_where_the_caller_says() {
    let embedder = embedder();
    let encodings = embedder.encode(&texts()[..50]).unwrap();
    let sequences: Vec<Sequence> = encodings.iter().map(|encoding| encoding.sequence()).collect();
    let mut rows = vec![f32::NAN; 50 * 96];
    embedder.embed_tokens_into(&sequences, &mut rows).unwrap();
    assert_eq!(rows, embedder.embed(&texts()[..50]).unwrap().as_slice());
    for wrong in [0, 50 * 96 - 1, 50 * 96 + 1] {
        let error = embedder.embed_tokens_into(&sequences, &mut vec![0.0; wrong]).unwrap_err();
        assert!(matches!(&error, Error::Input { problem } if problem.contains("4800 values")), "{error}");
    }
    assert!(embedder.embed_tokens_into(&[], &mut []).unwrap_err().to_string().contains("no texts"));
}

#[test]
fn a_text_is_refused_by_its_number_in_the_call() {
    // Without specials an empty text has no tokens.
    let folder = files::copy(&fixture(FOLDER), &["config.json", "model.safetensors", "tokenizer_config.json", "tokenizer.json"]);
    let mut tokenizer: serde_json::Value = files::read_json(&folder.path().join("tokenizer.json"));
    tokenizer["post_processor"] = serde_json::Value::Null;
    files::write(folder.path(), "tokenizer.json", tokenizer.to_string());
    let embedder = Embedder::builder().gpu(gpu()).token_budget(64).max_length(64).from_dir(folder.path()).unwrap();
    let mut texts = texts();
    (texts[200], texts[250]) = (String::new(), String::new());
    let error = embedder.embed(&texts).unwrap_err().to_string();
    assert!(error.contains("text 200: it has no tokens"), "{error}");
    assert_eq!(embedder.embed(&texts[..200]).unwrap().len(), 200, "what was in flight is given back");
}
