//! What can be typed: commands, their arguments, and errors about them in one line.

use clap::{
    Arg, ArgAction, ArgMatches, Command,
    builder::NonEmptyStringValueParser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::Failure;
use crate::config;

/// The whole command line.
fn command() -> Command {
    Command::new("rejoin")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A Phoenix-style channel server for collaborative AI sessions; without a command it serves")
        .after_help(
            "Each option can also be a variable REJOIN_<NAME>, or a key in rejoin.toml. Durations: 300ms, 6s, 5m.",
        )
        .args(config::args())
        .subcommand(Command::new("serve").about("Run the server").args(config::args()))
        .subcommand(
            Command::new("migrate").about("Bring the database up to date and end").args(config::args()).arg(
                Arg::new("new-history")
                    .long("new-history")
                    .action(ArgAction::SetTrue)
                    .help("Tell clients that what they hold may be gone; after restoring a backup"),
            ),
        )
        .subcommand(
            Command::new("check-config").about("Show every option and where it comes from").args(config::args()),
        )
        .subcommand(
            Command::new("token")
                .about("Make a token to try a server with, signed with its jwt-secret")
                .args(config::args())
                .args(token_args()),
        )
        .subcommand(
            Command::new("health")
                .about("Say whether a running server is ready; exit code 0 if it is")
                .args(config::args())
                .arg(url()),
        )
        .subcommand(
            Command::new("send")
                .about("Send a message to a session of a running server and print the answer as it comes")
                .arg(text("session", "The session's id"))
                .arg(text("text", "The message"))
                .args(client_args()),
        )
        .subcommand(
            Command::new("tail")
                .about("Print what a topic of a running server pushes, one JSON line each")
                .arg(text("topic", "The topic, such as session:ID, room:NAME or sessions"))
                .args(client_args()),
        )
}

fn text(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).required(true).help(help).value_parser(NonEmptyStringValueParser::new())
}

fn option(name: &'static str, variable: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).env(variable).hide_env_values(true).value_name(value).help(help)
}

fn url() -> Arg {
    option("url", "REJOIN_URL", "URL", "Where the server is [default: this machine, at the port of listen]")
}

fn token_args() -> [Arg; 4] {
    let arg = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).value_parser(NonEmptyStringValueParser::new())
    };
    [
        arg("sub", "ID", "The user's id [default: dev]"),
        arg("name", "NAME", "The name to show [default: the id]"),
        arg("topics", "JSON", "What may be done where [default: {\"*\":\"admin\"}]"),
        arg("ttl", "DURATION", "How long it counts [default: 1h]"),
    ]
}

fn client_args() -> [Arg; 4] {
    [
        url(),
        option("user", "REJOIN_USER", "ID", "The user id to come as"),
        option("name", "REJOIN_NAME", "NAME", "The name to show"),
        option("token", "REJOIN_TOKEN", "TOKEN", "The token that proves who you are"),
    ]
}

/// What was typed; none if it asked for help or the version, which has been printed then.
pub(super) fn parse(line: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Option<ArgMatches>, Failure> {
    match command().try_get_matches_from(line) {
        Ok(matches) => Ok(Some(matches)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            error.print().map_err(Failure::caused)?;
            Ok(None)
        }
        Err(error) => Err(Failure::usage(one_line(&error))),
    }
}

/// An error of the parser as one line: its first, and what it suggests.
fn one_line(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let mut lines = rendered.lines().map(str::trim);
    let first = lines.next().unwrap_or_default().trim_start_matches("error: ");
    let mut text = first.to_owned();
    if first.ends_with(':') {
        // What is missing stands on lines of its own.
        let missing: Vec<_> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        text = format!("{first} {}", missing.join(" "));
    }
    for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand] {
        match error.get(kind) {
            Some(ContextValue::String(other)) => text.push_str(&format!("; did you mean {other}?")),
            Some(ContextValue::Strings(others)) => text.push_str(&format!("; did you mean {}?", others.join(" or "))),
            _ => {}
        }
    }
    format!("{text}; rejoin --help lists what there is")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &[&str]) -> Failure {
        parse(std::iter::once(&"rejoin").chain(line).map(Into::into)).unwrap_err()
    }

    #[test]
    fn what_cannot_be_is_one_line_that_names_it() {
        for (line, expected) in [
            (&["--lissen", "x"][..], "unexpected argument '--lissen' found; did you mean --listen?"),
            (&["serve", "--port=1"], "unexpected argument '--port' found"),
            (&["--listen"], "a value is required for '--listen <ADDRESS>' but none was supplied"),
            (&["sent"], "unrecognized subcommand 'sent'; did you mean "),
            (&["send", "s"], "the following required arguments were not provided: <text>"),
            (&["--bus=local", "--bus=local"], "the argument '--bus <BUS>' cannot be used multiple times"),
        ] {
            let failure = refusal(line);
            assert_eq!(failure.code, 2);
            assert!(failure.text.starts_with(expected), "{}", failure.text);
            assert_eq!(failure.text.lines().count(), 1, "{}", failure.text);
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }
}
