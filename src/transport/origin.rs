//! Which web pages may connect.
//!
//! Pure. A request without an `Origin` comes from no page and is allowed. The invariant: an origin that cannot be
//! understood is refused, except where everything is allowed.

use axum::http::{HeaderMap, Uri, header::HOST};

/// The pages that may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Those of the host that the request itself names.
    SameHost,
    /// Any.
    Any,
    /// Those that match one of the patterns.
    List(Vec<Pattern>),
}

/// One allowed origin: `[scheme:]//host[:port]` or just a host, where the host may be `*.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    scheme: Option<String>,
    host: String,
    port: Option<u16>,
    wildcard: bool,
}

/// Why a list of origins cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{pattern:?} is no origin: write https://example.com, //example.com:8080, *.example.com or *")]
pub struct BadPattern {
    pattern: String,
}

impl Origins {
    /// The origins of a list; `*` in it allows any, an empty list is the same host.
    ///
    /// # Errors
    /// [`BadPattern`] names the first entry that is no origin.
    pub fn parse<S: AsRef<str>>(list: &[S]) -> Result<Self, BadPattern> {
        if list.is_empty() {
            return Ok(Self::SameHost);
        }
        if list.iter().any(|entry| entry.as_ref().trim() == "*") {
            return Ok(Self::Any);
        }
        list.iter().map(|entry| Pattern::parse(entry.as_ref().trim())).collect::<Result<_, _>>().map(Self::List)
    }

    /// Whether a page of `origin` may connect to the server that it calls `host`.
    pub fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let parts = || Parts::parse(origin);
        match self {
            Self::Any => true,
            Self::SameHost => match (parts(), host.and_then(split)) {
                (Some(origin), Some((host, _))) => origin.host == host,
                _ => false,
            },
            Self::List(patterns) => {
                parts().is_some_and(|origin| patterns.iter().any(|pattern| pattern.matches(&origin)))
            }
        }
    }
}

impl Origins {
    /// Whether a server that only this machine reaches may be called `host`: by a name of this machine, or by that of
    /// an allowed origin, as behind a proxy that passes the public name on. Any other name was pointed here by somebody
    /// else, so that their pages would pass for this server's own.
    pub fn may_be_called(&self, host: Option<&str>) -> bool {
        let allowed = |host: &str| {
            let origin = |scheme| format!("{scheme}://{host}");
            ["http", "https"].into_iter().any(|scheme| self.allow(Some(&origin(scheme)), None))
        };
        host.is_some_and(|host| is_local(host) || allowed(host))
    }
}

/// Whether a `Host` header names this machine itself.
fn is_local(host: &str) -> bool {
    let Some((name, _)) = split(host) else { return false };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    // Browsers, too, take every name under localhost for this machine without asking anybody.
    name == "localhost"
        || name.ends_with(".localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What a request calls this server: its `Host`, or the host of the whole URL that it names, as it does to a proxy.
/// Nothing where it calls it two things: somebody behind whom it passed may have looked at the other.
pub fn host_called<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    let mut hosts = headers.get_all(HOST).iter().map(|value| value.to_str().unwrap_or(""));
    let host = match (hosts.next(), hosts.next()) {
        (host, None) => host,
        _ => return None,
    };
    let Some(authority) = uri.authority() else { return host };
    host.is_none_or(|host| host == authority.as_str()).then(|| authority.as_str())
}

/// An origin as a browser sends it.
struct Parts {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Parts {
    fn parse(origin: &str) -> Option<Self> {
        let (scheme, rest) = origin.split_once("://")?;
        let (host, port) = split(rest)?;
        let scheme = scheme.to_ascii_lowercase();
        Some(Self { port: port.or_else(|| usual_port(&scheme)), scheme, host })
    }
}

/// Host and port; nothing where it is no authority.
fn split(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of a bare IPv6 address are inside its brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (authority, None),
    };
    let sound = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
    sound.then(|| (host.to_ascii_lowercase(), port))
}

fn usual_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, BadPattern> {
        let bad = || BadPattern { pattern: text.to_owned() };
        let (scheme, rest) = match text.split_once("//") {
            Some(("", rest)) => (None, rest),
            Some((scheme, rest)) => (Some(scheme.strip_suffix(':').ok_or_else(bad)?.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let (host, port) = split(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(bad)?;
        let wildcard = host.starts_with("*.");
        let host = host.strip_prefix("*.").unwrap_or(&host).to_owned();
        if host.is_empty() || host.contains('*') {
            return Err(bad());
        }
        Ok(Self { port: port.or_else(|| scheme.as_deref().and_then(usual_port)), scheme, host, wildcard })
    }

    fn matches(&self, origin: &Parts) -> bool {
        let host = origin.host == self.host
            || self.wildcard && origin.host.strip_suffix(self.host.as_str()).is_some_and(|rest| rest.ends_with('.'));
        let scheme = self.scheme.as_ref().is_none_or(|scheme| *scheme == origin.scheme);
        let port = self.port.is_none_or(|port| origin.port == Some(port));
        host && scheme && port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for good in ["localhost", "LocalHost:4000", "127.0.0.1:80", "127.9.9.9", "[::1]:4000", "a.localhost:1"] {
            assert!(is_local(good), "{good}");
        }
        for bad in [
            "example.com",
            "evil.com:4000",
            "localhost.evil.com",
            "10.0.0.1",
            "[::2]:1",
            "",
            "127.0.0.1:80@evil.com",
            "[::1]x",
            "localhost:x",
        ] {
            assert!(!is_local(bad), "{bad}");
        }
    }

    #[test]
    fn a_server_of_this_machine_is_called_by_its_own_or_an_allowed_name() {
        let list = Origins::parse(&["chat.example.com"]).unwrap();
        for (origins, host, allowed) in [
            (&Origins::SameHost, Some("localhost:4000"), true),
            (&Origins::SameHost, Some("evil.example:4000"), false),
            (&Origins::SameHost, None, false),
            (&list, Some("chat.example.com"), true),
            (&list, Some("evil.example"), false),
            (&Origins::Any, Some("evil.example"), true),
        ] {
            assert_eq!(origins.may_be_called(host), allowed, "{origins:?} {host:?}");
        }
    }

    #[test]
    fn a_server_is_called_one_thing_only() {
        for (hosts, uri, called) in [
            (&["here.com"][..], "/a", Some("here.com")),
            (&[], "/a", None),
            (&["here.com", "evil.com"], "/a", None),
            (&["here.com", "here.com"], "/a", None),
            (&["here.com:1"], "http://here.com:1/a", Some("here.com:1")),
            (&["here.com"], "http://evil.com/a", None),
            (&[], "http://evil.com/a", Some("evil.com")),
        ] {
            let headers = hosts.iter().map(|host| (HOST, host.parse().unwrap())).collect();
            assert_eq!(host_called(&headers, &uri.parse().unwrap()), called, "{hosts:?} {uri}");
        }
    }

    fn allows(list: &[&str], origin: &str) -> bool {
        Origins::parse(list).unwrap().allow(Some(origin), Some("here.com:4000"))
    }

    #[test]
    fn a9_pages_of_the_same_host_are_allowed_and_so_are_no_pages() {
        assert!(allows(&[], "http://here.com") && allows(&[], "https://HERE.com:9"));
        assert!(!allows(&[], "http://there.com") && !allows(&[], "http://a.here.com"));
        assert!(Origins::SameHost.allow(None, None));
        assert!(!Origins::SameHost.allow(Some("http://here.com"), None));
        assert!(allows(&["//example.com"], "https://example.com"));
        assert!(!allows(&["//example.com"], "http://notallowed.com"));
        assert!(Origins::SameHost.allow(Some("http://[::1]:3000"), Some("[::1]:4000")));
    }

    #[test]
    fn a10_wildcards_schemes_and_ports() {
        let wild = ["*.ex.com"];
        assert!(allows(&wild, "http://a.ex.com") && allows(&wild, "http://ex.com"));
        assert!(!allows(&wild, "http://a.prefix-ex.com") && !allows(&wild, "http://prefix-ex.com"));
        let scheme = ["http://scheme.com"];
        assert!(allows(&scheme, "http://scheme.com"));
        assert!(!allows(&scheme, "https://scheme.com") && !allows(&scheme, "http://scheme.com:8080"));
        let port = ["//port.com:81"];
        assert!(allows(&port, "http://port.com:81") && !allows(&port, "http://port.com"));
    }

    #[test]
    fn a11_what_is_no_origin_is_refused_unless_everything_is_allowed() {
        for odd in ["null", "file://", "", "http://", "http://a/b", "example.com"] {
            assert!(!allows(&[], odd) && !allows(&["//example.com"], odd), "{odd}");
            assert!(allows(&["*"], odd), "{odd}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_understood_is_refused() {
        for bad in ["", "http://", "a.*.com", "http://x:notaport", "*.", "//a/b"] {
            assert!(Origins::parse(&[bad]).is_err(), "{bad}");
        }
    }
}
