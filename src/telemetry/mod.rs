//! Logs: on stderr, as text or as JSON lines, filtered. And traces, which `trace` has more about.
//!
//! It knows nothing of who logs. Its invariants: stdout stays free for the line that says where the server listens, and
//! at no level is there a line with a token, a password or what somebody said.

pub mod trace;

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What may be wrong with the logs' options.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter cannot be read.
    #[error("{filter:?} is no log filter: use {FILTER_RULE}")]
    Filter {
        /// The filter that was given.
        filter: String,
    },
    /// Logs have been set up in this process before.
    #[error("the logs are set up already: call this once, before anything else does")]
    Twice,
}

/// What a filter looks like, as error texts say it.
pub const FILTER_RULE: &str =
    "off, error, warn, info, debug or trace, alone or with targets as in info,rejoin::session=debug";

/// Whether `filter` can be read.
///
/// # Errors
/// [`Error::Filter`].
pub fn check_filter(filter: &str) -> Result<(), Error> {
    parse(filter).map(drop)
}

/// Sends this process's logs to stderr from here on.
///
/// # Errors
/// [`Error::Filter`]; [`Error::Twice`] if the process has set up its logs already.
pub fn init(filter: &str, format: Format) -> Result<(), Error> {
    let registry = tracing_subscriber::registry().with(parse(filter)?).with(filter_fn(keeps_secrets));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let done = match format {
        Format::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    done.map_err(|_| Error::Twice)
}

/// Libraries that at their more talkative levels write out what passes through them: what people say, and passwords.
const TELLTALES: [&str; 3] = ["async_nats", "tokio_tungstenite", "tungstenite"];

/// Whether what comes from there may be logged, whatever the filter says.
fn keeps_secrets(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO || !TELLTALES.contains(&library)
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    let error = || Error::Filter { filter: filter.to_owned() };
    // The filter's own parser takes a lone word for a target, so that a level that does not exist would pass.
    let is_known = |directive: &str| {
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        let (target, level) = directive.rsplit_once('=').unwrap_or(("any", directive));
        let plain = !directive.contains(['[', '{']);
        !plain || (!target.is_empty() && levels.contains(&level.to_ascii_lowercase().as_str()))
    };
    let directives: Vec<_> = filter.split(',').map(str::trim).collect();
    if !directives.iter().copied().all(is_known) {
        return Err(error());
    }
    EnvFilter::builder().parse(directives.join(",")).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_targets_are_read_and_anything_else_is_refused() {
        for good in
            ["info", "WARN", "off", "info,rejoin::session=debug", "rejoin=trace, hyper=off", "[turn{id=1}]=debug"]
        {
            check_filter(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in ["", "verbose", "rejoin=loud", "info,,debug", "=info", "info,rejoin"] {
            assert!(check_filter(bad).is_err(), "{bad:?}");
        }
        let text = check_filter("verbose").unwrap_err().to_string();
        assert!(text.starts_with("\"verbose\" is no log filter: use off, error,"), "{text}");
    }
}
