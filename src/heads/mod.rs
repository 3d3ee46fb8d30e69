//! What turns hidden states into answers: each head adds its steps behind the encoder's and says what they leave on the GPU.

pub mod hidden_states;
pub mod pooling;
