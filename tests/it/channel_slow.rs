//! Readers that fall behind, gaps and repeats: what they are shown in the end.

use std::{sync::atomic::Ordering, time::Duration};

use rejoin::{
    channel,
    pubsub::{Control, Kind},
    transport,
};
use serde_json::json;

use crate::{
    channel_app::App,
    support::{
        presence::Here,
        ws::{TestClient, until, within},
    },
};

const T: &str = "log:a";

/// A server on which a reader falls behind soon.
async fn narrow(stall_timeout: Duration) -> App {
    let options =
        channel::Options { max_queue_bytes: 64 * 1024, replay_pause: Duration::from_millis(5), ..Default::default() };
    App::start_with(options, transport::Options { stall_timeout, ..Default::default() }).await
}

/// Reads `events` pushes until the record `last` or the end of its page, and checks that each record after `at` comes
/// once, in order. The record that was reached.
async fn read_to(client: &mut TestClient, mut at: u64, last: u64) -> u64 {
    while at < last {
        let frame = client.next().await;
        if frame[3] != "events" {
            continue;
        }
        assert_eq!(frame[4]["prev"], at, "a gap or a repeat");
        for event in frame[4]["events"].as_array().unwrap() {
            at += 1;
            assert_eq!(event["seq"], at);
        }
    }
    at
}

/// Appends more than all the buffers between the server and a client that does not read can take; how many records
/// there are then.
fn append_a_lot(app: &App, topic: &str) -> u64 {
    (0..1_500).for_each(|_| app.append(topic, 16 * 1024));
    (0..50).for_each(|_| app.append(topic, 1_000));
    assert!(app.host.counts().slow_consumers >= 1, "the reader never fell behind");
    app.hooks.log.lock().unwrap().len() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_and_goes_on_sees_every_record_exactly_once() {
    let app = narrow(Duration::from_secs(30)).await;
    let mut client = TestClient::connect(app.url()).await;
    client.join(T, json!({})).await;
    (0..10).for_each(|_| app.append(T, 100));
    read_to(&mut client, 0, 10).await;
    let end = append_a_lot(&app, T);
    let at = read_to(&mut client, 10, end - 20).await;
    (0..30).for_each(|_| app.append(T, 10));
    assert_eq!(read_to(&mut client, at, end + 30).await, end + 30);
    client.heartbeat().await;
    app.append(T, 10);
    assert_eq!(client.assert_push(T, "events").await["prev"], end + 30);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_published_while_pages_are_sent_come_once() {
    let app = narrow(Duration::from_secs(30)).await;
    (0..200).for_each(|_| app.append(T, 50));
    let mut client = TestClient::connect(app.url()).await;
    client.join(T, json!({ "after": 3 })).await;
    let publisher = async {
        for _ in 0..300 {
            app.append(T, 50);
            tokio::task::yield_now().await;
        }
    };
    let ((), at) = tokio::join!(publisher, read_to(&mut client, 3, 500));
    assert_eq!(at, 500);
    app.append(T, 50);
    let live = client.assert_push(T, "events").await;
    assert_eq!((&live["prev"], live["events"].as_array().unwrap().len()), (&json!(500), 1));
    app.stop().await;
}

#[tokio::test]
async fn a_gap_is_filled_and_a_repeat_is_left_out() {
    let app = narrow(Duration::from_secs(30)).await;
    let mut client = TestClient::connect(app.url()).await;
    client.join(T, json!({})).await;
    app.append("log:nobody", 1);
    app.append("log:nobody", 1);
    app.append(T, 1);
    read_to(&mut client, 0, 3).await;
    app.publish(T, Kind::Logged { first: 2, last: 3 }, "events", json!({ "repeat": true }));
    app.append(T, 1);
    read_to(&mut client, 3, 4).await;
    app.stop().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_tried_again() {
    let app = narrow(Duration::from_secs(30)).await;
    (0..20).for_each(|_| app.append(T, 1));
    app.hooks.unavailable.store(3, Ordering::SeqCst);
    let mut client = TestClient::connect(app.url()).await;
    client.join(T, json!({ "after": 0 })).await;
    read_to(&mut client, 0, 20).await;
    assert_eq!(app.hooks.unavailable.load(Ordering::SeqCst), 0);
    let reference = client.push(T, "anything", json!({})).await;
    client.assert_reply(&reference, "ok").await;
    app.stop().await;
}

#[tokio::test]
async fn another_history_ends_the_channel_with_an_error() {
    let app = narrow(Duration::from_secs(30)).await;
    let mut client = TestClient::connect(app.url()).await;
    client.join(T, json!({ "after": 7 })).await;
    client.expect(json!(["11", "11", T, "phx_error", { "reason": "channel_restart" }])).await;
    app.stop().await;
}

#[tokio::test]
async fn a_control_message_ends_every_channel_of_its_topic() {
    let app = narrow(Duration::from_secs(30)).await;
    let mut client = TestClient::connect(app.url()).await;
    client.join(T, json!({})).await;
    app.append(T, 1);
    app.publish(T, Kind::Control(Control::Close), "deleted", json!({ "by": null }));
    app.append(T, 1);
    read_to(&mut client, 0, 1).await;
    client.expect(json!([null, null, T, "deleted", { "by": null }])).await;
    client.expect(json!(["11", "11", T, "phx_close", {}])).await;
    client.join(T, json!({})).await;
    app.publish(T, Kind::Control(Control::Restart), "", json!({}));
    client.expect(json!(["11", "11", T, "phx_error", { "reason": "channel_restart" }])).await;
    app.stop().await;
}

/// Publishes ephemeral messages until one did not fit; how many were published.
fn publish_until_full(app: &App, topic: &str) -> u64 {
    let before = app.host.counts().slow_consumers;
    let pad = "x".repeat(16 * 1024);
    let mut published = 0;
    while app.host.counts().slow_consumers == before {
        published += 1;
        app.publish(topic, Kind::Ephemeral, "change", json!({ "n": published, "pad": pad }));
        assert!(published < 10_000, "the reader never falls behind");
    }
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ephemeral_messages_that_did_not_fit_are_counted() {
    let app = narrow(Duration::from_secs(30)).await;
    let mut client = TestClient::connect(app.url()).await;
    client.join("pres:a", json!({})).await;
    let published = publish_until_full(&app, "pres:a");
    let mut seen = 0;
    let missed = loop {
        let frame = client.next().await;
        match frame[3].as_str() {
            Some("change") => seen += 1,
            Some("missed") => break frame[4]["count"].as_u64().unwrap(),
            Some("presence_state" | "presence_diff") => {}
            _ => panic!("unexpected: {frame}"),
        }
    };
    assert!(missed >= 1);
    assert_eq!(seen + missed, published);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missed_change_of_presence_brings_the_whole_state() {
    let app = narrow(Duration::from_secs(30)).await;
    let mut client = TestClient::connect(app.url()).await;
    client.join("pres:a", json!({ "user": "u1" })).await;
    let mut here = Here::default();
    here.until(&mut client, "its own diff", |here| here.diffs == 1).await;
    // Somebody who reads gives the pace, until all the buffers on the way to the one who does not are full.
    let mut quick = TestClient::connect(app.url()).await;
    quick.join("pres:a", json!({ "user": "quick" })).await;
    for n in 0..1_500 {
        app.publish("pres:a", Kind::Ephemeral, "change", json!({ "n": n, "pad": "x".repeat(16 * 1024) }));
        assert_eq!(quick.assert_push("pres:a", "change").await["n"], n);
    }
    assert!(app.host.counts().slow_consumers > 0, "the reader never fell behind");
    // Larger than all that may wait for one client.
    let fields = serde_json::Map::from_iter([("pad".to_owned(), "x".repeat(65 * 1024).into())]);
    let _large = app.presence.track("pres:a", "large", &fields).unwrap();
    while quick.assert_push("pres:a", "presence_diff").await["joins"]["large"].is_null() {}
    let _small = app.presence.track("pres:a", "small", &serde_json::Map::new()).unwrap();
    here.until(&mut client, "all of them", |here| here.keys() == ["large", "quick", "small", "u1"]).await;
    assert_eq!(here.states, 2, "what was left out came in a diff");
    let diffs = here.diffs;
    let live = app.presence.track("pres:a", "live", &serde_json::Map::new()).unwrap();
    here.until(&mut client, "a change that is live again", |here| here.keys().contains(&"live")).await;
    assert_eq!(here.states, 2);
    assert!(here.diffs > diffs);
    drop(live);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_reads_nothing_is_closed_and_its_channels_end() {
    let app = narrow(Duration::from_millis(300)).await;
    let mut client = TestClient::connect(app.url()).await;
    client.join(T, json!({})).await;
    append_a_lot(&app, T);
    until("the channel to end", || app.host.pubsub().subscribers(T) == 0).await;
    within("the connection to go", app.state.connections().all_gone()).await;
    assert_eq!(app.host.counts().stalled, 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_slow_reader_delays_no_other() {
    let app = narrow(Duration::from_secs(30)).await;
    let mut slow = TestClient::connect(app.url()).await;
    slow.join(T, json!({})).await;
    let mut quick = TestClient::connect(app.url()).await;
    quick.join(T, json!({})).await;
    let end = append_a_lot(&app, T);
    read_to(&mut quick, 0, end).await;
    read_to(&mut slow, 0, end).await;
    app.stop().await;
}
