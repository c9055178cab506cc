//! Whom a request speaks for, and what it may therefore do.
//!
//! The same identities and rights as on a socket. Its invariant: what may not be seen is refused in the same words
//! whether it exists or not.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::request::Parts,
};

use super::{Api, credentials, error::Problem};
use crate::{
    auth::{Access, Identity},
    model::{Person, machine::Asker},
    session::{TOPIC_PREFIX, topic_of},
    transport::Address,
};

/// Whom the request speaks for.
#[derive(Clone)]
pub(super) struct Who(Identity);

/// Whose writes are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Writer {
    /// Those of a user, wherever they come from.
    User(String),
    /// Those of nobody in particular, by where they come from.
    At(Address),
}

impl FromRequestParts<Api> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        if let Some(known) = parts.extensions.get::<Self>() {
            return Ok(known.clone());
        }
        credentials::identify(&api.verifier, parts).await.map(Self)
    }
}

impl Who {
    /// Whose writes this one is counted with; nobody's where somebody else accepts connections and nobody says who asks.
    pub(super) fn writer(&self, parts: &Parts) -> Option<Writer> {
        if self.0.is_guest() {
            let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
            return peer.map(|peer| Writer::At(peer.ip().into()));
        }
        Some(Writer::User(self.0.person.id.clone()))
    }

    /// What the identity may do with a session; an error if that is less than `needed`.
    pub(super) fn may(&self, session: &str, needed: Access) -> Result<Access, Problem> {
        self.may_on(&topic_of(session), needed)
    }

    /// As [`Who::may`], with any topic.
    pub(super) fn may_on(&self, topic: &str, needed: Access) -> Result<Access, Problem> {
        let access = self.0.access(topic);
        if access < needed {
            return Err(Problem::unauthorized("this token does not allow this; ask for one that does"));
        }
        Ok(access)
    }

    /// The identity.
    pub(super) fn identity(&self) -> &Identity {
        &self.0
    }

    /// The person.
    pub(super) fn person(&self) -> &Person {
        &self.0.person
    }

    /// An error if the identity may not do what concerns the whole server.
    pub(super) fn operates(&self) -> Result<(), Problem> {
        if self.0.is_admin() {
            return Ok(());
        }
        Err(Problem::unauthorized("this needs a token with admin on the pattern *"))
    }

    /// How the id of every session begins that begins with `prefix` and that the identity may do anything with.
    pub(super) fn narrow(&self, prefix: &str) -> Option<String> {
        let topic = self.0.narrow(&topic_of(prefix))?;
        topic.strip_prefix(TOPIC_PREFIX).map(str::to_owned)
    }

    /// Who asks something of a session that needs the right to write in it.
    pub(super) fn asks(&self, session: &str) -> Result<Asker, Problem> {
        let access = self.may(session, Access::Write)?;
        Ok(Asker { person: self.0.person.clone(), admin: access >= Access::Admin })
    }
}
