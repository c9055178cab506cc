//! Where published keys come from: a file, or an address.
//!
//! The operator names it; nothing that a client sends has a part in it (this is what CVE-2026-32301 was about). Its
//! invariant: reading takes bounded time and memory, follows no redirect, and an answer that is no set is an error.

use std::{fmt, io::Read as _, path::PathBuf, time::Duration};

use reqwest::{Url, redirect};

use super::KeySet;
use crate::outbound::{self, root_cause};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How large a set may be.
const MAX_BYTES: usize = 256 * 1024;

/// Where keys are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In a file, which is read again as an address is.
    File(PathBuf),
    /// At an address.
    Url(Url),
}

/// Without what an address holds beside scheme, host and path: it may be secret.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => {
                let mut shown = url.clone();
                shown.set_query(None);
                // An address that has neither keeps none.
                let _ = shown.set_username("").and_then(|()| shown.set_password(None));
                shown.fmt(f)
            }
        }
    }
}

impl Source {
    /// The keys as they are published now, or what is wrong.
    pub(super) async fn load(&self) -> Result<KeySet, String> {
        let text = match self {
            Self::File(path) => {
                let path = path.clone();
                let reading = tokio::task::spawn_blocking(move || read_file(&path));
                reading.await.unwrap_or_else(|_| Err("it cannot be read".to_owned()))
            }
            Self::Url(url) => match tokio::time::timeout(LIMIT, Box::pin(fetch(url))).await {
                Ok(text) => text,
                Err(_) => Err(format!("it does not answer within {} s", LIMIT.as_secs())),
            },
        };
        KeySet::read(&text?)
    }
}

/// The text of a file of keys.
///
/// # Errors
/// What is wrong with one that cannot be read.
pub fn read_file(path: &std::path::Path) -> Result<String, String> {
    let unreadable = |error| format!("it cannot be read ({error})");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() > MAX_BYTES { Err(too_large()) } else { Ok(text) }
}

fn too_large() -> String {
    format!("it is larger than {} KiB", MAX_BYTES / 1024)
}

async fn fetch(url: &Url) -> Result<String, String> {
    let unreachable = |error: reqwest::Error| format!("it cannot be fetched ({})", root_cause(&error));
    let builder = outbound::client(url).redirect(redirect::Policy::none());
    let client = builder.user_agent(concat!("rejoin/", env!("CARGO_PKG_VERSION"))).build().map_err(unreachable)?;
    let mut response = client.get(url.clone()).send().await.map_err(unreachable)?;
    if response.status().is_redirection() {
        return Err(format!("it answers {}: give the address that it leads to", response.status().as_u16()));
    }
    if !response.status().is_success() {
        return Err(format!("it answers {}", response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return Err(too_large());
        }
    }
    String::from_utf8(body).map_err(|_| "it is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        let shown = |url: &str| Source::Url(url.parse().unwrap()).to_string();
        assert_eq!(shown("https://u:p@login.example/keys?token=s3cret"), "https://login.example/keys");
        assert_eq!(shown("http://127.0.0.1:1/k"), "http://127.0.0.1:1/k");
        assert_eq!(Source::File("/etc/keys.json".into()).to_string(), "/etc/keys.json");
    }

    #[test]
    fn a_file_is_read_up_to_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        assert!(read_file(&path).unwrap_err().contains("cannot be read"));
        std::fs::write(&path, "x".repeat(MAX_BYTES)).unwrap();
        assert_eq!(read_file(&path).unwrap().len(), MAX_BYTES);
        std::fs::write(&path, "x".repeat(MAX_BYTES + 1)).unwrap();
        assert_eq!(read_file(&path).unwrap_err(), "it is larger than 256 KiB");
    }
}
