//! The accept loop: turns a listener into HTTP connections.
//!
//! Knows no path. Its invariant: every connection's task is waited for, each for a bounded time, and a client that
//! sends half a request, or does not read its answer, is not waited for long.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{StatusCode, header::RETRY_AFTER},
};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Lobby,
    body::Paced,
    connections::RETRY_WHEN_FULL,
    lobby::{Guest, Patience},
    patient::Patient,
};

/// The head of a request, in bytes: its line, with the URL, and its headers. More is answered 431.
const MAX_HEAD: usize = 32 * 1024;
/// What is read of a request, or held of an answer, at once.
const MAX_BUFFER: usize = 64 * 1024;
/// How long a client may read nothing of an answer.
const STALLED: Duration = Duration::from_secs(30);
/// How long what was sent may stay unacknowledged before the client counts as gone. Whoever only listens sends nothing
/// by which it could be missed.
#[cfg(target_os = "linux")]
const VANISHED: Duration = Duration::from_secs(60);
/// How long requests that are being answered may take once the server shuts down.
const FINISH: Duration = Duration::from_secs(5);
/// The pause after the system has no file descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// How long nothing is said of that again.
const SAID: Duration = Duration::from_secs(10);

/// Serves `router` on `listener` until `shutdown`; then accepts no more, lets the requests that are being answered
/// finish for five seconds at most, and returns. WebSockets that were accepted are not waited for here: they belong
/// to [`super::Connections`]. `lobby` is that of the [`super::State`] whose routes are served.
pub async fn serve(listener: TcpListener, router: Router, lobby: Lobby, shutdown: CancellationToken) {
    let (tasks, turned_away) = (TaskTracker::new(), Router::new().fallback(no_room));
    let mut said = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(guest) = lobby.enter(peer.ip()) else { continue };
                let router = if guest.has_room() { &router } else { &turned_away };
                let visit = Visit { peer, guest: Arc::new(guest), patience: lobby.patience() };
                tasks.spawn(answer(stream, visit, router.clone(), shutdown.clone()));
            }
            Err(error) => pause(&error, &mut said, &shutdown).await,
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(FINISH, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "some requests did not finish before the shutdown");
    }
}

/// A client that is gone already concerns nobody else; anything else may last.
async fn pause(error: &io::Error, said: &mut Option<Instant>, shutdown: &CancellationToken) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return;
    }
    if said.is_none_or(|said: Instant| said.elapsed() >= SAID) {
        tracing::error!(%error, "no connection can be accepted: raise the limit of open files?");
        *said = Some(Instant::now());
    }
    tokio::select! {
        () = tokio::time::sleep(EXHAUSTED) => {}
        () = shutdown.cancelled() => {}
    }
}

/// The answer to whatever is asked on a stream for which there is no room.
async fn no_room() -> (StatusCode, [(axum::http::HeaderName, &'static str); 1]) {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_WHEN_FULL)])
}

/// What is known of a stream.
struct Visit {
    peer: SocketAddr,
    guest: Arc<Guest>,
    patience: Patience,
}

/// Small frames do not wait for more, and a client that vanishes is noticed.
fn set_up(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(VANISHED))?;
    Ok(())
}

async fn answer(stream: TcpStream, visit: Visit, router: Router, shutdown: CancellationToken) {
    if let Err(error) = set_up(&stream) {
        tracing::debug!(%error, "a connection stays as the system makes it: slower, or missed late when it is gone");
    }
    let Visit { peer, guest, patience } = visit;
    let (router, asks) = (TowerToHyperService::new(router), Arc::clone(&guest));
    let service = service_fn(move |request: Request<Incoming>| {
        asks.admit();
        let mut request = request.map(|body| Body::new(Paced::new(body, patience.body_grace)));
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        // The head of the first request has less time than that: see `Lobby`.
        .header_read_timeout(patience.keep_alive)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER)
        .keep_alive(guest.has_room())
        .serve_connection(TokioIo::new(Patient::new(stream, STALLED, Arc::clone(&guest))), service)
        .with_upgrades();
    tokio::pin!(served);
    let done = tokio::select! {
        done = served.as_mut() => done,
        () = guest.expelled() => Ok(()),
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                done = served.as_mut() => done,
                () = tokio::time::sleep(FINISH) => Ok(()),
            }
        }
    };
    if let Err(error) = done {
        tracing::debug!(%error, "a connection broke");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_waits_for_nothing_and_notices_that_a_client_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        set_up(&stream).unwrap();
        let socket = socket2::SockRef::from(&stream);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(VANISHED));
        assert!(stream.nodelay().unwrap());
    }
}
