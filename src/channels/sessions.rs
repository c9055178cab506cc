//! Topic `sessions`: the live list.
//!
//! Shows a client which sessions there are and how they change, as far as it may read them; what has changed is the
//! business of [`crate::session`]. Its invariant: rights are asked for with every session that is shown, at the moment
//! in which it is shown.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Renewals;
use crate::{
    auth::{Access, Identity},
    channel::{Channel, Context, Cursor, Joined, Next, Page, Refusal, ReplayError},
    protocol::{Payload, Reply},
    session::{Changes, Error, Sessions, Summary, TOPIC_PREFIX, Watched, lenient_fields, topic_of},
};

/// What all channels of the list share. Cheap to clone.
#[derive(Clone)]
pub struct List {
    sessions: Sessions,
    renewals: Renewals,
}

impl List {
    /// The list of these sessions; `renewals` renews who looks at it.
    pub fn new(sessions: Sessions, renewals: Renewals) -> Self {
        Self { sessions, renewals }
    }

    /// A channel for one joined topic.
    pub fn channel(&self) -> Box<dyn Channel> {
        Box::new(ListChannel { list: self.clone(), prefix: String::new(), own: 0..0 })
    }
}

/// The list on one connection.
struct ListChannel {
    list: List,
    /// What the ids of the sessions begin with that the client wants to see.
    prefix: String,
    /// Changes that this client has brought itself: it was given them with its join.
    own: Range<u64>,
}

#[derive(Deserialize, Default)]
struct JoinParams {
    prefix: Option<String>,
}

/// The parameters of a join. Clients send anything there; what is no object says nothing.
fn join_params(params: &Payload) -> Result<JoinParams, Error> {
    match params.as_json() {
        Some(text) if params.is_object() => lenient_fields(text),
        _ => Ok(JoinParams::default()),
    }
}

fn may_list(identity: &Identity, cx: &Context) -> bool {
    identity.access(cx.topic()) >= Access::Read
}

fn may_read(identity: &Identity, topic: &str) -> bool {
    identity.access(topic) >= Access::Read
}

impl ListChannel {
    async fn admit(&mut self, cx: &Context, params: &Payload) -> Result<Watched, Error> {
        let identity: Arc<Identity> = cx.identity();
        if !may_list(&identity, cx) {
            return Err(Error::Unauthorized("this token does not open the list of sessions"));
        }
        self.prefix = join_params(params)?.prefix.unwrap_or_default();
        // What may not be read is not even looked for, as far as the token says where it is.
        let topics = identity.narrow(&topic_of(&self.prefix));
        let prefix = topics.as_deref().and_then(|topic| topic.strip_prefix(TOPIC_PREFIX));
        self.list.sessions.watch(prefix, |session| may_read(&identity, &topic_of(session))).await
    }
}

#[async_trait]
impl Channel for ListChannel {
    async fn join(&mut self, cx: &mut Context, params: Payload) -> Result<Joined, Refusal> {
        #[derive(Serialize)]
        struct Listed {
            sessions: Vec<Summary>,
            has_more: bool,
        }
        let watched = self.admit(cx, &params).await;
        let watched = watched.map_err(|error| Refusal::because(error.reason(), &error.to_string()))?;
        let Watched { sessions, has_more, position, own } = watched;
        self.own = own;
        Ok(Joined {
            response: Payload::json(&Listed { sessions, has_more }),
            cursor: Some(Cursor { position, complete: true, log: None }),
        })
    }

    async fn handle_in(&mut self, cx: &mut Context, event: &str, payload: Payload) -> Next {
        let done = match (event, payload.as_json()) {
            ("access_token", Some(text)) => self.list.renewals.renew(cx, text).await,
            _ => Err(Error::Invalid(format!("there is no event {event:?} on this topic; it is only listened to"))),
        };
        Next::Reply(match done {
            Ok(()) => Reply::ok(Payload::empty()),
            Err(error) => Reply::refuse(error.reason(), &error.to_string()),
        })
    }

    async fn replay(&mut self, cx: &mut Context, after: u64) -> Result<Page, ReplayError> {
        let identity = cx.identity();
        // One that may not list any more learns that when it joins anew.
        let changes = self.list.sessions.changes(after).filter(|_| may_list(&identity, cx));
        let Changes { changes, last, complete } = changes.ok_or(ReplayError::Restart)?;
        let wanted = changes.iter().filter(|change| {
            !self.own.contains(&change.number())
                && change.session().starts_with(&self.prefix)
                && may_read(&identity, change.topic())
        });
        wanted.for_each(|change| cx.show(change.broadcast()));
        Ok(Page { payload: None, last, complete })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_are_no_object_say_nothing_and_a_prefix_is_a_text() {
        for text in ["null", "[]", "1", "\"x\"", "{}", r#"{"prefix":null}"#, r#"{"other":1}"#] {
            assert_eq!(join_params(&Payload::raw(text.to_owned())).unwrap().prefix, None, "{text}");
        }
        assert_eq!(join_params(&Payload::raw(r#"{"prefix":"a"}"#.to_owned())).unwrap().prefix.as_deref(), Some("a"));
        for text in [r#"{"prefix":1}"#, r#"{"prefix":["a"]}"#] {
            assert!(join_params(&Payload::raw(text.to_owned())).is_err(), "{text}");
        }
    }
}
