//! SentencePiece models: the pieces of a Unigram vocabulary and the table that normalizes texts.

use std::collections::HashSet;
use std::path::Path;

use super::protobuf::{Field, Fields};
use crate::checkpoint::json::read_bytes;
use crate::{Error, Result};

/// Far above what any trainer makes. The library nests its tree of pieces as deep as the longest one.
pub(super) const LONGEST_PIECE: usize = 1024;

/// The contents of a `sentencepiece.bpe.model`.
#[derive(Debug, Default)]
pub(super) struct SentencePiece {
    /// At least one, each text once.
    pub pieces: Vec<Piece>,
    /// Replacements of characters, as SentencePiece compiles them; empty where texts are taken as they are.
    pub charsmap: Vec<u8>,
}

/// One piece of the vocabulary.
#[derive(Debug)]
pub(super) struct Piece {
    pub text: String,
    /// Logarithm of the probability.
    pub score: f32,
    pub kind: PieceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
}

impl SentencePiece {
    /// Reads a model, which must be of type Unigram.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = read_bytes(path)?.ok_or_else(|| Error::checkpoint(path, "there is no such file: download the model again"))?;
        let mut model = Self::default();
        for field in Fields::new(&file) {
            field.map_err(Fault::Damage).and_then(|field| model.read(&field)).map_err(|fault| fault.at(path))?;
        }
        model.check().map_err(|problem| Fault::Damage(problem).at(path))?;
        Ok(model)
    }

    fn read(&mut self, field: &Field) -> Result<(), Fault> {
        match field.number {
            1 => {
                let piece = Piece::read(field.message()?);
                self.pieces.push(piece.map_err(|problem| format!("piece {}: {problem}", self.pieces.len()))?);
            }
            2 => check_trainer(field.message()?)?,
            3 => {
                for field in field.message()? {
                    let field = field?;
                    match field.number {
                        2 => self.charsmap = field.bytes()?.to_vec(),
                        // What transformers and this crate take for granted.
                        3 => require("add_dummy_prefix", true, field.integer()?)?,
                        4 => require("remove_extra_whitespaces", true, field.integer()?)?,
                        5 => require("escape_whitespaces", true, field.integer()?)?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.pieces.is_empty() {
            return Err("expected pieces, found none".to_owned());
        }
        let mut texts = HashSet::new();
        if let Some(index) = self.pieces.iter().position(|piece| !texts.insert(&piece.text)) {
            return Err(format!("piece {index}: expected each piece once, found `{}` again", self.pieces[index].text));
        }
        check_charsmap(&self.charsmap).map(drop)
    }
}

impl Piece {
    fn read(fields: Fields) -> Result<Self, String> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: PieceKind::Normal };
        for field in fields {
            let field = field?;
            match field.number {
                1 => piece.text = field.text()?.to_owned(),
                2 => piece.score = field.float()?,
                3 => {
                    piece.kind = match field.integer()? {
                        // 5 and 6 are pieces that are not used and pieces for bytes: plain ones to transformers.
                        1 | 5 | 6 => PieceKind::Normal,
                        2 => PieceKind::Unknown,
                        3 => PieceKind::Control,
                        4 => PieceKind::UserDefined,
                        other => return Err(format!("expected a type from 1 to 6, found {other}")),
                    }
                }
                _ => {}
            }
        }
        if !(1..=LONGEST_PIECE).contains(&piece.text.len()) {
            return Err(format!("expected a text of 1 to {LONGEST_PIECE} bytes, found {}", piece.text.len()));
        }
        if !piece.score.is_finite() {
            return Err(format!("expected a finite score for `{}`, found {}", piece.text, piece.score));
        }
        Ok(piece)
    }
}

/// The part that says how the model was trained.
fn check_trainer(fields: Fields) -> Result<(), Fault> {
    for field in fields {
        let field = field?;
        match field.number {
            3 => {
                let kind = match field.integer()? {
                    1 => continue,
                    2 => "BPE".to_owned(),
                    3 => "word".to_owned(),
                    4 => "char".to_owned(),
                    other => format!("unknown ({other})"),
                };
                return Err(Fault::Unsupported(format!("expected a SentencePiece model of type Unigram, found type {kind}")));
            }
            24 => require("treat_whitespace_as_suffix", false, field.integer()?)?,
            35 => require("byte_fallback", false, field.integer()?)?,
            _ => {}
        }
    }
    Ok(())
}

fn require(option: &str, expected: bool, found: u64) -> Result<(), Fault> {
    let found = found != 0;
    if found == expected { Ok(()) } else { Err(Fault::Unsupported(format!("`{option}`: expected {expected}, found {found}"))) }
}

/// The table is a u32 that counts bytes, so many bytes of a tree, and texts that end in a zero byte each. The library reserves memory by
/// the count and copies the texts, whatever their length. Gives the length of the longest text, at least 1.
pub(super) fn check_charsmap(charsmap: &[u8]) -> Result<usize, String> {
    if charsmap.is_empty() {
        return Ok(1);
    }
    let wrong = |found: String| Err(format!("`precompiled_charsmap`: {found}"));
    let Some((count, rest)) = charsmap.split_first_chunk() else {
        return wrong(format!("expected at least 4 bytes, found {}", charsmap.len()));
    };
    let count = u32::from_le_bytes(*count) as usize;
    if count < 4 || !count.is_multiple_of(4) || count > rest.len() {
        return wrong(format!("expected a tree of 4 to {} bytes in words of 4, found one of {count} bytes", rest.len()));
    }
    match rest[count..].split(|&byte| byte == 0).map(<[u8]>::len).max() {
        Some(length) if length > LONGEST_PIECE => {
            wrong(format!("expected replacements of at most {LONGEST_PIECE} bytes, found one of {length}"))
        }
        longest => Ok(longest.unwrap_or(0).max(1)),
    }
}

/// Why a model cannot be used.
enum Fault {
    Damage(String),
    Unsupported(String),
}

impl Fault {
    fn at(self, path: &Path) -> Error {
        match self {
            Self::Damage(problem) => {
                Error::checkpoint(path, format!("not a sound SentencePiece model: {problem}: download the file again"))
            }
            Self::Unsupported(problem) => {
                Error::unsupported(path, format!("{problem}, which is not supported: {}", super::files::SAVE_JSON))
            }
        }
    }
}

impl From<String> for Fault {
    fn from(problem: String) -> Self {
        Self::Damage(problem)
    }
}
