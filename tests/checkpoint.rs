//! Model folders: token ids equal those of the reference, tensors have the right shapes, eight-bit copies stay close, and no damaged
//! folder gets past the checks or causes a panic.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use common::compare::Table;
use common::golden::Golden;
use common::{fixture, reference};
use minilm::checkpoint::{Activation, Checkpoint, DenseModule, Dtype, EncoderWeights, Linear, Module, Norm, Pooling, Tensor, quantize};
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

#[test]
fn types_are_zeros_where_the_model_has_only_one() {
    let folder = small_folder();
    let types = || Checkpoint::open(folder.path()).unwrap().tokenizer.encode("a", Some("b"), 6).unwrap().type_ids;
    assert_eq!(types(), [0, 0, 0, 1, 1]);
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

#[test]
fn positions_of_roberta_start_after_padding() {
    let folder = small_folder();
    change_config(folder.path(), |config| config["model_type"] = json!("xlm-roberta"));
    let config = Checkpoint::open(folder.path()).unwrap().config;
    assert_eq!((config.position_offset, config.max_tokens(), config.head_dim()), (2, 4, 8));
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

/// What is wrong with a folder, the change that makes it so, and words that the error must have.
type Hostile = (&'static str, fn(&Path), &'static [&'static str]);

#[rustfmt::skip]
const HOSTILE_FOLDERS: &[Hostile] = &[
    ("no folder", |folder| fs::remove_dir_all(folder).unwrap(), &["the model folder cannot be read"]),
    ("a file", |folder| fs::remove_dir_all(folder).and_then(|()| fs::write(folder, "")).unwrap(),
        &["expected a model folder", "found a file"]),
    ("empty folder", |folder| fs::remove_dir_all(folder).and_then(|()| fs::create_dir(folder)).unwrap(), &["config.json", "no such file"]),
    ("no config", |folder| remove(folder, "config.json"), &["config.json", "no such file"]),
    ("config cut", |folder| cut(folder, "config.json", 30), &["config.json", "expected JSON", "EOF"]),
    ("config not text", |folder| write(folder, "config.json", b"{\"a\": \"\xff\"}"), &["config.json", "UTF-8", "offset 7"]),
    ("config a list", |folder| write(folder, "config.json", b"[1, 2]"), &["config.json", "JSON object", "a list of 2"]),
    ("config a folder", |folder| make_folder(folder, "config.json"), &["config.json", "cannot be read"]),
    ("no layers", |folder| config(folder, "num_hidden_layers", json!(0)), &["`num_hidden_layers`", "at least 1", "found 0"]),
    ("layers missing", |folder| config(folder, "num_hidden_layers", json!(null)), &["`num_hidden_layers`", "no such field"]),
    ("negative layers", |folder| config(folder, "num_hidden_layers", json!(-1)), &["`num_hidden_layers`", "whole number", "found -1"]),
    ("too many layers", |folder| config(folder, "num_hidden_layers", json!(3)),
        &["encoder.layer.1.attention.self.query.weight", "missing"]),
    ("layers a text", |folder| config(folder, "num_hidden_layers", json!("1")), &["`num_hidden_layers`", "whole number", "found \"1\""]),
    ("absurd hidden", |folder| config(folder, "hidden_size", json!(u64::MAX)), &["`hidden_size`", "16777216", "18446744073709551615"]),
    ("fractional hidden", |folder| config(folder, "hidden_size", json!(16.5)), &["`hidden_size`", "whole number", "16.5"]),
    ("heads do not divide", |folder| config(folder, "num_attention_heads", json!(3)),
        &["`num_attention_heads`", "divisor", "16", "found 3"]),
    ("no heads", |folder| config(folder, "num_attention_heads", json!(0)), &["`num_attention_heads`", "at least 1"]),
    ("small heads", |folder| config(folder, "num_attention_heads", json!(4)), &["`num_attention_heads`", "8 to 128", "heads of 4"]),
    ("unknown family", |folder| config(folder, "model_type", json!("gpt2")), &["`model_type`", "bert", "xlm-roberta", "\"gpt2\""]),
    ("no family", |folder| config(folder, "model_type", json!(null)), &["`model_type`", "bert", "no such field"]),
    ("labels a list", |folder| config(folder, "id2label", json!(["a"])), &["`id2label`", "numbers and labels", "a list of 1"]),
    ("label of a huge number", |folder| config(folder, "id2label", json!({"99999999999": "a"})), &["`id2label`", "\"99999999999\""]),
    ("unknown problem", |folder| config(folder, "problem_type", json!("ranking")), &["`problem_type`", "regression", "\"ranking\""]),
    ("unknown activation", |folder| config(folder, "hidden_act", json!("swiglu")), &["`hidden_act`", "gelu", "\"swiglu\""]),
    ("ALiBi", |folder| config(folder, "position_embedding_type", json!("alibi")), &["`position_embedding_type`", "absolute", "\"alibi\""]),
    ("gated", |folder| config(folder, "feed_forward_type", json!("geglu")), &["`feed_forward_type`", "original", "\"geglu\""]),
    ("rotary", |folder| config(folder, "rope_theta", json!(10000.0)), &["`rope_theta`", "positions are learned", "10000"]),
    ("decoder", |folder| config(folder, "is_decoder", json!(true)), &["`is_decoder`", "false", "true"]),
    ("eps 0", |folder| config(folder, "layer_norm_eps", json!(0.0)), &["`layer_norm_eps`", "between 0 and 1", "found 0"]),
    ("eps vanishes", |folder| config(folder, "layer_norm_eps", json!(1e-60)), &["`layer_norm_eps`", "between 0 and 1"]),
    ("padding outside",
        |folder| change_config(folder, |config| (config["model_type"], config["pad_token_id"]) = (json!("roberta"), json!(8))),
        &["`pad_token_id`", "less than `vocab_size` 8", "found 8"]),
    ("positions all used up",
        |folder| change_config(folder, |config| (config["model_type"], config["pad_token_id"]) = (json!("roberta"), json!(5))),
        &["`max_position_embeddings`", "more than 6", "found 6"]),
    ("other positions", |folder| config(folder, "max_position_embeddings", json!(8)),
        &["position_embeddings.weight", "[6, 16]", "[8, 16]", "max_position_embeddings"]),
    ("other vocabulary", |folder| config(folder, "vocab_size", json!(7)), &["word_embeddings.weight", "[8, 16]", "[7, 16]", "vocab_size"]),
    ("other types", |folder| config(folder, "type_vocab_size", json!(1)),
        &["token_type_embeddings.weight", "[2, 16]", "[1, 16]", "type_vocab_size"]),
    ("no weights", |folder| remove(folder, "model.safetensors"), 
        &["no weights", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"]),
    ("weights a folder", |folder| make_folder(folder, "model.safetensors"), &["model.safetensors", "found a folder"]),
    ("other weights", |folder| { fs::rename(folder.join("model.safetensors"), folder.join("tf_model.h5")).unwrap(); },
        &["expected model.safetensors or pytorch_model.bin", "only tf_model.h5", "not supported"]),
    ("empty weights", |folder| write(folder, "model.safetensors", b""), &["model.safetensors", "empty file"]),
    ("no header", |folder| write(folder, "model.safetensors", b"abc"), &["model.safetensors", "at least 8 bytes", "found 3"]),
    ("weights cut", |folder| cut(folder, "model.safetensors", length(folder) - 10),
        &["model.safetensors", "ends at byte", "found only", "cut"]),
    ("header cut", |folder| cut(folder, "model.safetensors", 20), &["model.safetensors", "expected a header of", "found 12"]),
    ("trailing bytes", |folder| {
        let mut bytes = fs::read(folder.join("model.safetensors")).unwrap();
        bytes.extend([0; 7]);
        write(folder, "model.safetensors", &bytes);
    }, &["model.safetensors", "expected", "found", "longer than its tensors"]),
    ("header of gigabytes", |folder| {
        let mut bytes = fs::read(folder.join("model.safetensors")).unwrap();
        bytes[..8].copy_from_slice(&(8_u64 << 30).to_le_bytes());
        write(folder, "model.safetensors", &bytes);
    }, &["model.safetensors", "at most 4194304", "8589934592"]),
    ("header not JSON", |folder| header(folder, b"{\"a\": oops}", 0), &["model.safetensors", "header is damaged", "column"]),
    ("header lies about length", |folder| tensors_at(folder, &[("a", "F32", &[2, 2], [0, 12])], 12),
        &["`a`", "12 bytes", "expected 16", "[2, 2]"]),
    ("tensors overlap", |folder| tensors_at(folder, &[("a", "I8", &[8], [0, 8]), ("b", "I8", &[8], [4, 12])], 12),
        &["`b`", "bytes 4 to 12", "expected a start at 8"]),
    ("hole", |folder| tensors_at(folder, &[("a", "I8", &[4], [4, 8])], 8), &["`a`", "bytes 4 to 8", "expected a start at 0"]),
    ("offsets backwards", |folder| tensors_at(folder, &[("a", "I8", &[4], [0, 8]), ("b", "I8", &[4], [8, 4])], 8),
        &["8 bytes", "expected 4"]),
    ("negative offsets", |folder| tensors_at(folder, &[("a", "I8", &[4], [-4, 0])], 8), &["header is damaged", "-4"]),
    ("shape overflows", |folder| tensors_at(folder, &[("a", "F32", &[4294967296, 4294967296], [0, 8])], 8),
        &["`a`", "impossible shape", "4294967296"]),
    ("shape overflows though empty", |folder| tensors_at(folder, &[("a", "F32", &[0, 4294967296, 4294967296], [0, 0])], 0),
        &["`a`", "impossible shape"]),
    ("offsets overflow", |folder| {
        let part = (1_u64 << 61) - 8;
        let tensor = |i: u64| (format!("t{i}"), json!({"dtype": "U8", "shape": [part], "data_offsets": [i * part, (i + 1) * part]}));
        header(folder, Value::Object((0..8).map(tensor).collect()).to_string().as_bytes(), 56);
    }, &["`t0`", "cut"]),
    ("a million tensors", |folder| {
        let tensor = |i: u32| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
        let tensors = (0..1_000_000).map(tensor).collect::<Vec<_>>().join(",");
        header(folder, format!("{{{tensors}}}").as_bytes(), 0);
    }, &["model.safetensors", "header of at most 4194304 bytes", "found a length of 5"]),
    ("two tensors of a name", |folder| {
        let tensor = r#""a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
        header(folder, format!("{{{tensor},{tensor}}}").as_bytes(), 0);
    }, &["`a`", "twice"]),
    ("tensor of a long name", |folder| tensors_at(folder, &[(&"a".repeat(2000), "I8", &[4], [0, 4])], 4),
        &["has a name of 2000 bytes", "at most 1024"]),
    ("many dimensions", |folder| tensors_at(folder, &[("a", "I8", &[1; 1000], [0, 1])], 1), &["`a`", "1000 dimensions", "at most 8"]),
    ("unknown type of number", |folder| tensors_at(folder, &[("a", "F7", &[4], [0, 8])], 8), &["header is damaged", "F7"]),
    ("other model", |folder| rename_tensor(folder, "embeddings.word_embeddings.weight", "wte.weight"),
        &["embeddings.word_embeddings.weight", "missing", "bert."]),
    ("missing tensor", |folder| rename_tensor(folder, "encoder.layer.0.output.dense.bias", "x"),
        &["encoder.layer.0.output.dense.bias", "missing"]),
    ("missing norm", |folder| rename_tensor(folder, "embeddings.LayerNorm.weight", "x"), &["embeddings.LayerNorm.weight", "missing"]),
    ("wrong shape", |folder| change_tensor(folder, "encoder.layer.0.output.dense.weight", |tensor| tensor.1 = vec![24, 16]),
        &["encoder.layer.0.output.dense.weight", "[24, 16]", "expected [16, 24]", "hidden_size, intermediate_size"]),
    ("wrong type",
        |folder| change_tensor(folder, "encoder.layer.0.output.dense.bias", |tensor| *tensor = ("I64".into(), vec![16], vec![0; 128])),
        &["encoder.layer.0.output.dense.bias", "I64", "expected F32, F16, BF16 or I8"]),
    ("NaN", |folder| {
        let offset = 4 * (24 * 3 + 7);
        let change = |bytes: &mut [u8]| bytes[offset..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        change_tensor(folder, "encoder.layer.0.output.dense.weight", |tensor| change(&mut tensor.2));
    }, &["encoder.layer.0.output.dense.weight", "NaN", "row 3", "column 7"]),
    ("infinity in half precision", |folder| {
        let infinities = [[0, 0x7c]; 16].concat();
        change_tensor(folder, "encoder.layer.0.output.dense.bias", |tensor| *tensor = ("F16".into(), vec![16], infinities));
    }, &["encoder.layer.0.output.dense.bias", "infinity", "row 0, column 0"]),
    ("no scale", |folder| quantized(folder, None), &["attention.self.key.weight.scale", "missing", "I8"]),
    ("scale of other shape", |folder| quantized(folder, Some((vec![8], 1.0))),
        &["attention.self.key.weight.scale", "F32 [8]", "expected F32 [16]"]),
    ("NaN scale", |folder| quantized(folder, Some((vec![16], f32::NAN))), &["attention.self.key.weight", "scale", "row 0"]),
    ("infinite scale", |folder| quantized(folder, Some((vec![16], f32::INFINITY))), &["attention.self.key.weight", "scale", "row 0"]),
    ("index cut", |folder| index(folder, b"{\"weight_map\": {"), &["model.safetensors.index.json", "expected JSON"]),
    ("index without map", |folder| index(folder, b"{}"), &["model.safetensors.index.json", "`weight_map`", "no such field"]),
    ("index with an empty map", |folder| index(folder, b"{\"weight_map\": {}}"), &["`weight_map`", "no tensors"]),
    ("index leaves the folder", |folder| index(folder, br#"{"weight_map": {"a": "../secret"}}"#),
        &["`weight_map`", "same folder", "\"../secret\" for `a`"]),
    ("index with an absolute path", |folder| index(folder, br#"{"weight_map": {"a": "/etc/passwd"}}"#),
        &["`weight_map`", "\"/etc/passwd\""]),
    ("index with a drive", |folder| index(folder, br#"{"weight_map": {"a": "C:secret"}}"#), &["`weight_map`", "\"C:secret\""]),
    ("missing shard", |folder| index(folder, br#"{"weight_map": {"a": "s-2.safetensors"}}"#),
        &["s-2.safetensors", "no such file", "index.json names it"]),
    ("tensor not in its shard", |folder| index(folder, br#"{"weight_map": {"a": "s-1.safetensors"}}"#),
        &["s-1.safetensors", "`a`", "missing"]),
    ("modules cut", |folder| write(folder, "modules.json", b"[{"), &["modules.json", "expected JSON"]),
    ("modules not a list", |folder| write(folder, "modules.json", b"{}"), &["modules.json", "list of modules", "object of 0 fields"]),
    ("unknown module", |folder| modules(folder, &["Transformer", "Pooling", "CNN"], json!({})),
        &["modules.json", "`type`", "\"CNN\"", "not supported"]),
    ("dense module without settings", |folder| modules(folder, &["Transformer", "Pooling", "Dense"], json!({})),
        &["Dense", "config.json", "missing"]),
    ("dense module of other width", |folder| {
        modules(folder, &["Transformer", "Pooling", "Dense"], json!({}));
        write_json(folder, "Dense/config.json", json!({"in_features": 32, "out_features": 8}));
    }, &["Dense", "expects 32 numbers", "found 16"]),
    ("dense module with an unknown activation", |folder| {
        modules(folder, &["Transformer", "Pooling", "Dense"], json!({}));
        write_json(folder, "Dense/config.json", json!({"in_features": 16, "out_features": 8, "activation_function": "os.system"}));
    }, &["`activation_function`", "Identity, Tanh, ReLU or GELU", "\"os.system\""]),
    ("modules out of order", |folder| modules(folder, &["Transformer", "Normalize", "Pooling"], json!({})),
        &["modules.json", "in this order", "found Normalize"]),
    ("module outside", |folder| { write_json(folder, "modules.json", json!([{"type": "Transformer", "path": "../other"}])); },
        &["modules.json", "`path`", "inside the model folder", "\"../other\""]),
    ("pooling missing",
        |folder| { write_json(folder, "modules.json", json!([{"type": "Transformer", "path": ""}, {"type": "Pooling", "path": "none"}])); },
        &["none", "config.json", "missing"]),
    ("unknown pooling", |folder| modules(folder, &["Transformer", "Pooling"], json!({"pooling_mode": "attention"})),
        &["`pooling_mode`", "one of cls, max, mean", "\"attention\""]),
    ("unknown old pooling", |folder| {
        modules(folder, &["Transformer", "Pooling"], json!({"pooling_mode_mean_tokens": false, "pooling_mode_median_tokens": true}));
    }, &["`pooling_mode_median_tokens`", "\"median\"", "not supported"]),
    ("pooling of other width", |folder| modules(folder, &["Transformer", "Pooling"], json!({"word_embedding_dimension": 32})),
        &["32 numbers", "hidden size of 16"]),
    ("prompts not pooled", |folder| {
        modules(folder, &["Transformer", "Pooling"], json!({"include_prompt": false}));
        write_json(folder, "config_sentence_transformers.json", json!({"prompts": {"query": "q: "}}));
    }, &["`include_prompt`", "not supported"]),
    ("prompts a list", |folder| write_json(folder, "config_sentence_transformers.json", json!({"prompts": ["q: "]})),
        &["`prompts`", "names and texts", "a list of 1"]),
    ("unknown default prompt", |folder| {
        write_json(folder, "config_sentence_transformers.json", json!({"prompts": {"query": "q: "}, "default_prompt_name": "doc"}));
    }, &["`default_prompt_name`", "query", "\"doc\""]),
    ("length 0", |folder| write_json(folder, "sentence_bert_config.json", json!({"max_seq_length": 0})),
        &["`max_seq_length`", "at least 1", "found 0"]),
    ("no tokenizer", |folder| remove(folder, "vocab.txt"), &["no tokenizer", "tokenizer.json", "vocab.txt"]),
    ("other tokenizer", |folder| { fs::rename(folder.join("vocab.txt"), folder.join("spm.model")).unwrap(); },
        &["tokenizer.json, vocab.txt", "only spm.model", "`tokenizer_class`"]),
    ("tokenizer.json broken", |folder| write(folder, "tokenizer.json", b"{\"version\": \"1.0\", \"model\""),
        &["tokenizer.json", "expected a tokenizer", "EOF"]),
    ("tokenizer.json of another kind", |folder| write(folder, "tokenizer.json", b"{}"), &["tokenizer.json", "expected a tokenizer"]),
    ("template with an undefined token", |folder| template(folder, json!([{"SpecialToken": {"id": "[CLS]", "type_id": 0}}])),
        &["tokenizer.json", "`post_processor`", "`[CLS]`", "single"]),
    ("template of one with a second text", |folder| template(folder, json!([{"Sequence": {"id": "B", "type_id": 0}}])),
        &["tokenizer.json", "`post_processor`", "`B`", "single"]),
    ("tokenizer.json that the library panics on", |folder| tokenizer(folder, |tokenizer| {
        tokenizer["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAD/"});
    }), &["tokenizer.json", "the tokenizers library cannot handle"]),
    ("tokenizer.json with a piece that nests too deep", |folder| tokenizer(folder, |tokenizer| {
        tokenizer["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": [["a".repeat(1 << 20), -1.0]]});
    }), &["tokenizer.json", "`model`", "at most 1024 bytes", "1048576"]),
    ("tokenizer.json with a long added token", |folder| tokenizer(folder, |tokenizer| {
        tokenizer["added_tokens"] = json!([{"id": 8, "content": "a".repeat(1 << 20), "special": true}]);
    }), &["`added_tokens`", "at most 1024 bytes"]),
    ("tokenizer.json with a table of gigabytes", |folder| tokenizer(folder, |tokenizer| {
        tokenizer["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "/P///wAAAAA="});
    }), &["`precompiled_charsmap`", "4 to 4 bytes", "4294967292"]),
    ("tokenizer.json with a table that is not base64", |folder| tokenizer(folder, |tokenizer| {
        tokenizer["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "~~~~"});
    }), &["`precompiled_charsmap`", "base64"]),
    ("tokenizer.json that makes texts longer and longer", |folder| tokenizer(folder, |tokenizer| {
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        tokenizer["normalizer"] = json!({"type": "Sequence", "normalizers": vec![double; 60]});
    }), &["at most 4096 times as long", "e18 times"]),
    ("tokenizer.json that makes bytes to letters again and again", |folder| tokenizer(folder, |tokenizer| {
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        tokenizer["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": vec![bytes; 40]});
    }), &["at most 4096 times as long", "e12 times"]),
    ("tokenizer.json with many steps", |folder| tokenizer(folder, |tokenizer| {
        tokenizer["normalizer"] = json!({"type": "Sequence", "normalizers": vec![json!({"type": "Nmt"}); 1000]});
    }), &["at most 64 normalizers", "found 1002"]),
    ("tokenizer.json with a regular expression of many repetitions", |folder| tokenizer(folder, |tokenizer| {
        tokenizer["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "(\\w{90}){90}"}, "behavior": "Isolated", "invert": false});
    }), &["regular expressions", "8100"]),
    ("tokenizer.json with long regular expressions", |folder| tokenizer(folder, |tokenizer| {
        let pattern = json!({"Regex": "(?=\\w\\w\\w)".repeat(60)});
        let split = json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
        tokenizer["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [split, split]});
    }), &["regular expressions of at most 1024 bytes", "found 1200"]),
    ("tokenizer.json for words without end", |folder| tokenizer(folder, |tokenizer| {
        tokenizer["model"] = json!({
            "type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##", "max_input_chars_per_word": 1_u64 << 40, "vocab": {"?": 0},
        });
    }), &["`max_input_chars_per_word`", "at most 10000", "1099511627776"]),
    ("values of much memory", |folder| write(folder, "config.json", format!("[{}0]", "{},".repeat(1 << 18)).as_bytes()),
        &["config.json", "its values may take 201326720 bytes", "786435 bytes of JSON"]),
    ("tokenizer.json of much memory", |folder| write(folder, "tokenizer.json", format!("[{}0]", "{},".repeat(1 << 18)).as_bytes()),
        &["tokenizer.json", "its values may take"]),
    ("many modules", |folder| write_json(folder, "modules.json", json!(vec![json!({"type": "Dropout", "path": ""}); 1000])),
        &["modules.json", "at most 64 modules", "found 1000"]),
    ("module in a folder of a long name", |folder| write_json(folder, "modules.json", json!([{"type": "Transformer", "path": "a".repeat(1000)}])),
        &["modules.json", "`path`", "inside the model folder"]),
    ("module above in the middle", |folder| write_json(folder, "modules.json", json!([{"type": "Transformer", "path": "a/../../b"}])),
        &["`path`", "inside the model folder"]),
    ("tokenizer_config.json broken", |folder| write(folder, "tokenizer_config.json", b"{"), &["tokenizer_config.json", "expected JSON"]),
    ("Japanese tokenizer", |folder| write_json(folder, "tokenizer_config.json", json!({"tokenizer_class": "BertJapaneseTokenizer"})),
        &["`tokenizer_class`", "BertTokenizer", "\"BertJapaneseTokenizer\""]),
    ("special token a number", |folder| write_json(folder, "tokenizer_config.json", json!({"sep_token": 3})),
        &["`sep_token`", "`content`", "found 3"]),
    ("vocabulary without specials", |folder| write(folder, "vocab.txt", b"a\nb\n"), &["vocab.txt", "`[UNK]`", "2 tokens"]),
    ("vocabulary cut", |folder| write(folder, "vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n"),
        &["vocab.txt", "expected about 8 tokens", "found 7"]),
    ("vocabulary not text", |folder| write(folder, "vocab.txt", b"\xff\xfe"), &["vocab.txt", "UTF-8", "offset 0"]),
];

#[test]
fn damaged_folders_are_refused_with_the_reason() {
    let mut table = Table::new("damaged folders");
    for (case, damage, words) in HOSTILE_FOLDERS {
        let folder = small_folder();
        damage(folder.path());
        match catch_unwind(AssertUnwindSafe(|| read_all(folder.path()))) {
            Err(_) => table.fail(case, "panicked"),
            Ok(Ok(())) => table.fail(case, "was accepted"),
            Ok(Err(error)) => {
                let message = error.to_string();
                let missing: Vec<_> = words.iter().filter(|&&word| !message.contains(word)).collect();
                table.check(case, missing.is_empty(), format!("{missing:?} not in: {message}"));
            }
        }
        // What is left may be a file; the folder is removed by hand then.
        if folder.path().is_file() {
            fs::remove_file(folder.path()).unwrap();
        }
    }
    table.finish();
}

/// Weights are read where they lie; a file that is cut, or written over with less, while it is open is an error like any other.
#[test]
fn weights_that_are_cut_while_they_are_open_are_an_error() {
    let folder = small_folder();
    let names: BTreeMap<_, _> = small_tensors().into_keys().map(|name| (name, "s-1.safetensors")).collect();
    index(folder.path(), json!({ "weight_map": names }).to_string().as_bytes());
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let length = fs::metadata(folder.path().join("s-1.safetensors")).unwrap().len();
    let encoder = checkpoint.encoder().unwrap();
    encoder.word.values().unwrap();
    fs::OpenOptions::new().write(true).open(folder.path().join("s-1.safetensors")).unwrap().set_len(length - 4).unwrap();
    // The last one by name.
    let error = checkpoint.tensors().get("encoder.layer.0.output.dense.weight").unwrap().values().unwrap_err().to_string();
    let expected =
        format!("s-1.safetensors: tensor `encoder.layer.0.output.dense.weight` cannot be read up to byte {length}: the file had");
    assert!(error.contains(&expected) && error.contains("was cut since"), "{error}");
    encoder.word.values().unwrap();
    fs::write(folder.path().join("s-1.safetensors"), b"").unwrap();
    let error = encoder.word.values().unwrap_err().to_string();
    assert!(error.contains("`embeddings.word_embeddings.weight` cannot be read up to byte"), "{error}");
}

#[cfg(unix)]
#[test]
fn links_do_not_lead_out_of_the_folder() {
    use std::os::unix::fs::symlink;
    let elsewhere = small_folder();
    fs::create_dir(elsewhere.path().join("1_Pooling")).unwrap();
    write_json(elsewhere.path(), "1_Pooling/config.json", json!({}));
    let text = |result: minilm::Result<()>| result.err().map_or_else(|| "no error".into(), |error| error.to_string());
    for name in ["config.json", "vocab.txt", "model.safetensors"] {
        let folder = small_folder();
        remove(folder.path(), name);
        symlink(elsewhere.path().join(name), folder.path().join(name)).unwrap();
        let error = text(read_all(folder.path()));
        assert!(error.contains(&format!("{name}: is a link to {}", elsewhere.path().display())), "{name}: {error}");
    }
    let folder = small_folder();
    modules(folder.path(), &["Transformer"], json!({}));
    write_json(folder.path(), "modules.json", json!([{"type": "Transformer", "path": ""}, {"type": "Pooling", "path": "1_Pooling"}]));
    symlink(elsewhere.path().join("1_Pooling"), folder.path().join("1_Pooling")).unwrap();
    let error = text(read_all(folder.path()));
    assert!(error.contains("1_Pooling: is a link to"), "{error}");

    // What an eight-bit copy would take along.
    let folder = small_folder();
    write(elsewhere.path(), "secret", b"secret");
    symlink(elsewhere.path().join("secret"), folder.path().join("README.md")).unwrap();
    let error = text(quantize(folder.path(), &folder.path().join("copy")).map(drop));
    assert!(error.contains("README.md: is a link to"), "{error}");

    // Within the folder they may lead anywhere, and from a snapshot of the Hugging Face cache to the model's blobs.
    let folder = small_folder();
    fs::rename(folder.path().join("config.json"), folder.path().join("c")).unwrap();
    symlink("c", folder.path().join("config.json")).unwrap();
    read_all(folder.path()).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let [blobs, snapshot] = ["model/blobs", "model/snapshots/1a2b"].map(|folder| cache.path().join(folder));
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(&blobs).unwrap();
    for name in ["config.json", "vocab.txt", "model.safetensors"] {
        fs::copy(elsewhere.path().join(name), blobs.join(name)).unwrap();
        symlink(Path::new("../../blobs").join(name), snapshot.join(name)).unwrap();
    }
    read_all(&snapshot).unwrap();
    // The folder itself may be given as a link.
    symlink(&snapshot, cache.path().join("link")).unwrap();
    read_all(&cache.path().join("link")).unwrap();
}

/// The folder that the damage is done to is sound, also with a tokenizer.json, with other heads' tensors, and in shards.
#[test]
fn sound_folders_are_accepted() {
    let folder = small_folder();
    read_all(folder.path()).unwrap();
    quantized(folder.path(), Some((vec![16], 0.5)));
    read_all(folder.path()).unwrap();
    template(folder.path(), json!([{"Sequence": {"id": "A", "type_id": 0}}]));
    read_all(folder.path()).unwrap();
    let names: BTreeMap<_, _> = small_tensors().into_keys().map(|name| (name, "s-1.safetensors")).collect();
    write_tensors(folder.path(), &small_tensors());
    index(folder.path(), json!({ "weight_map": names }).to_string().as_bytes());
    read_all(folder.path()).unwrap();
    change_config(folder.path(), |config| {
        config["model_type"] = json!(null);
        config["architectures"] = json!(["BertForMaskedLM"]);
    });
    read_all(folder.path()).unwrap();
}

fn read_all(folder: &Path) -> minilm::Result<()> {
    let checkpoint = Checkpoint::open(folder)?;
    for tensor in tensors_of(&checkpoint.encoder()?) {
        tensor.values()?;
    }
    checkpoint.tokenizer.encode("a b", Some("c"), 6)?;
    checkpoint.tokenizer.encode("a b", None, 6).map(|_| ())
}

fn tensors_of<'a>(encoder: &EncoderWeights<'a>) -> Vec<Tensor<'a>> {
    let linear = |linear: &Linear<'a>| [linear.weight, linear.bias];
    let norm = |norm: &Norm<'a>| [norm.weight, norm.bias];
    let mut all = vec![encoder.word, encoder.position];
    all.extend(encoder.token_type);
    all.extend(norm(&encoder.embedding_norm));
    for layer in &encoder.layers {
        let linears = [&layer.query, &layer.key, &layer.value, &layer.attention_output, &layer.up, &layer.down];
        all.extend(linears.into_iter().flat_map(linear));
        all.extend([&layer.attention_norm, &layer.output_norm].into_iter().flat_map(norm));
    }
    all.extend(encoder.pooler.iter().flat_map(linear));
    all
}

/// Type of number, shape and bytes by name.
type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

/// A folder of a model of one layer, 16 wide, with 8 words.
fn small_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "bert", "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 8,
        "max_position_embeddings": 6, "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    });
    write_json(folder.path(), "config.json", config);
    write(folder.path(), "vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n");
    write_tensors(folder.path(), &small_tensors());
    folder
}

fn small_tensors() -> Tensors {
    let mut tensors = Tensors::new();
    let mut add = |name: &str, shape: &[usize]| {
        let bytes = (0..shape.iter().product()).flat_map(|i| (1.0 + i as f32).to_le_bytes()).collect();
        tensors.insert(name.to_owned(), ("F32".to_owned(), shape.to_vec(), bytes));
    };
    for (name, rows) in [("word", 8), ("position", 6), ("token_type", 2)] {
        add(&format!("embeddings.{name}_embeddings.weight"), &[rows, 16]);
    }
    for name in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
        add(&format!("{name}.LayerNorm.weight"), &[16]);
        add(&format!("{name}.LayerNorm.bias"), &[16]);
    }
    let square = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"];
    for (name, outputs, inputs) in
        square.map(|name| (name, 16, 16)).into_iter().chain([("intermediate.dense", 24, 16), ("output.dense", 16, 24)])
    {
        add(&format!("encoder.layer.0.{name}.weight"), &[outputs, inputs]);
        add(&format!("encoder.layer.0.{name}.bias"), &[outputs]);
    }
    tensors
}

fn bytes_of(number: f32, dtype: &str) -> Vec<u8> {
    match dtype {
        "F16" => half::f16::from_f32(number).to_le_bytes().to_vec(),
        "BF16" => half::bf16::from_f32(number).to_le_bytes().to_vec(),
        _ => number.to_le_bytes().to_vec(),
    }
}

fn safetensors(tensors: &Tensors) -> Vec<u8> {
    let (mut infos, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let start = data.len();
        data.extend(bytes);
        infos.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]}));
    }
    with_header(Value::Object(infos).to_string().as_bytes(), &data)
}

fn with_header(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

fn write_tensors(folder: &Path, tensors: &Tensors) {
    write(folder, "model.safetensors", &safetensors(tensors));
}

fn change_tensor(folder: &Path, name: &str, change: impl FnOnce(&mut (String, Vec<usize>, Vec<u8>))) {
    let mut tensors = small_tensors();
    change(tensors.get_mut(name).unwrap());
    write_tensors(folder, &tensors);
}

fn rename_tensor(folder: &Path, from: &str, to: &str) {
    let mut tensors = small_tensors();
    let tensor = tensors.remove(from).unwrap();
    tensors.insert(to.to_owned(), tensor);
    write_tensors(folder, &tensors);
}

/// The key matrix in eight bits, with scales of this shape and value.
fn quantized(folder: &Path, scale: Option<(Vec<usize>, f32)>) {
    let mut tensors = small_tensors();
    let name = "encoder.layer.0.attention.self.key.weight";
    tensors.insert(name.to_owned(), ("I8".to_owned(), vec![16, 16], vec![0xff; 256]));
    if let Some((shape, scale)) = scale {
        let bytes = scale.to_le_bytes().repeat(shape.iter().product());
        tensors.insert(format!("{name}.scale"), ("F32".to_owned(), shape, bytes));
    }
    write_tensors(folder, &tensors);
}

fn header(folder: &Path, header: &[u8], data: usize) {
    write(folder, "model.safetensors", &with_header(header, &vec![0; data]));
}

/// A file of tensors that lie where the header says, name by name with type, shape and offsets, and of so many bytes of data.
fn tensors_at(folder: &Path, tensors: &[(&str, &str, &[u64], [i64; 2])], data: usize) {
    let info = |(name, dtype, shape, offsets): &(&str, &str, &[u64], [i64; 2])| {
        ((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}))
    };
    header(folder, Value::Object(tensors.iter().map(info).collect()).to_string().as_bytes(), data);
}

/// The weights as a shard, and an index.
fn index(folder: &Path, index: &[u8]) {
    fs::rename(folder.join("model.safetensors"), folder.join("s-1.safetensors")).unwrap();
    write(folder, "model.safetensors.index.json", index);
}

fn modules(folder: &Path, kinds: &[&str], pooling: Value) {
    let path = |kind: &str| if kind == "Transformer" { String::new() } else { kind.to_owned() };
    let module = |kind: &&str| json!({"type": format!("sentence_transformers.models.{kind}"), "path": path(kind)});
    write_json(folder, "modules.json", kinds.iter().map(module).collect());
    write_json(folder, "Pooling/config.json", pooling);
}

/// A tokenizer.json that puts this around a single text.
fn template(folder: &Path, single: Value) {
    let pair = json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]);
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": {}},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2, "?": 3, "d": 4, "e": 5, "f": 6, "g": 7}, "unk_token": "?"},
    });
    write_json(folder, "tokenizer.json", tokenizer);
}

/// A tokenizer.json that is changed.
fn tokenizer(folder: &Path, change: impl FnOnce(&mut Value)) {
    template(folder, json!([{"Sequence": {"id": "A", "type_id": 0}}]));
    let mut tokenizer = serde_json::from_slice(&fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
    change(&mut tokenizer);
    write_json(folder, "tokenizer.json", tokenizer);
}

fn config(folder: &Path, field: &str, value: Value) {
    change_config(folder, |config| config[field] = value);
}

fn change_config(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    write_json(folder, "config.json", config);
}

fn write_json(folder: &Path, name: &str, value: Value) {
    write(folder, name, value.to_string().as_bytes());
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn remove(folder: &Path, name: &str) {
    fs::remove_file(folder.join(name)).unwrap();
}

fn make_folder(folder: &Path, name: &str) {
    remove(folder, name);
    fs::create_dir(folder.join(name)).unwrap();
}

fn cut(folder: &Path, name: &str, length: usize) {
    let bytes = fs::read(folder.join(name)).unwrap();
    write(folder, name, &bytes[..length]);
}

/// Bytes of the weights.
fn length(folder: &Path) -> usize {
    fs::read(folder.join("model.safetensors")).unwrap().len()
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
