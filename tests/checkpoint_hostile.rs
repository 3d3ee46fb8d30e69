//! Model folders that are damaged, or made to do harm: none gets past the checks or causes a panic.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use common::compare::Table;
use common::small_model::*;
use minilm::checkpoint::{Checkpoint, quantize};
use serde_json::{Value, json};

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
    ("large heads",
        |folder| change_config(folder, |config| (config["hidden_size"], config["num_attention_heads"]) = (json!(129), json!(1))),
        &["`num_attention_heads`", "1 to 128", "heads of 129"]),
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
