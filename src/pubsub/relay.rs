//! The task that keeps a node on its bus: connects, sends what waits, hands out what comes, and connects again.
//!
//! Knows no form of bus and no session. It tries for ever, with a growing pause and chance in it, so that the nodes of
//! a cluster do not come back all at once. Its invariant: whenever something may have been lost — a connection, an
//! overflow, a slow reader — the watchers of this node are told, and the other nodes where it was this node's to send.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinHandle, time};
use tokio_util::sync::CancellationToken;

use super::{
    Bus, Gap, Kind, NodeId, PubSub, Published, Status,
    bus::{self, Error, Incoming, Inward, Outward, Parcel},
    envelope::{self, Content, Envelope},
    outgoing::{MaxWaiting, Outgoing},
    window::Windows,
};
use crate::ids;

/// How a node is on a bus.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Names the log that this node's records belong to, the same for all nodes that share it. Nothing where no other
    /// node can share it: then records and the ends of topics stay on this node.
    pub scope: Option<Arc<str>>,
    /// How much may wait to be sent.
    pub max_waiting: MaxWaiting,
}

/// A connection, or one exchange on it, may take this long.
const CALL: Duration = Duration::from_secs(10);
/// The connection is tested when nothing was sent for this long.
const QUIET: Duration = Duration::from_secs(10);
/// The pause after a first failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Connections that one batch may break.
const MAX_TRIES: u32 = 3;
/// How long the end waits for what is still to be sent.
const LAST_SENDING: Duration = Duration::from_secs(2);

/// The running task. Dropping it leaves the task running; the server stops it.
pub struct Relay {
    stop: CancellationToken,
    task: JoinHandle<()>,
    outgoing: Arc<Outgoing>,
}

impl Relay {
    pub(super) fn start(pubsub: PubSub, bus: Arc<dyn Bus>, outgoing: Arc<Outgoing>) -> Self {
        let stop = CancellationToken::new();
        let task = Task {
            pubsub,
            outgoing: outgoing.clone(),
            stop: stop.clone(),
            windows: Windows::default(),
            unsent: Vec::new(),
            tries: 0,
            was_connected: false,
        };
        let task = tokio::spawn(task.run(bus));
        Self { stop, task, outgoing }
    }

    /// Waits until the bus is connected, at most for `limit`. Whether it is.
    pub async fn connected(&self, limit: Duration) -> bool {
        let mut status = self.outgoing.follow_status();
        let connected = status.wait_for(|status| *status == Status::Connected);
        matches!(time::timeout(limit, connected).await, Ok(Ok(_)))
    }

    /// Sends what waits, leaves the bus, and waits for the end of the task; bounded by a few seconds.
    pub async fn stop(self) {
        self.stop.cancel();
        let mut task = self.task;
        if time::timeout(2 * LAST_SENDING, &mut task).await.is_err() {
            tracing::warn!("the bus did not take the last messages in time");
            task.abort();
        }
    }
}

struct Task {
    pubsub: PubSub,
    outgoing: Arc<Outgoing>,
    stop: CancellationToken,
    windows: Windows,
    /// Taken out of the queue, and not known to be sent.
    unsent: Vec<Parcel>,
    /// Connections that broke while these were to be sent.
    tries: u32,
    was_connected: bool,
}

impl Task {
    async fn run(mut self, bus: Arc<dyn Bus>) {
        let mut failures = 0;
        loop {
            let stop = self.stop.clone();
            let connected = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                connected = time::timeout(CALL, bus.connect(self.outgoing.node())) => connected,
            };
            let began = Instant::now();
            let error = match connected {
                Ok(Ok((outward, inward))) => match self.serve(outward, inward).await {
                    Ok(()) => return,
                    Err(error) => {
                        self.give_up_what_breaks();
                        error
                    }
                },
                Ok(Err(error)) => error,
                Err(_) => Error::broken("connecting: there was no answer in time"),
            };
            // One that held for a while has mended whatever was wrong before.
            failures = if began.elapsed() > PAUSES.1 { 1 } else { failures + 1 };
            self.leave(&error, failures);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = time::sleep(pause(failures)) => {}
            }
        }
    }

    /// A connection broke. What was to be sent on several that did may be the reason, so it is left out, and the others
    /// learn that something is missing.
    fn give_up_what_breaks(&mut self) {
        self.tries = if self.unsent.is_empty() { 0 } else { self.tries + 1 };
        if self.tries >= MAX_TRIES {
            tracing::error!(messages = self.unsent.len(), "the bus breaks whenever these are sent: leaving them out");
            let dropped = u64::try_from(self.unsent.len()).unwrap_or(0);
            self.outgoing.count(|counts| counts.dropped += dropped);
            self.unsent.clear();
            self.tries = 0;
        }
    }

    /// The connection is gone, or there was none.
    fn leave(&mut self, error: &Error, failures: u32) {
        let source = std::error::Error::source(error).map(ToString::to_string);
        let was_there = self.outgoing.status() == Status::Connected;
        if was_there || failures == 1 {
            tracing::warn!(%error, source, "this node is not on the bus: other nodes' events reach it late");
        } else {
            tracing::debug!(%error, source, failures, "the bus could not be reached again");
        }
        self.outgoing.set_status(Status::Away);
        self.pubsub.inner.interest.hear(false);
        if was_there {
            tell(&self.pubsub, &self.outgoing, &Gap::Everything);
        }
    }

    /// Serves one connection until it fails, or the end was asked for.
    async fn serve(&mut self, mut outward: Box<dyn Outward>, mut inward: Box<dyn Inward>) -> bus::Result<()> {
        self.pubsub.inner.interest.hear(true);
        let topics = self.pubsub.topic_names();
        call("listening", inward.listen(&topics, &[])).await?;
        if self.was_connected {
            // What was under way when the last connection broke may be lost, and only this node knows it.
            self.outgoing.mark_gap();
        }
        self.was_connected = true;
        self.outgoing.set_status(Status::Connected);
        tracing::info!(node = %self.outgoing.node(), topics = topics.len(), "this node is on the bus");
        tell(&self.pubsub, &self.outgoing, &Gap::Everything);
        let Self { pubsub, outgoing, stop, windows, unsent, .. } = self;
        let sending = send(outgoing, stop, unsent, &mut *outward);
        let mut receiving = Receiving { pubsub, outgoing, windows, heard: topics.into_iter().collect() };
        tokio::select! {
            sent = sending => sent,
            error = receiving.run(&mut *inward) => Err(error),
        }
    }
}

fn tell(pubsub: &PubSub, outgoing: &Outgoing, gap: &Gap) {
    outgoing.count(|counts| counts.gaps += 1);
    pubsub.inner.watchers.tell(gap);
}

/// A pause that doubles with each failure, of which a part is chance.
fn pause(failures: u32) -> Duration {
    let (first, longest) = PAUSES;
    let full = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    let chance = u32::try_from(ids::beat().unsigned_abs() % 1_000).unwrap_or(0);
    full / 2 + full / 2 * chance / 1_000
}

async fn call<T>(doing: &'static str, work: impl Future<Output = bus::Result<T>>) -> bus::Result<T> {
    time::timeout(CALL, work).await.unwrap_or(Err(Error::broken(doing)))
}

/// Sends until the end is asked for and nothing waits any more. What an error leaves in `unsent` is sent again.
async fn send(
    outgoing: &Outgoing,
    stop: &CancellationToken,
    unsent: &mut Vec<Parcel>,
    outward: &mut dyn Outward,
) -> bus::Result<()> {
    let mut last = None;
    loop {
        if unsent.is_empty() {
            *unsent = tokio::select! {
                biased;
                batch = outgoing.take() => batch,
                () = stop.cancelled() => return Ok(()),
                () = time::sleep(QUIET) => Vec::new(),
            };
        }
        if unsent.is_empty() {
            call("testing the connection", outward.keep_alive()).await?;
            continue;
        }
        let sent = call("sending", outward.send(unsent)).await?;
        let (taken, refused) = (unsent.len(), sent.refused);
        unsent.clear();
        outgoing.count(|counts| {
            counts.sent += u64::try_from(taken - refused.min(taken)).unwrap_or(0);
            counts.dropped += u64::try_from(refused).unwrap_or(0);
        });
        if stop.is_cancelled() && *last.get_or_insert_with(Instant::now) + LAST_SENDING < Instant::now() {
            return Ok(());
        }
    }
}

/// What comes in from one connection.
struct Receiving<'a> {
    pubsub: &'a PubSub,
    outgoing: &'a Outgoing,
    windows: &'a mut Windows,
    /// The topics that the bus listens to.
    heard: HashSet<Arc<str>>,
}

impl Receiving<'_> {
    async fn run(&mut self, inward: &mut dyn Inward) -> Error {
        loop {
            let next = tokio::select! {
                biased;
                changed = self.pubsub.inner.interest.changed() => Next::Interest(changed),
                incoming = inward.receive() => Next::Incoming(incoming),
            };
            match next {
                Next::Interest(changed) => {
                    if let Err(error) = self.listen(inward, changed).await {
                        return error;
                    }
                }
                Next::Incoming(Ok(Incoming::Frame(frame))) => self.take(&frame),
                Next::Incoming(Ok(Incoming::Gap)) => self.tell(&Gap::Everything),
                Next::Incoming(Err(error)) => return error,
            }
        }
    }

    /// Listens to what has a subscriber now and had none, and the other way round.
    async fn listen(&mut self, inward: &mut dyn Inward, changed: Vec<Arc<str>>) -> bus::Result<()> {
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|topic| self.pubsub.inner.topics.contains_key(topic));
        let more: Vec<_> = wanted.into_iter().filter(|topic| self.heard.insert(Arc::clone(topic))).collect();
        let fewer: Vec<_> = unwanted.into_iter().filter(|topic| self.heard.remove(topic)).collect();
        let late = call("listening", inward.listen(&more, &fewer)).await?;
        if !late.is_empty() {
            self.pubsub.inner.watchers.tell(&Gap::Topics(late));
        }
        Ok(())
    }

    fn take(&mut self, frame: &[u8]) {
        let Some((from, envelopes, whole)) = envelope::read(frame) else {
            tracing::debug!(bytes = frame.len(), "a frame on the bus is of another version and is left out");
            return;
        };
        if from == *self.outgoing.node() {
            return;
        }
        let mut taken = 0;
        for Envelope { number, content } in envelopes {
            if self.windows.is_new(&from, number) {
                taken += 1;
                self.hand_out(&from, content);
            }
        }
        self.outgoing.count(|counts| counts.received += taken);
        if !whole {
            tracing::warn!(%from, "a frame on the bus cannot be read to its end");
            self.tell(&Gap::Node(from));
        }
    }

    fn hand_out(&self, from: &NodeId, content: Content) {
        match content {
            Content::Publish { scope, message } => {
                let shared = scope.is_some() && scope.as_deref() == self.outgoing.scope();
                if shared || message.kind == Kind::Ephemeral {
                    self.deliver(message);
                }
            }
            Content::Say { name, body } => {
                let receiver = self.pubsub.inner.receivers.get(&*name).and_then(|receiver| receiver.upgrade());
                if let Some(receiver) = receiver {
                    receiver.receive(from, body);
                }
            }
            Content::Gap { name: Some(name) } => self.tell(&Gap::Messages { from: from.clone(), name }),
            Content::Gap { name: None } => self.tell(&Gap::Node(from.clone())),
        }
    }

    fn deliver(&self, message: Published) {
        let message = Arc::new(message);
        self.pubsub.deliver(message.broadcast.topic(), &message);
    }

    fn tell(&self, gap: &Gap) {
        tell(self.pubsub, self.outgoing, gap);
    }
}

enum Next {
    Interest(Vec<Arc<str>>),
    Incoming(bus::Result<Incoming>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        for (failures, full) in [(1, 100), (2, 200), (4, 800), (7, 5_000), (40, 5_000)] {
            let full = Duration::from_millis(full);
            for _ in 0..20 {
                let pause = pause(failures);
                assert!(pause >= full / 2 && pause <= full, "{failures}: {pause:?}");
            }
        }
        let all: HashSet<_> = (0..50).map(|_| pause(7)).collect();
        assert!(all.len() > 10);
    }
}
