//! A bus over LISTEN and NOTIFY, for servers that share a Postgres database and want no other service.
//!
//! Knows no session and no store: two connections of its own, one that listens and one that notifies, never inside
//! anybody's transaction. Topics share [`SHARDS`] channels by their digest, and a node listens to those of its members.
//! With a channel per topic every first join and last leave would be a LISTEN, which takes a lock that all notifiers
//! wait for; with one for all, every node would be sent everything. Postgres wakes each listening backend for every
//! notification all the same; the channels spare the network and the nodes, not that.
//! Its invariant: notifications of one flush go in one statement, and what is too long for one lies in a table.

use std::{
    collections::HashMap,
    error::Error as StdError,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::{
    ConnectOptions as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::time;

use super::{
    Bus, NodeId,
    bus::{Address, Error, Incoming, Inward, Outward, Parcel, Result, Sent},
    pack::{self, Frame},
};

/// Channels over which topics are spread.
const SHARDS: u64 = 64;
/// What one notification carries; Postgres refuses 8,000 bytes.
const LONGEST: usize = 7_900;
/// The node says something to itself this often.
const ECHO: Duration = Duration::from_secs(10);
/// A node that has not even heard itself for this long is not connected any more.
const SILENCE: Duration = Duration::from_secs(30);
/// How long large frames are kept for those who have been told of them.
const KEEP: Duration = Duration::from_secs(60);

/// The bus of a Postgres database.
pub struct Postgres {
    options: PgConnectOptions,
    at: String,
}

impl Postgres {
    /// The bus of the database at `url`, which must lead to Postgres itself: a pooler that gives a connection per
    /// transaction passes no notifications on.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(url: &str) -> std::result::Result<Self, String> {
        let options: PgConnectOptions =
            url.parse().map_err(|error| format!("give a URL such as postgres://user@host/database ({error})"))?;
        let at = format!("postgres://{}:{}", options.get_host(), options.get_port());
        Ok(Self { options: options.application_name("rejoin bus").disable_statement_logging(), at })
    }

    fn unreachable(&self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        Error::Unreachable { at: self.at.clone(), source: source.into() }
    }

    async fn open(&self, node: &NodeId) -> std::result::Result<(Sender, Listener), sqlx::Error> {
        let mut connection = self.options.connect().await?;
        // Nobody waits for a disk to have a notification.
        sqlx::raw_sql("SET synchronous_commit = off").execute(&mut connection).await?;
        let schema: String = sqlx::query_scalar("SELECT current_schema()::text").fetch_one(&mut connection).await?;
        let table: Option<String> =
            sqlx::query_scalar("SELECT to_regclass('rejoin_bus')::text").fetch_one(&mut connection).await?;
        if table.is_none() {
            sqlx::raw_sql(TABLE).execute(&mut connection).await?;
        }
        let channels = Channels { prefix: format!("rejoin_{:08x}", pack::digest(&schema) & 0xffff_ffff) };
        let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let pool = Box::pin(pool.connect_with(self.options.clone())).await?;
        let mut listener = Box::pin(PgListener::connect_with(&pool)).await?;
        listener.eager_reconnect(false);
        let own = channels.of(&Address::Node(node.clone()));
        let everyone = channels.of(&Address::Everyone);
        Box::pin(listener.listen_all([own.as_str(), everyone.as_str()])).await?;
        let (said, swept) = (Instant::now(), None);
        let sender = Sender { connection, channels: channels.clone(), node: node.clone(), own, said, swept };
        let shards = HashMap::new();
        Ok((sender, Listener { listener, channels, shards, heard: time::Instant::now(), large: None }))
    }
}

/// Frames that are too long for a notification. Unlogged: after a crash of the database nobody asks for them. The lock
/// lets nodes that start at once make it one after the other.
const TABLE: &str = "BEGIN; SELECT pg_advisory_xact_lock(7594180632174);
    CREATE UNLOGGED TABLE IF NOT EXISTS rejoin_bus (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT now(),
        frame text NOT NULL
    );
    COMMIT";

/// What stands before the number of a large frame, in the place of a frame.
const LARGE: char = '#';

#[async_trait]
impl Bus for Postgres {
    async fn connect(&self, node: &NodeId) -> Result<(Box<dyn Outward>, Box<dyn Inward>)> {
        let (sender, listener) = Box::pin(self.open(node)).await.map_err(|error| self.unreachable(error))?;
        Ok((Box::new(sender), Box::new(listener)))
    }
}

/// The names of channels. Those of two schemas of one database differ: they are two clusters.
#[derive(Clone)]
struct Channels {
    prefix: String,
}

impl Channels {
    fn of(&self, to: &Address) -> String {
        let prefix = &self.prefix;
        match to {
            Address::Topic(topic) => format!("{prefix}_t{}", pack::digest(topic) % SHARDS),
            Address::Everyone => format!("{prefix}_all"),
            // A node's name may be longer than a channel's.
            Address::Node(node) => format!("{prefix}_n{:016x}", pack::digest(&node.0)),
        }
    }

    fn of_topic(&self, topic: &Arc<str>) -> String {
        self.of(&Address::Topic(Arc::clone(topic)))
    }
}

struct Sender {
    connection: PgConnection,
    channels: Channels,
    node: NodeId,
    /// This node's own channel.
    own: String,
    /// When it last said something to itself.
    said: Instant,
    swept: Option<Instant>,
}

impl Sender {
    async fn notify(&mut self, frames: Vec<Frame>) -> Result<()> {
        let (mut to, mut texts): (Vec<_>, Vec<_>) = frames.into_iter().map(|frame| (frame.to, frame.text)).unzip();
        if self.said.elapsed() >= ECHO {
            to.push(self.own.clone());
            texts.push(String::new());
        }
        sqlx::query("SELECT pg_notify(c, t) FROM unnest($1::text[], $2::text[]) AS n (c, t)")
            .bind(&to)
            .bind(&texts)
            .execute(&mut self.connection)
            .await
            .map_err(Error::lost("notifying"))?;
        if to.last() == Some(&self.own) {
            self.said = Instant::now();
        }
        Ok(())
    }

    /// Puts a frame into the table; what stands for it.
    async fn put_down(&mut self, frame: &str) -> Result<String> {
        let id: i64 = sqlx::query_scalar("INSERT INTO rejoin_bus (frame) VALUES ($1) RETURNING id")
            .bind(frame)
            .fetch_one(&mut self.connection)
            .await
            .map_err(Error::lost("putting down a large frame"))?;
        if self.swept.is_none_or(|swept| swept.elapsed() > KEEP) {
            self.swept = Some(Instant::now());
            sqlx::query("DELETE FROM rejoin_bus WHERE at < now() - make_interval(secs => $1)")
                .bind(KEEP.as_secs_f64())
                .execute(&mut self.connection)
                .await
                .map_err(Error::lost("sweeping large frames"))?;
        }
        Ok(format!("{LARGE}{id}"))
    }
}

#[async_trait]
impl Outward for Sender {
    async fn send(&mut self, parcels: &[Parcel]) -> Result<Sent> {
        let mut frames = pack::pack(&self.node, parcels, LONGEST, |to| self.channels.of(to));
        for frame in &mut frames {
            if frame.text.len() > LONGEST {
                frame.text = self.put_down(&frame.text).await?;
            }
        }
        self.notify(frames).await?;
        Ok(Sent::default())
    }

    async fn keep_alive(&mut self) -> Result<()> {
        self.notify(Vec::new()).await
    }
}

struct Listener {
    listener: PgListener,
    channels: Channels,
    /// How many topics of this node lie in each channel that is listened to.
    shards: HashMap<String, usize>,
    heard: time::Instant,
    /// A large frame that is to be read before anything else.
    large: Option<i64>,
}

impl Listener {
    /// Reads the large frame that was told of. One that has been swept is a gap.
    async fn pick_up(&mut self, id: i64) -> Result<Incoming> {
        let row = sqlx::query("SELECT frame FROM rejoin_bus WHERE id = $1").bind(id).fetch_optional(&mut self.listener);
        let row = row.await.map_err(Error::lost("reading a large frame"))?;
        self.large = None;
        let frame = row.and_then(|row| row.try_get::<String, _>(0).ok());
        Ok(frame.map_or(Incoming::Gap, |frame| Incoming::Frame(frame.into())))
    }
}

#[async_trait]
impl Inward for Listener {
    async fn listen(&mut self, more: &[Arc<str>], fewer: &[Arc<str>]) -> Result<Vec<Arc<str>>> {
        let mut fresh: HashMap<String, Vec<Arc<str>>> = HashMap::new();
        for topic in more {
            let channel = self.channels.of_topic(topic);
            let topics = self.shards.entry(channel.clone()).or_default();
            *topics += 1;
            if *topics == 1 || fresh.contains_key(&channel) {
                fresh.entry(channel).or_default().push(Arc::clone(topic));
            }
        }
        if !fresh.is_empty() {
            let names = fresh.keys().map(String::as_str);
            Box::pin(self.listener.listen_all(names)).await.map_err(Error::lost("listening"))?;
        }
        for topic in fewer {
            let channel = self.channels.of_topic(topic);
            let topics = self.shards.entry(channel.clone()).or_insert(1);
            *topics -= 1;
            if *topics == 0 {
                self.shards.remove(&channel);
                self.listener.unlisten(&channel).await.map_err(Error::lost("listening"))?;
            }
        }
        Ok(fresh.into_values().flatten().collect())
    }

    async fn receive(&mut self) -> Result<Incoming> {
        loop {
            if let Some(id) = self.large {
                return self.pick_up(id).await;
            }
            let heard = time::timeout_at(self.heard + SILENCE, Box::pin(self.listener.try_recv())).await;
            let silent = "listening: nothing was heard; where the database is reached through a pooler, set bus-url to \
                          Postgres itself";
            let notification = heard.map_err(|_| Error::broken(silent))?.map_err(Error::lost("listening"))?;
            let notification = notification.ok_or(Error::broken("listening"))?;
            self.heard = time::Instant::now();
            let payload = notification.payload();
            if let Some(id) = payload.strip_prefix(LARGE) {
                match id.parse() {
                    Ok(id) => self.large = Some(id),
                    Err(_) => return Ok(Incoming::Gap),
                }
            } else if !payload.is_empty() {
                return Ok(Incoming::Frame(Bytes::copy_from_slice(payload.as_bytes())));
            }
        }
    }
}
