//! `GET /api/sessions/{id}/events` for those who want to go on listening: which place they resume from.
//!
//! What is sent is the business of [`crate::transport`]. Its invariant: listening makes no session, and a place that
//! cannot be understood gives a snapshot, as a cursor in a join does.

use axum::http::{HeaderMap, header};
use serde_json::{Value, json};

use super::{Api, request::Answer, who::Who};
use crate::{
    protocol::{Payload, event_stream::split_id},
    session::topic_of,
};

/// The media type that asks for a stream.
const KIND: &str = "text/event-stream";
/// Where a browser that comes back says which event it got last.
const LAST_EVENT_ID: &str = "last-event-id";

/// Whether a request wants a stream and not a page.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = lines.flat_map(|line| line.split(',')).map(|kind| kind.split(';').next().unwrap_or_default());
    kinds.any(|kind| kind.trim().eq_ignore_ascii_case(KIND))
}

/// Begins to listen to a session: after the event that the reader got last, or after the place that it asks for.
pub(super) async fn open(
    api: &Api,
    who: &Who,
    session: &str,
    headers: &HeaderMap,
    (after, epoch): (Option<u64>, Option<String>),
) -> Answer {
    let (last_seq, epoch) = match headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
        Some(id) => place(id.to_str().unwrap_or_default()),
        None => (json!(after), json!(epoch)),
    };
    let params = json!({ "last_seq": last_seq, "epoch": epoch, "create": false });
    let topic = topic_of(session);
    let opened = api.streams.event_stream(who.identity().clone(), &topic, Payload::json(&params));
    Ok(Box::pin(opened).await?)
}

/// The parameters of a join for an event's id.
fn place(id: &str) -> (Value, Value) {
    let (epoch, seq) = split_id(id).unwrap_or_default();
    (seq.parse::<u64>().map_or_else(|_| json!(id), |seq| json!(seq)), json!(epoch))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_stream_is_asked_for_by_its_media_type() {
        for (accept, wanted) in [
            (&["text/event-stream"][..], true),
            (&["application/json, Text/Event-Stream;q=0.9"], true),
            (&["application/json", "text/event-stream"], true),
            (&["*/*"], false),
            (&["text/event-stream-x"], false),
            (&[], false),
        ] {
            let headers = accept.iter().map(|value| (header::ACCEPT, HeaderValue::from_static(value))).collect();
            assert_eq!(is_wanted(&headers), wanted, "{accept:?}");
        }
    }

    #[test]
    fn the_last_colon_of_an_id_splits_it_and_what_is_none_is_no_cursor() {
        assert_eq!(place("e:1.2:41"), (json!(41), json!("e:1.2")));
        for bad in ["41", "e:", "e:-1", "e:x", "e:4.5", "", "e:99999999999999999999"] {
            assert!(place(bad).0.is_string(), "{bad}");
        }
    }
}
