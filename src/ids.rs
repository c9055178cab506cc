//! Identities: who is who, and which of them may never repeat.
//!
//! An [`Incarnation`] is minted at each process start and after each retirement; it is random and derived from
//! nothing, so that two starts never share one. Ids that the server makes for messages and turns are UUIDs (v7, so
//! that they lie together in an index). A session's id is chosen by its users.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The identity of one life of a node: random, never reused, never a name, host or pid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub String);

impl Incarnation {
    /// A new random identity of 128 bits.
    pub fn mint() -> Self {
        Self(Uuid::new_v4().simple().to_string())
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A fresh id for a message or a turn: a UUID.
pub fn fresh() -> String {
    Uuid::now_v7().to_string()
}

/// A fresh random 64-bit number, as a lease's beat needs it.
pub fn beat() -> i64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    // A v4 UUID fixes four bits of its high half; the other half lends what is missing.
    let (_, low) = Uuid::new_v4().as_u64_pair();
    i64::from_ne_bytes((high ^ low.rotate_left(32)).to_ne_bytes())
}

/// Twelve random hexadecimal characters, for identities that live in one log or one connection.
pub fn short() -> String {
    let mut text = Uuid::new_v4().simple().to_string();
    text.truncate(12);
    text
}

/// Whether `id` may name a session: 1–128 characters of `A–Z a–z 0–9 _ . : -`.
pub fn is_session_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'))
}

/// What a person is told about a session id that [`is_session_id`] refuses.
pub const SESSION_ID_RULE: &str = "a session id has 1 to 128 characters of A-Z a-z 0-9 _ . : -";

/// Whether `id` may name a message that a client sends: 1–128 characters, none of them a control character.
pub fn is_client_id(id: &str) -> bool {
    !id.is_empty() && id.chars().count() <= 128 && !id.chars().any(char::is_control)
}

/// Whether JavaScript objects have something under this name already, where clients that keep people or topics in
/// objects find it.
pub fn is_name_of_objects(text: &str) -> bool {
    const NAMES: [&str; 13] = [
        "__proto__",
        "constructor",
        "prototype",
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "toLocaleString",
        "toString",
        "valueOf",
        "__defineGetter__",
        "__defineSetter__",
        "__lookupGetter__",
        "__lookupSetter__",
    ];
    NAMES.contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ids_are_checked_by_character_and_length() {
        for good in ["a", "A-z_0.9:x", &"x".repeat(128)] {
            assert!(is_session_id(good), "{good}");
        }
        for bad in ["", "a b", "ä", "a/b", "a\0", &"x".repeat(129)] {
            assert!(!is_session_id(bad), "{bad}");
        }
    }

    #[test]
    fn i1_two_incarnations_are_never_the_same() {
        let minted: std::collections::HashSet<_> = (0..10_000).map(|_| Incarnation::mint()).collect();
        assert_eq!(minted.len(), 10_000);
    }

    #[test]
    fn beats_use_all_their_bits() {
        let (mut ones, mut zeros) = (0, 0);
        for _ in 0..1_000 {
            let beat = beat();
            ones |= beat;
            zeros |= !beat;
        }
        assert_eq!((ones, zeros), (-1, -1));
    }
}
