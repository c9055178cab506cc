//! One message to everybody on a topic, encoded once per serializer however many read it.
//!
//! Knows no subscriber. Its invariant: all readers that speak the same version get the same bytes, from one
//! allocation.

use std::sync::{Arc, OnceLock};

use super::{Error, Payload, Serializer, Wire};

/// A message to everybody on a topic.
#[derive(Debug)]
pub struct Broadcast {
    topic: Arc<str>,
    event: String,
    payload: Payload,
    v1: OnceLock<Wire>,
    v2: OnceLock<Wire>,
    event_stream: OnceLock<Wire>,
}

impl Broadcast {
    /// A broadcast of `event`. Clients expect `payload` to be a JSON object, or bytes; those who speak no binary are
    /// not shown bytes.
    pub fn new(topic: impl Into<Arc<str>>, event: impl Into<String>, payload: Payload) -> Self {
        let (v1, v2, event_stream) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { topic: topic.into(), event: event.into(), payload, v1, v2, event_stream }
    }

    /// Where it goes.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What it is called. Empty where there is nothing to show to clients.
    pub fn event(&self) -> &str {
        &self.event
    }

    /// What it carries.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The message for those who speak `serializer`; encoded by the first who asks.
    ///
    /// # Errors
    /// [`Error::Binary`] and [`Error::TooLong`] where the serializer cannot carry it.
    pub fn encoded(&self, serializer: Serializer) -> Result<Wire, Error> {
        let cell = match serializer {
            Serializer::V1 => &self.v1,
            Serializer::V2Text if self.payload.as_json().is_none() => return Err(Error::Binary),
            Serializer::V2 | Serializer::V2Text => &self.v2,
            Serializer::EventStream => &self.event_stream,
        };
        if let Some(wire) = cell.get() {
            return Ok(wire.clone());
        }
        let wire = serializer.broadcast(&self.topic, &self.event, &self.payload)?;
        // Two who encode at once make the same bytes; the first one's stay.
        Ok(cell.get_or_init(|| wire).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j94_everybody_shares_one_encoding() {
        let broadcast = Broadcast::new("room:1", "x", Payload::json(&serde_json::json!({ "a": 1 })));
        let text = |serializer| broadcast.encoded(serializer).unwrap().as_text().unwrap().to_owned();
        assert_eq!(text(Serializer::V2), r#"[null,null,"room:1","x",{"a":1}]"#);
        assert_eq!(text(Serializer::V1), r#"{"topic":"room:1","event":"x","payload":{"a":1},"ref":null}"#);
        let place = |serializer| broadcast.encoded(serializer).unwrap().as_text().unwrap().as_ptr();
        assert_eq!(place(Serializer::V2), place(Serializer::V2Text));
        assert_eq!(place(Serializer::V1), place(Serializer::V1));
    }

    #[test]
    fn h83_bytes_reach_only_those_who_speak_binary() {
        let broadcast = Broadcast::new("room:1", "bin", Payload::Binary(bytes::Bytes::from_static(&[1, 2, 3])));
        assert!(matches!(broadcast.encoded(Serializer::V2), Ok(Wire::Binary(_))));
        assert!(matches!(broadcast.encoded(Serializer::V1), Err(Error::Binary)));
        assert!(matches!(broadcast.encoded(Serializer::V2Text), Err(Error::Binary)));
    }
}
