//! The one place where the parts are wired together: store, sessions, channels, transports, HTTP.
//!
//! [`run`] is the whole life of the program `rejoin serve`; [`Server`] is the same for those who embed it. Its
//! invariant is the order of beginning and end: no connection before what dead predecessors left is ended, and no
//! exit before every task that was begun is awaited or has had its time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    agent::{self, Registry, Secret},
    auth::{Keeper, Verifier},
    channel::{self, Host, Router},
    channels::{
        Renewals, Stage,
        admin::{self, Operators, Watch},
        room::{self, Shared as Rooms},
        session::{AgentsAtWork, Shared},
        sessions::List,
    },
    config::{self, Auth, Config, Database},
    http::{self, Api, Guard},
    metrics::{Metrics, Sources},
    model::{Node, NodeState},
    presence::{self, Cluster, ClusterOptions, Flusher, Roster, Tracker},
    pubsub::{self, PubSub, Relay},
    session::{self, Sessions},
    shutdown::Shutdown,
    store::{self, Postgres, Sqlite, Store, postgres, sqlite},
    telemetry::trace::{self, Traces},
    transport::{self, Origins},
};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: choose a free address with --listen, or port 0 for any free port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An agent cannot be made.
    #[error(transparent)]
    Agent(#[from] agent::Error),
    /// The address of the bus is none.
    #[error("bus: {0}")]
    Bus(String),
    /// Traces cannot be sent where they are to go.
    #[error(transparent)]
    Traces(#[from] trace::Error),
    /// An entry of `allowed-origins` is none.
    #[error("allowed-origins: {0}")]
    Origins(#[from] transport::BadPattern),
    /// A second signal came while it drained.
    #[error("asked twice to end, and ended at once: turns that ran are ended by another node, or at the next start")]
    Hurried,
    /// The system does not let the process hear signals.
    #[error("signals cannot be handled")]
    Signals(#[source] std::io::Error),
}

/// How long the last steps of an end may take.
const LAST_STEPS: Duration = Duration::from_secs(5);
/// Clients come back over this time for each thousand of them that a drain closes.
const SPREAD_PER_THOUSAND: Duration = Duration::from_secs(1);

/// Runs a server from its ready line to its end by signal.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn run(config: Config) -> Result<(), Error> {
    let shutdown = Shutdown::on_signals().map_err(Error::Signals)?;
    transport::raise_file_limit();
    let traces = Traces::start(&config.node_name)?;
    let end = Box::pin(serve(config, &shutdown)).await;
    tokio::select! {
        biased;
        () = shutdown.now().cancelled() => {}
        () = traces.stop() => {}
    }
    shutdown.finish();
    end
}

async fn serve(config: Config, shutdown: &Shutdown) -> Result<(), Error> {
    let server = tokio::select! {
        server = Box::pin(Server::start(config)) => server?,
        // Asked to end before it was ready: there is nothing to drain.
        () = shutdown.drain().cancelled() => return Ok(()),
    };
    #[expect(clippy::print_stdout, reason = "the ready line, the one thing that is printed there")]
    {
        println!("rejoin listening on http://{}", server.address());
    }
    shutdown.drain().cancelled().await;
    tokio::select! {
        () = server.stop() => Ok(()),
        () = shutdown.now().cancelled() => Err(Error::Hurried),
    }
}

/// Brings the schema of the configured store up to date; with `new_history` also begins a new history, after which no
/// cursor of the time before is honoured.
///
/// # Errors
/// Whatever keeps the store from being written, another server that uses it among them.
pub async fn migrate(config: &Config, new_history: bool) -> Result<(), Error> {
    let store = open(config, true).await?;
    if new_history {
        let history = store.new_history().await?;
        tracing::info!(history, "a new history has begun: every client starts from a snapshot");
    }
    store.close().await;
    Ok(())
}

async fn open(config: &Config, migrate: bool) -> Result<Arc<dyn Store>, Error> {
    let connections = u32::try_from(config.database_pool).unwrap_or(u32::MAX);
    Ok(match &config.database {
        Database::Sqlite(path) => {
            Arc::new(Sqlite::open(path, &sqlite::Options { readers: connections, migrate }).await?)
        }
        Database::Postgres(url) => {
            // A lock is given up before its holder could be taken for dead.
            let lock_limit = config.lease_renew;
            let transaction_pooling = may_be_pooled(&config.bus, url);
            let options = postgres::Options {
                connections,
                migrate,
                lock_limit,
                transaction_pooling,
                ..postgres::Options::default()
            };
            Arc::new(Postgres::open(url.expose(), &options).await?)
        }
    })
}

/// Whether the store's address may be that of a proxy that pools transactions: where LISTEN does not need it.
fn may_be_pooled(bus: &config::Bus, url: &Secret) -> bool {
    match bus {
        config::Bus::Local => false,
        config::Bus::Postgres(direct) => direct != url,
        config::Bus::Nats(_) => true,
    }
}

/// The topics of this node, and what keeps it on its bus. Nodes share a log where they share the store.
fn topics(config: &Config, store: &dyn Store) -> Result<(PubSub, Option<Relay>), Error> {
    let bus: Arc<dyn pubsub::Bus> = match &config.bus {
        config::Bus::Local => return Ok((PubSub::new(), None)),
        config::Bus::Postgres(url) => Arc::new(pubsub::Postgres::new(url.expose()).map_err(Error::Bus)?),
        config::Bus::Nats(url) => Arc::new(pubsub::Nats::new(url.expose()).map_err(Error::Bus)?),
    };
    let (pubsub, relay) = PubSub::start(bus, pubsub::Options { scope: store.scope(), ..pubsub::Options::default() });
    Ok((pubsub, Some(relay)))
}

/// How long a start waits for the bus before it goes on without.
const BUS_PATIENCE: Duration = Duration::from_secs(2);

/// Presence is shared with nodes that share the store: its rows say which of them live.
fn presence_options(store: &dyn Store, has_bus: bool) -> presence::Options {
    presence::Options { shared: has_bus && store.scope().is_some(), ..presence::Options::default() }
}

/// Shares presence with the other nodes, and waits for what they show, so that the first to join sees everybody.
async fn cluster(presence: &Tracker, pubsub: &PubSub, sessions: &Sessions, store: &dyn Store) -> Option<Cluster> {
    let options = ClusterOptions { scope: store.scope()? };
    let cluster = Cluster::start(presence.clone(), pubsub.clone(), sessions.nodes(), roster, &options)?;
    let missing = cluster.settled().await;
    if missing > 0 {
        tracing::warn!(nodes = missing, "not every node has told who is there; it is asked for again");
    }
    Some(cluster)
}

fn roster(nodes: &session::Nodes) -> Roster {
    let dead = |row: &Node| (row.owner.incarnation.clone(), row.state == NodeState::Dead);
    Roster { own: nodes.own.clone(), rows: nodes.rows.iter().map(dead).collect(), asked: nodes.asked }
}

/// A server that serves.
pub struct Server {
    address: SocketAddr,
    sessions: Sessions,
    store: Arc<dyn Store>,
    host: Host,
    transport: transport::State,
    /// Answers that are on their way.
    answers: TaskTracker,
    /// Keeps this node on its bus.
    relay: Option<Relay>,
    /// Shares presence with the other nodes.
    cluster: Option<Cluster>,
    /// Publishes changes of presence.
    flusher: Flusher,
    /// Looks for operators.
    watch: Watch,
    /// Reads the keys for tokens.
    keeper: Option<Keeper>,
    /// Ends the listener.
    listener: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    drain_timeout: Duration,
}

impl Server {
    /// Opens the store, ends what dead predecessors left running, and listens. When this returns it is ready.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let agents = Registry::build(&config.agent, &config.agents)?;
        Self::start_with(config, agents).await
    }

    /// As [`Server::start`], with agents of one's own: the library's way in.
    ///
    /// # Errors
    /// Whatever keeps it from starting.
    pub async fn start_with(config: Config, agents: Registry) -> Result<Self, Error> {
        let origins = Origins::parse(config.allowed_origins.as_deref().unwrap_or_default())?;
        // Listening first: a second server on the same address must not touch the store.
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|source| Error::Listen { address: config.listen, source })?;
        let address = listener.local_addr().map_err(|source| Error::Listen { address: config.listen, source })?;
        let store = open(&config, config.migrate).await?;
        let (verifier, keeper) = verifier(&config.auth).await;
        let ((pubsub, relay), answers) = (topics(&config, &*store)?, TaskTracker::new());
        if let Some(relay) = &relay {
            // One that cannot be reached is tried on, and has said so.
            relay.connected(BUS_PATIENCE).await;
        }
        let (presence, flusher) = Tracker::start(pubsub.clone(), presence_options(&*store, relay.is_some()));
        let observer = Arc::new(AgentsAtWork::new(presence.clone(), &config.node_name));
        let sessions =
            Sessions::start(store.clone(), pubsub.clone(), agents, observer, session_options(&config)).await?;
        let cluster = cluster(&presence, &pubsub, &sessions, &*store).await;
        let renewals = Renewals::new(verifier.clone());
        let stage = Stage::new(presence.clone(), &config.node_name, renewals.clone());
        let shared = Shared::new(sessions.clone(), stage.clone(), answers.clone());
        let operators = Operators::new(sessions.clone(), renewals.clone(), answers.clone());
        let list = List::new(sessions.clone(), renewals);
        let router = router(shared, list, Rooms::new(stage), operators.clone());
        let host = Host::new(router, pubsub, channel_options(&config));
        let watch = operators.watch(host.clone(), store.scope().as_deref());
        let (connect, reviews) = (transport::identify(verifier.clone()), verifier.wants_token());
        let transport = transport::State::new(host.clone(), connect, transport_options(&config, origins.clone()));
        let clients = transport.connections().clone();
        sessions.count_clients(Arc::new(move || clients.count()));
        let guard = Guard { origins, loopback: config.listen.ip().is_loopback() };
        let metrics = Metrics::new(Sources {
            sessions: sessions.clone(),
            store: store.clone(),
            host: host.clone(),
            presence: presence.clone(),
            connections: transport.connections().clone(),
            lobby: transport.lobby().clone(),
        });
        let streams = transport.clone();
        let api = Api::new(sessions.clone(), verifier, host.clone(), streams, presence, metrics.clone(), guard);
        let api = http::traced(api.limited(config.rate_limit).routes(config.max_message_bytes + BODY_BESIDE));
        let routes = http::metrics::counted(transport::routes(transport.clone()).merge(api), metrics);
        let token = CancellationToken::new();
        let serving = transport::serve(listener, routes, transport.lobby().clone(), token.clone());
        let reviewing = transport.connections().clone().review(REVIEW, token.clone());
        let serving = tokio::spawn(async move {
            // Nobody's time is ever over where no tokens are asked for.
            if reviews {
                tokio::join!(serving, reviewing);
            } else {
                serving.await;
            }
        });
        let drain_timeout = config.drain_timeout;
        Ok(Self {
            address,
            sessions,
            store,
            host,
            transport,
            answers,
            relay,
            cluster,
            flusher,
            watch,
            keeper,
            listener: token,
            serving,
            drain_timeout,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Its connections.
    pub fn connections(&self) -> &transport::Connections {
        self.transport.connections()
    }

    /// Drains and ends: no new turns and no new sockets, connections closed over a while, running turns finished or,
    /// when `drain-timeout` is over, cancelled as `shutdown`. Does not wait if nothing runs.
    pub async fn stop(self) {
        let connections = self.transport.connections();
        connections.refuse_new();
        self.sessions.drain().await;
        let running: Vec<String> =
            self.sessions.running_sessions().iter().map(|session| session::topic_of(session)).collect();
        let spread = spread(connections.count(), self.drain_timeout);
        let watches = |topic: &str| running.iter().any(|running| running == topic);
        tokio::join!(connections.drain(spread, watches), Box::pin(self.sessions.shut_down(self.drain_timeout)));
        self.answers.close();
        let ended = tokio::time::timeout(LAST_STEPS, self.answers.wait()).await.is_ok();
        if !self.host.finished(LAST_STEPS).await || !ended {
            tracing::warn!("some channels did not end in time");
        }
        if tokio::time::timeout(LAST_STEPS, self.flusher.stop()).await.is_err() {
            tracing::warn!("some changes of presence were not told in time");
        }
        if tokio::time::timeout(LAST_STEPS, self.watch.stop()).await.is_err() {
            tracing::warn!("the look for operators did not end in time");
        }
        if let Some(cluster) = self.cluster
            && tokio::time::timeout(LAST_STEPS, cluster.stop()).await.is_err()
        {
            tracing::warn!("the other nodes were not told in time that nobody is here any more");
        }
        if let Some(relay) = self.relay {
            relay.stop().await;
        }
        if let Some(keeper) = self.keeper {
            keeper.stop().await;
        }
        self.listener.cancel();
        if tokio::time::timeout(LAST_STEPS, self.serving).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
        self.store.close().await;
    }
}

/// How often connections are looked at for tokens that have run out, or were renewed.
const REVIEW: Duration = Duration::from_millis(250);

/// How long a start waits for the keys that tokens are checked with before it goes on without.
const KEYS_PATIENCE: Duration = Duration::from_secs(5);

/// Who says for whom clients speak. Without keys it serves all the same, is not ready, and says so.
async fn verifier(auth: &Auth) -> (Verifier, Option<Keeper>) {
    let Auth::Jwt(options) = auth else { return (Verifier::open(), None) };
    let (verifier, keeper) = Verifier::start(*options.clone());
    if !verifier.ready_within(KEYS_PATIENCE).await {
        let problem = verifier.problem().unwrap_or_default();
        tracing::error!(problem, "there are no keys to check tokens with: it is not ready, and tries on");
    }
    (verifier, keeper)
}

/// Which channel serves which topic.
fn router(sessions: Shared, list: List, rooms: Rooms, operators: Operators) -> Router {
    Router::new()
        .route(&format!("{}*", session::TOPIC_PREFIX), move || sessions.channel())
        .route_closed(session::LIST_TOPIC, move || list.channel())
        .route_closed(admin::TOPIC, move || operators.channel())
        .route(&format!("{}*", room::TOPIC_PREFIX), move || rooms.channel())
}

/// What an HTTP body may hold beside a message's content.
const BODY_BESIDE: usize = 64 * 1024;

fn spread(connections: usize, drain_timeout: Duration) -> Duration {
    let thousands = u32::try_from(connections).unwrap_or(u32::MAX);
    (SPREAD_PER_THOUSAND.saturating_mul(thousands) / 1_000).min(drain_timeout / 2)
}

fn session_options(config: &Config) -> session::Options {
    session::Options {
        node_name: config.node_name.clone(),
        exclusive_node_name: config.exclusive_node_name,
        lease_ttl: config.lease_ttl,
        lease_renew: config.lease_renew,
        delta_window: config.delta_window,
        max_queue: config.max_queue,
        agent_idle_timeout: config.agent_idle_timeout,
        turn_timeout: config.turn_timeout,
        max_message_bytes: config.max_message_bytes,
    }
}

fn channel_options(config: &Config) -> channel::Options {
    channel::Options {
        max_queue_bytes: config.max_queue_bytes,
        max_topics: config.max_topics,
        rate_limit: config.rate_limit,
        join_limit: config.join_limit,
        ..channel::Options::default()
    }
}

fn transport_options(config: &Config, origins: Origins) -> transport::Options {
    transport::Options {
        max_connections: config.max_connections,
        max_streams: transport::max_streams(config.database_pool),
        max_handshakes: config.max_handshakes,
        open_rate: config.rate_limit,
        max_frame_bytes: config.max_frame_bytes,
        idle_timeout: config.idle_timeout,
        origins,
        loopback: config.listen.ip().is_loopback(),
        auth_token: matches!(config.auth, Auth::Jwt(_)),
        ..transport::Options::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_sent_away_over_a_second_for_each_thousand_and_at_most_half_the_drain() {
        let drain = Duration::from_secs(20);
        assert_eq!(spread(0, drain), Duration::ZERO);
        assert_eq!(spread(500, drain), Duration::from_millis(500));
        assert_eq!(spread(3_000, drain), Duration::from_secs(3));
        assert_eq!(spread(1_000_000, drain), Duration::from_secs(10));
    }
}
