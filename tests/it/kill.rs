//! The real program, killed again and again while it streams: nothing that was acknowledged or seen is lost.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use rejoin::model::View;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{
    chance::Chance,
    client::SessionClient,
    db::Db,
    process::Process,
    ws::{TestClient, within},
};

const ROUNDS: usize = 50;
const SESSIONS: usize = 3;
const TEXT: &str = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen";

/// A client that comes back after each kill with the cursor of what it holds.
struct Recorder {
    user: String,
    session: String,
    view: View,
    /// Sends without an answer yet: repeated under the same id.
    open: Vec<String>,
    /// Sends that were answered ok.
    acknowledged: Vec<String>,
    /// From the ready line to the reply that showed how a cut turn had ended.
    recovered: Vec<Duration>,
}

impl Recorder {
    fn new(number: usize) -> Self {
        Self {
            user: format!("u{number}"),
            session: format!("s{}", number % SESSIONS),
            view: View::default(),
            open: Vec::new(),
            acknowledged: Vec::new(),
            recovered: Vec::new(),
        }
    }

    fn topic(&self) -> String {
        format!("session:{}", self.session)
    }

    /// One life of the server, from its ready line to its end.
    async fn live(&mut self, url: &str, ready: Instant, round: usize) {
        let Ok(mut raw) = TestClient::try_connect(url).await else { return };
        let topic = self.topic();
        let mut params = json!({ "last_seq": self.view.last_seq, "epoch": self.view.epoch });
        if self.view.epoch.is_empty() {
            params = json!({});
        }
        if !raw.try_frame(json!(["1", "join", topic, "phx_join", params])).await {
            return;
        }
        let Some(reply) = raw.try_next().await else { return };
        assert_eq!((&reply[1], &reply[4]["status"]), (&json!("join"), &json!("ok")), "{reply}");
        self.rejoined(&reply[4]["response"], ready);
        self.open.push(format!("{}-{round}", self.user));
        for id in self.open.clone() {
            if !raw.try_frame(json!(["1", id, topic, "send", { "id": id, "text": TEXT }])).await {
                return;
            }
        }
        while let Some(frame) = raw.try_next().await {
            self.take(&frame);
        }
    }

    /// Every turn that ran when the connection ended has ended, with at least what was seen of it.
    fn rejoined(&mut self, reply: &Value, ready: Instant) {
        let before = self.view.clone();
        self.view.join(&reply.to_string()).unwrap();
        for turn in before.turns.iter().filter(|turn| turn.status == "running") {
            let now = &self.view.ended[&turn.prompt_id];
            let gone = now.status == "cancelled" && now.reason.as_deref() == Some("owner_gone");
            assert!(gone || now.status == "completed", "{now:?}");
            let seen = before.message(&turn.reply_id).unwrap().plain_text();
            let kept = self.view.message(&turn.reply_id).map(|message| message.plain_text()).unwrap_or_default();
            assert!(kept.starts_with(&seen), "seen {seen:?}, kept {kept:?}");
            if gone {
                self.recovered.push(ready.elapsed());
            }
        }
    }

    fn take(&mut self, frame: &Value) {
        match frame[3].as_str().unwrap() {
            "events" => self.view.push(&frame[4].to_string()).unwrap(),
            "phx_reply" => {
                assert_eq!(frame[4]["status"], "ok", "{frame}");
                let id = frame[1].as_str().unwrap().to_owned();
                self.open.retain(|open| *open != id);
                self.acknowledged.push(id);
            }
            _ => {}
        }
    }
}

/// Starts on the port of the life before.
async fn start(folder: &TempDir, listen: &str) -> (Process, Instant) {
    let args = ["--listen", listen, "--echo-delay", "4ms", "--delta-window", "5ms", "--max-queue", "1000"];
    let process = Process::start(folder.path(), &args).await;
    (process, Instant::now())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_fifty_times_while_streaming_nothing_is_lost_repeated_or_left_hanging() {
    let mut chance = Chance::new("kill");
    let folder = TempDir::new().unwrap();
    let mut recorders: Vec<Recorder> = (0..2 * SESSIONS).map(Recorder::new).collect();
    let mut listen = "127.0.0.1:0".to_owned();
    for round in 0..ROUNDS {
        let (process, ready) = start(&folder, &listen).await;
        listen = process.address.to_string();
        let urls: Vec<String> = recorders.iter().map(|recorder| process.ws(&recorder.user)).collect();
        let moment = ready + Duration::from_millis(chance.below(250));
        let kill = async {
            tokio::time::sleep_until(moment).await;
            process.kill().await;
        };
        let lives = recorders.iter_mut().zip(&urls).map(|(recorder, url)| recorder.live(url, ready, round));
        within("a round", async { tokio::join!(kill, join_all(lives)) }).await;
    }
    let (process, ready) = start(&folder, &listen).await;
    let report = Report::of(&mut recorders, &process, ready, &folder).await;
    println!("{report:?}");
    assert_eq!((report.lost, report.repeats, report.hanging), (0, 0, 0));
    assert!(report.acknowledged > ROUNDS, "too few to mean anything");
}

#[derive(Debug)]
#[expect(dead_code, reason = "printed")]
struct Report {
    rounds: usize,
    acknowledged: usize,
    lost: usize,
    repeats: usize,
    hanging: i64,
    cut_turns_seen: usize,
    /// Minimum, median, maximum.
    ready_to_cancelled: Option<(Duration, Duration, Duration)>,
}

impl Report {
    /// After the last start: everything comes to rest, then the oracle looks.
    async fn of(recorders: &mut [Recorder], process: &Process, ready: Instant, folder: &TempDir) -> Self {
        for recorder in &mut *recorders {
            let mut client = SessionClient::join(&process.ws(&recorder.user), &recorder.session).await;
            recorder.rejoined_at_last(process, ready).await;
            for id in std::mem::take(&mut recorder.open) {
                client.ok("send", json!({ "id": id, "text": TEXT })).await;
                recorder.acknowledged.push(id);
            }
        }
        let clients = join_all(recorders.iter_mut().map(|recorder| recorder.rest(process))).await;
        for (recorder, mut client) in recorders.iter().zip(clients) {
            assert_eq!(recorder.view.last_seq, client.view.last_seq, "{}", recorder.session);
            let shown = client.view.messages.len();
            let held = &recorder.view.messages;
            assert_eq!(&held[held.len() - shown..], &client.view.messages[..], "the fold is the server's");
            for (prompt, turn) in &client.view.ended {
                assert_eq!(recorder.view.ended.get(prompt), Some(turn));
            }
            let next = client.send("Does it still work?").await["turn_id"].clone();
            assert_eq!(client.end_of(&next).await, "completed");
        }
        let mut db = Db::open(&folder.path().join("rejoin.db")).await;
        db.gapless().await;
        db.turns_are_sound().await;
        let mut found = BTreeMap::new();
        for row in db.texts("SELECT s.id || '/' || m.id FROM messages m JOIN sessions s ON s.key = m.session_key").await
        {
            *found.entry(row).or_insert(0) += 1;
        }
        let mut times: Vec<Duration> = recorders.iter().flat_map(|recorder| recorder.recovered.clone()).collect();
        times.sort_unstable();
        let acknowledged = |recorder: &Recorder| {
            let session = recorder.session.clone();
            recorder.acknowledged.clone().into_iter().map(move |id| format!("{session}/{id}"))
        };
        let acknowledged: Vec<String> = recorders.iter().flat_map(acknowledged).collect();
        let texts = "SELECT count(*) - count(DISTINCT session_key || '/' || id) FROM messages";
        let repeats = usize::try_from(db.number(texts).await).unwrap();
        Self {
            rounds: ROUNDS,
            lost: acknowledged.iter().filter(|id| !found.contains_key(*id)).count(),
            repeats: repeats + found.values().filter(|count| **count > 1).count(),
            acknowledged: acknowledged.len(),
            hanging: db.number("SELECT count(*) FROM turns WHERE status IN ('queued', 'running')").await,
            cut_turns_seen: times.len(),
            ready_to_cancelled: times.first().map(|first| (*first, times[times.len() / 2], times[times.len() - 1])),
        }
    }
}

impl Recorder {
    /// The last return: by the cursor, and then up to the server's head.
    async fn rejoined_at_last(&mut self, process: &Process, ready: Instant) {
        let mut raw = TestClient::connect(process.ws(&self.user)).await;
        let cursor = json!({ "last_seq": self.view.last_seq, "epoch": self.view.epoch });
        raw.frame(json!(["1", "join", self.topic(), "phx_join", cursor])).await;
        let reply = raw.next().await;
        self.rejoined(&reply[4]["response"], ready);
    }

    /// Follows the session until nothing runs or waits; a fresh client of that moment.
    async fn rest(&mut self, process: &Process) -> SessionClient {
        let mut raw = TestClient::connect(process.ws(&self.user)).await;
        let cursor = json!({ "last_seq": self.view.last_seq, "epoch": self.view.epoch });
        raw.frame(json!(["1", "join", self.topic(), "phx_join", cursor])).await;
        let reply = raw.next().await;
        self.view.join(&reply[4]["response"].to_string()).unwrap();
        let limit = Instant::now() + Duration::from_secs(40);
        while !self.view.turns.is_empty() {
            assert!(Instant::now() < limit, "turns hang: {:?}", self.view.turns);
            let frame = raw.next().await;
            self.take(&frame);
        }
        SessionClient::join(&process.ws(&self.user), &self.session).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_after_a_kill_the_first_answer_shows_the_turn_ended() {
    let folder = TempDir::new().unwrap();
    let process = Process::start(folder.path(), &["--echo-delay", "50ms"]).await;
    let mut ada = SessionClient::join(&process.ws("ada"), "s").await;
    let id = ada.send(&"word ".repeat(500)).await["turn_id"].clone();
    ada.until("words", |ada| ada.answer_of(&id).is_some_and(|text| text.len() > 20)).await;
    let seen = ada.answer_of(&id).unwrap();
    process.kill().await;
    let process = Process::start(folder.path(), &[]).await;
    let text = reqwest::get(process.http("/api/sessions/s")).await.unwrap().text().await.unwrap();
    let look: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&look["session"]["status"], &look["turns"]), (&json!("idle"), &json!([])));
    ada.return_to(&process.ws("ada")).await;
    assert_eq!(ada.ended(&id).unwrap().reason.as_deref(), Some("owner_gone"));
    assert!(ada.answer_of(&id).unwrap().starts_with(&seen));
    let again = ada.ok("retry", json!({ "turn_id": id })).await;
    ada.ok("cancel", json!({ "turn_id": again["turn_id"] })).await;
}
