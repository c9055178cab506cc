//! What talks and who listens: an agent for each session, a listener where its turn runs, one on another node.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::StreamExt;
use rejoin::{
    agent::{Agent, Answer, Context, Delta, Output},
    model::{PartKind, Turn, TurnError},
    pubsub::{Kind, Published, Subscriber},
    session::TurnObserver,
};
use tokio::sync::Semaphore;

/// Fifty words a second and session would be a fast model; twenty flushes a second is what a window of 50 ms makes.
const PACE: Duration = Duration::from_millis(50);
const WORD: &str = "word after word after word ";

/// Everything that is said and heard.
#[derive(Default)]
pub(crate) struct Load {
    pub(crate) stop: AtomicBool,
    pub(crate) delivered: AtomicU64,
    /// Microseconds from an agent's delta to its delivery where its turn runs.
    pub(crate) latencies: Mutex<Vec<u32>>,
    /// Microseconds from there to the delivery on another node.
    pub(crate) elsewhere: Mutex<Vec<u32>>,
    pub(crate) talks: Mutex<BTreeMap<String, Arc<Talk>>>,
}

/// One session's agent and what comes back of it.
pub(crate) struct Talk {
    pub(crate) acknowledged: Semaphore,
    said: Mutex<VecDeque<Instant>>,
    /// The seqs that were delivered where the turn runs and not yet elsewhere; empty where nobody listens elsewhere.
    shown: Mutex<VecDeque<(u64, Instant)>>,
    followed: bool,
}

impl Talk {
    pub(crate) fn new(followed: bool) -> Self {
        Self { acknowledged: Semaphore::new(1), said: Mutex::default(), shown: Mutex::default(), followed }
    }
}

/// The agent of every session.
pub(crate) struct Talker {
    pub(crate) load: Arc<Load>,
    pub(crate) paced: bool,
}

#[async_trait]
impl Agent for Talker {
    async fn answer(&self, context: Context) -> Result<Answer, TurnError> {
        let talk = self.load.talks.lock().unwrap()[&context.session.id].clone();
        let (load, paced) = (self.load.clone(), self.paced);
        // Spread over the pace, as real sessions are.
        let spread = Duration::from_micros(u64::from(uuid::Uuid::new_v4().as_fields().0 % 50_000));
        let first = tokio::time::Instant::now() + spread;
        Ok(futures::stream::unfold(0u32, move |said| {
            let (load, talk) = (load.clone(), talk.clone());
            async move {
                if paced {
                    tokio::time::sleep_until(first + PACE * said).await;
                } else {
                    talk.acknowledged.acquire().await.unwrap().forget();
                }
                if load.stop.load(Ordering::Relaxed) {
                    return Some((Ok(Output::Done { usage: None }), said));
                }
                talk.said.lock().unwrap().push_back(Instant::now());
                let delta = Delta { part: 0, kind: PartKind::Text, text: Some(WORD.to_owned()), value: None };
                Some((Ok(Output::Delta(delta)), said + 1))
            }
        })
        .boxed())
    }
}

/// Hears a session where its turn runs.
pub(crate) struct Listener {
    pub(crate) talk: Arc<Talk>,
    pub(crate) load: Arc<Load>,
}

impl Subscriber for Listener {
    fn deliver(&self, message: &Arc<Published>) {
        let text = message.broadcast.payload().as_json().unwrap();
        let deltas = text.matches("\"turn_delta\"").count();
        if let Kind::Logged { first, last } = message.kind
            && self.talk.followed
        {
            let now = Instant::now();
            self.talk.shown.lock().unwrap().extend((first..=last).map(|seq| (seq, now)));
        }
        let mut said = self.talk.said.lock().unwrap();
        let mut latencies = self.load.latencies.lock().unwrap();
        for _ in 0..deltas {
            let Some(at) = said.pop_front() else { return };
            latencies.push(micros(at));
            self.load.delivered.fetch_add(1, Ordering::Relaxed);
            self.talk.acknowledged.add_permits(1);
        }
    }
}

/// Hears it on another node.
pub(crate) struct Follower {
    pub(crate) talk: Arc<Talk>,
    pub(crate) load: Arc<Load>,
}

impl Subscriber for Follower {
    fn deliver(&self, message: &Arc<Published>) {
        let Kind::Logged { last, .. } = message.kind else { return };
        let mut shown = self.talk.shown.lock().unwrap();
        let mut elsewhere = self.load.elsewhere.lock().unwrap();
        while let Some((_, at)) = shown.pop_front_if(|(seq, _)| *seq <= last) {
            elsewhere.push(micros(at));
        }
    }
}

fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}

/// Who shows turns to nobody.
pub(crate) struct Nobody;

impl TurnObserver for Nobody {
    fn started(&self, _session: &str, _turn: &Turn) {}
    fn ended(&self, _session: &str, _turn: &Turn) {}
}
