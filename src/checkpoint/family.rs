//! Model families as rows of data: what a checkpoint of each calls its configuration fields and tensors, and how it counts positions.
//!
//! A further family is a further row. What no row can express is refused by name rather than approximated.

use super::config::Activation;

/// One family of encoders that differ in names, not in computation.
#[derive(Debug)]
pub struct Family {
    /// The name in messages.
    pub name: &'static str,
    /// Values of `model_type` in `config.json`.
    pub model_types: &'static [&'static str],
    /// Class names in `architectures` up to `Model` or `For...`, for a `config.json` without `model_type`.
    pub classes: &'static [&'static str],
    /// What may stand before every tensor name of the encoder, by the task that the checkpoint was saved from.
    pub prefixes: &'static [&'static str],
    /// Names of the fields in `config.json`.
    pub fields: Fields,
    /// Names of the encoder's tensors.
    pub tensors: Names,
    /// Names of the tensors behind the encoder.
    pub heads: Heads,
    pub positions: Positions,
    /// `layer_norm_eps` where `config.json` has none.
    pub default_layer_norm_eps: f64,
}

/// Where the position of a text's first token comes from. After the id of padding that many rows of the position table are never used, and
/// padding in a text has no position of its own.
#[derive(Debug, Clone, Copy)]
pub enum Positions {
    FromZero,
    /// After `pad_token_id`, which is 1 where `config.json` has none.
    AfterPadding,
    /// After 1, whatever `config.json` says.
    AfterOne,
}

/// What `config.json` calls the sizes of an encoder. Where there are several names, files of different age differ; the first is the
/// one in messages.
#[derive(Debug, Clone, Copy)]
pub struct Fields {
    pub layers: Field,
    pub hidden: Field,
    pub heads: Field,
    /// Empty where it is always four times `hidden`.
    pub intermediate: Field,
    pub vocabulary: Field,
    pub position_rows: Field,
    /// Empty where tokens have no types.
    pub token_types: Field,
    pub activation: ActivationField,
    pub layer_norm_eps: Field,
    /// Width of the embedding tables, with its default; empty where it is always `hidden`.
    pub embedding: Field,
    pub default_embedding: usize,
}

/// Names of one field.
pub type Field = &'static [&'static str];

/// How `config.json` says which activation there is.
#[derive(Debug, Clone, Copy)]
pub enum ActivationField {
    /// The name of an activation.
    Name(&'static str),
    /// Whether it is the exact GELU rather than ReLU.
    IsGelu(&'static str),
}

/// What the weights call the parts of an encoder, without prefix and without `.weight` or `.bias`; `{i}` is the layer.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    pub word: &'static str,
    pub position: &'static str,
    pub token_type: Option<&'static str>,
    /// A row for each language that a text may be in, where the configuration asks for it.
    pub language: Option<&'static str>,
    pub embedding_norm: &'static str,
    /// From the embedding's width to the hidden one, where they differ.
    pub embedding_projection: Option<&'static str>,
    /// What the distance of two tokens adds to their attention score, in each head and all layers: `[buckets, heads]`.
    pub relative_bias: Option<&'static str>,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_output: &'static str,
    pub attention_norm: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub output_norm: &'static str,
    /// Over the first token's state, with tanh.
    pub pooler: Option<&'static str>,
}

/// What the weights call the parts behind an encoder. These names have no prefix, but for [`Dense::Pooler`].
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Before [`Heads::classifier`], over the state that stands for the text.
    pub classifier_dense: Dense,
    /// To the labels of a text.
    pub classifier: &'static str,
    /// To the labels of each token.
    pub token_classifier: &'static str,
    /// To the logits of an answer's start and end.
    pub span: &'static str,
    pub masked: Masked,
}

/// A matrix before the last one of a classifier.
#[derive(Debug, Clone, Copy)]
pub enum Dense {
    /// None: the state goes straight to the labels. Which state, and whether an activation follows, `summary_type` and
    /// `summary_activation` of `config.json` say.
    Summary,
    /// The encoder's own pooler.
    Pooler,
    Named(&'static str, Activation),
}

/// What gives each word of the vocabulary a logit. The last matrix is the word embeddings themselves where the checkpoint has no other.
#[derive(Debug, Clone, Copy)]
pub struct Masked {
    /// Matrix and layer norm before the last matrix; its activation, or `None` for the encoder's.
    pub transform: Option<(&'static str, Option<Activation>, &'static str)>,
    pub decoder: &'static str,
    /// With their `.bias`, as some checkpoints have one and some the other.
    pub bias: &'static [&'static str],
}

const BERT_FIELDS: Fields = Fields {
    layers: &["num_hidden_layers"],
    hidden: &["hidden_size"],
    heads: &["num_attention_heads"],
    intermediate: &["intermediate_size"],
    vocabulary: &["vocab_size"],
    position_rows: &["max_position_embeddings"],
    token_types: &["type_vocab_size"],
    activation: ActivationField::Name("hidden_act"),
    layer_norm_eps: &["layer_norm_eps"],
    embedding: &[],
    default_embedding: 0,
};

const BERT_NAMES: Names = Names {
    word: "embeddings.word_embeddings",
    position: "embeddings.position_embeddings",
    token_type: Some("embeddings.token_type_embeddings"),
    language: None,
    embedding_norm: "embeddings.LayerNorm",
    embedding_projection: None,
    relative_bias: None,
    query: "encoder.layer.{i}.attention.self.query",
    key: "encoder.layer.{i}.attention.self.key",
    value: "encoder.layer.{i}.attention.self.value",
    attention_output: "encoder.layer.{i}.attention.output.dense",
    attention_norm: "encoder.layer.{i}.attention.output.LayerNorm",
    up: "encoder.layer.{i}.intermediate.dense",
    down: "encoder.layer.{i}.output.dense",
    output_norm: "encoder.layer.{i}.output.LayerNorm",
    pooler: Some("pooler.dense"),
};

const BERT_HEADS: Heads = Heads {
    classifier_dense: Dense::Pooler,
    classifier: "classifier",
    token_classifier: "classifier",
    span: "qa_outputs",
    masked: Masked {
        transform: Some(("cls.predictions.transform.dense", None, "cls.predictions.transform.LayerNorm")),
        decoder: "cls.predictions.decoder",
        bias: &["cls.predictions.bias", "cls.predictions.decoder.bias"],
    },
};

const ROBERTA_HEADS: Heads = Heads {
    classifier_dense: Dense::Named("classifier.dense", Activation::Tanh),
    classifier: "classifier.out_proj",
    masked: Masked {
        transform: Some(("lm_head.dense", Some(Activation::Gelu), "lm_head.layer_norm")),
        decoder: "lm_head.decoder",
        bias: &["lm_head.bias", "lm_head.decoder.bias"],
    },
    ..BERT_HEADS
};

/// Every family, one row each.
pub static FAMILIES: [Family; 6] = [
    Family {
        name: "BERT",
        model_types: &["bert"],
        classes: &["Bert"],
        prefixes: &["", "bert."],
        fields: BERT_FIELDS,
        tensors: BERT_NAMES,
        heads: BERT_HEADS,
        positions: Positions::FromZero,
        default_layer_norm_eps: 1e-12,
    },
    Family {
        name: "RoBERTa",
        model_types: &["roberta", "xlm-roberta", "camembert"],
        classes: &["Roberta", "XLMRoberta", "Camembert"],
        prefixes: &["", "roberta."],
        fields: BERT_FIELDS,
        tensors: BERT_NAMES,
        heads: ROBERTA_HEADS,
        positions: Positions::AfterPadding,
        default_layer_norm_eps: 1e-12,
    },
    Family {
        name: "XLM",
        model_types: &["xlm"],
        classes: &["XLM", "XLMWithLMHead"],
        prefixes: &["", "transformer."],
        fields: Fields {
            layers: &["n_layers", "num_hidden_layers"],
            hidden: &["emb_dim", "hidden_size"],
            heads: &["n_heads", "num_attention_heads"],
            intermediate: &[],
            vocabulary: &["n_words", "vocab_size"],
            token_types: &[],
            activation: ActivationField::IsGelu("gelu_activation"),
            ..BERT_FIELDS
        },
        tensors: Names {
            word: "embeddings",
            position: "position_embeddings",
            token_type: None,
            language: Some("lang_embeddings"),
            embedding_norm: "layer_norm_emb",
            embedding_projection: None,
            relative_bias: None,
            query: "attentions.{i}.q_lin",
            key: "attentions.{i}.k_lin",
            value: "attentions.{i}.v_lin",
            attention_output: "attentions.{i}.out_lin",
            attention_norm: "layer_norm1.{i}",
            up: "ffns.{i}.lin1",
            down: "ffns.{i}.lin2",
            output_norm: "layer_norm2.{i}",
            pooler: None,
        },
        heads: Heads {
            classifier_dense: Dense::Summary,
            classifier: "sequence_summary.summary",
            masked: Masked { transform: None, decoder: "pred_layer.proj", bias: &["pred_layer.proj.bias"] },
            ..BERT_HEADS
        },
        positions: Positions::FromZero,
        default_layer_norm_eps: 1e-12,
    },
    Family {
        name: "DistilBERT",
        model_types: &["distilbert"],
        classes: &["DistilBert"],
        prefixes: &["", "distilbert."],
        fields: Fields {
            layers: &["n_layers", "num_hidden_layers"],
            hidden: &["dim", "hidden_size"],
            heads: &["n_heads", "num_attention_heads"],
            intermediate: &["hidden_dim"],
            token_types: &[],
            activation: ActivationField::Name("activation"),
            layer_norm_eps: &[],
            ..BERT_FIELDS
        },
        tensors: Names {
            token_type: None,
            query: "transformer.layer.{i}.attention.q_lin",
            key: "transformer.layer.{i}.attention.k_lin",
            value: "transformer.layer.{i}.attention.v_lin",
            attention_output: "transformer.layer.{i}.attention.out_lin",
            attention_norm: "transformer.layer.{i}.sa_layer_norm",
            up: "transformer.layer.{i}.ffn.lin1",
            down: "transformer.layer.{i}.ffn.lin2",
            output_norm: "transformer.layer.{i}.output_layer_norm",
            pooler: None,
            ..BERT_NAMES
        },
        heads: Heads {
            classifier_dense: Dense::Named("pre_classifier", Activation::Relu),
            masked: Masked {
                transform: Some(("vocab_transform", None, "vocab_layer_norm")),
                decoder: "vocab_projector",
                bias: &["vocab_projector.bias"],
            },
            ..BERT_HEADS
        },
        positions: Positions::FromZero,
        default_layer_norm_eps: 1e-12,
    },
    Family {
        name: "ELECTRA",
        model_types: &["electra"],
        classes: &["Electra"],
        prefixes: &["", "electra."],
        fields: Fields { embedding: &["embedding_size"], default_embedding: 128, ..BERT_FIELDS },
        tensors: Names { embedding_projection: Some("embeddings_project"), pooler: None, ..BERT_NAMES },
        heads: Heads {
            classifier_dense: Dense::Named("classifier.dense", Activation::Gelu),
            classifier: "classifier.out_proj",
            masked: Masked {
                transform: Some(("generator_predictions.dense", Some(Activation::Gelu), "generator_predictions.LayerNorm")),
                decoder: "generator_lm_head",
                bias: &["generator_lm_head.bias"],
            },
            ..BERT_HEADS
        },
        positions: Positions::FromZero,
        default_layer_norm_eps: 1e-12,
    },
    Family {
        name: "MPNet",
        model_types: &["mpnet"],
        classes: &["MPNet"],
        prefixes: &["", "mpnet."],
        fields: Fields { token_types: &[], ..BERT_FIELDS },
        tensors: Names {
            token_type: None,
            relative_bias: Some("encoder.relative_attention_bias"),
            query: "encoder.layer.{i}.attention.attn.q",
            key: "encoder.layer.{i}.attention.attn.k",
            value: "encoder.layer.{i}.attention.attn.v",
            attention_output: "encoder.layer.{i}.attention.attn.o",
            attention_norm: "encoder.layer.{i}.attention.LayerNorm",
            ..BERT_NAMES
        },
        heads: ROBERTA_HEADS,
        positions: Positions::AfterOne,
        default_layer_norm_eps: 1e-12,
    },
];

impl Family {
    /// The row for a `model_type` of `config.json`.
    pub fn of_model_type(model_type: &str) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.model_types.contains(&model_type))
    }

    /// The row for a class of `architectures`, such as `BertForMaskedLM`.
    pub fn of_architecture(architecture: &str) -> Option<&'static Self> {
        let class = architecture.split("For").next().unwrap_or_default().trim_end_matches("Model");
        FAMILIES.iter().find(|family| family.classes.contains(&class))
    }

    /// Every `model_type` that can be run, for messages.
    pub(super) fn known() -> String {
        let names: Vec<_> = FAMILIES.iter().flat_map(|family| family.model_types).copied().collect();
        names.join(", ")
    }
}
