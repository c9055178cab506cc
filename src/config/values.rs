//! From the text of an option to its value.
//!
//! Pure. Each function gives the value, or what it accepts as words that finish the sentence "not accepted: …".

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use reqwest::Url;

use super::Database;
use crate::{
    agent::Secret,
    pubsub::{Nats, Postgres},
    telemetry,
};

/// A value, or what would have been accepted.
pub(super) type Parsed<T> = Result<T, String>;

/// `300ms`, `6s`, `5m`, or a plain `0`.
pub(super) fn duration(text: &str) -> Parsed<Duration> {
    let rule = || "give a number with its unit, such as 300ms, 6s or 5m".to_owned();
    // Nothing at all is the same in every unit.
    if text != "0" && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(rule());
    }
    let duration = humantime::parse_duration(text).map_err(|_| rule())?;
    if duration > Duration::from_secs(30 * 24 * 3600) { Err("give at most 30days".to_owned()) } else { Ok(duration) }
}

/// A duration of at least `least`.
pub(super) fn duration_from(least: Duration) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| match duration(text)? {
        value if value >= least => Ok(value),
        _ => Err(format!("give at least {}", humantime::format_duration(least))),
    }
}

/// A duration of at most `most`.
pub(super) fn duration_to(most: Duration) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| match duration(text)? {
        value if value <= most => Ok(value),
        _ => Err(format!("give at most {}", humantime::format_duration(most))),
    }
}

/// A whole number from `least` to `most`.
pub(super) fn count(least: usize, most: usize) -> impl Fn(&str) -> Parsed<usize> {
    move |text| {
        let value = text.parse::<usize>().ok().filter(|value| (least..=most).contains(value));
        value.ok_or_else(|| format!("give a whole number from {least} to {most}"))
    }
}

/// How often in a second; none for 0, which is no limit.
pub(super) fn rate(text: &str) -> Parsed<Option<NonZeroU32>> {
    let value = text.parse::<u32>().ok().filter(|value| *value <= 1_000_000);
    value.map(NonZeroU32::new).ok_or_else(|| "give a whole number from 1 to 1000000, or 0 for no limit".to_owned())
}

/// Bytes from `least` to `most`: a plain number, or one with `KiB`, `MiB` or `GiB`.
pub(super) fn bytes(least: usize, most: usize) -> impl Fn(&str) -> Parsed<usize> {
    move |text| {
        let units = [("KiB", 1usize << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        let (number, unit) = units
            .into_iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?.trim_end(), unit)))
            .unwrap_or((text, 1));
        let value = number.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
        value.filter(|value| (least..=most).contains(value)).ok_or_else(|| {
            format!("give a number of bytes from {least} to {most}, or one with a unit, such as 256KiB or 1MiB")
        })
    }
}

/// `true` or `false`.
pub(super) fn switch(text: &str) -> Parsed<bool> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("give true or false".to_owned()),
    }
}

/// One of `choices`, by name.
pub(super) fn choice<T: Copy>(choices: &'static [(&'static str, T)]) -> impl Fn(&str) -> Parsed<T> {
    move |text| {
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            format!("give {}", names.join(" or "))
        })
    }
}

/// An IP address with its port; `localhost` is this machine's own.
pub(super) fn address(text: &str) -> Parsed<SocketAddr> {
    let text = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().map_err(|_| "give an IP address and a port, such as 127.0.0.1:4000 or [::1]:4000".to_owned())
}

/// `sqlite:PATH`, or `postgres://…`, which is read whole when it is used.
pub(super) fn database(text: &str) -> Parsed<Database> {
    let rule =
        "give sqlite:PATH, the path of a file, without parameters, or postgres://USER:PASSWORD@HOST:PORT/DATABASE";
    if let Some((scheme, rest)) = text.split_once("://")
        && matches!(scheme, "postgres" | "postgresql")
    {
        let good = !rest.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        return if good { Ok(Database::Postgres(Secret::new(text))) } else { Err(rule.to_owned()) };
    }
    let path = text.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    match path {
        Some(path) if !path.is_empty() && !path.starts_with(":memory:") && !path.contains('?') => {
            Ok(Database::Sqlite(path.into()))
        }
        _ => Err(rule.to_owned()),
    }
}

/// A bus, as it is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BusKind {
    Local,
    Postgres,
    Nats(Secret),
}

/// `local`, `postgres`, or the address of a NATS server.
pub(super) fn bus(text: &str) -> Parsed<BusKind> {
    match text {
        "local" => Ok(BusKind::Local),
        "postgres" => Ok(BusKind::Postgres),
        _ if text.starts_with("nats:") || text.starts_with("tls:") => {
            Nats::new(text).map(|_| BusKind::Nats(Secret::new(text)))
        }
        _ => Err("give local, postgres or nats://host:4222".to_owned()),
    }
}

/// A URL of a Postgres database.
pub(super) fn postgres_url(text: &str) -> Parsed<Secret> {
    let rule = "give a URL such as postgres://user@host/database";
    let is_one = text.starts_with("postgres://") || text.starts_with("postgresql://");
    if is_one && Postgres::new(text).is_ok() { Ok(Secret::new(text)) } else { Err(rule.to_owned()) }
}

/// A label that fits on one line.
pub(super) fn label(text: &str) -> Parsed<String> {
    let fits = (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("give 1 to 128 characters on one line".to_owned()) }
}

/// An agent's name, which is also a presence key and a part of events.
pub(super) fn agent_name(text: &str) -> Parsed<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(good);
    if fits { Ok(text.to_owned()) } else { Err("give 1 to 64 characters of A-Z a-z 0-9 _ . -".to_owned()) }
}

/// A URL that requests can be sent to.
pub(super) fn base_url(text: &str) -> Parsed<String> {
    let good = crate::agent::parse_base_url(text).is_some();
    if good { Ok(text.to_owned()) } else { Err("give a URL such as https://api.example.com/v1".to_owned()) }
}

/// A URL of a backend, to which requests are sent as it is.
pub(super) fn backend_url(text: &str) -> Parsed<String> {
    let good = crate::agent::parse_url(text).is_some();
    if good { Ok(text.to_owned()) } else { Err("give a URL such as https://app.example.com/agent".to_owned()) }
}

/// A secret that both sides know.
pub(super) fn shared_secret(text: &str) -> Parsed<Secret> {
    if text.chars().any(char::is_control) {
        return Err("give the secret alone, on one line".to_owned());
    }
    Ok(Secret::new(text))
}

/// A filter for the logs.
pub(super) fn log_filter(text: &str) -> Parsed<String> {
    telemetry::check_filter(text).map(|()| text.to_owned()).map_err(|_| format!("give {}", telemetry::FILTER_RULE))
}

/// A list of origins, separated by commas; `*` stands alone.
pub(super) fn origins(text: &str) -> Parsed<Vec<String>> {
    let list: Vec<_> = text.split(',').map(|origin| origin.trim().to_ascii_lowercase()).collect();
    let good = list.iter().all(|origin| is_origin(origin) || (origin == "*" && list.len() == 1));
    if good {
        Ok(list)
    } else {
        Err("give hosts or origins separated by commas, such as example.com,*.example.com,https://app.example.com, \
             or * alone for any"
            .to_owned())
    }
}

/// `[SCHEME://]HOST[:PORT]`, the host perhaps with a leading `*.`.
fn is_origin(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let bare = host.strip_prefix("*.").unwrap_or(host);
    let is_name = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let is_v6 = bare.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_v6 = is_v6.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    (is_name || is_v6) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// `text` without the user and password of a URL in it.
pub(super) fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => text.to_owned(),
    }
}

/// The address of a set of keys. It is used as it is: nothing in it stands for a part of a token.
pub(super) fn jwks_url(text: &str) -> Parsed<Url> {
    let rule = || "give one fixed URL such as https://login.example.com/.well-known/jwks.json".to_owned();
    let url = Url::parse(text).map_err(|_| rule())?;
    let good = matches!(url.scheme(), "http" | "https") && url.has_host() && !text.contains(['{', '}']);
    if good { Ok(url) } else { Err(rule()) }
}

/// What a claim has to be.
pub(super) fn claim(text: &str) -> Parsed<String> {
    let fits = (1..=1_024).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("give 1 to 1024 bytes on one line".to_owned()) }
}

/// A key as it can stand in a request's header.
pub(super) fn api_key(text: &str) -> Parsed<Secret> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Secret::new(text));
    }
    Err("give the key alone: letters, digits and signs, no spaces and no line breaks".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, expected) in
            [("300ms", 300), ("6s", 6_000), ("5m", 300_000), ("0ms", 0), ("0", 0), ("1m 30s", 90_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for bad in ["", "5", "00", "s", "-1s", "5 parsecs", "1y"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(duration_from(Duration::from_secs(1))("10ms").unwrap_err(), "give at least 1s");
        assert_eq!(duration_to(Duration::from_secs(1))("2s").unwrap_err(), "give at most 1s");
    }

    #[test]
    fn bytes_are_plain_or_have_a_binary_unit() {
        for (text, expected) in [("4096", 4_096), ("256KiB", 262_144), ("1MiB", 1_048_576), ("1 GiB", 1 << 30)] {
            assert_eq!(bytes(1, 1 << 30)(text), Ok(expected), "{text}");
        }
        for bad in ["", "0", "1KB", "-1", "1.5MiB", "99999999999999999999", "2GiB", "18446744073709551615KiB"] {
            assert!(bytes(1, 1 << 30)(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_of_nothing_is_no_limit() {
        assert_eq!((rate("0"), rate("100")), (Ok(None), Ok(NonZeroU32::new(100))));
        for bad in ["", "-1", "1.5", "1000001", "10/s"] {
            assert!(rate(bad).unwrap_err().starts_with("give a whole number"), "{bad}");
        }
    }

    #[test]
    fn databases_are_sqlite_files_or_postgres() {
        for (text, path) in [
            ("sqlite:rejoin.db", "rejoin.db"),
            ("sqlite:/var/lib/r.db", "/var/lib/r.db"),
            ("sqlite:///var/lib/r.db", "/var/lib/r.db"),
            ("sqlite://r.db", "r.db"),
        ] {
            assert_eq!(database(text), Ok(Database::Sqlite(path.into())), "{text}");
        }
        for text in ["postgres://u:p@h/d", "postgresql://h", "postgres://%2Frun%2Fpg/d?sslmode=require"] {
            assert_eq!(database(text), Ok(Database::Postgres(Secret::new(text))), "{text}");
        }
        for bad in [
            "",
            "rejoin.db",
            "sqlite:",
            "sqlite::memory:",
            "sqlite:r.db?mode=ro",
            "mysql://x",
            "postgres:",
            "postgres://",
            "postgres:x",
            "postgres://h/d x",
        ] {
            assert!(database(bad).unwrap_err().starts_with("give sqlite:PATH"), "{bad}");
        }
    }

    #[test]
    fn buses_are_named_or_are_addresses() {
        assert_eq!((bus("local"), bus("postgres")), (Ok(BusKind::Local), Ok(BusKind::Postgres)));
        for good in ["nats://h:4222", "nats://u:p@h", "tls://h/cluster-2"] {
            assert_eq!(bus(good), Ok(BusKind::Nats(Secret::new(good))));
        }
        for bad in ["", "nats", "redis://h", "nats://", "nats://h/a b", "postgres://h/d"] {
            assert!(bus(bad).unwrap_err().starts_with("give "), "{bad}");
        }
        assert!(postgres_url("postgres://u:p@h:5432/d?sslmode=disable").is_ok());
        for bad in ["", "postgres", "sqlite:x.db", "postgres://h:port/d"] {
            assert!(postgres_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_and_origins_are_checked() {
        assert_eq!(address("localhost:0"), Ok(SocketAddr::from(([127, 0, 0, 1], 0))));
        for bad in ["", "4000", "example.com:80", "127.0.0.1", "127.0.0.1:70000"] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert_eq!(origins("Example.com, *.a.org"), Ok(vec!["example.com".to_owned(), "*.a.org".to_owned()]));
        for good in ["*", "https://app.example.com:8443", "localhost:3000", "http://[::1]:80", "[::1]"] {
            assert!(origins(good).is_ok(), "{good}");
        }
        for bad in ["", "a,,b", "*,a.org", "https://", "a.org/path", "a.*.org", "ftp://a.org", "a:b"] {
            assert!(origins(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_for_tokens_are_at_a_fixed_address() {
        for good in ["https://login.example.com/keys", "http://127.0.0.1:8080/jwks.json?x=1"] {
            assert!(jwks_url(good).is_ok(), "{good}");
        }
        for bad in ["", "login.example.com", "file:///etc/keys", "https://", "https://{{tenant}}.example/keys"] {
            assert!(jwks_url(bad).unwrap_err().starts_with("give one fixed URL"), "{bad}");
        }
        assert!(claim("https://login.example.com/").is_ok() && claim("").is_err() && claim("a\nb").is_err());
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        for (text, shown) in [
            ("postgres://u:p@h/d", "postgres://***@h/d"),
            ("https://h/a@b", "https://h/a@b"),
            ("https://u:p@q@h/", "https://***@h/"),
            ("plain", "plain"),
        ] {
            assert_eq!(without_password(text), shown);
        }
    }
}
