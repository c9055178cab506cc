//! Whom a request speaks for, and what it may therefore do.
//!
//! The same identities and rights as on a socket. Its invariant: what may not be seen is refused in the same words
//! whether it exists or not.

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use serde::Deserialize;

use super::{Api, error::Problem};
use crate::{
    auth::{Access, Identity},
    model::{Person, machine::Asker},
    session::topic_of,
};

/// Whom the request speaks for.
pub(super) struct Who(Identity);

impl FromRequestParts<Api> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Fields {
            user_id: Option<String>,
            name: Option<String>,
        }
        let Query(Fields { user_id, name }) =
            Query::try_from_uri(&parts.uri).map_err(|error| Problem::invalid(error.body_text()))?;
        Identity::open(user_id.as_deref(), name.as_deref()).map(Self).map_err(Problem::invalid)
    }
}

impl Who {
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

    /// The person.
    pub(super) fn person(&self) -> &Person {
        &self.0.person
    }

    /// Who asks something of a session that needs the right to write in it.
    pub(super) fn asks(&self, session: &str) -> Result<Asker, Problem> {
        let access = self.may(session, Access::Write)?;
        Ok(Asker { person: self.0.person.clone(), admin: access >= Access::Admin })
    }
}
