//! The agent that asks an OpenAI-compatible endpoint for a streaming chat completion.
//!
//! `request` makes the messages, `assembler` (pure) turns chunks into deltas, `failure` words what went wrong; here is
//! the connection between them. It knows no session and keeps no time but two short limits of its own: the caller
//! decides how long a silence may be. Its invariants: dropping the answer closes the request at once; what the
//! endpoint sends without end is cut at a limit; the API key is in the request and nowhere else.

mod assembler;
mod failure;
mod request;

use std::{collections::VecDeque, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use reqwest::{Client, Response, Url, header};

use self::assembler::Assembler;
use super::{
    Agent, Answer, Context, Error, Output, Secret, client,
    failure::Endpoint,
    stream::{Broken, Texts, events},
};
use crate::model::TurnError;

/// How long an endpoint that has finished its answer may take to tell what it cost.
const LINGER: Duration = Duration::from_secs(2);

/// How an endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The address before `/chat/completions`, such as `https://api.openai.com/v1`.
    pub base_url: String,
    /// The model's name, as the endpoint knows it.
    pub model: String,
    /// Sent as a bearer token; without one no `Authorization` is sent.
    pub api_key: Option<Secret>,
    /// An instruction put before all messages.
    pub system: Option<String>,
    /// How many of the newest messages are sent at most; all of them without it.
    pub max_messages: Option<usize>,
}

/// Asks an endpoint.
#[derive(Debug)]
pub struct OpenAi {
    options: Options,
    url: Url,
    client: Client,
    endpoint: Endpoint,
}

impl OpenAi {
    /// An agent called `name` that asks as `options` say. Nothing is sent before the first turn.
    ///
    /// # Errors
    /// [`Error::BaseUrl`], or [`Error::Client`] where the machine's TLS set-up does not allow a client.
    pub fn new(name: &str, options: Options) -> Result<Self, Error> {
        let base =
            client::parse_base_url(&options.base_url).ok_or_else(|| Error::BaseUrl { agent: name.to_owned() })?;
        let client = client::builder(&base).build();
        let client = client.map_err(|source| Error::Client { agent: name.to_owned(), source })?;
        let endpoint = failure::endpoint(&base, &options);
        Ok(Self { url: completions(base), options, client, endpoint })
    }

    async fn ask(&self, context: &Context) -> Result<Response, TurnError> {
        let body = request::body(&self.options, context);
        let mut request = self.client.post(self.url.clone()).header(header::ACCEPT, "text/event-stream").json(&body);
        if let Some(key) = &self.options.api_key {
            request = request.bearer_auth(key.expose());
        }
        client::traced(request).send().await.map_err(|error| self.endpoint.unreachable(&error))
    }
}

#[async_trait]
impl Agent for OpenAi {
    async fn answer(&self, context: Context) -> Result<Answer, TurnError> {
        let response = self.ask(&context).await?;
        let events = events(failure::check(&self.endpoint, response).await?);
        let reader =
            Reader { events, assembler: Assembler::default(), ready: VecDeque::new(), endpoint: self.endpoint.clone() };
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

/// A stream of events that is being read into outputs.
struct Reader {
    events: Texts,
    assembler: Assembler,
    ready: VecDeque<Result<Output, TurnError>>,
    endpoint: Endpoint,
}

impl Reader {
    /// The next delta, or how the answer ended.
    async fn next(&mut self) -> Result<Output, TurnError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return item;
            }
            match self.next_event().await {
                Some(Ok(event)) => self.take(&event),
                Some(Err(broken)) => self.finish(Err(self.endpoint.broken(broken))),
                None => self.finish(Err(self.endpoint.incomplete())),
            }
        }
    }

    /// After the model finished only its usage is still awaited, and not for long.
    async fn next_event(&mut self) -> Option<Result<String, Broken>> {
        if self.assembler.is_finished() {
            return tokio::time::timeout(LINGER, self.events.next()).await.unwrap_or_default();
        }
        self.events.next().await
    }

    fn take(&mut self, data: &str) {
        if data.trim() == "[DONE]" {
            return self.finish(Ok(()));
        }
        match self.assembler.take(data) {
            Ok(deltas) => self.ready.extend(deltas.into_iter().map(|delta| Ok(Output::Delta(delta)))),
            Err(fault) => {
                let error = failure::fault(&self.endpoint, &fault);
                self.finish(Err(error));
            }
        }
    }

    /// Queues what is left to say, then the end: whole if the model finished or said so itself, else `otherwise`.
    fn finish(&mut self, otherwise: Result<(), TurnError>) {
        self.ready.extend(self.assembler.flush().into_iter().map(|delta| Ok(Output::Delta(delta))));
        let end = match (self.assembler.is_filtered(), otherwise) {
            (true, _) => Err(failure::filtered(&self.endpoint)),
            (false, Err(error)) if !self.assembler.is_finished() => Err(error),
            (false, _) => Ok(Output::Done { usage: self.assembler.usage() }),
        };
        self.ready.push_back(end);
    }
}

fn completions(mut base: Url) -> Url {
    let path = format!("{}/chat/completions", base.path().trim_end_matches('/'));
    base.set_path(&path);
    base.set_fragment(None);
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_put_behind_the_base_url() {
        for (base, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/chat/completions"),
            ("https://api.example.com/v1", "https://api.example.com/v1/chat/completions"),
            (" https://api.example.com/v1// ", "https://api.example.com/v1/chat/completions"),
        ] {
            assert_eq!(completions(client::parse_base_url(base).unwrap()).as_str(), expected);
        }
    }

    #[test]
    fn the_key_is_not_shown_by_debug() {
        let options = Options {
            base_url: "http://user:pass-word@127.0.0.1:1/v1".to_owned(),
            model: "m".to_owned(),
            api_key: Some(Secret::new("sk-hidden")),
            system: None,
            max_messages: None,
        };
        let shown = format!("{:?}", OpenAi::new("a", options).unwrap());
        assert!(!shown.contains("sk-hidden"), "{shown}");
    }
}
