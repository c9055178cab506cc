//! Comparing heads: what finds that a session's last event was lost on its way here, or that its log is another now.
//!
//! For sessions that have members on this node, one query for all of them: often where a turn runs, seldom elsewhere,
//! at once when the bus tells of a gap. Knows no bus and no connection. Its invariant: what a verdict is made of was
//! read here before it was read in the store, so that a head below it can only mean that the store lost history.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    time::{self, MissedTickBehavior},
};

use super::{Inner, TOPIC_PREFIX, owner::Stop, topic_of};
use crate::{
    pubsub::{Gap, Watcher},
    store::{self, Cut, log_of},
};

/// How often sessions in which a turn may run are compared.
const OFTEN: Duration = Duration::from_secs(2);
/// All sessions are compared once in so many rounds.
const ROUNDS: u64 = 5;
/// How long one comparison may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Sessions of one query.
const AT_ONCE: usize = 2_000;
/// Gaps that come in quick succession are one.
const GATHER: Duration = Duration::from_millis(20);

/// What this node knows of the logs of sessions that have members here.
#[derive(Default)]
pub(super) struct Heads {
    /// Whether other nodes share the store. If not, nothing can change behind this node's back, and nothing is kept.
    shared: bool,
    known: Mutex<HashMap<Arc<str>, Known>>,
    asked: Mutex<Asked>,
    bell: Notify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    epoch: String,
    /// The highest head that was read.
    head: u64,
    /// When it was last seen to have moved.
    moved: Instant,
}

/// What a gap asks to have compared at once.
#[derive(Default)]
struct Asked {
    all: bool,
    sessions: HashSet<Arc<str>>,
}

/// What a comparison shows.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing is missing.
    Same,
    /// The log reaches further than what was shown here.
    Behind(u64),
    /// It is not the log that was shown here, or not all of it is there any more.
    Changed,
}

impl Heads {
    pub(super) fn new(shared: bool) -> Self {
        Self { shared, ..Self::default() }
    }

    /// A member of a session was given this cut. The epoch that members before it may hold, if that is another.
    pub(super) fn joined(&self, cut: &Cut) -> Option<String> {
        if !self.shared {
            return None;
        }
        let new = Known { epoch: cut.epoch.clone(), head: cut.session.last_seq, moved: Instant::now() };
        let mut known = lock(&self.known);
        let before = known.insert(cut.session.id.clone(), new);
        before.map(|before| before.epoch).filter(|epoch| *epoch != cut.epoch)
    }

    /// Whoever held this log of a session holds it no more.
    pub(super) fn forget(&self, session: &str, log: &str) {
        let mut known = lock(&self.known);
        if known.get(session).is_some_and(|known| log_of(&known.epoch) == log) {
            known.remove(session);
        }
    }

    /// Whatever was known belongs to a history that is over.
    pub(super) fn forget_all(&self) {
        lock(&self.known).clear();
    }

    fn ask(&self, ask: impl FnOnce(&mut Asked)) {
        ask(&mut lock(&self.asked));
        self.bell.notify_one();
    }

    /// What gaps ask for, once one does. Cancel safe.
    async fn asked(&self) -> Asked {
        loop {
            let rung = self.bell.notified();
            let asked = std::mem::take(&mut *lock(&self.asked));
            if asked.all || !asked.sessions.is_empty() {
                return asked;
            }
            rung.await;
        }
    }

    /// Takes in a head that was read; forgets a log that is another now.
    fn learn(&self, session: &Arc<str>, verdict: &Verdict, head: u64) {
        let mut known = lock(&self.known);
        if *verdict == Verdict::Changed {
            known.remove(session);
        } else if let Some(known) = known.get_mut(session)
            && known.head < head
        {
            known.head = head;
            known.moved = Instant::now();
        }
    }
}

impl Watcher for Heads {
    fn missed(&self, gap: &Gap) {
        match gap {
            Gap::Everything | Gap::Node(_) => self.ask(|asked| asked.all = true),
            Gap::Topics(topics) => self.ask(|asked| {
                let ids = topics.iter().filter_map(|topic| topic.strip_prefix(TOPIC_PREFIX));
                asked.sessions.extend(ids.map(Arc::from));
            }),
            Gap::Messages { .. } => {}
        }
    }
}

/// Compares what was known before with what the store shows now. `shown` is the highest seq that was published here.
fn judge(known: Option<&Known>, shown: u64, found: Option<(&str, u64)>) -> Verdict {
    match (known, found) {
        // Nobody has joined it yet, or whoever did is about to learn that it is not there.
        (None, None) => Verdict::Same,
        (Some(_), None) => Verdict::Changed,
        (Some(known), Some((epoch, head))) if known.epoch != epoch || head < known.head => Verdict::Changed,
        (_, Some((_, head))) if head < shown => Verdict::Changed,
        (_, Some((_, head))) if head > shown => Verdict::Behind(head),
        (_, Some(_)) => Verdict::Same,
    }
}

/// One session before it is asked about.
struct Before {
    session: Arc<str>,
    known: Option<Known>,
    shown: u64,
}

/// Compares until the shutdown ends it. To be run where other nodes share the store.
pub(super) async fn keep(inner: Arc<Inner>) {
    let mut ticks = time::interval(OFTEN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut round, mut owed) = (0_u64, false);
    loop {
        let asked = tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            _ = ticks.tick() => {
                round += 1;
                inner.due(owed || round.is_multiple_of(ROUNDS))
            }
            asked = inner.heads.asked(), if !owed => {
                time::sleep(GATHER).await;
                inner.wanted(asked)
            }
        };
        // What could not be asked is asked with the next tick.
        owed = !inner.compare(asked).await;
    }
}

impl Inner {
    /// The sessions that have members here, by id.
    fn with_members(&self) -> HashSet<Arc<str>> {
        let names = self.pubsub.topic_names();
        names.iter().filter_map(|topic| topic.strip_prefix(TOPIC_PREFIX)).map(Arc::from).collect()
    }

    /// What is to be compared at a tick. A turn that runs anywhere has appended within the time that an agent may be
    /// silent, so a session that has not moved for longer runs none.
    fn due(&self, all: bool) -> Vec<Before> {
        let mut sessions = self.with_members();
        lock(&self.heads.known).retain(|session, _| sessions.contains(session));
        if !all {
            let lively = self.options.agent_idle_timeout + 2 * OFTEN;
            let running: HashSet<_> = self.runners.sessions().into_iter().collect();
            let known = lock(&self.heads.known);
            let moves = |session: &Arc<str>| known.get(session).is_some_and(|known| known.moved.elapsed() < lively);
            sessions.retain(|session| running.contains(session) || moves(session));
        }
        self.before(sessions)
    }

    /// What a gap asks for, together with what was asked meanwhile.
    fn wanted(&self, asked: Asked) -> Vec<Before> {
        let late = std::mem::take(&mut *lock(&self.heads.asked));
        let mut sessions = self.with_members();
        if !asked.all && !late.all {
            sessions.retain(|session| asked.sessions.contains(session) || late.sessions.contains(session));
        }
        self.before(sessions)
    }

    fn before(&self, sessions: HashSet<Arc<str>>) -> Vec<Before> {
        let known = lock(&self.heads.known);
        let before = |session: Arc<str>| {
            let shown = self.pubsub.delivered(&topic_of(&session));
            Before { known: known.get(&session).cloned(), shown, session }
        };
        sessions.into_iter().map(before).collect()
    }

    /// Asks the store and does what follows. False if it did not answer.
    async fn compare(&self, sessions: Vec<Before>) -> bool {
        for sessions in sessions.chunks(AT_ONCE) {
            let ids: Vec<_> = sessions.iter().map(|before| before.session.clone()).collect();
            let found = match time::timeout(LIMIT, self.store.heads(&ids)).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "heads could not be compared with the store");
                    return false;
                }
                Err(_) => return false,
            };
            let found: HashMap<_, _> =
                found.into_iter().map(|(session, epoch, head)| (session, (epoch, head))).collect();
            for before in sessions {
                let found = found.get(&before.session).map(|(epoch, head)| (epoch.as_str(), *head));
                if let Err(error) = self.follow(before, found).await {
                    tracing::warn!(%error, "it could not be asked whether a session was deleted");
                    return false;
                }
            }
        }
        true
    }

    async fn follow(&self, before: &Before, found: Option<(&str, u64)>) -> store::Result<()> {
        let verdict = judge(before.known.as_ref(), before.shown, found);
        if let (Verdict::Changed, Some(known)) = (&verdict, &before.known)
            && found.is_none_or(|(epoch, _)| epoch != known.epoch)
        {
            self.log_gone(&before.session, &known.epoch).await?;
            self.heads.forget(&before.session, log_of(&known.epoch));
            return Ok(());
        }
        self.heads.learn(&before.session, &verdict, found.map_or(0, |(_, head)| head));
        match verdict {
            Verdict::Same => {}
            Verdict::Behind(head) => {
                self.tally.behind.add(1);
                self.pubsub.hint(&topic_of(&before.session), head);
            }
            Verdict::Changed => self.log_changed(&before.session),
        }
        Ok(())
    }

    /// L11: what members of this session were shown is not what its log says any more.
    pub(super) fn log_changed(&self, session: &str) {
        if !self.stop.is_cancelled() {
            tracing::error!(%session, "a session's log is another than this node knows: ending its runners and channels");
        }
        self.runners.stop_session(session, Stop::Fenced);
        self.restart_channels(&topic_of(session));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(head: u64) -> Known {
        Known { epoch: "e".to_owned(), head, moved: Instant::now() }
    }

    #[test]
    fn l7_l11_verdicts() {
        let e = Some(("e", 5));
        for (known, shown, found, verdict) in [
            (None, 0, None, Verdict::Same),
            (None, 0, e, Verdict::Behind(5)),
            (None, 5, e, Verdict::Same),
            (None, 6, e, Verdict::Changed),
            (Some(known(5)), 0, e, Verdict::Behind(5)),
            (Some(known(3)), 5, e, Verdict::Same),
            (Some(known(3)), 4, e, Verdict::Behind(5)),
            (Some(known(3)), 6, e, Verdict::Changed),
            (Some(known(6)), 0, e, Verdict::Changed),
            (Some(known(5)), 5, Some(("f", 5)), Verdict::Changed),
            (Some(known(5)), 5, Some(("f", 9)), Verdict::Changed),
            (Some(known(5)), 5, None, Verdict::Changed),
        ] {
            assert_eq!(judge(known.as_ref(), shown, found), verdict, "{known:?} {shown} {found:?}");
        }
    }

    #[tokio::test]
    async fn gaps_that_come_together_are_one_question() {
        let heads = Heads::default();
        heads.missed(&Gap::Topics(vec!["session:a".into(), "room:a".into()]));
        heads.missed(&Gap::Topics(vec!["session:b".into()]));
        let asked = heads.asked().await;
        assert_eq!((asked.all, asked.sessions.len()), (false, 2));
        heads.missed(&Gap::Everything);
        assert!(heads.asked().await.all);
    }
}
