//! What turns hidden states into answers: each head adds its steps behind the encoder's and says what they leave on the GPU.

pub mod classification;
pub mod hidden_states;
pub mod masked;
pub mod pooling;
pub mod sentence;
