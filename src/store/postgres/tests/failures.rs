//! A network that fails in the middle of a write: what is written again is there once.

use super::{super::*, server::server, tcp_proxy::TcpProxy};
use crate::{
    ids,
    model::{
        EventKind, Owner, Part, PartKind, Person, Turn,
        event::{self, Data},
        fold::Delta,
        machine::{Asker, DeltaEvent, Done, End, Fence, NewTurn, Op, WhenBusy},
    },
};

struct Setting {
    store: Postgres,
    proxy: TcpProxy,
    node: Owner,
}

impl Setting {
    async fn new(pooled: bool) -> Self {
        let server = server();
        let database = server.database().await;
        let proxy = TcpProxy::start(server.port()).await;
        let url = server.tcp_url(proxy.port(), &database);
        let options = Options { transaction_pooling: pooled, patience: Duration::from_secs(3), ..Options::default() };
        let store = Postgres::open(&url, &options).await.unwrap();
        let node = Owner { node: "a".to_owned(), incarnation: Incarnation::mint() };
        let row = NewNode { owner: node.clone(), beat: 1, lease_ttl_ms: 6_000, exclusive: false, process_start: true };
        store.start_node(row).await.unwrap();
        Self { store, proxy, node }
    }

    async fn try_write(&self, op: &Op) -> Result<Committed> {
        let item = Item { session: "s".into(), node: Some(self.node.clone()), op: Arc::new(op.clone()) };
        self.store.commit(Arc::new(vec![item])).await
    }

    /// Writes, with the answer to the commit lost; then writes the same again. The second answer.
    async fn twice(&self, op: Op) -> Committed {
        self.proxy.lose_answer_to(b"COMMIT\0");
        let lost = self.try_write(&op).await;
        assert!(matches!(lost, Err(Error::Unavailable { .. })), "{lost:?}");
        assert!(self.proxy.has_lost_it());
        let again = self.try_write(&op).await.unwrap();
        assert!(again.outcomes[0].is_ok(), "{:?}", again.outcomes);
        assert!(again.appended.is_empty(), "it was there: {:?}", again.appended);
        again
    }

    async fn head(&self) -> u64 {
        self.store.cut("s", None, PageLimits::default()).await.unwrap().unwrap().session.last_seq
    }
}

fn create() -> Op {
    Op::Create { epoch: ids::short(), title: None, metadata: None, max_running: None, must_be_new: false }
}

fn asker() -> Asker {
    Asker { person: Person { id: "ada".into(), name: "Ada".into() }, admin: false }
}

fn send(id: &str) -> Op {
    Op::Send {
        message_id: id.into(),
        parts: vec![Part::text("x")],
        turn: Some(NewTurn { id: ids::fresh(), reply_id: ids::fresh(), agent: "echo".into() }),
        when_busy: WhenBusy::Queue,
        max_queue: 10,
        asker: asker(),
    }
}

fn append(turn: &Turn, flush: u64) -> Op {
    let delta = Delta { part: 0, kind: PartKind::Text, text: Some("word ".into()), value: None };
    let body = event::body(EventKind::TurnDelta, Timestamp(0), None, Some(&turn.id), &Data::Delta(&delta));
    Op::Append { fence: fence(turn, flush), deltas: vec![DeltaEvent { delta, body }], chunk: None }
}

fn fence(turn: &Turn, flush: u64) -> Fence {
    let incarnation = turn.owner.as_ref().unwrap().incarnation.clone();
    Fence { turn_id: turn.id.clone(), incarnation, term: turn.term, flush }
}

#[tokio::test]
async fn l4_what_was_committed_without_an_answer_is_there_once() {
    let setting = Setting::new(true).await;
    setting.twice(create()).await;
    let sent = setting.twice(send("m1")).await;
    let turn = sent.outcomes[0].as_ref().unwrap().started[0].clone();
    assert_eq!(setting.head().await, 2);
    for flush in 0..3 {
        let appended = setting.twice(append(&turn, flush)).await;
        assert_eq!(appended.outcomes[0].as_ref().unwrap().done, Done::Appended { intent: false });
        assert_eq!(setting.head().await, 3 + flush);
    }
    let cancel = Op::Cancel { turn_id: turn.id.clone(), asker: asker() };
    assert_eq!(setting.twice(cancel).await.outcomes[0].as_ref().unwrap().done, Done::Intended { term: 1 });
    let parts = vec![Part::text("word word word ")];
    let end = Op::Finish { fence: fence(&turn, 3), deltas: Vec::new(), parts, end: End::Intent };
    let ended = setting.twice(end).await;
    assert!(matches!(ended.outcomes[0].as_ref().unwrap().done, Done::Ended { now: false, .. }));
    assert_eq!(setting.head().await, 6, "message, start, three deltas, end");
}

#[tokio::test]
async fn a_lost_answer_to_deltas_is_asked_for_again_at_once() {
    let setting = Setting::new(false).await;
    setting.try_write(&create()).await.unwrap();
    let turn = setting.try_write(&send("m1")).await.unwrap().outcomes.remove(0).unwrap().started.remove(0);
    setting.try_write(&append(&turn, 0)).await.unwrap();
    setting.proxy.lose_answer_to(b"word");
    let committed = setting.try_write(&append(&turn, 1)).await.unwrap();
    assert_eq!(committed.outcomes[0].as_ref().unwrap().done, Done::Appended { intent: false });
    assert!(setting.proxy.has_lost_it());
    assert_eq!(setting.head().await, 4, "once");
}

#[tokio::test]
async fn o2_a_renewal_comes_back_by_itself_after_every_kind_of_failure() {
    let setting = Setting::new(false).await;
    let own = &setting.node.incarnation;
    let renewed = async || setting.store.renew(own, ids::beat(), 0).await.is_ok_and(|renewal| renewal.renewed);
    assert!(renewed().await);
    setting.proxy.cut();
    assert!(renewed().await, "what was cut while it was idle is connected anew");
    setting.proxy.refuse(true);
    setting.proxy.cut();
    assert!(!renewed().await);
    setting.proxy.refuse(false);
    assert!(renewed().await);
    setting.proxy.go_silent(true);
    assert!(!renewed().await, "a silence has a limit");
    assert!(setting.try_write(&create()).await.is_err());
    setting.proxy.go_silent(false);
    setting.proxy.delay(Duration::from_millis(5));
    assert!(renewed().await);
    setting.try_write(&create()).await.unwrap();
    assert_eq!(setting.head().await, 0);
}

#[tokio::test]
async fn no_lock_outlives_a_client_that_has_gone_silent() {
    let setting = Setting::new(true).await;
    let admin = &mut server().admin(&database_of(&setting).await).await;
    setting.try_write(&create()).await.unwrap();
    // It falls silent inside a transaction, with the session locked, and stays connected.
    let item = Item { session: "s".into(), node: None, op: Arc::new(send("m1")) };
    let begin = Begin::Write(Duration::from_millis(300));
    let mut held = setting.store.small.begin("holding a session", begin).await.unwrap();
    let locked = load::lock_sessions(held.db(), &[&item], false).await.unwrap();
    assert_eq!(locked.len(), 1);
    let ended = async {
        let holders = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND state = 'idle in transaction'";
        while sqlx::query_scalar::<_, i64>(holders).fetch_one(&mut *admin).await.unwrap() > 0 {}
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the server did not end it");
    assert!(setting.try_write(&send("m2")).await.unwrap().outcomes[0].is_ok());
}

async fn database_of(setting: &Setting) -> String {
    let mut loan = setting.store.small.begin("looking", Begin::Read).await.unwrap();
    let name = sqlx::query_scalar("SELECT current_database()::text").fetch_one(loan.db()).await;
    loan.end(name.map_err(Error::in_postgres("looking"))).await.unwrap()
}
