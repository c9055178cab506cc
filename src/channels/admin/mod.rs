//! Topic `admin`: the nodes, their work, and what was lost, for operators.
//!
//! While somebody looks, one task of this node reads the store once a second at most, asks the other nodes how busy they are,
//! and puts what it found on a [`Board`]; whoever looks is pushed the parts that have changed, at its own pace. Where
//! nobody looks nothing is read. Its invariant: rights are asked for with everything that is shown, at the moment in
//! which it is shown.

mod board;
mod numbers;
mod watch;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::{sync::Notify, time};
use tokio_util::task::TaskTracker;

use self::board::Board;
pub use self::watch::Watch;
use super::{Renewals, later::answer_later};
use crate::{
    auth::{Access, Identity},
    channel::{Channel, Context, Cursor, Joined, Next, Page, Refusal, ReplayError},
    clock,
    model::machine::Asker,
    protocol::{Payload, Reply},
    session::{Error, Sessions, fields, topic_of},
};

/// The topic.
pub const TOPIC: &str = "admin";
/// What is pushed when something has changed.
const OVERVIEW: &str = "overview";
/// How long a join waits for the first look.
const FIRST: Duration = Duration::from_secs(6);

/// What all channels of the topic share. Cheap to clone.
#[derive(Clone)]
pub struct Operators {
    shared: Arc<Shared>,
}

struct Shared {
    sessions: Sessions,
    renewals: Renewals,
    /// Keeps answers that are on their way.
    tasks: TaskTracker,
    board: Mutex<Board>,
    /// Rung for the task.
    bell: Notify,
    /// Rung for those who wait until there is something to show.
    woken: Notify,
}

impl Operators {
    /// Shows what goes on in these sessions; `renewals` renews who looks, `tasks` keeps answers that are on their way.
    pub fn new(sessions: Sessions, renewals: Renewals, tasks: TaskTracker) -> Self {
        let (board, bell, woken) = (Mutex::default(), Notify::new(), Notify::new());
        Self { shared: Arc::new(Shared { sessions, renewals, tasks, board, bell, woken }) }
    }

    /// Whether the store is read for somebody who watches.
    pub fn is_looking(&self) -> bool {
        !self.shared.board().is_empty()
    }

    /// A channel for one joined topic.
    pub fn channel(&self) -> Box<dyn Channel> {
        Box::new(AdminChannel { shared: Arc::clone(&self.shared) })
    }
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has changed after a version, and the version that there is now; nothing where nothing is known.
    fn since(&self, version: u64) -> Option<(String, u64)> {
        let at = format!("\"{}\"", clock::now());
        self.board().since(version, &at)
    }

    /// Everything, once something is known. Cancel safe.
    async fn everything(&self) -> (String, u64) {
        loop {
            let woken = self.woken.notified();
            if let Some(known) = self.since(0) {
                return known;
            }
            self.bell.notify_one();
            woken.await;
        }
    }
}

/// The overview on one connection.
struct AdminChannel {
    shared: Arc<Shared>,
}

#[derive(Deserialize)]
struct CancelFields {
    session: String,
    turn_id: String,
}

impl AdminChannel {
    fn cancel(&self, cx: &Context, identity: &Identity, text: &str) -> Result<Next, Error> {
        let CancelFields { session, turn_id } = fields(text)?;
        if identity.access(&topic_of(&session)) < Access::Admin {
            return Err(Error::Unauthorized(
                "this token does not give the right admin on this session; use one that does",
            ));
        }
        let asker = Asker { person: identity.person.clone(), admin: true };
        let sessions = self.shared.sessions.clone();
        Ok(answer_later(&self.shared.tasks, cx, async move { sessions.cancel(&session, asker, turn_id).await }))
    }
}

#[async_trait]
impl Channel for AdminChannel {
    async fn join(&mut self, cx: &mut Context, _params: Payload) -> Result<Joined, Refusal> {
        let refusal = |error: &Error| Refusal::because(error.reason(), &error.to_string());
        if !cx.identity().is_admin() {
            let error = Error::Unauthorized("this topic is for operators; use a token with the right admin on *");
            return Err(refusal(&error));
        }
        let first = time::timeout(FIRST, self.shared.everything()).await;
        let (text, position) = first.map_err(|_| refusal(&Error::Unavailable))?;
        let cursor = Cursor { position, complete: true, log: None };
        Ok(Joined { response: Payload::raw(text), cursor: Some(cursor) })
    }

    async fn handle_in(&mut self, cx: &mut Context, event: &str, payload: Payload) -> Next {
        let identity = cx.identity();
        let answer = match (event, payload.as_json()) {
            ("cancel", Some(text)) => self.cancel(cx, &identity, text),
            ("access_token", Some(text)) => {
                self.shared.renewals.renew(cx, text).await.map(|()| Next::Reply(Reply::ok(Payload::empty())))
            }
            _ => Err(Error::Invalid(format!("there is no event {event:?} on this topic; use cancel"))),
        };
        answer.unwrap_or_else(|error| Next::Reply(Reply::refuse(error.reason(), &error.to_string())))
    }

    async fn replay(&mut self, cx: &mut Context, after: u64) -> Result<Page, ReplayError> {
        // Who may not look any more learns that when it joins anew.
        if !cx.identity().is_admin() {
            return Err(ReplayError::Restart);
        }
        let (text, last) = self.shared.since(after).ok_or(ReplayError::Restart)?;
        cx.push(OVERVIEW, &Payload::raw(text));
        Ok(Page { payload: None, last, complete: true })
    }
}
