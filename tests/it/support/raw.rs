//! Requests below any client's manners: written as they are, answers read as they come.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::ws::within;

/// A sound request for a WebSocket at `path`, with more headers.
pub(crate) fn upgrade(path: &str, headers: &[(&str, &str)]) -> String {
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// Sends a request, and reads the head of its answer: the stream behind it, and the head in lower case.
pub(crate) async fn ask(address: SocketAddr, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    within("an answer", async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("closed without an answer"));
        }
    })
    .await;
    (stream, String::from_utf8(head).unwrap().to_ascii_lowercase())
}

/// The head of the answer to a request.
pub(crate) async fn head(address: SocketAddr, request: &str) -> String {
    ask(address, request).await.1
}

/// The status in a head.
pub(crate) fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The value of a header in a head.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The head of a client's frame: its first byte, and its length, masked with zeros.
pub(crate) fn frame_head(first: u8, length: u64) -> Vec<u8> {
    let mut head = vec![first];
    match length {
        0..=125 => head.push(0x80 | u8::try_from(length).unwrap()),
        _ => {
            head.push(0xff);
            head.extend(length.to_be_bytes());
        }
    }
    head.extend([0; 4]);
    head
}

/// The code of the close frame that comes next.
pub(crate) async fn close_code(stream: &mut (impl AsyncRead + Unpin)) -> u16 {
    let mut head = [0; 4];
    within("a close frame", stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[0], 0x88, "no close frame: {head:?}");
    u16::from_be_bytes([head[2], head[3]])
}
