//! `rejoin health`: whether a server is ready, as an exit code, for whoever has no HTTP client at hand (a container).
//!
//! It asks `/readyz` and nothing else. Its invariant: it ends within [`PATIENCE`], whatever the server does.

use std::{io::Write, time::Duration};

use reqwest::{StatusCode, Url};

use super::Failure;
use crate::outbound::{self, root_cause};

/// Less than the time that a container's engine gives a check.
const PATIENCE: Duration = Duration::from_secs(4);
/// The answer is a line; more is not from a Rejoin server.
const MAX_ANSWER: usize = 4 * 1024;

/// Prints the server's own words about itself. An error where it is not ready.
pub(super) async fn run(server: &str) -> Result<(), Failure> {
    let mut url = Url::parse(server).map_err(|_| {
        Failure::usage(format_args!("{server} is no address of a server: give one such as http://127.0.0.1:4000"))
    })?;
    url.set_path(&format!("{}/readyz", url.path().trim_end_matches('/')));
    let asking = tokio::time::timeout(PATIENCE, ask(url)).await;
    let (status, said) =
        asking.map_err(|_| Failure::other(format_args!("{server} does not answer in time")))?.map_err(|error| {
            Failure::other(format_args!("{server} cannot be asked ({error}): check that the server runs there"))
        })?;
    if status != StatusCode::OK {
        return Err(Failure::other(format_args!("{server} is not ready (status {status}): {said}")));
    }
    writeln!(std::io::stdout(), "{said}").map_err(Failure::caused)
}

async fn ask(url: Url) -> Result<(StatusCode, String), String> {
    let client = outbound::client(&url)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    let mut response = client.get(url).send().await.map_err(|error| root_cause(&error))?;
    let mut said = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| root_cause(&error))? {
        said.extend_from_slice(&piece);
        if said.len() > MAX_ANSWER {
            return Err("its answer is too long".to_owned());
        }
    }
    Ok((response.status(), String::from_utf8_lossy(&said).trim().to_owned()))
}
