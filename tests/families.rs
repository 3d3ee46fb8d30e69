//! Every family and every head against PyTorch, on checkpoints as transformers and sentence-transformers save them.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use common::compare::{Bound, Table};
use common::files::with_labels;
use common::gpu::gpu;
use common::synthetic::{Model, model_folder_in};
use minilm::checkpoint::TokenSource;
use minilm::{
    AnswerOptions, Answerer, Checkpoint, Classifier, Embedder, Encoding, FeatureExtractor, FillMask, Pooling, Score, Sequence, Sourced,
    Tagger, ZeroShot, ZeroShotOptions, reference,
};
use serde::Deserialize;

/// See `tests/fixtures/families/make.py`.
#[derive(Deserialize)]
struct Golden {
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    ids: Vec<u32>,
    type_ids: Option<Vec<u32>>,
    hidden: Option<Vec<Vec<f64>>>,
    states: Option<Vec<Vec<Vec<f64>>>>,
    pooler: Option<Vec<f64>>,
    hidden_of_language_0: Option<Vec<Vec<f64>>>,
    hidden_of_language_2: Option<Vec<Vec<f64>>>,
    logits: Option<serde_json::Value>,
    start: Option<Vec<f64>>,
    end: Option<Vec<f64>>,
    mask_logits: Option<Vec<Vec<f64>>>,
    embedding: Option<Vec<f64>>,
}

impl Text {
    fn types(&self) -> &[u32] {
        self.type_ids.as_deref().unwrap_or_default()
    }

    fn sequence(&self) -> Sequence<'_> {
        Sequence { ids: &self.ids, type_ids: self.types(), selected: &[] }
    }

    fn encoding(&self) -> Encoding {
        Encoding { ids: self.ids.clone(), type_ids: self.types().to_vec(), total_tokens: self.ids.len(), truncated: false }
    }

    fn logits(&self) -> Vec<f64> {
        fn flat(value: &serde_json::Value) -> Vec<f64> {
            value.as_array().map_or_else(|| vec![value.as_f64().unwrap()], |values| values.iter().flat_map(flat).collect())
        }
        flat(self.logits.as_ref().unwrap())
    }
}

/// PyTorch in float32 is within 2e-6 of float64 on these; as in the other goldens, 20 times that and at least 2e-5.
const BOUND: Bound = Bound::absolute(4e-5);

fn folders(suffix: &str) -> Vec<(String, PathBuf, Golden)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(common::fixture("families")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name.ends_with(suffix) {
            let golden = serde_json::from_slice(&fs::read(path.join("golden.json")).unwrap()).unwrap();
            found.push((name, path, golden));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!found.is_empty());
    found
}

#[test]
fn hidden_states_of_every_layer_and_the_pooler() {
    let mut table = Table::new("hidden states");
    for (name, folder, golden) in folders("base").into_iter().chain(folders("languages")) {
        let has_pooler = golden.texts[0].pooler.is_some();
        let builder = FeatureExtractor::builder().gpu(gpu()).all_layers(true).pooler(has_pooler);
        let extractor = builder.from_dir(&folder).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let plain = reference::Encoder::new(&checkpoint.config, &checkpoint.encoder().unwrap()).unwrap();
        let sequences: Vec<_> = golden.texts.iter().map(Text::sequence).collect();
        for (i, (features, text)) in extractor.features_of_tokens(&sequences).unwrap().iter().zip(&golden.texts).enumerate() {
            let hidden = text.hidden.as_ref().unwrap().concat();
            table.close(format!("{name} {i}"), features.as_slice(), &hidden, BOUND);
            table.close(format!("{name} {i} f64 reference"), &plain.hidden(&text.ids, text.types()), &hidden, Bound::absolute(1e-6));
            for (layer, state) in text.states.iter().flatten().enumerate() {
                table.close(format!("{name} {i} layer {layer}"), &features.states()[layer], &state.concat(), BOUND);
            }
            if let Some(pooler) = &text.pooler {
                table.close(format!("{name} {i} pooler"), features.pooler_output().unwrap(), pooler, BOUND);
            }
        }
    }
    table.finish();
}

#[test]
fn languages_of_xlm_are_chosen_by_code() {
    let mut table = Table::new("languages");
    let (name, folder, golden) = folders("xlm-languages").remove(0);
    for code in ["de", "fr"] {
        let extractor = FeatureExtractor::builder().gpu(gpu()).language(code).from_dir(&folder).unwrap();
        let text = &golden.texts[2];
        // By a text's own types, and by the builder's language through the tokenizer.
        let types = vec![if code == "de" { 0 } else { 2 }; text.ids.len()];
        let sequence = Sequence { ids: &text.ids, type_ids: &types, selected: &[] };
        let expected = if code == "de" { &text.hidden_of_language_0 } else { &text.hidden_of_language_2 };
        let expected = expected.as_ref().unwrap().concat();
        table.close(format!("{name} {code}"), extractor.features_of_tokens(&[sequence]).unwrap()[0].as_slice(), &expected, BOUND);
        let words: Vec<String> = text.ids[1..text.ids.len() - 1].iter().map(|id| format!("w{}", id - 5)).collect();
        let encodings = extractor.encode([&words.join(" ")]).unwrap();
        table.equal(format!("{name} {code} ids"), &encodings[0].ids, &text.ids);
        table.equal(format!("{name} {code} types"), &encodings[0].type_ids, &types);
    }
    let refused = FeatureExtractor::builder().gpu(gpu()).language("it").from_dir(&folder).err().unwrap().to_string();
    table.check("unknown", refused.contains("no language `it`") && refused.contains("de, en, fr"), &refused);
    let refused = FeatureExtractor::builder().gpu(gpu()).language("en").from_dir(folder.with_file_name("bert-base")).err().unwrap();
    table.check("none", refused.to_string().contains("has no languages"), &refused);
    table.finish();
}

#[test]
fn classifiers_of_texts() {
    let mut table = Table::new("classifiers of texts");
    for (name, folder, golden) in folders("sequence") {
        let classifier = Classifier::builder().gpu(gpu()).from_dir(&folder).unwrap();
        let expected_labels: &[&str] = if name.starts_with("roberta") { &["LABEL_0"] } else { &["O", "B-PER", "I-PER"] };
        table.equal(&name, classifier.labels(), &expected_labels.iter().map(|label| label.to_string()).collect::<Vec<_>>());
        let encodings: Vec<_> = golden.texts.iter().map(Text::encoding).collect();
        for (i, (found, text)) in classifier.classify_encodings(&encodings).unwrap().iter().zip(&golden.texts).enumerate() {
            let logits = text.logits();
            table.close(format!("{name} {i}"), &found.logits, &logits, BOUND);
            let scores: Vec<f64> = match logits[..] {
                [logit] => vec![1.0 / (1.0 + (-logit).exp())],
                _ => logits.iter().map(|logit| logit.exp() / logits.iter().map(|logit| logit.exp()).sum::<f64>()).collect(),
            };
            table.close(format!("{name} {i} scores"), &found.scores, &scores, BOUND);
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            table.equal(format!("{name} {i} best"), &[found.best()], &[best]);
        }
        let raw = Classifier::builder().gpu(gpu()).score(Score::Raw).from_dir(&folder).unwrap();
        let found = raw.classify_encodings(&encodings[..1]).unwrap().remove(0);
        table.close(format!("{name} raw"), &found.scores, &golden.texts[0].logits(), BOUND);
    }
    table.finish();
}

/// How logits become scores, by what the folder says and by what its class would do without.
#[test]
fn scores_follow_the_configuration() {
    let mut table = Table::new("scores");
    let score = |name: &str, settings: serde_json::Value| {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(common::fixture("families").join(name)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        if let Some(newest) = settings.get("activation_fn") {
            let settings = serde_json::json!({"model_type": "CrossEncoder", "activation_fn": newest});
            fs::write(copy.path().join("config_sentence_transformers.json"), settings.to_string()).unwrap();
        }
        let path = copy.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        fs::write(path, config.to_string()).unwrap();
        Classifier::builder().gpu(gpu()).from_dir(copy.path()).unwrap().score()
    };
    let legacy = "sbert_ce_default_activation_function";
    let cases = [
        ("bert-sequence", serde_json::json!({}), Score::Softmax),
        ("bert-sequence", serde_json::json!({"problem_type": "multi_label_classification"}), Score::Sigmoid),
        ("bert-sequence", serde_json::json!({"problem_type": "regression"}), Score::Raw),
        ("roberta-sequence", serde_json::json!({}), Score::Sigmoid),
        ("roberta-sequence", serde_json::json!({"problem_type": "single_label_classification"}), Score::Sigmoid),
        ("roberta-sequence", serde_json::json!({"problem_type": "regression"}), Score::Raw),
        ("roberta-sequence", serde_json::json!({legacy: "torch.nn.modules.linear.Identity"}), Score::Raw),
        (
            "roberta-sequence",
            serde_json::json!({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}),
            Score::Raw,
        ),
        ("bert-sequence", serde_json::json!({"activation_fn": "torch.nn.modules.linear.Identity"}), Score::Raw),
        (
            "roberta-sequence",
            serde_json::json!({legacy: "torch.nn.modules.linear.Identity", "activation_fn": "torch.nn.modules.activation.Sigmoid"}),
            Score::Sigmoid,
        ),
    ];
    for (name, settings, expected) in cases {
        let case = format!("{name} {settings}");
        table.equal(case, &[score(name, settings)], &[expected]);
    }
    table.finish();
}

/// The form that does not block gives what the blocking one gives, for every task.
#[test]
fn tasks_may_be_awaited() {
    let folder = |name: &str| common::fixture("families").join(name);
    let texts = ["w1 w2 w3", "w4"];
    let classifier = Classifier::builder().gpu(gpu()).from_dir(folder("bert-sequence")).unwrap();
    assert_eq!(pollster::block_on(classifier.classify_async(texts)).unwrap(), classifier.classify(texts).unwrap());
    let reranker = minilm::Reranker::builder().gpu(gpu()).from_dir(folder("roberta-sequence")).unwrap();
    let ranked = reranker.rerank("w9", &texts).unwrap();
    assert_eq!(pollster::block_on(reranker.rerank_async("w9", &texts)).unwrap(), ranked);
    assert!(ranked.len() == 2 && ranked[0].logit >= ranked[1].logit);
    let tagger = Tagger::builder().gpu(gpu()).from_dir(folder("bert-token")).unwrap();
    assert_eq!(pollster::block_on(tagger.tag_async(&texts)).unwrap(), tagger.tag(&texts).unwrap());
    let answerer = Answerer::builder().gpu(gpu()).from_dir(folder("bert-span")).unwrap();
    let question = [("w1", "w2 w3 w4")];
    assert_eq!(pollster::block_on(answerer.answer_async(question)).unwrap(), answerer.answer(question).unwrap());
    let filler = FillMask::builder().gpu(gpu()).from_dir(folder("bert-masked")).unwrap();
    assert_eq!(pollster::block_on(filler.fill_async(["w1 <mask>"])).unwrap(), filler.fill(["w1 <mask>"]).unwrap());
    let extractor = FeatureExtractor::builder().gpu(gpu()).from_dir(folder("bert-base")).unwrap();
    assert_eq!(pollster::block_on(extractor.features_async(texts)).unwrap(), extractor.features(texts).unwrap());
}

/// A text that fits gives the same entities in windows; a longer one gives places in the whole text, in order, none twice.
#[test]
fn long_texts_are_tagged_in_windows() {
    let options = minilm::EntityOptions { aggregation: minilm::Aggregation::Simple, ignore_labels: Vec::new() };
    let tagger = Tagger::builder().gpu(gpu()).entities(options).from_dir(common::fixture("families").join("bert-token")).unwrap();
    assert_eq!(tagger.tag_long("w1 w2 w3", 2).unwrap(), tagger.tag(&["w1 w2 w3"]).unwrap()[0].entities);
    let long: String = (0..60).map(|i| format!("w{} ", i * 7 % 43)).collect();
    let entities = tagger.tag_long(&long, 8).unwrap();
    assert!(entities.is_sorted_by(|a, b| a.bytes.end <= b.bytes.start), "{entities:?}");
    assert!(entities.iter().all(|entity| long[entity.bytes.clone()] == entity.text));
    assert!(entities.last().unwrap().bytes.end > long.len() - 10, "the end of the text was not read");
}

#[test]
fn classifiers_of_tokens() {
    let mut table = Table::new("classifiers of tokens");
    for (name, folder, golden) in folders("token") {
        let tagger = Tagger::builder().gpu(gpu()).from_dir(&folder).unwrap();
        let special = TokenSource { sequence: None, word: None, bytes: 0..0 };
        let sourced: Vec<_> =
            golden.texts.iter().map(|text| Sourced { encoding: text.encoding(), sources: vec![special.clone(); text.ids.len()] }).collect();
        for (i, (tagged, text)) in tagger.tag_encoded(&vec![""; sourced.len()], &sourced).unwrap().iter().zip(&golden.texts).enumerate() {
            table.close(format!("{name} {i}"), &tagged.logits, &text.logits(), BOUND);
        }
    }
    table.finish();
}

#[test]
fn spans() {
    let mut table = Table::new("spans");
    for (name, folder, golden) in folders("span") {
        let options = AnswerOptions { n_best: 1000, max_answer_length: 4, null_threshold: Some(0.0) };
        let answerer = Answerer::builder().gpu(gpu()).answers(options).from_dir(&folder).unwrap();
        for (i, text) in golden.texts.iter().enumerate() {
            // Every token but the specials is one letter of the context.
            let last = text.ids.len() - 1;
            let source = |at: usize| match at {
                0 => TokenSource { sequence: None, word: None, bytes: 0..0 },
                at if at == last => TokenSource { sequence: None, word: None, bytes: 0..0 },
                at => TokenSource { sequence: Some(1), word: None, bytes: at - 1..at },
            };
            let window = Sourced { encoding: text.encoding(), sources: (0..=last).map(source).collect() };
            let found = answerer.answer_windows(&[&"x".repeat(last)], &[vec![window]]).unwrap().remove(0);
            let (start, end) = (text.start.as_ref().unwrap(), text.end.as_ref().unwrap());
            table.close(format!("{name} {i} null"), &[found.null_score], &[start[0] + end[0]], BOUND);
            let spans: Vec<(usize, usize)> = (1..last).flat_map(|s| (s..last.min(s + 4)).map(move |e| (s, e))).collect();
            table.equal(format!("{name} {i} spans"), &[found.answers.len()], &[spans.len()]);
            for answer in &found.answers {
                let (s, e) = (answer.bytes.start + 1, answer.bytes.end);
                table.close(format!("{name} {i} {s} to {e}"), &[answer.score], &[start[s] + end[e]], BOUND);
            }
            let sorted = found.answers.is_sorted_by(|a, b| a.score >= b.score);
            table.check(format!("{name} {i}"), sorted, "the answers are not sorted");
        }
    }
    table.finish();
}

#[test]
fn masked_words() {
    let mut table = Table::new("masked words");
    for (name, folder, golden) in folders("masked") {
        let words = 48;
        let filler = FillMask::builder().gpu(gpu()).top(words).from_dir(&folder).unwrap();
        let encodings: Vec<_> = golden.texts.iter().map(Text::encoding).collect();
        for (i, (filled, text)) in filler.fill_encodings(&encodings).unwrap().iter().zip(&golden.texts).enumerate() {
            let places: Vec<usize> = (0..text.ids.len()).filter(|&at| text.ids[at] == 4).collect();
            table.equal(format!("{name} {i} places"), &filled.masks.iter().map(|mask| mask.position).collect::<Vec<_>>(), &places);
            for (mask, expected) in filled.masks.iter().zip(text.mask_logits.as_ref().unwrap()) {
                let total: f64 = expected.iter().map(|logit| logit.exp()).sum();
                let mut seen = vec![f64::NAN; words];
                for word in &mask.words {
                    seen[word.id as usize] = f64::from(word.logit);
                    table.close(format!("{name} {i} score"), &[word.score], &[expected[word.id as usize].exp() / total], BOUND);
                }
                table.close(format!("{name} {i} logits"), &seen, expected, BOUND);
                let sorted = mask.words.is_sorted_by(|a, b| a.logit >= b.logit);
                table.check(format!("{name} {i}"), sorted, "the words are not sorted");
            }
        }
        let two = FillMask::builder().gpu(gpu()).top(2).from_dir(&folder).unwrap();
        let (few, all) = (two.fill_encodings(&encodings).unwrap(), filler.fill_encodings(&encodings).unwrap());
        table.equal(format!("{name} top 2"), &few[0].masks[0].words, &all[0].masks[0].words[..2]);
    }
    table.finish();
}

/// Six poolings next to one another, a matrix with tanh, layer norm, and normalisation, in folders that sentence-transformers wrote.
#[test]
fn modules_of_sentence_transformers() {
    let mut table = Table::new("sentence-transformers' modules");
    let (name, folder, golden) = folders("sentence-modules").remove(0);
    let embedder = Embedder::builder().gpu(gpu()).from_dir(&folder).unwrap();
    assert_eq!((embedder.pooling(), embedder.normalizes(), embedder.dimension()), (&Pooling::ALL[..], true, 20));
    let sequences: Vec<_> = golden.texts.iter().map(Text::sequence).collect();
    let golden_rows: Vec<f64> = golden.texts.iter().flat_map(|text| text.embedding.clone().unwrap()).collect();
    table.close(&name, embedder.embed_tokens(&sequences).unwrap().as_slice(), &golden_rows, BOUND);
    // Matryoshka: the first columns, with a norm of 1 again.
    let short = Embedder::builder().gpu(gpu()).dimensions(7).from_dir(&folder).unwrap();
    let expected = reference::normalize(&golden_rows, 20, 7);
    table.close("7 dimensions", short.embed_tokens(&sequences).unwrap().as_slice(), &expected, BOUND);
    let rows = short.embed(["w1 w2"]).unwrap();
    assert_eq!((short.dimension(), rows.dimension(), rows.as_slice().len()), (7, 7, 7));
    // Where the folder says so, rows are cut when they are done, and only as far as there are columns.
    let asks = tempfile::tempdir().unwrap();
    for part in ["", "1_Pooling", "2_Dense", "3_LayerNorm", "4_Normalize"] {
        let to = asks.path().join(part);
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(folder.join(part)).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    }
    for (dimensions, normalize, expected) in
        [(7, None, golden_rows.chunks(20).flat_map(|row| row[..7].to_vec()).collect()), (7, Some(true), expected), (21, None, golden_rows)]
    {
        let settings = serde_json::json!({"truncate_dim": dimensions});
        fs::write(asks.path().join("config_sentence_transformers.json"), settings.to_string()).unwrap();
        let builder = Embedder::builder().gpu(gpu());
        let builder = if let Some(normalize) = normalize { builder.normalize(normalize) } else { builder };
        let rows = builder.from_dir(asks.path()).unwrap().embed_tokens(&sequences).unwrap();
        table.close(format!("{settings} {normalize:?}"), rows.as_slice(), &expected, BOUND);
    }
    for dimensions in [0, 21] {
        let refused = Embedder::builder().gpu(gpu()).dimensions(dimensions).from_dir(&folder).err().unwrap().to_string();
        table.check("dimensions", refused.contains(&format!("{dimensions} dimensions")) && refused.contains("have 20"), &refused);
    }
    table.finish();
}

/// Sizes that are no multiple of anything, against the f64 loops.
#[test]
fn sizes_that_no_model_has() {
    let mut table = Table::new("odd sizes");
    let root = tempfile::tempdir().unwrap();
    let cases =
        [(30, 3, 50, "gelu"), (9, 1, 1, "relu"), (33, 3, 7, "gelu_new"), (128, 1, 130, "tanh"), (250, 5, 33, "gelu"), (80, 10, 81, "gelu")];
    for (hidden, heads, intermediate, activation) in cases {
        let name = format!("{hidden} in {heads} heads, {intermediate}");
        let config = serde_json::json!({
            "model_type": "bert", "vocab_size": 37, "hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": heads,
            "intermediate_size": intermediate, "hidden_act": activation, "max_position_embeddings": 70, "type_vocab_size": 2, "pad_token_id": 0,
            "layer_norm_eps": 1e-6,
        });
        let model = synthetic_bert(&name, config, [37, 70, hidden, intermediate]);
        let folder = model_folder_in(root.path(), &model).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let plain = reference::Encoder::new(&checkpoint.config, &checkpoint.encoder().unwrap()).unwrap();
        let extractor = FeatureExtractor::builder().gpu(gpu()).from_dir(&folder).unwrap();
        let texts: Vec<Vec<u32>> = [1, 2, 31, 33, 70].iter().map(|&n| (0..n).map(|i| (i * 11 + n) % 37).collect()).collect();
        let sequences: Vec<_> = texts.iter().map(|ids| Sequence { ids, ..Default::default() }).collect();
        for (features, ids) in extractor.features_of_tokens(&sequences).unwrap().iter().zip(&texts) {
            table.close(format!("{name}, {} tokens", ids.len()), features.as_slice(), &plain.hidden(ids, &[]), BOUND);
        }
    }
    table.finish();
}

fn synthetic_bert(name: &str, config: serde_json::Value, [vocabulary, positions, hidden, intermediate]: [usize; 4]) -> Model {
    let mut tensors = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| _ = tensors.insert(name, shape.to_vec());
    for (table, rows) in [("word", vocabulary), ("position", positions), ("token_type", 2)] {
        add(format!("embeddings.{table}_embeddings.weight"), &[rows, hidden]);
    }
    let mut layers = vec!["embeddings".to_owned()];
    for layer in ["encoder.layer.0", "encoder.layer.1"] {
        layers.extend([format!("{layer}.attention.output"), format!("{layer}.output")]);
        let square = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"];
        let linears = square.map(|name| (name, hidden, hidden)).into_iter();
        for (name, outer, inner) in linears.chain([("intermediate.dense", intermediate, hidden), ("output.dense", hidden, intermediate)]) {
            add(format!("{layer}.{name}.weight"), &[outer, inner]);
            add(format!("{layer}.{name}.bias"), &[outer]);
        }
    }
    for norm in layers {
        add(format!("{norm}.LayerNorm.weight"), &[hidden]);
        add(format!("{norm}.LayerNorm.bias"), &[hidden]);
    }
    let parameters = tensors.values().map(|shape: &Vec<usize>| shape.iter().product::<usize>()).sum();
    Model { name: name.to_owned(), dtype: "float64".to_owned(), config, parameters, tensors, texts: Vec::new() }
}

/// As in transformers' pipeline: where a text and a hypothesis are too long, only the text is cut.
#[test]
fn zero_shot_cuts_the_text_and_never_the_hypothesis() {
    let folder = with_labels(&common::fixture("families").join("bert-sequence"), ["contradiction", "entailment", "neutral"]);
    let classifier = ZeroShot::builder().gpu(gpu()).from_dir(folder.path()).unwrap();
    let words = |first: usize, count: usize| (first..first + count).map(|i| format!("w{i}")).collect::<Vec<_>>().join(" ");
    // Of 24 tokens three are special, and fifteen those of a hypothesis.
    let (long, cut) = (words(0, 30), words(0, 6));
    let labels = [words(20, 13), words(25, 13)];
    let options = ZeroShotOptions { template: "w8 {} w9", ..ZeroShotOptions::default() };
    let blocking = classifier.classify(&[&long, &cut], &labels, &options).unwrap();
    let awaited = pollster::block_on(classifier.classify_async(&[&long, &cut], &labels, &options)).unwrap();
    assert_eq!(blocking, awaited);
    assert_eq!(blocking[0].labels, blocking[1].labels);
    assert_eq!([&blocking[0], &blocking[1]].map(|result| result.length.truncated()), [true, false]);
}

#[test]
fn a_head_that_is_not_there_is_refused_with_what_is() {
    let mut table = Table::new("missing heads");
    let folder = |name: &str| common::fixture("families").join(name);
    let mut expect = |name: &str, result: Result<(), minilm::Error>, words: &[&str]| {
        let message = result.expect_err(name).to_string();
        table.check(name, words.iter().all(|word| message.contains(word)), &message);
    };
    expect(
        "masked as classifier",
        Classifier::builder().gpu(gpu()).from_dir(folder("bert-masked")).map(|_| ()),
        &["this folder has no classifier; it can do: embed, features, fill-mask"],
    );
    expect(
        "sequence as tagger",
        Tagger::builder().gpu(gpu()).from_dir(folder("bert-sequence")).map(|_| ()),
        &["no token classifier; it can do: embed, features, classify"],
    );
    expect(
        "token as classifier",
        Classifier::builder().gpu(gpu()).from_dir(folder("distilbert-token")).map(|_| ()),
        &["no classifier; it can do: embed, features, tag"],
    );
    expect(
        "base as answerer",
        Answerer::builder().gpu(gpu()).from_dir(folder("mpnet-base")).map(|_| ()),
        &["no head that finds answers; it can do: embed, features"],
    );
    expect(
        "span as filler",
        FillMask::builder().gpu(gpu()).from_dir(folder("electra-span")).map(|_| ()),
        &["no head that fills masks; it can do: embed, features, answer"],
    );
    expect(
        "three labels as reranker",
        minilm::Reranker::builder().gpu(gpu()).from_dir(folder("bert-sequence")).map(|_| ()),
        &["a reranker gives one score, but this classifier has 3 labels"],
    );
    expect(
        "no entailment",
        ZeroShot::builder().gpu(gpu()).from_dir(folder("bert-sequence")).map(|_| ()),
        &["a label `entailment`", "b-per"],
    );
    expect(
        "no pooler",
        FeatureExtractor::builder().gpu(gpu()).pooler(true).from_dir(folder("xlm-languages")).map(|_| ()),
        &["this folder has no pooler; it can do: embed, features"],
    );
    table.finish();
}
