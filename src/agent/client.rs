//! How agents that ask others reach them: the HTTP client and its address.

use std::time::Duration;

use reqwest::{ClientBuilder, RequestBuilder, Url, redirect};

use crate::{outbound, telemetry::trace::Trace};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client for requests to `url`. Redirects are not followed: what is sent is for that address alone.
pub(super) fn builder(url: &Url) -> ClientBuilder {
    outbound::client(url)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("rejoin/", env!("CARGO_PKG_VERSION")))
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
}
