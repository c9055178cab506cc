//! What tests are made with.

pub mod upstream;
