//! Server-sent events: a connection whose client only listens, to one topic with a log.
//!
//! The same `Socket` and `Outbox` as behind a WebSocket, and so the same replay, bounds and drain; what differs is that
//! the answer's body takes the messages out, whenever the HTTP connection has room for more, so that no task is needed.
//! Browsers come back by themselves, with the id of the last event that they got, unless they are answered with a
//! status that is an error. So what will pass is no error here: it is answered with a stream that says when to come
//! back, and ends. The invariant: a reader that is gone, or reads nothing, costs what its outbox holds for as long as
//! its HTTP connection lasts, which a client that reads nothing loses after a while.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::{Instant, Sleep};

use super::{
    State, Transport,
    connections::{NoRoom, Place},
};
use crate::{
    auth::Identity,
    channel::OutboxNext,
    protocol::{
        Payload, Serializer,
        codes::reason,
        event_stream::{self, Message},
    },
    socket::Socket,
    telemetry::trace::Trace,
};

/// A comment is sent this often, so that whatever is between does not take the stream for dead.
const BEAT: Duration = Duration::from_secs(15);
/// The comment.
const COMMENT: &[u8] = b":\n\n";
/// Messages are gathered up to about this size; a larger one is handed on by itself.
const GATHER: usize = 16 * 1024;
/// When a reader comes back after a break that was not announced, in milliseconds: spread, as one break may concern all.
const COME_BACK: (u64, u64) = (2_000, 4_000);
/// The same where this server is about to stop, or cannot answer now.
const COME_BACK_SOON: u64 = 1_000;
/// The same where there are as many connections as there may be.
const COME_BACK_LATER: u64 = 5_000;

/// A refusal that will not pass: why, in the words of the protocol, and a text for a person.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NotOpened {
    /// One of the protocol's reasons.
    pub reason: String,
    /// What to do about it.
    #[serde(default)]
    pub message: String,
}

impl State {
    /// Joins `topic` with these parameters for a reader that only listens, and answers with what it is shown.
    ///
    /// # Errors
    /// [`NotOpened`] where the same request would be refused again.
    pub async fn event_stream(&self, identity: Identity, topic: &str, params: Payload) -> Result<Response, NotOpened> {
        if let Err(why) = self.connections().check_room() {
            return Ok(no_room(why));
        }
        let socket = Arc::new(Socket::new(self.host(), Serializer::EventStream, identity).traced(Trace::current()));
        let place = match self.connections().enter(&socket, Transport::EventStream) {
            Ok(place) => place,
            Err(why) => return Ok(no_room(why)),
        };
        socket.join_for(topic, params);
        // A join is answered within its own time.
        socket.outbox().ready().await;
        let OutboxNext::Write(answer) = socket.outbox().next() else { return Ok(not_now()) };
        let text = answer.as_text().unwrap_or_default();
        match Message::of(text) {
            Message::Joined(epoch, text) => Ok(Reader::begin(socket, place, epoch, text)),
            Message::Refused(response) => refused(response),
            Message::Placed(_) | Message::Plain(_) | Message::End => Ok(not_now()),
        }
    }
}

/// The answer to a reader that cannot be served now, for whatever reason: it is asked to come back soon.
pub fn not_now() -> Response {
    come_back(COME_BACK_SOON)
}

fn no_room(why: NoRoom) -> Response {
    come_back(match why {
        NoRoom::Draining => COME_BACK_SOON,
        NoRoom::Full => COME_BACK_LATER,
    })
}

fn refused(response: &str) -> Result<Response, NotOpened> {
    let unknown = |_| NotOpened { reason: reason::UNAVAILABLE.to_owned(), message: String::new() };
    let refused: NotOpened = serde_json::from_str(response).unwrap_or_else(unknown);
    let passes = [reason::UNAVAILABLE, reason::DRAINING, reason::RATE_LIMITED];
    if passes.contains(&refused.reason.as_str()) { Ok(not_now()) } else { Err(refused) }
}

/// A stream that only says when to come back.
fn come_back(ms: u64) -> Response {
    response(Body::from(event_stream::retry(ms)))
}

fn response(body: Body) -> Response {
    const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that hold an answer back until it is complete are asked not to.
        (BUFFERING, "no"),
    ];
    (headers, body).into_response()
}

/// What an answer's body is made from.
struct Reader {
    socket: Arc<Socket>,
    /// What a message at a place in the log is written behind: `id: EPOCH:`.
    id: String,
    /// The next comment.
    beat: Pin<Box<Sleep>>,
    /// Gathered, not yet handed on.
    bytes: Vec<u8>,
    ended: bool,
    /// Given up after everything else.
    _place: Place,
}

impl Reader {
    fn begin(socket: Arc<Socket>, place: Place, epoch: &str, joined: &str) -> Response {
        let (from, to) = COME_BACK;
        let scattered = from + socket.id().0.wrapping_mul(2_654_435_761) % (to - from);
        let mut bytes = Vec::with_capacity(joined.len() + 32);
        bytes.extend_from_slice(format!("retry: {scattered}\n").as_bytes());
        bytes.extend_from_slice(joined.as_bytes());
        let beat = Box::pin(tokio::time::sleep(BEAT));
        let id = format!("id: {epoch}:");
        let reader = Self { socket, id, beat, bytes, ended: false, _place: place };
        let parts = futures::stream::unfold(reader, |mut reader| async move {
            let part = reader.next().await?;
            Some((Ok::<_, Infallible>(part), reader))
        });
        response(Body::from_stream(parts))
    }

    /// What is to be written next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.gather();
            if !self.bytes.is_empty() {
                return Some(Bytes::from(std::mem::take(&mut self.bytes)));
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                biased;
                () = self.socket.outbox().ready() => {}
                () = self.beat.as_mut() => {
                    self.beat.as_mut().reset(Instant::now() + BEAT);
                    self.bytes.extend_from_slice(COMMENT);
                }
            }
        }
    }

    /// Takes out what waits, as much as is handed on at once.
    fn gather(&mut self) {
        while !self.ended && self.bytes.len() < GATHER {
            match self.socket.outbox().next() {
                OutboxNext::Write(wire) => self.add(wire.as_text().unwrap_or_default()),
                OutboxNext::Idle => return,
                OutboxNext::Close(_) => self.ended = true,
            }
        }
    }

    fn add(&mut self, text: &str) {
        match Message::of(text) {
            Message::Placed(text) => {
                self.bytes.reserve(self.id.len() + text.len());
                self.bytes.extend_from_slice(self.id.as_bytes());
                self.bytes.extend_from_slice(text.as_bytes());
            }
            Message::Plain(text) | Message::Joined(_, text) => self.bytes.extend_from_slice(text.as_bytes()),
            Message::Refused(_) | Message::End => self.ended = true,
        }
    }
}
