//! What is JSON and yet no reader should be handed: U+0000, half a surrogate pair, a pit of brackets.
//!
//! Pure; looks at text that is known to be JSON, without parsing it. What passes is kept as it came and sent to
//! everybody in a session, so one client's oddity would make every other one stumble, for as long as the log lives.
//! The invariant: what passes can be held by any store and read by parsers with the usual limits.

use serde_json::value::RawValue;

/// How deep a payload may be nested: common parsers stop at 128, and an event wraps a payload in a few levels.
pub const MAX_DEPTH: usize = 100;

/// Why a text is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// Not every store can hold it.
    #[error("a string holds U+0000; remove it")]
    Nul,
    /// It stands for no character, and strict parsers refuse it.
    #[error("a string holds half of a surrogate pair; send whole characters")]
    Surrogate,
    /// Common parsers refuse it.
    #[error("it is nested deeper than {MAX_DEPTH} levels; flatten it")]
    Depth,
}

/// Checks a JSON text.
///
/// # Errors
/// The first thing in it that others would stumble over.
pub fn check(json: &str) -> Result<(), Unsound> {
    let bytes = json.as_bytes();
    let (mut at, mut depth, mut in_string) = (0, 0_usize, false);
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'\\' => escape(bytes.get(at..).unwrap_or_default())?,
            b'"' => {
                in_string = !in_string;
                1
            }
            b'[' | b'{' if !in_string => {
                depth += 1;
                1
            }
            b']' | b'}' if !in_string => {
                depth = depth.saturating_sub(1);
                1
            }
            _ => 1,
        };
        if depth > MAX_DEPTH {
            return Err(Unsound::Depth);
        }
    }
    Ok(())
}

/// `value` with U+FFFD for each U+0000 in its strings; everything else stays as it came.
pub fn without_nul(value: Box<RawValue>) -> Box<RawValue> {
    const NUL: &str = "\\u0000";
    if !value.get().contains(NUL) {
        return value;
    }
    let mut clean = String::with_capacity(value.get().len());
    let mut rest = value.get();
    while let Some((before, escape)) = rest.find('\\').map(|at| rest.split_at(at)) {
        // An escaped backslash is taken whole: the digits behind it are no escape.
        let length = if escape.starts_with(NUL) { NUL.len() } else { 2 };
        let (taken, after) = escape.split_at_checked(length).unwrap_or((escape, ""));
        clean.push_str(before);
        clean.push_str(if taken == NUL { "\\ufffd" } else { taken });
        rest = after;
    }
    clean.push_str(rest);
    RawValue::from_string(clean).unwrap_or(value)
}

/// The length of the escape, or pair of escapes, that `bytes` begin with.
fn escape(bytes: &[u8]) -> Result<usize, Unsound> {
    match unit(bytes) {
        None => Ok(2),
        Some(0) => Err(Unsound::Nul),
        Some(0xD800..=0xDBFF) => match unit(bytes.get(6..).unwrap_or_default()) {
            Some(0xDC00..=0xDFFF) => Ok(12),
            _ => Err(Unsound::Surrogate),
        },
        Some(0xDC00..=0xDFFF) => Err(Unsound::Surrogate),
        Some(_) => Ok(6),
    }
}

/// The number in an escape of four hexadecimal digits at the beginning of `bytes`.
fn unit(bytes: &[u8]) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = bytes else { return None };
    let digits = std::str::from_utf8(digits.get(..4)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u0000_is_found_wherever_it_is_and_nowhere_else() {
        for bad in
            [r#""\u0000""#, r#"{"a\u0000":1}"#, r#"["\\\u0000"]"#, r#"["\"\u0000"]"#, r#"["\ud83d\ude00\u0000"]"#]
        {
            assert_eq!(check(bad), Err(Unsound::Nul), "{bad}");
        }
        for good in [r#""\\u0000""#, r#"{"a":"\\\\u0000"}"#, r#""\u0001\u00e4\n\"""#, r#""0000""#, ""] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn u0000_is_taken_out_and_nothing_else_changes() {
        for (given, expected) in [
            (r#""\u0000""#, r#""\ufffd""#),
            (r#"{"a\u0000b" : "\\u0000\\\u0000\"\u0000"}"#, r#"{"a\ufffdb" : "\\u0000\\\ufffd\"\ufffd"}"#),
            (r#"[1e400, "\u0000\ud83d\ude00é"]"#, r#"[1e400, "\ufffd\ud83d\ude00é"]"#),
            (r#""\\u0000""#, r#""\\u0000""#),
        ] {
            let clean = without_nul(RawValue::from_string(given.to_owned()).unwrap());
            assert_eq!(clean.get(), expected);
            assert_ne!(check(clean.get()), Err(Unsound::Nul));
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_found() {
        for bad in [r#""\ud83d""#, r#""\uDE00""#, r#""\ud83dx\ude00""#, r#""\ud83d\ud83d""#, r#""\ud83d\n""#] {
            assert_eq!(check(bad), Err(Unsound::Surrogate), "{bad}");
        }
        assert_eq!(check(r#"["\ud83d\ude00", "\uD83D\uDE00", "😀"]"#), Ok(()));
    }

    #[test]
    fn brackets_are_counted_outside_of_strings_only() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(check(&nested(MAX_DEPTH + 1)), Err(Unsound::Depth));
        assert_eq!(check(&format!("[{}]", vec![nested(MAX_DEPTH - 1); 3].join(","))), Ok(()));
        assert_eq!(check(&format!("\"{}\\\"{}\"", "[".repeat(500), "{".repeat(500))), Ok(()));
    }
}
