//! Who a connection speaks for and what it may do.
//!
//! Knows nothing of connections or sessions: it turns what a client presents into an [`Identity`], and answers which
//! [`Access`] that identity has to a topic. Without tokens (`auth = none`) everybody has [`Access::Admin`].

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
}

impl Identity {
    /// The identity that a client gives itself where no tokens are asked for: an id that is missing becomes a random
    /// one, a name that is missing becomes the id.
    ///
    /// # Errors
    /// A text for a person when the id cannot be a user's.
    pub fn open(user_id: Option<&str>, name: Option<&str>) -> Result<Self, String> {
        let id = match user_id.filter(|id| !id.is_empty()) {
            Some(id) => id.to_owned(),
            None => format!("{GUEST}{}", ids::short()),
        };
        check_user_id(&id)?;
        let name = name.map(str::trim).filter(|name| !name.is_empty()).unwrap_or(&id).to_owned();
        if name.chars().count() > MAX_NAME || name.contains('\0') {
            return Err(format!("name is too long or holds U+0000: use at most {MAX_NAME} characters"));
        }
        Ok(Self { person: Person { id, name } })
    }

    /// Whether this is, or calls itself, nobody in particular.
    pub fn is_guest(&self) -> bool {
        self.person.id.starts_with(GUEST)
    }

    /// What this identity may do with `topic`.
    pub fn access(&self, _topic: &str) -> Access {
        Access::Admin
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
        return Err("user_id must have 1 to 128 characters, none of them a control character".to_owned());
    }
    if id.starts_with("agent:") || ids::is_name_of_objects(id) {
        return Err(format!("user_id {id:?} is reserved: choose another one"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_user_id_becomes_a_random_one_and_a_missing_name_the_id() {
        let one = Identity::open(None, None).unwrap();
        let two = Identity::open(None, None).unwrap();
        assert_ne!(one, two);
        assert_eq!(one.person.id, one.person.name);
        assert!(one.is_guest() && !Identity::open(Some("ada"), None).unwrap().is_guest());
    }

    #[test]
    fn ids_that_would_break_a_presence_map_are_refused() {
        for bad in ["agent:echo", "__proto__", "constructor", "prototype", "a\u{0}b"] {
            assert!(Identity::open(Some(bad), None).is_err(), "{bad}");
        }
        assert!(Identity::open(Some("ünï"), Some("Ada L.")).is_ok());
    }
}
