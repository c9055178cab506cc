//! The end of a session that somebody deletes: its members are told and let go, on every node, and what runs in it stops.
//!
//! The node that deletes says so to the others at once; one that does not hear it finds out when it compares heads, and
//! reads in the store who it was. Its invariant (L12): only channels that show the deleted log are ended. A session made
//! under the same id since is another one, with members and turns of its own.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time;

use super::{Error, Inner, Sessions, owner::Stop, topic_of};
use crate::{
    clock::{self, Timestamp},
    model::{
        Person,
        machine::{Applied, Asker, Done, Op},
    },
    protocol::{Broadcast, Payload, codes::event},
    pubsub::{Control, Kind, LogId, NodeId, Published, Receiver},
    store::{self, Purged, log_of},
};

/// What nodes tell each other of a deletion.
const DELETED: &str = "session.deleted";
/// Rows that one step of the emptying removes.
const STEP: usize = 500;
/// The pause between steps, so that nobody waits long.
const PACE: Duration = Duration::from_millis(10);
/// How often a node looks for what others have left to be removed.
const LOOK: Duration = Duration::from_secs(30);
/// How long it is known who deleted a session: far longer than any node takes to compare heads.
const REMEMBER: Duration = Duration::from_secs(3_600);

/// A deletion that is committed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Deletion {
    session: Arc<str>,
    /// The random part of the epoch that the session had.
    log: String,
    by: Person,
    /// The turns that waited or ran in it.
    turns: Vec<String>,
}

impl Deletion {
    /// The deletion that a committed item is, if it is one.
    pub(super) fn of(session: &Arc<str>, op: &Op, applied: &Applied) -> Option<Self> {
        let (Op::Delete { asker }, Done::Deleted { epoch, turns }) = (op, &applied.done) else { return None };
        let (session, by) = (session.clone(), asker.person.clone());
        Some(Self { session, log: epoch.clone(), by, turns: turns.clone() })
    }
}

/// Hears of deletions on other nodes.
pub(super) struct Ear(pub(super) Weak<Inner>);

impl Ear {
    pub(super) const NAME: &str = DELETED;
}

impl Receiver for Ear {
    fn receive(&self, _from: &NodeId, body: Bytes) {
        let Some(inner) = self.0.upgrade() else { return };
        match serde_json::from_slice::<Deletion>(&body) {
            Ok(deletion) => inner.end_deleted(&deletion),
            Err(error) => tracing::debug!(%error, "a deletion cannot be read; it is found out by comparing heads"),
        }
    }
}

impl Sessions {
    /// Deletes a session, whatever runs in it. Its members are shown `deleted` and let go; its id is free at once.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that cannot be one, [`Error::Unauthorized`], [`Error::NotFound`],
    /// [`Error::Unavailable`], which leaves open whether it happened.
    pub async fn delete(&self, session: &str, asker: Asker) -> Result<(), Error> {
        super::snapshot::check_id(session)?;
        self.inner.write(&Arc::from(session), Op::Delete { asker }).await.map(drop)
    }
}

impl Inner {
    /// A deletion was committed here.
    pub(super) fn deleted(&self, deletion: &Deletion) {
        tracing::info!(session = %deletion.session, by = %deletion.by.id, "a session was deleted");
        self.end_deleted(deletion);
        // Strings: there is nothing in it that JSON cannot hold.
        self.pubsub.publish_to_all(DELETED, serde_json::to_vec(deletion).unwrap_or_default().into());
        self.purge_now.notify_one();
    }

    fn end_deleted(&self, deletion: &Deletion) {
        for turn_id in &deletion.turns {
            self.runners.stop(turn_id, Stop::Fenced);
            // Whoever waits for its end looks, and finds that it is not there.
            self.log.ended(turn_id);
        }
        self.let_go(&deletion.session, &deletion.log, &deletion.by);
    }

    /// Ends the channels of this node that show this log of a session, each with the push `deleted`.
    fn let_go(&self, session: &str, log: &str, by: &Person) {
        #[derive(Serialize)]
        struct Deleted<'a> {
            by: &'a Person,
        }
        self.heads.forget(session, log);
        let topic = topic_of(session);
        let broadcast = Broadcast::new(topic.as_str(), event::DELETED, Payload::json(&Deleted { by }));
        let kind = Kind::Control(Control::Deleted(LogId::of(log)));
        self.pubsub.publish(&topic, Published { kind, from: None, broadcast });
    }

    /// Members of a session were shown a log of this epoch that is not its log any more: it was deleted, or the store
    /// has lost it.
    pub(super) async fn log_gone(&self, session: &str, epoch: &str) -> store::Result<()> {
        match self.store.deleted(session, epoch).await? {
            Some(by) => self.let_go(session, log_of(epoch), &by),
            None => self.log_changed(session),
        }
        Ok(())
    }
}

/// Removes what deleted sessions have left, a few rows at a time, until the shutdown ends it.
pub(super) async fn purge(inner: Arc<Inner>) {
    let mut pause = LOOK;
    loop {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = time::sleep(pause) => {}
            () = inner.purge_now.notified() => {}
        }
        let keep = i64::try_from(REMEMBER.as_millis()).unwrap_or(i64::MAX);
        pause = match inner.store.purge(STEP, Timestamp(clock::now().0 - keep)).await {
            Ok(Purged { more: true, .. }) => PACE,
            Ok(Purged { more: false, .. }) => LOOK,
            Err(error) => {
                tracing::warn!(%error, "deleted sessions could not be emptied; trying again in a while");
                LOOK
            }
        };
    }
}
