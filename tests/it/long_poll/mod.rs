//! Long-polling on the wire. The names begin with the item of the list of what a compatible server does: a letter for
//! its part and a number.

mod ends;
mod requests;

use std::{net::SocketAddr, time::Duration};

use futures::future::Either;
use rejoin::{channel, transport};
use reqwest::{Method, RequestBuilder, Response, header::HeaderMap};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    channel_app::App,
    support::ws::{LIMIT, within},
};

const T: &str = "room:a";
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

/// An answer, whole.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    async fn read(answer: Response) -> Self {
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Self { status, headers, body: answer.text().await.unwrap() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The JSON of an answer as all are.
    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert_eq!(self.header("access-control-allow-origin"), Some("*"));
        serde_json::from_str(&self.body).unwrap()
    }

    /// The same, of an answer that worked as far as HTTP knows.
    fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }
}

async fn send(request: RequestBuilder) -> Answer {
    Answer::read(within("an answer", request.send()).await.unwrap()).await
}

/// A client of one session.
#[derive(Clone)]
struct Poller {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Poller {
    /// A client that has no session yet.
    fn new(address: SocketAddr, query: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build().unwrap();
        Self { client, base: format!("http://{address}/socket/longpoll?{query}"), token: String::new() }
    }

    /// A client with a session, that speaks version 2.
    async fn open(app: &App) -> Self {
        Self::new(app.address, "vsn=2.0.0&").opened().await
    }

    async fn opened(mut self) -> Self {
        let opened = send(self.client.get(&self.base)).await.ok();
        self.token = opened["token"].as_str().unwrap().to_owned();
        assert_eq!(opened, json!({ "status": 410, "token": self.token, "messages": [] }));
        self
    }

    fn request(&self, method: Method) -> RequestBuilder {
        self.client.request(method, format!("{}&token={}", self.base, self.token))
    }

    async fn poll(&self) -> Value {
        send(self.request(Method::GET)).await.ok()
    }

    /// A poll that waits at the server by now: one before it was answered because this one came.
    async fn parked(&self) -> JoinHandle<Value> {
        let poll = || {
            let poller = self.clone();
            tokio::spawn(async move { poller.poll().await })
        };
        let answered = within("one of the polls", futures::future::select(poll(), poll())).await;
        let (Either::Left((first, other)) | Either::Right((first, other))) = answered;
        assert_eq!(first.unwrap(), json!({ "status": 204, "token": self.token, "messages": [] }));
        other
    }

    async fn post(&self, body: impl Into<reqwest::Body>) -> Answer {
        send(self.request(Method::POST).header(NDJSON.0, NDJSON.1).body(body)).await
    }

    /// Posts frames, and expects them to be taken.
    async fn frames(&self, frames: &[Value]) {
        let lines: Vec<String> = frames.iter().map(Value::to_string).collect();
        assert_eq!(self.post(lines.join("\n")).await.ok(), json!({ "status": 200 }));
    }

    /// Polls until `count` frames are here.
    async fn fetch(&self, count: usize) -> Vec<Value> {
        let mut frames = Vec::new();
        within("frames", async {
            while frames.len() < count {
                frames.extend(read(&self.poll().await));
            }
        })
        .await;
        assert_eq!(frames.len(), count, "{frames:?}");
        frames
    }

    /// Polls until this frame is here; what comes beside it is dropped.
    async fn fetch_until(&self, which: impl Fn(&Value) -> bool) -> Value {
        within("a frame", async {
            loop {
                if let Some(frame) = read(&self.poll().await).into_iter().find(&which) {
                    return frame;
                }
            }
        })
        .await
    }

    /// Joins, and fetches what follows.
    async fn join(&self, topic: &str) {
        self.frames(&[json!(["11", "1", topic, "phx_join", {}])]).await;
        let events: Vec<Value> = self.fetch(3).await.iter().map(|frame| frame[3].clone()).collect();
        assert_eq!(events, ["phx_reply", "user_entered", "joined"]);
    }
}

/// The frames of an answer, each a string.
fn read(answer: &Value) -> Vec<Value> {
    assert!(answer["status"] == 200 || answer["status"] == 204, "{answer}");
    let messages = answer["messages"].as_array().unwrap().iter();
    messages.map(|message| serde_json::from_str(message.as_str().unwrap()).unwrap()).collect()
}

/// An app whose polls wait for this long.
async fn with_window(window: Duration) -> App {
    let options = transport::Options { poll_window: window, ..Default::default() };
    App::start_with(channel::Options::default(), options).await
}
