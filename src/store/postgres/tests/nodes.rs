//! What several servers on one database do to each other's nodes.

use std::time::Instant;

use futures::future::join_all;

use super::{super::*, intruder::Other, new_database, server::server};
use crate::{
    ids::{self, Incarnation},
    model::{NodeState, Owner},
    store::conformance::locks::Intruder,
};

async fn open() -> (Postgres, Other) {
    let (server, options) = (server(), Options { lock_limit: Duration::from_secs(20), ..Options::default() });
    let database = server.database().await;
    let store = Postgres::open(&server.url(super::server::OWNER, &database), &options).await.unwrap();
    (store, Box::pin(Other::on(&database)).await)
}

fn node(name: &str, exclusive: bool) -> NewNode {
    let owner = Owner { node: name.to_owned(), incarnation: Incarnation::mint() };
    NewNode { owner, beat: ids::beat(), lease_ttl_ms: 6_000, exclusive, process_start: true }
}

async fn state(store: &Postgres, node: &NewNode) -> NodeState {
    let renewal = store.renew(&Incarnation::mint(), 0, 0).await.unwrap();
    let row = renewal.nodes.into_iter().find(|row| row.owner == node.owner);
    row.map_or(NodeState::Dead, |row| row.state)
}

#[tokio::test]
async fn i5_a_renewal_passes_a_start_and_a_tombstone_waits_for_it() {
    let (store, other) = open().await;
    let own = node("a", false);
    store.start_node(own.clone()).await.unwrap();
    let incarnation = &own.owner.incarnation;
    // What a transaction holds that starts a turn.
    other.run(&format!("BEGIN; SELECT 1 FROM nodes WHERE incarnation = '{incarnation}' FOR KEY SHARE")).await;
    for _ in 0..3 {
        assert!(store.renew(incarnation, ids::beat(), 0).await.unwrap().renewed, "it waits for nobody");
    }
    let seen = Instant::now();
    let release = async {
        other.somebody_waits().await;
        assert_eq!(state(&store, &own).await, NodeState::Live, "not before the start is over");
        other.release().await;
    };
    let (buried, ()) = tokio::join!(store.bury_node(incarnation, None), release);
    assert!(buried.unwrap(), "{:?}", seen.elapsed());
    assert_eq!(state(&store, &own).await, NodeState::Dead);
}

#[tokio::test]
async fn i5_a_start_waits_for_a_drain_and_then_does_not_happen() {
    use crate::model::{
        Part, Person,
        machine::{Asker, NewTurn, Op, Refused, WhenBusy},
    };
    let (store, other) = open().await;
    let own = node("a", false);
    store.start_node(own.clone()).await.unwrap();
    let item = |op: Op| Item { session: "s".into(), node: Some(own.owner.clone()), op: Arc::new(op) };
    let create = Op::Create { epoch: ids::short(), title: None, metadata: None, max_running: None, must_be_new: false };
    store.commit(Arc::new(vec![item(create)])).await.unwrap();
    let incarnation = &own.owner.incarnation;
    other.run(&format!("BEGIN; SELECT 1 FROM nodes WHERE incarnation = '{incarnation}' FOR UPDATE")).await;
    let drain = async {
        other.somebody_waits().await;
        other.run(&format!("UPDATE nodes SET state = 'draining' WHERE incarnation = '{incarnation}'")).await;
        other.release().await;
    };
    let send = Op::Send {
        message_id: "m".into(),
        parts: vec![Part::text("x")],
        turn: Some(NewTurn { id: ids::fresh(), reply_id: ids::fresh(), agent: "echo".into() }),
        when_busy: WhenBusy::Queue,
        max_queue: 10,
        asker: Asker { person: Person { id: "ada".into(), name: "Ada".into() }, admin: false },
    };
    let (committed, ()) = tokio::join!(store.commit(Arc::new(vec![item(send)])), drain);
    assert_eq!(committed.unwrap().outcomes.remove(0).unwrap_err(), Refused::Draining);
}

#[tokio::test]
async fn an_exclusive_name_is_the_proof_that_its_predecessors_are_dead() {
    let (store, _) = open().await;
    let (first, other, shared) = (node("a", true), node("b", true), node("a", false));
    for node in [&first, &other, &shared] {
        store.start_node(node.clone()).await.unwrap();
    }
    let returned = NewNode { process_start: false, ..node("a", true) };
    store.start_node(returned.clone()).await.unwrap();
    assert_eq!(state(&store, &first).await, NodeState::Live, "a return after retirement proves nothing");
    let next = node("a", true);
    store.start_node(next.clone()).await.unwrap();
    store.start_node(next.clone()).await.unwrap();
    for (node, expected) in [
        (&first, NodeState::Dead),
        (&returned, NodeState::Dead),
        (&other, NodeState::Live),
        (&shared, NodeState::Live),
        (&next, NodeState::Live),
    ] {
        assert_eq!(state(&store, node).await, expected);
    }
}

#[tokio::test]
async fn of_many_starts_under_one_exclusive_name_at_once_one_lives() {
    let url = new_database().await;
    let nodes: Vec<NewNode> = (0..6).map(|_| node("a", true)).collect();
    let starts = nodes.iter().map(async |node| {
        let store = Postgres::open(&url, &Options::default()).await.unwrap();
        store.start_node(node.clone()).await.unwrap();
        store
    });
    let stores = join_all(starts).await;
    let mut live = 0;
    for node in &nodes {
        live += usize::from(state(&stores[0], node).await == NodeState::Live);
    }
    assert_eq!(live, 1);
}
