//! What an identity may do: patterns of topics, and an access for each.
//!
//! Pure. The most specific pattern that matches a topic decides alone: its own name before any pattern with a `*`, and
//! of those the longest. So a token can take back on one topic what it gives on many, and a lower right that is written
//! down is never without effect. The invariant: what no pattern matches is not allowed.

use std::{fmt, sync::Arc};

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use super::Access;

/// How many patterns a token may have.
const MAX_PATTERNS: usize = 1_000;
/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 1_024;

/// What an identity may do. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rights {
    /// Everything, everywhere.
    Everything,
    /// What these say; the most specific first.
    Granted(Arc<[Grant]>),
}

/// One entry of a token's `topics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    /// The topic's name, or how it begins.
    name: Box<str>,
    /// Whether there was a `*` behind it.
    is_prefix: bool,
    access: Access,
}

impl Rights {
    /// None at all.
    pub(super) fn nothing() -> Self {
        Self::Granted(Arc::default())
    }

    /// What is allowed on `topic`.
    pub(super) fn access(&self, topic: &str) -> Access {
        match self {
            Self::Everything => Access::Admin,
            Self::Granted(grants) => {
                grants.iter().find(|grant| grant.matches(topic)).map_or(Access::None, |grant| grant.access)
            }
        }
    }

    /// Whether the pattern `*` gives everything: what is asked of the whole server and not of a topic.
    pub(super) fn is_admin(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Granted(grants) => {
                grants.iter().any(|grant| grant.is_prefix && grant.name.is_empty() && grant.access == Access::Admin)
            }
        }
    }

    /// How every topic begins that begins with `prefix` and that anything is allowed on, as far as that is known: no
    /// other can be allowed. None if there is no such topic.
    pub(super) fn narrow(&self, prefix: &str) -> Option<String> {
        let Self::Granted(grants) = self else { return Some(prefix.to_owned()) };
        let mut within = grants.iter().filter_map(|grant| grant.within(prefix));
        let first = within.next()?.to_owned();
        Some(within.fold(first, |common, next| shared(&common, next).to_owned()))
    }
}

impl Grant {
    fn matches(&self, topic: &str) -> bool {
        if self.is_prefix { topic.starts_with(&*self.name) } else { topic == &*self.name }
    }

    /// The longer one of `prefix` and this one's name, where one begins with the other.
    fn within<'a>(&'a self, prefix: &'a str) -> Option<&'a str> {
        if self.name.starts_with(prefix) {
            Some(&self.name)
        } else {
            (self.is_prefix && prefix.starts_with(&*self.name)).then_some(prefix)
        }
    }

    /// Names before patterns, long patterns before short ones.
    fn order(&self) -> (bool, std::cmp::Reverse<usize>) {
        (self.is_prefix, std::cmp::Reverse(self.name.len()))
    }

    fn read<E: de::Error>(pattern: &str, access: &str) -> Result<Self, E> {
        let access = match access {
            "read" => Access::Read,
            "write" => Access::Write,
            "admin" => Access::Admin,
            _ => return Err(E::custom(format!("topics gives {pattern:?} an access that is not read, write or admin"))),
        };
        let (name, is_prefix) = match pattern.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (pattern, false),
        };
        if pattern.is_empty() || pattern.len() > MAX_PATTERN || name.contains('*') {
            let rule = "a topic's name, or how it begins and one * behind that";
            return Err(E::custom(format!("topics has the pattern {pattern:?}; write {rule}")));
        }
        Ok(Self { name: name.into(), is_prefix, access })
    }
}

fn shared<'a>(one: &'a str, other: &str) -> &'a str {
    let same = one.char_indices().zip(other.chars()).find(|((_, a), b)| a != b);
    let end = same.map_or_else(|| one.len().min(other.len()), |((at, _), _)| at);
    one.get(..end).unwrap_or_default()
}

impl<'de> Deserialize<'de> for Rights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Patterns)
    }
}

struct Patterns;

impl<'de> Visitor<'de> for Patterns {
    type Value = Rights;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("topics to be an object of patterns, each with read, write or admin")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Rights, M::Error> {
        let mut grants: Vec<Grant> = Vec::new();
        while let Some((pattern, access)) = map.next_entry::<String, String>()? {
            if grants.len() == MAX_PATTERNS {
                return Err(de::Error::custom(format!("topics has more than {MAX_PATTERNS} patterns")));
            }
            grants.push(Grant::read(&pattern, &access)?);
        }
        grants.sort_by(|a, b| a.order().cmp(&b.order()).then_with(|| a.name.cmp(&b.name)));
        if let Some(pair) = grants.windows(2).find(|pair| pair[0].same_pattern(&pair[1])) {
            return Err(de::Error::custom(format!("topics has the pattern of {:?} twice", pair[0].name)));
        }
        Ok(Rights::Granted(grants.into()))
    }
}

impl Grant {
    fn same_pattern(&self, other: &Self) -> bool {
        (self.is_prefix, &self.name) == (other.is_prefix, &other.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(json: &str) -> Rights {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_most_specific_pattern_decides() {
        let table = rights(
            r#"{"*":"read","session:*":"write","session:team:*":"admin","session:team:x":"read","room:lobby":"write",
                "sessions":"admin","s*":"write"}"#,
        );
        for (topic, access) in [
            ("session:a", Access::Write),
            ("session:", Access::Write),
            ("session:team:", Access::Admin),
            ("session:team:1", Access::Admin),
            ("session:team:x", Access::Read),
            ("session:team:xy", Access::Admin),
            ("room:lobby", Access::Write),
            ("room:lobby2", Access::Read),
            ("sessions", Access::Admin),
            ("sessionz", Access::Write),
            ("anything", Access::Read),
            ("", Access::Read),
        ] {
            assert_eq!(table.access(topic), access, "{topic:?}");
        }
    }

    #[test]
    fn what_no_pattern_matches_is_not_allowed() {
        let table = rights(r#"{"session:a":"admin","room:*":"read"}"#);
        for topic in ["session:ab", "session:", "SESSION:a", "sessions", "roo", "*", "session:*"] {
            assert_eq!(table.access(topic), Access::None, "{topic:?}");
        }
        assert_eq!(rights("{}").access("session:a"), Access::None);
        assert_eq!(Rights::nothing().access("session:a"), Access::None);
        assert_eq!(Rights::Everything.access("session:a"), Access::Admin);
    }

    #[test]
    fn only_admin_on_everything_is_admin_of_the_server() {
        for (json, admin) in [
            (r#"{"*":"admin"}"#, true),
            (r#"{"*":"admin","session:x":"read"}"#, true),
            (r#"{"*":"write"}"#, false),
            (r#"{"session:*":"admin","room:*":"admin","sessions":"admin"}"#, false),
            ("{}", false),
        ] {
            assert_eq!(rights(json).is_admin(), admin, "{json}");
        }
        assert!(Rights::Everything.is_admin() && !Rights::nothing().is_admin());
    }

    #[test]
    fn patterns_and_levels_that_mean_nothing_are_refused_with_the_reason() {
        for (json, reason) in [
            (r#"{"a*b":"read"}"#, "\"a*b\""),
            (r#"{"**":"read"}"#, "\"**\""),
            (r#"{"":"read"}"#, "\"\""),
            (r#"{"a":"owner"}"#, "not read, write or admin"),
            (r#"{"a":"Read"}"#, "not read, write or admin"),
            (r#"{"a":"none"}"#, "not read, write or admin"),
            (r#"{"a":1}"#, "a string"),
            (r#"{"a":null}"#, "a string"),
            (r#"{"a":"read","a":"admin"}"#, "twice"),
            (r#"{"a*":"read","b":"read","a*":"read"}"#, "twice"),
            (r#"["session:*"]"#, "an object of patterns"),
            (r#""session:*""#, "an object of patterns"),
            ("null", "an object of patterns"),
        ] {
            let error = serde_json::from_str::<Rights>(json).unwrap_err().to_string();
            assert!(error.contains(reason), "{json}: {error}");
        }
        let many = (0..=MAX_PATTERNS).map(|n| format!("\"t{n}\":\"read\"")).collect::<Vec<_>>().join(",");
        assert!(serde_json::from_str::<Rights>(&format!("{{{many}}}")).is_err());
        let long = format!("{{\"{}\":\"read\"}}", "x".repeat(MAX_PATTERN + 1));
        assert!(serde_json::from_str::<Rights>(&long).is_err());
    }

    #[test]
    fn a_search_is_narrowed_to_where_anything_may_be_found() {
        for (json, prefix, expected) in [
            (r#"{"session:*":"read"}"#, "session:ab", Some("session:ab")),
            (r#"{"session:team:*":"read"}"#, "session:", Some("session:team:")),
            (r#"{"session:a1":"read","session:a2*":"read"}"#, "session:", Some("session:a")),
            (r#"{"session:a1":"read","session:b":"read"}"#, "session:b", Some("session:b")),
            (r#"{"session:ü":"read","session:ö":"read"}"#, "session:", Some("session:")),
            (r#"{"session:a1":"read"}"#, "session:b", None),
            (r#"{"room:*":"admin"}"#, "session:", None),
            (r#"{"*":"read"}"#, "session:", Some("session:")),
            ("{}", "session:", None),
        ] {
            assert_eq!(rights(json).narrow(prefix).as_deref(), expected, "{json} {prefix}");
        }
        assert_eq!(Rights::Everything.narrow("session:x").as_deref(), Some("session:x"));
    }
}
