//! The agent that asks an OpenAI-compatible endpoint for a streaming chat completion.
//!
//! `request` makes the messages, `assembler` (pure) turns chunks into deltas, `failure` words what went wrong; here is
//! the connection between them. It knows no session and keeps no time but two short limits of its own: the caller
//! decides how long a silence may be. Its invariants: dropping the answer closes the request at once; what the
//! endpoint sends without end is cut at a limit; the API key is in the request and nowhere else.

mod assembler;
mod failure;
mod request;

use std::{collections::VecDeque, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream, stream::BoxStream};
use reqwest::{Client, Response, Url, header};
use sse_stream::{Sse, SseByteStream};

use self::{assembler::Assembler, failure::Endpoint};
use super::{Agent, Answer, Context, Error, Output, Secret};
use crate::model::TurnError;

/// The most bytes that one event of the stream may have.
const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an endpoint that has finished its answer may take to tell what it cost.
const LINGER: Duration = Duration::from_secs(2);

/// How an endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The address before `/chat/completions`, such as `https://api.openai.com/v1`.
    pub base_url: String,
    /// The model's name, as the endpoint knows it.
    pub model: String,
    /// Sent as a bearer token; without one no `Authorization` is sent.
    pub api_key: Option<Secret>,
    /// An instruction put before all messages.
    pub system: Option<String>,
    /// How many of the newest messages are sent at most; all of them without it.
    pub max_messages: Option<usize>,
}

/// Asks an endpoint.
#[derive(Debug)]
pub struct OpenAi {
    options: Options,
    url: Url,
    client: Client,
    endpoint: Endpoint,
}

impl OpenAi {
    /// An agent called `name` that asks as `options` say. Nothing is sent before the first turn.
    ///
    /// # Errors
    /// [`Error::BaseUrl`], or [`Error::Client`] where the machine's TLS set-up does not allow a client.
    pub fn new(name: &str, options: Options) -> Result<Self, Error> {
        let base = parse_base_url(&options.base_url).ok_or_else(|| Error::BaseUrl { agent: name.to_owned() })?;
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("rejoin/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|source| Error::Client { agent: name.to_owned(), source })?;
        let endpoint = Endpoint::new(&base, &options);
        Ok(Self { url: completions(base), options, client, endpoint })
    }

    async fn ask(&self, context: &Context) -> Result<Response, TurnError> {
        let body = request::body(&self.options, context);
        let mut request = self.client.post(self.url.clone()).header(header::ACCEPT, "text/event-stream").json(&body);
        if let Some(key) = &self.options.api_key {
            request = request.bearer_auth(key.expose());
        }
        request.send().await.map_err(|error| self.endpoint.unreachable(&error))
    }
}

#[async_trait]
impl Agent for OpenAi {
    async fn answer(&self, context: Context) -> Result<Answer, TurnError> {
        let response = self.ask(&context).await?;
        let response = self.endpoint.check(response).await?;
        let events = SseByteStream::new(bounded(response.bytes_stream())).boxed();
        let reader =
            Reader { events, assembler: Assembler::default(), ready: VecDeque::new(), endpoint: self.endpoint.clone() };
        Ok(stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            let item = reader.next().await;
            let more = matches!(item, Ok(Output::Delta(_)));
            Some((item, more.then_some(reader)))
        })
        .boxed())
    }

    fn max_messages(&self) -> usize {
        self.options.max_messages.unwrap_or(10_000)
    }
}

/// A stream of events that is being read into outputs.
struct Reader {
    events: BoxStream<'static, Result<Sse, sse_stream::Error>>,
    assembler: Assembler,
    ready: VecDeque<Result<Output, TurnError>>,
    endpoint: Endpoint,
}

impl Reader {
    /// The next delta, or how the answer ended.
    async fn next(&mut self) -> Result<Output, TurnError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return item;
            }
            match self.next_event().await {
                Some(Ok(event)) => self.take(&event),
                Some(Err(error)) => self.finish(Err(self.endpoint.broken(&error))),
                None => self.finish(Err(self.endpoint.incomplete())),
            }
        }
    }

    /// After the model finished only its usage is still awaited, and not for long.
    async fn next_event(&mut self) -> Option<Result<Sse, sse_stream::Error>> {
        if self.assembler.is_finished() {
            return tokio::time::timeout(LINGER, self.events.next()).await.unwrap_or_default();
        }
        self.events.next().await
    }

    fn take(&mut self, event: &Sse) {
        let Some(data) = event.data.as_deref() else { return };
        if data.trim() == "[DONE]" {
            return self.finish(Ok(()));
        }
        match self.assembler.take(data) {
            Ok(deltas) => self.ready.extend(deltas.into_iter().map(|delta| Ok(Output::Delta(delta)))),
            Err(fault) => {
                let error = self.endpoint.fault(&fault);
                self.finish(Err(error));
            }
        }
    }

    /// Queues what is left to say, then the end: whole if the model finished or said so itself, else `otherwise`.
    fn finish(&mut self, otherwise: Result<(), TurnError>) {
        self.ready.extend(self.assembler.flush().into_iter().map(|delta| Ok(Output::Delta(delta))));
        let end = match (self.assembler.is_filtered(), otherwise) {
            (true, _) => Err(self.endpoint.filtered()),
            (false, Err(error)) if !self.assembler.is_finished() => Err(error),
            (false, _) => Ok(Output::Done { usage: self.assembler.usage() }),
        };
        self.ready.push_back(end);
    }
}

/// What ends a body that is read: the connection's own error, or an event beyond the limit.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("the connection broke")]
    Broken(#[source] reqwest::Error),
    #[error("an event is longer than {MAX_EVENT_BYTES} bytes")]
    TooLong,
}

/// `body`, ended with an error where an event, that is what lies between two empty lines, is too long to be kept.
fn bounded<S>(body: S) -> impl Stream<Item = Result<Bytes, BodyError>> + Send
where
    S: Stream<Item = Result<Bytes, reqwest::Error>> + Send,
{
    let mut meter = Meter::default();
    body.map(move |piece| {
        let piece = piece.map_err(BodyError::Broken)?;
        if meter.longest(&piece) > MAX_EVENT_BYTES { Err(BodyError::TooLong) } else { Ok(piece) }
    })
}

/// Counts the bytes of the event that is being received.
#[derive(Default)]
struct Meter {
    event: usize,
    line: usize,
    after_cr: bool,
}

impl Meter {
    /// The length that the longest event reaches in `piece`.
    fn longest(&mut self, piece: &[u8]) -> usize {
        let mut longest = self.event;
        for &byte in piece {
            let second_of_crlf = self.after_cr && byte == b'\n';
            self.after_cr = byte == b'\r';
            if second_of_crlf {
                continue;
            }
            if byte == b'\r' || byte == b'\n' {
                self.event = if self.line == 0 { 0 } else { self.event + 1 };
                self.line = 0;
            } else {
                self.line += 1;
                self.event += 1;
            }
            longest = longest.max(self.event);
        }
        longest
    }
}

/// The URL that `text` is, if requests can be sent to it.
pub fn parse_base_url(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    let usable = matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none();
    usable.then_some(url)
}

fn completions(mut base: Url) -> Url {
    let path = format!("{}/chat/completions", base.path().trim_end_matches('/'));
    base.set_path(&path);
    base.set_fragment(None);
    base
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
    fn the_path_is_put_behind_the_base_url() {
        for (base, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/chat/completions"),
            ("https://api.example.com/v1", "https://api.example.com/v1/chat/completions"),
            (" https://api.example.com/v1// ", "https://api.example.com/v1/chat/completions"),
        ] {
            assert_eq!(completions(parse_base_url(base).unwrap()).as_str(), expected);
        }
        for bad in ["", "api.example.com/v1", "ftp://x/", "https://x/?key=1", "http://"] {
            assert!(parse_base_url(bad).is_none(), "{bad}");
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

    #[test]
    fn an_event_is_measured_between_empty_lines_whatever_ends_them() {
        for text in ["data: 1\n\ndata: 22\n\n", "data: 1\r\n\r\ndata: 22\r\n\r\n", "data: 1\r\rdata: 22\r\r"] {
            assert_eq!(Meter::default().longest(text.as_bytes()), 9, "{text:?}");
            let mut meter = Meter::default();
            let piecewise = text.bytes().map(|byte| meter.longest(&[byte])).max();
            assert_eq!(piecewise, Some(9), "{text:?}");
        }
        assert_eq!(Meter::default().longest(b"data: 1\r\ndata: 2\r\n"), 16);
    }

    #[test]
    fn the_key_is_not_shown_by_debug() {
        let options = Options {
            base_url: "http://user:pass-word@127.0.0.1:1/v1".to_owned(),
            model: "m".to_owned(),
            api_key: Some(Secret::new("sk-hidden")),
            system: None,
            max_messages: None,
        };
        let shown = format!("{:?}", OpenAi::new("a", options).unwrap());
        assert!(!shown.contains("sk-hidden"), "{shown}");
    }
}
