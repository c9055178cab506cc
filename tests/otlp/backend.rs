//! A backend that answers when the test says so, and remembers in which traces it was asked.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::post,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

use super::server::within;

/// What it says.
pub(crate) const SAID: &str = "MARKER-of-an-agent";

struct Shared {
    traceparents: Mutex<Vec<Option<String>>>,
    endings: tokio::sync::Mutex<mpsc::Receiver<&'static str>>,
}

/// A running backend; it ends with this value.
pub(crate) struct Backend {
    pub(crate) url: String,
    shared: Arc<Shared>,
    endings: mpsc::Sender<&'static str>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Backend {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/agent", listener.local_addr().unwrap());
        let (endings, receiver) = mpsc::channel(1);
        let shared = Arc::new(Shared { traceparents: Mutex::default(), endings: tokio::sync::Mutex::new(receiver) });
        let router = Router::new().route("/agent", post(answer)).with_state(shared.clone());
        Self { url, shared, endings, server: tokio::spawn(async move { axum::serve(listener, router).await }) }
    }

    /// Answers the next turn that asks, or has asked.
    pub(crate) async fn answer(&self) {
        within("a turn to answer", self.endings.send("{\"kind\":\"done\"}\n")).await.unwrap();
    }

    /// Ends the answer to the next turn without its end.
    pub(crate) async fn break_off(&self) {
        within("a turn to answer", self.endings.send("")).await.unwrap();
    }

    /// What each request said of its trace.
    pub(crate) fn traceparents(&self) -> Vec<Option<String>> {
        self.shared.traceparents.lock().unwrap().clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let told = headers.get("traceparent").map(|value| value.to_str().unwrap().to_owned());
    shared.traceparents.lock().unwrap().push(told);
    let ending = shared.endings.lock().await.recv().await.unwrap_or_default();
    let body = format!("{{\"kind\":\"text\",\"text\":\"{SAID}\"}}\n{ending}");
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from(body)).into_response()
}
