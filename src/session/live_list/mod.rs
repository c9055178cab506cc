//! The live list: what the viewers of the topic `sessions` are shown, on every node.
//!
//! A commit says on a topic between nodes which sessions have changed; a node that has viewers reads all of them with one
//! query, keeps what it found on a [`Board`], and tells its viewers only that there is something. Each takes from the
//! board what it has not seen, encoded once for all, at its own pace. Where only `last_seq` moves nobody says
//! anything: a round every two seconds reads every session with a turn, and so also finds what the bus has lost. Without
//! viewers nothing is read and nothing is kept. Knows no connection. Its invariant: a difference between what a viewer
//! was shown and what the store says lasts until the next round in which the session is read, and no longer.

mod board;

use std::{
    borrow::Cow,
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::Notify,
    time::{self, MissedTickBehavior},
};

use self::board::{Board, Why};
pub use self::board::{Change, Changes};
use super::{Error, Inner, Sessions, Summary};
use crate::{
    model::machine::Session,
    protocol::{Broadcast, Payload},
    pubsub::{Gap, Kind, PubSub, Published, Subscriber, Watcher},
    store::{ListQuery, Pick},
};

/// The topic on which viewers are told that something has changed.
pub const TOPIC: &str = "sessions";
/// How many sessions a viewer begins with.
const NEWEST: usize = 100;
/// How often `last_seq` alone is told.
const EVERY: Duration = Duration::from_secs(2);
/// Everything that is known is read once in so many rounds, where other nodes share the store.
const ROUNDS: u64 = 5;
/// Changes that come in quick succession after one that was read at once are read together.
const GATHER: Duration = Duration::from_millis(30);
/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(8);
/// Sessions with a turn whose `last_seq` is followed, of the whole store.
const MOST_LIVE: usize = 5_000;
/// The newest sessions, which a look at everything reads beside those that are known.
const RECENT: usize = 500;
/// Sessions of one query.
const AT_ONCE: usize = 2_000;
/// Sessions that may wait to be read one by one; beyond, everything is.
const MAX_SAID: usize = 5_000;

/// What a viewer begins with.
#[derive(Debug)]
pub struct Watched {
    /// The newest sessions that it may read.
    pub sessions: Vec<Summary>,
    /// Whether there may be others.
    pub has_more: bool,
    /// What it holds: the number to ask [`Sessions::changes`] with.
    pub position: u64,
    /// Numbers of changes that are news to others only.
    pub own: std::ops::Range<u64>,
}

/// The list on this node.
pub(super) struct LiveList {
    /// Where nodes say which sessions have changed: those that share the store, and nobody else.
    changes: Arc<str>,
    shared: bool,
    state: Mutex<State>,
    said: Mutex<Said>,
    /// Rung for the task.
    bell: Notify,
    /// Rung for viewers who wait until there is something to begin with.
    woken: Notify,
}

#[derive(Default)]
struct State {
    /// Whether the board is kept.
    awake: bool,
    board: Board,
}

/// What is to be read at once.
#[derive(Default)]
struct Said {
    everything: bool,
    sessions: HashSet<Arc<str>>,
}

#[derive(Serialize, Deserialize)]
struct Ids<'a> {
    #[serde(borrow)]
    ids: Vec<Cow<'a, str>>,
}

impl LiveList {
    /// The list of the sessions in the store that `scope` names; nobody shares one without.
    pub(super) fn new(scope: Option<Arc<str>>) -> Self {
        let changes = scope
            .as_ref()
            .map_or_else(|| "sessions.changed".into(), |scope| format!("sessions.changed/{scope}").into());
        Self {
            changes,
            shared: scope.is_some(),
            state: Mutex::default(),
            said: Mutex::default(),
            bell: Notify::new(),
            woken: Notify::new(),
        }
    }

    /// Says to every node that has viewers that these sessions have changed in more than their deltas.
    pub(super) fn tell<'a>(&self, pubsub: &PubSub, sessions: impl Iterator<Item = &'a Arc<str>>) {
        if !pubsub.wants_log(&self.changes) {
            return;
        }
        let ids: Vec<Cow<'_, str>> = sessions.map(|session| Cow::Borrowed(&**session)).collect();
        if !ids.is_empty() {
            let broadcast = Broadcast::new(Arc::clone(&self.changes), "changed", Payload::json(&Ids { ids }));
            pubsub.publish(&self.changes, Published { kind: Kind::Ephemeral, from: None, broadcast });
        }
    }

    fn said(&self, sessions: impl Iterator<Item = Arc<str>>) {
        let mut said = lock(&self.said);
        said.sessions.extend(sessions);
        if said.sessions.len() > MAX_SAID {
            *said = Said { everything: true, sessions: HashSet::new() };
        }
        drop(said);
        self.bell.notify_one();
    }

    fn say_everything(&self) {
        lock(&self.said).everything = true;
        self.bell.notify_one();
    }

    /// What is to be read at once, when there is something. Cancel safe.
    async fn heard(&self) -> Said {
        loop {
            let rung = self.bell.notified();
            let said = std::mem::take(&mut *lock(&self.said));
            if said.everything || !said.sessions.is_empty() {
                return said;
            }
            rung.await;
        }
    }

    /// Where a viewer begins, once the board is kept. Cancel safe.
    async fn position(&self) -> u64 {
        loop {
            let woken = self.woken.notified();
            {
                let state = lock(&self.state);
                if state.awake {
                    return state.board.position();
                }
            }
            self.bell.notify_one();
            woken.await;
        }
    }

    /// Whether nobody views any more; the board is not kept then. A viewer is subscribed before it asks where it
    /// begins, so one that is missed here finds nobody awake and rings.
    fn may_sleep(&self, pubsub: &PubSub) -> bool {
        let mut state = lock(&self.state);
        let nobody = pubsub.subscribers(TOPIC) == 0;
        if nobody {
            state.awake = false;
            state.board.clear();
        }
        nobody
    }
}

/// Hears which sessions have changed.
struct Ear(Arc<LiveList>);

impl Subscriber for Ear {
    fn deliver(&self, message: &Arc<Published>) {
        let ids = message.broadcast.payload().as_json().and_then(|text| serde_json::from_str::<Ids<'_>>(text).ok());
        match ids {
            Some(Ids { ids }) => self.0.said(ids.iter().map(|id| Arc::from(&**id))),
            None => self.0.say_everything(),
        }
    }
}

impl Watcher for LiveList {
    fn missed(&self, gap: &Gap) {
        match gap {
            Gap::Everything | Gap::Node(_) => self.say_everything(),
            Gap::Topics(topics) if topics.contains(&self.changes) => self.say_everything(),
            Gap::Topics(_) | Gap::Messages { .. } => {}
        }
    }
}

/// Keeps the list while somebody views it, until the shutdown ends it.
pub(super) async fn keep(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = inner.list.bell.notified() => {}
        }
        if inner.pubsub.subscribers(TOPIC) > 0 {
            inner.keep_list().await;
        }
    }
}

/// What a look reads.
enum Ask {
    Sessions(HashSet<Arc<str>>),
    Round { everything: bool },
}

/// What a look has read.
#[derive(Default)]
struct Found {
    sessions: Vec<Session>,
    missing: Vec<Arc<str>>,
}

impl Inner {
    /// Serves until nobody views any more.
    async fn keep_list(&self) {
        let list = &self.list;
        let _ear = self.pubsub.subscribe(&list.changes, Arc::new(Ear(Arc::clone(list))));
        let mut ticks = time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut round, mut everything) = (0_u64, true);
        loop {
            let ask = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {
                    if round > 0 && list.may_sleep(&self.pubsub) {
                        return;
                    }
                    everything |= list.shared && round.is_multiple_of(ROUNDS);
                    round += 1;
                    Ask::Round { everything }
                }
                said = list.heard(), if !everything => match said {
                    Said { everything: true, .. } => Ask::Round { everything: true },
                    Said { sessions, .. } => Ask::Sessions(sessions),
                },
            };
            // What could not be read is read with the next round.
            everything = !self.look(ask).await;
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = time::sleep(GATHER) => {}
            }
        }
    }

    /// Reads, and tells the viewers. False if the store did not answer.
    async fn look(&self, ask: Ask) -> bool {
        let (mut look, due) = {
            let mut state = lock(&self.list.state);
            let due = match &ask {
                Ask::Sessions(_) => HashSet::new(),
                Ask::Round { everything: true } => state.board.known(),
                Ask::Round { everything: false } => state.board.due(),
            };
            (state.board.begin(), due)
        };
        let (why, read) = match ask {
            Ask::Sessions(sessions) => (Why::Said, time::timeout(LIMIT, Box::pin(self.these(sessions))).await),
            Ask::Round { everything } => {
                (Why::Round, time::timeout(LIMIT, Box::pin(self.round(due, everything))).await)
            }
        };
        let found = match read {
            Ok(Ok(found)) => Some(found),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the live list could not be read");
                None
            }
            Err(_) => None,
        };
        let answered = found.is_some();
        let Found { sessions, missing } = found.unwrap_or_default();
        let summaries: Vec<Summary> = sessions.iter().map(|session| self.summary(session)).collect();
        let mut state = lock(&self.list.state);
        summaries.into_iter().for_each(|summary| state.board.found(&mut look, summary, why));
        missing.into_iter().for_each(|session| state.board.missing(&mut look, session));
        let news = state.board.finish();
        let wakes = answered && !state.awake;
        state.awake |= wakes;
        drop(state);
        if wakes {
            self.list.woken.notify_waiters();
        }
        if let Some(last) = news.filter(|_| !wakes) {
            self.pubsub.hint(TOPIC, last);
        }
        answered
    }

    /// These sessions, reconciled.
    async fn these(&self, mut sessions: HashSet<Arc<str>>) -> Result<Found, Error> {
        let ids: Vec<_> = sessions.iter().cloned().collect();
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(AT_ONCE) {
            let pick = Pick::These(ids.to_vec());
            found.extend(self.reconciled(|| self.store.pick(&pick)).await?);
        }
        found.iter().for_each(|session| _ = sessions.remove(&session.id));
        Ok(Found { sessions: found, missing: sessions.into_iter().collect() })
    }

    /// Every session with a turn, and those that are due; of everything the newest too.
    async fn round(&self, mut due: HashSet<Arc<str>>, everything: bool) -> Result<Found, Error> {
        let live = Pick::Live(MOST_LIVE);
        let mut sessions = self.reconciled(|| self.store.pick(&live)).await?;
        if everything {
            let query = ListQuery { limit: RECENT, ..ListQuery::default() };
            let read: HashSet<_> = sessions.iter().map(|session| session.id.clone()).collect();
            let newest = self.reconciled(|| self.store.list(&query)).await?;
            sessions.extend(newest.into_iter().filter(|session| !read.contains(&session.id)));
        }
        sessions.iter().for_each(|session| _ = due.remove(&session.id));
        let Found { sessions: others, missing } = self.these(due).await?;
        sessions.extend(others);
        Ok(Found { sessions, missing })
    }
}

impl Sessions {
    /// What a viewer begins with: the newest sessions whose ids begin with `prefix` and that `may` admits; without a
    /// prefix none. It must be subscribed to [`TOPIC`] before, and is told there from now on how far
    /// [`Sessions::changes`] reaches. The search looks at a bounded number of sessions, however few of them are admitted.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn watch(
        &self,
        prefix: Option<&str>,
        may: impl Fn(&str) -> bool + Send + Sync,
    ) -> Result<Watched, Error> {
        let list = &self.inner.list;
        let position = list.position().await;
        let (sessions, more) = match prefix {
            Some(prefix) => self.list_where(prefix, None, NEWEST, None, may).await?,
            None => (Vec::new(), None),
        };
        let (own, news) = lock(&list.state).board.bring(sessions.iter());
        if let Some(last) = news {
            self.inner.pubsub.hint(TOPIC, last);
        }
        Ok(Watched { sessions, has_more: more.is_some(), position, own })
    }

    /// What has changed after a number, as it is now. `None` if that is not known any more: watch anew.
    pub fn changes(&self, after: u64) -> Option<Changes> {
        lock(&self.inner.list.state).board.after(after)
    }
}

/// A short lock; what a panicking holder left is read anew with the next round.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
