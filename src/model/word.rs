//! Words that only a newer version knows: statuses and reasons that it wrote into a database which this one shares.
//!
//! They are kept as they came and passed on. Nothing is decided by them, and a value that holds one is never changed.

use std::fmt;

/// A short word, kept where it is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word {
    text: [u8; Word::LONGEST],
    length: u8,
}

impl Word {
    /// The longest that is kept, in bytes.
    pub const LONGEST: usize = 31;

    /// The word; `None` if it is too long to be one.
    pub fn new(word: &str) -> Option<Self> {
        let mut text = [0; Self::LONGEST];
        text.get_mut(..word.len())?.copy_from_slice(word.as_bytes());
        Some(Self { text, length: u8::try_from(word.len()).ok()? })
    }

    /// As it came.
    pub fn as_str(&self) -> &str {
        let text = self.text.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// A value that is written as its name, and read from any.
macro_rules! named {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::named(&name).ok_or_else(|| serde::de::Error::custom(format!("{name:?} is too long a word")))
            }
        }
    };
}
pub(super) use named;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_kept_as_it_came_or_not_at_all() {
        for word in ["", "paused", "überholt", &"x".repeat(Word::LONGEST)] {
            assert_eq!(Word::new(word).unwrap().as_str(), word);
        }
        assert_eq!(Word::new(&"x".repeat(Word::LONGEST + 1)), None);
    }
}
