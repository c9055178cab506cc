//! The parameters of a request for a connection.
//!
//! Pure. Reads what Phoenix clients write: `+` and `%20`, a key more than once (the last counts), and nested keys:
//! `a[b]=c` is a map, `a[]=x` adds to a list, and both may be combined. The invariant: whatever is sent, reading it
//! takes time and memory in proportion to its length, and what it yields is at most [`MAX_DEPTH`] levels deep.

use std::collections::BTreeMap;

/// How many parameters a request may have.
pub const MAX_PARAMS: usize = 512;
/// How many pairs of brackets a key may have.
pub const MAX_DEPTH: usize = 8;

/// The decoded parameters of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    map: BTreeMap<String, Param>,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    /// Of `key=value`.
    Text(String),
    /// Of `key[]=value`, in the order of the request.
    List(Vec<Param>),
    /// Of `key[name]=value`.
    Map(BTreeMap<String, Param>),
}

/// Why the parameters of a request are not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadParams {
    /// There are more than [`MAX_PARAMS`].
    #[error("there are too many parameters: send at most {MAX_PARAMS}")]
    TooMany,
    /// A key has more than [`MAX_DEPTH`] pairs of brackets.
    #[error("a parameter is nested too deeply: use at most {MAX_DEPTH} pairs of brackets")]
    TooDeep,
}

impl Params {
    /// Reads a query string. Of a key that is given in several ways, `a=1&a[b]=2`, the last way counts; a key whose
    /// brackets do not match is a plain one.
    ///
    /// # Errors
    /// [`BadParams`] beyond the limits.
    pub fn parse(query: &str) -> Result<Self, BadParams> {
        let mut params = Self::default();
        for (count, part) in query.split('&').filter(|part| !part.is_empty()).enumerate() {
            if count == MAX_PARAMS {
                return Err(BadParams::TooMany);
            }
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let key = decode(key);
            let (name, steps) = path(&key)?;
            params.put(name, &steps, decode(value));
        }
        Ok(params)
    }

    /// The text under a key, which may be nested: `name`, `filter[by]`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let nested = || {
            let (name, steps) = path(key).ok()?;
            steps.iter().try_fold(self.map.get(name)?, |param, step| param.as_map()?.get(*step))
        };
        self.map.get(key).or_else(nested)?.as_text()
    }

    /// Everything, as a map.
    pub fn map(&self) -> &BTreeMap<String, Param> {
        &self.map
    }

    /// Whether the key was given as a list or a map, `key[]` or `key[a]`, and so has no plain value.
    pub fn is_nested(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|param| param.as_text().is_none())
    }

    /// Replaces whatever is under a plain key.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.put(name, &[], value.to_owned());
    }

    fn put(&mut self, name: &str, steps: &[&str], value: String) {
        let held = self.map.remove(name).unwrap_or_default();
        self.map.insert(name.to_owned(), held.with(steps, value));
    }
}

impl Default for Param {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Param {
    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The items, where it is a list.
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            Self::Text(_) | Self::Map(_) => None,
        }
    }

    /// The entries, where it is a map.
    pub fn as_map(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Map(entries) => Some(entries),
            Self::Text(_) | Self::List(_) => None,
        }
    }

    /// This value with another one `steps` below it. What is in the way gives way.
    fn with(self, steps: &[&str], value: String) -> Self {
        match steps {
            [] => Self::Text(value),
            ["", rest @ ..] => {
                let mut items = if let Self::List(items) = self { items } else { Vec::new() };
                items.push(Self::default().with(rest, value));
                Self::List(items)
            }
            [name, rest @ ..] => {
                let mut entries = if let Self::Map(entries) = self { entries } else { BTreeMap::new() };
                let held = entries.remove(*name).unwrap_or_default();
                entries.insert((*name).to_owned(), held.with(rest, value));
                Self::Map(entries)
            }
        }
    }
}

/// A key's name and what stands in its brackets; the whole key and nothing where the brackets do not match.
fn path(key: &str) -> Result<(&str, Vec<&str>), BadParams> {
    let Some(begin) = key.find('[').filter(|begin| *begin > 0) else { return Ok((key, Vec::new())) };
    let (name, mut rest) = key.split_at(begin);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let step = rest.strip_prefix('[').and_then(|inside| inside.split_once(']'));
        let Some((step, after)) = step.filter(|(step, _)| !step.contains('[')) else { return Ok((key, Vec::new())) };
        if steps.len() == MAX_DEPTH {
            return Err(BadParams::TooDeep);
        }
        steps.push(step);
        rest = after;
    }
    Ok((name, steps))
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
    use proptest::prelude::*;

    use super::*;

    fn params(query: &str) -> Params {
        Params::parse(query).unwrap()
    }

    fn text(text: &str) -> Param {
        Param::Text(text.to_owned())
    }

    #[test]
    fn a16_parameters_are_read_as_clients_write_them() {
        let params = params("name=Ada%20L.+X&nested%5Ba%5D=b&user_id=%C3%BC&x&vsn=1&vsn=2.0.0&");
        assert_eq!(params.get("name"), Some("Ada L. X"));
        assert_eq!(params.get("nested[a]"), Some("b"));
        assert_eq!(params.map()["nested"].as_map().unwrap()["a"], text("b"));
        assert!(params.is_nested("nested") && !params.is_nested("name") && params.get("nested").is_none());
        assert_eq!(params.get("user_id"), Some("ü"));
        assert_eq!(params.get("x"), Some(""));
        assert_eq!(params.get("vsn"), Some("2.0.0"));
        assert_eq!(params.get("token"), None);
    }

    #[test]
    fn a16_maps_and_lists_lie_inside_each_other() {
        let params = params("a[b][c]=1&a[b][d]=2&a[e][]=3&a[e][]=4&l[][x]=5&l[][x]=6");
        assert_eq!((params.get("a[b][c]"), params.get("a[b][d]")), (Some("1"), Some("2")));
        assert_eq!(params.map()["a"].as_map().unwrap()["e"].as_list().unwrap(), [text("3"), text("4")]);
        let items = params.map()["l"].as_list().unwrap();
        assert_eq!(items.iter().map(|item| &item.as_map().unwrap()["x"]).collect::<Vec<_>>(), [&text("5"), &text("6")]);
    }

    #[test]
    fn of_a_key_that_is_given_in_several_ways_the_last_counts() {
        assert_eq!(params("a[b]=1&a=2").get("a"), Some("2"));
        assert_eq!(params("a=1&a[b]=2").get("a[b]"), Some("2"));
        assert_eq!(params("a[]=1&a[b]=2").map()["a"].as_map().unwrap().len(), 1);
        assert_eq!(params("a[b]=1&a[]=2").map()["a"], Param::List(vec![text("2")]));
        assert_eq!(params("a[b]=1&a[b][c]=2").get("a[b][c]"), Some("2"));
    }

    #[test]
    fn brackets_that_do_not_match_are_a_part_of_the_name() {
        for odd in ["a[b", "a]b", "[a]", "[", "a[b]c", "a[[b]]", "a[b]]", "[]", "]["] {
            assert_eq!(params(&format!("{odd}=1")).map(), &BTreeMap::from([(odd.to_owned(), text("1"))]), "{odd}");
            assert_eq!(params(&format!("{odd}=1")).get(odd), Some("1"), "{odd}");
        }
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let many = "a[]=1&".repeat(MAX_PARAMS);
        assert_eq!(params(&many).map()["a"].as_list().unwrap().len(), MAX_PARAMS);
        assert_eq!(Params::parse(&format!("{many}b=1")), Err(BadParams::TooMany));
        assert!(Params::parse(&format!("a{}=1", "[b]".repeat(MAX_DEPTH))).is_ok());
        assert_eq!(Params::parse(&format!("a{}=1", "[b]".repeat(MAX_DEPTH + 1))), Err(BadParams::TooDeep));
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        let params = params("a=100%&b=%zz&c=%4&d=%FF");
        assert_eq!(params.get("a"), Some("100%"));
        assert_eq!(params.get("b"), Some("%zz"));
        assert_eq!(params.get("c"), Some("%4"));
        assert_eq!(params.get("d"), Some("\u{fffd}"));
        assert_eq!(Params::parse(""), Ok(Params::default()));
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(query in r"([a-c%+=&\[\]]|%5B|%5D|\PC){0,200}") {
            if let Ok(params) = Params::parse(&query) {
                prop_assert!(params.map().len() <= MAX_PARAMS);
                for key in params.map().keys() {
                    prop_assert_eq!(params.get(key).is_none(), params.is_nested(key));
                }
            }
        }
    }
}
