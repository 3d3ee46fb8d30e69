//! Transformer encoders (MiniLM, BERT, RoBERTa, XLM-R, XLM, DistilBERT, ELECTRA, MPNet) and their heads as WGSL compute shaders on any GPU
//! that [wgpu] reaches: Vulkan, Metal, DX12, GL.
//!
//! ```text
//! text ──tokenizer──> ids ──Batch::pack──> packed tokens ──Plan──> one submit on the GPU ──read──> rows ──decode──> answers
//! ```
//!
//! Weights are uploaded once, at load. A request uploads ids, positions, offsets and one small uniform for each batch, runs one compute pass,
//! and reads back only the rows that were asked for: embeddings, logits, or the likeliest words. Nothing is padded: no kernel ever sees a pad token, and a text gives the same bits
//! alone as in any batch.
//!
//! ```no_run
//! let embedder = minilm::Embedder::from_dir("all-MiniLM-L6-v2")?;
//! let embeddings = embedder.embed(["A cat sits on the mat.", "Eine Katze sitzt auf der Matte."])?;
//! let rows: Vec<&[f32]> = embeddings.rows().collect();
//! println!("{:.3}", minilm::cosine(rows[0], rows[1]));
//! # Ok::<(), minilm::Error>(())
//! ```
//!
//! | to | use |
//! |---|---|
//! | embed sentences | [`Embedder`] |
//! | get hidden states of any layer, and the pooler's output | [`FeatureExtractor`] |
//! | classify texts and pairs of texts | [`Classifier`] |
//! | sort passages by how well they answer a query | [`Reranker`] |
//! | classify by labels of your own | [`ZeroShot`] |
//! | find names, places and other entities | [`Tagger`] |
//! | answer questions by pieces of a text | [`Answerer`] |
//! | find the likeliest words for a gap | [`FillMask`] |
//! | keep embeddings in eight bits a number, or one | [`quantize_embeddings`] |
//! | choose the adapter, share a device | [`Gpu`], [`GpuOptions`] |
//! | look into a model folder, without a GPU | [`checkpoint`] |
//! | run one kernel, or hold it to its definition | [`kernels`], [`gpu`], [`mod@reference`] |

// One function asks wgpu for an experimental feature, which is `unsafe` to ask for: see `gpu/adapter.rs`.
#![deny(unsafe_code)]

mod assembler;
pub mod batch;
#[cfg(feature = "bench")]
pub mod bench;
mod builder;
pub mod checkpoint;
pub mod decode;
mod default_model;
mod delivery;
pub mod doctor;
mod encoder;
mod error;
pub mod gpu;
#[doc = include_str!("guarantees.md")]
pub mod guarantees {}
mod heads;
pub mod kernels;
mod loader;
mod memory;
mod model;
mod pace;
mod parallel;
mod pool;
pub mod reference;
mod runner;
mod stats;
mod tasks;
mod texts;
pub mod tuning;
mod weights;

pub use batch::Sequence;
pub use builder::{Builder, Options, Task};
pub use checkpoint::{Checkpoint, Encoding, Pooling, Score};
pub use decode::entities::{Aggregation, Entity, EntityOptions};
pub use decode::quantized::{Precision, QuantizedEmbeddings, Ranges, quantize as quantize_embeddings};
pub use decode::spans::{Answer, AnswerOptions, Answers};
pub use default_model::default_model;
pub use error::{Error, Result};
pub use gpu::{AdapterSummary, Gpu, GpuOptions};
pub use kernels::{Arithmetic, WeightFormat};
pub use memory::MemoryPlan;
pub use model::Model;
pub use stats::{Counters, Stats};
pub use tasks::answerer::{Answerer, AnswererSettings};
pub use tasks::classifier::{Classification, Classifier, ClassifierSettings};
pub use tasks::embedder::{Embedder, EmbedderSettings, Embeddings, GpuEmbeddings, cosine};
pub use tasks::features::{FeatureExtractor, FeatureSettings, Features};
pub use tasks::fill_mask::{FillMask, FillMaskSettings, Filled, Mask, Word};
pub use tasks::reranker::{Ranked, Reranker};
pub use tasks::tagger::{Sourced, Tagged, Tagger, TaggerSettings};
pub use tasks::zero_shot::{ZeroShot, ZeroShotLabel, ZeroShotOptions, ZeroShotResult};
pub use texts::{Input, Length};
pub use tuning::Tuning;

pub use wgpu;
