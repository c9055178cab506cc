//! A Postgres server of this process's own: a new cluster in a temporary folder, on a free port and a socket, with a
//! database for each test. It ends with the process, whatever ends that: a shell holds the read end of a pipe of which
//! this process has the only write end.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);
/// Where Debian keeps the servers' programs, newest last; elsewhere they are in the path.
const FOLDERS: [&str; 4] = ["13", "14", "15", "16"];

/// The role that owns each test's database: an ordinary one.
pub(crate) const OWNER: &str = "app";
/// Its password, which is asked for over TCP.
pub(crate) const PASSWORD: &str = "app-secret";

/// The superuser's, over TCP.
const ADMIN_PASSWORD: &str = "admin-secret";

/// One running server.
pub(crate) struct Server {
    folder: PathBuf,
    port: u16,
    _watched: Child,
}

/// The server that this process's tests share.
pub(crate) fn server() -> &'static Arc<Server> {
    static SERVER: OnceLock<Arc<Server>> = OnceLock::new();
    SERVER.get_or_init(|| Arc::new(Server::start(false)))
}

impl Server {
    /// A new cluster; a standby that replays nothing and waits for its promotion, if asked for.
    pub(crate) fn start(standby: bool) -> Self {
        Self::launch(if standby { "standby" } else { "primary" }, "", &[], &[])
    }

    /// A new cluster whose server is given these settings and these variables of its environment.
    pub(crate) fn start_with(settings: &[&str], variables: &[String]) -> Self {
        Self::launch("primary", "", settings, variables)
    }

    /// A standby of this one: a copy that replays what it is sent through `port`, which leads to this one.
    pub(crate) fn replica(&self, port: u16) -> Self {
        let from = format!("primary_conninfo=host=127.0.0.1 port={port} user=rejoin password={ADMIN_PASSWORD}");
        let origin = format!("{} {}", self.folder.display(), self.port);
        Self::launch("replica", &origin, &[&from], &[])
    }

    fn launch(mode: &str, origin: &str, settings: &[&str], variables: &[String]) -> Self {
        let folder = tempfile::Builder::new().prefix("rejoin-pg").tempdir().unwrap().keep();
        let (port, bin) = (free_port(), bin());
        let (script, variables, number) = (include_str!("postgres.sh"), variables.join(" "), port.to_string());
        let mut arguments = vec![folder.as_path(), &bin];
        arguments.extend([&number, mode, origin, &variables].map(Path::new));
        arguments.extend(settings.iter().flat_map(|setting| ["-c", setting]).map(Path::new));
        let mut watched = watch(script, &arguments);
        let until = Instant::now() + START;
        while !is_ready(&bin, &folder, port) {
            let ended = watched.try_wait().unwrap();
            let late = Instant::now() > until;
            assert!(ended.is_none() && !late, "Postgres did not start: {}", log(&folder));
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Self { folder, port, _watched: watched }
    }

    /// Sends its first process a signal (`INT`: no new clients, the old ones are sent away, standbys get everything;
    /// `QUIT`: ends at once, as in a crash), and waits until it is gone.
    pub(crate) async fn end(&self, signal: &str) {
        let file = self.folder.join("data/postmaster.pid");
        let text = std::fs::read_to_string(&file).unwrap();
        let process = text.lines().next().unwrap().trim().to_owned();
        let sent = tokio::process::Command::new("kill").args([&format!("-{signal}"), &process]).status().await;
        assert!(sent.unwrap().success());
        let until = Instant::now() + START;
        while file.exists() {
            assert!(Instant::now() < until, "it does not end: {}", log(&self.folder));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The address of a database through the socket, where no password is asked for.
    pub(crate) fn url(&self, user: &str, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://{user}@{folder}:{}/{database}", self.port)
    }

    /// The address of a database over TCP, or over whatever forwards to it from `port`.
    pub(crate) fn tcp_url(&self, port: u16, database: &str) -> String {
        format!("postgres://{OWNER}:{PASSWORD}@127.0.0.1:{port}/{database}")
    }

    /// A connection of the superuser.
    pub(crate) async fn admin(&self, database: &str) -> PgConnection {
        let options: PgConnectOptions = self.url("rejoin", database).parse().unwrap();
        PgConnection::connect_with(&options.disable_statement_logging()).await.unwrap()
    }

    /// A new empty database; its name.
    pub(crate) async fn database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut admin = self.admin("postgres").await;
        run(&mut admin, &format!("CREATE DATABASE {name} OWNER {OWNER}")).await;
        admin.close().await.unwrap();
        name
    }

    /// A pgbouncer in front of it that lends a server for one transaction at a time.
    pub(crate) fn pooler(&self) -> Pooler {
        let (port, folder) = (free_port(), tempfile::Builder::new().prefix("rejoin-pool").tempdir().unwrap().keep());
        let script = include_str!("pgbouncer.sh");
        let arguments =
            [folder.as_path(), &self.folder, Path::new(&self.port.to_string()), Path::new(&port.to_string())]
                .map(Path::to_owned);
        let mut watched = watch(script, &arguments.iter().map(PathBuf::as_path).collect::<Vec<_>>());
        let until = Instant::now() + START;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = watched.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "pgbouncer did not start: {}", log(&folder));
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Pooler { port, _watched: watched }
    }
}

/// A running pgbouncer.
pub(crate) struct Pooler {
    port: u16,
    _watched: Child,
}

impl Pooler {
    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        end(&mut self._watched);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self._watched);
    }
}

/// Runs statements that answer nothing.
pub(crate) async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// A shell that runs `script` and reads this process's pipe, which ends when this process does.
fn watch(script: &str, arguments: &[&Path]) -> Child {
    let mut child = Command::new("sh")
        .args(["-c", script, "sh"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().flush().unwrap();
    child
}

fn end(watched: &mut Child) {
    drop(watched.stdin.take());
    // The shell ends what it started, then itself.
    let _ended = watched.wait();
}

fn is_ready(bin: &Path, folder: &Path, port: u16) -> bool {
    let mut command = Command::new(bin.join("pg_isready"));
    let command =
        command.arg("-q").arg("-h").arg(folder).args(["-p", &port.to_string(), "-U", "rejoin", "-d", "postgres"]);
    folder.join("ready").exists() && command.status().is_ok_and(|status| status.success())
}

fn log(folder: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = std::fs::File::open(folder.join("log")) {
        let _read = file.read_to_string(&mut text);
    }
    text
}

fn bin() -> PathBuf {
    let debian = FOLDERS.iter().rev().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = debian.chain(std::env::split_paths(&in_path));
    folders.find(|folder| folder.join("initdb").exists()).expect("Postgres is not installed: install postgresql-15")
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
