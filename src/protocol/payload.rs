//! What a frame carries: JSON that is passed on as the text it came in, or bytes.
//!
//! Knows no event and no topic. Its invariant: a [`Payload::Json`] is valid JSON, and it is parsed only by those who
//! need to look inside.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

/// The payload of a frame.
#[derive(Debug, Clone)]
pub enum Payload {
    /// A JSON value, as text.
    Json(Box<RawValue>),
    /// Bytes, for those who asked for bytes.
    Binary(Bytes),
}

impl Payload {
    /// `value` as JSON. A value that has no form in JSON (a map with keys that are not strings) becomes `null`.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        let raw = serde_json::value::to_raw_value(value);
        debug_assert!(raw.is_ok(), "a payload that is not JSON");
        Self::Json(raw.unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }

    /// Text that is JSON already, such as an event as it was stored. Text that is not JSON becomes `null`, so that it
    /// can never break the frame around it.
    pub fn raw(text: String) -> Self {
        let raw = RawValue::from_string(text);
        debug_assert!(raw.is_ok(), "a raw payload that is not JSON");
        Self::Json(raw.unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }

    /// `{}`.
    pub fn empty() -> Self {
        Self::json(&serde_json::Map::new())
    }

    /// The payload as a `T`.
    ///
    /// # Errors
    /// When it is not that shape, or is nested deeper than a parser goes, or is binary.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match self {
            Self::Json(raw) => serde_json::from_str(raw.get()),
            Self::Binary(_) => Err(serde::de::Error::custom("expected JSON, found bytes")),
        }
    }

    /// The JSON text; `None` for bytes.
    pub fn as_json(&self) -> Option<&str> {
        match self {
            Self::Json(raw) => Some(raw.get()),
            Self::Binary(_) => None,
        }
    }

    /// Whether this is a JSON object, as most clients want every push and broadcast to be.
    pub fn is_object(&self) -> bool {
        self.as_json().is_some_and(|text| text.starts_with('{'))
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(raw) => raw.get().len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether it has no bytes at all, which only a binary one can.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_kept_as_the_text_it_came_in() {
        let payload = Payload::raw(r#"{"b":1.0,"a":[1e3]}"#.to_owned());
        assert_eq!(payload.as_json(), Some(r#"{"b":1.0,"a":[1e3]}"#));
        assert!(payload.is_object());
        assert_eq!(payload.len(), 19);
    }

    #[test]
    fn the_empty_payload_is_an_empty_object() {
        assert_eq!(Payload::empty().as_json(), Some("{}"));
    }

    #[test]
    fn parsing_tells_what_is_wrong_and_survives_bytes() {
        assert_eq!(Payload::json(&[1, 2]).parse::<Vec<u8>>().unwrap(), [1, 2]);
        assert!(Payload::json("text").parse::<Vec<u8>>().is_err());
        assert!(Payload::Binary(Bytes::from_static(b"{}")).parse::<serde_json::Value>().is_err());
    }
}
