//! A reader of server-sent events that sees exactly what is on the wire. Every wait has a limit.

use rejoin::model::View;
use reqwest::{Client, Response, header::HeaderMap};
use serde_json::Value;

use super::ws::within;

/// What a reader is sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// The id, where it has one.
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// One answer that goes on.
pub(crate) struct Stream {
    response: Response,
    pub(crate) headers: HeaderMap,
    unread: Vec<u8>,
    /// The id of the last event.
    pub(crate) last_id: String,
    /// When it was told to come back, in milliseconds.
    pub(crate) retry: Option<u64>,
    pub(crate) comments: usize,
}

/// Asks for a stream: the answer, whatever it is.
pub(crate) async fn ask(url: &str, last_id: Option<&str>) -> Response {
    // No limit for the whole of it: it goes on.
    let client = Client::builder().no_proxy().build().unwrap();
    let mut request = client.get(url).header("accept", "text/event-stream");
    if let Some(id) = last_id {
        request = request.header("last-event-id", id);
    }
    within("an answer", request.send()).await.unwrap()
}

impl Stream {
    /// Opens a stream, or panics.
    pub(crate) async fn open(url: &str) -> Self {
        Self::of(ask(url, None).await)
    }

    /// Opens one as a reader that comes back.
    pub(crate) async fn resume(url: &str, last_id: &str) -> Self {
        Self::of(ask(url, Some(last_id)).await)
    }

    fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        assert_eq!((status, &headers["content-type"]), (200, &"text/event-stream".parse().unwrap()), "{headers:?}");
        Self { response, headers, unread: Vec::new(), last_id: String::new(), retry: None, comments: 0 }
    }

    /// The next event; `None` at the end.
    pub(crate) async fn try_next(&mut self) -> Option<Event> {
        let mut event = Event { id: None, name: "message".to_owned(), data: Value::Null };
        let mut has_data = false;
        loop {
            let line = self.line().await?;
            match line.split_once(": ").unwrap_or((&line, "")) {
                ("", "") if has_data => return Some(event),
                ("", "") => {}
                ("id", id) => {
                    id.clone_into(&mut self.last_id);
                    event.id = Some(id.to_owned());
                }
                ("event", name) => name.clone_into(&mut event.name),
                ("retry", ms) => self.retry = Some(ms.parse().unwrap()),
                ("data", data) => {
                    assert!(!has_data, "one line of data");
                    has_data = true;
                    event.data = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
                }
                (":", "") => self.comments += 1,
                _ => panic!("not a line of this stream: {line:?}"),
            }
        }
    }

    /// The next event, or panics.
    pub(crate) async fn next(&mut self) -> Event {
        self.try_next().await.expect("the stream goes on")
    }

    /// The next line; `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            // A stream that breaks has ended as one that is closed has.
            let more = within("more of the stream", self.response.chunk()).await.ok().flatten()?;
            self.unread.extend_from_slice(&more);
        }
    }
}

/// A reader of one session that folds all that it is sent, and fails on any gap or repeat.
pub(crate) struct Listener {
    pub(crate) stream: Stream,
    pub(crate) view: View,
    /// The data of its last `joined`.
    pub(crate) joined: Value,
}

impl Listener {
    /// Begins to listen.
    pub(crate) async fn open(url: &str) -> Self {
        Self::begin(Stream::open(url).await, View::default()).await
    }

    /// Comes back with the id of the last event, as a browser does.
    pub(crate) async fn resume(self, url: &str) -> Self {
        let Self { stream, view, .. } = self;
        let last_id = stream.last_id.clone();
        drop(stream);
        Self::begin(Stream::resume(url, &last_id).await, view).await
    }

    async fn begin(mut stream: Stream, mut view: View) -> Self {
        let Event { name, data, .. } = stream.next().await;
        assert_eq!(name, "joined", "the first event");
        if data["replay"]["mode"] == "replay" {
            assert_eq!(data["replay"]["from"], view.last_seq, "the replay continues what is held");
        }
        view.join(&data.to_string()).unwrap();
        let this = Self { stream, view, joined: data };
        this.check_id();
        this
    }

    fn check_id(&self) {
        assert_eq!(self.stream.last_id, format!("{}:{}", self.view.epoch, self.view.last_seq));
    }

    /// Takes in one event; false at the end.
    pub(crate) async fn step(&mut self) -> bool {
        let Some(Event { name, data, .. }) = self.stream.try_next().await else { return false };
        assert_eq!(name, "events", "{data}");
        self.view.push(&data.to_string()).unwrap_or_else(|error| panic!("{error}: {data}"));
        self.check_id();
        true
    }

    /// Takes in events until `ready`.
    pub(crate) async fn until(&mut self, what: &str, ready: impl Fn(&View) -> bool) {
        within(what, async {
            while !ready(&self.view) {
                assert!(self.step().await, "the stream has ended");
            }
        })
        .await;
    }
}
