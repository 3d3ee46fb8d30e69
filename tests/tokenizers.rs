//! Tokenizers that are built from the files of their class equal the `tokenizer.json` of the same model, and no damaged file gets past the
//! checks or causes a panic.

mod common;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use common::compare::Table;
use common::files::{copy, read_json, write};
use common::golden::Case;
use common::sentencepiece::{SentencePiece, bytes, charsmap, float, integer, raw};
use common::{fixture, reference};
use minilm::checkpoint::{TokenSource, Tokenizer};
use serde::Deserialize;
use serde_json::{Value, json};

/// Texts that golden.json has none of.
const MORE_TEXTS: [&str; 8] = [
    "a <mask> b<mask>c <s> </s> <pad> <unk>",
    " \u{a0}\u{3000}wide\u{2003}blanks \u{200b}and\u{feff} none\u{200d} ",
    "\0\u{1}\u{7f}\u{85}control\r\n\r\n",
    "▁already ▁ marked▁",
    "👩‍🚀👨‍👩‍👧‍👦🏳️‍🌈 e\u{301}\u{323} ﬁ ½ Ⅷ ㎏ ＡＢＣ",
    "don't 'tis we'll I'M 12,345.67 __init__(self)",
    "\t\t\n",
    "ĠĊ Ġ",
];

#[test]
fn files_of_roberta_give_what_tokenizer_json_gives() {
    let mut table = Table::new("vocab.json and merges.txt");
    let references = ["tiny-head-roberta-seqcls3", "tiny-minilmv2-roberta-l2-h128-bf16", "tiny-minilmv2-roberta-l3-h96"];
    let folders = [fixture("roberta-tokenizer")].into_iter().chain(references.iter().filter_map(|name| reference(name)));
    for source in folders {
        let folder = copy(&source, &["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"]);
        let (built, expected) = (Tokenizer::open(folder.path()).unwrap(), Tokenizer::open(&source).unwrap());
        let golden = Golden::open(&source);
        for case in &golden.cases {
            let name = format!("{} {}", source.display(), case.id);
            let encoding = built.encode(&case.text, case.text_pair.as_deref(), golden.max_length).unwrap();
            table.equal(name, &encoding.ids, &case.input_ids);
        }
        same(&mut table, &source, &built, &expected, &golden);
    }
    table.finish();
}

/// The bytes that the library gives through Python, `[0, 0]` for special tokens.
#[test]
fn sources_are_places_without_the_blank_before_a_word() {
    #[derive(Deserialize)]
    struct Places {
        bytes: Vec<[usize; 2]>,
    }
    let folder = fixture("roberta-tokenizer");
    let (golden, tokenizer) = (Golden::open(&folder), Tokenizer::open(&folder).unwrap());
    let mut table = Table::new("sources");
    for (case, places) in golden.cases.iter().zip(read_json::<Cases<Places>>(&folder.join("tokens.json")).cases) {
        let sources = tokenizer.encode_with_sources(&case.text, case.text_pair.as_deref(), golden.max_length).unwrap().1;
        table.equal(&case.id, &bytes_of(&sources), &places.bytes);
    }
    // The library trims a blank of three bytes by one byte where it counts bytes.
    let sources = tokenizer.encode_with_sources("é\u{3000}<mask>", None, golden.max_length).unwrap().1;
    table.equal("wide blank", &bytes_of(&sources)[sources.len() - 2..], &[[5, 11], [0, 0]]);
    table.finish();
}

#[test]
fn sentencepiece_models_give_what_tokenizer_json_gives() {
    let mut table = Table::new("sentencepiece.bpe.model");
    let references = ["tiny-xlm-roberta-l3-h96-f16", "tiny-head-xlmr-crossencoder1", "e5-small-multilingual-19k-f16"];
    let folders = [fixture("tiny-mminilm-bert-xlmr-l3-h96")].into_iter().chain(references.iter().filter_map(|name| reference(name)));
    for source in folders {
        let (golden, mut json) = (Golden::open(&source), read_json::<Value>(&source.join("tokenizer.json")));
        let folder = copy(&source, &["config.json", "tokenizer_config.json", "special_tokens_map.json"]);
        write(folder.path(), "sentencepiece.bpe.model", SentencePiece::of(&json).bytes());
        let built = Tokenizer::open(folder.path()).unwrap();

        // Of the chains in tokenizer.json, that of xlm-roberta-base and of transformers 5 drops blanks at the end, as SentencePiece does.
        let drops_blanks = json["pre_tokenizer"]["type"] == "Sequence";
        for case in &golden.cases {
            let ends = |text: &str| text.ends_with(char::is_whitespace);
            if drops_blanks || !ends(&case.text) && !case.text_pair.as_deref().is_some_and(ends) {
                let encoding = built.encode(&case.text, case.text_pair.as_deref(), golden.max_length).unwrap();
                table.equal(format!("{} {}", source.display(), case.id), &encoding.ids, &case.input_ids);
            }
        }
        json["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": charsmap(&json)});
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]});
        let expected = tempfile::tempdir().unwrap();
        write(expected.path(), "tokenizer.json", json.to_string());
        same(&mut table, &source, &built, &Tokenizer::open(expected.path()).unwrap(), &golden);
    }
    table.finish();
}

/// CamemBERT keeps `<s>` and `</s>` of the model, after five tokens of its own.
#[test]
fn camembert_numbers_pieces_in_its_own_way() {
    let source = fixture("tiny-mminilm-bert-xlmr-l3-h96");
    let (golden, json) = (Golden::open(&source), read_json::<Value>(&source.join("tokenizer.json")));
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "config.json", json!({"model_type": "camembert"}).to_string());
    write(folder.path(), "sentencepiece.model", SentencePiece::of(&json).bytes());
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    let mut table = Table::new("CamemBERT");
    for case in golden.cases.iter().filter(|case| !case.text.ends_with(char::is_whitespace)) {
        let encoding = tokenizer.encode(&case.text, case.text_pair.as_deref(), golden.max_length).unwrap();
        let expected = |id: &u32| match id {
            0 => 5,
            2 => 6,
            1 | 3 => *id,
            piece => piece + 3,
        };
        table.equal(&case.id, &encoding.ids, &case.input_ids.iter().map(expected).collect::<Vec<_>>());
    }
    let ids = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "▁"].map(|piece| tokenizer.id(piece));
    table.equal("first ids", &ids, &[0, 1, 2, 3, 4, 5, 6, 7].map(Some));
    table.equal("last id", &[tokenizer.id("<mask>")], &[Some(tokenizer.size() as u32 - 1)]);
    table.finish();
}

/// The words of BERT between the special tokens of RoBERTa.
#[test]
fn mpnet_joins_as_roberta_does() {
    let source = fixture("tiny-minilm-bert-l3-h96");
    let (bert, folder) = (Tokenizer::open(&source).unwrap(), tempfile::tempdir().unwrap());
    let vocabulary = fs::read_to_string(source.join("vocab.txt")).unwrap();
    let names = [("[PAD]", "<pad>"), ("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>")];
    let vocabulary = names.iter().fold(vocabulary, |text, (from, to)| text.replace(from, to));
    write(folder.path(), "vocab.txt", vocabulary);
    write(folder.path(), "tokenizer_config.json", json!({"tokenizer_class": "MPNetTokenizerFast"}).to_string());
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    let mut table = Table::new("MPNet");
    for case in Golden::open(&source).cases {
        let (first, first_sources) = bert.encode_with_sources(&case.text, None, 1000).unwrap();
        let separator = *first.ids.last().unwrap();
        let (mut ids, mut bytes) = (first.ids, bytes_of(&first_sources));
        if let Some(pair) = &case.text_pair {
            let (second, second_sources) = bert.encode_with_sources(pair, None, 1000).unwrap();
            ids.extend([separator].iter().chain(&second.ids[1..]));
            bytes.extend(bytes_of(&second_sources));
        }
        let (encoding, sources) = tokenizer.encode_with_sources(&case.text, case.text_pair.as_deref(), 2000).unwrap();
        table.equal(&case.id, &encoding.ids, &ids);
        table.equal(&case.id, &bytes_of(&sources), &bytes);
        table.check(&case.id, encoding.type_ids.iter().all(|&id| id == 0), "types are not zeros");
    }
    // As transformers 4 and 5 give it.
    let ids = tokenizer.encode("Hello <mask> world <s> [UNK] <S> [unk]", Some("the pair"), 100).unwrap().ids;
    let expected = [2, 1115, 305, 523, 4, 1144, 630, 2, 1, 32, 60, 34, 37, 600, 320, 39, 3, 3, 468, 57, 288, 567, 3];
    table.equal("special tokens in a text", &ids, &expected);
    let mask = tokenizer.encode_with_sources("Hello <mask>", None, 100).unwrap().1;
    table.equal("blank before a mask", &bytes_of(&mask)[mask.len() - 2..], &[[6, 12], [0, 0]]);
    table.finish();
}

/// The class of the tokenizer goes before the type of the model, and this before what files there are.
#[test]
fn the_class_decides_between_files() {
    let (roberta, bert) = (fixture("roberta-tokenizer"), fixture("tiny-minilm-bert-l3-h96"));
    let folder = copy(&roberta, &["vocab.json", "merges.txt"]);
    fs::copy(bert.join("vocab.txt"), folder.path().join("vocab.txt")).unwrap();
    let json = read_json(&fixture("tiny-mminilm-bert-xlmr-l3-h96").join("tokenizer.json"));
    write(folder.path(), "sentencepiece.bpe.model", SentencePiece::of(&json).bytes());
    let sizes = [1200, 1005, 1501, 1504].map(Some);
    let [wordpiece, bytes, xlm_roberta, camembert] = sizes;
    let mut table = Table::new("choice");
    for (class, model, expected) in [
        (json!({}), json!({}), wordpiece),
        (json!({}), json!({"model_type": "bert"}), wordpiece),
        (json!({}), json!({"model_type": "electra"}), wordpiece),
        (json!({}), json!({"model_type": "roberta"}), bytes),
        (json!({}), json!({"model_type": "xlm-roberta"}), xlm_roberta),
        (json!({}), json!({"model_type": "camembert"}), camembert),
        (json!({}), json!({"model_type": "bert", "tokenizer_class": "XLMRobertaTokenizer"}), xlm_roberta),
        (json!({"tokenizer_class": "RobertaTokenizerFast"}), json!({"model_type": "bert", "tokenizer_class": "BertTokenizer"}), bytes),
        (json!({"tokenizer_class": "PreTrainedTokenizerFast"}), json!({"tokenizer_class": "CamembertTokenizer"}), camembert),
        (json!({"tokenizer_class": "DistilBertTokenizer"}), json!({"model_type": "roberta"}), wordpiece),
        (json!({"tokenizer_class": "XLMTokenizer"}), json!({"model_type": "bert"}), None),
    ] {
        write(folder.path(), "tokenizer_config.json", class.to_string());
        write(folder.path(), "config.json", model.to_string());
        let size = Tokenizer::open(folder.path()).ok().map(|tokenizer| tokenizer.size());
        table.equal(format!("{class} {model}"), &[size], &[expected]);
    }
    // Multilingual MiniLM is a BERT that may not name its tokenizer.
    fs::remove_file(folder.path().join("vocab.txt")).unwrap();
    fs::remove_file(folder.path().join("vocab.json")).unwrap();
    write(folder.path(), "tokenizer_config.json", "{}");
    write(folder.path(), "config.json", json!({"model_type": "bert"}).to_string());
    table.equal("only a SentencePiece model", &[Tokenizer::open(folder.path()).unwrap().size()], &[1501]);
    table.finish();
}

/// As in transformers, where a class builds its tokenizer anew, `tokenizer.json` gives way to what the configuration says or leaves to the
/// class, which is what a tokenizer from the class's own files does.
#[test]
fn the_configuration_goes_before_tokenizer_json() {
    let mut table = Table::new("configuration");
    let (bert, roberta) = (fixture("tiny-minilm-bert-l3-h96"), fixture("roberta-tokenizer"));
    for (source, files, class, settings) in [
        (&bert, &["vocab.txt"][..], "BertTokenizer", json!({"do_lower_case": false})),
        (&bert, &["vocab.txt"], "ElectraTokenizerFast", json!({"do_lower_case": false, "strip_accents": true})),
        (&bert, &["vocab.txt"], "DistilBertTokenizer", json!({"strip_accents": false})),
        (&bert, &["vocab.txt"], "BertTokenizerFast", json!({"tokenize_chinese_chars": false})),
        (&roberta, &["vocab.json", "merges.txt"], "RobertaTokenizer", json!({"add_prefix_space": true, "trim_offsets": false})),
    ] {
        let (built, read) = (copy(source, files), copy(source, &["tokenizer.json"]));
        let golden = Golden { max_length: 64, ..Golden::open(source) };
        let mut settings = settings;
        settings["mask_token"] = read_json::<Value>(&source.join("tokenizer_config.json"))["mask_token"].take();
        let mut open = |class: &str| {
            settings["tokenizer_class"] = json!(class);
            [&built, &read].map(|folder| {
                write(folder.path(), "tokenizer_config.json", settings.to_string());
                Tokenizer::open(folder.path())
            })
        };
        let [expected, found] = open(class).map(Result::unwrap);
        same(&mut table, source, &found, &expected, &golden);
        // A class that is none of these takes the file as it is.
        let plain = open("PreTrainedTokenizerFast")[1].as_ref().unwrap().encode("Ünï CASE 漢字", None, 64).unwrap();
        table.equal(class, &plain.ids, &Tokenizer::open(source).unwrap().encode("Ünï CASE 漢字", None, 64).unwrap().ids);
        let differs = expected.encode("Ünï CASE 漢字", None, 64).unwrap() != plain;
        table.check(class, differs, "the settings change nothing");
    }
    table.finish();
}

/// Ids as transformers 4 gives them, or where it loses flags of the list of added tokens, transformers 5.
#[test]
fn settings_and_added_tokens_count() {
    let listed = |content: &str, changes: Value| {
        let mut token =
            json!({"content": content, "lstrip": false, "rstrip": false, "normalized": false, "single_word": false, "special": true});
        token.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        token
    };
    let [plain, start, new] = [[81, 837, 33].as_slice(), &[0, 388, 1004, 296], &[224, 1005, 262]];
    let tail = [736, 281, 83, 21, 33, 69, 2].as_slice();
    let ordinary = [start, &[736], plain, &[262], tail].concat();
    let added = [start, new, &[224, 1006, 69, 2]].concat();
    let decoder = json!({
        "0": listed("<s>", json!({})), "1004": listed("<mask>", json!({"rstrip": true})),
        "1005": listed("<new>", json!({"lstrip": true, "rstrip": true})), "1006": listed("<sep2>", json!({"special": false})),
    });
    let mut table = Table::new("settings");
    for (case, config, specials, more, expected) in [
        ("defaults", json!({}), None, None, ordinary.clone()),
        ("blank before the text", json!({"add_prefix_space": true}), None, None, [&[0, 268], &ordinary[2..]].concat()),
        ("added_tokens.json", json!({}), None, Some(json!({"<sep2>": 1006, "<new>": 1005})), added.clone()),
        (
            "added and special",
            json!({}),
            Some(json!({"additional_special_tokens": ["<sep2>"]})),
            Some(json!({"<sep2>": 1006, "<new>": 1005})),
            added,
        ),
        (
            "map before configuration",
            json!({"cls_token": "</s>"}),
            Some(json!({"cls_token": "<unk>"})),
            None,
            [&[3], &ordinary[1..]].concat(),
        ),
        (
            "mask with its own flags",
            json!({"mask_token": listed("<mask>", json!({"rstrip": true}))}),
            None,
            None,
            [&[0, 388, 260, 1004, 340], &ordinary[4..]].concat(),
        ),
        (
            "list of added tokens",
            json!({"added_tokens_decoder": decoder}),
            Some(json!({"cls_token": "<unk>"})),
            Some(json!({"<x>": 1005})),
            vec![0, 388, 260, 1004, 340, 1005, 68, 224, 1006, 69, 2],
        ),
        ("new special token", json!({"additional_special_tokens": ["<new>"]}), None, None, [start, new, tail].concat()),
    ] {
        let folder = copy(&fixture("roberta-tokenizer"), &["vocab.json", "merges.txt"]);
        write(folder.path(), "tokenizer_config.json", config.to_string());
        for (file, content) in [("special_tokens_map.json", specials), ("added_tokens.json", more)] {
            if let Some(content) = content {
                write(folder.path(), file, content.to_string());
            }
        }
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        table.equal(case, &tokenizer.encode("the  <mask> is <new> a <sep2>b", None, 100).unwrap().ids, &expected);
    }
    for (trim, expected) in [(true, 1..4), (false, 0..4)] {
        let folder = copy(&fixture("roberta-tokenizer"), &["vocab.json", "merges.txt"]);
        write(folder.path(), "tokenizer_config.json", json!({"trim_offsets": trim}).to_string());
        let sources = Tokenizer::open(folder.path()).unwrap().encode_with_sources(" the", None, 100).unwrap().1;
        table.equal(format!("places, trim is {trim}"), &[sources[1].bytes.clone()], &[expected]);
    }
    table.finish();
}

/// What is wrong with a folder, the change that makes it so, and words that the error must have.
type Hostile = (&'static str, fn(&Path), &'static [&'static str]);

/// Done to a folder with the files of RoBERTa.
#[rustfmt::skip]
const HOSTILE_BYTES: &[Hostile] = &[
    ("no merges", |folder| fs::remove_file(folder.join("merges.txt")).unwrap(), &["merges.txt", "no such file", "vocab.json"]),
    ("only merges", |folder| fs::remove_file(folder.join("vocab.json")).unwrap(), &["only merges.txt", "tokenizer.json", "vocab.txt"]),
    ("vocabulary cut", |folder| write(folder, "vocab.json", "{\"a\": 0,"), &["vocab.json", "expected JSON"]),
    ("vocabulary a list", |folder| write(folder, "vocab.json", "[\"a\"]"), &["vocab.json", "JSON object", "a list of 1"]),
    ("vocabulary not text", |folder| write(folder, "vocab.json", b"{\"\xff\": 0}"), &["vocab.json", "UTF-8", "offset 2"]),
    ("empty vocabulary", |folder| { write(folder, "vocab.json", "{}"); write(folder, "merges.txt", ""); },
        &["vocab.json", "`</s>`", "0 tokens"]),
    ("id a text", |folder| vocabulary(folder, "the", json!("7")), &["vocab.json", "`the`", "below 1005", "found \"7\""]),
    ("negative id", |folder| vocabulary(folder, "the", json!(-1)), &["vocab.json", "`the`", "found -1"]),
    ("id beyond the vocabulary", |folder| vocabulary(folder, "the", json!(1005)), &["vocab.json", "`the`", "below 1005", "found 1005"]),
    ("absurd id", |folder| vocabulary(folder, "the", json!(u64::MAX)), &["vocab.json", "`the`", "18446744073709551615"]),
    ("id of two tokens", |folder| vocabulary(folder, "the", json!(4)), &["vocab.json", "an id of its own", "found 4"]),
    ("no id", |folder| vocabulary(folder, "the", json!(null)), &["vocab.json", "below 1004", "found 1004"]),
    ("no separator", |folder| {
        let text = fs::read_to_string(folder.join("vocab.json")).unwrap();
        write(folder, "vocab.json", text.replace("\"</s>\"", "\"</x>\""));
    }, &["vocab.json", "`</s>`", "1005 tokens without it"]),
    ("merge without a blank", |folder| merges(folder, "Ġt"), &["merges.txt", "line 2", "two tokens", "found \"Ġt\""]),
    ("merge of three", |folder| merges(folder, "Ġ t h"), &["merges.txt", "line 2", "two tokens", "found \"Ġ t h\""]),
    ("merge of nothing", |folder| merges(folder, "Ġ "), &["merges.txt", "line 2", "two tokens"]),
    ("merge of an unknown token", |folder| merges(folder, "Ġ цц"), &["merges.txt", "line 2", "tokens of vocab.json", "found \"цц\""]),
    ("merge to an unknown token", |folder| merges(folder, "the <mask>"), &["merges.txt", "line 2", "found \"the<mask>\""]),
    ("merges not text", |folder| write(folder, "merges.txt", b"\xff a\n"), &["merges.txt", "UTF-8", "offset 0"]),
    ("BPE of another kind", |folder| merges(folder, "t h</w>"), &["merges.txt", "line 2", "byte-level", "`</w>`", "not supported"]),
    ("XLM by its type", |folder| write(folder, "config.json", json!({"model_type": "xlm"}).to_string()),
        &["XLMTokenizer", "not supported", "tokenizer.json"]),
    ("XLM by its class", |folder| config(folder, json!({"tokenizer_class": "XLMTokenizer"})),
        &["`tokenizer_class`", "RobertaTokenizer", "\"XLMTokenizer\"", "not supported", "tokenizer.json"]),
    ("class without its files", |folder| config(folder, json!({"tokenizer_class": "XLMRobertaTokenizerFast"})),
        &["XLMRobertaTokenizerFast", "sentencepiece.bpe.model", "download"]),
    ("class a number", |folder| config(folder, json!({"tokenizer_class": 3})), &["`tokenizer_class`", "a text", "found 3"]),
    ("special token a list", |folder| write(folder, "special_tokens_map.json", json!({"cls_token": []}).to_string()),
        &["special_tokens_map.json", "`cls_token`", "`content`", "a list of 0"]),
    ("special tokens a text", |folder| config(folder, json!({"additional_special_tokens": "<x>"})),
        &["`additional_special_tokens`", "list of tokens", "\"<x>\""]),
    ("special token without content", |folder| config(folder, json!({"additional_special_tokens": [{"lstrip": true}]})),
        &["`additional_special_tokens`", "`content`", "object of 1"]),
    ("flag a text", |folder| config(folder, json!({"add_prefix_space": "yes"})), &["`add_prefix_space`", "true or false", "\"yes\""]),
    ("added tokens a list", |folder| write(folder, "added_tokens.json", "[]"), &["added_tokens.json", "JSON object"]),
    ("added token without an id", |folder| write(folder, "added_tokens.json", json!({"<x>": "last"}).to_string()),
        &["added_tokens.json", "`<x>`", "an id", "\"last\""]),
    ("added token with a gap", |folder| write(folder, "added_tokens.json", json!({"<x>": 1007}).to_string()),
        &["added_tokens.json", "`<x>`", "the id 1005", "found 1007"]),
    ("added token of another vocabulary", |folder| write(folder, "added_tokens.json", json!({"<mask>": 50264}).to_string()),
        &["added_tokens.json", "`<mask>`", "the id 1004", "found 50264"]),
    ("list of added tokens by name", |folder| config(folder, json!({"added_tokens_decoder": {"<x>": 1005}})),
        &["`added_tokens_decoder`", "tokens by id", "\"<x>\""]),
    ("list of added tokens with a gap", |folder| config(folder, json!({"added_tokens_decoder": {"2000": {"content": "<x>"}}})),
        &["tokenizer_config.json", "`<x>`", "the id 1005", "found 2000"]),
    ("list of added tokens without content", |folder| config(folder, json!({"added_tokens_decoder": {"1005": {}}})),
        &["`added_tokens_decoder`", "`content`"]),
];

/// Done to a folder with a SentencePiece model of seven pieces.
#[rustfmt::skip]
const HOSTILE_PIECES: &[Hostile] = &[
    ("empty model", |folder| write(folder, MODEL, ""), &[MODEL, "expected pieces", "found none"]),
    ("a pointer instead of the file", |folder| write(folder, MODEL, "version https://git-lfs.github.com/spec/v1"),
        &[MODEL, "at byte 0", "type 6"]),
    ("model cut", |folder| {
        let bytes = fs::read(folder.join(MODEL)).unwrap();
        write(folder, MODEL, &bytes[..bytes.len() - 5]);
    }, &[MODEL, "expected", "found only", "cut"]),
    ("piece cut", |folder| write(folder, MODEL, [0x0a, 2, 0x0a, 9]), &[MODEL, "piece 0", "9 bytes from byte 4 on", "found only 0"]),
    ("length of exabytes", |folder| write(folder, MODEL, [[0x0a].as_slice(), &[0xff; 8], &[0x7f]].concat()), &[MODEL, "found only 0"]),
    ("endless number", |folder| write(folder, MODEL, [0xff; 100]), &[MODEL, "at most 10 bytes", "byte 0"]),
    ("pieces that are numbers", |folder| write(folder, MODEL, [0x08, 1]), &[MODEL, "expected bytes in field 1", "whole number"]),
    ("group", |folder| write(folder, MODEL, [0x0b, 0x0c]), &[MODEL, "at byte 0", "type 3"]),
    ("score a whole number", |folder| write(folder, MODEL, bytes(1, &[bytes(1, b"a"), integer(2, 1)].concat())),
        &[MODEL, "piece 0", "four bytes", "field 2"]),
    ("piece not UTF-8", |folder| pieces(folder, |model| model.pieces[3] = raw(b"a\xff", -1.0, 1)), &[MODEL, "piece 3", "UTF-8"]),
    ("piece without text", |folder| pieces(folder, |model| model.pieces[3] = raw(b"", -1.0, 1)),
        &[MODEL, "piece 3", "1 to 1024", "found 0"]),
    ("endless piece", |folder| pieces(folder, |model| model.pieces[3] = raw(&[b'a'; 1 << 20], -1.0, 1)),
        &[MODEL, "piece 3", "1 to 1024", "found 1048576"]),
    ("piece twice", |folder| pieces(folder, |model| model.pieces[5] = model.pieces[4].clone()), &[MODEL, "piece 5", "once", "`b`"]),
    ("NaN score", |folder| pieces(folder, |model| model.pieces[4] = raw(b"b", f32::NAN, 1)), &[MODEL, "piece 4", "finite", "`b`", "NaN"]),
    ("infinite score", |folder| pieces(folder, |model| model.pieces[4] = raw(b"b", f32::NEG_INFINITY, 1)),
        &[MODEL, "piece 4", "finite", "-inf"]),
    ("unknown type of piece", |folder| pieces(folder, |model| model.pieces[4] = raw(b"b", 0.0, 9)),
        &[MODEL, "piece 4", "1 to 6", "found 9"]),
    ("BPE", |folder| pieces(folder, |model| model.trainer = integer(3, 2)),
        &[MODEL, "Unigram", "type BPE", "not supported", "tokenizer.json"]),
    ("words", |folder| pieces(folder, |model| model.trainer = integer(3, 3)), &[MODEL, "Unigram", "type word"]),
    ("characters", |folder| pieces(folder, |model| model.trainer = integer(3, 4)), &[MODEL, "Unigram", "type char"]),
    ("new type", |folder| pieces(folder, |model| model.trainer = integer(3, 77)), &[MODEL, "Unigram", "unknown (77)"]),
    ("bytes for unknown pieces", |folder| pieces(folder, |model| model.trainer = integer(35, 1)),
        &[MODEL, "`byte_fallback`", "expected false"]),
    ("blanks after words", |folder| pieces(folder, |model| model.trainer = integer(24, 1)), &[MODEL, "`treat_whitespace_as_suffix`"]),
    ("no blank before the text", |folder| pieces(folder, |model| model.normalizer = integer(3, 0)),
        &[MODEL, "`add_dummy_prefix`", "expected true"]),
    ("all blanks", |folder| pieces(folder, |model| model.normalizer = integer(4, 0)),
        &[MODEL, "`remove_extra_whitespaces`", "expected true"]),
    ("charsmap of three bytes", |folder| pieces(folder, |model| model.normalizer = bytes(2, &[0; 3])),
        &[MODEL, "charsmap", "4 bytes", "found 3"]),
    ("charsmap of gigabytes", |folder| pieces(folder, |model| model.normalizer = bytes(2, &[0xfc, 0xff, 0xff, 0xff, 0, 0, 0, 0])),
        &[MODEL, "charsmap", "4 to 4 bytes", "4294967292"]),
    ("charsmap without a tree", |folder| pieces(folder, |model| model.normalizer = bytes(2, &[0; 8])),
        &[MODEL, "charsmap", "one of 0 bytes"]),
    ("charsmap of endless texts", |folder| pieces(folder, |model| model.normalizer = bytes(2, &[&[4, 0, 0, 0, 0, 0, 0, 0],
        &[b'a'; 9999][..]].concat())),
        &[MODEL, "charsmap", "at most 1024", "9999"]),
    ("charsmap not UTF-8", |folder| pieces(folder, |model| model.normalizer = bytes(2, &[4, 0, 0, 0, 0, 0, 0, 0, 0xff])),
        &[MODEL, "precompiled_charsmap"]),
    ("charsmap that leads nowhere", |folder| pieces(folder, |model| model.normalizer = bytes(2, &[4, 0, 0, 0, 0, 0xff, 0xff, 0xff])),
        &[MODEL, "the text could not be tokenized", "cannot handle"]),
    ("model of another tokenizer", |folder| pieces(folder, |model| { model.pieces.remove(1); }),
        &[MODEL, "[Unknown, Control, Control]", "[Unknown, Control, Normal]"]),
    ("model of two pieces", |folder| pieces(folder, |model| model.pieces.truncate(2)), &[MODEL, "found [Unknown, Control]"]),
    ("CamemBERT without a start", |folder| {
        pieces(folder, |model| { model.pieces.remove(1); });
        config(folder, json!({"tokenizer_class": "CamembertTokenizer"}));
    }, &[MODEL, "`<s>`", "without it"]),
    ("no blank before words", |folder| config(folder, json!({"add_prefix_space": false})), &["`add_prefix_space`", "true", "found false"]),
    ("model a folder", |folder| { fs::remove_file(folder.join(MODEL)).unwrap(); fs::create_dir(folder.join(MODEL)).unwrap(); },
        &[MODEL, "cannot be read"]),
    ("only a model of any kind", |folder| fs::rename(folder.join(MODEL), folder.join("spiece.model")).unwrap(),
        &["only spiece.model", "`tokenizer_class`", "sentencepiece.bpe.model"]),
];

#[test]
fn damaged_files_are_refused_with_the_reason() {
    let roberta = || copy(&fixture("roberta-tokenizer"), &["vocab.json", "merges.txt"]);
    let mut table = Table::new("damaged files");
    let cases = HOSTILE_BYTES.iter().map(|case| (roberta(), case)).chain(HOSTILE_PIECES.iter().map(|case| (small_model(), case)));
    for (folder, (case, damage, words)) in cases {
        damage(folder.path());
        let run = || Tokenizer::open(folder.path()).and_then(|tokenizer| tokenizer.encode("ab c", Some("é"), 100));
        match catch_unwind(AssertUnwindSafe(run)) {
            Err(_) => table.fail(case, "panicked"),
            Ok(Ok(encoding)) => table.fail(case, format!("was accepted and gave {:?}", encoding.ids)),
            Ok(Err(error)) => {
                let message = error.to_string();
                let missing: Vec<_> = words.iter().filter(|&&word| !message.contains(word)).collect();
                table.check(case, missing.is_empty(), format!("{missing:?} not in: {message}"));
            }
        }
    }
    table.finish();
}

/// What the damage is done to is sound.
#[test]
fn sound_models_are_accepted() {
    let folder = small_model();
    let ids = || Tokenizer::open(folder.path()).unwrap().encode("ab c", Some("x<new>"), 100).unwrap().ids;
    assert_eq!(ids(), [0, 7, 6, 7, 3, 2, 2, 7, 3, 2]);
    // Every field of the format that is not needed, and a piece that stands for itself.
    pieces(folder.path(), |model| {
        model.pieces[6] = raw("<new>".as_bytes(), 0.0, 4);
        model.trainer = [integer(3, 1), bytes(1, b"text"), vec![0x79, 0, 0, 0, 0, 0, 0, 0, 0], float(10, 0.5), integer(35, 0)].concat();
        model.normalizer = [bytes(1, b"identity"), integer(3, 1)].concat();
    });
    assert_eq!(ids(), [0, 3, 6, 3, 2, 2, 3, 7, 2]);
}

const MODEL: &str = "sentencepiece.bpe.model";

/// A folder of XLM-R with seven pieces.
fn small_model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), MODEL, SentencePiece::small().bytes());
    folder
}

/// Changes the pieces of a small model.
fn pieces(folder: &Path, change: impl FnOnce(&mut SentencePiece)) {
    let mut model = SentencePiece::small();
    change(&mut model);
    write(folder, MODEL, model.bytes());
}

/// Gives a token another id.
fn vocabulary(folder: &Path, token: &str, id: Value) {
    let mut vocabulary: Value = read_json(&folder.join("vocab.json"));
    vocabulary[token] = id;
    write(folder, "vocab.json", vocabulary.to_string());
}

/// A file of one merge.
fn merges(folder: &Path, line: &str) {
    write(folder, "merges.txt", format!("#version: 0.2\n{line}\n"));
}

fn config(folder: &Path, config: Value) {
    write(folder, "tokenizer_config.json", config.to_string());
}

/// `built` gives what `expected` gives: ids, types and sources of the texts of `golden` and of more.
fn same(table: &mut Table, source: &Path, built: &Tokenizer, expected: &Tokenizer, golden: &Golden) {
    let cases = golden.cases.iter().map(|case| (case.text.as_str(), case.text_pair.as_deref()));
    let more = MORE_TEXTS.iter().flat_map(|&text| [(text, None), ("A question?", Some(text)), (text, Some("x"))]);
    for (text, pair) in cases.chain(more) {
        let name = format!("{} {text:?} {pair:?}", source.display());
        let (encoding, sources) = built.encode_with_sources(text, pair, golden.max_length).unwrap();
        let (expected, expected_sources) = expected.encode_with_sources(text, pair, golden.max_length).unwrap();
        table.equal(&name, &encoding.ids, &expected.ids);
        table.equal(&name, &encoding.type_ids, &expected.type_ids);
        table.equal(&name, &sources, &expected_sources);
    }
    let sizes = [built, expected].map(|tokenizer| (tokenizer.size(), tokenizer.id("<mask>"), tokenizer.id("<pad>")));
    table.equal(source.display(), &sizes[..1], &sizes[1..]);
}

/// The part of a golden.json that is about tokens; a folder without a model has it in tokens.json.
type Golden = Cases<Case>;

#[derive(Deserialize)]
struct Cases<T> {
    max_length: usize,
    cases: Vec<T>,
}

impl Golden {
    fn open(folder: &Path) -> Self {
        let tokens = folder.join("tokens.json");
        read_json(&if tokens.exists() { tokens } else { folder.join("golden.json") })
    }
}

fn bytes_of(sources: &[TokenSource]) -> Vec<[usize; 2]> {
    sources.iter().map(|source| [source.bytes.start, source.bytes.end]).collect()
}
