//! How agents that ask others reach them: the HTTP client and its address.

use std::time::Duration;

use reqwest::{Client, ClientBuilder, RequestBuilder, Url, redirect};

use crate::telemetry::trace::Trace;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client for requests to `url`. Redirects are not followed: what is sent is for that address alone.
pub(super) fn builder(url: &Url) -> ClientBuilder {
    let builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("rejoin/", env!("CARGO_PKG_VERSION")));
    if is_loopback(url) { builder.no_proxy() } else { builder }
}

/// `request`, which tells of the trace that it is a part of.
pub(super) fn traced(request: RequestBuilder) -> RequestBuilder {
    Trace::current().headers().fold(request, |request, (name, value)| request.header(name, value))
}

/// The URL that `text` is, if requests can be sent to it.
pub fn parse_url(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

/// The URL that `text` is, if a path can be put behind it and requests be sent to that.
pub fn parse_base_url(text: &str) -> Option<Url> {
    parse_url(text).filter(|url| url.query().is_none())
}

/// Whether `url` is on this machine, where a proxy for the outside world must not be asked.
pub fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_has_no_query_and_every_url_has_a_host() {
        assert!(parse_url("https://x/agent?key=1").is_some() && parse_base_url("https://x/agent?key=1").is_none());
        for bad in ["", "api.example.com/v1", "ftp://x/", "http://"] {
            assert!(parse_url(bad).is_none() && parse_base_url(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn loopback_is_known_by_name_and_by_address() {
        for (url, expected) in [
            ("http://localhost:1/v1", true),
            ("http://127.8.0.1/v1", true),
            ("http://[::1]:1/v1", true),
            ("http://192.168.0.1/", false),
            ("https://localhost.example.com/", false),
        ] {
            assert_eq!(is_loopback(&parse_base_url(url).unwrap()), expected, "{url}");
        }
    }
}
