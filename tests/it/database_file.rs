//! The database file: what is refused, in which words, and that a refused file is left as it was; one server at a
//! time; a disk that is full for a while.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rejoin::{config::Database, server::Server};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{
    client::SessionClient,
    http::Http,
    process::{Process, command, run},
    script::scripted,
    server::{TestServer, config},
    ws::within,
};

/// `rejoin serve` on a file, run to its end: it must refuse with one line that names the file.
async fn refusal(folder: &Path, file: &Path, more: &[&str]) -> String {
    let mut serve = command(folder);
    serve
        .args(["serve", "--listen", "127.0.0.1:0", "--database-url"])
        .arg(format!("sqlite:{}", file.display()))
        .args(more);
    let (status, out, err) = run(serve).await;
    assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
    assert_eq!(err.lines().count(), 1, "one line: {err}");
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(err.starts_with("error: ") && err.contains(name), "it names the file: {err}");
    err
}

/// Opens a file as any other program would.
async fn sqlite(file: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(file).create_if_missing(true).connect().await.unwrap()
}

async fn execute(file: &Path, sql: &'static str) {
    let mut connection = sqlite(file).await;
    connection.execute(sql).await.unwrap();
    connection.close().await.unwrap();
}

/// What is in a folder: names and contents, lock files apart.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.is_file() && path.extension().is_none_or(|extension| extension != "lock"))
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// A database that a server has used and left.
async fn used(folder: &Path) -> PathBuf {
    let mut server = Process::start(folder, &["--echo-delay", "0ms"]).await;
    let http = Http::new(&server.http("/"));
    http.post("/api/sessions/s/messages", &json!({ "text": "hi", "answer": false })).await.ok(202);
    server.signal("TERM").await;
    assert!(server.ended().await.success());
    folder.join("rejoin.db")
}

#[tokio::test]
async fn a_file_that_is_no_database_of_ours_is_refused_and_left_as_it_was() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("notes.txt"), "Dear diary").unwrap();
    fs::write(path("short.db"), "SQLite").unwrap();
    fs::write(path("torn.db"), [b"SQLite format 3\0".as_slice(), &[0xab; 3_000]].concat()).unwrap();
    execute(&path("other.db"), "CREATE TABLE a (b); CREATE TABLE c (d); CREATE TABLE e (f); INSERT INTO a VALUES (1)")
        .await;
    execute(&path("one.db"), "CREATE TABLE birds (name); INSERT INTO birds VALUES ('wren')").await;
    execute(&path("view.db"), "CREATE VIEW one AS SELECT 1").await;
    execute(
        &path("migrated.db"),
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
         installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL,
         execution_time BIGINT NOT NULL); INSERT INTO _sqlx_migrations VALUES (1, 'theirs', 0, 1, x'00', 0)",
    )
    .await;
    execute(&path("marked.db"), "PRAGMA application_id = 7").await;
    execute(&path("wal.db"), "PRAGMA journal_mode = wal; CREATE TABLE a (b); CREATE TABLE c (d); CREATE TABLE e (f)")
        .await;
    let before = contents(folder.path());
    assert_eq!(before.len(), 9);
    for (file, _) in &before {
        refusal(folder.path(), file, &[]).await;
        refusal(folder.path(), file, &["--no-migrate"]).await;
        assert!(contents(folder.path()) == before, "{} was changed, or something was left beside it", file.display());
    }
}

#[tokio::test]
async fn a_directory_a_missing_folder_and_a_dangling_link_are_refused() {
    let folder = TempDir::new().unwrap();
    let err = refusal(folder.path(), folder.path(), &[]).await;
    assert!(err.contains("directory"), "{err}");
    let err = refusal(folder.path(), &folder.path().join("missing/rejoin.db"), &[]).await;
    assert!(err.contains("missing"), "{err}");
    std::os::unix::fs::symlink(folder.path().join("nowhere/x.db"), folder.path().join("link.db")).unwrap();
    refusal(folder.path(), &folder.path().join("link.db"), &[]).await;
    assert!(!folder.path().join("missing").exists() && !folder.path().join("nowhere").exists());
}

#[tokio::test]
async fn a_read_only_file_is_refused() {
    let folder = TempDir::new().unwrap();
    let file = used(folder.path()).await;
    let mut permissions = fs::metadata(&file).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&file, permissions).unwrap();
    let before = contents(folder.path());
    let err = refusal(folder.path(), &file, &[]).await;
    assert!(err.contains("read-only"), "{err}");
    assert!(contents(folder.path()) == before, "the file was changed, or something was left beside it");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_left_as_it_was() {
    let folder = TempDir::new().unwrap();
    let file = used(folder.path()).await;
    execute(
        &file,
        "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time)
         VALUES (9999, 'the future', CURRENT_TIMESTAMP, 1, x'00', 0)",
    )
    .await;
    let before = contents(folder.path());
    for more in [&[][..], &["--no-migrate"]] {
        let err = refusal(folder.path(), &file, more).await;
        assert!(err.contains("newer"), "{err}");
        assert!(contents(folder.path()) == before, "the file was changed, or something was left beside it");
    }
}

#[tokio::test]
async fn no_migrate_makes_no_file_and_opens_one_that_is_up_to_date() {
    let folder = TempDir::new().unwrap();
    let fresh = folder.path().join("fresh.db");
    let err = refusal(folder.path(), &fresh, &["--no-migrate"]).await;
    assert!(err.contains("migrate"), "{err}");
    assert!(!fresh.exists(), "a refused start made the file");
    let empty = folder.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    refusal(folder.path(), &empty, &["--no-migrate"]).await;
    assert_eq!(fs::read(&empty).unwrap(), b"", "a refused start wrote the file");
    let mut migrate = command(folder.path());
    migrate.args(["migrate", "--database-url", "sqlite:fresh.db"]);
    let (status, _, err) = run(migrate).await;
    assert!(status.success(), "{err}");
    let server = Process::start(folder.path(), &["--database-url", "sqlite:fresh.db", "--no-migrate"]).await;
    Http::new(&server.http("/")).get("/readyz").await.ok(200);
}

#[tokio::test]
async fn a_second_server_on_the_same_file_is_refused_whatever_name_it_uses() {
    let folder = TempDir::new().unwrap();
    let first = Process::start(folder.path(), &[]).await;
    let file = folder.path().join("rejoin.db");
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    let around = folder.path().join("sub/../rejoin.db");
    for name in [&file, &around] {
        let err = refusal(folder.path(), name, &[]).await;
        assert!(err.contains("in use") && err.contains("rejoin.db"), "{err}");
    }
    let mut serve = command(folder.path());
    serve.args(["serve", "--listen", "127.0.0.1:0", "--database-url", "sqlite:link.db"]);
    let (status, _, err) = run(serve).await;
    assert_eq!(status.code(), Some(1));
    assert!(err.contains("in use") && err.contains("rejoin.db"), "{err}");
    // A hard link has another path, and so another lock file: it is the file itself that tells.
    let hard = folder.path().join("hard.db");
    fs::hard_link(&file, &hard).unwrap();
    let err = refusal(folder.path(), &hard, &[]).await;
    assert!(err.contains("in use") && err.contains("hard.db"), "{err}");
    let mut migrate = command(folder.path());
    migrate.args(["migrate", "--new-history"]);
    assert_eq!(run(migrate).await.0.code(), Some(1), "migrate takes the lock too");
    Http::new(&first.http("/")).get("/readyz").await.ok(200);
}

#[tokio::test]
async fn a_second_server_in_the_same_process_is_refused_too() {
    let (first, _script) = TestServer::start().await;
    let (agents, _script) = scripted();
    let mut second = config(first.database().parent().unwrap());
    second.database = Database::Sqlite(first.database());
    let error = Server::start_with(second, agents).await.err().expect("two servers on one file").to_string();
    assert!(error.contains("in use") && error.contains("rejoin.db"), "{error}");
    first.stop().await;
}

#[tokio::test]
async fn a_lock_file_that_a_killed_server_left_behind_hinders_nobody() {
    let folder = TempDir::new().unwrap();
    let first = Process::start(folder.path(), &["--echo-delay", "10s"]).await;
    let http = Http::new(&first.http("/"));
    let sent = http.post("/api/sessions/s/messages", &json!({ "text": "hi" })).await.ok(202);
    first.kill().await;
    assert!(folder.path().join("rejoin.db.lock").exists());
    let second = Process::start(folder.path(), &[]).await;
    let http = Http::new(&second.http("/"));
    let session = http.get("/api/sessions/s").await.ok(200);
    assert_eq!((&session["session"]["status"], &session["turns"]), (&"idle".into(), &json!([])));
    let messages = http.get("/api/sessions/s/messages").await.ok(200);
    assert_eq!(messages["ended"][0]["id"], sent["turn_id"]);
    assert_eq!(
        (&messages["ended"][0]["status"], &messages["ended"][0]["reason"]),
        (&"cancelled".into(), &"owner_gone".into())
    );
}

/// A server whose folder is a small disk of its own, in a mount namespace of its own.
struct SmallDisk {
    server: Process,
    _folder: TempDir,
    root: PathBuf,
}

impl SmallDisk {
    async fn start(echo_delay: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let mut shell = Command::new("unshare");
        let script = "mount -t tmpfs -o size=2m tmpfs \"$1\" && cd \"$1\" && shift && exec \"$@\"";
        shell.args(["-rm", "sh", "-c", script, "sh"]).arg(folder.path()).arg(env!("CARGO_BIN_EXE_rejoin"));
        shell.args(["serve", "--listen", "127.0.0.1:0", "--echo-delay", echo_delay, "--log-level", "off"]);
        shell.kill_on_drop(true).stdout(std::process::Stdio::piped());
        let server = Process::spawn(shell).await;
        let root = PathBuf::from(format!("/proc/{}/root{}", server.id(), folder.path().display()));
        Self { server, _folder: folder, root }
    }

    /// Takes all the space that is left, to the last byte.
    fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.root.join("filler")).unwrap();
        for size in [64 * 1024, 4096, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.root.join("filler")).unwrap();
    }
}

/// Sends until one is refused; the numbers of those that were taken.
async fn send_until_refused(client: &mut SessionClient) -> Vec<String> {
    let mut taken = Vec::new();
    for number in 0..100 {
        let id = format!("filling-{number}");
        let payload = json!({ "id": id, "text": "y".repeat(60_000), "answer": false });
        let (status, response) = client.ask("send", payload).await;
        if status == "error" {
            assert_eq!(response["reason"], "unavailable", "{response}");
            return taken;
        }
        taken.push(id);
    }
    panic!("the disk never fills");
}

/// The whole log as readers see it.
async fn whole_log(http: &Http, session: &str) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event["seq"].as_u64().unwrap());
        let page = http.get(&format!("/api/sessions/{session}/events?after={after}")).await.ok(200);
        let more = page["events"].as_array().unwrap().clone();
        if more.is_empty() {
            assert_eq!(page["last_seq"], after);
            return events;
        }
        events.extend(more);
    }
}

/// Copies the database, as a crash at this moment would leave it, and checks that every log is gapless up to its head,
/// and that messages and their events go together.
async fn check_rows(disk: &SmallDisk) {
    let copy = TempDir::new().unwrap();
    disk.server.signal("STOP").await;
    for name in ["rejoin.db", "rejoin.db-wal"] {
        fs::copy(disk.root.join(name), copy.path().join(name)).unwrap();
    }
    disk.server.signal("CONT").await;
    let mut connection = sqlite(&copy.path().join("rejoin.db")).await;
    let logs: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT s.id, count(e.seq), coalesce(max(e.seq), 0) FROM sessions s
         LEFT JOIN events e ON e.session_key = s.key GROUP BY s.key",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(logs.iter().any(|(id, count, _)| id == "s" && *count > 0));
    for (id, count, highest) in logs {
        assert_eq!(count, highest, "the log of {id} has a hole");
    }
    let lonely: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM messages m WHERE NOT EXISTS (SELECT 1 FROM events e
                 WHERE e.session_key = m.session_key AND e.seq = m.seq))
              + (SELECT count(*) FROM events e WHERE e.kind = 'message_added' AND NOT EXISTS (SELECT 1 FROM messages m
                 WHERE m.session_key = e.session_key AND m.seq = e.seq))",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(lonely, 0, "a message without its event, or an event without its message");
    connection.close().await.unwrap();
}

fn added(events: &[Value]) -> Vec<&str> {
    let messages = events.iter().filter(|event| event["type"] == "message_added");
    messages.map(|event| event["data"]["message"]["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_full_disk_refuses_sends_and_leaves_nothing_half_written_and_the_server_recovers() {
    let disk = SmallDisk::start("0ms").await;
    let mut ada = SessionClient::join(&disk.server.ws("ada"), "s").await;
    let before = ada.ok("send", json!({ "id": "before", "text": "hi", "answer": false })).await;
    assert_eq!(before["duplicate"], false);
    disk.fill();
    let taken = send_until_refused(&mut ada).await;
    // Reads go on, and show what was written and nothing else.
    let http = Http::new(&disk.server.http("/"));
    let refused = format!("filling-{}", taken.len());
    let events = whole_log(&http, "s").await;
    assert!(!added(&events).contains(&refused.as_str()), "a refused send left a message");
    http.post("/api/sessions/new/messages", &json!({ "text": "z".repeat(60_000) })).await.refuses(503, "unavailable");
    disk.free();
    within("the server to write again", async {
        while ada.ask("send", json!({ "id": refused, "text": "y".repeat(60_000), "answer": false })).await.0 != "ok" {}
    })
    .await;
    let after = ada.send("and an answer").await;
    assert_eq!(ada.end_of(&after["turn_id"]).await, "completed");
    let events = whole_log(&http, "s").await;
    let mut expected = vec!["before".to_owned()];
    expected.extend(taken);
    expected.extend([refused, after["message_id"].as_str().unwrap().to_owned()]);
    assert_eq!(added(&events), expected);
    check_rows(&disk).await;
    let history = http.get("/api/sessions/s/messages?limit=500").await.ok(200);
    assert_eq!(history["messages"].as_array().unwrap().last().unwrap()["role"], "assistant");
    within("readiness", async { while http.get("/readyz").await.status != 200 {} }).await;
}

#[tokio::test]
async fn an_answer_that_streams_while_the_disk_is_full_goes_on_when_there_is_space() {
    let disk = SmallDisk::start("20ms").await;
    let mut ada = SessionClient::join(&disk.server.ws("ada"), "s").await;
    let text: Vec<String> = (0..150).map(|number| format!("word-{number:03}")).collect();
    let text = text.join(" ");
    let id = ada.send(&text).await["turn_id"].clone();
    ada.until("a word", |ada| ada.answer_of(&id).is_some_and(|answer| answer.contains("word-000"))).await;
    disk.fill();
    send_until_refused(&mut ada).await;
    assert!(ada.ended(&id).is_none(), "a full disk ends no turn");
    disk.free();
    assert_eq!(ada.end_of(&id).await, "completed");
    assert_eq!(ada.answer_of(&id).unwrap(), format!("You said: {text}"));
    let fresh = SessionClient::join(&disk.server.ws("ben"), "s").await;
    assert_eq!(fresh.answer_of(&id), ada.answer_of(&id));
    check_rows(&disk).await;
}
