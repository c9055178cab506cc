//! The table of options: names, defaults, and what each accepts, in one place.
//!
//! Flags, environment variables and keys of the file are all made from it, so none of them can have an option that
//! another lacks. It knows no value: reading and checking is next door.

use clap::{Arg, ArgMatches, builder::NonEmptyStringValueParser};

/// One option, under all its names.
#[derive(Debug, Clone, Copy)]
pub struct Opt {
    /// Its name: `--NAME`, `REJOIN_<NAME>` in capitals with `_`, and the key in the file.
    pub name: &'static str,
    /// What it is if nobody says. None: it may be absent, or its default depends on the machine.
    pub default: Option<&'static str>,
    /// A word for its value in the help; empty for a switch.
    pub value: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Another environment variable that is read where `REJOIN_<NAME>` is not set.
    pub also: Option<&'static str>,
    /// Whether its value is shown to nobody.
    pub secret: bool,
}

const fn opt(name: &'static str, default: &'static str, value: &'static str, help: &'static str) -> Opt {
    Opt { name, default: Some(default), value, help, also: None, secret: false }
}

const fn optional(name: &'static str, value: &'static str, help: &'static str) -> Opt {
    Opt { name, default: None, value, help, also: None, secret: false }
}

/// Every option, in the order in which they are shown.
pub const OPTIONS: &[Opt] = &[
    opt("listen", "127.0.0.1:4000", "ADDRESS", "Address to listen on; port 0 picks a free one"),
    Opt {
        also: Some("DATABASE_URL"),
        ..opt("database-url", "sqlite:rejoin.db", "URL", "Where sessions are stored: sqlite:PATH or postgres://…")
    },
    opt("no-migrate", "false", "", "Refuse to start on a database that needs a migration"),
    opt("database-pool", "8", "COUNT", "Connections to the database"),
    optional(
        "bus",
        "BUS",
        "How nodes tell each other of events: local, postgres or nats://HOST:PORT [default: local on SQLite, postgres \
         on Postgres]",
    ),
    optional("bus-url", "URL", "Direct connection for bus postgres where database-url leads to a pooler"),
    optional("node-name", "NAME", "This node's label [default: the host name]"),
    opt("exclusive-node-name", "false", "", "Promise that no two nodes use this node's name at once"),
    opt("lease-ttl", "6s", "DURATION", "How long a node that stands still keeps its turns"),
    opt("lease-renew", "1s", "DURATION", "How often a node renews its lease"),
    opt("drain-timeout", "20s", "DURATION", "Time for running turns when the server is asked to end"),
    opt("idle-timeout", "60s", "DURATION", "Silence from a client until its socket is closed"),
    opt("agent", "echo", "NAME", "Who answers: echo, openai, http, or an agent of the file"),
    opt("echo-delay", "30ms", "DURATION", "Pause before each word of the echo agent"),
    optional("openai-base-url", "URL", "Address of a chat-completions API, up to and with /v1"),
    optional("openai-model", "NAME", "Model to ask for"),
    Opt {
        also: Some("OPENAI_API_KEY"),
        secret: true,
        ..optional("openai-api-key", "KEY", "Key for the chat-completions API")
    },
    optional("http-agent-url", "URL", "Your own backend, which is asked for answers"),
    Opt { secret: true, ..optional("http-agent-secret", "SECRET", "Signs what your own backend is sent") },
    opt("agent-idle-timeout", "60s", "DURATION", "Silence of an agent until its turn fails"),
    opt("turn-timeout", "10m", "DURATION", "Length of a turn until it fails"),
    opt("max-message-bytes", "1MiB", "BYTES", "Length of an answer until its turn fails"),
    opt("delta-window", "40ms", "DURATION", "How long deltas of a turn are gathered into one event; 0 for each alone"),
    opt("max-queue", "100", "COUNT", "Queued turns of one session"),
    opt("auth", "none", "KIND", "How clients prove who they are: none or jwt"),
    Opt { secret: true, ..optional("jwt-secret", "SECRET", "Secret of tokens that are signed with HS256") },
    optional("jwks-url", "URL", "Where the keys of tokens are published that are signed with RS, PS, ES or EdDSA"),
    optional("jwks-file", "FILE", "The same as a file"),
    optional("jwt-issuer", "TEXT", "The iss that every token has to have"),
    optional("jwt-audience", "TEXT", "What the aud of every token has to name"),
    opt("insecure", "false", "", "Allow auth none on an address that others can reach"),
    optional(
        "allowed-origins",
        "LIST",
        "Origins that browsers may come from: hosts, *.HOST, or * [default: same host]",
    ),
    opt("max-frame-bytes", "256KiB", "BYTES", "Length of a frame from a client"),
    opt("max-topics", "100", "COUNT", "Topics that one connection may join"),
    opt("max-queue-bytes", "1MiB", "BYTES", "What may wait for one slow reader"),
    opt("rate-limit", "100", "COUNT", "Requests of one connection in a second; 0 for no limit"),
    opt("join-limit", "20", "COUNT", "Joins among them; 0 for no limit"),
    optional("max-connections", "COUNT", "Clients that are connected at once [default: no limit]"),
    opt("max-handshakes", "1000", "COUNT", "Connections of one address that have not asked for anything yet"),
    opt("log-level", "info", "FILTER", "What is logged: a level, or a list of TARGET=LEVEL"),
    opt("log-format", "text", "FORMAT", "How it is logged: text or json"),
];

/// Environment variables that begin with `REJOIN_` and belong to commands instead of the table.
pub(super) const OTHER_VARIABLES: &[&str] =
    &["REJOIN_CONFIG", "REJOIN_URL", "REJOIN_USER", "REJOIN_NAME", "REJOIN_TOKEN"];

impl Opt {
    /// The option of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        OPTIONS.iter().find(|option| option.name == name)
    }

    /// The name of its environment variable.
    pub fn variable(&self) -> String {
        format!("REJOIN_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    fn arg(&self) -> Arg {
        let help = match self.default {
            Some(default) if !self.value.is_empty() => format!("{} [default: {default}]", self.help),
            _ => self.help.to_owned(),
        };
        let arg = Arg::new(self.name).long(self.name).help(help).value_parser(NonEmptyStringValueParser::new());
        let arg = arg.allow_negative_numbers(true);
        if self.value.is_empty() {
            arg.value_name("BOOL").num_args(0..=1).require_equals(true).default_missing_value("true")
        } else {
            arg.value_name(self.value)
        }
    }
}

/// A flag for each option, and `--config`.
pub fn args() -> Vec<Arg> {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("File to read options from [default: rejoin.toml, if there is one]")
        .value_parser(NonEmptyStringValueParser::new());
    std::iter::once(file).chain(OPTIONS.iter().map(Opt::arg)).collect()
}

/// Options as the command line gave them.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    given: Vec<(&'static str, String)>,
    file: Option<String>,
}

impl Flags {
    /// Takes what `matches` of a command with [`args`] hold. Called again for a subcommand, whose flags then count.
    pub fn take(&mut self, matches: &ArgMatches) {
        let text = |name| matches.try_get_one::<String>(name).ok().flatten().cloned();
        if let Some(file) = text("config") {
            self.file = Some(file);
        }
        for option in OPTIONS {
            if let Some(value) = text(option.name) {
                self.given.retain(|(name, _)| *name != option.name);
                self.given.push((option.name, value));
            }
        }
    }

    /// The value of the flag of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The file that the command line names.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &[&str]) -> Flags {
        let command = clap::Command::new("rejoin").args(args());
        let mut flags = Flags::default();
        flags.take(&command.try_get_matches_from(std::iter::once(&"rejoin").chain(line)).unwrap());
        flags
    }

    #[test]
    fn every_option_is_a_flag_and_a_switch_needs_no_value() {
        let given = flags(&["--listen", "[::]:1", "--insecure", "--no-migrate=false", "--config", "x.toml"]);
        assert_eq!(given.get("listen"), Some("[::]:1"));
        assert_eq!(given.get("insecure"), Some("true"));
        assert_eq!(given.get("no-migrate"), Some("false"));
        assert_eq!(given.get("bus"), None);
        assert_eq!(given.file(), Some("x.toml"));
    }

    #[test]
    fn names_are_unique_and_made_of_words() {
        for (at, option) in OPTIONS.iter().enumerate() {
            assert!(option.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", option.name);
            assert!(OPTIONS[at + 1..].iter().all(|other| other.name != option.name), "{}", option.name);
        }
        assert_eq!(Opt::named("max-queue-bytes").unwrap().variable(), "REJOIN_MAX_QUEUE_BYTES");
    }
}
