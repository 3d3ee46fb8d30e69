//! What lies behind the encoder: which tasks a checkpoint was trained for, its labels, and the weights of its heads.

use std::path::Path;

use serde_json::Value;

use super::config::{Activation, EncoderConfig};
use super::family::{Dense, Family};
use super::json::{Object, shown};
use super::sentence::Pooling;
use super::tensors::{Tensor, Tensors};
use super::weights::{Finder, Linear, Norm};
use crate::{Error, Result};

/// What `config.json` says about heads.
#[derive(Debug, Clone)]
pub struct HeadConfig {
    /// The class that the checkpoint was saved from, such as `BertForTokenClassification`.
    pub architecture: Option<String>,
    /// What each logit of a classifier stands for; empty where the file does not say.
    pub labels: Vec<String>,
    /// How logits become scores, where the file says so.
    pub score: Option<Score>,
    /// The state that stands for a text, in families whose configuration says.
    pub summary: Pooling,
    /// After the matrix over that state.
    pub summary_activation: Option<Activation>,
    /// Whether the last matrix of a masked-word head is the table of word embeddings.
    pub tied: bool,
}

/// How the logits of a text become scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Score {
    /// exp(logit), divided by the sum over all labels: just one label is right.
    Softmax,
    /// 1 / (1 + exp(-logit)): each label is right or not.
    Sigmoid,
    /// The logit itself, as for regression.
    Raw,
}

impl HeadConfig {
    pub(super) fn read(config: &Object, family: &Family) -> Result<Self> {
        let (mut summary, mut summary_activation) = (Pooling::Cls, None);
        // Others have these fields too, but no use for them.
        if matches!(family.heads.classifier_dense, Dense::Summary) {
            (summary, summary_activation) = (read_summary(config)?, read_summary_activation(config)?);
        }
        let architecture = config.get("architectures").and_then(|classes| classes.get(0)).and_then(Value::as_str);
        Ok(Self {
            architecture: architecture.map(str::to_owned),
            labels: labels(config)?,
            score: score(config)?,
            summary,
            summary_activation,
            tied: config.flag("tie_word_embeddings")?.unwrap_or(true),
        })
    }

    /// The label that says that one text follows from another, by its name, as in transformers.
    pub fn entailment(&self) -> Option<usize> {
        self.labels.iter().position(|label| label.to_lowercase().starts_with("entail"))
    }

    /// The name of a label; one that the file does not name is `LABEL_<index>`, as in transformers.
    pub fn label(&self, index: usize) -> String {
        self.labels.get(index).filter(|label| !label.is_empty()).cloned().unwrap_or_else(|| format!("LABEL_{index}"))
    }
}

fn read_summary(config: &Object) -> Result<Pooling> {
    match config.text("summary_type")? {
        None | Some("first") => Ok(Pooling::Cls),
        Some("last") => Ok(Pooling::LastToken),
        Some("mean") => Ok(Pooling::Mean),
        Some(other) => Err(config.unsupported("summary_type", "first, last or mean", format!("\"{other}\""))),
    }
}

fn read_summary_activation(config: &Object) -> Result<Option<Activation>> {
    let field = "summary_activation";
    let Some(name) = config.text(field)?.filter(|name| !name.is_empty()) else { return Ok(None) };
    let known = Activation::from_name(name);
    known.map(Some).ok_or_else(|| config.unsupported(field, "one of gelu, gelu_new, relu, tanh, or none", format!("\"{name}\"")))
}

/// `id2label`, whose keys are numbers written as texts.
fn labels(config: &Object) -> Result<Vec<String>> {
    /// No classifier has more, and a key of billions must not take their memory.
    const MOST: usize = 1 << 20;
    let Some(value) = config.get("id2label") else { return Ok(Vec::new()) };
    let wrong = |found| config.wrong("id2label", "an object of numbers and labels", found, "correct the file or download it again");
    let mut labels = Vec::new();
    for (id, label) in value.as_object().ok_or_else(|| wrong(shown(value)))? {
        let index = id.parse::<usize>().ok().filter(|&index| index < MOST).ok_or_else(|| wrong(format!("the key \"{id}\"")))?;
        let label = match label {
            Value::String(label) => label.clone(),
            other => shown(other),
        };
        if labels.len() <= index {
            labels.resize(index + 1, String::new());
        }
        labels[index] = label;
    }
    Ok(labels)
}

/// `problem_type`, or the activation that sentence-transformers' cross-encoders keep.
fn score(config: &Object) -> Result<Option<Score>> {
    if let Some(problem) = config.text("problem_type")? {
        return match problem {
            "regression" => Ok(Some(Score::Raw)),
            "single_label_classification" => Ok(Some(Score::Softmax)),
            "multi_label_classification" => Ok(Some(Score::Sigmoid)),
            other => {
                let expected = "regression, single_label_classification or multi_label_classification";
                Err(config.unsupported("problem_type", expected, format!("\"{other}\"")))
            }
        };
    }
    let newer = config.get("sentence_transformers").and_then(|settings| settings.get("activation_fn"));
    score_of(config, "sbert_ce_default_activation_function", newer)
}

/// The score that an activation of torch stands for: `value`, or else the text of `field`.
pub(super) fn score_of(config: &Object, field: &str, value: Option<&Value>) -> Result<Option<Score>> {
    match value.or_else(|| config.get(field)).and_then(Value::as_str).map(|name| name.rsplit('.').next().unwrap_or(name)) {
        None => Ok(None),
        Some("Identity") => Ok(Some(Score::Raw)),
        Some("Sigmoid") => Ok(Some(Score::Sigmoid)),
        Some("Softmax") => Ok(Some(Score::Softmax)),
        Some(other) => Err(config.unsupported(field, "Identity, Sigmoid or Softmax", format!("\"{other}\""))),
    }
}

/// A classifier of texts.
#[derive(Debug)]
pub struct ClassifierWeights<'a> {
    /// The state that stands for the text.
    pub summary: Pooling,
    /// `[hidden, hidden]` over that state.
    pub dense: Option<(Linear<'a>, Activation)>,
    /// `[labels, hidden]`
    pub output: Linear<'a>,
    /// After the last matrix.
    pub activation: Option<Activation>,
}

/// A head that gives each word of the vocabulary a logit.
#[derive(Debug)]
pub struct MaskedWeights<'a> {
    /// `[embedding, hidden]`, activation and layer norm.
    pub transform: Option<(Linear<'a>, Activation, Norm<'a>)>,
    /// `[vocabulary, embedding]`; `None` where it is the table of word embeddings.
    pub decoder: Option<Tensor<'a>>,
    /// `[vocabulary]`
    pub bias: Tensor<'a>,
}

/// Finds the heads of a checkpoint.
pub(super) struct Resolver<'a, 'c> {
    pub tensors: &'a Tensors,
    pub config: &'c EncoderConfig,
    pub heads: &'c HeadConfig,
    pub prefix: &'c str,
    /// For messages.
    pub folder: &'c Path,
}

impl<'a> Resolver<'a, '_> {
    /// The subcommands that this checkpoint can do.
    pub fn tasks(&self) -> Vec<&'static str> {
        let tasks = [
            ("embed", true),
            ("features", true),
            ("classify", self.has_classifier()),
            ("rerank", self.has_classifier() && self.labels(self.config.family.heads.classifier) == Some(1)),
            ("zero-shot", self.has_classifier() && self.heads.entailment().is_some()),
            ("tag", self.has_token_classifier()),
            ("answer", self.has_span()),
            ("fill-mask", self.has_masked()),
        ];
        tasks.into_iter().filter_map(|(task, can)| can.then_some(task)).collect()
    }

    pub fn missing(&self, what: &str) -> Error {
        Error::unsupported(self.folder, format!("this folder has no {what}; it can do: {}", self.tasks().join(", ")))
    }

    /// Names of heads stand without the encoder's prefix.
    fn find(&self) -> Finder<'a, 'static> {
        Finder { tensors: self.tensors, prefix: "" }
    }

    fn saved_for(&self, task: &str) -> bool {
        self.heads.architecture.as_ref().is_some_and(|class| class.ends_with(task))
    }

    fn labels(&self, name: &str) -> Option<usize> {
        self.tensors.shape(&format!("{name}.weight"))?.first().copied()
    }

    fn pooler(&self) -> Option<&'static str> {
        let encoder = Finder { tensors: self.tensors, prefix: self.prefix };
        self.config.family.tensors.pooler.filter(|name| encoder.contains(&format!("{name}.weight")))
    }

    fn has_classifier(&self) -> bool {
        let heads = &self.config.family.heads;
        let has = |name: &str| self.find().contains(&format!("{name}.weight"));
        // Some families call the classifiers of texts and of tokens the same.
        has(heads.classifier)
            && !self.saved_for("ForTokenClassification")
            && match heads.classifier_dense {
                Dense::Summary => true,
                Dense::Pooler => self.pooler().is_some(),
                Dense::Named(name, _) => has(name),
            }
    }

    fn has_token_classifier(&self) -> bool {
        let name = self.config.family.heads.token_classifier;
        self.find().contains(&format!("{name}.weight")) && (self.saved_for("ForTokenClassification") || !self.has_classifier())
    }

    fn has_span(&self) -> bool {
        self.find().contains(&format!("{}.weight", self.config.family.heads.span))
    }

    fn has_masked(&self) -> bool {
        let masked = &self.config.family.heads.masked;
        let known = masked.transform.is_none_or(|(dense, _, _)| self.find().contains(&format!("{dense}.weight")));
        known && masked.bias.iter().any(|bias| self.find().contains(bias))
    }

    fn linear(&self, name: &str, rows: &'static str) -> Result<Linear<'a>> {
        let labels = self.labels(name).unwrap_or(0);
        if labels == 0 {
            return Err(Error::tensor(
                self.tensors.path(),
                format!("{name}.weight"),
                "has no rows, expected one a label: download the file again",
            ));
        }
        self.find().linear(name, (rows, labels), (self.config.family.fields.hidden[0], self.config.hidden))
    }

    pub fn classifier(&self) -> Result<ClassifierWeights<'a>> {
        if !self.has_classifier() {
            return Err(self.missing("classifier"));
        }
        let names = &self.config.family.heads;
        let hidden = (self.config.family.fields.hidden[0], self.config.hidden);
        let (mut summary, mut activation) = (Pooling::Cls, None);
        let dense = match names.classifier_dense {
            Dense::Summary => {
                (summary, activation) = (self.heads.summary, self.heads.summary_activation);
                None
            }
            Dense::Pooler => {
                let encoder = Finder { tensors: self.tensors, prefix: self.prefix };
                self.pooler().map(|name| Ok((encoder.linear(name, hidden, hidden)?, Activation::Tanh))).transpose()?
            }
            Dense::Named(name, activation) => Some((self.find().linear(name, hidden, hidden)?, activation)),
        };
        let output = self.linear(names.classifier, "num_labels")?;
        self.check_labels(&output)?;
        Ok(ClassifierWeights { summary, dense, output, activation })
    }

    pub fn token_classifier(&self) -> Result<Linear<'a>> {
        if !self.has_token_classifier() {
            return Err(self.missing("token classifier"));
        }
        let output = self.linear(self.config.family.heads.token_classifier, "num_labels")?;
        self.check_labels(&output)?;
        Ok(output)
    }

    /// Labels that do not belong to these weights would name each answer wrongly.
    fn check_labels(&self, output: &Linear) -> Result<()> {
        let (named, rows) = (self.heads.labels.len(), output.weight.rows());
        if named != 0 && named != rows {
            let problem = format!(
                "has {rows} rows, expected one for each of the {named} labels in config.json's `id2label`: the files belong to different models"
            );
            return Err(Error::tensor(output.weight.file, output.weight.name, problem));
        }
        Ok(())
    }

    pub fn span(&self) -> Result<Linear<'a>> {
        if !self.has_span() {
            return Err(self.missing("head that finds answers"));
        }
        let output = self.linear(self.config.family.heads.span, "start, end")?;
        if output.weight.rows() != 2 {
            let problem = format!("has {} rows, expected 2 for start and end: use another model", output.weight.rows());
            return Err(Error::tensor(output.weight.file, output.weight.name, problem));
        }
        Ok(output)
    }

    pub fn masked(&self) -> Result<MaskedWeights<'a>> {
        let (names, fields, config) = (&self.config.family.heads.masked, &self.config.family.fields, self.config);
        if !self.has_masked() {
            return Err(self.missing("head that fills masks"));
        }
        let hidden = (fields.hidden[0], config.hidden);
        let embedding = (fields.embedding.first().copied().unwrap_or(fields.hidden[0]), config.embedding);
        let vocabulary = (fields.vocabulary[0], config.vocabulary);
        let transform = match names.transform {
            None => None,
            Some((dense, activation, norm)) => {
                let activation = activation.unwrap_or(config.activation);
                Some((self.find().linear(dense, embedding, hidden)?, activation, self.find().norm(norm, embedding)?))
            }
        };
        let decoder = format!("{}.weight", names.decoder);
        let untied = !self.heads.tied && self.find().contains(&decoder);
        let decoder = untied.then(|| self.find().tensor(&decoder, &[vocabulary, embedding])).transpose()?;
        // A matrix of its own uses a bias of its own; one that is the table of words shares the other bias, too.
        let own_bias = format!("{}.bias", names.decoder);
        let own_bias = decoder.is_some().then_some(own_bias.as_str());
        let bias = own_bias.iter().chain(names.bias).find(|bias| self.find().contains(bias)).unwrap_or(&names.bias[0]);
        Ok(MaskedWeights { transform, decoder, bias: self.find().tensor(bias, &[vocabulary])? })
    }

    /// The encoder's pooler, with tanh.
    pub fn encoder_pooler(&self) -> Result<Linear<'a>> {
        let hidden = (self.config.family.fields.hidden[0], self.config.hidden);
        let encoder = Finder { tensors: self.tensors, prefix: self.prefix };
        let name = self.pooler().ok_or_else(|| self.missing("pooler"))?;
        encoder.linear(name, hidden, hidden)
    }
}
