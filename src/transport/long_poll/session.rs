//! One long-polling client, and the request of its that waits.
//!
//! Knows no HTTP but the answers. Whoever ends a session closes its outbox; its task sees that, and a poll that waits is
//! answered. The invariant: frames go to one poll at a time, the newest, in their order, and none is taken out for a
//! poll that is not answered with it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::response::Response;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use super::{
    super::{Options, connections::Place},
    answer::{self, Messages},
};
use crate::{
    channel::{Closing, Outbox, OutboxNext},
    protocol::codes::close,
    socket::Socket,
};

/// An answer takes no more frames once it has this many bytes; the rest waits for the next poll.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// A client's connection.
pub(super) struct Session {
    token: String,
    socket: Arc<Socket>,
    window: Duration,
    /// How long the client may take to come for what it is shown before the end.
    patience: Duration,
    polls: Mutex<Polls>,
    /// Rung when a newer poll has begun.
    superseded: Notify,
    /// Held by the batch that is being taken: the next one is not even read before.
    batch: Semaphore,
    /// Given up after everything else.
    _place: Place,
}

struct Polls {
    /// The number of the newest.
    newest: u64,
    /// When one last began or ended.
    seen: Instant,
}

/// What a poll finds.
enum Found {
    Frames(Messages),
    Nothing,
    Superseded,
    Gone,
}

impl Session {
    pub(super) fn new(token: String, socket: Arc<Socket>, place: Place, options: &Options) -> Self {
        Self {
            token,
            socket,
            window: options.poll_window,
            patience: options.close_timeout,
            polls: Mutex::new(Polls { newest: 0, seen: Instant::now() }),
            superseded: Notify::new(),
            batch: Semaphore::new(1),
            _place: place,
        }
    }

    /// Its name, which only its client knows.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// How long a request of it may wait.
    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// The right to hand in a batch.
    pub(super) fn batch(&self) -> &Semaphore {
        &self.batch
    }

    /// Waits until the session has ended: closed by whomever, or not polled for one and a half windows. A client that is
    /// still to be shown something before the end has a moment to come for it.
    pub(super) async fn end(&self) {
        let outbox = self.socket.outbox();
        let told = async {
            outbox.closing().await;
            if outbox.bytes() > 0 {
                tokio::time::sleep(self.patience).await;
            }
        };
        tokio::select! {
            () = outbox.cut() => {}
            () = told => {}
            () = self.forgotten() => {}
        }
        outbox.close(close::PROTOCOL, "the client has stopped polling");
    }

    async fn forgotten(&self) {
        loop {
            let due = self.polls().seen + self.window.mul_f64(1.5);
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }

    /// How the session was ended, if what waited for its client is dropped.
    pub(super) fn closing(&self) -> Option<Closing> {
        let outbox = self.socket.outbox();
        if !outbox.is_cut() {
            return None;
        }
        match outbox.next() {
            OutboxNext::Close(closing) => Some(closing),
            OutboxNext::Write(_) | OutboxNext::Idle => None,
        }
    }

    /// What waits for the poll of this number. Frames are taken out here, and nothing is waited for between here and
    /// the answer.
    fn take(&self, number: u64) -> Found {
        let polls = self.polls();
        if polls.newest != number {
            return Found::Superseded;
        }
        let (outbox, mut messages) = (self.socket.outbox(), Messages::new());
        while messages.len() < MAX_ANSWER_BYTES {
            match outbox.next() {
                OutboxNext::Write(wire) => messages.add(&wire),
                OutboxNext::Idle => break,
                OutboxNext::Close(Closing { code, reason, .. }) => {
                    // All that was to be written first is written: nothing keeps the session any longer.
                    outbox.close(code, reason);
                    if messages.is_empty() {
                        return Found::Gone;
                    }
                    break;
                }
            }
        }
        if messages.is_empty() { Found::Nothing } else { Found::Frames(messages) }
    }

    async fn superseded(&self, number: u64) {
        loop {
            let rung = self.superseded.notified();
            if self.polls().newest != number {
                return;
            }
            rung.await;
        }
    }

    fn polls(&self) -> MutexGuard<'_, Polls> {
        self.polls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for frames.
pub(super) struct Poll {
    session: Arc<Session>,
    number: u64,
}

impl Poll {
    /// Begins to wait; one that waits already is answered that nothing has come.
    pub(super) fn begin(session: Arc<Session>) -> Self {
        let number = {
            let mut polls = session.polls();
            polls.newest += 1;
            polls.seen = Instant::now();
            polls.newest
        };
        session.superseded.notify_waiters();
        Self { session, number }
    }

    /// The answer: as soon as there is something to fetch, or at the end of the window. Cancel safe: what is not
    /// answered stays where it is.
    pub(super) async fn answer(self) -> Response {
        let (session, token) = (&self.session, self.session.token());
        let window = tokio::time::sleep(session.window);
        tokio::pin!(window);
        loop {
            tokio::select! {
                biased;
                () = session.superseded(self.number) => return answer::nothing(token),
                () = self.outbox().ready() => {}
                () = window.as_mut() => return answer::nothing(token),
            }
            match session.take(self.number) {
                Found::Frames(messages) => return answer::frames(token, messages),
                Found::Superseded => return answer::nothing(token),
                Found::Gone => return answer::ended(),
                Found::Nothing => {}
            }
        }
    }

    fn outbox(&self) -> &Outbox {
        self.session.socket.outbox()
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        self.session.polls().seen = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;

    use super::{
        super::super::{Options, Refused, State, long_poll::Sessions},
        *,
    };
    use crate::{
        auth::Identity,
        channel::{self, Host},
        protocol::{Serializer, Text, Wire},
        pubsub::PubSub,
        telemetry::trace::Trace,
    };

    fn session() -> Arc<Session> {
        let host = Host::new(channel::Router::new(), PubSub::new(), channel::Options::default());
        let state = State::new(host, Arc::new(|_| Err(Refused::default()).into()), Options::default());
        Sessions::open(&state, Serializer::V2, Identity::open(None, None).unwrap(), Trace::default()).unwrap()
    }

    async fn body(response: Response) -> String {
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        String::from_utf8(body.into()).unwrap()
    }

    #[tokio::test]
    async fn a_poll_that_is_dropped_while_it_waits_takes_nothing() {
        let session = session();
        let mut dropped = Box::pin(Poll::begin(Arc::clone(&session)).answer());
        assert!(dropped.as_mut().now_or_never().is_none());
        session.socket().outbox().push(Wire::Text(Text::from("[1]".to_owned())));
        drop(dropped);
        let answer = body(Poll::begin(session).answer().await).await;
        assert!(answer.contains(r#""messages":["[1]"]"#), "{answer}");
    }

    #[tokio::test]
    async fn an_older_poll_takes_nothing_from_a_newer_one() {
        let session = session();
        let older = Poll::begin(Arc::clone(&session)).answer();
        let newer = Poll::begin(Arc::clone(&session)).answer();
        session.socket().outbox().push(Wire::Text(Text::from("[1]".to_owned())));
        assert!(body(older.await).await.contains("204"));
        assert!(body(newer.await).await.contains("[1]"));
    }

    #[tokio::test]
    async fn a_poll_that_waits_is_small() {
        let waiting = Poll::begin(session()).answer();
        assert!(size_of_val(&waiting) <= 512, "{} bytes", size_of_val(&waiting));
    }
}
