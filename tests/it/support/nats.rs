//! A NATS server of a test's own, on a free port, with nothing stored.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running `nats-server`; it is killed with this value.
pub(crate) struct NatsServer {
    child: Child,
    address: SocketAddr,
}

impl NatsServer {
    /// Starts a server. The port is free a moment before; should somebody else take it, another one is tried.
    pub(crate) fn start() -> Self {
        for _ in 0..5 {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            if let Some(child) = spawn(address) {
                return Self { child, address };
            }
        }
        panic!("no nats-server could be started");
    }

    /// `nats://…`
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Ends it without a word to anybody.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) {
        let limit = Instant::now() + Duration::from_secs(20);
        while Instant::now() < limit {
            if let Some(child) = spawn(self.address) {
                self.child = child;
                return;
            }
        }
        panic!("the nats-server could not be started again on {}", self.address);
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // One that was killed before is gone already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A server that answers, or none: the port is taken.
fn spawn(address: SocketAddr) -> Option<Child> {
    let mut command = Command::new("nats-server");
    command.args(["-a", "127.0.0.1", "-p", &address.port().to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("install nats-server: tests/run does");
    let limit = Instant::now() + Duration::from_secs(10);
    while Instant::now() < limit {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        if TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_ok() {
            return Some(child);
        }
        std::thread::yield_now();
    }
    let _gone = child.kill();
    let _reaped = child.wait();
    None
}
