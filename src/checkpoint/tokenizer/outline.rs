//! What a `tokenizer.json` asks for, looked through before the `tokenizers` library builds it.
//!
//! The library takes its files on trust: it nests its tree of pieces as deep as the longest one, reserves memory by counts in a file, and
//! lets a few lines of normalizers make a text a billion times as long. Within these limits, which no tokenizer of a model comes near, what
//! it takes of stack, memory and time is bounded.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::sentencepiece::{LONGEST_PIECE, check_charsmap};

/// Steps of normalizers, pre-tokenizers and decoders.
const MOST_STEPS: usize = 64;
/// Bytes of all regular expressions. A class of Unicode letters takes a hundred kilobytes.
const LONGEST_EXPRESSIONS: usize = 1024;
/// All repetitions in regular expressions, multiplied.
const MOST_REPETITIONS: u64 = 1000;
/// How much longer a text may become, as far as can be told.
const MOST_GROWTH: f64 = 4096.0;
/// The field of a normalizer with a table in base64.
const CHARSMAP: &str = "precompiled_charsmap";

/// The parts of a file. Whether they are sound is for the library to say.
#[derive(serde::Deserialize)]
pub(super) struct Outline {
    #[serde(default)]
    added_tokens: Longest,
    #[serde(default)]
    model: Longest,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

impl Outline {
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        for (part, Longest(longest)) in [("added_tokens", &self.added_tokens), ("model", &self.model)] {
            if *longest > LONGEST_PIECE {
                return Err(format!("`{part}`: expected texts of at most {LONGEST_PIECE} bytes, found one of {longest}"));
            }
        }
        let mut steps = Steps { count: 0, expressions: 0, repetitions: 1, growth: 1.0 };
        [&self.normalizer, &self.pre_tokenizer, &self.decoder].into_iter().try_for_each(|part| steps.add(part))?;
        let Steps { count, expressions, repetitions, growth } = steps;
        if count > MOST_STEPS {
            return Err(format!("expected at most {MOST_STEPS} normalizers and the like, found {count}"));
        }
        if expressions > LONGEST_EXPRESSIONS || repetitions > MOST_REPETITIONS {
            return Err(format!(
                "expected regular expressions of at most {LONGEST_EXPRESSIONS} bytes and {MOST_REPETITIONS} repetitions in all, \
                 found {expressions} and {repetitions}"
            ));
        }
        if growth > MOST_GROWTH {
            return Err(format!("expected a text to become at most {MOST_GROWTH} times as long, found normalizers for {growth:e} times"));
        }
        Ok(())
    }
}

/// What normalizers, pre-tokenizers and decoders add up to.
struct Steps {
    count: usize,
    expressions: usize,
    repetitions: u64,
    growth: f64,
}

impl Steps {
    fn add(&mut self, part: &Value) -> Result<(), String> {
        match part {
            Value::Array(parts) => parts.iter().try_for_each(|part| self.add(part)),
            Value::Object(fields) => {
                self.count += usize::from(fields.contains_key("type"));
                self.growth *= match part["type"].as_str() {
                    Some("ByteLevel" | "Lowercase") => 2.0,
                    Some("NFC" | "NFD") => 3.0,
                    Some("NFKC" | "NFKD") => 11.0,
                    _ => 1.0,
                };
                if let Some(content) = part["content"].as_str() {
                    let replaced = part["pattern"]["String"].as_str().map_or(1, str::len).max(1);
                    self.growth *= content.len().div_ceil(replaced).max(1) as f64;
                }
                fields.iter().try_for_each(|(field, value)| match value {
                    Value::String(text) => self.add_text(field, text),
                    other => self.add(other),
                })
            }
            _ => Ok(()),
        }
    }

    fn add_text(&mut self, field: &str, text: &str) -> Result<(), String> {
        if field == CHARSMAP {
            let charsmap = base64(text).ok_or_else(|| format!("`{CHARSMAP}`: expected base64, found other characters"))?;
            self.growth *= check_charsmap(&charsmap)? as f64;
            return Ok(());
        }
        if text.len() > LONGEST_PIECE {
            return Err(format!("`{field}`: expected a text of at most {LONGEST_PIECE} bytes, found one of {}", text.len()));
        }
        if field == "Regex" {
            self.expressions += text.len();
            // Numbers elsewhere count too; it is a bound.
            let numbers = text.split(|character: char| !character.is_ascii_digit()).filter(|digits| !digits.is_empty());
            for number in numbers {
                self.repetitions = self.repetitions.saturating_mul(number.parse::<u64>().unwrap_or(u64::MAX).max(1));
            }
        }
        Ok(())
    }
}

/// Bytes of the longest text in a value, keys included.
#[derive(Default)]
struct Longest(usize);

impl<'de> Deserialize<'de> for Longest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Longest(0))
    }
}

impl<'de> Visitor<'de> for Longest {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self, E> {
        Ok(Self(text.len()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> Result<Self, A::Error> {
        while let Some(Self(length)) = values.next_element()? {
            self.0 = self.0.max(length);
        }
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Self, A::Error> {
        while let Some((Self(key), Self(length))) = fields.next_entry()? {
            self.0 = self.0.max(key).max(length);
        }
        Ok(self)
    }
}

/// The bytes of a text in base64, or `None` where there is another character in it.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, count) = (bits << 6 | u32::from(value), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}
