//! The tokenizers of BERT and MPNet from `vocab.txt`, for folders without `tokenizer.json`.

use std::path::Path;

use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, Model, NormalizerWrapper, PostProcessorWrapper};

use super::settings::Settings;
use crate::checkpoint::json::{Object, read_text};
use crate::{Error, Result};

/// `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, the second text with types of 1.
pub(super) fn bert(path: &Path, settings: &Settings) -> Result<tokenizers::Tokenizer> {
    let token = |field, default| settings.special(field, AddedToken::from(default, true));
    let [separator, class] = [token("sep_token", "[SEP]")?, token("cls_token", "[CLS]")?];
    let others = vec![token("pad_token", "[PAD]")?, token("mask_token", "[MASK]")?];
    build(path, settings, separator, class, others, |separator, class| BertProcessing::new(separator, class).into())
}

/// `<s> A </s>` and `<s> A </s> </s> B </s>`, as in RoBERTa without types.
pub(super) fn mpnet(path: &Path, settings: &Settings) -> Result<tokenizers::Tokenizer> {
    let token = |field, default| settings.special(field, AddedToken::from(default, true));
    let [separator, class] = [token("sep_token", "</s>")?, token("cls_token", "<s>")?];
    let mask = settings.special("mask_token", AddedToken::from("<mask>", true).lstrip(true))?;
    let others = vec![token("bos_token", "<s>")?, token("eos_token", "</s>")?, token("pad_token", "<pad>")?, mask];
    let join = |separator, class| RobertaProcessing::new(separator, class).add_prefix_space(false).into();
    build(path, settings, separator, class, others, join)
}

/// The normalizer of a `tokenizer.json` gives way to what `tokenizer_config.json` says, and to the class's defaults where it says nothing.
pub(super) fn adjust(tokenizer: &mut tokenizers::Tokenizer, config: &Object) -> Result<()> {
    let Some(NormalizerWrapper::BertNormalizer(found)) = tokenizer.get_normalizer() else { return Ok(()) };
    let wanted = normalizer(found.clean_text, |field| config.flag(field))?;
    let failed = |error| Error::checkpoint(config.path(), format!("its settings do not suit tokenizer.json: {error}"));
    tokenizer.with_normalizer(Some(wanted)).map(|_| ()).map_err(failed)
}

fn normalizer(clean: bool, flag: impl Fn(&str) -> Result<Option<bool>>) -> Result<BertNormalizer> {
    let lower_case = flag("do_lower_case")?.unwrap_or(true);
    let chinese = flag("tokenize_chinese_chars")?.unwrap_or(true);
    // Left open, it follows the case.
    let accents = flag("strip_accents")?;
    Ok(BertNormalizer::new(clean, chinese, accents, lower_case))
}

fn build(
    path: &Path,
    settings: &Settings,
    separator: AddedToken,
    class: AddedToken,
    others: Vec<AddedToken>,
    join: fn((String, u32), (String, u32)) -> PostProcessorWrapper,
) -> Result<tokenizers::Tokenizer> {
    // Without them `vocab.txt` alone would give other ids.
    settings.require_flag("do_basic_tokenize", true)?;
    settings.require_no_list("never_split")?;

    let unknown = settings.special("unk_token", AddedToken::from("[UNK]", true))?;
    let text = read_text(path)?.ok_or_else(|| Error::checkpoint(path, "there is no such file: download the model again"))?;
    let failed = |error| Error::checkpoint(path, format!("no tokenizer can be built from it: {error}"));
    let vocabulary = WordPiece::read_bytes(text.as_bytes()).map_err(failed)?;
    let model = WordPiece::builder().vocab(vocabulary).unk_token(unknown.content.clone()).build().map_err(failed)?;
    // The model looks for it among its own tokens, not among added ones.
    if model.token_to_id(&unknown.content).is_none() {
        return Err(Settings::missing(path, model.get_vocab_size(), &unknown));
    }
    let mut tokenizer = tokenizers::Tokenizer::new(model);

    tokenizer.with_normalizer(Some(normalizer(true, |field| settings.flag(field))?)).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));

    let named = [separator.clone(), class.clone(), unknown].into_iter().chain(others).collect();
    settings.add_tokens(path, &mut tokenizer, named, Vec::new())?;
    let id = |token: AddedToken| Settings::id(path, &tokenizer, &token).map(|id| (token.content, id));
    let join = join(id(separator)?, id(class)?);
    tokenizer.with_post_processor(Some(join));
    Ok(tokenizer)
}
