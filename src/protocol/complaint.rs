//! What a parser complains of, in words for whoever wrote the JSON.
//!
//! Pure. The parser names the types of this program and a place in a text that its writer may never have seen; both mean
//! nothing to them. The invariant: what is told speaks of JSON alone.

/// What the parser expects by a name of its own, and what that is in JSON. The longer of two that begin alike is first.
const EXPECTED: [(&str, &str); 16] = [
    ("u64", "a whole number from 0 up"),
    ("u32", "a whole number from 0 up"),
    ("u16", "a whole number from 0 up"),
    ("usize", "a whole number from 0 up"),
    ("i64", "a whole number"),
    ("f64", "a number"),
    ("f32", "a number"),
    ("a JSON number", "a number"),
    ("struct ", "an object"),
    ("a map", "an object"),
    ("a sequence", "an array"),
    ("a boolean", "true or false"),
    ("any valid JSON value", "a value"),
    ("internally tagged enum ", "an object"),
    ("map with a single key", "an object with one key"),
    ("unit", "null"),
];

/// The parser's names for what it was given, and JSON's.
const GIVEN: [(&str, &str); 5] = [
    ("sequence", "an array"),
    ("map", "an object"),
    ("floating point", "the number"),
    ("integer", "the number"),
    ("unit value", "null"),
];

/// What is wrong with a text that is not as it should be.
pub fn complaint(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    let Some((given, expected)) = text.split_once(", expected ") else { return text.replace('`', "\"") };
    let given = match given.strip_prefix("invalid type: ") {
        Some(given) => format!("invalid type: {}", begun(given, &GIVEN)),
        None => given.to_owned(),
    };
    format!("{given}, expected {}", begun(expected, &EXPECTED)).replace('`', "\"")
}

/// A text that begins with a name of the parser's, with JSON's instead. What follows the name of a struct goes with it.
fn begun(text: &str, names: &[(&str, &str)]) -> String {
    let found = names.iter().find_map(|(name, plain)| Some((name, plain, text.strip_prefix(name)?)));
    match found {
        Some((name, plain, _)) if name.ends_with(' ') => (*plain).to_owned(),
        Some((_, plain, rest)) => format!("{plain}{rest}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[serde(rename = "kind")]
        _kind: String,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Fields {
        #[serde(rename = "count")]
        _count: Option<u64>,
        #[serde(rename = "share")]
        _share: Option<f64>,
        #[serde(rename = "yes")]
        _yes: Option<bool>,
        #[serde(rename = "text")]
        _text: Option<String>,
        #[serde(rename = "parts")]
        _parts: Option<Vec<Inner>>,
        #[serde(rename = "names")]
        _names: Option<BTreeMap<String, String>>,
    }

    fn said(json: &str) -> String {
        complaint(&serde_json::from_str::<Fields>(json).unwrap_err())
    }

    #[test]
    fn nothing_is_called_by_a_name_of_this_program() {
        for (json, expected) in [
            (r#"{"count":-1}"#, "invalid value: integer \"-1\", expected a whole number from 0 up"),
            (r#"{"count":"x"}"#, "invalid type: string \"x\", expected a whole number from 0 up"),
            (r#"{"count":1.5}"#, "invalid type: the number \"1.5\", expected a whole number from 0 up"),
            (r#"{"share":[]}"#, "invalid type: an array, expected a number"),
            (r#"{"yes":1}"#, "invalid type: the number \"1\", expected true or false"),
            (r#"{"text":{}}"#, "invalid type: an object, expected a string"),
            (r#"{"parts":1}"#, "invalid type: the number \"1\", expected an array"),
            (r#"{"parts":["x"]}"#, "invalid type: string \"x\", expected an object"),
            (r#"{"parts":[{}]}"#, "missing field \"kind\""),
            (r#"{"names":[]}"#, "invalid type: an array, expected an object"),
            ("1", "invalid type: the number \"1\", expected an object"),
            ("{", "EOF while parsing an object"),
        ] {
            assert_eq!(said(json), expected, "{json}");
        }
    }
}
