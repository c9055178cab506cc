//! A thousand sessions that stream and a hundred viewers: what is pushed follows from the rule, not from how much is
//! said.

use std::{collections::HashMap, time::Duration};

use futures::future::join_all;
use rejoin::{model::Person, model::machine::Asker, session::Send};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    script::{Script, ScriptedTurn},
    server::TestServer,
    ws::TestClient,
};

const SESSIONS: usize = 1_000;
const VIEWERS: usize = 100;
/// How long any step may take here: a hundred thousand pushes each, without optimization.
const LIMIT: Duration = Duration::from_secs(120);
/// How often the contract lets `last_seq` alone be told.
const EVERY: Duration = Duration::from_secs(2);

/// What a viewer holds of one session, and how it came to it.
#[derive(Default, Clone)]
struct Seen {
    status: String,
    running: String,
    last_seq: u64,
    /// Pushes that told something else than `last_seq`.
    told: usize,
    /// Pushes that told `last_seq` alone.
    moved: usize,
}

/// How far a viewer is.
#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    known: usize,
    running: usize,
    /// Sessions of which `last_seq` alone was told three times.
    moved: usize,
}

#[derive(Deserialize)]
struct Summary<'a> {
    id: String,
    status: &'a str,
    last_seq: u64,
    #[serde(borrow)]
    running: &'a RawValue,
}

/// Reads until all sessions have come and gone; `progress` says how far it is.
async fn view(mut raw: TestClient, progress: watch::Sender<Progress>) -> HashMap<String, Seen> {
    let mut all = HashMap::<String, Seen>::new();
    let mut at = Progress::default();
    loop {
        let Some(Message::Text(text)) = raw.message().await else { panic!("the connection has ended") };
        let (_, _, topic, event, payload): (Option<&str>, Option<&str>, &str, &str, &RawValue) =
            serde_json::from_str(text.as_str()).unwrap();
        assert_eq!((topic, event), ("sessions", "session_changed"), "{text}");
        let summary: Summary<'_> = serde_json::from_str(payload.get()).unwrap();
        let seen = all.entry(summary.id).or_default();
        assert!(summary.last_seq >= seen.last_seq, "nothing goes back");
        if seen.status == summary.status && seen.running == summary.running.get() {
            assert!(summary.last_seq > seen.last_seq, "nothing is told twice");
            seen.moved += 1;
            at.moved += usize::from(seen.moved == 3);
        } else {
            at.known += usize::from(seen.status.is_empty());
            at.running += usize::from(summary.status == "running");
            at.running -= usize::from(seen.status == "running");
            seen.told += 1;
        }
        seen.last_seq = summary.last_seq;
        summary.status.clone_into(&mut seen.status);
        summary.running.get().clone_into(&mut seen.running);
        progress.send_replace(at);
        if at.known == SESSIONS && at.running == 0 && at.moved > 0 {
            return all;
        }
    }
}

struct Crowd {
    viewers: Vec<JoinHandle<HashMap<String, Seen>>>,
    progress: Vec<watch::Receiver<Progress>>,
}

impl Crowd {
    async fn join(server: &TestServer) -> Self {
        let (mut viewers, mut progress) = (Vec::new(), Vec::new());
        for n in 0..VIEWERS {
            let mut raw = TestClient::connect(server.ws(&format!("u{n}"))).await;
            raw.frame(json!(["1", "1", "sessions", "phx_join", {}])).await;
            assert_eq!(raw.next().await[4]["status"], "ok");
            let (sender, receiver) = watch::channel(Progress::default());
            viewers.push(tokio::spawn(view(raw, sender)));
            progress.push(receiver);
        }
        Self { viewers, progress }
    }

    async fn all(&mut self, what: &str, ready: impl Fn(&Progress) -> bool) {
        for progress in &mut self.progress {
            let reached = tokio::time::timeout(LIMIT, progress.wait_for(|progress| ready(progress))).await;
            reached.unwrap_or_else(|_| panic!("{what}: not within {LIMIT:?}")).unwrap();
        }
    }
}

/// A turn in each session, all of them running.
async fn begin(server: &TestServer, script: &mut Script) -> Vec<ScriptedTurn> {
    let sessions = server.server.sessions();
    let asker = || Asker { person: Person { id: "ada".to_owned(), name: "Ada".to_owned() }, admin: true };
    let begin = async |n: usize| {
        let session = format!("s{n}");
        sessions.create(&session, Default::default(), true).await.unwrap();
        sessions.send(&session, asker(), Send::parse(r#"{"text":"go"}"#).unwrap()).await.unwrap().await.unwrap();
    };
    join_all((0..SESSIONS).map(begin)).await;
    let mut turns = Vec::new();
    for _ in 0..SESSIONS {
        turns.push(script.turn().await);
    }
    turns
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sessions_stream_and_a_hundred_viewers_are_told_by_the_rule() {
    let (server, mut script) = TestServer::start().await;
    let mut crowd = Crowd::join(&server).await;
    let began = Instant::now();
    let turns = begin(&server, &mut script).await;
    crowd.all("every session runs", |progress| progress.running == SESSIONS).await;
    let mut words = 0;
    while crowd.progress.iter().any(|progress| progress.borrow().moved < SESSIONS) {
        for turn in &turns {
            turn.say("word ").await;
        }
        words += turns.len();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(began.elapsed() < LIMIT, "{:?}", crowd.progress[0].borrow());
    }
    for turn in turns {
        turn.done().await;
    }
    let seen = tokio::time::timeout(LIMIT, join_all(crowd.viewers)).await.expect("every session ends");
    // A round that was under way as this began, and each that fits into the time since.
    let rounds = 1 + usize::try_from(began.elapsed().as_millis() / EVERY.as_millis()).unwrap();
    let (mut told, mut moved) = (0, 0);
    for sessions in seen.into_iter().map(Result::unwrap) {
        assert_eq!(sessions.len(), SESSIONS);
        for (session, seen) in &sessions {
            // Made, running, idle again; what is quick may be told as one.
            assert!((2..=3).contains(&seen.told), "{session}: {}", seen.told);
            assert!((3..=rounds).contains(&seen.moved), "{session}: {} in {rounds} rounds", seen.moved);
            told += seen.told;
            moved += seen.moved;
        }
    }
    println!("{words} words in {:?}: {told} changes and {moved} moves told to {VIEWERS} viewers", began.elapsed());
    assert!(told <= VIEWERS * SESSIONS * 3 && moved <= VIEWERS * SESSIONS * rounds);
    server.stop().await;
}
