//! An endpoint for agents that does what a script says, over real HTTP on a free port.
//!
//! It records what it was asked, and knows when the other side has gone away in the middle of an answer.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use futures::{Stream, StreamExt, stream};
use rejoin::{
    agent::{Answer, Context, Output, SessionContext, TurnContext},
    clock,
    model::{Message, MessageStatus, Part, Person, Role, TurnError, fold},
};
use serde_json::{Value, value::RawValue};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long anything that has to happen may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// What an agent is asked in a session with one message.
pub(crate) fn context(prompt: &str) -> Context {
    let ada = Person { id: "u1".to_owned(), name: "Ada".to_owned() };
    let prompt = Message {
        id: "m".to_owned(),
        seq: 1,
        role: Role::User,
        author: Some(ada.clone()),
        turn_id: None,
        status: MessageStatus::Complete,
        parts: vec![Part::text(prompt)],
        created_at: clock::now(),
    };
    Context {
        session: SessionContext {
            id: "s".to_owned(),
            epoch: "e".to_owned(),
            title: Some("Plans".to_owned()),
            metadata: RawValue::from_string("{\"k\":1}".to_owned()).unwrap(),
            created_at: clock::now(),
        },
        turn: TurnContext {
            id: "t".to_owned(),
            prompt_id: "m".to_owned(),
            reply_id: "r".to_owned(),
            agent: "helper".to_owned(),
            attempt: 1,
            retry_of: None,
            by: ada,
        },
        messages: vec![prompt],
    }
}

/// The parts of an answer, and its usage or error.
pub(crate) async fn collect(answer: Result<Answer, TurnError>) -> (Vec<Part>, Result<Option<Value>, TurnError>) {
    let mut parts = Vec::new();
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => return (parts, Err(error)),
    };
    while let Some(output) = answer.next().await {
        match output {
            Ok(Output::Delta(delta)) => fold::apply(&mut parts, &delta),
            Ok(Output::Done { usage }) => {
                return (parts, Ok(usage.map(|usage| serde_json::from_str(usage.get()).unwrap())));
            }
            Err(error) => return (parts, Err(error)),
        }
    }
    panic!("the answer has no end");
}

/// One step of a script's body.
#[derive(Clone)]
pub(crate) enum Step {
    /// These bytes, in a piece of their own.
    Send(Vec<u8>),
    /// Nothing more, for ever.
    Hold,
    /// The connection breaks.
    Break,
}

/// What the endpoint answers to every request.
#[derive(Clone)]
pub(crate) struct Script {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    steps: Vec<Step>,
    silent: bool,
}

impl Script {
    /// A stream of events: each text becomes one `data:` event.
    pub(crate) fn events(events: &[&str]) -> Self {
        let steps = events.iter().map(|event| Step::Send(format!("data: {event}\n\n").into_bytes())).collect();
        Self { status: 200, headers: vec![("content-type", "text/event-stream")], steps, silent: false }
    }

    /// A body with its status and type.
    pub(crate) fn body(status: u16, kind: &'static str, body: &str) -> Self {
        let steps = vec![Step::Send(body.as_bytes().to_vec())];
        Self { status, headers: vec![("content-type", kind)], steps, silent: false }
    }

    /// Takes the request and says nothing at all, not even a status.
    pub(crate) fn silence() -> Self {
        Self { status: 200, headers: Vec::new(), steps: Vec::new(), silent: true }
    }

    /// With this header too.
    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With this step after the others.
    pub(crate) fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The same bytes, one piece for each.
    pub(crate) fn byte_by_byte(mut self) -> Self {
        let split = |step| match step {
            Step::Send(bytes) => bytes.into_iter().map(|byte| Step::Send(vec![byte])).collect(),
            other => vec![other],
        };
        self.steps = self.steps.into_iter().flat_map(split).collect();
        self
    }
}

/// A request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
    pub(crate) body: Value,
}

struct Shared {
    script: Script,
    asked: Mutex<Vec<Asked>>,
    arrived: CancellationToken,
    gone: CancellationToken,
}

impl Asked {
    /// A header, if it was there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A running endpoint; it ends with this value.
pub(crate) struct Upstream {
    base_url: String,
    shared: Arc<Shared>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Upstream {
    /// Listens on a free port and follows `script`.
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let tokens = (CancellationToken::new(), CancellationToken::new());
        let shared = Arc::new(Shared { script, asked: Mutex::default(), arrived: tokens.0, gone: tokens.1 });
        let router = Router::new().fallback(follow).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base_url, shared, server }
    }

    /// Its address, up to and with `/v1`.
    pub(crate) fn base_url(&self) -> String {
        self.base_url.clone()
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Waits until a request has arrived.
    pub(crate) async fn arrived(&self) {
        timeout(LIMIT, self.shared.arrived.cancelled()).await.expect("no request arrived");
    }

    /// Whether an answer is over, finished or left.
    pub(crate) fn is_gone(&self) -> bool {
        self.shared.gone.is_cancelled()
    }

    /// Waits until the other side has left a request or its answer.
    pub(crate) async fn gone(&self) {
        timeout(LIMIT, self.shared.gone.cancelled()).await.expect("the request is still open");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn follow(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    // It is dropped with the request or with the body of its answer, whichever is last.
    let guard = shared.gone.clone().drop_guard();
    shared.asked.lock().unwrap().push(Asked {
        path: uri.path().to_owned(),
        body: serde_json::from_slice(&body).unwrap(),
        bytes: body,
        headers,
    });
    shared.arrived.cancel();
    if shared.script.silent {
        std::future::pending::<Infallible>().await;
    }
    let mut response = Response::builder().status(shared.script.status);
    for (name, value) in &shared.script.headers {
        response = response.header(*name, *value);
    }
    let steps = perform(shared.script.steps.clone()).inspect(move |_| {
        let _held = &guard;
    });
    response.body(Body::from_stream(steps)).unwrap()
}

fn perform(steps: Vec<Step>) -> impl Stream<Item = Result<Vec<u8>, std::io::Error>> {
    stream::iter(steps).then(|step| async {
        match step {
            Step::Send(bytes) => Ok(bytes),
            Step::Hold => match std::future::pending::<Infallible>().await {},
            Step::Break => {
                // What was sent before has to leave first: a break in the same moment would take it along.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                Err(std::io::Error::other("the script breaks here"))
            }
        }
    })
}
