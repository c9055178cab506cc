//! The command line: which command runs, and what its end means to a shell.
//!
//! It knows how to start the server and how to be a small client of one, and nothing of what a server does. Its
//! invariant: exit code 0 for a clean end, 2 for options and usage, 1 for everything else, with one line on stderr.

mod client;
mod commands;
mod follow;
mod health;
mod send;
mod tail;
mod token;
mod usage;

use std::{fmt, process::ExitCode};

/// Runs the command that this process was called with.
pub fn main() -> ExitCode {
    match commands::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(end) => {
            if !end.text.is_empty() {
                eprintln!("error: {}", end.text);
            }
            ExitCode::from(end.code)
        }
    }
}

/// An end that is not clean.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// Options or usage that cannot be.
    fn usage(text: impl fmt::Display) -> Self {
        Self { code: 2, text: text.to_string() }
    }

    /// Something that went wrong.
    fn other(text: impl fmt::Display) -> Self {
        Self { code: 1, text: text.to_string() }
    }

    /// Something that went wrong, with each cause behind it.
    fn caused(error: impl Into<anyhow::Error>) -> Self {
        Self::other(format_args!("{:#}", error.into()))
    }
}
