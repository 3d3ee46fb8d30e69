//! Model families as rows of data: what a checkpoint of each calls its configuration fields and tensors, and how it counts positions.
//!
//! A further family is a further row. What no row can express is refused by name rather than approximated.

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
    /// Names of the tensors.
    pub tensors: Names,
    /// The first token has position `pad_token_id + 1` instead of 0: that many rows of the position table are never used.
    pub positions_after_padding: bool,
    /// `pad_token_id` where `config.json` has none.
    pub default_padding: usize,
    /// `layer_norm_eps` where `config.json` has none.
    pub default_layer_norm_eps: f64,
}

/// What `config.json` calls the sizes of an encoder.
#[derive(Debug)]
pub struct Fields {
    pub layers: &'static str,
    pub hidden: &'static str,
    pub heads: &'static str,
    pub intermediate: &'static str,
    pub vocabulary: &'static str,
    pub position_rows: &'static str,
    pub token_types: &'static str,
    pub activation: &'static str,
    pub layer_norm_eps: &'static str,
}

/// What the weights call the parts of an encoder, without prefix and without `.weight` or `.bias`; `{i}` is the layer.
#[derive(Debug)]
pub struct Names {
    pub word: &'static str,
    pub position: &'static str,
    pub token_type: Option<&'static str>,
    pub embedding_norm: &'static str,
    pub query: &'static str,
    pub key: &'static str,
    pub value: &'static str,
    pub attention_output: &'static str,
    pub attention_norm: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub output_norm: &'static str,
    pub pooler: Option<&'static str>,
}

const BERT_FIELDS: Fields = Fields {
    layers: "num_hidden_layers",
    hidden: "hidden_size",
    heads: "num_attention_heads",
    intermediate: "intermediate_size",
    vocabulary: "vocab_size",
    position_rows: "max_position_embeddings",
    token_types: "type_vocab_size",
    activation: "hidden_act",
    layer_norm_eps: "layer_norm_eps",
};

const BERT_NAMES: Names = Names {
    word: "embeddings.word_embeddings",
    position: "embeddings.position_embeddings",
    token_type: Some("embeddings.token_type_embeddings"),
    embedding_norm: "embeddings.LayerNorm",
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

/// Every family, one row each.
pub static FAMILIES: [Family; 2] = [
    Family {
        name: "BERT",
        model_types: &["bert"],
        classes: &["Bert"],
        prefixes: &["", "bert."],
        fields: BERT_FIELDS,
        tensors: BERT_NAMES,
        positions_after_padding: false,
        default_padding: 0,
        default_layer_norm_eps: 1e-12,
    },
    Family {
        name: "RoBERTa",
        model_types: &["roberta", "xlm-roberta", "camembert"],
        classes: &["Roberta", "XLMRoberta", "Camembert"],
        prefixes: &["", "roberta."],
        fields: BERT_FIELDS,
        tensors: BERT_NAMES,
        positions_after_padding: true,
        default_padding: 1,
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
