//! Sessions: the durable log, the turns that answer it, and the lease under which this node owns its turns.
//!
//! Knows no connection, no frame and no presence: a channel or an HTTP handler asks it, and what it appends it
//! publishes on the session's topic. Its invariant is the whole product's: a turn that the store shows as running is
//! run by a live owner, or is being ended, once, with what it streamed.

mod deletion;
mod error;
mod heads;
mod judge;
mod lease;
mod live_list;
mod log;
mod nodes;
mod owner;
mod recovery;
mod requests;
mod snapshot;
mod tally;
mod wake;
mod work;

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::requests::{SendFields, UpdateFields, fields, lenient_fields};
use self::{
    deletion::Deletion,
    judge::Judge,
    log::{Hooks, Log},
    owner::Runners,
};
pub use self::{
    error::Error,
    live_list::{Change, Changes, TOPIC as LIST_TOPIC, Watched},
    nodes::{Connections, NodeList, NodeName, NodeSummary},
    requests::{CancelAnswer, Parts, RetryAnswer, Send, SendAnswer, Update},
    snapshot::{History, Joined, Page, Summary},
    tally::{AgentTally, Counter, Pulse, Tally},
};
use crate::{
    agent::Registry,
    ids::{self, Incarnation},
    model::{
        Node, Owner, Turn,
        machine::{Applied, Op},
        turn::Liveness,
    },
    pubsub::{PubSub, Status, Watcher},
    store::{self, Item, NewNode, Store},
};

/// How sessions behave; see the server's options of the same names.
#[derive(Debug, Clone)]
pub struct Options {
    /// The label of this node.
    pub node_name: String,
    /// The operator's promise that the label is never used twice at once.
    pub exclusive_node_name: bool,
    /// How long a lease lasts.
    pub lease_ttl: Duration,
    /// How often it is renewed.
    pub lease_renew: Duration,
    /// How long deltas of one turn are gathered into one event; zero leaves each alone.
    pub delta_window: Duration,
    /// How many turns of one session may wait.
    pub max_queue: usize,
    /// How long an agent may be silent.
    pub agent_idle_timeout: Duration,
    /// How long a turn may take.
    pub turn_timeout: Duration,
    /// How large an answer may become, in bytes.
    pub max_message_bytes: usize,
}

/// Who is told when a turn begins and ends to run on this node: presence shows it.
pub trait TurnObserver: std::marker::Send + Sync + 'static {
    /// A turn runs here now.
    fn started(&self, session: &str, turn: &Turn);
    /// It runs here no more.
    fn ended(&self, session: &str, turn: &Turn);
}

/// What the topics of sessions begin with.
pub const TOPIC_PREFIX: &str = "session:";

/// The topic of a session.
pub fn topic_of(session: &str) -> String {
    format!("{TOPIC_PREFIX}{session}")
}

/// All sessions, as this node sees them. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    pubsub: PubSub,
    agents: Registry,
    observer: Arc<dyn TurnObserver>,
    options: Options,
    log: Log,
    tally: Arc<Tally>,
    runners: Runners,
    judge: Mutex<Judge>,
    movements: Mutex<nodes::Movements>,
    clients: nodes::Clients,
    seen: RwLock<Seen>,
    /// What others are to know of the newest look at the nodes.
    nodes: watch::Sender<Nodes>,
    heads: Arc<heads::Heads>,
    list: Arc<live_list::LiveList>,
    /// Rung for a renewal that does not wait for its time.
    renew_now: Notify,
    /// Rung when a deleted session is to be emptied.
    purge_now: Notify,
    _ears: wake::Ears,
    draining: AtomicBool,
    tasks: TaskTracker,
    /// Ends what repeats: renewals, sweeps, compaction.
    stop: CancellationToken,
    /// Ends the log's tasks, last of all.
    log_closed: CancellationToken,
}

/// What the last renewal showed.
#[derive(Debug, Clone)]
struct Seen {
    owner: Owner,
    nodes: Vec<Node>,
    /// When the last renewal that succeeded was answered.
    renewed: Instant,
    /// Whether the newest try succeeded.
    current: bool,
    history: String,
}

/// The rows of all nodes as a renewal read them, and which of them is this node.
#[derive(Debug, Clone)]
pub struct Nodes {
    /// This node. After a retirement it is a new one, whose row was written after the others were read.
    pub own: Incarnation,
    /// Every row.
    pub rows: Vec<Node>,
    /// A moment before they were read.
    pub asked: Instant,
}

impl Sessions {
    /// Registers this node, ends what its dead predecessors left running, and begins to renew the lease. When this
    /// returns, no session shows a turn whose owner is proved dead.
    ///
    /// # Errors
    /// Whatever keeps the store from being written.
    pub async fn start(
        store: Arc<dyn Store>,
        pubsub: PubSub,
        agents: Registry,
        observer: Arc<dyn TurnObserver>,
        options: Options,
    ) -> store::Result<Self> {
        let owner = Owner { node: options.node_name.clone(), incarnation: Incarnation::mint() };
        store.start_node(new_node(&owner, &options, true)).await?;
        let asked = Instant::now();
        let first = store.renew(&owner.incarnation, ids::beat(), 0).await?;
        let nodes = Nodes { own: owner.incarnation.clone(), rows: first.nodes.clone(), asked };
        let (tasks, log_closed) = (TaskTracker::new(), CancellationToken::new());
        let inner = Arc::new_cyclic(|weak: &std::sync::Weak<Inner>| {
            let runs = weak.clone();
            let deletes = weak.clone();
            let hooks = Hooks {
                started: Box::new(move |session: &Arc<str>, turn: Turn| {
                    if let Some(inner) = runs.upgrade() {
                        inner.run(session.clone(), turn);
                    }
                }),
                deleted: Box::new(move |deletion: &Deletion| {
                    if let Some(inner) = deletes.upgrade() {
                        inner.deleted(deletion);
                    }
                }),
            };
            let list = Arc::new(live_list::LiveList::new(store.scope()));
            let tally = Arc::new(Tally::new(&agents));
            let (log, lanes) = Log::start(&store, &pubsub, hooks, &list, &tally, &log_closed);
            for lane in lanes {
                tasks.spawn(lane);
            }
            let heads = Arc::new(heads::Heads::new(store.scope().is_some()));
            let ears = wake::Ears::open(&pubsub, weak);
            let watcher: Arc<dyn Watcher> = heads.clone();
            pubsub.watch(&watcher);
            let watcher: Arc<dyn Watcher> = list.clone();
            pubsub.watch(&watcher);
            Inner {
                store,
                pubsub,
                agents,
                observer,
                log,
                tally,
                runners: Runners::default(),
                judge: Mutex::new(Judge::new(options.lease_renew)),
                movements: Mutex::default(),
                clients: nodes::Clients::default(),
                seen: RwLock::new(Seen {
                    owner,
                    nodes: first.nodes,
                    renewed: Instant::now(),
                    current: true,
                    history: first.history,
                }),
                nodes: watch::Sender::new(nodes),
                heads,
                list,
                renew_now: Notify::new(),
                purge_now: Notify::new(),
                _ears: ears,
                options,
                draining: AtomicBool::new(false),
                tasks,
                stop: CancellationToken::new(),
                log_closed: log_closed.clone(),
            }
        });
        inner.movements(|movements| movements.observe(&inner.seen().nodes, Instant::now()));
        inner.recover_everything().await?;
        inner.tasks.spawn(lease::keep(inner.clone()));
        inner.tasks.spawn(recovery::compact(inner.clone()));
        inner.tasks.spawn(live_list::keep(inner.clone()));
        inner.tasks.spawn(deletion::purge(inner.clone()));
        if inner.store.scope().is_some() {
            inner.tasks.spawn(heads::keep(inner.clone()));
        }
        Ok(Self { inner })
    }

    /// This node, as it is known to others at this moment.
    pub fn owner(&self) -> Owner {
        self.inner.owner()
    }

    /// The nodes of the store, told anew with each renewal that worked and with each retirement of this one.
    pub fn nodes(&self) -> watch::Receiver<Nodes> {
        self.inner.nodes.subscribe()
    }

    /// Whether the store answered the newest renewal and this node may take turns.
    pub fn is_ready(&self) -> bool {
        let seen = self.inner.seen();
        seen.current && !self.is_draining() && seen.renewed.elapsed() < self.inner.options.lease_ttl
    }

    /// What waits in the store, on whatever node it was accepted.
    ///
    /// # Errors
    /// Whatever keeps the store from being read.
    pub async fn waiting(&self) -> store::Result<store::Waiting> {
        self.inner.store.waiting().await
    }

    /// How the bus between nodes is. Without it this node works, and learns late what others do.
    pub fn bus(&self) -> Status {
        self.inner.pubsub.status()
    }

    /// Whether the shutdown has begun.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// How many turns run here.
    pub fn running(&self) -> usize {
        self.inner.runners.len()
    }

    /// The sessions in which turns run here.
    pub fn running_sessions(&self) -> Vec<Arc<str>> {
        self.inner.runners.sessions()
    }

    /// The first step of a shutdown: no new turns start here. Running ones go on.
    pub async fn drain(&self) {
        self.inner.drain().await;
    }

    /// The last step: waits until nothing runs here or `patience` is over, cancels the rest as `shutdown` (T8), sets
    /// the node's own tombstone and ends every task. Bounded by `patience` and a few seconds.
    pub async fn shut_down(&self, patience: Duration) {
        self.inner.shut_down(patience).await;
    }
}

fn new_node(owner: &Owner, options: &Options, process_start: bool) -> NewNode {
    NewNode {
        owner: owner.clone(),
        beat: ids::beat(),
        lease_ttl_ms: u64::try_from(options.lease_ttl.as_millis()).unwrap_or(u64::MAX),
        exclusive: options.exclusive_node_name,
        process_start,
    }
}

impl Inner {
    fn seen(&self) -> Seen {
        self.seen.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn owner(&self) -> Owner {
        self.seen.read().unwrap_or_else(PoisonError::into_inner).owner.clone()
    }

    fn set_seen(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn judge<T>(&self, look: impl FnOnce(&mut Judge) -> T) -> T {
        look(&mut self.judge.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn movements<T>(&self, look: impl FnOnce(&mut nodes::Movements) -> T) -> T {
        look(&mut self.movements.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a turn's owner is seen moving at this moment.
    fn liveness(&self, turn: &Turn) -> Liveness {
        let Some(owner) = &turn.owner else { return Liveness::Alive };
        self.judge(|judge| judge.liveness(&owner.incarnation, Instant::now()))
    }

    /// An item that may start turns here, unless the node is leaving.
    fn item(&self, session: &Arc<str>, op: Op) -> Item {
        let node = (!self.draining.load(Ordering::Acquire)).then(|| self.owner());
        Item { session: session.clone(), node, op: Arc::new(op) }
    }

    /// Writes an item and waits; what refused or prevented it becomes the answer's error.
    async fn write(&self, session: &Arc<str>, op: Op) -> Result<Applied, Error> {
        self.submit(session, op).await.await
    }

    /// The same in two steps: the future that this yields, once the item has its place in the log's order, waits.
    async fn submit(
        &self,
        session: &Arc<str>,
        op: Op,
    ) -> impl Future<Output = Result<Applied, Error>> + std::marker::Send + use<> {
        let pending = self.log.submit(self.item(session, op)).await;
        async move { pending.answer().await.map_err(Error::from)?.map_err(Error::from) }
    }
}
