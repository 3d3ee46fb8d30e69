//! Calls of many texts, whose tokens are made window by window on all cores while the GPU runs: the rows are those of small calls.

mod common;

use common::gpu::gpu;
use common::{files, fixture};
use minilm::{Answerer, Builder, Classifier, Embedder, Error, FeatureExtractor, FillMask, Sequence, Tagger, Task};

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

/// A task of a small folder, whose windows hold some hundred bytes.
fn task<T: Task>(folder: &str) -> T {
    Builder::default().gpu(gpu()).token_budget(20).max_length(20).from_dir(fixture("families").join(folder)).unwrap()
}

/// Holds a call of all texts, and a future of it, to calls of seven, and to the same from tokens.
fn expect_same<T: PartialEq + std::fmt::Debug>(name: &str, texts: &[String], call: impl Fn(&[String]) -> [Vec<T>; 3]) {
    let [all, future, tokens] = call(texts);
    assert_eq!(all.len(), texts.len(), "{name}");
    assert!(all == future && all == tokens, "{name}: a future, or a call of tokens, gives something else");
    for (i, chunk) in texts.chunks(7).enumerate() {
        assert!(call(chunk)[0] == all[i * 7..][..chunk.len()], "{name}: texts from {}", i * 7);
    }
}

#[test]
fn every_task_gives_the_same_in_one_call_and_in_many() {
    let texts: Vec<String> = (0..100).map(|i| (0..1 + i * 31 % 23).map(|word| format!("w{} ", (i + word * 7) % 43)).collect()).collect();

    let classifier: Classifier = task("bert-sequence");
    expect_same("classifier", &texts, |texts| {
        let tokens = classifier.classify_encodings(&classifier.model().encode(texts, "").unwrap());
        [classifier.classify(texts), pollster::block_on(classifier.classify_async(texts)), tokens].map(Result::unwrap)
    });
    assert!(classifier.model().stats().total.tokenize_nanoseconds > 0);

    let extractor: FeatureExtractor = task("bert-base");
    expect_same("features", &texts, |texts| {
        let encodings = extractor.encode(texts).unwrap();
        let sequences: Vec<_> = encodings.iter().map(|encoding| encoding.sequence()).collect();
        let [all, future] = [extractor.features(texts), pollster::block_on(extractor.features_async(texts))].map(Result::unwrap);
        assert!(all.iter().zip(&encodings).all(|(features, encoding)| features.length() == encoding.length()));
        // Tokens do not tell what was cut.
        let values = |all: Vec<minilm::Features>| all.iter().map(|features| features.as_slice().to_vec()).collect::<Vec<_>>();
        [all, future, extractor.features_of_tokens(&sequences).unwrap()].map(values)
    });

    let tagger: Tagger = task("bert-token");
    expect_same("tagger", &texts, |texts| {
        let sourced: Vec<_> = texts.iter().map(|text| tagger.encode(text).unwrap()).collect();
        let all = [tagger.tag(texts), pollster::block_on(tagger.tag_async(texts)), tagger.tag_encoded(texts, &sourced)];
        all.map(Result::unwrap)
    });

    let filler: FillMask = task("bert-masked");
    let masked: Vec<String> = texts.iter().map(|text| format!("<mask> {text} <mask>")).collect();
    expect_same("masks", &masked, |texts| {
        let tokens = filler.fill_encodings(&filler.model().encode(texts, "").unwrap());
        [filler.fill(texts), pollster::block_on(filler.fill_async(texts)), tokens].map(Result::unwrap)
    });
    let mut one_without = masked.clone();
    one_without[70] = "w1".into();
    let message = filler.fill(&one_without).unwrap_err().to_string();
    assert!(message.starts_with("text 70: it has no mask"), "{message}");

    // Contexts of several windows, so that sequences are more than texts.
    let answerer: Answerer = task("bert-span");
    expect_same("answers", &texts, |texts| {
        let contexts: Vec<String> = texts.iter().map(|text| text.repeat(2)).collect();
        let pairs = || contexts.iter().map(|context| ("w1 w2", context.as_str()));
        let windows: Vec<_> = pairs().map(|(question, context)| answerer.windows(question, context).unwrap()).collect();
        assert!(texts.len() < 7 || windows.iter().any(|windows| windows.len() > 1));
        let contexts: Vec<&str> = contexts.iter().map(String::as_str).collect();
        let all =
            [answerer.answer(pairs()), pollster::block_on(answerer.answer_async(pairs())), answerer.answer_windows(&contexts, &windows)];
        all.map(Result::unwrap)
    });
    let message = answerer.answer((0..50).map(|i| (if i == 30 { " " } else { "w1" }, "w2"))).unwrap_err().to_string();
    assert!(message.starts_with("text 30: the question is empty"), "{message}");
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
