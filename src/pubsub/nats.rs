//! A bus over NATS: a subject per topic, one for all nodes, one for each node.
//!
//! Knows no session. The server brings a topic's frames only to nodes that listen to it. The client's own attempts to
//! come back are not used: when the connection breaks this one ends, and the task that owns it makes another, so that
//! a gap is told in one place. Its invariant: when [`Inward::listen`] returns, the server has taken the subscriptions.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{Client, ConnectOptions, Event, Message, Subscriber, client::RequestErrorKind};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use futures::{
    StreamExt,
    stream::{BoxStream, SelectAll},
};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Bus, NodeId,
    bus::{Address, Error, Incoming, Inward, Outward, Parcel, Result, Sent},
    pack,
};

/// The longest frame that holds more than one envelope, and the longest record that is sent whole.
const LONGEST: usize = 256 * 1024;
/// Topics up to this length stand in their subject; of longer ones a digest does.
const LONGEST_TOPIC: usize = 512;
/// Frames that wait for this node, for one subject. Beyond, frames are lost and a gap is told.
const INBOX: usize = 8_192;
/// How often the server is asked whether it is there; two questions without an answer end the connection.
const PING: Duration = Duration::from_secs(10);
/// The first token of every subject where the address names none.
const DEFAULT_NAME: &str = "rejoin";

/// A bus at one NATS address.
pub struct Nats {
    server: String,
    /// The address without a password.
    at: String,
    subjects: Subjects,
}

impl Nats {
    /// The bus at `nats://HOST:PORT` or `tls://HOST:PORT`. A path is the name of the cluster, which keeps several
    /// apart that share a server: one word of letters, digits, `_` and `-`.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn new(url: &str) -> std::result::Result<Self, String> {
        let rule = "give nats://host:4222, or nats://host:4222/name to share a server with another cluster";
        let (scheme, rest) = url.split_once("://").ok_or(rule)?;
        let (server, name) = rest.split_once('/').unwrap_or((rest, ""));
        let name = if name.is_empty() { DEFAULT_NAME } else { name };
        let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let host = server.rsplit_once('@').map_or(server, |(_, host)| host);
        if !matches!(scheme, "nats" | "tls") || host.is_empty() || !is_word || name.len() > 64 {
            return Err(rule.to_owned());
        }
        let server = format!("{scheme}://{server}");
        if server.parse::<async_nats::ServerAddr>().is_err() {
            return Err(rule.to_owned());
        }
        Ok(Self { server, at: format!("{scheme}://{host}"), subjects: Subjects { name: name.to_owned() } })
    }
}

/// The names of subjects.
#[derive(Clone)]
struct Subjects {
    name: String,
}

impl Subjects {
    /// Any text is a valid topic, but a subject has no spaces and some signs mean more in it.
    fn of(&self, to: &Address) -> String {
        let name = &self.name;
        match to {
            Address::Topic(topic) if (1..=LONGEST_TOPIC).contains(&topic.len()) => {
                format!("{name}.t.{}", BASE64.encode(&**topic))
            }
            Address::Topic(topic) => format!("{name}.h.{:016x}", pack::digest(topic)),
            Address::Everyone => format!("{name}.all"),
            Address::Node(node) => format!("{name}.n.{}", BASE64.encode(&*node.0)),
        }
    }

    /// Nobody listens to it, which the server answers at once.
    fn nobody(&self) -> String {
        format!("{}.nobody", self.name)
    }
}

#[async_trait]
impl Bus for Nats {
    async fn connect(&self, node: &NodeId) -> Result<(Box<dyn Outward>, Box<dyn Inward>)> {
        let (tell, events) = mpsc::channel(64);
        let options = ConnectOptions::new()
            .name("rejoin")
            .no_echo()
            .ping_interval(PING)
            .connection_timeout(Duration::from_secs(5))
            .subscription_capacity(INBOX)
            .max_reconnects(1)
            .event_callback(move |event| {
                // The queue is full of news of which any will do.
                let _full = tell.try_send(event);
                std::future::ready(())
            });
        let client = Box::pin(options.connect(self.server.as_str()))
            .await
            .map_err(|error| Error::Unreachable { at: self.at.clone(), source: Box::new(error) })?;
        let subjects = self.subjects.clone();
        let outward = Sender { client: client.clone(), node: node.clone(), subjects: subjects.clone() };
        let mut inward = Listener { client, subjects, events, topics: HashMap::new(), frames: SelectAll::new() };
        for address in [Address::Everyone, Address::Node(node.clone())] {
            let subscriber = inward.subscribe(&address).await?;
            inward.frames.push(subscriber.boxed());
        }
        inward.taken().await?;
        Ok((Box::new(outward), Box::new(inward)))
    }
}

struct Sender {
    client: Client,
    node: NodeId,
    subjects: Subjects,
}

#[async_trait]
impl Outward for Sender {
    async fn send(&mut self, parcels: &[Parcel]) -> Result<Sent> {
        let most = self.client.server_info().max_payload;
        let mut sent = Sent::default();
        for frame in pack::pack(&self.node, parcels, LONGEST.min(most), |to| self.subjects.of(to)) {
            let size = frame.text.len();
            if size > most {
                tracing::warn!(size, most, "a message is larger than the NATS server takes: raise its max_payload");
                sent.refused += 1;
                continue;
            }
            self.client.publish(frame.to, frame.text.into()).await.map_err(Error::lost("publishing"))?;
        }
        self.client.flush().await.map_err(Error::lost("publishing"))?;
        Ok(sent)
    }
}

struct Listener {
    client: Client,
    subjects: Subjects,
    events: mpsc::Receiver<Event>,
    /// The topics that are listened to; taking one out ends its subscription.
    topics: HashMap<Arc<str>, DropGuard>,
    frames: SelectAll<BoxStream<'static, Message>>,
}

impl Listener {
    async fn subscribe(&mut self, to: &Address) -> Result<Subscriber> {
        self.client.subscribe(self.subjects.of(to)).await.map_err(Error::lost("subscribing"))
    }

    /// Waits until the server has done what it was asked before: it answers in order.
    async fn taken(&mut self) -> Result<()> {
        match self.client.request(self.subjects.nobody(), Default::default()).await {
            Err(error) if error.kind() != RequestErrorKind::NoResponders => Err(Error::lost("subscribing")(error)),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Inward for Listener {
    async fn listen(&mut self, more: &[Arc<str>], fewer: &[Arc<str>]) -> Result<Vec<Arc<str>>> {
        for topic in fewer {
            self.topics.remove(topic);
        }
        let began = Instant::now();
        for topic in more {
            let subscriber = self.subscribe(&Address::Topic(Arc::clone(topic))).await?;
            let end = CancellationToken::new();
            self.frames.push(subscriber.take_until(end.clone().cancelled_owned()).boxed());
            self.topics.insert(Arc::clone(topic), end.drop_guard());
        }
        if !more.is_empty() {
            self.taken().await?;
            tracing::debug!(topics = more.len(), took = ?began.elapsed(), "listening to more topics");
        }
        Ok(more.to_vec())
    }

    async fn receive(&mut self) -> Result<Incoming> {
        loop {
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Some(Event::SlowConsumer(_)) => return Ok(Incoming::Gap),
                    None | Some(Event::Disconnected | Event::Closed) => return Err(Error::broken("receiving")),
                    Some(Event::ServerError(error)) => tracing::warn!(%error, "the NATS server objects"),
                    Some(Event::ClientError(error)) => tracing::warn!(%error, "the NATS client objects"),
                    Some(Event::Connected | Event::LameDuckMode | Event::Draining) => {}
                },
                message = self.frames.next() => match message {
                    Some(message) => return Ok(Incoming::Frame(message.payload)),
                    None => return Err(Error::broken("receiving")),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_shown_without_a_password() {
        let bus = Nats::new("nats://u:p@localhost:4222/my-cluster").unwrap();
        assert_eq!((bus.at.as_str(), bus.subjects.name.as_str()), ("nats://localhost:4222", "my-cluster"));
        assert_eq!(Nats::new("tls://nats.example.com").unwrap().subjects.name, "rejoin");
        for bad in ["", "nats", "nats://", "nats:///x", "http://h", "nats://h/a.b", "nats://h/a/b", "nats://h/*"] {
            assert!(Nats::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_topic_is_one_token_and_no_two_short_ones_share_it() {
        let subjects = Subjects { name: "rejoin".to_owned() };
        let long = "x".repeat(100_000);
        let topics = ["room:a", "room:a.b", "room:*", "room:>", "room: \r\n", "session:ü😀", "", &long];
        let all: std::collections::HashSet<_> =
            topics.iter().map(|topic| subjects.of(&Address::Topic((*topic).into()))).collect();
        assert_eq!(all.len(), topics.len());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        for subject in all {
            let token = subject.splitn(3, '.').nth(2).unwrap();
            assert!(token.bytes().all(plain) && token.len() < 1_000, "{subject}");
        }
    }
}
