//! Nodes: their rows, their leases, their tombstones, and what needs work.

use std::collections::HashSet;

use super::{World, cancel, create, item, owner, send};
use crate::{
    ids::{self, Incarnation},
    model::{NodeState, machine::Op},
};

/// The state of a node as a renewal reads it; `None` if its row is gone.
async fn state(world: &World, node: &Incarnation) -> Option<NodeState> {
    let nodes = world.store.renew(&world.node.incarnation, ids::beat(), 0).await.unwrap().nodes;
    nodes.into_iter().find(|row| row.owner.incarnation == *node).map(|row| row.state)
}

pub(crate) async fn i2_a_node_never_goes_back(world: &World) {
    let other = world.another("b").await.incarnation;
    assert_eq!(state(world, &other).await, Some(NodeState::Live));
    assert!(world.store.drain_node(&other).await.unwrap());
    assert!(!world.store.drain_node(&other).await.unwrap(), "it drains already");
    assert!(world.store.renew(&other, ids::beat(), 0).await.unwrap().renewed, "a draining node still beats");
    assert_eq!(state(world, &other).await, Some(NodeState::Draining));
    assert!(world.store.bury_node(&other, None).await.unwrap());
    assert!(!world.store.bury_node(&other, None).await.unwrap(), "it is dead already");
    assert!(!world.store.drain_node(&other).await.unwrap());
    assert!(!world.store.renew(&other, ids::beat(), 0).await.unwrap().renewed);
    assert!(matches!(state(world, &other).await, Some(NodeState::Dead) | None));
    let straight = world.another("c").await;
    world.bury(&straight).await;
    assert!(!world.store.drain_node(&straight.incarnation).await.unwrap());
}

pub(crate) async fn a_renewal_of_a_dead_or_missing_row_says_so(world: &World) {
    let own = &world.node.incarnation;
    assert!(world.store.renew(own, ids::beat(), 0).await.unwrap().renewed);
    assert!(!world.store.renew(&Incarnation::mint(), ids::beat(), 0).await.unwrap().renewed);
    world.bury(&world.node).await;
    let renewal = world.store.renew(own, 7, 0).await.unwrap();
    assert!(!renewal.renewed);
    assert!(renewal.nodes.iter().all(|node| node.beat != 7), "a dead row keeps its beat");
}

pub(crate) async fn a_tombstone_compares_the_beat(world: &World) {
    let other = world.another("b").await.incarnation;
    assert!(world.store.renew(&other, 11, 0).await.unwrap().renewed);
    assert!(!world.store.bury_node(&other, Some(10)).await.unwrap(), "it has moved since");
    assert_eq!(state(world, &other).await, Some(NodeState::Live));
    assert!(world.store.bury_node(&other, Some(11)).await.unwrap());
    assert!(!world.store.bury_node(&Incarnation::mint(), Some(11)).await.unwrap());
}

pub(crate) async fn a_dead_row_with_a_running_turn_stays(world: &World) {
    let other = world.another("b").await;
    world.create("s").await;
    world.op_on("s", send("m"), Some(&other)).await.unwrap();
    world.bury(&other).await;
    for n in 0..30 {
        let passing = world.another(&format!("n{n}")).await;
        world.bury(&passing).await;
    }
    assert_eq!(state(world, &other.incarnation).await, Some(NodeState::Dead));
    assert_eq!(world.running(&other).await, 1);
    world.op("s", Op::Reconcile).await.unwrap();
    assert_eq!(world.running(&other).await, 0);
}

pub(crate) async fn a_renewal_reads_every_node_and_this_nodes_turns(world: &World) {
    let other = world.another("b").await;
    let own = &world.node.incarnation;
    for session in ["mine", "theirs", "intended"] {
        world.create(session).await;
    }
    let mine = world.start("mine", "m").await;
    let theirs = world.op_on("theirs", send("m"), Some(&other)).await.unwrap().started.remove(0);
    let intended = world.op_on("intended", send("m"), Some(&other)).await.unwrap().started.remove(0);
    world.op("intended", cancel(&intended.id)).await.unwrap();
    let renewal = world.store.renew(own, 42, 7).await.unwrap();
    let row = renewal.nodes.iter().find(|node| node.owner == world.node).unwrap();
    assert_eq!((row.beat, row.lease_ttl_ms, row.state, row.connections), (42, 6_000, NodeState::Live, 7));
    assert!(renewal.nodes.iter().any(|node| node.owner == other));
    let found: HashSet<_> =
        renewal.turns.iter().map(|turn| (turn.turn_id.as_str(), &*turn.session, turn.intent)).collect();
    assert_eq!(found, HashSet::from([(mine.id.as_str(), "mine", false), (intended.id.as_str(), "intended", true)]));
    assert!(renewal.turns.iter().all(|turn| turn.term == 1));
    assert!(!found.iter().any(|(id, ..)| *id == theirs.id));
    assert_eq!(world.running(&other).await, 2);
    let (nodes, running) = world.store.at_work().await.unwrap();
    assert_eq!(nodes.len(), renewal.nodes.len());
    assert_eq!((running.get(own), running.get(&other.incarnation), running.len()), (Some(&1), Some(&2), 2));
}

pub(crate) async fn i20_what_needs_work_is_found(world: &World) {
    let other = world.another("b").await;
    for session in ["idle", "running", "full", "free", "orphan"] {
        world.create(session).await;
    }
    world.start("running", "m").await;
    world.start("full", "m1").await;
    world.wait("full", "m2").await;
    world.op_on("orphan", send("m"), Some(&other)).await.unwrap();
    assert!(world.store.needs_work(10).await.unwrap().is_empty());
    // A queued turn beside a free slot: what a node leaves that may not start it.
    let turn = world.start("free", "m1").await;
    world.wait("free", "m2").await;
    let end = super::finish(&turn, 0, "x", super::End::Completed { usage: None });
    assert!(world.commit(vec![item("free", end, None)]).await.outcomes[0].is_ok());
    world.bury(&other).await;
    let found: HashSet<String> = world.store.needs_work(10).await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(found, HashSet::from(["free".to_owned(), "orphan".to_owned()]));
    for session in ["idle", "running", "full", "free", "orphan"] {
        assert_eq!(world.cut(session, None).await.needs_work, found.contains(session), "{session}");
    }
    assert_eq!(world.store.needs_work(1).await.unwrap().len(), 1, "the limit holds");
    for session in found {
        world.op(&session, Op::Reconcile).await.unwrap();
    }
    assert!(world.store.needs_work(10).await.unwrap().is_empty());
    let unused = owner("nobody");
    assert!(world.op_on("idle", create(), Some(&unused)).await.is_ok(), "looking needs no node");
}
