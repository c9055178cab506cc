//! The long-polling sessions of a mount, by their tokens.
//!
//! Knows no frame. Its invariant: a session is here from the moment at which its client learns its token until its
//! task has ended, and every session has such a task, which ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::{
    super::{State, Transport, connections::NoRoom},
    session::Session,
};
use crate::{auth::Identity, protocol::Serializer, socket::Socket, telemetry::trace::Trace};

/// The sessions of a mount.
#[derive(Default)]
pub(in super::super) struct Sessions {
    by_token: Mutex<HashMap<String, Arc<Session>>>,
}

impl Sessions {
    /// Opens a session, and starts the task that sees to its end.
    pub(super) fn open(
        state: &State,
        serializer: Serializer,
        identity: Identity,
        trace: Trace,
    ) -> Result<Arc<Session>, NoRoom> {
        let socket = Arc::new(Socket::new(state.host(), serializer.text_only(), identity).traced(trace));
        let place = state.connections().enter(&socket, Transport::LongPoll)?;
        let session = Arc::new(Session::new(mint(), socket, place, state.options()));
        state.sessions().lock().insert(session.token().to_owned(), Arc::clone(&session));
        let (state, watched) = (state.clone(), Arc::clone(&session));
        state.connections().tasks().clone().spawn(async move {
            watched.end().await;
            state.sessions().lock().remove(watched.token());
        });
        Ok(session)
    }

    /// The session of this token.
    pub(super) fn find(&self, token: &str) -> Option<Arc<Session>> {
        self.lock().get(token).map(Arc::clone)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.by_token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token that nobody guesses. One UUID has 122 random bits; two have more than the 128 that are wanted.
fn mint() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Whether a text may be a session's token.
pub(super) fn is_token(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let minted: std::collections::HashSet<String> = (0..1_000).map(|_| mint()).collect();
        assert_eq!(minted.len(), 1_000);
        assert!(minted.iter().all(|token| is_token(token)));
    }
}
