//! What the application is told of a client that connects, and how it refuses one.
//!
//! Knows the head of a request. Its invariant: cookies and headers that are not meant for the application are never
//! shown to it, and nothing here is written to a log.

use std::{borrow::Cow, fmt, net::SocketAddr, sync::Arc};

use axum::{
    extract::{self, RawPathParams, Request},
    http::{
        HeaderMap, HeaderValue, StatusCode, Uri,
        header::{RETRY_AFTER, USER_AGENT},
    },
    response::{IntoResponse, Response},
};
use futures::future::BoxFuture;

use super::{AuthToken, BadParams, Params};
use crate::{auth::Identity, telemetry::trace::Trace};

/// Decides who connects: an identity, or a refusal. Called once for each connection, before anything is kept for it.
pub type Connect = Arc<dyn Fn(&ConnectInfo<'_>) -> Admission + Send + Sync>;

/// What [`Connect`] decides. A `Result` becomes one by `into()`.
pub enum Admission {
    /// Decided.
    Now(Result<Identity, Refused>),
    /// Somebody has to be asked first, which must take a bounded time. Nothing of the request is kept meanwhile.
    Later(BoxFuture<'static, Result<Identity, Refused>>),
}

impl From<Result<Identity, Refused>> for Admission {
    fn from(decided: Result<Identity, Refused>) -> Self {
        Self::Now(decided)
    }
}

impl Admission {
    /// The decision, once it is there.
    pub(super) async fn decided(self) -> Result<Identity, Refused> {
        match self {
            Self::Now(decided) => decided,
            Self::Later(decision) => decision.await,
        }
    }
}

/// What moves a connection's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// Requests that wait.
    LongPoll,
    /// Server-sent events, of which the client is a listener only.
    EventStream,
}

impl Transport {
    /// All of them, in the order in which they are declared.
    pub const ALL: [Self; 3] = [Self::WebSocket, Self::LongPoll, Self::EventStream];

    /// The word for it; that of a mount's transport stands in its paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::LongPoll => "longpoll",
            Self::EventStream => "sse",
        }
    }
}

/// What a client says when it connects.
pub struct ConnectInfo<'a> {
    transport: Transport,
    params: Params,
    auth_token: Option<AuthToken>,
    peer: Option<SocketAddr>,
    uri: &'a Uri,
    headers: &'a HeaderMap,
}

impl<'a> ConnectInfo<'a> {
    /// What a request says. `query` is that of its parameters which are meant for the application.
    pub(super) fn new(
        transport: Transport,
        request: &'a Request,
        path: &RawPathParams,
        query: &str,
        auth_token: Option<AuthToken>,
    ) -> Result<Self, BadParams> {
        let mut params = Params::parse(query)?;
        // The path was chosen by this server: what a client writes behind it must not overrule it.
        path.iter().for_each(|(name, value)| params.set(name, value));
        let peer = request.extensions().get::<extract::ConnectInfo<SocketAddr>>().map(|peer| peer.0);
        Ok(Self { transport, params, auth_token, peer, uri: request.uri(), headers: request.headers() })
    }

    /// What moves the connection's bytes.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The parameters of the query, and the variables of the mount's path, which overrule them.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The text of a parameter, as [`Params::get`].
    pub fn get(&self, key: &str) -> Option<&str> {
        self.params.get(key)
    }

    /// The token that was sent beside the parameters. Only where [`super::Options::auth_token`] is on.
    pub fn auth_token(&self) -> Option<&AuthToken> {
        self.auth_token.as_ref()
    }

    /// The address of the other end, which may be a proxy's. Not known where somebody else accepts connections.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// What was asked for, the query as it was sent.
    pub fn uri(&self) -> &'a Uri {
        self.uri
    }

    /// What the client calls itself.
    pub fn user_agent(&self) -> Option<Cow<'a, str>> {
        self.headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()))
    }

    /// The headers `x-…`.
    pub fn x_headers(&self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        self.headers_where(|name| name.starts_with("x-"))
    }

    /// The headers `traceparent` and `tracestate`.
    pub fn trace_context(&self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        self.headers_where(|name| matches!(name, "traceparent" | "tracestate"))
    }

    /// The trace that the client is in: by its parameters, which its own program chose, else by the headers, which a
    /// proxy on the way may have changed.
    pub(super) fn trace(&self) -> Trace {
        let given = ["traceparent", "tracestate"].into_iter();
        let given = given.filter_map(|name| Some((name, Cow::Borrowed(self.params.get(name)?))));
        match self.params.get("traceparent") {
            Some(_) => Trace::of_client(given),
            None => Trace::of_client(self.trace_context()),
        }
    }

    /// The headers `sec-websocket-…`; with the sub-protocols also a token that is among them.
    pub fn sec_websocket_headers(&self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        self.headers_where(|name| name.starts_with("sec-websocket-"))
    }

    fn headers_where(&self, which: impl Fn(&str) -> bool) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        let picked = self.headers.iter().filter(move |(name, _)| which(name.as_str()));
        picked.map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
    }
}

/// Not the parameters and headers, which may hold a token.
impl fmt::Debug for ConnectInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ConnectInfo");
        shown.field("transport", &self.transport).field("path", &self.uri.path()).field("peer", &self.peer);
        shown.finish_non_exhaustive()
    }
}

/// A refusal to connect: a status and perhaps a text. A browser shows neither to its page; other clients do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    status: StatusCode,
    body: Cow<'static, str>,
}

impl Default for Refused {
    /// 403 without a text.
    fn default() -> Self {
        Self { status: StatusCode::FORBIDDEN, body: Cow::Borrowed("") }
    }
}

impl Refused {
    /// A refusal with this status, 403 if it is none of an error, without a text.
    pub fn new(status: StatusCode) -> Self {
        let is_error = status.is_client_error() || status.is_server_error();
        if is_error { Self { status, ..Self::default() } } else { Self::default() }
    }

    /// The same with a text.
    #[must_use]
    pub fn with_body(self, body: impl Into<Cow<'static, str>>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<BadParams> for Refused {
    fn from(bad: BadParams) -> Self {
        Self::new(StatusCode::BAD_REQUEST).with_body(bad.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response =
            if self.body.is_empty() { self.status.into_response() } else { (self.status, self.body).into_response() };
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_an_error_whatever_it_was_asked_to_be() {
        assert_eq!(Refused::default().status(), 403);
        assert_eq!(Refused::new(StatusCode::TOO_MANY_REQUESTS).status(), 429);
        assert_eq!(Refused::new(StatusCode::SWITCHING_PROTOCOLS).status(), 403);
        assert_eq!(Refused::from(BadParams::TooMany).status(), 400);
    }

    #[test]
    fn only_what_is_meant_for_the_application_is_shown() {
        let mut request = Request::new(axum::body::Body::empty());
        for (name, value) in [
            ("cookie", "secret"),
            ("authorization", "secret"),
            ("x-forwarded-for", "10.0.0.1"),
            ("traceparent", "00-1-2-01"),
            ("user-agent", "test/1"),
            ("sec-websocket-version", "13"),
        ] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        request.extensions_mut().insert(extract::ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 9))));
        let headers = request.headers();
        let info = ConnectInfo {
            transport: Transport::WebSocket,
            params: Params::parse("token=secret").unwrap(),
            auth_token: Some(AuthToken::new("secret")),
            peer: None,
            uri: request.uri(),
            headers,
        };
        let named = |found: Vec<(&str, Cow<'_, str>)>| found.into_iter().map(|(name, _)| name.to_owned()).collect();
        let shown: Vec<Vec<String>> = vec![
            named(info.x_headers().collect()),
            named(info.trace_context().collect()),
            named(info.sec_websocket_headers().collect()),
        ];
        assert_eq!(shown.concat(), ["x-forwarded-for", "traceparent", "sec-websocket-version"]);
        assert_eq!(info.user_agent().as_deref(), Some("test/1"));
        assert!(!format!("{info:?}").contains("secret"));
    }
}
