//! Writes SentencePiece models, field by field, so that each field can be damaged.

use serde_json::Value;

/// A SentencePiece model to be written.
pub struct SentencePiece {
    /// As the messages of the format.
    pub pieces: Vec<Vec<u8>>,
    pub trainer: Vec<u8>,
    pub normalizer: Vec<u8>,
}

impl SentencePiece {
    /// The model that a Unigram tokenizer of XLM-R was made from.
    pub fn of(json: &Value) -> Self {
        let vocabulary = json["model"]["vocab"].as_array().unwrap();
        let mut model = Self::small();
        model.pieces.truncate(3);
        model.pieces.extend(
            vocabulary[4..vocabulary.len() - 1]
                .iter()
                .map(|piece| raw(piece[0].as_str().unwrap().as_bytes(), piece[1].as_f64().unwrap() as f32, 1)),
        );
        model.normalizer = [bytes(1, b"nmt_nfkc"), bytes(2, &base64(charsmap(json)))].concat();
        model
    }

    /// Four pieces after those that every model has.
    pub fn small() -> Self {
        let specials = [("<unk>", 2), ("<s>", 3), ("</s>", 3)].map(|(text, kind)| raw(text.as_bytes(), 0.0, kind));
        let others = [("a", -1.0), ("b", -1.0), ("ab", -1.5), ("▁", -1.0)].map(|(text, score)| raw(text.as_bytes(), score, 1));
        Self { pieces: specials.into_iter().chain(others).collect(), trainer: integer(3, 1), normalizer: Vec::new() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let pieces = self.pieces.iter().flat_map(|piece| bytes(1, piece)).collect::<Vec<_>>();
        [pieces, bytes(2, &self.trainer), bytes(3, &self.normalizer)].concat()
    }
}

/// A piece: text, score, and type (1 normal, 2 unknown, 3 control, 4 defined by the user).
pub fn raw(text: &[u8], score: f32, kind: u64) -> Vec<u8> {
    [bytes(1, text), float(2, score), integer(3, kind)].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

pub fn integer(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

pub fn float(field: u64, value: f32) -> Vec<u8> {
    [varint(field << 3 | 5), value.to_le_bytes().to_vec()].concat()
}

pub fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

/// The table of the normalizer in a tokenizer.json, in base 64.
pub fn charsmap(json: &Value) -> &str {
    let normalizer = &json["normalizer"];
    let parts = normalizer["normalizers"].as_array().map_or(std::slice::from_ref(normalizer), Vec::as_slice);
    parts.iter().find_map(|part| part["precompiled_charsmap"].as_str()).unwrap()
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<_> = text.trim_end_matches('=').chars().map(|digit| DIGITS.find(digit).unwrap() as u32).collect();
    let group = |digits: &[u32]| {
        let bits = digits.iter().zip([18, 12, 6, 0]).fold(0, |bits, (digit, shift)| bits | digit << shift);
        bits.to_be_bytes()[1..digits.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}
