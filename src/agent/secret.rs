//! A value that must not be seen: an API key.
//!
//! It knows nothing of what it opens. Its one invariant: no formatting of it, and of nothing that holds it, shows the
//! value; only [`Secret::expose`] gives it away, and that word is easy to search for.

use std::fmt;

/// Text that prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the value in.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the request that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `text` with each occurrence of the value replaced by `***`: for what others wrote and may have quoted it in.
    pub fn redact(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&self.0, "***") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_by_debug_and_is_taken_out_of_text() {
        let secret = Secret::new("sk-1");
        assert_eq!(format!("{:?}", Some(&secret)), "Some(***)");
        assert_eq!(secret.redact("key sk-1 and sk-1"), "key *** and ***");
        assert_eq!(Secret::new("").redact("as it was"), "as it was");
        assert_eq!(secret.expose(), "sk-1");
    }
}
