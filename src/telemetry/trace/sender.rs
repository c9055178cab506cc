//! How spans reach a collector: over the HTTP client that the rest of the server uses, on its runtime.
//!
//! The SDK sends from a thread of its own, which has no runtime; so requests are tasks of the server's, and that thread
//! waits for them. Its invariant: a collector that is away is told once in the log, and once when it is back.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

use super::Error;

#[derive(Debug)]
pub(super) struct Sender {
    client: reqwest::Client,
    runtime: Handle,
    is_away: AtomicBool,
}

impl Sender {
    pub(super) fn new(timeout: Duration) -> Result<Self, Error> {
        let client = reqwest::Client::builder().timeout(timeout).build().map_err(Error::Client)?;
        Ok(Self { client, runtime: Handle::current(), is_away: AtomicBool::new(false) })
    }

    fn tell(&self, failure: Option<&dyn std::fmt::Display>) {
        let was_away = self.is_away.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !was_away => tracing::warn!(%error, "the collector does not take spans; they are dropped"),
            None if was_away => tracing::info!("the collector takes spans again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request.try_into()?).await?;
            Ok::<_, reqwest::Error>((answer.status(), answer.bytes().await?))
        });
        // An address may hold a password.
        let answer = sent.await?.map_err(reqwest::Error::without_url);
        match &answer {
            Ok((status, _)) if status.is_success() => self.tell(None),
            Ok((status, _)) => self.tell(Some(status)),
            Err(error) => self.tell(Some(error)),
        }
        let (status, body) = answer?;
        Ok(Response::builder().status(status).body(body)?)
    }
}
