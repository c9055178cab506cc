//! What a token says once its signature is known to be right.
//!
//! Pure: the time is handed in. Its invariant: a token that says anything that is not understood, or lacks what it has
//! to say, gives no identity; nothing is guessed.

use serde::Deserialize;
use serde_json::Number;

use super::{Refused, check_name, check_user_id, rights::Rights};
use crate::{clock::Timestamp, protocol::complaint};

/// How far the clock of whoever issues tokens may be ahead: a token is valid so many milliseconds before its `nbf`. Its
/// `exp` is taken as it is, since who is asked to log in again a moment early loses nothing.
const LEEWAY_MS: i64 = 5_000;
/// More than any clock shows.
const MAX_MS: f64 = 9.0e15;

/// What a token has to say beside its signature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// The `iss` of every token.
    pub(super) issuer: Option<String>,
    /// What the `aud` of every token has to name.
    pub(super) audience: Option<String>,
}

/// What a token says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) user_id: String,
    pub(super) name: String,
    pub(super) rights: Rights,
    /// When its time is over, if it says so.
    pub(super) expires: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Payload {
    sub: Option<String>,
    name: Option<String>,
    exp: Option<Number>,
    nbf: Option<Number>,
    iss: Option<String>,
    aud: Option<Audience>,
    #[serde(default = "Rights::nothing")]
    topics: Rights,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn names(&self, wanted: &str) -> bool {
        match self {
            Self::One(name) => name == wanted,
            Self::Many(names) => names.iter().any(|name| name == wanted),
        }
    }
}

/// Reads the payload of a token whose signature is right.
pub(super) fn read(payload: &[u8], rules: &Rules, now: Timestamp) -> Result<Claims, Refused> {
    let payload: Payload = serde_json::from_slice(payload).map_err(|error| Refused::Claims(complaint(&error)))?;
    let expires = milliseconds(payload.exp.as_ref(), "exp")?;
    if expires.is_some_and(|expires| expires.0 <= now.0) {
        return Err(Refused::Expired);
    }
    if milliseconds(payload.nbf.as_ref(), "nbf")?.is_some_and(|begins| begins.0 > now.0 + LEEWAY_MS) {
        return Err(Refused::TooEarly);
    }
    if rules.issuer.is_some() && rules.issuer != payload.iss {
        return Err(Refused::Issuer);
    }
    if let Some(wanted) = &rules.audience
        && !payload.aud.is_some_and(|audience| audience.names(wanted))
    {
        return Err(Refused::Audience);
    }
    let user_id = payload.sub.ok_or_else(|| Refused::Claims("sub is missing; it is the user's id".to_owned()))?;
    check_user_id(&user_id).map_err(|rule| Refused::Claims(format!("sub: {rule}")))?;
    let name = check_name(payload.name.as_deref(), &user_id).map_err(Refused::Claims)?;
    Ok(Claims { user_id, name, rights: payload.topics, expires })
}

/// A time as JWTs write it: seconds, perhaps with a fraction.
fn milliseconds(seconds: Option<&Number>, claim: &str) -> Result<Option<Timestamp>, Refused> {
    let Some(seconds) = seconds else { return Ok(None) };
    let milliseconds = seconds.as_f64().map(|seconds| seconds * 1_000.0).filter(|ms| (0.0..MAX_MS).contains(ms));
    let milliseconds = milliseconds.ok_or_else(|| Refused::Claims(format!("{claim} is no time; write seconds")))?;
    Ok(Some(Timestamp(milliseconds as i64)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::Access;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const SECONDS: i64 = NOW.0 / 1_000;

    /// The claims of a sound token with `change` in it; null takes a claim out.
    fn read_with(change: Value, rules: &Rules) -> Result<Claims, Refused> {
        let mut claims = json!({"sub": "u1", "exp": SECONDS + 60, "topics": {"session:*": "write"}});
        for (key, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(key)),
                value => claims[key] = value.clone(),
            }
        }
        read(claims.to_string().as_bytes(), rules, NOW)
    }

    fn with(change: Value) -> Result<Claims, Refused> {
        read_with(change, &Rules::default())
    }

    #[test]
    fn a_sound_token_says_who_and_what_and_until_when() {
        let claims = with(json!({"name": " Ada ", "exp": SECONDS as f64 + 1.5, "aud": ["x"], "iss": "y"})).unwrap();
        assert_eq!((claims.user_id.as_str(), claims.name.as_str()), ("u1", "Ada"));
        assert_eq!(claims.expires, Some(Timestamp(NOW.0 + 1_500)));
        assert_eq!(claims.rights.access("session:a"), Access::Write);
        let bare = with(json!({"topics": null, "exp": null})).unwrap();
        assert_eq!((bare.name.as_str(), bare.rights.access("session:a")), ("u1", Access::None));
        assert_eq!(bare.expires, None);
    }

    #[test]
    fn its_time_has_an_end_and_perhaps_a_beginning() {
        assert_eq!(with(json!({"exp": SECONDS})), Err(Refused::Expired));
        assert_eq!(with(json!({"exp": 0})), Err(Refused::Expired));
        assert!(with(json!({"exp": SECONDS + 1})).is_ok());
        assert!(with(json!({"nbf": SECONDS + 5})).is_ok());
        assert_eq!(with(json!({"nbf": SECONDS + 6})), Err(Refused::TooEarly));
        for bad in [json!("1"), json!(-1), json!(1e300), json!(true), json!([1])] {
            assert!(matches!(with(json!({"exp": bad})), Err(Refused::Claims(_))), "exp {bad}");
        }
        assert!(matches!(with(json!({"nbf": -5})), Err(Refused::Claims(_))));
    }

    #[test]
    fn issuer_and_audience_are_asked_for_where_they_are_set() {
        let rules = Rules { issuer: Some("https://i".to_owned()), audience: Some("rejoin".to_owned()) };
        for (change, expected) in [
            (json!({"iss": "https://i", "aud": "rejoin"}), None),
            (json!({"iss": "https://i", "aud": ["x", "rejoin"]}), None),
            (json!({"aud": "rejoin"}), Some(Refused::Issuer)),
            (json!({"iss": "https://i/", "aud": "rejoin"}), Some(Refused::Issuer)),
            (json!({"iss": "https://i"}), Some(Refused::Audience)),
            (json!({"iss": "https://i", "aud": []}), Some(Refused::Audience)),
            (json!({"iss": "https://i", "aud": "Rejoin"}), Some(Refused::Audience)),
        ] {
            assert_eq!(read_with(change.clone(), &rules).err(), expected, "{change}");
        }
        for change in [json!({"iss": ["https://i"], "aud": "rejoin"}), json!({"iss": "https://i", "aud": 1})] {
            assert!(matches!(read_with(change.clone(), &rules), Err(Refused::Claims(_))), "{change}");
        }
    }

    #[test]
    fn malformed_claims_refuse_the_token_with_the_reason() {
        for (change, reason) in [
            (json!({"sub": null}), "sub is missing"),
            (json!({"sub": ""}), "1 to 128 characters"),
            (json!({"sub": "agent:echo"}), "reserved"),
            (json!({"sub": "a\nb"}), "control character"),
            (json!({"sub": 7}), "expected a string"),
            (json!({"name": "x".repeat(257)}), "name is too long"),
            (json!({"name": {}}), "expected a string"),
            (json!({"topics": {"a*b": "read"}}), "\"a*b\""),
            (json!({"topics": []}), "an object of patterns"),
        ] {
            match with(change.clone()) {
                Err(Refused::Claims(text)) => assert!(text.contains(reason) && !text.contains("line"), "{text}"),
                other => panic!("{change}: {other:?}"),
            }
        }
        for text in ["", "[]", "1", "{", r#"{"sub":"a","sub":"b","exp":9e9}"#] {
            assert!(matches!(read(text.as_bytes(), &Rules::default(), NOW), Err(Refused::Claims(_))), "{text}");
        }
    }
}
