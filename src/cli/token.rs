//! `rejoin token`: a token to try a server with.
//!
//! It knows what was typed; what makes a token is in `auth`. Its invariant: a server with the same options takes what
//! is printed.

use std::{io::Write, time::Duration};

use clap::ArgMatches;
use serde_json::value::RawValue;

use super::Failure;
use crate::{
    auth::{NewToken, mint},
    config::{Auth, Config},
};

/// Rights of a token where nobody says which: everything.
pub(super) const EVERYTHING: &str = r#"{"*":"admin"}"#;

/// Prints a token that is signed with the secret of these options.
pub(super) fn run(config: &Config, own: &ArgMatches) -> Result<(), Failure> {
    let Auth::Jwt(options) = &config.auth else {
        return Err(Failure::usage("auth is none, which asks for no token: set auth to jwt, and jwt-secret"));
    };
    let text = |name: &str| own.get_one::<String>(name).map(String::as_str);
    let topics: &RawValue = serde_json::from_str(text("topics").unwrap_or(EVERYTHING)).map_err(|_| {
        Failure::usage(r#"--topics is no JSON: give an object such as {"session:*":"write","sessions":"read"}"#)
    })?;
    let ttl = humantime::parse_duration(text("ttl").unwrap_or("1h"));
    let ttl = ttl.map_err(|_| Failure::usage("--ttl: give a number with its unit, such as 15m, 1h or 30days"))?;
    let sub = text("sub").unwrap_or("dev");
    let new = NewToken { sub, name: text("name"), topics, ttl: ttl.max(Duration::from_secs(1)) };
    let token = mint(&new, options).map_err(Failure::usage)?;
    writeln!(std::io::stdout(), "{token}").map_err(Failure::caused)
}
