//! One look at a client's JSON before it is kept: how deep it goes, and whether it has blanks to drop.
//!
//! Works on text that is known to be JSON, without recursion, so that no nesting can exhaust the stack. What it
//! returns has no white space outside strings: some clients cut frames at commas, and none should pay for another
//! one's indentation.

use serde_json::value::RawValue;

use super::{Fault, MAX_DEPTH, Payload};

/// Copies `raw` out of its frame, compact.
///
/// # Errors
/// [`Fault::TooDeep`].
pub(super) fn keep(raw: &RawValue) -> Result<Payload, Fault> {
    let text = raw.get();
    let blanks = look(text)?;
    if blanks == 0 {
        return Ok(Payload::Json(raw.to_owned()));
    }
    Ok(Payload::raw(compact(text, blanks)))
}

/// `value` without white space outside strings.
pub fn compacted(value: Box<RawValue>) -> Box<RawValue> {
    let mut blanks = 0;
    walk(value.get(), |byte, outside| blanks += usize::from(outside && is_blank(byte)));
    if blanks == 0 {
        return value;
    }
    RawValue::from_string(compact(value.get(), blanks)).unwrap_or(value)
}

/// Walks over the bytes of a JSON text and hands each to `see`, with whether it lies outside strings.
fn walk(text: &str, mut see: impl FnMut(u8, bool)) {
    let (mut inside, mut escaped) = (false, false);
    for byte in text.bytes() {
        if inside {
            inside = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            see(byte, false);
        } else {
            inside = byte == b'"';
            see(byte, !inside);
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// How many bytes outside strings are blank.
fn look(text: &str) -> Result<usize, Fault> {
    let (mut depth, mut deepest, mut blanks) = (0_usize, 0, 0);
    walk(text, |byte, outside| match byte {
        b'[' | b'{' if outside => {
            depth += 1;
            deepest = deepest.max(depth);
        }
        b']' | b'}' if outside => depth = depth.saturating_sub(1),
        _ if outside && is_blank(byte) => blanks += 1,
        _ => {}
    });
    if deepest > MAX_DEPTH { Err(Fault::TooDeep) } else { Ok(blanks) }
}

fn compact(text: &str, blanks: usize) -> String {
    let mut kept = Vec::with_capacity(text.len().saturating_sub(blanks));
    walk(text, |byte, outside| {
        if !(outside && is_blank(byte)) {
            kept.push(byte);
        }
    });
    // Only whole ASCII characters were dropped.
    String::from_utf8(kept).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> Result<String, Fault> {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        keep(raw).map(|payload| payload.as_json().unwrap().to_owned())
    }

    #[test]
    fn blanks_outside_strings_are_dropped() {
        let spaced = "{ \"a b\" :\t[ 1 , \"c \\\" d\\\\\" ,\n null ] }";
        assert_eq!(kept(spaced).unwrap(), r#"{"a b":[1,"c \" d\\",null]}"#);
        assert_eq!(kept(r#"{"é 🚀":1}"#).unwrap(), r#"{"é 🚀":1}"#);
    }

    #[test]
    fn depth_is_bounded_and_brackets_in_strings_do_not_count() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(kept(&nested(MAX_DEPTH)).is_ok());
        assert!(matches!(kept(&nested(MAX_DEPTH + 1)), Err(Fault::TooDeep)));
        assert!(matches!(kept(&nested(100_000)), Err(Fault::TooDeep)));
        assert!(kept(&format!("\"{}\"", "[".repeat(1_000))).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn compacting_never_changes_the_value(words in proptest::collection::vec(".*", 0..8)) {
            let value = serde_json::json!({ "words": words, "n": [1, { "x": null }] });
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let compacted = kept(&pretty).unwrap();
            proptest::prop_assert_eq!(&compacted, &serde_json::to_string(&value).unwrap());
            let raw = super::compacted(RawValue::from_string(pretty).unwrap());
            proptest::prop_assert_eq!(raw.get(), &compacted);
        }
    }
}
