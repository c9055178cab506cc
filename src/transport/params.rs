//! The parameters of a request for a connection.
//!
//! Pure. Reads what Phoenix clients write: `+` and `%20`, a key more than once (the last counts), and nested keys
//! `a[b]`, which are kept under that very name.

/// The decoded query of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// Reads a query string.
    pub fn parse(query: &str) -> Self {
        let parts = query.split('&').filter(|part| !part.is_empty());
        let pairs = parts.map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key), decode(value))
        });
        Self { pairs: pairs.collect() }
    }

    /// The value of a plain key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Whether the key was given as a list or a map, `key[]` or `key[a]`, and so has no plain value.
    pub fn is_nested(&self, key: &str) -> bool {
        self.pairs.iter().any(|(name, _)| name.strip_prefix(key).is_some_and(|rest| rest.starts_with('[')))
    }
}

/// What is no valid escape stays as it is; what is no UTF-8 becomes U+FFFD.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%').then(|| hex(bytes.get(at + 1..at + 3))).flatten();
        out.push(match (byte, escaped) {
            (_, Some(value)) => value,
            (b'+', _) => b' ',
            (plain, _) => plain,
        });
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digits: Option<&[u8]>) -> Option<u8> {
    let [high, low] = digits? else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a16_parameters_are_read_as_clients_write_them() {
        let params = Params::parse("name=Ada%20L.+X&nested%5Ba%5D=b&user_id=%C3%BC&x&vsn=1&vsn=2.0.0&");
        assert_eq!(params.get("name"), Some("Ada L. X"));
        assert_eq!(params.get("nested[a]"), Some("b"));
        assert!(params.is_nested("nested") && !params.is_nested("name"));
        assert_eq!(params.get("user_id"), Some("ü"));
        assert_eq!(params.get("x"), Some(""));
        assert_eq!(params.get("vsn"), Some("2.0.0"));
        assert_eq!(params.get("token"), None);
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        let params = Params::parse("a=100%&b=%zz&c=%4&d=%FF");
        assert_eq!(params.get("a"), Some("100%"));
        assert_eq!(params.get("b"), Some("%zz"));
        assert_eq!(params.get("c"), Some("%4"));
        assert_eq!(params.get("d"), Some("\u{fffd}"));
        assert_eq!(Params::parse(""), Params::default());
    }
}
