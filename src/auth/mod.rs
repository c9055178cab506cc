//! Who a connection speaks for and what it may do.
//!
//! Knows nothing of connections or sessions: it turns what a client presents into an [`Identity`], and answers which
//! [`Access`] that identity has to a topic. Without tokens (`auth = none`) everybody has [`Access::Admin`]. With them
//! `verifier` checks a token by `key`s that `keeper` reads from a `source`, `claims` reads what it says, `rights` is
//! what it allows. Its invariant: there is no identity but that of a token whose signature, time, issuer and audience
//! are right.

mod claims;
mod keeper;
mod key;
mod mint;
mod refused;
mod rights;
mod source;
mod token;
mod verifier;

use tokio::time::Instant;

use self::rights::Rights;
pub use self::{
    keeper::Keeper,
    key::{Key, KeySet, SharedSecret},
    mint::{NewToken, mint},
    refused::Refused,
    source::{Source, read_file},
    verifier::{Options, Presented, Verifier},
};
use crate::{ids, model::Person};

/// What an identity may do with a topic; each level includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Not even know whether it exists.
    None,
    /// Join, read the history, see who is there.
    Read,
    /// Create, send, broadcast, update, cancel and retry one's own turns.
    Write,
    /// Everything.
    Admin,
}

/// Whom a connection or a request speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's id and the name to show.
    pub person: Person,
    rights: Rights,
    /// When it may do nothing any more; never where no token was asked for, or a token names no end.
    expires: Option<Instant>,
}

impl Identity {
    /// The identity that a client gives itself where no tokens are asked for: an id that is missing becomes a random
    /// one, a name that is missing becomes the id. It may do everything.
    ///
    /// # Errors
    /// A text for a person when the id cannot be a user's.
    pub fn open(user_id: Option<&str>, name: Option<&str>) -> Result<Self, String> {
        let id = match user_id.filter(|id| !id.is_empty()) {
            Some(id) => id.to_owned(),
            None => format!("{GUEST}{}", ids::short()),
        };
        check_user_id(&id).map_err(|rule| format!("user_id {rule}"))?;
        let name = check_name(name, &id)?;
        Ok(Self { person: Person { id, name }, rights: Rights::Everything, expires: None })
    }

    /// Whether this is, or calls itself, nobody in particular.
    pub fn is_guest(&self) -> bool {
        self.person.id.starts_with(GUEST)
    }

    /// What this identity may do with `topic` at this moment.
    pub fn access(&self, topic: &str) -> Access {
        if self.has_expired() { Access::None } else { self.rights.access(topic) }
    }

    /// Whether it may do at this moment what concerns the whole server and no topic: admin on the pattern `*`.
    pub fn is_admin(&self) -> bool {
        !self.has_expired() && self.rights.is_admin()
    }

    /// How every topic begins that begins with `prefix` and that this identity may do anything with, as far as that is
    /// known: a search needs to look nowhere else. None if there is no such topic.
    pub fn narrow(&self, prefix: &str) -> Option<String> {
        if self.has_expired() { None } else { self.rights.narrow(prefix) }
    }

    /// When its time is over; none if that never comes.
    pub fn expires(&self) -> Option<Instant> {
        self.expires
    }

    /// Whether its time is over.
    pub fn has_expired(&self) -> bool {
        self.expires.is_some_and(|expires| expires <= Instant::now())
    }
}

const MAX_NAME: usize = 256;
/// What the ids of those begin with who do not say who they are.
const GUEST: &str = "guest-";

/// Whether `id` may be a user's id, which is also a presence key.
///
/// # Errors
/// A text for a person that says what to use instead.
pub fn check_user_id(id: &str) -> Result<(), String> {
    if !ids::is_client_id(id) {
        return Err("must have 1 to 128 characters, none of them a control character".to_owned());
    }
    if id.starts_with("agent:") || ids::is_name_of_objects(id) {
        return Err(format!("{id:?} is reserved: choose another one"));
    }
    Ok(())
}

/// The name to show for the user `id`, who gives `name` or nothing.
fn check_name(name: Option<&str>, id: &str) -> Result<String, String> {
    let name = name.map(str::trim).filter(|name| !name.is_empty()).unwrap_or(id);
    if name.chars().count() > MAX_NAME || name.contains('\0') {
        return Err(format!("name is too long or holds U+0000: use at most {MAX_NAME} characters"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests;
