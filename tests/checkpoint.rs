//! Model folders that are sound: token ids equal those of the reference, tensors have the right shapes, eight-bit copies stay close.

mod common;

use std::fs;
use std::path::Path;

use common::compare::Table;
use common::golden::Golden;
use common::small_model::{change_config, change_tensor, safetensors, small_folder, small_tensors, tensors_of, write, write_json};
use common::{fixture, reference};
use minilm::checkpoint::{Activation, Checkpoint, DenseModule, Dtype, EncoderConfig, Encoding, Module, Pooling, quantize};
use serde_json::{Value, json};

const FOLDERS: [&str; 5] = [
    "tiny-minilm-bert-l3-h96",
    "tiny-minilm-bert-odd-h80",
    "tiny-bert-base-l4-h64-sharded",
    "tiny-bert-legacy-names",
    "tiny-mminilm-bert-xlmr-l3-h96",
];
/// Run where the reference models are at hand.
const LARGE_FOLDERS: [&str; 3] = ["all-minilm-l6-v2-f16", "e5-small-multilingual-19k-f16", "minilm-l12-h384-f16"];

#[test]
fn token_ids_are_those_of_the_reference() {
    let mut table = Table::new("token ids");
    let folders = FOLDERS.iter().map(|name| fixture(name)).chain(LARGE_FOLDERS.iter().filter_map(|name| reference(name)));
    for folder in folders {
        let (golden, tokenizer) = (Golden::open(&folder), Checkpoint::open(&folder).unwrap().tokenizer);
        for case in &golden.cases {
            let name = format!("{} {}", folder.display(), case.id);
            let encoding = tokenizer.encode(&case.text, case.text_pair.as_deref(), golden.max_length).unwrap();
            table.equal(&name, &encoding.ids, &case.input_ids);
            if let Some(type_ids) = &case.token_type_ids {
                table.equal(&name, &encoding.type_ids, type_ids);
            }
            table.check(&name, encoding.truncated == case.truncated, format!("truncated is {}", encoding.truncated));
            let total = encoding.total_tokens;
            let plausible = if case.truncated { total > golden.max_length } else { total == case.n_tokens };
            table.check(&name, plausible, format!("{total} tokens before truncation, {} after", case.n_tokens));

            let (same, sources) = tokenizer.encode_with_sources(&case.text, case.text_pair.as_deref(), golden.max_length).unwrap();
            table.check(&name, same == encoding, "other ids with sources than without");
            let texts = [case.text.as_str(), case.text_pair.as_deref().unwrap_or_default()];
            let inside = |source: &minilm::checkpoint::TokenSource| match source.sequence {
                Some(sequence) => texts[sequence].get(source.bytes.clone()).is_some(),
                None => source.bytes.is_empty(),
            };
            table.check(&name, sources.len() == encoding.ids.len() && sources.iter().all(inside), format!("wrong sources {sources:?}"));
        }
    }
    table.finish();
}

/// A vocabulary file with its settings gives what the `tokenizer.json` of the same model gives.
#[test]
fn vocabulary_files_give_the_ids_of_tokenizer_json() {
    let mut table = Table::new("vocab.txt");
    for name in ["tiny-minilm-bert-l3-h96", "tiny-bert-legacy-names"] {
        let folder = copy(&fixture(name));
        fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
        let golden = Golden::fixture(name);
        let tokenizer = Checkpoint::open(folder.path()).unwrap().tokenizer;
        for case in &golden.cases {
            let encoding = tokenizer.encode(&case.text, case.text_pair.as_deref(), golden.max_length).unwrap();
            table.equal(format!("{name} {}", case.id), &encoding.ids, &case.input_ids);
        }
    }
    table.finish();
}

#[test]
fn long_texts_and_small_limits() {
    let tokenizer = Checkpoint::open(fixture("tiny-minilm-bert-l3-h96")).unwrap().tokenizer;
    let text = "words of a text ".repeat(25_000);
    for (pair, specials) in [(None, 2), (Some(text.as_str()), 3)] {
        let encoding = tokenizer.encode(&text, pair, 64).unwrap();
        assert!(encoding.truncated && encoding.ids.len() == 64 && encoding.type_ids.len() == 64);
        assert!(encoding.total_tokens >= 100_000 + specials, "{}", encoding.total_tokens);
        let specials_only = tokenizer.encode(&text, pair, specials).unwrap();
        assert!(specials_only.truncated && specials_only.ids.len() == specials);
        let error = tokenizer.encode("a", pair.map(|_| "b"), specials - 1).unwrap_err().to_string();
        assert!(error.contains(&format!("{} tokens", specials - 1)) && error.contains(&format!("{specials} special")), "{error}");
    }
    let sources = tokenizer.encode_with_sources("first", Some("second"), 64).unwrap().1;
    assert_eq!((sources[0].sequence, sources[1].sequence, sources.last().unwrap().sequence), (None, Some(0), None));
    assert!(sources.iter().any(|source| source.sequence == Some(1) && source.bytes.start == 0));
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let folder = small_folder();
    // A tokenizer that knows one word more than the model has rows for.
    write(folder.path(), "vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\nd\n");
    let tokenizer = Checkpoint::open(folder.path()).unwrap().tokenizer;
    tokenizer.encode("a b c", None, 6).unwrap();
    let error = tokenizer.encode("a d", None, 6).unwrap_err().to_string();
    assert!(["token 2", "`d`", "id 8", "vocabulary of 8"].iter().all(|word| error.contains(word)), "{error}");
    assert_eq!(tokenizer.id("[CLS]"), Some(2));
}

#[test]
fn texts_are_lowercased_where_the_folder_says_so() {
    let folder = small_folder();
    write_json(folder.path(), "tokenizer_config.json", json!({"do_lower_case": false}));
    let ids = || Checkpoint::open(folder.path()).unwrap().tokenizer.encode("A", Some("B"), 6).unwrap().ids;
    assert_eq!(ids(), [2, 1, 3, 1, 3]);
    write_json(folder.path(), "sentence_bert_config.json", json!({"max_seq_length": 6, "do_lower_case": true}));
    assert_eq!(ids(), [2, 5, 3, 6, 3]);
}

/// As transformers cuts: the longer text first, or only the first one; at the end, or where the folder says so at the beginning.
#[test]
fn texts_are_cut_where_the_folder_and_the_task_say() {
    let folder = small_folder();
    let expect = |longest: [u32; 6], first: [u32; 6], shorter: [u32; 7], alone: [u32; 4]| {
        let tokenizer = Checkpoint::open(folder.path()).unwrap().tokenizer;
        let ids = |encoding: minilm::Result<Encoding>| encoding.unwrap().ids;
        assert_eq!(ids(tokenizer.encode("a b c", Some("c a"), 6)), longest);
        assert_eq!(ids(tokenizer.encode_beside("b c", "c a", 6)), first);
        assert_eq!(ids(tokenizer.encode_beside("b c", "c a a", 7)), shorter);
        // No room for the first text: both are cut.
        assert_eq!(ids(tokenizer.encode_beside("a b c", "c a a a", 6)).len(), 6);
        assert_eq!(ids(tokenizer.encode("a b c", None, 4)), alone);
    };
    expect([2, 5, 6, 3, 7, 3], [2, 6, 3, 7, 5, 3], [2, 6, 3, 7, 5, 5, 3], [2, 5, 6, 3]);
    write_json(folder.path(), "tokenizer_config.json", json!({"truncation_side": "left"}));
    expect([2, 6, 7, 3, 5, 3], [2, 7, 3, 7, 5, 3], [2, 7, 3, 7, 5, 5, 3], [2, 6, 7, 3]);
    write_json(folder.path(), "tokenizer_config.json", json!({"truncation_side": "middle"}));
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(["`truncation_side`", "right or left", "\"middle\""].iter().all(|word| error.contains(word)), "{error}");
}

#[test]
fn types_are_zeros_where_the_model_has_only_one() {
    let folder = small_folder();
    let types = || Checkpoint::open(folder.path()).unwrap().tokenizer.encode("a", Some("b"), 6).unwrap().type_ids;
    assert_eq!(types(), [0, 0, 0, 1, 1]);
    // What transformers' class gives the model, unless the folder names it.
    for (settings, expected) in [
        (json!({"tokenizer_class": "DistilBertTokenizer"}), [0; 5]),
        (json!({"tokenizer_class": "DistilBertTokenizer", "model_input_names": ["input_ids", "token_type_ids"]}), [0, 0, 0, 1, 1]),
        (json!({"model_input_names": ["input_ids", "attention_mask"]}), [0; 5]),
        (json!({}), [0, 0, 0, 1, 1]),
    ] {
        write_json(folder.path(), "tokenizer_config.json", settings);
        assert_eq!(types(), expected);
    }
    change_config(folder.path(), |config| config["type_vocab_size"] = json!(1));
    change_tensor(folder.path(), "embeddings.token_type_embeddings.weight", |tensor| {
        tensor.1 = vec![1, 16];
        tensor.2.truncate(64);
    });
    assert_eq!(types(), [0; 5]);
}

#[test]
fn encoders_have_the_shapes_of_their_configuration() {
    for name in FOLDERS {
        let checkpoint = Checkpoint::open(fixture(name)).unwrap();
        let (config, encoder) = (&checkpoint.config, checkpoint.encoder().unwrap());
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        assert_eq!(encoder.word.shape, [config.vocabulary, hidden], "{name}");
        assert_eq!(encoder.position.shape, [config.position_rows, hidden], "{name}");
        assert_eq!(encoder.token_type.unwrap().shape, [config.token_types, hidden], "{name}");
        assert_eq!(encoder.layers.len(), config.layers, "{name}");
        assert_eq!(checkpoint.max_length(), Golden::fixture(name).max_length, "{name}");
        for layer in &encoder.layers {
            assert_eq!((layer.up.weight.shape, layer.up.bias.shape), (&[intermediate, hidden][..], &[intermediate][..]), "{name}");
            assert_eq!((layer.down.weight.shape, layer.down.bias.shape), (&[hidden, intermediate][..], &[hidden][..]), "{name}");
        }
        for tensor in tensors_of(&encoder) {
            let values = tensor.values().unwrap();
            assert!(values.iter().any(|&value| value != 0.0), "{name}: {tensor:?} is all zeros");
            let mut row = vec![0.0; tensor.columns()];
            tensor.read_row(tensor.rows() - 1, &mut row).unwrap();
            assert_eq!(row, values[values.len() - row.len()..], "{name}: {tensor:?}");
        }
    }
}

#[test]
fn numbers_of_every_type_are_read_at_any_alignment() {
    let numbers = [0.0, -0.0, 1.0, -1.5, 0.25, 65504.0, -6.1e-5, 0.000_061_035_156, 3.0, -1024.0, 7.5, -0.125];
    let folder = small_folder();
    for (dtype, expected) in [("F32", Dtype::F32), ("F16", Dtype::F16), ("BF16", Dtype::BF16)] {
        let mut tensors = small_tensors();
        let bytes: Vec<u8> = numbers.iter().flat_map(|&number| bytes_of(number, dtype)).collect();
        tensors.insert("a".into(), ("U8".into(), vec![3], vec![0; 3]));
        tensors.insert("ab".into(), (dtype.into(), vec![3, 4], bytes));
        fs::write(folder.path().join("model.safetensors"), safetensors(&tensors)).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let tensor = checkpoint.tensors().get("ab").unwrap();
        assert_eq!((tensor.dtype, tensor.rows(), tensor.columns()), (expected, 3, 4));
        for (value, number) in tensor.values().unwrap().iter().zip(numbers) {
            let error = if dtype == "F32" { 0.0 } else { number.abs() / 200.0 };
            assert!((value - number).abs() <= error, "{dtype}: {value} instead of {number}");
        }
        let mut rows = [0.0; 8];
        tensor.read_rows(1, &mut rows).unwrap();
        assert_eq!(rows, tensor.values().unwrap()[4..]);
        assert!(
            tensor.read_rows(2, &mut rows).is_err()
                && tensor.read_row(0, &mut rows).is_err()
                && tensor.read_row(3, &mut rows[..4]).is_err()
        );
    }
}

#[test]
fn sentence_settings_are_read() {
    let folder = small_folder();
    let write = |name: &str, value: Value| write_json(folder.path(), name, value);
    let settings = || Checkpoint::open(folder.path()).unwrap();
    assert_eq!((settings().sentence.pooling, settings().sentence.modules, settings().max_length()), (None, vec![], 6));

    write("tokenizer_config.json", json!({"model_max_length": 5}));
    assert_eq!(settings().max_length(), 5);
    write("tokenizer_config.json", json!({"model_max_length": 1e30}));
    assert_eq!(settings().max_length(), 6);
    write("sentence_bert_config.json", json!({"max_seq_length": 4, "do_lower_case": true}));
    assert_eq!((settings().max_length(), settings().sentence.lower_case), (4, true));
    write("sentence_bert_config.json", json!({"max_seq_length": 512}));
    assert_eq!(settings().max_length(), 6);

    let modules = ["sentence_transformers.models.Transformer", "new.place.Pooling", "Dense", "LayerNorm", "Dropout", "Normalize"];
    let paths = ["", "1_Pooling", "2_Dense", "3_LayerNorm", "4_Dropout", "5_Normalize"];
    let list: Vec<_> = modules.iter().zip(paths).map(|(kind, path)| json!({"type": kind, "path": path})).collect();
    write("modules.json", json!(list));
    let dense = json!({"in_features": 16, "out_features": 8, "bias": true, "activation_function": "torch.nn.modules.activation.Tanh"});
    write("2_Dense/config.json", dense);
    write("3_LayerNorm/config.json", json!({"dimension": 8}));
    for (pooling, expected) in [
        (json!({"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true, "word_embedding_dimension": 16}), Pooling::Mean),
        (json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}), Pooling::Cls),
        (json!({"pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": false}), Pooling::Max),
        (json!({"pooling_mode_mean_sqrt_len_tokens": true, "pooling_mode_mean_tokens": false}), Pooling::MeanSqrtLen),
        (json!({"pooling_mode_weightedmean_tokens": true, "pooling_mode_mean_tokens": false}), Pooling::WeightedMean),
        (json!({"pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": false}), Pooling::LastToken),
        (json!({}), Pooling::Mean),
        (json!({"pooling_mode_mean_tokens": false}), Pooling::Mean),
        (json!({"pooling_mode": "cls", "embedding_dimension": 16}), Pooling::Cls),
        (json!({"pooling_mode": ["mean_sqrt_len_tokens"]}), Pooling::MeanSqrtLen),
    ] {
        write("1_Pooling/config.json", pooling);
        assert_eq!(settings().sentence.pooling, Some(vec![expected]));
    }
    let module =
        DenseModule { folder: "2_Dense".into(), inputs: 16, outputs: 8, bias: true, activation: Some(Activation::Tanh), residual: false };
    let expected = [Module::Dense(module), Module::LayerNorm { folder: "3_LayerNorm".into(), width: 8 }, Module::Normalize];
    assert_eq!(settings().sentence.modules, expected);
    // The older switches have an order of their own, a list has the caller's.
    let all = json!({
        "pooling_mode_mean_tokens": true, "pooling_mode_lasttoken": true, "pooling_mode_cls_token": true, "pooling_mode_max_tokens": true,
    });
    write("modules.json", json!(list[..2]));
    write("1_Pooling/config.json", all);
    assert_eq!(settings().sentence.pooling, Some(vec![Pooling::Cls, Pooling::Max, Pooling::Mean, Pooling::LastToken]));
    write("1_Pooling/config.json", json!({"pooling_mode": ["mean", "cls"]}));
    assert_eq!(settings().sentence.pooling, Some(vec![Pooling::Mean, Pooling::Cls]));

    write("config_sentence_transformers.json", json!({"prompts": {"query": "q: "}, "default_prompt_name": "query"}));
    assert_eq!((settings().sentence.prompts["query"].as_str(), settings().sentence.default_prompt.as_deref()), ("q: ", Some("query")));
}

/// Sizes of heads that transformers takes and the kernel runs, of less than a vector too.
#[test]
fn heads_may_be_as_small_as_one() {
    let folder = small_folder();
    for (heads, head_dim) in [(16, 1), (8, 2), (4, 4)] {
        change_config(folder.path(), |config| config["num_attention_heads"] = json!(heads));
        assert_eq!(Checkpoint::open(folder.path()).unwrap().config.head_dim(), head_dim);
    }
}

#[test]
fn positions_of_roberta_start_after_padding() {
    let folder = small_folder();
    change_config(folder.path(), |config| config["model_type"] = json!("xlm-roberta"));
    let config = Checkpoint::open(folder.path()).unwrap().config;
    assert_eq!((config.position_offset, config.max_tokens(), config.head_dim()), (2, 4, 8));
    // MPNet's padding is 1, whatever the file says, and its distances have 32 buckets.
    change_config(folder.path(), |config| (config["model_type"], config["pad_token_id"]) = (json!("mpnet"), json!(4)));
    let config = EncoderConfig::open(folder.path().join("config.json")).unwrap();
    assert_eq!((config.position_offset, config.padding(), config.relative_buckets), (2, Some(1), 32));
    change_config(folder.path(), |config| config["relative_attention_num_buckets"] = json!(16));
    let error = EncoderConfig::open(folder.path().join("config.json")).unwrap_err().to_string();
    assert!(["`relative_attention_num_buckets`", "expected 32", "found 16"].iter().all(|word| error.contains(word)), "{error}");
}

#[test]
fn eight_bit_copies_stay_close() {
    let output = tempfile::tempdir().unwrap();
    let output = output.path().join("int8");
    let input = fixture("tiny-bert-legacy-names");
    let report = quantize(&input, &output).unwrap();
    assert_eq!(report.tensors_quantized, 1 + 2 * 6);
    assert_eq!(report.bytes_out, fs::metadata(output.join("model.safetensors")).unwrap().len());
    assert!(report.bytes_out < report.bytes_in * 4 / 10, "{report:?}");
    assert!(report.max_relative_error < 0.01 && report.mean_relative_error <= report.max_relative_error, "{report:?}");

    let (before, after) = (Checkpoint::open(&input).unwrap(), Checkpoint::open(&output).unwrap());
    assert_eq!((after.encoder().unwrap().word.dtype, after.encoder().unwrap().position.dtype), (Dtype::I8, Dtype::F32));
    for (before, after) in tensors_of(&before.encoder().unwrap()).iter().zip(tensors_of(&after.encoder().unwrap())) {
        let (before, values) = (before.values().unwrap(), after.values().unwrap());
        for (before, values) in before.chunks(after.columns()).zip(values.chunks(after.columns())) {
            let largest = before.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let bound = if after.dtype == Dtype::I8 { largest / 127.0 * 0.5001 } else { 0.0 };
            assert!(before.iter().zip(values).all(|(before, value)| (before - value).abs() <= bound), "{after:?}");
        }
    }
    assert!(!output.join("golden.json").exists());

    let text = |result: minilm::Result<_>| result.err().map_or_else(|| "no error".into(), |error| error.to_string());
    assert!(text(quantize(&input, &output)).contains("expected the name of a new or an empty folder"));
    let again = output.with_file_name("again");
    assert!(text(quantize(&output, &again)).contains("is I8 already"));
    let left: Vec<_> = fs::read_dir(output.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "unfinished folders are left: {left:?}");
}

fn bytes_of(number: f32, dtype: &str) -> Vec<u8> {
    match dtype {
        "F16" => half::f16::from_f32(number).to_le_bytes().to_vec(),
        "BF16" => half::bf16::from_f32(number).to_le_bytes().to_vec(),
        _ => number.to_le_bytes().to_vec(),
    }
}

/// A copy of a folder's files.
fn copy(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    copy
}
