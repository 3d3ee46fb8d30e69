//! The examples, run as they are.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::files::with_labels;
use common::gpu::gpu;
use common::program::run;
use minilm::{
    Aggregation, AnswerOptions, Answerer, Classifier, EntityOptions, FeatureExtractor, FillMask, Reranker, Tagger, ZeroShot,
    ZeroShotOptions,
};

fn family(name: &str) -> PathBuf {
    common::fixture("families").join(name)
}

/// An example, which `cargo test` builds beside the tests.
fn example(name: &str) -> Command {
    let built = std::env::current_exe().ok().and_then(|test| {
        let folder = test.parent()?.parent()?.join("examples");
        let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        path.exists().then_some(path)
    });
    Command::new(built.unwrap_or_else(|| name.into()))
}

/// Runs an example to its end; returns what it prints.
fn printed(name: &str, arguments: &[&str]) -> String {
    let run = run(example(name).args(arguments).env_remove("MINILM_MODEL"), "").succeeded();
    run.text().to_owned()
}

#[test]
fn embed_compares_with_the_first_sentence() {
    let lines = printed("embed", &[]);
    let scores: Vec<f64> = lines.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(scores.len(), 4);
    assert!(scores[0] == 1.0 && scores[1].min(scores[2]) > scores[3], "{lines}");
    assert_eq!(printed("embed", &["one", "two"]).lines().count(), 2);
}

#[test]
fn search_finds_the_sentence_in_any_language() {
    let lines = printed("search", &["When can I visit the museum?", "my computer does not start"]);
    let lines: Vec<_> = lines.lines().collect();
    assert!(lines[1].contains("museum") || lines[1].contains("Museum"), "{lines:?}");
    assert!(lines[5].contains("ノートパソコン"), "{lines:?}");
}

#[test]
fn info_names_an_adapter_and_the_model() {
    let lines = printed("info", &[]);
    assert!(lines.starts_with("* ") && lines.contains("12 layers of 384, 12 heads"), "{lines}");
}

#[test]
fn async_embed_answers_every_request() {
    let lines = printed("async_embed", &[]);
    assert_eq!(lines.lines().count(), 5, "{lines}");
    assert!(lines.ends_with("4 batches for 8 texts\n"), "{lines}");
}

#[test]
fn own_device_reads_nothing_back_through_the_embedder() {
    let lines = printed("own_device", &[]);
    let rows: Vec<Vec<f64>> =
        lines.lines().take(4).map(|line| line.split("  ").map_while(|number| number.parse().ok()).collect()).collect();
    for (i, row) in rows.iter().enumerate() {
        assert!(row.len() == 4 && (row[i] - 1.0).abs() < 1e-3, "{lines}");
        assert!((0..4).all(|j| row[j] == rows[j][i]), "{lines}");
    }
    assert!(rows[0][1] > rows[0][3] && lines.ends_with("0 bytes were read from the GPU by the embedder\n"), "{lines}");
}

/// Models with heads are not in the repository: an example that needs one says which.
#[test]
fn an_example_without_a_model_says_what_to_name() {
    for name in ["classify", "rerank", "zero_shot", "tag", "answer", "fill_mask", "features"] {
        let run = run(&mut example(name), "");
        assert_eq!((run.code, run.stdout.len(), run.stderr.lines().count()), (Some(2), 0, 1), "{name}: {}", run.stderr);
        assert!(run.stderr.starts_with("name the folder of ") && run.stderr.contains("https://huggingface.co/"), "{}", run.stderr);
    }
}

/// What an example prints with a folder of `fixtures/families`; it must also run with the texts that it has itself.
fn printed_of(name: &str, folder: &Path, arguments: &[&str]) -> String {
    let folder = folder.to_str().unwrap();
    assert!(!printed(name, &[folder]).is_empty(), "{name}");
    printed(name, &[&[folder], arguments].concat())
}

#[test]
fn classify_prints_the_best_label() {
    let (folder, texts) = (family("bert-sequence"), ["w1 w2", "w30"]);
    let classifier = Classifier::builder().gpu(gpu()).from_dir(&folder).unwrap();
    let expected: String = (classifier.classify(texts).unwrap().iter().zip(texts))
        .map(|(found, text)| format!("{:.4}  {}  {text}\n", found.scores[found.best()], classifier.labels()[found.best()]))
        .collect();
    assert_eq!(printed_of("classify", &folder, &texts), expected);
}

#[test]
fn rerank_prints_the_best_passage_first() {
    let (folder, passages) = (family("roberta-sequence"), ["w1 w2", "w30", "w7 w8 w9"]);
    let ranked = Reranker::builder().gpu(gpu()).from_dir(&folder).unwrap().rerank("w5", &passages).unwrap();
    let expected: String = ranked.iter().map(|ranked| format!("{:.4}  {}\n", ranked.score, passages[ranked.index])).collect();
    assert_eq!(printed_of("rerank", &folder, &[&["w5"], &passages[..]].concat()), expected);
}

#[test]
fn zero_shot_prints_the_likeliest_label_first() {
    let folder = with_labels(&family("bert-sequence"), ["contradiction", "entailment", "neutral"]);
    let labels = ["w1", "w30", "w7"];
    let classifier = ZeroShot::builder().gpu(gpu()).from_dir(folder.path()).unwrap();
    let options = ZeroShotOptions { template: "This text is about {}.", ..ZeroShotOptions::default() };
    let found = classifier.classify(&["w5 w6"], &labels, &options).unwrap().remove(0);
    let expected: String = found.labels.iter().map(|label| format!("{:.4}  {}\n", label.score, labels[label.index])).collect();
    assert_eq!(printed_of("zero_shot", folder.path(), &[&["w5 w6"], &labels[..]].concat()), expected);
}

#[test]
fn tag_prints_the_entities_of_each_text() {
    let (folder, texts) = (family("roberta-token"), ["w0 w7 w14 w21 w28 w35", "w3 w4 w5"]);
    let options = EntityOptions { aggregation: Aggregation::First, ..EntityOptions::default() };
    let tagger = Tagger::builder().gpu(gpu()).entities(options).from_dir(&folder).unwrap();
    let mut expected = String::new();
    for (text, tagged) in texts.iter().zip(tagger.tag(&texts).unwrap()) {
        expected += &format!("{text}\n");
        expected.extend(tagged.entities.iter().map(|entity| format!("  {:.4}  {}  {}\n", entity.score, entity.label, entity.text)));
    }
    assert!(expected.lines().any(|line| line.starts_with("  0.") && line.contains("  PER  w")), "{expected}");
    assert_eq!(printed_of("tag", &folder, &texts), expected);
}

#[test]
fn answer_prints_the_three_best() {
    let (folder, options) = (family("distilbert-span"), AnswerOptions { n_best: 3, ..AnswerOptions::default() });
    let answerer = Answerer::builder().gpu(gpu()).answers(options).from_dir(&folder).unwrap();
    let answers = answerer.answer([("w1", "w2 w3 w4 w5")]).unwrap().remove(0).answers;
    let expected: String = (answers.iter())
        .map(|answer| format!("{:.4}  {}  (bytes {:?} of the context)\n", answer.probability, answer.text, answer.bytes))
        .collect();
    assert_eq!((answers.len(), printed_of("answer", &folder, &["w1", "w2 w3 w4 w5"])), (3, expected));
}

#[test]
fn fill_mask_prints_three_words_for_each_mask() {
    let (folder, text) = (family("roberta-masked"), "w1 <mask> w2 <mask>");
    let filled = FillMask::builder().gpu(gpu()).top(3).from_dir(&folder).unwrap().fill([text]).unwrap().remove(0);
    let mut expected = format!("{text}\n");
    for mask in filled.masks {
        let words: Vec<String> = mask.words.iter().map(|word| format!("{} {:.4}", word.token, word.score)).collect();
        expected += &format!("  token {}: {}\n", mask.position, words.join(", "));
    }
    assert!(expected.contains("  token 2: ") && expected.contains("  token 4: "), "{expected}");
    assert_eq!(printed_of("fill_mask", &folder, &[text]), expected);
}

#[test]
fn features_prints_a_row_for_each_token() {
    let folder = family("mpnet-base");
    let features = FeatureExtractor::builder().gpu(gpu()).from_dir(&folder).unwrap().features(["w1 w2"]).unwrap().remove(0);
    let mut expected = String::from("w1 w2: 3 states of 4 tokens, 24 numbers each\n");
    for (row, piece) in features.rows().zip(["<s>", "w1", "w2", "</s>"]) {
        expected += &format!("  [{:+.4}, {:+.4}, {:+.4}, ...]  {piece}\n", row[0], row[1], row[2]);
    }
    assert_eq!(printed_of("features", &folder, &["w1 w2"]), expected);
}
