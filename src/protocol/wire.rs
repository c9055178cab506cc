//! A whole message as a transport sends it.
//!
//! Cheap to clone: both forms share their bytes, which is what makes a broadcast to a thousand readers cost a
//! thousand reference counts. Knows nothing of what it carries.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Text whose clones share one allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Utf8Bytes);

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The form in which the WebSocket codec takes it, without a copy.
    pub fn into_utf8_bytes(self) -> Utf8Bytes {
        self.0
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// A message on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    /// A text message.
    Text(Text),
    /// A binary message.
    Binary(Bytes),
}

impl Wire {
    /// What it carries.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_str().as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            Self::Binary(_) => None,
        }
    }
}
