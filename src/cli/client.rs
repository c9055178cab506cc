//! A small client of a server: one connection, one topic, V2 frames.
//!
//! It knows frames and no session. Reconnecting is up to who uses it: an [`Error`] says whether that may help. Its
//! invariants: every wait has a limit but the one for the next push, and that one notices a dead connection by its
//! heartbeat.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use reqwest::{StatusCode, Upgraded, Url, header};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json, value::RawValue};
use tokio::time::{Instant, Interval, interval_at, timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::outbound::{self, root_cause};

/// How long a connection or an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(15);
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Why a client cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0} is no address of a server: give one such as http://127.0.0.1:4000")]
    Url(String),
    #[error("cannot connect to {url} ({cause}): check that the server runs and listens there")]
    Unreachable { url: String, cause: String },
    #[error("{url} refused the connection with status {status}: {advice}")]
    Handshake { url: String, status: StatusCode, advice: &'static str },
    #[error("the connection was lost: check the server and repeat the command")]
    Lost,
    #[error(
        "the server closed the connection ({code} {reason}): stay within what it allows, and bring a token that is valid"
    )]
    Closed { code: u16, reason: String },
    #[error("the server refused: {reason}{message}")]
    Refused { reason: String, message: String },
    #[error("the server sent a frame that is none: check that the URL is that of a Rejoin server")]
    Garbled,
}

impl Error {
    /// Whether the same may work on a new connection.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost => true,
            Self::Handshake { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Refused { reason, .. } => matches!(reason.as_str(), "unavailable" | "draining" | "rate_limited"),
            Self::Url(_) | Self::Closed { .. } | Self::Garbled => false,
        }
    }
}

/// A server, and as whom to come to it.
#[derive(Debug, Clone)]
pub(super) struct Target {
    socket: Url,
    shown: String,
}

impl Target {
    /// The server at `url`; `identity` are the parameters of the socket.
    pub(super) fn new(url: &str, identity: Vec<(&str, String)>) -> Result<Self, Error> {
        let refused = || Error::Url(url.to_owned());
        let http = match url.split_once("://") {
            Some(("ws", rest)) => format!("http://{rest}"),
            Some(("wss", rest)) => format!("https://{rest}"),
            _ => url.to_owned(),
        };
        let mut socket = Url::parse(&http).map_err(|_| refused())?;
        if !matches!(socket.scheme(), "http" | "https") || !socket.has_host() {
            return Err(refused());
        }
        socket.set_path(&format!("{}/socket/websocket", socket.path().trim_end_matches('/')));
        socket.set_fragment(None);
        socket.query_pairs_mut().clear().extend_pairs(identity).append_pair("vsn", "2.0.0");
        Ok(Self { socket, shown: url.to_owned() })
    }

    /// Upgrades a request to a connection. The HTTP client does it, so that `https` and proxies work as they do there.
    async fn open(&self) -> Result<Upgraded, Error> {
        let key = generate_key();
        let client = outbound::client(&self.socket).http1_only().build().map_err(|error| self.unreachable(&error))?;
        let request = client
            .get(self.socket.clone())
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key);
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let advice = match status {
                StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => "check --token and --user",
                StatusCode::SERVICE_UNAVAILABLE => "it is about to end or not ready yet; repeat the command later",
                _ => "check that --url is that of a Rejoin server",
            };
            return Err(Error::Handshake { url: self.shown.clone(), status, advice });
        }
        let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(Error::Garbled);
        }
        response.upgrade().await.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        Error::Unreachable { url: self.shown.clone(), cause: root_cause(error) }
    }
}

/// What the server says on the topic after the join.
#[derive(Debug)]
pub(super) enum Incoming {
    /// An event for this topic.
    Push { event: String, payload: Box<RawValue> },
    /// The answer to a push: its `response`, or why it was refused.
    Reply { reference: String, outcome: Result<Box<RawValue>, Error> },
}

/// join_ref, ref, topic, event, payload.
type Frame = (IgnoredAny, Value, String, String, Box<RawValue>);

#[derive(Deserialize)]
struct Reply {
    status: String,
    response: Box<RawValue>,
}

#[derive(Deserialize)]
struct Refusal {
    reason: String,
    #[serde(default)]
    message: Option<String>,
}

impl Reply {
    fn outcome(self) -> Result<Box<RawValue>, Error> {
        if self.status == "ok" {
            return Ok(self.response);
        }
        let refusal: Refusal = serde_json::from_str(self.response.get()).map_err(|_| Error::Garbled)?;
        let message = refusal.message.map(|message| format!(" ({message})")).unwrap_or_default();
        Err(Error::Refused { reason: refusal.reason, message })
    }
}

/// A connection that has joined a topic, or is about to.
pub(super) struct Client {
    socket: WebSocketStream<Upgraded>,
    topic: String,
    last_ref: u64,
    heartbeat: Interval,
    /// The heartbeat that has no answer yet.
    awaited: Option<String>,
}

const JOIN_REF: &str = "1";

impl Client {
    /// Connects and joins `topic` with `params`; gives the join's response too.
    pub(super) async fn join(target: &Target, topic: &str, params: Value) -> Result<(Self, Box<RawValue>), Error> {
        let io = timeout(ANSWER_TIMEOUT, target.open()).await.map_err(|_| Error::Lost)??;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES))
            .read_buffer_size(16 << 10);
        let socket = WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await;
        let heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        let mut client = Self { socket, topic: topic.to_owned(), last_ref: 0, heartbeat, awaited: None };
        let reference = client.push("phx_join", &params).await?;
        let response = timeout(ANSWER_TIMEOUT, client.reply_to(&reference)).await.map_err(|_| Error::Lost)??;
        Ok((client, response))
    }

    /// Sends a push; gives its ref, under which the answer will come.
    pub(super) async fn push(&mut self, event: &str, payload: &Value) -> Result<String, Error> {
        self.last_ref += 1;
        let reference = self.last_ref.to_string();
        self.send(json!([JOIN_REF, reference, self.topic, event, payload])).await?;
        Ok(reference)
    }

    /// The next push or reply of the topic. Cancel-safe but for a heartbeat, which is then sent later.
    pub(super) async fn next(&mut self) -> Result<Incoming, Error> {
        loop {
            let message = tokio::select! {
                message = self.socket.next() => message,
                _ = self.heartbeat.tick() => {
                    self.beat().await?;
                    continue;
                }
            };
            let text = match message {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(frame))) => return Err(closed(frame)),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return Err(Error::Lost),
            };
            if let Some(incoming) = self.read(&text)? {
                return Ok(incoming);
            }
        }
    }

    /// Says goodbye; what the other side makes of it does not matter any more.
    pub(super) async fn close(mut self) {
        let _ = timeout(Duration::from_secs(1), self.socket.close(None)).await;
    }

    async fn reply_to(&mut self, awaited: &str) -> Result<Box<RawValue>, Error> {
        loop {
            match self.next().await? {
                Incoming::Reply { reference, outcome } if reference == awaited => return outcome,
                // Nothing is pushed on a topic before its join is answered.
                Incoming::Reply { .. } | Incoming::Push { .. } => {}
            }
        }
    }

    async fn beat(&mut self) -> Result<(), Error> {
        if self.awaited.is_some() {
            return Err(Error::Lost);
        }
        self.last_ref += 1;
        let reference = self.last_ref.to_string();
        self.send(json!([null, reference, "phoenix", "heartbeat", {}])).await?;
        self.awaited = Some(reference);
        Ok(())
    }

    async fn send(&mut self, frame: Value) -> Result<(), Error> {
        let sending = self.socket.send(Message::text(frame.to_string()));
        timeout(ANSWER_TIMEOUT, sending).await.map_err(|_| Error::Lost)?.map_err(|_| Error::Lost)
    }

    /// What a frame means here; none if it is not for the topic.
    fn read(&mut self, text: &str) -> Result<Option<Incoming>, Error> {
        let (_, reference, topic, event, payload): Frame = serde_json::from_str(text).map_err(|_| Error::Garbled)?;
        let reference = reference.as_str().unwrap_or_default().to_owned();
        if topic == "phoenix" {
            self.awaited.take_if(|awaited| *awaited == reference);
            return Ok(None);
        }
        if topic != self.topic {
            return Ok(None);
        }
        match event.as_str() {
            "phx_reply" => {
                let reply: Reply = serde_json::from_str(payload.get()).map_err(|_| Error::Garbled)?;
                Ok(Some(Incoming::Reply { reference, outcome: reply.outcome() }))
            }
            // The topic ended, the connection did not; joining again is the same for both.
            "phx_error" | "phx_close" => Err(Error::Lost),
            _ => Ok(Some(Incoming::Push { event, payload })),
        }
    }
}

fn closed(frame: Option<CloseFrame>) -> Error {
    match frame {
        Some(frame) if matches!(frame.code, CloseCode::Size | CloseCode::Policy) => {
            Error::Closed { code: frame.code.into(), reason: frame.reason.to_string() }
        }
        _ => Error::Lost,
    }
}

/// How long to go on trying after the connection was lost.
pub(super) struct Retry {
    since: Option<Instant>,
    pause: Duration,
}

impl Retry {
    const LIMIT: Duration = Duration::from_secs(60);
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);

    /// A first attempt, which has to work.
    pub(super) fn new() -> Self {
        Self { since: None, pause: Self::FIRST }
    }

    /// Something came of the connection; from here on it may be lost and made again.
    pub(super) fn progress(&mut self) {
        *self = Self { since: Some(Instant::now()), pause: Self::FIRST };
    }

    /// Waits before the next attempt, or gives `error` back where none is worth it.
    pub(super) async fn after(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_transient() || self.since.is_none_or(|since| since.elapsed() > Self::LIMIT) {
            return Err(error);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Self::LONGEST);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_under_the_url_and_who_comes_is_in_its_query() {
        let target = Target::new("http://h:1/x/", vec![("user_id", "a b".to_owned())]).unwrap();
        assert_eq!(target.socket.as_str(), "http://h:1/x/socket/websocket?user_id=a+b&vsn=2.0.0");
        assert_eq!(Target::new("wss://h", vec![]).unwrap().socket.as_str(), "https://h/socket/websocket?vsn=2.0.0");
        for bad in ["", "h:1", "ftp://h", "http://"] {
            assert!(Target::new(bad, vec![]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_reason() {
        let reply = |json: &str| serde_json::from_str::<Reply>(json).unwrap().outcome();
        assert_eq!(reply(r#"{"status":"ok","response":{"a":1}}"#).unwrap().get(), r#"{"a":1}"#);
        let error = reply(r#"{"status":"error","response":{"reason":"busy","message":"Wait."}}"#).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.is_transient()), ("the server refused: busy (Wait.)", false));
        let error = reply(r#"{"status":"error","response":{"reason":"unavailable"}}"#).unwrap_err();
        assert!(error.is_transient());
    }

    #[tokio::test]
    async fn the_first_attempt_has_to_work() {
        assert!(matches!(Retry::new().after(Error::Lost).await, Err(Error::Lost)));
        let mut retry = Retry::new();
        retry.progress();
        assert!(retry.after(Error::Lost).await.is_ok());
        assert!(matches!(retry.after(Error::Garbled).await, Err(Error::Garbled)));
    }
}
