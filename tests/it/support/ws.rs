//! A client that speaks raw frames, so that tests see exactly what is on the wire. Every wait has a limit.
//!
//! Frames are written as version 2 writes them, arrays of five, whatever the client speaks: in version 1 they travel as
//! objects, and the `join_ref` that the server does not send is null.

use std::{net::SocketAddr, time::Duration};

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use super::{
    form::{Form, Transport, Version},
    http::keys,
    kotlin::kotlin_reads,
    poll::Poller,
};

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Waits for `work`, at most [`LIMIT`].
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("{what}: not within {LIMIT:?}"))
}

/// Waits until `ready`, at most [`LIMIT`].
pub(crate) async fn until(what: &str, mut ready: impl FnMut() -> bool) {
    within(what, async {
        while !ready() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Whether a JSON text has no blanks outside strings.
fn is_compact(text: &str) -> bool {
    let (mut inside, mut escaped) = (false, false);
    text.bytes().all(|byte| {
        let blank = !inside && byte.is_ascii_whitespace();
        inside = if byte == b'"' && !escaped { !inside } else { inside };
        escaped = inside && byte == b'\\' && !escaped;
        !blank
    })
}

/// The answer to a push that worked and says nothing.
pub(crate) fn ok() -> Value {
    json!({ "status": "ok", "response": {} })
}

/// The answer to a frame for a topic that is not joined.
pub(crate) fn unmatched() -> Value {
    json!({ "status": "error", "response": { "reason": "unmatched topic" } })
}

/// One connection.
pub(crate) struct TestClient {
    link: Link,
    version: Version,
    last_ref: u64,
}

/// What moves a client's frames.
enum Link {
    Socket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Poll(Poller),
}

impl TestClient {
    /// Connects, or panics.
    pub(crate) async fn connect(url: impl IntoClientRequest + Unpin) -> Self {
        Self::try_connect(url).await.unwrap_or_else(|error| panic!("cannot connect: {error}"))
    }

    /// Connects, or says why not.
    pub(crate) async fn try_connect(url: impl IntoClientRequest + Unpin) -> Result<Self, tungstenite::Error> {
        let (ws, _) = within("connect", Box::pin(connect_async(url))).await?;
        Ok(Self { link: Link::Socket(Box::new(ws)), version: Version::V2, last_ref: 100 })
    }

    /// Connects through a narrow window, so that a client that does not read is behind soon.
    pub(crate) async fn narrow(address: SocketAddr, url: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 * 1024).unwrap();
        let stream = MaybeTlsStream::Plain(within("a stream", socket.connect(address)).await.unwrap());
        let (ws, _) = within("connect", Box::pin(client_async(url, stream))).await.unwrap();
        Self { link: Link::Socket(Box::new(ws)), version: Version::V2, last_ref: 100 }
    }

    /// Connects in a form, with more parameters (`&a=b`).
    pub(crate) async fn open(address: SocketAddr, form: Form, params: &str) -> Self {
        let url = format!("{}{params}", form.url(address));
        let client = match form.transport {
            Transport::WebSocket => Self::connect(url).await,
            Transport::LongPoll => {
                let poller = Box::pin(Poller::open(&url, form.version)).await.unwrap();
                Self { link: Link::Poll(poller), version: form.version, last_ref: 100 }
            }
        };
        Self { version: form.version, ..client }
    }

    /// The same client, speaking another version.
    pub(crate) fn speaking(self, version: Version) -> Self {
        Self { version, ..self }
    }

    /// The status with which a connection is refused.
    pub(crate) async fn refused(url: impl IntoClientRequest + Unpin) -> u16 {
        match Self::try_connect(url).await {
            Ok(_) => panic!("the connection was accepted"),
            Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
            Err(error) => panic!("the connection broke: {error}"),
        }
    }

    /// Sends any message.
    pub(crate) async fn send(&mut self, message: Message) {
        match &mut self.link {
            Link::Socket(ws) => within("send", ws.send(message)).await.unwrap(),
            Link::Poll(poller) => {
                let text = message.into_text().unwrap();
                assert!(Box::pin(poller.post(text.as_str().to_owned())).await, "the session does not take a frame");
            }
        }
    }

    /// Sends a text as it is.
    pub(crate) async fn text(&mut self, text: &str) {
        self.send(Message::text(text)).await;
    }

    /// Sends a frame.
    pub(crate) async fn frame(&mut self, frame: Value) {
        let text = self.written(&frame);
        self.text(&text).await;
    }

    /// A frame as this client sends it.
    fn written(&self, frame: &Value) -> String {
        match self.version {
            Version::V2 => frame.to_string(),
            Version::V1 => {
                let mut object = json!({ "topic": frame[2], "event": frame[3], "payload": frame[4], "ref": frame[1] });
                if !frame[0].is_null() {
                    object["join_ref"] = frame[0].clone();
                }
                object.to_string()
            }
        }
    }

    /// A frame as this client was sent it.
    fn read(&self, text: &str) -> Value {
        let frame: Value = serde_json::from_str(text).unwrap();
        match self.version {
            Version::V2 => {
                let five = frame.as_array().is_some_and(|parts| parts.len() == 5);
                assert!(five && is_compact(text), "not a compact array of five: {text}");
                kotlin_reads(text).unwrap_or_else(|problem| panic!("a client that cuts at commas: {problem}: {text}"));
                frame
            }
            Version::V1 => {
                assert_eq!(keys(&frame), ["event", "payload", "ref", "topic"], "{text}");
                json!([null, frame["ref"], frame["topic"], frame["event"], frame["payload"]])
            }
        }
    }

    /// Sends a frame; false if the connection has ended.
    pub(crate) async fn try_frame(&mut self, frame: Value) -> bool {
        let text = self.written(&frame);
        match &mut self.link {
            Link::Socket(ws) => within("send", ws.send(Message::text(text))).await.is_ok(),
            Link::Poll(poller) => Box::pin(poller.post(text)).await,
        }
    }

    /// The next frame; `None` if the connection ends before one.
    pub(crate) async fn try_next(&mut self) -> Option<Value> {
        match self.message().await? {
            Message::Text(text) => Some(self.read(text.as_str())),
            _ => None,
        }
    }

    /// The next frame, or the code with which the server closes.
    pub(crate) async fn frame_or_close(&mut self) -> Result<Value, u16> {
        match self.message().await {
            Some(Message::Text(text)) => Ok(self.read(text.as_str())),
            Some(Message::Close(Some(frame))) => Err(frame.code.into()),
            other => panic!("expected a frame or a close with a code, found {other:?}"),
        }
    }

    /// The next message, control frames left out; `None` at the end.
    pub(crate) async fn message(&mut self) -> Option<Message> {
        let ws = match &mut self.link {
            Link::Socket(ws) => ws,
            Link::Poll(poller) => return within("a message", Box::pin(poller.message())).await.map(Message::text),
        };
        loop {
            match within("a message", ws.next()).await {
                Some(Ok(Message::Ping(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next frame as text.
    pub(crate) async fn next_text(&mut self) -> String {
        match self.message().await {
            Some(Message::Text(text)) => text.as_str().to_owned(),
            other => panic!("expected a frame, found {other:?}"),
        }
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Value {
        let text = self.next_text().await;
        self.read(&text)
    }

    /// The next frame is this one.
    pub(crate) async fn expect(&mut self, frame: Value) {
        assert_eq!(self.next().await, self.shown(frame));
    }

    /// A frame as this client sees it.
    pub(crate) fn shown(&self, mut frame: Value) -> Value {
        if self.version == Version::V1 {
            frame[0] = Value::Null;
        }
        frame
    }

    /// The next message is these bytes.
    pub(crate) async fn expect_binary(&mut self, bytes: &[u8]) {
        match self.message().await {
            Some(Message::Binary(found)) => assert_eq!(*found, *bytes),
            other => panic!("expected bytes, found {other:?}"),
        }
    }

    /// Joins as `["11","1",…]` and expects to be accepted. What follows the reply is not read.
    pub(crate) async fn join(&mut self, topic: &str, params: Value) {
        self.frame(json!(["11", "1", topic, "phx_join", params])).await;
        self.expect(json!(["11", "1", topic, "phx_reply", ok()])).await;
    }

    /// Pushes for the join `"11"`; the ref to wait for.
    pub(crate) async fn push(&mut self, topic: &str, event: &str, payload: Value) -> String {
        self.last_ref += 1;
        let reference = self.last_ref.to_string();
        self.frame(json!(["11", reference, topic, event, payload])).await;
        reference
    }

    /// The answer to a push, whatever else arrives before it.
    pub(crate) async fn assert_reply(&mut self, reference: &str, status: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame[3] == "phx_reply" && frame[1] == reference {
                assert_eq!(frame[4]["status"], status, "{frame}");
                return frame[4]["response"].clone();
            }
        }
    }

    /// The payload of the next push or broadcast of this event, whatever else arrives before it.
    pub(crate) async fn assert_push(&mut self, topic: &str, event: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame[2] == topic && frame[3] == event {
                return frame[4].clone();
            }
        }
    }

    /// Nothing has arrived before the answer to this push, which the channel handles after everything before it.
    pub(crate) async fn refute_push(&mut self, topic: &str, event: &str) {
        let reference = self.push(topic, "err", json!({})).await;
        loop {
            let frame = self.next().await;
            assert!(frame[2] != topic || frame[3] != event, "unexpected: {frame}");
            if frame[1] == reference {
                return;
            }
        }
    }

    /// A heartbeat and its answer, with nothing between.
    pub(crate) async fn heartbeat(&mut self) {
        self.frame(json!([null, "hb", "phoenix", "heartbeat", {}])).await;
        self.expect(json!([null, "hb", "phoenix", "phx_reply", ok()])).await;
    }

    /// The code with which the server closes, whatever arrives before.
    pub(crate) async fn close_code(&mut self) -> u16 {
        loop {
            match self.message().await {
                Some(Message::Close(Some(frame))) => return frame.code.into(),
                Some(Message::Close(None)) => panic!("closed without a code"),
                Some(_) => {}
                None => panic!("ended without a close frame"),
            }
        }
    }

    /// Closes as a client does; the code that is echoed.
    pub(crate) async fn close(mut self) -> Option<u16> {
        let normal = tungstenite::protocol::CloseFrame { code: 1000.into(), reason: "".into() };
        let Link::Socket(ws) = &mut self.link else { panic!("a long-poll session has no close frame") };
        within("close", ws.as_mut().close(Some(normal))).await.unwrap();
        loop {
            match self.message().await {
                Some(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Some(_) => {}
                None => return None,
            }
        }
    }
}
