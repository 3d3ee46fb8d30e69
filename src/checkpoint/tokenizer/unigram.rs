//! The tokenizers of XLM-RoBERTa and CamemBERT from a SentencePiece model, for folders without `tokenizer.json`.
//!
//! Both number the pieces as fairseq did, not as SentencePiece does: special tokens of fairseq come first and `<mask>` comes last.

use std::path::Path;

use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::Metaspace;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, NormalizerWrapper};

use super::sentencepiece::{PieceKind, SentencePiece};
use super::settings::Settings;
use super::tokenizer_json::guarded;
use crate::{Error, Result};

/// The id of `<unk>`, with both models.
const UNKNOWN: usize = 3;

/// `<s>`, `<pad>`, `</s>`, `<unk>`, the pieces from the third on, `<mask>`.
pub(super) fn xlm_roberta(path: &Path, settings: &Settings) -> Result<tokenizers::Tokenizer> {
    let specials = Specials::read(settings)?;
    let names = [&specials.begin, &specials.padding, &specials.end, &specials.unknown];
    let first = names.map(|token| (token.content.clone(), 0.0));
    build(path, settings, specials, &first, &[PieceKind::Unknown, PieceKind::Control, PieceKind::Control], &[])
}

/// Five tokens of which the model uses only `<pad>` and `<unk>`, the pieces from the first on, `<mask>`.
pub(super) fn camembert(path: &Path, settings: &Settings) -> Result<tokenizers::Tokenizer> {
    let specials = Specials::read(settings)?;
    let name = |name: &str, score| (name.to_owned(), score);
    let first = [
        name("<s>NOTUSED", 0.0),
        name(&specials.padding.content, 0.0),
        name("</s>NOTUSED", 0.0),
        name(&specials.unknown.content, 0.0),
        name("<unk>NOTUSED", -100.0),
    ];
    build(path, settings, specials, &first, &[PieceKind::Unknown], &["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"])
}

struct Specials {
    begin: AddedToken,
    padding: AddedToken,
    end: AddedToken,
    unknown: AddedToken,
    mask: AddedToken,
}

impl Specials {
    fn read(settings: &Settings) -> Result<Self> {
        Ok(Self {
            begin: settings.special("bos_token", AddedToken::from("<s>", true))?,
            padding: settings.special("pad_token", AddedToken::from("<pad>", true))?,
            end: settings.special("eos_token", AddedToken::from("</s>", true))?,
            unknown: settings.special("unk_token", AddedToken::from("<unk>", true))?,
            mask: settings.special("mask_token", AddedToken::from("<mask>", true).lstrip(true))?,
        })
    }
}

/// `first` stand in place of the pieces of the kinds `replaced`.
fn build(
    path: &Path,
    settings: &Settings,
    specials: Specials,
    first: &[(String, f64)],
    replaced: &[PieceKind],
    others: &[&str],
) -> Result<tokenizers::Tokenizer> {
    settings.require_flag("add_prefix_space", true)?;
    let model = SentencePiece::open(path)?;
    let kinds: Vec<_> = model.pieces.iter().take(replaced.len()).map(|piece| piece.kind).collect();
    if kinds != replaced {
        let problem = format!("expected pieces of the kinds {replaced:?} first, found {kinds:?}: the model belongs to another tokenizer");
        return Err(Error::checkpoint(path, problem));
    }
    let pieces = &model.pieces[replaced.len()..];
    let mut vocabulary = first.to_vec();
    vocabulary.extend(pieces.iter().map(|piece| (piece.text.clone(), f64::from(piece.score))));
    vocabulary.push((specials.mask.content.clone(), 0.0));

    let failed = |error| Error::checkpoint(path, format!("no tokenizer can be built from it: {error}: download the file again"));
    let unigram = guarded(|| Unigram::from(vocabulary, Some(UNKNOWN), false)).map_err(failed)?;
    let mut tokenizer = tokenizers::Tokenizer::new(unigram);
    if !model.charsmap.is_empty() {
        let normalizer = guarded(|| Ok(NormalizerWrapper::from(Precompiled::from(&model.charsmap)?)));
        tokenizer.with_normalizer(Some(normalizer.map_err(failed)?)).map_err(|error| failed(error.to_string()))?;
    }
    // A word is what stands between blanks, each with the mark of a blank before it, as SentencePiece sees a text.
    let words: [PreTokenizerWrapper; 2] = [WhitespaceSplit.into(), Metaspace::default().into()];
    tokenizer.with_pre_tokenizer(Some(Sequence::new(words.into())));

    let Specials { begin, padding, end, unknown, mask } = specials;
    let plain = others.iter().map(|&other| AddedToken::from(other, true));
    let named: Vec<_> = [begin.clone(), padding, end.clone(), unknown, mask].into_iter().chain(plain).collect();
    let symbols = pieces.iter().filter(|piece| matches!(piece.kind, PieceKind::Control | PieceKind::UserDefined));
    let symbols = symbols.map(|piece| AddedToken::from(&piece.text, piece.kind == PieceKind::Control).normalized(false)).collect();
    settings.add_tokens(path, &mut tokenizer, named, symbols)?;
    let id = |token: AddedToken| Settings::id(path, &tokenizer, &token).map(|id| (token.content, id));
    // Offsets hold no blanks that could be trimmed.
    let join = RobertaProcessing::new(id(end)?, id(begin)?).trim_offsets(false);
    tokenizer.with_post_processor(Some(join));
    Ok(tokenizer)
}
