//! What is to be done in the whole store, and what was lost, as an operator looks at it.
//!
//! Turns as clients know them, each with its session, as JSON. Read when asked, never kept.

use std::sync::Arc;

use serde::Serialize;

use super::{Error, Sessions};
use crate::{
    model::{
        Turn, TurnStatus,
        machine::{self, Session},
        turn::{Liveness, WireTurn},
    },
    store::Pick,
};

/// A turn and whose it is.
#[derive(Serialize)]
struct Entry<'a> {
    session: &'a Arc<str>,
    title: Option<&'a str>,
    turn: WireTurn<'a>,
}

impl Sessions {
    /// The running turns of all nodes, oldest first, then the queued ones, oldest first, at most `most` of each: the
    /// JSON `[{"session","title","turn"},…]`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn work(&self, most: usize) -> Result<String, Error> {
        let sessions = self.inner.store.pick(&Pick::Oldest(most)).await?;
        let (mut running, mut queued): (Vec<_>, Vec<_>) = sessions
            .iter()
            .flat_map(|session| {
                machine::in_order(&session.turns).into_iter().map(move |(turn, position)| (session, turn, position))
            })
            .partition(|(_, turn, _)| turn.status == TurnStatus::Running);
        running.sort_by_key(|(session, turn, _)| (turn.started_at, &session.id));
        queued.sort_by_key(|(session, turn, position)| (turn.queued_at, &session.id, *position));
        let shown = running.into_iter().take(most).chain(queued.into_iter().take(most));
        let entries: Vec<Entry<'_>> =
            shown.map(|(session, turn, position)| self.entry(session, turn, position)).collect();
        Ok(serde_json::to_string(&entries).unwrap_or_default())
    }

    fn entry<'a>(&self, session: &'a Session, turn: &'a Turn, position: Option<usize>) -> Entry<'a> {
        let turn = turn.wire(position, self.inner.liveness(turn));
        Entry { session: &session.id, title: session.title.as_deref(), turn }
    }

    /// The turns that were cut last because their owner was gone, newest first, at most `most`, as [`Sessions::work`]
    /// gives them.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn lost(&self, most: usize) -> Result<String, Error> {
        let lost = self.inner.store.lost(most).await?;
        let entries = lost.iter().map(|lost| Entry {
            session: &lost.session,
            title: lost.title.as_deref(),
            turn: lost.turn.wire(None, Liveness::Alive),
        });
        let entries: Vec<Entry<'_>> = entries.collect();
        Ok(serde_json::to_string(&entries).unwrap_or_default())
    }
}
