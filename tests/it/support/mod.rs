//! What tests are made with.

pub(crate) mod upstream;
