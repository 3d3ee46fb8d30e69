//! What callers load a model folder as: one file for each task, all over [`crate::model::Model`] and a head.

pub mod answerer;
pub mod classifier;
pub mod embedder;
pub mod features;
pub mod fill_mask;
pub mod reranker;
pub mod tagger;
pub mod zero_shot;
