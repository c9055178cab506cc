//! The proxy that `docs/deploy` ships, as a process of its own on a free port, in front of servers of a test.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running HAProxy; it is killed with this value.
pub(crate) struct HaProxy {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl HaProxy {
    /// With the shipped configuration, before these two servers.
    pub(crate) fn before(a: SocketAddr, b: SocketAddr) -> Self {
        for _ in 0..5 {
            // Free a moment ago; should somebody else take it, another one is tried.
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            if let Some(child) = spawn(address, a, b) {
                return Self { child, address };
            }
        }
        panic!("HAProxy could not be started");
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn spawn(address: SocketAddr, a: SocketAddr, b: SocketAddr) -> Option<Child> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/docs/deploy/haproxy.cfg")]);
    // Debian keeps it where only administrators look.
    command.env_clear().env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
    command.env("REJOIN_BIND", address.to_string()).env("REJOIN_A", a.to_string()).env("REJOIN_B", b.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("install haproxy: tests/run does");
    let limit = Instant::now() + Duration::from_secs(20);
    while Instant::now() < limit {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        if TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_ok() {
            return Some(child);
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let _gone = child.kill();
    let _reaped = child.wait();
    None
}
