//! A collector: takes requests of OTLP over HTTP, as protobuf, and reads what the tests ask about out of them.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use tokio::{net::TcpListener, task::JoinHandle};

/// The kinds of spans, as they are numbered.
pub(crate) const SERVER: u64 = 2;
pub(crate) const CLIENT: u64 = 3;

/// A span that was sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: u64,
    attributes: Vec<(String, String)>,
    /// The traces that it names as causes.
    pub(crate) links: Vec<String>,
    /// What it says of its failure.
    pub(crate) status: String,
}

impl Span {
    pub(crate) fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }
}

/// A running collector; it ends with this value.
pub(crate) struct Collector {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Bytes>>>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<Bytes>>>::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(requests.clone());
        Self { url, requests, server: tokio::spawn(async move { axum::serve(listener, router).await }) }
    }

    /// The whole address for traces.
    pub(crate) fn traces_url(&self) -> String {
        format!("{}/v1/traces", self.url)
    }

    /// Whether a text is anywhere in what was sent.
    pub(crate) fn holds(&self, text: &str) -> bool {
        self.requests.lock().unwrap().iter().any(|body| body.windows(text.len()).any(|part| part == text.as_bytes()))
    }

    /// Everything that was sent.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap();
        let resources = requests.iter().flat_map(|body| all(body, 1));
        resources.flat_map(|resource| all(resource, 2)).flat_map(|scope| all(scope, 2)).map(span).collect()
    }

    /// An attribute of whoever sent.
    pub(crate) fn resource(&self, key: &str) -> Option<String> {
        let requests = self.requests.lock().unwrap();
        let attributes = requests.iter().flat_map(|body| all(body, 1)).flat_map(|spans| all(spans, 1));
        let mut attributes = attributes.flat_map(|resource| all(resource, 1)).map(attribute);
        attributes.find(|(found, _)| found == key).map(|(_, value)| value)
    }
}

async fn take(State(requests): State<Arc<Mutex<Vec<Bytes>>>>, headers: HeaderMap, body: Bytes) {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    requests.lock().unwrap().push(body);
}

fn span(message: &[u8]) -> Span {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let one = |number| all(message, number).into_iter().next().unwrap_or_default();
    let kind = fields(message).into_iter().find_map(|(number, field)| match field {
        Field::Number(kind) if number == 6 => Some(kind),
        _ => None,
    });
    Span {
        trace: hex(one(1)),
        id: hex(one(2)),
        parent: hex(one(4)),
        name: text(one(5)),
        kind: kind.unwrap_or_default(),
        attributes: all(message, 9).into_iter().map(attribute).collect(),
        links: all(message, 13).into_iter().map(|link| hex(all(link, 1)[0])).collect(),
        status: all(one(15), 2).first().map(|words| text(words)).unwrap_or_default(),
    }
}

fn attribute(message: &[u8]) -> (String, String) {
    let value = all(message, 2).first().and_then(|value| all(value, 1).first().map(|words| text(words)));
    (text(all(message, 1)[0]), value.unwrap_or_default())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Every field of that number which holds bytes.
fn all(message: &[u8], number: u64) -> Vec<&[u8]> {
    let bytes = |(found, field)| match field {
        Field::Bytes(bytes) if found == number => Some(bytes),
        _ => None,
    };
    fields(message).into_iter().filter_map(bytes).collect()
}

/// The fields of a protobuf message.
fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut message)),
            1 => Field::Bytes(take_bytes(&mut message, 8)),
            2 => {
                let length = usize::try_from(varint(&mut message)).unwrap();
                Field::Bytes(take_bytes(&mut message, length))
            }
            5 => Field::Bytes(take_bytes(&mut message, 4)),
            other => panic!("no wire type: {other}"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

fn take_bytes<'a>(message: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = message.split_at(length);
    *message = rest;
    taken
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = take_bytes(message, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}
