//! Several nodes in this process that share one store, each with its own way to the bus: what is between them is the
//! bus alone.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rejoin::{
    agent::Registry,
    clock::Timestamp,
    ids::Incarnation,
    model::{Message, Node, Person, Turn, machine::Asker, machine::Session},
    protocol::Payload,
    pubsub::{Bus, Kind, Options as BusOptions, PubSub, Published, Relay, Subscriber, Subscription},
    session::{self, Sessions, TurnObserver, topic_of},
    store::{
        self, AtWork, Committed, Compacted, Cut, From, Item, ListQuery, Messages, NewNode, PageLimits, Pick, Purged,
        Renewal, Sqlite, Store, Stretch, sqlite,
    },
};
use tempfile::TempDir;

/// A head that a test makes up.
pub(crate) type Lie = (Arc<str>, String, u64);

/// One store, as if it were on a server of its own.
#[derive(Clone)]
pub(crate) struct SharedStore {
    store: Arc<Sqlite>,
    /// What comparing heads shows instead of the truth.
    pub(crate) lie: Arc<Mutex<Option<Vec<Lie>>>>,
    /// How many of the next reads of an agent's context find the store away.
    pub(crate) away: Arc<AtomicUsize>,
    picked: Arc<AtomicUsize>,
    _folder: Arc<TempDir>,
}

impl SharedStore {
    pub(crate) async fn open() -> Self {
        let folder = TempDir::new().unwrap();
        let options = sqlite::Options { readers: 4, migrate: true };
        let store = Sqlite::open(&folder.path().join("rejoin.db"), &options).await.unwrap();
        Self {
            store: Arc::new(store),
            lie: Arc::default(),
            away: Arc::default(),
            picked: Arc::default(),
            _folder: Arc::new(folder),
        }
    }
}

impl SharedStore {
    /// How often sessions were picked out.
    pub(crate) fn picked(&self) -> usize {
        self.picked.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Store for SharedStore {
    async fn commit(&self, batch: Arc<Vec<Item>>) -> store::Result<Committed> {
        self.store.commit(batch).await
    }

    async fn start_node(&self, node: NewNode) -> store::Result<()> {
        // The start of one node proves nothing about the others here.
        self.store.start_node(NewNode { process_start: false, ..node }).await
    }

    async fn renew(&self, node: &Incarnation, beat: i64, connections: u64) -> store::Result<Renewal> {
        self.store.renew(node, beat, connections).await
    }

    async fn drain_node(&self, node: &Incarnation) -> store::Result<bool> {
        self.store.drain_node(node).await
    }

    async fn bury_node(&self, node: &Incarnation, beat: Option<i64>) -> store::Result<bool> {
        self.store.bury_node(node, beat).await
    }

    async fn heads(&self, sessions: &[Arc<str>]) -> store::Result<Vec<(Arc<str>, String, u64)>> {
        let truth = self.store.heads(sessions).await?;
        Ok(self.lie.lock().unwrap().clone().unwrap_or(truth))
    }

    fn scope(&self) -> Option<Arc<str>> {
        Some("shared".into())
    }

    async fn needs_work(&self, limit: usize) -> store::Result<Vec<Arc<str>>> {
        self.store.needs_work(limit).await
    }

    async fn at_work(&self) -> store::Result<AtWork> {
        self.store.at_work().await
    }

    async fn waiting(&self) -> store::Result<store::Waiting> {
        self.store.waiting().await
    }

    async fn lost(&self, limit: usize) -> store::Result<Vec<store::LostTurn>> {
        self.store.lost(limit).await
    }

    fn pool(&self) -> store::Pool {
        self.store.pool()
    }

    async fn cut(&self, session: &str, from: Option<From>, limits: PageLimits) -> store::Result<Option<Cut>> {
        self.store.cut(session, from, limits).await
    }

    async fn stretch(&self, session: &str, epoch: &str, after: u64, bytes: usize) -> store::Result<Option<Stretch>> {
        self.store.stretch(session, epoch, after, bytes).await
    }

    async fn history(&self, session: &str, before: u64, limits: PageLimits) -> store::Result<Option<Messages>> {
        self.store.history(session, before, limits).await
    }

    async fn context(&self, session: &str, turn_id: &str, limit: usize) -> store::Result<Vec<Message>> {
        let take = |left: usize| left.checked_sub(1);
        if self.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            return Err(store::Error::Unavailable { doing: "being away", source: None });
        }
        self.store.context(session, turn_id, limit).await
    }

    async fn list(&self, query: &ListQuery) -> store::Result<Vec<Session>> {
        self.store.list(query).await
    }

    async fn pick(&self, pick: &Pick) -> store::Result<Vec<Session>> {
        self.picked.fetch_add(1, Ordering::Relaxed);
        self.store.pick(pick).await
    }

    async fn nodes(&self) -> store::Result<Vec<Node>> {
        self.store.nodes().await
    }

    async fn compact(&self, ended_before: Timestamp, limit: usize) -> store::Result<Compacted> {
        self.store.compact(ended_before, limit).await
    }

    async fn deleted(&self, session: &str, epoch: &str) -> store::Result<Option<Person>> {
        self.store.deleted(session, epoch).await
    }

    async fn purge(&self, limit: usize, forget_before: Timestamp) -> store::Result<Purged> {
        self.store.purge(limit, forget_before).await
    }

    async fn new_history(&self) -> store::Result<String> {
        self.store.new_history().await
    }

    async fn close(&self) {}
}

struct Nobody;

impl TurnObserver for Nobody {
    fn started(&self, _session: &str, _turn: &Turn) {}
    fn ended(&self, _session: &str, _turn: &Turn) {}
}

/// What a member on a node is handed.
#[derive(Default)]
pub(crate) struct Member {
    seen: Mutex<Vec<Arc<Published>>>,
}

impl Subscriber for Member {
    fn deliver(&self, message: &Arc<Published>) {
        self.seen.lock().unwrap().push(message.clone());
    }
}

impl Member {
    /// What it was handed, in order.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        self.seen.lock().unwrap().iter().map(|message| message.kind).collect()
    }

    /// What the last message carries, as text.
    pub(crate) fn last_payload(&self) -> String {
        let seen = self.seen.lock().unwrap();
        seen.last().and_then(|message| message.broadcast.payload().as_json()).unwrap_or_default().to_owned()
    }

    /// The records that it was handed, as text.
    pub(crate) fn records(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let logged = seen.iter().filter(|message| matches!(message.kind, Kind::Logged { .. }));
        let text = |payload: &Payload| payload.as_json().unwrap().to_owned();
        logged.map(|message| text(message.broadcast.payload())).collect()
    }
}

/// One node.
pub(crate) struct ClusterNode {
    pub(crate) sessions: Sessions,
    pub(crate) pubsub: PubSub,
    pub(crate) relay: Relay,
}

impl ClusterNode {
    /// A node whose lease is renewed so seldom that a test which is quick has not been helped by a renewal.
    pub(crate) async fn start(store: &SharedStore, bus: Arc<dyn Bus>, agents: Registry) -> Self {
        let (pubsub, relay) = PubSub::start(bus, BusOptions { scope: store.scope(), ..BusOptions::default() });
        let options = session::Options {
            node_name: "n".to_owned(),
            exclusive_node_name: false,
            lease_ttl: Duration::from_secs(300),
            lease_renew: Duration::from_secs(60),
            delta_window: Duration::ZERO,
            max_queue: 100,
            agent_idle_timeout: Duration::from_secs(60),
            turn_timeout: Duration::from_secs(600),
            max_message_bytes: 1 << 20,
        };
        let sessions =
            Sessions::start(Arc::new(store.clone()), pubsub.clone(), agents, Arc::new(Nobody), options).await.unwrap();
        Self { sessions, pubsub, relay }
    }

    /// A member of a session, as its channel would be one.
    pub(crate) async fn join(&self, session: &str) -> (Arc<Member>, Subscription, session::Joined) {
        let member = Arc::<Member>::default();
        let subscription = self.pubsub.subscribe(&topic_of(session), member.clone());
        let from = From::Start(store::SnapshotReason::FirstJoin);
        let joined = self.sessions.join(session, from, true).await.unwrap();
        (member, subscription, joined)
    }

    /// Sends a text and waits until it is durable; the turn that answers it, if `answer`.
    pub(crate) async fn send(&self, session: &str, text: &str, answer: bool) -> Option<String> {
        let payload = serde_json::json!({ "text": text, "answer": answer }).to_string();
        let send = session::Send::parse(&payload).unwrap();
        self.sessions.send(session, somebody(), send).await.unwrap().await.unwrap().turn_id
    }

    pub(crate) async fn stop(self) {
        self.sessions.shut_down(Duration::ZERO).await;
        self.relay.stop().await;
    }
}

/// Who asks for everything in these tests.
pub(crate) fn somebody() -> Asker {
    Asker { person: Person { id: "u1".to_owned(), name: "Ada".to_owned() }, admin: true }
}
