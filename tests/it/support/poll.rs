//! A long-poll session as a client holds it: posts frames, polls for messages.

use std::collections::VecDeque;

use reqwest::Client;
use serde_json::Value;

use super::{
    form::Version,
    ws::{LIMIT, within},
};

/// One session.
pub(crate) struct Poller {
    client: Client,
    url: String,
    version: Version,
    waiting: VecDeque<String>,
    /// The session is gone.
    gone: bool,
}

impl Poller {
    /// Opens a session, or says with which status it is refused.
    pub(crate) async fn open(url: &str, version: Version) -> Result<Self, u64> {
        let client = Client::builder().no_proxy().timeout(LIMIT).build().unwrap();
        let opened = ask(client.get(url)).await;
        match opened["token"].as_str() {
            Some(token) => {
                assert_eq!(opened["status"], 410);
                let url = format!("{url}&token={token}");
                Ok(Self { client, url, version, waiting: VecDeque::new(), gone: false })
            }
            None => Err(opened["status"].as_u64().unwrap()),
        }
    }

    /// Posts one text frame; false if the session is gone.
    pub(crate) async fn post(&mut self, frame: String) -> bool {
        let kind = match self.version {
            Version::V1 => "application/json",
            Version::V2 => "application/x-ndjson",
        };
        let answer = ask(self.client.post(&self.url).header("content-type", kind).body(frame)).await;
        self.gone |= answer["status"] == 410;
        answer["status"] == 200
    }

    /// The next message; `None` once the session is gone.
    pub(crate) async fn message(&mut self) -> Option<String> {
        while self.waiting.is_empty() && !self.gone {
            let answer = ask(self.client.get(&self.url)).await;
            self.gone = answer["status"] == 410;
            let messages = answer["messages"].as_array().unwrap().iter();
            self.waiting.extend(messages.map(|message| message.as_str().unwrap().to_owned()));
        }
        self.waiting.pop_front()
    }
}

async fn ask(request: reqwest::RequestBuilder) -> Value {
    let answer = within("an answer", request.send()).await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}
