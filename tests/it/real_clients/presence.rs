//! Presence as phoenix.js keeps it, while others come, go, change and break off by chance: when it is quiet again each
//! client's list is the server's.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{phoenix_js::start, program::Program};
use crate::support::{
    chance::Chance,
    front::Front,
    process::Process,
    ws::{LIMIT, TestClient, within},
};

const TOPIC: &str = "room:churn";
const ROUNDS: u64 = 4;
const STEPS: u64 = 80;

/// A key of presence and the refs of its metas, in order.
type List = BTreeMap<String, Vec<String>>;

/// Somebody who comes and goes.
#[derive(Default)]
struct Guest {
    connection: Option<TestClient>,
}

impl Guest {
    /// One thing by chance: come, change, leave, join a second time, or go without a word.
    async fn act(&mut self, server: &Process, chance: &mut Chance) {
        let Some(client) = &mut self.connection else {
            let user = format!("u{}", chance.below(4));
            let mut client = TestClient::connect(server.ws(&user)).await;
            join(&mut client).await;
            self.connection = Some(client);
            return;
        };
        let alive = match chance.below(6) {
            0 | 1 => client.try_frame(json!(["11", "2", TOPIC, "presence", { "n": chance.below(100) }])).await,
            2 => client.try_frame(json!(["11", "3", TOPIC, "phx_leave", {}])).await,
            3 => client.try_frame(json!(["11", "1", TOPIC, "phx_join", {}])).await,
            4 => {
                client.try_frame(json!(["11", "2", TOPIC, "presence", { "n": 0 }])).await;
                false
            }
            _ => false,
        };
        if !alive {
            self.connection = None;
        }
    }
}

async fn join(client: &mut TestClient) {
    client.frame(json!(["11", "1", TOPIC, "phx_join", {}])).await;
    client.assert_reply("1", "ok").await;
}

/// What the server shows to somebody new, without them.
async fn at_the_server(server: &Process) -> List {
    let mut fresh = TestClient::connect(server.ws("fresh")).await;
    join(&mut fresh).await;
    let state = fresh.assert_push(TOPIC, "presence_state").await;
    let refs = |entry: &Value| {
        let metas = entry["metas"].as_array().unwrap();
        let mut refs: Vec<String> = metas.iter().map(|meta| meta["phx_ref"].as_str().unwrap().to_owned()).collect();
        refs.sort();
        refs
    };
    let entries = state.as_object().unwrap().iter();
    entries.filter(|(key, _)| *key != "fresh").map(|(key, entry)| (key.clone(), refs(entry))).collect()
}

/// What a client shows, without those who only asked the server.
async fn at(program: &mut Program) -> List {
    program.tell(json!({ "do": "presence", "topic": TOPIC })).await;
    let mut refs: List = serde_json::from_value(program.expect("presence").await["refs"].take()).unwrap();
    refs.remove("fresh");
    refs
}

/// Waits until each of them shows what the server shows.
async fn agree(server: &Process, programs: &mut [Program]) {
    let mut last = (List::new(), Vec::new());
    let agreed = async {
        loop {
            let list = at_the_server(server).await;
            let mut shown = Vec::new();
            for program in programs.iter_mut() {
                shown.push(at(program).await);
            }
            last = (list, shown);
            if last.1.iter().all(|shown| *shown == last.0) {
                return;
            }
        }
    };
    let agreed = tokio::time::timeout(LIMIT, agreed).await;
    assert!(agreed.is_ok(), "the server shows {:?}, the clients {:?}", last.0, last.1);
    assert!(last.0.contains_key("w0"), "{:?}", last.0);
}

#[tokio::test]
#[ignore = "needs the client programs: tests/run installs the clients"]
async fn k104_lists_of_phoenix_js_are_those_of_the_server() {
    let mut chance = Chance::new("k104_lists_of_phoenix_js_are_those_of_the_server");
    let folder = TempDir::new().unwrap();
    let server = Process::start(folder.path(), &[]).await;
    let mut fronts = Vec::new();
    let mut programs = Vec::new();
    for (index, version) in ["1.8.16", "1.8.16", "1.8.9"].into_iter().enumerate() {
        let front = Front::before(server.address).await;
        let options = json!({ "params": { "user_id": format!("w{index}") }, "rejoin_ms": [20], "quiet": true });
        let mut program = start(version, front.address, &options);
        program.join(TOPIC, json!({})).await;
        program.expect("joined").await;
        fronts.push(front);
        programs.push(program);
    }
    let mut guests: Vec<Guest> = std::iter::repeat_with(Guest::default).take(8).collect();
    for _ in 0..ROUNDS {
        for _ in 0..STEPS {
            let guest = chance.below(8) as usize;
            within("a guest", guests[guest].act(&server, &mut chance)).await;
            if chance.below(25) == 0 {
                fronts[chance.below(3) as usize].cut();
            }
            if chance.below(3) == 0 {
                chance.pause(20_000).await;
            }
        }
        agree(&server, &mut programs).await;
    }
    for program in programs {
        program.quit().await;
    }
}
