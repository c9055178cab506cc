//! The accept loop: turns a listener into HTTP connections.
//!
//! Knows no path. Its invariant: every connection's task is waited for, each for a bounded time, and a client that
//! sends half a request, or does not read its answer, is not waited for long.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, extract::ConnectInfo};
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
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::patient::Patient;

/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may read nothing of an answer.
const STALLED: Duration = Duration::from_secs(30);
/// How long requests that are being answered may take once the server shuts down.
const FINISH: Duration = Duration::from_secs(5);
/// The pause after the system has no file descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown`; then accepts no more, lets the requests that are being answered
/// finish for five seconds at most, and returns. WebSockets that were accepted are not waited for here: they belong
/// to [`super::Connections`].
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                tasks.spawn(answer(stream, peer, router, shutdown));
            }
            Err(error) => pause(&error, &shutdown).await,
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(FINISH, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "some requests did not finish before the shutdown");
    }
}

/// A client that is gone already concerns nobody else; anything else may last.
async fn pause(error: &io::Error, shutdown: &CancellationToken) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return;
    }
    tracing::error!(%error, "no connection can be accepted: raise the limit of open files?");
    tokio::select! {
        () = tokio::time::sleep(EXHAUSTED) => {}
        () = shutdown.cancelled() => {}
    }
}

async fn answer(stream: TcpStream, peer: SocketAddr, router: Router, shutdown: CancellationToken) {
    // Small frames must not wait for more; without it they only come later.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(Patient::new(stream, STALLED)), service)
        .with_upgrades();
    tokio::pin!(served);
    let done = tokio::select! {
        done = served.as_mut() => done,
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
