//! How the Kotlin client of Phoenix (`JavaPhoenixClient`) reads a version 2 text frame, in words of our own.
//!
//! It does not parse the frame as JSON. It drops the opening bracket, takes what stands before each of the next four
//! commas as join ref, ref, topic and event with every quote struck out, and parses only the rest, less the closing
//! bracket, as a JSON object. So white space or a comma in the wrong place is enough to lose a frame there. Every text
//! frame that a test receives has to be one that this reading understands as JSON would.

use serde_json::Value;

/// Whether the Kotlin client would read this frame as it is meant; if not, what it would get wrong. Topics and events
/// that hold a comma or a quote themselves are left out: no server can write those for it.
pub(crate) fn kotlin_reads(text: &str) -> Result<(), String> {
    let meant: Vec<Value> =
        serde_json::from_str(text).map_err(|error| format!("no array of JSON ({error}): {text:?}"))?;
    let [join_ref, reference, topic, event, payload] = meant.as_slice() else {
        return Err(format!("{} elements instead of five: {text:?}", meant.len()));
    };
    if [topic, event].iter().any(|name| name.as_str().is_none_or(|name| name.contains([',', '"']))) {
        return Ok(());
    }
    let read = read(text).ok_or_else(|| format!("fewer than four commas: {text:?}"))?;
    let fields = [("join_ref", join_ref), ("ref", reference), ("topic", topic), ("event", event)];
    for ((name, meant), read) in fields.into_iter().zip(read.envelope) {
        let meant = meant.as_str().map_or_else(|| meant.to_string(), str::to_owned);
        if escaped(&meant) {
            continue;
        }
        if read != meant {
            return Err(format!("{name} is read as {read:?} instead of {meant:?}: {text:?}"));
        }
    }
    match serde_json::from_str::<Value>(read.payload) {
        Ok(Value::Object(object)) if Value::Object(object.clone()) == *payload => Ok(()),
        Ok(other) => Err(format!("the payload is read as {other}, which is no object: {text:?}")),
        Err(error) => Err(format!("the payload is cut to what is no JSON ({error}): {text:?}")),
    }
}

/// What the comma-splitting reading finds.
struct Read<'a> {
    envelope: [String; 4],
    payload: &'a str,
}

fn read(text: &str) -> Option<Read<'_>> {
    let mut rest = text.get(1..)?;
    let mut envelope = [const { String::new() }; 4];
    for field in &mut envelope {
        let (before, after) = rest.split_once(',')?;
        *field = before.replace('"', "");
        rest = after;
    }
    let end = rest.char_indices().next_back()?.0;
    Some(Read { envelope, payload: &rest[..end] })
}

/// Whether JSON cannot write a text without an escape, which this reading keeps as it stands.
fn escaped(text: &str) -> bool {
    text.contains(['"', '\\', ',']) || text.chars().any(char::is_control)
}

#[test]
fn frames_of_the_server_are_read_as_they_are_meant() {
    for frame in [
        r#"["11","1","room:a","phx_reply",{"status":"ok","response":{}}]"#,
        r#"[null,null,"room:a","shout",{"text":"one, two, \"three\""}]"#,
        r#"[0,2,"room:a","phx_reply",{"response":{"list":[1,2]},"status":"ok"}]"#,
        r#"["11","11","café:🚀","phx_close",{}]"#,
        r#"[null,null,"a,b","shout",{}]"#,
        r#"[null,"1",5,"phx_reply",{}]"#,
    ] {
        assert_eq!(kotlin_reads(frame), Ok(()), "{frame}");
    }
}

#[test]
fn what_it_cannot_read_is_named() {
    for (frame, part) in [
        (r#"["11", "1", "room:a", "phx_reply", {}]"#, "ref is read"),
        (r#"[null,null,"room:a","list",[1]]"#, "no object"),
        (r#"[null,null,"room:a","text","x"]"#, "no object"),
        (r#"[null,null,"room:a","more",{},{}]"#, "6 elements"),
        (r#"[null,null,"room:a","space",{} ] "#, "cut to"),
        ("{}", "no array"),
    ] {
        let found = kotlin_reads(frame).unwrap_err();
        assert!(found.contains(part), "{frame}: {found}");
    }
}
