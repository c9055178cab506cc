//! Integration tests.

mod agent_echo;
mod agent_openai;
mod cli;
mod config;
mod support;
