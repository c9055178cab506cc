//! Presence over the wire, as the reference implementation has it: what a client is sent, and what it holds in the end.

use serde_json::{Value, json};

use crate::{
    channel_app::App,
    support::{
        chance::Chance,
        http::keys,
        presence::{Here, read, reference},
        ws::{TestClient, until, within},
    },
};

const T: &str = "pres:1";

/// Joins under a key and reads the state and the client's own diff, which come after the reply in either order, each
/// of them once: what the client holds then.
async fn join_as(client: &mut TestClient, topic: &str, user: Value) -> Here {
    client.join(topic, json!({ "user": user })).await;
    let mut here = Here::default();
    here.until(client, "state and diff", |here| here.states == 1 && here.diffs >= 1).await;
    here
}

async fn connect(app: &App) -> TestClient {
    TestClient::connect(app.url()).await
}

/// The next change of who is there.
async fn next_diff(client: &mut TestClient) -> Value {
    client.assert_push(T, "presence_diff").await
}

/// What the server itself says.
async fn list(client: &mut TestClient, topic: &str) -> Value {
    let reference = client.push(topic, "list", json!({})).await;
    client.assert_reply(&reference, "ok").await
}

#[tokio::test]
async fn k99_a_join_brings_one_state_and_one_own_diff() {
    let app = App::start().await;
    let mut client = connect(&app).await;
    client.join(T, json!({ "user": "u1" })).await;
    let frames = [client.next().await, client.next().await];
    let state = frames.iter().find(|frame| frame[3] == "presence_state").unwrap();
    let diff = frames.iter().find(|frame| frame[3] == "presence_diff").unwrap();
    assert_eq!((&state[0], &state[1], &diff[0], &diff[1]), (&"11".into(), &Value::Null, &Value::Null, &Value::Null));
    assert_eq!((keys(&state[4]), &diff[4]["leaves"]), (vec!["u1"], &json!({})));
    assert_eq!(diff[4]["joins"], state[4], "the same meta with the same phx_ref");
    assert_eq!(state[4]["u1"]["metas"].as_array().unwrap().len(), 1);
    // Nothing more until something changes.
    let reference = client.push(T, "update", json!({ "away": true })).await;
    let frames = [client.next().await, client.next().await];
    assert!(frames.iter().any(|frame| frame[1] == reference), "{frames:?}");
    assert!(frames.iter().any(|frame| frame[4]["joins"]["u1"]["metas"][0]["away"] == true), "{frames:?}");
    app.stop().await;
}

#[tokio::test]
async fn k100_a_second_device_is_a_second_meta() {
    let app = App::start().await;
    let (mut one, mut two) = (connect(&app).await, connect(&app).await);
    join_as(&mut one, T, "u1".into()).await;
    let here = join_as(&mut two, T, "u1".into()).await;
    let diff = next_diff(&mut one).await;
    assert_eq!((keys(&diff["joins"]), &diff["leaves"]), (vec!["u1"], &json!({})));
    let joined = read(&diff["joins"]).remove("u1").unwrap();
    assert_eq!((joined.len(), here.metas("u1").len()), (1, 2));
    assert_ne!(reference(here.metas("u1")[0]), reference(here.metas("u1")[1]));
    let list = list(&mut one, T).await;
    assert_eq!((list["list"]["u1"].as_array().unwrap().len(), &list["count"]), (2, &json!(1)));
    app.stop().await;
}

#[tokio::test]
async fn k101_one_device_that_leaves_takes_its_own_meta_only() {
    let app = App::start().await;
    let (mut one, mut two) = (connect(&app).await, connect(&app).await);
    let mut here = join_as(&mut one, T, "u1".into()).await;
    join_as(&mut two, T, "u1".into()).await;
    here.until(&mut one, "both", |here| here.metas("u1").len() == 2).await;
    let before = here.list()["u1"].clone();
    two.push(T, "phx_leave", json!({})).await;
    let diff = next_diff(&mut one).await;
    assert_eq!(diff["joins"], json!({}));
    let left = read(&diff["leaves"]).remove("u1").unwrap();
    assert_eq!(left.len(), 1);
    assert!(left.iter().all(|(phx_ref, meta)| before[phx_ref] == *meta), "with its whole meta");
    here.take(&json!([null, null, T, "presence_diff", diff]));
    assert_eq!(here.metas("u1").len(), 1);
    app.stop().await;
}

#[tokio::test]
async fn k102_an_update_is_one_diff_with_both_metas() {
    let app = App::start().await;
    let (mut one, mut two) = (connect(&app).await, connect(&app).await);
    join_as(&mut one, T, "u1".into()).await;
    let here = join_as(&mut two, T, "u2".into()).await;
    let before = here.metas("u1")[0].clone();
    one.push(T, "update", json!({ "status": "away" })).await;
    let diff = next_diff(&mut two).await;
    assert_eq!(diff["leaves"], json!({ "u1": { "metas": [before] } }));
    let after = &diff["joins"]["u1"]["metas"];
    assert_eq!((after.as_array().unwrap().len(), &after[0]["status"]), (1, &"away".into()));
    assert_eq!(after[0]["phx_ref_prev"], before["phx_ref"]);
    assert_ne!(after[0]["phx_ref"], before["phx_ref"]);
    app.stop().await;
}

#[tokio::test]
async fn k103_a_channel_that_crashes_breaks_off_or_is_joined_again_leaves() {
    let app = App::start().await;
    let mut watcher = connect(&app).await;
    let mut here = join_as(&mut watcher, T, "watcher".into()).await;
    for end in ["crash", "break off", "close", "join again", "untrack"] {
        let mut client = connect(&app).await;
        join_as(&mut client, T, "u1".into()).await;
        here.until(&mut watcher, "the join", |here| here.keys() == ["u1", "watcher"]).await;
        let before = here.list()["u1"].clone();
        match end {
            "crash" => drop(client.push(T, "boom", json!({})).await),
            "break off" => drop(client),
            "close" => drop(client.close().await),
            "untrack" => drop(client.push(T, "untrack", json!({})).await),
            _ => {
                client.frame(json!(["12", "2", T, "phx_join", { "user": "u1" }])).await;
                here.until(&mut watcher, "another one", |here| here.list()["u1"] != before).await;
                here.until(&mut watcher, "one only", |here| here.metas("u1").len() == 1).await;
                assert_ne!(here.list()["u1"], before);
                client.close().await;
            }
        }
        here.until(&mut watcher, end, |here| here.keys() == ["watcher"]).await;
    }
    assert_eq!(app.presence.count(T), 1);
    app.stop().await;
}

/// A client under churn: what it holds, and the join that it is in.
struct Member {
    client: TestClient,
    here: Here,
    join: u64,
    user: String,
}

impl Member {
    async fn arrive(app: &App, user: u64) -> Self {
        let mut here = Here::default();
        here.leaves_first = user.is_multiple_of(2);
        let mut member = Self { client: connect(app).await, here, join: 0, user: format!("u{user}") };
        member.join().await;
        member
    }

    async fn join(&mut self) {
        self.join += 1;
        self.here.rejoin();
        let reference = self.join.to_string();
        self.client.frame(json!([reference, reference, T, "phx_join", { "user": self.user }])).await;
        self.read_to(&format!("join {reference}"), |frame| frame[1] == reference && frame[3] == "phx_reply").await;
    }

    async fn push(&mut self, event: &str, payload: Value) {
        let reference = format!("p{}", self.here.diffs);
        self.client.frame(json!([self.join.to_string(), reference, T, event, payload])).await;
        self.read_to(event, |frame| frame[1] == reference).await;
    }

    async fn read_to(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) {
        let join = self.join.to_string();
        within(what, async {
            loop {
                let frame = self.client.next().await;
                // Frames of a join before this one are old.
                if frame[0].is_null() || frame[0].as_str() == Some(&join) {
                    self.here.take(&frame);
                }
                if is_it(&frame) {
                    return;
                }
            }
        })
        .await;
    }
}

/// For each key the names of its metas.
fn names(list: &Value) -> Vec<(String, Vec<String>)> {
    let refs = |metas: &Value| -> Vec<String> {
        let mut refs: Vec<String> = metas.as_array().unwrap().iter().map(|meta| reference(meta).to_owned()).collect();
        refs.sort_unstable();
        refs
    };
    list.as_object().unwrap().iter().map(|(key, metas)| (key.clone(), refs(metas))).collect()
}

fn held(here: &Here) -> Vec<(String, Vec<String>)> {
    here.list().iter().map(|(key, metas)| (key.clone(), metas.keys().cloned().collect())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k104_under_churn_everybody_ends_with_the_servers_list() {
    let app = App::start().await;
    let mut chance = Chance::new("k104");
    let mut members = Vec::new();
    for round in 0..400_u64 {
        let place = chance.below(members.len() as u64 + 1) as usize;
        match chance.below(6) {
            0 | 1 if members.len() < 12 => members.push(Member::arrive(&app, chance.below(5)).await),
            _ if members.get(place).is_none() => {}
            0 => drop(members.swap_remove(place)),
            1 => members[place].join().await,
            2 => {
                let user = members[place].user.clone();
                members[place].push("track", json!({ "user": user })).await;
            }
            _ => members[place].push("update", json!({ "round": round })).await,
        }
    }
    let expected = |app: &App| names(&serde_json::to_value(app.presence.list(T)).unwrap());
    until("those who broke off to go", || app.host.counts().channels == members.len() as u64).await;
    // One change more, so that there is a last diff, which everybody is waited for to have taken.
    let last = app.presence.track(T, "last", &serde_json::Map::new()).unwrap();
    for member in &mut members {
        let Member { client, here, .. } = member;
        here.until(client, "the last change", |here| here.keys().contains(&"last")).await;
        assert_eq!(held(here), expected(&app), "{}, leaves first: {}", member.user, here.leaves_first);
    }
    drop(last);
    app.stop().await;
}

#[tokio::test]
async fn k105_keys_are_strings_and_numbers_become_strings() {
    let app = App::start().await;
    let (mut one, mut two) = (connect(&app).await, connect(&app).await);
    let mut here = join_as(&mut one, T, 42.into()).await;
    assert_eq!(here.keys(), ["42"]);
    join_as(&mut two, T, "42".into()).await;
    here.until(&mut one, "the same key", |here| here.metas("42").len() == 2).await;
    let quoted = "a \"b\" \\ ü 😀\n";
    let reference = one.push(T, "track", json!({ "user": quoted })).await;
    one.assert_reply(&reference, "ok").await;
    here.until(&mut two, "the new key", |here| here.keys().contains(&quoted)).await;
    app.stop().await;
}

#[tokio::test]
async fn keys_that_objects_have_already_are_refused_whoever_tracks() {
    let app = App::start().await;
    let mut client = connect(&app).await;
    for key in ["__proto__", "constructor", "prototype"] {
        client.frame(json!(["11", "1", T, "phx_join", { "user": key }])).await;
        let reply = client.next().await;
        assert_eq!((&reply[4]["status"], &reply[4]["response"]["reason"]), (&"error".into(), &"invalid".into()));
    }
    join_as(&mut client, T, "u1".into()).await;
    let reference = client.push(T, "track", json!({ "user": "__proto__" })).await;
    assert_eq!(client.assert_reply(&reference, "error").await["reason"], "invalid");
    assert_eq!(app.presence.count(T), 1);
    app.stop().await;
}

#[tokio::test]
async fn k106_what_is_fetched_is_in_state_and_diffs() {
    const FETCHED: &str = "pres:fetch";
    let app = App::start().await;
    let (mut one, mut two) = (connect(&app).await, connect(&app).await);
    one.join(FETCHED, json!({ "user": "u1" })).await;
    let state = one.assert_push(FETCHED, "presence_state").await;
    assert_eq!(keys(&state["u1"]), ["length", "metas"]);
    two.join(FETCHED, json!({ "user": "user2" })).await;
    let state = two.assert_push(FETCHED, "presence_state").await;
    assert_eq!((&state["u1"]["length"], &state["user2"]["length"]), (&json!(2), &json!(5)));
    let joined = |diff: &Value| diff["joins"]["user2"]["length"] == 5 && diff["leaves"] == json!({});
    within("the diff", async { while !joined(&one.assert_push(FETCHED, "presence_diff").await) {} }).await;
    two.close().await;
    let left = |diff: &Value| diff["leaves"]["user2"]["length"] == 5;
    within("the diff", async { while !left(&one.assert_push(FETCHED, "presence_diff").await) {} }).await;
    app.stop().await;
}
