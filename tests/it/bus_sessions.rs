//! Sessions on several nodes: what one commits the others show, and what the bus loses is found in the store.

use std::{sync::Arc, time::Duration};

use rejoin::{
    model::{EndReason, TurnStatus},
    pubsub::{Control, Kind, Local, Status},
};
use tokio::time::Instant;

use super::support::{
    cluster::{ClusterNode, Member, SharedStore, somebody},
    script::scripted,
    ws::{until, within},
};

fn last_seq(records: &[String]) -> u64 {
    let seq = |record: &String| {
        let record: serde_json::Value = serde_json::from_str(record).unwrap();
        record["events"].as_array().unwrap().last().unwrap()["seq"].as_u64().unwrap()
    };
    records.last().map_or(0, seq)
}

#[tokio::test]
async fn members_on_another_node_are_handed_the_same_bytes() {
    let (store, bus) = (SharedStore::open().await, Local::new());
    let a = ClusterNode::start(&store, Arc::new(bus.clone()), scripted().0).await;
    let b = ClusterNode::start(&store, Arc::new(bus), scripted().0).await;
    let (at_a, _at_a, _) = a.join("s").await;
    let (at_b, _at_b, _) = b.join("s").await;
    until("b listens", || b.pubsub.status() == Status::Connected).await;
    for n in 0..50 {
        a.send("s", &format!("message \u{1F600} {n}"), false).await;
        b.send("s", &format!("answer {n}"), false).await;
    }
    until("everything is shown on both", || last_seq(&at_a.records()) == 100 && last_seq(&at_b.records()) == 100).await;
    let sorted = |mut records: Vec<String>| {
        records.sort();
        records.dedup();
        records
    };
    // Each is handed every record once as its node published it, whatever else its node was told.
    assert_eq!(sorted(at_a.records()), sorted(at_b.records()));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn l7_a_last_event_that_the_bus_lost_is_found_by_comparing_heads() {
    let (store, bus) = (SharedStore::open().await, Local::new());
    let a = ClusterNode::start(&store, Arc::new(bus.clone()), scripted().0).await;
    let b = ClusterNode::start(&store, Arc::new(bus.clone()), scripted().0).await;
    let (at_b, _at_b, joined) = b.join("s").await;
    assert_eq!(joined.position, 0);
    bus.close();
    until("the bus is away", || b.pubsub.status() == Status::Away).await;
    a.send("s", "lost on its way", false).await;
    until("b is told how far the log reaches", || at_b.kinds().contains(&Kind::Head { last: 1 })).await;
    assert!(at_b.records().is_empty());
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn l7_a_gap_makes_heads_be_compared_at_once() {
    let (store, bus) = (SharedStore::open().await, Local::new());
    let b = ClusterNode::start(&store, Arc::new(bus.clone()), scripted().0).await;
    let (at_b, _at_b, joined) = b.join("s").await;
    until("it is connected", || b.pubsub.status() == Status::Connected).await;
    *store.lie.lock().unwrap() = Some(vec![("s".into(), joined.epoch, 7)]);
    bus.close();
    until("b is told of a head", || at_b.kinds().contains(&Kind::Head { last: 7 })).await;
    b.stop().await;
}

#[tokio::test]
async fn l11_another_epoch_or_a_head_that_went_back_ends_the_channels() {
    let (store, bus) = (SharedStore::open().await, Local::new());
    let b = ClusterNode::start(&store, Arc::new(bus), scripted().0).await;
    for (session, epoch, head) in [("other", Some("another"), 3), ("back", None, 1)] {
        for n in 0..3 {
            b.sessions.create(session, Default::default(), false).await.unwrap();
            b.send(session, &format!("{n}"), false).await;
        }
        let (member, _subscription, joined) = b.join(session).await;
        let epoch = epoch.map_or(joined.epoch, str::to_owned);
        *store.lie.lock().unwrap() = Some(vec![(session.into(), epoch, head)]);
        until("the channels are ended", || member.kinds().contains(&Kind::Control(Control::Restart))).await;
        *store.lie.lock().unwrap() = None;
    }
    let (member, _subscription, _) = b.join("gone").await;
    *store.lie.lock().unwrap() = Some(Vec::new());
    until("the channels are ended", || member.kinds().contains(&Kind::Control(Control::Restart))).await;
    b.stop().await;
}

/// How a member was told to end, if it was.
fn endings(member: &Member) -> Vec<Control> {
    let control = |kind: Kind| if let Kind::Control(control) = kind { Some(control) } else { None };
    member.kinds().into_iter().filter_map(control).collect()
}

#[tokio::test]
async fn l12_a_deletion_reaches_members_and_runners_of_other_nodes_at_once() {
    let (store, bus) = (SharedStore::open().await, Local::new());
    let (agents, mut script) = scripted();
    let a = ClusterNode::start(&store, Arc::new(bus.clone()), scripted().0).await;
    let b = ClusterNode::start(&store, Arc::new(bus), agents).await;
    until("both are connected", || [&a, &b].iter().all(|node| node.pubsub.status() == Status::Connected)).await;
    let (at_a, _at_a, joined) = a.join("s").await;
    let (at_b, _at_b, _) = b.join("s").await;
    let (beside, _beside, _) = b.join("beside").await;
    b.send("s", "think", true).await.unwrap();
    let turn = script.turn().await;
    let began = Instant::now();
    a.sessions.delete("s", somebody()).await.unwrap();
    let deleted = Control::Deleted(joined.log);
    assert_eq!(endings(&at_a), [deleted], "it is told before it is answered");
    until("b is told", || endings(&at_b) == [deleted]).await;
    turn.dropped().await;
    assert!(began.elapsed() < Duration::from_secs(4), "no renewal, a minute away, has helped: {:?}", began.elapsed());
    let at_b = at_b.last_payload();
    assert_eq!(at_b, r#"{"by":{"id":"u1","name":"Ada"}}"#);
    assert!(endings(&beside).is_empty());
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn l12_a_deletion_that_the_bus_lost_is_found_by_comparing_heads() {
    let (store, bus) = (SharedStore::open().await, Local::new());
    let a = ClusterNode::start(&store, Arc::new(bus.clone()), scripted().0).await;
    let b = ClusterNode::start(&store, Arc::new(bus.clone()), scripted().0).await;
    let mut members = Vec::new();
    for session in ["gone", "anew", "joined"] {
        let (member, subscription, joined) = b.join(session).await;
        members.push((member, subscription, joined.log));
    }
    bus.close();
    until("the bus is away", || b.pubsub.status() == Status::Away).await;
    for session in ["gone", "anew", "joined"] {
        a.sessions.delete(session, somebody()).await.unwrap();
    }
    a.sessions.create("anew", Default::default(), false).await.unwrap();
    // Whoever joins where others are finds it out for them.
    let (newcomer, _newcomer, joined) = b.join("joined").await;
    assert_eq!(endings(&members[2].0), [Control::Deleted(members[2].2)]);
    assert_ne!(joined.log, members[2].2);
    for (member, _, log) in &members {
        until("it is found", || endings(member) == [Control::Deleted(*log)]).await;
        assert_eq!(member.last_payload(), r#"{"by":{"id":"u1","name":"Ada"}}"#);
    }
    assert!(!endings(&newcomer).contains(&Control::Deleted(joined.log)));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn i17_a_cancel_on_another_node_reaches_the_owner_at_once() {
    let (store, bus) = (SharedStore::open().await, Local::new());
    let (agents, mut script) = scripted();
    let a = ClusterNode::start(&store, Arc::new(bus.clone()), agents).await;
    let b = ClusterNode::start(&store, Arc::new(bus), scripted().0).await;
    until("both are connected", || [&a, &b].iter().all(|node| node.pubsub.status() == Status::Connected)).await;
    a.sessions.create("s", Default::default(), false).await.unwrap();
    let turn_id = a.send("s", "think", true).await.unwrap();
    let turn = script.turn().await;
    let began = Instant::now();
    let answer = within("the cancel", Box::pin(b.sessions.cancel("s", somebody(), turn_id))).await.unwrap();
    assert_eq!((answer.outcome, answer.status), ("cancelled", TurnStatus::Cancelled));
    assert_eq!(answer.reason, Some(EndReason::User));
    // Neither the next renewal, a minute away, nor the patience of others has helped.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    turn.dropped().await;
    a.stop().await;
    b.stop().await;
}
