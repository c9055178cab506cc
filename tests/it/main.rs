//! Integration tests.

mod agent_openai;
mod cli;
mod config;
mod support;
