//! Integration tests.

mod agent_openai;
mod support;
