//! The agent that asks a backend of the user's own, over HTTP.
//!
//! `request` makes what is sent and signs it, `lines` (pure) turns what comes back into outputs, `failure` words what
//! only a backend can do wrong. It knows no session and keeps no time but one short limit of its own. Its invariants:
//! dropping the answer closes the request at once; a line is taken only if every client could read what it makes; the
//! secret signs the request and is nowhere else.

mod failure;
mod lines;
mod request;

use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use reqwest::{Client, Response, Url, header};

use self::lines::{Parts, Said};
use super::{Agent, Answer, Context, Error, Output, Secret, client, failure::Endpoint, stream::Texts};
use crate::model::TurnError;

/// How long a backend that has said `done` may take to end its answer by itself. It is not cut off before, so that it
/// does not take the end for a cancel.
const LINGER: Duration = Duration::from_millis(250);

/// How a backend is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where requests are sent.
    pub url: String,
    /// Signs requests; without one they are not signed.
    pub secret: Option<Secret>,
    /// How many of the newest messages are sent at most.
    pub max_messages: Option<usize>,
}

/// Asks a backend.
#[derive(Debug)]
pub struct Http {
    options: Options,
    url: Url,
    client: Client,
    endpoint: Endpoint,
}

impl Http {
    /// An agent called `name` that asks as `options` say. Nothing is sent before the first turn.
    ///
    /// # Errors
    /// [`Error::Url`], or [`Error::Client`] where the machine's TLS set-up does not allow a client.
    pub fn new(name: &str, options: Options) -> Result<Self, Error> {
        let url = client::parse_url(&options.url).ok_or_else(|| Error::Url { agent: name.to_owned() })?;
        // A connection of its own for each turn: one that was kept could be closed by the backend at the very moment
        // at which it is used again, and a turn is not asked twice.
        let client = client::builder(&url).pool_max_idle_per_host(0).build();
        let client = client.map_err(|source| Error::Client { agent: name.to_owned(), source })?;
        let endpoint = failure::endpoint(&url, &options);
        Ok(Self { options, url, client, endpoint })
    }

    async fn ask(&self, context: &Context) -> Result<Response, TurnError> {
        let body = request::body(context);
        let mut request = self
            .client
            .post(self.url.clone())
            .header(header::ACCEPT, "text/event-stream, application/x-ndjson")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(secret) = &self.options.secret {
            request = request.header(request::SIGNATURE_HEADER, request::signature(secret, &body));
        }
        client::traced(request.body(body)).send().await.map_err(|error| self.endpoint.unreachable(&error))
    }
}

#[async_trait]
impl Agent for Http {
    async fn answer(&self, context: Context) -> Result<Answer, TurnError> {
        let response = self.ask(&context).await?;
        let texts = failure::texts(&self.endpoint, response).await?;
        let reader = Reader { texts, parts: Parts::default(), endpoint: self.endpoint.clone() };
        Ok(stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            let item = reader.next().await;
            let more = matches!(item, Ok(Output::Delta(_)));
            Some((item, more.then_some(reader)))
        })
        .boxed())
    }

    fn max_messages(&self) -> usize {
        self.options.max_messages.unwrap_or(10_000)
    }
}

/// An answer that is being read into outputs.
struct Reader {
    texts: Texts,
    parts: Parts,
    endpoint: Endpoint,
}

impl Reader {
    /// The next delta, or how the answer ended.
    async fn next(&mut self) -> Result<Output, TurnError> {
        loop {
            let text = match self.texts.next().await {
                Some(Ok(text)) => text,
                Some(Err(broken)) => return Err(self.endpoint.broken(broken)),
                None => return Err(failure::unfinished(&self.endpoint)),
            };
            match self.parts.take(&text) {
                Ok(Said::Nothing) => {}
                Ok(Said::Delta(delta)) => return Ok(Output::Delta(delta)),
                Ok(Said::Done { usage }) => {
                    self.linger().await;
                    return Ok(Output::Done { usage });
                }
                Ok(Said::Error(report)) => {
                    self.linger().await;
                    return Err(failure::reported(&self.endpoint, report));
                }
                Err(fault) => return Err(self.endpoint.garbled(&fault.to_string())),
            }
        }
    }

    /// Waits for the end of the response, but not for long.
    async fn linger(&mut self) {
        let end = async { while self.texts.next().await.is_some_and(|text| text.is_ok()) {} };
        // Whether it ended by itself does not matter: the answer is over.
        let _ = tokio::time::timeout(LINGER, end).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_not_shown_by_debug() {
        let options = Options {
            url: "https://app.example.com/agent?x=1".to_owned(),
            secret: Some(Secret::new("s3cret")),
            max_messages: None,
        };
        let shown = format!("{:?}", Http::new("a", options.clone()).unwrap());
        assert!(!shown.contains("s3cret"), "{shown}");
        let bad = Http::new("a", Options { url: "app.example.com".to_owned(), ..options });
        assert!(bad.unwrap_err().to_string().starts_with("the URL of the agent \"a\" cannot be used: give"));
    }
}
