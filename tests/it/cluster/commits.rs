//! Owners that are killed at one exact place: before their first word, in the middle of a COMMIT, or after it and before
//! anybody was told.

use serde_json::Value;

use crate::support::{
    fleet::{Fleet, Plan},
    recorder::Recorder,
};

/// What a node says to the store when it takes a message, writes words, ends a turn: the last piece is what commits it.
const MESSAGE: &[&[u8]] = &[b"message_added", b"COMMIT\0"];
const WORDS: &[&[u8]] = &[b"\"turn_delta\"", b"COMMIT\0"];
/// The same where it is a transaction by itself.
const WORDS_ALONE: &[&[u8]] = &[b"\"turn_delta\""];
const END: &[&[u8]] = &[b"turn_completed", b"COMMIT\0"];

/// Two nodes, the first of which is about to lose its way to the store.
struct Setting {
    cluster: Fleet,
    /// Sees what the first node publishes.
    ben: Recorder,
    /// Is at the other node.
    ada: Recorder,
    /// Whether the commit arrives.
    arrives: bool,
}

impl Setting {
    async fn new(mut cluster: Fleet, session: &str, arrives: bool) -> Self {
        if !cluster.runs(0) {
            cluster.nodes[0].store.refuse(false);
            cluster.launch(0).await;
        }
        let ben = Recorder::start(&cluster, &[0, 1], session, "ben").await;
        let ada = Recorder::start(&cluster, &[1], session, "ada").await;
        Self { cluster, ben, ada, arrives }
    }

    /// The node's next commit that says this is its last. What [`Setting::dies`] is to be given.
    fn arm(&self, steps: &[&[u8]]) -> u64 {
        let store = &self.cluster.nodes[0].store;
        store.strand_at(steps, self.arrives);
        store.losses()
    }

    /// Waits for that commit, then kills the node, which has published nothing of it.
    async fn dies(&mut self, losses: u64) {
        self.cluster.nodes[0].store.loses(losses).await;
        let mut sql = self.cluster.sql().await;
        let session = &self.ada.session;
        if self.arrives {
            // It is on its way to the store, which may take it up later.
            let told = self.ben.now().view.last_seq;
            let more = format!("SELECT (last_seq > {told})::int::bigint FROM sessions WHERE id = '{session}'");
            sql.until("more to be committed than was published", &more, 1).await;
        } else {
            let head = sql.number(format!("SELECT last_seq FROM sessions WHERE id = '{session}'")).await;
            let head = u64::try_from(head).unwrap();
            self.ben.until("all that is committed", |record| record.view.last_seq == head).await;
        }
        self.cluster.kill(0).await;
    }

    async fn check(self) -> Fleet {
        let Self { cluster, ben, ada, .. } = self;
        cluster.check(&[&ben, &ada]).await;
        cluster
    }
}

/// The words of a turn's answer.
fn words(recorder: &Recorder, turn: &str) -> usize {
    recorder.now().answer(turn).matches("word").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_1_l2_i9_a_message_whose_node_dies_around_its_commit_is_there_once_or_not_at_all() {
    let mut cluster = Fleet::start(Plan::short(2)).await;
    for arrives in [true, false] {
        let mut setting = Setting::new(cluster, &format!("message-{arrives}"), arrives).await;
        let (caller, id, session) = (setting.cluster.caller(), rejoin::ids::fresh(), setting.ada.session.clone());
        let (asks, path) = (caller.clone(), format!("{session}/messages"));
        let body = serde_json::json!({ "id": id, "text": "word word" });
        let armed = setting.arm(MESSAGE);
        let asked = tokio::spawn(async move { asks.try_post(0, &path, body).await });
        setting.dies(armed).await;
        let told = asked.await.unwrap();
        assert!(told.as_ref().is_none_or(|(status, _)| *status == 503), "nobody knows: {told:?}");
        let again = caller.send(1, &session, &id, "word word").await;
        assert_eq!(again["duplicate"], arrives, "{again}");
        let end = setting.ada.end(again["turn_id"].as_str().unwrap()).await;
        assert_eq!(end, if arrives { "cancelled owner_gone" } else { "completed" });
        cluster = Box::pin(setting.check()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_1_l2_i12_words_whose_node_dies_around_their_commit_are_kept_or_were_never_said() {
    Box::pin(words_around(Plan::short(2), WORDS)).await;
    Box::pin(words_around(Plan::short(2).direct(), WORDS_ALONE)).await;
}

async fn words_around(plan: Plan, commit: &[&[u8]]) {
    let mut cluster = Fleet::start(plan).await;
    for arrives in [true, false] {
        let mut setting = Setting::new(cluster, &format!("words-{arrives}"), arrives).await;
        let turn = setting.cluster.turn(0, &setting.ada.session, 500).await;
        setting.ada.words(&turn, 20).await;
        let armed = setting.arm(commit);
        setting.dies(armed).await;
        let told = words(&setting.ben, &turn);
        assert_eq!(setting.ada.end(&turn).await, "cancelled owner_gone");
        let kept = words(&setting.ada, &turn);
        assert!(if arrives { kept > told } else { kept == told }, "told {told}, kept {kept}");
        cluster = Box::pin(setting.check()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_1_l2_i9_a_turn_whose_node_dies_around_the_commit_of_its_end_has_one_end() {
    let mut cluster = Fleet::start(Plan::short(2)).await;
    for arrives in [true, false] {
        let mut setting = Setting::new(cluster, &format!("end-{arrives}"), arrives).await;
        let turn = setting.cluster.turn(0, &setting.ada.session, 10).await;
        let armed = setting.arm(END);
        setting.dies(armed).await;
        let told = words(&setting.ben, &turn);
        let end = setting.ada.end(&turn).await;
        assert_eq!(end, if arrives { "completed" } else { "cancelled owner_gone" });
        assert_eq!(words(&setting.ada, &turn), if arrives { 10 } else { told });
        cluster = Box::pin(setting.check()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_1_an_owner_that_dies_before_its_first_word_leaves_no_answer() {
    let mut cluster = Fleet::start(Plan::short(2).echo("5s")).await;
    let ada = Recorder::start(&cluster, &[1], "s", "ada").await;
    let turn = cluster.turn(0, "s", 3).await;
    ada.until("its start", |record| record.events.iter().any(|seen| seen.is(&turn, "turn_started"))).await;
    cluster.kill(0).await;
    assert_eq!(ada.end(&turn).await, "cancelled owner_gone");
    let record = ada.now();
    assert_eq!(record.end(&turn).unwrap().event["data"]["message"], Value::Null);
    let answers: Vec<_> =
        record.view.messages.iter().filter(|message| message.turn_id.as_deref() == Some(turn.as_str())).collect();
    assert!(answers.is_empty(), "{answers:?}");
    cluster.check(&[&ada]).await;
}
