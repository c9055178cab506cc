//! The shapes of answers that are put together from stored texts, and of what many of them hold.
//!
//! Objects may grow: none of them says that it has no other fields.

use serde_json::{Value, json};

/// An object with these properties, all of which are there.
fn object(description: &str, properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().map(|map| map.keys().collect()).unwrap_or_default();
    json!({ "type": "object", "description": description, "required": required, "properties": properties })
}

/// One of these words, or a word that a newer version knows.
fn word(known: &[&str]) -> Value {
    json!({ "anyOf": [{ "type": "string", "enum": known }, { "type": "string" }] })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn list_of(name: &str) -> Value {
    json!({ "type": "array", "items": reference(name) })
}

fn or_null(shape: Value) -> Value {
    json!({ "anyOf": [shape, { "type": "null" }] })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn seq() -> Value {
    json!({ "type": "integer", "format": "int64", "minimum": 0 })
}

/// A session's id.
pub(super) fn session_id() -> Value {
    json!({ "type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,128}$", "example": "planning" })
}

/// Every shape by its name.
pub(super) fn all() -> Vec<(&'static str, Value)> {
    let mut all = vec![
        ("Problem", problem()),
        ("Nothing", json!({ "type": "object", "description": "`{}`" })),
        ("Anything", json!({ "type": "object", "description": "Whatever it says." })),
        ("Unread", json!({ "description": "Any JSON; `{}` does.", "example": {} })),
        ("Presence", presence()),
        ("Session", session()),
        ("Turn", turn()),
        ("TurnError", turn_error()),
        ("Part", part()),
        ("Message", message()),
    ];
    all.extend(logs());
    all.extend(combined());
    all
}

/// What derived shapes cannot say by themselves.
pub(super) fn correct(schemas: &mut Value) {
    if let Some(send) = schemas.get_mut("Send") {
        let given = |name: &str, kind: &str| json!({ "required": [name], "properties": { name: { "type": kind } } });
        send["oneOf"] = json!([given("text", "string"), given("parts", "array")]);
    }
    let needs = |kinds: &[&str], fields: &[&str]| {
        let given = fields
            .iter()
            .map(|field| json!({ "required": [field], "not": { "properties": { *field: { "type": "null" } } } }));
        json!({ "properties": { "kind": { "enum": kinds } }, "anyOf": given.collect::<Vec<_>>() })
    };
    if let Some(part) = schemas.get_mut("NewPart") {
        part["oneOf"] = json!([
            needs(&["text", "reasoning"], &["text"]),
            needs(&["tool_call", "tool_result", "data"], &["text", "value"])
        ]);
    }
}

fn problem() -> Value {
    let codes = crate::protocol::codes::reason::ALL;
    let properties = json!({
        "type": { "type": "string", "enum": ["about:blank"] },
        "title": { "type": ["string", "null"] },
        "status": { "type": "integer", "minimum": 400, "maximum": 599 },
        "code": word(&codes),
        "detail": { "type": "string", "description": "What is wrong and what to do, for a person." },
    });
    let mut problem = object("Why a request was refused, as RFC 9457 wants it.", properties);
    problem["example"] = json!({
        "type": "about:blank", "title": "Not Found", "status": 404, "code": "not_found",
        "detail": "there is no session with this id"
    });
    problem
}

fn presence() -> Value {
    let meta = json!({ "type": "object", "required": ["phx_ref"], "properties": { "phx_ref": text() } });
    let metas = json!({ "type": "object", "required": ["metas"], "properties": { "metas": { "type": "array", "items": meta } } });
    let state = json!({ "type": "object", "additionalProperties": metas });
    object("Who is on a topic: for each user id its connections.", json!({ "presence": state }))
}

fn session() -> Value {
    let properties = json!({
        "id": session_id(), "epoch": text(), "status": word(&["idle", "queued", "running"]), "last_seq": seq(),
        "title": { "type": ["string", "null"] }, "metadata": { "type": "object" },
        "max_running": { "type": "integer", "minimum": 1, "maximum": 32 }, "created_at": time(), "updated_at": time(),
    });
    let mut session = object("A session. Its epoch names its log; another epoch is another log.", properties);
    session["example"] = json!({
        "id": "planning", "epoch": "9a10fa6fb8fb.1", "status": "running", "last_seq": 3, "title": null, "metadata": {},
        "max_running": 1, "created_at": "2026-11-22T10:00:00.000Z", "updated_at": "2026-11-22T10:00:00.123Z"
    });
    session
}

fn turn() -> Value {
    let owner = object("", json!({ "node": text(), "incarnation": text(), "liveness": word(&["alive", "unknown"]) }));
    let or_time = || json!({ "type": ["string", "null"], "format": "date-time" });
    let properties = json!({
        "id": text(), "status": word(&["queued", "running", "completed", "failed", "cancelled"]), "prompt_id": text(),
        "reply_id": text(), "agent": text(), "attempt": { "type": "integer", "minimum": 1 },
        "retry_of": { "type": ["string", "null"] }, "by": reference("Person"),
        "position": { "type": ["integer", "null"], "minimum": 1 }, "owner": or_null(owner), "queued_at": time(),
        "started_at": or_time(), "ended_at": or_time(), "ended_by": or_null(reference("Person")),
        "reason": or_null(word(&["user", "owner_gone", "shutdown", "superseded"])),
        "error": or_null(reference("TurnError")), "usage": { "type": ["object", "null"] },
    });
    object("One answer of an agent, from its acceptance to its end.", properties)
}

fn turn_error() -> Value {
    let codes = crate::protocol::codes::turn_error::ALL;
    object("Why a turn failed.", json!({ "code": word(&codes), "message": text(), "retryable": { "type": "boolean" } }))
}

fn part() -> Value {
    let properties = json!({ "kind": word(&["text", "reasoning", "tool_call", "tool_result", "data"]), "text": text(), "value": {} });
    let mut part = object("A piece of a message: text, a JSON value, or both.", properties);
    part["required"] = json!(["kind"]);
    part
}

fn message() -> Value {
    let properties = json!({
        "id": text(), "seq": seq(), "role": word(&["user", "assistant", "system"]), "author": or_null(reference("Person")),
        "turn_id": { "type": ["string", "null"] }, "status": word(&["complete", "streaming", "partial"]),
        "parts": list_of("Part"), "created_at": time(),
    });
    object("What a person or an agent said.", properties)
}

/// Events, and what carries them.
fn logs() -> Vec<(&'static str, Value)> {
    let page = json!({ "events": list_of("Event"), "epoch": text(), "last_seq": seq() });
    let stream = json!({
        "type": "string",
        "description": "Server-sent events. `joined` has the reply to a join as its data; `events` has {\"prev\",\"events\"}; \
                        an id is EPOCH:SEQ, split at its last colon.",
        "example": "event: joined\ndata: {\"session\":{},\"turns\":[],\"replay\":{},\"node\":{}}\nid: 9a10fa6fb8fb.1:0\n\n\
                    event: events\ndata: {\"prev\":0,\"events\":[]}\nid: 9a10fa6fb8fb.1:1\n\n"
    });
    vec![
        ("Event", event()),
        ("Events", object("A page of a log. It may hold fewer than were asked for: go on until `last_seq`.", page)),
        ("EventStream", stream),
    ]
}

fn event() -> Value {
    let delta = json!({
        "type": "object", "required": ["part", "kind"],
        "properties": { "part": { "type": "integer", "minimum": 0 }, "kind": text(), "text": text(), "value": {} }
    });
    let message = || or_null(reference("Message"));
    let data = |properties: Value| object("", properties);
    let kinds = [
        ("message_added", data(json!({ "message": reference("Message") }))),
        ("turn_queued", data(json!({ "turn": reference("Turn") }))),
        ("turn_started", data(json!({ "turn": reference("Turn") }))),
        ("turn_delta", delta),
        ("turn_completed", data(json!({ "message": reference("Message"), "usage": { "type": ["object", "null"] } }))),
        ("turn_failed", data(json!({ "error": reference("TurnError"), "message": message() }))),
        ("turn_cancelled", data(json!({ "reason": text(), "message": message() }))),
        (
            "session_updated",
            data(json!({
                "title": { "type": ["string", "null"] }, "metadata": { "type": "object" },
                "max_running": { "type": "integer" }
            })),
        ),
    ];
    let known: Vec<&str> = kinds.iter().map(|(kind, _)| *kind).collect();
    let unknown = json!({ "properties": { "type": { "not": { "enum": known } } } });
    let known = kinds.iter().map(|(kind, data)| json!({ "properties": { "type": { "enum": [kind] }, "data": data } }));
    let mut event = object(
        "A record of a session's log. Deltas that were merged carry the seq of the last, and of the first as `first`. A \
         newer server may have written other types: skip them.",
        json!({
            "seq": seq(), "type": text(), "at": time(), "by": or_null(reference("Person")),
            "turn_id": { "type": ["string", "null"] }, "data": { "type": "object" }
        }),
    );
    event["properties"]["first"] = seq();
    event["oneOf"] = known.chain([unknown]).collect();
    event
}

/// Answers that hold others.
fn combined() -> Vec<(&'static str, Value)> {
    let session = json!({ "session": reference("Session"), "turns": list_of("Turn") });
    let history = json!({
        "messages": list_of("Message"), "ended": list_of("Turn"), "before": seq(), "has_more": { "type": "boolean" }
    });
    let create = json!({
        "allOf": [reference("SessionId"), reference("Update")],
        "description": "A session to make.", "example": { "id": "planning", "title": "Plans" }
    });
    vec![
        (
            "SessionAndTurns",
            object("A session, and its turns that run, by start, then those that wait, in their order.", session),
        ),
        ("History", object("Messages, and for each prompt among them its newest turn, if that has ended.", history)),
        ("Create", create),
    ]
}
