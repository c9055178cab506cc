//! What requests to other servers have in common, whoever makes them: agents, tokens' keys, the command line.
//!
//! It knows addresses and no request. Its invariant: a proxy for the outside world is never asked for a server on this
//! machine.

use reqwest::{Client, ClientBuilder, Url};

/// A client for requests to `url`, past any proxy where that is on this machine.
pub fn client(url: &Url) -> ClientBuilder {
    let builder = Client::builder();
    if is_loopback(url) { builder.no_proxy() } else { builder }
}

/// Whether `url` is on this machine.
pub fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What is at the bottom of an error, without the URL that the layers above repeat.
pub fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_by_name_and_by_address() {
        for (url, expected) in [
            ("http://localhost:1/v1", true),
            ("http://127.8.0.1/v1", true),
            ("http://[::1]:1/v1", true),
            ("http://192.168.0.1/", false),
            ("https://localhost.example.com/", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
