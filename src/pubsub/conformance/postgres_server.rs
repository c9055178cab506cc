//! A Postgres server of a test's own that can be stopped and started again where it was: on a free port, in a temporary
//! folder.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A running server; it and its folder are gone with this value.
pub(crate) struct PostgresServer {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl PostgresServer {
    /// Makes a database and starts a server on it.
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        if is_root() {
            let owner = fs::metadata("/var/lib/postgresql").expect("install postgresql: tests/run does");
            chown(folder.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let mut init = command("initdb");
        init.args(["--no-sync", "--auth=trust", "--username=rejoin", "--encoding=UTF8", "--locale=C", "-D"]);
        assert!(init.arg(data(&folder)).status().unwrap().success(), "initdb failed");
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = spawn(&folder, port) {
                return Self { child, port, folder };
            }
        }
        panic!("no Postgres server could be started");
    }

    /// `postgres://…`
    pub(crate) fn url(&self) -> String {
        format!("postgres://rejoin@127.0.0.1:{}/postgres", self.port)
    }

    /// Ends it at once, with every connection.
    pub(crate) fn kill(&mut self) {
        let stopped = command("pg_ctl").args(["stop", "-m", "immediate", "-w", "-D"]).arg(data(&self.folder)).status();
        assert!(stopped.unwrap().success());
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.folder, self.port).expect("the Postgres server could not be started again");
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // One that was killed before is gone already.
        let _gone = command("pg_ctl").args(["stop", "-m", "immediate", "-w", "-D"]).arg(data(&self.folder)).status();
        let _reaped = self.child.wait();
    }
}

fn data(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A program of Postgres, which refuses to be run by root.
fn command(name: &str) -> Command {
    let mut found: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .expect("install postgresql: tests/run does")
        .map(|version| version.unwrap().path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    let program = found.pop().expect("install postgresql: tests/run does");
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A server that answers, or none: the port is taken.
fn spawn(folder: &TempDir, port: u16) -> Option<Child> {
    let sockets = format!("unix_socket_directories={}", folder.path().display());
    let mut server = command("postgres");
    server.arg("-D").arg(data(folder)).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
    for setting in [sockets.as_str(), "fsync=off", "max_connections=200"] {
        server.args(["-c", setting]);
    }
    let mut child = server.spawn().unwrap();
    let limit = Instant::now() + Duration::from_secs(30);
    while Instant::now() < limit {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        if answers(folder.path(), port) {
            return Some(child);
        }
        std::thread::yield_now();
    }
    let _gone = child.kill();
    let _reaped = child.wait();
    None
}

fn answers(folder: &Path, port: u16) -> bool {
    let mut asked = command("pg_isready");
    asked.arg("-h").arg(folder).args(["-p", &port.to_string(), "-t", "1"]).status().is_ok_and(|status| status.success())
}
